"""What is wrong with a dataset: one line a fault, and all of them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SHOWN = 50


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One thing that is wrong with one file (relative to the dataset, or as the user wrote it)."""

    file: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


def listed(faults: Sequence[Fault], most: int = SHOWN) -> list[str]:
    """The lines of a list of faults, cut after ``most`` with a count of the rest."""
    lines = [str(fault) for fault in faults[:most]]
    return [*lines, f"... and {len(faults) - most} more (--json lists all)"] if len(faults) > most else lines
