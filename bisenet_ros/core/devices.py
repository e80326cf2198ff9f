"""
Which EdgeTPUs are there, and what keeps them from working.

Devices are listed through pycoral where it is installed, else through libedgetpu, both in a child
process, else from sysfs. sysfs also tells what the others do not: permissions, USB speed,
temperature.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from bisenet_ros.core.child import python_command, python_environment
from bisenet_ros.core.edgetpu_library import EDGETPU_LIBRARY, KINDS, named, pycoral_kind

#: USB ids before and after the first opening, which loads the stick's firmware.
USB_IDS = {('1a6e', '089a'): 'waits for its firmware', ('18d1', '9302'): 'ready'}

#: PCI vendor and device of an EdgeTPU.
PCI_ID = ('0x1ac1', '0x089a')

USB3_MBIT_S = 5000

#: Above this the driver slows the chip down (its first trip point).
HOT_C = 85.0

QUERY_TIMEOUT_S = 10.0

INSTALL_LIBRARY = (
    'install libedgetpu for your system (package libedgetpu1-std; builds for current runtimes: '
    'https://github.com/feranick/libedgetpu/releases)')

TOOL = 'python3 -m bisenet_ros.devices'

_GROUPS = {'usb': 'plugdev', 'pci': 'apex'}

_RULES = {
    'usb': ('SUBSYSTEM=="usb",ATTRS{idVendor}=="1a6e",GROUP="plugdev",MODE="0664"',
            'SUBSYSTEM=="usb",ATTRS{idVendor}=="18d1",GROUP="plugdev",MODE="0664"'),
    'pci': ('SUBSYSTEM=="apex",GROUP="apex",MODE="0660"',),
}


@dataclasses.dataclass(frozen=True)
class EdgeTpu:
    """
    One device.

    ``name`` is what the parameter ``device`` takes, ``path`` as libedgetpu or sysfs writes it,
    ``node`` the file that programs open. ``speed_mbit_s`` is 0 and ``temperature_c`` None where
    nobody tells. ``accessible``: whether this user may open ``node``; None if there is no way to
    tell.

    """

    name: str
    path: str
    node: str = ''
    state: str = ''
    speed_mbit_s: int = 0
    temperature_c: float | None = None
    accessible: bool | None = None

    @property
    def kind(self) -> str:
        """``usb`` or ``pci``."""
        return self.name.partition(':')[0]


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something that keeps an EdgeTPU from working, and the command that mends it."""

    what: str
    remedy: str


@dataclasses.dataclass(frozen=True)
class Survey:
    """
    All that could be found out.

    ``source``: who listed the devices (``pycoral``, ``libedgetpu``, ``sysfs``). ``version``: of
    libedgetpu, with its runtime version; empty if it cannot be loaded.

    """

    devices: tuple[EdgeTpu, ...]
    source: str
    version: str
    problems: tuple[Problem, ...]


def survey(
    library: str = EDGETPU_LIBRARY, sysfs: Path = Path('/sys'), dev: Path = Path('/dev'),
) -> Survey:
    """
    Look for EdgeTPUs.

    Parameters
    ----------
    library : str
        Name or path of libedgetpu.
    sysfs, dev : Path
        Where the kernel's files are.

    Returns
    -------
    Survey

    """
    problems: list[Problem] = []
    known = sysfs_devices(sysfs, dev)
    answer = _ask_library(library)
    if 'error' in answer:
        problems.append(Problem(answer['error'], answer.get('remedy', INSTALL_LIBRARY)))
    if 'pycoral_error' in answer:
        problems.append(Problem(
            f'pycoral is installed but cannot be imported ({answer["pycoral_error"]})',
            'nothing to do: libedgetpu was asked instead'))
    if pycoral_kind() == 'unrelated':
        problems.append(Problem(
            "the installed pycoral is not Google's but an unrelated program of that name on PyPI",
            'pip uninstall pycoral (nothing here needs either)'))
    devices, source = known, 'sysfs'
    if 'devices' in answer:
        source = answer['source']
        by_place = {_place(device.path): device for device in known}
        listed = [(str(kind), str(path)) for kind, path in answer['devices']]
        devices = []
        for name, path in named(listed):
            there = by_place.pop(_place(path), EdgeTpu(name, path))
            devices.append(dataclasses.replace(there, name=name, path=path))
        problems += [Problem(
            f'{device.path}: the kernel sees an EdgeTPU that {source} does not list',
            'replug it; in a container pass all of /dev/bus/usb and /sys through')
            for device in by_place.values()]
    for device in devices:
        problems += _device_problems(device, dev)
    problems += _driver_problems(sysfs, devices)
    if not devices:
        problems.append(Problem(
            'no EdgeTPU found',
            'plug it in; for USB use a data cable and a port with enough power (900 mA)'))
    return Survey(tuple(devices), source, answer.get('version', ''), tuple(problems))


def _ask_library(library: str) -> dict[str, Any]:
    """Return what ``edgetpu_library`` prints in a process of its own, or ``{'error': why}``."""
    command = python_command('bisenet_ros.core.edgetpu_library', library)
    replug = 'replug the EdgeTPU; if that does not help, install another build of libedgetpu'
    try:
        done = subprocess.run(
            command, env=python_environment(), stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=QUERY_TIMEOUT_S, check=False)
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return {'error': f'{library} did not list its devices within {QUERY_TIMEOUT_S:g} s',
                'remedy': replug}
    except (IndexError, ValueError):
        words = done.stderr.strip().splitlines()[-1:] or ['without a word']
        return {'error': f'{library} ended the process that listed devices: {words[0]}',
                'remedy': replug}
    return answer


