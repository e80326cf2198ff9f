"""Calibration, temperature and layer errors, on networks small enough to reason about."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

keras = pytest.importorskip('keras', reason='keras is not installed')
pytest.importorskip('tensorflow', reason='tensorflow is not installed: nothing converts')
pytest.importorskip('ai_edge_litert', reason='ai-edge-litert is not installed: no .tflite runs')

from bisenet_ros.core.contract import contract_path, read_contract  # noqa: E402
from training import quantize  # noqa: E402
from training.calibration import (  # noqa: E402
    Agreement, agreement, choose, Plan, PLANS, Pool, sqnr_db,
)
from training.datasets import SyntheticDrive  # noqa: E402
from training.finished_run import FinishedRun, QuantizationError, RunError, read_run  # noqa: E402
from training.layer_errors import (  # noqa: E402
    layer_errors, LayerError, short_names, table, write_layers,
)
from training.reliability import fit_temperature  # noqa: E402
from training.temperature import doubt, fitted, fold, sampled_logits  # noqa: E402

pytestmark = [pytest.mark.training, pytest.mark.skipif(
    keras.backend.backend() != 'tensorflow', reason='conversion needs the tensorflow backend')]

INPUT_HW = 32, 64


def network(seed: int = 0) -> Any:
    """Two convolutions to two classes at stride 8, each the likelier one somewhere."""
    keras.utils.set_random_seed(seed)
    image = keras.Input((*INPUT_HW, 3), batch_size=1)
    features = keras.layers.Conv2D(
        8, 3, strides=2, padding='same', activation='relu', name='first')(image)
    features = keras.layers.Conv2D(
        8, 3, strides=4, padding='same', activation='relu', name='second')(features)
    head = keras.layers.Conv2D(2, 1, name='head')
    model = keras.Model(image, keras.layers.Activation('linear', name='logits')(head(features)))
    frame = SyntheticDrive(1, INPUT_HW[::-1]).read(0)[0][None].astype(np.float32) / 255
    raw = keras.ops.convert_to_numpy(model(frame, training=False))
    head.set_weights([head.get_weights()[0] / raw.std(), -raw.mean((0, 1, 2)) / raw.std()])
    return model


def finished(model: Any) -> FinishedRun:
    return FinishedRun(model, ('background', 'road'), (0, 1, 0, 0), 'road', ('synthetic:4',), {})


def logits_of(model: Any, seed: int = 3) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    image = rng.random((1, *INPUT_HW, 3), np.float32)
    return keras.ops.convert_to_numpy(model(image, training=False))


# -- choosing the calibration ------------------------------------------------------------------


class Numbered:
    """Frames that hold their own number; ``opened`` lists what was read."""

    def __init__(self, count: int, first: int = 0) -> None:
        self.count, self.first = count, first
        self.opened: list[int] = []

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return str(index)

    def sequence(self, index: int) -> str:
        return ''

    def read(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        self.opened.append(index)
        value = self.first + index
        return (np.full((*INPUT_HW, 3), value, np.uint8), np.zeros(INPUT_HW, np.uint8))


def numbers(batches: Iterator[npt.NDArray[np.float32]]) -> list[int]:
    return [round(float(batch[0, 5, 5, 0]) * 255) for batch in batches]


def test_held_out_frames_are_never_calibrated_on() -> None:
    pool = Pool([Numbered(6), Numbered(6, 100)], held_out=4)
    held_out = [int(view[0, 0, 0]) for view in pool.views(INPUT_HW)]
    used = numbers(pool.frames(Plan(100), INPUT_HW))
    assert len(held_out) == 4 and len(used) == 8
    assert not set(held_out) & set(used)
    # By turns: both sets are on both sides.
    assert sum(number >= 100 for number in held_out) == 2
    assert sum(number >= 100 for number in used) == 4


def test_longer_plans_go_on_where_shorter_ones_end() -> None:
    pool = Pool([Numbered(20)], held_out=5)
    assert numbers(pool.frames(Plan(10), INPUT_HW))[:4] == numbers(
        pool.frames(Plan(4), INPUT_HW))


def test_small_sets_hold_out_half() -> None:
    pool = Pool([Numbered(3)], held_out=60)
    assert (len(pool.held_out), len(pool.rest)) == (1, 2)
    with pytest.raises(QuantizationError, match='calibration: found 1 frames, expected at least'):
        Pool([Numbered(1)], held_out=1)


def test_plans_are_of_the_frames_that_there_are() -> None:
    pool = Pool([Numbered(20)], held_out=10)
    assert pool.plans(PLANS) == (Plan(10), Plan(10, 'augmented'), Plan(10, 'both'))
    assert pool.plans((Plan(4), Plan(10), Plan(11))) == (Plan(4), Plan(10))


@pytest.mark.parametrize(('asked', 'used'), [(2, 2), (5, 6), (20, 13)])
def test_fixed_calibration_tells_the_frames_it_used(
    asked: int, used: int, monkeypatch: pytest.MonkeyPatch,
) -> None:
    sets = [Numbered(3), Numbered(30, 100)]
    seen: list[int] = []

    def convert(model: Any, frames: Iterator[npt.NDArray[np.float32]]) -> bytes:
        seen.extend(numbers(frames))
        return b''

    monkeypatch.setattr(quantize, 'quantize', convert)
    _, told = quantize.calibrated(finished(network()), sets, Plan(asked))
    assert len(seen) == used and told == {'calibration': f'{used} whole'}


def test_every_calibration_frame_spans_the_input_range() -> None:
    pool = Pool([Numbered(4, 100)], held_out=1)
    for views in ('whole', 'augmented', 'both'):
        for batch in pool.frames(Plan(3, views), INPUT_HW):
            assert batch.dtype == np.float32 and batch.shape == (1, *INPUT_HW, 3)
            assert batch.min() == 0.0 and batch.max() == 1.0


def test_augmented_views_are_not_the_frames_and_both_takes_turns() -> None:
    drive = SyntheticDrive(5, (64, 32))
    pool = Pool([drive], held_out=1)
    whole, augmented, both = (
        list(pool.frames(Plan(4, views), INPUT_HW)) for views in ('whole', 'augmented', 'both'))
    same = [[bool((a == b).all()) for a, b in zip(whole, other, strict=True)]
            for other in (augmented, both)]
    assert same == [[False] * 4, [True, False, True, False]]


def test_agreement_ignores_what_all_classes_share() -> None:
    rng = np.random.default_rng(0)
    exact = rng.normal(size=(4, 8, 3)).astype(np.float32)
    found = agreement(iter([(exact, exact + 7)]), INPUT_HW)
    assert found.sqnr_db > 100 and found.labels > 0.99


def test_agreement_by_hand() -> None:
    exact = np.zeros((1, 2, 2), np.float32)
    exact[..., 0] = 2.0  # centred: 1 and -1
    found = exact.copy()
    found[0, 1] = 0.0, 2.0  # the other way round: 2 off, in both classes
    result = agreement(iter([(exact, found)]), (1, 2))
    assert result.sqnr_db == pytest.approx(10 * np.log10(4 / 8))
    assert result.labels == 0.5


def test_ratio_of_energies() -> None:
    assert sqnr_db(100.0, 1.0) == pytest.approx(20.0)
    assert sqnr_db(1.0, 0.0) == float('inf')
    assert sqnr_db(0.0, 1.0) == float('-inf')


def test_plan_that_agrees_best_is_kept() -> None:
    ratios = {b'10 whole': 30.0, b'20 whole': 33.0, b'20 augmented': 33.0}
    reported: list[str] = []
    best, content, tried = choose(
        (Plan(10), Plan(20), Plan(20, 'augmented')), lambda plan: str(plan).encode(),
        lambda file: Agreement(ratios[file], 0.99), lambda plan, _: reported.append(str(plan)))
    assert (best, content) == (Plan(20), b'20 whole')  # the earlier of two equal ones
    assert [str(plan) for plan, _ in tried] == reported == [key.decode() for key in ratios]
    with pytest.raises(QuantizationError, match='found no plan'):
        choose((), lambda plan: b'', lambda file: Agreement(0, 0), lambda plan, found: None)


# -- temperature -------------------------------------------------------------------------------


def test_folded_temperature_divides_the_logits() -> None:
    model = network()
    before = logits_of(model)
    fold(model, 0.25)
    np.testing.assert_allclose(logits_of(model), before * 4, rtol=1e-5, atol=1e-6)


def test_temperature_needs_a_last_convolution() -> None:
    image = keras.Input((*INPUT_HW, 3), batch_size=1)
    last = keras.layers.Conv2D(2, 1, activation='sigmoid', name='sure')(image)
    with pytest.raises(QuantizationError, match=r"come from the layer 'sure' \(Conv2D\)"):
        fold(keras.Model(image, last), 2.0)


@pytest.mark.parametrize('value', [-1.0, 0.0, float('nan'), float('inf')])
def test_temperature_is_a_finite_number_above_0(value: float) -> None:
    model = network()
    before = logits_of(model)
    with pytest.raises(QuantizationError, match=f'found {value}, expected a finite number above'):
        fold(model, value)
    np.testing.assert_array_equal(logits_of(model), before)


def test_shipped_architecture_takes_a_temperature() -> None:
    from training.model import Architecture, build
    model = build(Architecture(), (64, 64), batch_size=1)
    head = model.get_layer('head_logits')
    before = keras.ops.convert_to_numpy(head.kernel)
    fold(model, 2.0)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(head.kernel), before / 2)


def test_temperature_is_fitted_on_the_labelled_pixels_alone() -> None:
    run = finished(network())

    class Half(SyntheticDrive):
        def read(self, index: int) -> Any:
            rgb, labels = super().read(index)
            labels = labels.copy()
            labels[:, 32:] = 255
            labels[:] = np.where(labels == 255, 255, 1)
            return rgb, labels

    logits, truth = sampled_logits(run, [Half(2, (64, 32))])
    assert logits.shape == (2 * 32 * 32, 2) and (truth == 1).all()

    class Void(SyntheticDrive):
        def read(self, index: int) -> Any:
            rgb, labels = super().read(index)
            return rgb, np.full_like(labels, 255)

    with pytest.raises(QuantizationError, match='--temperature auto: found no labelled pixel'):
        fitted(run, [Void(1, (64, 32))])


@pytest.mark.parametrize(('wrong', 'why'), [
    (0, r'on 2048 pixels, as low as the search went: the model makes no error'),
    (1024, r'found (19|20)\.\d+ on 2048 pixels, the end of the search .* knows nothing of them'),
    (100, '^$')])
def test_temperature_that_means_nothing_is_doubted(wrong: int, why: str) -> None:
    labels = np.tile(np.uint8([0, 1]), 1024)
    logits = np.zeros((2048, 2), np.float32)
    logits[np.arange(2048), labels] = 4.0
    logits[:wrong] = logits[:wrong, ::-1]
    assert re.search(why, doubt(fit_temperature(logits, labels)))


# -- layer errors ------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def converted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The network in int8 and float, and another whose second layer is not the same."""
    folder = tmp_path_factory.mktemp('converted')
    model = network()
    files = {name: folder / f'{name}.tflite' for name in ('int8', 'float', 'other')}
    drive = SyntheticDrive(4, (64, 32))
    files['int8'].write_bytes(
        quantize.quantize(model, quantize.calibration_frames([drive], 4, INPUT_HW)))
    files['float'].write_bytes(quantize.float_tflite(model))
    layer = model.get_layer('second')
    kernel, bias = layer.get_weights()
    layer.set_weights([kernel + 0.1 * np.sign(kernel), bias])
    files['other'].write_bytes(quantize.float_tflite(model))
    return {**files, 'images': [drive.read(index)[0] for index in range(2)]}


