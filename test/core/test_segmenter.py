"""From frames to masks: loading, settings, alignment with the frame, and real roads."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from bisenet_ros import DeviceError, ModelError, Segmenter, Settings, SettingsError
from bisenet_ros.core import engines
from bisenet_ros.core.contract import UNLABELED, ModelContract, palette
from bisenet_ros.core.engine import TensorSpec
from bisenet_ros.core.postprocess import Wanted
from bisenet_ros.core.preprocess import FITS, placement
from bisenet_ros.core.segmenter import SHIPPED_MODEL, Timings, model_path
from tflite_models import Toy, compiled_model

Bytes = npt.NDArray[np.uint8]

ALL = Wanted(labels=True, mask=True, confidence=True)
MASK = Wanted(labels=False, mask=True)
CITYSCAPES = (
    'road', 'sidewalk', 'building', 'wall', 'fence', 'pole', 'traffic light', 'traffic sign',
    'vegetation', 'terrain', 'sky', 'person', 'rider', 'car', 'truck', 'bus', 'train',
    'motorcycle', 'bicycle')

#: One pixel per cell and no rounding anywhere: results are exact.
PIXELWISE = Toy(stride=1, input_hw=(16, 24))
THREE = Toy(weights=((0, 0, 0), (1, 0, -1), (0, -1, 1)), bias=(3, -5, 0))


def random_rgb(height: int, width: int, seed: int = 0) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


class FakeEngine:
    """Scores of two classes from a function of the image; the first class has 0."""

    device = 'cpu'

    def __init__(
        self, margin: Callable[[Bytes], npt.NDArray[Any]], input_hw: tuple[int, int] = (256, 512),
        stride: int = 8, scale: float = 0.05, zero_point: int = 0,
    ) -> None:
        self._margin = margin
        (height, width), self._zero_point = input_hw, zero_point
        self.input = TensorSpec('image', (1, height, width, 3), np.dtype(np.uint8), 1 / 255, 0)
        self.output = TensorSpec(
            'scores', (1, height // stride, width // stride, 2), np.dtype(np.int8), scale,
            zero_point)
        self.contract = Toy(input_hw=input_hw, stride=stride).contract()
        self.closed = False

    def run(self, image: Bytes) -> npt.NDArray[np.int8]:
        scores = np.full(self.output.shape[1:], self._zero_point, np.int8)
        scores[..., 1] = np.clip(self._margin(image) + self._zero_point, -128, 127)
        return scores

    def close(self) -> None:
        self.closed = True


def brightness(image: Bytes) -> npt.NDArray[np.float64]:
    """Return every cell's mean brightness, 0 for middle grey."""
    height, width, _ = image.shape
    cells = image.reshape(height // 8, 8, width // 8, 8, 3).mean((1, 3, 4))
    return np.round(cells - 127.5)


def fake(margin: Callable[[Bytes], npt.NDArray[Any]], **settings: Any) -> Segmenter:
    engine = FakeEngine(margin)
    return Segmenter(engine, engine.contract, Settings(**settings))


# -- loading -------------------------------------------------------------------------------------


@pytest.mark.parametrize('input_dtype', ['uint8', 'int8'])
@pytest.mark.parametrize('kind', ['logits', 'labels'])
def test_labels_are_the_models_own(tmp_path: Path, kind: str, input_dtype: str) -> None:
    toy = dataclasses.replace(PIXELWISE, kind=kind, input_dtype=input_dtype)
    segmenter = Segmenter.load(toy.save(tmp_path), num_threads=1)
    rgb = random_rgb(16, 24)
    result = segmenter.segment(rgb)
    np.testing.assert_array_equal(result.labels, PIXELWISE.scores(rgb).argmax(-1))
    assert result.labels is not None
    assert result.labels.dtype == np.uint8
    assert result.mask is None  # nobody asked
    assert (result.confidence is not None) == (kind == 'logits')


def test_confidence_and_mask_of_the_models_scores(tmp_path: Path) -> None:
    segmenter = Segmenter.load(PIXELWISE.save(tmp_path), num_threads=1)
    rgb = random_rgb(16, 24)
    scores = PIXELWISE.scores(rgb).astype(float)
    margin = (scores[..., 1] - scores[..., 0]) * PIXELWISE.scale
    result = segmenter.segment(rgb, wanted=ALL)
    np.testing.assert_array_equal(result.mask, np.where(margin > 0, 255, 0))
    np.testing.assert_allclose(
        result.confidence, 255 / (1 + np.exp(-np.abs(margin))), atol=1.5)


def test_probabilities_count_from_the_zero_point(tmp_path: Path) -> None:
    # 256ths above -128; what these three channels count needs not sum to 1
    toy = Toy(stride=1, input_hw=(16, 24), weights=((1, 0, 0), (0, 1, 0), (0, 0, 1)),
              bias=(0, 0, 0), scale=1 / 256, zero_point=-128)
    segmenter = Segmenter.load(
        toy.save(tmp_path, output_kind='probabilities'), num_threads=1)
    rgb = random_rgb(16, 24)
    result = segmenter.segment(rgb)
    np.testing.assert_array_equal(result.labels, rgb.argmax(-1))
    np.testing.assert_allclose(result.confidence, rgb.max(-1) / 256 * 255, atol=0.51)


def test_bgr_contract_is_heeded(tmp_path: Path) -> None:
    segmenter = Segmenter.load(PIXELWISE.save(tmp_path, channels='bgr'), num_threads=1)
    rgb = random_rgb(16, 24)
    np.testing.assert_array_equal(
        segmenter.segment(rgb).labels, PIXELWISE.scores(rgb[..., ::-1]).argmax(-1))
    np.testing.assert_array_equal(
        segmenter.segment(rgb[..., ::-1], channels='bgr').labels, segmenter.segment(rgb).labels)


def refuse(match: str, *args: Any, **options: Any) -> None:
    with pytest.raises(ModelError, match=match) as caught:
        Segmenter.load(*args, **options)
    assert '\n' not in str(caught.value)


def test_missing_model(tmp_path: Path) -> None:
    refuse(r'none\.tflite: cannot be read: No such file', tmp_path / 'none.tflite')
    refuse(r'none\.tflite: cannot be read: No such file', str(tmp_path / 'none.tflite'))


@pytest.mark.parametrize('damage', ['truncated', 'changed'])
def test_damaged_model_is_recognized_by_its_hash(tmp_path: Path, damage: str) -> None:
    path = PIXELWISE.save(tmp_path)
    data = bytearray(path.read_bytes())
    if damage == 'truncated':
        path.write_bytes(data[:200])
    else:
        data[-1] ^= 1
        path.write_bytes(data)
    refuse(rf'{re.escape(str(path))}: its sha256 is [0-9a-f]{{12}}\.\.\., toy\.json says '
           r'[0-9a-f]{12}\.\.\.; the file is damaged or the two are not from the same export: '
           'copy both again', path)


def test_damaged_compiled_model_is_recognized_by_its_own_hash(tmp_path: Path) -> None:
    PIXELWISE.save(tmp_path, edgetpu_sha256='0' * 64)
    path = tmp_path / 'toy_edgetpu.tflite'
    path.write_bytes(compiled_model())
    refuse(r'toy_edgetpu\.tflite: its sha256 is .*, toy\.json says 000000000000', path,
           device='cpu')


def test_compiled_model_on_the_cpu(tmp_path: Path) -> None:
    path = tmp_path / 'm_edgetpu.tflite'
    path.write_bytes(compiled_model())
    refuse(r'compiled for the EdgeTPU, but the device is the CPU; give the model', path,
           device='cpu')


def test_unreadable_contract(tmp_path: Path) -> None:
    path = PIXELWISE.save(tmp_path)
    path.with_suffix('.json').write_text('{')
    refuse(r'toy\.json: not a JSON file', path)


@pytest.mark.parametrize(('changes', 'said'), [
    ({'input_hw': (16, 32)},
     r'input height and width is \(16, 24\), its contract says \(16, 32\)'),
    ({'output_stride': 8},
     r'output height and width is \(16, 24\), its contract says \(2, 3\)'),
    ({'class_names': ('a', 'b', 'c'), 'class_colors_rgb': palette(3)},
     r'output channels is \(2,\), its contract says \(3,\)'),
    ({'output_kind': 'labels'}, r'output dimensions is \(4,\), its contract says \(3,\)'),
])
def test_contract_that_says_other_than_the_model(
    tmp_path: Path, changes: dict[str, Any], said: str,
) -> None:
    path = PIXELWISE.save(tmp_path, **changes)
    refuse(rf'toy\.tflite: {said}; the two are not from the same export: export the model again '
           r'with training\.quantize', path)


def test_contract_that_takes_labels_for_scores(tmp_path: Path) -> None:
    toy = dataclasses.replace(PIXELWISE, kind='labels')
    refuse(r'output channels is \(\), its contract says \(2,\)',
           toy.save(tmp_path, output_kind='logits'))


def test_contract_that_takes_a_softmax_for_logits_or_the_reverse(tmp_path: Path) -> None:
    softmax = dataclasses.replace(PIXELWISE, scale=1 / 256, zero_point=-128)
    refuse(r'toy\.tflite: its scores lie in 0 to 1 \(int8\[.*\), as those of a softmax do; its '
           r'contract says "logits": write "probabilities"',
           softmax.save(tmp_path, output_kind='logits'))
    refuse(r'toy\.tflite: its scores can be -18\.38 to 13\.5 \(int8\[.*"probabilities", which are '
           r'0 to 1: write "logits"', PIXELWISE.save(tmp_path, output_kind='probabilities'))
    Segmenter.load(softmax.save(tmp_path, output_kind='probabilities'), num_threads=1).close()


def test_class_names_must_be_the_contracts(tmp_path: Path) -> None:
    path = PIXELWISE.save(tmp_path)
    assert Segmenter.load(path, class_names=['background', 'road']).contract.class_names
    refuse(r"toy\.json: its classes are \['background', 'road'\], but class_names says "
           r"\['road', 'background'\]; .* leave it empty", path,
           class_names=['road', 'background'])


# -- models without a contract -------------------------------------------------------------------


def without_contract(tmp_path: Path, toy: Toy) -> Path:
    path = toy.save(tmp_path)
    path.with_suffix('.json').unlink()
    return path


@pytest.mark.parametrize('isolation', ['auto', 'process'])
def test_only_a_model_without_a_hash_is_tried_in_a_child_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, isolation: str,
) -> None:
    tried: list[Path] = []
    monkeypatch.setattr(
        engines, 'check_in_child', lambda path, *args, **options: tried.append(path))
    for contract in ('whole', 'without a hash', 'none'):
        path = PIXELWISE.save(tmp_path, **({'sha256': ''} if contract == 'without a hash' else {}))
        if contract == 'none':
            path.with_suffix('.json').unlink()
        Segmenter.load(path, class_names=['background', 'road'], num_threads=1,
                       isolation=isolation).close()
        # Where inference has a process of its own nothing of ours can crash.
        expected = [path] if contract != 'whole' and isolation == 'auto' else []
        assert tried == expected
        tried.clear()


