"""Class words map to raster codes and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasnow.errors import VocabularyError
from wasnow.vocabulary import MAX_WORDS, Vocabulary

WORDS = st.lists(
    st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=12).filter(lambda w: w.strip()),
    min_size=1,
    max_size=20,
    unique_by=lambda w: w.strip().casefold(),
)


@given(st.integers(1, MAX_WORDS))
def test_every_transition_has_a_unique_code_below_the_not_processed_value(size):
    words = Vocabulary(tuple(f"class {i}" for i in range(size)))
    seen = {(t.before, t.after): t.code for t in words.transitions()}
    assert len(seen) == size**2
    assert sorted(seen.values()) == list(range(1, size**2 + 1))
    assert max(seen.values()) < words.not_processed
    assert seen["class 0", f"class {size - 1}"] == size


def test_sixteen_words_need_a_sixteen_bit_type():
    assert Vocabulary(tuple("abcdefghijklmno")).dtype == np.uint8
    assert Vocabulary(tuple("abcdefghijklmnop")).dtype == np.uint16


@given(st.integers(1, 30), st.integers(0, 1000))
def test_encoded_pixels_decode_to_their_classes_before_and_after(size, seed):
    rng = np.random.default_rng(seed)
    words = Vocabulary(tuple(f"{i}" for i in range(size)))
    changed = rng.random((6, 7)) < 0.5
    before, after = rng.integers(0, size, (2, 6, 7))
    codes = words.encode(changed, before, after)
    assert (codes[:, ~changed] == 0).all()
    for row, col in zip(*np.nonzero(changed), strict=True):
        transition = words.transition(int(codes[2, row, col]))
        assert (transition.before, transition.after) == (str(before[row, col]), str(after[row, col]))
        assert (codes[0, row, col] - 1, codes[1, row, col] - 1) == (before[row, col], after[row, col])


def test_a_vocabulary_without_words_has_one_transition():
    empty = Vocabulary()
    codes = empty.encode(np.array([[True, False]]))
    assert codes.tolist() == [[[0, 0]], [[0, 0]], [[1, 0]]]
    assert empty.transition(1).label == "changed"


def test_words_are_split_at_commas_and_stripped():
    assert Vocabulary.parse(" water, bare ground ,building").words == ("water", "bare ground", "building")
    assert Vocabulary.parse(None).words == ()


@pytest.mark.parametrize("text", ["water,,building", "", "  "])
def test_an_empty_word_is_rejected(text):
    with pytest.raises(VocabularyError, match="empty"):
        Vocabulary.parse(text)


@pytest.mark.parametrize("words", [("water", "Water"), ("straße", "STRASSE"), ("ﬁeld", "field")])
def test_a_repeated_word_is_rejected_in_any_spelling(words):
    with pytest.raises(VocabularyError, match="twice"):
        Vocabulary(words)


def test_a_line_break_in_a_word_is_rejected():
    with pytest.raises(VocabularyError, match="control character"):
        Vocabulary(("wa\nter",))


def test_more_words_than_codes_are_rejected():
    with pytest.raises(VocabularyError, match="256 class words"):
        Vocabulary(tuple(str(i) for i in range(256)))


@given(WORDS)
def test_every_word_has_a_valid_colour(words):
    vocabulary = Vocabulary(tuple(words))
    for code in range(1, len(words) + 1):
        assert all(0 <= part <= 255 for part in vocabulary.color(code))
