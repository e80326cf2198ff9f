"""One command rebuilds each shipped model, in the right order."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('keras', reason='keras is not installed (pip install .[train])')

from training import rebuild
from training.config import ConfigError, Phase, load_config

pytestmark = pytest.mark.training


@pytest.mark.parametrize('name', rebuild.shipped())
def test_every_shipped_model_can_be_rebuilt(name: str, capsys: pytest.CaptureFixture) -> None:
    assert rebuild.main([name, '--data', 'data', '--output', 'out', '--dry-run']) == 0
    lines = capsys.readouterr().out.splitlines()
    trainings = [line for line in lines if 'training.train ' in line]
    assert len(trainings) == len(rebuild.stages(name)) >= 1
    assert trainings[-1].endswith(f'--run {Path("runs") / name}')
    assert lines[-3] == trainings[-1]
    assert [line.split()[2] for line in lines[-2:]] == ['training.quantize', 'training.evaluate']
    # The run that is quantized is the last one that was trained.
    assert f'--run {Path("runs") / name}' in lines[-2]
    # As the shipped file was: its contract tells.
    contract = rebuild.CONFIGS.parents[1] / f'bisenet_ros/models/{name}.json'
    provenance = json.loads(contract.read_text())['provenance']
    assert ('--calibration auto' in lines[-2]) == ('calibrations_tried' in provenance)
    assert ('--temperature auto' in lines[-2]) == ('temperature' in provenance)
    assert ('--epoch last' in lines[-2]) == ('epoch' in provenance)
    assert ('--before' in lines[-2]) == ('mean_with' in provenance)
    for before, share in provenance.get('mean_with', {}).items():
        assert f'--before {before} --share {share}' in lines[-2]
        assert any(line.endswith(f'--run {before}') for line in trainings)


@pytest.mark.parametrize('name', rebuild.shipped())
def test_a_run_starts_from_the_one_trained_before_it(name: str) -> None:
    stages = rebuild.chain(name)
    assert not load_config(rebuild.CONFIGS / f'{stages[0]}.py').init
    for before, stage in zip(stages, stages[1:], strict=False):
        init = Path(load_config(rebuild.CONFIGS / f'{stage}.py').init)
        assert init == rebuild.RUNS / before


@pytest.mark.parametrize('name', rebuild.shipped())
def test_frames_are_labelled_before_a_run_is_trained_on_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    def after(step: list[str], option: str) -> str:
        return step[step.index(option) + 1]

    steps = rebuild.commands(name, Path('data'), Path('out'))
    trained, made, asked = '', set(), set()
    for step in steps:
        if step[0] == 'training.pseudo_labels':
            assert after(step, '--run') == trained
            made.add(after(step, '--output'))
        elif step[0] == 'training.train':
            trained = after(step, '--run')
            config = load_config(Path(after(step, '--config')))
            needed = {spec.removeprefix('ids:') for spec, _ in config.train if 'runs/' in spec}
            assert needed <= made
            asked |= needed
    assert asked == made != set()
    # A folder appears when it is whole: what is there is not made again.
    for folder in made:
        Path(folder).mkdir(parents=True)
    assert rebuild.commands(name, Path('data'), Path('out')) == [
        step for step in steps if step[0] != 'training.pseudo_labels']


def test_frames_that_will_be_labelled_are_looked_up_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr(rebuild, '_run', lambda *_: pytest.fail('begun'))
    assert rebuild.main(['road_256x512', '--data', str(tmp_path), '--output', 'o']) == 1
    assert 'unlabelled' in capsys.readouterr().err


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


def test_the_first_failure_stops_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    def run(step: list[str], place: Path | None) -> int:
        assert place is None
        ran.append(step[0])
        return 3

    monkeypatch.setattr(rebuild, '_run', run)
    monkeypatch.setattr(rebuild, 'UNLABELLED', {})
    output = str(tmp_path / 'o')
    assert rebuild.main(['road_256x512', '--data', 'd', '--output', output]) == 3
    assert ran == ['training.train']


def test_a_folder_that_cannot_take_the_model_is_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr(rebuild, '_run', lambda *_: pytest.fail('begun'))
    monkeypatch.setattr(rebuild, 'UNLABELLED', {})
    (tmp_path / 'file').touch()
    assert rebuild.main(['road_128x256', '--data', 'd', '--output', str(tmp_path / 'file')]) == 1
    assert 'file/road_128x256.tflite: cannot be written' in capsys.readouterr().err


@pytest.mark.parametrize('name', rebuild.shipped())
def test_a_rehearsal_takes_the_same_steps_in_small(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rebuild, 'located', lambda *_: None)
    monkeypatch.setattr(rebuild, '_run', lambda step, place: ran.append((step, place)))
    assert rebuild.main([name, '--data', 'd', '--output', 'o', '--rehearse']) == 0
    place = tmp_path / 'o' / 'rehearsal'
    for (step, where), whole in zip(
            ran, rebuild.commands(name, tmp_path / 'd', place), strict=True):
        assert where == place  # its runs are not those of the rebuild
        if step[0] == 'training.train':
            at = step.index('--config') + 1
            real, small = load_config(Path(whole[at])), load_config(Path(step[at]))
            assert (small.phases, small.images_per_epoch) == (
                (Phase((64, 128), 1),), 2 * real.batch_size)
            assert dataclasses.replace(
                small, phases=real.phases, images_per_epoch=real.images_per_epoch,
                warmup_steps=real.warmup_steps) == real
            whole[at] = step[at]
        elif step[0] == 'training.pseudo_labels':
            place.joinpath(step[step.index('--output') + 1]).mkdir(parents=True)
        assert step == whole
    ran.clear()  # and goes on where it was
    assert rebuild.main([name, '--data', 'd', '--output', 'o', '--rehearse']) == 0
    assert {'training.train'} < {step[0] for step, _ in ran} == {
        'training.train', 'training.quantize', 'training.evaluate'}


#: A step that says when it runs, and takes its time to end after a Ctrl-C.
STEP = '''
import sys, time
try:
    print('running', flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(1)  # longer than subprocess waits of its own accord
    print('ended by itself', flush=True)
    sys.exit(130)
'''


def test_ctrl_c_lets_the_step_end_by_itself(tmp_path: Path) -> None:
    (tmp_path / 'slow_step.py').write_text(STEP)
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [sys.executable, '-c', 'import sys; from training import rebuild\n'
         'rebuild.commands = lambda *words: [["slow_step"], ["slow_step"]]\n'
         'rebuild.UNLABELLED = {}\n'
         'sys.exit(rebuild.main(["road_256x512", "--data", "d", "--output", sys.argv[1]]))',
         str(tmp_path)],
        cwd=root, env={**os.environ, 'PYTHONPATH': f'{root}{os.pathsep}{tmp_path}'},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    while process.stdout.readline() not in ('running\n', ''):
        pass
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == 'ended by itself\n'
    assert err.splitlines()[-1].startswith('interrupted: the same command goes on')
    assert 'Traceback' not in err
