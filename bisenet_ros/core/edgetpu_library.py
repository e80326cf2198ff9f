"""
What libedgetpu says of itself: its version and the EdgeTPUs that it sees.

Standard library only. ``main``, run in a process of its own, prints that as JSON: a library that
aborts or hangs then takes nobody along.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import json
import sys
from pathlib import Path

EDGETPU_LIBRARY = 'libedgetpu.so.1'

#: Kind by the number that libedgetpu uses.
KINDS = ('pci', 'usb')


class _Device(ctypes.Structure):
    _fields_ = (('type', ctypes.c_int), ('path', ctypes.c_char_p))


def open_library(name: str = EDGETPU_LIBRARY) -> ctypes.CDLL:
    """Load libedgetpu; ``OSError`` if that is not possible."""
    library = ctypes.CDLL(name)
    try:
        library.edgetpu_list_devices.argtypes = [ctypes.POINTER(ctypes.c_size_t)]
        library.edgetpu_list_devices.restype = ctypes.POINTER(_Device)
        library.edgetpu_free_devices.argtypes = [ctypes.POINTER(_Device)]
        library.edgetpu_free_devices.restype = None
        library.edgetpu_version.argtypes = []
        library.edgetpu_version.restype = ctypes.c_char_p
    except AttributeError as error:
        raise OSError(f'{name} is no libedgetpu: {error}') from error
    return library


def list_devices(library: ctypes.CDLL) -> list[tuple[str, str]]:
    """Return kind (``usb``, ``pci``) and path of every EdgeTPU, in libedgetpu's order."""
    count = ctypes.c_size_t()
    devices = library.edgetpu_list_devices(ctypes.byref(count))
    if not devices:
        return []
    found = [(KINDS[devices[index].type], devices[index].path.decode())
             for index in range(count.value)]
    library.edgetpu_free_devices(devices)
    return found


def named(devices: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the name that ``device`` takes (``usb:0``) and the path of every EdgeTPU."""
    seen = dict.fromkeys(KINDS, 0)
    names = []
    for kind, path in devices:
        names.append((f'{kind}:{seen[kind]}', path))
        seen[kind] += 1
    return names


def pycoral_kind() -> str:
    """
    Tell which ``pycoral`` is installed.

    Returns
    -------
    str
        ``coral``: Google's. ``unrelated``: the program of the same name on PyPI. Empty: none.

    """
    spec = importlib.util.find_spec('pycoral')
    if spec is None:
        return ''
    # Its files are looked at and not imported: the other program runs code when imported.
    places = spec.submodule_search_locations or ()
    coral = any((Path(place) / 'utils' / 'edgetpu.py').is_file() for place in places)
    return 'coral' if coral else 'unrelated'


def main(arguments: list[str]) -> int:
    """Print version and devices of the library named by the only argument."""
    answer: dict[str, object] = {'source': 'libedgetpu'}
    try:
        library = open_library(arguments[0])
        answer['version'] = library.edgetpu_version().decode()
        devices = list_devices(library)
        if pycoral_kind() == 'coral':
            try:
                coral = importlib.import_module('pycoral.utils.edgetpu')
            except ImportError as error:  # built for another Python
                answer['pycoral_error'] = str(error)
            else:
                devices = [(device['type'], device['path']) for device in coral.list_edge_tpus()]
                answer['source'] = 'pycoral'
        answer['devices'] = devices
    except OSError as error:
        answer['error'] = str(error)
    json.dump(answer, sys.stdout)
    return 0
