"""labelme's files, down to exact labels."""

from __future__ import annotations

import base64
import contextlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from written_datasets import turn_by_exif, write_image, write_json

from training.datasets import (
    VOID, DatasetError, SizeError, Taxonomy, UnknownClassError, UnreadableError, open_dataset,
)
from training.datasets.opening import open_frames

YARD = Taxonomy('yard', ('background', 'road', 'kerb'))


def shape(label: str, kind: str | None, *points: tuple[float, float], **more: object) -> dict:
    return {'label': label, 'shape_type': kind, 'points': [list(point) for point in points],
            **more}


def annotate(path: Path, *shapes: dict, **more: object) -> None:
    write_json(path, {'version': '5.4.1', 'shapes': list(shapes), 'imagePath': f'{path.stem}.jpg',
                      'imageData': None, **more})


def labels_of(tmp_path: Path, *shapes: dict, hw: tuple[int, int] = (5, 6), options: str = '',
              taxonomy: Taxonomy = YARD) -> list[list[int]]:
    write_image(tmp_path / 'set' / 'a.jpg', hw)
    annotate(tmp_path / 'set' / 'a.json', *shapes)
    return open_dataset(f'labelme:set{options}', tmp_path, taxonomy).read(0)[1].tolist()


def test_polygons_and_rectangles_include_their_outline(tmp_path: Path) -> None:
    assert labels_of(
        tmp_path, shape('road', 'polygon', (0, 2), (3.9, 2.2), (3.1, 4), (0, 4.9)),
        shape('kerb', 'rectangle', (5.5, 1.2), (4.0, 0.9))) == [
        [0, 0, 0, 0, 2, 2],
        [0, 0, 0, 0, 2, 2],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0, 0]]


def test_circles_hold_the_pixels_whose_centres_they_cover(tmp_path: Path) -> None:
    assert labels_of(tmp_path, shape('road', 'circle', (2.5, 2.5), (2.5, 4.0))) == [
        [0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 0, 0],
        [0, 1, 1, 1, 0, 0],
        [0, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 0]]
    assert labels_of(tmp_path, shape('road', 'circle', (-9, -9), (-8, -9))) == [[0] * 6] * 5
    assert labels_of(tmp_path, shape('road', 'circle', (0.5, 0.5), (1.5, 0.5)), hw=(2, 3)) == [
        [1, 1, 0], [1, 0, 0]]


def test_later_shapes_lie_over_earlier_ones(tmp_path: Path) -> None:
    below, above = shape('road', 'rectangle', (0, 0), (2, 0)), shape(
        'kerb', 'rectangle', (1, 0), (3, 0))
    assert labels_of(tmp_path, below, above, hw=(1, 4)) == [[1, 2, 2, 2]]
    assert labels_of(tmp_path, above, below, hw=(1, 4)) == [[1, 1, 1, 2]]


def test_shapes_without_type_are_polygons(tmp_path: Path) -> None:
    old = shape('road', None, (0, 0), (3, 0), (3, 1), (0, 1))
    assert labels_of(tmp_path, old, hw=(2, 5)) == [[1, 1, 1, 1, 0]] * 2


def test_masks_are_pasted_at_their_corner(tmp_path: Path) -> None:
    png = cv2.imencode('.png', np.array([[1, 0], [1, 1]], np.uint8))[1]
    text = base64.b64encode(png.tobytes()).decode()
    mask = shape('kerb', 'mask', (1, 1), (2, 2), mask=text)
    assert labels_of(tmp_path, mask, hw=(3, 4)) == [[0, 0, 0, 0], [0, 2, 0, 0], [0, 2, 2, 0]]
    outside = shape('kerb', 'mask', (-1, -1), (0, 0), mask=text)
    assert labels_of(tmp_path, outside, hw=(2, 2)) == [[2, 0], [0, 0]]


