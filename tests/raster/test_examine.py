"""Corrections of a raster by its pixels: undeclared nodata, alpha, number range."""

from dataclasses import replace

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from scipy.ndimage import rotate

from making import textured, write_raster
from wasnow.raster.examine import examine
from wasnow.raster.radiometry import Stretch
from wasnow.raster.reader import RasterReader
from wasnow.raster.source import probe
from wasnow.raster.tiles import Window


def examined(*paths, nodata=(None, None)):
    before = probe(paths[0])
    return examine(before, probe(paths[-1]) if len(paths) > 1 else before, nodata)


def read(source):
    with RasterReader(source) as reader:
        return reader.read(Window(0, 0, *source.grid.shape))


def picture(dtype, seed=0, side=200):
    scale = 1 if dtype == "uint8" else 30
    return np.clip(textured(seed, side, side), 5, 250).astype(np.float64) * scale


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("uint8", 0), ("uint8", 255), ("uint16", 0), ("uint16", 65535), ("int16", -9999), ("int16", -32768),
        ("float32", -9999), ("float32", -3.4028235e38), ("float32", 0), ("float64", -9999), ("int32", -9999),
    ],
)  # fmt: skip
def test_an_undeclared_collar_is_missing_and_everything_else_is_data(tmp_path, dtype, value):
    values = picture(dtype).astype(dtype)
    values[:, :12] = value
    (source, _), warnings = examined(write_raster(tmp_path / "a.tif", values))
    _, valid = read(source)
    assert not valid[:12].any()
    assert valid[12:].all()
    if abs(value) < 1e36:
        assert "6.0% of its pixels have the undeclared nodata value" in warnings[0]
        assert "--nodata" in warnings[0]


@pytest.mark.parametrize("value", [0, 255])
def test_the_collar_of_a_rotated_image_is_missing(tmp_path, value):
    values = np.stack([rotate(band, 12, reshape=False, order=0, cval=-1) for band in picture("uint8", side=300)])
    collar = (values == -1).all(axis=0)
    values = np.where(collar, value, np.clip(values, 20, 230)).astype(np.uint8)
    (source, _), _ = examined(write_raster(tmp_path / "a.tif", values))
    _, valid = read(source)
    np.testing.assert_array_equal(valid, ~collar)


@pytest.mark.parametrize("quality", [75, 95])
def test_a_collar_smeared_by_jpeg_is_missing(tmp_path, quality):
    values = picture("uint8", side=256).astype(np.uint8)
    values[:, :, :40] = 0
    path = write_raster(tmp_path / "a.tif", values, compress="jpeg", jpeg_quality=quality)
    (source, _), warnings = examined(path)
    _, valid = read(source)
    assert not valid[:, :36].any()
    assert valid[:, 48:].mean() > 0.995
    assert len(warnings) == 2  # the same file at both dates


@pytest.mark.parametrize("value", [0, 255])
def test_black_water_and_white_roofs_inside_are_data(tmp_path, value):
    values = picture("uint8").astype(np.uint8)
    values[:, 60:120, 50:150] = value
    (source, _), warnings = examined(write_raster(tmp_path / "a.tif", values))
    assert read(source)[1].all()
    assert warnings == []


def test_dark_water_at_the_edge_that_passes_gradually_into_ground_is_data(tmp_path):
    values = picture("uint8").astype(np.uint8)
    rows = np.arange(200)[:, None]
    noise = np.random.default_rng(0).integers(0, 4, (3, 200, 200))
    water = np.clip(noise - 2, 0, None).astype(np.uint8)
    values = np.where(rows < 80, water, values)
    (source, _), warnings = examined(write_raster(tmp_path / "a.tif", values))
    assert read(source)[1].all()
    assert warnings == []


def test_values_do_not_depend_on_the_window_of_a_gap(tmp_path):
    values = picture("uint8", side=300).astype(np.uint8)
    values[:, :30] = 0
    values[:, 31:33, 100:120] = 0
    (source, _), _ = examined(write_raster(tmp_path / "a.tif", values))
    whole = read(source)[1]
    with RasterReader(source) as reader:
        for row in range(0, 300, 70):
            part = reader.read(Window(row, 10, min(70, 300 - row), 250))[1]
            np.testing.assert_array_equal(part, whole[row : row + 70, 10:260])


def test_a_nodata_value_of_the_user_replaces_the_declared_one_per_date(tmp_path):
    values = picture("int16").astype(np.int16)
    values[:, 50:60, 50:60] = 77
    path = write_raster(tmp_path / "a.tif", values, nodata=-1)
    (before, after), _ = examined(path, path, nodata=(77.0, None))
    assert not read(before)[1][50:60, 50:60].any()
    assert read(after)[1].all()


