"""Newest wins, displaced ones are told, nothing ends the thread but stop; and the rate limit."""

from __future__ import annotations

import gc
import itertools
import threading
import time
import weakref
from collections.abc import Iterator

import numpy as np
import pytest

from bisenet_ros.core.worker import NewestWorker, RateLimit

#: Nothing here should take that long; it only keeps a failing test from hanging.
PATIENCE_S = 10.0


class Bench:
    """A worker whose work waits until it is let on, one item at a time."""

    def __init__(self) -> None:
        self.done: list[object] = []
        self.faults: list[Exception] = []
        self.started = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.finished = threading.Semaphore(0)
        self.forgotten = 0
        self.worker: NewestWorker[object] = NewestWorker(
            self._work, self._failed, 'bench', forgotten=self._forget)

    def _work(self, item: object) -> None:
        self.started.release()
        assert self.go.acquire(timeout=PATIENCE_S)
        try:
            if isinstance(item, Exception):
                raise item
            self.done.append(item)
        finally:
            self.finished.release()

    def _failed(self, error: Exception) -> None:
        self.faults.append(error)

    def _forget(self) -> None:
        self.forgotten += 1

    def start(self, item: object) -> None:
        """Submit an item and wait until it is being worked on."""
        assert not self.worker.submit(item)
        assert self.started.acquire(timeout=PATIENCE_S)

    def let_on(self) -> None:
        self.go.release()
        assert self.finished.acquire(timeout=PATIENCE_S)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    for _ in range(100):
        bench.go.release()
    assert bench.worker.stop(PATIENCE_S)


def test_newest_wins_and_displaced_ones_are_told(bench: Bench) -> None:
    bench.start(1)
    assert [bench.worker.submit(item) for item in (2, 3, 4)] == [False, True, True]
    bench.let_on()
    bench.let_on()
    assert bench.done == [1, 4]
    bench.start(5)  # nothing was left waiting
    bench.let_on()
    assert bench.done == [1, 4, 5]


def test_submit_does_not_wait_for_the_work(bench: Bench) -> None:
    bench.start(1)
    began_s = time.monotonic()
    for item in range(1000):
        bench.worker.submit(item)
    assert time.monotonic() - began_s < 2.0  # the work itself stands still


def test_exception_is_told_and_the_thread_goes_on(bench: Bench) -> None:
    bench.start(ValueError('no image'))
    bench.let_on()
    bench.start('next')
    bench.let_on()
    assert bench.done == ['next']
    assert [str(error) for error in bench.faults] == ['no image']


def test_thread_outlives_a_fault_while_a_fault_is_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch,
) -> None:
    unheard: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, 'excepthook', unheard.append)
    monkeypatch.setattr(bench.worker, '_failed', lambda error: 1 / 0)
    bench.start(ValueError('no image'))
    bench.let_on()
    bench.start('next')
    bench.let_on()
    assert bench.done == ['next']
    (args,) = unheard
    assert args.exc_type is ZeroDivisionError
    assert str(args.exc_value.__context__) == 'no image'
    assert args.thread is not None
    assert args.thread.name == 'bench'


def test_stop_finishes_the_item_under_way_and_forgets_the_next(bench: Bench) -> None:
    bench.start(1)
    bench.worker.submit(2)
    stopped: list[bool] = []
    stopper = threading.Thread(target=lambda: stopped.append(bench.worker.stop(PATIENCE_S)))
    stopper.start()
    time.sleep(0.05)
    assert not stopped  # it waits for 1
    assert not bench.worker.submit(3)  # too late
    bench.let_on()
    stopper.join(PATIENCE_S)
    assert stopped == [True]
    assert bench.done == [1]
    assert bench.forgotten == 2
    assert 'bench' not in [thread.name for thread in threading.enumerate()]


def test_stop_says_when_the_work_does_not_end(bench: Bench) -> None:
    bench.start(1)
    began_s = time.monotonic()
    assert not bench.worker.stop(0.05)
    assert time.monotonic() - began_s < 2.0
    bench.let_on()
    assert bench.worker.stop(PATIENCE_S)
    assert bench.worker.stop(PATIENCE_S)  # again: nothing happens


def test_stop_of_an_idle_worker_is_quick() -> None:
    worker: NewestWorker[int] = NewestWorker(lambda item: None, lambda error: None)
    began_s = time.monotonic()
    assert worker.stop(PATIENCE_S)
    assert time.monotonic() - began_s < 2.0


def test_nothing_is_worked_on_after_stop() -> None:
    done: list[int] = []
    worker = NewestWorker(done.append, lambda error: None)
    assert worker.stop(PATIENCE_S)
    worker.submit(1)
    time.sleep(0.02)
    assert done == []


def test_item_is_let_go_when_it_is_done(bench: Bench) -> None:
    frame = np.zeros(10)
    reference = weakref.ref(frame)
    bench.start(frame)
    bench.let_on()
    bench.done.clear()
    del frame
    for _ in range(100):
        gc.collect()
        if reference() is None:
            break
        time.sleep(0.01)
    assert reference() is None