@pytest.mark.parametrize('kind', ['logits', 'labels'])
def test_clear_tensors_need_only_names(tmp_path: Path, kind: str) -> None:
    toy = dataclasses.replace(THREE, kind=kind)
    path = without_contract(tmp_path, toy)
    segmenter = Segmenter.load(path, class_names=['sky', 'road', 'grass'], num_threads=1)
    assert segmenter.contract == ModelContract(
        input_hw=(32, 64), channels='rgb', input_scale=(float(np.float32(1 / 255)),) * 3,
        input_mean=(0.0,) * 3, output_kind=kind, output_stride=8,
        class_names=('sky', 'road', 'grass'), class_colors_rgb=palette(3))
    rgb = random_rgb(32, 64)
    segmenter.settings = Settings(output_size='model')
    labels = segmenter.segment(rgb).labels
    assert labels is not None
    # cell centres lie between pixels 3 and 4; scores elsewhere are blended
    expected = toy.scores(rgb).argmax(-1)
    assert (labels[4::8, 4::8] == expected).mean() > 0.8
    if kind == 'labels':
        np.testing.assert_array_equal(labels, expected.repeat(8, 0).repeat(8, 1))


@pytest.mark.parametrize(('scale', 'zero_point', 'kind'), [
    (1 / 256, -128, 'probabilities'), (1 / 256, -127, 'logits'), (1 / 128, -128, 'logits')])
