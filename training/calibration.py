"""
Which frames calibrate the int8 model's ranges, chosen by measured agreement.

The converter takes the smallest and largest value that each tensor has on the calibration frames.
More frames and wilder views widen the ranges: fewer values are cut off, all are rounded coarser.
Where the best lies is measured: every plan is converted, and its logits are compared with the
float model's on frames that no plan has seen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from training.augment import Augmentation, random_view, whole_view
from training.datasets import FrameDataset
from training.finished_run import QuantizationError
from training.metrics import labels_from_logits

Batch = npt.NDArray[np.float32]
Logits = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Plan:
    """
    What to calibrate on.

    Parameters
    ----------
    frames : int
    views : str
        ``whole`` frames as a robot sees them, ``augmented`` views with the default settings, or
        ``both`` by turns.

    """

    frames: int
    views: str = 'whole'

    def __str__(self) -> str:
        return f'{self.frames} {self.views}'


#: What ``--calibration auto`` tries, as far as there are frames.
PLANS = (Plan(25), Plan(100), Plan(200), Plan(400), Plan(200, 'augmented'), Plan(200, 'both'))


@dataclasses.dataclass(frozen=True)
class Agreement:
    """
    Of int8 logits with float ones.

    Parameters
    ----------
    sqnr_db : float
        Signal to quantization noise ratio of the logits less their mean over the classes: what
        all classes have in common decides nothing.
    labels : float
        Share of pixels with equal labels, upsampled to the network's input size.

    """

    sqnr_db: float
    labels: float


def spanning(view: npt.NDArray[np.uint8]) -> Batch:
    """
    Return ``float32[1, H, W, 3]`` in [0, 1] that holds both ends.

    The input's range is then calibrated to exactly [0, 1] and camera bytes need no conversion.

    """
    batch = view[None].astype(np.float32) / np.float32(255)
    batch.flat[0], batch.flat[-1] = 0.0, 1.0
    return batch


def frame_shares(sets: Sequence[FrameDataset], count: int) -> list[int]:
    """Return how many frames ``calibration_frames`` takes of each set: a small one's are few."""
    return [min(len(dataset), -(-count // len(sets))) for dataset in sets]


def calibration_frames(
    sets: Sequence[FrameDataset], count: int, input_hw: tuple[int, int], seed: int = 0,
) -> Iterator[Batch]:
    """
    Yield whole frames as the network sees them, evenly from several data sets.

    Parameters
    ----------
    sets : sequence of FrameDataset
    count : int
        Frames in all; see ``frame_shares``.
    input_hw : (int, int)
    seed : int

    Yields
    ------
    float32[1, H, W, 3]
        See ``spanning``.

    """
    rng = np.random.default_rng(seed)
    for dataset, share in zip(sets, frame_shares(sets, count), strict=True):
        for index in rng.choice(len(dataset), share, replace=False):
            yield spanning(whole_view(*dataset.read(int(index)), input_hw)[0])


def frames_by_turns(
    sets: Sequence[FrameDataset], seed: int = 0,
) -> list[tuple[FrameDataset, int]]:
    """Return all frames of all sets, the sets by turns and each in a random order."""
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(len(dataset)) for dataset in sets]
    return [(dataset, int(order[turn])) for turn in range(max(map(len, orders), default=0))
            for dataset, order in zip(sets, orders, strict=True) if turn < len(order)]


class Pool:
    """
    Frames of several data sets by turns, some of them held out.

    Parameters
    ----------
    sets : sequence of FrameDataset
    held_out : int
        Frames kept for measuring; at most half of all.
    seed : int

    Raises
    ------
    QuantizationError
        If there are fewer than two frames.

    """

    def __init__(self, sets: Sequence[FrameDataset], held_out: int, seed: int = 0) -> None:
        turns = frames_by_turns(sets, seed)
        if len(turns) < 2:
            raise QuantizationError(
                f'calibration: found {len(turns)} frames, expected at least 2 to choose by '
                'agreement; use more frames or --calibration fixed.')
        held_out = min(held_out, len(turns) // 2)
        self.held_out, self.rest = turns[:held_out], turns[held_out:]
        self._seed = seed

    def plans(self, plans: Sequence[Plan]) -> tuple[Plan, ...]:
        """Return plans of no more frames than there are, none twice."""
        return tuple(dict.fromkeys(
            dataclasses.replace(plan, frames=min(plan.frames, len(self.rest)))
            for plan in plans))

    def frames(self, plan: Plan, input_hw: tuple[int, int]) -> Iterator[Batch]:
        """Yield a plan's frames, none of them held out; fewer where there are not as many."""
        rng = np.random.default_rng(self._seed)
        for turn, (dataset, index) in enumerate(self.rest[:plan.frames]):
            augmented = plan.views == 'augmented' or (plan.views == 'both' and turn % 2 == 1)
            frame = dataset.read(index)
            yield spanning((random_view(*frame, input_hw, rng, Augmentation()) if augmented
                            else whole_view(*frame, input_hw))[0])

    def views(self, input_hw: tuple[int, int]) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield the held-out frames as ``uint8[H, W, 3]`` at the network's size."""
        for dataset, index in self.held_out:
            yield whole_view(*dataset.read(index), input_hw)[0]


def agreement(
    pairs: Iterator[tuple[Logits, Logits]], input_hw: tuple[int, int],
) -> Agreement:
    """
    Compare logits frame by frame.

    Parameters
    ----------
    pairs : iterator of (float32[h, w, C], float32[h, w, C])
        Of the float and of the int8 model.
    input_hw : (int, int)
        Where labels are decided.

    Returns
    -------
    Agreement

    """
    signal = noise = 0.0
    equal = pixels = 0
    for reference, found in pairs:
        centred = [logits - logits.mean(-1, keepdims=True) for logits in (reference, found)]
        signal += float(np.square(centred[0], dtype=np.float64).sum())
        noise += float(np.square(centred[0] - centred[1], dtype=np.float64).sum())
        same = labels_from_logits(reference, input_hw) == labels_from_logits(found, input_hw)
        equal, pixels = equal + int(same.sum()), pixels + same.size
    return Agreement(sqnr_db(signal, noise), equal / max(pixels, 1))


def sqnr_db(signal: float, noise: float) -> float:
    """Return the ratio of two energies in decibels; infinite without noise."""
    if noise == 0:
        return float('inf')
    return float(10 * np.log10(signal / noise)) if signal > 0 else float('-inf')


def choose(
    plans: Sequence[Plan], convert: Callable[[Plan], bytes],
    measure: Callable[[bytes], Agreement], report: Callable[[Plan, Agreement], None],
) -> tuple[Plan, bytes, tuple[tuple[Plan, Agreement], ...]]:
    """
    Convert with every plan and keep the one whose logits agree best with the float model's.

    Parameters
    ----------
    plans : sequence of Plan
    convert, measure, report : callable
        From a plan to a model file, from that to its agreement; called with each result.

    Returns
    -------
    (Plan, bytes, tuple of (Plan, Agreement))
        The best plan (the earlier of equal ones), its file, and all results.

    """
    tried: list[tuple[Plan, Agreement]] = []
    best: tuple[Plan, bytes, float] | None = None
    for plan in plans:
        content = convert(plan)
        found = measure(content)
        report(plan, found)
        tried.append((plan, found))
        if best is None or found.sqnr_db > best[2]:
            best = plan, content, found.sqnr_db
    if best is None:
        raise QuantizationError('calibration: found no plan, expected at least one.')
    return best[0], best[1], tuple(tried)
