"""
Boundary F-score: how well the outlines of the classes are met, whatever their area.

The definition is Csurka et al. (What is a good evaluation measure for semantic segmentation?,
BMVC 2013, section 3): in every frame and for every class, precision is the share of the predicted
boundary pixels that have a true boundary pixel within a tolerance, recall the share of the true
ones that have a predicted one, and the score is their harmonic mean; 0.75 % of the frame's
diagonal is their tolerance. Boundary pixels are found as in Perazzi et al. (A benchmark dataset
and evaluation methodology for video object segmentation, CVPR 2016): a pixel that differs from
its right, lower or lower right neighbour.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from training.datasets import VOID
from training.metrics import Floats, ratio

#: Of the frame's diagonal.
TOLERANCE = 0.0075

Mask = npt.NDArray[np.uint8]


def tolerance_px(frame_hw: tuple[int, int], share: float = TOLERANCE) -> float:
    """Return the tolerated distance in pixels; at least 1, so that tiny frames have one."""
    return max(1.0, share * float(np.hypot(*frame_hw)))


def _labelled_pairs(labels: Mask) -> tuple[Mask, Mask, Mask]:
    """Tell where a pixel and its right, lower, lower right neighbour are both labelled."""
    known = (labels != VOID).view(np.uint8)
    return (known[:, :-1] & known[:, 1:], known[:-1] & known[1:],
            known[:-1, :-1] & known[1:, 1:])


def _boundary(inside: Mask, pairs: tuple[Mask, Mask, Mask]) -> Mask:
    right, below, diagonal = pairs
    found = np.zeros_like(inside)
    found[:, :-1] |= (inside[:, :-1] ^ inside[:, 1:]) & right
    found[:-1] |= (inside[:-1] ^ inside[1:]) & below
    found[:-1, :-1] |= (inside[:-1, :-1] ^ inside[1:, 1:]) & diagonal
    return found


def _within(targets: Mask, tolerance: float) -> npt.NDArray[np.bool_]:
    """Tell which pixels have one that is not 0 within a distance."""
    if not targets.any():
        return np.zeros(targets.shape, bool)
    away = cv2.distanceTransform((targets == 0).view(np.uint8), cv2.DIST_L2,
                                 cv2.DIST_MASK_PRECISE)
    return away <= tolerance


def boundary_f(truth: Mask, predicted: Mask, tolerance: float) -> float:
    """
    Score one set of boundary pixels against another.

    Parameters
    ----------
    truth, predicted : uint8[H, W]
        1 on boundary pixels, 0 elsewhere.
    tolerance : float
        In pixels.

    Returns
    -------
    float
        In [0, 1]; 0 where only one of both has a boundary, NaN where none has.

    """
    either = cv2.findNonZero(truth | predicted)
    if either is None:
        return float('nan')
    # Distances between boundary pixels do not change when the empty rest is cut away.
    left, top, width, height = cv2.boundingRect(either)
    part = np.s_[top:top + height, left:left + width]
    true, found = truth[part], predicted[part]
    if not true.any() or not found.any():
        return 0.0
    precision = float(_within(true, tolerance)[found > 0].mean())
    recall = float(_within(found, tolerance)[true > 0].mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


class BoundaryScore:
    """
    Mean boundary F-score by class, over the frames in which the class has a boundary.

    ``sums`` is ``float64[C]``, ``frames`` ``int64[C]``. A boundary counts where the pixels on both
    of its sides are labelled: neither truth nor prediction is judged along void. What is
    predicted within the tolerance of void and meets no true boundary is not counted either: the
    one that it means may lie in the void.

    """

    def __init__(self, num_classes: int) -> None:
        self.sums = np.zeros(num_classes)
        self.frames = np.zeros(num_classes, np.int64)

    def update(self, labels: Mask, predicted: Mask) -> None:
        """
        Count one frame.

        Parameters
        ----------
        labels, predicted : uint8[H, W]
            True and predicted class ids; 255 is void or unlabeled.

        """
        pairs = _labelled_pairs(labels)
        tolerance = tolerance_px((labels.shape[0], labels.shape[1]))
        near_void = _within((labels == VOID).view(np.uint8), tolerance)
        present = np.bincount(labels.ravel(), minlength=256) + np.bincount(
            predicted.ravel(), minlength=256)
        for index in np.flatnonzero(present[:len(self.sums)]):
            truth = _boundary((labels == index).view(np.uint8), pairs)
            found = _boundary((predicted == index).view(np.uint8), pairs)
            if near_void.any():
                found[near_void & ~_within(truth, tolerance)] = 0
            value = boundary_f(truth, found, tolerance)
            if not np.isnan(value):
                self.sums[index] += value
                self.frames[index] += 1

    def __iadd__(self, other: BoundaryScore) -> BoundaryScore:
        self.sums += other.sums
        self.frames += other.frames
        return self

    def f(self) -> Floats:
        """Return the score by class; NaN for a class without any boundary."""
        return ratio(self.sums, self.frames)

    def mean_f(self) -> float:
        """Return the mean over the classes; NaN if none has a boundary."""
        scores = self.f()
        return float(np.nanmean(scores)) if np.isfinite(scores).any() else float('nan')
