"""Several cameras in one process: a segmenter each, one engine, turns, and ends of their own."""

import re
import signal

import numpy as np
import pytest
from harness import (
    BEST_EFFORT, ROOT, NodeProcess, Stopwatch, clip_frames, level_of, pixels_of, values_of,
)
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from sensor_msgs.msg import Image
from standin import StandIn
from tflite_models import Toy

from bisenet_ros.core.segmenter import Segmenter

SIDES = ('front', 'rear')

TOY = Toy()


def masks_of(peer, sides=SIDES, root=''):
    return {side: peer.watch(Image, f'{root}/{side}/segmenter/mask') for side in sides}


def cameras_of(peer, sides=SIDES, root=''):
    return {side: peer.camera(f'{root}/{side}/image', BEST_EFFORT) for side in sides}


def wait_active(process, sides=SIDES, root=''):
    for side in sides:
        process.wait_for_line(f'[{".".join(filter(None, (root, side)))}.segmenter]: active')
    return process


@pytest.fixture(scope='module')
def node():
    with NodeProcess('cameras', {'cameras': SIDES, 'diagnostics_period_s': 0.2}) as process:
        yield wait_active(process)


def picture(seed, hw=(48, 64)):
    return np.random.default_rng(seed).integers(0, 256, (*hw, 3), np.uint8)


def test_each_gets_the_masks_of_its_own_frames(peer, node, clips):
    cameras, masks = cameras_of(peer), masks_of(peer)
    frames = dict(zip(SIDES, clip_frames(clips[0], [0, 200]), strict=True))
    sent = {side: peer.image(frames[side]) for side in SIDES}

    found = {side: peer.ask(cameras[side], sent[side], masks[side])[0] for side in SIDES}

    alone = Segmenter.load(device='cpu')
    for side, other in (SIDES, SIDES[::-1]):
        assert found[side].header == sent[side].header
        assert masks[side].with_stamp(sent[other].header) is None
        labels = alone.segment(frames[side], channels='bgr').labels
        np.testing.assert_array_equal(pixels_of(found[side]), labels * 255)


def test_model_is_loaded_once(peer, node):
    status = peer.diagnostics().fresh('inference', 'front/segmenter')
    assert values_of(status)['engine shared by'] == '2 cameras'
    assert node.output.count('Created TensorFlow Lite XNNPACK delegate') <= 1
    assert '[rear.segmenter]: the engine is shared with 1 more.' in node.output
    assert '[front.segmenter]: the engine is shared' not in node.output


def test_remapping_rule_that_is_hinted_at_is_of_one_camera_alone(peer, node):
    masks_of(peer, ['rear'])
    other = peer.camera('/usb_cam/image_raw')
    status = peer.diagnostics().wait_for(
        'input', lambda status: 'no publisher' in status.message, 'a hint', 'rear/segmenter')
    assert f'images are published on {other.topic_name}' in status.message
    assert 'start the camera driver, or remap with /rear/image:=TOPIC (' in status.message


