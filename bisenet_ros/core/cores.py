"""How many cores this process may use: its affinity, and what its control group allows."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

SELF_CGROUPS = Path('/proc/self/cgroup')

CGROUPS = Path('/sys/fs/cgroup')


def usable_cores() -> int:
    """
    Return how many cores may be busy at once, at least one.

    A container started with ``--cpus 1.5`` sees all cores of its machine, and is put to sleep for
    the rest of every tenth of a second once it has used up its share; two may be busy at once.

    """
    cores = len(os.sched_getaffinity(0))
    return max(1, min([cores, *(math.ceil(quota) for quota in _quotas())]))


def _quotas() -> Iterator[float]:
    """Yield the cores that this process's control group and those around it grant, where any."""
    for folder in _folders():
        # cgroup-v2: "MAX PERIOD" in microseconds, MAX may be "max"; v1: two files, -1 is no limit.
        words = (_text(folder / 'cpu.max') or ' '.join(
            _text(folder / f'cpu.cfs_{name}_us') for name in ('quota', 'period'))).split()
        if len(words) == 2 and all(word.isdecimal() and int(word) for word in words):
            yield int(words[0]) / int(words[1])


def _folders() -> Iterator[Path]:
    """Yield the folders of this process's groups, up to the roots."""
    for line in _text(SELF_CGROUPS).splitlines():
        # hierarchy:controllers:path; the second version's has no controllers.
        _, controllers, path = line.split(':', 2)
        if controllers and 'cpu' not in controllers.split(','):
            continue
        for root in (CGROUPS, CGROUPS / 'unified') if not controllers else (
                CGROUPS / controllers, CGROUPS / 'cpu'):
            # Inside a container the path may be that of outside: then only the root is there.
            group = root / path.strip('/')
            yield from dict.fromkeys((group, *group.parents[:len(Path(path).parts) - 1], root))


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ''
