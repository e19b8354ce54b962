"""A dataset folder, understood: `open_dataset` looks, `Dataset.examine` reads every file and lists all that is wrong.

folder ─> layout (layouts/) ─> encoding (recognise) ─> splits of FileSamples ─> training, scoring, previews
             │ missing halves       │ assumptions            │ examine: damaged files, sizes, unknown values
             └──────────────────────┴────────────────────────┴──> faults and warnings
"""

from __future__ import annotations

import hashlib
import itertools
import os
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

from wasnow.data.encodings import encoding_named
from wasnow.data.faults import Fault
from wasnow.data.images import header, read_picture, reading
from wasnow.data.layouts import described, hrscd, roles, xbd
from wasnow.data.layouts.layout import Layout, list_files, natural, sorted_entries
from wasnow.data.recognise import recognise
from wasnow.data.samples import Coding, Entry, FileSamples, Labels, combine, label_readers
from wasnow.data.vectors import is_vector
from wasnow.errors import DatasetError, InputError, RasterUnreadable, SingleDated, UsageError
from wasnow.raster.tiles import Window
from wasnow.vocabulary import NO_LABEL, Vocabulary

TOO_LARGE = 4096
"""A picture with a longer side is cut into tiles even if nobody asks: it would not fit a network."""

TILE = 1024

