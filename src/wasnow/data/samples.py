"""One training sample, and a sequence of samples read from files on access.

    Entry (paths) ──> images ───────────────────────────────> before, after        (H, W, 3)
                 └──> label files ──> LabelEncoding ──> reconcile ──> before_classes, after_classes, change   (H, W)
    (wasnow.priors.samples) masks of words ─────────────────> priors               (2, W, H, Wd)

A `Sample` has one form, whatever the label files hold:

    change           0 unchanged   1 changed                      255 no label
    *_classes        0 unchanged   1..K the class at that date    255 no label

Without a change label, a pixel that has no label at one date has no label at both. With a change label, a pixel that it
marks as changed keeps its change label, and only the missing class is 255. A pixel that is invalid in one of the images
has no label.
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

from wasnow.data.encodings import UNKNOWN, LabelEncoding, pack_colors
from wasnow.data.images import RawLabel, Rendering, header, read_label, read_picture, reading
from wasnow.data.labels import Codes as Codes
from wasnow.data.labels import Labels, either_changed, reconcile
from wasnow.data.vectors import Columns, burn, is_vector, read_polygons
from wasnow.errors import InputError, UnknownLabels
from wasnow.raster.tiles import Window
from wasnow.vocabulary import NO_LABEL, Vocabulary


@dataclass(frozen=True)
class Sample:
    """An image pair with its labels.

    Attributes:
        name: unique within its split.
        before: ``(H, W, 3)`` uint8 RGB.
        after: ``(H, W, 3)`` uint8 RGB.
        before_classes: ``(H, W)`` uint8: 0 unchanged, 1..K the class, 255 no label. None without class labels.
        after_classes: the same for the second date; None exactly where ``before_classes`` is.
        change: ``(H, W)`` uint8: 0, 1, 255 no label. None without labels.
        priors: ``(2, W, H, Wd)`` uint8 prior masks, dates by words: 1 where a word is, else 0. None without any.
    """

    name: str
    before: NDArray[np.uint8]
    after: NDArray[np.uint8]
    before_classes: Codes | None = None
    after_classes: Codes | None = None
    change: Codes | None = None
    priors: Codes | None = None


class Samples(Protocol):
    """A sequence of samples: all that training, evaluation and previews need from a dataset."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The classes of codes 1..K; empty for change without classes."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """Names of all samples, in order."""
        ...

    @property
    def fingerprint(self) -> str:
        """Digest that differs between different samples."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


@dataclass(frozen=True, slots=True)
class Entry:
    """The files of one sample. Each label may be None, and may hold polygons.

    Attributes:
        name: unique within its split.
        before: image of the first date.
        after: image of the second date.
        before_label: class labels of the first date.
        after_label: class labels of the second date.
        joint_label: one file with the classes of both dates.
        change_label: binary change labels.
        window: the part of the files that is this sample; None for all of it.
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
        """All files, images first."""
        every = (self.before, self.after, self.before_label, self.after_label, self.joint_label, self.change_label)
        return tuple(path for path in every if path is not None)


@dataclass(frozen=True)
class Coding:
    """How the files of a dataset are read.

    Attributes:
        classes: encoding of `Entry.before_label`, `Entry.after_label` and `Entry.joint_label`.
        change: encoding of `Entry.change_label`.
        vocabulary: class words; polygon files name them directly.
        columns: of polygon files; None looks for them.
        rendering: how images become 8-bit RGB.
    """

    classes: LabelEncoding | None = None
    change: LabelEncoding | None = None
    vocabulary: Vocabulary = field(default_factory=Vocabulary)
    columns: Columns | None = None
    rendering: Rendering = field(default_factory=Rendering)


@dataclass(frozen=True)
class FileSamples:
    """Samples in files, read one at a time and not cached. Safe for threads and forked workers."""

    entries: tuple[Entry, ...]
    coding: Coding
    root: Path = field(default_factory=Path)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Sample:
        """Read a pair and its labels.

        Raises:
            RasterUnreadable: a file is missing or damaged.
            UnknownLabels: a label file holds values that its encoding does not define.
            InputError: sizes differ, or polygons cannot be read.
        """
        entry = self.entries[index]
        with reading():
            before, before_valid = read_picture(entry.before, self.coding.rendering, entry.window)
            after, after_valid = read_picture(entry.after, self.coding.rendering.of_after, entry.window)
            if before.shape != after.shape:
                raise InputError(
                    f"{entry.before} has {_size(before.shape)} px, {entry.after} {_size(after.shape)}. "
                    "Both must have the same size; wasnow data check lists all such faults"
                )
            labels = read_labels(entry, self.coding, before.shape[:2])
        valid = _intersection(before_valid, after_valid)
        if valid is not None:
            labels = Labels(*(None if m is None else np.where(valid, m, np.uint8(NO_LABEL)) for m in _maps(labels)))
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

        Modification times are not included, so that a copy of a dataset has the same fingerprint. The end of a PNG
        holds a checksum of its pixels.
        """
        digest = hashlib.sha256()
        coding = self.coding
        facts = [coding.vocabulary.words, *_encoding_facts(coding.classes), *_encoding_facts(coding.change)]
        facts += [coding.rendering.bands, coding.rendering.stretch]
        if coding.rendering.stretch_after is not None:
            facts.append(coding.rendering.stretch_after)
        digest.update(repr(facts).encode())
        sums: dict[Path, bytes] = {}
        for entry in self.entries:
            digest.update(repr((entry.name, entry.window)).encode())
            for path in entry.files:
                if path not in sums:
                    sums[path] = sum_of_ends(path)
                digest.update(sums[path])
        return digest.hexdigest()


def _encoding_facts(encoding: LabelEncoding | None) -> list[object]:
    """What an encoding does, without the texts that describe it."""
    if encoding is None:
        return [None]
    after = None if encoding.after is None else sorted(encoding.after.items(), key=repr)
    return [encoding.words, sorted(encoding.codes.items(), key=repr), after, encoding.threshold]


def sum_of_ends(path: Path) -> bytes:
    """Return the SHA-256 of a file's name, size, first and last 4 KiB: a cheap stand-in for its content.

    Raises:
        InputError: the file cannot be read.
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
    """Return the label maps of a pair, decoded and reconciled.

    Args:
        entry: the pair.
        coding: how its files are read.
        shape: rows and columns of the images; the labels must have the same.

    Raises:
        RasterUnreadable, UnknownLabels, InputError: as for `FileSamples`.
    """
    return combine({kind: read() for kind, (_, read) in label_readers(entry, coding, shape).items()}, coding)


