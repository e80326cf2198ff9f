"""The runtime: exact arithmetic of tiny models; one clear line for a file that will not do."""

from __future__ import annotations

import importlib
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import tflite_models
from bisenet_ros.core import engine
from bisenet_ros.core.engine import (
    LiteRtEngine, TensorSpec, automatic_threads, check_device, check_model_file, find_runtime,
    is_compiled_for_edgetpu,
)
from bisenet_ros.core.errors import DeviceError, ModelError
from tflite_models import Toy

THREE = Toy(weights=((0, 0, 0), (1, 0, -1), (0, -1, 1)), bias=(3, -5, 0))


def random_rgb(hw: tuple[int, int], seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (*hw, 3), np.uint8)


def saved(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / 'm.tflite'
    path.write_bytes(data)
    return path


# -- running -------------------------------------------------------------------------------------


@pytest.mark.parametrize('kind', ['logits', 'labels'])
@pytest.mark.parametrize('input_dtype', ['uint8', 'int8'])
@pytest.mark.parametrize(('input_hw', 'stride'), [((32, 64), 8), ((33, 65), 8), ((16, 16), 1)])
def test_result_is_the_arithmetic_of_the_model(
    tmp_path: Path, kind: str, input_dtype: str, input_hw: tuple[int, int], stride: int,
) -> None:
    toy = Toy(weights=THREE.weights, bias=THREE.bias, kind=kind, input_dtype=input_dtype,
              input_hw=input_hw, stride=stride)
    loaded = LiteRtEngine(saved(tmp_path, toy.file()), 1)
    for seed in range(3):
        rgb = random_rgb(input_hw, seed)
        image = rgb if input_dtype == 'uint8' else (rgb.astype(int) - 128).astype(np.int8)
        result = loaded.run(image)
        assert result.dtype == (np.int8 if kind == 'logits' else np.int64)
        np.testing.assert_array_equal(result, toy.output(rgb))


def test_by_eye(tmp_path: Path) -> None:
    toy = Toy(input_hw=(8, 16))  # one row of two cells; scores 19 + 0 and 19 + red - blue
    rgb = np.zeros((8, 16, 3), np.uint8)
    rgb[0, 0] = (50, 99, 10)
    rgb[0, 8] = (0, 99, 255)
    result = LiteRtEngine(saved(tmp_path, toy.file()), 1).run(rgb)
    np.testing.assert_array_equal(result, [[[19, 59], [19, -128]]])


def test_specs_say_shape_type_and_quantization(tmp_path: Path) -> None:
    loaded = LiteRtEngine(saved(tmp_path, THREE.file()), 1)
    assert loaded.input == TensorSpec(
        'image', (1, 32, 64, 3), np.dtype(np.uint8), float(np.float32(1 / 255)), 0)
    assert loaded.output == TensorSpec('scores', (1, 4, 8, 3), np.dtype(np.int8), 0.125, 19)
    assert str(loaded.output) == 'int8[1, 4, 8, 3] scale 0.125 zero 19'
    labels = LiteRtEngine(saved(tmp_path, Toy(kind='labels').file()), 1).output
    assert str(labels) == 'int64[1, 4, 8]'
    assert loaded.device == 'cpu'
    assert loaded.runtime.split()[0] in ('ai_edge_litert', 'tflite_runtime')


def test_specs_match_whatever_their_names() -> None:
    spec = TensorSpec('a', (1, 2), np.dtype(np.int8), 0.5, 1)
    assert spec.matches(TensorSpec('b', (1, 2), np.dtype(np.int8), 0.5, 1))
    for other in (((1, 3), np.int8, 0.5, 1), ((1, 2), np.uint8, 0.5, 1),
                  ((1, 2), np.int8, 0.25, 1), ((1, 2), np.int8, 0.5, 0)):
        shape, dtype, scale, zero_point = other
        assert not spec.matches(TensorSpec('a', shape, np.dtype(dtype), scale, zero_point))


def test_result_is_a_copy(tmp_path: Path) -> None:
    loaded = LiteRtEngine(saved(tmp_path, THREE.file()), 1)
    first_rgb, second_rgb = random_rgb((32, 64), 1), random_rgb((32, 64), 2)
    first = loaded.run(first_rgb)
    loaded.run(second_rgb)
    np.testing.assert_array_equal(first, THREE.output(first_rgb))


@pytest.mark.parametrize('image', [
    np.zeros((32, 63, 3), np.uint8), np.zeros((32, 64, 3), np.float32),
    np.zeros((32, 64), np.uint8)])
def test_image_that_does_not_fit_is_named(tmp_path: Path, image: npt.NDArray[Any]) -> None:
    loaded = LiteRtEngine(saved(tmp_path, THREE.file()), 1)
    with pytest.raises(DeviceError, match=r'cpu: inference failed: .+'):
        loaded.run(image)
    rgb = random_rgb((32, 64))
    np.testing.assert_array_equal(loaded.run(rgb), THREE.output(rgb))  # and it goes on


def test_closed_engine_says_so_twice(tmp_path: Path) -> None:
    loaded = LiteRtEngine(saved(tmp_path, THREE.file()), 1)
    loaded.close()
    loaded.close()
    with pytest.raises(DeviceError, match='the engine is closed'):
        loaded.run(random_rgb((32, 64)))


def test_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, THREE.file())
    assert LiteRtEngine(path, 3).num_threads == 3
    for cores, expected in ((1, 1), (2, 2), (64, 4)):
        monkeypatch.setattr(engine, 'usable_cores', lambda n=cores: n)
        assert automatic_threads() == expected
        assert LiteRtEngine(path).num_threads == expected


