"""
How fast training goes, and whether the training step waits for its input.

    python benchmarks/training_throughput.py --data FOLDER --json FILE

For each preset in turn, and again each round, it measures the input pipeline alone (frames in
memory, as from the second epoch on), the training step alone (the same batch again), and both
together with the share of the time in which the step waits for a batch. Without ``--data`` the
frames are rendered.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from machine import description, output_file, processor

from bisenet_ros.core.console import at_least
from training.config import Config, Phase, load_config
from training.datasets import open_dataset
from training.model import PRESETS
from training.optimization import build_trainable
from training.pipeline import Cached, EpochBatches, default_workers

ROOT = Path(__file__).resolve().parents[1]


def in_order(batches: EpochBatches, count: int, workers: int) -> Iterator[Any]:
    """Yield the first batches, built ahead on threads as Keras' ``fit`` does."""
    with ThreadPoolExecutor(workers) as pool:
        ahead = collections.deque(
            pool.submit(batches.__getitem__, index) for index in range(min(count, workers + 4)))
        for index in range(count):
            yield ahead.popleft().result()
            if index + workers + 4 < count:
                ahead.append(pool.submit(batches.__getitem__, index + workers + 4))


class Bench:
    """A preset with its data, ready to be measured again and again."""

    def __init__(self, config: Config, frames: list[Cached], workers: int) -> None:
        keras.config.set_dtype_policy(config.precision)
        self._config, self._frames, self._workers = config, frames, workers
        self._model = build_trainable(config, config.input_hw)
        self._batch = self._batches()[0]
        for _ in range(2):
            self._step(self._batch)

    def _batches(self) -> EpochBatches:
        return EpochBatches(self._config, self._frames, 0, list(self._model.output))

    def _step(self, batch: Any) -> None:
        self._model.train_on_batch(*batch)
        # Some backends hand the step over and go on: wait for a weight that it changes.
        ops.convert_to_numpy(self._model.trainable_variables[0])

    def input_s(self, steps: int) -> float:
        """Return seconds per batch of the pipeline alone."""
        begin = time.perf_counter()
        for _ in in_order(self._batches(), steps, self._workers):
            pass
        return (time.perf_counter() - begin) / steps

    def step_s(self, steps: int) -> float:
        """Return seconds per training step on a batch that is there."""
        begin = time.perf_counter()
        for _ in range(steps):
            self._step(self._batch)
        return (time.perf_counter() - begin) / steps

    def together_s(self, steps: int) -> tuple[float, float]:
        """Return seconds per step with the pipeline beside it, and how long of it is waiting."""
        waited, batches = 0.0, in_order(self._batches(), steps, self._workers)
        begin = time.perf_counter()
        for _ in range(steps):
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            self._step(batch)
        total = time.perf_counter() - begin
        batches.close()
        return total / steps, waited / steps


def measure(benches: dict[str, Bench], rounds: int, steps: int) -> dict[str, np.ndarray]:
    """Return ``float64[rounds, 4]`` seconds a batch: input, step, both, waiting."""
    times = {name: np.empty((rounds, 4)) for name in benches}
    for index in range(rounds):
        for name, bench in benches.items():
            times[name][index] = (
                bench.input_s(steps), bench.step_s(steps), *bench.together_s(steps))
    return times


def main() -> None:
    """Measure and print."""
    command = argparse.ArgumentParser(description=__doc__.strip().partition('\n')[0])
    command.add_argument('--config', type=Path,
                         default=ROOT / 'training' / 'configs' / 'road_256x512_drives.py')
    command.add_argument('--data', type=Path, help='data folder; without it frames are rendered')
    command.add_argument('--presets', nargs='+', default=['road', 'original'],
                         choices=sorted(PRESETS))
    command.add_argument('--input', default='256x512', metavar='HxW')
    command.add_argument('--batch', type=at_least(1), default=8)
    command.add_argument('--precision', default='mixed_bfloat16')
    command.add_argument('--workers', type=int, default=default_workers(),
                         help='threads of the pipeline (%(default)s)')
    command.add_argument('--steps', type=at_least(1), default=4, help='in a row (%(default)s)')
    command.add_argument('--rounds', type=at_least(1), default=3, help='(%(default)s)')
    command.add_argument('--json', type=output_file)
    options = command.parse_args()

    height, width = (int(side) for side in options.input.split('x'))
    base = load_config(options.config)
    train = base.train if options.data else (('synthetic:40', 1.0),)
    frames = [Cached(open_dataset(spec, options.data, base.label_taxonomy)) for spec, _ in train]
    for data in frames:
        for index in range(len(data)):
            data.read(index)
    benches = {}
    for name in options.presets:
        classes = base.architecture.booster_classes
        benches[name] = Bench(dataclasses.replace(
            base, architecture=dataclasses.replace(PRESETS[name], booster_classes=classes),
            train=train, phases=(Phase((height, width), 1),), batch_size=options.batch,
            images_per_epoch=options.batch * max(options.steps, 1), loss_stride=base.loss_stride,
            precision=options.precision), frames, options.workers)
    times = measure(benches, options.rounds, options.steps)

    backend = f'keras {keras.__version__} on {keras.backend.backend()}'
    lines = [f'{options.input}, batches of {options.batch}, {options.precision}, '
             f'{options.workers} threads of input, {backend}, {processor()}; medians of '
             f'{options.rounds} rounds of {options.steps} steps, images/s:',
             f'{"":14}{"input":>9}{"step":>9}{"both":>9}{"waiting":>10}{"step, of the first":>20}']
    first = np.median(times[options.presets[0]][:, 1])
    result: dict[str, Any] = {'machine': description(), 'backend': backend, 'presets': {}}
    for name, table in times.items():
        source, step, both = np.median(table[:, :3], axis=0)
        share = float(np.median(table[:, 3] / table[:, 2]))
        rates = {'input_images_per_s': options.batch / source,
                 'step_images_per_s': options.batch / step,
                 'both_images_per_s': options.batch / both, 'waiting_share': share}
        result['presets'][name] = {**rates, 'seconds_per_batch': table.tolist()}
        lines.append(f'{name:14}' + ''.join(f'{value:9.2f}' for value in list(rates.values())[:3])
                     + f'{share:10.1%}{first / step:20.2f}')
    sys.stdout.write('\n'.join(lines) + '\n')
    if options.json:
        options.json.write_text(json.dumps({
            **result, 'input_hw': [height, width], 'batch': options.batch,
            'precision': options.precision, 'workers': options.workers}, indent=2) + '\n')


if __name__ == '__main__':
    main()
