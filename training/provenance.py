"""Which state of the project made a file."""

from __future__ import annotations

import subprocess
from pathlib import Path


def commit() -> str:
    """Return the project's git commit, with ``+changes`` behind it if it was not clean."""
    folder = Path(__file__).parent
    try:
        head = subprocess.run(['git', 'rev-parse', 'HEAD'], cwd=folder, text=True, check=True,
                              capture_output=True).stdout.strip()
        changes = subprocess.run(['git', 'status', '--porcelain', '--', folder], cwd=folder,
                                 text=True, check=True, capture_output=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'
    return f'{head}+changes' if changes else head
