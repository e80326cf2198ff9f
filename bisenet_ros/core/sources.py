"""Where replayed frames come from: a video, a folder of images, a camera device or a render."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from bisenet_ros.core import jpeg
from bisenet_ros.core.drive import RenderedDrive

IMAGE_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp')

#: Rate of a source that has none of its own.
DEFAULT_RATE_HZ = 30.0

#: Least and most pixels a side of the rendered drive.
DRIVE_SIDES_PX = (16, 8192)

Frame = npt.NDArray[np.uint8]


class SourceError(ValueError):
    """A source cannot be opened or read."""


def always() -> bool:
    """Want every frame."""
    return True


class Source(Protocol):
    """
    Something that yields frames.

    ``rate_hz`` is the source's own rate. ``frames`` yields ``uint8[H, W, 3]`` BGR once through;
    it may be called again for sources that can be replayed. ``live`` sources set the pace
    themselves.

    """

    rate_hz: float
    live: bool

    def frames(self, wanted: Callable[[], bool] = always) -> Iterator[Frame | None]:
        """Yield the frames from the start; None, which is cheap, for one that is not wanted."""
        ...


@dataclasses.dataclass
class VideoSource:
    """A video file that OpenCV can decode."""

    path: Path
    rate_hz: float = DEFAULT_RATE_HZ
    live: bool = False

    def __post_init__(self) -> None:
        capture = cv2.VideoCapture(str(self.path))
        try:
            if not capture.isOpened() or not capture.read()[0]:
                raise SourceError(
                    f'{self.path}: not a video that OpenCV can decode; convert it (for instance '
                    'to MP4), or give a folder of images.')
            own = capture.get(cv2.CAP_PROP_FPS)
        finally:
            capture.release()
        if 0 < own < 1000:
            self.rate_hz = own

    def frames(self, wanted: Callable[[], bool] = always) -> Iterator[Frame | None]:
        """Decode the file from its start; where nothing is wanted for a while, seek."""
        capture = cv2.VideoCapture(str(self.path))
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))  # 0 or less where nobody knows
        position = skipped = 0
        try:
            while True:
                if not wanted() and position < count:
                    position, skipped = position + 1, skipped + 1
                    yield None
                    continue
                if skipped and (position == count
                                or not capture.set(cv2.CAP_PROP_POS_FRAMES, position)):
                    return
                skipped = 0
                read, frame = capture.read()
                if not read:
                    if position == 0:
                        raise SourceError(
                            f'{self.path}: found no frame, expected those that it had before; is '
                            'the file still there, and its disk mounted?')
                    return
                position += 1
                yield frame
        finally:
            capture.release()


@dataclasses.dataclass
class FolderSource:
    """A folder of images in the order of their names, or one image; leaves out unreadable ones."""

    path: Path
    rate_hz: float = DEFAULT_RATE_HZ
    live: bool = False

    def __post_init__(self) -> None:
        try:
            self._files = [self.path] if self.path.is_file() else sorted(
                file for file in self.path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        except OSError as error:
            raise SourceError(f'{self.path}: cannot be read: {error.strerror}.') from error
        #: Names of files that could not be read so far.
        self.unreadable: list[str] = []
        if not self._files:
            raise SourceError(
                f'{self.path}: holds no images ({", ".join(IMAGE_SUFFIXES)}); give a folder that '
                'does, or a video.')
        for file in self._files:
            if _image(file) is not None:
                break
            self.unreadable.append(file.name)
        self._check_some_readable()

    def _check_some_readable(self) -> None:
        if len(self.unreadable) == len(self._files):
            raise SourceError(
                f'{self.path}: not readable as an image.' if self._files == [self.path] else
                f'{self.path}: none of its {len(self._files)} images is readable.')

    def frames(self, wanted: Callable[[], bool] = always) -> Iterator[Frame | None]:
        """Read one image after the other."""
        for file in self._files:
            if file.name in self.unreadable:
                continue
            if not wanted():
                yield None
            elif (frame := _image(file)) is not None:
                yield frame
            else:
                self.unreadable.append(file.name)
        self._check_some_readable()  # they may have been deleted


def _image(file: Path) -> Frame | None:
    try:
        content = file.read_bytes()
        if not content or jpeg.breaks_off(content):
            return None
        return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error):  # of OpenCV: it says to be larger than that takes
        return None


@dataclasses.dataclass
class CameraSource:
    """A camera device; sets its own pace."""

    device: str
    rate_hz: float = DEFAULT_RATE_HZ
    live: bool = True

    def __post_init__(self) -> None:
        number = re.fullmatch(r'(?:/dev/video)?(\d+)', self.device)
        self._capture = cv2.VideoCapture(int(number[1]) if number else self.device)
        if not self._capture.isOpened():
            raise SourceError(
                f'{self.device}: cannot be opened as a camera; is it plugged in, free, and are '
                'you in the group video?')
        # The newest frame matters, not every frame.
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        own = self._capture.get(cv2.CAP_PROP_FPS)
        if 0 < own < 1000:
            self.rate_hz = own

    def frames(self, wanted: Callable[[], bool] = always) -> Iterator[Frame | None]:
        """Read until the camera goes away; what is not wanted is taken but not decoded."""
        try:
            while True:
                read, frame = self._capture.grab(), None
                if read and wanted():
                    read, frame = self._capture.retrieve()
                if not read:
                    raise SourceError(f'{self.device}: the camera stopped giving frames.')
                yield frame
        finally:
            self._capture.release()


@dataclasses.dataclass
class DriveSource:
    """The rendered drive (``core.drive``), endless."""

    size_wh: tuple[int, int] = (1280, 720)
    seed: int = 0
    rate_hz: float = DEFAULT_RATE_HZ
    live: bool = False

    def frames(self, wanted: Callable[[], bool] = always) -> Iterator[Frame | None]:
        """Render frame after frame at ``rate_hz`` of the drive's own time."""
        drive = RenderedDrive(self.size_wh, self.seed)
        for index in itertools.count():
            if not wanted():
                yield None
                continue
            rgb, _ = drive.frame(index / self.rate_hz)
            yield cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)


