"""COCO annotations: one JSON file for a whole data set."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from training.datasets.base import (
    DatasetError, FrameDataset, Pixels, SizeError, UnknownClassError, UnreadableError, counted,
    located,
)
from training.datasets.classes import ClassMap
from training.datasets.files import FileDataset, Frame, picture_of
from training.datasets.images import read_colours
from training.datasets.layouts import json_object
from training.datasets.masks import packed
from training.datasets.own import doubts, sequence_of, unlabelled_id
from training.datasets.runs import mask_of
from training.datasets.selection import select
from training.datasets.shapes import coordinates, fill_centres
from training.datasets.spec import Request

Entry = dict[str, Any]


def picture_as_annotated(frame: Frame, hw: object) -> Pixels:
    """
    Return the picture as it is stored, whose pixels COCO's coordinates count.

    Turned as its Exif entry says where it has the annotated height and width only so.

    """
    stored = picture_of(frame, upright=False)
    if hw is not None and hw != [*stored.shape[:2]]:
        upright = picture_of(frame)
        if hw == [*upright.shape[:2]]:
            return upright
    return stored


def drawn(annotation: Entry, labels: Pixels, value: int, where: str) -> bool:
    """
    Draw one annotation, polygons or runs, and tell whether it has an area.

    Raises
    ------
    UnreadableError
        If it is neither.

    """
    found = annotation.get('segmentation')
    hw = labels.shape
    try:
        if isinstance(found, list):
            polygons = [points for points in found if len(coordinates(points)) > 2]
            fill_centres(labels, polygons, value)
            return bool(polygons)
        if isinstance(found, dict):
            if tuple(found['size']) != hw:
                raise SizeError(
                    f'{where}: annotation {annotation.get("id")} was made on '
                    f'{found["size"][1]}x{found["size"][0]} pixels, but its image has '
                    f'{hw[1]}x{hw[0]}; put the annotated image back.')
            inside = mask_of(found['counts'], hw)
            labels[inside] = value
            return bool(inside.any())
    except SizeError:
        raise
    except (KeyError, ValueError, TypeError, IndexError, OverflowError) as error:
        raise UnreadableError(f'{where}: annotation {annotation.get("id")} cannot be drawn '
                              f'({error}); export the data set again.') from error
    raise UnreadableError(
        f'{where}: annotation {annotation.get("id")} has a segmentation of type '
        f'{type(found).__name__}, expected polygons (a list) or runs (size and counts).')


@dataclasses.dataclass(frozen=True)
class Categories:
    """
    The categories that annotations use, by their ids.

    Parameters
    ----------
    names : mapping of int to str
    targets : mapping of int to int
        The class ids.

    """

    names: Mapping[int, str]
    targets: Mapping[int, int]

    def target(self, category: int, where: str) -> int:
        """
        Return the class id of a category.

        Raises
        ------
        UnknownClassError
            If the file does not list it.

        """
        if category not in self.targets:
            raise UnknownClassError(
                f'{where}: found category {category!r}, which "categories" does not list; '
                'export the data set again.', {f'category {category}': 1})
        return self.targets[category]


class CocoShapes:
    """
    Polygons and runs of COCO's instance annotations, later ones over earlier ones.

    Parameters
    ----------
    annotations : mapping of (int or str) to list of dict
        By image id.
    categories : Categories
    unlabelled : int
        Id of what no annotation covers.
    sizes : mapping of (int or str) to (int, int)
        Width and height in pixels that the file states, by image id: polygons have none.

    """

    def __init__(
        self, annotations: Mapping[int | str, list[Entry]], categories: Categories,
        unlabelled: int, sizes: Mapping[int | str, tuple[int, int]],
    ) -> None:
        self._annotations, self._categories = annotations, categories
        self._unlabelled, self._sizes = unlabelled, sizes
        self._ignored: dict[int | str, Counter[str]] = {}
        self._lock = threading.Lock()

    def ignored(self) -> Counter[str]:
        with self._lock:
            return sum(self._ignored.values(), Counter())

    def read(self, frame: Frame) -> tuple[Pixels, Pixels]:
        rgb = picture_as_annotated(frame, self._annotated_hw(frame.key))
        labels = np.full(rgb.shape[:2], self._unlabelled, np.uint8)
        where = f'{frame.label}: {frame.name}'
        height, width = rgb.shape[:2]
        stated = self._sizes.get(frame.key, (width, height))
        if stated != (width, height):
            raise SizeError(
                f'{where}: was annotated on {stated[0]}x{stated[1]} pixels, but its image has '
                f'{width}x{height}; put the annotated image back.')
        ignored: Counter[str] = Counter()
        for annotation in self._annotations.get(frame.key, ()):
            category = annotation['category_id']
            if not drawn(annotation, labels, self._categories.target(category, where), where):
                ignored[f'annotation {self._categories.names[category]!r}'] += 1
        with self._lock:
            self._ignored[frame.key] = ignored
        return rgb, labels

    def _annotated_hw(self, key: int | str) -> object:
        """Return what the file states, else what the first runs are of."""
        if key in self._sizes:
            return [*reversed(self._sizes[key])]
        shapes = (each.get('segmentation') for each in self._annotations.get(key, ()))
        return next((found.get('size') for found in shapes if isinstance(found, dict)), None)


class PanopticMasks:
    """
    COCO's panoptic masks: a colour is a segment's id, the JSON file says its category.

    Parameters
    ----------
    segments : mapping of (int or str) to dict of int to int
        By image id: segment id to category id.
    categories : Categories
    unlabelled : int
        Id of segment 0, which is none.

    """

    def __init__(
        self, segments: Mapping[int | str, dict[int, int]], categories: Categories,
        unlabelled: int,
    ) -> None:
        self._segments, self._categories = segments, categories
        self._unlabelled = unlabelled

    def ignored(self) -> Counter[str]:
        return Counter()

    def read(self, frame: Frame) -> tuple[Pixels, Pixels]:
        source = read_colours(frame.label)
        # Red counts ones, green 256s, blue 65536s.
        ids, inverse, counts = np.unique(
            packed(np.ascontiguousarray(source[..., ::-1])), return_inverse=True,
            return_counts=True)
        where = f'{frame.label}: {frame.name}'
        known = {0: self._unlabelled, **{
            segment: self._categories.target(category, where)
            for segment, category in self._segments[frame.key].items()}}
        unknown = {f'segment {each}': int(count)
                   for each, count in zip(ids.tolist(), counts, strict=True) if each not in known}
        if unknown:
            raise UnknownClassError(
                f'{frame.label}: found {", ".join(list(unknown)[:4])}, which the annotations of '
                f'{frame.name} do not list; export the data set again.', unknown)
        table = np.array([known[each] for each in ids.tolist()], np.uint8)
        hw = source.shape[:2]
        return picture_as_annotated(frame, [*hw]), table[inverse].reshape(hw)


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


@contextlib.contextmanager
def entry_faults(path: Path, expected: str) -> Iterator[None]:
    """Turn what goes wrong with a damaged entry into a ``DatasetError`` that names the file."""
    try:
        yield
    except DatasetError:
        raise
    except KeyError as error:
        raise DatasetError(f'{path}: an entry lacks {error}, expected {expected}.') from error
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DatasetError(
            f'{path}: an entry is damaged ({error}), expected {expected}.') from error


def categories_of(
    request: Request, class_map: ClassMap, found: Entry, path: Path, used: set[int],
) -> Categories:
    """Return the categories that occur."""
    listed = entries(found, 'categories', path)
    check_once(((each['id'], str(each['name'])) for each in listed), path, 'category')
    for each in listed:
        class_map.meet(str(each['name']))
    names = {each['id']: str(each['name']) for each in listed if each['id'] in used}
    return Categories(names, class_map.targets(names, request.spec))


def check_once(keys: Iterable[tuple[Any, str]], path: Path, noun: str) -> None:
    """
    Refuse ids that stand for two things, as where two exports were joined.

    Parameters
    ----------
    keys : iterable of (id, str)
        Ids, and the names of what has them.
    path : Path
        The file, for messages.
    noun : str
        What they are ids of.

    Raises
    ------
    DatasetError
        If an id occurs twice.

    """
    first: dict[Any, str] = {}
    for key, name in keys:
        if key in first:
            raise DatasetError(
                f'{path}: found the {noun} id {key!r} twice, for {first[key]!r} and {name!r}, '
                'expected it once: where exports were joined, give one of them other ids.')
        first[key] = name


def left_out(noun: str, lack: str, listed: Sequence[object]) -> tuple[str, ...]:
    """Return what to say of entries without their counterpart."""
    return (f'left out: {counted(len(listed), noun)}{lack}, first {listed[0]!r}',
            ) if listed else ()


def local_name(folder: Path, name: str) -> str:
    """Return a file's name in a folder, with slashes where Windows' backslashes name none."""
    literal = '\\' not in name or (folder / name).is_file()
    return name if literal else PureWindowsPath(name).as_posix()


def frames_of(
    found: Entry, path: Path, images: Path, labels: Mapping[int | str, Path],
) -> list[Frame]:
    """Return the frames of the listed images that have a label file."""
    listed = entries(found, 'images', path)
    check_once(((each['id'], each['file_name']) for each in listed), path, 'image')
    frames = []
    for each in listed:
        if each['id'] in labels:
            file_name = local_name(images, each['file_name'])
            name = str(Path(file_name).with_suffix(''))
            frames.append(Frame(
                name, sequence_of(name), images / file_name, labels[each['id']], each['id']))
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
    class_map = request.class_map()
    by_image: dict[int | str, list[Entry]] = {}
    with entry_faults(path, 'COCO annotations; export the data set again'):
        for each in entries(found, 'annotations', path):
            by_image.setdefault(each['image_id'], []).append(each)
        used = {each['category_id'] for listed in by_image.values() for each in listed}
        categories = categories_of(request, class_map, found, path, used)
        files = {each['id']: path for each in entries(found, 'images', path)}
        frames = frames_of(found, path, images, files)
        sizes = {each['id']: (int(each['width']), int(each['height']))
                 for each in entries(found, 'images', path)
                 if each.get('width') and each.get('height')}
    lost = [key for key, listed in by_image.items() if key not in files for _ in listed]
    notes = [*doubts(frames, request),
             *left_out('annotation', ' of an image id that "images" does not list', lost)]
    reader = CocoShapes(by_image, categories, unlabelled_id(request), sizes)
    return FileDataset(
        request.spec, select(frames, request), reader, request.on_bad, notes, class_map)


def coco_panoptic(request: Request) -> FrameDataset:
    """
    Open COCO panoptic annotations.

    Raises
    ------
    DatasetError
        If the file holds no such annotations, or ``panoptic=`` is missing.

    """
    path, images, found = opened(request)
    class_map = request.class_map()
    masks = request.option_path('panoptic')
    if masks is None:
        raise DatasetError(
            f'{request.spec}: where are the panoptic masks? Add panoptic=FOLDER.')
    with entry_faults(
            path, 'COCO panoptic annotations (for polygons and runs, open it as coco:)'):
        listed = entries(found, 'annotations', path)
        used = {segment['category_id'] for each in listed for segment in each['segments_info']}
        check_once(((each['image_id'], str(each.get('file_name'))) for each in listed), path,
                   "annotation's image")
        categories = categories_of(request, class_map, found, path, used)
        segments = {each['image_id']: {
            int(segment['id']): segment['category_id'] for segment in each['segments_info']}
            for each in listed}
        files = {each['image_id']: masks / local_name(masks, each['file_name'])
                 for each in listed}
        frames = frames_of(found, path, images, files)
        named = {each['id']: each['file_name'] for each in entries(found, 'images', path)}
    notes = [*doubts(frames, request),
             *left_out('image', ' without an annotation',
                       [name for key, name in named.items() if key not in files]),
             *left_out('annotation', ' of an image id that "images" does not list',
                       [key for key in files if key not in named])]
    reader = PanopticMasks(segments, categories, unlabelled_id(request, default='void'))
    return FileDataset(
        request.spec, select(frames, request), reader, request.on_bad, notes, class_map)
