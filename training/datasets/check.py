"""Read whole data sets and say what is wrong with them."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from training.datasets.base import (
    VOID, DatasetError, FrameDataset, SizeError, UnknownClassError, counted,
)
from training.datasets.progress import Progress
from training.datasets.sheet import Tile, tile
from training.datasets.taxonomy import VOID_NAME, Taxonomy
from training.datasets.twins import Fingerprint, duplicates, fingerprint, near_twins
from training.datasets.void_notes import of_share

#: Tiles of a data set on the contact sheet.
TILES = 12

#: Lines of each list in a report.
SHOWN = 10

#: Colours in a palette to fill in; masks that were saved as JPEG hold thousands.
COLOURS = 64

#: What is unknown within a data set's own files, where no class map could name it.
NOT_IN_CLASS_MAPS = ('id ', 'colour ', 'category ', 'segment ')


@dataclasses.dataclass(frozen=True)
class Unknown:
    """A source class that nothing names."""

    frames: int
    count: int  # pixels, or shapes
    first: str


@dataclasses.dataclass(frozen=True)
class CheckReport:
    """
    What reading a whole data set found.

    Parameters
    ----------
    name : str
    taxonomy : Taxonomy
    marks : tuple of str
        The classes without which a frame counts as empty.
    frames : int
        Frames read.
    faults : tuple of str
        One line for every frame that cannot be used.
    kinds : mapping of str to int
        Faults by kind.
    unknown : dict of str to Unknown
    shares : tuple of float
        Of each class, then void.
    present : tuple of int
        Frames that show each class.
    sizes : Counter of (int, int)
        Width and height in pixels.
    empty : tuple of str
        Frames without any of ``marks``.
    void : tuple of str
        Frames that are void all over.
    notes : tuple of str
    drives : Counter of str
        Frames of each drive.
    prints : tuple of Fingerprint
    tiles : tuple of Tile

    """

    name: str
    taxonomy: Taxonomy
    marks: tuple[str, ...]
    frames: int
    faults: tuple[str, ...]
    kinds: Counter[str]
    unknown: dict[str, Unknown]
    shares: tuple[float, ...]
    present: tuple[int, ...]
    sizes: Counter[tuple[int, int]]
    empty: tuple[str, ...]
    void: tuple[str, ...]
    notes: tuple[str, ...]
    drives: Counter[str]
    prints: tuple[Fingerprint, ...]
    tiles: tuple[Tile, ...]

    def __str__(self) -> str:
        return self.text()

    def text(self, shown: int | None = SHOWN) -> str:
        """Return the report with so many lines of each list; None: all of them."""
        lines = [f'{self.name}: {counted(self.frames, "frame")} of '
                 f'{counted(len(self.drives), "drive")} read, {len(self.faults)} unusable']
        lines += [f'  {count} {kind}' for kind, count in self.kinds.most_common()]
        lines += listed([f'  fault: {fault}' for fault in self.faults], shown)
        lines += listed([
            f'  unknown: {name}: {each.count} times in {counted(each.frames, "frame")}, first in '
            f'{each.first}' for name, each in self.unknown.items()], shown)
        lines += self.template(None if shown is None else COLOURS)
        lines += [f'  size {size_text(self.sizes)}'] if self.sizes else []
        if self.frames:
            lines.append(f'  {"class":<16} {"pixels":>7} {"frames with it":>15}')
            lines += [
                f'  {name:<16} {share:>7.1%} {count:>15}' for name, share, count in
                zip((*self.taxonomy.classes, VOID_NAME), self.shares, self.present, strict=True)]
        lines += [f'  note: {note}' for note in self.remarks()]
        return '\n'.join(lines)

    def template(self, limit: int | None) -> list[str]:
        """Return what would name the unknown classes, to fill in; of colours, so many."""
        kind = self.name.partition(':')[0]
        if kind == 'masks' and self.unknown:
            colours = sorted(self.unknown, key=lambda each: -self.unknown[each].count)
            names = {each.removeprefix('colour '): '?' for each in colours[:limit]}
            more = f' (and {len(colours) - len(names)} more)' if len(colours) > len(names) else ''
            return [f'  palette=FILE may say, too: {json.dumps(names)}{more}']
        if kind == 'ids' and self.unknown:
            # Without a class map the ids are the taxonomy's; with one, it has to name them all.
            own = {} if ',classes=' in self.name else {
                str(place): name for place, name in enumerate(self.taxonomy.classes)}
            names = {each.removeprefix('id '): '?' for each in self.unknown}
            return [f'  classes=FILE may say{"" if own else ", too"}: '
                    f'{json.dumps({**own, **names})}']
        names = {each: '?' for each in self.unknown if not each.startswith(NOT_IN_CLASS_MAPS)}
        return [f'  classes=FILE may say: {json.dumps(names)}'] if names else []

    def remarks(self) -> list[str]:
        """Return what may be wrong, or may be meant so."""
        found = list(self.notes)
        if self.empty:
            found.append(f'{counted(len(self.empty), "frame")} without {" or ".join(self.marks)}, '
                         f'first {self.empty[0]}')
        if self.void:
            found.append(f'{counted(len(self.void), "frame")} void all over, first {self.void[0]}')
        absent = [name for name, count in
                  zip(self.taxonomy.classes, self.present, strict=False) if not count]
        if absent and self.frames:
            found.append(f'no frame shows {", ".join(absent)}')
        twice = duplicates(self.prints)
        if twice:
            extra = sum(len(group) - 1 for group in twice)
            found.append(f'{counted(extra, "frame")} in the set a second time, first '
                         f'{" = ".join(each.name for each in twice[0][:3])}')
        differ = [group for group in twice if len({each.labels for each in group}) > 1]
        if differ:
            found.append(f'{len(differ)} of these with other labels the second time, first '
                         f'{" and ".join(each.name for each in differ[0][:2])}')
        return found


def listed(lines: list[str], shown: int | None) -> list[str]:
    """Return the first lines, and how many more there are."""
    if shown is None or len(lines) <= shown:
        return lines
    return [*lines[:shown], f'  ... and {len(lines) - shown} more (--all lists them)']


def size_text(sizes: Counter[tuple[int, int]]) -> str:
    """Return the sizes of a set, the most frequent first."""
    texts = [f'{width}x{height} ({count})' for (width, height), count in sizes.most_common(5)]
    more = f' and {len(sizes) - 5} more' if len(sizes) > 5 else ''
    return ', '.join(texts) + more


def usual_marks(taxonomy: Taxonomy) -> tuple[str, ...]:
    """Return the classes that frames are expected to show: road, else all but background."""
    if 'road' in taxonomy.classes:
        return ('road',)
    return tuple(each for each in taxonomy.classes if each != 'background')


def fault_kind(error: DatasetError) -> str:
    """Return what sort of fault it is."""
    if isinstance(error, SizeError):
        return 'with image and labels of different sizes'
    if isinstance(error, UnknownClassError):
        return 'with unknown ids, colours or names'
    return 'unreadable'


def check(
    dataset: FrameDataset, name: str, taxonomy: Taxonomy, marks: Sequence[str] = (),
    progress: Progress | None = None,
) -> CheckReport:
    """
    Read every frame of a data set.

    Parameters
    ----------
    dataset : FrameDataset
        As opened by ``open_frames``, so that a bad frame raises.
    name : str
    taxonomy : Taxonomy
        The one it was opened in.
    marks : sequence of str
        See ``CheckReport``; empty: ``usual_marks``.
    progress : Progress or None

    Raises
    ------
    DatasetError
        If ``marks`` names a class that the taxonomy does not have.

    """
    marked = tuple(marks) or usual_marks(taxonomy)
    mark_ids = [taxonomy.id_of(each) for each in marked]
    at_opening: tuple[str, ...] = getattr(dataset, 'faults', ())
    faults, kinds = list(at_opening), Counter({'missing': len(at_opening)} if at_opening else {})
    unknown: dict[str, Unknown] = {}
    pixels, present = np.zeros(256, np.int64), np.zeros(256, np.int64)
    sizes: Counter[tuple[int, int]] = Counter()
    drives: Counter[str] = Counter()
    empty, void, prints, tiles = [], [], [], []
    most_void = 0, 0  # pixels, frame
    chosen = set(np.linspace(0, len(dataset) - 1, TILES).round().astype(int).tolist())
    for index in range(len(dataset)):
        if progress is not None:
            progress.show(index)
        try:
            rgb, labels = dataset.read(index)
        except DatasetError as error:
            faults.append(str(error))
            kinds[fault_kind(error)] += 1
            if isinstance(error, UnknownClassError):
                count_unknown(unknown, error, dataset.name(index))
            continue
        counts = np.bincount(labels.ravel(), minlength=256)
        pixels += counts
        most_void = max(most_void, (int(counts[VOID]), index))
        present += counts > 0
        sizes[labels.shape[1], labels.shape[0]] += 1
        drives[dataset.sequence(index)] += 1
        if counts[VOID] == labels.size:
            void.append(dataset.name(index))
        elif not counts[mark_ids].any():
            empty.append(dataset.name(index))
        prints.append(fingerprint(dataset.name(index), rgb, labels))
        if index in chosen:
            tiles.append(tile(dataset.name(index), rgb, labels, taxonomy))
    if progress is not None:
        progress.show(len(dataset))
        progress.clear()
    kept = of_classes(pixels, taxonomy)
    shares = (kept / max(kept.sum(), 1)).tolist()
    notes = (*getattr(dataset, 'notes', ()), *ignored_notes(dataset), *unmet_notes(dataset),
             *of_share(dataset, name, taxonomy, shares[-1], most_void[1]))
    return CheckReport(
        name, taxonomy, marked, len(prints), tuple(faults), kinds, unknown,
        tuple(shares), tuple(of_classes(present, taxonomy).tolist()), sizes, tuple(empty),
        tuple(void), notes, drives, tuple(prints), tuple(tiles))


def of_classes(counts: npt.NDArray[np.int64], taxonomy: Taxonomy) -> npt.NDArray[np.int64]:
    """Return the counts of each class, then of void."""
    return np.append(counts[:len(taxonomy.classes)], counts[VOID])


def count_unknown(found: dict[str, Unknown], error: UnknownClassError, frame: str) -> None:
    """Add what one frame holds that nothing names."""
    for name, count in error.counts.items():
        before = found.get(name, Unknown(0, 0, frame))
        found[name] = Unknown(before.frames + 1, before.count + count, before.first)


def ignored_notes(dataset: FrameDataset) -> list[str]:
    """Return what the loader left out by design."""
    ignored: Counter[str] = getattr(dataset, 'ignored', Counter)()
    return [f'left out: {name}, which has no area ({count} times)'
            for name, count in ignored.most_common()]


def unmet_notes(dataset: FrameDataset) -> list[str]:
    """Return what a class map names in vain."""
    unmet: list[str] = getattr(dataset, 'unmet', list)()
    more = ', ...' if unmet[SHOWN:] else ''
    return [f'classes=FILE names {", ".join(map(repr, unmet[:SHOWN]))}{more}, which nothing here '
            'is called'] if unmet else []


def leaks(reports: Sequence[CheckReport]) -> list[str]:
    """Return what data sets share with each other that training and scores should not share."""
    found = []
    for place, one in enumerate(reports):
        for two in reports[place + 1:]:
            pair = f'{one.name} and {two.name}'
            twins = near_twins(one.prints, two.prints)
            same = [(left, right) for left, right, _ in twins if left.pixels == right.pixels]
            if same:
                found.append(f'leak: {pair} share {counted(len(same), "frame")}, first '
                             f'{same[0][0].name} = {same[0][1].name}')
            near = [(left, right) for left, right, _ in twins if left.pixels != right.pixels]
            if near:
                found.append(f'leak: {counted(len(near), "frame")} of {one.name} with a near '
                             f'twin in {two.name}, first {near[0][0].name} ~ {near[0][1].name}')
            kind = one.name.partition(':')[0]
            both = sorted((set(one.drives) & set(two.drives)) - {'.'})
            if both and kind == two.name.partition(':')[0]:
                found.append(f'leak: {pair} share the drives {", ".join(both[:SHOWN])}'
                             f'{", ..." if len(both) > SHOWN else ""}')
    return found
