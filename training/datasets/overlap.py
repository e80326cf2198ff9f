"""Frames that two data sets have in common, told by their files alone."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path

from training.datasets.base import FrameDataset, counted
from training.datasets.files import FileDataset
from training.datasets.tolerant import Tolerant


def shared_frames(train: tuple[str, FrameDataset], held_out: tuple[str, FrameDataset]) -> str:
    """
    Say which frames are scored that are trained on as well.

    Copies under other names are found by ``check``, which compares the pictures.

    Parameters
    ----------
    train, held_out : (str, FrameDataset)
        Each with its name.

    Returns
    -------
    str
        Empty where there are none.

    """
    (name, trained), (other, scored) = train, held_out
    both = names_by_place(trained).keys() & (places := names_by_place(scored)).keys()
    if not both and name != other:
        return ''
    found = [places[place] for place in places if place in both]
    count = len(found) or len(scored)
    first = f' (first {found[0]!r})' if found else ''
    return (f'{other}: {count} of {counted(len(scored), "frame")}{first} '
            f'{"is" if count == 1 else "are"} in {name}, which is trained on, as well: the score '
            'tells how well they are remembered; take them out of one of the two')


def names_by_place(dataset: FrameDataset) -> dict[Hashable, str]:
    """Return the names of a data set's frames by the file and entry that their labels are in."""
    if isinstance(dataset, Tolerant):
        dataset = dataset.source
    if not isinstance(dataset, FileDataset):
        return {}
    folders: dict[Path, Path] = {}
    found: dict[Hashable, str] = {}
    for index in range(len(dataset)):
        frame = dataset.frame(index)
        folder = frame.label.parent
        if folder not in folders:  # a link's file is another one; a link to a folder is not
            folders[folder] = folder.resolve()
        found[folders[folder] / frame.label.name, frame.key] = frame.name
    return found
