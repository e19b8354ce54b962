"""A truncated TIFF is rejected before pixels are read."""

import struct

import numpy as np
import pytest
import rasterio

from making import write_raster
from wasnow.errors import RasterUnreadable
from wasnow.raster.tiff import check_tiff

LAYOUTS = {
    "striped": {},
    "tiled": {"tiled": True, "blockxsize": 32, "blockysize": 32},
    "deflate": {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate"},
    "big": {"tiled": True, "blockxsize": 32, "blockysize": 32, "BIGTIFF": "YES", "compress": "zstd"},
    "planes": {"interleave": "band", "compress": "lzw"},
    "big endian": {"ENDIANNESS": "BIG"},
    "cog": {"driver": "COG", "compress": "zstd"},
}


def values() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (3, 100, 130)).astype(np.uint8)


def is_rejected(path) -> bool:
    try:
        check_tiff(str(path))
    except RasterUnreadable:
        return True
    return False


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_complete_file_passes(tmp_path, layout):
    check_tiff(str(write_raster(tmp_path / "whole.tif", values(), **LAYOUTS[layout])))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_truncated_anywhere_is_rejected_or_reads_the_same(tmp_path, layout):
    whole = write_raster(tmp_path / "whole.tif", values(), **LAYOUTS[layout]).read_bytes()
    with rasterio.open(tmp_path / "whole.tif") as raster:
        expected = raster.read()
    cut = tmp_path / "cut.tif"
    refused = 0
    for length in [*range(8, len(whole), max(1, len(whole) // 40)), len(whole) - 1]:
        cut.write_bytes(whole[:length])
        if is_rejected(cut):
            refused += 1
        else:
            # Padding after the last block, or tables of overviews, can be missing without effect.
            with rasterio.open(cut) as raster:
                np.testing.assert_array_equal(raster.read(), expected)
    assert refused > 30


def test_a_sparse_file_passes(tmp_path):
    path = tmp_path / "sparse.tif"
    profile = {"driver": "GTiff", "width": 512, "height": 512, "count": 1, "dtype": "uint8", "tiled": True}
    with rasterio.open(path, "w", **profile, SPARSE_OK=True):
        pass
    check_tiff(str(path))


def test_a_block_table_that_is_too_short_is_rejected(tmp_path):
    """The declared height is raised; GDAL would read the missing strips as zeros or fail late."""
    path = write_raster(tmp_path / "short.tif", values()[:1], crs=None)
    data = bytearray(path.read_bytes())
    start = struct.unpack("<I", data[4:8])[0]
    for i in range(struct.unpack("<H", data[start : start + 2])[0]):
        at = start + 2 + 12 * i
        if struct.unpack("<H", data[at : at + 2])[0] == 257:
            data[at + 2 : at + 12] = struct.pack("<HII", 4, 1, 2_000_000_000)
    path.write_bytes(data)
    with pytest.raises(RasterUnreadable, match="lists only"):
        check_tiff(str(path))


def test_other_files_than_tiff_pass(tmp_path):
    for content in (b"", b"II", b"\x89PNG\r\n\x1a\n" + bytes(20)):
        (tmp_path / "x").write_bytes(content)
        check_tiff(str(tmp_path / "x"))
    check_tiff("https://example.org/x.tif")


@pytest.mark.parametrize("offset", [2**63, 2**64 - 1, 2**63 + 16])
def test_a_bigtiff_directory_beyond_2_to_the_63_is_rejected(tmp_path, offset):
    path = tmp_path / "big.tif"
    path.write_bytes(b"II+\0" + struct.pack("<HHQ", 8, 0, offset) + bytes(64))
    with pytest.raises(RasterUnreadable, match="truncated"):
        check_tiff(str(path))


def test_a_bigtiff_tile_table_beyond_2_to_the_63_is_rejected(tmp_path):
    path = write_raster(tmp_path / "big.tif", values(), **LAYOUTS["big"])
    data = bytearray(path.read_bytes())
    start = struct.unpack("<Q", data[8:16])[0]
    for i in range(struct.unpack("<Q", data[start : start + 8])[0]):
        at = start + 8 + 20 * i
        if struct.unpack("<H", data[at : at + 2])[0] in (324, 325):
            data[at + 12 : at + 20] = struct.pack("<Q", 2**63 + 8)
    path.write_bytes(data)
    with pytest.raises(RasterUnreadable, match="truncated"):
        check_tiff(str(path))


def test_missing_last_blocks_are_accepted_on_request_and_fail_on_reading(tmp_path):
    path = write_raster(tmp_path / "cut.tif", values(), **LAYOUTS["deflate"])
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    check_tiff(str(path), allow_missing_blocks=True)
    with rasterio.open(path) as raster, pytest.raises(rasterio.errors.RasterioIOError):
        raster.read()