# -- files that will not do ----------------------------------------------------------------------


def refuse(path: Path, match: str, **options: Any) -> None:
    with pytest.raises(ModelError, match=match) as caught:
        LiteRtEngine(path, 1, **options)
    assert str(caught.value).startswith(f'{path}: ')
    assert '\n' not in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    refuse(tmp_path / 'none.tflite', r'cannot be read: No such file or directory')
    refuse(tmp_path, r'cannot be read: Is a directory')


@pytest.mark.parametrize('data', [
    b'', b'TFL3', b'\x89PNG\r\n\x1a\n' * 9, b'version https://git-lfs.github.com/spec/v1\n',
    b'\0' * 64])
def test_other_formats(tmp_path: Path, data: bytes) -> None:
    path = saved(tmp_path, data)
    with pytest.raises(ModelError, match='not a TFLite model'):
        check_model_file(path)
    refuse(path, r'not a TFLite model \(found b.* expected TFL3 in bytes 4 to 8\); give the path')


@pytest.mark.parametrize('share', [0.02, 0.3, 0.7, 0.99])
def test_truncated_file(tmp_path: Path, share: float) -> None:
    data = THREE.file()
    refuse(saved(tmp_path, data[:max(8, int(share * len(data)))]),
           r'cannot load it: .*; the file is damaged or made for a newer runtime: export')


def test_float_model(tmp_path: Path) -> None:
    refuse(saved(tmp_path, tflite_models.float_model()),
           r'its input is float32\[1, 32, 64, 3\], expected uint8 or int8 \[1, H, W, 3\] with a '
           r'quantization; quantize it \(training\.quantize\)')


def test_compiled_model_on_the_cpu(tmp_path: Path) -> None:
    path = saved(tmp_path, tflite_models.compiled_model())
    assert is_compiled_for_edgetpu(path)
    refuse(path, r'compiled for the EdgeTPU, but the device is the CPU; give the model that it '
                 r'was compiled from, or a device \(usb, pci\)')
    assert not is_compiled_for_edgetpu(saved(tmp_path, THREE.file()))


def test_googles_compiled_model_on_the_cpu(shared_data: Path) -> None:
    refuse(shared_data / 'coral'
           / 'deeplab_mobilenet_edgetpu_slim_cityscapes_quant_edgetpu.tflite',
           r'compiled for the EdgeTPU, but the device is the CPU')


def test_damaged_name(tmp_path: Path) -> None:
    data = THREE.file()
    assert data.count(b'image') == 1
    refuse(saved(tmp_path, data.replace(b'image', b'im\xffge')),
           r'cannot load it: .*; the file is damaged or made for a newer runtime')


def newer_operator(model: Any) -> None:
    model.operatorCodes[-1].version = 99


