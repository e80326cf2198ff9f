"""The demonstration: run as a user runs it, interrupted at every stage, robbed of its nodes."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from harness import BOOTSTRAP, IMAGE_TOPIC, PATIENCE_S, ROOT, Peer, sweep_shared_memory

from bisenet_ros import demo, process
from bisenet_ros.core.drive import RenderedDrive
from bisenet_ros.core.output_files import UnwritableError
from bisenet_ros.replay import PLAYED

#: Width, height, frames and rate of the clip that the demonstration gets.
WIDTH_PX, HEIGHT_PX, FRAMES, RATE_HZ = 320, 180, 60, 20.0

#: Two seconds are promised; three processes share that on a machine that may be busy.
END_S = 10.0


@pytest.fixture(scope='module')
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('source') / "it's a drive.avi"
    writer = cv2.VideoWriter(
        str(path), cv2.VideoWriter.fourcc(*'MJPG'), RATE_HZ, (WIDTH_PX, HEIGHT_PX))
    drive = RenderedDrive((WIDTH_PX, HEIGHT_PX), 0)
    for index in range(FRAMES):
        writer.write(np.ascontiguousarray(drive.frame(index / RATE_HZ)[0][..., ::-1]))
    writer.release()
    return path


class Demo:
    """A running demonstration; ``blocked`` starts it as demo.sh does, with signals held back."""

    def __init__(self, *arguments: str, domain: str, blocked: bool = False) -> None:
        environment = {
            key: value for key, value in os.environ.items()
            if key not in (*BOOTSTRAP, 'ROS_AUTOMATIC_DISCOVERY_RANGE', 'ROS_LOCALHOST_ONLY')}
        environment['ROS_DOMAIN_ID'] = domain
        command = [sys.executable, '-m', 'bisenet_ros.demo', *arguments]
        if blocked:
            command = ['env', '--block-signal=INT,TERM', *command]
        self.process = subprocess.Popen(
            command, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env={**environment, 'PYTHONPATH': str(ROOT)})
        self.output = ''
        self._said = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._said:
                self.output += line
                self._said.notify_all()

    def wait_for(self, pattern: str) -> None:
        with self._said:
            found = self._said.wait_for(lambda: re.search(pattern, self.output), PATIENCE_S)
        assert found, self.output

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        code = self.process.wait(timeout_s)
        self._reader.join(timeout_s)
        return code

    def nodes(self) -> dict[str, int]:
        """Return the process ids of the two nodes by their tool, once both are there."""
        deadline_s = time.monotonic() + PATIENCE_S
        found: dict[str, int] = {}
        while len(found) < 2:
            assert time.monotonic() < deadline_s, self.output
            time.sleep(0.02)
            found = dict(self._nodes())
        return found

    def _nodes(self) -> Iterator[tuple[str, int]]:
        for folder in Path('/proc').glob('[0-9]*'):
            with contextlib.suppress(OSError):
                parent = re.search(r'\nPPid:\s+(\d+)', (folder / 'status').read_text())
                command = (folder / 'cmdline').read_text().split('\0')
                if parent is not None and int(parent[1]) == self.process.pid:
                    for tool in ('replay', 'segmenter'):
                        if f'bisenet_ros.{tool}' in command:
                            yield tool, int(folder.name)


@pytest.fixture
def start(tmp_path: Path, other_domain: str) -> Iterator[Callable[..., Demo]]:
    """Give ``Demo``, in a domain where nothing that is killed meets the other tests' nodes."""
    started: list[Demo] = []

    def start_demo(*arguments: str, **options: bool) -> Demo:
        started.append(
            Demo('--output', str(tmp_path / 'out'), *arguments, domain=other_domain, **options))
        return started[-1]

    yield start_demo
    for one in started:
        one.process.kill()
        one.wait()
    sweep_shared_memory()  # who was killed must not make the next demo deaf


def gone(pids: Mapping[str, int]) -> bool:
    """Return whether every process ends within ``END_S``."""
    deadline_s = time.monotonic() + END_S
    left = list(pids.values())
    while left and time.monotonic() < deadline_s:
        time.sleep(0.02)
        left = [pid for pid in left if _runs(pid)]
    return not left


def _runs(pid: int) -> bool:
    try:
        return '\nState:\tZ' not in Path(f'/proc/{pid}/status').read_text()
    except FileNotFoundError:
        return False


def read_clip(path: Path) -> tuple[list[np.ndarray], float]:
    """Return the frames and the rate of a clip."""
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return frames, capture.get(cv2.CAP_PROP_FPS)


