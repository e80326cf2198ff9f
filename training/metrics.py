"""Segmentation scores, always from one confusion matrix accumulated over all frames."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from training.datasets import VOID


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
        columns = np.minimum(predicted[valid], classes).astype(np.int64)
        pairs = labels[valid].astype(np.int64) * (classes + 1) + columns
        self.counts += np.bincount(pairs, minlength=self.counts.size).reshape(self.counts.shape)

    def iou(self) -> npt.NDArray[np.float64]:
        """Return intersection over union by class; NaN for a class that never occurs."""
        hits = np.diag(self.counts).astype(np.float64)
        union = self.counts.sum(1) + self.counts[:, :-1].sum(0) - hits
        return np.divide(hits, union, out=np.full_like(hits, np.nan), where=union > 0)

    def accuracy(self) -> float:
        """Return the share of counted pixels that are right; NaN if none was counted."""
        total = self.counts.sum()
        return float(np.diag(self.counts).sum() / total) if total else float('nan')


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
    upsampled = cv2.resize(
        np.ascontiguousarray(logits, np.float32), size_hw[::-1], interpolation=cv2.INTER_LINEAR)
    if upsampled.ndim == 2:
        upsampled = upsampled[..., None]
    return upsampled.argmax(-1).astype(np.uint8)
