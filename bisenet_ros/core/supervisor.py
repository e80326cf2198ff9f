"""
Keep a device in service: open it, check it, and bring it back after a failure.

Meanwhile, and for a frame that the device fails at, another engine can serve.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bisenet_ros.core.engine import Engine, TensorSpec, input_memory
from bisenet_ros.core.errors import DeviceError, DeviceLostError, ModelError
from bisenet_ros.core.health import Level

#: Pause before the first restart, and the longest; it doubles from one to the other.
BACKOFF_S = (0.5, 60.0)

#: A device that served so long starts over with the shortest pause.
SOUND_S = 60.0

#: How often an idle device is looked at.
WATCH_S = 0.5


class Device(Engine, Protocol):
    """An engine that can be gone."""

    #: Deadline of one run.
    timeout_s: float

    @property
    def fault(self) -> str:
        """Why it cannot run any more; empty while it can."""
        ...


@dataclasses.dataclass(frozen=True)
class Event:
    """Something to tell once."""

    level: Level
    text: str


@dataclasses.dataclass(frozen=True)
class DeviceStatus:
    """
    What a supervisor knows.

    ``device``: where frames are served now. ``problem``: why not on the device asked for; empty
    if they are. ``last_fault``: the latest failure since the start. ``restarts``: openings after
    the first success.

    """

    device: str
    problem: str = ''
    last_fault: str = ''
    restarts: int = 0


class SupervisedEngine:
    """
    A device with a supervisor, and perhaps an engine that stands in for it.

    ``run`` is for one caller at a time; everything else may be called from any thread.

    Parameters
    ----------
    name : str
        What was asked for, in messages (``usb:0``).
    open_device : callable
        Opens the device and returns it; takes an event that ends it early. Raises ``DeviceError``
        where another attempt may help, ``ModelError`` where only another file does: that is tried
        again after the longest pause. The device's own deadline is for its first run, here.
    fallback : Engine or None
        Serves while the device does not. With one, the device is opened in the background;
        without, here, and frames are lost while it is away.
    check : callable or None
        Takes the opened device, returns why it must not be used (empty: it may).
    timeout_s : float
        Deadline of one frame, fallback included. May be changed at any time.
    reserve_s : float
        As much of it is left to the fallback, but no more than half.
    stop : threading.Event or None
        Ends the first opening early when set (without a fallback).

    Raises
    ------
    DeviceError, ModelError
        If there is no fallback and the device does not open or fails its check.

    """

    def __init__(
        self, name: str, open_device: Callable[[threading.Event], Device],
        fallback: Engine | None = None, check: Callable[[Engine], str] | None = None, *,
        timeout_s: float = 2.0, reserve_s: float = 0.0, stop: threading.Event | None = None,
    ) -> None:
        self._name = name
        self._open_device = open_device
        self._fallback = fallback
        self._check = check
        self._timeout_s, self._reserve_s = timeout_s, reserve_s
        self._closing = threading.Event()
        self._changed = threading.Condition()
        self._device: Device | None = None
        self._broken: Device | None = None
        self._in_service_since_s = 0.0
        self._was_in_service = False
        self._model_refused = False
        self._status = DeviceStatus(fallback.device if fallback else 'none')
        self._events: list[Event] = []
        if fallback is None:
            device = self._opened(stop or threading.Event())
            self._input, self._output = device.input, device.output
            self._put_in_service(device)
        else:
            self._input, self._output = fallback.input, fallback.output
        self._thread = threading.Thread(
            target=self._supervise, name=f'supervisor of {name}', daemon=True)
        self._thread.start()

    @property
    def device(self) -> str:
        """Where frames are served now: ``usb:0``, ``cpu``; ``none`` while nothing serves."""
        return self.status.device

    @property
    def input(self) -> TensorSpec:
        """The image tensor."""
        return self._input

    @property
    def output(self) -> TensorSpec:
        """The only output tensor."""
        return self._output

    @property
    def input_memory(self) -> npt.NDArray[Any] | None:
        """Where the next image is best made, see ``engine.input_memory``; the device's."""
        with self._changed:
            device = self._device
        return None if device is None else input_memory(device)

    @property
    def status(self) -> DeviceStatus:
        """What is known of the device."""
        with self._changed:
            return self._status

    @property
    def timeout_s(self) -> float:
        """Deadline of one frame."""
        return self._timeout_s

    @timeout_s.setter
    def timeout_s(self, timeout_s: float) -> None:
        with self._changed:
            self._timeout_s = timeout_s
            if self._device is not None:
                self._device.timeout_s = self._device_timeout_s()
        if isinstance(self._fallback, SupervisedEngine):
            self._fallback.timeout_s = timeout_s

    def _device_timeout_s(self) -> float:
        return max(self._timeout_s - self._reserve_s, self._timeout_s / 2)

    def take_events(self) -> list[Event]:
        """Return what happened since the last call."""
        with self._changed:
            events, self._events = self._events, []
        if isinstance(self._fallback, SupervisedEngine):
            events += self._fallback.take_events()
        return events

    def run(self, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """
        Run the network, on the device if it is in service, else on the fallback.

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
        DeviceLostError
            If there is no fallback and the device failed, at this frame or before.

        """
        with self._changed:
            device = self._device
        if device is not None:
            try:
                return device.run(image)
            except DeviceError as error:
                self._lose(device, str(error))
        if self._closing.is_set():
            raise DeviceLostError(f'{self._name}: the engine is closed.')
        if self._fallback is not None:
            return self._fallback.run(image)
        raise DeviceLostError(f'{self._name} is away: {self.status.problem}')

    def close(self) -> None:
        """End the supervisor, give the device back and close the fallback."""
        self._closing.set()
        with self._changed:
            device, self._device = self._device, None
            self._changed.notify_all()
        if device is not None:
            device.close()
        self._thread.join()
        if self._fallback is not None:
            self._fallback.close()

    # -- what happens to the device ----------------------------------------------------------

    def _opened(self, stop: threading.Event) -> Device:
        """
        Open and check the device.

        One that is not checked runs an empty image: the first run loads the model's weights and
        may take longer than a frame has.

        """
        device, reason = self._open_device(stop), ''
        try:
            if self._check:
                reason = self._check(device)
            else:
                device.run(np.zeros(device.input.shape[1:], device.input.dtype))
        except BaseException:
            device.close()
            raise
        if reason:
            device.close()
            raise DeviceError(f'{device.device}: {reason}.')
        return device

    def _put_in_service(self, device: Device) -> None:
        with self._changed:
            if self._closing.is_set():
                self._broken = device
                return
            device.timeout_s = self._device_timeout_s()
            self._device, self._in_service_since_s = device, time.monotonic()
            again = self._was_in_service
            self._was_in_service = True
            self._status = dataclasses.replace(
                self._status, device=device.device, problem='',
                restarts=self._status.restarts + again)
            self._tell(Level.OK, f'{device.device} is in service{" again" if again else ""}.')

    def _lose(self, device: Device, fault: str) -> None:
        """Take a failed device out of service; whoever finds out first says so."""
        with self._changed:
            if self._device is device:
                self._device, self._broken = None, device
                self._note_fault(fault)
                self._changed.notify_all()

    def _note_fault(self, fault: str) -> None:
        """Remember why the device is not in service; tell it unless that was told already."""
        if fault == self._status.problem:
            return
        served_by = self._fallback.device if self._fallback else 'none'
        self._status = dataclasses.replace(
            self._status, device=served_by, problem=fault, last_fault=fault)
        if self._fallback:
            self._tell(Level.WARN, f'{fault} Device {served_by} serves until that is mended.')
        else:
            self._tell(Level.ERROR, f'{fault} Frames are lost until that is mended.')

    def _tell(self, level: Level, text: str) -> None:
        self._events.append(Event(level, text))

    # -- the supervisor's thread -------------------------------------------------------------

    def _supervise(self) -> None:
        pause_s = BACKOFF_S[0]
        while not self._closing.is_set():
            if self._device is not None or self._reopen():
                self._await_loss()
                if time.monotonic() - self._in_service_since_s >= SOUND_S:
                    pause_s = BACKOFF_S[0]
            self._closing.wait(BACKOFF_S[1] if self._model_refused else pause_s)
            pause_s = min(2 * pause_s, BACKOFF_S[1])
        self._close_broken()

    def _reopen(self) -> bool:
        """Try to bring the device into service; tell whether it is."""
        try:
            device = self._opened(self._closing)
        except (DeviceError, ModelError) as error:
            self._model_refused = isinstance(error, ModelError)
            if not self._closing.is_set():
                with self._changed:
                    self._note_fault(str(error))
            return False
        except Exception as error:  # noqa: BLE001 - it may pass (no memory); the thread must not
            with self._changed:
                self._note_fault(f'{self._name}: {type(error).__name__}: {error}.')
            return False
        self._model_refused = False
        self._put_in_service(device)
        return True

    def _await_loss(self) -> None:
        """Wait until the device is out of service, and clear it away."""
        while True:
            with self._changed:
                device = self._device
                if device is None or self._closing.is_set():
                    break
                self._changed.wait(WATCH_S)
            if fault := device.fault:
                self._lose(device, fault)
        self._close_broken()

    def _close_broken(self) -> None:
        with self._changed:
            broken, self._broken = self._broken, None
        if broken is not None:
            broken.close()
