r"""
Score models on data sets: by class, by drive, by boundary, by confidence, and against each other.

    python -m training.evaluate --model road_256x512.tflite --data FOLDER --on camvid:test
    python -m training.evaluate --model best.keras --against road.tflite road.tflite@usb:0 \\
        --data FOLDER --on camvid:val idd_lite:val --html report.html --json report.json

A ``.tflite`` is scored through the API that robots use (``bisenet_ros.Segmenter``), frames at
their own size; a ``.keras`` file in float. Classes count as what the models learnt them as, as far
as a run or a contract tells, else they are matched by name: a road/background model can be
scored on a finer taxonomy, Google's Cityscapes model on road alone (``--class-names``).
``docs/evaluation.md`` says what every figure means.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from bisenet_ros.core import console
from bisenet_ros.core.contract import Rgb, contract_path, palette
from bisenet_ros.core.errors import DeviceError, ModelError, SettingsError
from bisenet_ros.core.output_files import OutputError, check_apart, check_writable, write_text
from training import datasets
from training.class_matching import (
    elsewhere, match, match_as_learnt, Matching, MatchingError, merge_texts, parse_merges, plain,
)
from training.datasets.overlap import shared_frames
from training.predictors import Predictor, names_itself, open_predictor, parse_model
from training.provenance import commit
from training.report_html import FramePictures, ModelInfo, number, page, Report, SetPictures
from training.report_json import json_text
from training.report_pictures import difference_panels, truth_panels
from training.scoring import common, score, SetScores, Tally

Pixels = npt.NDArray[np.uint8]

#: The class that frames are ranked by and that is printed first, where models have it.
MARK = 'road'

#: What labels are read into where no model tells what it learnt.
TAXONOMY = 'road'

#: Of a .tflite that nothing names the device of.
DEVICE = 'cpu'

#: Rids a terminal's line of the progress.
CLEAR = '\r\033[K'


@console.ends_with_its_reader
def main(argv: list[str] | None = None) -> int:
    """Evaluate from the command line."""
    arguments = sys.argv[1:] if argv is None else argv
    args = _parser().parse_args(arguments)
    console.print_any_name()
    try:
        models = [parse_model(text, '')[0] for text in (args.model, *args.against)]
        check_apart({'--html': args.html, '--json': args.json},
                    [*models, *(contract_path(each) for each in models
                                if each.suffix == '.tflite')])
        for path in filter(None, (args.html, args.json)):
            check_writable(path)
        report = evaluate(
            args, shlex.join(['python', '-m', 'training.evaluate', *arguments]))
        return _write(report, args)
    except (datasets.DatasetError, MatchingError, ModelError, DeviceError, SettingsError,
            OutputError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f'{CLEAR if sys.stderr.isatty() else ""}interrupted: not all is scored and written.',
              file=sys.stderr)
        return 130


def _write(report: Report, args: argparse.Namespace) -> int:
    """Write what was asked for, the one file where the other cannot be; return the exit code."""
    code = 0
    for path, text_of in ((args.json, json_text), (args.html, page)):
        if path is not None:
            try:
                write_text(path, text_of(report))
            except OutputError as error:
                print(error, file=sys.stderr)
                code = 1
            else:
                print(f'written: {path}')
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python -m training.evaluate',
        description='Score models on data sets, whole and by drive, and against each other.')
    parser.add_argument('--model', required=True, metavar='FILE[@DEVICE]',
                        help='a .tflite or .keras file, or the name of a shipped model '
                             '(road_128x256)')
    parser.add_argument('--against', nargs='+', default=[], metavar='FILE[@DEVICE]',
                        help='more models for the same frames, compared with the first')
    parser.add_argument('--on', nargs='+', required=True, metavar='SET',
                        help='such as camvid:test')
    parser.add_argument('--data', type=Path,
                        help=f'data folder (default: ${datasets.ENVIRONMENT})')
    parser.add_argument('--taxonomy', metavar='NAME',
                        help='classes that labels are read as: '
                             f'{", ".join(datasets.TAXONOMIES)} or a JSON file '
                             f'(default: what the models learnt, else {TAXONOMY})')
    parser.add_argument('--on-bad', choices=('stop', 'skip'), default='stop',
                        help='what to do about frames that cannot be read (default: %(default)s)')
    parser.add_argument('--device',
                        help='for a .tflite without its own: cpu, usb, pci, auto '
                             f'(default: {DEVICE})')
    parser.add_argument('--class-names', nargs='+', default=[], metavar='NAME',
                        help='for models that neither a contract nor config.json of a run names '
                             'the classes of: names by id, or a class list')
    parser.add_argument('--merge', nargs='+', default=[], metavar='NEW=OLD,OLD',
                        help='count the classes OLD, of a model or of the data, as NEW '
                             '(default: what the models learnt them as)')
    parser.add_argument('--road', type=int, metavar='ID',
                        help='the id of road in a .keras file that nothing names the classes of '
                             '(default: 1 of two)')
    parser.add_argument('--drives', type=console.at_least(0), default=8,
                        help='print drives apart where there are at most this many')
    parser.add_argument('--frames', type=console.at_least(0), default=6, metavar='N',
                        help='show N of the worst frames in the page (default: %(default)s)')
    parser.add_argument('--html', type=Path, help='write a page of all scores, with pictures')
    parser.add_argument('--json', type=Path, help='write the scores to this file')
    return parser


def evaluate(args: argparse.Namespace, command: str) -> Report:
    """
    Score what the command line names, printing scores as they come.

    Raises
    ------
    DatasetError, MatchingError, ModelError, DeviceError, SettingsError
        If a model or a data set cannot be used, their classes do not meet, or an option has no
        effect.

    """
    texts = [args.model, *args.against]
    _check_effect(texts, args)
    merges = parse_merges(args.merge)
    taxonomy = datasets.load_taxonomy(args.taxonomy) if args.taxonomy else None
    device = args.device or DEVICE
    named = labels(texts, device)
    names = _class_names(texts, args.class_names)
    predictors = [open_predictor(text, device, names_of, args.road)
                  for text, names_of in zip(texts, names, strict=True)]
    notes: list[str] = []

    def say(text: str) -> None:
        notes.append(text)
        print(text, flush=True)

    if taxonomy is None:
        taxonomy = _learnt_taxonomy(named, predictors, say)
    opened = {spec: datasets.open_dataset(spec, args.data, taxonomy, args.on_bad)
              for spec in args.on}
    for spec, dataset in opened.items():
        for note in getattr(dataset, 'notes', ()):
            say(f'{spec}: note: {note}')
    for note in _remembered(named, predictors, opened, args.data, taxonomy):
        say(f'note: {note}')
    matching = _matched(taxonomy, named, predictors, merges, say)
    colors = common_colors(matching, predictors)
    keep = args.frames if args.html else 0
    sets, pictures = [], []
    for spec, dataset in opened.items():
        scores = score(spec, dataset, predictors, matching, mark=MARK, keep=keep,
                       progress=_progress(spec))
        if not scores.has_labels:
            say(f'note: no labelled pixel in {spec}, so nothing is scored; check its labels: '
                f'python -m training.datasets check {shlex.quote(spec)}')
        _print(scores, named, args.drives)
        sets.append(scores)
        pictures.append(_pictures(scores, dataset, predictors, matching, colors, named))
    infos = tuple(
        ModelInfo(name, predictor.description, predictor.sha256, predictor.ran, predictor.notes)
        for name, predictor in zip(named, predictors, strict=True))
    return Report(f'Evaluation of {" and ".join(named)}', command, commit(), infos,
                  matching.names, colors, tuple(sets), tuple(pictures), tuple(notes))


def _learnt_taxonomy(
    named: Sequence[str], predictors: Sequence[Predictor], say: Callable[[str], None],
) -> datasets.Taxonomy:
    """Return the classes that the models learnt, or ours where none tells."""
    learnt = {name: predictor.learnt.taxonomy for name, predictor
              in zip(named, predictors, strict=True) if predictor.learnt is not None}
    if len({each.classes for each in learnt.values()}) > 1:
        found = '; '.join(f'{name}: {", ".join(each.classes)}' for name, each in learnt.items())
        raise SettingsError(
            f'--taxonomy: found none beside models that learnt different classes ({found}), '
            'expected the one that labels are to be read into; name it.')
    taxonomy = next(iter(learnt.values()), datasets.TAXONOMIES[TAXONOMY])
    if taxonomy.classes != datasets.TAXONOMIES[TAXONOMY].classes:
        say(f'note: labels are read into {", ".join(taxonomy.classes)}, as '
            f'{" and ".join(learnt)} learnt them; --taxonomy NAME names others')
    return taxonomy


def _matched(
    taxonomy: datasets.Taxonomy, named: Sequence[str], predictors: Sequence[Predictor],
    merges: Mapping[str, str], say: Callable[[str], None],
) -> Matching:
    """Match the classes, as the models learnt them if nobody says otherwise; say how."""
    names = [predictor.class_names for predictor in predictors]
    others = {name: found for name, predictor in zip(named, predictors, strict=True) if (
        found := elsewhere(taxonomy.classes, predictor.class_names, predictor.learnt))}
    matching, how = None, ''
    if others and not merges:
        matching = match_as_learnt(
            taxonomy.classes, names, [predictor.learnt for predictor in predictors])
    if matching is not None:
        count_as = {old: new for found in others.values() for old, new in found.items()}
        how = '; ' + ', '.join(f'{old} counts as {new}' for old, new in count_as.items()) + (
            f', as {" and ".join(others)} learnt')
    else:
        matching = match(taxonomy.classes, names, merges)
    if len(matching.names) < len(taxonomy.classes) or how:
        say(f'scored as {", ".join(matching.names)}; the data has {", ".join(taxonomy.classes)}'
            f'{how}')
    if others and not merges and not how:
        for name, found in others.items():
            options = ' '.join(shlex.quote(text) for text in merge_texts(found))
            told = ', '.join(f'{old} as {new}' for old, new in found.items())
            say(f'note: {name} learnt {told}, which does not fit the other models, so all are '
                f'scored by the names of their classes; for its own score: --merge {options}')
    return matching


def _remembered(
    named: Sequence[str], predictors: Sequence[Predictor],
    scored: Mapping[str, datasets.FrameDataset], data: Path | None, taxonomy: datasets.Taxonomy,
) -> Iterator[str]:
    """Say which models were trained on what is scored: on the whole, or on frames of it."""
    trained: dict[str, datasets.FrameDataset] = {}
    for name, predictor in zip(named, predictors, strict=True):
        for spec in scored:
            if spec in predictor.trained_on:
                yield f'{name} was trained on {spec}; its score there tells how well it remembers'
        for source in sorted(set(predictor.trained_on) - scored.keys()):
            if source not in trained:
                # Not here, or of other classes: then only its name could tell.
                with contextlib.suppress(datasets.DatasetError):
                    trained[source] = datasets.open_dataset(source, data, taxonomy)
            if source in trained:
                yield from (f'{name}: {note}' for pair in scored.items()
                            if (note := shared_frames((source, trained[source]), pair)))


def _check_effect(texts: Sequence[str], args: argparse.Namespace) -> None:
    """Refuse options that no model heeds."""
    parsed = [parse_model(text, '') for text in texts]
    if args.device is not None and all(
            device or path.suffix == '.keras' for path, device in parsed):
        raise SettingsError(
            f'--device: found {args.device}, expected none: every .tflite here names its own, and '
            'Keras runs a .keras file in float, where it runs itself; leave it away.')
    if args.road is not None and (args.class_names or all(
            path.suffix != '.keras' or names_itself(path) for path, _ in parsed)):
        raise SettingsError(
            f'--road: found {args.road}, expected none: something names the classes of every '
            'model here (--class-names, a contract, or config.json beside a .keras file); leave '
            'it away.')


def _class_names(texts: Sequence[str], given: Sequence[str]) -> list[Sequence[str]]:
    """Return what ``--class-names`` says to each model; nothing to one that names its own."""
    named = [names_itself(parse_model(text, '')[0]) for text in texts]
    if all(named):  # against their own: each says what is wrong with that
        return [given for _ in texts]
    return [() if by_itself else given for by_itself in named]


def labels(texts: Sequence[str], device: str) -> tuple[str, ...]:
    """Return a short name for each model: its file's, with what tells apart equal ones."""
    parsed = [parse_model(text, device) for text in texts]
    names = [path.name for path, _ in parsed]
    if len(set(names)) == len(names):
        return tuple(names)
    longer = [f'{path.parent.name}/{path.name}' if [p.name for p, _ in parsed].count(path.name) > 1
              and len({p for p, _ in parsed if p.name == path.name}) > 1 else path.name
              for path, _ in parsed]
    longer = [f'{name} on {where}' if longer.count(name) > 1 else name
              for name, (_, where) in zip(longer, parsed, strict=True)]
    return tuple(f'{name} ({index + 1})' if longer.count(name) > 1 else name
                 for index, name in enumerate(longer))


