"""
Choose how our processes carry camera frames: Fast DDS's defaults lose most large ones.

A 1280x720 colour frame is 2.7 MB; Fast DDS sends it through a shared-memory segment of 0.5 MB or
through sockets with buffers of 0.2 MB, and of 300 best-effort frames at 30 Hz some 55 arrive. Room
for a few whole frames mends it. What counts is the publisher's setting.

Uses the standard library alone, so that a launch file may import it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

#: More room on the default transports, so that participants with other settings see ours.
#: ``LARGE_DATA`` would hide them from rviz2, Nav2 and every camera left on the defaults.
BUILTIN_TRANSPORTS = 'DEFAULT?sockets_size=16MB&max_msg_size=65500B'

#: Fast DDS's variables; any of them set, even to nothing, means that the user has chosen.
CHOICES = (
    'FASTDDS_BUILTIN_TRANSPORTS', 'FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE',
)

#: ``RMW_IMPLEMENTATION`` of Fast DDS; it is the default of every supported ROS 2.
FAST_DDS = ('', 'rmw_fastrtps_cpp', 'rmw_fastrtps_dynamic_cpp')

#: The ROS 2 whose Fast DDS (2.6) has no ``FASTDDS_BUILTIN_TRANSPORTS``: a profile serves it.
PROFILE_ONLY = ('humble',)

PROFILE = 'config/fastdds.xml'


def transport_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """
    Return what to add to the environment of a process that sends or receives frames.

    Parameters
    ----------
    environ : Mapping
        The environment that the process would have; ``os.environ`` as a rule.

    Returns
    -------
    dict
        Empty where Fast DDS is not in use or where the user has chosen a transport.

    """
    if environ.get('RMW_IMPLEMENTATION', '') not in FAST_DDS:
        return {}
    if any(name in environ for name in CHOICES):
        return {}
    if environ.get('ROS_DISTRO') in PROFILE_ONLY:
        return {'FASTRTPS_DEFAULT_PROFILES_FILE': str(profile_path())}
    return {'FASTDDS_BUILTIN_TRANSPORTS': BUILTIN_TRANSPORTS}


def profile_path() -> Path:
    """
    Find the shipped Fast DDS profile, from the source folder or from any kind of install.

    Raises
    ------
    FileNotFoundError
        If the package was installed without it.

    """
    package = Path(__file__).resolve().parent
    places = [package.parent, *(prefix / 'share/bisenet_ros' for prefix in package.parents)]
    for place in places:
        if (place / PROFILE).is_file():
            return place / PROFILE
    raise FileNotFoundError(
        f'{PROFILE}: not found beside {package} nor in share/bisenet_ros above it; '
        'install bisenet_ros again.')