def test_layers_of_a_good_model_are_close(converted: dict[str, Any]) -> None:
    layers = layer_errors(converted['int8'], converted['float'], converted['images'])
    assert len(layers) == 3
    assert [layer.sqnr_db for layer in layers] == sorted(layer.sqnr_db for layer in layers)
    assert all(25 < layer.sqnr_db < 80 for layer in layers)
    # An output is never better than its own rounding allows, but by chance.
    assert all(layer.sqnr_db < layer.rounding_sqnr_db + 3 for layer in layers)
    first = next(layer for layer in layers if layer.index == min(each.index for each in layers))
    assert first.input_sqnr_db == float('inf')
    assert all(0 <= layer.cut_off < 0.05 and layer.scale > 0 for layer in layers)


def test_layer_that_is_wrong_is_found(converted: dict[str, Any]) -> None:
    layers = layer_errors(converted['int8'], converted['other'], converted['images'])
    ordered = sorted(layers, key=lambda layer: layer.index)
    assert ordered[0].sqnr_db > 25 and ordered[1].sqnr_db < 20
    assert ordered[1].loss_db == max(layer.loss_db for layer in ordered[1:])
    assert f'the greatest fall is in {ordered[1].name}' in table(layers)


def test_layer_errors_need_frames_and_equal_names(
    converted: dict[str, Any], tmp_path: Path,
) -> None:
    with pytest.raises(QuantizationError, match='layers: found no frame'):
        layer_errors(converted['int8'], converted['float'], [])
    from tflite_models import Toy
    other = Toy().save(tmp_path)
    with pytest.raises(QuantizationError, match='found no layer of equal name'):
        layer_errors(other, converted['float'], converted['images'])


