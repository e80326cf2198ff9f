"""
Label frames that nobody labelled, to train on them as well.

    python -m training.pseudo_labels --run runs/mine --images drive.mp4 photos --output more

Writes ``more/images`` and ``more/labels`` (class ids of the run's taxonomy, 255 where the network
is not sure), which ``--dataset ids:more=0.1`` takes beside labelled data. Self-training: the
labels come from several calm looks at a frame, and the next run learns them from strongly changed
views (Xie et al., Self-training with Noisy Student, 2020).
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import cv2
import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from bisenet_ros.core.console import at_least
from bisenet_ros.core.sources import SourceError, VideoSource
from training import datasets
from training.class_weights import SAMPLED_FRAMES, sampled
from training.datasets.base import DatasetError, UnreadableError, counted, located
from training.datasets.images import IMAGE_SUFFIXES, decode_rgb, read_bytes, read_rgb
from training.datasets.own import ORIGIN, files_under, sequence_of
from training.datasets.progress import Progress
from training.faults import TrainingError
from training.finished_run import FinishedRun, RunError, read_run
from training.metrics import probabilities_from_logits, upsampled
from training.model import BOOSTERS, SIZE_MULTIPLE, build, transfer_weights
from training.optimization import last_epoch
from training.provenance import commit

#: A frame is looked at as the robot does, and so many times larger; each also mirrored.
LARGER = 1.5

#: Of frames taken out of videos.
JPEG_QUALITY = 95

#: Least mean probability of a pixel that gets a label.
SURE = 0.8

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


class PseudoLabelError(RuntimeError):
    """Frames cannot be labelled as asked."""


class Teacher:
    """
    A finished run as something that labels frames.

    It looks at a frame as the robot does, and at a larger one, each also mirrored, and takes the
    mean of what it sees.

    Parameters
    ----------
    folder : Path
        Run folder of ``training.train``.
    sure : float
        Least mean probability of a pixel's deployed class for it to get a label, 0 to 1.

    Raises
    ------
    RunError, TrainingError, DatasetError
        If the folder holds no finished run, or one of an older version whose classes are gone.

    """

    def __init__(self, folder: Path, sure: float = SURE) -> None:
        self.run = run = read_run(folder)
        self.classes = run.taxonomy.classes
        self._left_out: list[int] = []
        self._unknown = ''
        self._merge, self._sure = np.array(run.merge), sure
        architecture, trained = last_epoch(folder)
        # The best epoch, with the last one's booster heads, which ``best.keras`` lacks.
        transfer_weights(run.model, trained)
        self._finer = len(self.classes) in (architecture.booster_classes, len(run.classes))
        self._networks = []
        for factor in (1.0, LARGER):
            height, width = (round(side * factor / SIZE_MULTIPLE) * SIZE_MULTIPLE
                             for side in run.model.input_shape[1:3])
            network = build(architecture, (height, width), boosters=True)
            transfer_weights(trained, network)
            self._networks.append(keras.Model(
                network.input, [network.output['logits'], network.output[BOOSTERS[-1]]]))

    def look_at_training_sets(self, data: Path | None) -> None:
        """
        Leave out from now on the classes that no training set shows: they are guesses.

        Weights that were there before know no better: the run has taught them since that such
        pixels are something else. What cannot be opened is noted, and nothing left out.

        Parameters
        ----------
        data : Path or None
            Data folder, see ``open_dataset``.

        """
        try:
            shown = shown_classes(self.run, data)
        except DatasetError as error:
            self._unknown = str(error)
        else:
            self._left_out = [index for index in range(len(self.classes)) if index not in shown]

    def notes(self) -> list[str]:
        """Say which training classes the labels do not hold, or do not tell apart."""
        notes = []
        if self._unknown:
            notes.append('what the training sets of this run show could not be looked at '
                         f'({self._unknown}): a class that none of them shows is a guess.')
        if self._left_out:
            notes.append(
                f'no training set of this run shows {self._names(self._left_out)} (up to '
                f'{SAMPLED_FRAMES} frames of each were looked at): never written; such pixels '
                'are those that they are merged with, else void.')
        if self._finer:
            return notes
        groups = [[index for index in np.flatnonzero(self._merge == deployed)
                   if index not in self._left_out] for deployed in range(self._merge.max() + 1)]
        return notes + [
            f'nothing tells {self._names(group)} apart in this run (its boosters do not learn '
            f'them): all are written as {self.classes[group[0]]}, for configurations that merge '
            'them as well.' for group in groups if len(group) > 1]

    def _names(self, ids: list[int]) -> str:
        return ', '.join(self.classes[index] for index in ids)

    def __call__(self, rgb: Pixels) -> Pixels:
        """
        Label one frame.

        Parameters
        ----------
        rgb : uint8[H, W, 3]

        Returns
        -------
        uint8[H, W]
            Ids of ``classes``, 255 where the network is not sure.

        """
        deployed, boosters = self._probabilities(rgb)
        fine = boosters if boosters.shape[-1] == len(self.classes) else deployed[..., self._merge]
        fine[..., self._left_out] = -1
        return decided(deployed, fine, self._merge, self._sure)

    def _probabilities(self, rgb: Pixels) -> list[Floats]:
        """Return the mean probabilities of the deployed head and of the last booster."""
        # Added up at the larger network's size: a photo may have more pixels than memory allows.
        size_hw = self._networks[-1].input_shape[1:3]
        sums = [np.zeros((), np.float32)] * 2
        for network in self._networks:
            view = cv2.resize(
                rgb, network.input_shape[2:0:-1], interpolation=cv2.INTER_LINEAR)
            both = np.stack([view, view[:, ::-1]]).astype(np.float32) / 255
            for head, logits in enumerate(network.predict_on_batch(both)):
                plain, mirrored = ops.convert_to_numpy(logits)
                for each in (plain, mirrored[:, ::-1]):
                    sums[head] = sums[head] + probabilities_from_logits(each, size_hw)
        looks = 2 * len(self._networks)
        return [upsampled(each / looks, rgb.shape[:2]) for each in sums]


def decided(
    deployed: Floats, fine: Floats, merge: npt.NDArray[np.int64], sure: float,
) -> Pixels:
    """
    Decide each pixel's training class.

    Parameters
    ----------
    deployed : float32[H, W, D]
        Probabilities of the deployed classes: they decide.
    fine : float32[H, W, C]
        Probabilities of the training classes: they tell which of those that the chosen class
        stands for; the lowest id where they are equal. -1: not this one.
    merge : int[C]
        Deployed class of each training class.
    sure : float
        Least probability of the chosen class for a pixel not to be void, which it is too where
        the chosen class stands for none.

    Returns
    -------
    uint8[H, W]

    """
    among = np.where(merge == deployed.argmax(-1)[..., None], fine, -1)
    labels = among.argmax(-1).astype(np.uint8)
    labels[(deployed.max(-1) < sure) | (among.max(-1) < 0)] = datasets.VOID
    return labels


def shown_classes(run: FinishedRun, data: Path | None) -> set[int]:
    """
    Return the ids of the classes that the labels of a run's training sets hold.

    Up to ``SAMPLED_FRAMES`` evenly spaced frames of each set are read, of all sets in turns, until
    every class was seen.

    Raises
    ------
    DatasetError
        If a data set cannot be opened or read.

    """
    opened = [datasets.open_dataset(spec, data, run.taxonomy, 'skip') for spec in run.train_sets]
    turns = [[(dataset, int(index)) for index in sampled(len(dataset))] for dataset in opened]
    looks = [look for turn in itertools.zip_longest(*turns) for look in turn if look is not None]
    shown: set[int] = set()
    progress = Progress('looking at the labels of the training sets', len(looks))
    for done, (dataset, index) in enumerate(looks, 1):
        shown.update(np.unique(dataset.read(index)[1]).tolist())
        if len(shown - {datasets.VOID}) == len(run.taxonomy.classes):
            break
        progress.show(done)
    progress.clear()
    return shown - {datasets.VOID}


def collect(places: list[Path], every: int, folder: Path) -> list[Path]:
    """
    Copy images, and frames out of videos, into one folder, each drive into a folder of its own.

    An image that cannot be read is named on stderr and left out.

    Parameters
    ----------
    places : list of Path
        Folders of images, with folders in them, and videos.
    every : int
        Take every n-th frame of a video; neighbours show nearly the same.
    folder : Path

    Returns
    -------
    list of Path
        The copies.

    Raises
    ------
    PseudoLabelError, SourceError
        If a place holds no images or is no video, or two files would get one name.

    """
    copies: list[Path] = []
    for place in places:
        if place.suffix.lower() in IMAGE_SUFFIXES and place.is_file():
            raise PseudoLabelError(
                f'{place}: is an image, expected a folder of images or a video; name its folder.')
        target = folder / _name_of(place)
        if target.exists():
            raise PseudoLabelError(
                f'--images: found {target.name!r} twice, expected places of different names; '
                'label them one by one.')
        target.mkdir(parents=True)
        copies += (_taken_from_video(place, every, target) if place.is_file()
                   else _copied(place, target))
    return copies


def _name_of(place: Path) -> str:
    """Return what a place's folder is called: hidden ones would not be found again."""
    name = place.stem if place.is_file() else place.name
    return (name.strip('.') or place.resolve().name).lstrip('.') or 'frames'


