"""
Choose how our processes carry camera frames and find each other.

Fast DDS's defaults lose most large frames: a 1280x720 colour one is 2.7 MB; it goes through a
shared-memory segment of 0.5 MB or through sockets with buffers of 0.2 MB, and of 300 best-effort
frames at 30 Hz 55 and 216 arrived in two measurements. Room for a few whole frames mends it. What
counts is the publisher's setting.

And who misses another's announcement hears the next one after three seconds; ours announce
themselves every second.

Uses the standard library alone, so that a launch file may import it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

#: The segment of shared memory takes 33.5 MB of /dev/shm in every process, all of it at once (with
#: the profiles 17.6 MB). Where that is too small (Docker's has 64 MiB) Fast DDS says "Failed to
#: create segment" and the process goes on with the sockets alone.
#: More room on the default transports, so that participants with other settings see ours.
#: ``LARGE_DATA`` would hide them from rviz2, Nav2 and every camera left on the defaults.
BUILTIN_TRANSPORTS = 'DEFAULT?sockets_size=16MB&max_msg_size=65500B'

#: Which file of profiles Fast DDS reads: version 2, and from version 3 on.
PROFILE_VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')

#: Fast DDS's variables; any of them set, even to nothing, means that the user has chosen.
CHOICES = ('FASTDDS_BUILTIN_TRANSPORTS', *PROFILE_VARIABLES)

#: ``RMW_IMPLEMENTATION`` of Fast DDS; it is the default of every supported ROS 2.
FAST_DDS = ('', 'rmw_fastrtps_cpp', 'rmw_fastrtps_dynamic_cpp')

#: What Fast DDS reports as lost where a frame was overtaken.
OVERTAKEN = 2 ** 31 - 1

#: The ROS 2 whose Fast DDS (2.6) has no ``FASTDDS_BUILTIN_TRANSPORTS``: a profile serves it.
PROFILE_ONLY = ('humble',)

#: The ROS 2 that knows ``ROS_LOCALHOST_ONLY`` alone.
RANGELESS = ('humble',)

#: Profiles for where the variable does nothing.
PROFILE = 'config/fastdds.xml'
LOCALHOST_PROFILE = 'config/fastdds_localhost.xml'

#: For beside the variable; the other two say the same of discovery.
DISCOVERY_PROFILE = 'config/fastdds_discovery.xml'


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
    if has_choice(environ):
        return {}
    room = room_environment(environ)
    if 'FASTDDS_BUILTIN_TRANSPORTS' in room:
        return room | dict.fromkeys(PROFILE_VARIABLES, str(profile_path(DISCOVERY_PROFILE)))
    return room


def lost_frames(change: int) -> int:
    """
    Return how many frames a message-lost event tells of.

    Fast DDS takes a frame that smaller ones have overtaken for 2**31 - 1 lost ones, in 32 bits
    with a sign, which rmw widens to 64 without: the next real losses wrap around.

    Parameters
    ----------
    change : int
        ``total_count_change`` of the event.

    """
    count = change % 2 ** 32
    if count >= OVERTAKEN:
        count -= OVERTAKEN
    return count if count < OVERTAKEN // 2 else 0  # overtaken more than once


def has_choice(environ: Mapping[str, str]) -> bool:
    """
    Tell whether a transport was chosen for a process, by its user or by who started it.

    Our discovery profile, which the README gives for a whole shell, too, says nothing of one.

    """
    return any(
        name in environ and not (name in PROFILE_VARIABLES and _is_for_discovery(environ[name]))
        for name in CHOICES)


def _is_for_discovery(profile: str) -> bool:
    return (Path(profile).name == Path(DISCOVERY_PROFILE).name
            and Path(profile).resolve() == profile_path(DISCOVERY_PROFILE).resolve())


def room_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """
    Return what gives a process room for whole frames, whatever was chosen.

    Parameters
    ----------
    environ : Mapping
        The environment of a process with the same middleware and the same discovery range.

    Returns
    -------
    dict
        Empty where Fast DDS is not in use.

    """
    if environ.get('RMW_IMPLEMENTATION', '') not in FAST_DDS:
        return {}
    old = environ.get('ROS_DISTRO') in PROFILE_ONLY
    if stays_on_this_machine(environ):
        # rmw_fastrtps then puts transports of its own in the place of the built-in ones, whatever
        # the variable says of those, but adds them to a profile's.
        path = str(profile_path(LOCALHOST_PROFILE))
    elif old:
        path = str(profile_path(PROFILE))
    else:
        return {'FASTDDS_BUILTIN_TRANSPORTS': BUILTIN_TRANSPORTS}
    return dict.fromkeys(PROFILE_VARIABLES[:1] if old else PROFILE_VARIABLES, path)


def stays_on_this_machine(environ: Mapping[str, str]) -> bool:
    """Tell whether discovery is limited to this machine, as rcl reads it from the environment."""
    if environ.get('ROS_LOCALHOST_ONLY', '').startswith('1'):
        return True
    if environ.get('ROS_DISTRO') in RANGELESS:
        return False
    return environ.get('ROS_AUTOMATIC_DISCOVERY_RANGE') == 'LOCALHOST'


def profile_path(profile: str = PROFILE) -> Path:
    """
    Find a shipped Fast DDS profile, from the source folder or from any kind of install.

    Raises
    ------
    FileNotFoundError
        If the package was installed without it.

    """
    return shipped_file(profile)


def shipped_file(name: str) -> Path:
    """
    Find a file of ``config/``, from the source folder or from any kind of install.

    Raises
    ------
    FileNotFoundError
        If the package was installed without it.

    """
    package = Path(__file__).resolve().parent
    places = [package.parent, *(prefix / 'share/bisenet_ros' for prefix in package.parents)]
    for place in places:
        if (place / name).is_file():
            return place / name
    raise FileNotFoundError(
        f'{name}: not found beside {package} nor in share/bisenet_ros above it; '
        'install bisenet_ros again.')
