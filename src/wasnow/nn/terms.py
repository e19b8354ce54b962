"""The class words that a model supports without a text encoder: terms with sentence embeddings, in every checkpoint.

    names       (bytes,)  uint8     "building\\nroad\\nwater\\n..."
    embeddings  (N, 384)  float16   all-MiniLM-L6-v2, unit length

    "Parking-Lots" ── normalised: case, hyphens, plurals, spelling ──> a term: its embedding
    "brick hovel"  ── not a term ─────────┬─ with the extra [text] ──────> the encoder embeds it
                                          ├─ terms in it, misspellings ──> their weighted mean, and a remark
                                          └─ nothing near ───────────────> VocabularyError, with suggestions

The packaged table is created by ``mini/make_terms.py`` from the lists in ``mini/terms``. Terms are English.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from wasnow.errors import VocabularyError
from wasnow.nn import sentence
from wasnow.nn.term_index import TermIndex, plain
from wasnow.vocabulary import join_words

PACKAGED = Path(__file__).with_name("terms.safetensors")
"""The table that comes with wasnow."""


class TermTable(nn.Module):
    """Terms and their embeddings; `find` maps a user's words to vectors.

    A new table is the packaged one. The state dict contains the whole table, so a checkpoint brings its own, of any
    size, and loading replaces this one.

    Attributes:
        names: ``(bytes,)`` uint8: the terms as UTF-8, one per line.
        embeddings: ``(N, 384)``, one row of unit length per term.
    """

    names: Tensor
    embeddings: Tensor

    def __init__(self) -> None:
        super().__init__()
        packaged = load_file(PACKAGED)
        self.register_buffer("names", packaged["names"])
        self.register_buffer("embeddings", packaged["embeddings"])
        self._index: TermIndex | None = None
        self._rows: dict[str, int] | None = None

    @classmethod
    def of(cls, terms: Sequence[str], embeddings: Tensor) -> TermTable:
        """Return a table of these terms.

        Args:
            terms: without line breaks.
            embeddings: ``(N, width)`` of unit length; stored unchanged.
        """
        table = cls()
        table.load_state_dict({"names": pack_names(terms), "embeddings": embeddings})
        return table

    @property
    def terms(self) -> tuple[str, ...]:
        """All terms, in the order of the rows of ``embeddings``."""
        return unpack_names(self.names)

    @property
    def width(self) -> int:
        """Length of an embedding."""
        return int(self.embeddings.shape[1])

    def __len__(self) -> int:
        return int(self.embeddings.shape[0])

    def find(self, phrases: Sequence[str]) -> tuple[Tensor, tuple[str, ...]]:
        """Return the vectors of these phrases, and remarks for the user.

        Misspellings are corrected even if the encoder is installed, because it does not recognise them (the cosine of
        "biulding" and "building" is 0.38), unless its vocabulary has all words of the phrase.

        Args:
            phrases: single words or short phrases, in English.

        Returns:
            ``(n, width)`` float32 of unit length on the device of the table, and a remark for each replaced phrase.

        Raises:
            VocabularyError: a phrase is not a term, the encoder is not installed, and nothing is near.
        """
        # Most words are spelt as in the table; building the index for all others takes a second.
        rows = [self._written.get(phrase) for phrase in phrases]
        if None not in rows:
            return nn.functional.normalize(self._unit(cast(list[int], rows)), dim=1), ()
        index = self._indexed()
        rows = [index.row(phrase) for phrase in phrases]
        unknown = dict.fromkeys(phrase for phrase, row in zip(phrases, rows, strict=True) if row is None)
        remarks: list[str] = []
        vectors: dict[str, Tensor] = {}
        if unknown and self.width == sentence.WIDTH and sentence.available():
            readable = [
                phrase
                for phrase in unknown
                if plain(phrase) and (index.corrected(phrase) is None or sentence.has_words_of(phrase))
            ]
            vectors = dict(zip(readable, sentence.embed(readable).to(self.embeddings.device), strict=True))
        for phrase in unknown:
            if phrase in vectors:
                continue
            weights = index.nearest(phrase)
            if not weights:
                raise VocabularyError(self._refusal(phrase, index.suggestions(phrase)))
            taken = join_words([repr(index.terms[row]) for row in weights])
            remarks.append(f"{_shown(phrase)} is not among the {len(self):,} terms of this model: using {taken}")
            shares = torch.tensor(list(weights.values()), device=self.embeddings.device)
            vectors[phrase] = (self._unit(list(weights)) * shares[:, None]).sum(0)
        found = self._unit([row or 0 for row in rows])
        for place, phrase in enumerate(phrases):
            if phrase in vectors:
                found[place] = vectors[phrase]
        return nn.functional.normalize(found, dim=1), tuple(remarks)

    def _unit(self, rows: Sequence[int]) -> Tensor:
        """Return these rows as ``(n, width)`` float32, normalised again after their rounding to 16 bits."""
        picked = self.embeddings[torch.tensor(rows, dtype=torch.int64, device=self.embeddings.device)]
        return nn.functional.normalize(picked.float(), dim=1)

    def _refusal(self, phrase: str, suggestions: Sequence[str]) -> str:
        instead = f"use {' or '.join(map(repr, suggestions))}" if suggestions else "use another word"
        return (
            f"{_shown(phrase)} is not among the {len(self):,} terms of this model, nor near one; {instead}, "
            f"or install the text encoder for any phrase: {sentence.ADVICE}"
        )

    @property
    def _written(self) -> Mapping[str, int]:
        """Rows by the exact spelling of their terms."""
        if self._rows is None:
            self._rows = {term: row for row, term in reversed(list(enumerate(self.terms)))}
        return self._rows

    def _indexed(self) -> TermIndex:
        if self._index is None:
            self._index = TermIndex.of(self.terms)
        return self._index

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Load a table of any size; PyTorch alone would require the present size."""
        names, embeddings = (state_dict.get(prefix + name) for name in ("names", "embeddings"))
        if names is not None and embeddings is not None:
            fault = _fault(names, embeddings)
            if fault:
                error_msgs.append(f"{prefix}names and {prefix}embeddings are not a table of terms: {fault}")
                return
            self.names = torch.empty_like(names, device=self.names.device)
            self.embeddings = torch.empty_like(embeddings, device=self.embeddings.device)
            self._index = self._rows = None
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


def _shown(phrase: str) -> str:
    """Return the phrase in quotes, shortened for a message."""
    return repr(phrase if len(phrase) <= 60 else f"{phrase[:57]}...")


def pack_names(terms: Sequence[str]) -> Tensor:
    """Return the terms as UTF-8, one per line: ``(bytes,)`` uint8."""
    return torch.tensor(list("\n".join(terms).encode()), dtype=torch.uint8)


def unpack_names(names: Tensor) -> tuple[str, ...]:
    """Invert `pack_names`."""
    return tuple(names.cpu().numpy().tobytes().decode().split("\n"))


def _fault(names: Tensor, embeddings: Tensor) -> str:
    """Return why these two do not form a table; empty if they do."""
    try:
        count = len(unpack_names(names))
    except UnicodeDecodeError:
        return "the names are not UTF-8"
    if embeddings.ndim != 2 or len(embeddings) != count:
        return f"{count} names for embeddings of shape {tuple(embeddings.shape)}"
    return ""
