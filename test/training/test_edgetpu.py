"""The checker knows its rules and reads Google's pairs; every answer of the compiler is met."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import pytest

_REASON = 'tiny models are written with the schema that comes with ai-edge-litert'
flatbuffers = pytest.importorskip('flatbuffers', reason=_REASON)
flexbuffers = pytest.importorskip('flatbuffers.flexbuffers', reason=_REASON)
schema = pytest.importorskip('ai_edge_litert.schema_py_generated', reason=_REASON)

from training import edgetpu  # noqa: E402
from training.edgetpu import CompilerError, check_model, compile_model  # noqa: E402
from training.edgetpu_cost import LINKS  # noqa: E402
from training.edgetpu_log import parse_log  # noqa: E402
from training.edgetpu_package import PackageError, read_package  # noqa: E402
from training.edgetpu_rules import LAST_BUILTIN, Verdict, tile_bytes  # noqa: E402
from training.tflite_file import TfliteError, read_tflite  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
CORAL = ROOT / '..' / 'shared' / 'data' / 'coral'
SHIPPED = ROOT / 'bisenet_ros' / 'models' / 'road_256x512.tflite'
DEEPLAB = CORAL / 'deeplab_mobilenet_edgetpu_slim_cityscapes_quant.tflite'
SPLIT_CONCAT = CORAL / 'split_concat.tflite'
needs_coral = pytest.mark.skipif(
    not CORAL.is_dir(), reason="Google's compiled models are not there (data/coral)")


# -- tiny models -------------------------------------------------------------------------------


class Graph:
    """A ``.tflite`` under construction, operator versions and all."""

    def __init__(self) -> None:
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self.codes: list[Any] = []
        self.buffers = [schema.BufferT()]

    def tensor(
        self, shape: Sequence[int], dtype: str = 'int8', *, scale: float = 0.5,
        data: npt.NDArray[Any] | None = None, signature: Sequence[int] | None = None,
    ) -> int:
        tensor = schema.TensorT()
        tensor.name = f't{len(self.tensors)}'.encode()
        tensor.shape, tensor.buffer = list(shape), 0
        tensor.type = getattr(schema.TensorType, dtype.upper())
        tensor.shapeSignature = signature
        if dtype in ('int8', 'uint8') and scale:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [0]
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data.tobytes(), np.uint8)
            self.buffers.append(buffer)
            tensor.buffer = len(self.buffers) - 1
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def constant(self, values: Any, dtype: str = 'int32') -> int:
        array = np.array(values, dtype)
        return self.tensor(array.shape, dtype, data=array)

    def add(
        self, name: str, inputs: Sequence[int], outputs: Sequence[int], *, version: int = 1,
        custom: bytes = b'', custom_options: bytes = b'', kind: str = '', **options: Any,
    ) -> None:
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version, code.customCode = version, custom or None
        self.codes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self.codes) - 1
        operator.inputs, operator.outputs = list(inputs), list(outputs)
        if kind:
            operator.builtinOptions = getattr(schema, f'{kind}T')()
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            for field, value in options.items():
                setattr(operator.builtinOptions, field, value)
        if custom_options:
            operator.customOptions = np.frombuffer(custom_options, np.uint8)
        self.operators.append(operator)

    def convolution(
        self, source: int, width: int, *, kernel: int = 3, stride: int = 1, version: int = 3,
        name: str = 'CONV_2D', filtered: int | None = None, **options: Any,
    ) -> int:
        _, h, w, c = self.tensors[source].shape
        depthwise = name == 'DEPTHWISE_CONV_2D'
        shape = ((1, kernel, kernel, width) if depthwise
                 else (width, kernel, kernel, filtered or c))
        weights = self.tensor(shape, data=np.ones(shape, np.int8))
        bias = self.constant(np.zeros(width))
        result = self.tensor((1, -(-h // stride), -(-w // stride), width))
        self.add(name, [source, weights, bias], [result], version=version,
                 kind='DepthwiseConv2DOptions' if depthwise else 'Conv2DOptions',
                 **{'dilationHFactor': 1, 'dilationWFactor': 1, 'strideH': stride,
                    'strideW': stride, **options})
        return result

    def unary(
        self, name: str, source: int, shape: Sequence[int] | None = None, dtype: str = 'int8',
        extra: Sequence[int] = (), version: int = 1, kind: str = '', **options: Any,
    ) -> int:
        result = self.tensor(
            self.tensors[source].shape if shape is None else shape, dtype)
        self.add(name, [source, *extra], [result], version=version, kind=kind, **options)
        return result

    def file(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        subgraph = schema.SubGraphT()
        subgraph.tensors, subgraph.operators = self.tensors, self.operators
        subgraph.inputs, subgraph.outputs = list(inputs), list(outputs)
        model = schema.ModelT()
        model.version, model.subgraphs = 3, [subgraph]
        model.operatorCodes, model.buffers = self.codes, self.buffers
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b'TFL3')
        return bytes(builder.Output())

    def save(
        self, folder: Path, inputs: Sequence[int], outputs: Sequence[int], name: str = 'model',
    ) -> Path:
        path = folder / f'{name}.tflite'
        path.write_bytes(self.file(inputs, outputs))
        return path


def road_like(graph: Graph) -> tuple[int, int]:
    """Add image to logits at stride 8 in three mappable operations; return both ends."""
    image = graph.tensor((1, 64, 128, 3), 'uint8')
    signed = graph.unary('QUANTIZE', image)
    features = graph.convolution(signed, 16, stride=8)
    return image, graph.convolution(features, 2, kernel=1)


def judged(tmp_path: Path, graph: Graph, source: int, result: int) -> Any:
    """Return the judgement of a graph's last operation."""
    return check_model(graph.save(tmp_path, [source], [result])).operations[-1]


# -- packages ----------------------------------------------------------------------------------


class RawText(str):
    """Bytes that flexbuffers' builder takes for a string, as the compiler writes them."""

    __slots__ = ('raw',)

    def encode(self, *_: Any) -> bytes:
        return self.raw  # type: ignore[no-any-return]


def raw_text(content: bytes) -> RawText:
    text = RawText('package')
    text.raw = content
    return text


def executable(
    kind: int, *, instructions: int = 100, parameters: int = 0, scratch: int = 0,
    dma: Sequence[tuple[int, int, int]] = (),
) -> bytes:
    """Pack one program; ``dma`` holds (base, direction, bytes), see executable.fbs."""
    builder = flatbuffers.Builder(256)
    stream = builder.CreateByteVector(bytes(instructions))
    builder.StartObject(2)
    builder.PrependUOffsetTRelativeSlot(0, stream, 0)
    streams = vector(builder, [builder.EndObject()])
    hints = []
    for base, direction, size in dma:
        builder.StartObject(4)
        builder.PrependInt16Slot(0, base, 0)
        meta = builder.EndObject()
        builder.StartObject(3)
        builder.PrependUOffsetTRelativeSlot(0, meta, 0)
        builder.PrependInt32Slot(2, size, 0)
        descriptor = builder.EndObject()
        builder.StartObject(3)
        builder.PrependUint8Slot(0, 1, 0)
        builder.PrependUOffsetTRelativeSlot(1, descriptor, 0)
        builder.PrependInt16Slot(2, direction, 0)
        hints.append(builder.EndObject())
    all_hints = vector(builder, hints)
    builder.StartObject(2)
    builder.PrependUOffsetTRelativeSlot(0, all_hints, 0)
    dma_hints = builder.EndObject()
    weights = builder.CreateByteVector(bytes(parameters))
    chip = builder.CreateString('beagle')
    builder.StartObject(17)
    builder.PrependInt32Slot(4, scratch, 0)
    builder.PrependUOffsetTRelativeSlot(5, streams, 0)
    builder.PrependUOffsetTRelativeSlot(6, weights, 0)
    builder.PrependUOffsetTRelativeSlot(7, dma_hints, 0)
    builder.PrependUOffsetTRelativeSlot(10, chip, 0)
    builder.PrependInt32Slot(12, 1234, 0)
    builder.PrependInt16Slot(13, kind, 0)
    builder.Finish(builder.EndObject())
    return bytes(builder.Output())


