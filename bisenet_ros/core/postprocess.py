"""
From the network's small output to full-size labels, confidence and pictures.

Scores leave the network quantized at a stride (8 for our models). They are upsampled bilinearly,
as 16-bit integers with 7 fractional bits, and decided at full size: no float per pixel. Two
classes need only the difference of their scores; more classes are compared one after the other,
and those that cannot win anywhere are left out (a bilinear blend never exceeds the corners it is
made of). Confidence is computed only when asked for; two classes need no more than a look-up.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import numpy.typing as npt

from bisenet_ros.core.contract import Rgb, UNLABELED
from bisenet_ros.core.preprocess import Placement, Rect

#: Fixed point: scores are multiplied by this before they are upsampled.
FRACTION = 128

#: So far ahead (ln 509), the better of two logits has a probability of 1 in 255ths.
CERTAIN = 6.24

Bytes = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Which full-size results to compute; what nobody asks for costs nothing."""

    labels: bool = True
    mask: bool = False
    confidence: bool = False


@dataclasses.dataclass(frozen=True)
class Decision:
    """
    Full-size results; None where not wanted.

    ``labels``: class ids, 255 = unlabeled. ``mask``: 255 on the mask classes, 0 elsewhere.
    ``confidence``: probability of the reported class times 255. All ``uint8[H, W]``.

    """

    labels: Bytes | None = None
    mask: Bytes | None = None
    confidence: Bytes | None = None


