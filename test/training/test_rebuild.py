"""One command rebuilds each shipped model, in the right order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip('keras', reason='keras is not installed (pip install .[train])')

from training import rebuild
from training.config import ConfigError, load_config

pytestmark = pytest.mark.training


@pytest.mark.parametrize('name', rebuild.shipped())
def test_every_shipped_model_can_be_rebuilt(name: str, capsys: pytest.CaptureFixture) -> None:
    assert rebuild.main([name, '--data', 'data', '--output', 'out', '--dry-run']) == 0
    lines = capsys.readouterr().out.splitlines()
    trainings = [line for line in lines if 'training.train ' in line]
    assert len(trainings) == len(rebuild.chain(name)) >= 1
    assert trainings[-1].endswith(f'--run {Path("runs") / name}')
    assert [line.split()[2] for line in lines[len(trainings):]] == [
        'training.quantize', 'training.evaluate']
    # The run that is quantized is the last one that was trained.
    assert f'--run {Path("runs") / name}' in lines[-2]
    # As the shipped file was: its contract tells.
    contract = rebuild.CONFIGS.parents[1] / f'bisenet_ros/models/{name}.json'
    provenance = json.loads(contract.read_text())['provenance']
    assert ('--calibration auto' in lines[-2]) == ('calibrations_tried' in provenance)
    assert ('--temperature auto' in lines[-2]) == ('temperature' in provenance)


@pytest.mark.parametrize('name', rebuild.shipped())
def test_a_run_starts_from_the_one_trained_before_it(name: str) -> None:
    stages = rebuild.chain(name)
    assert not load_config(rebuild.CONFIGS / f'{stages[0]}.py').init
    for before, stage in zip(stages, stages[1:], strict=False):
        init = Path(load_config(rebuild.CONFIGS / f'{stage}.py').init)
        assert init == rebuild.RUNS / before


def test_a_start_from_elsewhere_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
) -> None:
    (tmp_path / 'road_256x512.py').write_text(
        'from training.config import Config, Phase\nfrom training.model import PRESETS\n'
        'CONFIG = Config(PRESETS["road"], (Phase((32, 32), 1),), (("synthetic:1", 1.0),),\n'
        '                ("synthetic:1",), init="elsewhere/run")\n')
    monkeypatch.setattr(rebuild, 'CONFIGS', tmp_path)
    with pytest.raises(ConfigError, match='elsewhere/run.*expected runs/<configuration>'):
        rebuild.chain('road_256x512')
    assert rebuild.main(['road_256x512', '--data', 'd', '--output', 'o', '--dry-run']) == 1
    assert 'elsewhere/run' in capsys.readouterr().err


def test_the_first_failure_stops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    def run(words: list[str], check: bool) -> object:
        ran.append(words[2])
        return type('Done', (), {'returncode': 3})

    monkeypatch.setattr(rebuild.subprocess, 'run', run)
    assert rebuild.main(['road_256x512', '--data', 'd', '--output', 'o']) == 3
    assert ran == ['training.train']