def vector(builder: Any, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def package(*executables: bytes, min_runtime: int = 14, identifier: bytes = b'DWN1') -> bytes:
    """Pack programs as the custom options of an ``edgetpu-custom-op``."""
    builder = flatbuffers.Builder(256)
    programs = vector(builder, [builder.CreateString(content) for content in executables])
    builder.StartObject(1)
    builder.PrependUOffsetTRelativeSlot(0, programs, 0)
    builder.Finish(builder.EndObject())
    multi = bytes(builder.Output())
    builder = flatbuffers.Builder(256)
    content = builder.CreateByteVector(multi)
    version = builder.CreateString('cl/384591198')
    builder.StartObject(8)
    builder.PrependInt32Slot(0, min_runtime, 0)
    builder.PrependUOffsetTRelativeSlot(1, content, 0)
    builder.PrependUOffsetTRelativeSlot(4, version, 0)
    builder.Finish(builder.EndObject(), identifier)
    options = flexbuffers.Builder()
    with options.Map():
        options.Key('1')
        options.Int(0)
        options.Key('4')
        options.String(raw_text(bytes(builder.Output())))
    return bytes(options.Finish())


PACKAGE = package(
    executable(2, instructions=300, scratch=64, dma=[
        (1, 0, 24576), (0, 1, 512), (3, 1, 64), (3, 0, 128), (3, 0, 128)]),
    executable(1, parameters=4096, dma=[(2, 0, 4096)]))


def compiled_file(
    options: bytes = PACKAGE, *, outputs: Sequence[int] = (1, 8, 16, 2), tail: bool = False,
    scale: float = 0.5,
) -> bytes:
    """Return what a compiler makes of ``road_like``."""
    graph = Graph()
    image = graph.tensor((1, 64, 128, 3), 'uint8')
    result = graph.tensor(outputs, scale=scale)
    graph.add('CUSTOM', [image], [result], custom=b'edgetpu-custom-op', custom_options=options)
    if tail:
        inner, result = result, graph.tensor(outputs, scale=scale)
        graph.add('LOGISTIC', [inner], [result])
    return graph.file([image], [result])


# -- reading files -----------------------------------------------------------------------------


def test_file_is_read_as_it_is(tmp_path: Path) -> None:
    graph = Graph()
    image, logits = road_like(graph)
    model = read_tflite(graph.save(tmp_path, [image], [logits]))
    assert [operation.name for operation in model.operations] == ['QUANTIZE', 'CONV_2D', 'CONV_2D']
    assert [operation.version for operation in model.operations] == [1, 3, 3]
    first = model.operations[1]
    assert [str(tensor) for tensor in first.activations] == ['int8[1,64,128,3]']
    assert [str(tensor) for tensor in first.constants] == ['int8[16,3,3,3]', 'int32[16]']
    assert first.options['strideH'] == 8
    assert model.inputs[0].scales == (0.5,) and model.inputs[0].zero_points == (0,)
    np.testing.assert_array_equal(first.constants[1].values(), np.zeros(16))
    with pytest.raises(TfliteError, match="tensor 't0': not a constant"):
        model.inputs[0].values()


@pytest.mark.parametrize(('content', 'message'), [
    (b'', 'not a .tflite file'),
    (b'\x1c\x00\x00\x00TFL', 'not a .tflite file'),
    (b'\x89PNG\r\n\x1a\n' + bytes(40), 'not a .tflite file'),
    (b'\x1c\x00\x00\x00TFL3', 'damaged'),
    (b'\xff\xff\xff\x7fTFL3' + bytes(64), 'damaged'),
])
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / 'odd.tflite'
    path.write_bytes(content)
    with pytest.raises(TfliteError, match=rf'odd\.tflite: .*{message}'):
        read_tflite(path)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TfliteError, match=r'absent\.tflite: cannot be read: No such file'):
        check_model(tmp_path / 'absent.tflite')


def test_truncated_files_end_in_our_error(tmp_path: Path) -> None:
    graph = Graph()
    image, logits = road_like(graph)
    content = graph.file([image], [logits])
    path = tmp_path / 'cut.tflite'
    refused = 0
    for size in range(8, len(content), 97):
        path.write_bytes(content[:size])
        try:
            check_model(path)
        except TfliteError:
            refused += 1
    assert refused > 5


# -- rules, one operation each -------------------------------------------------------------------


def test_plain_network_is_seen_mapped(tmp_path: Path) -> None:
    graph = Graph()
    image, logits = road_like(graph)
    report = check_model(graph.save(tmp_path, [image], [logits]))
    assert report.verdict == Verdict.SEEN
    assert (report.mapped, report.subgraphs) == (3, 1)
    assert report.counts[Verdict.SEEN] == 3


@pytest.mark.parametrize(('version', 'verdict', 'reason'), [
    (3, Verdict.SEEN, 'compiled models'),
    (5, Verdict.CPU, 'Operation version not supported: 5, mapped are up to 3'),
    (6, Verdict.FAIL, "Didn't find op for builtin opcode 'CONV_2D' version '6'"),
])
def test_versions_against_the_ceiling(
    tmp_path: Path, version: int, verdict: Verdict, reason: str,
) -> None:
    graph = Graph()
    image = graph.tensor((1, 32, 32, 4))
    last = judged(tmp_path, graph, image, graph.convolution(image, 8, version=version))
    assert last.verdict == verdict
    assert reason in last.reason


@pytest.mark.parametrize(('name', 'version', 'verdict'), [
    ('RELU', 1, Verdict.LIKELY),
    ('LOGISTIC', 2, Verdict.SEEN),
    ('TANH', 2, Verdict.LIKELY),
    ('HARD_SWISH', 1, Verdict.CPU),
    ('LEAKY_RELU', 2, Verdict.CPU),
    ('QUANTIZE', 3, Verdict.FAIL),
    ('DEPTH_TO_SPACE', 1, Verdict.CPU),
    ('DEPTH_TO_SPACE', 2, Verdict.FAIL),
    ('EXP', 2, Verdict.FAIL),
    ('TRANSPOSE_CONV', 3, Verdict.UNKNOWN),
    ('TRANSPOSE_CONV', 4, Verdict.FAIL),
    ('GELU', 1, Verdict.FAIL),
])
def test_operators(tmp_path: Path, name: str, version: int, verdict: Verdict) -> None:
    graph = Graph()
    image = graph.tensor((1, 16, 16, 8))
    last = judged(tmp_path, graph, image, graph.unary(name, image, version=version))
    assert last.verdict == verdict, last.reason


def test_newer_operators_are_out_of_range(tmp_path: Path) -> None:
    assert schema.BuiltinOperator.GELU == 150 > LAST_BUILTIN
    graph = Graph()
    image = graph.tensor((1, 8, 8, 4))
    assert 'Op builtin_code out of range: 150' in judged(
        tmp_path, graph, image, graph.unary('GELU', image)).reason


def test_custom_operators(tmp_path: Path) -> None:
    for code, verdict in ((b'FlexErf', Verdict.FAIL),
                          (b'TFLite_Detection_PostProcess', Verdict.CPU)):
        graph = Graph()
        image, result = graph.tensor((1, 8, 8, 4)), graph.tensor((1, 8, 8, 4))
        graph.add('CUSTOM', [image], [result], custom=code)
        assert judged(tmp_path, graph, image, result).verdict == verdict


@pytest.mark.parametrize('dtype', ['float32', 'int32', 'int64', 'int16'])
def test_other_types_stay_on_the_cpu(tmp_path: Path, dtype: str) -> None:
    graph = Graph()
    image = graph.tensor((1, 8, 8, 4))
    last = judged(tmp_path, graph, image, graph.unary('QUANTIZE', image, dtype=dtype))
    assert last.verdict == Verdict.CPU
    assert f'unsupported data type: {dtype}[1,8,8,4]' in last.reason


