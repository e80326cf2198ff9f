"""Why no image arrives, or not every one: what the ROS graph says about the input topic."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from rclpy.node import Node, NodeNameNonExistentError
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible

from bisenet_ros.transport import has_choice, room_environment

#: The node of ours that plays a camera.
REPLAY = 'replay'


def input_problem(
    node: Node, topic: str, message_type: str, qos: QoSProfile, name: str = 'image',
) -> str:
    """
    Look for a publisher that the node could hear.

    Parameters
    ----------
    node : rclpy.node.Node
    topic : str
        As our subscription was given it.
    message_type : str
        Such as ``sensor_msgs/msg/Image``.
    qos : QoSProfile
        Of our subscription.
    name : str
        What a remapping rule for this node calls the topic.

    Returns
    -------
    str
        What is wrong and how to mend it; empty if a publisher with compatible QoS is there.

    """
    publishers = node.get_publishers_info_by_topic(topic)
    if not publishers and (hint := _other_transport(node, topic, message_type)):
        return hint
    if not publishers:
        # What image is to become: the node appends this to it.
        elsewhere = ', '.join(sorted({
            other.removesuffix('/compressed') for other in _published(node, message_type)}))
        listed = f' (images are published on {elsewhere})' if elsewhere else ''
        return (f'no publisher on {node.resolve_topic_name(topic)}: start the camera driver, or '
                f'remap with {name}:=TOPIC{listed}')
    reasons = [reason for info in publishers if (reason := _mismatch(info, message_type, qos))]
    return '; '.join(reasons) if len(reasons) == len(publishers) else ''


def cameras_heard(node: Node, topic: str, message_type: str, qos: QoSProfile) -> list[str]:
    """Return the node of each publisher that is heard, by its full name; see ``input_problem``."""
    return sorted(_full_name(info) for info in node.get_publishers_info_by_topic(topic)
                  if not _mismatch(info, message_type, qos))


def _other_transport(node: Node, topic: str, message_type: str) -> str:
    """Return what to say where the camera publishes this image, but in the other transport."""
    resolved = node.resolve_topic_name(topic)
    if message_type == 'sensor_msgs/msg/Image':
        wanted, beside = 'compressed', f'{resolved}/compressed'
        other = 'sensor_msgs/msg/CompressedImage'
    else:
        wanted, beside = 'raw', resolved.removesuffix('/compressed')
        other = 'sensor_msgs/msg/Image'
    return (f'no publisher on {resolved}, but one on {beside}; start with '
            f'image_transport:={wanted}' if beside in _published(node, other) else '')


def _published(node: Node, message_type: str) -> Iterator[str]:
    """
    Yield the topics on which other nodes publish a type.

    Node by node: a question about a topic follows our remapping rules, and refuses the names of
    programs that speak DDS without ROS.

    """
    for name, namespace in node.get_node_names_and_namespaces():
        if name == node.get_name():  # a segmenter's masks are images too
            continue
        try:
            topics = node.get_publisher_names_and_types_by_node(name, namespace)
        except NodeNameNonExistentError:  # gone meanwhile, or not known yet
            continue
        yield from (topic for topic, types in topics if message_type in types)


def gap_remedy(node: Node, topic: str, environ: Mapping[str, str]) -> str:
    """
    Return what to do where frames are missing in the stream.

    Parameters
    ----------
    node : rclpy.node.Node
    topic : str
        The input, as our subscription was given it.
    environ : Mapping
        The environment of this process. Its discovery range is the camera driver's, too.

    """
    cameras = {info.node_name for info in node.get_publishers_info_by_topic(topic)}
    if cameras == {REPLAY} and has_choice(environ):
        # Whoever chose a transport for this process, the launch file first of all, did for that.
        return 'this machine is too busy for them (or replay has another transport than this node)'
    if not (room := room_environment(environ)):
        return ('they are lost on the way; give the middleware room for whole frames (see the '
                'guide on DDS tuning of ROS 2)')
    setting = ' '.join(f'{name}={shlex.quote(value)}' for name, value in room.items())
    return (f'they are lost on the way; start the camera driver with {setting} (if it has that, '
            'the machine or the network is too busy)')


def _full_name(info: Any) -> str:
    return f'{info.node_namespace.rstrip("/")}/{info.node_name}'


def _mismatch(info: Any, message_type: str, qos: QoSProfile) -> str:
    """Return why one publisher cannot be heard; empty if it can."""
    name = _full_name(info)
    if info.topic_type != message_type:
        return (f'{name} publishes {info.topic_type}, expected {message_type}; '
                'see the parameter image_transport')
    compatibility, reason = qos_check_compatible(info.qos_profile, qos)
    if compatibility == QoSCompatibility.ERROR:
        return (f'{name} publishes with incompatible QoS ({reason.strip()}); change its QoS or '
                'our qos_overrides')
    return ''
