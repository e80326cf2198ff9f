"""
The child process of ``isolation.IsolatedEngine``: an engine behind a socket and shared memory.

``main`` takes two inherited file descriptors: a sequenced-packet socket and an empty memory file.
First a request comes in as JSON
(``LiteRtEngine``'s parameters); the worker opens the engine, sizes the memory for both tensors and
answers with what it opened. Then every packet means "run": the input lies in the memory, and so
does the output when the answer, empty JSON, goes back. An answer with ``error`` holds the name of
an exception and its message. Standard input carries nothing: its end is the parent's end.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import resource
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bisenet_ros.core.engine import LiteRtEngine, TensorSpec
from bisenet_ros.core.errors import DeviceError, ModelError

#: No packet is longer.
PACKET_BYTES = 1 << 16

#: The answer to "run": the output lies in the memory.
DONE = b'{}'

#: Tensors begin at multiples of it.
ALIGNMENT_BYTES = 64


def spec_to_json(spec: TensorSpec) -> dict[str, Any]:
    """Return what ``spec_from_json`` reads."""
    return {'name': spec.name, 'shape': spec.shape, 'dtype': spec.dtype.str,
            'scale': spec.scale, 'zero_point': spec.zero_point}


def spec_from_json(values: dict[str, Any]) -> TensorSpec:
    """Return the tensor that ``spec_to_json`` described."""
    return TensorSpec(values['name'], tuple(values['shape']), np.dtype(values['dtype']),
                      values['scale'], values['zero_point'])


def memory_bytes(image: TensorSpec, result: TensorSpec) -> int:
    """Return how much memory both tensors take."""
    return _offset(image) + _size(result)


def tensors(
    memory: mmap.mmap, image: TensorSpec, result: TensorSpec,
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the two tensors in the memory, without their batch axis."""
    return (np.ndarray(image.shape[1:], image.dtype, memory),
            np.ndarray(result.shape[1:], result.dtype, memory, _offset(image)))


def _size(spec: TensorSpec) -> int:
    return int(np.prod(spec.shape)) * spec.dtype.itemsize


def _offset(image: TensorSpec) -> int:
    return -(-_size(image) // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def _end_with_parent() -> None:
    """
    Let the kernel end this process when its parent, which holds the other end of stdin, is gone.

    That works even inside a library call that hangs with Python's lock held, where no thread of
    ours would run. ``PR_SET_PDEATHSIG`` is no way: it goes by the parent's thread, not process.

    """
    stdin = sys.stdin.fileno()
    signal.signal(signal.SIGIO, signal.SIG_DFL)  # which ends the process
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGIO})
    fcntl.fcntl(stdin, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(stdin, fcntl.F_SETFL, fcntl.fcntl(stdin, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([stdin], [], [], 0)[0]:
        sys.exit(1)  # it went before we looked


def serve(control: socket.socket, memory_fd: int) -> int:
    """Answer requests until the other side closes the socket; return the exit code."""
    request = json.loads(control.recv(PACKET_BYTES))
    try:
        engine = LiteRtEngine(Path(request.pop('model')), **request)
    except (ModelError, DeviceError) as error:
        _send_error(control, error)
        return 1
    os.ftruncate(memory_fd, memory_bytes(engine.input, engine.output))
    with mmap.mmap(memory_fd, 0) as memory:
        image, result = tensors(memory, engine.input, engine.output)
        _send(control, {
            'device': engine.device, 'runtime': engine.runtime,
            'input': spec_to_json(engine.input), 'output': spec_to_json(engine.output)})
        while control.recv(PACKET_BYTES):
            try:
                np.copyto(result, engine.run(image))
            except DeviceError as error:
                _send_error(control, error)
            else:
                control.send(DONE)
        del image, result  # or the memory cannot be closed
    engine.close()
    return 0


def _send(control: socket.socket, answer: dict[str, Any]) -> None:
    control.send(json.dumps(answer).encode())


def _send_error(control: socket.socket, error: ModelError | DeviceError) -> None:
    _send(control, {'error': type(error).__name__, 'message': str(error)})


def main(arguments: list[str]) -> int:
    """Serve one parent."""
    for number in (signal.SIGINT, signal.SIGHUP):  # the terminal's are the parent's business
        signal.signal(number, signal.SIG_IGN)
    _end_with_parent()
    # An abort is expected here: no core file for each, on a robot's memory card.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with socket.socket(fileno=int(arguments[0])) as control:
        try:
            return serve(control, int(arguments[1]))
        except BrokenPipeError:  # the parent closed while we worked
            return 0
