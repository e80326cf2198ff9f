"""
What a view may show beside its frame: paint on its road, another frame's things, the own vehicle.

All functions change the view, ``uint8[H, W, 3]`` RGB, and its labels, ``uint8[H, W]`` class ids,
in place and draw from the generator they are given.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from training.datasets import VOID

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

#: Roads of fewer rows than this share of the view get no paint.
SHORTEST_ROAD = 0.1

#: How far from what is no road lines are drawn, in widths of the view at its lower edge: those
#: along a kerb are real, and tell where the road ends.
VERGE = 0.12


class Plane(NamedTuple):
    """
    The plane that a road lies on, as the view shows it.

    Attributes
    ----------
    nearness : float32[H, 1]
        1 at the lower edge, 0.001 where the road vanishes and above.
    distance : float32[H, 1]
        Its inverse: how far away a row is, as a multiple of the lower edge's.
    across : float32[H, W]
        Where a pixel's line of sight along the road meets the lower edge, in pixels.

    """

    nearness: Floats
    distance: Floats
    across: Floats


def find_plane(road: npt.NDArray[np.bool_], rng: np.random.Generator) -> Plane | None:
    """Find the plane of a road, ``bool[H, W]``; None where the view shows too little of it."""
    height, width = road.shape
    rows = np.flatnonzero(road.any(1))
    if rows.size < SHORTEST_ROAD * height:
        return None
    far = rows[:max(1, rows.size // 10)]
    vanishing_x = float(np.median(np.nonzero(road[far])[1]))
    vanishing_y = float(rows[0]) - rng.uniform(0, 0.05) * height
    y, x = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)[None]
    nearness = np.clip((y - vanishing_y) / (height - vanishing_y), 1e-3, 1)
    return Plane(nearness, 1 / nearness, (x - vanishing_x) / nearness + vanishing_x)


def markings(view: Image, ids: Image, rng: np.random.Generator, road: int) -> None:
    """
    Paint lines, bars and crossings on the road and change its tone beside a line.

    Labels stay: a line amid a road, and asphalt of another age behind it, do not end it. Pixels
    are placed on a plane that vanishes where the road does.

    Parameters
    ----------
    view, ids : uint8[H, W, 3], uint8[H, W]
    rng : numpy.random.Generator
    road : int
        Id of the road; nothing else is painted.

    """
    height, width = ids.shape
    mask = ids == road
    plane = find_plane(mask, rng)
    if plane is None:
        return
    nearness, distance, across = plane
    paint = np.zeros((height, width), np.float32)
    beside = np.zeros((height, width), bool)
    inside = cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, 3) > VERGE * width * nearness
    for _ in range(rng.integers(1, 4)):
        place, thickness = rng.uniform(-0.6, 1.6) * width, rng.uniform(0.006, 0.03) * width
        line = np.clip((thickness / 2 - np.abs(across - place)) * nearness + 0.5, 0, 1)
        if rng.random() < 0.35:  # a double line
            other = place + rng.uniform(1.6, 3.0) * thickness
            line += np.clip((thickness / 2 - np.abs(across - other)) * nearness + 0.5, 0, 1)
        elif rng.random() < 0.5:  # a broken one
            period, share, phase = rng.uniform(0.4, 2.0), rng.uniform(0.3, 0.6), rng.random()
            line *= (distance / period + phase) % 1 < share
        drawn = line * inside
        if drawn.sum() < 0.5 * line[mask].sum():  # it runs along the edge
            continue
        paint = np.maximum(paint, drawn)
        beside |= (across > place) if rng.random() < 0.5 else (across < place)
    if rng.random() < 0.3:  # a stop line or a crossing
        first = rng.uniform(1, 5)
        bar = (distance > first) & (distance < first * rng.uniform(1.05, 1.5))
        if rng.random() < 0.6:
            bar = bar & ((across / (rng.uniform(0.06, 0.2) * width)) % 1 < 0.5)
        paint = np.maximum(paint, bar)
    cover = (paint[mask] * np.float32(rng.uniform(0.35, 1.0)))[:, None]
    asphalt = view[mask].astype(np.float32)
    # Paint is lit as the road is.
    light = min(1.0, float(asphalt.mean()) / 110 * rng.uniform(0.8, 1.5))
    colour = np.array((255, rng.uniform(150, 215), rng.uniform(0, 110)) if rng.random() < 0.5
                      else (255, 255, 255), np.float32) * light
    if rng.random() < 0.6:
        asphalt[beside[mask]] *= rng.uniform(0.75, 1.3) * np.exp(rng.uniform(-0.06, 0.06, 3))
    view[mask] = np.clip(asphalt * (1 - cover) + colour * cover, 0, 255).astype(np.uint8)


def paste(
    view: Image, ids: Image, other: Image, other_ids: Image, rng: np.random.Generator,
    road: int,
) -> None:
    """
    Put some classes of one view into another.

    Half of the classes, as in ClassMix (Olsson et al. 2021), but never road alone: a road without
    what stands on it teaches that it ends there.

    """
    present = [int(c) for c in np.unique(other_ids) if c not in (VOID, road)]
    if not present:
        return
    chosen = rng.permutation(present)[:max(1, len(present) // 2)]
    mask = np.isin(other_ids, chosen).view(np.uint8)
    cv2.copyTo(other, mask, view)
    cv2.copyTo(other_ids, mask, ids)


def own_vehicle(view: Image, ids: Image, background: int, rng: np.random.Generator) -> None:
    """
    Cover the lower edge with a bonnet, a bumper or a deck, and a dashboard before it.

    Whatever carries the camera is no road, however much of the scene it mirrors and however near
    its paint comes to asphalt. Up to three layers, each lower than the one behind it.

    Parameters
    ----------
    view, ids : uint8[H, W, 3], uint8[H, W]
    background : int
        Id of what covers the view.
    rng : numpy.random.Generator

    """
    height, width = ids.shape
    scene = view.copy()
    rise = rng.uniform(0.04, 0.3) * height
    for layer in range(rng.integers(1, 4)):
        centre, half = rng.uniform(0.3, 0.7) * width, rng.uniform(0.4, 1.6) * width
        # From a round bonnet to a deck with corners.
        roundness = np.exp(rng.uniform(np.log(2), np.log(20)))
        along = (np.arange(width) - centre) / half
        outline = 1 - np.clip(np.abs(along), 0, 1) ** roundness
        # Pixels below the outline: above 0 on it, 0 at its edge.
        depth = (np.arange(height)[:, None] - (height - rise * outline[None])).astype(np.float32)
        mask = (depth >= 0).view(np.uint8)
        look = _material(scene, depth, layer, rng)
        cv2.copyTo(look, mask, view)
        ids[mask > 0] = background
        rise *= rng.uniform(0.25, 0.75)


def _material(
    scene: Image, depth: npt.NDArray[np.float32], layer: int, rng: np.random.Generator,
) -> Image:
    """Return ``uint8[H, W, 3]``: paint, what it mirrors of the scene, ribs, and a lit edge."""
    height, width = depth.shape
    kind = rng.random()
    if layer > 0 or kind < 0.3:  # plastic, or black paint
        paint = rng.uniform(3, 60) + rng.uniform(-1, 1, 3) * 4
    elif kind < 0.55:  # much like the road before it
        before = scene[int(0.6 * height):int(0.9 * height)].reshape(-1, 3).mean(0)
        paint = before * rng.uniform(0.6, 1.4) + rng.uniform(-1, 1, 3) * 8
    else:
        paint = rng.uniform(5, 235) + rng.uniform(-1, 1, 3) * rng.choice([6, 60])
    light = np.linspace(rng.uniform(0.7, 1.4), rng.uniform(0.4, 1.2), height)[:, None, None]
    # The scene upside down: at the outline what lies beyond it, nearer the camera the sky.
    first = int(rng.uniform(0.4, 0.85) * height)
    mirrored = cv2.resize(scene[first::-1], (width, height), interpolation=cv2.INTER_LINEAR)
    side = int(rng.choice([1, 5, 11]))
    shine = rng.uniform(0, 0.85) if layer == 0 else rng.uniform(0, 0.4)
    look = cv2.blur(mirrored, (side * 2 - 1, side)) * np.float32(shine)
    look += ((1 - shine) * paint * light).astype(np.float32)
    if rng.random() < 0.2:  # a grille or a vent
        period, top = rng.uniform(0.01, 0.05) * width, rng.uniform(0, 0.1) * height
        band = (depth > top) & (depth < top + rng.uniform(0.02, 0.1) * height)
        look *= np.where(band & (np.arange(width)[None] / period % 1 < 0.5),
                         np.float32(rng.uniform(0.5, 0.95)), np.float32(1))[..., None]
    if rng.random() < 0.5:
        edge = np.exp(-(depth / np.float32(rng.uniform(1, 4))) ** 2)
        look += (edge * np.float32(rng.uniform(-60, 120)))[..., None]
    return np.clip(look, 0, 255).astype(np.uint8)
