"""Loggers of a training run: none, plain lines, or a progress bar on a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Progress:
    """The state of a run after one step.

    Attributes:
        step: completed steps, 1..steps.
        steps: steps of the whole run.
        epoch: passes over the data, with fraction.
        stage: name of the stage.
        loss: mean since the last row of the log.
        parts: means of the loss terms since the last row of the log.
        rate: learning rate.
        gradient: gradient norm before clipping.
        pairs_per_s: training pairs per second since the run started or resumed.
        left_s: estimated seconds left, validations included.
        waiting: share of the time spent waiting for data, 0..1.
        memory_mb: peak memory of the GPU, or of this process on a CPU.
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


class TrainingLogger(Protocol):
    """Receives the events of a run."""

    def message(self, text: str) -> None:
        """Log one sentence."""

    def step(self, progress: Progress) -> None:
        """Log a completed step."""

    def validation(self, step: int, score: str, value: float, best: bool) -> None:
        """Log a validation.

        Args:
            step: after which it ran.
            score: name of the selecting score.
            value: of the score, 0..1.
            best: whether it is the best so far.
        """

    def close(self) -> None:
        """Release resources at the end of the run."""


class NullLogger:
    """Logs nothing."""

    def message(self, text: str) -> None:
        """Do nothing."""

    def step(self, progress: Progress) -> None:
        """Do nothing."""

    def validation(self, step: int, score: str, value: float, best: bool) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class LineLogger:
    """Writes plain lines to standard error, for log files.

    Args:
        every_s: seconds between lines about steps.
        write: function that receives each line; None: standard error.
    """

    def __init__(self, every_s: float = 10.0, write: Callable[[str], Any] | None = None) -> None:
        self._every, self._last = every_s, -float("inf")
        self._write = write or (lambda text: print(text, file=sys.stderr, flush=True))

    def message(self, text: str) -> None:
        """Write the sentence at once."""
        self._write(text)

    def step(self, progress: Progress) -> None:
        """Write a line if enough time has passed, and after the last step."""
        now = time.monotonic()
        if now - self._last >= self._every or progress.step == progress.steps:
            self._last = now
            self._write(progress_line(progress))

    def validation(self, step: int, score: str, value: float, best: bool) -> None:
        """Write a line at once."""
        self._write(validation_line(step, score, value, best))

    def close(self) -> None:
        """Do nothing."""


class BarLogger:
    """Shows a progress bar on a terminal, with messages and validations above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[metrics]}"),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task("training", total=None, metrics="")
        self._bar.start()

    def message(self, text: str) -> None:
        """Print the sentence above the bar."""
        self._bar.console.print(text, markup=False, highlight=False)

    def step(self, progress: Progress) -> None:
        """Update the bar."""
        self._bar.update(
            self._task,
            description=f"epoch {progress.epoch:.1f}",
            completed=progress.step,
            total=progress.steps,
            metrics=progress_metrics(progress),
        )

    def validation(self, step: int, score: str, value: float, best: bool) -> None:
        """Print a line above the bar."""
        self.message(validation_line(step, score, value, best))

    def close(self) -> None:
        """Stop the bar and restore the terminal."""
        self._bar.stop()


def progress_line(progress: Progress) -> str:
    """Return ``step 120/2500, epoch 3.2, loss 0.81 (change 0.31, classes 0.5), ...``."""
    return f"step {progress.step}/{progress.steps}, epoch {progress.epoch:.2f}, {progress_metrics(progress)}"


def progress_metrics(progress: Progress) -> str:
    """Return loss, learning rate, speed, remaining time and memory as text."""
    parts = ", ".join(f"{name} {value:.3g}" for name, value in progress.parts.items())
    return (
        f"loss {progress.loss:.4g}"
        + (f" ({parts})" if len(progress.parts) > 1 else "")
        + f", rate {progress.rate:.2g}, {progress.pairs_per_s:.3g} pairs/s, {duration(progress.left_s)} left, "
        + f"{progress.memory_mb:.0f} MB, {100 * progress.waiting:.0f}% waiting"
    )


def validation_line(step: int, score: str, value: float, best: bool) -> str:
    """Return the result of a validation as text; arguments as in `TrainingLogger.validation`."""
    return f"validation after step {step}: {score} {100 * value:.2f}{', the best so far' if best else ''}"


def duration(seconds: float) -> str:
    """Return ``2 h 05 min``, ``3 min 20 s`` or ``12 s``."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


class MeanLoss:
    """The mean loss since the last row of the log."""

    def __init__(self) -> None:
        self._total, self._count = 0.0, 0
        self._parts: dict[str, float] = {}

    def add(self, total: float, parts: Mapping[str, float]) -> None:
        """Add the loss of one step and its terms."""
        self._total += total
        self._count += 1
        for name, value in parts.items():
            self._parts[name] = self._parts.get(name, 0.0) + value

    @property
    def total(self) -> float:
        """Mean of the whole loss."""
        return self._total / max(1, self._count)

    @property
    def parts(self) -> dict[str, float]:
        """Mean of each term."""
        return {name: value / self._count for name, value in self._parts.items()}
