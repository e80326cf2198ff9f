"""
What a model learnt, as its run or its contract tells: as which classes, from which data sets.

Older ones tell less, and what is damaged here is told as if it were not there: a model can be
scored all the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

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


def _stored(found: Mapping[str, Any]) -> Taxonomy:
    return Taxonomy(str(found['name']), tuple(found['classes']))
