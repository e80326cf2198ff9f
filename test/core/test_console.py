"""A report whose reader leaves ends quietly; anything else that breaks still shows."""

from __future__ import annotations

import argparse
import subprocess
import sys

import pytest

from bisenet_ros.core.console import at_least

PRINTS = """
import os, sys
from bisenet_ros.core import console

@console.ends_with_its_reader
def main(argv):
    {body}
    return 3

sys.exit(main())
"""


def run(body: str, *, read: int) -> tuple[int, str]:
    """Run a tool, read so many lines of it and leave; return its exit code and stderr."""
    with subprocess.Popen([sys.executable, '-c', PRINTS.format(body=body)],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tool:
        for _ in range(read):
            tool.stdout.readline()
        if read:
            tool.stdout.close()
        else:
            tool.stdout.read()
        errors = tool.stderr.read()
        return tool.wait(60), errors


def test_a_reader_that_leaves_ends_the_tool_without_a_stack() -> None:
    assert run('[print(i) for i in range(100_000)]', read=1) == (141, '')


def test_the_tool_s_own_exit_code_is_kept() -> None:
    assert run('print(1)', read=0) == (3, '')


def test_another_pipe_that_breaks_is_told() -> None:
    code, errors = run(
        'r, w = os.pipe(); os.close(r); os.write(w, b"x")', read=0)
    assert code == 1 and 'BrokenPipeError' in errors


@pytest.mark.parametrize('text', ['0', '-3', '2.5', 'many', ''])
def test_numbers_below_the_least_are_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError,
                       match=f'found {text!r}, expected a whole number of at least 1'):
        at_least(1)(text)


def test_the_least_number_is_taken() -> None:
    assert (at_least(0)('0'), at_least(1)('12')) == (0, 12)
