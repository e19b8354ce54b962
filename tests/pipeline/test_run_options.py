"""Class maps, class thresholds and calibration in the result folder."""

import itertools
import json
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import rasterio
from rio_cogeo.cogeo import cog_validate

from making import Toy, pair
from wasnow.errors import Interrupted, ResumeRefused, UsageError
from wasnow.models.calibration import Calibration
from wasnow.models.contract import ModelCard, WeightsInfo
from wasnow.output.change_map import ChangeMap
from wasnow.output.layout import LANDCOVER, LANDCOVER_OUTPUTS, OUTPUTS
from wasnow.output.record import RunRecord
from wasnow.pipeline.api import detect

MANY = tuple(f"class {number}" for number in range(1, 21))


class Calibrated(Toy):
    """A toy with fitted temperatures."""

    @property
    def card(self) -> ModelCard:
        fitted = Calibration(
            change_temperature=2.0,
            class_temperature=1.5,
            ece_change_before=0.081,
            ece_change_after=0.0124,
            ece_class_before=0.2,
            ece_class_after=None,
            split="val",
            pairs=12,
        )
        return replace(super().card, weights=WeightsInfo(fingerprint="toy, calibrated", calibration=fitted))


def read(path) -> np.ndarray:
    with rasterio.open(path) as raster:
        return raster.read()


def words_of(result: ChangeMap) -> str:
    """The text of the report, one space between words."""
    parts: list[str] = []
    parser = HTMLParser()
    parser.handle_data = parts.append  # type: ignore[method-assign]
    parser.feed(result.report.read_text(encoding="utf-8"))
    return " ".join(" ".join(parts).split())


@pytest.fixture(scope="module")
def covered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("covered")
    return detect(*pair(folder), model=Toy(), output=folder / "out", landcover=True)


def test_class_maps_are_additional_files_and_do_not_change_the_others(covered, tmp_path):
    assert sorted(path.name for path in covered.folder.iterdir()) == sorted([*OUTPUTS, *LANDCOVER_OUTPUTS, ".wasnow"])
    plain = detect(covered.record.before.path, covered.record.after.path, model=Toy(), output=tmp_path / "plain")
    for name in ("change.tif", "confidence.tif", "changes.gpkg", "changes.parquet"):
        assert (plain.folder / name).read_bytes() == (covered.folder / name).read_bytes(), name
    assert plain.landcover is None
    assert plain.record.landcover == ()


def test_class_maps_agree_with_the_change_map_and_with_the_record(covered):
    codes = read(covered.change)
    changed = codes[2] > 0
    assert covered.landcover is not None
    maps = [read(path)[0] for path in covered.landcover]
    for date, found in enumerate(maps):
        np.testing.assert_array_equal(found[changed], codes[date][changed])
        assert set(np.unique(found)) <= {1, 2, 3}
        assert len(np.unique(found[~changed])) > 1
        for row in covered.record.landcover:
            assert row.pixels[date] == (found == row.code).sum()
            assert row.area_m2[date] == pytest.approx(4 * row.pixels[date], rel=1e-3)
    assert [row.word for row in covered.record.landcover] == list(Toy().classes)


@pytest.mark.parametrize("date", [0, 1])
def test_class_maps_are_valid_cogs_with_colours_names_and_a_table(covered, date):
    path = covered.folder / LANDCOVER[date]
    assert cog_validate(path, strict=True)[0]
    with rasterio.open(path) as raster, rasterio.open(covered.change) as change:
        assert (raster.crs, raster.transform, raster.shape) == (change.crs, change.transform, change.shape)
        assert raster.nodata == 255
        assert raster.descriptions == (f"landcover_{('before', 'after')[date]}",)
        colors = raster.colormap(1)
        assert [colors[row.code][:3] for row in covered.record.landcover] == [
            row.color for row in covered.record.landcover
        ]
    text = (covered.folder / f"{LANDCOVER[date]}.aux.xml").read_text()
    assert all(f"<F>{word}</F>" in text for word in (*Toy().classes, "not processed"))
    assert "no change" not in text


