"""Print which EdgeTPUs are there, and for each problem the command that mends it."""

from __future__ import annotations

import argparse
import sys

from bisenet_ros.core import console, devices, engine
from bisenet_ros.core.edgetpu_library import EDGETPU_LIBRARY
from bisenet_ros.core.errors import DeviceError


def report(found: devices.Survey, runtime: str) -> str:
    """
    Return what the tool prints.

    Parameters
    ----------
    found : devices.Survey
    runtime : str
        Name and version of the TFLite runtime, or why there is none.

    Returns
    -------
    str
        Lines.

    """
    lines = [f'runtime     {runtime}', f'libedgetpu  {found.version or "not loaded"}']
    lines.append(f'EdgeTPUs    {len(found.devices)} (listed by {found.source})')
    for device in found.devices:
        facts = [device.state, device.node]
        if device.speed_mbit_s:
            facts.append(f'{device.speed_mbit_s} Mbit/s')
        if device.temperature_c is not None:
            facts.append(f'{device.temperature_c:.1f} degrees C')
        if device.accessible is not None:
            facts.append('accessible' if device.accessible else 'no permission')
        lines.append(f'  {device.name}  {device.path}  {", ".join(filter(None, facts))}')
    lines += [f'problem: {problem.what}\n  mend it: {problem.remedy}'
              for problem in found.problems]
    return '\n'.join(lines)


@console.ends_with_its_reader
def main(args: list[str] | None = None) -> int:
    """Print the report; return 0 if an EdgeTPU could be used as things are, else 1."""
    parser = argparse.ArgumentParser(prog='devices', description=__doc__)
    parser.add_argument(
        '--library', default=EDGETPU_LIBRARY, help='libedgetpu to ask (default %(default)s)')
    options = parser.parse_args(args)
    found = devices.survey(options.library)
    try:
        runtime, _, _ = engine.find_runtime(allow_tensorflow=False)
    except DeviceError as error:
        runtime = str(error)
        usable = False
    else:
        usable = bool(found.version) and any(
            device.accessible is not False for device in found.devices)
    print(report(found, runtime))
    return 0 if usable else 1


if __name__ == '__main__':
    sys.exit(main())
