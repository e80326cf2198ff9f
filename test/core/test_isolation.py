"""An EdgeTPU in a child process, with the stand-in for libedgetpu: every way it can fail."""

import contextlib
import errno
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from standin import StandIn, wait_until
from tflite_models import Toy

from bisenet_ros.core.engine import LiteRtEngine, find_runtime
from bisenet_ros.core.errors import DeviceError, ModelError
from bisenet_ros.core.isolation import IsolatedEngine, check_in_child

ROOT = str(Path(__file__).resolve().parents[2])

TOY = Toy()

#: For a busy machine; without a deadline these would wait for ever.
SLACK_S = 3.0

USB_ERROR = 'HandleQueuedBulkIn transfer in failed.*USB transfer error 1'


@pytest.fixture
def toy(tmp_path):
    return TOY.save(tmp_path)


@pytest.fixture
def stand_in(toy, monkeypatch):
    with StandIn(toy, monkeypatch) as device:
        yield device


@pytest.fixture
def opened():
    """Give ``IsolatedEngine``; what a test opens is closed after it."""
    engines = []

    def open_engine(*args, **kwargs):
        engines.append(IsolatedEngine(*args, **kwargs))
        return engines[-1]

    yield open_engine
    for engine in engines:
        engine.close()


def image(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*TOY.input_hw, 3), np.uint8)


def gone(pid):
    """Tell whether a process is over; a zombie is not."""
    return not Path(f'/proc/{pid}').exists()


def alive(pid):
    """Tell whether a process runs; a zombie does not."""
    return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'


def open_files():
    """Return numbers and targets of what is open, without what lists them."""
    found = {}
    for path in list(Path('/proc/self/fd').iterdir()):
        with contextlib.suppress(FileNotFoundError):
            found[path.name] = str(path.readlink())
    return found


# -- it works --------------------------------------------------------------------------------


def test_results_are_those_of_this_process(toy, opened):
    engine, here = opened(toy), LiteRtEngine(toy)

    assert (engine.device, engine.input, engine.output) == ('cpu', here.input, here.output)
    assert engine.runtime == here.runtime
    for seed in range(3):
        np.testing.assert_array_equal(engine.run(image(seed)), here.run(image(seed)))


def test_results_are_copies(toy, opened):
    engine = opened(toy)
    first = engine.run(image(0))
    kept = first.copy()

    engine.run(image(1))

    np.testing.assert_array_equal(first, kept)


def test_any_strides_are_taken(toy, opened):
    bgr = image()[..., ::-1]

    np.testing.assert_array_equal(opened(toy).run(bgr), TOY.output(bgr))


def test_the_edgetpu_computes(stand_in, opened):
    engine = opened(stand_in.compiled, device='usb')

    np.testing.assert_array_equal(engine.run(image()), TOY.output(image()))
    assert engine.device == 'usb:0'
    assert stand_in.served == 1


@pytest.mark.parametrize(('asked', 'plugged', 'got'), [
    ('auto', 'usb=2', 'usb:0'), ('auto', 'usb=1 pci=1', 'pci:0'), ('usb', 'usb=1 pci=1', 'usb:0'),
    ('usb:1', 'usb=2', 'usb:1'), ('pci:1', 'pci=2', 'pci:1')])
def test_device_is_found_and_named_with_its_index(stand_in, opened, asked, plugged, got):
    stand_in.behave(plugged)

    assert opened(stand_in.compiled, device=asked).device == got
    assert stand_in.opened == [{'device': got}]


def test_a_device_that_another_has_is_passed_over(stand_in, opened):
    stand_in.behave('usb=2')

    assert opened(stand_in.compiled, device='usb').device == 'usb:0'
    assert opened(stand_in.compiled, device='usb').device == 'usb:1'
    with pytest.raises(DeviceError, match='usb:0, usb:1 is plugged in but did not open: another'):
        opened(stand_in.compiled, device='usb')


