"""The node with an EdgeTPU that misbehaves: the stand-in for libedgetpu, every fault."""

import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from harness import IMAGE_TOPIC, Stopwatch, level_of, pixels_of, values_of
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from sensor_msgs.msg import Image
from standin import StandIn
from tflite_models import Toy

from bisenet_ros.core.segmenter import Segmenter

REMAP = {'image': IMAGE_TOPIC}

TOY = Toy()

#: For a busy machine: what is waited for would take 30 s or more without a deadline.
SLACK_S = 5.0

#: Behaviour, and what is said of it.
FAULTS = (
    ('fail', 'usb:0: inference failed: Failed to execute request'),
    ('abort', r'usb:0: the inference process ended while inferring \(SIGABRT\); it said: F '),
    ('usb=0', r'usb:0: the inference process ended while inferring \(SIGABRT\); it said: F '),
    ('hang', r'usb:0: still inferring after \d\.\d s: the device hangs'),
)


@pytest.fixture
def model(tmp_path):
    return TOY.save(tmp_path)


@pytest.fixture
def stand_in(model, monkeypatch):
    with StandIn(model, monkeypatch) as device:
        yield device


@pytest.fixture
def bench(peer, stand_in, start):  # in this order: no node outlives its device
    return Bench(peer, start, stand_in)


class Bench:
    """A node on the stand-in's model, a camera and a subscriber."""

    def __init__(self, peer, start, stand_in):
        self.peer = peer
        self._start = start
        self._stand_in = stand_in
        self.node = None

    def start(self, device='auto', **params):
        self.node = self._start(
            params={'model': str(self._stand_in.model), 'device': device, 'num_threads': 1,
                    'diagnostics_period_s': 0.2, 'inference_timeout_s': 1.0, **params},
            remap=REMAP, env=self._stand_in.environment)
        self.diagnostics = self.peer.diagnostics()
        self.labels = self.peer.watch(Image, '/segmenter/labels')
        self.camera = self.peer.camera()
        return self

    def in_service(self, line='usb:0 is in service.'):
        self.node.wait_for_line(line)
        return self.connect()

    def connect(self):
        """Wait until frames get through both ways."""
        if not self.labels:
            self.peer.ask(self.camera, self.frame(), self.labels)
        return self

    def frame(self, seed=0):
        rgb = np.random.default_rng(seed).integers(0, 256, (*TOY.input_hw, 3), np.uint8)
        return self.peer.image(rgb, 'rgb8')

    def answer(self, seed=0):
        """Send one frame, once; return the node's labels and how long they took."""
        message = self.frame(seed)
        started = time.monotonic()
        self.camera.publish(message)
        answer = self.peer.wait_for(
            lambda: self.labels.with_stamp(message.header), 'an answer to a frame')
        return pixels_of(answer), time.monotonic() - started

    def lose(self, seed=0):
        """Send one frame that the node must count as failed."""
        failed = int(self.value('frames failed'))
        self.camera.publish(self.frame(seed))
        self.inference(lambda values: int(values['frames failed']) == failed + 1, 'a lost frame')

    def inference(self, condition, what):
        return self.diagnostics.wait_for(
            'inference', lambda status: condition(values_of(status)), what)

    def value(self, key):
        return values_of(self.inference(lambda values: True, 'diagnostics'))[key]

    def device_is(self, device):
        return self.inference(lambda values: values['device'] == device, f'device {device}')

    def said(self, pattern):
        """Return the log's lines that a pattern is found in."""
        return [line for line in self.node.output.splitlines() if re.search(pattern, line)]


def expected(model, bench, seed):
    segmenter = Segmenter.load(model, device='cpu', num_threads=1)
    rgb = pixels_of(bench.frame(seed))
    return segmenter.segment(rgb).labels


def test_auto_moves_to_the_edgetpu_and_says_so(bench, stand_in):
    bench.start().in_service()

    labels, _ = bench.answer()

    np.testing.assert_array_equal(labels, expected(stand_in.model, bench, 0))
    status = bench.device_is('usb:0')
    assert (level_of(status), status.hardware_id) == (0, 'usb:0')
    assert values_of(status)['device restarts'] == '0'
    assert len(bench.said('is in service')) == 1
    assert bench.said('toy.tflite, 32x64, classes background, road; device cpu')
    assert bench.node.stop() == 0


