"""Inputs in Python: arrays, open datasets and xarray give the map of the file."""

import numpy as np
import pytest
import rasterio
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT

import wasnow
from making import Toy, pair
from wasnow.errors import UsageError


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    before, after = pair(folder)
    return before, after, codes(wasnow.detect(before, after, output=folder / "out", model=Toy()))


def codes(result):
    with rasterio.open(result.change) as raster:
        return raster.crs, raster.transform, raster.read().tobytes()


def as_raster(path):
    with rasterio.open(path) as raster:
        return wasnow.Raster(raster.read(), raster.transform, raster.crs)


def test_arrays_with_a_position_give_the_map_of_the_files_and_are_resumable(files, tmp_path):
    before, after, expected = files
    first = wasnow.detect(as_raster(before), as_raster(after), output=tmp_path / "out", model=Toy())
    assert codes(first) == expected
    assert wasnow.detect(as_raster(before), as_raster(after), output=tmp_path / "out", model=Toy()).reused


def test_open_datasets_of_files_memory_and_vrt_give_the_map_of_the_files(files, tmp_path):
    before, after, expected = files
    with rasterio.open(before) as one, MemoryFile(after.read_bytes()) as memory, memory.open() as other:
        result = wasnow.detect(one, other, output=tmp_path / "memory", model=Toy())
        assert codes(result) == expected
        assert result.record.before.path == str(before)
    with rasterio.open(before) as one, rasterio.open(after) as other, WarpedVRT(other, crs=other.crs) as vrt:
        assert codes(wasnow.detect(one, vrt, output=tmp_path / "vrt", model=Toy())) == expected


def test_xarray_with_rioxarray_gives_the_map_of_the_files(files, tmp_path):
    rioxarray = pytest.importorskip("rioxarray", reason="needs rioxarray")
    before, after, expected = files
    arrays = [rioxarray.open_rasterio(path) for path in (before, after)]
    assert codes(wasnow.detect(*arrays, output=tmp_path / "out", model=Toy())) == expected


def test_arrays_without_a_position_are_compared_by_pixel(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 255, (2, 3, 40, 50), dtype=np.uint8)
    result = wasnow.detect(wasnow.Raster(values[0]), wasnow.Raster(values[1]), output=tmp_path / "out", model=Toy())
    assert result.record.grid.crs is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((3, 8, 8), np.uint8), "before is a NumPy array without a position; pass wasnow.Raster"),
        (wasnow.Raster(np.zeros(8)), r"before has the shape \(8,\)"),
        (wasnow.Raster(np.zeros((3, 0, 8))), "before has the shape"),
        (wasnow.Raster(np.zeros((8, 8)), (1, 0, 0, 0, -1, 0), "no CRS"), "before cannot be written as a raster"),
        (42, "before must be a path, a wasnow.Raster, an open raster or an xarray.DataArray, not int"),
        (None, "not NoneType"),
    ],
)
def test_other_values_are_refused_in_one_line(files, tmp_path, value, message):
    with pytest.raises(UsageError, match=message) as caught:
        wasnow.detect(value, files[1], output=tmp_path / "out", model=Toy())
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "change.tif").exists()


def test_a_closed_dataset_is_refused(files, tmp_path):
    with rasterio.open(files[0]) as closed:
        pass
    with pytest.raises(UsageError, match="before is a closed raster"):
        wasnow.detect(closed, files[1], output=tmp_path / "out", model=Toy())
