"""For benchmarks: replay and segmenter in processes of their own, and what their topics say."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from bisenet_ros.core.drive import RenderedDrive

#: Pictures that are replayed over and over: reading them costs less than rendering.
PICTURES = 30

IMAGE_TOPIC = '/benchmark/image'


def render_folder(folder: Path, count: int, size_wh: tuple[int, int] = (1280, 720)) -> None:
    """Fill a folder with so many names of ``PICTURES`` rendered pictures."""
    drive = RenderedDrive(size_wh, 0)
    for index in range(min(count, PICTURES)):
        rgb, _ = drive.frame(index / 30)
        cv2.imwrite(str(folder / f'{index:06}.jpg'), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    for index in range(PICTURES, count):
        (folder / f'{index:06}.jpg').symlink_to(f'{index % PICTURES:06}.jpg')


class Tool:
    """
    A tool of the package in a process of its own.

    Parameters
    ----------
    name : str
        ``replay`` or ``segmenter``.
    parameters : mapping
        As the command line takes them.
    environment : mapping
        Added to this process's.

    """

    def __init__(
        self, name: str, parameters: Mapping[str, object], environment: Mapping[str, str],
    ) -> None:
        command = [sys.executable, '-m', f'bisenet_ros.{name}', '--ros-args',
                   '--log-level', 'error', '-r', f'image:={IMAGE_TOPIC}']
        for key, value in parameters.items():
            command += ['-p', f'{key}:={value}']
        self._process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdin=subprocess.DEVNULL)

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def memory_mb(self) -> tuple[float, float]:
        """Return the resident memory and, of that, the process's own (10**6 bytes)."""
        lines = Path(f'/proc/{self._process.pid}/status').read_text().splitlines()
        kib = {line.split(':')[0]: line.split()[1] for line in lines
               if line.startswith(('Rss', 'VmRSS'))}
        return int(kib['VmRSS']) * 1024e-6, int(kib['RssAnon']) * 1024e-6

    def stop(self) -> int:
        """End it as Ctrl-C does; return the exit code."""
        if self.running:
            self._process.send_signal(signal.SIGINT)
        try:
            return self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


class Watcher:
    """
    A node that counts masks, times them by their stamps, and reads ``/diagnostics``.

    Stamps are this machine's time at publishing: ``latencies_s`` are from the camera's ``publish``
    to the mask's arrival here.

    """

    def __init__(self) -> None:
        self._context = Context()
        self._context.init()
        self._node = Node('benchmark', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self.latencies_s: list[float] = []
        self._values: dict[str, str] = {}
        self._node.create_subscription(Image, '/segmenter/mask', self._on_mask, QoSProfile(
            depth=5, reliability=ReliabilityPolicy.BEST_EFFORT))
        self._node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)

    def _on_mask(self, message: Image) -> None:
        stamp = message.header.stamp
        self.latencies_s.append(time.time() - stamp.sec - stamp.nanosec * 1e-9)

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        for status in array.status:
            self._values.update((entry.key, entry.value) for entry in status.values)

    def count(self, key: str) -> int:
        """Return a number of frames from the diagnostics (``received``, ``dropped``, ...)."""
        return int(self._values.get(f'frames {key}', 0))

    @property
    def image_is_subscribed(self) -> bool:
        return self._node.count_subscribers(IMAGE_TOPIC) > 0

    def spin_until(self, condition: Callable[[], Any], timeout_s: float) -> bool:
        """Spin until a condition holds; return whether it does."""
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline_s:
                return False
            self._executor.spin_once(timeout_sec=0.05)
        return True

    def close(self) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()


def quantile(values: list[float], share: float) -> float:
    """Return the value that ``share`` of all do not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
