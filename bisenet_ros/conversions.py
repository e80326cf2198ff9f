"""
Between ROS messages and numpy arrays, without cv_bridge.

Reading is free of copies where the encoding allows it. Writing goes through ``array.array``: the
generated setter of ``data`` takes nothing else without looking at every byte (on Humble) or
iterating (later).
"""

from __future__ import annotations

import array
import copy
import functools
import re
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest
from std_msgs.msg import Header

from bisenet_ros.core import jpeg

Bytes = npt.NDArray[np.uint8]


class EncodingError(ValueError):
    """A message is not the image that its fields say; names the field."""


#: Encodings that are read as they are: bytes per pixel and what the channels are.
_PLAIN = {
    'rgb8': (3, 'rgb'), 'bgr8': (3, 'bgr'), '8UC3': (3, 'bgr'),
    'rgba8': (4, 'rgba'), 'bgra8': (4, 'bgra'),
    'mono8': (1, 'gray'), '8UC1': (1, 'gray'),
}

#: sensor_msgs/image_encodings.hpp: yuv422 is UYVY, yuv422_yuy2 is YUYV.
_YUV422 = {
    'yuv422': cv2.COLOR_YUV2BGR_UYVY, 'uyvy': cv2.COLOR_YUV2BGR_UYVY,
    'yuv422_yuy2': cv2.COLOR_YUV2BGR_YUYV, 'yuyv': cv2.COLOR_YUV2BGR_YUYV,
}

_YUV420 = {'nv12': cv2.COLOR_YUV2BGR_NV12, 'nv21': cv2.COLOR_YUV2BGR_NV21}

#: OpenCV names a Bayer pattern by its second row's second and third pixel, ROS by its first two
#: rows.
_BAYER = {
    'bayer_rggb8': cv2.COLOR_BayerBG2BGR, 'bayer_bggr8': cv2.COLOR_BayerRG2BGR,
    'bayer_gbrg8': cv2.COLOR_BayerGR2BGR, 'bayer_grbg8': cv2.COLOR_BayerGB2BGR,
}

#: What compressed_image_transport calls a Bayer mosaic that it sends as it is: no target behind
#: ``compressed``. OpenCV reads the 16-bit ones as 8-bit.
_BAYER_FORMAT = re.compile(r'(bayer_(?:rggb|bggr|gbrg|grbg))(?:8|16) *;.*compressed *')

#: Shapes whose width by height differs by less are the same: drivers round sizes.
ASPECT_TOLERANCE = 0.05

ENCODINGS = (*_PLAIN, 'mono16', *_YUV422, *_YUV420, *_BAYER)

