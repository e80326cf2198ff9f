"""What data sets of users' own have in common: how files are found and paired."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from training.datasets.base import VOID, DatasetError, UnreadableError, counted, located
from training.datasets.files import Frame
from training.datasets.images import IMAGE_SUFFIXES, MASK_SUFFIXES
from training.datasets.selection import group_of
from training.datasets.spec import Request

#: Names of folders that hold the labels, beside one named ``images``.
LABEL_FOLDERS = ('labels', 'masks', 'annotations')

#: What ``training.pseudo_labels`` says of the labels that it wrote, beside their folder.
ORIGIN = 'origin.json'

#: What recorders put behind a frame's number: which camera, or which of its pictures.
_CAMERA = ('left|right|front|rear|back|side|cent(?:er|re)|middle|wide|tele|'
           r'cam(?:era)?(?:\d{1,2})?|rgb|bgr|colou?r|gr[ae]y|mono|raw|rect|img|image|'
           'leftImg8bit')

#: A time as seconds and their fraction, else a number; then what camera it is. Seconds since 1970
#: have 9 or 10 digits; a number of up to 4 digits behind them may count frames of one drive.
_NUMBER = re.compile(
    r'[\W_]*(?:(?<!\d)\d{9,10}(?:\.\d+|[_-]\d{5,})|\d+)'
    rf'(?:[\W_]*(?:{_CAMERA}))*$', re.IGNORECASE)

#: Groups of so many frames are hardly drives: as many cameras may have seen one instant.
_FEW = 6

#: Fewer frames, or fewer such groups, tell nothing.
_FRAMES, _GROUPS = 16, 8


def sequence_of(name: str) -> str:
    """
    Guess the drive of a frame from its path.

    The folder, if there is one; else the file name without the number at its end (or the time,
    in seconds and their fraction), and without the camera's name behind that.

    """
    path = PurePosixPath(name)
    return _NUMBER.sub('', path.name) or '.' if str(path.parent) == '.' else str(path.parent)


def doubts(frames: Sequence[Frame], request: Request) -> tuple[str, ...]:
    """Return what to say where the drives that file names tell may be none."""
    by = request.options.get('by', 'sequence')
    told = [frame for frame in frames if by == 'prefix' or '/' not in frame.name]
    if by == 'name' or 'split' in request.options or len(told) < _FRAMES:
        return ()
    drives = Counter(group_of(frame, by) for frame in told)
    small = [name for name, count in drives.items() if count <= _FEW]
    if len(small) < _GROUPS or 2 * len(small) <= len(drives):
        return ()
    return (f'{len(small)} of {counted(len(drives), "drive")} guessed from file names hold at '
            f'most {_FEW} frames, such as {min(small)!r}; if neighbours are told apart so, part= '
            'puts some into train and some into val: group them otherwise (by=prefix, by=folder), '
            'list them (split=FILE), or say that they are no neighbours (by=name)',)


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


def _walked(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    place = folder.resolve()
    if place in above:  # a link back to where it lies
        return
    for path in folder.iterdir():
        if path.name.startswith('.'):
            continue
        if path.is_dir():
            yield from _walked(path, (*above, place))
        elif path.is_file():
            yield path


def visible(folder: Path, pattern: str) -> Iterator[Path]:
    """Yield what matches a pattern below a folder, but for hidden files and folders."""
    return (path for path in folder.glob(pattern)
            if not any(part.startswith('.') for part in path.relative_to(folder).parts))


def files_in(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """
    Return the files of some suffixes in a folder and those in it, in order.

    Links to folders are followed; what is hidden (a name that begins with a dot) is left out.

    Raises
    ------
    UnreadableError
        If a folder cannot be read.

    """
    try:
        return sorted(path for path in _walked(folder, ()) if path.suffix.lower() in suffixes)
    except OSError as error:
        raise UnreadableError(
            f'{error.filename}: cannot be read ({error.strerror}), expected a folder; allow it, '
            'or take it away.') from error


def files_under(folder: Path, suffixes: tuple[str, ...]) -> dict[str, list[Path]]:
    """Return a folder's files of some suffixes by relative path without suffix."""
    found: dict[str, list[Path]] = {}
    for path in files_in(folder, suffixes):
        found.setdefault(str(path.relative_to(folder).with_suffix('')), []).append(path)
    return found


def refuse_blended(folder: Path, suffix: str = '') -> None:
    """
    Refuse a folder of masks that were saved with loss.

    Raises
    ------
    DatasetError
        If it holds pictures (with ``suffix`` behind their names) of no format for masks.

    """
    formats = tuple(each for each in IMAGE_SUFFIXES if each not in MASK_SUFFIXES)
    found = Counter(path.suffix.lower() for path in files_in(folder, formats)
                    if path.stem.endswith(suffix))
    if found:
        listed = ' and '.join(f'{count} {each}' for each, count in found.most_common())
        raise DatasetError(
            f'{folder}: holds {listed}, but no .png: masks must be PNG (JPEG blends ids and '
            'colours); save or export them anew, as PNG.')


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
    if not labels and (suffix or not together):
        refuse_blended(label_folder, suffix)
    if not both:
        raise DatasetError(
            f'{request.spec}: found {len(images)} images in {image_folder} and {len(labels)} '
            f'masks in {label_folder}, but no two of the same name{example(images, labels)}; say '
            'where they are (images=FOLDER, labels=FOLDER) and what masks have behind the name '
            '(suffix=_mask).')
    frames = [Frame(name, sequence_of(name), images[name][0], labels[name][0]) for name in both]
    return Pairing(frames, (*doubts(frames, request), *unpaired(
        sorted(images.keys() - labels.keys()), sorted(labels.keys() - images.keys()))))


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
