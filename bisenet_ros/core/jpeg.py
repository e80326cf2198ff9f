"""Whether a JPEG is whole: its decoder would fill what is missing with grey."""

from __future__ import annotations

import re

START = b'\xff\xd8\xff'
END = b'\xff\xd9'

#: A marker; 0xff before it is padding, and 0xff 0x00 is none.
_MARKER = re.compile(rb'\xff([^\0\xff])')


def breaks_off(content: bytes) -> bool:
    """
    Tell whether a file is a JPEG without its end, whatever follows that: padding, metadata.

    In the coded pixels 0xff 0xd9 is the end and nothing else; in the segments before them it may
    be the end of a thumbnail. So the segments are passed over by their lengths (ITU-T T.81,
    section B.1.1).

    """
    if not content.startswith(START):
        return False
    position = len(START) - 1
    while marker := _MARKER.search(content, position):
        code, position = marker[1][0], marker.end()
        if code in (0xd9, 0xda):  # end, start of the coded pixels
            return content.rfind(END, marker.start()) < 0
        if code != 0x01 and not 0xd0 <= code <= 0xd8:  # those have no length
            position += max(2, int.from_bytes(content[position:position + 2], 'big'))
    return True
