"""
Messages to arrays and back: every encoding of the README against a picture of known colours.

What an encoding's bytes mean is written down here a second time, from REP 118's successor
(sensor_msgs/image_encodings.hpp), the V4L2 pixel formats and ITU-R BT.601, not through OpenCV.
"""

import array
import sys
import time
import types

import cv2
import numpy as np
import pytest
from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest
from std_msgs.msg import Header

from bisenet_ros import conversions
from bisenet_ros.conversions import EncodingError
from bisenet_ros.core.preprocess import CONVERSIONS

#: The encodings that the README promises.
PROMISED = {
    'rgb8', 'bgr8', 'rgba8', 'bgra8', 'mono8', 'mono16', 'yuv422', 'uyvy', 'yuv422_yuy2', 'yuyv',
    'nv12', 'nv21', 'bayer_rggb8', 'bayer_bggr8', 'bayer_gbrg8', 'bayer_grbg8', '8UC1', '8UC3'}

#: Red, green, blue, and a grey that is not symmetric in anything.
COLORS_RGB = np.uint8([[220, 30, 40], [30, 200, 60], [40, 50, 210], [90, 140, 180]])


def picture(height=16, width=24):
    """Return quadrants in four colours, RGB: big enough for halved colours and Bayer mosaics."""
    rgb = np.empty((height, width, 3), np.uint8)
    top, left = (height + 1) // 2, (width + 1) // 2
    rgb[:top, :left], rgb[:top, left:] = COLORS_RGB[:2]
    rgb[top:, :left], rgb[top:, left:] = COLORS_RGB[2:]
    return rgb


