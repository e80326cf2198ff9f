"""Batches from data sets, on threads, the same in every run with the same seed."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

import keras
import numpy as np
import numpy.typing as npt

from training.augment import Augmentation, random_view
from training.config import Config
from training.datasets import FrameDataset, VOID

#: What the ground beside a road is called in the taxonomies that tell it from the rest.
GROUND_NAMES = ('ground', 'pavement', 'sidewalk')


class CacheBudget:
    """
    How much more may be kept in memory, over all data sets.

    Parameters
    ----------
    bytes_left : int

    """

    def __init__(self, bytes_left: int) -> None:
        self._left = bytes_left
        self._lock = threading.Lock()

    def take(self, count: int) -> bool:
        """Take so many bytes, if they are left."""
        with self._lock:
            if count > self._left:
                return False
            self._left -= count
            return True


class Cached:
    """
    Keep decoded frames of a data set in memory (about 0.7 MB for a CamVid frame).

    Safe to read from several threads: a frame decoded twice is the same frame.

    Parameters
    ----------
    dataset : FrameDataset
    budget : CacheBudget or None
        When it is spent, further frames are decoded anew each time; none: no limit.

    """

    def __init__(self, dataset: FrameDataset, budget: CacheBudget | None = None) -> None:
        self._dataset, self._budget = dataset, budget
        self._frames: dict[int, tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]] = {}

    def __len__(self) -> int:
        return len(self._dataset)

    def name(self, index: int) -> str:
        return self._dataset.name(index)

    def sequence(self, index: int) -> str:
        return self._dataset.sequence(index)

    def read(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        if (frame := self._frames.get(index)) is None:
            frame = self._dataset.read(index)
            if self._budget is None or self._budget.take(frame[0].nbytes + frame[1].nbytes):
                self._frames[index] = frame
        return frame


def epoch_plan(
    sizes: list[int], weights: list[float], count: int, rng: np.random.Generator,
    shares: Sequence[npt.NDArray[np.float64] | None] = (),
) -> list[tuple[int, int]]:
    """
    Choose an epoch's frames.

    Parameters
    ----------
    sizes : list of int
        Frames in each data set.
    weights : list of float
        Share of each data set; need not sum to 1.
    count : int
        Frames to choose.
    rng : numpy.random.Generator
    shares : sequence of (float64[F] or None), optional
        Of each data set: what share its frames have in it (``balanced_shares``); none, or None for
        one data set: the same for all.

    Returns
    -------
    list of (int, int)
        Data set and frame indices in random order. A data set comes as often as its share says,
        rounded up or down by chance: a small one is not left out of every epoch. Within a data
        set of equal shares no frame comes a second time before every other has come once; with
        others each comes as often as its share says, rounded up or down.

    """
    # Systematic rounding, with a generator of its own: whole shares take no chance from the rest.
    ends = np.round(np.cumsum(weights) / np.sum(weights) * count, 6)
    counts = np.diff(np.floor(ends + rng.spawn(1)[0].random()).astype(int), prepend=0)
    plan = []
    for index, (size, wanted) in enumerate(zip(sizes, counts, strict=True)):
        if shares and (share := shares[index]) is not None:
            order = _by_share(share, int(wanted), rng)
        else:
            rounds = -(-int(wanted) // size)
            order = np.concatenate(
                [rng.permutation(size) for _ in range(rounds)] or [[]])[:wanted]
        plan += [(index, int(frame)) for frame in order]
    return [plan[position] for position in rng.permutation(len(plan))]


def _by_share(
    share: npt.NDArray[np.float64], count: int, rng: np.random.Generator,
) -> npt.NDArray[np.int64]:
    """Choose so many frames, each as often as its share says, rounded up or down by chance."""
    order = rng.permutation(len(share))
    # Systematic sampling: equal steps through the frames laid end to end.
    ends = np.cumsum(share[order]) / np.sum(share)
    ends[-1] = 1.0  # whatever was lost in adding up
    steps = (np.arange(count) + rng.random()) / max(count, 1)
    return order[np.searchsorted(ends, steps, side='right')]


def balanced_shares(dataset: FrameDataset, balance: float) -> npt.NDArray[np.float64] | None:
    """
    Return what share each frame of a data set has in it.

    Parameters
    ----------
    dataset : FrameDataset
    balance : float
        A sequence of n frames has a share in proportion to ``n ** (1 - balance)``: with 0 every
        frame counts the same, with 1 every sequence.

    Returns
    -------
    float64[F], or None
        Adding up to 1; None where all are the same.

    """
    if not balance:
        return None
    _, of_frame, lengths = np.unique(
        [dataset.sequence(index) for index in range(len(dataset))],
        return_inverse=True, return_counts=True)
    share = lengths[of_frame] ** -float(balance)
    return share / share.sum()


def default_workers() -> int:
    """Return how many threads build batches: the work is OpenCV's, which lets others run."""
    return max(2, min(16, (os.cpu_count() or 2) - 1))


