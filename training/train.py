r"""
Train a network, or go on with a run.

    python -m training.train --config training/configs/road_256x512_start.py --data FOLDER \
        --run FOLDER

The run folder then holds ``config.json`` (with commit and command), ``history.csv``,
``curve.png``, ``events/`` (for TensorBoard), ``pictures/``, ``best.keras`` (the deployable float
model of the best validation epoch) and ``checkpoint.npz``. Started again with the same ``--run``,
training goes on behind the last finished epoch. See docs/training.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import random
import sys
import time
from pathlib import Path

import keras
import numpy as np
from keras import ops

from bisenet_ros.core import console
from training import datasets
from training.averaging import WeightAverage
from training.class_weights import class_shares, inverse_log, merged
from training.config import MEAN, Config, ConfigError, load_config, parse_weighted
from training.datasets.overlap import shared_frames
from training.devices import ONE, Devices, distribute
from training.faults import (
    INTERRUPTED, FiniteLoss, Interrupted, Interruptible, TrainingError, finite_advice,
    interrupted, is_out_of_memory, leave, memory_advice, remember_interrupts,
)
from training.model import BOOSTERS
from training.optimization import (
    HeadWeights, build_trainable, freeze, initialize, other_heads, resized,
)
from training.pictures import chosen_frames, deployed_table, png, strip
from training.pipeline import CacheBudget, Cached, EpochBatches
from training.run import Run, finite
from training.validation import chosen_by, marked_iou, predicted_labels, score

__all__ = ['Trainer', 'main', 'overridden', 'score', 'train']

#: Frames that are scored together.
SCORED_TOGETHER = 8

#: What Ctrl-C is answered with while nothing is trained yet.
BEFORE_FIRST = 'interrupted before the first epoch'


class Trainer:
    """
    One training, epoch by epoch.

    Parameters
    ----------
    config : Config
    root : Path or None
        Data folder.
    folder : Path
        Run folder; created, or resumed from.
    command : list of str
        What was typed; kept with the run.
    devices : Devices
        What ``distribute`` returned.

    Raises
    ------
    DatasetError, TrainingError
        If the data cannot be used, the folder belongs to another configuration, or the
        configuration does not fit the network or the devices.

    """

    def __init__(
        self, config: Config, root: Path | None, folder: Path, command: list[str],
        devices: Devices = ONE,
    ) -> None:
        if config.batch_size % devices.count:
            raise TrainingError(
                f'batch_size: found {config.batch_size}, expected a multiple of the '
                f'{devices.count} devices.')
        self.config, self._devices = config, devices
        keras.config.set_dtype_policy(config.precision)
        # Keras draws the default seeds of its initializers from here. Its own set_random_seed
        # would import TensorFlow, whatever the backend.
        random.seed(config.seed)
        self._open(root)
        self._weights = self._class_weights()
        self.average = WeightAverage(config.ema_decay, config.accumulate) \
            if config.ema_decay else None
        self._use(build_trainable(config, config.phases[0].input_hw, self._weights))
        self.run = Run(folder, config, command, writes=devices.process == 0)
        if self.run.resume(self.model, self.average):
            best = (f'best {config.mark} IoU {self.run.best:.4f}' if self.run.best_epoch
                    else 'none at the deployed size yet')
            print(f'resuming {folder} behind epoch {self.run.epoch} of {config.epochs}, {best}',
                  flush=True)
        else:
            self._begin()
        for key, (before, now) in self.run.changed_later.items():
            print(f'note: {key} was {before!r} until now and is {now!r} from here on', flush=True)
        # Not before: a mistyped --init must not make the folder that of a run never begun.
        self.run.claim()
        self._first, self._seconds_per_pixel = self.run.epoch, 0.0

    def _open(self, root: Path | None) -> None:
        config = self.config

        def opened(spec: str) -> datasets.FrameDataset:
            dataset = datasets.open_dataset(spec, root, config.label_taxonomy, config.on_bad)
            for note in getattr(dataset, 'notes', ()):
                print(f'{spec}: note: {note}', flush=True)
            return dataset

        budget = CacheBudget(config.cache_mb * 1_000_000)
        trained = [(spec, opened(spec)) for spec, _ in config.train]
        held_out = [(spec, opened(spec)) for spec in config.validate]
        for pair in itertools.product(trained, held_out):
            if note := shared_frames(*pair):
                print(f'note: {note}', flush=True)
        self.frames = [Cached(dataset, budget) for _, dataset in trained]
        # A stand-in for a bad frame would count another frame twice in a score.
        self.held_out = {
            spec: Cached(datasets.readable(dataset) if config.on_bad == 'skip' else dataset,
                         budget)
            for spec, dataset in held_out}

    def _class_weights(self) -> HeadWeights:
        config = self.config
        if config.class_weights == 'none':
            return {}
        if not isinstance(config.class_weights, str):
            given = config.class_weights
            other = config.boosters_are_finer and config.training_classes != config.classes
            return {'logits': given, **dict.fromkeys(BOOSTERS, None if other else given)}
        shares = class_shares(
            self.frames, [weight for _, weight in config.train], len(config.training_classes))
        of_deployed = merged(shares, config.merge, len(config.classes))
        if nowhere := [name for name, share in zip(config.classes, of_deployed, strict=True)
                       if not share]:
            print(f'note: no labelled pixel of {" or ".join(nowhere)} in the frames that were '
                  'looked at to train on; what is not shown is not learnt', flush=True)
        deployed = inverse_log(of_deployed)
        print('class weights: ' + ', '.join(
            f'{name} {weight:.2f}'
            for name, weight in zip(config.classes, deployed, strict=True)), flush=True)
        return {'logits': deployed,
                **dict.fromkeys(
                    BOOSTERS, inverse_log(shares) if config.boosters_are_finer else deployed)}

    def _begin(self) -> None:
        """Take over weights, and say what is frozen and what starts fresh."""
        config = self.config
        if config.init:
            fresh = initialize(self.model, Path(config.init), config)
            print(f'init: weights of {config.init}; fresh: {", ".join(fresh) or "none"}',
                  flush=True)
            heads: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = {}
            for layer, classes in other_heads(Path(config.init), config).items():
                if layer not in fresh:
                    heads.setdefault(classes, []).append(layer)
            for (theirs, ours), layers in heads.items():
                print(f'note: what {", ".join(layers)} knew of {", ".join(theirs)} is the start '
                      f'for {", ".join(ours)}', flush=True)
        if config.freeze:
            print(f'frozen: {", ".join(freeze(self.model, config.freeze))}', flush=True)

    def _use(self, model: keras.Model) -> None:
        self.model = model
        # One for all epochs: TensorFlow traces it once.
        self._inference = keras.Model(model.input, model.output['logits'])

    def train(self) -> None:
        """
        Run, or go on to, the last epoch.

        Raises
        ------
        TrainingError
            If memory runs out or the loss is not finite; with advice.
        Interrupted
            On Ctrl-C.

        """
        while self.run.epoch < self.config.epochs and not self._is_settled():
            epoch = self.run.epoch
            try:
                self._train_epoch(epoch)
            except KeyboardInterrupt:
                raise Interrupted(epoch, self.run.folder) from None
            except Exception as error:
                if interrupted.is_set():
                    raise Interrupted(epoch, self.run.folder) from error
                if is_out_of_memory(error):
                    raise TrainingError(
                        memory_advice(self.config, epoch, self.run.folder, error)) from error
                raise
        self.run.draw_curve()

    def _is_settled(self) -> bool:
        """Tell whether the last ``patience`` epochs brought nothing better."""
        run, patience = self.run, self.config.patience
        settled = bool(patience and run.best_epoch and run.epoch - run.best_epoch >= patience)
        if settled:
            print(f'stopping early: no better epoch than {run.best_epoch} in {patience} epochs',
                  flush=True)
        return settled

    def _train_epoch(self, epoch: int) -> None:
        config, run = self.config, self.run
        input_hw = config.phase_of(epoch).input_hw
        if tuple(self.model.input_shape[1:3]) != input_hw:
            self._use(resized(self.model, config, input_hw, self._weights))
        begin = time.monotonic()
        rate = float(ops.convert_to_numpy(self.model.optimizer.learning_rate))
        loss = self._fit(epoch)
        trained_s = time.monotonic() - begin
        if self.average is None:
            scalars = self._validate(epoch)
        else:
            with self.average.applied(self.model):
                scalars = self._validate(epoch)
        ious = {f'iou {spec}': round(scalars[f'iou/{spec}'], 4)
                if f'iou/{spec}' in scalars else None for spec in config.validate}
        run.history.append({
            'epoch': run.epoch, 'input_hw': f'{input_hw[0]}x{input_hw[1]}',
            'learning_rate': round(rate, 6), 'loss': round(loss, 4),
            'images_per_s': round(config.steps_per_epoch * config.batch_size / trained_s, 2),
            'seconds': round(time.monotonic() - begin, 1), **ious})
        # First: a kill between the two leaves figures told twice rather than never.
        run.write_events({'loss': loss, 'learning_rate': rate,
                          'images_per_s': run.history[-1]['images_per_s'], **scalars})
        run.save(self.model, self.average)
        print(f'epoch {run.epoch}/{config.epochs} {input_hw[0]}x{input_hw[1]}  loss {loss:.4f}  '
              + '  '.join(f'{key} {value:.4f}' for key, value in ious.items()
                          if value is not None)
              + f'  {run.history[-1]["images_per_s"]} images/s  '
              f'{self._left(time.monotonic() - begin)}', flush=True)

    def _fit(self, epoch: int) -> float:
        """Train one epoch; return its mean loss."""
        config = self.config
        batches = EpochBatches(
            config, self.frames, epoch, list(self.model.output),
            part=(self._devices.process, self._devices.processes))
        watch = FiniteLoss()
        callbacks = [watch, Interruptible(), *([self.average] if self.average is not None else [])]
        loss = float(self.model.fit(
            batches, shuffle=False, verbose=1 if sys.stdout.isatty() else 0, callbacks=callbacks,
        ).history['loss'][0])
        if watch.batch is not None:
            found = f'the loss is {watch.loss}'
        elif not finite([ops.convert_to_numpy(weight) for weight in self.model.weights]):
            found = 'a weight is not finite'  # the last batch's update, of a loss that still was
        elif not finite([ops.convert_to_numpy(state)
                         for state in self.model.optimizer.variables]):
            found = "the optimizer's state is not finite"  # a gradient that waits for others
        else:
            return loss
        raise TrainingError(finite_advice(config, epoch, watch.batch, found, self.run.folder))

    def _validate(self, epoch: int) -> dict[str, float]:
        """Score, draw, and keep the model if it is the best so far."""
        config, run = self.config, self.run
        scalars: dict[str, float] = {}
        marked: dict[str, float | None] = {}
        shown = np.zeros(len(config.classes), bool)
        for spec, data in self.held_out.items():
            matrix = score(self._inference, data, config, SCORED_TOGETHER)
            if (found := marked_iou(matrix, config)) is not None:
                scalars[f'iou/{spec}'] = found
            marked[spec] = found
            shown |= matrix.counts.sum(axis=1) > 0
            for name, iou in zip(config.classes, matrix.iou().tolist(), strict=True):
                scalars[f'class_iou/{spec}/{name}'] = iou
        chosen = chosen_by(marked, config.mark)
        without = [spec for spec, iou in marked.items() if iou is None]
        if without and epoch == self._first:
            what = 'labelled pixel' if config.mark == MEAN else config.mark
            print(f'note: no {what} in {" and ".join(without)}; not counted in what chooses the '
                  'best epoch', flush=True)
        if config.mark == MEAN and epoch == self._first and not shown.all():
            lacking = [name for name, seen in zip(config.classes, shown, strict=True) if not seen]
            print(f'note: validation shows no {" and no ".join(lacking)}; the mean that chooses '
                  'the best epoch cannot tell how well that is found', flush=True)
        run.epoch = epoch + 1
        # Only the deployed size is chosen from: other sizes score on other terms.
        if config.phase_of(epoch).input_hw == config.input_hw and chosen > run.best:
            run.best, run.best_epoch = chosen, run.epoch
            run.save_best(self.model)
        if config.pictures:
            self._draw()
        return scalars

    def _draw(self) -> None:
        data = self.held_out[self.config.validate[0]]
        table = deployed_table(self.config.merge)
        frames, predicted = [], []
        for index in chosen_frames(data, self.config.pictures):
            frame = data.read(index)
            predicted += predicted_labels(self._inference, [frame], SCORED_TOGETHER)
            frames.append((frame[0], table[frame[1]]))
        self.run.save_picture(png(strip(frames, predicted, len(self.config.classes))))

    def _left(self, seconds: float) -> str:
        """Say how long the rest takes, counting a phase's epochs by their pixels."""
        def pixels(epoch: int) -> int:
            height, width = self.config.phase_of(epoch).input_hw
            return height * width

        pace = seconds / pixels(self.run.epoch - 1)
        # The first epoch of a process builds and warms up as well.
        settled = self._seconds_per_pixel and self.run.epoch - self._first > 2
        self._seconds_per_pixel = (
            0.7 * self._seconds_per_pixel + 0.3 * pace if settled else pace)
        left = sum(pixels(epoch) for epoch in range(self.run.epoch, self.config.epochs))
        minutes = round(left * self._seconds_per_pixel / 60)
        return f'{minutes // 60} h {minutes % 60:02d} min left' if minutes else 'under 1 min left'


