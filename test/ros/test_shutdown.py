"""
Ctrl-C, SIGTERM and a closed terminal: exit code 0 within two seconds, and nothing printed after.

In every state, twice in a row too; twenty-five ends in all.
"""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from harness import IMAGE_TOPIC, PATIENCE_S, Stopwatch
from sensor_msgs.msg import Image

#: From the signal to the end of the process.
LIMIT_S = 2.0

SIGNALS = (
    (signal.SIGINT,), (signal.SIGTERM,), (signal.SIGINT, signal.SIGINT),
    (signal.SIGTERM, signal.SIGINT), (signal.SIGHUP,))


def holds_signals(process):
    """Tell whether a process has taken SIGTERM, which Python does not by itself."""
    for line in Path(f'/proc/{process.pid}/status').read_text().splitlines():
        if line.startswith('SigCgt:'):
            return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


def end(nodes):
    """End one node after the other; check code, time and silence."""
    for node, numbers in nodes:
        before = len(node.lines)
        with Stopwatch() as watch:
            for number in numbers:
                node.send(number)
            code = node.wait(PATIENCE_S)

        assert code == 0, (numbers, node.output)
        assert node.lines[before:] == [], numbers
        assert watch.seconds < LIMIT_S, numbers


def started(start, state, **params):
    return [(start(params={'autostart': state == 'active', **params}, namespace=f'/n{number}',
                   remap={'image': IMAGE_TOPIC}), numbers)
            for number, numbers in enumerate(SIGNALS)]


def test_unconfigured(start):
    nodes = started(start, 'unconfigured')
    for node, _ in nodes:
        node.wait_for_line('unconfigured')

    end(nodes)


def test_inactive(start, peer):
    nodes = started(start, 'inactive')
    for number, (node, _) in enumerate(nodes):
        assert peer.transition('configure', f'/n{number}/segmenter')
        node.wait_for_line('inactive')

    end(nodes)


def test_active(start):
    nodes = started(start, 'active')
    for node, _ in nodes:
        node.wait_active()

    end(nodes)


def test_active_under_load(start, peer):
    """With frames on their way through every output, faster than they can be segmented."""
    nodes = started(start, 'active')
    camera = peer.camera()
    masks = [peer.watch(Image, f'/n{number}/segmenter/{output}')
             for number in range(len(nodes)) for output in ('mask', 'overlay')]
    picture = np.random.default_rng(1).integers(0, 256, (480, 640, 3), np.uint8)
    peer.node.create_timer(0.01, lambda: camera.publish(peer.image(picture)))
    try:
        peer.wait_for(lambda: all(masks), 'masks of every node')

        end(nodes)
    finally:
        for timer in list(peer.node.timers):
            peer.node.destroy_timer(timer)


def test_while_it_starts(start):
    """From the moment that ``main`` holds the signals: before, during and after configuring."""
    for delay_s, numbers in zip((0.0, 0.05, 0.15, 0.4, 0.1), SIGNALS, strict=True):
        node = start()
        deadline_s = time.monotonic() + PATIENCE_S
        while not holds_signals(node.process):
            assert time.monotonic() < deadline_s
            assert node.process.poll() is None, node.output
            time.sleep(0.001)
        time.sleep(delay_s)  # no condition to wait for: any moment of the start will do

        with Stopwatch() as watch:
            for number in numbers:
                node.send(number)
            code = node.wait(PATIENCE_S)

        assert watch.seconds < LIMIT_S
        assert code == 0, node.output
        assert 'Traceback' not in node.output
        assert 'ERROR' not in node.output


def test_a_closed_terminal_is_ignored_under_nohup():
    script = ('import signal\n'
              'from bisenet_ros import process\n'
              'signal.signal(signal.SIGHUP, signal.SIG_IGN)\n'
              'stopping = process.hold_signals()\n'
              'signal.raise_signal(signal.SIGHUP)\n'
              'assert not stopping.is_set()\n'
              'signal.raise_signal(signal.SIGTERM)\n'
              'assert stopping.is_set()\n')
    assert subprocess.run([sys.executable, '-c', script], check=False).returncode == 0


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM], ids=['SIGINT', 'SIGTERM'])
def test_replay(start, peer, number):
    node = start('replay', params={'size': [320, 180]})
    images = peer.watch(Image, '/image')
    peer.wait_for(lambda: images, 'a frame')

    end([(node, (number, number))])


HANGING = """
import ctypes
import sys
import time

from rclpy.node import Node

from bisenet_ros import process


class Hanging(Node):
    finished = False

    def __init__(self):
        super().__init__('hanging')

    def begin(self):
        print('begun', flush=True)
        while {begin_hangs}:
            time.sleep(0.1)

    def end(self):
        ctypes.PyDLL(None).pause()  # which keeps Python's lock


process.LONGEST_END_S = 0.5
sys.exit(process.run(Hanging))
"""


@pytest.mark.parametrize('begin_hangs', [False, True], ids=['end', 'begin'])
def test_one_that_hangs_ends_and_tells_where(start, tmp_path, begin_hangs):
    program = tmp_path / 'hanging.py'
    program.write_text(HANGING.format(begin_hangs=begin_hangs))
    node = start(program)
    node.wait_for_line('begun')

    node.send(signal.SIGTERM)

    assert node.wait() == 1
    assert 'Timeout (0:00:00.500000)!' in node.output
    where = 'line 20 in begin' if begin_hangs else 'line 23 in end'
    assert f'hanging.py", {where}' in node.output
