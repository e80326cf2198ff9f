"""The moving average follows updates, forgets its start, and gives the weights back."""

from __future__ import annotations

import numpy as np
import pytest

keras = pytest.importorskip('keras', reason='keras is not installed (pip install .[train])')

from training.averaging import WeightAverage, assign, current  # noqa: E402

pytestmark = pytest.mark.training


def network() -> keras.Model:
    image = keras.Input((2,))
    return keras.Model(image, keras.layers.BatchNormalization()(image))


def filled(model: keras.Model, value: float) -> None:
    assign(model, [np.full(weight.shape, value, np.float32) for weight in model.weights])


def test_average_is_exponential_after_a_warm_up() -> None:
    model, average = network(), WeightAverage(0.3)
    average.set_model(model)
    filled(model, 8.0)
    average.on_train_begin()
    wanted = 8.0
    for batch, value in enumerate((1.0, 5.0, -3.0, 2.0)):
        filled(model, value)
        average.on_train_batch_end(batch)
        decay = min(0.3, (2 + batch) / (11 + batch))  # 2/11, 3/12, 4/13, then 0.3
        wanted = decay * wanted + (1 - decay) * value
    assert len(average.values) == 4  # gamma, beta, moving mean and variance
    for values in average.values:
        np.testing.assert_allclose(values, wanted, rtol=1e-5)


def test_average_follows_updates_not_batches() -> None:
    model, average = network(), WeightAverage(0.9, accumulate=3)
    average.set_model(model)
    filled(model, 0.0)
    average.on_train_begin()
    filled(model, 1.0)
    for batch in range(2):
        average.on_train_batch_end(batch)
        assert average.values[0][0] == 0.0
    average.on_train_batch_end(0)  # counted on over epochs
    assert average.values[0][0] == pytest.approx(1 - 2 / 11)


def test_next_epoch_goes_on_with_the_same_average() -> None:
    model, average = network(), WeightAverage(0.9)
    average.set_model(model)
    average.on_train_begin()
    average.values[0][:] = 7.0
    average.on_train_begin()
    assert average.values[0][0] == 7.0


def test_block_sees_the_average_and_leaves_the_weights() -> None:
    model, average = network(), WeightAverage(0.9)
    average.restore([np.full(weight.shape, 2.0) for weight in model.weights], batches=5)
    filled(model, 3.0)
    with average.applied(model):
        assert all((value == 2.0).all() for value in current(model))
    assert all((value == 3.0).all() for value in current(model))
    assert average.batches == 5
