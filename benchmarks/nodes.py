"""For benchmarks: nodes in processes of their own, and what their topics and /proc say."""

from __future__ import annotations

import os
import signal
import socket
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

#: What the wheels' bootstrap leaves in the environment; a user's shell has neither.
BOOTSTRAP = ('_ROS_WHEELS_BOOTSTRAP_COMPLETE', 'LD_LIBRARY_PATH')

#: ROS_DOMAIN_ID: 0 to 101 keep clear of Linux's ephemeral ports; 0 is where users are.
DOMAINS = range(1, 101)


def choose_domain() -> None:
    """Put this process and its children into a ROS domain of their own, if none is chosen."""
    if 'ROS_DOMAIN_ID' in os.environ:
        return
    first = os.getpid() % len(DOMAINS)
    for domain in (*DOMAINS[first:], *DOMAINS[:first]):
        # RTPS 2.5, section 9.6.2.4: where a domain's first participant listens.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(('', 7400 + 250 * domain + 10))
            except OSError:
                continue
        os.environ['ROS_DOMAIN_ID'] = str(domain)
        return
    raise RuntimeError('every ROS domain from 1 to 100 is in use on this machine.')


def render_folder(folder: Path, count: int, size_wh: tuple[int, int] = (1280, 720)) -> None:
    """Fill a folder with so many names of ``PICTURES`` rendered pictures."""
    drive = RenderedDrive(size_wh, 0)
    for index in range(min(count, PICTURES)):
        rgb, _ = drive.frame(index / 30)
        cv2.imwrite(str(folder / f'{index:06}.jpg'), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    for index in range(PICTURES, count):
        (folder / f'{index:06}.jpg').symlink_to(f'{index % PICTURES:06}.jpg')


def clean_environment() -> dict[str, str]:
    """Return the environment of a user's shell, with this package in Python's path."""
    leaked = BOOTSTRAP if BOOTSTRAP[0] in os.environ else ()
    environment = {key: value for key, value in os.environ.items() if key not in leaked}
    environment['PYTHONPATH'] = os.pathsep.join(
        [str(Path(__file__).resolve().parents[1]),
         *filter(None, [environment.get('PYTHONPATH')])])
    return environment


class Tool:
    """
    A tool of the package, or a benchmark's own node, in a process of its own.

    Parameters
    ----------
    name : str
        ``replay`` or ``segmenter``, or a script beside this one, with its ``.py``.
    parameters : mapping
        As the command line takes them.
    environment : mapping
        Added to this process's.
    remap : mapping
        Further names of topics.

    """

    def __init__(
        self, name: str, parameters: Mapping[str, object], environment: Mapping[str, str],
        remap: Mapping[str, str] | None = None,
    ) -> None:
        program = ([str(Path(__file__).with_name(name))] if name.endswith('.py')
                   else ['-m', f'bisenet_ros.{name}'])
        command = [sys.executable, *program, '--ros-args',
                   '--log-level', 'error', '-r', f'image:={IMAGE_TOPIC}']
        for key, value in parameters.items():
            command += ['-p', f'{key}:={value}']
        for key, value in (remap or {}).items():
            command += ['-r', f'{key}:={value}']
        self.started_s = time.monotonic()
        self._process = subprocess.Popen(
            command, env={**clean_environment(), **environment}, stdin=subprocess.DEVNULL)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def memory_mb(self) -> tuple[float, float]:
        """Return the resident memory and, of that, the process's own (10**6 bytes)."""
        lines = Path(f'/proc/{self.pid}/status').read_text().splitlines()
        kib = {line.split(':')[0]: line.split()[1] for line in lines
               if line.startswith(('Rss', 'VmRSS'))}
        return int(kib['VmRSS']) * 1024e-6, int(kib['RssAnon']) * 1024e-6

    def cpu_s(self) -> float:
        """Return the time that all its threads have spent on a CPU."""
        # proc(5): behind the name, which may hold anything, utime and stime are 12th and 13th.
        fields = Path(f'/proc/{self.pid}/stat').read_text().rpartition(')')[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')

    def thread_names(self) -> list[str]:
        """Return what its threads are called."""
        return sorted(path.read_text().strip()
                      for path in Path(f'/proc/{self.pid}/task').glob('*/comm'))

    def switches(self) -> int:
        """Return how often its threads have gone to sleep: the number of their wake-ups."""
        return sum(
            int(line.split()[1]) for path in Path(f'/proc/{self.pid}/task').glob('*/status')
            for line in path.read_text().splitlines()
            if line.startswith('voluntary_ctxt_switches'))

    def maps(self, part: str) -> bool:
        """Tell whether a file with this in its path is mapped into its memory."""
        return part in Path(f'/proc/{self.pid}/maps').read_text()

    def stop(self) -> int:
        """End it as Ctrl-C does; return the exit code."""
        if self.running:
            self._process.send_signal(signal.SIGINT)
        try:
            return self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


class Camera(Tool):
    """``camera_node.py`` at a rate; 0 is as fast as it can."""

    def __init__(
        self, rate_hz: float, size_wh: tuple[int, int], environment: Mapping[str, str],
    ) -> None:
        super().__init__(
            'camera_node.py', {'rate_hz': float(rate_hz), 'size': list(size_wh)}, environment)


class OtherLoad:
    """
    What else the machine does meanwhile: the cores that are busy with other processes.

    Parameters
    ----------
    tools : sequence of Tool
        Beside this process, what is not other.

    """

    def __init__(self, *tools: Tool) -> None:
        self._tools = tools
        self._started_s, self._before_s = time.monotonic(), self._other_s()

    def _other_s(self) -> float:
        # proc(5): user, nice, system, then idle, iowait, irq, softirq, of all cores together.
        fields = [int(field) for field in Path('/proc/stat').read_text().split()[1:8]]
        busy_s = sum(fields[index] for index in (0, 1, 2, 5, 6)) / os.sysconf('SC_CLK_TCK')
        return busy_s - time.process_time() - sum(tool.cpu_s() for tool in self._tools)

    def cores(self) -> float:
        """Return the mean since the beginning."""
        return (self._other_s() - self._before_s) / (time.monotonic() - self._started_s)


class Watcher:
    """
    A node that counts masks, times them by their stamps, and reads ``/diagnostics``.

    Stamps are this machine's time at publishing: ``latencies_s`` are from the camera's ``publish``
    to the mask's arrival here. ``frame_ids`` are the masks', in the same order.

    Parameters
    ----------
    mask_topic : str

    """

    def __init__(self, mask_topic: str = '/segmenter/mask') -> None:
        self._context = Context()
        self._context.init()
        self._node = Node('benchmark', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._mask_topic = mask_topic
        self.latencies_s: list[float] = []
        self.frame_ids: list[str] = []
        self._values: dict[str, str] = {}
        self._node.create_subscription(Image, mask_topic, self._on_mask, QoSProfile(
            depth=5, reliability=ReliabilityPolicy.BEST_EFFORT))
        self._node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)

    def _on_mask(self, message: Image) -> None:
        stamp = message.header.stamp
        self.latencies_s.append(time.time() - stamp.sec - stamp.nanosec * 1e-9)
        self.frame_ids.append(message.header.frame_id)

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        for status in array.status:
            self._values.update((entry.key, entry.value) for entry in status.values)

    def count(self, key: str) -> int:
        """Return a number of frames from the diagnostics (``received``, ``dropped``, ...)."""
        return int(self._values.get(f'frames {key}', 0))

    @property
    def image_is_subscribed(self) -> bool:
        return self._node.count_subscribers(IMAGE_TOPIC) > 0

    @property
    def image_is_published(self) -> bool:
        return self._node.count_publishers(IMAGE_TOPIC) > 0

    @property
    def mask_is_published(self) -> bool:
        return self._node.count_publishers(self._mask_topic) > 0

    def spin_until(
        self, condition: Callable[[], Any], timeout_s: float, poll_s: float = 0.05,
    ) -> bool:
        """Spin until a condition, looked at every ``poll_s``, holds; return whether it does."""
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline_s:
                return False
            self._executor.spin_once(timeout_sec=poll_s)
        return True

    def close(self) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()


def quantile(values: list[float], share: float) -> float:
    """Return the value that ``share`` of all do not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
