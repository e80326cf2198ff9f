"""Pictures of what a network says of a few frames."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from bisenet_ros.core.contract import palette
from training.augment import resize_labels
from training.datasets import VOID, FrameDataset

Pixels = npt.NDArray[np.uint8]

#: Width of one frame in the strip in pixels.
WIDTH_PX = 320


def chosen_frames(dataset: FrameDataset, count: int) -> list[int]:
    """Return the indices of evenly spaced frames, the same in every epoch."""
    count = min(count, len(dataset))
    return [int(index) for index in np.linspace(0, len(dataset) - 1, count).round()]


def _painted(rgb: Pixels, labels: Pixels, colors_rgb: npt.NDArray[np.uint8]) -> Pixels:
    """Blend the classes' colours into a frame; void stays as it is, darkened."""
    table = np.zeros((256, 3), np.uint8)
    table[:len(colors_rgb)] = colors_rgb
    painted: Pixels = cv2.addWeighted(rgb, 0.5, table[labels], 0.5, 0)
    return painted


def strip(
    frames: list[tuple[Pixels, Pixels]], predicted: list[Pixels], num_classes: int,
) -> Pixels:
    """
    Return one row for each frame: as it is, with its labels, with the predicted ones.

    Parameters
    ----------
    frames : list of (uint8[H, W, 3] RGB, uint8[H, W])
        Frames and deployed class ids, 255 for void.
    predicted : list of uint8[H, W]
    num_classes : int

    Returns
    -------
    uint8[h, w, 3]
        RGB.

    """
    colors_rgb = np.array(palette(num_classes), np.uint8)
    rows = []
    for (rgb, labels), found in zip(frames, predicted, strict=True):
        height = round(rgb.shape[0] * WIDTH_PX / rgb.shape[1])
        small = cv2.resize(rgb, (WIDTH_PX, height), interpolation=cv2.INTER_AREA)
        rows.append(np.hstack([small, *(
            _painted(small, resize_labels(ids, (height, WIDTH_PX)), colors_rgb)
            for ids in (labels, found))]))
    return np.vstack(rows)


def png(rgb: Pixels) -> bytes:
    """Encode a picture."""
    return cv2.imencode('.png', cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].tobytes()


def deployed_table(merge: tuple[int, ...]) -> Pixels:
    """Return ``uint8[256]`` from training class to deployed class; void stays void."""
    table = np.full(256, VOID, np.uint8)
    table[:len(merge)] = merge
    return table
