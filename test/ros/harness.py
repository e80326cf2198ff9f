"""
What the ROS tests stand on: nodes in processes of their own, and a node that drives them.

``NodeProcess`` starts a tool as a user does. ``Peer`` is the test's own node, in a context of its
own: camera, watcher and operator in one. ``InProcessNode`` runs the segmenter node inside the test
where a look behind the wires is needed. Nothing here sleeps where it can wait.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import (
    DescribeParameters, GetParameters, SetParameters, SetParametersAtomically,
)
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from bisenet_ros import conversions, process
from bisenet_ros import segmenter as segmenter_module
from bisenet_ros.core.contract import ModelContract
from bisenet_ros.core.engine import TensorSpec
from bisenet_ros.core.segmenter import Segmenter
from bisenet_ros.transport import CHOICES, transport_environment

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / 'shared' / 'data'
CLIPS = (
    DATA / 'clips' / 'carnd_solidWhiteRight_960x540_25fps_221f.mp4',
    DATA / 'clips' / 'carnd_vd_test_1280x720_25fps_38f.mp4')

#: What lets the middleware carry whole frames; without it a test would mostly watch them get lost.
#: It is what the launch file gives its nodes where discovery is limited to this machine, as it is
#: for tests.
TRANSPORT = transport_environment({
    'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST', 'ROS_LOCALHOST_ONLY': '1',
    **{name: os.environ[name] for name in ('ROS_DISTRO', 'RMW_IMPLEMENTATION')
       if name in os.environ}})

#: Long enough for two busy cores; a test that passes never waits that long.
PATIENCE_S = 30.0

IMAGE_TOPIC = '/camera/image'

RELIABLE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
BEST_EFFORT = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)

#: What the wheels' bootstrap puts into the environment; a user's shell has neither.
BOOTSTRAP = ('_ROS_WHEELS_BOOTSTRAP_COMPLETE', 'LD_LIBRARY_PATH')


def sweep_shared_memory() -> None:
    """
    Remove what killed processes left of Fast DDS in shared memory, as ``fastdds shm clean`` does.

    A killed node leaves 17 MB of memory there, and now and then a lock file that makes whoever
    gets its port next deaf for good (eProsima/Fast-DDS issue 5469).
    """
    for lock in Path('/dev/shm').glob('fastrtps_*_[es]l'):
        with contextlib.suppress(OSError), lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # or somebody uses it
            if lock.name.endswith('_el'):  # which a port that is in use holds, whatever its other
                lock.with_name(lock.name[:-3]).unlink(missing_ok=True)
            lock.unlink()


class Stopwatch:
    """Seconds of a block, less those in which not even a thread that only ticks was run."""

    TICK_S, LATE_S = 0.02, 0.1

    def __enter__(self) -> Stopwatch:
        self._over, self._stood_s = threading.Event(), 0.0
        self._begun_s = time.monotonic()
        self._thread = threading.Thread(target=self._tick, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        ended_s = time.monotonic()
        self._over.set()
        self._thread.join()
        self.seconds = ended_s - self._begun_s - self._stood_s

    def _tick(self) -> None:
        before_s, over = self._begun_s, False
        while not over:
            over = self._over.wait(self.TICK_S)
            now_s = time.monotonic()
            late_s = now_s - before_s - self.TICK_S
            self._stood_s += late_s if late_s > self.LATE_S else 0.0
            before_s = now_s


def yaml_value(value: object) -> str:
    """Return a parameter value as the command line takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f'[{", ".join(repr(item) for item in value)}]'
    return repr(value) if isinstance(value, str) else str(value)


