"""Progress callbacks and timings of a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Progress = Callable[[str, int, int], None]
"""Called with (phase, done, total) at every step. The phases of a run are ``checksums``, ``survey``, ``detect`` and
``results``, and ``finding masks before`` and ``after`` where prior masks are computed during the run."""


def no_progress(phase: str, done: int, total: int) -> None:
    """Ignore a step."""


@dataclass
class Timings:
    """Seconds per phase."""

    seconds: dict[str, float] = field(default_factory=dict)

    def add_since(self, phase: str, start: float) -> None:
        """Add the time since ``start``, a value of `time.perf_counter`."""
        self.add({phase: time.perf_counter() - start})

    def add(self, seconds: Mapping[str, float]) -> None:
        """Add seconds per phase."""
        for phase, each in seconds.items():
            self.seconds[phase] = self.seconds.get(phase, 0.0) + each
