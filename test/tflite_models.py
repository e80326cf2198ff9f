"""
Tiny ``.tflite`` files whose arithmetic is known exactly, written without TensorFlow.

A pointwise convolution with integer weights looks at one pixel of every cell. All scales are
chosen so that the requantization multiplier is 1: the int8 result is a sum of bytes, clipped, and
every runtime must give it to the bit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bisenet_ros.core.contract import ModelContract, file_sha256, palette

_REASON = 'tiny models are written with the schema that comes with ai-edge-litert'
flatbuffers = pytest.importorskip('flatbuffers', reason=_REASON)
schema = pytest.importorskip('ai_edge_litert.schema_py_generated', reason=_REASON)

#: What follows ``Toy.file``'s first four bytes.
IDENTIFIER = b'TFL3'

INPUT_SCALE = 1 / 255


@dataclasses.dataclass(frozen=True)
class Toy:
    """
    A network that adds up the channels of one pixel per cell.

    Parameters
    ----------
    weights : tuple of (int, int, int)
        One row per class: what the red, green and blue byte count.
    bias : tuple of int
        One per class.
    input_hw, stride
        As in the contract; the pixel that counts is the upper left one of each cell.
    input_dtype : str
        ``uint8`` with zero point 0, or ``int8`` with zero point -128: both mean byte / 255.
    kind : str
        ``logits``: int8[h, w, C], clipped; ``labels``: int64[h, w], their largest's index.
    scale, zero_point : float, int
        Quantization of the logits.

    """

    weights: tuple[tuple[int, int, int], ...] = ((0, 0, 0), (1, 0, -1))
    bias: tuple[int, ...] = (0, 0)
    input_hw: tuple[int, int] = (32, 64)
    stride: int = 8
    input_dtype: str = 'uint8'
    kind: str = 'logits'
    scale: float = 0.125
    zero_point: int = 19

    def scores(self, rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.int8]:
        """Return ``int8[h, w, C]`` for ``uint8[H, W, 3]`` of the input's size."""
        pixels = rgb[::self.stride, ::self.stride].astype(np.int64)
        sums = pixels @ np.array(self.weights).T + np.array(self.bias) + self.zero_point
        return np.clip(sums, -128, 127).astype(np.int8)

    def output(self, rgb: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """Return what the runtime must return for ``uint8[H, W, 3]``, without the batch axis."""
        scores = self.scores(rgb)
        return scores if self.kind == 'logits' else scores.argmax(-1)

    def contract(self, **changes: Any) -> ModelContract:
        """Return the contract that fits, but for its hash, with some fields changed."""
        names = ('background', 'road', *(f'class{i}' for i in range(2, len(self.weights))))
        return dataclasses.replace(ModelContract(
            input_hw=self.input_hw, channels='rgb', input_scale=(INPUT_SCALE,) * 3,
            input_mean=(0.0,) * 3, output_kind=self.kind, output_stride=self.stride,
            class_names=names, class_colors_rgb=palette(len(names))), **changes)

    def model(self) -> Any:
        """Return the model as objects, to be damaged on purpose."""
        height, width = self.input_hw
        cells = [1, -(-height // self.stride), -(-width // self.stride)]
        count = len(self.weights)
        graph = Graph()
        image = graph.tensor('image', [1, height, width, 3], self.input_dtype, INPUT_SCALE,
                             0 if self.input_dtype == 'uint8' else -128)
        signed = image
        if self.input_dtype == 'uint8':
            signed = graph.tensor('signed', [1, height, width, 3], 'int8', INPUT_SCALE, -128)
            graph.operator('QUANTIZE', [image], [signed], schema.QuantizeOptionsT())
        # multiplier = input scale * weight scale / output scale = 1
        weight_scale = self.scale / INPUT_SCALE
        weights = graph.constant(
            'weights', np.int8(self.weights).reshape(count, 1, 1, 3), weight_scale)
        bias = graph.constant('bias', np.int32(self.bias), self.scale)
        result = graph.tensor('scores', [*cells, count], 'int8', self.scale, self.zero_point)
        options = schema.Conv2DOptionsT()
        options.padding = schema.Padding.VALID
        options.strideH = options.strideW = self.stride
        options.dilationHFactor = options.dilationWFactor = 1
        graph.operator('CONV_2D', [signed, weights, bias], [result], options)
        if self.kind == 'labels':
            axis = graph.constant('axis', np.int32([3]))
            scores, result = result, graph.tensor('labels', cells, 'int64')
            arg_max = schema.ArgMaxOptionsT()
            arg_max.outputType = schema.TensorType.INT64
            graph.operator('ARG_MAX', [scores, axis], [result], arg_max)
        return graph.model([image], [result])

    def file(self, damage: Callable[[Any], None] | None = None) -> bytes:
        """Return the bytes of the ``.tflite`` file, its objects changed by ``damage``."""
        model = self.model()
        if damage:
            damage(model)
        return packed(model)

    def save(self, folder: Path, name: str = 'toy', **contract_changes: Any) -> Path:
        """Write ``<name>.tflite`` and its contract; return the model's path."""
        path = folder / f'{name}.tflite'
        path.write_bytes(self.file())
        changes = {'sha256': file_sha256(path), **contract_changes}
        path.with_suffix('.json').write_text(self.contract(**changes).to_json(), 'utf-8')
        return path


def packed(model: Any) -> bytes:
    """Return the bytes of a model."""
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def float_model(hw: tuple[int, int] = (32, 64)) -> bytes:
    """Return a model without quantization: ``float32[1, H, W, 3]`` in, its positive part out."""
    graph = Graph()
    image = graph.tensor('image', [1, *hw, 3], 'float32')
    result = graph.tensor('result', [1, *hw, 3], 'float32')
    graph.operator('RELU', [image], [result])
    return packed(graph.model([image], [result]))


def compiled_model(hw: tuple[int, int] = (32, 64)) -> bytes:
    """Return what ``edgetpu_compiler`` leaves: one custom operator from image to scores."""
    graph = Graph()
    image = graph.tensor('image', [1, *hw, 3], 'uint8', INPUT_SCALE)
    result = graph.tensor('scores', [1, hw[0] // 8, hw[1] // 8, 2], 'int8', 0.125, 19)
    graph.operator('CUSTOM', [image], [result], custom=b'edgetpu-custom-op')
    return packed(graph.model([image], [result]))


class Graph:
    """One subgraph under construction."""

    def __init__(self) -> None:
        self._tensors: list[Any] = []
        self._operators: list[Any] = []
        self._codes: list[Any] = []
        self._buffers = [schema.BufferT()]  # the first one is empty by convention

    def tensor(
        self, name: str, shape: list[int], dtype: str, scale: float = 0.0, zero_point: int = 0,
        buffer: int = 0,
    ) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name.encode(), shape, buffer
        tensor.type = getattr(schema.TensorType, dtype.upper())
        if scale:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = [scale]
            tensor.quantization.zeroPoint = [zero_point]
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def constant(self, name: str, values: npt.NDArray[Any], scale: float = 0.0) -> int:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        self._buffers.append(buffer)
        return self.tensor(
            name, list(values.shape), str(values.dtype), scale, buffer=len(self._buffers) - 1)

    def operator(
        self, name: str, inputs: list[int], outputs: list[int], options: Any = None,
        custom: bytes = b'',
    ) -> None:
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, name)
        # Old readers look here; it is a byte, and 127 means: look at the other field.
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.customCode = custom or None
        code.version = 3 if name == 'CONV_2D' else 1  # 3: int8
        self._codes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self._codes) - 1
        operator.inputs, operator.outputs = inputs, outputs
        if options is not None:
            operator.builtinOptions = options
            operator.builtinOptionsType = getattr(
                schema.BuiltinOptions, type(options).__name__.removesuffix('T'))
        self._operators.append(operator)

    def model(self, inputs: list[int], outputs: list[int]) -> Any:
        subgraph = schema.SubGraphT()
        subgraph.tensors, subgraph.operators = self._tensors, self._operators
        subgraph.inputs, subgraph.outputs = inputs, outputs
        model = schema.ModelT()
        model.version = 3
        model.subgraphs, model.operatorCodes = [subgraph], self._codes
        model.buffers = self._buffers
        return model
