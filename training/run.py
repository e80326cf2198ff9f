"""The folder of one run: settings, history, checkpoint, model, pictures."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from training.averaging import WeightAverage
from training.config import Config
from training.events import EventFile
from training.faults import TrainingError, intact
from training.learnt import data_sets
from training.model import deployable
from training.provenance import commit

#: History columns before the IoU of each validation set.
COLUMNS = ('epoch', 'input_hw', 'learning_rate', 'loss', 'images_per_s', 'seconds')


def with_defaults(found: Any, default: Any) -> Any:
    """Fill in what a file of an older version does not name with today's defaults."""
    if not isinstance(found, dict) or not isinstance(default, dict):
        return found
    filled = {key: with_defaults(value, default.get(key)) for key, value in found.items()}
    return {**default, **filled}


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what keeps a file of a run from being written into a ``TrainingError``."""
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f'{path}: found that it cannot be written ({error.strerror or error}), expected a '
            'folder for the run; make room there, or choose another --run folder.') from error


#: Settings that a run may go on with when they were changed: they do not belong to its network,
#: losses and schedule.
LATER = ('cache_mb', 'on_bad', 'patience', 'pictures')


class Run:
    """
    The folder of one run.

    Every file in it but those in ``events/``, which grow, is replaced whole: a kill at any moment
    leaves the old one or the new one.

    Parameters
    ----------
    folder : Path
        ``claim`` creates it if it is not there.
    config : Config
    command : list of str
        What was typed; kept with the run.
    writes : bool
        False on all but one process of a cluster: the folder is read only.

    Raises
    ------
    TrainingError
        If the folder belongs to another configuration, its settings are damaged, or, whenever
        something is stored, it cannot be written to.

    """

    def __init__(
        self, folder: Path, config: Config, command: list[str], writes: bool = True,
    ) -> None:
        self.folder, self.config, self._writes = folder, config, writes
        self._command = command
        self.history: list[dict[str, Any]] = []
        self.best = -1.0
        self.best_epoch = 0
        self.epoch = 0
        self._events: EventFile | None = None
        self.changed_later: dict[str, tuple[Any, Any]] = {}
        self._described = json.loads(json.dumps(dataclasses.asdict(config)))
        if self._settings.is_file():
            defaults = {field.name: field.default for field in dataclasses.fields(Config)}
            defaults = json.loads(json.dumps({
                **defaults, 'architecture': dataclasses.asdict(type(config.architecture)()),
                'augmentation': dataclasses.asdict(type(config.augmentation)())}, default=str))
            with intact(self._settings, 'the settings of a run',
                        'restore it, or choose another --run folder'):
                found = with_defaults(json.loads(self._settings.read_text())['config'], defaults)
                classes = self._stored_classes()
                changed = [key for key, value in self._described.items() if value != found[key]]
            self.changed_later = {
                key: (found[key], self._described[key]) for key in changed if key in LATER}
            if changed := [key for key in changed if key not in LATER]:
                raise TrainingError(
                    f'{self._settings}: this run was begun with other settings '
                    f'({", ".join(changed)}); choose another --run folder, or start from the same '
                    'configuration.')
            if classes is not None and classes != config.training_classes:
                raise TrainingError(
                    f'{self._settings}: this run was begun with the classes {classes}, but '
                    f'taxonomy {config.taxonomy!r} holds {config.training_classes} now; restore '
                    'it, or choose another --run folder.')

    def _stored_classes(self) -> tuple[str, ...] | None:
        """Return the training classes that the run was begun with; older ones do not tell."""
        taxonomy = json.loads(self._settings.read_text()).get('taxonomy')
        return None if taxonomy is None else tuple(taxonomy['classes'])

    def claim(self) -> None:
        """Make the folder that of this configuration, unless it already is."""
        if self.changed_later:
            with intact(self._settings, 'the settings of a run',
                        'restore it, or choose another --run folder'):
                told = json.loads(self._settings.read_text())
                told['config'] |= {key: new for key, (_, new) in self.changed_later.items()}
            self._replace(self._settings, lambda file: file.write_text(json.dumps(told, indent=2)))
        elif not self._settings.is_file():
            # The file that it may be from can be edited or moved before the run is deployed.
            taxonomy = dataclasses.asdict(self.config.label_taxonomy)
            # So can the run that it starts from.
            init = self.config.init
            text = json.dumps({
                'command': self._command, 'commit': commit(), 'config': self._described,
                'taxonomy': taxonomy,
                'trained_before': list(data_sets(Path(init))) if init else []}, indent=2)
            self._replace(self._settings, lambda file: file.write_text(text))

    def _replace(self, path: Path, write: Callable[[Path], object]) -> None:
        # A temporary file keeps its ending: what is written depends on it.
        if not self._writes:
            return
        temporary = path.with_name(f'{path.stem}.tmp{path.suffix}')
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write(temporary)
            os.replace(temporary, path)

    @property
    def _settings(self) -> Path:
        return self.folder / 'config.json'

    @property
    def checkpoint(self) -> Path:
        return self.folder / 'checkpoint.npz'

    def resume(self, model: keras.Model, average: WeightAverage | None = None) -> bool:
        """
        Restore weights, optimizer, average and history of the last finished epoch.

        Returns
        -------
        bool
            Whether there was one.

        Raises
        ------
        TrainingError
            If the checkpoint is damaged, or of another network.

        """
        if not self.checkpoint.is_file():
            return False
        with intact(self.checkpoint, 'the last epoch of this run',
                    'delete it to begin anew, or choose another --run folder'), \
                np.load(self.checkpoint) as archive:
            stored = dict(archive)
            state = json.loads(str(stored['state']))
        variables = model.weights + model.optimizer.variables
        shapes = [stored[f'v{index}'].shape for index in range(len(variables))
                  if f'v{index}' in stored]
        if shapes != [tuple(variable.shape) for variable in variables]:
            raise TrainingError(
                f'{self.checkpoint}: found {len(shapes)} of {len(variables)} variables, or '
                'other shapes; expected the network of config.json. Choose another --run '
                'folder.')
        for index, variable in enumerate(variables):
            variable.assign(stored[f'v{index}'])
        if average is not None:
            average.restore(
                [stored[f'a{index}'] for index in range(len(model.weights))],
                state['average_batches'])
        self.epoch, self.best = state['epoch'], state['best']
        self.best_epoch = state.get('best_epoch', self.epoch)
        self.history = state['history']
        self._write_history()
        return True

    def save(self, model: keras.Model, average: WeightAverage | None = None) -> None:
        """Store everything that ``resume`` needs, as one file."""
        arrays = {f'v{index}': ops.convert_to_numpy(variable) for index, variable
                  in enumerate(model.weights + model.optimizer.variables)}
        state = {'epoch': self.epoch, 'best': self.best, 'best_epoch': self.best_epoch,
                 'history': self.history}
        if average is not None:
            arrays |= {f'a{index}': value for index, value in enumerate(average.values)}
            state['average_batches'] = average.batches
        self._replace(
            self.checkpoint, lambda file: np.savez(file, state=json.dumps(state), **arrays))
        self._write_history()

    def save_best(self, model: keras.Model) -> None:
        """Store the deployable float model."""
        # On a cluster all processes have to set a variable together: each builds the model.
        best = deployable(model, self.config.architecture, self.config.input_hw)
        self._replace(self.folder / 'best.keras', best.save)

    def save_picture(self, png: bytes) -> None:
        """Store the picture of this epoch's predictions."""
        self._replace(self.folder / 'pictures' / f'epoch_{self.epoch:03d}.png',
                      lambda file: file.write_bytes(png))

    def write_events(self, scalars: dict[str, float]) -> None:
        """Add this epoch's figures to the event file that TensorBoard reads."""
        if not self._writes:
            return
        with writing(self.folder / 'events'):
            if self._events is None:
                self._events = EventFile(self.folder / 'events')
            self._events.scalars(self.epoch, scalars)

    def _write_history(self) -> None:
        def write(path: Path) -> None:
            with path.open('w', newline='') as file:
                writer = csv.DictWriter(file, list(self.history[0]))
                writer.writeheader()
                writer.writerows(self.history)

        if self.history:
            self._replace(self.folder / 'history.csv', write)

    def draw_curve(self) -> None:
        """Draw loss and validation IoU over the epochs, where matplotlib is installed."""
        if not self._writes:
            return
        try:
            from matplotlib.figure import Figure
        except ImportError:
            print('curve.png is left out: matplotlib is not installed (pip install matplotlib).')
            return
        figure = Figure(figsize=(8, 4.5))
        left = figure.add_subplot()
        epochs = [row['epoch'] for row in self.history]
        left.plot(epochs, [row['loss'] for row in self.history], color='0.6', label='loss')
        left.set(xlabel='epoch', ylabel='training loss (nats)')
        right = left.twinx()
        for key in self.history[0]:
            if key.startswith('iou '):
                right.plot(epochs, [row[key] for row in self.history], label=key[4:])
        right.set(ylabel=f'{self.config.mark} IoU', ylim=(0, 1))
        right.legend(loc='lower right')
        self._replace(self.folder / 'curve.png',
                      lambda file: figure.savefig(file, dpi=110, bbox_inches='tight'))


def finite(values: list[npt.NDArray[np.floating]]) -> bool:
    """Tell whether no value is NaN or infinite."""
    return all(bool(np.isfinite(value).all()) for value in values)
