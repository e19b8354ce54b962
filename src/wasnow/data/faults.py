"""Faults of a dataset: one line each, and how a list of them is shown."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wasnow.errors import InputError, RasterUnreadable

SHOWN = 50
"""Faults printed by default."""


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One fault of one file.

    Attributes:
        file: path relative to the dataset, or as the user wrote it.
        what: the fault.
    """

    file: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


def fault_of(path: Path, error: InputError, root: Path) -> Fault:
    """Return an error about a file of a dataset as a fault.

    Args:
        path: the file.
        error: its message may start with the path, which is removed.
        root: the dataset, or its description file.
    """
    text = error.reason if isinstance(error, RasterUnreadable) else str(error).removeprefix(f"{path}: ")
    return Fault(relative_name(path, root), text.replace(f"{root}{os.sep}", ""))


def relative_name(path: Path, root: Path) -> str:
    """Return a path relative to the dataset ``root`` (a folder, or a file in it), in POSIX form; else unchanged."""
    home = root if root.is_dir() else root.parent
    return path.relative_to(home).as_posix() if path.is_relative_to(home) else str(path)


def listed(faults: Sequence[Fault], most: int = SHOWN) -> list[str]:
    """Return the lines of a list of faults, cut after ``most`` with a count of the rest."""
    lines = [str(fault) for fault in faults[:most]]
    return [*lines, f"... and {len(faults) - most} more (--json lists all)"] if len(faults) > most else lines
