"""HRSCD (Daudt et al. 2019, "Multitask learning for large-scale semantic change detection"): 291 pairs of 10000 px.

    images_2006/2006/D14/14-2005-0415-6890-LA93.tif          labels_land_cover_2006/2006/D14/14-2005-...tif
    images_2012/2012/D14/14-2012-0415-6890-LA93.tif          labels_land_cover_2012/2012/D14/14-2012-...tif
                                                             labels_change/D14/14-2012-...tif

Land cover is given at every pixel of both dates. Change has its own map, which is used where the two disagree. The year
in a file name is the year of the flight, so pairs share all of the name except the year.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import PurePosixPath

from wasnow.data.encodings import ENCODINGS
from wasnow.data.faults import Fault
from wasnow.data.layouts.layout import Layout, Listing, sorted_entries
from wasnow.data.samples import Entry

TILE = 1000
"""Images of 10000 px do not fit a network: each pair is cut into 100 tiles of this side."""

_IMAGES = re.compile(r"images_(\d{4})")
_COVERS = re.compile(r"labels_land_?cover_(\d{4})")
_CHANGES = re.compile(r"labels_change")
_YEAR = re.compile(r"(?<=-)(19|20)\d\d-")


def find(listing: Listing) -> Layout | None:
    """Return the pairs of HRSCD; None for a folder of another layout."""
    years: set[str] = set()
    placed: dict[str, dict[str, PurePosixPath]] = defaultdict(dict)
    for path in listing.rasters:
        key = _YEAR.sub("", path.stem)
        for part in map(str.casefold, path.parts[:-1]):
            if match := _IMAGES.fullmatch(part):
                years.add(match[1])
                placed[key][f"image {match[1]}"] = path
            elif match := _COVERS.fullmatch(part):
                placed[key][f"land cover {match[1]}"] = path
            elif _CHANGES.fullmatch(part):
                placed[key]["change"] = path
    if len(years) != 2:
        return None
    first, second = sorted(years)
    wanted = [f"image {first}", f"image {second}"]
    wanted += sorted({kind for files in placed.values() for kind in files} - set(wanted))
    entries, faults = [], []
    for key, files in placed.items():
        missing = [kind for kind in wanted if kind not in files]
        some = next(iter(files.values()))
        faults += [Fault(str(some), f"has no {kind}: expected {key} with any year") for kind in missing]
        if missing:
            continue
        paths = {kind: listing / path for kind, path in files.items()}
        entries.append(
            Entry(
                key,
                paths[wanted[0]],
                paths[wanted[1]],
                paths.get(f"land cover {first}"),
                paths.get(f"land cover {second}"),
                None,
                paths.get("change"),
            )
        )
    return Layout(
        "HRSCD",
        {"all": sorted_entries(entries)} if entries else {},
        tuple(faults),
        ("HRSCD has no published split: define one with list files (splits: in a dataset.yaml)",),
        classes=ENCODINGS["hrscd"],
        tile=TILE,
    )