def unknown_operator(model: Any) -> None:
    model.operatorCodes[-1].builtinCode = tflite_models.schema.BuiltinOperator.CUSTOM
    model.operatorCodes[-1].deprecatedBuiltinCode = 32
    model.operatorCodes[-1].customCode = b'of-tomorrow'
    model.subgraphs[0].operators[-1].builtinOptionsType = 0
    model.subgraphs[0].operators[-1].builtinOptions = None


@pytest.mark.parametrize('damage', [newer_operator, unknown_operator])
def test_operator_that_the_runtime_does_not_know(
    tmp_path: Path, damage: Callable[[Any], None],
) -> None:
    refuse(saved(tmp_path, THREE.file(damage)),
           r'(ai_edge_litert|tflite_runtime) \S+ cannot load it: .*; the file is damaged or made '
           r'for a newer runtime: export it again, or update the runtime')


def dynamic_input(model: Any) -> None:
    model.subgraphs[0].tensors[0].shapeSignature = [-1, 32, 64, 3]


def dynamic_size(model: Any) -> None:
    for tensor in model.subgraphs[0].tensors[:2]:
        tensor.shape, tensor.shapeSignature = [1, 1, 1, 3], [1, -1, -1, 3]


def dynamic_output(model: Any) -> None:
    model.subgraphs[0].tensors[-1].shapeSignature = [1, -1, -1, 3]


@pytest.mark.parametrize(('damage', 'name', 'shape'), [
    (dynamic_input, 'image', r'\[-1, 32, 64, 3\]'),
    (dynamic_size, 'image', r'\[1, -1, -1, 3\]'),
    (dynamic_output, 'scores', r'\[1, -1, -1, 3\]'),
])
def test_dynamic_shape(
    tmp_path: Path, damage: Callable[[Any], None], name: str, shape: str,
) -> None:
    refuse(saved(tmp_path, THREE.file(damage)),
           rf"tensor '{name}' has the dynamic shape {shape}, expected a fixed one; export it with "
           'a batch of one')


def two_outputs(model: Any) -> None:
    model.subgraphs[0].outputs = [model.subgraphs[0].outputs[0], 1]


def two_inputs(model: Any) -> None:
    model.subgraphs[0].inputs = [0, 1]


@pytest.mark.parametrize(('damage', 'inputs', 'outputs'), [
    (two_outputs, 1, 2), (two_inputs, 2, 1)])
def test_more_than_one_input_or_output(
    tmp_path: Path, damage: Callable[[Any], None], inputs: int, outputs: int,
) -> None:
    refuse(saved(tmp_path, THREE.file(damage)),
           rf'found {inputs} inputs and {outputs} outputs, expected one of each; export the '
           r'deployable model \(training\.quantize\)')


def ends_in_floats(model: Any) -> None:
    """Hand out the logits as float32."""
    graph = model.subgraphs[0]
    floats = tflite_models.schema.TensorT()
    floats.name, floats.shape, floats.buffer = b'floats', [1, 4, 8, 3], 0
    floats.type = tflite_models.schema.TensorType.FLOAT32
    code = tflite_models.schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = 6  # DEQUANTIZE
    code.version = 2
    operator = tflite_models.schema.OperatorT()
    operator.opcodeIndex = len(model.operatorCodes)
    operator.inputs, operator.outputs = [graph.outputs[0]], [len(graph.tensors)]
    model.operatorCodes.append(code)
    graph.tensors.append(floats)
    graph.operators.append(operator)
    graph.outputs = [len(graph.tensors) - 1]


def test_float_output(tmp_path: Path) -> None:
    refuse(saved(tmp_path, THREE.file(ends_in_floats)),
           r'its output is float32\[1, 4, 8, 3\], expected quantized scores \[1, h, w, C\] or '
           r'integer class ids \[1, h, w\]; quantize it')


@pytest.mark.parametrize('shape', [[1, 32, 64, 1], [2, 32, 64, 3]])
def test_input_that_is_no_single_colour_image(tmp_path: Path, shape: list[int]) -> None:
    graph = tflite_models.Graph()
    image = graph.tensor('image', shape, 'uint8', 1 / 255)
    result = graph.tensor('signed', shape, 'int8', 1 / 255, -128)
    graph.operator('QUANTIZE', [image], [result], tflite_models.schema.QuantizeOptionsT())
    refuse(saved(tmp_path, tflite_models.packed(graph.model([image], [result]))),
           rf'its input is uint8\[{", ".join(map(str, shape))}\] scale .*, expected uint8 or int8')


