"""A device that fails and comes back: with devices made for it, then with the stand-in."""

import math
import os
import re
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from standin import StandIn, compiled_twin, wait_until
from tflite_models import Toy

from bisenet_ros.core import supervisor
from bisenet_ros.core.engine import TensorSpec
from bisenet_ros.core.errors import DeviceError, DeviceLostError, ModelError, SettingsError
from bisenet_ros.core.golden import TrustCheck, golden_frame, quarter_agreement
from bisenet_ros.core.health import Level
from bisenet_ros.core.segmenter import SHIPPED_MODEL, Segmenter, Settings
from bisenet_ros.core.supervisor import DeviceStatus, SupervisedEngine

IMAGE = np.zeros((8, 8, 3), np.uint8)

TOY = Toy()


@pytest.fixture(autouse=True)
def impatience(monkeypatch):
    monkeypatch.setattr(supervisor, 'BACKOFF_S', (0.01, 0.05))
    monkeypatch.setattr(supervisor, 'WATCH_S', 0.02)


class Fake:
    """An engine that answers with its name's length, or raises what it is told to."""

    input = TensorSpec('image', (1, 8, 8, 3), np.dtype(np.uint8), 1 / 255, 0)
    output = TensorSpec('scores', (1, 1, 1, 2), np.dtype(np.int8), 0.1, 0)
    timeout_s = math.inf

    def __init__(self, device='usb:0'):
        self.device = device
        self.fault = ''
        self.error = None
        self.closed = 0

    def run(self, image):
        if self.error:
            raise self.error
        return np.full((1, 1, 2), len(self.device))

    def close(self):
        self.closed += 1


class Bench:
    """Open fakes for a supervisor; ``faults`` are raised by the next openings, one each."""

    def __init__(self, *faults):
        self.faults = list(faults)
        self.devices = []
        self.attempts = []

    def __call__(self, stop):
        self.attempts.append(time.monotonic())
        if self.faults and (fault := self.faults.pop(0)) is not None:
            raise fault
        self.devices.append(Fake())
        return self.devices[-1]


@pytest.fixture
def supervised():
    """Give ``SupervisedEngine``; what a test makes is closed after it."""
    engines = []

    def make(*args, **kwargs):
        engines.append(SupervisedEngine('usb', *args, **kwargs))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


def answer(engine):
    return int(engine.run(IMAGE)[0, 0, 0])


def texts(events):
    return [event.text for event in events]


# -- with a fallback -------------------------------------------------------------------------


def test_fallback_serves_until_the_device_is_there(supervised):
    may_open = threading.Event()

    def open_device(stop):
        may_open.wait()
        return Fake()

    engine = supervised(open_device, Fake('cpu'))

    assert (engine.device, answer(engine)) == ('cpu', len('cpu'))
    assert engine.status == DeviceStatus('cpu')
    may_open.set()
    wait_until(lambda: engine.device == 'usb:0')
    assert answer(engine) == len('usb:0')
    assert texts(engine.take_events()) == ['usb:0 is in service.']
    assert engine.take_events() == []


def test_failed_frame_is_served_and_the_device_comes_back(supervised):
    bench = Bench()
    engine = supervised(bench, Fake('cpu'))
    wait_until(lambda: engine.device == 'usb:0')
    engine.take_events()
    bench.devices[0].error = DeviceError('usb:0: broke.')

    assert answer(engine) == len('cpu')
    assert engine.status == DeviceStatus('cpu', 'usb:0: broke.', 'usb:0: broke.', 0)

    wait_until(lambda: engine.device == 'usb:0')
    assert answer(engine) == len('usb:0')
    assert engine.status == DeviceStatus('usb:0', '', 'usb:0: broke.', 1)
    assert bench.devices[0].closed == 1
    assert [(event.level, event.text) for event in engine.take_events()] == [
        (Level.WARN, 'usb:0: broke. Device cpu serves until that is mended.'),
        (Level.OK, 'usb:0 is in service again.')]


