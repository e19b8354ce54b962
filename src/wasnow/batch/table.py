"""Read a list of pairs from a CSV file or from mappings.

    before,after,name,classes,min-area          before and after are required; name, classes, model and every option
    2009/a.tif,2017/a.tif,north,,50             of wasnow detect, by its long name, may have a column.
    2009/b.tif,2017/b.tif,,"road, water",       An empty cell takes the value of the command.

The whole list is checked before the first pair starts; all faults are reported, each with its row.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from wasnow.batch.names import OWN_FILES, with_names
from wasnow.errors import InputError, InvalidOption, PairsError, UsageError, did_you_mean, redacted
from wasnow.pipeline.option_values import parse_list, with_split_thresholds
from wasnow.pipeline.options import Options, OptionValues, fields, shown
from wasnow.storage.content import special_file
from wasnow.storage.names import folder_name_fault
from wasnow.vocabulary import Vocabulary

LARGEST_BYTES = 2**26
OWN_COLUMNS = ("before", "after", "name", "classes", "model")

_ELSEWHERE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|/vsi|[A-Za-z][A-Za-z0-9_]+:")
"""Starts of names that are not paths relative to the list: a URL, a virtual file system of GDAL, a part of a file."""


@dataclass(frozen=True)
class PairRow:
    """One pair of a list.

    Attributes:
        row: its number, as a spreadsheet counts: the header is row 1.
        name: of its result folder; unique in the list, also on file systems without case.
        before: the earlier raster; relative paths in a file are relative to the folder of the list.
        after: the same for the later raster.
        model: None for that of the command.
        classes: None for those of the command.
        options: that the list sets for this pair.
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
        """A digest of all that the list says about the pair."""
        asked = [redacted(self.before), redacted(self.after), self.model, self.classes, sorted(self.options.items())]
        return hashlib.sha256(json.dumps(asked, default=str).encode()).hexdigest()[:16]


