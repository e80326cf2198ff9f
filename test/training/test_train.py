"""A run leaves what it promises, survives a kill, and needs no TensorFlow."""

from __future__ import annotations

import csv
import dataclasses
import errno
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip('keras', reason='keras is not installed (pip install .[train])')

from tiny_training import SOURCE, TINY, eager_functions, tiny_config  # noqa: E402
from written_datasets import write_json, write_pair  # noqa: E402

from training.augment import Augmentation  # noqa: E402
from training.averaging import WeightAverage  # noqa: E402
from training.config import Config, Phase, load_config  # noqa: E402
from training.datasets import SyntheticDrive  # noqa: E402
from training.faults import Interrupted, TrainingError  # noqa: E402
from training.finished_run import RunError, read_run  # noqa: E402
from training.metrics import ConfusionMatrix, labels_from_logits  # noqa: E402
from training.model import Architecture, build, deployable  # noqa: E402
from training.optimization import build_trainable, last_epoch  # noqa: E402
from training.run import COLUMNS, Run  # noqa: E402
from training.train import Trainer, main, score, train  # noqa: E402
from training.validation import chosen_by, marked_iou  # noqa: E402

pytestmark = pytest.mark.training

ROOT = Path(__file__).resolve().parents[2]

#: As `eager_functions`, in another process.
EAGER = 'import tensorflow; tensorflow.config.run_functions_eagerly(True)\n'


@pytest.fixture(autouse=True)
def restored_policy() -> Iterator[None]:
    """Leave Keras' global dtype policy as it was."""
    policy = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(policy)


@pytest.fixture(scope='module')
def eager() -> Iterator[None]:
    with eager_functions():
        yield


@pytest.fixture(scope='module')
def config_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('config') / 'tiny.py'
    path.write_text(SOURCE)
    return path


