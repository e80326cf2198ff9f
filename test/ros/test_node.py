"""
The node as its users meet it: frames in, masks out, over real DDS, in processes of their own.

Behind the wires the node and ``Segmenter`` share the core, so the node is held to what
``Segmenter`` says of the same frame, and that to labels where there are some.
"""

import time

import cv2
import numpy as np
import pytest
from harness import (
    BEST_EFFORT, IMAGE_TOPIC, RELIABLE, InProcessNode, LogLines, NodeProcess, clip_frames,
    pinhole_info, pixels_of, values_of,
)
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import SetBool

from bisenet_ros import DeviceError, Segmenter, Settings, parameters, segmenter
from bisenet_ros.core.outputs import overlay
from bisenet_ros.core.postprocess import UNLABELED, Wanted, color_table

OUTPUTS = {
    'mask': 'mono8', 'labels': 'mono8', 'confidence': 'mono8', 'color_mask': 'rgb8',
    'overlay': 'bgr8'}

EVERYTHING = Wanted(labels=True, mask=True, confidence=True)

#: How fast the input is back behind the first subscriber: 0.3 s, and as much again for a busy
#: machine.
BACK_S = 0.6

#: How much of a dash-cam's picture is road; far from nothing and from everything.
ROAD_SHARE = (0.1, 0.6)

#: Road IoU on CamVid val below which something is broken (the model card tells what is reached).
IOU_FLOOR = 0.8


@pytest.fixture(scope='module')
def node():
    with NodeProcess(params={'diagnostics_period_s': 0.2}, remap={
            'image': IMAGE_TOPIC, 'camera_info': '/camera/camera_info'}) as process:
        yield process.wait_active()


@pytest.fixture
def set_live(peer, node):
    """Set live parameters for one test."""
    def set_values(**values):
        changed.update(values)
        peer.set_or_fail(**values)

    changed = {}
    yield set_values
    peer.set_or_fail(**{name: parameters.BY_NAME[name].default for name in changed})


@pytest.fixture(scope='module')
def loaded():
    segmenter = Segmenter.load(device='cpu')
    yield segmenter
    segmenter.close()


@pytest.fixture
def offline(loaded):
    """Give the Python API with the same model."""
    loaded.settings = Settings()
    return loaded


@pytest.fixture(scope='module')
def frame(clips):
    """Give a frame of a dash-cam, BGR, 720 x 1280."""
    return clip_frames(clips[1], [12])[0]


def watch_all(peer):
    return {name: peer.watch(Image, f'/segmenter/{name}') for name in OUTPUTS}


# -- masks of real frames --------------------------------------------------------------------


@pytest.mark.parametrize('clip', [0, 1])
def test_every_output_of_real_frames(peer, node, offline, clips, clip):
    camera, watches = peer.camera(), watch_all(peer)

    for bgr in clip_frames(clips[clip], [0, 9, 21]):
        sent = peer.image(bgr)
        answers = dict(zip(watches, peer.ask(camera, sent, *watches.values()), strict=True))
        expected = offline.segment(bgr, channels='bgr', wanted=EVERYTHING)

        for name, answer in answers.items():
            assert answer.header == sent.header
            assert (answer.height, answer.width) == bgr.shape[:2]
            assert answer.encoding == OUTPUTS[name]
            assert answer.step == answer.width * (3 if answer.encoding != 'mono8' else 1)
            assert len(answer.data) == answer.step * answer.height
        pixels = {name: pixels_of(answer) for name, answer in answers.items()}
        np.testing.assert_array_equal(pixels['labels'], expected.labels)
        np.testing.assert_array_equal(pixels['confidence'], expected.confidence)
        np.testing.assert_array_equal(pixels['mask'], np.where(expected.labels == 1, 255, 0))
        colors = np.uint8(offline.contract.class_colors_rgb)
        np.testing.assert_array_equal(pixels['color_mask'], colors[expected.labels])
        np.testing.assert_array_equal(pixels['overlay'], overlay(
            bgr, expected.labels, pixels['mask'],
            color_table(offline.contract.class_colors_rgb, 'bgr'), 0.5))
        low, high = ROAD_SHARE
        assert low < (pixels['mask'] > 0).mean() < high


