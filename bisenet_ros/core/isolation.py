"""
An engine in a child process: libedgetpu aborts on USB errors and can hang for ever.

Images and results go through shared memory, "run" and "done" through a socket whose end of file
tells at once that the child is gone. The memory has no name and the child watches its parent, so
nothing is left behind whichever of the two is killed.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import select
import signal
import socket
import subprocess
import threading
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bisenet_ros.core.child import python_command, python_environment
from bisenet_ros.core.edgetpu_library import EDGETPU_LIBRARY
from bisenet_ros.core.engine import check_device, check_model_file, find_runtime
from bisenet_ros.core.errors import DeviceError, ModelError
from bisenet_ros.core.isolated_worker import DONE, PACKET_BYTES, spec_from_json, tensors

WORKER = 'bisenet_ros.core.isolated_worker'

#: How long a child may take to end by itself; an EdgeTPU is then closed in order.
CLOSE_S = 0.7

#: How often the opening looks whether it shall stop.
STOP_POLL_S = 0.1

#: As much of what the child said last is kept.
WORDS_BYTES = 4096


class IsolatedEngine:
    """
    A ``LiteRtEngine`` in a process of its own.

    ``run`` is for one caller at a time; ``close`` may come from another thread and ends a ``run``
    under way. After a failure of the child (``fault``) open a new engine.

    Parameters
    ----------
    model : Path
    num_threads, device, options, allow_tensorflow, library
        As ``LiteRtEngine`` takes them.
    timeout_s : float
        Deadline of one ``run``; may be changed at any time.
    open_timeout_s : float
        Deadline of opening, which this constructor waits for.
    stop : threading.Event or None
        Ends the opening, or a ``run``, early when set.

    Raises
    ------
    ModelError, DeviceError
        As ``LiteRtEngine`` does; ``DeviceError`` also if opening is not done in time or kills the
        process.

    """

    def __init__(
        self, model: Path, num_threads: int = 0, device: str = 'cpu',
        options: Mapping[str, str] | None = None, allow_tensorflow: bool = True,
        library: str = EDGETPU_LIBRARY, *, timeout_s: float = 2.0, open_timeout_s: float = 30.0,
        stop: threading.Event | None = None,
    ) -> None:
        check_device(device)
        check_model_file(model)
        self.device = device
        self.timeout_s = timeout_s
        self._stop = stop
        self._lock = threading.Lock()
        self._closed = False
        self._fault = ''
        self._words = b''
        self._memory: mmap.mmap | None = None
        self._lent = False
        self._image: npt.NDArray[Any] | None = None
        self._result: npt.NDArray[Any] | None = None
        self._start()
        try:
            request = {
                'model': str(model.absolute()), 'num_threads': num_threads, 'device': device,
                'options': dict(options or {}), 'allow_tensorflow': allow_tensorflow,
                'library': library}
            opened = self._ask(json.dumps(request).encode(), open_timeout_s, 'opening')
            self.device, self.runtime = str(opened['device']), str(opened['runtime'])
            self.input = spec_from_json(opened['input'])
            self.output = spec_from_json(opened['output'])
            self._memory = mmap.mmap(self._memory_fd, 0)
            self._image, self._result = tensors(self._memory, self.input, self.output)
        except OSError as error:
            self.close()
            raise DeviceError(f'{device}: its memory cannot be shared: {error}.') from error
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as passed:
            try:
                self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                ours.enter_context(self._control)
                passed.enter_context(theirs)
                self._memory_fd = os.memfd_create('bisenet_ros')
                ours.callback(os.close, self._memory_fd)
                lifeline, self._lifeline_fd = os.pipe()
                ours.callback(os.close, self._lifeline_fd)
                passed.callback(os.close, lifeline)
                self._output_fd, output = os.pipe()
                ours.callback(os.close, self._output_fd)
                passed.callback(os.close, output)
                # A session of its own: Ctrl-C in the terminal is not for the child.
                self._process = subprocess.Popen(
                    python_command(WORKER, str(theirs.fileno()), str(self._memory_fd)),
                    env=python_environment(), stdin=lifeline, stdout=output, stderr=output,
                    pass_fds=(theirs.fileno(), self._memory_fd), start_new_session=True)
            except OSError as error:
                raise DeviceError(
                    f'{self.device}: the inference process cannot be started: {error}.'
                ) from error
            ours.pop_all()  # from here on for `_free`
        self._finalizer = weakref.finalize(self, _end, self._process)
        os.set_blocking(self._output_fd, False)
        self._poll = select.poll()
        self._poll.register(self._control, select.POLLIN)
        self._poll.register(self._output_fd, select.POLLIN)

    @property
    def fault(self) -> str:
        """Why it cannot run any more; empty while it can, or while ``run`` is under way."""
        if not self._lock.acquire(blocking=False):
            return ''
        try:
            if not self._fault and self._process.poll() is not None:
                self._fault = self._death('waiting')
            return self._fault
        finally:
            self._lock.release()

    @property
    def input_memory(self) -> npt.NDArray[Any] | None:
        """Where the child reads its input: ``run`` does not copy an image that was made there."""
        self._lent = True
        return self._image

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    def run(self, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """
        Run the network in the child.

        Parameters
        ----------
        image : uint8[H, W, 3] or int8[H, W, 3]
            As the input tensor says; best ``input_memory``.

        Returns
        -------
        ndarray
            The output without its batch axis; a copy.

        Raises
        ------
        DeviceError
            If the device fails, the child dies or does not answer within ``timeout_s``.

        """
        with self._lock:
            if self._fault:
                raise DeviceError(self._fault)
            memory, result = self._image, self._result
            if memory is None or result is None:
                raise DeviceError(f'{self.device}: the engine is closed.')
            if image is not memory:
                np.copyto(memory, image)
            self._ask(b'run', self.timeout_s, 'inferring')
            return result.copy()

    def close(self) -> None:
        """Let the child end, or end it if it is busy or does not obey; free everything."""
        idle = self._lock.acquire(blocking=False)
        if not idle:
            self._process.kill()
            self._lock.acquire()
        try:
            if self._closed:
                return
            self._closed, self._fault = True, f'{self.device}: the engine is closed.'
            self._control.close()
            self._reap(CLOSE_S if idle else 0.0)
            self._finalizer.detach()
            self._free()
            self._image = self._result = None
            memory, self._memory = self._memory, None
            # Whoever was lent the image may be writing to it: the memory goes with the last array
            # in it. (An array does not keep a mmap from being closed.)
            if memory is not None and not self._lent:
                memory.close()
        finally:
            self._lock.release()

    def _free(self) -> None:
        self._control.close()
        for fd in (self._memory_fd, self._lifeline_fd, self._output_fd):
            os.close(fd)

    def _ask(self, packet: bytes, timeout_s: float, doing: str) -> dict[str, Any]:
        """Send a packet and return the answer."""
        deadline_s = time.monotonic() + timeout_s
        try:
            self._control.send(packet)
            answer = self._receive(deadline_s)
        except (BrokenPipeError, ConnectionResetError):
            answer = b''
        except TimeoutError as error:
            self._give_up(f'still {doing} after {timeout_s:.1f} s: the device hangs'
                          f'{self._last_words()}.')
            raise DeviceError(self._fault) from error
        except InterruptedError as error:
            self._give_up(f'stopped while {doing}.')
            raise DeviceError(self._fault) from error
        except BaseException:  # Ctrl-C: the answer that is still to come would be the next run's
            self._give_up(f'interrupted while {doing}.')
            raise
        if not answer:
            self._reap(1.0)
            self._fault = self._death(doing)
            raise DeviceError(self._fault)
        if answer == DONE:
            return {}
        values: dict[str, Any] = json.loads(answer)
        if 'error' in values:
            kind = ModelError if values['error'] == 'ModelError' else DeviceError
            raise kind(values['message'])
        return values

    def _give_up(self, why: str) -> None:
        """End the child; ``close`` waits for that, which may take longer than a frame has."""
        self._fault = f'{self.device}: {why}'
        self._process.kill()

    def _receive(self, deadline_s: float) -> bytes:
        """Wait for an answer, reading what the child prints; empty if the child is gone."""
        while True:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            if self._stop is not None:
                if self._stop.is_set():
                    raise InterruptedError
                left_s = min(left_s, STOP_POLL_S)
            ready = [fd for fd, _ in self._poll.poll(left_s * 1e3)]
            if self._output_fd in ready:
                self._hear()
            if self._control.fileno() in ready:
                return self._control.recv(PACKET_BYTES)

    def _hear(self) -> None:
        """Keep the end of what the child printed."""
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self._output_fd, WORDS_BYTES):
                self._words = (self._words + chunk)[-WORDS_BYTES:]
            self._poll.unregister(self._output_fd)  # its end

    def _death(self, doing: str) -> str:
        """Return how the child ended, on one line."""
        return (f'{self.device}: the inference process ended while {doing} '
                f'({_ending(self._process.returncode)}){self._last_words()}.')

    def _last_words(self) -> str:
        with contextlib.suppress(KeyError):  # its end was read before
            self._hear()
        lines = [line.strip(' .') for line in self._words.decode(errors='replace').splitlines()
                 if line.strip() and not line.startswith('INFO')]
        return f'; it said: {lines[-1]}' if lines else ''

    def _reap(self, patience_s: float) -> None:
        """Wait for the child's end, and make it if that takes too long."""
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            # Inside a driver even a killed process may linger; Popen reaps it later then.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1.0)


