"""
Transport alone: for every ``image`` a ready ``mask`` of its size, without a look at the pixels.

Subscribes and publishes as ``segmenter`` does. What ``segmenter`` takes longer than this, it
takes for its work.
"""

from __future__ import annotations

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import Image

from bisenet_ros import conversions, process
from bisenet_ros.segmenter import input_qos, output_qos


class RelayNode(Node):
    """Answer frames with masks."""

    def __init__(self) -> None:
        super().__init__('benchmark_relay')
        self.finished = False
        self._mask: Image | None = None
        self._output = self.create_publisher(Image, 'mask', output_qos())
        self.create_subscription(Image, 'image', self._on_image, input_qos())

    def _on_image(self, image: Image) -> None:
        if self._mask is None:
            self._mask = conversions.image_message(
                np.zeros((image.height, image.width), np.uint8), 'mono8', image.header)
        self._mask.header = image.header
        self._output.publish(self._mask)

    def begin(self) -> None:
        """Everything is in the callback."""

    def end(self) -> None:
        """Nothing to stop."""


if __name__ == '__main__':
    raise SystemExit(process.run(RelayNode))
