"""
The model contract: what a deployed model expects and returns.

It sits beside ``<model>.tflite`` as ``<model>.json``, is written by ``training.quantize`` and read
by whoever runs the model. Shapes, types and quantization are *not* in it: the engine reads those
from the model itself and refuses to start where the two disagree.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bisenet_ros.core.errors import ModelError

SCHEMA = 1

#: Label id of a pixel that belongs to no class (vision_msgs/LabelInfo: the largest id).
UNLABELED = 255

OUTPUT_KINDS = ('logits', 'probabilities', 'labels')

Rgb = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class ModelContract:
    """
    What the bytes of a model mean.

    Parameters
    ----------
    input_hw : (int, int)
        Height and width of the network's input in pixels.
    channels : str
        ``rgb`` or ``bgr``: order of the input's channels.
    input_scale, input_mean : (float, float, float)
        The network sees ``(byte - mean) * scale`` of each channel.
    output_kind : str
        ``logits`` (before a softmax), ``probabilities`` (after it) or ``labels`` (class ids).
    output_stride : int
        Input pixels per output pixel.
    class_names : tuple of str
        Index = class id. At most 255: 255 means unlabeled.
    class_colors_rgb : tuple of (int, int, int)
        A colour for each class.
    sha256 : str
        Of the ``.tflite`` file; empty for a model that came without a contract.
    edgetpu_sha256 : str
        Of ``<model>_edgetpu.tflite``; empty if unknown.
    provenance : mapping
        Where the weights come from: training command, commit, datasets, scores. Free form.

    """

    input_hw: tuple[int, int]
    channels: str
    input_scale: tuple[float, float, float]
    input_mean: tuple[float, float, float]
    output_kind: str
    output_stride: int
    class_names: tuple[str, ...]
    class_colors_rgb: tuple[Rgb, ...]
    sha256: str = ''
    edgetpu_sha256: str = ''
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse values that no model can have."""
        if self.channels not in ('rgb', 'bgr'):
            raise ModelError(f"channels: found {self.channels!r}, expected 'rgb' or 'bgr'.")
        if self.output_kind not in OUTPUT_KINDS:
            raise ModelError(
                f'output kind: found {self.output_kind!r}, expected one of {OUTPUT_KINDS}.')
        if min(self.input_hw) < 1 or self.output_stride < 1:
            raise ModelError(
                f'found input {self.input_hw} and output stride {self.output_stride}, expected '
                'positive numbers.')
        if not 2 <= len(self.class_names) <= UNLABELED:
            raise ModelError(
                f'class names: found {len(self.class_names)}, expected 2 to {UNLABELED}.')
        if len(set(self.class_names)) != len(self.class_names):
            raise ModelError(f'class names: found a name twice in {list(self.class_names)}.')
        if len(self.class_colors_rgb) != len(self.class_names):
            raise ModelError(
                f'class colours: found {len(self.class_colors_rgb)} for '
                f'{len(self.class_names)} classes; expected one each.')
        if any(not 0 <= part <= 255 for color in self.class_colors_rgb for part in color):
            raise ModelError('class colours: found a value outside 0..255.')
        if min(self.input_scale) <= 0:
            raise ModelError(f'input scale: found {self.input_scale}, expected above 0.')

    def to_json(self) -> str:
        """Return the text of the contract file; ``ValueError`` for what JSON has no number for."""
        return json.dumps({
            'schema': SCHEMA,
            'input': {
                'height': self.input_hw[0], 'width': self.input_hw[1],
                'channels': self.channels, 'scale': list(self.input_scale),
                'mean': list(self.input_mean)},
            'output': {'kind': self.output_kind, 'stride': self.output_stride},
            'classes': [
                {'name': name, 'color_rgb': list(color)} for name, color
                in zip(self.class_names, self.class_colors_rgb, strict=True)],
            'unlabeled': UNLABELED,
            'sha256': self.sha256,
            'edgetpu_sha256': self.edgetpu_sha256,
            'provenance': dict(self.provenance),
        }, indent=2, allow_nan=False) + '\n'


def contract_path(model: Path) -> Path:
    """Return where a model's contract lies; a compiled model shares its CPU twin's."""
    stem = model.stem.removesuffix('_edgetpu')
    return model.with_name(f'{stem}.json')


