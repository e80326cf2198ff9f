"""Batch normalization by one operation of the backend, where it has one."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """
    ``BatchNormalization`` over the channels that trains faster on TensorFlow.

    Keras composes it of some ten operations, each of which reads and writes the whole tensor, and
    in mixed precision casts it up and down: 40 % of a training step's time on a CPU. TensorFlow
    has it as one operation, with the same result but for the moving variance, which is of the
    sample (divided by n - 1). Other backends, and inference, do what Keras does. For training
    only: what is exported holds Keras' own layer.

    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalize ``float[N, H, W, C]``."""
        if (keras.backend.backend() != 'tensorflow' or not training or not self.trainable
                or mask is not None or len(inputs.shape) != 4):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, ops.cast(self.gamma, 'float32'), ops.cast(self.beta, 'float32'),
            epsilon=self.epsilon, is_training=True)
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + batch * (1.0 - self.momentum))
        return outputs
