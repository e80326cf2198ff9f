"""Batches are divided only where the backend can, and among devices that exist."""

from __future__ import annotations

import pytest

keras = pytest.importorskip('keras', reason='keras is not installed (pip install .[train])')

from training.devices import CLUSTER, ONE, PROCESS, Devices, distribute  # noqa: E402
from training.faults import TrainingError  # noqa: E402

pytestmark = pytest.mark.training


class Calls:
    """Stands in for ``keras.distribution`` on a machine with more devices than this one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, names: list[str]) -> None:
        self.made: list[str] = []
        self.devices: list[str] = []
        distribution = keras.distribution
        monkeypatch.setattr(keras.backend, 'backend', lambda: 'jax')
        monkeypatch.setattr(distribution, 'list_devices', lambda: names)
        monkeypatch.setattr(distribution, 'initialize', lambda: self.made.append('cluster'))
        monkeypatch.setattr(distribution, 'set_distribution', lambda _: self.made.append('set'))
        monkeypatch.setattr(distribution, 'DataParallel', self.data_parallel)
        for name in (*CLUSTER, PROCESS):
            monkeypatch.delenv(name, raising=False)

    def data_parallel(self, devices: list[str], auto_shard_dataset: bool) -> None:
        assert not auto_shard_dataset
        self.devices = devices


def test_one_device_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch, ['cpu:0', 'cpu:1'])
    assert distribute('1') == ONE
    assert not calls.made


@pytest.mark.parametrize(('wanted', 'count'), [('2', 2), ('all', 3)])
def test_devices_are_taken_in_order(
    monkeypatch: pytest.MonkeyPatch, wanted: str, count: int,
) -> None:
    calls = Calls(monkeypatch, ['gpu:0', 'gpu:1', 'gpu:2'])
    assert distribute(wanted) == Devices(count, 0, 1)
    assert calls.devices == ['gpu:0', 'gpu:1', 'gpu:2'][:count] and calls.made == ['set']


@pytest.mark.parametrize('wanted', ['0', '4', 'two', '-1', '1.5'])
def test_devices_that_are_not_there_are_refused(
    monkeypatch: pytest.MonkeyPatch, wanted: str,
) -> None:
    Calls(monkeypatch, ['gpu:0', 'gpu:1', 'gpu:2'])
    with pytest.raises(TrainingError, match=r'devices: found .*, expected all, or a number from 1 '
                                            'to 3; there are gpu:0, gpu:1, gpu:2'):
        distribute(wanted)


def test_cluster_is_joined_first_and_used_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch, ['gpu:0', 'gpu:1'])
    for name, value in zip((*CLUSTER, PROCESS), ('10.0.0.1:1234', '2', '1'), strict=True):
        monkeypatch.setenv(name, value)
    assert distribute('all') == Devices(2, 1, 2)
    assert calls.made == ['cluster', 'set']
    with pytest.raises(TrainingError, match="devices: found '1', expected all; there are"):
        distribute('1')


def test_other_backends_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    Calls(monkeypatch, ['cpu:0'])
    monkeypatch.setattr(keras.backend, 'backend', lambda: 'tensorflow')
    with pytest.raises(TrainingError, match='devices: found the tensorflow backend, expected jax'):
        distribute('2')