@pytest.mark.parametrize(('words', 'fault'), FAULTS, ids=[f[0] for f in FAULTS])
def test_auto_loses_no_frame_and_returns(bench, stand_in, words, fault):
    bench.start().in_service()
    stand_in.behave(words)

    labels, took_s = bench.answer(1)

    np.testing.assert_array_equal(labels, expected(stand_in.model, bench, 1))
    assert took_s < 1 + SLACK_S  # the deadline of 1 s
    status = bench.diagnostics.wait_for(  # one from before the EdgeTPU's service may be under way
        'inference', lambda status: re.search(fault, status.message), 'the fault')
    assert status.hardware_id == 'cpu'
    assert level_of(status) == 1
    assert re.search(fault, values_of(status)['last device fault'])
    np.testing.assert_array_equal(bench.answer(2)[0], expected(stand_in.model, bench, 2))
    stand_in.behave('')
    bench.in_service('usb:0 is in service again')
    np.testing.assert_array_equal(bench.answer(3)[0], expected(stand_in.model, bench, 3))
    status = bench.device_is('usb:0')
    assert level_of(status) == 0
    assert values_of(status)['device restarts'] == '1'
    assert values_of(status)['frames failed'] == '0'  # and every frame had its answer
    assert len(bench.said(fault)) == 1
    assert len(bench.said('in service again')) == 1


@pytest.mark.parametrize(('words', 'fault'), FAULTS, ids=[f[0] for f in FAULTS])
def test_explicit_device_counts_lost_frames_and_returns(bench, stand_in, words, fault):
    bench.start(device='usb').in_service()
    stand_in.behave(words)

    bench.lose(1)
    bench.lose(2)

    status = bench.diagnostics.wait_for(
        'inference', lambda status: level_of(status) == 2, 'an error')
    assert re.search(r'frames failed: .*' + fault, status.message)
    assert bench.device_is('none').hardware_id == 'none'
    stand_in.behave('')
    bench.in_service('usb:0 is in service again')
    np.testing.assert_array_equal(bench.answer(3)[0], expected(stand_in.model, bench, 3))
    status = bench.diagnostics.wait_for(
        'inference', lambda status: level_of(status) == 0, 'all is well')
    assert values_of(status)['device'] == 'usb:0'
    assert values_of(status)['frames failed'] == '2'
    assert len(bench.said(fault)) == 1
    assert not bench.said('Traceback')


@pytest.mark.parametrize(('words', 'why'), [
    ('usb=0', r'auto: no such EdgeTPU is plugged in \(found: none\); plug it in'),
    ('busy', 'auto: usb:0 is plugged in but did not open: another program has it'),
    ('old', r'compiled for a newer libedgetpu: .*requires runtime version \(14\)'),
    ('left', "usb:0: its labels of the golden frame differ from the CPU's"),
    ('abort_open', r'auto: the inference process ended while opening \(SIGABRT\)'),
    ('hang_open', r'auto: still opening after 2\.0 s: the device hangs'),
])
def test_auto_serves_from_the_cpu_and_says_why_once(bench, stand_in, words, why):
    stand_in.behave(words)
    bench.start(device_open_timeout_s=2.0 if words == 'hang_open' else 30.0)
    bench.connect()

    np.testing.assert_array_equal(bench.answer()[0], expected(stand_in.model, bench, 0))

    line = bench.node.wait_for_line('Device cpu serves until that is mended.')
    assert re.search(why, line)
    status = bench.diagnostics.wait_for(
        'inference', lambda status: level_of(status) == 1, 'a warning')
    assert re.search(why, status.message)
    assert values_of(status)['device'] == 'cpu'
    bench.answer(1)
    assert len(bench.said(why)) == 1
    if words == 'usb=0':  # it is plugged in later
        stand_in.behave('')
        bench.in_service()
        assert level_of(bench.device_is('usb:0')) == 0


def test_auto_without_a_compiled_model_says_so_in_one_line(bench, stand_in):
    stand_in.compiled.unlink()
    bench.start().node.wait_active()

    bench.node.wait_for_line(f'the CPU runs the model: {stand_in.compiled} is not there.')
    status = bench.device_is('cpu')
    assert level_of(status) == 0
    assert len(bench.said('the CPU runs the model')) == 1


@pytest.mark.parametrize(('words', 'why'), [
    ('usb=0', r'usb:0: no such EdgeTPU is plugged in'),
    ('busy', 'usb:0: usb:0 is plugged in but did not open: another program has it'),
    ('old', 'compiled for a newer libedgetpu'),
    ('top', "usb:0: its labels of the golden frame differ from the CPU's"),
])
def test_explicit_device_that_does_not_serve_ends_the_node(bench, stand_in, words, why):
    stand_in.behave(words)
    bench.start(device='usb:0')

    assert bench.node.wait() == 1
    assert len(bench.said(why)) == 1
    assert not bench.said('Traceback')


