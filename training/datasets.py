"""
Frames with labels, from folders or from nothing.

A dataset is a sequence of named frames; ``read`` decodes one to RGB and label ids in the *training
classes* (``TAXONOMY``). Which ids of a data set become which training class is a table beside its
loader. Labels are never interpolated: what is in a file is what arrives.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from bisenet_ros.core import drive

VOID = 255

#: Training classes. The deployed road model tells only road from the rest; the finer classes
#: supervise the booster heads (both data sets label pavement, and pavement is what a road/rest
#: network confuses with road).
TAXONOMY = drive.CLASS_NAMES
BACKGROUND, ROAD, GROUND, MOVABLE = range(4)

ENVIRONMENT = 'BISENET_DATA'

#: CamVid, 480x360 version of the SegNet tutorial: sky, building, pole, road, pavement, tree, sign,
#: fence, car, pedestrian, bicyclist, void.
CAMVID = {0: BACKGROUND, 1: BACKGROUND, 2: BACKGROUND, 3: ROAD, 4: GROUND, 5: BACKGROUND,
          6: BACKGROUND, 7: BACKGROUND, 8: MOVABLE, 9: MOVABLE, 10: MOVABLE, 11: VOID}

#: IDD-lite: drivable, non-drivable, living things, vehicles, roadside objects, far objects, sky.
IDD_LITE = {0: ROAD, 1: GROUND, 2: MOVABLE, 3: MOVABLE, 4: BACKGROUND, 5: BACKGROUND,
            6: BACKGROUND, VOID: VOID}


class DatasetError(ValueError):
    """A data folder, split or file cannot be used."""


class FrameDataset(Protocol):
    """What training reads from."""

    def __len__(self) -> int:
        """Return the number of frames."""
        ...

    def name(self, index: int) -> str:
        """Return a frame's name, for messages and reports."""
        ...

    def sequence(self, index: int) -> str:
        """Return the drive a frame belongs to; splits never cut through one."""
        ...

    def read(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Return ``uint8[H, W, 3]`` RGB and ``uint8[H, W]`` training class ids, 255 for void."""
        ...


def lookup_table(class_map: Mapping[int, int]) -> npt.NDArray[np.int16]:
    """Return ``int16[256]`` from source id to training class; -1 marks an id not in the map."""
    table = np.full(256, -1, np.int16)
    for source, target in class_map.items():
        table[source] = target
    return table


class FolderDataset:
    """
    Pairs ``images/<stem>.jpg`` and ``labels/<stem>.png`` listed in a split.

    Parameters
    ----------
    root : Path
        Folder with ``images`` and ``labels``.
    stems : sequence of str
        Names without suffix.
    class_map : mapping of int to int
        Source id to training class; every id that occurs must be in it.
    sequences : sequence of str
        The drive of each stem.

    Raises
    ------
    DatasetError
        If no frame or a file that does not exist is listed; every missing file is counted, the
        first named.

    """

    def __init__(
        self, root: Path, stems: Sequence[str], class_map: Mapping[int, int],
        sequences: Sequence[str],
    ) -> None:
        self._root = root
        if not stems:
            raise DatasetError(f'{root}: found a split without frames, expected at least one.')
        self._stems = list(stems)
        self._sequences = list(sequences)
        self._table = lookup_table(class_map)
        missing = [path for stem in self._stems for path in self._paths(stem)
                   if not path.is_file()]
        if missing:
            raise DatasetError(
                f'{root}: {len(missing)} of {2 * len(self._stems)} listed files are missing, '
                f'first {missing[0].relative_to(root)}; copy the data set whole, or mend its '
                'split file.')

    def _paths(self, stem: str) -> tuple[Path, Path]:
        return self._root / 'images' / f'{stem}.jpg', self._root / 'labels' / f'{stem}.png'

    def __len__(self) -> int:
        return len(self._stems)

    def name(self, index: int) -> str:
        return self._stems[index]

    def sequence(self, index: int) -> str:
        return self._sequences[index]

    def read(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        image_path, label_path = self._paths(self._stems[index])
        bgr = cv2.imread(str(image_path), cv2.IMREAD_COLOR)
        source = cv2.imread(str(label_path), cv2.IMREAD_UNCHANGED)
        for path, found in ((image_path, bgr), (label_path, source)):
            if found is None:
                raise DatasetError(f'{path}: not a readable image; replace or unlist it.')
        if source.ndim != 2 or source.dtype != np.uint8:
            raise DatasetError(
                f'{label_path}: found {source.dtype}{list(source.shape)}, expected one channel of '
                'uint8 class ids; convert it.')
        if source.shape != bgr.shape[:2]:
            raise DatasetError(
                f'{label_path}: found {source.shape[1]}x{source.shape[0]} pixels, but its image '
                f'has {bgr.shape[1]}x{bgr.shape[0]}; they must be equal.')
        labels = self._table[source]
        if (labels < 0).any():
            raise DatasetError(
                f'{label_path}: found class id {int(source[labels < 0][0])}, which the class map '
                'does not name; add it, or map it to 255 (void).')
        return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), labels.astype(np.uint8)


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

    Raises
    ------
    DatasetError
        If ``count`` is not positive.

    """

    def __init__(
        self, count: int, size_wh: tuple[int, int] = (512, 256), seed: int = 0,
    ) -> None:
        if count < 1:
            raise DatasetError(f'synthetic drive: found {count} frames, expected at least one.')
        self._count, self._size_wh, self._seed = count, size_wh, seed

    def __len__(self) -> int:
        return self._count

    def name(self, index: int) -> str:
        return f'drive_{self._seed}_{index:05d}'

    def sequence(self, index: int) -> str:
        return self.name(index)

    def read(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        rng = np.random.default_rng([self._seed, index])
        scene = drive.random_scene(rng)
        rendered = drive.RenderedDrive(self._size_wh, int(rng.integers(1 << 31)), scene)
        return rendered.frame(float(rng.uniform(0, 60)))


def data_root(argument: Path | None) -> Path:
    """
    Return the folder that holds the data sets.

    Raises
    ------
    DatasetError
        If neither ``argument`` nor ``$BISENET_DATA`` names a folder.

    """
    named = argument or (Path(value) if (value := os.environ.get(ENVIRONMENT)) else None)
    if named is None:
        raise DatasetError(
            f'data folder: none given; pass --data FOLDER or set {ENVIRONMENT} (a folder that '
            'holds camvid/ and idd_lite/, see training/README.md).')
    if not named.is_dir():
        raise DatasetError(f'data folder: {str(named)!r} is not a folder.')
    return named


def _split(path: Path) -> list[str]:
    if not path.is_file():
        raise DatasetError(f'{path}: no such split file; expected one stem a line.')
    return path.read_text().split()


def camvid(root: Path, split: str) -> FolderDataset:
    """
    Return CamVid's ``train``, ``val`` or ``test`` split (Brostow et al. 2009).

    ``test`` contains ``Seq05VD``, the one drive that no other split has seen: report it apart.

    """
    stems = _split(root / 'camvid' / 'splits' / f'{split}.txt')
    return FolderDataset(root / 'camvid', stems, CAMVID, [stem.split('_')[0] for stem in stems])


def idd_lite(root: Path, split: str) -> FolderDataset:
    """
    Return our ``train`` or ``val`` split of IDD-lite's labelled frames (Varma et al. 2019).

    Only its train split is labelled here, so one drive in eight (chosen by the CRC-32 of its
    number, the middle of the stem) is kept apart as ``val``.

    """
    chosen = []
    for stem in _split(root / 'idd_lite' / 'splits' / 'train.txt'):
        kept_apart = zlib.crc32(stem.split('_')[1].encode()) % 8 == 0
        if split not in ('train', 'val'):
            raise DatasetError(f'idd_lite: found split {split!r}, expected train or val.')
        if kept_apart == (split == 'val'):
            chosen.append(stem)
    return FolderDataset(
        root / 'idd_lite', chosen, IDD_LITE, [stem.split('_')[1] for stem in chosen])


def open_dataset(spec: str, root: Path | None) -> FrameDataset:
    """
    Open a data set by name.

    Parameters
    ----------
    spec : str
        ``camvid:SPLIT``, ``idd_lite:SPLIT`` or ``synthetic:COUNT[:SEED]``.
    root : Path or None
        Data folder, see ``data_root``; the synthetic drive needs none.

    Raises
    ------
    DatasetError
        If the name is unknown or its files are not there.

    """
    name, *rest = spec.split(':')
    if name == 'synthetic' and rest and all(part.isdigit() for part in rest) and len(rest) <= 2:
        return SyntheticDrive(int(rest[0]), seed=int(rest[1]) if len(rest) == 2 else 0)
    if name == 'camvid' and len(rest) == 1:
        return camvid(data_root(root), rest[0])
    if name == 'idd_lite' and len(rest) == 1:
        return idd_lite(data_root(root), rest[0])
    raise DatasetError(
        f'data set: found {spec!r}, expected camvid:SPLIT, idd_lite:SPLIT or '
        'synthetic:COUNT[:SEED].')


@dataclasses.dataclass(frozen=True)
class CheckReport:
    """What reading a whole data set found."""

    frames: int
    faults: tuple[str, ...]
    shares: tuple[float, ...]  # of each training class, then void

    def __str__(self) -> str:
        names = (*TAXONOMY, 'void')
        lines = [f'{self.frames} frames read, {len(self.faults)} unusable']
        lines += [f'  {name:<12} {share:6.1%}' for name, share in
                  zip(names, self.shares, strict=True)]
        return '\n'.join([*lines, *(f'  {fault}' for fault in self.faults)])


def check(dataset: FrameDataset) -> CheckReport:
    """Read every frame of a data set; collect faults and class shares."""
    counts, faults, frames = np.zeros(256, np.int64), [], 0
    for index in range(len(dataset)):
        try:
            _, labels = dataset.read(index)
        except DatasetError as error:
            faults.append(str(error))
            continue
        frames += 1
        counts += np.bincount(labels.ravel(), minlength=256)
    kept = np.append(counts[:len(TAXONOMY)], counts[VOID])
    return CheckReport(frames, tuple(faults), tuple(kept / max(kept.sum(), 1)))


def main(argv: list[str] | None = None) -> int:
    """Check data sets from the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m training.datasets', description='Read whole data sets and report on them.')
    commands = parser.add_subparsers(required=True, metavar='COMMAND')
    checker = commands.add_parser('check', help='read every frame, report faults and class shares')
    checker.add_argument('dataset', nargs='+', help='such as camvid:train or synthetic:100')
    checker.add_argument('--data', type=Path, help=f'data folder (default: ${ENVIRONMENT})')
    args = parser.parse_args(argv)
    faults = 0
    try:
        for spec in args.dataset:
            report = check(open_dataset(spec, args.data))
            faults += len(report.faults)
            print(f'{spec}: {report}')
    except DatasetError as error:
        print(error, file=sys.stderr)
        return 1
    return 1 if faults else 0


if __name__ == '__main__':
    sys.exit(main())
