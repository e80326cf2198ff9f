"""Scores while training: a float model on whole frames."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from training.augment import whole_view
from training.config import MEAN, Config
from training.datasets import FrameDataset
from training.faults import TrainingError
from training.metrics import ConfusionMatrix, labels_from_logits
from training.pictures import deployed_table

Pixels = npt.NDArray[np.uint8]


def predicted_labels(
    model: keras.Model, frames: list[tuple[Pixels, Pixels]], batch: int,
) -> list[Pixels]:
    """
    Return the class ids of some frames, each at its own size.

    Parameters
    ----------
    model : keras.Model
        ``float32[N, H, W, 3]`` in [0, 1] to logits.
    frames : list of (uint8[H, W, 3] RGB, uint8[H, W])
        At most ``batch``.
    batch : int
        Filled up to this many, so that the backend sees one shape only.

    """
    input_hw = tuple(model.input_shape[1:3])
    views = np.zeros((batch, *input_hw, 3), np.float32)
    for index, (rgb, ids) in enumerate(frames):
        views[index] = whole_view(rgb, ids, input_hw)[0].astype(np.float32) / 255
    logits = ops.convert_to_numpy(model.predict_on_batch(views))
    return [labels_from_logits(single, ids.shape)
            for (_, ids), single in zip(frames, logits[:len(frames)], strict=True)]


def score(
    model: keras.Model, dataset: FrameDataset, config: Config, batch: int = 8,
) -> ConfusionMatrix:
    """
    Score a float model on whole frames, each at its own size.

    Parameters
    ----------
    model : keras.Model
        ``float32[N, H, W, 3]`` in [0, 1] to logits.
    dataset : FrameDataset
    config : Config
        For the deployed classes.
    batch : int
        Frames a call.

    Returns
    -------
    ConfusionMatrix

    """
    matrix = ConfusionMatrix(len(config.classes))
    merge = deployed_table(config.merge)
    for start in range(0, len(dataset), batch):
        frames = [dataset.read(i) for i in range(start, min(start + batch, len(dataset)))]
        for (_, ids), found in zip(frames, predicted_labels(model, frames, batch), strict=True):
            matrix.update(merge[ids], found)
    return matrix


def marked_iou(matrix: ConfusionMatrix, config: Config) -> float | None:
    """Return the IoU that ``config.mark`` names; None where no label is of such a class."""
    labelled, iou = matrix.counts.sum(1), matrix.iou()
    if config.mark == MEAN:
        # Classes that neither occur nor are predicted have no IoU.
        return float(iou[~np.isnan(iou)].mean()) if labelled.any() else None
    marked = config.classes.index(config.mark)
    return float(iou[marked]) if labelled[marked] else None


def chosen_by(ious: Mapping[str, float | None], mark: str) -> float:
    """
    Return what an epoch is chosen by: the mean over the validation sets that show the mark.

    Parameters
    ----------
    ious : mapping of str to float or None
        By validation set.
    mark : str

    Raises
    ------
    TrainingError
        If no set shows it: no epoch would be better than the first.

    """
    known = [iou for iou in ious.values() if iou is not None]
    if not known:
        what = 'labelled pixel' if mark == MEAN else f'pixel of {mark!r}'
        raise TrainingError(
            f'validate: found no {what} in {" and ".join(ious)}, expected some, since its IoU '
            f'(mark={mark!r}) chooses the best epoch; validate on a set that shows it, or choose '
            f'another mark, such as {MEAN!r}. Use a new --run folder for other settings.')
    return float(np.mean(known))
