"""One set of numbers in four formats."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmark.contest import HOSTILE, recipe
from output.report.test_html import in_chromium
from wasnow.benchmark.latex import as_tex, tex
from wasnow.benchmark.page import Example, Picture, benchmark_page
from wasnow.benchmark.plan import Row
from wasnow.benchmark.published import LATER, SEMANTIC_CD
from wasnow.benchmark.table import SCORES, Table, as_csv, as_json, bounds, formatted, table_row
from wasnow.evaluation.metrics import Difference

FACTS: dict[str, Any] = {
    "data": {
        "name": HOSTILE,
        "classes": ["water", "building", "field"],
        "splits": {"train": 4, "scored": 2},
        "scored_on": "test (2 pairs)",
        "fingerprint": "f" * 64,
        "notes": [HOSTILE],
    },
    "budget": "2 steps",
    "seeds": [0, 1],
    "settings": [],
    "machine": {"cores": 2},
    "versions": {"wasnow": "0"},
    "command": HOSTILE,
    "updated": "now",
}


def result(seed: int, **scores: float | None) -> dict[str, Any]:
    """What a finished run leaves; every score 0.5 unless told otherwise."""
    every = {one.key: 0.5 for one in SCORES} | {name.replace("__", "."): one for name, one in scores.items()}
    return {
        "seed": seed,
        "scores": every,
        "undefined": {name: "no reason" for name, value in every.items() if value is None},
        "intervals": {name: {"low": one - 0.1, "high": one + 0.2} for name, one in every.items() if one is not None},
        "notes": [],
        "training": {"steps": 2, "seconds": 3.0 + seed, "memory_mb": 100.0},
    }


COST = {
    "parameters": 1_500_000,
    "gflops": 2.5,
    "pairs_per_s": 4.0,
    "memory_mb": 300.0,
    "device": "cpu",
    "size": [32, 32],
}


def table() -> Table:
    """A row of two seeds, one of change alone, one that failed, and one that was not run; two with a hostile name."""
    first = [("a-seed0", result(0, binary__f1=0.25, stacked__sek=0.125)), ("a-seed1", result(1, binary__f1=0.75))]
    alone = {name: None for name in (one.key.replace(".", "__") for one in SCORES) if not name.startswith("binary")}
    return Table(
        (
            table_row(Row(HOSTILE, "a", HOSTILE), first, COST, []),
            table_row(Row("=cmd()", "b"), [("b", result(0, **alone, binary__f1=0.875))], None, []),
            table_row(Row("c", "c"), [], None, [HOSTILE]),
            table_row(Row("d", "d"), [], None, []),
        ),
        FACTS,
        SEMANTIC_CD,
        LATER,
    )


def test_a_value_is_the_mean_over_seeds_with_their_range_and_the_mean_of_their_bounds():
    value = table().lines[0].values["binary.f1"]
    assert (value.mean, value.least, value.most) == (0.5, 0.25, 0.75)
    assert value.low == pytest.approx(0.4)
    assert value.high == pytest.approx(0.7)


def test_what_is_undefined_under_one_seed_has_no_mean():
    found = table_row(Row("a", "a"), [("0", result(0)), ("1", result(1, binary__f1=None))], None, [])
    assert "binary.f1" not in found.values
    assert found.undefined["binary.f1"] == "no reason"


def test_json_csv_and_latex_agree():
    whole = table()
    told = json.loads(as_json(whole))
    rows = list(csv.DictReader(io.StringIO(as_csv(whole))))
    lines = re.findall(r"\\midrule\n(.*?)\n\\bottomrule", as_tex(whole), re.DOTALL)[0].splitlines()
    assert len(told["lines"]) == len(rows) == len(lines) == 4
    columns = [one for one in whole.columns if one in SCORES or one.group == "network"]
    for one, row, text in zip(told["lines"], rows, lines, strict=True):
        assert row["status"] == one["status"]
        cells = re.split(r"(?<!\\)& ", text.removesuffix(" \\\\"))[1:]
        if one["status"] != "finished":
            assert len(cells) == 1
            continue
        assert len(cells) == len(columns)
        for column, cell in zip(columns, cells, strict=True):
            value = one["values"].get(column.key)
            assert row[column.key] == ("" if value is None else repr(value["mean"]))
            number = re.search(r"-?\d+(\.\d+)?", cell)
            assert (number is None) == (value is None)
            if value is not None and number is not None:
                assert float(number[0]) == round(value["mean"] * column.scale, column.digits)
                if value["low"] is not None:
                    low, high = bounds(column, value["low"], value["high"]).split(" to ")
                    assert f"${low}$ to ${high}$" in cell


def test_latex_shows_negative_bounds_as_numbers_with_a_sign():
    found = table_row(Row("a", "a"), [("0", result(0, stacked__sek=-0.05))], None, [])
    text = as_tex(Table((found,), FACTS, SEMANTIC_CD, LATER))
    assert "$-5.00$" in text
    assert "$-15.00$ to $15.00$" in text
    assert "--15" not in text


def test_a_row_says_how_many_of_the_seeds_are_in_its_mean():
    row = Row("a", "a", config=recipe("tiny"))
    for count in (1, 2):
        found = table_row(row, [(str(seed), result(seed)) for seed in range(count)], COST, [])
        assert f"{count} of 2 seeds" in benchmark_page(Table((found,), FACTS, SEMANTIC_CD, LATER), [], [])


def test_hostile_text_is_text_in_every_format():
    whole = table()
    page = benchmark_page(whole, [Example(HOSTILE, (Picture(HOSTILE, "a.png", "data:,"),))], [(HOSTILE, "#fff")])
    assert page.count("</script>") == 1
    assert "<b onclick" not in page
    assert "javascript:" not in page
    first, second, *_ = csv.DictReader(io.StringIO(as_csv(whole)))
    assert first["name"] == HOSTILE
    assert second["name"] == "'=cmd()"
    assert json.loads(as_json(whole))["lines"][0]["name"] == HOSTILE
    bare = re.sub(
        r"\\(textbackslash|textless|textgreater|textasciitilde|textasciicircum)\{\}|\\[{}$&%#_]", "", tex(HOSTILE)
    )
    assert not set("\\{}$&%#_~^<>") & set(bare)


def test_published_figures_are_separate_and_have_their_protocol():
    page = benchmark_page(table(), [], [])
    measured, published = page.split("Published: Table I")
    assert "91.31" not in measured
    assert "91.31" in published
    assert "26.11" in published
    assert "from-to protocol (37 codes" in published
    assert "91.31" not in as_csv(table())


def test_every_published_figure_is_in_the_page_the_json_and_the_latex():
    whole = table()
    found = json.loads(as_json(whole))
    texts = (benchmark_page(whole, [], []), as_tex(whole))
    for source, key in ((SEMANTIC_CD, "published"), (LATER, "published_later")):
        for row, listed in zip(source.rows, found[key]["rows"], strict=True):
            assert listed["method"] == row.method
            for value in (row.oa, row.f1, row.miou, row.sek):
                assert value is None or all(f"{value:.2f}" in text for text in texts)
    assert [row.method for row in SEMANTIC_CD.rows][-1] == "Semantic-CD"
    assert len(SEMANTIC_CD.rows) == 10


def names(document: str) -> list[str]:
    """The first cells of the table."""
    body = document.partition('id="table"')[2].partition("<tbody>")[2].partition("</tbody>")[0]
    return re.findall(r'<th scope="row" data-value="([^"]*)"', body)


def test_in_a_browser_the_table_sorts_by_its_address_and_asks_for_nothing(tmp_path: Path):
    path = tmp_path / "index.html"
    path.write_text(benchmark_page(table(), [], []), encoding="utf-8")
    plain = names(path.read_text(encoding="utf-8"))

    class At:
        """The page at a fragment."""

        stem = "at"

        def __init__(self, fragment: str) -> None:
            self._fragment = fragment

        def as_uri(self) -> str:
            return f"{path.as_uri()}#{self._fragment}"

    seen, asked = in_chromium(At("-binary.f1"), tmp_path)  # type: ignore[arg-type]
    # What has no number stays last, in either direction.
    assert names(seen) == [plain[1], plain[0], plain[2], plain[3]]
    assert 'aria-sort="descending"' in seen
    assert asked == set()
    assert "Content Security Policy" not in seen
    assert names(in_chromium(At("+binary.f1"), tmp_path)[0]) == plain  # type: ignore[arg-type]
    assert names(in_chromium(At("-name"), tmp_path)[0])[0] == "d"  # type: ignore[arg-type]


def test_numbers_are_shown_in_the_unit_of_their_column():
    whole = table()
    assert [formatted(one, whole.lines[0].values.get(one.key)) for one in whole.columns if one.group == "network"] == [
        "1.50",
        "2.5",
    ]
    assert formatted(SCORES[0], None) == "–"


def test_paired_differences_are_in_the_page_the_json_and_the_latex():
    difference = Difference(estimate=-0.0077, low=-0.02, high=-0.0001, p=0.042)
    whole = replace(table(), differences={HOSTILE: {"stacked.sek": difference}})
    page, text, found = benchmark_page(whole, [], []), as_tex(whole), json.loads(as_json(whole))
    assert found["differences"][HOSTILE]["stacked.sek"]["p"] == 0.042
    assert "-0.77<small>-2.00 to -0.01, p = 0.042</small>" in page
    assert "$-0.77$" in text
    assert "$-2.00$ to $-0.01$, $p=0.042$" in text
    assert "<b onclick" not in page