def test_quantization_of_a_softmax_is_taken_for_probabilities(
    tmp_path: Path, scale: float, zero_point: int, kind: str,
) -> None:
    path = without_contract(tmp_path, dataclasses.replace(
        PIXELWISE, weights=((0, 0, 0), (0, 0, 0)), bias=(64, 192), scale=scale,
        zero_point=zero_point))
    segmenter = Segmenter.load(path, class_names=['background', 'road'], num_threads=1)
    assert segmenter.contract.output_kind == kind
    result = segmenter.segment(np.zeros((32, 64, 3), np.uint8), wanted=ALL)
    assert result.labels is not None and result.confidence is not None
    assert (result.labels == 1).all()
    # Three quarters; logits so near to each other are less sure.
    assert ((result.confidence > 190) == (kind == 'probabilities')).all()


def test_class_list_beside_the_model_or_given(tmp_path: Path) -> None:
    path = without_contract(tmp_path, THREE)
    text = '# ids 0 to 2\nroad 1 2 3\ndry grass\nsky 9 9 9\n'
    path.with_suffix('.txt').write_text(text)
    beside = Segmenter.load(path).contract
    assert beside.class_names == ('road', 'dry grass', 'sky')
    assert beside.class_colors_rgb == ((1, 2, 3), palette(3)[1], (9, 9, 9))
    (tmp_path / 'other.txt').write_text(text.replace('sky', 'sea'))
    given = Segmenter.load(path, class_names=[str(tmp_path / 'other.txt')]).contract
    assert given.class_names == ('road', 'dry grass', 'sea')
    for alone in (tmp_path / 'other.txt', str(tmp_path / 'other.txt')):
        assert Segmenter.load(path, class_names=alone).contract == given


def test_doubt_is_refused(tmp_path: Path) -> None:
    path = without_contract(tmp_path, THREE)
    refuse(r'toy\.tflite: has neither a contract \(toy\.json\) nor class names; give class_names, '
           r'or a class list as toy\.txt', path)
    refuse(r'its output is int8\[1, 4, 8, 3\] .*, expected int64 \[1, h, w\] or scores '
           r'\[1, h, w, 2\] for the 2 class names given', path, class_names=['a', 'b'])
    refuse(r'found a name twice', path, class_names=['a', 'b', 'a'])
    refuse(r'none\.txt: not a readable class list', path,
           class_names=[str(tmp_path / 'none.txt')])
    signed = without_contract(tmp_path, dataclasses.replace(THREE, input_dtype='int8'))
    refuse(r'toy\.tflite: has no contract and its input is int8.*, expected uint8; write a '
           r'contract \(toy\.json\)', signed, class_names=['a', 'b', 'c'])


