"""What a run folder of ``training.train`` holds for deployment."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

import keras

from training.faults import intact


class RunError(RuntimeError):
    """A run folder cannot be used."""


class QuantizationError(RuntimeError):
    """A model cannot be quantized as asked."""


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """
    What ``training.train`` left: the float model and how it came about.

    ``merge`` is the deployed class of each class of ``taxonomy``; ``mark`` names the class that
    scores are given for, or ``mean`` for the mean over all; ``on_bad`` is what a frame that cannot
    be read does.

    """

    model: keras.Model
    classes: tuple[str, ...]
    merge: tuple[int, ...]
    mark: str
    train_sets: tuple[str, ...]
    provenance: dict[str, Any]
    taxonomy: str = 'road'
    on_bad: str = 'stop'


def read_run(folder: Path) -> FinishedRun:
    """
    Read a run folder.

    Raises
    ------
    RunError
        If it holds no finished epoch at the deployed size, or what it holds is damaged.

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
        return FinishedRun(
            model, tuple(config['classes']), tuple(config['merge']), config['mark'],
            tuple(spec for spec, _ in config['train']),
            {'command': shlex.join(described['command']), 'commit': described['commit'],
             'datasets': [spec for spec, _ in config['train']],
             'selected_on': list(config['validate'])},
            config.get('taxonomy', 'road'), config.get('on_bad', 'stop'))
