"""
Draw the pictures of docs/performance.md and docs/evaluation.md from the figures in docs/figures.

    python benchmarks/plots.py                 # all that have figures
    python benchmarks/plots.py end_to_end

Needs matplotlib, which ``.[train]`` brings.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use('Agg')
from matplotlib import pyplot as plt

DOCS = Path(__file__).resolve().parents[1] / 'docs'

#: One colour for one thing in all pictures: this package is blue.
COLORS = {'segmenter': '#1f5fa8', 'plain': '#d8862b', 'relay': '#8a8a8a', 'invoke': '#58a066'}

NAMES = {'segmenter': 'segmenter', 'plain': 'plain node', 'relay': 'transport alone',
         'invoke': 'network alone'}

Figure = Any


def rate_name(rate: str) -> str:
    """Return what a rate is called at an axis."""
    return f'{rate} Hz' if float(rate) else 'unlimited'


def end_to_end(found: dict[str, Any]) -> Figure:
    """Draw latency and CPU time by rate, and the distribution at 30 Hz."""
    figure, (latency, spread, cpu) = plt.subplots(
        1, 3, figsize=(11, 3.6), width_ratios=(1.25, 1, 1.25))
    rates = sorted(found['rates'], key=lambda rate: float(rate) or 1e9)
    width = 0.2
    for index, system in enumerate(NAMES):
        rows = [found['rates'][rate][system] for rate in rates]
        places = [place + (index - 1.5) * width for place in range(len(rates))]
        latency.bar(places, [row['p50_ms'] for row in rows], width, color=COLORS[system],
                    label=NAMES[system])
        for place, row in zip(places, rows, strict=True):
            latency.plot([place, place], [row['p50_ms'], row['p99_ms']], color='black', lw=0.8)
            latency.plot(place, row['p95_ms'], '_', color='black', ms=6)
        cpu.bar(places, [row['cpu_ms_per_mask'] for row in rows], width, color=COLORS[system])
        if '30' in found['rates']:
            quantiles = found['rates']['30'][system]['quantiles_ms']
            steps = [100 * step / (len(quantiles) - 1) for step in range(len(quantiles))]
            spread.plot(quantiles, steps, color=COLORS[system])
    for axis, title in ((latency, 'Latency: median, p95 (tick), p99 (line)'),
                        (cpu, 'CPU time of the process per mask')):
        axis.set_title(title, fontsize=10)
        axis.set_xticks(range(len(rates)), [rate_name(rate) for rate in rates])
        axis.set_xlabel("the camera's rate")
        axis.set_ylabel('ms')
        axis.grid(axis='y', alpha=0.3)
    slowest = max(found['rates']['30'][system]['p99_ms'] for system in NAMES)
    spread.set(xlim=(0, slowest * 1.05), ylim=(0, 100), xlabel='latency, ms',
               ylabel='frames that were faster, %')
    spread.set_title('All frames at 30 Hz', fontsize=10)
    spread.grid(alpha=0.3)
    figure.legend(*latency.get_legend_handles_labels(), loc='lower center', ncols=4,
                  frameon=False)
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    return figure


def footprint(found: dict[str, Any]) -> Figure:
    """Draw what importing costs and what the process costs at rest."""
    figure, (imports, starting, resting) = plt.subplots(
        1, 3, figsize=(11, 2.9), width_ratios=(1.1, 1, 1))
    rows = list(found['imports_ms'].items())
    rows = [*rows[:8], (f'{len(rows) - 8} others', sum(value for _, value in rows[8:]))]
    names = [name for name, _ in rows]
    imports.barh(names, [value for _, value in rows], color=COLORS['segmenter'])
    imports.invert_yaxis()
    imports.set_xlabel('ms')
    imports.set_title('Import, own time', fontsize=10)
    marks = list(found['start_s'].items())
    starting.barh([name for name, _ in marks],
                  [statistics.median(values) for _, values in marks],
                  color=COLORS['segmenter'])
    for place, (_, values) in enumerate(marks):
        starting.plot(values, [place] * len(values), 'k.', ms=3)
    starting.invert_yaxis()
    starting.set_xlabel('s from process start; dots: each run')
    starting.set_title('Start', fontsize=10)
    idle = {name.replace(', ', ',\n'): state['cores'] * 100
            for name, state in found['states'].items() if 'nobody' in name or 'no camera' in name}
    resting.barh(list(idle), list(idle.values()), color=COLORS['segmenter'])
    resting.axvline(2, color='black', lw=0.8, ls='--')
    resting.text(1.95, 0.5, 'target', rotation=90, fontsize=8, va='center', ha='right')
    resting.invert_yaxis()
    resting.set(xlim=(0, 2.2), xlabel='% of a core')
    resting.set_title('CPU while idle', fontsize=10)
    for axis in (imports, starting, resting):
        axis.grid(axis='x', alpha=0.3)
        axis.tick_params(labelsize=8)
    figure.tight_layout()
    return figure


#: Stages of frame_path.py that are drawn for themselves, in the order of the frame.
STAGES = ('decode', 'resize', 'colour', 'upsample', 'decide', 'paint', 'publish')


def frame_path(found: dict[str, Any]) -> Figure:
    """Draw what the host does for a frame, by stage, size, input and outputs."""
    rows = [row for row in found['milliseconds'] if row['input'] != 'rgb8']
    names = [f'{row["size"][0]}x{row["size"][1]}, {row["input"].replace("8", "")}, '
             f'{row["outputs"]}' for row in rows]
    figure, axis = plt.subplots(figsize=(9, 0.27 * len(rows) + 1.5))
    left = [0.0] * len(rows)
    for number, stage in enumerate((*STAGES, 'others')):
        if stage == 'others':
            values = [row['host'] - sum(row[name] for name in STAGES) for row in rows]
        else:
            values = [row[stage] for row in rows]
        color = '#c8c8c8' if stage == 'others' else plt.get_cmap('tab10')(number)
        axis.barh(names, values, left=left, color=color, label=stage)
        left = [start + value for start, value in zip(left, values, strict=True)]
    if reference := found.get('reference'):
        target_ms = 0.15 * reference['invoke_ms']
        axis.axvline(target_ms, color='black', lw=0.8, ls='--',
                     label='target, for 1280x720, bgr, mask')
    axis.invert_yaxis()
    axis.set_xlabel('ms a frame on the host, without the network (medians)')
    axis.grid(axis='x', alpha=0.3)
    axis.tick_params(labelsize=8)
    axis.legend(fontsize=8, frameon=False, loc='upper right')
    figure.tight_layout()
    return figure


def cpu_inference(found: dict[str, Any]) -> Figure:
    """Draw threads alone and beside busy processes, and what size and type of numbers cost."""
    figure, (threads, sizes) = plt.subplots(1, 2, figsize=(10, 3.2))
    rows = [row for row in found['threads']['rows'] if row['preset'] == 'road']
    busy = sorted({row['busy'] for row in rows})
    names = list(dict.fromkeys(row['name'] for row in rows))
    for number, name in enumerate(names):
        times = [next(row['p50_ms'] for row in rows if (row['name'], row['busy']) == (name, load))
                 for load in busy]
        threads.bar([place + (number - 1) * 0.27 for place in range(len(busy))], times, 0.27,
                    label=name.replace('1 threads', '1 thread'),
                    color=plt.get_cmap('Blues')(0.35 + 0.25 * number))
    threads.set_xticks(range(len(busy)), [f'{load} busy' if load else 'alone' for load in busy])
    threads.set_xlabel('other processes beside it')
    threads.legend(fontsize=8, frameon=False)
    threads.set_title('Threads of the network', fontsize=10)
    kinds = {'int8': COLORS['segmenter'], 'float': COLORS['relay']}
    by_size: dict[str, dict[str, float]] = {}
    for row in found['size']['rows']:
        size, _, kind = row['name'].removeprefix('road ').rpartition(' ')
        if row['threads'] == 1:
            by_size.setdefault(size, {})[kind] = row['p50_ms']
    for number, (kind, color) in enumerate(kinds.items()):
        sizes.bar([place + (number - 0.5) * 0.38 for place in range(len(by_size))],
                  [times.get(kind, 0.0) for times in by_size.values()], 0.38, color=color,
                  label=kind)
    sizes.set_xticks(range(len(by_size)), list(by_size))
    sizes.set_xlabel('input, height x width, pixels')
    sizes.legend(fontsize=8, frameon=False)
    sizes.set_title('Size of the input, 1 thread', fontsize=10)
    for axis in (threads, sizes):
        axis.set_ylabel('ms (median)')
        axis.grid(axis='y', alpha=0.3)
    figure.tight_layout()
    return figure


def cameras(found: list[dict[str, Any]]) -> Figure:
    """Draw throughput, delay and memory of one process beside a process each."""
    rows = [row for part in found if part['kind'] == 'cameras' for row in part['rows']
            if len(set(row['camera_hz'])) == 1 and row['size'] == [640, 480]]
    figure, axes = plt.subplots(1, 3, figsize=(11, 2.9))
    fields = (('masks_hz', 'Masks a second, all cameras'), ('p95_ms', 'p95 of the latency, ms'),
              ('memory_mb', 'Memory of the segmenters, MB'))
    colors = {'one process': COLORS['segmenter'], 'a process each': COLORS['relay']}
    for axis, (field, title) in zip(axes, fields, strict=True):
        for way, color in colors.items():
            points = sorted((row['cameras'], row[field]) for row in rows if row['way'] == way)
            axis.plot(*zip(*points, strict=True), 'o-', color=color, label=way)
        axis.set_title(title, fontsize=10)
        axis.set_xticks(sorted({row['cameras'] for row in rows}))
        axis.set_xlabel('cameras')
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8, frameon=False)
    figure.tight_layout()
    return figure


def reliability(found: dict[str, Any]) -> Figure:
    """Draw how often each confidence is right, by data set and model (``training.evaluate``)."""
    figure, axes = plt.subplots(1, len(found['sets']), figsize=(9, 3.2), sharey=True)
    for axis, (name, scored) in zip(axes, found['sets'].items(), strict=True):
        axis.plot([0.5, 1], [0.5, 1], color='0.7', linestyle='--', linewidth=1)
        for model, scores in scored['models'].items():
            whole = scores['all']
            bins = [entry for entry in whole['reliability'] if entry['pixels']]
            axis.plot([entry['confidence'] for entry in bins],
                      [entry['accuracy'] for entry in bins], marker='o', markersize=3,
                      label=f'{Path(model).stem}, ECE {whole["ece"]:.3f}')
        axis.set(title=name, xlabel='reported confidence', xlim=(0.48, 1.02))
        axis.legend(fontsize=7, loc='lower right')
        axis.grid(color='0.92')
    axes[0].set_ylabel('share of right pixels')
    figure.tight_layout()
    return figure


def pareto(found: dict[str, Any]) -> Figure:
    """Draw mean road IoU over time, a line for each width (``pareto.py``)."""
    figure, axes = plt.subplots(figsize=(7, 4.2))
    candidates = found['candidates']
    for width in dict.fromkeys(one['width'] for one in candidates):
        line = [one for one in candidates if one['width'] == width]
        axes.errorbar([one['ratio'] for one in line], [one['iou']['mean'] for one in line],
                      yerr=[one['apart'] / 2 for one in line], marker='o', capsize=3, label=width)
        for one in line:
            axes.annotate('x'.join(map(str, one['input_hw'])), (one['ratio'], one['iou']['mean']),
                          fontsize=8, xytext=(3, -10), textcoords='offset points')
    front = sorted((one for one in candidates if 'mean' in one['fronts']),
                   key=lambda one: one['ratio'])
    axes.plot([one['ratio'] for one in front], [one['iou']['mean'] for one in front], color='0.6',
              linestyle='--', zorder=0, label='front')
    axes.set(xlabel="CPU time, share of the original's at 256x512 (log)", xscale='log',
             ylabel='mean validation road IoU, int8')
    axes.set_xticks([0.05, 0.1, 0.2, 0.4], ['0.05', '0.1', '0.2', '0.4'])
    axes.minorticks_off()
    axes.grid(color='0.9')
    axes.legend(fontsize=8, loc='lower right')
    figure.tight_layout()
    return figure


PLOTS: dict[str, Callable[[Any], Figure]] = {
    'frame_path': frame_path, 'end_to_end': end_to_end, 'cpu_inference': cpu_inference,
    'cameras': cameras, 'footprint': footprint, 'pareto': pareto, 'reliability': reliability}


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__.strip().partition('\n')[0])
    parser.add_argument('names', nargs='*', metavar='NAME', help=f'of {", ".join(PLOTS)}')
    parser.add_argument('--figures', type=Path, default=DOCS / 'figures')
    parser.add_argument('--images', type=Path, default=DOCS / 'images')
    options = parser.parse_args()
    if unknown := set(options.names) - set(PLOTS):
        parser.error(f'found {", ".join(sorted(unknown))}, expected some of {", ".join(PLOTS)}')
    for name in options.names or PLOTS:
        source = options.figures / f'{name}.json'
        if not source.exists() and not options.names:
            continue
        figure = PLOTS[name](json.loads(source.read_text()))
        image = options.images / f'performance_{name}.png'
        figure.savefig(image, dpi=110)
        plt.close(figure)
        sys.stdout.write(f'{image}\n')


if __name__ == '__main__':
    main()
