"""Weather falls on the ground, changes no label and tells nothing of where the road ends."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from bisenet_ros import Segmenter
from bisenet_ros.core.postprocess import Wanted
from training import weather
from training.augment import WEATHER, Augmentation, random_view
from training.datasets import BACKGROUND, GROUND, MOVABLE, ROAD, VOID, open_dataset
from training.metrics import ConfusionMatrix
from training.weather import find_ground

Image = npt.NDArray[np.uint8]

SIZE = (96, 192)
STILL = Augmentation(
    scale=(1.0, 1.0), aspect=1.0, rotation_deg=0.0, flip=False, colour=0.0,
    blur=0.0, noise=0.0, cutout=0.0, shadow=0.0)
FAR = 40


def street() -> tuple[Image, Image]:
    """Return a street below a striped sky: pavement on the left, a car on the right."""
    ids = np.full(SIZE, ROAD, np.uint8)
    ids[:FAR], ids[FAR:, :50], ids[60:80, 150:] = BACKGROUND, GROUND, MOVABLE
    rgb = np.full((*SIZE, 3), 100, np.uint8)
    rgb[:FAR, ::2], rgb[:FAR, 1::2] = (250, 250, 250), (180, 200, 230)
    rgb[ids == MOVABLE] = (200, 30, 30)
    return rgb, ids


def drawn(effect: str, seed: int, share: float = 1.0) -> tuple[Image, Image]:
    rgb, ids = street()
    return random_view(
        rgb, ids, SIZE, np.random.default_rng(seed), dataclasses.replace(STILL, **{effect: share}),
        background=BACKGROUND, road=ROAD, ground=GROUND)


@pytest.mark.parametrize('effect', WEATHER)
def test_labels_stay_and_so_does_a_view_without_weather(effect: str) -> None:
    rgb, ids = street()
    for seed in range(20):
        view, after = drawn(effect, seed)
        np.testing.assert_array_equal(after, ids)
        assert (view != rgb).any()
        np.testing.assert_array_equal(drawn(effect, seed, 0.0)[0], rgb)
    changed = sum((drawn(effect, seed, 0.25)[0] != rgb).any() for seed in range(200))
    assert 30 < changed < 70


@pytest.mark.parametrize('effect', ['shade', 'wet'])
def test_what_lies_on_the_ground_reaches_road_and_pavement_alike_and_nothing_else(
    effect: str,
) -> None:
    rgb, ids = street()
    shares = []
    for seed in range(40):
        changed = (drawn(effect, seed)[0] != rgb).any(-1)
        assert not changed[(ids == BACKGROUND) | (ids == MOVABLE)].any()
        shares.append((changed[ids == ROAD].mean(), changed[ids == GROUND].mean()))
    road, beside = np.mean(shares, 0)
    assert road > 0.5 and abs(road - beside) < 0.1


def test_a_wet_road_is_darker_and_mirrors_what_is_above_it() -> None:
    dry, ids = street()
    mirrored = []
    for seed in range(60):
        found = find_ground(ids, ROAD, GROUND)
        assert found is not None
        below_black, below_colours = dry.copy(), dry.copy()
        below_black[:FAR] = 0
        weather.wet(below_black, found, np.random.default_rng(seed))
        assert (below_black[ids == ROAD] <= dry[ids == ROAD]).all()
        below_colours[:FAR] = np.where(
            np.arange(SIZE[1])[:, None] < 96, (250, 0, 0), (0, 0, 250))
        weather.wet(below_colours, found, np.random.default_rng(seed))
        far = below_colours[FAR + 3:FAR + 15].astype(int)
        redness = (far[..., 0] - far[..., 2]).mean(0)
        assert redness[60:90].mean() >= 0 >= redness[100:130].mean()
        mirrored.append(redness[60:90].mean())
    assert np.mean(np.array(mirrored) > 20) > 0.5


def test_snow_whitens_the_ground_and_may_leave_the_road_bare() -> None:
    rgb, ids = street()
    rgb[ids == ROAD] = 60
    rgb[ids == GROUND] = 60
    lighter = []
    for seed in range(60):
        view = rgb.copy()
        found = find_ground(ids, ROAD, GROUND)
        assert found is not None
        weather.snow(view, found, np.random.default_rng(seed))
        lighter.append([view[ids == each].mean() - 60 for each in (ROAD, GROUND)])
    road, beside = np.array(lighter).T
    assert road.min() > -1 and beside.min() > -1
    assert road.min() < 15 and road.max() > 80 and beside.mean() > road.mean() > 10


def test_rain_veils_streaks_and_leaves_the_scene_to_be_seen() -> None:
    rgb, _ = street()
    contrasts, streaks = [], []
    for seed in range(40):
        view = drawn('rain', seed)[0]
        contrasts.append(view.std() / rgb.std())
        assert np.corrcoef(view.ravel(), rgb.ravel())[0, 1] > 0.8
        found = find_ground(street()[1], ROAD, GROUND)
        assert found is not None
        weather.rain(flat := np.full_like(rgb, 100), found, np.random.default_rng(seed))
        # Above the veil, which is even: lines that are longer than wide.
        light = flat[..., 0].astype(int) - int(np.median(flat[..., 0]))
        streaks.append((light > 5).mean())
    assert np.mean(contrasts) < 0.95
    assert 0.005 < np.mean(streaks) < 0.3


def test_ground_without_a_class_of_its_own_is_all_that_lies_below_the_roads_far_end() -> None:
    _, ids = street()
    ids[90:, :20] = VOID
    found = find_ground(ids, ROAD)
    assert found is not None and found.far_row == FAR
    np.testing.assert_array_equal(
        found.beside, np.isin(ids, (GROUND, MOVABLE)) & (np.arange(SIZE[0]) >= FAR)[:, None])
    assert not found.beside[ids == VOID].any()
    assert found.nearness[:FAR].max() == 0 and 0.9 < found.nearness[-1, 0] <= 1


def test_views_with_too_little_road_stay_dry() -> None:
    _, ids = street()
    ids[FAR:-5] = BACKGROUND
    assert find_ground(ids, ROAD, GROUND) is None
    assert find_ground(np.full(SIZE, VOID, np.uint8), VOID) is None


@pytest.mark.parametrize('size', [(8, 16), (17, 33), (96, 192)])
@pytest.mark.parametrize('effect', WEATHER)
def test_any_view_can_have_weather(effect: str, size: tuple[int, int]) -> None:
    ids = np.full(size, ROAD, np.uint8)
    for seed in range(30):
        view = np.full((*size, 3), 90, np.uint8)
        found = find_ground(ids, ROAD, GROUND)
        assert found is not None and found.far_row == 0
        getattr(weather, effect)(view, found, np.random.default_rng(seed))
        assert view.dtype == np.uint8 and view.shape == (*size, 3)


def test_the_shipped_model_knows_wet_roads(shared_data: Path) -> None:
    """By the validation frames it scores 0.91; before it had seen any it was 0.71."""
    segmenter, matrix = Segmenter.load(device='cpu'), ConfusionMatrix(2)
    dataset = open_dataset('camvid:val', shared_data)
    for index in range(0, len(dataset), 8):
        rgb, ids = dataset.read(index)
        view, ids = random_view(
            rgb, ids, ids.shape, np.random.default_rng(index),
            dataclasses.replace(STILL, wet=1.0), road=ROAD, ground=GROUND)
        labels = segmenter.segment(view, wanted=Wanted(labels=True)).labels
        assert labels is not None
        matrix.update(np.where(ids == VOID, VOID, ids == ROAD).astype(np.uint8), labels)
    assert matrix.iou()[1] > 0.85
