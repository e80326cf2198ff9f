"""
Time frames from a camera's publish to the arrival of their masks, beside others in the same run.

    python benchmarks/end_to_end.py                          # some seven minutes
    python benchmarks/end_to_end.py --rates 30 --json end_to_end.json

A camera process publishes, a node process answers with masks, this process receives them.
``segmenter`` is the package's node. ``plain`` is a node with the same model written the usual way
(``plain_node.py``). ``relay`` answers with ready masks: transport alone. ``invoke`` is the network
alone, at the same pace, in a process that does nothing else. Rounds of all four are interleaved.
A rate of 0 is a camera that publishes as fast as it can.

A window in which other processes kept more than ``--other-load`` of a core busy is thrown away
and repeated, whichever system it was of, at most ``--repeats`` times.

With ``--json`` and a file that exists, rates are added to it: one rate a call, if calls must be
short. Exit code 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import machine
import numpy as np
from nodes import Camera, OtherLoad, Tool, Watcher, choose_domain, quantile

from bisenet_ros.core.console import at_least
from bisenet_ros.core.engine import LiteRtEngine, automatic_threads
from bisenet_ros.core.segmenter import SHIPPED_MODEL
from bisenet_ros.transport import transport_environment

START_S = 30.0

#: Invocations of the network alone that are not counted in a window.
WARM_UP = 3

MASK_TOPIC = '/benchmark/mask'

#: What is started for each system, and what its mask is called at home.
NODES = {'segmenter': ('segmenter', '~/mask'), 'plain': ('plain_node.py', 'mask'),
         'relay': ('relay_node.py', 'mask')}

SYSTEMS = (*NODES, 'invoke')

#: Targets: p95 against transport and network alone at TARGET_HZ, CPU time against ``plain``.
TARGET_HZ = 30.0
LATENCY_RATIO = 1.5
CPU_RATIO = 0.5


@dataclasses.dataclass(frozen=True)
class Window:
    """
    For how long to look, and what is thrown away.

    Parameters
    ----------
    seconds : float
    other_cores : float
        More load than this by other processes makes a window worthless.
    repeats : int
        How often a worthless one is repeated; the last one counts in any case.

    """

    seconds: float
    other_cores: float
    repeats: int


@dataclasses.dataclass
class Tally:
    """What was seen of one system at one rate, in all rounds."""

    latencies_s: list[float] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    cpu_s: float = 0.0
    sent: int = 0
    other_cores: list[float] = dataclasses.field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Add what was seen in a window."""
        self.latencies_s += other.latencies_s
        self.seconds += other.seconds
        self.cpu_s += other.cpu_s
        self.sent += other.sent
        self.other_cores += other.other_cores

    def figures(self) -> dict[str, object]:
        """Return values for the table and the JSON."""
        ms = {f'p{round(share * 100)}_ms': quantile(self.latencies_s, share) * 1e3
              for share in (0.5, 0.95, 0.99)}
        count = len(self.latencies_s)
        figures = {
            'masks': count, 'seconds': self.seconds, **ms,
            'masks_hz': count / self.seconds, 'cpu_ms_per_mask': self.cpu_s * 1e3 / count,
            'cores': self.cpu_s / self.seconds,
            'other_cores': sum(self.other_cores) / len(self.other_cores)}
        if self.sent:
            figures |= {'sent': self.sent, 'delivered': count / self.sent}
        shares = np.linspace(0, 1, 51)
        figures['quantiles_ms'] = [
            round(float(value) * 1e3, 2) for value in np.quantile(self.latencies_s, shares)]
        return figures


def observe(
    system: str, parameters: dict[str, object], environment: dict[str, str], camera: Camera,
    window: Window,
) -> Tally:
    """Run a node for a while and return what was seen."""
    program, mask = NODES[system]
    watcher = Watcher(MASK_TOPIC)
    node = Tool(program, parameters, environment, {mask: MASK_TOPIC})

    def look() -> Tally:
        watcher.latencies_s.clear()
        watcher.frame_ids.clear()
        load, started_s, cpu_s = OtherLoad(camera, node), time.monotonic(), node.cpu_s()
        watcher.spin_until(lambda: False, window.seconds)
        if not watcher.frame_ids:
            raise RuntimeError(f'{system}: no mask in {window.seconds:g} s')
        return Tally(
            list(watcher.latencies_s), time.monotonic() - started_s, node.cpu_s() - cpu_s,
            int(watcher.frame_ids[-1]) - int(watcher.frame_ids[0]) + 1, [load.cores()])

    try:
        if not watcher.spin_until(lambda: watcher.latencies_s, START_S):
            raise RuntimeError(f'{system}: no mask within {START_S:g} s')
        watcher.spin_until(lambda: False, min(1.0, window.seconds))  # to warm up
        return undisturbed(look, window)
    finally:
        node.stop()
        watcher.close()