class NodeProcess:
    """
    A tool of the package in a process of its own, started as the README says.

    Parameters
    ----------
    tool : str or Path
        Module in ``bisenet_ros``, or a script.
    params, remap : mapping
        Parameters and remappings.
    namespace : str
    default_transport : bool
        Leave the middleware's transport alone; otherwise it carries whole frames.
    env : mapping
        Added to the environment.
    arguments : sequence of str
        Further words behind ``--ros-args``.

    """

    def __init__(
        self, tool: str | Path = 'segmenter', params: Mapping[str, object] | None = None, *,
        remap: Mapping[str, str] | None = None, namespace: str = '',
        default_transport: bool = False, env: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        program = [str(tool)] if isinstance(tool, Path) else ['-m', f'bisenet_ros.{tool}']
        command = [sys.executable, *program, '--ros-args', *arguments]
        for name, value in (params or {}).items():
            command += ['-p', f'{name}:={yaml_value(value)}']
        for name, target in (remap or {}).items():
            command += ['-r', f'{name}:={target}']
        if namespace:
            command += ['-r', f'__ns:={namespace}']
        environment = {
            key: value for key, value in os.environ.items()
            if key not in (*BOOTSTRAP, *CHOICES)}
        environment |= {'PYTHONUNBUFFERED': '1', 'PYTHONPATH': str(ROOT)}
        if not default_transport:
            environment |= TRANSPORT
        self.process = subprocess.Popen(
            command, env={**environment, **(env or {})}, cwd=ROOT, text=True, errors='replace',
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.lines: list[str] = []
        self._said = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            with self._said:
                self.lines.append(line.rstrip('\n'))
                self._said.notify_all()
        with self._said:
            self._said.notify_all()

    @property
    def output(self) -> str:
        """Return everything that was printed so far."""
        with self._said:
            return '\n'.join(self.lines)

    def wait_for_line(self, text: str, timeout_s: float = PATIENCE_S) -> str:
        """Return the first line with a text in it."""
        deadline_s = time.monotonic() + timeout_s
        with self._said:
            while True:
                for line in self.lines:
                    if text in line:
                        return line
                left_s = deadline_s - time.monotonic()
                if left_s <= 0 or not self._reader.is_alive():
                    said = '\n'.join(self.lines)
                    raise AssertionError(f'no line with {text!r} within {timeout_s} s:\n{said}')
                self._said.wait(min(left_s, 0.2))

    def wait_active(self) -> NodeProcess:
        self.wait_for_line('segmenter]: active')
        return self

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """Return the exit code, when the process is over and everything it said is read."""
        code = self.process.wait(timeout_s)
        self._reader.join(timeout_s)
        return code

    def stop(self) -> int:
        """End it as Ctrl-C does."""
        self.send(signal.SIGINT)
        return self.wait()

    def kill(self) -> None:
        """Make sure that it is gone, and that others know: a killed node haunts the graph."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(process.LONGEST_END_S + 4)  # which ends it, and tells where
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                sweep_shared_memory()
        self._reader.join()
        self.process.stdout.close()

    def rss_bytes(self) -> int:
        """Return the resident memory."""
        fields = Path(f'/proc/{self.process.pid}/statm').read_text().split()
        return int(fields[1]) * os.sysconf('SC_PAGE_SIZE')

    def __enter__(self) -> NodeProcess:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()


class Watch(list):
    """The messages of a topic so far."""

    def with_stamp(self, header: Header) -> Any:
        """Return the message with a header's stamp, or None."""
        return next((msg for msg in self if msg.header.stamp == header.stamp), None)


class Peer:
    """A node of the test's own, in a context of its own; only ``wait_for`` and its kin spin it."""

    def __init__(self, name: str = 'peer', domain_id: int | None = None) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain_id)
        self.node = rclpy.create_node(name, context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._clients: dict[str, Any] = {}
        self._stamps = itertools.count(1)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)

    def forget(self) -> None:
        """Take down every timer, publisher and subscription that tests made."""
        for timer in list(self.node.timers):
            self.node.destroy_timer(timer)
        for subscription in list(self.node.subscriptions):
            self.node.destroy_subscription(subscription)
        for publisher in list(self.node.publishers):
            if publisher.topic_name not in ('/parameter_events', '/rosout'):
                self.node.destroy_publisher(publisher)

    # -- time --------------------------------------------------------------------------------

    def wait_for(
        self, condition: Callable[[], Any], what: str, timeout_s: float = PATIENCE_S,
    ) -> Any:
        """Spin until a condition holds; return its value."""
        deadline_s = time.monotonic() + timeout_s
        while not (value := condition()):
            if time.monotonic() > deadline_s:
                raise AssertionError(f'{what}: not within {timeout_s} s')
            self._executor.spin_once(timeout_sec=0.02)
        return value

    def spin_for(self, duration_s: float) -> None:
        """Spin for a time: for what must *not* happen."""
        deadline_s = time.monotonic() + duration_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left_s)

    def never(self, condition: Callable[[], Any], what: str, duration_s: float) -> None:
        """Spin for a time and fail if a condition comes to hold."""
        deadline_s = time.monotonic() + duration_s
        while time.monotonic() < deadline_s:
            if condition():
                raise AssertionError(f'{what}: it happened')
            self._executor.spin_once(timeout_sec=0.02)

    # -- topics ------------------------------------------------------------------------------

    def watch(
        self, message_type: type[Any], topic: str, qos: QoSProfile | int = RELIABLE,
    ) -> Watch:
        messages = Watch()
        self.node.create_subscription(message_type, topic, messages.append, qos)
        return messages

    def camera(
        self, topic: str = IMAGE_TOPIC, qos: QoSProfile = RELIABLE,
        message_type: type[Any] = Image,
    ) -> Any:
        return self.node.create_publisher(message_type, topic, qos)

    def header(self, frame_id: str = 'camera_optical_frame') -> Header:
        """Return a header with a stamp that no other has, odd to the nanosecond."""
        number = next(self._stamps)
        stamp = Time(sec=1_700_000_000 + number, nanosec=(number * 123_456_789 + 1) % 10**9)
        return Header(stamp=stamp, frame_id=frame_id)

    def subscribed(self, topic: str = IMAGE_TOPIC) -> int:
        """Return how many subscriptions a topic has."""
        return self.node.count_subscribers(topic)

    def ask(self, camera: Any, message: Any, *watches: Watch) -> list[Any]:
        """
        Publish a frame until every watch has an answer with its stamp.

        A camera that is best effort may lose it, and a subscription may be on its way.
        """
        due_s = 0.0

        def answered() -> bool:
            nonlocal due_s
            if time.monotonic() >= due_s:
                camera.publish(message)
                due_s = time.monotonic() + 0.5
            return all(watch.with_stamp(message.header) is not None for watch in watches)

        self.wait_for(answered, f'answers to a {message.width}x{message.height} frame'
                      if isinstance(message, Image) else 'answers to a compressed frame')
        return [watch.with_stamp(message.header) for watch in watches]

    def image(self, pixels: Any, encoding: str = 'bgr8') -> Image:
        """Return a frame with a header of its own."""
        return conversions.image_message(pixels, encoding, self.header())

    def compressed(self, bgr: Any, suffix: str = '.jpg') -> CompressedImage:
        message = CompressedImage(header=self.header(), format=suffix[1:])
        message.data = cv2.imencode(suffix, bgr)[1].tobytes()
        return message

    # -- services ----------------------------------------------------------------------------

    def call(
        self, service_type: type[Any], name: str, request: Any, *, again: bool = True,
    ) -> Any:
        """
        Call a service and return its answer.

        A server that has not yet found our reader drops its answer (rmw_fastrtps waits 0.1 s for
        it), so what may be asked twice is asked ``again`` when no answer comes.
        """
        client = self._client(service_type, name)
        self.wait_for(client.service_is_ready, f'service {name}')
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            future = client.call_async(request)
            left_s = deadline_s - time.monotonic()
            try:
                self.wait_for(
                    future.done, f'answer of {name}', min(left_s, 3) if again else left_s)
            except AssertionError:
                if time.monotonic() > deadline_s:
                    raise
                continue
            return future.result()

    def _client(self, service_type: type[Any], name: str) -> Any:
        if name not in self._clients:
            self._clients[name] = self.node.create_client(service_type, name)
        return self._clients[name]

    def set_parameters(self, node: str = '/segmenter', **values: Any) -> list[Any]:
        """Set parameters as ``ros2 param set`` does; return the results in order."""
        request = SetParameters.Request(parameters=parameter_messages(values))
        return self.call(SetParameters, f'{node}/set_parameters', request).results

    def set_parameters_atomically(self, node: str = '/segmenter', **values: Any) -> Any:
        request = SetParametersAtomically.Request(parameters=parameter_messages(values))
        return self.call(
            SetParametersAtomically, f'{node}/set_parameters_atomically', request).result

    def set_or_fail(self, node: str = '/segmenter', **values: Any) -> None:
        refused = [result.reason for result in self.set_parameters(node, **values)
                   if not result.successful]
        assert not refused

    def parameter(self, name: str, node: str = '/segmenter') -> Any:
        answer = self.call(
            GetParameters, f'{node}/get_parameters', GetParameters.Request(names=[name]))
        return rclpy.parameter.parameter_value_to_python(answer.values[0])

    def descriptors(self, names: Sequence[str], node: str = '/segmenter') -> list[Any]:
        return self.call(
            DescribeParameters, f'{node}/describe_parameters',
            DescribeParameters.Request(names=list(names))).descriptors

    def transition(self, change: str | int, node: str = '/segmenter') -> bool:
        """Ask for a lifecycle transition by label or number; return whether it succeeded."""
        transition = Transition(label=change) if isinstance(change, str) else Transition(id=change)
        # Announced before the client of get_state: a server that answers that one knows this too.
        self._client(ChangeState, f'{node}/change_state')
        self.state(node)
        return self.call(
            ChangeState, f'{node}/change_state', ChangeState.Request(transition=transition),
            again=False).success

    def state(self, node: str = '/segmenter') -> str:
        return self.call(
            GetState, f'{node}/get_state', GetState.Request()).current_state.label

    # -- diagnostics -------------------------------------------------------------------------

    def diagnostics(self) -> Diagnostics:
        return Diagnostics(self)


