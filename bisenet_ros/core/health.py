"""
How the stream of frames is doing: counts, rates, gaps, latencies, and what they mean.

Nothing here knows ROS; the node turns a ``Report`` into a diagnostic_msgs/DiagnosticStatus.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import threading


class Level(enum.IntEnum):
    """As in diagnostic_msgs/DiagnosticStatus."""

    OK = 0
    WARN = 1
    ERROR = 2


@dataclasses.dataclass(frozen=True)
class Report:
    """One status: a level, a sentence, and named values in order."""

    name: str
    level: Level
    message: str
    values: tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class Counts:
    """Totals since the start; a received frame ends in exactly one of the other six."""

    received: int = 0
    published: int = 0
    dropped: int = 0
    limited: int = 0
    skipped: int = 0
    malformed: int = 0
    failed: int = 0


COUNTS = tuple(field.name for field in dataclasses.fields(Counts))

#: A new subscription has this long to find its publisher; then silence is a fault.
SETTLING_S = 1.0

#: So many usual periods without a frame are silence, too, where that is longer.
SILENT_PERIODS = 3.0

#: A frame that is under way so long without a result hangs, or the machine is far too slow.
STALLED_S = 5.0

#: Longer than this (and than three periods and a half) is a pause of the camera, not a loss: the
#: report calls it silence.
PAUSE_S = 1.0

#: After its first frame a camera of half a frame a second has this long for the second.
SLOWEST_S = 5.0

OUTCOMES = 'published', 'failed', 'malformed'

#: Faults are judged by so many frames at least, if they are of the last so many reports: else
#: those of a slow camera would come and go with every report.
JUDGED_FRAMES, JUDGED_REPORTS = 2, 10

#: An older stamp is of another clock (a bag, a simulation): its age means nothing.
MAX_AGE_S = 3600.0

#: So far ahead of ours the clock of another machine may be, or stamps of a simulation's.
AHEAD_S = 0.5


class StreamGaps:
    """
    Count the frames that a stream lacks, by its stamps.

    An interval of about n periods lacks n - 1 frames. A pause (``PAUSE_S``), or a stamp that goes
    back (a bag loops, a clock jumps), starts anew and counts nothing. A late frame looks like one
    that is missing until the next one comes early: then it is taken back. Where the intervals
    follow no period (a triggered camera) nothing is missing; nor where a few in a row lack
    equally many: chance does not do that, a longer exposure does.

    """

    #: The period is known from so many intervals on.
    FEWEST = 5
    #: A new one is believed once so many intervals in a row are alike, and the old ones forgotten.
    ALIKE = 8
    #: So many in a row that lack equally many frames are another rate.
    RUN = 5
    #: How far, in periods, intervals may be off a whole number of them on average: of a period
    #: that is fitted to them, and of their median. Random ones are off by a quarter.
    MISFIT, MISFIT_OF_MEDIAN = 0.12, 0.17

    def __init__(self, window: int = 61) -> None:
        self._intervals: collections.deque[float] = collections.deque(maxlen=window)
        self._last_s: float | None = None
        self._gap = 0.0, 0  # the interval before, and the frames that were counted in it
        self._run = _Run()
        self.missing = 0

    @property
    def period_s(self) -> float | None:
        """
        Return the time between two frames; None while it is unknown, or if there is none.

        Where more than half of the frames are lost the usual interval is several periods long. So
        the shortest intervals (but for a tenth, which jitter may have shortened) are taken for
        the period if all others are multiples of it; else the median is, if they are of that.

        """
        if len(self._intervals) < self.FEWEST:
            return None
        ordered = sorted(self._intervals)
        shortest = ordered[len(ordered) // 10]
        single = [interval for interval in ordered if interval < 1.5 * shortest]
        period = single[len(single) // 2]
        # Of a few periods at most: with more, a small fault of the period hides what is left over.
        near = [interval for interval in ordered if interval < 4.5 * period]
        period = sum(near) / max(1, sum(round(interval / period) for interval in near))
        for candidate, limit in ((period, self.MISFIT),
                                 (ordered[len(ordered) // 2], self.MISFIT_OF_MEDIAN)):
            near = [interval / candidate for interval in ordered if interval < 4.5 * candidate]
            misfit = sum(abs(number - round(number)) for number in near)
            # A few random intervals may fit by chance: of few a better fit is asked for.
            if misfit <= limit * (len(near) - 3):
                return candidate
        return None

    def stamp(self, stamp_s: float) -> int:
        """Take a frame's stamp in seconds; return how many frames more are missing, or fewer."""
        last, self._last_s = self._last_s, stamp_s
        (gap, counted), self._gap = self._gap, (0.0, 0)
        if last is None:
            return 0
        interval, period = stamp_s - last, self.period_s
        if interval <= 0 or interval > self._pause_s(period):
            self._intervals.clear()
            self._run = _Run()
            return 0
        self._intervals.append(interval)
        self._forget_another_rate()
        if period is None:
            self._run = _Run()
            return 0
        if counted and interval < 0.6 * period:
            missing = max(0, round((gap + interval) / period) - 2) - counted
        else:
            lacking = round(interval / period) - 1 if interval >= 1.6 * period else 0
            missing = self._run.counted(lacking, self.RUN)
            self._gap = interval, 0 if self._run.length >= self.RUN else lacking
        self.missing += missing
        return missing

    def _pause_s(self, period: float | None) -> float:
        if len(self._intervals) < self.FEWEST:
            return float('inf')
        usual = period or sorted(self._intervals)[len(self._intervals) // 2]
        return max(PAUSE_S, 3.5 * usual)

    def _forget_another_rate(self) -> None:
        recent = list(self._intervals)[-self.ALIKE:]
        if len(recent) == self.ALIKE and max(recent) < 1.25 * min(recent):
            while len(self._intervals) > self.ALIKE:
                self._intervals.popleft()


class _Run:
    """
    Intervals in a row that lack equally many frames.

    The first counts at once, the others when the run ends; none do if it gets long.

    """

    def __init__(self) -> None:
        self.length = self._lacking = self._held = 0

    def counted(self, lacking: int, longest: int) -> int:
        """Take the frames that the next interval lacks; return how many to count, or take back."""
        if lacking != self._lacking:
            held, self._held = self._held, 0
            self.length, self._lacking = 1, lacking
            return held + lacking
        self.length += 1
        if self.length < longest:
            self._held += lacking
            return 0
        self._held = 0
        return -lacking if self.length == longest else 0


class Percentiles:
    """The last few hundred values of something in seconds."""

    def __init__(self, window: int = 300) -> None:
        self._values: collections.deque[float] = collections.deque(maxlen=window)

    def add(self, value_s: float) -> None:
        self._values.append(value_s)

    def __bool__(self) -> bool:
        return bool(self._values)

    def at(self, share: float) -> float:
        """Return the value that ``share`` of all values do not exceed."""
        ordered = sorted(self._values)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def clear(self) -> None:
        self._values.clear()


class StreamHealth:
    """
    Collect what happens to frames; called from the callback's and the worker's threads.

    Times are monotonic seconds; stamps are the messages' own.

    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = collections.Counter[str]()
        self._gaps = StreamGaps()
        self._lost_reported = 0
        self._latency, self._invoke, self._age = Percentiles(), Percentiles(), Percentiles()
        self._last_arrival_s: float | None = None
        self._arrival_intervals = collections.deque[float](maxlen=9)
        self._outcomes = collections.deque[tuple[str, int]](maxlen=JUDGED_FRAMES)
        self._reports = 0
        self._foreign_age_s: float | None = None  # of the last stamp that is of another clock
        self._last_fault = ''
        self._timed_on = ('', '')  # device and model that the times are of
        self._ended = self._ended_before = 0  # frames that the worker is through with
        self._stalled_since_s: float | None = None
        self._before: dict[str, int] = {}
        self._before_s: float | None = None

    def arrived(self, now_s: float, stamp_s: float) -> None:
        """Count a frame that reached the callback."""
        with self._lock:
            self._counts['received'] += 1
            if self._last_arrival_s is not None:
                self._arrival_intervals.append(now_s - self._last_arrival_s)
            self._last_arrival_s = now_s
            self._gaps.stamp(stamp_s)

    def lost(self, count: int) -> None:
        """Count frames that the middleware says it lost (not every one says so)."""
        with self._lock:
            self._lost_reported += count

    def limited(self) -> None:
        """Count a frame left out because of ``max_rate_hz``; it never waits for the worker."""
        with self._lock:
            self._counts['limited'] += 1

    def skipped(self) -> None:
        """Count a frame left out because nobody listens any more."""
        with self._lock:
            self._counts['skipped'] += 1
            self._ended += 1

    def dropped(self) -> None:
        """Count a waiting frame that gave way to a newer one."""
        with self._lock:
            self._counts['dropped'] += 1

    def malformed(self, reason: str) -> None:
        """Count a message that was no image."""
        with self._lock:
            self._end('malformed')
            self._last_fault = reason

    def failed(self, reason: str) -> None:
        """Count a frame on which inference or publishing failed."""
        with self._lock:
            self._end('failed')
            self._last_fault = reason

    def published(self, latency_s: float, invoke_s: float | None, age_s: float | None) -> None:
        """
        Count a frame whose results went out ``latency_s`` behind its arrival.

        ``age_s``: what the node's clock then said less the frame's stamp; None if either says
        nothing yet.

        """
        with self._lock:
            self._end('published')
            self._latency.add(latency_s)
            if invoke_s is not None:
                self._invoke.add(invoke_s)
            if age_s is None:
                return
            if -AHEAD_S <= age_s < MAX_AGE_S:
                self._age.add(max(0.0, age_s))
                self._foreign_age_s = None
            else:
                self._age.clear()
                self._foreign_age_s = age_s

    def _end(self, outcome: str) -> None:
        self._counts[outcome] += 1
        self._ended += 1
        self._outcomes.append((outcome, self._reports))

    @property
    def counts(self) -> Counts:
        with self._lock:
            return Counts(**{field.name: self._counts[field.name]
                             for field in dataclasses.fields(Counts)})

    def restart(self) -> None:
        """Forget the stream's rhythm (it was unsubscribed); totals stay."""
        with self._lock:
            missing = self._gaps.missing
            self._gaps = StreamGaps()
            self._gaps.missing = missing
            self._last_arrival_s = None
            self._outcomes.clear()
            self._foreign_age_s = None

    def reports(self, now_s: float, context: StreamContext) -> tuple[Report, Report]:
        """
        Judge the time since the last call.

        Parameters
        ----------
        now_s : float
            Monotonic.
        context : StreamContext
            What the node knows of its surroundings.

        Returns
        -------
        (Report, Report)
            Of the input and of the inference.

        """
        with self._lock:
            current = dict(self._counts)
            current['missing'] = max(self._gaps.missing, self._lost_reported)
            elapsed_s = now_s - self._before_s if self._before_s is not None else None
            delta = {key: current.get(key, 0) - self._before.get(key, 0)
                     for key in (*COUNTS, 'missing')}
            self._before, self._before_s = current, now_s
            self._reports += 1
            judged = self._judged(delta)
            silent_s = (now_s - self._last_arrival_s
                        if self._last_arrival_s is not None else context.subscribed_for_s)
            heard = self._input(current, delta, judged, elapsed_s, silent_s, context)
            return heard, self._inference(
                current, delta, judged, elapsed_s, self._stalled_s(now_s, current), heard.level,
                context)

    def _judged(self, delta: dict[str, int]) -> collections.Counter[str]:
        """Return what became of the frames since the last report, of few of those before, too."""
        judged = collections.Counter({outcome: delta[outcome] for outcome in OUTCOMES})
        if judged.total() < JUDGED_FRAMES:
            return collections.Counter(
                outcome for outcome, report in self._outcomes
                if self._reports - report <= JUDGED_REPORTS)
        return judged

    def _input(
        self, current: dict[str, int], delta: dict[str, int], judged: collections.Counter[str],
        elapsed_s: float | None, silent_s: float, context: StreamContext,
    ) -> Report:
        level, message = Level.OK, 'receiving'
        if not context.active:
            level, message = context.state_level, context.state
        elif not context.subscribed:
            message = 'nobody subscribes to an output: the input is not subscribed'
        elif not delta['received'] and context.subscribed_for_s < SETTLING_S:
            message = 'waiting for the first frame'
        elif context.input_problem and not delta['received']:
            level, message = Level.WARN, context.input_problem
        elif not delta['received'] and silent_s > self._patience_s():
            level = Level.WARN
            message = f'publishers on {context.image_topic}, but no frame arrives'
        elif not delta['received'] and self._last_arrival_s is None:  # of a slow camera
            message = 'waiting for the first frame'
        elif judged['malformed']:
            everything = not judged['published'] and not judged['failed']
            level = Level.ERROR if everything else Level.WARN
            message = f'{judged["malformed"]} malformed frames: {self._last_fault}'
        elif context.input_doubt:
            level, message = Level.WARN, context.input_doubt
        # A frame or two may just have been late: seen by stamps alone that looks the same.
        elif delta['missing'] > max(2, 0.02 * (delta['received'] + delta['missing'])):
            level = Level.WARN
            message = f'{delta["missing"]} frames missing in the stream: {context.gap_remedy}'
        elif self._foreign_age_s is not None and self._foreign_age_s < 0:
            level = Level.WARN
            message = (f'stamps are {-self._foreign_age_s:.1f} s ahead of this node\'s clock: '
                       'whoever looks them up in TF finds nothing; set the clock of the camera\'s '
                       'machine')
        return Report('input', level, message, (
            ('topic', context.image_topic),
            ('input rate (Hz)', _rate(delta['received'], elapsed_s)),
            ('frames received', str(current.get('received', 0))),
            ('frames missing in the stream', str(current['missing'])),
            ('frames malformed', str(current.get('malformed', 0))),
            *([] if self._foreign_age_s is None else [
                ('stamps behind the clock (s)', f'{self._foreign_age_s:.1f}')])))

    def _patience_s(self) -> float:
        """Return how long silence is no fault: cameras may be slower than one frame a second."""
        ordered = sorted(self._arrival_intervals)
        if not ordered:
            return SETTLING_S if self._last_arrival_s is None else SLOWEST_S
        usual = max(ordered[(len(ordered) - 1) // 2], self._arrival_intervals[-1])
        return max(SETTLING_S, SILENT_PERIODS * usual)

    def _stalled_s(self, now_s: float, current: dict[str, int]) -> float:
        """Return for how long a frame is under way and the worker was through with none."""
        under_way = current.get('received', 0) - sum(
            current.get(key, 0) for key in COUNTS if key != 'received')
        before, self._ended_before = self._ended_before, self._ended
        if under_way < 1 or self._ended != before:
            self._stalled_since_s = None
            return 0.0
        if self._stalled_since_s is None:
            self._stalled_since_s = now_s
        return now_s - self._stalled_since_s

    def _inference(
        self, current: dict[str, int], delta: dict[str, int], judged: collections.Counter[str],
        elapsed_s: float | None, stalled_s: float, input_level: Level, context: StreamContext,
    ) -> Report:
        if self._timed_on != (context.device, context.model):
            self._timed_on = context.device, context.model
            for series in (self._latency, self._invoke, self._age):
                series.clear()
        level, message = Level.OK, 'segmenting'
        if not context.active:
            level, message = context.state_level, context.state
        elif judged['failed']:
            level = Level.WARN if judged['published'] else Level.ERROR
            message = f'{judged["failed"]} frames failed: {self._last_fault}'
        elif context.device_problem:
            level, message = Level.WARN, context.device_problem
        elif stalled_s > STALLED_S:
            level = Level.WARN
            message = (f'no result for {stalled_s:.0f} s though a frame is under way: inference '
                       'hangs, or is far too slow for this machine')
        elif not context.subscribed:
            message = 'idle'
        elif input_level > Level.OK and not delta['published']:
            message = 'no frame to segment: see input'
            for series in (self._latency, self._invoke, self._age):
                series.clear()
        taken = delta['received'] - delta['limited'] - delta['skipped']
        if level == Level.OK and taken and delta['dropped'] > 0.5 * taken:
            message = (f'slower than the camera: {delta["dropped"]} of {taken} frames gave way to '
                       'newer ones')
        values = [
            ('output rate (Hz)', _rate(delta['published'], elapsed_s)),
            ('drop rate (Hz)', _rate(delta['dropped'], elapsed_s)),
            ('frames published', str(current.get('published', 0))),
            ('frames dropped', str(current.get('dropped', 0))),
            ('frames skipped by max_rate_hz', str(current.get('limited', 0))),
            ('frames skipped without a listener', str(current.get('skipped', 0))),
            ('frames failed', str(current.get('failed', 0)))]
        for name, series in (('inference time', self._invoke), ('latency', self._latency),
                             ('output age', self._age)):
            if series:
                values.append((f'{name} median (ms)', f'{series.at(0.5) * 1e3:.1f}'))
                values.append((f'{name} p95 (ms)', f'{series.at(0.95) * 1e3:.1f}'))
        values += [('device', context.device), *context.device_facts, ('model', context.model)]
        if self._last_fault:
            values.append(('last fault', self._last_fault))
        return Report('inference', level, message, tuple(values))


@dataclasses.dataclass(frozen=True)
class StreamContext:
    """
    What surrounds the stream at the time of a report.

    ``state``: the lifecycle state in words; ``state_level``: ERROR if the state is a failure's,
    such as a model that could not be loaded. ``subscribed_for_s``: how long ago the input was
    subscribed. ``input_problem``: why nothing can arrive (no publisher, incompatible QoS), empty
    if nothing is known to be wrong. ``input_doubt``: what is wrong though frames arrive.
    ``gap_remedy``: what to do where frames are missing. ``device_problem``: why inference is not
    where it should be. ``device_facts``: further values for the report.

    """

    active: bool
    subscribed: bool
    state: str
    image_topic: str
    device: str
    model: str
    state_level: Level = Level.OK
    subscribed_for_s: float = float('inf')
    input_problem: str = ''
    input_doubt: str = ''
    gap_remedy: str = 'they are lost on the way'
    device_problem: str = ''
    device_facts: tuple[tuple[str, str], ...] = ()


def _rate(count: int, elapsed_s: float | None) -> str:
    return f'{count / elapsed_s:.1f}' if elapsed_s else 'unknown'
