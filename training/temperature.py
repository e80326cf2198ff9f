"""
One number that makes a network's confidence honest, and its place in the network.

A temperature divides the logits (Guo et al. 2017). It is folded into the last convolution before
quantization: the deployed file then gives calibrated logits by itself, its labels and its cost
are the same, and nothing that runs it has to know.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import numpy.typing as npt

from training.augment import whole_view
from training.datasets import VOID, FrameDataset
from training.finished_run import FinishedRun, QuantizationError
from training.metrics import upsampled
from training.reliability import TEMPERATURES, TemperatureFit, fit_temperature

PIXELS_A_FRAME = 2000

#: So near to an end of the search, a temperature counts as the end.
EDGE = 1.05

#: Mean negative log-likelihood below which every sampled pixel is right, in nats.
NO_ERROR = 1e-6


def float_logits(model: keras.Model, view: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return ``float32[h, w, C]`` logits of ``uint8[H, W, 3]`` RGB at the network's size."""
    batch = view[None].astype(np.float32) / 255
    logits: npt.NDArray[np.float32] = model.predict_on_batch(batch)[0].astype(np.float32)
    return logits


def sampled_logits(
    run: FinishedRun, sets: Sequence[FrameDataset], seed: int = 0,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """
    Collect logits and true classes of random labelled pixels, as many of each frame.

    Parameters
    ----------
    run : FinishedRun
    sets : sequence of FrameDataset
        Frames on which the model was not trained, in ``run.taxonomy``.
    seed : int

    Returns
    -------
    (float32[N, C], uint8[N])

    """
    merge = np.full(256, VOID, np.uint8)
    merge[:len(run.merge)] = run.merge
    input_hw = tuple(run.model.input_shape[1:3])
    rng = np.random.default_rng(seed)
    found, truth = [], []
    for dataset in sets:
        for index in range(len(dataset)):
            view, ids = whole_view(*dataset.read(index), input_hw)
            labels = merge[ids].ravel()
            known = np.flatnonzero(labels != VOID)
            if not len(known):
                continue
            chosen = rng.choice(known, min(PIXELS_A_FRAME, len(known)), replace=False)
            logits = upsampled(float_logits(run.model, view), input_hw)
            found.append(logits.reshape(len(labels), -1)[chosen])
            truth.append(labels[chosen])
    if not found:
        raise QuantizationError(
            '--temperature auto: found no labelled pixel in the sets of --score, expected at '
            'least one.')
    return np.concatenate(found), np.concatenate(truth)


def fitted(run: FinishedRun, sets: Sequence[FrameDataset]) -> TemperatureFit:
    """Find the temperature of a run's float model on held-out frames."""
    return fit_temperature(*sampled_logits(run, sets))


def doubt(found: TemperatureFit) -> str:
    """Say why a temperature that was fitted means nothing; empty where it does."""
    low, high = TEMPERATURES
    if found.temperature > high / EDGE:
        why = f'the end of the search ({low:g} to {high:g}): the model knows nothing of them'
    elif found.temperature < low * EDGE or found.nll_fitted < NO_ERROR:
        why = ('as low as the search went: the model makes no error there, and would now be sure '
               'of everything')
    else:
        return ''
    return (f'--temperature auto: found {found.temperature:.2f} on {found.pixels} pixels, {why}; '
            'name sets with more frames for --score, check their labels, or give --temperature '
            'none.')


def fold(model: keras.Model, temperature: float) -> None:
    """
    Divide a model's logits by a temperature, in the weights of its last convolution.

    Parameters
    ----------
    model : keras.Model
        Changed in place.
    temperature : float

    Raises
    ------
    QuantizationError
        If the temperature is not a finite number above 0, or the logits do not come from a
        convolution through linear layers alone.

    """
    if not 0 < temperature < float('inf'):
        raise QuantizationError(
            f'temperature: found {temperature}, expected a finite number above 0.')
    tensor = model.output
    while True:
        layer = tensor._keras_history.operation
        linear = getattr(layer, 'activation', keras.activations.linear) is keras.activations.linear
        if isinstance(layer, keras.layers.Conv2D) and linear:
            break
        passes = isinstance(layer, keras.layers.UpSampling2D) or (
            isinstance(layer, keras.layers.Activation) and linear)
        if not passes:
            raise QuantizationError(
                f'temperature: the logits come from the layer {layer.name!r} '
                f'({type(layer).__name__}), expected a convolution without activation.')
        tensor = layer.input
    for weight in (layer.kernel, *([layer.bias] if layer.use_bias else [])):
        weight.assign(keras.ops.convert_to_numpy(weight) / np.float32(temperature))
