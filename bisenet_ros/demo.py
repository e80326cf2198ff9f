"""
Show the segmenter at work: frames, masks, rate and latency, a picture and a clip.

    python -m bisenet_ros.demo [video, folder of images or camera device]

Starts ``replay`` and ``segmenter`` as they are, two ROS nodes in two processes of their own, and
is itself a third that watches their topics. ``./demo.sh`` prepares everything and starts this.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import itertools
import json
import os
import queue
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from bisenet_ros import needs_ros  # noqa: F401 - before all of ROS

import cv2
import numpy as np
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.time import Time
from sensor_msgs.msg import Image

from bisenet_ros import conversions, process
from bisenet_ros.core.output_files import OutputError, check_writable, write_bytes
from bisenet_ros.core.sources import SourceError, open_source
from bisenet_ros.replay import PLAYED
from bisenet_ros.transport import RANGELESS, shipped_file, transport_environment

IMAGE_TOPIC = '/camera/image'
MASK_TOPIC = '/segmenter/mask'
OVERLAY_TOPIC = '/segmenter/overlay'

#: What is written: a picture, and a clip whose suffix depends on OpenCV's encoders.
PICTURE, CLIP = 'overlay.png', 'overlay'

#: Longest wait for the first mask: imports, discovery and the model on a slow machine.
START_S = 60.0

#: Silence after the end of the source that means that the last mask has come.
DRAIN_S = 1.0

#: How long a node may take to end before it is killed; it promises two seconds.
END_S = 3.0

#: Its camera is on ``/image``.
RVIZ_VIEW = 'config/segment.rviz'

#: What would send the nodes to a server that may be elsewhere, or off.
ELSEWHERE = 'ROS_DISCOVERY_SERVER'


class Child:
    """
    A tool of this package in a process of its own, whose output is passed on and remembered.

    ``at_end`` is called, by a thread, when the tool says that its source has ended.

    The process has a session of its own, so that a Ctrl-C reaches it once and through ``stop``,
    and is killed by the kernel should this one be: a node that publishes to a process that was
    killed may hang in its middleware, where a request to end does not reach it.
    """

    def __init__(
        self, tool: str, *arguments: str, at_end: Callable[[], None] = lambda: None,
    ) -> None:
        self.tool, self._at_end = tool, at_end
        command = [sys.executable, '-m', f'bisenet_ros.{tool}', *arguments]
        # Not a `preexec_fn`: Python code between fork and exec may deadlock beside DDS's threads.
        if (setpriv := shutil.which('setpriv')) is not None:
            command = [setpriv, '--pdeathsig', 'KILL', *command]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors='replace', start_new_session=True,
            env={**os.environ, 'PYTHONUNBUFFERED': '1'})
        self._lines: collections.deque[str] = collections.deque(maxlen=20)
        self._quiet = False
        self._reader = threading.Thread(target=self._read, name=tool, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            self._lines.append(line.rstrip())
            if not self._quiet:
                print(line.rstrip(), file=sys.stderr, flush=True)
            if PLAYED in line:
                self._at_end()

    def exit_code(self) -> int | None:
        """Return the exit code, negative after a signal; None while the process runs."""
        return self._process.poll()

    def last_lines(self) -> str:
        """Return the end of what an ended process has said, indented."""
        self._reader.join(1.0)
        return '\n'.join(f'    {line}' for line in self._lines) or '    (it said nothing)'

    def be_quiet(self) -> None:
        """Pass on nothing more of what it says."""
        self._quiet = True

    def stop(self) -> None:
        """Ask the process to end; ``reap`` waits for it."""
        self.be_quiet()
        self._process.terminate()

    def reap(self, deadline_s: float) -> None:
        """Wait for the end until ``deadline_s`` (``time.monotonic``), then kill."""
        try:
            self._process.wait(max(0.0, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(1.0)


class Clip:
    """
    A video file, written by a thread of its own so that encoding delays no message.

    It plays at the speed at which the frames were taken: each is repeated or left out as its stamp
    says, at the rate of the first few. A frame that comes while ``WAITING`` others wait is left
    out: memory stays bounded.
    """

    #: Tried in this order: what every player knows, then what every OpenCV can write.
    CODECS = (('mp4v', '.mp4'), ('MJPG', '.avi'))
    WAITING = 8
    RATES_HZ = (1.0, 60.0)
    #: A longer pause between two frames is shortened to this.
    LONGEST_PAUSE_S = 2.0

    def __init__(self, stem: Path) -> None:
        self._stem = stem
        self._frames: queue.Queue[tuple[float, conversions.Bytes] | None] = queue.Queue(
            self.WAITING)
        #: The file, once there is one.
        self.path: Path | None = None
        self.rate_hz = 0.0
        self._thread = threading.Thread(target=self._write, name='clip', daemon=True)
        self._thread.start()

    def add(self, stamp_s: float, frame_bgr: conversions.Bytes) -> None:
        """Append a frame, which must not change any more."""
        with contextlib.suppress(queue.Full):
            self._frames.put_nowait((stamp_s, frame_bgr))

    def waiting(self) -> int:
        """Return how many frames wait to be written."""
        return self._frames.qsize()

    def close(self) -> None:
        """Write what waits and finish the file."""
        self._frames.put(None)
        self._thread.join()

    def _write(self) -> None:
        frames: Iterator[tuple[float, conversions.Bytes]] = iter(self._frames.get, None)
        first = list(itertools.islice(frames, self.WAITING))
        if not first:
            return
        periods_s = np.diff([stamp_s for stamp_s, _ in first])
        period_s = float(np.median(periods_s)) if len(periods_s) else 0.1
        self.rate_hz = float(np.clip(1 / max(period_s, 1e-3), *self.RATES_HZ))
        height, width = first[0][1].shape[:2]
        writer = self._opened((width, height))
        previous_s, position, written = first[0][0], 0.0, 0
        for stamp_s, frame_bgr in itertools.chain(first, frames):
            if writer is None:
                continue  # the queue must still be emptied
            pause_s = min(max(stamp_s - previous_s, 0.0), self.LONGEST_PAUSE_S)
            previous_s, position = stamp_s, position + pause_s * self.rate_hz
            if frame_bgr.shape[:2] != (height, width):  # which VideoWriter drops without a word
                frame_bgr = cv2.resize(frame_bgr, (width, height))
            while written <= round(position):
                writer.write(frame_bgr)
                written += 1
        if writer is not None:
            writer.release()

    def _opened(self, size_wh: tuple[int, int]) -> cv2.VideoWriter | None:
        for codec, suffix in self.CODECS:
            path = self._stem.with_suffix(suffix)
            writer = cv2.VideoWriter(
                str(path), cv2.VideoWriter.fourcc(*codec), self.rate_hz, size_wh)
            if writer.isOpened():
                self.path = path
                return writer
        return None


@dataclasses.dataclass
class Figures:
    """What was seen of the masks; times in seconds."""

    arrivals_s: list[float] = dataclasses.field(default_factory=list)
    latencies_s: list[float] = dataclasses.field(default_factory=list)
    road_shares: list[float] = dataclasses.field(default_factory=list)

    def text(self, start: int = 0) -> str:
        """Describe the masks from number ``start`` on."""
        arrivals_s = self.arrivals_s[max(start - 1, 0):]
        rate_hz = 0.0
        if len(arrivals_s) > 1:
            rate_hz = (len(arrivals_s) - 1) / (arrivals_s[-1] - arrivals_s[0])
        median_ms, p95_ms = np.percentile(self.latencies_s[start:], (50, 95)) * 1e3
        road = np.mean(self.road_shares[start:])
        return (f'{rate_hz:.1f} Hz, latency median {median_ms:.0f} ms, 95 % within {p95_ms:.0f} '
                f'ms, road {road:.0%} of the frame')


@dataclasses.dataclass
class Outcome:
    """What is left to say when the node is gone."""

    failure: str = ''
    summary: str = ''


class DemoNode(Node):
    """The node ``demo``: starts the other two and watches their topics."""

    def __init__(self, options: argparse.Namespace, outcome: Outcome) -> None:
        super().__init__('demo')
        self._options = options
        self._outcome = outcome
        self._children: list[Child] = []
        self._clip = Clip(options.output / CLIP)
        self._picture_bgr: conversions.Bytes | None = None
        self._figures = Figures()
        self._reported = 0
        self._started_s = self._first_s = self._last_s = 0.0
        self.finished = False

    def begin(self) -> None:
        """Start the two nodes."""
        qos = QoSProfile(depth=5)
        self.create_subscription(Image, MASK_TOPIC, self._on_mask, qos)
        self.create_subscription(Image, OVERLAY_TOPIC, self._on_overlay, qos)
        self._started_s = time.monotonic()
        image = f'image:={IMAGE_TOPIC}'
        segmenter = Child('segmenter', '--ros-args', '-r', image)
        self._children.append(segmenter)
        source = json.dumps(self._options.source, ensure_ascii=False)
        replay = ['-p', f'source:={source}', '-p', 'loop:=false']
        if self._options.rate is not None:
            replay += ['-p', f'rate_hz:={self._options.rate!r}']
        # From then on the segmenter may warn that no camera is there.
        self._children.append(
            Child('replay', '--ros-args', '-r', image, *replay, at_end=segmenter.be_quiet))
        self.create_timer(0.1, self._watch)
        self.create_timer(1.0, self._report)

    def end(self) -> None:
        """Stop the two nodes and finish the files."""
        for child in self._children:
            child.stop()
        deadline_s = time.monotonic() + END_S
        for child in self._children:
            child.reap(deadline_s)
        self._clip.close()
        self._outcome.summary = self._summary()

    def _on_mask(self, msg: Image) -> None:
        self._last_s = time.monotonic()
        self._first_s = self._first_s or self._last_s
        mask, _ = conversions.frame_from_image(msg)
        figures = self._figures
        figures.arrivals_s.append(self._last_s)
        age = self.get_clock().now() - Time.from_msg(msg.header.stamp)
        figures.latencies_s.append(age.nanoseconds * 1e-9)
        figures.road_shares.append(cv2.countNonZero(mask) / mask.size)

    def _on_overlay(self, msg: Image) -> None:
        self._picture_bgr, _ = conversions.frame_from_image(msg)
        self._clip.add(Time.from_msg(msg.header.stamp).nanoseconds * 1e-9, self._picture_bgr)

    def _watch(self) -> None:
        """Decide whether it is over."""
        now_s, seconds = time.monotonic(), self._options.seconds
        segmenter, replay = self._children
        for topic in (IMAGE_TOPIC, MASK_TOPIC):
            if self.count_publishers(topic) > 1:
                self._outcome.failure = (
                    f'{topic}: another node publishes it too, and the frames mix; stop that node, '
                    'or choose another domain (ROS_DOMAIN_ID=42).')
                self.finished = True
        if (code := segmenter.exit_code()) is not None:
            self._fail(segmenter, f'ended with {_ending(code)}')
        elif code := replay.exit_code():
            self._fail(replay, f'ended with {_ending(code)}')
        elif code == 0 and now_s - max(self._last_s, self._started_s) > DRAIN_S:
            if self._first_s:
                self.finished = True
            else:
                self._fail(replay, 'ended before a mask came')
        elif self._first_s:
            self.finished = 0 < seconds < now_s - self._first_s
        elif now_s - self._started_s > START_S:
            self._fail(segmenter, f'gave no mask within {START_S:.0f} s')

    def _fail(self, child: Child, what: str) -> None:
        if child.exit_code() is None:
            child.stop()
            child.reap(time.monotonic() + END_S)
        self._outcome.failure = f'{child.tool} {what}; its last lines:\n{child.last_lines()}'
        self.finished = True

    def _report(self) -> None:
        """Print what came since the last report."""
        count = len(self._figures.arrivals_s)
        if count > self._reported:
            print(f'{time.monotonic() - self._first_s:5.0f} s  {count:5d} masks  '
                  f'{self._figures.text(self._reported)}', flush=True)
        elif self._first_s:
            print(f'{time.monotonic() - self._first_s:5.0f} s  {count:5d} masks  no new one',
                  flush=True)
        self._reported = count

    def _summary(self) -> str:
        """Write the picture and describe everything."""
        count = len(self._figures.arrivals_s)
        if not count or self._picture_bgr is None:
            return 'Stopped before the first mask.'
        picture = self._options.output / PICTURE
        _, content = cv2.imencode('.png', self._picture_bgr)
        try:
            write_bytes(picture, content.tobytes())
        except OutputError as error:
            self._outcome.failure = self._outcome.failure or str(error)
            return ''
        if self._clip.path is None:
            clip = 'no clip (this OpenCV encodes no video)'
        else:
            clip = f'{self._clip.path} ({self._clip.rate_hz:.3g} frames per second)'
            if self._clip.path.suffix != Clip.CODECS[0][1]:
                clip += ', since this OpenCV does not encode MP4'
        return f'\n{count} masks: {self._figures.text()}.\nWritten: {picture}, {clip}'


def _ending(code: int) -> str:
    """Name an exit code of ``subprocess``."""
    return f'exit code {code}' if code >= 0 else signal.Signals(-code).name


def claimed_domain(environ: Mapping[str, str]) -> tuple[str, socket.socket]:
    """
    Choose a ROS domain that no other demonstration on this machine uses.

    Parameters
    ----------
    environ : Mapping
        ``ROS_DOMAIN_ID`` in it is kept.

    Returns
    -------
    (str, socket)
        The domain, and what claims it until it is closed or the process ends in any way.

    Raises
    ------
    process.StartError
        If none is free.

    """
    wanted = environ.get('ROS_DOMAIN_ID')
    for domain in [wanted] if wanted else [str(number) for number in range(10)]:
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            # A name in Linux's abstract space: no file, nothing to clean up.
            claim.bind(f'\0bisenet_ros-demo-{domain}')
        except OSError:
            claim.close()
        else:
            return domain, claim
    raise process.StartError(
        f'ROS_DOMAIN_ID: another demonstration runs in {wanted or "each of 0 to 9"}; end it, or '
        'choose another domain (ROS_DOMAIN_ID=42).')


def network_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """
    Return what makes nodes talk to this machine only and carry whole frames.

    Parameters
    ----------
    environ : Mapping
        What the user has chosen in it is kept.

    """
    chosen = {}
    if 'ROS_AUTOMATIC_DISCOVERY_RANGE' not in environ and 'ROS_LOCALHOST_ONLY' not in environ:
        rangeless = environ.get('ROS_DISTRO') in RANGELESS
        chosen = ({'ROS_LOCALHOST_ONLY': '1'} if rangeless
                  else {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'})
    return chosen | transport_environment({**environ, **chosen})


def watch_command() -> str:
    """Return what shows the demonstration's topics in rviz2."""
    view = shlex.quote(str(shipped_file(RVIZ_VIEW)))
    return f'rviz2 -d {view} --ros-args -r /image:={IMAGE_TOPIC}'


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog='demo', description='Road masks from two real ROS 2 nodes, with rate and latency.')
    parser.add_argument(
        'source', nargs='?', default='drive',
        help='a video, a folder of images, or a camera device (/dev/video0, or its number); '
        'without it a drive is rendered')
    parser.add_argument(
        '--seconds', type=float, default=15.0, metavar='S',
        help='end this long after the first mask if the source has not ended before; 0: only '
        'with the source or Ctrl-C (default: %(default)g)')
    parser.add_argument(
        '--rate', type=float, metavar='HZ', help="frames per second (default: the source's own)")
    parser.add_argument(
        '--output', type=Path, default=Path('demo_output'), metavar='FOLDER',
        help='where overlay.png and overlay.mp4 go (default: %(default)s)')
    return parser


