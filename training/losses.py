"""Losses in ``keras.ops``: they run on every Keras backend."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from training.datasets import VOID


def pixel_cross_entropy(
    labels: keras.KerasTensor, logits: keras.KerasTensor,
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """
    Compute softmax cross-entropy of every pixel.

    Parameters
    ----------
    labels : integer[N, H, W]
        Class ids; 255 is void.
    logits : float[N, H, W, C]

    Returns
    -------
    (float32[N, H, W], float32[N, H, W])
        Loss in nats, 0 on void; and 1 where the pixel counts, 0 on void.

    """
    valid = ops.cast(ops.not_equal(labels, VOID), 'float32')
    ids = ops.where(ops.equal(labels, VOID), 0, labels)
    logits = ops.cast(logits, 'float32')
    chosen = ops.sum(
        ops.one_hot(ops.cast(ids, 'int32'), logits.shape[-1], dtype='float32') * logits, axis=-1)
    return (ops.logsumexp(logits, axis=-1) - chosen) * valid, valid


def ohem_cross_entropy(
    labels: keras.KerasTensor, logits: keras.KerasTensor, *,
    threshold: float = 0.7, kept: float = 1 / 16, class_weights: Sequence[float] | None = None,
) -> keras.KerasTensor:
    """
    Average the cross-entropy over hard pixels (online hard example mining).

    A pixel is hard when its true class has a probability below ``threshold``; at least the
    hardest ``kept`` of each image's pixels count, or all that are labelled where those are fewer.
    As in CoinCheung/BiSeNet's ``OhemCELoss``, which takes that share over the batch.

    Parameters
    ----------
    labels : integer[N, H, W]
        Class ids; 255 is void.
    logits : float[N, H, W, C]
    threshold : float
        Probability in (0, 1).
    kept : float
        Share of an image's pixels in (0, 1].
    class_weights : sequence of C float, or None
        Factor on the loss of each true class. Whether a pixel is hard depends on its probability
        alone; where too few are, the hardest are those of the greatest weighted loss.

    Returns
    -------
    float32
        Loss in nats.

    """
    loss, valid = pixel_cross_entropy(labels, logits)
    hard = ops.cast(ops.reshape(loss, (-1,)) > -math.log(threshold), 'float32')
    if class_weights is not None:
        # One weight for every id; void has a loss of 0 already.
        table = np.zeros(256, np.float32)
        table[:len(class_weights)] = class_weights
        loss = loss * ops.take(table, ops.cast(labels, 'int32'))
    loss, valid = ops.reshape(loss, (-1,)), ops.reshape(valid, (-1,))
    count = ops.sum(hard)
    mean_hard = ops.sum(loss * hard) / ops.maximum(count, 1.0)
    # The batch size may be symbolic; the number of pixels kept per image is not.
    pixels = math.prod(int(side) for side in logits.shape[1:3])
    per_image = max(1, int(pixels * kept))
    by_image = ops.reshape(loss, (-1, pixels))
    # Void has a loss of 0: of an image with fewer labelled pixels it would be among the hardest.
    labelled = ops.sum(ops.minimum(
        ops.sum(ops.reshape(valid, (-1, pixels)), axis=1), float(per_image)))
    enough = count >= ops.cast(ops.shape(by_image)[0] * per_image, 'float32')
    # A branch rather than a choice of values: sorting was half of the loss's time on a CPU, and
    # only a network that is nearly right about everything needs it.
    mean = ops.cond(
        enough, lambda: mean_hard,
        lambda: ops.sum(ops.top_k(by_image, per_image)[0]) / ops.maximum(labelled, 1.0))
    return mean * ops.minimum(ops.sum(valid), 1.0)  # 0 for a batch of void alone


def jaccard_loss(labels: keras.KerasTensor, logits: keras.KerasTensor) -> keras.KerasTensor:
    """
    Compute one less the soft IoU, averaged over the classes that occur.

    Intersection and union are summed over the whole batch with probabilities in place of decisions
    (the soft Jaccard loss of Wang et al., Jaccard Metric Losses, NeurIPS 2023, section 2): what is
    scored is what is trained.

    Parameters
    ----------
    labels : integer[N, H, W]
        Class ids; 255 is void.
    logits : float[N, H, W, C]

    Returns
    -------
    float32
        In [0, 1]; 0 for a batch of void alone.

    """
    valid = ops.cast(ops.not_equal(labels, VOID), 'float32')[..., None]
    ids = ops.where(ops.equal(labels, VOID), 0, labels)
    truth = ops.one_hot(ops.cast(ids, 'int32'), logits.shape[-1], dtype='float32') * valid
    found = ops.softmax(ops.cast(logits, 'float32'), axis=-1) * valid
    both = ops.sum(truth * found, axis=(0, 1, 2))
    either = ops.sum(truth + found, axis=(0, 1, 2)) - both
    occurs = ops.cast(ops.sum(truth, axis=(0, 1, 2)) > 0, 'float32')
    loss = (1 - both / ops.maximum(either, 1.0)) * occurs
    return ops.sum(loss) / ops.maximum(ops.sum(occurs), 1.0)
