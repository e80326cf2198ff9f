"""
Frames of a camera's size reach the node, those that do not are counted, and nobody is left out.

``benchmarks/transport.py`` measures the same beside the default transport.
"""

import os
from pathlib import Path

import cv2
import pytest
from harness import IMAGE_TOPIC, clip_frames
from sensor_msgs.msg import Image

from bisenet_ros.transport import transport_environment

#: At 30 Hz; fewer in the range that is the tests' and the demonstration's alone.
FRAMES = {'subnet': 300, 'localhost': 120}

#: 99 % is what is aimed at, and on an idle machine it is all of them.
FLOOR = 0.9

#: How many may neither arrive nor be counted: nobody sees that the first or last are missing.
UNCOUNTED = 3

PLAIN_CAMERA = Path(__file__).with_name('plain_camera.py')

#: Ways to find each other: on this machine alone, and as ROS does unless told otherwise.
RANGES = {'localhost': {}, 'subnet': {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'SUBNET'}}

SMALL = {'size': [160, 96], 'rate_hz': 10.0}


@pytest.fixture(params=sorted(RANGES))
def reach(request):
    if request.param == 'subnet' and os.environ.get('ROS_DISTRO') == 'humble':
        pytest.skip('Humble knows no discovery range')
    return request.param


@pytest.fixture
def shipped(reach):
    """Give the environment that the launch file would give a node, in each discovery range."""
    reach = RANGES[reach]
    setting = transport_environment({**os.environ, **reach})
    if not setting:
        pytest.skip('this middleware is not Fast DDS: its transport is not ours to choose')
    return {**reach, **setting}


@pytest.fixture
def drive(clips, tmp_path, reach):
    """Make a folder with frames of 1280 x 720."""
    for number, frame in enumerate(clip_frames(clips[1], list(range(10)))):
        cv2.imwrite(str(tmp_path / f'{number:03}.jpg'), frame)
    for number in range(10, FRAMES[reach]):
        (tmp_path / f'{number:03}.jpg').symlink_to(f'{number % 10:03}.jpg')
    return tmp_path


@pytest.mark.slow
def test_frames_reach_the_callback_and_the_rest_is_counted(peer, start, reach, shipped, drive):
    start(remap={'image': IMAGE_TOPIC}, params={'diagnostics_period_s': 0.2},
          default_transport=True, env=shipped).wait_active()
    diagnostics, masks = peer.diagnostics(), peer.watch(Image, '/segmenter/mask')
    peer.wait_for(peer.subscribed, 'the subscription')
    replay = start('replay', params={'source': str(drive), 'rate_hz': 30.0, 'loop': False},
                   remap={'image': IMAGE_TOPIC}, default_transport=True, env=shipped)

    peer.wait_for(lambda: replay.process.poll() is not None, 'the end of the drive', 60)
    assert replay.wait() == 0
    counts = diagnostics.counts()

    assert masks
    assert counts['received'] >= FLOOR * FRAMES[reach]
    # Not more than that: by stamps alone a late frame looks like one that is missing.
    assert counts['received'] + counts['missing in the stream'] >= FRAMES[reach] - UNCOUNTED
    # One may be under way.
    assert 0 <= counts['received'] - sum(counts[name] for name in (
        'published', 'dropped', 'skipped by max_rate_hz', 'skipped without a listener',
        'malformed', 'failed')) <= 1


def test_a_plain_camera_and_a_plain_watcher(start, shipped):
    """Both on the default transport: they see the node and are seen, the replay node too."""
    reach = {name: value for name, value in shipped.items() if name.startswith('ROS_')}
    start(default_transport=True, env=shipped).wait_active()
    start('replay', params=SMALL, remap={'image': 'other_image'}, default_transport=True,
          env=shipped)
    plain = start(PLAIN_CAMERA, remap={'mask': '/segmenter/mask'}, default_transport=True,
                  env=reach)

    plain.wait_for_line('mask 160x90')
    plain.wait_for_line('image 160x96')
