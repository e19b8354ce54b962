"""Who looks on while a network learns: nobody, a log of plain lines, or a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Progress:
    """One step, as it is told.

    Attributes:
        step: steps done, 1..steps.
        steps: of the whole run.
        epoch: passes over the data, whole and parts.
        stage: name of the stage.
        loss: mean since the last line of the log.
        parts: the terms of the loss, likewise.
        rate: of the optimizer.
        gradient: norm before clipping.
        pairs_per_s: since the run began or was resumed.
        left_s: seconds left at this pace, validations included.
        waiting: share of the time 0..1 in which the network waited for data.
        memory_mb: most that was held: on the GPU, or by this process.
    """

    step: int
    steps: int
    epoch: float
    stage: str
    loss: float
    parts: Mapping[str, float]
    rate: float
    gradient: float
    pairs_per_s: float
    left_s: float
    waiting: float
    memory_mb: float


class Watch(Protocol):
    """Told what happens during a run."""

    def say(self, text: str) -> None:
        """A sentence that is worth a line."""

    def step(self, progress: Progress) -> None:
        """A step is done."""

    def validated(self, step: int, score: str, value: float, best: bool) -> None:
        """A validation is done."""

    def close(self) -> None:
        """The run has ended, one way or another."""


class Silent:
    """Nobody looks."""

    def say(self, text: str) -> None:
        """Nothing."""

    def step(self, progress: Progress) -> None:
        """Nothing."""

    def validated(self, step: int, score: str, value: float, best: bool) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Lines:
    """Plain lines on standard error, one every ``every_s`` seconds: for logs.

    Args:
        every_s: seconds between lines about steps.
        write: where a line goes.
    """

    def __init__(self, every_s: float = 10.0, write: Callable[[str], Any] | None = None) -> None:
        self._every, self._said = every_s, -float("inf")
        self._write = write or (lambda line: print(line, file=sys.stderr, flush=True))

    def say(self, text: str) -> None:
        """At once."""
        self._write(text)

    def step(self, progress: Progress) -> None:
        """Now and then, and the last."""
        now = time.monotonic()
        if now - self._said >= self._every or progress.step == progress.steps:
            self._said = now
            self._write(line(progress))

    def validated(self, step: int, score: str, value: float, best: bool) -> None:
        """At once."""
        self._write(verdict(step, score, value, best))

    def close(self) -> None:
        """Nothing is open."""


class Bars:
    """A bar on a terminal, with the sentences and validations above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._bars = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            console=Console(stderr=True),
        )
        self._task = self._bars.add_task("training", total=None, facts="")
        self._bars.start()

    def say(self, text: str) -> None:
        """Above the bar."""
        self._bars.console.print(text, markup=False, highlight=False)

    def step(self, progress: Progress) -> None:
        """On the bar."""
        self._bars.update(
            self._task,
            description=f"epoch {progress.epoch:.1f}",
            completed=progress.step,
            total=progress.steps,
            facts=facts(progress),
        )

    def validated(self, step: int, score: str, value: float, best: bool) -> None:
        """Above the bar."""
        self.say(verdict(step, score, value, best))

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._bars.stop()


def line(progress: Progress) -> str:
    """``step 120/2500, epoch 3.2, loss 0.81 (change 0.31, classes 0.5), ...``."""
    return f"step {progress.step}/{progress.steps}, epoch {progress.epoch:.2f}, {facts(progress)}"


def facts(progress: Progress) -> str:
    """Everything but where it stands."""
    parts = ", ".join(f"{name} {value:.3g}" for name, value in progress.parts.items())
    return (
        f"loss {progress.loss:.4g}"
        + (f" ({parts})" if len(progress.parts) > 1 else "")
        + f", rate {progress.rate:.2g}, {progress.pairs_per_s:.3g} pairs/s, {duration(progress.left_s)} left, "
        + f"{progress.memory_mb:.0f} MB, {100 * progress.waiting:.0f}% waiting"
    )


def verdict(step: int, score: str, value: float, best: bool) -> str:
    """What a validation came to."""
    return f"validation after step {step}: {score} {100 * value:.2f}{', the best so far' if best else ''}"


def duration(seconds: float) -> str:
    """``2 h 05 min``, ``3 min 20 s``, ``12 s``."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"