def common_colors(matching: Matching, predictors: Sequence[Predictor]) -> tuple[Rgb, ...]:
    """Return a colour for each common class: that of the first model which has it."""
    known: dict[str, Rgb] = {}
    for predictor in predictors:
        for name, color in zip(predictor.class_names, predictor.class_colors_rgb, strict=True):
            known.setdefault(plain(name), color)
    others = palette(len(matching.names))
    return tuple(known.get(name, others[index]) for index, name in enumerate(matching.names))


def _progress(spec: str) -> Callable[[int, int], None] | None:
    if not sys.stderr.isatty():
        return None
    started = time.monotonic()

    def show(done: int, total: int) -> None:
        if done == total:
            text = CLEAR
        else:
            left_s = (time.monotonic() - started) / max(done, 1) * (total - done)
            text = f'\r{spec}: {done}/{total} frames, {left_s:.0f} s left\033[K'
        print(text, end='', file=sys.stderr, flush=True)

    return show


def _line(name: str, tally: Tally, marked: int | None) -> str:
    if marked is None:
        return (f'{name:<20} {tally.frames:5d} frames   mean IoU '
                f'{number(tally.matrix.mean_iou())}   accuracy '
                f'{number(tally.matrix.accuracy())}')
    iou, precision, recall = (
        float(column[marked]) for column in (
            tally.matrix.iou(), tally.matrix.precision(), tally.matrix.recall()))
    return (f'{name:<20} {tally.frames:5d} frames   {MARK} IoU {number(iou)}   '
            f'precision {number(precision)}   recall {number(recall)}')