def test_road_of_camvid(peer, node, camvid):
    camera, masks = peer.camera(), peer.watch(Image, '/segmenter/mask')
    stems = (camvid / 'splits' / 'val.txt').read_text().split()[::8]
    overlapping = united = 0
    for stem in stems:
        bgr = cv2.imread(str(camvid / 'images' / f'{stem}.jpg'))
        labels = cv2.imread(str(camvid / 'labels' / f'{stem}.png'), cv2.IMREAD_UNCHANGED)
        (answer,) = peer.ask(camera, peer.image(bgr), masks)
        found, road, known = pixels_of(answer) > 0, labels == 3, labels != 11
        overlapping += (found & road & known).sum()
        united += ((found | road) & known).sum()

    assert len(stems) == 13
    assert overlapping / united > IOU_FLOOR


@pytest.mark.parametrize('encoding', ['rgb8', 'bgra8', 'yuv422_yuy2', 'nv12'])
def test_colors_reach_the_network(peer, node, offline, frame, encoding):
    """The wire and the worker change nothing: the labels are those of the same colours."""
    camera, labels = peer.camera(), peer.watch(Image, '/segmenter/labels')
    if encoding == 'rgb8':
        rows = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB).reshape(720, -1)
    elif encoding == 'bgra8':
        rows = cv2.cvtColor(frame, cv2.COLOR_BGR2BGRA).reshape(720, -1)
    elif encoding == 'nv12':
        i420 = cv2.cvtColor(frame, cv2.COLOR_BGR2YUV_I420)
        u, v = i420[720:900].reshape(360, 640), i420[900:].reshape(360, 640)
        rows = np.vstack([i420[:720], np.stack([u, v], -1).reshape(360, 1280)])
    else:
        rows = cv2.cvtColor(frame, cv2.COLOR_BGR2YUV_YUY2).reshape(720, -1)
    padded = np.pad(rows, ((0, 0), (0, 32)))
    sent = peer.image(padded, 'mono8')
    sent.height, sent.width, sent.encoding = 720, 1280, encoding

    (answer,) = peer.ask(camera, sent, labels)

    expected = offline.segment(frame, channels='bgr').labels
    agreement = (pixels_of(answer) == expected).mean()
    assert agreement == 1 if encoding in ('rgb8', 'bgra8') else agreement > 0.98


@pytest.mark.parametrize('size', [(1, 1), (1, 333), (227, 1), (3, 5), (2160, 3840)])
def test_any_size(peer, node, size):
    """Also of a 4K frame, which crosses the wire whole."""
    camera, watches = peer.camera(), watch_all(peer)
    picture = np.full((*size, 3), 90, np.uint8)

    answers = peer.ask(camera, peer.image(picture), *watches.values())

    assert {(answer.height, answer.width) for answer in answers} == {size}


def test_stamps_are_copied_whatever_they_say(peer, node, frame):
    """Time zero, a clock that goes back, a frame id of nothing: bags and simulations have them."""
    camera, masks = peer.camera(), peer.watch(Image, '/segmenter/mask')
    small = cv2.resize(frame, (64, 36))
    for sec, nanosec in ((0, 0), (2_000_000_000, 999_999_999), (5, 1), (-3, 4),
                         (7, 4_000_000_000)):
        sent = peer.image(small)
        sent.header.stamp.sec, sent.header.stamp.nanosec = sec, nanosec
        sent.header.frame_id = ''

        (answer,) = peer.ask(camera, sent, masks)

        assert answer.header == sent.header
    assert values_of(peer.diagnostics().fresh('inference'))['frames failed'] == '0'


# -- only what somebody wants ----------------------------------------------------------------


def test_the_input_is_subscribed_only_while_somebody_listens(peer, node, frame):
    camera = peer.camera()
    peer.wait_for(lambda: not peer.subscribed(), 'no subscription without a listener')
    for name in (*OUTPUTS, 'camera_info'):
        listener = peer.node.create_subscription(
            CameraInfo if name == 'camera_info' else Image, f'/segmenter/{name}', print, 1)
        peer.wait_for(peer.subscribed, f'a subscription for {name}')
        peer.node.destroy_subscription(listener)
        peer.wait_for(lambda: not peer.subscribed(), f'no subscription after {name}')
    masks = peer.watch(Image, '/segmenter/mask')
    peer.ask(camera, peer.image(frame), masks)


