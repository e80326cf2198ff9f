"""Install the package the ways users do, each into a folder of its own."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: What an install is made from. pip builds in the source folder, so it gets a copy.
SOURCES = (
    'LICENSE', 'bisenet_ros', 'config', 'launch', 'package.xml', 'pyproject.toml', 'resource',
    'setup.cfg', 'setup.py',
)

#: Where a prefix keeps Python packages: venvs and colcon, Debian's Python, Ubuntu's since 22.04.
PACKAGE_FOLDERS = ('lib/python3*/site-packages', 'lib/python3*/dist-packages',
                   'local/lib/python3*/dist-packages')

#: What the wheels of ROS 2 put into the environment of their own children.
BOOTSTRAP = ('LD_LIBRARY_PATH', '_ROS_WHEELS_BOOTSTRAP_COMPLETE')


@dataclasses.dataclass(frozen=True)
class Install:
    """One installed tree."""

    kind: str
    prefix: Path

    @property
    def share(self) -> Path:
        return self.prefix / 'share' / 'bisenet_ros'

    @property
    def site(self) -> Path:
        """Return the folder that ``import bisenet_ros`` has to find."""
        for pattern in PACKAGE_FOLDERS:
            for folder in self.prefix.glob(pattern):
                if (folder / 'bisenet_ros').is_dir():
                    return folder
        raise AssertionError(f'{self.kind}: no package bisenet_ros under {self.prefix}')

    def environment(self) -> dict[str, str]:
        """Return the environment of a shell in which this install is the only one."""
        environ = {name: text for name, text in os.environ.items() if name not in BOOTSTRAP}
        environ['PYTHONPATH'] = os.pathsep.join(
            [str(self.site), *_other_paths('PYTHONPATH', self.site)])
        environ['AMENT_PREFIX_PATH'] = os.pathsep.join(
            [str(self.prefix), *_other_paths('AMENT_PREFIX_PATH', self.prefix)])
        return environ


def _other_paths(variable: str, own: Path) -> list[str]:
    """Return a path variable's entries that hold no bisenet_ros."""
    return [
        entry for entry in os.environ.get(variable, '').split(os.pathsep)
        if entry and Path(entry) != own and not (Path(entry) / 'bisenet_ros').exists()
        and not (Path(entry) / 'share' / 'bisenet_ros').exists()]


def run(command: list[str], cwd: Path, environ: dict[str, str] | None = None) -> str:
    """Run a command; return what it printed, or fail with it."""
    done = subprocess.run(
        command, cwd=cwd, env=environ, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 0, f'{" ".join(command)}: exit code {done.returncode}\n{done.stdout}'
    return done.stdout


def copy_sources(folder: Path) -> Path:
    """Copy what an install is made from."""
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns('__pycache__'))
        else:
            folder.mkdir(exist_ok=True)
            shutil.copy2(source, folder / name)
    return folder


def pip_install(folder: Path) -> Install:
    """Install with pip, without the network; skip where setuptools is not there to build with."""
    for module in ('pip', 'setuptools', 'wheel'):
        if find_spec(module) is None:
            pytest.skip(f'{module} is not installed, so pip cannot build here without the network')
    source = copy_sources(folder / 'source')
    run([sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps', '--no-build-isolation',
         '--no-index', '--prefix', str(folder / 'prefix'), str(source)], folder)
    return Install('pip', folder / 'prefix')


def colcon_build(folder: Path) -> Install:
    """Build with colcon; skip where it is not installed."""
    for module in ('colcon_core', 'colcon_ros'):
        if find_spec(module) is None:
            pytest.skip(f'{module} is not installed')
    copy_sources(folder / 'src')
    run([sys.executable, '-m', 'colcon', '--log-base', 'log', 'build', '--base-paths', 'src'],
        folder)
    return Install('colcon', folder / 'install' / 'bisenet_ros')


def sourced_install() -> Install:
    """Return the install that this shell has sourced, as in ``colcon test``; skip without one."""
    for entry in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep):
        if entry and (Path(entry) / 'share' / 'bisenet_ros').is_dir():
            if any(Path(entry).glob('lib/python3*/*-packages/*.egg-link')):
                pytest.skip('the sourced workspace is symlinked: it holds no copy to look at')
            return Install('sourced', Path(entry))
    pytest.skip('no sourced workspace with bisenet_ros (AMENT_PREFIX_PATH)')


MAKERS = {'pip': pip_install, 'colcon': colcon_build}
