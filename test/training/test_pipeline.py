"""Batches are the same in every run with the same seed, whoever asks for them and when."""

from __future__ import annotations

import collections
import dataclasses
import itertools

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip('keras', reason='keras is not installed (pip install .[train])')

from training.augment import Augmentation
from training.config import Config, ConfigError, Phase
from training.datasets import VOID, FrameDataset, SyntheticDrive
from training.model import Architecture
from training.pipeline import CacheBudget, Cached, EpochBatches, epoch_plan, balanced_shares

pytestmark = pytest.mark.training

CONFIG = Config(
    architecture=Architecture(booster_classes=4), phases=(Phase((32, 64), 2), Phase((64, 96), 1)),
    train=(('synthetic:6', 0.75), ('synthetic:2:1', 0.25)), validate=('synthetic:1',),
    images_per_epoch=12, batch_size=4, loss_stride=2)


def frames() -> list[FrameDataset]:
    return [SyntheticDrive(6, (96, 64)), SyntheticDrive(2, (96, 64), seed=1)]


def batches(epoch: int = 0, config: Config = CONFIG) -> EpochBatches:
    return EpochBatches(config, frames(), epoch, ['logits', 'booster_s3'])


class CountedReads:
    """A data set that counts how often it is read."""

    def __init__(self) -> None:
        self.reads = 0

    def __len__(self) -> int:
        return 3

    def name(self, index: int) -> str:
        return f'frame {index}'

    def sequence(self, index: int) -> str:
        return f'drive {index}'

    def read(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        self.reads += 1
        return np.full((2, 2, 3), index, np.uint8), np.zeros((2, 2), np.uint8)


def test_cached_reads_once() -> None:
    source = CountedReads()
    cached = Cached(source)
    assert (len(cached), cached.name(1), cached.sequence(2)) == (3, 'frame 1', 'drive 2')
    for _ in range(3):
        assert cached.read(1)[0][0, 0, 0] == 1
    assert source.reads == 1


def test_cache_keeps_to_its_budget() -> None:
    budget = CacheBudget(2 * 16)  # a frame of 2x2 pixels is 16 bytes
    first, second = CountedReads(), CountedReads()
    caches = Cached(first, budget), Cached(second, budget)
    for _ in range(3):
        for index in range(2):
            assert caches[0].read(index)[0][0, 0, 0] == index
        assert caches[1].read(2)[0][0, 0, 0] == 2
    assert (first.reads, second.reads) == (2, 3)


def test_parts_of_a_batch_make_the_batch() -> None:
    whole = batches()[1]
    parts = [EpochBatches(CONFIG, frames(), 0, ['logits', 'booster_s3'], part=(index, 2))[1]
             for index in range(2)]
    np.testing.assert_array_equal(np.concatenate([part[0] for part in parts]), whole[0])
    for name, labels in whole[1].items():
        np.testing.assert_array_equal(
            np.concatenate([part[1][name] for part in parts]), labels)


def test_boosters_have_the_deployed_classes_unless_told_otherwise() -> None:
    config = dataclasses.replace(CONFIG, architecture=Architecture())
    _, labels = batches(config=config)[0]
    np.testing.assert_array_equal(labels['booster_s3'], labels['logits'])
    assert set(np.unique(labels['booster_s3'])) <= {0, 1, VOID}


def test_plan_keeps_shares_and_repeats_nothing_early() -> None:
    plan = epoch_plan([100, 3], [3.0, 1.0], 40, np.random.default_rng(0))
    assert len(plan) == 40
    large = [frame for dataset, frame in plan if dataset == 0]
    small = [frame for dataset, frame in plan if dataset == 1]
    assert len(large) == 30 and len(set(large)) == 30
    assert len(small) == 10
    # Ten draws from three frames: each comes three times, one a fourth time.
    assert sorted(small.count(frame) for frame in range(3)) == [3, 3, 4]


def test_plan_is_shuffled_across_data_sets() -> None:
    plan = epoch_plan([50, 50], [1, 1], 40, np.random.default_rng(0))
    changes = sum(left[0] != right[0] for left, right in zip(plan, plan[1:], strict=False))
    assert changes > 8


def test_plan_gives_what_rounding_leaves_over() -> None:
    plan = epoch_plan([5, 5, 5], [1, 1, 1], 10, np.random.default_rng(0))
    assert sorted(sum(d == index for d, _ in plan) for index in range(3)) == [3, 3, 4]


def test_small_shares_have_their_turn() -> None:
    """Three frames of 16 for weight 0.98, and 0.16 an epoch for each of the others."""
    found = np.array([
        [sum(dataset == index for dataset, _ in plan) for index in range(3)]
        for plan in (epoch_plan([40, 40, 40], [0.98, 0.01, 0.01], 16, np.random.default_rng(seed))
                     for seed in range(400))])
    assert (found.sum(axis=1) == 16).all() and found[:, 1:].max() == 1
    np.testing.assert_allclose(found.mean(axis=0), [15.68, 0.16, 0.16], atol=0.06)


def test_whole_shares_are_kept() -> None:
    for seed in range(50):
        plan = epoch_plan([900] * 4, [0.42, 0.38, 0.15, 0.05], 3200, np.random.default_rng(seed))
        assert [sum(d == index for d, _ in plan) for index in range(4)] == [1344, 1216, 480, 160]


class Drives:
    """Frames of a long drive, a short one and a single frame."""

    names = ('long',) * 16 + ('short',) * 4 + ('one',)

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        return f'{self.names[index]}_{index}'

    def sequence(self, index: int) -> str:
        return self.names[index]

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError('only counted, never read')


@pytest.mark.parametrize(('balance', 'expected'), [
    (1.0, {'long': 1 / 3, 'short': 1 / 3, 'one': 1 / 3}),
    (0.5, {'long': 4 / 7, 'short': 2 / 7, 'one': 1 / 7})])
def test_long_drives_give_way_to_short_ones(balance: float, expected: dict[str, float]) -> None:
    drives = Drives()
    shares = balanced_shares(drives, balance)
    assert shares is not None
    frames = [frame for _, frame in epoch_plan(
        [len(drives)], [1], 420, np.random.default_rng(0), [shares])]
    found = collections.Counter(drives.sequence(frame) for frame in frames)
    for sequence, share in expected.items():
        assert found[sequence] == pytest.approx(share * 420, abs=16), sequence
    # Within a drive no frame comes oftener than another, but for rounding.
    counts = collections.Counter(frames)
    assert max(counts[i] for i in range(16)) - min(counts[i] for i in range(16)) <= 1


def test_without_balance_every_frame_counts_the_same() -> None:
    assert balanced_shares(Drives(), 0.0) is None
    plain = epoch_plan([21, 9], [1, 1], 60, np.random.default_rng(0))
    assert plain == epoch_plan([21, 9], [1, 1], 60, np.random.default_rng(0), [None, None])


def test_an_epoch_is_drawn_as_the_configuration_balances_it() -> None:
    drives = Drives()
    config = dataclasses.replace(
        CONFIG, train=(('drives', 1.0),), images_per_epoch=60, sequence_balance=1.0)
    epoch = EpochBatches(config, [drives], 0, ['logits'])
    found = collections.Counter(drives.sequence(frame) for _, frame in epoch._plan)
    assert found['one'] == pytest.approx(20, abs=2)


def test_batches_have_the_model_s_form() -> None:
    epoch = batches()
    assert epoch.num_batches == 3
    images, labels = epoch[1]
    assert images.shape == (4, 32, 64, 3) and images.dtype == np.float32
    assert images.min() >= 0 and images.max() <= 1 and images.max() > 0.2
    assert set(labels) == {'logits', 'booster_s3'}
    for ids in labels.values():
        assert ids.shape == (4, 16, 32) and ids.dtype == np.uint8
    assert set(np.unique(labels['logits'])) <= {0, 1, VOID}
    assert set(np.unique(labels['booster_s3'])) <= {0, 1, 2, 3, VOID}


def test_deployed_classes_are_merged_from_the_training_classes() -> None:
    _, labels = batches()[0]
    fine = labels['booster_s3']
    wanted = np.full_like(fine, 0)
    wanted[fine == 1] = 1
    wanted[fine == VOID] = VOID
    assert 1 in fine
    np.testing.assert_array_equal(labels['logits'], wanted)


def test_size_follows_the_phase() -> None:
    assert batches(epoch=1)[0][0].shape == (4, 32, 64, 3)
    assert batches(epoch=2)[0][0].shape == (4, 64, 96, 3)
    with pytest.raises(ConfigError, match='epoch 3 is past the last phase'):
        batches(epoch=3)


def test_batches_do_not_depend_on_the_order_of_asking() -> None:
    one, two = batches(), batches()
    forward = [one[index] for index in range(3)]
    backward = [two[index] for index in (2, 1, 0)][::-1]
    for left, right in zip(forward, backward, strict=True):
        np.testing.assert_array_equal(left[0], right[0])
        np.testing.assert_array_equal(left[1]['logits'], right[1]['logits'])


def test_epochs_and_seeds_differ() -> None:
    first = batches(0)[0][0]
    assert (first != batches(1)[0][0]).any()
    assert (first != batches(0, dataclasses.replace(CONFIG, seed=1))[0][0]).any()


@pytest.mark.parametrize('stride', [1, 2, 4])
def test_labels_are_taken_from_every_pixel_of_a_cell_in_turn(stride: int) -> None:
    still = Augmentation(
        scale=(1, 1), aspect=1, rotation_deg=0, flip=False, colour=0, blur=0, noise=0, cutout=0,
        shadow=0)
    config = dataclasses.replace(
        CONFIG, phases=(Phase((64, 96), 1),), train=(('synthetic:6', 1.0),), loss_stride=stride,
        images_per_epoch=80 * stride, augmentation=still)
    source = SyntheticDrive(6, (96, 64))
    originals = [source.read(index) for index in range(6)]
    epoch = EpochBatches(config, [source], 0, ['booster_s3'])
    seen = collections.Counter()
    for images, labels in (epoch[index] for index in range(epoch.num_batches)):
        for image, ids in zip(images, labels['booster_s3'], strict=True):
            match = [full for rgb, full in originals
                     if np.array_equal(np.round(image * 255).astype(np.uint8), rgb)]
            assert len(match) == 1
            fitting = [offset for offset in itertools.product(range(stride), repeat=2)
                       if np.array_equal(ids, match[0][offset[0]::stride, offset[1]::stride])]
            assert fitting
            if len(fitting) == 1:
                seen[fitting[0]] += 1
    # On the whole at the middle of their cells, where the logits are; a bias of half a pixel at
    # stride 2 cost 0.0016 of road IoU.
    mean = sum(np.multiply(offset, count) for offset, count in seen.items()) / seen.total()
    np.testing.assert_allclose(mean, (stride - 1) / 2, atol=0.12 * stride)
    assert len(seen) == stride ** 2


def test_donors_are_drawn_only_where_wanted() -> None:
    donating = dataclasses.replace(
        CONFIG, augmentation=dataclasses.replace(CONFIG.augmentation, paste=1.0))
    images, labels = batches(0, donating)[0]
    again, _ = batches(0, donating)[0]
    np.testing.assert_array_equal(images, again)
    assert (images != batches(0)[0][0]).any()
    assert set(np.unique(labels['booster_s3'])) <= {0, 1, 2, 3, VOID}
    assert not CONFIG.augmentation.wants_donor


@pytest.mark.parametrize(('taxonomy', 'expected'), [('road', 0), ('camvid11', VOID)])
def test_the_own_vehicle_is_background_where_there_is_such_a_class(
    taxonomy: str, expected: int,
) -> None:
    plain = CONFIG if taxonomy == 'road' else CONFIG.with_taxonomy(taxonomy)
    still = dataclasses.replace(CONFIG.augmentation, scale=(1.0, 1.0), rotation_deg=0.0)
    config = dataclasses.replace(plain, augmentation=dataclasses.replace(still, hood=1.0))
    _, labels = EpochBatches(config, frames(), 0, ['logits'])[0]
    # Where the lower edge's middle would be road.
    assert (labels['logits'][:, -1, 14:18] == expected).all()


class Flat:
    """Frames all of one class each."""

    def __init__(self, *ids: int) -> None:
        self._ids = ids

    def __len__(self) -> int:
        return len(self._ids)

    def name(self, index: int) -> str:
        return str(index)

    def sequence(self, index: int) -> str:
        return ''

    def read(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        value = self._ids[index]
        return np.full((32, 64, 3), value, np.uint8), np.full((32, 64), value, np.uint8)


@pytest.mark.parametrize(('taxonomy', 'road', 'other'), [
    ('road', 1, 3), ('camvid11', 3, 1), ('cityscapes19', 0, 1)])
def test_road_is_never_pasted_alone_whatever_its_id_is(
    taxonomy: str, road: int, other: int,
) -> None:
    still = Augmentation(
        scale=(1.0, 1.0), aspect=1.0, rotation_deg=0.0, flip=False, colour=0.0, blur=0.0,
        noise=0.0, cutout=0.0, shadow=0.0, paste=1.0)
    plain = CONFIG if taxonomy == 'road' else CONFIG.with_taxonomy(taxonomy)
    config = dataclasses.replace(
        plain, augmentation=still, train=(('synthetic:2', 1.0),), images_per_epoch=32)
    labels = [EpochBatches(config, [Flat(road, other)], 0, ['booster_s3'])[index][1]
              for index in range(8)]
    shown = np.concatenate([each['booster_s3'][:, 0, 0] for each in labels])
    # Half of the views begin as either; things are pasted over roads, roads over nothing.
    assert (shown == road).sum() < len(shown) / 2 < (shown == other).sum()


class Thirds(Flat):
    """A frame in three thirds, each of one class, all of even grey."""

    def __len__(self) -> int:
        return 1

    def read(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        ids = np.repeat(np.uint8(self._ids), (20, 24, 20))[None].repeat(32, 0)
        return np.full((32, 64, 3), 100, np.uint8), ids


@pytest.mark.parametrize(('taxonomy', 'road', 'ground', 'other', 'other_is_dry'), [
    ('road', 1, 2, 3, True), ('camvid11', 3, 4, 1, True), ('cityscapes19', 0, 1, 2, True),
    # Frames that label the road alone: weather on it alone would tell where it is.
    ('road', 1, 0, 0, False)])
def test_weather_falls_on_road_and_pavement_whatever_their_ids_are(
    taxonomy: str, road: int, ground: int, other: int, other_is_dry: bool,
) -> None:
    still = Augmentation(
        scale=(1.0, 1.0), aspect=1.0, rotation_deg=0.0, flip=False, colour=0.0, blur=0.0,
        noise=0.0, cutout=0.0, shadow=0.0, wet=1.0)
    plain = CONFIG if taxonomy == 'road' else CONFIG.with_taxonomy(taxonomy)
    config = dataclasses.replace(
        plain, augmentation=still, train=(('synthetic:2', 1.0),), images_per_epoch=16)
    images = np.concatenate([
        EpochBatches(config, [Thirds(road, ground, other)], 0, ['logits'])[index][0]
        for index in range(4)])
    dry = np.isclose(images, 100 / 255, atol=1e-3).all(-1)
    left, middle, right = (dry[..., part].mean() for part in np.split(
        np.arange(images.shape[2]), [20 * images.shape[2] // 64, 44 * images.shape[2] // 64]))
    assert left < 0.2 and middle < 0.25 and (right > 0.95 if other_is_dry else right < 0.2)
