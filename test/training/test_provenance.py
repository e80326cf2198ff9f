"""Files say which commit made them, and never another project's."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from training import provenance

if shutil.which('git') is None:
    pytest.skip('git is not installed: there is no commit to tell', allow_module_level=True)


def git(folder: Path, *command: str) -> str:
    return subprocess.run(
        ['git', '-c', 'user.name=a', '-c', 'user.email=a@b.c', *command], cwd=folder, text=True,
        check=True, capture_output=True).stdout.strip()


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where the module lies: in a folder of a repository that has a commit."""
    git(tmp_path, 'init')
    (tmp_path / 'other').write_text('text')
    git(tmp_path, 'add', 'other')
    git(tmp_path, 'commit', '-m', 'One')
    path = tmp_path / 'venv' / 'provenance.py'
    path.parent.mkdir()
    path.write_text('text')
    monkeypatch.setattr(provenance, '__file__', str(path))
    return path


def test_commit_of_the_repository_that_holds_the_code(module: Path) -> None:
    git(module.parent, 'add', module.name)
    git(module.parent, 'commit', '-m', 'Two')
    assert provenance.commit() == git(module.parent, 'rev-parse', 'HEAD')
    module.write_text('changed')
    assert provenance.commit().endswith('+changes')


def test_installed_below_another_project_no_commit_is_told(module: Path) -> None:
    assert provenance.commit() == 'unknown'
