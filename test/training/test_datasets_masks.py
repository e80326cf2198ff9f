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
from written_datasets import (
    turn_by_exif, write_colours, write_ids, write_image, write_json, write_pair,
)

from training.datasets import (
    TAXONOMIES, VOID, DatasetError, SizeError, UnknownClassError, UnreadableError, open_dataset,
)
from training.datasets.guess import guess
from training.datasets.headers import changed_by_decoder
from training.datasets.images import colour_table, read_mask
from training.datasets.opening import open_frames
from training.datasets.overlap import shared_frames
from training.datasets.own import files_in, sequence_of

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


@pytest.mark.parametrize(('spec', 'masks'), [
    ('ids:set', 'set/masks/{}.jpg'), ('ids:set,labels=truth', 'truth/{}.JPG'),
    ('masks:set,palette=cityscapes', 'set/labels/{}.jpg'),
    ('ids:set/images,suffix=_mask', 'set/images/{}_mask.jpg')])
def test_masks_saved_as_jpeg_are_refused(tmp_path: Path, spec: str, masks: str) -> None:
    for stem in ('a', 'b'):
        write_image(tmp_path / 'set' / 'images' / f'{stem}.jpg', (1, 1))
        write_image(tmp_path / masks.format(stem), (1, 1))
    with pytest.raises(DatasetError, match=(
            rf'{Path(masks).parent}: holds 2 \.jpg, but no \.png: masks must be PNG .* as PNG')):
        open_dataset(spec, tmp_path)


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


def tiff_of(ids: np.ndarray, bits: int, photometric: int, order: str = '<') -> bytes:
    """Return an uncompressed TIFF file."""
    height, width = ids.shape
    rows = b''.join(np.packbits(np.unpackbits(
        row[:, None], axis=1)[:, 8 - bits:].ravel()).tobytes() for row in ids)
    tags = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric),
            (273, 4, 8), (277, 3, 1), (278, 4, height), (279, 4, len(rows))]
    entries = b''.join(
        struct.pack(f'{order}HHI', tag, kind, 1)
        + (struct.pack(f'{order}I', value) if kind == 4 else struct.pack(f'{order}HH', value, 0))
        for tag, kind, value in tags)
    magic = b'II*\0' if order == '<' else b'MM\0*'
    return (magic + struct.pack(f'{order}I', 8 + len(rows)) + rows
            + struct.pack(f'{order}H', len(tags)) + entries + bytes(4))


def bmp_of(ids: np.ndarray, bits: int, table: list[tuple[int, int, int]]) -> bytes:
    """Return a BMP file with a colour table (BGR)."""
    height, width = ids.shape
    rows = b''
    for row in ids[::-1]:
        packed = np.packbits(
            np.unpackbits(row[:, None], axis=1)[:, 8 - bits:].ravel()).tobytes()
        rows += packed + bytes(-len(packed) % 4)
    colours = b''.join(bytes(colour) + b'\0' for colour in table)
    start = 54 + len(colours)
    return (b'BM' + struct.pack('<IHHI', start + len(rows), 0, 0, start)
            + struct.pack('<IiiHHIIiiII', 40, width, height, 1, bits, 0, len(rows), 0, 0,
                          len(table), 0) + colours + rows)


TWO_IDS = np.array([[0, 1, 1], [1, 0, 1]], np.uint8)
GREYS = [(value, value, value) for value in range(256)]