def test_same_refusal_is_told_once_and_another_one_too(supervised):
    absent, busy = DeviceError('usb: absent.'), DeviceError('usb: busy.')
    bench = Bench(absent, absent, absent, busy, busy)
    engine = supervised(bench, Fake('cpu'))

    wait_until(lambda: engine.device == 'usb:0')

    assert texts(engine.take_events()) == [
        'usb: absent. Device cpu serves until that is mended.',
        'usb: busy. Device cpu serves until that is mended.',
        'usb:0 is in service.']
    assert engine.status.restarts == 0


def test_pauses_double_up_to_the_longest(supervised, monkeypatch):
    monkeypatch.setattr(supervisor, 'BACKOFF_S', (0.05, 0.2))
    bench = Bench(*[DeviceError('usb: absent.')] * 5)
    engine = supervised(bench, Fake('cpu'))

    wait_until(lambda: engine.device == 'usb:0')

    pauses = np.diff(bench.attempts)
    assert (pauses >= np.array([0.05, 0.1, 0.2, 0.2, 0.2]) - 1e-3).all()


def test_device_that_fails_again_soon_waits_longer(supervised, monkeypatch):
    monkeypatch.setattr(supervisor, 'BACKOFF_S', (0.05, 5.0))
    bench = Bench()
    engine = supervised(bench, Fake('cpu'))
    for count in (1, 2, 3):
        wait_until(lambda count=count: len(bench.devices) == count and engine.device == 'usb:0')
        bench.devices[-1].error = DeviceError('usb:0: broke.')
        engine.run(IMAGE)
    wait_until(lambda: len(bench.devices) == 4)

    assert (np.diff(bench.attempts) >= np.array([0.05, 0.1, 0.2]) - 1e-3).all()


def test_device_that_served_long_starts_over(supervised, monkeypatch):
    monkeypatch.setattr(supervisor, 'BACKOFF_S', (0.01, 60.0))
    monkeypatch.setattr(supervisor, 'SOUND_S', 0.0)
    bench = Bench()
    engine = supervised(bench, Fake('cpu'))
    for count in range(1, 15):  # with doubled pauses this would take minutes
        wait_until(lambda count=count: len(bench.devices) == count and engine.device == 'usb:0')
        bench.devices[-1].error = DeviceError('usb:0: broke.')
        engine.run(IMAGE)


def test_model_that_is_mended_is_served_after_the_longest_pause(supervised, monkeypatch):
    monkeypatch.setattr(supervisor, 'BACKOFF_S', (0.01, 0.3))
    refused = ModelError('x.tflite: its sha256 is another.')
    bench = Bench(None, refused, refused)
    engine = supervised(bench, Fake('cpu'))
    wait_until(lambda: engine.device == 'usb:0')
    engine.take_events()
    bench.devices[0].error = DeviceError('usb:0: broke.')
    assert answer(engine) == len('cpu')

    wait_until(lambda: engine.device == 'usb:0')

    assert answer(engine) == len('usb:0')
    assert (np.diff(bench.attempts)[1:] >= 0.3 - 1e-3).all()
    assert texts(engine.take_events()) == [
        'usb:0: broke. Device cpu serves until that is mended.',
        'x.tflite: its sha256 is another. Device cpu serves until that is mended.',
        'usb:0 is in service again.']


def test_refused_model_makes_later_pauses_no_longer(supervised, monkeypatch):
    monkeypatch.setattr(supervisor, 'BACKOFF_S', (0.01, 0.05))
    monkeypatch.setattr(supervisor, 'SOUND_S', 0.0)
    bench = Bench(ModelError('x.tflite: too new.'))
    engine = supervised(bench, Fake('cpu'))
    wait_until(lambda: engine.device == 'usb:0')
    monkeypatch.setattr(supervisor, 'BACKOFF_S', (0.01, 60.0))
    bench.devices[0].error = DeviceError('usb:0: broke.')
    engine.run(IMAGE)

    wait_until(lambda: engine.status.restarts == 1)  # far sooner than the longest pause


