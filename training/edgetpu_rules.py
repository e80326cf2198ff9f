"""
What is publicly known of which operations ``edgetpu_compiler`` 16 maps, as rules.

Nothing here was tried on the compiler. A rule says what somebody saw (Google's own pairs of CPU
and compiled models, compiler logs in public issues, named by repository and number) or what the
table of supported operations on coral.ai promises; ``docs/edgetpu_mapping.md`` tells how sure each
is and lists where Google's pairs disagree.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from training.tflite_file import EDGETPU_CUSTOM_OP, Operation, Tensor, TfliteError, TfliteFile


class Verdict(enum.IntEnum):
    """What to expect of an operation, from best to worst."""

    SEEN = 0
    LIKELY = 1
    UNKNOWN = 2
    CPU = 3
    FAIL = 4

    def __str__(self) -> str:
        return ('seen mapped', 'likely', 'unknown', 'CPU', 'compile failure')[self]


@dataclasses.dataclass(frozen=True)
class Finding:
    """A verdict and why."""

    verdict: Verdict
    reason: str


#: int8 operator versions that compiler 16 (TensorFlow 2.5) takes; newer ones stay on the CPU.
VERSIONS = {
    'ADD': 2, 'AVERAGE_POOL_2D': 2, 'CONCATENATION': 2, 'CONV_2D': 3, 'DEPTHWISE_CONV_2D': 3,
    'EXPAND_DIMS': 1, 'FULLY_CONNECTED': 4, 'L2_NORMALIZATION': 2, 'LOGISTIC': 2, 'MAXIMUM': 2,
    'MAX_POOL_2D': 2, 'MEAN': 2, 'MINIMUM': 2, 'MUL': 2, 'PACK': 2, 'PAD': 2, 'PRELU': 1,
    'QUANTIZE': 2, 'REDUCE_MAX': 2, 'REDUCE_MIN': 2, 'RELU': 2, 'RELU6': 2, 'RELU_N1_TO_1': 1,
    'RESHAPE': 1, 'RESIZE_BILINEAR': 3, 'RESIZE_NEAREST_NEIGHBOR': 3, 'RSQRT': 1, 'SLICE': 2,
    'SOFTMAX': 2, 'SPACE_TO_DEPTH': 2, 'SPLIT': 2, 'SQUARED_DIFFERENCE': 1, 'SQUEEZE': 1,
    'STRIDED_SLICE': 2, 'SUB': 2, 'SUM': 1, 'TANH': 2, 'TILE': 2, 'TRANSPOSE': 2,
    'TRANSPOSE_CONV': 3, 'UNIDIRECTIONAL_SEQUENCE_LSTM': 2,
}

#: Versions that its built-in interpreter can load at all: anything newer ends the compilation with
#: "Didn't find op for builtin opcode". From TensorFlow 2.4's and 2.9's registries and from issues
#: (google-coral/edgetpu#631 CONV_2D 6, #845 TRANSPOSE_CONV 4, #879 QUANTIZE 3, #386
#: DEPTH_TO_SPACE 2, google-coral/libedgetpu#71 EXP 2).
LOADABLE = {
    'ADD': 3, 'ARG_MAX': 2, 'AVERAGE_POOL_2D': 3, 'CAST': 1, 'CONCATENATION': 3, 'CONV_2D': 5,
    'DEPTHWISE_CONV_2D': 6, 'DEPTH_TO_SPACE': 1, 'DEQUANTIZE': 4, 'EXP': 1, 'FULLY_CONNECTED': 9,
    'LOGISTIC': 3, 'MAX_POOL_2D': 3, 'MEAN': 3, 'MUL': 4, 'PAD': 3, 'PRELU': 1, 'QUANTIZE': 2,
    'RELU': 3, 'RELU6': 3, 'RESIZE_BILINEAR': 3, 'RESIZE_NEAREST_NEIGHBOR': 3, 'SOFTMAX': 3,
    'SPLIT': 4, 'SUB': 5, 'TANH': 3, 'TILE': 2, 'TRANSPOSE_CONV': 3,
}

#: The last operator that TensorFlow 2.5's schema names (COMPLEX_ABS); later ones end the
#: compilation with "Op builtin_code out of range" (seen for 150, GELU).
LAST_BUILTIN = 135

TILES_PER_SIDE = 4
TILE_MEMORY_BYTES = 196_608
#: A concatenation of 60x152x90 was refused as too large (google-coral/edgetpu#309).
_CONCAT_REFUSED_BYTES = 60 * 152 * 90
#: The largest of Google's: 33x33x256 in DeepLab.
_CONCAT_SEEN_BYTES = 33 * 33 * 256
_RESIZE_LIKELY_BYTES = 32 * 64 * 128
_RESHAPE_LIKELY_BYTES = 32 * 64 * 128

#: Mapped resizes: factor, output height, width, channels, source.
_RESIZES = (
    (1, 33, 33, 19, "Google's DeepLab"),
    (2, 12, 12, 64, "Google's MoveNet"),
    (2, 24, 24, 32, "Google's MoveNet"),
    (2, 48, 48, 24, "Google's MoveNet"),
    (4, 32, 64, 128, 'BiSeNetV2 with compiler 15, google-coral/edgetpu#377'),
)


def tile_bytes(tensor: Tensor) -> int:
    """
    Return the bytes of a tensor in the activation memory of each of the 4x4 tiles.

    Height and width are divided among the tiles, channels padded to a multiple of four (checked
    against Google's compiled MoveNet).

    """
    h, w, c = tensor.hwc
    return math.ceil(h / TILES_PER_SIDE) * math.ceil(w / TILES_PER_SIDE) * math.ceil(c / 4) * 4


def judge(
    operation: Operation, producers: Mapping[int, Operation],
) -> tuple[Finding, ...]:
    """
    Judge one operation.

    Parameters
    ----------
    operation : Operation
    producers : mapping of int to Operation
        By the index of the tensor that each computes.

    Returns
    -------
    tuple of Finding
        Worst first, at least one.

    """
    found = [*_loading(operation)]
    if not found:
        found = [*_tensors(operation)]
        if (rule := _RULES.get(operation.name)) is None:
            found.append(Finding(Verdict.CPU, 'not in the table of supported operations'))
        else:
            try:
                found += rule(operation, producers)
            except (IndexError, KeyError, TfliteError) as error:
                found.append(Finding(
                    Verdict.UNKNOWN, f'not formed as its schema says ({error}); convert again'))
    return tuple(sorted(found, key=lambda finding: -finding.verdict))


def judge_model(model: TfliteFile) -> tuple[Finding, ...]:
    """Return what keeps a whole model from being compiled."""
    tensors = {tensor.index: tensor for operation in model.operations
               for tensor in (*operation.inputs, *operation.outputs)}
    tensors |= {tensor.index: tensor for tensor in (*model.inputs, *model.outputs)}
    found = []
    if dynamic := [t for t in tensors.values() if -1 in t.signature]:
        found.append(Finding(
            Verdict.FAIL, f'{len(dynamic)} tensors have a dynamic shape, first '
            f'{dynamic[0].name!r} {list(dynamic[0].signature)}; convert with a fixed batch of 1'))
    if not any(t.dtype in ('int8', 'uint8') and t.scales for t in tensors.values()):
        found.append(Finding(
            Verdict.FAIL, 'Model not quantized: no tensor is 8-bit; convert with full int8 '
                          'quantization'))
    for kind, ends in (('input', model.inputs), ('output', model.outputs)):
        for tensor in ends:
            if tensor.dtype not in ('int8', 'uint8'):
                found.append(Finding(
                    Verdict.CPU, f'{kind} {tensor.name!r} is {tensor.dtype}: converting it '
                                 'stays on the CPU'))
    if model.subgraphs > 1:
        found.append(Finding(
            Verdict.UNKNOWN, f'{model.subgraphs} subgraphs: only the first was looked at'))
    return tuple(found)


def _loading(operation: Operation) -> Iterator[Finding]:
    """Yield what ends the compilation before anything is mapped."""
    name, version = operation.name, operation.version
    if operation.custom:
        if name == EDGETPU_CUSTOM_OP:
            yield Finding(Verdict.SEEN, 'compiled for the EdgeTPU')
        elif name == 'TFLite_Detection_PostProcess':
            yield Finding(Verdict.CPU, 'custom operator that every runtime brings along')
        else:
            yield Finding(Verdict.FAIL, f'custom operator {name!r}: the compiler cannot load it')
    elif operation.code > LAST_BUILTIN:
        yield Finding(
            Verdict.FAIL, f'Op builtin_code out of range: {operation.code}; the compiler knows '
                          f'up to {LAST_BUILTIN}')
    elif version > LOADABLE.get(name, version):
        yield Finding(
            Verdict.FAIL, f"Didn't find op for builtin opcode '{name}' version '{version}'; the "
                          f'compiler loads up to {LOADABLE[name]}')
    elif version > VERSIONS.get(name, version):
        yield Finding(
            Verdict.CPU, f'Operation version not supported: {version}, mapped are up to '
                         f'{VERSIONS[name]}')


def _tensors(operation: Operation) -> Iterator[Finding]:
    """Yield what is wrong with an operation's tensors, whatever it computes."""
    for tensor in (*operation.activations, *operation.outputs):
        if tensor.dtype not in ('int8', 'uint8'):
            yield Finding(
                Verdict.CPU, f'Operation is working on an unsupported data type: {tensor}')
        elif not tensor.scales:
            yield Finding(Verdict.CPU, f'{tensor} {tensor.name!r} is not quantized')
        if any(side > 1 for side in tensor.shape[:-3]):
            yield Finding(
                Verdict.CPU, f'Tensor has unsupported rank: {tensor}; only the three innermost '
                             'dimensions may exceed 1')


def _whole(operation: Operation) -> Iterator[Finding]:
    """Yield a finding for a tensor that must stay whole and does not fit."""
    for tensor in (*operation.activations, *operation.outputs):
        if (needed := tile_bytes(tensor)) > TILE_MEMORY_BYTES:
            yield Finding(
                Verdict.UNKNOWN, f'{tensor} takes {needed} of {TILE_MEMORY_BYTES} bytes a tile '
                                 'and cannot be worked on in slices here')


def _constant_inputs(operation: Operation, first: int = 1) -> Iterator[Finding]:
    for tensor in operation.inputs[first:]:
        if not tensor.constant:
            yield Finding(Verdict.CPU, f'{tensor.name!r} must be a constant')


def _unfused(operation: Operation) -> Iterator[Finding]:
    if operation.options.get('fusedActivationFunction', 0):
        yield Finding(Verdict.CPU, 'has a fused activation function')


def _dilation(operation: Operation) -> Iterator[Finding]:
    vertical = operation.options.get('dilationHFactor', 1)
    horizontal = operation.options.get('dilationWFactor', 1)
    if vertical != horizontal:
        yield Finding(Verdict.CPU, f'dilation differs: {vertical} down, {horizontal} across')


def _axes(operation: Operation, position: int = 1) -> tuple[int, ...]:
    """Return the axes that a constant input names, counted from the front."""
    rank = len(operation.inputs[0].shape)
    return tuple(int(axis) % rank for axis in
                 np.atleast_1d(operation.inputs[position].values()).tolist())


def _convolution(operation: Operation, _: Mapping[int, Operation]) -> Iterator[Finding]:
    yield from _dilation(operation)
    yield from _constant_inputs(operation)
    channels, filtered = operation.inputs[0].shape[-1], operation.inputs[1].shape[-1]
    if operation.name == 'CONV_2D' and channels != filtered:
        yield Finding(Verdict.UNKNOWN, f'grouped: {channels} channels, filters of {filtered}')
    if operation.name == 'DEPTHWISE_CONV_2D' and filtered != channels:
        yield Finding(Verdict.SEEN, 'depth multiplier, as in the BiSeNetV2 of '
                                    'google-coral/edgetpu#377 with compiler 15')
    else:
        yield Finding(Verdict.SEEN, "in Google's compiled models")


def _elementwise(
    operation: Operation, producers: Mapping[int, Operation],
) -> Iterator[Finding]:
    output, name = operation.outputs[0].shape, operation.name
    if name in ('MAXIMUM', 'MINIMUM'):
        yield Finding(Verdict.LIKELY, 'in the table of supported operations')
    if any(producers[tensor.index].name == 'PAD' for tensor in operation.activations
           if tensor.index in producers) and name == 'ADD':
        yield Finding(Verdict.UNKNOWN, 'an ADD behind a PAD was left on the CPU in a feature '
                                       'pyramid')
    for tensor in operation.inputs:
        if tensor.shape == output:
            continue
        if tensor.constant:
            yield Finding(Verdict.SEEN, f"broadcasts a constant {tensor}, as Google's MoveNet")
        elif tensor.hwc[:2] == (1, 1) and tensor.hwc[2] == output[-1] and len(tensor.shape) == 4:
            yield (Finding(
                Verdict.LIKELY, f'broadcasts {tensor}: mapped by compiler 15 in BiSeNetV2 '
                                '(google-coral/edgetpu#377), not shown for 16')
                if name == 'ADD' else Finding(
                    Verdict.UNKNOWN, f'broadcasts {tensor}, as squeeze-and-excitation does, which '
                                     'Google took out of its EdgeTPU networks'))
        else:
            yield Finding(Verdict.UNKNOWN, f'broadcasts {tensor} to {list(output)}')
    yield Finding(Verdict.SEEN, "in Google's compiled models")


def _pool(operation: Operation, _: Mapping[int, Operation]) -> Iterator[Finding]:
    yield from _unfused(operation)
    h, w = operation.options['filterHeight'], operation.options['filterWidth']
    if max(h, w) <= 7:
        yield Finding(Verdict.SEEN, "in Google's compiled models and logs of others")
    elif operation.name == 'MAX_POOL_2D':
        yield Finding(Verdict.UNKNOWN, f'window of {h}x{w}')
    elif max(h, w) <= 33:
        yield Finding(
            Verdict.SEEN if operation.inputs[0].hwc[:2] == (h, w) == (33, 33) else Verdict.LIKELY,
            f"window of {h}x{w}; Google's DeepLab has 33x33 over the whole map, at the price of "
            'going through the host')
    else:
        yield Finding(Verdict.UNKNOWN, f'window of {h}x{w}; the largest seen is 33x33')


def _concatenation(operation: Operation, _: Mapping[int, Operation]) -> Iterator[Finding]:
    yield from _unfused(operation)
    yield from _whole(operation)
    output = operation.outputs[0]
    if operation.options['axis'] % len(output.shape) == 0 and len(output.shape) > 3:
        yield Finding(Verdict.CPU, 'concatenates over the batch')
    for tensor in operation.constants:
        if len(operation.inputs) != 2 or (tensor.values() != _zero_point(tensor)).any():
            yield Finding(Verdict.CPU, 'a constant is allowed only as one of two inputs and all '
                                       'zeros')
    if output.elements >= _CONCAT_REFUSED_BYTES:
        yield Finding(
            Verdict.UNKNOWN, f'{output.elements} bytes; {_CONCAT_REFUSED_BYTES} were refused as '
                             'too large (google-coral/edgetpu#309)')
    elif output.elements > _CONCAT_SEEN_BYTES:
        yield Finding(
            Verdict.LIKELY, f'{output.elements} bytes; the largest seen mapped has '
                            f'{_CONCAT_SEEN_BYTES}')
    else:
        yield Finding(Verdict.SEEN, "in Google's compiled models")


def _zero_point(tensor: Tensor) -> int:
    return tensor.zero_points[0] if tensor.zero_points else 0


def _fully_connected(operation: Operation, _: Mapping[int, Operation]) -> Iterator[Finding]:
    yield from _constant_inputs(operation)
    if operation.options.get('weightsFormat', 0):
        yield Finding(Verdict.CPU, 'weights are not in the default format')
    if operation.options.get('keepNumDims') or any(
            side > 1 for side in operation.outputs[0].shape[:-1]):
        yield Finding(Verdict.CPU, f'output {operation.outputs[0]} is not one-dimensional')
    yield Finding(Verdict.SEEN, "in Google's compiled models")


def _reduction(operation: Operation, _: Mapping[int, Operation]) -> Iterator[Finding]:
    yield from _constant_inputs(operation)
    yield from _whole(operation)
    source, axes = operation.inputs[0], _axes(operation)
    if len(source.shape) > 3 and 0 in axes:
        yield Finding(Verdict.CPU, 'reduces the batch')
    if operation.name != 'MEAN':
        yield Finding(Verdict.LIKELY, 'in the table of supported operations')
        return
    if len(source.shape) - 1 in axes and source.shape[-1] % 4:
        yield Finding(
            Verdict.CPU, f'a mean over {source.shape[-1]} channels, which must be a multiple of 4')
    h, w, _c = source.hwc
    if h * w >= 256 * 128:
        yield Finding(
            Verdict.CPU, f'a mean over {h}x{w}: 256x128 was not mapped '
                         '(google-coral/edgetpu#461, #183); take it in parts')
    elif source.elements > _RESHAPE_LIKELY_BYTES:
        yield Finding(Verdict.UNKNOWN, f'a mean over {source.elements} bytes')
    elif source.elements > 64 * 128 * 3:
        yield Finding(Verdict.LIKELY, f'a mean over {source.elements} bytes; 64x128x3 and '
                                      '8x16x128 are known to map')
    else:
        yield Finding(Verdict.SEEN, 'as 64x128x3 (google-coral/edgetpu#461) and 8x16x128 (#377), '
                                    'with compiler 15')


def _pad(operation: Operation, _: Mapping[int, Operation]) -> Iterator[Finding]:
    yield from _constant_inputs(operation)
    padding = operation.inputs[1].values()
    if len(padding) > 3 and padding[0].any():
        yield Finding(Verdict.CPU, 'pads the batch')
    if padding[-1].any():
        yield Finding(Verdict.LIKELY, 'pads channels')
    yield Finding(Verdict.SEEN, "in Google's compiled models")


def _reshape(operation: Operation, _: Mapping[int, Operation]) -> Iterator[Finding]:
    yield from _whole(operation)
    output = operation.outputs[0]
    if output.elements > _RESHAPE_LIKELY_BYTES:
        yield Finding(Verdict.UNKNOWN, f'{output.elements} bytes; certain large ones stay on the '
                                       'CPU')
    elif len(output.shape) < 2:
        yield Finding(Verdict.UNKNOWN, f'to {output}: nobody has shown one to map; a converter '
                                       'writes it where the 1x1 operand of an ADD comes second')
    else:
        yield Finding(Verdict.LIKELY, "there are some in Google's MoveNet")


def _resize(operation: Operation, _: Mapping[int, Operation]) -> Iterator[Finding]:
    yield from _constant_inputs(operation)
    yield from _whole(operation)
    (h, w, c), (out_h, out_w, _c) = operation.inputs[0].hwc, operation.outputs[0].hwc
    size = f'{h}x{w} to {out_h}x{out_w}x{c}'
    # With aligned corners the grid has one step less than it has points.
    less = 1 if operation.options.get('alignCorners') and min(h, w) > 1 else 0
    factor, across = (out_h - less) / (h - less), (out_w - less) / (w - less)
    if (h, w) == (1, 1) and factor > 1:
        yield Finding(Verdict.CPU, f"{size}: from one pixel, left on the CPU in Google's DeepLab")
    elif max(factor, across) >= 8 or out_h * out_w >= 256 * 256:
        yield Finding(
            Verdict.CPU, f'{size}: not mapped to avoid loss of precision at this size or factor')
    elif factor != across or factor != int(factor):
        yield Finding(Verdict.UNKNOWN, f'{size}: not by a whole factor, equal both ways')
    elif known := [source for known_factor, known_h, known_w, known_c, source in _RESIZES
                   if factor == known_factor and out_h <= known_h and out_w <= known_w
                   and c <= known_c]:
        yield Finding(Verdict.SEEN, f'{size}: no larger than in {known[0]}')
    elif (factor in (1, 2, 4) and out_h <= 64 and out_w <= 128
          and operation.outputs[0].elements <= _RESIZE_LIKELY_BYTES):
        yield Finding(Verdict.LIKELY, f'{size}: within the sizes that have been seen to map')
    else:
        yield Finding(Verdict.UNKNOWN, f'{size}: larger than any seen mapped by compiler 16')


def _softmax(operation: Operation, _: Mapping[int, Operation]) -> Iterator[Finding]:
    shape = operation.inputs[0].shape
    if any(side > 1 for side in shape[:-1]) or shape[-1] > 16_000:
        yield Finding(Verdict.CPU, f'over {list(shape)}: only one dimension of up to 16000')
    yield Finding(Verdict.SEEN, "in Google's compiled models")


def _split(operation: Operation, _: Mapping[int, Operation]) -> Iterator[Finding]:
    source = operation.inputs[1]
    axis = int(operation.inputs[0].values().ravel()[0]) % len(source.shape)
    if axis == 0 and len(source.shape) > 3:
        yield Finding(Verdict.CPU, 'splits the batch')
    yield Finding(Verdict.SEEN, "in Google's compiled models")


def _strided_slice(operation: Operation, _: Mapping[int, Operation]) -> Iterator[Finding]:
    yield from _constant_inputs(operation)
    if (operation.inputs[3].values() != 1).any():
        yield Finding(Verdict.CPU, 'a stride is not 1')
    for mask in ('ellipsisMask', 'newAxisMask'):
        if operation.options.get(mask):
            yield Finding(Verdict.CPU, f'{mask} is not 0')
    yield Finding(Verdict.LIKELY, 'in the table of supported operations')


def _tile(operation: Operation, _: Mapping[int, Operation]) -> Iterator[Finding]:
    h, w, c = operation.outputs[0].hwc
    small = operation.inputs[0].hwc == (1, 1, c) and h <= 33 and w <= 33 and c <= 128
    yield Finding(
        Verdict.SEEN if small else Verdict.UNKNOWN,
        "not in the table, yet Google's DeepLab maps 1x1 to 33x33x128")


def _prelu(operation: Operation, _: Mapping[int, Operation]) -> Iterator[Finding]:
    if any(side > 1 for side in operation.inputs[1].shape[:-1]):
        yield Finding(Verdict.CPU, f'slopes {operation.inputs[1]} must be shared by all pixels')
    yield Finding(Verdict.SEEN, '41 of them mapped in eehoeskrap/PaperReview#15')


def _pack(operation: Operation, _: Mapping[int, Operation]) -> Iterator[Finding]:
    if operation.options.get('axis', 0) % len(operation.outputs[0].shape) == 0:
        yield Finding(Verdict.CPU, 'packs the batch')
    yield Finding(Verdict.LIKELY, 'in the table of supported operations')


def _transpose_convolution(
    operation: Operation, _: Mapping[int, Operation],
) -> Iterator[Finding]:
    yield Finding(
        Verdict.UNKNOWN, 'in the table of supported operations, but left on the CPU in '
                         'google-coral/edgetpu#509 and #684; resize and convolve instead')


def _seen(_: Operation, __: Mapping[int, Operation]) -> Iterator[Finding]:
    yield Finding(Verdict.SEEN, "in Google's compiled models")


def _listed(_: Operation, __: Mapping[int, Operation]) -> Iterator[Finding]:
    yield Finding(Verdict.LIKELY, 'in the table of supported operations')


_Rule = Callable[[Operation, Mapping[int, Operation]], Iterator[Finding]]

_RULES: dict[str, _Rule] = {
    'ADD': _elementwise, 'SUB': _elementwise, 'MUL': _elementwise, 'MAXIMUM': _elementwise,
    'MINIMUM': _elementwise,
    'AVERAGE_POOL_2D': _pool, 'MAX_POOL_2D': _pool,
    'CONCATENATION': _concatenation,
    'CONV_2D': _convolution, 'DEPTHWISE_CONV_2D': _convolution,
    'FULLY_CONNECTED': _fully_connected,
    'LOGISTIC': _seen, 'QUANTIZE': _seen,
    'MEAN': _reduction, 'SUM': _reduction, 'REDUCE_MAX': _reduction, 'REDUCE_MIN': _reduction,
    'PACK': _pack, 'PAD': _pad, 'PRELU': _prelu, 'RESHAPE': _reshape,
    'RESIZE_BILINEAR': _resize, 'RESIZE_NEAREST_NEIGHBOR': _resize,
    'SOFTMAX': _softmax, 'SPLIT': _split, 'STRIDED_SLICE': _strided_slice, 'TILE': _tile,
    'TRANSPOSE_CONV': _transpose_convolution,
    **dict.fromkeys(
        ('EXPAND_DIMS', 'L2_NORMALIZATION', 'RELU', 'RELU6', 'RELU_N1_TO_1', 'RSQRT', 'SLICE',
         'SPACE_TO_DEPTH', 'SQUARED_DIFFERENCE', 'SQUEEZE', 'TANH', 'TRANSPOSE',
         'UNIDIRECTIONAL_SEQUENCE_LSTM'), _listed),
}
