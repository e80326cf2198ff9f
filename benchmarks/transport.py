"""
Count camera frames that reach the node: the middleware's default transport beside ours.

    python benchmarks/transport.py
    python benchmarks/transport.py --rounds 3 --json transport.json

A camera (``replay``) publishes 1280x720 colour frames at 30 Hz, the node (``segmenter``) segments
them, both in processes of their own. ``default`` leaves the transport as it is; ``ours`` is what
the launch file gives its nodes; ``camera only`` gives it to the camera and leaves the node alone.
Rounds are interleaved, so that a busy machine is unfair to none. What is received and what is
missing is what ``/diagnostics`` says; there a frame that is late by a period is missing, too.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import machine
from nodes import Tool, Watcher, choose_domain, quantile, render_folder

from bisenet_ros.core.console import at_least
from bisenet_ros.transport import CHOICES, transport_environment

START_S = 30.0


def measure(folder: str, frames: int, camera: dict[str, str], node: dict[str, str]) -> dict:
    """Send the frames once, the camera and the node with an environment each."""
    watcher = Watcher()
    segmenter = Tool('segmenter', {'diagnostics_period_s': 0.2}, node)
    replay = None
    try:
        if not watcher.spin_until(lambda: watcher.image_is_subscribed, START_S):
            raise RuntimeError(f'the segmenter did not subscribe within {START_S:g} s')
        replay = Tool('replay', {'source': folder, 'loop': 'false', 'rate_hz': 30.0}, camera)
        if not watcher.spin_until(lambda: not replay.running, START_S + frames / 15):
            raise RuntimeError('the replay did not end')
        watcher.spin_until(lambda: False, 1.0)
    finally:
        if replay is not None:
            replay.stop()
        segmenter.stop()
        watcher.close()
    return {
        'sent': frames, 'received': watcher.count('received'),
        'missing': watcher.count('missing in the stream'),
        'dropped': watcher.count('dropped'), 'masks': len(watcher.latencies_s),
        'latency_s': watcher.latencies_s}


def main() -> int:
    """Measure and print; exit code 1 if less than 99 % arrive with our transport."""
    parser = argparse.ArgumentParser(description=__doc__.strip().partition('\n')[0])
    parser.add_argument('--frames', type=at_least(1), default=300, help='a round (%(default)s)')
    parser.add_argument('--rounds', type=at_least(1), default=1,
                        help='of each setting (%(default)s)')
    parser.add_argument('--json', type=machine.output_file, help='write the figures there, too')
    options = parser.parse_args()
    choose_domain()
    if chosen := [name for name in CHOICES if name in os.environ]:
        parser.error(f'{chosen[0]} is set; unset it, this sets it by turns.')
    ours = transport_environment(os.environ)
    if not ours:
        parser.error('nothing to compare: this middleware is not Fast DDS.')
    settings = {'default': ({}, {}), 'camera only': (ours, {}), 'ours': (ours, ours)}
    rounds: dict[str, list[dict]] = {name: [] for name in settings}
    with tempfile.TemporaryDirectory() as folder:
        render_folder(Path(folder), options.frames)
        for _ in range(options.rounds):
            for name, (camera, node) in settings.items():
                rounds[name].append(measure(folder, options.frames, camera, node))

    described = machine.description()
    setting = {name: Path(value).name for name, value in ours.items()}
    lines = [machine.text(described),
             '1280x720 bgr8 at 30 Hz; ours: '
             + ', '.join(f'{name}={value}' for name, value in setting.items()),
             f'{"setting":14}{"sent":>7}{"received":>10}{"share":>8}{"missing":>9}{"dropped":>9}'
             f'{"masks":>7}{"latency p50 ms":>16}{"p95":>8}']
    figures = {}
    for name, results in rounds.items():
        total = {key: sum(result[key] for result in results)
                 for key in ('sent', 'received', 'missing', 'dropped', 'masks')}
        latencies = [value for result in results for value in result['latency_s']]
        total['share'] = total['received'] / total['sent']
        total['latency_p50_ms'] = quantile(latencies, 0.5) * 1e3
        total['latency_p95_ms'] = quantile(latencies, 0.95) * 1e3
        figures[name] = total
        lines.append(
            f'{name:14}{total["sent"]:7}{total["received"]:10}{total["share"]:8.1%}'
            f'{total["missing"]:9}{total["dropped"]:9}{total["masks"]:7}'
            f'{total["latency_p50_ms"]:16.1f}{total["latency_p95_ms"]:8.1f}')
    sys.stdout.write('\n'.join(lines) + '\n')
    if options.json:
        options.json.write_text(json.dumps(
            {'machine': described, 'setting': setting, 'figures': figures}, indent=2) + '\n')
    return 0 if figures['ours']['share'] >= 0.99 else 1


if __name__ == '__main__':
    sys.exit(main())
