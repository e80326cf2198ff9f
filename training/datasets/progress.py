"""How far a long job is."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_WIDTH = 30
_PERIOD_S = 0.1


class Progress:
    """
    A bar on a terminal, else a line for every tenth.

    Parameters
    ----------
    label : str
    total : int
        Steps to go.
    stream : text file or None
        None: stderr.

    """

    def __init__(self, label: str, total: int, stream: TextIO | None = None) -> None:
        self._label, self._total = label, total
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._started = self._shown = time.monotonic()
        self._tenth = 0

    def show(self, done: int) -> None:
        """Say that so many steps are done."""
        now = time.monotonic()
        if not self._terminal:
            tenth = 10 * done // self._total
            if tenth > self._tenth:
                self._tenth = tenth
                print(f'{self._label}: {10 * tenth} %', file=self._stream, flush=True)
            return
        if done < self._total and now - self._shown < _PERIOD_S:
            return
        self._shown = now
        filled = _WIDTH * done // self._total
        left_s = (now - self._started) / max(done, 1) * (self._total - done)
        bar = '#' * filled + '.' * (_WIDTH - filled)
        print(f'\r{self._label} [{bar}] {done}/{self._total}, {left_s:.0f} s left ', end='',
              file=self._stream, flush=True)

    def clear(self) -> None:
        """Take the bar away."""
        if self._terminal:
            print('\r\x1b[K', end='', file=self._stream, flush=True)
