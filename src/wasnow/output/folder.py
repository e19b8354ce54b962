"""A result folder from outside: whether it is finished, and how its results are deleted."""

from __future__ import annotations

from pathlib import Path

from wasnow.errors import InputError
from wasnow.output.layout import ITEM, LANDCOVER_OUTPUTS, OUTPUTS, SUMS
from wasnow.output.record import RunRecord


def finished_record(output: Path) -> RunRecord | None:
    """Return the record of a folder that has all its results, each of the recorded size; None otherwise."""
    try:
        record = RunRecord.read(output)
    except InputError:
        return None
    paths = [(output / each.name, each.size) for each in record.outputs]
    whole = all(path.is_file() and path.stat().st_size == size for path, size in paths)
    return record if whole and (output / ITEM).is_file() and (output / SUMS).is_file() else None


def remove_results(output: Path) -> None:
    """Delete the results of an earlier run, and nothing else."""
    for name in reversed((*LANDCOVER_OUTPUTS, *OUTPUTS)):
        (output / name).unlink(missing_ok=True)
