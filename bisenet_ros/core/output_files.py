"""Files that a command writes at its end: refused at its start, written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path


class OutputError(RuntimeError):
    """A file cannot be written."""


class UnwritableError(OutputError):
    """The file system does not let a file be written."""

    def __init__(self, path: Path, error: OSError | RuntimeError) -> None:
        reason = getattr(error, 'strerror', None) or error
        super().__init__(
            f'{path}: cannot be written ({reason}); name a file in a folder that can be written '
            'to.')


def check_apart(written: Mapping[str, Path | None], read: Iterable[Path] = ()) -> None:
    """
    Refuse files that would replace one another, or what the same command reads.

    Parameters
    ----------
    written : mapping of str to Path or None
        What is written, by the option that names it; None where nothing is.
    read : iterable of Path
        What has to stay.

    Raises
    ------
    OutputError
        If two of them are one file, or a name cannot be a file's. What is no file (a pipe,
        ``/dev/null``) is never replaced.

    """
    taken = {path.resolve(): 'a file that this command reads' for path in read}
    for option, path in written.items():
        if path is None:
            continue
        try:
            if path.exists() and not path.is_file():
                continue
            place = path.resolve()
        except (OSError, RuntimeError) as error:  # a name too long, a ring of links
            raise UnwritableError(path, error) from error
        if place in taken:
            raise OutputError(
                f'{option}: found {str(path)!r}, which is {taken[place]} as well, expected a file '
                'of its own; give another name.')
        taken[place] = f'the file of {option}'


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
        raise UnwritableError(path, error) from error


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
        raise UnwritableError(path, error) from error


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
