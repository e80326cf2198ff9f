"""Data sets made of an image file and labels a frame."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from training.datasets.base import (
    DatasetError, OnBad, Pixels, SizeError, UnknownClassError, UnreadableError,
)
from training.datasets.classes import ClassMap
from training.datasets.images import read_mask, read_rgb, turned


@dataclasses.dataclass(frozen=True)
class Frame:
    """
    A frame before it is read.

    Parameters
    ----------
    name : str
        Unique in its data set; for files, the path without its suffix.
    sequence : str
        The drive.
    image : Path or None
        None where the label file holds the picture.
    label : Path
        A mask, or the file with the shapes.
    key : int or str
        Which of the label file's entries it is, where that holds several.

    """

    name: str
    sequence: str
    image: Path | None
    label: Path
    key: int | str = ''


class FrameReader(Protocol):
    """From a frame's files to its picture and class ids."""

    def read(self, frame: Frame) -> tuple[Pixels, Pixels]:
        """Return ``uint8[H, W, 3]`` RGB and ``uint8[H, W]`` class ids."""
        ...

    def ignored(self) -> Counter[str]:
        """Return what was left out of the frames read so far, by name."""
        ...


def picture_of(frame: Frame, upright: bool = True) -> Pixels:
    """
    Return the picture of a frame that has an image file, see ``read_rgb``.

    Raises
    ------
    UnreadableError
        If it has none, or the file is not readable.

    """
    if frame.image is None:
        raise UnreadableError(f'{frame.label}: has no image; put one beside it.')
    return read_rgb(frame.image, upright)


class IdMasks:
    """
    Masks of class ids.

    Parameters
    ----------
    table : int16[65536]
        From source id to class id, -1 where nothing is known of an id.

    """

    def __init__(self, table: npt.NDArray[np.int16]) -> None:
        self._table = table

    def read(self, frame: Frame) -> tuple[Pixels, Pixels]:
        return picture_of(frame), self._ids(frame)

    def ignored(self) -> Counter[str]:
        return Counter()

    def _ids(self, frame: Frame) -> Pixels:
        source = read_mask(frame.label)
        if source.ndim != 2:
            raise UnreadableError(
                f'{frame.label}: found {source.dtype}{list(source.shape)}, expected one channel '
                'of class ids; convert it, or read it by its colours (masks:PATH,palette=FILE).')
        labels = self._table[source]
        if (labels < 0).any():
            values, counts = np.unique(source[labels < 0], return_counts=True)
            found = {f'id {value}': int(count)
                     for value, count in zip(values, counts, strict=True)}
            raise UnknownClassError(
                f'{frame.label}: found class id {", ".join(map(str, values[:8]))}, which the '
                'class map does not name; add it there, as "void" if it is no class.', found)
        return labels.astype(np.uint8)


class FileDataset:
    """
    Frames read from files.

    Parameters
    ----------
    where : str
        What the data set is called in messages.
    frames : sequence of Frame
    reader : FrameReader
    on_bad : str
        ``stop`` refuses a data set with missing files, ``skip`` leaves their frames out and says
        so in ``faults``. Files that turn out unreadable later raise from ``read`` either way.
    notes : sequence of str
        What was noticed while files were looked for.
    class_map : ClassMap or None
        What the labels are named by, where that may be the user's.

    Raises
    ------
    DatasetError
        If no frame or, under ``stop``, a file that does not exist is listed; every missing file
        is counted, the first named.

    """

    def __init__(
        self, where: str, frames: Sequence[Frame], reader: FrameReader, on_bad: OnBad = 'stop',
        notes: Sequence[str] = (), class_map: ClassMap | None = None,
    ) -> None:
        if not frames:
            raise DatasetError(f'{where}: found a split without frames, expected at least one.')
        self._reader, self._class_map = reader, class_map
        self.notes = tuple(notes)
        missing = [[path for path in (frame.image, frame.label)
                    if path is not None and not path.is_file()] for frame in frames]
        files = list(dict.fromkeys(path for paths in missing for path in paths))
        if files and on_bad == 'stop':
            listed = {path for frame in frames for path in (frame.image, frame.label)} - {None}
            raise DatasetError(
                f'{where}: {len(files)} of {len(listed)} listed files are missing, first '
                f'{files[0]}; copy the data set whole, or mend its split file.')
        self.faults = tuple(
            f'{" and ".join(map(str, paths))}: listed, but missing; copy or unlist it.'
            for paths in missing if paths)
        self._frames = [frame for frame, paths in zip(frames, missing, strict=True) if not paths]
        if not self._frames:
            raise DatasetError(
                f'{where}: every one of the {len(frames)} listed frames lacks a file, first '
                f'{files[0]}; copy the data set whole.')

    def __len__(self) -> int:
        return len(self._frames)

    def name(self, index: int) -> str:
        return self._frames[index].name

    def sequence(self, index: int) -> str:
        return self._frames[index].sequence

    def frame(self, index: int) -> Frame:
        """Return where a frame is read from."""
        return self._frames[index]

    def ignored(self) -> Counter[str]:
        """Return what was left out of the frames read so far, by name."""
        return self._reader.ignored()

    def unmet(self) -> list[str]:
        """Return what the user's class map names and no frame read so far."""
        return [] if self._class_map is None else self._class_map.unmet()

    def read(self, index: int) -> tuple[Pixels, Pixels]:
        frame = self._frames[index]
        rgb, ids = self._reader.read(frame)
        height, width = rgb.shape[:2]
        if ids.shape != (height, width):
            raise SizeError(
                f'{frame.label}: found {ids.shape[1]}x{ids.shape[0]} pixels, but its image has '
                f'{width}x{height}; they must be equal.{turned(frame.image)}')
        return rgb, ids
