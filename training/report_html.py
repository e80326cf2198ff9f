"""One HTML page of all scores, with its pictures inside: it opens anywhere, offline."""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Iterable, Mapping, Sequence

from bisenet_ros.core.contract import Rgb
from training.boundary import TOLERANCE
from training.datasets.base import counted
from training.metrics import ConfusionMatrix
from training.reliability import BINS, Reliability
from training.report_pictures import FALSE_RGB, MISSED_RGB, Panel, WRONG_RGB
from training.scoring import Difference, LEAST_FRAMES, ModelScores, SetScores, Tally

STYLE = '''
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 2rem auto;
  max-width: 72rem; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.3rem; margin-top: 3rem; border-top: 1px solid #bbb;
  padding-top: 1rem; } h3 { font-size: 1.05rem; margin-top: 2rem; } h4 { margin: 1.2rem 0 .3rem; }
table { border-collapse: collapse; margin: .5rem 0; } caption { text-align: left; color: #555; }
th, td { padding: .2rem .7rem; border-bottom: 1px solid #ddd; text-align: right;
  font-variant-numeric: tabular-nums; }
th { font-weight: 600; } th:first-child, .text { text-align: left; white-space: nowrap; }
.scroll { overflow-x: auto; }
.row { display: flex; flex-wrap: wrap; gap: 2rem; align-items: flex-start; }
.panels { display: grid; grid-template-columns: repeat(4, 1fr); gap: .4rem; }
figure { margin: 0; } figure img { width: 100%; display: block; }
figcaption { color: #555; font-size: .8rem; }
.bar { display: inline-block; height: .7rem; background: #6b8fb3; }
.swatch { display: inline-block; width: .8em; height: .8em; border: 1px solid #888;
  margin: 0 .3em 0 .8em; }
.note { color: #555; max-width: 55rem; } .row .note { max-width: 18rem; }
@media (max-width: 50rem) { .panels { grid-template-columns: repeat(2, 1fr); } }
'''


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """
    A model of a report.

    ``name`` is unique among them; ``sha256`` is of the file that was asked for, ``ran`` of each
    that labelled frames, by name; ``notes`` tell what went wrong.

    """

    name: str
    description: str
    sha256: str
    ran: Mapping[str, str]
    notes: tuple[str, ...] = ()

    @property
    def hashes(self) -> str:
        """Return what ran in short, its name where it was not what was asked for."""
        return ', '.join(found[:16] if found == self.sha256 else f'{name} {found[:16]}'
                         for name, found in self.ran.items())


@dataclasses.dataclass(frozen=True)
class FramePictures:
    """A frame of a report with its pictures."""

    name: str
    remark: str
    panels: tuple[Panel, ...]


@dataclasses.dataclass(frozen=True)
class SetPictures:
    """``worst`` by model; ``differing`` by pair, as in ``SetScores.differences``."""

    worst: tuple[tuple[FramePictures, ...], ...]
    differing: tuple[tuple[FramePictures, ...], ...]


@dataclasses.dataclass(frozen=True)
class Report:
    """What a page shows; ``notes`` are what was said of all of it, beside the scores."""

    title: str
    command: str
    commit: str
    models: tuple[ModelInfo, ...]
    names: tuple[str, ...]
    colors_rgb: tuple[Rgb, ...]
    sets: tuple[SetScores, ...]
    pictures: tuple[SetPictures, ...]
    notes: tuple[str, ...] = ()


def page(report: Report) -> str:
    """Return the whole HTML page."""
    body = ''.join([
        f'<h1>{_text(report.title)}</h1>',
        f'<p><code>{_text(report.command)}</code><br>commit {_text(report.commit)}</p>',
        _table(('model', 'runs as', 'sha256'), [
            (model.name, model.description, model.hashes) for model in report.models],
            text_columns=(0, 1, 2)),
        *(f'<p class="note">{_text(model.name)}: {_text(note)}</p>'
          for model in report.models for note in model.notes),
        *(f'<p class="note">{_text(note)}</p>' for note in report.notes),
        '<p>classes:', *(
            f'{_swatch(color)}{_text(name)}' for name, color
            in zip(report.names, report.colors_rgb, strict=True)), '</p>',
        '<h2>Summary</h2>', _summary(report), _reading(),
        *(_set(report, scores, pictures) for scores, pictures
          in zip(report.sets, report.pictures, strict=True))])
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{_text(report.title)}</title><style>{STYLE}</style></head>\n'
        f'<body>{body}</body></html>\n')


