"""A model's file and its device, as they are named together."""

from __future__ import annotations

from pathlib import Path

import pytest

from bisenet_ros.core.errors import DeviceError, ModelError
from bisenet_ros.core.segmenter import SHIPPED_MODEL
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
