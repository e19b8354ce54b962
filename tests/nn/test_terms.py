"""Words of a user find their embeddings: as terms, however written; as the nearest ones, with a remark; or not."""

import copy
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import normalize

from wasnow.errors import VocabularyError
from wasnow.nn import sentence, terms
from wasnow.nn.term_index import HEAD_WEIGHT, stemmed
from wasnow.nn.term_phrasings import HELD_OUT_PHRASINGS, PHRASINGS
from wasnow.nn.terms import TermTable

ROOT = Path(__file__).parents[2]
TABLE = TermTable()
TERMS = TABLE.terms
WORDS = ("building", "road", "water", "vegetation", "bare ground")
SMALL = ("house", "lake", "gravel road")


@pytest.fixture(autouse=True)
def _no_encoder(monkeypatch):
    monkeypatch.setattr(sentence, "available", lambda: False)


def row(term):
    return normalize(TABLE.embeddings[TERMS.index(term)].float(), dim=0)


def vector(phrase):
    return TABLE.find([phrase])[0][0]


def small_table(width=4):
    return TermTable.of(SMALL, torch.eye(len(SMALL), width))


# ------------------------------------------------------------------------------------------------- the packaged table


def test_the_packaged_terms_are_those_of_the_lists():
    lists = sorted((ROOT / "mini" / "terms").glob("*.txt"))
    lines = [line for path in lists for line in path.read_text(encoding="utf-8").splitlines()]
    assert tuple(line for line in lines if not line.startswith("#")) == TERMS


def test_there_are_enough_distinct_terms_of_unit_length():
    assert len(TABLE) == len(set(TERMS)) >= 2000
    assert TABLE.embeddings.dtype == torch.float16
    torch.testing.assert_close(TABLE.embeddings.float().norm(dim=1), torch.ones(len(TABLE)), atol=5e-4, rtol=0)


def test_every_term_is_found_as_itself():
    found, remarks = TABLE.find(TERMS)
    torch.testing.assert_close(found, normalize(TABLE.embeddings.float(), dim=1), atol=1e-6, rtol=0)
    assert remarks == ()


def test_terms_in_the_spelling_of_the_table_need_no_index(monkeypatch):
    answers = TABLE.find(TERMS)[0]
    monkeypatch.setattr(terms.TermIndex, "of", lambda *_: pytest.fail("an index was made"))
    assert torch.equal(TermTable().find(TERMS)[0], answers)
    monkeypatch.undo()
    # The other road leads there too.
    assert [TABLE._indexed().row(term) for term in TERMS] == list(range(len(TERMS)))


@pytest.mark.parametrize(
    ("phrasings", "fewest", "most"), [(PHRASINGS, 25, 60), (HELD_OUT_PHRASINGS, 6, 10)], ids=["trained", "held out"]
)
def test_each_default_word_has_phrasings_that_are_terms(phrasings, fewest, most):
    assert tuple(phrasings) == WORDS == TERMS[:5]
    for phrases in phrasings.values():
        assert fewest <= len(phrases) <= most
        assert set(phrases) <= set(TERMS)


def test_each_word_is_its_own_first_phrasing():
    assert [phrases[0] for phrases in PHRASINGS.values()] == list(PHRASINGS)


def test_no_phrasing_belongs_to_two_words_or_is_both_trained_and_held_out():
    every = [
        stemmed(phrase)
        for phrasings in (PHRASINGS, HELD_OUT_PHRASINGS)
        for phrases in phrasings.values()
        for phrase in phrases
    ]
    assert len(every) == len(set(every))


def test_held_out_phrasings_lie_near_those_of_the_same_word():
    """docs/words.md has these numbers."""
    words, _ = TABLE.find(list(PHRASINGS))
    means = torch.stack([TABLE.find(phrases)[0].mean(0) for phrases in PHRASINGS.values()])
    for references, expected in ((words, 33), (normalize(means, dim=1), 46)):
        near = sum(
            int(((references @ TABLE.find(phrases)[0].T).argmax(0) == code).sum())
            for code, phrases in enumerate(HELD_OUT_PHRASINGS.values())
        )
        assert near == expected