def test_the_input_is_back_at_once(peer, node):
    took_s = []
    for _ in range(3):
        peer.wait_for(lambda: not peer.subscribed(), 'no subscription')
        started_s = time.monotonic()
        peer.watch(Image, '/segmenter/mask')
        peer.wait_for(peer.subscribed, 'a subscription')
        took_s.append(time.monotonic() - started_s)
        peer.forget()

    assert min(took_s) < BACK_S


def test_enable_really_unsubscribes(peer, node, frame):
    camera, masks = peer.camera(), peer.watch(Image, '/segmenter/mask')
    peer.ask(camera, peer.image(frame), masks)

    answer = peer.call(SetBool, '/segmenter/enable', SetBool.Request(data=False))
    assert answer.success
    assert 'disabled' in answer.message
    peer.wait_for(lambda: not peer.subscribed(), 'no subscription while disabled')
    peer.never(peer.subscribed, 'a subscription while disabled', 0.4)
    diagnostics = peer.diagnostics()
    assert 'disabled by ~/enable' in diagnostics.fresh('input').message

    assert peer.call(SetBool, '/segmenter/enable', SetBool.Request(data=True)).success
    peer.ask(camera, peer.image(frame), masks)


@pytest.fixture(scope='module')
def inside_node():
    with pytest.MonkeyPatch.context() as patch:
        node = InProcessNode(patch, {'diagnostics_period_s': 0.1})
    with node:
        yield node


@pytest.fixture
def inside(peer, inside_node):
    peer.wait_for(lambda: not peer.subscribed('/inside/image'), 'nobody listening')
    inside_node.engine.runs, inside_node.engine.delay_s = 0, 0.0
    inside_node.engine.fault = None
    return inside_node


@pytest.mark.parametrize(('listened', 'wanted'), [
    (('mask',), Wanted(labels=False, mask=True, confidence=False)),
    (('labels',), Wanted(labels=True, mask=False, confidence=False)),
    (('confidence',), Wanted(labels=False, mask=False, confidence=True)),
    (('color_mask',), Wanted(labels=True, mask=False, confidence=False)),
    (('overlay',), Wanted(labels=True, mask=True, confidence=False)),
    (('mask', 'confidence'), Wanted(labels=False, mask=True, confidence=True)),
])
def test_only_what_is_listened_to_is_computed(peer, inside, monkeypatch, listened, wanted):
    asked = []
    segment = Segmenter.segment

    def spy(self, frame, **options):
        asked.append(options['wanted'])
        return segment(self, frame, **options)

    monkeypatch.setattr(Segmenter, 'segment', spy)
    camera = peer.camera('/inside/image')
    watches = [peer.watch(Image, f'/inside/segmenter/{name}') for name in listened]
    # Both subscriptions must be known before the frame that is looked at.
    peer.ask(camera, peer.image(np.zeros((20, 30, 3), np.uint8)), *watches)
    asked.clear()

    peer.ask(camera, peer.image(np.zeros((20, 30, 3), np.uint8)), *watches)

    assert set(asked) == {wanted}


def test_what_needs_no_drawing_goes_out_first(peer, inside, monkeypatch):
    camera, sent = peer.camera('/inside/image'), []
    watches = [peer.watch(Image, f'/inside/segmenter/{name}') for name in OUTPUTS]
    peer.ask(camera, peer.image(np.zeros((20, 30, 3), np.uint8)), *watches)
    for name, output in inside.node._outputs.items():
        monkeypatch.setattr(output, 'publish', lambda msg, name=name: sent.append(name))

    camera.publish(peer.image(np.zeros((20, 30, 3), np.uint8)))

    peer.wait_for(lambda: len(sent) == len(OUTPUTS), 'all outputs')
    assert sent == ['mask', 'labels', 'confidence', 'color_mask', 'overlay']


def test_camera_info_alone_needs_no_inference(peer, inside):
    camera = peer.camera('/inside/image')
    infos = peer.node.create_publisher(CameraInfo, '/inside/camera_info', RELIABLE)
    watched = peer.watch(CameraInfo, '/inside/segmenter/camera_info')

    def answered():
        infos.publish(pinhole_info(30, 20))
        camera.publish(peer.image(np.zeros((20, 30, 3), np.uint8)))
        return watched

    peer.wait_for(answered, 'a camera info')
    assert inside.engine.runs == 0