# -- a whole run ----------------------------------------------------------------------------------

def test_a_video_to_its_end(start, video: Path, tmp_path: Path) -> None:
    running = start(str(video))
    nodes = running.nodes()
    assert set(nodes) == {'segmenter', 'replay'}
    assert running.wait() == 0, running.output
    assert gone(nodes)

    assert PLAYED in running.output and 'no publisher' not in running.output
    summary = re.search(r'^(\d+) masks: ([\d.]+) Hz, latency median (\d+) ms', running.output,
                        re.MULTILINE)
    assert summary is not None, running.output
    assert 5 < int(summary[1]) <= FRAMES
    assert 1 < float(summary[2]) < 1.5 * RATE_HZ
    assert re.search(r'^ +\d+ s +\d+ masks  ', running.output, re.MULTILINE)

    picture = cv2.imread(str(tmp_path / 'out/overlay.png'))
    assert picture.shape == (HEIGHT_PX, WIDTH_PX, 3)
    frames, rate_hz = read_clip(tmp_path / 'out/overlay.mp4')
    assert frames[0].shape == (HEIGHT_PX, WIDTH_PX, 3)
    assert len(frames) / rate_hz == pytest.approx(int(summary[1]) / float(summary[2]), rel=0.5)


def test_an_endless_source_for_some_seconds(start) -> None:
    running = start('--seconds', '1', '--rate', '5')
    running.wait_for('masks  ')
    begun_s = time.monotonic()
    assert running.wait() == 0, running.output
    assert time.monotonic() - begun_s < 1 + END_S
    assert 'replay]: drive at 5 Hz' in running.output


def test_a_single_image_is_a_source_too(start, tmp_path: Path) -> None:
    folder = tmp_path / 'im\N{LATIN SMALL LETTER A WITH ACUTE}genes \N{AUTOMOBILE}'
    folder.mkdir()
    (folder / 'one.png').write_bytes(
        cv2.imencode('.png', np.full((90, 160, 3), 99, np.uint8))[1].tobytes())
    running = start(str(folder))
    assert running.wait() == 0, running.output
    assert '\n1 masks: ' in running.output
    assert len(read_clip(tmp_path / 'out/overlay.mp4')[0]) == 1


def test_once_the_source_has_ended_the_segmenter_may_miss_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> None:
    ended = tmp_path / 'ended'
    tools = tmp_path / 'tools'
    tools.write_text(f"""#!/bin/sh
for word; do case $word in
bisenet_ros.replay) echo "[INFO] [1.2] [replay]: {PLAYED}";;
bisenet_ros.segmenter)
    echo 'something is wrong'
    while [ ! -e '{ended}' ]; do sleep 0.01; done
    echo 'no publisher';;
esac; done
""")
    tools.chmod(0o755)
    monkeypatch.setattr(sys, 'executable', str(tools))
    segmenter = demo.Child('segmenter')
    replay = demo.Child('replay', at_end=segmenter.be_quiet)
    replay.reap(time.monotonic() + PATIENCE_S)
    ended.touch()
    segmenter.reap(time.monotonic() + PATIENCE_S)
    said = capfd.readouterr().err
    assert PLAYED in said and 'no publisher' not in said
    assert segmenter.last_lines().splitlines() == ['    something is wrong', '    no publisher']


# -- the end, early -------------------------------------------------------------------------------

@pytest.mark.parametrize(('moment', 'signals'), [
    ('two ROS 2 nodes', [signal.SIGINT]),
    ('replay]: ', [signal.SIGTERM]),
    ('masks  ', [signal.SIGINT]),
    ('masks  ', [signal.SIGTERM, signal.SIGINT, signal.SIGINT]),
])
def test_a_signal_ends_everything(
    start, moment: str, signals: Sequence[signal.Signals],
) -> None:
    running = start()
    running.wait_for(moment)
    nodes = running.nodes() if moment != 'two ROS 2 nodes' else {}
    sent_s = time.monotonic()
    for number in signals:
        running.process.send_signal(number)
    assert running.wait() == 0, running.output
    assert time.monotonic() - sent_s < END_S
    assert gone(nodes)
    assert 'Traceback' not in running.output
    assert running.output.splitlines()[-1].startswith(('Written: ', 'Stopped before the first'))


