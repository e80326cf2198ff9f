"""Scores come from one accumulated confusion matrix, counted by hand here."""

from __future__ import annotations

import numpy as np
import pytest

cv2 = pytest.importorskip('cv2', reason='opencv-python-headless is not installed')

from training.metrics import (  # noqa: E402
    ConfusionMatrix, decision_from_logits, labels_from_logits, upsampled,
)

LABELS = np.array([[0, 0, 1, 1], [1, 1, 2, 255]], np.uint8)
PREDICTED = np.array([[0, 1, 1, 1], [0, 255, 1, 2]], np.uint8)


def test_counts_by_hand() -> None:
    matrix = ConfusionMatrix(3)
    matrix.update(LABELS, PREDICTED)
    np.testing.assert_array_equal(matrix.counts, [
        [1, 1, 0, 0],
        [1, 2, 0, 1],  # one predicted to be nothing
        [0, 1, 0, 0]])
    # Class 0: 1 hit of 2 true and 2 predicted. Class 1: 2 hits of 4 true and 4 predicted.
    np.testing.assert_allclose(matrix.iou(), [1 / 3, 2 / 6, 0.0])
    assert matrix.accuracy() == pytest.approx(3 / 7)


def test_frames_accumulate_rather_than_average() -> None:
    matrix = ConfusionMatrix(2)
    matrix.update(np.zeros((1, 1), np.uint8), np.ones((1, 1), np.uint8))  # one pixel, wrong
    matrix.update(np.zeros((3, 3), np.uint8), np.zeros((3, 3), np.uint8))  # nine, right
    np.testing.assert_allclose(matrix.iou(), [0.9, 0.0])  # a mean over frames would be 0.5


def test_void_is_not_counted_whatever_is_predicted() -> None:
    matrix = ConfusionMatrix(2)
    labels = np.full((2, 2), 255, np.uint8)
    matrix.update(labels, np.array([[0, 1], [255, 1]], np.uint8))
    assert matrix.counts.sum() == 0
    assert np.isnan(matrix.iou()).all()
    assert np.isnan(matrix.accuracy())


def test_class_that_never_occurs_has_no_score() -> None:
    matrix = ConfusionMatrix(3)
    matrix.update(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8))
    np.testing.assert_array_equal(matrix.iou(), [1.0, np.nan, np.nan])


def test_every_class_id_fits() -> None:
    ids = np.arange(255, dtype=np.uint8)[None]
    matrix = ConfusionMatrix(255)
    matrix.update(ids, ids)
    assert (matrix.iou() == 1.0).all()


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match=r'labels \(2, 4\) and predicted \(4, 2\) must'):
        ConfusionMatrix(3).update(LABELS, PREDICTED.T)


@pytest.mark.parametrize('name', ['labels', 'predicted'])
def test_unknown_ids_are_refused_and_nothing_is_counted(name: str) -> None:
    pair = {'labels': np.zeros((2, 2), np.uint8), 'predicted': np.zeros((2, 2), np.uint8)}
    pair[name][1, 0] = 7
    matrix = ConfusionMatrix(2)
    with pytest.raises(ValueError, match=f'{name}: found id 7, expected below 2 or 255'):
        matrix.update(**pair)
    assert matrix.counts.sum() == 0


def test_labels_from_logits_decides_after_upsampling() -> None:
    logits = np.zeros((2, 2, 2), np.float32)
    logits[:, 1, 1] = 4.0  # right half
    logits[:, 0, 0] = 2.0  # left half, half as sure
    labels = labels_from_logits(logits, (8, 8))
    assert labels.dtype == np.uint8 and labels.shape == (8, 8)
    # The surer side wins more than its half of the ramp between the two columns' centres
    # (pixel 1.5 and 5.5): 2 - 2t = 4t at t = 1/3, pixel 2.83.
    np.testing.assert_array_equal(labels, np.tile([0, 0, 0, 1, 1, 1, 1, 1], (8, 1)))


def test_labels_from_logits_ties_go_to_the_lower_id() -> None:
    assert (labels_from_logits(np.zeros((2, 2, 5), np.float32), (4, 4)) == 0).all()


@pytest.mark.parametrize('classes', [1, 2, 64, 65, 150, 255])
def test_any_number_of_classes_is_upsampled_class_by_class(classes: int) -> None:
    scores = np.random.default_rng(classes).standard_normal((3, 4, classes)).astype(np.float32)
    found = upsampled(scores, (9, 7))
    assert found.shape == (9, 7, classes) and found.dtype == np.float32
    for index in {0, classes // 2, classes - 1}:
        np.testing.assert_allclose(found[..., index], cv2.resize(
            np.ascontiguousarray(scores[..., index]), (7, 9), interpolation=cv2.INTER_LINEAR),
            rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(labels_from_logits(scores, (9, 7)), found.argmax(-1))


def test_labels_from_logits_of_one_class() -> None:
    assert labels_from_logits(np.ones((2, 3, 1), np.float32), (4, 6)).shape == (4, 6)


def test_precision_recall_and_f1_by_hand() -> None:
    matrix = ConfusionMatrix(3)
    matrix.update(LABELS, PREDICTED)
    np.testing.assert_allclose(matrix.precision(), [1 / 2, 2 / 4, np.nan])  # nothing said 2
    np.testing.assert_allclose(matrix.recall(), [1 / 2, 2 / 4, 0.0])
    np.testing.assert_allclose(matrix.f1(), [2 / 4, 4 / 8, 0.0])
    np.testing.assert_array_equal(matrix.hits(), [1, 2, 0])


def test_mean_iou_is_of_the_classes_that_occur() -> None:
    matrix = ConfusionMatrix(4)
    matrix.update(LABELS, PREDICTED)  # class 3 is nowhere
    assert matrix.mean_iou() == pytest.approx((1 / 3 + 2 / 6 + 0) / 3)
    assert np.isnan(ConfusionMatrix(2).mean_iou())


def test_decision_is_that_of_the_labels_with_a_softmax() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (3, 4, 5)).astype(np.float32)
    labels, confidence = decision_from_logits(logits, (12, 16))
    np.testing.assert_array_equal(labels, labels_from_logits(logits, (12, 16)))
    assert confidence.dtype == np.uint8 and confidence.shape == (12, 16)
    # At the network's own size nothing is interpolated.
    labels, confidence = decision_from_logits(logits, (3, 4))
    softmax = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(confidence / 255, softmax.max(-1), atol=0.5 / 255 + 1e-6)


def test_two_equal_logits_are_half_sure() -> None:
    _, confidence = decision_from_logits(np.zeros((2, 2, 2), np.float32), (4, 4))
    assert (confidence == 128).all()  # 127.5, to the even number