def test_names_are_shortened_unless_two_become_one() -> None:
    assert short_names(['net/stem_1/convolution;net/stem_bn_1/sub1', 'net/add_1/Add', 'Out']) == [
        'stem_bn_1', 'add_1', 'Out']
    assert short_names(['net/a/x', 'net/a/y']) == ['net/a/x', 'net/a/y']


LAYER = LayerError(3, 'CONV_2D', 'stem', 21.5, float('inf'), 40.25, 0.001, 0.05)


def test_layers_are_written_whole(tmp_path: Path) -> None:
    import csv
    write_layers((LAYER,), tmp_path / 'layers.csv')
    with (tmp_path / 'layers.csv').open() as file:
        [row] = csv.DictReader(file)
    assert row['name'] == 'stem' and float(row['sqnr_db']) == 21.5 and row['input_sqnr_db'] == ''
    write_layers((LAYER,), tmp_path / 'layers.json')
    [found] = json.loads((tmp_path / 'layers.json').read_text())
    assert found['input_sqnr_db'] is None and found['index'] == 3
    with pytest.raises(QuantizationError, match=r"layers\.txt', expected a \.csv or \.json name"):
        write_layers((LAYER,), tmp_path / 'layers.txt')
    assert 'exact' in table((LAYER,)) and 'greatest fall' not in table((LAYER,))


