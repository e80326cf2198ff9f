"""
Accuracy against time: several widths and input sizes, all trained on one equal, short schedule.

    python benchmarks/pareto.py --data FOLDER --runs FOLDER --json docs/figures/pareto.json

Each width is trained on small inputs first, and from there on at each of the deployed sizes, as
the shipped models were (``training.train``), with the losses and views of ``road_256x512_calm``;
then quantized and scored on validation data (``training.quantize``), by the commands that a user
would type. In the end the int8 models and the untrained ``original`` network take turns on the
CPU. All that is done once for each seed (first weights, order and views); what counts are the
means. Everything that is there already in the runs' folder is taken as it is, a model only with
its scores, so a stopped study goes on where it was. The schedule is too short for good masks: what
counts is the order.
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

from bisenet_ros.core.console import at_least
from bisenet_ros.core.contract import contract_path
from bisenet_ros.core.engine import LiteRtEngine
from training.config import Config, Phase, load_config, write_config
from training.model import PRESETS

WIDTHS = ('road_tiny', 'road_slim', 'road', 'road_wide')
SIZES = ((128, 256), (256, 512))
CONFIGS = Path(__file__).parents[1] / 'training' / 'configs'
MEAN = 'mean'


@dataclasses.dataclass
class Candidate:
    """One network at one input size, and what became of it."""

    width: str
    input_hw: tuple[int, int]
    by_seed: dict[int, dict[str, float]] = dataclasses.field(default_factory=dict)
    median_ms: float = 0.0
    ratio: float = 0.0  # of the original's time
    fronts: list[str] = dataclasses.field(default_factory=list)  # by which scores it is on it

    @property
    def name(self) -> str:
        return f'{self.width}_{self.input_hw[0]}x{self.input_hw[1]}'

    def of_seeds(self, name: str) -> list[float]:
        """Return the int8 models' road IoU on a validation set, or the mean of all, by seed."""
        return [float(np.mean(list(iou.values()))) if name == MEAN else iou[name]
                for iou in self.by_seed.values()]

    @property
    def iou(self) -> dict[str, float]:
        """Return the means over seeds, by validation set and of all."""
        sets = next(iter(self.by_seed.values()))
        return {name: float(np.mean(self.of_seeds(name))) for name in (*sets, MEAN)}

    @property
    def apart(self) -> float:
        """Return how far apart the seeds' means of all validation sets are."""
        return float(np.ptp(self.of_seeds(MEAN)))


@dataclasses.dataclass(frozen=True)
class Schedule:
    """What all networks have in common."""

    images: int  # views per epoch
    epochs: tuple[int, int]  # of small inputs, then at the deployed size
    seed: int


def equal_config(width: str, schedule: Schedule) -> Config:
    """
    Return what all networks have in common.

    What ``road_256x512_calm`` has, but from fresh weights, on the data that the first run had, and
    with weights averaged over fewer steps, because there are fewer.
    """
    return dataclasses.replace(
        load_config(CONFIGS / 'road_256x512_calm.py'), architecture=PRESETS[width], init='',
        train=load_config(CONFIGS / 'road_256x512_start.py').train,
        images_per_epoch=schedule.images, ema_decay=0.98, seed=schedule.seed)


def small_inputs_first(width: str, schedule: Schedule) -> Config:
    """Return the part of the schedule that both sizes of a width share."""
    return dataclasses.replace(
        equal_config(width, schedule), phases=(Phase(SIZES[0], schedule.epochs[0]),),
        learning_rate=0.05, warmup_steps=50)


def deployed_size(candidate: Candidate, schedule: Schedule, init: Path) -> Config:
    """Return the rest of it."""
    return dataclasses.replace(
        equal_config(candidate.width, schedule),
        phases=(Phase(candidate.input_hw, schedule.epochs[1]),),
        learning_rate=0.02, warmup_steps=20, init=str(init))


def command(*words: object) -> None:
    """Run a module of training; its output is the user's."""
    subprocess.run([sys.executable, '-m', *map(str, words)], check=True)


def train(name: str, runs: Path, data: Path, config: Config) -> Path:
    """Train one network, unless that was done; return its run."""
    path, run = runs / f'{name}.py', runs / name
    write_config(path, config, 'Written by benchmarks/pareto.py.')
    command('training.train', '--config', path, '--data', data, '--run', run)
    return run


