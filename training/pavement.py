"""
Pavement along the edges of a road: kerbs, slabs, tones of every kind.

Where what lies beyond the kerb is as grey as the road, only the kerb, the pattern and the place
tell them apart, and few frames show many kinds of that.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from training.scenery import Plane, find_plane
from training.weather import ground_pattern

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

#: Less of the view than this is no pavement worth a label.
SMALLEST = 0.005


def pavement(
    view: Image, ids: Image, rng: np.random.Generator, road: int, ground: int,
) -> None:
    """
    Turn a strip along one edge of the road, or along both, into pavement.

    Parameters
    ----------
    view, ids : uint8[H, W, 3], uint8[H, W]
        The view and its class ids, both changed in place.
    rng : numpy.random.Generator
    road : int
        Id of the road; nothing else is paved.
    ground : int
        Id that the strips get.

    """
    width = ids.shape[1]
    mask = ids == road
    plane = find_plane(mask, rng)
    if plane is None:
        return
    near = mask & (plane.nearness > 0.15)
    if not near.any():
        return
    left, right = (float(edge) for edge in np.percentile(
        np.clip(plane.across[near], -width, 2 * width), (3, 97)))
    bend = rng.uniform(-1, 1) * rng.choice([0.0, 0.004]) * width * (plane.distance - 1) ** 2
    bend = np.clip(bend, -width, width)
    paved = _pave(view, mask, plane, rng)
    sides = [(right, -1.0), (left, 1.0)]
    chosen = sides if rng.random() < 0.4 else [sides[rng.integers(2)]]
    for edge, inward in chosen:
        share = rng.uniform(0.1, 0.35 if len(chosen) == 2 else 0.42)
        place = edge + inward * share * (right - left)
        # Pixels of the lower edge from the kerb outwards.
        beyond = (place - plane.across + bend) * np.float32(inward)
        strip = mask & (beyond > 0)
        if strip.sum() < SMALLEST * strip.size:
            continue
        _draw(view, mask, paved, beyond, plane, rng)
        ids[strip] = ground


def _pave(
    view: Image, road: npt.NDArray[np.bool_], plane: Plane, rng: np.random.Generator,
) -> Floats:
    """Return ``float32[H, W, 3]``: the view as it looks if all of it were paved."""
    height, width = road.shape
    # What is painted on the road goes, the shade of what stands beside it stays.
    surface = cv2.medianBlur(view, 2 * max(1, width // 80) + 1).astype(np.float32)
    change = rng.uniform(0.0, 0.6) * rng.choice([-1, 1], p=[0.35, 0.65])
    tint = rng.uniform(-1, 1, 3) * rng.choice([0.04, 0.12, 0.3], p=[0.5, 0.35, 0.15])
    surface *= np.exp(change + tint).astype(np.float32)
    if rng.random() < 0.3:  # as if in light of its own: beyond a wall's shadow, say
        middle = surface[road].mean(0)
        surface += (middle - surface) * np.float32(rng.uniform(0.3, 0.9))
    blotches = ground_pattern(width, plane.nearness, rng, rng.uniform(0.05, 0.5), octaves=2)
    grain = rng.standard_normal((height, width), np.float32)
    tone = 1 + rng.uniform(0, 0.12) * blotches + rng.uniform(0, 0.06) * grain
    if rng.random() < 0.6:
        tone *= _slabs(plane, width, rng)
    return surface * tone[..., None].astype(np.float32)


def _slabs(plane: Plane, width: int, rng: np.random.Generator) -> Floats:
    """Return ``float32[H, W]``: how much lighter or darker slabs and their joints make it."""
    breadth = np.exp(rng.uniform(np.log(0.02), np.log(0.3))) * width
    length = breadth * rng.uniform(0.6, 2.0)
    columns = plane.across / breadth + rng.random()
    rows = 0.5 * width * rng.uniform(0.6, 1.5) * plane.distance / length
    rows = np.broadcast_to(rows, columns.shape)
    if rng.random() < 0.5:  # in bond
        rows = rows + 0.5 * (np.floor(columns) % 2)
    tones = 1 + rng.uniform(0, 0.1) * rng.standard_normal((64, 64))
    slabs = tones[np.floor(columns).astype(int) % 64, np.floor(rows).astype(int) % 64]
    joint = rng.uniform(0.04, 0.15)
    joints = (columns % 1 < joint) | (rows % 1 < joint)
    slabs = slabs * np.where(joints, rng.uniform(0.6, 1.15), 1)
    # Far away a pixel spans many of them.
    seen = np.clip(plane.nearness ** 1.5 * breadth / 5, 0, 1)
    return (1 + (slabs - 1) * seen).astype(np.float32)


def _draw(
    view: Image, road: npt.NDArray[np.bool_], paved: Floats, beyond: Floats, plane: Plane,
    rng: np.random.Generator,
) -> None:
    """Lay the pavement, its kerb and the gutter before it."""
    width = road.shape[1]
    strip = road & (beyond > 0)
    picture = view.astype(np.float32)

    def cover(first: float, last: float) -> Floats:
        """Return ``float32[H, W, 1]``: how much of a pixel lies between two lines."""
        begins = np.clip((beyond - first) * plane.nearness + 0.5, 0, 1)
        ends = np.clip((last - beyond) * plane.nearness + 0.5, 0, 1)
        return np.minimum(begins, ends)[..., None].astype(np.float32)

    picture += (paved - picture) * cover(0, np.inf)
    kerb_width = rng.uniform(0.006, 0.025) * width
    before, after = (float(look[strip].mean()) for look in (view, paved))
    if abs(np.log((after + 1) / (before + 1))) < 0.2 or rng.random() < 0.7:
        grey = paved.mean(2, keepdims=True)
        stone = grey + (paved - grey) * np.float32(rng.uniform(0, 1))
        top = stone * np.float32(np.exp(rng.uniform(-0.2, 0.5)))
        face = stone * np.float32(np.exp(rng.uniform(-0.9, -0.1)))
        if rng.random() < 0.1:  # painted in turns
            turns = (plane.distance * rng.uniform(2, 6)) % 1 < 0.5
            top = top * np.where(turns, 0.4, 1.4)[..., None].astype(np.float32)
        picture += (face - picture) * cover(0, kerb_width)
        rear = kerb_width * (1 + rng.uniform(0.5, 2.0))
        picture += (top - picture) * cover(kerb_width, rear)
    if rng.random() < 0.5:
        gutter = cover(-kerb_width * rng.uniform(0.5, 3.0), 0)
        picture *= 1 - gutter * np.float32(rng.uniform(0.1, 0.4))
    view[road] = np.clip(picture[road], 0, 255).astype(np.uint8)
