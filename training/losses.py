"""Losses in ``keras.ops``: they run on every Keras backend."""

from __future__ import annotations

import math

import keras
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
    threshold: float = 0.7, kept: float = 1 / 16,
) -> keras.KerasTensor:
    """
    Average the cross-entropy over hard pixels (online hard example mining).

    A pixel is hard when its true class has a probability below ``threshold``; at least the
    hardest ``kept`` of each image's pixels count. As in CoinCheung/BiSeNet's ``OhemCELoss``, which
    takes that share over the batch.

    Parameters
    ----------
    labels : integer[N, H, W]
        Class ids; 255 is void.
    logits : float[N, H, W, C]
    threshold : float
        Probability in (0, 1).
    kept : float
        Share of an image's pixels in (0, 1].

    Returns
    -------
    float32
        Loss in nats.

    """
    loss, valid = pixel_cross_entropy(labels, logits)
    loss, valid = ops.reshape(loss, (-1,)), ops.reshape(valid, (-1,))
    hard = ops.cast(loss > -math.log(threshold), 'float32')
    count = ops.sum(hard)
    mean_hard = ops.sum(loss * hard) / ops.maximum(count, 1.0)
    pixels = math.prod(int(side) for side in logits.shape[1:3]) * kept
    # The batch size may be symbolic; the number of pixels kept per image is not.
    per_image = max(1, int(pixels))
    hardest = ops.top_k(ops.reshape(loss, (-1, math.prod(int(s) for s in logits.shape[1:3]))),
                        per_image)[0]
    enough = count >= ops.cast(ops.size(hardest), 'float32')
    valid_share = ops.minimum(ops.sum(valid), 1.0)  # 0 for a batch of void alone
    return ops.where(enough, mean_hard, ops.mean(hardest)) * valid_share
