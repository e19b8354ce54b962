"""One training example, and a sequence of them read from files when asked for.

    Entry (paths) ──> pictures ──────────────────────> before, after             (H, W, 3)
                 └──> label files ──> Encoding ──> reconcile ──> before_classes, after_classes, change   (H, W)
    (wasnow.priors.samples) masks of words ──────────> priors                    (2, W, H, Wd)

Whatever the files say, a `Sample` says it in one way:

    change           0 unchanged   1 changed                      255 no label
    *_classes        0 unchanged   1..K the class at that date    255 no label

A pixel without a label at one date has none at all where change can only be told from the classes; where a change map
of its own says *changed*, only the class is missing. A pixel that one of the pictures does not show has no label.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wasnow.data.encodings import UNCHANGED, UNKNOWN, LabelEncoding, pack_colors
from wasnow.data.images import RawLabel, Rendering, header, read_label, read_picture, reading
from wasnow.data.vectors import Columns, burn, is_vector, read_polygons
from wasnow.errors import InputError, UnknownLabels
from wasnow.raster.tiles import Window
from wasnow.vocabulary import NO_LABEL, Vocabulary

Codes = NDArray[np.uint8]


@dataclass(frozen=True)
class Sample:
    """A pair of pictures with what is known of it.

    Attributes:
        name: unique within its split.
        before: ``(H, W, 3)`` uint8 RGB.
        after: the same for the second date.
        before_classes: ``(H, W)`` uint8: 0 unchanged, 1..K the class, 255 no label. None without class labels.
        after_classes: the same for the second date; None exactly where ``before_classes`` is.
        change: ``(H, W)`` uint8: 0, 1, 255 no label. None without labels.
        priors: ``(2, W, H, Wd)`` uint8: 1 where a word is, at each date, for a model that wants to know; else 0. None
            where nobody looked.
    """

    name: str
    before: NDArray[np.uint8]
    after: NDArray[np.uint8]
    before_classes: Codes | None = None
    after_classes: Codes | None = None
    change: Codes | None = None
    priors: Codes | None = None


class Samples(Protocol):
    """What training, scoring and previews know of a dataset: a sequence of samples."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The classes of codes 1..K; empty for change without classes."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """Of all samples, in order."""
        ...

    @property
    def fingerprint(self) -> str:
        """Another one where the samples are others."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


@dataclass(frozen=True, slots=True)
class Entry:
    """The files of one sample.

    Attributes:
        before_label: class labels of the first date.
        after_label: class labels of the second date.
        joint_label: one file that tells the classes of both dates.
        change_label: changed or not. Any label may be None, and may hold polygons.
        window: the part of the files that is this sample; None for all.
    """

    name: str
    before: Path
    after: Path
    before_label: Path | None = None
    after_label: Path | None = None
    joint_label: Path | None = None
    change_label: Path | None = None
    window: Window | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them, pictures first."""
        every = (self.before, self.after, self.before_label, self.after_label, self.joint_label, self.change_label)
        return tuple(path for path in every if path is not None)


@dataclass(frozen=True)
class Coding:
    """How the label files of a dataset are to be read.

    Attributes:
        classes: of `Entry.before_label`, `Entry.after_label` and `Entry.joint_label`.
        change: of `Entry.change_label`.
        vocabulary: the words; polygons name them as they are.
        columns: of files that hold polygons; None looks for them.
        rendering: of the pictures.
    """

    classes: LabelEncoding | None = None
    change: LabelEncoding | None = None
    vocabulary: Vocabulary = field(default_factory=Vocabulary)
    columns: Columns | None = None
    rendering: Rendering = field(default_factory=Rendering)


@dataclass(frozen=True)
class Labels:
    """The three label maps of one pair, reconciled; see `Sample`."""

    before_classes: Codes | None
    after_classes: Codes | None
    change: Codes | None


