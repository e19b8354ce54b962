"""Timing that several benchmarks share."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def in_turns(work: Mapping[str, Callable[[], object]], repeat: int) -> dict[str, float]:
    """Median time of each call in s; calls alternate so that load on the machine affects all alike.

    Args:
        work: calls by name.
        repeat: timed calls of each, after one that is not timed.
    """
    for call in work.values():
        call()
    took: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeat):
        for name, call in work.items():
            start = time.perf_counter()
            call()
            took[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in took.items()}
