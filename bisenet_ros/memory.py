"""Keep the C library from giving a frame's memory back to the system after every frame."""

from __future__ import annotations

import ctypes
import sys

#: malloc.h of the GNU C library.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

#: The largest that it takes; a frame of 3840x2160 in colour has 25 MB.
LARGEST_KEPT = 32 * 2**20

#: So much may lie idle at the heap's end.
IDLE_KEPT = 64 * 2**20


def keep_freed_memory() -> bool:
    """
    Reuse the memory of large blocks.

    By default a block of more than 0.1 MB (a limit that grows to the largest block ever freed) is
    mapped for itself, and what is freed at the heap's end goes back to the system. Each frame and
    each mask is such a block, in Python and once more in the middleware, and the system fills
    every page of it with zeros when it is touched again: of a 1280x720 frame that costs more time
    than copying it.

    Returns
    -------
    bool
        False where the C library is another.

    """
    if not sys.platform.startswith('linux'):
        return False
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is None:  # musl
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, LARGEST_KEPT)
                and mallopt(_M_TRIM_THRESHOLD, IDLE_KEPT))
