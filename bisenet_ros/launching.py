"""What the launch files share: how our executables are found, and what all of them are given."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_prefix
from launch import LaunchContext
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from bisenet_ros.transport import transport_environment


#: What ``log_level`` may be, in the spellings that ROS takes.
LOG_LEVELS = [spelt for level in ('debug', 'info', 'warn', 'error', 'fatal')
              for spelt in (level, level.upper())]


def argument(context: LaunchContext, name: str) -> str:
    """Return the value of a launch argument."""
    value: str = LaunchConfiguration(name).perform(context)
    return value


def params_files(context: LaunchContext) -> list[str]:
    """
    Return the parameter file that was given, if one was; ``~`` is the home directory.

    None by default: one with every default in it would take the place of what ``SetParameter``
    says around the launch file. launch_ros itself warns of a file that is not there, and starts
    the node without it.

    Raises
    ------
    FileNotFoundError
        If it is none.

    """
    given = argument(context, 'params_file')
    if not given:
        return []
    path = Path(given).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f'params_file: found no file {given!r}, expected the path of a parameter file '
            '(.yaml).')
    return [str(path)]


def has_source(context: LaunchContext) -> bool:
    """Tell whether frames come from a source of ours; an empty one is none."""
    return argument(context, 'source') not in ('', 'none')


def chosen(context: LaunchContext, *names: str) -> dict[str, ParameterValue]:
    """Return those launch arguments that are given, as parameters of a node."""
    return {name: ParameterValue(value, value_type=str)
            for name in names if (value := argument(context, name))}


def common_options(context: LaunchContext) -> dict[str, Any]:
    """Return what every node of ours gets: log level, transport, and the terminal."""
    return {
        'ros_arguments': ['--log-level', argument(context, 'log_level')],
        'additional_env': transport_environment(context.environment),
        'output': 'screen',
    }


def tool(module: str, **options: Any) -> Node:
    """Return a process of ours: an executable from colcon, a module where pip installed it."""
    executable = Path(get_package_prefix('bisenet_ros')) / 'lib' / 'bisenet_ros' / module
    if executable.exists():
        return Node(package='bisenet_ros', executable=module, **options)
    return Node(
        executable=sys.executable, arguments=['-m', f'bisenet_ros.{module}'], exec_name=module,
        **options)
