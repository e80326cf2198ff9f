"""Cores that may be used: affinity and control groups, with files made for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bisenet_ros.core import cores
from bisenet_ros.core.cores import usable_cores

V2 = '0::/system.slice/robot.service\n'
V1 = '5:memory:/m\n4:cpu,cpuacct:/docker/abc\n3:cpuset:/docker/abc\n1:name=systemd:/\n0::/\n'


@pytest.fixture(autouse=True)
def eight_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: set(range(8)))
    monkeypatch.setattr(cores, 'SELF_CGROUPS', tmp_path / 'self')
    monkeypatch.setattr(cores, 'CGROUPS', tmp_path / 'cgroup')


def place(tmp_path: Path, groups: str, files: dict[str, str]) -> None:
    (tmp_path / 'self').write_text(groups)
    for name, text in files.items():
        path = tmp_path / 'cgroup' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_affinity_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert usable_cores() == 8
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: {5})
    assert usable_cores() == 1


@pytest.mark.parametrize(('quota', 'expected'), [
    ('max 100000', 8), ('200000 100000', 2), ('150000 100000', 2), ('50000 100000', 1),
    ('1000 100000', 1), ('1600000 100000', 8), ('150000 50000', 3)])
@pytest.mark.parametrize('where', ['system.slice/robot.service', 'system.slice', '.'])
def test_quota_of_the_group_or_of_one_around_it(
    tmp_path: Path, quota: str, expected: int, where: str,
) -> None:
    place(tmp_path, V2, {f'{where}/cpu.max': f'{quota}\n'})
    assert usable_cores() == expected


def test_smallest_quota_holds(tmp_path: Path) -> None:
    place(tmp_path, V2, {'system.slice/robot.service/cpu.max': '400000 100000\n',
                         'system.slice/cpu.max': '300000 100000\n', 'cpu.max': 'max 100000\n'})
    assert usable_cores() == 3


def test_second_version_beside_the_first(tmp_path: Path) -> None:
    place(tmp_path, V2, {'unified/system.slice/cpu.max': '300000 100000\n'})
    assert usable_cores() == 3


@pytest.mark.parametrize('folder', [
    'cpu,cpuacct/docker/abc', 'cpu/docker/abc', 'cpu,cpuacct', 'cpu'])
@pytest.mark.parametrize(('quota', 'expected'), [('-1', 8), ('250000', 3), ('0', 8)])
def test_first_version(tmp_path: Path, folder: str, quota: str, expected: int) -> None:
    place(tmp_path, V1, {f'{folder}/cpu.cfs_quota_us': f'{quota}\n',
                         f'{folder}/cpu.cfs_period_us': '100000\n'})
    assert usable_cores() == expected


def test_quota_of_another_group_is_not_ours(tmp_path: Path) -> None:
    place(tmp_path, V2, {'system.slice/other.service/cpu.max': '100000 100000\n',
                         'user.slice/cpu.max': '100000 100000\n'})
    assert usable_cores() == 8


@pytest.mark.parametrize('text', ['', 'max', 'x y', '100000', '1 0', '-5 100000'])
def test_what_is_not_understood_limits_nothing(tmp_path: Path, text: str) -> None:
    place(tmp_path, V2, {'cpu.max': text})
    assert usable_cores() == 8
