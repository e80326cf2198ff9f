"""The rendered drive: the same from the same seed, and its labels are its picture's."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt
import pytest

from bisenet_ros.core.drive import (
    BACKGROUND, CLASS_NAMES, GROUND, MOVABLE, ROAD, RenderedDrive, Scene, random_scene,
)

#: No light, weather or paint between a surface's colour and its pixels.
PLAIN = Scene(
    tint_rgb=(1.0, 1.0, 1.0), haze=0.0, texture=0.0, marked=False, shadows=False,
    asphalt_rgb=(250, 0, 250), pavement_rgb=(0, 250, 0), grass_rgb=(0, 0, 250))


def is_colour(
    rgb: npt.NDArray[np.uint8], colour: tuple[int, int, int],
) -> npt.NDArray[np.bool_]:
    matches: npt.NDArray[np.bool_] = (rgb == np.uint8(colour)).all(-1)
    return matches


def test_same_seed_same_frame() -> None:
    first, second = (RenderedDrive((160, 96), seed=5).frame(3.25) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_frames_do_not_depend_on_what_was_rendered_before() -> None:
    drive = RenderedDrive((160, 96), seed=5)
    wanted = drive.frame(2.0)
    drive.frame(7.0)
    again = drive.frame(2.0)
    np.testing.assert_array_equal(wanted[0], again[0])
    np.testing.assert_array_equal(wanted[1], again[1])


def test_seed_and_time_change_the_frame() -> None:
    start, _ = RenderedDrive((160, 96), seed=5).frame(0.0)
    other_seed, _ = RenderedDrive((160, 96), seed=6).frame(0.0)
    later, _ = RenderedDrive((160, 96), seed=5).frame(0.5)
    assert (start != other_seed).any()
    assert (start != later).any()


def test_frame_is_rgb_with_labels_of_every_class() -> None:
    rgb, labels = RenderedDrive((320, 180), seed=1).frame(0.0)
    assert rgb.shape == (180, 320, 3) and rgb.dtype == np.uint8
    assert labels.shape == (180, 320) and labels.dtype == np.uint8
    assert set(np.unique(labels)) == set(range(len(CLASS_NAMES)))


@pytest.mark.parametrize('time_s', [0.0, 4.0, 20.0])
def test_labels_match_the_picture(time_s: float) -> None:
    rgb, labels = RenderedDrive((640, 360), seed=3, scene=PLAIN).frame(time_s)
    kerb = tuple(min(c + 25, 255) for c in PLAIN.pavement_rgb)
    asphalt = is_colour(rgb, PLAIN.asphalt_rgb)
    ground = (is_colour(rgb, PLAIN.pavement_rgb) | is_colour(rgb, PLAIN.grass_rgb)
              | is_colour(rgb, kerb))
    assert (labels == ROAD).any()
    assert asphalt[labels == ROAD].all()
    assert ground[labels == GROUND].all()
    # The picture shows asphalt beneath a vehicle's body, between its wheels: movable there.
    assert np.isin(labels[asphalt], (ROAD, MOVABLE)).all()
    assert not (asphalt | ground)[labels == BACKGROUND].any()


def test_road_lies_where_a_pinhole_camera_sees_it() -> None:
    scene = dataclasses.replace(PLAIN, curvature_per_m=0.0, camera_height_m=0.4)
    width, height = 640, 480
    _, labels = RenderedDrive((width, height), scene=scene).frame(1.0)
    focal = width / 2 / math.tan(scene.field_of_view_rad / 2)
    horizon = height / 2 - focal * math.tan(scene.pitch_rad)
    half = scene.lanes * scene.lane_width_m / 2
    # Nothing stands nearer than 2.4 m, so nothing hides the road in the rows below.
    for row in range(math.ceil(horizon + focal * 0.4 / 2.4) + 1, height, 20):
        z = focal * scene.camera_height_m / (row + 0.5 - horizon)
        left = width / 2 + focal * (-half - scene.camera_lane_offset_m) / z
        right = width / 2 + focal * (half - scene.camera_lane_offset_m) / z
        columns = np.flatnonzero(labels[row] == ROAD)
        assert columns[0] == pytest.approx(max(left, 0), abs=2)
        assert columns[-1] == pytest.approx(min(right, width - 1), abs=2)
        assert (labels[row, columns[0]:columns[-1] + 1] == ROAD).all()


def test_sky_is_above_and_road_below() -> None:
    _, labels = RenderedDrive((320, 180), seed=2, scene=PLAIN).frame(0.0)
    assert (labels[:10] == BACKGROUND).all()
    assert not (labels[:40] == ROAD).any()
    assert (labels[-1] == ROAD).mean() > 0.5


def test_random_scenes_are_repeatable_and_differ() -> None:
    one, again, other = (random_scene(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one == again
    assert one != other


def test_random_scenes_all_show_plausible_road() -> None:
    shares = []
    for seed in range(40):
        scene = random_scene(np.random.default_rng(seed))
        _, labels = RenderedDrive((128, 64), seed, scene).frame(float(seed))
        assert labels.max() < len(CLASS_NAMES)
        shares.append(float((labels == ROAD).mean()))
    assert min(shares) > 0.01
    assert 0.15 < np.mean(shares) < 0.5


@pytest.mark.parametrize('size_wh', [(16, 16), (17, 31), (640, 16), (16, 640)])
def test_odd_sizes_render(size_wh: tuple[int, int]) -> None:
    rgb, labels = RenderedDrive(size_wh, seed=4).frame(1.5)
    assert rgb.shape == (size_wh[1], size_wh[0], 3)
    assert labels.shape == size_wh[::-1]


@pytest.mark.parametrize('size_wh', [(15, 100), (100, 15), (0, 0)])
def test_too_small_is_refused(size_wh: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match='size_wh: found .* at least 16 pixels a side'):
        RenderedDrive(size_wh)
