"""One thread that works on the newest of what comes in; older items are dropped and counted."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Generic, TypeVar

Item = TypeVar('Item')


class RateLimit:
    """
    Let through at most so many a second, evenly.

    Parameters
    ----------
    rate_hz : float
        0 lets everything through.

    """

    def __init__(self, rate_hz: float = 0.0) -> None:
        self.rate_hz = rate_hz
        self._next_s = float('-inf')

    def allows(self, now_s: float) -> bool:
        """Tell whether something that comes at a (monotonic) time may pass, and count it if so."""
        if self.rate_hz <= 0:
            return True
        period_s = 1 / self.rate_hz
        # Frames are rarely on time to the microsecond: a little early is on time.
        if now_s < self._next_s - 0.1 * period_s:
            return False
        # Keep to the beat while input keeps up with it; start a new one behind a pause.
        beat_s = self._next_s + period_s
        self._next_s = beat_s if beat_s > now_s else now_s + period_s
        return True


class NewestWorker(Generic[Item]):
    """
    Call ``work`` on the newest item, in a thread of its own.

    ``submit`` never blocks and never queues: an item that comes while another waits takes its
    place. What ``work`` raises goes to ``failed``; the thread goes on with the next item, even if
    ``failed`` raises, too (``threading.excepthook`` tells that).

    Parameters
    ----------
    work : callable
        Takes an item.
    failed : callable
        Takes the exception.
    name : str
        Of the thread.
    turn : context manager
        Entered before the newest item is chosen and left behind ``work``: what it waits for
        makes no item older.
    forgotten : callable or None
        Called for an item that is not worked on because of ``stop``.

    """

    def __init__(
        self, work: Callable[[Item], None], failed: Callable[[Exception], None],
        name: str = 'worker', turn: AbstractContextManager[object] | None = None,
        forgotten: Callable[[], object] | None = None,
    ) -> None:
        self._work, self._failed, self._forgotten = work, failed, forgotten
        self._turn = turn or nullcontext()
        self._condition = threading.Condition()
        self._waiting: list[Item] = []  # at most one
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, item: Item) -> bool:
        """Hand over the newest item; return whether another one, still waiting, is dropped."""
        with self._condition:
            if not self._stopping:
                displaced = bool(self._waiting)
                self._waiting[:] = [item]
                self._condition.notify()
                return displaced
        self._forget()
        return False

    def stop(self, timeout_s: float | None = None) -> bool:
        """
        Finish the item under way, forget the one that waits, end the thread.

        Returns
        -------
        bool
            False if the thread did not end within ``timeout_s``.

        """
        with self._condition:
            self._stopping = True
            forgotten = bool(self._waiting)
            self._waiting.clear()
            self._condition.notify()
        if forgotten:
            self._forget()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _forget(self) -> None:
        if self._forgotten is not None:
            self._forgotten()

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._waiting and not self._stopping:
                    self._condition.wait()
            with self._turn:
                with self._condition:
                    if self._stopping:
                        return
                    item = self._waiting.pop()
                try:
                    self._work(item)
                except Exception as error:  # noqa: BLE001 - the thread's edge: it outlives items
                    self._tell(error)
                del item  # a frame is megabytes: do not hold it while waiting for the next

    def _tell(self, error: Exception) -> None:
        try:
            self._failed(error)
        except Exception:  # noqa: BLE001 - as above
            threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), self._thread)))