def label_readers(
    entry: Entry, coding: Coding, shape: tuple[int, int]
) -> dict[str, tuple[Path, Callable[[], NDArray[np.uint8]]]]:
    """Return each label file of a pair: kind -> its path, and a function that decodes it.

    The kinds are ``before``, ``after``, ``joint`` and ``change``. A ``joint`` label decodes to both dates,
    ``(2, H, W)``.

    Args:
        entry: the pair.
        coding: how its files are read.
        shape: rows and columns of the images.
    """
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
            columns = coding if kind == "joint" else Coding(columns=Columns())
            readers[kind] = path, partial(_rasterized, entry, path, columns, joint=kind == "joint")
        elif encoding is not None:
            readers[kind] = path, partial(decode_file, path, encoding, shape, entry.window)
    return readers


def combine(decoded: Mapping[str, Codes], coding: Coding) -> Labels:
    """Combine the maps that `label_readers` decoded into the labels of one sample."""
    before, after = decoded.get("before"), decoded.get("after")
    if "joint" in decoded:
        before, after = decoded["joint"]
    if before is None or after is None:
        return Labels(None, None, decoded.get("change"))
    if not coding.vocabulary.words:
        return Labels(None, None, decoded.get("change", either_changed(before, after)))
    dense = coding.classes is not None and coding.classes.dense
    return reconcile(before, after, decoded.get("change"), dense=dense)


def decode_file(path: Path, encoding: LabelEncoding, shape: tuple[int, int], window: Window | None = None) -> Codes:
    """Return the class codes of one label raster, ``(H, W)``, or ``(2, H, W)`` for an encoding of both dates.

    Args:
        path: of the raster.
        encoding: of its values.
        shape: rows and columns of the images.
        window: the part to read; None for all of it.

    Raises:
        RasterUnreadable: the file is missing or damaged.
        UnknownLabels: it holds values that the encoding does not define.
        InputError: it differs in size from the images.
    """
    raw = read_label(path, window)
    if raw.shape != tuple(shape):
        raise InputError(f"{path}: has {_size(raw.shape)} px, its images {_size(shape)}. Labels need the same size")
    return decode(path, raw, encoding)


def decode(path: Path, raw: RawLabel, encoding: LabelEncoding) -> Codes:
    """Return the class codes of the values of a label file.

    Args:
        path: of the file, for messages.
        raw: its values.
        encoding: of the values.

    Raises:
        UnknownLabels: the encoding does not define some of the values.
    """
    values = raw.values_for(encoding)
    codes = encoding.decode(values)
    unknown = codes == UNKNOWN
    if unknown.any():
        if unknown.ndim == 3:
            unknown = unknown.any(axis=0)
        raise UnknownLabels(path, count_values(raw, unknown), encoding.name)
    return codes


def count_values(raw: RawLabel, where: NDArray[np.bool_]) -> dict[str, int]:
    """Count the values in a part of a label file, most frequent first: ``{"12": 40}``, ``{"1,2,3": 7}``."""
    if raw.numbers is not None and raw.colors is None:
        values, counts = np.unique(raw.numbers[where], return_counts=True)
        texts = [f"{value:g}" for value in values.tolist()]
    else:
        assert raw.colors is not None
        values, counts = np.unique(pack_colors(raw.colors[where]), return_counts=True)
        texts = [f"{value >> 16},{value >> 8 & 255},{value & 255}" for value in values.tolist()]
    order = np.argsort(-counts, kind="stable")
    return {texts[i]: int(counts[i]) for i in order}


def _rasterized(entry: Entry, path: Path, coding: Coding, *, joint: bool) -> Codes:
    polygons = read_polygons(path, coding.columns)
    codes = {word.casefold(): code for code, word in enumerate(coding.vocabulary.words, 1)}
    try:
        before, after, unknown = burn(polygons, header(entry.before), codes, entry.window)
    except InputError as error:
        raise InputError(f"{path}: cannot be rasterized on {entry.before.name}: {error}") from None
    if unknown:
        words = ", ".join(f"{word!r} in {n} polygons" for word, n in unknown.items())
        raise InputError(
            f"{path}: unknown class {words}; the classes are {', '.join(coding.vocabulary.words)}. "
            "Add it to classes, or correct the file"
        )
    return np.stack([before, after]) if joint else after


def _intersection(first: NDArray[np.bool_] | None, second: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
    if first is None or second is None:
        return first if second is None else second
    return first & second


def _maps(labels: Labels) -> tuple[Codes | None, Codes | None, Codes | None]:
    return labels.before_classes, labels.after_classes, labels.change


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]} x {shape[0]}"
