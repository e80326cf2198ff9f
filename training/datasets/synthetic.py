"""Rendered frames."""

from __future__ import annotations

import numpy as np

from bisenet_ros.core import drive
from training.datasets.base import DatasetError, Pixels
from training.datasets.classes import ClassMap
from training.datasets.taxonomy import TAXONOMIES


class SyntheticDrive:
    """
    Rendered frames (``bisenet_ros.core.drive``), every one of another random scene.

    Parameters
    ----------
    count : int
        Number of frames.
    size_wh : (int, int)
        Frame width and height in pixels.
    seed : int
        Two datasets of different seeds share no scene.
    class_map : ClassMap or None
        From the rendered class names to other classes than those of the ``road`` taxonomy.

    Raises
    ------
    DatasetError
        If ``count`` is not positive.

    """

    def __init__(
        self, count: int, size_wh: tuple[int, int] = (512, 256), seed: int = 0,
        class_map: ClassMap | None = None,
    ) -> None:
        if count < 1:
            raise DatasetError(f'synthetic drive: found {count} frames, expected at least one.')
        self._count, self._size_wh, self._seed = count, size_wh, seed
        names = ClassMap(TAXONOMIES['road']) if class_map is None else class_map
        self._table = np.array(
            [names.target(each, 'synthetic drive') for each in drive.CLASS_NAMES], np.uint8)

    def __len__(self) -> int:
        return self._count

    def name(self, index: int) -> str:
        return f'drive_{self._seed}_{index:05d}'

    def sequence(self, index: int) -> str:
        return self.name(index)

    def read(self, index: int) -> tuple[Pixels, Pixels]:
        rng = np.random.default_rng([self._seed, index])
        scene = drive.random_scene(rng)
        rendered = drive.RenderedDrive(self._size_wh, int(rng.integers(1 << 31)), scene)
        rgb, ids = rendered.frame(float(rng.uniform(0, 60)))
        return rgb, self._table[ids]
