"""
What a child process costs: the same model in this process and in a child, frame by frame.

    python benchmarks/isolation.py
    python benchmarks/isolation.py --count 500 --json isolation.json

Runs both alternately on the CPU, so that whatever else the machine does meets both alike. The
difference, of each round, is what goes through shared memory and two wake-ups. ``in place`` is
what the segmenter does: the image is made where the child reads it, and is not copied there.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import machine
import numpy as np

from bisenet_ros.core.console import at_least
from bisenet_ros.core.engine import Engine, LiteRtEngine
from bisenet_ros.core.isolation import IsolatedEngine
from bisenet_ros.core.segmenter import SHIPPED_MODEL


#: Rounds that are not counted.
WARM_UP = 5


def run_s(engine: Engine, image: np.ndarray) -> float:
    """Return how long one frame takes."""
    started = time.perf_counter()
    engine.run(image)
    return time.perf_counter() - started


def measure(model: Path, count: int, num_threads: int) -> np.ndarray:
    """Return ``float64[count, 3]``: seconds per frame here, in a child, and there in place."""
    here = LiteRtEngine(model, num_threads)
    child = IsolatedEngine(model, num_threads, timeout_s=60.0)
    try:
        rng = np.random.default_rng(0)
        info = np.iinfo(here.input.dtype)
        image = rng.integers(info.min, info.max + 1, here.input.shape[1:], here.input.dtype)
        if not np.array_equal(here.run(image), child.run(image)):
            raise RuntimeError('the child computes something else')
        ways = ((here, image), (child, image), (child, child.input_memory))
        times = np.empty((WARM_UP + count, len(ways)))
        for index in range(len(times)):
            for column in range(len(ways)) if index % 2 else reversed(range(len(ways))):
                times[index, column] = run_s(*ways[column])
        del ways  # it holds the child's memory
        return times[WARM_UP:]
    finally:
        child.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.strip().partition('\n')[0])
    parser.add_argument('--model', type=Path, default=SHIPPED_MODEL)
    parser.add_argument('--count', type=at_least(1), default=300, help='frames each (%(default)s)')
    parser.add_argument('--threads', type=at_least(1), default=1, help='CPU threads (%(default)s)')
    parser.add_argument('--json', type=machine.output_file, help='write the figures there, too')
    options = parser.parse_args()
    times = measure(options.model, options.count, options.threads) * 1e3
    described = machine.description()
    lines = [machine.text(described),
             f'{options.model.name}, {options.threads} threads, {options.count} frames each, ms:',
             f'{"":22}{"p10":>9}{"median":>9}{"p90":>9}']
    columns = np.column_stack([times, times[:, 1:] - times[:, :1]])  # round by round
    rows = dict(zip(
        ('in process', 'in a child', 'in a child, in place', 'difference',
         'difference, in place'), np.quantile(columns, (0.1, 0.5, 0.9), axis=0).T, strict=True))
    lines += [f'{name:22}' + ''.join(f'{value:9.3f}' for value in row)
              for name, row in rows.items()]
    sys.stdout.write('\n'.join(lines) + '\n')
    if options.json:
        options.json.write_text(json.dumps({
            'machine': described, 'model': options.model.name, 'threads': options.threads,
            'count': options.count, 'p10_median_p90_ms': {
                name: row.tolist() for name, row in rows.items()}}, indent=2) + '\n')


if __name__ == '__main__':
    main()