def read_contract(path: Path) -> ModelContract:
    """
    Read a contract file.

    Raises
    ------
    ModelError
        If it is missing, not JSON, of another schema, or lacks or misstates a field.

    """
    try:
        raw = json.loads(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise ModelError(f'{path}: cannot be read: {error.strerror}.') from error
    except ValueError as error:
        raise ModelError(
            f'{path}: not a JSON file ({error}); export the model again with '
            'training.quantize.') from error
    if not isinstance(raw, dict) or (found := raw.get('schema')) != SCHEMA:
        found = raw.get('schema') if isinstance(raw, dict) else type(raw).__name__
        raise ModelError(
            f'{path}: contract schema is {found!r}, this version reads {SCHEMA}; export the model '
            'again with training.quantize.')
    try:
        if raw['unlabeled'] != UNLABELED:
            raise ModelError(f'unlabeled: found {raw["unlabeled"]!r}, expected {UNLABELED}.')
        image, result = raw['input'], raw['output']
        return ModelContract(
            input_hw=(_whole('height', image['height']), _whole('width', image['width'])),
            channels=image['channels'],
            input_scale=_triple('scale', image['scale']),
            input_mean=_triple('mean', image['mean']),
            output_kind=result['kind'],
            output_stride=_whole('stride', result['stride']),
            class_names=tuple(str(entry['name']) for entry in raw['classes']),
            class_colors_rgb=tuple(_color(entry['color_rgb']) for entry in raw['classes']),
            sha256=str(raw['sha256']),
            edgetpu_sha256=str(raw.get('edgetpu_sha256', '')),
            provenance=raw.get('provenance', {}))
    except KeyError as error:
        raise ModelError(
            f'{path}: field {error} is missing; export the model again with '
            'training.quantize.') from error
    except ModelError as error:
        raise ModelError(f'{path}: {error}') from error
    except TypeError as error:  # a number or a text in the place of an object
        raise ModelError(
            f'{path}: not laid out as a contract ({error}); export the model again with '
            'training.quantize.') from error


def file_sha256(path: Path) -> str:
    """
    Return a file's SHA-256 in hexadecimal digits.

    Raises
    ------
    ModelError
        If the file cannot be read.

    """
    digest = hashlib.sha256()
    try:
        with path.open('rb') as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise ModelError(f'{path}: cannot be read: {error.strerror}.') from error
    return digest.hexdigest()


def read_class_list(path: Path) -> tuple[tuple[str, ...], tuple[Rgb, ...]]:
    """
    Read class names, and their colours if given, from a text file.

    Parameters
    ----------
    path : Path
        One class a line in the order of the ids: ``name`` or ``name R G B`` (0 to 255), names
        with spaces allowed. Empty lines and lines that begin with ``#`` are skipped.

    Returns
    -------
    (tuple of str, tuple of (int, int, int))

    Raises
    ------
    ModelError
        If the file cannot be read, or does not name 2 to 255 different classes.

    """
    try:
        lines = path.read_text(encoding='utf-8-sig').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f'{path}: not a readable class list: {error}.') from error
    names: list[str] = []
    colors: list[Rgb | None] = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith('#'):
            continue
        if len(words) > 3 and all(word.isdecimal() for word in words[-3:]):
            names.append(' '.join(words[:-3]))
            red, green, blue = (int(word) for word in words[-3:])
            if max(red, green, blue) > 255:
                raise ModelError(f'{path}, line {number}: found the colour {red} {green} {blue}, '
                                 'expected three numbers of 0 to 255.')
            colors.append((red, green, blue))
        else:
            names.append(' '.join(words))
            colors.append(None)
        if names[-1] in names[:-1]:
            raise ModelError(f'{path}, line {number}: found the class {names[-1]!r} a second '
                             'time, expected each name once.')
    if not 2 <= len(names) <= UNLABELED:
        raise ModelError(f'{path}: names {len(names) or "no"} class{"es" * (len(names) > 1)}; '
                         f'expected 2 to {UNLABELED}, one a line.')
    default = palette(len(names))
    return tuple(names), tuple(
        color or default[index] for index, color in enumerate(colors))


def palette(count: int) -> tuple[Rgb, ...]:
    """Return colours for classes that came without: the PASCAL VOC colour map."""
    colors = []
    for index in range(count):
        red = green = blue = 0
        for bit in range(8):
            red |= (index >> (3 * bit) & 1) << (7 - bit)
            green |= (index >> (3 * bit + 1) & 1) << (7 - bit)
            blue |= (index >> (3 * bit + 2) & 1) << (7 - bit)
        colors.append((red, green, blue))
    return tuple(colors)


def _whole(field: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ModelError(f'{field}: found {value!r}, expected a whole number.')
    return value


def _triple(field: str, values: object) -> tuple[float, float, float]:
    if not isinstance(values, list) or len(values) != 3 or not all(
            isinstance(value, int | float) and math.isfinite(value) for value in values):
        raise ModelError(f'{field}: found {values!r}, expected three numbers.')
    first, second, third = (float(value) for value in values)
    return first, second, third


def _color(values: object) -> Rgb:
    if not isinstance(values, list) or len(values) != 3:
        raise ModelError(f'color_rgb: found {values!r}, expected three whole numbers.')
    red, green, blue = (_whole('color_rgb', value) for value in values)
    return red, green, blue