class Diagnostics:
    """The ``/diagnostics`` topic."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._arrays = peer.watch(DiagnosticArray, '/diagnostics')

    def latest(self, task: str, node: str = 'segmenter') -> DiagnosticStatus | None:
        """Return the newest status of a task (``input``, ``inference``), or None."""
        return next(self._all(task, node), None)

    def _all(self, task: str, node: str) -> Iterator[DiagnosticStatus]:
        """Yield the statuses of a task, the newest first."""
        return (status for array in reversed(self._arrays) for status in array.status
                if status.name == f'{node}: {task}')

    def wait_for(
        self, task: str, condition: Callable[[DiagnosticStatus], Any], what: str,
        node: str = 'segmenter',
    ) -> DiagnosticStatus:
        """Wait until the newest status fulfils a condition; return it."""
        def fulfilling() -> DiagnosticStatus | None:
            status = self.latest(task, node)
            return status if status is not None and condition(status) else None

        try:
            return self._peer.wait_for(fulfilling, what)
        except AssertionError as error:
            raise AssertionError(f'{error}; last: {self.latest(task, node)}') from error

    def fresh(self, task: str, node: str = 'segmenter') -> DiagnosticStatus:
        """Return a status that was made after this call: the second one to come."""
        def count() -> int:
            return sum(1 for _ in self._all(task, node))

        before = count()
        self._peer.wait_for(lambda: count() >= before + 2, f'two diagnostics of {node}')
        return self.latest(task, node)

    def counts(self, node: str = 'segmenter') -> dict[str, int]:
        """Return every number of frames in a fresh pair of statuses, by its key's last words."""
        self.fresh('inference', node)
        values = [*self.latest('input', node).values, *self.latest('inference', node).values]
        return {entry.key.removeprefix('frames '): int(entry.value)
                for entry in values if entry.key.startswith('frames ')}


