"""Videos, folders, the rendered drive, and what is none of them."""

from __future__ import annotations

import itertools
import math
import re
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
    source = open_source(str(folder))
    for _ in range(2):
        assert_colors(list(source.frames()), COLORS_BGR)
    assert isinstance(source, FolderSource)
    assert source.unreadable == ['c.png', 'e.jpg']


def test_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / 'notes.txt').write_text('no image')
    with pytest.raises(SourceError, match=(
            rf'{re.escape(str(tmp_path))}: holds no images \(\.bmp, .*\.webp\); give a folder '
            r'that does, or a video')):
        open_source(str(tmp_path))


def test_folder_of_broken_images(tmp_path: Path) -> None:
    for name in ('a.png', 'b.png'):
        (tmp_path / name).write_bytes(b'broken')
    source = open_source(str(tmp_path))
    with pytest.raises(SourceError, match=r'none of its 2 images is readable'):
        list(source.frames())


@pytest.mark.parametrize('name', ['nowhere.mp4', '/no/such/folder', 'drives', 'video0'])
def test_missing_source(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=(
            rf"source: '{name}' is neither a file, a folder nor a camera device; expected drive, "
            r'a video, a folder of images, /dev/videoN or its number')):
        open_source(name)


@pytest.mark.parametrize('name', ['/dev/video97', '97'])
def test_missing_camera(name: str) -> None:
    if Path('/dev/video97').exists():
        pytest.skip('this machine has a /dev/video97')
    with pytest.raises(SourceError, match=(
            rf'{name}: cannot be opened as a camera; is it plugged in, free, and are you in the '
            r'group video\?')):
        open_source(name)


class FakeCapture:
    """A camera that gives three frames and then goes away."""

    def __init__(self, device: int | str) -> None:
        self.device = device
        self.settings: dict[int, float] = {}
        self._frames = [plain(color) for color in COLORS_BGR]
        self.released = False

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        return True

    def set(self, prop: int, value: float) -> bool:
        self.settings[prop] = value
        return True

    def get(self, prop: int) -> float:
        return 15.0 if prop == cv2.CAP_PROP_FPS else 0.0

    def read(self) -> tuple[bool, Bytes | None]:
        return (True, self._frames.pop(0)) if self._frames else (False, None)

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


def test_drive_is_the_rendered_one_at_its_rate() -> None:
    source = open_source('drive', (64, 48), seed=3)
    assert isinstance(source, DriveSource)
    assert (source.rate_hz, source.live) == (DEFAULT_RATE_HZ, False)
    drive = RenderedDrive((64, 48), 3)
    source.rate_hz = 10.0
    for index, frame in enumerate(itertools.islice(source.frames(), 3)):
        assert frame.shape == (48, 64, 3)
        np.testing.assert_array_equal(frame[..., ::-1], drive.frame(index / 10)[0])


@pytest.mark.parametrize('size_wh', [(15, 100), (100, 0), (-1, -1)])
def test_drive_too_small_to_draw(size_wh: tuple[int, int]) -> None:
    with pytest.raises(SourceError, match=(
            rf'size: found {re.escape(str(size_wh))}, expected at least 16 pixels a side')):
        open_source('drive', size_wh)


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
