r"""
Quantize a trained model to int8 and write it with its contract.

    python -m training.quantize --run runs/road_256x512 --data FOLDER --output road_256x512.tflite
    python -m training.quantize --run runs/road_256x512 --data FOLDER --output road.tflite \
        --calibration auto --temperature auto --layers layers.csv --score camvid:val idd_lite:val

The model takes camera bytes as they are (uint8, scale 1/255, zero point 0), has static shapes and
per-channel weights, and returns int8 scores at the output stride. It is calibrated on training
frames, never on those that score it. Nothing else in training needs TensorFlow.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from bisenet_ros.core.contract import (
    ModelContract, contract_path, file_sha256, read_contract,
)
from bisenet_ros.core.engine import LiteRtEngine
from bisenet_ros.core.errors import DeviceError, ModelError
from bisenet_ros.core.output_files import (
    OutputError, check_apart, check_writable, write_bytes, write_text,
)
from bisenet_ros.core.postprocess import Wanted
from bisenet_ros.core.segmenter import Segmenter
from training import datasets
from training.augment import whole_view
from training.calibration import (
    Agreement, agreement, calibration_frames, choose, frame_shares, frames_by_turns, Plan, PLANS,
    Pool,
)
from training.edgetpu_report import compiled_path
from training.finished_run import EPOCHS, FinishedRun, QuantizationError, RunError, read_run
from training.layer_errors import layer_errors, table, write_layers
from training.metrics import ConfusionMatrix, labels_from_logits
from training.model import build, PRESETS
from training.predictors import class_colors
from training.provenance import commit
from training.temperature import doubt, fitted, float_logits, fold
from training.tflite_file import TfliteError

INPUT_SCALE = 1 / 255

#: Of the earlier run in a mean of weights.
SHARE = 0.3

#: Of a fixed calibration.
FRAMES = 200

#: Frames on which plans of calibration, or layers, are compared.
HELD_OUT, LAYER_FRAMES = 60, 8


def _converter(model: keras.Model) -> tuple[Any, Any]:
    """Return TensorFlow and its converter of a model."""
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
    return tf, tf.lite.TFLiteConverter.from_concrete_functions([frozen])


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
    tf, converter = _converter(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([frame] for frame in frames)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    converter.inference_output_type = tf.int8
    converted: bytes = converter.convert()
    return converted


def float_tflite(model: keras.Model) -> bytes:
    """Convert a model without quantizing it: the yardstick of ``--layers``."""
    converted: bytes = _converter(model)[1].convert()
    return converted


def _checked_engine(path: Path) -> LiteRtEngine:
    engine = LiteRtEngine(path, 1)
    if abs(engine.input.scale - INPUT_SCALE) > 1e-7 or engine.input.zero_point != 0:
        raise QuantizationError(
            f'{path}: its input is {engine.input}, expected scale {INPUT_SCALE:.6g} and zero 0; '
            'the calibration frames must span exactly [0, 1].')
    return engine


def write_model(
    content: bytes, path: Path, run: FinishedRun, input_hw: tuple[int, int],
) -> ModelContract:
    """
    Write a converted model that can be used, and its contract.

    Raises
    ------
    ModelError, QuantizationError
        If the model cannot be used, no contract can be made for it, or the input's quantization
        came out other than scale 1/255 and zero point 0. Nothing is written then.
    OutputError
        If a file cannot be written.

    """
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder, path.name)
        trial.write_bytes(content)
        try:
            engine = _checked_engine(trial)
            contract = ModelContract(
                input_hw=input_hw, channels='rgb', input_scale=(INPUT_SCALE,) * 3,
                input_mean=(0.0, 0.0, 0.0), output_kind='logits',
                output_stride=input_hw[0] // engine.output.shape[1], class_names=run.classes,
                class_colors_rgb=class_colors(run.classes),
                sha256=file_sha256(trial), provenance=run.provenance)
        except (ModelError, QuantizationError) as error:  # the user knows the path alone
            raise type(error)(str(error).replace(str(trial), str(path))) from error
    write_bytes(path, content)
    write_text(contract_path(path), contract.to_json())
    return contract


def _merge_table(merge: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    table = np.full(256, datasets.VOID, np.uint8)
    table[:len(merge)] = merge
    return table


def compare(
    run: FinishedRun, segmenter: Segmenter, dataset: datasets.FrameDataset,
) -> tuple[ConfusionMatrix, ConfusionMatrix, float]:
    """
    Score the float and the int8 model on the same frames, each at its own size.

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
        as_float = labels_from_logits(float_logits(run.model, view), ids.shape)
        as_int8 = segmenter.segment(rgb, wanted=Wanted(labels=True)).labels
        for matrix, predicted in zip(scores, (as_float, as_int8), strict=True):
            matrix.update(merge[ids], predicted)
        equal += int((as_float == as_int8).sum())
        total += as_float.size
    return *scores, equal / max(total, 1)