def test_camera_info_that_never_comes_is_told_and_nothing_counts_as_published(
    peer, inside, monkeypatch,
):
    told = LogLines()
    monkeypatch.setattr(segmenter, 'SETTLING_S', 0.0)
    monkeypatch.setattr(inside.node, 'get_logger', lambda: told)
    before = inside.node._health.counts
    camera = peer.camera('/inside/image')
    watched = peer.watch(CameraInfo, '/inside/segmenter/camera_info')
    peer.wait_for(lambda: peer.subscribed('/inside/image'), 'the subscription')

    def skipped():
        camera.publish(peer.image(np.zeros((20, 30, 3), np.uint8)))
        return inside.node._health.counts.skipped > before.skipped

    peer.wait_for(skipped, 'a frame for nobody')
    assert not watched
    assert inside.node._health.counts.published == before.published
    assert ('nothing goes out on /inside/segmenter/camera_info: no CameraInfo arrives on '
            '/inside/camera_info; start its publisher or remap with camera_info:=TOPIC'
            ) in told.lines


@pytest.mark.parametrize(('size_wh', 'frame_id', 'published'), [
    ((64, 20), '', False), ((30, 20), 'other', True), ((30, 20), '', True)])
def test_camera_info_of_another_camera_is_told(
    peer, inside, monkeypatch, size_wh, frame_id, published,
):
    told, before = LogLines(), inside.node._health.counts
    monkeypatch.setattr(inside.node, 'get_logger', lambda: told)
    camera = peer.camera('/inside/image')
    infos = peer.node.create_publisher(CameraInfo, '/inside/camera_info', RELIABLE)
    watched = peer.watch(CameraInfo, '/inside/segmenter/camera_info')
    info = pinhole_info(*size_wh)
    info.header.frame_id = frame_id

    def answered():
        infos.publish(info)
        camera.publish(peer.image(np.zeros((20, 30, 3), np.uint8)))
        return watched if published and not frame_id else told.lines

    peer.wait_for(answered, 'a camera info, or a warning')
    if not published:
        assert told.lines[-1] == (
            'nothing goes out on /inside/segmenter/camera_info: /inside/camera_info: found '
            'calibration of 64x20 pixels, expected the shape of the images, 30x20; remap with '
            'camera_info:=TOPIC')
        assert not watched
        assert inside.node._health.counts.published == before.published
    elif frame_id:
        assert ("found the frame_id 'other', but the images have 'camera_optical_frame'"
                ) in told.lines[-1]
    else:
        assert not told.lines


def test_a_camera_that_was_killed_and_started_again_is_no_second_one(inside, monkeypatch):
    now_s = time.monotonic()
    monkeypatch.setattr(segmenter.time, 'monotonic', lambda: now_s)
    doubt = inside.node._doubt
    assert doubt(['/a']) == ''
    now_s += 20  # the middleware lists the old one still
    assert doubt(['/a', '/a']) == ''
    assert doubt(['/a']) == ''
    now_s += 29
    assert doubt(['/a', '/b']) == ''
    now_s += 2
    assert doubt(['/a', '/b']) == (
        '2 publishers on /inside/image (/a, /b): their frames are mixed; remap all but one of '
        'them')


def test_listeners_that_come_and_go_amid_a_fast_camera(peer, node):
    """The input is taken down and made anew between frames, again and again."""
    camera = peer.camera()
    picture = np.zeros((36, 64, 3), np.uint8)
    peer.node.create_timer(0.004, lambda: camera.publish(peer.image(picture)))
    for _ in range(12):
        masks = peer.watch(Image, '/segmenter/mask')
        peer.wait_for(lambda: len(masks) > 2, 'masks')  # noqa: B023
        for subscription in list(peer.node.subscriptions):
            peer.node.destroy_subscription(subscription)
        peer.wait_for(lambda: not peer.subscribed(), 'no subscription')

    assert node.process.poll() is None
    assert 'Traceback' not in node.output


# -- newest first, everything counted --------------------------------------------------------


def settled_counts(peer, diagnostics):
    """Return the counts once they stay as they are."""
    before = None
    while (counts := diagnostics.counts()) != before:
        before = counts
    return counts


