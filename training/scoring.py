"""Score several models on one data set in one pass, frame by frame."""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from bisenet_ros.core.errors import ModelError
from training.boundary import BoundaryScore
from training.class_matching import Matching
from training.datasets import DatasetError, FrameDataset, Tolerant
from training.metrics import ConfusionMatrix, ratio
from training.predictors import Prediction, Predictor
from training.reliability import Reliability


#: Frame sets drawn for the interval of a difference.
RESAMPLES = 1000

#: Fewer frames that show the class have no interval: resampling them knows too little.
LEAST_FRAMES = 10


class Tally:
    """Everything that is counted of one model, over some frames."""

    def __init__(self, num_classes: int) -> None:
        self.frames = 0
        self.matrix = ConfusionMatrix(num_classes)
        self.boundary = BoundaryScore(num_classes)
        #: None until a model reports a confidence.
        self.reliability: Reliability | None = None

    def update(self, truth: npt.NDArray[np.uint8], predicted: Prediction) -> ConfusionMatrix:
        """Count one frame; return the confusion of this frame alone."""
        single = ConfusionMatrix(len(self.matrix.counts))
        single.update(truth, predicted.labels)
        self.matrix.counts += single.counts
        self.boundary.update(truth, predicted.labels)
        if predicted.confidence is not None:
            self.reliability = self.reliability or Reliability()
            self.reliability.update(truth, predicted.labels, predicted.confidence)
        self.frames += 1
        return single

    def __iadd__(self, other: Tally) -> Tally:
        self.frames += other.frames
        self.matrix.counts += other.matrix.counts
        self.boundary += other.boundary
        if other.reliability is not None:
            self.reliability = self.reliability or Reliability()
            self.reliability += other.reliability
        return self


@dataclasses.dataclass(frozen=True, order=True)
class FrameNote:
    """A frame worth looking at: ``badness`` is 1 - IoU, or the share that differs."""

    badness: float
    index: int


