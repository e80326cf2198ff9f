"""Whether a frame follows the one before, or shows another moment or another view."""

from __future__ import annotations

#: Longer than this between two frames is a pause, unless frames always come that slowly.
PAUSE_S = 2.0

#: So many times the interval before is a pause, too, where that is longer.
PAUSE_INTERVALS = 3.0

#: A stamp that is older by less is of a frame that was overtaken, not of another moment.
BACK_S = 0.5


class Continuity:
    """
    Find the places where a stream of frames starts anew.

    It does where its origin changes, where a stamp goes back (a bag loops, a simulation is reset)
    and behind a pause, of arrivals or of stamps (a camera was away, a bag was wound forward).

    """

    def __init__(self) -> None:
        self._before: tuple[float, float, object] | None = None
        self._interval_s = 0.0

    def breaks(self, time_s: float, stamp_s: float, origin: object) -> bool:
        """
        Take the next frame; tell whether it starts anew. The first one does.

        Parameters
        ----------
        time_s : float
            When it came, monotonic.
        stamp_s : float
            Its own stamp; 0 or any other constant says nothing.
        origin : object
            What two frames of one stream have in common, such as a camera's frame id.

        """
        before, self._before = self._before, (time_s, stamp_s, origin)
        usual_s, self._interval_s = self._interval_s, 0.0
        if before is None or origin != before[2] or stamp_s < before[1] - BACK_S:
            return True
        self._interval_s = max(time_s - before[0], stamp_s - before[1])
        return self._interval_s > max(PAUSE_S, PAUSE_INTERVALS * usual_s)
