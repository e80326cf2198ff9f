"""Which class of a taxonomy a source's class becomes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.datasets.base import DatasetError, UnknownClassError
from training.datasets.taxonomy import VOID_NAME, Taxonomy

#: In a class map: every source class that it does not name.
ANY = '*'

#: Names with which annotation tools mark what is no class (labelme's conventions).
CONVENTIONS = {'__ignore__': VOID_NAME, '_background_': 'background'}

_COLOUR = re.compile(r'\s*(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})\s*')
_HEX_COLOUR = re.compile(r'\s*#([0-9a-fA-F]{6})\s*')


def colour_of(text: str) -> tuple[int, int, int] | None:
    """Return the RGB colour that ``'32,224,224'`` or ``'#20e0e0'`` names, None for other texts."""
    if found := _HEX_COLOUR.fullmatch(text):
        red, green, blue = bytes.fromhex(found.group(1))
        return red, green, blue
    if found := _COLOUR.fullmatch(text):
        red, green, blue = (int(part) for part in found.groups())
        return (red, green, blue) if max(red, green, blue) <= 255 else None
    return None


def normalised(key: str) -> str:
    """Return a class map's key with colours written as ``'32,224,224'``."""
    colour = colour_of(key)
    return ','.join(map(str, colour)) if colour else key.strip()


def _each_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Make an object of a file's pairs; JSON itself would take the last of equal keys."""
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f'found the key {key!r} twice, expected it once')
        found[key] = value
    return found


def read_json_object(path: Path, expected: str) -> dict[str, object]:
    """
    Return the object in a JSON file.

    Raises
    ------
    DatasetError
        If the file is missing or holds something else.

    """
    if not path.is_file():
        raise DatasetError(f'{path}: no such file; expected {expected}.')
    try:
        found = json.loads(path.read_text(encoding='utf-8-sig'), object_pairs_hook=_each_once)
    except ValueError as error:
        raise DatasetError(f'{path}: not readable as JSON ({error}); mend it.') from error
    if not isinstance(found, dict):
        raise DatasetError(f'{path}: found {type(found).__name__}, expected {expected}.')
    return found


def read_class_map(path: Path) -> dict[str, str]:
    """
    Read which source class becomes which class.

    Parameters
    ----------
    path : Path
        JSON object from source class (a name, an id, a colour such as ``"32,224,224"`` or
        ``"#20e0e0"``, or ``"*"`` for all others) to class name, ``"void"`` or null.

    Raises
    ------
    DatasetError
        If the file is missing or holds something else.

    """
    table = {}
    for key, value in read_json_object(path, 'an object from source class to class').items():
        if value is not None and not isinstance(value, str):
            raise DatasetError(
                f'{path}: found {value!r} for {key!r}, expected a class name, "void" or null.')
        table[normalised(key)] = VOID_NAME if value is None else value
    return table


class ClassMap:
    """
    From the names of a source to the ids of a taxonomy.

    A name is looked up in the user's table, then in the loader's own; then a class of the same
    name is taken, then what the user's table says of ``*``.

    Parameters
    ----------
    taxonomy : Taxonomy
    user : mapping of str to str or None
        See ``read_class_map``.
    built_in : mapping of str to str
        The loader's own table to this taxonomy.
    origin : str
        The file of the user's table, for messages.

    Raises
    ------
    DatasetError
        If a table names a class that the taxonomy does not have.

    """

    def __init__(
        self, taxonomy: Taxonomy, user: Mapping[str, str] | None = None,
        built_in: Mapping[str, str] | None = None, origin: str = 'class map',
    ) -> None:
        self.taxonomy = taxonomy
        self._ids = {source: taxonomy.id_of(target)
                     for source, target in (built_in or {}).items()}
        for source, target in (user or {}).items():
            try:
                self._ids[source] = taxonomy.id_of(target)
            except DatasetError as error:
                raise DatasetError(f'{origin}: for {source!r}: {error}') from error
        self._any = self._ids.pop(ANY, None)
        self._unmet = {source: None for source in user or {} if source != ANY}

    def names(self, source: str) -> bool:
        """Tell whether a table names a source's class."""
        return source in self._ids

    def knows(self, source: str) -> bool:
        """Tell whether a table names a source's class, or the taxonomy has it."""
        same = CONVENTIONS.get(source, source)
        return source in self._ids or same == VOID_NAME or same in self.taxonomy.classes

    def find(self, source: str) -> int | None:
        """Return the id of a source's class, None where nothing names it."""
        self.meet(source)
        if source in self._ids:
            return self._ids[source]
        if self.knows(source):
            return self.taxonomy.id_of(CONVENTIONS.get(source, source))
        return self._any

    def target(self, source: str, where: str) -> int:
        """
        Return the id of a source's class.

        Raises
        ------
        UnknownClassError
            If nothing names it.

        """
        found = self.find(source)
        if found is None:
            raise UnknownClassError(self.complaint(where, [source]), {source: 1})
        return found

    def meet(self, source: str) -> None:
        """Note that a source has a class of this name, whatever becomes of it."""
        self._unmet.pop(source, None)

    def unmet(self) -> list[str]:
        """Return what the user's table names and no source was found to have."""
        return list(self._unmet)

    def require(self, counts: Mapping[str, int], where: str) -> None:
        """
        Say of all of a file's classes at once whether they are known.

        Raises
        ------
        UnknownClassError
            If nothing names some of them.

        """
        if unknown := {name: count for name, count in counts.items() if self.find(name) is None}:
            raise UnknownClassError(self.complaint(where, unknown), unknown)

    def targets(self, names: Mapping[int, str], where: str) -> dict[int, int]:
        """
        Return the ids of a source's classes, by the source's ids.

        Raises
        ------
        UnknownClassError
            If nothing says what becomes of some of them.

        """
        found = {source: self.find(name) for source, name in names.items()}
        if unknown := [names[source] for source, target in found.items() if target is None]:
            raise UnknownClassError(self.complaint(where, unknown), dict.fromkeys(unknown, 1))
        return {source: target for source, target in found.items() if target is not None}

    def complaint(self, where: str, sources: Iterable[str]) -> str:
        """Return what to say of source classes that nothing names."""
        listed = list(sources)
        shown = ', '.join(repr(each) for each in listed[:8]) + (', ...' if listed[8:] else '')
        return (f'{where}: found the class {shown}, which the class map does not name and the '
                f'taxonomy {self.taxonomy.name!r} does not have; fill in a class of it or '
                f'"{VOID_NAME}" and give it as classes=FILE: '
                f'{json.dumps(dict.fromkeys(listed, "?"))}')


def id_table(
    names: Mapping[int, str], class_map: ClassMap, where: str,
) -> npt.NDArray[np.int16]:
    """
    Return the table from source id to class id.

    Parameters
    ----------
    names : mapping of int to str
        The source's ids and class names.
    class_map : ClassMap
    where : str
        For messages.

    Returns
    -------
    int16[65536]
        -1 marks an id that is not in ``names``.

    Raises
    ------
    UnknownClassError
        If nothing says what becomes of one of the names.

    """
    table = np.full(1 << 16, -1, np.int16)
    for source, target in class_map.targets(names, where).items():
        table[source] = target
    return table