# -------------------------------------------------------------------------------------- terms, however they are written


@pytest.mark.parametrize(
    ("written", "term"),
    [
        ("Building", "building"),
        ("  parking\tlot ", "parking lot"),
        ("PARKING-LOTS", "parking lot"),
        ("the sea", "sea"),
        ("ｌａｋｅ", "lake"),
        ("café", "cafe"),
        ("children’s playground", "children's playground"),
        ("churches", "church"),
        ("houses", "house"),
        ("factories", "factory"),
        ("prairies", "prairie"),
        ("wharves", "wharf"),
        ("buses", "bus"),
        ("volcanoes", "volcano"),
        ("oases", "oasis"),
        ("grass", "grass"),
        ("harbor", "harbour"),
        ("gray roof", "grey roof"),
        ("plowed field", "ploughed field"),
        ("leveled ground", "levelled ground"),
        ("city center", "city centre"),
        ("high rise", "high-rise"),
        ("mud flats", "mudflat"),
        ("farm land", "farmland"),
        ("sports fields", "sports field"),
    ],
)
def test_a_term_is_found_in_any_spelling(written, term):
    found, remarks = TABLE.find([written])
    assert remarks == ()
    torch.testing.assert_close(found[0], row(term), atol=1e-6, rtol=0)


@given(
    st.sampled_from(TERMS), st.sampled_from([str.upper, str.title, str.capitalize]), st.sampled_from(["  ", "-", "\n"])
)
def test_case_spaces_and_hyphens_make_no_difference(term, case, gap):
    found, remarks = TABLE.find([case(term).replace(" ", gap), term])
    assert remarks == ()
    assert torch.equal(found[0], found[1])


def test_words_that_only_look_like_a_plural_stay_distinct():
    assert not torch.equal(vector("woods"), vector("wood"))
    assert not torch.equal(vector("greenfield"), vector("green field"))


@given(st.lists(st.sampled_from(TERMS), max_size=6))
def test_vectors_are_in_the_order_of_the_phrases(phrases):
    found, _ = TABLE.find(phrases)
    assert found.shape == (len(phrases), 384)
    for answer, phrase in zip(found, phrases, strict=True):
        torch.testing.assert_close(answer, row(phrase), atol=1e-6, rtol=0)


# ---------------------------------------------------------------------------------------------------- the nearest terms


def test_a_phrase_becomes_its_terms_with_more_weight_on_the_noun():
    found, remarks = TABLE.find(["brick hut"])
    assert remarks == (f"'brick hut' is not among the {len(TABLE):,} terms of this model: using 'brick' and 'hut'",)
    expected = row("brick") + HEAD_WEIGHT * row("hut")
    torch.testing.assert_close(found[0], normalize(expected, dim=0), atol=1e-6, rtol=0)
    assert found[0] @ row("hut") > found[0] @ row("brick")


@pytest.mark.parametrize(
    ("phrase", "head", "else_"),
    [
        ("house with red roof", "house", "red roof"),
        ("boats on a lake", "boat", "lake"),
        ("rubble of a collapsed house", "rubble", "collapsed house"),
        ("cluster of brick huts", "hut", "brick"),
    ],
)
def test_the_head_noun_precedes_a_preposition_except_of_after_a_measure(phrase, head, else_):
    assert vector(phrase) @ row(head) > vector(phrase) @ row(else_)


def test_the_longest_terms_in_a_phrase_are_used():
    (remark,) = TABLE.find(["big indoor swimming pool complex"])[1]
    assert remark.endswith("using 'swimming pool complex'")


