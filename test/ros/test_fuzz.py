"""
Ten thousand malformed messages at the callback path: reading, inference, painting, publishing.

The node is real, its model is a ``TinyEngine``, and in the outputs' place stand recorders of what
would go out. What the worker does with a message is done at once in the test's thread, so that
hypothesis sees what a message causes. Most messages are almost right: that is where readers go
wrong.
"""

import array
import gc
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from builtin_interfaces.msg import Time
from harness import InProcessNode
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from bisenet_ros import conversions
from bisenet_ros.core.outputs import ENCODINGS

#: Of which each of the two tests throws half, not counting what turns out to be an image.
MALFORMED = 10_000

#: Messages an example.
BATCH = 25

#: How much memory may have grown at the end; a leak of one frame in ten would be far above it.
GROWTH_BYTES = 48 * 2**20

#: Large enough for a leak to show.
SIDE_PX = 512

DEPTH = {'mono8': 1, 'rgb8': 3, 'bgr8': 3}


class Recorder:
    """Stands where a publisher is: somebody listens, and what goes out must be an image."""

    def __init__(self, name):
        self.name = name
        self.topic_name = f'/segmenter/{name}'
        self.message = None
        self.count = 0

    def get_subscription_count(self):
        return 1

    def publish(self, message):
        self.message = message
        self.count += 1


class CallbackPath:
    """The node's callback path, in one thread."""

    def __init__(self, inside):
        self.node = inside.node
        self.node._stop_work()
        self.node._active = True
        self.recorders = {name: Recorder(name) for name in ENCODINGS}
        for name, publisher in self.node._outputs.items():
            self.node.destroy_publisher(publisher)
            assert name in self.recorders
        self.node._outputs = dict(self.recorders)
        self.info_recorder = Recorder('camera_info')
        self.node.destroy_publisher(self.node._camera_info_output)
        self.node._camera_info_output = self.info_recorder
        self.node._camera_info = CameraInfo()  # of no size: every image's
        self.node._worker = self
        self.item = None

    # What the node asks of its worker.

    def submit(self, item):
        self.item = item
        return False

    def stop(self, patience_s=None):
        return True

    # What the test asks.

    def take(self, transport, message):
        """Do with a message what the node does; return whether outputs came."""
        self.node._read_frame = conversions.TRANSPORTS[transport][1]
        before = {name: recorder.count for name, recorder in self.recorders.items()}
        counts = self.node._health.counts
        self.node._on_image(message)
        self.node._process(self.item)
        self.item = None
        after = self.node._health.counts
        published = after.published - counts.published
        malformed = after.malformed - counts.malformed
        assert published + malformed == 1
        assert after.received - counts.received == 1
        assert after.failed == 0
        for name, recorder in self.recorders.items():
            assert recorder.count - before[name] == published
        return bool(published)

    def check(self, message, size_hw):
        """Check every output of a message that was taken."""
        for name, recorder in self.recorders.items():
            out = recorder.message
            assert (out.height, out.width) == size_hw, name
            assert out.encoding == ENCODINGS[name]
            assert out.step == out.width * DEPTH[out.encoding]
            assert len(out.data) == out.step * out.height
            assert out.header == message.header
        info = self.info_recorder.message
        assert (info.height, info.width) == size_hw


@pytest.fixture
def path(monkeypatch):
    with InProcessNode(monkeypatch, spin=False) as inside:
        inside.node.get_logger().set_level(50)  # ten thousand complaints are not the point
        yield CallbackPath(inside)
        inside.node._outputs = {}
        inside.node._camera_info_output = None


