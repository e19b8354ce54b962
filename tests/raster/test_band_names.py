"""Band names as users and agencies write them."""

import pytest

from wasnow.raster.band_names import band_named, names_contradict_rgb, rgb_positions


@pytest.mark.parametrize(
    ("names", "positions"),
    [
        (["B2", "B3", "B4"], (2, 1, 0)),
        (["B04", "B03", "B02", "B08"], (0, 1, 2)),
        (["SR_B1", "SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B6", "SR_B7"], (3, 2, 1)),
        (["SR_B1", "SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B7"], (2, 1, 0)),
        (["blue_median", "green_median", "red_median", "nir_median"], (2, 1, 0)),
        (["Red (665 nm)", "Green (560 nm)", "Blue (490 nm)", "Red edge 1"], (0, 1, 2)),
        (["b", "g", "r", "nir"], (2, 1, 0)),
        (["S2_B2", "S2_B3", "S2_B4", "S2_B8A"], (2, 1, 0)),
    ],
)
def test_colours_are_found_by_name(names, positions):
    assert rgb_positions(names) == positions


@pytest.mark.parametrize(
    "names",
    [
        ["band 1", "band 2", "band 3", "band 4"],
        ["B1", "B2", "B3"],
        ["B1", "B2", "B3", "B4"],
        ["red", "red edge", "nir"],
        ["vv", "vh", "ratio"],
        ["red 2019", "red 2020", "green", "blue"],
        [],
    ],
)
def test_ambiguous_names_are_not_guessed(names):
    assert rgb_positions(names) is None


@pytest.mark.parametrize(
    ("names", "wrong"),
    [
        (("blue", "green", "nir"), True),
        (("nir", "red", "green"), True),
        (("red", "green", "swir1"), False),
        (("Band 1", "Band 2", "Band 3"), False),
        ((None, None, None), False),
    ],
)
def test_names_can_show_that_the_first_three_bands_are_not_rgb(names, wrong):
    assert names_contradict_rgb(names) == wrong


@pytest.mark.parametrize(
    ("wanted", "band"), [("B4", 3), ("b04", 3), ("SR_B4", 3), ("B2", 1), ("B12", 4), ("B1", None), ("nir", None)]
)
def test_a_band_is_found_by_its_number_with_or_without_the_prefix_of_a_product(wanted, band):
    assert band_named(("SR_B2", "SR_B3", "SR_B4", "SR_B12"), wanted) == band
