"""
Random views of a frame: geometry, then what is added to the scene, then the look.

Geometry is one warp to the network's size, so that image and labels are each sampled
once: the image bilinearly (as the robot does), the labels by nearest neighbour only. What the warp
brings in from outside the frame is void.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import numpy.typing as npt

from training import appearance, scenery, weather
from training.datasets import VOID
from training.obstacles import obstacles
from training.pavement import pavement

Image = npt.NDArray[np.uint8]

#: Of ``training.appearance``, in the order in which a scene becomes a picture.
EFFECTS = ('shadow', 'fog', 'glare', 'night', 'lamplight', 'cutout', 'blur', 'motion', 'coarse',
           'noise', 'jpeg')

#: Of ``training.weather``, in the order in which they reach the ground.
WEATHER = ('shade', 'wet', 'snow', 'rain')


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
    blur, noise, cutout, shadow, fog, glare, night, lamplight, motion, coarse, jpeg : float
        Probability of each, see ``training.appearance``.
    perspective : float
        Largest change of scale from the view's middle to its edge that a camera mounted at
        another height, or looking up, down or aside, would show. At most 0.45: corners change by
        up to twice as much, and from 1 on they show what lies behind the camera.
    tone, paste : float
        Probability that the view takes the tone of, or things out of, a second frame.
    hood : float
        Probability that a part of the own vehicle covers the view's lower edge.
    markings : float
        Probability that the road gets other paint and, beside a line, another tone.
    obstacles : float
        Probability that persons, walls or bushes stand near the camera.
    pavement : float
        Probability that a strip along the road's edge becomes pavement, see ``training.pavement``.
    shade, wet, snow, rain : float
        Probability of each, see ``training.weather``.

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
    fog: float = 0.0
    glare: float = 0.0
    night: float = 0.0
    lamplight: float = 0.0
    motion: float = 0.0
    coarse: float = 0.0
    jpeg: float = 0.0
    perspective: float = 0.0
    tone: float = 0.0
    paste: float = 0.0
    hood: float = 0.0
    markings: float = 0.0
    obstacles: float = 0.0
    pavement: float = 0.0
    shade: float = 0.0
    wet: float = 0.0
    snow: float = 0.0
    rain: float = 0.0

    def check(self) -> None:
        """
        Refuse what no view can be drawn with.

        Raises
        ------
        ValueError
            If a setting is out of its range.

        """
        low, high = self.scale
        if not 0 < low <= high < np.inf:
            raise ValueError(
                f'scale: found {self.scale}, expected two numbers above 0, the lower one first.')
        for name, least, most in (
                ('aspect', 1, np.inf), ('rotation_deg', 0, 360), ('colour', 0, np.inf),
                ('perspective', 0, 0.45), ('tone', 0, 1), ('paste', 0, 1), ('hood', 0, 1),
                ('markings', 0, 1), ('obstacles', 0, 1), ('pavement', 0, 1),
                *((name, 0, 1) for name in (*EFFECTS, *WEATHER))):
            found = getattr(self, name)
            if not least <= found <= most or not np.isfinite(found):
                raise ValueError(f'{name}: found {found}, expected ' + (
                    f'{least} to {most}.' if np.isfinite(most) else f'at least {least}, finite.'))

    @property
    def wants_donor(self) -> bool:
        """Tell whether views may need a second frame."""
        return self.tone > 0 or self.paste > 0


def resize_labels(labels: Image, size_hw: tuple[int, int]) -> Image:
    """Resize label ids by nearest neighbour: no id appears that was not there before."""
    return cv2.resize(labels, size_hw[::-1], interpolation=cv2.INTER_NEAREST_EXACT)


def whole_view(rgb: Image, labels: Image, size_hw: tuple[int, int]) -> tuple[Image, Image]:
    """Fit the whole frame to the network's input, as the robot does with ``fit: stretch``."""
    resized = cv2.resize(rgb, size_hw[::-1], interpolation=cv2.INTER_LINEAR)
    return resized, resize_labels(labels, size_hw)


