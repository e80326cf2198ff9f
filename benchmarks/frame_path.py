"""
Where the time of one frame goes: from the image callback's entry to the last publish's return.

    python -m training.quantize --untrained original --output original.tflite
    python benchmarks/frame_path.py --reference original.tflite --json frame_path.json

Drives the real node, in this process, with ready messages; a subscriber in another process takes
what it publishes. All sizes, encodings and sets of outputs take turns, and so does the reference's
invocation, so that a busy machine is unfair to none. Every stage is timed where the node calls it;
``hand over`` is from the callback to the worker's thread, ``rest`` what no stage claims.
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
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import machine
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.parameter import Parameter
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from bisenet_ros import conversions
from bisenet_ros.core import engine as engine_module
from bisenet_ros.core import outputs, postprocess, preprocess
from bisenet_ros.core.console import at_least
from bisenet_ros.core.drive import RenderedDrive
from bisenet_ros.core.engine import LiteRtEngine
from bisenet_ros.core.segmenter import SHIPPED_MODEL
from bisenet_ros.segmenter import SegmenterNode
from bisenet_ros.transport import transport_environment

SIZES = ((640, 480), (1280, 720), (1920, 1080))

#: What arrives, and how it is read.
INPUTS = ('bgr8', 'rgb8', 'jpeg')

#: What somebody listens to.
OUTPUT_SETS = {
    'mask': ('mask',), 'labels + confidence': ('labels', 'confidence'),
    'all': tuple(outputs.ENCODINGS)}

#: In the order in which a frame meets them.
STAGES = ('hand over', 'decode', 'resize', 'colour', 'values', 'copy in', 'invoke', 'copy out',
          'upsample', 'decide', 'paint', 'message', 'publish', 'rest')

TARGET = 0.15

START_S = 20.0
END_S = 5.0

Case = tuple[tuple[int, int], str, str]


class Stopwatch:
    """
    Seconds by stage; a stage inside another takes its time out of it.

    For one thread at a time.

    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.last_publish_s = 0.0
        self._inner_s = [0.0]

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with its time counted."""
        clock, seconds, inner_s = time.perf_counter, self.seconds, self._inner_s

        def call(*args: Any, **kwargs: Any) -> Any:
            inner_s.append(0.0)
            started_s = clock()
            try:
                return function(*args, **kwargs)
            finally:
                took_s = clock() - started_s
                seconds[name] += took_s - inner_s.pop()
                inner_s[-1] += took_s

        return call

    def watch(self, owner: Any, **stages: str) -> None:
        """Count functions of a module, class or object by their names."""
        for name, stage in stages.items():
            setattr(owner, name, self.timed(stage, getattr(owner, name)))

    def watched_cv2(self, **stages: str) -> ModuleType:
        """Return a ``cv2`` of a module's own, some of its functions counted."""
        own = ModuleType('cv2')
        own.__dict__.update(cv2.__dict__)
        self.watch(own, **stages)
        return own

    def reset(self) -> None:
        self.seconds.clear()
        self._inner_s[:] = [0.0]


class WatchedInterpreter:
    """What ``LiteRtEngine`` calls of an interpreter, counted."""

    def __init__(self, interpreter: Any, watch: Stopwatch) -> None:
        self._interpreter = interpreter
        self.set_tensor = watch.timed('copy in', interpreter.set_tensor)
        self.invoke = watch.timed('invoke', interpreter.invoke)
        self.get_tensor = watch.timed('copy out', interpreter.get_tensor)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._interpreter, name)