def test_sizes_may_be_texts(tmp_path: Path) -> None:
    write_image(tmp_path / 'set' / 'a.jpg', (5, 6))
    road = shape('road', 'rectangle', (0, 0), (0, 0))
    for stated in ({'imageHeight': '5', 'imageWidth': ' 6.0'}, {'imageHeight': '0'}):
        annotate(tmp_path / 'set' / 'a.json', road, **stated)
        assert open_dataset('labelme:set', tmp_path, YARD).read(0)[1].sum() == 1
    annotate(tmp_path / 'set' / 'a.json', road, imageHeight='10', imageWidth=12)
    with pytest.raises(SizeError, match='was drawn on 12x10 pixels, but its image has 6x5'):
        open_dataset('labelme:set', tmp_path, YARD).read(0)
    for wrong in ('tall', [5]):
        annotate(tmp_path / 'set' / 'a.json', road, imageHeight=wrong, imageWidth=6)
        with pytest.raises(UnreadableError, match=r'a\.json: found .* as imageHeight, expected a '
                                                  'number of pixels'):
            open_dataset('labelme:set', tmp_path, YARD).read(0)


def test_class_map_conventions_and_unlabelled_pixels(tmp_path: Path) -> None:
    write_json(tmp_path / 'set' / 'map.json', {'tarmac': 'road', 'mud': None})
    shapes = [shape(label, 'rectangle', (x, 0), (x, 0)) for x, label in enumerate(
        ('tarmac', 'mud', '__ignore__', '_background_', 'kerb'))]
    assert labels_of(tmp_path, *shapes, hw=(1, 6), options=',classes=set/map.json') == [
        [1, VOID, VOID, 0, 2, 0]]
    assert labels_of(tmp_path, *shapes[2:], hw=(1, 6), options=',unlabelled=void') == [
        [VOID, VOID, VOID, 0, 2, VOID]]
    assert labels_of(tmp_path, shapes[4], hw=(1, 6), taxonomy=Taxonomy('t', ('road', 'kerb'))) == [
        [VOID, VOID, VOID, VOID, 1, VOID]]
    with pytest.raises(DatasetError, match="found the class 'sky', expected one of background"):
        open_dataset('labelme:set,unlabelled=sky', tmp_path, YARD)


def test_shapes_without_area_are_left_out_and_counted(tmp_path: Path) -> None:
    write_image(tmp_path / 'set' / 'a.jpg', (1, 3))
    annotate(tmp_path / 'set' / 'a.json', shape('road', 'rectangle', (0, 0), (1, 0)),
             shape('lane', 'linestrip', (0, 0), (2, 0)), shape('lane', 'linestrip', (0, 0)),
             shape('pole', 'point', (1, 0)), shape('road', 'polygon', (0, 0), (1, 0)))
    dataset = open_frames('labelme:set', tmp_path, YARD, 'stop')
    for _ in range(2):  # a frame read twice is counted once
        assert dataset.read(0)[1].tolist() == [[1, 1, 0]]
    assert dataset.ignored() == {
        "linestrip 'lane'": 2, "point 'pole'": 1, "polygon 'road'": 1}


def test_embedded_pictures(tmp_path: Path) -> None:
    bgr = np.zeros((2, 3, 3), np.uint8)
    bgr[..., 2] = 200
    text = base64.b64encode(cv2.imencode('.png', bgr)[1].tobytes()).decode()
    annotate(tmp_path / 'set' / 'a.json', shape('road', 'rectangle', (0, 0), (0, 0)),
             imageData=text, imageHeight=2, imageWidth=3)
    rgb, labels = open_dataset('labelme:set', tmp_path, YARD).read(0)
    assert rgb[0, 0].tolist() == [200, 0, 0]
    assert labels.tolist() == [[1, 0, 0], [0, 0, 0]]
    annotate(tmp_path / 'set' / 'a.json', imageData='no base64!')
    with pytest.raises(UnreadableError, match=r'a\.json: the picture within the file is damaged'):
        open_dataset('labelme:set', tmp_path, YARD).read(0)
    annotate(tmp_path / 'set' / 'a.json', imageData=base64.b64encode(b'text').decode())
    with pytest.raises(UnreadableError, match=r'a\.json: not a readable image'):
        open_dataset('labelme:set', tmp_path, YARD).read(0)