def _taken_from_video(video: Path, every: int, target: Path) -> list[Path]:
    taken = []
    for number, bgr in enumerate(VideoSource(video).frames()):
        if number % every == 0:
            taken.append(target / f'{number:06d}.jpg')
            _, content = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            taken[-1].write_bytes(content.tobytes())
    return taken


def _copied(place: Path, target: Path) -> list[Path]:
    found = files_under(place, IMAGE_SUFFIXES)
    if not found:
        raise PseudoLabelError(
            f'{place}: holds no images ({", ".join(IMAGE_SUFFIXES)}); name a folder that does, '
            'or a video.')
    copies: dict[Path, Path] = {}
    for name, paths in found.items():
        for path in paths:
            try:
                content = read_bytes(path)
                decode_rgb(content, str(path))
            except UnreadableError as error:
                print(f'left out: {error}', file=sys.stderr)
                continue
            # A folder for each drive, so that none of them is guessed from our own folder.
            stem = target / sequence_of(name) / path.stem
            if (other := copies.setdefault(stem, path)) is not path:
                raise PseudoLabelError(
                    f'{place}: found {other.relative_to(place)} and {path.relative_to(place)}, '
                    'expected one image of that name in a drive; remove or rename one.')
            stem.parent.mkdir(parents=True, exist_ok=True)
            _image_at(stem, path).write_bytes(content)
    if not copies:
        raise PseudoLabelError(
            f'{place}: none of its images ({len(found)}) can be read; name another folder.')
    return [_image_at(stem, path) for stem, path in copies.items()]