@pytest.fixture(scope='module')
def finished(
    config_path: Path, tmp_path_factory: pytest.TempPathFactory, eager: None,
) -> Path:
    """Return the folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp('run') / 'whole'
    assert main(['--config', str(config_path), '--run', str(folder)]) == 0
    return folder


def history(folder: Path) -> list[dict[str, str]]:
    with (folder / 'history.csv').open() as file:
        return list(csv.DictReader(file))


def reproducible(row: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in row.items() if key not in ('images_per_s', 'seconds')}


def variables(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / 'checkpoint.npz') as stored:
        return {name: stored[name] for name in stored if name != 'state'}


# -- the run folder ----------------------------------------------------------------------------


def test_run_folder_is_complete(finished: Path, config_path: Path) -> None:
    wanted = {'config.json', 'history.csv', 'best.keras', 'checkpoint.npz', 'events', 'pictures'}
    if importlib.util.find_spec('matplotlib'):
        wanted.add('curve.png')
        assert (finished / 'curve.png').read_bytes()[:4] == b'\x89PNG'
    assert {path.name for path in finished.iterdir()} == wanted  # nothing temporary is left
    described = json.loads((finished / 'config.json').read_text())
    assert described['config']['phases'][1] == {'input_hw': [32, 64], 'epochs': 1}
    assert described['config']['seed'] == 3
    assert described['command'][:3] == ['python', '-m', 'training.train']
    assert str(config_path) in described['command']
    assert described['commit']


def test_history_tells_of_every_epoch(finished: Path) -> None:
    rows = history(finished)
    assert list(rows[0]) == [*COLUMNS, 'iou synthetic:3:1']
    assert [row['epoch'] for row in rows] == ['1', '2']
    assert [row['input_hw'] for row in rows] == ['32x32', '32x64']
    assert all(float(row['loss']) > 0 for row in rows)
    assert all(0 <= float(row['iou synthetic:3:1']) <= 1 for row in rows)
    assert [float(row['learning_rate']) for row in rows] == pytest.approx(
        [0.05 / 2, 0.05 * (3 / 4) ** 0.9], abs=1e-6)  # 3 of 6 batches done, 2 of them warm-up


def test_best_model_is_deployable_and_scores_what_history_says(finished: Path) -> None:
    model = keras.models.load_model(finished / 'best.keras')
    assert model.input_shape == (1, 32, 64, 3)
    assert model.output_shape == (1, 4, 8, 2)
    assert not [layer.name for layer in model.layers if 'booster' in layer.name]
    matrix = ConfusionMatrix(2)
    frames = SyntheticDrive(3, seed=1)
    for index in range(3):
        rgb, labels = frames.read(index)
        view = np.float32(keras.ops.image.resize(rgb.astype(np.float32), (32, 64)))
        view = np.round(view)[None] / 255
        logits = keras.ops.convert_to_numpy(model(view, training=False))[0]
        matrix.update(np.uint8(labels == 1), labels_from_logits(logits, labels.shape))
    # The first epoch's size is not the deployed one: it cannot have been chosen.
    assert matrix.iou()[1] == pytest.approx(
        float(history(finished)[1]['iou synthetic:3:1']), abs=0.02)


def test_finished_run_is_left_alone(finished: Path, config_path: Path) -> None:
    before = variables(finished)
    rows = history(finished)
    assert main(['--config', str(config_path), '--run', str(finished)]) == 0
    assert history(finished) == rows
    for name, value in variables(finished).items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.slow
def test_killed_run_goes_on_as_if_nothing_had_happened(
    finished: Path, config_path: Path, tmp_path: Path,
) -> None:
    folder = tmp_path / 'killed'
    command = ['--config', str(config_path), '--run', str(folder)]
    script = f'from training.train import main; main({command!r})'
    if keras.backend.backend() == 'tensorflow':
        script = EAGER + script
    process = subprocess.Popen(
        [sys.executable, '-c', script], cwd=ROOT, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    deadline = time.monotonic() + 600
    while not (folder / 'history.csv').exists() and process.poll() is None:
        assert time.monotonic() < deadline, 'the first epoch never ended'
        time.sleep(0.005)
    time.sleep(0.1)  # well inside epoch 2: its network has to be built and run eagerly first
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL, errors.decode()[-2000:]
    rows = history(folder)
    assert len(rows) == 1, 'the run was killed too late to test anything'
    assert not (folder / 'best.keras').exists()

    # What a kill while writing leaves behind must not matter either.
    (folder / 'checkpoint.tmp.npz').write_bytes(b'half a checkp')
    (folder / 'history.tmp.csv').write_text('epo')
    assert main(command) == 0
    resumed = history(folder)
    assert resumed[0] == rows[0]
    assert [reproducible(row) for row in resumed] == [
        reproducible(row) for row in history(finished)]
    wanted, found = variables(finished), variables(folder)
    assert wanted.keys() == found.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert (folder / 'best.keras').exists()


def test_checkpoint_carries_momentum_and_step(finished: Path, config_path: Path) -> None:
    config = load_config(config_path)
    model = build_trainable(config, (32, 64))
    assert Run(finished, config, []).resume(model, WeightAverage(0.9, 2))
    assert int(model.optimizer.iterations) == 3  # updates, of two batches each
    momenta = [keras.ops.convert_to_numpy(v) for v in model.optimizer.variables
               if 'momentum' in v.path]
    assert len(momenta) == len(model.trainable_variables)
    assert any((momentum != 0).any() for momentum in momenta)


def test_average_is_what_is_validated_and_deployed(finished: Path, config_path: Path) -> None:
    """The best model holds the average, moving statistics included, not the weights."""
    config = load_config(config_path)
    model = build_trainable(config, (32, 64))
    average = WeightAverage(0.9, 2)
    Run(finished, config, []).resume(model, average)
    last = deployable(model, config.architecture, config.input_hw)
    with average.applied(model):
        averaged = deployable(model, config.architecture, config.input_hw)
    best = keras.models.load_model(finished / 'best.keras')
    moving = [index for index, weight in enumerate(best.weights) if 'moving' in weight.path]
    assert moving
    for found, wanted in zip(best.get_weights(), averaged.get_weights(), strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert any((best.get_weights()[index] != last.get_weights()[index]).any()
               for index in moving)
    # And the block left the weights as they were.
    for found, wanted in zip(
            deployable(model, config.architecture, config.input_hw).get_weights(),
            last.get_weights(), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_every_epoch_leaves_a_picture(finished: Path) -> None:
    import cv2
    pictures = sorted((finished / 'pictures').iterdir())
    assert [path.name for path in pictures] == ['epoch_001.png', 'epoch_002.png']
    # Three frames of 512x256, each as it is, with its labels and with what was predicted.
    assert cv2.imread(str(pictures[1])).shape == (3 * 160, 3 * 320, 3)


@pytest.mark.slow
def test_ctrl_c_ends_a_run_with_one_line(config_path: Path, tmp_path: Path) -> None:
    path = tmp_path / 'long.py'
    path.write_text(SOURCE.replace('Phase((32, 32), 1)', 'Phase((32, 32), 500)'))
    folder = tmp_path / 'run'
    script = ('import sys; from training.train import main; '
              f'sys.exit(main({["--config", str(path), "--run", str(folder)]!r}))')
    if keras.backend.backend() == 'tensorflow':
        script = EAGER + script
    process = subprocess.Popen(
        [sys.executable, '-W', 'ignore', '-c', script], cwd=ROOT, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'TF_CPP_MIN_LOG_LEVEL': '3'})
    deadline = time.monotonic() + 600
    while not (folder / 'history.csv').exists() and process.poll() is None:
        assert time.monotonic() < deadline, 'the first epoch never ended'
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    try:
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()  # or it trains on beside all other tests
    assert process.returncode == 130, errors[-2000:]
    ours = [line for line in errors.splitlines() if 'epoch' in line]
    assert len(ours) == 1 and 'Traceback' not in errors
    assert re.fullmatch(
        rf'interrupted in epoch \d+\. Epoch \d+ is kept in {re.escape(str(folder))}\. The same '
        'command goes on behind it\\.', ours[0])


# -- faults ------------------------------------------------------------------------------------


class ResourceExhaustedError(Exception):
    """Named as TensorFlow's."""


