"""A list of pairs, as a person or a script writes it, and as the run takes it.

    before,after,name,classes,min-area          before and after are needed; name, classes, model, threshold and every
    2009/a.tif,2017/a.tif,north,,50             option of wasnow detect by its long name may have a column.
    2009/b.tif,2017/b.tif,,"road, water",       An empty cell means what the command says.

Everything that can be told from the list alone is told before the first pair is begun: all faults, each with its row.
Names become folders, so they are checked as what they are: text from outside.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import os
import re
import typing
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wasnow.errors import InputError, PairsError, UsageError, did_you_mean
from wasnow.pipeline.parsing import parse_bands, parse_flag, parse_list, parse_number, parse_thresholds
from wasnow.pipeline.plan import Options
from wasnow.priors.store import WITHOUT
from wasnow.storage.names import folded, folder_name_fault
from wasnow.vocabulary import Vocabulary

LARGEST_BYTES = 2**26

OWN_COLUMNS = ("before", "after", "name", "classes", "model", "threshold")
FOR_ALL = ("workers", "scheduler", "allow_indirect")
"""Options that say how the whole list is worked through, or how far it is trusted: the list itself cannot."""

_ELSEWHERE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|/vsi|[A-Za-z][A-Za-z0-9_]+:")
"""Beginnings of what is no path beside the list: an address, a file inside GDAL's file systems, a part of a file."""


@dataclass(frozen=True)
class PairRow:
    """One pair of a list.

    Attributes:
        row: where it stands, as a spreadsheet counts: the header is row 1.
        name: of its result folder; unlike all others of the list, whatever the file system thinks of case.
        before, after: paths, those of a file taken from where the list lies.
        model, classes: None where the list leaves them to the command.
        options: of `Options`, where the list has something to say.
    """

    row: int
    name: str
    before: str
    after: str
    model: str | None = None
    classes: str | tuple[str, ...] | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def key(self) -> str:
        """A digest of what is asked: another one where any of it differs."""
        asked = [self.before, self.after, self.model, self.classes, sorted(self.options.items())]
        return hashlib.sha256(json.dumps(asked, default=str).encode()).hexdigest()[:16]


def read_pairs(
    table: str | os.PathLike[str] | Iterable[Mapping[str, Any]], *, common: Mapping[str, Any] | None = None
) -> tuple[PairRow, ...]:
    """The pairs of a CSV file, or of mappings with its columns.

    Args:
        table: CSV in UTF-8, separated by commas, semicolons or tabs, with a header; or mappings, whose values may be
            text as in a cell, or what Python takes.
        common: options of the command, which those of a row come on top of.

    Raises:
        InputError: the file cannot be read, or is no such list.
        PairsError: rows that cannot be carried out; all of them are named.
    """
    if isinstance(table, str | os.PathLike):
        label, folder = os.fspath(table), Path(table).parent
        columns, cells = _cells(Path(table))
    else:
        label, folder = "the list of pairs", Path()
        given = [{str(key): value for key, value in row.items()} for row in table]
        columns = list(dict.fromkeys(key for row in given for key in row))
        cells = [(number, [row.get(column) for column in columns]) for number, row in enumerate(given, 1)]
    faults: list[str] = []
    known = _known_columns(columns, label)
    rows: list[PairRow] = []
    for number, values in cells:
        if len(values) > len(columns):
            faults.append(f"row {number} has {len(values)} cells, the header {len(columns)}")
            continue
        try:
            rows.append(_row(number, dict(zip(known, values, strict=False)), folder, common or {}))
        except (UsageError, ValueError) as error:
            faults.append(f"row {number}: {error}")
    if not cells:
        raise InputError(f"{label} lists no pair; write a header such as before,after,name, and a row for each pair")
    rows, found = _named(rows)
    faults += found
    if faults:
        raise PairsError(label, sorted(faults, key=_row_of))
    return tuple(rows)


def _row_of(fault: str) -> int:
    found = re.match(r"row (\d+)", fault)
    return int(found[1]) if found else 0


# --- the file ---------------------------------------------------------------------------------------------------


def _cells(path: Path) -> tuple[list[str], list[tuple[int, list[Any]]]]:
    """Header and rows of a CSV file, each with its number; empty rows are left out, and counted."""
    text = _text(path)
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    found: list[tuple[int, list[Any]]] = []
    try:
        for number, row in enumerate(csv.reader(text.splitlines(keepends=True), delimiter=separator, strict=True), 1):
            if any(cell.strip() for cell in row):
                found.append((number, list(row)))
    except csv.Error as error:
        at = found[-1][0] + 1 if found else 1
        raise InputError(f"{path}: row {at} is no CSV ({error}); check its quotes") from None
    if not found:
        raise InputError(f"{path} is empty; write a header such as before,after,name, and a row for each pair")
    return [str(cell) for cell in found[0][1]], found[1:]


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise InputError(f"{path} has {path.stat().st_size:,} bytes, and no list needs so many; is it a CSV file?")
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; --pairs takes a CSV file with the columns before and after") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{path} is in UTF-16; save it as CSV in UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(f"{path}: line {line} is not UTF-8; save it as CSV in UTF-8") from None
    if "\0" in text:
        raise InputError(f"{path} holds a NUL character: it is no CSV file")
    return text


