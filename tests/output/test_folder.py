"""Runs never replace or delete edited polygons, files of other people, or inputs."""

import shutil
import sqlite3

import numpy as np
import pytest
import rasterio

import wasnow
from making import Toy, pair, textured, write_raster
from wasnow.errors import OutputError, ResumeRefused
from wasnow.output.layout import OUTPUTS
from wasnow.output.record import RunRecord
from wasnow.output.verify import verify
from wasnow.pipeline import identity

MODEL = Toy(tile=32)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    before, after = pair(folder, height=60, width=80)
    wasnow.detect(before, after, output=folder / "out", model=MODEL)
    return folder


@pytest.fixture
def place(made, tmp_path):
    """A copy of the inputs and of the finished folder ``out``, which tests may change."""
    return shutil.copytree(made, tmp_path / "place")


def detect(place, output="out", **options):
    return wasnow.detect(place / "before.tif", place / "after.tif", output=place / output, model=MODEL, **options)


def edit(output, statement="UPDATE changes SET review_status = 'accepted', reviewer = 'me' WHERE id = 1"):
    with sqlite3.connect(output / "changes.gpkg") as base:
        for (name,) in base.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            base.execute(f'DROP TRIGGER "{name}"')
        base.execute(statement)
    base.close()


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


# --- reviews ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE changes SET review_status = 'rejected', review_reason = '" + "a long reason " * 500 + "'",
        "DELETE FROM changes WHERE id = 1",
    ],
)
def test_repeating_the_command_on_reviewed_polygons_returns_the_finished_result(place, statement):
    edit(place / "out", statement)
    before = content(place / "out")
    assert detect(place).reused
    assert content(place / "out") == before


def test_overwriting_reviewed_polygons_keeps_the_old_file_and_counts_what_it_holds(place):
    edit(place / "out")
    edited = (place / "out" / "changes.gpkg").read_bytes()
    result = detect(place, overwrite=True)
    (kept,) = (place / "out").glob("changes.kept-*.gpkg")
    assert kept.read_bytes() == edited
    assert any("polygons reviewed: 1" in warning and kept.name in warning for warning in result.record.warnings)
    assert verify(place / "out").sound


def test_overwriting_an_unedited_result_keeps_nothing(place):
    detect(place, overwrite=True)
    assert {each.name for each in (place / "out").iterdir()} == {*OUTPUTS, ".wasnow"}


def test_an_incomplete_result_with_reviewed_polygons_is_not_replaced(place):
    edit(place / "out")
    (place / "out" / "confidence.tif").unlink()
    before = content(place / "out")
    with pytest.raises(OutputError, match=r"changes\.gpkg was edited .*polygons reviewed: 1.*--overwrite"):
        detect(place)
    assert content(place / "out") == before


def test_an_incomplete_result_without_edits_is_completed(place):
    (place / "out" / "confidence.tif").unlink()
    assert not detect(place).reused
    assert verify(place / "out").sound


def test_pending_edits_in_a_write_ahead_log_count(place):
    base = sqlite3.connect(place / "out" / "changes.gpkg")
    for (name,) in base.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        base.execute(f'DROP TRIGGER "{name}"')
    base.execute("PRAGMA journal_mode = WAL")
    base.execute("UPDATE changes SET review_status = 'accepted' WHERE id = 1")
    base.commit()
    shutil.copytree(place / "out", place / "copied")
    base.close()
    (place / "copied" / "confidence.tif").unlink()
    with pytest.raises(OutputError, match="polygons reviewed: 1"):
        detect(place, output="copied")


# --- viewers ----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:statistics")
def test_statistics_of_a_viewer_beside_inputs_and_results_change_neither_identity_nor_completeness(place):
    for path in (place / "before.tif", place / "out" / "change.tif", place / "out" / "confidence.tif"):
        with rasterio.open(path) as raster:
            raster.statistics(1, approx=False, clear_cache=True)
        assert path.with_name(f"{path.name}.aux.xml").exists()
    (place / "out" / "project.qgz").write_bytes(b"PK")
    assert detect(place).reused
    assert verify(place / "out", inputs=True).findings == ()