@dataclass(frozen=True)
class FileSamples:
    """Samples that lie in files; reads one at a time and keeps none. Safe for threads and forked workers."""

    entries: tuple[Entry, ...]
    coding: Coding
    root: Path = field(default_factory=Path)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Sample:
        """Read a pair and its labels.

        Raises:
            RasterUnreadable: a file is missing or damaged.
            UnknownLabels: a label file holds what its encoding does not know.
            InputError: sizes differ, or polygons cannot be read.
        """
        entry = self.entries[index]
        with reading():
            before, before_valid = read_picture(entry.before, self.coding.rendering, entry.window)
            after, after_valid = read_picture(entry.after, self.coding.rendering, entry.window)
            if before.shape != after.shape:
                raise InputError(
                    f"{entry.before} has {_size(before.shape)} px, {entry.after} {_size(after.shape)}; "
                    "give pairs of one size, or run wasnow data check for all such faults"
                )
            labels = read_labels(entry, self.coding, before.shape[:2])
        seen = _both(before_valid, after_valid)
        if seen is not None:
            labels = Labels(*(None if m is None else np.where(seen, m, np.uint8(NO_LABEL)) for m in _maps(labels)))
        return Sample(entry.name, before, after, *_maps(labels))

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    @property
    def vocabulary(self) -> Vocabulary:
        """See `Samples`."""
        return self.coding.vocabulary

    @cached_property
    def names(self) -> tuple[str, ...]:
        """See `Samples`."""
        return tuple(entry.name for entry in self.entries)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over names, encodings, windows, and each file's size, first and last 4 KiB.

        Modification times are left out, so that a copy of a dataset counts as the same; the end of a PNG holds a
        checksum of its pixels.
        """
        digest = hashlib.sha256()
        coding = self.coding
        digest.update(repr((coding.vocabulary.words, coding.classes, coding.change, coding.rendering)).encode())
        told: dict[Path, bytes] = {}
        for entry in self.entries:
            digest.update(repr((entry.name, entry.window)).encode())
            for path in entry.files:
                if path not in told:
                    told[path] = sum_of_ends(path)
                digest.update(told[path])
        return digest.hexdigest()


def sum_of_ends(path: Path) -> bytes:
    """SHA-256 of a file's name, size, first and last 4 KiB: near enough to its content, at any size.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            digest = hashlib.sha256(f"{path.name} {size} ".encode() + file.read(4096))
            file.seek(max(0, size - 4096))
            digest.update(file.read(4096))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    return digest.digest()


def read_labels(entry: Entry, coding: Coding, shape: tuple[int, int]) -> Labels:
    """The label maps of a pair, decoded and reconciled.

    Args:
        entry: whose labels.
        coding: how its files are written.
        shape: rows and columns of the pictures, which the labels must have as well.

    Raises:
        RasterUnreadable, UnknownLabels, InputError: as for `FileSamples`.
    """
    return combine({kind: read() for kind, (_, read) in label_readers(entry, coding, shape).items()}, coding)


def label_readers(
    entry: Entry, coding: Coding, shape: tuple[int, int]
) -> dict[str, tuple[Path, Callable[[], NDArray[np.uint8]]]]:
    """Each label file of a pair: kind -> its path, and what decodes it. A ``joint`` holds both dates, ``(2, H, W)``."""
    readers: dict[str, tuple[Path, Callable[[], Codes]]] = {}
    files = {
        "before": (entry.before_label, coding.classes),
        "after": (entry.after_label, coding.classes),
        "joint": (entry.joint_label, coding.classes),
        "change": (entry.change_label, coding.change),
    }
    for kind, (path, encoding) in files.items():
        if path is None:
            continue
        if is_vector(path):
            told = coding if kind == "joint" else Coding(columns=Columns())
            readers[kind] = path, partial(_burnt, entry, path, told, joint=kind == "joint")
        elif encoding is not None:
            readers[kind] = path, partial(decode_file, path, encoding, shape, entry.window)
    return readers


def combine(decoded: Mapping[str, Codes], coding: Coding) -> Labels:
    """What `label_readers` read, as one story."""
    before, after = decoded.get("before"), decoded.get("after")
    if "joint" in decoded:
        before, after = decoded["joint"]
    if before is None or after is None:
        return Labels(None, None, decoded.get("change"))
    if not coding.vocabulary.words:
        return Labels(None, None, decoded.get("change", _only_change(before, after)))
    dense = coding.classes is not None and coding.classes.dense
    return reconcile(before, after, decoded.get("change"), dense=dense)


