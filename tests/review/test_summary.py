"""Summaries and clean layers of a reviewed result."""

import json

import pyogrio
import pytest
from typer.testing import CliRunner

from wasnow.cli import app
from wasnow.review.polygons import ReviewedPolygons
from wasnow.review.summary import summarize

RUNNER = CliRunner()


@pytest.fixture
def reviewed(place):
    polygons = ReviewedPolygons(place / "out")
    for row, status in zip(polygons.all(), ("accepted", "rejected", "unsure") * 100, strict=False):
        polygons.decide(row.fid, reviewer="Ann", status=status, reason="shadow" if status == "rejected" else None)
    return polygons


def test_sizes_of_all_statuses_add_up_to_the_candidates(reviewed):
    rows, polygons = summarize(reviewed.all()), reviewed.all()
    assert sum(sum(row.counts.values()) for row in rows) == len(polygons)
    assert sum(sum(row.sizes.values()) for row in rows) == pytest.approx(sum(each.area_m2 for each in polygons))
    assert sum(sum(row.reasons.values()) for row in rows) == sum(row.counts["rejected"] for row in rows)


def test_the_share_that_was_confirmed_leaves_open_polygons_out(reviewed):
    for row in summarize(reviewed.all()):
        decided = row.sizes["accepted"] + row.sizes["rejected"]
        assert row.confirmed_share == (pytest.approx(row.sizes["accepted"] / decided) if decided else None)


@pytest.mark.parametrize("name", ["a.gpkg", "a.geojson", "a.fgb"])
def test_a_clean_layer_holds_exactly_the_polygons_of_its_status(reviewed, tmp_path, name):
    run = RUNNER.invoke(app, ["review", str(reviewed.folder), "--export", str(tmp_path / name)])
    assert run.exit_code == 0, run.output
    accepted = {each.id for each in reviewed.all() if each.status == "accepted"}
    info, _, _, values = pyogrio.raw.read(tmp_path / name, read_geometry=False)
    assert set(dict(zip(info["fields"], values, strict=True))["id"].tolist()) == accepted
    again = RUNNER.invoke(app, ["review", str(reviewed.folder), "--export", str(tmp_path / name)])
    assert again.exit_code == 4
    assert "exists; choose another name" in again.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--export", "a.shp"], "unknown format"),
        (["--export", "a.gpkg", "--status", "fine"], "status 'fine' is unknown"),
    ],
)
def test_an_impossible_export_is_one_line(reviewed, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    run = RUNNER.invoke(app, ["review", str(reviewed.folder), *options])
    assert run.exit_code == 3
    assert message in run.output
    assert list(tmp_path.glob("a.*")) == []


def test_the_summary_is_a_table_or_json(reviewed):
    run = RUNNER.invoke(app, ["review", str(reviewed.folder), "--summary"])
    assert "rejected, shadow:" in run.output
    run = RUNNER.invoke(app, ["review", str(reviewed.folder), "--summary", "--json"])
    assert len(json.loads(run.stdout)) == len(summarize(reviewed.all()))
