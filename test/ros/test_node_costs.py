"""What a frame costs the node, in counts: inferences, messages, copies. See ``test_guard.py``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from harness import TINY_CONTRACT, InProcessNode, Peer
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, Image
from traced_memory import traced_bytes

from bisenet_ros import conversions
from bisenet_ros.core.outputs import ENCODINGS

ROOT = Path(__file__).resolve().parents[2]

#: As in ``test_guard.py``: less than any picture of a frame of 1280x720.
SMALL_BYTES = 100_000
GROWTH_BYTES = 2_000


class Here:
    """Stands where the worker is: what it is given is processed before it returns."""

    def __init__(self, process):
        self._process = process

    def submit(self, arrival):
        self._process(arrival)


class Listeners:
    """Stands where a publisher is: so many listen, and what is published is kept."""

    def __init__(self, count: int) -> None:
        self.count, self.messages = count, []

    def get_subscription_count(self) -> int:
        return self.count

    def publish(self, message: object) -> None:
        self.messages.append(message)


@pytest.fixture(scope='module')
def inside():
    with pytest.MonkeyPatch.context() as patch, InProcessNode(patch, spin=False) as inside:
        yield inside


@pytest.fixture
def listen(inside, monkeypatch):
    """Give a function that replaces the outputs' publishers; returns them by name."""
    def replace(*names):
        outputs = {name: Listeners(int(name in names)) for name in (*ENCODINGS, 'camera_info')}
        monkeypatch.setattr(inside.node, '_camera_info_output', outputs['camera_info'])
        monkeypatch.setattr(
            inside.node, '_outputs', {name: outputs[name] for name in ENCODINGS})
        monkeypatch.setattr(inside.node, '_camera_info', CameraInfo(width=1280, height=720))
        monkeypatch.setattr(inside.node, '_worker', Here(inside.node._process))
        # What is set while a camera is subscribed.
        monkeypatch.setattr(
            inside.node, '_read_frame', inside.node._read_frame, raising=False)
        inside.engine.runs = 0
        return outputs

    return replace


@pytest.fixture(scope='module')
def message():
    with Peer('camera_of_costs') as peer:
        return peer.image(np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8))


def process(inside, message, times=1):
    for _ in range(times):
        inside.node._on_image(message)


def test_nobody_listens_nothing_is_done(inside, listen, message):
    outputs = listen()

    process(inside, message, 3)

    assert inside.engine.runs == 0
    assert not any(output.messages for output in outputs.values())


@pytest.mark.parametrize('names', [
    ('mask',), ('labels', 'confidence'), ('overlay',), ('color_mask',), ('camera_info',),
    ('mask', 'camera_info'), tuple(ENCODINGS)])
def test_one_inference_a_frame_and_one_message_for_each_that_is_listened_to(
        inside, listen, message, names):
    outputs = listen(*names)

    process(inside, message, 3)

    assert {name: len(output.messages) for name, output in outputs.items()} == {
        name: 3 * (name in names) for name in outputs}
    assert inside.engine.runs == (0 if names == ('camera_info',) else 3)


@pytest.mark.parametrize('names', [('mask',), ('labels', 'confidence'), tuple(ENCODINGS)])
def test_pictures_are_drawn_in_the_messages_and_nothing_is_copied(
        inside, listen, message, names):
    outputs = listen(*names)
    process(inside, message, 5)
    _, peak = traced_bytes(lambda: process(inside, message))

    assert peak < SMALL_BYTES
    for name in names:
        first, *others = outputs[name].messages
        assert all(other is first for other in others)
        assert len(first.data) == 720 * 1280 * (1 if ENCODINGS[name] == 'mono8' else 3)
        serialize_message(first)  # which is all that publishing does with it


@pytest.mark.parametrize(('encoding', 'bytes_per_pixel', 'made_per_pixel'), [
    ('rgb8', 3, 0), ('bgra8', 4, 0), ('mono8', 1, 0), ('mono16', 2, 1),
    # To BGR at the camera's size, once: neighbours share colours.
    ('yuv422_yuy2', 2, 3), ('nv12', 1.5, 3), ('bayer_rggb8', 1, 3)])
