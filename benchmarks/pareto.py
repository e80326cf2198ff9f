"""
Accuracy against time: several widths and input sizes, all trained on one equal, short schedule.

    python benchmarks/pareto.py --data FOLDER --runs FOLDER --json FILE --plot FILE

Each network is trained (``training.train``), quantized and scored on validation data
(``training.quantize``) by the commands that a user would type; then the int8 models and the
untrained ``original`` network take turns on the CPU. Everything that is there already in the runs'
folder is taken as it is, so a stopped study goes on where it was. The schedule is far too short
for good masks: what counts is the order.
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
BASE = Path(__file__).parents[1] / 'training' / 'configs' / 'road_256x512.py'


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


def schedule(candidate: Candidate, images: int, epochs: tuple[int, int]) -> Config:
    """Return the equal, short schedule: small inputs first, then the deployed size."""
    base = load_config(BASE)
    return dataclasses.replace(
        base, architecture=PRESETS[candidate.width], images_per_epoch=images, init='',
        phases=(Phase((128, 256), epochs[0]), Phase(candidate.input_hw, epochs[1])),
        learning_rate=0.05, warmup_steps=50)


def config_text(config: Config) -> str:
    """Return a configuration file."""
    return (f'"""Written by benchmarks/pareto.py."""\n\n'
            'from training.augment import Augmentation\n'
            'from training.config import Config, Phase\n'
            f'from training.model import Architecture\n\nCONFIG = {config!r}\n')


def command(*words: object) -> None:
    """Run a module of training; its output is the user's."""
    subprocess.run([sys.executable, '-m', *map(str, words)], check=True)


def train(candidate: Candidate, runs: Path, data: Path, config: Config) -> Path:
    """Train, quantize and score one network; return the model."""
    model = runs / f'{candidate.name}.tflite'
    if not model.is_file():
        path = runs / f'{candidate.name}.py'
        path.write_text(config_text(config))
        command('training.train', '--config', path, '--data', data, '--run',
                runs / candidate.name)
        command('training.quantize', '--run', runs / candidate.name, '--data', data, '--output',
                model, '--score', *config.validate)
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


def plot(candidates: list[Candidate], path: Path) -> None:
    """Draw mean road IoU over time, a line for each width."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(7, 4.2))
    axes = figure.add_subplot()
    for width in dict.fromkeys(one.width for one in candidates):
        line = [one for one in candidates if one.width == width]
        axes.plot([one.ratio for one in line], [one.mean_iou for one in line], marker='o',
                  label=width)
        for one in line:
            axes.annotate(f'{one.input_hw[0]}', (one.ratio, one.mean_iou), fontsize=8,
                          xytext=(3, -10), textcoords='offset points')
    front = sorted((one for one in candidates if one.on_front), key=lambda one: one.ratio)
    axes.plot([one.ratio for one in front], [one.mean_iou for one in front], color='0.6',
              linestyle='--', zorder=0, label='front')
    axes.set(xlabel="CPU time, share of the original's at 256x512 (log)", xscale='log',
             ylabel='mean validation road IoU, int8')
    axes.set_xticks([0.05, 0.1, 0.2, 0.4], ['0.05', '0.1', '0.2', '0.4'])
    axes.minorticks_off()
    axes.grid(color='0.9')
    axes.legend(fontsize=8, loc='lower right')
    figure.savefig(path, dpi=110, bbox_inches='tight')


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
    parser.add_argument('--epochs', type=int, nargs=2, default=(2, 1),
                        help='at 128x256, then at the deployed size (%(default)s)')
    parser.add_argument('--threads', type=int, default=2, help='CPU threads (%(default)s)')
    parser.add_argument('--count', type=int, default=100, help='timed runs (%(default)s)')
    parser.add_argument('--json', type=Path)
    parser.add_argument('--plot', type=Path)
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    candidates = [Candidate(width, size) for width in options.widths for size in SIZES]
    models = {one.name: train(one, options.runs, options.data,
                              schedule(one, options.images, tuple(options.epochs)))
              for one in candidates}
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
    if options.plot:
        plot(candidates, options.plot)


if __name__ == '__main__':
    main()
