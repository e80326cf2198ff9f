"""What a data set is, and how it fails."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

#: The label id that counts neither in losses nor in scores.
VOID = 255

#: Environment variable that names the data folder.
ENVIRONMENT = 'BISENET_DATA'

#: What to do about a file that cannot be used.
OnBad = Literal['stop', 'skip']

Pixels = npt.NDArray[np.uint8]


class DatasetError(ValueError):
    """A data folder, split or file cannot be used."""


class UnreadableError(DatasetError):
    """A file is missing, damaged or of another format."""


class SizeError(DatasetError):
    """An image and its labels differ in size."""


class UnknownClassError(DatasetError):
    """
    Labels hold ids, colours or names that no table names.

    Parameters
    ----------
    message : str
    counts : mapping of str to int
        What was found, and how often (pixels, or shapes of polygon formats).

    """

    def __init__(self, message: str, counts: Mapping[str, int]) -> None:
        super().__init__(message)
        self.counts = Counter(dict(counts))


class FrameDataset(Protocol):
    """What training reads from."""

    def __len__(self) -> int:
        """Return the number of frames."""
        ...

    def name(self, index: int) -> str:
        """Return a frame's name, for messages and reports."""
        ...

    def sequence(self, index: int) -> str:
        """Return the drive a frame belongs to; splits never cut through one."""
        ...

    def read(self, index: int) -> tuple[Pixels, Pixels]:
        """Return ``uint8[H, W, 3]`` RGB and ``uint8[H, W]`` class ids, 255 for void."""
        ...


def data_root(argument: Path | None) -> Path:
    """
    Return the folder that holds the data sets.

    Raises
    ------
    DatasetError
        If neither ``argument`` nor ``$BISENET_DATA`` names a folder.

    """
    named = argument or (Path(value) if (value := os.environ.get(ENVIRONMENT)) else None)
    if named is None:
        raise DatasetError(
            f'data folder: none given; pass --data FOLDER or set {ENVIRONMENT} (a folder that '
            'holds camvid/ and idd_lite/, see docs/datasets.md).')
    if not named.is_dir():
        raise DatasetError(f'data folder: {str(named)!r} is not a folder.')
    return named


def located(name: str, root: Path | None) -> Path:
    """
    Return a file or folder that a user named, looked up in the data folder, then right here.

    Raises
    ------
    DatasetError
        If it is in neither.

    """
    path = Path(name).expanduser()
    if root is None and os.environ.get(ENVIRONMENT):
        root = data_root(None)
    places = [path] if path.is_absolute() else [
        *([data_root(root) / path] if root is not None else []), path]
    for place in places:
        if place.exists():
            return place
    looked = ' and '.join(str(place.absolute()) for place in places)
    raise DatasetError(
        f'{name}: no such file or folder; looked for {looked}. Relative paths start at the data '
        'folder (--data) or at the current one.')


def read_text(path: Path) -> str:
    """
    Return what a text file holds, without a byte order mark.

    Raises
    ------
    DatasetError
        If it cannot be read, or is no UTF-8.

    """
    try:
        return path.read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise DatasetError(
            f'{path}: found {error.object[error.start]:#04x} as byte {error.start + 1}, expected '
            'a text in UTF-8; save it as such, or name the right file.') from error
    except OSError as error:
        raise DatasetError(f'{path}: cannot be read ({error.strerror}); mend it.') from error


def counted(number: int, noun: str) -> str:
    """Return ``1 frame`` or ``2 frames``."""
    return f'{number} {noun}{"" if number == 1 else "s"}'
