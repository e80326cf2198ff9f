"""Segmentation scores, always from one confusion matrix accumulated over all frames."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from training.datasets import VOID

Floats = npt.NDArray[np.float64]


def ratio(part: npt.NDArray[np.number], whole: npt.NDArray[np.number]) -> Floats:
    """Return ``part / whole``, NaN where ``whole`` is 0."""
    parts, wholes = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(parts, wholes, out=np.full_like(parts, np.nan), where=wholes > 0)


class ConfusionMatrix:
    """
    Pixel counts by true and predicted class.

    ``counts`` is ``int64[C, C + 1]``: rows are true classes, columns predicted ones, the last
    column what was predicted to be none of them (255). Void pixels are not counted.

    """

    def __init__(self, num_classes: int) -> None:
        self.counts = np.zeros((num_classes, num_classes + 1), np.int64)

    def update(self, labels: npt.NDArray[np.uint8], predicted: npt.NDArray[np.uint8]) -> None:
        """
        Count one frame.

        Parameters
        ----------
        labels, predicted : uint8[H, W]
            True and predicted class ids; 255 is void or unlabeled.

        Raises
        ------
        ValueError
            If the shapes differ or an id is neither a class nor 255.

        """
        if labels.shape != predicted.shape:
            raise ValueError(
                f'labels {labels.shape} and predicted {predicted.shape} must have equal shapes.')
        classes = len(self.counts)
        for name, ids in (('labels', labels), ('predicted', predicted)):
            odd = (ids >= classes) & (ids != VOID)
            if odd.any():
                raise ValueError(
                    f'{name}: found id {int(ids[odd][0])}, expected below {classes} or {VOID}.')
        valid = labels != VOID
        # At most 255 * 256 pairs: they fit 16 bits, which halves the time for a large frame.
        columns = np.minimum(predicted[valid], np.uint8(classes)).astype(np.uint16)
        pairs = labels[valid].astype(np.uint16) * np.uint16(classes + 1) + columns
        self.counts += np.bincount(pairs, minlength=self.counts.size).reshape(self.counts.shape)

    def hits(self) -> npt.NDArray[np.int64]:
        """Return the number of right pixels by class."""
        return np.diag(self.counts)

    def iou(self) -> Floats:
        """Return intersection over union by class; NaN for a class that never occurs."""
        hits = self.hits()
        return ratio(hits, self.counts.sum(1) + self.counts[:, :-1].sum(0) - hits)

    def overlap(self, index: int) -> tuple[int, int]:
        """Return the pixels of a class's intersection and union."""
        hits = int(self.counts[index, index])
        return hits, int(self.counts[index].sum() + self.counts[:, index].sum()) - hits

    def precision(self) -> Floats:
        """Return the share of a class's predicted pixels that are right; NaN if there is none."""
        return ratio(self.hits(), self.counts[:, :-1].sum(0))

    def recall(self) -> Floats:
        """Return the share of a class's true pixels that were found; NaN if there is none."""
        return ratio(self.hits(), self.counts.sum(1))

    def f1(self) -> Floats:
        """Return the harmonic mean of precision and recall (Dice); NaN as for ``iou``."""
        return ratio(2 * self.hits(), self.counts.sum(1) + self.counts[:, :-1].sum(0))

    def mean_iou(self) -> float:
        """
        Return the mean IoU of the classes that occur, in truth or prediction.

        As in Cityscapes' own script: a class predicted where it never is counts with 0, one that
        is nowhere does not count. NaN if nothing was counted.

        """
        iou = self.iou()
        return float(np.nanmean(iou)) if np.isfinite(iou).any() else float('nan')

    def accuracy(self) -> float:
        """Return the share of counted pixels that are right; NaN if none was counted."""
        total = self.counts.sum()
        return float(self.hits().sum() / total) if total else float('nan')


#: OpenCV 5 takes pictures of at most 128 channels, and data sets have 150 classes.
CHANNELS_AT_ONCE = 64


def upsampled(
    scores: npt.NDArray[np.floating], size_hw: tuple[int, int],
) -> npt.NDArray[np.float32]:
    """Resize ``float[h, w, C]`` of any number of classes bilinearly to ``float32[H, W, C]``."""
    parts = [
        cv2.resize(np.ascontiguousarray(scores[..., first:first + CHANNELS_AT_ONCE], np.float32),
                   size_hw[::-1], interpolation=cv2.INTER_LINEAR).reshape(*size_hw, -1)
        for first in range(0, scores.shape[-1], CHANNELS_AT_ONCE)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, -1)


def labels_from_logits(
    logits: npt.NDArray[np.floating], size_hw: tuple[int, int],
) -> npt.NDArray[np.uint8]:
    """
    Decide classes at full size, in float: the yardstick for the robot's faster path.

    Parameters
    ----------
    logits : float[h, w, C]
    size_hw : (int, int)
        Height and width of the result in pixels.

    Returns
    -------
    uint8[H, W]
        Class ids of the bilinearly upsampled logits; ties go to the lower id.

    """
    return upsampled(logits, size_hw).argmax(-1).astype(np.uint8)


def probabilities_from_logits(
    logits: npt.NDArray[np.floating], size_hw: tuple[int, int],
) -> npt.NDArray[np.float32]:
    """Return the softmax ``float32[H, W, C]`` of bilinearly upsampled ``float[h, w, C]``."""
    scores = upsampled(logits, size_hw)
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def decision_from_logits(
    logits: npt.NDArray[np.floating], size_hw: tuple[int, int],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """
    Decide classes as ``labels_from_logits`` does, with the confidence of each.

    Returns
    -------
    (uint8[H, W], uint8[H, W])
        Class ids, and the softmax probability of the reported class times 255.

    """
    scores = upsampled(logits, size_hw)
    labels = scores.argmax(-1)
    best = scores.max(-1, keepdims=True)
    probability = 1 / np.exp(scores - best).sum(-1)
    return labels.astype(np.uint8), np.round(probability * 255).astype(np.uint8)


def decision_from_probabilities(
    probabilities: npt.NDArray[np.floating], size_hw: tuple[int, int],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Decide as ``decision_from_logits`` does, from scores that went through a softmax already."""
    found = upsampled(probabilities, size_hw)
    sure = np.round(found.max(-1).clip(0, 1) * 255)
    return found.argmax(-1).astype(np.uint8), sure.astype(np.uint8)