@pytest.mark.parametrize('image_path', ['..\\images\\a.jpg', '../images/a.jpg', 'a.jpg', ''])
def test_pictures_elsewhere(tmp_path: Path, image_path: str) -> None:
    write_image(tmp_path / 'images' / 'a.jpg', (1, 2))
    annotate(tmp_path / 'json' / 'a.json', imagePath=image_path)
    spec = 'labelme:json,images=images' if not image_path.startswith('..') else 'labelme:json'
    assert open_dataset(spec, tmp_path, YARD).read(0)[1].tolist() == [[0, 0]]


def test_sequences_and_files_of_other_purposes(tmp_path: Path) -> None:
    for name in ('north/a_1', 'north/a_2', 'b_01', 'b_02', '7'):
        annotate(tmp_path / 'set' / f'{name}.json')
    write_json(tmp_path / 'set' / 'classes.json', {'tarmac': 'road'})
    dataset = open_dataset('labelme:set,classes=set/classes.json', tmp_path)
    assert {dataset.name(i): dataset.sequence(i) for i in range(len(dataset))} == {
        'north/a_1': 'north', 'north/a_2': 'north', 'b_01': 'b', 'b_02': 'b', '7': '.'}


def test_a_single_file(tmp_path: Path) -> None:
    write_image(tmp_path / 'a.jpg', (1, 2))
    annotate(tmp_path / 'a.json')
    assert len(open_dataset('labelme:a.json', tmp_path)) == 1


def test_images_without_annotation_are_noted(tmp_path: Path) -> None:
    write_image(tmp_path / 'set' / 'a.jpg', (1, 2))
    write_image(tmp_path / 'set' / 'b.jpg', (1, 2))
    annotate(tmp_path / 'set' / 'a.json')
    assert open_frames('labelme:set', tmp_path, YARD, 'stop').notes == (
        "left out: 1 image without a .json file of that name, first 'b.jpg'",)


def test_unknown_labels_are_named(tmp_path: Path) -> None:
    shapes = [shape(label, 'rectangle', (0, 0), (1, 1)) for label in ('mud', 'road', 'mud', 'ice')]
    with pytest.raises(UnknownClassError, match=r"found the class 'mud', 'ice', .*classes=FILE"
                       ) as caught:
        labels_of(tmp_path, *shapes, shape('lane', 'line', (0, 0), (1, 1)))
    assert caught.value.counts == {'mud': 2, 'ice': 1}


def test_a_picture_that_was_resized_since_is_refused(tmp_path: Path) -> None:
    write_image(tmp_path / 'set' / 'a.jpg', (4, 6))
    annotate(tmp_path / 'set' / 'a.json', imageHeight=8, imageWidth=12)
    with pytest.raises(SizeError, match=r'was drawn on 12x8 pixels, but its image has 6x4'):
        open_dataset('labelme:set', tmp_path, YARD).read(0)


@pytest.mark.parametrize(('content', 'said'), [
    ('{', 'not readable as JSON'), ('[]', 'found list, expected a JSON object'),
    ('{"images": []}', 'found no list of "shapes"'),
    ('{"shapes": [{"label": "road", "points": [[0]]}, 3]}', 'shape 2 cannot be drawn'),
    ('{"shapes": [{"label": "road", "points": [["a", 1], [2, 3], [4, 5]]}]}',
     'shape 1 cannot be drawn'),
    ('{"shapes": [{"label": "road", "points": [[0, 0, 0], [1, 1, 1], [2, 2, 2], [3, 3, 3]]}]}',
     r'shape 1 cannot be drawn .*points of shape \[4, 3\], expected x and y'),
    ('{"shapes": [{"label": "road", "points": [[0, 0], [NaN, 3], [1e9, 5]]}]}',
     'shape 1 cannot be drawn .*beyond 1000000 pixels'),
    ('{"shapes": [{"label": "road", "points": [[0, 0]], "shape_type": "rectangle"}]}',
     'shape 1 cannot be drawn .*found a rectangle of 1 point'),
    ('{"shapes": [{"points": [[0, 0], [1, 1]], "shape_type": "rectangle"}]}',
     "shape 1 cannot be drawn .*'label'"),
    ('{"shapes": [{"label": null, "points": [[0, 0], [1, 1], [2, 2]]}]}',
     'shape 1 cannot be drawn .*its label is null'),
    ('{"shapes": [{"label": "road", "points": [[0, 0]], "shape_type": "blob"}]}',
     "found the shape type 'blob', expected polygon, rectangle, circle or mask")])