def _text(value: object) -> str:
    return html.escape(str(value))


def number(value: float, digits: int = 4) -> str:
    """Return a score as text; a dash where there is none."""
    return '-' if math.isnan(value) else f'{value:.{digits}f}'


def _swatch(color: Rgb) -> str:
    return f'<span class="swatch" style="background:rgb{tuple(color)}"></span>'


def _table(
    head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = '',
    text_columns: Sequence[int] = (0,), raw_columns: Sequence[int] = (),
) -> str:
    """Return a table; cells are escaped but in ``raw_columns``."""
    lines = [f'<div class="scroll"><table>{f"<caption>{_text(caption)}</caption>" * bool(caption)}'
             '<thead><tr>', *(
                 f'<th class="text">{_text(name)}</th>' if index in text_columns
                 else f'<th>{_text(name)}</th>' for index, name in enumerate(head)),
             '</tr></thead><tbody>']
    for row in rows:
        lines.append('<tr>')
        for index, cell in enumerate(row):
            shown = cell if index in raw_columns else _text(cell)
            lines.append(f'<td class="text">{shown}</td>' if index in text_columns
                         else f'<td>{shown}</td>')
        lines.append('</tr>')
    return ''.join([*lines, '</tbody></table></div>'])


def marked_iou(matrix: ConfusionMatrix, marked: int | None) -> float:
    """Return the marked class's IoU; NaN without one."""
    return float('nan') if marked is None else float(matrix.iou()[marked])


def ece(tally: Tally) -> float:
    """Return the expected calibration error; NaN without a confidence."""
    return float('nan') if tally.reliability is None else tally.reliability.ece()


def _summary(report: Report) -> str:
    marked = next((scores.marked for scores in report.sets), None)
    mark = '' if marked is None else report.names[marked]
    head = ['data set', 'model', 'frames', *([f'{mark} IoU'] if mark else []), 'mean IoU',
            'pixel accuracy', 'boundary F', 'ECE']
    if len(report.models) > 1:
        head.append(f'agrees with {report.models[0].name}')
    rows = []
    for scores in report.sets:
        shares = {(part.first, part.second): part.agreement for part in scores.differences}
        for place, (info, model) in enumerate(zip(report.models, scores.models, strict=True)):
            whole = model.whole
            row = [scores.spec, info.name, f'{whole.frames}']
            if mark:
                row.append(number(marked_iou(whole.matrix, scores.marked)))
            row += [number(whole.matrix.mean_iou()), number(whole.matrix.accuracy()),
                    number(whole.boundary.mean_f()), number(ece(whole))]
            if len(report.models) > 1:
                row.append('-' if place == 0 else f'{shares[0, place]:.3%}')
            rows.append(row)
    return _table(head, rows, text_columns=(0, 1))


def _reading() -> str:
    return (
        '<p class="note">Every IoU is of one confusion matrix over all frames at their own size; '
        'pixels that are void in the truth are left out. Mean IoU is over the classes that occur. '
        f'Boundary F is the mean over frames and classes, with a tolerance of {TOLERANCE:.2%} of '
        'the frame\'s diagonal (Csurka et al. 2013). ECE is the mean distance between reported '
        f'confidence and share of right pixels, in {BINS} bins (Guo et al. 2017). '
        'Agreement counts every pixel, void ones too.</p>')