def undisturbed(look: Callable[[], Tally], window: Window) -> Tally:
    """Look again while the machine is busy with other things."""
    tally = look()
    for _ in range(window.repeats):
        if tally.other_cores[0] <= window.other_cores:
            break
        tally = look()
    return tally


def invoke(
    engine: LiteRtEngine, image: np.ndarray, period_s: float, window: Window,
) -> Tally:
    """Run the network alone at a pace and return its times."""
    def look() -> Tally:
        for _ in range(WARM_UP):
            engine.run(image)
        latencies_s, load, cpu_s = [], OtherLoad(), time.process_time()
        started_s = due_s = time.perf_counter()
        while (now_s := time.perf_counter()) < started_s + window.seconds:
            engine.run(image)
            latencies_s.append(time.perf_counter() - now_s)
            due_s = max(due_s + period_s, time.perf_counter())
            time.sleep(max(0.0, due_s - time.perf_counter()))
        return Tally(latencies_s, time.perf_counter() - started_s,
                     time.process_time() - cpu_s, 0, [load.cores()])

    return undisturbed(look, window)


def run(
    rate_hz: float, size_wh: tuple[int, int], model: Path, threads: int, rounds: int,
    window: Window, systems: list[str],
) -> dict[str, dict[str, object]]:
    """Return figures of each system at a rate."""
    environment = transport_environment(os.environ)
    engine = LiteRtEngine(model, threads)
    image = np.random.default_rng(0).integers(0, 256, engine.input.shape[1:], np.uint8)
    tallies = {system: Tally() for system in systems}
    parameters = {'model': model, 'num_threads': threads}
    for number in range(rounds):
        camera = Camera(rate_hz, size_wh, environment)
        try:
            for system in systems if number % 2 == 0 else reversed(systems):
                sys.stderr.write(f'\r{rate_hz:g} Hz, round {number + 1}, {system:10}')
                if system != 'invoke':
                    tallies[system].add(observe(
                        system, {} if system == 'relay' else parameters, environment, camera,
                        window))
        finally:
            camera.stop()
        if 'invoke' in tallies:
            tallies['invoke'].add(invoke(
                engine, image, 1 / rate_hz if rate_hz else 0.0, window))
    sys.stderr.write('\r' + ' ' * 40 + '\r')
    return {system: tally.figures() for system, tally in tallies.items()}


def verdicts(rates: dict[str, dict[str, dict]]) -> Iterator[tuple[bool, str]]:
    """Yield whether each target is met, and the figures."""
    for rate, systems in sorted(rates.items(), key=lambda item: float(item[0])):
        if set(systems) < set(SYSTEMS):
            continue
        ours, plain, relay, invoke = (systems[name] for name in SYSTEMS)
        name = f'{rate} Hz' if float(rate) else 'as fast as it goes'
        floor_ms = relay['p95_ms'] + invoke['p50_ms']
        if float(rate) == TARGET_HZ:
            ratio = ours['p95_ms'] / floor_ms
            yield ratio <= LATENCY_RATIO, (
                f'{name}: p95 {ours["p95_ms"]:.1f} ms is {ratio:.2f} of {floor_ms:.1f} ms, '
                f'transport (p95) and network (median) alone; at most {LATENCY_RATIO:g}')
        ratio = ours['cpu_ms_per_mask'] / plain['cpu_ms_per_mask']
        yield ratio <= CPU_RATIO, (
            f'{name}: {ours["cpu_ms_per_mask"]:.1f} ms of CPU a mask is {ratio:.2f} of '
            f'{plain["cpu_ms_per_mask"]:.1f} ms, the plain node\'s; at most {CPU_RATIO:g}')
        # No frame waits for more than the one in work, however fast they come.
        turn_ms = 1e3 / ours['masks_hz']
        bound_ms = relay['p99_ms'] + 2 * turn_ms
        yield ours['p99_ms'] <= bound_ms, (
            f'{name}: p99 {ours["p99_ms"]:.1f} ms; at most {bound_ms:.1f}, transport (p99) and '
            f'two masks at {ours["masks_hz"]:.0f} a second (the plain node: '
            f'{plain["p99_ms"]:.1f} ms)')


