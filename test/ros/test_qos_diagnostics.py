"""Cameras and subscribers of either QoS, and what ``/diagnostics`` says if something is wrong."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from harness import (
    BEST_EFFORT, IMAGE_TOPIC, RELIABLE, TRANSPORT, NodeProcess, clip_frames, level_of, values_of,
)
from rclpy.node import NodeNameNonExistentError
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from bisenet_ros.input_check import cameras_heard, gap_remedy, input_problem
from bisenet_ros.transport import DISCOVERY_PROFILE, profile_path

OK, WARN, ERROR = 0, 1, 2

TRANSIENT = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@pytest.fixture(scope='module')
def node():
    with NodeProcess(
            params={'diagnostics_period_s': 0.2}, remap={'image': IMAGE_TOPIC}) as process:
        yield process.wait_active()


@pytest.fixture
def picture():
    return np.full((36, 64, 3), 120, np.uint8)


def published_qos(peer, topic):
    (info,) = peer.wait_for(lambda: peer.node.get_publishers_info_by_topic(topic), topic)
    return info.qos_profile


# -- QoS -------------------------------------------------------------------------------------


@pytest.mark.parametrize('listener', [RELIABLE, BEST_EFFORT], ids=['reliable', 'best-effort'])
@pytest.mark.parametrize(
    'camera', [RELIABLE, BEST_EFFORT, TRANSIENT], ids=['reliable', 'best-effort', 'latched'])
def test_every_camera_with_every_listener(peer, node, picture, camera, listener):
    camera = peer.camera(qos=camera)
    masks = peer.watch(Image, '/segmenter/mask', listener)

    peer.ask(camera, peer.image(picture), masks)


def test_qos_is_what_the_readme_says(peer, node):
    masks = peer.watch(Image, '/segmenter/mask')
    assert masks == []
    (info,) = peer.wait_for(
        lambda: peer.node.get_subscriptions_info_by_topic(IMAGE_TOPIC), 'the subscription')

    assert info.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
    assert info.qos_profile.durability == DurabilityPolicy.VOLATILE
    for name in ('mask', 'labels', 'confidence', 'color_mask', 'overlay', 'camera_info'):
        qos = published_qos(peer, f'/segmenter/{name}')
        assert qos.reliability == ReliabilityPolicy.RELIABLE
        assert qos.durability == DurabilityPolicy.VOLATILE


@pytest.fixture(scope='module')
def overridden():
    """Start a node whose input is reliable and whose mask is best effort."""
    overrides = {
        f'qos_overrides.{IMAGE_TOPIC}.subscription.reliability': 'reliable',
        f'qos_overrides.{IMAGE_TOPIC}.subscription.depth': 2,
        'qos_overrides./strict/segmenter/mask.publisher.reliability': 'best_effort'}
    with NodeProcess(
            params={'diagnostics_period_s': 0.2, **overrides}, remap={'image': IMAGE_TOPIC},
            namespace='/strict') as process:
        yield process.wait_active()


def test_qos_overrides(peer, overridden, picture):
    """Of a subscription too, which is made anew with every first listener."""
    camera = peer.camera()
    for _ in range(2):
        masks = peer.watch(Image, '/strict/segmenter/mask', BEST_EFFORT)
        (info,) = peer.wait_for(
            lambda: peer.node.get_subscriptions_info_by_topic(IMAGE_TOPIC), 'the subscription')
        assert info.qos_profile.reliability == ReliabilityPolicy.RELIABLE
        peer.ask(camera, peer.image(picture), masks)
        for subscription in list(peer.node.subscriptions):
            peer.node.destroy_subscription(subscription)
        peer.wait_for(lambda: not peer.subscribed(), 'no subscription')
    assert published_qos(
        peer, '/strict/segmenter/mask').reliability == ReliabilityPolicy.BEST_EFFORT
    assert published_qos(
        peer, '/strict/segmenter/labels').reliability == ReliabilityPolicy.RELIABLE


@pytest.mark.parametrize(('name', 'value'), [
    (f'qos_overrides.{IMAGE_TOPIC}.subscription.reliability', 'certain'),
    ('qos_overrides./segmenter/mask.publisher.depth', 'deep')])
def test_an_impossible_qos_override_is_one_line_at_start(start, name, value):
    """Not a traceback, and not hours later with the first subscriber."""
    process = start(params={name: value}, remap={'image': IMAGE_TOPIC})

    assert process.wait() == 1
    assert 'Traceback' not in process.output
    assert value in process.lines[-1]


# -- what is wrong with the input ------------------------------------------------------------


def test_nobody_listens(peer, node):
    status = peer.diagnostics().wait_for(
        'input', lambda status: 'nobody subscribes' in status.message, 'the idle message')

    assert level_of(status) == OK
    assert values_of(status)['topic'] == IMAGE_TOPIC


def test_no_publisher(peer, node):
    diagnostics = peer.diagnostics()
    peer.watch(Image, '/segmenter/mask')

    status = diagnostics.wait_for(
        'input', lambda status: level_of(status) == WARN, 'a warning')

    assert status.message.startswith(f'no publisher on {IMAGE_TOPIC}')
    node.wait_for_line(f'input: no publisher on {IMAGE_TOPIC}')


def test_an_image_on_another_topic_is_hinted_at(peer, node):
    other = peer.camera('/front/image_raw')
    diagnostics = peer.diagnostics()
    peer.watch(Image, '/segmenter/mask')

    status = diagnostics.wait_for(
        'input', lambda status: other.topic_name in status.message, 'the hint')

    assert level_of(status) == WARN
    assert 'image:=' in status.message
    assert '/segmenter/' not in status.message  # our own images are no cameras


def test_the_topic_that_was_remapped_away_is_hinted_at(peer, node):
    """A wrong guess: the camera is where the node would listen without the rule."""
    peer.camera('/image')
    diagnostics = peer.diagnostics()
    peer.watch(Image, '/segmenter/mask')

    status = diagnostics.wait_for(
        'input', lambda status: 'published on' in status.message, 'the hint')

    assert status.message.startswith(
        f'no publisher on {IMAGE_TOPIC}: start the camera driver, or remap with image:=TOPIC '
        '(images are published on /image)')


def test_what_others_publish_is_asked_of_nodes_and_no_topic_by_its_name():
    """A program that speaks DDS without ROS may publish images under a name that ROS forbids."""
    def publishers_of(name, namespace):
        if name == 'gone':
            raise NodeNameNonExistentError('gone meanwhile')
        return {'camera': [('/cam/image', ['sensor_msgs/msg/Image']), ('/cam/x', ['a/msg/B'])],
                'jpeg': [('/jpeg/compressed', ['sensor_msgs/msg/Image'])]}[name]

    def info_of(topic):
        assert topic == 'image', 'rclpy refuses names such as /front-camera/image'
        return []

    node = SimpleNamespace(
        get_name=lambda: 'segmenter', resolve_topic_name=lambda topic: f'/{topic}',
        get_node_names_and_namespaces=lambda: [
            (name, '/') for name in ('segmenter', 'gone', 'camera', 'jpeg')],
        get_publisher_names_and_types_by_node=publishers_of,
        get_publishers_info_by_topic=info_of)

    assert input_problem(node, 'image', 'sensor_msgs/msg/Image', BEST_EFFORT) == (
        'no publisher on /image: start the camera driver, or remap with image:=TOPIC (images '
        'are published on /cam/image, /jpeg)')


def test_only_publishers_that_are_heard_are_mixed():
    """Neither one of another type, as a wrong rule makes it, nor one of other QoS."""
    publishers = [
        SimpleNamespace(node_name=name, node_namespace='/', qos_profile=qos,
                        topic_type=f'sensor_msgs/msg/{kind}')
        for name, kind, qos in (('rear', 'Image', RELIABLE), ('front', 'Image', RELIABLE),
                                ('jpeg', 'CompressedImage', RELIABLE),
                                ('lossy', 'Image', BEST_EFFORT))]
    node = SimpleNamespace(get_publishers_info_by_topic=lambda topic: publishers)

    assert cameras_heard(node, 'image', 'sensor_msgs/msg/Image', RELIABLE) == ['/front', '/rear']


def test_an_incompatible_publisher_is_named(peer, overridden):
    peer.camera(qos=BEST_EFFORT)
    diagnostics = peer.diagnostics()
    peer.watch(Image, '/strict/segmenter/mask', BEST_EFFORT)

    status = diagnostics.wait_for(
        'input', lambda status: 'incompatible QoS' in status.message, 'the incompatibility',
        'strict/segmenter')

    assert level_of(status) == WARN
    assert '/peer publishes with incompatible QoS' in status.message
    assert 'eliab' in status.message
    assert 'qos_overrides' in status.message


def test_a_publisher_of_another_type_is_named(peer, node):
    peer.camera(message_type=CompressedImage)
    diagnostics = peer.diagnostics()
    peer.watch(Image, '/segmenter/mask')

    status = diagnostics.wait_for(
        'input', lambda status: 'CompressedImage' in status.message, 'the type')

    assert level_of(status) == WARN
    assert '/peer publishes sensor_msgs/msg/CompressedImage' in status.message
    assert 'image_transport' in status.message


def test_the_hint_for_compressed_images_names_what_to_remap(peer, start):
    """The topic that ``image`` is to become, which the node appends /compressed to."""
    start(params={'diagnostics_period_s': 0.2, 'image_transport': 'compressed'},
          namespace='/jpeg').wait_active()
    peer.camera('/front/image_raw/compressed', message_type=CompressedImage)
    diagnostics = peer.diagnostics()
    peer.watch(Image, '/jpeg/segmenter/mask')

    status = diagnostics.wait_for(
        'input', lambda status: '/front/image_raw' in status.message, 'the hint',
        'jpeg/segmenter')

    assert '/front/image_raw/compressed' not in status.message


@pytest.mark.parametrize(('own', 'published', 'message_type', 'wanted'), [
    ('raw', '/other/image/compressed', CompressedImage, 'compressed'),
    ('compressed', '/other/image', Image, 'raw')])
def test_a_camera_in_the_other_transport_is_named(
    peer, start, own, published, message_type, wanted,
):
    start(params={'diagnostics_period_s': 0.2, 'image_transport': own},
          remap={'image': '/other/image'}, namespace='/other').wait_active()
    peer.camera(published, message_type=message_type)
    diagnostics = peer.diagnostics()
    peer.watch(Image, '/other/segmenter/mask')

    status = diagnostics.wait_for(
        'input', lambda status: f'but one on {published}; ' in status.message, 'the hint',
        'other/segmenter')

    assert status.message.endswith(f'start with image_transport:={wanted}')
    assert level_of(status) == WARN


def test_a_silent_publisher(peer, node):
    peer.camera()
    diagnostics = peer.diagnostics()
    peer.watch(Image, '/segmenter/mask')

    status = diagnostics.wait_for(
        'input', lambda status: 'no frame arrives' in status.message, 'the silence')

    assert level_of(status) == WARN
    assert IMAGE_TOPIC in status.message


def test_no_false_alarm_at_start(peer, start, picture):
    """A camera that runs and a listener that waits: nothing to warn of."""
    camera = peer.camera()
    peer.node.create_timer(0.03, lambda: camera.publish(peer.image(picture)))
    for name in ('/quiet', '/silent', '/calm'):  # a machine that stands still is a silent camera
        masks = peer.watch(Image, f'{name}/segmenter/mask')
        process = start(params={'diagnostics_period_s': 0.1}, remap={'image': IMAGE_TOPIC},
                        namespace=name)
        peer.wait_for(lambda: len(masks) > 5, 'masks')  # noqa: B023
        alarms = [line for line in process.lines if 'WARN' in line or 'ERROR' in line]
        if not alarms:
            break
        process.kill()

    assert alarms == []


@pytest.mark.parametrize('share', ['all', 'some'])
def test_malformed_frames(peer, node, picture, share):
    camera, masks = peer.camera(), peer.watch(Image, '/segmenter/mask')
    diagnostics = peer.diagnostics()
    peer.ask(camera, peer.image(picture), masks)
    diagnostics.fresh('input')

    def alarming(status):
        camera.publish(broken)
        if share == 'some':
            camera.publish(peer.image(picture))
        return 'malformed' in status.message and (share == 'all') == (level_of(status) == ERROR)

    broken = peer.image(picture)
    broken.step = 7
    status = diagnostics.wait_for('input', alarming, 'malformed frames in the diagnostics')

    assert f'{IMAGE_TOPIC}: step: found 7, expected at least 192' in status.message
    line = node.wait_for_line('step: found 7')
    assert 'ERROR' in line
    assert 'Frame dropped' in line


def test_gaps_in_the_stream(peer, node, picture):
    """Stamps of every second frame are missing behind a while of all of them."""
    camera, masks = peer.camera(), peer.watch(Image, '/segmenter/mask')
    diagnostics = peer.diagnostics()
    peer.ask(camera, peer.image(picture), masks)
    before = diagnostics.counts()['missing in the stream']
    number = 0

    def gappy(status):
        nonlocal number
        for _ in range(3):
            number += 1 if number < 60 else 3 if number % 7 == 0 else 1
            image = peer.image(picture)
            image.header.stamp.sec, image.header.stamp.nanosec = divmod(
                1_800_000_000_000_000_000 + number * 33_333_333, 10**9)
            camera.publish(image)
            peer.spin_for(0.01)
        return 'missing in the stream' in status.message

    status = diagnostics.wait_for('input', gappy, 'the gaps in the diagnostics')

    assert level_of(status) == WARN
    # Tests keep to this machine, where FASTDDS_BUILTIN_TRANSPORTS would do nothing.
    assert 'start the camera driver with FASTRTPS_DEFAULT_PROFILES_FILE=/' in status.message
    assert 'FASTDDS_BUILTIN_TRANSPORTS' not in status.message
    assert diagnostics.counts()['missing in the stream'] > before


class Graph:
    """What ``gap_remedy`` asks a node for."""

    def __init__(self, *cameras):
        self._cameras = cameras

    def get_publishers_info_by_topic(self, topic):
        return [SimpleNamespace(node_name=name) for name in self._cameras]


SUBNET = {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'SUBNET'}
HERE = {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}


@pytest.mark.parametrize(('cameras', 'environ', 'begin'), [
    (['driver'], SUBNET, "they are lost on the way; start the camera driver with FASTDDS_BUILTIN_"
                         "TRANSPORTS='DEFAULT?sockets_size=16MB&max_msg_size=65500B' (if"),
    (['driver'], HERE, 'they are lost on the way; start the camera driver with FASTRTPS_DEFAULT_'
                       'PROFILES_FILE=/'),
    (['driver'], {**HERE, 'FASTDDS_BUILTIN_TRANSPORTS': 'UDPv4'},
     'they are lost on the way; start the camera driver with FASTRTPS_DEFAULT_PROFILES_FILE=/'),
    (['driver'], {'RMW_IMPLEMENTATION': 'rmw_cyclonedds_cpp'},
     'they are lost on the way; give the middleware room for whole frames'),
    # As the demonstration and the launch file start it: it has the transport.
    (['replay'], {**HERE, **TRANSPORT}, 'this machine is too busy for them'),
    (['replay', 'driver'], {**HERE, **TRANSPORT}, 'they are lost on the way; start the camera'),
    (['replay'], SUBNET, 'they are lost on the way; start the camera driver'),
    # Which is a matter of discovery alone.
    (['replay'], {**SUBNET, 'FASTRTPS_DEFAULT_PROFILES_FILE': str(
        profile_path(DISCOVERY_PROFILE))}, 'they are lost on the way; start the camera driver'),
])
def test_remedy_for_gaps_is_the_one_for_this_range_and_camera(cameras, environ, begin):
    assert gap_remedy(Graph(*cameras), IMAGE_TOPIC, environ).startswith(begin)


# -- what all is well looks like -------------------------------------------------------------


def test_content_when_all_is_well(peer, node, clips):
    (frame,) = clip_frames(clips[1], [0])
    camera, masks = peer.camera(), peer.watch(Image, '/segmenter/mask')
    diagnostics = peer.diagnostics()
    small = cv2.resize(frame, (320, 180))

    def running(status):
        image = peer.image(small)
        image.header.stamp = peer.node.get_clock().now().to_msg()
        camera.publish(image)
        peer.spin_for(0.02)
        return status.message == 'segmenting' and float(values_of(status)['output rate (Hz)']) > 1

    inference = diagnostics.wait_for('inference', running, 'inference')
    input_status = diagnostics.latest('input')

    assert masks
    assert level_of(inference) == OK
    assert inference.name == 'segmenter: inference'
    assert inference.hardware_id == 'cpu'
    values = values_of(inference)
    for key in ('inference time', 'latency', 'output age'):
        assert 0 < float(values[f'{key} median (ms)']) <= float(values[f'{key} p95 (ms)'])
    # Only of frames whose stamps are of this clock, and so not of the many other tests' frames.
    assert float(values['output age median (ms)']) < 5_000
    assert values['device'] == 'cpu'
    assert values['model'] == 'road_256x512.tflite'
    assert {'drop rate (Hz)', 'frames published', 'frames dropped', 'frames failed'} <= set(values)
    assert input_status.name == 'segmenter: input'
    assert level_of(input_status) == OK
    assert input_status.message == 'receiving'
    assert float(values_of(input_status)['input rate (Hz)']) > 0


def test_period_of_the_diagnostics(peer, node):
    arrays = peer.watch(DiagnosticArray, '/diagnostics')

    def own():
        return [array for array in arrays if array.status[0].name == 'segmenter: input']

    peer.wait_for(lambda: len(own()) >= 6, 'diagnostics')
    often = own()
    peer.set_or_fail(diagnostics_period_s=60.0)
    peer.spin_for(0.3)  # for what is on its way
    arrays.clear()
    peer.spin_for(1.0)
    seldom = own()
    peer.set_or_fail(diagnostics_period_s=0.2)

    stamps_s = [array.header.stamp.sec + array.header.stamp.nanosec * 1e-9 for array in often]
    assert np.median(np.diff(stamps_s)) == pytest.approx(0.2, rel=0.5)
    assert seldom == []
