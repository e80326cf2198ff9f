"""From a data set's name to its frames."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable
from pathlib import Path

from training.datasets import coco, labelme, layouts, masks, tfds
from training.datasets.base import DatasetError, FrameDataset, OnBad
from training.datasets.spec import Request, parsed
from training.datasets.synthetic import SyntheticDrive
from training.datasets.tables import SYNTHETIC_TO
from training.datasets.taxonomy import TAXONOMIES, Taxonomy
from training.datasets.tolerant import Tolerant

#: Options that every kind of files takes.
SELECTING = ('split', 'part', 'by', 'every')


@dataclasses.dataclass(frozen=True)
class Kind:
    """
    A kind of data set.

    Parameters
    ----------
    usage : str
        How its name is written.
    options : tuple of str
        The keys it takes.
    open : callable

    """

    usage: str
    options: tuple[str, ...]
    open: Callable[[Request], FrameDataset]


def synthetic(request: Request) -> FrameDataset:
    """Open rendered frames: ``COUNT`` of them, or ``COUNT:SEED``."""
    numbers = request.argument.split(':')
    if not all(part.isdecimal() for part in numbers) or len(numbers) > 2:
        raise DatasetError(f'data set: found {request.spec!r}, expected synthetic:COUNT[:SEED].')
    return SyntheticDrive(
        int(numbers[0]), seed=int(numbers[1]) if len(numbers) == 2 else 0,
        class_map=request.class_map(SYNTHETIC_TO))


_LAYOUT = ('path', 'classes', *SELECTING)
_MASKS = ('images', 'labels', 'suffix', 'classes', *SELECTING)
_COCO = ('images', 'classes', 'unlabelled', *SELECTING)

KINDS = {
    'camvid': Kind('camvid:SPLIT', _LAYOUT, layouts.camvid),
    'idd_lite': Kind('idd_lite:SPLIT', _LAYOUT, layouts.idd_lite),
    'idd': Kind('idd:SPLIT', ('labels', *_LAYOUT), layouts.idd),
    'cityscapes': Kind('cityscapes:SPLIT', ('labels', *_LAYOUT), layouts.cityscapes),
    'cityscapes_tfds': Kind('cityscapes_tfds:SPLIT', ('path', 'classes'), tfds.cityscapes_tfds),
    'labelme': Kind(
        'labelme:PATH', ('images', 'classes', 'unlabelled', *SELECTING), labelme.labelme),
    'masks': Kind('masks:PATH,palette=FILE', ('palette', *_MASKS), masks.colour_masks),
    'ids': Kind('ids:PATH[,classes=FILE]', _MASKS, masks.id_masks),
    'coco': Kind('coco:JSON,images=FOLDER', _COCO, coco.coco),
    'coco_panoptic': Kind(
        'coco_panoptic:JSON,images=FOLDER,panoptic=FOLDER', ('panoptic', *_COCO),
        coco.coco_panoptic),
    'synthetic': Kind('synthetic:COUNT[:SEED]', ('classes',), synthetic),
}


def open_frames(
    spec: str, root: Path | None, taxonomy: Taxonomy, on_bad: OnBad,
) -> FrameDataset:
    """Open a data set; a bad frame raises when it is read, under ``skip`` too."""
    request = parsed(spec, root, taxonomy, on_bad)
    if request.kind not in KINDS or not request.argument:
        near = difflib.get_close_matches(request.kind, KINDS, 1) if request.argument else []
        hint = (f' python -m training.datasets check {spec} tells which kind it is.'
                if spec and Path(spec).exists() else
                f' Did you mean {near[0]}{spec.removeprefix(request.kind)}?' if near else '')
        raise DatasetError(
            f'data set: found {spec!r}, expected '
            f'{", ".join(kind.usage for kind in KINDS.values())}.{hint}')
    kind = KINDS[request.kind]
    if unknown := [key for key in request.options if key not in kind.options]:
        raise DatasetError(
            f'data set: found the key {unknown[0]!r} in {spec!r}; {kind.usage} takes '
            f'{", ".join(f"{key}=" for key in kind.options)}.')
    return kind.open(request)


def open_dataset(
    spec: str, root: Path | None, taxonomy: Taxonomy = TAXONOMIES['road'],
    on_bad: OnBad = 'stop',
) -> FrameDataset:
    """
    Open a data set by name.

    Parameters
    ----------
    spec : str
        ``KIND:ARGUMENT[,KEY=VALUE]*``, see docs/datasets.md.
    root : Path or None
        Data folder, see ``data_root``; relative paths in ``spec`` start there or in the current
        folder.
    taxonomy : Taxonomy
        What ids ``read`` returns.
    on_bad : str
        ``stop``: a bad file raises ``DatasetError``. ``skip``: it is named on stderr, counted in
        ``faults`` and replaced, see ``Tolerant``.

    Raises
    ------
    DatasetError
        If the name is unknown, its files are not there, or nothing says what becomes of a class.

    """
    frames = open_frames(spec, root, taxonomy, on_bad)
    return Tolerant(frames, spec) if on_bad == 'skip' else frames
