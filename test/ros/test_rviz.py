"""The rviz2 view, checked against the format of rviz2's configurations: there is no rviz2 here."""

from pathlib import Path

import pytest
from rclpy.qos import (
    DurabilityPolicy, qos_check_compatible, QoSCompatibility, QoSProfile, ReliabilityPolicy,
)

from bisenet_ros import demo

yaml = pytest.importorskip('yaml')

CONFIG = Path(__file__).resolve().parents[2] / 'config' / 'segment.rviz'

#: rviz_default_plugins/plugins_description.xml and rviz_common's panels.
CLASSES = {
    *(f'rviz_common/{name}' for name in ('Displays', 'Selection', 'Time', 'Tool Properties',
                                         'Views')),
    *(f'rviz_default_plugins/{name}' for name in (
        'FocusCamera', 'Grid', 'Image', 'Interact', 'MoveCamera', 'Orbit', 'Select', 'TF')),
}

#: Keys of an Image display in files that rviz2 (Humble to Rolling) has written.
IMAGE_KEYS = {'Class', 'Enabled', 'Max Value', 'Median window', 'Min Value', 'Name',
              'Normalize Range', 'Topic', 'Value'}
TOPIC_KEYS = {'Depth', 'Durability Policy', 'History Policy', 'Reliability Policy', 'Value'}

RELIABILITY = {'Best Effort': ReliabilityPolicy.BEST_EFFORT,
               'Reliable': ReliabilityPolicy.RELIABLE}
DURABILITY = {'Volatile': DurabilityPolicy.VOLATILE,
              'Transient Local': DurabilityPolicy.TRANSIENT_LOCAL}

@pytest.fixture(scope='module')
def config():
    return yaml.safe_load(CONFIG.read_text())


@pytest.fixture(scope='module')
def displays(config):
    return config['Visualization Manager']['Displays']


def classes(node):
    """Yield every plugin that a configuration names, wherever in it."""
    if isinstance(node, dict):
        if node.get('Class'):
            yield node['Class']
        for value in node.values():
            yield from classes(value)
    elif isinstance(node, list):
        for value in node:
            yield from classes(value)


def test_sections_are_those_of_rviz2(config):
    assert set(config) == {'Panels', 'Visualization Manager', 'Window Geometry'}


def test_every_class_is_one_of_rviz2(config):
    assert set(classes(config)) <= CLASSES


def test_overlay_mask_and_camera_are_shown(displays):
    assert [(display['Name'], display['Topic']['Value']) for display in displays] == [
        ('Overlay', '/segmenter/overlay'), ('Mask', '/segmenter/mask'), ('Camera', '/image')]


def test_displays_are_written_as_rviz2_writes_them(displays):
    for display in displays:
        assert display['Class'] == 'rviz_default_plugins/Image'
        assert display['Enabled'] is True
        assert set(display) == IMAGE_KEYS
        assert set(display['Topic']) == TOPIC_KEYS


def asked(topic):
    """Return the quality of service that a display asks for."""
    return QoSProfile(
        depth=topic['Depth'], reliability=RELIABILITY[topic['Reliability Policy']],
        durability=DURABILITY[topic['Durability Policy']])


def test_every_topic_is_published_with_a_quality_that_connects(displays, start, peer):
    start('segmenter')
    start('replay')
    for display in displays:
        topic = display['Topic']
        publisher, = peer.wait_for(
            lambda: peer.node.get_publishers_info_by_topic(topic['Value']),  # noqa: B023
            f'a publisher of {topic["Value"]}')
        compatibility, reason = qos_check_compatible(publisher.qos_profile, asked(topic))
        assert publisher.topic_type == 'sensor_msgs/msg/Image'
        assert compatibility != QoSCompatibility.ERROR, reason


def test_camera_display_takes_what_camera_drivers_offer(displays):
    sensor_data = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)

    compatibility, reason = qos_check_compatible(sensor_data, asked(displays[-1]['Topic']))

    assert compatibility != QoSCompatibility.ERROR, reason


def test_window_places_every_display(config, displays):
    # Qt's state of a window names its docks in UTF-16; rviz2 names a dock as its display.
    state = bytes.fromhex(config['Window Geometry']['QMainWindow State'])
    positions = [state.index(display['Name'].encode('utf-16-be')) for display in displays]

    assert positions == sorted(positions)
    assert all(config['Window Geometry'][display['Name']] == {'collapsed': False}
               for display in displays)


def test_the_demonstration_shows_every_topic_of_the_view(displays):
    command = demo.watch_command()
    assert command.startswith(f'rviz2 -d {CONFIG} --ros-args -r ')
    taken = dict(rule.split(':=') for rule in command.split('-r ')[1:])
    shown = {display['Topic']['Value'] for display in displays}
    assert {taken.get(topic, topic) for topic in shown} == {
        demo.IMAGE_TOPIC, demo.MASK_TOPIC, demo.OVERLAY_TOPIC}
