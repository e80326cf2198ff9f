"""
Time CPU inference: threads, a busy neighbour, kernels, input size, width, int8 beside float.

    python benchmarks/cpu_inference.py --models FOLDER --make        # once; needs .[train]
    python benchmarks/cpu_inference.py --models FOLDER threads kernels --json cpu.json
    taskset -c 0 python benchmarks/cpu_inference.py --models FOLDER threads

The networks are untrained: their time is a trained one's. What is compared runs in short blocks by
turns, and the first one of the others is the measure of the ratios. A pause before every block
lets the threads of the one before fall asleep: they spin for milliseconds when a run is over.

Parts: ``threads`` (1, 2, 4, alone and beside busy processes), ``rate`` (CPU time per frame at 30
Hz), ``kernels`` (what the runtime offers beside its default), ``start`` (to the first result, with
a weight cache), ``size``, ``width``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import machine
import numpy as np
import numpy.typing as npt

from bisenet_ros.core.drive import RenderedDrive
from bisenet_ros.core.engine import automatic_threads, find_runtime

#: Names and sizes of the networks; ``make`` says what they are.
SIZES_HW = ((128, 256), (192, 384), (256, 512))
WIDTHS = ('original', 'road', 'slim', 'slimmer')

#: So long a pool's threads may spin behind their last run.
REST_S = 0.05

#: Bits of XNNPACK's flags as tensorflow/lite/delegates/xnnpack/xnnpack_delegate.h has them.
XNNPACK_FLAGS = {
    'QS8 and QU8 alone': 0x3, 'transient indirection buffer': 0x23, 'latest operators': 0x43,
    'slinky': 0x103, 'slow consistent arithmetic': 0x203}

RATE_HZ = 30.0


def model_path(folder: Path, preset: str, input_hw: tuple[int, int], kind: str) -> Path:
    """Return where a network is: ``kind`` is int8 or float."""
    return folder / f'{preset}_{input_hw[0]}x{input_hw[1]}_{kind}.tflite'


def make(folder: Path) -> None:
    """Write every network that is missing, as int8 and as float32."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    from training.model import PRESETS, Architecture, build
    from training.quantize import quantize

    architectures = {
        'original': PRESETS['original'], 'road': PRESETS['road'],
        'slim': Architecture(detail_widths=(16, 32, 64), semantic_widths=(16, 32, 64, 96),
                             aggregation_width=64, head_width=48),
        'slimmer': Architecture(detail_widths=(8, 16, 32), semantic_widths=(8, 16, 32, 64),
                                aggregation_width=32, head_width=32)}
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [('road', size) for size in SIZES_HW] + [(name, SIZES_HW[-1]) for name in WIDTHS]
    for preset, input_hw in dict.fromkeys(wanted):
        paths = [model_path(folder, preset, input_hw, kind) for kind in ('int8', 'float')]
        if all(path.exists() for path in paths):
            continue
        model = build(architectures[preset], input_hw, batch_size=1)
        paths[0].write_bytes(quantize(model, calibration(input_hw)))
        function = tf.function(model).get_concrete_function(
            tf.TensorSpec(model.input_shape, tf.float32))
        converter = tf.lite.TFLiteConverter.from_concrete_functions(
            [convert_variables_to_constants_v2(function)])
        paths[1].write_bytes(converter.convert())
        sys.stderr.write(f'{preset} {input_hw[0]}x{input_hw[1]}: {model.count_params()} weights\n')


def calibration(input_hw: tuple[int, int]) -> Iterator[npt.NDArray[np.float32]]:
    """Yield a few frames of a rendered drive, black and white in each."""
    drive = RenderedDrive((640, 360), 0)
    for index in range(8):
        rgb = cv2.resize(drive.frame(index / 2)[0], input_hw[::-1])
        batch = rgb[None].astype(np.float32) / 255
        batch.flat[0], batch.flat[-1] = 0.0, 1.0
        yield batch


# -- what is timed -------------------------------------------------------------------------------


