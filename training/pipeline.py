"""Batches from data sets, on threads, the same in every run with the same seed."""

from __future__ import annotations

import keras
import numpy as np
import numpy.typing as npt

from training.augment import Augmentation, random_view
from training.config import Config
from training.datasets import FrameDataset, VOID


class Cached:
    """
    Keep decoded frames of a data set in memory (about 0.6 MB for a CamVid frame).

    Safe to read from several threads: a frame decoded twice is the same frame.

    """

    def __init__(self, dataset: FrameDataset) -> None:
        self._dataset = dataset
        self._frames: dict[int, tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]] = {}

    def __len__(self) -> int:
        return len(self._dataset)

    def name(self, index: int) -> str:
        return self._dataset.name(index)

    def sequence(self, index: int) -> str:
        return self._dataset.sequence(index)

    def read(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        if (frame := self._frames.get(index)) is None:
            frame = self._frames[index] = self._dataset.read(index)
        return frame


def epoch_plan(
    sizes: list[int], weights: list[float], count: int, rng: np.random.Generator,
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

    Returns
    -------
    list of (int, int)
        Data set and frame indices in random order. Within a data set no frame comes a second
        time before every other has come once.

    """
    shares = np.asarray(weights) / np.sum(weights)
    counts = np.floor(shares * count).astype(int)
    counts[: count - counts.sum()] += 1
    plan = []
    for index, (size, wanted) in enumerate(zip(sizes, counts, strict=True)):
        rounds = -(-int(wanted) // size)
        order = np.concatenate([rng.permutation(size) for _ in range(rounds)] or [[]])[:wanted]
        plan += [(index, int(frame)) for frame in order]
    return [plan[position] for position in rng.permutation(len(plan))]


class EpochBatches(keras.utils.PyDataset):
    """
    One epoch of augmented batches.

    Every batch depends on the seed, the epoch and its own index alone, so a resumed run sees
    what the uninterrupted one would have seen, and threads may build batches in any order.

    Item: ``float32[N, H, W, 3]`` RGB in [0, 1] and a dict from output name to ``uint8[N, h, w]``
    labels at ``loss_stride``: deployed classes for ``logits``, training classes for the boosters.

    """

    def __init__(
        self, config: Config, datasets: list[FrameDataset], epoch: int,
        outputs: list[str], workers: int = 2,
    ) -> None:
        super().__init__(workers=workers, use_multiprocessing=False, max_queue_size=6)
        self._config, self._datasets, self._epoch = config, datasets, epoch
        self._outputs = outputs
        self._input_hw = config.phase_of(epoch).input_hw
        rng = np.random.default_rng([config.seed, epoch])
        self._plan = epoch_plan(
            [len(dataset) for dataset in datasets], [weight for _, weight in config.train],
            config.steps_per_epoch * config.batch_size, rng)
        self._merge = np.full(256, VOID, np.uint8)
        self._merge[:len(config.merge)] = config.merge

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
        config = self._config
        rng = np.random.default_rng([config.seed, self._epoch, index])
        settings: Augmentation = config.augmentation
        views, labels = [], []
        start = index * config.batch_size
        for dataset, frame in self._plan[start:start + config.batch_size]:
            rgb, ids = self._datasets[dataset].read(frame)
            donor = self._any_frame(rng) if settings.wants_donor else None
            view, ids = random_view(rgb, ids, self._input_hw, rng, settings, donor)
            views.append(view)
            offset = config.loss_stride // 2
            labels.append(ids[offset::config.loss_stride, offset::config.loss_stride])
        fine = np.stack(labels)
        images = np.stack(views).astype(np.float32) / 255
        deployed = self._merge[fine]
        return images, {
            name: deployed if name == 'logits' else fine for name in self._outputs}