class Loading(Fake):
    """A device whose first run takes a second."""

    timeout_s = 5.0
    loaded = False

    def run(self, image):
        if not self.loaded and self.timeout_s < 1:
            self.fault = 'usb:0: still inferring: the device hangs.'
            raise DeviceError(self.fault)
        self.loaded = True
        return super().run(image)


def test_first_run_of_an_unchecked_device_has_the_openings_deadline(supervised):
    devices = []

    def open_device(stop):
        devices.append(Loading())
        return devices[-1]

    engine = supervised(open_device, timeout_s=0.1)

    assert answer(engine) == len('usb:0')
    devices[0].error = DeviceError('usb:0: broke.')
    devices[0].fault = 'usb:0: broke.'
    wait_until(lambda: engine.status.restarts == 1)
    assert answer(engine) == len('usb:0')
    assert len(devices) == 2


def test_unchecked_device_that_fails_its_first_run_is_closed(supervised):
    device = Fake()
    device.error = DeviceError('usb:0: broke.')

    with pytest.raises(DeviceError, match=r'^usb:0: broke\.$'):
        supervised(lambda stop: device)

    assert device.closed == 1


def test_death_while_idle_is_seen(supervised):
    bench = Bench()
    engine = supervised(bench, Fake('cpu'))
    wait_until(lambda: engine.device == 'usb:0')

    bench.devices[0].fault = 'usb:0: died.'

    wait_until(lambda: engine.status.restarts == 1)
    assert engine.status.last_fault == 'usb:0: died.'
    assert bench.devices[0].closed == 1


def test_distrusted_device_is_closed_and_not_used(supervised):
    bench = Bench()
    verdicts = ['its labels differ', 'its labels differ', '']
    engine = supervised(bench, Fake('cpu'), lambda device: verdicts.pop(0))

    wait_until(lambda: engine.device == 'usb:0')

    assert [device.closed for device in bench.devices] == [1, 1, 0]
    assert texts(engine.take_events())[0].startswith('usb:0: its labels differ. Device cpu')


def test_device_that_fails_its_check_is_closed(supervised):
    bench = Bench()
    verdicts = [DeviceError('usb:0: broke.'), None]

    def check(device):
        if verdict := verdicts.pop(0):
            raise verdict
        return ''

    engine = supervised(bench, Fake('cpu'), check)

    wait_until(lambda: engine.device == 'usb:0')
    assert [device.closed for device in bench.devices] == [1, 0]


@pytest.mark.parametrize('where', ['opening', 'check'])
def test_a_fault_of_another_kind_passes_too(supervised, where):
    """No memory, no file descriptors: the thread that brings the device back goes on."""
    faults = [MemoryError('no room'), MemoryError('no room'), None]

    def check(device):
        if where == 'check' and (fault := faults.pop(0)):
            raise fault
        return ''

    bench = Bench(*(faults if where == 'opening' else ()))
    engine = supervised(bench, Fake('cpu'), check)

    wait_until(lambda: engine.device == 'usb:0')
    assert [device.closed for device in bench.devices] == ([1, 1, 0] if where == 'check' else [0])
    assert texts(engine.take_events()) == [
        'usb: MemoryError: no room. Device cpu serves until that is mended.',
        'usb:0 is in service.']


def test_deadline_leaves_time_for_the_fallback(supervised):
    bench = Bench()
    engine = supervised(bench, Fake('cpu'), timeout_s=2.0, reserve_s=0.3)
    wait_until(lambda: engine.device == 'usb:0')
    assert bench.devices[0].timeout_s == pytest.approx(1.7)

    engine.timeout_s = 0.4

    assert bench.devices[0].timeout_s == pytest.approx(0.2)  # no less than half
    bench.devices[0].error = DeviceError('usb:0: broke.')
    engine.run(IMAGE)
    wait_until(lambda: engine.status.restarts == 1)
    assert bench.devices[1].timeout_s == pytest.approx(0.2)


