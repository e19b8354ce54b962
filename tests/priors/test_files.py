"""Existing masks, brought onto the image's grid."""

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.features import rasterize
from rasterio.warp import Resampling, reproject, transform_geom

from making import UTM, write_raster
from wasnow.errors import GridMismatch, InputError, RasterUnsuitable, UsageError
from wasnow.priors.files import MaskFiles
from wasnow.raster.grid import Grid
from wasnow.raster.tiles import Window

GRID = Grid(CRS.from_epsg(32632), UTM, 60, 40)
WHOLE = Window(0, 0, 40, 60)
PLAIN = Grid(None, Affine.identity(), 60, 40)


def codes(seed=0, shape=(40, 60), most=3):
    return np.random.default_rng(seed).integers(0, most, shape, dtype=np.uint8).repeat(1, 0)


def on(path, words, grid=GRID, window=WHOLE, column=None):
    return MaskFiles.of_pair([path], words, column).on(path, grid, window)


def footprints(path, polygons, words=None, crs="EPSG:32632", column="class"):
    fields = [] if words is None else [np.array(words, object)]
    pyogrio.raw.write(
        path, shapely.to_wkb(np.array(polygons, object)), fields, [] if words is None else [column], crs=crs,
        geometry_type="Polygon",
    )  # fmt: skip
    return path


def square(col, row, side, grid=GRID):
    """Return a polygon from pixel coordinates of a grid."""
    xs, ys = grid.to_world(np.array([col, col + side], float), np.array([row, row + side], float))
    return shapely.box(min(xs), min(ys), max(xs), max(ys))


# --- rasters -------------------------------------------------------------------------------------------------------


def test_bands_named_after_the_words_may_be_in_any_order(tmp_path):
    bands = np.stack([codes(1, most=2), codes(2, most=2), codes(3, most=2)])
    path = write_raster(tmp_path / "m.tif", bands)
    with rasterio.open(path, "r+") as raster:
        raster.descriptions = ("Water", "road", "building")
    found = on(path, ("building", "water"))
    np.testing.assert_array_equal(found, bands[[2, 0]] != 0)


def test_a_band_of_numbers_holds_the_words_in_order(tmp_path):
    path = write_raster(tmp_path / "m.tif", codes()[None])
    np.testing.assert_array_equal(on(path, ("building", "road")), [codes() == 1, codes() == 2])


def test_for_a_single_word_all_nonzero_pixels_except_nodata_are_masked(tmp_path):
    path = write_raster(tmp_path / "m.tif", codes()[None] * 100, nodata=200)
    np.testing.assert_array_equal(on(path, ("building",))[0], codes() == 1)


def test_nan_is_not_masked(tmp_path):
    values = codes().astype(np.float32)
    values[0] = np.nan
    found = on(write_raster(tmp_path / "m.tif", values[None]), ("building",))[0]
    assert not found[0].any()
    np.testing.assert_array_equal(found[1:], codes()[1:] != 0)


def test_bands_without_names_that_do_not_match_the_words_are_rejected(tmp_path):
    path = write_raster(tmp_path / "m.tif", np.stack([codes()] * 3))
    with pytest.raises(RasterUnsuitable, match=r"3 bands .* 2 words"):
        on(path, ("building", "road"))


def test_a_raster_in_another_crs_is_warped_by_nearest_neighbour(tmp_path):
    values = np.zeros((120, 160), np.uint8)
    values[30:80, 40:110] = 1
    there = Affine(1.3e-5, 0, 8.9997, 0, -1.0e-5, 49.6523)
    path = write_raster(tmp_path / "m.tif", values[None], crs="EPSG:4326", transform=there)
    expected = np.zeros((40, 60), np.uint8)
    reproject(
        values, expected, src_transform=there, src_crs="EPSG:4326", dst_transform=UTM, dst_crs="EPSG:32632",
        resampling=Resampling.nearest, tolerance=0,
    )  # fmt: skip
    found = on(path, ("building",))[0]
    assert 0.1 < expected.mean() < 0.9
    assert (found != (expected == 1)).mean() < 0.01


def test_windows_agree_with_the_whole_raster(tmp_path):
    path = write_raster(tmp_path / "m.tif", codes(shape=(30, 50))[None], transform=UTM @ Affine.translation(4, 7))
    whole = on(path, ("a", "b"))
    expected = np.zeros((40, 60), np.uint8)
    expected[7:37, 4:54] = codes(shape=(30, 50))
    np.testing.assert_array_equal(whole, [expected == 1, expected == 2])
    for window in (Window(0, 0, 9, 9), Window(5, 3, 20, 30), Window(30, 50, 10, 10)):
        at = slice(window.row, window.row_stop), slice(window.col, window.col_stop)
        np.testing.assert_array_equal(on(path, ("a", "b"), window=window), whole[(slice(None), *at)])


