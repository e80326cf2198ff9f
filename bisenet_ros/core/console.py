"""What command-line tools share: numbers they are given, and where their reports go."""

from __future__ import annotations

import argparse
import functools
import io
import os
import select
import sys
from collections.abc import Callable

#: What a shell reports of a program whose reader left: 128 + SIGPIPE.
READER_GONE = 141


def print_any_name() -> None:
    """Let stdout take names of files that are no text: Python holds their bytes as surrogates."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors='backslashreplace')


def at_least(least: int) -> Callable[[str], int]:
    """Return a type of whole numbers for ``argparse``, that refuses lower ones."""
    def number(text: str) -> int:
        if text.isdecimal() and int(text) >= least:
            return int(text)
        raise argparse.ArgumentTypeError(
            f'found {text!r}, expected a whole number of at least {least}')
    return number


def ends_with_its_reader(
    main: Callable[[list[str] | None], int],
) -> Callable[..., int]:
    """
    Let ``tool | head`` end a tool without a stack when ``head`` has read enough.

    The tool then returns ``READER_GONE``. A pipe of the tool's own that breaks still raises.

    """
    @functools.wraps(main)
    def run(argv: list[str] | None = None) -> int:
        try:
            code = main(argv)
            sys.stdout.flush()
        except BrokenPipeError:
            if not _reader_left():
                raise
            # Python flushes once more at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return READER_GONE
        return code
    return run


def _reader_left() -> bool:
    """Tell whether stdout is a pipe that nobody reads any more."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
