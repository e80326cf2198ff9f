"""
Train a road model.

    python -m training.train --config training/configs/road_256x512.py --data FOLDER --run FOLDER

The run folder then holds ``config.json`` (with commit and command), ``history.csv``,
``curve.png``, ``best.keras`` (the deployable float model of the best validation epoch) and
``checkpoint.npz``. Started again with the same ``--run``, training goes on behind the last
finished epoch.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from training import datasets
from training.augment import whole_view
from training.config import Config, ConfigError, load_config
from training.losses import ohem_cross_entropy
from training.metrics import ConfusionMatrix, labels_from_logits
from training.model import BOOSTERS, build, deployable, transfer_weights
from training.pipeline import Cached, EpochBatches

#: History columns before the IoU of each validation set.
COLUMNS = ('epoch', 'input_hw', 'learning_rate', 'loss', 'images_per_s', 'seconds')


class TrainingError(RuntimeError):
    """A run cannot go on."""


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


def head_loss(config: Config) -> Any:
    """Return the loss of one head: its logits are brought to the labels' size first."""
    def loss(labels: Any, logits: Any) -> Any:
        # Shapes are known while the graph is built; the batch size may not be.
        size = tuple(labels.shape[1:3])
        if tuple(logits.shape[1:3]) != size:
            logits = ops.image.resize(
                ops.cast(logits, 'float32'), size, interpolation='bilinear')
        return ohem_cross_entropy(labels, logits, threshold=config.ohem_threshold)
    return loss


def build_trainable(config: Config, input_hw: tuple[int, int]) -> keras.Model:
    """Return the boosted network at one input size, compiled with losses and optimizer."""
    model = build(config.architecture, input_hw, boosters=True, bn_momentum=config.bn_momentum)
    total = config.epochs * config.steps_per_epoch
    optimizer = keras.optimizers.SGD(
        WarmupPoly(config.learning_rate, config.warmup_steps, total, config.poly_power),
        momentum=config.momentum, weight_decay=config.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=['bias', 'gamma', 'beta'])
    loss = head_loss(config)
    model.compile(
        optimizer, loss=dict.fromkeys(model.output, loss),
        loss_weights={name: config.booster_weight if name in BOOSTERS else 1.0
                      for name in model.output},
        # On a CPU a first epoch was twice as fast with TensorFlow's own kernels as through XLA.
        jit_compile='auto' if keras.backend.backend() != 'tensorflow' else False)
    optimizer.build(model.trainable_variables)
    return model


