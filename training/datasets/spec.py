"""Data sets by name: ``KIND[:ARGUMENT]*[,KEY=VALUE]*``."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from training.datasets.base import DatasetError, OnBad, located
from training.datasets.classes import ClassMap, read_class_map
from training.datasets.taxonomy import TAXONOMIES, Taxonomy

_OPTION = re.compile(r',(?=[a-z_]+=)')


@dataclasses.dataclass(frozen=True)
class Request:
    """A data set as it was asked for."""

    spec: str
    kind: str
    argument: str
    options: dict[str, str]
    root: Path | None
    taxonomy: Taxonomy
    on_bad: OnBad

    def option_path(self, key: str) -> Path | None:
        """Return the file or folder that an option names, None where it is not given."""
        return located(self.options[key], self.root) if key in self.options else None

    def class_map(self, built_in: dict[str, dict[str, str]] | None = None) -> ClassMap:
        """Return the class map of ``classes=FILE`` over a loader's own tables."""
        path = self.option_path('classes')
        # A file of names may be called as one of ours is.
        ours = self.taxonomy == TAXONOMIES.get(self.taxonomy.name)
        return ClassMap(
            self.taxonomy, None if path is None else read_class_map(path),
            (built_in or {}).get(self.taxonomy.name, {}) if ours else {}, str(path))

    def number(self, key: str, default: int, least: int) -> int:
        """
        Return a whole number from an option.

        Raises
        ------
        DatasetError
            If it is none, or below ``least``.

        """
        text = self.options.get(key, str(default))
        if not text.isdecimal() or int(text) < least:
            raise DatasetError(f'{self.spec}: found {key}={text!r}, expected a whole number of '
                               f'at least {least}.')
        return int(text)


def parsed(
    spec: str, root: Path | None, taxonomy: Taxonomy, on_bad: OnBad,
) -> Request:
    """
    Split a data set's name into its parts.

    Raises
    ------
    DatasetError
        If a key comes twice.

    """
    head, *pairs = _OPTION.split(spec)
    kind, _, argument = head.partition(':')
    options: dict[str, str] = {}
    for pair in pairs:
        key, _, value = pair.partition('=')
        if key in options or not value:
            raise DatasetError(f'{spec}: found {key!r} {"twice" if key in options else "empty"}, '
                               'expected it once, with a value.')
        options[key] = value
    return Request(spec, kind, argument, options, root, taxonomy, on_bad)
