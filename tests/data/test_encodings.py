"""Label encodings: all published encodings of SECOND give the same codes, and unknown values never become a class."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from data.fakes import encoded
from wasnow.data.encodings import ENCODINGS, UNKNOWN, LabelEncoding, encoding_named
from wasnow.errors import UsageError
from wasnow.vocabulary import NO_LABEL, SECOND_WORDS

SECONDS = ["second-rgb", "second-e1", "second-e2", "second-e3", "second-e4"]

METHOD = {
    "second-rgb": {
        (255, 255, 255): None, (0, 0, 255): "water", (128, 128, 128): "ground", (0, 128, 0): "low vegetation",
        (0, 255, 0): "tree", (128, 0, 0): "building", (255, 0, 0): "playground",
    },
    "second-e1": dict(enumerate([None, "water", "ground", "low vegetation", "tree", "building", "playground"])),
    "second-e2": dict(enumerate([None, "low vegetation", "ground", "tree", "water", "building", "playground"])),
    "second-e3": {
        **dict(enumerate(["water", "ground", "low vegetation", "tree", "building", "playground"])), 255: None
    },
    "second-e4": dict(enumerate(["playground", "low vegetation", "ground", "water", "building", "tree", None])),
}  # fmt: skip


@pytest.mark.parametrize("name", SECONDS)
def test_each_value_of_second_decodes_to_the_published_class(name: str) -> None:
    for raw, word in METHOD[name].items():
        (code,) = ENCODINGS[name].decode(np.array([raw], np.uint8)).ravel().tolist()
        assert (SECOND_WORDS[code - 1] if code else None) == word


@pytest.mark.parametrize("name", ["second-e3", "second-e4", "second-e2", "second-e1", "second-rgb", "landsat-scd-rgb"])
@given(codes=arrays(np.uint8, (5, 7), elements=st.integers(0, 4)))
def test_decoding_inverts_encoding(name: str, codes: np.ndarray) -> None:
    np.testing.assert_array_equal(ENCODINGS[name].decode(encoded(codes, ENCODINGS[name])), codes)


@given(values=arrays(np.uint8, (4, 4)), name=st.sampled_from([n for n, e in ENCODINGS.items() if not e.of_colors]))
def test_a_value_that_is_not_in_the_table_is_unknown(values: np.ndarray, name: str) -> None:
    encoding = ENCODINGS[name]
    if encoding.threshold is None:
        np.testing.assert_array_equal(
            encoding.decode(values) == UNKNOWN,
            np.broadcast_to(~np.isin(values, list(encoding.codes)), encoding.decode(values).shape),
        )


def test_a_colour_that_differs_by_one_level_is_unknown() -> None:
    colors = np.array([[(254, 255, 255), (0, 0, 254), (0, 1, 255), (128, 0, 0)]], np.uint8)
    assert ENCODINGS["second-rgb"].decode(colors).tolist() == [[UNKNOWN, UNKNOWN, UNKNOWN, 5]]


def test_values_outside_8_bits_are_unknown_except_minus_one_which_is_no_label() -> None:
    values = np.array([[-1, 256, 300.0, 1.5, 2]])
    assert ENCODINGS["second-e1"].decode(values).tolist() == [[NO_LABEL, UNKNOWN, UNKNOWN, UNKNOWN, 2]]


def test_white_and_black_are_unchanged_in_colours() -> None:
    assert ENCODINGS["second-rgb"].decode(np.array([[(255, 255, 255), (0, 0, 0)]], np.uint8)).tolist() == [[0, 0]]


def test_landsat_scd_as_published_gives_both_dates() -> None:
    first, second = ENCODINGS["landsat-scd-from-to"].decode(np.arange(10, dtype=np.uint8)[None])
    words = ("", *ENCODINGS["landsat-scd-from-to"].words)
    transitions = [f"{words[a]}-{words[b]}" for a, b in zip(first[0], second[0], strict=True)]
    assert transitions[1:] == [
        "farmland-desert", "farmland-building", "desert-farmland", "desert-building", "desert-water",
        "building-farmland", "building-desert", "water-farmland", "water-desert",
    ]  # fmt: skip


def test_a_jpeg_mask_is_thresholded_above_127() -> None:
    decoded = ENCODINGS["binary-smeared"].decode(np.array([[0, 3, 127, 128, 250, 255]], np.uint8))
    assert decoded.tolist() == [[0, 0, 0, 1, 1, 1]]


def test_second_has_short_names_and_unknown_names_are_rejected_with_the_nearest() -> None:
    assert encoding_named("E2") is ENCODINGS["second-e2"]
    with pytest.raises(UsageError, match="did you mean 'landsat-scd'"):
        encoding_named("landsat-sdc")


def test_dense_encodings_have_no_value_for_unchanged() -> None:
    assert {name for name, each in ENCODINGS.items() if each.dense} == {"hrscd", "dubai-landcover"}


def test_an_encoding_that_mixes_numbers_and_colours_is_rejected() -> None:
    with pytest.raises(UsageError, match="mixes numbers and colours"):
        LabelEncoding("x", "", ("a",), {0: 0, (1, 2, 3): 1})


def test_all_codes_have_a_word() -> None:
    for each in ENCODINGS.values():
        codes = {*each.codes.values(), *(each.after or {}).values()} - {NO_LABEL}
        assert codes <= set(range(max(len(each.words), 1) + 1)), each.name
