"""
How a node's process starts and ends.

Signals are taken by a handler of our own: SIGINT and SIGTERM set an event; the loop sees it
within ``POLL_S``, ignores both from then on and takes everything down in order. rclpy's own
handlers would shut the context down under a worker that is publishing.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Protocol

import rclpy
from rclpy.exceptions import (
    InvalidHandle, InvalidParameterTypeException, InvalidParameterValueException,
)
from rclpy.executors import SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from bisenet_ros.memory import keep_freed_memory

#: Longest time between a signal and the moment the loop sees it.
POLL_S = 0.2

#: Set by the first signal: work that takes long looks at it.
stopping = threading.Event()

#: What rclpy raises of wrong arguments or parameter files, and of impossible transitions.
RCLError = rclpy_implementation.RCLError


class StartError(RuntimeError):
    """A node cannot start or go on; the message is for the user, whole."""


class Runnable(Protocol):
    """What ``run`` needs beside an rclpy ``Node``."""

    def begin(self) -> None:
        """Start work; may raise ``StartError``."""
        ...

    @property
    def finished(self) -> bool:
        """Whether the node has nothing left to do; may raise ``StartError``."""
        ...

    def end(self) -> None:
        """Stop and join every thread; publishers still exist."""
        ...


def hold_signals() -> threading.Event:
    """Take SIGINT and SIGTERM; return ``stopping``, which the first of them sets."""
    # Not to ignore them from here: Python complains of one that is pending when it is ignored.
    def handle(number: int, frame: FrameType | None) -> None:
        stopping.set()

    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, handle)
    return stopping


def run(make_node: Callable[[], Node], args: list[str] | None = None) -> int:
    """
    Run one node until a signal comes or it has finished.

    Parameters
    ----------
    make_node : callable
        Returns an rclpy ``Node`` that is ``Runnable`` too. May raise ``StartError``.
    args : list of str or None
        As ``rclpy.init`` takes them.

    Returns
    -------
    int
        Exit code: 0 after a signal or when finished, 1 if the node could not start or go on.

    """
    stop = hold_signals()
    keep_freed_memory()
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except (RCLError, rclpy_implementation.UnknownROSArgsError) as error:
        _complain(error)
        return 1
    node, executor = None, SingleThreadedExecutor()
    try:
        node = make_node()
        executor.add_node(node)
        if not stop.is_set():
            node.begin()
        while not stop.is_set() and not node.finished:
            # Humble's executor raises of what another callback has destroyed meanwhile.
            with contextlib.suppress(InvalidHandle):
                executor.spin_once(timeout_sec=POLL_S)
    except (StartError, InvalidParameterTypeException, InvalidParameterValueException) as error:
        if not stop.is_set():  # which makes a start fail, too
            _complain(error)
            return 1
    finally:
        for signal_number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signal_number, signal.SIG_IGN)
        if node is not None:
            node.end()
        executor.shutdown()
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


def _complain(error: Exception) -> None:
    print(f'{sys.argv[0].rsplit("/", 1)[-1]}: {error}', file=sys.stderr, flush=True)
