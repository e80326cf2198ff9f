"""
The replay node: a video, a folder of images, a camera device or the rendered drive as a camera.

    ros2 run bisenet_ros replay --ros-args -p source:=drive -p rate_hz:=10.0

Publishes ``image`` (bgr8) and ``camera_info`` at a chosen rate, looping or once. The camera info
is an invented pinhole unless the frames are rendered, for which it is the true one. While nobody
listens time goes on, but nothing is rendered or read.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from bisenet_ros import needs_ros  # noqa: F401 - before all of ROS

from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from bisenet_ros import conversions, parameters, process
from bisenet_ros.core.sources import (
    FolderSource, Frame, Source, SourceError, open_source, pinhole,
)

#: How long a source that plays once waits for a subscriber before it begins.
PATIENCE_S = 10.0

#: What it then waits, and once more behind the last frame: publisher and subscriber do not find
#: each other at the same moment, and what a process still has to send is lost when it ends.
SETTLE_S = 0.3

#: What is logged then: from here on nothing is wrong with silence.
PLAYED = 'the source has ended'

#: How long the end waits for the thread: reading from a device or a network's disk may hang.
JOIN_S = 2.0


def output_qos() -> QoSProfile:
    """
    Return the outputs' QoS, a new one for each: ``qos_overrides`` change it in place.

    Reliable, so that any subscriber matches; the depth rides out a slow reader.

    """
    return QoSProfile(depth=5)


class ReplayNode(Node):
    """The node ``replay``."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('replay', **kwargs)
        values = {param.name: self._declared(param) for param in parameters.REPLAY}
        name, rate_hz, size = values['source'], values['rate_hz'], values['size']
        self._loop, self._frame_id = values['loop'], values['frame_id']
        if len(size) != 2:
            raise process.StartError(
                f'parameter size: found {list(size)}, expected [width, height].')
        try:
            self._source: Source = open_source(name, (size[0], size[1]), values['seed'])
        except SourceError as error:
            raise process.StartError(str(error)) from error
        if rate_hz and not self._source.live:
            self._source.rate_hz = rate_hz
        options = QoSOverridingOptions.with_default_policies()
        self._image_output = self.create_publisher(
            Image, 'image', output_qos(), qos_overriding_options=options)
        self._info_output = self.create_publisher(
            CameraInfo, 'camera_info', output_qos(), qos_overriding_options=options)
        process.warn_of_unknown_overrides(self)
        self._done, self._failure, self._unreadable_told = False, '', 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._play, name='replay', daemon=True)
        self.get_logger().info(
            f'{name} at {self._source.rate_hz:g} Hz on {self._image_output.topic_name}')

    def _declared(self, param: parameters.Param) -> Any:
        value = self.declare_parameter(
            param.name, param.default, parameters.descriptor(param, read_only=True)).value
        if fault := param.fault(value):
            raise process.StartError(f'parameter {fault}')
        return value

    def begin(self) -> None:
        """Start publishing, from a thread of its own: reading frames may block."""
        self._thread.start()

    @property
    def finished(self) -> bool:
        """Whether the source is done; ``StartError`` if it failed."""
        if self._failure:
            raise process.StartError(self._failure)
        return self._done

    def end(self) -> None:
        """Stop the thread and join it, unless it hangs."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(JOIN_S)

    def _play(self) -> None:
        failure = 'replay: failed by an error of its own, printed above; please report it.'
        try:
            if not self._loop:
                self._wait_for_subscriber()
            self._publish_all()
            if not self._stopping.is_set():
                self.get_logger().info(PLAYED)
            self._stopping.wait(SETTLE_S)
            failure = ''
        except SourceError as error:
            failure = str(error)
        finally:  # whatever it was: nobody would publish any more
            self._failure, self._done = failure, True

    def _wait_for_subscriber(self) -> None:
        """Let nobody miss the start of something that is played once."""
        give_up_s = time.monotonic() + PATIENCE_S
        while (self._image_output.get_subscription_count() == 0
               and time.monotonic() < give_up_s and not self._stopping.is_set()):
            self._stopping.wait(0.05)
        self._stopping.wait(SETTLE_S)

    def _publish_all(self) -> None:
        period_s = 1 / self._source.rate_hz
        due_s = time.monotonic()
        for frame in self._all_frames():
            if not self._source.live:
                if self._stopping.wait(max(0.0, due_s - time.monotonic())):
                    return
                # Behind by more than a frame: go on from now, no burst to catch up.
                due_s = max(due_s + period_s, time.monotonic())
            if self._stopping.is_set():
                return
            if frame is not None:
                self._publish(frame)
            self._tell_unreadable()

    def _tell_unreadable(self) -> None:
        """Name the images that are left out, each once."""
        if isinstance(self._source, FolderSource):
            names = self._source.unreadable[self._unreadable_told:]
            if names:
                self._unreadable_told += len(names)
                self.get_logger().warning(
                    f'{self._source.path}: left out as not readable, or cut off: '
                    f'{", ".join(names)}')

    def _all_frames(self) -> Iterator[Frame | None]:
        while not self._stopping.is_set():
            yield from self._source.frames(self._is_heard)
            if not self._loop:
                return

    def _is_heard(self) -> bool:
        return bool(self._image_output.get_subscription_count()
                    or self._info_output.get_subscription_count())

    def _publish(self, frame: Frame) -> None:
        header = Header(stamp=self.get_clock().now().to_msg(), frame_id=self._frame_id)
        height, width = frame.shape[:2]
        self._info_output.publish(camera_info((width, height), header))
        self._image_output.publish(conversions.image_message(frame, 'bgr8', header))


def camera_info(size_wh: tuple[int, int], header: Header) -> CameraInfo:
    """Return the info of a pinhole without distortion (sensor_msgs/CameraInfo)."""
    focal, centre_x, centre_y = pinhole(size_wh)
    info = CameraInfo(header=header, width=size_wh[0], height=size_wh[1])
    info.distortion_model = 'plumb_bob'
    info.d = [0.0] * 5
    info.k = [focal, 0.0, centre_x, 0.0, focal, centre_y, 0.0, 0.0, 1.0]
    info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    info.p = [focal, 0.0, centre_x, 0.0, 0.0, focal, centre_y, 0.0, 0.0, 0.0, 1.0, 0.0]
    return info


def main(args: list[str] | None = None) -> int:
    """Run the node until it is told to stop or the source is done; return the exit code."""
    return process.run(ReplayNode, args, parameters.help_text(parameters.REPLAY))


if __name__ == '__main__':
    sys.exit(main())
