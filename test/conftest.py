"""Fixtures that every room's tests share."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

# For `training` and `benchmarks`, which are not installed; pytest adds this folder itself.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

# A shell without job control starts background jobs with SIGINT ignored, and what they start
# inherits that: then no Ctrl-C of a test would arrive.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED_DATA = Path(__file__).resolve().parents[2] / 'shared' / 'data'


@pytest.fixture(scope='session')
def shared_data() -> Path:
    """Return the folder with real frames, clips and third-party models."""
    if not SHARED_DATA.is_dir():
        pytest.skip('no ../shared/data beside the repository')
    return SHARED_DATA
