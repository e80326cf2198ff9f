"""
A rendered drive: road frames with exact labels, from nothing but a seed.

It stands in for a camera where there is none (demo, replay, tests) and adds perfectly labelled
frames to training. The scene is a flat world seen by a pinhole camera: a curved road with lane
markings and pavements on grass, buildings and trees beside it, vehicles on it. It is no substitute
for real frames.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import cv2
import numpy as np
import numpy.typing as npt

#: Label ids of rendered frames.
CLASS_NAMES = ('background', 'road', 'ground', 'movable')
BACKGROUND, ROAD, GROUND, MOVABLE = range(4)

_NEAR_M = 1.2
_FAR_M = 220.0
_TEXTURE_PX = 512
_METRES_PER_TEXEL = 0.03

Colour = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Scene:
    """
    What is fixed during one drive; lengths in metres, angles in radians.

    ``speed_m_s`` is the camera's; ``light`` scales all brightness (1 is a bright day);
    ``tint_rgb`` is the colour of that light; ``haze`` in [0, 1] fades what is far into the sky.

    """

    camera_height_m: float = 1.4
    pitch_rad: float = 0.03
    field_of_view_rad: float = 1.1
    speed_m_s: float = 9.0
    lane_width_m: float = 3.4
    lanes: int = 2
    camera_lane_offset_m: float = 1.7
    pavement_m: float = 2.2
    kerb_m: float = 0.25
    curvature_per_m: float = 0.004
    light: float = 1.0
    tint_rgb: tuple[float, float, float] = (1.0, 1.0, 1.0)
    haze: float = 0.35
    texture: float = 14.0
    asphalt_rgb: Colour = (96, 96, 100)
    pavement_rgb: Colour = (150, 143, 136)
    grass_rgb: Colour = (92, 118, 66)
    sky_rgb: Colour = (168, 194, 222)
    marked: bool = True
    shadows: bool = True


def _rgb(parts: Iterable[float]) -> Colour:
    red, green, blue = (int(part) for part in parts)
    return red, green, blue


def random_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene: another country, camera height, hour and weather with every draw."""
    grey = int(rng.integers(45, 165))
    lanes = int(rng.integers(1, 5))
    lane_width_m = rng.uniform(2.6, 4.0)
    half_m = lanes * lane_width_m / 2

    def near(colour: Iterable[float], spread: int) -> Colour:
        return _rgb(np.clip(c + rng.integers(-spread, spread + 1), 0, 255) for c in colour)

    pavement = grey + rng.integers(15, 70) * rng.choice([-0.6, 1.0])
    greenery = [(92, 118, 66), (140, 128, 84), (70, 96, 60), (168, 140, 100), (190, 195, 200)]
    return Scene(
        camera_height_m=rng.uniform(0.35, 2.4),
        pitch_rad=rng.uniform(-0.06, 0.14),
        field_of_view_rad=rng.uniform(0.8, 1.6),
        speed_m_s=rng.uniform(3.0, 20.0),
        lane_width_m=lane_width_m,
        lanes=lanes,
        camera_lane_offset_m=rng.uniform(-0.6, 0.6) * half_m,
        pavement_m=rng.choice([0.0, rng.uniform(1.0, 5.0)]),
        kerb_m=rng.uniform(0.0, 0.4),
        curvature_per_m=rng.normal(0.0, 0.006),
        light=rng.uniform(0.3, 1.15),
        tint_rgb=(rng.uniform(0.85, 1.1), 1.0, rng.uniform(0.8, 1.1)),
        haze=rng.uniform(0.0, 0.8),
        texture=rng.uniform(3.0, 26.0),
        asphalt_rgb=near((grey, grey, grey), 12),
        pavement_rgb=near((pavement, pavement, pavement), 18),
        grass_rgb=near(greenery[rng.integers(len(greenery))], 25),
        sky_rgb=near(((168, 194, 222), (205, 208, 212), (120, 130, 150))[rng.integers(3)], 25),
        marked=bool(rng.random() < 0.75),
        shadows=bool(rng.random() < 0.6),
    )


