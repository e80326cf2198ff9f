"""What a training run is made of; ``training/configs/*.py`` hold instances."""

from __future__ import annotations

import dataclasses
import runpy
from pathlib import Path

from training.augment import Augmentation
from training.datasets import TAXONOMY
from training.model import Architecture


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
    validate : tuple of str
        Data sets scored after every epoch; the first one chooses the checkpoint.
    classes : tuple of str
        Names of the deployed classes.
    merge : tuple of int
        Deployed class of each training class (``training.datasets.TAXONOMY``).
    mark : str
        The deployed class whose IoU is reported and maximised.
    images_per_epoch, batch_size : int
    learning_rate : float
        Peak; reached after ``warmup_steps``, then (1 - progress) ** ``poly_power`` (paper: 0.9).
    weight_decay : float
        Of convolution kernels only.
    bn_momentum : float
        Of the moving statistics; 0.99 lags on runs of a few thousand steps.
    booster_weight : float
        Weight of each booster head's loss beside the main head's 1.
    ohem_threshold : float
        See ``training.losses.ohem_cross_entropy``.
    loss_stride : int
        The loss is taken on every n-th pixel of the label image, both ways.
    precision : str
        Keras dtype policy: ``float32`` or ``mixed_bfloat16``.

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
    loss_stride: int = 2
    precision: str = 'float32'
    seed: int = 0
    augmentation: Augmentation = dataclasses.field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        if len(self.merge) != len(TAXONOMY) or max(self.merge) >= len(self.classes):
            raise ConfigError(
                f'merge: found {self.merge}, expected one deployed class id below '
                f'{len(self.classes)} for each of {TAXONOMY}.')
        if self.architecture.num_classes != len(self.classes):
            raise ConfigError(
                f'architecture.num_classes is {self.architecture.num_classes}, but classes names '
                f'{len(self.classes)}; they must be equal.')
        if self.mark not in self.classes:
            raise ConfigError(f'mark: found {self.mark!r}, expected one of {self.classes}.')
        if not self.phases or not self.train or not self.validate:
            raise ConfigError('phases, train and validate must each name at least one entry.')
        if self.images_per_epoch < self.batch_size:
            raise ConfigError(
                f'images_per_epoch: found {self.images_per_epoch}, expected at least a batch '
                f'({self.batch_size}).')

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


def load_config(path: Path) -> Config:
    """
    Read ``CONFIG`` from a Python file.

    Raises
    ------
    ConfigError
        If the file is missing or holds no ``CONFIG`` of type ``Config``.

    """
    if not path.is_file():
        raise ConfigError(f'{path}: no such configuration file; see training/configs/.')
    found = runpy.run_path(str(path)).get('CONFIG')
    if not isinstance(found, Config):
        raise ConfigError(
            f'{path}: found CONFIG of type {type(found).__name__}, expected '
            'training.config.Config.')
    return found
