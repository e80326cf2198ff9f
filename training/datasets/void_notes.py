"""What to say where void may be meant as a class."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from training.datasets.base import VOID, DatasetError, FrameDataset
from training.datasets.files import FileDataset, Frame
from training.datasets.images import read_colours, read_mask
from training.datasets.taxonomy import Taxonomy

#: Masks that are read to tell what ids a set holds.
_LOOKED_AT = 16

#: Above this share of void, little is left to learn from.
_LARGE = 0.5


def _named(target: str, taxonomy: Taxonomy) -> str:
    return target if target in taxonomy.classes else '?'


def of_black_and_white(frames: Sequence[Frame], taxonomy: Taxonomy) -> tuple[str, ...]:
    """Return what to say where masks of ids hold only 0 and 255, as some of them tell."""
    places = np.linspace(0, len(frames) - 1, min(len(frames), _LOOKED_AT)).round().astype(int)
    found: set[int] = set()
    for place in places:
        try:
            found.update(np.unique(read_mask(frames[place].label)).tolist())
        except DatasetError:  # whoever reads the frame will say so
            continue
    if found != {0, VOID}:
        return ()
    names = {'0': _named('background', taxonomy), str(VOID): _named('road', taxonomy)}
    return (f'found only the ids 0 and {VOID} (in {len(places)} masks), and {VOID} is void: it '
            f'counts nowhere; if it is a class, say so: classes=FILE with {json.dumps(names)}',)


def of_share(
    dataset: FrameDataset, name: str, taxonomy: Taxonomy, share: float, index: int,
) -> tuple[str, ...]:
    """
    Return what to say where most of the users' own masks is void.

    Parameters
    ----------
    dataset : FrameDataset
    name : str
        Its specification.
    taxonomy : Taxonomy
    share : float
        How much of it is void.
    index : int
        A frame with much of it.

    """
    kind = name.partition(':')[0]
    if share <= _LARGE or kind not in ('ids', 'masks') or not isinstance(dataset, FileDataset):
        return ()
    stored = (read_mask if kind == 'ids' else read_colours)(dataset.frame(index).label)
    void = stored[dataset.read(index)[1] == VOID]
    values, counts = np.unique(void, axis=0, return_counts=True)
    most = ','.join(map(str, np.atleast_1d(values[counts.argmax()]).tolist()))
    what, key, target = (
        ('id', 'classes', '?') if kind == 'ids' else
        ('colour', 'palette', _named('background', taxonomy)))
    meant = 'one of your classes' if kind == 'ids' else 'your background'
    return (f'{share:.1%} of the pixels are void, in {dataset.name(index)} mostly the {what} '
            f'{most}; if that is {meant}, say so: {key}=FILE with {json.dumps({most: target})} '
            f'and your other {what}s',)
