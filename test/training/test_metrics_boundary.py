"""Boundary F-score on drawn shapes whose answer is known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip('cv2', reason='opencv-python-headless is not installed')

from training.boundary import boundary_f, BoundaryScore, tolerance_px

Labels = npt.NDArray[np.uint8]

#: 0.75 % of its diagonal (400) is 3 pixels.
FRAME_HW = 240, 320


def halves(edge: int, frame_hw: tuple[int, int] = FRAME_HW) -> Labels:
    """Draw class 1 right of a column."""
    labels = np.zeros(frame_hw, np.uint8)
    labels[:, edge:] = 1
    return labels


def square(top: int, left: int, side: int) -> Labels:
    labels = np.zeros(FRAME_HW, np.uint8)
    labels[top:top + side, left:left + side] = 1
    return labels


def scored(truth: Labels, predicted: Labels, classes: int = 2) -> BoundaryScore:
    score = BoundaryScore(classes)
    score.update(truth, predicted)
    return score


def test_tolerance_is_a_share_of_the_diagonal() -> None:
    assert tolerance_px(FRAME_HW) == pytest.approx(3.0)
    assert tolerance_px((6, 8)) == 1.0


@pytest.mark.parametrize(('shift', 'f'), [(0, 1.0), (3, 1.0), (4, 0.0), (40, 0.0)])
def test_outline_within_the_tolerance_is_met(shift: int, f: float) -> None:
    np.testing.assert_array_equal(scored(halves(100), halves(100 + shift)).f(), [f, f])


def test_half_of_an_outline_is_half_a_score() -> None:
    predicted = halves(100)
    predicted[:120] = halves(200)[:120]  # the upper half is a hundred pixels off
    # 240 true boundary pixels, 120 of them met, and 3 by the tolerance around the corner (the
    # predicted outline runs on along the step, from column 99 to 199 in row 119).
    truth_met = 120 + 1 + 3
    predicted_length = 120 + 120 + 100
    predicted_met = 120 + 1 + 3
    precision, recall = predicted_met / predicted_length, truth_met / 240
    found = scored(halves(100), predicted).f()[1]
    assert found == pytest.approx(2 * precision * recall / (precision + recall), abs=0.01)


def test_distance_is_euclidean() -> None:
    truth, predicted = np.zeros((20, 20), np.uint8), np.zeros((20, 20), np.uint8)
    truth[5, 5] = predicted[8, 9] = 1  # 3 down, 4 right: 5 away
    assert boundary_f(truth, predicted, 5.0) == 1.0
    assert boundary_f(truth, predicted, 4.99) == 0.0


def test_precision_and_recall_are_each_of_their_own_pixels() -> None:
    truth, predicted = np.zeros((40, 40), np.uint8), np.zeros((40, 40), np.uint8)
    truth[10, :10] = 1
    predicted[10, :5] = 1   # five met
    predicted[30, :15] = 1  # fifteen made up
    # Precision 5 / 20; recall 5 / 10, and the sixth true pixel is one away.
    precision, recall = 5 / 20, 6 / 10
    assert boundary_f(truth, predicted, 1.0) == pytest.approx(
        2 * precision * recall / (precision + recall))


def test_area_does_not_matter() -> None:
    """A thin shape that is missed costs as much of the score as its outline is long."""
    truth = square(60, 60, 100)
    assert scored(truth, square(60, 60, 100)).f()[1] == 1.0
    assert scored(truth, square(62, 62, 100)).f()[1] == 1.0  # two pixels off: 0.96 by IoU
    assert scored(truth, square(80, 80, 60)).f()[1] == 0.0  # inside, twenty off


def test_made_up_and_missed_outlines_score_nothing() -> None:
    empty = np.zeros(FRAME_HW, np.uint8)
    np.testing.assert_array_equal(scored(empty, square(50, 50, 20)).f(), [0.0, 0.0])
    np.testing.assert_array_equal(scored(square(50, 50, 20), empty).f(), [0.0, 0.0])


def test_frames_without_the_outline_do_not_count() -> None:
    score = scored(halves(100), halves(100), 3)
    score.update(np.zeros(FRAME_HW, np.uint8), np.zeros(FRAME_HW, np.uint8))
    np.testing.assert_array_equal(score.frames, [1, 1, 0])
    np.testing.assert_array_equal(score.f(), [1.0, 1.0, np.nan])
    assert score.mean_f() == 1.0
    assert np.isnan(BoundaryScore(2).mean_f())


def test_outlines_along_void_are_not_judged() -> None:
    truth = halves(100)
    truth[:, 90:130] = 255  # the outline is hidden
    np.testing.assert_array_equal(scored(truth, halves(120)).f(), [np.nan, np.nan])
    np.testing.assert_array_equal(scored(truth, halves(200)).f(), [0.0, 0.0])


def test_outlines_just_beside_void_are_not_made_up() -> None:
    """A road's edge under a band of void, found two pixels beside the band."""
    truth = halves(100)
    truth[120:, 90:130] = 255  # hidden in the lower half
    predicted = halves(100)
    predicted[120:] = halves(132)[120:]
    assert scored(truth, predicted).f()[1] > 0.93
    predicted[120:] = halves(140)[120:]  # ten pixels away from it, and forty from the edge
    assert scored(truth, predicted).f()[1] < 0.75
    # Near void, but beside an outline that is there: still met, and still wanted.
    truth = halves(100)
    truth[:, 104:110] = 255
    np.testing.assert_array_equal(scored(truth, halves(102)).f(), [1.0, 1.0])
    np.testing.assert_array_equal(scored(truth, halves(60)).f(), [0.0, 0.0])


def test_scores_of_two_parts_add_up() -> None:
    whole = scored(halves(100), halves(100))
    whole += scored(halves(100), halves(200))
    np.testing.assert_array_equal(whole.f(), [0.5, 0.5])


def test_outline_is_one_pixel_wide_and_never_the_frame() -> None:
    from training.boundary import _boundary, _labelled_pairs
    shape = np.zeros((6, 7), np.uint8)
    shape[2:4, 2:5] = 1
    found = _boundary(shape, _labelled_pairs(shape))
    np.testing.assert_array_equal(found, [
        [0, 0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 1, 0, 0],
        [0, 1, 0, 0, 1, 0, 0],
        [0, 1, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0]])
    everything = np.ones((4, 4), np.uint8)
    assert not _boundary(everything, _labelled_pairs(everything)).any()
