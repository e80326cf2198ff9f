"""
How a node's process starts and ends.

Signals are taken by a handler of our own: SIGINT, SIGTERM and SIGHUP (a terminal that is closed)
set an event; the loop sees it within ``POLL_S``, ignores them from then on and takes everything
down in order. rclpy's own handlers would shut the context down under a worker that is publishing.
"""

from __future__ import annotations

import contextlib
import difflib
import faulthandler
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Protocol

import rclpy
from rclpy.exceptions import (
    InvalidHandle, InvalidParameterTypeException, InvalidParameterValueException,
)
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

from bisenet_ros.memory import keep_freed_memory

#: Longest time between a signal and the moment the loop sees it.
POLL_S = 0.2

#: How long a node may take to end, which promises two seconds. One that hangs, in its middleware
#: perhaps, is then ended with the stacks of its threads on stderr.
LONGEST_END_S = 8.0

#: What ends a node in order.
ENDING = signal.SIGINT, signal.SIGTERM, signal.SIGHUP

#: An executor that did nothing but fail for so long will not come round any more.
HOPELESS_S = 5.0

#: How often at most a fault is logged that may come with every frame or call.
LOG_PERIOD_S = 5.0

#: What the names of parameters for QoS begin with.
OVERRIDES = 'qos_overrides.'

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


class Spinner:
    """
    A node's executor in a thread of its own: what holds up this node holds up no other.

    Parameters
    ----------
    node : rclpy.node.Node

    """

    def __init__(self, node: Node) -> None:
        self._loop = Loop(node)
        self._ending = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=node.get_namespace(), daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._ending.is_set():
                self._loop.once()
        except Exception as error:  # noqa: BLE001 - for ``check``, on the thread that ends things
            self._failure = error

    def check(self) -> None:
        """Raise what ended the thread, if anything did."""
        if self._failure is not None:
            raise self._failure

    def ask_to_end(self) -> None:
        """Let the callback under way be the last."""
        self._ending.set()

    def end(self) -> None:
        """Wait for it, and give the executor back."""
        self.ask_to_end()
        self._thread.join()
        self._loop.end()


