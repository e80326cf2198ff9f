"""Sets of classes that labels are read into."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from bisenet_ros.core import drive
from training.datasets.base import VOID, DatasetError, read_text

#: How a table says "count these pixels nowhere".
VOID_NAME = 'void'


@dataclasses.dataclass(frozen=True)
class Taxonomy:
    """
    The classes that labels are read into; a class's id is its place.

    Parameters
    ----------
    name : str
    classes : tuple of str
        One to 255 different names, none of them ``void``.

    Raises
    ------
    DatasetError
        If the names are none of that.

    """

    name: str
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse what has no unique ids."""
        if not 1 <= len(self.classes) <= VOID:
            raise DatasetError(f'taxonomy {self.name!r}: found {len(self.classes)} classes, '
                               f'expected 1 to {VOID}.')
        for index, each in enumerate(self.classes):
            if not isinstance(each, str) or not each.strip():
                raise DatasetError(
                    f'taxonomy {self.name!r}: found the class name {each!r}, expected a text.')
            if each == VOID_NAME or each in self.classes[:index]:
                raise DatasetError(
                    f'taxonomy {self.name!r}: found the class name {each!r} '
                    f'{"reserved" if each == VOID_NAME else "twice"}; choose different names.')

    def id_of(self, target: str) -> int:
        """
        Return the id of a class name or of ``void``.

        Raises
        ------
        DatasetError
            If the taxonomy has no such class.

        """
        if target == VOID_NAME:
            return VOID
        if target not in self.classes:
            raise DatasetError(
                f'taxonomy {self.name!r}: found the class {target!r}, expected one of '
                f'{", ".join(self.classes)} or {VOID_NAME}.')
        return self.classes.index(target)


TAXONOMIES = {each.name: each for each in (
    # What the shipped road model is trained on. Deployed are road and the rest; the finer classes
    # supervise the booster heads (pavement is what a road/rest network confuses with road).
    Taxonomy('road', drive.CLASS_NAMES),
    Taxonomy('camvid11', (
        'sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign', 'fence', 'car',
        'pedestrian', 'bicyclist')),
    # In the order of Cityscapes' trainIds.
    Taxonomy('cityscapes19', (
        'road', 'sidewalk', 'building', 'wall', 'fence', 'pole', 'traffic light', 'traffic sign',
        'vegetation', 'terrain', 'sky', 'person', 'rider', 'car', 'truck', 'bus', 'train',
        'motorcycle', 'bicycle')),
)}

#: Class names of the ``road`` taxonomy, and their ids.
TAXONOMY = TAXONOMIES['road'].classes
BACKGROUND, ROAD, GROUND, MOVABLE = range(4)


def load_taxonomy(name: str) -> Taxonomy:
    """
    Return a taxonomy by its name, or from a JSON file.

    Parameters
    ----------
    name : str
        ``road``, ``camvid11``, ``cityscapes19``, or the path of a JSON file: a list of class
        names, or an object with ``classes`` and, if wanted, ``name``.

    Raises
    ------
    DatasetError
        If it is neither, or the file does not hold class names.

    """
    if name in TAXONOMIES:
        return TAXONOMIES[name]
    path = Path(name)
    if not path.is_file():
        raise DatasetError(
            f'taxonomy: found {name!r}, expected {", ".join(TAXONOMIES)}, or a JSON file of class '
            f'names; there is no file {path.absolute()}.')
    try:
        found = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DatasetError(f'{path}: not readable as JSON ({error}); mend it.') from error
    if isinstance(found, list):
        found = {'classes': found}
    if not isinstance(found, dict) or not isinstance(found.get('classes'), list):
        raise DatasetError(
            f'{path}: found {type(found).__name__}, expected a list of class names, or an object '
            'with such a list as "classes".')
    return Taxonomy(str(found.get('name', path.stem)), tuple(found['classes']))
