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
import math
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from bisenet_ros.core.buffers import Allocate, Bytes, Scratch, new_array
from bisenet_ros.core.contract import Rgb, UNLABELED
from bisenet_ros.core.preprocess import Placement, Rect

#: Fixed point: scores are multiplied by this before they are upsampled.
FRACTION = 128

#: So far ahead (ln 509), the better of two logits has a probability of 1 in 255ths.
CERTAIN = 6.24

#: What third and further classes take from the confidence is computed at so many points for each
#: of the network's output, both ways.
FINER = 4

#: A mask of so many classes is made by comparing labels, of more by a look-up.
COMPARED_CLASSES = 4

#: Classes in so many colours are painted one by one, more by a look-up.
PAINTED_COLORS = 2

Scores = npt.NDArray[np.floating[Any]] | npt.NDArray[np.integer[Any]]


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

    Not thread-safe: it reuses its memory.

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
        self._scratch = Scratch()

    def decide(
        self, scores: Scores, size: tuple[int, int], wanted: Wanted,
        mask_classes: frozenset[int], min_confidence: float = 0.0,
        allocate: Allocate = new_array,
    ) -> Decision:
        """
        Upsample and decide.

        Parameters
        ----------
        scores : number[h, w, C]
            In quantization steps from the zero point: within -255..255, and so is the difference
            of any two. Integers, or a mean of them over time.
        size : (int, int)
            Width and height of the result in pixels.
        wanted : Wanted
        mask_classes : frozenset of int
            Ids that ``mask`` marks.
        min_confidence : float
            Probability in [0, 1] below which a pixel is 255 in labels and 0 in the mask.
        allocate : callable
            Gives the memory for ``labels``, ``mask`` and ``confidence``.

        Returns
        -------
        Decision
            Ties go to the lower id.

        """
        decide = self._decide_pair if self._num_classes == 2 else self._decide_many
        return decide(scores, size, wanted, mask_classes, min_confidence, allocate)

    def _decide_pair(
        self, scores: Scores, size: tuple[int, int], wanted: Wanted,
        mask_classes: frozenset[int], min_confidence: float, allocate: Allocate,
    ) -> Decision:
        shape = size[::-1]
        margin = self._scratch.array('margin', shape, np.int16)
        cv2.resize(
            _fixed_point(np.subtract(scores[..., 1], scores[..., 0], dtype=_wide(scores))), size,
            dst=margin, interpolation=cv2.INTER_LINEAR)
        # Of two classes the reported one is never below a half.
        unsure_steps = 0
        if min_confidence > 0.5:
            unsure_steps = int(np.count_nonzero(self._pair_table < min_confidence * 255))
        confidence = sure = None
        if wanted.confidence or unsure_steps:
            ahead = self._scratch.array('ahead', shape)
            cv2.convertScaleAbs(
                margin, dst=ahead, alpha=self._scale / FRACTION * 255 / self._span)
            if wanted.confidence:
                confidence = cv2.LUT(ahead, self._pair_table, dst=allocate('confidence', shape))
            if unsure_steps > 255:  # not even certainty is enough
                sure = ahead
                sure[:] = 0
            elif unsure_steps:
                sure = ahead
                _set_bytes(np.greater_equal, ahead, np.uint8(unsure_steps), sure)
        labels = mask = None
        if wanted.mask:
            mask = allocate('mask', shape)
            if mask_classes == {1}:
                _set_bytes(np.greater, margin, np.int16(0), mask)
            elif mask_classes == {0}:
                _set_bytes(np.less_equal, margin, np.int16(0), mask)
            else:
                mask[:] = 255 if mask_classes else 0
            if sure is not None:
                np.bitwise_and(mask, sure, out=mask)
        if wanted.labels:
            labels = allocate('labels', shape)
            np.greater(margin, np.int16(0), out=labels.view(bool))
            if sure is not None:
                np.bitwise_or(labels, np.invert(sure, out=sure), out=labels)
        return Decision(labels, mask, confidence)

    def _decide_many(
        self, scores: Scores, size: tuple[int, int], wanted: Wanted,
        mask_classes: frozenset[int], min_confidence: float, allocate: Allocate,
    ) -> Decision:
        shape, scratch = size[::-1], self._scratch
        planes = _fixed_point(np.array(np.moveaxis(scores, -1, 0), _wide(scores), order='C'))
        chosen = contenders(planes)
        best, plane, lower, second = (
            scratch.array(name, shape, np.int16) for name in ('best', 'plane', 'lower', 'second'))
        ahead = scratch.array('ahead', shape)
        labels = allocate('labels', shape) if wanted.labels else scratch.array('labels', shape)
        cv2.resize(planes[chosen[0]], size, dst=best, interpolation=cv2.INTER_LINEAR)
        labels[:] = chosen[0]
        with_confidence = wanted.confidence or min_confidence > 0
        for rank, index in enumerate(chosen[1:], 1):
            cv2.resize(planes[index], size, dst=plane, interpolation=cv2.INTER_LINEAR)
            # Ids rise, so the larger of the two labels is the later winner's.
            _set_bytes(np.greater, plane, best, ahead)
            np.maximum(labels, np.bitwise_and(ahead, np.uint8(index), out=ahead), out=labels)
            if with_confidence:
                np.minimum(plane, best, out=lower)
                if rank == 1:
                    second, lower = lower, second
                else:
                    np.maximum(second, lower, out=second)
            np.maximum(best, plane, out=best)
        confidence = None
        if with_confidence:
            confidence = (allocate('confidence', shape) if wanted.confidence
                          else scratch.array('confidence', shape))
            self._set_confidence_of_best(
                scores, chosen, best, second if len(chosen) > 1 else None, confidence)
        if confidence is not None and min_confidence > 0:
            # A whole number below a limit is below the limit rounded up.
            limit = np.uint8(math.ceil(min_confidence * 255))
            _set_bytes(np.less, confidence, limit, ahead)
            np.bitwise_or(labels, ahead, out=labels)
        mask = None
        if wanted.mask:
            mask = mark(labels, mask_classes, allocate('mask', shape), ahead)
        return Decision(
            labels if wanted.labels else None, mask, confidence if wanted.confidence else None)

    def _set_confidence_of_best(
        self, scores: Scores, chosen: list[int], best: npt.NDArray[np.int16],
        second: npt.NDArray[np.int16] | None, out: Bytes,
    ) -> None:
        """
        Write the probability of the best class, in 255ths.

        With logits it is 1 / (1 + exp(second - best) + rest). Where two classes meet, those two
        decide, at full size. What all others add is taken on a grid ``FINER`` times as fine as
        the network's output and upsampled from there: exact on that grid and where others are far
        behind, an estimate where three or more classes meet between its points. That is one
        exponential per pixel, not one per class.

        """
        if self._kind == 'probabilities':
            cv2.convertScaleAbs(best, dst=out, alpha=self._scale / FRACTION * 255)
            return
        total = self._scratch.array('total', best.shape, np.float32)
        cv2.resize(
            self._all_but_the_second(scores, chosen, best.shape), best.shape[::-1], dst=total,
            interpolation=cv2.INTER_LINEAR)
        if second is not None:
            gap = self._scratch.array('gap', best.shape, np.float32)
            cv2.subtract(second, best, dst=gap, dtype=cv2.CV_32F)
            gap *= np.float32(self._scale / FRACTION)
            total += cv2.exp(gap, dst=gap)
        cv2.convertScaleAbs(np.divide(np.float32(255), total, out=total), dst=out)

    def _all_but_the_second(
        self, scores: Scores, chosen: list[int], full: tuple[int, ...],
    ) -> npt.NDArray[np.float32]:
        """Return the sum of exp(score - best) over all classes but the second, on a finer grid."""
        shape = (min(full[0], FINER * scores.shape[0]), min(full[1], FINER * scores.shape[1]))
        planes = self._scratch.array('planes', (scores.shape[-1], *shape), np.float32)
        for index, plane in enumerate(planes):
            cv2.resize(
                np.multiply(scores[..., index], self._scale, dtype=np.float32), shape[::-1],
                dst=plane, interpolation=cv2.INTER_LINEAR)
        first, second, lower = (
            self._scratch.array(name, shape, np.float32) for name in ('one', 'two', 'lower_two'))
        first[:], second[:] = planes[chosen[0]], -np.inf
        for index in chosen[1:]:
            np.maximum(second, np.minimum(first, planes[index], out=lower), out=second)
            np.maximum(first, planes[index], out=first)
        planes -= first
        flat = planes.reshape(len(planes), -1)
        cv2.exp(flat, dst=flat)
        total = planes.sum(0)
        if len(chosen) > 1:
            second -= first
            total -= cv2.exp(second, dst=second)
        return np.maximum(total, 1, out=total)