def parameter_messages(values: Mapping[str, Any]) -> list[Any]:
    """Return parameters as services take them."""
    return [
        # An empty list says nothing of its elements' type.
        (Parameter(name, Parameter.Type.STRING_ARRAY, []) if value == [] else
         Parameter(name, value=value)).to_parameter_msg()
        for name, value in values.items()]


def values_of(status: DiagnosticStatus) -> dict[str, str]:
    """Return a status's values by key."""
    return {entry.key: entry.value for entry in status.values}


def level_of(status: DiagnosticStatus) -> int:
    """Return a status's level as a number: 0 OK, 1 WARN, 2 ERROR."""
    return status.level[0]


def load_transport() -> None:
    """
    Let participants of this process carry whole frames.

    Fast DDS reads its profile once in a process, for the first participant.
    """
    os.environ.update(TRANSPORT)
    try:
        with Peer('first'):
            pass
    finally:
        for name in TRANSPORT:
            del os.environ[name]


# -- pictures --------------------------------------------------------------------------------


def clip_frames(path: Path, indices: Sequence[int]) -> list[np.ndarray]:
    """Return some frames of a video, BGR."""
    capture = cv2.VideoCapture(str(path))
    frames = []
    for index in range(max(indices) + 1):
        read, frame = capture.read()
        assert read, f'{path}: has no frame {index}'
        if index in indices:
            frames.append(frame)
    capture.release()
    return frames


