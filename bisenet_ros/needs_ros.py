"""
A line instead of a stack where ROS 2 is missing: what a node's module imports first.

A program ends with that line; whoever imports the module otherwise gets it as
``ModuleNotFoundError``.
"""

import sys
from pathlib import Path

#: What is started as a program and needs ROS, by ``python -m`` or as an executable.
PROGRAMS = ('cameras', 'demo', 'replay', 'segmenter')

try:
    import rclpy  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != 'rclpy':
        raise
    program = Path(sys.argv[0]).stem
    line = ('no ROS 2 in this Python (rclpy is missing): source a ROS 2 installation and use its '
            "Python, or, on Linux on x86-64, pip install '.[ros]'")
    if program in PROGRAMS:
        sys.exit(f'{program}: {line}')
    raise ModuleNotFoundError(line, name=error.name) from error
