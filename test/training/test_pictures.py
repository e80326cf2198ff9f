"""The strip shows frames, labels and predictions side by side."""

from __future__ import annotations

import cv2
import numpy as np

from training.datasets import SyntheticDrive
from training.pictures import WIDTH_PX, chosen_frames, deployed_table, png, strip


def test_frames_are_spread_and_never_more_than_there_are() -> None:
    assert chosen_frames(SyntheticDrive(101), 3) == [0, 50, 100]
    assert chosen_frames(SyntheticDrive(2), 5) == [0, 1]
    assert chosen_frames(SyntheticDrive(9), 1) == [0]
    assert chosen_frames(SyntheticDrive(9), 0) == []


def test_strip_paints_labels_and_predictions() -> None:
    grey = np.full((160, 320, 3), 100, np.uint8)
    labels = np.zeros((160, 320), np.uint8)
    labels[:80] = 255
    found = np.ones((160, 320), np.uint8)
    tall = np.full((320, 320, 3), 60, np.uint8)
    picture = strip([(grey, labels), (tall, np.ones((320, 320), np.uint8))],
                    [found, np.ones((320, 320), np.uint8)], 2)
    assert picture.shape == (160 + 320, 3 * WIDTH_PX, 3)
    assert (picture[:160, :WIDTH_PX] == 100).all()
    assert (picture[:160, WIDTH_PX:2 * WIDTH_PX] == 50).all()  # class 0 and void are black
    assert (picture[:160, 2 * WIDTH_PX:] == (50 + 64, 50, 50)).all()  # class 1 is dark red
    assert (picture[160:, WIDTH_PX:] == (30 + 64, 30, 30)).all()
    decoded = cv2.imdecode(np.frombuffer(png(picture), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(decoded[..., ::-1], picture)


def test_void_stays_void_when_classes_are_merged() -> None:
    table = deployed_table((0, 1, 0, 2))
    assert table.dtype == np.uint8
    assert table[[0, 1, 2, 3, 255]].tolist() == [0, 1, 0, 2, 255]