def test_damaged_files_are_refused(tmp_path: Path, content: str, said: str) -> None:
    write_image(tmp_path / 'set' / 'a.jpg', (4, 6))
    (tmp_path / 'set' / 'a.json').write_text(content)
    with pytest.raises(UnreadableError, match=rf'a\.json: {said}'):
        open_dataset('labelme:set', tmp_path, YARD).read(0)


NUMBERS = st.one_of(st.floats(-50, 50), st.floats(), st.integers())
KINDS = st.sampled_from(['polygon', 'rectangle', 'circle', 'mask', 'point', 'rotation', 'x', None])
SHAPES = st.one_of(
    st.none(), st.integers(), st.text(),
    st.fixed_dictionaries(
        {'points': st.one_of(st.none(), st.lists(st.lists(NUMBERS, max_size=3), max_size=5),
                             st.lists(st.tuples(NUMBERS, NUMBERS), max_size=5))},
        optional={'label': st.sampled_from(['road', 'kerb', 'x', None]), 'shape_type': KINDS,
                  'mask': st.text(max_size=5)}))


@settings(max_examples=300, deadline=None)
@given(st.lists(SHAPES, max_size=3))
def test_any_damage_to_a_file_is_reported_as_such(
    tmp_path_factory: pytest.TempPathFactory, shapes: list[object],
) -> None:
    root = tmp_path_factory.getbasetemp()
    if not (root / 'damaged' / 'a.jpg').is_file():
        write_image(root / 'damaged' / 'a.jpg', (5, 6))
    write_json(root / 'damaged' / 'a.json', {'shapes': shapes})
    with contextlib.suppress(DatasetError):
        labels = open_dataset('labelme:damaged', root, YARD).read(0)[1]
        assert set(np.unique(labels)) <= {0, 1, 2, VOID}


@pytest.mark.parametrize('suffix', ['.JPG', '.Jpeg'])
def test_images_of_the_same_name_in_capitals(tmp_path: Path, suffix: str) -> None:
    image = write_image(tmp_path / 'set' / 'x' / 'a.b.jpg', (1, 2))
    image.rename(image.with_suffix(suffix))
    write_image(tmp_path / 'set' / 'x' / 'a.b.c.jpg', (5, 5))
    annotate(tmp_path / 'set' / 'x' / 'a.b.json', imagePath='gone.jpg')
    assert open_dataset('labelme:set', tmp_path, YARD).read(0)[1].tolist() == [[0, 0]]


@pytest.mark.parametrize('name', ['a.jpg', 'a.png'])
def test_a_picture_that_is_cut_off_can_only_be_replaced_or_left_out(
    tmp_path: Path, name: str,
) -> None:
    image = write_image(tmp_path / 'set' / name, (40, 40))
    image.write_bytes(image.read_bytes()[:-20])
    annotate(tmp_path / 'set' / 'a.json', imagePath=name)
    with pytest.raises(UnreadableError) as caught:  # there is no list to take it from
        open_dataset('labelme:set', tmp_path, YARD).read(0)
    assert str(caught.value) == f'{image}: not a readable image; replace it or leave it out.'