def _set(report: Report, scores: SetScores, pictures: SetPictures) -> str:
    parts = [f'<h2>{_text(scores.spec)}</h2>', _left_out(scores.left_out)]
    if not scores.has_labels:
        parts.append('<p class="note">No labelled pixel in it, so nothing is scored.</p>')
    for info, model, frames in zip(report.models, scores.models, pictures.worst, strict=True):
        parts += [
            f'<h3>{_text(info.name)} on {_text(scores.spec)}</h3>', _classes(report.names, model),
            '<div class="row">', _confusion(report.names, model.whole.matrix),
            _diagram(model.whole.reliability), '</div>', _sequences(model, scores.marked),
            _frames('Worst frames', frames,
                    f'errors:{_error_legend(report.names, scores.marked)}')]
    for part, frames in zip(scores.differences, pictures.differing, strict=True):
        first, second = report.models[part.first].name, report.models[part.second].name
        legend = (f'difference:{_swatch(MISSED_RGB)}{_text(first)} is right '
                  f'{_swatch(FALSE_RGB)}{_text(second)} is right '
                  f'{_swatch(WRONG_RGB)}none, or void')
        parts += [
            f'<h3>{_text(first)} against {_text(second)} on {_text(scores.spec)}</h3>',
            f'<p>They agree on {part.agreement:.3%} of the pixels; '
            f'{part.pixels - part.equal} of {part.pixels} differ.',
            _gap(part, report.names, scores), '</p>',
            _frames('Most different frames', frames, legend)]
    return ''.join(parts)


def _left_out(faults: tuple[str, ...]) -> str:
    if not faults:
        return ''
    lines = '<br>'.join(map(_text, faults))
    return (f'<details><summary>Left out, for they cannot be read: '
            f'{counted(len(faults), "frame")}</summary><p>{lines}</p></details>')


def _gap(part: Difference, names: tuple[str, ...], scores: SetScores) -> str:
    if part.gap is None or scores.marked is None:
        return ''
    interval = (f'95 % of resampled frame sets: {part.gap.low:+.4f} to {part.gap.high:+.4f}'
                if part.gap.has_interval else
                f'fewer than {LEAST_FRAMES} frames show it: no interval')
    return (f' {_text(names[scores.marked])} IoU of the second less the first: '
            f'{part.gap.iou:+.4f} ({interval}).')


def _classes(names: tuple[str, ...], model: ModelScores) -> str:
    matrix, boundary = model.whole.matrix, model.whole.boundary
    truth = matrix.counts.sum(1)
    columns = (matrix.iou(), matrix.precision(), matrix.recall(), matrix.f1(), boundary.f())
    rows = [[name, f'{share:.1%}', *(number(float(column[index])) for column in columns)]
            for index, (name, share) in enumerate(
                zip(names, truth / max(truth.sum(), 1), strict=True))]
    return _table(
        ('class', 'share of truth', 'IoU', 'precision', 'recall', 'F1', 'boundary F'), rows)


def _confusion(names: tuple[str, ...], matrix: ConfusionMatrix) -> str:
    head = ['true \\ predicted', *names]
    unlabeled = matrix.counts[:, -1].any()
    if unlabeled:
        head.append('unlabeled')
    lines = ['<div><h4>Confusion</h4><div class="scroll"><table><caption>share of the true '
             'class</caption><thead><tr>', *(f'<th>{_text(name)}</th>' for name in head),
             '</tr></thead><tbody>']
    for index, name in enumerate(names):
        counts = matrix.counts[index] if unlabeled else matrix.counts[index, :-1]
        total = int(matrix.counts[index].sum())
        lines.append(f'<tr><th>{_text(name)}</th>')
        if not total:
            lines.append(f'{"<td>-</td>" * len(counts)}</tr>')
            continue
        for column, count in enumerate(counts.tolist()):
            rgb = '70,130,180' if column == index else '213,94,0'
            # Errors are small shares: their square root can be seen.
            strength = 0.6 * (count / total if column == index else math.sqrt(count / total))
            lines.append(f'<td style="background:rgba({rgb},{strength:.2f})" '
                         f'title="{count} pixels">{count / total:.2%}</td>')
        lines.append('</tr>')
    return ''.join([*lines, '</tbody></table></div></div>'])


