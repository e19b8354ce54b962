"""How datasets write their labels: file values to class codes.

    label file ── numbers or colours ── LabelEncoding ──> 0 unchanged, 1..K class, 255 no label

`ENCODINGS` lists the published encodings by the name that follows ``--encoding``. Works on arrays: no files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wasnow.errors import UsageError, VocabularyError, did_you_mean
from wasnow.vocabulary import NO_LABEL, SECOND_WORDS

Raw = int | tuple[int, int, int]
"""The value of a label file at one pixel: a number, or a colour."""

MINUS_ONE = -1
"""Decodes to no label unless an encoding defines it: many label rasters of signed integers mark missing labels so."""

NOT_GREY = -2
"""Value of a coloured pixel where numbers are expected; no encoding defines it."""

UNCHANGED = 0
UNKNOWN = 254
"""Returned by `LabelEncoding.decode` for a value that the encoding does not define."""


@dataclass(frozen=True)
class LabelEncoding:
    """How the label files of a dataset are read: file value -> class code (0 unchanged, 1..K, 255 no label).

    Attributes:
        name: what a user writes after ``--encoding``.
        summary: one line: the datasets and repositories that use the encoding.
        words: the classes of codes 1..K; empty for binary labels, changed (1) or unchanged (0).
        codes: file value -> code. With ``after``, the code at the first date.
        after: file value -> code at the second date, for files that label both dates at once. None where each date
            has its own file.
        threshold: numbers above this decode to 1 and all others to 0, and ``codes`` is ignored. Used for masks that
            were compressed as JPEG.

    Raises:
        VocabularyError: too many classes for 8-bit codes.
        UsageError: file values mix numbers and colours.
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
            raise UsageError(f"{self.name} mixes numbers and colours; use one kind for all file values")

    @property
    def of_colors(self) -> bool:
        """Whether file values are colours instead of numbers."""
        return any(isinstance(raw, tuple) for raw in self.codes)

    @property
    def dense(self) -> bool:
        """Whether labels name a class at unchanged pixels too, so that change is where the dates differ."""
        return bool(self.words) and UNCHANGED not in self.codes.values()

    def decode(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Return the class codes of file values, `UNKNOWN` where the encoding does not define one.

        Args:
            values: ``(H, W)`` numbers, or ``(H, W, 3)`` colours where `of_colors`.

        Returns:
            ``(H, W)`` uint8; ``(2, H, W)``, first and second date, for an encoding with ``after``.
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
    """Decode numbers by a table of 0..255 and -1."""
    known = np.full(258, UNKNOWN, np.uint8)
    known[257] = table.get(MINUS_ONE, NO_LABEL)
    for raw, code in table.items():
        if isinstance(raw, int) and raw >= 0:
            known[raw] = code
    if values.dtype != np.uint8:
        inside = (values >= 0) & (values <= 255) & (values == np.floor(values))
        values = np.where(inside, values, np.where(values == MINUS_ONE, 257, 256)).astype(np.intp)
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
    """Return ``(..., 3)`` colours as uint32 numbers ``red << 16 | green << 8 | blue``."""
    packed = values[..., 0].astype(np.uint32)
    for band in (1, 2):
        packed <<= np.uint32(8)
        packed |= values[..., band].astype(np.uint32)
    return packed


LANDSAT_SCD_WORDS = ("farmland", "desert", "building", "water")
HRSCD_WORDS = ("artificial surface", "agricultural area", "forest", "wetland", "water")
DUBAI_WORDS = ("land", "water", "building", "vegetation", "road")
BRIGHT_WORDS = ("building", "damaged", "destroyed")
XBD_WORDS = ("building", "minor damage", "major damage", "destroyed")

_LANDSAT_FROM_TO = ((1, 2), (1, 3), (2, 1), (2, 3), (2, 4), (3, 1), (3, 2), (4, 1), (4, 2))

ENCODINGS: dict[str, LabelEncoding] = {
    each.name: each
    for each in (
        LabelEncoding(
            "second-rgb",
            "SECOND in its published colours; unchanged is white, or black in some copies",
            SECOND_WORDS,
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
        LabelEncoding(
            "second-e1",
            "SECOND as numbers: 0 unchanged, then water, ground, low vegetation, tree, building, playground "
            "(ggsDing, open-cd, UFCD)",
            SECOND_WORDS,
            {**{code: code for code in range(7)}, 255: NO_LABEL},
        ),
        LabelEncoding(
            "second-e2",
            "SECOND as numbers: 0 unchanged, then low vegetation, ground, tree, water, building, playground "
            "(ChangeMamba)",
            SECOND_WORDS,
            {0: 0, 1: 3, 2: 2, 3: 4, 4: 1, 5: 5, 6: 6, 255: NO_LABEL},
        ),
        LabelEncoding(
            "second-e3",
            "SECOND as numbers: 0 water to 5 playground, 255 unchanged (torchange)",
            SECOND_WORDS,
            {**{code: code + 1 for code in range(6)}, 255: UNCHANGED},
        ),
        LabelEncoding(
            "second-e4",
            "SECOND as numbers: playground, low vegetation, ground, water, building, tree from 0, 6 unchanged "
            "(ClearSCD)",
            SECOND_WORDS,
            {0: 6, 1: 3, 2: 2, 3: 1, 4: 5, 5: 4, 6: 0, 255: NO_LABEL},
        ),
        LabelEncoding(
            "landsat-scd",
            "Landsat-SCD as numbers, one file per date: 0 unchanged, farmland, desert, building, water",
            LANDSAT_SCD_WORDS,
            {**{code: code for code in range(5)}, 255: NO_LABEL},
        ),
        LabelEncoding(
            "landsat-scd-rgb",
            "Landsat-SCD in colours, one file per date: white unchanged, black outside the scene",
            LANDSAT_SCD_WORDS,
            {
                (255, 255, 255): 0,
                (0, 0, 0): NO_LABEL,
                (0, 155, 0): 1,
                (255, 165, 0): 2,
                (230, 30, 100): 3,
                (0, 170, 240): 4,
            },
        ),
        LabelEncoding(
            "landsat-scd-from-to",
            "Landsat-SCD as published, one file for both dates: 0 unchanged, 1 to 9 the transitions",
            LANDSAT_SCD_WORDS,
            {0: 0, **{raw: pair[0] for raw, pair in enumerate(_LANDSAT_FROM_TO, 1)}, 255: NO_LABEL},
            after={0: 0, **{raw: pair[1] for raw, pair in enumerate(_LANDSAT_FROM_TO, 1)}, 255: NO_LABEL},
        ),
        LabelEncoding(
            "hrscd",
            "HRSCD, dense: 0 no information, artificial surface, agricultural area, forest, wetland, water",
            HRSCD_WORDS,
            {0: NO_LABEL, **{code: code for code in range(1, 6)}},
        ),
        LabelEncoding(
            "xbd",
            "xBD targets: 0 ground, 1 undamaged building, 2 minor damage, 3 major damage, 4 destroyed, "
            "5 or 255 unclassified",
            XBD_WORDS,
            {0: 0, 1: 0, 2: 1, 3: 1, 4: 1, 5: NO_LABEL, 255: NO_LABEL},
            after={0: 0, 1: 0, 2: 2, 3: 3, 4: 4, 5: NO_LABEL, 255: NO_LABEL},
        ),
        LabelEncoding(
            "bright",
            "BRIGHT and DFC 2025: 0 background, 1 intact, 2 damaged, 3 destroyed building; 255 no label",
            BRIGHT_WORDS,
            {0: 0, 1: 0, 2: 1, 3: 1, 255: NO_LABEL},
            after={0: 0, 1: 0, 2: 2, 3: 3, 255: NO_LABEL},
        ),
        LabelEncoding(
            "dubai-landcover",
            "single-date land cover of Dubai in colours; grey and black have no label",
            DUBAI_WORDS,
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
        LabelEncoding("binary", "binary change: 0 and 1, or 0 and 255", (), {0: 0, 1: 1, 255: 1}),
        LabelEncoding("binary-255-no-label", "binary change: 0 and 1; 255 no label", (), {0: 0, 1: 1, 255: NO_LABEL}),
        LabelEncoding(
            "binary-smeared", "binary change: above 127 changed, for masks compressed as JPEG", (), {}, threshold=127
        ),
        LabelEncoding(
            "nonzero",
            "binary change: 0 unchanged, 1 to 254 changed, 255 no label",
            (),
            {0: 0, **dict.fromkeys(range(1, 255), 1), 255: NO_LABEL},
        ),
    )
}
"""Published encodings by the name that follows ``--encoding``. All encodings of SECOND share the same class codes."""


def encoding_named(name: str) -> LabelEncoding:
    """Return the encoding of that name. Those of SECOND also have the short names ``rgb`` and ``e1`` to ``e4``.

    Raises:
        UsageError: no encoding has that name.
    """
    key = name.strip().casefold()
    key = f"second-{key}" if key in ("rgb", "e1", "e2", "e3", "e4") else key
    if key not in ENCODINGS:
        near = did_you_mean(key, list(ENCODINGS))
        raise UsageError(f"unknown label encoding {name!r}; known are {', '.join(ENCODINGS)}{near}")
    return ENCODINGS[key]
