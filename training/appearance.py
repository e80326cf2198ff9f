"""
What a camera, the light and the weather do to a picture; nothing here moves a pixel.

All functions take and return ``uint8[H, W, 3]`` RGB and draw from the generator they are given.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


def colour(view: Image, rng: np.random.Generator, strength: float) -> Image:
    """Change saturation, gamma, contrast, brightness and white balance."""
    saturation = float(np.clip(1 + rng.uniform(-0.6, 0.5) * strength, 0, 2))
    if rng.random() < 0.06 * strength:
        saturation = 0.0
    grey = cv2.cvtColor(view, cv2.COLOR_RGB2GRAY)
    view = cv2.addWeighted(view, saturation, cv2.merge([grey] * 3), 1 - saturation, 0)
    levels = np.linspace(0, 1, 256)[:, None]
    gamma = np.exp(rng.uniform(-0.7, 0.7) * strength)
    contrast = np.exp(rng.uniform(-0.35, 0.35) * strength)
    brightness = rng.uniform(-0.15, 0.15) * strength
    balance = np.exp(rng.uniform(-0.15, 0.15, 3) * strength)
    return _apply_curve(view, ((levels ** gamma - 0.5) * contrast + 0.5 + brightness) * balance)


def _apply_curve(view: Image, curve: npt.NDArray[np.float64]) -> Image:
    """Look every value up in ``float[256, 3]`` of [0, 1]."""
    return cv2.LUT(view, (np.clip(curve, 0, 1) * 255).astype(np.uint8).reshape(1, 256, 3))


def tone_of(view: Image, donor: Image, rng: np.random.Generator) -> Image:
    """
    Move mean and spread of each channel towards those of another picture.

    After Reinhard et al., Color Transfer between Images (2001), in RGB: one drive's light and
    camera on another drive's streets.

    """
    mean, spread = cv2.meanStdDev(view)
    donor_mean, donor_spread = cv2.meanStdDev(donor)
    gain = np.clip(donor_spread / np.maximum(spread, 1), 0.4, 2.5)
    weight = rng.uniform(0.4, 1.0)
    levels = np.arange(256.0)[:, None]
    moved = (levels - mean.T) * gain.T + donor_mean.T
    return _apply_curve(view, (weight * moved + (1 - weight) * levels) / 255)


def night(view: Image, rng: np.random.Generator) -> Image:
    """Take most of the light away, tint the rest and add the sensor's noise."""
    levels = np.linspace(0, 1, 256)[:, None]
    tint = np.exp(rng.uniform(-0.25, 0.25, 3))
    view = _apply_curve(view, levels ** rng.uniform(1.0, 1.6) * rng.uniform(0.2, 0.5) * tint)
    return noise(view, rng)


def lamplight(view: Image, rng: np.random.Generator) -> Image:
    """Leave only what street lamps and the own headlights light, and show the lamps."""
    height, width = view.shape[:2]
    y = (np.arange(height, dtype=np.float32) / height)[:, None]
    x = (np.arange(width, dtype=np.float32) / width)[None]

    def pool(at_x: float, at_y: float, radius_x: float, radius_y: float) -> Floats:
        return np.exp(-((x - at_x) / radius_x) ** 2 - ((y - at_y) / radius_y) ** 2)[..., None]

    def tint() -> Floats:  # from sodium's orange to white
        return np.array([1, rng.uniform(0.65, 1), rng.uniform(0.3, 1)], np.float32)

    light = np.full((height, width, 3), rng.uniform(0.03, 0.2), np.float32)
    for _ in range(rng.integers(1, 7)):
        radius = rng.uniform(0.1, 0.5)
        place = rng.uniform(-0.1, 1.1), rng.uniform(0.35, 0.95)
        light += pool(*place, radius, radius * rng.uniform(0.3, 1)) * tint() * np.float32(
            rng.uniform(0.15, 0.7))
    if rng.random() < 0.6:  # the own headlights
        light += pool(rng.uniform(0.35, 0.65), rng.uniform(0.7, 1), rng.uniform(0.2, 0.5),
                      rng.uniform(0.15, 0.4)) * tint() * np.float32(rng.uniform(0.2, 0.8))
    picture = view * light
    # Cameras expose for longer at night.
    picture *= np.float32(min(rng.uniform(18, 60) / max(float(picture.mean()), 1), 6))
    for _ in range(rng.integers(0, 8)):
        radius = rng.uniform(0.003, 0.02)
        place = rng.uniform(0, 1), rng.uniform(0.05, 0.6)
        colour = tint() if rng.random() < 0.7 else np.array([1, 0.1, 0.1], np.float32)
        lamp = 255 * pool(*place, radius, 2 * radius) + rng.uniform(10, 60) * pool(
            *place, 6 * radius, 12 * radius)
        picture += lamp.astype(np.float32) * colour
    return noise(np.clip(picture, 0, 255).astype(np.uint8), rng)