def random_view(
    rgb: Image, labels: Image, size_hw: tuple[int, int], rng: np.random.Generator,
    settings: Augmentation, donor: tuple[Image, Image] | None = None, background: int = VOID,
    road: int = VOID, ground: int = VOID,
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
    donor : (uint8[h, w, 3], uint8[h, w]), optional
        Another frame with its labels, for ``tone`` and ``paste``.
    background : int
        Id of what ``hood`` and ``obstacles`` put into the view.
    road : int
        Id of the class that ``paste`` never takes alone, ``pavement`` lies along, ``markings``
        paints and weather falls on; void where there is none.
    ground : int
        Id of the ground beside the road, which ``pavement`` becomes, or background where there is
        none (void). Weather falls on it as well, and in a frame without it on all else below the
        road's far end.

    Returns
    -------
    (uint8[h, w, 3], uint8[h, w])
        The view and its labels; the ids are a subset of those in ``labels``, in the donor's,
        ``background``, ``ground`` and void.

    """
    view, ids = _warp(rgb, labels, size_hw, rng, settings)
    # No draw for what is off: a setting that comes later does not change earlier runs.
    if settings.pavement and road != VOID and rng.random() < settings.pavement:
        pavement(view, ids, rng, road, background if ground == VOID else ground)
    if settings.markings and road != VOID and rng.random() < settings.markings:
        scenery.markings(view, ids, rng, road)
    if donor is not None and rng.random() < settings.paste:
        scenery.paste(view, ids, *_warp(*donor, size_hw, rng, settings), rng, road)
    if settings.obstacles and rng.random() < settings.obstacles:
        obstacles(view, ids, background, rng, road)
    # Data that labels the road alone may have the class by name only.
    beside = ground if (labels == ground).any() else VOID
    for name in WEATHER:
        if (probability := getattr(settings, name)) and rng.random() < probability:
            found = weather.find_ground(ids, road, beside)
            if found is not None:
                getattr(weather, name)(view, found, rng)
    if settings.hood and rng.random() < settings.hood:
        scenery.own_vehicle(view, ids, background, rng)
    return _random_look(view, donor[0] if donor else None, rng, settings), ids


def _warp(
    rgb: Image, labels: Image, size_hw: tuple[int, int], rng: np.random.Generator,
    settings: Augmentation,
) -> tuple[Image, Image]:
    matrix = _random_affine(rgb.shape[:2], size_hw, rng, settings)
    warp = cv2.warpAffine
    if settings.perspective > 0:
        matrix = _random_perspective(size_hw, rng, settings) @ np.vstack([matrix, [0, 0, 1]])
        warp = cv2.warpPerspective
    view = warp(
        rgb, matrix, size_hw[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    ids = warp(
        labels, matrix, size_hw[::-1], flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT,
        borderValue=VOID)
    return view, ids


def _random_perspective(
    size_hw: tuple[int, int], rng: np.random.Generator, settings: Augmentation,
) -> npt.NDArray[np.float64]:
    """Return the 3x3 matrix that tilts a view about its own middle."""
    h, w = size_hw
    centre = np.array([[1, 0, w / 2], [0, 1, h / 2], [0, 0, 1]])
    tilt = np.eye(3)
    tilt[2, :2] = rng.uniform(-1, 1, 2) * settings.perspective / np.array([w / 2, h / 2])
    return centre @ tilt @ np.linalg.inv(centre)


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


def _random_look(
    view: Image, donor: Image | None, rng: np.random.Generator, settings: Augmentation,
) -> Image:
    if settings.colour > 0:
        view = appearance.colour(view, rng, settings.colour)
    if donor is not None and rng.random() < settings.tone:
        view = appearance.tone_of(view, donor, rng)
    for name in EFFECTS:
        # No draw for what is off: a setting that comes later does not change earlier runs.
        if (probability := getattr(settings, name)) and rng.random() < probability:
            view = getattr(appearance, name)(view, rng)
    return view
