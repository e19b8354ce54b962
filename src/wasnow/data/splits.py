"""Change the splits of a dataset: cut a training folder by a list of ids, and cut large images into tiles."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from wasnow.data.faults import Fault, fault_of
from wasnow.data.images import header, reading
from wasnow.data.layouts.layout import sorted_entries
from wasnow.data.samples import Entry
from wasnow.errors import DatasetError, InputError, UsageError
from wasnow.raster.tiles import Window

TOO_LARGE = 4096
"""Images with a longer side in pixels are cut into tiles by default, because they would not fit a network."""

TILE = 1024
"""Default side of the tiles, pixels."""

NAMED_SPLITS: dict[str, tuple[str, int]] = {
    "second-2375-593": ("67a4da44d4bbf81e68d758e852f1a64973188777549e61f6176e08b5daf37849", 593),
}
"""Published train/val splits of a training folder: name -> SHA-256 of the sorted ids of ``val`` (one per line), and
their number. A list with this digest is reported by its name. The lists belong to their authors and are not included.

``second-2375-593`` (val_list.txt of ggsDing's repositories) splits SECOND's 2968 published training pairs. SECOND's own
split, 2968 training and 1694 test pairs, is given by its folders.
"""

Splits = Mapping[str, tuple[Entry, ...]]


def split_by_list(splits: Splits, file: Path, root: Path) -> tuple[dict[str, tuple[Entry, ...]], str]:
    """Move the ids of a list from the training split to ``val``.

    Args:
        splits: of the dataset, with ``train`` or ``all`` and without ``val``.
        file: text file with one id per line, with or without folder and extension.
        root: the dataset, for messages.

    Returns:
        The new splits, and a sentence about the list.

    Raises:
        DatasetError: there is a ``val`` split already, or ids are not in the training split.
        UsageError: the file cannot be read or is empty.
    """
    ids = _read_ids(file)
    result = dict(splits)
    if "val" in result:
        raise DatasetError(f"{root}: has a val folder already, so {file} cannot be applied. Leave --split out")
    whole = result.pop("train", None) or result.pop("all", ())
    val = [entry for entry in whole if entry.name.rpartition("/")[2] in ids]
    if len(val) != len(ids):
        raise DatasetError(
            f"{root}: only {len(val)} of the {len(ids)} ids in {file} are in train. Give the list of this dataset"
        )
    chosen = {entry.name for entry in val}
    digest = hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()
    name = next((name for name, (known, _) in NAMED_SPLITS.items() if known == digest), None)
    note = f"val consists of the {len(ids)} ids in {file}" + (f", the published split {name}" if name else "")
    train = tuple(entry for entry in whole if entry.name not in chosen)
    return {"train": train, "val": sorted_entries(val), **result}, note


def longest_side(splits: Splits) -> int:
    """Return the longest side in pixels among a few images of each split; unreadable images are skipped."""
    longest = 0
    for entries in splits.values():
        for entry in entries[:: max(1, len(entries) // 4)][:5]:
            try:
                with reading():
                    head = header(entry.before)
            except InputError:
                continue
            longest = max(longest, head.height, head.width)
    return longest


def cut_into_tiles(splits: Splits, side: int, root: Path) -> tuple[dict[str, tuple[Entry, ...]], list[Fault]]:
    """Replace each pair by tiles that partition it, named ``name@row,col``.

    Args:
        splits: of the dataset.
        side: of the tiles, pixels; those at the right and lower edge are smaller.
        root: the dataset, for messages.

    Returns:
        The new splits, and a fault for each image that cannot be read.
    """
    faults: list[Fault] = []
    cut: dict[str, list[Entry]] = {split: [] for split in splits}
    for split, entries in splits.items():
        for entry in entries:
            try:
                with reading():
                    head = header(entry.before)
            except InputError as error:
                faults.append(fault_of(entry.before, error, root))
                continue
            cut[split] += _tiles_of(entry, head.height, head.width, side)
    return {split: tuple(entries) for split, entries in cut.items()}, faults


def _tiles_of(entry: Entry, height: int, width: int, side: int) -> Sequence[Entry]:
    if height <= side and width <= side:
        return [replace(entry, window=None)]
    tiles = []
    for row, col in itertools.product(range(0, height, side), range(0, width, side)):
        window = Window(row, col, min(side, height - row), min(side, width - col))
        tiles.append(replace(entry, name=f"{entry.name}@{row},{col}", window=window))
    return tiles


def _read_ids(file: Path) -> set[str]:
    if str(file) in NAMED_SPLITS:
        raise UsageError(
            f"the ids of {file} are the authors' list (val_list.txt) and are not included in wasnow. "
            "Download the list and give its path: --split val_list.txt"
        )
    try:
        lines = file.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--split {file} cannot be read ({error}). Give a text file with one id per line") from None
    ids = {Path(line).stem for line in lines}
    if not ids:
        raise UsageError(f"--split {file} is empty. Give a text file with one id per line")
    return ids
