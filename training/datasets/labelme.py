"""Annotations of labelme (one JSON file an image)."""

from __future__ import annotations

import base64
import binascii
import contextlib
import glob
import threading
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path, PureWindowsPath
from typing import Any

import cv2
import numpy as np

from training.datasets.base import (
    DatasetError, FrameDataset, Pixels, SizeError, UnreadableError, counted, located,
)
from training.datasets.classes import ClassMap
from training.datasets.files import FileDataset, Frame
from training.datasets.images import IMAGE_SUFFIXES, decode, decode_rgb, read_rgb, turned
from training.datasets.layouts import json_object
from training.datasets.own import doubts, files_in, sequence_of, unlabelled_id
from training.datasets.selection import select
from training.datasets.shapes import fill_circle, fill_polygon, fill_rectangle
from training.datasets.spec import Request

#: Points of shapes on a picture lie at most at so many times its size.
BEYOND = 1.05

#: Shapes without an area.
WITHOUT_AREA = ('line', 'linestrip', 'point', 'points')


class LabelmeFiles:
    """
    Pictures and shapes of labelme's JSON files; later shapes lie over earlier ones.

    Parameters
    ----------
    class_map : ClassMap
        From a shape's label.
    unlabelled : int
        Id of what no shape covers.
    images : Path or None
        Folder of the pictures; None: beside the JSON file, or within it.

    """

    def __init__(self, class_map: ClassMap, unlabelled: int, images: Path | None) -> None:
        self._class_map, self._unlabelled, self._images = class_map, unlabelled, images
        self._ignored: dict[Path, Counter[str]] = {}
        self._lock = threading.Lock()

    def ignored(self) -> Counter[str]:
        with self._lock:
            return sum(self._ignored.values(), Counter())

    def read(self, frame: Frame) -> tuple[Pixels, Pixels]:
        found = json_object(frame.label)
        if not isinstance(found.get('shapes'), list):
            raise UnreadableError(f'{frame.label}: found no list of "shapes", expected a file '
                                  'saved by labelme; replace or move it.')
        path = self._picture_file(frame, found)
        rgb = read_rgb(path) if path is not None else decode_rgb(
            embedded(found['imageData'], str(frame.label)), str(frame.label))
        height, width = rgb.shape[:2]
        stated = [stated_pixels(found, key, frame.label) for key in ('imageHeight', 'imageWidth')]
        expected = stated[0] or height, stated[1] or width
        if expected != (height, width):
            raise SizeError(
                f'{frame.label}: was drawn on {expected[1]}x{expected[0]} pixels, but its image '
                f'has {width}x{height}; put the image back that was annotated.{turned(path)}')
        labels = np.full((height, width), self._unlabelled, np.uint8)
        ignored: Counter[str] = Counter()
        drawn: list[tuple[int, dict[str, Any]]] = []
        for number, shape in enumerate(found['shapes'], 1):
            with shape_faults(frame.label, number):
                if shape['label'] is None:
                    raise ValueError('its label is null')
                self._class_map.meet(str(shape['label']))
                if has_area(shape):
                    drawn.append((number, shape))
                else:
                    ignored[f'{kind_of(shape)} {shape["label"]!r}'] += 1
        self._class_map.require(
            Counter(str(shape['label']) for _, shape in drawn), str(frame.label))
        for number, shape in drawn:
            with shape_faults(frame.label, number):
                self._draw(shape, labels, str(frame.label))
        if not all(stated):
            check_reach(drawn, (width, height), frame.label)
        with self._lock:
            self._ignored[frame.label] = ignored
        return rgb, labels

    def _draw(self, shape: dict[str, Any], labels: Pixels, where: str) -> None:
        kind, points = kind_of(shape), shape['points']
        value = self._class_map.target(str(shape['label']), where)
        if kind == 'circle':
            fill_circle(labels, points, value)
        elif kind == 'mask':
            self._paste(shape, labels, value, where)
        elif kind == 'rectangle' and len(points) == 2:
            fill_rectangle(labels, points, value)
        elif kind in ('polygon', 'rectangle', 'rotation', 'oriented_rectangle'):
            if len(points) < 3:
                raise ValueError(f'found a {kind} of {counted(len(points), "point")}')
            fill_polygon(labels, points, value)
        else:
            raise UnreadableError(
                f'{where}: found the shape type {kind!r}, expected polygon, rectangle, circle or '
                f'mask (and {", ".join(WITHOUT_AREA)}, which have no area and are left out).')

    @staticmethod
    def _paste(shape: dict[str, Any], labels: Pixels, value: int, where: str) -> None:
        mask = decode(embedded(shape['mask'], where), cv2.IMREAD_GRAYSCALE, where) > 0
        left, top = (int(v) for v in shape['points'][0])
        inside = mask[max(-top, 0):labels.shape[0] - top, max(-left, 0):labels.shape[1] - left]
        at = labels[max(top, 0):, max(left, 0):][:inside.shape[0], :inside.shape[1]]
        at[inside] = value

    def _picture_file(self, frame: Frame, found: dict[str, Any]) -> Path | None:
        """Return the image's file, None where the picture is within the labels' file."""
        # Annotated on Windows, the path has backslashes.
        named = PureWindowsPath(str(found.get('imagePath') or '')).as_posix()
        folder = self._images or frame.label.parent
        candidates = [folder / named] if named not in ('', '.') else []
        if self._images is not None and candidates:
            candidates.append(folder / Path(named).name)
        same = (each for stem in dict.fromkeys((frame.name, frame.label.stem))
                for each in images_named(folder / stem))
        for path in chain(candidates, same):
            if path.is_file():
                return path
        if found.get('imageData'):
            return None
        raise UnreadableError(
            f'{frame.label}: found no image {named or frame.label.stem!r} in {folder}, and none '
            'within the file; put it there, or say where it is (images=FOLDER).')


