"""The checker says what is wrong with a data set, and where."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from written_datasets import (
    Pixels, write_colours, write_ids, write_image, write_json, write_pair, write_split,
)

from training.datasets import TAXONOMIES, VOID, DatasetError, open_dataset
from training.datasets.__main__ import main
from training.datasets.check import CheckReport, check, leaks, usual_marks
from training.datasets.guess import guess
from training.datasets.opening import open_frames
from training.datasets.progress import Progress
from training.datasets.sheet import class_colours, contact_sheet, save, tile
from training.datasets.taxonomy import Taxonomy
from training.datasets.twins import duplicates, fingerprint, near_twins

ROAD = TAXONOMIES['road']


def report_of(root: Path, spec: str = 'ids:set', marks: tuple[str, ...] = ()) -> CheckReport:
    return check(open_frames(spec, root, ROAD, 'skip'), spec, ROAD, marks)


def scenery(seed: int, hw: tuple[int, int] = (48, 64)) -> Pixels:
    """Return a picture unlike any of another seed."""
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return cv2.resize(coarse, hw[::-1], interpolation=cv2.INTER_CUBIC)


def write_scene(root: Path, stem: str, rgb: Pixels, ids: int | Pixels = 1) -> None:
    labels = np.full(rgb.shape[:2], ids, np.uint8) if isinstance(ids, int) else ids
    write_ids(root / 'images' / f'{stem}.png', rgb[..., ::-1])
    write_ids(root / 'labels' / f'{stem}.png', labels)


# -- one data set --------------------------------------------------------------------------------


def test_shares_and_frames_of_each_class(tmp_path: Path) -> None:
    write_pair(tmp_path / 'camvid', 'x_a', [[3, 3], [4, 11]])
    write_pair(tmp_path / 'camvid', 'y_b', [[3, 0, 0, 0]])
    write_split(tmp_path / 'camvid', 'train', ['x_a', 'y_b'])
    report = report_of(tmp_path, 'camvid:train')
    np.testing.assert_allclose(report.shares, [3 / 8, 3 / 8, 1 / 8, 0, 1 / 8])
    assert report.present == (1, 2, 1, 0, 1)
    assert report.sizes == {(2, 2): 1, (4, 1): 1}
    assert report.drives == {'x': 1, 'y': 1}
    text = str(report)
    assert 'camvid:train: 2 frames of 2 drives read, 0 unusable' in text
    assert 'size 2x2 (1), 4x1 (1)' in text
    assert '  road               37.5%               2\n' in text
    assert 'note: no frame shows movable' in text


def test_faults_are_named_and_counted_by_kind(tmp_path: Path) -> None:
    root = tmp_path / 'camvid'
    stems = ['good', 'unknown', 'unknown_too', 'size', 'cut', 'gone']
    for stem in stems:
        write_pair(root, stem, [[3, 3]])
    write_pair(root, 'unknown', [[99, 99, 98]])
    write_pair(root, 'unknown_too', [[99, 3]])
    write_pair(root, 'size', [[3, 3]], image_hw=(2, 2))
    (root / 'images' / 'cut.jpg').write_bytes(b'')
    (root / 'labels' / 'gone.png').unlink()
    write_split(root, 'train', stems)
    report = report_of(tmp_path, 'camvid:train')
    assert report.frames == 1
    assert report.kinds == {
        'missing': 1, 'unreadable': 1, 'with image and labels of different sizes': 1,
        'with unknown ids, colours or names': 2}
    assert {name: (each.frames, each.count, each.first)
            for name, each in report.unknown.items()} == {
        'id 98': (1, 1, 'unknown'), 'id 99': (2, 3, 'unknown')}
    text = str(report)
    for part in ('5 unusable', 'gone.png: listed, but missing', 'cut.jpg: not a readable image',
                 '  2 with unknown ids', 'id 99: 3 times in 2 frames, first in unknown'):
        assert part in text


def test_unknown_names_come_with_a_class_map_to_fill_in(tmp_path: Path) -> None:
    write_image(tmp_path / 'set' / 'a.jpg', (2, 2))
    write_json(tmp_path / 'set' / 'a.json', {'shapes': [
        {'label': label, 'shape_type': 'rectangle', 'points': [[0, 0], [1, 1]]}
        for label in ('mud', 'road', 'ice')]})
    assert 'classes=FILE may say: {"mud": "?", "ice": "?"}' in str(
        report_of(tmp_path, 'labelme:set'))


def test_a_class_map_says_what_it_names_in_vain(tmp_path: Path) -> None:
    """"Parkign" would else be background for good, by the "*" that was meant for the rest."""
    shapes = [
        {'label': label, 'shape_type': kind, 'points': [[0, 0], [1, 1]]}
        for label, kind in (('road', 'rectangle'), ('parking', 'rectangle'), ('kerb', 'line'))]
    write_image(tmp_path / 'set' / 'a.jpg', (2, 2))
    write_json(tmp_path / 'set' / 'a.json', {'shapes': shapes})
    write_json(tmp_path / 'map.json', {'road': 'road', 'parkign': 'road', 'kerb': 'void',
                                       '*': 'background'})
    said = "note: classes=FILE names 'parkign', which nothing here is called"
    assert said in str(report_of(tmp_path, 'labelme:set,classes=map.json'))
    write_colours(tmp_path / 'masks' / 'a.png', [[(1, 2, 3), (4, 5, 6)]])
    write_image(tmp_path / 'masks' / 'a.jpg', (1, 2))
    write_json(tmp_path / 'palette.json', {'1,2,3': 'road', '4,5,6': 'parking', '7,7,7': 'kerb'})
    assert said in str(
        report_of(tmp_path, 'masks:masks,palette=palette.json,classes=map.json'))
    write_json(tmp_path / 'coco.json', {
        'images': [{'id': 1, 'file_name': 'a.jpg'}],
        'categories': [{'id': 1, 'name': 'road'}, {'id': 2, 'name': 'kerb'}],
        'annotations': [{'image_id': 1, 'category_id': 1, 'segmentation': [[0, 0, 2, 0, 2, 2]]}]})
    assert said in str(report_of(tmp_path, 'coco:coco.json,images=set,classes=map.json'))
    write_pair(tmp_path / 'camvid', 'a', [[3]])
    write_split(tmp_path / 'camvid', 'train', ['a'])
    write_json(tmp_path / 'map.json', {'parkign': 'road', 'road': 'road'})
    assert said in str(report_of(tmp_path, 'camvid:train,classes=map.json'))


def test_long_lists_of_faults_are_cut(tmp_path: Path) -> None:
    stems = [f'a_{n:02d}' for n in range(15)]
    for stem in stems:
        write_pair(tmp_path / 'camvid', stem, [[77]])
    write_split(tmp_path / 'camvid', 'val', stems)
    report = report_of(tmp_path, 'camvid:val')
    assert str(report).count('fault:') == 10
    assert '... and 5 more (--all lists them)' in str(report)
    assert report.text(shown=None).count('fault:') == 15
    assert '... and' not in report.text(shown=None)


def test_unknown_ids_come_with_a_class_map_to_fill_in(tmp_path: Path) -> None:
    write_pair(tmp_path / 'set', 'a', [[*range(20), 255]])
    unknown = {str(number): '?' for number in range(4, 20)}
    full = {'0': 'background', '1': 'road', '2': 'ground', '3': 'movable', **unknown}
    assert f'classes=FILE may say: {json.dumps(full)}' in str(report_of(tmp_path))
    write_json(tmp_path / 'map.json', {str(number): 'void' for number in range(4)})
    assert f'classes=FILE may say, too: {json.dumps(unknown)}' in str(
        report_of(tmp_path, 'ids:set,classes=map.json'))
    write_json(tmp_path / 'map.json', full | dict.fromkeys(unknown, 'void'))
    assert not report_of(tmp_path, 'ids:set,classes=map.json').faults


def test_unknown_colours_come_with_a_palette_to_fill_in(tmp_path: Path) -> None:
    write_image(tmp_path / 'set' / 'a.jpg', (1, 80))
    write_colours(tmp_path / 'set' / 'a.png', [[
        (0, 0, 0), (7, 1, 1), *((red, 1, 1) for red in range(2, 80))]])
    report = report_of(tmp_path, 'masks:set,palette=bisenetv2_tf2')
    first = {'7,1,1': '?', '2,1,1': '?'}  # the most frequent one first
    assert f'palette=FILE may say, too: {json.dumps(first)[:-1]}' in str(report)
    assert '(and 14 more)' in str(report)
    assert report.text(shown=None).endswith('"79,1,1": "?"}')


def test_classes_that_no_map_can_name_are_in_none(tmp_path: Path) -> None:
    write_pair(tmp_path / 'camvid', 'a', [[77]])
    write_split(tmp_path / 'camvid', 'val', ['a'])
    assert 'may say' not in str(report_of(tmp_path, 'camvid:val'))


def test_frames_without_road_and_void_frames_are_noted(tmp_path: Path) -> None:
    for stem, ids in (('a', [[1, 0]]), ('b', [[0, 2]]), ('c', [[255, 255]])):
        write_pair(tmp_path / 'set', stem, ids)
    report = report_of(tmp_path)
    assert (report.empty, report.void) == (('b',), ('c',))
    assert 'note: 1 frame without road, first b' in str(report)
    assert 'note: 1 frame void all over, first c' in str(report)
    assert report_of(tmp_path, marks=('ground', 'movable')).empty == ('a',)
    with pytest.raises(DatasetError, match="found the class 'sky'"):
        report_of(tmp_path, marks=('sky',))


def test_frames_are_expected_to_show_road_or_anything() -> None:
    assert usual_marks(ROAD) == ('road',)
    assert usual_marks(Taxonomy('t', ('background', 'cat', 'dog'))) == ('cat', 'dog')


def test_duplicates_are_noted(tmp_path: Path) -> None:
    write_scene(tmp_path / 'set', 'a', scenery(1))
    write_scene(tmp_path / 'set', 'b', scenery(1))
    write_scene(tmp_path / 'set', 'c', scenery(1), ids=2)
    write_scene(tmp_path / 'set', 'd', scenery(2))
    text = str(report_of(tmp_path))
    assert 'note: 2 frames in the set a second time, first a = b = c' in text
    assert 'note: 1 of these with other labels the second time, first a and b' in text


@pytest.mark.parametrize(('spec', 'third', 'noted'), [
    ('ids:set', 255, True), ('ids:set', 1, False), ('ids:set,classes=map.json', 255, False)])
def test_black_and_white_masks_are_noted(
    tmp_path: Path, spec: str, third: int, noted: bool,
) -> None:
    write_json(tmp_path / 'map.json', {'0': 'background', '255': 'road', '1': 'ground'})
    for number in range(40):
        row = np.array([0, 0, 0, 255 if number else third], np.uint8).repeat(16)
        write_scene(tmp_path / 'set', f'{number:02}', scenery(number), np.tile(row, (48, 1)))
    (tmp_path / 'set' / 'labels' / '39.png').write_bytes(b'')  # the checker says so
    said = ('found only the ids 0 and 255 (in 16 masks), and 255 is void: it counts nowhere; if '
            'it is a class, say so: classes=FILE with {"0": "background", "255": "road"}')
    assert (f'note: {said}' in str(report_of(tmp_path, spec))) == noted
    assert (said in open_dataset(spec, tmp_path).notes) == noted  # what training prints


def test_black_and_white_masks_for_other_classes(tmp_path: Path) -> None:
    write_pair(tmp_path / 'set', 'a', [[0, 255]])
    noted = open_dataset('ids:set', tmp_path, Taxonomy('yard', ('gravel', 'grass'))).notes
    assert len(noted) == 1 and '{"0": "?", "255": "?"}' in noted[0]


def test_colour_masks_that_are_mostly_void_are_noted(tmp_path: Path) -> None:
    spec, black, road = 'masks:set,palette=cityscapes', (0, 0, 0), (128, 64, 128)
    for stem, colours in (('a', [road, road]), ('b', [black, (81, 0, 81), black, black])):
        write_image(tmp_path / 'set' / f'{stem}.jpg', (1, len(colours)))
        write_colours(tmp_path / 'set' / f'{stem}.png', [colours])
    assert ('note: 66.7% of the pixels are void, in b mostly the colour 0,0,0; if that is your '
            'background, say so: palette=FILE with {"0,0,0": "background"} and your other colours'
            ) in str(report_of(tmp_path, spec))
    write_image(tmp_path / 'set' / 'c.jpg', (1, 2))
    write_colours(tmp_path / 'set' / 'c.png', [[road, road]])
    assert 'of the pixels are void' not in str(report_of(tmp_path, spec))  # half of them


def test_id_masks_that_are_mostly_void_are_noted(tmp_path: Path) -> None:
    write_pair(tmp_path / 'set', 'a', [[1, 9, 9, 255]])
    write_json(tmp_path / 'map.json', {'1': 'road', '9': 'void'})
    assert ('note: 75.0% of the pixels are void, in a mostly the id 9; if that is one of your '
            'classes, say so: classes=FILE with {"9": "?"} and your other ids'
            ) in str(report_of(tmp_path, 'ids:set,classes=map.json'))


def test_public_sets_may_be_mostly_void(tmp_path: Path) -> None:
    write_pair(tmp_path / 'camvid', 'a', [[3, 11, 11]])
    write_split(tmp_path / 'camvid', 'val', ['a'])
    assert 'of the pixels are void' not in str(report_of(tmp_path, 'camvid:val'))


# -- several data sets ---------------------------------------------------------------------------


def test_leaks_between_data_sets(tmp_path: Path) -> None:
    for stem, seed in (('a_1', 1), ('b_1', 2), ('c_1', 3)):
        write_scene(tmp_path / 'one', stem, scenery(seed))
    brighter = np.clip(scenery(2).astype(int) + 9, 0, 255).astype(np.uint8)
    for stem, rgb in (('x_1', scenery(1)), ('y_1', brighter), ('c_2', scenery(4))):
        write_scene(tmp_path / 'two', stem, rgb)
    found = leaks([report_of(tmp_path, 'ids:one'), report_of(tmp_path, 'ids:two')])
    assert found == [
        'leak: ids:one and ids:two share 1 frame, first a_1 = x_1',
        'leak: 1 frame of ids:one with a near twin in ids:two, first b_1 ~ y_1',
        'leak: ids:one and ids:two share the drives c']


def test_sets_that_share_nothing_leak_nothing(tmp_path: Path) -> None:
    write_scene(tmp_path / 'one', 'a', scenery(1))
    write_scene(tmp_path / 'two', 'b', scenery(2))
    reports = [report_of(tmp_path, 'ids:one'), report_of(tmp_path, 'ids:two')]
    assert leaks(reports) == []
    assert leaks(reports[:1]) == []


@pytest.mark.parametrize('change', ['jpeg', 'half', 'darker'])
def test_near_twins_survive_what_is_done_to_pictures(change: str) -> None:
    rgb = scenery(5, (240, 320))
    other = rgb
    if change == 'jpeg':
        other = cv2.imdecode(
            cv2.imencode('.jpg', rgb, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_COLOR)
    elif change == 'half':
        other = cv2.resize(rgb, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    else:
        other = (rgb * 0.8).astype(np.uint8)
    none = np.zeros((1, 1), np.uint8)
    left = [fingerprint('a', rgb, none), fingerprint('b', scenery(6), none)]
    right = [fingerprint('c', scenery(7), none), fingerprint('d', other, none)]
    assert [(a.name, b.name) for a, b, _ in near_twins(left, right)] == [('a', 'd')]
    assert duplicates([*left, *right]) == []
    assert near_twins(left, []) == []


# -- contact sheet -------------------------------------------------------------------------------


def test_tiles_show_labels_over_the_frame() -> None:
    rgb = np.full((2, 4, 3), 100, np.uint8)
    labels = np.array([[0, 1, 255, 3]] * 2, np.uint8)
    found = tile('a', rgb, labels, ROAD).rgb
    assert found.shape == (160, 320, 3)
    colours = class_colours(ROAD).astype(int)
    assert found[80, 40].tolist() == [100, 100, 100]  # background stays as it is
    np.testing.assert_allclose(found[80, 120], (colours[1] + 100) / 2, atol=1)
    assert found[80, 200].tolist() == [25, 25, 25]  # void is dark
    np.testing.assert_allclose(found[80, 280], (colours[3] + 100) / 2, atol=1)


def test_labels_on_a_tile_lie_where_the_frame_shows_them() -> None:
    # 8 pixels of the frame are one of the tile.
    labels = np.zeros((1280, 2560), np.uint8)
    labels[802:1206, 1202:1806] = 1
    bright = np.where(labels[..., None] == 1, 220, 20).astype(np.uint8).repeat(3, -1)
    seen = tile('a', bright, np.zeros_like(labels), ROAD).rgb[..., 0] / 200 - 0.1
    tinted = (tile('a', np.zeros_like(bright), labels, ROAD).rgb > 0).any(-1)
    shown, drawn = ([np.average(each, weights=weight) for each in np.indices(weight.shape)]
                    for weight in (seen, tinted))
    np.testing.assert_allclose(shown, drawn, atol=0.1)


@pytest.mark.parametrize('name', TAXONOMIES)
def test_classes_have_different_colours(name: str) -> None:
    classes = len(TAXONOMIES[name].classes)
    colours = class_colours(TAXONOMIES[name])[[*range(classes), VOID]].astype(int)
    apart = np.abs(colours[:, None] - colours[None]).sum(-1) + 999 * np.eye(classes + 1)
    assert apart.min() > 25


def test_sheets_hold_every_tile_and_a_legend(tmp_path: Path) -> None:
    tiles = [tile(str(n), scenery(n), np.ones((48, 64), np.uint8), ROAD) for n in range(5)]
    sheet = contact_sheet([('first', tiles), ('second', tiles[:1])], ROAD)
    assert sheet.shape[1:] == (1280, 3)
    assert sheet.shape[0] > 3 * 240  # two rows and one
    path = tmp_path / 'sheet.png'
    # A name that is no UTF-8 would end the process.
    odd = [tile('stra\udcdfe', scenery(0), np.ones((48, 64), np.uint8), ROAD)]
    assert contact_sheet([('odd', odd)], ROAD).shape[1:] == (1280, 3)
    save(sheet, path)
    np.testing.assert_array_equal(cv2.imread(str(path))[..., ::-1], sheet)
    with pytest.raises(DatasetError, match=r'sheet\.nope: cannot be written'):
        save(sheet, tmp_path / 'sheet.nope')
    with pytest.raises(DatasetError, match=r'sheet\.png: cannot be written; is its folder there'):
        save(sheet, tmp_path / 'absent' / 'sheet.png')


@pytest.mark.parametrize(('name', 'said'), [
    ('sheet', "sheet: found the ending '', expected .png or .jpg"),
    ('file/sheet.png', 'sheet.png: cannot be written (')])
def test_a_sheet_that_cannot_be_written_is_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, said: str,
) -> None:
    write_pair(tmp_path / 'set', 'a', [[1]])
    (tmp_path / 'file').write_text('a file')
    assert main(['check', str(tmp_path / 'set'), '--sheet', str(tmp_path / name)]) == 1
    printed = capsys.readouterr()
    assert said in printed.err and not printed.out


# -- progress ------------------------------------------------------------------------------------


def test_progress_into_a_file_says_every_tenth_once() -> None:
    stream = io.StringIO()
    progress = Progress('set', 40, stream)
    for done in range(41):
        progress.show(done)
    progress.clear()
    assert stream.getvalue().splitlines() == [f'set: {10 * n} %' for n in range(1, 11)]


def test_progress_on_a_terminal_is_one_line() -> None:
    stream = io.StringIO()
    stream.isatty = lambda: True
    progress = Progress('set', 4, stream)
    progress.show(4)
    progress.clear()
    assert stream.getvalue() == f'\rset [{"#" * 30}] 4/4, 0 s left \r\x1b[K'


# -- guessing ------------------------------------------------------------------------------------


def test_layouts_are_told_apart(tmp_path: Path) -> None:
    write_image(tmp_path / 'a/leftImg8bit/train/ulm/ulm_0_1_leftImg8bit.png', (1, 1))
    write_ids(tmp_path / 'a/gtFine/train/ulm/ulm_0_1_gtFine_labelIds.png', [[7]])
    assert guess(tmp_path / 'a').specs == (f'cityscapes:train,path={tmp_path / "a"}',)
    write_image(tmp_path / 'b/leftImg8bit/val/201/frame1_leftImg8bit.jpg', (1, 1))
    write_ids(tmp_path / 'b/gtFine/val/201/frame1_gtFine_labellevel3Ids.png', [[7]])
    assert guess(tmp_path / 'b').specs == (f'idd:val,path={tmp_path / "b"}',)
    write_image(tmp_path / 'c/leftImg8bit/val/2/1_image.jpg', (1, 1))
    write_ids(tmp_path / 'c/gtFine/val/2/1_label.png', [[0]])
    assert guess(tmp_path / 'c').specs == (f'idd_lite:val,path={tmp_path / "c"}',)
    write_pair(tmp_path / 'CamVid', 'a', [[3]])
    for split in ('train', 'val'):
        write_split(tmp_path / 'CamVid', split, ['a'])
    assert guess(tmp_path / 'CamVid').specs == tuple(
        f'camvid:{split},path={tmp_path / "CamVid"}' for split in ('train', 'val'))
    write_ids(tmp_path / 'segnet/trainannot/a.png', [[3]])
    assert guess(tmp_path / 'segnet').specs == (f'camvid:train,path={tmp_path / "segnet"}',)


def test_users_own_are_told_apart(tmp_path: Path) -> None:
    write_pair(tmp_path / 'ids', 'a', [[1]])
    assert guess(tmp_path / 'ids').specs == (f'ids:{tmp_path / "ids"}',)
    write_image(tmp_path / 'colours' / 'a.jpg', (1, 2))
    write_colours(tmp_path / 'colours' / 'a.png', [[(0, 0, 0), (32, 224, 224)]])
    assert guess(tmp_path / 'colours').specs == (
        f'masks:{tmp_path / "colours"},palette=bisenetv2_tf2',)
    write_colours(tmp_path / 'colours' / 'a.png', [[(1, 2, 3), (4, 5, 6)]])
    with pytest.raises(DatasetError, match=r'2 colours; write one, starting from '
                                           r'{"1,2,3": "\?", "4,5,6": "\?"}'):
        guess(tmp_path / 'colours')
    # VOC's first classes have colours of CamVid's.
    write_colours(tmp_path / 'colours' / 'a.png', [[(0, 0, 0), (128, 0, 0)]])
    with pytest.raises(DatasetError, match='no known palette has their 2 colours'):
        guess(tmp_path / 'colours')
    write_image(tmp_path / 'camera' / 'IMG_1.JPG', (1, 1))  # as cameras write it
    write_ids(tmp_path / 'camera' / 'IMG_1.png', [[1]])
    assert guess(tmp_path / 'camera').specs == (f'ids:{tmp_path / "camera"}',)
    write_json(tmp_path / 'lm' / 'x' / 'a.json', {'shapes': []})
    assert guess(tmp_path / 'lm').specs == (f'labelme:{tmp_path / "lm"}',)
    assert guess(tmp_path / 'lm/x/a.json').specs == (f'labelme:{tmp_path / "lm/x/a.json"}',)


def test_coarse_labels_of_cityscapes_are_found(tmp_path: Path) -> None:
    for split, labels in (('train', 'gtFine'), ('train', 'gtCoarse'), ('train_extra', 'gtCoarse')):
        write_image(tmp_path / f'leftImg8bit/{split}/ulm/ulm_0_1_leftImg8bit.png', (1, 1))
        write_ids(tmp_path / f'{labels}/{split}/ulm/ulm_0_1_{labels}_labelIds.png', [[7]])
    write_image(tmp_path / 'leftImg8bit/demoVideo/ulm/ulm_0_1_leftImg8bit.png', (1, 1))
    found = guess(tmp_path).specs
    assert found == (f'cityscapes:train,path={tmp_path}',
                     f'cityscapes:train_extra,path={tmp_path},labels=gtCoarse')
    assert [len(open_dataset(each, None)) for each in found] == [1, 1]
    shutil.rmtree(tmp_path / 'gtFine')
    assert guess(tmp_path).specs[0] == f'cityscapes:train,path={tmp_path},labels=gtCoarse'


@pytest.mark.parametrize('images', ['', 'images'])
@pytest.mark.parametrize('ending', ['.jpg', '.png'])
def test_what_masks_have_behind_the_name_is_found(
    tmp_path: Path, images: str, ending: str,
) -> None:
    for stem in ('lab_1', 'lab_10', 'lab_11', 'yard/lab_1'):
        write_image(tmp_path / images / f'{stem}{ending}', (1, 1))
        write_ids(tmp_path / ('labels' if images else '') / f'{stem}_mask.png', [[1]])
    found = guess(tmp_path)
    assert found.specs == (f'ids:{tmp_path},suffix=_mask',)
    assert len(open_dataset(found.specs[0], None)) == 4


def test_photos_without_masks_are_no_masks(tmp_path: Path) -> None:
    for stem in ('lab_1', 'lab_2'):
        write_image(tmp_path / f'{stem}.png', (1, 1))
    with pytest.raises(DatasetError, match='no data set of a known layout'):
        guess(tmp_path)


def test_folders_of_coco_files_are_found(tmp_path: Path) -> None:
    for split in ('train', 'val'):
        content = {'images': [{'id': 1, 'file_name': f'{split}.jpg'}], 'annotations': [],
                   'categories': []}
        write_json(tmp_path / f'annotations/instances_{split}2017.json', content)
        write_json(tmp_path / f'annotations/person_keypoints_{split}2017.json', {
            **content, 'categories': [{'keypoints': ['nose']}]})
        write_json(tmp_path / f'annotations/captions_{split}2017.json', {
            'images': [], 'annotations': []})
    with pytest.raises(DatasetError, match=r'instances_train2017\.json: looks like COCO, but wh'):
        guess(tmp_path)
    write_image(tmp_path / 'val2017/val.jpg', (1, 1))
    val = (f'coco:{tmp_path}/annotations/instances_val2017.json,'
           f'images={tmp_path}/val2017')
    assert guess(tmp_path).specs == (val,)
    write_image(tmp_path / 'train2017/train.jpg', (1, 1))
    assert guess(tmp_path).specs == (val.replace('val2017', 'train2017'), val)
    for path in tmp_path.glob('annotations/instances_*'):
        path.unlink()
    assert 'person_keypoints_val2017.json' in guess(tmp_path).specs[1]


def test_coco_files_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / 'coco' / 'all.json'
    content = {'images': [{'file_name': 'a.jpg'}], 'annotations': [{}], 'categories': []}
    write_json(path, content)
    with pytest.raises(DatasetError, match=r'looks like COCO, but where are the images\? Say'):
        guess(path)
    write_image(tmp_path / 'coco' / 'images' / 'a.jpg', (1, 1))
    assert guess(path).specs == (f'coco:{path},images={tmp_path / "coco/images"}',)
    write_json(path, {**content, 'annotations': [{'segments_info': []}]})
    with pytest.raises(DatasetError, match=r'where are the images and masks\? .*panoptic=FOLDER'):
        guess(path)
    (tmp_path / 'coco' / 'all').mkdir()
    assert guess(path).specs == (
        f'coco_panoptic:{path},images={tmp_path / "coco/images"},panoptic='
        f'{tmp_path / "coco/all"}',)


@pytest.mark.parametrize(('name', 'text', 'said'), [
    ('a.json', '{"images": {"a": 1}, "annotations": [], "categories": []}',
     "found no list of 'images'"),
    ('a.json', '[', 'not readable as JSON'), ('a.json', '{}', 'found neither labelme'),
    ('a.txt', 'x', r'no data set of a known layout; .*KIND:')])
def test_unknown_layouts_are_refused(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DatasetError, match=said):
        guess(tmp_path / name)


def test_masks_saved_as_jpeg_are_told_from_no_masks(tmp_path: Path) -> None:
    for folder in ('images', 'masks'):
        write_image(tmp_path / folder / 'a.jpeg', (1, 1))
    with pytest.raises(DatasetError, match=r'masks: holds 1 \.jpeg, but no \.png: masks must be'):
        guess(tmp_path)


def test_masks_that_cannot_be_read_do_not_keep_the_rest_from_being_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    for stem in 'abc':
        write_pair(tmp_path / 'set', stem, [[1]])
    (tmp_path / 'set/labels/a.png').write_bytes(b'')
    assert main(['check', str(tmp_path / 'set')]) == 1
    told = capsys.readouterr().out
    assert '(b.png holds ids)' in told and '2 frames of' in told and 'a.png: not a rea' in told
    for stem in 'bc':
        (tmp_path / f'set/labels/{stem}.png').write_bytes(b'')
    with pytest.raises(DatasetError, match=r'a\.png: not a readable image: it is empty'):
        guess(tmp_path / 'set')


def test_what_every_layout_needs_is_listed(tmp_path: Path) -> None:
    write_image(tmp_path / 'photo.jpg', (1, 1))
    with pytest.raises(DatasetError, match=r'(?s)leftImg8bit.*labelme.*masks.*COCO'):
        guess(tmp_path)


# -- the command ---------------------------------------------------------------------------------


def test_command_ends_with_1_where_a_file_cannot_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv('BISENET_DATA', raising=False)
    assert main(['check', 'synthetic:2']) == 0
    assert 'synthetic:2: 2 frames of 2 drives read, 0 unusable' in capsys.readouterr().out
    assert main(['check', 'camvid:val']) == 1
    assert 'pass --data FOLDER' in capsys.readouterr().err
    root = tmp_path / 'camvid'
    write_pair(root, 'a_1', [[77]])
    write_split(root, 'val', ['a_1'])
    assert main(['check', 'camvid:val', '--data', str(tmp_path)]) == 1
    assert 'class id 77' in capsys.readouterr().out
    assert main(['check', str(tmp_path / 'absent')]) == 1
    assert 'no such file or folder' in capsys.readouterr().err


def test_command_tells_kinds_from_paths(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ('lableme:photos', 'coco-panoptic:a.json,images=b'):
        assert main(['check', name]) == 1
        assert f'data set: found {name!r}, expected camvid:SPLIT' in capsys.readouterr().err
    write_pair(tmp_path / 'at_12:30', 'a', [[1]])
    assert main(['check', 'at_12:30', '--data', str(tmp_path)]) == 0
    assert 'at_12:30: taken for ids:' in capsys.readouterr().out


def test_command_lists_everything_where_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    write_pair(tmp_path / 'mine', 'a', [[*range(4, 24)]])
    assert main(['check', f'ids:{tmp_path / "mine"}']) == 1
    assert capsys.readouterr().out.count('unknown: id') == 10
    assert main(['check', f'ids:{tmp_path / "mine"}', '--all']) == 1
    assert capsys.readouterr().out.count('unknown: id') == 20


def test_command_takes_a_path_another_taxonomy_and_draws_a_sheet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    write_pair(tmp_path / 'mine', 'a', [[0, 1, 2]])
    taxonomy = write_json(tmp_path / 'yard.json', ['rest', 'gravel', 'grass'])
    sheet = tmp_path / 'sheet.png'
    assert main(['check', str(tmp_path / 'mine'), '--taxonomy', str(taxonomy), '--mark', 'grass',
                 '--sheet', str(sheet)]) == 0
    out = capsys.readouterr().out
    assert f'taken for ids:{tmp_path / "mine"} (a.png holds ids)' in out
    assert f'  {"gravel":<16}   33.3%               1\n' in out
    assert cv2.imread(str(sheet)).shape[1] == 1280


def test_command_warns_of_leaks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['check', 'synthetic:3:1', 'synthetic:2:1']) == 0
    assert 'leak: synthetic:3:1 and synthetic:2:1 share 2 frames' in capsys.readouterr().out


def test_idd_is_not_taken_for_cityscapes(tmp_path: Path) -> None:
    # Drive 0 occurs in most numbers.
    for stem in ('024541', 'frame0029'):
        write_image(tmp_path / 'leftImg8bit' / 'train' / '0' / f'{stem}_leftImg8bit.png', (1, 2))
    (tmp_path / 'gtFine' / 'train').mkdir(parents=True)
    assert guess(tmp_path).specs == (f'idd:train,path={tmp_path}',)
    write_image(
        tmp_path / 'leftImg8bit' / 'train' / '0' / '0_000001_leftImg8bit.png', (1, 2))
    assert guess(tmp_path).specs == (f'cityscapes:train,path={tmp_path}',)


def test_drives_that_names_hardly_tell_are_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    for number in range(16):
        write_scene(tmp_path / 'set', f'{number}x', scenery(number))
    assert main(['check', 'ids:set', '--data', str(tmp_path)]) == 0
    assert '16 of 16 drives guessed from file names hold at most 6' in capsys.readouterr().out
