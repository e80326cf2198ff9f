"""
Rebuild a shipped model from its configuration, in one command.

    python -m training.rebuild road_256x512 --data ../shared/data --output FOLDER

Trains what ``training/configs/<name>.py`` says, and before it every run that it starts from
(``init``), which also labels the unlabelled frames that the next one is trained on; runs lie in
``runs/`` of the current folder and are gone on with where they stopped. Then it quantizes, and
scores validation and test.

That takes some twelve hours on two cores. ``--rehearse`` goes the same way in minutes, in
FOLDER/rehearsal, with two batches of small inputs a run: the model is of no use, but data,
packages, disk and every step of the chain have then been seen to work.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
from pathlib import Path

from bisenet_ros.core.output_files import OutputError, check_writable
from training.config import Config, ConfigError, Phase, load_config, write_config
from training.datasets import DatasetError
from training.datasets.base import located

CONFIGS = Path(__file__).parent / 'configs'

RUNS = Path('runs')

#: Subfolder of the output in which ``--rehearse`` works, and its inputs' height and width.
REHEARSAL = 'rehearsal'
REHEARSAL_HW = (64, 128)

#: How long a step may take to end after a Ctrl-C, in seconds.
STOP_S = 20.0

#: What a run labels for those after it that ask for it, into its folder ``PSEUDO_LABELS``; of
#: videos every second frame. Left out: a clip whose bonnet these runs take for road.
UNLABELLED = dict.fromkeys(('road_256x512_drives', 'road_256x512_calm'), (
    'idd_lite/unlabelled', 'clips/carnd_solidWhiteRight_960x540_25fps_221f.mp4'))
PSEUDO_LABELS = 'pseudo_labels'

#: What ships as the mean of the weights after its last epoch and after an earlier run's, and which
#: share the latter have in it. Its validation sets show neither own vehicles nor other paint nor
#: obstacles: by them alone its epochs are alike.
MEAN_WITH = {
    'road_256x512': ('road_256x512_calm', 0.3),
    'road_256x512_near': ('road_256x512_calm', 0.15),
    'road_128x256': ('road_128x256_lines', 0.3)}

#: Reported, never chosen on.
TEST = ('camvid:test',)


def shipped() -> list[str]:
    """Return the names of the models that come with the package."""
    models = Path(__file__).parents[1] / 'bisenet_ros' / 'models'
    return sorted(path.stem for path in models.glob('*.tflite'))


def chain(name: str) -> list[str]:
    """
    Return the configurations to train, the first one first.

    Raises
    ------
    ConfigError
        If one is missing, or starts from what is not a run of a configuration here.

    """
    config = load_config(CONFIGS / f'{name}.py')
    if not config.init:
        return [name]
    before = Path(config.init)
    if before.parent != RUNS:
        raise ConfigError(
            f'{name}: init is {config.init!r}, expected {RUNS}/<configuration>, so that it can '
            'be trained first.')
    return [*chain(before.name), name]


def stages(name: str) -> list[str]:
    """Return all configurations to train: the chain, behind what its end is a mean with."""
    own = chain(name)
    before = chain(MEAN_WITH[name][0]) if name in MEAN_WITH else []
    return list(dict.fromkeys([*before, *own]))


def rehearsed(config: Config) -> Config:
    """Return a configuration cut to two batches of small inputs."""
    return dataclasses.replace(
        config, phases=(Phase(REHEARSAL_HW, 1),), images_per_epoch=2 * config.batch_size,
        warmup_steps=1)


def commands(
    name: str, data: Path, output: Path, rehearsal: Path | None = None,
) -> list[list[str]]:
    """
    Return what is run, one after the other, as the arguments behind ``python -m``.

    In ``rehearsal``, if that is given, with the configurations that lie there.
    """
    configs = rehearsal / 'configs' if rehearsal else CONFIGS
    runs = []
    asked = {spec for stage in stages(name)
             for spec, _ in load_config(CONFIGS / f'{stage}.py').train}
    for stage in stages(name):
        runs.append(['training.train', '--config', str(configs / f'{stage}.py'),
                     '--data', str(data), '--run', str(RUNS / stage)])
        labels = RUNS / stage / PSEUDO_LABELS
        if (stage in UNLABELLED and f'ids:{labels.as_posix()}' in asked
                and not (rehearsal or Path()).joinpath(labels).is_dir()):
            runs.append(['training.pseudo_labels', '--run', str(RUNS / stage), '--data', str(data),
                         '--images', *UNLABELLED[stage], '--every', '2', '--output', str(labels)])
    validate = load_config(CONFIGS / f'{name}.py').validate
    model = str(output / f'{name}.tflite')
    mean = ()
    if name in MEAN_WITH:
        before, share = MEAN_WITH[name]
        mean = ('--epoch', 'last', '--before', str(RUNS / before), '--share', str(share))
    return [*runs,
            ['training.quantize', '--run', str(RUNS / name), '--data', str(data), *mean,
             '--output', model, '--calibration', 'auto', '--temperature', 'auto',
             '--score', *validate],
            ['training.evaluate', '--model', model, '--data', str(data),
             '--on', *validate, *TEST]]


def main(argv: list[str] | None = None) -> int:
    """Rebuild from the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m training.rebuild', description='Rebuild a shipped model.')
    parser.add_argument('name', choices=shipped(), help='which one: %(choices)s')
    parser.add_argument('--data', type=Path, required=True, help='data folder')
    parser.add_argument('--output', type=Path, required=True, help='folder for the model')
    parser.add_argument('--dry-run', action='store_true', help='only print the commands')
    parser.add_argument('--rehearse', action='store_true',
                        help=f'the same in small, in the output folder\'s {REHEARSAL}/')
    args = parser.parse_args(argv)
    data, output, rehearsal = args.data, args.output, None
    if args.rehearse:
        output = rehearsal = (output / REHEARSAL).absolute()
        data = data.absolute()
    try:
        steps = commands(args.name, data, output, rehearsal)
        if not args.dry_run:  # hours before they are needed
            for images in (images for stage in stages(args.name)
                           for images in UNLABELLED.get(stage, ())):
                located(images, data)
            check_writable(output / f'{args.name}.tflite')
            if rehearsal:
                _write_rehearsal(args.name, rehearsal / 'configs')
    except (ConfigError, DatasetError, OutputError) as error:
        print(error, file=sys.stderr)
        return 1
    try:
        for step in steps:
            print('python -m', *step, flush=True)
            if not args.dry_run and (code := _run(step, rehearsal)):
                return code
    except KeyboardInterrupt:
        print('interrupted: the same command goes on behind the last epoch that was finished.',
              file=sys.stderr)
        return 130
    return 0


def _write_rehearsal(name: str, configs: Path) -> None:
    """Write the configurations of a rehearsal."""
    for stage in stages(name):
        write_config(configs / f'{stage}.py', rehearsed(load_config(CONFIGS / f'{stage}.py')),
                     f'Written by training.rebuild --rehearse: {stage}, in small.')


def _run(step: list[str], place: Path | None) -> int:
    """Run a step, in a folder; a Ctrl-C, which it gets too, lets it end by itself."""
    root = str(Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, (root, os.environ.get('PYTHONPATH'))))
    with subprocess.Popen([sys.executable, '-m', *step], cwd=place,
                          env={**os.environ, 'PYTHONPATH': path}) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.terminate()
            raise


if __name__ == '__main__':
    sys.exit(main())
