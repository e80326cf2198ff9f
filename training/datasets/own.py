"""What data sets of users' own have in common: how files are found and paired."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path, PurePosixPath

from training.datasets.base import VOID, DatasetError, counted, located
from training.datasets.files import Frame
from training.datasets.images import IMAGE_SUFFIXES, MASK_SUFFIXES
from training.datasets.spec import Request

#: Names of folders that hold the labels, beside one named ``images``.
LABEL_FOLDERS = ('labels', 'masks', 'annotations')

_NUMBER = re.compile(r'[\W_]*\d+$')


def sequence_of(name: str) -> str:
    """
    Guess the drive of a frame from its path.

    The folder, if there is one; else the file name without the number at its end.

    """
    path = PurePosixPath(name)
    return _NUMBER.sub('', path.name) or '.' if str(path.parent) == '.' else str(path.parent)


def unlabelled_id(request: Request, default: str = 'background') -> int:
    """
    Return the id of pixels that no shape covers: ``unlabelled=``, else background or void.

    Raises
    ------
    DatasetError
        If the option names no class.

    """
    if 'unlabelled' in request.options:
        return request.taxonomy.id_of(request.options['unlabelled'])
    return request.taxonomy.id_of(default) if default in request.taxonomy.classes else VOID


@dataclasses.dataclass(frozen=True)
class Pairing:
    """Frames found in folders, and what found no partner."""

    frames: list[Frame]
    notes: tuple[str, ...]


def files_under(folder: Path, suffixes: tuple[str, ...]) -> dict[str, list[Path]]:
    """Return a folder's files of some suffixes by relative path without suffix."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob('*')):
        hidden = any(part.startswith('.') for part in path.relative_to(folder).parts)
        if path.suffix.lower() in suffixes and path.is_file() and not hidden:
            found.setdefault(str(path.relative_to(folder).with_suffix('')), []).append(path)
    return found


def label_folders(request: Request, root: Path) -> tuple[Path, Path]:
    """Return the folders of images and labels: as told, as usual, or one for both."""
    usual = next((root / each for each in LABEL_FOLDERS
                  if (root / 'images').is_dir() and (root / each).is_dir()), None)
    images = request.option_path('images') or (root / 'images' if usual else root)
    return images, request.option_path('labels') or usual or root


def paired(request: Request) -> Pairing:
    """
    Pair the images and masks of a folder.

    Images and masks lie in ``images`` and ``labels`` (or ``masks``, ``annotations``), or where
    ``images=`` and ``labels=`` say, or all in one folder; a mask has its image's path and name,
    with ``suffix=`` behind it.

    Raises
    ------
    DatasetError
        If nothing pairs, or one name stands for several files.

    """
    root = located(request.argument, request.root)
    if not root.is_dir():
        raise DatasetError(f'{request.spec}: {root} is a file, expected a folder of masks.')
    image_folder, label_folder = label_folders(request, root)
    suffix, together = request.options.get('suffix', ''), image_folder == label_folder
    masks = files_under(label_folder, ('.png',) if together and not suffix else MASK_SUFFIXES)
    labels = {name.removesuffix(suffix): paths for name, paths in masks.items()
              if name.endswith(suffix)}
    taken = {path for paths in labels.values() for path in paths} if together else set()
    images = {name: left for name, paths in files_under(image_folder, IMAGE_SUFFIXES).items()
              if (left := [path for path in paths if path not in taken])}
    both = sorted(images.keys() & labels.keys())
    for paths in (*(images[name] for name in both), *(labels[name] for name in both)):
        if len(paths) > 1:
            raise DatasetError(
                f'{request.spec}: found {paths[0].name} and {paths[1].name} in {paths[0].parent}, '
                'expected one file of that name; remove or rename one.')
    if not both:
        raise DatasetError(
            f'{request.spec}: found {len(images)} images in {image_folder} and {len(labels)} '
            f'masks in {label_folder}, but no two of the same name{example(images, labels)}; say '
            'where they are (images=FOLDER, labels=FOLDER) and what masks have behind the name '
            '(suffix=_mask).')
    frames = [Frame(name, sequence_of(name), images[name][0], labels[name][0]) for name in both]
    return Pairing(frames, unpaired(sorted(images.keys() - labels.keys()),
                                    sorted(labels.keys() - images.keys())))


def example(images: dict[str, list[Path]], labels: dict[str, list[Path]]) -> str:
    """Return the first name of each, for a message."""
    if not images or not labels:
        return ''
    return f' (such as {min(images)!r} and {min(labels)!r})'


def unpaired(images: list[str], labels: list[str]) -> tuple[str, ...]:
    """Return what to say of images without labels and the reverse."""
    notes = []
    if images:
        notes.append(
            f'left out: {counted(len(images), "image")} without labels, first {images[0]!r}')
    if labels:
        notes.append(
            f'left out: {counted(len(labels), "mask")} without an image, first {labels[0]!r}')
    return tuple(notes)
