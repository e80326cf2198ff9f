"""
Score a model's road mask on data sets, whole and by drive.

    python -m training.evaluate --model road_256x512.tflite --data FOLDER --on camvid:test

A ``.tflite`` is scored through the API that robots use (``bisenet_ros.Segmenter``), frames at
their own size; a ``.keras`` file in float. Any model with a class called ``road`` can be scored,
Google's Cityscapes model among them (``--class-names``).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bisenet_ros.core.errors import DeviceError, ModelError, SettingsError
from bisenet_ros.core.postprocess import Wanted
from bisenet_ros.core.segmenter import Segmenter
from training import datasets
from training.augment import whole_view
from training.metrics import ConfusionMatrix, labels_from_logits

#: From ``uint8[H, W, 3]`` RGB to ``uint8[H, W]``: 1 on road, 0 elsewhere.
RoadPredictor = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]


@dataclasses.dataclass(frozen=True)
class RoadScore:
    """Of the road mask against everything else, void pixels left out."""

    frames: int
    iou: float
    precision: float
    recall: float

    @classmethod
    def of(cls, frames: int, matrix: ConfusionMatrix) -> RoadScore:
        """Read the scores off a matrix of rest (0) and road (1)."""
        (_, false, _), (missed, hit, _) = matrix.counts.tolist()
        return cls(
            frames, float(matrix.iou()[1]), hit / max(hit + false, 1), hit / max(hit + missed, 1))


def evaluate(
    predict: RoadPredictor, dataset: datasets.FrameDataset,
) -> tuple[RoadScore, dict[str, RoadScore]]:
    """
    Score a predictor on a data set.

    Parameters
    ----------
    predict : callable
    dataset : FrameDataset

    Returns
    -------
    (RoadScore, dict of str to RoadScore)
        Over all frames, and by drive; each from one accumulated confusion matrix.

    """
    by_drive: dict[str, ConfusionMatrix] = {}
    frames: dict[str, int] = {}
    for index in range(len(dataset)):
        rgb, ids = dataset.read(index)
        truth = np.where(ids == datasets.VOID, datasets.VOID, ids == datasets.ROAD)
        drive = dataset.sequence(index)
        matrix = by_drive.setdefault(drive, ConfusionMatrix(2))
        matrix.update(truth.astype(np.uint8), predict(rgb))
        frames[drive] = frames.get(drive, 0) + 1
    whole = ConfusionMatrix(2)
    for matrix in by_drive.values():
        whole.counts += matrix.counts
    return RoadScore.of(len(dataset), whole), {
        drive: RoadScore.of(frames[drive], matrix) for drive, matrix in sorted(by_drive.items())}


def tflite_predictor(model: Path, device: str, class_names: list[str]) -> RoadPredictor:
    """Return a predictor that runs a ``.tflite`` as a robot would."""
    segmenter = Segmenter.load(model, device=device, class_names=class_names)

    def predict(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        mask = segmenter.segment(rgb, wanted=Wanted(labels=False, mask=True)).mask
        return (mask > 0).astype(np.uint8)

    return predict


def keras_predictor(model: Path, road: int) -> RoadPredictor:
    """Return a predictor that runs a deployable ``.keras`` file in float."""
    import keras  # here, so that scoring a .tflite needs no training packages

    network = keras.models.load_model(model, compile=False)
    input_hw = tuple(network.input_shape[1:3])

    def predict(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        view, _ = whole_view(rgb, np.zeros(rgb.shape[:2], np.uint8), input_hw)
        logits = keras.ops.convert_to_numpy(
            network(view[None].astype(np.float32) / 255, training=False))[0]
        labels = labels_from_logits(logits, (rgb.shape[0], rgb.shape[1]))
        return (labels == road).astype(np.uint8)

    return predict


def main(argv: list[str] | None = None) -> int:
    """Evaluate from the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m training.evaluate',
        description='Score a model\'s road mask on data sets, whole and by drive.')
    parser.add_argument('--model', type=Path, required=True, help='a .tflite or .keras file')
    parser.add_argument('--on', nargs='+', required=True, metavar='SET',
                        help='such as camvid:test')
    parser.add_argument('--data', type=Path,
                        help=f'data folder (default: ${datasets.ENVIRONMENT})')
    parser.add_argument('--device', default='cpu', help='for a .tflite (default: %(default)s)')
    parser.add_argument('--class-names', nargs='+', default=[], metavar='NAME',
                        help='for a .tflite without a contract: names by id, or a class list')
    parser.add_argument('--road', type=int, default=1,
                        help='for a .keras file: the id of road (default: %(default)s)')
    parser.add_argument('--drives', type=int, default=8,
                        help='print drives apart where there are at most this many')
    parser.add_argument('--json', type=Path, help='also write the scores to this file')
    args = parser.parse_args(argv)
    results = {}
    try:
        if args.model.suffix == '.keras':
            if not args.model.is_file():
                raise ModelError(f'{args.model}: no such file.')
            predict = keras_predictor(args.model, args.road)
        else:
            predict = tflite_predictor(args.model, args.device, args.class_names)
        for spec in args.on:
            whole, by_drive = evaluate(predict, datasets.open_dataset(spec, args.data))
            results[spec] = {'all': dataclasses.asdict(whole), 'drives': {
                drive: dataclasses.asdict(score) for drive, score in by_drive.items()}}
            apart = by_drive if 1 < len(by_drive) <= args.drives else {}
            for name, score in ((spec, whole), *apart.items()):
                print(f'{name:<20} {score.frames:5d} frames   road IoU {score.iou:.4f}   '
                      f'precision {score.precision:.4f}   recall {score.recall:.4f}', flush=True)
    except (datasets.DatasetError, ModelError, DeviceError, SettingsError) as error:
        print(error, file=sys.stderr)
        return 1
    if args.json:
        args.json.write_text(json.dumps({'model': args.model.name, **results}, indent=2) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
