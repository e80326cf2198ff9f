"""What a training run is made of; ``training/configs/*.py`` hold instances."""

from __future__ import annotations

import dataclasses
import re
import runpy
import traceback
from collections.abc import Sequence
from math import inf
from pathlib import Path

import numpy as np

from bisenet_ros.core.errors import first_line
from bisenet_ros.core.output_files import write_text
from training.augment import Augmentation
from training.datasets import DatasetError, Taxonomy, load_taxonomy
from training.model import Architecture, check_input_hw, check_output_stride
from training.setting_types import check_types, tupled

#: As ``Config.mark``: the mean over all classes.
MEAN = 'mean'

#: Keras dtype policies that the trainer is made for.
PRECISIONS = ('float32', 'mixed_bfloat16')

#: They divide every input size, so that cells of the labels and of the logits coincide.
LOSS_STRIDES = (1, 2, 4, 8)

#: What running a configuration file raises when something in it is wrong.
_WRONG_IN_FILE = (SyntaxError, ImportError, NameError, AttributeError, TypeError, ValueError,
                  LookupError, ArithmeticError, OSError)


class ConfigError(ValueError):
    """A training configuration cannot be used."""


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of epochs at one input size (height, width in pixels)."""

    input_hw: tuple[int, int]
    epochs: int


@dataclasses.dataclass(frozen=True)
class Config:
    """
    One training run.

    Parameters
    ----------
    architecture : Architecture
    phases : tuple of Phase
        Run one after the other on the same weights and one learning-rate schedule; small inputs
        first make a short run go further. The last one's size is the deployed size.
    train : tuple of (str, float)
        Data sets (``training.datasets.open_dataset``) and the share of each in an epoch.
    sequence_balance : float
        How far long sequences give way to short ones within a data set, from 0 (every frame counts
        the same) to 1 (every sequence does): neighbours show nearly the same.
    validate : tuple of str
        Data sets scored after every epoch; the mean of their scores chooses the checkpoint.
    classes : tuple of str
        Names of the deployed classes.
    merge : tuple of int
        Deployed class of each training class (of ``taxonomy``); empty: they are the same.
    mark : str
        The deployed class whose IoU is reported and maximised, or ``mean`` for the mean over all
        classes.
    images_per_epoch, batch_size : int
    learning_rate : float
        Peak; reached after ``warmup_steps``, then (1 - progress) ** ``poly_power`` (paper: 0.9).
    warmup_steps : int
        Counted in updates, of ``accumulate`` batches each.
    weight_decay : float
        Of convolution kernels only.
    bn_momentum : float
        Of the moving statistics; 0.99 lags on runs of a few thousand steps.
    booster_weight : float
        Weight of each booster head's loss beside the main head's 1.
    ohem_threshold : float
        See ``training.losses.ohem_cross_entropy``.
    jaccard_weight : float
        Above 0, so many times ``training.losses.jaccard_loss`` is added to the deployed head's
        loss.
    loss_stride : int
        The loss is taken on every n-th pixel of the label image, both ways: 1, 2, 4 or 8.
    precision : str
        Keras dtype policy: ``float32`` or ``mixed_bfloat16``.
    taxonomy : str
        The training classes, what labels of all data sets are mapped to: a name or a JSON file
        (``training.datasets.load_taxonomy``).
    on_bad : str
        What a frame that cannot be read does: ``stop`` the run, or ``skip`` the frame, named.
    class_weights : str or tuple of float
        ``none``; ``inverse_log`` of the classes' measured shares; or one for each deployed class.
        Given ones hold for the boosters too where these have the deployed classes.
    ema_decay : float
        Above 0, validation and the deployed model use an exponential moving average of the
        weights, with this weight of the past at each update (0.998, say).
    patience : int
        Above 0, stop after so many epochs at the deployed size without a better one.
    accumulate : int
        Batches whose gradients are averaged for one update.
    init : str
        Run folder (the weights of its last epoch, booster heads included), or ``.keras`` file,
        whose weights are the start; what does not fit starts fresh.
    freeze : tuple of str
        Beginnings or patterns (``s[345]_*``) of the names of layers that keep their weights,
        moving statistics included.
    pictures : int
        Frames of the first validation set that each epoch's picture shows.
    cache_mb : int
        Decoded frames are kept in memory up to this much, over all data sets.

    """

    architecture: Architecture
    phases: tuple[Phase, ...]
    train: tuple[tuple[str, float], ...]
    validate: tuple[str, ...]
    classes: tuple[str, ...] = ('background', 'road')
    merge: tuple[int, ...] = (0, 1, 0, 0)
    mark: str = 'road'
    images_per_epoch: int = 1600
    batch_size: int = 16
    learning_rate: float = 0.05
    warmup_steps: int = 200
    poly_power: float = 0.9
    momentum: float = 0.9
    weight_decay: float = 5e-4
    bn_momentum: float = 0.95
    booster_weight: float = 0.4
    ohem_threshold: float = 0.7
    jaccard_weight: float = 0.0
    loss_stride: int = 2
    precision: str = 'float32'
    seed: int = 0
    sequence_balance: float = 0.0
    augmentation: Augmentation = dataclasses.field(default_factory=Augmentation)
    taxonomy: str = 'road'
    on_bad: str = 'stop'
    class_weights: str | tuple[float, ...] = 'none'
    ema_decay: float = 0.0
    patience: int = 0
    accumulate: int = 1
    init: str = ''
    freeze: tuple[str, ...] = ()
    pictures: int = 4
    cache_mb: int = 4096

    def __post_init__(self) -> None:
        """Fill in what follows from the rest, and refuse what cannot be trained."""
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, tupled(getattr(self, field.name)))
        try:
            check_types(self)
        except TypeError as error:
            raise ConfigError(str(error)) from error
        self._check_names()
        if not self.merge:
            object.__setattr__(self, 'merge', self._merge_by_name())
        self._check_classes()
        self._check_architecture()
        self._check_mark()
        if not self.phases or not self.train or not self.validate:
            raise ConfigError('phases, train and validate must each name at least one entry.')
        self._check_phases()
        for spec, weight in self.train:
            if not 0 < weight < float('inf'):
                raise ConfigError(
                    f'train: found the weight {weight} of {spec!r}, expected a number above 0; '
                    'leave out what is not to be trained on.')
        for name, least, below in (
                ('batch_size', 1, inf), ('learning_rate', 0.0, inf), ('warmup_steps', 0, inf),
                ('poly_power', 0.0, inf), ('momentum', 0.0, 1.0), ('bn_momentum', 0.0, 1.0),
                ('weight_decay', 0.0, inf), ('booster_weight', 0.0, inf), ('ema_decay', 0.0, 1.0),
                ('jaccard_weight', 0.0, inf), ('patience', 0, inf), ('pictures', 0, inf),
                ('cache_mb', 0, inf), ('accumulate', 1, inf), ('seed', 0, inf)):
            if not least <= getattr(self, name) < below:  # refuses NaN as well
                raise ConfigError(
                    f'{name}: found {getattr(self, name)}, expected at least {least}'
                    + (' and finite.' if below == inf else f' and below {below}.'))
        if not 0 < self.ohem_threshold <= 1:
            raise ConfigError(
                f'ohem_threshold: found {self.ohem_threshold}, expected above 0 and at most 1.')
        try:
            self.augmentation.check()
        except ValueError as error:
            raise ConfigError(f'augmentation.{error}') from error
        if self.images_per_epoch < self.batch_size:
            raise ConfigError(
                f'images_per_epoch: found {self.images_per_epoch}, expected at least a batch '
                f'({self.batch_size}).')
        if self.precision not in PRECISIONS:
            raise ConfigError(
                f'precision: found {self.precision!r}, expected {" or ".join(PRECISIONS)}.')
        if self.loss_stride not in LOSS_STRIDES:
            raise ConfigError(
                f'loss_stride: found {self.loss_stride}, expected one of {LOSS_STRIDES}.')
        if not 0 <= self.sequence_balance <= 1:
            raise ConfigError(
                f'sequence_balance: found {self.sequence_balance}, expected 0 to 1.')
        if self.on_bad not in ('stop', 'skip'):
            raise ConfigError(f'on_bad: found {self.on_bad!r}, expected stop or skip.')

    def _check_phases(self) -> None:
        for phase in self.phases:
            try:
                check_input_hw(phase.input_hw)
            except ValueError as error:
                raise ConfigError(f'phases: {error}') from error
            if phase.epochs < 1:
                raise ConfigError(
                    f'phases: found {phase.epochs} epochs at {phase.input_hw[0]}x'
                    f'{phase.input_hw[1]}, expected at least 1; leave out an empty phase.')

    def _check_names(self) -> None:
        if len(self.classes) < 2:
            raise ConfigError(
                f'classes: found {self.classes}, expected at least 2, for a network to tell them '
                "apart; add 'background', to the taxonomy as well, for what is none of them.")
        if len(set(self.classes)) < len(self.classes):
            raise ConfigError(f'classes: found {self.classes}, expected each name once.')

    def _merge_by_name(self) -> tuple[int, ...]:
        if set(self.classes) != set(self.training_classes):
            raise ConfigError(
                f'merge: found none, with classes {self.classes} and a taxonomy of '
                f'{self.training_classes}, expected the same names in both, or a merge that says '
                'which deployed class each of the taxonomy becomes.')
        return tuple(self.classes.index(name) for name in self.training_classes)

    def _check_classes(self) -> None:
        if (len(self.merge) != len(self.training_classes)
                or not all(0 <= target < len(self.classes) for target in self.merge)):
            raise ConfigError(
                f'merge: found {self.merge}, expected one deployed class id below '
                f'{len(self.classes)} for each of {self.training_classes}.')
        if lacking := [name for index, name in enumerate(self.classes)
                       if index not in self.merge]:
            raise ConfigError(
                f'merge: found {self.merge}, of which none becomes {" or ".join(lacking)}, '
                f'expected each of {self.classes} at least once; leave out of classes what '
                'nothing becomes.')

    def _check_architecture(self) -> None:
        for name, value in dataclasses.asdict(self.architecture).items():
            least = 0 if name == 'booster_classes' else 1
            if not isinstance(value, bool) and np.min(value) < least:
                raise ConfigError(
                    f'architecture.{name}: found {value}, expected at least {least}'
                    f'{" each" if isinstance(value, tuple) else ""}.')
        if self.architecture.num_classes != len(self.classes):
            raise ConfigError(
                f'architecture.num_classes is {self.architecture.num_classes}, but classes names '
                f'{len(self.classes)}; they must be equal.')
        try:
            check_output_stride(self.architecture.output_stride)
        except ValueError as error:
            raise ConfigError(f'architecture.{error}') from error
        boosters = self.architecture.booster_classes or len(self.classes)
        if boosters not in (len(self.classes), len(self.training_classes)):
            raise ConfigError(
                f'architecture.booster_classes: found {boosters}, expected 0, or one for each of '
                f'{self.training_classes}.')

    def _check_mark(self) -> None:
        if self.mark != MEAN and self.mark not in self.classes:
            raise ConfigError(
                f'mark: found {self.mark!r}, expected one of {self.classes}, or {MEAN!r}.')
        if isinstance(self.class_weights, str):
            if self.class_weights not in ('none', 'inverse_log'):
                raise ConfigError(
                    f'class_weights: found {self.class_weights!r}, expected none, inverse_log or '
                    'one number for each class.')
        elif (len(self.class_weights) != len(self.classes)
                or not all(0 <= weight < inf for weight in self.class_weights)
                or not any(self.class_weights)):
            raise ConfigError(
                f'class_weights: found {self.class_weights}, expected a number of at least 0 for '
                f'each of {self.classes}, not all of them 0.')

    @property
    def training_classes(self) -> tuple[str, ...]:
        """Return the names of the classes that labels are mapped to."""
        return self.label_taxonomy.classes

    @property
    def label_taxonomy(self) -> Taxonomy:
        """Return the training classes."""
        return _taxonomy(self.taxonomy)

    @property
    def boosters_are_finer(self) -> bool:
        """Return whether the boosters learn the training classes, not the deployed ones."""
        return self.architecture.booster_classes == len(self.training_classes)

    @property
    def steps_per_epoch(self) -> int:
        return self.images_per_epoch // self.batch_size

    @property
    def epochs(self) -> int:
        return sum(phase.epochs for phase in self.phases)

    @property
    def input_hw(self) -> tuple[int, int]:
        """Return the deployed input height and width in pixels."""
        return self.phases[-1].input_hw

    def phase_of(self, epoch: int) -> Phase:
        """Return the phase that an epoch, counted from 0 over all phases, belongs to."""
        end = 0
        for phase in self.phases:
            end += phase.epochs
            if epoch < end:
                return phase
        raise ConfigError(f'epoch {epoch} is past the last phase.')

    def with_epochs(self, epochs: int) -> Config:
        """Return the same run made longer or shorter, its phases in proportion."""
        if epochs < len(self.phases):
            raise ConfigError(
                f'epochs: found {epochs}, expected at least one for each of the '
                f'{len(self.phases)} phases.')
        total, phases, before, end = self.epochs, [], 0, 0
        for index, phase in enumerate(self.phases):
            before += phase.epochs
            left = len(self.phases) - 1 - index
            begin, end = end, min(max(round(epochs * before / total), end + 1), epochs - left)
            phases.append(dataclasses.replace(phase, epochs=end - begin))
        return dataclasses.replace(self, phases=tuple(phases))

    def with_taxonomy(self, taxonomy: str) -> Config:
        """Return the same run on all classes of a taxonomy, none merged, marked by their mean."""
        if taxonomy == self.taxonomy and self.merge == tuple(range(len(self.classes))):
            return self if self.mark == MEAN else dataclasses.replace(self, mark=MEAN)
        classes = _taxonomy(taxonomy).classes
        if not isinstance(self.class_weights, str):
            raise ConfigError(
                f'class_weights: found {self.class_weights}, one for each of {self.classes}, '
                f'expected none or inverse_log with --taxonomy {taxonomy}, which has other '
                'classes; set it in the configuration, or write one for those classes.')
        return dataclasses.replace(
            self, taxonomy=taxonomy, classes=classes, merge=(),
            mark=MEAN,
            architecture=dataclasses.replace(
                self.architecture, num_classes=len(classes), booster_classes=0))


def _taxonomy(name: str) -> Taxonomy:
    try:
        return load_taxonomy(name)
    except DatasetError as error:
        raise ConfigError(str(error)) from error


def parse_weighted(texts: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """
    Read data sets with weights from the command line.

    Parameters
    ----------
    texts : sequence of str
        ``SPEC`` (weight 1) or ``SPEC=WEIGHT``; the weight is behind the last equals sign, so a
        path that holds one needs it: ``ids:runs/lr=0.1=1``.

    Raises
    ------
    ConfigError
        If a weight is not above 0.

    """
    parsed = []
    for text in texts:
        # A data set's own options are KEY=VALUE behind commas: only an equals sign that none of
        # them needs is the weight's.
        first, *options = re.split(r',(?=[a-z_]+=)', text)
        last = options[-1] if options else first
        if last.count('=') <= bool(options):
            parsed.append((text, 1.0))
            continue
        spec, _, number = text.rpartition('=')
        try:
            weight = float(number)
        except ValueError:
            weight = 0.0
        if not 0 < weight < float('inf'):
            raise ConfigError(
                f'--dataset: found the weight {number!r} in {text!r}, expected a number above 0; '
                f'if its path holds the equals sign, write the weight, too: {text}=1.')
        parsed.append((spec, weight))
    return tuple(parsed)


def load_config(path: Path) -> Config:
    """
    Read ``CONFIG`` from a Python file.

    Raises
    ------
    ConfigError
        If the file is missing, cannot be run, or holds no ``CONFIG`` of type ``Config``.

    """
    if not path.is_file():
        raise ConfigError(f'{path}: no such configuration file; see training/configs/.')
    try:
        found = runpy.run_path(str(path)).get('CONFIG')
    except (ConfigError, DatasetError):
        raise  # says itself which setting is wrong
    except _WRONG_IN_FILE as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__)
                 if frame.filename == str(path)]
        where = f'{path}, line {lines[-1]}' if lines else f'{path}'
        raise ConfigError(
            f'{where}: found {type(error).__name__}: {first_line(error)}; expected Python that '
            'sets CONFIG; see training/configs/.') from error
    if not isinstance(found, Config):
        raise ConfigError(
            f'{path}: found CONFIG of type {type(found).__name__}, expected '
            'training.config.Config.')
    return found


def write_config(path: Path, config: Config, docstring: str) -> None:
    """
    Write a file that ``load_config`` reads, its folder too.

    Raises
    ------
    OutputError
        If it cannot be written.

    """
    write_text(
        path, f'"""{docstring}"""\n\n'
        'from training.augment import Augmentation  # noqa: F401\n'
        'from training.config import Config, Phase\n'
        f'from training.model import Architecture\n\nCONFIG = {config!r}\n')
