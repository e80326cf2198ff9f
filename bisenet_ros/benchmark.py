"""
Time a model on one or several devices, or two models against each other.

    python -m bisenet_ros.benchmark --device cpu
    python -m bisenet_ros.benchmark --model a.tflite --compare b.tflite --threads 2 --json out.json

Runs of everything that is compared are interleaved, so that a busy or throttling machine slows all
alike: trust the ratios more than the milliseconds. Needs no ROS.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bisenet_ros.core import console
from bisenet_ros.core.contract import contract_path
from bisenet_ros.core.drive import RenderedDrive
from bisenet_ros.core.engine import Engine, LiteRtEngine, check_device
from bisenet_ros.core.errors import DeviceError, ModelError, SettingsError
from bisenet_ros.core.output_files import OutputError, check_apart, check_writable, write_text
from bisenet_ros.core.postprocess import Wanted
from bisenet_ros.core.segmenter import SHIPPED_MODEL, Segmenter, Settings, model_path


@dataclasses.dataclass(frozen=True)
class Summary:
    """Times of one thing; milliseconds but for ``fps`` (1 / mean) and ``count``."""

    count: int
    mean: float
    stdev: float
    min: float
    p50: float
    p95: float
    p99: float
    max: float
    fps: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Summary:
        """Summarise times in seconds; at least one."""
        times = np.asarray(seconds) * 1e3
        mean = float(times.mean())
        return cls(
            len(times), mean, float(times.std(ddof=1)) if len(times) > 1 else 0.0,
            float(times.min()), *np.percentile(times, (50, 95, 99)).tolist(), float(times.max()),
            1e3 / mean)

    def __str__(self) -> str:
        return (f'{self.mean:8.2f} {self.stdev:7.2f} {self.min:8.2f} {self.p50:8.2f} '
                f'{self.p95:8.2f} {self.p99:8.2f} {self.max:8.2f} {self.fps:8.1f}')


HEADER = (f'{"":<44}{"mean":>8} {"stdev":>7} {"min":>8} {"p50":>8} {"p95":>8} {"p99":>8} '
          f'{"max":>8} {"FPS":>8}')


class Contestant:
    """
    One model on one device, with the times it took.

    ``invoke``: the network alone, input and output copies included. ``frame``: a camera frame to
    a full-size mask.

    """

    def __init__(self, name: str, engine: Engine, segmenter: Segmenter | None) -> None:
        self.name, self.engine, self.segmenter = name, engine, segmenter
        rng = np.random.default_rng(0)
        limits = np.iinfo(engine.input.dtype)
        self._image = rng.integers(
            limits.min, limits.max + 1, engine.input.shape[1:], engine.input.dtype)
        self.times: dict[str, list[float]] = {'invoke': []}
        if segmenter is not None:
            self.times |= {'frame': [], 'host part of frame': []}

    def run(self, frame_rgb: np.ndarray, record: bool) -> None:
        """Run once."""
        started = time.perf_counter()
        self.engine.run(self._image)
        invoke_s = time.perf_counter() - started
        if record:
            self.times['invoke'].append(invoke_s)
        if self.segmenter is not None:
            timings = self.segmenter.segment(
                frame_rgb, wanted=Wanted(labels=False, mask=True)).timings
            if record:
                self.times['frame'].append(timings.total)
                self.times['host part of frame'].append(
                    timings.preprocess + timings.postprocess)

    def summaries(self) -> dict[str, Summary]:
        return {stage: Summary.of(times) for stage, times in self.times.items()}


def names_of(models: Sequence[Path]) -> list[str]:
    """Return the models' file names; where two have the same, their paths, numbered if need be."""
    names = [model.name for model in models]
    if len(set(names)) < len(names):
        names = [str(model) for model in models]
    return [name if name not in names[:index] else f'{name} ({names[:index].count(name) + 1})'
            for index, name in enumerate(names)]


def open_contestants(
    models: Sequence[Path], devices: Sequence[str], threads: int,
) -> list[Contestant]:
    """
    Load every model on every device.

    A model whose classes are not known (no contract) is timed without the host's part.

    """
    contestants = []
    for model, model_name in zip(models, names_of(models), strict=True):
        for device in devices:
            check_device(device)
            name = f'{model_name} on {device}'
            try:
                segmenter = Segmenter.load(model, device=device, num_threads=threads)
            except ModelError as error:
                engine = LiteRtEngine(model, threads, 'cpu' if device == 'auto' else device)
                print(f'{name}: the network alone is timed ({error})', file=sys.stderr)
                contestants.append(Contestant(name, engine, None))
            else:
                # Which class a mask marks costs nothing: any has the second one.
                segmenter.settings = Settings(mask_classes=segmenter.contract.class_names[1:2])
                contestants.append(Contestant(name, segmenter.engine, segmenter))
    return contestants