class Timed:
    """
    Something that runs a network, with the seconds that its runs took.

    Parameters
    ----------
    name : str
    run : callable
        Runs once and returns the output.

    """

    def __init__(self, name: str, run: Callable[[], npt.NDArray[Any]]) -> None:
        self.name, self.run = name, run
        self.seconds: list[float] = []
        self.cpu_s: list[float] = []

    def row(self, base: Timed, **more: object) -> dict[str, object]:
        """Return what the table says of it."""
        ordered = sorted(self.seconds)
        ratios = [own / other for own, other in zip(
            _block_medians(self.seconds), _block_medians(base.seconds), strict=True)]
        return {
            'name': self.name, 'p50_ms': statistics.median(ordered) * 1e3,
            'p95_ms': ordered[int(0.95 * len(ordered))] * 1e3,
            'cpu_ms': statistics.median(self.cpu_s) * 1e3,
            'ratio': statistics.median(ratios), 'runs': len(ordered), **more}


BLOCK = 8


def _block_medians(seconds: Sequence[float]) -> list[float]:
    return [statistics.median(seconds[start:start + BLOCK])
            for start in range(0, len(seconds), BLOCK)]


def interleave(timed: Sequence[Timed], budget_s: float) -> None:
    """Run all by turns, in blocks, until the time is used up; at least three blocks each."""
    started_s, round_number = time.perf_counter(), 0
    while round_number < 3 or time.perf_counter() - started_s < budget_s:
        order = timed if round_number % 2 == 0 else list(reversed(timed))
        for one in order:
            time.sleep(REST_S)
            one.run()
            one.run()
            cpu_s = time.process_time()
            for _ in range(BLOCK):
                begun_s = time.perf_counter()
                one.run()
                one.seconds.append(time.perf_counter() - begun_s)
            one.cpu_s.append((time.process_time() - cpu_s) / BLOCK)
        round_number += 1


def interpreter(
    path: Path, num_threads: int, **options: object,
) -> Callable[[], npt.NDArray[Any]]:
    """Return what runs a model once on a picture: copy in, invoke, copy out."""
    _, make_interpreter, _ = find_runtime(allow_tensorflow=False)
    loaded = make_interpreter(model_path=str(path), num_threads=num_threads, **options)
    loaded.allocate_tensors()
    (image,), (result,) = loaded.get_input_details(), loaded.get_output_details()
    frame = picture(tuple(image['shape'][1:3]), image['dtype'])

    def run() -> npt.NDArray[Any]:
        loaded.set_tensor(image['index'], frame)
        loaded.invoke()
        return loaded.get_tensor(result['index'])

    return run


def compiled(path: Path, num_threads: int, **cpu_options: object) -> Callable[[], Any]:
    """Return the same with LiteRT's newer interface, which knows more CPU options."""
    from ai_edge_litert.compiled_model import CompiledModel
    from ai_edge_litert.hardware_accelerator import HardwareAccelerator
    from ai_edge_litert.options import CpuOptions, Options

    options = Options(HardwareAccelerator.CPU, CpuOptions(num_threads=num_threads, **cpu_options))
    loaded = CompiledModel.from_file(str(path), options=options)
    images, results = loaded.create_input_buffers(0), loaded.create_output_buffers(0)
    signature = loaded.get_signature_list()
    (key,) = signature
    (shape,) = (entry['shape'] for entry in loaded.get_output_tensor_details(key).values())
    (size,) = (entry['shape'] for entry in loaded.get_input_tensor_details(key).values())
    frame = picture(tuple(size[1:3]), np.uint8)
    count = int(np.prod(shape))

    def run() -> npt.NDArray[Any]:
        images[0].write(frame)
        loaded.run_by_index(0, images, results)
        return results[0].read(count, np.int8).reshape(shape)

    return run


