"""
One engine for several cameras, each in its turn.

An EdgeTPU opens once, and a second engine on the same CPU would only fight for its cores. So all
who ask an ``EnginePool`` for the same model at the same place get a share of the same engine.
Whoever has a frame queues for a place and asks again only when that frame is through: first come,
first served is then round-robin, however fast one of the cameras is.
"""

from __future__ import annotations

import collections
import dataclasses
import threading
import weakref
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy.typing as npt

from bisenet_ros.core.contract import ModelContract
from bisenet_ros.core.engine import Engine, TensorSpec
from bisenet_ros.core.engines import Model, Placing, open_engine, twins
from bisenet_ros.core.errors import DeviceError, DeviceLostError
from bisenet_ros.core.health import Level
from bisenet_ros.core.supervisor import DeviceStatus, Event, SupervisedEngine

#: Frames between the choice of the newest and the end of its inference: one in the engine and one
#: that is made ready meanwhile. More would only grow old.
FRAMES_UNDER_WAY = 2

#: The place of all that may open an EdgeTPU: which one it will be is known afterwards.
EDGETPU = 'edgetpu'

#: How long one who waits for that place takes to see that it is to end, in seconds.
STOP_POLL_S = 0.2


class Turns:
    """
    So many places, given to those who ask in the order in which they ask.

    Parameters
    ----------
    places : int

    Owners are told apart by what they are equal to, and can be referred to weakly.

    """

    def __init__(self, places: int) -> None:
        self._lock = threading.Lock()
        self._free = places
        self._queue: collections.deque[_Waiter] = collections.deque()
        self._dismissed: weakref.WeakSet[Any] = weakref.WeakSet()

    def take(self, owner: object) -> bool:
        """Wait for a place; False if the owner is dismissed."""
        with self._lock:
            if owner in self._dismissed:
                return False
            if self._free and not self._queue:
                self._free -= 1
                return True
            waiter = _Waiter(owner, threading.Condition(self._lock))
            self._queue.append(waiter)
            while waiter in self._queue:
                waiter.called.wait()
            return waiter.admitted

    def give_back(self) -> None:
        """Hand a place to whoever waits longest."""
        with self._lock:
            if not self._queue:
                self._free += 1
                return
            waiter = self._queue.popleft()
            waiter.admitted = True
            waiter.called.notify()

    def dismiss(self, owner: object) -> None:
        """Give an owner no place any more, and end its wait for one."""
        with self._lock:
            self._dismissed.add(owner)
            for waiter in [waiter for waiter in self._queue if waiter.owner == owner]:
                self._queue.remove(waiter)
                waiter.called.notify()


@dataclasses.dataclass(eq=False)
class _Waiter:
    """One in the queue; who is no longer in it was admitted or dismissed."""

    owner: object
    called: threading.Condition
    admitted: bool = False


