"""The outcome of each pair of a list, written for programs, for spreadsheets, and as a page with links.

    outcomes ──> summary.json   everything; read by `wasnow verify`
             ├─> summary.csv    for spreadsheets: cells that look like a formula start with an apostrophe
             └─> index.html     links to the reports; works offline

The files are replaced atomically when pairs finish, so they may be read at any time.
"""

from __future__ import annotations

import csv
import html
import io
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import wasnow
from wasnow.output.layout import PAIRS_SUMMARY
from wasnow.storage.atomic import write_atomically

SUMMARY, TABLE, PAGE = PAIRS_SUMMARY, "summary.csv", "index.html"
FORMAT = 1

State = Literal["waiting", "done", "partial", "failed"]

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")
"""Characters that start a formula in a spreadsheet; some programs also accept the full-width forms."""

TIME_SHARE = 0.05
"""Largest share of the run time that writing summaries may take: long lists are written less often."""


@dataclass(frozen=True, slots=True)
class PairOutcome:
    """The outcome of one pair.

    Attributes:
        row: its number in the list.
        name: of its result folder.
        before: the earlier raster.
        after: the later raster.
        state: ``done``; ``partial``: done with parts that could not be read; ``failed``, see ``reason``; ``waiting``.
        reason: why it failed, or what is flagged, in one line.
        error: the class of the error.
        model: its name; None if the list names none and the pair is not done.
        changed_area_m2: None if unknown, as for the following.
        changed_share: of the valid pixels, 0..1.
        changed_px: number of changed pixels.
        not_processed_px: number of flagged pixels.
        polygons: number of polygons.
        seconds: that it took.
        reused: its folder contained this run already.
        key: a digest of the row.
    """

    row: int
    name: str
    before: str
    after: str
    state: State = "waiting"
    reason: str | None = None
    error: str | None = None
    model: str | None = None
    changed_area_m2: float | None = None
    changed_share: float | None = None
    changed_px: int | None = None
    not_processed_px: int | None = None
    polygons: int | None = None
    seconds: float | None = None
    reused: bool = False
    key: str = ""


@dataclass(frozen=True)
class PairsSummary:
    """The outcomes of a list of pairs.

    Attributes:
        folder: of the result folders and the summary.
        pairs: one outcome per row of the list, in its order.
    """

    folder: Path
    pairs: tuple[PairOutcome, ...]

    def of(self, state: State) -> tuple[PairOutcome, ...]:
        """Return the pairs in one state."""
        return tuple(each for each in self.pairs if each.state == state)

    @property
    def complete(self) -> bool:
        """Whether every pair is done without parts that could not be read."""
        return all(each.state == "done" for each in self.pairs)

    @property
    def table(self) -> Path:
        """Path of the summary for spreadsheets."""
        return self.folder / TABLE

    @property
    def page(self) -> Path:
        """Path of the summary page."""
        return self.folder / PAGE

    def summary(self) -> str:
        """Return one line with the number of pairs in each state."""
        return counts_text(self.pairs)


def counts_text(pairs: Sequence[PairOutcome]) -> str:
    """Return ``12 pairs: 10 done, 1 failed, 1 waiting``."""
    counts = Counter(each.state for each in pairs)
    states: tuple[State, ...] = ("done", "partial", "failed", "waiting")
    parts = [f"{counts[state]:,} {state}" for state in states if counts[state]]
    return f"{len(pairs):,} pair{'s' * (len(pairs) != 1)}: {', '.join(parts)}"


class SummaryWriter:
    """Writes the summary files repeatedly, limited to a share of the run time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._next = 0.0

    def write(self, pairs: Sequence[PairOutcome], *, now: bool = False) -> None:
        """Replace the summary files, unless they were written a short time ago.

        Args:
            pairs: the outcomes.
            now: write in any case.

        Raises:
            DiskFull, OutputError: they cannot be written.
        """
        started = time.monotonic()
        if started < self._next and not now:
            return
        write_atomically(self._folder / TABLE, as_csv(pairs).encode())
        write_atomically(self._folder / PAGE, as_page(pairs).encode())
        write_atomically(self._folder / SUMMARY, as_json(pairs).encode())
        ended = time.monotonic()
        self._next = ended + (ended - started) / TIME_SHARE


def as_json(pairs: Sequence[PairOutcome]) -> str:
    """Return the text of ``summary.json``."""
    value = {
        "format": FORMAT,
        "wasnow": wasnow.__version__,
        "counts": dict(Counter(each.state for each in pairs)),
        "pairs": [asdict(each) for each in pairs],
    }
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


_COLUMNS = (
    "row",
    "name",
    "state",
    "reason",
    "before",
    "after",
    "model",
    "changed_area_m2",
    "changed_share",
    "changed_px",
    "not_processed_px",
    "polygons",
    "seconds",
    "report",
)


def as_csv(pairs: Sequence[PairOutcome]) -> str:
    """Return the text of ``summary.csv``, in which no cell is a formula."""
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    table.writerow(_COLUMNS)
    for each in pairs:
        values = asdict(each) | {"report": _report(each)}
        table.writerow([_cell(values[column]) for column in _COLUMNS])
    return buffer.getvalue()


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    line = " ".join(value.split())
    return f"'{line}" if line.startswith(_FORMULA) or value.startswith(_FORMULA) else line


def _report(each: PairOutcome) -> str | None:
    return f"{each.name}/report.html" if each.state in ("done", "partial") else None


def as_page(pairs: Sequence[PairOutcome]) -> str:
    """Return the text of ``index.html``."""
    rows = "\n".join(_page_row(each) for each in pairs)
    return _PAGE.format(title=html.escape(counts_text(pairs)), rows=rows, version=html.escape(wasnow.__version__))


def _page_row(each: PairOutcome) -> str:
    name = html.escape(each.name)
    if (report := _report(each)) is not None:
        name = f'<a href="./{html.escape(quote(report), quote=True)}">{name}</a>'
    area = each.changed_area_m2
    amount = "" if each.changed_px is None else f"{each.changed_px:,} px" if area is None else f"{area / 1e4:,.2f} ha"
    share = "" if each.changed_share is None else f"{each.changed_share:.2%}"
    polygons = "" if each.polygons is None else f"{each.polygons:,}"
    files = f"{html.escape(each.before)}<br>{html.escape(each.after)}"
    return (
        f'<tr class="{each.state}"><td class="n">{each.row}</td><td>{name}</td><td>{each.state}</td>'
        f'<td class="n">{amount}</td><td class="n">{share}</td><td class="n">{polygons}</td>'
        f'<td class="files">{files}</td><td>{html.escape(each.reason or "")}</td></tr>'
    )


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem; color: #222; background: #fff; }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ text-align: left; vertical-align: top; padding: .4rem .8rem; border-bottom: 1px solid #ddd; }}
.n {{ text-align: right; white-space: nowrap; }}
.files {{ color: #555; font-size: 13px; overflow-wrap: anywhere; }}
.failed td:nth-child(3) {{ color: #a11; font-weight: 600; }}
.partial td:nth-child(3) {{ color: #850; font-weight: 600; }}
.waiting {{ color: #666; }}
</style>
</head>
<body>
<h1>{title}</h1>
<table>
<thead><tr><th class="n">Row</th><th>Pair</th><th>State</th><th class="n">Changed</th><th class="n">Share</th>
<th class="n">Polygons</th><th>Before, after</th><th>Reason</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>
<p>wasnow {version}. Run the same command again to continue with waiting and failed pairs.</p>
</body>
</html>
"""
