"""Full-size decisions against a float reference that takes no short cut."""

from __future__ import annotations

import itertools
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bisenet_ros.core.contract import UNLABELED
from bisenet_ros.core.postprocess import (
    FINER, FRACTION, Decision, ScoreDecoder, Wanted, color_mask, color_table, contenders,
    decide_labels, expand, output_rect,
)
from bisenet_ros.core.preprocess import Placement, Rect, placement

ALL = Wanted(labels=True, mask=True, confidence=True)
LABELS = Wanted()
ROAD = frozenset({1})

Floats = npt.NDArray[np.float64]
Scores = npt.NDArray[np.int16]


def upsampled(scores: npt.NDArray[Any], size: tuple[int, int]) -> Floats:
    """Return ``float64[H, W, C]``: bilinear, pixel centres at half, borders repeated."""
    result = scores.astype(np.float64)
    for axis, length in ((0, size[1]), (1, size[0])):
        count = result.shape[axis]
        at = np.clip((np.arange(length) + 0.5) * count / length - 0.5, 0, count - 1)
        low = np.floor(at).astype(int)
        weight = (at - low).reshape(-1, *[1] * (result.ndim - 1 - axis))
        result = (np.take(result, low, axis) * (1 - weight)
                  + np.take(result, np.minimum(low + 1, count - 1), axis) * weight)
    return result


def reference(
    scores: npt.NDArray[Any], scale: float, size: tuple[int, int],
) -> tuple[Floats, Floats]:
    """Return upsampled scores in quantization steps, and their softmax."""
    steps = upsampled(scores, size)
    powers = np.exp((steps - steps.max(-1, keepdims=True)) * scale)
    return steps, powers / powers.sum(-1, keepdims=True)


def random_scores(classes: int, hw: tuple[int, int] = (8, 12), seed: int = 0) -> Scores:
    """Return all that int8 holds, from a zero point of -28: as far apart as scores can be."""
    rng = np.random.default_rng(seed)
    return rng.integers(-100, 156, (*hw, classes)).astype(np.int16)