# -- the command -------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('run')
    network().save(folder / 'best.keras')
    (folder / 'config.json').write_text(json.dumps({
        'command': ['train'], 'commit': 'abc', 'config': {
            'classes': ['background', 'road'], 'merge': [0, 1, 0, 0], 'mark': 'road',
            'train': [['synthetic:8', 1.0]], 'validate': ['synthetic:2:5']}}))
    return folder


def test_run_of_an_older_version_is_read(run_folder: Path) -> None:
    run = read_run(run_folder)
    assert (run.taxonomy.name, run.mark, run.train_sets) == ('road', 'road', ('synthetic:8',))
    with pytest.raises(RunError, match=r'config\.json: missing; expected a run folder'):
        read_run(run_folder / 'absent')


def test_command_chooses_fits_and_reports(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quantize, 'PLANS', (Plan(2), Plan(3, 'both')))
    output, layers = tmp_path / 'model.tflite', tmp_path / 'layers.csv'
    assert quantize.main([
        '--run', str(run_folder), '--output', str(output), '--calibration', 'auto',
        '--temperature', 'auto', '--layers', str(layers)]) == 0
    out, error = capsys.readouterr()
    told = read_contract(contract_path(output)).provenance
    assert set(told['calibrations_tried']) == {'2 whole', '3 both'}
    best = max(told['calibrations_tried'].items(), key=lambda entry: entry[1]['sqnr_db'])[0]
    assert told['calibration'] == best and f'kept: {best}' in out
    assert told['temperature']['fitted_on'] == ['synthetic:2:5']
    assert told['temperature'].get('doubt', '') in error
    # An untrained network is no better for it, but never worse.
    assert told['temperature']['nll'][1] <= told['temperature']['nll'][0]
    scores = told['road_iou']['synthetic:2:5']
    assert scores['agreement'] > 0.97
    assert f'road IoU on synthetic:2:5: float {scores["float"]:.4f}' in out
    assert len(layers.read_text().splitlines()) == 4


