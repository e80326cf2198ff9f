"""A model's file and its device, as they are named together."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bisenet_ros.core.errors import DeviceError, ModelError
from bisenet_ros.core.segmenter import Segmenter, SHIPPED_MODEL
from bisenet_ros.core.supervisor import Device, SupervisedEngine
from training import predictors
from training.predictors import COLORS_RGB, class_colors, open_predictor, parse_model


@pytest.mark.parametrize('device', ['gpu', 'usb:x', ''])
def test_unknown_devices_are_told_those_there_are(tmp_path: Path, device: str) -> None:
    from tflite_models import Toy  # skips where no tiny model can be written
    model = Toy().save(tmp_path)
    with pytest.raises(DeviceError, match=rf"device: found '{device}', expected auto, cpu, usb"):
        open_predictor(f'{model}@{device}')


def test_an_unknown_device_does_not_fit_a_keras_file_either(tmp_path: Path) -> None:
    (tmp_path / 'best.keras').touch()
    with pytest.raises(ModelError, match=r'best\.keras@gpu: found the device gpu behind a'):
        open_predictor(str(tmp_path / 'best.keras@gpu'))


def test_file_names_may_hold_an_at_sign(tmp_path: Path) -> None:
    for name in ('mine.tflite', 'mine.tflite@2'):
        (tmp_path / name).touch()
    assert parse_model(str(tmp_path / 'mine.tflite@2'), 'cpu') == (
        tmp_path / 'mine.tflite@2', 'cpu')
    assert parse_model(str(tmp_path / 'gone.tflite@2'), 'cpu') == (
        tmp_path / 'gone.tflite@2', 'cpu')


@pytest.mark.parametrize('names', [
    ('background', 'road'), ('gravel', 'grass', 'background'), ('sky', 'building', 'road'),
    ('road', *(f'class {index}' for index in range(1, 150)), 'background'),
    tuple(f'class {index}' for index in range(255))], ids=len)
def test_every_class_has_a_colour_of_its_own(names: tuple[str, ...]) -> None:
    found = class_colors(names)
    assert len(set(found)) == len(found) == len(names)
    for name, color in zip(names, found, strict=True):
        assert (color == COLORS_RGB[name]) if name in COLORS_RGB else color != (0, 0, 0)


def test_names_of_models_are_those_that_robots_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    shipped = SHIPPED_MODEL.with_name('road_128x256.tflite')
    assert parse_model('road_128x256', 'cpu') == (shipped, 'cpu')
    assert parse_model('road_128x256@gpu', 'cpu') == (shipped, 'gpu')
    monkeypatch.setenv('HOME', str(tmp_path))
    assert parse_model('~/x.tflite@usb', 'cpu') == (tmp_path / 'x.tflite', 'usb')
    with pytest.raises(ModelError, match=r'road_1x1: found no such file, expected the path'):
        parse_model('road_1x1', 'cpu')
    for suffix in ('', '.tflite', '.keras@usb'):
        with pytest.raises(ModelError, match=r'cannot be a file \(File name too long\)'):
            parse_model('x' * 300 + suffix, 'cpu')


# -- a device with the CPU in its place --------------------------------------------------------

FRAME = np.zeros((32, 64, 3), np.uint8)


class Stick:
    """A device that is the CPU by another name, until it is pulled out."""

    device, fault, timeout_s = 'usb:0', '', 2.0

    def __init__(self, cpu: Any) -> None:
        self._cpu, self.input, self.output = cpu, cpu.input, cpu.output

    def run(self, image: Any) -> Any:
        if self.fault:
            raise DeviceError(self.fault)
        return self._cpu.run(image)

    def close(self) -> None:
        pass


@pytest.fixture
def on_auto(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., predictors.TflitePredictor]:
    """Open a tiny model whose device is what a callable makes of the CPU's engine."""
    from tflite_models import Toy

    from bisenet_ros.core.engines import Model, open_engine, Placing
    model = Toy().save(tmp_path)
    model.with_name('toy_edgetpu.tflite').write_bytes(b'compiled')

    def make(device_of: Callable[[Any], Device]) -> predictors.TflitePredictor:
        def opener(model: Model, placing: Placing, stop: threading.Event | None) -> Any:
            cpu, contract, _ = open_engine(
                model, dataclasses.replace(placing, device='cpu'), stop)
            return SupervisedEngine('auto', lambda stop: device_of(cpu), cpu), contract, []

        monkeypatch.setattr(
            Segmenter, 'load', functools.partial(Segmenter.load, opener=opener))
        return predictors.TflitePredictor(model, 'auto')

    return make


def test_auto_waits_for_its_device(on_auto: Callable[..., Any]) -> None:
    def slow(cpu: Any) -> Stick:
        time.sleep(0.2)
        return Stick(cpu)

    predictor = on_auto(slow)
    compiled = {'toy_edgetpu.tflite': hashlib.sha256(b'compiled').hexdigest()}
    assert predictor.ran == compiled != {'toy_edgetpu.tflite': predictor.sha256}
    assert predictor.description == 'TFLite, 32x64, on usb:0'
    predictor(FRAME)
    assert predictor.description == 'TFLite, 32x64, on usb:0'


def test_auto_goes_on_without_a_device_that_was_refused(on_auto: Callable[..., Any]) -> None:
    def refused(cpu: Any) -> Stick:
        raise DeviceError('usb:0: its labels differ.')

    predictor = on_auto(refused)
    predictor(FRAME)
    assert predictor.description == 'TFLite, 32x64, on cpu'
    assert predictor.ran == {'toy.tflite': predictor.sha256}


def test_all_that_served_and_why_is_told(
    on_auto: Callable[..., Any], capsys: pytest.CaptureFixture[str],
) -> None:
    sticks: list[Stick] = []

    def stick(cpu: Any) -> Stick:
        if sticks:
            raise DeviceError('usb:0: it is gone.')
        sticks.append(Stick(cpu))
        return sticks[0]

    predictor = on_auto(stick)
    predictor(FRAME)
    sticks[0].fault = 'usb:0: it is gone.'
    predictor(FRAME)
    predictor(FRAME)
    assert predictor.description == 'TFLite, 32x64, on usb:0 and cpu'
    assert list(predictor.ran) == ['toy_edgetpu.tflite', 'toy.tflite']
    told = 'usb:0: it is gone. Device cpu serves until that is mended.'
    assert predictor.notes == (told,)  # that it was in service is no warning
    assert capsys.readouterr().err == f'toy.tflite: {told}\n'


def test_auto_waits_no_longer_than_a_device_may_take(
    on_auto: Callable[..., Any], monkeypatch: pytest.MonkeyPatch,
) -> None:
    def silent(cpu: Any) -> Stick:
        time.sleep(0.5)
        return Stick(cpu)

    monkeypatch.setattr(predictors, 'DEVICE_WAIT_S', 0.1)
    with pytest.raises(DeviceError, match='name the device: cpu, usb or pci'):
        on_auto(silent)