def test_a_signal_during_the_imports_counts(start) -> None:
    if subprocess.run(['env', '--block-signal=INT', 'true'], capture_output=True).returncode:
        pytest.skip('this env (coreutils before 8.31) cannot block signals')
    running = start(blocked=True)
    status = Path(f'/proc/{running.process.pid}/status')
    bits = 1 << signal.SIGINT - 1
    deadline_s = time.monotonic() + PATIENCE_S
    while not int(re.search(r'SigBlk:\s+(\w+)', status.read_text())[1], 16) & bits:
        assert time.monotonic() < deadline_s
        time.sleep(0.001)
    running.process.send_signal(signal.SIGINT)
    assert running.wait() == 0, running.output
    assert 'Traceback' not in running.output


def test_a_killed_demo_leaves_no_node(start) -> None:
    if shutil.which('setpriv') is None:
        pytest.skip('no setpriv here: nothing tells the nodes')
    running = start()
    nodes = running.nodes()
    running.wait_for('masks  ')
    running.process.kill()
    assert gone(nodes)


def test_a_node_that_dies_ends_the_demo_with_its_last_words(start) -> None:
    running = start()
    nodes = running.nodes()
    running.wait_for('masks  ')
    os.kill(nodes['segmenter'], signal.SIGKILL)
    assert running.wait() == 1
    assert 'demo: segmenter ended with SIGKILL; its last lines:\n    ' in running.output
    assert 'Traceback' not in running.output
    assert gone(nodes)


@pytest.mark.parametrize(('name', 'reason'), [
    ('missing.mp4', 'is neither a file, a folder nor a camera device; expected drive, a video,'),
    ('notes.txt', 'notes.txt: not a video that OpenCV can decode; convert it'),
    ('empty.mp4', 'empty.mp4: not a video that OpenCV can decode; convert it'),
    ('cut.mp4', 'cut.mp4: not a video that OpenCV can decode; convert it'),
    ('empty', 'empty: holds no images'),
])
def test_what_is_no_source_is_a_line_before_any_node(
    start, tmp_path: Path, name: str, reason: str,
) -> None:
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'notes.txt').write_text('no video')
    (tmp_path / 'empty.mp4').touch()
    (tmp_path / 'cut.mp4').write_bytes(b'\0\0\0\x18ftypisom' + bytes(500))
    running = start(str(tmp_path / name))
    assert running.wait() == 1
    (line,) = (line for line in running.output.splitlines() if line.startswith('demo: '))
    assert reason in line
    assert 'Traceback' not in running.output
    assert not re.search('replay|segmenter|rviz', running.output)


# -- others ---------------------------------------------------------------------------------------

def test_a_camera_on_its_topic_is_not_mixed_in(start, other_domain: str) -> None:
    with Peer(domain_id=int(other_domain)) as peer:
        peer.camera(IMAGE_TOPIC)
        running = start()
        assert running.wait() == 1
    assert f'{IMAGE_TOPIC}: another node publishes it too' in running.output


def test_two_demos_take_two_domains() -> None:
    first, first_claim = demo.claimed_domain({})
    with first_claim:
        second, second_claim = demo.claimed_domain({})
        with second_claim:
            assert first != second
            with pytest.raises(process.StartError, match=f'demonstration runs in {first};'):
                demo.claimed_domain({'ROS_DOMAIN_ID': first})
    again, again_claim = demo.claimed_domain({'ROS_DOMAIN_ID': first})
    again_claim.close()
    assert again == first


LOCAL = {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}
PROFILES = {'FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE'}


@pytest.mark.parametrize(('environ', 'added'), [
    ({}, {*LOCAL, *PROFILES}),
    (LOCAL, PROFILES),
    ({'ROS_LOCALHOST_ONLY': '1'}, PROFILES),
    ({'ROS_AUTOMATIC_DISCOVERY_RANGE': 'SUBNET'}, {'FASTDDS_BUILTIN_TRANSPORTS', *PROFILES}),
    ({'ROS_LOCALHOST_ONLY': '0'}, {'FASTDDS_BUILTIN_TRANSPORTS', *PROFILES}),
    ({'FASTDDS_BUILTIN_TRANSPORTS': 'UDPv4'}, set(LOCAL)),
    ({'RMW_IMPLEMENTATION': 'rmw_cyclonedds_cpp'}, set(LOCAL)),
    ({'ROS_DISTRO': 'humble'}, {'ROS_LOCALHOST_ONLY', 'FASTRTPS_DEFAULT_PROFILES_FILE'}),
])
def test_nodes_keep_to_this_machine_and_carry_frames(
    environ: dict[str, str], added: set[str],
) -> None:
    assert set(demo.network_environment(environ)) == set(added)