def four_bands(tmp_path, fourth, color=ColorInterp.alpha):
    values = np.concatenate([picture("uint8"), fourth[None]]).astype(np.uint8)
    path = write_raster(tmp_path / "a.tif", values)
    with rasterio.open(path, "r+") as raster:
        raster.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, color]
    return path


def test_near_infrared_flagged_as_alpha_is_a_band_and_its_lakes_are_data(tmp_path):
    infrared = np.clip(textured(7, 200, 200, 1)[0], 0, 255)
    infrared[40:90, 40:90] = 0
    (source, _), warnings = examined(four_bands(tmp_path, infrared))
    assert source.n_bands == 4
    assert read(source)[1].all()
    assert "band 4 is flagged as alpha but has" in warnings[0]


def test_only_opaque_pixels_of_a_feathered_mask_are_data(tmp_path):
    alpha = np.clip((np.arange(200)[None, :] - 10) * 12.0, 0, 255) + np.zeros((200, 1))
    (source, _), warnings = examined(four_bands(tmp_path, alpha))
    assert source.n_bands == 3
    _, valid = read(source)
    np.testing.assert_array_equal(valid, alpha.astype(np.uint8) >= 250)
    assert warnings == []


def test_a_fourth_band_of_0_and_255_that_is_not_flagged_is_a_mask(tmp_path):
    mask = np.full((200, 200), 255.0)
    mask[:, :30] = 0
    path = four_bands(tmp_path, mask, ColorInterp.undefined)
    with rasterio.open(path, "r+") as raster:
        values = raster.read()
        values[:3, :, :30] = 0
        raster.write(values)
    (source, _), warnings = examined(path)
    assert source.n_bands == 3
    assert not read(source)[1][:, :30].any()
    assert "used as a mask" in warnings[0]


@pytest.mark.parametrize(
    ("dtype", "offset", "scale"),
    [("float64", 1e9, 1.0), ("int32", 2_000_000_000, 1.0), ("uint32", 4_000_000_000, 1.0), ("float64", 0.0, 1e-40)],
)
def test_small_differences_of_large_or_tiny_values_survive_the_cast(tmp_path, dtype, offset, scale):
    plain = np.rint(picture("uint8"))
    paths = [
        write_raster(tmp_path / f"{i}.tif", ((plain + change) * scale + offset).astype(dtype))
        for i, change in enumerate((0, 3))
    ]
    (before, after), _ = examined(*paths)
    difference = (read(after)[0] - read(before)[0]) * before.unit
    np.testing.assert_allclose(difference, 3 * scale, rtol=1e-3)


def test_declared_scale_and_offset_are_applied_and_a_fixed_stretch_is_in_physical_units(tmp_path):
    paths = []
    for i, offset in enumerate((0.0, -0.1)):
        path = write_raster(tmp_path / f"{i}.tif", (picture("uint16") + i * 1000).astype(np.uint16))
        with rasterio.open(path, "r+") as raster:
            raster.scales, raster.offsets = (1e-4,) * 3, (offset,) * 3
        paths.append(path)
    (before, after), _ = examined(*paths)
    np.testing.assert_allclose(read(before)[0], read(after)[0], atol=1e-6)
    stretch = Stretch.declared("0,0.3", 3, 1, after.conversion)
    np.testing.assert_allclose(stretch.high, 0.3)


def test_one_stretch_per_date():
    assert Stretch.declared("0,10,5,50", 1, 0).pairs() == ((0, 10),)
    assert Stretch.declared("0,10,5,50", 1, 1).pairs() == ((5, 50),)


def test_16_bit_files_of_8_bit_values_are_compared_with_8_bit_files_as_they_are(tmp_path):
    plain = np.rint(picture("uint8"))
    paths = [write_raster(tmp_path / f"{kind}.tif", plain.astype(kind)) for kind in ("uint8", "uint16")]
    (before, after), warnings = examined(*paths)
    assert before.is_display_rgb
    assert after.is_display_rgb
    assert "compared as 8-bit" in warnings[0]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_an_ordinary_raster_is_left_unchanged(tmp_path, dtype):
    path = write_raster(tmp_path / "a.tif", picture(dtype).astype(dtype))
    source = probe(path)
    (found, _), warnings = examined(path)
    assert replace(found, opaque=source.opaque) == source
    assert warnings == []