class Loop:
    """
    An executor that outlives what a callback raises.

    rclpy would let a single malformed request to one of its own services end the process.

    Parameters
    ----------
    node : rclpy.node.Node

    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self._failing_since_s: float | None = None

    def once(self) -> None:
        """
        Wait for one callback, ``POLL_S`` at most, and run it.

        What it raises is logged; it is raised again only where nothing has worked for
        ``HOPELESS_S``.

        """
        try:
            self._executor.spin_once(timeout_sec=POLL_S)
        except InvalidHandle:  # Humble's, of what another callback has destroyed meanwhile
            return
        except ExternalShutdownException:
            raise
        except Exception:
            now_s = time.monotonic()
            if self._failing_since_s is None:
                self._failing_since_s = now_s
            if now_s - self._failing_since_s > HOPELESS_S:
                raise
            self._node.get_logger().error(
                f'a callback failed and is left out:\n{traceback.format_exc()}',
                throttle_duration_sec=LOG_PERIOD_S)
        else:
            self._failing_since_s = None

    def end(self) -> None:
        """Give the executor back."""
        self._executor.shutdown()


def warn_of_unknown_parameters(nodes: Iterable[Node]) -> None:
    """
    Warn of parameters that were given and that none of the process's nodes has.

    rclpy is silent of them: ``-p modle:=...`` would leave the default in force unnoticed.

    Parameters
    ----------
    nodes : iterable of rclpy.node.Node
        With all their parameters declared. The first one says it.

    """
    nodes = list(nodes)
    known = {name for node in nodes for name in node.get_parameters_by_prefix('')}
    # rclpy gives what was given no public name.
    given = {name for node in nodes for name in node._parameter_overrides}
    for name in sorted(given - known):
        if not name.startswith(OVERRIDES):  # declared with the publisher or subscription
            near = difflib.get_close_matches(name, known, 1)
            nodes[0].get_logger().warning(
                f'there is no parameter {name!r}: what was given for it has no effect'
                + (f'; did you mean {near[0]!r}?' if near else ''))


def warn_of_unknown_overrides(node: Node, alone: bool = True) -> None:
    """
    Warn of ``qos_overrides`` that change nothing.

    Parameters
    ----------
    node : rclpy.node.Node
        With all its publishers and subscriptions made, which declare what can be overridden.
    alone : bool
        Whether the process has no other node, whose topics an override may mean.

    """
    known = {name for name in node.get_parameters_by_prefix('') if name.startswith(OVERRIDES)}
    topics = {name.rsplit('.', 2)[0] for name in known}
    for name in sorted(node._parameter_overrides):
        if (name.startswith(OVERRIDES) and name not in known
                and (alone or name.rsplit('.', 2)[0] in topics)):
            near = difflib.get_close_matches(name, known, 1)
            node.get_logger().warning(
                f'{name!r} has no effect: history, depth and reliability of '
                f'{", ".join(sorted(topic.removeprefix(OVERRIDES) for topic in topics))} can be '
                'overridden' + (f'; did you mean {near[0]!r}?' if near else ''))


def hold_signals() -> threading.Event:
    """
    Take ``ENDING``; return ``stopping``, which the first sets, and limit the end.

    SIGHUP stays ignored where it is, as ``nohup`` has it.

    """
    # Not to ignore them from here: Python complains of one that is pending when it is ignored.
    def handle(number: int, frame: FrameType | None) -> None:
        _limit_end()
        stopping.set()

    for signal_number in ENDING:
        ignored = signal.getsignal(signal_number) == signal.SIG_IGN
        if not (ignored and signal_number == signal.SIGHUP):
            signal.signal(signal_number, handle)
    return stopping


def run(
    make_node: Callable[[], Node], args: list[str] | None = None, parameters: str = '',
) -> int:
    """
    Run one node until a signal comes or it has finished.

    Parameters
    ----------
    make_node : callable
        Returns an rclpy ``Node`` that is ``Runnable`` too. May raise ``StartError``.
    args : list of str or None
        As ``rclpy.init`` takes them. ``--help`` prints the module's text and ``parameters``;
        whatever else is meant for no part of ROS is refused.
    parameters : str
        What ``--help`` says of them.

    Returns
    -------
    int
        Exit code: 0 after a signal or when finished, 1 if the node could not start or go on.

    """
    try:
        own = remove_ros_args(args)[1 if args is None else 0:]
        if '-h' in own or '--help' in own:
            print((sys.modules[make_node.__module__].__doc__ or '').strip())
            print(f'\n{parameters}')
            return 0
        if own:
            _complain(f'found {" ".join(own)!r}, expected arguments of ROS alone: '
                      '--ros-args -p NAME:=VALUE -r FROM:=TO')
            return 1
        stop = hold_signals()
        keep_freed_memory()
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except (RCLError, rclpy_implementation.UnknownROSArgsError) as error:
        _complain(error)
        return 1
    node = loop = None
    try:
        node = make_node()
        loop = Loop(node)
        warn_of_unknown_parameters([node, *getattr(node, 'segmenters', ())])
        if not stop.is_set():
            node.begin()
        while not stop.is_set() and not node.finished:
            loop.once()
    except (StartError, InvalidParameterTypeException, InvalidParameterValueException) as error:
        if not stop.is_set():  # which makes a start fail, too
            _complain(error)
            return 1
    finally:
        for signal_number in ENDING:
            signal.signal(signal_number, signal.SIG_IGN)
        try:
            _limit_end()
            if node is not None:
                node.end()
            if loop is not None:
                loop.end()
            if node is not None:
                node.destroy_node()
            rclpy.try_shutdown()
        finally:
            faulthandler.cancel_dump_traceback_later()
    return 0


def _limit_end() -> None:
    """Let the process end ``LONGEST_END_S`` after the first of these calls, with exit code 1."""
    if not stopping.is_set():
        with contextlib.suppress(RuntimeError, ValueError, OSError):  # no stderr: without limit
            # Its thread needs no lock of Python's.
            faulthandler.dump_traceback_later(LONGEST_END_S, exit=True)


def _complain(error: Exception | str) -> None:
    print(f'{sys.argv[0].rsplit("/", 1)[-1]}: {error}', file=sys.stderr, flush=True)