class FramePath:
    """The node on a model, its stages counted, and a subscriber to all it says."""

    def __init__(self, model: Path, threads: int) -> None:
        self.watch = Stopwatch()
        self._done = threading.Event()
        self._listened: list[Any] = []
        self._entered_s = 0.0
        self._instrument()
        rclpy.init()
        self._node = SegmenterNode(parameter_overrides=[
            Parameter('model', value=str(model)), Parameter('device', value='cpu'),
            Parameter('num_threads', value=threads)])
        self._node.begin()
        self._node._segmenter.engine._interpreter = WatchedInterpreter(
            self._node._segmenter.engine._interpreter, self.watch)
        self._outputs = dict(self._node._outputs)
        for output in self._outputs.values():
            output.publish = self._published(output.publish)
        self._subscriber = subprocess.Popen(
            [sys.executable, __file__, '--subscriber'], stdin=subprocess.DEVNULL)
        deadline_s = time.monotonic() + START_S
        while not all(output.get_subscription_count() for output in self._outputs.values()):
            if time.monotonic() > deadline_s:
                self.close()
                raise RuntimeError(f'the subscriber did not subscribe within {START_S:g} s')
            time.sleep(0.05)

    def _instrument(self) -> None:
        watch = self.watch
        preprocess.cv2 = watch.watched_cv2(resize='resize', cvtColor='colour', LUT='values')
        postprocess.cv2 = watch.watched_cv2(resize='upsample')
        watch.watch(postprocess.ScoreDecoder, decide='decide')
        watch.watch(postprocess, expand='decide')
        watch.watch(outputs.OutputPainter, paint='paint')
        watch.watch(conversions.ImageBuffer, pixels='message', message='message')
        process, done = SegmenterNode._process, self._done

        def processed(node: SegmenterNode, item: Any) -> None:
            self.watch.seconds['hand over'] = time.perf_counter() - self._entered_s
            try:
                process(node, item)
            finally:
                done.set()

        SegmenterNode._process = processed

    def _published(self, publish: Callable[[Any], None]) -> Callable[[Any], None]:
        timed = self.watch.timed('publish', publish)

        def call(message: Any) -> None:
            timed(message)
            self.watch.last_publish_s = time.perf_counter()
            self._listened.append(message)

        return call

    def run(self, message: Any, names: Sequence[str]) -> dict[str, float]:
        """Take one frame; return its seconds by stage, ``total`` and ``serialise alone``."""
        kind = 'compressed' if isinstance(message, CompressedImage) else 'raw'
        self._node._read_frame = self.watch.timed('decode', conversions.TRANSPORTS[kind][1])
        self._node._outputs = {name: self._outputs[name] for name in names}
        self._listened.clear()
        self.watch.reset()
        self._done.clear()
        self._entered_s = time.perf_counter()
        self._node._on_image(message)
        if not self._done.wait(START_S):
            raise RuntimeError(f'no answer within {START_S:g} s')
        if len(self._listened) != len(names):
            raise RuntimeError(f'{len(self._listened)} messages published of {len(names)}')
        seconds = dict(self.watch.seconds)
        seconds['total'] = self.watch.last_publish_s - self._entered_s
        seconds['rest'] = seconds['total'] - sum(self.watch.seconds.values())
        serialising_s = time.perf_counter()
        for published in self._listened:
            serialize_message(published)
        seconds['serialise alone'] = time.perf_counter() - serialising_s
        return seconds

    def close(self) -> None:
        self._subscriber.terminate()
        try:
            self._subscriber.wait(END_S)
        except subprocess.TimeoutExpired:  # a signal amid its start may pass unheard
            self._subscriber.kill()
            self._subscriber.wait()
        self._node._outputs = self._outputs
        self._node.end()
        self._node.destroy_node()
        rclpy.try_shutdown()


def subscriber() -> None:
    """Take every output until terminated."""
    rclpy.init()
    node = rclpy.create_node('frame_path_subscriber')
    for name in outputs.ENCODINGS:
        node.create_subscription(Image, f'/segmenter/{name}', lambda message: None, 1)
    with suppress(ExternalShutdownException):
        rclpy.spin(node)


def camera_message(size_wh: tuple[int, int], encoding: str) -> Image | CompressedImage:
    """Return a rendered road as a camera sends it."""
    rgb, _ = RenderedDrive(size_wh).frame(1.0)
    if encoding == 'rgb8':
        return conversions.image_message(rgb, 'rgb8', Header())
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    if encoding == 'bgr8':
        return conversions.image_message(bgr, 'bgr8', Header())
    message = CompressedImage(format='jpeg')
    message.data = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
    return message


def measure(
    model: Path, reference: Path | None, cases: Sequence[Case], count: int, threads: int,
) -> tuple[dict[Case, list[dict[str, float]]], list[float]]:
    """Return every frame's seconds by case, and the reference's invocations' seconds."""
    other = LiteRtEngine(reference, threads) if reference else None
    path = FramePath(model, threads)
    frames: dict[Case, list[dict[str, float]]] = {case: [] for case in cases}
    reference_s: list[float] = []
    try:
        messages = {case: camera_message(*case[:2]) for case in cases}
        for index in range(-3, count):  # three rounds of warm-up
            # Turn the order round every time: nobody always runs behind the same other.
            for case in cases if index % 2 else reversed(cases):
                # Twice: a camera does not change its size, and with it all memory, every frame.
                for _ in range(2):
                    seconds = path.run(messages[case], OUTPUT_SETS[case[2]])
                    time.sleep(0.002)  # the subscriber's turn
                if index >= 0:
                    frames[case].append(seconds)
                if other is not None and case[2] == 'mask':
                    started_s = time.perf_counter()
                    other._interpreter.invoke()
                    if index >= 0:
                        reference_s.append(time.perf_counter() - started_s)
    finally:
        path.close()
    return frames, reference_s