def test_close_gives_everything_back_and_joins(supervised):
    bench, cpu = Bench(), Fake('cpu')
    engine = supervised(bench, cpu)
    wait_until(lambda: engine.device == 'usb:0')

    engine.close()

    assert (bench.devices[0].closed, cpu.closed) == (1, 1)
    assert not [thread for thread in threading.enumerate() if 'supervisor' in thread.name]
    with pytest.raises(DeviceLostError, match='usb: the engine is closed'):
        engine.run(IMAGE)


def test_close_does_not_wait_for_an_opening(supervised):
    def open_device(stop):
        assert stop.wait(20)
        raise DeviceError('usb: stopped.')

    engine = supervised(open_device, Fake('cpu'))
    started = time.monotonic()

    engine.close()

    assert time.monotonic() - started < 2
    assert engine.take_events() == []


def test_device_opened_while_closing_is_closed(supervised):
    opened = Fake()

    def open_device(stop):
        stop.wait(20)
        return opened

    supervised(open_device, Fake('cpu')).close()

    assert opened.closed == 1


# -- without one -----------------------------------------------------------------------------


def test_without_a_fallback_opening_is_waited_for(supervised):
    engine = supervised(Bench())

    assert (engine.device, answer(engine)) == ('usb:0', len('usb:0'))
    assert engine.input is Fake.input
    assert engine.output is Fake.output


@pytest.mark.parametrize('fault', [DeviceError('usb: absent.'), ModelError('x: too new.')])
def test_without_a_fallback_a_refusal_is_raised(fault):
    with pytest.raises(type(fault), match=str(fault)):
        SupervisedEngine('usb', Bench(fault))


def test_without_a_fallback_distrust_is_raised():
    bench = Bench()
    with pytest.raises(DeviceError, match=r'^usb:0: its labels differ\.$'):
        SupervisedEngine('usb', bench, None, lambda device: 'its labels differ')

    assert bench.devices[0].closed == 1


def test_without_a_fallback_frames_are_lost_until_it_is_back(supervised):
    bench = Bench(None, DeviceError('usb: absent.'))
    engine = supervised(bench)
    bench.devices[0].error = DeviceError('usb:0: broke.')
    engine.take_events()

    with pytest.raises(DeviceLostError, match=r'^usb is away: usb:0: broke\.'):
        engine.run(IMAGE)

    wait_until(lambda: engine.device == 'usb:0')
    assert answer(engine) == len('usb:0')
    assert [(event.level, event.text) for event in engine.take_events()] == [
        (Level.ERROR, 'usb:0: broke. Frames are lost until that is mended.'),
        (Level.ERROR, 'usb: absent. Frames are lost until that is mended.'),
        (Level.OK, 'usb:0 is in service again.')]


def test_without_a_fallback_frames_meet_a_device_that_is_away(supervised, monkeypatch):
    monkeypatch.setattr(supervisor, 'BACKOFF_S', (60.0, 60.0))
    bench = Bench()
    engine = supervised(bench)
    bench.devices[0].error = DeviceError('usb:0: broke.')

    for _ in range(2):
        with pytest.raises(DeviceLostError, match='usb is away: usb:0: broke'):
            engine.run(IMAGE)
    assert engine.device == 'none'


# -- the golden frame ------------------------------------------------------------------------


def test_golden_frame_is_always_the_same():
    frame = golden_frame((256, 512))

    assert frame.shape == (256, 512, 3)
    np.testing.assert_array_equal(frame, golden_frame((256, 512)))
    for quarter in (frame[:128, :256], frame[:128, 256:], frame[128:, :256], frame[128:, 256:]):
        assert quarter.std() > 10


@pytest.mark.parametrize(('row', 'column', 'quarter'), [
    (0, 0, 0), (0, 6, 1), (4, 0, 2), (4, 6, 3)])
