"""The loss equals a plain numpy one, and void never counts."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

keras = pytest.importorskip('keras', reason='keras is not installed (pip install .[train])')

from training.losses import (  # noqa: E402
    jaccard_loss, ohem_cross_entropy, pixel_cross_entropy,
)

pytestmark = pytest.mark.training

VOID = 255


def sample(
    seed: int = 0, shape: tuple[int, int, int, int] = (2, 4, 6, 3), scale: float = 1.0,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, shape[-1], shape[:3]).astype(np.uint8)
    labels[rng.random(shape[:3]) < 0.2] = VOID
    return labels, (rng.standard_normal(shape) * scale).astype(np.float32)


def reference_pixels(
    labels: npt.NDArray[np.uint8], logits: npt.NDArray[np.float32],
) -> npt.NDArray[np.float64]:
    exponentials = np.exp(logits.astype(np.float64))
    probabilities = exponentials / exponentials.sum(-1, keepdims=True)
    loss = np.zeros(labels.shape)
    for where in np.argwhere(labels != VOID):
        index = tuple(where)
        loss[index] = -math.log(probabilities[index][labels[index]])
    return loss

def reference_jaccard(
    labels: npt.NDArray[np.uint8], logits: npt.NDArray[np.float32], classes: int,
) -> float:
    exponentials = np.exp(logits.astype(np.float64))
    found = exponentials / exponentials.sum(-1, keepdims=True)
    ious = []
    for c in range(classes):
        truth, soft = (labels == c)[labels != VOID], found[..., c][labels != VOID]
        both = soft[truth].sum()
        ious.append(both / (truth.sum() + soft.sum() - both))
    return float(1 - np.mean(ious))


def reference_ohem(
    labels: npt.NDArray[np.uint8], logits: npt.NDArray[np.float32], threshold: float, kept: float,
) -> float:
    loss = reference_pixels(labels, logits)
    per_image = max(1, int(loss[0].size * kept))
    hard = loss[loss > -math.log(threshold)]
    if len(hard) >= per_image * len(loss):
        return float(hard.mean())
    counted = sum(min(per_image, int((image != VOID).sum())) for image in labels)
    return float(sum(np.sort(image.ravel())[-per_image:].sum() for image in loss) / counted)


def test_pixel_loss_equals_the_reference() -> None:
    labels, logits = sample()
    loss, valid = pixel_cross_entropy(labels, logits)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(loss), reference_pixels(labels, logits), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(valid), labels != VOID)


def test_pixel_loss_survives_large_logits() -> None:
    labels = np.array([[[0, 1]]], np.uint8)
    logits = np.array([[[[1e4, -1e4], [1e4, -1e4]]]], np.float32)
    loss, _ = pixel_cross_entropy(labels, logits)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(loss), [[[0.0, 2e4]]])


@pytest.mark.parametrize(('threshold', 'kept', 'scale'), [
    (0.7, 1 / 16, 1.0),  # enough hard pixels: their mean
    (0.01, 1 / 4, 1.0),  # nearly none is hard: the hardest quarter
    (0.7, 1.0, 3.0),  # every pixel kept
    (0.999, 1 / 1000, 1.0),  # at least one pixel an image
])
@pytest.mark.parametrize('seed', [0, 1, 2])
def test_ohem_equals_the_reference(
    threshold: float, kept: float, scale: float, seed: int,
) -> None:
    labels, logits = sample(seed, scale=scale)
    found = float(ohem_cross_entropy(labels, logits, threshold=threshold, kept=kept))
    assert found == pytest.approx(reference_ohem(labels, logits, threshold, kept), rel=1e-5)


def test_both_branches_of_ohem_are_tried() -> None:
    labels, logits = sample()
    loss = reference_pixels(labels, logits)
    assert (loss > -math.log(0.7)).sum() >= 2 * (loss[0].size // 16)
    assert (loss > -math.log(0.01)).sum() < 2 * (loss[0].size // 4)


@pytest.mark.parametrize('labelled', [1, 2, 8, 32, 256])
def test_few_labelled_pixels_weigh_as_many_do(labelled: int) -> None:
    """The hardest that are kept are of those that have a label: void is not among them."""
    labels = np.full((1, 16, 32), VOID, np.uint8)
    labels.ravel()[:labelled] = 1
    logits = np.zeros((1, 16, 32, 2), np.float32)
    for threshold in (0.7, 0.4):  # all of them hard, none of them hard
        assert float(ohem_cross_entropy(labels, logits, threshold=threshold)) == pytest.approx(
            math.log(2), rel=1e-5)


def test_easy_pixels_do_not_count() -> None:
    labels = np.zeros((1, 4, 4), np.uint8)
    logits = np.zeros((1, 4, 4, 2), np.float32)
    logits[..., 0] = 9.0  # right and sure
    logits[0, 0, 0] = (0.0, 2.0)  # wrong
    alone = math.log(1 + math.exp(2.0))
    assert float(ohem_cross_entropy(labels, logits)) == pytest.approx(alone, rel=1e-5)


def test_void_does_not_change_the_loss_whatever_is_predicted_there() -> None:
    labels, logits = sample()
    other = logits.copy()
    other[labels == VOID] = (40.0, -3.0, 7.0)
    for threshold in (0.7, 0.01):
        assert float(ohem_cross_entropy(labels, other, threshold=threshold)) == pytest.approx(
            float(ohem_cross_entropy(labels, logits, threshold=threshold)), rel=1e-6)


def test_nothing_but_void_costs_nothing() -> None:
    labels = np.full((1, 4, 4), VOID, np.uint8)
    assert float(ohem_cross_entropy(labels, sample(shape=(1, 4, 4, 3))[1])) == 0.0


def test_low_precision_logits_are_summed_in_float32() -> None:
    labels, logits = sample()
    low = keras.ops.cast(logits, 'bfloat16')
    found = float(ohem_cross_entropy(labels, low))
    rounded = keras.ops.convert_to_numpy(keras.ops.cast(low, 'float32'))
    assert found == pytest.approx(reference_ohem(labels, rounded, 0.7, 1 / 16), rel=1e-5)


@pytest.mark.parametrize(('threshold', 'kept'), [(0.7, 1 / 16), (0.01, 1 / 4)])
def test_class_weights_scale_the_loss_not_the_choice_of_hard_pixels(
    threshold: float, kept: float,
) -> None:
    labels, logits = sample()
    weights = np.array([0.5, 3.0, 1.0])
    loss = reference_pixels(labels, logits)
    weighted = loss * np.append(weights, np.zeros(253))[labels]
    hard = loss > -math.log(threshold)
    per_image = max(1, int(loss[0].size * kept))
    wanted = weighted[hard].mean() if hard.sum() >= per_image * len(loss) else np.mean(
        [np.sort(image.ravel())[-per_image:] for image in weighted])
    found = float(ohem_cross_entropy(
        labels, logits, threshold=threshold, kept=kept, class_weights=weights))
    assert found == pytest.approx(wanted, rel=1e-5)


def test_equal_class_weights_change_nothing() -> None:
    labels, logits = sample()
    assert float(ohem_cross_entropy(labels, logits, class_weights=(1.0, 1.0, 1.0))) == (
        float(ohem_cross_entropy(labels, logits)))


def test_jaccard_loss_is_one_less_the_mean_soft_iou() -> None:
    labels, logits = sample()
    assert float(jaccard_loss(labels, logits)) == pytest.approx(
        reference_jaccard(labels, logits, 3), rel=1e-5)


def test_jaccard_loss_of_sure_answers_is_that_of_the_score() -> None:
    labels = np.array([[[0, 0, 1, VOID], [0, 1, 1, 1]]], np.uint8)
    sure = np.eye(2, dtype=np.float32) * 60
    assert float(jaccard_loss(labels, sure[np.where(labels == VOID, 0, labels)])) == (
        pytest.approx(0.0, abs=1e-6))
    answers = np.array([[[0, 1, 1, 0], [0, 1, 1, 0]]])  # IoU 2/4 and 3/5
    assert float(jaccard_loss(labels, sure[answers])) == pytest.approx(
        1 - (2 / 4 + 3 / 5) / 2, rel=1e-5)


def test_jaccard_loss_leaves_out_classes_that_do_not_occur() -> None:
    labels, logits = sample(shape=(1, 4, 4, 3))
    labels[labels == 2] = 0
    assert float(jaccard_loss(labels, logits)) == pytest.approx(
        reference_jaccard(labels, logits, 2), rel=1e-5)
    assert float(jaccard_loss(np.full_like(labels, VOID), logits)) == 0.0
