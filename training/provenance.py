"""Which state of the project made a file."""

from __future__ import annotations

import subprocess
from pathlib import Path


def commit() -> str:
    """Return the project's git commit, with ``+changes`` behind it if it was not clean."""
    folder = Path(__file__).parent
    try:
        # Installed below another project's folder, it would be that project's commit.
        subprocess.run(['git', 'ls-files', '--error-unmatch', Path(__file__).name], cwd=folder,
                       check=True, capture_output=True)
        head = subprocess.run(['git', 'rev-parse', 'HEAD'], cwd=folder, text=True, check=True,
                              capture_output=True).stdout.strip()
        changes = subprocess.run(['git', 'status', '--porcelain', '--', folder], cwd=folder,
                                 text=True, check=True, capture_output=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'
    return f'{head}+changes' if changes else head