@pytest.mark.parametrize(
    ("slip", "term"),
    [
        ("biulding", "building"),
        ("hosue", "house"),
        ("wter", "water"),
        ("warehosue", "warehouse"),
        ("swiming pool", "swimming pool"),
        ("tennis corts", "tennis court"),
        ("vinyard", "vineyard"),
        ("apartement blok", "apartment block"),
    ],
)
def test_a_misspelling_is_corrected_with_a_remark(slip, term):
    found, (remark,) = TABLE.find([slip])
    assert remark.endswith(f"using {term!r}")
    torch.testing.assert_close(found[0], row(term), atol=1e-6, rtol=0)


LONG_WORDS = sorted({term for term in TERMS if " " not in term and term.isalpha() and len(term) >= 8})


@given(st.sampled_from(LONG_WORDS), st.integers(1, 6))
def test_a_long_word_with_two_letters_swapped_is_always_corrected(word, place):
    swapped = word[:place] + word[place + 1] + word[place] + word[place + 2 :]
    found, remarks = TABLE.find([swapped])
    assert bool(remarks) == (stemmed(swapped) not in map(stemmed, TERMS))
    assert found.norm() == pytest.approx(1)


def test_a_repeated_phrase_causes_one_remark():
    found, remarks = TABLE.find(["brick hut", "lake", "brick hut"])
    assert len(remarks) == 1
    assert torch.equal(found[0], found[2])
    torch.testing.assert_close(found[1], row("lake"), atol=1e-6, rtol=0)


@pytest.mark.parametrize("phrase", ["elephant", "xyzzy", "red", "of the", "...", "", "x" * 5000, "горы"])
def test_unknown_phrases_are_rejected_in_one_line_with_advice(phrase):
    with pytest.raises(VocabularyError) as caught:
        TABLE.find(["house", phrase])
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 300
    assert sentence.ADVICE in message


def test_a_rejection_suggests_up_to_three_terms():
    with pytest.raises(VocabularyError, match="use 'red building' or 'red roof' or 'red car'") as caught:
        TABLE.find(["red"])
    suggested = re.search(r"use (.*?), or install", str(caught.value))[1].split(" or ")
    assert [TABLE.find([each.strip("'")])[1] for each in suggested] == [()] * 3


def test_a_phrase_of_a_thousand_words_works():
    found, (remark,) = TABLE.find([" ".join(["purple", "house"] * 500)])
    assert found.norm() == pytest.approx(1)
    assert remark.endswith("using 'house'")
    assert len(remark) < 300


# -------------------------------------------------------------------------------------------------------- the encoder


def test_the_encoder_embeds_only_phrases_that_are_not_terms(monkeypatch):
    asked = []

    def embed(phrases):
        asked.extend(phrases)
        return torch.eye(len(phrases), 384)

    monkeypatch.setattr(sentence, "available", lambda: True)
    monkeypatch.setattr(sentence, "embed", embed)
    found, remarks = TABLE.find(["Houses", "elephant", "lake", "brick hut", "elephant"])
    assert asked == ["elephant", "brick hut"]
    assert remarks == ()
    assert torch.equal(found[[1, 3, 4]], torch.eye(2, 384)[[0, 1, 0]])
    torch.testing.assert_close(found[2], row("lake"), atol=1e-6, rtol=0)


@pytest.mark.parametrize("whole", [True, False])
def test_a_misspelling_is_corrected_unless_the_encoder_has_the_word(monkeypatch, whole):
    monkeypatch.setattr(sentence, "available", lambda: True)
    monkeypatch.setattr(sentence, "has_words_of", lambda phrase: whole)
    monkeypatch.setattr(sentence, "embed", lambda phrases: torch.eye(len(phrases), 384))
    found, remarks = TABLE.find(["forrest"])
    assert len(remarks) == (not whole)
    torch.testing.assert_close(found[0], torch.eye(1, 384)[0] if whole else row("forest"), atol=1e-6, rtol=0)