def test_fast_camera_does_not_starve_a_slow_one(peer, node):
    """The fast one has a frame at any time; the slow one's frames are segmented all the same."""
    cameras, masks = cameras_of(peer), masks_of(peer)
    for seed, side in enumerate(SIDES):
        peer.ask(cameras[side], peer.image(picture(seed)), masks[side])
    before = peer.diagnostics().counts('front/segmenter')
    fast = picture(2, (480, 640))
    timer = peer.node.create_timer(0.004, lambda: cameras['front'].publish(peer.image(fast)))
    try:
        peer.wait_for(lambda: len(masks['front']) > 10, 'masks of the fast camera')
        slow = [peer.image(picture(seed)) for seed in range(8)]
        turns = []
        for frame in slow:
            seen = len(masks['front'])
            peer.ask(cameras['rear'], frame, masks['rear'])
            turns.append(len(masks['front']) - seen)
        counts = peer.diagnostics().counts('front/segmenter')
    finally:
        peer.node.destroy_timer(timer)

    # Not how long: the peer and the node share two busy cores.
    assert sorted(turns)[len(turns) // 2] <= 10, turns
    assert counts['dropped'] > before['dropped']


def test_parameters_and_lifecycle_are_each_ones_own(peer, node):
    cameras, masks = cameras_of(peer), masks_of(peer)
    diagnostics = peer.diagnostics()
    peer.set_or_fail('/front/segmenter', output_size='model')
    for side in SIDES:
        peer.ask(cameras[side], peer.image(picture(0)), masks[side])
    assert {side: masks[side][-1].height for side in SIDES} == {'front': 256, 'rear': 48}
    peer.set_or_fail('/front/segmenter', output_size='input')

    assert peer.transition('deactivate', '/front/segmenter')
    peer.ask(cameras['rear'], peer.image(picture(1)), masks['rear'])
    assert peer.state('/front/segmenter') == 'inactive'
    assert peer.transition('cleanup', '/front/segmenter')
    peer.ask(cameras['rear'], peer.image(picture(2)), masks['rear'])
    diagnostics.wait_for(
        'input', lambda status: 'unconfigured' in status.message, 'that it says so',
        'front/segmenter')
    # The model's file may be another now; the other camera keeps what it has.
    assert peer.transition('configure', '/front/segmenter')
    assert peer.transition('activate', '/front/segmenter')
    for side in SIDES:
        peer.ask(cameras[side], peer.image(picture(3)), masks[side])


def test_shutdown_of_one_leaves_the_other_and_of_both_ends_it(peer, start):
    node = wait_active(start('cameras', {'cameras': SIDES}, namespace='/two'), root='two')
    cameras, masks = cameras_of(peer, root='/two'), masks_of(peer, root='/two')

    assert peer.transition('shutdown', '/two/front/segmenter')
    peer.ask(cameras['rear'], peer.image(picture(0)), masks['rear'])
    assert node.process.poll() is None
    assert peer.transition('shutdown', '/two/rear/segmenter')

    assert node.wait() == 0


def test_names_and_parameters_under_a_namespace(peer, start, tmp_path):
    params_file = tmp_path / 'params.yaml'
    params_file.write_text(
        '/**:\n  ros__parameters:\n    overlay_alpha: 0.25\n    smoothing: 0.5\n'
        '/robot/rear/segmenter:\n  ros__parameters:\n    smoothing: 0.75\n')
    node = wait_active(start(
        'cameras', {'cameras': SIDES}, namespace='/robot',
        remap={'__node': 'all', '/robot/rear/image': '/d435/image'},
        arguments=['--params-file', str(params_file)]), root='robot')

    values = {(side, name): peer.parameter(name, f'/robot/{side}/segmenter')
              for side in SIDES for name in ('smoothing', 'overlay_alpha')}
    assert values == {('front', 'smoothing'): 0.5, ('rear', 'smoothing'): 0.75,
                      ('front', 'overlay_alpha'): 0.25, ('rear', 'overlay_alpha'): 0.25}
    masks = masks_of(peer, root='/robot')
    for topic, side in (('/robot/front/image', 'front'), ('/d435/image', 'rear')):
        peer.ask(peer.camera(topic), peer.image(picture(0)), masks[side])
    assert node.stop() == 0


def test_remapping_rules_that_swap_two_cameras(peer, start):
    root = '/swapped'
    topics = [f'{root}/{side}/image' for side in SIDES]
    wait_active(start(
        'cameras', {'cameras': SIDES, 'model': 'road_128x256'}, namespace=root,
        remap=dict(zip(topics, topics[::-1], strict=True))), root='swapped')
    cameras, masks = cameras_of(peer, root=root), masks_of(peer, root=root)

    for side, other in (SIDES, SIDES[::-1]):
        sent = peer.image(picture(1))
        peer.ask(cameras[side], sent, masks[other])
        assert masks[side].with_stamp(sent.header) is None
    peer.node.destroy_publisher(cameras['front'])
    status = peer.diagnostics().wait_for(
        'input', lambda status: 'no publisher' in status.message, 'that it is missed',
        'swapped/rear/segmenter')
    assert f'no publisher on {topics[0]}: ' in status.message


@pytest.mark.parametrize('cameras', [
    [], ['a', 'a'], ['a', 'b c'], ['a', '1'], ['/a'], ['a/'], ['a__b']])
def test_names_that_cannot_be_namespaces_are_refused(start, cameras):
    node = start('cameras', {'cameras': cameras} if cameras else {})

    assert node.wait() == 1
    assert re.search(r'parameter cameras: found \[.*\], expected the name of each camera once, of '
                     r'letters, digits and single underscores; give '
                     r'-p cameras:="\[front, rear\]"\.$',
                     node.output), node.output
    assert 'Traceback' not in node.output


def test_fault_of_one_at_the_start_names_it(start, tmp_path):
    params_file = tmp_path / 'params.yaml'
    params_file.write_text('/rear/segmenter:\n  ros__parameters:\n    model: /none.tflite\n')
    node = start('cameras', {'cameras': SIDES}, arguments=['--params-file', str(params_file)])

    assert node.wait() == 1
    assert '/rear/segmenter: /none.tflite: cannot be read' in node.output


@pytest.mark.parametrize('numbers', [
    (signal.SIGINT,), (signal.SIGTERM,), (signal.SIGHUP,), (signal.SIGINT, signal.SIGINT)])
def test_end_under_load(start, peer, numbers):
    """Four cameras at their limit: exit code 0 within two seconds, and nothing said after."""
    sides = ('a', 'b', 'c', 'd')
    node = wait_active(start('cameras', {'cameras': sides}), sides)
    cameras, masks = cameras_of(peer, sides), masks_of(peer, sides)
    frame = peer.image(picture(0, (480, 640)))
    timer = peer.node.create_timer(
        0.02, lambda: [camera.publish(frame) for camera in cameras.values()])
    try:
        peer.wait_for(lambda: all(masks.values()), 'masks of every camera')
    finally:
        peer.node.destroy_timer(timer)

    before = len(node.lines)
    with Stopwatch() as watch:
        for number in numbers:
            node.send(number)
        code = node.wait()

    assert code == 0, node.output
    assert node.lines[before:] == []
    assert watch.seconds < 2.0


# -- one stick -----------------------------------------------------------------------------------


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    with StandIn(TOY.save(tmp_path), monkeypatch) as device:
        yield device


def start_on_the_stick(start, stand_in, **params):
    return wait_active(start(
        'cameras', {'cameras': SIDES, 'model': str(stand_in.model), 'num_threads': 1,
                    'diagnostics_period_s': 0.2, 'inference_timeout_s': 1.0, **params},
        namespace='/stick', env=stand_in.environment), root='stick')


def ask_all(peer, cameras, labels, stand_in, seed):
    alone = Segmenter.load(stand_in.model, device='cpu', num_threads=1)
    for side in SIDES:
        rgb = picture(seed, TOY.input_hw)
        (answer,) = peer.ask(cameras[side], peer.image(rgb, 'rgb8'), labels[side])
        np.testing.assert_array_equal(pixels_of(answer), alone.segment(rgb).labels)


def test_one_stick_serves_both_and_both_tell_of_its_failure(peer, start, stand_in):
    node = start_on_the_stick(start, stand_in)
    cameras = cameras_of(peer, root='/stick')
    labels = {side: peer.watch(Image, f'/stick/{side}/segmenter/labels') for side in SIDES}
    diagnostics = peer.diagnostics()
    # Not by the line that tells of it: who is configured after the stick was opened gets none.
    for side in SIDES:
        diagnostics.wait_for('inference', lambda status: values_of(status)['device'] == 'usb:0',
                             'the stick', f'stick/{side}/segmenter')
    served = stand_in.served
    ask_all(peer, cameras, labels, stand_in, 1)
    assert stand_in.served >= served + 2
    assert len(stand_in.opened) == 1

    stand_in.behave('abort usb=0')
    ask_all(peer, cameras, labels, stand_in, 2)
    for side in SIDES:
        status = diagnostics.wait_for(
            'inference', lambda status: level_of(status) and 'SIGABRT' in status.message,
            'the fault', f'stick/{side}/segmenter')
        assert values_of(status)['device'] == 'cpu'
        assert len([line for line in node.output.splitlines()
                    if f'[stick.{side}.segmenter]' in line and 'SIGABRT' in line]) == 1

    stand_in.behave('')
    for side in SIDES:
        node.wait_for_line(f'[stick.{side}.segmenter]: usb:0 is in service again.')
    ask_all(peer, cameras, labels, stand_in, 3)
    assert node.stop() == 0


def test_end_while_the_stick_hangs(peer, start, stand_in):
    """Both wait for a device that never answers; that holds the end up once and not twice."""
    node = start_on_the_stick(start, stand_in, device='usb:0', inference_timeout_s=30.0)
    cameras = cameras_of(peer, root='/stick')
    labels = {side: peer.watch(Image, f'/stick/{side}/segmenter/labels') for side in SIDES}
    ask_all(peer, cameras, labels, stand_in, 1)
    stand_in.behave('hang')
    for side in SIDES:
        cameras[side].publish(peer.image(picture(2, TOY.input_hw), 'rgb8'))
    peer.wait_for(lambda: stand_in.hangs, 'that it hangs')
    peer.spin_for(0.3)

    with Stopwatch() as watch:
        assert node.stop() == 0
    assert watch.seconds < 2.0


def test_one_that_waits_for_its_stick_holds_up_no_other(peer, start, stand_in):
    node = start_on_the_stick(start, stand_in, device='cpu')
    cameras = cameras_of(peer, root='/stick')
    labels = {side: peer.watch(Image, f'/stick/{side}/segmenter/labels') for side in SIDES}
    ask_all(peer, cameras, labels, stand_in, 1)
    for transition in ('deactivate', 'cleanup'):
        assert peer.transition(transition, '/stick/rear/segmenter')
    stand_in.behave('hang_open')
    peer.set_or_fail('/stick/rear/segmenter', device='usb:0', device_open_timeout_s=20.0)
    client = peer.node.create_client(ChangeState, '/stick/rear/segmenter/change_state')
    peer.wait_for(client.service_is_ready, 'the service')
    configuring = client.call_async(ChangeState.Request(transition=Transition(
        id=Transition.TRANSITION_CONFIGURE)))
    peer.wait_for(lambda: stand_in.hangs, 'that it is being opened')

    for seed in range(5):
        rgb = picture(seed, TOY.input_hw)
        peer.ask(cameras['front'], peer.image(rgb, 'rgb8'), labels['front'])

    assert not configuring.done()
    assert node.stop() == 0


# -- what ships ----------------------------------------------------------------------------------


def test_is_a_tool_of_the_package():
    assert "'cameras'" in (ROOT / 'setup.py').read_text()
