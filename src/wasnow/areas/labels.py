"""Reference labels of a sample: the file ``labels.csv``, and the tables of other labelling tools.

    csv       id, before, after, and any of confidence, note, skip_reason, interpreter, labelled_at, seconds
    gpkg      points.gpkg with its label fields filled in, in QGIS
    ceo       Collect Earth Online's plot or sample export: plotid, flagged, email, and one column a "QUESTION:ANSWER"
    table     any CSV or vector file, with the names of its columns given

A label is never replaced by an import: a second label of the same point by another interpreter is a line of its own.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from wasnow.areas.design import LABELS
from wasnow.errors import InputError
from wasnow.storage.atomic import append_line, write_atomically


@dataclass(frozen=True)
class Label:
    """One reference label of one point.

    Attributes:
        id: of the point.
        before: class at the first date; empty where the point could not be labelled.
        after: class at the second date.
        confidence: ``high``, ``medium``, ``low`` or empty.
        note: free text.
        skip_reason: why there is no label; empty where there is one.
        interpreter: who labelled it.
        labelled_at: ISO 8601 time.
        seconds: time spent; empty where unknown.
    """

    id: int
    before: str = ""
    after: str = ""
    confidence: str = ""
    note: str = ""
    skip_reason: str = ""
    interpreter: str = ""
    labelled_at: str = ""
    seconds: str = ""

    @property
    def usable(self) -> bool:
        """Whether both dates have a class."""
        return bool(self.before and self.after)


COLUMNS = tuple(each.name for each in fields(Label))


def read_labels(path: Path) -> list[Label]:
    """All labels of a ``labels.csv``, in the order in which they were made.

    Raises:
        InputError: the file is missing, lacks a column, or a line has no point id.
    """
    return [_label(row, path, line) for line, row in _rows(path, ("id", "before", "after"))]


def latest(labels: Iterable[Label]) -> dict[int, Label]:
    """The label to use of every point: the last one of each point.

    With several interpreters, the last line is the consensus; `agreement` compares the others.
    """
    return {label.id: label for label in labels}


def add_label(folder: Path, label: Label) -> None:
    """Append one label to the ``labels.csv`` of a sample folder, durably.

    Args:
        folder: the sample folder.
        label: to append.

    Raises:
        DiskFull, OutputError: it cannot be written.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow([getattr(label, name) for name in COLUMNS])
    append_line(folder / LABELS, text.getvalue().encode())


