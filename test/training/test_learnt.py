"""What a run, a ``.keras`` file or a contract tells of the data sets behind it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('cv2', reason='opencv-python-headless is not installed')

from bisenet_ros.core.segmenter import SHIPPED_MODEL
from training.learnt import data_sets, told_sets


def write_run(folder: Path, *sets: str, **told: Any) -> Path:
    folder.mkdir()
    init = str(told.pop('init', ''))
    (folder / 'config.json').write_text(json.dumps({
        'config': {'train': [[name, 1.0] for name in sets], 'init': init}, **told}))
    return folder


def test_a_run_tells_what_those_before_it_were_trained_on(tmp_path: Path) -> None:
    run = write_run(tmp_path / 'run', 'a', 'b', trained_before=['b', 'c'], init='gone')
    assert data_sets(run) == data_sets(run / 'best.keras') == ('a', 'b', 'c')


def test_runs_of_an_older_version_are_followed_as_far_as_they_are_there(tmp_path: Path) -> None:
    first = write_run(tmp_path / 'first', 'a', init=tmp_path / 'gone')
    second = write_run(tmp_path / 'second', 'b', init=first / 'best.keras')
    assert data_sets(write_run(tmp_path / 'third', 'c', 'a', init=second)) == ('c', 'a', 'b')
    again = write_run(tmp_path / 'again', 'd', init=tmp_path / 'again')
    assert data_sets(again) == ('d',)


def test_a_contract_beside_a_keras_file_tells(tmp_path: Path) -> None:
    contract = tmp_path / 'mine.json'
    contract.write_text(json.dumps({'provenance': {'datasets': ['a', 7]}}))
    assert data_sets(tmp_path / 'mine.keras') == ('a', '7')
    assert data_sets(tmp_path / 'other.keras') == data_sets(tmp_path) == ()
    for text in ('[]', '{"prov', '{"provenance": []}', '{"provenance": {"datasets": "a"}}'):
        contract.write_text(text)
        assert data_sets(tmp_path / 'mine.keras') == ()
    assert told_sets(None) == ()


def test_shipped_weights_tell_what_the_shipped_model_tells() -> None:
    weights = Path(__file__).parents[2] / 'training' / 'weights' / 'road_256x512.keras'
    contract = json.loads(SHIPPED_MODEL.with_suffix('.json').read_text())
    assert weights.is_file() and 'camvid:train' in data_sets(weights)
    assert data_sets(weights) == told_sets(contract['provenance'])


def test_settings_that_tell_nothing_are_no_error(tmp_path: Path) -> None:
    for text in ('[]', '{"config": []}', '{"config": {"train": 1}}', '{"config": {"train": []}}'):
        (tmp_path / 'config.json').write_text(text)
        assert data_sets(tmp_path) == data_sets(tmp_path / 'best.keras') == ()
