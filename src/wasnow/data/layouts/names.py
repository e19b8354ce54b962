"""Names of folders and files that say which role a file has: image of a date, label of a date, change label."""

from __future__ import annotations

import re

BEFORE, AFTER, CHANGE = "before", "after", "change_label"
FIRST, SECOND = "before_label", "after_label"
PICTURES = (BEFORE, AFTER)

ROLE_NAMES: dict[str, tuple[str, ...]] = {
    BEFORE: ("a", "im1", "img1", "image1", "images1", "t1", "time1", "before", "pre", "date1", "imagea", "imga", "ima"),
    AFTER: ("b", "im2", "img2", "image2", "images2", "t2", "time2", "after", "post", "date2", "imageb", "imgb", "imb"),
    FIRST: (
        "label1",
        "labels1",
        "labela",
        "labelsa",
        "gtt1",
        "gt1",
        "mask1",
        "masks1",
        "lc1",
        "t1label",
        "labelbefore",
        "beforelabel",
    ),
    SECOND: (
        "label2",
        "labels2",
        "labelb",
        "labelsb",
        "gtt2",
        "gt2",
        "mask2",
        "masks2",
        "lc2",
        "t2label",
        "labelafter",
        "afterlabel",
    ),
    CHANGE: (
        *("label", "labels", "gt", "gtcd", "mask", "masks", "out", "cd", "change", "changes", "changelabel"),
        *("changelabels", "changemask", "labelcd", "labelbcd", "labelchange", "groundtruth", "target", "targets"),
    ),
}
_ROLE = {name: role for role, names in ROLE_NAMES.items() for name in names}


def date_of(folder: str) -> int | None:
    """Return the date that a folder is named by: 0 for ``A``, ``im1``, ``before``, 1 for ``B``, ``im2``; else None."""
    role = role_of(folder)
    return PICTURES.index(role) if role in PICTURES else None


def role_of(name: str) -> str | None:
    """Return the role that a folder or a word of a file name stands for; None for other names."""
    return _ROLE.get(normalized(name))


def normalized(name: str) -> str:
    """Return a name without separators and case."""
    return re.sub(r"[_\-. ]", "", name).casefold()


def role_name(role: str) -> str:
    """Return a role in words."""
    return {
        BEFORE: "before image",
        AFTER: "after image",
        FIRST: "label of the first date",
        SECOND: "label of the second date",
        CHANGE: "change label",
    }[role]
