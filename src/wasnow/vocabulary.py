"""Class words, their colours, and the raster codes of classes and transitions.

    class code        0 no change   1..K the K words, in order                       255 (65535) not processed
    transition code   0 no change   (from - 1) * K + to, both 1..K                   255 (65535) not processed
    without words     0 no change   1 changed (class bands stay 0)                   255 not processed

The codes of dataset labels are in `wasnow.data.encodings`. This module does not use torch, files or models.
"""

from __future__ import annotations

import colorsys
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wasnow.errors import VocabularyError

_UNWRITABLE = re.compile("[\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff\u202a-\u202e\u2066-\u2069]")
"""Lone surrogates, code points that XML does not allow, and controls that change the writing direction."""

MAX_WORD_CHARACTERS = 200
"""Longest class word; the word is repeated in every row of the attribute tables."""

MAX_WORDS = 255
"""Most class words; more do not fit a 16-bit transition code."""

NO_LABEL = 255
"""Class code of a pixel without reference data."""

CHANGED = "changed"
CHANGED_COLOR = (214, 39, 96)
NO_CHANGE_COLOR = (245, 245, 240)

SECOND_WORDS = ("water", "ground", "low vegetation", "tree", "building", "playground")
"""The classes of the SECOND dataset, in code order."""

_KNOWN_COLORS: dict[str, tuple[int, int, int]] = {
    "water": (40, 110, 220),
    "building": (190, 40, 50),
    "road": (110, 110, 120),
    "tree": (20, 120, 50),
    "forest": (20, 120, 50),
    "vegetation": (80, 170, 70),
    "low vegetation": (140, 200, 90),
    "grass": (140, 200, 90),
    "bare ground": (205, 170, 110),
    "bare soil": (205, 170, 110),
    "soil": (205, 170, 110),
    "ground": (170, 160, 145),
    "land": (205, 170, 110),
    "field": (225, 200, 90),
    "playground": (230, 130, 30),
    "other": (200, 194, 184),
}


@dataclass(frozen=True, slots=True)
class Transition:
    """One transition: its raster code, its two class words, and its colour on maps.

    Attributes:
        code: raster code, from 1.
        before: class word at the first date; None without class words.
        after: class word at the second date.
        color: RGB 0..255.
    """

    code: int
    before: str | None
    after: str
    color: tuple[int, int, int]

    @property
    def label(self) -> str:
        """``water → building``; only the word when there is no class before."""
        return self.after if self.before is None else f"{self.before} → {self.after}"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The ordered class words of one run. An empty vocabulary means change without classes.

    Raises:
        VocabularyError: a word is empty, not printable, too long or repeated, or there are too many words.
    """

    words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.words) > MAX_WORDS:
            raise VocabularyError(
                f"{len(self.words)} class words, but 16-bit transition codes hold at most {MAX_WORDS}; use fewer words"
            )
        seen: dict[str, str] = {}
        for word in self.words:
            if not word.strip():
                raise VocabularyError(
                    "a class word is empty; separate the words by commas, as in 'water, building, road'"
                )
            if len(word) > MAX_WORD_CHARACTERS:
                raise VocabularyError(
                    f"class word {word[:40]!r}... has {len(word)} characters, the limit is {MAX_WORD_CHARACTERS}; "
                    "use a shorter word"
                )
            if any(unicodedata.category(letter) == "Cc" for letter in word):
                raise VocabularyError(f"class word {word!r} contains a control character; remove it")
            if hidden := _UNWRITABLE.search(word):
                raise VocabularyError(
                    f"class word {word!r} contains U+{ord(hidden[0]):04X}, which files cannot store or which changes "
                    "the writing direction; remove it"
                )
            key = unicodedata.normalize("NFKC", word).casefold()
            if key in seen:
                raise VocabularyError(f"class word {word!r} is given twice (as {seen[key]!r}); name each class once")
            seen[key] = word

    @classmethod
    def parse(cls, text: str | Iterable[str] | None) -> Vocabulary:
        """Parse ``"water, building"``, a sequence of words, or None for no classes."""
        if text is None:
            return cls()
        words = text.split(",") if isinstance(text, str) else list(text)
        return cls(tuple(" ".join(word.split(" ")).strip() for word in words))

    def __len__(self) -> int:
        return len(self.words)

    @property
    def dtype(self) -> np.dtype[np.uint8] | np.dtype[np.uint16]:
        """The smallest unsigned type that holds all transition codes and the not-processed value."""
        return np.dtype(np.uint8) if self.n_transitions < 255 else np.dtype(np.uint16)

    @property
    def not_processed(self) -> int:
        """The code of pixels that were not processed: the largest value of `dtype`."""
        return int(np.iinfo(self.dtype).max)

    @property
    def n_transitions(self) -> int:
        """Number of transition codes, without the code for no change."""
        return len(self.words) ** 2 or 1

    def color(self, code: int) -> tuple[int, int, int]:
        """RGB 0..255 of class ``code`` (1..K): a conventional colour for common words, else evenly spread hues."""
        word = self.words[code - 1].casefold()
        if word in _KNOWN_COLORS:
            return _KNOWN_COLORS[word]
        hue = (0.11 + (code - 1) * 0.6180339887498949) % 1.0
        red, green, blue = colorsys.hsv_to_rgb(hue, 0.62, 0.82 if code % 2 else 0.62)
        return round(red * 255), round(green * 255), round(blue * 255)

    def transition(self, code: int) -> Transition:
        """Return transition ``code``, 1..K*K, or 1 without words.

        Raises:
            ValueError: the code is out of range.
        """
        if not 1 <= code <= self.n_transitions:
            raise ValueError(f"transition code {code} is out of range for {len(self.words)} classes")
        if not self.words:
            return Transition(1, None, CHANGED, CHANGED_COLOR)
        before, after = divmod(code - 1, len(self.words))
        return Transition(code, self.words[before], self.words[after], self.color(after + 1))

    def transitions(self) -> Iterator[Transition]:
        """All transitions in code order."""
        return (self.transition(code) for code in range(1, self.n_transitions + 1))

    def encode(
        self,
        changed: NDArray[np.bool_],
        before: NDArray[np.integer] | None = None,
        after: NDArray[np.integer] | None = None,
    ) -> NDArray[np.unsignedinteger]:
        """Convert class indices to raster codes.

        Args:
            changed: ``(H, W)`` bool.
            before: ``(H, W)`` class indices 0..K-1 of the first date; None without words.
            after: the same for the second date.

        Returns:
            ``(3, H, W)`` of `dtype`: before_class, after_class, transition; 0 where not changed.
        """
        codes = np.zeros((3, *changed.shape), self.dtype)
        if before is None or after is None:
            codes[2] = changed
            return codes
        # Usually few pixels change; only these are computed.
        index = np.flatnonzero(changed)
        first, second = (classes.reshape(-1)[index].astype(np.int64) for classes in (before, after))
        flat = codes.reshape(3, -1)
        flat[0, index] = first + 1
        flat[1, index] = second + 1
        flat[2, index] = first * len(self.words) + second + 1
        return codes


def join_words(words: Sequence[str]) -> str:
    """Join words for a message: ``water, building and road``."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
