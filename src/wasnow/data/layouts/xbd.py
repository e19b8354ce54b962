"""xBD (Gupta et al. 2019, "Creating xBD") and datasets derived from it: before and after a disaster, building damage.

    train/images/guatemala-volcano_00000003_pre_disaster.png       train/targets/..._post_disaster_target.png
    train/images/guatemala-volcano_00000003_post_disaster.png      train/labels/..._post_disaster.json

Transitions are from *building* to *minor damage*, *major damage* or *destroyed*. An undamaged building is unchanged, an
unclassified one has no label. Targets are preferred to JSON where both exist.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import PurePosixPath

from wasnow.data.encodings import ENCODINGS, XBD_WORDS
from wasnow.data.faults import Fault
from wasnow.data.layouts.layout import Layout, Listing, sorted_entries, split_of
from wasnow.data.samples import Entry

_NAME = re.compile(r"(?P<name>.+)_(?P<date>pre|post)_disaster(?P<target>_target)?", re.IGNORECASE)


def find(listing: Listing) -> Layout | None:
    """Return the pairs of xBD; None for a folder without its file names."""
    placed: dict[tuple[str, str], dict[str, PurePosixPath]] = defaultdict(dict)
    for path in (*listing.rasters, *listing.vectors):
        match = _NAME.fullmatch(path.stem)
        if match is None:
            continue
        split = next((s for part in path.parts[:-1] if (s := split_of(part))), "all")
        polygons = path in listing.vectors
        target = bool(match["target"]) or any(part.casefold() in ("targets", "masks") for part in path.parts[:-1])
        kind = "json" if polygons else "target" if target else "image"
        placed[split, match["name"]][f"{match['date'].lower()} {kind}"] = path
    if not any("pre image" in files and "post image" in files for files in placed.values()):
        return None
    labelled = any("post target" in files or "post json" in files for files in placed.values())
    targets = any("post target" in files for files in placed.values())
    splits: dict[str, list[Entry]] = defaultdict(list)
    faults: list[Fault] = []
    for (split, name), files in placed.items():
        wanted = ["pre image", "post image", *(["post target" if targets else "post json"] if labelled else [])]
        missing = [kind for kind in wanted if kind not in files]
        some = next(iter(files.values()))
        faults += [Fault(str(some), f"has no {kind} (…_{kind.split()[0]}_disaster…)") for kind in missing]
        if not missing:
            label = listing / files[wanted[2]] if labelled else None
            splits[split].append(
                Entry(name, listing / files["pre image"], listing / files["post image"], None, None, label)
            )
    return Layout(
        "xBD, " + ("damage as targets" if targets else "damage as polygons" if labelled else "no labels"),
        {split: sorted_entries(entries) for split, entries in sorted(splits.items())},
        tuple(faults),
        classes=ENCODINGS["xbd"],
        words=XBD_WORDS,
    )
