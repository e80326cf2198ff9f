"""Loss, learning rate and optimizer of the boosted network; which weights it starts with."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from bisenet_ros.core.errors import first_line
from training.config import Config
from training.faults import DAMAGED, TrainingError, intact
from training.losses import jaccard_loss, ohem_cross_entropy
from training.model import BOOSTERS, SIZE_MULTIPLE, Architecture, build, transfer_weights

#: Class weights of the deployed head (``logits``) and of the boosters, by output name.
HeadWeights = Mapping[str, Sequence[float] | None]


class WarmupPoly(keras.optimizers.schedules.LearningRateSchedule):
    """
    Linear warm-up, then polynomial decay to zero.

    Parameters
    ----------
    peak : float
    warmup_steps, total_steps : int
    power : float
        0.9 in the paper.

    """

    def __init__(self, peak: float, warmup_steps: int, total_steps: int, power: float) -> None:
        self.peak, self.power = peak, power
        self.warmup_steps, self.total_steps = warmup_steps, total_steps

    def __call__(self, step: Any) -> Any:
        """Return the learning rate of a step counted from 0."""
        step = ops.cast(step, 'float32')
        warm = (step + 1) / max(self.warmup_steps, 1)
        span = max(self.total_steps - self.warmup_steps, 1)
        progress = ops.clip((step - self.warmup_steps) / span, 0.0, 1.0)
        return self.peak * ops.minimum(warm, 1.0) * ops.power(1.0 - progress, self.power)

    def get_config(self) -> dict[str, Any]:
        return {'peak': self.peak, 'warmup_steps': self.warmup_steps,
                'total_steps': self.total_steps, 'power': self.power}


def head_loss(
    config: Config, class_weights: Sequence[float] | None = None, jaccard_weight: float = 0.0,
) -> Any:
    """Return the loss of one head: its logits are brought to the labels' size first."""
    def loss(labels: Any, logits: Any) -> Any:
        # Shapes are known while the graph is built; the batch size may not be.
        size = tuple(labels.shape[1:3])
        if tuple(logits.shape[1:3]) != size:
            logits = ops.image.resize(
                ops.cast(logits, 'float32'), size, interpolation='bilinear')
        mean = ohem_cross_entropy(
            labels, logits, threshold=config.ohem_threshold, class_weights=class_weights)
        return mean + jaccard_weight * jaccard_loss(labels, logits) if jaccard_weight else mean
    return loss


def build_trainable(
    config: Config, input_hw: tuple[int, int], weights: HeadWeights | None = None,
) -> keras.Model:
    """
    Return the boosted network at one input size, compiled with losses and optimizer.

    Parameters
    ----------
    config : Config
    input_hw : (int, int)
        Height and width in pixels.
    weights : mapping of str to sequence of float, or None
        Class weights by output; none by default.

    """
    model = build(config.architecture, input_hw, boosters=True, bn_momentum=config.bn_momentum)
    freeze(model, config.freeze)
    total = config.epochs * config.steps_per_epoch
    # Keras' schedule counts batches, not updates, when gradients are accumulated, and weight decay
    # is applied with each update: so both mean the same as without.
    warmup = config.warmup_steps * config.accumulate
    optimizer = keras.optimizers.SGD(
        WarmupPoly(config.learning_rate, warmup, total, config.poly_power),
        momentum=config.momentum, weight_decay=config.weight_decay,
        gradient_accumulation_steps=config.accumulate if config.accumulate > 1 else None)
    optimizer.exclude_from_weight_decay(var_names=['bias', 'gamma', 'beta'])
    model.compile(
        optimizer,
        loss={name: head_loss(config, (weights or {}).get(name),
                              0.0 if name in BOOSTERS else config.jaccard_weight)
              for name in model.output},
        loss_weights={name: config.booster_weight if name in BOOSTERS else 1.0
                      for name in model.output},
        # On a CPU a first epoch was twice as fast with TensorFlow's own kernels as through XLA.
        jit_compile='auto' if keras.backend.backend() != 'tensorflow' else False)
    optimizer.build(model.trainable_variables)
    if keras.backend.backend() != 'tensorflow':
        _build_loss(model)
    return model


def _build_loss(model: keras.Model) -> None:
    """
    Build the compiled loss, or ``fit`` of the other backends would build it.

    They take a batch from the running queue for that and then start the queue anew, without those
    that it had prepared: some batches of the epoch came twice and as many never.

    """
    scores = {name: ops.zeros((1, *output.shape[1:]), output.dtype)
              for name, output in model.output.items()}
    labels = {name: np.zeros((1, *output.shape[1:3]), np.uint8)
              for name, output in model.output.items()}
    model.compute_loss(y=labels, y_pred=scores)


def freeze(model: keras.Model, patterns: Sequence[str]) -> list[str]:
    """
    Keep the weights of some layers, moving statistics included.

    Parameters
    ----------
    model : keras.Model
    patterns : sequence of str
        Beginnings or shell patterns of layer names.

    Returns
    -------
    list of str
        The layers with weights that were frozen.

    Raises
    ------
    TrainingError
        If a pattern fits no layer with weights, or nothing is left to train.

    """
    layers = [layer for layer in model.layers if layer.weights]
    frozen = []
    for pattern in patterns:
        fitting = [layer for layer in layers if layer.name.startswith(pattern)
                   or fnmatch.fnmatchcase(layer.name, pattern)]
        if not fitting:
            begins = sorted({layer.name.split('_')[0] for layer in layers})
            raise TrainingError(
                f'freeze: no layer fits {pattern!r}; expected the beginning of a name or a '
                f'pattern; names begin with {", ".join(begins)}.')
        frozen += fitting
    for layer in frozen:
        layer.trainable = False
    if not model.trainable_variables:
        raise TrainingError(f'freeze: {tuple(patterns)} leaves nothing to train; freeze less.')
    return [layer.name for layer in layers if not layer.trainable]


