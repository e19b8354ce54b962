"""WHU-CD as published (Ji et al. 2019): two large images of Christchurch with a change label, read in tiles.

    2012/whole_image/train/image/2012_train.tif      change_label/train/change_label.tif
    2016/whole_image/train/image/2016_train.tif      (and the same for test)

The crops in ``splited_images`` have building labels of one date but no change labels, and are ignored. The older
release (``before/before.tif``, ``after/after.tif``, ``change label/change_label.tif``) has folders named by role.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import PurePosixPath

from wasnow.data.faults import Fault
from wasnow.data.layouts.layout import Layout, Listing, split_of
from wasnow.data.samples import Entry

_YEAR = re.compile(r"(19|20)\d\d")
_LABEL = re.compile(r"change[_ ]label", re.IGNORECASE)


def find(listing: Listing) -> Layout | None:
    """Return the pairs of WHU-CD; None for a folder of another layout."""
    images: dict[str, dict[str, PurePosixPath]] = defaultdict(dict)
    labels: dict[str, PurePosixPath] = {}
    for path in listing.rasters:
        folders = path.parts[:-1]
        split = next((s for part in reversed(folders) if (s := split_of(part))), "all")
        if any(_LABEL.fullmatch(part) for part in folders):
            labels[split] = path
        elif "whole_image" in folders and folders[-1] == "image":
            year = next((part for part in folders if _YEAR.fullmatch(part)), None)
            if year is not None:
                images[split][year] = path
    if not labels or not any(len(years) == 2 for years in images.values()):
        return None
    splits: dict[str, tuple[Entry, ...]] = {}
    faults: list[Fault] = []
    for split, years in sorted(images.items()):
        some = str(next(iter(years.values())))
        if len(years) != 2:
            faults.append(Fault(some, f"has no image of the other year in {split}"))
        elif split not in labels:
            faults.append(Fault(some, f"has no change label: expected change_label/{split}/change_label.tif"))
        else:
            before, after = (listing / years[year] for year in sorted(years))
            splits[split] = (Entry(f"{split}/whu", before, after, change_label=listing / labels[split]),)
    return Layout("WHU-CD, whole images", splits, tuple(faults))
