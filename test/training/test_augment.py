"""A view's labels lie where its picture's things lie, and are ids that were there before."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from training import appearance
from training.augment import EFFECTS, Augmentation, random_view, resize_labels, whole_view
from training.datasets import VOID

Image = npt.NDArray[np.uint8]

#: Geometry only, as wild as in training or wilder.
GEOMETRY = Augmentation(
    scale=(0.5, 2.0), aspect=1.35, rotation_deg=10.0, flip=True, colour=0.0,
    blur=0.0, noise=0.0, cutout=0.0, shadow=0.0)
STILL = Augmentation(
    scale=(1.0, 1.0), aspect=1.0, rotation_deg=0.0, flip=False, colour=0.0,
    blur=0.0, noise=0.0, cutout=0.0, shadow=0.0)


def drawn(height: int = 90, width: int = 160) -> tuple[Image, Image]:
    """Draw the same lopsided shapes into a picture (white) and its labels (2)."""
    rgb, labels = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8)
    outline = np.array([[20, 10], [120, 30], [140, 80], [40, 60]], np.int32)
    for image, value in ((rgb, (255, 255, 255)), (labels, 2)):
        cv2.fillPoly(image, [outline], value)
        cv2.circle(image, (130, 15), 12, value, -1)
    return rgb, labels


def overlap(rgb: Image, labels: Image) -> tuple[float, npt.NDArray[np.float64]]:
    """Return IoU and centroid offset (x, y) in pixels of picture against labels, void aside."""
    picture, truth = (rgb[..., 0] >= 128) & (labels != VOID), labels == 2
    union = (picture | truth).sum()
    offset = (np.argwhere(picture).mean(0) - np.argwhere(truth).mean(0))[::-1]
    return float((picture & truth).sum() / union), offset


def test_views_stay_aligned() -> None:
    rgb, labels = drawn()
    rng = np.random.default_rng(0)
    ious, offsets = [], []
    for _ in range(60):
        view, ids = random_view(rgb, labels, (128, 256), rng, GEOMETRY)
        if (ids == 2).sum() < 800:
            continue
        iou, offset = overlap(view, ids)
        ious.append(iou)
        offsets.append(offset)
    assert len(ious) > 40
    assert min(ious) > 0.93
    assert np.mean(ious) > 0.97
    # Half a pixel's disagreement between the two warps would show here.
    np.testing.assert_allclose(np.mean(offsets, 0), 0, atol=0.15)


def test_tilted_views_stay_aligned() -> None:
    rgb, labels = drawn()
    settings = dataclasses.replace(GEOMETRY, perspective=0.3)
    ious = []
    for seed in range(40):
        view, ids = random_view(rgb, labels, (128, 256), np.random.default_rng(seed), settings)
        if (ids == 2).sum() >= 800:
            ious.append(overlap(view, ids)[0])
    assert len(ious) > 20
    assert np.mean(ious) > 0.96


def test_perspective_scales_the_two_sides_differently() -> None:
    labels = np.zeros((100, 200), np.uint8)
    labels[40:60, 20:40] = labels[40:60, 160:180] = 1
    rgb = np.zeros((100, 200, 3), np.uint8)
    settings = dataclasses.replace(STILL, perspective=0.2)
    ratios = []
    for seed in range(30):
        _, ids = random_view(rgb, labels, (100, 200), np.random.default_rng(seed), settings)
        ratios.append((ids[:, :100] == 1).sum() / (ids[:, 100:] == 1).sum())
    assert min(ratios) < 0.6 and max(ratios) > 1.6


def test_tone_moves_towards_the_donor_s() -> None:
    rng = np.random.default_rng(0)
    bright = rng.integers(120, 250, (60, 80, 3)).astype(np.uint8)
    dark = rng.integers(10, 60, (60, 80, 3)).astype(np.uint8)
    for seed in range(10):
        toned = appearance.tone_of(bright, dark, np.random.default_rng(seed))
        assert dark.mean() - 5 < toned.mean() < bright.mean() - 30
        assert toned.std() < bright.std()


def test_nothing_moves_when_only_the_look_changes() -> None:
    """Edges of a drawn shape stay where they are, whatever the light."""
    rgb, _ = drawn()
    edges = cv2.Canny(rgb, 100, 200) > 0
    near = cv2.dilate(edges.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    for name in ('fog', 'glare', 'night', 'lamplight', 'colour'):
        rng = np.random.default_rng(4)
        view = (appearance.colour(rgb, rng, 1.0) if name == 'colour'
                else getattr(appearance, name)(rgb, rng))
        change = cv2.morphologyEx(view[..., 0], cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
        assert change[near].mean() > 3 * change[~near].mean(), name


def test_lamplight_is_uneven_and_mostly_dark() -> None:
    even = np.full((96, 192, 3), 120, np.uint8)
    means, spreads, warm = [], [], []
    for seed in range(60):
        view = cv2.blur(appearance.lamplight(even, np.random.default_rng(seed)), (9, 9))
        means.append(view.mean())
        spreads.append(np.percentile(view, 95) - np.percentile(view, 5))
        warm.append(view[..., 0].mean() - view[..., 2].mean())
    # As far as cameras expose for it; night without it takes 50 to 80 % away everywhere.
    assert min(means) > 10 and max(means) < 100
    assert np.mean(spreads) > 40
    assert np.mean(np.array(warm) > -1) > 0.9


@pytest.mark.parametrize('name', ['blur', 'motion', 'coarse', 'jpeg'])
def test_what_blurs_a_picture_leaves_it_on_its_labels(name: str) -> None:
    rgb = np.full((64, 64, 3), 20, np.uint8)
    cv2.circle(rgb, (32, 30), 12, (220, 220, 220), -1)

    def middle(view: Image) -> npt.NDArray[np.float64]:
        bright = view[..., 0] - 20.0
        return np.array([(bright * each).sum() / bright.sum() for each in np.indices((64, 64))])

    moved = np.array([middle(getattr(appearance, name)(rgb, np.random.default_rng(seed)))
                      for seed in range(60)]) - middle(rgb)
    np.testing.assert_allclose(moved.mean(0), 0, atol=0.03)
    # Smaller pictures have whole sides, so that their pixels are a little oblong.
    assert np.abs(moved).max() < 0.35


def test_misaligned_labels_would_be_seen() -> None:
    rgb, labels = drawn()
    shifted = np.roll(labels, 3, axis=1)
    ious = []
    for seed in range(10):
        view, ids = random_view(rgb, shifted, (128, 256), np.random.default_rng(seed), GEOMETRY)
        if (ids == 2).sum() >= 800:
            ious.append(overlap(view, ids)[0])
    assert np.mean(ious) < 0.95


@pytest.mark.parametrize('size_hw', [(45, 80), (64, 256), (180, 320)])
def test_whole_view_stays_aligned(size_hw: tuple[int, int]) -> None:
    rgb, labels = drawn()
    view, ids = whole_view(rgb, labels, size_hw)
    assert view.shape == (*size_hw, 3) and ids.shape == size_hw
    iou, offset = overlap(view, ids)
    assert iou > 0.93
    np.testing.assert_allclose(offset, 0, atol=0.35)


def test_no_change_is_no_change() -> None:
    rgb, labels = drawn()
    noisy = np.random.default_rng(0).integers(0, 256, rgb.shape).astype(np.uint8)
    view, ids = random_view(noisy, labels, (90, 160), np.random.default_rng(0), STILL)
    np.testing.assert_array_equal(view, noisy)
    np.testing.assert_array_equal(ids, labels)


def test_scale_of_one_is_the_robot_s_view() -> None:
    rgb, labels = drawn()
    smooth = cv2.GaussianBlur(rgb, (0, 0), 3)
    view, _ = random_view(smooth, labels, (64, 128), np.random.default_rng(0), STILL)
    wanted, _ = whole_view(smooth, labels, (64, 128))
    inner = (slice(2, -2), slice(2, -2))  # the two differ in how they treat the border
    assert np.abs(view[inner].astype(int) - wanted[inner].astype(int)).max() <= 4


def test_mirroring_turns_picture_and_labels_alike() -> None:
    rgb, labels = drawn()
    settings = dataclasses.replace(STILL, flip=True)
    mirrored = 0
    for seed in range(20):
        view, ids = random_view(rgb, labels, (90, 160), np.random.default_rng(seed), settings)
        if (ids == labels).all():
            np.testing.assert_array_equal(view, rgb)
        else:
            np.testing.assert_array_equal(view, rgb[:, ::-1])
            np.testing.assert_array_equal(ids, labels[:, ::-1])
            mirrored += 1
    assert 4 <= mirrored <= 16


def test_ids_are_never_interpolated() -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice(np.array([0, 3, 77, VOID], np.uint8), (50, 70))
    rgb = np.zeros((50, 70, 3), np.uint8)
    for _ in range(20):
        _, ids = random_view(rgb, labels, (64, 96), rng, Augmentation())
        assert set(np.unique(ids)) <= {0, 3, 77, VOID}
    for size_hw in ((7, 9), (50, 70), (123, 211)):
        assert set(np.unique(resize_labels(labels, size_hw))) <= {0, 3, 77, VOID}
        assert set(np.unique(whole_view(rgb, labels, size_hw)[1])) <= {0, 3, 77, VOID}


def test_what_lies_outside_the_frame_is_void() -> None:
    settings = dataclasses.replace(STILL, scale=(0.5, 0.5))
    rgb, labels = np.full((64, 64, 3), 9, np.uint8), np.zeros((64, 64), np.uint8)
    _, ids = random_view(rgb, labels, (64, 64), np.random.default_rng(1), settings)
    assert (ids == 0).mean() == pytest.approx(0.25, abs=0.03)
    assert (ids == VOID).mean() == pytest.approx(0.75, abs=0.03)


def test_zoom_range_is_kept() -> None:
    labels = np.zeros((100, 100), np.uint8)
    labels[45:55, 45:55] = 1
    rgb = np.zeros((100, 100, 3), np.uint8)
    settings = dataclasses.replace(STILL, scale=(0.8, 1.6))
    zooms = []
    for seed in range(60):
        _, ids = random_view(rgb, labels, (100, 100), np.random.default_rng(seed), settings)
        rows = np.flatnonzero((ids == 1).any(1))
        zooms.append(len(rows) / 10)
    assert 0.7 <= min(zooms) < 1.0
    assert 1.4 < max(zooms) <= 1.7


def test_same_seed_same_view() -> None:
    rgb, labels = drawn()
    first, second = (
        random_view(rgb, labels, (64, 128), np.random.default_rng(9), Augmentation())
        for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


@pytest.mark.parametrize('effect', ['colour', *EFFECTS])
def test_each_effect_changes_the_picture_and_not_the_labels(effect: str) -> None:
    rgb, labels = drawn()
    rgb = rgb // 2 + 60
    settings = dataclasses.replace(STILL, **{effect: 1.0})
    before = rgb.copy()
    view, ids = random_view(rgb, labels, (90, 160), np.random.default_rng(2), settings)
    assert (view != rgb).any()
    np.testing.assert_array_equal(rgb, before)
    np.testing.assert_array_equal(ids, labels)
