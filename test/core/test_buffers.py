"""Memory that is used again: it is the same, it grows, and nobody gets another's."""

from __future__ import annotations

import numpy as np

from bisenet_ros.core.buffers import Scratch, new_array


def test_same_request_same_memory() -> None:
    scratch = Scratch()
    first = scratch.array('a', (4, 6), np.int16)
    assert (first.shape, first.dtype) == ((4, 6), np.int16)
    assert first.flags.c_contiguous and first.flags.writeable
    assert scratch.array('a', (4, 6), np.int16) is first


def test_smaller_and_other_types_share_the_block_larger_ones_replace_it() -> None:
    scratch = Scratch()
    large = scratch.array('a', (10, 10), np.float32)
    small = scratch.array('a', (3, 5))
    assert np.shares_memory(large, small)
    assert (small.shape, small.dtype) == ((3, 5), np.uint8)
    assert np.shares_memory(scratch.array('a', (10, 10), np.float32), large)
    assert not np.shares_memory(scratch.array('a', (10, 11), np.float32), large)


def test_names_share_nothing() -> None:
    scratch = Scratch()
    assert not np.shares_memory(scratch('a', (8, 8)), scratch('b', (8, 8)))
    assert scratch('a', (8, 8)).dtype == np.uint8


def test_new_arrays_are_new() -> None:
    first, second = new_array('a', (2, 3, 3)), new_array('a', (2, 3, 3))
    assert (first.shape, first.dtype) == ((2, 3, 3), np.uint8)
    assert not np.shares_memory(first, second)
