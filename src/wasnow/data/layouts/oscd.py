"""OSCD (Daudt et al. 2018, "Urban change detection for multispectral Earth observation"): Sentinel-2, 24 cities.

    Onera ... - Images/rennes/pair/img1.png       Onera ... - Train Labels/rennes/cm/cm.png
    Onera ... - Images/rennes/pair/img2.png       Onera ... - Test Labels/brasilia/cm/cm.png
    Onera ... - Images/rennes/imgs_1/..._B04.tif  (and 12 further bands per date, which are ignored)

Each band of a date is a file of its own, so the RGB images in ``pair`` are used.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import PurePosixPath

from wasnow.data.encodings import ENCODINGS
from wasnow.data.faults import Fault
from wasnow.data.layouts.layout import Layout, Listing, sorted_entries, split_of
from wasnow.data.samples import Entry

_IMAGES = {("pair", "img1"): "before", ("pair", "img2"): "after", ("cm", "cm"): "label"}


def find(listing: Listing) -> Layout | None:
    """Return the pairs of OSCD; None for a folder of another layout."""
    cities: dict[str, dict[str, PurePosixPath]] = defaultdict(dict)
    splits_of: dict[str, str] = {}
    for path in listing.rasters:
        if len(path.parts) >= 3 and (kind := _IMAGES.get((path.parts[-2], path.stem))) is not None:
            city = path.parts[-3]
            cities[city][kind] = path
            if kind == "label":
                splits_of[city] = next((s for part in path.parts[:-3] if (s := split_of(part))), "all")
    if not any({"before", "after"} <= set(files) for files in cities.values()):
        return None
    entries: dict[str, list[Entry]] = defaultdict(list)
    faults, unlabelled = [], []
    for city, files in cities.items():
        some = str(next(iter(files.values())))
        missing = [kind for kind in ("before", "after") if kind not in files]
        faults += [
            Fault(some, f"has no {kind} image: expected {city}/pair/img{1 + (kind == 'after')}.png") for kind in missing
        ]
        if missing:
            continue
        label = listing / files["label"] if "label" in files else None
        if label is None:
            unlabelled.append(city)
        entry = Entry(city, listing / files["before"], listing / files["after"], change_label=label)
        entries[splits_of.get(city, "unlabelled")].append(entry)
    notes = ["the RGB images in pair are used; the single bands are ignored"]
    if unlabelled:
        notes.append(f"{', '.join(sorted(unlabelled))}: no labels, usable for detection only")
    splits = {split: sorted_entries(found) for split, found in sorted(entries.items())}
    return Layout("OSCD", splits, tuple(faults), tuple(notes), change=ENCODINGS["binary"])