def test_googles_deeplab_runs_with_a_class_list(shared_data: Path, tmp_path: Path) -> None:
    model = shared_data / 'coral' / 'deeplab_mobilenet_edgetpu_slim_cityscapes_quant.tflite'
    if not model.is_file():
        pytest.skip(f'{model.name} is not in ../shared/data/coral')
    names = tmp_path / 'cityscapes.txt'
    names.write_text('\n'.join(CITYSCAPES))
    segmenter = Segmenter.load(model, device='cpu', class_names=[str(names)])
    contract = segmenter.contract
    assert (contract.output_kind, contract.output_stride) == ('labels', 1)
    assert (contract.input_hw, contract.class_names) == ((513, 513), CITYSCAPES)
    rgb, road = camvid(shared_data, 'val')[0]
    result = segmenter.segment(rgb, wanted=ALL)  # the mask's default is the class called road
    assert result.labels is not None
    np.testing.assert_array_equal(result.mask, np.where(result.labels == 0, 255, 0))
    assert result.confidence is None
    assert iou([(result.labels == 0, road)]) > 0.6
    refuse(r'has neither a contract .* nor class names', model)


def test_classes_without_a_name_are_told_once(tmp_path: Path) -> None:
    path = without_contract(tmp_path, dataclasses.replace(THREE, kind='labels'))
    segmenter = Segmenter.load(path, class_names=['sky', 'road'], device='cpu', num_threads=1)
    segmenter.take_events()
    for _ in range(2):
        labels = segmenter.segment(random_rgb(40, 70)).labels
    assert UNLABELED in labels
    (event,) = segmenter.take_events()
    assert event.text == ('class_names: found 2 names (sky, road), but the model reports class 2: '
                          'such pixels are unlabeled; name every class.')


# -- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(('name', 'value', 'said'), [
    ('min_confidence', 1.01, r'min_confidence: found 1\.01, expected 0\.0 to 1\.0'),
    ('min_confidence', -0.1, r'min_confidence: found -0\.1, expected 0\.0 to 1\.0'),
    ('min_confidence', math.nan, r'min_confidence: found nan, expected 0\.0 to 1\.0'),
    ('smoothing', 0.96, r'smoothing: found 0\.96, expected 0\.0 to 0\.95'),
    ('smoothing', -1, r'smoothing: found -1, expected 0\.0 to 0\.95'),
    ('output_size', 'camera', r"output_size: found 'camera', expected one of input, model"),
    ('fit', '', r"fit: found '', expected one of stretch, crop, letterbox"),
])
def test_setting_out_of_range_is_refused_with_the_range(
    name: str, value: Any, said: str,
) -> None:
    with pytest.raises(SettingsError, match=said):
        Settings(**{name: value})


def test_one_mask_class_as_a_text_is_refused() -> None:
    with pytest.raises(SettingsError, match=(
            r"mask_classes: found the text 'road', expected a tuple of names: \('road',\)\.$")):
        Settings(mask_classes='road')


@pytest.mark.parametrize('num_threads', [-1, 65])
def test_threads_out_of_range(num_threads: int) -> None:
    with pytest.raises(SettingsError,
                       match=rf'num_threads: found {num_threads}, expected 0 to 64'):
        Segmenter.load(num_threads=num_threads)


def test_unknown_device() -> None:
    with pytest.raises(DeviceError, match=r"device: found 'tpu', expected auto, cpu, usb"):
        Segmenter.load(device='tpu')


def test_mask_classes_by_name(tmp_path: Path) -> None:
    segmenter = Segmenter.load(THREE.save(tmp_path), num_threads=1)
    rgb = random_rgb(40, 70)
    labels = segmenter.segment(rgb).labels
    for names, ids in (((), [1]), (('road',), [1]), (('class2', 'background'), [0, 2])):
        segmenter.settings = Settings(mask_classes=names)
        np.testing.assert_array_equal(
            segmenter.segment(rgb, wanted=MASK).mask, np.where(np.isin(labels, ids), 255, 0))
    before = segmenter.settings
    with pytest.raises(SettingsError, match=(
            r"mask_classes: found \['sky'\], expected some of "
            r"\['background', 'road', 'class2'\]")):
        segmenter.settings = Settings(mask_classes=('road', 'sky'))
    assert segmenter.settings is before


def test_default_mask_class(tmp_path: Path) -> None:
    path = without_contract(tmp_path, PIXELWISE)
    assert Segmenter.load(path, class_names=['a', 'b']).mask_class_ids(()) == {1}
    path = without_contract(tmp_path, THREE)
    with pytest.raises(SettingsError, match=(
            r"mask_classes: found none, and the model has no class road, .*expected some of "
            r"\['a', 'b', 'c'\]: set mask_classes")):
        Segmenter.load(path, class_names=['a', 'b', 'c'], settings=Settings())
    named = Segmenter.load(
        path, class_names=['a', 'b', 'c'], settings=Settings(mask_classes=('c',)))
    assert named.mask_class_ids(named.settings.mask_classes) == {2}