def _options(arguments: list[str] | None) -> argparse.Namespace:
    command_line = parser()
    options = command_line.parse_args(arguments)
    if not options.seconds >= 0:  # which NaN is not either
        command_line.error(f'argument --seconds: found {options.seconds:g}, expected 0 or more')
    if options.rate is not None and not 0 < options.rate <= 1000:
        command_line.error(
            f'argument --rate: found {options.rate:g}, expected more than 0, at most 1000')
    try:
        for name in (PICTURE, *(f'{CLIP}{suffix}' for _, suffix in Clip.CODECS)):
            check_writable(options.output / name)
    except OutputError as error:
        command_line.error(f'argument --output: {error}')
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the demonstration; return the exit code."""
    # demo.sh starts Python with the signals blocked: one that came during the imports counts now.
    process.hold_signals()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    options = _options(arguments)
    try:
        open_source(options.source)  # and let go of it: replay's complaint would come amid others
        domain, claim = claimed_domain(os.environ)
    except (SourceError, process.StartError) as error:
        print(f'demo: {error}', file=sys.stderr)
        return 1
    os.environ.update(network_environment(os.environ))
    watch = ''
    if domain != os.environ.get('ROS_DOMAIN_ID', '0'):
        watch = f'ROS_DOMAIN_ID={domain} '
        os.environ['ROS_DOMAIN_ID'] = domain
    if os.environ.pop(ELSEWHERE, None):
        watch = f'env -u {ELSEWHERE} {watch}'
    watch += watch_command()
    print(f'replay -> {IMAGE_TOPIC} -> segmenter -> {MASK_TOPIC}, {OVERLAY_TOPIC}; two ROS 2 '
          f'nodes in two processes.\nTo watch, where RViz is installed: {watch}', flush=True)

    outcome = Outcome()
    with contextlib.closing(claim):
        if code := process.run(lambda: DemoNode(options, outcome), args=[]):
            return code
    if outcome.failure:
        print(f'demo: {outcome.failure}', file=sys.stderr)
        return 1
    print(outcome.summary, flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main())