def test_agreement_is_by_quarter(row, column, quarter):
    first = np.zeros((5, 7), np.uint8)
    second = first.copy()
    second[row, column] = 1

    shares = quarter_agreement(first, second)

    assert [share < 1 for share in shares] == [index == quarter for index in range(4)]


class Large(Fake):
    """An engine with 400 pixels in each quarter of the image."""

    input = TensorSpec('image', (1, 40, 40, 3), np.dtype(np.uint8), 1 / 255, 0)


def check_of(wrong_pixels):
    """Return what the check says of a device with wrong labels in the upper left quarter."""
    def labels_of(engine, frame):
        labels = (frame[..., 0] > 128).astype(np.uint8)
        if engine is device:
            labels[np.divmod(np.arange(wrong_pixels), 20)] ^= 1
        return labels

    device = Large()
    return TrustCheck(Large('cpu'), labels_of)(device)


def test_few_pixels_may_differ_in_each_quarter_but_not_more():
    assert check_of(0) == check_of(8) == ''
    assert check_of(9) == (
        "its labels of the golden frame differ from the CPU's: equal in top left 97.8%, top right "
        '100.0%, bottom left 100.0%, bottom right 100.0%, expected 98% (see '
        'google-coral/edgetpu#377); compile the CPU model again, or another input size')


# -- Segmenter -------------------------------------------------------------------------------


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    with StandIn(TOY.save(tmp_path), monkeypatch) as device:
        yield device


@pytest.fixture
def load(stand_in):
    """Give ``Segmenter.load`` for the stand-in's model; what a test loads is closed after it."""
    loaded = []

    def load_segmenter(model=None, **kwargs):
        loaded.append(Segmenter.load(model or stand_in.model, num_threads=1, **kwargs))
        return loaded[-1]

    yield load_segmenter
    for segmenter in loaded:
        segmenter.close()


def frame(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*TOY.input_hw, 3), np.uint8)


def in_service(segmenter):
    wait_until(lambda: segmenter.device_status.device == 'usb:0')
    return segmenter


def expected(rgb):
    """Return the labels that a toy's frame must have, whoever computes them."""
    toy = Segmenter.load(expected.model, device='cpu', num_threads=1)
    return toy.segment(rgb).labels


@pytest.fixture(autouse=True)
def remember_model(tmp_path):
    expected.model = tmp_path / 'toy.tflite'


def serves_right(segmenter, seed=0):
    np.testing.assert_array_equal(
        segmenter.segment(frame(seed)).labels, expected(frame(seed)))


def test_auto_serves_at_once_and_moves_to_the_edgetpu(stand_in, load):
    segmenter = load()

    assert segmenter.device_status == DeviceStatus('cpu')
    serves_right(segmenter)
    in_service(segmenter)
    assert stand_in.served == 1  # the golden frame
    serves_right(segmenter)
    assert stand_in.served == 2
    assert texts(segmenter.take_events()) == ['usb:0 is in service.']


def test_auto_without_a_compiled_model_says_why_it_is_the_cpu(stand_in, load):
    stand_in.compiled.unlink()
    segmenter = load()

    assert segmenter.device_status == DeviceStatus('cpu')
    assert texts(segmenter.take_events()) == [
        f'the CPU runs the model: {stand_in.compiled} is not there.']
    assert segmenter.take_events() == []
    assert stand_in.opened == []


def test_cpu_needs_no_words(load):
    segmenter = load(device='cpu')

    assert segmenter.device_status == DeviceStatus('cpu')
    assert segmenter.take_events() == []


@pytest.mark.parametrize('isolation', ['auto', 'none'])
@pytest.mark.parametrize('given', ['model', 'compiled'])
def test_explicit_device_runs_the_compiled_model(stand_in, load, given, isolation):
    segmenter = load(
        getattr(stand_in, given), device='usb', isolation=isolation,
        edgetpu_library=str(stand_in.library))

    assert segmenter.device_status.device == 'usb:0'
    assert stand_in.served == 1
    serves_right(segmenter)


