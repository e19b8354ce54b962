"""Names of the pairs of a list. Each names the result folder of its pair."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from typing import TYPE_CHECKING

from wasnow.storage.names import folded, folder_name_fault

if TYPE_CHECKING:
    from wasnow.batch.table import PairRow

OWN_FILES = frozenset(("summary.csv", "summary.json", "index.html"))
"""Files of the folder of pairs, which no result folder may be called."""


def with_names(rows: list[PairRow]) -> tuple[list[PairRow], list[str]]:
    """Return the rows with unique names, and faults: given names are kept, and equal ones among them are faults."""
    taken: dict[str, int] = {}
    asked: dict[str, int] = {}
    faults = []
    for row in rows:
        if row.key in asked and not row.name:
            faults.append(f"row {row.row} repeats row {asked[row.key]}")
        asked.setdefault(row.key, row.row)
        if not row.name:
            continue
        if (other := taken.setdefault(folded(row.name), row.row)) != row.row:
            faults.append(f"row {row.row}: name {row.name[:60]!r} is also the name of row {other} (case is ignored)")
    named = []
    for row in rows:
        name = row.name
        if not name:
            name = _derived(row)
            if folded(name) in taken:
                # Not the row number: it changes when a row is inserted above.
                name = f"{name}-{row.key[:8]}"
            taken[folded(name)] = row.row
        named.append(dataclasses.replace(row, name=name))
    return named, faults


def _derived(row: PairRow) -> str:
    """``2009-to-2017``, from the names of the two files, in characters that never need quoting."""
    stems = []
    for place in (row.before, row.after):
        last = re.split(r"[/\\]", place.partition("?")[0].rstrip("/\\"))[-1]
        stem = unicodedata.normalize("NFC", last.rsplit(".", 1)[0] if "." in last[1:] else last)
        stems.append(re.sub(r"[^\w.-]+", "-", stem)[:40].strip("-._") or "image")
    name = f"{stems[0]}-to-{stems[1]}"
    return name if folder_name_fault(name, OWN_FILES) is None else f"pair-{row.key[:8]}"
