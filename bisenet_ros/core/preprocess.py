"""From a camera frame to the network's input, and where the two lie on each other."""

from __future__ import annotations

import dataclasses
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from bisenet_ros.core.buffers import Scratch
from bisenet_ros.core.contract import ModelContract
from bisenet_ros.core.errors import SettingsError

FITS = ('stretch', 'crop', 'letterbox')

#: Byte value of the bars around a letterboxed frame.
PADDING = 127

#: What turns channels into others.
CONVERSIONS = {
    ('rgb', 'bgr'): cv2.COLOR_RGB2BGR,
    ('bgr', 'rgb'): cv2.COLOR_BGR2RGB,
    ('rgba', 'rgb'): cv2.COLOR_RGBA2RGB,
    ('rgba', 'bgr'): cv2.COLOR_RGBA2BGR,
    ('bgra', 'rgb'): cv2.COLOR_BGRA2RGB,
    ('bgra', 'bgr'): cv2.COLOR_BGRA2BGR,
    ('gray', 'rgb'): cv2.COLOR_GRAY2RGB,
    ('gray', 'bgr'): cv2.COLOR_GRAY2BGR,
}

#: What a frame's channels may be: ``gray`` is ``uint8[H, W]``, the others ``uint8[H, W, 3 or 4]``.
CHANNELS = ('rgb', 'bgr', 'rgba', 'bgra', 'gray')


@dataclasses.dataclass(frozen=True)
class Rect:
    """A rectangle of whole pixels."""

    x: int
    y: int
    width: int
    height: int

    def of(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return the view of ``uint8[H, W(, C)]`` inside this rectangle."""
        return image[self.y:self.y + self.height, self.x:self.x + self.width]


@dataclasses.dataclass(frozen=True)
class Placement:
    """
    Which part of the frame lies on which part of the network's input.

    ``source`` is in frame pixels, ``target`` in input pixels. ``target``'s sides and corner are
    multiples of the output stride, so it covers whole cells of the network's output: masks come
    back aligned by cutting cells out, not by guessing between them.

    """

    frame_hw: tuple[int, int]
    input_hw: tuple[int, int]
    source: Rect
    target: Rect


def placement(
    frame_hw: tuple[int, int], input_hw: tuple[int, int], stride: int, fit: str = 'stretch',
) -> Placement:
    """
    Place a frame on the network's input.

    Parameters
    ----------
    frame_hw, input_hw : (int, int)
        Heights and widths in pixels.
    stride : int
        Input pixels per output pixel.
    fit : str
        ``stretch``: all of the frame on all of the input, aspect not kept. ``crop``: the largest
        centred part of the frame with the input's aspect. ``letterbox``: all of the frame,
        aspect kept to within half an output cell, between bars.

    Returns
    -------
    Placement

    Raises
    ------
    SettingsError
        If ``fit`` is none of the three.

    """
    (frame_h, frame_w), (input_h, input_w) = frame_hw, input_hw
    whole_frame, whole_input = Rect(0, 0, frame_w, frame_h), Rect(0, 0, input_w, input_h)
    if fit == 'stretch':
        return Placement(frame_hw, input_hw, whole_frame, whole_input)
    if fit == 'crop':
        width = min(frame_w, max(1, round(frame_h * input_w / input_h)))
        height = min(frame_h, max(1, round(frame_w * input_h / input_w)))
        source = Rect((frame_w - width) // 2, (frame_h - height) // 2, width, height)
        return Placement(frame_hw, input_hw, source, whole_input)
    if fit == 'letterbox':
        scale = min(input_w / frame_w, input_h / frame_h)
        x, width = _cells(frame_w * scale, input_w, stride)
        y, height = _cells(frame_h * scale, input_h, stride)
        return Placement(frame_hw, input_hw, whole_frame, Rect(x, y, width, height))
    raise SettingsError(f'fit: found {fit!r}, expected one of {", ".join(FITS)}.')


def _cells(wanted: float, available: int, stride: int) -> tuple[int, int]:
    """Return start and length in pixels of the centred run of whole cells nearest in length."""
    cells = available // stride
    length = min(cells, max(1, round(wanted / stride)))
    return (cells - length) // 2 * stride, length * stride


class Preprocessor:
    """
    Turn frames into the bytes a model takes.

    Not thread-safe: it reuses its buffers.

    Parameters
    ----------
    contract : ModelContract
    dtype : numpy dtype
        The input tensor's: uint8 or int8.
    scale, zero_point : float, int
        The input tensor's quantization.

    """

    def __init__(
        self, contract: ModelContract, dtype: npt.DTypeLike, scale: float, zero_point: int,
    ) -> None:
        self._channels = contract.channels
        self._input_hw = contract.input_hw
        self._dtype = np.dtype(dtype)
        self._scratch = Scratch()
        self._table = _byte_table(contract, np.dtype(dtype), scale, zero_point)

    def network_input(
        self, frame: npt.NDArray[np.uint8], channels: str, place: Placement,
        out: npt.NDArray[Any] | None = None,
    ) -> npt.NDArray[Any]:
        """
        Resize a frame, then convert its colours, then its values.

        Parameters
        ----------
        frame : uint8[H, W, C] or uint8[H, W]
            Any strides.
        channels : str
            One of ``CHANNELS``.
        place : Placement
            Of this frame's size.
        out : uint8[h, w, 3] or int8[h, w, 3] or None
            Where to write; None is memory of its own.

        Returns
        -------
        uint8[h, w, 3] or int8[h, w, 3]
            ``out``, or valid until the next call.

        """
        target, depth = place.target, frame.shape[2:]
        size = target.width, target.height
        if out is None:
            out = self._scratch.array('input', (*self._input_hw, 3), self._dtype)
        last = out if self._table is None else self._scratch.array('bytes', (*self._input_hw, 3))
        if (target.height, target.width) != self._input_hw:
            last[:] = PADDING
        seen = target.of(last)
        converted = channels != self._channels
        resized = self._scratch.array('resized', (*size[::-1], *depth)) if converted else seen
        cv2.resize(
            place.source.of(frame), size, dst=resized, interpolation=cv2.INTER_LINEAR)
        if converted:
            cv2.cvtColor(resized, CONVERSIONS[channels, self._channels], dst=seen)
        if self._table is not None:
            cv2.LUT(last, self._table, dst=out)
        return out


def _byte_table(
    contract: ModelContract, dtype: np.dtype, scale: float, zero_point: int,
) -> npt.NDArray[np.uint8] | npt.NDArray[np.int8] | None:
    """Return ``[1, 256, 3]`` from camera byte to tensor value; None where they are the same."""
    values = (np.arange(256)[:, None] - np.array(contract.input_mean)) * contract.input_scale
    limits = np.iinfo(dtype)
    quantized = np.clip(np.round(values / scale + zero_point), limits.min, limits.max)
    if dtype == np.uint8 and (quantized == np.arange(256)[:, None]).all():
        return None
    return quantized.astype(dtype)[None]
