"""Masks of users' own, down to exact labels."""

from __future__ import annotations

import contextlib
import json
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from written_datasets import write_colours, write_ids, write_image, write_json

from training.datasets import (
    TAXONOMIES, VOID, DatasetError, SizeError, UnknownClassError, UnreadableError, open_dataset,
)
from training.datasets.guess import guess
from training.datasets.images import colour_table, read_mask
from training.datasets.opening import open_frames

ROAD = TAXONOMIES['road']


def write_indexed(path: Path, ids: np.ndarray, colours: list[tuple[int, int, int]],
                  depth: int = 8, transparent: bool = False) -> None:
    """Write a PNG file with a colour table or, without colours, of few bits; OpenCV cannot."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack('>I', len(data)) + kind + data + struct.pack(
            '>I', zlib.crc32(kind + data))

    height, width = ids.shape
    bits = np.unpackbits(ids[..., None], axis=2)[..., 8 - depth:].reshape(height, -1)
    rows = b''.join(b'\0' + np.packbits(row).tobytes() for row in bits)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        b'\x89PNG\r\n\x1a\n'
        + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, depth,
                                     3 if colours else 0, 0, 0, 0))
        + (chunk(b'PLTE', b''.join(bytes(colour) for colour in colours)) if colours else b'')
        + (chunk(b'tRNS', b'\0') if transparent else b'')
        + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b''))


# -- colours -------------------------------------------------------------------------------------


def test_masks_painted_for_the_original(tmp_path: Path) -> None:
    # One folder, the image a JPEG and the mask a PNG of the same name; turquoise is road.
    write_image(tmp_path / 'set' / 'a.jpg', (1, 2))
    write_colours(tmp_path / 'set' / 'a.png', [[(0, 0, 0), (32, 224, 224)]])
    dataset = open_dataset('masks:set,palette=bisenetv2_tf2', tmp_path)
    rgb, labels = dataset.read(0)
    assert rgb[0, 0, 0] > 150
    assert labels.tolist() == [[0, 1]]


def test_palette_files_and_class_maps(tmp_path: Path) -> None:
    write_image(tmp_path / 'set' / 'images' / 'n' / 'a.png', (1, 4))
    write_colours(tmp_path / 'set' / 'masks' / 'n' / 'a.png',
                  [[(1, 2, 3), (255, 0, 16), (9, 9, 9), (1, 2, 3)]])
    write_json(tmp_path / 'colours.json', {
        '1, 2, 3': 'road', '#ff0010': 'verge', '9,9,9': 'bin'})
    write_json(tmp_path / 'map.json', {'verge': 'ground', '9,9,9': 'movable'})
    dataset = open_dataset('masks:set,palette=colours.json,classes=map.json', tmp_path)
    assert dataset.name(0) == 'n/a'
    assert dataset.read(0)[1].tolist() == [[1, 2, 3, 1]]
    with pytest.raises(UnknownClassError, match=r"palette: found the class 'verge'"):
        open_dataset('masks:set,palette=colours.json', tmp_path)


def test_palettes_in_text_files(tmp_path: Path) -> None:
    write_image(tmp_path / 'set' / 'a.jpg', (1, 2))
    write_colours(tmp_path / 'set' / 'a.png', [[(7, 8, 9), (128, 64, 128)]])
    (tmp_path / 'colours.txt').write_text('# R G B name\n128 64 128\troad\n\n7 8 9   the rest\n')
    write_json(tmp_path / 'map.json', {'the rest': 'void'})
    dataset = open_dataset('masks:set,palette=colours.txt,classes=map.json', tmp_path)
    assert dataset.read(0)[1].tolist() == [[VOID, 1]]


def test_masks_painted_like_cityscapes(tmp_path: Path) -> None:
    write_image(tmp_path / 'set' / 'a.jpg', (1, 5))
    write_colours(tmp_path / 'set' / 'a.png', [[
        (128, 64, 128), (244, 35, 232), (0, 0, 142), (153, 153, 153), (0, 0, 0)]])
    spec = 'masks:set,palette=cityscapes'
    assert open_dataset(spec, tmp_path).read(0)[1].tolist() == [[1, 2, 3, 0, VOID]]
    nineteen = open_dataset(spec, tmp_path, TAXONOMIES['cityscapes19'])
    assert nineteen.read(0)[1].tolist() == [[0, 1, 13, 5, VOID]]


def test_transparency_is_no_colour(tmp_path: Path) -> None:
    write_image(tmp_path / 'set' / 'a.jpg', (1, 2))
    bgra = np.array([[[224, 224, 32, 0], [0, 0, 0, 255]]], np.uint8)
    write_ids(tmp_path / 'set' / 'a.png', bgra)
    dataset = open_dataset('masks:set,palette=bisenetv2_tf2', tmp_path)
    assert dataset.read(0)[1].tolist() == [[1, 0]]


def test_unknown_colours_are_counted(tmp_path: Path) -> None:
    write_image(tmp_path / 'set' / 'a.jpg', (1, 4))
    write_colours(tmp_path / 'set' / 'a.png', [[(0, 0, 0), (32, 224, 225), (255, 255, 255),
                                                (255, 255, 255)]])
    dataset = open_dataset('masks:set,palette=bisenetv2_tf2', tmp_path)
    with pytest.raises(UnknownClassError,
                       match=r'a\.png: found the colour 255,255,255; 32,224,225, .* as PNG'
                       ) as caught:
        dataset.read(0)
    assert caught.value.counts == {'colour 255,255,255': 2, 'colour 32,224,225': 1}


def test_ids_are_no_colours(tmp_path: Path) -> None:
    write_image(tmp_path / 'set' / 'a.jpg', (1, 1))
    write_ids(tmp_path / 'set' / 'a.png', [[1]])
    dataset = open_dataset('masks:set,palette=bisenetv2_tf2', tmp_path)
    with pytest.raises(UnknownClassError, match=r'found the colour 1,1,1, .* open it as ids:PATH'):
        dataset.read(0)
    write_ids(tmp_path / 'set' / 'a.png', np.array([[1]], np.uint16))
    with pytest.raises(UnreadableError, match=r'found uint16\[1, 1\], expected RGB colours of 8'):
        dataset.read(0)


@pytest.mark.parametrize('depth', [1, 8])
@pytest.mark.parametrize('transparent', [False, True])
def test_colours_behind_a_colour_table_count(
    tmp_path: Path, depth: int, transparent: bool,
) -> None:
    # Programs that make PNG files smaller give the colours indices of their own.
    write_image(tmp_path / 'set' / 'a.jpg', (1, 3))
    write_indexed(tmp_path / 'set' / 'a.png', np.array([[0, 0, 1]], np.uint8),
                  [(32, 224, 224), (0, 0, 0)], depth, transparent)
    dataset = open_dataset('masks:set,palette=bisenetv2_tf2', tmp_path)
    assert dataset.read(0)[1].tolist() == [[1, 1, 0]]


def test_masks_that_are_all_black_may_be_grey_files(tmp_path: Path) -> None:
    write_image(tmp_path / 'set' / 'a.jpg', (1, 3))
    write_indexed(tmp_path / 'set' / 'a.png', np.array([[0, 0, 1]], np.uint8), [], 1)
    write_json(tmp_path / 'p.json', {'0,0,0': 'background', '255,255,255': 'road'})
    dataset = open_dataset('masks:set,palette=p.json', tmp_path)
    assert dataset.read(0)[1].tolist() == [[0, 0, 1]]


def test_indexed_masks_are_told_by_their_colours(tmp_path: Path) -> None:
    write_image(tmp_path / 'set' / 'a.jpg', (1, 2))
    path = tmp_path / 'set' / 'a.png'
    as_ids, as_colours = f'ids:{path.parent}', f'masks:{path.parent},palette=bisenetv2_tf2'
    road, black, red = (32, 224, 224), (0, 0, 0), (128, 0, 0)
    for ids, table, expected in (
            ([[0, 1]], [road, black], as_colours),
            ([[0, 0]], [black], as_colours),
            ([[0, 0]], [black, red], as_ids),  # VOC's table, of which only the black is seen
            ([[0, 1]], [black, red], as_ids),
            ([[0, 1]], [black, black], as_ids)):  # only the indices differ
        write_indexed(path, np.array(ids, np.uint8), table)
        assert guess(path.parent).specs == (expected,)
    assert 'check masks:PATH,palette=FILE' in guess(path.parent).reason


def test_all_that_a_palette_lacks_is_said_at_once(tmp_path: Path) -> None:
    write_image(tmp_path / 'set' / 'a.jpg', (1, 1))
    write_colours(tmp_path / 'set' / 'a.png', [[(1, 2, 3)]])
    names = [f'thing {number}' for number in range(20)]
    write_json(tmp_path / 'p.json', {f'{n},0,0': name for n, name in enumerate(names)})
    with pytest.raises(UnknownClassError, match='palette: found the class') as caught:
        open_dataset('masks:set,palette=p.json', tmp_path)
    said = str(caught.value)
    assert json.loads(said[said.index('{'):]) == dict.fromkeys(names, '?')


@pytest.mark.parametrize('spec', ['masks:set,palette=latin.txt', 'ids:set,split=latin.txt'])
def test_texts_of_another_encoding_are_refused(tmp_path: Path, spec: str) -> None:
    write_image(tmp_path / 'set' / 'a.jpg', (1, 1))
    write_ids(tmp_path / 'set' / 'a.png', [[0]])
    (tmp_path / 'latin.txt').write_bytes('0 0 0 stra\xdfe'.encode('latin-1'))
    with pytest.raises(DatasetError, match=r'latin\.txt: found 0xdf as byte 11, expected a text'):
        open_dataset(spec, tmp_path)


@pytest.mark.parametrize(('name', 'text', 'said'), [
    ('p.json', '{}', 'found no colour'),
    ('p.json', '{"red": "road"}', 'entry 1 is not one of colours'),
    ('p.json', '{"1,2,256": "road"}', 'entry 1 is not one of colours'),
    ('p.json', '{"1,2,3": 5}', 'entry 1 is not one of colours'),
    ('p.json', '{"1,2,3": "road", "#010203": "sky"}', r'found the colour .* for .road. and'),
    ('p.json', '[1]', 'found list, expected an object of colours'),
    ('p.txt', '1 2 3\n', 'entry 1 is not one of colours')])
def test_palettes_of_no_use_are_refused(
    tmp_path: Path, name: str, text: str, said: str,
) -> None:
    write_image(tmp_path / 'set' / 'a.jpg', (1, 1))
    write_colours(tmp_path / 'set' / 'a.png', [[(1, 2, 3)]])
    (tmp_path / name).write_text(text)
    with pytest.raises(DatasetError, match=rf'{name}: {said}'):
        open_dataset(f'masks:set,palette={name}', tmp_path)


def test_a_palette_is_needed(tmp_path: Path) -> None:
    write_image(tmp_path / 'set' / 'a.jpg', (1, 1))
    write_colours(tmp_path / 'set' / 'a.png', [[(1, 2, 3)]])
    with pytest.raises(DatasetError, match=r'colours need palette=FILE .* palette=bisenetv2_tf2'):
        open_dataset('masks:set', tmp_path)
    with pytest.raises(DatasetError, match=r'camvid: no such file or folder; looked for'):
        open_dataset('masks:set,palette=camvid', tmp_path)
    with pytest.raises(DatasetError, match=r"palette='set' is no file, expected one or bisenet"):
        open_dataset('masks:set,palette=set', tmp_path)


# -- ids -----------------------------------------------------------------------------------------


def test_ids_of_the_taxonomy_need_no_map(tmp_path: Path) -> None:
    write_image(tmp_path / 'set' / 'images' / 'a.jpg', (1, 5))
    write_ids(tmp_path / 'set' / 'labels' / 'a.png', [[0, 1, 2, 3, 255]])
    assert open_dataset('ids:set', tmp_path).read(0)[1].tolist() == [[0, 1, 2, 3, VOID]]
    write_ids(tmp_path / 'set' / 'labels' / 'a.png', [[0, 1, 2, 4, 255]])
    with pytest.raises(UnknownClassError, match=r'a\.png: found class id 4'):
        open_dataset('ids:set', tmp_path).read(0)


@pytest.mark.parametrize(('content', 'expected'), [
    ({'0': 'background', '7': 'road', '200': None}, [0, 1, VOID, VOID]),
    ({'7': 'road', '*': 'background'}, [0, 1, 0, 0]),
    ({'0': 'ground', '7': 'road', '200': 'void', '255': 'movable'}, [2, 1, VOID, 3])])
def test_ids_through_a_class_map(tmp_path: Path, content: dict, expected: list[int]) -> None:
    write_image(tmp_path / 'set' / 'a.jpg', (1, 4))
    write_ids(tmp_path / 'set' / 'a.png', [[0, 7, 200, 255]])
    write_json(tmp_path / 'map.json', content)
    dataset = open_dataset('ids:set,classes=map.json', tmp_path)
    assert dataset.read(0)[1].tolist() == [expected]


def test_ids_of_16_bits(tmp_path: Path) -> None:
    write_image(tmp_path / 'set' / 'a.jpg', (1, 3))
    write_ids(tmp_path / 'set' / 'a.png', np.array([[0, 26001, 65535]], np.uint16))
    write_json(tmp_path / 'map.json', {'0': 'road', '26001': 'movable', '65535': 'void'})
    dataset = open_dataset('ids:set,classes=map.json', tmp_path)
    assert dataset.read(0)[1].tolist() == [[1, 3, VOID]]


@pytest.mark.parametrize('depth', [1, 2, 4, 8])
@pytest.mark.parametrize('transparent', [False, True])
def test_indexed_masks_are_read_by_their_indices(
    tmp_path: Path, depth: int, transparent: bool,
) -> None:
    ids = np.array([[0, 1, 1], [1, 0, (1 << min(depth, 2)) - 1]], np.uint8)
    write_image(tmp_path / 'set' / 'a.jpg', (2, 3))
    # Two indices of one colour, so that the colours alone would not do.
    write_indexed(tmp_path / 'set' / 'a.png', ids, [(0, 0, 0), (128, 0, 0), (0, 0, 0), (1, 1, 1)][
        :1 << depth], depth, transparent)
    assert open_dataset('ids:set', tmp_path).read(0)[1].tolist() == ids.tolist()


@pytest.mark.parametrize('depth', [1, 2, 4, 8])
def test_masks_of_few_bits_keep_their_values(tmp_path: Path, depth: int) -> None:
    ids = np.array([[0, 1, 1], [1, 0, (1 << min(depth, 2)) - 1]], np.uint8)
    write_image(tmp_path / 'set' / 'a.jpg', (2, 3))
    write_indexed(tmp_path / 'set' / 'a.png', ids, [], depth)
    assert open_dataset('ids:set', tmp_path).read(0)[1].tolist() == ids.tolist()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=12), st.integers(0, 120), st.integers(0, 12))
def test_any_damage_to_a_mask_is_reported_as_such(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int, cut: int,
) -> None:
    path = tmp_path_factory.getbasetemp() / 'noise.png'
    write_indexed(path, np.arange(64, dtype=np.uint8).reshape(8, 8) % 4, [(0, 0, 0)] * 4, 2)
    whole = path.read_bytes()
    path.write_bytes(whole[:at] + noise + whole[at + cut:])
    with contextlib.suppress(UnreadableError):
        assert read_mask(path).dtype in (np.uint8, np.uint16)
        assert all(len(colour) == 3 for colour in colour_table(path))


def test_damaged_indexed_masks_are_refused(tmp_path: Path) -> None:
    write_image(tmp_path / 'set' / 'a.jpg', (30, 30))
    path = tmp_path / 'set' / 'a.png'
    write_indexed(path, np.arange(900, dtype=np.uint8).reshape(30, 30) % 4, [(0, 0, 0)] * 4)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UnreadableError, match=r'a\.png: not a readable image'):
        open_dataset('ids:set', tmp_path).read(0)


@pytest.mark.parametrize(('content', 'said'), [
    ({'road': 'road'}, "found 'road', expected class ids"),
    ({'65536': 'road'}, "found '65536', expected class ids"),
    ({'1': 'street'}, "for '1': taxonomy 'road': found the class 'street'")])
def test_maps_of_ids_of_no_use_are_refused(tmp_path: Path, content: dict, said: str) -> None:
    write_image(tmp_path / 'set' / 'a.jpg', (1, 1))
    write_ids(tmp_path / 'set' / 'a.png', [[1]])
    write_json(tmp_path / 'map.json', content)
    with pytest.raises(DatasetError, match=rf'map\.json: {said}'):
        open_dataset('ids:set,classes=map.json', tmp_path)


def test_masks_of_floats_are_refused(tmp_path: Path) -> None:
    write_image(tmp_path / 'set' / 'images' / 'a.jpg', (1, 1))
    (tmp_path / 'set' / 'labels').mkdir()
    cv2.imwrite(str(tmp_path / 'set/labels/a.tif'), np.array([[0.5]], np.float32))
    with pytest.raises(UnreadableError, match=r'found float32\[1, 1\], expected class ids'):
        open_dataset('ids:set', tmp_path).read(0)


# -- pairing -------------------------------------------------------------------------------------


def test_masks_with_something_behind_the_name(tmp_path: Path) -> None:
    write_image(tmp_path / 'set' / 'a.png', (1, 1))
    write_ids(tmp_path / 'set' / 'a_mask.png', [[1]])
    assert open_dataset('ids:set,suffix=_mask', tmp_path).read(0)[1].tolist() == [[1]]


def test_folders_of_ones_own(tmp_path: Path) -> None:
    write_image(tmp_path / 'camera' / 'left' / 'd1' / '1.jpg', (1, 1))
    write_ids(tmp_path / 'painted' / 'd1' / '1.png', [[1]])
    dataset = open_dataset('ids:camera,images=camera/left,labels=painted', tmp_path)
    assert (dataset.name(0), dataset.sequence(0)) == ('d1/1', 'd1')


def test_relative_paths_start_at_the_data_folder_or_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_image(tmp_path / 'here' / 'set' / 'a.jpg', (1, 1))
    write_ids(tmp_path / 'here' / 'set' / 'a.png', [[1]])
    monkeypatch.delenv('BISENET_DATA', raising=False)
    monkeypatch.chdir(tmp_path / 'here')
    assert len(open_dataset('ids:set', None)) == 1
    (tmp_path / 'data').mkdir()
    assert len(open_dataset('ids:set', tmp_path / 'data')) == 1
    write_image(tmp_path / 'data' / 'set' / 'b.jpg', (1, 1))
    write_ids(tmp_path / 'data' / 'set' / 'b.png', [[1]])
    assert open_dataset('ids:set', tmp_path / 'data').name(0) == 'b'
    monkeypatch.setenv('BISENET_DATA', str(tmp_path / 'data'))
    assert open_dataset('ids:set', None).name(0) == 'b'


def test_what_has_no_partner_is_noted(tmp_path: Path) -> None:
    write_image(tmp_path / 'set' / 'images' / 'a.jpg', (1, 1))
    write_image(tmp_path / 'set' / 'images' / 'b.jpg', (1, 1))
    write_ids(tmp_path / 'set' / 'labels' / 'a.png', [[1]])
    write_ids(tmp_path / 'set' / 'labels' / 'c.png', [[1]])
    dataset = open_frames('ids:set', tmp_path, ROAD, 'stop')
    assert len(dataset) == 1
    assert dataset.notes == ("left out: 1 image without labels, first 'b'",
                             "left out: 1 mask without an image, first 'c'")


def test_folders_that_do_not_pair_are_refused(tmp_path: Path) -> None:
    write_image(tmp_path / 'set' / 'images' / 'a.jpg', (1, 1))
    write_ids(tmp_path / 'set' / 'labels' / 'a_mask.png', [[1]])
    with pytest.raises(DatasetError, match=r"1 images in .* and 1 masks in .*, but no two of the "
                                           r"same name \(such as 'a' and 'a_mask'\)"):
        open_dataset('ids:set', tmp_path)
    write_ids(tmp_path / 'set' / 'labels' / 'a.png', [[1]])
    write_image(tmp_path / 'set' / 'images' / 'a.png', (1, 1))
    with pytest.raises(DatasetError, match=r'found a\.jpg and a\.png in .*expected one file'):
        open_dataset('ids:set', tmp_path)
    with pytest.raises(DatasetError, match='is a file, expected a folder of masks'):
        open_dataset('ids:set/images/a.jpg', tmp_path)


def test_masks_of_another_size_are_refused(tmp_path: Path) -> None:
    write_image(tmp_path / 'set' / 'a.jpg', (2, 2))
    write_ids(tmp_path / 'set' / 'a.png', [[1]])
    with pytest.raises(SizeError, match=r'a\.png: found 1x1 pixels, but its image has 2x2'):
        open_dataset('ids:set', tmp_path).read(0)


def test_parts_by_folder_and_prefix(tmp_path: Path) -> None:
    for drive in range(24):
        write_image(tmp_path / 'set' / f'd{drive}' / f'p{drive}_1.jpg', (1, 1))
        write_ids(tmp_path / 'set' / f'd{drive}' / f'p{drive}_1.png', [[1]])
    for by, letter in (('folder', 'd'), ('prefix', 'p')):
        parts = [open_dataset(f'ids:set,part={part},by={by},every=3', tmp_path)
                 for part in ('train', 'val')]
        names = [{part.name(i) for i in range(len(part))} for part in parts]
        assert len(names[0] | names[1]) == 24 and not names[0] & names[1]
        expected = {n for n in range(24) if zlib.crc32(f'{letter}{n}'.encode()) % 3 == 0}
        assert names[1] == {f'd{n}/p{n}_1' for n in expected}


def test_split_files_of_stems_that_are_not_unique(tmp_path: Path) -> None:
    for folder in ('x', 'y'):
        write_image(tmp_path / 'set' / folder / 'a.jpg', (1, 1))
        write_ids(tmp_path / 'set' / folder / 'a.png', [[1]])
    (tmp_path / 'some.txt').write_text('y/a.jpg\n')
    assert open_dataset('ids:set,split=some.txt', tmp_path).name(0) == 'y/a'
    (tmp_path / 'some.txt').write_text('a\n')
    with pytest.raises(DatasetError, match="1 of its lines name several frames, first 'a'; write"):
        open_dataset('ids:set,split=some.txt', tmp_path)
