"""
What a model learnt, as its run or its contract tells: as which classes, from which data sets.

Older ones tell less, and what is damaged here is told as if it were not there: a model can be
scored all the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bisenet_ros.core.contract import contract_path
from training.datasets import DatasetError, load_taxonomy, Taxonomy


@dataclasses.dataclass(frozen=True)
class Learnt:
    """
    What labels were to a model in training.

    ``taxonomy`` holds the classes that they were read into, ``merge`` the id of the model's class
    that each of them became.

    """

    taxonomy: Taxonomy
    merge: tuple[int, ...]

    def told(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return what a contract's provenance tells of it, for a model of these classes."""
        return {'taxonomy': dataclasses.asdict(self.taxonomy), 'merge': {
            name: [trained for trained, target in zip(
                self.taxonomy.classes, self.merge, strict=True) if target == index]
            for index, name in enumerate(classes)}}


def from_provenance(provenance: Mapping[str, Any], classes: Sequence[str]) -> Learnt | None:
    """Return what a contract's provenance tells, None where that is nothing."""
    try:
        taxonomy, merge = _stored(provenance['taxonomy']), provenance['merge']
        became = {trained: list(classes).index(name)
                  for name, olds in merge.items() for trained in olds}
        return Learnt(taxonomy, tuple(became[name] for name in taxonomy.classes))
    except (LookupError, TypeError, ValueError, AttributeError, DatasetError):
        return None


def from_run(described: Mapping[str, Any], count: int) -> Learnt | None:
    """Return what ``config.json`` tells of a model of so many classes, None where nothing."""
    try:
        config = described['config']
        merge = tuple(map(int, config['merge']))
        taxonomy = (_stored(described['taxonomy']) if 'taxonomy' in described
                    else load_taxonomy(config.get('taxonomy', 'road')))
    except (LookupError, TypeError, ValueError, AttributeError, DatasetError):
        return None
    fits = len(merge) == len(taxonomy.classes) and all(0 <= target < count for target in merge)
    return Learnt(taxonomy, merge) if fits else None


def described(path: Path) -> dict[str, Any]:
    """Return what a run's settings or a contract tell; nothing where they do not lie there."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def data_sets(place: Path) -> tuple[str, ...]:
    """
    Return the data sets that a run or a ``.keras`` file was trained on, as far as anything tells.

    Parameters
    ----------
    place : Path
        Run folder; or the file, which ``config.json`` of its run, or a contract of its name, lies
        beside.

    Returns
    -------
    tuple of str
        Each once; those of the runs that it started from last.

    """
    return tuple(dict.fromkeys(_data_sets(place, set())))


def _data_sets(place: Path, seen: set[Path]) -> list[str]:
    settings = (place if place.is_dir() else place.parent) / 'config.json'
    if settings.resolve() in seen:
        return []
    seen.add(settings.resolve())
    run = described(settings)
    try:
        own = [str(spec) for spec, _ in run['config']['train']]
    except (KeyError, TypeError, ValueError):
        own = []
    if not own and not place.is_dir():
        return list(told_sets(described(contract_path(place)).get('provenance')))
    if isinstance(before := run.get('trained_before'), list):
        return [*own, *map(str, before)]
    # An older run names alone where it started, which may be gone, or out of reach.
    init = run['config'].get('init') if own else ''
    if init and isinstance(init, str):
        with contextlib.suppress(OSError):
            own += _data_sets(Path(init), seen)
    return own


def told_sets(provenance: object) -> tuple[str, ...]:
    """Return the data sets that a contract's provenance names."""
    told = provenance.get('datasets') if isinstance(provenance, Mapping) else None
    return tuple(map(str, told)) if isinstance(told, list) else ()


def _stored(found: Mapping[str, Any]) -> Taxonomy:
    return Taxonomy(str(found['name']), tuple(found['classes']))
