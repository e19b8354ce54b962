"""Polygons of change: chunked against whole, and whole against GDAL's polygonize with scikit-image's labels."""

from collections import Counter

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rasterio.features import shapes
from shapely.geometry import shape
from skimage.measure import label

from wasnow.errors import GridMismatch, RasterUnreadable, RasterUnsuitable, UsageError
from wasnow.output.vector import PolygonBatch, polygonize
from wasnow.output.vector.components import Components, Pixels, components
from wasnow.output.vector.outlines import corners_of_labels, polygons
from wasnow.vocabulary import Vocabulary

MISSING = 255
UTM = "EPSG:32631"
NORTH_UP = Affine(10, 0, 500_000, 0, -10, 5_000_000)
TWO_WORDS = Vocabulary(("water", "building"))
RASTERS = arrays(
    np.uint8,
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    elements=st.sampled_from([0, 1, 1, 1, 2, 2, MISSING]),
)


def reader(codes, confidence=None, areas=None):
    """What `components` reads from, in memory."""
    padded = np.pad(codes, 1)
    confidence = np.full((1, *codes.shape), 100, np.uint8) if confidence is None else confidence

    def read(row, col, height, width):
        inner = np.s_[row : row + height, col : col + width]
        return Pixels(
            padded[row : row + height + 2, col : col + width + 2],
            confidence[:, inner[0], inner[1]],
            None if areas is None else areas[inner],
        )

    return read


def found(codes, connectivity=4, chunk=1000, **more):
    """Everything that is known of each component, in one order."""
    rows = []
    for part in components(
        reader(codes, **more), *codes.shape, not_processed=MISSING, connectivity=connectivity, chunk=chunk
    ):
        outlines = polygons(part.region, part.corners, len(part), diagonal=connectivity == 8)
        columns = (part.first, part.code, part.n_px, part.area_m2, part.edge, part.beside_not_processed)
        sums = part.confidence.tolist(), part.known.tolist()
        rows += list(zip(*(column.tolist() for column in columns), *sums, shapely.to_wkb(outlines), strict=True))
    return sorted(rows)


def oracle(codes, connectivity):
    """(code, pixels, polygon), by scikit-image and GDAL on the whole raster."""
    change = np.where(codes == MISSING, 0, codes)
    labels = label(change, background=0, connectivity=1 if connectivity == 4 else 2).astype(np.int32)
    parts: dict[int, list] = {}
    for outline, value in shapes(labels, mask=labels > 0, connectivity=4):
        parts.setdefault(int(value), []).append(shape(outline))
    return [
        (int(change[labels == value][0]), int((labels == value).sum()), shapely.union_all(pieces))
        for value, pieces in parts.items()
    ]


def turns_everywhere(ring):
    xy = shapely.get_coordinates(ring)[:-1]
    step = xy - np.roll(xy, 1, axis=0)
    following = np.roll(step, -1, axis=0)
    return (step[:, 0] * following[:, 1] != step[:, 1] * following[:, 0]).all()


@settings(max_examples=60, deadline=None)
@given(RASTERS, st.sampled_from([4, 8]))
def test_polygons_are_those_of_gdal_and_valid(codes, connectivity):
    mine = [(row[1], row[2], shapely.from_wkb(row[-1])) for row in found(codes, connectivity)]
    theirs = oracle(codes, connectivity)
    assert len(mine) == len(theirs)
    for code, n_px, outline in mine:
        assert outline.is_valid
        assert outline.area == n_px
        assert sum((code, n_px) == other[:2] and outline.equals(other[2]) for other in theirs) == 1


@settings(max_examples=60, deadline=None)
@given(RASTERS, st.sampled_from([4, 8]), st.integers(1, 5))
def test_chunks_leave_no_trace(codes, connectivity, chunk):
    assert found(codes, connectivity, chunk) == found(codes, connectivity)


@settings(max_examples=30, deadline=None)
@given(RASTERS, st.sampled_from([4, 8]), st.integers(1, 4))
def test_every_vertex_of_an_outline_is_a_turn(codes, connectivity, chunk):
    for row in found(codes, connectivity, chunk):
        for part in shapely.get_parts(shapely.from_wkb(row[-1])):
            assert all(turns_everywhere(ring) for ring in shapely.get_rings(part))


