"""The scores of a report for programs: plain numbers, null where there is none."""

from __future__ import annotations

import json
import math
from typing import Any

from training.report_html import Report, ece
from training.scoring import ModelScores, SetScores, Tally

SCHEMA = 1


def document(report: Report) -> dict[str, Any]:
    """
    Return what the JSON file holds.

    ``sets`` is by data set, ``models`` in it by model; ``all`` is over all frames, ``sequences``
    over those of each sequence. ``sha256`` of a model is of the file that was asked for, ``ran``
    of each that labelled frames. ``notes`` are lines that were printed beside the scores.

    """
    return {
        'schema': SCHEMA, 'command': report.command, 'commit': report.commit,
        'notes': list(report.notes),
        'models': {model.name: {'runs_as': model.description, 'sha256': model.sha256,
                                'ran': dict(model.ran), 'notes': list(model.notes)}
                   for model in report.models},
        'classes': list(report.names),
        'sets': {scores.spec: _set(report, scores) for scores in report.sets}}


def json_text(report: Report) -> str:
    """Return the JSON file's text."""
    return json.dumps(document(report), indent=2, allow_nan=False) + '\n'


def _set(report: Report, scores: SetScores) -> dict[str, Any]:
    labels = [model.name for model in report.models]
    return {
        'left_out': {'frames': len(scores.left_out), 'why': list(scores.left_out)},
        'models': {label: _model(report.names, model)
                   for label, model in zip(labels, scores.models, strict=True)},
        'agreement': [{
            'models': [labels[part.first], labels[part.second]],
            'share': plain(part.agreement), 'differing_pixels': part.pixels - part.equal,
            'iou_gap': None if part.gap is None else {
                'value': plain(part.gap.iou), 'low': plain(part.gap.low),
                'high': plain(part.gap.high)},
        } for part in scores.differences]}


def _model(names: tuple[str, ...], model: ModelScores) -> dict[str, Any]:
    return {
        'all': {**_tally(names, model.whole),
                'confusion': model.whole.matrix.counts.tolist(),
                'reliability': _bins(model.whole)},
        'sequences': {name: _tally(names, tally)
                      for name, tally in model.by_sequence.items()}}


def _tally(names: tuple[str, ...], tally: Tally) -> dict[str, Any]:
    matrix = tally.matrix
    columns = {'iou': matrix.iou(), 'precision': matrix.precision(), 'recall': matrix.recall(),
               'f1': matrix.f1(), 'boundary_f': tally.boundary.f()}
    classes = {name: {key: plain(column[index]) for key, column in columns.items()}
               for index, name in enumerate(names)}
    return {
        'frames': tally.frames, 'mean_iou': plain(matrix.mean_iou()),
        'accuracy': plain(matrix.accuracy()), 'boundary_f': plain(tally.boundary.mean_f()),
        'ece': plain(ece(tally)), 'classes': classes}


def _bins(tally: Tally) -> list[dict[str, Any]] | None:
    if tally.reliability is None:
        return None
    return [{'low': plain(part.low), 'high': plain(part.high), 'pixels': part.pixels,
             'confidence': plain(part.confidence), 'accuracy': plain(part.accuracy)}
            for part in tally.reliability.bins()]


def plain(value: float) -> float | None:
    """Return a number that JSON has, rounded to 6 decimals; None for NaN and infinity."""
    return round(float(value), 6) if math.isfinite(value) else None
