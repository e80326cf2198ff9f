"""Why no image arrives: what the ROS graph says about the input topic."""

from __future__ import annotations

from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible


def input_problem(node: Node, topic: str, message_type: str, qos: QoSProfile) -> str:
    """
    Look for a publisher that the node could hear.

    Parameters
    ----------
    node : rclpy.node.Node
    topic : str
        Resolved name.
    message_type : str
        Such as ``sensor_msgs/msg/Image``.
    qos : QoSProfile
        Of our subscription.

    Returns
    -------
    str
        What is wrong and how to mend it; empty if a publisher with compatible QoS is there.

    """
    publishers = node.get_publishers_info_by_topic(topic)
    if not publishers:
        # A segmenter's masks are images too, its own and those of others beside it.
        elsewhere = sorted(
            # What image is to become: the node appends this to it.
            name.removesuffix('/compressed') for name, types in node.get_topic_names_and_types()
            if message_type in types and any(
                info.node_name != node.get_name()
                for info in node.get_publishers_info_by_topic(name)))
        hint = (f'images are published on {", ".join(elsewhere)}; remap with image:=TOPIC'
                if elsewhere else 'start the camera driver, or remap with image:=TOPIC')
        return f'no publisher on {topic}: {hint}'
    reasons = [reason for info in publishers if (reason := _mismatch(info, message_type, qos))]
    return '; '.join(reasons) if len(reasons) == len(publishers) else ''


def _mismatch(info: Any, message_type: str, qos: QoSProfile) -> str:
    """Return why one publisher cannot be heard; empty if it can."""
    name = f'{info.node_namespace.rstrip("/")}/{info.node_name}'
    if info.topic_type != message_type:
        return (f'{name} publishes {info.topic_type}, expected {message_type}; '
                'see the parameter image_transport')
    compatibility, reason = qos_check_compatible(info.qos_profile, qos)
    if compatibility == QoSCompatibility.ERROR:
        return (f'{name} publishes with incompatible QoS ({reason.strip()}); change its QoS or '
                'our qos_overrides')
    return ''
