"""
Things that stand in the camera's way: persons at arm's length, walls, boxes, bushes.

Driving data sets show none, and a network that has seen none takes whatever lies where the road
used to be for road. Shapes and materials are drawn, so no data set is needed for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float64]

#: A shape's parts in drawing order: ``uint8[H, W]`` masks, 255 inside.
Parts = list[Mask]

#: Bits behind the binary point of the coordinates that OpenCV draws with.
FRACTION = 4


def obstacles(
    view: Image, ids: Image, background: int, rng: np.random.Generator, road: int,
) -> None:
    """
    Put one to three things in the camera's way, standing before it or reaching out of the view.

    Parameters
    ----------
    view, ids : uint8[H, W, 3], uint8[H, W]
        Changed in place.
    background : int
        Id of what covers the view.
    rng : numpy.random.Generator
    road : int
        Id of the road: some materials come near to its colour, none is cut out of it.

    """
    height, width = ids.shape
    scene, scene_ids = view.copy(), ids.copy()
    for _ in range(rng.choice([1, 2, 3], p=[0.6, 0.3, 0.1])):
        tall = np.exp(rng.uniform(np.log(0.3), np.log(1.8))) * height
        # From far enough away to stand on what the view shows to cut off at the belt.
        foot = rng.uniform(0.65, max(1.0, 0.3 + tall / height)) * height
        place = np.array([rng.uniform(-0.05, 1.05) * width, foot])
        shape = SHAPES[rng.choice(len(SHAPES), p=[0.5, 0.25, 0.25])]
        for part in shape(ids.shape, place, tall, rng):
            left, top, wide, high = cv2.boundingRect(part)
            if not wide:
                continue
            where = np.s_[top:top + high, left:left + wide]
            look = _material((high, wide), scene, scene_ids, rng, road)
            cover = part[where]
            ids[where][cover >= 128] = background
            if rng.random() < 0.3:  # out of focus
                cover = cv2.blur(cover, (5, 5))
            share = (cover.astype(np.float32) / 255)[..., None]
            view[where] = (view[where] + (look - view[where]) * share).astype(np.uint8)


def person(
    size_hw: tuple[int, int], foot: Points, tall: float, rng: np.random.Generator,
) -> Parts:
    """Draw legs, at times a skirt, arms, a trunk and a head; eight heads tall, lean to broad."""
    broad = tall * rng.uniform(0.9, 2.0)  # views are stretched
    lean = rng.uniform(-0.08, 0.08)

    def at(across: float, up: float) -> tuple[float, float]:
        return foot[0] + (across + lean * up) * broad, foot[1] - up * tall

    hip, shoulder = rng.uniform(0.05, 0.09), rng.uniform(0.08, 0.13)
    trunk = [at(-hip, 0.48), at(-shoulder, 0.8), at(-0.03, 0.85), at(0.03, 0.85),
             at(shoulder, 0.8), at(hip, 0.48)]
    step = rng.uniform(0, 0.14)
    parts = [_polygons(size_hw, [
        [at(side * 0.002, 0.5), at(side * hip * 1.1, 0.5), at(side * (step + 0.045), 0),
         at(side * step, 0)] for side in (-1, 1)])]
    if rng.random() < 0.25:
        hem = rng.uniform(0.05, 0.3)
        parts.append(_polygons(size_hw, [
            [at(-hip, 0.52), at(hip, 0.52), at(hip * 1.8, hem), at(-hip * 1.8, hem)]]))
    arms = np.zeros(size_hw, np.uint8)
    for side in (-1, 1):
        elbow = at(side * (shoulder + rng.uniform(0, 0.1)), rng.uniform(0.6, 0.75))
        hand = at(side * rng.uniform(-0.02, 0.25), rng.uniform(0.42, 0.85))
        _line(arms, [at(side * shoulder, 0.79), elbow, hand], 0.055 * broad)
    parts.append(arms)
    parts.append(_polygons(size_hw, [trunk]))
    head = np.zeros(size_hw, np.uint8)
    cv2.ellipse(head, _fixed(at(0, 0.925)), _fixed((0.04 * broad, 0.065 * tall)), 0, 0, 360, 255,
                -1, cv2.LINE_AA, FRACTION)
    parts.append(head)
    return parts


def board(
    size_hw: tuple[int, int], foot: Points, tall: float, rng: np.random.Generator,
) -> Parts:
    """Draw a wall, a box or a vehicle's side: a quadrilateral, or two that share an edge."""
    half = tall * np.exp(rng.uniform(np.log(0.1), np.log(1.0)))
    left, right = foot[0] - half, foot[0] + half
    slopes = rng.uniform(-0.15, 0.15, 4) * tall
    top, base = foot[1] - tall, foot[1]
    corner = rng.uniform(left, right)
    parts = [_polygons(size_hw, [[
        (left, top + slopes[0]), (corner, top), (corner, base), (left, base + slopes[1])]])]
    parts.append(_polygons(size_hw, [[
        (corner, top), (right, top + slopes[2]), (right, base + slopes[3]), (corner, base)]]))
    return parts if rng.random() < 0.5 else [np.maximum(*parts)]


