"""Every label arrives exactly as it is in its file, and no split cuts through a drive."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from training import datasets
from training.datasets import (
    CAMVID, IDD_LITE, TAXONOMY, VOID, DatasetError, FolderDataset, SyntheticDrive, camvid, check,
    data_root, idd_lite, open_dataset,
)

DATA = Path(__file__).resolve().parents[2] / '..' / 'shared' / 'data'
needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason=f'the data sets are not there ({DATA.name} beside the project)')


def write_pair(
    root: Path, stem: str, labels: npt.NDArray[np.uint8],
    image_hw: tuple[int, int] | None = None,
) -> None:
    height, width = image_hw or labels.shape[:2]
    (root / 'images').mkdir(parents=True, exist_ok=True)
    (root / 'labels').mkdir(parents=True, exist_ok=True)
    bgr = np.zeros((height, width, 3), np.uint8)
    bgr[..., 0], bgr[..., 2] = 30, 200  # more red than blue
    cv2.imwrite(str(root / 'images' / f'{stem}.jpg'), bgr, [cv2.IMWRITE_JPEG_QUALITY, 100])
    cv2.imwrite(str(root / 'labels' / f'{stem}.png'), labels)


def write_split(root: Path, split: str, stems: list[str]) -> None:
    (root / 'splits').mkdir(parents=True, exist_ok=True)
    (root / 'splits' / f'{split}.txt').write_text('\n'.join(stems) + '\n')


# -- label tables ----------------------------------------------------------------------------


def test_camvid_classes(tmp_path: Path) -> None:
    root = tmp_path / 'camvid'
    # sky building pole | road pavement tree | sign fence car | pedestrian bicyclist void
    write_pair(root, '0001TP_1', np.arange(12, dtype=np.uint8).reshape(4, 3))
    write_split(root, 'train', ['0001TP_1'])
    dataset = camvid(tmp_path, 'train')
    assert len(dataset) == 1
    assert (dataset.name(0), dataset.sequence(0)) == ('0001TP_1', '0001TP')
    rgb, labels = dataset.read(0)
    np.testing.assert_array_equal(labels, [[0, 0, 0], [1, 2, 0], [0, 0, 3], [3, 3, VOID]])
    assert labels.dtype == np.uint8
    assert rgb.shape == (4, 3, 3)
    assert (rgb[..., 0] > 150).all() and (rgb[..., 2] < 80).all()  # red first


def test_idd_lite_classes(tmp_path: Path) -> None:
    root = tmp_path / 'idd_lite'
    # drivable, non-drivable, living, vehicles | roadside, far, sky, void
    write_pair(root, 'train_5_1', np.array([[0, 1, 2, 3], [4, 5, 6, 255]], np.uint8))
    write_split(root, 'train', ['train_5_1'])
    split = 'val' if kept_apart('5') else 'train'
    _, labels = idd_lite(tmp_path, split).read(0)
    np.testing.assert_array_equal(labels, [[1, 2, 3, 3], [0, 0, 0, VOID]])


@pytest.mark.parametrize('class_map', [CAMVID, IDD_LITE])
def test_tables_reach_every_training_class(class_map: dict[int, int]) -> None:
    assert set(class_map.values()) == {*range(len(TAXONOMY)), VOID}


# -- faults ----------------------------------------------------------------------------------


def test_missing_files_are_counted_and_the_first_named(tmp_path: Path) -> None:
    write_pair(tmp_path, 'a', np.zeros((2, 2), np.uint8))
    (tmp_path / 'images' / 'c.jpg').touch()
    with pytest.raises(DatasetError, match=r'3 of 6 listed files are missing, first .*b\.jpg'):
        FolderDataset(tmp_path, ['a', 'b', 'c'], CAMVID, ['x'] * 3)


def folder_of_one(tmp_path: Path) -> FolderDataset:
    return FolderDataset(tmp_path, ['a'], CAMVID, ['x'])


def test_ids_outside_the_table_are_refused(tmp_path: Path) -> None:
    write_pair(tmp_path, 'a', np.array([[0, 12]], np.uint8))
    with pytest.raises(DatasetError, match=r'a\.png: found class id 12, .* does not name'):
        folder_of_one(tmp_path).read(0)


def test_labels_of_another_size_are_refused(tmp_path: Path) -> None:
    write_pair(tmp_path, 'a', np.zeros((4, 6), np.uint8), image_hw=(4, 8))
    with pytest.raises(DatasetError, match=r'a\.png: found 6x4 pixels, but its image has 8x4'):
        folder_of_one(tmp_path).read(0)


def test_coloured_labels_are_refused(tmp_path: Path) -> None:
    write_pair(tmp_path, 'a', np.zeros((4, 6, 3), np.uint8))
    with pytest.raises(DatasetError, match=r'found uint8\[4, 6, 3\], expected one channel'):
        folder_of_one(tmp_path).read(0)


@pytest.mark.parametrize('broken', ['images/a.jpg', 'labels/a.png'])
def test_unreadable_files_are_named(tmp_path: Path, broken: str) -> None:
    write_pair(tmp_path, 'a', np.zeros((4, 6), np.uint8))
    path = tmp_path / broken
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(DatasetError, match=f'{path.name}: not a readable image'):
        folder_of_one(tmp_path).read(0)


def test_unknown_splits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r'nope\.txt: no such split file'):
        camvid(tmp_path, 'nope')
    write_split(tmp_path / 'idd_lite', 'train', ['train_5_1'])
    with pytest.raises(DatasetError, match="idd_lite: found split 'test', expected train or val"):
        idd_lite(tmp_path, 'test')


@pytest.mark.parametrize('spec', [
    'camvid', 'camvid:train:1', 'idd_lite', 'kitti:train', 'synthetic', 'synthetic:x',
    'synthetic:-1', 'synthetic:1:2:3', ''])
def test_unknown_names_are_refused(tmp_path: Path, spec: str) -> None:
    with pytest.raises(DatasetError, match='data set: found .* expected camvid:SPLIT, idd_lite:'):
        open_dataset(spec, tmp_path)


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
    write_split(tmp_path / 'camvid', 'val', [])
    with pytest.raises(DatasetError, match='found a split without frames'):
        camvid(tmp_path, 'val')
    with pytest.raises(DatasetError, match='found 0 frames, expected at least one'):
        open_dataset('synthetic:0', None)


# -- splits ----------------------------------------------------------------------------------


def kept_apart(drive: str) -> bool:
    """Tell of one drive whether the split by drive puts it into validation."""
    return datasets.zlib.crc32(drive.encode()) % 8 == 0


def test_idd_split_never_cuts_through_a_drive(tmp_path: Path) -> None:
    root = tmp_path / 'idd_lite'
    stems = [f'train_{drive}_{frame:06d}' for drive in range(60) for frame in range(2)]
    for stem in stems:
        write_pair(root, stem, np.zeros((2, 2), np.uint8))
    write_split(root, 'train', stems)
    train, val = idd_lite(tmp_path, 'train'), idd_lite(tmp_path, 'val')
    drives = [{part.sequence(i) for i in range(len(part))} for part in (train, val)]
    assert not drives[0] & drives[1]
    assert drives[0] | drives[1] == {str(drive) for drive in range(60)}
    assert len(train) + len(val) == len(stems)
    assert 0 < len(val) < len(train)


@needs_data
def test_real_idd_split_is_disjoint_and_stays_what_it_was() -> None:
    train, val = idd_lite(DATA, 'train'), idd_lite(DATA, 'val')
    drives = [{part.sequence(i) for i in range(len(part))} for part in (train, val)]
    assert not drives[0] & drives[1]
    assert len(train) + len(val) == 1403
    # A run's validation scores mean something only as long as nobody moves the line.
    assert 0.05 < len(val) / 1403 < 0.25


@needs_data
@pytest.mark.parametrize(('split', 'frames'), [('train', 367), ('val', 101), ('test', 233)])
def test_real_camvid_splits(split: str, frames: int) -> None:
    dataset = camvid(DATA, split)
    assert len(dataset) == frames
    rgb, labels = dataset.read(0)
    assert rgb.shape == (360, 480, 3)
    assert labels.shape == (360, 480)
    assert set(np.unique(labels)) <= {0, 1, 2, 3, VOID}
    assert (labels == datasets.ROAD).mean() > 0.05


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
    assert len({dataset.sequence(i) for i in range(12)}) == 12
    shares = np.zeros(len(TAXONOMY))
    for index in range(12):
        rgb, labels = dataset.read(index)
        assert rgb.shape == (256, 512, 3) and rgb.dtype == np.uint8
        assert labels.shape == (256, 512) and labels.dtype == np.uint8
        assert rgb.std() > 5
        shares += np.bincount(labels.ravel(), minlength=len(TAXONOMY)) / labels.size / 12
    assert len(shares) == len(TAXONOMY)  # no void, no other id
    assert (shares > 0.01).all()
    assert 0.1 < shares[datasets.ROAD] < 0.6


# -- check -----------------------------------------------------------------------------------


def test_check_counts_shares_and_faults(tmp_path: Path) -> None:
    write_pair(tmp_path, 'a', np.array([[3, 3], [4, 11]], np.uint8))
    write_pair(tmp_path, 'b', np.array([[0, 99]], np.uint8))
    report = check(FolderDataset(tmp_path, ['a', 'b'], CAMVID, ['x', 'x']))
    assert report.frames == 1
    assert len(report.faults) == 1 and 'class id 99' in report.faults[0]
    np.testing.assert_allclose(report.shares, [0, 0.5, 0.25, 0, 0.25])
    text = str(report)
    assert '1 frames read, 1 unusable' in text
    assert 'road          50.0%' in text
    assert 'b.png' in text


def test_check_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv('BISENET_DATA', raising=False)
    assert datasets.main(['check', 'synthetic:2']) == 0
    assert 'synthetic:2: 2 frames read, 0 unusable' in capsys.readouterr().out
    assert datasets.main(['check', 'camvid:val']) == 1
    assert 'pass --data FOLDER' in capsys.readouterr().err
    root = tmp_path / 'camvid'
    write_pair(root, 'a_1', np.array([[77]], np.uint8))
    write_split(root, 'val', ['a_1'])
    assert datasets.main(['check', 'camvid:val', '--data', str(tmp_path)]) == 1
    assert 'class id 77' in capsys.readouterr().out
