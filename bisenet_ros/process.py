"""
How a node's process starts and ends.

Signals are taken by handlers of our own: the first SIGINT or SIGTERM makes the process ignore
both from then on and sets an event; the loop sees it within ``POLL_S`` and takes everything down in
order. rclpy's own handlers would shut the context down under a worker that is publishing.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Protocol

import rclpy
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

#: Longest time between a signal and the moment the loop sees it.
POLL_S = 0.2


class StartError(RuntimeError):
    """A node cannot start; the message is for the user, whole."""


class Runnable(Protocol):
    """What ``run`` needs beside an rclpy ``Node``."""

    def begin(self) -> None:
        """Start work; may raise ``StartError``."""
        ...

    @property
    def finished(self) -> bool:
        """Whether the node has nothing left to do."""
        ...

    def end(self) -> None:
        """Stop and join every thread; publishers still exist."""
        ...


def hold_signals() -> threading.Event:
    """Take SIGINT and SIGTERM; return the event that the first of them sets."""
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        for signal_number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signal_number, signal.SIG_IGN)
        stop.set()

    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, handle)
    return stop


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
        Exit code: 0 after a signal or when finished, 1 if the node could not start.

    """
    stop = hold_signals()
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    node, executor = None, SingleThreadedExecutor()
    try:
        node = make_node()
        executor.add_node(node)
        if not stop.is_set():
            node.begin()
        while not stop.is_set() and not node.finished:
            executor.spin_once(timeout_sec=POLL_S)
    except (StartError, InvalidParameterTypeException, InvalidParameterValueException) as error:
        print(f'{sys.argv[0].rsplit("/", 1)[-1]}: {error}', file=sys.stderr, flush=True)
        return 1
    finally:
        if node is not None:
            node.end()
        executor.shutdown()
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0