def sysfs_devices(sysfs: Path = Path('/sys'), dev: Path = Path('/dev')) -> list[EdgeTpu]:
    """List what the kernel sees, PCI first."""
    apexes = sorted(dev.glob('apex_*'), key=lambda node: int(node.name[5:]))
    devices = [EdgeTpu(
        f'pci:{index}', str(node), str(node), 'ready',
        temperature_c=_temperature_c(sysfs / 'class' / 'apex' / node.name),
        accessible=os.access(node, os.R_OK | os.W_OK)) for index, node in enumerate(apexes)]
    sticks = []
    for vendor in sorted((sysfs / 'bus' / 'usb' / 'devices').glob('*/idVendor')):
        place = vendor.parent
        state = USB_IDS.get((_read(vendor), _read(place / 'idProduct')))
        if state is not None:
            sticks.append((place, state))
    for index, (place, state) in enumerate(sticks):
        bus, number = _number(_read(place / 'busnum')), _number(_read(place / 'devnum'))
        node = dev / 'bus' / 'usb' / f'{bus:03}' / f'{number:03}'
        devices.append(EdgeTpu(
            f'usb:{index}', str(place), str(node), state,
            speed_mbit_s=_number(_read(place / 'speed')),
            accessible=os.access(node, os.R_OK | os.W_OK)))
    return devices


def _device_problems(device: EdgeTpu, dev: Path) -> list[Problem]:
    problems = []
    if device.accessible is False:
        problems.append(_access_problem(device, dev))
    # Without firmware every stick is a USB 2 device.
    if device.state == 'ready' and 0 < device.speed_mbit_s < USB3_MBIT_S:
        problems.append(Problem(
            f'{device.name}: connected at {device.speed_mbit_s} Mbit/s, which is USB 2: results '
            'come several times slower',
            'use a USB 3 port (blue, or marked SS) and a USB 3 cable'))
    if device.temperature_c is not None and device.temperature_c >= HOT_C:
        problems.append(Problem(
            f'{device.name}: {device.temperature_c:.0f} degrees C: the driver slows it down',
            'cool it; or use libedgetpu1-std instead of -max'))
    return problems


def _access_problem(device: EdgeTpu, dev: Path) -> Problem:
    if not Path(device.node).exists():
        return Problem(
            f'{device.name}: {device.node} does not exist',
            'start the container with -v /dev/bus/usb:/dev/bus/usb '
            "--device-cgroup-rule='c 189:* rmw'; the stick changes its node when its firmware is "
            'loaded, so one --device is not enough')
    group = _GROUPS[device.kind]
    rules = ' '.join(f"'{rule}'" for rule in _RULES[device.kind])
    return Problem(
        f'{device.name}: no permission for {device.node}',
        f'sudo groupadd -f {group} && '
        f"printf '%s\\n' {rules} | sudo tee /etc/udev/rules.d/65-edgetpu.rules && "
        f'sudo udevadm control --reload-rules && sudo udevadm trigger && '
        f'sudo usermod -aG {group} $USER, then log out and in again')


def _driver_problems(sysfs: Path, devices: list[EdgeTpu]) -> list[Problem]:
    cards = [path.parent for path in sorted((sysfs / 'bus' / 'pci' / 'devices').glob('*/vendor'))
             if (_read(path), _read(path.parent / 'device')) == PCI_ID]
    if cards and not any(device.kind == 'pci' for device in devices):
        return [Problem(
            f'{cards[0].name}: a PCIe EdgeTPU without its driver (no /dev/apex_0)',
            'sudo apt install gasket-dkms && sudo modprobe apex')]
    return []


def refusal(
    device: str, listed: list[tuple[str, str]], sysfs: Path = Path('/sys'),
    dev: Path = Path('/dev'),
) -> str:
    """
    Say why libedgetpu opened no device; it does not say so itself.

    Parameters
    ----------
    device : str
        What was asked for: ``auto``, ``usb``, ``usb:N``, ``pci``, ``pci:N``.
    listed : list of (str, str)
        Names and paths of what libedgetpu lists.
    sysfs, dev : Path
        Where the kernel's files are.

    Returns
    -------
    str
        Cause and remedy on one line.

    """
    kind = device.partition(':')[0]
    kinds = KINDS if kind == 'auto' else (kind,)
    candidates = [(name, path) for name, path in listed if name.partition(':')[0] in kinds]
    names = ', '.join(name for name, _ in listed) or 'none'
    if ':' in device:
        candidates = [pair for pair in candidates if pair[0] == device]
    if not candidates:
        return f'no such EdgeTPU is plugged in (found: {names}); plug it in, or see {TOOL}'
    accessible = {_place(known.path): known for known in sysfs_devices(sysfs, dev)}
    for _, path in candidates:
        known = accessible.get(_place(path))
        if known is not None and known.accessible is False:
            group = _GROUPS[known.kind]
            return (f'no permission for {known.node}: add the udev rule and join the group '
                    f'{group} ({TOOL} prints the commands)')
    return (f'{", ".join(name for name, _ in candidates)} is plugged in but did not open: another '
            f'program has it, or it needs replugging; end the other program, or see {TOOL}')


def _place(path: str) -> str:
    """Return what two spellings of a device's path have in common: ``2-1``, ``apex_0``."""
    return path.rstrip('/').rpartition('/')[2]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding='ascii').strip()
    except (OSError, UnicodeDecodeError):
        return ''


def _number(text: str) -> int:
    return int(float(text)) if text.replace('.', '', 1).isdigit() else 0


def _temperature_c(apex: Path) -> float | None:
    text = _read(apex / 'temp')
    return int(text) / 1000 if text.isdigit() else None
