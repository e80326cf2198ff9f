"""
The contract of Nav2's semantic segmentation layer (kiwicampus/semantic_segmentation_layer).

``Layer`` does with messages what that costmap plugin does, as read in its code: it subscribes with
sensor data QoS of depth 50, and to the labels reliable and transient local; pairs mask and
confidence by equal stamps; discards a mask whose number of pixels is not the point cloud's; reads
``data[v * width + u]``, so that padding would shear it; knows classes by *name* and only once a
LabelInfo has come.

vision_msgs has no wheel, so no LabelInfo can cross a wire here. Its fields are held against a
stand-in module; that it is latched for those who come late is held over DDS, with another message
in its place that carries the same.
"""

import sys
import types

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from harness import IMAGE_TOPIC, PATIENCE_S, InProcessNode, NodeProcess, Peer, clip_frames
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from bisenet_ros import conversions, segmenter
from bisenet_ros.core.segmenter import SHIPPED_MODEL, load_contract

SENSOR_DATA_50 = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)

LATCHED = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Layer:
    """What the costmap plugin makes of the topics of one segmenter."""

    def __init__(self, peer, node='/segmenter'):
        self.masks = peer.watch(Image, f'{node}/labels', SENSOR_DATA_50)
        self.confidences = peer.watch(Image, f'{node}/confidence', SENSOR_DATA_50)

    def pair(self):
        """Return a mask and a confidence of one stamp, or None."""
        for mask in reversed(self.masks):
            confidence = self.confidences.with_stamp(mask.header)
            if confidence is not None:
                return mask, confidence
        return None

    @staticmethod
    def costs(mask, confidence, cloud_size, class_names, wanted):
        """Return where a class is with which confidence, ``{(u, v): confidence}``."""
        assert mask.encoding == confidence.encoding == 'mono8'
        assert mask.width * mask.height == cloud_size, 'discarded with a warning'
        assert confidence.width * confidence.height == cloud_size
        unknown = set(wanted) - set(class_names.values())
        assert not unknown, f'CRITICAL ERROR: {unknown} ignored'
        found = {}
        for v in range(0, mask.height, 7):
            for u in range(0, mask.width, 7):
                class_id = mask.data[v * mask.width + u]
                if class_names.get(class_id) in wanted:
                    found[u, v] = confidence.data[v * mask.width + u]
        return found


@pytest.fixture(scope='module')
def node():
    with NodeProcess(remap={'image': IMAGE_TOPIC}) as process:
        yield process.wait_active()


@pytest.mark.parametrize('size', [(720, 1280), (333, 517)])
def test_layer_gets_what_it_reads(peer, node, clips, size):
    """Also of an odd size, from a camera that pads its rows."""
    (frame,) = clip_frames(clips[1], [3])
    height, width = size
    cut = np.ascontiguousarray(frame[-height:, :width])
    sent = peer.image(np.pad(cut.reshape(height, -1), ((0, 0), (0, 13))), 'mono8')
    sent.height, sent.width, sent.encoding = height, width, 'bgr8'
    layer, camera = Layer(peer), peer.camera()
    class_names = dict(enumerate(load_contract(SHIPPED_MODEL).class_names))

    peer.ask(camera, sent, layer.masks, layer.confidences)
    mask, confidence = layer.pair()

    assert mask.header == confidence.header == sent.header
    assert (mask.height, mask.width) == size
    assert mask.step == mask.width
    assert confidence.step == confidence.width
    costs = layer.costs(mask, confidence, height * width, class_names, {'road'})
    assert costs
    assert min(costs.values()) >= 127  # two classes: the winner has at least half
    labels = np.frombuffer(mask.data, np.uint8).reshape(size)
    assert set(np.unique(labels)) <= {*class_names, 255}
    assert set(costs) == {(u, v) for v, u in np.argwhere(labels == 1) if not (u % 7 or v % 7)}


def test_topics_are_siblings(peer, node):
    """vision_msgs: LabelInfo at the namespace level of the images."""
    published = dict(peer.node.get_publisher_names_and_types_by_node('segmenter', '/'))

    assert {'/segmenter/labels', '/segmenter/confidence'} <= set(published)


# -- LabelInfo -------------------------------------------------------------------------------


@pytest.fixture
def on_the_wire(monkeypatch):
    """Let a DiagnosticArray carry what a LabelInfo would: header, ids with names, threshold."""
    def message(class_names, threshold, header):
        statuses = [DiagnosticStatus(name=name, hardware_id=str(index))
                    for index, name in enumerate(class_names)]
        statuses[0].values = [KeyValue(key='threshold', value=str(threshold))]
        return DiagnosticArray(header=header, status=statuses)

    monkeypatch.setattr(conversions, 'label_info_type', lambda: DiagnosticArray)
    monkeypatch.setattr(conversions, 'label_info_message', message)