def test_an_empty_file_is_named_once(tmp_path: Path) -> None:
    (tmp_path / 'a.json').touch()
    with pytest.raises(UnreadableError) as caught:
        open_dataset('labelme:a.json', tmp_path).read(0)
    assert str(caught.value) == (
        f'{tmp_path / "a.json"}: not a readable JSON file: it is empty; replace it or leave it '
        'out.')


def test_missing_files_are_named(tmp_path: Path) -> None:
    annotate(tmp_path / 'set' / 'a.json')
    with pytest.raises(UnreadableError, match=r"found no image 'a\.jpg' in .*images=FOLDER"):
        open_dataset('labelme:set', tmp_path, YARD).read(0)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(DatasetError, match=r'found no \.json file in .*empty'):
        open_dataset('labelme:empty', tmp_path, YARD)
    with pytest.raises(DatasetError, match=r'absent: no such file or folder; looked for'):
        open_dataset('labelme:absent', tmp_path, YARD)


def test_hidden_copies_are_no_frames(tmp_path: Path) -> None:
    # What macOS, editors and version control leave beside the files.
    write_image(tmp_path / 'set' / 'a.jpg', (1, 2))
    annotate(tmp_path / 'set' / 'a.json')
    for hidden in ('._a', '.git/a', '.ipynb_checkpoints/a-checkpoint'):
        annotate(tmp_path / 'set' / f'{hidden}.json')
        write_image(tmp_path / 'set' / f'{hidden}.jpg', (1, 2))
    dataset = open_frames('labelme:set', tmp_path, YARD, 'stop')
    assert [dataset.name(index) for index in range(len(dataset))] == ['a']
    assert dataset.notes == ()


def test_linked_folders_are_looked_into(tmp_path: Path) -> None:
    write_image(tmp_path / 'disk' / 'a.jpg', (1, 2))
    write_image(tmp_path / 'disk' / 'bare.jpg', (1, 2))
    annotate(tmp_path / 'disk' / 'a.json')
    (tmp_path / 'set').mkdir()
    (tmp_path / 'set' / 'north').symlink_to(tmp_path / 'disk')
    (tmp_path / 'disk' / 'back').symlink_to(tmp_path / 'set')
    dataset = open_frames('labelme:set', tmp_path, YARD, 'stop')
    assert [dataset.name(index) for index in range(len(dataset))] == ['north/a']
    assert dataset.read(0)[1].tolist() == [[0, 0]]
    assert "left out: 1 image without a .json file of that name, first 'north/bare.jpg'" in (
        dataset.notes)


def test_a_picture_that_exif_turns_is_named(tmp_path: Path) -> None:
    turn_by_exif(write_image(tmp_path / 'set' / 'a.jpg', (1, 2)))
    annotate(tmp_path / 'set' / 'a.json', imageHeight=1, imageWidth=2)
    with pytest.raises(SizeError, match=r'was drawn on 2x1 pixels, but its image has 1x2; .*Exif'):
        open_dataset('labelme:set', tmp_path, YARD).read(0)


def test_shapes_of_another_picture_are_refused(tmp_path: Path) -> None:
    """Of a file without the size of its own: the photo was made smaller since."""
    at_edge = shape('road', 'polygon', (0, 0), (6, 0), (6.2, 5.2), (0, 5))
    assert labels_of(tmp_path / 'edge', at_edge) == [[1] * 6] * 5
    far = shape('road', 'polygon', (0, 0), (12, 0), (12, 9.5), (0, 9.5))
    with pytest.raises(SizeError, match=(
            r'a\.json: shape 1 reaches x 12 and y 9\.5, but the image has 6x5 pixels; put the')):
        labels_of(tmp_path / 'far', far)
    # Stated sizes are believed: what lies outside is cut off.
    annotate(tmp_path / 'far' / 'set' / 'a.json', far, imageHeight=5, imageWidth=6)
    assert open_dataset('labelme:set', tmp_path / 'far').read(0)[1].all()