def test_memory_that_runs_out_is_answered_with_advice(
    config_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], eager: None,
) -> None:
    """The first epoch is kept when the second one, on larger frames, does not fit."""
    fit = keras.Model.fit

    def fit_small_only(model: keras.Model, *args: Any, **kwargs: Any) -> Any:
        if model.input_shape[2] == 64:
            raise ResourceExhaustedError('OOM when allocating tensor with shape [4,32,64,8]')
        return fit(model, *args, **kwargs)

    monkeypatch.setattr(keras.Model, 'fit', fit_small_only)
    assert main(['--config', str(config_path), '--run', str(tmp_path)]) == 1
    error = capsys.readouterr().err.strip()
    assert error == (
        'epoch 2: out of memory at batch_size 4, input 32x64, float32; halve batch_size and set '
        'accumulate to 4 (now 2), which keeps the number of images per update, or use a smaller '
        "input in phases, or set precision to 'mixed_bfloat16', or where devices share the memory "
        'of the machine, lower cache_mb (now 4096), the memory for decoded frames, with which the '
        f'same run can go on. Epoch 1 is kept in {tmp_path}. Use a new --run folder for other '
        f'settings; --init {tmp_path} starts from its weights.')
    with np.load(tmp_path / 'checkpoint.npz') as stored:
        assert json.loads(str(stored['state']))['epoch'] == 1
    monkeypatch.setattr(keras.Model, 'fit', fit)
    assert main(['--config', str(config_path), '--run', str(tmp_path)]) == 0


def test_other_faults_keep_their_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eager: None,
) -> None:
    def fit(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError('a bug')
    monkeypatch.setattr(keras.Model, 'fit', fit)
    with pytest.raises(ZeroDivisionError, match='a bug'):
        train(tiny_config(), None, tmp_path, [])


def test_loss_that_is_not_finite_ends_the_run(tmp_path: Path, eager: None) -> None:
    config = tiny_config(learning_rate=1e30, precision='mixed_bfloat16')
    with pytest.raises(TrainingError, match=(
            r'epoch 1, batch \d: the loss is (nan|inf); lower learning_rate \(now 1e\+30\), or '
            r"raise warmup_steps \(now 1\), or set precision to 'float32' \(now "
            r"'mixed_bfloat16'\)\. No epoch was finished\.")):
        train(config, None, tmp_path, [])
    assert not (tmp_path / 'checkpoint.npz').exists()


def test_weights_that_are_not_finite_are_never_stored(tmp_path: Path, eager: None) -> None:
    """The last batch's loss may still be finite when its update is not."""
    config = tiny_config(learning_rate=1e39, images_per_epoch=4)  # infinite in 32 bits
    with pytest.raises(TrainingError, match='epoch 1: a weight is not finite; lower'):
        train(config, None, tmp_path, [])
    assert not (tmp_path / 'checkpoint.npz').exists()


def test_a_pending_gradient_that_is_not_finite_is_never_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eager: None,
) -> None:
    fit = keras.Model.fit

    def fit_and_spoil(model: keras.Model, *args: Any, **kwargs: Any) -> Any:
        found = fit(model, *args, **kwargs)
        pending = model.optimizer.variables[-1]
        pending.assign(np.full(pending.shape, np.nan))
        return found

    monkeypatch.setattr(keras.Model, 'fit', fit_and_spoil)
    config = tiny_config(accumulate=2, images_per_epoch=4)
    with pytest.raises(TrainingError, match="epoch 1: the optimizer's state is not finite; lower"):
        train(config, None, tmp_path, [])
    assert not (tmp_path / 'checkpoint.npz').exists()


# -- early stop, start, frozen layers ----------------------------------------------------------


def test_run_stops_when_nothing_gets_better(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    eager: None,
) -> None:
    perfect = ConfusionMatrix(2)
    perfect.update(np.uint8([[0, 1]]), np.uint8([[0, 1]]))
    monkeypatch.setattr('training.train.score', lambda *_: perfect)
    config = tiny_config(
        phases=(Phase((32, 64), 1), Phase((32, 32), 9)), patience=2, images_per_epoch=4)
    run = train(config, None, tmp_path, [])
    # The first epoch is not of the deployed size; the second is the best for ever.
    assert (run.best_epoch, run.epoch) == (2, 4)
    assert 'stopping early: no better epoch than 2 in 2 epochs' in capsys.readouterr().out
    assert train(config, None, tmp_path, []).epoch == 4