def names_in(message):
    return {int(status.hardware_id): status.name for status in message.status}


@pytest.mark.usefixtures('on_the_wire')
def test_late_joiner_gets_the_label_info(monkeypatch):
    with InProcessNode(monkeypatch), Peer('late') as late:
        late.spin_for(0.3)  # long after the node has published it

        infos = late.watch(DiagnosticArray, '/inside/segmenter/label_info', LATCHED)

        late.wait_for(lambda: infos, 'the label info')
        assert names_in(infos[0]) == {0: 'background', 1: 'road'}
        assert infos[0].header.stamp.sec > 0
        (info,) = late.node.get_publishers_info_by_topic('/inside/segmenter/label_info')
        assert info.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
        assert info.qos_profile.reliability == ReliabilityPolicy.RELIABLE


@pytest.mark.usefixtures('on_the_wire')
def test_label_info_follows_threshold_and_state(monkeypatch):
    with InProcessNode(monkeypatch), Peer('layer') as peer:
        infos = peer.watch(DiagnosticArray, '/inside/segmenter/label_info', LATCHED)

        def thresholds():
            return [info.status[0].values[0].value for info in infos]

        peer.wait_for(lambda: thresholds() == ['0.0'], 'the first')
        peer.set_or_fail('/inside/segmenter', min_confidence=0.75)
        peer.wait_for(lambda: thresholds() == ['0.0', '0.75'], 'the threshold', PATIENCE_S)
        assert peer.transition('deactivate', '/inside/segmenter')
        assert peer.transition('cleanup', '/inside/segmenter')
        assert peer.transition('configure', '/inside/segmenter')
        assert peer.transition('activate', '/inside/segmenter')
        peer.wait_for(lambda: thresholds() == ['0.0', '0.75', '0.75'], 'the second life')


def test_label_info_is_vision_msgs(monkeypatch):
    """With vision_msgs there, the node publishes its LabelInfo; only the wire is missing here."""
    class VisionClass:
        __slots__ = ('class_id', 'class_name')

    class LabelInfo:
        __slots__ = ('class_map', 'header', 'threshold')

        def __init__(self):
            self.class_map = []

    published = []

    class Publisher:
        def __init__(self, topic, qos):
            self.topic, self.qos = topic, qos

        def publish(self, message):
            published.append((self, message))

    create_publisher = segmenter.SegmenterNode.create_publisher
    destroy_publisher = segmenter.SegmenterNode.destroy_publisher

    def create(self, message_type, topic, qos, **options):
        if message_type is LabelInfo:
            return Publisher(self.resolve_topic_name(topic), qos)
        return create_publisher(self, message_type, topic, qos, **options)

    def destroy(self, publisher):
        return isinstance(publisher, Publisher) or destroy_publisher(self, publisher)

    messages = types.ModuleType('vision_msgs.msg')
    messages.LabelInfo, messages.VisionClass = LabelInfo, VisionClass
    package = types.ModuleType('vision_msgs')
    package.msg = messages
    monkeypatch.setitem(sys.modules, 'vision_msgs', package)
    monkeypatch.setitem(sys.modules, 'vision_msgs.msg', messages)
    monkeypatch.setattr(segmenter.SegmenterNode, 'create_publisher', create)
    monkeypatch.setattr(segmenter.SegmenterNode, 'destroy_publisher', destroy)

    with InProcessNode(monkeypatch, {'min_confidence': 0.5}):
        ((publisher, message),) = published

    assert publisher.topic == '/inside/segmenter/label_info'
    assert publisher.qos.durability == DurabilityPolicy.TRANSIENT_LOCAL
    assert publisher.qos.reliability == ReliabilityPolicy.RELIABLE
    assert publisher.qos.depth == 1
    assert [(entry.class_id, entry.class_name) for entry in message.class_map] == [
        (0, 'background'), (1, 'road')]
    assert message.threshold == 0.5


def test_no_label_info_without_vision_msgs(monkeypatch):
    monkeypatch.setitem(sys.modules, 'vision_msgs', None)

    with InProcessNode(monkeypatch), Peer('graph') as peer:
        peer.wait_for(
            lambda: peer.node.count_publishers('/inside/segmenter/labels'), 'the labels')
        assert not peer.node.count_publishers('/inside/segmenter/label_info')
