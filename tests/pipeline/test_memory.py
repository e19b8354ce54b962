"""Out of memory: batches are halved, then tiles, and the prediction stays the same."""

from dataclasses import dataclass

import numpy as np
import pytest
import rasterio
import torch

from making import Toy, pair
from wasnow.errors import OutOfMemory
from wasnow.pipeline.api import detect


@dataclass(frozen=True)
class Limited(Toy):
    """A toy whose device has memory for a number of pixels per call."""

    pixels: int = 10**9

    def __call__(self, before, after, valid):
        if before.shape[0] * before.shape[-2] * before.shape[-1] > self.pixels:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().__call__(before, after, valid)


def codes(result):
    with rasterio.open(result.change) as raster:
        return raster.read()


def test_batches_are_halved_until_they_fit_and_the_map_is_the_same(tmp_path):
    paths = pair(tmp_path)
    whole = detect(*paths, output=tmp_path / "whole", model=Limited(tile=32), batch=8)
    halved = detect(*paths, output=tmp_path / "halved", model=Limited(tile=32, pixels=2 * 32 * 32), batch=8)
    np.testing.assert_array_equal(codes(whole), codes(halved))
    notes = [warning for warning in halved.record.warnings if "out of memory" in warning]
    assert len(notes) == 1
    assert "batches were halved" in notes[0]
    assert not any("out of memory" in warning for warning in whole.record.warnings)


@pytest.mark.parametrize("stride", [1, 8])
def test_a_tile_that_does_not_fit_is_divided_along_its_longer_side(tmp_path, stride):
    paths = pair(tmp_path)
    options = {"stride": stride, "tile": 96}
    whole = detect(*paths, output=tmp_path / "whole", model=Limited(**options))
    divided = detect(*paths, output=tmp_path / "divided", model=Limited(pixels=48 * 64, **options))
    np.testing.assert_array_equal(codes(whole), codes(divided))
    assert sum("tiles were divided" in warning for warning in divided.record.warnings) == 1


def test_a_tile_that_cannot_be_divided_further_is_one_line_of_advice(tmp_path):
    with pytest.raises(OutOfMemory, match=r"toy does not fit into memory with a tile of .* --device cpu"):
        detect(*pair(tmp_path), output=tmp_path / "out", model=Limited(pixels=10))


def test_other_errors_of_the_network_are_raised_unchanged(tmp_path):
    class Broken(Toy):
        def __call__(self, before, after, valid):
            raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        detect(*pair(tmp_path), output=tmp_path / "out", model=Broken())
