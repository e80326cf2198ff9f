"""The step that is trained, the weights it begins with and those that it leaves alone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

keras = pytest.importorskip('keras', reason='keras is not installed (pip install .[train])')

from tiny_training import TINY, eager_functions, tiny_config  # noqa: E402

from training.config import Config  # noqa: E402
from training.faults import TrainingError  # noqa: E402
from training.losses import jaccard_loss, ohem_cross_entropy  # noqa: E402
from training.model import BOOSTERS, Architecture, build, deployable  # noqa: E402
from training.optimization import (  # noqa: E402
    WarmupPoly, build_trainable, freeze, head_loss, initialize, other_heads,
)

pytestmark = pytest.mark.training


@pytest.fixture(autouse=True)
def eager() -> Iterator[None]:
    with eager_functions():
        yield


def batch(seed: int, count: int = 4) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    return (rng.random((count, 32, 32, 3), np.float32),
            rng.integers(0, 2, (count, 16, 16)).astype(np.uint8))


def step(model: keras.Model, seed: int) -> None:
    images, labels = batch(seed)
    model.train_on_batch(images, dict.fromkeys(model.output, labels))


def trainable(model: keras.Model) -> list[npt.NDArray[np.float32]]:
    return [np.array(keras.ops.convert_to_numpy(v)) for v in model.trainable_variables]


def test_learning_rate_warms_up_then_decays() -> None:
    schedule = WarmupPoly(0.1, 10, 110, 0.9)
    rates = [float(keras.ops.convert_to_numpy(schedule(step))) for step in (0, 4, 9, 60, 110)]
    assert rates == pytest.approx([0.01, 0.05, 0.1, 0.1 * 0.5 ** 0.9, 0.0], abs=1e-6)
    again = WarmupPoly(**schedule.get_config())
    assert float(again(60)) == pytest.approx(rates[3])


def test_head_loss_brings_logits_to_the_labels() -> None:
    config = tiny_config()
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((2, 4, 8, 2)).astype(np.float32)
    labels = rng.integers(0, 2, (2, 16, 32)).astype(np.uint8)
    resized = keras.ops.image.resize(logits, (16, 32), interpolation='bilinear')
    assert float(head_loss(config)(labels, logits)) == pytest.approx(
        float(ohem_cross_entropy(labels, resized, threshold=config.ohem_threshold)), rel=1e-6)


def test_jaccard_loss_is_added_as_often_as_asked() -> None:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((2, 4, 8, 2)).astype(np.float32)
    labels = rng.integers(0, 2, (2, 4, 8)).astype(np.uint8)
    plain, added = (float(head_loss(tiny_config(), None, weight)(labels, logits))
                    for weight in (0.0, 1.5))
    assert added - plain == pytest.approx(1.5 * float(jaccard_loss(labels, logits)), rel=1e-5)


def test_only_the_deployed_head_learns_the_score_itself() -> None:
    heads = {}
    for weight in (0.0, 2.0):
        keras.utils.set_random_seed(0)
        config = dataclasses.replace(tiny_config(), jaccard_weight=weight)
        model = build_trainable(config, (32, 32))
        labels = {name: np.eye(32, dtype=np.uint8)[None] for name in model.output}
        heads[weight] = model.evaluate(
            np.zeros((1, 32, 32, 3), np.float32), labels, verbose=0, return_dict=True)
    changed = {name for name in heads[0.0] if heads[0.0][name] != heads[2.0][name]}
    assert changed == {'loss', 'logits_loss'}


def test_boosters_train_through_the_same_loss_dictionary() -> None:
    config = tiny_config()
    model = build_trainable(config, (32, 32))
    boosted = build(config.architecture, (32, 32), boosters=True)
    assert set(model.output) == set(boosted.output)
    assert model.optimizer.weight_decay == config.weight_decay
    decayed = [v.path for v in model.trainable_variables if model.optimizer._use_weight_decay(v)]
    assert decayed and all('kernel' in path for path in decayed)
    kernels = [v.path for v in model.trainable_variables if 'kernel' in v.path]
    assert decayed == kernels


def test_accumulated_gradients_make_one_update_of_their_mean() -> None:
    """Learning rate and weight decay mean the same with and without."""
    plain = tiny_config(poly_power=0.0, warmup_steps=0, weight_decay=0.1)
    model = build_trainable(dataclasses.replace(plain, accumulate=2), (32, 32))
    start = model.get_weights()
    begin = trainable(model)
    step(model, 1)
    for now, then in zip(trainable(model), begin, strict=True):
        np.testing.assert_array_equal(now, then)
    step(model, 2)
    accumulated = trainable(model)
    single = []
    for seed in (1, 2):
        other = build_trainable(plain, (32, 32))
        other.set_weights(start)
        step(other, seed)
        single.append(trainable(other))
    assert any((one != two).any() for one, two in zip(*single, strict=True))
    for found, one, two in zip(accumulated, *single, strict=True):
        np.testing.assert_allclose(found, (one + two) / 2, rtol=1e-4, atol=1e-5)


def test_warm_up_counts_updates_when_gradients_are_accumulated() -> None:
    config = tiny_config(accumulate=2, warmup_steps=5, images_per_epoch=80)
    model = build_trainable(config, (32, 32))
    for seed in range(3):
        step(model, seed)
    # The schedule counts batches: the fourth of ten.
    assert float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)) == pytest.approx(
        config.learning_rate * 4 / 10)


def test_frozen_layers_keep_weights_and_statistics() -> None:
    model = build_trainable(tiny_config(freeze=('detail', 's?_ge1_*')), (32, 32))
    before = {layer.name: layer.get_weights() for layer in model.layers if layer.weights}
    step(model, 0)
    changed = {name for name, weights in before.items() if any(
        (old != new).any() for old, new in zip(
            weights, model.get_layer(name).get_weights(), strict=True))}
    frozen = {name for name in before if name.startswith('detail') or '_ge1_' in name}
    assert 'detail_s1_1_bn' in frozen and 's3_ge1_expand_bn' in frozen
    assert not changed & frozen
    assert {'s3_ge2_gather', 's3_ge2_gather_bn', 'head_logits'} <= changed


def test_frozen_layers_are_named() -> None:
    model = build(TINY, (32, 32), boosters=True)
    assert freeze(model, ['head_l', 'booster_s[34]']) == [
        'head_logits', 'booster_s3', 'booster_s4']


@pytest.mark.parametrize(('patterns', 'message'), [
    (['detail', 'head_x'], r"no layer fits 'head_x'; .* names begin with bga, booster, context"),
    (['stem_pool'], "no layer fits 'stem_pool'"),  # it has no weights
    (['*'], 'leaves nothing to train'),
])
def test_patterns_that_make_no_sense_are_refused(patterns: list[str], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        freeze(build(TINY, (32, 32), boosters=True), patterns)


def test_start_from_a_network_of_other_classes(tmp_path: Path) -> None:
    other = dataclasses.replace(TINY, num_classes=19)
    source = build(other, (32, 64), boosters=True)
    for weight in source.weights:
        weight.assign(np.random.default_rng(5).uniform(0.1, 1, weight.shape))
    path = tmp_path / 'best.keras'
    deployable(source, other, (32, 64)).save(path)
    run = finished_run(tmp_path / 'run', other, source)
    for start, boosters in ((path, False), (run, True)):
        model = build(TINY, (32, 32), boosters=True)
        fresh = initialize(model, start)
        assert [name for name in fresh if not name.startswith('booster')] == ['head_logits']
        # A deployable model has no boosters; a run's last epoch has.
        assert ('booster_s3_conv' in fresh) != boosters
        for name in ('detail_s1_1', 's5_ge4_project_bn', 'head_conv'):
            for found, wanted in zip(model.get_layer(name).get_weights(),
                                     source.get_layer(name).get_weights(), strict=True):
                np.testing.assert_array_equal(found, wanted)


def finished_run(
    folder: Path, architecture: Architecture, model: keras.Model, **arrays: np.ndarray,
) -> Path:
    """Write what ``initialize`` reads of a run folder."""
    folder.mkdir()
    (folder / 'config.json').write_text(json.dumps(
        {'config': {'architecture': dataclasses.asdict(architecture)}}))
    np.savez(folder / 'checkpoint.npz', **arrays, **{
        f'v{index}': weight.numpy() for index, weight in enumerate(model.weights)})
    return folder


@pytest.mark.parametrize('start', ['run', 'run/best.keras'])
def test_a_head_of_the_same_classes_in_another_order_starts_fresh(
    tmp_path: Path, start: str,
) -> None:
    source = build(TINY, (32, 64), boosters=True)
    run = finished_run(tmp_path / 'run', TINY, source)
    deployable(source, TINY, (32, 64)).save(run / 'best.keras')
    described = json.loads((run / 'config.json').read_text())
    described['config']['classes'] = ['background', 'road']
    described['taxonomy'] = {'classes': ['background', 'road', 'ground', 'movable']}
    (run / 'config.json').write_text(json.dumps(described))
    model = build(TINY, (32, 32), boosters=True)

    def fresh(config: Config) -> set[str]:
        return {name for name in initialize(model, tmp_path / start, config)
                if '_conv' not in name}

    absent = set(BOOSTERS) if start.endswith('.keras') else set()
    same, swapped, other = (
        tiny_config(classes=classes, merge=(0, 1, 0, 0), mark=classes[-1])
        for classes in (('background', 'road'), ('road', 'background'), ('rest', 'way')))
    assert fresh(same) == absent and other_heads(tmp_path / start, same) == {}
    assert 'head_logits' in fresh(swapped)
    # As many others may well be the same by other names.
    assert fresh(other) == absent
    assert other_heads(tmp_path / start, other)['head_logits'] == (
        ('background', 'road'), ('rest', 'way'))
    # A file alone, and a run of long ago, do not tell.
    (run / 'config.json').write_text(json.dumps(
        {'config': {'architecture': described['config']['architecture']}}))
    assert fresh(swapped) == absent


def test_a_run_hands_on_all_weights_and_the_averaged_ones_where_there_are_any(
    tmp_path: Path,
) -> None:
    source = build(TINY, (32, 64), boosters=True)
    model = build(TINY, (32, 32), boosters=True)
    assert initialize(model, finished_run(tmp_path / 'plain', TINY, source)) == []
    for found, wanted in zip(model.weights, source.weights, strict=True):
        np.testing.assert_array_equal(found, wanted)

    averaged = {f'a{index}': weight.numpy() + 1 for index, weight in enumerate(source.weights)}
    initialize(model, finished_run(tmp_path / 'averaged', TINY, source, **averaged))
    for found, wanted in zip(model.weights, source.weights, strict=True):
        np.testing.assert_array_equal(found, wanted.numpy() + 1)


def test_damaged_runs_are_refused_as_a_start(tmp_path: Path) -> None:
    model = build(TINY, (32, 32), boosters=True)
    run = finished_run(tmp_path / 'run', TINY, model)
    checkpoint = run / 'checkpoint.npz'
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[:5000])
    with pytest.raises(TrainingError, match=(
            r'checkpoint\.npz: found a damaged file \(BadZipFile: File is not a zip file\), '
            'expected the last epoch of a run; choose another run')):
        initialize(model, run)
    checkpoint.write_bytes(whole)
    for text in ('{"config": {"archit', '{}', '{"config": {"architecture": {"colour": 1}}}'):
        (run / 'config.json').write_text(text)
        with pytest.raises(TrainingError, match=(
                r'config\.json: found a damaged file \(.*\), expected the settings of a run')):
            initialize(model, run)


def test_starts_that_fit_nothing_are_refused(tmp_path: Path) -> None:
    model = build(TINY, (32, 32), boosters=True)
    path = tmp_path / 'best.keras'
    with pytest.raises(TrainingError, match=r'config\.json is missing; expected a run folder'):
        initialize(model, tmp_path)
    with pytest.raises(TrainingError, match=r'best\.keras is missing; expected a run folder or a'):
        initialize(model, path)
    source = deployable(model, TINY, (32, 32))
    source.save(path)
    flipped = bytearray(path.read_bytes())
    flipped[len(flipped) // 2] ^= 255  # the archive's own sum no longer holds
    for content in (b'not a model', flipped):
        path.write_bytes(content)
        with pytest.raises(TrainingError, match=r'best\.keras cannot be read as a Keras model: '):
            initialize(model, path)
    image = keras.Input((4,))
    keras.Model(image, keras.layers.Dense(2)(image)).save(path)
    with pytest.raises(TrainingError, match='has no layer that fits by name and shape'):
        initialize(model, path)
