"""Training images: undeclared nodata and declared scale."""

import numpy as np
import rasterio

from making import textured, write_raster
from wasnow.data.images import Rendering, read_picture


def test_an_undeclared_collar_of_a_training_image_is_not_valid(tmp_path):
    values = np.clip(textured(0, 128, 128), 5, 250).astype(np.uint8)
    values[:, :, :20] = 0
    values[:, 60:70, 60:70] = 0
    _, valid = read_picture(write_raster(tmp_path / "a.tif", values))
    assert valid is not None
    assert not valid[:, :20].any()
    assert valid[:, 20:].all()


def test_the_stretch_of_a_dataset_is_in_physical_units(tmp_path):
    values = (np.clip(textured(0, 64, 64), 5, 250) * 10).astype(np.uint16)
    plain = write_raster(tmp_path / "plain.tif", values)
    scaled = write_raster(tmp_path / "scaled.tif", values + 1000)
    with rasterio.open(scaled, "r+") as raster:
        raster.scales, raster.offsets = (1e-3,) * 3, (-1.0,) * 3
    expected, _ = read_picture(plain, Rendering(stretch=(0, 2500)))
    found, _ = read_picture(scaled, Rendering(stretch=(0, 2.5)))
    assert np.abs(expected.astype(int) - found).max() <= 1
