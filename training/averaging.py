"""An exponential moving average of a network's weights, kept beside the training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops


class WeightAverage(keras.callbacks.Callback):
    """
    Average all weights, moving statistics included, after every update.

    A callback of ours rather than the optimizer's ``use_ema``: that one leaves the statistics of
    BatchNormalization out, and writes the average over the weights whenever ``fit`` ends.

    Parameters
    ----------
    decay : float
        Weight of the past, in (0, 1). The first updates use (1 + n) / (10 + n) where that is
        less, so that the random start is soon forgotten.
    accumulate : int
        Batches per update of the weights; the average follows updates, not batches.

    """

    def __init__(self, decay: float, accumulate: int = 1) -> None:
        super().__init__()
        self._decay, self._accumulate = decay, accumulate
        self.batches = 0
        self.values: list[npt.NDArray[np.float32]] = []

    def restore(self, values: list[npt.NDArray[np.float32]], batches: int) -> None:
        """Go on from stored values."""
        self.values = [np.array(value, np.float32) for value in values]
        self.batches = batches

    def on_train_begin(self, logs: Any = None) -> None:
        if not self.values:
            self.values = [np.array(value, np.float32) for value in current(self.model)]

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.batches += 1
        if self.batches % self._accumulate:
            return
        if keras.backend.backend() == 'jax':
            # While `fit` runs, jax's variables lie with the compiled step.
            self.model.jax_state_sync()
        updates = self.batches // self._accumulate
        share = np.float32(1 - min(self._decay, (1 + updates) / (10 + updates)))
        for value, weight in zip(self.values, current(self.model), strict=True):
            value += (weight - value) * share

    @contextlib.contextmanager
    def applied(self, model: keras.Model) -> Iterator[None]:
        """Put the average into a model for the length of a block."""
        # Copies: on a CPU an array may share its memory with the variable.
        kept = [np.array(value) for value in current(model)]
        assign(model, self.values)
        try:
            yield
        finally:
            assign(model, kept)


def current(model: keras.Model) -> list[npt.NDArray[np.float32]]:
    """Return a model's weights; not copied where the backend allows."""
    return [ops.convert_to_numpy(weight) for weight in model.weights]


def assign(model: keras.Model, values: list[npt.NDArray[np.float32]]) -> None:
    """Set a model's weights."""
    for weight, value in zip(model.weights, values, strict=True):
        weight.assign(value)
