"""Videos, folders, the rendered drive, and what is none of them."""

from __future__ import annotations

import itertools
import math
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from bisenet_ros.core.drive import RenderedDrive
from bisenet_ros.core.sources import (
    DEFAULT_RATE_HZ, CameraSource, DriveSource, FolderSource, SourceError, VideoSource,
    open_source, pinhole,
)

Bytes = npt.NDArray[np.uint8]

#: Blue, green, red, in the order that they are filmed.
COLORS_BGR = ((250, 0, 0), (0, 250, 0), (0, 0, 250))


def plain(color_bgr: tuple[int, int, int], size_wh: tuple[int, int] = (64, 48)) -> Bytes:
    return np.full((*size_wh[::-1], 3), color_bgr, np.uint8)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / 'clip.avi'
    writer = cv2.VideoWriter(
        str(path), cv2.VideoWriter.fourcc(*'MJPG'), 12.5, (64, 48))
    if not writer.isOpened():
        pytest.skip('this OpenCV cannot write MJPG in AVI')
    for color in COLORS_BGR:
        writer.write(plain(color))
    writer.release()
    return path


def assert_colors(frames: list[Bytes], colors_bgr: tuple[tuple[int, int, int], ...]) -> None:
    assert len(frames) == len(colors_bgr)
    for frame, color in zip(frames, colors_bgr, strict=True):
        assert frame.dtype == np.uint8
        np.testing.assert_allclose(frame.mean((0, 1)), color, atol=8)  # jpeg


def test_video_plays_through_in_order_and_again(video: Path) -> None:
    source = open_source(str(video))
    assert isinstance(source, VideoSource)
    assert source.rate_hz == pytest.approx(12.5)
    assert not source.live
    for _ in range(2):
        assert_colors(list(source.frames()), COLORS_BGR)


def test_two_runs_of_a_video_do_not_disturb_each_other(video: Path) -> None:
    source = VideoSource(video)
    first, second = source.frames(), source.frames()
    next(first)
    assert_colors([next(second), next(first)], (COLORS_BGR[0], COLORS_BGR[1]))


