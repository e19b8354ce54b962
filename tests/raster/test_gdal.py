"""Opening rasters: files that are not rasters are named, and reading never blocks."""

import os

import numpy as np
import pytest

from making import textured, write_raster
from wasnow.errors import RasterUnreadable
from wasnow.raster.source import probe


@pytest.mark.parametrize("path", ["/dev/zero", "/proc/self/mem"])
def test_devices_and_proc_files_are_rejected_at_once(path):
    if not os.path.exists(path):  # noqa: PTH110
        pytest.skip(f"{path} does not exist here")
    with pytest.raises(RasterUnreadable, match="not a regular file"):
        probe(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes need POSIX")
def test_a_named_pipe_is_rejected_without_waiting_for_a_writer(tmp_path):
    os.mkfifo(tmp_path / "p.tif")
    with pytest.raises(RasterUnreadable, match="is a named pipe, not a regular file"):
        probe(tmp_path / "p.tif")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tif", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer.*git lfs pull"),
        ("b.tif", b"<!doctype html><html></html>", "is an HTML page.*Download it again"),
        ("c.zip", b"PK\x03\x04" + bytes(60), "zip archive.*vsizip"),
        ("d.ecw", bytes(100), "ECW image, which this GDAL cannot read"),
    ],
)
def test_files_that_are_not_rasters_are_named_by_their_content(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RasterUnreadable, match=message):
        probe(tmp_path / name)


def test_a_zarr_store_is_named(tmp_path):
    (tmp_path / "x.zarr").mkdir()
    (tmp_path / "x.zarr" / ".zgroup").write_text('{"zarr_format": 2}')
    with pytest.raises(RasterUnreadable, match=r"Zarr store.*--allow-indirect"):
        probe(tmp_path / "x.zarr")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_read_permission_is_named(tmp_path):
    path = write_raster(tmp_path / "a.tif", np.ones((1, 8, 8), np.uint8))
    path.chmod(0)
    with pytest.raises(RasterUnreadable, match="permission"):
        probe(path)


def test_an_envi_header_beside_another_format_is_not_used(tmp_path):
    path = write_raster(tmp_path / "x.img", textured(0, 32, 32).astype(np.uint8), driver="ENVI")
    other = path.with_suffix(".nc")
    other.write_bytes(b"CDF\x01" + bytes(32 * 32 * 3))
    with pytest.raises(RasterUnreadable, match=r"x\.nc: is a netCDF file"):
        probe(other)


def test_an_input_output_error_names_the_file(tmp_path, monkeypatch):
    from wasnow.raster import source

    path = write_raster(tmp_path / "a.tif", np.ones((1, 8, 8), np.uint8))

    def fails(*_, **__):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(source, "check_tiff", fails)
    with pytest.raises(RasterUnreadable, match=r"a\.tif: cannot be read: Input/output error"):
        probe(path)