def test_options_reach_libedgetpu_and_so_does_an_index(stand_in, opened):
    # Without an index libedgetpu drops every other option.
    options = {'Performance': 'Low', 'Usb.AlwaysDfu': 'True'}

    opened(stand_in.compiled, device='usb', options=options)

    assert stand_in.opened == [{'device': 'usb:0', **options}]


# -- it does not open ------------------------------------------------------------------------


@pytest.mark.parametrize(('words', 'device', 'message'), [
    ('busy', 'usb', '^usb: usb:0 is plugged in but did not open: another program has it'),
    ('usb=0', 'usb', r'^usb: no such EdgeTPU is plugged in \(found: none\); plug it in'),
    ('usb=0 pci=1', 'usb', r'no such EdgeTPU is plugged in \(found: pci:0\)'),
    ('usb=1', 'usb:3', r'^usb:3: no such EdgeTPU is plugged in \(found: usb:0\)'),
    ('usb=0', 'auto', r'^auto: no such EdgeTPU is plugged in \(found: none\)'),
    ('abort_open', 'usb',
     f'^usb: the inference process ended while opening .SIGABRT.*{USB_ERROR}'),
])
def test_refusal_is_one_line_with_cause_and_remedy(stand_in, opened, words, device, message):
    stand_in.behave(words)

    with pytest.raises(DeviceError, match=message) as caught:
        opened(stand_in.compiled, device=device)

    assert '\n' not in str(caught.value)


def test_old_runtime_is_a_matter_of_the_model(stand_in, opened):
    stand_in.behave('old')

    with pytest.raises(ModelError, match=r'usb:0: compiled for a newer libedgetpu: .*requires '
                                         r'runtime version \(14\).*Install a newer libedgetpu'):
        opened(stand_in.compiled, device='usb')


def test_wrong_option_is_named(stand_in, opened):
    stand_in.behave('busy')  # as libedgetpu answers to an option that it does not know

    with pytest.raises(DeviceError, match=r"or libedgetpu does not know the options \{'Speed'"):
        opened(stand_in.compiled, device='usb', options={'Speed': '9'})


def test_missing_library_says_what_to_install(toy, stand_in, opened):
    with pytest.raises(DeviceError, match='^usb: libedgetpu cannot be loaded .*cannot open shared '
                                          'object file.*; install libedgetpu'):
        opened(stand_in.compiled, device='usb', library='libnothing.so.1')


def test_other_library_is_no_libedgetpu(stand_in, opened):
    with pytest.raises(DeviceError, match=r'libm\.so\.6 is no libedgetpu'):
        opened(stand_in.compiled, device='usb', library='libm.so.6')


def test_opening_that_hangs_ends_at_its_deadline(stand_in, opened):
    # libedgetpu is entered with Python's lock held: nothing in the child could end this.
    stand_in.behave('hang_open')
    started = time.monotonic()

    with pytest.raises(DeviceError, match=r'^usb: still opening after 4\.0 s: the device hangs'):
        opened(stand_in.compiled, device='usb', open_timeout_s=4)

    assert time.monotonic() - started < 4 + SLACK_S


def test_opening_can_be_stopped(stand_in, opened):
    stand_in.behave('hang_open')
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    started = time.monotonic()

    with pytest.raises(DeviceError, match='^usb: stopped while opening'):
        opened(stand_in.compiled, device='usb', stop=stop)

    assert time.monotonic() - started < 0.5 + SLACK_S


def test_files_that_are_no_models_start_no_process(tmp_path):
    (tmp_path / 'x.tflite').write_bytes(b'nothing')

    with pytest.raises(ModelError, match='not a TFLite model'):
        IsolatedEngine(tmp_path / 'x.tflite')


def test_errors_of_the_model_come_through(stand_in, opened):
    with pytest.raises(ModelError, match='compiled for the EdgeTPU, but the device is the CPU'):
        opened(stand_in.compiled)
    with pytest.raises(ModelError, match='not compiled for the EdgeTPU, but the device is usb'):
        opened(stand_in.model, device='usb')


