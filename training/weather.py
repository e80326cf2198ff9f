"""
What sun, rain and snow do to the ground: dappled shade, wet roads that mirror, snow on both sides.

All functions change the view, ``uint8[H, W, 3]`` RGB, in place and draw from the generator that
they are given; labels stay, since a wet road is still a road. Pavement changes with the road where
it has a label of its own, and with all else below the road's far end where it has not: otherwise
weather itself would tell the road.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from training.datasets import VOID

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

#: Roads of fewer rows than this share of the view stay dry.
SHORTEST_ROAD = 0.1

#: Side of the noise that patterns on the ground repeat, in pixels.
TILE = 256


class Ground(NamedTuple):
    """
    Where the ground is.

    Attributes
    ----------
    far_row : int
        First row that shows road: what the ground mirrors lies above it.
    nearness : float32[H, 1]
        Share of the way from there to the lower edge, 0 to 1: the inverse of distance.
    road, beside : bool[H, W]
        The road, and the ground beside it.

    """

    far_row: int
    nearness: Floats
    road: npt.NDArray[np.bool_]
    beside: npt.NDArray[np.bool_]

    @property
    def all(self) -> npt.NDArray[np.bool_]:
        """Return ``bool[H, W]``: the road and the ground beside it."""
        return self.road | self.beside


def find_ground(ids: Image, road: int, ground: int = VOID) -> Ground | None:
    """
    Find the ground of a view.

    Parameters
    ----------
    ids : uint8[H, W]
        Class ids, 255 for void.
    road : int
        Id of the road.
    ground : int
        Id of pavement and other ground; void where there is no such class: then all that is
        neither road nor void counts, from the road's first row down.

    Returns
    -------
    Ground or None
        None where the view shows too little road.

    """
    height = ids.shape[0]
    mask = ids == road
    rows = np.flatnonzero(mask.any(1))
    if road == VOID or rows.size < SHORTEST_ROAD * height:
        return None
    far = int(rows[0])
    beside = ids == ground if ground != VOID else ~mask & (ids != VOID)
    if ground == VOID:
        beside[:far] = False
    nearness = (np.arange(height, dtype=np.float32) - far) / max(1, height - far)
    return Ground(far, np.clip(nearness, 0, 1)[:, None], mask, beside)


def shade(view: Image, ground: Ground, rng: np.random.Generator) -> None:
    """Lay the shade of leaves and posts on sunlit ground, sharp or soft."""
    width = view.shape[1]
    pattern = ground_pattern(width, ground.nearness, rng, rng.uniform(0.04, 0.4), octaves=4)
    dark = np.clip((pattern + rng.uniform(-0.8, 0.8)) * rng.uniform(2, 10) + 0.5, 0, 1)
    light = rng.uniform(1.0, 1.5) * (1 - dark * rng.uniform(0.35, 0.75))
    _lay(view, view * light[..., None], ground.all)


def wet(view: Image, ground: Ground, rng: np.random.Generator) -> None:
    """
    Wet the ground, in patches or all over: it darkens and mirrors what stands behind it.

    The picture is mirrored at the ground's far end, as seen far ahead, and smeared along columns,
    as rough asphalt does; the flatter the line of sight, the stronger.

    """
    height, width = view.shape[:2]
    rows, columns = np.indices((height, width), dtype=np.float32)
    above = ground.far_row - (rows - ground.far_row) * rng.uniform(0.6, 1.2)
    mirrored = cv2.remap(view, columns, np.clip(above, 0, height - 1).astype(np.float32),
                         cv2.INTER_LINEAR)
    smear = (int(rng.integers(1, max(2, width // 100))),
             int(rng.integers(max(1, height // 60), max(2, height // 10))))
    mirrored = cv2.blur(mirrored, smear)
    patches = ground_pattern(width, ground.nearness, rng, rng.uniform(0.1, 0.6))
    water = np.clip(patches * rng.uniform(0.5, 3.0) + rng.uniform(-1, 2), 0, 1)[..., None]
    flat = 0.3 + 0.7 * (1 - ground.nearness[..., None]) ** rng.uniform(0.5, 1.5)
    share = rng.uniform(0.3, 0.85) * flat * water
    dark = 1 - rng.uniform(0.05, 0.65) * (0.4 + 0.6 * water)
    _lay(view, view * dark * (1 - share) + mirrored * share, ground.all)


def snow(view: Image, ground: Ground, rng: np.random.Generator) -> None:
    """Cover the ground with snow, road and what is beside it to different parts; let some fall."""
    width = view.shape[1]
    colour = rng.uniform(150, 240) * np.exp(rng.uniform(-0.05, 0.05, 3)) * (0.97, 1, 1.03)
    drifts = ground_pattern(width, ground.nearness, rng, rng.uniform(0.05, 0.5))
    grain = 1 + rng.uniform(0.02, 0.08) * ground_pattern(width, ground.nearness, rng, 0.02)
    white = (colour * grain[..., None]).astype(np.float32)
    for mask, least, most in ((ground.road, -1.5, 1.2), (ground.beside, -0.5, 2.0)):
        depth = np.clip(drifts * rng.uniform(0.5, 2.0) + rng.uniform(least, most), 0, 1)
        cover = (depth * rng.uniform(0.6, 0.95))[..., None]
        _lay(view, view * (1 - cover) + white * cover, mask)
    _falling_snow(view, rng)


def rain(view: Image, ground: Ground, rng: np.random.Generator) -> None:
    """Veil the view, draw the streaks of falling drops and, at times, drops on the glass."""
    del ground  # it falls everywhere; a wet ground is drawn apart
    height, width = view.shape[:2]
    veil = rng.uniform(0, 0.35)
    picture = view * np.float32(1 - veil) + np.float32(rng.uniform(90, 200) * veil)
    side = int(rng.uniform(0.02, 0.12) * height) | 1
    line = np.zeros((side, side), np.float32)
    line[:, side // 2] = 1
    turn = cv2.getRotationMatrix2D((side // 2, side // 2), rng.uniform(-25, 25), 1)
    starts = rng.random((height, width), np.float32) < rng.uniform(0.02, 0.15) / side
    streaks = cv2.filter2D(starts.astype(np.float32), -1, cv2.warpAffine(line, turn, (side, side)))
    streaks = np.clip(cv2.GaussianBlur(streaks, (0, 0), width / 1200), 0, 1)[..., None]
    picture += (rng.uniform(140, 230) - picture) * streaks * np.float32(rng.uniform(0.15, 0.6))
    if rng.random() < 0.7:
        _drops_on_glass(picture, rng)
    view[:] = np.clip(picture, 0, 255).astype(np.uint8)


def _drops_on_glass(picture: Floats, rng: np.random.Generator) -> None:
    """Draw drops in place: each shows the scene blurred, upside down and much smaller."""
    height, width = picture.shape[:2]
    scene = cv2.GaussianBlur(picture, (0, 0), width / 80)
    for _ in range(rng.integers(3, 60)):
        radius_x = rng.uniform(0.3, 1) ** 3 * width * 0.03
        radius_y = radius_x * rng.uniform(1, 1.8)
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        top, left = max(0, int(y - radius_y)), max(0, int(x - radius_x))
        where = np.s_[top:int(y + radius_y) + 1, left:int(x + radius_x) + 1]
        high, wide = picture[where].shape[:2]
        rows, columns = np.ogrid[top:top + high, left:left + wide]
        inside = 1 - ((columns - x) / radius_x) ** 2 - ((rows - y) / radius_y) ** 2
        share = (np.clip(4 * inside, 0, 1) * rng.uniform(0.5, 1)).astype(np.float32)[..., None]
        seen_x = np.clip(x - (columns - x) * rng.uniform(2, 6), 0, width - 1)
        seen_y = np.clip(y - (rows - y) * rng.uniform(2, 6), 0, height - 1)
        seen = scene[seen_y.astype(np.intp), seen_x.astype(np.intp)]
        picture[where] += (seen * np.float32(rng.uniform(0.7, 1.25)) - picture[where]) * share


def _falling_snow(view: Image, rng: np.random.Generator) -> None:
    height, width = view.shape[:2]
    flakes = np.zeros((height, width), np.float32)
    for _ in range(rng.integers(0, 600)):
        radius = rng.uniform(0.3, 1.0) ** 3 * width * 0.006
        centre = int(rng.uniform(0, width) * 8), int(rng.uniform(0, height) * 8)
        cv2.circle(flakes, centre, max(4, int(radius * 8)), rng.uniform(0.3, 1.0), -1,
                   cv2.LINE_AA, 3)
    flakes = cv2.GaussianBlur(flakes, (0, 0), width / 700)[..., None] * rng.uniform(0.5, 1.0)
    white = 255 * rng.uniform(0.75, 1.0)
    view[:] = np.clip(view + (white - view) * flakes, 0, 255).astype(np.uint8)


def ground_pattern(
    width: int, nearness: Floats, rng: np.random.Generator, scale: float, octaves: int = 3,
) -> Floats:
    """
    Return ``float32[H, W]``, spread 1: noise that lies on the ground, ``scale`` widths wide.

    ``nearness``, ``float32[H, 1]``, is 1 at the lower edge and 0 where the ground vanishes.

    """
    nearness = np.maximum(nearness, 0.02)
    across = (np.arange(width, dtype=np.float32)[None] / width - 0.5) / nearness / scale
    along = np.broadcast_to(0.5 / nearness / scale, across.shape)
    pattern = np.zeros((len(nearness), width), np.float32)
    for octave in range(octaves):
        finer = 2.0 ** octave
        tile = rng.standard_normal((TILE, TILE), np.float32)
        tile = cv2.GaussianBlur(np.pad(tile, 4, 'wrap'), (0, 0), 1.0)[4:-4, 4:-4]
        places = [((axis * finer + rng.uniform(0, TILE)) % TILE).astype(np.float32)
                  for axis in (across, along)]
        # Far away, where a pixel spans several waves, they even out.
        fading = nearness ** 0.3 / finer ** 0.7
        pattern += cv2.remap(tile, *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP) * fading
    return pattern / np.float32(max(float(pattern.std()), 1e-6))


def _lay(view: Image, picture: npt.NDArray[np.floating], mask: npt.NDArray[np.bool_]) -> None:
    """Replace the masked part of a view by that of a picture of any values."""
    view[mask] = np.clip(picture[mask], 0, 255).astype(np.uint8)