@settings(max_examples=30, deadline=None)
@given(RASTERS, st.integers(1, 4), st.randoms(use_true_random=False))
def test_sums_and_flags_are_those_of_the_pixels(codes, chunk, random):
    generator = np.random.default_rng(random.randrange(2**32))
    confidence = generator.integers(0, 256, (3, *codes.shape)).astype(np.uint8)
    areas = generator.integers(1, 50, codes.shape).astype(float)
    rows = found(codes, chunk=chunk, confidence=confidence, areas=areas)
    labels = label(np.where(codes == MISSING, 0, codes), background=0, connectivity=1)
    padded = np.pad(codes == MISSING, 1)
    beside = padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    border = np.ones(codes.shape, bool)
    border[1:-1, 1:-1] = False
    assert len(rows) == labels.max()
    for first, code, n_px, area, edge, touches, total, known, _ in rows:
        inside = labels == labels.flat[first]
        assert first == np.flatnonzero(inside)[0]
        assert (codes[inside] == code).all()
        assert (n_px, area) == (inside.sum(), areas[inside].sum())
        assert edge == (inside & border).any()
        assert touches == (inside & beside).any()
        for band in range(3):
            values = confidence[band][inside]
            assert (total[band], known[band]) == (values[values < 255].sum(dtype=int), (values < 255).sum())