def check_in_child(
    model: Path, allow_tensorflow: bool = True, *, timeout_s: float = 30.0,
    stop: threading.Event | None = None,
) -> None:
    """
    Load and run a model in a child process first: a damaged one may crash the runtime.

    Parameters
    ----------
    model : Path
        For the CPU.
    allow_tensorflow : bool
        See ``engine.find_runtime``.
    timeout_s : float
        Deadline of loading, and of the run.
    stop : threading.Event or None
        Ends it early when set.

    Raises
    ------
    ModelError
        If the runtime refuses the model, crashes or hangs.
    DeviceError
        If there is no runtime, or if stopped.

    """
    runtime, _, _ = find_runtime(allow_tensorflow)
    try:
        engine = IsolatedEngine(
            model, 1, allow_tensorflow=allow_tensorflow, timeout_s=timeout_s,
            open_timeout_s=timeout_s, stop=stop)
        try:
            engine.run(np.zeros(engine.input.shape[1:], engine.input.dtype))
        finally:
            engine.close()
    except DeviceError as error:
        if stop is not None and stop.is_set():
            raise
        raise ModelError(
            f'{model}: {runtime} cannot run it: {error} The file is damaged, or made for another '
            'runtime: copy it again, or export it again.') from error


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the child of an engine that nobody closed."""
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1.0)


def _ending(returncode: int | None) -> str:
    """Return how a process ended, in words."""
    if returncode is None:
        return 'it cannot be killed'
    if returncode >= 0:
        return f'exit code {returncode}'
    try:
        return signal.Signals(-returncode).name
    except ValueError:
        return f'signal {-returncode}'
