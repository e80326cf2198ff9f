"""The image outputs: what they need, and their pixels."""

from __future__ import annotations

import numpy as np
import pytest

from bisenet_ros.core.contract import UNLABELED, ModelContract
from bisenet_ros.core.outputs import ENCODINGS, OutputPainter, overlay
from bisenet_ros.core.postprocess import Wanted, color_table
from bisenet_ros.core.segmenter import Segmentation, Timings

RED, PURPLE = (200, 0, 0), (128, 64, 255)  # RGB

CONTRACT = ModelContract(
    input_hw=(32, 64), channels='rgb', input_scale=(1.0,) * 3, input_mean=(0.0,) * 3,
    output_kind='logits', output_stride=8, class_names=('background', 'road'),
    class_colors_rgb=(RED, PURPLE))

RESULT = Segmentation(
    labels=np.uint8([[0, 1, UNLABELED]]), confidence=np.uint8([[200, 250, 130]]),
    mask=np.uint8([[0, 255, 0]]), timings=Timings(0.0, 0.0, 0.0))

BGR = np.uint8([[(10, 20, 30), (40, 50, 60), (70, 80, 90)]])


@pytest.mark.parametrize(('names', 'wanted'), [
    ((), Wanted(labels=False, mask=False, confidence=False)),
    (('mask',), Wanted(labels=False, mask=True, confidence=False)),
    (('labels',), Wanted(labels=True, mask=False, confidence=False)),
    (('confidence',), Wanted(labels=False, mask=False, confidence=True)),
    (('color_mask',), Wanted(labels=True, mask=False, confidence=False)),
    (('overlay',), Wanted(labels=True, mask=True, confidence=False)),
    (tuple(ENCODINGS), Wanted(labels=True, mask=True, confidence=True)),
])
def test_only_what_is_listened_to_is_computed(names: tuple[str, ...], wanted: Wanted) -> None:
    assert OutputPainter.wanted(names) == wanted
    assert OutputPainter.wanted(set(names)) == wanted


def test_every_output_by_eye() -> None:
    painted = OutputPainter(CONTRACT).paint(tuple(ENCODINGS), RESULT, BGR, 0.5)
    assert list(painted) == list(ENCODINGS)
    assert painted['mask'] is RESULT.mask
    assert painted['labels'] is RESULT.labels
    assert painted['confidence'] is RESULT.confidence
    np.testing.assert_array_equal(painted['color_mask'], [[RED, PURPLE, (0, 0, 0)]])  # rgb8
    # bgr8: only the masked pixel is tinted, half of it
    expected = BGR.copy()
    expected[0, 1] = ((40 + 255) / 2 + 0.5, (50 + 64) / 2, (60 + 128) / 2)
    np.testing.assert_array_equal(painted['overlay'], expected)


@pytest.mark.parametrize('encoding', sorted(set(ENCODINGS.values())))
def test_encodings_fit_the_arrays(encoding: str) -> None:
    painted = OutputPainter(CONTRACT).paint(tuple(ENCODINGS), RESULT, BGR, 0.5)
    for name, array in painted.items():
        if ENCODINGS[name] == encoding:
            assert array.dtype == np.uint8
            assert array.shape == ((1, 3) if encoding == 'mono8' else (1, 3, 3))


@pytest.mark.parametrize(('alpha', 'pixel'), [(0.0, (40, 50, 60)), (1.0, PURPLE[::-1])])
def test_overlay_from_nothing_to_all(alpha: float, pixel: tuple[int, int, int]) -> None:
    painted = OutputPainter(CONTRACT).paint(('overlay',), RESULT, BGR, alpha)['overlay']
    np.testing.assert_array_equal(painted[0], [BGR[0, 0], pixel, BGR[0, 2]])


def test_overlay_is_a_new_image() -> None:
    before = BGR.copy()
    painted = OutputPainter(CONTRACT).paint(('overlay',), RESULT, BGR, 1.0)['overlay']
    np.testing.assert_array_equal(BGR, before)
    assert not np.shares_memory(painted, BGR)


def test_overlay_takes_any_strides_and_one_pixel() -> None:
    mirrored = BGR[:, ::-1].copy()[:, ::-1]
    painter = OutputPainter(CONTRACT)
    np.testing.assert_array_equal(
        painter.paint(('overlay',), RESULT, mirrored, 0.5)['overlay'],
        painter.paint(('overlay',), RESULT, BGR, 0.5)['overlay'])
    one = Segmentation(np.uint8([[1]]), None, np.uint8([[255]]), RESULT.timings)
    drawn = painter.paint(('overlay', 'color_mask'), one, BGR[:, :1], 1.0)
    np.testing.assert_array_equal(drawn['overlay'], [[PURPLE[::-1]]])
    np.testing.assert_array_equal(drawn['color_mask'], [[PURPLE]])


def test_frame_of_another_size_is_resized_to_the_mask() -> None:
    big = np.full((40, 60, 3), (10, 20, 30), np.uint8)
    labels, mask = np.ones((20, 30), np.uint8), np.zeros((20, 30), np.uint8)
    mask[:, 15:] = 255
    drawn = overlay(big, labels, mask, color_table((RED, PURPLE), 'bgr'), 1.0)
    expected = np.full((20, 30, 3), (10, 20, 30), np.uint8)
    expected[:, 15:] = PURPLE[::-1]
    np.testing.assert_array_equal(drawn, expected)


def test_nothing_is_painted_for_nobody() -> None:
    assert OutputPainter(CONTRACT).paint((), RESULT, None, 0.5) == {}
