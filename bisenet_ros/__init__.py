"""Road masks for every ROS 2 robot with a camera: BiSeNetV2 on an EdgeTPU or a CPU."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bisenet_ros.core.errors import DeviceError, ModelError, SettingsError
    from bisenet_ros.core.segmenter import Segmentation, Segmenter, Settings

__version__ = '0.1.0'

__all__ = [
    'DeviceError', 'ModelError', 'Segmentation', 'Segmenter', 'Settings', 'SettingsError',
    '__version__',
]

_HOMES = {
    'DeviceError': 'errors', 'ModelError': 'errors', 'SettingsError': 'errors',
    'Segmentation': 'segmenter', 'Segmenter': 'segmenter', 'Settings': 'segmenter',
}


def __getattr__(name: str) -> Any:
    """Import what is asked for: a launch file needs this package, but no OpenCV."""
    if name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(importlib.import_module(f'{__name__}.core.{_HOMES[name]}'), name)
