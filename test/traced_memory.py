"""What some work takes of the memory that Python and numpy know of."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable


def traced_bytes(
    work: Callable[[], object], warm_up: Callable[[], object] = lambda: None,
) -> tuple[int, int]:
    """
    Return what is still held behind some work, and the most that was held during it.

    Both above what was held before it and behind the warm-up, which is traced as well: what it
    left and the work replaces is no growth.

    """
    gc.collect()
    tracemalloc.start()
    try:
        warm_up()
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        work()
        _, peak = tracemalloc.get_traced_memory()
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return held - before, peak - before