def test_no_item_is_lost_or_done_twice_under_load() -> None:
    done: list[int] = []
    worker = NewestWorker(done.append, lambda error: None)
    count, displaced = 20000, 0
    for item in range(count):
        displaced += worker.submit(item)
        if item % 7 == 0:
            time.sleep(0)  # let the worker in at odd moments
    deadline_s = time.monotonic() + PATIENCE_S
    while len(done) + displaced < count and time.monotonic() < deadline_s:
        time.sleep(0.001)
    assert worker.stop(PATIENCE_S)
    assert len(done) + displaced == count
    assert done[-1] == count - 1  # the last one is always worked on
    assert done == sorted(set(done))


def test_every_submit_wakes_the_worker() -> None:
    handed = threading.Semaphore(0)
    worker = NewestWorker(lambda item: handed.release(), lambda error: None)
    for item in range(3000):
        assert not worker.submit(item)
        assert handed.acquire(timeout=PATIENCE_S), f'item {item} was never taken'
    assert worker.stop(PATIENCE_S)


def test_submitters_in_several_threads_lose_nothing() -> None:
    done: list[tuple[int, int]] = []
    displaced = [0] * 4
    worker = NewestWorker(done.append, lambda error: None)

    def submit(number: int) -> None:
        for item in range(2000):
            displaced[number] += worker.submit((number, item))

    threads = [threading.Thread(target=submit, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    deadline_s = time.monotonic() + PATIENCE_S
    while len(done) + sum(displaced) < 8000 and time.monotonic() < deadline_s:
        time.sleep(0.001)
    assert worker.stop(PATIENCE_S)
    assert len(done) + sum(displaced) == 8000
    assert len(set(done)) == len(done)


# -- rate limit ----------------------------------------------------------------------------------


def passed(limit: RateLimit, times_s: list[float]) -> list[float]:
    return [time_s for time_s in times_s if limit.allows(time_s)]


def camera(rate_hz: float, count: int, jitter_s: float = 0.0, seed: int = 0) -> list[float]:
    """Return arrival times: on the beat, each off by up to ``jitter_s``."""
    rng = np.random.default_rng(seed)
    return (1000 + np.arange(count) / rate_hz + rng.uniform(-jitter_s, jitter_s, count)).tolist()


def test_no_limit() -> None:
    times_s = camera(1000.0, 50)
    assert passed(RateLimit(), times_s) == times_s
    assert passed(RateLimit(0.0), times_s) == times_s


def test_exactly_every_third_of_30_at_10() -> None:
    times_s = camera(30.0, 300)
    assert passed(RateLimit(10.0), times_s) == times_s[::3]


@pytest.mark.parametrize('rate_hz', [30.0, 30.5, 60.0])
def test_limit_above_the_cameras_rate_drops_nothing(rate_hz: float) -> None:
    for jitter_s in (0.0, 0.003):
        times_s = camera(30.0, 300, jitter_s)
        assert len(passed(RateLimit(rate_hz), times_s)) >= (
            300 if rate_hz == 60.0 or not jitter_s else 290)


@pytest.mark.parametrize('jitter_s', [0.001, 0.003, 0.008])
def test_jitter_does_not_change_the_rate(jitter_s: float) -> None:
    for seed in range(5):
        times_s = camera(30.0, 600, jitter_s, seed)
        chosen = passed(RateLimit(10.0), times_s)
        assert 190 <= len(chosen) <= 201
        gaps_s = [b - a for a, b in itertools.pairwise(chosen)]
        # one frame early or late at the most, and nothing bunched
        assert min(gaps_s) > 0.1 - 1 / 30 - 2 * jitter_s - 1e-9
        assert max(gaps_s) < 0.1 + 1 / 30 + 2 * jitter_s + 1e-9


@pytest.mark.parametrize(('camera_hz', 'limit_hz'), [
    (30, 20), (30, 29), (30, 7), (25, 10), (60, 24), (15, 14), (100, 1)])
def test_mean_rate_is_the_limit_whatever_the_cameras(camera_hz: int, limit_hz: int) -> None:
    seconds = 60
    times_s = camera(camera_hz, camera_hz * seconds)
    count = len(passed(RateLimit(limit_hz), times_s))
    assert count == pytest.approx(limit_hz * seconds, rel=0.02, abs=1)
    assert count <= limit_hz * seconds + 1


def test_pause_earns_no_burst() -> None:
    limit = RateLimit(10.0)
    assert passed(limit, [0.0, 0.1, 0.2]) == [0.0, 0.1, 0.2]
    burst = [60.0 + index / 1000 for index in range(200)]
    assert len(passed(limit, burst)) <= 3  # 0.2 s at 10 Hz


def test_limit_may_change_while_it_runs() -> None:
    limit = RateLimit(1.0)
    assert limit.allows(0.0)
    assert not limit.allows(0.5)
    limit.rate_hz = 0.0
    assert limit.allows(0.6)
    limit.rate_hz = 1.0
    assert not limit.allows(0.7)
    assert limit.allows(1.0)
