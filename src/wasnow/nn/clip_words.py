"""Class words as CLIP's text tower reads them, without any file or network.

    "low vegetation"  ->  [SOS, 1042, 33947, EOS, 0, 0, ...]

Byte-pair encoding of Radford et al. (2021): 49408 tokens, lower case. The vocabulary lies inside instant-clip-tokenizer
and its ids equal open_clip's, which also folds white space and composes letters with their accents first.
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
"""Tokens that CLIP's text towers were trained for, SOS and EOS included."""


@functools.cache
def _tokenizer() -> Tokenizer:
    return Tokenizer()


def word_tokens(text: str) -> list[int]:
    """The tokens of a text, SOS and EOS left out; none for an empty one.

    Raises:
        VocabularyError: it spells out the mark of a beginning or an end, which would cut it there.
    """
    tokens = list(_tokenizer().encode(unicodedata.normalize("NFC", " ".join(text.split()))))
    if any(token >= SOS for token in tokens):
        raise VocabularyError(
            f"{text!r} spells out a mark that begins or ends texts; leave what is between < and > out"
        )
    return tokens


def tokenize(words: Sequence[str], length: int | None = None) -> Tensor:
    """Rows of ids for the text tower.

    Args:
        words: the texts.
        length: of the rows; None takes the 77 that CLIP was trained for.

    Returns:
        ``(K, length)`` int64: SOS, the tokens, EOS, zeros.

    Raises:
        VocabularyError: a text does not fit, or holds the mark of a beginning or an end.
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