def test_batches_stay_on_the_cpu(tmp_path: Path) -> None:
    graph = Graph()
    image = graph.tensor((2, 8, 8, 4))
    last = judged(tmp_path, graph, image, graph.unary('LOGISTIC', image))
    assert last.verdict == Verdict.CPU and 'unsupported rank' in last.reason


@pytest.mark.parametrize(('options', 'verdict'), [
    ({}, Verdict.SEEN),
    ({'dilationHFactor': 2, 'dilationWFactor': 2}, Verdict.SEEN),
    ({'dilationHFactor': 2}, Verdict.CPU),
])
@pytest.mark.parametrize('name', ['CONV_2D', 'DEPTHWISE_CONV_2D'])
def test_dilation(
    tmp_path: Path, name: str, options: dict[str, int], verdict: Verdict,
) -> None:
    graph = Graph()
    image = graph.tensor((1, 16, 16, 8))
    assert judged(tmp_path, graph, image, graph.convolution(
        image, 8, name=name, **options)).verdict == verdict


def test_grouped_and_computed_weights(tmp_path: Path) -> None:
    graph = Graph()
    image = graph.tensor((1, 16, 16, 8))
    assert 'grouped' in judged(
        tmp_path, graph, image, graph.convolution(image, 8, filtered=4)).reason
    graph = Graph()
    image, weights = graph.tensor((1, 16, 16, 8)), graph.tensor((8, 3, 3, 8))
    result = graph.tensor((1, 16, 16, 8))
    graph.add('CONV_2D', [image, weights], [result], version=3, kind='Conv2DOptions',
              dilationHFactor=1, dilationWFactor=1)
    last = judged(tmp_path, graph, image, result)
    assert last.verdict == Verdict.CPU and 'must be a constant' in last.reason


@pytest.mark.parametrize(('source', 'target', 'options', 'verdict'), [
    ((8, 16, 96), (32, 64, 96), {'halfPixelCenters': True}, Verdict.SEEN),
    ((24, 24, 24), (48, 48, 24), {'halfPixelCenters': True}, Verdict.SEEN),
    ((33, 33, 19), (33, 33, 19), {'alignCorners': True}, Verdict.SEEN),
    ((32, 64, 32), (64, 128, 32), {}, Verdict.LIKELY),
    ((16, 32, 128), (64, 128, 128), {}, Verdict.UNKNOWN),
    ((64, 64, 32), (128, 128, 32), {}, Verdict.UNKNOWN),
    ((10, 10, 8), (15, 15, 8), {}, Verdict.UNKNOWN),
    ((32, 64, 2), (256, 512, 2), {}, Verdict.CPU),
    ((256, 512, 4), (512, 1024, 4), {}, Verdict.CPU),
    ((33, 33, 19), (513, 513, 19), {'alignCorners': True}, Verdict.CPU),
    ((1, 1, 128), (33, 33, 128), {'alignCorners': True}, Verdict.CPU),
])
def test_resize_envelope(
    tmp_path: Path, source: tuple[int, ...], target: tuple[int, ...], options: dict[str, bool],
    verdict: Verdict,
) -> None:
    graph = Graph()
    image = graph.tensor((1, *source))
    result = graph.unary(
        'RESIZE_BILINEAR', image, (1, *target), version=3, kind='ResizeBilinearOptions',
        extra=[graph.constant(target[:2])], **options)
    last = judged(tmp_path, graph, image, result)
    assert last.verdict == verdict, last.reason
    assert f'{source[0]}x{source[1]} to {target[0]}x{target[1]}' in last.reason


@pytest.mark.parametrize(('shape', 'axes', 'verdict'), [
    ((1, 8, 16, 128), (1, 2), Verdict.SEEN),
    ((1, 33, 33, 64), (1, 2), Verdict.LIKELY),
    ((1, 64, 128, 64), (1, 2), Verdict.UNKNOWN),
    ((1, 256, 128, 3), (1, 2), Verdict.CPU),
    ((1, 8, 16, 128), (0, 1), Verdict.CPU),
    ((1, 8, 16, 128), (-1,), Verdict.SEEN),
    ((1, 8, 16, 30), (-1,), Verdict.CPU),
])
def test_mean(
    tmp_path: Path, shape: tuple[int, ...], axes: tuple[int, ...], verdict: Verdict,
) -> None:
    graph = Graph()
    image = graph.tensor(shape)
    result = graph.unary('MEAN', image, (1, 1, 1, shape[-1]), version=2,
                         extra=[graph.constant(axes)])
    last = judged(tmp_path, graph, image, result)
    assert last.verdict == verdict, last.reason


@pytest.mark.parametrize(('name', 'window', 'options', 'verdict'), [
    ('AVERAGE_POOL_2D', 3, {}, Verdict.SEEN),
    ('AVERAGE_POOL_2D', 3, {'fusedActivationFunction': 1}, Verdict.CPU),
    ('AVERAGE_POOL_2D', 16, {}, Verdict.LIKELY),
    ('AVERAGE_POOL_2D', 64, {}, Verdict.UNKNOWN),
    ('MAX_POOL_2D', 3, {}, Verdict.SEEN),
    ('MAX_POOL_2D', 13, {}, Verdict.UNKNOWN),
])
def test_pooling(
    tmp_path: Path, name: str, window: int, options: dict[str, int], verdict: Verdict,
) -> None:
    graph = Graph()
    image = graph.tensor((1, 64, 64, 8))
    result = graph.unary(
        name, image, version=2, kind='Pool2DOptions', filterHeight=window, filterWidth=window,
        **options)
    assert judged(tmp_path, graph, image, result).verdict == verdict


def test_context_add_is_likely_either_way_round(tmp_path: Path) -> None:
    for swap in (False, True):
        graph = Graph()
        image, mean = graph.tensor((1, 8, 16, 128)), graph.tensor((1, 1, 1, 128))
        result = graph.tensor((1, 8, 16, 128))
        graph.add('ADD', [image, mean] if swap else [mean, image], [result], version=2)
        last = judged(tmp_path, graph, image, result)
        assert last.verdict == Verdict.LIKELY and 'edgetpu#377' in last.reason


def test_reshape_before_a_broadcast_is_unknown(tmp_path: Path) -> None:
    graph = Graph()
    mean = graph.tensor((1, 1, 1, 128))
    last = judged(tmp_path, graph, mean, graph.unary('RESHAPE', mean, (128,)))
    assert last.verdict == Verdict.UNKNOWN and '1x1 operand' in last.reason


@pytest.mark.parametrize(('name', 'other', 'constant', 'verdict'), [
    ('ADD', (1, 8, 8, 4), False, Verdict.SEEN),
    ('MUL', (8, 8, 1), True, Verdict.SEEN),
    ('SUB', (1, 1, 1, 4), True, Verdict.SEEN),
    ('MUL', (1, 1, 1, 4), False, Verdict.UNKNOWN),  # squeeze-and-excitation
    ('ADD', (1, 8, 1, 4), False, Verdict.UNKNOWN),
    ('MAXIMUM', (1, 8, 8, 4), False, Verdict.LIKELY),
])
def test_broadcasts(
    tmp_path: Path, name: str, other: tuple[int, ...], constant: bool, verdict: Verdict,
) -> None:
    graph = Graph()
    image, result = graph.tensor((1, 8, 8, 4)), graph.tensor((1, 8, 8, 4))
    second = graph.tensor(other, data=np.ones(other, np.int8) if constant else None)
    graph.add(name, [image, second], [result], version=2)
    assert judged(tmp_path, graph, image, result).verdict == verdict


