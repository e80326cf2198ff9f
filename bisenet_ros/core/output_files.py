"""Files that a command writes at its end: refused at its start, written whole or not at all."""

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


def write_bytes(path: Path, content: bytes) -> None:
    """
    Write a file whole, its folder too: what was there stays until then, or if that fails.

    Raises
    ------
    OutputError
        If the file cannot be written.

    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        target = path.resolve()  # a link stays one
        if path.exists() and not (path.is_file() and os.access(target.parent, os.W_OK)):
            path.write_bytes(content)  # a pipe, or in a folder that takes no file beside it
        else:
            _replace(target, content)
    except OSError as error:
        raise OutputError(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Do as ``write_bytes`` does; a file's name in it may hold bytes that are no UTF-8."""
    write_bytes(path, text.encode('utf-8', 'backslashreplace'))


def _replace(path: Path, content: bytes) -> None:
    beside = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        beside.write_bytes(content)
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