def decode_file(path: Path, encoding: LabelEncoding, shape: tuple[int, int], window: Window | None = None) -> Codes:
    """Class codes of one label raster, ``(H, W)``, or ``(2, H, W)`` for an encoding of both dates.

    Raises:
        RasterUnreadable: missing or damaged.
        UnknownLabels: it holds what the encoding does not know.
        InputError: it has another size than the pictures.
    """
    raw = read_label(path, window)
    if raw.shape != tuple(shape):
        raise InputError(f"{path}: has {_size(raw.shape)} px, its pictures {_size(shape)}; labels need the same size")
    return decode(path, raw, encoding)


def decode(path: Path, raw: RawLabel, encoding: LabelEncoding) -> Codes:
    """Class codes of what a label file holds; the path is for the message.

    Raises:
        UnknownLabels: the encoding does not know some of it.
    """
    values = raw.values_for(encoding)
    codes = encoding.decode(values)
    strange = codes == UNKNOWN
    if strange.any():
        if strange.ndim == 3:
            strange = strange.any(axis=0)
        raise UnknownLabels(path, count_values(raw, strange), encoding.name)
    return codes


def count_values(raw: RawLabel, where: NDArray[np.bool_]) -> dict[str, int]:
    """How often each value occurs in a part of a label file, most frequent first: ``{"12": 40}``, ``{"1,2,3": 7}``."""
    if raw.numbers is not None and raw.colors is None:
        values, counts = np.unique(raw.numbers[where], return_counts=True)
        texts = [f"{value:g}" for value in values.tolist()]
    else:
        assert raw.colors is not None
        values, counts = np.unique(pack_colors(raw.colors[where]), return_counts=True)
        texts = [f"{value >> 16},{value >> 8 & 255},{value & 255}" for value in values.tolist()]
    order = np.argsort(-counts, kind="stable")
    return {texts[i]: int(counts[i]) for i in order}


def reconcile(before: Codes | None, after: Codes | None, change: Codes | None, *, dense: bool) -> Labels:
    """One story from up to three label maps.

    Args:
        before: ``(H, W)`` codes of the first date.
        after: of the second date.
        change: 0, 1, 255; None tells it from the classes.
        dense: the classes speak of every pixel, so that change is where they differ; else it is where either is not 0.
    """
    if before is None or after is None:
        return Labels(None, None, change)
    silent = (before == NO_LABEL) | (after == NO_LABEL)
    if change is None:
        changed = before != after if dense else (before != UNCHANGED) | (after != UNCHANGED)
        change = np.where(silent, np.uint8(NO_LABEL), changed.astype(np.uint8))
        outside = silent
    else:
        outside = change == NO_LABEL
    # A class map that says "unchanged" where the change map says "changed" has no class to offer there.
    maps = [
        np.where(codes == UNCHANGED, np.uint8(NO_LABEL), codes) if not dense else codes for codes in (before, after)
    ]
    told = change == 1
    before, after = (np.where(told, codes, np.where(outside, NO_LABEL, UNCHANGED)).astype(np.uint8) for codes in maps)
    return Labels(before, after, change)


def _only_change(before: Codes, after: Codes) -> Codes:
    """Two masks that each say *changed* (new here, gone there) as one."""
    silent = (before == NO_LABEL) | (after == NO_LABEL)
    return np.where(silent, np.uint8(NO_LABEL), ((before == 1) | (after == 1)).astype(np.uint8))


def _burnt(entry: Entry, path: Path, coding: Coding, *, joint: bool) -> Codes:
    polygons = read_polygons(path, coding.columns)
    codes = {word.casefold(): code for code, word in enumerate(coding.vocabulary.words, 1)}
    try:
        before, after, unknown = burn(polygons, header(entry.before), codes, entry.window)
    except InputError as error:
        raise InputError(f"{path}: on {entry.before.name}: {error}") from None
    if unknown:
        raise InputError(
            f"{path}: {', '.join(f'{word!r} in {n} polygons' for word, n in unknown.items())} is none of the classes "
            f"{', '.join(coding.vocabulary.words)}; add it to classes, or correct the file"
        )
    return np.stack([before, after]) if joint else after


def _both(first: NDArray[np.bool_] | None, second: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
    if first is None or second is None:
        return first if second is None else second
    return first & second


def _maps(labels: Labels) -> tuple[Codes | None, Codes | None, Codes | None]:
    return labels.before_classes, labels.after_classes, labels.change


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]} x {shape[0]}"
