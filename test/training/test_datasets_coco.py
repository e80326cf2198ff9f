"""COCO's annotations, down to exact labels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from written_datasets import turn_by_exif, write_colours, write_image, write_json

from training.datasets import (
    TAXONOMIES, VOID, DatasetError, FrameDataset, SizeError, UnknownClassError, UnreadableError,
    open_dataset,
)
from training.datasets.guess import guess
from training.datasets.opening import open_frames
from training.datasets.runs import counts_of, mask_of

#: A mask and its compressed text as pycocotools 2.0.11 writes it.
MASK = np.array([
    [1, 0, 0, 0, 0, 0, 0],
    [0, 0, 1, 1, 1, 0, 0],
    [0, 0, 1, 1, 1, 0, 0],
    [0, 0, 1, 1, 1, 0, 1],
    [0, 0, 0, 0, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 0]], np.uint8)
TEXT = '01<2G0008NG'
COUNTS = [0, 1, 12, 3, 3, 3, 3, 3, 11, 1, 2]

CATEGORIES = [{'id': 1, 'name': 'road'}, {'id': 18, 'name': 'car'}, {'id': 90, 'name': 'unused'}]


def written(tmp_path: Path, *segmentations: tuple[int, object], hw: tuple[int, int] = (4, 6),
            file_name: str = 'n/a_1.jpg') -> Path:
    write_image(tmp_path / 'photos' / file_name, hw)
    write_json(tmp_path / 'map.json', {'car': 'movable'})
    return write_json(tmp_path / 'coco.json', {
        'images': [{'id': 7, 'file_name': file_name, 'height': hw[0], 'width': hw[1]}],
        'categories': CATEGORIES,
        'annotations': [{'id': number, 'image_id': 7, 'category_id': category,
                         'segmentation': found, 'iscrowd': 0}
                        for number, (category, found) in enumerate(segmentations, 1)]})


SPEC = 'coco:coco.json,images=photos,classes=map.json'


def labels(tmp_path: Path, options: str = '') -> list[list[int]]:
    return open_dataset(SPEC + options, tmp_path).read(0)[1].tolist()


def test_polygons_hold_the_pixels_whose_centres_they_cover(tmp_path: Path) -> None:
    written(tmp_path, (1, [[0, 1, 4, 1, 4, 3, 0, 3], [5, 0, 6, 0, 6, 1, 5, 1]]),
            (18, [[2.7, 1.3, 5.7, 1.3, 5.7, 2.3, 2.7, 2.3]]))
    assert labels(tmp_path) == [
        [0, 0, 0, 0, 0, 1],
        [1, 1, 1, 3, 3, 3],
        [1, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 0]]
    assert labels(tmp_path, ',unlabelled=void')[3] == [VOID] * 6


def test_polygons_over_the_edge_are_cut(tmp_path: Path) -> None:
    written(tmp_path, (1, [[-5, -5, 1, -5, 1, 1, -5, 1], [9, 9, 12, 9, 12, 12]]), hw=(2, 2))
    assert labels(tmp_path) == [[1, 0], [0, 0]]


@pytest.mark.parametrize('counts', [COUNTS, TEXT])
def test_runs(tmp_path: Path, counts: object) -> None:
    written(tmp_path, (1, {'size': [6, 7], 'counts': counts}), hw=(6, 7))
    assert labels(tmp_path) == MASK.tolist()


def compressed(counts: list[int]) -> str:
    """Write run lengths as COCO does: five bits a character, differences from the fourth on."""
    text = ''
    for place, count in enumerate(counts):
        value = count - (counts[place - 2] if place > 2 else 0)
        while True:
            bits, value = value & 31, value >> 5
            done = value == (-1 if bits & 16 else 0)
            text += chr(48 + bits + (0 if done else 32))
            if done:
                break
    return text


def test_compressed_runs_of_the_reference() -> None:
    assert compressed(COUNTS) == TEXT
    assert counts_of(TEXT) == COUNTS


@given(st.lists(st.integers(0, 1 << 22), max_size=40))
def test_compressed_runs_come_back(counts: list[int]) -> None:
    assert counts_of(compressed(counts)) == counts


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 1 << 32))
def test_masks_come_back(height: int, width: int, seed: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < 0.5
    columns = mask.T.ravel()
    edges = np.flatnonzero(np.diff(columns)) + 1
    runs = np.diff([0, *edges, columns.size]).tolist()
    np.testing.assert_array_equal(
        mask_of([0, *runs] if columns[0] else runs, (height, width)), mask)


@pytest.mark.parametrize('text', ['01<2G0008N', '0', 'o', 'a b', '~'])
def test_damaged_runs_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match='found the character|cut off|the runs make'):
        mask_of(text, (6, 7))


def test_names_and_sequences(tmp_path: Path) -> None:
    written(tmp_path)
    dataset = open_dataset(SPEC, tmp_path)
    assert (dataset.name(0), dataset.sequence(0)) == ('n/a_1', 'n')
    assert dataset.read(0)[1].max() == 0  # an image without annotations is all background


@pytest.mark.parametrize('stored', ['n/a_1.jpg', 'n\\a_1.jpg'])
def test_names_written_on_windows_are_found(tmp_path: Path, stored: str) -> None:
    path = written(tmp_path, file_name=stored)
    content = json.loads(path.read_text())
    content['images'][0]['file_name'] = 'n\\a_1.jpg'
    write_json(path, content)
    dataset = open_dataset(SPEC, tmp_path)
    assert dataset.name(0) == stored.removesuffix('.jpg')
    assert dataset.read(0)[1].shape == (4, 6)
    assert guess(write_json(tmp_path / 'photos' / 'coco.json', content)).specs


def test_panoptic_masks_named_on_windows_are_found(tmp_path: Path) -> None:
    panoptic(tmp_path, (1, 1), (257, 18), (65538, 1))
    write_colours(tmp_path / 'segments' / 'n' / 'a_1.png', [[(1, 0, 0)] * 3] * 2)
    content = json.loads((tmp_path / 'coco.json').read_text())
    content['annotations'][0]['file_name'] = 'n\\a_1.png'
    write_json(tmp_path / 'coco.json', content)
    assert open_dataset(PANOPTIC, tmp_path).read(0)[1].tolist() == [[1] * 3] * 2


@pytest.mark.parametrize(('segmentation', 'error', 'said'), [
    ({'size': [9, 9], 'counts': [81]}, SizeError, 'was made on 9x9 pixels, but its image has 6x4'),
    ({'size': [4, 6], 'counts': [23]}, UnreadableError, 'the runs make 23 pixels, expected 6x4'),
    ({'counts': [24]}, UnreadableError, "annotation 1 cannot be drawn .'size'"),
    ([[1, 2, 3]], UnreadableError, 'annotation 1 cannot be drawn'),
    (None, UnreadableError, 'segmentation of type NoneType, expected polygons')])
def test_damaged_annotations_are_refused(
    tmp_path: Path, segmentation: object, error: type[DatasetError], said: str,
) -> None:
    written(tmp_path, (1, segmentation))
    with pytest.raises(error, match=rf'coco\.json: n/a_1.*{said}'):
        open_dataset(SPEC, tmp_path).read(0)


def test_categories_need_a_class(tmp_path: Path) -> None:
    written(tmp_path, (1, []), (18, []))
    with pytest.raises(UnknownClassError, match=r"found the class 'car', .*classes=FILE"):
        open_dataset('coco:coco.json,images=photos', tmp_path)
    written(tmp_path, (5, []))
    with pytest.raises(UnknownClassError, match='found category 5, which "categories" does not'):
        open_dataset(SPEC, tmp_path).read(0)


def test_annotations_without_area_are_counted(tmp_path: Path) -> None:
    written(tmp_path, (1, []), (1, [[0, 0, 5, 3]]), (18, {'size': [4, 6], 'counts': [24]}),
            (18, [[0, 0, 5, 0], [0, 0, 1, 0, 1, 1, 0, 1]]))
    dataset = open_frames(SPEC, tmp_path, TAXONOMIES['road'], 'stop')
    for _ in range(2):  # a frame read twice is counted once
        assert np.flatnonzero(dataset.read(0)[1]).tolist() == [0]
    assert dataset.ignored() == {"annotation 'road'": 2, "annotation 'car'": 1}


def test_annotations_of_images_that_are_not_listed_are_noted(tmp_path: Path) -> None:
    path = written(tmp_path, (1, []))
    content = json.loads(path.read_text())
    content['annotations'] += [{'image_id': 77, 'category_id': 1, 'segmentation': []}] * 2
    write_json(path, content)
    assert open_frames(SPEC, tmp_path, TAXONOMIES['road'], 'stop').notes == (
        'left out: 2 annotations of an image id that "images" does not list, first 77',)


def test_every_category_without_a_class_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, *((number, []) for number in range(100, 180)))
    content = json.loads(path.read_text())
    content['categories'] = [{'id': n, 'name': f'thing {n}'} for n in range(100, 180)]
    write_json(path, content)
    with pytest.raises(UnknownClassError, match='found the class') as caught:
        open_dataset(SPEC, tmp_path)
    said = str(caught.value)
    assert json.loads(said[said.index('{'):]) == {f'thing {n}': '?' for n in range(100, 180)}


@pytest.mark.parametrize(('key', 'entry', 'said'), [
    ('images', {'id': 7, 'file_name': None}, 'an entry is damaged'),
    ('annotations', {'image_id': [7], 'category_id': 1}, 'an entry is damaged .*unhashable'),
    ('annotations', {'image_id': 7, 'category_id': [1]}, 'an entry is damaged .*unhashable'),
    ('categories', {'id': [1], 'name': 'road'}, 'an entry is damaged .*unhashable')])
def test_damaged_entries_are_refused(
    tmp_path: Path, key: str, entry: dict, said: str,
) -> None:
    path = written(tmp_path)
    write_json(path, {**json.loads(path.read_text()), key: [entry]})
    with pytest.raises(DatasetError, match=rf'coco\.json: {said}.*, expected COCO annotations'):
        open_dataset(SPEC, tmp_path)


def test_files_of_other_formats_are_refused(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(DatasetError, match=r'where are the images\? Add images=FOLDER'):
        open_dataset('coco:coco.json', tmp_path)
    with pytest.raises(DatasetError, match="photos is a folder, expected COCO's JSON file"):
        open_dataset('coco:photos,images=photos', tmp_path)
    write_json(tmp_path / 'coco.json', {'shapes': []})
    with pytest.raises(DatasetError, match=r"coco\.json: found no list of 'annotations'"):
        open_dataset(SPEC, tmp_path)
    write_json(tmp_path / 'coco.json', {'annotations': [{'id': 1}]})
    with pytest.raises(DatasetError, match=r"coco\.json: an entry lacks 'image_id'"):
        open_dataset(SPEC, tmp_path)


@pytest.mark.parametrize(('key', 'again', 'said'), [
    ('images', {'id': 7, 'file_name': 'n/b.jpg'},
     "found the image id 7 twice, for 'n/a_1.jpg' and 'n/b.jpg'"),
    ('categories', {'id': 1, 'name': 'car'},
     "found the category id 1 twice, for 'road' and 'car'")])
def test_ids_that_stand_for_two_things_are_refused(
    tmp_path: Path, key: str, again: dict[str, object], said: str,
) -> None:
    path = written(tmp_path, (1, [[0, 0, 4, 0, 4, 4]]))
    content = json.loads(path.read_text())
    content[key].append(again)
    write_json(path, content)
    with pytest.raises(DatasetError, match=rf'coco\.json: {said}, .* give one of them other ids'):
        open_dataset(SPEC, tmp_path)


# -- panoptic ------------------------------------------------------------------------------------

PANOPTIC = 'coco_panoptic:coco.json,images=photos,panoptic=segments,classes=map.json'


def panoptic(tmp_path: Path, *segments: tuple[int, int]) -> None:
    written(tmp_path, hw=(2, 3))
    # Ids count in red, then green by 256, then blue by 65536.
    write_colours(tmp_path / 'segments' / 'a_1.png', [
        [(1, 0, 0), (1, 1, 0), (2, 0, 1)], [(0, 0, 0), (1, 1, 0), (1, 0, 0)]])
    write_json(tmp_path / 'coco.json', {
        'images': [{'id': 7, 'file_name': 'n/a_1.jpg'}, {'id': 8, 'file_name': 'n/b.jpg'}],
        'categories': CATEGORIES,
        'annotations': [{'image_id': 7, 'file_name': 'a_1.png', 'segments_info': [
            {'id': number, 'category_id': category} for number, category in segments]}]})


def test_panoptic_masks(tmp_path: Path) -> None:
    panoptic(tmp_path, (1, 1), (257, 18), (65538, 1))
    dataset = open_dataset(PANOPTIC, tmp_path)
    assert len(dataset) == 1  # the other image has no annotation
    assert dataset.read(0)[1].tolist() == [[1, 3, 1], [VOID, 3, 1]]
    filled = open_dataset(f'{PANOPTIC},unlabelled=background', tmp_path)
    assert filled.read(0)[1].tolist() == [[1, 3, 1], [0, 3, 1]]


def test_panoptic_faults(tmp_path: Path) -> None:
    panoptic(tmp_path, (1, 1))
    with pytest.raises(UnknownClassError, match='found segment 257, segment 65538, which the'
                       ) as caught:
        open_dataset(PANOPTIC, tmp_path).read(0)
    assert caught.value.counts == {'segment 257': 2, 'segment 65538': 1}
    with pytest.raises(DatasetError, match=r'where are the panoptic masks\? Add panoptic=FOLDER'):
        open_dataset('coco_panoptic:coco.json,images=photos', tmp_path)
    written(tmp_path, (1, []), (1, []))
    with pytest.raises(DatasetError, match="an entry lacks 'segments_info', .*open it as coco:"):
        open_dataset(PANOPTIC, tmp_path)


def test_panoptic_annotations_of_one_image_twice_are_refused(tmp_path: Path) -> None:
    panoptic(tmp_path, (1, 1))
    content = json.loads((tmp_path / 'coco.json').read_text())
    content['annotations'].append({'image_id': 7, 'file_name': 'b.png', 'segments_info': []})
    write_json(tmp_path / 'coco.json', content)
    with pytest.raises(DatasetError, match="image id 7 twice, for 'a_1.png' and 'b.png', expect"):
        open_dataset(PANOPTIC, tmp_path)


def test_categories_that_panoptic_files_do_not_list_are_unknown(tmp_path: Path) -> None:
    panoptic(tmp_path, (1, 1), (257, 5), (65538, 1))
    with pytest.raises(UnknownClassError, match=r'a_1\.png: n/a_1: found category 5, which "cat'):
        open_dataset(PANOPTIC, tmp_path).read(0)


def test_panoptic_entries_without_their_counterpart_are_noted(tmp_path: Path) -> None:
    panoptic(tmp_path, (1, 1))
    path = tmp_path / 'coco.json'
    content = json.loads(path.read_text())
    content['annotations'].append({'image_id': 9, 'file_name': 'c.png', 'segments_info': []})
    write_json(path, content)
    assert open_frames(PANOPTIC, tmp_path, TAXONOMIES['road'], 'stop').notes == (
        "left out: 1 image without an annotation, first 'n/b.jpg'",
        'left out: 1 annotation of an image id that "images" does not list, first 9')
    write_json(path, {**content, 'annotations': [
        {'image_id': 7, 'file_name': 'a_1.png', 'segments_info': None}]})
    with pytest.raises(DatasetError, match=r'coco\.json: an entry is damaged .*panoptic annotati'):
        open_dataset(PANOPTIC, tmp_path)


def test_the_taxonomy_decides_what_counts_as_unlabelled(tmp_path: Path) -> None:
    written(tmp_path, (1, [[0, 0, 1, 0, 1, 1, 0, 1]]), hw=(1, 2))
    spec = 'coco:coco.json,images=photos'
    nineteen = open_dataset(spec, tmp_path, TAXONOMIES['cityscapes19'])
    assert nineteen.read(0)[1].tolist() == [[0, VOID]]


def test_polygons_made_on_another_size_are_refused(tmp_path: Path) -> None:
    # The lower half of 1280x720 pixels is nowhere on a picture of 320x180.
    path = written(tmp_path, (1, [[0, 2, 6, 2, 6, 4, 0, 4]]))
    write_image(tmp_path / 'photos' / 'n' / 'a_1.jpg', (2, 3))
    with pytest.raises(SizeError, match=(
            r'coco\.json: n/a_1: was annotated on 6x4 pixels, but its image has 3x2; put the '
            r'annotated image back\.$')):
        labels(tmp_path)
    found = json.loads(path.read_text())
    for stated in ({}, {'width': None, 'height': 0}, {'width': 3.0, 'height': '2'}):
        found['images'] = [{'id': 7, 'file_name': 'n/a_1.jpg', **stated}]
        write_json(path, found)
        assert labels(tmp_path) == [[0, 0, 0], [0, 0, 0]]
    for width in ([3], 'wide', float('inf')):
        found['images'][0]['width'] = width
        write_json(path, found)
        with pytest.raises(DatasetError, match=r'coco\.json: an entry is damaged'):
            labels(tmp_path)


# -- pictures that Exif says how to turn ---------------------------------------------------------


def bright_left(tmp_path: Path, orientation: int) -> None:
    """Put a picture of 6x4 pixels, the left half of which is white, where ``written`` has one."""
    rgb = np.zeros((4, 6, 3), np.uint8)
    rgb[:, :3] = 255
    path = write_colours(tmp_path / 'photos' / 'n' / 'a_1.jpg', rgb)
    turn_by_exif(path, orientation)


def bright(dataset: FrameDataset) -> list[list[int]]:
    return (dataset.read(0)[0][..., 1] > 127).astype(int).tolist()


def without_size(path: Path) -> None:
    found = json.loads(path.read_text())
    write_json(path, {**found, 'images': [{'id': 7, 'file_name': 'n/a_1.jpg'}]})


STORED = [[1, 1, 1, 0, 0, 0]] * 4
TURNED = [[1] * 4] * 3 + [[0] * 4] * 3  # by orientation 6


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('stated', [True, False])
def test_coordinates_are_of_the_stored_picture(
    tmp_path: Path, orientation: int, stated: bool,
) -> None:
    path = written(tmp_path, (1, [[0, 0, 3, 0, 3, 4, 0, 4]]))
    if not stated:
        without_size(path)
    bright_left(tmp_path, orientation)
    dataset = open_dataset(SPEC, tmp_path)
    assert bright(dataset) == dataset.read(0)[1].tolist() == STORED


@pytest.mark.parametrize(('annotated', 'stated'), [
    ([[0, 0, 4, 0, 4, 3, 0, 3]], True),
    ({'size': [6, 4], 'counts': [0] + [3, 3] * 4}, True),
    ({'size': [6, 4], 'counts': [0] + [3, 3] * 4}, False)])
def test_a_picture_is_turned_where_its_size_says_so(
    tmp_path: Path, annotated: object, stated: bool,
) -> None:
    path = written(tmp_path, (1, annotated), hw=(6, 4))
    if not stated:
        without_size(path)
    bright_left(tmp_path, 6)
    dataset = open_dataset(SPEC, tmp_path)
    assert bright(dataset) == dataset.read(0)[1].tolist() == TURNED


def test_sizes_that_no_turn_explains_are_refused(tmp_path: Path) -> None:
    written(tmp_path, hw=(6, 5))
    bright_left(tmp_path, 6)
    with pytest.raises(SizeError, match='annotated on 5x6 pixels, but its image has 6x4; put the'):
        labels(tmp_path)


@pytest.mark.parametrize('expected', [STORED, TURNED])
def test_panoptic_masks_tell_whether_a_picture_is_turned(
    tmp_path: Path, expected: list[list[int]],
) -> None:
    panoptic(tmp_path, (1, 1))
    bright_left(tmp_path, 6)
    write_colours(tmp_path / 'segments' / 'a_1.png',
                  [[(each, 0, 0) for each in row] for row in expected])
    dataset = open_dataset(f'{PANOPTIC},unlabelled=background', tmp_path)
    assert bright(dataset) == dataset.read(0)[1].tolist() == expected