def test_add_behind_pad_is_unknown(tmp_path: Path) -> None:
    graph = Graph()
    image, other = graph.tensor((1, 8, 8, 4)), graph.tensor((1, 10, 10, 4))
    padded = graph.unary('PAD', image, (1, 10, 10, 4), version=2,
                         extra=[graph.constant([[0, 0], [1, 1], [1, 1], [0, 0]])])
    result = graph.tensor((1, 10, 10, 4))
    graph.add('ADD', [padded, other], [result], version=2)
    assert judged(tmp_path, graph, image, result).verdict == Verdict.UNKNOWN


@pytest.mark.parametrize(('padding', 'verdict'), [
    ([[0, 0], [1, 1], [1, 1], [0, 0]], Verdict.SEEN),
    ([[0, 0], [0, 0], [0, 0], [0, 4]], Verdict.LIKELY),
    ([[1, 0], [0, 0], [0, 0], [0, 0]], Verdict.CPU),
])
def test_pad(tmp_path: Path, padding: list[list[int]], verdict: Verdict) -> None:
    graph = Graph()
    image = graph.tensor((1, 8, 8, 4))
    result = graph.unary('PAD', image, (1, 10, 10, 4), version=2, extra=[graph.constant(padding)])
    assert judged(tmp_path, graph, image, result).verdict == verdict


@pytest.mark.parametrize(('shape', 'axis', 'constant', 'verdict'), [
    ((1, 64, 128, 16), 3, None, Verdict.SEEN),
    ((1, 64, 128, 48), 3, None, Verdict.LIKELY),
    ((1, 64, 128, 64), 3, None, Verdict.UNKNOWN),
    ((1, 8, 8, 4), 0, None, Verdict.CPU),
    ((1, 8, 8, 4), 3, 0, Verdict.SEEN),
    ((1, 8, 8, 4), 3, 1, Verdict.CPU),
])
def test_concatenation(
    tmp_path: Path, shape: tuple[int, ...], axis: int, constant: int | None, verdict: Verdict,
) -> None:
    graph = Graph()
    image = graph.tensor(shape)
    other = graph.tensor(
        shape, data=None if constant is None else np.full(shape, constant, np.int8))
    joined = list(shape)
    joined[axis] *= 2
    result = graph.tensor(joined)
    graph.add('CONCATENATION', [image, other], [result], version=2,
              kind='ConcatenationOptions', axis=axis)
    assert judged(tmp_path, graph, image, result).verdict == verdict


@pytest.mark.parametrize(('shape', 'verdict'), [
    ((1, 1000), Verdict.SEEN), ((1, 17_000), Verdict.CPU), ((1, 8, 16, 2), Verdict.CPU)])
def test_softmax(tmp_path: Path, shape: tuple[int, ...], verdict: Verdict) -> None:
    graph = Graph()
    image = graph.tensor(shape)
    assert judged(tmp_path, graph, image, graph.unary('SOFTMAX', image)).verdict == verdict


@pytest.mark.parametrize(('options', 'output', 'verdict'), [
    ({}, (1, 10), Verdict.SEEN),
    ({'keepNumDims': True}, (1, 10), Verdict.CPU),
    ({'weightsFormat': 1}, (1, 10), Verdict.CPU),
    ({}, (1, 4, 10), Verdict.CPU),
])
def test_fully_connected(
    tmp_path: Path, options: dict[str, Any], output: tuple[int, ...], verdict: Verdict,
) -> None:
    graph = Graph()
    image, result = graph.tensor((1, 16)), graph.tensor(output)
    weights = graph.tensor((10, 16), data=np.ones((10, 16), np.int8))
    graph.add('FULLY_CONNECTED', [image, weights], [result], version=4,
              kind='FullyConnectedOptions', **options)
    assert judged(tmp_path, graph, image, result).verdict == verdict


@pytest.mark.parametrize(('strides', 'options', 'verdict'), [
    ([1, 1, 1, 1], {}, Verdict.LIKELY),
    ([1, 2, 2, 1], {}, Verdict.CPU),
    ([1, 1, 1, 1], {'ellipsisMask': 1}, Verdict.CPU),
    ([1, 1, 1, 1], {'newAxisMask': 2}, Verdict.CPU),
])
def test_strided_slice(
    tmp_path: Path, strides: list[int], options: dict[str, int], verdict: Verdict,
) -> None:
    graph = Graph()
    image = graph.tensor((1, 8, 8, 4))
    extra = [graph.constant(values) for values in ([0] * 4, [1, 4, 4, 4], strides)]
    result = graph.unary('STRIDED_SLICE', image, (1, 4, 4, 4), extra=extra, version=2,
                         kind='StridedSliceOptions', **options)
    assert judged(tmp_path, graph, image, result).verdict == verdict


def test_whole_tensors_that_do_not_fit(tmp_path: Path) -> None:
    graph = Graph()
    image = graph.tensor((1, 256, 512, 32))
    flat = graph.unary('RESHAPE', image, (1, 256, 16384))
    last = judged(tmp_path, graph, image, flat)
    assert last.verdict == Verdict.UNKNOWN and 'of 196608 bytes a tile' in last.reason
    graph = Graph()  # a convolution is worked on in slices
    image = graph.tensor((1, 256, 512, 32))
    assert judged(tmp_path, graph, image, graph.convolution(image, 32)).verdict == Verdict.SEEN


def test_malformed_operations_are_unknown_not_a_crash(tmp_path: Path) -> None:
    graph = Graph()
    image = graph.tensor((1, 8, 8, 4))
    last = judged(tmp_path, graph, image, graph.unary('MEAN', image))  # its axes are missing
    assert last.verdict == Verdict.UNKNOWN and 'not formed as its schema says' in last.reason


# -- whole models ------------------------------------------------------------------------------


def test_dynamic_shapes_fail_by_their_signature(tmp_path: Path) -> None:
    graph = Graph()
    image = graph.tensor((1, 8, 8, 4), signature=(-1, 8, 8, 4))
    report = check_model(graph.save(tmp_path, [image], [graph.unary('LOGISTIC', image)]))
    assert report.verdict == Verdict.FAIL
    assert report.cost is None and not report.latency_s()
    assert 'dynamic shape' in str(report) and 'no time predicted' in str(report)


def test_float_models_fail(tmp_path: Path) -> None:
    graph = Graph()
    image = graph.tensor((1, 8, 8, 4), 'float32')
    report = check_model(graph.save(
        tmp_path, [image], [graph.unary('LOGISTIC', image, dtype='float32')]))
    assert report.verdict == Verdict.FAIL
    assert 'Model not quantized' in str(report)


def test_first_unmappable_operation_takes_along_what_follows(tmp_path: Path) -> None:
    graph = Graph()
    image = graph.tensor((1, 16, 16, 8))
    before = graph.convolution(image, 8)
    side = graph.convolution(before, 8)
    broken = graph.unary('HARD_SWISH', before)
    after = graph.convolution(broken, 8)
    result = graph.tensor((1, 16, 16, 8))
    graph.add('ADD', [side, after], [result], version=2)
    path = graph.save(tmp_path, [image], [result])
    report = check_model(path)
    # The side branch does not need the broken one.
    assert [judged.on_edgetpu for judged in report.operations] == [True, True, False, False, False]
    assert report.segments == ((True, 2), (False, 1), (True, 2))
    assert report.subgraphs == 2
    both = check_model(path, all_subgraphs=True)
    assert (both.mapped, both.cost.runs) == (4, 2)
    # Two tensors of 2048 bytes leave the first subgraph and two enter the second.
    assert report.cost.output_bytes == 4096
    assert both.cost.output_bytes - report.cost.output_bytes == 2048
    assert both.cost.input_bytes - report.cost.input_bytes == 4096


def test_leading_float_conversion_is_left_in_front(tmp_path: Path) -> None:
    graph = Graph()
    image = graph.tensor((1, 16, 16, 8), 'float32')
    signed = graph.unary('QUANTIZE', image)
    report = check_model(graph.save(tmp_path, [image], [graph.convolution(signed, 8)]))
    assert report.segments == ((False, 1), (True, 1))
    assert report.mapped == 1


