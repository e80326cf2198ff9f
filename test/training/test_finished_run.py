"""What is damaged in a run folder is named, before anything is quantized from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

keras = pytest.importorskip('keras', reason='keras is not installed (pip install .[train])')

from tiny_training import tiny_config  # noqa: E402

from training.datasets import DatasetError  # noqa: E402
from training.finished_run import RunError, read_run  # noqa: E402
from training.faults import TrainingError  # noqa: E402
from training.model import build  # noqa: E402
from training.run import Run  # noqa: E402

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


def test_classes_are_those_that_the_run_began_with(tmp_path: Path) -> None:
    """Whatever becomes of the file that named them."""
    yard, folder = tmp_path / 'yard.json', tmp_path / 'run'
    yard.write_text('["background", "gravel", "grass", "thing"]')
    config = tiny_config(taxonomy=str(yard))
    Run(folder, config, []).claim()
    build(config.architecture, config.input_hw).save(folder / 'best.keras')
    yard.write_text('["background", "grass", "gravel", "thing"]')
    assert read_run(folder).taxonomy.classes == ('background', 'gravel', 'grass', 'thing')
    with pytest.raises(TrainingError, match=(
            r"begun with the classes \('background', 'gravel', .*, but taxonomy '.*yard\.json' "
            r"holds \('background', 'grass', .* now; restore it, or choose another --run folder")):
        Run(folder, config, [])
    yard.unlink()
    assert read_run(folder).taxonomy.name == 'yard'
    # A run of an older version names the file alone.
    described = json.loads((folder / 'config.json').read_text())
    del described['taxonomy']
    (folder / 'config.json').write_text(json.dumps(described))
    with pytest.raises(DatasetError, match=r"taxonomy: found '.*yard\.json', expected road, "):
        read_run(folder)
    yard.write_text('["background", "gravel"]')
    with pytest.raises(RunError, match=r"trained on 4 classes, but taxonomy '.*' holds 2 now"):
        read_run(folder)