def stated_pixels(found: dict[str, Any], key: str, where: Path) -> float:
    """
    Return a picture's height or width as a file states it, also as a text; 0 where it does not.

    Raises
    ------
    UnreadableError
        If it is no number.

    """
    try:
        number = float(found.get(key) or 0)
    except (TypeError, ValueError, OverflowError) as error:
        raise UnreadableError(
            f'{where}: found {found[key]!r} as {key}, expected a number of pixels; mend it, or '
            'save the file again with labelme.') from error
    return int(number) if number.is_integer() else number


def check_reach(
    drawn: list[tuple[int, dict[str, Any]]], size_wh: tuple[int, int], where: Path,
) -> None:
    """
    Refuse shapes of another picture where the file does not state the size of its own.

    Raises
    ------
    SizeError
        If one reaches so far out of the picture that it was not drawn on it.

    """
    for number, shape in drawn:
        with shape_faults(where, number):
            corners = np.asarray(shape['points'], float).reshape(-1, 2)
        right, low = corners.max(axis=0)
        if right > BEYOND * size_wh[0] or low > BEYOND * size_wh[1]:
            raise SizeError(
                f'{where}: shape {number} reaches x {right:g} and y {low:g}, but the image has '
                f'{size_wh[0]}x{size_wh[1]} pixels; put the image back that was annotated.')


def images_named(path: Path) -> list[Path]:
    """Return the images of a name without suffix, whether that is ``.jpg`` or ``.JPG``."""
    found = [each for each in path.parent.glob(f'{glob.escape(path.name)}.*')
             if each.stem == path.name and each.suffix.lower() in IMAGE_SUFFIXES]
    return sorted(found, key=lambda each: (IMAGE_SUFFIXES.index(each.suffix.lower()), each))


def kind_of(shape: dict[str, Any]) -> str:
    """Return a shape's type; old files state none and hold polygons."""
    return str(shape.get('shape_type') or 'polygon')


def has_area(shape: dict[str, Any]) -> bool:
    """Tell whether there is anything to fill."""
    kind = kind_of(shape)
    return kind not in WITHOUT_AREA and (kind != 'polygon' or len(shape['points']) > 2)


@contextlib.contextmanager
def shape_faults(path: Path, number: int) -> Iterator[None]:
    """Turn what goes wrong with a damaged shape into an ``UnreadableError`` that names it."""
    try:
        yield
    except DatasetError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError,
            cv2.error) as error:
        raise UnreadableError(
            f'{path}: shape {number} cannot be drawn ({error!r}); expected a label and points of '
            'x and y.') from error


def embedded(text: str, where: str) -> bytes:
    """
    Return the bytes behind a base64 text.

    Raises
    ------
    UnreadableError
        If it is none.

    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise UnreadableError(
            f'{where}: the picture within the file is damaged ({error}); save it again, or put '
            'the image beside it.') from error


def labelme(request: Request) -> FrameDataset:
    """
    Open a folder of labelme files, or a single one.

    Raises
    ------
    DatasetError
        If there is none.

    """
    root = located(request.argument, request.root)
    own = {path for key in ('classes', 'split') if (path := request.option_path(key))}
    folder = root if root.is_dir() else root.parent
    paths = files_in(root, ('.json',)) if root.is_dir() else [root]
    frames = []
    for path in paths:
        if not any(path.samefile(each) for each in own):
            name = str(path.relative_to(folder).with_suffix(''))
            frames.append(Frame(name, sequence_of(name), None, path))
    if not frames:
        raise DatasetError(f'{request.spec}: found no .json file in {root}, expected what labelme '
                           'saves: one beside each image.')
    annotated = {frame.label.with_suffix('') for frame in frames}
    bare = sorted(
        str(path.relative_to(folder)) for path in files_in(folder, IMAGE_SUFFIXES)
        if path.with_suffix('') not in annotated) if root.is_dir() else []
    notes = [f'left out: {counted(len(bare), "image")} without a .json file of that name, first '
             f'{bare[0]!r}'] if bare else []
    class_map = request.class_map()
    reader = LabelmeFiles(class_map, unlabelled_id(request), request.option_path('images'))
    notes += doubts(frames, request)
    return FileDataset(
        request.spec, select(frames, request), reader, request.on_bad, notes, class_map)
