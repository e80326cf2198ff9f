"""Frames that nobody labelled get the labels a finished run is sure of, and nothing else."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

keras = pytest.importorskip('keras', reason='keras is not installed (pip install .[train])')

from tiny_training import TINY, eager_functions, tiny_config  # noqa: E402

from training import datasets, pseudo_labels  # noqa: E402
from training.datasets import GROUND, MOVABLE, ROAD, VOID, SyntheticDrive, open_dataset  # noqa: E402
from training.finished_run import read_run  # noqa: E402
from training.metrics import labels_from_logits, probabilities_from_logits  # noqa: E402
from training.pseudo_labels import (  # noqa: E402
    PseudoLabelError, Teacher, collect, decided, ended_as_by_ctrl_c, main,
    shown_classes,
)
from training.train import train  # noqa: E402

pytestmark = pytest.mark.training

Pixels = npt.NDArray[np.uint8]

#: The road taxonomy's, of two deployed classes.
MERGE = np.array([0, 1, 0, 0])


@pytest.fixture(scope='module')
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished run of a tiny network."""
    folder = tmp_path_factory.mktemp('runs') / 'tiny'
    policy = keras.config.dtype_policy()
    with eager_functions():
        train(tiny_config(), None, folder, [])
        yield folder
    keras.config.set_dtype_policy(policy)


