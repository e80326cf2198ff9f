"""Draw annotated shapes into label images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from training.datasets.base import Pixels

#: Samples a pixel, both ways, of ``fill_centres``; even, so that one lies on the centre.
_FINE = 4
#: Sub-pixel bits of OpenCV's drawing functions.
_SHIFT = 4

#: Beyond this, a coordinate is no slip of the hand, and OpenCV's integers overflow.
_FARTHEST_PX = 1e6

Points = Sequence[Sequence[float]] | Sequence[float]


def coordinates(points: Points) -> npt.NDArray[np.float64]:
    """
    Return ``float64[N, 2]`` x and y.

    Parameters
    ----------
    points : sequence
        Of pairs or, as COCO writes them, of x and y in turn.

    Raises
    ------
    ValueError
        If they are no pairs of numbers, or far off any image.

    """
    found = np.asarray(points, np.float64)
    if found.ndim == 1:
        found = found.reshape(-1, 2)
    if found.ndim != 2 or found.shape[1] != 2:
        raise ValueError(f'found points of shape {list(found.shape)}, expected x and y each')
    if not (np.abs(found) <= _FARTHEST_PX).all():  # false for NaN as well
        raise ValueError(f'a coordinate is no number or beyond {_FARTHEST_PX:.0f} pixels')
    return found


def vertices(points: Points) -> npt.NDArray[np.int32]:
    """
    Return the pixels that hold the points.

    Annotation tools count from the corner of the first pixel: x = 2.7 lies in column 2. OpenCV
    fills an outline with the pixels of its vertices included, as PIL does.

    """
    return np.floor(coordinates(points)).astype(np.int32).reshape(-1, 1, 2)


def fill_polygon(labels: Pixels, points: Points, value: int) -> None:
    """Fill a polygon, its outline included."""
    cv2.fillPoly(labels, [vertices(points)], value)


def fill_rectangle(labels: Pixels, points: Points, value: int) -> None:
    """Fill the rectangle between two corners, in whichever order, its outline included."""
    (x0, y0), (x1, y1) = vertices(points[:2]).reshape(2, 2)
    cv2.rectangle(labels, (int(x0), int(y0)), (int(x1), int(y1)), value, cv2.FILLED)


def fill_circle(labels: Pixels, points: Points, value: int) -> None:
    """Fill the pixels whose centres lie within a circle, given by centre and a point on it."""
    (cx, cy), (px, py) = coordinates(points[:2]).tolist()
    radius = math.hypot(cx - px, cy - py)
    height, width = labels.shape
    top, bottom = max(0, math.floor(cy - radius)), min(height, math.ceil(cy + radius) + 1)
    left, right = max(0, math.floor(cx - radius)), min(width, math.ceil(cx + radius) + 1)
    if top >= bottom or left >= right:
        return
    y, x = np.ogrid[top:bottom, left:right]
    inside = np.hypot(x + 0.5 - cx, y + 0.5 - cy) <= radius
    labels[top:bottom, left:right][inside] = value


def fill_centres(labels: Pixels, polygons: Sequence[Points], value: int) -> None:
    """
    Fill the pixels whose centres lie within any of some polygons (COCO's convention).

    Drawn four times as large, since OpenCV fills whatever an outline touches, and sampled at the
    pixels' centres: edges are exact to an eighth of a pixel.

    """
    height, width = labels.shape
    for points in polygons:
        corners = coordinates(points)
        left, top = (int(v) for v in np.clip(np.floor(corners.min(0)), 0, (width, height)))
        right, bottom = (int(v) for v in np.clip(np.ceil(corners.max(0)), 0, (width, height)))
        if left >= right or top >= bottom:
            continue
        fine = np.zeros(((bottom - top) * _FINE, (right - left) * _FINE), np.uint8)
        placed = (corners - (left, top)) * _FINE * (1 << _SHIFT)
        cv2.fillPoly(fine, [np.round(placed).astype(np.int32).reshape(-1, 1, 2)], 1,
                     shift=_SHIFT)
        inside = fine[_FINE // 2::_FINE, _FINE // 2::_FINE] > 0
        labels[top:bottom, left:right][inside] = value