def medians_ms(frames: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of every stage, of ``total`` and of ``host``: all but invoke."""
    names = [*STAGES, 'total', 'serialise alone']
    figures = {name: statistics.median(frame.get(name, 0.0) for frame in frames) * 1e3
               for name in names}
    figures['host'] = statistics.median(
        frame['total'] - frame['invoke'] for frame in frames) * 1e3
    return figures


def table(encoding: str, name: str, columns: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return the lines of one encoding and set of outputs; a column for each frame size."""
    lines = [f'{encoding} in, {name} out',
             f'{"  ms (share of the frame)":26}' + ''.join(f'{size:>17}' for size in columns)]
    for stage in (*STAGES, 'total', 'host', 'serialise alone'):
        cells = [(figures[stage], figures[stage] / figures['total'])
                 for figures in columns.values()]
        if any(round(value, 3) for value, _ in cells):
            lines.append(f'  {stage:24}' + ''.join(
                f'{value:10.3f} {share:5.1%} ' for value, share in cells))
    return lines


def main() -> int:
    """Measure and print; exit code 1 if the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.strip().partition('\n')[0])
    parser.add_argument('--model', type=Path, default=SHIPPED_MODEL)
    parser.add_argument('--reference', type=Path,
                        help='the original network: python -m training.quantize --untrained '
                             'original --output original.tflite')
    parser.add_argument('--count', type=at_least(1), default=50,
                        help='frames per case (%(default)s)')
    parser.add_argument('--threads', type=int, default=0, help='num_threads (%(default)s)')
    parser.add_argument('--sizes', nargs='+', default=['x'.join(map(str, wh)) for wh in SIZES],
                        metavar='WxH', help='frame sizes (%(default)s)')
    parser.add_argument('--inputs', nargs='+', default=INPUTS, choices=INPUTS)
    parser.add_argument('--outputs', nargs='+', default=list(OUTPUT_SETS),
                        choices=list(OUTPUT_SETS))
    parser.add_argument('--json', type=machine.output_file, help='write the figures there, too')
    parser.add_argument('--subscriber', action='store_true', help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.subscriber:
        subscriber()
        return 0
    os.environ.update(transport_environment(os.environ))
    sizes = [tuple(int(side) for side in text.split('x')) for text in options.sizes]
    cases: list[Case] = [(size, encoding, name) for size in sizes for encoding in options.inputs
                         for name in options.outputs]
    frames, reference_s = measure(
        options.model, options.reference, cases, options.count, options.threads)
    figures = {case: medians_ms(frames[case]) for case in cases}
    threads = options.threads or engine_module.automatic_threads()
    described = machine.description()
    lines = [machine.text(described),
             f'{options.model.name}, {threads} threads, medians of {options.count} interleaved '
             'frames each']
    for encoding in options.inputs:
        for name in options.outputs:
            lines += ['', *table(encoding, name, {
                f'{size[0]}x{size[1]}': figures[size, encoding, name] for size in sizes})]
    report: dict[str, Any] = {
        'machine': described, 'model': options.model.name, 'threads': threads,
        'count': options.count, 'milliseconds': [
            {'size': list(size), 'input': encoding, 'outputs': name,
             **figures[size, encoding, name]} for size, encoding, name in cases]}
    status = 0
    judged: Case = ((1280, 720), 'bgr8', 'mask')
    if reference_s:
        reference_ms = statistics.median(reference_s) * 1e3
        report['reference'] = {'model': options.reference.name, 'invoke_ms': reference_ms}
        lines += ['', f'reference {options.reference.name}: invoke {reference_ms:.3f} ms']
        if judged in figures:
            ratio = figures[judged]['host'] / reference_ms
            report['host_to_reference_invoke'] = ratio
            lines.append(f'everything but invoke / reference invoke, 1280x720 bgr8, mask: '
                         f'{ratio:.3f} (target at most {TARGET})')
            status = 0 if ratio <= TARGET else 1
    sys.stdout.write('\n'.join(lines) + '\n')
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + '\n')
    return status


if __name__ == '__main__':
    sys.exit(main())