def test_every_frame_is_counted_once(peer, node, frame):
    camera, masks = peer.camera(), peer.watch(Image, '/segmenter/mask')
    diagnostics = peer.diagnostics()
    small = cv2.resize(frame, (320, 180))
    peer.ask(camera, peer.image(small), masks)
    before = settled_counts(peer, diagnostics)
    broken = peer.image(small)
    broken.encoding = 'nonsense'
    sent = []
    for number in range(120):
        sent.append(peer.image(small))
        camera.publish(broken if number % 10 == 5 else sent[-1])
        peer.spin_for(0.001)

    counts = settled_counts(peer, diagnostics)

    gained = {name: counts[name] - before[name] for name in counts}
    assert gained['received'] > 0
    assert gained['dropped'] > 0  # inference takes longer than 1 ms
    assert gained['received'] == sum(gained[name] for name in (
        'published', 'dropped', 'skipped by max_rate_hz', 'skipped without a listener',
        'malformed', 'failed'))
    assert gained['failed'] == 0


def test_frame_that_waits_when_the_node_is_deactivated_is_counted(peer, inside):
    inside.engine.delay_s = 0.3
    camera, masks = peer.camera('/inside/image'), peer.watch(Image, '/inside/segmenter/mask')
    picture = np.zeros((20, 30, 3), np.uint8)
    peer.ask(camera, peer.image(picture), masks)
    for _ in range(10):
        camera.publish(peer.image(picture))
        peer.spin_for(0.02)

    assert peer.transition('deactivate', '/inside/segmenter')
    counts = inside.node._health.counts
    assert peer.transition('activate', '/inside/segmenter')

    assert counts.received == (
        counts.published + counts.dropped + counts.skipped + counts.malformed + counts.failed)


def test_the_newest_frame_wins(peer, inside):
    """With a slow model, every mask belongs to a frame that was the newest when it began."""
    inside.engine.delay_s = 0.2
    camera = peer.camera('/inside/image')
    masks = peer.watch(Image, '/inside/segmenter/mask')
    picture = np.zeros((20, 30, 3), np.uint8)
    peer.ask(camera, peer.image(picture), masks)
    masks.clear()
    sent_s, late_s = {}, []
    for _ in range(60):
        image = peer.image(picture)
        sent_s[image.header.stamp.sec] = time.monotonic()
        camera.publish(image)
        seen = len(masks)
        peer.spin_for(0.02)
        late_s += [time.monotonic() - sent_s[mask.header.stamp.sec]
                   for mask in masks[seen:] if mask.header.stamp.sec in sent_s]
    last = image.header

    peer.wait_for(lambda: masks.with_stamp(last), 'the mask of the last frame')

    stamps = [mask.header.stamp.sec for mask in masks]
    assert stamps == sorted(stamps)
    assert len(masks) < 20  # 60 frames in 1.2 s and 0.2 s each
    # One frame and one inference, plus a callback or two; never a queue of five.
    assert np.median(late_s) < 0.5


def test_a_frame_that_fails_costs_only_itself(peer, inside):
    camera = peer.camera('/inside/image')
    masks = peer.watch(Image, '/inside/segmenter/mask')
    diagnostics = peer.diagnostics()
    picture = np.zeros((20, 30, 3), np.uint8)
    peer.ask(camera, peer.image(picture), masks)
    inside.engine.fault = RuntimeError('boom')
    for number in '12345':
        camera.publish(peer.image(picture))
        status = diagnostics.wait_for(
            'inference',
            lambda status, number=number: values_of(status)['frames failed'] == number,
            'the fault in the diagnostics', 'inside/segmenter')

    assert status.message.endswith(' frames failed: RuntimeError: boom')
    assert status.level[0] == 2  # nothing else came out meanwhile
    inside.engine.fault = None
    peer.ask(camera, peer.image(picture), masks)
    assert values_of(
        diagnostics.fresh('inference', 'inside/segmenter'))['frames failed'] == '5'


# -- parameters at work ----------------------------------------------------------------------


def published_pixels(peer, frame, *names):
    camera = peer.camera()
    watches = [peer.watch(Image, f'/segmenter/{name}') for name in names]
    return [pixels_of(answer) for answer in peer.ask(camera, peer.image(frame), *watches)]


