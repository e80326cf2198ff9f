"""What can go wrong in a training step, and what to do about it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import keras
import numpy as np

from bisenet_ros.core.errors import first_line
from training.config import Config

#: How the backends name it: TensorFlow's exception, the status code of XLA, the CUDA driver.
_OUT_OF_MEMORY = ('ResourceExhausted', 'RESOURCE_EXHAUSTED', 'OOM when allocating',
                  'CUDA out of memory', 'OutOfMemory')

#: How Python, NumPy, OpenCV and C++ say that it is the machine's own memory.
_HOST_MEMORY = ('MemoryError', 'Unable to allocate', 'Insufficient memory', 'bad_alloc')

#: What reading JSON, NumPy's or Keras' archives raises when they were cut short or edited.
DAMAGED = (OSError, EOFError, ValueError, LookupError, TypeError, zipfile.BadZipFile, zlib.error,
           RuntimeError)


#: Exit code after Ctrl-C, as shells have it.
INTERRUPTED = 130

#: Set by Ctrl-C, see ``remember_interrupts``.
interrupted = threading.Event()


class TrainingError(RuntimeError):
    """A run cannot go on."""


class Interrupted(Exception):  # noqa: N818 -- an order, not an error
    """
    Ctrl-C while training.

    Parameters
    ----------
    epoch : int
        Number of finished epochs.
    folder : Path

    """

    def __init__(self, epoch: int, folder: Path) -> None:
        super().__init__(
            f'interrupted in epoch {epoch + 1}. {kept(epoch, folder)} The same command goes on '
            'behind it.' if epoch else 'interrupted in epoch 1; no epoch was finished.')


class FiniteLoss(keras.callbacks.Callback):
    """Stop at the first batch after which the loss is NaN or infinite."""

    def __init__(self) -> None:
        super().__init__()
        self.batch: int | None = None
        self.loss = 0.0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.loss = float((logs or {}).get('loss', 0.0))
        if not np.isfinite(self.loss):
            self.batch = batch
            self.model.stop_training = True


class Interruptible(keras.callbacks.Callback):
    """Stop at the first batch after a Ctrl-C that was raised where Python ignores it."""

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an exception of any backend means that memory ran out."""
    return _says(error, _OUT_OF_MEMORY) or _says(error, _HOST_MEMORY)


def _says(error: BaseException, signs: Sequence[str]) -> bool:
    text = f'{type(error).__name__}: {error}'
    return any(sign in text for sign in signs)


def kept(epoch: int, folder: Path) -> str:
    """Say what is left of a run that ends in this epoch (counted from 0)."""
    return f'Epoch {epoch} is kept in {folder}.' if epoch else 'No epoch was finished.'


@contextlib.contextmanager
def intact(
    path: Path, expected: str, advice: str, kind: type[Exception] = TrainingError,
) -> Iterator[None]:
    """Turn what reading a damaged file raises into one line."""
    try:
        yield
    except kind:
        raise
    except DAMAGED as error:
        raise kind(
            f'{path}: found a damaged file ({type(error).__name__}: {first_line(error)}), '
            f'expected {expected}; {advice}.') from error


def remember_interrupts() -> None:
    """Let ``interrupted`` tell of Ctrl-C, which libraries may turn into errors of their own."""
    def handle(number: int, frame: FrameType | None) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, handle)


def leave(code: int) -> NoReturn:
    """
    End the process with an exit code.

    After Ctrl-C at once: threads that prepare batches may still be in C++ code, which aborts an
    interpreter that takes its time to finalize.

    """
    if code == INTERRUPTED:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def memory_advice(config: Config, epoch: int, folder: Path, error: BaseException) -> str:
    """Say what to do when memory ran out."""
    height, width = config.phase_of(epoch).input_hw
    of_machine = _says(error, _HOST_MEMORY)
    frames = (f'lower cache_mb (now {config.cache_mb}), the memory for decoded frames, with which '
              'the same run can go on')
    ways = [frames] if of_machine and config.cache_mb else []
    if config.batch_size > 2:  # normalization of one image trains worse
        ways.append(f'halve batch_size and set accumulate to {2 * config.accumulate} (now '
                    f'{config.accumulate}), which keeps the number of images per update')
    ways.append('use a smaller input in phases')
    if config.precision == 'float32':
        ways.append("set precision to 'mixed_bfloat16'")
    if config.cache_mb and not of_machine:
        ways.append(f'where devices share the memory of the machine, {frames}')
    return (f'epoch {epoch + 1}: out of memory at batch_size {config.batch_size}, input '
            f'{height}x{width}, {config.precision}; {", or ".join(ways)}. '
            f'{kept(epoch, folder)} Use a new --run folder for other settings'
            + (f'; --init {folder} starts from its weights.' if epoch else '.'))


def finite_advice(config: Config, epoch: int, batch: int | None, found: str, folder: Path) -> str:
    """Say what to do when the loss or a weight is not finite."""
    where = f'epoch {epoch + 1}' + ('' if batch is None else f', batch {batch + 1}')
    ways = [f'lower learning_rate (now {config.learning_rate})',
            f'raise warmup_steps (now {config.warmup_steps})']
    if config.precision != 'float32':
        ways.append(f"set precision to 'float32' (now {config.precision!r})")
    return (f'{where}: {found}; {", or ".join(ways)}. {kept(epoch, folder)} Use a new --run '
            'folder for other settings.')