def test_assumptions_overrule_verdicts(tmp_path: Path) -> None:
    graph = Graph()
    image = graph.tensor((1, 32, 64, 4))
    result = graph.unary('RESIZE_BILINEAR', image, (1, 256, 512, 4), version=3,
                         kind='ResizeBilinearOptions', extra=[graph.constant((256, 512))])
    path = graph.save(tmp_path, [image], [result])
    assert check_model(path).mapped == 0
    assert check_model(path, assumed={0: True}).cost.output_bytes == 256 * 512 * 4
    with pytest.raises(TfliteError, match='has 1 operations, none with the index 7'):
        check_model(path, assumed={7: True})


def test_unknown_operations_give_a_cautious_count(tmp_path: Path) -> None:
    graph = Graph()
    image = graph.tensor((1, 8, 8, 16))
    inner = graph.convolution(image, 16)
    result = graph.convolution(graph.unary('TRANSPOSE_CONV', inner, version=3), 16)
    report = check_model(graph.save(tmp_path, [image], [result]))
    assert (report.mapped, report.cautious) == (3, 1)
    assert 'if every unknown one stays on the CPU: 1 of 3' in str(report)


def test_costs_by_hand(tmp_path: Path) -> None:
    graph = Graph()
    image = graph.tensor((1, 64, 128, 3))
    features = graph.convolution(image, 96, stride=2)
    spread = graph.convolution(features, 96, name='DEPTHWISE_CONV_2D')
    result = graph.convolution(spread, 2, kernel=1)
    report = check_model(graph.save(tmp_path, [image], [result]))
    cost = report.cost
    # 32x64 of output: 8x16 a tile.
    assert cost.ideal_cycles == 8 * 16 * (2 * 9 * 1 + 2 * 9 + 1 * 24)
    assert cost.input_bytes == 64 * 128 * 3
    assert cost.output_bytes == 32 * 64 * 4  # two channels cost what four do
    assert cost.parameter_bytes == 128 * (9 * 4 + 16) + 128 * (9 + 16) + 64 * (96 + 16)
    assert cost.streamed_bytes == 0
    times = report.latency_s()
    assert list(times) == list(LINKS)
    moved = cost.input_bytes + cost.output_bytes + cost.instruction_bytes
    assert times['USB 2'] == pytest.approx(
        1e-4 + 4.04 * cost.ideal_cycles / 500e6 + moved / 36e6)
    assert times['PCIe'] < times['USB 3'] < times['USB 2']


def test_parameters_beyond_the_cache_are_streamed(tmp_path: Path) -> None:
    graph = Graph()
    image = graph.tensor((1, 4, 4, 1024))
    result = graph.convolution(image, 1024)
    report = check_model(graph.save(tmp_path, [image], [result]))
    parameters = 1024 * (9 * 1024 + 16)
    assert report.cost.parameter_bytes == parameters
    assert report.cost.streamed_bytes == parameters - int(7.5 * 2 ** 20)
    assert 'streamed every time' in str(report)


def test_memory_follows_what_is_alive(tmp_path: Path) -> None:
    graph = Graph()
    image = graph.tensor((1, 64, 64, 4))  # 16x16x4 = 1024 bytes a tile
    one = graph.convolution(image, 16)  # 4096
    two = graph.convolution(one, 16)
    three = graph.convolution(two, 16)
    result = graph.tensor((1, 64, 64, 16))
    graph.add('ADD', [one, three], [result], version=2)
    report = check_model(graph.save(tmp_path, [image], [result]))
    assert report.memory.peak == 3 * 4096  # the first waits while the third is made
    assert report.memory.peak_at == '2 CONV_2D'
    assert report.memory.fits and report.memory.waiting == 0


def test_what_waits_without_room_is_told(tmp_path: Path) -> None:
    graph = Graph()
    image = graph.tensor((1, 128, 256, 32))  # 65536 bytes a tile
    inner = graph.convolution(graph.convolution(image, 64), 64)  # 131072 each
    result = graph.convolution(inner, 32)
    total = graph.tensor((1, 128, 256, 32))
    graph.add('ADD', [result, image], [total], version=2)
    report = check_model(graph.save(tmp_path, [image], [total]))
    assert not report.memory.fits
    assert report.memory.waiting == 65536
    assert '65536 bytes a tile have to wait' in str(report)


@pytest.mark.parametrize(('shape', 'expected'), [
    # Of Google's compiled MoveNet, per tile.
    ((1, 192, 192, 3), 48 * 48 * 4), ((1, 96, 96, 16), 9216), ((1, 96, 96, 96), 55296),
    ((1, 33, 33, 19), 9 * 9 * 20), ((1, 10), 12)])
def test_tile_bytes(tmp_path: Path, shape: tuple[int, ...], expected: int) -> None:
    graph = Graph()
    image = graph.tensor(shape)
    path = graph.save(tmp_path, [image], [graph.unary('LOGISTIC', image)])
    assert tile_bytes(read_tflite(path).inputs[0]) == expected


def test_report_never_claims_a_compilation(tmp_path: Path) -> None:
    graph = Graph()
    image, logits = road_like(graph)
    report = check_model(graph.save(tmp_path, [image], [logits]))
    text = str(report)
    assert 'predicted from public rules, not compiled' in text
    assert 'known error: ' in text
    assert not re.search(r'compiled for|succe', text)
    content = json.loads(report.to_json())
    assert content['compiled'] is False
    assert content['basis'] == 'predicted from public rules, not compiled'
    assert content['verdict'] == 'seen mapped'
    assert content['counts'] == {
        'seen mapped': 3, 'likely': 0, 'unknown': 0, 'CPU': 0, 'compile failure': 0}
    assert content['operations'][1]['operator'] == 'CONV_2D'
    assert content['operations'][1]['inputs'][0] == 'int8[1,64,128,3]'
    assert set(content['predicted_latency_s']) == set(LINKS)
    assert content['known_error']


# -- compiled models -----------------------------------------------------------------------------


def test_compiled_model_is_read(tmp_path: Path) -> None:
    path = tmp_path / 'model_edgetpu.tflite'
    path.write_bytes(compiled_file(tail=True))
    report = check_model(path)
    assert report.compiled
    assert (report.mapped, len(report.operations), report.subgraphs) == (1, 2, 1)
    found = report.packages[0]
    assert found.min_runtime_version == 14
    assert found.compiler_version == 'cl/384591198'
    assert (found.cached_parameters, found.streamed_parameters) == (4096, 0)
    run = found.execution
    assert (run.instructions, run.scratch, run.narrow_memory_per_tile) == (300, 64, 1234)
    assert dataclasses.astuple(run.transfers) == (24576, 512, 0, 64, 256)
    content = json.loads(report.to_json())
    assert content['packages'][0]['minimum_runtime'] == 14
    assert content['packages'][0]['scratch_bytes_moved'] == 320
    assert 'predicted_latency_s' not in content
    assert '1 custom operators, 1 operations outside' in str(report)


def test_streamed_parameters_are_those_of_the_program_itself(tmp_path: Path) -> None:
    path = tmp_path / 'model_edgetpu.tflite'
    path.write_bytes(compiled_file(package(
        executable(2, parameters=700), executable(1, parameters=4096))))
    found = check_model(path).packages[0]
    assert (found.cached_parameters, found.streamed_parameters) == (4096, 700)
    path.write_bytes(compiled_file(package(executable(0, parameters=900))))
    found = check_model(path).packages[0]
    assert (found.cached_parameters, found.streamed_parameters) == (0, 900)
    assert found.execution.kind == 'stand-alone'


def test_newer_runtime_is_remarked(tmp_path: Path) -> None:
    path = tmp_path / 'model_edgetpu.tflite'
    path.write_bytes(compiled_file(package(executable(0), min_runtime=15)))
    assert 'needs runtime 15; the latest known is 14' in str(check_model(path))