def int8_logits(
    content: bytes, views: Sequence[npt.NDArray[np.uint8]],
) -> Iterator[npt.NDArray[np.float32]]:
    """Yield ``float32[h, w, C]`` logits of a quantized model for views at its input size."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'model.tflite')
        path.write_bytes(content)
        engine = LiteRtEngine(path, 2)
    result = engine.output
    for view in views:
        yield (engine.run(view).astype(np.float32) - result.zero_point) * np.float32(result.scale)
    engine.close()


def calibrated(
    run: FinishedRun, sets: list[datasets.FrameDataset], plan: Plan | None,
) -> tuple[bytes, dict[str, Any]]:
    """
    Quantize a run's model.

    Parameters
    ----------
    run : FinishedRun
    sets : list of FrameDataset
        To calibrate on.
    plan : Plan or None
        None tries ``PLANS`` and keeps the one that agrees best with float on frames held out of
        the same sets.

    Returns
    -------
    (bytes, dict)
        The ``.tflite`` file, and what to tell of its calibration.

    """
    input_hw = tuple(run.model.input_shape[1:3])
    if plan is not None:
        content = quantize(run.model, calibration_frames(sets, plan.frames, input_hw))
        used = dataclasses.replace(plan, frames=sum(frame_shares(sets, plan.frames)))
        return content, {'calibration': str(used)}
    pool = Pool(sets, HELD_OUT)
    views = list(pool.views(input_hw))
    exact = [float_logits(run.model, view) for view in views]
    print(f'{"calibration":<15} {"SQNR dB":>8} {"equal labels":>13}', flush=True)

    def measure(content: bytes) -> Agreement:
        return agreement(zip(exact, int8_logits(content, views), strict=True), input_hw)

    best, content, tried = choose(
        pool.plans(PLANS), lambda each: quantize(run.model, pool.frames(each, input_hw)), measure,
        lambda each, found: print(
            f'{each!s:<15} {found.sqnr_db:8.2f} {found.labels:13.4%}', flush=True))
    print(f'kept: {best}')
    return content, {
        'calibration': str(best), 'calibration_chosen_on': f'{len(views)} frames held out',
        'calibrations_tried': {
            str(each): {'sqnr_db': finite(found.sqnr_db, 2), 'agreement': round(found.labels, 5)}
            for each, found in tried}}


def _temperature(run: FinishedRun, text: str, scored: dict[str, datasets.FrameDataset],
                 ) -> dict[str, Any]:
    """Fold the temperature that was asked for into the model; tell where it came from."""
    if text == 'none':
        return {}
    if text != 'auto':
        try:
            value = float(text)
        except ValueError as error:
            raise QuantizationError(
                f'--temperature: found {text!r}, expected none, auto or a number.') from error
        fold(run.model, value)
        return {'temperature': {'value': value}}
    found = fitted(run, list(scored.values()))
    fold(run.model, found.temperature)
    print(f'temperature {found.temperature:.2f} on {found.pixels} pixels of {", ".join(scored)}: '
          f'ECE {found.ece:.4f} to {found.ece_fitted:.4f}, negative log-likelihood '
          f'{found.nll:.4f} to {found.nll_fitted:.4f}', flush=True)
    if why := doubt(found):
        print(f'note: {why}', file=sys.stderr)
    return {'temperature': {
        'value': found.temperature, 'fitted_on': list(scored),
        'ece': [round(found.ece, 4), round(found.ece_fitted, 4)],
        'nll': [round(found.nll, 4), round(found.nll_fitted, 4)],
        **({'doubt': why} if why else {})}}


def _report_layers(
    run: FinishedRun, quantized: Path, sets: list[datasets.FrameDataset], path: Path,
) -> None:
    input_hw = tuple(run.model.input_shape[1:3])
    frames = frames_by_turns(sets)
    # No more than a pool would hold out, so that none was calibrated on where a plan was chosen.
    views = (whole_view(*dataset.read(index), input_hw)[0]
             for dataset, index in frames[:max(1, min(LAYER_FRAMES, len(frames) // 2))])
    with tempfile.TemporaryDirectory() as folder:
        exact = Path(folder, 'float.tflite')
        exact.write_bytes(float_tflite(run.model))
        layers = layer_errors(quantized, exact, views)
    write_layers(layers, path)
    print(f'{table(layers)}\nwritten: {path}', flush=True)


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
    parser.add_argument('--epoch', choices=EPOCHS, default='best',
                        help='of the run: the best one by its validation sets, or the last one, '
                             'where those do not show all that was trained (default: %(default)s)')
    parser.add_argument('--before', type=Path, metavar='RUN',
                        help='with --epoch last: a run that it descends from, to take the mean '
                             'of the weights of both')
    parser.add_argument('--share', type=float, metavar='NUMBER',
                        help=f'weight of --before in that mean (default: {SHARE})')
    parser.add_argument('--output', type=Path, required=True, help='the .tflite file to write')
    parser.add_argument('--data', type=Path,
                        help=f'data folder (default: ${datasets.ENVIRONMENT})')
    parser.add_argument('--calibrate', nargs='+', metavar='SET',
                        help='data sets to calibrate on (default: those trained on)')
    parser.add_argument('--calibration', choices=('fixed', 'auto'), default='fixed',
                        help='fixed: --frames whole frames; auto: try several numbers and kinds '
                             'of views, keep what agrees best with float (default: %(default)s)')
    parser.add_argument('--frames', type=int,
                        help=f'frames of a fixed calibration (default: {FRAMES})')
    parser.add_argument('--temperature', default='none', metavar='none|auto|NUMBER',
                        help='divide the logits, so that confidence is honest; auto: fitted on '
                             'the sets of --score (default: %(default)s)')
    parser.add_argument('--layers', type=Path, metavar='FILE',
                        help='write how far each layer is off, as .csv or .json')
    parser.add_argument('--score', nargs='+', metavar='SET',
                        help='splits to score float and int8 on (default: the one selected on)')
    parser.add_argument('--edgetpu', action='store_true',
                        help='also compile for the EdgeTPU, where edgetpu_compiler is installed')
    args = parser.parse_args(argv)
    try:
        _run(args)
        code = _compile(args.output) if args.edgetpu else 0
        if code or not args.edgetpu:
            _note_compiled_before(args.output)
        return code
    except (QuantizationError, RunError, TfliteError, OutputError, datasets.DatasetError,
            ModelError, DeviceError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f'interrupted: {args.output} is not finished; the same command starts anew.',
              file=sys.stderr)
        return 130


def _run(args: argparse.Namespace) -> None:
    if args.output.suffix != '.tflite':
        raise QuantizationError(f'--output: found {str(args.output)!r}, expected a .tflite name.')
    frames = FRAMES if args.frames is None else args.frames
    if frames < 1:
        raise QuantizationError(f'--frames: found {frames}, expected at least 1.')
    if args.frames is not None and args.calibration == 'auto':
        raise QuantizationError(
            f'--frames: found {frames} beside --calibration auto, which tries several numbers '
            'itself; leave one of the two away.')
    share = SHARE if args.share is None else args.share
    if args.before and (args.epoch != 'last' or not 0 < share < 1):
        raise QuantizationError(
            f'--before: found --epoch {args.epoch} and --share {share}, expected --epoch last and '
            'a share above 0 and below 1.')
    if args.share is not None and not args.before:
        raise QuantizationError('--share: found no --before, whose weight it is; name that run.')
    if args.untrained:
        _check_untrained(args)
    if args.layers and args.layers.suffix not in ('.csv', '.json'):
        raise QuantizationError(
            f'--layers: found {str(args.layers)!r}, expected a .csv or .json name.')
    contract_file = contract_path(args.output)
    check_apart({'--output': args.output, "--output's contract": contract_file,
                 '--layers': args.layers},
                [run / name for run in (args.run, args.before) if run
                 for name in ('config.json', 'history.csv')])
    for path in filter(None, (args.output, contract_file, args.layers)):
        check_writable(path)
    if contract_file.exists():
        _check_is_contract(contract_file)
    if args.untrained:
        _write_untrained(args.untrained, args.output)
        return
    run = read_run(args.run, args.epoch, args.before, share)
    input_hw = tuple(run.model.input_shape[1:3])
    calibrate = args.calibrate or list(run.train_sets)
    sets = [datasets.open_dataset(spec, args.data, run.taxonomy, run.on_bad) for spec in calibrate]
    score_on = args.score or run.provenance['selected_on']
    scored = {spec: datasets.open_dataset(spec, args.data, run.taxonomy, run.on_bad)
              for spec in score_on}
    if run.on_bad == 'skip':
        # A stand-in for a bad frame would count another frame twice in a score.
        scored = {spec: datasets.readable(dataset) for spec, dataset in scored.items()}
    told = _temperature(run, args.temperature, scored)
    print(f'calibrating on {", ".join(calibrate)}', flush=True)
    content, calibration = calibrated(
        run, sets, None if args.calibration == 'auto' else Plan(frames))
    contract = write_model(content, args.output, run, input_hw)
    print(f'{args.output}: {len(content) / 1e6:.2f} MB, input {input_hw[0]}x{input_hw[1]}, '
          f'{len(contract.class_names)} classes at stride {contract.output_stride}')
    segmenter = Segmenter.load(args.output, device='cpu')
    scores = {}
    for spec, dataset in scored.items():
        as_float, as_int8, equal = compare(run, segmenter, dataset)
        pair = [marked_iou(matrix, run) for matrix in (as_float, as_int8)]
        scores[spec] = {'float': finite(pair[0], 4), 'int8': finite(pair[1], 4),
                        'agreement': round(equal, 5)}
        told_iou = (f'float {pair[0]:.4f}, int8 {pair[1]:.4f} ({pair[1] - pair[0]:+.4f})'
                    if np.isfinite(pair).all() else 'none, for it is nowhere')
        print(f'{run.mark} IoU on {spec}: {told_iou}; they agree on {equal:.2%} of the pixels',
              flush=True)
    provenance = {**run.provenance, 'quantized_at': commit(), 'calibrated_on': calibrate,
                  **calibration, **told, f'{run.mark}_iou': scores}
    final = dataclasses.replace(read_contract(contract_path(args.output)), provenance=provenance)
    write_text(contract_path(args.output), final.to_json())
    if args.layers:
        _report_layers(run, args.output, sets, args.layers)


def _check_untrained(args: argparse.Namespace) -> None:
    """Refuse what is of no effect on random weights."""
    for option, found, default in (
            ('--epoch', args.epoch, 'best'), ('--calibrate', args.calibrate, None),
            ('--calibration', args.calibration, 'fixed'), ('--frames', args.frames, None),
            ('--temperature', args.temperature, 'none'), ('--layers', args.layers, None),
            ('--score', args.score, None)):
        if found != default:
            raise QuantizationError(
                f'{option}: found {str(found)!r}, expected none beside --untrained: that network '
                'has no training, and is made for its time and mapping alone.')


def _check_is_contract(path: Path) -> None:
    """Refuse to write over what is no contract: a taxonomy of that name, perhaps."""
    try:
        read_contract(path)
    except ModelError as error:
        raise QuantizationError(
            f'{path}: found a file that is no contract, and the contract would replace it; give '
            'another --output, or remove the file.') from error


def finite(value: float, digits: int) -> float | None:
    """Return a rounded number, None for what JSON has no number for."""
    return round(value, digits) if np.isfinite(value) else None


def marked_iou(matrix: ConfusionMatrix, run: FinishedRun) -> float:
    """Return the IoU of the class that a run marks, or the mean of all; NaN if it is nowhere."""
    if run.mark not in run.classes:
        return matrix.mean_iou()
    return float(matrix.iou()[run.classes.index(run.mark)])


def _write_untrained(preset: str, path: Path) -> None:
    """Write a preset with random weights: its time and its operations are a trained one's."""
    input_hw = 256, 512
    model = build(PRESETS[preset], input_hw, batch_size=1)
    content = quantize(model, calibration_frames([datasets.SyntheticDrive(8)], 8, input_hw))
    names = tuple(f'class {index}' for index in range(2, PRESETS[preset].num_classes))
    run = FinishedRun(model, ('background', 'road', *names), (0, 1, 0, 0), 'road', (), {
        'untrained': preset, 'commit': commit()})
    write_model(content, path, run, input_hw)
    print(f'{path}: untrained {preset}, {len(content) / 1e6:.2f} MB')


def _note_compiled_before(model: Path) -> None:
    """Say that an EdgeTPU would still run the model that was there before."""
    if (compiled := compiled_path(model)).exists():
        print(f'note: {compiled} was not made of this {model.name}, and an EdgeTPU would run it: '
              f'compile anew (python -m training.edgetpu compile {model}), or remove it.',
              file=sys.stderr)


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
