"""Read pictures and masks exactly as they are in their files."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from bisenet_ros.core import jpeg
from training.datasets.base import Pixels, UnreadableError
from training.datasets.headers import changed_by_decoder

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.ppm')
MASK_SUFFIXES = ('.png', '.bmp', '.tif', '.tiff', '.pgm', '.ppm')

_PNG = b'\x89PNG\r\n\x1a\n'
_HEADER_END = len(_PNG) + 8 + 13 + 4  # signature; length and type, data and CRC of IHDR
_GREY, _INDEXED = 0, 3


def read_bytes(path: Path, what: str = 'image') -> bytes:
    """
    Return a file's content.

    Raises
    ------
    UnreadableError
        If it cannot be read, or is empty.

    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnreadableError(
            f'{path}: cannot be read ({error.strerror}); mend it or leave it out.') from error
    if not content:
        raise UnreadableError(
            f'{path}: not a readable {what}: it is empty; replace it or leave it out.')
    return content


def decode(content: bytes, flags: int, where: str) -> npt.NDArray[Any]:
    """
    Return a decoded image in OpenCV's channel order.

    Raises
    ------
    UnreadableError
        If it is no image, or cut off.

    """
    try:
        found = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error as error:
        raise UnreadableError(
            f'{where}: not a readable image ({error.err}); replace it or leave it out.') from error
    if found is None or jpeg.breaks_off(content):
        raise UnreadableError(f'{where}: not a readable image; replace it or leave it out.')
    return found


def decode_rgb(content: bytes, where: str, upright: bool = True) -> Pixels:
    """Return ``uint8[H, W, 3]`` RGB, ``upright``: turned where the file says how (Exif)."""
    flags = cv2.IMREAD_COLOR | (0 if upright else cv2.IMREAD_IGNORE_ORIENTATION)
    return cv2.cvtColor(decode(content, flags, where), cv2.COLOR_BGR2RGB)


def read_rgb(path: Path, upright: bool = True) -> Pixels:
    """
    Return a picture file as ``uint8[H, W, 3]`` RGB.

    Parameters
    ----------
    path : Path
    upright : bool
        Turned where the file says how (Exif), not as it is stored.

    Raises
    ------
    UnreadableError
        If it is not a readable image.

    """
    return decode_rgb(read_bytes(path), str(path), upright)


def turned(path: Path | None) -> str:
    """Return what to say of a picture whose size is not that of its labels: Exif may tell why."""
    if path is None:
        return ''
    content, where = read_bytes(path), str(path)
    shown = decode(content, cv2.IMREAD_COLOR, where).shape
    stored = decode(content, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION, where).shape
    if shown == stored:
        return ''
    return (f' The picture is stored as {stored[1]}x{stored[0]} and turned by its Exif '
            'orientation: label the turned picture, or store it turned.')


def chunks_of(content: bytes) -> Iterator[bytes]:
    """Yield the chunks of a PNG file behind its header, with their length, type and CRC."""
    at = _HEADER_END
    while at + 8 <= len(content):
        end = at + 12 + struct.unpack_from('>I', content, at)[0]
        yield content[at:end]
        at = end


def colour_table(path: Path) -> list[tuple[int, int, int]]:
    """
    Return the RGB colour table of an indexed PNG file, an empty one for other files.

    Raises
    ------
    UnreadableError
        If the file cannot be read.

    """
    content = read_bytes(path)
    if not content.startswith(_PNG) or content[len(_PNG) + 17:len(_PNG) + 18] != b'\x03':
        return []
    table = next((each[8:-4] for each in chunks_of(content) if each[4:8] == b'PLTE'), b'')
    return list(zip(table[::3], table[1::3], table[2::3], strict=False))


def samples_of_png(content: bytes, where: str) -> Pixels | None:
    """
    Return the stored samples of a PNG file where OpenCV would change them, None for other files.

    OpenCV replaces indices by the colour table's colours, and spreads grey values of fewer than 8
    bits over 0..255. In label masks (of VOC's kind, or of one bit) the stored numbers are the
    classes. So the header of an indexed file is rewritten to that of a grey one, and the spread
    undone.

    """
    if not content.startswith(_PNG) or len(content) < _HEADER_END:
        return None
    header = bytearray(content[len(_PNG) + 8:_HEADER_END - 4])
    depth, colour_type = header[8], header[9]
    if colour_type != _INDEXED and (colour_type != _GREY or depth >= 8):
        return None
    header[9] = _GREY
    chunk = b'IHDR' + bytes(header)
    # A grey image must not have a colour table, and a transparency of another length.
    kept = [each for each in chunks_of(content) if each[4:8] not in (b'PLTE', b'tRNS')]
    grey = (_PNG + struct.pack('>I', 13) + chunk + struct.pack('>I', zlib.crc32(chunk))
            + b''.join(kept))
    values = decode(grey, cv2.IMREAD_UNCHANGED, where)
    if depth not in (1, 2, 4, 8) or values.ndim != 2:
        raise UnreadableError(f'{where}: not a readable image; replace it or leave it out.')
    return values // (255 // ((1 << depth) - 1))


def read_mask(path: Path) -> npt.NDArray[Any]:
    """
    Return a label mask without changing a value.

    Returns
    -------
    uint8[H, W], uint16[H, W] or uint8[H, W, 3]
        Ids (also of files with a colour table, or of fewer bits), or RGB colours; an alpha
        channel is dropped.

    Raises
    ------
    UnreadableError
        If it is not a readable image, or of another type, or of one whose values would change.

    """
    content = read_bytes(path)
    if (samples := samples_of_png(content, str(path))) is not None:
        return samples
    if reason := changed_by_decoder(content):
        raise UnreadableError(
            f'{path}: found {reason}, expected class ids of 8 or 16 bits, stored as they are; '
            'save it as PNG.')
    found = decode(content, cv2.IMREAD_UNCHANGED, str(path))
    if found.ndim == 2 and found.dtype in (np.uint8, np.uint16):
        return found
    if found.ndim == 3 and found.dtype == np.uint8 and found.shape[2] in (3, 4):
        return cv2.cvtColor(found[..., :3], cv2.COLOR_BGR2RGB)
    raise UnreadableError(
        f'{path}: found {found.dtype}{list(found.shape)}, expected class ids of 8 or 16 bits or '
        'RGB colours of 8 bits; convert it.')


def read_colours(path: Path) -> Pixels:
    """
    Return the colours that a label mask shows, as ``uint8[H, W, 3]`` RGB.

    Programs that make PNG files smaller replace colours by indices into a table of them, or by
    grey values; both stand for the colours they are shown in. An alpha channel is dropped.

    Raises
    ------
    UnreadableError
        If it is not a readable image, or of another type.

    """
    found = decode(read_bytes(path), cv2.IMREAD_UNCHANGED, str(path))
    if found.dtype == np.uint8 and found.ndim == 2:
        return cv2.cvtColor(found, cv2.COLOR_GRAY2RGB)
    if found.dtype == np.uint8 and found.ndim == 3 and found.shape[2] in (3, 4):
        return cv2.cvtColor(found[..., :3], cv2.COLOR_BGR2RGB)
    raise UnreadableError(
        f'{path}: found {found.dtype}{list(found.shape)}, expected RGB colours of 8 bits; '
        'convert it.')
