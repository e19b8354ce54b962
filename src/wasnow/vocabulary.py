"""Class words, their colours, and the codes that stand for them and for transitions in a raster.

    class code        0 no change   1..K the K words, in order                       255 (65535) not processed
    transition code   0 no change   (from - 1) * K + to, both 1..K                   255 (65535) not processed
    without words     0 no change   1 changed (class bands stay 0)                   255 not processed

Datasets write their labels in codes and colours of their own: see `wasnow.data.encodings`. Nothing here uses torch,
files or models.
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
"""Halves of characters, code points that XML may not hold, and what makes text run backwards beyond the word's end."""

MAX_WORD_CHARACTERS = 200
"""Of one word: more is no name of anything, and would stand in every row of every table."""

MAX_WORDS = 255
"""More words than this would not fit a 16-bit transition code."""

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
    """One row of the from-to legend: its raster code, the two words, and the colour on maps."""

    code: int
    before: str | None
    after: str
    color: tuple[int, int, int]

    @property
    def label(self) -> str:
        """``water → building``, or just the word where there is no from."""
        return self.after if self.before is None else f"{self.before} → {self.after}"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The ordered class words of one run. An empty vocabulary means change without classes.

    Raises:
        VocabularyError: a word is empty, not printable, too long, or there twice; or there are too many.
    """

    words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.words) > MAX_WORDS:
            raise VocabularyError(
                f"{len(self.words)} class words given, at most {MAX_WORDS} fit 16-bit transition codes; use fewer"
            )
        seen: dict[str, str] = {}
        for word in self.words:
            if not word.strip():
                raise VocabularyError("a class word is empty; write the words as 'water, building, road'")
            if len(word) > MAX_WORD_CHARACTERS:
                raise VocabularyError(
                    f"class word {word[:40]!r}... has {len(word)} characters, at most {MAX_WORD_CHARACTERS} make a "
                    "name; use a shorter one"
                )
            if any(unicodedata.category(letter) == "Cc" for letter in word):
                raise VocabularyError(f"class word {word!r} holds a control character; write it on one line")
            if hidden := _UNWRITABLE.search(word):
                raise VocabularyError(
                    f"class word {word!r} holds U+{ord(hidden[0]):04X}, which no file can hold or which turns the "
                    "writing around it; leave it out"
                )
            key = unicodedata.normalize("NFKC", word).casefold()
            if key in seen:
                raise VocabularyError(f"class word {word!r} is there twice ({seen[key]!r}); name each class once")
            seen[key] = word

    @classmethod
    def parse(cls, text: str | Iterable[str] | None) -> Vocabulary:
        """From ``"water, building"``, a sequence of words, or None for no classes."""
        if text is None:
            return cls()
        words = text.split(",") if isinstance(text, str) else list(text)
        return cls(tuple(" ".join(word.split(" ")).strip() for word in words))

    def __len__(self) -> int:
        return len(self.words)

    @property
    def dtype(self) -> np.dtype[np.uint8] | np.dtype[np.uint16]:
        """The smallest type that holds every transition code and the not-processed value."""
        return np.dtype(np.uint8) if self.n_transitions < 255 else np.dtype(np.uint16)

    @property
    def not_processed(self) -> int:
        """The code of a pixel that was not processed: the largest value of `dtype`."""
        return int(np.iinfo(self.dtype).max)

    @property
    def n_transitions(self) -> int:
        """How many transition codes there are, no change not counted."""
        return len(self.words) ** 2 or 1

    def color(self, code: int) -> tuple[int, int, int]:
        """RGB 0..255 of class ``code`` (1..K): a customary colour for common words, else a spread of hues."""
        word = self.words[code - 1].casefold()
        if word in _KNOWN_COLORS:
            return _KNOWN_COLORS[word]
        hue = (0.11 + (code - 1) * 0.6180339887498949) % 1.0
        red, green, blue = colorsys.hsv_to_rgb(hue, 0.62, 0.82 if code % 2 else 0.62)
        return round(red * 255), round(green * 255), round(blue * 255)

    def transition(self, code: int) -> Transition:
        """What transition ``code`` (1..K*K, or 1 without words) stands for."""
        if not 1 <= code <= self.n_transitions:
            raise ValueError(f"{code} is no transition code of {len(self.words)} classes")
        if not self.words:
            return Transition(1, None, CHANGED, CHANGED_COLOR)
        before, after = divmod(code - 1, len(self.words))
        return Transition(code, self.words[before], self.words[after], self.color(after + 1))

    def transitions(self) -> Iterator[Transition]:
        """All of them, in code order."""
        return (self.transition(code) for code in range(1, self.n_transitions + 1))

    def encode(
        self,
        changed: NDArray[np.bool_],
        before: NDArray[np.integer] | None = None,
        after: NDArray[np.integer] | None = None,
    ) -> NDArray[np.unsignedinteger]:
        """Class indices to codes.

        Args:
            changed: ``(H, W)``.
            before: ``(H, W)`` class indices 0..K-1 of the first date; None without words.
            after: the same for the second date.

        Returns:
            ``(3, H, W)`` of `dtype`: before_class, after_class, transition; 0 wherever not changed.
        """
        codes = np.zeros((3, *changed.shape), self.dtype)
        if before is None or after is None:
            codes[2] = changed
            return codes
        # Most of the ground did not change, and is not looked at.
        places = np.flatnonzero(changed)
        first, second = (each.reshape(-1)[places].astype(np.int64) for each in (before, after))
        each_code = codes.reshape(3, -1)
        each_code[0, places] = first + 1
        each_code[1, places] = second + 1
        each_code[2, places] = first * len(self.words) + second + 1
        return codes


def join_words(words: Sequence[str]) -> str:
    """``water, building and road``, for messages."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
