"""
Which classes of a model and of a data set are the same.

Classes are matched by name. What has no namesake on the other side counts as background, as far as
one side has such a class: a road/background model is scored on a finer taxonomy by merging, and a
Cityscapes model on road alone. Classes that mean the same under other names are named by the
caller, or by what a model learnt them as.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from training.datasets import VOID
from training.learnt import Learnt

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


def merge_texts(merges: Mapping[str, str]) -> list[str]:
    """Return the texts that ``parse_merges`` reads as this."""
    return [f'{new}={",".join(old for old, target in merges.items() if target == new)}'
            for new in dict.fromkeys(merges.values())]


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


def elsewhere(
    data_names: Sequence[str], model_names: Sequence[str], learnt: Learnt | None,
) -> dict[str, str]:
    """Return the classes of a data set that a model learnt as others than those of their names."""
    known, names = _learnt_as(model_names, learnt), {plain(name) for name in model_names}
    by_name = {name: name if name in names else REST for name in map(plain, data_names)}
    return {name: known[name] for name, same in by_name.items() if known.get(name, same) != same}


def match_as_learnt(
    data_names: Sequence[str], model_names: Sequence[Sequence[str]],
    learnt: Sequence[Learnt | None],
) -> Matching | None:
    """
    Find common classes so that each class of the data counts as what the models learnt it as.

    Parameters
    ----------
    data_names, model_names
        As for ``match``.
    learnt : sequence of Learnt or None
        Of each model; what one does not tell is matched by name.

    Returns
    -------
    Matching or None
        None where the models learnt what cannot be had at once.

    """
    merges: dict[str, str] = {}
    for names, each in zip(model_names, learnt, strict=True):
        for old, new in elsewhere(data_names, names, each).items():
            if merges.setdefault(old, new) != new:
                return None
    renamed = [merges.get(plain(name), plain(name)) for name in data_names]
    # A class of that name that another model has is the same, unless names were exchanged.
    for data, renames in ((data_names, merges), (renamed, None)):
        with contextlib.suppress(MatchingError):
            found = match(data, model_names, renames)
            if all(_holds(found, data_names, place, names, each) for place, (names, each)
                   in enumerate(zip(model_names, learnt, strict=True))):
                return found
    return None


def _holds(
    matching: Matching, data_names: Sequence[str], place: int, names: Sequence[str],
    learnt: Learnt | None,
) -> bool:
    """Tell whether a model that labels as it learnt to is right."""
    known, own = _learnt_as(names, learnt), [plain(name) for name in names]
    return all(
        matching.from_data[index] == matching.from_models[place][own.index(known[plain(name)])]
        for index, name in enumerate(data_names) if plain(name) in known)


def _learnt_as(names: Sequence[str], learnt: Learnt | None) -> dict[str, str]:
    """Return a model's class by the class of its labels."""
    return {} if learnt is None else {
        plain(trained): plain(names[target])
        for trained, target in zip(learnt.taxonomy.classes, learnt.merge, strict=True)}