class ScoreDecoder:
    """
    Decide classes from quantized scores.

    Parameters
    ----------
    num_classes : int
        2 to 255.
    scale : float
        Quantization step of the scores.
    kind : str
        ``logits`` or ``probabilities``.

    """

    def __init__(self, num_classes: int, scale: float, kind: str) -> None:
        self._num_classes = num_classes
        self._scale = scale
        self._kind = kind
        # Confidence of two classes is looked up by the difference of their scores. The table's
        # step does not depend on the model's quantization step, which may be much coarser.
        if kind == 'logits':
            self._span = CERTAIN
            pair = 1 / (1 + np.exp(-np.linspace(0, CERTAIN, 256)))
        else:
            self._span = 1.0
            pair = np.linspace(0.5, 1, 256)
        self._pair_table = np.round(pair * 255).astype(np.uint8)

    def decide(
        self, scores: npt.NDArray[np.floating] | npt.NDArray[np.integer], size: tuple[int, int],
        wanted: Wanted, mask_classes: frozenset[int], min_confidence: float = 0.0,
    ) -> Decision:
        """
        Upsample and decide.

        Parameters
        ----------
        scores : number[h, w, C]
            In quantization steps from the zero point: within -255..255. Integers, or a mean of
            them over time.
        size : (int, int)
            Width and height of the result in pixels.
        wanted : Wanted
        mask_classes : frozenset of int
            Ids that ``mask`` marks.
        min_confidence : float
            Probability in [0, 1] below which a pixel is 255 in labels and 0 in the mask.

        Returns
        -------
        Decision
            Ties go to the lower id.

        """
        if self._num_classes == 2:
            return self._decide_pair(scores, size, wanted, mask_classes, min_confidence)
        return self._decide_many(scores, size, wanted, mask_classes, min_confidence)

    def _decide_pair(
        self, scores: npt.NDArray[np.floating] | npt.NDArray[np.integer], size: tuple[int, int],
        wanted: Wanted, mask_classes: frozenset[int], min_confidence: float,
    ) -> Decision:
        margin = (scores[..., 1].astype(np.float32) - scores[..., 0]) * FRACTION
        margin = np.clip(np.round(margin), -32767, 32767).astype(np.int16)
        margin = cv2.resize(margin, size, interpolation=cv2.INTER_LINEAR)
        second = margin > 0  # not cv2.compare: a 1x1 array fails there beside a number
        confidence = None
        if wanted.confidence or min_confidence > 0.5:
            ahead = cv2.convertScaleAbs(
                margin, alpha=self._scale / FRACTION * 255 / self._span)
            confidence = cv2.LUT(ahead, self._pair_table)
        unsure = None
        # Of two classes the reported one is never below a half.
        if confidence is not None and min_confidence > 0.5:
            unsure = confidence < min_confidence * 255
        labels = mask = None
        if wanted.mask:
            if mask_classes == {1}:
                marked = second
            elif mask_classes == {0}:
                marked = ~second
            else:
                marked = np.full_like(second, bool(mask_classes))
            mask = marked.view(np.uint8) * np.uint8(255)
            if unsure is not None:
                mask[unsure] = 0
        if wanted.labels:
            labels = second.view(np.uint8)
            if unsure is not None:
                labels[unsure] = UNLABELED
        return Decision(labels, mask, confidence if wanted.confidence else None)

    def _decide_many(
        self, scores: npt.NDArray[np.floating] | npt.NDArray[np.integer], size: tuple[int, int],
        wanted: Wanted, mask_classes: frozenset[int], min_confidence: float,
    ) -> Decision:
        fixed = np.clip(np.round(scores.astype(np.float32) * FRACTION), -32767, 32767)
        planes = np.ascontiguousarray(np.moveaxis(fixed.astype(np.int16), -1, 0))
        chosen = contenders(planes)
        best = cv2.resize(planes[chosen[0]], size, interpolation=cv2.INTER_LINEAR)
        second = None
        labels = np.full(best.shape, chosen[0], np.uint8)
        with_confidence = wanted.confidence or min_confidence > 0
        for index in chosen[1:]:
            plane = cv2.resize(planes[index], size, interpolation=cv2.INTER_LINEAR)
            np.copyto(labels, np.uint8(index), where=plane > best)
            if with_confidence:
                lower = cv2.min(plane, best)
                second = lower if second is None else cv2.max(second, lower, dst=second)
            cv2.max(best, plane, dst=best)
        confidence = None
        if with_confidence:
            confidence = self._confidence_of_best(scores, chosen, best, second, size)
        table = np.zeros(256, np.uint8)
        table[list(mask_classes)] = 255
        if confidence is not None and min_confidence > 0:
            labels[confidence < min_confidence * 255] = UNLABELED
        return Decision(
            labels if wanted.labels else None,
            cv2.LUT(labels, table) if wanted.mask else None,
            confidence if wanted.confidence else None)

    def _confidence_of_best(
        self, scores: npt.NDArray[np.floating] | npt.NDArray[np.integer], chosen: list[int],
        best: npt.NDArray[np.int16], second: npt.NDArray[np.int16] | None,
        size: tuple[int, int],
    ) -> Bytes:
        """
        Return the probability of the best class, in 255ths.

        With logits it is 1 / (1 + exp(second - best) + rest). Where two classes meet, those two
        decide, at full size. What all others add is taken at the network's own size and
        upsampled: exact on the output's grid and where others are far behind, an estimate where
        three or more classes meet between its points. That is one exponential per pixel, not one
        per class.

        """
        if self._kind == 'probabilities':
            return cv2.convertScaleAbs(best, alpha=self._scale / FRACTION * 255)
        logits = scores.astype(np.float32) * np.float32(self._scale)
        behind = np.exp(logits - logits.max(-1, keepdims=True))
        leading = np.sort(behind[..., chosen], -1)[..., -2:]
        rest = np.maximum(behind.sum(-1) - leading.sum(-1), 0)
        total = cv2.resize(1 + rest, size, interpolation=cv2.INTER_LINEAR)
        if second is not None:
            gap = cv2.subtract(second, best, dtype=cv2.CV_32F)
            gap *= np.float32(self._scale / FRACTION)
            total += cv2.exp(gap, dst=gap)
        return cv2.convertScaleAbs(np.divide(np.float32(255), total, out=total))