def test_a_snake_through_every_chunk_is_one_polygon():
    codes = np.zeros((41, 37), np.uint8)
    codes[::4] = 1
    codes[:, -1] = np.where(np.arange(41) // 4 % 2 == 0, 1, codes[:, -1])
    codes[:, 0] = np.where(np.arange(41) // 4 % 2 == 1, 1, codes[:, 0])
    (only,) = found(codes, chunk=3)
    assert only[2] == (codes == 1).sum()
    assert only == found(codes)[0]


def test_what_ends_inside_a_chunk_goes_out_with_it_and_what_waits_goes_out_as_soon_as_it_can():
    codes = np.zeros((12, 4), np.uint8)
    codes[1, 1] = codes[3:5, 2] = codes[6, 0] = codes[9, 1] = 1
    batches = components(reader(codes), 12, 4, not_processed=MISSING, chunk=4)
    assert [part.first.tolist() for part in batches] == [[5], [14, 24], [37]]


def test_little_is_kept_of_a_raster_that_is_long_gone():
    """The corners that wait at a seam belong to what crosses it, not to all that was seen."""
    generator = np.random.default_rng(0)
    held = []

    def read(row, col, height, width):
        import gc

        gc.collect()
        held.append(sum(len(one.corners) for one in gc.get_objects() if isinstance(one, Components)))
        codes = np.zeros((height + 2, width + 2), np.uint8)
        codes[1:-1, 1:-1] = generator.integers(0, 2, (height, width))
        codes[-1, 1:-1] = codes[-2, 1:-1]
        return Pixels(codes, np.zeros((1, height, width), np.uint8), None)

    for part in components(read, 64 * 12, 64, not_processed=MISSING, chunk=64):
        del part
    assert max(held[6:]) <= 3 * max(held[1:6])


def test_equal_labels_that_meet_by_a_corner_only_have_a_double_corner_there():
    _, corners = corners_of_labels(np.array([[1, 0], [0, 1]]))
    assert [1, 1, 2] in corners.tolist()


def write_result(folder, codes, *, p=(127,), crs=UTM, transform=NORTH_UP, vocabulary=TWO_WORDS):
    """A result folder's two rasters; each confidence band holds one value."""
    change, confidence = folder / "change.tif", folder / "confidence.tif"
    height, width = codes.shape
    profile = {"driver": "GTiff", "height": height, "width": width, "crs": crs, "transform": transform}
    with rasterio.open(change, "w", count=3, dtype=vocabulary.dtype.name, **profile) as out:
        out.write(np.stack([codes] * 3).astype(vocabulary.dtype))
    with rasterio.open(confidence, "w", count=len(p), dtype="uint8", **profile) as out:
        out.write(np.stack([np.full(codes.shape, value, np.uint8) for value in p]))
    return change, confidence


def only(batches) -> PolygonBatch:
    (batch,) = batches
    return batch


def test_an_unchanged_raster_has_no_polygons(tmp_path):
    assert list(polygonize(*write_result(tmp_path, np.zeros((20, 30), int)), TWO_WORDS)) == []


def test_a_raster_where_nothing_was_processed_has_no_polygons(tmp_path):
    assert list(polygonize(*write_result(tmp_path, np.full((20, 30), MISSING)), TWO_WORDS)) == []


def test_a_raster_that_changed_everywhere_is_one_rectangle_on_the_edge(tmp_path):
    batch = only(polygonize(*write_result(tmp_path, np.ones((20, 30), int)), TWO_WORDS, chunk=7))
    assert batch.geometry[0].equals(shapely.box(500_000, 4_999_800, 500_300, 5_000_000))
    assert shapely.get_num_coordinates(batch.geometry[0]) == 5
    assert (batch.edge.tolist(), batch.flags.tolist(), batch.n_px.tolist()) == ([True], [""], [600])


def test_ids_count_up_in_the_order_of_the_first_pixel(tmp_path):
    codes = np.zeros((9, 9), int)
    codes[0, 5] = codes[4, 0] = codes[4, 3] = codes[8, 8] = 2
    batch = only(polygonize(*write_result(tmp_path, codes), TWO_WORDS))
    west_north = shapely.bounds(batch.geometry)[:, [0, 3]]
    assert batch.id.tolist() == [1, 2, 3, 4]
    assert west_north.tolist() == [[500_050, 5e6], [5e5, 4_999_960], [500_030, 4_999_960], [500_080, 4_999_920]]


def test_probabilities_are_means_and_unknown_ones_are_missing(tmp_path):
    codes = np.eye(4, dtype=int)
    batch = only(polygonize(*write_result(tmp_path, codes, p=(254, 127, 255)), TWO_WORDS))
    assert batch.p_change.tolist() == [1.0] * 4
    assert batch.p_from.tolist() == [0.5] * 4
    assert np.isnan(batch.p_to).all()


def test_without_classes_only_the_change_has_a_probability(tmp_path):
    batch = only(polygonize(*write_result(tmp_path, np.eye(2, dtype=int), vocabulary=Vocabulary()), Vocabulary()))
    assert batch.p_change.tolist() == [0.5, 0.5]
    assert np.isnan(batch.p_from).all()
    assert np.isnan(batch.p_to).all()


@pytest.mark.parametrize(
    "transform",
    [
        NORTH_UP,
        Affine(10, 0, 500_000, 0, 10, 5_000_000),
        Affine(-10, 0, 500_000, 0, -10, 5_000_000),
        Affine.translation(500_000, 5_000_000) @ Affine.rotation(30) @ Affine.scale(10, -10),
        Affine(0, 10, 500_000, 10, 0, 5_000_000),
    ],
    ids=["north-up", "south-up", "west-right", "rotated", "transposed"],
)
def test_outlines_follow_any_affine_and_run_counter_clockwise(tmp_path, transform):
    codes = np.zeros((8, 8), int)
    codes[1:6, 1:5] = 1
    codes[3, 2] = 0
    batch = only(polygonize(*write_result(tmp_path, codes, transform=transform), TWO_WORDS))
    polygon = batch.geometry[0]
    assert polygon.exterior.is_ccw
    assert not polygon.interiors[0].is_ccw
    assert polygon.contains(shapely.Point(transform @ (1.5, 1.5)))
    assert not polygon.intersects(shapely.Point(transform @ (2.5, 3.5)))
    assert polygon.area == pytest.approx(19 * abs(transform.determinant))
    assert batch.area_m2[0] == pytest.approx(polygon.area / 0.9996**2, rel=1e-6)  # at the central meridian


def test_small_polygons_are_left_out_by_area_or_by_pixels(tmp_path):
    codes = np.zeros((9, 20), int)
    codes[1:3, 1:3] = codes[5:8, 1:4] = codes[1, 10] = 1
    paths = write_result(tmp_path, codes)
    sizes = [
        only(polygonize(*paths, TWO_WORDS, **options)).n_px.tolist()
        for options in ({}, {"min_pixels": 4}, {"min_area_m2": 450.0}, {"min_pixels": 9, "min_area_m2": 100})
    ]
    assert sizes == [[4, 1, 9], [4, 9], [9], [9]]


def test_without_georeference_areas_are_unknown_and_the_smallest_area_counts_pixels(tmp_path):
    codes = np.zeros((9, 20), int)
    codes[1:3, 1:3] = codes[5:8, 1:4] = 1
    paths = write_result(tmp_path, codes, crs=None, transform=None)
    batch = only(polygonize(*paths, TWO_WORDS, min_area_m2=5))
    assert batch.n_px.tolist() == [9]
    assert np.isnan(batch.area_m2).all()
    assert batch.geometry[0].equals(shapely.box(1, 5, 4, 8))


def test_pixels_that_meet_by_a_corner_are_one_multipolygon_with_connectivity_8(tmp_path):
    batch = only(polygonize(*write_result(tmp_path, np.eye(5, dtype=int)), TWO_WORDS, connectivity=8))
    assert batch.n_px.tolist() == [5]
    assert [part.area for part in batch.geometry[0].geoms] == [100] * 5


def test_what_lies_beside_missing_ground_says_so(tmp_path):
    codes = np.zeros((5, 9), int)
    codes[2, 1] = codes[2, 7] = 1
    codes[2, 8] = MISSING
    flags = {}
    for batch in polygonize(
        *write_result(tmp_path, codes), TWO_WORDS, chunk=4
    ):  # the missing pixel is in another chunk
        flags |= dict(zip(shapely.get_x(shapely.centroid(batch.geometry)).tolist(), batch.flags, strict=True))
    assert flags == {500_015.0: "", 500_075.0: "touches_not_processed"}


@settings(max_examples=12, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from([4, 8]), st.sampled_from([5.0, 12.0, 40.0]))
def test_simplified_neighbours_neither_overlap_nor_part(tmp_path_factory, random, connectivity, tolerance):
    generator = np.random.default_rng(random.randrange(2**32))
    codes = np.kron(generator.integers(1, 5, (5, 5)), np.ones((5, 5), int))
    swaps = generator.random(codes.shape) < 0.15
    codes[swaps] = generator.integers(1, 5, swaps.sum())
    paths = write_result(tmp_path_factory.mktemp("scene"), codes)
    plain = list(polygonize(*paths, TWO_WORDS, connectivity=connectivity))
    simple = list(polygonize(*paths, TWO_WORDS, connectivity=connectivity, simplify_m=tolerance))
    outlines = np.concatenate([batch.geometry for batch in simple])
    assert shapely.is_valid(outlines).all()
    assert shapely.coverage_is_valid(outlines)
    whole = shapely.union_all(outlines)
    # every pixel changed: a gap would be a hole, an overlap would count twice
    assert sum(len(part.interiors) for part in shapely.get_parts(whole)) == 0
    assert shapely.area(outlines).sum() == pytest.approx(whole.area, rel=1e-9)
    assert {g.geom_type for g in outlines} == {"Polygon" if connectivity == 4 else "MultiPolygon"}
    for before, after in zip(plain, simple, strict=True):
        assert after.n_px.tolist() == before.n_px.tolist()
        assert after.area_m2.tolist() == before.area_m2.tolist()


def test_simplifying_turns_a_staircase_into_a_slope(tmp_path):
    paths = write_result(tmp_path, np.tri(30, dtype=int))
    (plain,) = only(polygonize(*paths, TWO_WORDS)).geometry
    (simple,) = only(polygonize(*paths, TWO_WORDS, simplify_m=15.0)).geometry
    assert shapely.get_num_coordinates(simple) <= 8 < shapely.get_num_coordinates(plain)
    assert simple.area == pytest.approx(plain.area, rel=0.05)


def test_many_polygons_come_in_several_batches_and_every_id_once(tmp_path):
    codes = np.zeros((500, 500), int)
    codes[::2, ::2] = 1
    batches = list(polygonize(*write_result(tmp_path, codes), TWO_WORDS))
    assert len(batches) > 1
    assert np.concatenate([batch.id for batch in batches]).tolist() == list(range(1, 250 * 250 + 1))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"connectivity": 6}, "give 4, or 8"),
        ({"min_area_m2": -1.0}, "give 0 or more"),
        ({"min_area_m2": float("nan")}, "give 0 or more"),
        ({"simplify_m": float("inf")}, "give 0 or more"),
        ({"chunk": 0}, "give 1 or more"),
    ],
)
def test_options_out_of_range_are_refused(tmp_path, options, said):
    with pytest.raises(UsageError, match=said):
        list(polygonize(*write_result(tmp_path, np.eye(3, dtype=int)), TWO_WORDS, **options))