@pytest.mark.parametrize(('name', 'content', 'found'), [
    ('a.tif', tiff_of(TWO_IDS, 1, 1), '1 bit a pixel'),
    ('a.tiff', tiff_of(TWO_IDS, 1, 1, '>'), '1 bit a pixel'),
    ('a.tif', tiff_of(TWO_IDS, 4, 1), '4 bits a pixel'),
    ('a.tif', tiff_of(TWO_IDS, 8, 0), 'white stored as 0'),
    ('a.tif', tiff_of(TWO_IDS, 8, 3), 'a colour table'),
    ('a.bmp', bmp_of(TWO_IDS, 1, [(0, 0, 0), (255, 255, 255)]), '1 bit a pixel and a colour'),
    ('a.bmp', bmp_of(TWO_IDS, 8, [(0, 0, 0), (255, 255, 255)]), '8 bits a pixel and a colour'),
    ('a.pgm', b'P2\n3 2\n1\n0 1 1\n1 0 1\n', 'a largest value of 1'),
    ('a.pgm', b'P2 # by hand\n# 9 9\n3 2 254 0 1 1 1 0 1', 'a largest value of 254'),
    ('a.ppm', b'P3\n1 1\n3\n0 1 2\n', 'a largest value of 3'),
    ('a.pgm', b'P4\n3 2\n' + np.packbits(TWO_IDS, axis=1).tobytes(), '1 bit a pixel'),
])
def test_masks_whose_numbers_would_change_are_refused(
    tmp_path: Path, name: str, content: bytes, found: str,
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableError, match=(
            rf'{name}: found {found}.*, expected class ids of 8 or 16 bits, .*; save it as PNG')):
        read_mask(tmp_path / name)


