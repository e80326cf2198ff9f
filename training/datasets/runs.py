"""COCO's run-length encoded masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def counts_of(text: str) -> list[int]:
    """
    Return the run lengths behind COCO's compressed text.

    Each character carries five bits, lowest first, and says (sixth bit) whether more follow; the
    last one's highest bit is the sign. From the fourth number on, the difference to the number two
    places before is stored.

    Raises
    ------
    ValueError
        If the text is cut off, or no such text.

    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f'found the character {character!r}')
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError('the text is cut off')
    return counts


def mask_of(counts: Sequence[int] | str, hw: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """
    Return the mask that run lengths describe.

    Parameters
    ----------
    counts : sequence of int or str
        Lengths of alternating runs of pixels outside and inside, column by column, or COCO's
        compressed text of them.
    hw : (int, int)
        Height and width.

    Returns
    -------
    bool[H, W]

    Raises
    ------
    ValueError
        If the runs do not fill the mask exactly.

    """
    runs = np.asarray(counts_of(counts) if isinstance(counts, str) else counts, np.int64)
    height, width = hw
    if runs.ndim != 1 or (runs < 0).any() or runs.sum() != height * width:
        raise ValueError(f'the runs make {int(runs.sum())} pixels, expected {width}x{height}')
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(width, height).T