def score(
    model: keras.Model, dataset: datasets.FrameDataset, config: Config, batch: int = 8,
) -> ConfusionMatrix:
    """
    Score a float model on whole frames, each at its own size.

    Parameters
    ----------
    model : keras.Model
        ``float32[N, H, W, 3]`` in [0, 1] to logits, or to a dict with ``logits``.
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
    merge = np.full(256, datasets.VOID, np.uint8)
    merge[:len(config.merge)] = config.merge
    input_hw = tuple(model.input_shape[1:3])
    for start in range(0, len(dataset), batch):
        frames = [dataset.read(i) for i in range(start, min(start + batch, len(dataset)))]
        views = np.stack([whole_view(rgb, ids, input_hw)[0] for rgb, ids in frames])
        logits = ops.convert_to_numpy(model.predict_on_batch(views.astype(np.float32) / 255))
        for (_, ids), single in zip(frames, logits, strict=True):
            matrix.update(merge[ids], labels_from_logits(single, ids.shape))
    return matrix


class Run:
    """
    The folder of one run.

    Every file in it is replaced whole: a kill at any moment leaves the old one or the new one.

    """

    def __init__(self, folder: Path, config: Config, command: list[str]) -> None:
        self.folder, self.config = folder, config
        self.history: list[dict[str, Any]] = []
        self.best = -1.0
        self.epoch = 0
        folder.mkdir(parents=True, exist_ok=True)
        described = json.loads(json.dumps(dataclasses.asdict(config)))
        path = folder / 'config.json'
        if path.is_file():
            found = json.loads(path.read_text())
            if found['config'] != described:
                changed = [key for key in described if described[key] != found['config'].get(key)]
                raise TrainingError(
                    f'{path}: this run was begun with other settings ({", ".join(changed)}); '
                    'choose another --run folder, or start from the same configuration.')
        else:
            self._write(path, json.dumps({
                'command': command, 'commit': commit(), 'config': described}, indent=2))

    def _write(self, path: Path, text: str) -> None:
        temporary = path.with_suffix('.tmp')
        temporary.write_text(text)
        os.replace(temporary, path)

    @property
    def checkpoint(self) -> Path:
        return self.folder / 'checkpoint.npz'

    def resume(self, model: keras.Model) -> bool:
        """Restore weights, optimizer and history of the last finished epoch, if there is one."""
        if not self.checkpoint.is_file():
            return False
        with np.load(self.checkpoint) as stored:
            state = json.loads(str(stored['state']))
            variables = model.weights + model.optimizer.variables
            for index, variable in enumerate(variables):
                variable.assign(stored[f'v{index}'])
        self.epoch, self.best = state['epoch'], state['best']
        self.history = state['history']
        self._write_history()
        return True

    def save(self, model: keras.Model) -> None:
        """Store everything that ``resume`` needs, as one file."""
        arrays = {f'v{index}': ops.convert_to_numpy(variable) for index, variable
                  in enumerate(model.weights + model.optimizer.variables)}
        state = {'epoch': self.epoch, 'best': self.best, 'history': self.history}
        temporary = self.folder / 'checkpoint.tmp.npz'
        np.savez(temporary, state=json.dumps(state), **arrays)
        os.replace(temporary, self.checkpoint)
        self._write_history()

    def save_best(self, model: keras.Model) -> None:
        """Store the deployable float model."""
        temporary = self.folder / 'best.tmp.keras'
        deployable(model, self.config.architecture, self.config.input_hw).save(temporary)
        os.replace(temporary, self.folder / 'best.keras')

    def _write_history(self) -> None:
        if not self.history:
            return
        temporary = self.folder / 'history.tmp'
        with temporary.open('w', newline='') as file:
            writer = csv.DictWriter(file, list(self.history[0]))
            writer.writeheader()
            writer.writerows(self.history)
        os.replace(temporary, self.folder / 'history.csv')

    def draw_curve(self) -> None:
        """Draw loss and validation IoU over the epochs, where matplotlib is installed."""
        try:
            from matplotlib.figure import Figure
        except ImportError:
            print('curve.png is left out: matplotlib is not installed (pip install matplotlib).')
            return
        figure = Figure(figsize=(8, 4.5))
        left = figure.add_subplot()
        epochs = [row['epoch'] for row in self.history]
        left.plot(epochs, [row['loss'] for row in self.history], color='0.6', label='loss')
        left.set(xlabel='epoch', ylabel='training loss (nats)')
        right = left.twinx()
        for key in self.history[0]:
            if key.startswith('iou '):
                right.plot(epochs, [row[key] for row in self.history], label=key[4:])
        right.set(ylabel=f'{self.config.mark} IoU', ylim=(0, 1))
        right.legend(loc='lower right')
        figure.savefig(self.folder / 'curve.png', dpi=110, bbox_inches='tight')


def commit() -> str:
    """Return the project's git commit, with ``+changes`` behind it if it was not clean."""
    folder = Path(__file__).parent
    try:
        head = subprocess.run(['git', 'rev-parse', 'HEAD'], cwd=folder, text=True, check=True,
                              capture_output=True).stdout.strip()
        changes = subprocess.run(['git', 'status', '--porcelain', '--', folder], cwd=folder,
                                 text=True, check=True, capture_output=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'
    return f'{head}+changes' if changes else head


def train(config: Config, root: Path | None, folder: Path, command: list[str]) -> Run:
    """
    Run, or go on with, one training.

    Parameters
    ----------
    config : Config
    root : Path or None
        Data folder.
    folder : Path
        Run folder; created, or resumed from.
    command : list of str
        What was typed; kept with the run.

    Returns
    -------
    Run
        Finished, with ``best`` and ``history``.

    Raises
    ------
    TrainingError
        If the folder belongs to another configuration, or the loss is not finite.

    """
    keras.config.set_dtype_policy(config.precision)
    # Keras draws the default seeds of its initializers from here. Its own set_random_seed would
    # import TensorFlow, whatever the backend.
    random.seed(config.seed)
    frames = [Cached(datasets.open_dataset(spec, root)) for spec, _ in config.train]
    held_out = {spec: Cached(datasets.open_dataset(spec, root)) for spec in config.validate}
    run = Run(folder, config, command)
    model = build_trainable(config, config.phases[0].input_hw)
    if run.resume(model):
        print(f'resuming {folder} behind epoch {run.epoch} of {config.epochs}, '
              f'best {config.mark} IoU {run.best:.4f}', flush=True)
    started, first = time.monotonic(), run.epoch
    for epoch in range(run.epoch, config.epochs):
        input_hw = config.phase_of(epoch).input_hw
        if tuple(model.input_shape[1:3]) != input_hw:
            model = resized(model, config, input_hw)
        begin = time.monotonic()
        batches = EpochBatches(config, frames, epoch, list(model.output))
        rate = float(ops.convert_to_numpy(model.optimizer.learning_rate))
        loss = model.fit(batches, shuffle=False, verbose=1 if sys.stdout.isatty() else 0
                         ).history['loss'][0]
        if not np.isfinite(loss):
            raise TrainingError(
                f'epoch {epoch + 1}: the loss is {loss}; lower learning_rate (now '
                f'{config.learning_rate}) or raise warmup_steps. The last good epoch is kept.')
        trained_s = time.monotonic() - begin
        inference = keras.Model(model.input, model.output['logits'])
        mark = config.classes.index(config.mark)
        ious = {f'iou {spec}': round(float(score(inference, data, config).iou()[mark]), 4)
                for spec, data in held_out.items()}
        run.epoch = epoch + 1
        run.history.append({
            'epoch': run.epoch, 'input_hw': f'{input_hw[0]}x{input_hw[1]}',
            'learning_rate': round(rate, 6), 'loss': round(float(loss), 4),
            'images_per_s': round(config.steps_per_epoch * config.batch_size / trained_s, 2),
            'seconds': round(time.monotonic() - begin, 1), **ious})
        chosen = ious[f'iou {config.validate[0]}']
        # Only the deployed size is chosen from: other sizes score on other terms.
        if input_hw == config.input_hw and chosen > run.best:
            run.best = chosen
            run.save_best(model)
        run.save(model)
        spent = (time.monotonic() - started) / (run.epoch - first)
        left_min = spent * (config.epochs - run.epoch) / 60
        print(f'epoch {run.epoch}/{config.epochs} {input_hw[0]}x{input_hw[1]}  loss {loss:.4f}  '
              + '  '.join(f'{key} {value:.4f}' for key, value in ious.items())
              + f'  {run.history[-1]["images_per_s"]} images/s  {left_min:.0f} min left at this '
              'epoch\'s pace', flush=True)
    run.draw_curve()
    return run


def resized(model: keras.Model, config: Config, input_hw: tuple[int, int]) -> keras.Model:
    """Return the same weights and optimizer state on a network of another input size."""
    other = build_trainable(config, input_hw)
    if missing := transfer_weights(model, other):
        raise TrainingError(f'no weights for {", ".join(missing)}; this is a bug in training.')
    for source, target in zip(model.optimizer.variables, other.optimizer.variables, strict=True):
        target.assign(source)
    return other


def main(argv: list[str] | None = None) -> int:
    """Train from the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m training.train', description='Train a road model, or go on with a run.')
    parser.add_argument('--config', type=Path, required=True, help='see training/configs/')
    parser.add_argument('--data', type=Path,
                        help=f'data folder (default: ${datasets.ENVIRONMENT})')
    parser.add_argument('--run', type=Path, help='run folder (default: runs/<config name>)')
    args = parser.parse_args(argv)
    folder = args.run or Path('runs') / args.config.stem
    try:
        config = load_config(args.config)
        run = train(config, args.data, folder, ['python', '-m', 'training.train',
                                                *(argv if argv is not None else sys.argv[1:])])
    except (ConfigError, datasets.DatasetError, TrainingError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f'best {config.mark} IoU on {config.validate[0]}: {run.best:.4f}; '
          f'model: {folder / "best.keras"}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