@pytest.mark.parametrize('kind', ['logits', 'labels'])
def test_labels_need_no_mask_class(tmp_path: Path, kind: str) -> None:
    toy = dataclasses.replace(THREE, kind=kind)
    rgb = random_rgb(*toy.input_hw)
    segmenter = Segmenter.load(
        toy.save(tmp_path, class_names=('background', 'gravel', 'grass')), num_threads=1)
    result = segmenter.segment(rgb)
    np.testing.assert_array_equal(
        np.unique(result.labels), np.unique(toy.scores(rgb).argmax(-1)))
    assert result.mask is None and segmenter.settings == Settings()
    with pytest.raises(SettingsError, match='mask_classes: found none, .* set mask_classes'):
        segmenter.segment(rgb, wanted=MASK)
    # Who sets something is told now, and not by the first frame; what was set before stays.
    with pytest.raises(SettingsError, match='mask_classes: found none'):
        segmenter.settings = Settings(fit='crop')
    assert segmenter.settings == Settings()
    segmenter.settings = Settings(mask_classes=('grass',))
    labels = segmenter.segment(rgb, wanted=ALL if kind == 'logits' else Wanted(mask=True))
    np.testing.assert_array_equal(labels.mask, np.where(labels.labels == 2, 255, 0))


def test_labels_have_no_confidence_to_ask_for(tmp_path: Path) -> None:
    segmenter = Segmenter.load(dataclasses.replace(THREE, kind='labels').save(tmp_path))
    assert not segmenter.has_confidence
    assert segmenter.segment(random_rgb(9, 9), wanted=ALL).confidence is None
    with pytest.raises(SettingsError, match=(
            r'min_confidence: found 0\.5, expected 0: this model gives labels without')):
        segmenter.settings = Settings(min_confidence=0.5)


def test_min_confidence_takes_unsure_pixels_out() -> None:
    gradient = np.repeat(np.linspace(-127, 127, 64)[None], 32, 0)
    segmenter = fake(lambda image: np.round(gradient), min_confidence=0.9)
    result = segmenter.segment(random_rgb(60, 100), wanted=ALL)
    assert result.confidence is not None
    unsure = result.confidence < 0.9 * 255
    assert 0.1 < unsure.mean() < 0.9
    np.testing.assert_array_equal(result.labels == UNLABELED, unsure)
    assert result.mask is not None
    assert not result.mask[unsure].any()


# -- frames --------------------------------------------------------------------------------------


