"""Files whose stored numbers the decoder changes, told by their headers."""

from __future__ import annotations

import re
import struct

from training.datasets.base import counted

#: Numbers as text (PGM, PPM): width, height and the largest one; comments end with their line.
_GAP = rb'(?:\s|#[^\r\n]*)+'
_WRITTEN_OUT = re.compile(rb'P[23]' + 2 * (_GAP + rb'\d+') + _GAP + rb'(\d{1,9})')

#: Of TIFF's first directory (TIFF 6.0, section 8).
_BITS, _PHOTOMETRIC, _SHORT = 258, 262, 3
_WHITE_IS_ZERO, _PALETTE = 0, 3


def changed_by_decoder(content: bytes) -> str:
    """
    Say what makes OpenCV return other numbers than a file stores; '' where it returns those.

    It spreads fewer than 8 bits over 0..255, and replaces indices by the greys or colours of a
    table. Where it does so with PNG files, ``images.samples_of_png`` undoes it.

    """
    try:
        if content.startswith((b'II*\0', b'MM\0*')):
            return _of_tiff(content)
        if content.startswith(b'BM'):
            return _of_bmp(content)
    except struct.error:  # cut off: for the decoder to judge
        return ''
    if found := _WRITTEN_OUT.match(content):
        largest = int(found[1])
        return f'a largest value of {largest}' if largest < 255 else ''
    return '1 bit a pixel' if content.startswith((b'P1', b'P4')) else ''


def _of_tiff(content: bytes) -> str:
    order = '<' if content.startswith(b'II') else '>'
    at, = struct.unpack_from(f'{order}I', content, 4)
    count, = struct.unpack_from(f'{order}H', content, at)
    found = {_BITS: 1, _PHOTOMETRIC: 1}  # one bit is what TIFF takes where nothing is said
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, values = struct.unpack_from(f'{order}HHI', content, entry)
        if tag in found and kind == _SHORT:
            # More than two values do not fit here: several channels, of 8 bits or more.
            found[tag], = (struct.unpack_from(f'{order}H', content, entry + 8) if values < 3
                           else (8,))
    if found[_PHOTOMETRIC] == _PALETTE:
        return 'a colour table'
    if found[_BITS] < 8:
        return f'{counted(found[_BITS], "bit")} a pixel'
    return 'white stored as 0' if found[_PHOTOMETRIC] == _WHITE_IS_ZERO else ''


def _of_bmp(content: bytes) -> str:
    header, = struct.unpack_from('<I', content, 14)
    old = header == 12  # OS/2's
    bits, = struct.unpack_from('<H', content, 24 if old else 28)
    if bits > 8:
        return ''
    colours = 0 if old else struct.unpack_from('<I', content, 46)[0]
    size, start = 3 if old else 4, 14 + header
    # A damaged header may state more colours than the bits can name.
    table = content[start:start + size * min(colours or 1 << bits, 1 << bits)]
    same = all(table[at:at + 3] == bytes([at // size]) * 3 for at in range(0, len(table), size))
    return '' if same else f'{counted(bits, "bit")} a pixel and a colour table'
