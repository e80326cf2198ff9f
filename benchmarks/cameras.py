"""
Several cameras in one process beside as many processes; and what size and classes cost.

    python benchmarks/cameras.py --cameras 1 2 4 8 --rate 30 --json cameras.json
    python benchmarks/cameras.py --rates 60 5          # a fast camera beside a slow one
    python benchmarks/cameras.py --host                # no ROS: image size and classes
    python benchmarks/cameras.py --turns               # no ROS: frames under way at the engine

One process publishes the frames of all cameras, this one counts the masks; what is compared is
the segmenters between them: one ``cameras`` process, or a ``segmenter`` process for each camera.
Windows alternate. CPU time and memory (proportional set size) are the segmenters'.

``--host``: the same ``Segmenter`` as in the node behind an engine that answers at once with smooth
scores, so that only the host's part is timed: preprocessing, and scores to labels and mask.

``--turns``: four threads that always have a frame share an engine; one, two or three frames may be
chosen at a time. ``wait_ms`` is from the choice of a frame to its result: it grows old that long.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import machine
import numpy as np
import numpy.typing as npt
from nodes import Tool, choose_domain, clean_environment, quantile
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from bisenet_ros.core import shared
from bisenet_ros.core.console import at_least
from bisenet_ros.core.contract import ModelContract, palette
from bisenet_ros.core.drive import RenderedDrive
from bisenet_ros.core.engine import TensorSpec
from bisenet_ros.core.postprocess import Wanted
from bisenet_ros.core.segmenter import Segmenter, Settings
from bisenet_ros.transport import transport_environment

WAYS = ('one process', 'a process each')

START_S = 60.0

SETTLE_S = 1.0

SIZES_WH = ((640, 480), (1280, 720), (1920, 1080))
CLASSES = (2, 19, 150)


# -- processes -----------------------------------------------------------------------------------


class Program(Tool):
    """A node's process, its words and parameters given whole."""

    def __init__(
        self, words: Sequence[str], parameters: Mapping[str, object],
        environment: Mapping[str, str], namespace: str = '',
    ) -> None:
        command = [sys.executable, *words, '--ros-args', '--log-level', 'error']
        for key, value in parameters.items():
            command += ['-p', f'{key}:={value}']
        if namespace:
            command += ['-r', f'__ns:={namespace}']
        self.started_s = time.monotonic()
        self._process = subprocess.Popen(
            command, env={**clean_environment(), **environment}, stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)

    def pss_mb(self) -> float:
        """Return its memory; what several share counts in equal parts (10**6 bytes)."""
        for line in Path(f'/proc/{self.pid}/smaps_rollup').read_text().splitlines():
            if line.startswith('Pss:'):
                return int(line.split()[1]) * 1024e-6
        return 0.0


class MaskCounter:
    """A node that keeps the latency of every mask, by camera."""

    def __init__(self, count: int) -> None:
        self._context = Context()
        self._context.init()
        self._node = Node('benchmark_counter', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self.latencies_s: list[list[float]] = [[] for _ in range(count)]
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        for index in range(count):
            self._node.create_subscription(
                Image, f'/c{index}/segmenter/mask', self._keeper(index), qos)

    def _keeper(self, index: int) -> Any:
        def keep(message: Image) -> None:
            stamp = message.header.stamp
            self.latencies_s[index].append(time.time() - stamp.sec - stamp.nanosec * 1e-9)

        return keep

    def spin_for(self, duration_s: float) -> None:
        deadline_s = time.monotonic() + duration_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left_s)

    def wait_for_all(self) -> None:
        deadline_s = time.monotonic() + START_S
        while not all(self.latencies_s):
            if time.monotonic() > deadline_s:
                raise RuntimeError(f'not every camera has a mask within {START_S:g} s')
            self._executor.spin_once(timeout_sec=0.1)

    def forget(self) -> None:
        for latencies in self.latencies_s:
            latencies.clear()

    def close(self) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()


def segmenters(way: str, count: int, environment: Mapping[str, str]) -> list[Program]:
    """Start what is measured."""
    if way == WAYS[0]:
        names = ', '.join(f'c{index}' for index in range(count))
        return [Program(['-m', 'bisenet_ros.cameras'], {'cameras': f'[{names}]'}, environment)]
    return [Program(['-m', 'bisenet_ros.segmenter'], {}, environment, f'/c{index}')
            for index in range(count)]


