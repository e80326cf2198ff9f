"""
Road IoU of models on validation frames in other light and weather, and from other cameras.

    python benchmarks/robustness.py --model A.tflite B.tflite --data FOLDER --on camvid:val

Each effect of ``training.appearance`` is applied to every frame with a generator seeded by the
frame's number, the same for all models; labels change with the view where it is tilted or covered.
Training draws the same effects (pavement only where asked, which no shipped model was), so this
shows what they bought, not how a model does in real snow. Road is what each model learnt as road,
as its contract tells.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import machine
import numpy as np
import numpy.typing as npt

from bisenet_ros import Segmenter
from bisenet_ros.core.console import at_least
from bisenet_ros.core.postprocess import Wanted
from training import appearance, datasets, report_html
from training.augment import WEATHER, Augmentation, random_view
from training.class_matching import elsewhere
from training.learnt import from_provenance
from training.metrics import ConfusionMatrix

EFFECTS = ('as it is', 'tone', 'night', 'lamplight', 'fog', 'glare', 'motion', 'coarse', 'jpeg',
           'tilted', 'markings', 'hood', 'obstacles', 'pavement', *WEATHER)

#: A frame as it is, at its own size.
STILL = Augmentation(
    scale=(1, 1), aspect=1, rotation_deg=0, flip=False, colour=0, blur=0, noise=0, cutout=0,
    shadow=0)

#: Effects that change labels as well, or have to know them.
VIEWS = {
    'tilted': dataclasses.replace(
        STILL, scale=(0.8, 1.25), aspect=1.3, rotation_deg=8, perspective=0.25, flip=True),
    **{name: dataclasses.replace(STILL, **{name: 1}) for name in (
        'markings', 'hood', 'obstacles', 'pavement', *WEATHER)},
}

Image = npt.NDArray[np.uint8]


def changed(
    effect: str, rgb: Image, ids: Image, number: int, dataset: datasets.FrameDataset,
) -> tuple[Image, Image]:
    """Return the frame under an effect, with its labels."""
    rng = np.random.default_rng([11, number])
    if effect == 'as it is':
        return rgb, ids
    if effect == 'tone':
        donor, _ = dataset.read(int(rng.integers(len(dataset))))
        return appearance.tone_of(rgb, donor, rng), ids
    if effect in VIEWS:
        return random_view(
            rgb, ids, rgb.shape[:2], rng, VIEWS[effect], background=datasets.BACKGROUND,
            road=datasets.ROAD, ground=datasets.GROUND)
    return getattr(appearance, effect)(rgb, rng), ids


def road_ids(path: Path, segmenter: Segmenter) -> list[int]:
    """Return the ids of the labels that a model learnt as road; say which if not road alone."""
    contract = segmenter.contract
    learnt = from_provenance(contract.provenance, contract.class_names)
    others = elsewhere(datasets.TAXONOMY, contract.class_names, learnt)
    found = [index for index, name in enumerate(datasets.TAXONOMY)
             if others.get(name, name) == 'road']
    if found != [datasets.ROAD]:
        names = ' and '.join(datasets.TAXONOMY[index] for index in found) or 'none of the data'
        sys.stderr.write(f'note: {path.name} learnt {names} as road, and is scored so\n')
    return found


def main() -> None:
    """Score every model under every effect."""
    parser = argparse.ArgumentParser(description=__doc__.strip().partition('\n')[0])
    parser.add_argument('--model', type=Path, nargs='+', required=True)
    parser.add_argument('--data', type=Path, required=True)
    parser.add_argument('--on', nargs='+', default=['camvid:val', 'idd_lite:val'])
    parser.add_argument('--every', type=at_least(1), default=1, help='only every n-th frame')
    parser.add_argument('--json', type=machine.output_file)
    options = parser.parse_args()
    segmenters = [Segmenter.load(path, device='cpu') for path in options.model]
    roads = [road_ids(path, segmenter) for path, segmenter
             in zip(options.model, segmenters, strict=True)]
    rows = []
    for effect in EFFECTS:
        scores = [ConfusionMatrix(2) for _ in segmenters]
        for spec in options.on:
            dataset = datasets.open_dataset(spec, options.data)
            for number in range(0, len(dataset), options.every):
                rgb, ids = changed(effect, *dataset.read(number), number, dataset)
                for segmenter, matrix, learnt in zip(segmenters, scores, roads, strict=True):
                    truth = np.where(
                        ids == datasets.VOID, ids, np.isin(ids, learnt)).astype(np.uint8)
                    road = segmenter.contract.class_names.index('road')
                    labels = segmenter.segment(rgb, wanted=Wanted(labels=True)).labels
                    matrix.update(truth, (labels == road).astype(np.uint8))
        found = [float(matrix.iou()[1]) for matrix in scores]
        rows.append({'effect': effect, 'road_iou': [
            None if np.isnan(value) else round(value, 4) for value in found]})
        if effect == EFFECTS[0]:
            names = ' | '.join(path.stem for path in options.model)
            sys.stdout.write(f'| effect | {names} |\n|---|{"---|" * len(segmenters)}\n')
        cells = ' | '.join(report_html.number(value, 3) for value in found)
        sys.stdout.write(f'| {effect} | {cells} |\n')
        sys.stdout.flush()
    if options.json:
        options.json.write_text(json.dumps({
            'models': [path.name for path in options.model], 'on': options.on,
            'every': options.every, 'rows': rows}, indent=2, allow_nan=False) + '\n')


if __name__ == '__main__':
    main()