def blobs(classes: int, hw: tuple[int, int] = (32, 64), seed: int = 0) -> Scores:
    """Return scores as networks give them: smooth regions, each with its winner."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(0, 60, (hw[0] // 8, hw[1] // 8, classes))
    return np.clip(np.round(upsampled(coarse, hw[::-1])), -128, 127).astype(np.int16)


SIZES = [(96, 64), (97, 61), (12, 8), (5, 3), (1, 1), (640, 360)]


# -- labels --------------------------------------------------------------------------------------


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('classes', [2, 3, 19])
def test_labels_are_the_references_but_for_near_ties(classes: int, size: tuple[int, int]) -> None:
    scores = random_scores(classes)
    labels = ScoreDecoder(classes, 0.1, 'logits').decide(scores, size, LABELS, ROAD).labels
    steps, _ = reference(scores, 0.1, size)
    assert labels is not None
    assert labels.shape == size[::-1]
    chosen = np.take_along_axis(steps, labels[..., None].astype(int), -1)[..., 0]
    # Upsampling rounds each of the two compared planes (two classes: their difference) to
    # 1/128 of a quantization step, so at worst something that much lower is chosen.
    assert (steps.max(-1) - chosen).max() <= 1 / FRACTION + 1e-3
    assert (labels == steps.argmax(-1)).mean() > 0.999


@pytest.mark.parametrize('classes', [2, 3])
def test_scores_that_are_means_over_time_are_decided_too(classes: int) -> None:
    rng = np.random.default_rng(1)
    scores = rng.uniform(-100, 155, (8, 12, classes)).astype(np.float32)
    labels = ScoreDecoder(classes, 0.1, 'logits').decide(scores, (97, 61), LABELS, ROAD).labels
    steps, _ = reference(scores, 0.1, (97, 61))
    assert labels is not None
    chosen = np.take_along_axis(steps, labels[..., None].astype(int), -1)[..., 0]
    assert (steps.max(-1) - chosen).max() <= 2 / FRACTION + 1e-3  # rounded before and after


@pytest.mark.parametrize('classes', [2, 3, 255])
def test_ties_go_to_the_lower_id(classes: int) -> None:
    scores = np.zeros((2, 3, classes), np.int16)
    decided = ScoreDecoder(classes, 0.1, 'logits').decide(scores, (7, 5), ALL, frozenset({0}))
    np.testing.assert_array_equal(decided.labels, np.zeros((5, 7)))
    np.testing.assert_array_equal(decided.mask, np.full((5, 7), 255))
    scores[..., 0] = -1
    decided = ScoreDecoder(classes, 0.1, 'logits').decide(scores, (7, 5), ALL, frozenset({1}))
    np.testing.assert_array_equal(decided.labels, np.ones((5, 7)))


def test_by_eye() -> None:
    scores = np.zeros((1, 2, 2), np.int16)
    scores[0, :, 1] = (-10, 30)
    # Eight pixels of two cells: centres at 1.5 and 5.5, repeated beyond, 10 steps each between.
    decided = ScoreDecoder(2, 0.1, 'logits').decide(scores, (8, 1), ALL, ROAD)
    margins = np.array([-10, -10, -5, 5, 15, 25, 30, 30])
    np.testing.assert_array_equal(decided.labels, [margins > 0])
    np.testing.assert_array_equal(decided.mask, [(margins > 0) * 255])
    confidence = 255 / (1 + np.exp(-np.abs(margins) * 0.1))
    np.testing.assert_allclose(decided.confidence, [confidence], atol=1.5)


@pytest.mark.parametrize('extreme', [255, -255])
@pytest.mark.parametrize('classes', [2, 3])
def test_largest_scores_do_not_overflow(classes: int, extreme: int) -> None:
    scores = np.zeros((2, 2, classes), np.int16)
    scores[..., 1] = extreme
    decided = ScoreDecoder(classes, 0.2, 'logits').decide(scores, (4, 4), ALL, ROAD)
    assert (decided.labels == (1 if extreme > 0 else 0)).all()
    # two classes: sure; three with 1 out of the race: the other two share
    expected = 255 if extreme > 0 or classes == 2 else 128
    assert (decided.confidence == expected).all()


# -- which classes can win -----------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(hnp.arrays(np.int16, st.tuples(*[st.integers(1, n) for n in (6, 4, 4)]),
                  elements=st.integers(-4, 4).map(lambda step: step * 3000)),
       st.tuples(st.integers(1, 19), st.integers(1, 19)))
def test_no_winner_is_left_out(planes: npt.NDArray[np.int16], size: tuple[int, int]) -> None:
    chosen = contenders(planes)
    assert chosen == sorted(set(chosen))
    steps = upsampled(np.moveaxis(planes, 0, -1), size)
    winners = (steps == steps.max(-1, keepdims=True)).any((0, 1))
    assert set(np.flatnonzero(winners)) <= set(chosen)


def test_hopeless_classes_are_left_out() -> None:
    planes = np.zeros((4, 3, 3), np.int16)
    planes[1] = 500  # wins everywhere
    planes[2] = -500
    planes[3, 2, 2] = 499  # near, never there: rounding may not lift it by two
    assert contenders(planes) == [1, 3]
    planes[3, 2, 2] = 498
    assert contenders(planes) == [1]


def test_rival_between_two_grid_points_stays_in() -> None:
    # 0 wins left, 1 wins right, 2 is second on both and first between: (0 + 0) / 2 < 90
    planes = np.int16([[[100, -100]], [[-100, 100]], [[90, 90]]])
    assert contenders(planes) == [0, 1, 2]


# -- confidence ----------------------------------------------------------------------------------


@pytest.mark.parametrize('scale', [0.005, 0.05, 0.121, 0.25])
def test_two_class_confidence_is_the_sigmoid(scale: float) -> None:
    scores = random_scores(2, (20, 30)) // 4
    decided = ScoreDecoder(2, scale, 'logits').decide(scores, (240, 160), ALL, ROAD)
    _, probabilities = reference(scores, scale, (240, 160))
    # Half a step of the table is 0.8 where the sigmoid is steepest, rounding 0.5.
    difference = np.abs(decided.confidence - 255 * probabilities.max(-1))
    assert difference.max() <= 1.5
    assert decided.confidence is not None
    assert decided.confidence.min() >= 128


def test_certainty_is_255_and_ignorance_128() -> None:
    scores = np.zeros((1, 3, 2), np.int16)
    scores[0, :, 1] = (0, 62, 63)
    decided = ScoreDecoder(2, 0.1, 'logits').decide(scores, (3, 1), ALL, ROAD)
    np.testing.assert_array_equal(decided.confidence, [[128, 254, 255]])


def probabilities_of(classes: int, hw: tuple[int, int]) -> Scores:
    """Return probabilities in 256ths that sum to 1 as well as rounding lets them."""
    rng = np.random.default_rng(3)
    shares = rng.dirichlet(np.full(classes, 0.3), hw)
    return np.minimum(np.round(shares * 256), 255).astype(np.int16)


def test_two_probabilities() -> None:
    scores = probabilities_of(2, (8, 12))
    decided = ScoreDecoder(2, 1 / 256, 'probabilities').decide(scores, (96, 64), ALL, ROAD)
    best = upsampled(scores, (96, 64)).max(-1) / 256
    # 1.0: both the stored probabilities and the table's steps are rounded
    assert np.abs(decided.confidence - 255 * best).max() <= 1.5


@pytest.mark.parametrize('classes', [3, 19])
def test_many_probabilities_are_reported_as_they_are(classes: int) -> None:
    scores = probabilities_of(classes, (8, 12))
    decided = ScoreDecoder(classes, 1 / 256, 'probabilities').decide(scores, (96, 64), ALL, ROAD)
    best = upsampled(scores, (96, 64)).max(-1) / 256
    assert np.abs(decided.confidence - 255 * best).max() <= 0.51


@pytest.mark.parametrize('scale', [0.005, 0.121, 0.25])
@pytest.mark.parametrize('classes', [3, 19, 255])
def test_many_class_confidence_is_exact_on_the_grid(classes: int, scale: float) -> None:
    scores = random_scores(classes, (20, 30)) // 2
    decided = ScoreDecoder(classes, scale, 'logits').decide(scores, (30, 20), ALL, ROAD)
    _, probabilities = reference(scores, scale, (30, 20))
    assert np.abs(decided.confidence - 255 * probabilities.max(-1)).max() <= 0.51


def test_scores_at_the_end_of_their_range_keep_their_confidence() -> None:
    # A zero point of -128 leaves 255 steps above: the sum of equal exponentials lies beyond.
    scores = np.full((2, 2, 4), 255, np.int16)
    decided = ScoreDecoder(4, 0.05, 'logits').decide(scores, (5, 5), ALL, ROAD)
    assert (decided.confidence == 64).all()


@pytest.mark.parametrize('scale', [0.05, 0.121])
def test_where_two_of_many_meet_confidence_is_theirs(scale: float) -> None:
    scores = np.full((8, 12, 5), -128, np.int16)
    scores[..., 1::2] = random_scores(2, (8, 12)) // 8  # 3 and 1 are in the race, no other
    decided = ScoreDecoder(5, scale, 'logits').decide(scores, (97, 61), ALL, ROAD)
    _, probabilities = reference(scores, scale, (97, 61))
    others = probabilities[..., [0, 2, 4]].sum(-1)
    # rounding 0.5; 1/128 of a step on a slope of 64 per nat; and what the other three can add
    assert (np.abs(decided.confidence - 255 * probabilities.max(-1))
            <= 0.6 + 255 * others).all()


@pytest.mark.parametrize('classes', [3, 5, 19])
def test_many_class_confidence_is_close_between_grid_points(classes: int) -> None:
    scores = blobs(classes)
    decided = ScoreDecoder(classes, 0.121, 'logits').decide(scores, (512, 256), ALL, ROAD)
    _, probabilities = reference(scores, 0.121, (512, 256))
    error = decided.confidence - 255 * probabilities.max(-1)
    # Only where three classes meet between grid points is it off. Seen, worst of the three:
    # mean 0.42, 99th percentile 2.4, largest 11.
    assert np.abs(error).mean() < 0.6
    assert np.percentile(np.abs(error), 99) < 4
    assert np.abs(error).max() < 20


# -- min_confidence and mask ---------------------------------------------------------------------


@pytest.mark.parametrize('kind', ['logits', 'probabilities'])
@pytest.mark.parametrize('classes', [2, 4])
@pytest.mark.parametrize('threshold', [0.3, 0.5, 0.6, 0.9, 1.0])
def test_below_min_confidence_is_unlabeled_and_unmasked(
    classes: int, kind: str, threshold: float,
) -> None:
    if kind == 'logits':
        scores, scale = random_scores(classes) // 2, 0.1
    else:
        scores, scale = probabilities_of(classes, (8, 12)), 1 / 256
    decoder = ScoreDecoder(classes, scale, kind)
    free = decoder.decide(scores, (97, 61), ALL, ROAD)
    strict = decoder.decide(scores, (97, 61), ALL, ROAD, threshold)
    np.testing.assert_array_equal(strict.confidence, free.confidence)
    assert free.confidence is not None
    unsure = free.confidence < threshold * 255
    assert unsure.any() or threshold <= 0.5
    assert not unsure.all() or threshold == 1.0
    np.testing.assert_array_equal(strict.labels, np.where(unsure, UNLABELED, free.labels))
    np.testing.assert_array_equal(strict.mask, np.where(unsure, 0, free.mask))
    assert not (free.labels == UNLABELED).any()


@pytest.mark.parametrize(('classes', 'threshold'), [(2, 0.0), (2, 0.8), (3, 0.0), (3, 0.5)])
def test_mask_of_every_set_of_classes(classes: int, threshold: float) -> None:
    scores = random_scores(classes) // 8
    decoder = ScoreDecoder(classes, 0.1, 'logits')
    labels = decoder.decide(scores, (97, 61), LABELS, ROAD, threshold).labels
    for count in range(classes + 1):
        for ids in itertools.combinations(range(classes), count):
            decided = decoder.decide(scores, (97, 61), ALL, frozenset(ids), threshold)
            np.testing.assert_array_equal(decided.labels, labels)
            np.testing.assert_array_equal(decided.mask, np.isin(labels, ids) * np.uint8(255))


@pytest.mark.parametrize('classes', [2, 3])
@pytest.mark.parametrize('threshold', [0.0, 0.7])
def test_only_what_is_wanted_comes_and_it_is_the_same(classes: int, threshold: float) -> None:
    scores = random_scores(classes) // 8
    decoder = ScoreDecoder(classes, 0.1, 'logits')
    full = decoder.decide(scores, (97, 61), ALL, ROAD, threshold)
    for chosen in itertools.product((False, True), repeat=3):
        wanted = Wanted(*chosen)
        found = decoder.decide(scores, (97, 61), wanted, ROAD, threshold)
        for name, asked in zip(('labels', 'mask', 'confidence'), chosen, strict=True):
            if asked:
                value = getattr(found, name)
                np.testing.assert_array_equal(value, getattr(full, name))
                assert value.dtype == np.uint8
            else:
                assert getattr(found, name) is None


def test_scores_are_not_changed() -> None:
    for classes in (2, 3):
        for scores in (random_scores(classes), random_scores(classes).astype(np.float32)):
            before = scores.copy()
            ScoreDecoder(classes, 0.1, 'logits').decide(scores, (9, 9), ALL, ROAD, 0.9)
            np.testing.assert_array_equal(scores, before)


def test_scores_of_one_cell_are_not_changed_either() -> None:
    # One cell is in order whichever axis comes first: no copy comes by itself.
    for classes in (2, 3, 19):
        scores = random_scores(classes, (1, 1))
        before = scores.copy()
        ScoreDecoder(classes, 0.1, 'logits').decide(scores, (9, 9), ALL, ROAD, 0.9)
        np.testing.assert_array_equal(scores, before)


@pytest.mark.parametrize('classes', [2, 3])
@pytest.mark.parametrize('dtype', [np.int8, np.int32, np.int64])
def test_scores_of_any_integer_type(classes: int, dtype: type) -> None:
    scores = np.clip(random_scores(classes), -128, 127)
    decoder = ScoreDecoder(classes, 0.1, 'logits')
    same(decoder.decide(scores.astype(dtype), (97, 61), ALL, ROAD),
         decoder.decide(scores, (97, 61), ALL, ROAD))


# -- as fast as it is, bit for bit what the plain way gives ------------------------------------


def same(found: Decision, expected: Decision) -> None:
    for name in ('labels', 'mask', 'confidence'):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def plain_decision(
    scores: npt.NDArray[Any], scale: float, kind: str, size: tuple[int, int],
    mask_classes: frozenset[int], min_confidence: float,
) -> Decision:
    """Decide as it is written down: new arrays, no look at what can be left out."""
    fixed = np.clip(np.round(scores.astype(np.float32) * FRACTION), -32767, 32767)
    if scores.shape[-1] == 2:
        margin = (scores[..., 1].astype(np.float32) - scores[..., 0]) * FRACTION
        margin = np.clip(np.round(margin), -32767, 32767).astype(np.int16)
        margin = cv2.resize(margin, size, interpolation=cv2.INTER_LINEAR)
        span = 6.24 if kind == 'logits' else 1.0
        ahead = cv2.convertScaleAbs(margin, alpha=scale / FRACTION * 255 / span)
        pair = (1 / (1 + np.exp(-np.linspace(0, span, 256))) if kind == 'logits'
                else np.linspace(0.5, 1, 256))
        confidence = np.round(pair * 255).astype(np.uint8)[ahead].reshape(margin.shape)
        labels = (margin > 0).astype(np.uint8)
    else:
        planes = np.stack([
            cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR)
            for plane in np.moveaxis(fixed, -1, 0).astype(np.int16)]).reshape(-1, *size[::-1])
        labels = planes.argmax(0).astype(np.uint8)
        best, second = np.sort(planes, 0)[:-3:-1]
        if kind == 'probabilities':
            confidence = cv2.convertScaleAbs(best, alpha=scale / FRACTION * 255)
        else:
            grid = (min(size[0], FINER * scores.shape[1]), min(size[1], FINER * scores.shape[0]))
            logits = np.stack([
                cv2.resize(plane.astype(np.float32) * np.float32(scale), grid,
                           interpolation=cv2.INTER_LINEAR).reshape(grid[::-1])
                for plane in np.moveaxis(scores, -1, 0)], -1)
            behind = np.exp(logits - logits.max(-1, keepdims=True))
            rest = np.maximum(behind.sum(-1) - np.sort(behind, -1)[..., -2:].sum(-1), 0)
            total = cv2.resize(1 + rest, size, interpolation=cv2.INTER_LINEAR)
            gap = (second.astype(np.float32) - best) * np.float32(scale / FRACTION)
            confidence = cv2.convertScaleAbs(np.float32(255) / (total + cv2.exp(gap)))
    confidence = confidence.reshape(labels.shape)
    unsure = confidence < np.float64(min_confidence * 255)
    mask = np.isin(labels, list(mask_classes)) * np.uint8(255)
    return Decision(np.where(unsure, 255, labels), np.where(unsure, 0, mask), confidence)


@pytest.mark.parametrize('smoothed', [False, True])
@pytest.mark.parametrize('kind', ['logits', 'probabilities'])
@pytest.mark.parametrize('classes', [2, 3, 9])
def test_bit_for_bit_the_plain_way(classes: int, kind: str, smoothed: bool) -> None:
    if kind == 'logits':
        scores, scale = random_scores(classes, (8, 12)) // 4, 0.05
        scores[:4] = scores[0, 0]  # a region where most classes are out of the race
    else:
        scores, scale = probabilities_of(classes, (8, 12)), 1 / 256
    values: npt.NDArray[Any] = scores * np.float32(0.93) + np.float32(0.37) if smoothed else scores
    decoder = ScoreDecoder(classes, scale, kind)
    for size, threshold in itertools.product(((97, 61), (320, 180), (12, 8), (1, 1)),
                                             (0.0, 0.3, 0.55, 0.7, 0.9, 1.0)):
        for marked in (frozenset({1}), frozenset({0}), frozenset(range(classes)), frozenset()):
            found = decoder.decide(values, size, ALL, marked, threshold)
            expected = plain_decision(values, scale, kind, size, marked, threshold)
            if classes > 2 and kind == 'logits':
                # The plain way sums every class in one order, the other the contenders apart.
                assert found.confidence is not None and expected.confidence is not None
                assert cv2.absdiff(found.confidence, expected.confidence).max() <= 1
                expected = plain_with(expected, found.confidence, marked, threshold, values, size)
            same(found, expected)


def plain_with(
    decision: Decision, confidence: npt.NDArray[np.uint8], marked: frozenset[int],
    threshold: float, scores: npt.NDArray[Any], size: tuple[int, int],
) -> Decision:
    """Return a plain decision's labels and mask with the unsure ones by another confidence."""
    free = plain_decision(scores, 1.0, 'probabilities', size, marked, 0.0)
    unsure = confidence < np.float64(threshold * 255)
    assert free.labels is not None and free.mask is not None
    return Decision(
        np.where(unsure, 255, free.labels), np.where(unsure, 0, free.mask), confidence)


