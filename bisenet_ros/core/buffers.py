"""
Memory that is used again for every frame.

A fresh array of a frame's size costs more than most of what is done with it: the system hands out
its pages one by one, and takes them back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

#: Takes the name of a result and its shape, returns ``uint8`` of that shape to write it into.
Allocate = Callable[[str, tuple[int, ...]], Bytes]


def new_array(name: str, shape: tuple[int, ...]) -> Bytes:
    """Return memory that nobody else has; an ``Allocate``."""
    return np.empty(shape, np.uint8)


class Scratch:
    """
    Arrays by name, whose memory grows to the largest that was asked for and stays.

    Not thread-safe. An array holds what it held until the next call with its name.

    """

    def __init__(self) -> None:
        self._blocks: dict[str, Bytes] = {}
        self._arrays: dict[str, npt.NDArray[Any]] = {}

    def array(
        self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike = np.uint8,
    ) -> npt.NDArray[Any]:
        """Return a C-contiguous array; its values are whatever was there."""
        found = self._arrays.get(name)
        if found is not None and found.shape == shape and found.dtype == dtype:
            return found
        size = math.prod(shape) * np.dtype(dtype).itemsize
        block = self._blocks.get(name)
        if block is None or block.size < size:
            block = self._blocks[name] = np.empty(size, np.uint8)
        array = self._arrays[name] = block[:size].view(dtype).reshape(shape)
        return array

    def __call__(self, name: str, shape: tuple[int, ...]) -> Bytes:
        """Return ``uint8``: an ``Allocate``."""
        return self.array(name, shape)