def initialize(model: keras.Model, path: Path, config: Config | None = None) -> list[str]:
    """
    Take over the weights that fit from another run.

    Parameters
    ----------
    model : keras.Model
    path : Path
        A ``.keras`` file of a network of ``training.model``; or a run folder: the weights of its
        last epoch, booster heads included, which ``best.keras`` lacks.
    config : Config or None
        What the model is for; None takes every head whose shape fits.

    Returns
    -------
    list of str
        Layers that keep their fresh weights: of another shape, absent from the file (which holds
        no boosters), or a head of the same classes in another order, where the run tells.

    Raises
    ------
    TrainingError
        If the file is missing, unreadable, or has nothing that fits.

    """
    source = last_epoch(path)[1] if path.is_dir() else _saved(path)
    moved = {layer for layer, (theirs, ours) in other_heads(path, config).items()
             if sorted(theirs) == sorted(ours)} if config else set()
    fresh = transfer_weights(source, model, skip=lambda name: name in moved)
    if len(fresh) == sum(bool(layer.weights) for layer in model.layers):
        raise TrainingError(
            f'init: {path} has no layer that fits by name and shape; expected a network of '
            'training.model with the same widths.')
    return fresh


def other_heads(
    path: Path, config: Config,
) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """
    Return the heads that another run taught other classes: theirs and ours, by layer.

    Empty where nothing tells what its classes were, as beside a ``.keras`` file alone.

    """
    described = (path if path.is_dir() else path.parent) / 'config.json'
    if not described.is_file() or not (path.is_dir() or path.name == 'best.keras'):
        return {}
    with intact(described, 'the settings of a run', 'choose another run'):
        found = json.loads(described.read_text())
        settings, taxonomy = found['config'], found.get('taxonomy', {})
        theirs = _by_head(
            tuple(settings.get('classes', ())), tuple(taxonomy.get('classes', ())),
            settings['architecture'].get('booster_classes', 0))
    ours = _by_head(config.classes, config.training_classes, config.architecture.booster_classes)
    return {layer: (theirs[layer], ours[layer]) for layer in ours
            if theirs[layer] and theirs[layer] != ours[layer]}


def _by_head(
    deployed: tuple[str, ...], trained: tuple[str, ...], of_boosters: int,
) -> dict[str, tuple[str, ...]]:
    """Return the classes of each head's last layer."""
    finer = trained if of_boosters == len(trained) else deployed
    return {'head_logits': deployed, **dict.fromkeys(BOOSTERS, finer)}


def _saved(file: Path) -> keras.Model:
    if not file.is_file():
        raise TrainingError(
            f'init: {file} is missing; expected a run folder or a .keras file.')
    try:
        return keras.models.load_model(file, compile=False)
    except DAMAGED as error:
        raise TrainingError(
            f'init: {file} cannot be read as a Keras model: {first_line(error)}') from error


def last_epoch(folder: Path) -> tuple[Architecture, keras.Model]:
    """
    Return the boosted network of a run after its last epoch.

    Parameters
    ----------
    folder : Path
        Run folder.

    Returns
    -------
    (Architecture, keras.Model)
        With averaged weights, where the run averages them.

    Raises
    ------
    TrainingError
        If the folder holds no finished epoch, or what it holds is damaged.

    """
    described, checkpoint = folder / 'config.json', folder / 'checkpoint.npz'
    for file in (described, checkpoint):
        if not file.is_file():
            raise TrainingError(
                f'{file} is missing; expected a run folder with a finished epoch.')
    advice = 'choose another run'
    with intact(described, 'the settings of a run', advice):
        found = dict(json.loads(described.read_text())['config']['architecture'])
        architecture = Architecture(**{
            name: tuple(value) if isinstance(value, list) else value
            for name, value in found.items()})
    # No weight depends on the input's size.
    source = build(architecture, (SIZE_MULTIPLE, SIZE_MULTIPLE), boosters=True)
    with intact(checkpoint, 'the last epoch of a run', advice), np.load(checkpoint) as stored:
        # Averaged weights are what was scored and deployed, where there are any.
        kind = 'a' if 'a0' in stored else 'v'
        values = [stored[f'{kind}{index}'] for index in range(len(source.weights))]
    for weight, value in zip(source.weights, values, strict=True):
        weight.assign(value)
    return architecture, source


def resized(
    model: keras.Model, config: Config, input_hw: tuple[int, int],
    weights: HeadWeights | None = None,
) -> keras.Model:
    """Return the same weights and optimizer state on a network of another input size."""
    other = build_trainable(config, input_hw, weights)
    if missing := transfer_weights(model, other):
        raise TrainingError(f'no weights for {", ".join(missing)}; this is a bug in training.')
    for source, target in zip(model.optimizer.variables, other.optimizer.variables, strict=True):
        target.assign(source)
    return other
