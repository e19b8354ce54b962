"""Splits defined by list files: ``train.txt``, ``list/val_list.txt``, ..."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from wasnow.data.faults import Fault, relative_name
from wasnow.data.layouts.layout import RASTER_SUFFIXES, Listing, split_of
from wasnow.data.samples import Entry


def splits_in_order(splits: Mapping[str, tuple[Entry, ...]]) -> dict[str, tuple[Entry, ...]]:
    """Return the splits in the order train, val, test, then the others."""
    order = ["train", "val", "test"]
    return {name: splits[name] for name in sorted(splits, key=lambda n: order.index(n) if n in order else 9)}


def read_lists(
    listing: Listing, entries: Sequence[Entry], lists: Mapping[str, Path] | None = None
) -> tuple[dict[str, tuple[Entry, ...]], list[Fault], list[str]] | None:
    """Return the splits that list files define; None where no list names these pairs.

    A line names a sample, with or without suffix and folders. Of several files in a line, the first counts.

    Args:
        listing: where ``train.txt``, ``list/val_list.txt``, ... are searched.
        entries: all pairs.
        lists: split -> list file; None searches for them.
    """
    known = {entry.name: entry for entry in entries} | {PurePosixPath(entry.name).name: entry for entry in entries}
    if lists is None:
        given = False
        found: dict[str, Path] = {}
        for one in sorted(listing.lists, key=lambda p: (len(p.stem), str(p))):
            named = split_of(one.stem)
            if named is not None and named not in found:
                found[named] = listing / one
        lists = found
    else:
        given = True
    splits: dict[str, tuple[Entry, ...]] = {}
    faults: list[Fault] = []
    for split, path in lists.items():
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            faults.append(Fault(str(path), f"cannot be read as a list of names ({error})"))
            continue
        chosen: dict[str, Entry] = {}
        lost: list[str] = []
        for line in filter(None, map(str.strip, text.splitlines())):
            entry = next((known[name] for name in _names_in(line) if name in known), None)
            if entry is None:
                lost.append(line)
            else:
                chosen[entry.name] = entry
        if not chosen and not given:
            continue
        splits[split] = tuple(chosen.values())
        faults += [
            Fault(relative_name(path, listing.root), f"names {line!r}, but there is no such pair") for line in lost
        ]
    if not splits:
        return (splits, faults, []) if faults and given else None
    left = len(entries) - len({entry.name for chosen in splits.values() for entry in chosen})
    notes = [f"splits by the lists {', '.join(relative_name(path, listing.root) for path in lists.values())}"]
    if left:
        notes.append(f"{left} pairs are in none of the lists and ignored")
    return splits_in_order(splits), faults, notes


def _names_in(line: str) -> list[str]:
    """Return the names that a line of a list may refer to, most likely first."""
    names: list[str] = []
    for text in (line, re.split(r"[\s,;]+", line)[0]):
        path = PurePosixPath(text.replace("\\", "/"))
        stem = path.with_suffix("") if path.suffix.lower() in RASTER_SUFFIXES else path
        names += [str(stem), stem.name]
    return names
