"""Frames that are in a data set twice, or in two of them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from training.datasets.base import Pixels

#: Height and width of the grid of brightness differences that tells frames apart.
_GRID_HW = (16, 16)
BITS = _GRID_HW[0] * _GRID_HW[1]

#: Near twins differ in at most so many bits.
NEAR_BITS = 20

_ROWS_AT_ONCE = 2048


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """
    What is kept of a frame to find it again.

    Parameters
    ----------
    name : str
    pixels, labels : bytes
        Hashes of the decoded picture and its labels.
    bits : uint8[BITS / 8]
        Difference hash: is a cell of the shrunken picture brighter than its left neighbour?

    """

    name: str
    pixels: bytes
    labels: bytes
    bits: npt.NDArray[np.uint8]


def digest(array: npt.NDArray[np.uint8]) -> bytes:
    """Return a hash of an array's shape and values."""
    kept = hashlib.blake2b(repr(array.shape).encode(), digest_size=16)
    kept.update(np.ascontiguousarray(array).data)
    return kept.digest()


def fingerprint(name: str, rgb: Pixels, labels: Pixels) -> Fingerprint:
    """Return what is kept of a frame."""
    height, width = _GRID_HW
    grey = cv2.resize(
        cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), (width + 1, height), interpolation=cv2.INTER_AREA)
    return Fingerprint(name, digest(rgb), digest(labels), np.packbits(grey[:, 1:] > grey[:, :-1]))


def duplicates(prints: Sequence[Fingerprint]) -> list[list[Fingerprint]]:
    """Return the groups of frames with the very same picture."""
    groups: dict[bytes, list[Fingerprint]] = {}
    for each in prints:
        groups.setdefault(each.pixels, []).append(each)
    return [group for group in groups.values() if len(group) > 1]


def _signs(prints: Sequence[Fingerprint]) -> npt.NDArray[np.float32]:
    bits = np.unpackbits(np.stack([each.bits for each in prints]), axis=1)
    return bits.astype(np.float32) * 2 - 1


def near_twins(
    one: Sequence[Fingerprint], two: Sequence[Fingerprint],
) -> list[tuple[Fingerprint, Fingerprint, int]]:
    """
    Return the frames of one set that have a near twin in another.

    Returns
    -------
    list of (Fingerprint, Fingerprint, int)
        A frame of ``one``, the nearest frame of ``two``, and the bits in which they differ: at
        most ``NEAR_BITS``.

    """
    if not one or not two:
        return []
    others, found = _signs(two).T, []
    for start in range(0, len(one), _ROWS_AT_ONCE):
        part = one[start:start + _ROWS_AT_ONCE]
        # Of signs, the product counts equal bits minus different ones.
        different = (BITS - _signs(part) @ others) / 2
        nearest = different.argmin(axis=1)
        for each, at, bits in zip(part, nearest, different.min(axis=1), strict=True):
            if bits <= NEAR_BITS:
                found.append((each, two[int(at)], int(bits)))
    return found
