"""Cityscapes from TensorFlow Datasets: a stand-in for the library, which few machines have."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from written_datasets import write_json

from training.datasets import TAXONOMIES, VOID, DatasetError, UnknownClassError, open_dataset


class Builder:
    """A prepared split ``train`` of two frames."""

    data_dir = 'somewhere'

    def __init__(self, splits: dict[str, int]) -> None:
        self.info = SimpleNamespace(splits={
            name: SimpleNamespace(num_examples=count) for name, count in splits.items()})
        self.labels = np.array([[[7, 8], [26, 0]], [[21, 21], [7, 33]]], np.uint8)[..., None]

    def as_dataset(self, split: SimpleNamespace, shuffle_files: bool) -> list[dict]:
        assert split.split in self.info.splits and split.unit == 'abs' and not shuffle_files
        images = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
        return [{'image_left': image, 'segmentation_label': label} for image, label in zip(
            images[split.from_:split.to], self.labels[split.from_:split.to], strict=True)]


def stand_in(monkeypatch: pytest.MonkeyPatch, **splits: int) -> Builder:
    builder = Builder(splits)
    asked = {}

    def find(name: str, data_dir: str | None) -> Builder:
        assert name == 'cityscapes/semantic_segmentation'
        asked['data_dir'] = data_dir
        return builder

    monkeypatch.setitem(sys.modules, 'tensorflow_datasets', SimpleNamespace(
        builder=find, as_numpy=lambda frames: frames, core=SimpleNamespace(
            ReadInstruction=lambda split, from_, to, unit: SimpleNamespace(
                split=split, from_=from_, to=to, unit=unit))))
    builder.asked = asked
    return builder


def test_frames_are_read_by_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    builder = stand_in(monkeypatch, train=2)
    dataset = open_dataset('cityscapes_tfds:train', None)
    assert len(dataset) == 2
    assert (dataset.name(1), dataset.sequence(1)) == ('train_00001', 'train')
    rgb, labels = dataset.read(1)
    assert rgb[0, 0].tolist() == [12, 13, 14]
    assert labels.tolist() == [[0, 0], [1, 3]]
    assert dataset.read(0)[1].tolist() == [[1, 2], [3, VOID]]
    builder.labels[0, 0, 0] = 255
    assert dataset.read(0)[1].tolist() == [[VOID, 2], [3, VOID]]
    nineteen = open_dataset('cityscapes_tfds:train', None, TAXONOMIES['cityscapes19'])
    assert nineteen.read(0)[1].tolist() == [[VOID, 1], [13, VOID]]


def test_folder_and_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builder = stand_in(monkeypatch, train=2, validation=1)
    assert len(open_dataset(f'cityscapes_tfds:val,path={tmp_path}', None)) == 1
    assert builder.asked == {'data_dir': str(tmp_path)}
    with pytest.raises(DatasetError, match="found no split 'x', expected one of train, validati"):
        open_dataset('cityscapes_tfds:x', None)
    write_json(tmp_path / 'map.json', {'terrain': 'void', 'sidewalk': 'road'})
    mapped = open_dataset('cityscapes_tfds:train,classes=map.json', tmp_path)
    assert mapped.read(0)[1].tolist() == [[1, 1], [3, VOID]]


def test_foreign_ids_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    builder = stand_in(monkeypatch, train=2)
    builder.labels[1, 0, 0] = 77
    with pytest.raises(UnknownClassError, match='train_00001: found class id 77, which Citysc'):
        open_dataset('cityscapes_tfds:train', None).read(1)


def test_nothing_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    with pytest.raises(DatasetError, match=r'nothing prepared in somewhere; .* run tfds build'):
        open_dataset('cityscapes_tfds:train', None)


def test_library_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'tensorflow_datasets', None)
    with pytest.raises(DatasetError, match='cannot import tensorflow_datasets .*pip install '
                                           'tensorflow-datasets, or .*cityscapes:SPLIT'):
        open_dataset('cityscapes_tfds:train', None)
