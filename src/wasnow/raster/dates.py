"""The acquisition date in the tags of a raster file, and whether it can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

ACQUISITION_TAGS = ("ACQUISITIONDATETIME", "EXIF_DateTimeOriginal")
FILE_TAGS = ("TIFFTAG_DATETIME", "EXIF_DateTime")
"""Tags with the time at which a program wrote the file: of the acquisition only if nothing processed it since."""

EARLIEST_YEAR = 1826
"""Of the oldest surviving photograph."""


@dataclass(frozen=True, slots=True)
class FileDate:
    """The date of a file.

    Attributes:
        date: YYYY-MM-DD; None if unknown.
        doubt: why it may not be the acquisition date, or why a tag was ignored; None without doubt.
    """

    date: str | None
    doubt: str | None = None


def file_date(tags: Mapping[str, str]) -> FileDate:
    """Return the date of a file from its tags: of the acquisition if possible, else of the file."""
    faults = []
    for key in (*ACQUISITION_TAGS, *FILE_TAGS):
        text = str(tags.get(key, "")).strip()
        if not text:
            continue
        day = _day(text)
        if day is None:
            faults.append(f"its tag {key} {text[:40]!r} is not a date and was ignored")
        elif key in FILE_TAGS:
            faults.append(f"its date {day} is that of the tag {key}, which is often the time of processing")
            return FileDate(day, "; ".join(faults))
        else:
            return FileDate(day, "; ".join(faults) or None)
    return FileDate(None, "; ".join(faults) or None)


def _day(text: str) -> str | None:
    """Return the day of ``2017:06:30 10:20:30`` or ``2017-06-30T...`` as ISO text; None if there is no such day."""
    try:
        parsed = datetime.strptime(text[:10].replace(":", "-").replace("/", "-"), "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        return None
    latest = datetime.now(UTC) + timedelta(days=1)
    return parsed.strftime("%Y-%m-%d") if parsed.year >= EARLIEST_YEAR and parsed <= latest else None