def test_the_last_epoch_can_be_deployed_instead_of_the_best(
    finished: Path, tmp_path: Path,
) -> None:
    folder = tmp_path / 'run'
    shutil.copytree(finished, folder)
    with np.load(folder / 'checkpoint.npz') as stored:
        arrays = {name: stored[name] + 1 if name[0] in 'av' else stored[name] for name in stored}
    np.savez(folder / 'checkpoint.npz', **arrays)
    best, last = read_run(folder), read_run(folder, 'last')
    assert 'epoch' not in best.provenance and last.provenance['epoch'] == 'last'
    trained = last_epoch(folder)[1]
    assert last.model.input_shape == best.model.input_shape
    for layer in last.model.layers:
        for index, weight in enumerate(layer.get_weights()):
            np.testing.assert_array_equal(
                weight, trained.get_layer(layer.name).get_weights()[index])
    assert (best.model.get_layer('head_logits').get_weights()[0]
            != last.model.get_layer('head_logits').get_weights()[0]).all()
    mean = read_run(folder, 'last', finished, 0.25)
    assert mean.provenance['mean_with'] == {finished.as_posix(): 0.25}
    assert mean.provenance['datasets'] == last.provenance['datasets'] == ['synthetic:8']
    before = read_run(finished, 'last').model.get_weights()
    for mine, other, both in zip(last.model.get_weights(), before, mean.model.get_weights(),
                                 strict=True):
        np.testing.assert_allclose(both, 0.75 * mine + 0.25 * other, rtol=1e-5, atol=1e-6)
    described = json.loads((folder / 'config.json').read_text())
    other_sets = tmp_path / 'other_sets'
    shutil.copytree(folder, other_sets)
    (other_sets / 'config.json').write_text(json.dumps({**described, 'config': {
        **described['config'], 'train': [['synthetic:9', 1.0]]}, 'trained_before': ['ids:a']}))
    mean = read_run(folder, 'last', other_sets, 0.25)
    assert mean.provenance['datasets'] == ['synthetic:8', 'synthetic:9', 'ids:a']
    assert mean.train_sets == ('synthetic:8',)
    for setting, value, message in (
            ('classes', ['road', 'background'], r"found the classes \('road', 'background'\)"),
            ('merge', [0, 1, 1, 0], 'ground as road, movable as background, expected background')):
        changed = tmp_path / setting
        shutil.copytree(folder, changed)
        (changed / 'config.json').write_text(json.dumps(
            {**described, 'config': {**described['config'], setting: value}}))
        with pytest.raises(RunError, match=message):
            read_run(folder, 'last', changed, 0.25)
    wider = described['config']['architecture'] = {
        **described['config']['architecture'], 'head_width': 24}
    network = build(Architecture(**{name: tuple(value) if isinstance(value, list) else value
                                    for name, value in wider.items()}), (32, 32), boosters=True)
    other = tmp_path / 'other'
    other.mkdir()
    (other / 'config.json').write_text(json.dumps(described))
    np.savez(other / 'checkpoint.npz',
             **{f'v{index}': value for index, value in enumerate(network.get_weights())})
    with pytest.raises(RunError, match=r'other: found another architecture than that of .*run'):
        read_run(folder, 'last', other, 0.25)
    (folder / 'checkpoint.npz').unlink()
    with pytest.raises(RunError, match=r'checkpoint\.npz is missing; expected a run folder with'):
        read_run(folder, 'last')


def test_start_from_another_run_with_other_classes(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], eager: None,
) -> None:
    """From 2 classes to 19: the trunk is taken over and frozen, the heads start fresh."""
    path = tmp_path / 'cityscapes.py'
    path.write_text(SOURCE)
    classes = tmp_path / 'classes.json'
    classes.write_text(json.dumps(
        {'background': 'void', 'road': 'road', 'ground': 'sidewalk', 'movable': 'car'}))
    folder = tmp_path / 'run'
    assert main([
        '--config', str(path), '--run', str(folder), '--init', str(finished), '--freeze',
        'detail', 's[345]_*', '--taxonomy', 'cityscapes19', '--dataset',
        f'synthetic:8,classes={classes}=2', '--validate', f'synthetic:3:1,classes={classes}',
        '--epochs', '2',
    ]) == 0, capsys.readouterr().err
    output = capsys.readouterr().out
    assert re.search(r'init: weights of .*; fresh: head_logits, booster_head, booster_s3', output)
    frozen = re.search(r'^frozen: (.*)$', output, re.MULTILINE)[1].split(', ')
    assert {'detail_s1_1', 'detail_s1_1_bn', 's5_ge4_project_bn'} <= set(frozen)
    assert all(re.match(r'detail|s[345]_', name) for name in frozen)
    assert 'best mean IoU on synthetic:3:1' in output
    described = json.loads((folder / 'config.json').read_text())['config']
    assert described['mark'] == 'mean' and len(described['classes']) == 19
    assert described['freeze'] == ['detail', 's[345]_*']
    before = keras.models.load_model(finished / 'best.keras')
    after = keras.models.load_model(folder / 'best.keras')
    assert after.output_shape[-1] == 19
    for name in ('detail_s1_1', 'detail_s1_1_bn', 's4_ge1_expand_bn'):
        for old, new in zip(before.get_layer(name).get_weights(),
                            after.get_layer(name).get_weights(), strict=True):
            np.testing.assert_array_equal(new, old, err_msg=name)
    changed = [layer.name for layer in after.layers if layer.weights and any(
        (old != new).any() for old, new in zip(
            before.get_layer(layer.name).get_weights(), layer.get_weights(), strict=False)
        if old.shape == new.shape)]
    assert 'bga_fuse' in changed and 'context_conv_bn' in changed
    assert not [name for name in changed if re.match(r'detail|s[345]_', name)]