def fog(view: Image, rng: np.random.Generator) -> Image:
    """Veil the picture, most at a horizon and above it."""
    height = view.shape[0]
    horizon = rng.uniform(0.3, 0.6) * height
    nearness = np.clip((np.arange(height) - horizon) / (height - horizon), 0, 1)
    veil = rng.uniform(0.35, 0.8) * (1 - nearness) ** rng.uniform(0.7, 2.0)
    light = rng.uniform(140, 235) * np.exp(rng.uniform(-0.06, 0.06, 3))
    clear = (1 - veil)[:, None, None].astype(np.float32)
    veiled = view * clear + (1 - clear) * light.astype(np.float32)
    return np.clip(veiled, 0, 255).astype(np.uint8)


def glare(view: Image, rng: np.random.Generator) -> Image:
    """Add the light of a low sun or of a lamp."""
    height, width = view.shape[:2]
    centre_x, centre_y = rng.uniform(0, width), rng.uniform(0, 0.8) * height
    radius = rng.uniform(0.1, 0.45) * width
    along_x = np.exp(-((np.arange(width, dtype=np.float32) - centre_x) / radius) ** 2)
    along_y = np.exp(-((np.arange(height, dtype=np.float32) - centre_y) / radius) ** 2)
    light = (rng.uniform(60, 200) * along_y[:, None] * along_x).astype(np.uint8)
    return cv2.add(view, cv2.merge([light] * 3))


def shadow(view: Image, rng: np.random.Generator) -> Image:
    """Darken a random quadrilateral, as trees and houses do."""
    h, w = view.shape[:2]
    corners = np.stack([rng.uniform(-0.2, 1.2, 4) * w, rng.uniform(0.2, 1.2, 4) * h], -1)
    mask = np.zeros((h, w), np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(corners.astype(np.float32)).astype(np.int32), 255)
    darker = cv2.convertScaleAbs(view, alpha=float(rng.uniform(0.35, 0.75)))
    view = view.copy()
    cv2.copyTo(darker, mask, view)
    return view


def cutout(view: Image, rng: np.random.Generator) -> Image:
    """Hide a rectangle; its labels stay, so context has to fill it."""
    h, w = view.shape[:2]
    height, width = int(rng.uniform(0.08, 0.25) * h), int(rng.uniform(0.08, 0.25) * w)
    top, left = rng.integers(0, h - height), rng.integers(0, w - width)
    view = view.copy()
    view[top:top + height, left:left + width] = rng.integers(0, 256, 3)
    return view


def blur(view: Image, rng: np.random.Generator) -> Image:
    """Blur evenly."""
    return cv2.GaussianBlur(view, (0, 0), rng.uniform(0.4, 1.8))


def motion(view: Image, rng: np.random.Generator) -> Image:
    """Blur along a line, as a bump or a turn does."""
    length = int(rng.integers(3, 10))
    # An odd side has a middle: about any other point the picture would move away from its labels.
    side = length | 1
    kernel = np.zeros((side, side), np.float32)
    kernel[side // 2] = 1
    if side > length:
        kernel[side // 2, [0, -1]] = 0.5
    turn = cv2.getRotationMatrix2D((side // 2, side // 2), rng.uniform(0, 180), 1)
    kernel = cv2.warpAffine(kernel, turn, (side, side))
    return cv2.filter2D(view, -1, kernel / max(float(kernel.sum()), 1e-6))


def coarse(view: Image, rng: np.random.Generator) -> Image:
    """Give it the resolution of a smaller camera."""
    height, width = view.shape[:2]
    scale = rng.uniform(0.3, 0.8)
    small = cv2.resize(view, (int(width * scale), int(height * scale)),
                       interpolation=cv2.INTER_LINEAR)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def jpeg(view: Image, rng: np.random.Generator) -> Image:
    """Compress hard."""
    _, data = cv2.imencode('.jpg', view, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(12, 60))])
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


def noise(view: Image, rng: np.random.Generator) -> Image:
    """Add the noise of a sensor, the same to all channels."""
    grain = rng.standard_normal((*view.shape[:2], 1), np.float32)
    grain = grain * np.float32(rng.uniform(3, 16))
    return cv2.add(view, cv2.merge([grain[..., 0]] * 3), dtype=cv2.CV_8U)
