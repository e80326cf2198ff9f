"""Confidence that is honest, too sure or not sure enough, made to be so."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip('cv2', reason='opencv-python-headless is not installed')

from training.reliability import (
    BINS, fit_temperature, Reliability, reliability_of,
)


def counted(confidence: int, right: int, wrong: int) -> Reliability:
    """Count pixels of one confidence."""
    labels = np.zeros((1, right + wrong), np.uint8)
    predicted = labels.copy()
    predicted[0, right:] = 1
    found = Reliability()
    found.update(labels, predicted, np.full_like(labels, confidence))
    return found


def test_honest_confidence_has_no_error() -> None:
    assert counted(204, 8, 2).ece() == pytest.approx(0.0)  # 204 / 255 = 0.8
    assert counted(255, 5, 0).ece() == 0.0


def test_error_is_the_distance_weighted_by_pixels() -> None:
    found = counted(204, 10, 0)  # 0.8, and always right
    assert found.ece() == pytest.approx(0.2)
    found += counted(255, 15, 15)  # sure, and right by half
    assert found.ece() == pytest.approx(0.25 * 0.2 + 0.75 * 0.5)


def test_too_sure_and_too_unsure_in_one_bin_make_up_for_each_other() -> None:
    found = counted(221, 5, 5)  # 0.867, in the bin up to 0.867
    found += counted(205, 10, 0)  # 0.804, in the same
    assert [part.pixels for part in found.bins() if part.pixels] == [20]
    assert found.ece() == pytest.approx(abs((221 + 205) / 2 / 255 - 0.75))


def test_bins_are_closed_above() -> None:
    for value, place in ((0, 0), (17, 0), (18, 1), (34, 1), (238, 13), (239, 14), (255, 14)):
        bins = counted(value, 1, 0).bins()
        assert len(bins) == BINS
        assert [part.pixels for part in bins].index(1) == place
        assert bins[place].low - 1e-9 <= value / 255 <= bins[place].high + 1e-9


def test_void_and_unlabeled_are_not_counted() -> None:
    found = Reliability()
    found.update(np.array([[255, 0, 0]], np.uint8), np.array([[0, 255, 0]], np.uint8),
                 np.array([[10, 20, 255]], np.uint8))
    assert found.pixels.sum() == 1 and found.pixels[255] == 1
    assert np.isnan(Reliability().ece())


def drawn(temperature: float, classes: int, pixels: int = 40_000) -> tuple[
        npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Draw labels from the softmax of logits, then return logits too large by a factor."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (pixels, classes))
    # The Gumbel trick draws from a softmax.
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(-1)
    return (logits * temperature).astype(np.float32), labels


@pytest.mark.parametrize(('temperature', 'classes'), [(1.0, 2), (2.5, 2), (0.4, 2), (1.7, 6)])
def test_temperature_that_was_hidden_is_found(temperature: float, classes: int) -> None:
    found = fit_temperature(*drawn(temperature, classes))
    assert found.temperature == pytest.approx(temperature, rel=0.05)
    assert found.nll_fitted <= found.nll + 1e-9
    assert found.ece_fitted < 0.01
    assert found.pixels == 40_000
    if temperature != 1.0:
        assert found.ece > 5 * found.ece_fitted


def test_likelihood_of_two_equal_logits() -> None:
    nll, ece = reliability_of(np.zeros((4, 2), np.float32), np.array([0, 1, 0, 1]), 1.0)
    assert nll == pytest.approx(np.log(2))
    assert ece == pytest.approx(abs(128 / 255 - 0.5))


def test_no_pixels_have_no_temperature() -> None:
    with pytest.raises(ValueError, match='temperature: found no labelled pixels'):
        fit_temperature(np.zeros((0, 2), np.float32), np.zeros(0, np.int64))
