"""The fused normalization is Keras' own, faster."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('keras', reason='keras is not installed (pip install .[train])')
pytest.importorskip('tensorflow', reason='tensorflow is not installed (pip install .[train])')

import keras
import tensorflow as tf

from training.model import PRESETS, build, deployable
from training.normalization import FusedBatchNormalization

pytestmark = pytest.mark.training


def pair() -> tuple[keras.layers.Layer, keras.layers.Layer]:
    """Build Keras' layer and ours with the same weights."""
    layers = [kind(momentum=0.9) for kind in (
        keras.layers.BatchNormalization, FusedBatchNormalization)]
    rng = np.random.default_rng(1)
    weights = [rng.uniform(0.5, 1.5, 5).astype(np.float32) for _ in range(4)]
    for layer in layers:
        layer.build((None, 6, 8, 5))
        layer.set_weights(weights)
    return layers[0], layers[1]


def features() -> np.ndarray:
    return np.random.default_rng(0).normal(2, 3, (4, 6, 8, 5)).astype(np.float32)


def test_training_gives_what_keras_gives() -> None:
    x = tf.constant(features())
    found = []
    for layer in pair():
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
            loss = tf.reduce_sum(y ** 3)
        found.append([y, *tape.gradient(loss, [x, layer.gamma.value, layer.beta.value]),
                      layer.moving_mean, layer.moving_variance])
    count = 4 * 6 * 8
    plain, fused = ([np.asarray(keras.ops.convert_to_numpy(v)) for v in values]
                    for values in found)
    for ours, theirs in zip(fused[:-1], plain[:-1], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-3)
    # Of the sample rather than of the batch: the only difference there is.
    before = pair()[0].moving_variance.numpy() * 0.9
    np.testing.assert_allclose(
        (fused[-1] - before), (plain[-1] - before) * count / (count - 1), rtol=1e-4)


def test_inference_and_frozen_layers_use_the_moving_statistics() -> None:
    plain, fused = pair()
    np.testing.assert_array_equal(fused(features()), plain(features()))
    plain.trainable = fused.trainable = False
    np.testing.assert_array_equal(
        fused(features(), training=True), plain(features(), training=True))
    np.testing.assert_array_equal(fused.moving_mean, plain.moving_mean)


def test_mixed_precision_keeps_its_type() -> None:
    layer = FusedBatchNormalization(dtype='mixed_bfloat16')
    assert layer(features(), training=True).dtype == tf.bfloat16
    assert layer.moving_mean.dtype == 'float32'


def test_only_training_has_it() -> None:
    boosted = build(PRESETS['road'], (32, 64), boosters=True)
    assert any(isinstance(layer, FusedBatchNormalization) for layer in boosted.layers)
    exported = deployable(boosted, PRESETS['road'], (32, 64))
    assert not any(isinstance(layer, FusedBatchNormalization) for layer in exported.layers)
    image = np.random.default_rng(0).random((1, 32, 64, 3)).astype(np.float32)
    np.testing.assert_allclose(
        exported(image), boosted(image)['logits'], rtol=1e-4, atol=1e-5)
