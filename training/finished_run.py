"""What a run folder of ``training.train`` holds for deployment."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

import keras

from training.datasets import TAXONOMIES, Taxonomy, load_taxonomy
from training.faults import TrainingError, intact
from training.learnt import Learnt, data_sets
from training.model import deployable
from training.optimization import last_epoch

#: Of which epoch the model may be: the best one by validation, or the last one.
EPOCHS = ('best', 'last')


class RunError(RuntimeError):
    """A run folder cannot be used."""


class QuantizationError(RuntimeError):
    """A model cannot be quantized as asked."""


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """
    What ``training.train`` left: the float model and how it came about.

    ``taxonomy`` holds the training classes as they were when the run began, ``merge`` the deployed
    class of each of them; ``mark`` names the class that
    scores are given for, or ``mean`` for the mean over all; ``on_bad`` is what a frame that cannot
    be read does. ``train_sets`` are its own, those of ``provenance`` also those of the runs that
    it was made of.

    """

    model: keras.Model
    classes: tuple[str, ...]
    merge: tuple[int, ...]
    mark: str
    train_sets: tuple[str, ...]
    provenance: dict[str, Any]
    taxonomy: Taxonomy = TAXONOMIES['road']
    on_bad: str = 'stop'


def read_run(
    folder: Path, epoch: str = 'best', before: Path | None = None, share: float = 0.0,
) -> FinishedRun:
    """
    Read a run folder.

    Parameters
    ----------
    folder : Path
    epoch : str
        One of ``EPOCHS``: whether the model is ``best.keras``, or that of the last epoch, which
        the provenance then tells.
    before : Path, optional
        With ``epoch`` ``last``: a run that it descends from. The model is then the weighted mean
        of both after their last epochs (Wortsman et al., Robust fine-tuning of zero-shot models,
        2022): what was learnt since, with less of what was lost since.
    share : float
        Weight of ``before`` in that mean, above 0 and below 1.

    Raises
    ------
    RunError
        If it holds no finished epoch at the deployed size, or what it holds is damaged; or if
        the run before learnt other classes.
    DatasetError
        If a run of an older version, which does not hold them, names classes that are gone.

    """
    model_path, config_path = folder / 'best.keras', folder / 'config.json'
    for path in (config_path, model_path):
        if not path.is_file():
            raise RunError(
                f'{path}: missing; expected a run folder of training.train with at least one '
                'finished epoch at the deployed input size.')
    advice = 'choose another run, or train again in a new folder'
    with intact(model_path, 'a Keras model', advice, RunError):
        model = keras.models.load_model(model_path, compile=False)
    with intact(config_path, 'the settings of a run', advice, RunError):
        described = json.loads(config_path.read_text())
        config = described['config']
        run = FinishedRun(
            model, tuple(config['classes']), tuple(config['merge']), config['mark'],
            tuple(spec for spec, _ in config['train']),
            {'command': shlex.join(described['command']), 'commit': described['commit'],
             'datasets': list(data_sets(folder)),
             'selected_on': list(config['validate']),
             **({'init': config['init']} if config.get('init') else {})},
            on_bad=config.get('on_bad', 'stop'))
    taxonomy = _taxonomy(config_path, described, run.merge)
    run = dataclasses.replace(run, taxonomy=taxonomy, provenance={
        **run.provenance, **Learnt(taxonomy, run.merge).told(run.classes)})
    if epoch == 'last':
        return dataclasses.replace(
            run, model=_last(run, folder, model.input_shape[1:3], before, share),
            provenance={**run.provenance, 'epoch': epoch, **({
                'datasets': list(dict.fromkeys(
                    (*run.provenance['datasets'], *data_sets(before)))),
                'mean_with': {before.as_posix(): share}} if before else {})})
    return run


def _taxonomy(path: Path, described: dict[str, Any], merge: tuple[int, ...]) -> Taxonomy:
    """Return the training classes of a run, which older runs name alone."""
    if stored := described.get('taxonomy'):
        with intact(path, 'the settings of a run', 'choose another run', RunError):
            return Taxonomy(stored['name'], tuple(stored['classes']))
    name = described['config'].get('taxonomy', 'road')
    taxonomy = load_taxonomy(name)
    if len(taxonomy.classes) != len(merge):
        raise RunError(
            f'{path}: this run was trained on {len(merge)} classes, but taxonomy {name!r} holds '
            f'{len(taxonomy.classes)} now; restore it.')
    return taxonomy


def _last(
    run: FinishedRun, folder: Path, input_hw: tuple[int, int], before: Path | None, share: float,
) -> keras.Model:
    """Return the deployable model of the last epoch, or of its mean with another run's."""
    try:
        architecture, trained = last_epoch(folder)
        model = deployable(trained, architecture, input_hw)
        if before:
            other_architecture, other = last_epoch(before)
            if other_architecture != architecture:
                raise RunError(
                    f'{before}: found another architecture than that of {folder}, expected the '
                    'same: only the weights of one network have a mean.')
            _check_classes(run, before)
            others = deployable(other, architecture, input_hw).get_weights()
            model.set_weights([(1 - share) * mine + share * theirs for mine, theirs
                               in zip(model.get_weights(), others, strict=True)])
    except TrainingError as error:
        raise RunError(str(error)) from error
    return model


def _check_classes(run: FinishedRun, before: Path) -> None:
    """Refuse the mean of networks whose outputs mean different things."""
    path = before / 'config.json'
    with intact(path, 'the settings of a run', 'choose another run', RunError):
        described = json.loads(path.read_text())
        classes, merge = (tuple(described['config'][name]) for name in ('classes', 'merge'))
    if classes != run.classes:
        raise RunError(f'{path}: found the classes {classes}, expected {run.classes}, in that '
                       'order: a mean of weights is one of equal outputs.')
    taxonomy = _taxonomy(path, described, merge)
    if (taxonomy.classes, merge) != (run.taxonomy.classes, run.merge):
        raise RunError(
            f'{path}: found {told(taxonomy, classes, merge)}, expected '
            f'{told(run.taxonomy, run.classes, run.merge)}: a mean of weights is one of networks '
            'that learnt the same labels.')


def told(taxonomy: Taxonomy, classes: tuple[str, ...], merge: tuple[int, ...]) -> str:
    """Write down what each training class becomes."""
    return ', '.join(f'{name} as {classes[target]}'
                     for name, target in zip(taxonomy.classes, merge, strict=True))