def test_without_georeference_sizes_must_be_equal(tmp_path):
    path = write_raster(tmp_path / "m.png", codes()[None], crs=None, driver="PNG")
    np.testing.assert_array_equal(on(path, ("a", "b")), [codes() == 1, codes() == 2])
    np.testing.assert_array_equal(on(path, ("a", "b"), grid=PLAIN), [codes() == 1, codes() == 2])
    with pytest.raises(GridMismatch, match="60 x 40 px, the image 61 x 40"):
        on(path, ("a", "b"), grid=Grid(GRID.crs, UTM, 61, 40))


# --- polygons ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["m.gpkg", "m.geojson"])
def test_footprints_are_rasterized_by_pixel_centres(tmp_path, name):
    shapes = [square(3, 4, 10), square(40.6, 20.6, 7)]
    crs = "EPSG:32632"
    if name.endswith("geojson"):
        shapes = [shapely.geometry.shape(transform_geom(crs, "EPSG:4326", s.__geo_interface__)) for s in shapes]
        crs = "EPSG:4326"
    path = footprints(tmp_path / name, shapes, crs=crs)
    expected = rasterize([square(3, 4, 10), square(40.6, 20.6, 7)], (40, 60), transform=UTM).astype(bool)
    np.testing.assert_array_equal(on(path, ("building",))[0], expected)


def test_a_column_names_the_word_of_each_polygon_and_overlaps_belong_to_both(tmp_path):
    path = footprints(
        tmp_path / "m.gpkg", [square(0, 0, 20), square(10, 10, 20), square(0, 30, 5)], ["Building", "road", "shed"]
    )
    masks = on(path, ("building", "road", "water"))
    assert masks[0].sum() == masks[1].sum() == 400
    assert (masks[0] & masks[1]).sum() == 100
    assert not masks[2].any()
    # A single word takes all polygons unless a column is named.
    assert on(path, ("building",))[0].sum() == 400 + 300 + 25
    assert on(path, ("building",), column="class")[0].sum() == 400


def test_only_the_polygons_of_a_window_are_read_and_windows_agree_with_the_whole(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    shapes = [square(*rng.uniform(-20, 70, 2), rng.uniform(1, 9)) for _ in range(60)]
    path = footprints(tmp_path / "m.gpkg", shapes)
    whole = on(path, ("building",))[0]
    read = pyogrio.raw.read
    sizes = []

    def counted(*args, **kwargs):
        answer = read(*args, **kwargs)
        sizes.append(len(answer[2]))
        return answer

    monkeypatch.setattr(pyogrio.raw, "read", counted)
    window = Window(5, 10, 25, 20)
    np.testing.assert_array_equal(on(path, ("building",), window=window)[0], whole[5:30, 10:30])
    assert 0 < sizes[0] < 30


def test_several_words_need_a_column(tmp_path):
    path = footprints(tmp_path / "m.gpkg", [square(0, 0, 5)])
    with pytest.raises(InputError, match="--column"):
        on(path, ("building", "road"))
    with pytest.raises(InputError, match="no column 'kind'"):
        on(path, ("building",), column="kind")


# --- which file ----------------------------------------------------------------------------------------------------


def test_one_file_is_used_for_both_dates_and_two_for_one_date_each(tmp_path):
    one, two = (write_raster(tmp_path / name, codes()[None]) for name in ("a.tif", "b.tif"))
    assert MaskFiles.of_pair([one], ["x"]).sources == (one, one)
    assert MaskFiles.of_pair([one, two], ["x"]).sources == (one, two)
    with pytest.raises(UsageError, match="3 mask files"):
        MaskFiles.of_pair([one, two, one], ["x"])
    with pytest.raises(InputError, match="no such file"):
        MaskFiles.of_pair([tmp_path / "c.tif"], ["x"])


def test_a_folder_of_a_pair_has_one_file_for_each_date(tmp_path):
    one, two = (write_raster(tmp_path / name, codes()[None]) for name in ("before.tif", "after.png"))
    assert MaskFiles.of_pair([tmp_path], ["x"]).sources == (one, two)
    two.unlink()
    with pytest.raises(InputError, match="0 mask files named after"):
        MaskFiles.of_pair([tmp_path], ["x"])


@pytest.mark.parametrize("folders", [("before", "after"), ("A", "B"), ("train/im1", "train/im2"), ("T1", "T2")])
def test_mask_files_of_a_dataset_have_the_names_of_its_images(tmp_path, folders):
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "x_1.png").write_bytes(b"")
    files = MaskFiles.of_dataset([tmp_path], ["building"])
    found = [files.file_of(date, "train", ["x_1"]) for date in (0, 1)]
    assert found == [tmp_path / folder / "x_1.png" for folder in folders]
    with pytest.raises(InputError, match=r"no mask for y of train. Add one, such as .*before.*y\.png"):
        files.file_of(0, "train", ["y"])


def test_two_folders_are_used_for_one_date_each(tmp_path):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_bytes(b"")
    files = MaskFiles.of_dataset([tmp_path / "old", tmp_path / "new"], ["building"])
    assert [files.file_of(date, "all", ["x"]) for date in (0, 1)] == [tmp_path / n / "x.png" for n in ("old", "new")]
