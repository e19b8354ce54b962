"""BRIGHT (Chen et al. 2025) and DFC 2025 track 2, which is a part of it: optical before, SAR after, building damage.

    pre-event/bata-explosion_00000000_pre_disaster.tif      target/bata-explosion_00000000_building_damage.tif
    post-event/bata-explosion_00000000_post_disaster.tif    (train_set.txt, val_set.txt, test_set.txt)

In DFC 2025 these folders are in ``train`` and ``val``, and ``val`` has no targets. Transitions are from *building* to
*damaged* or *destroyed*; an intact building is unchanged.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import PurePosixPath

from wasnow.data.encodings import BRIGHT_WORDS, ENCODINGS
from wasnow.data.faults import Fault
from wasnow.data.layouts.layout import Layout, Listing, sorted_entries, split_of
from wasnow.data.layouts.lists import read_lists
from wasnow.data.samples import Entry

_NAME = re.compile(
    r"(?P<name>.+)_(?:(?P<before>pre_disaster)|(?P<after>post_disaster)|(?P<label>building_damage))", re.IGNORECASE
)


def find(listing: Listing) -> Layout | None:
    """Return the pairs of BRIGHT; None for a folder without its ``building_damage`` targets."""
    placed: dict[tuple[str, str], dict[str, PurePosixPath]] = defaultdict(dict)
    for path in listing.rasters:
        match = _NAME.fullmatch(path.stem)
        if match is not None:
            split = next((s for part in path.parts[:-1] if (s := split_of(part))), "all")
            kind = next(kind for kind in ("before", "after", "label") if match[kind])
            placed[split, match["name"]][kind] = path
    if not any("label" in files for files in placed.values()):
        return None
    labelled = {split for (split, _), files in placed.items() if "label" in files}
    splits: dict[str, list[Entry]] = defaultdict(list)
    faults: list[Fault] = []
    for (split, name), files in placed.items():
        wanted = {"before": "pre_disaster image", "after": "post_disaster image"}
        if split in labelled:
            wanted["label"] = "building_damage target"
        missing = [text for kind, text in wanted.items() if kind not in files]
        some = str(next(iter(files.values())))
        faults += [Fault(some, f"has no {text}: expected a file named {name}_...") for text in missing]
        if not missing:
            label = listing / files["label"] if "label" in files else None
            splits[split].append(Entry(name, listing / files["before"], listing / files["after"], joint_label=label))
    found = {split: sorted_entries(entries) for split, entries in sorted(splits.items())}
    notes = [f"{split} has no labels: usable for detection only" for split in sorted(set(found) - labelled)]
    if list(found) == ["all"] and (by_list := read_lists(listing, found["all"])) is not None:
        found, list_faults, list_notes = by_list
        faults += list_faults
        notes += list_notes
    return Layout(
        "BRIGHT, building damage", found, tuple(faults), tuple(notes), classes=ENCODINGS["bright"], words=BRIGHT_WORDS
    )