def inner(image):
    """Return the pixels of each quadrant that have only neighbours of their own colour."""
    height, width = image.shape[:2]
    return [image[y + 2:y + height // 2 - 2, x + 2:x + width // 2 - 2]
            for y in (0, height // 2) for x in (0, width // 2)]


def gray(rgb):
    """Return BT.601 brightness."""
    return np.round(rgb @ [0.299, 0.587, 0.114]).astype(np.uint8)


def yuv(rgb):
    """Return studio-range Y, U, V of BT.601, ``uint8[H, W]`` each."""
    red, green, blue = np.moveaxis(rgb.astype(float), -1, 0)
    y = 16 + (65.738 * red + 129.057 * green + 25.064 * blue) / 256
    u = 128 + (-37.945 * red - 74.494 * green + 112.439 * blue) / 256
    v = 128 + (112.439 * red - 94.154 * green - 18.285 * blue) / 256
    return [np.round(plane).astype(np.uint8) for plane in (y, u, v)]


def packed_422(rgb, order):
    """Return two bytes a pixel; ``order`` names the bytes of a pair of pixels."""
    y, u, v = yuv(rgb)
    planes = {'y0': y[:, 0::2], 'y1': y[:, 1::2], 'u': u[:, 0::2], 'v': v[:, 0::2]}
    pairs = np.stack([planes[name] for name in order.split()], -1)
    return pairs.reshape(rgb.shape[0], rgb.shape[1] * 2)


def semiplanar_420(rgb, first, second):
    """Return the Y plane with the interleaved half-size colour plane below it."""
    y, u, v = yuv(rgb)
    planes = {'u': u[0::2, 0::2], 'v': v[0::2, 0::2]}
    colors = np.stack([planes[first], planes[second]], -1)
    return np.vstack([y, colors.reshape(rgb.shape[0] // 2, rgb.shape[1])])


def mosaic(rgb, pattern):
    """Return what a sensor behind a filter of 2 x 2 sees; ``pattern`` reads row by row."""
    raw = np.empty(rgb.shape[:2], np.uint8)
    for index, letter in enumerate(pattern):
        y, x = divmod(index, 2)
        raw[y::2, x::2] = rgb[y::2, x::2, 'rgb'.index(letter)]
    return raw


def encoded(rgb, encoding):
    """Return the rows of an image as bytes, ``uint8[rows, bytes]``, as its driver sends them."""
    alpha = np.full((*rgb.shape[:2], 1), 7, np.uint8)
    if encoding in ('rgb8', 'bgr8', '8UC3', 'rgba8', 'bgra8'):
        channels = rgb if encoding.startswith('rgb') else rgb[..., ::-1]
        if 'a' in encoding:
            channels = np.concatenate([channels, alpha], -1)
        return channels.reshape(rgb.shape[0], -1)
    if encoding in ('mono8', '8UC1'):
        return gray(rgb)
    if encoding in ('yuv422', 'uyvy'):
        return packed_422(rgb, 'u y0 v y1')
    if encoding in ('yuv422_yuy2', 'yuyv'):
        return packed_422(rgb, 'y0 u y1 v')
    if encoding in ('nv12', 'nv21'):
        return semiplanar_420(rgb, *('uv' if encoding == 'nv12' else 'vu'))
    return mosaic(rgb, encoding.removeprefix('bayer_').removesuffix('8'))


def message(rows, encoding, height, width, *, padding=0, tail=0):
    """Return an Image whose rows are followed by bytes that belong to nothing."""
    step = rows.shape[1] + padding
    data = np.full((rows.shape[0], step), 0xA5, np.uint8)
    data[:, :rows.shape[1]] = rows
    msg = Image(height=height, width=width, encoding=encoding, step=step)
    msg.data = array.array('B', data.tobytes() + b'\xa5' * tail)
    return msg


def mono16_message(values, *, big_endian, padding=0):
    rows = values.astype('>u2' if big_endian else '<u2').view(np.uint8)
    msg = message(rows, 'mono16', *values.shape, padding=padding)
    msg.is_bigendian = int(big_endian)
    return msg


def read_rgb(msg):
    """Read a message and return RGB whatever its channels are."""
    frame, channels = conversions.frame_from_image(msg)
    assert frame.shape[:2] == (msg.height, msg.width)
    if channels == 'rgb':
        return frame
    return cv2.cvtColor(np.ascontiguousarray(frame), CONVERSIONS[channels, 'rgb'])


def test_encodings_are_the_promised_ones():
    assert set(conversions.ENCODINGS) == PROMISED


@pytest.mark.parametrize('padding', [0, 1, 40])
@pytest.mark.parametrize('encoding', sorted(PROMISED - {'mono16', 'mono8', '8UC1'}))
def test_colors_of_every_encoding(encoding, padding):
    rgb = picture()

    found = read_rgb(message(
        encoded(rgb, encoding), encoding, *rgb.shape[:2], padding=padding, tail=padding))

    exact = encoding in ('rgb8', 'bgr8', 'rgba8', 'bgra8', '8UC3')
    for patch, color in zip(inner(found), COLORS_RGB, strict=True):
        assert np.abs(patch.astype(int) - color).max() <= (0 if exact else 3)
    if exact:
        np.testing.assert_array_equal(found, rgb)


@pytest.mark.parametrize('padding', [0, 3])
@pytest.mark.parametrize('encoding', ['mono8', '8UC1'])
def test_brightness_of_gray(encoding, padding):
    rgb = picture()

    found = read_rgb(message(
        encoded(rgb, encoding), encoding, *rgb.shape[:2], padding=padding))

    np.testing.assert_array_equal(found, np.repeat(gray(rgb)[..., None], 3, -1))


@pytest.mark.parametrize('padding', [0, 2, 5])
@pytest.mark.parametrize('big_endian', [False, True])
def test_mono16_in_both_byte_orders(big_endian, padding):
    values = np.uint16([[0, 0x00FF, 0x0100], [0x1234, 0x8000, 0xFFFF]])

    frame, channels = conversions.frame_from_image(
        mono16_message(values, big_endian=big_endian, padding=padding))

    assert channels == 'gray'
    np.testing.assert_array_equal(frame, [[0, 0, 1], [0x12, 0x80, 0xFF]])


@pytest.mark.parametrize('encoding', sorted(PROMISED - {'mono16'}))
@pytest.mark.parametrize('size', [(1, 1), (1, 7), (5, 1), (3, 5), (17, 31)])
def test_odd_sizes_are_read_or_refused_for_a_reason(encoding, size):
    height, width = size
    halved = encoding in ('yuv422', 'uyvy', 'yuv422_yuy2', 'yuyv', 'nv12', 'nv21')
    if halved:  # no such image exists: two neighbours share a colour
        msg = message(np.zeros((height * 2, width * 2 + 2), np.uint8), encoding, height, width)
        with pytest.raises(EncodingError, match='width and height: found .* needs even numbers'):
            conversions.frame_from_image(msg)
        return
    rgb = picture(height, width)

    found = read_rgb(message(encoded(rgb, encoding), encoding, height, width, padding=1))

    assert found.shape == (height, width, 3)
    if encoding in ('rgb8', 'bgr8', 'rgba8', 'bgra8', '8UC3'):
        np.testing.assert_array_equal(found, rgb)


def test_mono16_of_one_pixel():
    frame, _ = conversions.frame_from_image(
        mono16_message(np.uint16([[0xAB00]]), big_endian=True))

    np.testing.assert_array_equal(frame, [[0xAB]])


@pytest.mark.parametrize('size', [(2, 2), (2, 6), (6, 2)])
@pytest.mark.parametrize('encoding', ['yuv422', 'yuyv', 'nv12', 'nv21'])
def test_smallest_halved_images(encoding, size):
    rgb = np.full((*size, 3), COLORS_RGB[3], np.uint8)

    found = read_rgb(message(encoded(rgb, encoding), encoding, *size))

    assert np.abs(found.astype(int) - COLORS_RGB[3]).max() <= 3


@pytest.mark.parametrize('encoding', sorted(PROMISED - {'mono16'}))
def test_4k(encoding):
    color = COLORS_RGB[0]
    block = encoded(np.full((2, 2, 3), color, np.uint8), encoding)
    planes = np.split(block, [2]) if len(block) > 2 else [block]

    found = read_rgb(message(
        np.vstack([np.tile(plane, (1080, 1920)) for plane in planes]), encoding, 2160, 3840,
        padding=64))

    assert found.shape == (2160, 3840, 3)
    wanted = gray(color) if encoding in ('mono8', '8UC1') else color
    np.testing.assert_allclose(found[2:-2:53, 2:-2:97].astype(int) - wanted, 0, atol=3)


@pytest.mark.parametrize('encoding', ['rgb8', 'bgra8', 'mono8'])
def test_plain_encodings_are_read_without_a_copy(encoding):
    rgb = picture()
    msg = message(encoded(rgb, encoding), encoding, *rgb.shape[:2], padding=4)

    frame, _ = conversions.frame_from_image(msg)

    assert np.shares_memory(frame, np.frombuffer(msg.data, np.uint8))


@pytest.mark.parametrize(('change', 'reason'), [
    ({'height': 0}, r'height and width: found 0 and 24, expected at least 1'),
    ({'width': 0}, r'height and width: found 16 and 0, expected at least 1'),
    ({'step': 71}, r'step: found 71, expected at least 72 for width 24 in rgb8'),
    ({'step': 0}, r'step: found 0, expected at least 72'),
    ({'height': 17}, r'data: found 1152 bytes, expected 1224 \(step 72 x 17 rows\)'),
    ({'width': 4_000_000_000}, r'step: found 72, expected at least 12000000000'),
    ({'height': 4_294_967_295, 'step': 4_294_967_295}, r'data: found 1152 bytes, expected 184467'),
    ({'encoding': 'mono16', 'step': 47}, r'step: found 47, expected at least 48'),
    ({'encoding': 'nv12', 'step': 24, 'height': 34}, r'data: found 1152 bytes, expected 1224'),
], ids=lambda value: str(value) if isinstance(value, dict) else '')
def test_fields_that_do_not_fit_are_named(change, reason):
    rgb = picture()
    msg = message(encoded(rgb, 'rgb8'), 'rgb8', 16, 24)
    for field, value in change.items():
        setattr(msg, field, value)

    with pytest.raises(EncodingError, match=reason):
        conversions.frame_from_image(msg)


def test_empty_message_is_refused():
    with pytest.raises(EncodingError, match='height and width'):
        conversions.frame_from_image(Image())


@pytest.fixture
def cv_bridge(monkeypatch):
    """Put a cv_bridge where there is none: only the interface, which is all that we use of it."""
    class CvBridge:
        def imgmsg_to_cv2(self, msg, desired_encoding):
            assert desired_encoding == 'bgr8'
            if msg.encoding != 'bayer_rggb16':
                raise RuntimeError(f'[{msg.encoding}] is not a color format. but [bgr8] is.')
            return np.full((msg.height, msg.width, 3), 77, np.uint8)

    module = types.ModuleType('cv_bridge')
    module.CvBridge = CvBridge
    monkeypatch.setitem(sys.modules, 'cv_bridge', module)
    conversions._cv_bridge.cache_clear()
    yield
    conversions._cv_bridge.cache_clear()


@pytest.fixture
def no_cv_bridge(monkeypatch):
    monkeypatch.setitem(sys.modules, 'cv_bridge', None)  # its import fails
    conversions._cv_bridge.cache_clear()
    yield
    conversions._cv_bridge.cache_clear()


@pytest.mark.parametrize('encoding', ['bayer_rggb16', '32FC1', '', 'RGB8', 'rgb8; compressed'])
@pytest.mark.usefixtures('no_cv_bridge')
def test_unknown_encoding_without_cv_bridge(encoding):
    msg = message(np.zeros((4, 16), np.uint8), encoding, 4, 4)

    with pytest.raises(
            EncodingError, match='expected one of rgb8, .*; others need cv_bridge, which is not'):
        conversions.frame_from_image(msg)


@pytest.mark.usefixtures('cv_bridge')
def test_unknown_encoding_with_cv_bridge():
    frame, channels = conversions.frame_from_image(
        message(np.zeros((4, 8), np.uint8), 'bayer_rggb16', 4, 4))

    assert channels == 'bgr'
    np.testing.assert_array_equal(frame, np.full((4, 4, 3), 77))


@pytest.mark.usefixtures('cv_bridge')
def test_what_cv_bridge_refuses_is_a_bad_frame():
    with pytest.raises(EncodingError, match="'32FC1', which cv_bridge cannot turn into bgr8: "):
        conversions.frame_from_image(message(np.zeros((4, 16), np.uint8), '32FC1', 4, 4))


def test_a_cv_bridge_built_for_another_numpy_counts_as_none(monkeypatch):
    class Broken(types.ModuleType):
        def __getattr__(self, name):
            raise AttributeError('_ARRAY_API not found')

    monkeypatch.setitem(sys.modules, 'cv_bridge', Broken('cv_bridge'))
    conversions._cv_bridge.cache_clear()
    with pytest.raises(EncodingError, match='others need cv_bridge'):
        conversions.frame_from_image(message(np.zeros((4, 16), np.uint8), '32FC1', 4, 4))
    conversions._cv_bridge.cache_clear()


# -- compressed ------------------------------------------------------------------------------


def compressed(data, kind='jpeg'):
    msg = CompressedImage(format=kind)
    msg.data = array.array('B', bytes(data))
    return msg


@pytest.fixture(params=['.jpg', '.png'])
def coded(request):
    """Return a picture as a file's bytes; its suffix; the greatest difference of a colour."""
    bgr = picture(64, 96)[..., ::-1]
    return cv2.imencode(request.param, bgr)[1].tobytes(), request.param, bgr


@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
@pytest.mark.parametrize('kind', ['8; png compressed ', '16; png compressed ', '8;png compressed'])
def test_a_compressed_mosaic_gets_its_colours(pattern, kind):
    """compressed_image_transport sends it as it is; ``format`` alone tells."""
    mosaic = np.random.default_rng(0).integers(0, 256, (12, 16), np.uint8)
    raw, channels = conversions.frame_from_image(message(mosaic, f'bayer_{pattern}8', 12, 16))
    stored = mosaic.astype(np.uint16) * 256 if '16' in kind else mosaic

    frame, found = conversions.frame_from_compressed(
        compressed(cv2.imencode('.png', stored)[1].tobytes(), f'bayer_{pattern}{kind}'))

    assert found == channels == 'bgr'
    np.testing.assert_array_equal(frame, raw)


@pytest.mark.parametrize(('kind', 'grey'), [
    ('bayer_rggb8; jpeg compressed bgr8', True), ('mono8; jpeg compressed ', True),
    ('bayer_rggb8; jpeg compressed ', False), ('png', True), ('', True)])
def test_what_is_no_mosaic_is_left_as_it_is(kind, grey):
    picture_bgr = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    if grey:
        picture_bgr[...] = picture_bgr[..., :1]
    stored = picture_bgr[..., 0] if grey else picture_bgr

    frame, channels = conversions.frame_from_compressed(
        compressed(cv2.imencode('.png', stored)[1].tobytes(), kind))

    assert channels == 'bgr'
    np.testing.assert_array_equal(frame, picture_bgr)


def test_a_tiny_compressed_mosaic_is_grey():
    mosaic = np.array([[9, 200]], np.uint8)
    frame, channels = conversions.frame_from_compressed(
        compressed(cv2.imencode('.png', mosaic)[1].tobytes(), 'bayer_rggb8; png compressed '))
    assert channels == 'gray' and frame.tolist() == [[9, 200]]


def test_compressed_colors(coded):
    data, suffix, bgr = coded

    frame, channels = conversions.frame_from_compressed(compressed(data, f'bgr8; {suffix}'))

    assert channels == 'bgr'
    tolerance = 0 if suffix == '.png' else 6
    for patch, wanted in zip(inner(frame), inner(bgr), strict=True):
        assert np.abs(patch.astype(int) - wanted).max() <= tolerance


def test_gray_and_transparent_files_come_out_as_bgr():
    gray_png = cv2.imencode('.png', np.full((4, 6), 9, np.uint8))[1].tobytes()
    deep_png = cv2.imencode('.png', np.full((4, 6), 0x0900, np.uint16))[1].tobytes()
    bgra_png = cv2.imencode('.png', np.full((4, 6, 4), 9, np.uint8))[1].tobytes()

    for data in (gray_png, deep_png, bgra_png):
        frame, _ = conversions.frame_from_compressed(compressed(data))
        np.testing.assert_array_equal(frame, np.full((4, 6, 3), 9))


@pytest.mark.parametrize('tail', [
    b'\0' * 7, b'\0' * 1000, b'\xff', b'\r\n', b'\xff' * 100 + b'\0' * 100,
    b'trailing metadata' * 100], ids=['few-zeros', 'zeros', 'ff', 'crlf', 'ff-zeros', 'metadata'])
@pytest.mark.parametrize('progressive', [0, 1])
def test_a_jpeg_with_a_tail_is_whole(progressive, tail):
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive, cv2.IMWRITE_JPEG_RST_INTERVAL, 2]
    data = cv2.imencode('.jpg', picture(64, 96), options)[1].tobytes()
    bare, _ = conversions.frame_from_compressed(compressed(data))

    frame, _ = conversions.frame_from_compressed(compressed(data + tail))

    np.testing.assert_array_equal(frame, bare)


def with_app1(jpeg, app1):
    return jpeg[:2] + b'\xff\xe1' + (len(app1) + 2).to_bytes(2, 'big') + app1 + jpeg[2:]


def test_a_jpeg_that_breaks_off_behind_its_thumbnail_is_refused():
    data = cv2.imencode('.jpg', picture(64, 96))[1].tobytes()
    thumbnail = cv2.imencode('.jpg', picture(16, 24))[1].tobytes()
    whole = with_app1(data, b'Exif\0\0' + thumbnail)
    behind = whole.index(b'\xff\xd9') + 2

    assert conversions.frame_from_compressed(compressed(whole))[0].shape == (64, 96, 3)
    # Another marker, filled up, may stand before the thumbnail's segment.
    filled = whole[:2] + b'\xff\xff\xff\xfe\0\3x' + whole[2:]
    assert conversions.frame_from_compressed(compressed(filled))[0].shape == (64, 96, 3)
    for end in (behind, *range(behind + 1, len(whole) - 1, 97), len(whole) - 1):
        with pytest.raises(EncodingError, match=rf'of {end} bytes breaks off \(no end marker\)'):
            conversions.frame_from_compressed(compressed(whole[:end]))


def test_the_end_of_a_large_jpeg_is_found_quickly():
    odd = (b'\xff\xe0\0\0' * 250_000, b'\xff' * 1_000_000, b'\xff\0' * 500_000)
    for filling in odd:
        started_s = time.perf_counter()
        with pytest.raises(EncodingError, match='no end marker'):
            conversions.frame_from_compressed(compressed(b'\xff\xd8\xff\xe0\0\2' + filling))
        assert time.perf_counter() - started_s < 2


@pytest.mark.parametrize('share', [0.02, 0.3, 0.6, 0.95])
def test_truncated_files_are_refused(coded, share):
    data, _, _ = coded

    with pytest.raises(EncodingError, match='^data: '):
        conversions.frame_from_compressed(compressed(data[:int(len(data) * share)]))


@pytest.mark.parametrize(('data', 'reason'), [
    (b'', 'found no bytes, expected a JPEG or PNG image'),
    (b'\0', 'not an image that OpenCV reads'),
    (b'\xff\xd8\xff', r'the JPEG of 3 bytes breaks off \(no end marker\)'),
    (b'\xff\xd8\xff\xd9', 'data: '),
    (b'\x89PNG\r\n\x1a\n', 'not an image that OpenCV reads'),
    (bytes(range(256)) * 40, 'not an image that OpenCV reads'),
], ids=['empty', 'zero', 'jpeg-head', 'jpeg-ends', 'png-head', 'garbage'])
def test_what_is_no_image_is_refused(data, reason):
    with pytest.raises(EncodingError, match=reason):
        conversions.frame_from_compressed(compressed(data))


def test_a_jpeg_that_claims_to_be_huge_is_as_large_as_it_says():
    """What its data does not fill is grey; OpenCV refuses more than 2**30 pixels."""
    jpeg = bytearray(cv2.imencode('.jpg', picture(16, 24))[1].tobytes())
    sizes = jpeg.index(b'\xff\xc0') + 5
    jpeg[sizes:sizes + 4] = (4016).to_bytes(2, 'big') + (24).to_bytes(2, 'big')
    frame, _ = conversions.frame_from_compressed(compressed(jpeg))
    assert frame.shape == (4016, 24, 3)

    jpeg[sizes:sizes + 4] = b'\xff\xff\xff\xff'
    with pytest.raises(EncodingError, match='data: '):
        conversions.frame_from_compressed(compressed(jpeg))


def test_rotation_in_exif_is_left_alone():
    """The camera info that goes with the frame knows nothing of it."""
    jpeg = cv2.imencode('.jpg', picture(64, 96))[1].tobytes()
    tiff = (b'II*\0\x08\0\0\0' b'\x01\0' b'\x12\x01\x03\0\x01\0\0\0\x06\0\0\0' b'\0\0\0\0')
    app1 = b'Exif\0\0' + tiff
    rotated = with_app1(jpeg, app1)
    assert cv2.imdecode(np.frombuffer(rotated, np.uint8), cv2.IMREAD_COLOR).shape[:2] == (96, 64)

    frame, _ = conversions.frame_from_compressed(compressed(rotated))

    assert frame.shape[:2] == (64, 96)


# -- out -------------------------------------------------------------------------------------


HEADER = Header(stamp=Time(sec=1_234, nanosec=567_891_234), frame_id='camera_optical_frame')


@pytest.mark.parametrize(('shape', 'encoding'), [
    ((4, 6), 'mono8'), ((1, 1), 'mono8'), ((5, 3, 3), 'bgr8'), ((4, 6, 4), 'rgba8')])
def test_image_message(shape, encoding):
    pixels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)

    msg = conversions.image_message(pixels, encoding, HEADER)

    assert (msg.height, msg.width) == shape[:2]
    assert msg.step == msg.width * (shape[2] if len(shape) == 3 else 1)
    assert (msg.encoding, msg.is_bigendian, msg.header) == (encoding, 0, HEADER)
    assert bytes(msg.data) == pixels.tobytes()


def test_image_message_of_a_view_has_no_padding():
    pixels = np.arange(48, dtype=np.uint8).reshape(6, 8)[1:5:2, ::3]

    msg = conversions.image_message(pixels, 'mono8', HEADER)

    assert (msg.height, msg.width, msg.step) == (2, 3, 3)
    assert bytes(msg.data) == pixels.tobytes()


def test_image_message_is_read_back():
    rgb = picture()

    frame, channels = conversions.frame_from_image(
        conversions.image_message(rgb, 'rgb8', HEADER))

    assert channels == 'rgb'
    np.testing.assert_array_equal(frame, rgb)


def test_image_message_takes_the_fast_way():
    """No look at every byte: far below what an assignment of a list takes."""
    pixels = np.zeros((720, 1280, 3), np.uint8)

    def best_s(build, times):
        took_s = []
        for _ in range(times):
            started_s = time.perf_counter()
            build()
            took_s.append(time.perf_counter() - started_s)
        return min(took_s)

    def slow():
        Image().data = array.array('B', pixels.ravel().tolist())

    fast_s = best_s(lambda: conversions.image_message(pixels, 'bgr8', HEADER), 5)
    assert fast_s < best_s(slow, 1) / 5
    assert fast_s < 0.1


@pytest.mark.parametrize(('shape', 'encoding'), [((4, 6), 'mono8'), ((5, 3, 3), 'bgr8')])
def test_image_buffer_is_drawn_into_the_message(shape, encoding):
    buffer = conversions.ImageBuffer(encoding)
    for value in (7, 200):
        pixels = buffer.pixels(shape)
        pixels[:] = value
        pixels[0, 0] = 1
        msg = buffer.message(HEADER)

        expected = conversions.image_message(pixels.copy(), encoding, HEADER)
        assert msg == expected
        assert np.shares_memory(pixels, np.frombuffer(msg.data, np.uint8))


def test_image_buffer_is_the_same_until_the_size_changes():
    buffer = conversions.ImageBuffer('mono8')
    first = buffer.pixels((4, 6))
    assert buffer.pixels((4, 6)) is first

    buffer.pixels((5, 6))[:] = 9

    msg = buffer.message(HEADER)
    assert (msg.height, msg.width, msg.step, len(msg.data)) == (5, 6, 6, 30)
    assert buffer.pixels((4, 6)) is not first


def test_image_buffer_travels_as_any_message_does():
    buffer = conversions.ImageBuffer('bgr8')
    buffer.pixels((3, 4, 3))[:] = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)

    read = deserialize_message(serialize_message(buffer.message(HEADER)), Image)

    assert bytes(read.data) == bytes(range(36))
    assert read.header == HEADER


# -- camera info -----------------------------------------------------------------------------


def camera_info():
    info = CameraInfo(
        header=Header(frame_id='other'), width=640, height=480, distortion_model='plumb_bob',
        binning_x=1, binning_y=1,
        roi=RegionOfInterest(x_offset=64, y_offset=48, width=320, height=240, do_rectify=True))
    info.d = [0.1, -0.2, 0.3, 0.4, 0.5]
    info.k = [500.0, 1.0, 320.0, 0.0, 510.0, 240.0, 0.0, 0.0, 1.0]
    info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    info.p = [500.0, 0.0, 320.0, -50.0, 0.0, 510.0, 240.0, 8.0, 0.0, 0.0, 1.0, 0.0]
    return info


@pytest.mark.parametrize('size', [(320, 240), (640, 480), (161, 120)])
def test_camera_info_of_a_scaled_image_is_its_own(size):
    assert conversions.camera_info_problem(camera_info(), size) == ''
    assert conversions.camera_info_problem(CameraInfo(), size) == ''  # uncalibrated


def test_camera_info_of_another_shape_is_another_cameras():
    assert conversions.camera_info_problem(camera_info(), (1280, 720)) == (
        'found calibration of 320x240 pixels, expected the shape of the images, 1280x720')


def test_camera_info_is_scaled_as_image_proc_does():
    """K and P by axis; D, R and the last rows stay (ResizeNode)."""
    info = camera_info()
    info.roi = RegionOfInterest()

    scaled = conversions.scaled_camera_info(info, (320, 120), HEADER)

    assert (scaled.width, scaled.height) == (320, 120)
    assert scaled.header == HEADER
    assert list(scaled.k) == [250.0, 0.5, 160.0, 0.0, 127.5, 60.0, 0.0, 0.0, 1.0]
    assert list(scaled.p) == [
        250.0, 0.0, 160.0, -25.0, 0.0, 127.5, 60.0, 2.0, 0.0, 0.0, 1.0, 0.0]
    assert list(scaled.d) == list(info.d)
    assert list(scaled.r) == list(info.r)
    assert scaled.distortion_model == 'plumb_bob'


@pytest.mark.parametrize(('binning', 'size'), [((1, 1), (320, 240)), ((2, 4), (160, 60))])
def test_camera_info_of_the_cameras_image_changes_only_its_header(binning, size):
    info = camera_info()
    info.binning_x, info.binning_y = binning

    scaled = conversions.scaled_camera_info(info, size, HEADER)

    assert scaled.header == HEADER
    scaled.header = info.header
    assert scaled == info


@pytest.mark.parametrize('binning', [(0, 0), (1, 1), (2, 4)])
def test_what_a_camera_cut_off_or_took_together_is_in_a_scaled_camera_info(binning):
    """A point of the scene keeps its place in the view (CameraInfo's comments on both)."""
    info = camera_info()
    info.binning_x, info.binning_y = binning
    point = np.array([0.1, -0.05, 1.0])
    on_sensor = np.reshape(info.k, (3, 3)) @ point
    within = (on_sensor[:2] - [64, 48]) / [320, 240]

    scaled = conversions.scaled_camera_info(info, (512, 256), HEADER)

    assert (scaled.width, scaled.height) == (512, 256)
    assert (scaled.binning_x, scaled.binning_y) == (0, 0)
    assert scaled.roi == RegionOfInterest(do_rectify=True)
    np.testing.assert_allclose(
        (np.reshape(scaled.k, (3, 3)) @ point)[:2], within * [512, 256])
    projected = np.reshape(info.p, (3, 4)) @ [*point, 1]
    np.testing.assert_allclose(
        (np.reshape(scaled.p, (3, 4)) @ [*point, 1])[:2],
        (projected[:2] - [64, 48]) / [320, 240] * [512, 256])


def test_the_given_camera_info_stays_as_it_is():
    info = camera_info()

    conversions.scaled_camera_info(info, (10, 10), HEADER)

    assert info == camera_info()


def test_an_uncalibrated_camera_info_without_a_size():
    scaled = conversions.scaled_camera_info(CameraInfo(), (320, 120), HEADER)

    assert (scaled.width, scaled.height) == (320, 120)
    assert list(scaled.k) == [0.0] * 9


# -- label info ------------------------------------------------------------------------------


@pytest.fixture
def vision_msgs(monkeypatch):
    """Stand in for vision_msgs, which has no wheel: its fields as LabelInfo.msg has them."""
    class VisionClass:
        __slots__ = ('class_id', 'class_name')

    class LabelInfo:
        __slots__ = ('class_map', 'header', 'threshold')

        def __init__(self):
            self.class_map = []

    messages = types.ModuleType('vision_msgs.msg')
    messages.LabelInfo, messages.VisionClass = LabelInfo, VisionClass
    package = types.ModuleType('vision_msgs')
    package.msg = messages
    monkeypatch.setitem(sys.modules, 'vision_msgs', package)
    monkeypatch.setitem(sys.modules, 'vision_msgs.msg', messages)
    return messages


def test_label_info(vision_msgs):
    assert conversions.label_info_type() is vision_msgs.LabelInfo

    msg = conversions.label_info_message(('background', 'road'), 0.25, HEADER)

    assert [(entry.class_id, entry.class_name) for entry in msg.class_map] == [
        (0, 'background'), (1, 'road')]
    assert msg.threshold == 0.25
    assert msg.header == HEADER


def test_unlabeled_is_no_class(vision_msgs):
    """255 means unlabeled, which the map does not list, whatever the number of classes."""
    msg = conversions.label_info_message(tuple(map(str, range(255))), 0.0, HEADER)

    assert {entry.class_id for entry in msg.class_map} == set(range(255))


def test_no_vision_msgs(monkeypatch):
    monkeypatch.setitem(sys.modules, 'vision_msgs', None)

    assert conversions.label_info_type() is None
