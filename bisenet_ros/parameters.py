"""
The nodes' parameters, a table for each node.

They feed the descriptors (``ros2 param describe``), ``--help``, and the README and
``config/segment.yaml``, which tests hold equal to them.
"""

from __future__ import annotations

import dataclasses
import re
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

from bisenet_ros.core.preprocess import FITS
from bisenet_ros.core.segmenter import OUTPUT_SIZES, Settings

Value = bool | int | float | str | list[str] | list[int]

#: Columns of what ``help_text`` returns.
HELP_COLUMNS = 96


@dataclasses.dataclass(frozen=True)
class Param:
    """
    One parameter.

    Parameters
    ----------
    name : str
    default : bool, int, float, str, list of str or list of int
        Its type is the parameter's type; an empty list is one of texts.
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
    def type_text(self) -> str:
        """Return the type as ROS calls it."""
        if isinstance(self.default, list):
            return 'int array' if self.default and isinstance(self.default[0], int) else (
                'string array')
        return {bool: 'bool', int: 'int', float: 'double', str: 'string'}[type(self.default)]

    @property
    def default_text(self) -> str:
        """Return the default as YAML writes it."""
        return _yaml(self.default) if self.default not in ('', []) else 'empty'

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


#: Of ``segmenter``.
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

#: Of ``cameras``, which gives its segmenters theirs.
CAMERAS = Param('cameras', [], 'Names of the cameras: each is the namespace of its segmenter.')

#: Of ``replay``.
REPLAY: tuple[Param, ...] = (
    Param('source', 'drive', 'drive (a rendered one), a video, an image, a folder of images, or a '
          'camera device (/dev/video0).'),
    Param('rate_hz', 0.0, 'Frames a second; 0 = the source\'s own. A camera device keeps its own.',
          0.0, 1000.0),
    Param('loop', True, 'Begin anew behind the last frame; false waits for a subscriber, plays '
          'once and ends.'),
    Param('size', [1280, 720], 'Width and height of the rendered drive in pixels.'),
    Param('seed', 0, 'What the rendered drive is made from: the same one, the same drive.'),
    Param('frame_id', 'camera_optical_frame', 'frame_id of images and camera info.'),
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


def descriptor(param: Param, read_only: bool = False) -> ParameterDescriptor:
    """
    Return what ``ros2 param describe`` shows.

    One that is read-only has its range in words: rclpy would refuse others in words of its own,
    and nobody sets it later.

    """
    described = ParameterDescriptor(
        name=param.name, description=param.description, read_only=read_only)
    if read_only:
        described.additional_constraints = param.range_text
        return described
    if param.low is not None and isinstance(param.default, int):
        described.integer_range = [
            IntegerRange(from_value=int(param.low), to_value=int(param.high), step=0)]
    elif param.low is not None:
        described.floating_point_range = [
            FloatingPointRange(from_value=param.low, to_value=param.high, step=0.0)]
    notes = [f'one of: {param.range_text}'] if param.choices else []
    if not param.live:
        notes.append('can only be set while the node is unconfigured')
    described.additional_constraints = '; '.join(notes)
    return described


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


def markdown_table(table: Iterable[Param] = TABLE) -> str:
    """Return one of the README's tables of parameters."""
    table = list(table)
    columns = {
        'parameter': [f'`{param.name}`' for param in table],
        'type': [param.type_text for param in table],
        'default': [f'`{param.default_text}`' for param in table],
        'range': [param.range_text for param in table],
        'live': ['yes' if param.live else 'no' for param in table],
        'meaning': [param.description for param in table]}
    if not any(param.live for param in table):
        del columns['live']
    lines = [f'| {" | ".join(row)} |' for row in (columns, *zip(*columns.values(), strict=True))]
    return '\n'.join([lines[0], '|---' * len(columns) + '|', *lines[1:]]) + '\n'


def help_text(table: Iterable[Param]) -> str:
    """Return what ``--help`` says of a node's parameters."""
    lines = ['Parameters (-p NAME:=VALUE, or in a parameter file), with their defaults:']
    for param in table:
        allowed = f': {param.range_text}' if param.range_text else ''
        lines += ['', f'  {param.name} ({param.type_text}{allowed}), {param.default_text}',
                  textwrap.fill(param.description, HELP_COLUMNS, initial_indent=' ' * 6,
                                subsequent_indent=' ' * 6, break_on_hyphens=False)]
    return '\n'.join(lines)
