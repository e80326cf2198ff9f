"""A picture of some frames with their labels, for eyes."""

from __future__ import annotations

import colorsys
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from bisenet_ros.core.output_files import OutputError, check_writable
from training.datasets.base import VOID, DatasetError, Pixels
from training.datasets.taxonomy import VOID_NAME, Taxonomy

TILE_WIDTH_PX = 320
COLUMNS = 4

_LINE_PX = 20
_ALPHA = 0.5
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_PAPER = (250, 250, 250)
_INK = (30, 30, 30)
#: Steps of the golden ratio lay colours around the wheel without two neighbours alike.
_GOLDEN = 0.618033988749895


@dataclasses.dataclass(frozen=True)
class Tile:
    """A frame on the sheet: its name and its picture, ``uint8[H, W, 3]`` RGB."""

    name: str
    rgb: Pixels


def class_colours(taxonomy: Taxonomy) -> Pixels:
    """Return ``uint8[256, 3]`` RGB by class id; void is black."""
    table = np.zeros((256, 3), np.uint8)
    for index in range(len(taxonomy.classes)):
        hue = (0.33 + _GOLDEN * index) % 1.0
        value = (1.0, 0.75)[index // 6 % 2]
        table[index] = [round(255 * v) for v in colorsys.hsv_to_rgb(hue, 0.85, value)]
    return table


def untinted(taxonomy: Taxonomy) -> int | None:
    """Return the class that is left as it is photographed."""
    return taxonomy.classes.index('background') if 'background' in taxonomy.classes else None


def tile(name: str, rgb: Pixels, labels: Pixels, taxonomy: Taxonomy) -> Tile:
    """Return a frame shrunken to a tile, its labels laid over it; void is darkened."""
    height, width = labels.shape
    size = TILE_WIDTH_PX, max(1, round(height * TILE_WIDTH_PX / width))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    ids = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT)
    alpha = np.full((*ids.shape, 1), _ALPHA, np.float32)
    if (plain := untinted(taxonomy)) is not None:
        alpha[ids == plain] = 0
    mixed = small * (1 - alpha) + class_colours(taxonomy)[ids] * alpha
    mixed[ids == VOID] = small[ids == VOID] * 0.25
    return Tile(name, mixed.astype(np.uint8))


def _write(image: Pixels, text: str, left: int, baseline: int) -> None:
    # A file's name need not be UTF-8; OpenCV would end the process with what is not.
    text = text.encode(errors='replace').decode()
    cv2.putText(image, text, (left, baseline), _FONT, 0.42, _INK, 1, cv2.LINE_AA)


def _row(tiles: Sequence[Tile]) -> Pixels:
    height = max(each.rgb.shape[0] for each in tiles)
    row = np.full((height + _LINE_PX, COLUMNS * TILE_WIDTH_PX, 3), _PAPER, np.uint8)
    for column, each in enumerate(tiles):
        left = column * TILE_WIDTH_PX
        row[:each.rgb.shape[0], left:left + TILE_WIDTH_PX] = each.rgb
        _write(row, each.name[-44:], left + 4, height + 14)
    return row


def _legend(taxonomy: Taxonomy) -> Pixels:
    names, colours = [*taxonomy.classes, VOID_NAME], class_colours(taxonomy)
    plain, across = untinted(taxonomy), 8
    legend = np.full(
        (_LINE_PX * -(-len(names) // across) + 8, COLUMNS * TILE_WIDTH_PX, 3), _PAPER, np.uint8)
    step = legend.shape[1] // across
    for place, name in enumerate(names):
        left, top = place % across * step + 4, place // across * _LINE_PX + 4
        box = legend[top + 3:top + 15, left:left + 20]
        box[:] = _PAPER if place == plain else colours[place if place < len(names) - 1 else VOID]
        cv2.rectangle(legend, (left, top + 3), (left + 19, top + 14), _INK, 1)
        _write(legend, name, left + 26, top + 14)
    return legend


def contact_sheet(parts: Sequence[tuple[str, Sequence[Tile]]], taxonomy: Taxonomy) -> Pixels:
    """
    Return a sheet of tiles.

    Parameters
    ----------
    parts : sequence of (str, sequence of Tile)
        Heading and tiles of each data set.
    taxonomy : Taxonomy
        For the legend.

    Returns
    -------
    uint8[H, W, 3]
        RGB.

    """
    rows = [_legend(taxonomy)]
    for heading, tiles in parts:
        title = np.full((_LINE_PX + 6, COLUMNS * TILE_WIDTH_PX, 3), _PAPER, np.uint8)
        _write(title, heading, 4, 18)
        rows.append(title)
        rows += [_row(tiles[start:start + COLUMNS]) for start in range(0, len(tiles), COLUMNS)]
    return np.concatenate(rows)


def check_path(path: Path) -> None:
    """
    Refuse a file that no sheet can be written to, before a whole data set is read for one.

    Raises
    ------
    DatasetError
        If its name or its folder does not allow it.

    """
    if not cv2.haveImageWriter(str(path)):
        raise DatasetError(
            f'{path}: found the ending {path.suffix!r}, expected .png or .jpg for a sheet.')
    try:
        check_writable(path)
    except OutputError as error:
        raise DatasetError(str(error)) from error


def save(sheet: Pixels, path: Path) -> None:
    """
    Write a sheet.

    Raises
    ------
    DatasetError
        If it cannot be written.

    """
    try:
        written = cv2.imwrite(str(path), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    except cv2.error as error:
        raise DatasetError(
            f'{path}: cannot be written ({error.err}); name it .png or .jpg.') from error
    if not written:
        raise DatasetError(f'{path}: cannot be written; is its folder there?')