def lump(
    size_hw: tuple[int, int], foot: Points, tall: float, rng: np.random.Generator,
) -> Parts:
    """Draw a bush, an animal or a sack: a closed curve of a few waves."""
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    radius = 1 + sum(
        rng.uniform(0, 0.5 / n) * np.sin(n * angles + rng.uniform(0, 2 * np.pi))
        for n in range(2, 7))
    half = tall * rng.uniform(0.2, 0.8)
    points = np.stack([foot[0] + half * radius * np.cos(angles),
                       foot[1] - tall / 2 * (1 + radius * np.sin(angles))], 1)
    return [_polygons(size_hw, [[(x, y) for x, y in points]])]


SHAPES: tuple[Callable[..., Parts], ...] = (person, board, lump)


def _fixed(point: tuple[float, float]) -> tuple[int, int]:
    scale = 1 << FRACTION
    return round(point[0] * scale), round(point[1] * scale)


def _polygons(
    size_hw: tuple[int, int], outlines: Sequence[Sequence[tuple[float, float]]],
) -> Mask:
    mask = np.zeros(size_hw, np.uint8)
    for outline in outlines:
        points = np.array([_fixed(point) for point in outline], np.int32)
        cv2.fillPoly(mask, [points], 255, cv2.LINE_AA, FRACTION)
    return mask


def _line(mask: Mask, points: list[tuple[float, float]], thickness: float) -> None:
    cv2.polylines(mask, [np.array([_fixed(point) for point in points], np.int32)], False, 255,
                  max(1, round(thickness)), cv2.LINE_AA, FRACTION)


def _material(
    size_hw: tuple[int, int], scene: Image, ids: Image, rng: np.random.Generator, road: int,
) -> npt.NDArray[np.float32]:
    """Return ``float32[h, w, 3]``, 0 to 255: cloth, paint or leaves as they look from near."""
    high, wide = size_hw
    width = scene.shape[1]
    kind = rng.random()
    if kind < 0.25:
        look = cv2.resize(_piece(scene, ids, rng, road), (wide, high)).astype(np.float32)
    else:
        if kind < 0.5:  # dark cloth
            colour = rng.uniform(3, 60) + rng.uniform(-1, 1, 3) * 8
        elif kind < 0.7:  # much like the road behind it
            ground = scene[ids == road]
            colour = (ground.mean(0) if ground.size else np.full(3, 100.0)) * rng.uniform(0.6, 1.5)
            colour = colour + rng.uniform(-1, 1, 3) * 10
        else:
            colour = rng.uniform(5, 245) + rng.uniform(-1, 1, 3) * rng.choice([15, 90])
        look = np.broadcast_to(colour.astype(np.float32), (high, wide, 3)).copy()
    if rng.random() < 0.25:  # stripes, checks, planks
        period, angle = rng.uniform(0.01, 0.12) * width, rng.uniform(0, np.pi)
        y, x = np.arange(high, dtype=np.float32)[:, None], np.arange(wide, dtype=np.float32)
        stripes = (x * np.cos(angle) + y * np.sin(angle)) / period % 1 < 0.5
        if rng.random() < 0.4:
            stripes ^= (y * np.cos(angle) - x * np.sin(angle)) / period % 1 < 0.5
        look *= np.where(stripes, np.float32(rng.uniform(0.4, 1.6)), np.float32(1))[..., None]
    # Folds and light: brightness that changes slowly over the thing.
    coarse = int(rng.integers(2, 12))
    light = np.exp(rng.normal(0, rng.uniform(0.02, 0.3), (coarse, coarse))).astype(np.float32)
    look *= cv2.resize(light, (wide, high), interpolation=cv2.INTER_CUBIC)[..., None]
    return np.clip(look, 0, 255)


def _piece(scene: Image, ids: Image, rng: np.random.Generator, road: int) -> Image:
    """Return a piece of the scene without road: a facade, leaves, a car."""
    height, width = ids.shape
    for _ in range(5):
        high, wide = int(rng.uniform(0.1, 0.4) * height), int(rng.uniform(0.1, 0.4) * width)
        top, left = int(rng.uniform(0, 0.6) * height), int(rng.uniform(0, width - wide))
        where = np.s_[top:top + max(high, 1), left:left + max(wide, 1)]
        if not (ids[where] == road).any():
            return scene[where]
    return np.full((1, 1, 3), rng.integers(256), np.uint8)