def open_source(name: str, size_wh: tuple[int, int] = (1280, 720), seed: int = 0) -> Source:
    """
    Open a source by name.

    Parameters
    ----------
    name : str
        ``drive``, the path of a video, of an image or of a folder of images, a camera device
        (``/dev/video0``) or its number.
    size_wh : (int, int)
        Width and height of the rendered drive in pixels.
    seed : int
        Of the rendered drive.

    Returns
    -------
    Source

    Raises
    ------
    SourceError
        If there is no such source or it cannot be read.

    """
    if name == 'drive':
        low, high = DRIVE_SIDES_PX
        if not all(low <= side <= high for side in size_wh):
            raise SourceError(f'size: found {size_wh}, expected {low} to {high} pixels a side.')
        if seed < 0:
            raise SourceError(f'seed: found {seed}, expected 0 or more.')
        return DriveSource(size_wh, seed)
    if re.fullmatch(r'(/dev/video)?\d+', name):
        return CameraSource(name)
    try:
        path = Path(name).expanduser()
        if name and path.is_dir():
            return FolderSource(path)
        if path.is_char_device():  # /dev/v4l/by-id/..., or a name that udev gave
            return CameraSource(str(path.resolve()))
        if path.is_file():
            path.open('rb').close()
            is_image = path.suffix.lower() in IMAGE_SUFFIXES
            return FolderSource(path) if is_image else VideoSource(path)
    except OSError as error:
        raise SourceError(f'{name}: cannot be read: {error.strerror}.') from error
    except RuntimeError as error:  # of expanduser
        raise SourceError(f'{name}: {error}') from error
    raise SourceError(
        f'source: {name!r} is neither a file, a folder nor a camera device; expected drive, a '
        'video, an image or a folder of them, /dev/videoN or its number.')


def pinhole(
    size_wh: tuple[int, int], field_of_view_rad: float = 1.1,
) -> tuple[float, float, float]:
    """Return focal length and principal point in pixels of a camera without distortion."""
    width, height = size_wh
    return width / 2 / float(np.tan(field_of_view_rad / 2)), width / 2, height / 2
