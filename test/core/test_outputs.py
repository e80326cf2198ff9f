"""The image outputs: what they need, and their pixels."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from bisenet_ros.core.buffers import Bytes
from bisenet_ros.core.contract import UNLABELED, ModelContract, palette
from bisenet_ros.core.outputs import ENCODINGS, OutputPainter, overlay
from bisenet_ros.core.postprocess import Wanted, color_table
from bisenet_ros.core.preprocess import CHANNELS
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


def random_result(hw: tuple[int, int], classes: int) -> Segmentation:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes + 1, hw).astype(np.uint8)
    labels[labels == classes] = UNLABELED
    mask = (labels == 1) * np.uint8(255)
    mask[:hw[0] // 3] = 0  # sky
    return Segmentation(labels, None, mask, RESULT.timings)


def plain_overlay(bgr: Bytes, result: Segmentation, colors_bgr: Bytes, alpha: float) -> Bytes:
    """Blend every pixel, then take the marked ones."""
    colors = np.zeros((256, 3), np.uint8)
    colors[:len(colors_bgr)] = colors_bgr
    tinted = cv2.addWeighted(bgr, 1 - alpha, colors[result.labels], alpha, 0)
    return np.where(result.mask[..., None] > 0, tinted, bgr)  # type: ignore[index]


@pytest.mark.parametrize('alpha', [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize('classes', [2, 5])
@pytest.mark.parametrize('channels', CHANNELS)
def test_bit_for_bit_the_plain_way(channels: str, classes: int, alpha: float) -> None:
    colors = palette(classes)
    contract = dataclasses.replace(
        CONTRACT, class_names=tuple('abcde'[:classes]), class_colors_rgb=colors)
    painter = OutputPainter(contract)
    for hw in ((61, 97), (7, 5), (61, 97)):
        depth = {'gray': (), 'rgba': (4,), 'bgra': (4,)}.get(channels, (3,))
        frame = np.random.default_rng(1).integers(0, 256, (*hw, *depth), np.uint8)
        bgr = {'bgr': lambda frame: frame, 'rgb': lambda frame: frame[..., ::-1],
               'bgra': lambda frame: frame[..., :3], 'rgba': lambda frame: frame[..., 2::-1],
               'gray': lambda frame: np.stack([frame] * 3, -1)}[channels](frame)
        result = random_result(hw, classes)
        painted = painter.paint(
            ('overlay', 'color_mask'), result, frame, alpha, channels=channels)
        np.testing.assert_array_equal(painted['overlay'], plain_overlay(
            np.ascontiguousarray(bgr), result, np.uint8(colors)[:, ::-1], alpha))
        table = np.zeros((256, 3), np.uint8)
        table[:classes] = colors
        np.testing.assert_array_equal(painted['color_mask'], table[result.labels])


def test_a_mask_without_a_pixel_leaves_the_frame_alone() -> None:
    result = Segmentation(
        np.zeros((1, 3), np.uint8), None, np.zeros((1, 3), np.uint8), RESULT.timings)
    painted = OutputPainter(CONTRACT).paint(('overlay',), result, BGR, 1.0)
    np.testing.assert_array_equal(painted['overlay'], BGR)


def test_pictures_are_painted_where_they_are_wanted() -> None:
    memory: dict[str, Bytes] = {}

    def allocate(name: str, shape: tuple[int, ...]) -> Bytes:
        return memory.setdefault(name, np.full(shape, 77, np.uint8))

    painter = OutputPainter(CONTRACT)
    expected = painter.paint(tuple(ENCODINGS), RESULT, BGR, 0.5)
    painted = painter.paint(tuple(ENCODINGS), RESULT, BGR, 0.5, allocate=allocate)
    assert set(memory) == {'color_mask', 'overlay'}
    for name, array in memory.items():
        assert painted[name] is array
        np.testing.assert_array_equal(array, expected[name])
        assert not np.shares_memory(array, expected[name])


@pytest.mark.parametrize(('name', 'missing'), [
    ('labels', 'labels'), ('color_mask', 'labels'), ('overlay', 'frame'), ('mask', 'mask')])
def test_what_is_missing_is_named(name: str, missing: str) -> None:
    result = Segmentation(
        None if missing == 'labels' else RESULT.labels, None,
        None if missing == 'mask' else RESULT.mask, RESULT.timings)
    with pytest.raises(ValueError, match=rf"{missing}: found none, expected what wanted\(\['"):
        OutputPainter(CONTRACT).paint((name,), result, None, 0.5)


def test_nothing_is_painted_for_nobody() -> None:
    assert OutputPainter(CONTRACT).paint((), RESULT, None, 0.5) == {}
