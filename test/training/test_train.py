"""A run leaves what it promises, survives a kill, and needs no TensorFlow."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip('keras', reason='keras is not installed (pip install .[train])')

from training.augment import Augmentation  # noqa: E402
from training.config import Config, ConfigError, Phase, load_config  # noqa: E402
from training.datasets import SyntheticDrive  # noqa: E402
from training.losses import ohem_cross_entropy  # noqa: E402
from training.metrics import ConfusionMatrix, labels_from_logits  # noqa: E402
from training.model import Architecture, build  # noqa: E402
from training.train import (  # noqa: E402
    COLUMNS, Run, TrainingError, WarmupPoly, head_loss, main, score, train,
)

pytestmark = pytest.mark.training

ROOT = Path(__file__).resolve().parents[2]

#: A network that trains in seconds, at two input sizes.
SOURCE = '''
from training.config import Config, Phase
from training.model import Architecture

CONFIG = Config(
    architecture=Architecture(
        detail_widths=(4, 4, 8), semantic_widths=(4, 4, 8, 8), aggregation_width=8,
        head_width=8, booster_classes=4, booster_width=4),
    phases=(Phase((32, 32), 1), Phase((32, 64), 1)),
    train=(('synthetic:8', 1.0),), validate=('synthetic:3:1',),
    images_per_epoch=8, batch_size=4, warmup_steps=1, seed=3)
'''

#: Tracing a network of 150 layers takes longer than these few steps do.
EAGER = 'import tensorflow; tensorflow.config.run_functions_eagerly(True)\n'


@pytest.fixture(autouse=True)
def restored_policy() -> Iterator[None]:
    """Leave Keras' global dtype policy as it was."""
    policy = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(policy)


@pytest.fixture(scope='module')
def eager() -> Iterator[None]:
    """Run TensorFlow's functions without tracing them."""
    if keras.backend.backend() != 'tensorflow':
        yield
        return
    import tensorflow as tf
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


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
    wanted = {'config.json', 'history.csv', 'best.keras', 'checkpoint.npz'}
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
        [0.05, 0.05 * (2 / 3) ** 0.9], abs=1e-6)  # 2 of 4 steps done, 1 of them warm-up


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
    (folder / 'history.tmp').write_text('epo')
    assert main(command) == 0
    resumed = history(folder)
    assert resumed[0] == rows[0]
    assert [reproducible(row) for row in resumed] == [
        reproducible(row) for row in history(finished)]
    wanted, found = variables(finished), variables(folder)
    assert wanted.keys() == found.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
    assert (folder / 'best.keras').exists()


def test_checkpoint_carries_momentum_and_step(finished: Path, config_path: Path) -> None:
    from training.train import build_trainable
    config = load_config(config_path)
    model = build_trainable(config, (32, 64))
    assert Run(finished, config, []).resume(model)
    assert int(model.optimizer.iterations) == 4
    momenta = [keras.ops.convert_to_numpy(v) for v in model.optimizer.variables
               if 'momentum' in v.path]
    assert len(momenta) == len(model.trainable_variables)
    assert any((momentum != 0).any() for momentum in momenta)


# -- refusals ----------------------------------------------------------------------------------


def test_folder_of_another_configuration_is_refused(tmp_path: Path, config_path: Path) -> None:
    config = load_config(config_path)
    Run(tmp_path, config, ['one'])
    Run(tmp_path, config, ['two'])  # the same again is welcome
    assert json.loads((tmp_path / 'config.json').read_text())['command'] == ['one']
    other = dataclasses.replace(config, seed=4, learning_rate=0.01)
    with pytest.raises(TrainingError, match=r'begun with other settings \(learning_rate, seed\)'):
        Run(tmp_path, other, [])


def test_loss_that_is_not_finite_ends_the_run(
    tmp_path: Path, config_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fit(*_: Any, **__: Any) -> SimpleNamespace:
        return SimpleNamespace(history={'loss': [float('nan')]})
    monkeypatch.setattr(keras.Model, 'fit', fit)
    with pytest.raises(TrainingError, match='epoch 1: the loss is nan; lower learning_rate'):
        train(load_config(config_path), None, tmp_path, [])
    assert not (tmp_path / 'checkpoint.npz').exists()


@pytest.mark.parametrize(('changes', 'message'), [
    ({'merge': (0, 1)}, r'merge: found \(0, 1\), expected one deployed class id below 2'),
    ({'merge': (0, 1, 2, 0)}, r'merge: found \(0, 1, 2, 0\), expected one deployed class id'),
    ({'classes': ('a', 'road', 'b')}, 'num_classes is 2, but classes names 3'),
    ({'mark': 'sky'}, "mark: found 'sky', expected one of"),
    ({'phases': ()}, 'phases, train and validate must each name at least one'),
    ({'validate': ()}, 'phases, train and validate must each name at least one'),
    ({'images_per_epoch': 3}, r'images_per_epoch: found 3, expected at least a batch \(4\)'),
])
def test_configurations_that_cannot_train_are_refused(
    config_path: Path, changes: dict[str, Any], message: str,
) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(load_config(config_path), **changes)


def test_configuration_files_that_hold_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'absent\.py: no such configuration file'):
        load_config(tmp_path / 'absent.py')
    (tmp_path / 'empty.py').write_text('CONFIG = 3\n')
    with pytest.raises(ConfigError, match=r'empty\.py: found CONFIG of type int, expected'):
        load_config(tmp_path / 'empty.py')


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


