"""Decisions on polygons: saved at once, journalled, and never over somebody else's."""

import contextlib
import json
import sqlite3

import numpy as np
import pyogrio
import pytest
import shapely

from making import Toy
from wasnow import detect
from wasnow.errors import InputError, OutputError
from wasnow.output.verify import verify
from wasnow.review.geopackage import geometry_blob, geometry_of
from wasnow.review.polygons import Conflict, ReviewedPolygons


@pytest.fixture
def polygons(place):
    return ReviewedPolygons(place / "out")


def journal(polygons):
    return [json.loads(line) for line in (polygons.folder / "review.jsonl").read_text().splitlines()]


def test_a_decision_is_in_the_geopackage_and_in_the_journal_at_once(polygons):
    first = polygons.all()[0]
    done = polygons.decide(first.fid, reviewer="Ann", status="rejected", reason="shadow")
    table = pyogrio.raw.read(polygons.path, read_geometry=False, where=f"fid = {first.fid}")
    values = dict(zip(table[0]["fields"], (each[0] for each in table[3]), strict=True))
    assert (values["review_status"], values["review_reason"], values["reviewer"]) == ("rejected", "shadow", "Ann")
    assert values["reviewed_at"] == done.reviewed_at
    (line,) = journal(polygons)
    assert line["old"]["review_status"] == "open"
    assert line["new"]["review_status"] == "rejected"


def test_a_decision_made_meanwhile_by_somebody_else_is_not_overwritten(polygons):
    first = polygons.all()[0]
    other = ReviewedPolygons(polygons.folder)
    other.decide(first.fid, reviewer="Ben", status="accepted")
    with pytest.raises(Conflict, match=r"Ben changed polygon \d+ at .* \(accepted\); look at it again"):
        polygons.decide(first.fid, reviewer="Ann", status="rejected", seen=first.reviewed_at or "")
    assert polygons.get(first.fid).reviewer == "Ben"


def test_an_edit_made_in_another_program_is_seen_and_kept(polygons):
    first, second = polygons.all()[:2]
    version = polygons.version()
    with contextlib.closing(sqlite3.connect(polygons.path)) as base:
        base.create_function("ST_IsEmpty", 1, lambda _: 0)
        for name in ("ST_MinX", "ST_MinY", "ST_MaxX", "ST_MaxY"):
            base.create_function(name, 1, lambda _: 0)
        base.execute("UPDATE changes SET review_status = 'accepted', reviewer = 'QGIS' WHERE fid = ?", (first.fid,))
        base.commit()
    assert polygons.version() != version
    polygons.decide(second.fid, reviewer="Ann", status="unsure")
    assert polygons.get(first.fid).reviewer == "QGIS"


def test_a_file_that_another_program_is_writing_is_one_line_and_unchanged(polygons):
    first = polygons.all()[0]
    with contextlib.closing(sqlite3.connect(polygons.path, isolation_level=None)) as base:
        base.execute("BEGIN EXCLUSIVE")
        with pytest.raises(OutputError, match="is being edited by another program"):
            polygons.decide(first.fid, reviewer="Ann", status="accepted")
        base.execute("ROLLBACK")
    assert polygons.get(first.fid).status == "open"


def test_reopening_clears_the_reviewer(polygons):
    first = polygons.all()[0]
    polygons.decide(first.fid, reviewer="Ann", status="accepted")
    again = polygons.decide(first.fid, reviewer="Ann", status="open")
    assert (again.status, again.reviewer, again.reviewed_at) == ("open", None, None)


def test_corrected_classes_are_saved_and_the_old_ones_journalled(polygons):
    first = polygons.all()[0]
    done = polygons.decide(first.fid, reviewer="Ann", status="accepted", before="water", after="field")
    assert (done.before, done.after) == ("water", "field")
    assert journal(polygons)[0]["old"]["to"] == first.after


def test_a_redrawn_outline_changes_area_and_spatial_index(polygons):
    first = max(polygons.all(), key=lambda each: each.n_px)
    old = polygons.geometries([first.fid])[first.fid]
    half = shapely.box(old.bounds[0], old.bounds[1], (old.bounds[0] + old.bounds[2]) / 2, old.bounds[3])
    done = polygons.redraw(first.fid, half, reviewer="Ann")
    assert done.area_m2 == pytest.approx(first.area_m2 * half.area / old.area)
    assert polygons.geometries([first.fid])[first.fid].equals(half)
    with contextlib.closing(sqlite3.connect(polygons.path)) as base:
        index = base.execute("SELECT minx, maxx FROM rtree_changes_geom WHERE id = ?", (first.fid,)).fetchone()
    assert index == pytest.approx((half.bounds[0], half.bounds[2]), rel=1e-6)