def pixels_of(message: Image) -> np.ndarray:
    """Return a message's pixels as a plain reader does who knows of no padding."""
    depth = {'mono8': (), 'rgb8': (3,), 'bgr8': (3,)}[message.encoding]
    return np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, *depth)


def pinhole_info(width: int, height: int) -> CameraInfo:
    info = CameraInfo(width=width, height=height, distortion_model='plumb_bob')
    info.k = [800.0, 0.0, width / 2, 0.0, 820.0, height / 2, 0.0, 0.0, 1.0]
    info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    info.p = [800.0, 0.0, width / 2, -96.0, 0.0, 820.0, height / 2, 0.0, 0.0, 0.0, 1.0, 0.0]
    info.d = [0.1, -0.2, 0.0, 0.0, 0.0]
    return info


# -- a node inside the test ------------------------------------------------------------------


class TinyEngine:
    """
    An engine that calls bright cells road, for tests of what surrounds inference.

    ``[32, 64, 3]`` in, scores ``[4, 8, 2]`` out at stride 8. ``delay_s`` makes it slow, ``fault``
    is raised instead of an answer.
    """

    device = 'cpu'
    input = TensorSpec('image', (1, 32, 64, 3), np.dtype(np.uint8), 1 / 255, 0)
    output = TensorSpec('scores', (1, 4, 8, 2), np.dtype(np.int8), 0.05, 0)

    def __init__(self) -> None:
        self.runs = 0
        self.delay_s = 0.0
        self.fault: Exception | None = None

    def run(self, image: np.ndarray) -> np.ndarray:
        self.runs += 1
        time.sleep(self.delay_s)
        if self.fault is not None:
            raise self.fault
        cells = image.reshape(4, 8, 8, 8, 3).mean((1, 3, 4))
        scores = np.zeros((4, 8, 2), np.int8)
        scores[..., 1] = np.clip(cells - 128, -100, 100)
        return scores

    def close(self) -> None:
        pass


class LogLines:
    """In a logger's place: keeps what it is told, of all levels, and throttles nothing."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def _tell(self, text: str, **options: object) -> None:
        self.lines.append(text)

    info = warning = error = _tell


TINY_CONTRACT = ModelContract(
    input_hw=(32, 64), channels='rgb', input_scale=(1 / 255,) * 3, input_mean=(0.0,) * 3,
    output_kind='logits', output_stride=8, class_names=('background', 'road'),
    class_colors_rgb=((0, 0, 0), (128, 64, 128)))


class InProcessNode:
    """
    The segmenter node on a ``TinyEngine``, in a context of its own, spun by a thread.

    It is ``/inside/segmenter`` and takes ``/inside/image``.

    Parameters
    ----------
    monkeypatch : pytest.MonkeyPatch
        Puts the engine where the model would be loaded.
    params : mapping
        Parameters at start.
    spin : bool
        Whether a thread spins the node.

    """

    def __init__(
        self, monkeypatch: Any, params: Mapping[str, object] | None = None, *, spin: bool = True,
    ) -> None:
        self.engine = TinyEngine()

        def load(model: object = None, **options: Any) -> Segmenter:
            return Segmenter(self.engine, TINY_CONTRACT, options['settings'])

        monkeypatch.setattr(segmenter_module.Segmenter, 'load', load)
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = segmenter_module.SegmenterNode(
            context=self.context, namespace='/inside',
            parameter_overrides=[
                Parameter(name, value=value) for name, value in (params or {}).items()])
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self.node.begin()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        if spin:
            self._thread.start()

    def _spin(self) -> None:
        while not self._stopping.is_set():
            self._executor.spin_once(timeout_sec=0.02)

    def __enter__(self) -> InProcessNode:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self.node.end()
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)
