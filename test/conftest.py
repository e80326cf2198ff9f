"""Fixtures that every room's tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / 'shared' / 'data'


@pytest.fixture(scope='session')
def shared_data() -> Path:
    """Return the folder with real frames, clips and third-party models."""
    if not SHARED_DATA.is_dir():
        pytest.skip('no ../shared/data beside the repository')
    return SHARED_DATA