def _known_columns(columns: Sequence[str], label: str) -> list[str]:
    """The header in our words.

    Raises:
        PairsError: a column that is none, is there twice, or is missing.
    """
    options = [field.name for field in dataclasses.fields(Options) if field.name not in ("class_thresholds", *FOR_ALL)]
    known = list(dict.fromkeys((*OWN_COLUMNS, *options)))
    shown = [name.replace("_", "-") for name in known]
    found, faults = [], []
    for column in columns:
        name = column.strip().casefold().removeprefix("--").replace("-", "_").replace(" ", "_")
        if name in FOR_ALL:
            faults.append(
                f"column {column[:40]!r} is for the whole list: give --{name.replace('_', '-')} in the command"
            )
        elif name not in known:
            near = did_you_mean(name.replace("_", "-"), shown)
            faults.append(f"no column is called {column[:40]!r}{near}")
        elif name in found:
            faults.append(f"column {column[:40]!r} is there twice")
        found.append(name)
    if not faults and (missing := [name for name in ("before", "after") if name not in found]):
        faults.append(f"the header has no column {' and no column '.join(missing)}; it is {', '.join(columns)[:80]!r}")
    if faults:
        raise PairsError(label, faults)
    return found


# --- one row ----------------------------------------------------------------------------------------------------


def _row(number: int, cells: Mapping[str, Any], folder: Path, common: Mapping[str, Any]) -> PairRow:
    """One pair, its name as it was given or empty.

    Raises:
        UsageError: a cell that cannot be meant.
    """
    given = {name: value for name, value in cells.items() if value is not None and str(value).strip() != ""}
    places = {}
    for date in ("before", "after"):
        if date not in given:
            raise UsageError(f"no {date}")
        places[date] = _placed(os.fspath(given[date]), folder)
    options: dict[str, Any] = {}
    for name, value in given.items():
        if name == "threshold" and isinstance(value, str):
            options["threshold"], options["class_thresholds"] = parse_thresholds(parse_list(value))
        elif name not in OWN_COLUMNS or name == "threshold":
            options[name] = _option(name, value, folder)
    # All of it together may contradict itself; better said now than when its turn comes.
    known = {field.name for field in dataclasses.fields(Options)}
    Options(**{name: value for name, value in {**common, **options}.items() if name in known})
    classes = given.get("classes")
    if classes is not None:
        classes = classes.strip() if isinstance(classes, str) else tuple(classes)
        Vocabulary.parse(classes)
    name = str(given.get("name", ""))
    if (fault := folder_name_fault(name, OWN_FILES)) and name:
        raise UsageError(f"name {name[:60]!r} {fault}")
    model = given.get("model")
    if model is not None:
        model = os.fspath(model).strip()
        model = str(folder / model) if (folder / model).exists() else model
    return PairRow(number, name, places["before"], places["after"], model, classes, options)


def _placed(text: str, folder: Path) -> str:
    """A path that is taken from where the list lies; addresses and parts of files as they are."""
    text = text.strip()
    if any(unicodedata.category(letter) == "Cc" for letter in text):
        raise UsageError(f"path {text[:60]!r} holds a control character")
    beside = folder / text
    if _ELSEWHERE.match(text) and not beside.exists():
        return text
    return str(beside)


def _option(name: str, value: Any, folder: Path) -> Any:
    """The value of a cell, by the type that the option has."""
    if not isinstance(value, str):
        return value
    text, shown = value.strip(), name.replace("_", "-")
    if name == "bands":
        return parse_bands(text)
    if name in ("masks", "masker_weights"):
        return tuple(_beside(part, folder) for part in parse_list(text))
    if name == "align":
        return text if text in ("before", "after", "finest") else _placed(text, folder)
    if name in ("priors", "keep_features"):
        return text if text == WITHOUT else _placed(text, folder)
    kinds = _kinds(name)
    if bool in kinds:
        return parse_flag(shown, text)
    if float in kinds:
        return parse_number(shown, text)
    return parse_number(shown, text, whole=True) if int in kinds else text


def _beside(text: str, folder: Path) -> str:
    """A file beside the list where there is one, else a name that others know."""
    return str(folder / text) if (folder / text).exists() else text


def _kinds(name: str) -> tuple[Any, ...]:
    hint = typing.get_type_hints(Options)[name]
    return typing.get_args(hint) or (hint,)


# --- names ------------------------------------------------------------------------------------------------------


OWN_FILES = frozenset(("summary.csv", "summary.json", "index.html"))
"""Files of the folder of pairs, which no result folder may be called."""


def _named(rows: list[PairRow]) -> tuple[list[PairRow], list[str]]:
    """Every row with a name of its own; names that were given come first, and clashes of those are faults."""
    taken: dict[str, int] = {}
    asked: dict[str, int] = {}
    faults = []
    for row in rows:
        if row.key in asked and not row.name:
            faults.append(f"row {row.row} is row {asked[row.key]} once more")
        asked.setdefault(row.key, row.row)
        if not row.name:
            continue
        if (other := taken.setdefault(folded(row.name), row.row)) != row.row:
            faults.append(f"row {row.row}: name {row.name[:60]!r} is that of row {other} (capitals do not count)")
    named = []
    for row in rows:
        name = row.name
        if not name:
            name = _derived(row)
            if folded(name) in taken:
                # Not a number: it would be another one when a row is added above.
                name = f"{name}-{row.key[:8]}"
            taken[folded(name)] = row.row
        named.append(dataclasses.replace(row, name=name))
    return named, faults


def _derived(row: PairRow) -> str:
    """``2009-to-2017``, from the names of the two files, in letters that need no quoting anywhere."""
    stems = []
    for place in (row.before, row.after):
        last = re.split(r"[/\\]", place.partition("?")[0].rstrip("/\\"))[-1]
        stem = unicodedata.normalize("NFC", last.rsplit(".", 1)[0] if "." in last[1:] else last)
        stems.append(re.sub(r"[^\w.-]+", "-", stem)[:40].strip("-._") or "image")
    name = f"{stems[0]}-to-{stems[1]}"
    return name if folder_name_fault(name, OWN_FILES) is None else f"pair-{row.key[:8]}"
