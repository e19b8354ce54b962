"""Class words, their colours, and the codes that stand for them and for transitions in a raster.

    class code        0 no change   1..K the K words, in order                       255 (65535) not processed
    transition code   0 no change   (from - 1) * K + to, both 1..K                   255 (65535) not processed
    without words     0 no change   1 changed (class bands stay 0)                   255 not processed

Datasets write their labels in codes and colours of their own; `ENCODINGS` says how each is read into the class codes
above (255: no label). Nothing here knows about torch, files or models.
"""

from __future__ import annotations

import colorsys
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wasnow.errors import UsageError, VocabularyError, did_you_mean

_UNWRITABLE = re.compile("[\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff\u202a-\u202e\u2066-\u2069]")
"""Halves of characters, code points that XML may not hold, and what makes text run backwards beyond the word's end."""

MAX_WORD_CHARACTERS = 200
"""Of one word: more is no name of anything, and would stand in every row of every table."""

MAX_WORDS = 255
"""More words than this would not fit a 16-bit transition code."""

CHANGED = "changed"
CHANGED_COLOR = (214, 39, 96)
NO_CHANGE_COLOR = (245, 245, 240)

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


# ------------------------------------------------------------------------------------------------ encodings of datasets

Raw = int | tuple[int, int, int]
"""What a label file holds at one pixel: a number, or a colour."""

UNCHANGED = 0
NO_LABEL = 255
UNKNOWN = 254
"""In the answer of `Encoding.decode`: the encoding says nothing about what the file holds there."""


