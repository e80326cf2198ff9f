"""
What a child process costs: the same model in this process and in a child, frame by frame.

``python benchmarks/isolation.py`` runs both alternately on the CPU, so that whatever else the
machine does meets both alike. The difference is two copies through shared memory and two wake-ups.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from bisenet_ros.core.engine import Engine, LiteRtEngine
from bisenet_ros.core.isolation import IsolatedEngine
from bisenet_ros.core.segmenter import SHIPPED_MODEL


def run_s(engine: Engine, image: np.ndarray) -> float:
    """Return how long one frame takes."""
    started = time.perf_counter()
    engine.run(image)
    return time.perf_counter() - started


def measure(model: Path, count: int, num_threads: int) -> np.ndarray:
    """Return ``float64[count, 2]``: seconds per frame here and in a child."""
    here = LiteRtEngine(model, num_threads)
    child = IsolatedEngine(model, num_threads, timeout_s=60.0)
    try:
        rng = np.random.default_rng(0)
        info = np.iinfo(here.input.dtype)
        image = rng.integers(info.min, info.max + 1, here.input.shape[1:], here.input.dtype)
        if not np.array_equal(here.run(image), child.run(image)):
            raise RuntimeError('the child computes something else')
        times = np.empty((count, 2))
        for index in range(-5, count):  # five rounds of warm-up
            for column in (0, 1) if index % 2 else (1, 0):
                times[index, column] = run_s((here, child)[column], image)
        return times
    finally:
        child.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.strip().partition('\n')[0])
    parser.add_argument('--model', type=Path, default=SHIPPED_MODEL)
    parser.add_argument('--count', type=int, default=300, help='frames each (%(default)s)')
    parser.add_argument('--threads', type=int, default=1, help='CPU threads (%(default)s)')
    options = parser.parse_args()
    times = measure(options.model, options.count, options.threads) * 1e3
    lines = [f'{options.model.name}, {options.threads} threads, {options.count} frames each, ms:',
             f'{"":12}{"p10":>9}{"median":>9}{"p90":>9}']
    quantiles = np.quantile(times, (0.1, 0.5, 0.9), axis=0)
    for name, column in (('in process', 0), ('in a child', 1)):
        lines.append(f'{name:12}' + ''.join(f'{value:9.3f}' for value in quantiles[:, column]))
    lines.append(f'{"difference":12}' + ''.join(
        f'{value:9.3f}' for value in quantiles[:, 1] - quantiles[:, 0]))
    sys.stdout.write('\n'.join(lines) + '\n')


if __name__ == '__main__':
    main()
