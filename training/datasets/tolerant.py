"""Go on without the files that cannot be read."""

from __future__ import annotations

import sys
import threading

from training.datasets.base import DatasetError, FrameDataset, Pixels

#: A data set with more bad frames than this share is no slip of a disk, but a mistake.
MOST_BAD = 0.5


class Tolerant:
    """
    A data set whose unreadable frames are replaced by others of the same set.

    Every bad frame is named once on stderr and kept in ``faults``. Its stand-in is the next frame
    that can be read, so that what ``read`` returns depends on the files alone, whatever was read
    before. Safe to read from several threads.

    Parameters
    ----------
    dataset : FrameDataset
    label : str
        What the data set is called in messages.

    Raises
    ------
    DatasetError
        If the files of more than half of the frames are missing.

    """

    def __init__(self, dataset: FrameDataset, label: str) -> None:
        self.source, self._label = dataset, label
        self._faults: dict[int, str] = {}
        self._lock = threading.Lock()
        self._at_opening: tuple[str, ...] = getattr(dataset, 'faults', ())
        self.notes: tuple[str, ...] = getattr(dataset, 'notes', ())
        for fault in self._at_opening:
            print(f'{label}: left out: {fault}', file=sys.stderr)
        if self._at_opening:
            self._stop_if_most_are_bad(len(self._at_opening), self._at_opening[-1])

    def __len__(self) -> int:
        return len(self.source)

    def name(self, index: int) -> str:
        return self.source.name(index)

    def sequence(self, index: int) -> str:
        return self.source.sequence(index)

    @property
    def faults(self) -> tuple[str, ...]:
        """Return what was left out so far, in the order of the frames."""
        with self._lock:
            return (*self._at_opening, *(self._faults[index] for index in sorted(self._faults)))

    def note(self, index: int, fault: str) -> None:
        """
        Name a bad frame and remember it.

        Raises
        ------
        DatasetError
            If there are too many of them.

        """
        with self._lock:
            if index in self._faults:
                return
            self._faults[index] = fault
            bad = len(self._at_opening) + len(self._faults)
        print(f'{self._label}: left out: {fault}', file=sys.stderr)
        self._stop_if_most_are_bad(bad, fault)

    def _stop_if_most_are_bad(self, bad: int, last: str) -> None:
        total = len(self._at_opening) + len(self)
        if bad > MOST_BAD * total:
            raise DatasetError(
                f'{self._label}: {bad} of {total} frames cannot be used, the last one: '
                f'{last} That is too many to go on without; run python -m training.datasets '
                f'check {self._label}.')

    def read(self, index: int) -> tuple[Pixels, Pixels]:
        """
        Return a frame, or the next readable one.

        Raises
        ------
        DatasetError
            If more than half of the frames were found unreadable.

        """
        for step in range(len(self)):
            at = (index + step) % len(self)
            if at in self._faults:
                continue
            try:
                return self.source.read(at)
            except DatasetError as error:
                self.note(at, str(error))
        raise DatasetError(f'{self._label}: not one of its {len(self)} frames can be used.')


class Subset:
    """
    Some frames of a data set.

    Parameters
    ----------
    dataset : FrameDataset
    indices : list of int

    """

    def __init__(self, dataset: FrameDataset, indices: list[int]) -> None:
        self._dataset, self._indices = dataset, indices

    def __len__(self) -> int:
        return len(self._indices)

    def name(self, index: int) -> str:
        return self._dataset.name(self._indices[index])

    def sequence(self, index: int) -> str:
        return self._dataset.sequence(self._indices[index])

    def read(self, index: int) -> tuple[Pixels, Pixels]:
        return self._dataset.read(self._indices[index])


def readable(dataset: FrameDataset) -> Subset:
    """
    Return the frames that can be read, after reading every one of them.

    For scores: a stand-in for a bad frame would count another frame twice.

    Raises
    ------
    DatasetError
        If not one frame can be read.

    """
    source = dataset.source if isinstance(dataset, Tolerant) else dataset
    good = []
    for index in range(len(source)):
        try:
            source.read(index)
        except DatasetError as error:
            if isinstance(dataset, Tolerant):
                dataset.note(index, str(error))
        else:
            good.append(index)
    if not good:
        raise DatasetError(f'not one of {len(source)} frames can be read.')
    return Subset(source, good)