def test_auto_with_the_compiled_model_alone_is_not_checked_and_says_so(stand_in, load):
    kept = shutil.copy(stand_in.model, stand_in.model.with_name('kept.tflite'))
    shutil.copy(stand_in.model.with_suffix('.json'), Path(kept).with_suffix('.json'))
    expected.model = kept
    stand_in.model.unlink()

    segmenter = load(stand_in.compiled)

    serves_right(segmenter)
    assert texts(segmenter.take_events()) == [
        f'usb:0 is not checked against the CPU: {stand_in.model} is not there.',
        'usb:0 is in service.']


def test_auto_with_the_compiled_model_alone_and_no_edgetpu_says_what_is_missing(stand_in, load):
    stand_in.model.unlink()
    stand_in.behave('usb=0')

    with pytest.raises(DeviceError, match=f'no such EdgeTPU is plugged in.* The CPU cannot stand '
                                          f'in: {stand_in.model} is not there'):
        load(stand_in.compiled)


def test_explicit_device_without_a_compiled_model_is_refused(stand_in, load):
    stand_in.compiled.unlink()

    with pytest.raises(ModelError, match='not compiled for the EdgeTPU, but the device is usb, '
                                         'and toy_edgetpu.tflite is not beside it; compile it'):
        load(device='usb')


def test_isolation_of_the_cpu(load):
    segmenter = load(device='cpu', isolation='process')

    serves_right(segmenter)
    assert segmenter.device_status == DeviceStatus('cpu')


@pytest.mark.parametrize(('options', 'error', 'message'), [
    ({'isolation': 'thread'}, SettingsError, "isolation: found 'thread', expected one of auto, "),
    ({'num_threads': 65}, SettingsError, 'num_threads: found 65, expected 0 to 64'),
    ({'inference_timeout_s': 0}, SettingsError, 'inference_timeout_s: found 0, expected 0.05'),
    ({'device_open_timeout_s': 0}, SettingsError, 'device_open_timeout_s: found 0, expected 1'),
    ({'device': 'gpu'}, DeviceError, "device: found 'gpu', expected auto, cpu, usb"),
])
def test_wrong_settings_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        Segmenter.load(**options)


def test_another_model_under_the_same_name_is_not_served(stand_in, load, tmp_path):
    """Neither one of another input size, which nobody would feed, nor one of the same."""
    segmenter = load(device='cpu', isolation='process')
    (tmp_path / 'other').mkdir()
    other = Toy(weights=((0, 0, 0), (1, 1, -1)), bias=(1, 2)).save(tmp_path / 'other')
    shutil.copy(stand_in.model, tmp_path / 'first')
    other.replace(stand_in.model)

    def refused():
        return 'found another model than the one that was opened first' in (
            segmenter.device_status.problem)

    [child] = (int(each) for each in children())
    os.kill(child, signal.SIGKILL)
    wait_until(refused)
    with pytest.raises(DeviceLostError):
        segmenter.segment(frame())
    (tmp_path / 'first').replace(stand_in.model)
    wait_until(lambda: segmenter.device_status.device == 'cpu')
    serves_right(segmenter)


def test_auto_without_isolation_returns_too(stand_in, load):
    segmenter = in_service(load(isolation='none', edgetpu_library=str(stand_in.library)))
    stand_in.behave('fail')

    serves_right(segmenter)

    assert segmenter.device_status.device == 'cpu'
    stand_in.behave('')
    serves_right(in_service(segmenter))


def test_isolated_cpu_stands_in_and_comes_back_too(stand_in, load):
    segmenter = in_service(load(isolation='process'))
    segmenter.set_inference_timeout(20.0)
    cpu, _ = (int(child) for child in children())
    assert texts(segmenter.take_events()) == ['usb:0 is in service.', 'cpu is in service.']
    stand_in.behave('usb=0')

    serves_right(segmenter)
    os.kill(cpu, signal.SIGKILL)
    told = []

    def back():
        told.extend(texts(segmenter.take_events()))
        return 'cpu is in service again.' in told

    wait_until(back)
    assert any('SIGKILL' in text for text in told)

    serves_right(segmenter, 1)


