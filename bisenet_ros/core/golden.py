"""
The golden frame: what an EdgeTPU must get right before its results are used.

google-coral/edgetpu#377 reports a BiSeNetV2 that compiled without complaint and was wrong in half
of the image, on the chip only.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from bisenet_ros.core.drive import RenderedDrive, Scene
from bisenet_ros.core.engine import Engine

#: Share of the pixels that must have the CPU's label, in each quarter of the image.
MIN_AGREEMENT = 0.98

QUARTERS = ('top left', 'top right', 'bottom left', 'bottom right')

#: The camera looks down a road in its middle, so that every quarter holds road and more.
_SCENE = Scene(pitch_rad=0.25, camera_height_m=2.0, camera_lane_offset_m=0.0)

Labels = npt.NDArray[np.uint8]


def golden_frame(hw: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Return the frame, ``uint8[H, W, 3]`` RGB, the same at every call."""
    height, width = hw
    drive = RenderedDrive((max(16, width), max(16, height)), scene=_SCENE)
    rgb, _ = drive.frame(1.0)
    return rgb[:height, :width]


def quarter_agreement(first: Labels, second: Labels) -> tuple[float, ...]:
    """Return the share of equal labels in each of ``QUARTERS`` of two ``uint8[H, W]``."""
    same = first == second
    rows, columns = np.array_split(np.arange(same.shape[0]), 2), same.shape[1] // 2
    return tuple(float(part.mean()) for row in rows
                 for part in (same[row, :columns], same[row, columns:]))


class TrustCheck:
    """
    Compare an engine with the one that is trusted.

    Parameters
    ----------
    trusted : Engine
        Run once, here.
    labels_of : callable
        Segments a frame (``uint8[H, W, 3]``) with an engine; returns ``uint8[H, W]``.

    """

    def __init__(
        self, trusted: Engine, labels_of: Callable[[Engine, npt.NDArray[np.uint8]], Labels],
    ) -> None:
        self._labels_of = labels_of
        self._tensors = trusted.input, trusted.output
        self._frame = golden_frame((trusted.input.shape[1], trusted.input.shape[2]))
        started = time.perf_counter()
        self._expected = labels_of(trusted, self._frame)
        #: Seconds that the trusted engine needs for a frame, at most: it was its first.
        self.trusted_s = time.perf_counter() - started

    def __call__(self, engine: Engine) -> str:
        """
        Run the golden frame.

        Parameters
        ----------
        engine : Engine

        Returns
        -------
        str
            Why the engine is not to be trusted; empty if it is.

        Raises
        ------
        DeviceError
            If it fails at it.

        """
        for name, mine, other in zip(
                ('input', 'output'), self._tensors, (engine.input, engine.output), strict=True):
            if not mine.matches(other):
                return (f"the compiled model's {name} is {other}, the CPU model's {mine}: they "
                        'are not from the same export; compile the CPU model again')
        shares = quarter_agreement(self._expected, self._labels_of(engine, self._frame))
        if min(shares) >= MIN_AGREEMENT:
            return ''
        worst = ', '.join(f'{name} {share:.1%}' for name, share in zip(
            QUARTERS, shares, strict=True))
        return (f"its labels of the golden frame differ from the CPU's: equal in {worst}, "
                f'expected {MIN_AGREEMENT:.0%} (see google-coral/edgetpu#377); compile the CPU '
                'model again, or another input size')
