"""
An EdgeTPU without an EdgeTPU: a libedgetpu of our own, compiled models for it, faults on command.

``libedgetpu.c`` says what it can do.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from bisenet_ros.core.engine import LiteRtEngine

_REASON = 'compiled models are written with the schema that comes with ai-edge-litert'
flatbuffers = pytest.importorskip('flatbuffers', reason=_REASON)
flexbuffers = pytest.importorskip('flatbuffers.flexbuffers', reason=_REASON)
schema = pytest.importorskip('ai_edge_litert.schema_py_generated', reason=_REASON)

SOURCE = Path(__file__).with_name('libedgetpu.c')

#: What Google's compiler names its operator.
CUSTOM_OP = 'edgetpu-custom-op'


@functools.cache
def library() -> Path:
    """Compile the stand-in as ``libedgetpu.so.1``; skip the test where there is no compiler."""
    compiler = shutil.which(os.environ.get('CC', 'cc')) or shutil.which('gcc')
    if compiler is None:
        pytest.skip('no C compiler (cc, gcc): the stand-in for libedgetpu cannot be built')
    folder = tempfile.mkdtemp(prefix='standin')
    atexit.register(shutil.rmtree, folder)
    built = Path(folder) / 'libedgetpu.so.1'
    subprocess.run(
        [compiler, '-std=gnu11', '-O1', '-Wall', '-Wextra', '-Werror', '-shared', '-fPIC',
         '-fvisibility=hidden', '-o', built, SOURCE], check=True)
    return built


def compiled_twin(model: Path, path: Path) -> Path:
    """
    Write what ``edgetpu_compiler`` makes of a model that maps whole: one custom operator.

    Its input and output are those of ``model``; there are no instructions in it.

    """
    source = schema.ModelT.InitFromPackedBuf(model.read_bytes(), 0)
    graph = source.subgraphs[0]
    tensors = [graph.tensors[index] for index in (*graph.inputs, *graph.outputs)]
    for tensor in tensors:
        tensor.buffer = 0
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = CUSTOM_OP
    code.version = 1
    operator = schema.OperatorT()
    operator.opcodeIndex = 0
    operator.inputs = list(range(len(graph.inputs)))
    operator.outputs = list(range(len(graph.inputs), len(tensors)))
    operator.customOptions = list(flexbuffers.Dumps({'1': 1}))
    operator.customOptionsFormat = schema.CustomOptionsFormat.FLEXBUFFERS
    whole = schema.SubGraphT()
    whole.name = 'main'
    whole.tensors, whole.operators = tensors, [operator]
    whole.inputs, whole.outputs = operator.inputs, operator.outputs
    compiled = schema.ModelT()
    compiled.version = 3
    compiled.description = 'EdgeTpu CustomOp Model.'
    compiled.operatorCodes, compiled.subgraphs = [code], [whole]
    compiled.buffers = [schema.BufferT()]
    builder = flatbuffers.Builder(1024)
    builder.Finish(compiled.Pack(builder), b'TFL3')
    path.write_bytes(bytes(builder.Output()))
    return path


class Twin:
    """Answer the stand-in's kernel with what the CPU makes of the same image."""

    def __init__(self, model: Path, address: Path) -> None:
        self._engine = LiteRtEngine(model, num_threads=1)
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(address))
        self._server.listen()
        self.served = 0
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        image = self._engine.input
        size = int(np.prod(image.shape))
        while True:
            connection, _ = self._server.accept()
            with connection, connection.makefile('rb') as stream:
                data = stream.read(size)
                if len(data) < size:
                    if not data:
                        return  # of ``close``
                    continue  # the kernel's process was killed
                pixels = np.frombuffer(data, image.dtype).reshape(image.shape[1:])
                result = self._engine.run(pixels).tobytes()
                self.served += 1  # first: whoever has the answer may look at once
                connection.sendall(result)

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(self._server.getsockname())
        self._thread.join()
        self._server.close()


class StandIn:
    """
    A stand-in at work, for as long as the context lasts.

    Parameters
    ----------
    model : Path
        The CPU model; the compiled one is written beside it.
    monkeypatch : pytest.MonkeyPatch
        Sets ``environment``, in which a new process meets the stand-in as libedgetpu.

    """

    def __init__(self, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.library = library()
        self.model = model
        self.compiled = compiled_twin(model, model.with_name(f'{model.stem}_edgetpu.tflite'))
        # Not the test's own folder: the path of a Unix socket is at most 107 bytes long.
        # A child that was killed with its parent may yet lock a device in it.
        self._folder = tempfile.TemporaryDirectory(prefix='standin', ignore_cleanup_errors=True)
        folder = Path(self._folder.name)
        self._control, self._log = folder / 'control', folder / 'log'
        self.behave('')
        self._twin = Twin(model, folder / 'twin')
        libraries = [str(self.library.parent), os.environ.get('LD_LIBRARY_PATH', '')]
        self.environment: Mapping[str, str] = {
            'STANDIN_CONTROL': str(self._control), 'STANDIN_TWIN': str(folder / 'twin'),
            'STANDIN_LOG': str(self._log), 'LD_LIBRARY_PATH': ':'.join(filter(None, libraries))}
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)

    def __enter__(self) -> StandIn:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._twin.close()
        self._folder.cleanup()

    def behave(self, words: str) -> None:
        """Say how it behaves from now on: words of ``libedgetpu.c``; empty: it works."""
        fresh = self._control.with_suffix('.new')
        fresh.write_text(words)
        fresh.replace(self._control)  # whole, so that nobody reads half of it

    @property
    def served(self) -> int:
        """How many images it has computed."""
        return self._twin.served

    @property
    def opened(self) -> list[dict[str, str]]:
        """The options of every delegate that opened a device."""
        return [dict(word.split('=', 1) for word in line.split()[1:])
                for line in self._log_lines() if line.startswith('opened')]

    @property
    def hangs(self) -> bool:
        """Whether it has begun to hang."""
        return 'hangs' in self._log_lines()

    def _log_lines(self) -> list[str]:
        return self._log.read_text().splitlines() if self._log.exists() else []


def wait_until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Wait for something, which must come."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, 'it did not come'
        time.sleep(0.02)
