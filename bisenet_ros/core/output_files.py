"""Files that a command will write at its end: found impossible at its start."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


class OutputError(RuntimeError):
    """A file cannot be written."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(
            f'{path}: cannot be written ({error.strerror or error}); name a file in a folder '
            'that can be written to.')


def check_writable(path: Path) -> None:
    """
    Create a file's folder, and leave the file as it is.

    Raises
    ------
    OutputError
        If the file cannot be written.

    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            os.close(os.open(path, os.O_WRONLY))
        else:
            with tempfile.TemporaryFile(dir=path.parent):
                pass
    except OSError as error:
        raise OutputError(path, error) from error
