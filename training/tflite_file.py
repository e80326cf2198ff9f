"""
Read a ``.tflite`` file as it is: operations, versions, tensors, options.

No interpreter is involved, so a model that no runtime here can run is read all the same. The
schema comes with ``ai_edge_litert``, or with TensorFlow.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

_IDENTIFIER = b'TFL3'
_SCHEMAS = ('ai_edge_litert.schema_py_generated', 'tensorflow.lite.python.schema_py_generated')
#: What the generated readers raise on offsets that lead nowhere.
_DAMAGE = (AttributeError, IndexError, MemoryError, OverflowError, TypeError, UnicodeDecodeError,
           ValueError, struct.error)

#: Custom code of what ``edgetpu_compiler`` leaves in the place of the operations it mapped.
EDGETPU_CUSTOM_OP = 'edgetpu-custom-op'


class TfliteError(ValueError):
    """A ``.tflite`` file cannot be read."""


@dataclasses.dataclass(frozen=True)
class Tensor:
    """
    One tensor of the first subgraph.

    Parameters
    ----------
    index : int
    name : str
    dtype : str
        In lower case, as the schema names it: ``int8``, ``float32``.
    shape : tuple of int
    signature : tuple of int
        The shape with -1 where a dimension is dynamic.
    scales, zero_points : tuple
        Empty if not quantized; one entry, or one per channel.
    data : uint8[N] or None
        Raw bytes of a constant.

    """

    index: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    signature: tuple[int, ...]
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    data: npt.NDArray[np.uint8] | None

    @property
    def constant(self) -> bool:
        return self.data is not None

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def hwc(self) -> tuple[int, int, int]:
        """Return the three innermost dimensions, missing ones as 1."""
        h, w, c = ((1, 1, 1) + self.shape)[-3:]
        return h, w, c

    def values(self) -> npt.NDArray[Any]:
        """
        Return a constant's values.

        Raises
        ------
        TfliteError
            If the tensor is no constant or its type has no numpy counterpart.

        """
        if self.data is None:
            raise TfliteError(f'tensor {self.name!r}: not a constant.')
        try:
            return self.data.view(np.dtype(self.dtype)).reshape(self.shape)
        except (TypeError, ValueError) as error:
            raise TfliteError(f'tensor {self.name!r}: {error}.') from error

    def __str__(self) -> str:
        return f'{self.dtype}[{",".join(map(str, self.shape))}]'


@dataclasses.dataclass(frozen=True)
class Operation:
    """
    One operator of the first subgraph, in execution order.

    ``name`` is the schema's (``CONV_2D``), or a custom operator's own code. ``inputs`` leaves out
    optional ones that are absent. ``options`` holds the schema's fields under their own names.
    """

    index: int
    code: int
    name: str
    version: int
    custom: bool
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    options: Mapping[str, Any]
    custom_options: bytes

    @property
    def activations(self) -> tuple[Tensor, ...]:
        """Return the inputs that are computed, not stored."""
        return tuple(tensor for tensor in self.inputs if not tensor.constant)

    @property
    def constants(self) -> tuple[Tensor, ...]:
        return tuple(tensor for tensor in self.inputs if tensor.constant)


@dataclasses.dataclass(frozen=True)
class TfliteFile:
    """A model's first subgraph, and how many there are."""

    path: Path
    size: int
    description: str
    subgraphs: int
    operations: tuple[Operation, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def compiled(self) -> tuple[Operation, ...]:
        """Return what ``edgetpu_compiler`` put there."""
        return tuple(operation for operation in self.operations
                     if operation.custom and operation.name == EDGETPU_CUSTOM_OP)


def read_tflite(path: Path) -> TfliteFile:
    """
    Read a model file.

    Raises
    ------
    TfliteError
        If the file is missing, no ``.tflite``, damaged, or no schema is installed.

    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TfliteError(f'{path}: cannot be read: {error.strerror}.') from error
    if content[4:8] != _IDENTIFIER:
        raise TfliteError(
            f'{path}: found {content[4:8]!r} behind its first four bytes, expected '
            f'{_IDENTIFIER!r}; not a .tflite file.')
    schema = _schema()
    try:
        return _parsed(schema, path, content)
    except _DAMAGE as error:
        raise TfliteError(
            f'{path}: damaged ({type(error).__name__}: {error}); copy or convert it again.'
        ) from error


def _schema() -> ModuleType:
    for name in _SCHEMAS:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise TfliteError(
        'no TFLite schema is installed; pip install ai-edge-litert (or tensorflow).')


def _names(enumeration: type) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


def _tuple(values: Any) -> tuple[Any, ...]:
    return () if values is None else tuple(np.asarray(values).ravel().tolist())


def _parsed(schema: ModuleType, path: Path, content: bytes) -> TfliteFile:
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    types, builtins = _names(schema.TensorType), _names(schema.BuiltinOperator)
    graph = model.subgraphs[0]
    tensors = []
    for index, raw in enumerate(graph.tensors):
        data = model.buffers[raw.buffer].data
        shape = _tuple(raw.shape)
        signature = _tuple(raw.shapeSignature)
        quantization = raw.quantization
        tensors.append(Tensor(
            index, (raw.name or b'').decode(), types[raw.type].lower(), shape, signature or shape,
            _tuple(quantization.scale) if quantization else (),
            _tuple(quantization.zeroPoint) if quantization else (),
            None if data is None or len(data) == 0 else np.asarray(data, np.uint8)))

    def chosen(indices: Any) -> tuple[Tensor, ...]:
        found = [index for index in _tuple(indices) if index != -1]
        if any(index < 0 for index in found):
            raise IndexError(f'tensor index {min(found)}')
        return tuple(tensors[index] for index in found)

    operations = []
    for index, raw in enumerate(graph.operators or ()):
        code = model.operatorCodes[raw.opcodeIndex]
        # Codes above 127 did not fit the field of old files.
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        custom = number == schema.BuiltinOperator.CUSTOM
        name = ((code.customCode or b'').decode() if custom
                else builtins.get(number, f'operator {number}'))
        custom_options = raw.customOptions
        operations.append(Operation(
            index, number, name, code.version, custom, chosen(raw.inputs), chosen(raw.outputs),
            dict(vars(raw.builtinOptions)) if raw.builtinOptions else {},
            b'' if custom_options is None else np.asarray(custom_options, np.uint8).tobytes()))
    return TfliteFile(
        path, len(content), (model.description or b'').decode(), len(model.subgraphs),
        tuple(operations), chosen(graph.inputs), chosen(graph.outputs))
