"""Two cameras: two segmenters in two namespaces, that share a machine and nothing else."""

import numpy as np
import pytest
from harness import BEST_EFFORT, NodeProcess, clip_frames, pixels_of
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool

SIDES = ('left', 'right')


@pytest.fixture(scope='module')
def nodes():
    processes = {side: NodeProcess(namespace=f'/{side}', params={'diagnostics_period_s': 0.2})
                 for side in SIDES}
    try:
        yield {side: process.wait_active() for side, process in processes.items()}
    finally:
        for process in processes.values():
            process.kill()


@pytest.fixture
def bench(peer, nodes):
    cameras = {side: peer.camera(f'/{side}/image', BEST_EFFORT) for side in SIDES}
    masks = {side: peer.watch(Image, f'/{side}/segmenter/mask') for side in SIDES}
    return cameras, masks


def test_each_segments_its_own_camera(peer, bench, clips):
    cameras, masks = bench
    frames = dict(zip(SIDES, clip_frames(clips[0], [0, 200]), strict=True))
    sent = {side: peer.image(frames[side]) for side in SIDES}
    for side in SIDES:
        sent[side].header.frame_id = f'{side}_optical_frame'

    found = {side: peer.ask(cameras[side], sent[side], masks[side])[0] for side in SIDES}

    for side, other in (SIDES, SIDES[::-1]):
        assert found[side].header == sent[side].header
        assert masks[side].with_stamp(sent[other].header) is None
    assert not np.array_equal(*(pixels_of(found[side]) for side in SIDES))


def test_both_at_once(peer, bench, clips):
    cameras, masks = bench
    frames = clip_frames(clips[0], list(range(10)))
    for side in SIDES:
        peer.ask(cameras[side], peer.image(frames[0]), masks[side])
    sent = []
    for frame in frames:
        for side in SIDES:
            sent.append((side, peer.image(frame)))
            cameras[side].publish(sent[-1][1])
        peer.spin_for(0.1)

    for side in SIDES:
        last = [image for name, image in sent if name == side][-1]
        peer.wait_for(lambda: masks[side].with_stamp(last.header), f'the last of {side}')  # noqa: B023


def test_parameters_services_and_diagnostics_are_apart(peer, bench, clips):
    cameras, masks = bench
    (frame,) = clip_frames(clips[0], [0])
    diagnostics = peer.diagnostics()

    peer.set_or_fail('/left/segmenter', output_size='model')
    peer.call(SetBool, '/right/segmenter/enable', SetBool.Request(data=False))

    (left,) = peer.ask(cameras['left'], peer.image(frame), masks['left'])
    assert (left.height, left.width) == (256, 512)
    assert peer.parameter('output_size', '/right/segmenter') == 'input'
    for node, words in (('right/segmenter', 'disabled by ~/enable'),
                        ('left/segmenter', 'receiving')):
        def said(status, words=words):
            cameras['left'].publish(peer.image(frame))
            return words in status.message

        diagnostics.wait_for('input', said, words, node)
    peer.set_or_fail('/left/segmenter', output_size='input')
    peer.call(SetBool, '/right/segmenter/enable', SetBool.Request(data=True))


def test_the_end_of_one_does_not_touch_the_other(peer, nodes, bench, clips):
    cameras, masks = bench
    (frame,) = clip_frames(clips[0], [3])

    assert nodes['left'].stop() == 0

    peer.ask(cameras['right'], peer.image(frame), masks['right'])
    assert nodes['right'].process.poll() is None
