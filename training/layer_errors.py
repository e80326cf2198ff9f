"""
Which layer of an int8 model loses how much.

The int8 model and the same graph in float see the same frames, and every layer's output is
compared with its namesake's: signal to quantization noise ratio (SQNR) in decibels, over all
frames. What a layer adds itself is the fall from its worst input to its output.
"""

from __future__ import annotations

import csv
import dataclasses
import importlib
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from training.calibration import sqnr_db
from bisenet_ros.core.output_files import write_text
from training.finished_run import QuantizationError
from training.tflite_file import Operation, Tensor, TfliteFile, read_tflite

#: Whoever brings an ``Interpreter`` that keeps the values of all tensors.
_RUNTIMES = ('ai_edge_litert.interpreter', 'tensorflow.lite')


@dataclasses.dataclass(frozen=True)
class LayerError:
    """
    Of one operation's output.

    Parameters
    ----------
    index : int
        Place in the order of execution.
    operation : str
    name : str
        The layer's, shortened to what tells it apart.
    sqnr_db : float
        Of the output.
    input_sqnr_db : float
        Of the worst computed input; infinite for the image.
    rounding_sqnr_db : float
        What the output would have if only it itself were rounded and cut off: the best that its
        scale allows.
    cut_off : float
        Share of the values at an end of the int8 range, zero of a ReLU apart.
    scale : float
        The output's quantization step.

    """

    index: int
    operation: str
    name: str
    sqnr_db: float
    input_sqnr_db: float
    rounding_sqnr_db: float
    cut_off: float
    scale: float

    @property
    def loss_db(self) -> float:
        """What the layer itself loses; infinite where its input was exact."""
        return self.input_sqnr_db - self.sqnr_db


class _Energy:
    """Sums over all frames of one tensor."""

    def __init__(self) -> None:
        self.signal = self.noise = self.rounding = 0.0
        self.cut_off = self.values = 0

    def update(
        self, tensor: Tensor, stored: npt.NDArray[np.integer], exact: npt.NDArray[np.float32],
    ) -> None:
        scale, zero = tensor.scales[0], tensor.zero_points[0]
        limits = np.iinfo(stored.dtype)
        found = (stored.astype(np.float64) - zero) * scale
        rounded = np.clip(np.round(exact / scale) + zero, limits.min, limits.max)
        self.signal += float(np.square(exact, dtype=np.float64).sum())
        self.noise += float(np.square(exact - found).sum())
        self.rounding += float(np.square(exact - (rounded - zero) * scale).sum())
        low = zero != limits.min  # else the lower end is the zero of a ReLU
        self.cut_off += int((stored == limits.max).sum() + low * (stored == limits.min).sum())
        self.values += stored.size