def children():
    """Return the process ids of our children."""
    return [word for task in Path('/proc/self/task').iterdir()
            for word in (task / 'children').read_text().split()]


#: For a busy machine; without a deadline a hang would last for ever.
SLACK_S = 3.0

#: Behaviour, what the fault says, seconds that the frame may take beyond the CPU's.
FAULTS = (
    ('fail', 'usb:0: inference failed: Failed to execute request', 5.0),
    ('abort', r'ended while inferring \(SIGABRT\); it said: F driver/usb', 5.0),
    ('usb=0', r'ended while inferring \(SIGABRT\); it said: F driver/usb', 5.0),
    ('hang', r'still inferring after \d+\.\d s: the device hangs', 1.0),
)


@pytest.mark.parametrize(('words', 'fault', 'limit_s'), FAULTS, ids=[f[0] for f in FAULTS])
def test_auto_loses_no_frame_and_returns(stand_in, load, words, fault, limit_s):
    segmenter = in_service(load(inference_timeout_s=1.0 if words == 'hang' else 20.0))
    segmenter.take_events()
    stand_in.behave(words)
    started = time.monotonic()

    serves_right(segmenter)

    assert time.monotonic() - started < limit_s + SLACK_S
    status = segmenter.device_status
    assert status.device == 'cpu'
    assert status.problem == status.last_fault
    (lost,) = segmenter.take_events()
    assert (lost.level, lost.text) == (
        Level.WARN, f'{status.problem} Device cpu serves until that is mended.')
    assert re.search(fault, status.problem)
    serves_right(segmenter, 1)
    stand_in.behave('')
    in_service(segmenter)
    assert segmenter.device_status.restarts == 1
    serves_right(segmenter, 2)
    assert texts(segmenter.take_events())[-1] == 'usb:0 is in service again.'


@pytest.mark.parametrize(('words', 'fault', 'limit_s'), FAULTS, ids=[f[0] for f in FAULTS])
def test_explicit_device_reports_lost_frames_and_returns(
        stand_in, load, words, fault, limit_s):
    segmenter = load(device='usb', inference_timeout_s=0.5 if words == 'hang' else 20.0)
    segmenter.take_events()
    stand_in.behave(words)
    started = time.monotonic()

    with pytest.raises(DeviceLostError, match=f'usb is away: .*{fault}'):
        segmenter.segment(frame())

    assert time.monotonic() - started < limit_s + SLACK_S
    assert segmenter.device_status.device == 'none'
    (lost,) = segmenter.take_events()
    assert lost.level == Level.ERROR
    stand_in.behave('')
    in_service(segmenter)
    serves_right(segmenter, 2)


@pytest.mark.parametrize(('words', 'why'), [
    ('usb=0', r'^auto: no such EdgeTPU is plugged in \(found: none\)'),
    ('busy', '^auto: usb:0 is plugged in but did not open: another program has it'),
    ('old', 'compiled for a newer libedgetpu: .*requires runtime version'),
    ('abort_open', r'ended while opening \(SIGABRT\)'),
    ('abort_list', r'ended while opening \(SIGABRT\)'),
    ('fail', 'usb:0: inference failed: Failed to execute request'),
    ('abort', r'ended while inferring \(SIGABRT\)'),
    ('left', 'usb:0: its labels of the golden frame differ .*#377'),
    ('top', 'usb:0: its labels of the golden frame differ .*#377'),
])
def test_auto_says_why_it_is_not_the_edgetpu(stand_in, load, words, why):
    stand_in.behave(words)
    segmenter = load()

    wait_until(lambda: segmenter.device_status.problem)

    assert re.search(why, segmenter.device_status.problem)
    serves_right(segmenter)
    (told,) = segmenter.take_events()
    assert told.level == Level.WARN
    assert '\n' not in told.text
    stand_in.behave('')
    serves_right(in_service(segmenter))