def rss_bytes():
    return int(Path('/proc/self/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE')


STAMPS = st.builds(
    Time, sec=st.integers(-2**31, 2**31 - 1), nanosec=st.integers(0, 2**32 - 1))

HEADERS = st.builds(
    Header, stamp=STAMPS, frame_id=st.sampled_from(['', 'camera', 'x' * 300, 'caméra', '/']))

KNOWN = st.sampled_from(conversions.ENCODINGS)

ENCODING = st.one_of(KNOWN, KNOWN, KNOWN, KNOWN, st.sampled_from([
    '', 'RGB8', 'rgb16', '32FC1', '8UC4', '8UC2', 'bayer_rggb16', 'jpeg', 'mono', 'rgb8 ']),
    st.text(max_size=12))

SIDES = st.one_of(
    st.integers(0, 9), st.integers(10, SIDE_PX), st.sampled_from([1, 2, 31, 32, 33]),
    st.sampled_from([2, 64, 480, 640]), st.sampled_from([32, SIDE_PX, 2**16, 2**31, 2**32 - 1]))

#: Bytes a pixel, to be nearly right with.
WIDTHS = {'rgb8': 3, 'bgr8': 3, '8UC3': 3, 'rgba8': 4, 'bgra8': 4, 'mono16': 2, 'yuv422': 2,
          'uyvy': 2, 'yuv422_yuy2': 2, 'yuyv': 2}

#: Where the bytes of every message come from: making them anew each time would be the slow part.
NOISE = np.random.default_rng(7).integers(0, 256, SIDE_PX * SIDE_PX * 8, np.uint8).tobytes()


@st.composite
def images(draw):
    """Draw a message that is an image but for what one or two of its fields say."""
    encoding, height, width = draw(ENCODING), draw(SIDES), draw(SIDES)
    if encoding in ('nv12', 'nv21') and draw(st.booleans()):
        height, width = height & ~1, width & ~1
    step = width * WIDTHS.get(encoding, 1) + draw(st.sampled_from([0, 0, 0, 1, 7, -1, 64]))
    length = step * height * (3 if encoding in ('nv12', 'nv21') else 2) // 2
    length += draw(st.sampled_from([0, 0, 0, -1, 1, -step, step // 2]))
    return Image(
        header=draw(HEADERS), height=height, width=width, encoding=encoding,
        is_bigendian=draw(st.sampled_from([0, 1, 255])),
        step=draw(st.sampled_from([step, step, step, step * 2, 0, 2**32 - 1])) % 2**32,
        data=array.array('B', NOISE[:max(0, min(length, len(NOISE)))]))


JPEG = cv2.imencode('.jpg', np.frombuffer(NOISE[:7_200], np.uint8).reshape(40, 60, 3))[1]
PNG = cv2.imencode('.png', np.zeros((40, 60, 3), np.uint8))[1]

#: The upper bytes of a JPEG's height and width. Changed, 40 rows become up to 65320, all of which
#: are decoded: right, but seconds of page faults. ``test_conversions.py`` does that, once.
SIZES = JPEG.tobytes().index(b'\xff\xc0')
UPPER_BYTES = (SIZES + 5, SIZES + 7)

WHOLE = {'jpeg': JPEG.tobytes(), 'png': PNG.tobytes()}


@st.composite
def compressed_images(draw):
    """Draw a file with bytes changed, cut out, put in, or another file's end."""
    kind = draw(st.sampled_from(sorted(WHOLE)))
    data = bytearray(WHOLE[kind])
    # Near the head are the sizes and tables, where a change hurts most.
    place = st.one_of(st.integers(0, 400), st.integers(0, len(data) - 1))
    for _ in range(draw(st.integers(0, 6))):
        at = min(draw(place), max(0, len(data) - 1))
        action = draw(st.sampled_from(['change', 'change', 'cut', 'insert', 'end']))
        if action == 'change':
            if data and at not in UPPER_BYTES:
                data[at] = draw(st.integers(0, 255))
        elif action == 'cut':
            del data[at:at + draw(st.integers(1, 50))]
        elif action == 'insert':
            data[at:at] = draw(st.binary(min_size=1, max_size=20))
        else:
            data[at:] = WHOLE['png' if kind == 'jpeg' else 'jpeg'][at:]
    return CompressedImage(
        header=draw(HEADERS), data=array.array('B', data),
        format=draw(st.sampled_from(['jpeg', 'png', 'bgr8; jpeg', '', 'h264'])))


def run(examples):
    """Run a hypothesis test so many times, the same way each time."""
    return settings(
        max_examples=examples, deadline=None, database=None, derandomize=True,
        phases=(Phase.generate, Phase.shrink), suppress_health_check=list(HealthCheck))


class Growth:
    """Resident memory behind the first examples, against that at the end."""

    def __init__(self):
        self.examples = 0
        self.start_bytes = None

    def example(self):
        self.examples += 1
        if self.examples == 20:
            gc.collect()
            self.start_bytes = rss_bytes()

    def check(self):
        gc.collect()
        assert self.start_bytes is not None
        assert rss_bytes() - self.start_bytes < GROWTH_BYTES


@pytest.mark.slow
def test_malformed_images(path):
    growth, taken = Growth(), []

    @run(260)
    @given(st.lists(images(), min_size=BATCH, max_size=BATCH))
    def throw(messages):
        growth.example()
        for message in messages:
            if path.take('raw', message):
                path.check(message, (message.height, message.width))
                taken.append(message.encoding)

    throw()

    counts = path.node._health.counts
    assert counts.malformed >= MALFORMED // 2
    # Many were right after all: the fuzz is no wall of refusals.
    assert counts.published > counts.received // 20
    assert set(taken) > {'rgb8', 'mono16', 'nv12', 'yuyv', 'bayer_rggb8'}
    growth.check()


@pytest.mark.slow
def test_malformed_compressed_images(path):
    growth = Growth()

    @run(300)
    @given(st.lists(compressed_images(), min_size=BATCH, max_size=BATCH))
    def throw(messages):
        growth.example()
        for message in messages:
            if path.take('compressed', message):
                out = path.recorders['mask'].message
                assert min(out.height, out.width) >= 1
                path.check(message, (out.height, out.width))

    throw()

    counts = path.node._health.counts
    assert counts.malformed >= MALFORMED // 2
    assert counts.published > counts.received // 20
    growth.check()