def road_iou(model: Path) -> dict[str, float]:
    """Return a model's scores by validation set; empty where it is not there or was not scored."""
    contract = contract_path(model)
    if not (model.is_file() and contract.is_file()):
        return {}
    scores = json.loads(contract.read_text())['provenance'].get('road_iou', {})
    return {spec: score['int8'] for spec, score in scores.items()}


def model_of(candidate: Candidate, runs: Path, data: Path, schedule: Schedule) -> Path:
    """Train, quantize and score one network; return the model."""
    name = f'{candidate.name}_seed{schedule.seed}'
    model = runs / f'{name}.tflite'
    if not road_iou(model):
        small = train(f'{candidate.width}_seed{schedule.seed}', runs, data,
                      small_inputs_first(candidate.width, schedule))
        config = deployed_size(candidate, schedule, small)
        command('training.quantize', '--run', train(name, runs, data, config),
                '--data', data, '--output', model, '--score', *config.validate)
    candidate.by_seed[schedule.seed] = road_iou(model)
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


def mark_fronts(candidates: list[Candidate]) -> None:
    """Mark those that no other beats in both time and accuracy, by each score."""
    for name in candidates[0].iou:
        for one in candidates:
            if not any(other.median_ms < one.median_ms and other.iou[name] >= one.iou[name]
                       for other in candidates if other is not one):
                one.fronts.append(name)


def table(candidates: list[Candidate]) -> str:
    """Return a Markdown table, fastest first."""
    names = list(candidates[0].iou)
    lines = [f'| network | input | {" | ".join(names)} | seeds apart | CPU time / original | '
             'on the front by |', '|---|---|' + '---|' * (len(names) + 3)]
    for one in sorted(candidates, key=lambda one: one.median_ms):
        scores = ' | '.join(f'{one.iou[name]:.3f}' for name in names)
        lines.append(f'| {one.width} | {one.input_hw[0]}x{one.input_hw[1]} | {scores} | '
                     f'{one.apart:.3f} | {one.ratio:.3f} | {", ".join(one.fronts)} |')
    return '\n'.join(lines)


def main() -> None:
    """Train what is missing, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.strip().partition('\n')[0])
    parser.add_argument('--data', type=Path, required=True)
    parser.add_argument('--runs', type=Path, required=True, help='folder for runs and models')
    parser.add_argument('--widths', nargs='+', default=WIDTHS, choices=sorted(PRESETS))
    parser.add_argument('--images', type=at_least(1), default=1600,
                        help='views per epoch (%(default)s)')
    parser.add_argument('--epochs', type=at_least(1), nargs=2, default=(8, 2),
                        help='of small inputs, then at the deployed size (%(default)s)')
    parser.add_argument('--seeds', type=int, nargs='+', default=(7, 8),
                        help='each of them trains all networks once (%(default)s)')
    parser.add_argument('--threads', type=at_least(1), default=2, help='CPU threads (%(default)s)')
    parser.add_argument('--count', type=at_least(1), default=100, help='timed runs (%(default)s)')
    parser.add_argument('--json', type=machine.output_file)
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    candidates = [Candidate(width, size) for width in options.widths for size in SIZES]
    models = {}
    for seed in options.seeds:  # the outer loop: a study that is stopped has whole seeds behind it
        schedule = Schedule(options.images, tuple(options.epochs), seed)
        models = {one.name: model_of(one, options.runs, options.data, schedule)
                  for one in candidates}
    original = options.runs / 'original.tflite'
    if not original.is_file():
        command('training.quantize', '--untrained', 'original', '--output', original)
    times = measure({**models, 'original': original}, options.count, options.threads)
    for one in candidates:
        one.median_ms = times[one.name]
        one.ratio = times[one.name] / times['original']
    mark_fronts(candidates)
    sys.stdout.write(table(candidates) + '\n')
    if options.json:
        options.json.write_text(json.dumps({
            'machine': machine.description(), 'threads': options.threads,
            'images_per_epoch': options.images, 'epochs': list(options.epochs),
            'original_ms': times['original'],
            'candidates': [{**dataclasses.asdict(one), 'iou': one.iou, 'apart': one.apart}
                           for one in candidates]}, indent=2) + '\n')


if __name__ == '__main__':
    main()
