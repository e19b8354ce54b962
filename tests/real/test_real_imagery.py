"""Detection on real imagery: misaligned grids, nodata, ENVI, JPEG without CRS. Skipped without the imagery.

What is held here are floors well below what was measured (docs/experiments.md), so that a regression shows.
"""

import numpy as np
import pytest
import rasterio
from rio_cogeo.cogeo import cog_validate

from making import needs_real
from wasnow import detect

pytestmark = pytest.mark.real


def transitions(result):
    with rasterio.open(result.change) as raster:
        return raster.read(3)


def test_naip_dakota_is_aligned_and_growing_lakes_are_detected(tmp_path):
    folder = needs_real("naip-dakota")
    result = detect(folder / "2009.tif", folder / "2017.tif", output=tmp_path / "out", model="irmad")
    assert "offset of +0.20 rows, -0.40 cols" in result.record.after.alignment
    assert cog_validate(result.change, strict=True)[0]
    # Water by the near infrared (band 4), an input of irmad too: a plausibility check, not an accuracy.
    wet = []
    for year in ("2009", "2017"):
        with rasterio.open(folder / f"{year}.tif") as raster:
            green, _, _, infrared = raster.read([2, 1, 3, 4]).astype(float)[:, :700, :900]
        wet.append((green - infrared) / np.maximum(green + infrared, 1) > 0.25)
    flooded = wet[1] & ~wet[0]
    changed = transitions(result)[:700, :900] == 1
    assert flooded.mean() > 0.02
    assert changed[flooded].mean() > 0.8
    assert changed[~wet[0] & ~wet[1]].mean() < 0.2


def test_landsat_pucallpa_keeps_dark_water_and_measures_areas_on_the_ellipsoid(tmp_path):
    folder = needs_real("landsat-pucallpa")
    result = detect(folder / "1985.tif", folder / "2005.tif", output=tmp_path / "out", model="irmad")
    record = result.record
    with rasterio.open(folder / "1985.tif") as one, rasterio.open(folder / "2005.tif") as other:
        empty = (one.read() == 0).all(axis=0) | (other.read() == 0).all(axis=0)
        some = (one.read() == 0).any(axis=0)
    assert some.sum() > empty.sum()
    assert sum(record.pixels.not_processed.values()) == empty.sum()
    # 697 x 377 pixels of 0.00080848 degrees at 8.4 degrees south: 89.02 m by 89.40 m each.
    assert record.areas_m2.total == pytest.approx(697 * 377 * 89.02 * 89.40, rel=2e-3)
    assert 0.05 < result.changed_share < 0.6


def test_landsat_taizhou_agrees_with_its_change_and_unchanged_samples(tmp_path):
    folder = needs_real("landsat-taizhou")
    with rasterio.open(folder / "change.bmp") as raster:
        change = raster.read(1) > 0
    with rasterio.open(folder / "unchanged.bmp") as raster:
        unchanged = raster.read(1) > 0
    for model, floor in (("irmad", 0.9), ("cva", 0.9)):
        result = detect(folder / "2000TM", folder / "2003TM", output=tmp_path / model, model=model)
        found = transitions(result) == 1
        hits, misses, false = found[change].sum(), (~found[change]).sum(), found[unchanged].sum()
        assert hits / (hits + false) > floor, model
        assert hits / (hits + misses) > 0.85, model
        assert result.record.before.driver == "ENVI"


def test_beijing_jpegs_without_crs_are_compared_by_pixel_with_a_shift_warning(tmp_path):
    folder = needs_real("beijing-construction")
    result = detect(folder / "beijing_A_1.jpg", folder / "beijing_A_2.jpg", output=tmp_path / "out", model="irmad")
    assert result.record.grid.crs is None
    assert any("is displaced by" in warning for warning in result.record.warnings)
    with rasterio.open(folder / "beijing_A_gt.jpg") as raster:
        truth = raster.read(1) > 127
    found = transitions(result) == 1
    precision = (found & truth).sum() / found.sum()
    assert precision > truth.mean() * 2


def test_french_aerial_pairs_run_and_small_polygons_can_be_dropped(tmp_path):
    folder = needs_real("france-buildings") / "instances"
    name = "train_02619.tif"
    every = detect(folder / "before" / name, folder / "after" / name, output=tmp_path / "every", model="irmad")
    large = detect(
        folder / "before" / name, folder / "after" / name, output=tmp_path / "large", model="irmad", min_area=20
    )
    assert large.record.polygons < every.record.polygons / 4
    assert large.record.pixels == every.record.pixels
    assert min(large.polygons()["area_m2"].to_pylist()) >= 20


def test_the_same_place_at_the_same_date_has_no_change(tmp_path):
    folder = needs_real("naip-dakota")
    result = detect(folder / "2012.tif", folder / "2012.tif", output=tmp_path / "out", model="irmad")
    assert result.record.polygons == 0
