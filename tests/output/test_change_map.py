"""A result folder as data frames and arrays."""

import numpy as np
import pytest
import rasterio

import wasnow
from making import Toy, pair
from wasnow.errors import UsageError
from wasnow.output import change_map


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    before, after = pair(folder, height=60, width=80)
    return wasnow.detect(before, after, output=folder / "out", model=Toy(tile=32), landcover=True)


def test_polygons_are_a_geodataframe_in_the_crs_of_the_rasters(result):
    pytest.importorskip("geopandas")
    frame = result.to_geopandas()
    assert len(frame) == result.record.polygons > 0
    assert frame.crs.to_epsg() == rasterio.open(result.change).crs.to_epsg()
    assert frame.area_m2.sum() == pytest.approx(result.changed_area_m2)


def test_rasters_are_one_dataset_with_a_variable_per_band(result):
    pytest.importorskip("rioxarray")
    dataset = result.to_xarray()
    with rasterio.open(result.change) as change, rasterio.open(result.confidence) as confidence:
        names = [*change.descriptions, *confidence.descriptions, "landcover_before", "landcover_after"]
        assert list(dataset.data_vars) == names
        assert np.array_equal(dataset["transition"].values, change.read(3))
        assert np.array_equal(dataset["change_probability"].values, confidence.read(1))
        assert dataset.rio.crs == change.crs
        assert dataset.rio.transform() == change.transform


@pytest.mark.parametrize("method", ["to_geopandas", "to_xarray"])
def test_a_missing_extra_is_named_with_the_command_that_installs_it(result, monkeypatch, method):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(change_map, "import_module", missing)
    with pytest.raises(UsageError, match=r"pip install 'wasnow\[geo\]'"):
        getattr(result, method)()