# -- schedule, loss, score ---------------------------------------------------------------------


def test_learning_rate_warms_up_then_decays() -> None:
    schedule = WarmupPoly(0.1, 10, 110, 0.9)
    rates = [float(keras.ops.convert_to_numpy(schedule(step))) for step in (0, 4, 9, 60, 110)]
    assert rates == pytest.approx([0.01, 0.05, 0.1, 0.1 * 0.5 ** 0.9, 0.0], abs=1e-6)
    again = WarmupPoly(**schedule.get_config())
    assert float(again(60)) == pytest.approx(rates[3])


def test_shipped_configuration_loads() -> None:
    config = load_config(ROOT / 'training' / 'configs' / 'road_256x512.py')
    assert isinstance(config, Config)
    assert config.input_hw == (256, 512)
    assert config.phase_of(0).input_hw == config.phases[0].input_hw
    assert config.phase_of(config.epochs - 1) == config.phases[-1]
    assert config.classes[config.merge[1]] == 'road'


def test_head_loss_brings_logits_to_the_labels(config_path: Path) -> None:
    config = load_config(config_path)
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((2, 4, 8, 2)).astype(np.float32)
    labels = rng.integers(0, 2, (2, 16, 32)).astype(np.uint8)
    resized = keras.ops.image.resize(logits, (16, 32), interpolation='bilinear')
    assert float(head_loss(config)(labels, logits)) == pytest.approx(
        float(ohem_cross_entropy(labels, resized, threshold=config.ohem_threshold)), rel=1e-6)


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


# -- without TensorFlow ------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec('jax') is None,
                    reason='jax is not installed: the other backend cannot be tried')
def test_jax_trains_without_tensorflow(config_path: Path, tmp_path: Path) -> None:
    # Keras asks for TensorFlow when it saves a model and does without where it is missing;
    # nothing of ours may ask.
    script = textwrap.dedent('''
        import dataclasses, sys, traceback
        from pathlib import Path

        class Missing:
            asked = set()
            def find_spec(self, name, path=None, target=None):
                if name.split('.')[0] in ('tensorflow', 'tf_keras', 'tflite_runtime'):
                    self.asked.update(
                        [frame.filename for frame in traceback.extract_stack()[:-1]
                         if 'importlib' not in frame.filename][-1:])
                    raise ModuleNotFoundError(name, name=name)

        sys.meta_path.insert(0, Missing())
        from training import augment, config, datasets, losses, metrics, model, pipeline, train
        import keras
        assert keras.backend.backend() == 'jax'
        settings = config.load_config(Path(sys.argv[1]))
        settings = dataclasses.replace(settings, phases=(config.Phase((32, 32), 1),))
        run = train.train(settings, None, Path(sys.argv[2]), [])
        assert run.epoch == 1 and 0 < run.history[0]['loss'] < 100
        assert (Path(sys.argv[2]) / 'best.keras').is_file()
        assert 'tensorflow' not in sys.modules
        ours = {file for file in Missing.asked if '/keras/' not in file.replace(chr(92), '/')}
        assert not ours, ours
        print('trained', settings.steps_per_epoch, 'steps')
    ''')
    result = subprocess.run(
        [sys.executable, '-c', script, str(config_path), str(tmp_path)], cwd=ROOT, text=True,
        capture_output=True, timeout=900, env={
            **os.environ, 'PYTHONPATH': str(ROOT), 'KERAS_BACKEND': 'jax',
            'JAX_PLATFORMS': 'cpu',
            # Optimising the program takes longer than running two steps of it.
            'XLA_FLAGS': '--xla_backend_optimization_level=0 '
                         '--xla_llvm_disable_expensive_passes=true'})
    assert result.returncode == 0, result.stderr[-3000:]
    assert 'trained 2 steps' in result.stdout


def test_boosters_train_through_the_same_loss_dictionary(config_path: Path) -> None:
    from training.train import build_trainable
    config = load_config(config_path)
    model = build_trainable(config, (32, 32))
    boosted = build(config.architecture, (32, 32), boosters=True)
    assert set(model.output) == set(boosted.output)
    assert model.optimizer.weight_decay == config.weight_decay
    decayed = [v.path for v in model.trainable_variables if model.optimizer._use_weight_decay(v)]
    assert decayed and all('kernel' in path for path in decayed)
    kernels = [v.path for v in model.trainable_variables if 'kernel' in v.path]
    assert decayed == kernels


def test_augmentation_is_part_of_the_configuration(tmp_path: Path, config_path: Path) -> None:
    config = load_config(config_path)
    Run(tmp_path, config, [])
    with pytest.raises(TrainingError, match=r'other settings \(augmentation\)'):
        Run(tmp_path, dataclasses.replace(config, augmentation=Augmentation(blur=0.9)), [])
