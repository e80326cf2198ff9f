"""
A benchmark's camera: publishes ``image``, frames built beforehand, and numbers them.

The header's ``frame_id`` is the frame's number and its stamp the wall clock right before
``publish``, so that whoever gets a result with that header knows how old and how complete it is.
Rendering or reading nothing while it runs, it leaves the machine to what is measured.
"""

from __future__ import annotations

import threading
import time

import cv2
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from bisenet_ros import conversions, process
from bisenet_ros.core.drive import RenderedDrive

#: Different frames that are sent over and over.
PICTURES = 10


class CameraNode(Node):
    """Publish ``bgr8`` at ``rate_hz``; 0 is one behind the other without a pause."""

    def __init__(self) -> None:
        super().__init__('benchmark_camera')
        self._period_s = 0.0
        if rate_hz := self.declare_parameter('rate_hz', 30.0).value:
            self._period_s = 1 / rate_hz
        size = self.declare_parameter('size', [1280, 720]).value
        drive = RenderedDrive((size[0], size[1]), 0)
        self._messages = [
            conversions.image_message(
                cv2.cvtColor(drive.frame(index / 30)[0], cv2.COLOR_RGB2BGR), 'bgr8', Header())
            for index in range(PICTURES)]
        self._output = self.create_publisher(Image, 'image', QoSProfile(depth=5))
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._shoot, name='camera', daemon=True)
        self.finished = False

    def begin(self) -> None:
        """Start publishing."""
        self._thread.start()

    def end(self) -> None:
        """Stop and join the thread."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _shoot(self) -> None:
        number, due_s = 0, time.monotonic()
        while not self._stopping.wait(max(0.0, due_s - time.monotonic())):
            message = self._messages[number % PICTURES]
            now_ns = time.time_ns()
            stamp = message.header.stamp
            stamp.sec, stamp.nanosec = divmod(now_ns, 10**9)
            message.header.frame_id = str(number)
            self._output.publish(message)
            number += 1
            # Late by more than a period: go on from now, no burst to catch up.
            due_s = max(due_s + self._period_s, time.monotonic())


if __name__ == '__main__':
    raise SystemExit(process.run(CameraNode))