@pytest.mark.parametrize('content', [b'', b'no video' * 100, None])
def test_what_is_no_video(video: Path, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / 'broken.avi'
    # None: a video that ends behind its header
    path.write_bytes(video.read_bytes()[:300] if content is None else content)
    with pytest.raises(SourceError, match=(
            r'broken\.avi: not a video that OpenCV can decode; convert it \(for instance to '
            r'MP4\), or give a folder of images')):
        open_source(str(path))


@pytest.mark.parametrize('answers', ['x', '.'])
def test_video_that_goes_away(video: Path, answers: str) -> None:
    source = VideoSource(video)
    video.unlink()
    with pytest.raises(SourceError, match=(
            rf'^{re.escape(str(video))}: found no frame, expected those that it had before; is '
            r'the file still there, and its disk mounted\?$')):
        list(source.frames(wanted(answers)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / 'frames'
    path.mkdir()
    for name, color in zip(('a.png', 'b.JPG', 'd.bmp'), COLORS_BGR, strict=True):
        coded, data = cv2.imencode(Path(name).suffix, plain(color))
        assert coded
        (path / name).write_bytes(data.tobytes())
    (path / 'notes.txt').write_text('no image')
    (path / 'sub').mkdir()
    return path


def test_folder_in_order_of_names(folder: Path) -> None:
    source = open_source(str(folder))
    assert isinstance(source, FolderSource)
    assert (source.rate_hz, source.live) == (DEFAULT_RATE_HZ, False)
    for _ in range(2):
        assert_colors(list(source.frames()), COLORS_BGR)
    assert source.unreadable == []


def test_grey_and_transparent_images_are_bgr(folder: Path) -> None:
    cv2.imwrite(str(folder / 'e.png'), np.full((5, 7), 90, np.uint8))
    cv2.imwrite(str(folder / 'f.png'), np.full((5, 7, 4), (10, 20, 30, 0), np.uint8))
    frames = list(open_source(str(folder)).frames())
    np.testing.assert_array_equal(frames[-2], np.full((5, 7, 3), 90))
    np.testing.assert_array_equal(frames[-1], np.full((5, 7, 3), (10, 20, 30)))


def test_broken_image_is_passed_over_and_named_once(folder: Path) -> None:
    (folder / 'c.png').write_bytes((folder / 'a.png').read_bytes()[:20])
    (folder / 'e.jpg').write_bytes(b'')
    (folder / 'f.jpg').write_bytes((folder / 'b.JPG').read_bytes()[:-20])
    source = open_source(str(folder))
    for _ in range(2):
        assert_colors(list(source.frames()), COLORS_BGR)
    assert isinstance(source, FolderSource)
    assert source.unreadable == ['c.png', 'e.jpg', 'f.jpg']


def test_one_image_is_a_source(folder: Path) -> None:
    source = open_source(str(folder / 'b.JPG'))
    assert isinstance(source, FolderSource)
    for _ in range(2):
        assert_colors(list(source.frames()), COLORS_BGR[1:2])
    (folder / 'e.jpg').write_bytes(b'')
    with pytest.raises(SourceError, match=r'e\.jpg: not readable as an image\.$'):
        open_source(str(folder / 'e.jpg'))


def test_a_photo_stands_as_its_camera_was_held(tmp_path: Path) -> None:
    coded, data = cv2.imencode('.jpg', np.zeros((20, 40, 3), np.uint8))
    assert coded
    turned = (b'\xff\xe1\x00\x22Exif\0\0MM\0*\0\0\0\x08'
              b'\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0')
    (tmp_path / 'a.jpg').write_bytes(data.tobytes()[:2] + turned + data.tobytes()[2:])
    (frame,) = open_source(str(tmp_path / 'a.jpg')).frames()
    assert frame is not None
    assert frame.shape == (40, 20, 3)


def test_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / 'notes.txt').write_text('no image')
    with pytest.raises(SourceError, match=(
            rf'{re.escape(str(tmp_path))}: holds no images \(\.bmp, .*\.webp\); give a folder '
            r'that does, or a video')):
        open_source(str(tmp_path))


def test_folder_of_broken_images(tmp_path: Path) -> None:
    for name in ('a.png', 'b.png'):
        (tmp_path / name).write_bytes(b'broken')
    with pytest.raises(SourceError, match=r'none of its 2 images is readable'):
        open_source(str(tmp_path))


def test_folder_whose_images_go_away(folder: Path) -> None:
    source = open_source(str(folder))
    for file in folder.glob('*.*'):
        file.unlink()
    with pytest.raises(SourceError, match=r'none of its 3 images is readable'):
        list(source.frames())


@pytest.mark.parametrize('name', ['nowhere.mp4', '/no/such/folder', 'drives', 'video0'])
def test_missing_source(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=(
            rf"source: '{name}' is neither a file, a folder nor a camera device; expected drive, "
            r'a video, an image or a folder of them, /dev/videoN or its number')):
        open_source(name)


@pytest.mark.parametrize('name', ['/dev/video97', '97'])
def test_missing_camera(name: str) -> None:
    if Path('/dev/video97').exists():
        pytest.skip('this machine has a /dev/video97')
    with pytest.raises(SourceError, match=(
            rf'{name}: cannot be opened as a camera; is it plugged in, free, and are you in the '
            r'group video\?')):
        open_source(name)


def test_a_link_to_a_camera_is_a_camera(tmp_path: Path) -> None:
    """As /dev/v4l/by-id has them; the device it leads to is none here."""
    link = tmp_path / 'usb-Cam_0001-video-index0'
    link.symlink_to('/dev/null')
    with pytest.raises(SourceError, match='^/dev/null: cannot be opened as a camera; is it plug'):
        open_source(str(link))


class FakeCapture:
    """A camera that gives three frames and then goes away."""

    def __init__(self, device: int | str) -> None:
        self.device = device
        self.settings: dict[int, float] = {}
        self._frames = [plain(color) for color in COLORS_BGR]
        self._grabbed: Bytes | None = None
        self.retrieved = 0
        self.released = False

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        return True

    def set(self, prop: int, value: float) -> bool:
        self.settings[prop] = value
        return True

    def get(self, prop: int) -> float:
        return 15.0 if prop == cv2.CAP_PROP_FPS else 0.0

    def grab(self) -> bool:
        self._grabbed = self._frames.pop(0) if self._frames else None
        return self._grabbed is not None

    def retrieve(self) -> tuple[bool, Bytes | None]:
        self.retrieved += 1
        return self._grabbed is not None, self._grabbed

    def release(self) -> None:
        self.released = True


@pytest.mark.parametrize(('name', 'device'), [
    ('3', 3), ('/dev/video3', 3), ('/dev/v4l/by-id/usb-cam', '/dev/v4l/by-id/usb-cam')])
def test_camera_sets_its_own_pace(
    monkeypatch: pytest.MonkeyPatch, name: str, device: int | str,
) -> None:
    monkeypatch.setattr(cv2, 'VideoCapture', FakeCapture)
    source = CameraSource(name)
    assert (source.rate_hz, source.live) == (15.0, True)
    capture = source._capture
    assert capture.device == device
    assert capture.settings == {cv2.CAP_PROP_BUFFERSIZE: 1}
    frames = source.frames()
    assert_colors([next(frames), next(frames), next(frames)], COLORS_BGR)
    with pytest.raises(SourceError, match=rf'{name}: the camera stopped giving frames'):
        next(frames)
    assert capture.released


# -- while nobody wants anything -----------------------------------------------------------------


def wanted(answers: str) -> Callable[[], bool]:
    """Return what says yes where a text has an x."""
    left = iter(answers)
    return lambda: next(left) == 'x'


@pytest.mark.parametrize('answers', ['x.x', '..x', '.x.', 'x..', '...'])
def test_unwanted_frames_are_skipped_and_those_behind_are_right(
    answers: str, video: Path, folder: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = [color if answer == 'x' else None
                for answer, color in zip(answers, COLORS_BGR, strict=True)]
    for path in (video, folder):
        frames = list(open_source(str(path)).frames(wanted(f'{answers}x')))
        assert [frame is None for frame in frames] == [color is None for color in expected]
        assert_colors([frame for frame in frames if frame is not None],
                      tuple(color for color in expected if color is not None))
    monkeypatch.setattr(cv2, 'VideoCapture', FakeCapture)
    camera = CameraSource('3')
    frames = list(itertools.islice(camera.frames(wanted(answers)), 3))
    assert [frame is None for frame in frames] == [color is None for color in expected]
    assert camera._capture.retrieved == answers.count('x')


def test_unwanted_drive_goes_on_and_nothing_is_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    source = DriveSource((64, 48), 3)
    expected = next(itertools.islice(source.frames(), 20, None))
    rendered: list[float] = []
    render = RenderedDrive.frame
    monkeypatch.setattr(RenderedDrive, 'frame', lambda self, time_s: (
        rendered.append(time_s), render(self, time_s))[1])
    frames = list(itertools.islice(source.frames(wanted('.' * 20 + 'x')), 21))
    assert frames[:20] == [None] * 20
    np.testing.assert_array_equal(frames[20], expected)
    assert rendered == [pytest.approx(20 / source.rate_hz)]


def test_video_that_hides_its_length_is_read_on(
    video: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Stream:
        def __init__(self, path: str) -> None:
            self._capture = capture(path)
            self.read, self.release = self._capture.read, self._capture.release
            self.isOpened = self._capture.isOpened  # OpenCV's name

        def get(self, prop: int) -> float:
            return -1.0 if prop == cv2.CAP_PROP_FRAME_COUNT else self._capture.get(prop)

    capture = cv2.VideoCapture
    monkeypatch.setattr(cv2, 'VideoCapture', Stream)
    assert_colors(list(VideoSource(video).frames(wanted('.' * 4))), COLORS_BGR)


def test_folder_that_nobody_watches_is_not_called_unreadable(folder: Path) -> None:
    assert list(FolderSource(folder).frames(lambda: False)) == [None] * 3


# -- what cannot be read -------------------------------------------------------------------------


@pytest.mark.parametrize(('method', 'source'), [
    ('iterdir', 'frames'), ('is_dir', 'frames'), ('open', 'clip.avi')])
def test_what_we_may_not_read_is_named(
    video: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, method: str, source: str,
) -> None:
    def refuse(path: Path, *args: object) -> None:
        raise PermissionError(13, 'Permission denied', str(path))

    name = str(video.with_name(source))
    monkeypatch.setattr(Path, method, refuse)
    with pytest.raises(SourceError, match=(
            rf'^{re.escape(name)}: cannot be read: Permission denied\.$')):
        open_source(name)


def test_names_that_are_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(SourceError, match=r"^source: '' is neither a file, a folder nor"):
        open_source('')
    with pytest.raises(SourceError, match=r'^~nobody-here/x\.mp4: Could not determine home'):
        open_source('~nobody-here/x.mp4')
    with pytest.raises(SourceError, match='x: cannot be read: File name too long'):
        open_source('x' * 5000)
    assert isinstance(open_source('.'), FolderSource)


def test_image_that_says_to_be_enormous_is_passed_over(folder: Path) -> None:
    data = bytearray((folder / 'a.png').read_bytes())
    data[16:24] = struct.pack('>II', 1 << 20, 1 << 20)
    data[29:33] = struct.pack('>I', zlib.crc32(data[12:29]))
    (folder / 'c.png').write_bytes(data)
    source = FolderSource(folder)
    assert_colors(list(source.frames()), COLORS_BGR)
    assert source.unreadable == ['c.png']


# -- the drive and the rest ----------------------------------------------------------------------


def test_drive_is_the_rendered_one_at_its_rate() -> None:
    source = open_source('drive', (64, 48), seed=3)
    assert isinstance(source, DriveSource)
    assert (source.rate_hz, source.live) == (DEFAULT_RATE_HZ, False)
    drive = RenderedDrive((64, 48), 3)
    source.rate_hz = 10.0
    for index, frame in enumerate(itertools.islice(source.frames(), 3)):
        assert frame.shape == (48, 64, 3)
        np.testing.assert_array_equal(frame[..., ::-1], drive.frame(index / 10)[0])


@pytest.mark.parametrize('size_wh', [(15, 100), (100, 0), (-1, -1), (100, 8193), (10**9, 10**9)])
def test_drive_too_small_or_large_to_draw(size_wh: tuple[int, int]) -> None:
    with pytest.raises(SourceError, match=(
            rf'^size: found {re.escape(str(size_wh))}, expected 16 to 8192 pixels a side\.$')):
        open_source('drive', size_wh)


def test_drive_of_no_such_seed() -> None:
    with pytest.raises(SourceError, match=r'^seed: found -1, expected 0 or more\.$'):
        open_source('drive', seed=-1)
    next(open_source('drive', (16, 16), seed=2**63 - 1).frames())


def test_pinhole() -> None:
    focal_px, x_px, y_px = pinhole((640, 480), math.pi / 2)
    assert (focal_px, x_px, y_px) == (pytest.approx(320), 320, 240)


def test_real_clip(shared_data: Path) -> None:
    clip = shared_data / 'clips' / 'carnd_vd_test_1280x720_25fps_38f.mp4'
    if not clip.is_file():
        pytest.skip(f'{clip.name} is not in ../shared/data/clips')
    source = open_source(str(clip))
    assert source.rate_hz == pytest.approx(25)
    frames = list(itertools.islice(source.frames(), 3))
    assert [frame.shape for frame in frames] == [(720, 1280, 3)] * 3
    skipped = list(open_source(str(clip)).frames(wanted('...x' * 10)))
    for index, frame in enumerate(source.frames()):
        if index % 4 == 3:
            np.testing.assert_array_equal(skipped[index], frame)
