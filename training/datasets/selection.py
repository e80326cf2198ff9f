"""Which frames of a data set belong to a split."""

from __future__ import annotations

import zlib
from pathlib import Path, PurePosixPath

from training.datasets.base import DatasetError, read_text
from training.datasets.files import Frame
from training.datasets.images import IMAGE_SUFFIXES
from training.datasets.spec import Request

#: One group in so many is kept apart for validation.
EVERY = 8

#: What ``by`` may name, and what it means.
GROUPS = {
    'sequence': 'the drive, as far as the format tells it',
    'folder': 'the folder the image is in',
    'prefix': 'the file name up to the first underscore',
    'name': 'the frame itself: only for frames that are no neighbours of each other',
}


def kept_apart(group: str, every: int = EVERY) -> bool:
    """
    Tell whether a group of frames belongs to validation.

    The answer depends on the group's name alone (its CRC-32), so it stays what it is when frames
    are added.

    """
    # A file's name need not be UTF-8.
    return zlib.crc32(group.encode(errors='surrogateescape')) % every == 0


def group_of(frame: Frame, by: str) -> str:
    """Return the group of a frame, see ``GROUPS``."""
    name = PurePosixPath(frame.name)
    if by == 'folder':
        return str(name.parent)
    if by == 'prefix':
        return name.name.split('_')[0]
    return frame.name if by == 'name' else frame.sequence


def listed_names(path: Path) -> list[str]:
    """
    Return the lines of a split file, without image suffixes.

    Raises
    ------
    DatasetError
        If there is no such file, or it is no text.

    """
    if not path.is_file():
        raise DatasetError(f'{path}: no such split file; expected one stem a line.')
    lines = [line.strip() for line in read_text(path).splitlines()]
    return [without_suffix(line) for line in lines if line and not line.startswith('#')]


def without_suffix(name: str) -> str:
    """Return a path without the suffix of an image or label file."""
    path = PurePosixPath(name)
    known = path.suffix.lower() in (*IMAGE_SUFFIXES, '.json')
    return str(path.with_suffix('') if known else path)


def _names_of(frame: Frame) -> set[PurePosixPath]:
    """Return a frame's name and, where that is only part of it, its image's."""
    name = PurePosixPath(frame.name)
    return {name} if frame.image is None else {name, name.with_name(frame.image.stem)}


def _of_list(frames: list[Frame], path: Path) -> list[Frame]:
    by_name: dict[str, Frame] = {}
    by_stem: dict[str, list[Frame]] = {}
    for frame in frames:
        for each in _names_of(frame):
            by_name[str(each)] = frame
            by_stem.setdefault(each.name, []).append(frame)
    chosen: dict[str, Frame] = {}
    unknown: list[str] = []
    ambiguous: list[str] = []
    for name in listed_names(path):
        found = [by_name[name]] if name in by_name else by_stem.get(name, [])
        if len(found) == 1:
            chosen[found[0].name] = found[0]
        else:
            (ambiguous if found else unknown).append(name)
    if unknown:
        raise DatasetError(
            f'{path}: {len(unknown)} of its lines name no frame, first {unknown[0]!r}; expected '
            f'a path or stem such as {frames[0].name!r}.')
    if ambiguous:
        raise DatasetError(
            f'{path}: {len(ambiguous)} of its lines name several frames, first {ambiguous[0]!r}; '
            f'write the path too, such as {frames[0].name!r}.')
    return list(chosen.values())


def select(frames: list[Frame], request: Request) -> list[Frame]:
    """
    Return the frames that ``split``, ``part``, ``by`` and ``every`` ask for.

    Raises
    ------
    DatasetError
        If an option has no such value, a split file names frames that are not there, or nothing
        is left.

    """
    options = request.options
    if (path := request.option_path('split')) is not None and frames:
        frames = _of_list(frames, path)
    part, by = options.get('part'), options.get('by', 'sequence')
    if part not in (None, 'train', 'val'):
        raise DatasetError(f'{request.spec}: found part={part!r}, expected train or val.')
    if by not in GROUPS:
        raise DatasetError(
            f'{request.spec}: found by={by!r}, expected one of {", ".join(GROUPS)}.')
    every = request.number('every', EVERY, 2)
    if part is None:
        return frames
    groups = {group_of(frame, by) for frame in frames}
    chosen = [frame for frame in frames
              if kept_apart(group_of(frame, by), every) == (part == 'val')]
    if frames and not chosen:
        finer = '' if by == 'name' else 'group them finer (by=), '
        raise DatasetError(
            f'{request.spec}: none of the {len(groups)} groups ({by}) falls into {part}, such as '
            f'{min(groups)!r}; {finer}keep another share apart (every={every} now), or list the '
            'frames (split=FILE), in train and val alike.')
    return chosen
