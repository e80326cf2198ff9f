"""
Run the node for minutes at 30 Hz and see whether memory or latency grow.

    python benchmarks/soak.py                       # five minutes
    python benchmarks/soak.py --minutes 60 --json soak.json

A camera (``replay``) publishes 1280x720 colour frames, the node (``segmenter``) publishes masks,
each in a process of its own on the launch file's transport. Exit code 1 if either grew.

Memory is the node's own (without files and what it shares with the camera), latency is from the
camera's publish to the mask's arrival; of both the first third behind 20 s of warm-up is compared
with the last. The middleware keeps the buffers of as many frames as ever came at once, up to its
history's depth; so that none are new later, the node is held up a few times at the start.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import machine
from nodes import PICTURES, Tool, Watcher, choose_domain, quantile, render_folder

from bisenet_ros.transport import transport_environment

START_S = 30.0

WARM_UP_S = 20.0

#: How often the node is held up at the start, and how long: more frames than a history's depth.
HOLD_UPS = 5
HOLD_UP_S = 0.5

#: How much memory may grow; a frame has 2.8.
MEMORY_MB = 3.0

#: How much the median latency may grow: a machine is not equally busy all the time.
LATENCY_RATIO = 1.5
LATENCY_MS = 5.0


#: Numbers of frames in the diagnostics, in the order of a sample's last fields.
COUNTED = ('received', 'missing in the stream', 'dropped', 'failed')


@dataclasses.dataclass(frozen=True)
class Sample:
    """A few seconds: memory at their end, latencies and masks within."""

    time_s: float
    rss_mb: float
    own_mb: float
    masks: int
    latency_p50_ms: float
    latency_p95_ms: float
    received: int
    missing: int
    dropped: int
    failed: int


def run(minutes: float, every_s: float, threads: int) -> tuple[list[Sample], int]:
    """Return samples and the node's exit code."""
    environment = transport_environment(os.environ)
    watcher, samples = Watcher(), []
    segmenter = Tool('segmenter', {'num_threads': threads}, environment)
    replay = None
    with tempfile.TemporaryDirectory() as folder:
        render_folder(Path(folder), PICTURES)
        try:
            replay = Tool('replay', {'source': folder, 'rate_hz': 30.0}, environment)
            if not watcher.spin_until(lambda: watcher.latencies_s, START_S):
                raise RuntimeError(f'no mask within {START_S:g} s')
            started_s = time.monotonic()
            for _ in range(HOLD_UPS):
                os.kill(segmenter.pid, signal.SIGSTOP)
                watcher.spin_until(lambda: False, HOLD_UP_S)
                os.kill(segmenter.pid, signal.SIGCONT)
                watcher.spin_until(lambda: False, HOLD_UP_S)
            held_up = {key: watcher.count(key) for key in COUNTED}
            while (now_s := time.monotonic()) < started_s + minutes * 60:
                watcher.latencies_s.clear()
                watcher.spin_until(lambda: False, every_s)
                if not (segmenter.running and replay.running):
                    raise RuntimeError('a node ended by itself')
                latencies = watcher.latencies_s
                samples.append(Sample(
                    now_s + every_s - started_s, *segmenter.memory_mb(), len(latencies),
                    quantile(latencies, 0.5) * 1e3, quantile(latencies, 0.95) * 1e3,
                    *(watcher.count(key) - held_up[key] for key in COUNTED)))
                sys.stderr.write(
                    f'\r{samples[-1].time_s:6.0f} s  {samples[-1].own_mb:6.1f} MB  '
                    f'{samples[-1].latency_p50_ms:6.1f} ms  {len(latencies) / every_s:5.1f} Hz')
        finally:
            sys.stderr.write('\n')
            if replay is not None:
                replay.stop()
            code = segmenter.stop()
            watcher.close()
    return samples, code


def median(samples: list[Sample], field: str) -> float:
    """Return the median of one field."""
    return quantile([getattr(sample, field) for sample in samples], 0.5)


def verdicts(samples: list[Sample], code: int) -> tuple[dict[str, float], list[tuple[bool, str]]]:
    """Compare early with late."""
    warm = [sample for sample in samples if sample.time_s > WARM_UP_S]
    third = len(warm) // 3
    if not third:
        raise RuntimeError('too short to compare anything; give more --minutes')
    first, last = warm[:third], warm[-third:]
    own = [median(part, 'own_mb') for part in (first, last)]
    p50 = [median(part, 'latency_p50_ms') for part in (first, last)]
    p95 = [median(part, 'latency_p95_ms') for part in (first, last)]
    end, masks = samples[-1], [sample.masks for sample in warm]
    arrived = end.received / max(1, end.received + end.missing)
    figures = {
        'minutes': end.time_s / 60, 'own_first_mb': own[0], 'own_last_mb': own[1],
        'rss_max_mb': max(sample.rss_mb for sample in samples),
        'latency_p50_first_ms': p50[0], 'latency_p50_last_ms': p50[1],
        'latency_p95_first_ms': p95[0], 'latency_p95_last_ms': p95[1],
        'received': end.received, 'missing': end.missing, 'dropped': end.dropped,
        'failed': end.failed, 'exit_code': code}
    return figures, [
        (own[1] - own[0] <= MEMORY_MB,
         f'memory {own[0]:.1f} to {own[1]:.1f} MB (may grow by {MEMORY_MB:g}); with all that is '
         f'shared {figures["rss_max_mb"]:.1f} MB at most'),
        (p50[1] <= max(p50[0] * LATENCY_RATIO, p50[0] + LATENCY_MS),
         f'latency median {p50[0]:.1f} to {p50[1]:.1f} ms, p95 {p95[0]:.1f} to {p95[1]:.1f} ms '
         f'(median may grow to {LATENCY_RATIO:g} times, or by {LATENCY_MS:g} ms)'),
        (min(masks) > 0, f'{sum(masks)} masks, at least {min(masks)} between two samples'),
        (end.failed == 0, f'{end.failed} frames failed of {end.received}'),
        (arrived >= 0.99, f'{arrived:.2%} of the camera\'s frames arrived (expected 99 %)'),
        (code == 0, f'exit code {code}')]


def main() -> int:
    """Run, print the verdicts, return 1 if one is bad."""
    parser = argparse.ArgumentParser(description=__doc__.strip().partition('\n')[0])
    parser.add_argument('--minutes', type=float, default=5.0, help='(%(default)s)')
    parser.add_argument('--every', type=float, default=5.0, metavar='SECONDS',
                        help='between two samples (%(default)s)')
    parser.add_argument('--threads', type=int, default=0, help='num_threads (%(default)s)')
    parser.add_argument('--json', type=machine.output_file, help='write figures and samples there')
    options = parser.parse_args()
    choose_domain()
    samples, code = run(options.minutes, options.every, options.threads)
    figures, judged = verdicts(samples, code)
    for good, text in judged:
        sys.stdout.write(f'{"ok  " if good else "BAD "} {text}\n')
    if options.json:
        options.json.write_text(json.dumps({
            'machine': machine.description(), 'figures': figures,
            'samples': [dataclasses.asdict(sample) for sample in samples],
        }, indent=2) + '\n')
    return 0 if all(good for good, _ in judged) else 1


if __name__ == '__main__':
    sys.exit(main())
