"""What is put into a view comes with its labels, and paint on a road leaves them alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from training.augment import Augmentation, random_view
from training.datasets import ROAD, VOID
from training.scenery import VERGE

Image = npt.NDArray[np.uint8]

STILL = Augmentation(
    scale=(1.0, 1.0), aspect=1.0, rotation_deg=0.0, flip=False, colour=0.0,
    blur=0.0, noise=0.0, cutout=0.0, shadow=0.0)


def street() -> tuple[Image, Image]:
    """Draw a grey road that narrows towards the middle of the picture, and grass beside it."""
    y, x = np.mgrid[:96, :192]
    labels = ((y >= 40) & (np.abs(x - 96) < (y - 38) * 1.5)).astype(np.uint8)
    rgb = np.full((96, 192, 3), (60, 140, 50), np.uint8)
    rgb[labels == ROAD] = 100
    return rgb, labels


def marked(seed: int, rgb: Image, labels: Image, road: int = ROAD) -> tuple[Image, Image]:
    """Return a view with markings, the frame's size."""
    return random_view(
        rgb, labels, labels.shape, np.random.default_rng(seed),
        dataclasses.replace(STILL, markings=1.0), road=road)


def test_pasting_brings_a_donor_s_things_with_their_labels_but_not_its_road() -> None:
    rgb, labels = np.zeros((90, 160, 3), np.uint8), np.full((90, 160), ROAD, np.uint8)
    donor_rgb, donor_ids = np.full((90, 160, 3), 200, np.uint8), np.full((90, 160), ROAD, np.uint8)
    donor_ids[20:40, 30:60] = 3
    donor_ids[50:60, 30:60] = VOID
    settings = dataclasses.replace(STILL, paste=1.0)
    view, ids = random_view(
        rgb, labels, (90, 160), np.random.default_rng(0), settings, (donor_rgb, donor_ids),
        road=ROAD)
    np.testing.assert_array_equal(ids == 3, donor_ids == 3)
    assert (ids[donor_ids != 3] == ROAD).all()
    np.testing.assert_array_equal(view[..., 0] == 200, donor_ids == 3)
    assert (labels == ROAD).all() and (rgb == 0).all()


def test_a_donor_of_road_alone_gives_nothing() -> None:
    rgb, labels = street()
    road = np.full((9, 9, 3), 7, np.uint8), np.full((9, 9), ROAD, np.uint8)
    settings = dataclasses.replace(STILL, paste=1.0)
    view, ids = random_view(
        rgb, labels, labels.shape, np.random.default_rng(0), settings, road, road=ROAD)
    np.testing.assert_array_equal(view, rgb)
    np.testing.assert_array_equal(ids, labels)


def test_the_own_vehicle_covers_the_lower_edge_and_is_labelled_as_told() -> None:
    rgb, labels = np.full((90, 160, 3), 120, np.uint8), np.full((90, 160), ROAD, np.uint8)
    settings = dataclasses.replace(STILL, hood=1.0)
    for seed in range(30):
        covered = []
        for background in (0, VOID):
            view, ids = random_view(
                rgb, labels, (64, 128), np.random.default_rng(seed), settings, None, background)
            assert set(np.unique(ids)) == {ROAD, background}
            # The road is as it was, and what covers it is not.
            covered.append(ids == background)
            assert (view[~covered[-1]] == 120).all()
            assert (view[covered[-1]] != 120).any(-1).mean() > 0.9
        np.testing.assert_array_equal(*covered)
        assert 0.01 < covered[0].mean() < 0.31
        # It stands on the lower edge, with nothing of the road below it.
        np.testing.assert_array_equal(covered[0], np.sort(covered[0], axis=0))
    views = [random_view(rgb, labels, (64, 128), np.random.default_rng(seed),
                         dataclasses.replace(STILL, hood=0.25))[1] for seed in range(200)]
    assert 30 < sum((ids == VOID).any() for ids in views) < 70


def test_markings_change_the_road_s_look_and_nothing_else() -> None:
    rgb, labels = street()
    painted, toned, yellow = 0, 0, 0
    for seed in range(60):
        view, ids = marked(seed, rgb, labels)
        np.testing.assert_array_equal(ids, labels)
        np.testing.assert_array_equal(view[labels != ROAD], rgb[labels != ROAD])
        road = view[labels == ROAD].astype(int)
        changed = (road != 100).any(-1)
        painted += changed.any()
        # Another tone covers whole lanes, paint alone only lines.
        toned += changed.mean() > 0.4
        yellow += bool((road[:, 0] - road[:, 2] > 60).any())
    assert painted > 35 and 10 < toned < 50 and 10 < yellow < 50


def test_lines_meet_where_the_road_vanishes() -> None:
    """A line of one width covers fewer pixels of a row the farther away the row is."""
    rgb, labels = street()
    near, far = [], []
    for seed in range(300):
        brighter = marked(seed, rgb, labels)[0][..., 0] > 145  # the tone alone makes at most 130
        for lengths, rows in ((near, slice(80, 96)), (far, slice(44, 52))):
            for row in brighter[rows]:
                ends = np.flatnonzero(np.diff(row, prepend=False, append=False))
                lengths.extend(ends[1::2] - ends[::2])
    assert min(len(near), len(far)) > 100
    assert np.median(near) >= 2 * np.median(far)


def test_lines_keep_away_from_the_road_s_edges() -> None:
    """Where a kerb's own lines tell that the road ends."""
    rgb, labels = street()
    columns = np.flatnonzero(labels[-1] == ROAD)
    edge = round(VERGE * labels.shape[1])
    seen = 0
    for seed in range(300):
        painted = np.flatnonzero(marked(seed, rgb, labels)[0][-1, :, 0] > 145)
        seen += painted.size > 0
        assert (painted > columns[0] + edge).all() and (painted < columns[-1] - edge).all()
    assert seen > 50


def test_markings_follow_the_light_of_the_road() -> None:
    rgb, labels = street()
    for seed in range(30):
        assert marked(seed, rgb // 10, labels)[0].max() < 60


def test_no_road_to_speak_of_gets_no_markings() -> None:
    rgb, labels = street()
    flat = np.zeros_like(labels)
    flat[-3:] = ROAD
    for view, _ in (marked(1, rgb, flat), marked(1, rgb, np.zeros_like(labels)),
                    marked(1, rgb, labels, road=VOID)):
        np.testing.assert_array_equal(view, rgb)