def test_a_sidecar_that_changes_the_input_changes_the_identity(place):
    text = '<PAMDataset><PAMRasterBand band="1"><NoDataValue>7</NoDataValue></PAMRasterBand></PAMDataset>'
    (place / "out" / "confidence.tif").unlink()
    (place / "before.tif.aux.xml").write_text(text)
    with pytest.raises(ResumeRefused, match=r"before before\.tif\.aux\.xml"):
        detect(place)


# --- other versions ---------------------------------------------------------------------------------------------


def test_a_finished_result_of_another_version_is_returned_as_it_is(place, monkeypatch):
    before = content(place / "out")
    monkeypatch.setattr(identity.wasnow, "__version__", "99.0")
    assert detect(place).reused
    assert content(place / "out") == before


def test_an_unfinished_result_of_another_version_is_not_resumed(place, monkeypatch):
    (place / "out" / "confidence.tif").unlink()
    monkeypatch.setattr(identity.wasnow, "__version__", "99.0")
    with pytest.raises(ResumeRefused, match=r"wasnow was .*, is now 99\.0"):
        detect(place)


# --- files of other people --------------------------------------------------------------------------------------


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", OUTPUTS)
def test_a_file_of_somebody_else_in_the_output_folder_is_refused_and_kept(place, name, overwrite):
    folder = place / "other"
    folder.mkdir()
    (folder / name).write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"which no run of wasnow made there"):
        detect(place, output="other", overwrite=overwrite)
    assert content(folder) == {name: b"mine"}
    assert [path.name for path in folder.iterdir()] == [name]


def test_a_file_that_appears_during_the_run_is_refused_and_kept(place):
    def interfere(phase, done, total):
        if phase == "results" and done == 1:
            (place / "new" / "report.html").write_bytes(b"mine")

    with pytest.raises(OutputError, match=r"contains report\.html"):
        detect(place, output="new", progress=interfere)
    assert content(place / "new") == {"report.html": b"mine"}
    (place / "new" / "report.html").unlink()
    assert not detect(place, output="new").reused
    assert verify(place / "new").sound


def test_a_result_file_that_somebody_replaced_is_kept_when_overwriting(place):
    (place / "out" / "item.json").write_bytes(b"mine")
    detect(place, overwrite=True)
    (kept,) = (place / "out").glob("item.kept-*.json")
    assert kept.read_bytes() == b"mine"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("link", ["none", "symbolic", "hard"])
def test_an_input_in_the_output_folder_is_never_touched(place, link, overwrite):
    folder = place / "in"
    folder.mkdir()
    shutil.copy(place / "before.tif", folder / "confidence.tif")
    given = folder / "confidence.tif"
    if link != "none":
        given = place / "linked.tif"
        given.symlink_to(folder / "confidence.tif") if link == "symbolic" else given.hardlink_to(
            folder / "confidence.tif"
        )
    data = given.read_bytes()
    with pytest.raises(OutputError, match="is the input"):
        wasnow.detect(given, place / "after.tif", output=folder, model=MODEL, overwrite=overwrite)
    assert (folder / "confidence.tif").read_bytes() == data


def test_a_result_folder_used_as_input_of_a_run_into_itself_is_refused(place):
    with pytest.raises(OutputError, match="is the input"):
        wasnow.detect(
            place / "out" / "confidence.tif", place / "after.tif", output=place / "out", model=MODEL, overwrite=True
        )
    assert verify(place / "out").sound


# --- nothing to compare -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [MODEL, "irmad", "cva", "semantic-cd-mini"], ids=["toy", "irmad", "cva", "mini"])
@pytest.mark.parametrize("empty", ["before", "both"])
def test_a_pair_without_a_valid_pixel_gives_an_empty_flagged_result_with_a_warning(tmp_path, empty, model):
    paths = []
    for seed, name in enumerate(("before", "after")):
        values = np.clip(textured(seed, 60, 80), 1, 255).astype(np.uint8)
        if empty in (name, "both"):
            values[:] = 0
        paths.append(write_raster(tmp_path / f"{name}.tif", values, photometric="RGB", nodata=0))
    result = wasnow.detect(*paths, output=tmp_path / "out", model=model)
    pixels = RunRecord.read(tmp_path / "out").pixels
    assert (pixels.changed, pixels.unchanged, sum(pixels.not_processed.values())) == (0, 0, 60 * 80)
    assert any("no pixel is valid at both dates" in warning for warning in result.record.warnings)
    assert result.complete
    assert verify(tmp_path / "out").sound
