"""One engine for several: fair turns, the newest frame in each, and an end that is one's own."""

from __future__ import annotations

import gc
import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from standin import StandIn, wait_until

import bisenet_ros.core.shared as shared_module
from bisenet_ros.core.engine import Engine, LiteRtEngine, TensorSpec, input_memory
from bisenet_ros.core.errors import DeviceError, DeviceLostError, ModelError
from bisenet_ros.core.segmenter import Segmenter, Settings
from bisenet_ros.core.shared import FRAMES_UNDER_WAY, EnginePool, EngineShare, Turns
from bisenet_ros.core.supervisor import SupervisedEngine
from bisenet_ros.core.worker import NewestWorker
from tflite_models import Toy

PATIENCE_S = 10.0

TOY = Toy()

IMAGE = np.zeros((32, 64, 3), np.uint8)


def in_thread(work: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def join(*threads: threading.Thread) -> None:
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


# -- turns ---------------------------------------------------------------------------------------


class Owner(str):
    """A name that can be referred to weakly."""


A, B, C, D, E = map(Owner, 'ABCDE')


def queue(turns: Turns, owner: object, admitted: list[object], waiting: int) -> threading.Thread:
    """Let an owner queue; return when so many wait."""
    thread = in_thread(lambda: admitted.append(owner) if turns.take(owner) else None)
    wait_until(lambda: len(turns._queue) == waiting)
    return thread


def test_places_go_to_those_who_ask_first() -> None:
    turns, admitted = Turns(2), list[object]()
    assert turns.take(A) and turns.take(B)
    threads = [queue(turns, owner, admitted, count) for count, owner in enumerate((C, D, E), 1)]
    for count, owner in enumerate((C, D, E), 1):
        turns.give_back()
        wait_until(lambda n=count: len(admitted) == n)
        assert admitted[-1] == owner
    join(*threads)


def test_a_place_given_back_is_for_the_next_who_asks() -> None:
    turns = Turns(1)
    for _ in range(3):
        assert turns.take(A)
        turns.give_back()


def test_who_is_dismissed_waits_no_more_and_gets_no_place() -> None:
    turns, admitted = Turns(1), list[object]()
    assert turns.take(A)
    threads = [queue(turns, owner, admitted, count) for count, owner in enumerate((B, C), 1)]
    turns.dismiss(B)
    join(threads[0])
    assert admitted == []
    turns.give_back()
    join(threads[1])
    assert admitted == [C]
    turns.give_back()
    assert not turns.take(B)


def test_who_was_dismissed_and_is_gone_is_forgotten() -> None:
    turns = Turns(1)
    for number in range(100):  # a camera that is configured again and again
        turns.dismiss(Owner(number))
    gc.collect()
    assert len(turns._dismissed) == 0


# -- a pool --------------------------------------------------------------------------------------


class Gate(LiteRtEngine):
    """An engine that stops in every run until it is let on, and says whose image it runs."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.entered: list[int] = []
        self.go = threading.Semaphore(0)
        self.open = True

    def run(self, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        self.entered.append(int(image[0, 0, 0]))
        assert self.go.acquire(timeout=PATIENCE_S)
        return super().run(image)

    def close(self) -> None:
        self.open = False
        super().close()


@pytest.fixture
def pool() -> Iterator[EnginePool]:
    pool = EnginePool()
    yield pool
    pool.close()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return TOY.save(tmp_path)


@pytest.fixture
def gates(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Gate]]:
    """Let every CPU engine be a gate; give those that were opened."""
    opened: list[Gate] = []

    def make(*args: Any, **kwargs: Any) -> Gate:
        opened.append(Gate(*args, **kwargs))
        return opened[-1]

    monkeypatch.setattr('bisenet_ros.core.engines.LiteRtEngine', make)
    yield opened
    for gate in opened:
        gate.go.release(1000)


def load(pool: EnginePool, model: Path, **options: Any) -> Segmenter:
    return Segmenter.load(model, device=options.pop('device', 'cpu'), opener=pool.open, **options)


def share_of(segmenter: Segmenter) -> EngineShare:
    assert isinstance(segmenter.engine, EngineShare)
    return segmenter.engine


def test_equal_ones_share_and_others_do_not(
    pool: EnginePool, model: Path, gates: list[Gate],
) -> None:
    first, second = load(pool, model), load(pool, model, inference_timeout_s=9.0)
    assert len(gates) == 1
    assert (share_of(first).sharers, share_of(second).sharers) == (2, 2)
    third = load(pool, model, num_threads=3)
    assert len(gates) == 2
    assert share_of(third).sharers == 1
    assert [event.text for event in second.take_events()] == [
        'the engine is shared with 1 more.']
    assert first.take_events() == third.take_events() == []
    assert first.device_status.device == second.engine.device == 'cpu'


def test_results_are_those_of_an_engine_alone(pool: EnginePool, model: Path) -> None:
    rng = np.random.default_rng(0)
    alone = Segmenter.load(model, device='cpu')
    sharing = [load(pool, model, settings=Settings(fit=fit)) for fit in ('stretch', 'crop')]
    for _ in range(3):
        rgb = rng.integers(0, 256, (40, 90, 3), np.uint8)
        for segmenter in sharing:
            alone.settings = segmenter.settings
            expected, found = alone.segment(rgb), segmenter.segment(rgb)
            np.testing.assert_array_equal(found.labels, expected.labels)
            np.testing.assert_array_equal(found.confidence, expected.confidence)


def test_no_memory_is_lent_that_another_may_be_writing_to(
    pool: EnginePool, model: Path,
) -> None:
    isolated = load(pool, model, isolation='process')
    assert input_memory(share_of(isolated)._shared.engine) is not None
    assert input_memory(isolated.engine) is None


def test_what_is_remembered_of_past_frames_is_each_ones_own(
    pool: EnginePool, model: Path,
) -> None:
    red, blue = np.uint8([[[255, 0, 0]]]), np.uint8([[[0, 0, 255]]])
    smooth = Settings(smoothing=0.95)
    first, second = (load(pool, model, settings=smooth) for _ in range(2))
    frames = [np.broadcast_to(color, (32, 64, 3)) for color in (red, blue)]
    first.segment(frames[0])
    assert not second.segment(frames[1]).labels.any()  # type: ignore[union-attr]
    assert first.segment(frames[1]).labels.all()  # type: ignore[union-attr]


def test_a_changed_file_is_another_model(pool: EnginePool, model: Path) -> None:
    first = load(pool, model)
    changed = Toy(bias=(0, 9))
    changed.save(model.parent)
    second = load(pool, model)
    assert share_of(second).sharers == 1
    np.testing.assert_array_equal(first.engine.run(IMAGE), TOY.output(IMAGE))
    np.testing.assert_array_equal(second.engine.run(IMAGE), changed.output(IMAGE))


def test_second_one_is_refused_what_does_not_fit_its_model(
    pool: EnginePool, model: Path, gates: list[Gate],
) -> None:
    model.with_suffix('.json').unlink()
    first = load(pool, model, class_names=['a', 'b'])
    with pytest.raises(ModelError, match='scores .* for the 3 class names given'):
        load(pool, model, class_names=['a', 'b', 'c'])
    assert (share_of(first).sharers, len(gates)) == (1, 1)
    assert gates[0].open


def test_engine_closes_behind_the_last_and_opens_anew(
    pool: EnginePool, model: Path, gates: list[Gate],
) -> None:
    first, second = load(pool, model), load(pool, model)
    first.close()
    first.close()
    assert gates[0].open
    with pytest.raises(DeviceLostError, match='cpu: this share of the engine is closed'):
        first.engine.run(IMAGE)
    gates[0].go.release()
    np.testing.assert_array_equal(second.engine.run(IMAGE), TOY.output(IMAGE))
    second.close()
    assert not gates[0].open
    third = load(pool, model)
    assert [gate.open for gate in gates] == [False, True]
    assert share_of(third).sharers == 1


def test_a_failed_opening_leaves_nothing_behind(pool: EnginePool, model: Path) -> None:
    contract = model.with_suffix('.json').read_text()
    TOY.save(model.parent, output_stride=4)
    with pytest.raises(ModelError, match='its contract says'):
        load(pool, model)
    model.with_suffix('.json').write_text(contract)
    assert share_of(load(pool, model)).sharers == 1


class Slow:
    """Engines of a device that take as long to open and to close as the test likes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened, self.closed = threading.Event(), threading.Event()
        self.opening, self.closing = threading.Event(), threading.Event()
        self.now = 0
        real = shared_module.open_engine
        slow = self

        class Engine(LiteRtEngine):
            def close(self) -> None:
                slow.closing.set()
                assert slow.closed.wait(PATIENCE_S)
                slow.now -= 1
                super().close()

        def open_engine(model: Any, placing: Any, stop: Any) -> tuple[Any, Any, list[Any]]:
            if placing.device == 'cpu':
                return real(model, placing, stop)
            self.opening.set()
            assert self.opened.wait(PATIENCE_S)
            self.now += 1
            assert self.now == 1, 'the device is open twice'
            return Engine(model.path, 1), TOY.contract(), []

        monkeypatch.setattr(shared_module, 'open_engine', open_engine)


def test_who_waits_for_a_device_holds_up_no_other(
    pool: EnginePool, model: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow = Slow(monkeypatch)
    first = load(pool, model)
    loaded: list[Segmenter] = []
    waits = in_thread(lambda: loaded.append(load(pool, model, device='usb')))
    assert slow.opening.wait(PATIENCE_S)
    others = [load(pool, model),  # shares what is open
              load(pool, model, num_threads=1)]  # opens another on the CPU
    assert share_of(first).sharers == 2
    for segmenter in (first, *others):  # the last of them closes an engine
        segmenter.close()
    assert load(pool, model) and not loaded
    slow.opened.set()
    join(waits)
    np.testing.assert_array_equal(loaded[0].engine.run(IMAGE), TOY.output(IMAGE))
    slow.closed.set()


def test_a_device_is_opened_when_it_was_closed(
    pool: EnginePool, model: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow = Slow(monkeypatch)
    slow.opened.set()
    first = load(pool, model, device='usb')
    closes = in_thread(first.close)
    assert slow.closing.wait(PATIENCE_S)
    loaded: list[Segmenter] = []
    # The same one, and what may come to mean the same one.
    same = in_thread(lambda: loaded.append(load(pool, model, device='usb')))
    stop = threading.Event()
    faults: list[Exception] = []

    def other() -> None:
        try:
            load(pool, model, device='usb:0', stop=stop)
        except DeviceError as error:
            faults.append(error)

    ends = in_thread(other)
    time.sleep(0.05)
    assert not loaded and not faults
    stop.set()
    join(ends)  # long before the other is closed
    assert 'told to end' in str(faults[0])
    slow.closed.set()
    join(closes, same)
    assert share_of(loaded[0]).sharers == 1


# -- turns at an engine --------------------------------------------------------------------------


def image_of(number: int) -> npt.NDArray[np.uint8]:
    return np.full((32, 64, 3), number, np.uint8)


def test_fast_one_does_not_starve_a_slow_one(
    pool: EnginePool, model: Path, gates: list[Gate],
) -> None:
    """Four that always have a frame: none is more than two frames ahead of another."""
    shares = [share_of(load(pool, model)) for _ in range(4)]
    stop = threading.Event()

    def work(number: int) -> None:
        while not stop.is_set():
            shares[number].run(image_of(number))

    threads = [in_thread(lambda n=number: work(n)) for number in range(4)]
    gate = gates[0]
    wait_until(lambda: len(shares[0]._shared.turns._queue) == 4 - FRAMES_UNDER_WAY)
    for count in range(1, 41):
        wait_until(lambda n=count: len(gate.entered) == n)
        counts = [gate.entered.count(number) for number in range(4)]
        assert max(counts) - min(counts) <= 2, gate.entered
        gate.go.release()
    stop.set()
    gate.go.release(100)
    join(*threads)


def test_a_frame_is_chosen_when_its_turn_comes(
    pool: EnginePool, model: Path, gates: list[Gate],
) -> None:
    """Who waits for the engine gets the newest frame of then, not of when the wait began."""
    others = [share_of(load(pool, model)) for _ in range(FRAMES_UNDER_WAY)]
    holders = [in_thread(lambda n=n, share=share: share.run(image_of(n)))
               for n, share in enumerate(others)]
    wait_until(lambda: len(gates[0].entered) == 1 and others[0]._shared.turns._free == 0)
    camera = load(pool, model)
    faults: list[Exception] = []
    worker = NewestWorker[npt.NDArray[np.uint8]](
        lambda image: [camera.engine.run(image)].clear(), faults.append, turn=camera.turn)
    assert not worker.submit(image_of(100))
    wait_until(lambda: len(others[0]._shared.turns._queue) == 1)
    assert worker.submit(image_of(101)), 'the older frame is not said to be dropped'
    assert worker.submit(image_of(102))
    gates[0].go.release(FRAMES_UNDER_WAY + 1)
    wait_until(lambda: len(gates[0].entered) == FRAMES_UNDER_WAY + 1)
    assert gates[0].entered[-1] == 102
    assert worker.stop(PATIENCE_S)
    join(*holders)
    assert faults == []


def test_turn_ends_with_the_inference_and_not_with_the_work(
    pool: EnginePool, model: Path, gates: list[Gate],
) -> None:
    share, other = (share_of(load(pool, model)) for _ in range(2))
    gates[0].go.release(2 * FRAMES_UNDER_WAY)
    for _ in range(FRAMES_UNDER_WAY):
        with share:
            assert share._shared.turns._free == FRAMES_UNDER_WAY - 1
            share.run(IMAGE)
            assert share._shared.turns._free == FRAMES_UNDER_WAY
            other.run(IMAGE)
    assert share._shared.turns._free == FRAMES_UNDER_WAY


def test_turn_without_an_inference_is_given_back(pool: EnginePool, model: Path) -> None:
    share = share_of(load(pool, model))
    for _ in range(FRAMES_UNDER_WAY + 1):
        with share:
            pass
    assert share._shared.turns._free == FRAMES_UNDER_WAY


def test_end_of_one_that_waits_touches_nobody(
    pool: EnginePool, model: Path, gates: list[Gate],
) -> None:
    shares = [share_of(load(pool, model)) for _ in range(FRAMES_UNDER_WAY + 2)]
    results: dict[int, object] = {}

    def work(number: int) -> None:
        try:
            results[number] = shares[number].run(image_of(number))
        except DeviceError as error:
            results[number] = error

    threads = []
    for number in range(len(shares)):
        threads.append(in_thread(lambda n=number: work(n)))
        wait_until(lambda n=number: (
            len(shares[0]._shared.turns._queue) == max(0, n + 1 - FRAMES_UNDER_WAY)
            and shares[0]._shared.turns._free == max(0, FRAMES_UNDER_WAY - n - 1)))
    shares[-2].close()
    join(threads[-2])
    assert isinstance(results[len(shares) - 2], DeviceLostError)
    gates[0].go.release(len(shares))
    join(*threads)
    np.testing.assert_array_equal(results[len(shares) - 1], TOY.output(image_of(len(shares) - 1)))


def test_pool_ends_everything(pool: EnginePool, model: Path, gates: list[Gate]) -> None:
    shares = [share_of(load(pool, model)) for _ in range(4)]
    faults: list[Exception] = []

    def work(share: EngineShare) -> None:
        try:
            share.run(IMAGE)
        except DeviceError as error:
            faults.append(error)

    threads = [in_thread(lambda share=share: work(share)) for share in shares]
    wait_until(lambda: gates[0].entered)
    pool.close()
    assert not gates[0].open
    gates[0].go.release(4)
    join(*threads)
    assert len(faults) == 4
    for share in shares:
        share.close()


# -- devices -------------------------------------------------------------------------------------


class Faulty:
    """A device that runs until it is told to fail."""

    input = TensorSpec('image', (1, 32, 64, 3), np.dtype(np.uint8), 1 / 255, 0)
    output = TensorSpec('scores', (1, 4, 8, 2), np.dtype(np.int8), 0.125, 0)
    device = 'usb:0'

    def __init__(self) -> None:
        self.timeout_s = math.inf
        self.fault = ''
        self.timeouts: list[float] = []

    def run(self, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        self.timeouts.append(self.timeout_s)
        if self.fault:
            raise DeviceError(self.fault)
        return np.zeros((4, 8, 2), np.int8)

    def close(self) -> None:
        pass


def test_everybody_hears_of_a_failure_once_and_has_a_deadline_of_his_own(
    pool: EnginePool, model: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    devices: list[Faulty] = []
    attempts = itertools.count()

    def open_device(stop: threading.Event) -> Faulty:
        if next(attempts):
            raise DeviceError('usb:0: still away.')
        devices.append(Faulty())
        return devices[0]

    def open_engine(model: Any, placing: Any, stop: Any) -> tuple[Engine, Any, list[Any]]:
        return SupervisedEngine('usb:0', open_device), TOY.contract(), []

    monkeypatch.setattr(shared_module, 'open_engine', open_engine)
    first = load(pool, model, inference_timeout_s=1.5)
    second = load(pool, model, inference_timeout_s=0.5)
    for segmenter in (first, second, first):
        segmenter.engine.run(IMAGE)
    second.set_inference_timeout(4.0)
    second.engine.run(IMAGE)
    assert devices[0].timeouts[1:] == [1.5, 0.5, 1.5, 4.0]  # the first run was the opening's
    first.take_events(), second.take_events()

    devices[0].fault = 'usb:0: gone.'
    with pytest.raises(DeviceLostError, match='usb:0 is away: usb:0: gone'):
        first.engine.run(IMAGE)
    with pytest.raises(DeviceLostError, match='usb:0 is away'):
        second.engine.run(IMAGE)
    for segmenter in (first, second):
        assert segmenter.device_status.device == 'none'
        assert segmenter.device_status.last_fault.startswith('usb:0: ')
        told = [event.text for event in segmenter.take_events()]
        assert told[0] == 'usb:0: gone. Frames are lost until that is mended.'
        assert told.count(told[0]) == 1


def test_two_share_one_stick(
    pool: EnginePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    with StandIn(TOY.save(tmp_path), monkeypatch) as stand_in:
        first, second = (
            load(pool, stand_in.model, device='usb:0', num_threads=1,
                 edgetpu_library=str(stand_in.library)) for _ in range(2))
        assert first.engine.device == second.engine.device == 'usb:0'
        rgb = np.random.default_rng(1).integers(0, 256, (32, 64, 3), np.uint8)
        for segmenter in (first, second):
            np.testing.assert_array_equal(segmenter.engine.run(rgb), TOY.output(rgb))
        first.close()
        np.testing.assert_array_equal(second.engine.run(rgb), TOY.output(rgb))
        started_s = time.monotonic()
        second.close()
        assert time.monotonic() - started_s < PATIENCE_S
