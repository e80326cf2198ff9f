"""
What the node costs before and beside its work: start, imports, memory, threads, idling.

    python benchmarks/footprint.py                      # some two minutes
    python benchmarks/footprint.py --json footprint.json

The start is from the process's creation to the arrival of its first mask, with a camera already
publishing 1280x720 at 30 Hz and a subscriber waiting. These have the node's middleware settings
(those of the launch file), or with ``--defaults`` none. Idle is the share of one core that the
node's process takes while nobody wants its masks. Exit code 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import machine
from nodes import Camera, Tool, Watcher, choose_domain, clean_environment

from bisenet_ros.core.console import at_least
from bisenet_ros.transport import transport_environment

START_S = 30.0

#: Start, first frames, and what Python and the middleware do once.
WARM_UP_S = 4.0

#: Targets: seconds from start to first mask, resident memory in 10**6 bytes, share of a core.
FIRST_MASK_S = 3.0
MEMORY_MB = 250.0
IDLE_CORES = 0.02

#: What the node imports until it segments; the runtime comes when the model is loaded.
MODULES = 'bisenet_ros.segmenter, ai_edge_litert.interpreter'

#: Modules of the standard library are summed up.
STANDARD = 'standard library'


def imports_ms(modules: str) -> dict[str, float]:
    """Return each package's own import time in a fresh process, without what it imports."""
    output = subprocess.run(
        [sys.executable, '-X', 'importtime', '-c', f'import {modules}'], check=True,
        capture_output=True, text=True, env=clean_environment()).stderr
    own = collections.Counter()
    for line in output.splitlines():
        _, found, row = line.partition('import time:')
        own_us, _, name = (part.strip() for part in (*row.split('|'), '', '')[:3])
        if not found or not own_us.isdigit():
            continue  # the heading, or a warning
        package = name.partition('.')[0].strip()
        own[STANDARD if package in sys.stdlib_module_names else package] += int(own_us) / 1e3
    return dict(own)


def start(environment: dict[str, str]) -> dict[str, float]:
    """Start the node once, with a camera running; return seconds until it was that far."""
    watcher = Watcher()
    try:
        watcher.spin_until(lambda: watcher.image_is_published, START_S)
        node = Tool('segmenter', {}, environment)
        try:
            marks = {}
            for name, reached in (
                    ('mask advertised', lambda: watcher.mask_is_published),
                    ('camera subscribed', lambda: watcher.image_is_subscribed),
                    ('first mask', lambda: watcher.latencies_s)):
                if not watcher.spin_until(reached, START_S, 0.005):
                    raise RuntimeError(f'{name}: not within {START_S:g} s')
                marks[name] = time.monotonic() - node.started_s
            return marks
        finally:
            node.stop()
    finally:
        watcher.close()


def rest(camera: bool, subscriber: bool, environment: dict[str, str],
         window_s: float) -> dict[str, object]:
    """Let the node run for a while; return what its process took meanwhile."""
    watcher = Watcher() if subscriber else None
    source = Camera(30.0, (1280, 720), {}) if camera else None
    node = Tool('segmenter', {}, environment)
    try:
        wait = time.sleep if watcher is None else (
            lambda seconds: watcher.spin_until(lambda: False, seconds))
        if camera and watcher is not None and not watcher.spin_until(
                lambda: watcher.latencies_s, START_S):
            raise RuntimeError(f'no mask within {START_S:g} s')
        wait(WARM_UP_S)
        before_s, started_s = node.cpu_s(), time.monotonic()
        switches = node.switches()
        wait(window_s)
        seconds = time.monotonic() - started_s
        rss_mb, own_mb = node.memory_mb()
        return {'cores': (node.cpu_s() - before_s) / seconds,
                'wakeups_hz': (node.switches() - switches) / seconds,
                'resident_mb': rss_mb, 'own_mb': own_mb,
                'threads': len(node.thread_names()), 'tensorflow': node.maps('/tensorflow/')}
    finally:
        node.stop()
        if source is not None:
            source.stop()
        if watcher is not None:
            watcher.close()


