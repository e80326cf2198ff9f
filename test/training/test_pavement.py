"""Pavement takes a strip of the road with its labels, and what tells it apart is to be seen."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from training.augment import Augmentation, random_view
from training.datasets import BACKGROUND, GROUND, MOVABLE, ROAD, VOID

Image = npt.NDArray[np.uint8]

SIZE = (96, 192)
ASPHALT = 100
STILL = Augmentation(
    scale=(1.0, 1.0), aspect=1.0, rotation_deg=0.0, flip=False, colour=0.0,
    blur=0.0, noise=0.0, cutout=0.0, shadow=0.0)


def street() -> tuple[Image, Image]:
    """Draw an even grey road that narrows towards the middle, grass beside and a car on it."""
    y, x = np.mgrid[:96, :192]
    ids = np.where((y >= 40) & (np.abs(x - 96) < (y - 38) * 1.5), ROAD, BACKGROUND)
    ids[50:60, 90:100] = MOVABLE
    rgb = np.full((*SIZE, 3), (60, 140, 50), np.uint8)
    rgb[ids == ROAD], rgb[ids == MOVABLE] = ASPHALT, (200, 30, 30)
    return rgb, ids.astype(np.uint8)


def paved(seed: int, share: float = 1.0, ground: int = GROUND) -> tuple[Image, Image]:
    rgb, ids = street()
    return random_view(
        rgb, ids, SIZE, np.random.default_rng(seed), dataclasses.replace(STILL, pavement=share),
        background=BACKGROUND, road=ROAD, ground=ground)


def test_road_alone_becomes_pavement_and_most_of_it_stays_road() -> None:
    rgb, before = street()
    shares = []
    for seed in range(60):
        view, after = paved(seed)
        changed = after != before
        assert (before[changed] == ROAD).all() and (after[changed] == GROUND).all()
        np.testing.assert_array_equal(view[before != ROAD], rgb[before != ROAD])
        shares.append(changed.sum() / (before == ROAD).sum())
        assert (after[-1] == ROAD).sum() > 0.2 * SIZE[1]
    assert max(shares) < 0.8
    assert 0.15 < np.mean(shares) < 0.5


def test_strips_lie_on_either_side_and_reach_the_edge() -> None:
    _, before = street()
    sides = set()
    for seed in range(40):
        row = paved(seed)[1][80]
        road = np.flatnonzero(before[80] == ROAD)
        sides.add((bool(row[road[0]] == GROUND), bool(row[road[-1]] == GROUND)))
        left_over = np.flatnonzero(row == ROAD)
        # What stays road is one piece.
        assert left_over.size == 0 or (np.diff(left_over) == 1).all()
    assert {(True, False), (False, True), (True, True)} <= sides


def test_the_eye_can_tell_where_it_begins() -> None:
    for seed in range(60):
        view, after = paved(seed)
        strip = (after == GROUND).view(np.uint8)
        if not strip.any():
            continue
        begins = cv2.dilate(strip, np.ones((9, 9), np.uint8)) & cv2.dilate(
            (after == ROAD).view(np.uint8), np.ones((9, 9), np.uint8)) & np.isin(
                after, (ROAD, GROUND)).astype(np.uint8)
        near = view[60:][begins[60:] > 0].astype(int)
        assert np.abs(near - ASPHALT).max() > 8, seed


def test_asphalt_stays_as_it_is_but_for_a_gutter() -> None:
    rgb, _ = street()
    touched = []
    for seed in range(60):
        view, after = paved(seed)
        still_road = after == ROAD
        touched.append((view[still_road] != rgb[still_road]).any(-1).mean())
    assert np.mean(touched) < 0.15


def test_where_no_class_is_the_ground_it_becomes_background() -> None:
    _, before = street()
    found = [paved(seed, ground=VOID)[1] for seed in range(10)]
    assert all((each[each != before] == BACKGROUND).all() for each in found)
    assert any((each != before).any() for each in found)


def test_as_often_as_asked() -> None:
    rgb, ids = street()
    np.testing.assert_array_equal(paved(0, 0.0)[0], rgb)
    changed = sum((paved(seed, 0.25)[1] != ids).any() for seed in range(200))
    assert 30 < changed < 70


@pytest.mark.parametrize('rows', [0, 5])
def test_a_view_with_little_road_stays_as_it_is(rows: int) -> None:
    rgb, ids = np.full((*SIZE, 3), 90, np.uint8), np.full(SIZE, BACKGROUND, np.uint8)
    ids[96 - rows:] = ROAD
    view, after = random_view(
        rgb, ids, SIZE, np.random.default_rng(0), dataclasses.replace(STILL, pavement=1.0),
        background=BACKGROUND, road=ROAD, ground=GROUND)
    np.testing.assert_array_equal(view, rgb)
    np.testing.assert_array_equal(after, ids)


def test_a_road_at_the_view_s_corner_alone_is_no_error() -> None:
    rgb, ids = np.full((*SIZE, 3), 90, np.uint8), np.full(SIZE, BACKGROUND, np.uint8)
    ids[20:60, :6] = ROAD
    for seed in range(20):
        _, after = random_view(
            rgb, ids, SIZE, np.random.default_rng(seed), dataclasses.replace(STILL, pavement=1.0),
            background=BACKGROUND, road=ROAD, ground=GROUND)
        assert set(np.unique(after)) <= {BACKGROUND, ROAD, GROUND}
