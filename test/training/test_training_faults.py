"""Faults of every backend are recognised, and the advice fits the configuration."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

keras = pytest.importorskip('keras', reason='keras is not installed (pip install .[train])')

from tiny_training import tiny_config  # noqa: E402

from training.config import Phase  # noqa: E402
from training.faults import (  # noqa: E402
    Interrupted, TrainingError, finite_advice, intact, is_out_of_memory, memory_advice,
)

pytestmark = pytest.mark.training


@pytest.mark.parametrize(('error', 'wanted'), [
    (MemoryError(), True),
    # As jaxlib says it, and a CUDA library.
    (RuntimeError('RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8 bytes.'), True),
    (RuntimeError('CUDA out of memory. Tried to allocate 2 GiB'), True),
    (RuntimeError('INVALID_ARGUMENT: shapes differ'), False),
    (ValueError('memory'), False),
    (KeyError('loss'), False),
])
def test_out_of_memory_is_recognised(error: Exception, wanted: bool) -> None:
    assert is_out_of_memory(error) is wanted


def test_out_of_memory_of_tensorflow_is_recognised() -> None:
    tf = pytest.importorskip('tensorflow', reason='tensorflow is not installed')
    assert is_out_of_memory(tf.errors.ResourceExhaustedError(None, None, 'no memory'))
    assert not is_out_of_memory(tf.errors.InvalidArgumentError(None, None, 'no shape'))


DEVICE = RuntimeError('RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8 bytes.')


def test_advice_for_the_machines_own_memory_begins_with_the_cache() -> None:
    def advice(error: Exception, **changes: int) -> str:
        return memory_advice(tiny_config(**changes), 0, Path('x'), error)

    for error in (MemoryError(), RuntimeError('std::bad_alloc'),
                  ValueError('Unable to allocate 2. MiB for an array')):
        assert is_out_of_memory(error)
        assert 'float32; lower cache_mb (now 4096)' in advice(error)
        assert 'cache_mb' not in advice(error, cache_mb=0)
    assert 'or where devices share the memory of the machine, lower cache_mb' in advice(DEVICE)


def test_advice_names_only_what_can_be_changed() -> None:
    one = tiny_config(batch_size=1, precision='mixed_bfloat16')
    text = memory_advice(one, 0, Path('runs/x'), DEVICE)
    assert text.startswith('epoch 1: out of memory at batch_size 1, input 32x32, mixed_bfloat16;')
    assert 'halve' not in text and 'set precision' not in text
    # There is no epoch whose weights another run could start with.
    assert text.endswith('No epoch was finished. Use a new --run folder for other settings.')
    text = memory_advice(tiny_config(phases=(Phase((32, 32), 2),)), 1, Path('runs/x'), DEVICE)
    assert text.endswith('Epoch 1 is kept in runs/x. Use a new --run folder for other settings; '
                         '--init runs/x starts from its weights.')
    text = finite_advice(tiny_config(), 0, None, 'a weight is not finite', Path('runs/x'))
    assert text == ('epoch 1: a weight is not finite; lower learning_rate (now 0.05), or raise '
                    'warmup_steps (now 1). No epoch was finished. Use a new --run folder for '
                    'other settings.')


def test_interruption_says_what_is_kept() -> None:
    assert str(Interrupted(0, Path('x'))) == 'interrupted in epoch 1; no epoch was finished.'
    assert str(Interrupted(4, Path('x'))) == (
        'interrupted in epoch 5. Epoch 4 is kept in x. The same command goes on behind it.')


def test_an_interrupt_that_became_an_error_is_remembered() -> None:
    """Keras wraps what is raised within a layer, Ctrl-C too."""
    script = (
        'import os, signal\n'
        'from training import faults\n'
        'faults.remember_interrupts()\n'
        'assert not faults.interrupted.is_set()\n'
        'try:\n'
        '    os.kill(os.getpid(), signal.SIGINT)\n'
        '    signal.pause()\n'
        'except KeyboardInterrupt:\n'
        '    print("raised", faults.interrupted.is_set())\n')
    ended = subprocess.run([sys.executable, '-c', script], cwd=Path(__file__).parents[2],
                           capture_output=True, text=True, check=False, timeout=120)
    assert (ended.returncode, ended.stdout) == (0, 'raised True\n')


def test_an_interrupted_process_does_not_finalize() -> None:
    """Its exit code is 130 whatever its threads do; other codes end it as usual."""
    script = ('import atexit; from training.faults import leave; '
              'atexit.register(print, "finalized", flush=True); print("said", end=" "); leave({})')
    for code, said in ((130, 'said '), (1, 'said finalized\n')):
        ended = subprocess.run(
            [sys.executable, '-c', script.format(code)], cwd=Path(__file__).parents[2],
            capture_output=True, text=True, check=False)
        assert (ended.returncode, ended.stdout) == (code, said)


def test_damage_is_told_once() -> None:
    with pytest.raises(TrainingError, match=r'^a: found a damaged file \(RuntimeError: bad\)'), \
            intact(Path('b'), 'whole', 'copy it'), intact(Path('a'), 'whole', 'copy it'):
        raise RuntimeError('bad')
