"""Colours of a report's pictures, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('cv2', reason='opencv-python-headless is not installed')

from training.report_pictures import (
    blended, difference_panels, errors, FALSE_RGB, MISSED_RGB, shrunk_hw, truth_panels, WRONG_RGB,
)

FRAME_RGB = np.full((1, 6, 3), 100, np.uint8)
TRUTH = np.array([[0, 1, 1, 0, 2, 255]], np.uint8)
PREDICTED = np.array([[0, 1, 0, 1, 0, 1]], np.uint8)
COLORS_RGB = ((0, 0, 0), (200, 0, 0), (0, 0, 200))
DARK = (50, 50, 50)


def test_errors_tell_missed_from_made_up() -> None:
    painted = errors(FRAME_RGB, TRUTH, PREDICTED, marked=1)[0]
    assert [tuple(pixel) for pixel in painted.tolist()] == [
        DARK, DARK, MISSED_RGB, FALSE_RGB, WRONG_RGB, DARK]


def test_errors_without_a_marked_class_are_all_alike() -> None:
    painted = errors(FRAME_RGB, TRUTH, PREDICTED, marked=None)[0]
    assert [tuple(pixel) for pixel in painted.tolist()] == [
        DARK, DARK, WRONG_RGB, WRONG_RGB, WRONG_RGB, DARK]


def test_black_classes_and_void_leave_the_frame_bare() -> None:
    painted = blended(FRAME_RGB, TRUTH, COLORS_RGB)[0]
    assert painted[0].tolist() == painted[5].tolist() == [100] * 3
    assert painted[1].tolist() == [150, 50, 50] and painted[4].tolist() == [50, 50, 150]


def test_difference_says_which_model_is_right() -> None:
    other = np.array([[1, 1, 1, 1, 1, 0]], np.uint8)
    panels = difference_panels(FRAME_RGB, TRUTH, PREDICTED, other, COLORS_RGB, ('a', 'b'))
    assert [panel.caption for panel in panels] == ['truth', 'a', 'b', 'difference']
    painted = panels[-1].rgb[0]
    # First right; equal; second right; equal, wrong; none right; void.
    assert [tuple(pixel) for pixel in painted.tolist()] == [
        MISSED_RGB, DARK, FALSE_RGB, DARK, WRONG_RGB, WRONG_RGB]


def test_pictures_are_small_and_keep_their_shape() -> None:
    assert shrunk_hw((720, 1280)) == (225, 400)
    assert shrunk_hw((30, 60)) == (30, 60)
    panels = truth_panels(np.zeros((720, 1280, 3), np.uint8), np.zeros((720, 1280), np.uint8),
                          np.zeros((720, 1280), np.uint8), COLORS_RGB, 1)
    assert {panel.rgb.shape for panel in panels} == {(225, 400, 3)}
    assert panels[0].data_uri().startswith('data:image/jpeg;base64,/9j/')
