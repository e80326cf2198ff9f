"""Every label arrives exactly as it is in its file, and no split cuts through a drive."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from written_datasets import write_ids, write_image, write_json, write_pair, write_split

from training.datasets import (
    ROAD, TAXONOMIES, TAXONOMY, VOID, DatasetError, FrameDataset, SizeError, SyntheticDrive,
    Taxonomy, Tolerant, UnknownClassError, UnreadableError, data_root, load_taxonomy,
    open_dataset, readable,
)
from training.datasets.selection import kept_apart
from training.datasets.tables import CAMVID_IDS, CAMVID_TO, IDD_LITE_IDS, IDD_LITE_TO

DATA = Path(__file__).resolve().parents[2] / '..' / 'shared' / 'data'
needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason=f'the data sets are not there ({DATA.name} beside the project)')


def camvid_of(tmp_path: Path, stems: list[str], split: str = 'train') -> FrameDataset:
    write_split(tmp_path / 'camvid', split, stems)
    return open_dataset(f'camvid:{split}', tmp_path)


def drives(dataset: FrameDataset) -> set[str]:
    return {dataset.sequence(index) for index in range(len(dataset))}


# -- taxonomies --------------------------------------------------------------------------------


def test_taxonomies_have_the_ids_that_others_rely_on() -> None:
    assert TAXONOMIES['road'].classes == TAXONOMY == ('background', 'road', 'ground', 'movable')
    assert TAXONOMIES['camvid11'].classes.index('road') == 3
    assert len(TAXONOMIES['camvid11'].classes) == 11
    cityscapes = TAXONOMIES['cityscapes19'].classes
    assert len(cityscapes) == 19
    assert [cityscapes[i] for i in (0, 1, 8, 10, 13, 18)] == [
        'road', 'sidewalk', 'vegetation', 'sky', 'car', 'bicycle']


def test_taxonomy_from_a_file(tmp_path: Path) -> None:
    plain = write_json(tmp_path / 'yard.json', ['rest', 'gravel'])
    assert load_taxonomy(str(plain)) == Taxonomy('yard', ('rest', 'gravel'))
    named = write_json(tmp_path / 'other.json', {'name': 'farm', 'classes': ['a', 'b']})
    assert load_taxonomy(str(named)) == Taxonomy('farm', ('a', 'b'))
    assert load_taxonomy('road') is TAXONOMIES['road']


@pytest.mark.parametrize(('content', 'said'), [
    ('5', 'found int, expected a list of class names'),
    ('{"names": []}', 'found dict, expected a list of class names'),
    ('[', 'not readable as JSON'),
    ('["a", "a"]', "class name 'a' twice"),
    ('["a", "void"]', "class name 'void' reserved"),
    ('["a", 3]', 'class name 3, expected a text'),
    ('[]', 'found 0 classes, expected 1 to 255')])
def test_taxonomies_of_no_use_are_refused(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / 'classes.json'
    path.write_text(content)
    with pytest.raises(DatasetError, match=said):
        load_taxonomy(str(path))


def test_unknown_taxonomies_and_classes_are_refused() -> None:
    with pytest.raises(DatasetError, match="found 'kitti', expected road, camvid11, cityscapes19"):
        load_taxonomy('kitti')
    with pytest.raises(DatasetError, match="found the class 'kerb', expected one of background"):
        TAXONOMIES['road'].id_of('kerb')
    assert TAXONOMIES['road'].id_of('void') == VOID


# -- label tables ----------------------------------------------------------------------------


def test_camvid_classes(tmp_path: Path) -> None:
    # sky building pole | road pavement tree | sign fence car | pedestrian bicyclist void
    write_pair(tmp_path / 'camvid', '0001TP_1', np.arange(12).reshape(4, 3))
    dataset = camvid_of(tmp_path, ['0001TP_1'])
    assert len(dataset) == 1
    assert (dataset.name(0), dataset.sequence(0)) == ('0001TP_1', '0001TP')
    rgb, labels = dataset.read(0)
    np.testing.assert_array_equal(labels, [[0, 0, 0], [1, 2, 0], [0, 0, 3], [3, 3, VOID]])
    assert labels.dtype == np.uint8
    assert rgb.shape == (4, 3, 3)
    assert (rgb[..., 0] > 150).all() and (rgb[..., 2] < 80).all()  # red first


@pytest.mark.parametrize(('name', 'expected'), [
    ('camvid11', [*range(11), VOID]),
    ('cityscapes19', [10, 2, 5, 0, 1, 8, VOID, 4, 13, 11, VOID, VOID])])
def test_camvid_in_other_taxonomies(tmp_path: Path, name: str, expected: list[int]) -> None:
    write_pair(tmp_path / 'camvid', 'a_1', np.arange(12).reshape(1, 12))
    write_split(tmp_path / 'camvid', 'val', ['a_1'])
    _, labels = open_dataset('camvid:val', tmp_path, TAXONOMIES[name]).read(0)
    assert labels.tolist() == [expected]


def test_idd_lite_classes(tmp_path: Path) -> None:
    # drivable, non-drivable, living, vehicles | roadside, far, sky, void
    write_pair(tmp_path / 'idd_lite', 'train_5_1', [[0, 1, 2, 3], [4, 5, 6, 255]])
    write_split(tmp_path / 'idd_lite', 'train', ['train_5_1'])
    split = 'val' if kept_apart('5') else 'train'
    _, labels = open_dataset(f'idd_lite:{split}', tmp_path).read(0)
    np.testing.assert_array_equal(labels, [[1, 2, 3, 3], [0, 0, 0, VOID]])


@pytest.mark.parametrize(('ids', 'tables'), [
    (CAMVID_IDS, CAMVID_TO), (IDD_LITE_IDS, IDD_LITE_TO)])
def test_tables_name_every_source_class_and_reach_every_road_class(
    ids: dict[int, str], tables: dict[str, dict[str, str]],
) -> None:
    for name, table in tables.items():
        assert set(table) == set(ids.values()) - {'void'}, name
        assert set(table.values()) <= {*TAXONOMIES[name].classes, 'void'}
    assert set(tables['road'].values()) == set(TAXONOMY)


def test_a_taxonomy_of_ones_own_needs_a_class_map(tmp_path: Path) -> None:
    write_pair(tmp_path / 'camvid', 'a_1', [[3, 4, 0, 11]])
    write_split(tmp_path / 'camvid', 'val', ['a_1'])
    own = Taxonomy('own', ('rest', 'way'))
    with pytest.raises(UnknownClassError, match=r"camvid:val: found the class 'sky', .*'road'"):
        open_dataset('camvid:val', tmp_path, own)
    write_json(tmp_path / 'map.json', {'road': 'way', 'pavement': None, '*': 'rest'})
    dataset = open_dataset('camvid:val,classes=map.json', tmp_path, own)
    assert dataset.read(0)[1].tolist() == [[1, VOID, 0, VOID]]


def test_a_taxonomy_file_may_be_called_as_a_built_in_one(tmp_path: Path) -> None:
    write_pair(tmp_path / 'camvid', 'a_1', [[3, 4, 0, 11]])
    write_split(tmp_path / 'camvid', 'val', ['a_1'])
    write_json(tmp_path / 'map.json', {'road': 'road', '*': 'rest'})
    own = load_taxonomy(str(write_json(tmp_path / 'road.json', ['rest', 'road'])))
    dataset = open_dataset('camvid:val,classes=map.json', tmp_path, own)
    assert dataset.read(0)[1].tolist() == [[1, 0, 0, VOID]]
    with pytest.raises(UnknownClassError, match="camvid:val: found the class 'sky'"):
        open_dataset('camvid:val', tmp_path, own)


def test_groups_whose_names_are_no_utf_8_are_told_apart_too() -> None:
    names = [os.fsdecode(f'stra\N{LATIN SMALL LETTER SHARP S}e {n}'.encode('latin-1'))
             for n in range(200)]
    assert any('\udcdf' in name for name in names)
    assert 5 < sum(kept_apart(name) for name in names) < 60


def test_a_class_map_goes_before_the_built_in_table(tmp_path: Path) -> None:
    write_pair(tmp_path / 'camvid', 'a_1', [[3, 4, 8, 11]])
    write_split(tmp_path / 'camvid', 'val', ['a_1'])
    write_json(tmp_path / 'map.json', {'pavement': 'road', 'void': 'background'})
    dataset = open_dataset('camvid:val,classes=map.json', tmp_path)
    assert dataset.read(0)[1].tolist() == [[1, 1, 3, 0]]


@pytest.mark.parametrize(('content', 'said'), [
    ({'road': 'street'}, "for 'road': taxonomy 'road': found the class 'street'"),
    ({'road': 3}, "found 3 for 'road', expected a class name"),
    (['road'], 'found list, expected an object from source class to class')])
def test_class_maps_of_no_use_are_refused(tmp_path: Path, content: object, said: str) -> None:
    write_pair(tmp_path / 'camvid', 'a_1', [[3]])
    write_split(tmp_path / 'camvid', 'val', ['a_1'])
    write_json(tmp_path / 'map.json', content)
    with pytest.raises(DatasetError, match=rf'map\.json: {said}'):
        open_dataset('camvid:val,classes=map.json', tmp_path)


# -- faults ----------------------------------------------------------------------------------


def test_missing_files_are_counted_and_the_first_named(tmp_path: Path) -> None:
    write_pair(tmp_path / 'camvid', 'a', [[0, 0]])
    (tmp_path / 'camvid' / 'images' / 'c.jpg').touch()
    with pytest.raises(DatasetError, match=r'3 of 6 listed files are missing, first .*b\.jpg'):
        camvid_of(tmp_path, ['a', 'b', 'c'])


def test_ids_outside_the_table_are_refused(tmp_path: Path) -> None:
    write_pair(tmp_path / 'camvid', 'a', [[0, 12, 12, 77]])
    with pytest.raises(UnknownClassError, match=r'a\.png: found class id 12, 77, .* not name'
                       ) as caught:
        camvid_of(tmp_path, ['a']).read(0)
    assert caught.value.counts == {'id 12': 2, 'id 77': 1}


def test_labels_of_another_size_are_refused(tmp_path: Path) -> None:
    write_pair(tmp_path / 'camvid', 'a', np.zeros((4, 6)), image_hw=(4, 8))
    with pytest.raises(SizeError, match=r'a\.png: found 6x4 pixels, but its image has 8x4'):
        camvid_of(tmp_path, ['a']).read(0)


def test_coloured_labels_are_refused(tmp_path: Path) -> None:
    write_pair(tmp_path / 'camvid', 'a', np.zeros((4, 6, 3)), image_hw=(4, 6))
    with pytest.raises(UnreadableError, match=r'found uint8\[4, 6, 3\], expected one channel'):
        camvid_of(tmp_path, ['a']).read(0)


@pytest.mark.parametrize('broken', ['images/a.jpg', 'labels/a.png'])
@pytest.mark.parametrize('share', [0.0, 0.2, 0.9])
def test_unreadable_files_are_named(tmp_path: Path, broken: str, share: float) -> None:
    write_pair(tmp_path / 'camvid', 'a', np.arange(12).repeat(20).reshape(12, 20))
    path = tmp_path / 'camvid' / broken
    content = path.read_bytes()
    path.write_bytes(content[:int(len(content) * share)])
    with pytest.raises(UnreadableError, match=f'{path.name}: not a readable image'):
        camvid_of(tmp_path, ['a']).read(0)


def test_unknown_splits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r'found no folder .*camvid; put the data set there'):
        open_dataset('camvid:nope', tmp_path)
    write_split(tmp_path / 'camvid', 'val', ['a'])
    with pytest.raises(DatasetError, match=r"no split 'nope' in .*; the splits there are val\.$"):
        open_dataset('camvid:nope', tmp_path)
    write_split(tmp_path / 'idd_lite', 'train', ['train_5_1'])
    with pytest.raises(DatasetError, match="idd_lite: found split 'test', expected train or val"):
        open_dataset('idd_lite:test', tmp_path)


@pytest.mark.parametrize('spec', [
    'camvid', 'idd_lite', 'kitti:train', 'synthetic', 'synthetic:x', 'synthetic:-1',
    'synthetic:1:2:3', 'synthetic:', ''])
def test_unknown_names_are_refused(tmp_path: Path, spec: str) -> None:
    with pytest.raises(DatasetError, match=r'data set: found .* expected .*synthetic:COUNT'):
        open_dataset(spec, tmp_path)


def test_misspelt_kinds_come_with_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r'SEED\]\. Did you mean labelme:photos,part=val\?$'):
        open_dataset('lableme:photos,part=val', tmp_path)
    with pytest.raises(DatasetError, match=r'expected camvid:SPLIT.*SEED\]\.$'):
        open_dataset('kitti:train', tmp_path)


def test_a_bare_path_is_told_where_to_ask(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r'training\.datasets check \S+ tells which kind'):
        open_dataset(str(tmp_path), tmp_path)


def test_unknown_keys_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="found the key 'palette' .* takes path=, classes="):
        open_dataset('camvid:train,palette=x', tmp_path)
    with pytest.raises(DatasetError, match="found 'part' twice, expected it once"):
        open_dataset('camvid:train,part=val,part=val', tmp_path)
    with pytest.raises(DatasetError, match="found 'split' empty, expected it once, with a value"):
        open_dataset('camvid:train,split=', tmp_path)


def test_data_folder_from_argument_or_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv('BISENET_DATA', raising=False)
    with pytest.raises(DatasetError, match='pass --data FOLDER or set BISENET_DATA'):
        data_root(None)
    monkeypatch.setenv('BISENET_DATA', str(tmp_path))
    assert data_root(None) == tmp_path
    assert data_root(tmp_path / '..') == tmp_path / '..'
    with pytest.raises(DatasetError, match='is not a folder'):
        data_root(tmp_path / 'absent')


def test_data_sets_without_frames_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match='found a split without frames'):
        camvid_of(tmp_path, [])
    with pytest.raises(DatasetError, match='found 0 frames, expected at least one'):
        open_dataset('synthetic:0', None)


# -- going on without bad files ----------------------------------------------------------------


def spoilt(tmp_path: Path, bad: set[int], count: int = 8) -> Path:
    """Write frames whose only label is their number, some of them cut off."""
    stems = [f'a_{index}' for index in range(count)]
    for index, stem in enumerate(stems):
        write_pair(tmp_path / 'camvid', stem, [[3] * (index + 1)])
        if index in bad:
            (tmp_path / 'camvid' / 'labels' / f'{stem}.png').write_bytes(b'\x89PNG')
    write_split(tmp_path / 'camvid', 'train', stems)
    return tmp_path


def widths(dataset: FrameDataset) -> list[int]:
    return [dataset.read(index)[1].shape[1] - 1 for index in range(len(dataset))]


def test_bad_frames_are_replaced_by_the_next_good_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    dataset = open_dataset('camvid:train', spoilt(tmp_path, {2, 3, 7}), on_bad='skip')
    assert isinstance(dataset, Tolerant)
    assert widths(dataset) == widths(dataset) == [0, 1, 4, 4, 4, 5, 6, 0]
    assert [Path(fault.split(': ')[0]).name for fault in dataset.faults] == [
        'a_2.png', 'a_3.png', 'a_7.png']
    assert capsys.readouterr().err.count('camvid:train: left out: ') == 3  # each of them once


def test_replacements_do_not_depend_on_what_was_read_before(tmp_path: Path) -> None:
    root = spoilt(tmp_path, {2, 3, 7})
    backwards = open_dataset('camvid:train', root, on_bad='skip')
    found = [backwards.read(index)[1].shape[1] - 1 for index in reversed(range(8))]
    assert found[::-1] == [0, 1, 4, 4, 4, 5, 6, 0]


def test_missing_files_are_left_out_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    root = spoilt(tmp_path, set(), count=4)
    (root / 'camvid' / 'images' / 'a_1.jpg').unlink()
    dataset = open_dataset('camvid:train', root, on_bad='skip')
    assert widths(dataset) == [0, 2, 3]
    assert isinstance(dataset, Tolerant) and len(dataset.faults) == 1
    assert 'a_1.jpg: listed, but missing' in capsys.readouterr().err


def test_a_frame_without_any_file_is_one_fault(tmp_path: Path) -> None:
    root = spoilt(tmp_path, set(), count=3)
    (root / 'camvid' / 'images' / 'a_1.jpg').unlink()
    (root / 'camvid' / 'labels' / 'a_1.png').unlink()
    dataset = open_dataset('camvid:train', root, on_bad='skip')
    assert isinstance(dataset, Tolerant) and len(dataset.faults) == 1
    named = [Path(word.rstrip(':')).name for word in dataset.faults[0].split()]
    assert named[:4] == ['a_1.jpg', 'and', 'a_1.png', 'listed,']


def test_a_set_of_mostly_missing_frames_is_refused(tmp_path: Path) -> None:
    root = spoilt(tmp_path, {0}, count=5)
    for stem in ('a_1', 'a_2'):
        (root / 'camvid' / 'images' / f'{stem}.jpg').unlink()
    dataset = open_dataset('camvid:train', root, on_bad='skip')
    with pytest.raises(DatasetError, match='3 of 5 frames cannot be used, .* too many'):
        dataset.read(0)  # one more that is damaged
    (root / 'camvid' / 'images' / 'a_3.jpg').unlink()
    with pytest.raises(DatasetError, match=r'3 of 5 frames .* one: .*a_3\.jpg: listed, but miss'):
        open_dataset('camvid:train', root, on_bad='skip')


def test_a_set_of_mostly_bad_frames_is_refused(tmp_path: Path) -> None:
    dataset = open_dataset('camvid:train', spoilt(tmp_path, {0, 1, 2}, count=4), on_bad='skip')
    with pytest.raises(DatasetError, match='3 of 4 frames cannot be used, .* too many'):
        dataset.read(0)
    assert widths(dataset) == [3, 3, 3, 3]


def test_scores_see_every_good_frame_once(tmp_path: Path) -> None:
    root = spoilt(tmp_path, {0, 5})
    tolerant = open_dataset('camvid:train', root, on_bad='skip')
    assert widths(readable(tolerant)) == [1, 2, 3, 4, 6, 7]
    assert isinstance(tolerant, Tolerant) and len(tolerant.faults) == 2
    subset = readable(open_dataset('camvid:train', root))
    assert [subset.name(0), subset.sequence(0), len(subset)] == ['a_1', 'a', 6]


def test_a_bad_frame_stops_by_default(tmp_path: Path) -> None:
    dataset = open_dataset('camvid:train', spoilt(tmp_path, {1}))
    dataset.read(0)
    with pytest.raises(UnreadableError, match=r'a_1\.png: not a readable image'):
        dataset.read(1)


# -- splits ----------------------------------------------------------------------------------


def test_idd_split_never_cuts_through_a_drive(tmp_path: Path) -> None:
    root = tmp_path / 'idd_lite'
    stems = [f'train_{drive}_{frame:06d}' for drive in range(60) for frame in range(2)]
    for stem in stems:
        write_pair(root, stem, np.zeros((2, 2)))
    write_split(root, 'train', stems)
    train, val = (open_dataset(f'idd_lite:{split}', tmp_path) for split in ('train', 'val'))
    assert not drives(train) & drives(val)
    assert drives(train) | drives(val) == {str(drive) for drive in range(60)}
    assert len(train) + len(val) == len(stems)
    assert 0 < len(val) < len(train)


def test_parts_of_a_set_share_no_drive_and_miss_no_frame(tmp_path: Path) -> None:
    stems = [f'd{drive}_{frame}' for drive in range(30) for frame in range(3)]
    for stem in stems:
        write_pair(tmp_path / 'camvid', stem, [[3]])
    write_split(tmp_path / 'camvid', 'train', stems)
    train, val = (open_dataset(f'camvid:train,part={part},every=4', tmp_path)
                  for part in ('train', 'val'))
    assert not drives(train) & drives(val)
    assert len(train) + len(val) == 90
    assert {val.name(i) for i in range(len(val))} == {
        stem for stem in stems if kept_apart(stem.split('_')[0], 4)}


def test_split_files_choose_frames(tmp_path: Path) -> None:
    for stem in ('a_1', 'a_2', 'b_1'):
        write_pair(tmp_path / 'camvid', stem, [[3]])
    write_split(tmp_path / 'camvid', 'train', ['a_1', 'a_2', 'b_1'])
    (tmp_path / 'mine.txt').write_text('# a comment\nb_1.jpg\n\na_1\n')
    dataset = open_dataset('camvid:train,split=mine.txt', tmp_path)
    assert [dataset.name(i) for i in range(len(dataset))] == ['b_1', 'a_1']
    (tmp_path / 'mine.txt').write_text('a_1\nc_1\nd_1\n')
    with pytest.raises(DatasetError, match="2 of its lines name no frame, first 'c_1'"):
        open_dataset('camvid:train,split=mine.txt', tmp_path)


@pytest.mark.parametrize(('options', 'said'), [
    ('part=test', "found part='test', expected train or val"),
    ('part=val,by=colour', "found by='colour', expected one of sequence, folder, prefix, name"),
    ('part=val,every=1', "found every='1', expected a whole number of at least 2"),
    ('split=absent.txt', 'no such file or folder; looked for'),
    ('part=val,every=1000000', r'none of the 1 groups \(sequence\) falls into val, such as .*; '
     r'group them finer \(by=\), keep another share apart \(every=1000000 now\), or list'),
    ('part=val,by=name,every=1000000', r"such as 'a_1'; keep another share apart \(every=1")])
def test_splits_of_no_use_are_refused(tmp_path: Path, options: str, said: str) -> None:
    write_pair(tmp_path / 'camvid', 'a_1', [[3]])
    write_split(tmp_path / 'camvid', 'train', ['a_1'])
    with pytest.raises(DatasetError, match=said):
        open_dataset(f'camvid:train,{options}', tmp_path)


@needs_data
def test_real_idd_split_is_disjoint_and_stays_what_it_was() -> None:
    train, val = (open_dataset(f'idd_lite:{split}', DATA) for split in ('train', 'val'))
    assert not drives(train) & drives(val)
    assert len(train) + len(val) == 1403
    # A run's validation scores mean something only as long as nobody moves the line.
    assert 0.05 < len(val) / 1403 < 0.25


@needs_data
@pytest.mark.parametrize(('split', 'frames'), [('train', 367), ('val', 101), ('test', 233)])
def test_real_camvid_splits(split: str, frames: int) -> None:
    dataset = open_dataset(f'camvid:{split}', DATA)
    assert len(dataset) == frames
    rgb, labels = dataset.read(0)
    assert rgb.shape == (360, 480, 3)
    assert labels.shape == (360, 480)
    assert set(np.unique(labels)) <= {0, 1, 2, 3, VOID}
    assert (labels == ROAD).mean() > 0.05


# -- files -------------------------------------------------------------------------------------


def test_a_cut_off_picture_with_a_thumbnail_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    from bisenet_ros.core.jpeg import breaks_off
    from training.datasets.images import decode_rgb

    path = write_image(tmp_path / 'a.jpg', (40, 40))
    whole = path.read_bytes()
    thumbnail = b'\xff\xe1' + (len(whole) + 2).to_bytes(2, 'big') + whole
    with_thumbnail = whole[:2] + thumbnail + whole[2:]
    padded = whole[:2] + b'\xff' + whole[2:]  # by a fill byte
    odd = whole[:20] + b'\0' + whole[20:]  # a byte of no segment, behind JFIF's
    for content in (whole, with_thumbnail, with_thumbnail + b'what a camera appends', padded, odd):
        assert not breaks_off(content)
        assert decode_rgb(content, 'a.jpg').shape == (40, 40, 3)
    # Older OpenCV fills up what is missing.
    monkeypatch.setattr('cv2.imdecode', lambda *_: np.zeros((40, 40, 3), np.uint8))
    for content in (whole[:-40], with_thumbnail[:-40], padded[:-40], odd[:-40]):
        assert breaks_off(content)
        with pytest.raises(DatasetError, match=r'a\.jpg: not a readable image; replace'):
            decode_rgb(content, 'a.jpg')
    assert not breaks_off(write_ids(tmp_path / 'a.png', [[1]]).read_bytes())


# -- the rendered drive ------------------------------------------------------------------------


def test_synthetic_drive_is_the_same_every_time() -> None:
    one, two = SyntheticDrive(5, (96, 64), seed=3), SyntheticDrive(5, (96, 64), seed=3)
    two.read(4)
    for left, right in zip(one.read(2), two.read(2), strict=True):
        np.testing.assert_array_equal(left, right)


def test_synthetic_drive_differs_by_index_and_seed() -> None:
    first = SyntheticDrive(5, (96, 64), seed=3).read(2)[0]
    assert (first != SyntheticDrive(5, (96, 64), seed=3).read(3)[0]).any()
    assert (first != SyntheticDrive(5, (96, 64), seed=4).read(2)[0]).any()


def test_synthetic_drive_is_sane() -> None:
    dataset = open_dataset('synthetic:12:7', None)
    assert len(dataset) == 12
    assert len({dataset.name(i) for i in range(12)}) == 12
    assert len(drives(dataset)) == 12
    shares = np.zeros(len(TAXONOMY))
    for index in range(12):
        rgb, labels = dataset.read(index)
        assert rgb.shape == (256, 512, 3) and rgb.dtype == np.uint8
        assert labels.shape == (256, 512) and labels.dtype == np.uint8
        assert rgb.std() > 5
        shares += np.bincount(labels.ravel(), minlength=len(TAXONOMY)) / labels.size / 12
    assert len(shares) == len(TAXONOMY)  # no void, no other id
    assert (shares > 0.01).all()
    assert 0.1 < shares[ROAD] < 0.6


@pytest.mark.parametrize('name', ['camvid11', 'cityscapes19'])
def test_synthetic_drive_claims_only_its_road_in_other_taxonomies(name: str) -> None:
    taxonomy = TAXONOMIES[name]
    _, plain = open_dataset('synthetic:1', None).read(0)
    _, other = open_dataset('synthetic:1', None, taxonomy).read(0)
    np.testing.assert_array_equal(
        other, np.where(plain == ROAD, taxonomy.classes.index('road'), VOID))


def test_taxonomies_that_windows_programs_saved(tmp_path: Path) -> None:
    path = tmp_path / 'yard.json'
    path.write_text('["background", "gravel"]', encoding='utf-8-sig')
    assert load_taxonomy(str(path)).classes == ('background', 'gravel')
    path.write_text('["background", "stra\xdfe"]', encoding='latin-1')
    with pytest.raises(DatasetError, match=r'yard\.json: found 0xdf as byte .*, expected a text'):
        load_taxonomy(str(path))


def test_taxonomies_in_files_that_are_not_there(tmp_path: Path) -> None:
    path = tmp_path / 'nope.json'
    with pytest.raises(DatasetError, match=rf'names; there is no file {path}\.'):
        load_taxonomy(str(path))
