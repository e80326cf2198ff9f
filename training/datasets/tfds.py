"""Cityscapes as prepared by TensorFlow Datasets, where that is installed."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from training.datasets.base import DatasetError, FrameDataset, Pixels, UnknownClassError
from training.datasets.classes import id_table
from training.datasets.spec import Request
from training.datasets.tables import CITYSCAPES_IDS, CITYSCAPES_TO

NAME = 'cityscapes/semantic_segmentation'


def tensorflow_datasets() -> ModuleType:
    """
    Return the library.

    Raises
    ------
    DatasetError
        If it is not installed.

    """
    try:
        return importlib.import_module('tensorflow_datasets')
    except ImportError as error:
        raise DatasetError(
            f'cityscapes_tfds: cannot import tensorflow_datasets ({error}); pip install '
            'tensorflow-datasets, or read the downloaded folders with cityscapes:SPLIT.'
        ) from error


class PreparedFrames:
    """
    Frames of a prepared split, each read by its place.

    Parameters
    ----------
    library : module
        ``tensorflow_datasets``.
    builder : tensorflow_datasets.core.DatasetBuilder
    split : str
    table : int16[65536]
        From label id to class id.

    """

    def __init__(
        self, library: ModuleType, builder: Any, split: str, table: np.ndarray,
    ) -> None:
        self._library, self._builder, self._split = library, builder, split
        self._table = table
        self._count = int(builder.info.splits[split].num_examples)

    def __len__(self) -> int:
        return self._count

    def name(self, index: int) -> str:
        return f'{self._split}_{index:05d}'

    def sequence(self, index: int) -> str:
        # Frames are shuffled when prepared and say nothing of their city before they are read.
        return self._split

    def read(self, index: int) -> tuple[Pixels, Pixels]:
        place = self._library.core.ReadInstruction(
            self._split, from_=index, to=index + 1, unit='abs')
        frames = self._library.as_numpy(
            self._builder.as_dataset(split=place, shuffle_files=False))
        sample = next(iter(frames))
        source = np.asarray(sample['segmentation_label'])[..., 0]
        labels = self._table[source]
        if (labels < 0).any():
            values, counts = np.unique(source[labels < 0], return_counts=True)
            raise UnknownClassError(
                f'{NAME}: {self.name(index)}: found class id {values[0]}, which Cityscapes does '
                'not have; prepare the data set again.',
                {f'id {value}': int(n) for value, n in zip(values, counts, strict=True)})
        return np.asarray(sample['image_left'], np.uint8), labels.astype(np.uint8)


def cityscapes_tfds(request: Request) -> FrameDataset:
    """
    Open a split that TensorFlow Datasets has prepared; nothing is downloaded.

    Raises
    ------
    DatasetError
        If the library or the prepared split is not there.

    """
    library = tensorflow_datasets()
    folder: Path | None = request.option_path('path')
    builder = library.builder(NAME, data_dir=None if folder is None else str(folder))
    splits = builder.info.splits or {}
    if not splits:
        raise DatasetError(
            f'{request.spec}: found nothing prepared in {builder.data_dir}; Cityscapes is '
            'downloaded by hand after registration: put leftImg8bit_trainvaltest.zip and '
            'gtFine_trainvaltest.zip into <data_dir>/downloads/manual, then run tfds build '
            f'{NAME}.')
    split = {'val': 'validation'}.get(request.argument, request.argument)
    if split not in splits:
        raise DatasetError(
            f'{request.spec}: found no split {split!r}, expected one of {", ".join(splits)}.')
    table = id_table(CITYSCAPES_IDS, request.class_map(CITYSCAPES_TO), request.spec)
    return PreparedFrames(library, builder, split, table)
