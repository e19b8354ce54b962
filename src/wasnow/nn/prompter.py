"""Context tokens that depend on the image, before each class word: CoCoOp's idea, for each date of a pair.

    p = meta(F pooled to s x s) + p0                      (B, n, text width): n = s s context tokens
    t[b, j] = text([SOS, p[b], tokens of word j, EOS])    (B, K, E), read at EOS, of unit length

The text tower is causal: everything up to the context is the same for all words of an image and is computed once.

Source: Semantic-CD (arXiv 2501.06808), equation 2; Zhou et al., "Conditional prompt learning" (CoCoOp, 2022). 256
context tokens, as published, imply a context that is a 16 x 16 map.

The pooling is over the whole input, so the context, and with it the classes, depend on the tile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from wasnow.errors import UsageError, VocabularyError
from wasnow.nn.clip_words import tokenize, word_tokens

if TYPE_CHECKING:
    from wasnow.nn.clip_text import TextTower

ROOM = 20
"""Tokens available for a word where the context leaves fewer than this of the 77 positions."""


class Words:
    """The phrasings of the bound classes, as token ids.

    Args:
        phrases: the phrasings of each class, at least one.
        templates: texts with ``{}`` for the phrasing; every phrasing is put into each.

    Raises:
        UsageError: a template without ``{}``.
        VocabularyError: a phrasing without tokens.
    """

    def __init__(self, phrases: Sequence[Sequence[str]], templates: Sequence[str]) -> None:
        for template in templates:
            if "{}" not in template:
                raise UsageError(
                    f"template {template!r} has no placeholder for the word; write 'an aerial photo of {{}}'"
                )
        self.texts = [[t.replace("{}", phrase) for phrase in each for t in templates] for each in phrases]
        self.owner = torch.tensor([k for k, texts in enumerate(self.texts) for _ in texts])
        flat = [text for texts in self.texts for text in texts]
        tokens = [word_tokens(text) for text in flat]
        for text, found in zip(flat, tokens, strict=True):
            if not found:
                raise VocabularyError(f"{text!r} has no tokens for the text tower; use another word")
        self.longest = max(len(one) for one in tokens)
        self.ids = tokenize(flat, self.longest + 2)
        self.last = torch.tensor([len(one) for one in tokens])

    def check_room(self, room: int) -> None:
        """Check that all phrasings fit.

        Raises:
            VocabularyError: one has more tokens than ``room``.
        """
        if self.longest > room:
            flat = [text for texts in self.texts for text in texts]
            worst = max(flat, key=lambda text: len(word_tokens(text)))
            raise VocabularyError(
                f"{worst!r} has {self.longest} tokens, and {room} fit next to the context; use a shorter phrase"
            )

    def averaged(self, embedded: Tensor) -> Tensor:
        """Map ``(B, phrasings, E)`` to ``(B, K, E)``, the mean direction of each class's phrasings, of unit length."""
        unit = functional.normalize(embedded, dim=-1)
        if len(self.texts) == unit.shape[1]:
            return unit
        owner = self.owner.to(unit.device)
        summed = unit.new_zeros(unit.shape[0], len(self.texts), unit.shape[2]).index_add(1, owner, unit)
        return functional.normalize(summed, dim=-1)


class Prompter(nn.Module):
    """Context tokens from the features of an image, or learned ones.

    Args:
        image_width: D of the features.
        text_width: of the text tower.
        context: n, the number of tokens; a square number if they depend on the image.
        conditional: whether they depend on the image; False is CoOp's context, the same for every image.

    Raises:
        UsageError: the number of tokens is not valid.
    """

    def __init__(self, image_width: int, text_width: int, context: int = 256, *, conditional: bool = True) -> None:
        super().__init__()
        side = math.isqrt(max(0, context))
        if context < 1 or (conditional and side * side != context):
            raise UsageError(f"a context of {context} tokens is not a square map; use 4, 16, 64 or 256")
        self.side = side
        self.context = nn.Parameter(torch.empty(context, text_width))
        nn.init.normal_(self.context, std=0.02)
        hidden = max(1, image_width // 16)
        self.meta = (
            nn.Sequential(nn.Linear(image_width, hidden), nn.ReLU(), nn.Linear(hidden, text_width))
            if conditional
            else None
        )

    def length(self, positions: int) -> int:
        """Return the number of positions of SOS, context, a word and EOS: the tower's own number where that suffices.

        It depends on the context only, so a long word never shifts the others.
        """
        return max(positions, len(self.context) + ROOM + 2)

    def room(self, positions: int) -> int:
        """Return the number of tokens that a phrasing may have."""
        return self.length(positions) - len(self.context) - 2

    def forward(self, features: Tensor) -> Tensor:
        """Map features ``(B, D, h, w)`` to context tokens ``(B, n, text width)``, or ``(1, n, .)`` if shared."""
        if self.meta is None:
            return self.context[None]
        pooled = functional.adaptive_avg_pool2d(features, self.side).flatten(2).transpose(1, 2)
        written: Tensor = self.meta(pooled)
        return written + self.context

    def embed(self, features: Tensor, words: Words, text: TextTower) -> Tensor:
        """Return ``(B, K, E)`` of unit length: each class word in the context of each image."""
        context = self(features)
        n = context.shape[1]
        ids = words.ids.to(context.device)
        embedded = text.embed(ids)
        positions = text.positions(self.length(text.config.text_positions)).to(embedded)
        start = (embedded[:1, :1] + positions[:1]).expand(len(context), -1, -1)
        prefix = text.prefix(torch.cat([start, context.to(embedded) + positions[1 : 1 + n]], dim=1))
        tail = embedded[:, 1 : words.longest + 2]
        tail = tail + positions[1 + n : 1 + n + tail.shape[1]]
        found = text.suffix(prefix, tail, words.last)
        return words.averaged(found).expand(len(features), -1, -1)


def plain(words: Words, text: TextTower, device: torch.device) -> Tensor:
    """Return ``(1, K, E)`` of unit length: each class word without context."""
    return words.averaged(text(words.ids.to(device))[None])