def _image_at(stem: Path, original: Path) -> Path:
    return stem.with_name(stem.name + original.suffix)


def label(teacher: Teacher, images: list[Path], root: Path) -> npt.NDArray[np.int64]:
    """
    Write ``labels`` beside ``images``.

    Parameters
    ----------
    teacher : Teacher
    images : list of Path
        Below ``root / 'images'``.
    root : Path

    Returns
    -------
    int64[256]
        How often each id was written.

    """
    counts, progress = np.zeros(256, np.int64), Progress('labelling', len(images))
    for done, image in enumerate(images, 1):
        ids = teacher(read_rgb(image))
        counts += np.bincount(ids.ravel(), minlength=256)
        path = root / 'labels' / image.relative_to(root / 'images').with_suffix('.png')
        path.parent.mkdir(parents=True, exist_ok=True)
        _, content = cv2.imencode('.png', ids)
        path.write_bytes(content.tobytes())
        progress.show(done)
    progress.clear()
    return counts


def pseudo_label(
    run: Path, places: list[Path], output: Path, sure: float = SURE, every: int = 1,
    data: Path | None = None,
) -> str:
    """
    Label frames into a new folder, which appears when it is whole.

    Parameters
    ----------
    run : Path
        Run folder of the network that labels.
    places : list of Path
        See ``collect``.
    output : Path
        Must not be there.
    sure, every
        See ``Teacher`` and ``collect``.
    data : Path, optional
        Data folder of the run's training sets.

    Returns
    -------
    str
        How much was labelled, as what.

    Raises
    ------
    PseudoLabelError, RunError, TrainingError, DatasetError, SourceError
        If something is missing, or ``output`` is there or cannot be written.

    """
    try:
        if output.exists():
            raise PseudoLabelError(
                f'{output}: found that it is there, expected a new folder; remove it, or name '
                'another one.')
        teacher = Teacher(run, sure)
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=f'.{output.name}.') as parts:
            made = Path(parts) / output.name
            images = collect(places, every, made / 'images')
            teacher.look_at_training_sets(data)
            counts = label(teacher, images, made)
            text = json.dumps({'run': str(run), 'classes': teacher.classes, 'commit': commit(),
                               'sure': sure, 'every': every,
                               'images': [str(place) for place in places]}, indent=2,
                              allow_nan=False)
            (made / ORIGIN).write_text(text)
            made.rename(output)
    except OSError as error:
        raise PseudoLabelError(
            f'{output}: cannot be written ({error.strerror or error}); name a folder elsewhere.'
        ) from error
    shares = counts / counts.sum()
    return (f'{counted(len(images), "frame")}, '
            f'{1 - shares[datasets.VOID]:.1%} of the pixels labelled: '
            + ', '.join(f'{name} {share:.1%}' for name, share
                        in zip(teacher.classes, shares[:len(teacher.classes)], strict=True))
            + ''.join(f'\nnote: {note}' for note in teacher.notes()))