def test_a_frame_of_any_encoding_is_converted_once_at_most(
        inside, listen, message, encoding, bytes_per_pixel, made_per_pixel):
    outputs = listen('mask')
    step = 1280 * (1 if encoding == 'nv12' else bytes_per_pixel)
    other = Image(
        header=message.header, encoding=encoding, height=720, width=1280, step=step,
        data=bytes(int(720 * 1280 * bytes_per_pixel)))
    process(inside, other, 5)
    _, peak = traced_bytes(lambda: process(inside, other))

    assert len(outputs['mask'].messages) == 6
    made = made_per_pixel * 720 * 1280
    assert made <= peak < made + SMALL_BYTES


def test_a_compressed_frame_is_decoded_once_and_held_once(inside, listen, monkeypatch):
    with Peer('camera_of_jpegs') as peer:
        ramp = np.linspace(0, 255, 720 * 1280 * 3).astype(np.uint8).reshape(720, 1280, 3)
        compressed = peer.compressed(ramp)
    decoded = []
    imdecode = conversions.cv2.imdecode

    def counting(*arguments):
        decoded.append(arguments)
        return imdecode(*arguments)

    outputs = listen('mask')
    _, read_frame = conversions.TRANSPORTS['compressed']
    monkeypatch.setattr(inside.node, '_read_frame', read_frame)
    monkeypatch.setattr(conversions.cv2, 'imdecode', counting)
    process(inside, compressed)
    _, peak = traced_bytes(lambda: process(inside, compressed, 3))

    assert len(outputs['mask'].messages) == len(decoded) == 4
    assert ramp.nbytes <= peak < ramp.nbytes + SMALL_BYTES


def test_a_thousand_frames_leave_nothing_behind(inside, listen):
    with Peer('camera_of_many') as peer:
        small = peer.image(np.zeros((90, 160, 3), np.uint8))
    outputs = listen(*ENCODINGS)

    def work(times):
        for _ in range(times):
            process(inside, small)
            for output in outputs.values():
                output.messages.clear()

    # The rates and latencies of the last frames are kept: let their memory fill.
    held, _ = traced_bytes(lambda: work(1000), lambda: work(400))

    assert held < GROWTH_BYTES


def test_the_next_frame_changes_the_message_and_not_its_size(inside, listen, message):
    outputs = listen('mask')
    process(inside, message)
    dark = bytes(outputs['mask'].messages[0].data)
    message.data[:len(message.data)] = type(message.data)('B', b'\xff' * len(message.data))

    process(inside, message)

    assert len(TINY_CONTRACT.class_names) == 2
    assert bytes(outputs['mask'].messages[1].data) == b'\xff' * (720 * 1280) != dark


def test_the_benchmark_counts_every_stage(tmp_path):
    """It reaches into the node: it breaks here, not when somebody wants figures."""
    report = tmp_path / 'report.json'
    done = subprocess.run(
        [sys.executable, str(ROOT / 'benchmarks' / 'frame_path.py'), '--count', '2', '--threads',
         '1', '--sizes', '320x240', '--inputs', 'bgr8', 'jpeg', '--outputs', 'mask', 'all',
         '--json', str(report)], cwd=tmp_path, capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stderr
    rows = json.loads(report.read_text())['milliseconds']
    assert [(row['input'], row['outputs']) for row in rows] == [
        ('bgr8', 'mask'), ('bgr8', 'all'), ('jpeg', 'mask'), ('jpeg', 'all')]
    for row in rows:
        for stage in ('hand over', 'decode', 'resize', 'colour', 'copy in', 'invoke', 'copy out',
                      'upsample', 'decide', 'message', 'publish', 'rest', 'serialise alone'):
            assert row[stage] > 0, (row['outputs'], stage)
        assert row['host'] < row['total']
