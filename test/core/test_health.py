"""What the stream's numbers mean: gaps, rates, and every level with its reason."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
import pytest

from bisenet_ros.core.health import (
    Counts, Level, Percentiles, Report, StreamContext, StreamGaps, StreamHealth,
)

RUNNING = StreamContext(
    active=True, subscribed=True, state='active', image_topic='/camera/image', device='cpu',
    model='road.tflite')


def context(**changes: object) -> StreamContext:
    return dataclasses.replace(RUNNING, **changes)  # type: ignore[arg-type]


# -- gaps ----------------------------------------------------------------------------------------


def missing(stamps_s: Iterable[float]) -> int:
    gaps = StreamGaps()
    counted = sum(gaps.stamp(float(stamp_s)) for stamp_s in stamps_s)
    assert counted == gaps.missing
    return counted


def beat(count: int, rate_hz: float = 30.0, start_s: float = 1e9) -> npt.NDArray[np.float64]:
    return start_s + np.arange(count) / rate_hz


@pytest.mark.parametrize('lost', [[50], [50, 51, 52], [40, 60, 61, 80], [98]])
@pytest.mark.parametrize('rate_hz', [5.0, 30.0, 120.0])
def test_lost_frames_are_counted(lost: list[int], rate_hz: float) -> None:
    assert missing(np.delete(beat(100, rate_hz), lost)) == len(lost)


@pytest.mark.parametrize('jitter_s', [0.0, 0.003])
@pytest.mark.parametrize(('share', 'tolerance'), [(0.0, 0.0), (0.01, 0.0), (0.1, 0.02),
                                                  (0.3, 0.05)])
def test_share_of_random_losses(share: float, tolerance: float, jitter_s: float) -> None:
    rng = np.random.default_rng(4)
    stamps_s = beat(3000) + rng.uniform(-jitter_s, jitter_s, 3000)
    kept = rng.random(3000) >= share
    kept[-1] = True  # what is lost at the end is not lost yet
    assert missing(stamps_s[kept]) == pytest.approx((~kept).sum(), rel=tolerance, abs=0)


@pytest.mark.parametrize('jitter_s', [0.0, 0.002])
@pytest.mark.parametrize(('share', 'tolerance'), [(0.5, 0.02), (0.7, 0.05), (0.82, 0.3)])
def test_heavy_losses_are_counted(share: float, tolerance: float, jitter_s: float) -> None:
    # The default transport was seen to lose 245 of 300 frames: most neighbours are none then.
    rng = np.random.default_rng(4)
    stamps_s = beat(3000) + rng.uniform(-jitter_s, jitter_s, 3000)
    kept = rng.random(3000) >= share
    kept[-1] = True
    found = missing(stamps_s[kept])
    assert found == pytest.approx((~kept).sum(), rel=tolerance)


def test_of_nearly_all_lost_many_are_counted_and_none_too_many() -> None:
    rng = np.random.default_rng(4)
    kept = rng.random(3000) >= 0.9
    found = missing(beat(3000)[kept])
    assert 0.2 * (~kept).sum() < found <= (~kept).sum()


@pytest.mark.parametrize('pattern_s', [(0.033, 0.050), (0.027, 0.040), (0.03, 0.03, 0.04)])
def test_uneven_streams_lack_nothing(pattern_s: tuple[float, ...]) -> None:
    """A film of 24 frames on a screen of 60, a camera with a lazy timer."""
    assert missing(np.cumsum(np.tile(pattern_s, 100))) == 0


def test_late_frames_that_are_followed_by_early_ones_are_no_heavy_losses() -> None:
    rng = np.random.default_rng(4)
    stamps_s = beat(3000) + rng.exponential(0.006, 3000).clip(0, 0.030)
    assert missing(stamps_s) < 0.02 * 3000


def test_late_frame_is_taken_for_missing_until_the_next_is_early() -> None:
    gaps = StreamGaps()
    stamps_s = [*beat(30, 10.0, 0.0), 3.07, 3.1, 3.2, 3.57, 3.6]
    told = [gaps.stamp(stamp_s) for stamp_s in stamps_s]
    assert told == [0] * 30 + [1, -1, 0, 3, -1]
    assert gaps.missing == 2


@pytest.mark.parametrize('pause_s', [1.05, 1.5, 2.0, 5.0])
@pytest.mark.parametrize('rate_hz', [10.0, 30.0])
def test_pause_of_the_camera_is_no_loss(pause_s: float, rate_hz: float) -> None:
    first = beat(60, rate_hz)
    assert missing([*first, *beat(60, rate_hz, first[-1] + pause_s)]) == 0


def test_one_lost_of_a_slow_stream_is_no_pause() -> None:
    assert missing(np.delete(beat(40, 1.0), [20, 30, 31])) == 3


def test_steady_streams_lack_nothing() -> None:
    rng = np.random.default_rng(4)
    assert missing(beat(300) + rng.uniform(-0.005, 0.005, 300)) == 0
    assert missing(beat(300, 0.3)) == 0  # slower than a pause is long
    assert missing([]) == 0
    assert missing([5.0]) == 0


def test_rhythm_is_known_after_five_intervals() -> None:
    gaps = StreamGaps()
    for stamp_s in beat(5, 10.0, 0.0):
        gaps.stamp(stamp_s)
        assert gaps.period_s is None
    gaps.stamp(0.5)
    assert gaps.period_s == pytest.approx(0.1)


@pytest.mark.parametrize('jump_s', [-1e9, -10.0, -0.001, 0.0, 2.5, 3600.0, 1e9])
def test_bag_loops_and_clock_jumps_count_nothing(jump_s: float) -> None:
    first = beat(60)
    second = beat(60, start_s=first[-1] + jump_s)
    assert missing([*first, *second]) == 0
    assert missing([*first, *np.delete(second, 30)]) == 1  # and it goes on as before


def test_rhythm_is_learnt_anew_behind_a_jump() -> None:
    for jump_s in (-10.0, 10.0):
        gaps = StreamGaps()
        for stamp_s in beat(60, start_s=0.0):
            gaps.stamp(stamp_s)
        gaps.stamp(2.0 + jump_s)
        assert gaps.period_s is None


def test_looping_bag_with_losses() -> None:
    loop = np.delete(beat(60, start_s=0.0), [20, 21])
    assert missing([*loop, *loop, *loop]) == 6


def test_new_rate_is_learnt() -> None:
    fast, slow = beat(60, 30.0, 0.0), beat(60, 10.0, 2.0)
    assert missing([*fast, *slow]) == 0
    gaps = StreamGaps()
    for stamp_s in [*fast, *slow]:
        gaps.stamp(stamp_s)
    assert gaps.period_s == pytest.approx(0.1)


def worst_rise(intervals_s: Iterable[float]) -> int:
    """Return by how much the count ever stands above what it was 30 frames before."""
    gaps = StreamGaps()
    counts = [0]
    for stamp_s in np.cumsum(list(intervals_s)):
        gaps.stamp(float(stamp_s))
        counts.append(gaps.missing)
    return max(now - before for before, now in zip(counts, counts[30:], strict=False))


@pytest.mark.parametrize('slow_s', [1 / 20, 1 / 15, 1 / 10, 1 / 7.5])
@pytest.mark.parametrize(('fast', 'slow'), [(50, 50), (20, 6), (7, 30)])
def test_exposure_that_halves_the_rate_for_a_while_loses_nothing(
    fast: int, slow: int, slow_s: float,
) -> None:
    intervals_s = [*[1 / 30] * fast, *[slow_s] * slow] * 20
    assert missing(np.cumsum(intervals_s)) == 0
    assert worst_rise(intervals_s) <= round(slow_s * 30) - 1  # the first looks like a loss


def test_every_second_frame_lost_for_a_moment_is_counted() -> None:
    stamps_s = beat(200)
    for count in range(1, StreamGaps.RUN):
        lost = 100 + 2 * np.arange(count)
        assert missing(np.delete(stamps_s, lost)) == count


@pytest.mark.parametrize('kind', ['poisson', 'slow poisson', 'uniform', 'gamma', 'motion'])
def test_streams_without_a_period_lack_nothing(kind: str) -> None:
    rng = np.random.default_rng(0)
    intervals_s = {
        'poisson': rng.exponential(0.1, 3000),
        'slow poisson': rng.exponential(0.4, 3000),
        'uniform': rng.uniform(0.05, 0.25, 3000),  # light decides
        'gamma': rng.gamma(4, 1 / 120, 3000),
        'motion': 0.05 * np.exp(rng.normal(0, 0.6, 3000)),  # an encoder triggers
    }[kind]
    assert missing(np.cumsum(intervals_s)) <= 0.001 * 3000  # a few may fit one by chance


# -- percentiles ---------------------------------------------------------------------------------


def test_percentiles() -> None:
    values = Percentiles(window=100)
    assert not values
    for value in range(1000):
        values.add(value)
    assert values
    assert values.at(0.0) == 900  # the window's
    assert values.at(0.5) == 950
    assert values.at(0.95) == 995
    assert values.at(1.0) == 999
    values.clear()
    assert not values
    values.add(7.0)
    assert values.at(0.5) == values.at(0.95) == 7.0


# -- reports -------------------------------------------------------------------------------------


class Stream:
    """A health with a clock of its own, already one report old."""

    def __init__(self) -> None:
        self.health = StreamHealth()
        self.now_s = 100.0
        self.health.reports(self.now_s, RUNNING)

    def receive(self, count: int, work: Callable[[], object] | None = None,
                lose: Iterable[int] = ()) -> None:
        """Let frames arrive at 30 Hz; do ``work`` for each."""
        lost = set(lose)
        for index in range(count):
            self.now_s += 1 / 30
            if index not in lost:
                self.health.arrived(self.now_s, self.now_s)
                if work:
                    work()

    def publish(self) -> None:
        self.health.published(0.020, 0.010, 0.040)

    def reports(self, **changes: object) -> tuple[Report, Report]:
        return self.health.reports(self.now_s, context(**changes))


@pytest.fixture
def stream() -> Stream:
    return Stream()


def told(report: Report) -> tuple[Level, str]:
    return report.level, report.message


def test_sound_stream(stream: Stream) -> None:
    stream.receive(30, stream.publish)
    received, inference = stream.reports()
    assert (received.name, inference.name) == ('input', 'inference')
    assert told(received) == (Level.OK, 'receiving')
    assert told(inference) == (Level.OK, 'segmenting')
    assert dict(received.values) == {
        'topic': '/camera/image', 'input rate (Hz)': '30.0', 'frames received': '30',
        'frames missing in the stream': '0', 'frames malformed': '0'}
    assert dict(inference.values) == {
        'output rate (Hz)': '30.0', 'drop rate (Hz)': '0.0', 'frames published': '30',
        'frames dropped': '0', 'frames skipped by max_rate_hz': '0',
        'frames skipped without a listener': '0', 'frames failed': '0',
        'inference time median (ms)': '10.0', 'inference time p95 (ms)': '10.0',
        'latency median (ms)': '20.0', 'latency p95 (ms)': '20.0',
        'output age median (ms)': '40.0', 'output age p95 (ms)': '40.0',
        'device': 'cpu', 'model': 'road.tflite'}


def test_first_report_knows_no_rate() -> None:
    health = StreamHealth()
    health.arrived(1.0, 1.0)
    received, inference = health.reports(2.0, RUNNING)
    assert dict(received.values)['input rate (Hz)'] == 'unknown'
    assert dict(inference.values)['output rate (Hz)'] == 'unknown'
    assert not any('median' in key for key, _ in inference.values)  # nothing measured yet


def test_rates_are_of_the_time_since_the_last_report(stream: Stream) -> None:
    stream.receive(30, stream.publish)
    stream.reports()
    stream.receive(15, stream.publish)
    stream.now_s += 0.5
    received, inference = stream.reports()
    assert dict(received.values)['input rate (Hz)'] == '15.0'
    assert dict(received.values)['frames received'] == '45'  # totals go on
    assert dict(inference.values)['output rate (Hz)'] == '15.0'


@pytest.mark.parametrize('state', ['inactive', 'unconfigured', 'm.json: cannot be read'])
def test_inactive_node_tells_its_state_and_blames_nobody(stream: Stream, state: str) -> None:
    stream.receive(5, lambda: stream.health.failed('x'))
    stream.now_s += 10
    for report in stream.reports(active=False, subscribed=False, state=state):
        assert told(report) == (Level.OK, state)


def test_without_listeners_silence_is_as_it_should_be(stream: Stream) -> None:
    stream.now_s += 60
    received, inference = stream.reports(subscribed=False)
    assert told(received) == (
        Level.OK, 'nobody subscribes to an output: the input is not subscribed')
    assert told(inference) == (Level.OK, 'idle')


def test_no_publisher_or_other_qos_is_told_in_the_nodes_words(stream: Stream) -> None:
    stream.now_s += 1
    problem = '/camera/image: no publisher'
    assert told(stream.reports(input_problem=problem)[0]) == (Level.WARN, problem)


def test_problem_of_another_publisher_does_not_matter_while_frames_arrive(
    stream: Stream,
) -> None:
    stream.receive(30, stream.publish)
    assert told(stream.reports(input_problem='one publisher is incompatible')[0]) == (
        Level.OK, 'receiving')


def test_silent_publisher(stream: Stream) -> None:
    silence = Level.WARN, 'publishers on /camera/image, but no frame arrives'
    stream.now_s += 1
    assert told(stream.reports()[0]) == silence  # never a frame
    stream.receive(30, stream.publish)
    assert stream.reports()[0].level == Level.OK
    stream.now_s += 0.9
    assert stream.reports()[0].level == Level.OK  # slow cameras are no fault
    stream.now_s += 1.5
    assert told(stream.reports()[0]) == silence
    stream.receive(1, stream.publish)
    assert stream.reports()[0].level == Level.OK


@pytest.mark.parametrize('rate_hz', [0.7, 0.33, 0.1])
def test_slow_camera_is_not_silent(rate_hz: float) -> None:
    health, levels, now_s = StreamHealth(), [], 0.0
    arrivals_s = list(np.arange(20) / rate_hz)
    while arrivals_s:
        now_s += 1.0
        while arrivals_s and arrivals_s[0] <= now_s:
            health.arrived(arrivals_s[0], 5.0)  # its stamps do not matter
            del arrivals_s[0]
        levels.append(health.reports(now_s, RUNNING)[0].level)
    assert set(levels[int(1 / rate_hz) + 1:]) == {Level.OK}
    # one that stops is told
    silence = health.reports(now_s + 4 / rate_hz, RUNNING)[0]
    assert told(silence) == (Level.WARN, 'publishers on /camera/image, but no frame arrives')


@pytest.mark.parametrize('before_s', [0.1, 1.0])
def test_camera_that_starts_or_becomes_slow_is_not_silent(before_s: float) -> None:
    health, now_s = StreamHealth(), 0.0
    for second in np.arange(0, 5, before_s) if before_s < 1 else [0.0]:
        health.arrived(float(second), float(second))
        now_s = float(second)
    levels = []
    for report in range(1, 20):
        if report % 2 == 0:
            health.arrived(now_s + report, now_s + report)
        levels.append(health.reports(now_s + report, RUNNING)[0].level)
    # One that was fast has stopped, for all one knows, until it goes on slowly.
    assert set(levels[2 if before_s < 1 else 0:]) == {Level.OK}


def test_slow_camera_that_is_subscribed_again_is_waited_for() -> None:
    health = StreamHealth()
    for second in (0.0, 4.0, 8.0):
        health.arrived(second, second)
    health.reports(8.0, RUNNING)
    health.restart()
    assert told(health.reports(30.0, context(subscribed_for_s=3.0))[0]) == (
        Level.OK, 'waiting for the first frame')
    assert health.reports(40.0, context(subscribed_for_s=13.0))[0].level == Level.WARN


def test_one_long_silence_makes_no_camera_slow(stream: Stream) -> None:
    stream.receive(30)
    stream.now_s += 600
    stream.receive(2)
    stream.reports()
    stream.now_s += 1.5
    assert stream.reports()[0].level == Level.WARN


def test_some_or_all_frames_malformed(stream: Stream) -> None:
    stream.receive(20, stream.publish)
    stream.receive(3, lambda: stream.health.malformed('/camera/image: data is short'))
    received, inference = stream.reports()
    assert told(received) == (
        Level.WARN, '3 malformed frames: /camera/image: data is short')
    assert dict(received.values)['frames malformed'] == '3'
    assert dict(inference.values)['last fault'] == '/camera/image: data is short'
    stream.receive(5, lambda: stream.health.malformed('bad jpeg'))
    assert told(stream.reports()[0]) == (Level.ERROR, '5 malformed frames: bad jpeg')
    stream.receive(5, stream.publish)
    assert stream.reports()[0].level == Level.OK  # over


@pytest.mark.parametrize(('good', 'level'), [(False, Level.ERROR), (True, Level.WARN)])
def test_malformed_frames_of_a_slow_camera_do_not_come_and_go(
    stream: Stream, good: bool, level: Level,
) -> None:
    levels = []
    for number in range(20):
        stream.now_s += 0.7
        stream.reports()
        stream.now_s += 0.8
        stream.health.arrived(stream.now_s, stream.now_s)
        if good and number % 2:
            stream.publish()
        else:
            stream.health.malformed('bad jpeg')
        levels.append(stream.reports()[0].level)
    assert set(levels[3:]) == {level}
    for _ in range(3):
        stream.receive(1, stream.publish)
    assert stream.reports()[0].level == Level.OK


@pytest.mark.parametrize('work', ['nothing', 'malformed'])
def test_inference_without_a_frame_claims_none(stream: Stream, work: str) -> None:
    stream.receive(30, stream.publish)
    assert told(stream.reports()[1]) == (Level.OK, 'segmenting')
    for _ in range(4):
        stream.now_s += 1
        if work == 'malformed':
            stream.receive(9, lambda: stream.health.malformed('bad jpeg'))
        received, inference = stream.reports()
    assert received.level > Level.OK
    assert told(inference) == (Level.OK, 'no frame to segment: see input')
    assert not [name for name, _ in inference.values if name.endswith('(ms)')]
    stream.receive(5, stream.publish)
    assert told(stream.reports()[1]) == (Level.OK, 'segmenting')


def test_stamps_ahead_of_the_clock_are_told(stream: Stream) -> None:
    stream.receive(30, stream.publish)
    stream.receive(30, lambda: stream.health.published(0.02, 0.01, -86400.0))
    received, inference = stream.reports()
    assert received.level == Level.WARN
    assert received.message.startswith("stamps are 86400.0 s ahead of this node's clock: ")
    assert dict(received.values)['stamps behind the clock (s)'] == '-86400.0'
    assert 'output age median (ms)' not in dict(inference.values)
    stream.receive(30, stream.publish)
    received, inference = stream.reports()
    assert told(received) == (Level.OK, 'receiving')
    assert dict(inference.values)['output age median (ms)'] == '40.0'


def test_stamps_of_a_recording_are_no_fault_and_have_no_age(stream: Stream) -> None:
    stream.receive(30, lambda: stream.health.published(0.02, 0.01, 9e6))
    received, inference = stream.reports()
    assert told(received) == (Level.OK, 'receiving')
    assert dict(received.values)['stamps behind the clock (s)'] == '9000000.0'
    assert 'output age median (ms)' not in dict(inference.values)


def test_clocks_of_two_machines_differ_a_little(stream: Stream) -> None:
    stream.receive(30, lambda: stream.health.published(0.02, 0.01, -0.004))
    received, inference = stream.reports()
    assert told(received) == (Level.OK, 'receiving')
    assert dict(inference.values)['output age median (ms)'] == '0.0'


def test_doubts_about_frames_that_arrive_are_told(stream: Stream) -> None:
    stream.receive(30, stream.publish, lose=range(10, 16))
    doubt = '2 publishers on /camera/image'
    assert told(stream.reports(input_doubt=doubt)[0]) == (Level.WARN, doubt)


def test_gaps_are_told_with_their_remedy(stream: Stream) -> None:
    stream.receive(60, stream.publish, lose=[20, 21, 40])
    received, _ = stream.reports(gap_remedy='get another cable')
    assert told(received) == (
        Level.WARN, '3 frames missing in the stream: get another cable')
    assert dict(received.values)['frames missing in the stream'] == '3'
    stream.receive(60, stream.publish)
    received, _ = stream.reports()
    assert received.level == Level.OK
    assert dict(received.values)['frames missing in the stream'] == '3'  # in total


def test_one_lost_frame_in_a_hundred_is_counted_but_no_fault(stream: Stream) -> None:
    stream.receive(100, stream.publish, lose=[50])
    received, _ = stream.reports()
    assert told(received) == (Level.OK, 'receiving')
    assert dict(received.values)['frames missing in the stream'] == '1'


def test_losses_that_the_middleware_reports(stream: Stream) -> None:
    stream.receive(30, stream.publish)
    stream.health.lost(4)
    stream.health.lost(3)
    received, _ = stream.reports()
    assert received.message.startswith('7 frames missing in the stream')


def test_loss_seen_by_both_is_counted_once(stream: Stream) -> None:
    stream.receive(60, stream.publish, lose=[20, 21, 22])
    stream.health.lost(3)
    assert dict(stream.reports()[0].values)['frames missing in the stream'] == '3'


def test_some_or_all_frames_failed(stream: Stream) -> None:
    stream.receive(20, stream.publish)
    stream.receive(2, lambda: stream.health.failed('DeviceError: usb:0: gone'))
    _, inference = stream.reports()
    assert told(inference) == (Level.WARN, '2 frames failed: DeviceError: usb:0: gone')
    assert dict(inference.values)['frames failed'] == '2'
    stream.receive(4, lambda: stream.health.failed('again'))
    assert told(stream.reports()[1]) == (Level.ERROR, '4 frames failed: again')
    stream.receive(4, stream.publish)
    _, inference = stream.reports()
    assert told(inference) == (Level.OK, 'segmenting')
    assert dict(inference.values)['last fault'] == 'again'


def test_device_that_is_not_the_one_asked_for(stream: Stream) -> None:
    stream.receive(10, stream.publish)
    problem = 'usb: no EdgeTPU: the CPU serves'
    assert told(stream.reports(device_problem=problem)[1]) == (Level.WARN, problem)


def test_slower_than_the_camera_is_said_but_no_fault(stream: Stream) -> None:
    stream.receive(10, stream.publish)
    stream.receive(20, stream.health.dropped)
    _, inference = stream.reports()
    assert told(inference) == (
        Level.OK, 'slower than the camera: 20 of 30 frames gave way to newer ones')
    assert dict(inference.values)['drop rate (Hz)'] == '20.0'
    stream.receive(5, stream.publish)
    stream.receive(15, stream.health.limited)  # max_rate_hz: not what the worker could have taken
    stream.receive(10, stream.health.dropped)
    assert stream.reports()[1].message.startswith('slower than the camera: 10 of 15 frames')


def test_inference_that_hangs_is_no_slow_one(stream: Stream) -> None:
    stream.receive(1)  # and never comes back
    levels = []
    for _ in range(8):
        stream.receive(15, stream.health.dropped)
        stream.receive(15, stream.health.limited)
        levels.append(stream.reports()[1].level)
    assert levels[:5] == [Level.OK] * 5
    assert levels[-1] == Level.WARN
    assert 'no result for 7 s though a frame is under way' in stream.reports()[1].message
    stream.publish()
    assert stream.reports()[1].level == Level.OK


def test_silent_camera_is_no_inference_that_hangs(stream: Stream) -> None:
    stream.receive(1, stream.publish)
    stream.receive(1, stream.health.skipped)
    for _ in range(8):
        stream.now_s += 1
        assert stream.reports()[1].level == Level.OK


@pytest.mark.parametrize('change', [{'device': 'usb:0'}, {'model': 'other.tflite'}])
def test_times_are_of_the_device_and_the_model_beside_them(
    stream: Stream, change: dict[str, str],
) -> None:
    stream.receive(100, lambda: stream.health.published(0.5, 0.4, 0.6))
    stream.reports()
    stream.reports(**change)
    stream.receive(3, stream.publish)
    values = dict(stream.reports(**change)[1].values)
    assert values['inference time p95 (ms)'] == '10.0'
    assert values['latency p95 (ms)'] == '20.0'
    assert values['output age p95 (ms)'] == '40.0'


def test_frames_left_out_on_purpose_are_no_drops(stream: Stream) -> None:
    stream.receive(10, stream.publish)
    stream.receive(20, stream.health.limited)
    stream.receive(3, stream.health.skipped)
    _, inference = stream.reports()
    assert told(inference) == (Level.OK, 'segmenting')
    assert dict(inference.values)['frames skipped by max_rate_hz'] == '20'
    assert dict(inference.values)['frames skipped without a listener'] == '3'


def test_times_that_are_unknown_are_left_out(stream: Stream) -> None:
    stream.receive(5, lambda: stream.health.published(0.02, None, None))
    values = dict(stream.reports()[1].values)
    assert 'latency median (ms)' in values
    assert 'inference time median (ms)' not in values
    assert 'output age median (ms)' not in values


def test_restart_forgets_the_rhythm_and_keeps_the_totals(stream: Stream) -> None:
    stream.receive(60, stream.publish, lose=[30])
    stream.health.restart()
    stream.now_s += 1.0  # less than a pause: with the old rhythm 29 frames would be missing
    stream.receive(30, stream.publish)
    received, _ = stream.reports()
    assert dict(received.values)['frames missing in the stream'] == '1'
    assert stream.health.counts.received == 89


def test_counts() -> None:
    health = StreamHealth()
    assert health.counts == Counts()
    for _ in range(6):
        health.arrived(1.0, 1.0)
    health.published(0.1, 0.1, 0.1)
    health.published(0.1, 0.1, 0.1)
    health.dropped()
    health.skipped()
    health.malformed('x')
    health.failed('y')
    counts = health.counts
    assert counts == Counts(
        received=6, published=2, dropped=1, skipped=1, malformed=1, failed=1)
    assert counts.received == sum(
        getattr(counts, name) for name in ('published', 'dropped', 'skipped', 'malformed',
                                           'failed'))


def test_threads_do_not_lose_counts() -> None:
    health = StreamHealth()

    def work() -> None:
        for index in range(2000):
            health.arrived(float(index), float(index))
            health.published(0.1, 0.1, 0.1)
            if index % 100 == 0:
                health.reports(float(index), RUNNING)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (health.counts.received, health.counts.published) == (8000, 8000)
