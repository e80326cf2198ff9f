"""
A benchmark's cameras, several in one process: publish ``/c0/image``, ``/c1/image``, ...

Frames are built beforehand; the header's stamp is the wall clock right before ``publish``. The
cameras are out of step with each other, as real ones are.
"""

from __future__ import annotations

import threading
import time

import cv2
from camera_node import PICTURES
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from bisenet_ros import conversions, process
from bisenet_ros.core.drive import RenderedDrive


class CameraRigNode(Node):
    """Publish ``bgr8`` frames, one camera for each of ``rates_hz``."""

    def __init__(self) -> None:
        super().__init__('benchmark_rig')
        self._periods_s = [
            1 / rate for rate in self.declare_parameter('rates_hz', [30.0, 30.0]).value]
        size = self.declare_parameter('size', [640, 480]).value
        drive = RenderedDrive((size[0], size[1]), 0)
        self._messages = [
            conversions.image_message(
                cv2.cvtColor(drive.frame(index / 30)[0], cv2.COLOR_RGB2BGR), 'bgr8', Header())
            for index in range(PICTURES)]
        self._outputs = [
            self.create_publisher(Image, f'/c{index}/image', QoSProfile(depth=5))
            for index in range(len(self._periods_s))]
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._shoot, name='cameras', daemon=True)
        self.finished = False

    def begin(self) -> None:
        """Start publishing."""
        self._thread.start()

    def end(self) -> None:
        """Stop and join the thread."""
        self._stopping.set()
        self._thread.join()

    def _shoot(self) -> None:
        count, number = len(self._outputs), 0
        now_s = time.monotonic()
        due_s = [now_s + period_s * index / count
                 for index, period_s in enumerate(self._periods_s)]
        while True:
            index = min(range(count), key=due_s.__getitem__)
            if self._stopping.wait(max(0.0, due_s[index] - time.monotonic())):
                return
            message = self._messages[number % PICTURES]
            stamp = message.header.stamp
            stamp.sec, stamp.nanosec = divmod(time.time_ns(), 10**9)
            self._outputs[index].publish(message)
            number += 1
            # Late by more than a period: go on from now, no burst to catch up.
            due_s[index] = max(due_s[index] + self._periods_s[index], time.monotonic())


if __name__ == '__main__':
    raise SystemExit(process.run(CameraRigNode))
