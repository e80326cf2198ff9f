"""Where the public data sets are, and what to say where they are not."""

from __future__ import annotations

from pathlib import Path

from training.datasets.base import DatasetError, data_root
from training.datasets.own import visible
from training.datasets.spec import Request

#: Folders in the root of a data set, one of which is there.
MARKS = {'camvid': ('splits', '*annot'), 'idd_lite': ('leftImg8bit', 'splits'),
         'idd': ('leftImg8bit',), 'cityscapes': ('leftImg8bit',)}

_ARCHIVES = ('.zip', '.tar', '.gz', '.tgz')


def folder_of(request: Request) -> Path:
    """
    Return the folder of ``path=``, or the one called as the kind is in the data folder.

    Raises
    ------
    DatasetError
        If it is not there, or not the root of such a data set.

    """
    named = request.option_path('path')
    root = data_root(request.root) / request.kind if named is None else named
    if named is None and not root.is_dir():
        raise DatasetError(
            f'{request.spec}: found no folder {root}; put the data set there, or say where it is '
            f'with {request.kind}:{request.argument},path=FOLDER'
            f'{nearby(root.parent, request.kind)}')
    if not is_root(root, request.kind):
        expected = ' or '.join(f'{mark}/' for mark in MARKS[request.kind])
        raise DatasetError(f'{request.spec}: found no {expected} in {root}, expected the folder '
                           f'that holds it{nearby(root, request.kind)}')
    return root


def is_root(folder: Path, kind: str) -> bool:
    """Tell whether a folder looks like the root of a data set."""
    return any(path.is_dir() for mark in MARKS[kind] for path in visible(folder, mark))


def nearby(folder: Path, kind: str) -> str:
    """Return the end of a message: where else the root of a data set may be, if it is near."""
    if folder.is_file():
        return f'; unpack {folder} first.' if folder.suffix.lower() in _ARCHIVES else '.'
    within = sorted(visible(folder, '*'))
    for place in (folder, folder.resolve().parent, *within):
        if is_root(place, kind):
            return f'; did you mean path={place}?'
    packed = [path.name for path in within if path.suffix.lower() in _ARCHIVES]
    return f'; unpack {" and ".join(packed[:4])} in {folder} first.' if packed else '.'
