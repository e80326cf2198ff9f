"""How much each class counts in the loss, from how often it occurs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from training.datasets import FrameDataset, VOID

#: Enough for shares; reading tens of thousands of frames would take longer than an epoch.
SAMPLED_FRAMES = 400


def class_shares(
    datasets: list[FrameDataset], weights: list[float], num_classes: int,
) -> npt.NDArray[np.float64]:
    """
    Measure how large a part of the labelled pixels each training class has.

    Parameters
    ----------
    datasets : list of FrameDataset
        At most ``SAMPLED_FRAMES`` evenly spaced frames of each are read.
    weights : list of float
        Share of each data set in an epoch.
    num_classes : int
        Number of training classes.

    Returns
    -------
    float64[num_classes]
        Sums to 1; void is left out.

    """
    shares = np.zeros(num_classes)
    for dataset, weight in zip(datasets, np.asarray(weights) / np.sum(weights), strict=True):
        counts = np.zeros(256, np.int64)
        for index in sampled(len(dataset)):
            _, labels = dataset.read(int(index))
            # By frame, since every frame becomes views of one size.
            counts += np.bincount(labels.ravel(), minlength=256) * 1_000_000 // labels.size
        counts[VOID] = 0
        shares += weight * counts[:num_classes] / max(counts[:num_classes].sum(), 1)
    return shares / max(shares.sum(), np.finfo(float).tiny)


def sampled(length: int) -> npt.NDArray[np.int64]:
    """Return the places of at most ``SAMPLED_FRAMES`` evenly spaced frames among so many."""
    return np.linspace(0, length - 1, min(length, SAMPLED_FRAMES)).round().astype(int)


def inverse_log(shares: npt.NDArray[np.float64]) -> tuple[float, ...]:
    """
    Return weights 1 / ln(1.02 + share), scaled to a mean of 1 over the pixels.

    The form is ENet's (arXiv 1606.02147, section 5.2): rare classes count up to 35 times as much
    as one that covers everything. The scale keeps loss and learning rate comparable.

    """
    weights = 1 / np.log(1.02 + shares)
    return tuple(float(weight) for weight in weights / (weights * shares).sum())


def merged(shares: npt.NDArray[np.float64], merge: tuple[int, ...], num_classes: int,
           ) -> npt.NDArray[np.float64]:
    """Return the shares of the deployed classes from those of the training classes."""
    return np.bincount(merge, weights=shares, minlength=num_classes)
