"""
Which classes of a model and of a data set are the same.

Classes are matched by name. What has no namesake on the other side counts as background, as far as
one side has such a class: a road/background model is scored on a finer taxonomy by merging, and a
Cityscapes model on road alone. Classes that mean the same under other names are named by the
caller.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from training.datasets import VOID

#: The class of everything that has no class of its own.
REST = 'background'


class MatchingError(ValueError):
    """The classes of a model and a data set cannot be compared."""


@dataclasses.dataclass(frozen=True)
class Matching:
    """
    Common classes.

    ``names`` are theirs; ``from_data`` and each of ``from_models`` is a ``uint8[256]`` from an id
    of the data set or of a model to an id of ``names``, 255 to 255.

    """

    names: tuple[str, ...]
    from_data: npt.NDArray[np.uint8]
    from_models: tuple[npt.NDArray[np.uint8], ...]


def parse_merges(texts: Sequence[str]) -> dict[str, str]:
    """
    Read ``NEW=OLD,OLD`` texts.

    Returns
    -------
    dict of str to str
        New name by old name, in lower case.

    Raises
    ------
    MatchingError
        If a text is not of that form or names a class twice.

    """
    merges: dict[str, str] = {}
    for text in texts:
        new, _, rest = text.partition('=')
        olds = [plain(old) for old in rest.split(',') if old.strip()]
        if not plain(new) or not olds:
            raise MatchingError(
                f'--merge: found {text!r}, expected NEW=OLD,OLD such as ground=sidewalk,terrain.')
        for old in olds:
            if merges.setdefault(old, plain(new)) != plain(new):
                raise MatchingError(f'--merge: {old!r} is to become {merges[old]!r} and '
                                    f'{plain(new)!r}; name it once.')
    return merges


def plain(name: str) -> str:
    """Return a class name as it is compared: lower case, words apart by one blank."""
    return ' '.join(name.lower().replace('_', ' ').replace('-', ' ').split())


def match(
    data_names: Sequence[str], model_names: Sequence[Sequence[str]],
    merges: Mapping[str, str] | None = None,
) -> Matching:
    """
    Find the common classes of a data set and of all models.

    Parameters
    ----------
    data_names : sequence of str
        By class id.
    model_names : sequence of sequence of str
        Of each model, by class id.
    merges : mapping of str to str or None
        New name by old name, of ``parse_merges``.

    Returns
    -------
    Matching
        In the data set's order.

    Raises
    ------
    MatchingError
        If nothing is common, or classes are left over and no side has a background.

    """
    merges = merges or {}
    sides = [[merges.get(plain(name), plain(name)) for name in names]
             for names in (data_names, *model_names)]
    known = {plain(name) for names in (data_names, *model_names) for name in names}
    if unknown := sorted(set(merges) - known):
        raise MatchingError(
            f'--merge: found {", ".join(unknown)}, expected classes of the data set or of a '
            f'model: {", ".join(sorted(known))}.')
    shared = set.intersection(*map(set, sides)) - {REST}
    left_over = {name for side in sides for name in side} - shared
    if not shared or (left_over and REST not in left_over):
        found = '; '.join(
            f'{who}: {", ".join(dict.fromkeys(side))}' for who, side in zip(
                ('data set', *(f'model {index + 1}' for index in range(len(model_names)))),
                sides, strict=True))
        raise MatchingError(
            f'classes: {"those without a namesake cannot be told" if shared else "none in common"}'
            f' ({found}); say which mean the same with --merge NEW=OLD,OLD, and {REST}=OLD,OLD '
            'for those that are to count as the rest.')
    # The rest stands where the data set has it, or first, as in every road model.
    order = list(dict.fromkeys(name if name in shared else REST for name in sides[0]))
    if left_over and REST not in order:
        order.insert(0, REST)
    tables = []
    for side in sides:
        table = np.full(256, VOID, np.uint8)
        table[:len(side)] = [order.index(name if name in shared else REST) for name in side]
        tables.append(table)
    return Matching(tuple(order), tables[0], tuple(tables[1:]))
