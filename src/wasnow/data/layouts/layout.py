"""The description of a dataset's files that every layout module returns, and the file listing they share."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from wasnow.data.encodings import LabelEncoding
from wasnow.data.faults import Fault
from wasnow.data.images import Rendering
from wasnow.data.samples import Entry
from wasnow.data.vectors import VECTOR_SUFFIXES, Columns

RASTER_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".jp2", ".img", ".vrt"})
LIST_SUFFIXES = frozenset({".txt", ".lst"})

_SPLITS = (
    ("train", re.compile(r"(^|[^a-z])(train|training|tr)([^a-z]|$)")),
    ("val", re.compile(r"(^|[^a-z])(val|valid|validation|dev|hold|holdout)([^a-z]|$)")),
    ("test", re.compile(r"(^|[^a-z])(test|testing)([^a-z]|$)")),
)


@dataclass(frozen=True)
class Layout:
    """The files of a dataset, before any pixel is read.

    Attributes:
        layout: name of the layout, in words.
        splits: ``train``, ``val``, ``test``, or ``all``; complete pairs only, sorted by name.
        faults: missing files, names in lists that do not exist, and similar.
        notes: assumptions that were made.
        classes: the encoding of class labels, where the layout defines it.
        change: the encoding of change labels, where the layout defines it.
        words: class words in code order, where a description gives them.
        columns: of polygon files.
        rendering: how images become 8-bit RGB.
        tile: side of tiles in pixels, where the description or the layout sets one.
    """

    layout: str
    splits: Mapping[str, tuple[Entry, ...]]
    faults: tuple[Fault, ...] = ()
    notes: tuple[str, ...] = ()
    classes: LabelEncoding | None = None
    change: LabelEncoding | None = None
    words: tuple[str, ...] | None = None
    columns: Columns | None = None
    rendering: Rendering = field(default_factory=Rendering)
    tile: int | None = None

    @property
    def entries(self) -> list[Entry]:
        """The pairs of all splits."""
        return [entry for entries in self.splits.values() for entry in entries]


@dataclass(frozen=True)
class Listing:
    """Every file under a folder that could belong to a dataset, as sorted relative paths."""

    root: Path
    rasters: tuple[PurePosixPath, ...]
    vectors: tuple[PurePosixPath, ...]
    lists: tuple[PurePosixPath, ...]

    def __truediv__(self, path: PurePosixPath) -> Path:
        return self.root / path


def list_files(root: Path) -> Listing:
    """List all rasters, polygon files and name lists under ``root``. Hidden files and folders are skipped."""
    rasters: list[PurePosixPath] = []
    vectors: list[PurePosixPath] = []
    lists: list[PurePosixPath] = []
    for folder, inner, files in os.walk(root, followlinks=True):
        inner[:] = sorted(name for name in inner if not name.startswith((".", "__MACOSX")))
        here = PurePosixPath(Path(folder).relative_to(root).as_posix())
        for name in sorted(files):
            path = here / name
            suffix = path.suffix.lower()
            if name.startswith("."):
                continue
            if suffix in RASTER_SUFFIXES:
                rasters.append(path)
            elif suffix in VECTOR_SUFFIXES:
                vectors.append(path)
            elif suffix in LIST_SUFFIXES:
                lists.append(path)
    return Listing(root, tuple(rasters), tuple(vectors), tuple(lists))


def split_of(name: str) -> str | None:
    """Return ``train`` for ``SECOND_train_set``, ``val`` for ``valid_list``; None for a name without a split."""
    spaced = re.sub(r"[_\-. ]+", " ", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)).casefold()
    matching = [split for split, pattern in _SPLITS if pattern.search(spaced)]
    return matching[0] if len(matching) == 1 else None


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key that puts ``tile_2`` before ``tile_10``."""
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part)


def sorted_entries(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Sort pairs by name, numbers by value."""
    return tuple(sorted(entries, key=lambda entry: natural(entry.name)))
