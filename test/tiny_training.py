"""A training that takes seconds, for tests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras

from training.config import Config, Phase
from training.model import Architecture

TINY = Architecture(
    detail_widths=(4, 4, 8), semantic_widths=(4, 4, 8, 8), aggregation_width=8, head_width=8,
    booster_classes=4, booster_width=4)

#: At two input sizes; an epoch ends with half an update pending.
SOURCE = '''
from training.config import Config, Phase
from training.model import Architecture

CONFIG = Config(
    architecture=Architecture(
        detail_widths=(4, 4, 8), semantic_widths=(4, 4, 8, 8), aggregation_width=8,
        head_width=8, booster_classes=4, booster_width=4),
    phases=(Phase((32, 32), 1), Phase((32, 64), 1)),
    train=(('synthetic:8', 1.0),), validate=('synthetic:3:1',),
    images_per_epoch=12, batch_size=4, warmup_steps=1, seed=3, ema_decay=0.9, accumulate=2)
'''


def tiny_config(**changes: object) -> Config:
    """Return a configuration of one epoch of two batches at 32x32."""
    return Config(**{
        'architecture': TINY, 'phases': (Phase((32, 32), 1),), 'train': (('synthetic:8', 1.0),),
        'validate': ('synthetic:3:1',), 'images_per_epoch': 8, 'batch_size': 4,
        'warmup_steps': 1, 'seed': 3, 'pictures': 0, **changes})


@contextlib.contextmanager
def eager_functions() -> Iterator[None]:
    """
    Run TensorFlow's functions without tracing them.

    Tracing a network of 150 layers takes longer than a few steps on small frames do.

    """
    if keras.backend.backend() != 'tensorflow':
        yield
        return
    import tensorflow as tf
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)