def train(
    config: Config, root: Path | None, folder: Path, command: list[str],
    devices: Devices = ONE,
) -> Run:
    """
    Run, or go on with, one training; see ``Trainer``.

    Returns
    -------
    Run
        Finished, with ``best`` and ``history``.

    """
    trainer = Trainer(config, root, folder, command, devices)
    trainer.train()
    return trainer.run


def overridden(config: Config, args: argparse.Namespace) -> Config:
    """Return a configuration with what the command line asks for."""
    if args.taxonomy:
        config = config.with_taxonomy(args.taxonomy)
    changes = {
        'train': parse_weighted(args.dataset or ()), 'validate': tuple(args.validate or ()),
        'init': args.init, 'freeze': tuple(args.freeze or ()), 'on_bad': args.on_bad}
    config = dataclasses.replace(
        config, **{name: value for name, value in changes.items() if value})
    return config.with_epochs(args.epochs) if args.epochs is not None else config


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    command = argparse.ArgumentParser(
        prog='python -m training.train', description='Train a network, or go on with a run.')
    command.add_argument('--config', type=Path, required=True, help='see training/configs/')
    command.add_argument('--data', type=Path,
                         help=f'data folder (default: ${datasets.ENVIRONMENT})')
    command.add_argument('--run', type=Path, help='run folder (default: runs/<config name>)')
    instead = command.add_argument_group('instead of what the configuration says')
    instead.add_argument('--dataset', nargs='+', metavar='SPEC[=WEIGHT]',
                         help='data sets to train on, such as camvid:train=0.4')
    instead.add_argument('--validate', nargs='+', metavar='SPEC',
                         help='data sets to score; their mean chooses the best epoch')
    instead.add_argument('--taxonomy', metavar='NAME',
                         help='train on all classes of this taxonomy, none merged')
    instead.add_argument('--on-bad', choices=('stop', 'skip'),
                         help='what a frame that cannot be read does')
    instead.add_argument('--epochs', type=int, help='phases are scaled in proportion')
    instead.add_argument('--init', metavar='RUN_OR_KERAS',
                         help='start with the weights of another run, as far as they fit')
    instead.add_argument('--freeze', nargs='+', metavar='PATTERN',
                         help='layers that keep their weights, such as detail or s[345]_*')
    command.add_argument('--devices', default='1', metavar='N',
                         help='devices to divide every batch among, or all (jax only)')
    return command


def main(argv: list[str] | None = None) -> int:
    """Train from the command line."""
    args = parser().parse_args(argv)
    console.print_any_name()
    folder = args.run or Path('runs') / args.config.stem
    try:
        config = overridden(load_config(args.config), args)
        run = train(config, args.data, folder, ['python', '-m', 'training.train',
                                                *(argv if argv is not None else sys.argv[1:])],
                    distribute(args.devices))
    except (ConfigError, datasets.DatasetError, TrainingError) as error:
        print(error, file=sys.stderr)
        return 1
    except (Interrupted, KeyboardInterrupt) as error:
        print(str(error) or BEFORE_FIRST, file=sys.stderr)
        return INTERRUPTED
    except Exception:
        if not interrupted.is_set():
            raise
        print(BEFORE_FIRST, file=sys.stderr)
        return INTERRUPTED
    mark = 'mean' if config.mark == MEAN else config.mark
    print(f'best {mark} IoU on {" and ".join(config.validate)}: {run.best:.4f}; '
          f'model: {folder / "best.keras"}')
    return 0


if __name__ == '__main__':
    remember_interrupts()
    leave(main())