def table(rates: dict[str, dict[str, dict]]) -> str:
    """Return the figures for eyes."""
    lines = [f'{"rate Hz":>8} {"":10}{"p50 ms":>9}{"p95 ms":>9}{"p99 ms":>9}{"delivered":>11}'
             f'{"masks/s":>9}{"CPU ms/mask":>13}{"cores":>7}{"other":>7}']
    for rate, systems in sorted(rates.items(), key=lambda item: float(item[0])):
        for system, figures in systems.items():
            delivered = f'{figures["delivered"]:.1%}' if 'sent' in figures else ''
            lines.append(f'{rate if float(rate) else "max":>8} {system:10}' + ''.join(
                f'{figures[key]:9.1f}' for key in ('p50_ms', 'p95_ms', 'p99_ms'))
                + f'{delivered:>11}{figures["masks_hz"]:9.1f}{figures["cpu_ms_per_mask"]:13.1f}'
                  f'{figures["cores"]:7.2f}{figures["other_cores"]:7.2f}')
    return '\n'.join(lines)


def main() -> int:
    """Measure, print, return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.strip().partition('\n')[0])
    parser.add_argument('--rates', type=float, nargs='+', default=[10.0, 30.0, 60.0, 0.0],
                        metavar='HZ', help='0: as fast as it goes (default: 10 30 60 0)')
    parser.add_argument('--size', default='1280x720', help='of frames (%(default)s)')
    parser.add_argument('--rounds', type=at_least(1), default=3,
                        help='of each system (%(default)s)')
    parser.add_argument('--window', type=float, default=10.0, metavar='SECONDS',
                        help='measured in each round (%(default)s)')
    parser.add_argument('--other-load', type=float, default=0.1, metavar='CORES',
                        help='more by other processes and a window is repeated (%(default)s)')
    parser.add_argument('--repeats', type=at_least(0), default=3, help='at most (%(default)s)')
    parser.add_argument('--threads', type=int, default=automatic_threads(),
                        help='num_threads of all (default: what 0 chooses, %(default)s here)')
    parser.add_argument('--model', type=Path, default=SHIPPED_MODEL)
    parser.add_argument('--systems', nargs='+', choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument('--json', type=machine.output_file, help='write or add the figures there')
    options = parser.parse_args()
    width, height = (int(side) for side in options.size.split('x'))
    choose_domain()
    about = {'machine': machine.description(), 'size': [width, height],
             'threads': options.threads, 'model': options.model.name}
    rates: dict[str, dict] = {}
    if options.json and options.json.exists():
        before = json.loads(options.json.read_text())
        if any(before[key] != about[key] for key in about):
            parser.error(f'{options.json}: is of another machine, size, model or number of '
                         'threads; give another file.')
        rates = before['rates']
    for rate_hz in options.rates:
        rates[f'{rate_hz:g}'] = run(
            rate_hz, (width, height), options.model, options.threads, options.rounds,
            Window(options.window, options.other_load, options.repeats), options.systems)
    judged = list(verdicts(rates))
    sys.stdout.write(f'{machine.text(about["machine"])}\n{options.size} bgr8, '
                     f'{options.threads} threads, {options.model.name}\n{table(rates)}\n')
    for good, sentence in judged:
        sys.stdout.write(f'{"ok  " if good else "BAD "} {sentence}\n')
    if options.json:
        options.json.write_text(json.dumps({
            **about, 'rates': dict(sorted(rates.items(), key=lambda item: float(item[0]))),
            'verdicts': [{'met': good, 'text': sentence} for good, sentence in judged],
        }, indent=1) + '\n')
    return 0 if all(good for good, _ in judged) else 1


if __name__ == '__main__':
    sys.exit(main())