def test_the_record_and_the_item_list_the_class_maps(covered):
    assert {*LANDCOVER_OUTPUTS} <= {each.name for each in covered.record.outputs}
    assert ChangeMap.open(covered.folder).record == covered.record
    item = json.loads(covered.item.read_text())
    assert {asset["href"].removeprefix("./") for asset in item["assets"].values()} == {
        *OUTPUTS,
        *LANDCOVER_OUTPUTS,
    } - {"item.json", "SHA256SUMS"}
    (band,) = item["assets"]["landcover_before"]["bands"]
    assert [each["value"] for each in band["classification:classes"]] == [1, 2, 3, 255]
    changes = item["assets"]["change"]["bands"][0]["classification:classes"]
    assert [each["value"] for each in changes] == [0, 1, 2, 3, 255]


def test_the_report_shows_both_maps_with_a_legend(covered):
    text = words_of(covered)
    assert "Land cover before and after" in text
    for row in covered.record.landcover:
        assert sum(row.pixels) == 0 or f"{row.word} " in text
    assert covered.report.read_text().count('<figure class="cover"><img src="data:image/png') == 2


def test_twenty_classes_need_16_bits_in_all_rasters(tmp_path):
    result = detect(*pair(tmp_path), model=Toy(classes=MANY), output=tmp_path / "out", landcover=True)
    for path in result.landcover:
        with rasterio.open(path) as raster:
            assert raster.dtypes == ("uint16",)
            assert raster.nodata == 65535
            assert 1 <= raster.read().min() <= raster.read().max() <= 20
    assert result.report.stat().st_size > 1000


def test_pixels_that_are_not_processed_are_flagged_in_the_class_maps(tmp_path):
    before, after = pair(tmp_path)
    with rasterio.open(after, "r+") as raster:
        raster.nodata = 0
        values = raster.read()
        values[:, :40, :50] = 0
        raster.write(values)
    result = detect(before, after, model=Toy(), output=tmp_path / "out", landcover=True)
    flagged = read(result.change)[2] == 255
    assert flagged.any()
    for path in result.landcover:
        np.testing.assert_array_equal(read(path)[0] == 255, flagged)


