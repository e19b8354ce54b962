"""A dataset folder: `open_dataset` recognises it, `Dataset.examine` reads every file and reports all faults.

folder ─> layout (layouts/) ─> encoding (recognise) ─> splits of FileSamples ─> training, evaluation, previews
             │ missing files        │ assumptions            │ examine: damaged files, sizes, unknown values
             └──────────────────────┴────────────────────────┴──> faults and warnings
"""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from wasnow.data.encodings import encoding_named
from wasnow.data.examination import Examination, Progress, examine_entries, sorted_faults
from wasnow.data.faults import Fault
from wasnow.data.images import header, reading
from wasnow.data.layouts import bright, described, hrscd, oscd, roles, suffixes, whu, xbd
from wasnow.data.layouts.layout import Layout, Listing, list_files, natural
from wasnow.data.recognise import recognise
from wasnow.data.samples import Coding, Entry, FileSamples
from wasnow.data.splits import TILE, TOO_LARGE, cut_into_tiles, longest_side, split_by_list
from wasnow.data.vectors import is_vector
from wasnow.errors import DatasetError, InputError, SingleDated
from wasnow.vocabulary import Vocabulary


@dataclass(frozen=True)
class Dataset:
    """A folder of image pairs, ready to be read.

    Attributes:
        path: as the user gave it.
        layout: the recognised layout, in words.
        splits: ``train``, ``val``, ``test``, or ``all``.
        faults: faults that show without reading pixels; `examine` finds the others.
        warnings: assumptions that were made.
        coding: how the files are read.
    """

    path: Path
    layout: str
    splits: Mapping[str, FileSamples]
    coding: Coding
    faults: tuple[Fault, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def vocabulary(self) -> Vocabulary:
        """The classes; empty for binary change."""
        return self.coding.vocabulary

    def describe(self) -> dict[str, str]:
        """Return the facts of the dataset in words, in the order of a table."""
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
            "classes": ", ".join(self.vocabulary.words) or "none: binary change",
            "pairs": ", ".join(f"{split} {len(samples)}" for split, samples in self.splits.items()) or "none",
            "first pair": size,
        }

    @property
    def _has_polygons(self) -> bool:
        every = itertools.chain.from_iterable(samples.entries for samples in self.splits.values())
        return any(is_vector(path) for entry in every for path in entry.files)

    def check(self) -> tuple[Fault, ...]:
        """Read every file and return all faults; empty for a dataset that is ready."""
        return self.examine().faults

    def examine(self, progress: Progress = lambda phase, done, total: None) -> Examination:
        """Read every file once and return faults, warnings and label counts.

        Args:
            progress: called with ``"check"``, pairs done, and their number.
        """
        jobs = [(split, entry) for split, samples in self.splits.items() for entry in samples.entries]
        faults, notes, tallies = examine_entries(jobs, self.coding, self.path, progress)
        unique = sorted_faults([*self.faults, *faults])
        if not jobs and not unique:
            unique = (Fault(str(self.path), "no image pair found"),)
        if jobs and not any(len(entry.files) > 2 for _, entry in jobs):
            unique = (
                *unique,
                Fault(str(self.path), "no labels found: usable for detection only"),
            )
        return Examination(unique, (*self.warnings, *notes), tallies)