@pytest.mark.parametrize('arguments', [
    ['--seconds', '-1'], ['--seconds', 'nan'], ['--rate', '0'], ['--rate', 'fast'],
    ['--output', '/dev/null/x'],
])
def test_wrong_arguments_are_named(start, arguments: list[str]) -> None:
    running = start(*arguments)
    assert running.wait() == 2
    assert f'demo: error: argument {arguments[0]}' in running.output


def test_a_picture_that_cannot_be_written_is_told(start, tmp_path: Path) -> None:
    running = start()
    running.wait_for('masks  ')
    (tmp_path / 'out/overlay.png').mkdir()
    running.process.send_signal(signal.SIGINT)
    assert running.wait() == 1, running.output
    assert f'demo: {tmp_path}/out/overlay.png: cannot be written (Is a dir' in running.output
    assert 'Written: ' not in running.output


def test_a_folder_that_takes_no_files_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    def refused(path: Path) -> None:
        raise UnwritableError(path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))

    monkeypatch.setattr(demo, 'check_writable', refused)
    with pytest.raises(SystemExit):
        demo._options(['--output', str(tmp_path)])
    assert (f'argument --output: {tmp_path}/overlay.png: cannot be written (Permission denied)'
            in capsys.readouterr().err)


# -- the clip -------------------------------------------------------------------------------------

def frame(level: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def written(folder: Path, stamped: Sequence[tuple[float, np.ndarray]]) -> demo.Clip:
    clip = demo.Clip(folder / 'clip')
    for stamp_s, bgr in stamped:
        while clip.waiting() >= clip.WAITING:
            time.sleep(0.001)
        clip.add(stamp_s, bgr)
    clip.close()
    return clip


def test_a_clip_plays_at_the_speed_of_the_stamps(tmp_path: Path) -> None:
    """Ten frames at 20 Hz, then ten at 10 Hz: 0.45 s and another second."""
    stamps_s = [index / 20 for index in range(10)]
    stamps_s += [stamps_s[-1] + index / 10 for index in range(1, 11)]
    clip = written(tmp_path, [(100 + stamp_s, frame(128)) for stamp_s in stamps_s])
    assert clip.path == tmp_path / 'clip.mp4'
    frames, rate_hz = read_clip(clip.path)
    assert rate_hz == pytest.approx(20)
    assert len(frames) == 10 + 20


def test_a_pause_and_a_clock_that_jumps_back_stay_short(tmp_path: Path) -> None:
    stamps_s = [index / 10 for index in range(8)]
    clip = written(tmp_path, [(s, frame(1)) for s in (*stamps_s, 1000.0, 3.0, 3.1)])
    frames, _ = read_clip(clip.path)
    assert len(frames) == 8 + round(clip.LONGEST_PAUSE_S * 10) + 1


def test_frames_of_other_sizes_are_fitted(tmp_path: Path) -> None:
    clip = written(tmp_path, [(0.0, frame(0)), (0.1, frame(250, 30, 90)), (0.2, frame(250))])
    frames, _ = read_clip(clip.path)
    assert [one.shape for one in frames] == [(48, 64, 3)] * 3
    assert [one.mean() > 200 for one in frames] == [False, True, True]


def test_without_mp4_there_is_an_avi_and_without_any_codec_no_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(demo.Clip, 'CODECS', (('????', '.mp4'), demo.Clip.CODECS[1]))
    clip = written(tmp_path, [(0.0, frame(0)), (0.1, frame(1))])
    assert clip.path == tmp_path / 'clip.avi'
    assert len(read_clip(clip.path)[0]) == 2
    monkeypatch.setattr(demo.Clip, 'CODECS', ())
    assert written(tmp_path, [(index / 10, frame(0)) for index in range(40)]).path is None


def test_a_clip_without_frames_is_no_file(tmp_path: Path) -> None:
    assert written(tmp_path, []).path is None
    assert list(tmp_path.iterdir()) == []


def test_frames_that_come_too_fast_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    go_on = threading.Event()
    opened = demo.Clip._opened
    monkeypatch.setattr(
        demo.Clip, '_opened', lambda self, size: (go_on.wait(), opened(self, size))[1])
    clip = demo.Clip(tmp_path / 'clip')
    for index in range(100):
        clip.add(index / 10, frame(0))
    assert clip.waiting() <= clip.WAITING
    go_on.set()
    clip.close()
    assert clip.path is not None
