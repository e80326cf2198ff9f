"""The image outputs by name: what each needs of the segmenter, and how it is drawn."""

from __future__ import annotations

from collections.abc import Collection

import cv2
import numpy as np
import numpy.typing as npt

from bisenet_ros.core.contract import ModelContract
from bisenet_ros.core.postprocess import Wanted, color_mask, color_table
from bisenet_ros.core.segmenter import Segmentation

#: Name and pixel encoding (sensor_msgs/image_encodings) of every image output.
ENCODINGS = {
    'mask': 'mono8', 'labels': 'mono8', 'confidence': 'mono8', 'color_mask': 'rgb8',
    'overlay': 'bgr8',
}

Bytes = npt.NDArray[np.uint8]


def overlay(
    frame_bgr: Bytes, labels: Bytes, mask: Bytes, table_bgr: Bytes, alpha: float,
) -> Bytes:
    """
    Blend the classes' colours into a frame where the mask is set.

    Parameters
    ----------
    frame_bgr : uint8[H, W, 3]
    labels : uint8[h, w]
        Class ids.
    mask : uint8[h, w]
        0 or 255. Where its size is not the frame's, the frame is resized to it.
    table_bgr : uint8[1, 256, 3]
        Of ``postprocess.color_table``.
    alpha : float
        Weight of the colour in [0, 1].

    Returns
    -------
    uint8[h, w, 3]
        A new image.

    """
    if frame_bgr.shape[:2] != mask.shape:
        frame_bgr = cv2.resize(frame_bgr, mask.shape[::-1], interpolation=cv2.INTER_LINEAR)
    tinted = cv2.addWeighted(frame_bgr, 1 - alpha, color_mask(labels, table_bgr), alpha, 0)
    result = frame_bgr.copy()
    cv2.copyTo(tinted, mask, result)
    return result


class OutputPainter:
    """
    Draw the outputs that somebody listens to.

    Parameters
    ----------
    contract : ModelContract

    """

    def __init__(self, contract: ModelContract) -> None:
        self._table_rgb = color_table(contract.class_colors_rgb)
        self._table_bgr = color_table(contract.class_colors_rgb, 'bgr')

    @staticmethod
    def wanted(names: Collection[str]) -> Wanted:
        """Return what the segmenter has to compute for some outputs."""
        return Wanted(
            labels=any(name in names for name in ('labels', 'color_mask', 'overlay')),
            mask=any(name in names for name in ('mask', 'overlay')),
            confidence='confidence' in names)

    def paint(
        self, names: Collection[str], result: Segmentation, frame_bgr: Bytes | None,
        alpha: float,
    ) -> dict[str, Bytes]:
        """
        Draw outputs.

        Parameters
        ----------
        names : collection of str
            Keys of ``ENCODINGS``.
        result : Segmentation
            With everything in it that ``wanted(names)`` asked for.
        frame_bgr : uint8[H, W, 3] or None
            Needed for ``overlay`` alone.
        alpha : float
            Weight of the colour in ``overlay``.

        Returns
        -------
        dict of str to uint8[H, W] or uint8[H, W, 3]

        Raises
        ------
        ValueError
            If ``result`` or ``frame_bgr`` lacks what an output is made of.

        """
        parts = {'labels': result.labels, 'mask': result.mask, 'confidence': result.confidence,
                 'frame_bgr': frame_bgr}

        def part(name: str) -> Bytes:
            if (found := parts[name]) is None:
                raise ValueError(
                    f'{name}: found none, expected what wanted({list(names)}) asks for.')
            return found

        drawn = {}
        for name in names:
            if name == 'overlay':
                drawn[name] = overlay(
                    part('frame_bgr'), part('labels'), part('mask'), self._table_bgr, alpha)
            elif name == 'color_mask':
                drawn[name] = color_mask(part('labels'), self._table_rgb)
            else:
                drawn[name] = part(name)
        return drawn