def test_auto_serves_while_opening_hangs(stand_in, load):
    stand_in.behave('hang_open')
    segmenter = load(device_open_timeout_s=1)

    serves_right(segmenter)
    wait_until(lambda: segmenter.device_status.problem)

    assert segmenter.device_status.problem.startswith(
        'auto: still opening after 1.0 s: the device hangs')


def test_missing_library_is_the_cause(stand_in, load):
    segmenter = load(edgetpu_library='libnothing.so.1')

    wait_until(lambda: segmenter.device_status.problem)

    assert 'libedgetpu cannot be loaded' in segmenter.device_status.problem
    with pytest.raises(DeviceError, match='^usb:0: libedgetpu cannot be loaded .*; install lib'):
        load(device='usb:0', edgetpu_library='libnothing.so.1')


@pytest.mark.parametrize(('words', 'error', 'why'), [
    ('usb=0', DeviceError, '^usb:0: no such EdgeTPU is plugged in'),
    ('busy', DeviceError, '^usb:0: usb:0 is plugged in but did not open'),
    ('old', ModelError, 'compiled for a newer libedgetpu'),
    ('fail', DeviceError, 'usb:0: inference failed'),
    ('left', DeviceError, 'usb:0: its labels of the golden frame differ'),
    ('hang', DeviceError, 'usb:0: still inferring after 1.0 s'),
])
def test_explicit_device_that_does_not_serve_is_refused(
        stand_in, load, monkeypatch, words, error, why):
    if words == 'hang':
        monkeypatch.setattr('bisenet_ros.core.engines.FIRST_RUN_S', 1.0)
    stand_in.behave(words)

    with pytest.raises(error, match=why):
        load(device='usb:0')

    assert not [thread for thread in threading.enumerate() if 'supervisor' in thread.name]


def test_compiled_model_of_another_export_is_refused(stand_in, load, tmp_path):
    (tmp_path / 'other').mkdir()
    other = Toy(scale=0.25).save(tmp_path / 'other')
    compiled_twin(other, stand_in.compiled)

    segmenter = load()
    wait_until(lambda: segmenter.device_status.problem)

    assert ("the compiled model's output is int8[1, 4, 8, 2] scale 0.25 zero 19, the CPU model's "
            'int8[1, 4, 8, 2] scale 0.125 zero 19') in segmenter.device_status.problem
    with pytest.raises(DeviceError, match='not from the same export; compile the CPU model again'):
        load(device='usb')


def test_compiled_model_with_another_hash_is_refused(stand_in, load, tmp_path):
    TOY.save(tmp_path, edgetpu_sha256='0' * 64)

    segmenter = load()
    wait_until(lambda: segmenter.device_status.problem)

    assert 'toy_edgetpu.tflite: its sha256 is' in segmenter.device_status.problem
    with pytest.raises(ModelError, match='toy_edgetpu.tflite: its sha256 is'):
        load(device='usb')


def test_settings_error_leaves_no_process_behind(load):
    with pytest.raises(SettingsError, match='mask_classes'):
        load(settings=Settings(mask_classes=('sea',)))

    assert not [thread for thread in threading.enumerate() if 'supervisor' in thread.name]


def test_shipped_model_passes_its_own_check(tmp_path, monkeypatch):
    model = tmp_path / SHIPPED_MODEL.name
    shutil.copy(SHIPPED_MODEL, model)
    shutil.copy(SHIPPED_MODEL.with_suffix('.json'), model.with_suffix('.json'))
    with StandIn(model, monkeypatch) as stand_in:
        segmenter = Segmenter.load(model, device='usb', num_threads=1)
        assert segmenter.device_status.device == 'usb:0'
        segmenter.close()
        for words in ('left', 'top'):
            stand_in.behave(words)
            with pytest.raises(DeviceError, match='golden frame differ'):
                Segmenter.load(model, device='usb', num_threads=1)
