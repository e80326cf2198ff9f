"""
Quantize a trained model to int8 and write it with its contract.

    python -m training.quantize --run runs/road_256x512 --data FOLDER --output road_256x512.tflite

The model takes camera bytes as they are (uint8, scale 1/255, zero point 0), has static shapes and
per-channel weights, and returns int8 scores at the output stride. It is calibrated on whole
training frames, never on those that score it. Nothing else in training needs TensorFlow.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from bisenet_ros.core.contract import (
    ModelContract, contract_path, file_sha256, palette, read_contract,
)
from bisenet_ros.core.engine import LiteRtEngine
from bisenet_ros.core.errors import DeviceError, ModelError
from bisenet_ros.core.postprocess import Wanted
from bisenet_ros.core.segmenter import Segmenter
from training import datasets
from training.augment import whole_view
from training.metrics import ConfusionMatrix, labels_from_logits
from training.model import PRESETS, build
from training.train import commit

#: Colour of each deployed class where the class has a customary one (Cityscapes' palette).
COLORS_RGB = {'background': (0, 0, 0), 'road': (128, 64, 128), 'ground': (244, 35, 232),
              'movable': (0, 0, 142)}

INPUT_SCALE = 1 / 255


class QuantizationError(RuntimeError):
    """A model cannot be quantized as asked."""


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """What ``training.train`` left: the float model and how it came about."""

    model: keras.Model
    classes: tuple[str, ...]
    merge: tuple[int, ...]
    mark: str
    train_sets: tuple[str, ...]
    provenance: dict[str, Any]


def read_run(folder: Path) -> FinishedRun:
    """
    Read a run folder.

    Raises
    ------
    QuantizationError
        If it holds no finished epoch at the deployed size.

    """
    model_path, config_path = folder / 'best.keras', folder / 'config.json'
    for path in (config_path, model_path):
        if not path.is_file():
            raise QuantizationError(
                f'{path}: missing; expected a run folder of training.train with at least one '
                'finished epoch at the deployed input size.')
    described = json.loads(config_path.read_text())
    config = described['config']
    model = keras.models.load_model(model_path, compile=False)
    return FinishedRun(
        model, tuple(config['classes']), tuple(config['merge']), config['mark'],
        tuple(spec for spec, _ in config['train']),
        {'command': ' '.join(described['command']), 'commit': described['commit'],
         'datasets': [spec for spec, _ in config['train']],
         'selected_on': config['validate'][0]})


def calibration_frames(
    sets: list[datasets.FrameDataset], count: int, input_hw: tuple[int, int], seed: int = 0,
) -> Iterator[npt.NDArray[np.float32]]:
    """
    Yield whole frames as the network sees them, evenly from several data sets.

    Parameters
    ----------
    sets : list of FrameDataset
    count : int
        Frames in all.
    input_hw : (int, int)
    seed : int

    Yields
    ------
    float32[1, H, W, 3]
        In [0, 1]. Each holds a black and a white value, so that the input's range is calibrated
        to exactly [0, 1] and camera bytes need no conversion.

    """
    rng = np.random.default_rng(seed)
    for dataset in sets:
        share = min(len(dataset), -(-count // len(sets)))
        for index in rng.choice(len(dataset), share, replace=False):
            view, _ = whole_view(*dataset.read(int(index)), input_hw)
            batch = view[None].astype(np.float32) / 255
            batch.flat[0], batch.flat[-1] = 0.0, 1.0
            yield batch


def quantize(model: keras.Model, frames: Iterator[npt.NDArray[np.float32]]) -> bytes:
    """
    Convert a deployable Keras model to int8.

    Parameters
    ----------
    model : keras.Model
        With a fixed batch of one.
    frames : iterator of float32[1, H, W, 3]
        Calibration.

    Returns
    -------
    bytes
        The ``.tflite`` file.

    Raises
    ------
    QuantizationError
        If TensorFlow is missing or the input's quantization is not 1/255 and 0.

    """
    if keras.backend.backend() != 'tensorflow':
        raise QuantizationError(
            f'Keras runs on {keras.backend.backend()}, conversion needs TensorFlow; unset '
            'KERAS_BACKEND.')
    try:
        import tensorflow as tf
        from tensorflow.python.framework.convert_to_constants import (
            convert_variables_to_constants_v2,
        )
    except ImportError as error:
        raise QuantizationError(
            'TensorFlow is not installed; pip install ".[train]".') from error
    # A frozen concrete function keeps every shape static; a saved model would not.
    function = tf.function(model).get_concrete_function(
        tf.TensorSpec(model.input_shape, tf.float32))
    frozen = convert_variables_to_constants_v2(function)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([frame] for frame in frames)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    converter.inference_output_type = tf.int8
    converted: bytes = converter.convert()
    return converted


def write_model(
    content: bytes, path: Path, run: FinishedRun, input_hw: tuple[int, int],
) -> ModelContract:
    """
    Write a converted model and its contract, then read both back.

    Raises
    ------
    QuantizationError
        If the input's quantization came out other than scale 1/255 and zero point 0.

    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    engine = LiteRtEngine(path, 1)
    if abs(engine.input.scale - INPUT_SCALE) > 1e-7 or engine.input.zero_point != 0:
        raise QuantizationError(
            f'{path}: its input is {engine.input}, expected scale {INPUT_SCALE:.6g} and zero 0; '
            'the calibration frames must span exactly [0, 1].')
    others = palette(len(run.classes))
    contract = ModelContract(
        input_hw=input_hw, channels='rgb', input_scale=(INPUT_SCALE,) * 3,
        input_mean=(0.0, 0.0, 0.0), output_kind='logits',
        output_stride=input_hw[0] // engine.output.shape[1], class_names=run.classes,
        class_colors_rgb=tuple(
            COLORS_RGB.get(name, others[index]) for index, name in enumerate(run.classes)),
        sha256=file_sha256(path), provenance=run.provenance)
    contract_path(path).write_text(contract.to_json())
    return contract


