"""
Random views of a frame: geometry, then colour.

Geometry is one affine warp to the network's size, so that image and labels are each sampled
once: the image bilinearly (as the robot does), the labels by nearest neighbour only. What the warp
brings in from outside the frame is void.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import numpy.typing as npt

from training.datasets import VOID

Image = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """
    How far a view may stray from its frame.

    Parameters
    ----------
    scale : (float, float)
        Range of the zoom, drawn log-uniformly; 1 fits the whole frame to the network's input.
    aspect : float
        Largest factor by which width and height may be scaled differently.
    rotation_deg : float
        Largest roll in degrees.
    flip : bool
        Mirror half of the views.
    colour : float
        Strength of brightness, contrast, gamma, saturation and white balance changes; 0 is none.
    blur, noise, cutout, shadow : float
        Probability of each.

    """

    scale: tuple[float, float] = (0.75, 2.0)
    aspect: float = 1.35
    rotation_deg: float = 4.0
    flip: bool = True
    colour: float = 1.0
    blur: float = 0.2
    noise: float = 0.25
    cutout: float = 0.15
    shadow: float = 0.25


def resize_labels(labels: Image, size_hw: tuple[int, int]) -> Image:
    """Resize label ids by nearest neighbour: no id appears that was not there before."""
    return cv2.resize(labels, size_hw[::-1], interpolation=cv2.INTER_NEAREST_EXACT)


def whole_view(rgb: Image, labels: Image, size_hw: tuple[int, int]) -> tuple[Image, Image]:
    """Fit the whole frame to the network's input, as the robot does with ``fit: stretch``."""
    resized = cv2.resize(rgb, size_hw[::-1], interpolation=cv2.INTER_LINEAR)
    return resized, resize_labels(labels, size_hw)


def random_view(
    rgb: Image, labels: Image, size_hw: tuple[int, int], rng: np.random.Generator,
    settings: Augmentation,
) -> tuple[Image, Image]:
    """
    Draw one training view.

    Parameters
    ----------
    rgb : uint8[H, W, 3]
    labels : uint8[H, W]
        Training class ids, 255 for void.
    size_hw : (int, int)
        Height and width of the view in pixels.
    rng : numpy.random.Generator
    settings : Augmentation

    Returns
    -------
    (uint8[h, w, 3], uint8[h, w])
        The view and its labels; the ids are a subset of those in ``labels`` and void.

    """
    matrix = _random_affine(rgb.shape[:2], size_hw, rng, settings)
    view = cv2.warpAffine(
        rgb, matrix, size_hw[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    ids = cv2.warpAffine(
        labels, matrix, size_hw[::-1], flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT,
        borderValue=VOID)
    return _random_colour(view, rng, settings), ids


def _random_affine(
    source_hw: tuple[int, int], size_hw: tuple[int, int], rng: np.random.Generator,
    settings: Augmentation,
) -> npt.NDArray[np.float64]:
    """Return the 2x3 matrix from frame pixels to view pixels."""
    (source_h, source_w), (h, w) = source_hw, size_hw
    zoom = np.exp(rng.uniform(*np.log(settings.scale)))
    aspect = np.exp(rng.uniform(-1, 1) * np.log(settings.aspect) / 2)
    scale_x, scale_y = w / source_w * zoom * aspect, h / source_h * zoom / aspect
    angle = np.deg2rad(rng.uniform(-1, 1) * settings.rotation_deg)
    mirror = -1.0 if settings.flip and rng.random() < 0.5 else 1.0
    # Where in the frame the view's centre lies: anywhere that keeps the view inside the frame
    # if it is smaller, or the frame inside the view if it is larger.
    slack_x, slack_y = abs(1 - w / (source_w * scale_x)), abs(1 - h / (source_h * scale_y))
    centre_x = source_w * (0.5 + rng.uniform(-0.5, 0.5) * slack_x)
    centre_y = source_h * (0.5 + rng.uniform(-0.5, 0.5) * slack_y)
    cos, sin = np.cos(angle), np.sin(angle)
    linear = np.array([[cos * scale_x * mirror, -sin * scale_y],
                       [sin * scale_x * mirror, cos * scale_y]])
    shift = np.array([w / 2, h / 2]) - linear @ np.array([centre_x, centre_y])
    # The formulas above have pixel corners at integers; OpenCV has pixel centres there.
    shift += linear @ np.array([0.5, 0.5]) - 0.5
    return np.hstack([linear, shift[:, None]])


def _random_colour(view: Image, rng: np.random.Generator, settings: Augmentation) -> Image:
    strength = settings.colour
    if strength > 0:
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
        curve = ((levels ** gamma - 0.5) * contrast + 0.5 + brightness) * balance
        view = cv2.LUT(view, (np.clip(curve, 0, 1) * 255).astype(np.uint8).reshape(1, 256, 3))
    if rng.random() < settings.shadow:
        view = _shadow(view, rng)
    if rng.random() < settings.cutout:
        view = _cutout(view, rng)
    if rng.random() < settings.blur:
        view = cv2.GaussianBlur(view, (0, 0), rng.uniform(0.4, 1.8))
    if rng.random() < settings.noise:
        noise = rng.standard_normal((view.shape[0], view.shape[1], 1), np.float32)
        noise = noise * np.float32(rng.uniform(3, 16))
        view = cv2.add(view, cv2.merge([noise[..., 0]] * 3), dtype=cv2.CV_8U)
    return view


def _shadow(view: Image, rng: np.random.Generator) -> Image:
    """Darken a random quadrilateral, as trees and houses do."""
    h, w = view.shape[:2]
    corners = np.stack([rng.uniform(-0.2, 1.2, 4) * w, rng.uniform(0.2, 1.2, 4) * h], -1)
    mask = np.zeros((h, w), np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(corners.astype(np.float32)).astype(np.int32), 255)
    darker = cv2.convertScaleAbs(view, alpha=float(rng.uniform(0.35, 0.75)))
    view = view.copy()
    view[mask > 0] = darker[mask > 0]
    return view


def _cutout(view: Image, rng: np.random.Generator) -> Image:
    """Hide a rectangle; its labels stay, so context has to fill it."""
    h, w = view.shape[:2]
    height, width = int(rng.uniform(0.08, 0.25) * h), int(rng.uniform(0.08, 0.25) * w)
    top, left = rng.integers(0, h - height), rng.integers(0, w - width)
    view = view.copy()
    view[top:top + height, left:left + width] = rng.integers(0, 256, 3)
    return view