@pytest.mark.parametrize(('options', 'message'), [
    (b'', 'damaged'),
    (b'\x00' * 12, 'damaged'),
    (package(executable(0), identifier=b'XXXX'), "found b'XXXX' in its package"),
    (package(executable(1)), 'holds no program to run'),
    (package(executable(9)), 'damaged'),
])
def test_odd_packages_are_refused(tmp_path: Path, options: bytes, message: str) -> None:
    path = tmp_path / 'model_edgetpu.tflite'
    path.write_bytes(compiled_file(options))
    with pytest.raises(PackageError, match=message):
        check_model(path)


def test_truncated_packages_end_in_our_error(tmp_path: Path) -> None:
    path = tmp_path / 'model_edgetpu.tflite'
    path.write_bytes(compiled_file())
    operation = read_tflite(path).compiled[0]
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        damaged = bytearray(operation.custom_options)
        for at in rng.integers(0, len(damaged), 8):
            damaged[at] = int(rng.integers(256))
        try:
            read_package(dataclasses.replace(operation, custom_options=bytes(damaged)))
        except PackageError:
            refused += 1
    assert refused > 20


def test_twin_is_compared(tmp_path: Path) -> None:
    graph = Graph()
    image, logits = road_like(graph)
    path = graph.save(tmp_path, [image], [logits])
    assert check_model(path).compared_with is None
    (tmp_path / 'model_edgetpu.tflite').write_bytes(compiled_file(tail=True))
    report = check_model(path)
    assert report.compared_with == tmp_path / 'model_edgetpu.tflite'
    assert 'expected to be mapped, but on the CPU: 1 x LOGISTIC to int8[1,8,16,2]' in str(report)
    assert f'bytes through the host: expected 0, found {64 + 256}' in str(report)
    assert 'input bytes' not in str(report).split('compared with')[1]  # equal: 64*128*3
    assert report.disagreements == tuple(json.loads(report.to_json())['disagreements'])


@pytest.mark.parametrize(('content', 'message'), [
    (b'half a fi', 'not a .tflite file'),
    (compiled_file(b'\x00' * 12), 'its package is damaged'),
    (None, 'holds nothing compiled'),
])
def test_twin_that_is_none_is_a_disagreement(
    tmp_path: Path, content: bytes | None, message: str,
) -> None:
    graph = Graph()
    image, logits = road_like(graph)
    path = graph.save(tmp_path, [image], [logits])
    (tmp_path / 'model_edgetpu.tflite').write_bytes(content or path.read_bytes())
    report = check_model(path)
    assert len(report.disagreements) == 1 and message in report.disagreements[0]
    assert report.mapped == 3


# -- Google's pairs ------------------------------------------------------------------------------


@needs_coral
def test_deeplab_prediction_against_its_compiled_twin() -> None:
    report = check_model(DEEPLAB)
    left = [judged.operation.name for judged in report.operations if not judged.on_edgetpu]
    assert left == ['RESIZE_BILINEAR', 'ARG_MAX']
    assert report.mapped == 82
    assert report.operations[76].operation.name == 'TILE'
    assert report.operations[76].verdict == Verdict.SEEN
    assert report.compared_with is not None
    assert report.disagreements == ()


@needs_coral
def test_deeplab_compiled() -> None:
    report = check_model(edgetpu.compiled_path(DEEPLAB))
    assert (len(report.packages), len(report.operations)) == (1, 3)
    found = report.packages[0]
    assert found.min_runtime_version == 12
    assert (found.cached_parameters, found.streamed_parameters) == (2_654_784, 0)
    run = found.execution
    assert (run.instructions, run.scratch) == (365_664, 33 * 33 * 1280)
    assert run.narrow_memory_per_tile == 189_544
    assert dataclasses.astuple(run.transfers) == (
        789_512, 21_784, 0, 1_393_920, 6 * 1_393_920)


@needs_coral
def test_split_concat_pair() -> None:
    report = check_model(SPLIT_CONCAT)
    assert report.verdict == Verdict.SEEN and report.mapped == 3
    assert report.disagreements == ('parameter bytes: expected 0, found 192',)
    found = check_model(edgetpu.compiled_path(SPLIT_CONCAT)).packages[0]
    assert found.min_runtime_version == 13
    assert found.compiler_version == 'cl/343520747'
    assert (found.cached_parameters, found.execution.scratch) == (192, 0)


# -- our own -------------------------------------------------------------------------------------


@pytest.mark.skipif(not SHIPPED.is_file(), reason='the shipped model is not there yet')
def test_shipped_model_is_expected_to_map() -> None:
    report = check_model(SHIPPED)
    assert report.verdict <= Verdict.LIKELY, str(report)
    assert report.subgraphs == 1
    assert report.mapped == report.cautious == len(report.operations)
    assert report.memory.fits
    last = report.operations[-1].operation
    assert last.name == 'CONV_2D'  # nothing behind the logits
    assert report.model.outputs == last.outputs
    assert report.cost.streamed_bytes == 0


# -- the compiler's log ------------------------------------------------------------------------

SUCCESS = '''\
Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 1354 ms.

Input model: model.tflite
Input size: 5.10MiB
Output model: model_edgetpu.tflite
Output size: 6.28MiB
On-chip memory used for caching model parameters: 6.03MiB
On-chip memory remaining for caching model parameters: 1.21MiB
Off-chip memory used for streaming uncached model parameters: 64.50KiB
Number of Edge TPU subgraphs: 1
Total number of operations: 7
Operation log: model_edgetpu.log
'''
PARTLY = '''
Model successfully compiled but not all operations are supported by the Edge TPU. A percentage of
the model will instead run on the CPU, which is slower. For details, visit g.co/coral/model-reqs.
Number of operations that will run on Edge TPU: 4
Number of operations that will run on CPU: 3
'''
TABLE = '''
Operator                       Count      Status

CONV_2D                        4          Mapped to Edge TPU
CONV_2D                        1          More than one subgraph is not supported
RESIZE_BILINEAR                1          Operation is otherwise supported, but not mapped due to \
some unspecified limitation
TFLite_Detection_PostProcess   1          Operation is working on an unsupported data type
'''
TAIL = '''
Compilation child process completed within timeout period.
Compilation succeeded!
'''


def test_log_of_a_success() -> None:
    log = parse_log(SUCCESS + PARTLY + TABLE + TAIL)
    assert log.version == '16.0.384591198'
    assert (log.failure, log.subgraphs, log.operations) == ('', 1, 7)
    assert log.cached_bytes == round(6.03 * 2 ** 20)
    assert log.streamed_bytes == round(64.5 * 1024)
    assert [(row.operator, row.count) for row in log.rows] == [
        ('CONV_2D', 4), ('CONV_2D', 1), ('RESIZE_BILINEAR', 1),
        ('TFLite_Detection_PostProcess', 1)]
    assert log.rows[0].mapped and not log.rows[1].mapped
    assert log.rows[2].status.endswith('some unspecified limitation')
    assert (log.mapped, log.on_cpu) == (4, 3)


def test_log_file_behind_the_output_is_not_counted_twice() -> None:
    log_file = ('Edge TPU Compiler version 16.0.384591198\nInput: model.tflite\n'
                'Output: model_edgetpu.tflite\n' + TABLE)
    assert parse_log(SUCCESS + TABLE + TAIL + log_file).rows == parse_log(TABLE).rows


