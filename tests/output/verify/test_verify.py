"""wasnow verify finds missing, changed, damaged and contradictory files in a result folder, and nothing else."""

import hashlib
import json
import shutil
import sqlite3
import subprocess
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.errors import RasterioError
from typer.testing import CliRunner

from making import Toy, pair, textured, write_raster
from wasnow.cli import app
from wasnow.errors import InputError, Interrupted
from wasnow.output.layout import LANDCOVER_OUTPUTS, OUTPUTS
from wasnow.output.record import RunRecord
from wasnow.output.verify import verify
from wasnow.pipeline.api import detect
from wasnow.storage.journal import workspace


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A result folder with classes, class maps, pixels without data, and overviews."""
    folder = tmp_path_factory.mktemp("made")
    before = np.clip(textured(0, 560, 540), 1, 255)
    after = before.copy()
    after[:, 100:160, 100:200] = 235
    after[:, 300:330, 40:60] = 20
    after[:, 400:440, 400:500] = 0
    paths = [
        write_raster(folder / f"{name}.tif", values.astype(np.uint8), photometric="RGB", nodata=0)
        for name, values in (("before", before), ("after", after))
    ]
    detect(*paths, output=folder / "out", model=Toy(tile=200), landcover=True, command=("wasnow", "detect", "a", "b"))
    return folder / "out"


@pytest.fixture
def out(made, tmp_path):
    """A copy that tests may change."""
    return shutil.copytree(made, tmp_path / "out")


def states(verdict):
    return sorted({(each.file, each.state) for each in verdict.findings})


def with_new_sums(folder):
    """Write a new SHA256SUMS and new checksums in run.json, as someone would who hides a change."""
    path = folder / "run.json"
    record = json.loads(path.read_text())
    for each in record["outputs"]:
        data = (folder / each["name"]).read_bytes()
        each["size"], each["sha256"] = len(data), hashlib.sha256(data).hexdigest()
    path.write_text(json.dumps(record))
    item = json.loads((folder / "item.json").read_text())
    for asset in item["assets"].values():
        data = (folder / asset["href"]).read_bytes()
        asset["file:checksum"], asset["file:size"] = "1220" + hashlib.sha256(data).hexdigest(), len(data)
    (folder / "item.json").write_text(json.dumps(item))
    names = sorted(each.name for each in folder.iterdir() if each.name not in ("SHA256SUMS", ".wasnow"))
    sums = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (folder / "SHA256SUMS").write_text("".join(sums))
    return folder


# --- what is right ----------------------------------------------------------------------------------------------


def test_every_file_of_a_finished_folder_is_valid(made):
    verdict = verify(made, inputs=True)
    assert verdict.sound
    assert verdict.findings == verdict.notes == ()
    assert sorted(verdict.right) == sorted([*OUTPUTS, *LANDCOVER_OUTPUTS])


@pytest.mark.parametrize(
    "options",
    [
        {"model": "cva"},
        {"model": Toy(), "min_area": 200.0, "connectivity": 8},
        {"model": Toy(), "simplify": 3.0},
        {"model": Toy(classes=tuple(f"kind {number}" for number in range(20)))},
        {"model": Toy(), "grid": "working", "gsd": 4.0, "blend": True},
    ],
    ids=["no classes", "small polygons left out", "simplified", "16 bits", "another grid"],
)
def test_runs_with_other_options_are_valid(tmp_path, options):
    detect(*pair(tmp_path), output=tmp_path / "out", **options)
    assert verify(tmp_path / "out").findings == ()


def test_a_run_without_crs_is_valid(tmp_path):
    detect(*pair(tmp_path, crs=None), output=tmp_path / "out", model=Toy())
    assert verify(tmp_path / "out").findings == ()


def test_a_run_with_flagged_damage_is_valid_with_a_note(tmp_path):
    before, after = pair(tmp_path, height=96, width=128, tiled=True, blockxsize=32, blockysize=32, compress="deflate")
    with rasterio.open(after) as raster:
        at = int(raster.get_tag_item("BLOCK_OFFSET_1_1", "TIFF", bidx=1))
        size = int(raster.get_tag_item("BLOCK_SIZE_1_1", "TIFF", bidx=1))
    data = bytearray(after.read_bytes())
    data[at : at + size] = bytes(size)
    after.write_bytes(data)
    detect(before, after, output=tmp_path / "out", model=Toy(), keep_going=True)
    verdict = verify(tmp_path / "out")
    assert verdict.sound
    assert "could not be read" in verdict.notes[0]


def test_sha256sum_accepts_the_checksums(made):
    if shutil.which("sha256sum") is None:
        pytest.skip("no sha256sum on this machine")
    done = subprocess.run(["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=made, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(OUTPUTS) + len(LANDCOVER_OUTPUTS) - 1


def test_verify_writes_nothing(out):
    def all_of_it():
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in out.rglob("*") if path.name != "lock"}

    before = all_of_it()
    verify(out)
    assert all_of_it() == before


# --- what is missing or changed ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*OUTPUTS, *LANDCOVER_OUTPUTS])
def test_every_missing_file_is_found(out, name):
    (out / name).unlink()
    found = states(verify(out))
    assert (name, "unfinished" if name == "run.json" else "missing") in found


@pytest.mark.parametrize("name", [*OUTPUTS, *LANDCOVER_OUTPUTS])
def test_one_flipped_bit_anywhere_is_found(out, name):
    @settings(max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.randoms(use_true_random=False))
    def flipped(random):
        data = bytearray((out / name).read_bytes())
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
        whole = (out / name).read_bytes()
        (out / name).write_bytes(data)
        try:
            found = verify(out)
        finally:
            (out / name).write_bytes(whole)
        assert not found.sound
        if name not in ("run.json", "SHA256SUMS"):
            assert (name, "changed") in states(found)

    flipped()


@pytest.mark.parametrize("name", [*OUTPUTS, *LANDCOVER_OUTPUTS])
def test_a_truncated_file_is_found(out, name):
    data = (out / name).read_bytes()
    for share in (0.0, 0.99):
        (out / name).write_bytes(data[: int(len(data) * share)])
        assert name in {each.file for each in verify(out).findings}


def test_without_the_list_of_checksums_those_of_the_record_are_used(out):
    (out / "SHA256SUMS").unlink()
    data = bytearray((out / "confidence.tif").read_bytes())
    data[-1] ^= 1
    (out / "confidence.tif").write_bytes(data)
    assert {("SHA256SUMS", "missing"), ("confidence.tif", "changed")} <= set(states(verify(out)))


@pytest.mark.parametrize("line", ["../before.tif", "/etc/passwd", "..", "a\\b"])
def test_checksums_of_files_outside_the_folder_are_rejected(out, line):
    (out / "SHA256SUMS").write_text(f"{'0' * 64}  {line}\n")
    assert ("SHA256SUMS", "not valid") in states(verify(out))
    assert not any("passwd" in each.detail for each in verify(out).findings)


def test_a_link_instead_of_a_file_is_found(out, tmp_path):
    (out / "report.html").rename(tmp_path / "elsewhere.html")
    (out / "report.html").symlink_to(tmp_path / "elsewhere.html")
    assert ("report.html", "missing") in states(verify(out))


def test_reviewed_polygons_are_a_note_with_their_number(out):
    edit_gpkg(out, "UPDATE changes SET review_status = 'accepted', reviewer = 'me' WHERE id = 1")
    verdict = verify(out)
    assert verdict.sound
    assert "changes.gpkg: polygons reviewed: 1" in verdict.notes


@pytest.mark.parametrize("name", ["confidence.tif.aux.xml", "change.tif.ovr", "change.tif.msk", "changes.gpkg-journal"])
def test_a_foreign_file_that_gdal_or_sqlite_reads_is_found(out, name):
    (out / name).write_bytes(b"")
    assert (name, "not listed") in states(verify(out))


def statistics_of(path):
    """Let GDAL store statistics in the sidecar of a raster, as QGIS does when it shows one."""
    with rasterio.open(path) as raster:
        for band in raster.indexes:
            raster.statistics(band, approx=False, clear_cache=True)


@pytest.mark.filterwarnings("ignore:statistics")
def test_statistics_that_a_viewer_stores_beside_the_rasters_are_no_fault(out):
    for name in ("change.tif", "confidence.tif", "landcover_before.tif"):
        before = (out / f"{name}.aux.xml").read_bytes() if name != "confidence.tif" else b""
        statistics_of(out / name)
        assert (out / f"{name}.aux.xml").read_bytes() != before
    verdict = verify(out)
    assert verdict.findings == ()
    assert any("statistics" in note for note in verdict.notes)


@pytest.mark.filterwarnings("ignore:statistics")
def test_a_changed_legend_beside_statistics_is_a_fault(out):
    statistics_of(out / "change.tif")
    path = out / "change.tif.aux.xml"
    path.write_text(path.read_text().replace("<F>building</F>", "<F>forest</F>"))
    assert states(verify(out)) == [("change.tif.aux.xml", "changed")]


def test_working_files_of_sqlite_are_no_fault_and_pending_edits_are_noted(out):
    (out / "changes.gpkg-shm").write_bytes(bytes(32768))
    (out / "changes.gpkg-wal").write_bytes(b"")
    (out / "project.qgz").write_bytes(b"PK")
    assert verify(out).findings == ()
    (out / "changes.gpkg-wal").write_bytes(b"x" * 64)
    verdict = verify(out)
    assert verdict.findings == ()
    assert any("edits that are not yet in the file" in note for note in verdict.notes)


def test_a_geopackage_that_a_program_rewrote_is_changed_without_a_changed_polygon(out):
    edit_gpkg(out, "CREATE TABLE qgis_projects (name TEXT)")
    (finding,) = verify(out).findings
    assert "no polygon differs" in finding.detail


@pytest.mark.parametrize(
    ("statement", "counted"),
    [
        ("UPDATE changes SET review_status = 'rejected', n_px = n_px + (id = 1)", "reviewed: {others}, changed: 1"),
        ("UPDATE changes SET \"to\" = 'forest' WHERE id = 1", "changed: 1"),
        ("DELETE FROM changes WHERE id = 2", "removed: 1"),
        ("UPDATE changes SET id = 999 WHERE id = 2", "added: 1, removed: 1"),
    ],
)
def test_edits_of_polygons_are_counted(out, statement, counted):
    polygons = RunRecord.read(out).polygons
    edit_gpkg(out, statement)
    (detail,) = [each.detail for each in verify(out).findings if each.state == "changed"]
    assert counted.format(others=polygons - 1) in detail


def test_an_unrelated_file_is_only_a_note(out):
    (out / "notes.txt").write_text("seen by me")
    verdict = verify(out)
    assert verdict.sound
    assert "notes.txt" in verdict.notes[0]


def test_changed_and_missing_inputs_are_found_on_request(out, tmp_path):
    record = RunRecord.read(out)
    moved = tmp_path / "after.tif"
    shutil.copy(record.after.path, moved)
    with moved.open("ab") as file:
        file.write(b"x")
    text = (out / "run.json").read_text()
    changed = text.replace(json.dumps(record.after.path), json.dumps(str(moved)))
    (out / "run.json").write_text(changed.replace(json.dumps(record.before.path), json.dumps("gone/before.tif")))
    with_new_sums(out)
    assert verify(out).sound
    assert states(verify(out, inputs=True)) == [("after after.tif", "changed"), ("before before.tif", "missing")]


# --- faults with valid checksums -----------------------------------------------------------


def rewritten(path, change, **profile):
    """Replace a COG by one with other pixels."""
    with rasterio.open(path) as raster:
        values, kept, names, tags = raster.read(), raster.profile, raster.descriptions, raster.tags()
    values = change(values)
    raw = path.with_suffix(".raw")
    options = {**kept, "driver": "GTiff", "compress": "none", "count": len(values), "dtype": values.dtype, **profile}
    with rasterio.open(raw, "w", **{k: v for k, v in options.items() if k not in ("predictor", "overviews")}) as raster:
        raster.write(values)
        for band, name in enumerate(names[: len(values)], 1):
            raster.set_band_description(band, name)
        raster.update_tags(**tags)
    from wasnow.raster.write import to_cog

    path.unlink()
    to_cog(raw, path, overviews="nearest", predictor=False)
    raw.unlink()


def put(value, bands=slice(None), at=(slice(0, 3), slice(0, 5))):
    def change(values):
        values[(bands, *at)] = value
        return values

    return change


@pytest.mark.parametrize(
    ("name", "change", "profile", "said"),
    [
        ("change.tif", put(99, 2), {}, "invalid transition codes"),
        ("change.tif", put(1, 0), {}, "contradict each other"),
        ("change.tif", put(0, at=(slice(100, 160), slice(100, 200))), {}, "changed pixels"),
        ("change.tif", put(255), {}, "not processed"),
        ("change.tif", lambda v: v[:, :-1], {"height": 559}, "rows is 559"),
        ("change.tif", lambda v: v[:2], {}, "bands is"),
        ("change.tif", lambda v: v.astype(np.uint16), {"nodata": 255}, "type is uint16"),
        ("change.tif", lambda v: v, {"nodata": 254}, "nodata is 254"),
        ("change.tif", lambda v: v, {"crs": "EPSG:32633"}, "CRS is EPSG:32633"),
        ("change.tif", lambda v: v, {"transform": rasterio.Affine(2, 0, 500_001, 0, -2, 5_500_000)}, "transform is"),
        ("confidence.tif", put(255), {}, "at other pixels than change.tif"),
        ("landcover_after.tif", put(0), {}, "invalid class codes"),
        ("landcover_after.tif", lambda v: v % 3 + (v < 250), {}, "another class than change.tif"),
        ("landcover_before.tif", put(255), {}, "not processed at other pixels"),
    ],
)
def test_a_raster_that_contradicts_the_record_is_not_valid_despite_new_checksums(out, name, change, profile, said):
    rewritten(out / name, change, **profile)
    findings = verify(with_new_sums(out)).findings
    assert {each.state for each in findings} == {"not valid"}
    assert any(each.file == name and said in each.detail for each in findings), findings


def test_a_raster_that_is_not_a_cog_is_not_valid(out):
    with rasterio.open(out / "change.tif") as raster:
        values, profile = raster.read(), raster.profile
    aux = (out / "change.tif.aux.xml").read_bytes()
    with rasterio.open(out / "change.tif", "w", **{**profile, "compress": "deflate"}) as raster:
        raster.write(values)
        for band, name in enumerate(("before_class", "after_class", "transition"), 1):
            raster.set_band_description(band, name)
    (out / "change.tif.aux.xml").write_bytes(aux)
    findings = verify(with_new_sums(out)).findings
    assert any("layout is plain" in each.detail for each in findings)


@pytest.mark.parametrize("name", ["change.tif", "confidence.tif", "landcover_before.tif"])
def test_a_block_that_cannot_be_decoded_is_named_with_rows_and_columns(out, name):
    with rasterio.open(out / name) as raster:
        at = int(raster.get_tag_item("BLOCK_OFFSET_1_1", "TIFF", bidx=1))
        size = int(raster.get_tag_item("BLOCK_SIZE_1_1", "TIFF", bidx=1))
    data = bytearray((out / name).read_bytes())
    data[at : at + size] = bytes(size)
    (out / name).write_bytes(data)
    with pytest.raises(RasterioError), rasterio.open(out / name) as raster:
        raster.read()
    found = [each.detail for each in verify(with_new_sums(out)).findings if each.file == name]
    assert any("cannot be decoded" in detail and "rows 0 to 559" in detail for detail in found)


def test_a_damaged_overview_is_found(out):
    with rasterio.open(out / "change.tif", overview_level=0) as raster:
        assert raster.shape == (280, 270)
    with rasterio.open(out / "change.tif") as raster:
        at = int(raster.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1, ovr=0))
        size = int(raster.get_tag_item("BLOCK_SIZE_0_0", "TIFF", bidx=1, ovr=0))
    data = bytearray((out / "change.tif").read_bytes())
    data[at : at + size] = bytes(size)
    (out / "change.tif").write_bytes(data)
    assert ["overview 1 of 1" in each.detail for each in verify(with_new_sums(out)).findings] == [True]


def edit_gpkg(out, statement):
    with sqlite3.connect(out / "changes.gpkg") as base:
        for (name,) in base.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            base.execute(f'DROP TRIGGER "{name}"')
        base.execute(statement)
    base.close()


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE changes SET \"to\" = 'dragon' WHERE id = 1", "unknown class words"),
        ("UPDATE changes SET p_change = 1.5 WHERE id = 1", "p_change outside 0..1"),
        ("UPDATE changes SET area_m2 = area_m2 * 2 WHERE id = 1", "square metres"),
        ("UPDATE changes SET n_px = n_px + 1 WHERE id = 1", "another size than their pixels"),
        ("DELETE FROM changes WHERE id = 1", "polygons, "),
        ("ALTER TABLE changes RENAME COLUMN edge TO rim", "has the columns"),
        ("UPDATE changes SET geom = (SELECT geom FROM changes WHERE id = 2) WHERE id = 1", "another size"),
        ("DROP TABLE changes", "cannot be read"),
    ],
)
def test_polygons_that_contradict_the_record_are_not_valid(out, statement, said):
    edit_gpkg(out, statement)
    findings = [each for each in verify(with_new_sums(out)).findings if each.file == "changes.gpkg"]
    assert {each.state for each in findings} == {"not valid"}
    assert any(said in each.detail for each in findings), findings


def test_a_geoparquet_with_a_missing_row_is_not_valid(out):
    table = pq.read_table(out / "changes.parquet")
    pq.write_table(table.slice(1), out / "changes.parquet")
    details = [each.detail for each in verify(with_new_sums(out)).findings if each.file == "changes.parquet"]
    assert any("in run.json" in detail for detail in details)


def test_an_outline_that_crosses_itself_is_not_valid(out):
    import shapely

    bow = shapely.from_wkt("POLYGON((500010 5499990, 500020 5499980, 500020 5499990, 500010 5499980, 500010 5499990))")
    table = pq.read_table(out / "changes.parquet")
    column = [shapely.to_wkb(bow), *table["geometry"].to_pylist()[1:]]
    place = table.schema.get_field_index("geometry")
    import pyarrow as pa

    edited = table.set_column(place, "geometry", pa.array(column, pa.binary()))
    pq.write_table(edited.replace_schema_metadata(table.schema.metadata), out / "changes.parquet")
    details = [each.detail for each in verify(with_new_sums(out)).findings]
    assert "outlines that are not valid polygons (id 1)" in details


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("report.html", "<body", "<body><img src='https://a.example/x.png'><div", "external reference"),
        ("report.html", "</style>", "body{background:url(//a.example/x)}</style>", "external reference"),
        ("report.html", "</html>", "", "not a complete page"),
        ("item.json", '"./change.tif"', '"../change.tif"', "not a file of this folder"),
        ("item.json", '"Feature"', '"Fixture"', "not a STAC item"),
        ("item.json", "{", "", "cannot be read"),
        ("change.tif.aux.xml", "</PAMDataset>", "", "cannot be read"),
        ("change.tif.aux.xml", 'band="3"', 'band="9"', "no attribute table"),
        ("change.qml", "<qgis", "<qgjs", "cannot be read"),
        ("landcover_after.tif.aux.xml", 'c1="', 'c1="1', "colours"),
    ],
)
def test_a_wrong_text_file_is_not_valid(out, name, old, new, said):
    text = (out / name).read_text()
    assert old in text
    (out / name).write_text(text.replace(old, new, 1) if old != 'c1="' else text.replace(old, new))
    if name != "item.json":
        with_new_sums(out)
    found = [each for each in verify(out).findings if each.file == name]
    assert any(said in each.detail and each.state == "not valid" for each in found), found


def test_a_record_with_wrong_counts_is_found(out):
    record = json.loads((out / "run.json").read_text())
    record["pixels"]["unchanged"] += 1
    record["transitions"][0]["pixels"] -= 1
    (out / "run.json").write_text(json.dumps(record))
    details = " ".join(each.detail for each in verify(with_new_sums(out)).findings)
    assert "unchanged pixels" in details
    assert "pixels of transition" in details


# --- folders without finished results ------------------------------------------------------------------------


def test_an_unfinished_run_is_reported_with_its_progress_and_how_to_resume(tmp_path, monkeypatch):
    from wasnow.pipeline import api

    def stop(phase, done, total):
        if phase == "detect" and done == 4:
            raise KeyboardInterrupt

    small = api.make_plan

    def in_small_blocks(*given, **options):
        from wasnow.raster.tiles import Tiling

        plan = small(*given, **options)
        t = plan.tiling
        return replace(plan, tiling=Tiling(t.height, t.width, tile=t.tile, margin=t.margin, stride=1, block_side=32))

    monkeypatch.setattr(api, "make_plan", in_small_blocks)
    with pytest.raises(Interrupted):
        detect(*pair(tmp_path), output=tmp_path / "out", model=Toy(tile=32), progress=stop)
    (finding,) = verify(tmp_path / "out").findings
    assert finding.state == "unfinished"
    assert finding.detail.startswith("4 ")
    assert "run the same wasnow detect command again" in finding.detail
    with workspace(tmp_path / "out") as space:
        space.expect(12)
        (finding,) = verify(tmp_path / "out").findings
        assert finding.detail.startswith("4 of 12 blocks are done, and process ")
        assert "is running" in finding.detail


@pytest.mark.parametrize("what", ["gone", "empty", "file"])
def test_other_folders_are_refused(tmp_path, what):
    place = tmp_path / what
    if what == "empty":
        place.mkdir()
    if what == "file":
        place.write_text("x")
    with pytest.raises(InputError, match=r"no such folder|not a result folder"):
        verify(place)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300), name=st.sampled_from(["run.json", "SHA256SUMS", "item.json", "summary.json"]))
def test_no_file_content_raises_an_error(made, tmp_path_factory, data, name):
    folder = tmp_path_factory.mktemp("fuzz") / "out"
    folder.mkdir()
    for each in ("run.json", "SHA256SUMS", "item.json"):
        shutil.copy(made / each, folder / each)
    (folder / name).write_bytes(data)
    assert not verify(folder).sound


# --- the command ------------------------------------------------------------------------------------------------


def run(*arguments):
    return CliRunner().invoke(app, ["verify", *map(str, arguments)])


def test_the_command_prints_one_line_per_finding_and_exits_with_6(made, out, tmp_path):
    (out / "report.html").unlink()
    (out / "change.qml").write_text("x")
    done = run(made, out)
    assert done.exit_code == 6, done.output
    lines = done.stdout.splitlines()
    assert f"{made}: all {len(OUTPUTS) + len(LANDCOVER_OUTPUTS)} files are valid" in lines
    assert any(line.startswith(f"{out}/report.html: missing") for line in lines)
    assert any(line.startswith(f"{out}/change.qml: changed: 1 bytes") for line in lines)
    assert any("to compute it again" in line and "wasnow detect a b" in line for line in lines)


def test_valid_folders_exit_with_0_and_other_folders_with_3(made, tmp_path):
    assert run(made, "--quiet").exit_code == 0
    done = run(made, tmp_path / "gone", "--json")
    assert done.exit_code == 3
    facts = json.loads(done.stdout)
    assert [each["sound"] for each in facts["folders"]] == [True]
    assert "no such folder" in facts["no_result_folders"][0]


def test_rasters_without_crs_are_verified_without_library_warnings(tmp_path, recwarn):
    paths = [
        write_raster(tmp_path / f"{name}.tif", textured(seed, 64, 64).astype(np.uint8), crs=None, transform=None)
        for seed, name in enumerate(("before", "after"))
    ]
    recwarn.clear()
    detect(*paths, output=tmp_path / "out", model=Toy())
    assert verify(tmp_path / "out").sound
    assert [str(one.message) for one in recwarn if "geo" in str(one.message).lower()] == []


# --- while a run is writing -------------------------------------------------------------------------------------


def test_a_run_that_is_starting_is_unfinished(tmp_path):
    with workspace(tmp_path / "out"):
        (finding,) = verify(tmp_path / "out").findings
    assert (finding.file, finding.state) == ("run.json", "unfinished")
    assert "is running: verify again when it has finished" in finding.detail


def test_results_that_are_being_replaced_are_unfinished_at_every_step(tmp_path):
    before, after = pair(tmp_path, height=60, width=80)
    out = tmp_path / "out"
    detect(before, after, output=out, model=Toy(tile=32))
    seen = []

    def look(phase, done, total):
        seen.append({each.state for each in verify(out).findings})

    detect(before, after, output=out, model=Toy(tile=32), overwrite=True, progress=look)
    assert len(seen) > 8
    assert set().union(*seen) == {"unfinished"}
    assert verify(out).sound


@pytest.mark.parametrize("removed", [0, 1, 2, 3])
def test_files_that_vanish_while_they_are_verified_are_no_error(out, monkeypatch, removed):
    from wasnow.output.verify import folder as module

    with workspace(out):
        checks = ["check_files", "check_rasters", "check_polygons", "check_texts"]
        real = getattr(module, checks[removed])

        def vanishing(*given):
            for name in ("change.tif", "changes.gpkg", "item.json", "run.json"):
                (out / name).unlink(missing_ok=True)
            return real(*given)

        monkeypatch.setattr(module, checks[removed], vanishing)
        assert {each.state for each in verify(out).findings} == {"unfinished"}
