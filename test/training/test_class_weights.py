"""Class shares are measured as training sees them, and weights follow from them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from training.class_weights import SAMPLED_FRAMES, class_shares, inverse_log, merged


class Painted:
    """Frames of one class each, of different sizes, a quarter of them void."""

    def __init__(self, classes: list[int], size: int) -> None:
        self._classes, self._size = classes, size
        self.read_indices: list[int] = []

    def __len__(self) -> int:
        return len(self._classes)

    def name(self, index: int) -> str:
        return str(index)

    def sequence(self, index: int) -> str:
        return str(index)

    def read(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        self.read_indices.append(index)
        labels = np.full((self._size, self._size), self._classes[index], np.uint8)
        labels[::2, ::2] = 255
        return np.zeros((self._size, self._size, 3), np.uint8), labels


def test_shares_are_those_of_an_epoch() -> None:
    small, large = Painted([0, 0, 0, 1], 4), Painted([2], 40)
    shares = class_shares([small, large], [3.0, 1.0], 4)
    np.testing.assert_allclose(shares, [0.75 * 0.75, 0.75 * 0.25, 0.25, 0])


def test_large_data_sets_are_sampled_evenly() -> None:
    many = Painted([0] * 5000, 2)
    class_shares([many], [1.0], 2)
    assert len(many.read_indices) == SAMPLED_FRAMES
    assert many.read_indices[0] == 0 and many.read_indices[-1] == 4999
    assert max(np.diff(many.read_indices)) - min(np.diff(many.read_indices)) <= 1


def test_weights_are_enet_s_with_a_mean_of_one() -> None:
    shares = np.array([0.7, 0.25, 0.05, 0.0])
    weights = np.array(inverse_log(shares))
    assert (weights * shares).sum() == pytest.approx(1)
    assert weights[2] / weights[0] == pytest.approx(np.log(1.72) / np.log(1.07))
    assert (np.diff(weights) > 0).all()


def test_shares_are_merged_like_labels() -> None:
    shares = merged(np.array([0.1, 0.2, 0.3, 0.4]), (0, 1, 0, 0), 2)
    np.testing.assert_allclose(shares, [0.8, 0.2])