def window(
    way: str, rates_hz: Sequence[float], size_wh: tuple[int, int], seconds: float,
) -> dict[str, Any]:
    """Start everything, measure for some seconds, end everything."""
    environment = transport_environment(os.environ)
    count = len(rates_hz)
    counter = MaskCounter(count)
    programs = segmenters(way, count, environment)
    rig = Program([str(Path(__file__).with_name('camera_rig.py'))],
                  {'rates_hz': [float(rate) for rate in rates_hz], 'size': list(size_wh)},
                  environment)
    try:
        counter.wait_for_all()
        counter.spin_for(SETTLE_S)
        counter.forget()
        cpu_s, begun_s = sum(program.cpu_s() for program in programs), time.monotonic()
        counter.spin_for(seconds)
        took_s = time.monotonic() - begun_s
        cpu_s = sum(program.cpu_s() for program in programs) - cpu_s
        memory_mb = sum(program.pss_mb() for program in programs)
    finally:
        rig.stop()
        codes = [program.stop() for program in programs]
        counter.close()
    if any(codes):
        raise RuntimeError(f'exit codes {codes}, expected 0')
    hz = [len(latencies) / took_s for latencies in counter.latencies_s]
    latencies = [value for values in counter.latencies_s for value in values]
    return {
        'masks_hz': sum(hz), 'each_hz': hz, 'min_over_max': min(hz) / max(hz), 'jain': jain(hz),
        'p50_ms': quantile(latencies, 0.5) * 1e3, 'p95_ms': quantile(latencies, 0.95) * 1e3,
        'cores': cpu_s / took_s, 'cpu_ms_per_mask': cpu_s / len(latencies) * 1e3,
        'memory_mb': memory_mb}


def jain(rates: Sequence[float]) -> float:
    """Return Jain's index: 1 if all get the same, 1/n if one gets everything."""
    squares = len(rates) * sum(rate**2 for rate in rates)
    return sum(rates)**2 / squares if squares else 0.0


def compare(
    rigs: Sequence[Sequence[float]], size_wh: tuple[int, int], seconds: float, rounds: int,
) -> list[dict[str, Any]]:
    """Measure every rig both ways, by turns; return medians over the rounds."""
    found: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for number in range(rounds):
        for index, rates_hz in enumerate(rigs):
            for way in WAYS if (number + index) % 2 == 0 else WAYS[::-1]:
                result = window(way, rates_hz, size_wh, seconds)
                found.setdefault((index, way), []).append(result)
                sys.stderr.write(f'{len(rates_hz)} {way}: {result["masks_hz"]:.1f} masks/s\n')
    rows = []
    for (index, way), results in sorted(found.items(), key=lambda item: item[0][0]):
        medians = {key: statistics.median(result[key] for result in results)
                   for key in results[0] if key != 'each_hz'}
        each = [statistics.median(rates) for rates in zip(
            *(result['each_hz'] for result in results), strict=True)]
        rows.append({'cameras': len(rigs[index]), 'camera_hz': list(rigs[index]),
                     'size': list(size_wh), 'way': way, **medians, 'each_hz': each,
                     'windows': len(results)})
    return rows


# -- the host's part -----------------------------------------------------------------------------