def frame_from_image(msg: Image) -> tuple[Bytes, str]:
    """
    Read a ``sensor_msgs/Image``.

    Parameters
    ----------
    msg : sensor_msgs/Image
        In one of ``ENCODINGS``, with any ``step``; any other encoding needs cv_bridge.

    Returns
    -------
    (uint8[H, W, C] or uint8[H, W], str)
        The frame and its channels (``core.preprocess.CHANNELS``). A view of the message where
        the encoding allows it.

    Raises
    ------
    EncodingError
        If ``height``, ``width``, ``step``, ``encoding`` or the length of ``data`` do not fit
        together.

    """
    encoding = msg.encoding
    if msg.height < 1 or msg.width < 1:
        raise EncodingError(
            f'height and width: found {msg.height} and {msg.width}, expected at least 1.')
    if encoding in _PLAIN:
        depth, channels = _PLAIN[encoding]
        rows = _rows(msg, msg.width * depth)
        return rows if depth == 1 else rows.reshape(msg.height, msg.width, depth), channels
    if encoding == 'mono16':
        # The more significant byte of every pixel is the 8-bit image.
        return _rows(msg, msg.width * 2)[:, 0 if msg.is_bigendian else 1::2], 'gray'
    if encoding in _YUV422:
        _check_even(msg, width=True)
        pixels = _rows(msg, msg.width * 2).reshape(msg.height, msg.width, 2)
        return cv2.cvtColor(pixels, _YUV422[encoding]), 'bgr'
    if encoding in _YUV420:
        _check_even(msg, width=True, height=True)
        planes = _rows(msg, msg.width, msg.height * 3 // 2)
        return cv2.cvtColor(np.ascontiguousarray(planes), _YUV420[encoding]), 'bgr'
    if encoding in _BAYER:
        return _colored(_rows(msg, msg.width), encoding)
    return _through_cv_bridge(msg), 'bgr'


def _colored(mosaic: Bytes, encoding: str) -> tuple[Bytes, str]:
    """Return a Bayer mosaic's colours and what its channels are."""
    if min(mosaic.shape) < 3:  # too small to interpolate in: take the colours as brightness
        return mosaic, 'gray'
    return cv2.cvtColor(np.ascontiguousarray(mosaic), _BAYER[encoding]), 'bgr'


def _check_even(msg: Image, *, width: bool = False, height: bool = False) -> None:
    if (width and msg.width % 2) or (height and msg.height % 2):
        raise EncodingError(
            f'width and height: found {msg.width} and {msg.height}, but {msg.encoding} shares '
            'its colours between neighbours and needs even numbers.')


def _rows(msg: Image, row_bytes: int, height: int = 0) -> Bytes:
    """Return ``uint8[height, row_bytes]`` of the message's data, without the padding."""
    height = height or msg.height
    if msg.step < row_bytes:
        raise EncodingError(
            f'step: found {msg.step}, expected at least {row_bytes} for width {msg.width} in '
            f'{msg.encoding}.')
    data = np.frombuffer(msg.data, np.uint8)
    if data.size < msg.step * height:
        raise EncodingError(
            f'data: found {data.size} bytes, expected {msg.step * height} '
            f'(step {msg.step} x {height} rows).')
    return data[:msg.step * height].reshape(height, msg.step)[:, :row_bytes]


@functools.cache
def _cv_bridge() -> Any:
    try:
        from cv_bridge import CvBridge
    except (ImportError, AttributeError):  # the latter: built for numpy 1, run on numpy 2
        return None
    return CvBridge()


def _through_cv_bridge(msg: Image) -> Bytes:
    known = ', '.join(ENCODINGS)
    bridge = _cv_bridge()
    if bridge is None:
        raise EncodingError(
            f'encoding: found {msg.encoding!r}, expected one of {known}; others need cv_bridge, '
            'which is not installed.')
    try:
        return np.asarray(bridge.imgmsg_to_cv2(msg, 'bgr8'), np.uint8)
    except Exception as error:  # CvBridgeError, cv2.error and whatever Boost raises
        raise EncodingError(
            f'encoding: found {msg.encoding!r}, which cv_bridge cannot turn into bgr8: '
            f'{error}') from error


def frame_from_compressed(msg: CompressedImage) -> tuple[Bytes, str]:
    """
    Decode a ``sensor_msgs/CompressedImage`` (JPEG, PNG and what else OpenCV reads).

    A Bayer mosaic, which compressed_image_transport sends as it is and names in ``format``, gets
    its colours as a raw one does.

    Returns
    -------
    (uint8[H, W, 3] or, of a mosaic too small for colours, uint8[H, W], str)
        The frame and its channels: ``bgr`` or ``gray``.

    Raises
    ------
    EncodingError
        If ``data`` is not a whole image. A JPEG that breaks off is refused too: its decoder
        would fill the rest with grey.

    """
    data = np.frombuffer(msg.data, np.uint8)
    if data.size == 0:
        raise EncodingError('data: found no bytes, expected a JPEG or PNG image.')
    if jpeg.breaks_off(data.tobytes()):
        raise EncodingError(
            f'data: the JPEG of {data.size} bytes breaks off (no end marker).')
    bayer = _BAYER_FORMAT.fullmatch(msg.format)
    kind = cv2.IMREAD_ANYCOLOR if bayer else cv2.IMREAD_COLOR
    try:
        # Its pixels as they were stored: camera_info knows nothing of an EXIF rotation.
        frame = cv2.imdecode(data, kind | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise EncodingError(f'data: not decodable: {error.err or error}') from error
    if frame is None:
        raise EncodingError(
            f'data: {data.size} bytes (format {msg.format!r}) are not an image that OpenCV reads.')
    if bayer and frame.ndim == 2:
        return _colored(frame, f'{bayer[1]}8')
    return frame, 'bgr'


def image_message(pixels: Bytes, encoding: str, header: Header) -> Image:
    """
    Build a ``sensor_msgs/Image`` without padding.

    Parameters
    ----------
    pixels : uint8[H, W] or uint8[H, W, C]
    encoding : str
        Not checked against the shape.
    header : std_msgs/Header
        Used as it is, not copied.

    """
    msg = Image()
    msg.header = header
    msg.height, msg.width = pixels.shape[:2]
    msg.encoding = encoding
    msg.is_bigendian = 0
    msg.step = pixels.nbytes // pixels.shape[0]
    data = array.array('B')
    data.frombytes(memoryview(np.ascontiguousarray(pixels)).cast('B'))
    msg.data = data
    return msg


class ImageBuffer:
    """
    A ``sensor_msgs/Image`` whose pixels are drawn where they lie, for every frame anew.

    To publish copies the message, so the same one serves for all frames: no pixel is copied
    into a message, and nothing of a frame's size is allocated while the size stays the same.

    Parameters
    ----------
    encoding : str
        Not checked against the shapes.

    """

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._message = Image(encoding=encoding)
        self._pixels = np.empty(0, np.uint8)

    def pixels(self, shape: tuple[int, ...]) -> Bytes:
        """Return the message's own ``uint8[H, W]`` or ``uint8[H, W, C]``, to be written to."""
        if self._pixels.shape != shape:
            self._message = image_message(np.zeros(shape, np.uint8), self._encoding, Header())
            self._pixels = np.frombuffer(self._message.data, np.uint8).reshape(shape)
        return self._pixels

    def message(self, header: Header) -> Image:
        """Return the message with a header; valid until ``pixels`` are written to again."""
        self._message.header = header
        return self._message


def _sizes_of(info: CameraInfo) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return width and height of what a camera shows, in its sensor's pixels and its image's."""
    view = info.roi.width or info.width, info.roi.height or info.height
    return view, (view[0] // max(1, info.binning_x), view[1] // max(1, info.binning_y))


def camera_info_problem(info: CameraInfo, size: tuple[int, int]) -> str:
    """
    Return why camera info cannot be of an image; empty if it can.

    Parameters
    ----------
    info : sensor_msgs/CameraInfo
        Its size is that of the image or, where a driver scales, of the same view.
    size : (int, int)
        Width and height of the image in pixels.

    """
    _, binned = _sizes_of(info)
    if not all(binned) or abs(size[0] * binned[1] / (size[1] * binned[0]) - 1) <= ASPECT_TOLERANCE:
        return ''
    return (f'found calibration of {binned[0]}x{binned[1]} pixels, expected the shape of the '
            f'images, {size[0]}x{size[1]}')


def scaled_camera_info(info: CameraInfo, size: tuple[int, int], header: Header) -> CameraInfo:
    """
    Return camera info for an image of the same view, of any size.

    Parameters
    ----------
    info : sensor_msgs/CameraInfo
        Of the camera's image.
    size : (int, int)
        Width and height in pixels.
    header : std_msgs/Header
        Of the image.

    Returns
    -------
    sensor_msgs/CameraInfo
        As it came where the size is that of the camera's image. Else with K and P scaled, as
        image_proc's ResizeNode does, and what the camera cut off (``roi``) or took together
        (``binning_x``, ``binning_y``) taken into account, so that the result has neither. D and R
        do not depend on the size.

    """
    width, height = size
    scaled = copy.deepcopy(info)
    scaled.header = header
    roi = info.roi
    view, binned = _sizes_of(info)
    if size == binned:
        return scaled
    scaled.width, scaled.height = width, height
    if not all(view):
        return scaled
    x, y = width / view[0], height / view[1]
    k, p = list(info.k), list(info.p)
    for matrix, columns in ((k, 3), (p, 4)):
        matrix[2] -= roi.x_offset
        matrix[columns + 2] -= roi.y_offset
        for index in range(columns):
            matrix[index] *= x
            matrix[columns + index] *= y
    scaled.k, scaled.p = k, p
    scaled.roi = RegionOfInterest(do_rectify=roi.do_rectify)
    scaled.binning_x = scaled.binning_y = 0
    return scaled


def label_info_type() -> type[Any] | None:
    """Return ``vision_msgs/LabelInfo`` where vision_msgs is installed."""
    try:
        from vision_msgs.msg import LabelInfo
    except ImportError:
        return None
    return LabelInfo  # type: ignore[no-any-return]


def label_info_message(
    class_names: tuple[str, ...], threshold: float, header: Header,
) -> Any:
    """
    Build a ``vision_msgs/LabelInfo``.

    Parameters
    ----------
    class_names : tuple of str
        By class id; 255 stays out of the map, it means unlabeled.
    threshold : float
        The ``min_confidence`` in force.
    header : std_msgs/Header

    """
    from vision_msgs.msg import LabelInfo, VisionClass

    msg = LabelInfo()
    msg.header = header
    for index, name in enumerate(class_names):
        entry = VisionClass()
        entry.class_id, entry.class_name = index, name
        msg.class_map.append(entry)
    msg.threshold = threshold
    return msg


FrameReader = Callable[[Any], tuple[Bytes, str]]

#: Message type and reader of each ``image_transport``.
TRANSPORTS: dict[str, tuple[type[Any], FrameReader]] = {
    'raw': (Image, frame_from_image),
    'compressed': (CompressedImage, frame_from_compressed),
}