@dataclass(frozen=True)
class Encoding:
    """How the label files of a dataset are read: file value -> class code (0 unchanged, 1..K, 255 no label).

    Attributes:
        name: what a user writes after ``--encoding``.
        summary: one line: which datasets and repositories write their labels so.
        words: the classes of codes 1..K; empty where labels say only changed (1) or not (0).
        codes: file value -> code, of the only date that a label file speaks of.
        after: for files that speak of both dates at once: file value -> code at the second date, while ``codes``
            has the first. None where each date has a file of its own.
        threshold: numbers above this are 1 and all others 0, whatever ``codes`` has: for masks smeared by JPEG.
    """

    name: str
    summary: str
    words: tuple[str, ...]
    codes: Mapping[Raw, int]
    after: Mapping[Raw, int] | None = None
    threshold: int | None = None

    def __post_init__(self) -> None:
        if len(self.words) >= UNKNOWN:
            raise VocabularyError(f"{len(self.words)} classes in {self.name}, at most {UNKNOWN - 1} fit 8-bit labels")
        if len({isinstance(raw, tuple) for raw in self.codes}) > 1:
            raise UsageError(f"{self.name} mixes numbers and colours; write all file values in one way")

    @property
    def of_colors(self) -> bool:
        """Whether file values are colours, and not numbers."""
        return any(isinstance(raw, tuple) for raw in self.codes)

    @property
    def dense(self) -> bool:
        """Whether labels name a class everywhere, also where nothing changed: change is where the dates differ."""
        return bool(self.words) and UNCHANGED not in self.codes.values()

    def decode(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """File values to class codes; `UNKNOWN` where the encoding does not know them.

        Args:
            values: ``(H, W)`` numbers, or ``(H, W, 3)`` colours where `of_colors`.

        Returns:
            ``(H, W)``; ``(2, H, W)``, first and second date, for an encoding with ``after``.
        """
        if self.threshold is not None:
            above: NDArray[np.bool_] = values > self.threshold
            return above.astype(np.uint8)
        tables = [self.codes] if self.after is None else [self.codes, self.after]
        decoded = np.stack(
            [_decode_colors(values, t) if self.of_colors else _decode_numbers(values, t) for t in tables]
        )
        return decoded if self.after is not None else np.asarray(decoded[0])


def _decode_numbers(values: NDArray[Any], table: Mapping[Raw, int]) -> NDArray[np.uint8]:
    known = np.full(257, UNKNOWN, np.uint8)
    for raw, code in table.items():
        if isinstance(raw, int):
            known[raw] = code
    if values.dtype != np.uint8:
        inside = (values >= 0) & (values <= 255) & (values == np.floor(values))
        values = np.where(inside, values, 256).astype(np.intp)
    codes: NDArray[np.uint8] = known[values]
    return codes


def _decode_colors(values: NDArray[Any], table: Mapping[Raw, int]) -> NDArray[np.uint8]:
    packed = pack_colors(values)
    codes = np.full(packed.shape, UNKNOWN, np.uint8)
    for raw, code in table.items():
        if isinstance(raw, tuple):
            np.copyto(codes, np.uint8(code), where=packed == (raw[0] << 16 | raw[1] << 8 | raw[2]))
    return codes


def pack_colors(values: NDArray[Any]) -> NDArray[np.uint32]:
    """``(..., 3)`` colours as numbers ``red << 16 | green << 8 | blue``."""
    packed = values[..., 0].astype(np.uint32)
    for band in (1, 2):
        packed <<= np.uint32(8)
        packed |= values[..., band].astype(np.uint32)
    return packed


SECOND = ("water", "ground", "low vegetation", "tree", "building", "playground")
LANDSAT_SCD = ("farmland", "desert", "building", "water")
HRSCD = ("artificial surface", "agricultural area", "forest", "wetland", "water")
DUBAI = ("land", "water", "building", "vegetation", "road")
XBD = ("building", "minor damage", "major damage", "destroyed")

_LANDSAT_FROM_TO = ((1, 2), (1, 3), (2, 1), (2, 3), (2, 4), (3, 1), (3, 2), (4, 1), (4, 2))

ENCODINGS: dict[str, Encoding] = {
    each.name: each
    for each in (
        Encoding(
            "second-rgb",
            "SECOND's published colours; unchanged is white, or black in some renderings",
            SECOND,
            {
                (255, 255, 255): 0,
                (0, 0, 0): 0,
                (0, 0, 255): 1,
                (128, 128, 128): 2,
                (0, 128, 0): 3,
                (0, 255, 0): 4,
                (128, 0, 0): 5,
                (255, 0, 0): 6,
            },
        ),
        Encoding(
            "second-e1",
            "SECOND as numbers: 0 unchanged, then water, ground, low vegetation, tree, building, playground "
            "(ggsDing, open-cd, UFCD)",
            SECOND,
            {**{code: code for code in range(7)}, 255: NO_LABEL},
        ),
        Encoding(
            "second-e2",
            "SECOND as numbers: 0 unchanged, then low vegetation, ground, tree, water, building, playground "
            "(ChangeMamba)",
            SECOND,
            {0: 0, 1: 3, 2: 2, 3: 4, 4: 1, 5: 5, 6: 6, 255: NO_LABEL},
        ),
        Encoding(
            "second-e3",
            "SECOND as numbers: 0 water to 5 playground, 255 unchanged (torchange)",
            SECOND,
            {**{code: code + 1 for code in range(6)}, 255: UNCHANGED},
        ),
        Encoding(
            "second-e4",
            "SECOND as numbers: playground, low vegetation, ground, water, building, tree from 0, 6 unchanged "
            "(ClearSCD)",
            SECOND,
            {0: 6, 1: 3, 2: 2, 3: 1, 4: 5, 5: 4, 6: 0, 255: NO_LABEL},
        ),
        Encoding(
            "landsat-scd",
            "Landsat-SCD as numbers, a file a date: 0 unchanged, farmland, desert, building, water",
            LANDSAT_SCD,
            {**{code: code for code in range(5)}, 255: NO_LABEL},
        ),
        Encoding(
            "landsat-scd-rgb",
            "Landsat-SCD in colours, a file a date: white unchanged, black outside the scene",
            LANDSAT_SCD,
            {
                (255, 255, 255): 0,
                (0, 0, 0): NO_LABEL,
                (0, 155, 0): 1,
                (255, 165, 0): 2,
                (230, 30, 100): 3,
                (0, 170, 240): 4,
            },
        ),
        Encoding(
            "landsat-scd-from-to",
            "Landsat-SCD as published, one file for both dates: 0 unchanged, 1 to 9 the transitions that occur",
            LANDSAT_SCD,
            {0: 0, **{raw: pair[0] for raw, pair in enumerate(_LANDSAT_FROM_TO, 1)}, 255: NO_LABEL},
            after={0: 0, **{raw: pair[1] for raw, pair in enumerate(_LANDSAT_FROM_TO, 1)}, 255: NO_LABEL},
        ),
        Encoding(
            "hrscd",
            "HRSCD: 0 no information, artificial surface, agricultural area, forest, wetland, water, everywhere",
            HRSCD,
            {0: NO_LABEL, **{code: code for code in range(1, 6)}},
        ),
        Encoding(
            "xbd",
            "xBD targets: 0 ground, 1 undamaged building, 2 minor damage, 3 major damage, 4 destroyed, "
            "5 or 255 unclassified",
            XBD,
            {0: 0, 1: 0, 2: 1, 3: 1, 4: 1, 5: NO_LABEL, 255: NO_LABEL},
            after={0: 0, 1: 0, 2: 2, 3: 3, 4: 4, 5: NO_LABEL, 255: NO_LABEL},
        ),
        Encoding(
            "dubai-landcover",
            "single-date land cover of Dubai in colours; grey and black are unlabelled",
            DUBAI,
            {
                (132, 41, 246): 1,
                (226, 169, 41): 2,
                (60, 16, 152): 3,
                (254, 221, 58): 4,
                (110, 193, 228): 5,
                (155, 155, 155): NO_LABEL,
                (0, 0, 0): NO_LABEL,
            },
        ),
        Encoding("binary", "changed or not: 0 and 1, or 0 and 255", (), {0: 0, 1: 1, 255: 1}),
        Encoding(
            "binary-255-no-label", "changed or not: 0 and 1; 255 without a label", (), {0: 0, 1: 1, 255: NO_LABEL}
        ),
        Encoding("binary-smeared", "changed where above 127: a mask that was saved as JPEG", (), {}, threshold=127),
        Encoding(
            "nonzero",
            "changed wherever not 0; 255 without a label",
            (),
            {0: 0, **dict.fromkeys(range(1, 255), 1), 255: NO_LABEL},
        ),
    )
}
"""By the name that follows ``--encoding``. SECOND's classes have the same codes whichever way they are written."""


def encoding_named(name: str) -> Encoding:
    """The encoding of that name; SECOND's may be called ``e1`` to ``e4``.

    Raises:
        UsageError: there is none.
    """
    key = name.strip().casefold()
    key = f"second-{key}" if key in ("rgb", "e1", "e2", "e3", "e4") else key
    if key not in ENCODINGS:
        near = did_you_mean(key, list(ENCODINGS))
        raise UsageError(f"no label encoding is called {name!r}; known are {', '.join(ENCODINGS)}{near}")
    return ENCODINGS[key]
