"""
Accuracy against time: several widths and input sizes, all trained on one equal, short schedule.

    python benchmarks/pareto.py --data FOLDER --runs FOLDER --json docs/figures/pareto.json

Each width is trained on small inputs first, and from there on at each of the deployed sizes, as
the shipped models were (``training.train``); then quantized and scored on validation data
(``training.quantize``), by the commands that a user would type. In the end the int8 models and the
untrained ``original`` network take turns on the CPU. Everything that is there already in the runs'
folder is taken as it is, so a stopped study goes on where it was. The schedule is too short for
good masks: what counts is the order.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import machine
import numpy as np

from bisenet_ros.core.contract import contract_path
from bisenet_ros.core.engine import LiteRtEngine
from training.config import Config, Phase, load_config
from training.model import PRESETS

WIDTHS = ('road_tiny', 'road_slim', 'road', 'road_wide')
SIZES = ((128, 256), (256, 512))
BASE = Path(__file__).parents[1] / 'training' / 'configs' / 'road_256x512_start.py'


@dataclasses.dataclass
class Candidate:
    """One network at one input size, and what became of it."""

    width: str
    input_hw: tuple[int, int]
    iou: dict[str, float] = dataclasses.field(default_factory=dict)  # int8, by validation set
    median_ms: float = 0.0
    ratio: float = 0.0  # of the original's time
    on_front: bool = False

    @property
    def name(self) -> str:
        return f'{self.width}_{self.input_hw[0]}x{self.input_hw[1]}'

    @property
    def mean_iou(self) -> float:
        return float(np.mean(list(self.iou.values())))


def small_inputs_first(width: str, images: int, epochs: int) -> Config:
    """Return the part of the schedule that both sizes of a width share."""
    return dataclasses.replace(
        load_config(BASE), architecture=PRESETS[width], images_per_epoch=images,
        phases=(Phase(SIZES[0], epochs),), warmup_steps=50)


def deployed_size(candidate: Candidate, images: int, epochs: int, init: Path) -> Config:
    """Return the rest of it."""
    return dataclasses.replace(
        load_config(BASE), architecture=PRESETS[candidate.width], images_per_epoch=images,
        phases=(Phase(candidate.input_hw, epochs),), learning_rate=0.02, warmup_steps=20,
        init=str(init))


def config_text(config: Config) -> str:
    """Return a configuration file."""
    return (f'"""Written by benchmarks/pareto.py."""\n\n'
            'from training.augment import Augmentation\n'
            'from training.config import Config, Phase\n'
            f'from training.model import Architecture\n\nCONFIG = {config!r}\n')


def command(*words: object) -> None:
    """Run a module of training; its output is the user's."""
    subprocess.run([sys.executable, '-m', *map(str, words)], check=True)


def train(name: str, runs: Path, data: Path, config: Config) -> Path:
    """Train one network, unless that was done; return its run."""
    path, run = runs / f'{name}.py', runs / name
    path.write_text(config_text(config))
    command('training.train', '--config', path, '--data', data, '--run', run)
    return run


def model_of(
    candidate: Candidate, runs: Path, data: Path, images: int, epochs: tuple[int, int],
) -> Path:
    """Train, quantize and score one network; return the model."""
    model = runs / f'{candidate.name}.tflite'
    if not model.is_file():
        small = train(candidate.width, runs, data,
                      small_inputs_first(candidate.width, images, epochs[0]))
        config = deployed_size(candidate, images, epochs[1], small)
        command('training.quantize', '--run', train(candidate.name, runs, data, config),
                '--data', data, '--output', model, '--score', *config.validate)
    provenance = json.loads(contract_path(model).read_text())['provenance']
    candidate.iou = {spec: score['int8'] for spec, score in provenance['road_iou'].items()}
    return model


def measure(models: dict[str, Path], count: int, threads: int) -> dict[str, float]:
    """Return each model's median time in milliseconds; they take turns."""
    engines = {name: LiteRtEngine(path, threads) for name, path in models.items()}
    times: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(-3, count):
        for name, engine in engines.items():
            image = np.zeros(engine.input.shape[1:], np.uint8)
            begin = time.perf_counter()
            engine.run(image)
            if turn >= 0:
                times[name].append(time.perf_counter() - begin)
    return {name: 1e3 * float(np.median(values)) for name, values in times.items()}


def mark_front(candidates: list[Candidate]) -> None:
    """Mark those that no other beats in both time and accuracy."""
    for one in candidates:
        one.on_front = not any(
            other.median_ms < one.median_ms and other.mean_iou >= one.mean_iou
            for other in candidates if other is not one)


def table(candidates: list[Candidate]) -> str:
    """Return a Markdown table, fastest first."""
    sets = list(candidates[0].iou)
    lines = [f'| network | input | {" | ".join(sets)} | CPU time / original | on the front |',
             '|---|---|' + '---|' * (len(sets) + 2)]
    for one in sorted(candidates, key=lambda one: one.median_ms):
        scores = ' | '.join(f'{one.iou[name]:.3f}' for name in sets)
        lines.append(f'| {one.width} | {one.input_hw[0]}x{one.input_hw[1]} | {scores} | '
                     f'{one.ratio:.3f} | {"yes" if one.on_front else ""} |')
    return '\n'.join(lines)


def main() -> None:
    """Train what is missing, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.strip().partition('\n')[0])
    parser.add_argument('--data', type=Path, required=True)
    parser.add_argument('--runs', type=Path, required=True, help='folder for runs and models')
    parser.add_argument('--widths', nargs='+', default=WIDTHS, choices=sorted(PRESETS))
    parser.add_argument('--images', type=int, default=1600, help='views per epoch (%(default)s)')
    parser.add_argument('--epochs', type=int, nargs=2, default=(6, 1),
                        help='of small inputs, then at the deployed size (%(default)s)')
    parser.add_argument('--threads', type=int, default=2, help='CPU threads (%(default)s)')
    parser.add_argument('--count', type=int, default=100, help='timed runs (%(default)s)')
    parser.add_argument('--json', type=machine.output_file)
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    candidates = [Candidate(width, size) for width in options.widths for size in SIZES]
    models = {one.name: model_of(one, options.runs, options.data, options.images,
                                 tuple(options.epochs)) for one in candidates}
    original = options.runs / 'original.tflite'
    if not original.is_file():
        command('training.quantize', '--untrained', 'original', '--output', original)
    times = measure({**models, 'original': original}, options.count, options.threads)
    for one in candidates:
        one.median_ms = times[one.name]
        one.ratio = times[one.name] / times['original']
    mark_front(candidates)
    sys.stdout.write(table(candidates) + '\n')
    if options.json:
        options.json.write_text(json.dumps({
            'machine': machine.description(), 'threads': options.threads,
            'images_per_epoch': options.images, 'epochs': list(options.epochs),
            'original_ms': times['original'],
            'candidates': [{**dataclasses.asdict(one), 'mean_iou': one.mean_iou}
                           for one in candidates]}, indent=2) + '\n')


if __name__ == '__main__':
    main()