def test_a_merged_model_is_scored_as_it_was_trained(run_folder: Path, tmp_path: Path) -> None:
    from training import evaluate
    folder, output, report = (tmp_path / name for name in ('run', 'model.tflite', 'report.json'))
    shutil.copytree(run_folder, folder)
    described = json.loads((folder / 'config.json').read_text())
    described['config']['merge'] = [0, 1, 1, 0]
    (folder / 'config.json').write_text(json.dumps(described))
    assert quantize.main(['--run', str(folder), '--output', str(output), '--frames', '2']) == 0
    provenance = read_contract(contract_path(output)).provenance
    assert provenance['merge'] == {
        'background': ['background', 'movable'], 'road': ['road', 'ground']}
    assert evaluate.main(['--model', str(output), '--against', str(folder / 'best.keras'),
                          '--on', 'synthetic:2:5', '--json', str(report)]) == 0
    found = json.loads(report.read_text())['sets']['synthetic:2:5']['models']
    for name, kind in (('model.tflite', 'int8'), ('best.keras', 'float')):
        assert found[name]['all']['classes']['road']['iou'] == pytest.approx(
            provenance['road_iou']['synthetic:2:5'][kind], abs=1e-4)


def test_labels_do_not_depend_on_the_temperature(run_folder: Path, tmp_path: Path) -> None:
    from bisenet_ros import Segmenter
    from bisenet_ros.core.postprocess import Wanted
    rgb = SyntheticDrive(1, (64, 32), seed=9).read(0)[0]
    found = []
    for name, temperature in (('one', 'none'), ('half', '0.5')):
        path = tmp_path / f'{name}.tflite'
        assert quantize.main(['--run', str(run_folder), '--output', str(path), '--frames', '4',
                              '--temperature', temperature]) == 0
        result = Segmenter.load(path, device='cpu').segment(
            rgb, wanted=Wanted(labels=True, confidence=True))
        found.append((np.array(result.labels), np.array(result.confidence, np.float64) / 255))
    assert (found[0][0] == found[1][0]).mean() > 0.995
    # Half the temperature squares the odds.
    odds = [confidence / (1 - confidence) for _, confidence in found]
    inner = (found[1][1] < 0.95) & (found[0][1] > 0.52)
    assert inner.any()
    np.testing.assert_allclose(odds[1][inner], odds[0][inner] ** 2, rtol=0.25)


