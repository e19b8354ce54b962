"""Convert option values as users write them: text of the command line and of lists, and Python objects."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any

from wasnow.errors import InvalidOption

PROBABILITY = "a number from 0 to below 1"


def parse_thresholds(texts: Sequence[str]) -> tuple[float | None, dict[str, float]]:
    """Parse ``["0.5", "building=0.7"]`` to 0.5 and {"building": 0.7}; None without a common threshold.

    Raises:
        InvalidOption: not a number, or the same threshold twice.
    """
    common: float | None = None
    of_class: dict[str, float] = {}
    for text in texts:
        word, named, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            raise InvalidOption(
                f"{{threshold}} {text!r} is not a threshold; write a number such as 0.5, or a class and a number such "
                "as building=0.7"
            ) from None
        if word.strip() in of_class or (not named and common is not None):
            raise InvalidOption(f"{{threshold}} {text!r} repeats an earlier threshold; give each once")
        if named:
            of_class[word.strip()] = value
        else:
            common = value
    return common, of_class


def parse_list(text: str) -> tuple[str, ...]:
    """Parse ``"a.tif; b.tif"`` to ("a.tif", "b.tif"), without empty parts."""
    return tuple(part for each in text.split(";") if (part := each.strip()))


def check_date(name: str, text: str) -> str:
    """Return a date that exists, written as YYYY, YYYY-MM or YYYY-MM-DD.

    Raises:
        InvalidOption: anything else.
    """
    for pattern in ("%Y", "%Y-%m", "%Y-%m-%d"):
        try:
            parsed = datetime.strptime(text, pattern)
        except ValueError:
            continue
        if parsed.strftime(pattern) == text:
            return text
    raise InvalidOption(f"{{{name}}} {text!r} is not a date; write YYYY, YYYY-MM or YYYY-MM-DD")


def plain(value: Any) -> Any:
    """Paths as text, dates as YYYY-MM-DD, numpy scalars as numbers; other values unchanged."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, date):
        return value.strftime("%Y-%m-%d")
    if hasattr(value, "dtype") and getattr(value, "ndim", None) == 0:
        return value.item()
    return value


def numbers(value: Any) -> Any:
    """``"4,3,2"`` as (4, 3, 2); a single number as a tuple."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(","))
    return (value,) if isinstance(value, int) else tuple(map(plain, _iterable(value)))


def texts(value: Any) -> Any:
    """A path or text as a tuple; None for nothing."""
    if value is None:
        return None
    if isinstance(value, str | os.PathLike):
        return parse_list(os.fspath(value)) or None
    return tuple(map(plain, _iterable(value))) or None


def _iterable(value: Any) -> Iterable[Any]:
    if not isinstance(value, Iterable):
        raise ValueError("not a sequence")
    return value


def crs_text(value: Any) -> Any:
    """An EPSG number or a CRS object of rasterio or pyproj, as text."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"EPSG:{value}"
    if isinstance(value, str) or value is None:
        return value
    for name in ("to_string", "to_wkt"):
        if callable(method := getattr(value, name, None)):
            return method()
    return value


def stretch_text(value: Any) -> Any:
    """``auto``, ``LOW,HIGH``, or ``LOW,HIGH,LOW,HIGH`` per date; numbers become the text."""
    if isinstance(value, str):
        text = value.strip()
        if text == "auto":
            return text
        parts: Sequence[Any] = text.split(",")
    else:
        text, parts = "", list(map(plain, _iterable(value)))
    try:
        limits = [float(part) for part in parts]
    except (TypeError, ValueError):
        limits = []
    if len(limits) not in (2, 4):
        raise InvalidOption(
            f"{{stretch}} must be auto, two numbers such as 0,3000, or four for one stretch per date, not {value!r}"
        )
    for low, high in (limits[:2], limits[-2:]):
        if not (math.isfinite(low) and math.isfinite(high)):
            raise InvalidOption(f"{{stretch}} needs finite numbers such as 0,3000, not {low:g},{high:g}")
        if not low < high:
            raise InvalidOption(f"{{stretch}} goes from {low:g} to {high:g}; write the smaller number first")
    return text or ",".join(map(repr, limits))


def nodata_text(value: Any) -> Any:
    """``VALUE`` or ``VALUE,VALUE``: the nodata value of both dates or of each; numbers become the text."""
    if value is None:
        return None
    if isinstance(value, int | float):
        parts: Sequence[Any] = [value]
    else:
        parts = value.split(",") if isinstance(value, str) else list(map(plain, _iterable(value)))
    try:
        numbers_given = [float(part) for part in parts]
    except (TypeError, ValueError):
        numbers_given = []
    if len(numbers_given) not in (1, 2):
        raise InvalidOption(f"{{nodata}} must be one number, or one per date such as 0,-9999, not {value!r}")
    return ",".join(map(repr, numbers_given))


def threshold_pairs(value: Any) -> Any:
    """Class thresholds, a mapping or pairs, as sorted pairs."""
    if isinstance(value, Mapping):
        value = value.items()
    pairs = [(str(word), plain(number)) for word, number in _iterable(value)]
    for word, number in pairs:
        if not (isinstance(number, int | float) and 0 <= number < 1):
            raise InvalidOption(f"{{class_thresholds}}: {word}={number!r} must be {PROBABILITY}")
    # Sorted: the order in which thresholds were given has no meaning.
    return tuple(sorted(pairs))


def whole_number(value: Any) -> Any:
    """``"8"`` as 8: Literal does not convert text."""
    value = plain(value)
    return int(value) if isinstance(value, str) and value.strip().isdigit() else value


def number_text(value: Any) -> Any:
    """32 as ``"32"``: Literal does not convert numbers."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def with_split_thresholds(values: dict[str, Any]) -> dict[str, Any]:
    """Thresholds as the command line and lists write them: a text, or several, with or without class words."""
    given = values.get("threshold")
    if isinstance(given, str):
        given = parse_list(given)
    if not isinstance(given, list | tuple):
        return values
    common, of_class = parse_thresholds([str(each) for each in given])
    return {**values, "threshold": common, "class_thresholds": {**dict(values.get("class_thresholds", ())), **of_class}}