def test_explicit_device_without_libedgetpu_ends_the_node(bench, stand_in, start):
    node = start(params={'model': str(stand_in.model), 'device': 'usb'}, remap=REMAP)

    assert node.wait() == 1
    assert re.search('usb: libedgetpu cannot be loaded .*; install libedgetpu', node.output)


def test_isolated_cpu_that_is_killed_is_started_again(bench, stand_in):
    bench.start(device='cpu', isolation='process').in_service('cpu is in service.')
    (child,) = children(bench.node.process.pid)

    os.kill(child, signal.SIGKILL)

    bench.in_service('cpu is in service again.')
    np.testing.assert_array_equal(bench.answer(1)[0], expected(stand_in.model, bench, 1))
    assert len(bench.said(r'cpu: the inference process ended while waiting \(SIGKILL\)')) == 1


def test_cpu_has_no_child(bench):
    bench.start(device='cpu').node.wait_active()

    assert children(bench.node.process.pid) == []


def test_deadline_changes_while_it_runs(bench, stand_in):
    bench.start(inference_timeout_s=60.0).in_service()
    bench.peer.set_or_fail(inference_timeout_s=0.5)
    stand_in.behave('hang')

    _, took_s = bench.answer(1)

    assert took_s < 5


@pytest.mark.parametrize('device', ['auto', 'usb'])
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_a_node_whose_device_hangs(bench, stand_in, device, number):
    bench.start(device=device, inference_timeout_s=60.0).in_service()
    (child,) = children(bench.node.process.pid)
    stand_in.behave('hang')
    bench.camera.publish(bench.frame(1))
    bench.peer.wait_for(lambda: stand_in.hangs, 'the device hangs')
    printed = len(bench.node.lines)
    started = time.monotonic()

    bench.node.send(number)

    assert bench.node.wait() == 0
    assert time.monotonic() - started < 2 + SLACK_S
    assert bench.node.lines[printed:] == []
    assert not Path(f'/proc/{child}').exists()


@pytest.mark.parametrize('device', ['auto', 'usb'])
def test_signal_ends_a_node_whose_device_hangs_at_opening(bench, stand_in, device):
    stand_in.behave('hang_open')
    bench.start(device=device)
    bench.peer.wait_for(lambda: stand_in.hangs, 'the device hangs')
    started = time.monotonic()

    bench.node.send(signal.SIGINT)

    assert bench.node.wait() == 0
    assert time.monotonic() - started < 2 + SLACK_S
    assert not bench.said('Traceback|stopped')


def test_killed_node_leaves_no_child(bench, stand_in):
    bench.start().in_service()
    (child,) = children(bench.node.process.pid)

    bench.node.kill()

    bench.peer.wait_for(lambda: not Path(f'/proc/{child}').exists(), 'the child ends', 5)


def test_cleanup_gives_the_device_back(bench):
    bench.start().in_service()
    assert bench.peer.transition('deactivate')
    assert bench.peer.transition('cleanup')
    assert children(bench.node.process.pid) == []

    assert bench.peer.transition('configure')
    assert bench.peer.transition('activate')

    bench.peer.wait_for(lambda: len(bench.said('is in service')) == 2, 'it is opened again')
    assert bench.answer()[0].shape == TOY.input_hw


def children(pid):
    """Return the process ids of a process's children."""
    return [int(word) for task in Path(f'/proc/{pid}/task').iterdir()
            for word in (task / 'children').read_text().split()]


def test_end_while_it_deactivates_and_the_device_hangs(bench, stand_in):
    bench.start('usb:0', inference_timeout_s=60.0).connect()
    stand_in.behave('hang')
    bench.camera.publish(bench.frame())
    bench.peer.wait_for(lambda: stand_in.hangs, 'that it hangs')
    client = bench.peer.node.create_client(ChangeState, '/segmenter/change_state')
    bench.peer.wait_for(client.service_is_ready, 'the service')
    client.call_async(ChangeState.Request(
        transition=Transition(id=Transition.TRANSITION_DEACTIVATE)))
    bench.peer.wait_for(lambda: not bench.peer.subscribed(), 'that it has begun')

    with Stopwatch() as watch:
        assert bench.node.stop() == 0
    assert watch.seconds < 2.0
