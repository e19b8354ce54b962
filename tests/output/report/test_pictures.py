"""Quick-looks: what a person must still see at low zoom."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.io import MemoryFile

from wasnow.errors import RasterUnreadable
from wasnow.output.report import pictures
from wasnow.output.report.pictures import Cells

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def write(path: Path, bands: NDArray[np.uint8]) -> Path:
    count, height, width = bands.shape
    with rasterio.open(path, "w", "GTiff", width, height, count, dtype=bands.dtype.name) as sink:
        sink.write(bands)
    return path


def decode(coded: bytes) -> NDArray[np.uint8]:
    """(rows, cols, 4 or 3), palette resolved."""
    with MemoryFile(coded) as memory, memory.open() as source:
        pixels = source.read()
        if source.count == 1:
            palette = source.colormap(1)
            return np.array([palette.get(i, (0, 0, 0, 0)) for i in range(256)], np.uint8)[pixels[0]]
        return np.moveaxis(pixels, 0, 2)


@given(st.integers(1, 500), st.integers(1, 500))
def test_cells_share_out_every_pixel_and_none_is_empty(size: int, count: int):
    cells = Cells(max(size, count), min(size, count))
    assert np.array_equal(np.unique(cells.of_pixel), np.arange(cells.count))
    assert np.array_equal(cells.starts, np.searchsorted(cells.of_pixel, np.arange(cells.count)))


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 20), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_a_cell_holds_its_most_frequent_change(height: int, width: int, side: int, seed: int):
    rng = np.random.default_rng(seed)
    codes = rng.choice([0, 0, 0, 0, 1, 2, 9, 255, 255], (height, width)).astype(np.uint8)
    driver = {"driver": "GTiff", "width": width, "height": height, "count": 1, "dtype": "uint8"}
    with MemoryFile() as memory:
        with memory.open(**driver) as sink:
            sink.write(codes, 1)
        found = pictures.dominant_codes(memory.name, band=1, unseen=255, side=side)
    rows, cols = found.shape
    assert max(rows, cols) <= side
    row_of, col_of = np.arange(height) * rows // height, np.arange(width) * cols // width
    for row in range(rows):
        for col in range(cols):
            cell = codes[np.ix_(row_of == row, col_of == col)].ravel()
            votes = Counter(int(code) for code in cell if code not in (0, 255))
            unseen = 255 if 2 * (cell == 255).sum() >= cell.size else 0
            wanted = min(votes, key=lambda code: (-votes[code], code)) if votes else unseen
            assert found[row, col] == wanted


def test_one_changed_pixel_of_sixteen_million_is_seen(tmp_path: Path):
    codes = np.zeros((3, 4000, 4000), np.uint8)
    codes[2, 2345, 1234] = 7
    found = pictures.dominant_codes(write(tmp_path / "c.tif", codes), band=3, unseen=255)
    assert found.shape == (1200, 1200)
    assert np.argwhere(found).tolist() == [[2345 * 1200 // 4000, 1234 * 1200 // 4000]]
    assert found.max() == 7


def test_sixteen_bit_codes_survive(tmp_path: Path):
    codes = np.full((1, 10, 10), 900, np.uint16)
    codes[0, :5] = 65535
    found = pictures.dominant_codes(write(tmp_path / "c.tif", codes), band=1, unseen=65535, side=10)
    assert np.array_equal(found, codes[0])


@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 12), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_confidence_is_the_mean_of_what_was_processed(height: int, width: int, side: int, seed: int):
    values = np.random.default_rng(seed).choice([0, 10, 200, 254, 255, 255], (height, width)).astype(np.uint8)
    with MemoryFile() as memory:
        with memory.open(driver="GTiff", width=width, height=height, count=1, dtype="uint8") as sink:
            sink.write(values, 1)
        found = pictures.mean_probability(memory.name, side=side)
    rows, cols = found.shape
    row_of, col_of = np.arange(height) * rows // height, np.arange(width) * cols // width
    for row in range(rows):
        for col in range(cols):
            cell = values[np.ix_(row_of == row, col_of == col)]
            seen = cell[cell != 255]
            if seen.size:
                assert found[row, col] == pytest.approx(seen.mean() / 254, abs=1e-6)
            else:
                assert np.isnan(found[row, col])


def test_the_change_picture_is_see_through_where_nothing_changed_and_hatched_where_nothing_was_seen():
    codes = np.array([[0, 1, 2, 255]], np.uint8).repeat(16, axis=0)
    picture = decode(pictures.change_png(codes, {1: (10, 20, 30), 2: (40, 50, 60)}, unseen=255))
    assert (picture[:, 0, 3] == 0).all()
    assert (picture[:, 1] == (10, 20, 30, 255)).all()
    assert (picture[:, 2] == (40, 50, 60, 255)).all()
    assert {tuple(map(int, pixel)) for pixel in picture[:, 3]} == set(pictures.HATCH)


def test_more_colours_than_a_palette_holds_still_make_a_picture():
    codes = np.arange(1, 401, dtype=np.uint16).reshape(20, 20)
    colors = {code: (code % 256, code // 256, 9) for code in range(1, 401)}
    picture = decode(pictures.change_png(codes, colors, unseen=65535))
    assert (picture[..., 3] == 255).all()
    assert (picture.reshape(-1, 4)[:250] == [(*colors[code], 255) for code in range(1, 251)]).all()


def test_the_confidence_picture_runs_along_the_ramp():
    probability = np.array([[0.0, 1.0, np.nan, 0.5]], np.float32)
    picture = decode(pictures.probability_png(probability))
    assert tuple(picture[0, 0, :3]) == pictures.RAMP[0]
    assert tuple(picture[0, 1, :3]) == pictures.RAMP[-1]
    assert tuple(map(int, picture[0, 2])) in pictures.HATCH


def test_a_photograph_of_pure_noise_keeps_to_its_budget():
    noise = np.random.default_rng(0).integers(0, 256, (700, 900, 3), np.uint8)
    coded = pictures.photo_jpeg(noise, budget=120_000)
    assert len(coded) <= 120_000
    assert coded.startswith(b"\xff\xd8")


def test_a_photograph_looks_like_itself_and_is_hatched_where_not_valid():
    rows, cols = np.indices((80, 100))
    rgb = np.stack([rows * 2, cols * 2, rows + cols], axis=2).astype(np.uint8)
    valid = cols < 50
    picture = decode(pictures.photo_jpeg(rgb, valid)).astype(int)
    assert np.abs(picture[:, :40] - rgb[:, :40]).mean() < 3
    assert np.abs(picture[:, 60:].mean() - 153) < 4


def test_pictures_of_other_shapes_are_refused_with_advice():
    with pytest.raises(ValueError, match="move the bands last"):
        pictures.photo_jpeg(np.zeros((3, 20, 20), np.uint8))
    with pytest.raises(ValueError, match="both must be equal"):
        pictures.photo_jpeg(np.zeros((20, 20, 3), np.uint8), np.ones((10, 20), bool))


def test_a_missing_or_truncated_raster_is_named(tmp_path: Path):
    with pytest.raises(RasterUnreadable, match=r"gone\.tif: cannot be opened"):
        pictures.dominant_codes(tmp_path / "gone.tif", band=1, unseen=255)
    one = write(tmp_path / "one.tif", np.random.default_rng(0).integers(0, 9, (1, 300, 300), np.uint8))
    with pytest.raises(RasterUnreadable, match="has 1 bands, band 3 is required"):
        pictures.dominant_codes(one, band=3, unseen=255)
    one.write_bytes(one.read_bytes()[:40_000])
    with pytest.raises(RasterUnreadable, match="cannot be read"):
        pictures.dominant_codes(one, band=1, unseen=255)
