"""
The node's parameters, in one table.

It feeds the descriptors (``ros2 param describe``), ``config/segment.yaml`` and the README, which a
test holds equal to it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from bisenet_ros.core.preprocess import FITS
from bisenet_ros.core.segmenter import OUTPUT_SIZES, Settings

Value = bool | int | float | str | list[str]


@dataclasses.dataclass(frozen=True)
class Param:
    """
    One parameter.

    Parameters
    ----------
    name : str
    default : bool, int, float, str or list of str
        Its type is the parameter's type.
    description : str
        One sentence with the unit.
    low, high : float or None
        Inclusive range of a number.
    choices : tuple of str
        The texts allowed; empty means any.
    pattern : str
        Regular expression for texts; ``choices`` then describe it.
    live : bool
        Whether it can be set while the node is configured.

    """

    name: str
    default: Value
    description: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    pattern: str = ''
    live: bool = False

    @property
    def range_text(self) -> str:
        """Return the allowed values in words; empty if everything of the type is."""
        if self.low is not None:
            return f'{self.low:g} to {self.high:g}'
        return ', '.join(self.choices)

    def fault(self, value: Value) -> str:
        """Return why a value of the right type is refused, with the range; empty if it is not."""
        bad = False
        if self.low is not None and self.high is not None:
            bad = not self.low <= float(value) <= self.high  # type: ignore[arg-type]
        elif self.pattern:
            bad = re.fullmatch(self.pattern, str(value)) is None
        elif self.choices:
            bad = value not in self.choices
        return f'{self.name}: found {value!r}, expected {self.range_text}.' if bad else ''


TABLE: tuple[Param, ...] = (
    Param('model', '',
          'Path of a .tflite file, or a shipped model: road_128x256, road_256x512_near; empty = '
          'road_256x512.'),
    Param('device', 'auto', 'Where inference runs.',
          choices=('auto', 'cpu', 'usb', 'usb:N', 'pci', 'pci:N'),
          pattern=r'auto|cpu|(usb|pci)(:\d+)?'),
    Param('num_threads', 0, 'CPU threads of inference; 0 chooses.', 0, 64),
    Param('isolation', 'auto', 'Whether inference runs in a child process; auto: for an EdgeTPU.',
          choices=('auto', 'process', 'none')),
    Param('inference_timeout_s', 2.0, 'Seconds after which an isolated inference counts as hung.',
          0.05, 60.0, live=True),
    Param('device_open_timeout_s', 30.0, 'Seconds that opening an EdgeTPU may take.', 1.0, 300.0),
    Param('class_names', [], 'Classes of a model without a contract, by id; or one class list '
          'file (.txt).'),
    Param('mask_classes', [], 'Classes that ~/mask marks; empty = every class but the first for '
          "two-class models, road otherwise. To empty it while it runs: \"['']\".", live=True),
    Param('min_confidence', 0.0, 'Probability below which a pixel is 255 in ~/labels and 0 in '
          '~/mask.', 0.0, 1.0, live=True),
    Param('output_size', 'input', 'Size of the outputs: the camera\'s (input) or the network\'s '
          'input size (model).', choices=OUTPUT_SIZES, live=True),
    Param('fit', 'stretch', 'How the frame is fitted to the network.', choices=FITS, live=True),
    Param('smoothing', 0.0, 'Weight of the past in an exponential mean of the logits.',
          0.0, 0.95, live=True),
    Param('max_rate_hz', 0.0, 'Most frames segmented a second; 0 = as fast as frames come.',
          0.0, 1000.0, live=True),
    Param('overlay_alpha', 0.5, 'Weight of the mask\'s colour in ~/overlay.', 0.0, 1.0, live=True),
    Param('image_transport', 'raw', 'raw: sensor_msgs/Image; compressed: CompressedImage on the '
          'resolved image topic with /compressed appended.', choices=('raw', 'compressed')),
    Param('diagnostics_period_s', 1.0, 'Seconds between two diagnostics.', 0.1, 60.0, live=True),
    Param('autostart', True, 'Configure and activate at start; false waits for a lifecycle '
          'manager.'),
)

BY_NAME: Mapping[str, Param] = {param.name: param for param in TABLE}


def settings_from(values: Mapping[str, Any]) -> Settings:
    """Return what the segmenter may change between frames, from parameter values."""
    return Settings(
        mask_classes=tuple(name for name in values['mask_classes'] if name),
        min_confidence=values['min_confidence'],
        output_size=values['output_size'],
        fit=values['fit'],
        smoothing=values['smoothing'])


def _yaml(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value)  # Python's literals for numbers, texts and lists of texts are YAML's


def yaml_text() -> str:
    """Return the text of ``config/segment.yaml``: every parameter with its default."""
    lines = [
        '# Parameters of the segmenter node with their defaults.',
        '# Written from bisenet_ros/parameters.py; a test holds both equal.',
        '/**:', '  ros__parameters:']
    for param in TABLE:
        lines.append(f'    # {param.description}')
        notes = [param.range_text] if param.range_text else []
        if param.live:
            notes.append('live')
        if notes:
            lines.append(f'    # ({"; ".join(notes)})')
        lines.append(f'    {param.name}: {_yaml(param.default)}')
    return '\n'.join(lines) + '\n'


def markdown_table() -> str:
    """Return the README's table of parameters."""
    names = {bool: 'bool', int: 'int', float: 'double', str: 'string', list: 'string array'}
    rows = ['| parameter | type | default | range | live | meaning |', '|---|---|---|---|---|---|']
    for param in TABLE:
        default = _yaml(param.default) if param.default not in ('', []) else 'empty'
        rows.append(
            f'| `{param.name}` | {names[type(param.default)]} | `{default}` | '
            f'{param.range_text} | {"yes" if param.live else "no"} | {param.description} |')
    return '\n'.join(rows) + '\n'