def test_an_outline_that_crosses_itself_is_repaired_and_one_without_area_is_rejected(polygons):
    first = polygons.all()[0]
    x, y = first.bounds[:2]
    bow = shapely.Polygon([(x, y), (x + 10, y + 10), (x + 10, y), (x, y + 10)])
    assert polygons.redraw(first.fid, bow, reviewer="Ann")
    assert polygons.geometries([first.fid])[first.fid].is_valid
    with pytest.raises(InputError, match="the outline has no area"):
        polygons.redraw(first.fid, shapely.Polygon([(x, y), (x + 1, y + 1), (x + 2, y + 2)]), reviewer="Ann")


def test_the_parts_of_a_split_polygon_cover_it_and_share_its_area(polygons):
    first = max(polygons.all(), key=lambda each: each.n_px)
    old = polygons.geometries([first.fid])[first.fid]
    middle = (old.bounds[0] + old.bounds[2]) / 2
    line = shapely.LineString([(middle, old.bounds[1] - 1), (middle, old.bounds[3] + 1)])
    parts = polygons.split(first.fid, line, reviewer="Ann")
    assert len(parts) >= 2
    assert len({each.id for each in polygons.all()}) == len(polygons.all())
    assert sum(each.area_m2 for each in parts) == pytest.approx(first.area_m2)
    shapes = polygons.geometries([each.fid for each in parts])
    assert shapely.union_all(list(shapes.values())).area == pytest.approx(old.area)
    assert pyogrio.read_info(polygons.path)["features"] == len(polygons.all())
    with pytest.raises(InputError, match="the line does not cut the polygon"):
        polygons.split(first.fid, shapely.LineString([(0, 0), (1, 1)]), reviewer="Ann")


def test_merged_polygons_are_one_and_the_journal_keeps_their_outlines(polygons):
    first = max(polygons.all(), key=lambda each: each.n_px)
    old = polygons.geometries([first.fid])[first.fid]
    middle = (old.bounds[0] + old.bounds[2]) / 2
    line = shapely.LineString([(middle, old.bounds[1] - 1), (middle, old.bounds[3] + 1)])
    parts = polygons.split(first.fid, line, reviewer="Ann")
    before = len(polygons.all())
    whole = polygons.merge([each.fid for each in parts], reviewer="Ann")
    assert whole.area_m2 == pytest.approx(first.area_m2)
    assert len(polygons.all()) == before - len(parts) + 1
    assert len(journal(polygons)[-1]["old"]["geoms"]) == len(parts)
    with pytest.raises(InputError, match="at least two polygons"):
        polygons.merge([whole.fid], reviewer="Ann")


@pytest.mark.parametrize(
    "shape", [shapely.box(1, 2, 3, 5), shapely.MultiPolygon([shapely.box(0, 0, 1, 1), shapely.box(2, 2, 3, 4)])]
)
def test_geometry_blobs_are_read_by_gdal_and_by_us(shape, tmp_path):
    assert geometry_of(geometry_blob(shape, 4326)).equals(shape)
    path = tmp_path / "one.gpkg"
    pyogrio.raw.write(
        path, geometry=np.array([shapely.to_wkb(shape)], object), field_data=[np.array([1])], fields=["id"], layer="a",
        driver="GPKG", geometry_type="Unknown", crs="EPSG:4326",
    )  # fmt: skip
    with contextlib.closing(sqlite3.connect(path)) as base:
        assert geometry_of(base.execute("SELECT geom FROM a").fetchone()[0]).equals(shape)


def test_a_folder_without_polygons_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"changes\.gpkg: no such file"):
        ReviewedPolygons(tmp_path)
    (tmp_path / "changes.gpkg").write_text("no database")
    with pytest.raises(InputError, match="not a readable GeoPackage"):
        ReviewedPolygons(tmp_path)


def test_a_reviewed_folder_is_verified_and_never_computed_again(polygons, place):
    rows = polygons.all()
    for row in rows:
        polygons.decide(row.fid, reviewer="Ann", status="accepted")
    verdict = verify(polygons.folder)
    assert verdict.sound, [str(each) for each in verdict.findings]
    assert any(f"polygons reviewed: {len(rows)}" in note for note in verdict.notes)
    polygons.decide(rows[0].fid, reviewer="Ann", status="accepted", before="water", after="field")
    assert verify(polygons.folder).sound
    result = detect(place / "before.tif", place / "after.tif", output=polygons.folder, model=Toy(), min_area=100)
    assert result.reused
    assert {row.status for row in polygons.all()} == {"accepted"}
