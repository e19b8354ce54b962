"""Pairs in one folder, with the role in the file name.

    town_pre.png  town_post.png  town_mask.png        0001_A.tif  0001_B.tif  0001_label.tif
    before_12.jpg  after_12.jpg  change_12.png        images/town_t1.png  images/town_t2.png  masks/town.png

The role is the first or the last word of the file name, or a folder of labels.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import PurePosixPath

from wasnow.data.faults import Fault
from wasnow.data.layouts.layout import Layout, Listing, natural, sorted_entries, split_of
from wasnow.data.layouts.lists import read_lists, splits_in_order
from wasnow.data.layouts.names import AFTER, BEFORE, CHANGE, FIRST, PICTURES, SECOND, role_name, role_of
from wasnow.data.samples import Entry

_WORDS = re.compile(r"[_\-. ]+")


def find(listing: Listing) -> Layout | None:
    """Return pairs of files whose names differ in their role only; None for other folders."""
    placed: dict[tuple[str | None, str], dict[str, list[PurePosixPath]]] = defaultdict(lambda: defaultdict(list))
    for path in listing.rasters:
        found = _role_and_name(path)
        if found is not None:
            role, name = found
            split = next((s for part in path.parts[:-1] if (s := split_of(part))), None)
            folders = [p for p in path.parts[:-1] if split_of(p) is None and role_of(p) is None and not _generic(p)]
            placed[split, "/".join((*folders, name))][role].append(path)
    complete = [files for files in placed.values() if all(len(files[role]) == 1 for role in PICTURES)]
    if not complete or len(complete) < 0.5 * sum(bool(f[BEFORE] or f[AFTER]) for f in placed.values()):
        return None
    labels = {role for files in complete for role in (FIRST, SECOND, CHANGE) if files[role]}
    entries: dict[str | None, list[Entry]] = defaultdict(list)
    faults: list[Fault] = []
    for (split, name), files in sorted(placed.items(), key=lambda item: (item[0][0] or "", natural(item[0][1]))):
        if not any(files[role] for role in PICTURES):
            continue
        some = str(next(paths[0] for paths in files.values() if paths))
        missing = [role for role in (*PICTURES, *sorted(labels)) if not files[role]]
        twice = [paths for paths in files.values() if len(paths) > 1]
        faults += [Fault(some, f"has no {role_name(role)} of the same name") for role in missing]
        faults += [Fault(str(paths[0]), f"duplicate of {', '.join(map(str, paths[1:]))}") for paths in twice]
        if not missing and not twice:
            one = {role: listing / paths[0] for role, paths in files.items() if paths}
            pair = (name, one[BEFORE], one[AFTER], one.get(FIRST), one.get(SECOND), None, one.get(CHANGE))
            entries[split].append(Entry(*pair))
    notes = ["the role of each file is taken from its name"]
    if set(entries) == {None} and (by_list := read_lists(listing, entries[None])) is not None:
        splits, list_faults, list_notes = by_list
        return Layout("file names with a role", splits, (*faults, *list_faults), (*notes, *list_notes))
    splits = splits_in_order({split or "all": sorted_entries(found) for split, found in entries.items()})
    return Layout("file names with a role", splits, tuple(faults), tuple(notes))


def _role_and_name(path: PurePosixPath) -> tuple[str, str] | None:
    """The role of a file and the rest of its stem; None without a role."""
    words = _WORDS.split(path.stem)
    separators = [*_WORDS.findall(path.stem), ""]
    for count in (2, 1):
        if len(words) <= count:
            continue
        last, first = role_of("".join(words[-count:])), role_of("".join(words[:count]))
        if last is not None:
            kept = zip(words[:-count], [*separators[: len(words) - count - 1], ""], strict=True)
            return last, "".join(word + mark for word, mark in kept)
        if first is not None:
            kept = zip(words[count:], [*separators[count : len(words) - 1], ""], strict=True)
            return first, "".join(word + mark for word, mark in kept)
    folder = next((role for part in reversed(path.parts[:-1]) if (role := role_of(part)) is not None), None)
    return (folder, path.stem) if folder in (FIRST, SECOND, CHANGE) else None


def _generic(folder: str) -> bool:
    """Whether a folder name says nothing about its samples."""
    return folder.casefold() in ("images", "image", "img", "imgs", "data", "dataset")