def test_unknown_device_is_refused(toy):
    with pytest.raises(DeviceError, match="device: found 'gpu', expected auto, cpu, usb"):
        IsolatedEngine(toy, device='gpu')


# -- it fails while it works -----------------------------------------------------------------


def test_failed_invoke_is_reported_and_the_process_lives(stand_in, opened):
    engine = opened(stand_in.compiled, device='usb')
    stand_in.behave('fail')

    with pytest.raises(DeviceError, match='usb:0: inference failed: Failed to execute request'):
        engine.run(image())

    stand_in.behave('')
    assert engine.fault == ''
    np.testing.assert_array_equal(engine.run(image()), TOY.output(image()))


def test_abort_is_noticed_at_once_with_its_last_words(stand_in, opened):
    engine = opened(stand_in.compiled, device='usb', timeout_s=60)
    stand_in.behave('abort')
    started = time.monotonic()

    with pytest.raises(DeviceError, match=f'^usb:0: the inference process ended while inferring '
                                          fr'\(SIGABRT\); it said: F driver.*{USB_ERROR}'):
        engine.run(image())

    assert time.monotonic() - started < 5
    assert 'ended while inferring (SIGABRT)' in engine.fault
    with pytest.raises(DeviceError, match='SIGABRT'):
        engine.run(image())


def test_unplugging_is_an_abort(stand_in, opened):
    engine = opened(stand_in.compiled, device='usb')
    stand_in.behave('usb=0')

    with pytest.raises(DeviceError, match='SIGABRT'):
        engine.run(image())


def test_hang_ends_at_the_deadline(stand_in, opened):
    engine = opened(stand_in.compiled, device='usb')
    engine.run(image())
    engine.timeout_s = 0.3
    stand_in.behave('hang')
    started = time.monotonic()

    with pytest.raises(DeviceError, match=r'^usb:0: still inferring after 0\.3 s: the device h'):
        engine.run(image())

    assert 0.3 <= time.monotonic() - started < 0.3 + SLACK_S
    assert 'the device hangs' in engine.fault
    wait_until(lambda: not alive(engine.pid))
    stand_in.behave('')
    with pytest.raises(DeviceError, match='the device hangs'):
        engine.run(image())


