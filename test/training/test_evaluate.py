"""Models scored on frames whose scores are known, through the command line too."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip('ai_edge_litert', reason='ai-edge-litert is not installed: no .tflite runs')

from tflite_models import Toy

from bisenet_ros.core.contract import file_sha256
from bisenet_ros.core.health import Level
from bisenet_ros.core.output_files import check_writable
from bisenet_ros.core.segmenter import Segmenter, SHIPPED_MODEL
from bisenet_ros.core.supervisor import Event
from training import evaluate
from training.class_matching import match
from training.datasets import DatasetError, SyntheticDrive, TAXONOMIES, Taxonomy, Tolerant
from training.learnt import Learnt
from training.predictors import open_predictor, parse_model, Prediction, TflitePredictor
from training.report_html import ModelInfo
from training.scoring import paired_gap, score, Worst

ROAD = ('background', 'road')

Image = npt.NDArray[np.uint8]


class Frames:
    """Frames of two drives; the right half is road, the lowest row void."""

    def __len__(self) -> int:
        return 4

    def name(self, index: int) -> str:
        return f'frame{index}'

    def sequence(self, index: int) -> str:
        return 'ab'[index // 2]

    def read(self, index: int) -> tuple[Image, Image]:
        labels = np.zeros((40, 60), np.uint8)
        labels[:, 30:] = 1
        labels[-1] = 255
        return np.full((40, 60, 3), index, np.uint8), labels


@dataclasses.dataclass
class Fixed:
    """Says road right of a column, which depends on the frame."""

    edges: tuple[int, ...]
    confidence: int | None = 255
    class_names: tuple[str, ...] = ROAD
    class_colors_rgb: tuple[tuple[int, int, int], ...] = ((0, 0, 0), (128, 64, 128))
    description: str = 'fixed'

    def __call__(self, rgb: Image) -> Prediction:
        labels = np.zeros(rgb.shape[:2], np.uint8)
        labels[:, self.edges[int(rgb[0, 0, 0])]:] = 1
        sure = None if self.confidence is None else np.full_like(labels, self.confidence)
        return Prediction(labels, sure)


EXACT, LATE = Fixed((30, 30, 30, 30)), Fixed((30, 36, 30, 45))


def test_scores_by_hand() -> None:
    found = score('set', Frames(), [LATE], match(ROAD, [ROAD]))
    whole, parts = found.models[0].whole, found.models[0].by_sequence
    # In columns: 30 of 30, 24 of 30, 30 of 30 and 15 of 30 are found, none made up.
    assert whole.matrix.iou()[1] == pytest.approx(99 / 120)
    assert whole.matrix.precision()[1] == 1.0
    assert {name: part.frames for name, part in parts.items()} == {'a': 2, 'b': 2}
    assert parts['a'].matrix.iou()[1] == pytest.approx(54 / 60)
    assert parts['b'].matrix.iou()[1] == pytest.approx(45 / 60)
    assert whole.matrix.counts.sum() == 4 * 39 * 60  # the void row apart
    assert whole.boundary.f()[1] == pytest.approx(2 / 4)
    # Always sure, and 21 columns of 240 are wrong.
    assert whole.reliability is not None
    assert whole.reliability.ece() == pytest.approx(21 / 240)
    assert [(note.index, pytest.approx(note.badness)) for note in found.models[0].worst] == [
        (3, 15 / 30), (1, 6 / 30)]


def test_two_models_differ_where_they_differ() -> None:
    found = score('set', Frames(), [EXACT, LATE], match(ROAD, [ROAD, ROAD]))
    [part] = found.differences
    assert (part.first, part.second) == (0, 1)
    assert part.agreement == pytest.approx(1 - 21 / 240)  # void pixels count here
    assert [note.index for note in part.worst] == [3, 1]
    assert part.worst[0].badness == pytest.approx(15 / 60)
    assert found.models[0].worst == ()  # nothing is wrong with it


def test_gap_is_of_all_frames_and_its_interval_of_resampled_ones() -> None:
    [part] = score('set', Frames(), [EXACT, LATE], match(ROAD, [ROAD, ROAD])).differences
    assert part.gap is not None
    assert part.gap.iou == pytest.approx(99 / 120 - 1)
    assert not part.gap.has_interval  # of four frames
    found = paired_gap([(30, 30)] * 12, [(30, 30), (24, 30), (30, 30), (15, 30)] * 3)
    assert found is not None
    assert found.iou == part.gap.iou
    assert -0.5 < found.low < found.iou < found.high < 0


def test_gap_of_models_that_always_differ_alike_is_certain() -> None:
    found = paired_gap([(10, 20)] * 10, [(15, 20)] * 10)
    assert found is not None
    assert (found.iou, found.low, found.high) == pytest.approx((0.25, 0.25, 0.25))
    assert paired_gap([(0, 0)], [(0, 0)]) is None


def test_only_frames_that_show_the_class_make_an_interval() -> None:
    first, second = [(10, 20)] * 9 + [(0, 0)] * 9, [(15, 20)] * 9 + [(0, 0)] * 9
    found = paired_gap(first, second)
    assert found is not None and found.iou == 0.25 and not found.has_interval
    found = paired_gap([*first, (0, 0)], [*second, (0, 5)])  # made up by one model
    assert found is not None and found.has_interval


def test_every_pair_of_models_is_compared() -> None:
    found = score('set', Frames(), [EXACT, LATE, EXACT], match(ROAD, [ROAD] * 3))
    assert [(part.first, part.second, part.agreement == 1.0) for part in found.differences] == [
        (0, 1, False), (0, 2, True), (1, 2, False)]


def test_model_without_confidence_has_no_reliability() -> None:
    found = score('set', Frames(), [Fixed((30,) * 4, None)], match(ROAD, [ROAD]))
    assert found.models[0].whole.reliability is None


def test_frames_are_ranked_by_all_classes_where_none_is_marked() -> None:
    names = ('left', 'right')
    found = score('set', Frames(), [dataclasses.replace(LATE, class_names=names)],
                  match(names, [names]), keep=1)
    assert found.marked is None
    [note] = found.models[0].worst
    assert note.index == 3
    assert note.badness == pytest.approx(1 - (15 / 30 + 30 / 45) / 2)


def test_only_the_worst_are_kept_worst_first() -> None:
    worst = Worst(2)
    for index, badness in enumerate((0.1, 0.5, 0.0, float('nan'), 0.3, 0.2)):
        worst.add(badness, index)
    assert [note.index for note in worst.listed()] == [1, 4]
    nothing = Worst(0)
    nothing.add(1.0, 0)
    assert nothing.listed() == ()


def test_progress_counts_to_the_end() -> None:
    seen: list[tuple[int, int]] = []
    score('set', Frames(), [EXACT], match(ROAD, [ROAD]),
          progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]


class Damaged(Frames):
    """The second frame cannot be read."""

    def read(self, index: int) -> tuple[Image, Image]:
        if index == 1:
            raise DatasetError('frame1.png: not a readable image')
        return super().read(index)


def test_bad_frames_stop_or_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DatasetError, match='frame1'):
        score('set', Damaged(), [EXACT], match(ROAD, [ROAD]))
    found = score('set', Tolerant(Damaged(), 'set'), [EXACT], match(ROAD, [ROAD]))
    assert found.models[0].whole.frames == 3  # no stand-in is scored twice
    assert found.left_out == ('frame1.png: not a readable image',)
    assert 'frame1.png' in capsys.readouterr().err


# -- models ------------------------------------------------------------------------------------


def test_tflite_is_scored_as_a_robot_runs_it(tmp_path: Path) -> None:
    predictor = TflitePredictor(Toy().save(tmp_path), 'cpu')
    assert predictor.class_names == ROAD
    assert 'cpu' in predictor.description
    rgb = np.zeros((32, 64, 3), np.uint8)
    rgb[:, 32:, 0] = 200  # red is road to this toy
    found = predictor(rgb)
    assert found.labels.shape == (32, 64)
    assert found.labels[:, :24].max() == 0 and found.labels[:, 40:].min() == 1
    assert found.confidence is not None and found.confidence[0, -1] == 255


@pytest.mark.parametrize(('text', 'path', 'device'), [
    ('a/b.tflite', 'a/b.tflite', 'cpu'), ('b.tflite@usb', 'b.tflite', 'usb'),
    ('b.tflite@pci:1', 'b.tflite', 'pci:1'), ('me@home/b.tflite', 'me@home/b.tflite', 'cpu')])
def test_device_may_follow_the_file(text: str, path: str, device: str) -> None:
    assert parse_model(text, 'cpu') == (Path(path), device)


def test_models_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    from bisenet_ros.core.errors import ModelError
    with pytest.raises(ModelError, match=r'absent\.keras: no such file'):
        open_predictor(str(tmp_path / 'absent.keras'))
    with pytest.raises(ModelError, match=r'absent\.tflite'):
        open_predictor(str(tmp_path / 'absent.tflite'))


@pytest.fixture(scope='module')
def keras_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network whose road logit is the red channel, at stride 8."""
    keras = pytest.importorskip('keras', reason='keras is not installed')
    image = keras.Input((32, 64, 3), batch_size=1)
    layer = keras.layers.Conv2D(2, 1, strides=8, name='head')
    model = keras.Model(image, layer(image))
    kernel = np.zeros((1, 1, 3, 2), np.float32)
    kernel[0, 0, 0, 1] = 20.0
    layer.set_weights([kernel, np.array([0, -4], np.float32)])
    path = tmp_path_factory.mktemp('run') / 'best.keras'
    model.save(path)
    return path