def read_pairs(
    table: str | os.PathLike[str] | Iterable[Mapping[str, Any]], *, common: Mapping[str, Any] | None = None
) -> tuple[PairRow, ...]:
    """Read the pairs of a CSV file, or of mappings with the same columns.

    Args:
        table: CSV in UTF-8, separated by commas, semicolons or tabs, with a header; or mappings, whose values may be
            text as in a cell, or values of Python.
        common: options of the command; those of a row replace them.

    Raises:
        InputError: the file cannot be read, or is not a list of pairs.
        PairsError: rows are not valid; names all of them.
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
        except InvalidOption as error:
            faults.append(f"row {number}: {error.written(lambda option: option.replace('_', '-'))}")
        except (UsageError, ValueError) as error:
            faults.append(f"row {number}: {error}")
    if not cells:
        raise InputError(f"{label} contains no pair; write a header such as before,after,name, and a row for each pair")
    rows, found = with_names(rows)
    faults += found
    if faults:
        raise PairsError(label, sorted(faults, key=_row_of))
    return tuple(rows)


def _row_of(fault: str) -> int:
    found = re.match(r"row (\d+)", fault)
    return int(found[1]) if found else 0


# --- the file ---------------------------------------------------------------------------------------------------


def _cells(path: Path) -> tuple[list[str], list[tuple[int, list[Any]]]]:
    """Header and rows of a CSV file, each with its number. Empty rows are left out but counted."""
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
        raise InputError(f"{path}: row {at} is not valid CSV ({error}); check its quotes") from None
    if not found:
        raise InputError(f"{path} is empty; write a header such as before,after,name, and a row for each pair")
    return [str(cell) for cell in found[0][1]], found[1:]


def _text(path: Path) -> str:
    if (kind := special_file(path)) is not None:
        raise InputError(f"{path} is {kind}, not a regular file; --pairs takes a CSV file")
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise InputError(
                f"{path} is larger than a list of pairs can be ({LARGEST_BYTES:,} bytes); is it a CSV file?"
            )
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
        raise InputError(f"{path} contains a NUL character; it must be a CSV file")
    return text


def _known_columns(columns: Sequence[str], label: str) -> list[str]:
    """The columns by the names of options.

    Raises:
        PairsError: a column is unknown, repeated or missing.
    """
    options = {name: shown(field) for name, field in fields().items()}
    known = [*OWN_COLUMNS, *(name for name, about in options.items() if about.per_pair)]
    found, faults = [], []
    for column in columns:
        name = column.strip().casefold().removeprefix("--").replace("-", "_").replace(" ", "_")
        if name in options and options[name].flag and not options[name].per_pair:
            faults.append(f"column {column[:40]!r} must apply to the whole list: pass {flag(name)} to the command")
        elif name not in known:
            near = did_you_mean(name.replace("_", "-"), [each.replace("_", "-") for each in known])
            faults.append(f"no column is called {column[:40]!r}{near}")
        elif name in found:
            faults.append(f"column {column[:40]!r} is repeated")
        found.append(name)
    if not faults and (missing := [name for name in ("before", "after") if name not in found]):
        faults.append(f"the header has no column {' and no column '.join(missing)}; it is {', '.join(columns)[:80]!r}")
    if faults:
        raise PairsError(label, faults)
    return found


# --- one row ----------------------------------------------------------------------------------------------------


def _row(number: int, cells: Mapping[str, Any], folder: Path, common: Mapping[str, Any]) -> PairRow:
    """One pair; its name is empty if the row has none.

    Raises:
        UsageError: a cell is not valid.
    """
    given = {name: value for name, value in cells.items() if value is not None and str(value).strip() != ""}
    paths = {}
    for date in ("before", "after"):
        if date not in given:
            raise UsageError(f"no {date}")
        paths[date] = _resolved(os.fspath(given[date]), folder)
    options = {name: _option(name, value, folder) for name, value in given.items() if name not in OWN_COLUMNS}
    options = with_split_thresholds(options)
    # Options that exclude each other are reported now, not when the pair is reached.
    checked = Options(**cast(OptionValues, {**common, **options}))
    options = {name: getattr(checked, name) for name in options}
    if "class_thresholds" in options:
        options["class_thresholds"] = dict(checked.class_thresholds)
    classes = given.get("classes")
    if classes is not None:
        classes = classes.strip() if isinstance(classes, str) else tuple(classes)
        Vocabulary.parse(classes)
    name = str(given.get("name", ""))
    if (fault := folder_name_fault(name, OWN_FILES)) and name:
        raise UsageError(f"name {name[:60]!r} {fault}")
    model = given.get("model")
    if model is not None:
        model = _existing(os.fspath(model).strip(), folder)
    return PairRow(number, name, paths["before"], paths["after"], model, classes, options)


def _resolved(text: str, folder: Path) -> str:
    """A path relative to the folder of the list; URLs and parts of files stay as they are."""
    text = text.strip()
    if any(unicodedata.category(letter) == "Cc" for letter in text):
        raise UsageError(f"path {text[:60]!r} contains a control character")
    path = folder / text
    if _ELSEWHERE.match(text) and not path.exists():
        return text
    return str(path)


def _option(name: str, value: Any, folder: Path) -> Any:
    """The value of a cell for `Options`, which converts text; paths are resolved here."""
    if not isinstance(value, str):
        return value
    text, about = value.strip(), shown(fields()[name])
    if not about.path or text in about.words:
        return text
    if name in ("masks", "masker_weights"):
        return tuple(_existing(part, folder) for part in parse_list(text))
    return _resolved(text, folder)


def _existing(text: str, folder: Path) -> str:
    """A path relative to the folder of the list if it exists, else the text: a name that others resolve."""
    return str(folder / text) if (folder / text).exists() else text


def flag(name: str) -> str:
    """Return an option as the command line spells it."""
    return f"--{name.replace('_', '-')}"