FAILURES = {
    "Didn't find op for builtin opcode 'TRANSPOSE_CONV' version '4'": '''\
Edge TPU Compiler version 16.0.384591198
ERROR: Didn't find op for builtin opcode 'TRANSPOSE_CONV' version '4'. An older version of this \
builtin might be supported. Are you using an old TFLite binary with a newer model?

ERROR: Registration failed.

Invalid model: model.tflite
Model could not be parsed
''',
    'Op builtin_code out of range: 150': '''\
Edge TPU Compiler version 16.0.384591198
ERROR: Op builtin_code out of range: 150. Are you using old TFLite binary with newer model?
ERROR: Registration failed.

Invalid model: model.tflite
Model could not be parsed
''',
    'Compilation failed due to large activation tensors in model': '''\
Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.
ERROR: Restored original execution plan after delegate application failure.
Compilation failed: Compilation failed due to large activation tensors in model.
Compilation child process completed within timeout period.
Compilation failed!
''',
    'Model failed in Tflite interpreter': '''\
Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.
ERROR: Node number 3 (ADD) failed to prepare.
Compilation failed: Model failed in Tflite interpreter. Please ensure model can be loaded/run in \
Tflite interpreter.
Compilation child process completed within timeout period.
Compilation failed!
''',
    'delegate that only supports static-sized tensors': '''\
Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.
ERROR: Attempting to use a delegate that only supports static-sized tensors with a graph that has \
dynamic-sized tensors.
Compilation failed: Model failed in Tflite interpreter. Please ensure model can be loaded/run in \
Tflite interpreter.
Compilation failed!
''',
    'Model not quantized': '''\
Edge TPU Compiler version 15.0.340273435
Invalid model: model.tflite
Model not quantized
''',
    'Internal compiler error. Aborting!': '''\
Edge TPU Compiler version 15.0.340273435

Internal compiler error. Aborting!
''',
    'Compilation failed!': '''\
Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.
Compilation child process completed within timeout period.
Compilation failed!
''',
}


@pytest.mark.parametrize('reason', FAILURES)
def test_log_of_a_failure(reason: str) -> None:
    log = parse_log(FAILURES[reason])
    assert log.failure == reason
    assert log.remedy
    assert log.version.split('.')[0] in ('15', '16')
    assert log.rows == ()


# -- compiling with a stand-in -----------------------------------------------------------------


class Workshop:
    """A folder with a model and a stand-in ``edgetpu_compiler`` on the ``PATH``."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.programs, self.models = folder / 'bin', folder / 'models'
        self.programs.mkdir()
        self.models.mkdir()
        graph = Graph()
        image, logits = road_like(graph)
        self.model = graph.save(self.models, [image], [logits])
        self.target = self.models / 'model_edgetpu.tflite'
        monkeypatch.setenv('PATH', str(self.programs))

    def install(self, body: str, name: str = 'edgetpu_compiler') -> None:
        """Write a program that parses the compiler's arguments, then runs ``body``."""
        path = self.programs / name
        path.write_text(f'#!{sys.executable}\n' + textwrap.dedent('''\
            import argparse, pathlib, sys
            parser = argparse.ArgumentParser()
            parser.add_argument('-s', action='store_true')
            parser.add_argument('-m')
            parser.add_argument('-o')
            parser.add_argument('model')
            args, rest = parser.parse_known_args()
            model = pathlib.Path(args.model)
            made = pathlib.Path(args.o) / (model.stem + '_edgetpu.tflite')
            ''') + body)
        path.chmod(0o755)

    def install_success(self, content: bytes, text: str = SUCCESS + TABLE + TAIL) -> None:
        (self.programs / 'made.tflite').write_bytes(content)
        self.install(
            f'print({text!r})\n'
            f'made.write_bytes(pathlib.Path({str(self.programs)!r}, "made.tflite").read_bytes())\n'
            'made.with_suffix(".log").write_text("Edge TPU Compiler version 16.0.384591198\\n")\n')

    def install_failure(self, text: str, code: int = 1) -> None:
        self.install(f'print({text!r})\nsys.exit({code})\n')

    def left(self) -> set[str]:
        return {path.name for path in self.models.iterdir()}


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    return Workshop(tmp_path, monkeypatch)


def test_model_is_compiled_and_put_beside_its_source(workshop: Workshop) -> None:
    workshop.install_success(compiled_file())
    result = compile_model(workshop.model)
    assert result.path == workshop.target
    assert workshop.target.read_bytes() == compiled_file()
    assert workshop.left() == {'model.tflite', 'model_edgetpu.tflite'}
    assert result.fully_mapped
    assert result.log.version == '16.0.384591198'
    assert result.report.model.path == workshop.target
    assert result.report.packages[0].cached_parameters == 4096
    text = str(result)
    assert 'made by edgetpu_compiler 16.0.384591198' in text
    assert re.search(r'CONV_2D +4  Mapped to Edge TPU', text)
    assert 'every operation is mapped' in text
    assert 'minimum runtime 14; parameters: 4096 bytes cached, 0 streamed; 64 bytes' in text
    assert 'unlike predicted: bytes through the host' in text


def test_partly_mapped_model_is_kept_and_told(workshop: Workshop) -> None:
    workshop.install_success(compiled_file(tail=True))
    result = compile_model(workshop.model)
    assert not result.fully_mapped
    assert '1 subgraphs on the EdgeTPU, 1 operations left to the CPU' in str(result)


def test_contract_gets_the_hash(workshop: Workshop) -> None:
    from bisenet_ros.core.contract import ModelContract, file_sha256, read_contract
    contract = ModelContract(
        input_hw=(64, 128), channels='rgb', input_scale=(1 / 255,) * 3, input_mean=(0.0,) * 3,
        output_kind='logits', output_stride=8, class_names=('background', 'road'),
        class_colors_rgb=((0, 0, 0), (128, 64, 128)), sha256=file_sha256(workshop.model))
    path = workshop.models / 'model.json'
    path.write_text(contract.to_json())
    workshop.install_success(compiled_file())
    compile_model(workshop.model)
    assert read_contract(path) == dataclasses.replace(
        contract, edgetpu_sha256=file_sha256(workshop.target))
    path.write_text('{}')
    with pytest.raises(CompilerError, match=r'was compiled, but its hash could not .*model\.json'):
        compile_model(workshop.model)


def test_options_reach_the_compiler(workshop: Workshop) -> None:
    workshop.install('print(sys.argv[1:]); sys.exit(1)')
    with pytest.raises(CompilerError, match=r"\['-s', '-m', '13', '-o', .*model\.tflite'\]"):
        compile_model(workshop.model, min_runtime=13)


def test_absent_compiler_says_what_to_run_and_where(workshop: Workshop) -> None:
    with pytest.raises(CompilerError) as caught:
        compile_model(workshop.model)
    message = str(caught.value)
    assert 'edgetpu_compiler: not found on this machine' in message
    assert 'x86-64 Debian or Ubuntu' in message
    assert f'python -m training.edgetpu compile {workshop.model} --image NAME' in message
    assert '    edgetpu_compiler -s model.tflite\n' in message
    assert f'copy model_edgetpu.tflite back to {workshop.models.resolve()}' in message
    assert f'python -m training.edgetpu check {workshop.target}' in message
    assert workshop.left() == {'model.tflite'}


@pytest.mark.parametrize('reason', FAILURES)
@pytest.mark.parametrize('code', [0, 1])  # not every version tells by its exit status
def test_failures_are_told_and_leave_nothing(workshop: Workshop, reason: str, code: int) -> None:
    workshop.target.write_bytes(b'an older one')
    workshop.install_failure(FAILURES[reason], code)
    with pytest.raises(CompilerError) as caught:
        compile_model(workshop.model)
    message = str(caught.value)
    assert f'model.tflite: edgetpu_compiler {parse_log(FAILURES[reason]).version}' in message
    assert f'made nothing of it: {reason}; ' in message
    assert message.count('\n') == 0  # the checker has no suspect here
    assert workshop.left() == {'model.tflite', 'model_edgetpu.tflite'}
    assert workshop.target.read_bytes() == b'an older one'


def test_failure_names_the_checker_s_suspects(workshop: Workshop) -> None:
    graph = Graph()
    image = graph.tensor((1, 8, 8, 4))
    result = graph.unary('TRANSPOSE_CONV', image, version=4)
    model = graph.save(workshop.models, [image], [result], 'odd')
    workshop.install_failure(FAILURES["Didn't find op for builtin opcode 'TRANSPOSE_CONV' "
                                      "version '4'"])
    with pytest.raises(CompilerError, match=r'Suspects .*\n  operation 0 TRANSPOSE_CONV: Didn'):
        compile_model(model)


