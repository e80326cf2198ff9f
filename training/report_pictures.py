"""Pictures of a report: frames with labels, and where labels and truth part."""

from __future__ import annotations

import base64
import dataclasses

import cv2
import numpy as np
import numpy.typing as npt

from bisenet_ros.core.contract import Rgb
from bisenet_ros.core.postprocess import color_mask, color_table
from training.augment import resize_labels
from training.datasets import VOID

Image = npt.NDArray[np.uint8]

WIDTH_PX = 400

#: Told apart by all common kinds of colour vision (Okabe and Ito 2008).
MISSED_RGB, FALSE_RGB, WRONG_RGB = (230, 159, 0), (86, 180, 233), (213, 94, 0)


@dataclasses.dataclass(frozen=True)
class Panel:
    """A picture with its caption."""

    rgb: Image
    caption: str

    def data_uri(self, quality: int = 80) -> str:
        """Return it as a JPEG that needs no file."""
        bgr = cv2.cvtColor(self.rgb, cv2.COLOR_RGB2BGR)
        _, encoded = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
        return 'data:image/jpeg;base64,' + base64.b64encode(encoded.tobytes()).decode()


def shrunk_hw(size_hw: tuple[int, int], width_px: int = WIDTH_PX) -> tuple[int, int]:
    """Return height and width of a picture of a frame; small frames stay as they are."""
    height, width = size_hw
    target = min(width, width_px)
    return max(1, round(height * target / width)), target


def blended(rgb: Image, labels: Image, colors_rgb: tuple[Rgb, ...]) -> Image:
    """Paint class colours over a frame, half transparent; void, and black classes, stay bare."""
    colors = color_mask(labels, color_table(colors_rgb))
    mixed = cv2.addWeighted(rgb, 0.5, colors, 0.5, 0)
    return np.where(colors.any(-1, keepdims=True), mixed, rgb)


def errors(rgb: Image, truth: Image, predicted: Image, marked: int | None) -> Image:
    """
    Paint what is wrong over a darkened grey frame; what is void in the truth is never wrong.

    Parameters
    ----------
    rgb : uint8[H, W, 3]
    truth, predicted : uint8[H, W]
        Class ids.
    marked : int or None
        The class whose missed (orange) and false (blue) pixels are told apart; every other wrong
        pixel is red.

    """
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    painted = cv2.merge([cv2.convertScaleAbs(grey, alpha=0.5)] * 3)
    wrong = (truth != VOID) & (truth != predicted)
    painted[wrong] = WRONG_RGB
    if marked is not None:
        painted[wrong & (truth == marked)] = MISSED_RGB
        painted[wrong & (predicted == marked)] = FALSE_RGB
    return painted


def truth_panels(
    rgb: Image, truth: Image, predicted: Image, colors_rgb: tuple[Rgb, ...], marked: int | None,
) -> tuple[Panel, ...]:
    """Return frame, truth, prediction and errors, all of one small size."""
    size = shrunk_hw(truth.shape)
    small = cv2.resize(rgb, size[::-1], interpolation=cv2.INTER_AREA)
    true, found = resize_labels(truth, size), resize_labels(predicted, size)
    return (Panel(small, 'frame'), Panel(blended(small, true, colors_rgb), 'truth'),
            Panel(blended(small, found, colors_rgb), 'prediction'),
            Panel(errors(small, true, found, marked), 'errors'))


def difference_panels(
    rgb: Image, truth: Image, first: Image, second: Image, colors_rgb: tuple[Rgb, ...],
    names: tuple[str, str],
) -> tuple[Panel, ...]:
    """Return truth, both predictions, and where those two differ and which of them is right."""
    size = shrunk_hw(truth.shape)
    small = cv2.resize(rgb, size[::-1], interpolation=cv2.INTER_AREA)
    true, one, two = (resize_labels(labels, size) for labels in (truth, first, second))
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    painted = cv2.merge([cv2.convertScaleAbs(grey, alpha=0.5)] * 3)
    differs = one != two
    painted[differs] = WRONG_RGB
    painted[differs & (one == true)] = MISSED_RGB
    painted[differs & (two == true)] = FALSE_RGB
    return (Panel(blended(small, true, colors_rgb), 'truth'),
            Panel(blended(small, one, colors_rgb), names[0]),
            Panel(blended(small, two, colors_rgb), names[1]), Panel(painted, 'difference'))