def _diagram(reliability: Reliability | None) -> str:
    if reliability is None:
        return '<div><h4>Reliability</h4><p>This model reports no confidence.</p></div>'
    bins, side, base, strip = reliability.bins(), 220, 10, 40
    total = max(sum(part.pixels for part in bins), 1)
    shapes = []
    for part in bins:
        if not part.pixels:
            continue
        left, width = base + 30 + part.low * side, side / BINS - 1
        height = part.accuracy * side
        share = part.pixels / total
        shapes.append(
            f'<rect x="{left:.1f}" y="{base + side - height:.1f}" width="{width:.1f}" '
            f'height="{height:.1f}" fill="#6b8fb3"><title>confidence {part.confidence:.3f}, right '
            f'{part.accuracy:.3f}, {share:.2%} of the pixels</title></rect>'
            f'<rect x="{left:.1f}" y="{base + side + 8:.1f}" width="{width:.1f}" '
            f'height="{share * strip:.1f}" fill="#999"></rect>')
    right, bottom = base + 30 + side, base + side
    ticks = ''.join(
        f'<text x="{base + 26}" y="{bottom - value * side + 4}" text-anchor="end">{value:g}</text>'
        for value in (0, 0.5, 1))
    ticks += ''.join(
        f'<text x="{base + 30 + value * side}" y="{bottom + strip + 24}" text-anchor="middle">'
        f'{value:g}</text>' for value in (0, 0.5, 1))
    svg = (
        f'<svg width="{right + 20}" height="{bottom + strip + 45}" font-size="11" role="img" '
        f'aria-label="reliability diagram">{"".join(shapes)}'
        f'<line x1="{base + 30}" y1="{bottom}" x2="{right}" y2="{base}" stroke="#222" '
        'stroke-dasharray="4 3"></line>'
        f'<rect x="{base + 30}" y="{base}" width="{side}" height="{side}" fill="none" '
        f'stroke="#888"></rect>{ticks}'
        f'<text x="{base + 30 + side / 2}" y="{bottom + strip + 40}" text-anchor="middle">'
        'reported confidence</text></svg>')
    return (
        f'<div><h4>Reliability, ECE {number(reliability.ece())}</h4>{svg}<p class="note">Blue: '
        'share of right pixels. On the dashed line the confidence is honest, above it too '
        'modest, below it too sure. Grey: share of the pixels.</p></div>')


def _sequences(model: ModelScores, marked: int | None) -> str:
    if len(model.by_sequence) < 2:
        return ''
    rows = []
    for name, tally in model.by_sequence.items():
        value = tally.matrix.mean_iou() if marked is None else marked_iou(tally.matrix, marked)
        width = 0 if math.isnan(value) else round(value * 160)
        rows.append([
            name, f'{tally.frames}', number(value),
            f'<span class="bar" style="width:{width}px"></span>',
            number(tally.matrix.mean_iou()), number(tally.matrix.accuracy()),
            number(tally.boundary.mean_f()), number(ece(tally))])
    head = ('sequence', 'frames', 'IoU', '', 'mean IoU', 'pixel accuracy', 'boundary F', 'ECE')
    table = _table(head, rows, text_columns=(0, 3), raw_columns=(3,))
    if len(rows) > 12:
        return f'<details><summary>{len(rows)} sequences</summary>{table}</details>'
    return f'<h4>By sequence</h4>{table}'


def _error_legend(names: tuple[str, ...], marked: int | None) -> str:
    if marked is None:
        return f'{_swatch(WRONG_RGB)}wrong'
    mark = _text(names[marked])
    other = f' {_swatch(WRONG_RGB)}other errors' if len(names) > 2 else ''
    return f'{_swatch(MISSED_RGB)}{mark} missed {_swatch(FALSE_RGB)}taken for {mark}{other}'


def _frames(heading: str, frames: tuple[FramePictures, ...], legend: str) -> str:
    if not frames:
        return ''
    parts = [f'<h4>{_text(heading)}</h4><p>{legend}</p>']
    for frame in frames:
        parts += [f'<p>{_text(frame.name)}: {_text(frame.remark)}</p><div class="panels">', *(
            f'<figure><img alt="{_text(panel.caption)} of {_text(frame.name)}" loading="lazy" '
            f'src="{panel.data_uri()}"><figcaption>{_text(panel.caption)}</figcaption></figure>'
            for panel in frame.panels), '</div>']
    return ''.join(parts)