def test_crash_without_a_word(workshop: Workshop) -> None:
    workshop.install('import os, signal; os.kill(os.getpid(), signal.SIGSEGV)')
    with pytest.raises(CompilerError) as caught:
        compile_model(workshop.model)
    assert 'made nothing of it: it did not say why; what it printed is below.' in str(caught.value)
    assert str(caught.value).endswith(
        '\nedgetpu_compiler ended by signal 11:\n  (it printed nothing)')


def test_what_an_unknown_failure_printed_is_told(workshop: Workshop) -> None:
    workshop.install('print(*range(30), "ERROR: node 17", "Note: see", sep="\\n"); sys.exit(3)')
    with pytest.raises(CompilerError) as caught:
        compile_model(workshop.model)
    head, *lines = str(caught.value).splitlines()
    assert head.endswith('it did not say why; what it printed is below.')
    assert lines == ['edgetpu_compiler ended with exit code 3:',
                     *(f'  {n}' for n in range(12, 30)), '  ERROR: node 17', '  Note: see']


def test_a_folder_that_cannot_be_written_is_told_behind_an_absent_compiler(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*_: object, **__: object) -> NoReturn:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(tempfile, 'TemporaryDirectory', refused)
    with pytest.raises(CompilerError, match='edgetpu_compiler: not found on this machine'):
        compile_model(workshop.model)
    workshop.install_success(compiled_file())
    with pytest.raises(CompilerError, match=(
            r'model_edgetpu\.tflite: cannot be written \(Permission denied\); compile a copy')):
        compile_model(workshop.model)


def test_compiler_that_maps_nothing(workshop: Workshop) -> None:
    none = SUCCESS.replace('subgraphs: 1', 'subgraphs: 0')
    workshop.install_success(workshop.model.read_bytes(), none)
    with pytest.raises(CompilerError, match='mapped none of its 3 operations; nothing was'):
        compile_model(workshop.model)
    assert workshop.left() == {'model.tflite'}


@pytest.mark.parametrize(('content', 'message'), [
    (compiled_file(outputs=(1, 8, 16, 4)), r'outputs are .*int8\[1,8,16,4\].* expected .*16,2\]'),
    (compiled_file(scale=0.25), r'outputs are .*scale \[0\.25\].* expected .*scale \[0\.5\]'),
    (compiled_file(b'\x00' * 12), 'cannot be read: operator 0: its package is damaged'),
    (b'half a fi', 'cannot be read: .*not a .tflite file'),
])
def test_result_that_cannot_stand_in_is_refused(
    workshop: Workshop, content: bytes, message: str,
) -> None:
    workshop.install_success(content)
    with pytest.raises(CompilerError, match=message):
        compile_model(workshop.model)
    assert workshop.left() == {'model.tflite'}


def test_compiler_that_hangs(workshop: Workshop) -> None:
    workshop.install('import time; time.sleep(60)')
    with pytest.raises(CompilerError, match=r'did not end within 0\.5 s'):
        compile_model(workshop.model, timeout_s=0.5)
    assert workshop.left() == {'model.tflite'}


def test_program_for_another_machine(workshop: Workshop) -> None:
    path = workshop.programs / 'edgetpu_compiler'
    path.write_bytes(b'\x7fELF not for here')
    path.chmod(0o755)
    with pytest.raises(CompilerError, match='cannot be run: .*x86-64 Linux only'):
        compile_model(workshop.model)


def test_unusable_models_are_refused_before_the_compiler_runs(workshop: Workshop) -> None:
    workshop.install('raise SystemExit("must not run")')
    with pytest.raises(CompilerError, match='cannot be read: No such file'):
        compile_model(workshop.models / 'absent.tflite')
    workshop.target.write_bytes(compiled_file())
    with pytest.raises(CompilerError, match='is compiled already'):
        compile_model(workshop.target)


def test_container_image(workshop: Workshop) -> None:
    (workshop.programs / 'made.tflite').write_bytes(compiled_file())
    # A docker that runs nothing: it checks what it was told and writes into the shared folder.
    (workshop.programs / 'docker').write_text(f'#!{sys.executable}\n' + textwrap.dedent(f'''\
        import pathlib, sys
        args = sys.argv[1:]
        assert args[:2] == ['run', '--rm'], args
        assert args[args.index('--entrypoint') + 1] == 'edgetpu_compiler'
        shared, inside = args[args.index('--volume') + 1].rsplit(':', 1)
        assert inside == args[args.index('--workdir') + 1] == '/model'
        assert args[-5:] == ['someone/coral:16', '-s', '-o', '/model', 'model.tflite'], args
        folder = pathlib.Path(shared)
        assert (folder / 'model.tflite').is_file()
        content = pathlib.Path({str(workshop.programs)!r}, 'made.tflite').read_bytes()
        (folder / 'model_edgetpu.tflite').write_bytes(content)
        print({SUCCESS + TABLE + TAIL!r})
        '''))
    (workshop.programs / 'docker').chmod(0o755)
    assert compile_model(workshop.model, 'someone/coral:16').fully_mapped
    assert workshop.left() == {'model.tflite', 'model_edgetpu.tflite'}


def test_container_faults(workshop: Workshop) -> None:
    with pytest.raises(CompilerError, match='docker: not found on this machine'):
        compile_model(workshop.model, 'someone/coral:16')
    path = workshop.programs / 'docker'
    path.write_text(f'#!{sys.executable}\nimport sys\nprint("exec: edgetpu_compiler: not found")\n'
                    'sys.exit(127)\n')
    path.chmod(0o755)
    with pytest.raises(CompilerError, match="from the image 'someone/coral:16': exec: edgetpu"):
        compile_model(workshop.model, 'someone/coral:16')


# -- commands ----------------------------------------------------------------------------------


def test_check_command(workshop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    assert edgetpu.main(['check', str(workshop.model)]) == 0
    assert 'simulated split: 3 of 3 operations on the EdgeTPU' in capsys.readouterr().out
    assert edgetpu.main(['check', '--json', str(workshop.model)]) == 0
    assert json.loads(capsys.readouterr().out)['mapped_operations'] == 3
    assert edgetpu.main(['check', '--json', str(workshop.model), str(workshop.model)]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2
    assert edgetpu.main(['check', str(workshop.model), str(workshop.model)]) == 0
    assert 'model.tflite: PCIe 1.00  USB 3 1.00  USB 2 1.00' in capsys.readouterr().out
    assert edgetpu.main(['check', '--assume', '1=cpu', str(workshop.model)]) == 0
    assert 'simulated split: 1 of 3' in capsys.readouterr().out
    assert edgetpu.main(['check', str(workshop.models / 'absent.tflite')]) == 1
    assert capsys.readouterr().err.count('\n') == 1


def test_bad_assumption_is_refused(
    workshop: Workshop, capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        edgetpu.main(['check', '--assume', '1=gpu', str(workshop.model)])
    assert "found '1=gpu', expected INDEX=edgetpu or INDEX=cpu" in capsys.readouterr().err


def test_compile_command(workshop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    assert edgetpu.main(['compile', str(workshop.model)]) == 1
    assert 'not found on this machine' in capsys.readouterr().err
    workshop.install_success(compiled_file())
    assert edgetpu.main(['compile', str(workshop.model)]) == 0
    assert 'every operation is mapped' in capsys.readouterr().out


def test_every_rule_is_about_an_operator_of_the_schema() -> None:
    from training import edgetpu_rules
    known = {name for name in vars(schema.BuiltinOperator) if name.isupper()}
    for table in (edgetpu_rules.VERSIONS, edgetpu_rules.LOADABLE, edgetpu_rules._RULES):
        assert set(table) <= known
    assert set(edgetpu_rules._RULES) == set(edgetpu_rules.VERSIONS)