# -- refusals ----------------------------------------------------------------------------------


def test_folder_of_another_configuration_is_refused(tmp_path: Path, config_path: Path) -> None:
    config = load_config(config_path)
    Run(tmp_path, config, ['one']).claim()
    Run(tmp_path, config, ['two']).claim()  # the same again is welcome
    assert json.loads((tmp_path / 'config.json').read_text())['command'] == ['one']
    other = dataclasses.replace(config, seed=4, learning_rate=0.01)
    with pytest.raises(TrainingError, match=r'begun with other settings \(learning_rate, seed\)'):
        Run(tmp_path, other, [])


def test_a_run_goes_on_with_less_memory_and_other_patience(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], eager: None,
) -> None:
    config = tiny_config(phases=(Phase((32, 32), 2),), images_per_epoch=4)
    Trainer(config, None, tmp_path, ['one'])._train_epoch(0)
    changed = dataclasses.replace(config, cache_mb=1, patience=7, pictures=1, on_bad='skip')
    assert train(changed, None, tmp_path, ['two']).epoch == 2
    said = capsys.readouterr().out
    assert 'note: cache_mb was 4096 until now and is 1 from here on\n' in said
    assert "note: on_bad was 'stop' until now and is 'skip' from here on\n" in said
    described = json.loads((tmp_path / 'config.json').read_text())
    assert described['command'] == ['one']
    assert described['config'] == json.loads(json.dumps(dataclasses.asdict(changed)))
    Trainer(changed, None, tmp_path, [])
    assert 'until now' not in capsys.readouterr().out


def test_command_says_in_one_line_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv('BISENET_DATA', raising=False)
    assert main(['--config', str(tmp_path / 'absent.py'), '--run', str(tmp_path)]) == 1
    assert capsys.readouterr().err.count('\n') == 1
    path = tmp_path / 'camvid.py'
    path.write_text(SOURCE.replace("'synthetic:8'", "'camvid:train'"))
    assert main(['--config', str(path), '--run', str(tmp_path / 'run')]) == 1
    error = capsys.readouterr().err
    assert 'BISENET_DATA' in error and error.count('\n') == 1
    assert not (tmp_path / 'run').exists()


def test_a_run_holds_what_those_before_it_were_trained_on(
    finished: Path, tmp_path: Path, eager: None,
) -> None:
    start, folder, next_one = (tmp_path / name for name in ('start', 'run', 'next'))
    shutil.copytree(finished, start)
    config = tiny_config(init=str(start), train=(('synthetic:5', 1.0),))
    train(config, None, folder, [])
    described = json.loads((folder / 'config.json').read_text())
    assert described['trained_before'] == ['synthetic:8']
    assert read_run(folder).provenance['init'] == str(start)
    assert 'init' not in read_run(finished).provenance
    third = dataclasses.replace(
        config, init=str(folder / 'best.keras'), train=(('synthetic:6', 1.0),))
    Trainer(third, None, next_one, [])
    described = json.loads((next_one / 'config.json').read_text())
    assert described['trained_before'] == ['synthetic:5', 'synthetic:8']
    # It is no setting: a run goes on whatever became of those before.
    shutil.rmtree(start)
    Run(folder, config, []).claim()
    run = read_run(folder)
    assert run.provenance['datasets'] == ['synthetic:5', 'synthetic:8']
    assert run.train_sets == ('synthetic:5',)  # what it is calibrated on


