"""The folder layouts of public data sets."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from training.datasets.base import (
    VOID, DatasetError, FrameDataset, Pixels, SizeError, UnreadableError, counted,
)
from training.datasets.classes import ClassMap, id_table
from training.datasets.files import FileDataset, Frame, FrameReader, IdMasks, picture_of
from training.datasets.images import read_bytes, turned
from training.datasets.own import unpaired, visible
from training.datasets.roots import folder_of
from training.datasets.selection import kept_apart, listed_names, select
from training.datasets.shapes import fill_polygon
from training.datasets.spec import Request
from training.datasets.tables import (
    CAMVID_IDS, CAMVID_TO, CITYSCAPES_IDS, CITYSCAPES_TO, CITYSCAPES_TRAIN_IDS, IDD_IDS,
    IDD_LEVEL3_IDS, IDD_LITE_IDS, IDD_LITE_TO, IDD_TO,
)

_IMAGES = 'leftImg8bit'


def pairs(root: Path, stems: list[str], sequences: list[str]) -> list[Frame]:
    """Return frames of ``images/<stem>.jpg`` and ``labels/<stem>.png``."""
    return [Frame(stem, sequence, root / 'images' / f'{stem}.jpg', root / 'labels' / f'{stem}.png')
            for stem, sequence in zip(stems, sequences, strict=True)]


def camvid(request: Request) -> FrameDataset:
    """
    Open CamVid's ``train``, ``val`` or ``test`` split (Brostow et al. 2009).

    Either ``images``, ``labels`` and ``splits``, or the folders of the SegNet tutorial (``train``
    and ``trainannot``, and so on). ``test`` contains ``Seq05VD``, the one drive that no other
    split has seen: report it apart.

    """
    root, split = folder_of(request), request.argument
    notes: tuple[str, ...] = ()
    if any((root / name).is_dir() for name in (f'{split}annot', split)):
        frames, notes = of_segnet(request, root / split, root / f'{split}annot')
    else:
        listed = root / 'splits' / f'{split}.txt'
        if not listed.is_file():
            raise DatasetError(f'{request.spec}: found no split {split!r} in {root}; the splits '
                               f'there are {", ".join(splits_of_camvid(root)) or "none"}.')
        stems = listed_names(listed)
        frames = pairs(root, stems, [stem.split('_')[0] for stem in stems])
    class_map = request.class_map(CAMVID_TO)
    table = id_table(CAMVID_IDS, class_map, request.spec)
    return FileDataset(str(root), select(frames, request), IdMasks(table), request.on_bad,
                       notes, class_map)


def splits_of_camvid(root: Path) -> list[str]:
    """Return the splits that a folder holds in one layout or the other."""
    return sorted({*(path.stem for path in visible(root / 'splits', '*.txt')),
                   *(path.name.removesuffix('annot') for path in visible(root, '*annot'))})


def of_segnet(
    request: Request, images: Path, truth: Path,
) -> tuple[list[Frame], tuple[str, ...]]:
    """
    Return the labelled frames of a split as in the SegNet tutorial, and notes.

    Raises
    ------
    DatasetError
        If it has images and no labels.

    """
    shown = {path.name for path in visible(images, '*.png')}
    labels = sorted(visible(truth, '*.png'))
    if shown and not labels:
        raise no_labels(request, len(shown), truth, 'a .png of each image\'s name')
    frames = [Frame(path.stem, path.stem.split('_')[0], images / path.name, path)
              for path in labels]
    return frames, unpaired(sorted(shown - {path.name for path in labels}), [])


def idd_lite(request: Request) -> FrameDataset:
    """
    Open our ``train`` or ``val`` split of IDD-lite's labelled frames (Varma et al. 2019).

    Only its train split is labelled here, so one drive in eight (chosen by the CRC-32 of its
    number, the middle of the stem) is kept apart as ``val``. In the published layout
    (``leftImg8bit`` and ``gtFine``) the splits are the publisher's.

    """
    root, split = folder_of(request), request.argument
    class_map = request.class_map(IDD_LITE_TO)
    table = id_table(IDD_LITE_IDS, class_map, request.spec)
    notes: tuple[str, ...] = ()
    if (root / _IMAGES).is_dir():
        frames, notes = of_published_lite(
            request, root / _IMAGES / split, root / 'gtFine' / split)
    else:
        stems = listed_names(root / 'splits' / 'train.txt')
        if split not in ('train', 'val'):
            raise DatasetError(f'idd_lite: found split {split!r}, expected train or val.')
        drives = [stem.split('_')[1] for stem in stems]
        frames = [frame for frame in pairs(root, stems, drives)
                  if kept_apart(frame.sequence) == (split == 'val')]
    return FileDataset(str(root), select(frames, request), IdMasks(table), request.on_bad,
                       notes, class_map)


def of_published_lite(
    request: Request, images: Path, truth: Path,
) -> tuple[list[Frame], tuple[str, ...]]:
    """
    Return the frames of a split of IDD-lite as it is published, and notes.

    Raises
    ------
    DatasetError
        If it has no images or no labels.

    """
    frames = []
    for path in sorted(visible(images, '*/*_image.jpg')):
        drive, stem = path.parent.name, path.name.removesuffix('_image.jpg')
        frames.append(Frame(f'{drive}/{stem}', drive, path, truth / drive / f'{stem}_label.png'))
    if not frames:
        raise no_frames(request, images)
    labels = {path for path in visible(truth, '*/*_label.png')
              if not path.name.endswith('_inst_label.png')}
    if not labels:
        raise no_labels(request, len(frames), truth, 'DRIVE/*_label.png')
    bare = sorted(labels - {frame.label for frame in frames})
    return frames, unpaired([], [str(path.relative_to(truth)) for path in bare])


def no_frames(request: Request, folder: Path) -> DatasetError:
    """Return the error of a split whose folder holds no frame."""
    splits = sorted(path.name for path in visible(folder.parent, '*') if path.is_dir())
    return DatasetError(
        f'{request.spec}: found no image in {folder}; the splits there are '
        f'{", ".join(splits) or "none"}.')


def no_labels(request: Request, images: int, folder: Path, expected: str) -> DatasetError:
    """Return the error of a split that has images, but no labels."""
    return DatasetError(
        f'{request.spec}: found {counted(images, "image")}, but no labels in {folder}; expected '
        f'{expected}.')


@dataclasses.dataclass(frozen=True)
class LabelFiles:
    """One of the label files that the Cityscapes layout may hold, and its ids."""

    end: str
    ids: Mapping[int, str]


class PolygonObjects:
    """
    Polygons of named classes (``*_polygons.json`` of Cityscapes and IDD).

    Later objects lie over earlier ones, and all over ``unlabeled``, which is void where nothing
    names it. A name that ends in ``group`` is its class.

    Parameters
    ----------
    class_map : ClassMap
    undrawn : tuple of str
        Classes that the publisher's own masks leave out.

    """

    def __init__(self, class_map: ClassMap, undrawn: tuple[str, ...] = ()) -> None:
        self._class_map, self._undrawn = class_map, undrawn
        ground = class_map.find('unlabeled')
        self._ground = VOID if ground is None else ground

    def read(self, frame: Frame) -> tuple[Pixels, Pixels]:
        found, rgb = json_object(frame.label), picture_of(frame)
        try:
            stated = int(found['imgHeight']), int(found['imgWidth'])
            if stated != rgb.shape[:2]:
                raise SizeError(
                    f'{frame.label}: was drawn on {stated[1]}x{stated[0]} pixels, but its image '
                    f'has {rgb.shape[1]}x{rgb.shape[0]}; they must be equal.{turned(frame.image)}')
            ids = np.full(stated, self._ground, np.uint8)
            drawn = [(self._name(str(each['label'])), each['polygon'])
                     for each in found['objects'] if not each.get('deleted')]
            drawn = [(name, polygon) for name, polygon in drawn
                     if len(polygon) > 2 and name not in self._undrawn]
            self._class_map.require(Counter(name for name, _ in drawn), str(frame.label))
            for name, polygon in drawn:
                fill_polygon(ids, polygon, self._class_map.target(name, str(frame.label)))
        except DatasetError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError,
                cv2.error) as error:
            raise UnreadableError(
                f'{frame.label}: found no Cityscapes polygons ({error!r}), expected imgHeight, '
                'imgWidth and objects with label and polygon; replace it or leave it out.'
            ) from error
        return rgb, ids

    def _name(self, label: str) -> str:
        self._class_map.meet(label)
        return label if self._class_map.knows(label) else label.removesuffix('group')

    def ignored(self) -> Counter[str]:
        return Counter()


def json_object(path: Path) -> dict[str, Any]:
    """
    Return the object in an annotation file.

    Raises
    ------
    UnreadableError
        If it holds none.

    """
    content = read_bytes(path, 'JSON file')
    try:
        found = json.loads(content)
    except ValueError as error:
        raise UnreadableError(
            f'{path}: not readable as JSON ({error}); replace it or leave it out.') from error
    if not isinstance(found, dict):
        raise UnreadableError(f'{path}: found {type(found).__name__}, expected a JSON object.')
    return found


def of_cities(
    request: Request, root: Path, masks: tuple[LabelFiles, ...],
    tables: dict[str, dict[str, str]], undrawn: tuple[str, ...] = (),
) -> FrameDataset:
    """
    Open a data set in the layout of Cityscapes.

    ``leftImg8bit/SPLIT/CITY/*_leftImg8bit.*`` with label files of the same stem in ``gtFine`` (or
    the folder that ``labels=`` names, whose last part the files are called by): the first kind of
    ``masks`` that is there, else polygons.

    Raises
    ------
    DatasetError
        If the split has no images or no labels.

    """
    folder = root / _IMAGES / request.argument
    truth = root / Path(request.options.get('labels', 'gtFine')).expanduser()
    labels, truth = truth.name, truth / request.argument
    images = sorted(path for path in visible(folder, f'*/*_{_IMAGES}.*') if path.is_file())
    if not images:
        raise no_frames(request, folder)
    class_map = request.class_map(tables)
    for name in undrawn:
        class_map.meet(name)
    for kind in masks:
        if any(visible(truth, f'*/*_{labels}{kind.end}')):
            end = kind.end
            reader: FrameReader = IdMasks(id_table(kind.ids, class_map, request.spec))
            break
    else:
        end, reader = '_polygons.json', PolygonObjects(class_map, undrawn)
        if not any(visible(truth, f'*/*_{labels}{end}')):
            kinds = ', '.join(f'*_{labels}{each}' for each in (
                *(kind.end for kind in masks), end))
            raise no_labels(request, len(images), truth, f'CITY/ with one of {kinds}')
    frames = []
    for path in images:
        city, stem = path.parent.name, path.name.split(f'_{_IMAGES}')[0]
        frames.append(Frame(f'{city}/{stem}', city, path, truth / city / f'{stem}_{labels}{end}'))
    bare = sorted(set(visible(truth, f'*/*_{labels}{end}'))
                  - {frame.label for frame in frames})
    return FileDataset(str(root), select(frames, request), reader, request.on_bad,
                       unpaired([], [path.name for path in bare]), class_map)


def cityscapes(request: Request) -> FrameDataset:
    """Open a split of Cityscapes (Cordts et al. 2016) as it is downloaded."""
    return of_cities(
        request, folder_of(request),
        (LabelFiles('_labelIds.png', CITYSCAPES_IDS),
         LabelFiles('_labelTrainIds.png', CITYSCAPES_TRAIN_IDS)), CITYSCAPES_TO,
        # Its id is -1: what is under a number plate stays.
        undrawn=('license plate',))


def idd(request: Request) -> FrameDataset:
    """
    Open a split of the full India Driving Dataset (Varma et al. 2019).

    Its masks are made by the publisher's scripts, in one of several ids; without any, the
    polygons it is published with are drawn.

    """
    return of_cities(
        request, folder_of(request),
        (LabelFiles('_labelids.png', IDD_IDS), LabelFiles('_labellevel3Ids.png', IDD_LEVEL3_IDS),
         LabelFiles('_labelcsTrainIds.png', CITYSCAPES_TRAIN_IDS)),
        {name: {**CITYSCAPES_TO[name], **table} for name, table in IDD_TO.items()})