class EngineShare:
    """
    One camera's share of an engine.

    ``run`` is for one caller at a time, each share's own; everything else may be called from any
    thread. As a context manager it is a turn: from the choice of a frame to the end of its
    inference. ``run`` takes one where its caller has not, and gives it back behind the inference,
    so that what follows holds up nobody.

    It has no ``input_memory`` to lend: while one frame is made ready, another is in the engine.

    """

    def __init__(self, pool: EnginePool, shared: _SharedEngine) -> None:
        self._pool, self._shared = pool, shared
        self._timeout_s: float | None = None
        self._has_turn = False
        self._closed = False
        self.events: list[Event] = []

    @property
    def device(self) -> str:
        """Where frames are served now."""
        return self._shared.engine.device

    @property
    def input(self) -> TensorSpec:
        """The image tensor."""
        return self._shared.engine.input

    @property
    def output(self) -> TensorSpec:
        """The only output tensor."""
        return self._shared.engine.output

    @property
    def status(self) -> DeviceStatus:
        """What is known of the device."""
        engine = self._shared.engine
        return engine.status if isinstance(engine, SupervisedEngine) else DeviceStatus(
            engine.device)

    @property
    def sharers(self) -> int:
        """How many have a share of the engine, this one included."""
        return len(self._shared.shares)

    @property
    def timeout_s(self) -> float | None:
        """Deadline of one of this share's frames; None leaves the engine's own."""
        return self._timeout_s

    @timeout_s.setter
    def timeout_s(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s

    def take_events(self) -> list[Event]:
        """Return what happened since this share's last call."""
        return self._pool.take_events(self._shared, self)

    def __enter__(self) -> EngineShare:
        """Wait for a turn; a closed share gets none and does not wait."""
        if not self._has_turn and not self._closed:
            self._has_turn = self._shared.turns.take(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the turn back, if that was not done yet."""
        if self._has_turn:
            self._has_turn = False
            self._shared.turns.give_back()

    def run(self, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """
        Run the network.

        Parameters
        ----------
        image : uint8[H, W, 3] or int8[H, W, 3]
            As the input tensor says.

        Returns
        -------
        ndarray
            The output without its batch axis; a copy.

        Raises
        ------
        DeviceError
            If the device fails, or the share was closed.

        """
        with self:
            if self._closed or not self._shared.running.take(self):
                raise DeviceLostError(f'{self.device}: this share of the engine is closed.')
            try:
                engine = self._shared.engine
                if isinstance(engine, SupervisedEngine) and self._timeout_s is not None:
                    engine.timeout_s = self._timeout_s
                return engine.run(image)
            finally:
                self._shared.running.give_back()

    def close(self) -> None:
        """Leave the engine to the others, or close it behind the last."""
        self._closed = True
        for turns in (self._shared.running, self._shared.turns):
            turns.dismiss(self)
        self._pool.leave(self._shared, self)


@dataclasses.dataclass(eq=False)
class _SharedEngine:
    engine: Engine
    place: object  # that is busy while the engine is opened and closed
    shares: list[EngineShare] = dataclasses.field(default_factory=list)
    turns: Turns = dataclasses.field(default_factory=lambda: Turns(FRAMES_UNDER_WAY))
    running: Turns = dataclasses.field(default_factory=lambda: Turns(1))


class EnginePool:
    """
    Open every model once per place, whoever asks for it.

    All methods may be called from any thread. ``open`` takes the place of ``engines.open_engine``.

    """

    def __init__(self) -> None:
        self._changed = threading.Condition()  # guards what follows, and who has a share of what
        self._engines: dict[tuple[object, ...], _SharedEngine] = {}
        self._busy: collections.Counter[object] = collections.Counter()  # opened or closed, places

    def open(
        self, model: Model, placing: Placing, stop: threading.Event | None = None,
    ) -> tuple[EngineShare, ModelContract, list[Event]]:
        """
        Return a share of an engine that has the model loaded.

        What is open already is shared at once. An EdgeTPU is there once, so whoever wants one
        waits until no other is being opened or closed; CPU engines wait for none.

        Parameters
        ----------
        model : Model
        placing : Placing
            Equal ones share an engine, whatever their deadlines: that of opening is the first's,
            that of a frame each share's own.
        stop : threading.Event or None
            Ends the opening of a device early when set.

        Returns
        -------
        (EngineShare, ModelContract, list of Event)
            And what there is to tell.

        Raises
        ------
        ModelError, DeviceError
            As ``engines.open_engine`` does.

        """
        key = _identity(model.path, placing)
        place = key if placing.device == 'cpu' else EDGETPU
        with self._changed:
            while not self._changed.wait_for(
                    lambda: key in self._engines or not self._busy[place], STOP_POLL_S):
                if stop is not None and stop.is_set():
                    raise DeviceError(
                        f'{placing.device}: told to end while another was being opened.')
            shared = self._engines.get(key)
            if shared is None:
                self._busy[place] += 1
            else:
                sharers, share = len(shared.shares), self._share(shared, placing)
        if shared is None:
            return self._open_first(key, place, model, placing, stop)
        try:
            contract = model.contract_of(shared.engine)
        except BaseException:
            share.close()
            raise
        return share, contract, [Event(Level.OK, f'the engine is shared with {sharers} more.')]

    def _open_first(
        self, key: tuple[object, ...], place: object, model: Model, placing: Placing,
        stop: threading.Event | None,
    ) -> tuple[EngineShare, ModelContract, list[Event]]:
        """Do as ``open`` does, with a place that is marked as busy."""
        try:
            engine, contract, events = open_engine(model, placing, stop)
            with self._changed:
                shared = self._engines[key] = _SharedEngine(engine, place)
                return self._share(shared, placing), contract, events
        finally:
            self._no_longer_busy(place)

    def _share(self, shared: _SharedEngine, placing: Placing) -> EngineShare:
        share = EngineShare(self, shared)
        share.timeout_s = placing.inference_timeout_s
        shared.shares.append(share)
        return share

    def _no_longer_busy(self, place: object) -> None:
        with self._changed:
            self._busy -= collections.Counter([place])
            self._changed.notify_all()

    def take_events(self, shared: _SharedEngine, share: EngineShare) -> list[Event]:
        """Return what a share has not heard yet of its engine."""
        with self._changed:
            if isinstance(shared.engine, SupervisedEngine):
                news = shared.engine.take_events()
                for other in shared.shares:
                    other.events += news
            events, share.events = share.events, []
        return events

    def leave(self, shared: _SharedEngine, share: EngineShare) -> None:
        """Take a share back; close the engine behind the last."""
        with self._changed:
            if share not in shared.shares:
                return
            shared.shares.remove(share)
            if shared.shares:
                return
            self._engines = {
                key: other for key, other in self._engines.items() if other is not shared}
            self._busy[shared.place] += 1  # what is opened from now on waits; this does not
        try:
            shared.engine.close()
        finally:
            self._no_longer_busy(shared.place)

    def close(self) -> None:
        """Close every engine, whoever has a share of it: a wait for a device ends."""
        with self._changed:
            engines, self._engines = list(self._engines.values()), {}
            shares = [share for shared in engines for share in shared.shares]
            for shared in engines:
                shared.shares.clear()
        for share in shares:
            share.close()
        for shared in engines:
            shared.engine.close()


def _identity(model: Path, placing: Placing) -> tuple[object, ...]:
    """Return what must be equal for two to share an engine: the files, the place, the runtime."""
    files = [(path.resolve(), path.stat().st_mtime_ns, path.stat().st_size)
             for path in twins(model) if path.exists()]
    options = tuple(sorted(placing.delegate_options.items()))
    return (*files, placing.device, placing.isolation, placing.num_threads, options,
            placing.allow_tensorflow, placing.library)