def write_labels(folder: Path, labels: Iterable[Label]) -> None:
    """Replace the ``labels.csv`` of a sample folder atomically.

    Args:
        folder: the sample folder.
        labels: its new content.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    table.writerows([getattr(label, name) for name in COLUMNS] for label in labels)
    write_atomically(folder / LABELS, text.getvalue().encode())


@dataclass(frozen=True)
class Agreement:
    """How often two interpreters gave the same label to the same point.

    Attributes:
        points: labelled by at least two.
        same: of these, labelled alike at both dates.
    """

    points: int
    same: int


def agreement(labels: Iterable[Label]) -> Agreement:
    """Agreement of the first usable labels of the first two interpreters of each point."""
    by_point: dict[int, dict[str, Label]] = {}
    for label in labels:
        if label.usable:
            by_point.setdefault(label.id, {}).setdefault(label.interpreter, label)
    pairs = [list(each.values())[:2] for each in by_point.values() if len(each) > 1]
    same = sum((first.before, first.after) == (second.before, second.after) for first, second in pairs)
    return Agreement(len(pairs), same)


def labels_of_table(path: Path, *, columns: Mapping[str, str] | None = None) -> list[Label]:
    """Labels of a CSV or vector file with named columns.

    Args:
        path: a CSV, or anything that OGR opens, such as ``points.gpkg``.
        columns: ``{field of Label: column of the file}``; fields that are not named have their own name.

    Raises:
        InputError: the file cannot be read, or lacks a column.
    """
    names = {name: name for name in COLUMNS} | dict(columns or {})
    required = tuple(names[name] for name in ("id", "before", "after"))
    if path.suffix.casefold() in (".csv", ".txt"):
        rows = list(_rows(path, required))
    else:
        rows = list(_features(path, required))
    renamed = ((line, {name: row.get(column, "") for name, column in names.items()}) for line, row in rows)
    return [_label(row, path, line) for line, row in renamed if row["before"] or row["after"] or row["skip_reason"]]


def labels_of_ceo(path: Path, *, before: str, after: str) -> list[Label]:
    """Labels of a Collect Earth Online export (plot or sample data, CSV).

    Such a file has one column per answer, ``QUESTION:ANSWER``, with the share of the plot in percent. The answer with
    the largest share is taken; ties and flagged plots are skipped points.

    Args:
        path: the CSV.
        before: the question about the first date.
        after: the question about the second date.

    Raises:
        InputError: the file lacks the plot id or a question.
    """
    found = []
    for line, row in _rows(path, ("plotid",)):
        folded = {name.strip(): value.strip() for name, value in row.items() if name}
        first, second = _answer(folded, before, path), _answer(folded, after, path)
        flagged = folded.get("flagged", "").casefold() in ("true", "1", "t", "yes")
        reason = folded.get("flagged_reason", "") or "flagged" if flagged else ""
        if not flagged and not (first and second):
            reason = "no single answer"
        found.append(
            Label(
                id=_number(folded["plotid"], path, line),
                before="" if reason else first,
                after="" if reason else second,
                confidence=folded.get("confidence", ""),
                skip_reason=reason,
                interpreter=folded.get("email", ""),
                labelled_at=folded.get("collection_time", ""),
                seconds=folded.get("analysis_duration", "").removesuffix(" secs"),
            )
        )
    return found


def _answer(row: Mapping[str, str], question: str, path: Path) -> str:
    answers = {name.partition(":")[2]: value for name, value in row.items() if name.partition(":")[0] == question}
    if not answers:
        questions = sorted({name.partition(":")[0] for name in row if ":" in name})
        raise InputError(f"{path}: no column of question {question!r}; it has {', '.join(questions) or 'no questions'}")
    shares = {answer: float(value or 0) for answer, value in answers.items()}
    most = max(shares.values())
    best = [answer for answer, share in shares.items() if share == most]
    return best[0] if most > 0 and len(best) == 1 else ""


def _rows(path: Path, required: Sequence[str]) -> Iterable[tuple[int, dict[str, str]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; label the sample first, or import labels") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a UTF-8 table ({error})") from None
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    reader = csv.DictReader(io.StringIO(text), delimiter=separator)
    _check_columns(path, reader.fieldnames or (), required)
    for row in reader:
        yield reader.line_num, {name: (value or "").strip() for name, value in row.items() if name is not None}


def _features(path: Path, required: Sequence[str]) -> Iterable[tuple[int, dict[str, str]]]:
    import pyogrio

    try:
        info, _, _, values = pyogrio.raw.read(path, read_geometry=False)
    except (pyogrio.errors.DataSourceError, OSError) as error:
        raise InputError(f"{path}: cannot be read as a table ({' '.join(str(error).split())})") from None
    names = [str(name) for name in info["fields"]]
    _check_columns(path, names, required)
    for line, row in enumerate(zip(*values, strict=True), start=1):
        yield (
            line,
            {
                name: "" if value is None or value != value else str(value)
                for name, value in zip(names, row, strict=True)
            },
        )


def _check_columns(path: Path, names: Sequence[str], required: Sequence[str]) -> None:
    missing = [name for name in required if name not in names]
    if missing:
        raise InputError(f"{path}: no column {missing[0]!r}; it has {', '.join(names) or 'no columns'}")


def _label(row: Mapping[str, str], path: Path, line: int) -> Label:
    known = {name: row[name] for name in COLUMNS[1:] if row.get(name)}
    label = Label(id=_number(row["id"], path, line), **known)
    if bool(label.before) != bool(label.after):
        raise InputError(f"{path}: line {line}: point {label.id} has a class at one date only; give both, or neither")
    return label


def _number(text: str, path: Path, line: int) -> int:
    try:
        return int(float(text))
    except ValueError:
        raise InputError(f"{path}: line {line}: point id {text!r} is not a whole number") from None