@pytest.mark.parametrize('changes', [{'init': 'nope'}, {'freeze': ('nothing',)}])
def test_a_mistyped_start_leaves_the_folder_free(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = tmp_path / 'run'
    with pytest.raises(TrainingError, match='nope is missing|no layer fits'):
        Trainer(tiny_config(**changes), None, folder, ['wrong'])
    assert not folder.exists()
    Trainer(tiny_config(), None, folder, ['right'])
    described = json.loads((folder / 'config.json').read_text())
    assert described['command'] == ['right'] and described['config']['init'] == ''


def test_damaged_runs_are_refused_in_one_line(
    finished: Path, config_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / 'run'
    shutil.copytree(finished, folder)
    command = ['--config', str(config_path), '--run', str(folder)]
    checkpoint = folder / 'checkpoint.npz'
    whole = checkpoint.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    for content in (whole[:5000], b'', flipped):
        checkpoint.write_bytes(content)
        assert main(command) == 1
        error = capsys.readouterr().err.strip()
        assert re.fullmatch(
            rf'{re.escape(str(checkpoint))}: found a damaged file \((BadZipFile|EOFError): .*\), '
            'expected the last epoch of this run; delete it to begin anew, or choose another '
            r'--run folder\.', error.splitlines()[-1])
        assert 'Traceback' not in error
    settings = folder / 'config.json'
    for text in (settings.read_text()[:300], '[]'):
        settings.write_text(text)
        with pytest.raises(TrainingError, match=(
                r'config\.json: found a damaged file \((JSONDecodeError|TypeError): .*\), '
                'expected the settings of a run; restore it, or choose another --run folder')):
            Run(folder, load_config(config_path), [])


@pytest.mark.parametrize('inside', ['', 'run'])
def test_a_run_folder_that_is_a_file_is_refused(tmp_path: Path, inside: str) -> None:
    (tmp_path / 'file').write_text('precious')
    run = Run(tmp_path / 'file' / inside, tiny_config(), [])
    with pytest.raises(TrainingError, match=(
            r'config\.json: found that it cannot be written \((File exists|Not a directory)\), '
            'expected a folder for the run; make room there, or choose another --run folder')):
        run.claim()
    assert (tmp_path / 'file').read_text() == 'precious'


def test_a_disk_that_is_full_ends_a_run_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(np, 'savez', full)
    run = Run(tmp_path, tiny_config(), [])
    run.claim()
    with pytest.raises(TrainingError, match=r'checkpoint\.npz: .* \(No space left on device\)'):
        run.save(build_trainable(tiny_config(), (32, 32)))


def test_events_or_a_curve_that_cannot_be_written_end_a_run_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip('matplotlib', reason='matplotlib is not installed: no curve is drawn')
    (tmp_path / 'events').write_text('a file')
    (tmp_path / 'curve.png').mkdir()
    run = Run(tmp_path, tiny_config(), [])
    with pytest.raises(TrainingError, match='events: found that it cannot be written'):
        run.write_events({'loss': 1.0})
    run.history = [{'epoch': 1, 'loss': 1.0, 'iou x': 0.5}]
    with pytest.raises(TrainingError, match=r'curve\.png: found that it cannot be written'):
        run.draw_curve()


# -- score ------------------------------------------------------------------------------------


def test_score_merges_the_training_classes() -> None:
    """A model that always says road scores the road's share, movable things aside or not."""
    image = keras.Input((32, 64, 3))
    logits = keras.layers.Conv2D(
        2, 8, strides=8, kernel_initializer='zeros',
        bias_initializer=keras.initializers.Constant(1.0))(image)
    logits = logits * np.float32([0, 1])
    model = keras.Model(image, logits)
    config = Config(
        architecture=Architecture(), phases=(Phase((32, 64), 1),), train=(('synthetic:1', 1.0),),
        validate=('synthetic:1',), merge=(0, 1, 0, 1))
    frames = SyntheticDrive(3, (96, 64))
    truth = np.stack([frames.read(index)[1] for index in range(3)])
    share = np.isin(truth, (1, 3)).mean()
    matrix = score(model, frames, config, batch=2)
    assert matrix.counts.sum() == truth.size
    assert matrix.iou()[1] == pytest.approx(share)


def test_mean_mark_leaves_out_classes_that_never_occur() -> None:
    matrix = ConfusionMatrix(4)
    matrix.update(np.uint8([[0, 0, 1, 255]]), np.uint8([[0, 1, 1, 2]]))
    config = tiny_config(
        architecture=dataclasses.replace(TINY, num_classes=4), merge=(), mark='mean',
        classes=('background', 'road', 'ground', 'movable'))
    assert marked_iou(matrix, config) == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert marked_iou(matrix, dataclasses.replace(config, mark='road')) == 0.5
    assert marked_iou(matrix, dataclasses.replace(config, mark='ground')) is None
    assert marked_iou(ConfusionMatrix(4), config) is None


def yard(tmp_path: Path, **changes: Any) -> Config:
    """Return a configuration of a class that the first validation set does not show."""
    for name, targets in (('without', ['background', 'ground']), ('with', ['hole', 'ground'])):
        write_json(tmp_path / f'{name}.json', {
            'road': targets[0], 'ground': targets[1], '*': 'background'})
    taxonomy = write_json(tmp_path / 'yard.json', ['background', 'ground', 'hole'])
    return tiny_config(**{
        'architecture': dataclasses.replace(TINY, num_classes=3, booster_classes=0),
        'taxonomy': str(taxonomy), 'classes': ('background', 'ground', 'hole'), 'merge': (),
        'mark': 'hole', 'train': ((f'synthetic:4,classes={tmp_path}/with.json', 1.0),),
        'validate': (f'synthetic:2,classes={tmp_path}/without.json',), **changes})


def test_a_mark_that_no_validation_set_shows_ends_the_run(tmp_path: Path, eager: None) -> None:
    config = yard(tmp_path)
    with pytest.raises(TrainingError, match=(
            r"^validate: found no pixel of 'hole' in synthetic:2,classes=.*without\.json, "
            r"expected some, since its IoU .*; validate on a set that shows it, or .* 'mean'")):
        train(config, None, tmp_path / 'run', [])
    assert not (tmp_path / 'run' / 'best.keras').exists()


def test_sets_without_the_mark_choose_no_epoch(
    tmp_path: Path, eager: None, capsys: pytest.CaptureFixture[str],
) -> None:
    without, shown = (
        f'synthetic:2,classes={tmp_path}/{name}.json' for name in ('without', 'with'))
    config = yard(tmp_path, validate=(without, shown), phases=(Phase((32, 32), 2),))
    run = train(config, None, tmp_path / 'run', [])
    rows = history(tmp_path / 'run')
    assert [row[f'iou {without}'] for row in rows] == ['', '']
    assert run.best == pytest.approx(max(float(row[f'iou {shown}']) for row in rows), abs=1e-4)
    note = f'note: no hole in {without}; not counted in what chooses the best epoch'
    assert capsys.readouterr().out.count(note) == 1
    again = Run(tmp_path / 'run', config, [])
    assert again.resume(build_trainable(config, (32, 32)))
    assert again.history == run.history
    # The checkpoint holds no number that JSON does not have.
    with np.load(again.checkpoint) as stored:
        json.loads(str(stored['state']), parse_constant=pytest.fail)


def test_what_chooses_is_the_mean_over_the_sets_that_show_the_mark() -> None:
    assert chosen_by({'a': 0.5, 'b': None, 'c': 0.7}, 'road') == pytest.approx(0.6)
    with pytest.raises(TrainingError, match='^validate: found no labelled pixel in a and b, exp'):
        chosen_by({'a': None, 'b': None}, 'mean')


def test_notes_on_the_data_are_told_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    for number in range(16):
        write_pair(tmp_path / 'set', f'{number}x', [[0, 1], [1, 1]])
    spec = f'ids:{tmp_path}/set'
    for on_bad in ('stop', 'skip'):
        Trainer(tiny_config(train=((spec, 1.0),), on_bad=on_bad), None, tmp_path / on_bad, [])
        assert (f'{spec}: note: 16 of 16 drives guessed from file names hold at most 6 frames'
                in capsys.readouterr().out)


def test_augmentation_is_part_of_the_configuration(tmp_path: Path, config_path: Path) -> None:
    config = load_config(config_path)
    Run(tmp_path, config, []).claim()
    with pytest.raises(TrainingError, match=r'other settings \(augmentation\)'):
        Run(tmp_path, dataclasses.replace(config, augmentation=Augmentation(blur=0.9)), [])


def test_runs_of_an_older_version_go_on(tmp_path: Path) -> None:
    """What config.json does not name yet counts as today's default."""
    config = tiny_config()
    Run(tmp_path, config, []).claim()
    path = tmp_path / 'config.json'
    described = json.loads(path.read_text())
    for name in ('ema_decay', 'patience', 'taxonomy', 'freeze'):
        del described['config'][name]
    del described['config']['augmentation']['fog'], described['trained_before']
    path.write_text(json.dumps(described))
    Run(tmp_path, config, [])
    with pytest.raises(TrainingError, match=r'other settings \(ema_decay\)'):
        Run(tmp_path, dataclasses.replace(config, ema_decay=0.5), [])


def test_checkpoint_of_another_network_is_refused(finished: Path, config_path: Path) -> None:
    config = load_config(config_path)
    run = Run(finished, config, [])
    other = dataclasses.replace(
        config, architecture=dataclasses.replace(config.architecture, head_width=16))
    with pytest.raises(TrainingError, match=r'checkpoint\.npz: found \d+ of \d+ variables, or'):
        run.resume(build_trainable(other, (32, 64)), WeightAverage(0.9))


# -- jax, on one device and on two -------------------------------------------------------------


def on_jax(script: str, arguments: list[str], devices: int) -> None:
    result = subprocess.run(
        [sys.executable, '-c', textwrap.dedent(script), *arguments], cwd=ROOT, text=True,
        capture_output=True, timeout=900, env={
            **os.environ, 'PYTHONPATH': str(ROOT), 'KERAS_BACKEND': 'jax',
            'JAX_PLATFORMS': 'cpu',
            # Optimising the program takes longer than running a few steps of it.
            'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices} '
                         '--xla_backend_optimization_level=0 '
                         '--xla_llvm_disable_expensive_passes=true'})
    assert result.returncode == 0, result.stderr[-3000:]


@pytest.fixture(scope='module')
def jax_run(config_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run on the other backend, in a process without TensorFlow."""
    if importlib.util.find_spec('jax') is None:
        pytest.skip('jax is not installed: the other backend cannot be tried')
    folder = tmp_path_factory.mktemp('jax') / 'run'
    # Keras asks for TensorFlow when it saves a model and does without where it is missing;
    # nothing of ours may ask.
    on_jax('''
        import sys, traceback

        class Missing:
            asked = set()
            def find_spec(self, name, path=None, target=None):
                if name.split('.')[0] in ('tensorflow', 'tf_keras', 'tflite_runtime'):
                    self.asked.update(
                        [frame.filename for frame in traceback.extract_stack()[:-1]
                         if 'importlib' not in frame.filename][-1:])
                    raise ModuleNotFoundError(name, name=name)

        sys.meta_path.insert(0, Missing())
        from training import train
        import keras
        assert keras.backend.backend() == 'jax'
        assert train.main(['--config', sys.argv[1], '--run', sys.argv[2]]) == 0
        assert 'tensorflow' not in sys.modules
        ours = {file for file in Missing.asked if '/keras/' not in file.replace(chr(92), '/')}
        assert not ours, ours
        ''', [str(one_phase(config_path, folder.parent)), str(folder)], devices=1)
    return folder


def one_phase(config_path: Path, folder: Path) -> Path:
    path = folder / 'tiny.py'
    path.write_text(config_path.read_text().replace(', Phase((32, 64), 1)', ','))
    return path


@pytest.mark.slow
def test_jax_trains_without_tensorflow(jax_run: Path) -> None:
    rows = history(jax_run)
    assert len(rows) == 1 and 0 < float(rows[0]['loss']) < 100
    assert (jax_run / 'best.keras').is_file()
    assert [path.stat().st_size > 100 for path in (jax_run / 'events').iterdir()] == [True]


@pytest.mark.slow
def test_jax_goes_on_with_the_batches_that_it_would_have_had(
    jax_run: Path, tmp_path: Path,
) -> None:
    """Whose first epoch is the first of its process must see what another would have seen."""
    on_jax('''
        import dataclasses, shutil, sys
        from pathlib import Path
        from training.config import Phase, load_config
        from training.train import Trainer

        config = dataclasses.replace(
            load_config(Path(sys.argv[1])), phases=(Phase((32, 32), 2),), images_per_epoch=32)
        whole, again = (Path(sys.argv[2]) / name for name in ('whole', 'again'))
        trainer = Trainer(config, None, whole, [])
        trainer._train_epoch(0)
        shutil.copytree(whole, again)
        trainer._train_epoch(1)
        Trainer(config, None, again, []).train()
        ''', [str(jax_run.parent / 'tiny.py'), str(tmp_path)], devices=1)
    wanted, found = variables(tmp_path / 'whole'), variables(tmp_path / 'again')
    assert wanted.keys() == found.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.slow
def test_two_devices_give_the_loss_of_one(jax_run: Path, tmp_path: Path) -> None:
    on_jax('''
        import sys
        from training import train
        import keras
        assert train.main(
            ['--config', sys.argv[1], '--run', sys.argv[2], '--devices', 'all']) == 0
        assert keras.distribution.distribution().device_mesh.shape == (2,)
        ''', [str(jax_run.parent / 'tiny.py'), str(tmp_path)], devices=2)
    alone, together = history(jax_run)[0], history(tmp_path)[0]
    assert float(together['loss']) == pytest.approx(float(alone['loss']), abs=2e-4)
    # The rounding of other sums, grown over two updates of a tiny network.
    wanted, found = variables(jax_run), variables(tmp_path)
    assert wanted.keys() == found.keys()
    for name in (name for name in wanted if name.startswith('a')):
        np.testing.assert_allclose(
            found[name], wanted[name], rtol=0.02, atol=0.02, err_msg=name)


def test_what_is_trained_on_and_scored_is_told_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    Trainer(tiny_config(validate=('synthetic:8',)), None, tmp_path / 'a', [])
    assert 'note: synthetic:8: 8 of 8 frames are in synthetic:8, which' in capsys.readouterr().out
    Trainer(tiny_config(), None, tmp_path / 'b', [])
    assert 'which is trained on' not in capsys.readouterr().out


def test_classes_that_nothing_shows_are_told(
    tmp_path: Path, eager: None, capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / 'flat.json').write_text(json.dumps({'*': 'background'}))
    config = yard(tmp_path, mark='mean', class_weights='inverse_log', train=(
        (f'synthetic:4,classes={tmp_path}/flat.json', 1.0),))
    train(config, None, tmp_path / 'run', [])
    said = capsys.readouterr().out
    assert 'note: no labelled pixel of hole in the frames that were looked at to tr' in said
    assert 'note: validation shows no hole; the mean that chooses the best epoch' in said


def test_an_error_that_ctrl_c_became_ends_in_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer = Trainer(tiny_config(), None, tmp_path / 'run', [])
    monkeypatch.setattr(trainer, '_train_epoch', raising(SystemError('of a library')))
    with pytest.raises(SystemError):
        trainer.train()
    remembered = threading.Event()
    remembered.set()
    monkeypatch.setattr('training.train.interrupted', remembered)
    with pytest.raises(Interrupted, match='interrupted in epoch 1; no epoch was finished'):
        trainer.train()


def test_a_ctrl_c_that_python_ignored_ends_at_the_next_batch(
    tmp_path: Path, eager: None, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As one raised within a destructor is."""
    remembered = threading.Event()
    monkeypatch.setattr('training.faults.interrupted', remembered)
    trainer = Trainer(tiny_config(phases=(Phase((32, 32), 2),)), None, tmp_path / 'run', [])
    validated = trainer._validate
    monkeypatch.setattr(
        trainer, '_validate', lambda epoch: (remembered.set(), validated(epoch))[1])
    with pytest.raises(Interrupted, match=r'interrupted in epoch 2\. Epoch 1 is kept in '):
        trainer.train()


def raising(error: Exception) -> Any:
    def raise_it(*_: Any) -> None:
        raise error

    return raise_it
