"""COCO annotations: one JSON file for a whole data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from training.datasets.base import (
    VOID, DatasetError, FrameDataset, Pixels, SizeError, UnknownClassError, UnreadableError,
    located,
)
from training.datasets.files import FileDataset, Frame, picture_of
from training.datasets.images import read_mask
from training.datasets.layouts import json_object
from training.datasets.masks import packed
from training.datasets.own import sequence_of, unlabelled_id
from training.datasets.runs import mask_of
from training.datasets.selection import select
from training.datasets.shapes import fill_centres
from training.datasets.spec import Request

Entry = dict[str, Any]


def drawn(
    annotation: Entry, labels: Pixels, value: int, where: str,
) -> None:
    """
    Draw one annotation: polygons, or runs.

    Raises
    ------
    UnreadableError
        If it is neither.

    """
    found = annotation.get('segmentation')
    hw = labels.shape
    try:
        if isinstance(found, list):
            fill_centres(labels, found, value)
            return
        if isinstance(found, dict):
            if tuple(found['size']) != hw:
                raise SizeError(
                    f'{where}: annotation {annotation.get("id")} was made on '
                    f'{found["size"][1]}x{found["size"][0]} pixels, but its image has '
                    f'{hw[1]}x{hw[0]}; put the annotated image back.')
            labels[mask_of(found['counts'], hw)] = value
            return
    except SizeError:
        raise
    except (KeyError, ValueError, TypeError, IndexError, OverflowError) as error:
        raise UnreadableError(f'{where}: annotation {annotation.get("id")} cannot be drawn '
                              f'({error}); export the data set again.') from error
    raise UnreadableError(
        f'{where}: annotation {annotation.get("id")} has a segmentation of type '
        f'{type(found).__name__}, expected polygons (a list) or runs (size and counts).')


class CocoShapes:
    """
    Polygons and runs of COCO's instance annotations, later ones over earlier ones.

    Parameters
    ----------
    annotations : mapping of (int or str) to list of dict
        By image id.
    targets : mapping of int to int
        Category id to class id.
    unlabelled : int
        Id of what no annotation covers.

    """

    def __init__(
        self, annotations: Mapping[int | str, list[Entry]], targets: Mapping[int, int],
        unlabelled: int,
    ) -> None:
        self._annotations, self._targets = annotations, targets
        self._unlabelled = unlabelled

    def ignored(self) -> Counter[str]:
        return Counter()

    def read(self, frame: Frame) -> tuple[Pixels, Pixels]:
        rgb = picture_of(frame)
        labels = np.full(rgb.shape[:2], self._unlabelled, np.uint8)
        where = f'{frame.label}: {frame.name}'
        for annotation in self._annotations.get(frame.key, ()):
            category = annotation.get('category_id')
            if category not in self._targets:
                raise UnknownClassError(
                    f'{where}: found category {category!r}, which "categories" does not list; '
                    'export the data set again.', {f'category {category}': 1})
            drawn(annotation, labels, self._targets[annotation['category_id']], where)
        return rgb, labels


class PanopticMasks:
    """
    COCO's panoptic masks: a colour is a segment's id, the JSON file says its category.

    Parameters
    ----------
    segments : mapping of (int or str) to dict of int to int
        By image id: segment id to class id.
    unlabelled : int
        Id of segment 0, which is none.

    """

    def __init__(
        self, segments: Mapping[int | str, dict[int, int]], unlabelled: int,
    ) -> None:
        self._segments, self._unlabelled = segments, unlabelled

    def ignored(self) -> Counter[str]:
        return Counter()

    def read(self, frame: Frame) -> tuple[Pixels, Pixels]:
        source = read_mask(frame.label)
        if source.ndim != 3:
            raise UnreadableError(f'{frame.label}: found {source.dtype}{list(source.shape)}, '
                                  'expected the RGB colours of COCO\'s panoptic format.')
        # Red counts ones, green 256s, blue 65536s.
        ids, inverse, counts = np.unique(
            packed(np.ascontiguousarray(source[..., ::-1])), return_inverse=True,
            return_counts=True)
        known = {0: self._unlabelled, **self._segments[frame.key]}
        unknown = {f'segment {each}': int(count)
                   for each, count in zip(ids.tolist(), counts, strict=True) if each not in known}
        if unknown:
            raise UnknownClassError(
                f'{frame.label}: found {", ".join(list(unknown)[:4])}, which the annotations of '
                f'{frame.name} do not list; export the data set again.', unknown)
        table = np.array([known[each] for each in ids.tolist()], np.uint8)
        return picture_of(frame), table[inverse].reshape(source.shape[:2])


def entries(found: Entry, key: str, path: Path) -> list[Entry]:
    """
    Return one of the lists of a COCO file.

    Raises
    ------
    DatasetError
        If it is not there.

    """
    listed = found.get(key)
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise DatasetError(
            f'{path}: found no list of {key!r}, expected a COCO annotation file (images, '
            'annotations, categories).')
    return listed


def opened(request: Request) -> tuple[Path, Path, Entry]:
    """Return the annotation file, the folder of images and what the file holds."""
    path = located(request.argument, request.root)
    if not path.is_file():
        raise DatasetError(f'{request.spec}: {path} is a folder, expected COCO\'s JSON file.')
    images = request.option_path('images')
    if images is None:
        raise DatasetError(f'{request.spec}: where are the images? Add images=FOLDER.')
    return path, images, json_object(path)


def category_targets(request: Request, found: Entry, path: Path, used: set[int]) -> dict[int, int]:
    """Return the class ids of the categories that occur, by category id."""
    names = {each['id']: str(each['name']) for each in entries(found, 'categories', path)
             if each['id'] in used}
    return request.class_map().targets(names, request.spec)


def frames_of(
    found: Entry, path: Path, images: Path, labels: Mapping[int | str, Path],
) -> list[Frame]:
    """Return the frames of the listed images that have a label file."""
    frames = []
    for each in entries(found, 'images', path):
        if each['id'] in labels:
            image = images / each['file_name']
            name = str(Path(each['file_name']).with_suffix(''))
            frames.append(Frame(name, sequence_of(name), image, labels[each['id']], each['id']))
    return frames


def coco(request: Request) -> FrameDataset:
    """
    Open COCO instance annotations: polygons, and runs both ways of writing them.

    Raises
    ------
    DatasetError
        If the file holds no such annotations.

    """
    path, images, found = opened(request)
    by_image: dict[int | str, list[Entry]] = {}
    try:
        for each in entries(found, 'annotations', path):
            by_image.setdefault(each['image_id'], []).append(each)
        used = {each['category_id'] for listed in by_image.values() for each in listed}
        targets = category_targets(request, found, path, used)
        listed_images = entries(found, 'images', path)
        frames = frames_of(found, path, images, {each['id']: path for each in listed_images})
    except KeyError as error:
        raise DatasetError(f'{path}: an entry lacks {error}, expected COCO annotations; export '
                           'the data set again.') from error
    reader = CocoShapes(by_image, targets, unlabelled_id(request))
    return FileDataset(request.spec, select(frames, request), reader, request.on_bad)


def coco_panoptic(request: Request) -> FrameDataset:
    """
    Open COCO panoptic annotations.

    Raises
    ------
    DatasetError
        If the file holds no such annotations, or ``panoptic=`` is missing.

    """
    path, images, found = opened(request)
    masks = request.option_path('panoptic')
    if masks is None:
        raise DatasetError(
            f'{request.spec}: where are the panoptic masks? Add panoptic=FOLDER.')
    try:
        listed = entries(found, 'annotations', path)
        used = {segment['category_id'] for each in listed for segment in each['segments_info']}
        targets = category_targets(request, found, path, used)
        segments = {each['image_id']: {
            int(segment['id']): targets.get(segment['category_id'], VOID)
            for segment in each['segments_info']} for each in listed}
        frames = frames_of(found, path, images, {
            each['image_id']: masks / each['file_name'] for each in listed})
    except KeyError as error:
        raise DatasetError(f'{path}: an entry lacks {error}, expected COCO panoptic annotations '
                           '(for polygons and runs, open it as coco:).') from error
    reader = PanopticMasks(segments, unlabelled_id(request, default='void'))
    return FileDataset(request.spec, select(frames, request), reader, request.on_bad)