@pytest.mark.parametrize(('name', 'content'), [
    ('a.tif', tiff_of(TWO_IDS, 8, 1)), ('a.tif', tiff_of(TWO_IDS, 8, 1, '>')),
    ('a.bmp', bmp_of(TWO_IDS, 8, GREYS)), ('a.bmp', bmp_of(TWO_IDS, 1, GREYS[:2])),
    ('a.pgm', b'P5\n3 2\n3\n' + TWO_IDS.tobytes()),
    ('a.pgm', b'P2\n3 2\n255\n0 1 1\n1 0 1\n'),
    ('a.pgm', b'P2\n3 2\n65535\n0 1 1\n1 0 1\n'),
])
def test_masks_whose_numbers_stay_are_read(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    np.testing.assert_array_equal(read_mask(tmp_path / name), TWO_IDS)


@pytest.mark.parametrize(('suffix', 'dtype'), [
    ('.bmp', np.uint8), ('.tif', np.uint8), ('.tif', np.uint16), ('.png', np.uint16)])
def test_masks_that_opencv_wrote_come_back(tmp_path: Path, suffix: str, dtype: type) -> None:
    ids = np.arange(12, dtype=dtype).reshape(3, 4)
    np.testing.assert_array_equal(read_mask(write_ids(tmp_path / f'a{suffix}', ids)), ids)


@settings(max_examples=200)
@given(st.sampled_from([tiff_of(TWO_IDS, 1, 1), bmp_of(TWO_IDS, 8, GREYS)]), st.data())
def test_headers_that_are_damaged_raise_nothing(content: bytes, data: st.DataObject) -> None:
    damaged = bytearray(content[:data.draw(st.integers(0, len(content)))])
    for _ in range(3):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    assert isinstance(changed_by_decoder(bytes(damaged)), str)


def test_a_header_that_states_more_colours_than_there_are_ids_raises_nothing() -> None:
    damaged = bytearray(bmp_of(TWO_IDS, 8, GREYS))
    damaged[46:50] = (300).to_bytes(4, 'little')
    assert changed_by_decoder(bytes(damaged)) == ''


# -- sequences and folders -----------------------------------------------------------------------


@pytest.mark.parametrize(('names', 'drive'), [
    (('1618309012.500000', '1618309013.0'), '.'),
    (('1618309012_500000000', '1618309012_50000'), '.'),
    (('lab-1618309012-500000000', 'lab_1618309013.25'), 'lab'),
    (('frame_00012_left', 'frame_00012_right', 'frame_13_Front_RGB'), 'frame'),
    (('00012_rgb', '7.color'), '.'),
    (('bonn_000003_000019_leftImg8bit',), 'bonn_000003'),
    (('0001TP_006690',), '0001TP'), (('005_123456',), '005'),
    (('drive_0002_000123',), 'drive_0002'), (('train_0_024541',), 'train_0'),
    (('20240501123000_0001',), '20240501123000'), (('1618309012_0001',), '1618309012'),
    (('lab_3_rgb0001', 'lab_3_rgb_2'), 'lab_3_rgb'), (('lane_left',), 'lane_left'),
    (('north/00012_left',), 'north'),
    (('lab_0001_cam2', 'lab_0002_CAM12', 'lab_3_camera1', 'lab_4_cam1_rgb'), 'lab'),
    (('cam2_0001',), 'cam2'), (('day3_cam_0001', 'day3_cam_0002'), 'day3_cam'),
])
def test_drives_are_told_by_names(names: tuple[str, ...], drive: str) -> None:
    assert {sequence_of(name) for name in names} == {drive}


def test_drives_that_names_hardly_tell_are_noted(tmp_path: Path) -> None:
    for number in range(16):
        write_pair(tmp_path / 'set', f'{number // 2:03d}-{number}x', [[1]])
    dataset = open_frames('ids:set', tmp_path, ROAD, 'stop')
    assert dataset.notes == (
        "16 of 16 drives guessed from file names hold at most 6 frames, such as '000-0x'; if "
        'neighbours are told apart so, part= puts some into train and some into val: group them '
        'otherwise (by=prefix, by=folder), list them (split=FILE), or say that they are no '
        'neighbours (by=name)',)
    assert open_frames('ids:set,by=name', tmp_path, ROAD, 'stop').notes == ()
    assert open_frames('ids:set,by=folder', tmp_path, ROAD, 'stop').notes == ()
    assert 'such as' in open_frames('ids:set,by=prefix', tmp_path, ROAD, 'stop').notes[0]
    assert open_dataset('ids:set', tmp_path, on_bad='skip').notes == dataset.notes
    for number in range(16):
        (tmp_path / 'set' / 'labels' / f'{number // 2:03d}-{number}x.png').rename(
            tmp_path / 'set' / 'labels' / f'lab_{number}.png')
        (tmp_path / 'set' / 'images' / f'{number // 2:03d}-{number}x.jpg').rename(
            tmp_path / 'set' / 'images' / f'lab_{number}.jpg')
    assert open_frames('ids:set', tmp_path, ROAD, 'stop').notes == ()


def test_instants_of_several_cameras_are_noted(tmp_path: Path) -> None:
    """Of a rig whose cameras' names say nothing, each instant looks like a drive."""
    for number in range(32):
        write_pair(tmp_path / 'set', f'run_{number // 4:03d}_x{number % 4}y', [[1]])
    [note] = open_frames('ids:set', tmp_path, ROAD, 'stop').notes
    assert note.startswith('32 of 32 drives') and 'at most 6 frames' in note
    [note] = open_frames('ids:set,by=sequence', tmp_path, ROAD, 'stop').notes
    assert note.startswith('32 of 32 drives')


def test_links_to_folders_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    write_pair(tmp_path / 'elsewhere', 'a_1', [[1]])
    for kind in ('images', 'labels'):
        (tmp_path / 'set' / kind / 'day').mkdir(parents=True)
        (tmp_path / 'set' / kind / 'day' / 'linked').symlink_to(tmp_path / 'elsewhere' / kind)
        (tmp_path / 'set' / kind / 'day' / 'loop').symlink_to(tmp_path / 'set')
        (tmp_path / 'set' / kind / 'gone').symlink_to(tmp_path / 'nowhere')
    dataset = open_dataset('ids:set', tmp_path)
    assert (len(dataset), dataset.name(0)) == (1, 'day/linked/a_1')
    assert dataset.read(0)[1].tolist() == [[1]]
    assert guess(tmp_path / 'set').specs == (f'ids:{tmp_path / "set"}',)


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    for name in ('b/2.png', 'b/1.PNG', 'a.png', '._a.png', '.cache/c.png', 'b/d.txt'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert files_in(tmp_path, ('.png',)) == [
        tmp_path / name for name in ('a.png', 'b/1.PNG', 'b/2.png')]


def test_folders_that_cannot_be_read_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    def closed(path: Path) -> None:
        raise PermissionError(13, 'Permission denied', str(path))

    monkeypatch.setattr(Path, 'iterdir', closed)
    with pytest.raises(UnreadableError, match=r': cannot be read \(Permission denied\), expected'):
        files_in(tmp_path, ('.png',))


@pytest.mark.parametrize(('orientation', 'named'), [(6, True), (1, False)])
def test_a_picture_that_exif_turns_is_named(
    tmp_path: Path, orientation: int, named: bool,
) -> None:
    write_pair(tmp_path / 'set', 'a', [[1, 1]] if named else [[1]], (1, 2))
    turn_by_exif(tmp_path / 'set' / 'images' / 'a.jpg', orientation)
    with pytest.raises(SizeError, match=r'its image has .*; they must be equal\.') as caught:
        open_dataset('ids:set', tmp_path).read(0)
    assert ('stored as 2x1 and turned by its Exif orientation' in str(caught.value)) == named


def test_labels_of_other_classes_are_refused(tmp_path: Path) -> None:
    """``training.pseudo_labels`` says which classes its ids mean."""
    write_pair(tmp_path / 'more', 'a_1', [[1, 2]])
    origin = tmp_path / 'more' / 'origin.json'
    origin.write_text(json.dumps({'run': 'runs/old'}))  # of an older version
    assert open_dataset('ids:more', tmp_path).read(0)[1].tolist() == [[1, 2]]
    origin.write_text(json.dumps({'classes': list(ROAD.classes)}))
    assert open_dataset('ids:more', tmp_path).read(0)[1].tolist() == [[1, 2]]
    origin.write_text(json.dumps({'classes': ['background', 'road', 'plant']}))
    with pytest.raises(DatasetError, match=(
            r"origin\.json: found labels of the classes \['background', 'road', 'plant'\], exp.* "
            r"those of taxonomy 'road'")):
        open_dataset('ids:more', tmp_path)
    (tmp_path / 'map.json').write_text('{"1": "road", "2": "ground"}')
    assert open_dataset('ids:more,classes=map.json', tmp_path).read(0)[1].tolist() == [[1, 2]]


def test_a_key_twice_in_a_class_map_is_refused(tmp_path: Path) -> None:
    write_pair(tmp_path / 'set', 'a_1', [[10]])
    (tmp_path / 'map.json').write_text('{"10": "background", "10": "road"}')
    with pytest.raises(DatasetError, match=r"map\.json: .*found the key '10' twice, expected it"):
        open_dataset('ids:set,classes=map.json', tmp_path)


def test_frames_that_are_trained_on_and_scored_are_named(tmp_path: Path) -> None:
    for number in range(4):
        write_pair(tmp_path / 'set', f'a_{number}', [[1]])
    (tmp_path / 'linked').symlink_to(tmp_path / 'set')
    (tmp_path / 'val.txt').write_text('a_2\na_3\n')

    def told(train: str, held_out: str, on_bad: str = 'stop') -> str:
        return shared_frames(*(
            (name, open_dataset(name, tmp_path, on_bad=on_bad)) for name in (train, held_out)))

    note = ("ids:linked,split=val.txt: 2 of 2 frames (first 'a_2') are in ids:set, which is "
            'trained on, as well: the score tells how well they are remembered; take them out of '
            'one of the two')
    assert told('ids:set', 'ids:linked,split=val.txt') == note
    assert told('ids:set', 'ids:linked,split=val.txt', 'skip') == note
    (tmp_path / 'train.txt').write_text('a_0\na_1\n')
    assert told('ids:set,split=train.txt', 'ids:set,split=val.txt') == ''
    assert told('synthetic:3', 'synthetic:3').startswith('synthetic:3: 3 of 3 frames are in')
    assert told('synthetic:3', 'synthetic:3:1') == told('synthetic:3', 'ids:set') == ''
