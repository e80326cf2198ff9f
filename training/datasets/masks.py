"""Masks of users' own: ids, or colours through a palette."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from training.datasets.base import (
    VOID, DatasetError, FrameDataset, Pixels, UnknownClassError, read_text, located,
)
from training.datasets.classes import (
    ClassMap, colour_of, id_table, normalised, read_class_map, read_json_object,
)
from training.datasets.files import FileDataset, Frame, IdMasks, picture_of
from training.datasets.images import read_colours
from training.datasets.own import paired, ORIGIN
from training.datasets.selection import select
from training.datasets.spec import Request
from training.datasets.tables import PALETTES, PALETTES_TO
from training.datasets.void_notes import of_black_and_white

Colour = tuple[int, int, int]


def read_palette(path: Path) -> dict[Colour, str]:
    """
    Read which colour stands for which class.

    Parameters
    ----------
    path : Path
        JSON object from colour (``"32,224,224"`` or ``"#20e0e0"``, RGB) to class, or a text file
        with a line ``R G B class`` for each.

    Raises
    ------
    DatasetError
        If the file holds something else, or a colour twice.

    """
    expected = 'colours such as "32,224,224" with a class each'
    if path.suffix.lower() == '.json':
        entries = [(colour_of(key), value) for key, value
                   in read_json_object(path, f'an object of {expected}').items()]
    else:
        lines = [line.split(maxsplit=3) for line
                 in read_text(path).splitlines()
                 if line.strip() and not line.lstrip().startswith('#')]
        entries = [(colour_of(','.join(parts[:3])), parts[3].strip() if parts[3:] else None)
                   for parts in lines]
    palette: dict[Colour, str] = {}
    for number, (colour, name) in enumerate(entries, 1):
        if colour is None or not isinstance(name, str):
            raise DatasetError(f'{path}: entry {number} is not one of {expected}; mend it.')
        if palette.setdefault(colour, name) != name:
            raise DatasetError(f'{path}: found the colour {colour} for {palette[colour]!r} and '
                               f'for {name!r}; a colour stands for one class.')
    if not palette:
        raise DatasetError(f'{path}: found no colour, expected {expected}.')
    return palette


def packed(rgb: Pixels) -> np.ndarray:
    """Return each colour as one number."""
    wide = rgb.astype(np.int32)
    return (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]


class ColourMasks:
    """
    Masks whose colours stand for classes.

    Parameters
    ----------
    palette : mapping of (int, int, int) to int
        RGB colour to class id.

    """

    def __init__(self, palette: Mapping[Colour, int]) -> None:
        keys = {(red << 16) | (green << 8) | blue: target
                for (red, green, blue), target in palette.items()}
        self._keys = np.array(sorted(keys), np.int32)
        self._targets = np.array([keys[key] for key in sorted(keys)], np.uint8)

    def read(self, frame: Frame) -> tuple[Pixels, Pixels]:
        colours = packed(read_colours(frame.label))
        at = np.minimum(np.searchsorted(self._keys, colours), len(self._keys) - 1)
        unknown = self._keys[at] != colours
        if unknown.any():
            values, counts = np.unique(colours[unknown], return_counts=True)
            order = np.argsort(-counts, kind='stable')
            names = [f'{v >> 16},{v >> 8 & 255},{v & 255}' for v in values[order].tolist()]
            found = {f'colour {name}': int(count)
                     for name, count in zip(names, counts[order], strict=True)}
            more = f' and {len(names) - 4} more' if names[4:] else ''
            grey = all(len(set(name.split(','))) == 1 for name in names)
            ids = ' Greys may be class ids: then open it as ids:PATH.' if grey else ''
            raise UnknownClassError(
                f'{frame.label}: found the colour {"; ".join(names[:4])}{more}, which the palette '
                'does not name; add it there (as "void" if it is no class). Many colours come '
                'from JPEG or from resizing with interpolation: save masks as PNG, unsmoothed.'
                f'{ids}', found)
        return picture_of(frame), self._targets[at]

    def ignored(self) -> Counter[str]:
        return Counter()


def palette_of(request: Request) -> tuple[dict[Colour, str], ClassMap]:
    """
    Return the colours of ``palette=`` and what their classes become.

    Raises
    ------
    DatasetError
        If the option is missing, or neither a known name nor a file.

    """
    name = request.options.get('palette')
    if name is None:
        raise DatasetError(
            f'{request.spec}: colours need palette=FILE (JSON: {{"128,64,128": "road"}}) or '
            f'palette={"|".join(PALETTES)}.')
    if name in PALETTES:
        return PALETTES[name], request.class_map(PALETTES_TO.get(name))
    path = request.option_path('palette')
    if path is None or not path.is_file():
        raise DatasetError(f'{request.spec}: palette={name!r} is no file, expected one or '
                           f'{", ".join(PALETTES)}.')
    return read_palette(path), request.class_map()


def colour_masks(request: Request) -> FrameDataset:
    """Open images with colour-coded masks; ``classes=`` may name colours or palette classes."""
    found = paired(request)
    palette, class_map = palette_of(request)
    sources = {}
    for colour, name in palette.items():
        key = ','.join(map(str, colour))
        sources[colour] = key if class_map.names(key) else name
        class_map.meet(name)
    where = f'{request.spec}: palette'
    class_map.require(Counter(sources.values()), where)
    targets = {colour: class_map.target(name, where) for colour, name in sources.items()}
    return FileDataset(request.spec, select(found.frames, request), ColourMasks(targets),
                       request.on_bad, found.notes, class_map)


def id_masks(request: Request) -> FrameDataset:
    """
    Open images with masks of class ids.

    Without ``classes=FILE`` the ids are those of the taxonomy, 255 void.

    """
    found = paired(request)
    path = request.option_path('classes')
    if path is None:
        check_origin(located(request.argument, request.root) / ORIGIN, request)
        names = dict(enumerate(request.taxonomy.classes))
        table = id_table({**names, VOID: 'void'}, ClassMap(request.taxonomy), request.spec)
    else:
        table = id_map(read_class_map(path), request, path)
    frames = select(found.frames, request)
    notes = of_black_and_white(frames, request.taxonomy) if path is None else ()
    return FileDataset(request.spec, frames, IdMasks(table), request.on_bad,
                       (*found.notes, *notes))


def check_origin(path: Path, request: Request) -> None:
    """
    Refuse ids that were written as those of other classes.

    Parameters
    ----------
    path : Path
        Where ``training.pseudo_labels`` says what it wrote; need not be there.
    request : Request

    Raises
    ------
    DatasetError
        If it names other classes than the taxonomy has.

    """
    if not path.is_file():
        return
    classes = read_json_object(path, 'what training.pseudo_labels wrote').get('classes')
    if classes is not None and classes != list(request.taxonomy.classes):
        raise DatasetError(
            f'{path}: found labels of the classes {classes}, expected those of taxonomy '
            f'{request.taxonomy.name!r}, {list(request.taxonomy.classes)}, in that order; give '
            'the taxonomy of the run that wrote them, or say what each id becomes (classes=FILE).')


def id_map(user: Mapping[str, str], request: Request, path: Path) -> np.ndarray:
    """
    Return the table of a class map whose keys are ids.

    Raises
    ------
    DatasetError
        If a key is no id, or a class is not of the taxonomy.

    """
    class_map = ClassMap(request.taxonomy, user, origin=str(path))
    wrong = [key for key in user if key != '*' and not (key.isdecimal() and int(key) < 1 << 16)]
    if wrong:
        raise DatasetError(f'{path}: found {normalised(wrong[0])!r}, expected class ids of 0 to '
                           '65535 such as "7", or "*".')
    rest = class_map.find('*')
    table = np.full(1 << 16, -1 if rest is None else rest, np.int16)
    if VOID not in {int(key) for key in user if key != '*'} and rest is None:
        table[VOID] = VOID
    for key in user:
        if key != '*':
            table[int(key)] = class_map.target(key, str(path))
    return table
