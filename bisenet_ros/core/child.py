"""How a child process of ours is started: the same Python, with the modules that we see."""

from __future__ import annotations

import os
import sys
from pathlib import Path

#: The working directory is no place for modules: a ``json.py`` in it would be taken for json.
_PROGRAM = (
    'import sys; sys.path = [path for path in sys.path if path]; '
    'from {module} import main; sys.exit(main(sys.argv[1:]))')


def python_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs ``main`` of a module of this package."""
    return [sys.executable, '-c', _PROGRAM.format(module=module), *arguments]


def python_environment() -> dict[str, str]:
    """
    Return the environment for ``python_command``.

    It holds our whole ``sys.path``, so that the child finds this package and the runtime wherever
    we found them. ``LD_LIBRARY_PATH`` stays: the Python is ours, the libraries too.

    """
    # The empty path is the working directory, which is where we may have found the package.
    paths = [path or str(Path.cwd()) for path in sys.path]
    return {**os.environ, 'PYTHONPATH': os.pathsep.join(paths)}