def test_keras_file_is_scored_in_float(keras_file: Path) -> None:
    predictor = open_predictor(str(keras_file))
    assert predictor.class_names == ROAD
    rgb = np.zeros((32, 64, 3), np.uint8)
    rgb[:, 32:, 0] = 255
    found = predictor(rgb)
    assert found.labels[0, 0] == 0 and found.labels[0, -1] == 1
    # Its logits are -4 and 16 there.
    assert found.confidence is not None
    assert found.confidence[0, 0] == round(255 / (1 + np.exp(-4)))
    assert found.confidence[0, -1] == 255


def test_classes_of_a_keras_file(keras_file: Path) -> None:
    from bisenet_ros.core.errors import ModelError
    assert open_predictor(str(keras_file), road=0).class_names == ('road', 'background')
    assert open_predictor(str(keras_file), class_names=['a', 'b']).class_names == ('a', 'b')
    with pytest.raises(ModelError, match='has 2 output channels, but --class-names names 3'):
        open_predictor(str(keras_file), class_names=['a', 'b', 'c'])
    with pytest.raises(ModelError, match=r'--road: found 2, expected an id below 2'):
        open_predictor(str(keras_file), road=2)
    beside = keras_file.with_name('config.json')
    beside.write_text(json.dumps({'config': {'classes': ['rest', 'road']}}))
    try:
        assert open_predictor(str(keras_file)).class_names == ('rest', 'road')
        for settings in ('{}', 'null', '{"config": {"classes": [0, 1]}}',
                         '{"config": {"classes": "ab"}}'):
            beside.write_text(settings)
            with pytest.raises(ModelError, match=r'config\.json: names no classes'):
                open_predictor(str(keras_file))
    finally:
        beside.unlink()


