"""Class words as token ids for CLIP's text tower, without any file or network.

    "low vegetation"  ->  [SOS, 1042, 33947, EOS, 0, 0, ...]

Byte-pair encoding of Radford et al. (2021): 49408 tokens, lower case. The vocabulary is part of instant-clip-tokenizer.
Its ids equal those of open_clip, which also normalises white space and composes accented letters first.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence

import torch
from instant_clip_tokenizer import Tokenizer
from torch import Tensor

from wasnow.errors import VocabularyError

SOS, EOS = 49406, 49407
"""The tokens that begin and end a text."""

POSITIONS = 77
"""Number of positions of CLIP's text towers, SOS and EOS included."""


@functools.cache
def _tokenizer() -> Tokenizer:
    return Tokenizer()


def word_tokens(text: str) -> list[int]:
    """Return the tokens of a text without SOS and EOS; none for an empty text.

    Raises:
        VocabularyError: it contains the marker of a beginning or an end.
    """
    tokens = list(_tokenizer().encode(unicodedata.normalize("NFC", " ".join(text.split()))))
    if any(token >= SOS for token in tokens):
        raise VocabularyError(f"{text!r} contains a marker of the tokenizer; leave out the part between < and >")
    return tokens


def tokenize(words: Sequence[str], length: int | None = None) -> Tensor:
    """Return rows of ids for the text tower.

    Args:
        words: the texts.
        length: of the rows; None takes the 77 of CLIP.

    Returns:
        ``(K, length)`` int64: SOS, the tokens, EOS, zeros.

    Raises:
        VocabularyError: a text does not fit, or contains the marker of a beginning or an end.
    """
    room = POSITIONS if length is None else length
    ids = torch.zeros(len(words), room, dtype=torch.int64)
    for row, word in zip(ids, words, strict=True):
        tokens = word_tokens(word)
        if len(tokens) + 2 > room:
            shown = word if len(word) <= 60 else f"{word[:57]}..."
            raise VocabularyError(
                f"{shown!r} is {len(tokens)} tokens long and {max(0, room - 2)} fit; use a shorter class word"
            )
        row[: len(tokens) + 2] = torch.tensor([SOS, *tokens, EOS])
    return ids
