"""
Frames with labels, from folders or from nothing.

A dataset is a sequence of named frames; ``read`` decodes one to RGB and label ids of a *taxonomy*
(``TAXONOMIES``). Which class of a data set becomes which class of a taxonomy is a table beside its
loader, or the user's class map. Labels are never interpolated: what is in a file is what arrives.
"""

from training.datasets.base import (
    ENVIRONMENT, VOID, DatasetError, FrameDataset, OnBad, SizeError, UnknownClassError,
    UnreadableError, data_root,
)
from training.datasets.opening import open_dataset
from training.datasets.synthetic import SyntheticDrive
from training.datasets.taxonomy import (
    BACKGROUND, GROUND, MOVABLE, ROAD, TAXONOMIES, TAXONOMY, Taxonomy, load_taxonomy,
)
from training.datasets.tolerant import Subset, Tolerant, readable

__all__ = [
    'BACKGROUND', 'ENVIRONMENT', 'GROUND', 'MOVABLE', 'ROAD', 'TAXONOMIES', 'TAXONOMY', 'VOID',
    'DatasetError', 'FrameDataset', 'OnBad', 'SizeError', 'Subset', 'SyntheticDrive', 'Taxonomy',
    'Tolerant', 'UnknownClassError', 'UnreadableError', 'data_root', 'load_taxonomy',
    'open_dataset', 'readable',
]