def test_interrupted_run_leaves_no_answer_for_the_next(toy, opened, monkeypatch):
    engine = opened(toy)
    with monkeypatch.context() as patch:
        patch.setattr(engine, '_receive', lambda deadline_s: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            engine.run(image())

    with pytest.raises(DeviceError, match='cpu: interrupted while inferring'):
        engine.run(image())


def test_process_killed_while_idle_is_a_fault(toy, opened):
    engine = opened(toy)
    os.kill(engine.pid, signal.SIGKILL)

    wait_until(lambda: engine.fault)

    assert engine.fault == 'cpu: the inference process ended while waiting (SIGKILL).'


def test_wrong_image_is_refused_and_nothing_is_lost(toy, opened):
    engine = opened(toy)

    with pytest.raises(ValueError, match='broadcast'):
        engine.run(np.zeros((1, 2, 3), np.uint8))

    np.testing.assert_array_equal(engine.run(image()), TOY.output(image()))


# -- it ends ---------------------------------------------------------------------------------


def test_close_leaves_nothing(toy):
    before = open_files()
    engine = IsolatedEngine(toy)
    pid = engine.pid

    engine.close()
    engine.close()

    assert gone(pid)
    assert open_files() == before
    assert engine.fault == 'cpu: the engine is closed.'
    with pytest.raises(DeviceError, match='closed'):
        engine.run(image())


def test_failed_opening_leaves_nothing(stand_in):
    before = open_files()
    stand_in.behave('busy')
    with pytest.raises(DeviceError, match='did not open'):
        IsolatedEngine(stand_in.compiled, device='usb')

    assert open_files() == before


@pytest.mark.parametrize('place', range(5))
def test_without_file_descriptors_it_is_a_device_error_and_leaves_nothing(
    toy, monkeypatch, place,
):
    before, left = open_files(), iter(range(place))

    def limited(function):
        def call(*args, **kwargs):
            if next(left, None) is None:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return function(*args, **kwargs)
        return call

    for module, name in ((socket, 'socketpair'), (os, 'memfd_create'), (os, 'pipe'),
                         (subprocess, 'Popen')):
        monkeypatch.setattr(module, name, limited(getattr(module, name)))
    with pytest.raises(DeviceError, match=r'^cpu: .* cannot be started: .*Too many open files'):
        IsolatedEngine(toy)

    assert open_files() == before


def test_closing_gives_the_device_back(stand_in, opened):
    for _ in range(2):
        engine = opened(stand_in.compiled, device='usb:0')
        engine.run(image())
        engine.close()


def test_close_ends_a_run_that_hangs(stand_in, opened):
    engine = opened(stand_in.compiled, device='usb', timeout_s=60)
    stand_in.behave('hang')
    timer = threading.Timer(0.3, engine.close)
    timer.start()
    started = time.monotonic()

    with pytest.raises(DeviceError, match='SIGKILL'):
        engine.run(image())

    timer.join()
    assert time.monotonic() - started < 3
    assert gone(engine.pid)


def test_forgotten_engine_takes_its_process_along(toy):
    engine = IsolatedEngine(toy)
    pid = engine.pid

    del engine
    gc.collect()

    assert gone(pid)


@pytest.mark.parametrize('words', ['', 'hang', 'hang_open'])
def test_child_ends_with_a_killed_parent(stand_in, tmp_path, words):
    # While opening, libedgetpu is entered with Python's lock held: no thread could end the child.
    stand_in.behave(words)
    script = tmp_path / 'parent.py'
    script.write_text(f'''
import sys
from pathlib import Path
import numpy as np
from bisenet_ros.core import isolation

class Engine(isolation.IsolatedEngine):
    def _start(self):
        super()._start()
        print(self.pid, flush=True)

engine = Engine(Path({str(stand_in.compiled)!r}), device='usb', timeout_s=60)
print('opened', flush=True)
engine.run(np.zeros(engine.input.shape[1:], np.uint8))
print('done', flush=True)
sys.stdin.read()
''')
    parent = subprocess.Popen(
        [sys.executable, script], env={**os.environ, 'PYTHONPATH': ROOT}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with parent:
        child = int(parent.stdout.readline())
        if words != 'hang_open':
            assert parent.stdout.readline() == 'opened\n'
        if not words:
            assert parent.stdout.readline() == 'done\n'
        else:
            wait_until(lambda: stand_in.hangs)
        parent.kill()

    wait_until(lambda: gone(child), 5)


def test_ctrl_c_is_the_parents_business(toy, opened):
    engine = opened(toy)

    os.kill(engine.pid, signal.SIGINT)

    np.testing.assert_array_equal(engine.run(image()), TOY.output(image()))


def test_child_is_in_no_terminals_process_group(toy, opened):
    engine = opened(toy)

    assert os.getpgid(engine.pid) == os.getsid(engine.pid) == engine.pid


def test_child_imports_neither_the_parents_script_nor_from_the_working_directory(toy, tmp_path):
    script = tmp_path / 'user.py'
    script.write_text(f'''
from pathlib import Path
from bisenet_ros.core.isolation import IsolatedEngine
print('imported')
IsolatedEngine(Path({str(toy)!r})).close()
''')
    elsewhere = tmp_path / 'elsewhere'
    elsewhere.mkdir()
    (elsewhere / 'json.py').write_text('raise SystemExit("the wrong json")')

    done = subprocess.run(
        [sys.executable, script], cwd=elsewhere, env={**os.environ, 'PYTHONPATH': ROOT},
        capture_output=True, text=True, check=True)

    assert done.stdout == 'imported\n'
    assert done.stderr == ''


def test_chatty_library_does_not_block(toy, opened, monkeypatch):
    engine = opened(toy)
    # The child's output is a pipe that holds 64 KiB; it is read at every run.
    descriptor = os.open(f'/proc/{engine.pid}/fd/2', os.O_WRONLY)
    try:
        for _ in range(40):
            os.write(descriptor, b'x' * 4000 + b'\n')
            engine.run(image())
    finally:
        os.close(descriptor)


# -- in this process -------------------------------------------------------------------------


def in_process(stand_in, **kwargs):
    return LiteRtEngine(stand_in.compiled, library=str(stand_in.library), **kwargs)


def test_without_isolation_the_edgetpu_computes(stand_in):
    engine = in_process(stand_in, device='usb')

    np.testing.assert_array_equal(engine.run(image()), TOY.output(image()))
    assert engine.device == 'usb:0'
    engine.close()
    assert engine.fault == 'usb:0: the engine is closed.'


def test_without_isolation_failures_are_device_errors(stand_in):
    stand_in.behave('busy')
    with pytest.raises(DeviceError, match='usb:0 is plugged in but did not open'):
        in_process(stand_in, device='usb')
    stand_in.behave('old')
    with pytest.raises(ModelError, match='compiled for a newer libedgetpu'):
        in_process(stand_in, device='usb')
    gc.collect()  # of the failed interpreter, which has the device
    stand_in.behave('')
    engine = in_process(stand_in, device='usb')
    stand_in.behave('fail')
    with pytest.raises(DeviceError, match='usb:0: inference failed: Failed to execute request'):
        engine.run(image())


def test_garbage_looks_like_a_result(stand_in, opened):
    # Which is why there is a golden frame.
    engine = opened(stand_in.compiled, device='usb')
    stand_in.behave('left')
    found = engine.run(image())

    expected = TOY.output(image())
    np.testing.assert_array_equal(found[:, 4:], expected[:, 4:])
    assert (found[:, :4] != expected[:, :4]).mean() > 0.9


# -- a model that nobody vouches for ---------------------------------------------------------


@pytest.fixture
def runtime_of_children(monkeypatch, tmp_path):
    """Replace the runtime of child processes; this process has its own already."""
    assert find_runtime()

    def replace(code):
        package = tmp_path / 'runtime' / 'ai_edge_litert'
        package.mkdir(parents=True)
        (package / '__init__.py').touch()
        (package / 'interpreter.py').write_text(
            f'import os, time\ndef load_delegate(*args): pass\n'
            f'class Interpreter:\n    def __init__(self, **options): {code}\n')
        monkeypatch.syspath_prepend(tmp_path / 'runtime')

    return replace


def test_sound_model_passes(toy):
    check_in_child(toy)


@pytest.mark.parametrize(('code', 'how'), [
    ('os.abort()', r'the inference process ended while opening \(SIGABRT\)'),
    ('time.sleep(60)', r'still opening after 5\.0 s'),
])
def test_model_that_crashes_the_runtime_is_refused(toy, runtime_of_children, code, how):
    runtime_of_children(code)

    with pytest.raises(ModelError, match=(
            rf'toy\.tflite: .* cannot run it: cpu: {how}.* The file is damaged, or made for '
            'another runtime')):
        check_in_child(toy, timeout_s=5.0 if 'sleep' in code else 30.0)


def test_check_can_be_stopped(toy):
    stop = threading.Event()
    stop.set()

    with pytest.raises(DeviceError, match='^cpu: stopped while opening'):
        check_in_child(toy, stop=stop)


@pytest.mark.slow
def test_damaged_models_are_refused_or_run_and_never_crash_us(toy):
    data, rng = toy.read_bytes(), np.random.default_rng(0)
    refused = 0
    for number in range(12):
        damaged = bytearray(data)
        if number % 2:
            del damaged[int(rng.integers(8, len(data))):]
        else:
            damaged[int(rng.integers(8, len(data)))] ^= 1 << int(rng.integers(8))
        toy.write_bytes(damaged)
        try:
            check_in_child(toy)
        except ModelError:
            refused += 1
        else:
            LiteRtEngine(toy)
    assert refused >= 6  # the truncated ones
