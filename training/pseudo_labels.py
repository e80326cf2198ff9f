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
import json
import shutil
import sys
import tempfile
from pathlib import Path

import cv2
import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from bisenet_ros.core.sources import SourceError, VideoSource
from training import datasets
from training.augment import whole_view
from training.datasets.base import DatasetError, UnreadableError, counted, located
from training.datasets.images import IMAGE_SUFFIXES, read_rgb
from training.datasets.own import files_under
from training.datasets.progress import Progress
from training.faults import TrainingError
from training.finished_run import QuantizationError, read_run
from training.metrics import probabilities_from_logits
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
    QuantizationError, TrainingError, DatasetError
        If the folder holds no finished run, or its taxonomy is gone.

    """

    def __init__(self, folder: Path, sure: float = SURE) -> None:
        run = read_run(folder)
        self.classes = datasets.load_taxonomy(run.taxonomy).classes
        self._merge, self._sure = np.array(run.merge), sure
        architecture, trained = last_epoch(folder)
        # The best epoch, with the last one's booster heads, which ``best.keras`` lacks.
        transfer_weights(run.model, trained)
        self._finer = architecture.booster_classes == len(self.classes)
        self._networks = []
        for factor in (1.0, LARGER):
            height, width = (round(side * factor / SIZE_MULTIPLE) * SIZE_MULTIPLE
                             for side in run.model.input_shape[1:3])
            network = build(architecture, (height, width), boosters=True)
            transfer_weights(trained, network)
            self._networks.append(keras.Model(
                network.input, [network.output['logits'], network.output[BOOSTERS[-1]]]))

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
        fine = boosters if self._finer else deployed[..., self._merge]
        return decided(deployed, fine, self._merge, self._sure)

    def _probabilities(self, rgb: Pixels) -> list[Floats]:
        """Return the mean probabilities of the deployed head and of the last booster."""
        size_hw, sums, looks = (rgb.shape[0], rgb.shape[1]), [0, 0], 0
        for network in self._networks:
            view, _ = whole_view(
                rgb, np.zeros(size_hw, np.uint8), tuple(network.input_shape[1:3]))
            both = np.stack([view, view[:, ::-1]]).astype(np.float32) / 255
            for head, logits in enumerate(network.predict_on_batch(both)):
                plain, mirrored = ops.convert_to_numpy(logits)
                for each in (plain, mirrored[:, ::-1]):
                    sums[head] = sums[head] + probabilities_from_logits(each, size_hw)
            looks += 2
        return [each / looks for each in sums]


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
        stands for; the lowest id where they are equal.
    merge : int[C]
        Deployed class of each training class.
    sure : float
        Least probability of the chosen class for a pixel not to be void.

    Returns
    -------
    uint8[H, W]

    """
    among = np.where(merge == deployed.argmax(-1)[..., None], fine, -1)
    labels = among.argmax(-1).astype(np.uint8)
    labels[deployed.max(-1) < sure] = datasets.VOID
    return labels


def collect(places: list[Path], every: int, folder: Path) -> list[Path]:
    """
    Copy images, and frames out of videos, into one folder.

    Parameters
    ----------
    places : list of Path
        Folders of images, with folders in them, and videos; each becomes a folder.
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
        target = folder / (place.stem if place.is_file() else place.resolve().name)
        if target.exists():
            raise PseudoLabelError(
                f'--images: found {target.name!r} twice, expected places of different names; '
                'label them one by one.')
        target.mkdir(parents=True)
        copies += (_taken_from_video(place, every, target) if place.is_file()
                   else _copied(place, target))
    return copies


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
    copies = []
    for name, paths in found.items():
        if len(paths) > 1:
            raise PseudoLabelError(
                f'{place}: found {paths[0].name} and {paths[1].name}, expected one file of that '
                'name; remove or rename one.')
        copies.append(target / f'{name}{paths[0].suffix}')
        copies[-1].parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(paths[0], copies[-1])
    return copies


def label(teacher: Teacher, images: list[Path], root: Path) -> npt.NDArray[np.int64]:
    """
    Write ``labels`` beside ``images``; an image that cannot be read is named and removed.

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

    Raises
    ------
    PseudoLabelError
        If no image can be read.

    """
    counts = np.zeros(256, np.int64)
    progress, bad = Progress('labelling', len(images)), 0
    for done, image in enumerate(images, 1):
        try:
            rgb = read_rgb(image)
        except UnreadableError as error:
            progress.clear()
            print(f'left out: {error}', file=sys.stderr)
            image.unlink()
            bad += 1
            continue
        ids = teacher(rgb)
        counts += np.bincount(ids.ravel(), minlength=256)
        path = root / 'labels' / image.relative_to(root / 'images').with_suffix('.png')
        path.parent.mkdir(parents=True, exist_ok=True)
        _, content = cv2.imencode('.png', ids)
        path.write_bytes(content.tobytes())
        progress.show(done)
    progress.clear()
    if bad == len(images):
        raise PseudoLabelError(f'none of {counted(bad, "image")} can be read.')
    return counts


def pseudo_label(
    run: Path, places: list[Path], output: Path, sure: float = SURE, every: int = 1,
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

    Returns
    -------
    str
        How much was labelled, as what.

    Raises
    ------
    PseudoLabelError, QuantizationError, TrainingError, DatasetError, SourceError
        If something is missing, or ``output`` is there or cannot be written.

    """
    if output.exists():
        raise PseudoLabelError(
            f'{output}: found that it is there, expected a new folder; remove it, or name another '
            'one.')
    teacher = Teacher(run, sure)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=f'.{output.name}.') as parts:
            made = Path(parts) / output.name
            images = collect(places, every, made / 'images')
            counts = label(teacher, images, made)
            text = json.dumps({'run': str(run), 'commit': commit(), 'sure': sure, 'every': every,
                               'images': [str(place) for place in places]}, indent=2)
            (made / 'origin.json').write_text(text)
            made.rename(output)
    except OSError as error:
        raise PseudoLabelError(
            f'{output}: cannot be written ({error.strerror or error}); name a folder elsewhere.'
        ) from error
    shares = counts / counts.sum()
    return (f'{counted(len(files_under(output / "labels", (".png",))), "frame")}, '
            f'{1 - shares[datasets.VOID]:.1%} of the pixels labelled: '
            + ', '.join(f'{name} {share:.1%}' for name, share
                        in zip(teacher.classes, shares[:len(teacher.classes)], strict=True)))


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f'found {text}, expected at least 0 and below 1')
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'found {text}, expected at least 1')
    return value


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
    parser.add_argument('--sure', type=_share, default=SURE,
                        help='least probability of a pixel that gets a label (%(default)s)')
    parser.add_argument('--every', type=_count, default=1,
                        help='take every n-th frame of a video (%(default)s)')
    args = parser.parse_args(argv)
    try:
        places = [located(name, args.data) for name in args.images]
        print(pseudo_label(args.run, places, args.output, args.sure, args.every))
    except (DatasetError, PseudoLabelError, QuantizationError, SourceError,
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
