"""What a file offers of bands, masks and orientation reaches the model as it should."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp, Resampling

from making import textured, write_raster
from wasnow.errors import BandsUnclear, RasterUnreadable, RasterUnsuitable, UsageError
from wasnow.raster.gdal import gdal_settings
from wasnow.raster.reader import RasterReader
from wasnow.raster.source import probe
from wasnow.raster.tiles import Window


def read_all(path, **options):
    source = probe(path, **options)
    with RasterReader(source) as reader:
        return reader.read(Window(0, 0, *source.grid.shape))


def rgb(height=20, width=30):
    return textured(1, height, width).astype(np.uint8)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32", "float64"])
def test_values_of_every_type_are_read_unchanged(tmp_path, dtype):
    values = textured(0, 20, 30, 4).astype(dtype)
    got, valid = read_all(write_raster(tmp_path / "r.tif", values, photometric="MINISBLACK"))
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, values.astype(np.float32))
    assert valid.all()


def test_declared_black_is_missing_only_where_every_band_is_black(tmp_path):
    values = rgb()
    values[:, :5] = 0
    values[0, 10] = 0
    _, valid = read_all(write_raster(tmp_path / "r.tif", values, nodata=0))
    assert not valid[:5].any()
    assert valid[5:].all()


def test_any_other_nodata_is_missing_as_soon_as_one_band_has_it(tmp_path):
    values = rgb().astype(np.int16)
    values[1, 3, 4] = -9999
    got, valid = read_all(write_raster(tmp_path / "r.tif", values, nodata=-9999))
    assert valid.sum() == valid.size - 1
    assert np.isnan(got[:, 3, 4]).all()


def test_a_float_nodata_that_a_double_cannot_hold_exactly_is_recognised(tmp_path):
    values = rgb().astype(np.float32)
    values[:, 0, 0] = np.float32(-3.4028234663852886e38)
    values[:, 1, 1] = np.float32(0.1)
    assert not read_all(write_raster(tmp_path / "min.tif", values, nodata=-3.4028234663852886e38))[1][0, 0]
    assert not read_all(write_raster(tmp_path / "tenth.tif", values, nodata=float(np.float32(0.1))))[1][1, 1]


def test_nan_and_infinity_are_missing_even_if_no_nodata_is_declared(tmp_path):
    values = rgb().astype(np.float32)
    values[0, 2, 2], values[2, 3, 3] = np.nan, np.inf
    got, valid = read_all(write_raster(tmp_path / "r.tif", values))
    assert not valid[2, 2]
    assert not valid[3, 3]
    assert np.isfinite(got[:, valid]).all()


def test_an_alpha_band_is_a_mask_and_not_data(tmp_path):
    values = np.concatenate([rgb(), np.full((1, 20, 30), 255, np.uint8)])
    values[3, :, :7] = 0
    path = write_raster(tmp_path / "r.tif", values, photometric="RGB", alpha="yes")
    got, valid = read_all(path)
    assert len(got) == 3
    assert not valid[:, :7].any()
    assert valid[:, 7:].all()


def test_an_alpha_band_that_the_user_selects_is_data(tmp_path):
    """GDAL flags the fourth band of 8-bit files as alpha by default; often it is near infrared."""
    values = textured(0, 20, 30, 4).astype(np.uint8)
    values[3, 0] = 0
    source = probe(write_raster(tmp_path / "r.tif", values))
    assert source.mask == "alpha"
    with RasterReader(source.with_bands((1, 2, 3, 4))) as reader:
        got, valid = reader.read(Window(0, 0, 20, 30))
    np.testing.assert_array_equal(got, values)
    assert valid.all()


@pytest.mark.parametrize("inside", [True, False])
def test_an_internal_and_an_external_mask_are_applied(tmp_path, inside):
    path = write_raster(tmp_path / "r.tif", rgb())
    mask = np.full((20, 30), 255, np.uint8)
    mask[4:9] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside), rasterio.open(path, "r+") as raster:
        raster.write_mask(mask)
    assert (tmp_path / "r.tif.msk").exists() != inside
    _, valid = read_all(path)
    np.testing.assert_array_equal(valid, mask > 0)


def test_a_palette_is_expanded_to_its_colours(tmp_path):
    index = (np.arange(600).reshape(1, 20, 30) % 3).astype(np.uint8)
    path = tmp_path / "r.tif"
    with rasterio.open(path, "w", driver="GTiff", width=30, height=20, count=1, dtype="uint8") as raster:
        raster.write(index)
        raster.write_colormap(1, {0: (10, 20, 30, 255), 1: (200, 100, 50, 255), 2: (0, 0, 0, 255)})
        raster.nodata = 2
    got, valid = read_all(path)
    assert probe(path).band_names == ("red", "green", "blue")
    np.testing.assert_array_equal(got[:, index[0] == 1].T[0], [200, 100, 50])
    np.testing.assert_array_equal(valid, index[0] != 2)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(tmp_path, orientation):
    """An upright image is stored rotated with the EXIF tag that undoes the rotation, as a camera does."""
    upright = textured(3, 24, 40).astype(np.uint8)
    to_stored = {
        1: lambda a: a,
        2: lambda a: a[..., ::-1],
        3: lambda a: a[..., ::-1, ::-1],
        4: lambda a: a[..., ::-1, :],
        5: lambda a: np.swapaxes(a, 1, 2),
        6: lambda a: np.rot90(a, 1, (1, 2)),
        7: lambda a: np.swapaxes(a[..., ::-1, ::-1], 1, 2),
        8: lambda a: np.rot90(a, -1, (1, 2)),
    }[orientation]
    path = tmp_path / "photo.jpg"
    stored = np.ascontiguousarray(to_stored(upright))
    write_raster(path, stored, crs=None, driver="JPEG", quality=100)
    data = path.read_bytes()
    tiff = b"II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00" + bytes([orientation, 0, 0, 0]) + bytes(4)
    exif = b"Exif\x00\x00" + tiff
    path.write_bytes(data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:])
    source = probe(path)
    assert source.grid.shape == (24, 40)
    with RasterReader(source) as reader:
        whole, _ = reader.read(Window(0, 0, 24, 40))
        part, _ = reader.read(Window(5, 11, 9, 13))
    assert np.abs(whole - upright).mean() < 3
    np.testing.assert_array_equal(part, whole[:, 5:14, 11:24])


def test_an_overview_is_used_for_a_target_that_is_as_coarse(tmp_path):
    path = write_raster(tmp_path / "r.tif", textured(0, 256, 256).astype(np.uint8), tiled=True)
    with rasterio.open(path, "r+") as raster:
        raster.build_overviews([2, 4, 8], Resampling.average)
    source = probe(path)
    assert source.finest_overview_for(1.9) is None
    assert source.finest_overview_for(5) == 4
    small = source.at_overview(4)
    assert small.grid.shape == (64, 64)
    with RasterReader(small) as reader, rasterio.open(path) as raster:
        got, _ = reader.read(Window(0, 0, 64, 64))
        np.testing.assert_array_equal(got, raster.read(out_shape=(3, 64, 64)))


def test_bands_can_be_selected_in_any_order(tmp_path):
    values = textured(0, 20, 30, 4).astype(np.uint8)
    source = probe(write_raster(tmp_path / "r.tif", values)).with_bands((3, 1))
    with RasterReader(source) as reader:
        got, _ = reader.read(Window(0, 0, 20, 30))
    np.testing.assert_array_equal(got, values[[2, 0]].astype(np.float32))
    with pytest.raises(BandsUnclear, match="has bands 1 to 4, --bands asks for 5"):
        source.with_bands((5,))


def test_the_date_is_read_from_the_tags(tmp_path):
    path = write_raster(tmp_path / "r.tif", rgb())
    assert probe(path).date is None
    with rasterio.open(path, "r+") as raster:
        raster.update_tags(TIFFTAG_DATETIME="2017:06:30 10:20:30")
    assert probe(path).date == "2017-06-30"


def test_complex_values_are_rejected(tmp_path):
    path = write_raster(tmp_path / "sar.tif", np.zeros((1, 5, 5), np.complex64))
    with pytest.raises(RasterUnsuitable, match="complex"):
        probe(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.tif", None, "no such file"),
        ("empty.tif", b"", "is empty"),
        ("words.tif", b"this is text", "cannot be read as a raster"),
    ],
)
def test_a_file_that_is_not_a_raster_is_rejected_in_one_line(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(RasterUnreadable, match=message) as caught:
        probe(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_is_rejected(tmp_path):
    with pytest.raises(RasterUnreadable, match="is a folder"):
        probe(tmp_path)


def test_a_raster_with_control_points_only_is_rejected_with_advice(tmp_path):
    path = tmp_path / "gcp.tif"
    points = [GroundControlPoint(0, 0, 10, 50), GroundControlPoint(0, 30, 11, 50), GroundControlPoint(20, 0, 10, 49)]
    write_raster(path, rgb(), crs=None)
    with rasterio.open(path, "r+") as raster:
        raster.gcps = (points, rasterio.crs.CRS.from_epsg(4326))
    with pytest.raises(RasterUnsuitable, match=r"ground control points.*gdalwarp"):
        probe(path)


def test_a_raster_with_rpcs_only_is_rejected(tmp_path):
    path = write_raster(tmp_path / "rpc.tif", rgb(), crs=None)
    numbers = " ".join(["0.001"] * 20)
    values = {
        "LINE_OFF": "10", "SAMP_OFF": "15", "LAT_OFF": "50", "LONG_OFF": "10", "HEIGHT_OFF": "100",
        "LINE_SCALE": "10", "SAMP_SCALE": "15", "LAT_SCALE": "1", "LONG_SCALE": "1", "HEIGHT_SCALE": "100",
        "LINE_NUM_COEFF": numbers, "LINE_DEN_COEFF": numbers, "SAMP_NUM_COEFF": numbers, "SAMP_DEN_COEFF": numbers,
    }  # fmt: skip
    with rasterio.open(path, "r+") as raster:
        raster.update_tags(ns="RPC", **values)
    with pytest.raises(RasterUnsuitable, match="RPC"):
        probe(path)


def test_an_assumed_crs_requires_a_transform(tmp_path):
    placed = tmp_path / "placed.tif"
    with rasterio.open(
        placed, "w", driver="GTiff", width=30, height=20, count=3, dtype="uint8", transform=Affine(2, 0, 5, 0, -2, 9)
    ) as raster:
        raster.write(rgb())
    assert probe(placed).grid.crs is None
    assert probe(placed, assume_crs="EPSG:32632").grid.crs_name == "EPSG:32632"
    bare = write_raster(tmp_path / "bare.tif", rgb(), crs=None)
    with pytest.raises(RasterUnsuitable, match="has no transform"):
        probe(bare, assume_crs="EPSG:32632")
    with pytest.raises(UsageError, match="unknown CRS"):
        probe(placed, assume_crs="EPSG:999999")


def test_the_error_for_a_damaged_block_names_file_rows_and_cols(tmp_path):
    path = write_raster(
        tmp_path / "r.tif", textured(0, 64, 64).astype(np.uint8), compress="deflate", tiled=True,
        blockxsize=32, blockysize=32,
    )  # fmt: skip
    data = bytearray(path.read_bytes())
    with rasterio.open(path) as raster:
        at = int(raster.get_tag_item("BLOCK_OFFSET_1_1", "TIFF", bidx=1))
        size = int(raster.get_tag_item("BLOCK_SIZE_1_1", "TIFF", bidx=1))
    data[at : at + size] = bytes(size)
    path.write_bytes(data)
    with RasterReader(probe(path)) as reader:
        reader.read(Window(0, 0, 32, 32))
        with pytest.raises(RasterUnreadable, match=r"r\.tif: rows 40-49, cols 40-49 cannot be read"):
            reader.read(Window(40, 40, 10, 10))


def test_a_png_decompression_bomb_is_rejected_from_its_header(tmp_path):
    import struct
    import zlib

    path = write_raster(tmp_path / "bomb.png", rgb(), crs=None, driver="PNG")
    data = bytearray(path.read_bytes())
    header = b"IHDR" + struct.pack(">II", 100_000, 100_000) + bytes(data[24:29])
    data[12:33] = header + struct.pack(">I", zlib.crc32(header))
    path.write_bytes(data)
    with pytest.raises(RasterUnreadable, match=r"100000 x 100000 px"):
        probe(path)


def test_bands_are_named_by_their_colour_interpretation(tmp_path):
    path = write_raster(tmp_path / "r.tif", textured(0, 8, 8, 4).astype(np.uint16))
    with rasterio.open(path, "r+") as raster:
        raster.colorinterp = [ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.undefined]
    assert probe(path).band_names == ("blue", "green", "red", "band 4")


def test_the_block_cache_of_gdal_is_64_mib():
    from rasterio.env import get_gdal_config

    with gdal_settings():
        assert get_gdal_config("GDAL_CACHEMAX") == 64 * 2**20


@pytest.mark.parametrize(("driver", "suffix"), [("PNG", "png"), ("JPEG", "jpg")])
def test_a_truncated_image_is_rejected_and_not_read_as_black(tmp_path, driver, suffix):
    path = write_raster(tmp_path / f"r.{suffix}", textured(1, 200, 300).astype(np.uint8), crs=None, driver=driver)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(RasterUnreadable), gdal_settings():
        read_all(path)