def test_input_without_quantization(tmp_path: Path) -> None:
    graph = tflite_models.Graph()
    image = graph.tensor('image', [1, 32, 64, 3], 'uint8')
    result = graph.tensor('bytes', [1, 32, 64, 3], 'uint8')
    shape = graph.constant('shape', np.int32([1, 32, 64, 3]))
    graph.operator('RESHAPE', [image, shape], [result])
    refuse(saved(tmp_path, tflite_models.packed(graph.model([image], [result]))),
           r'its input is uint8\[1, 32, 64, 3\], expected uint8 or int8 .* with a quantization')


# -- devices -------------------------------------------------------------------------------------


@pytest.mark.parametrize('device', ['auto', 'cpu', 'usb', 'usb:0', 'usb:12', 'pci', 'pci:3'])
def test_device_names(device: str) -> None:
    check_device(device)


@pytest.mark.parametrize('device', [
    '', 'gpu', 'CPU', 'usb:', 'usb:x', 'cpu:0', 'pci:-1', 'usb:1 '])
def test_unknown_device_is_refused_with_the_known_ones(tmp_path: Path, device: str) -> None:
    match = rf"device: found '{device}', expected auto, cpu, usb, usb:N, pci or pci:N"
    with pytest.raises(DeviceError, match=match):
        check_device(device)
    with pytest.raises(DeviceError, match=match):
        LiteRtEngine(saved(tmp_path, THREE.file()), 1, device)


def test_plain_model_on_an_edgetpu(tmp_path: Path) -> None:
    refuse(saved(tmp_path, THREE.file()),
           r'not compiled for the EdgeTPU, but the device is usb:0; compile it .*, or use the CPU',
           device='usb:0')


# -- runtimes ------------------------------------------------------------------------------------


def only(monkeypatch: pytest.MonkeyPatch, **modules: Any) -> None:
    """Let no runtime be importable but stand-ins."""
    def import_module(name: str) -> Any:
        if name.replace('.', '_') in modules:
            return modules[name.replace('.', '_')]
        raise ImportError(f'No module named {name!r}')

    monkeypatch.setattr(importlib, 'import_module', import_module)


def stand_in(name: str) -> types.SimpleNamespace:
    return types.SimpleNamespace(
        __name__=name, __version__='1.2', Interpreter=f'{name} interpreter',
        load_delegate=f'{name} delegate')


def test_lightest_runtime_is_taken_first(monkeypatch: pytest.MonkeyPatch) -> None:
    both = {f'{name}{suffix}': stand_in(name) for name in ('ai_edge_litert', 'tflite_runtime')
            for suffix in ('', '_interpreter')}
    tensorflow = types.SimpleNamespace(__version__='2', lite=types.SimpleNamespace(
        Interpreter='tf', experimental=types.SimpleNamespace(load_delegate='tf delegate')))
    only(monkeypatch, **both, tensorflow=tensorflow)
    assert find_runtime() == (
        'ai_edge_litert 1.2', 'ai_edge_litert interpreter', 'ai_edge_litert delegate')
    only(monkeypatch, tensorflow=tensorflow,
         **{name: value for name, value in both.items() if name.startswith('tflite')})
    assert find_runtime() == (
        'tflite_runtime 1.2', 'tflite_runtime interpreter', 'tflite_runtime delegate')
    only(monkeypatch, tensorflow=tensorflow)
    assert find_runtime() == ('tensorflow 2', 'tf', 'tf delegate')
    with pytest.raises(DeviceError, match='no TFLite runtime found'):
        find_runtime(allow_tensorflow=False)


def test_no_runtime_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch)
    with pytest.raises(DeviceError, match=(
            r'no TFLite runtime found; install one: pip install ai-edge-litert '
            r'\(ai_edge_litert: No module named .*; tflite_runtime: .*; tensorflow: .*\)')):
        find_runtime()