class Worst:
    """The few frames of the greatest badness, whatever their number."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._heap: list[FrameNote] = []

    def add(self, badness: float, index: int) -> None:
        """Note a frame; NaN is not noted."""
        if self._keep > 0 and badness > 0:
            push = heapq.heappush if len(self._heap) < self._keep else heapq.heappushpop
            push(self._heap, FrameNote(badness, index))

    def listed(self) -> tuple[FrameNote, ...]:
        """Return them, worst first."""
        return tuple(sorted(self._heap, reverse=True))


@dataclasses.dataclass(frozen=True)
class ModelScores:
    """One model on one data set."""

    whole: Tally
    by_sequence: dict[str, Tally]
    worst: tuple[FrameNote, ...]


@dataclasses.dataclass(frozen=True)
class Gap:
    """
    Second less first model's IoU of the marked class; 95 % of resampled sets lie within.

    ``low`` and ``high`` are NaN where too few frames show the class.

    """

    iou: float
    low: float
    high: float

    @property
    def has_interval(self) -> bool:
        return not np.isnan(self.low)


@dataclasses.dataclass(frozen=True)
class Difference:
    """
    Two models on one data set.

    ``equal`` of ``pixels`` have the same common class, void ones too. ``gap`` is None without a
    marked class, or where it never occurs.

    """

    first: int
    second: int
    equal: int
    pixels: int
    worst: tuple[FrameNote, ...]
    gap: Gap | None = None

    @property
    def agreement(self) -> float:
        return self.equal / self.pixels if self.pixels else float('nan')


@dataclasses.dataclass(frozen=True)
class SetScores:
    """
    All models on one data set.

    ``marked`` is the class by which frames are ranked, if any; ``left_out`` names each frame that
    could not be read, with the reason.

    """

    spec: str
    names: tuple[str, ...]
    marked: int | None
    models: tuple[ModelScores, ...]
    differences: tuple[Difference, ...]
    left_out: tuple[str, ...] = ()

    @property
    def has_labels(self) -> bool:
        return bool(self.models[0].whole.matrix.counts.any())


def common(prediction: Prediction, table: npt.NDArray[np.uint8]) -> Prediction:
    """Return a prediction in the common classes of a ``Matching``."""
    return dataclasses.replace(prediction, labels=cv2.LUT(prediction.labels, table))


def frame_score(matrix: ConfusionMatrix, marked: int | None) -> float:
    """Return the IoU of the marked class, or of all classes, in one frame."""
    return matrix.mean_iou() if marked is None else float(matrix.iou()[marked])


def paired_gap(
    first: Sequence[tuple[int, int]], second: Sequence[tuple[int, int]],
) -> Gap | None:
    """
    Compare two models' IoU of one class with a paired bootstrap over frames.

    Neighbouring frames of a drive are alike, so the true interval is rather wider.

    Parameters
    ----------
    first, second : sequence of (int, int)
        Pixels in the intersection and in the union, of each frame.

    Returns
    -------
    Gap or None
        None if the class never occurs; without an interval where fewer than ``LEAST_FRAMES`` show
        it.

    """
    counts = np.array([first, second], np.float64).reshape(2, -1, 2)
    if (counts[..., 1].sum(1) == 0).any():
        return None

    def gap(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        ious = ratio(sums[..., 0], sums[..., 1])
        return ious[1] - ious[0]

    whole = float(gap(counts.sum(1)))
    if counts[..., 1].any(0).sum() < LEAST_FRAMES:
        return Gap(whole, float('nan'), float('nan'))
    rng = np.random.default_rng(0)
    frames = counts.shape[1]
    # How often each frame is drawn: one matrix product per resampled set, whatever its size.
    resampled = [gap(counts.swapaxes(1, 2) @ rng.multinomial(frames, np.full(frames, 1 / frames)))
                 for _ in range(RESAMPLES)]
    low, high = np.nanquantile(resampled, (0.025, 0.975))
    return Gap(whole, float(low), float(high))


def score(
    spec: str, dataset: FrameDataset, predictors: Sequence[Predictor], matching: Matching, *,
    mark: str = 'road', keep: int = 6, progress: Callable[[int, int], None] | None = None,
) -> SetScores:
    """
    Score models on a data set.

    One frame is in memory at a time; of each, a few numbers are kept.

    Parameters
    ----------
    spec : str
        The data set's name.
    dataset : FrameDataset
        Of a ``Tolerant`` one, frames that cannot be read are named and left out.
    predictors : sequence of Predictor
    matching : Matching
    mark : str
        The class by whose IoU frames are ranked; where there is none, all classes.
    keep : int
        Frames to keep of the worst and of the most different ones.
    progress : callable or None
        Called with frames done and in all.

    Returns
    -------
    SetScores
        Differences are of each pair of models.

    Raises
    ------
    DatasetError
        If a frame of a data set that is not ``Tolerant`` cannot be read.
    ModelError
        If a model gives no scores for a frame, which is named.

    """
    names, count = matching.names, len(predictors)
    # A stand-in for a frame that cannot be read would be scored twice.
    source = dataset.source if isinstance(dataset, Tolerant) else dataset
    marked = names.index(mark) if mark in names else None
    by_sequence: list[dict[str, Tally]] = [{} for _ in predictors]
    worst = [Worst(keep) for _ in predictors]
    overlaps: list[list[tuple[int, int]]] = [[] for _ in predictors]
    pairs = [(a, b) for a in range(count) for b in range(a + 1, count)]
    equal, pixels = dict.fromkeys(pairs, 0), 0
    different = {pair: Worst(keep) for pair in pairs}
    for index in range(len(dataset)):
        if progress is not None:
            progress(index, len(dataset))
        try:
            rgb, ids = source.read(index)
        except DatasetError as error:
            if not isinstance(dataset, Tolerant):
                raise
            dataset.note(index, str(error))
            continue
        truth = cv2.LUT(ids, matching.from_data)
        sequence = dataset.sequence(index)
        labels = []
        for place, (predictor, table) in enumerate(
                zip(predictors, matching.from_models, strict=True)):
            try:
                predicted = common(predictor(rgb), table)
            except ModelError as error:
                raise ModelError(f'{spec}: {dataset.name(index)}: {error}') from error
            tally = by_sequence[place].setdefault(sequence, Tally(len(names)))
            single = tally.update(truth, predicted)
            worst[place].add(1 - frame_score(single, marked), index)
            if marked is not None:
                overlaps[place].append(single.overlap(marked))
            labels.append(predicted.labels)
        for first, second in pairs:
            same = int((labels[first] == labels[second]).sum())
            equal[first, second] += same
            different[first, second].add(1 - same / truth.size, index)
        pixels += truth.size
    if progress is not None:
        progress(len(dataset), len(dataset))
    models = []
    for place in range(count):
        whole = Tally(len(names))
        for tally in by_sequence[place].values():
            whole += tally
        models.append(ModelScores(
            whole, dict(sorted(by_sequence[place].items())), worst[place].listed()))
    return SetScores(spec, names, marked, tuple(models), tuple(
        Difference(*pair, equal[pair], pixels, different[pair].listed(),
                   paired_gap(*(overlaps[place] for place in pair))) for pair in pairs),
        dataset.faults if isinstance(dataset, Tolerant) else ())
