"""Two rasters in, a result folder out: whole, right, and the same however it came about."""

import json
import shutil
import sqlite3

import numpy as np
import pyogrio
import pytest
import rasterio
from affine import Affine
from rio_cogeo.cogeo import cog_validate

import wasnow
from making import Toy, pair, textured, write_raster
from wasnow.errors import (
    DiskFull,
    InputError,
    Interrupted,
    OutputError,
    RasterUnreadable,
    ResumeRefused,
    UsageError,
    WasnowError,
)
from wasnow.output import writer
from wasnow.output.change_map import ChangeMap
from wasnow.output.layout import OUTPUTS
from wasnow.output.record import RunRecord
from wasnow.pipeline.api import detect


def codes(result: ChangeMap) -> np.ndarray:
    with rasterio.open(result.change) as raster:
        return raster.read()


def damage(path, block: str) -> None:
    """Overwrite one compressed block with zeros."""
    data = bytearray(path.read_bytes())
    with rasterio.open(path) as raster:
        at = int(raster.get_tag_item(f"BLOCK_OFFSET_{block}", "TIFF", bidx=1))
        size = int(raster.get_tag_item(f"BLOCK_SIZE_{block}", "TIFF", bidx=1))
    data[at : at + size] = bytes(size)
    path.write_bytes(data)