def _wide(scores: Scores) -> type[np.float32] | type[np.int16]:
    """Return the type that holds ``FRACTION`` times a score, or a difference of two."""
    return np.float32 if scores.dtype.kind == 'f' else np.int16


def _fixed_point(scores: npt.NDArray[Any]) -> npt.NDArray[np.int16]:
    """Multiply scores by ``FRACTION``, in their own memory."""
    scores *= FRACTION
    if scores.dtype == np.int16:
        return scores
    return np.clip(np.round(scores), -32767, 32767).astype(np.int16)


def _set_bytes(compare: Callable[..., Any], left: Any, right: Any, out: Bytes) -> None:
    """Write 255 where a comparison holds, 0 elsewhere; any shape, unlike ``cv2.compare``."""
    compare(left, right, out=out.view(bool))
    np.negative(out, out=out)


def mark(labels: Bytes, classes: frozenset[int], out: Bytes, scratch: Bytes) -> Bytes:
    """Write 255 where a label is one of some classes, 0 elsewhere; return ``out``."""
    if len(classes) > COMPARED_CLASSES:
        table = np.zeros(256, np.uint8)
        table[list(classes)] = 255
        return cv2.LUT(labels, table, dst=out)
    out[:] = 0
    for index in classes:
        _set_bytes(np.equal, labels, np.uint8(index), scratch)
        np.bitwise_or(out, scratch, out=out)
    return out


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
    mask_classes: frozenset[int], allocate: Allocate = new_array,
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
    allocate : callable
        Gives the memory for ``labels`` and ``mask``.

    Returns
    -------
    Decision

    """
    known = np.where((ids >= 0) & (ids < num_classes), ids, UNLABELED).astype(np.uint8)
    table = np.zeros(256, np.uint8)
    table[list(mask_classes)] = 255

    def enlarged(name: str, small: Bytes) -> Bytes:
        out = allocate(name, size[::-1])
        return cv2.resize(small, size, dst=out, interpolation=cv2.INTER_NEAREST_EXACT)

    return Decision(
        enlarged('labels', known) if wanted.labels else None,
        enlarged('mask', table[known]) if wanted.mask else None)


def output_rect(place: Placement, output_hw: tuple[int, int]) -> Rect:
    """Return where in a result of the whole frame the part that the network saw lies."""
    (frame_h, frame_w), (output_h, output_w) = place.frame_hw, output_hw
    source = place.source
    left, top = round(source.x * output_w / frame_w), round(source.y * output_h / frame_h)
    right = round((source.x + source.width) * output_w / frame_w)
    bottom = round((source.y + source.height) * output_h / frame_h)
    left, top = min(left, output_w - 1), min(top, output_h - 1)
    return Rect(left, top, max(right - left, 1), max(bottom - top, 1))


def expand(
    decision: Decision, rect: Rect, output_hw: tuple[int, int], allocate: Allocate = new_array,
) -> Decision:
    """Put a result of part of the frame into the whole: unlabeled, unmasked, 0 outside."""
    if (rect.height, rect.width) == output_hw:
        return decision

    def grown(name: str, part: Bytes | None, outside: int) -> Bytes | None:
        if part is None:
            return None
        whole = allocate(name, output_hw)
        whole[:] = outside
        rect.of(whole)[:] = part
        return whole

    return Decision(
        grown('labels', decision.labels, UNLABELED), grown('mask', decision.mask, 0),
        grown('confidence', decision.confidence, 0))


def color_table(colors_rgb: tuple[Rgb, ...], order: str = 'rgb') -> Bytes:
    """Return ``uint8[1, 256, 3]`` from class id to colour; unused ids and 255 are black."""
    table = np.zeros((1, 256, 3), np.uint8)
    table[0, :len(colors_rgb)] = colors_rgb
    return table if order == 'rgb' else np.ascontiguousarray(table[..., ::-1])


def color_mask(
    labels: Bytes, table: Bytes, out: Bytes | None = None, allocate: Allocate = new_array,
) -> Bytes:
    """
    Paint class ids.

    Parameters
    ----------
    labels : uint8[H, W]
    table : uint8[1, 256, 3]
        Of ``color_table``.
    out : uint8[H, W, 3] or None
        Where to paint; None is a new array.
    allocate : callable
        Gives memory for the channels on their way.

    Returns
    -------
    uint8[H, W, 3]
        In the table's channel order.

    """
    if out is None:
        out = new_array('color_mask', (*labels.shape, 3))
    colored = np.flatnonzero(table[0].any(1))
    if colored.size > PAINTED_COLORS:
        return cv2.applyColorMap(labels, table.reshape(256, 1, 3), dst=out)
    here = allocate('class', labels.shape)
    channels = [allocate(f'channel {channel}', labels.shape) for channel in range(3)]
    part = allocate('part of a channel', labels.shape)
    for index in colored:
        _set_bytes(np.equal, labels, np.uint8(index), here)
        for channel, value in zip(channels, table[0, index], strict=True):
            if index == colored[0]:
                np.bitwise_and(here, value, out=channel)
            else:
                np.bitwise_or(channel, np.bitwise_and(here, value, out=part), out=channel)
    if not colored.size:
        out[:] = 0
        return out
    return cv2.merge(channels, dst=out)