def test_a_phrase_without_letters_is_rejected_even_with_the_encoder(monkeypatch):
    monkeypatch.setattr(sentence, "available", lambda: True)
    monkeypatch.setattr(sentence, "embed", lambda phrases: torch.eye(len(phrases), 384))
    with pytest.raises(VocabularyError, match="use another word"):
        TABLE.find(["..."])


def test_a_table_of_another_width_does_not_use_the_encoder(monkeypatch):
    monkeypatch.setattr(sentence, "available", lambda: True)
    found, remarks = small_table().find(["red house"])
    assert found.tolist() == [[1, 0, 0, 0]]
    assert len(remarks) == 1


# --------------------------------------------------------------------------------------------------------- checkpoints


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = TermTable()


def test_a_checkpoint_brings_its_own_table_of_another_size():
    saved = {f"words.{name}": tensor for name, tensor in small_table().state_dict().items()}
    network = Network()
    network.words.find(["building"])
    network.load_state_dict(saved)
    assert network.words.terms == SMALL
    assert (len(network.words), network.words.width) == (3, 4)
    assert network.words.find(["lakes"])[0].tolist() == [[0, 1, 0, 0]]
    with pytest.raises(VocabularyError, match="not among the 3 terms"):
        network.words.find(["building"])


def test_a_loaded_table_shares_no_memory_with_its_source():
    saved = copy.deepcopy(small_table().state_dict())
    table = TermTable()
    table.load_state_dict(saved)
    saved["embeddings"].zero_()
    assert table.embeddings.sum() == 3


@pytest.mark.parametrize(
    "broken",
    [
        {"embeddings": torch.eye(2, 4)},
        {"embeddings": torch.ones(3)},
        {"names": torch.tensor([255, 254], dtype=torch.uint8)},
    ],
    ids=["too few rows", "no rows", "no text"],
)
def test_a_broken_table_is_rejected_and_the_old_one_stays(broken):
    table = TermTable()
    with pytest.raises(RuntimeError, match="not a table of terms"):
        table.load_state_dict({**small_table().state_dict(), **broken})
    assert table.terms == TERMS


def test_a_checkpoint_without_a_table_is_missing_it():
    missing, unexpected = Network().load_state_dict({}, strict=False)
    assert (sorted(missing), unexpected) == (["words.embeddings", "words.names"], [])


def test_a_table_that_was_used_can_be_copied_and_pickled():
    table = small_table()
    table.find(["lake"])
    for twin in (copy.deepcopy(table), pickle.loads(pickle.dumps(table))):
        assert twin.find(["lakes"])[0].tolist() == [[0, 1, 0, 0]]


def test_terms_survive_a_change_of_precision():
    found, _ = TermTable().double().find(["lake", "brick hut"])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, TABLE.find(["lake", "brick hut"])[0], atol=1e-6, rtol=0)


def test_the_table_needs_no_library_of_text_encoders():
    code = (
        "import sys; from wasnow.nn.terms import TermTable; TermTable().find(['lake']);"
        "sys.exit(', '.join({'transformers', 'tokenizers'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------------------------------------------------------- docs


def examples():
    """(what a user writes, what it is taken as) of the table in docs/words.md."""
    page = (ROOT / "docs" / "words.md").read_text(encoding="utf-8")
    table = re.search(r"^\| You write \|.*?\n\n", page, re.MULTILINE | re.DOTALL)[0]
    return [tuple(cell.strip() for cell in line.strip("|").split("|")[:2]) for line in table.strip().splitlines()[2:]]


@pytest.mark.parametrize(("written", "taken"), examples())
def test_the_examples_in_the_docs_are_correct(written, taken):
    if taken == "refused":
        with pytest.raises(VocabularyError):
            TABLE.find([written])
        return
    found, remarks = TABLE.find([written])
    if " and " in taken or not taken.endswith("(as it is)"):
        assert remarks[0].endswith("using " + re.sub(r"`([^`]+)`", r"'\1'", taken))
    else:
        assert remarks == ()
        torch.testing.assert_close(found[0], row(taken.split("`")[1]), atol=1e-6, rtol=0)