TILED = {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate", "interleave": "pixel"}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    return detect(*pair(folder), model=Toy(), output=folder / "out", date_before="2009", date_after="2017-06")


@pytest.fixture(scope="module")
def irmad(tmp_path_factory):
    folder = tmp_path_factory.mktemp("irmad")
    return detect(*pair(folder), output=folder / "out", model="irmad")


def test_the_folder_contains_exactly_the_documented_files(toy):
    assert sorted(path.name for path in toy.folder.iterdir()) == sorted([*OUTPUTS, ".wasnow"])
    assert all((toy.folder / name).stat().st_size for name in OUTPUTS)


@pytest.mark.parametrize("name", ["change.tif", "confidence.tif"])
def test_rasters_are_valid_cogs_on_the_grid_of_before(toy, name):
    valid, errors, warnings = cog_validate(toy.folder / name, strict=True)
    assert (valid, errors, warnings) == (True, [], [])
    with rasterio.open(toy.folder / name) as raster, rasterio.open(toy.record.before.path) as before:
        assert (raster.crs, raster.transform, raster.shape) == (before.crs, before.transform, before.shape)
        assert raster.compression.name == "zstd"
        assert raster.nodata == 255
        expected = {
            "change.tif": ("before_class", "after_class", "transition"),
            "confidence.tif": ("change_probability", "before_class_probability", "after_class_probability"),
        }
        assert raster.descriptions == expected[name]


def test_a_large_result_has_overviews(tmp_path):
    result = detect(*pair(tmp_path, height=700, width=600), output=tmp_path / "out", model=Toy())
    with rasterio.open(result.change) as raster:
        assert raster.overviews(1) == [2]
    assert cog_validate(result.change, strict=True)[0]


def test_the_simulated_change_is_found_and_little_else(toy):
    changed = codes(toy)[2] != 0
    assert changed[28:44, 36:60].mean() > 0.95
    outside = np.ones_like(changed)
    outside[20:52, 28:68] = False
    assert changed[outside].mean() < 0.01


def test_counts_of_raster_record_and_polygons_agree(toy):
    record, found = toy.record, codes(toy)
    table = pyogrio.raw.read(toy.geopackage, layer="changes")
    fields = dict(zip(table[0]["fields"], table[3], strict=True))
    assert record.pixels.total == found[2].size
    assert record.pixels.changed == (found[2] > 0).sum() == fields["n_px"].sum()
    assert record.polygons == len(fields["id"]) == toy.polygons().num_rows
    assert record.pixels.changed + record.pixels.unchanged + sum(record.pixels.not_processed.values()) == found[2].size
    for row in record.transitions:
        assert row.pixels == (found[2] == row.code).sum()
        assert row.polygons == ((fields["from"] == row.before) & (fields["to"] == row.after)).sum()
    assert record.areas_m2 is not None
    assert fields["area_m2"].sum() == pytest.approx(record.areas_m2.changed)
    assert record.areas_m2.changed == pytest.approx(4 * record.pixels.changed, rel=1e-3)
    assert set(fields["date_before"]) == {"2009"}


def test_checksums_in_the_record_are_those_of_the_files(toy):
    import hashlib

    for each in toy.record.outputs:
        data = (toy.folder / each.name).read_bytes()
        assert (each.size, each.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    before = toy.record.before
    assert before.files[0].sha256 == hashlib.sha256(open(before.path, "rb").read()).hexdigest()  # noqa: PTH123, SIM115


def test_the_geopackage_is_valid(toy):
    with sqlite3.connect(toy.geopackage) as base:
        assert base.execute("pragma integrity_check").fetchone() == ("ok",)


def test_the_item_is_json_with_every_file(toy):
    item = json.loads(toy.item.read_text())
    assert item["properties"]["start_datetime"].startswith("2009-01-01")
    assert {asset["href"].removeprefix("./") for asset in item["assets"].values()} == set(OUTPUTS) - {
        "item.json",
        "SHA256SUMS",
    }


def test_a_result_has_a_text_and_an_html_form(toy):
    assert "ha changed" in repr(toy)
    assert "report.html" in toy._repr_html_()
    assert ChangeMap.open(toy.folder).record == toy.record


def test_irmad_needs_no_weights_and_reports_its_fit(irmad):
    assert irmad.record.model.fit is not None
    assert irmad.record.model.fit["iterations"] >= 1
    changed = codes(irmad)[2] == 1
    assert changed[26:46, 34:62].mean() > 0.9
    assert set(np.unique(codes(irmad)[:2])) == {0}
    assert [row.after for row in irmad.record.transitions] == ["changed"]


def test_an_identical_pair_has_no_polygon(tmp_path):
    before, _ = pair(tmp_path)
    for model in ("irmad", "cva", Toy()):
        name = model if isinstance(model, str) else "toy"
        result = detect(before, before, output=tmp_path / name, model=model)
        assert result.record.polygons == 0
        assert result.record.pixels.changed == 0
        assert result.polygons().num_rows == 0
        assert result.report.stat().st_size > 1000


@pytest.mark.parametrize("model", ["irmad", "cva"])
def test_swapping_the_dates_gives_the_same_change(tmp_path, model):
    before, after = pair(tmp_path)
    forth = detect(before, after, output=tmp_path / "forth", model=model)
    back = detect(after, before, output=tmp_path / "back", model=model)
    assert (codes(forth)[2] != codes(back)[2]).mean() < 0.002


def test_shifting_the_origin_shifts_the_map(tmp_path):
    before, after = pair(tmp_path, height=150, width=170)
    whole = codes(detect(before, after, output=tmp_path / "whole", model=Toy()))
    with rasterio.open(before) as one, rasterio.open(after) as other:
        for name, raster in (("b.tif", one), ("a.tif", other)):
            moved = raster.transform @ Affine.translation(11, 7)
            write_raster(tmp_path / name, raster.read()[:, 7:, 11:], transform=moved, photometric="RGB")
    part = codes(detect(tmp_path / "b.tif", tmp_path / "a.tif", output=tmp_path / "part", model=Toy()))
    inner = (slice(None), slice(8, -8), slice(8, -8))
    assert (whole[:, 7:, 11:][inner] != part[inner]).mean() < 0.001


@pytest.mark.parametrize("shape", [(1, 1), (13, 700), (40, 9)])
def test_small_and_thin_images_work(tmp_path, shape):
    for name, seed in (("b.tif", 0), ("a.tif", 1)):
        write_raster(tmp_path / name, textured(seed, *shape).astype(np.uint8), photometric="RGB")
    result = detect(tmp_path / "b.tif", tmp_path / "a.tif", output=tmp_path / "out", model=Toy(stride=8, radius=8))
    assert codes(result).shape == (3, *shape)


def test_images_without_crs_are_compared_by_pixel_with_a_warning(tmp_path):
    result = detect(*pair(tmp_path, crs=None), output=tmp_path / "out", model=Toy())
    assert result.record.grid.crs is None
    assert result.record.areas_m2 is None
    assert result.changed_area_m2 is None
    assert any("not georeferenced" in warning for warning in result.record.warnings)
    assert "px changed" in result.summary()
    with rasterio.open(result.change) as raster:
        assert raster.crs is None


def test_pixels_outside_one_date_are_flagged_with_the_reason(tmp_path):
    before, _ = pair(tmp_path)
    values = textured(0, 96, 128).astype(np.uint8)
    after = write_raster(
        tmp_path / "a.tif", values, transform=Affine(2, 0, 500_100, 0, -2, 5_500_000), photometric="RGB"
    )
    result = detect(before, after, output=tmp_path / "out", model=Toy())
    assert result.record.pixels.not_processed == {"outside the after image": 50 * 96}
    assert (codes(result)[:, :, :50] == 255).all()
    assert result.complete


def test_another_resolution_gives_results_on_the_grid_of_before(tmp_path):
    result = detect(*pair(tmp_path), output=tmp_path / "out", model=Toy(gsd_m=3.0))
    assert codes(result).shape == (3, 96, 128)
    assert result.record.working_grid.gsd_m == pytest.approx(3.0, rel=0.01)
    assert (codes(result)[2] != 0)[28:44, 36:60].mean() > 0.9


def test_sixteen_bit_data_are_stretched_once_for_all_tiles(tmp_path):
    """A stretch per date compensates another gain and offset."""
    for name, gain in (("b.tif", 10), ("a.tif", 23)):
        values = textured(0, 90, 110)
        write_raster(tmp_path / name, (gain * values + 700).astype(np.uint16))
    result = detect(tmp_path / "b.tif", tmp_path / "a.tif", output=tmp_path / "out", model=Toy(tile=32))
    assert result.record.pixels.changed == 0
    assert result.record.before.stretch is not None
    assert result.record.before.stretch[0][0] != 0


# --- resuming ---------------------------------------------------------------------------------------------------


class Stopper:
    """Raises KeyboardInterrupt when a number of blocks are done."""

    def __init__(self, after: int) -> None:
        self.after = after

    def __call__(self, phase: str, done: int, total: int) -> None:
        if phase == "detect" and done >= self.after:
            raise KeyboardInterrupt


def many_blocks(monkeypatch) -> None:
    from wasnow.pipeline import plan

    small = plan.Tiling
    monkeypatch.setattr(plan, "Tiling", lambda *a, **k: small(*a, **k, block_side=32))


@pytest.mark.parametrize("model", ["irmad", "toy"])
def test_an_interrupted_run_continues_to_the_same_bytes(tmp_path, monkeypatch, model):
    many_blocks(monkeypatch)
    paths = pair(tmp_path)
    chosen = Toy(tile=32) if model == "toy" else model
    tile = {} if model == "toy" else {"tile": 32}
    whole = detect(*paths, output=tmp_path / "whole", model=chosen, **tile)
    assert len(whole.record.blocks) > 8
    with pytest.raises(Interrupted, match=r"after 5 of"):
        detect(*paths, output=tmp_path / "out", model=chosen, progress=Stopper(5), **tile)
    assert not (tmp_path / "out" / "change.tif").exists()
    seen = []
    again = detect(*paths, output=tmp_path / "out", model=chosen, progress=lambda p, d, t: seen.append((p, d)), **tile)
    assert ("detect", 5) in seen
    assert ("detect", 4) not in seen
    for name in ("change.tif", "confidence.tif", "changes.gpkg", "changes.parquet"):
        assert (again.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name


def test_a_finished_run_is_not_computed_again(tmp_path):
    paths = pair(tmp_path)
    detect(*paths, output=tmp_path / "out", model=Toy())
    before = (tmp_path / "out" / "run.json").stat().st_mtime_ns
    assert detect(*paths, output=tmp_path / "out", model=Toy()).reused
    assert (tmp_path / "out" / "run.json").stat().st_mtime_ns == before


def test_a_deleted_output_is_written_again(tmp_path):
    paths = pair(tmp_path)
    first = detect(*paths, output=tmp_path / "out", model=Toy())
    data = first.change.read_bytes()
    first.change.unlink()
    assert detect(*paths, output=tmp_path / "out", model=Toy()).change.read_bytes() == data


def test_changed_inputs_options_and_models_are_refused_by_name(tmp_path):
    before, after = pair(tmp_path)
    out = tmp_path / "out"
    with pytest.raises(Interrupted):
        detect(before, after, output=out, model=Toy(), progress=Stopper(0))
    with pytest.raises(ResumeRefused, match=r"option threshold was null, is now 0.7"):
        detect(before, after, output=out, model=Toy(), threshold=0.7)
    with pytest.raises(ResumeRefused, match="model was toy"):
        detect(before, after, output=out, model="irmad")
    shutil.copy(before, after)
    with pytest.raises(ResumeRefused, match=r"after after\.tif was "):
        detect(before, after, output=out, model=Toy())
    assert detect(before, after, output=out, model=Toy(), overwrite=True).complete


def test_results_of_no_run_in_this_folder_are_not_overwritten(tmp_path):
    paths = pair(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "change.tif").write_text("precious")
    with pytest.raises(OutputError, match="which no run of wasnow made there"):
        detect(*paths, output=tmp_path / "out", model=Toy())
    assert (tmp_path / "out" / "change.tif").read_text() == "precious"


# --- faults -----------------------------------------------------------------------------------------------------


def test_a_damaged_block_fails_the_run_with_file_rows_and_reason(tmp_path):
    before, after = pair(tmp_path, **TILED)
    damage(after, "2_1")
    with pytest.raises(RasterUnreadable, match=r"after\.tif: rows .* cannot be read"):
        detect(before, after, output=tmp_path / "out", model=Toy())
    assert not (tmp_path / "out" / "change.tif").exists()


def test_with_keep_going_exactly_the_damage_is_flagged(tmp_path):
    before, after = pair(tmp_path, **TILED)
    damage(after, "2_1")
    result = detect(before, after, output=tmp_path / "out", model=Toy(), keep_going=True)
    assert not result.complete
    assert result.record.pixels.not_processed == {"could not be read": 32 * 32}
    assert (codes(result)[:, 32:64, 64:96] == 255).all()
    failed = [block for block in result.record.blocks if block.outcome == "failed"]
    assert failed
    assert "after.tif" in failed[0].error
    again = detect(before, after, output=tmp_path / "out", model=Toy(), keep_going=True)
    assert not again.reused
    assert not again.complete


def test_a_truncated_file_is_refused_before_anything_is_written(tmp_path):
    before, after = pair(tmp_path, **TILED)
    after.write_bytes(after.read_bytes()[:-2000])
    with pytest.raises(RasterUnreadable, match="truncated"):
        detect(before, after, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_no_partial_result_and_the_run_can_continue(tmp_path, monkeypatch):
    paths = pair(tmp_path)

    def full(source, target, **options):
        target.write_bytes(b"half")
        raise DiskFull(f"{target}: no space left on the disk")

    with monkeypatch.context() as patch:
        patch.setattr(writer, "to_cog", full)
        with pytest.raises(DiskFull):
            detect(*paths, output=tmp_path / "out", model=Toy())
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".wasnow"]
    assert detect(*paths, output=tmp_path / "out", model=Toy()).complete


def test_a_folder_that_cannot_be_created_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        detect(*pair(tmp_path), output=tmp_path / "file" / "out", model=Toy())


def test_an_unknown_option_is_refused_with_a_similar_name(tmp_path):
    with pytest.raises(UsageError, match="did you mean 'threshold'"):
        wasnow.detect("a", "b", output=tmp_path, treshold=0.5)


def test_an_invalid_record_is_refused(tmp_path):
    with pytest.raises(InputError, match="not a finished result folder"):
        RunRecord.read(tmp_path)
    (tmp_path / "run.json").write_text('{"format": 1}')
    with pytest.raises(InputError, match="not a record"):
        ChangeMap.open(tmp_path)


def test_raster_errors_are_input_errors():
    assert issubclass(RasterUnreadable, InputError)
    assert issubclass(DiskFull, WasnowError)
