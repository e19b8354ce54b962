"""Words become the ids that the published models were trained with, or are refused in words."""

import subprocess
import sys
import unicodedata

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from parity.fill import load
from parity.published import FOLDER
from wasnow.errors import VocabularyError
from wasnow.nn.clip_words import EOS, POSITIONS, SOS, tokenize, word_tokens

PRINTABLE = st.text(st.characters(exclude_categories=("Cs", "Cc", "Cn"), exclude_characters="<>"), max_size=8)


@pytest.mark.parametrize("fixture", ["openclip_tiny", "openclip_tiny_quickgelu"])
def test_ids_are_those_of_open_clip(fixture):
    spec, expected = load(FOLDER, fixture)
    assert torch.equal(tokenize(spec["texts"]), torch.from_numpy(expected["tokens_ids"]))


@given(st.lists(PRINTABLE, min_size=1, max_size=4))
def test_a_row_is_sos_tokens_eos_and_zeros(words):
    ids = tokenize(words)
    assert ids.shape == (len(words), POSITIONS)
    assert ids.dtype == torch.int64
    for row, word in zip(ids.tolist(), words, strict=True):
        tokens = word_tokens(word)
        assert row == [SOS, *tokens, EOS] + [0] * (POSITIONS - 2 - len(tokens))
        assert all(token < SOS for token in tokens)


@given(PRINTABLE)
def test_a_shorter_row_is_the_beginning_of_a_longer_one(word):
    needed = len(word_tokens(word)) + 2
    assert torch.equal(tokenize([word], needed)[0], tokenize([word])[0, :needed])


def test_case_white_space_and_accent_encoding_make_no_difference():
    for text in ("Low Vegetation", "  low \t vegetation ", "LOW VEGETATION"):
        assert word_tokens(text) == word_tokens("low vegetation")
    assert word_tokens(unicodedata.normalize("NFD", "forêt")) == word_tokens("forêt")


def test_words_of_any_script_have_tokens():
    for text in ("建物", "лес", "مبنى", "🌳", "Gebäude"):
        assert word_tokens(text)
    assert word_tokens("") == []


def test_a_word_that_does_not_fit_is_rejected_with_both_numbers():
    with pytest.raises(VocabularyError, match=r"'low vegetation' is 2 tokens long and 1 fit; use a shorter"):
        tokenize(["water", "low vegetation"], 3)
    with pytest.raises(VocabularyError, match=r"\.\.\.' is 100 tokens long and 75 fit"):
        tokenize(["tree " * 100])


def test_a_word_with_the_end_marker_is_rejected():
    with pytest.raises(VocabularyError, match="contains a marker"):
        tokenize(["water <end_of_text>"])


def test_tokens_need_no_model_file_and_no_network():
    code = (
        "import socket, sys\n"
        "def refuse(*_, **__): raise AssertionError('network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from wasnow.nn.clip_words import tokenize\n"
        "print(tokenize(['water'], 4).tolist(), 'transformers' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out == f"[[{SOS}, {word_tokens('water')[0]}, {EOS}, 0]] False\n"