def open_dataset(
    path: str | os.PathLike[str],
    *,
    encoding: str | None = None,
    tile: int | None = None,
    split: str | None = None,
    strict: bool = True,
) -> Dataset:
    """Recognise a dataset folder, or read the dataset.yaml that describes one.

    Args:
        path: the folder, or a dataset.yaml.
        encoding: a name from `wasnow.data.encodings.ENCODINGS`; None recognises it from the label values.
        tile: cut images into tiles of this side in pixels; None cuts only very large images.
        split: a text file with the ids of the training folder that become ``val``; see
            `wasnow.data.splits.NAMED_SPLITS`.
        strict: reject a dataset with faults that show without reading pixels, such as missing files.

    Raises:
        DatasetError: no layout or encoding is recognised; or there are faults (all listed) and ``strict`` is set.
        UsageError: unknown encoding, or a list of ids that cannot be read.
    """
    root = Path(path)
    requested = None if encoding is None else encoding_named(encoding)
    layout = _find_layout(root)
    faults = list(layout.faults)
    if not layout.entries:
        if strict or not faults:
            raise _refusal(root, faults)
        return Dataset(root, layout.layout, {}, Coding(), tuple(faults), layout.notes)
    if split is not None:
        by_list, note = split_by_list(layout.splits, Path(split), root)
        layout = replace(layout, splits=by_list, notes=(*layout.notes, note))
    recognised = recognise(layout, root, requested)
    splits: dict[str, tuple[Entry, ...]] = dict(recognised.splits)
    notes = list(recognised.notes)
    side = tile or layout.tile
    if side is None and (longest := longest_side(layout.splits)) > TOO_LARGE:
        side = TILE
        notes.append(f"images of up to {longest} px are cut into tiles of {TILE} px; --tile sets another size")
    if side is not None:
        splits, unreadable = cut_into_tiles(splits, side, root)
        faults += unreadable
    if strict and faults:
        raise _refusal(root, faults)
    samples = {name: FileSamples(entries, recognised.coding, root) for name, entries in splits.items()}
    return Dataset(root, layout.layout, samples, recognised.coding, tuple(faults), tuple(notes))


def _find_layout(root: Path) -> Layout:
    if root.is_file() and root.suffix.lower() in (".yaml", ".yml"):
        return described.find(root)
    if not root.is_dir():
        raise DatasetError(f"{root}: {'not a folder' if root.exists() else 'no such folder'}. Give a dataset folder")
    if (root / described.FILE_NAME).is_file():
        return described.find(root / described.FILE_NAME)
    listing = list_files(root)
    modules: tuple[Any, ...] = (hrscd, bright, xbd, oscd, whu, roles, suffixes)
    for module in modules:
        layout: Layout | None = module.find(listing)
        if layout is not None:
            return replace(layout, notes=(*layout.notes, *_ignored(listing, layout)))
    layout = roles.find_by_content(listing)
    if layout is not None:
        return replace(layout, notes=(*layout.notes, *_ignored(listing, layout)))
    folders = sorted({str(path.parent) for path in listing.rasters}, key=natural)
    content = f"{len(listing.rasters)} images in {', '.join(folders[:6])}" if folders else "no images"
    if roles.looks_single_dated(listing):
        raise SingleDated(
            f"{root} holds {content}: images of one date with masks, not pairs. Generate pairs with wasnow data pairs"
        )
    raise DatasetError(
        f"{root} holds {content}: not a known layout (im1/im2/label1/label2, A/B/label, T1/T2/GT_CD, ...). "
        f"Describe it in a {described.FILE_NAME} (see docs/datasets.md)"
    )


def _ignored(listing: Listing, layout: Layout) -> list[str]:
    """Return a note about images and polygons that no pair uses, by folder."""
    used = {path for entry in layout.entries for path in entry.files}
    faulty = {fault.file for fault in layout.faults}
    counts: dict[str, list[PurePosixPath]] = defaultdict(list)
    for path in (*listing.rasters, *listing.vectors):
        if listing / path not in used and str(path) not in faulty:
            counts[str(path.parent)].append(path)
    if not counts:
        return []
    shown = [
        f"{len(paths)} in {folder} (such as {paths[0].name})" if len(paths) > 1 else str(paths[0])
        for folder, paths in sorted(counts.items(), key=lambda item: natural(item[0]))
    ]
    more = f" and {len(shown) - 6} more folders" if len(shown) > 6 else ""
    return [f"files ignored, because they belong to no pair: {', '.join(shown[:6])}{more}"]


def _refusal(root: Path, faults: list[Fault]) -> DatasetError:
    first = "; ".join(str(fault) for fault in faults[:5]) or "no image pair found"
    more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
    return DatasetError(f"{root} has {len(faults)} faults: {first}{more}. Run wasnow data check {root} for all", faults)