@pytest.mark.parametrize(('frame', 'channels', 'said'), [
    (np.zeros((4, 5), np.uint8), 'rgb', r'uint8\[4, 5\], expected uint8\[H, W, 3\], not empty'),
    (np.zeros((4, 5, 4), np.uint8), 'bgr', r'uint8\[4, 5, 4\], expected uint8\[H, W, 3\]'),
    (np.zeros((4, 5, 3), np.uint8), 'rgba', r'uint8\[4, 5, 3\], expected uint8\[H, W, 4\]'),
    (np.zeros((4, 5, 1), np.uint8), 'gray', r'uint8\[4, 5, 1\], expected uint8\[H, W\]'),
    (np.zeros((4, 5, 3), np.float32), 'rgb', r'float32\[4, 5, 3\], expected uint8\[H, W, 3\]'),
    (np.zeros((0, 5, 3), np.uint8), 'rgb', r'uint8\[0, 5, 3\], expected .*, not empty'),
    (np.zeros((1, 4, 5, 3), np.uint8), 'rgb', r'uint8\[1, 4, 5, 3\], expected'),
    (np.zeros(3, np.uint8), 'rgb', r'uint8\[3\], expected'),
    ([[[1, 2, 3]]], 'rgb', r'found list, expected uint8\[H, W, 3\]'),
    (np.zeros((4, 5, 3), np.uint8), 'yuv', r"channels: found 'yuv', expected one of \('rgb', "),
])
def test_what_is_no_frame_is_refused(frame: Any, channels: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        fake(brightness).segment(frame, channels=channels)


@pytest.mark.parametrize('fit', FITS)
@pytest.mark.parametrize('hw', [(1, 1), (1, 50), (50, 1), (3, 5), (239, 321), (2160, 3840)])
def test_results_have_the_frames_size(hw: tuple[int, int], fit: str) -> None:
    segmenter = fake(brightness, fit=fit)
    result = segmenter.segment(np.full((*hw, 3), 255, np.uint8), wanted=ALL)
    seen = placement(hw, (256, 512), 8, fit).source
    for array, outside in ((result.labels, UNLABELED), (result.mask, 0), (result.confidence, 0)):
        assert array is not None
        assert array.shape == hw == segmenter.output_hw(hw)
        inside = seen.of(array)
        assert (inside == inside[0, 0]).all()
        assert inside[0, 0] not in (0, 255) or array is result.mask or array is result.confidence
        assert (array == outside).sum() == array.size - inside.size
    segmenter.settings = Settings(fit=fit, output_size='model')
    labels = segmenter.segment(np.full((*hw, 3), 255, np.uint8)).labels
    assert labels is not None
    assert labels.shape == (256, 512) == segmenter.output_hw(hw)


@pytest.mark.parametrize('fit', FITS)
def test_frames_layout_and_channels_do_not_matter(fit: str) -> None:
    segmenter = fake(brightness, fit=fit)
    rgb = cv2.GaussianBlur(random_rgb(90, 121), (0, 0), 9)
    rgb = cv2.normalize(rgb, None, 0, 255, cv2.NORM_MINMAX)
    expected = segmenter.segment(rgb).labels
    for frame, channels in ((rgb[..., ::-1], 'bgr'), (np.asfortranarray(rgb), 'rgb'),
                            (np.dstack([rgb, rgb[..., :1]]), 'rgba')):
        np.testing.assert_array_equal(
            segmenter.segment(frame, channels=channels).labels, expected)


def test_timings_are_of_the_stages() -> None:
    timings = fake(brightness).segment(random_rgb(480, 640)).timings
    assert min(timings.preprocess, timings.invoke, timings.postprocess) > 0
    assert Timings(1.0, 2.0, 4.0).total == 7.0


def test_closing_closes_the_engine() -> None:
    engine = FakeEngine(brightness)
    Segmenter(engine, engine.contract).close()
    assert engine.closed


# -- alignment -----------------------------------------------------------------------------------
#
# A fake network that reports the mean brightness of its cells sees white shapes on black. How far
# may the mask's border be from the shape's? In input pixels: a cell's mean, upsampled bilinearly
# and cut at one half, puts a straight edge wrong by up to 0.0858 of a cell, 0.69 of 8 pixels (0
# at a cell's border and its middle, of opposite sign between: it cancels on average). Bilinear
# shrinking looks at single points of the frame: half an input pixel. Times frame pixels per input
# pixel, plus half a frame pixel for whole pixels. A mask off by half a cell would be 4 off.

EDGE_INPUT_PX = 0.0858 * 8 + 0.5

#: The centroid of a shape averages over all phases of its border; less than half an input pixel,
#: so that corner-aligned resizing would be found.
CENTROID_INPUT_PX = 0.35

FRAME_SIZES = [(256, 512), (480, 640), (479, 641), (720, 1280), (97, 131), (333, 1001), (901, 301)]


@pytest.mark.parametrize('fit', FITS)
@pytest.mark.parametrize('hw', FRAME_SIZES)
def test_rectangles_come_back_where_they_were(hw: tuple[int, int], fit: str) -> None:
    segmenter = fake(brightness, fit=fit)
    place = placement(hw, (256, 512), 8, fit)
    source, target = place.source, place.target
    for step in range(5):  # other phases of the cells every time
        left = int(source.x + source.width * (0.2 + 0.017 * step))
        right = int(source.x + source.width * (0.7 + 0.021 * step))
        top = int(source.y + source.height * (0.2 + 0.023 * step))
        bottom = int(source.y + source.height * (0.7 + 0.020 * step))
        frame = np.zeros((*hw, 3), np.uint8)
        frame[top:bottom, left:right] = 255
        mask = segmenter.segment(frame, wanted=MASK).mask
        assert mask is not None
        columns = np.flatnonzero(mask[(top + bottom) // 2])
        rows = np.flatnonzero(mask[:, (left + right) // 2])
        for found, drawn, scale in (
                (columns[0], left, source.width / target.width),
                (columns[-1] + 1, right, source.width / target.width),
                (rows[0], top, source.height / target.height),
                (rows[-1] + 1, bottom, source.height / target.height)):
            assert abs(found - drawn) <= EDGE_INPUT_PX * scale + 0.5
        assert len(columns) == columns[-1] - columns[0] + 1  # in one piece
        assert len(rows) == rows[-1] - rows[0] + 1


def disc(hw: tuple[int, int], x: float, y: float, radius: float) -> npt.NDArray[np.bool_]:
    rows, columns = np.ogrid[:hw[0], :hw[1]]
    inside: npt.NDArray[np.bool_] = (columns - x) ** 2 + (rows - y) ** 2 <= radius ** 2
    return inside


def centroid(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    rows, columns = np.nonzero(mask)
    return np.array([rows.mean(), columns.mean()])


@pytest.mark.parametrize('output_size', ['input', 'model'])
@pytest.mark.parametrize('fit', FITS)
@pytest.mark.parametrize('hw', FRAME_SIZES)
def test_discs_come_back_where_they_were(
    hw: tuple[int, int], fit: str, output_size: str,
) -> None:
    segmenter = fake(brightness, fit=fit, output_size=output_size)
    place = placement(hw, (256, 512), 8, fit)
    source, target = place.source, place.target
    scale = np.array([source.height / target.height, source.width / target.width])
    output_hw = hw if output_size == 'input' else (256, 512)
    shrink = np.array(output_hw) / hw  # of a frame pixel to a result's
    for step in range(3):
        shape = disc(hw, source.x + source.width * (0.46 + 0.031 * step),
                     source.y + source.height * (0.44 + 0.043 * step),
                     0.3 * min(source.width, source.height))
        frame = np.repeat((shape * np.uint8(255))[..., None], 3, -1)
        labels = segmenter.segment(frame).labels
        assert labels is not None
        assert labels.shape == output_hw
        off = centroid(labels == 1) - ((centroid(shape) + 0.5) * shrink - 0.5)
        assert (np.abs(off) <= (CENTROID_INPUT_PX * scale + 0.1) * shrink + 0.1).all()
        if output_size == 'input':
            wrong = (labels == 1) != shape
            depth = np.maximum(*(
                cv2.distanceTransform(side.astype(np.uint8), cv2.DIST_L2, 5)
                for side in (shape, ~shape)))
            # a border pixel is already 1 from the other side
            assert depth[wrong].max(initial=0) <= EDGE_INPUT_PX * scale.max() + 1.5


def test_what_crop_cuts_off_is_unlabeled() -> None:
    result = fake(brightness, fit='crop').segment(
        np.full((481, 641, 3), 255, np.uint8), wanted=ALL)
    for array, outside, inside in ((result.labels, UNLABELED, 1), (result.mask, 0, 255),
                                   (result.confidence, 0, 255)):
        expected = np.full((481, 641), outside)
        expected[80:400] = inside  # 320 rows of 641 columns are as wide as the input
        np.testing.assert_array_equal(array, expected)


def test_letterbox_bars_do_not_bleed_into_the_mask() -> None:
    frame = np.full((100, 100, 3), 255, np.uint8)

    def bars_are_black(image: Bytes) -> npt.NDArray[np.float64]:
        margin = np.full((32, 64), -128.0)
        margin[brightness(image) > 100] = 127
        return margin

    assert (fake(bars_are_black, fit='letterbox').segment(frame).labels == 1).all()


# -- smoothing -----------------------------------------------------------------------------------


class Script:
    """A margin per frame, the same in every cell."""

    def __init__(self, *margins: float) -> None:
        self._margins = list(margins)

    def __call__(self, image: Bytes) -> npt.NDArray[np.float64]:
        margin = self._margins.pop(0) if len(self._margins) > 1 else self._margins[0]
        return np.full((32, 64), margin)


FRAME = np.zeros((24, 40, 3), np.uint8)


@pytest.mark.parametrize('weight', [0.0, 0.5, 0.9, 0.95])
def test_what_stays_the_same_is_not_changed_by_smoothing(weight: float) -> None:
    segmenter = fake(brightness, smoothing=weight)
    rgb = cv2.GaussianBlur(random_rgb(90, 120), (0, 0), 9)
    expected = fake(brightness).segment(rgb, wanted=ALL)
    for _ in range(5):
        found = segmenter.segment(rgb, wanted=ALL)
        np.testing.assert_array_equal(found.labels, expected.labels)
        np.testing.assert_array_equal(found.confidence, expected.confidence)


@pytest.mark.parametrize(('weight', 'to_half', 'to_90_percent'), [
    (0.0, 1, 1), (0.5, 1, 4), (0.8, 4, 11), (0.9, 7, 22), (0.95, 14, 45)])
def test_lag_is_that_of_an_exponential_mean(
    weight: float, to_half: int, to_90_percent: int,
) -> None:
    # Behind a step from `low` to `high` the label flips when the mean has come far enough to cross
    # 0: half the way, or 90 % of it. (51: half the way exactly would be a tie.)
    for low, high, expected in ((-50, 51, to_half), (-90, 10, to_90_percent)):
        segmenter = fake(Script(low, high), smoothing=weight)
        assert (segmenter.segment(FRAME).labels == 0).all()
        frames = 1
        while (segmenter.segment(FRAME).labels == 0).all():
            frames += 1
        assert frames == expected
        if weight:  # what is left of the past is weight ** frames
            assert frames == math.ceil(math.log(high / (high - low)) / math.log(weight))


def test_smoothing_steadies_what_flickers() -> None:
    def flips(weight: float) -> int:
        segmenter = fake(Script(*[10, -6] * 15), smoothing=weight)
        labels = [segmenter.segment(FRAME).labels for _ in range(30)]
        return sum((a != b).any() for a, b in itertools.pairwise(labels))

    assert flips(0.0) == 29
    assert flips(0.8) == 0


def test_past_is_forgotten_when_frames_change_their_place_or_on_demand() -> None:
    other = np.zeros((40, 24, 3), np.uint8)

    def after(change: Callable[[Segmenter], Any], frame: Bytes = FRAME) -> int:
        segmenter = fake(Script(100, 100, -1), smoothing=0.9)
        segmenter.segment(FRAME)
        segmenter.segment(FRAME)
        change(segmenter)
        labels = segmenter.segment(frame).labels
        assert labels is not None
        return int(labels[0, 0])

    assert after(lambda segmenter: None) == 1  # remembered
    assert after(lambda segmenter: None, other) == 0
    assert after(lambda segmenter: segmenter.reset()) == 0
    assert after(lambda segmenter: setattr(
        segmenter, 'settings', Settings(smoothing=0.9, fit='letterbox'))) == 0
    # what does not move cells may change without a jump
    assert after(lambda segmenter: setattr(
        segmenter, 'settings', Settings(smoothing=0.8, output_size='model'))) == 1


def test_switching_smoothing_off_forgets() -> None:
    segmenter = fake(Script(100, -1, -1), smoothing=0.9)
    segmenter.segment(FRAME)
    segmenter.settings = Settings()
    assert (segmenter.segment(FRAME).labels == 0).all()
    segmenter.settings = Settings(smoothing=0.9)
    assert (segmenter.segment(FRAME).labels == 0).all()


# -- the shipped model ---------------------------------------------------------------------------


def camvid(shared_data: Path, split: str, count: int = 12) -> list[
        tuple[Bytes, npt.NDArray[np.int8]]]:
    """Return frames spread over a split, and their road: 1, elsewhere 0, -1 for void."""
    folder = shared_data / 'camvid'
    stems = (folder / 'splits' / f'{split}.txt').read_text().split()
    pairs = []
    for stem in stems[::len(stems) // count][:count]:
        bgr = cv2.imread(str(folder / 'images' / f'{stem}.jpg'))
        ids = cv2.imread(str(folder / 'labels' / f'{stem}.png'), cv2.IMREAD_UNCHANGED)
        road = np.where(ids == 11, -1, ids == 3).astype(np.int8)
        pairs.append((cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), road))
    return pairs


def iou(pairs: list[tuple[npt.NDArray[np.bool_], npt.NDArray[np.int8]]]) -> float:
    """Return the road's intersection over union, accumulated over all frames, void left out."""
    both = sum(int((found & (road == 1)).sum()) for found, road in pairs)
    either = sum(int(((found | (road == 1)) & (road >= 0)).sum()) for found, road in pairs)
    return both / either


@pytest.mark.parametrize('model', [None, 'road_128x256', 'road_256x512_near'])
def test_shipped_model_finds_the_road(shared_data: Path, model: str | None) -> None:
    segmenter = Segmenter.load(model, device='cpu')
    assert segmenter.contract.class_names == ('background', 'road')
    masks = [(segmenter.segment(rgb, wanted=MASK).mask == 255, road)
             for rgb, road in camvid(shared_data, 'val')]
    # Generous: the model card says what it reaches; a blind mask is near 0.7.
    assert iou(masks) > 0.8


@pytest.mark.parametrize('fit', ['crop', 'letterbox'])
def test_shipped_model_finds_the_road_with_every_fit(shared_data: Path, fit: str) -> None:
    segmenter = Segmenter.load(device='cpu', settings=Settings(fit=fit))
    pairs = []
    for rgb, road in camvid(shared_data, 'val', 4):
        labels = segmenter.segment(rgb).labels
        pairs.append((labels == 1, np.where(labels == UNLABELED, -1, road).astype(np.int8)))
    assert iou(pairs) > 0.7  # not the shapes it was trained on


def test_shipped_models_go_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = Segmenter.load('road_128x256', device='cpu', num_threads=1)
    assert small.contract.input_hw == (128, 256)
    assert model_path('road_256x512') == model_path(None) == SHIPPED_MODEL
    for other in ('road_128x256.tflite', './road_128x256', 'a/road_128x256', '/b.tflite'):
        assert model_path(other) == Path(other)
    Path('road_128x256').touch()
    assert model_path('road_128x256') == Path('road_128x256')


@pytest.mark.parametrize(('name', 'message'), [
    ('road_128', 'road_128: found no such file, expected the path of a .tflite, or one of '
                 'road_128x256, road_256x512, road_256x512_near, which come with the package.'),
    ('~nosuchuser/a.tflite', '~nosuchuser/a.tflite: Could not determine home directory.; give the '
                             'whole path.')])
def test_names_of_no_model_are_refused(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=f'^{re.escape(message)}$'):
        model_path(name)


def test_shipped_model_is_light() -> None:
    script = """
import json, sys
import numpy as np
from bisenet_ros import Segmenter
segmenter = Segmenter.load()
for _ in range(3):
    segmenter.segment(np.zeros((720, 1280, 3), np.uint8))
status = dict(line.split(':', 1) for line in open('/proc/self/status'))
print(json.dumps({'modules': sorted(sys.modules), 'resident': status['VmRSS']}))
"""
    done = subprocess.run(
        [sys.executable, '-c', script], capture_output=True, text=True, timeout=60, check=True,
        cwd=SHIPPED_MODEL.parents[2])
    report = json.loads(done.stdout)
    loaded = {name.split('.')[0] for name in report['modules']}
    assert loaded.isdisjoint({'tensorflow', 'keras', 'jax', 'rclpy', 'training', 'matplotlib'})
    resident_kib = int(report['resident'].split()[0])
    assert resident_kib < 200 * 1024  # 250 MB is the node's limit, with rclpy