def verdicts(figures: dict[str, dict]) -> Iterator[tuple[bool, str]]:
    """Yield whether each target is met, and the figures."""
    first_s = figures['start_s']['first mask']
    yield max(first_s) <= FIRST_MASK_S, (
        f'start to first mask {statistics.median(first_s):.2f} s (median), {max(first_s):.2f} s '
        f'at most; target {FIRST_MASK_S:g}')
    states = figures['states']
    most_mb = max(state['resident_mb'] for state in states.values())
    yield most_mb <= MEMORY_MB, f'resident memory {most_mb:.0f} MB; at most {MEMORY_MB:g}'
    yield not any(state['tensorflow'] for state in states.values()), 'no tensorflow in it'
    for name, state in states.items():
        if 'nobody' in name:
            yield state['cores'] <= IDLE_CORES, (
                f'{name}: {state["cores"]:.2%} of a core; at most {IDLE_CORES:.0%}')


def measure(rounds: int, window_s: float, environment: dict[str, str]) -> dict[str, dict]:
    """Return all figures of a node with an environment of its own beside this process's."""
    runs = [imports_ms(MODULES) for _ in range(rounds)]
    imports = {name: statistics.median(run.get(name, 0.0) for run in runs) for name in runs[0]}
    camera = Camera(30.0, (1280, 720), {})
    try:
        starts = [start(environment) for _ in range(rounds)]
    finally:
        camera.stop()
    states = {}
    for with_camera in (False, True):
        for subscriber in (False, True):
            name = (f'{"camera at 30 Hz" if with_camera else "no camera"}, '
                    f'{"mask subscribed" if subscriber else "nobody subscribed"}')
            states[name] = rest(with_camera, subscriber, environment, window_s)
    return {
        'imports_ms': dict(sorted(imports.items(), key=lambda item: -item[1])),
        'start_s': {name: [marks[name] for marks in starts] for name in starts[0]},
        'states': states}


def table(figures: dict[str, dict]) -> str:
    """Return the figures for eyes."""
    imports = figures['imports_ms']
    lines = [f'imports, {sum(imports.values()):.0f} ms under -X importtime, of them:']
    lines += [f'  {name:24}{value:8.1f} ms' for name, value in list(imports.items())[:10]]
    lines.append('process start until, seconds (median, most):')
    lines += [f'  {name:24}{statistics.median(values):8.2f}{max(values):8.2f}'
              for name, values in figures['start_s'].items()]
    lines.append(f'{"":36}{"core":>8}{"wake-ups/s":>12}{"MB":>7}{"own MB":>8}{"threads":>9}')
    lines += [f'  {name:34}{state["cores"]:8.2%}{state["wakeups_hz"]:12.0f}'
              f'{state["resident_mb"]:7.0f}{state["own_mb"]:8.0f}{state["threads"]:9}'
              for name, state in figures['states'].items()]
    return '\n'.join(lines)


def main() -> int:
    """Measure, print, return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.strip().partition('\n')[0])
    parser.add_argument('--rounds', type=at_least(1), default=5,
                        help='of imports and starts (%(default)s)')
    parser.add_argument('--window', type=float, default=10.0, metavar='SECONDS',
                        help='for each of four states (%(default)s)')
    parser.add_argument('--defaults', action='store_true',
                        help='leave camera and subscriber on the middleware\'s own settings')
    parser.add_argument('--json', type=machine.output_file, help='write the figures there')
    options = parser.parse_args()
    choose_domain()
    about = machine.description()
    environment = transport_environment(os.environ)
    if not options.defaults:
        os.environ.update(environment)  # this process subscribes, and starts the camera
    figures = measure(options.rounds, options.window, environment)
    judged = list(verdicts(figures))
    sys.stdout.write(f'{machine.text(about)}\n{table(figures)}\n')
    for good, sentence in judged:
        sys.stdout.write(f'{"ok  " if good else "BAD "} {sentence}\n')
    if options.json:
        options.json.write_text(json.dumps({
            'machine': about, **figures,
            'verdicts': [{'met': good, 'text': sentence} for good, sentence in judged],
        }, indent=1) + '\n')
    return 0 if all(good for good, _ in judged) else 1


if __name__ == '__main__':
    sys.exit(main())
