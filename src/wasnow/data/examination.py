"""Read every file of a dataset once: faults, warnings and label counts.

entry ─┬─ before, after ── readable, same size, same grid ──> ImagePrint ──> images that occur in two splits
       └─ labels ───────── readable, known values, same size ──> LabelCounts
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

from wasnow.data.duplicates import ImagePrint, find_leaks
from wasnow.data.faults import Fault, fault_of, relative_name
from wasnow.data.images import header, read_picture, reading
from wasnow.data.label_counts import LabelCounts
from wasnow.data.layouts.layout import natural
from wasnow.data.samples import Coding, Entry, combine, label_readers
from wasnow.errors import InputError
from wasnow.vocabulary import NO_LABEL

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Examination:
    """Result of reading every file of a dataset.

    Attributes:
        faults: sorted by file; empty for a dataset that is ready.
        warnings: assumptions, and oddities that are not faults.
        tallies: split -> label counts of its readable pairs.
    """

    faults: tuple[Fault, ...]
    warnings: tuple[str, ...]
    tallies: Mapping[str, LabelCounts]

    @property
    def ready(self) -> bool:
        """Whether there are no faults."""
        return not self.faults


@dataclass
class _Result:
    """Result for one pair."""

    faults: list[Fault] = field(default_factory=list)
    labels_disagree: bool = False
    counts: LabelCounts | None = None
    prints: list[ImagePrint] = field(default_factory=list)

    @property
    def is_copy(self) -> bool:
        """Whether both dates show the same pixels although change is labelled."""
        changed = self.counts is not None and self.counts.changed > 0
        return changed and len(self.prints) == 2 and self.prints[0].digest == self.prints[1].digest


def examine_entries(
    jobs: Sequence[tuple[str, Entry]], coding: Coding, root: Path, progress: Progress
) -> tuple[list[Fault], list[str], dict[str, LabelCounts]]:
    """Read all pairs and their labels, in threads.

    Args:
        jobs: (split, entry) of every pair.
        coding: how their label files are read.
        root: the dataset, for messages.
        progress: called with ``"check"``, pairs done, and their number.

    Returns:
        Faults, warnings, and label counts by split.
    """
    faults: list[Fault] = []
    disagreeing: list[str] = []
    copies: list[str] = []
    prints: dict[str, list[ImagePrint]] = {split: [] for split, _ in jobs}
    tallies: dict[str, LabelCounts] = {}
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        # Set once here: warning filters are shared by all threads, and saving them in a thread is not safe.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        results = pool.map(lambda job: _examine(job[1], coding, root), jobs)
        for done, ((split, entry), result) in enumerate(zip(jobs, results, strict=True), 1):
            faults += result.faults
            if result.labels_disagree:
                disagreeing.append(entry.name)
            if result.is_copy:
                copies.append(entry.name)
            prints[split] += result.prints
            if result.counts is not None:
                tallies[split] = tallies[split] + result.counts if split in tallies else result.counts
            progress("check", done, len(jobs))
    notes = []
    if disagreeing:
        notes.append(
            f"in {len(disagreeing)} pairs (first {disagreeing[0]}) class labels and change label disagree about where "
            "the ground changed: the change label is used, and classes that contradict it count as no label"
        )
    if copies:
        notes.append(
            f"in {len(copies)} pairs (first {copies[0]}) both images are equal, but labels mark change: check whether "
            "an image was copied to the wrong date"
        )
    return faults, [*notes, *find_leaks(prints)], tallies


def sorted_faults(faults: Sequence[Fault]) -> tuple[Fault, ...]:
    """Return the faults in natural order of their files, without repetitions."""
    return tuple(dict.fromkeys(sorted(faults, key=lambda fault: (natural(fault.file), fault.what))))


def _examine(entry: Entry, coding: Coding, root: Path) -> _Result:
    """Read one pair and its labels. Each file is read on its own, so that one fault does not hide another."""
    result = _Result()
    with reading():
        shapes: dict[Path, tuple[int, int]] = {}
        for path, rendering in ((entry.before, coding.rendering), (entry.after, coding.rendering.of_after)):
            try:
                picture, _ = read_picture(path, rendering, entry.window)
                shapes[path] = (picture.shape[0], picture.shape[1])
                result.prints.append(ImagePrint.of(relative_name(path, root), picture))
            except InputError as error:
                result.faults.append(fault_of(path, error, root))
        if len(shapes) == 2:
            result.faults += _grid_faults(entry, shapes, root)
        shape = shapes.get(entry.before) or shapes.get(entry.after)
        if shape is None:
            return result
        decoded: dict[str, NDArray[np.uint8]] = {}
        for kind, (path, read) in label_readers(entry, coding, shape).items():
            try:
                decoded[kind] = read()
            except InputError as error:
                result.faults.append(fault_of(path, error, root))
    if not result.faults and decoded:
        labels = combine(decoded, coding)
        result.counts = LabelCounts.of(labels, len(coding.vocabulary))
        result.labels_disagree = _labels_disagree(decoded, coding)
    return result


def _labels_disagree(decoded: Mapping[str, NDArray[np.uint8]], coding: Coding) -> bool:
    """Whether class labels and change label contradict each other, which dense land cover may."""
    if "change" not in decoded or len(decoded) == 1 or (coding.classes is not None and coding.classes.dense):
        return False
    change = decoded["change"]
    by_classes = combine({kind: codes for kind, codes in decoded.items() if kind != "change"}, coding).change
    if by_classes is None:
        return False
    return bool(((by_classes != change) & (by_classes != NO_LABEL) & (change != NO_LABEL)).any())


def _grid_faults(entry: Entry, shapes: Mapping[Path, tuple[int, int]], root: Path) -> list[Fault]:
    """Differences in size or georeference between the two images."""
    before_shape, after_shape = shapes[entry.before], shapes[entry.after]
    before_name, after_name = relative_name(entry.before, root), relative_name(entry.after, root)
    if before_shape != after_shape:
        sizes = f"{after_shape[1]} x {after_shape[0]} px, {before_name} {before_shape[1]} x {before_shape[0]}"
        return [Fault(after_name, f"has {sizes}")]
    before, after = header(entry.before), header(entry.after)
    if before.georeferenced and after.georeferenced:
        pixel = max(abs(before.transform.a), abs(before.transform.e))
        apart = max(abs(a - b) for a, b in zip(before.transform[:6], after.transform[:6], strict=True))
        if before.crs != after.crs or apart > 0.5 * pixel:
            return [Fault(after_name, f"is on another grid than {before_name}. Bring both onto one grid (gdalwarp)")]
    return []