def measure(
    contestants: Sequence[Contestant], count: int, warm_up: int, size_wh: tuple[int, int],
) -> dict[str, list[float]]:
    """Run all contestants in turn; return the first runs' seconds, which are kept apart."""
    frame_rgb, _ = RenderedDrive(size_wh).frame(0.0)
    first = {contestant.name: [] for contestant in contestants}
    for contestant in contestants:
        for _ in range(warm_up):
            started = time.perf_counter()
            contestant.run(frame_rgb, record=False)
            first[contestant.name].append(time.perf_counter() - started)
    for index in range(count):
        # Turn the order round every time: nobody always runs behind the same other.
        for contestant in contestants if index % 2 == 0 else reversed(contestants):
            contestant.run(frame_rgb, record=True)
    return first


def report(
    contestants: Sequence[Contestant], first: dict[str, list[float]], size_wh: tuple[int, int],
    threads: int,
) -> dict[str, Any]:
    """Print the table; return the same as JSON-ready values."""
    print(f'milliseconds; {len(contestants[0].times["invoke"])} interleaved runs, frames of '
          f'{size_wh[0]}x{size_wh[1]}, threads {threads or "automatic"}')
    print(HEADER)
    result: dict[str, Any] = {
        'machine': platform.platform(), 'processor': platform.processor(),
        'python': platform.python_version(), 'threads': threads, 'frame_size': list(size_wh),
        'milliseconds': {}, 'first_run_ms': {}}
    for contestant in contestants:
        print(f'{contestant.name}  (device {contestant.engine.device})')
        warm = first[contestant.name]
        if warm:
            print(f'  first run {warm[0] * 1e3:.1f} ms, of {len(warm)} to warm up')
            result['first_run_ms'][contestant.name] = warm[0] * 1e3
        summaries = contestant.summaries()
        for stage, summary in summaries.items():
            print(f'  {stage:<42}{summary}')
        result['milliseconds'][contestant.name] = {
            stage: dataclasses.asdict(summary) for stage, summary in summaries.items()}
    base = contestants[0]
    result['ratios_of_medians'] = {}
    for other in contestants[1:]:
        for stage in base.times.keys() & other.times.keys():
            ratio = float(np.median(base.times[stage]) / np.median(other.times[stage]))
            print(f'{stage}: {base.name} / {other.name} = {ratio:.3f} (medians)')
            result['ratios_of_medians'][f'{stage}: {base.name} / {other.name}'] = ratio
    return result


@console.ends_with_its_reader
def main(argv: list[str] | None = None) -> int:
    """Benchmark from the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m bisenet_ros.benchmark', description=__doc__.strip().splitlines()[0])
    parser.add_argument('--model', default=SHIPPED_MODEL,
                        help='a .tflite file, or the name of a shipped model '
                             '(default: the shipped road model)')
    parser.add_argument('--compare', nargs='+', default=[],
                        help='further models, timed in the same run')
    parser.add_argument('--device', nargs='+', default=['cpu'],
                        help='cpu, usb, usb:N, pci, pci:N; several are compared')
    parser.add_argument('--threads', type=int, default=0, help='CPU threads; 0 chooses')
    parser.add_argument('--count', type=int, default=200, help='runs (default: %(default)s)')
    parser.add_argument('--warm-up', type=int, default=10,
                        help='runs before that, not counted (default: %(default)s)')
    parser.add_argument('--size', default='1280x720', help='frame size (default: %(default)s)')
    parser.add_argument('--json', type=Path, help='also write the figures to this file')
    args = parser.parse_args(argv)
    try:
        width, height = (int(side) for side in args.size.split('x'))
    except ValueError:
        parser.error(f'--size: found {args.size!r}, expected WIDTHxHEIGHT')
    if min(width, height) < 16 or args.count < 1 or args.warm_up < 0:
        parser.error('expected --size of at least 16x16, --count of at least 1, --warm-up of 0 '
                     'or more')
    try:
        models = [model_path(model) for model in (args.model, *args.compare)]
        if args.json:
            check_apart({'--json': args.json}, [*models, *map(contract_path, models)])
            check_writable(args.json)
        contestants = open_contestants(models, args.device, args.threads)
        first = measure(contestants, args.count, args.warm_up, (width, height))
        result = report(contestants, first, (width, height), args.threads)
        if args.json:
            write_text(args.json, json.dumps(result, indent=2) + '\n')
    except (ModelError, DeviceError, SettingsError, OutputError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('interrupted; nothing was written.', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