@pytest.mark.parametrize('fit', ['stretch', 'crop', 'letterbox'])
@pytest.mark.parametrize('output_size', ['input', 'model'])
def test_fit_and_output_size(peer, node, set_live, offline, frame, fit, output_size):
    set_live(fit=fit, output_size=output_size)
    tall = np.ascontiguousarray(frame[:, 200:800])  # no aspect that the network has

    labels, mask, drawn = published_pixels(peer, tall, 'labels', 'mask', 'overlay')

    offline.settings = Settings(fit=fit, output_size=output_size)
    expected = offline.segment(tall, channels='bgr', wanted=EVERYTHING)
    assert labels.shape == ((720, 600) if output_size == 'input' else (256, 512))
    assert drawn.shape == (*labels.shape, 3)
    np.testing.assert_array_equal(labels, expected.labels)
    np.testing.assert_array_equal(mask, expected.mask)
    assert (UNLABELED in labels) == (fit == 'crop')


def test_mask_classes(peer, node, set_live, frame):
    set_live(mask_classes=['background'])

    labels, mask = published_pixels(peer, frame, 'labels', 'mask')

    np.testing.assert_array_equal(mask, np.where(labels == 0, 255, 0))


def test_min_confidence(peer, node, set_live, offline, frame):
    half = float(np.median(offline.segment(frame, channels='bgr').confidence)) / 255
    assert half > 0.5
    set_live(min_confidence=half)

    labels, mask, confidence = published_pixels(peer, frame, 'labels', 'mask', 'confidence')

    np.testing.assert_array_equal(labels == UNLABELED, confidence < half * 255)
    np.testing.assert_array_equal(mask, np.where(labels == 1, 255, 0))
    assert 0.1 < (labels == UNLABELED).mean() < 0.9


def test_smoothing_steadies_the_mask_of_a_video(peer, node, set_live, clips):
    frames = clip_frames(clips[1], list(range(20)))
    camera, masks = peer.camera(), peer.watch(Image, '/segmenter/mask')
    peer.ask(camera, peer.image(frames[0]), masks)

    def flipped(smoothing):
        set_live(smoothing=smoothing)
        shown = [pixels_of(peer.ask(camera, peer.image(frame), masks)[0]) for frame in frames]
        return np.mean([before != after for before, after in zip(shown, shown[1:], strict=False)])

    assert flipped(0.8) < 0.8 * flipped(0.0)


def test_smoothing_forgets_what_was_before_a_pause(peer, inside):
    """Also what a frame shows that is under way when the input is taken down."""
    camera, masks = peer.camera('/inside/image'), peer.watch(Image, '/inside/segmenter/mask')
    bright, dark = (np.full((20, 30, 3), value, np.uint8) for value in (255, 0))
    inside.node.set_parameters([Parameter('smoothing', value=0.9)])
    try:
        peer.ask(camera, peer.image(bright), masks)
        inside.engine.delay_s, runs = 0.5, inside.engine.runs
        camera.publish(peer.image(bright))
        peer.wait_for(lambda: inside.engine.runs > runs, 'that it is under way')
        for enabled in (False, True):
            peer.call(SetBool, '/inside/segmenter/enable', SetBool.Request(data=enabled))
        inside.engine.delay_s = 0.0

        (mask,) = peer.ask(camera, peer.image(dark), masks)
    finally:
        inside.node.set_parameters([Parameter('smoothing', value=0.0)])
    assert not pixels_of(mask).any()


@pytest.mark.parametrize('cut', ['stamp', 'frame_id', 'pause', 'failure'])
def test_smoothing_starts_anew_where_the_stream_does(peer, inside, cut):
    camera, masks = peer.camera('/inside/image'), peer.watch(Image, '/inside/segmenter/mask')
    bright, dark = (np.full((20, 30, 3), value, np.uint8) for value in (255, 0))
    inside.node.set_parameters([Parameter('smoothing', value=0.9)])
    try:
        before = peer.image(bright)
        peer.ask(camera, before, masks)
        last = peer.image(dark)
        if cut == 'stamp':  # a bag loops
            last.header.stamp.sec -= 100
        elif cut == 'frame_id':
            last.header.frame_id = 'another_camera'
        elif cut == 'pause':
            last.header.stamp.sec = before.header.stamp.sec + 3
        else:
            inside.engine.fault, failed = DeviceError('away'), inside.node._health.counts.failed
            camera.publish(peer.image(bright))
            peer.wait_for(lambda: inside.node._health.counts.failed > failed, 'a lost frame')
            inside.engine.fault = None

        (mask,) = peer.ask(camera, last, masks)
    finally:
        inside.node.set_parameters([Parameter('smoothing', value=0.0)])
    assert not pixels_of(mask).any()