@dataclasses.dataclass(frozen=True)
class _Thing:
    """An upright box: lateral and along-road position, size, colour, speed along the road."""

    x_m: float
    z_m: float
    width_m: float
    height_m: float
    lift_m: float
    rgb: Colour
    kind: str
    speed_m_s: float = 0.0


class RenderedDrive:
    """
    Endless drive through one scene.

    Parameters
    ----------
    size_wh : (int, int)
        Frame width and height in pixels, at least 16 each.
    seed : int
        Fixes the placement of everything; the same seed gives the same frames.
    scene : Scene or None
        None draws no variation: the default day.

    Raises
    ------
    ValueError
        If a side is shorter than 16 pixels.

    """

    def __init__(
        self, size_wh: tuple[int, int] = (1280, 720), seed: int = 0, scene: Scene | None = None,
    ) -> None:
        if min(size_wh) < 16:
            raise ValueError(f'size_wh: found {size_wh}, expected at least 16 pixels a side.')
        self.scene = scene or Scene()
        self.width_px, self.height_px = size_wh
        self._focal_px = self.width_px / 2 / math.tan(self.scene.field_of_view_rad / 2)
        self._centre_px = self.width_px / 2
        self._horizon_px = self.height_px / 2 - self._focal_px * math.tan(self.scene.pitch_rad)
        rng = np.random.default_rng(seed)
        self._phase = rng.uniform(0, 2 * math.pi)
        self._texture = self._make_texture(rng)
        self._things = self._place_things(rng)
        self._loop_m = 400.0
        self._ground_map = self._make_ground_map()
        self._empty_rgb, self._empty_labels = self._draw_sky_and_grass()

    # -- the world ---------------------------------------------------------------------------

    @property
    def _half_road_m(self) -> float:
        return self.scene.lanes * self.scene.lane_width_m / 2

    def _place_things(self, rng: np.random.Generator) -> list[_Thing]:
        scene, things = self.scene, []
        verge_m = self._half_road_m + scene.kerb_m + scene.pavement_m
        for side in (-1, 1):
            z = rng.uniform(0, 20)
            while z < 400:
                gap = rng.uniform(6, 30)
                wall = int(rng.integers(70, 200))
                if rng.random() < 0.6:
                    width = rng.uniform(7, 16)
                    colour = _rgb(np.clip(wall + rng.integers(-25, 26, 3), 0, 255))
                    things.append(_Thing(
                        side * (verge_m + rng.uniform(1.5, 8) + width / 2), z, width,
                        rng.uniform(4, 14), 0.0, colour, 'building'))
                else:
                    leaf = (int(rng.integers(40, 90)), int(rng.integers(75, 130)),
                            int(rng.integers(30, 70)))
                    things.append(_Thing(
                        side * (verge_m + rng.uniform(0.6, 4)), z, rng.uniform(2, 5),
                        rng.uniform(3.5, 8), 0.0, leaf, 'tree'))
                if scene.pavement_m > 1 and rng.random() < 0.25:
                    cloth = _rgb(rng.integers(20, 220, 3))
                    things.append(_Thing(
                        side * (verge_m - rng.uniform(0.3, 0.8) * scene.pavement_m), z + gap / 2,
                        0.5, 1.7, 0.0, cloth, 'person', float(rng.uniform(-1.4, 1.4))))
                z += gap
        for lane in range(scene.lanes):
            z = rng.uniform(12, 60)
            x = (lane + 0.5) * scene.lane_width_m - self._half_road_m
            own_way = x * scene.camera_lane_offset_m >= 0
            while z < 400:
                paint = _rgb(rng.integers(20, 235, 3))
                tall = rng.random() < 0.2
                things.append(_Thing(
                    x + rng.normal(0, 0.2), z, 2.4 if tall else 1.8, 2.9 if tall else 1.5, 0.0,
                    paint, 'vehicle', rng.uniform(0.75, 1.15) * scene.speed_m_s
                    * (1 if own_way else -1)))
                z += rng.uniform(25, 140)
        return things

    def _make_texture(self, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        fine = rng.normal(0, 1, (_TEXTURE_PX // 2, _TEXTURE_PX // 2)).astype(np.float32)
        coarse = cv2.resize(
            rng.normal(0, 1, (24, 24)).astype(np.float32), (_TEXTURE_PX // 2, _TEXTURE_PX // 2),
            interpolation=cv2.INTER_CUBIC)
        noise = np.clip((0.6 * fine + 0.7 * coarse) * self.scene.texture, -90, 90)
        noise = np.hstack([noise, noise[:, ::-1]])  # mirrored, so that it tiles without a seam
        return np.ascontiguousarray(np.vstack([noise, noise[::-1]]), np.float32)

    def _make_ground_map(self) -> tuple[int, npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return the first ground row and, from there, texture x and z coordinates in texels."""
        first = int(np.clip(math.ceil(self._horizon_px) + 1, 0, self.height_px - 1))
        rows = np.arange(first, self.height_px, dtype=np.float32)
        z_m = self.scene.camera_height_m * self._focal_px / (rows + 0.5 - self._horizon_px)
        cols = np.arange(self.width_px, dtype=np.float32) - self._centre_px
        x = cols[None, :] * (z_m / self._focal_px / _METRES_PER_TEXEL)[:, None]
        z = np.broadcast_to((z_m / _METRES_PER_TEXEL)[:, None], x.shape)
        return first, np.ascontiguousarray(x), np.ascontiguousarray(z)

    def _bend_m(self, z_m: npt.NDArray[np.float64], travelled_m: float) -> npt.NDArray[np.float64]:
        """Return the road centre's sideways position at a distance, straight at the camera."""
        wave = math.cos(travelled_m / 70.0 + self._phase)
        return 0.5 * self.scene.curvature_per_m * wave * z_m ** 2 - self.scene.camera_lane_offset_m

    def _project(
        self, x_m: npt.NDArray[np.float64], y_m: float, z_m: npt.NDArray[np.float64],
    ) -> npt.NDArray[np.int32]:
        """Project road coordinates (y up) to pixels in 1/16, as ``cv2.fillPoly`` takes them."""
        u = self._centre_px + self._focal_px * x_m / z_m
        v = self._horizon_px + self._focal_px * (self.scene.camera_height_m - y_m) / z_m
        return np.round(np.clip(np.stack([u, v], -1), -30000, 30000) * 16).astype(np.int32)

    def _box(
        self, x0_m: float, x1_m: float, y0_m: float, y1_m: float, z_m: float,
    ) -> npt.NDArray[np.int32]:
        """Project an upright rectangle that faces the camera, as ``_project`` does."""
        scale = 16 * self._focal_px / z_m
        left, right = (round(max(-480000.0, min(480000.0, 16 * self._centre_px + x * scale)))
                       for x in (x0_m, x1_m))
        height = self.scene.camera_height_m
        bottom, top = (round(max(-480000.0, min(480000.0,
                                                16 * self._horizon_px + (height - y) * scale)))
                       for y in (y0_m, y1_m))
        return np.array([(left, bottom), (left, top), (right, top), (right, bottom)], np.int32)

    # -- drawing -----------------------------------------------------------------------------

    def frame(self, time_s: float) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """
        Render the view at a time.

        Parameters
        ----------
        time_s : float
            Seconds since the start of the drive.

        Returns
        -------
        (uint8[H, W, 3], uint8[H, W])
            RGB frame and label ids (``CLASS_NAMES``).

        """
        scene = self.scene
        travelled = scene.speed_m_s * time_s
        rgb, labels = self._empty_rgb.copy(), self._empty_labels.copy()

        z = np.geomspace(_NEAR_M * 0.4, _FAR_M, 48)
        bend = self._bend_m(z, travelled)
        half = self._half_road_m
        if scene.pavement_m > 0:
            outer = half + scene.kerb_m + scene.pavement_m
            self._strip(rgb, labels, z, bend, -outer, outer, scene.pavement_rgb, GROUND)
        if scene.kerb_m > 0:
            kerb = tuple(min(c + 25, 255) for c in scene.pavement_rgb)
            self._strip(rgb, labels, z, bend, -half - scene.kerb_m, half + scene.kerb_m, kerb,
                        GROUND)
        self._strip(rgb, labels, z, bend, -half, half, scene.asphalt_rgb, ROAD)
        if scene.marked:
            self._draw_markings(rgb, travelled)
        self._apply_texture(rgb, travelled)
        self._draw_things(rgb, labels, travelled, time_s)
        return self._light(rgb), labels

    def _draw_sky_and_grass(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        rgb = np.empty((self.height_px, self.width_px, 3), np.uint8)
        labels = np.zeros((self.height_px, self.width_px), np.uint8)
        horizon = int(np.clip(round(self._horizon_px), 0, self.height_px))
        fade = np.linspace(0.72, 1.0, max(horizon, 1), dtype=np.float32)[:, None, None]
        sky = np.array(self.scene.sky_rgb, np.float32) * fade[:horizon]
        rgb[:horizon] = np.clip(sky, 0, 255).astype(np.uint8)
        rgb[horizon:] = self.scene.grass_rgb
        labels[horizon:] = GROUND
        return rgb, labels

    def _strip(
        self, rgb: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8] | None,
        z_m: npt.NDArray[np.float64], bend_m: npt.NDArray[np.float64],
        left_m: float, right_m: float, colour: Iterable[int], label: int,
    ) -> None:
        """Fill the band between two offsets from the road's centre line."""
        outline = np.concatenate([
            self._project(bend_m + left_m, 0.0, z_m),
            self._project(bend_m + right_m, 0.0, z_m)[::-1]])
        cv2.fillPoly(rgb, [outline], tuple(colour), lineType=cv2.LINE_8, shift=4)
        if labels is not None:
            cv2.fillPoly(labels, [outline], label, lineType=cv2.LINE_8, shift=4)

    def _draw_markings(self, rgb: npt.NDArray[np.uint8], travelled_m: float) -> None:
        scene, half, paint = self.scene, self._half_road_m, (222, 221, 212)
        z = np.geomspace(_NEAR_M * 0.4, 120.0, 32)
        for edge in (-half + 0.2, half - 0.2):
            self._strip(rgb, None, z, self._bend_m(z, travelled_m), edge - 0.07, edge + 0.07,
                        paint, ROAD)
        period, dash = 9.0, 3.5
        start = -(travelled_m % period)
        for lane in range(1, scene.lanes):
            x = lane * scene.lane_width_m - half
            for z0 in np.arange(start, 110.0, period):
                if z0 + dash <= _NEAR_M * 0.5:
                    continue
                z = np.linspace(max(z0, _NEAR_M * 0.4), z0 + dash, 4)
                self._strip(rgb, None, z, self._bend_m(z, travelled_m), x - 0.07, x + 0.07,
                            paint, ROAD)

    def _apply_texture(self, rgb: npt.NDArray[np.uint8], travelled_m: float) -> None:
        first, x, z = self._ground_map
        offset = np.float32(travelled_m / _METRES_PER_TEXEL % _TEXTURE_PX)
        noise = cv2.remap(
            self._texture, x, z + offset, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        # What is far averages out; without this the horizon would sparkle.
        noise *= np.minimum(1.0, 25.0 * self._focal_px / 600.0 * _METRES_PER_TEXEL
                            / np.maximum(z[:, :1] * _METRES_PER_TEXEL, 1e-3))
        cv2.add(rgb[first:], cv2.merge([noise] * 3), dst=rgb[first:], dtype=cv2.CV_8U)

    def _draw_things(
        self, rgb: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8],
        travelled_m: float, time_s: float,
    ) -> None:
        scene, placed = self.scene, []
        for thing in self._things:
            z = (thing.z_m + thing.speed_m_s * time_s - travelled_m) % self._loop_m
            if _NEAR_M * 2 < z < _FAR_M * 0.8:
                placed.append((z, thing))
        for z, thing in sorted(placed, key=lambda pair: -pair[0]):
            z_m = np.array([z])
            x = float(self._bend_m(z_m, travelled_m)[0]) + thing.x_m
            haze = scene.haze * (1 - math.exp(-z / 90.0))
            colour = _rgb(
                c * (1 - haze) + s * haze
                for c, s in zip(thing.rgb, scene.sky_rgb, strict=True))
            left, right = x - thing.width_m / 2, x + thing.width_m / 2
            if scene.shadows and thing.kind in ('vehicle', 'person'):
                depth = np.array([z - 0.4, z + 2.5])
                quad = np.concatenate([
                    self._project(np.array([left, left]), 0.0, depth),
                    self._project(np.array([right + 0.4, right + 0.4]), 0.0, depth)[::-1]])
                dark = tuple(int(c * 0.55) for c in scene.asphalt_rgb)
                cv2.fillPoly(rgb, [quad], dark, shift=4)
            self._draw_thing(rgb, labels, thing, colour, left, right, z_m)

    def _draw_thing(
        self, rgb: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8], thing: _Thing,
        colour: Colour, left_m: float, right_m: float, z_m: npt.NDArray[np.float64],
    ) -> None:
        def box(x0: float, x1: float, y0: float, y1: float) -> npt.NDArray[np.int32]:
            return self._box(x0, x1, y0, y1, float(z_m[0]))

        label = MOVABLE if thing.kind in ('vehicle', 'person') else BACKGROUND
        middle, height = (left_m + right_m) / 2, thing.height_m
        if thing.kind == 'tree':
            trunk = box(middle - 0.15, middle + 0.15, 0.0, height * 0.5)
            for image, value in ((rgb, (70, 55, 42)), (labels, label)):
                cv2.fillPoly(image, [trunk], value, shift=4)
            crown = self._project(np.array([middle]), height * 0.65, z_m)[0]
            scale = 16 * self._focal_px / z_m[0]
            axes = (int(thing.width_m / 2 * scale), int(height * 0.38 * scale))
            for image, value in ((rgb, colour), (labels, label)):
                cv2.ellipse(image, crown.tolist(), axes, 0, 0, 360, value, -1, shift=4)
            return
        body = box(left_m, right_m, 0.0 if thing.kind != 'vehicle' else 0.18, height)
        outline = box(left_m, right_m, 0.0, height)
        cv2.fillPoly(labels, [outline], label, shift=4)
        cv2.fillPoly(rgb, [body], colour, shift=4)
        darker = tuple(int(c * 0.45) for c in colour)
        if thing.kind == 'vehicle':
            inset = 0.14 * (right_m - left_m)
            cv2.fillPoly(rgb, [box(left_m + inset, right_m - inset, height * 0.58, height * 0.92)],
                         (52, 60, 70), shift=4)
            for x0 in (left_m + 0.05, right_m - 0.35):
                cv2.fillPoly(rgb, [box(x0, x0 + 0.3, 0.0, 0.5)], (24, 24, 26), shift=4)
                cv2.fillPoly(rgb, [box(x0, x0 + 0.3, height * 0.4, height * 0.5)],
                             (190, 40, 34), shift=4)
        elif thing.kind == 'building':
            step = max((right_m - left_m) / 5, 1.4)
            for x0 in np.arange(left_m + step * 0.3, right_m - step * 0.5, step):
                for y0 in np.arange(1.2, height - 1.2, 2.8):
                    cv2.fillPoly(rgb, [box(x0, x0 + step * 0.5, y0, y0 + 1.3)], darker, shift=4)
        else:
            head = box(middle - 0.12, middle + 0.12, height * 0.86, height)
            cv2.fillPoly(rgb, [head], (182, 148, 124), shift=4)

    def _light(self, rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        gains = np.array(self.scene.tint_rgb) * self.scene.light
        if np.allclose(gains, 1.0):
            return rgb
        table = np.clip(np.arange(256)[:, None] * gains[None, :], 0, 255).astype(np.uint8)
        return cv2.LUT(rgb, table[:, None, :].reshape(1, 256, 3))