NAMED_SPLITS: dict[str, tuple[str, int]] = {
    "second-2375-593": ("67a4da44d4bbf81e68d758e852f1a64973188777549e61f6176e08b5daf37849", 593),
}
"""Published cuts of a training folder that are known when they are seen: name -> SHA-256 of the sorted ids of ``val``
(one a line), and how many these are. The lists themselves are their authors' files and do not come with wasnow.

``second-2375-593`` (val_list.txt of ggsDing's repositories) cuts SECOND's 2968 published training pairs. SECOND's own
split, 2968 training and 1694 test pairs, is how its folders come.
"""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class LabelCounts:
    """What the labels of some samples hold, in pixels.

    Attributes:
        images: samples counted.
        changed: pixels that changed.
        unchanged: pixels that did not.
        no_label: pixels without a label.
        transitions: ``(K + 1, K + 1)`` int64: changed pixels by class at the first and the second date; index 0 stands
            for a class that is not known.
    """

    images: int
    changed: int
    unchanged: int
    no_label: int
    transitions: NDArray[np.int64]

    @classmethod
    def of(cls, labels: Labels, classes: int) -> LabelCounts:
        """Count one sample."""
        transitions = np.zeros((classes + 1, classes + 1), np.int64)
        if labels.change is None:
            return cls(1, 0, 0, 0, transitions)
        counts = np.bincount(labels.change.ravel(), minlength=256)
        if labels.before_classes is not None and labels.after_classes is not None:
            here = labels.change == 1
            first, second = labels.before_classes[here].astype(np.int64), labels.after_classes[here].astype(np.int64)
            first[first == NO_LABEL] = 0
            second[second == NO_LABEL] = 0
            side = classes + 1
            transitions += np.bincount(first * side + second, minlength=side * side).reshape(side, side)
        return cls(1, int(counts[1]), int(counts[0]), int(counts[NO_LABEL]), transitions)

    def __add__(self, other: LabelCounts) -> LabelCounts:
        return LabelCounts(
            self.images + other.images,
            self.changed + other.changed,
            self.unchanged + other.unchanged,
            self.no_label + other.no_label,
            self.transitions + other.transitions,
        )

    @property
    def change_share(self) -> float:
        """Changed pixels among those with a label, 0..1; NaN where there are none."""
        labelled = self.changed + self.unchanged
        return self.changed / labelled if labelled else float("nan")

    def class_shares(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """``(K,)`` each: the classes among changed pixels at the first and the second date, 0..1."""
        first, second = self.transitions.sum(axis=1)[1:], self.transitions.sum(axis=0)[1:]
        return first / max(int(first.sum()), 1), second / max(int(second.sum()), 1)


@dataclass(frozen=True)
class Examination:
    """What reading every file of a dataset brought to light."""

    faults: tuple[Fault, ...]
    warnings: tuple[str, ...]
    tallies: Mapping[str, LabelCounts]

    @property
    def ready(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults


@dataclass(frozen=True)
class Dataset:
    """A folder of pairs, ready to be read.

    Attributes:
        path: as the user gave it.
        layout: what it was recognised as.
        splits: ``train``, ``val``, ``test``, or ``all``.
        faults: what was wrong without reading pixels; `examine` finds the rest.
        warnings: what was assumed.
        coding: how its files are read.
    """

    path: Path
    layout: str
    splits: Mapping[str, FileSamples]
    coding: Coding
    faults: tuple[Fault, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def vocabulary(self) -> Vocabulary:
        """The classes; empty for change without classes."""
        return self.coding.vocabulary

    def describe(self) -> dict[str, str]:
        """What this is, for a person, in the order of a table."""
        classes, change = self.coding.classes, self.coding.change
        encodings = [f"{name} labels {each.name}" for name, each in (("class", classes), ("change", change)) if each]
        some = next((s.entries[0] for s in self.splits.values() if len(s)), None)
        size = "no pair"
        if some is not None:
            try:
                with reading():
                    head = header(some.before)
                size = f"{head.width} x {head.height} px, {head.bands} bands of {head.dtype}, {head.driver}"
            except InputError as error:
                size = str(error)
            if some.window is not None:
                size += f", cut into tiles of {some.window.width} px"
        return {
            "dataset": str(self.path),
            "layout": self.layout,
            "encoding": ", ".join(encodings) or ("polygons" if self._has_polygons else "no labels"),
            "classes": ", ".join(self.vocabulary.words) or "none: changed or not",
            "pairs": ", ".join(f"{split} {len(samples)}" for split, samples in self.splits.items()) or "none",
            "first pair": size,
        }

    @property
    def _has_polygons(self) -> bool:
        every = itertools.chain.from_iterable(samples.entries for samples in self.splits.values())
        return any(is_vector(path) for entry in every for path in entry.files)

    def check(self) -> tuple[Fault, ...]:
        """All that is wrong, after reading every file; empty for a dataset that is ready."""
        return self.examine().faults

    def examine(self, progress: Progress = lambda phase, done, total: None) -> Examination:
        """Read every file once: faults, warnings, and what the labels hold.

        Args:
            progress: called with ``"check"``, how many pairs are done, and how many there are.
        """
        jobs = [(split, entry) for split, samples in self.splits.items() for entry in samples.entries]
        faults = list(self.faults)
        odd: list[str] = []
        tallies: dict[str, LabelCounts] = {}
        with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            # Here and not only where files are opened: filters are shared by threads, and saving them is not safe.
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            results = pool.map(lambda job: _examine(job[1], self.coding, self.path), jobs)
            for done, ((split, entry), result) in enumerate(zip(jobs, results, strict=True), 1):
                faults += result.faults
                if result.disagree:
                    odd.append(entry.name)
                if result.tally is not None:
                    tallies[split] = tallies[split] + result.tally if split in tallies else result.tally
                progress("check", done, len(jobs))
        notes = list(self.warnings)
        if odd:
            notes.append(
                f"in {len(odd)} pairs (first {odd[0]}) the classes and the change label disagree about where the "
                "ground changed: the change label is believed, and classes it contradicts have no label"
            )
        unique = tuple(dict.fromkeys(sorted(faults, key=lambda fault: (natural(fault.file), fault.what))))
        if not jobs and not unique:
            unique = (Fault(str(self.path), "no pair was found"),)
        return Examination(unique, tuple(notes), tallies)


def open_dataset(
    path: str | os.PathLike[str],
    *,
    encoding: str | None = None,
    tile: int | None = None,
    split: str | None = None,
    strict: bool = True,
) -> Dataset:
    """Rendering at a folder (or a dataset.yaml) and say how to read it.

    Args:
        path: the folder.
        encoding: a name from `wasnow.data.encodings.ENCODINGS`, where the values cannot tell or tell wrongly.
        tile: cut pictures into tiles of this side; None leaves them whole, unless they are very large.
        split: a text file of the ids in the training folder that become ``val``; `NAMED_SPLITS` are recognised.
        strict: refuse a dataset with faults that show without reading pixels (missing halves, ...).

    Raises:
        DatasetError: no layout or encoding is recognised; or faults, all of them listed, where ``strict``.
        UsageError: no such encoding or split.
    """
    root = Path(path)
    told = None if encoding is None else encoding_named(encoding)
    found = _find(root)
    faults = list(found.faults)
    if not found.entries:
        if strict or not faults:
            raise _refusal(root, faults)
        return Dataset(root, found.layout, {}, Coding(), tuple(faults), found.notes)
    if split is not None:
        splits_cut, remark = _cut(found, Path(split), root)
        found = replace(found, splits=splits_cut, notes=(*found.notes, remark))
    known = recognise(found, root, told)
    splits: dict[str, tuple[Entry, ...]] = dict(known.splits)
    notes = list(known.notes)
    side = tile or found.tile
    if side is None and (largest := _largest(found)) > TOO_LARGE:
        side = TILE
        notes.append(f"pictures of up to {largest} px are cut into tiles of {TILE} px; --tile chooses another size")
    if side is not None:
        splits, unreadable = _tiled(splits, side, root)
        faults += unreadable
    if strict and faults:
        raise _refusal(root, faults)
    samples = {name: FileSamples(entries, known.coding, root) for name, entries in splits.items()}
    return Dataset(root, found.layout, samples, known.coding, tuple(faults), tuple(notes))


def _find(root: Path) -> Layout:
    if root.is_file() and root.suffix.lower() in (".yaml", ".yml"):
        return described.find(root)
    if not root.is_dir():
        raise DatasetError(f"{root}: {'is no folder' if root.exists() else 'no such folder'}; give a dataset's folder")
    if (root / described.FILE_NAME).is_file():
        return described.find(root / described.FILE_NAME)
    listing = list_files(root)
    found = hrscd.find(listing) or xbd.find(listing) or roles.find(listing)
    if found is not None:
        return found
    folders = sorted({str(path.parent) for path in listing.rasters}, key=natural)
    seen = f"{len(listing.rasters)} pictures in {', '.join(folders[:6])}" if folders else "no pictures"
    if roles.looks_single_dated(listing):
        raise SingleDated(
            f"{root} holds {seen}: images of one date with masks, no pairs; make pairs of them with wasnow data pairs"
        )
    raise DatasetError(
        f"{root} holds {seen}: no layout that is known (im1/im2/label1/label2, A/B/label, T1/T2/GT_CD, ...); "
        f"describe it in a {described.FILE_NAME} (see docs/datasets.md)"
    )


def _refusal(root: Path, faults: list[Fault]) -> DatasetError:
    first = "; ".join(str(fault) for fault in faults[:5]) or "no pair was found"
    more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
    return DatasetError(f"{root} has {len(faults)} faults: {first}{more}. Run wasnow data check {root} for all", faults)


def _cut(found: Layout, file: Path, root: Path) -> tuple[dict[str, tuple[Entry, ...]], str]:
    """A training folder cut into train and val by a list of the ids that become val; and a remark on the list."""
    ids = _listed_ids(file)
    splits = dict(found.splits)
    if "val" in splits:
        raise DatasetError(f"{root} has a val folder already, so {file} cannot cut it; leave --split out")
    whole = splits.pop("train", None) or splits.pop("all", ())
    val = [entry for entry in whole if entry.name.rpartition("/")[2] in ids]
    if len(val) != len(ids):
        raise DatasetError(
            f"{root}: {len(val)} of the {len(ids)} ids of {file} are in train; give the list of this data"
        )
    chosen = {entry.name for entry in val}
    digest = hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()
    name = next((name for name, (known, _) in NAMED_SPLITS.items() if known == digest), None)
    remark = f"val is the {len(ids)} ids of {file}" + (f", the published cut {name}" if name else "")
    return {"train": tuple(e for e in whole if e.name not in chosen), "val": sorted_entries(val), **splits}, remark


def _listed_ids(file: Path) -> set[str]:
    """The ids of a list file, with or without folder and extension."""
    if str(file) in NAMED_SPLITS:
        raise UsageError(
            f"the ids of {file} are its authors' list (val_list.txt) and do not come with wasnow; "
            "fetch it and give its path: --split val_list.txt"
        )
    try:
        lines = file.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--split {file} is no list of ids ({error}); give a text file with one id a line") from None
    ids = {Path(line).stem for line in lines}
    if not ids:
        raise UsageError(f"--split {file} is empty; give a text file with one id a line")
    return ids


def _largest(found: Layout) -> int:
    """The longest side among a few pictures of each split."""
    longest = 0
    for entries in found.splits.values():
        for entry in entries[:: max(1, len(entries) // 4)][:5]:
            try:
                with reading():
                    head = header(entry.before)
            except InputError:
                continue
            longest = max(longest, head.height, head.width)
    return longest


def _tiled(
    splits: Mapping[str, tuple[Entry, ...]], side: int, root: Path
) -> tuple[dict[str, tuple[Entry, ...]], list[Fault]]:
    """Each pair as tiles that partition it; ``name@row,col``."""
    faults: list[Fault] = []
    cut: dict[str, list[Entry]] = {split: [] for split in splits}
    for split, entries in splits.items():
        for entry in entries:
            try:
                with reading():
                    head = header(entry.before)
            except InputError as error:
                faults.append(_fault(entry.before, error, root))
                continue
            for row, col in itertools.product(range(0, head.height, side), range(0, head.width, side)):
                window = Window(row, col, min(side, head.height - row), min(side, head.width - col))
                whole = window == Window(0, 0, head.height, head.width)
                name = entry.name if whole else f"{entry.name}@{row},{col}"
                cut[split].append(replace(entry, name=name, window=None if whole else window))
    return {split: tuple(entries) for split, entries in cut.items()}, faults


@dataclass
class _Result:
    faults: list[Fault] = field(default_factory=list)
    disagree: bool = False
    tally: LabelCounts | None = None


def _examine(entry: Entry, coding: Coding, root: Path) -> _Result:
    """Read one pair and its labels; every file on its own, so that one fault hides no other."""
    result = _Result()
    with reading():
        shapes: dict[Path, tuple[int, int]] = {}
        for path in (entry.before, entry.after):
            try:
                picture, _ = read_picture(path, coding.rendering, entry.window)
                shapes[path] = (picture.shape[0], picture.shape[1])
            except InputError as error:
                result.faults.append(_fault(path, error, root))
        if len(shapes) == 2:
            result.faults += _unlike(entry, shapes, root)
        shape = shapes.get(entry.before) or shapes.get(entry.after)
        if shape is None:
            return result
        decoded: dict[str, NDArray[np.uint8]] = {}
        for kind, (path, read) in label_readers(entry, coding, shape).items():
            try:
                decoded[kind] = read()
            except InputError as error:
                result.faults.append(_fault(path, error, root))
    if not result.faults and decoded:
        labels = combine(decoded, coding)
        result.tally = LabelCounts.of(labels, len(coding.vocabulary))
        result.disagree = _disagree(decoded, coding)
    return result


def _disagree(decoded: Mapping[str, NDArray[np.uint8]], coding: Coding) -> bool:
    """Whether class labels and change label say otherwise about where the ground changed; dense covers may."""
    if "change" not in decoded or len(decoded) == 1 or (coding.classes is not None and coding.classes.dense):
        return False
    told = decoded["change"]
    classes = combine({kind: codes for kind, codes in decoded.items() if kind != "change"}, coding).change
    if classes is None:
        return False
    return bool(((classes != told) & (classes != NO_LABEL) & (told != NO_LABEL)).any())


def _unlike(entry: Entry, shapes: Mapping[Path, tuple[int, int]], root: Path) -> list[Fault]:
    """Size and place, where the two pictures differ."""
    first, second = shapes[entry.before], shapes[entry.after]
    name = _name(entry.after, root)
    if first != second:
        return [Fault(name, f"has {second[1]} x {second[0]} px, {_name(entry.before, root)} {first[1]} x {first[0]}")]
    before, after = header(entry.before), header(entry.after)
    if before.georeferenced and after.georeferenced:
        pixel = max(abs(before.transform.a), abs(before.transform.e))
        apart = max(abs(a - b) for a, b in zip(before.transform[:6], after.transform[:6], strict=True))
        if before.crs != after.crs or apart > 0.5 * pixel:
            return [
                Fault(name, f"lies on another grid than {_name(entry.before, root)}; bring both onto one (gdalwarp)")
            ]
    return []


def _name(path: Path, root: Path) -> str:
    home = root if root.is_dir() else root.parent
    return path.relative_to(home).as_posix() if path.is_relative_to(home) else str(path)


def _fault(path: Path, error: InputError, root: Path) -> Fault:
    """The error's own words, without the path at their head."""
    name = _name(path, root)
    text = error.reason if isinstance(error, RasterUnreadable) else str(error).removeprefix(f"{path}: ")
    return Fault(name, text.replace(f"{root}{os.sep}", ""))
