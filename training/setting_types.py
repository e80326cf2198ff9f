"""Settings whose values are of another type than their dataclass says."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any


def check_types(settings: Any, where: str = '') -> None:
    """
    Compare the values of a dataclass, and of those within it, with their annotations.

    An ``int`` serves as a ``float``, as usual (PEP 484); a ``bool`` is no number here.

    Parameters
    ----------
    settings : dataclass instance
        Annotated with classes, ``tuple[...]`` and unions of these.
    where : str
        What stands before the names in messages.

    Raises
    ------
    TypeError
        If one differs, naming it.

    """
    hints = typing.get_type_hints(type(settings))
    for field in dataclasses.fields(settings):
        name, value = f'{where}{field.name}', getattr(settings, field.name)
        if not _fits(value, hints[field.name]):
            # A text is a sequence, too: of its letters.
            single = (f'; one alone is written ({value!r},)'
                      if isinstance(value, str) and 'tuple' in str(field.type) else '')
            raise TypeError(f'{name}: found {value!r}, expected {field.type}{single}.')
        if dataclasses.is_dataclass(value):
            check_types(value, f'{name}.')
        for index, each in enumerate(value if isinstance(value, tuple) else ()):
            if dataclasses.is_dataclass(each):
                check_types(each, f'{name}[{index}].')


def _fits(value: object, hint: Any) -> bool:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if parts[-1] is Ellipsis:
            parts = (parts[0],) * len(value)
        return len(value) == len(parts) and all(map(_fits, value, parts))
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    return isinstance(value, hint)


def tupled(value: object) -> object:
    """Return a value with its lists, and those in them, as tuples."""
    return tuple(map(tupled, value)) if isinstance(value, (list, tuple)) else value
