"""The image outputs by name: what each needs of the segmenter, and how it is drawn."""

from __future__ import annotations

from collections.abc import Collection

import cv2

from bisenet_ros.core.buffers import Allocate, Bytes, Scratch, new_array
from bisenet_ros.core.contract import ModelContract
from bisenet_ros.core.postprocess import Wanted, color_mask, color_table
from bisenet_ros.core.preprocess import CONVERSIONS
from bisenet_ros.core.segmenter import Segmentation

#: Name and pixel encoding (sensor_msgs/image_encodings) of every image output, in the order in
#: which they are published: those that are drawn come last.
ENCODINGS = {
    'mask': 'mono8', 'labels': 'mono8', 'confidence': 'mono8', 'color_mask': 'rgb8',
    'overlay': 'bgr8',
}

def overlay(
    frame: Bytes, labels: Bytes, mask: Bytes, table_bgr: Bytes, alpha: float, *,
    channels: str = 'bgr', out: Bytes | None = None, allocate: Allocate = new_array,
) -> Bytes:
    """
    Blend the classes' colours into a frame where the mask is set.

    Parameters
    ----------
    frame : uint8[H, W, C] or uint8[H, W]
    labels : uint8[h, w]
        Class ids.
    mask : uint8[h, w]
        0 or 255. Where its size is not the frame's, the frame is resized to it.
    table_bgr : uint8[1, 256, 3]
        Of ``postprocess.color_table``.
    alpha : float
        Weight of the colour in [0, 1].
    channels : str
        The frame's, one of ``preprocess.CHANNELS``.
    out : uint8[h, w, 3] or None
        Where to paint; None is a new array.
    allocate : callable
        Gives memory for what is on its way.

    Returns
    -------
    uint8[h, w, 3]
        BGR; ``out`` if given.

    """
    if out is None:
        out = new_array('overlay', (*mask.shape, 3))
    if frame.shape[:2] != mask.shape:
        frame = cv2.resize(
            frame, mask.shape[::-1], interpolation=cv2.INTER_LINEAR,
            dst=allocate('resized frame', (*mask.shape, *frame.shape[2:])))
    if channels == 'bgr':
        out[:] = frame
    else:
        cv2.cvtColor(frame, CONVERSIONS[channels, 'bgr'], dst=out)
    _, top, _, height = cv2.boundingRect(mask)
    rows = slice(top, top + height)
    if height:
        colors = color_mask(
            labels[rows], table_bgr, allocate('colors', (height, mask.shape[1], 3)), allocate)
        tinted = cv2.addWeighted(out[rows], 1 - alpha, colors, alpha, 0, dst=colors)
        cv2.copyTo(tinted, mask[rows], out[rows])
    return out


class OutputPainter:
    """
    Draw the outputs that somebody listens to.

    Not thread-safe: it reuses its memory.

    Parameters
    ----------
    contract : ModelContract

    """

    def __init__(self, contract: ModelContract) -> None:
        self._table_rgb = color_table(contract.class_colors_rgb)
        self._table_bgr = color_table(contract.class_colors_rgb, 'bgr')
        self._scratch = Scratch()

    @staticmethod
    def wanted(names: Collection[str]) -> Wanted:
        """Return what the segmenter has to compute for some outputs."""
        return Wanted(
            labels=any(name in names for name in ('labels', 'color_mask', 'overlay')),
            mask=any(name in names for name in ('mask', 'overlay')),
            confidence='confidence' in names)

    def paint(
        self, names: Collection[str], result: Segmentation, frame: Bytes | None, alpha: float, *,
        channels: str = 'bgr', allocate: Allocate = new_array,
    ) -> dict[str, Bytes]:
        """
        Draw outputs.

        Parameters
        ----------
        names : collection of str
            Keys of ``ENCODINGS``.
        result : Segmentation
            With everything in it that ``wanted(names)`` asked for.
        frame : uint8[H, W, C] or uint8[H, W] or None
            Needed for ``overlay`` alone.
        alpha : float
            Weight of the colour in ``overlay``.
        channels : str
            The frame's, one of ``preprocess.CHANNELS``.
        allocate : callable
            Gives the memory for ``color_mask`` and ``overlay``.

        Returns
        -------
        dict of str to uint8[H, W] or uint8[H, W, 3]

        Raises
        ------
        ValueError
            If ``result`` or ``frame`` lacks what an output is made of.

        """
        parts = {'labels': result.labels, 'mask': result.mask, 'confidence': result.confidence,
                 'frame': frame}

        def part(name: str) -> Bytes:
            if (found := parts[name]) is None:
                raise ValueError(
                    f'{name}: found none, expected what wanted({list(names)}) asks for.')
            return found

        drawn = {}
        for name in names:
            if name == 'overlay':
                mask = part('mask')
                drawn[name] = overlay(
                    part('frame'), part('labels'), mask, self._table_bgr, alpha,
                    channels=channels, out=allocate(name, (*mask.shape, 3)),
                    allocate=self._scratch)
            elif name == 'color_mask':
                labels = part('labels')
                drawn[name] = color_mask(
                    labels, self._table_rgb, allocate(name, (*labels.shape, 3)), self._scratch)
            else:
                drawn[name] = part(name)
        return drawn