@pytest.mark.parametrize(('changes', 'message'), [
    ({'--output': 'model.h5'}, "--output: found 'model.h5', expected a .tflite name"),
    ({'--frames': '0'}, '--frames: found 0, expected at least 1'),
    ({'--before': 'runs/a'},
     '--before: found --epoch best and --share 0.3, expected --epoch last'),
    ({'--before': 'runs/a', '--epoch': 'last', '--share': '1'},
     '--before: found --epoch last and --share 1.0, expected --epoch last and a share above 0'),
    ({'--share': '0.5'}, '--share: found no --before, whose weight it is'),
    ({'--layers': 'a.txt'}, "--layers: found 'a.txt', expected a .csv or .json name"),
    ({'--temperature': 'hot'}, "--temperature: found 'hot', expected none, auto or a number"),
    ({'--temperature': 'nan'}, 'temperature: found nan, expected a finite number above 0'),
    ({'--score': 'nothing'}, "data set: found 'nothing'"),
])
def test_command_says_in_one_line_what_is_wrong(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    changes: dict[str, str], message: str,
) -> None:
    options = {'--run': str(run_folder), '--output': str(tmp_path / 'm.tflite'), **changes}
    assert quantize.main([part for pair in options.items() for part in pair]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count('\n') == 1
    assert not (tmp_path / 'm.tflite').exists()


def test_contract_replaces_contracts_alone(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    taxonomy = tmp_path / 'yard.json'
    taxonomy.write_text('["background", "gravel", "grass"]')
    command = ['--run', str(run_folder), '--output', str(tmp_path / 'yard.tflite'),
               '--frames', '2']
    assert quantize.main(command) == 1
    error = capsys.readouterr().err
    assert f'{taxonomy}: found a file that is no contract' in error and error.count('\n') == 1
    assert taxonomy.read_text().startswith('["background"')
    taxonomy.unlink()
    assert quantize.main(command) == quantize.main(command) == 0


def test_layers_are_written_over_nothing_that_is_needed(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    settings = (run_folder / 'config.json').read_text()
    for layers, what in (
            (tmp_path / 'm.json', "the file of --output's contract"),
            (run_folder / 'config.json', 'a file that this command reads')):
        assert quantize.main(['--run', str(run_folder), '--output', str(tmp_path / 'm.tflite'),
                              '--layers', str(layers)]) == 1
        error = capsys.readouterr().err
        assert f'--layers: found {str(layers)!r}, which is {what}' in error
        assert error.count('\n') == 1
    assert (run_folder / 'config.json').read_text() == settings and not any(tmp_path.iterdir())


def test_a_model_compiled_before_is_named(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    command = ['--run', str(run_folder), '--output', str(tmp_path / 'm.tflite'), '--frames', '2']
    assert quantize.main(command) == 0
    assert 'note:' not in capsys.readouterr().err
    (tmp_path / 'm_edgetpu.tflite').write_bytes(b'of another model')
    assert quantize.main(command) == 0
    assert 'm_edgetpu.tflite was not made of this m.tflite' in capsys.readouterr().err


def test_layers_of_a_single_frame_cost_no_scores(run_folder: Path, tmp_path: Path) -> None:
    output, layers = tmp_path / 'model.tflite', tmp_path / 'layers.csv'
    assert quantize.main([
        '--run', str(run_folder), '--output', str(output), '--calibrate', 'synthetic:1',
        '--layers', str(layers)]) == 0
    assert len(layers.read_text().splitlines()) == 4
    told = read_contract(contract_path(output)).provenance
    assert told['calibration'] == '1 whole' and 'synthetic:2:5' in told['road_iou']


@pytest.mark.parametrize(('option', 'value'), [
    ('--epoch', 'last'), ('--calibrate', 'synthetic:1'), ('--calibration', 'auto'),
    ('--frames', '9'), ('--temperature', 'auto'), ('--layers', 'layers.csv'),
    ('--score', 'nosuch:set')])
def test_an_untrained_network_has_no_use_for_what_concerns_a_trained_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str,
) -> None:
    output = tmp_path / 'model.tflite'
    assert quantize.main(
        ['--untrained', 'road_tiny', option, value, '--output', str(output)]) == 1
    assert f'{option}: found ' in (told := capsys.readouterr().err)
    assert 'expected none beside --untrained' in told
    assert not output.exists()


def test_frames_are_of_a_fixed_calibration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / 'model.tflite'
    assert quantize.main(['--run', str(tmp_path), '--frames', '9', '--calibration', 'auto',
                          '--output', str(output)]) == 1
    assert '--frames: found 9 beside --calibration auto' in capsys.readouterr().err


def test_on_a_full_disk_the_model_before_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / 'model.tflite'
    command = ['--untrained', 'road_tiny', '--output', str(output)]
    assert quantize.main(command) == 0
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    written = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.parent == tmp_path:
            written(path, content[:10])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return written(path, content)

    monkeypatch.setattr(Path, 'write_bytes', full)
    assert quantize.main(command) == 1

    assert capsys.readouterr().err.endswith(
        'model.tflite: cannot be written (No space left on device); name a file in a folder that '
        'can be written to.\n')
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_layers_that_fail_cost_no_scores(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*args: Any) -> None:
        raise QuantizationError('layers: found nothing')

    monkeypatch.setattr(quantize, 'layer_errors', fail)
    output = tmp_path / 'model.tflite'
    assert quantize.main(['--run', str(run_folder), '--output', str(output), '--frames', '2',
                          '--layers', str(tmp_path / 'layers.csv')]) == 1
    assert capsys.readouterr().err.endswith('layers: found nothing\n')
    assert 'road_iou' in read_contract(contract_path(output)).provenance


@pytest.mark.parametrize('option', ['--output', '--layers'])
def test_files_that_cannot_be_written_are_found_before_the_work(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, option: str,
) -> None:
    monkeypatch.setattr(quantize, 'read_run', None)  # called, it would be an error
    path = run_folder / 'best.keras' / 'no' / ('m.tflite' if option == '--output' else 'l.csv')
    options = {'--run': str(run_folder), '--output': str(tmp_path / 'm.tflite'), option: str(path)}
    assert quantize.main([part for pair in options.items() for part in pair]) == 1
    error = capsys.readouterr().err
    assert f'{path}: cannot be written (Not a directory)' in error and error.count('\n') == 1


def test_model_that_cannot_be_used_is_not_left_behind(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quantize, 'quantize', lambda model, frames: quantize.float_tflite(model))
    output = tmp_path / 'model.tflite'
    assert quantize.main(['--run', str(run_folder), '--output', str(output)]) == 1
    assert f'{output}: ' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_interrupted_command_ends_in_one_line(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*args: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(SyntheticDrive, 'read', interrupted)  # within the converter
    output = tmp_path / 'model.tflite'
    assert quantize.main(['--run', str(run_folder), '--output', str(output)]) == 130
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if 'interrupted' in line or 'Traceback' in line] == [
        f'interrupted: {output} is not finished; the same command starts anew.']
    assert not output.exists()


# -- other classes -----------------------------------------------------------------------------


def test_classes_without_a_road_are_trained_quantized_and_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    from tiny_training import eager_functions
    from training import evaluate, train
    taxonomy, classes = tmp_path / 'taxonomy.json', tmp_path / 'classes.json'
    taxonomy.write_text(json.dumps(['background', 'gravel', 'grass']))
    classes.write_text(json.dumps({'road': 'gravel', 'ground': 'grass', '*': 'background'}))
    (tmp_path / 'tiny.py').write_text(
        'from tiny_training import tiny_config\nfrom training.config import Phase\n'
        'CONFIG = tiny_config(phases=(Phase((32, 64), 1),), images_per_epoch=2, batch_size=2)\n')
    run, model = tmp_path / 'run', tmp_path / 'yard.tflite'
    frames = f'synthetic:2:1,classes={classes}'
    with eager_functions():
        assert train.main([
            '--config', str(tmp_path / 'tiny.py'), '--run', str(run), '--taxonomy', str(taxonomy),
            '--dataset', f'synthetic:4,classes={classes}', '--validate', frames]) == 0
    assert quantize.main(['--run', str(run), '--output', str(model), '--frames', '2']) == 0
    contract = read_contract(contract_path(model))
    assert contract.class_names == ('background', 'gravel', 'grass')
    assert contract.provenance['taxonomy'] == {
        'name': 'taxonomy', 'classes': ['background', 'gravel', 'grass']}
    assert contract.provenance['merge'] == {name: [name] for name in contract.class_names}
    assert contract.provenance['mean_iou'][frames]['agreement'] > 0.9
    report = tmp_path / 'report.json'
    taxonomy.unlink()  # the contract holds it
    assert evaluate.main(['--model', str(model), '--on', frames, '--json', str(report)]) == 0
    scores = json.loads(report.read_text())['sets'][frames]['models']['yard.tflite']['all']
    assert set(scores['classes']) == set(contract.class_names)
    assert scores['mean_iou'] == pytest.approx(
        contract.provenance['mean_iou'][frames]['int8'], abs=1e-4)
    assert 'mask_classes' not in capsys.readouterr().err


def test_figures_that_json_has_no_number_for_are_null(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    from written_datasets import write_pair
    write_pair(tmp_path / 'void', 'a', [[255, 255], [255, 255]])
    output, frames = tmp_path / 'model.tflite', f'ids:{tmp_path}/void'
    assert quantize.main(['--run', str(run_folder), '--output', str(output), '--frames', '2',
                          '--score', frames]) == 0
    found = json.loads(contract_path(output).read_text(), parse_constant=pytest.fail)
    scores = found['provenance']['road_iou'][frames]
    # Void pixels count nowhere, whatever a model finds there.
    assert (scores['float'], scores['int8']) == (None, None)
    assert f'road IoU on {frames}: none, for it is nowhere; they agree on' in (
        capsys.readouterr().out)
    assert [quantize.finite(value, 2) for value in (float('inf'), float('nan'), 0.126)] == [
        None, None, 0.13]


def test_model_without_a_contract_is_not_left_behind(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / 'run'
    shutil.copytree(run_folder, folder)
    described = json.loads((folder / 'config.json').read_text())
    described['config'] |= {'classes': ['road'], 'merge': [0, 0, 0, 0]}
    (folder / 'config.json').write_text(json.dumps(described))
    output = tmp_path / 'out' / 'model.tflite'
    assert quantize.main(['--run', str(folder), '--output', str(output), '--frames', '2']) == 1
    assert 'class names: found 1, expected 2 to' in capsys.readouterr().err
    assert not list(output.parent.iterdir())


def test_command_of_a_run_can_be_pasted(run_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(run_folder, tmp_path / 'run')
    path = tmp_path / 'run' / 'config.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), 'command': [
        'python', '-m', 'training.train', '--dataset', 'labelme:my photos,part=train=0.7']}))
    assert read_run(tmp_path / 'run').provenance['command'] == (
        "python -m training.train --dataset 'labelme:my photos,part=train=0.7'")
