"""The report: its content, escaping of text from outside, and no external requests."""

from __future__ import annotations

import html.parser
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import typer
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from making import REAL
from wasnow.output.record import RunRecord
from wasnow.output.report.drawings import block_paths, curves, scale_bar
from wasnow.output.report.html import write_report
from wasnow.output.report.model_box import about_model, other_text
from wasnow.output.report.numbers import unit_for
from wasnow.output.report.stac import write_item
from wasnow.storage.journal import BlockRecord

WORDS = ("water", "building", "field")
VOID = {"meta", "link", "img", "input", "br", "hr"}
HOSTILE = (
    "</script><script>alert(1)</script>",
    "\"><img src=x onerror='alert(2)'>",
    "}</style>url(http://evil.example)",
    "{{ 7 * 7 }}{% raw %}",
)


class Page(html.parser.HTMLParser):
    """The tags and visible text of a page, and whether every tag was closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.visible: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.visible.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.visible).split())

    def named(self, tag: str) -> Iterator[dict[str, str | None]]:
        return (attributes for name, attributes in self.tags if name == tag)


def photo(height: int = 60, width: int = 80, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def page_of(folder: Path, record: RunRecord) -> Page:
    return Page(write_report(folder, record, photo(), photo(seed=1)).read_text(encoding="utf-8"))


def test_the_page_is_well_formed_and_has_no_external_references(make_run: Any, tmp_path: Path):
    page = page_of(tmp_path, make_run())
    assert page.open == []
    for _, attributes in page.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), f"{name}={value}"
    policy = next(tag["content"] for tag in page.named("meta") if tag.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_every_picture_has_alternative_text_and_every_table_has_headers(make_run: Any, tmp_path: Path):
    page = page_of(tmp_path, make_run())
    assert len(list(page.named("img"))) == 4
    assert all(image["alt"] for image in page.named("img"))
    assert all(header.get("scope") in ("row", "col") for header in page.named("th"))


@pytest.mark.parametrize("position", range(len(HOSTILE)))
def test_malicious_words_and_names_are_escaped(position: int, make_run: Any, tmp_path: Path):
    bad = HOSTILE[position]
    record = make_run(
        words=(bad, "water"),
        dates=(bad, bad),
        paths=(f"in/{bad}", f"C:\\in\\{bad}"),
        fit={bad: [[1.0, 2.0], [2.0, 3.0]], "more": bad},
        warnings=(bad,),
        options={bad: bad},
        status="partial",
        blocks=(BlockRecord(block=0, row=0, col=0, height=60, width=80, outcome="failed", seconds=1, error=bad),),
    )
    page = page_of(tmp_path, record)
    assert page.open == []
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert len(list(page.named("img"))) == 4
    assert " ".join(bad.split()) in page.text


def test_the_key_figures_equal_the_record(make_run: Any, tmp_path: Path):
    record = make_run()
    text = page_of(tmp_path, record).text
    assert "Changed 2.60 ha 260 pixels" in text  # (10 x 20 + 6 x 10) pixels of 100 m²
    assert "Not processed 8.33 % 400 pixels" in text
    assert "Share of compared area 5.91 %" in text
    assert "Change from 2009 to 2017-06" in text


def test_the_matrix_contains_only_classes_that_occur(make_run: Any, tmp_path: Path):
    words = [f"class {i}" for i in range(30)]
    codes = np.zeros((60, 80), np.uint16)
    codes[:10], codes[20:25], codes[30:31] = 3 * 30 + 8, 3 * 30 + 18, 5 * 30 + 8
    text = page_of(tmp_path, make_run(codes, words)).text
    matrix = text[text.index("Transitions") : text.index("Largest polygons")]
    assert (
        "before ↓ after → class 7 class 17 all class 3 8.00 4.00 12.0 class 5 0.80 · 0.80 all 8.80 4.00 12.8" in matrix
    )
    assert "26 classes without change are left out" in matrix


def test_without_class_words_there_is_no_matrix(make_run: Any, tmp_path: Path):
    text = page_of(tmp_path, make_run(words=())).text
    assert "Transitions" not in text
    assert "none: change only" in text


def test_without_change_the_page_says_so(make_run: Any, tmp_path: Path):
    text = page_of(tmp_path, make_run(np.zeros((60, 80), np.uint8))).text
    assert "No change above the threshold of 0.5" in text
    assert "This run made no polygons" in text
    assert "Every pixel of the result grid was processed" in text


def test_the_largest_polygons_come_first_with_their_positions(make_run: Any, tmp_path: Path):
    page = page_of(tmp_path, make_run())
    assert "1 water → water 2.00 ha 0.90" in page.text
    assert page.text.index("water → water 2.00") < page.text.index("field → field 0.60")
    shown = [tag for tag in page.named("button") if tag.get("class") == "show"]
    assert [(tag["data-left"], tag["data-top"]) for tag in shown] == [("25.0", "16.667"), ("56.25", "55.0")]


def test_a_page_without_polygons_says_whether_rows_or_file_are_missing(make_run: Any, tmp_path: Path):
    record = make_run(polygons=0)
    assert "The run made 2 polygons, but changes.gpkg contains none" in page_of(tmp_path, record).text
    (tmp_path / "changes.gpkg").unlink()
    assert "The run made 2 polygons, but changes.gpkg is not in this folder" in page_of(tmp_path, record).text


def test_a_run_without_georeference_reports_pixels(make_run: Any, tmp_path: Path):
    page = page_of(tmp_path, make_run(crs=None, transform=(1, 0, 0, 0, 1, 0)))
    assert "The rasters have no CRS" in page.text
    assert "Changed 260 px" in page.text
    assert "20.0, 10.0" in page.text  # centroid of the largest polygon, column and row
    assert not re.search(r"\d (ha|m²|km²)\b", page.text)
    assert "furniture" not in {tag.get("class") for tag in page.named("div")}


def test_a_partial_run_has_a_banner_and_lists_every_failed_block(make_run: Any, tmp_path: Path):
    record = make_run()
    blocks = tuple(
        block.model_copy(update={"outcome": "failed", "error": "ValueError: no luck"}) if block.block == 5 else block
        for block in record.blocks
    )
    partial = record.model_copy(update={"status": "partial", "blocks": blocks})
    page = page_of(tmp_path, partial)
    assert "This result is partial 1 of 12 blocks failed" in page.text
    assert "5 20, 20 20 × 20 ValueError: no luck" in page.text
    assert any(tag.get("class") == "failed" for tag in page.named("path"))
    assert "partial" not in page_of(tmp_path, record).text


def test_a_page_of_noise_stays_under_three_megabytes(make_run: Any, tmp_path: Path):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 10, (1300, 1300)).astype(np.uint8)
    record = make_run(codes, probability=rng.integers(0, 255, codes.shape).astype(np.uint8))
    path = write_report(tmp_path, record, photo(1200, 1200), photo(1200, 1200, 1))
    assert path.stat().st_size < 3_000_000


def test_the_same_result_gives_the_same_page(make_run: Any, tmp_path: Path):
    record = make_run()
    first = write_report(tmp_path, record, photo(), photo()).read_bytes()
    second = write_report(tmp_path, record, photo(), photo(), tmp_path / "again.html").read_bytes()
    assert first == second


@given(st.integers(1, 40_000), st.floats(0.01, 1000))
def test_a_scale_bar_is_round_and_takes_a_tenth_to_a_quarter(width: int, metres: float):
    from wasnow.output.record import GridRecord

    grid = GridRecord(crs=None, transform=(1, 0, 0, 0, 1, 0), width=width, height=5, gsd_m=metres)
    bar = scale_bar(grid, None)
    assert bar is not None
    assert 9.99 <= bar.percent <= 25.01
    number, unit = bar.label.split()
    length = float(number) * {"km": 1000, "m": 1, "cm": 0.01}[unit]
    assert length == pytest.approx(bar.percent / 100 * width * metres, rel=1e-2)
    assert re.fullmatch(r"0*\.?0*[125]0*", number)


def test_neighbouring_blocks_are_merged_in_the_drawing():
    blocks = [
        BlockRecord(block=i, row=0, col=10 * i, height=10, width=10, outcome=outcome, seconds=0)
        for i, outcome in enumerate(("done", "done", "failed", "done"))
    ]
    assert block_paths(blocks) == {"done": "M0 0h20v10h-20zM30 0h10v10h-10z", "failed": "M20 0h10v10h-10z", "empty": ""}


def test_only_series_over_iterations_become_curves():
    fit: dict[str, Any] = {
        "iterations": 3,
        "correlations": [0.2, 0.5, 0.9],  # one number per band
        "correlation_history": [[0.2, 0.5], [0.3, 0.6], [0.4, 0.7]],
        "trace": [{"delta": 0.5, "note": "a"}, {"delta": 0.1, "note": "b"}],
        "words": ["a", "b"],
        "converged": True,
    }
    found = curves(fit)
    assert [(curve.name, curve.first, curve.last, curve.steps) for curve in found] == [
        ("correlation_history 1", "0.2", "0.4", 3),
        ("correlation_history 2", "0.5", "0.7", 3),
        ("trace.delta", "0.5", "0.1", 2),
    ]


@pytest.mark.parametrize(
    ("square_metres", "text"),
    [
        (0.0, "0 m²"), (999.0, "999 m²"), (15_000.0, "15\u202f000 m²"), (25_000.0, "2.50 ha"),
        (1_234_567.0, "123 ha"), (25e6, "25.0 km²"), (12_345e6, "12\u202f345 km²"),
    ],
)  # fmt: skip
def test_areas_are_written_in_a_suitable_unit(square_metres: float, text: str):
    unit = unit_for(square_metres)
    assert f"{unit.text(square_metres)} {unit.name}" == text


def test_a_share_above_zero_is_never_shown_as_zero():
    assert unit_for(1e9).text(3.0) == "< 0.01"


# --- what a reader should know of the model --------------------------------------------------------------------------


def of_small_model(record: RunRecord, **changes: Any) -> RunRecord:
    """Return the record of a run with the model that comes with wasnow."""
    changed = {
        "name": "semantic-cd-mini",
        "shipped": True,
        "about": "Trained on eight tiles.\nNever saw snow.",
        "gsd_range_m": (0.2, 5.0),
    }
    return record.model_copy(update={"model": record.model.model_copy(update=changed | changes)})


def box(path: Path) -> str:
    """Return the text of the box on the model; empty without one."""
    parts = re.findall(r'<section class="banner about".*?</section>', path.read_text(encoding="utf-8"), re.DOTALL)
    assert len(parts) <= 1
    return Page(parts[0]).text if parts else ""


def test_the_box_on_the_small_model_names_training_data_pixel_sizes_and_a_larger_model(make_run: Any, tmp_path: Path):
    record = of_small_model(make_run())
    text = box(write_report(tmp_path, record, photo(), photo(seed=1)))
    assert text.startswith("Made with the small model that comes with wasnow Trained on eight tiles. Never saw snow.")
    assert "evaluated at pixel sizes of 0.2 to 5 m; this run used 10 m" in text
    assert "A larger model, once trained, is more accurate" in text


def test_a_model_without_a_description_gets_no_box(make_run: Any, tmp_path: Path):
    assert box(write_report(tmp_path, make_run(), photo(), photo(seed=1))) == ""


def test_for_weights_from_elsewhere_no_larger_model_is_suggested(make_run: Any, tmp_path: Path):
    record = of_small_model(make_run(), shipped=False, gsd_range_m=None)
    text = box(write_report(tmp_path, record, photo(), photo(seed=1)))
    assert text == "About this model Trained on eight tiles. Never saw snow."


def test_the_suggested_commands_are_valid(make_run: Any):
    from wasnow.cli import app

    record = of_small_model(
        make_run(paths=("my scenes/a.tif", "b's.tif"), words=(*WORDS, "other")), other_words=("road",)
    )
    about = about_model(record)
    assert about is not None
    parsed = []
    for line in about.commands:
        words = shlex.split(line)
        command = typer.main.get_command(app)
        context = typer.Context(command, info_name=words.pop(0))
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]  # type: ignore[attr-defined]
        # Parses the arguments without running the command.
        parsed.append(command.make_context(command.name, words, parent=context).params)
    assert (parsed[-1]["before"], parsed[-1]["after"]) == ("my scenes/a.tif", "b's.tif")
    assert parsed[-1]["classes"] == "water, building, field"
    assert parsed[-1]["model"] == str(parsed[1]["output"])


def test_the_class_other_is_explained(make_run: Any, tmp_path: Path):
    words = ("water", "building", "other")
    plain = make_run(words=words)
    assert other_text(plain) is None
    record = of_small_model(plain, other_words=("road", "bare ground"))
    text = Page(write_report(tmp_path, record, photo(), photo(seed=1)).read_text(encoding="utf-8")).text
    assert "“other” stands for land cover outside the given class words" in text
    assert text.count("road and bare ground.") == 1


def test_descriptions_from_a_checkpoint_are_escaped(make_run: Any, tmp_path: Path):
    record = of_small_model(make_run(), about=HOSTILE[0], other_words=(HOSTILE[1],))
    page = Page(write_report(tmp_path, record, photo(), photo(seed=1)).read_text(encoding="utf-8"))
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert HOSTILE[0] in page.text
    assert not any("onerror" in attributes for _, attributes in page.tags)


def in_chromium(path: Path, folder: Path) -> tuple[str, set[str]]:
    """Return the document after its script ran, and every external address that the browser requested (all blocked)."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no chromium on PATH")
    log = folder / f"{path.stem}-network.json"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"]
    flags += ["--enable-logging=stderr"]
    flags += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}"]
    command = [browser, *flags, "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    asked = set(re.findall(r'"url":"(?:https?|wss?)://([^/":]+)', log.read_text(encoding="utf-8")))
    own = re.compile(r"(^|\.)(google|googleapis|gstatic|gvt1)\.com$")  # requests of the browser itself
    return done.stdout + done.stderr, {host for host in asked if not own.search(host)}


def test_in_a_browser_the_script_runs_and_nothing_is_requested(make_run: Any, tmp_path: Path):
    path = write_report(tmp_path, make_run(words=HOSTILE[:3]), photo(), photo(seed=1))
    seen, asked = in_chromium(path, tmp_path)
    assert re.search(r'class="viewer live"[^>]*data-mode="change"', seen)  # the script took over the viewer
    assert "Content Security Policy" not in seen  # and nothing was blocked by the policy
    assert asked == set()
    leaky = tmp_path / "leaky.html"
    leaky.write_text("<img src='http://outside.example/x.png'>", encoding="utf-8")
    assert in_chromium(leaky, tmp_path)[1] == {"outside.example"}, "the check would not see a request"


@pytest.mark.real
def test_a_real_pair_becomes_a_page_and_an_item(make_run: Any, tmp_path: Path):
    scene = REAL / "naip-dakota"
    if not scene.is_dir():
        pytest.skip("the development imagery is not here: ../shared/data/naip-dakota")
    with rasterio.open(scene / "2009.tif") as source:
        before = np.moveaxis(source.read([1, 2, 3]), 0, 2)
        crs, transform, shape = source.crs.to_string(), tuple(source.transform)[:6], source.shape
    with rasterio.open(scene / "2017.tif") as source:
        after = np.moveaxis(source.read([1, 2, 3]), 0, 2)
    codes = np.zeros(shape, np.uint8)
    codes[100:200, 300:420] = 2
    record = make_run(codes, crs=crs, transform=transform)
    text = Page(write_report(tmp_path, record, before, after).read_text(encoding="utf-8")).text
    assert "around 47.0" in text
    assert "NAD83 / UTM zone 14N" in text
    assert write_item(tmp_path, record).stat().st_size > 1000