@pytest.fixture(scope='module')
def teacher(run: Path) -> Teacher:
    return Teacher(run, sure=0.0)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three photos, one in a folder of its own, and a file that is none."""
    folder = tmp_path / 'photos'
    (folder / 'north').mkdir(parents=True)
    drive = SyntheticDrive(3, (80, 60))
    for index, name in enumerate(('lab_1.png', 'lab_2.jpg', 'north/a.1.png')):
        rgb, _ = drive.read(index)
        assert cv2.imwrite(str(folder / name), rgb[..., ::-1])
    (folder / 'broken.png').write_bytes(b'no picture')
    (folder / 'notes.txt').write_text('of no interest')
    return folder


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / 'clip.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'MJPG'), 10, (80, 48))
    if not writer.isOpened():
        pytest.skip('this OpenCV cannot write MJPG in AVI')
    for value in range(7):
        writer.write(np.full((48, 80, 3), 30 * value, np.uint8))
    writer.release()
    return path


# -- deciding ----------------------------------------------------------------------------------


def test_the_deployed_head_decides_and_the_boosters_say_what_of_it() -> None:
    #                     surely road; surely background; not sure
    deployed = np.array([[[.05, .95], [.9, .1], [.79, .21]]], np.float32)
    #                  the booster would say movable; ground; ground
    fine = np.array([[[.1, .2, .1, .6], [.1, .5, .3, .1], [.1, .1, .7, .1]]], np.float32)
    assert decided(deployed, fine, MERGE, 0.8).tolist() == [[ROAD, GROUND, VOID]]
    assert decided(deployed, fine, MERGE, 0.0).tolist() == [[ROAD, GROUND, GROUND]]
    # Boosters that do not tell: the first class of each.
    assert decided(deployed, deployed[..., MERGE], MERGE, 0.0).tolist() == [[ROAD, 0, 0]]


def test_classes_out_of_the_question_give_way_to_those_they_are_merged_with() -> None:
    deployed = np.array([[[.1, .9], [.9, .1]]], np.float32)
    #                never ground nor movable, whatever the booster says
    fine = np.array([[[.1, .2, -1, -1], [.1, .5, -1, -1]]], np.float32)
    assert decided(deployed, fine, MERGE, 0.8).tolist() == [[ROAD, 0]]
    # Nothing is merged with road.
    fine[..., ROAD] = -1
    assert decided(deployed, fine, MERGE, 0.8).tolist() == [[VOID, 0]]


def test_unmerged_classes_are_their_own() -> None:
    deployed = np.array([[[.1, .1, .8], [.6, .3, .1]]], np.float32)
    assert decided(deployed, deployed, np.arange(3), 0.7).tolist() == [[2, VOID]]


def test_probabilities_add_up_and_agree_with_the_labels() -> None:
    logits = np.random.default_rng(0).normal(0, 30, (4, 8, 3)).astype(np.float32)
    found = probabilities_from_logits(logits, (33, 50))
    assert found.shape == (33, 50, 3) and found.dtype == np.float32
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)
    np.testing.assert_array_equal(found.argmax(-1), labels_from_logits(logits, (33, 50)))


def test_a_mirrored_frame_gets_mirrored_labels(teacher: Teacher) -> None:
    rgb, _ = SyntheticDrive(1, (96, 64)).read(0)
    labels = teacher(rgb)
    assert labels.shape == rgb.shape[:2] and len(np.unique(labels)) > 1
    mirrored = teacher(np.ascontiguousarray(rgb[:, ::-1]))[:, ::-1]
    assert (mirrored == labels).mean() > 0.999
    # A network that has hardly learned does not do that by itself.
    logits = teacher._networks[0].predict_on_batch(
        np.stack([cv2.resize(each, (32, 32)) for each in (rgb, rgb[:, ::-1])]) / np.float32(255))
    plain, other = np.array(logits[0])
    assert np.abs(plain - other[:, ::-1]).max() > 1e-3


def test_the_best_epoch_s_network_looks_at_two_sizes(run: Path, tmp_path: Path) -> None:
    copied = tmp_path / 'run'
    shutil.copytree(run, copied)
    best = keras.models.load_model(copied / 'best.keras', compile=False)
    kernel, bias = best.get_layer('head_logits').get_weights()
    best.get_layer('head_logits').set_weights([0 * kernel, np.array([-9, 9], bias.dtype)])
    best.save(copied / 'best.keras')
    teacher = Teacher(copied)
    assert [each.input_shape[1:3] for each in teacher._networks] == [(32, 32), (64, 64)]
    assert (teacher(np.zeros((50, 70, 3), np.uint8)) == ROAD).all()


def test_classes_that_no_head_tells_apart_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture,
) -> None:
    policy = keras.config.dtype_policy()
    plain = dataclasses.replace(TINY, booster_classes=0)
    with eager_functions():
        train(tiny_config(architecture=plain), None, tmp_path / 'run', [])
        teacher = Teacher(tmp_path / 'run', sure=0.0)
        labels = teacher(SyntheticDrive(1, (96, 64)).read(0)[0])
    keras.config.set_dtype_policy(policy)
    assert set(np.unique(labels)) <= {0, ROAD}
    (note,) = teacher.notes()
    assert note.startswith('nothing tells background, ground, movable apart in this run')
    assert 'all are written as background' in note


def of_classes(*ids: int) -> Callable[..., SyntheticDrive]:
    """Return what opens data sets of which each frame shows one of these classes."""
    class Frames(SyntheticDrive):
        def read(self, index: int) -> tuple[Pixels, Pixels]:
            rgb, labels = super().read(index)
            return rgb, np.full_like(labels, ids[index % len(ids)])

    return lambda spec, *_: Frames(int(spec.partition(':')[2]), (32, 32))


def test_classes_that_no_training_set_shows_are_not_written(
    run: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    teacher = Teacher(run, sure=0.0)
    rgb, _ = SyntheticDrive(1, (96, 64)).read(0)
    before = teacher(rgb)
    assert {GROUND, MOVABLE} & set(np.unique(before))
    monkeypatch.setattr(datasets, 'open_dataset', of_classes(0, ROAD, VOID))
    teacher.look_at_training_sets(None)
    after = teacher(rgb)
    np.testing.assert_array_equal(after, np.where(before == ROAD, ROAD, 0))
    (note,) = teacher.notes()
    assert note.startswith('no training set of this run shows ground, movable (up to 400 frames')

    monkeypatch.setattr(datasets, 'open_dataset', of_classes(0))
    teacher.look_at_training_sets(None)
    np.testing.assert_array_equal(teacher(rgb), np.where(before == ROAD, VOID, 0))


def test_training_sets_are_looked_at_in_turns_and_no_longer_than_needed(
    run: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = []

    class Frames:
        def __init__(self, length: int, *ids: int) -> None:
            self._length, self._ids = length, ids

        def __len__(self) -> int:
            return self._length

        def read(self, index: int) -> tuple[Pixels, Pixels]:
            read.append((self._length, index))
            return np.zeros((2, 2, 3), np.uint8), np.array([self._ids], np.uint8)

    def look(*sets: Frames) -> set[int]:
        read.clear()
        opened = {f'set:{number}': each for number, each in enumerate(sets)}
        monkeypatch.setattr(datasets, 'open_dataset', lambda spec, *_: opened[spec])
        return shown_classes(dataclasses.replace(read_run(run), train_sets=tuple(opened)), None)

    assert look(Frames(1000, 0, 1, VOID), Frames(3, 3), Frames(1, 2)) == {0, 1, 2, 3}
    assert read == [(1000, 0), (3, 0), (1, 0)]
    assert look(Frames(1000, 0, 1), Frames(3, VOID)) == {0, 1}
    assert len(read) == 403 and (1000, 999) in read


def test_training_sets_that_are_gone_are_told_of(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture,
) -> None:
    moved = tmp_path / 'run'
    shutil.copytree(run, moved)
    described = json.loads((moved / 'config.json').read_text())
    described['config']['train'] = [['labelme:gone', 1.0]]
    (moved / 'config.json').write_text(json.dumps(described))
    assert main(['--run', str(moved), '--images', str(photos), '--sure', '0',
                 '--output', str(tmp_path / 'more')]) == 0
    said = capsys.readouterr().out
    assert 'note: what the training sets of this run show could not be looked at (gone: ' in said


def test_surer_teachers_label_less(teacher: Teacher, monkeypatch: pytest.MonkeyPatch) -> None:
    rgb, _ = SyntheticDrive(1, (96, 64)).read(0)
    everything = teacher(rgb)
    assert set(np.unique(everything)) <= {0, ROAD, GROUND, MOVABLE}
    surest = teacher._probabilities(rgb)[0].max(-1)
    monkeypatch.setattr(teacher, '_sure', float(np.median(surest)))
    labels = teacher(rgb)
    kept = labels != VOID
    assert 0.4 < kept.mean() < 0.6
    np.testing.assert_array_equal(labels[kept], everything[kept])


# -- collecting --------------------------------------------------------------------------------


def test_images_are_copied_as_they_are_and_videos_thinned(
    photos: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture,
) -> None:
    copies = collect([photos, video], 3, tmp_path / 'images')
    names = [str(path.relative_to(tmp_path / 'images')) for path in copies]
    assert names == ['photos/lab/lab_1.png', 'photos/lab/lab_2.jpg', 'photos/north/a.1.png',
                     'clip/000000.jpg', 'clip/000003.jpg', 'clip/000006.jpg']
    assert copies[1].read_bytes() == (photos / 'lab_2.jpg').read_bytes()
    shades = [round(float(cv2.imread(str(path)).mean())) for path in copies[3:]]
    assert shades == pytest.approx([0, 90, 180], abs=3)
    # The user's own file is named, not a copy.
    assert capsys.readouterr().err == (
        f'left out: {photos}/broken.png: not a readable image; replace it or leave it out.\n')


def test_places_without_frames_are_refused(photos: Path, tmp_path: Path) -> None:
    empty = tmp_path / 'empty'
    empty.mkdir()
    with pytest.raises(PseudoLabelError, match=r'empty: holds no images \(\.jpg, .*name a folder'):
        collect([empty], 1, tmp_path / 'one')
    with pytest.raises(PseudoLabelError, match="found 'photos' twice, expected places of differe"):
        collect([photos, photos], 1, tmp_path / 'two')
    (photos / 'lab_1.jpg').write_bytes((photos / 'lab_2.jpg').read_bytes())
    with pytest.raises(PseudoLabelError, match=(
            r'found lab_1\.jpg and lab_1\.png, expected one image of that name in a drive')):
        collect([photos], 1, tmp_path / 'three')
    (photos / 'lab_1.jpg').unlink()
    (photos / 'lab').mkdir()
    (photos / 'lab' / 'lab_1.png').write_bytes((photos / 'lab_1.png').read_bytes())
    with pytest.raises(PseudoLabelError, match=r'found lab/lab_1\.png and lab_1\.png, expected'):
        collect([photos], 1, tmp_path / 'four')
    # OpenCV would play it as a video of one frame, and forget which way is up.
    with pytest.raises(PseudoLabelError, match=r'lab_1\.png: is an image, expected a folder of'):
        collect([photos / 'lab_1.png'], 1, tmp_path / 'five')


def test_places_keep_their_own_names(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / 'monday').symlink_to(photos)
    (tmp_path / '.tuesday').symlink_to(photos)
    monkeypatch.chdir(photos)
    places = [tmp_path / 'monday', tmp_path / '.tuesday', Path()]
    copies = collect(places, 1, tmp_path / 'images')
    assert sorted(path.name for path in (tmp_path / 'images').iterdir()) == [
        'monday', 'photos', 'tuesday']
    assert len(copies) == 9


# -- the command -------------------------------------------------------------------------------


def test_the_folder_is_a_data_set(
    run: Path, photos: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture,
) -> None:
    output = tmp_path / 'more'
    arguments = ['--run', str(run), '--data', str(tmp_path), '--images', 'photos', 'clip.avi',
                 '--every', '3', '--sure', '0.5', '--output', str(output)]
    assert main(arguments) == 0
    told = capsys.readouterr()
    assert 'broken.png: not a readable image' in told.err
    assert told.out.startswith('6 frames, ') and f'ids:{output}=0.1' in told.out
    assert 'note:' not in told.out  # the boosters tell the merged classes apart
    opened = open_dataset(f'ids:{output}', None)
    teacher = Teacher(run, 0.5)
    assert {opened.sequence(index) for index in range(len(opened))} == {
        'photos/lab', 'photos/north', 'clip'}
    for index in range(len(opened)):
        rgb, ids = opened.read(index)
        np.testing.assert_array_equal(ids, teacher(rgb))
    origin = json.loads((output / 'origin.json').read_text())
    assert origin['run'] == str(run) and origin['sure'] == 0.5
    assert origin['classes'] == ['background', 'road', 'ground', 'movable']
    # What is there is not touched.
    assert main(arguments) == 1
    assert 'more: found that it is there, expected a new folder' in capsys.readouterr().err


@pytest.mark.parametrize(('changed', 'message'), [
    ({'--run': 'nowhere'}, 'config.json: missing; expected a run folder'),
    ({'--images': 'nowhere'}, 'nowhere'),
    ({'--images': 'photos/notes.txt'}, 'notes.txt: not a video that OpenCV can decode'),
])
def test_what_is_missing_is_one_line(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture,
    changed: dict[str, str], message: str,
) -> None:
    asked = {'--run': str(run), '--data': str(tmp_path), '--images': 'photos',
             '--output': str(tmp_path / 'more'), **changed}
    assert main([word for pair in asked.items() for word in pair]) == 1
    told = capsys.readouterr().err.strip()
    assert message in told and '\n' not in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ['photos']


def test_a_folder_of_no_pictures_at_all_is_refused(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture,
) -> None:
    for name in ('lab_1.png', 'lab_2.jpg', 'north/a.1.png'):
        (photos / name).write_bytes(b'no picture')
    assert main(['--run', str(run), '--images', str(photos),
                 '--output', str(tmp_path / 'more')]) == 1
    assert 'photos: none of its images (4) can be read; name another' in capsys.readouterr().err
    assert not (tmp_path / 'more').exists()


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_that_end_it_leave_nothing(
    run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture, number: signal.Signals,
) -> None:
    monkeypatch.setattr(
        pseudo_labels.Teacher, '__call__', lambda *_: signal.raise_signal(number))
    # What Python does by default would end the tests.
    before = [signal.signal(each, lambda number, _: pytest.fail(f'signal {number} is not taken'))
              for each in (signal.SIGTERM, signal.SIGHUP)]
    try:
        assert main(['--run', str(run), '--images', str(photos),
                     '--output', str(tmp_path / 'more')]) == 130
    finally:
        for each, handler in zip((signal.SIGTERM, signal.SIGHUP), before, strict=True):
            signal.signal(each, handler)
    assert 'interrupted; nothing was written.' in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ['photos']


def test_under_nohup_a_closed_terminal_ends_nothing() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ended_as_by_ctrl_c():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(('option', 'value'), [
    ('--sure', '1'), ('--sure', '-0.1'), ('--sure', 'much'), ('--sure', 'nan'),
    ('--every', '0'), ('--every', 'few'), ('--every', '1.5')])
def test_odd_numbers_are_refused(option: str, value: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(['--run', 'r', '--images', 'i', '--output', 'o', f'{option}={value}'])
    assert f'{option}: found {value!r}, expected a' in capsys.readouterr().err