def _interpreter(content: bytes) -> Any:
    for name in _RUNTIMES:
        try:
            runtime = importlib.import_module(name)
        except ImportError:
            continue
        resolver = getattr(runtime, 'OpResolverType', None) or runtime.experimental.OpResolverType
        # A delegate computes many operations as one and keeps nothing in between.
        interpreter = runtime.Interpreter(
            model_content=content, experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=resolver.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
        interpreter.allocate_tensors()
        return interpreter
    raise QuantizationError('no TFLite runtime is installed; pip install ai-edge-litert.')


def _run(interpreter: Any, image: npt.NDArray[Any]) -> None:
    interpreter.set_tensor(interpreter.get_input_details()[0]['index'], image)
    interpreter.invoke()


def _compared(model: TfliteFile, twin: Mapping[str, int]) -> list[tuple[Operation, Tensor]]:
    return [(operation, tensor) for operation in model.operations for tensor in operation.outputs
            if tensor.name in twin and len(tensor.scales) == 1 and tensor.dtype == 'int8']


def layer_errors(
    quantized: Path, exact: Path, images: Iterable[npt.NDArray[np.uint8]],
) -> tuple[LayerError, ...]:
    """
    Compare every layer of an int8 model with a float one's.

    Parameters
    ----------
    quantized, exact : Path
        ``.tflite`` files converted from one Keras model, the first with uint8 input of scale
        1/255, the second with float input.
    images : iterable of uint8[H, W, 3]
        RGB at the network's size.

    Returns
    -------
    tuple of LayerError
        The least SQNR first.

    Raises
    ------
    QuantizationError
        If the two have no layer of equal name or no image is given.

    """
    model, reference = read_tflite(quantized), read_tflite(exact)
    twin = {tensor.name: tensor.index for operation in reference.operations
            for tensor in operation.outputs}
    compared = _compared(model, twin)
    if not compared:
        raise QuantizationError(
            f'{quantized} and {exact}: found no layer of equal name; convert both from one model.')
    runs = [_interpreter(path.read_bytes()) for path in (quantized, exact)]
    energies = {tensor.index: _Energy() for _, tensor in compared}
    frames = 0
    for image in images:
        _run(runs[0], image[None])
        _run(runs[1], image[None].astype(np.float32) / 255)
        for _, tensor in compared:
            energies[tensor.index].update(
                tensor, runs[0].get_tensor(tensor.index), runs[1].get_tensor(twin[tensor.name]))
        frames += 1
    if not frames:
        raise QuantizationError('layers: found no frame, expected at least one.')
    ratios = {index: sqnr_db(sums.signal, sums.noise) for index, sums in energies.items()}
    names = short_names([tensor.name for _, tensor in compared])
    found = [LayerError(
        operation.index, operation.name, name, ratios[tensor.index],
        min((ratios.get(source.index, float('inf')) for source in operation.activations),
            default=float('inf')),
        sqnr_db(energies[tensor.index].signal, energies[tensor.index].rounding),
        energies[tensor.index].cut_off / energies[tensor.index].values, tensor.scales[0])
        for (operation, tensor), name in zip(compared, names, strict=True)]
    return tuple(sorted(found, key=lambda layer: layer.sqnr_db))


def short_names(names: list[str]) -> list[str]:
    """
    Return the layers' own names from those the converter made.

    It joins the names of all that it fused (``model/conv_1/convolution;model/conv_bn_1/sub1``):
    the last one's middle part is the layer that ends there. Equal results keep the whole name.

    """
    short = []
    for name in names:
        parts = name.split(';')[-1].split('/')
        short.append(parts[1] if len(parts) > 2 else parts[-1])
    return [whole if short.count(name) > 1 else name
            for whole, name in zip(names, short, strict=True)]


def table(layers: tuple[LayerError, ...], rows: int = 12) -> str:
    """Return the worst layers as text, and which one loses most."""
    lines = [f'{"SQNR dB":>8} {"inputs":>8} {"rounding":>8} {"cut off":>8}  layer']
    for layer in layers[:rows]:
        lines.append(
            f'{layer.sqnr_db:8.1f} {_decibels(layer.input_sqnr_db):>8} '
            f'{layer.rounding_sqnr_db:8.1f} {layer.cut_off:8.3%}  {layer.name} '
            f'({layer.operation})')
    if len(layers) > rows:
        lines.append(f'... and {len(layers) - rows} better ones')
    inner = [layer for layer in layers if np.isfinite(layer.loss_db)]
    if inner:
        worst = max(inner, key=lambda layer: layer.loss_db)
        lines.append(f'the greatest fall is in {worst.name}: from {worst.input_sqnr_db:.1f} to '
                     f'{worst.sqnr_db:.1f} dB')
    return '\n'.join(lines)


def _decibels(value: float) -> str:
    return f'{value:.1f}' if np.isfinite(value) else 'exact'


def write_layers(layers: tuple[LayerError, ...], path: Path) -> None:
    """
    Write all layers, worst first, as ``.csv`` or ``.json``.

    Raises
    ------
    QuantizationError
        If the file has another suffix.

    """
    rows = [{key: (round(value, 6) if np.isfinite(value) else None)
             if isinstance(value, float) else value
             for key, value in dataclasses.asdict(layer).items()} for layer in layers]
    if path.suffix == '.json':
        text = json.dumps(rows, indent=2, allow_nan=False) + '\n'
    elif path.suffix == '.csv':
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, [field.name for field in dataclasses.fields(LayerError)])
        writer.writeheader()
        writer.writerows(rows)
        text = buffer.getvalue()
    else:
        raise QuantizationError(f'--layers: found {str(path)!r}, expected a .csv or .json name.')
    write_text(path, text)