def _print(scores: SetScores, named: Sequence[str], drives: int) -> None:
    for name, model in zip(named, scores.models, strict=True):
        if len(named) > 1:
            print(f'{name}:')
        print(_line(scores.spec, model.whole, scores.marked))
        if 1 < len(model.by_sequence) <= drives:
            for sequence, tally in model.by_sequence.items():
                print(_line(sequence, tally, scores.marked))
        whole = model.whole
        confidence = ('no confidence' if whole.reliability is None
                      else f'ECE {number(whole.reliability.ece())}')
        print(f'{"":<20} {"":>5}          mean IoU {number(whole.matrix.mean_iou())}   accuracy '
              f'{number(whole.matrix.accuracy())}   boundary F '
              f'{number(whole.boundary.mean_f())}   {confidence}', flush=True)
    for part in scores.differences:
        gap = '' if part.gap is None else f'; {MARK} IoU {part.gap.iou:+.4f}' + (
            f' ({part.gap.low:+.4f} to {part.gap.high:+.4f})' if part.gap.has_interval else '')
        print(f'{named[part.first]} and {named[part.second]} agree on {part.agreement:.3%} of '
              f'the pixels of {scores.spec}{gap}', flush=True)


def _pictures(
    scores: SetScores, dataset: datasets.FrameDataset, predictors: Sequence[Predictor],
    matching: Matching, colors: tuple[Rgb, ...], named: Sequence[str],
) -> SetPictures:
    """Read and label the noted frames once more: nothing was kept of them."""
    def seen(place: int, index: int) -> tuple[Pixels, Pixels, Pixels]:
        rgb, ids = dataset.read(index)
        predicted = common(predictors[place](rgb), matching.from_models[place]).labels
        return rgb, cv2.LUT(ids, matching.from_data), predicted

    what = 'mean IoU' if scores.marked is None else f'{matching.names[scores.marked]} IoU'
    worst = []
    for place, model in enumerate(scores.models):
        frames = []
        for note in model.worst:
            rgb, truth, predicted = seen(place, note.index)
            frames.append(FramePictures(
                dataset.name(note.index), f'{what} {1 - note.badness:.4f}',
                truth_panels(rgb, truth, predicted, colors, scores.marked)))
        worst.append(tuple(frames))
    differing = []
    for part in scores.differences:
        frames = []
        for note in part.worst:
            rgb, truth, one = seen(part.first, note.index)
            _, _, two = seen(part.second, note.index)
            frames.append(FramePictures(
                dataset.name(note.index), f'{note.badness:.3%} of the pixels differ',
                difference_panels(
                    rgb, truth, one, two, colors, (named[part.first], named[part.second]))))
        differing.append(tuple(frames))
    return SetPictures(tuple(worst), tuple(differing))


if __name__ == '__main__':
    sys.exit(main())
