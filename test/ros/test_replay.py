"""The replay node: a video, a folder, the rendered drive as a camera."""

import itertools
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from harness import BEST_EFFORT, IMAGE_TOPIC, RELIABLE, clip_frames, pixels_of
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image

from bisenet_ros import parameters, process, replay

REMAP = {'image': IMAGE_TOPIC, 'camera_info': '/camera/camera_info'}

DEEP = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)


def stamp_ns(message):
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


@pytest.fixture
def folder(tmp_path):
    """Make a folder of 30 pictures, each of a brightness of its own, and one that is none."""
    for number in range(30):
        cv2.imwrite(str(tmp_path / f'{number:03}.png'), np.full((60, 80, 3), number * 8, np.uint8))
    (tmp_path / '011b.png').write_bytes(b'no picture')
    (tmp_path / 'notes.txt').write_text('no picture either')
    return tmp_path


def test_a_folder_once_from_the_first_to_the_last(peer, start, folder):
    node = start('replay', params={
        'source': str(folder), 'loop': False, 'rate_hz': 60.0, 'frame_id': 'front'}, remap=REMAP)
    node.wait_for_line('at 60 Hz')  # it waits for us
    images = peer.watch(Image, IMAGE_TOPIC, DEEP)
    infos = peer.watch(CameraInfo, '/camera/camera_info', DEEP)

    peer.wait_for(lambda: len(images) >= 30 or node.process.poll() is not None, 'the pictures')
    peer.spin_for(0.2)

    assert node.wait() == 0
    assert [int(pixels_of(image)[0, 0, 0]) // 8 for image in images] == list(range(30))
    stamps = [stamp_ns(image) for image in images]
    assert stamps == sorted(set(stamps))
    assert {image.header.frame_id for image in images} == {'front'}
    assert {(image.encoding, image.step) for image in images} == {('bgr8', 240)}
    # Their subscription may have been a little later than the images'.
    assert {stamp_ns(info) for info in infos} <= set(stamps)
    assert len(infos) >= 25
    (told,) = (line for line in node.lines if 'not readable' in line)
    assert told.endswith(f'{folder}: left out as not readable, or cut off: 011b.png')
    assert node.lines[-1].endswith(replay.PLAYED)


def test_camera_info_goes_with_the_image(peer, start):
    start('replay', params={'size': [640, 360]}, remap=REMAP)
    images = peer.watch(Image, IMAGE_TOPIC)
    infos = peer.watch(CameraInfo, '/camera/camera_info')

    info = peer.wait_for(
        lambda: next((info for info in infos if images.with_stamp(info.header)), None), 'a pair')

    image = images.with_stamp(info.header)
    assert info.header == image.header
    assert (info.width, info.height) == (image.width, image.height) == (640, 360)
    assert info.distortion_model == 'plumb_bob'
    assert list(info.d) == [0.0] * 5
    focal, centre = info.k[0], info.k[2]
    assert focal == info.k[4] == info.p[0] == info.p[5] > 0
    assert (centre, info.k[5]) == (info.p[2], info.p[6]) == (320.0, 180.0)
    assert list(info.r) == [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]


def test_a_video_at_its_own_rate(peer, start, clips):
    node = start('replay', params={'source': str(clips[1])}, remap=REMAP)
    images = peer.watch(Image, IMAGE_TOPIC)

    assert 'at 25 Hz' in node.wait_for_line(clips[1].name)
    peer.wait_for(lambda: len(images) >= 20, 'frames')

    first = clip_frames(clips[1], list(range(38)))
    shown = pixels_of(images[0])
    assert shown.shape == (720, 1280, 3)
    assert min(np.abs(shown.astype(int) - frame).mean() for frame in first) == 0
    period_s = np.median(np.diff([stamp_ns(image) for image in images])) * 1e-9
    assert period_s == pytest.approx(0.04, rel=0.3)


def test_it_loops(peer, start, folder):
    start('replay', params={'source': str(folder), 'rate_hz': 200.0}, remap=REMAP)
    images = peer.watch(Image, IMAGE_TOPIC, DEEP)

    peer.wait_for(lambda: len(images) > 100, 'more pictures than there are')

    brightness = [int(pixels_of(image)[0, 0, 0]) for image in images]
    assert brightness.count(0) >= 3


@pytest.mark.parametrize('rate_hz', [5.0, 50.0])
def test_rate(peer, start, folder, rate_hz):
    start('replay', params={'source': str(folder), 'rate_hz': rate_hz}, remap=REMAP)
    images = peer.watch(Image, IMAGE_TOPIC, DEEP)

    peer.wait_for(lambda: len(images) > 5 + rate_hz, 'pictures')

    # Most of them: it does not hurry after what a busy machine has held up.
    period_s = np.median(np.diff([stamp_ns(image) for image in images])) * 1e-9
    assert period_s == pytest.approx(1 / rate_hz, rel=0.3)


def test_the_drive_is_the_same_with_the_same_seed(peer, start):
    shown = []
    for _ in range(2):
        node = start('replay', params={'size': [160, 96], 'seed': 5, 'loop': False}, remap=REMAP)
        images = peer.watch(Image, IMAGE_TOPIC)
        peer.wait_for(lambda: len(images) > 3, 'frames')  # noqa: B023
        assert node.stop() == 0
        shown.append({bytes(image.data) for image in images})
        peer.forget()

    assert shown[0] & shown[1]


@pytest.mark.parametrize('qos', [RELIABLE, BEST_EFFORT], ids=['reliable', 'best-effort'])
def test_any_subscriber_gets_frames(peer, start, qos):
    start('replay', params={'size': [160, 96]}, remap=REMAP)
    images = peer.watch(Image, IMAGE_TOPIC, qos)

    peer.wait_for(lambda: images, 'a frame')


def test_qos_override_is_of_one_topic(peer, start):
    override = {f'qos_overrides.{IMAGE_TOPIC}.publisher.reliability': 'best_effort'}
    start('replay', params={'size': [160, 96], **override}, remap=REMAP)

    for topic, reliability in ((IMAGE_TOPIC, ReliabilityPolicy.BEST_EFFORT),
                               ('/camera/camera_info', ReliabilityPolicy.RELIABLE)):
        (info,) = peer.wait_for(
            lambda: peer.node.get_publishers_info_by_topic(topic), topic)  # noqa: B023
        assert info.qos_profile.reliability == reliability


def test_its_parameters_are_described_and_stay_as_they_are_given(peer, start):
    start('replay', params={'size': [160, 96], 'rate_hz': 5.0}, remap=REMAP)
    table = {param.name: param for param in parameters.REPLAY}

    described = peer.descriptors(list(table), '/replay')

    for param, found in zip(table.values(), described, strict=True):
        assert (found.name, found.description) == (param.name, param.description)
        assert found.read_only
    assert described[list(table).index('rate_hz')].additional_constraints == '0 to 1000'
    assert {name: peer.parameter(name, '/replay') for name in table} == {
        name: param.default for name, param in table.items()} | {
            'size': [160, 96], 'rate_hz': 5.0}


@pytest.mark.parametrize(('params', 'reason'), [
    ({'source': '/nowhere/at/all.mp4'},
     "'/nowhere/at/all.mp4' is neither a file, a folder nor a camera device"),
    ({'source': '/dev/video97'}, '/dev/video97: cannot be opened as a camera'),
    ({'rate_hz': -1.0}, 'parameter rate_hz: found -1.0, expected 0 to 1000'),
    ({'rate_hz': 30}, 'rate_hz'),
    ({'size': [640]}, 'parameter size: found [640], expected [width, height]'),
    ({'size': [4, 4]}, 'size: found (4, 4), expected 16 to 8192 pixels a side'),
    ({'size': [100000, 100000]}, 'size: found (100000, 100000), expected 16 to 8192 pixels'),
    ({'seed': -1}, 'seed: found -1, expected 0 or more'),
    ({'size': 'large'}, 'size'),
    ({'loop': 'no way'}, 'loop'),
])
def test_what_cannot_be_replayed_is_one_line_and_exit_code_1(start, params, reason):
    node = start('replay', params=params)

    assert node.wait() == 1
    assert 'Traceback' not in node.output
    assert reason in node.lines[-1]


@pytest.mark.parametrize('content', ['text', 'empty folder', 'folder of broken pictures'])
def test_files_that_are_no_source(start, tmp_path, content):
    source = tmp_path / 'source'
    if content == 'text':
        source.write_text('no video')
    else:
        source.mkdir()
    if content == 'folder of broken pictures':
        (source / '1.png').write_bytes(b'no picture')
    node = start('replay', params={'source': str(source)})

    assert node.wait() == 1
    assert 'Traceback' not in node.output
    assert str(source) in node.lines[-1]


def test_a_video_that_goes_away_ends_it_with_a_line(peer, start, clips, tmp_path):
    clip = tmp_path / 'clip.mp4'
    shutil.copy(clips[1], clip)
    node = start('replay', params={'source': str(clip), 'rate_hz': 200.0}, remap=REMAP)
    images = peer.watch(Image, IMAGE_TOPIC)
    peer.wait_for(lambda: images, 'a frame')

    clip.unlink()

    assert node.wait() == 1
    assert 'Traceback' not in node.output
    assert f'{clip}: found no frame, expected those that it had before' in node.lines[-1]


class Pass:
    """A source in the place of the drive; plays once after the other."""

    rate_hz, live = 30.0, False

    def __init__(self, play):
        self.frames = lambda wanted: play()


def run_replay(monkeypatch, play):
    """Run the node here, as its process does; return the exit code."""
    monkeypatch.setattr(replay, 'open_source', lambda *args: Pass(play))
    monkeypatch.setattr(process, 'LONGEST_END_S', 600.0)  # it would end pytest
    handlers = {number: signal.getsignal(number) for number in process.ENDING}
    process.stopping.clear()
    try:
        return replay.main([])
    finally:
        process.stopping.clear()
        for number, handler in handlers.items():
            signal.signal(number, handler)


@pytest.mark.filterwarnings('ignore::pytest.PytestUnhandledThreadExceptionWarning')
def test_an_error_of_its_own_ends_the_node(monkeypatch, capfd):
    def play():
        raise ZeroDivisionError
        yield

    assert run_replay(monkeypatch, play) == 1
    assert 'replay: failed by an error of its own, printed above' in capfd.readouterr().err


@pytest.mark.parametrize('blocked', [False, True], ids=['spins', 'hangs'])
def test_a_source_that_never_yields_does_not_hold_up_the_end(monkeypatch, blocked):
    calls, over = itertools.count(), threading.Event()
    monkeypatch.setattr(replay, 'JOIN_S', 0.3 if blocked else 10.0)

    def play():
        if next(calls) == 0:
            threading.Timer(0.2, process.stopping.set).start()
        if blocked:
            over.wait(20)
        return iter(())

    started_s = time.monotonic()
    try:
        assert run_replay(monkeypatch, play) == 0
    finally:
        over.set()

    assert time.monotonic() - started_s < 5


def cpu_s(node):
    """Return the time that a process has spent on a CPU (proc(5))."""
    fields = Path(f'/proc/{node.process.pid}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def test_nothing_is_rendered_while_nobody_listens(peer, start, folder):
    node = start('replay', remap=REMAP)
    node.wait_for_line('at 30 Hz')
    peer.spin_for(0.5)
    before_s = cpu_s(node)

    peer.spin_for(2.0)

    assert cpu_s(node) - before_s < 0.2  # rendering takes one
    for message_type, topic in ((CameraInfo, '/camera/camera_info'), (Image, IMAGE_TOPIC)):
        started_s = time.monotonic()
        messages = peer.watch(message_type, topic)
        peer.wait_for(lambda: messages, 'a message')  # noqa: B023
        assert time.monotonic() - started_s < 5  # discovery, on a busy machine


def test_time_goes_on_while_nobody_listens(peer, start, folder):
    start('replay', params={'source': str(folder), 'rate_hz': 5.0}, remap=REMAP)
    images = peer.watch(Image, IMAGE_TOPIC, DEEP)
    peer.wait_for(lambda: len(images) >= 3, 'frames')
    left = images[-1]
    peer.forget()

    peer.spin_for(1.0)
    images = peer.watch(Image, IMAGE_TOPIC, DEEP)
    peer.wait_for(lambda: images, 'a frame after the pause')

    passed_s = (stamp_ns(images[0]) - stamp_ns(left)) * 1e-9
    steps, due = (number_of(images[0]) - number_of(left)) % 30, passed_s * 5
    # It does not hurry after what a busy machine has held up.
    assert 0.4 * due <= steps <= due + 2


def number_of(image):
    return int(pixels_of(image)[0, 0, 0]) // 8
