"""Where frames start anew: another origin, a stamp that goes back, a pause; and where not."""

from __future__ import annotations

import pytest

from bisenet_ros.core.continuity import Continuity

PERIOD_S = 0.1


def breaks(times_s, stamps_s, origins=None):
    """Return the numbers of the frames that start anew."""
    continuity = Continuity()
    origins = origins or ['camera'] * len(times_s)
    return [number for number, frame in enumerate(zip(times_s, stamps_s, origins, strict=True))
            if continuity.breaks(*frame)]


def regular(count, period_s=PERIOD_S):
    return [1000 + period_s * number for number in range(count)]


@pytest.mark.parametrize('period_s', [0.001, PERIOD_S, 1.9])
def test_only_the_first_of_a_steady_stream(period_s):
    assert breaks(regular(9, period_s), regular(9, period_s)) == [0]


def test_stamps_that_say_nothing():
    assert breaks(regular(9), [0.0] * 9) == [0]


def test_frames_that_are_lost_or_late():
    times_s = [time_s for number, time_s in enumerate(regular(30)) if number not in range(5, 15)]
    assert breaks(times_s, times_s) == [0]


def test_a_stamp_that_goes_back():
    assert breaks(regular(6), [5.0, 5.5, 6.0, 5.0, 5.5, 6.0]) == [0, 3]


def test_frames_that_overtake_each_other():
    assert breaks(regular(6), [5.0, 5.2, 5.1, 5.4, 5.3, 5.5]) == [0]


def test_a_pause_whatever_the_stamps_say():
    times_s = [0.0, 0.1, 0.2, 3.0, 3.1]
    assert breaks(times_s, times_s) == [0, 3]
    assert breaks(times_s, [0.0] * 5) == [0, 3]


def test_a_bag_that_is_wound_forward():
    assert breaks(regular(5), [5.0, 5.1, 65.0, 65.1, 65.2]) == [0, 2]


def test_another_origin():
    origins = ['left', 'left', 'right', 'right']
    assert breaks(regular(4), regular(4), origins) == [0, 2]


def test_a_camera_slower_than_a_pause_is_believed_from_its_third_frame_on():
    assert breaks(regular(6, 5.0), regular(6, 5.0)) == [0, 1]


def test_a_pause_right_behind_another_start():
    assert breaks(regular(3), [500.0, 5.0, 65.0]) == [0, 1, 2]