def test_max_rate(peer, node, set_live, frame):
    set_live(max_rate_hz=5.0)
    camera, masks = peer.camera(), peer.watch(Image, '/segmenter/mask')
    diagnostics = peer.diagnostics()
    small = cv2.resize(frame, (64, 36))
    peer.ask(camera, peer.image(small), masks)
    before = settled_counts(peer, diagnostics)
    started_s, seen = time.monotonic(), len(masks)

    def ten_more():
        camera.publish(peer.image(small))
        peer.spin_for(0.03)
        return len(masks) >= seen + 10

    peer.wait_for(ten_more, 'ten masks')

    lasted_s = time.monotonic() - started_s
    gained = {name: count - before[name]
              for name, count in settled_counts(peer, diagnostics).items()}
    assert len(masks) - seen <= 5 * lasted_s + 2
    assert gained['skipped by max_rate_hz'] > 0


def test_settings_change_between_frames_and_never_within(peer, node, set_live, frame):
    camera = peer.camera()
    watches = watch_all(peer)
    tall = np.ascontiguousarray(frame[::2, 100:420:2])
    peer.ask(camera, peer.image(tall), *watches.values())
    timer = peer.node.create_timer(0.01, lambda: camera.publish(peer.image(tall)))
    for number in range(15):
        set_live(
            output_size=('input', 'model')[number % 2], smoothing=(0.0, 0.5)[number // 2 % 2],
            fit=('stretch', 'crop', 'letterbox')[number % 3],
            mask_classes=(['road'], ['background'])[number % 2],
            min_confidence=(0.0, 0.6, 1.0)[number % 3])
        expected = len(watches['mask']) + 2  # the first may have been under way
        peer.wait_for(lambda: len(watches['mask']) >= expected, 'masks')  # noqa: B023
    peer.node.destroy_timer(timer)
    settled = peer.image(tall)
    peer.ask(camera, settled, *watches.values())

    sizes = {}
    for watch in watches.values():
        for answer in watch:
            sizes.setdefault(answer.header.stamp.sec, set()).add((answer.height, answer.width))
    assert {size for pair in sizes.values() for size in pair} == {(360, 160), (256, 512)}
    assert all(len(pair) == 1 for pair in sizes.values())
    assert values_of(peer.diagnostics().fresh('inference'))['frames failed'] == '0'
    assert 'Traceback' not in node.output


@pytest.mark.parametrize('alpha', [0.0, 0.25, 1.0])
def test_overlay_alpha(peer, node, set_live, offline, frame, alpha):
    set_live(overlay_alpha=alpha)

    mask, drawn = published_pixels(peer, frame, 'mask', 'overlay')

    road_bgr = np.float64(offline.contract.class_colors_rgb[1][::-1])
    blended = frame * (1 - alpha) + road_bgr * alpha
    np.testing.assert_array_equal(drawn[mask == 0], frame[mask == 0])
    assert np.abs(drawn[mask > 0] - blended[mask > 0]).max() <= 1


@pytest.mark.parametrize('output_size', ['input', 'model'])
def test_camera_info_of_the_masks_size(peer, node, set_live, frame, output_size):
    set_live(output_size=output_size)
    camera = peer.camera()
    infos = peer.node.create_publisher(CameraInfo, '/camera/camera_info', RELIABLE)
    masks = peer.watch(Image, '/segmenter/mask')
    watched = peer.watch(CameraInfo, '/segmenter/camera_info')
    given = pinhole_info(1280, 720)
    peer.wait_for(lambda: peer.subscribed('/camera/camera_info'), 'a subscription')

    def answered():
        infos.publish(given)
        sent.append(peer.image(frame))
        camera.publish(sent[-1])
        peer.spin_for(0.1)
        return watched

    sent = []
    peer.wait_for(answered, 'a camera info')
    found = watched[-1]
    mask = peer.wait_for(lambda: masks.with_stamp(found.header), 'its mask')
    assert found.header == mask.header
    assert (found.height, found.width) == (mask.height, mask.width)
    x, y = mask.width / 1280, mask.height / 720
    np.testing.assert_allclose(found.k, given.k * np.repeat([x, y, 1], 3))
    np.testing.assert_allclose(found.p, given.p * np.repeat([x, y, 1], 4))
    assert list(found.d) == list(given.d)
    assert found.distortion_model == given.distortion_model


def test_no_camera_info_in_none_out(peer, node, frame):
    # A subscription that another test left behind would still know that test's camera.
    peer.wait_for(lambda: not peer.subscribed(), 'no subscription')
    camera, masks = peer.camera(), peer.watch(Image, '/segmenter/mask')
    infos = peer.watch(CameraInfo, '/segmenter/camera_info')
    peer.ask(camera, peer.image(frame), masks)

    peer.never(lambda: infos, 'a camera info out of nothing', 0.2)


# -- compressed ------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def compressed_node():
    with NodeProcess(
            params={'image_transport': 'compressed', 'diagnostics_period_s': 0.2},
            remap={'image': IMAGE_TOPIC}, namespace='/jpeg') as process:
        yield process.wait_active()


def test_compressed_input_with_one_remap(peer, compressed_node, offline, frame):
    camera = peer.camera(f'{IMAGE_TOPIC}/compressed', message_type=CompressedImage)
    labels = peer.watch(Image, '/jpeg/segmenter/labels')
    for suffix in ('.jpg', '.png'):
        sent = peer.compressed(frame, suffix)

        (answer,) = peer.ask(camera, sent, labels)

        decoded = cv2.imdecode(np.frombuffer(sent.data, np.uint8), cv2.IMREAD_COLOR)
        assert answer.header == sent.header
        np.testing.assert_array_equal(
            pixels_of(answer), offline.segment(decoded, channels='bgr').labels)
    assert not peer.subscribed()  # the raw topic


def test_damaged_jpegs_are_dropped_and_named(peer, compressed_node, frame):
    camera = peer.camera(f'{IMAGE_TOPIC}/compressed', message_type=CompressedImage)
    masks = peer.watch(Image, '/jpeg/segmenter/mask')
    diagnostics = peer.diagnostics()
    peer.ask(camera, peer.compressed(frame), masks)
    whole = bytes(peer.compressed(frame).data)
    damaged = [CompressedImage(header=peer.header(), format='jpeg', data=data) for data in (
        b'', whole[:1000], whole[:-2], b'\xff\xd8' + bytes(5000), whole[5000:])]
    for message in damaged:
        camera.publish(message)
        peer.spin_for(0.05)

    status = diagnostics.wait_for(
        'input', lambda status: int(values_of(status)['frames malformed']) >= 3,
        'malformed frames', 'jpeg/segmenter')

    assert f'{IMAGE_TOPIC}/compressed: data: ' in values_of(
        diagnostics.latest('inference', 'jpeg/segmenter'))['last fault'], status
    assert all(masks.with_stamp(message.header) is None for message in damaged)
    peer.ask(camera, peer.compressed(frame), masks)
    compressed_node.wait_for_line(f'{IMAGE_TOPIC}/compressed: data: ')
    assert 'Traceback' not in compressed_node.output


# -- clocks ----------------------------------------------------------------------------------


def test_a_simulation_that_stands_still_does_not_stop_the_node(peer, start, frame):
    """A paused simulation or bag publishes no /clock; frames that come are segmented still."""
    start(params={'use_sim_time': True, 'diagnostics_period_s': 0.2}, namespace='/sim',
          remap={'image': IMAGE_TOPIC}).wait_active()
    camera, masks = peer.camera(), peer.watch(Image, '/sim/segmenter/mask')
    clock = peer.node.create_publisher(Clock, '/clock', QoSProfile(depth=1))
    diagnostics = peer.diagnostics()

    peer.ask(camera, peer.image(frame), masks)
    for sec in (1_000, 10):  # a bag that begins again
        jump = Clock()
        jump.clock.sec = sec
        clock.publish(jump)
        peer.ask(camera, peer.image(frame), masks)
    assert diagnostics.fresh('inference', 'sim/segmenter') is not None


# -- QoS of the outputs ----------------------------------------------------------------------


@pytest.mark.parametrize('qos', [RELIABLE, BEST_EFFORT, QoSProfile(depth=1)],
                         ids=['reliable', 'best-effort', 'rviz2'])
def test_any_subscriber_gets_masks(peer, node, frame, qos):
    camera, masks = peer.camera(), peer.watch(Image, '/segmenter/mask', qos)

    peer.ask(camera, peer.image(frame), masks)
