"""Road masks for every ROS 2 robot with a camera: BiSeNetV2 on an EdgeTPU or a CPU."""

from bisenet_ros.core.errors import DeviceError, ModelError, SettingsError
from bisenet_ros.core.segmenter import Segmentation, Segmenter, Settings

__version__ = '0.1.0'

__all__ = [
    'DeviceError', 'ModelError', 'Segmentation', 'Segmenter', 'Settings', 'SettingsError',
    '__version__',
]