def contenders(planes: npt.NDArray[np.int16]) -> list[int]:
    """
    Find the classes that can win somewhere between the points of a grid.

    Between four neighbours a bilinear blend lies between their smallest and largest value. So a
    class whose largest corner is below another's smallest cannot win there.

    Parameters
    ----------
    planes : int16[C, h, w]

    Returns
    -------
    list of int
        Class ids in rising order; at least one.

    """
    corners = planes
    low, high = corners, corners
    for axis in (1, 2):
        if planes.shape[axis] > 1:
            ahead, behind = [slice(None)] * 3, [slice(None)] * 3
            ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
            low = np.minimum(low[tuple(ahead)], low[tuple(behind)])
            high = np.maximum(high[tuple(ahead)], high[tuple(behind)])
    # One step of slack: upsampling rounds.
    possible = (high.astype(np.int32) >= low.max(0).astype(np.int32) - 1).any((1, 2))
    return [int(index) for index in np.flatnonzero(possible)]


def decide_labels(
    ids: npt.NDArray[np.integer], num_classes: int, size: tuple[int, int], wanted: Wanted,
    mask_classes: frozenset[int],
) -> Decision:
    """
    Enlarge class ids that a model decided itself, by nearest neighbour.

    Parameters
    ----------
    ids : integer[h, w]
        What is no id below ``num_classes`` becomes unlabeled.
    num_classes : int
    size : (int, int)
        Width and height of the result in pixels.
    wanted : Wanted
        ``confidence`` must be False: such a model has none.
    mask_classes : frozenset of int

    Returns
    -------
    Decision

    """
    known = np.where((ids >= 0) & (ids < num_classes), ids, UNLABELED).astype(np.uint8)
    labels = cv2.resize(known, size, interpolation=cv2.INTER_NEAREST_EXACT)
    table = np.zeros(256, np.uint8)
    table[list(mask_classes)] = 255
    return Decision(
        labels if wanted.labels else None,
        cv2.LUT(labels, table) if wanted.mask else None)


def output_rect(place: Placement, output_hw: tuple[int, int]) -> Rect:
    """Return where in a result of the whole frame the part that the network saw lies."""
    (frame_h, frame_w), (output_h, output_w) = place.frame_hw, output_hw
    source = place.source
    left, top = round(source.x * output_w / frame_w), round(source.y * output_h / frame_h)
    right = round((source.x + source.width) * output_w / frame_w)
    bottom = round((source.y + source.height) * output_h / frame_h)
    left, top = min(left, output_w - 1), min(top, output_h - 1)
    return Rect(left, top, max(right - left, 1), max(bottom - top, 1))


def expand(decision: Decision, rect: Rect, output_hw: tuple[int, int]) -> Decision:
    """Put a result of part of the frame into the whole: unlabeled, unmasked, 0 outside."""
    if (rect.height, rect.width) == output_hw:
        return decision

    def grown(part: Bytes | None, outside: int) -> Bytes | None:
        if part is None:
            return None
        whole = np.full(output_hw, outside, np.uint8)
        rect.of(whole)[:] = part
        return whole

    return Decision(
        grown(decision.labels, UNLABELED), grown(decision.mask, 0), grown(decision.confidence, 0))


def color_table(colors_rgb: tuple[Rgb, ...], order: str = 'rgb') -> Bytes:
    """Return ``uint8[1, 256, 3]`` from class id to colour; unused ids and 255 are black."""
    table = np.zeros((1, 256, 3), np.uint8)
    table[0, :len(colors_rgb)] = colors_rgb
    return table if order == 'rgb' else np.ascontiguousarray(table[..., ::-1])


def color_mask(labels: Bytes, table: Bytes) -> Bytes:
    """
    Paint class ids.

    Parameters
    ----------
    labels : uint8[H, W]
    table : uint8[1, 256, 3]
        Of ``color_table``.

    Returns
    -------
    uint8[H, W, 3]
        In the table's channel order.

    """
    return cv2.LUT(cv2.merge([labels, labels, labels]), table)