def test_rasters_that_do_not_fit_are_refused_with_advice(tmp_path):
    change, confidence = write_result(tmp_path, np.eye(3, dtype=int))
    with pytest.raises(RasterUnreadable, match="Run wasnow detect again"):
        list(polygonize(tmp_path / "absent.tif", confidence, TWO_WORDS))
    with pytest.raises(RasterUnsuitable, match="required are 3 of uint16"):
        list(polygonize(change, confidence, Vocabulary(tuple("abcdefghijklmnopqrst"))))
    with pytest.raises(RasterUnsuitable, match="required are 1 or 3 of uint8"):
        list(polygonize(change, _two_bands(tmp_path), TWO_WORDS))
    (tmp_path / "other").mkdir()
    with pytest.raises(GridMismatch, match="take both from one folder"):
        list(polygonize(change, write_result(tmp_path / "other", np.eye(4, dtype=int))[1], TWO_WORDS))


def _two_bands(folder):
    (folder / "two").mkdir()
    return write_result(folder / "two", np.eye(3, dtype=int), p=(1, 2))[1]


def test_a_damaged_raster_is_named(tmp_path):
    change, confidence = write_result(tmp_path, np.random.default_rng(0).integers(0, 4, (300, 300)))
    change.write_bytes(change.read_bytes()[: change.stat().st_size // 2])
    with pytest.raises(RasterUnreadable, match=r"change\.tif"):
        list(polygonize(change, confidence, TWO_WORDS))


def test_the_codes_of_all_polygons_are_counted_as_in_the_raster(tmp_path):
    codes = np.random.default_rng(3).integers(0, 5, (60, 60))
    pixels: Counter[int] = Counter()
    for batch in polygonize(*write_result(tmp_path, codes), TWO_WORDS, chunk=16):
        for code, n_px in zip(batch.code.tolist(), batch.n_px.tolist(), strict=True):
            pixels[code] += n_px
    assert pixels == Counter(codes[codes > 0].ravel().tolist())