def _merge_table(merge: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    table = np.full(256, datasets.VOID, np.uint8)
    table[:len(merge)] = merge
    return table


def compare(
    run: FinishedRun, segmenter: Segmenter, dataset: datasets.FrameDataset,
) -> tuple[ConfusionMatrix, ConfusionMatrix, float]:
    """
    Score the float and the int8 model on the same frames.

    Parameters
    ----------
    run : FinishedRun
    segmenter : Segmenter
        With the quantized model; it is scored through the API that robots use.
    dataset : FrameDataset

    Returns
    -------
    (ConfusionMatrix, ConfusionMatrix, float)
        Float, int8, and the share of pixels on which both agree.

    """
    merge = _merge_table(run.merge)
    scores = ConfusionMatrix(len(run.classes)), ConfusionMatrix(len(run.classes))
    equal = total = 0
    for index in range(len(dataset)):
        rgb, ids = dataset.read(index)
        view, _ = whole_view(rgb, ids, segmenter.contract.input_hw)
        logits = keras.ops.convert_to_numpy(
            run.model(view[None].astype(np.float32) / 255, training=False))[0]
        as_float = labels_from_logits(logits, ids.shape)
        as_int8 = segmenter.segment(rgb, wanted=Wanted(labels=True)).labels
        for matrix, predicted in zip(scores, (as_float, as_int8), strict=True):
            matrix.update(merge[ids], predicted)
        equal += int((as_float == as_int8).sum())
        total += as_float.size
    return *scores, equal / max(total, 1)


def main(argv: list[str] | None = None) -> int:
    """Quantize from the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m training.quantize',
        description='Quantize a trained model to int8 and write it with its contract.')
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('--run', type=Path, help='run folder of training.train')
    source.add_argument('--untrained', choices=sorted(PRESETS), metavar='PRESET',
                        help='a network without training, to measure its time and mapping: '
                             f'{", ".join(sorted(PRESETS))}')
    parser.add_argument('--output', type=Path, required=True, help='the .tflite file to write')
    parser.add_argument('--data', type=Path,
                        help=f'data folder (default: ${datasets.ENVIRONMENT})')
    parser.add_argument('--calibrate', nargs='+', metavar='SET',
                        help='data sets to calibrate on (default: those trained on)')
    parser.add_argument('--frames', type=int, default=200,
                        help='calibration frames (default: %(default)s)')
    parser.add_argument('--score', nargs='+', metavar='SET',
                        help='splits to score float and int8 on (default: the one selected on)')
    parser.add_argument('--edgetpu', action='store_true',
                        help='also compile for the EdgeTPU, where edgetpu_compiler is installed')
    args = parser.parse_args(argv)
    try:
        _run(args)
    except (QuantizationError, datasets.DatasetError, ModelError, DeviceError) as error:
        print(error, file=sys.stderr)
        return 1
    return _compile(args.output) if args.edgetpu else 0


def _run(args: argparse.Namespace) -> None:
    if args.output.suffix != '.tflite':
        raise QuantizationError(f'--output: found {str(args.output)!r}, expected a .tflite name.')
    if args.frames < 1:
        raise QuantizationError(f'--frames: found {args.frames}, expected at least 1.')
    if args.untrained:
        _write_untrained(args.untrained, args.output)
        return
    run = read_run(args.run)
    input_hw = tuple(run.model.input_shape[1:3])
    calibrate = args.calibrate or list(run.train_sets)
    sets = [datasets.open_dataset(spec, args.data) for spec in calibrate]
    score_on = args.score or [run.provenance['selected_on']]
    scored = {spec: datasets.open_dataset(spec, args.data) for spec in score_on}
    print(f'calibrating on {args.frames} frames of {", ".join(calibrate)}', flush=True)
    content = quantize(run.model, calibration_frames(sets, args.frames, input_hw))
    contract = write_model(content, args.output, run, input_hw)
    print(f'{args.output}: {len(content) / 1e6:.2f} MB, input {input_hw[0]}x{input_hw[1]}, '
          f'{len(contract.class_names)} classes at stride {contract.output_stride}')

    segmenter = Segmenter.load(args.output, device='cpu')
    mark, scores = run.classes.index(run.mark), {}
    for spec, dataset in scored.items():
        as_float, as_int8, agreement = compare(run, segmenter, dataset)
        pair = [round(float(matrix.iou()[mark]), 4) for matrix in (as_float, as_int8)]
        scores[spec] = {'float': pair[0], 'int8': pair[1], 'agreement': round(agreement, 5)}
        print(f'{run.mark} IoU on {spec}: float {pair[0]:.4f}, int8 {pair[1]:.4f} '
              f'({pair[1] - pair[0]:+.4f}); they agree on {agreement:.2%} of the pixels',
              flush=True)
    provenance = {**run.provenance, 'quantized_at': commit(), 'calibrated_on': calibrate,
                  'calibration_frames': args.frames, f'{run.mark}_iou': scores}
    final = dataclasses.replace(read_contract(contract_path(args.output)), provenance=provenance)
    contract_path(args.output).write_text(final.to_json())


def _write_untrained(preset: str, path: Path) -> None:
    """Write a preset with random weights: its time and its operations are a trained one's."""
    input_hw = 256, 512
    model = build(PRESETS[preset], input_hw, batch_size=1)
    content = quantize(model, calibration_frames([datasets.SyntheticDrive(8)], 8, input_hw))
    run = FinishedRun(model, ('background', 'road'), (0, 1, 0, 0), 'road', (), {
        'untrained': preset, 'commit': commit()})
    write_model(content, path, run, input_hw)
    print(f'{path}: untrained {preset}, {len(content) / 1e6:.2f} MB')


def _compile(model: Path) -> int:
    from training.edgetpu import CompilerError, compile_model

    try:
        print(compile_model(model))
    except CompilerError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
