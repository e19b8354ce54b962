"""Options as a person types them, in a command or in a cell of a table, to the values that they mean.

Light: the command line imports it before anything heavy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from wasnow.errors import UsageError

YES, NO = ("yes", "true", "1", "on", "x"), ("no", "false", "0", "off")


def parse_thresholds(texts: Sequence[str]) -> tuple[float | None, dict[str, float]]:
    """``["0.5", "building=0.7"]`` to 0.5 and {"building": 0.7}; None where no common number is given.

    Raises:
        UsageError: not a number, or the same given twice.
    """
    common: float | None = None
    of_class: dict[str, float] = {}
    for text in texts:
        word, named, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            raise UsageError(
                f"--threshold {text!r} is not understood; write a number such as 0.5, or a class and a number "
                "such as building=0.7"
            ) from None
        if word.strip() in of_class or (not named and common is not None):
            raise UsageError(f"--threshold {text!r} is given after another of its kind; give each once")
        if named:
            of_class[word.strip()] = value
        else:
            common = value
    return common, of_class


def parse_bands(text: str | None) -> tuple[int, ...] | None:
    """``"4,3,2"`` to (4, 3, 2).

    Raises:
        UsageError: not numbers.
    """
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--bands {text!r} is not understood; write numbers from 1, such as --bands 4,3,2") from None


def parse_list(text: str) -> tuple[str, ...]:
    """``"a.tif; b.tif"`` to ("a.tif", "b.tif"); empty parts are left out."""
    return tuple(part for each in text.split(";") if (part := each.strip()))


def parse_flag(name: str, text: str) -> bool:
    """``yes`` or ``no``, in the usual spellings.

    Raises:
        UsageError: neither.
    """
    word = text.strip().casefold()
    if word in YES or word in NO:
        return word in YES
    raise UsageError(f"{name} {text!r} is neither yes nor no")


def parse_number(name: str, text: str, *, whole: bool = False) -> float | int:
    """A finite number, or a whole one.

    Raises:
        UsageError: none.
    """
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        raise UsageError(f"{name} {text!r} is no {'whole ' if whole else ''}number") from None
    if not math.isfinite(value):
        raise UsageError(f"{name} {text!r} is no number")
    return value