@pytest.mark.parametrize('count', [0, 1, 4, 5, 8])
def test_mask_of_few_and_of_many_classes(count: int) -> None:
    scores = random_scores(9)
    marked = frozenset(range(1, 1 + count))
    decided = ScoreDecoder(9, 0.1, 'logits').decide(scores, (97, 61), ALL, marked, 0.2)
    assert decided.labels is not None
    np.testing.assert_array_equal(decided.mask, np.isin(decided.labels, list(marked)) * 255)


@pytest.mark.parametrize('classes', [2, 3, 9])
def test_a_decoder_keeps_nothing_of_frames_before(classes: int) -> None:
    decoder = ScoreDecoder(classes, 0.05, 'logits')
    for seed, size in enumerate(((97, 61), (320, 180), (5, 3), (97, 61), (97, 61))):
        scores = random_scores(classes, seed=seed) // 4
        same(decoder.decide(scores, size, ALL, ROAD, 0.6),
             ScoreDecoder(classes, 0.05, 'logits').decide(scores, size, ALL, ROAD, 0.6))


@pytest.mark.parametrize('classes', [2, 3])
def test_results_are_written_where_they_are_wanted(classes: int) -> None:
    memory = {name: np.full((61, 97), 77, np.uint8) for name in ('labels', 'mask', 'confidence')}

    def allocate(name: str, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        assert memory[name].shape == shape
        return memory[name]

    decoder = ScoreDecoder(classes, 0.05, 'logits')
    found = decoder.decide(random_scores(classes), (97, 61), ALL, ROAD, 0.6, allocate)
    expected = decoder.decide(random_scores(classes), (97, 61), ALL, ROAD, 0.6)
    same(found, expected)
    for name, array in memory.items():
        assert getattr(found, name) is array
        assert not np.shares_memory(array, getattr(expected, name))


# -- models that decide themselves ---------------------------------------------------------------


@pytest.mark.parametrize('dtype', [np.uint8, np.int32, np.int64])
def test_ids_are_enlarged_by_nearest_neighbour(dtype: type) -> None:
    ids = np.array([[0, 1], [2, 7]], dtype)
    decided = decide_labels(ids, 3, (4, 4), Wanted(labels=True, mask=True), frozenset({0, 2}))
    np.testing.assert_array_equal(decided.labels, [
        [0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 255, 255], [2, 2, 255, 255]])
    np.testing.assert_array_equal(decided.mask, [
        [255, 255, 0, 0], [255, 255, 0, 0], [255, 255, 0, 0], [255, 255, 0, 0]])
    assert decided.confidence is None


def test_ids_beyond_a_byte_or_below_zero_are_unlabeled() -> None:
    decided = decide_labels(np.int64([[-1, 256, 257, 1]]), 255, (4, 1), LABELS, ROAD)
    np.testing.assert_array_equal(decided.labels, [[255, 255, 255, 1]])


def test_nearest_neighbour_is_centred() -> None:
    # 3 columns of 2: the middle one's centre is on the border, the outer ones are certain.
    decided = decide_labels(np.int64([[0, 1]]), 2, (5, 1), LABELS, ROAD)
    assert decided.labels is not None
    np.testing.assert_array_equal(decided.labels[0, [0, 1, 3, 4]], [0, 0, 1, 1])


# -- into the frame ------------------------------------------------------------------------------


@pytest.mark.parametrize(('source', 'frame_hw', 'output_hw', 'rect'), [
    (Rect(0, 0, 640, 480), (480, 640), (480, 640), Rect(0, 0, 640, 480)),
    (Rect(0, 80, 640, 320), (480, 640), (480, 640), Rect(0, 80, 640, 320)),
    (Rect(0, 80, 640, 320), (480, 640), (240, 320), Rect(0, 40, 320, 160)),
    (Rect(0, 80, 641, 320), (481, 641), (256, 512), Rect(0, 43, 512, 170)),
    (Rect(1999, 0, 2, 1), (1, 4000), (256, 512), Rect(256, 0, 1, 256)),  # one pixel at least
    (Rect(3999, 0, 1, 1), (1, 4000), (1, 2), Rect(1, 0, 1, 1)),  # and inside
])
def test_where_the_seen_part_lies_in_the_result(
    source: Rect, frame_hw: tuple[int, int], output_hw: tuple[int, int], rect: Rect,
) -> None:
    place = Placement(frame_hw, (256, 512), source, Rect(0, 0, 512, 256))
    assert output_rect(place, output_hw) == rect


@settings(max_examples=150, deadline=None)
@given(st.tuples(st.integers(1, 3000), st.integers(1, 3000)),
       st.tuples(st.integers(1, 600), st.integers(1, 600)))
def test_seen_part_is_never_empty_nor_outside(
    frame_hw: tuple[int, int], output_hw: tuple[int, int],
) -> None:
    place = placement(frame_hw, (256, 512), 8, 'crop')
    assert output_rect(place, frame_hw) == place.source
    rect = output_rect(place, output_hw)
    assert 0 <= rect.x < rect.x + rect.width <= output_hw[1]
    assert 0 <= rect.y < rect.y + rect.height <= output_hw[0]


def test_outside_the_seen_part_nothing_is_known() -> None:
    ones = np.ones((1, 2), np.uint8)
    decision = expand(Decision(ones, ones * 255, ones * 200), Rect(1, 1, 2, 1), (3, 4))
    np.testing.assert_array_equal(decision.labels, [
        [255, 255, 255, 255], [255, 1, 1, 255], [255, 255, 255, 255]])
    np.testing.assert_array_equal(decision.mask, [[0, 0, 0, 0], [0, 255, 255, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(
        decision.confidence, [[0, 0, 0, 0], [0, 200, 200, 0], [0, 0, 0, 0]])


def test_expanding_leaves_out_what_was_not_wanted_and_copies_nothing_needlessly() -> None:
    ones = np.ones((1, 2), np.uint8)
    assert expand(Decision(mask=ones), Rect(0, 0, 2, 1), (3, 4)).labels is None
    assert expand(Decision(mask=ones), Rect(0, 0, 2, 1), (1, 2)).mask is ones


def test_the_whole_is_written_where_it_is_wanted() -> None:
    ones, memory = np.ones((1, 2), np.uint8), np.full((3, 4), 77, np.uint8)
    whole = expand(Decision(mask=ones), Rect(1, 1, 2, 1), (3, 4), lambda name, shape: memory).mask
    assert whole is memory
    np.testing.assert_array_equal(memory, [[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]])


# -- pictures ------------------------------------------------------------------------------------


def test_colours_by_class_and_black_for_unlabeled() -> None:
    labels = np.uint8([[0, 1, 255, 7]])
    colors = ((1, 2, 3), (40, 50, 60))
    np.testing.assert_array_equal(
        color_mask(labels, color_table(colors)),
        [[[1, 2, 3], [40, 50, 60], [0, 0, 0], [0, 0, 0]]])
    np.testing.assert_array_equal(
        color_mask(labels, color_table(colors, 'bgr')),
        [[[3, 2, 1], [60, 50, 40], [0, 0, 0], [0, 0, 0]]])


@pytest.mark.parametrize('colors', [
    ((0, 0, 0), (128, 64, 128)), ((9, 8, 7), (128, 64, 128)), ((0, 0, 0), (0, 0, 0)),
    ((0, 0, 0), (0, 200, 0), (3, 2, 1)), ((1, 2, 3), (4, 5, 6), (7, 8, 9), (0, 0, 255))])
def test_few_colours_are_painted_as_many_are(colors: tuple[tuple[int, int, int], ...]) -> None:
    labels = np.random.default_rng(0).integers(0, 256, (61, 97)).astype(np.uint8)
    labels[::2] %= len(colors)
    table = color_table(colors)
    out = np.full((61, 97, 3), 77, np.uint8)
    assert color_mask(labels, table, out) is out
    np.testing.assert_array_equal(out, table[0][labels])
    np.testing.assert_array_equal(color_mask(labels, table), out)


def test_255_colours() -> None:
    colors = tuple((index, 255 - index, index // 2) for index in range(255))
    labels = np.arange(256, dtype=np.uint8)[None]
    np.testing.assert_array_equal(
        color_mask(labels, color_table(colors))[0], [*colors, (0, 0, 0)])