def test_an_interrupted_run_continues_to_the_same_class_maps(tmp_path, monkeypatch):
    from wasnow.pipeline import plan

    small = plan.Tiling
    monkeypatch.setattr(plan, "Tiling", lambda *a, **k: small(*a, **k, block_side=32))
    told = itertools.count()

    def stop(phase, done, total):
        if phase == "detect" and next(told) > 4:
            raise KeyboardInterrupt

    paths, model = pair(tmp_path), Toy(tile=32)
    whole = detect(*paths, model=model, output=tmp_path / "whole", landcover=True)
    with pytest.raises(Interrupted):
        detect(*paths, model=model, output=tmp_path / "out", landcover=True, progress=stop)
    with pytest.raises(ResumeRefused, match="option landcover was true, is now false"):
        detect(*paths, model=model, output=tmp_path / "out")
    again = detect(*paths, model=model, output=tmp_path / "out", landcover=True)
    for name in (*LANDCOVER_OUTPUTS, "change.tif"):
        assert (again.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name
    again.landcover[0].unlink()
    detect(*paths, model=model, output=tmp_path / "out", landcover=True)
    assert again.landcover[0].read_bytes() == whole.landcover[0].read_bytes()
    plain = detect(*paths, model=model, output=tmp_path / "out", overwrite=True)
    assert plain.landcover is None
    assert not {path.name for path in plain.folder.iterdir()} & set(LANDCOVER_OUTPUTS)


# --- thresholds of classes ----------------------------------------------------------------------------------------


def test_a_class_threshold_only_removes_changes_from_or_to_that_class(tmp_path):
    paths = pair(tmp_path)
    plain = detect(*paths, model=Toy(), output=tmp_path / "plain", threshold=0.2)
    strict = detect(*paths, model=Toy(), output=tmp_path / "strict", threshold=0.2, class_thresholds={"Building": 0.9})
    before, after = read(plain.change), read(strict.change)
    building = (before[0] == 2) | (before[1] == 2)
    assert (after[2] != before[2]).any()
    np.testing.assert_array_equal(after[:, ~building], before[:, ~building])
    gone = (before[2] > 0) & (after[2] == 0)
    assert (read(strict.confidence)[0][gone] <= 0.9 * 254 + 1).all()
    assert strict.record.model.class_thresholds == {"building": 0.9}
    assert "class thresholds building 0.9" in words_of(strict)
    assert ChangeMap.open(strict.folder).record == strict.record


def test_class_thresholds_are_part_of_the_identity_of_a_run(tmp_path):
    paths = pair(tmp_path)
    detect(*paths, model=Toy(), output=tmp_path / "out", class_thresholds={"water": 0.7})
    with pytest.raises(ResumeRefused, match=r"class_thresholds water was 0\.7, is now 0\.8"):
        detect(*paths, model=Toy(), output=tmp_path / "out", class_thresholds={"water": 0.8})
    assert detect(*paths, model=Toy(), output=tmp_path / "out", class_thresholds=(("WATER", 0.7),)).reused


def test_a_class_threshold_below_the_common_one_causes_a_warning(tmp_path):
    result = detect(*pair(tmp_path), model=Toy(), output=tmp_path / "out", class_thresholds={"water": 0.3})
    assert any("water=0.3 is below the common threshold of 0.5" in warning for warning in result.record.warnings)


# --- calibration --------------------------------------------------------------------------------------------------


def test_calibration_changes_confidence_and_threshold_but_not_the_map(tmp_path):
    paths = pair(tmp_path)
    plain = detect(*paths, model=Toy(threshold=0.7), output=tmp_path / "plain")
    calibrated = detect(*paths, model=Calibrated(threshold=0.7), output=tmp_path / "calibrated")
    np.testing.assert_array_equal(read(plain.change), read(calibrated.change))
    logit = np.log(0.7 / 0.3)
    assert calibrated.record.model.threshold == pytest.approx(1 / (1 + np.exp(-logit / 2)))
    assert calibrated.record.model.threshold_from == "model default, calibrated"
    before, after = (read(each.confidence)[0] / 254 for each in (plain, calibrated))
    inner = (before > 0.05) & (before < 0.95)
    assert inner.any()
    expected = 1 / (1 + np.exp(-np.log(before[inner] / (1 - before[inner])) / 2))
    assert np.abs(after[inner] - expected).max() < 0.03


def test_a_threshold_of_the_user_is_not_transformed(tmp_path):
    result = detect(*pair(tmp_path), model=Calibrated(), output=tmp_path / "out", threshold=0.7)
    assert (result.record.model.threshold, result.record.model.threshold_from) == (0.7, "option")
    probability, codes = read(result.confidence)[0] / 254, read(result.change)[2]
    sure = np.abs(probability - 0.7) > 0.004
    np.testing.assert_array_equal((codes > 0)[sure], (probability > 0.7)[sure])


def test_the_report_gives_the_calibration_error(tmp_path, covered):
    paths = pair(tmp_path)
    calibrated = detect(*paths, model=Calibrated(), output=tmp_path / "calibrated")
    other = detect(*paths, model=Calibrated(), classes="pond, house", output=tmp_path / "other")
    assert "calibrated on val (12 pairs): change ECE 8.1 % → 1.2 %" in words_of(calibrated)
    assert "with other class words" not in words_of(calibrated)
    assert "with other class words" in words_of(other)
    assert "uncalibrated" in words_of(covered)
    assert RunRecord.read(calibrated.folder).model.calibration.class_temperature == 1.5


def test_class_maps_need_classes(tmp_path):
    with pytest.raises(UsageError, match="leave landcover out"):
        detect(*pair(tmp_path), output=tmp_path / "out", model="irmad", landcover=True)
    assert not (tmp_path / "out").exists()


def test_bfloat16_is_recorded(tmp_path):
    before, after = pair(tmp_path)
    shared = {"model": Toy(), "tile": 48}
    exact = detect(before, after, output=tmp_path / "exact", **shared)
    rough = detect(before, after, output=tmp_path / "rough", precision="bf16", **shared)
    gap = np.abs(read(exact.confidence).astype(int) - read(rough.confidence).astype(int))
    assert gap.max() > 0
    assert gap.mean() < 4
    assert json.loads((tmp_path / "rough" / "run.json").read_text())["options"]["precision"] == "bf16"
    with pytest.raises(ResumeRefused, match="precision"):
        detect(before, after, output=tmp_path / "exact", precision="bf16", **shared)


def test_invalid_precisions_and_scene_models_in_bfloat16_are_refused(tmp_path):
    before, after = pair(tmp_path)
    with pytest.raises(UsageError, match="precision must be 32 or bf16"):
        detect(before, after, output=tmp_path / "out", precision="16")
    with pytest.raises(UsageError, match="irmad is not a network"):
        detect(before, after, output=tmp_path / "out", model="irmad", precision="bf16")