def test_classes_of_a_keras_file_are_not_guessed(tmp_path: Path) -> None:
    keras = pytest.importorskip('keras', reason='keras is not installed')
    from bisenet_ros.core.errors import ModelError
    image = keras.Input((32, 64, 3), batch_size=1)
    path = tmp_path / 'alone.keras'
    keras.Model(image, keras.layers.Conv2D(3, 1, strides=8)(image)).save(path)
    with pytest.raises(ModelError, match='nothing names its 3 classes; give --class-names, or --'):
        open_predictor(str(path))
    assert open_predictor(str(path), road=1).class_names == ('class 0', 'road', 'class 2')


def test_what_a_model_was_trained_on_is_told(
    keras_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    beside = keras_file.with_name('config.json')
    beside.write_text(json.dumps({'config': {
        'classes': ['rest', 'road'], 'train': [['synthetic:1', 1.0], ['synthetic:9', 1.0]]}}))
    model = Toy().save(tmp_path)
    contract = json.loads(model.with_suffix('.json').read_text())
    contract['provenance'] = {'datasets': ['synthetic:2']}
    model.with_suffix('.json').write_text(json.dumps(contract))
    try:
        assert evaluate.main(['--model', str(model), '--against', str(keras_file), '--merge',
                              'background=rest', '--on', 'synthetic:1', 'synthetic:2']) == 0
    finally:
        beside.unlink()
    said = capsys.readouterr().out
    assert f'note: {model.name} was trained on synthetic:2; its score there tells how' in said
    assert 'note: best.keras was trained on synthetic:1; ' in said
    assert said.count('was trained on') == 2


def test_what_the_runs_before_were_trained_on_is_told(
    keras_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / 'run'
    run.mkdir()
    (run / 'best.keras').write_bytes(keras_file.read_bytes())
    (run / 'config.json').write_text(json.dumps({
        'config': {'classes': ROAD, 'train': [['synthetic:9', 1.0]], 'init': 'runs/gone'},
        'trained_before': ['synthetic:1']}))
    assert evaluate.main(['--model', str(run / 'best.keras'), '--on', 'synthetic:1']) == 0
    assert 'note: best.keras was trained on synthetic:1; its' in capsys.readouterr().out


def test_frames_that_a_model_was_trained_on_are_told_under_another_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    from written_datasets import write_pair
    for number in range(4):
        write_pair(tmp_path / 'set', str(number), np.eye(40, 60, dtype=np.uint8))
    (tmp_path / 'half.txt').write_text('1\n3\n')
    whole, half = f'ids:{tmp_path}/set', f'ids:{tmp_path}/set,split={tmp_path}/half.txt'
    model = Toy().save(tmp_path, provenance={'datasets': [half, 'camvid:train', 'ids:gone', 7]})
    assert evaluate.main(['--model', str(model), '--on', whole, 'synthetic:1']) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith('note: ')]
    assert len(notes) == 1
    assert f"toy.tflite: {whole}: 2 of 4 frames (first '1') are in {half}, which is" in notes[0]


def test_keras_file_takes_no_device(keras_file: Path) -> None:
    from bisenet_ros.core.errors import ModelError
    for device in ('usb:0', 'cpu'):
        with pytest.raises(ModelError, match=(
                rf'best\.keras@{device}: found the device {device} behind a \.keras file')):
            open_predictor(f'{keras_file}@{device}')
    # --device is for others, without a word on this one.
    assert open_predictor(str(keras_file), 'usb').class_names == ROAD


def test_file_that_is_no_keras_model_is_refused(tmp_path: Path) -> None:
    from bisenet_ros.core.errors import ModelError
    pytest.importorskip('keras', reason='keras is not installed')
    path = tmp_path / 'text.keras'
    path.write_text('no')
    with pytest.raises(ModelError, match=r'text\.keras: found a damaged file .* a Keras model'):
        open_predictor(str(path))


def test_damaged_keras_file_is_refused_in_one_line(
    keras_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    whole = keras_file.read_bytes()
    with zipfile.ZipFile(keras_file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    weights = parts['model.weights.h5']
    flipped = bytearray(whole)
    flipped[whole.index(weights) + 100] ^= 255
    (tmp_path / 'flipped.keras').write_bytes(flipped)
    (tmp_path / 'cut.keras').write_bytes(whole[:len(whole) // 2])
    for name, changes in (
            ('nameless', {'config.json': None}),
            *((f'weights{at}', {'model.weights.h5': weights[:at] + b'\xff' * 64
                                + weights[at + 64:]}) for at in range(0, len(weights), 2048))):
        with zipfile.ZipFile(tmp_path / f'{name}.keras', 'w') as archive:
            for part, content in {**parts, **changes}.items():
                if content is not None:
                    archive.writestr(part, content)
    refused = set()
    for path in sorted(tmp_path.glob('*.keras')):
        if evaluate.main(['--model', str(path), '--on', 'synthetic:1']) == 1:
            error = capsys.readouterr().err
            assert f'{path}: found a damaged file (' in error and error.count('\n') == 1
            refused.add(path.stem)
    assert refused >= {'flipped', 'cut', 'nameless', 'weights0'}


def test_softmax_at_the_end_of_a_keras_file_is_known(keras_file: Path, tmp_path: Path) -> None:
    keras = pytest.importorskip('keras', reason='keras is not installed')
    from bisenet_ros.core.errors import ModelError
    plain = keras.models.load_model(keras_file)
    layers = keras.layers
    baked = keras.Model(plain.input, layers.Softmax()(plain.output))
    ends = {
        'layer': baked.output, 'activation': layers.Activation('softmax')(plain.output),
        'operation': keras.ops.softmax(plain.output),
        'resized': layers.UpSampling2D(8, interpolation='bilinear')(baked.output),
        'nested': baked(plain.input)}
    rgb = np.zeros((32, 64, 3), np.uint8)
    expected = open_predictor(str(keras_file))(rgb).confidence
    for name, end in ends.items():
        path = tmp_path / f'{name}.keras'
        keras.Model(plain.input, end).save(path)
        found = open_predictor(str(path))(rgb)
        np.testing.assert_array_equal(found.confidence, expected, err_msg=name)
    keras.Model(plain.input, layers.Activation('sigmoid')(plain.output)).save(path)
    with pytest.raises(ModelError, match='its output went through a sigmoid, expected logits or'):
        open_predictor(str(path))


def test_scores_that_are_no_numbers_stop_at_their_frame(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    keras = pytest.importorskip('keras', reason='keras is not installed')
    image = keras.Input((32, 64, 3), batch_size=1)
    layer = keras.layers.Conv2D(2, 1, strides=8)
    model = keras.Model(image, layer(image))
    layer.set_weights([np.full((1, 1, 3, 2), np.nan, np.float32), np.zeros(2, np.float32)])
    path = tmp_path / 'nan.keras'
    model.save(path)
    assert evaluate.main(['--model', str(path), '--on', 'synthetic:2']) == 1
    error = capsys.readouterr().err
    name = SyntheticDrive(2).name(0)
    assert f'synthetic:2: {name}: {path}: found 64 of 64 scores that are NaN' in error


@pytest.mark.parametrize(('texts', 'names'), [
    (['a/x.tflite', 'b/y.tflite'], ('x.tflite', 'y.tflite')),
    (['a/x.tflite', 'b/x.tflite'], ('a/x.tflite', 'b/x.tflite')),
    (['x.tflite', 'x.tflite@usb'], ('x.tflite on cpu', 'x.tflite on usb')),
    (['x.tflite', 'x.tflite'], ('x.tflite on cpu (1)', 'x.tflite on cpu (2)'))])
def test_models_of_a_report_have_different_names(texts: list[str], names: tuple[str, ...]) -> None:
    assert evaluate.labels(texts, 'cpu') == names


# -- the command -------------------------------------------------------------------------------


class Reader(HTMLParser):
    """Checks that elements close in order, and collects what a browser would fetch."""

    VOID = frozenset({'meta', 'img', 'br'})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.tags: list[str] = []
        self.text = ''

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or '' for key, value in attrs if key in ('src', 'href')]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope='module')
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp('report')
    first = Toy().save(folder, 'first')
    second = Toy(bias=(0, -60)).save(folder, 'second<b>')
    command = ['--model', str(first), '--against', str(second), '--on', 'synthetic:3',
               '--html', str(folder / 'report.html'), '--json', str(folder / 'report.json')]
    assert evaluate.main(command) == 0
    reader = Reader()
    page = (folder / 'report.html').read_text(encoding='utf-8')
    reader.feed(page)
    return {'page': page, 'reader': reader, 'command': command,
            'json': json.loads((folder / 'report.json').read_text())}


def test_page_is_well_formed_and_needs_nothing_else(written: dict[str, Any]) -> None:
    reader = written['reader']
    assert reader.open == []
    assert reader.sources and all(
        source.startswith('data:image/jpeg;base64,') for source in reader.sources)
    assert not {'script', 'link', 'iframe'} & set(reader.tags)
    assert '@import' not in written['page'] and 'url(' not in written['page']


def test_page_shows_the_pictures_it_promises(written: dict[str, Any]) -> None:
    import base64

    import cv2
    # Up to three worst frames of each model and three that differ, four panels each.
    frames = written['page'].count('<div class="panels">')
    assert 6 <= frames <= 9
    assert len(written['reader'].sources) == 4 * frames
    for source in written['reader'].sources[::7]:
        stored = np.frombuffer(base64.b64decode(source.split(',')[1]), np.uint8)
        assert cv2.imdecode(stored, cv2.IMREAD_COLOR).shape == (200, 400, 3)


def test_page_says_what_the_json_says(written: dict[str, Any]) -> None:
    text = written['reader'].text
    assert 'second<b>.tflite' in text  # escaped in the page, or it would be an element
    found = written['json']
    assert found['classes'] == ['background', 'road']
    for name in ('first.tflite', 'second<b>.tflite'):
        whole = found['sets']['synthetic:3']['models'][name]['all']
        assert f'{whole["classes"]["road"]["iou"]:.4f}' in text
        assert f'{whole["ece"]:.4f}' in text
        counts = np.array(whole['confusion'])
        assert whole['accuracy'] == pytest.approx(
            np.trace(counts[:, :2]) / counts.sum(), abs=1e-6)
        assert len(whole['reliability']) == 15
    [pair] = found['sets']['synthetic:3']['agreement']
    assert pair['iou_gap']['low'] is None and 'show it: no interval' in text
    assert 0 < pair['share'] < 1 and f'{pair["share"]:.3%}' in text


def test_lines_that_others_read_are_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    model = Toy().save(tmp_path)
    assert evaluate.main(['--model', str(model), '--on', 'synthetic:2']) == 0
    out = capsys.readouterr().out
    assert 'scored as background, road; the data has background, road, ground, movable' in out
    import re
    assert re.search(r'^synthetic:2 +2 frames   road IoU 0\.\d{4}   precision \d\.\d{4}   '
                     r'recall \d\.\d{4}$', out, re.M)
    assert re.search(r'mean IoU \d\.\d{4}   accuracy \d\.\d{4}   boundary F \d\.\d{4}   '
                     r'ECE \d\.\d{4}', out)


def test_page_names_the_file_that_ran_where_it_is_another() -> None:
    info = ModelInfo('a.tflite', 'TFLite', 'a' * 64, {'a.tflite': 'a' * 64})
    assert info.hashes == 'a' * 16
    twin = dataclasses.replace(info, ran={'a_edgetpu.tflite': 'b' * 64, 'a.tflite': 'a' * 64})
    assert twin.hashes == f'a_edgetpu.tflite {"b" * 16}, {"a" * 16}'


def test_same_frames_twice_give_the_same_json(written: dict[str, Any], tmp_path: Path) -> None:
    command = [*written['command'][:-4], '--json', str(tmp_path / 'again.json')]
    assert evaluate.main(command) == 0
    again = json.loads((tmp_path / 'again.json').read_text())
    assert again['sets'] == written['json']['sets']


@pytest.mark.parametrize(('changes', 'message'), [
    ({'--on': 'synthetic:none'}, 'data set: found'),
    ({'--taxonomy': 'nonsense'}, "taxonomy: found 'nonsense'"),
    ({'--merge': 'ground'}, '--merge: found'),
    ({'--model': 'absent.tflite'}, 'absent.tflite'),
])
def test_command_says_in_one_line_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, str], message: str,
) -> None:
    options = {'--model': str(Toy().save(tmp_path)), '--on': 'synthetic:1', **changes}
    assert evaluate.main([part for pair in options.items() for part in pair]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count('\n') == 1


def test_model_of_other_classes_is_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    names = ('background', 'gravel', 'grass')
    model = Toy(weights=((0, 0, 0), (1, 0, -1), (0, -1, 1)), bias=(3, -5, 0)).save(
        tmp_path, class_names=names)
    taxonomy, classes = tmp_path / 'yard.json', tmp_path / 'classes.json'
    taxonomy.write_text(json.dumps(names))
    classes.write_text(json.dumps({'road': 'gravel', 'ground': 'grass', '*': 'background'}))
    assert evaluate.main(['--model', str(model), '--taxonomy', str(taxonomy),
                          '--on', f'synthetic:2,classes={classes}']) == 0
    assert 'mean IoU 0.' in capsys.readouterr().out


def confusion(path: Path) -> list[Any]:
    [found] = json.loads(path.read_text())['sets'].values()
    return [model['all']['confusion'] for model in found['models'].values()]


def test_classes_count_as_what_run_and_contract_say_that_they_were_learnt_as(
    keras_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    learnt, run, scores = Learnt(TAXONOMIES['road'], (0, 1, 1, 0)), tmp_path / 'run', (
        tmp_path / 'a.json')
    run.mkdir()
    (run / 'best.keras').write_bytes(keras_file.read_bytes())
    (run / 'config.json').write_text(json.dumps({'config': {
        'classes': ROAD, 'merge': learnt.merge}}))
    model = Toy().save(tmp_path, provenance=learnt.told(ROAD))
    command = ['--model', str(run / 'best.keras'), '--against', str(model), '--on',
               'synthetic:1', '--json', str(scores)]
    assert evaluate.main(command) == 0
    assert ('scored as background, road; the data has background, road, ground, movable; ground '
            'counts as road, as best.keras and toy.tflite learnt\n') in capsys.readouterr().out
    found = confusion(scores)
    assert evaluate.main([*command, '--merge', 'road=ground']) == 0
    assert 'learnt' not in capsys.readouterr().out
    assert confusion(scores) == found
    assert evaluate.main([*command, '--merge', 'background=ground']) == 0
    assert confusion(scores) != found


def test_models_that_learnt_what_cannot_be_had_at_once_are_scored_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    both, road = (Toy().save(tmp_path, name, provenance=Learnt(
        TAXONOMIES['road'], merge).told(ROAD))
        for name, merge in (('both', (0, 1, 1, 0)), ('road', (0, 1, 0, 0))))
    assert evaluate.main(['--model', str(road), '--against', str(both),
                          '--on', 'synthetic:1']) == 0
    out = capsys.readouterr().out
    assert 'scored as background, road; the data has background, road, ground, movable\n' in out
    assert 'note: both.tflite learnt ground as road, which does not fit the other models' in out
    assert out.count('for its own score: --merge road=ground\n') == 1


def test_labels_are_read_into_what_the_models_learnt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    from written_datasets import write_pair
    labels = np.zeros((40, 60), np.uint8)
    labels[:, 30:] = 2
    write_pair(tmp_path / 'set', 'a', labels)
    yard, scores = Taxonomy('yard', ('background', 'grass', 'road')), tmp_path / 'a.json'
    file = tmp_path / 'yard.json'
    file.write_text(json.dumps(yard.classes))
    ours = Toy().save(tmp_path, 'ours', provenance=Learnt(
        TAXONOMIES['road'], (0, 1, 0, 0)).told(ROAD))
    theirs = Toy().save(tmp_path, 'theirs', provenance=Learnt(yard, (0, 0, 1)).told(ROAD))
    silent = Toy().save(tmp_path, 'silent')
    on = ['--on', f'ids:{tmp_path}/set', '--json', str(scores)]
    assert evaluate.main(['--model', str(silent), '--against', str(theirs), *on]) == 0
    assert ('note: labels are read into background, grass, road, as theirs.tflite learnt them'
            in capsys.readouterr().out)
    found = confusion(scores)
    assert evaluate.main(['--model', str(silent), '--against', str(theirs), *on,
                          '--taxonomy', str(file)]) == 0
    assert 'labels are read into' not in capsys.readouterr().out
    assert confusion(scores) == found and found[0][1][0] + found[0][1][1] == 40 * 30
    assert evaluate.main(['--model', str(ours), '--against', str(theirs), *on]) == 1
    said = capsys.readouterr().err
    assert said == (
        '--taxonomy: found none beside models that learnt different classes (ours.tflite: '
        'background, road, ground, movable; theirs.tflite: background, grass, road), expected the '
        'one that labels are to be read into; name it.\n')
    assert evaluate.main(['--model', str(ours), '--against', str(theirs), *on,
                          '--taxonomy', 'road']) == 0


@pytest.mark.parametrize('option', ['--html', '--json'])
def test_files_that_cannot_be_written_are_found_before_anything_is_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str,
) -> None:
    model = Toy().save(tmp_path)
    for path, reason in ((tmp_path, 'Is a directory'), (model / 'no' / 'x', 'Not a directory')):
        assert evaluate.main(
            ['--model', str(model), '--on', 'synthetic:1', option, str(path)]) == 1
        said = capsys.readouterr()
        assert said.out == ''
        assert f'{path}: cannot be written ({reason})' in said.err and said.err.count('\n') == 1


def test_reports_are_written_over_no_model_and_not_over_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    model = Toy().save(tmp_path)
    contract, other = model.with_suffix('.json'), tmp_path / 'other.json'
    before = contract.read_bytes(), model.read_bytes()
    for options, found in (
            (['--json', str(contract)], f'--json: found {str(contract)!r}, which is a file that'),
            (['--html', str(model)], f'--html: found {str(model)!r}, which is a file that'),
            (['--html', str(other), '--json', str(other)],
             f'--json: found {str(other)!r}, which is the file of --html as well')):
        assert evaluate.main(['--model', str(model), '--on', 'synthetic:1', *options]) == 1
        said = capsys.readouterr()
        assert found in said.err and said.err.count('\n') == 1 and said.out == ''
    assert (contract.read_bytes(), model.read_bytes()) == before and not other.exists()


def test_page_that_cannot_be_written_after_all_costs_no_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    html, scores = tmp_path / 'out' / 'a.html', tmp_path / 'a.json'

    def too_late(*args: Any) -> Any:
        html.mkdir()
        return evaluated(*args)

    evaluated = evaluate.evaluate
    monkeypatch.setattr(evaluate, 'evaluate', too_late)
    assert evaluate.main(['--model', str(Toy().save(tmp_path)), '--on', 'synthetic:1',
                          '--html', str(html), '--json', str(scores)]) == 1
    assert json.loads(scores.read_text())['sets']
    assert f'{html}: cannot be written' in capsys.readouterr().err


def test_check_leaves_a_file_as_it_is(tmp_path: Path) -> None:
    old, new = tmp_path / 'old', tmp_path / 'folder' / 'new'
    old.write_text('text')
    for path in (old, new):
        check_writable(path)
    assert old.read_text() == 'text'
    assert new.parent.is_dir() and not list(new.parent.iterdir())


def test_what_is_odd_about_the_labels_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    for folder, pixels in (('images', np.zeros((32, 64, 3), np.uint8)),
                           ('labels', np.repeat(np.uint8([[0, 255]]), 32, 1).repeat(32, 0))):
        (tmp_path / 'set' / folder).mkdir(parents=True)
        assert cv2.imwrite(str(tmp_path / 'set' / folder / 'a.png'), pixels)
    model = Toy().save(tmp_path)

    assert evaluate.main(['--model', str(model), '--on', f'ids:{tmp_path / "set"}',
                          '--device', 'cpu']) == 0

    notes = [line for line in capsys.readouterr().out.splitlines() if ': note: ' in line]
    assert len(notes) == 1
    assert 'classes=' in notes[0]


def test_interrupted_command_ends_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, 'score', interrupted)
    assert evaluate.main(['--model', str(Toy().save(tmp_path)), '--on', 'synthetic:1',
                          '--json', str(tmp_path / 'a.json')]) == 130
    assert capsys.readouterr().err == 'interrupted: not all is scored and written.\n'
    assert not (tmp_path / 'a.json').exists()


def test_third_party_model_is_scored_on_road_alone(
    shared_data: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    model = shared_data / 'coral' / 'deeplab_mobilenet_edgetpu_slim_cityscapes_quant.tflite'
    if not model.is_file():
        pytest.skip(f'no {model.name} in ../shared/data/coral')
    classes = Path(__file__).resolve().parents[2] / 'config' / 'cityscapes19.txt'
    assert evaluate.main(['--model', str(model), '--class-names', str(classes),
                          '--on', 'synthetic:1']) == 0
    out = capsys.readouterr().out
    assert 'scored as background, road' in out and 'no confidence' in out


def test_options_without_effect_are_refused(
    tmp_path: Path, keras_file: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    tflite, float_model = str(Toy().save(tmp_path)), str(keras_file)
    for options, message in (
            (['--model', f'{tflite}@cpu', '--against', float_model, '--device', 'cpu'],
             '--device: found cpu, expected none'),
            (['--model', tflite, '--road', '0'], '--road: found 0, expected none'),
            (['--model', float_model, '--road', '0', '--class-names', 'background', 'road'],
             '--road: found 0, expected none')):
        assert evaluate.main([*options, '--on', 'synthetic:1']) == 1
        said = capsys.readouterr()
        assert message in said.err and said.err.count('\n') == 1 and said.out == ''
    assert evaluate.main(['--model', tflite, '--against', float_model, '--on', 'synthetic:1',
                          '--device', 'cpu', '--road', '1']) == 0


def test_class_names_are_for_the_models_without(
    tmp_path: Path, keras_file: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    ours, other = Toy().save(tmp_path, 'ours'), Toy().save(tmp_path, 'other')
    other.with_suffix('.json').unlink()
    run = tmp_path / 'run'
    run.mkdir()
    (run / 'best.keras').write_bytes(keras_file.read_bytes())
    (run / 'config.json').write_text(json.dumps({'config': {'classes': ROAD}}))
    command = ['--on', 'synthetic:1', '--class-names', 'sky', 'road', '--merge', 'background=sky']
    assert evaluate.main(['--model', str(ours), '--against', str(other), str(run / 'best.keras'),
                          *command]) == 0
    assert 'scored as background, road' in capsys.readouterr().out
    assert evaluate.main(['--model', str(ours), *command]) == 1
    assert 'class_names is for models without a contract' in capsys.readouterr().err


def test_data_without_a_labelled_pixel_is_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    from written_datasets import write_pair
    write_pair(tmp_path / 'void', 'a', np.full((40, 60), 255, np.uint8))
    write_pair(tmp_path / 'rest', 'a', np.zeros((40, 60), np.uint8))
    model, html = Toy().save(tmp_path), tmp_path / 'a.html'
    void, rest = (f'ids:{tmp_path / name}' for name in ('void', 'rest'))
    assert evaluate.main(['--model', str(model), '--on', void, rest, '--html', str(html)]) == 0
    out = capsys.readouterr().out
    assert f'note: no labelled pixel in {void}, so nothing' in out
    assert f'in {rest}, so nothing' not in out
    assert html.read_text().count('No labelled pixel in it') == 1
    first, second = html.read_text().split('<h4>Confusion</h4>')[1:]
    assert '<th>background</th><td>-</td><td>-</td></tr>' in first
    assert '<th>background</th><td style' in second
    assert '<th>road</th><td>-</td><td>-</td></tr>' in second


def test_what_was_said_beside_the_scores_is_in_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    from written_datasets import write_pair
    folder = tmp_path / 'a<b>&c'
    write_pair(folder, 'a', np.repeat(np.uint8([[0, 255]]), 32, 1).repeat(32, 0))
    write_pair(tmp_path / 'void', 'a', np.full((40, 60), 255, np.uint8))
    odd, void = f'ids:{folder}', f'ids:{tmp_path}/void'
    model = Toy().save(tmp_path, provenance={
        'datasets': [odd], **Learnt(TAXONOMIES['road'], (0, 1, 1, 0)).told(ROAD)})
    html, scores = tmp_path / 'a.html', tmp_path / 'a.json'
    assert evaluate.main(['--model', str(model), '--on', odd, void, '--html', str(html),
                          '--json', str(scores)]) == 0
    printed = capsys.readouterr().out.splitlines()
    notes = json.loads(scores.read_text())['notes']
    assert notes == [line for line in printed if 'note: ' in line or 'scored as ' in line]
    begins = (f'{odd}: note: ', f'note: toy.tflite was trained on {odd}; ',
              'scored as background, road; ', f'note: no labelled pixel in {void}, so')
    assert len(notes) == len(begins) and all(map(str.startswith, notes, begins))
    page, reader = html.read_text(), Reader()
    header, _, rest = page.partition('<h2>Summary</h2>')
    reader.feed(header)
    assert all(note in reader.text for note in notes)
    assert 'a&lt;b&gt;&amp;c' in header and '<b>' not in page and rest


def test_frames_that_were_left_out_are_in_the_report(tmp_path: Path) -> None:
    from written_datasets import write_pair
    for number in range(3):
        write_pair(tmp_path / 'set', f'a/{number}', np.eye(40, 60, dtype=np.uint8))
    bad = tmp_path / 'set' / 'images' / 'a' / '1.jpg'
    bad.write_bytes(b'no')
    html, scores = tmp_path / 'a.html', tmp_path / 'a.json'
    assert evaluate.main(['--model', str(Toy().save(tmp_path)), '--on', f'ids:{tmp_path}/set',
                          '--on-bad', 'skip', '--html', str(html), '--json', str(scores)]) == 0
    [found] = json.loads(scores.read_text())['sets'].values()
    assert found['left_out']['frames'] == 1
    assert str(bad) in found['left_out']['why'][0]
    assert 'they cannot be read: 1 frame<' in html.read_text() and str(bad) in html.read_text()


def test_a_shipped_model_is_scored_by_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    scores = tmp_path / 'a.json'
    assert evaluate.main(['--model', 'road_128x256', '--on', 'synthetic:1',
                          '--json', str(scores)]) == 0
    [(name, told)] = json.loads(scores.read_text())['models'].items()
    assert name == 'road_128x256.tflite'
    assert told['sha256'] == file_sha256(SHIPPED_MODEL.with_name(name))
    assert told['ran'] == {name: told['sha256']}

    monkeypatch.setenv('HOME', str(tmp_path))
    Toy().save(tmp_path)
    assert evaluate.main(['--model', '~/toy.tflite', '--on', 'synthetic:1',
                          '--json', str(tmp_path / 'toy.json')]) == 1
    assert 'a file that this command reads' in capsys.readouterr().err
    assert evaluate.main(['--model', '~/toy.tflite', '--on', 'synthetic:1']) == 0


def test_what_a_segmenter_warns_of_is_in_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    events = [Event(Level.OK, 'all is well.'), Event(Level.WARN, 'a class <x> has no name.')]
    monkeypatch.setattr(Segmenter, 'take_events', lambda segmenter: events)
    html, scores = tmp_path / 'a.html', tmp_path / 'a.json'
    assert evaluate.main(['--model', str(Toy().save(tmp_path)), '--on', 'synthetic:2',
                          '--html', str(html), '--json', str(scores)]) == 0
    assert capsys.readouterr().err == 'toy.tflite: a class <x> has no name.\n'
    [told] = json.loads(scores.read_text())['models'].values()
    assert told['notes'] == ['a class <x> has no name.']
    assert 'toy.tflite: a class &lt;x&gt; has no name.' in html.read_text()


def test_names_that_are_no_utf_8_cost_no_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    # Bytes of a file name that are no UTF-8 are lone surrogates in Python.
    from written_datasets import write_pair
    for name in ('strasse/1', 'weg/1'):
        write_pair(tmp_path / 'set', name, np.eye(40, 60, dtype=np.uint8))
    for path in sorted((tmp_path / 'set').rglob('strasse')):
        path.rename(path.with_name('stra\udcdfe'))
    model, html, scores = Toy().save(tmp_path), tmp_path / 'a.html', tmp_path / 'a.json'
    html.write_text('old')
    (tmp_path / 'link.html').symlink_to(html)
    assert evaluate.main(['--model', str(model), '--on', f'ids:{tmp_path}/set',
                          '--html', str(tmp_path / 'link.html'), '--json', str(scores)]) == 0
    assert r'stra\udcdfe' in html.read_text(encoding='utf-8')
    assert r'stra\udcdfe ' in capsys.readouterr().out
    assert (tmp_path / 'link.html').is_symlink()
    assert json.loads(scores.read_text())['sets']
    assert not list(tmp_path.glob('.*'))  # nothing temporary is left


def test_a_page_that_could_not_be_written_whole_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    scores = tmp_path / 'a.json'
    scores.write_text('old')

    def full(path: Path, content: bytes) -> None:
        path.touch()
        raise OSError(28, 'No space left on device')

    command = ['--model', str(Toy().save(tmp_path)), '--on', 'synthetic:1', '--json', str(scores)]
    monkeypatch.setattr(Path, 'write_bytes', full)
    assert evaluate.main(command) == 1
    assert 'a.json: cannot be written (No space left on device)' in capsys.readouterr().err
    assert scores.read_text() == 'old' and not list(tmp_path.glob('.*'))


def test_command_of_a_report_can_be_pasted(tmp_path: Path) -> None:
    (tmp_path / 'my models').mkdir()
    model, scores = Toy().save(tmp_path / 'my models'), tmp_path / 'a.json'
    command = ['--model', str(model), '--on', 'synthetic:1', '--json', str(scores)]
    assert evaluate.main(command) == 0
    assert shlex.split(json.loads(scores.read_text())['command']) == [
        'python', '-m', 'training.evaluate', *command]


@pytest.mark.skipif(not Path('/dev/fd').is_dir(), reason='no /dev/fd: a pipe has no name here')
def test_scores_go_into_pipes_too(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    try:
        assert evaluate.main(['--model', str(Toy().save(tmp_path)), '--on', 'synthetic:1',
                              '--frames', '0', '--json', f'/dev/fd/{writing}']) == 0
    finally:
        os.close(writing)
    with os.fdopen(reading) as pipe:
        assert json.load(pipe)['sets']
