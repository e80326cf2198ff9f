"""What a benchmark ran on, for its table and its JSON, and where that goes."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
from pathlib import Path

from bisenet_ros.core.output_files import OutputError, check_writable

#: Distributions whose version changes figures; of each row the first that is installed counts.
LIBRARIES = (
    ('numpy',), ('opencv-python-headless', 'opencv-python'), ('ai-edge-litert', 'tflite-runtime'))


def processor() -> str:
    """Return the CPU's own name, where the system tells it."""
    cpuinfo = Path('/proc/cpuinfo')
    for line in cpuinfo.read_text().splitlines() if cpuinfo.is_file() else ():
        if line.startswith('model name'):
            return line.partition(':')[2].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Return the versions of the libraries that the time is spent in."""
    found = {}
    for row in LIBRARIES:
        for name in row:
            try:
                found[name] = importlib.metadata.version(name)
                break
            except importlib.metadata.PackageNotFoundError:
                continue
    return found


def description() -> dict[str, object]:
    """Return CPU, cores that this process may use, kernel, Python, ROS and library versions."""
    return {
        'processor': processor(), 'cores': len(os.sched_getaffinity(0)),
        'kernel': f'{platform.system()} {platform.release()}',
        'python': platform.python_version(),
        'ros': f'{os.environ.get("ROS_DISTRO", "jazzy (wheels)")}, '
               f'{os.environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp (default)")}',
        'versions': versions()}


def text(machine: dict[str, object]) -> str:
    """Return one line of a description."""
    libraries = ', '.join(f'{name} {version}' for name, version in machine['versions'].items())
    return (f'{machine["processor"]}, {machine["cores"]} cores, {machine["kernel"]}, Python '
            f'{machine["python"]}, ROS {machine["ros"]}, {libraries}')


def output_file(name: str) -> Path:
    """Return an option's path, for ``argparse``, unless nothing could be written there."""
    path = Path(name)
    try:
        check_writable(path)
    except OutputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return path