def picture(input_hw: tuple[int, int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return one frame as a network takes it."""
    rgb = cv2.resize(RenderedDrive((640, 360), 0).frame(1.0)[0], input_hw[::-1])[None]
    return rgb if np.dtype(dtype) == np.uint8 else rgb.astype(np.float32) / 255


# -- parts ---------------------------------------------------------------------------------------


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Keep so many cores busy with processes of equal priority."""
    busy = [subprocess.Popen([sys.executable, '-c', 'while True: pass']) for _ in range(count)]
    try:
        if busy:
            time.sleep(0.5)
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def threads(folder: Path, budget_s: float) -> list[dict[str, object]]:
    """Time 1, 2 and 4 threads, alone and beside 1 and 2 busy processes."""
    rows = []
    for preset in ('road', 'original'):
        path = model_path(folder, preset, SIZES_HW[-1], 'int8')
        for busy in range(3):
            timed = [Timed(f'{count} threads', interpreter(path, count)) for count in (1, 2, 4)]
            with neighbours(busy):
                interleave(timed, budget_s / 6)
            rows += [one.row(timed[0], preset=preset, busy=busy) for one in timed]
    return rows


def rate(folder: Path, budget_s: float) -> list[dict[str, object]]:
    """Time frames that come at 30 Hz: between two of them a pool's threads spin, then sleep."""
    path = model_path(folder, 'road', SIZES_HW[-1], 'int8')
    timed = [Timed(f'{count} threads at {RATE_HZ:g} Hz', interpreter(path, count))
             for count in (1, 2, 4)]
    frames = BLOCK * 8
    for _ in range(max(2, int(budget_s / len(timed) / frames * RATE_HZ))):
        for one in timed:
            time.sleep(REST_S)
            one.run()
            cpu_s, due_s = time.process_time(), time.perf_counter()
            for _ in range(frames):
                due_s += 1 / RATE_HZ
                time.sleep(max(0.0, due_s - time.perf_counter()))
                begun_s = time.perf_counter()
                one.run()
                one.seconds.append(time.perf_counter() - begun_s)
            one.cpu_s.append((time.process_time() - cpu_s) / frames)
    return [one.row(timed[0]) for one in timed]


def kernels(folder: Path, budget_s: float) -> list[dict[str, object]]:
    """Time what the runtime offers beside its default, two threads; compare the outputs."""
    path, rows = model_path(folder, 'road', SIZES_HW[-1], 'int8'), []
    timed = [Timed(name, interpreter(path, 2, **options)) for name, options in (
        ('Interpreter (what the engine uses)', {}),
        ('Interpreter, latest XNNPACK features',
         {'experimental_default_delegate_latest_features': True}),
        ('Interpreter, one delegate per operator',
         {'experimental_disable_delegate_node_fusion': True}),
        ('Interpreter without XNNPACK', {'experimental_op_resolver_type': _resolver()}))]
    for name, options in (('CompiledModel', {}), ('CompiledModel, YNNPACK',
                                                  {'enable_ynnpack': True}),
                          *((f'CompiledModel, {name}', {'xnnpack_flags': flags})
                            for name, flags in XNNPACK_FLAGS.items())):
        try:
            timed.append(Timed(name, compiled(path, 2, **options)))
        except (ImportError, RuntimeError) as error:
            rows.append({'name': name, 'fault': str(error).splitlines()[0]})
    expected = timed[0].run().astype(int)
    differences = {one.name: int(np.abs(one.run().astype(int) - expected).max()) for one in timed}
    interleave(timed, budget_s)
    return [*(one.row(timed[0], largest_difference=differences[one.name]) for one in timed), *rows]


def _resolver() -> object:
    from ai_edge_litert.interpreter import OpResolverType

    return OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES


def start(folder: Path, budget_s: float) -> list[dict[str, object]]:
    """Time loading to the first result; a weight cache spares packing the weights anew."""
    rows = []
    for preset in ('road', 'original'):
        path = model_path(folder, preset, SIZES_HW[-1], 'int8')
        cache = Path(tempfile.mkdtemp()) / 'cache'
        ways: list[tuple[str, Callable[[], Any]]] = [
            ('Interpreter', lambda path=path: interpreter(path, 2)),
            ('CompiledModel', lambda path=path: compiled(path, 2)),
            ('CompiledModel, empty weight cache', lambda path=path, cache=cache: compiled(
                path, 2, xnnpack_weight_cache_path=str(cache))),
            ('CompiledModel, filled weight cache', lambda path=path, cache=cache: compiled(
                path, 2, xnnpack_weight_cache_path=str(cache)))]
        timed = [Timed(name, lambda way=way: way()()) for name, way in ways]
        started_s = time.perf_counter()
        while time.perf_counter() - started_s < budget_s / 2 or len(timed[0].seconds) < 3:
            for one in timed:
                if 'empty' in one.name:
                    cache.unlink(missing_ok=True)
                time.sleep(REST_S)
                cpu_s, begun_s = time.process_time(), time.perf_counter()
                one.run()
                one.seconds.append(time.perf_counter() - begun_s)
                one.cpu_s.append(time.process_time() - cpu_s)
        written = cache.stat().st_size if cache.is_file() else 0
        rows += [one.row(timed[0], preset=preset, cache_bytes=written) for one in timed]
        shutil.rmtree(cache.parent)
    return rows


def size(folder: Path, budget_s: float) -> list[dict[str, object]]:
    """Time input sizes, int8 beside float32, one and two threads."""
    return _int8_and_float(
        folder, [('road', input_hw) for input_hw in reversed(SIZES_HW)], budget_s)


def width(folder: Path, budget_s: float) -> list[dict[str, object]]:
    """Time model widths, int8 beside float32, one and two threads."""
    return _int8_and_float(folder, [(preset, SIZES_HW[-1]) for preset in WIDTHS], budget_s)


def _int8_and_float(
    folder: Path, networks: Sequence[tuple[str, tuple[int, int]]], budget_s: float,
) -> list[dict[str, object]]:
    rows = []
    for count in (1, 2):
        timed = [
            Timed(f'{preset} {input_hw[0]}x{input_hw[1]} {kind}', interpreter(
                model_path(folder, preset, input_hw, kind), count))
            for preset, input_hw in networks for kind in ('int8', 'float')]
        interleave(timed, budget_s / 2)
        for index, one in enumerate(timed):
            pair = timed[index - index % 2]
            as_float = one.row(pair)['ratio'] if index % 2 else None
            rows.append(one.row(timed[0], threads=count, float_to_int8=as_float))
    return rows


PARTS = {part.__name__: part for part in (threads, rate, kernels, start, size, width)}


# -- the report ----------------------------------------------------------------------------------


def table(rows: Sequence[dict[str, object]]) -> str:
    """Return rows as Markdown."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    lines = [f'| {" | ".join(keys)} |', f'|{"---|" * len(keys)}']
    for row in rows:
        cells = [f'{value:.2f}' if isinstance(value, float) else '' if value is None else
                 str(value) for value in (row.get(key) for key in keys)]
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines)


def verdict(rows: Sequence[dict[str, object]]) -> str:
    """Return which of int8 and float32 is faster here, from rows with both; empty without."""
    ratios = [row['float_to_int8'] for row in rows if row.get('float_to_int8')]
    if not ratios:
        return ''
    if min(ratios) >= 1:
        return (f'int8 is faster on this CPU: float32 takes {min(ratios):.2f} to '
                f'{max(ratios):.2f} times as long.')
    return (f'int8 is SLOWER on this CPU: float32 takes {min(ratios):.2f} to {max(ratios):.2f} '
            'times its time; see "Where int8 is slower" in docs/performance.md.')


def main() -> int:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.strip().partition('\n')[0])
    parser.add_argument('parts', nargs='*', metavar='PART', help=f'of {", ".join(PARTS)}')
    parser.add_argument('--models', type=Path, required=True, help='folder of the networks')
    parser.add_argument('--make', action='store_true', help='write the networks that are missing')
    parser.add_argument('--seconds', type=float, default=30.0,
                        help='for each part (default: %(default)s)')
    parser.add_argument('--json', type=machine.output_file,
                        help='write the figures there; parts measured before stay')
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f'found {", ".join(sorted(unknown))}, expected of {", ".join(PARTS)}')
    if args.make:
        make(args.models)
    described = machine.description()
    sys.stdout.write(f'{machine.text(described)}; automatic: {automatic_threads()} threads\n')
    found: dict[str, Any] = {}
    if args.json and args.json.exists():
        found = json.loads(args.json.read_text())
    for name in args.parts:
        rows = PARTS[name](args.models, args.seconds)
        sys.stdout.write(f'\n{name}\n\n{table(rows)}\n{verdict(rows)}\n')
        affinity = len(os.sched_getaffinity(0))
        found |= {name: {'machine': described, 'cores': affinity, 'rows': rows}}
        if args.json:
            args.json.write_text(json.dumps(found, indent=1) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