class Answer:
    """An engine that answers at once, with smooth scores of so many classes."""

    device = 'none'
    input = TensorSpec('image', (1, 256, 512, 3), np.dtype(np.uint8), 1 / 255, 0)

    def __init__(self, classes: int) -> None:
        self.output = TensorSpec('scores', (1, 32, 64, classes), np.dtype(np.int8), 0.1, 0)
        rng = np.random.default_rng(0)
        # Regions of about a sixth of the image's height, as in a street: neither noise, where
        # every pixel is an edge, nor one class.
        coarse = rng.normal(0, 40, (classes, 6, 12)).astype(np.float32)
        self._scores = np.ascontiguousarray(np.stack(
            [cv2.resize(plane, (64, 32), interpolation=cv2.INTER_CUBIC) for plane in coarse],
            -1).clip(-128, 127).astype(np.int8))

    def run(self, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the scores."""
        return self._scores

    def close(self) -> None:
        """Do nothing."""


def host(seconds: float) -> list[dict[str, Any]]:
    """Time the host's part for sizes and classes, by turns."""
    wanted = {'mask': Wanted(mask=True), 'labels': Wanted(labels=True),
              'labels and confidence': Wanted(labels=True, confidence=True)}
    segmenters = {}
    for classes in CLASSES:
        names = ('background', 'road', *(f'class{index}' for index in range(2, classes)))
        segmenters[classes] = Segmenter(Answer(classes), ModelContract(
            input_hw=(256, 512), channels='rgb', input_scale=(1 / 255,) * 3,
            input_mean=(0.0,) * 3, output_kind='logits', output_stride=8, class_names=names,
            class_colors_rgb=palette(classes)), Settings(mask_classes=('road',)))
    frames = {size: RenderedDrive(size, 0).frame(1.0)[0] for size in SIZES_WH}
    cases = [(size, classes, name) for size in SIZES_WH for classes in CLASSES for name in wanted]
    times: dict[Any, list[Any]] = {case: [] for case in cases}
    started_s = time.monotonic()
    while time.monotonic() - started_s < seconds or len(times[cases[0]]) < 4:
        for case in cases:
            size, classes, name = case
            times[case].append(segmenters[classes].segment(
                frames[size], channels='bgr', wanted=wanted[name]).timings)
    base = statistics.median(timing.postprocess for timing in times[cases[0]][1:])
    rows = []
    for size, classes, name in cases:
        kept = times[size, classes, name][1:]
        after = statistics.median(timing.postprocess for timing in kept)
        rows.append({
            'size': f'{size[0]}x{size[1]}', 'classes': classes, 'outputs': name,
            'preprocess_ms': statistics.median(timing.preprocess for timing in kept) * 1e3,
            'postprocess_ms': after * 1e3, 'ratio': after / base, 'runs': len(kept)})
    return rows


# -- turns at the engine -------------------------------------------------------------------------


def turns(seconds: float) -> list[dict[str, Any]]:
    """Time frames that four share an engine for, 1, 2 or 3 of them under way, by turns."""
    rgb = RenderedDrive((1280, 720), 0).frame(1.0)[0]
    jpeg = cv2.imencode('.jpg', rgb)[1]
    sources = {'raw': lambda: rgb, 'jpeg': lambda: cv2.imdecode(jpeg, cv2.IMREAD_COLOR)}
    found: dict[tuple[str, int], list[tuple[float, list[float]]]] = {}
    for number in range(3):
        for name, read in sources.items():
            for places in (1, 2, 3) if number % 2 == 0 else (3, 2, 1):
                found.setdefault((name, places), []).append(
                    _share(read, places, seconds / 18))
    return [{'frames': name, 'under_way': places,
             'masks_hz': statistics.median(rate for rate, _ in results),
             'wait_ms': statistics.median(
                 value for _, waits in results for value in waits) * 1e3}
            for (name, places), results in found.items()]


def _share(
    read: Callable[[], npt.NDArray[np.uint8]], places: int, seconds: float,
) -> tuple[float, list[float]]:
    """Return masks per second and how long each was under way."""
    shared.FRAMES_UNDER_WAY = places
    pool, waits = shared.EnginePool(), list[float]()
    segmenters = [Segmenter.load(device='cpu', opener=pool.open) for _ in range(4)]
    for segmenter in segmenters:  # not counted: the first frame's memory
        segmenter.segment(read(), wanted=Wanted(mask=True))
    begin_s = time.monotonic()
    until_s = begin_s + seconds

    def work(segmenter: Segmenter) -> None:
        while time.monotonic() < until_s:
            with segmenter.turn:
                begun_s = time.monotonic()
                segmenter.segment(read(), wanted=Wanted(mask=True))
                waits.append(time.monotonic() - begun_s)

    threads = [threading.Thread(target=work, args=(segmenter,)) for segmenter in segmenters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken_s = time.monotonic() - begin_s
    pool.close()
    return len(waits) / taken_s, waits


# -- the report ----------------------------------------------------------------------------------


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows as Markdown."""
    def cell(value: Any) -> str:
        if isinstance(value, float):
            return f'{value:.2f}'
        return ' '.join(map(cell, value)) if isinstance(value, list) else str(value)

    lines = [f'| {" | ".join(rows[0])} |', f'|{"---|" * len(rows[0])}']
    lines += [f'| {" | ".join(cell(value) for value in row.values())} |' for row in rows]
    return '\n'.join(lines)


def main() -> int:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.strip().partition('\n')[0])
    parser.add_argument('--cameras', type=at_least(1), nargs='+', default=[],
                        help='numbers of cameras')
    parser.add_argument('--rate', type=float, default=30.0, help='of each (%(default)s Hz)')
    parser.add_argument('--rates', type=float, nargs='+', default=[],
                        help='of cameras that are not equal')
    parser.add_argument('--size', default='640x480', help='of the frames (%(default)s)')
    parser.add_argument('--host', action='store_true', help='the host\'s part alone, without ROS')
    parser.add_argument('--turns', action='store_true', help='frames under way, without ROS')
    parser.add_argument('--seconds', type=float, default=5.0,
                        help='of each window (%(default)s); with --host or --turns of everything')
    parser.add_argument('--rounds', type=at_least(1), default=3,
                        help='windows of each (%(default)s)')
    parser.add_argument('--json', type=machine.output_file,
                        help='write the figures there, behind those in it')
    args = parser.parse_args()
    if not (args.cameras or args.rates or args.host or args.turns):
        parser.error('expected --cameras, --rates, --host or --turns')
    width, height = (int(side) for side in args.size.split('x'))
    described = machine.description()
    sys.stdout.write(f'{machine.text(described)}\n')
    if args.host:
        kind, rows = 'host', host(args.seconds)
    elif args.turns:
        kind, rows = 'turns', turns(args.seconds)
    else:
        choose_domain()
        rigs = [args.rates] if args.rates else [[args.rate] * count for count in args.cameras]
        kind, rows = 'cameras', compare(rigs, (width, height), args.seconds, args.rounds)
    sys.stdout.write(f'\n{table(rows)}\n')
    if args.json:
        found = json.loads(args.json.read_text()) if args.json.exists() else []
        found.append({'kind': kind, 'command': ' '.join(['benchmarks/cameras.py', *sys.argv[1:]]),
                      'machine': described, 'rows': rows})
        args.json.write_text(json.dumps(found, indent=1) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
