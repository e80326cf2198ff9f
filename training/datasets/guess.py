"""Which kind of data set a folder or file is, by its layout."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from training.datasets.base import DatasetError
from training.datasets.coco import entries, local_name
from training.datasets.images import IMAGE_SUFFIXES, colour_table, read_colours, read_mask
from training.datasets.masks import Colour, packed
from training.datasets.own import (
    LABEL_FOLDERS, files_in, files_under, refuse_blended, visible,
)
from training.datasets.tables import PALETTES

#: What each layout would need, for the message when none fits.
NEEDED = """\
  Cityscapes, IDD   leftImg8bit/SPLIT/CITY/*_leftImg8bit.* and gtFine/SPLIT/CITY/*_gtFine_*
  CamVid, IDD-lite  images/, labels/ and splits/*.txt in a folder named camvid or idd_lite
  labelme           a .json file with "shapes" beside each image
  masks             images/ and labels/ (or masks/), or image and .png of one name in one folder;
                    masks may all have the same behind the name (a_mask.png)
  COCO              .json files with "images", "annotations" and "categories\""""

#: Palettes that masks are taken for by their colours; CamVid's are those of VOC's classes, too.
GUESSED = ('bisenetv2_tf2', 'cityscapes')

#: Label folders of the Cityscapes layout, the better one first.
CITY_LABELS = ('gtFine', 'gtCoarse')

_LOOKED_AT = 8


@dataclasses.dataclass(frozen=True)
class Guess:
    """The data sets that a path was taken for, and why."""

    specs: tuple[str, ...]
    reason: str


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _splits(folder: Path) -> list[str]:
    return sorted(path.name for path in visible(folder, '*') if path.is_dir())


def of_cities(path: Path) -> Guess:
    """Tell Cityscapes, IDD and IDD-lite apart by the names of their files."""
    labels = {split: next((each for each in CITY_LABELS if (path / each / split).is_dir()), None)
              for split in _splits(path / 'leftImg8bit')}
    if any(visible(path / 'gtFine', '*/*/*_label.png')):
        kind, reason = 'idd_lite', 'gtFine holds *_label.png'
    elif any(stem.name.startswith(f'{stem.parent.name}_') for stem in islice(
            visible(path / 'leftImg8bit', '*/*/*'), _LOOKED_AT)):
        kind, reason = 'cityscapes', 'the names of images begin with their city'
    else:
        kind, reason = 'idd', 'the layout is that of Cityscapes, but names begin with no city'
    return Guess(tuple(
        f'{kind}:{split},path={path}' + (f',labels={folder}' if folder != CITY_LABELS[0] else '')
        for split, folder in labels.items() if folder is not None), reason)


def of_json(path: Path) -> Guess:
    """
    Tell COCO's formats and labelme's apart.

    Raises
    ------
    DatasetError
        If it is none of them, or the images are not to be found.

    """
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise DatasetError(f'{path}: not readable as JSON ({error}); mend it.') from error
    if isinstance(found, dict) and 'shapes' in found:
        return Guess((f'labelme:{path}',), 'it holds "shapes"')
    if not isinstance(found, dict) or not {'images', 'annotations', 'categories'} <= found.keys():
        raise DatasetError(f'{path}: found neither labelme\'s "shapes" nor COCO\'s "images", '
                           '"annotations" and "categories".')
    first = next((each.get('file_name') for each in entries(found, 'images', path)), None)
    folders = [path.parent / 'images', path.parent, path.parent.parent / 'images',
               *(path.parent.parent / split for split in ('train2017', 'val2017'))]
    images = next((each for each in folders
                   if isinstance(first, str) and (each / local_name(each, first)).is_file()),
                  None)
    panoptic = any('segments_info' in each for each in entries(found, 'annotations', path))
    kind, more = ('coco_panoptic', ',panoptic=FOLDER') if panoptic else ('coco', '')
    if images is None or (panoptic and not path.with_suffix('').is_dir()):
        raise DatasetError(
            f'{path}: looks like COCO, but where are the images{" and masks" if panoptic else ""}'
            f'? Say so: {kind}:{path},images={images or "FOLDER"}{more}.')
    more = f',panoptic={path.with_suffix("")}' if panoptic else ''
    return Guess((f'{kind}:{path},images={images}{more}',), 'it holds COCO annotations')


def of_coco_files(jsons: list[Path]) -> Guess | None:
    """
    Tell the COCO files among a folder's .json files; None where there are none.

    Raises
    ------
    DatasetError
        If the images of none of them are to be found.

    """
    contents = ((path, path.read_bytes()) for path in jsons[:_LOOKED_AT])
    with_points = {path: b'"keypoints"' in content for path, content in contents if all(
        key in content for key in (b'"images"', b'"annotations"', b'"categories"'))}
    guesses: list[Guess] = []
    first: DatasetError | None = None
    for path, points in with_points.items():
        if points and not all(with_points.values()):
            continue  # COCO's own second file of the same pictures, of persons alone
        try:
            guesses.append(of_json(path))
        except DatasetError as error:  # of a split that is not there, say
            first = first or error
    if guesses:
        specs = tuple(spec for each in guesses for spec in each.specs)
        return Guess(specs, f'{", ".join(spec.partition(",")[0] for spec in specs)} hold'
                            f'{"s" if len(specs) == 1 else ""} COCO annotations')
    if first is not None:
        raise first
    return None


def _masks_in(path: Path, folder: Path) -> tuple[list[Path], str]:
    """Return the masks of a folder's images, and what they have behind the images' names."""
    together = folder == path
    masks = {name: paths[0] for name, paths in files_under(folder, ('.png',)).items()}
    images = files_under(path if together else path / 'images', IMAGE_SUFFIXES)
    # In one folder, masks are the .png files beside images of other endings.
    beside = {name for name, paths in images.items()
              if not together or any(each.suffix.lower() != '.png' for each in paths)}
    if found := [mask for name, mask in masks.items() if name in beside]:
        return found, ''
    ends = Counter(
        name[place:] for name in masks for place in range(1, len(name))
        if not name[place].isalnum() and name[:place] in images)
    if not ends:
        return ([] if together else list(masks.values())), ''
    suffix = max(ends, key=lambda end: ends[end])
    return [mask for name, mask in masks.items()
            if name.endswith(suffix) and name.removesuffix(suffix) in images], suffix


def _readable(masks: Iterator[Path]) -> tuple[dict[Path, npt.NDArray[Any]], DatasetError | None]:
    """Return the first masks that can be read, and what is wrong with the first that cannot."""
    found: dict[Path, npt.NDArray[Any]] = {}
    first: DatasetError | None = None
    for each in masks:
        try:
            found[each] = read_mask(each)
        except DatasetError as error:  # checking the set will name it
            first = first or error
        if len(found) == _LOOKED_AT:
            break
    return found, first


def of_masks(path: Path) -> Guess | None:
    """
    Tell masks of ids and of colours apart; None where there are no masks.

    Raises
    ------
    DatasetError
        If no palette that is known by name has the colours, or masks are no PNG files.

    """
    folder = next((path / each for each in LABEL_FOLDERS
                   if (path / 'images').is_dir() and (path / each).is_dir()), path)
    found, suffix = _masks_in(path, folder)
    stored, error = _readable(iter(found))
    named = f'{path},suffix={suffix}' if suffix else f'{path}'
    if not stored:
        if error is not None:
            raise error
        if folder != path:
            refuse_blended(folder)
        return None
    masks = list(stored)
    tables = {each: set(colour_table(each)) for each in masks}
    numbers = all(found.ndim == 2 for found in stored.values())
    if numbers and not any(tables.values()):
        return Guess((f'ids:{named}',), f'{masks[0].name} holds ids')
    shown = {each: np.unique(packed(read_colours(each))).tolist() for each in masks}
    colours = {(v >> 16, v >> 8 & 255, v & 255) for found in shown.values() for v in found}
    # Behind a colour table the indices may be the ids. They are not where the colours are known
    # and tell as much, unless all that is seen of a larger table is the black it begins with.
    merged = any(table and len(shown[each]) < len(np.unique(stored[each]))
                 for each, table in tables.items())
    whole: set[Colour] = set().union(*tables.values())
    for name in GUESSED:
        palette = PALETTES[name]
        evident = not numbers or len(colours) > 1 or whole <= palette.keys()
        if colours <= palette.keys() and evident and not merged:
            return Guess((f'masks:{named},palette={name}',), f'the colours are those of {name}')
    if numbers:
        return Guess((f'ids:{named}',), 'no known palette has the colours of the masks, so that '
                     'their indices count; if the colours do, check masks:PATH,palette=FILE')
    template = json.dumps({','.join(map(str, colour)): '?' for colour in sorted(colours)[:16]})
    raise DatasetError(
        f'{path}: holds colour masks, but no known palette has their {len(colours)} colours; '
        f'write one, starting from {template}, and check masks:{named},palette=FILE.')


def guess(path: Path) -> Guess:
    """
    Guess what a path holds.

    Raises
    ------
    DatasetError
        If it is nothing known; the message lists what each layout needs.

    """
    if path.is_file() and path.suffix.lower() == '.json':
        return of_json(path)
    if path.is_dir():
        names = _names(path)
        if 'leftImg8bit' in names and names & set(CITY_LABELS):
            return of_cities(path)
        for kind in ('camvid', 'idd_lite'):
            if kind in path.resolve().name.lower() and {'images', 'labels', 'splits'} <= names:
                splits = (sorted(each.stem for each in visible(path / 'splits', '*.txt'))
                          if kind == 'camvid' else ['train', 'val'])
                return Guess(tuple(f'{kind}:{split},path={path}' for split in splits),
                             f'the folder is named {path.resolve().name}')
        if 'trainannot' in names:
            return Guess(tuple(
                f'camvid:{split},path={path}' for split in ('train', 'val', 'test')
                if f'{split}annot' in names), 'it holds trainannot')
        jsons = files_in(path, ('.json',))
        if any(b'"shapes"' in each.read_bytes() for each in jsons[:_LOOKED_AT]):
            return Guess((f'labelme:{path}',), 'its .json files hold "shapes"')
        if found := of_coco_files(jsons) or of_masks(path):
            return found
    raise DatasetError(
        f'{path}: found no data set of a known layout; say which kind it is (KIND:{path}), or '
        f'give it one of these:\n{NEEDED}')