class EpochBatches(keras.utils.PyDataset):
    """
    One epoch of augmented batches.

    Every view depends on the seed, the epoch, its batch and its place there alone, so a resumed
    run sees what the uninterrupted one would have seen, threads may build batches in any order,
    and the processes of a cluster each build their part.

    Item: ``float32[N, H, W, 3]`` RGB in [0, 1] and a dict from output name to ``uint8[N, h, w]``
    labels, any one pixel's of each cell of ``loss_stride`` by as much, the same one throughout a
    view: deployed classes for ``logits``, training classes for the boosters
    where these are finer.

    Parameters
    ----------
    config : Config
    datasets : list of FrameDataset
    epoch : int
        Counted from 0.
    outputs : list of str
        The network's.
    workers : int
        Threads; 0 chooses.
    part : (int, int)
        Which part of every batch to build, of how many.

    """

    def __init__(
        self, config: Config, datasets: list[FrameDataset], epoch: int,
        outputs: list[str], workers: int = 0, part: tuple[int, int] = (0, 1),
    ) -> None:
        workers = workers or default_workers()
        super().__init__(workers=workers, use_multiprocessing=False, max_queue_size=workers + 4)
        self._config, self._datasets, self._epoch = config, datasets, epoch
        self._outputs = outputs
        self._input_hw = config.phase_of(epoch).input_hw
        rng = np.random.default_rng([config.seed, epoch])
        self._plan = epoch_plan(
            [len(dataset) for dataset in datasets], [weight for _, weight in config.train],
            config.steps_per_epoch * config.batch_size, rng,
            [balanced_shares(dataset, config.sequence_balance) for dataset in datasets])
        share = config.batch_size // part[1]
        self._places = range(part[0] * share, (part[0] + 1) * share)
        self._merge = np.full(256, VOID, np.uint8)
        self._merge[:len(config.merge)] = config.merge
        classes = config.training_classes
        self._background, self._road = (
            classes.index(name) if name in classes else VOID for name in ('background', 'road'))
        self._ground = next(
            (classes.index(name) for name in GROUND_NAMES if name in classes), VOID)

    @property
    def num_batches(self) -> int:
        return self._config.steps_per_epoch

    def _any_frame(
        self, rng: np.random.Generator,
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Read one of this epoch's frames."""
        dataset, frame = self._plan[int(rng.integers(len(self._plan)))]
        return self._datasets[dataset].read(frame)

    def __getitem__(
        self, index: int,
    ) -> tuple[npt.NDArray[np.float32], dict[str, npt.NDArray[np.uint8]]]:
        config, stride = self._config, self._config.loss_stride
        settings: Augmentation = config.augmentation
        images = np.empty((len(self._places), *self._input_hw, 3), np.float32)
        labels = []
        for row, place in enumerate(self._places):
            rng = np.random.default_rng([config.seed, self._epoch, index, place])
            dataset, frame = self._plan[index * config.batch_size + place]
            rgb, ids = self._datasets[dataset].read(frame)
            donor = self._any_frame(rng) if settings.wants_donor else None
            view, ids = random_view(
                rgb, ids, self._input_hw, rng, settings, donor, self._background, self._road,
                self._ground)
            np.divide(view, np.float32(255), out=images[row])
            # Which pixel stands for its cell changes from view to view: always the same one would
            # teach outlines that lie beside those of the image by the way to the cell's middle.
            down, right = rng.integers(stride, size=2)
            labels.append(ids[down::stride, right::stride])
        fine = np.stack(labels)
        deployed = self._merge[fine]
        boosters = fine if config.boosters_are_finer else deployed
        return images, {
            name: deployed if name == 'logits' else boosters for name in self._outputs}
