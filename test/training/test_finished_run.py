"""What is damaged in a run folder is named, before anything is quantized from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

keras = pytest.importorskip('keras', reason='keras is not installed (pip install .[train])')

from training.finished_run import RunError, read_run  # noqa: E402

pytestmark = pytest.mark.training


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    image = keras.Input((4,))
    keras.Model(image, keras.layers.Dense(2)(image)).save(tmp_path / 'best.keras')
    (tmp_path / 'config.json').write_text(json.dumps({
        'command': ['train'], 'commit': 'abc', 'config': {
            'classes': ['background', 'road'], 'merge': [0, 1, 0, 0], 'mark': 'road',
            'train': [['synthetic:8', 1.0]], 'validate': ['synthetic:2:5']}}))
    return tmp_path


def test_whole_runs_are_read(folder: Path) -> None:
    assert read_run(folder).provenance['selected_on'] == ['synthetic:2:5']


def test_damaged_models_are_refused_in_one_line(folder: Path) -> None:
    path = folder / 'best.keras'
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    for content in (whole[:1000], b'', flipped):
        path.write_bytes(content)
        with pytest.raises(RunError, match=(
                r'best\.keras: found a damaged file \((ValueError|BadZipFile): .*\), expected a '
                'Keras model; choose another run, or train again in a new folder')) as caught:
            read_run(folder)
        assert '\n' not in str(caught.value)


@pytest.mark.parametrize('text', ['{"command": ["tr', '[]', '{"config": {"classes": ["road"]}}'])
def test_damaged_settings_are_refused_in_one_line(folder: Path, text: str) -> None:
    (folder / 'config.json').write_text(text)
    with pytest.raises(RunError, match=(
            r'config\.json: found a damaged file \((JSONDecodeError|TypeError|KeyError): .*\), '
            'expected the settings of a run; choose another run, or train again')):
        read_run(folder)