def _probability(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= float(text) < 1:
            return float(text)
    raise argparse.ArgumentTypeError(f'found {text!r}, expected a number from 0 to below 1')


@contextlib.contextmanager
def ended_as_by_ctrl_c() -> Iterator[None]:
    """
    Take SIGTERM, and SIGHUP unless ``nohup`` has it ignored, for Ctrl-C.

    By default they would end the process with what it has half written left behind.

    """
    def handle(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(argv: list[str] | None = None) -> int:
    """Label from the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m training.pseudo_labels',
        description='Label frames that nobody labelled, to train on them as well.')
    parser.add_argument('--run', type=Path, required=True,
                        help='run folder of the network that labels')
    parser.add_argument('--images', nargs='+', required=True, metavar='PATH',
                        help='folders of images, and videos; in the data folder, or right here')
    parser.add_argument('--output', type=Path, required=True, help='new folder')
    parser.add_argument('--data', type=Path,
                        help=f'data folder (default: ${datasets.ENVIRONMENT})')
    parser.add_argument('--sure', type=_probability, default=SURE,
                        help='least probability of a pixel that gets a label (%(default)s)')
    parser.add_argument('--every', type=at_least(1), default=1,
                        help='take every n-th frame of a video (%(default)s)')
    args = parser.parse_args(argv)
    try:
        with ended_as_by_ctrl_c():
            places = [located(name, args.data) for name in args.images]
            print(pseudo_label(args.run, places, args.output, args.sure, args.every, args.data))
    except (DatasetError, PseudoLabelError, RunError, SourceError,
            TrainingError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('interrupted; nothing was written.', file=sys.stderr)
        return 130
    print(f'train on it beside labelled data: --dataset ... ids:{args.output}=0.1')
    return 0


if __name__ == '__main__':
    sys.exit(main())
