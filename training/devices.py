"""Training on several devices, or on a cluster, through ``keras.distribution``."""

from __future__ import annotations

import dataclasses
import os

import keras

from training.faults import TrainingError

#: Set by whoever starts the processes of a cluster; read by ``keras.distribution.initialize``.
CLUSTER = ('KERAS_DISTRIBUTION_JOB_ADDRESSES', 'KERAS_DISTRIBUTION_NUM_PROCESSES')
PROCESS = 'KERAS_DISTRIBUTION_PROCESS_ID'


@dataclasses.dataclass(frozen=True)
class Devices:
    """What a batch is divided among: ``count`` devices of ``processes`` processes."""

    count: int = 1
    process: int = 0
    processes: int = 1


#: Everything on the backend's default device.
ONE = Devices()


def distribute(wanted: str) -> Devices:
    """
    Divide every batch among devices (data parallelism) from now on.

    Parameters
    ----------
    wanted : str
        How many of the devices, or ``all``; on a cluster ``all``.

    Raises
    ------
    TrainingError
        If the backend cannot do it, or has fewer devices.

    """
    clustered = any(name in os.environ for name in CLUSTER)
    if wanted == '1' and not clustered:
        return ONE
    if keras.backend.backend() != 'jax':
        raise TrainingError(
            f'devices: found the {keras.backend.backend()} backend, expected jax for more than '
            'one device; set KERAS_BACKEND=jax.')
    if clustered:
        keras.distribution.initialize()
    names = keras.distribution.list_devices()
    count = len(names) if wanted == 'all' else int(wanted) if wanted.isdecimal() else 0
    if not 1 <= count <= len(names) or (clustered and count < len(names)):
        raise TrainingError(
            f'devices: found {wanted!r}, expected all'
            + ('' if clustered else f', or a number from 1 to {len(names)}')
            + f'; there are {", ".join(names)}.')
    # Batches come divided among processes already: `EpochBatches` does it.
    keras.distribution.set_distribution(keras.distribution.DataParallel(
        devices=names[:count], auto_shard_dataset=False))
    return Devices(count, int(os.environ.get(PROCESS, '0')),
                   int(os.environ.get(CLUSTER[1], '1')))
