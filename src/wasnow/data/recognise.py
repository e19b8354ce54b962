"""Recognise the label encoding of a dataset from its label values.

    colours      the published palettes, if at least three of their classes occur
    numbers      by the value that both dates share at unchanged pixels:

                     0    second-e1 or second-e2 (the values do not distinguish them), landsat-scd
                     255  second-e3
                     6    second-e4

    one map      0/1, 0/255, or compressed as JPEG: binary change; 0 to 9 on 416 px: Landsat-SCD's transitions

A few label files are sampled over the dataset, and more if those hold background only. Assumptions are reported. Rare
unexpected values do not influence the decision; they become faults of their files.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wasnow.data.encodings import ENCODINGS, MINUS_ONE, NOT_GREY, LabelEncoding, Raw, pack_colors
from wasnow.data.images import RawLabel, read_label, reading
from wasnow.data.layouts.layout import Layout
from wasnow.data.samples import Coding, Entry
from wasnow.data.vectors import Columns, is_vector, words_in
from wasnow.errors import DatasetError, InputError
from wasnow.vocabulary import NO_LABEL, Vocabulary

SAMPLED = 24
"""Label files that are sampled if their values are conclusive."""

SAMPLED_MOST = 500
"""Label files that are sampled at most."""

_LANDSAT_SIDE = 416
_CANDIDATES = (0, 255, 6)
_SHARED_MISS = 0.02
_AGREEING = 0.6
_HELD_ENOUGH = 0.9
_PALETTE_COLOURS = 3
"""Colours of a palette that must occur: two, such as red and blue, occur in labels of many other datasets."""
_WHITE_BLACK = frozenset({(255, 255, 255), (0, 0, 0)})
_DESCRIBE = "Describe the values in a dataset.yaml (see docs/datasets.md)"


@dataclass(frozen=True)
class Recognised:
    """How to read a dataset, and the assumptions that were made."""

    splits: Mapping[str, tuple[Entry, ...]]
    coding: Coding
    notes: tuple[str, ...]


@dataclass
class _Evidence:
    """Pixel counts of the values of the sampled label files."""

    numbers: Counter[int] = field(default_factory=Counter)
    colors: Counter[tuple[int, int, int]] = field(default_factory=Counter)
    shared: Counter[int] = field(default_factory=Counter)
    agreeing: Counter[int] = field(default_factory=Counter)
    pairs: int = 0
    sides: set[tuple[int, int]] = field(default_factory=set)
    files: int = 0
    lossy: int = 0
    colored: int = 0


def recognise(found: Layout, root: Path, encoding: LabelEncoding | None = None) -> Recognised:
    """Determine the encodings of class and change labels.

    Args:
        found: the files of the dataset.
        root: the dataset, for messages.
        encoding: given by the user; None takes the encoding of the layout, else recognises it from the values.

    Raises:
        DatasetError: the values fit no known encoding, or the given one does not fit the files.
    """
    coding = Coding(columns=found.columns, rendering=found.rendering)
    splits, notes = dict(found.splits), list(found.notes)
    kinds = _kinds(found.entries)
    if encoding is not None and encoding.after is not None and kinds == {"change_label"}:
        splits, kinds = _as_joint(splits), {"joint_label"}
    given = encoding or found.classes
    if "joint_label" in kinds:
        labels = [e.joint_label for e in found.entries if e.joint_label is not None]
        if labels and all(map(is_vector, labels)):
            words = found.words or words_in(tuple(dict.fromkeys(labels)), found.columns)
            coding = replace(coding, vocabulary=Vocabulary(words))
        elif given is None or given.after is None:
            raise DatasetError(f"{root}: the encoding of its joint labels of both dates is unknown. {_DESCRIBE}")
        else:
            coding = replace(coding, classes=given, vocabulary=Vocabulary(given.words))
    elif {"before_label", "after_label"} <= kinds:
        if given is None and found.words is not None:
            given = _numbered(found.words)
        if given is None:
            given, assumptions = _class_encoding(found.entries, root, "change_label" in kinds)
            notes += assumptions
        if given is None:
            splits = _without_class_labels(splits)
        elif given.after is not None:
            raise DatasetError(
                f"{root}: {given.name} is for one label file of both dates, but each date has its own. Omit --encoding"
            )
        else:
            coding = replace(coding, classes=given, vocabulary=Vocabulary(given.words))
    change_labels = [e.change_label for entries in splits.values() for e in entries if e.change_label is not None]
    if change_labels and not all(map(is_vector, change_labels)):
        binary = encoding if encoding is not None and not encoding.words and encoding.after is None else found.change
        if binary is None and encoding is not None and encoding.words and not coding.vocabulary.words:
            raise DatasetError(
                f"{root}: {encoding.name} names classes of each date, but the only labels are binary change. "
                "Use --encoding binary, binary-255-no-label, binary-smeared or nonzero"
            )
        if binary is None:
            binary, assumptions = _change_encoding(change_labels, root)
            notes += assumptions
        if binary.after is not None:
            splits = _as_joint(splits)
            coding = replace(coding, classes=binary, vocabulary=Vocabulary(binary.words))
        else:
            coding = replace(coding, change=binary)
    elif change_labels and coding.columns is None:
        coding = replace(coding, columns=Columns())
    return Recognised(splits, coding, tuple(dict.fromkeys(notes)))


def _kinds(entries: Iterable[Entry]) -> set[str]:
    kinds = ("before_label", "after_label", "joint_label", "change_label")
    return {kind for entry in entries for kind in kinds if getattr(entry, kind) is not None}


def _as_joint(splits: Mapping[str, Sequence[Entry]]) -> dict[str, tuple[Entry, ...]]:
    return {
        split: tuple(replace(e, joint_label=e.change_label, change_label=None) for e in entries)
        for split, entries in splits.items()
    }


def _without_class_labels(splits: Mapping[str, Sequence[Entry]]) -> dict[str, tuple[Entry, ...]]:
    return {
        split: tuple(replace(e, before_label=None, after_label=None) for e in entries)
        for split, entries in splits.items()
    }


def _numbered(words: Sequence[str]) -> LabelEncoding:
    """Return the encoding of a description with classes but no values: 0 unchanged, 1..K in order, 255 no label."""
    codes: dict[Raw, int] = {**{code: code for code in range(len(words) + 1)}, 255: NO_LABEL}
    return LabelEncoding("classes in order", "0 unchanged, 1..K, 255 no label", tuple(words), codes)


def _spread(count: int) -> Iterator[int]:
    """Yield all of ``range(count)`` so that early values are spread evenly: halves, quarters, eighths, ..."""
    yielded: set[int] = set()
    step = 1
    while len(yielded) < count:
        for i in range(step):
            index = min(count - 1, (2 * i + 1) * count // (2 * step))
            if index not in yielded:
                yielded.add(index)
                yield index
        step *= 2


def _sample(groups: Sequence[tuple[Path, ...]], conclusive: Callable[[_Evidence], bool]) -> _Evidence:
    """Count the values of `SAMPLED` groups of label files, and of more until they are conclusive."""
    evidence = _Evidence()
    for turn, index in enumerate(_spread(len(groups))):
        if turn >= SAMPLED_MOST or (turn >= SAMPLED and conclusive(evidence)):
            break
        try:
            with reading():
                _count(evidence, [read_label(path) for path in groups[index]])
        except InputError:
            continue  # a damaged file: the check reports it
    return evidence


def _count(evidence: _Evidence, labels: Sequence[RawLabel]) -> None:
    for label in labels:
        evidence.files += 1
        evidence.lossy += label.lossy
        evidence.sides.add(label.shape)
        if label.colors is not None:
            _count_colors(evidence.colors, label.colors)
        grey = label.grey
        if grey.dtype.kind == "f":
            grey = np.where(grey == np.floor(grey), grey, NOT_GREY)
        values, counts = np.unique(grey, return_counts=True)
        if label.numbers is None and NOT_GREY in values:
            evidence.colored += 1
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            evidence.numbers[int(value)] += count
    if len(labels) == 2 and labels[0].shape == labels[1].shape:
        first, second = labels[0].grey, labels[1].grey
        evidence.pairs += 1
        for value in _CANDIDATES:
            both, one = (first == value) & (second == value), (first == value) ^ (second == value)
            evidence.shared[value] += int(both.sum())
            evidence.agreeing[value] += bool(both.any() and one.sum() <= _SHARED_MISS * both.sum())


def _count_colors(counter: Counter[tuple[int, int, int]], colors: NDArray[np.uint8]) -> None:
    values, counts = np.unique(pack_colors(colors), return_counts=True)
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        counter[value >> 16, value >> 8 & 255, value & 255] += count


def _class_encoding(entries: Sequence[Entry], root: Path, has_change: bool) -> tuple[LabelEncoding | None, list[str]]:
    """Return the encoding of class labels; None where they are to be ignored because only their change is known."""
    groups = [
        (e.before_label, e.after_label) for e in entries if e.before_label is not None and e.after_label is not None
    ]
    evidence = _sample(
        groups,
        lambda e: len(set(e.numbers) - {0, 255}) > 1 or len(set(e.colors) - _WHITE_BLACK) >= _PALETTE_COLOURS,
    )
    if not evidence.files:
        raise DatasetError(f"{root}: none of its label files can be read. Run wasnow data check {root}")
    coloured = {color for color, n in evidence.colors.items() if n} - _WHITE_BLACK
    if evidence.colored and len(coloured) < _PALETTE_COLOURS:
        shown = " and ".join(",".join(map(str, color)) for color in sorted(coloured))
        if has_change:
            return None, [
                f"labels of each date ignored: their only colours are {shown}, too few for a palette (S2Looking "
                "marks new and demolished buildings so); the change labels are used. Pass --encoding to read them as "
                "classes"
            ]
        raise DatasetError(
            f"{root}: the only colours of its class labels are {shown}, too few to identify a palette. Pass "
            f"--encoding second-rgb if this is SECOND, or {_DESCRIBE[0].lower() + _DESCRIBE[1:]}"
        )
    by_color = _by_palette(evidence)
    if by_color is not None:
        return by_color
    encoding, notes = _by_numbers(evidence, root)
    return encoding, [*notes, *_minus_one_notes(evidence)]


def _by_palette(evidence: _Evidence) -> tuple[LabelEncoding, list[str]] | None:
    """Return the palette that covers most of the colours; None for label files of numbers."""
    coloured = {color: n for color, n in evidence.colors.items() if color not in _WHITE_BLACK}
    total = sum(coloured.values())
    palettes = [each for each in ENCODINGS.values() if each.of_colors and 0 in each.codes.values()]
    shares = {p.name: sum(n for c, n in coloured.items() if c in p.codes) / max(total, 1) for p in palettes}
    best = max(shares, key=lambda name: shares[name])
    if total and shares[best] >= _HELD_ENOUGH:
        notes = []
        if best == "second-rgb" and set(evidence.colors) >= _WHITE_BLACK:
            notes.append("second-rgb: both white and black occur, and both count as unchanged")
        return ENCODINGS[best], notes
    if not evidence.colored:
        return None  # numbers, perhaps with a palette of their own
    shown = ", ".join(",".join(map(str, color)) for color, _ in evidence.colors.most_common(8))
    raise DatasetError(
        f"the class labels hold colours of no known encoding: {shown}. {_DESCRIBE}, or pass --encoding to list "
        "the files that hold them"
    )


def _by_numbers(evidence: _Evidence, root: Path) -> tuple[LabelEncoding, list[str]]:
    values = {value for value, n in evidence.numbers.items() if n} - {MINUS_ONE}
    if not values - {0, 1} or not values - {0, 255}:
        note = "the labels of each date hold two values: read as binary change, disappeared and appeared"
        return ENCODINGS["binary"], [note] if values != {0} else ["none of the sampled labels holds any change"]
    shared = [u for u in _CANDIDATES if evidence.agreeing[u] >= _AGREEING * max(evidence.pairs, 1)]
    unchanged = max(shared, key=lambda u: evidence.shared[u], default=None)
    names = {0: "second-e1", 255: "second-e3", 6: "second-e4"}
    chosen = None if unchanged is None else ENCODINGS[names[unchanged]]
    marker = "no value" if unchanged is None else str(unchanged)
    marked = {value: n for value, n in evidence.numbers.items() if value not in (unchanged, 255, MINUS_ONE)}
    held = (
        0.0 if chosen is None else sum(n for v, n in marked.items() if v in chosen.codes) / max(sum(marked.values()), 1)
    )
    if chosen is None or held < _HELD_ENOUGH:
        shown = ", ".join(map(str, sorted(values)[:12]))
        raise DatasetError(
            f"{root}: class labels hold the values {shown}, and {marker} marks unchanged pixels at both dates: not a "
            f"known encoding. {_DESCRIBE}, or pass --encoding"
        )
    if chosen.name != "second-e1":
        return chosen, [f"{chosen.name} recognised: {unchanged} is at the same pixels at both dates"]
    if max(marked, default=0) <= 4:
        if evidence.sides == {(_LANDSAT_SIDE, _LANDSAT_SIDE)} or "landsat" in str(root).casefold():
            return ENCODINGS["landsat-scd"], ["landsat-scd recognised: values 0 to 4 and its size or name"]
        return chosen, [
            "second-e1 assumed: values 0 to 4 fit second-e2 and landsat-scd as well and do not distinguish them; "
            "if the classes look wrong in the preview, pass --encoding second-e2 or --encoding landsat-scd"
        ]
    return chosen, [
        "second-e1 assumed (1 water, 2 ground, 3 low vegetation, 4 tree, 5 building, 6 playground): second-e2 has the "
        "same values in another order, and the values do not distinguish them; if the classes look wrong in the "
        "preview, pass --encoding second-e2"
    ]


def _change_encoding(labels: Sequence[Path], root: Path) -> tuple[LabelEncoding, list[str]]:
    rasters = [(path,) for path in labels if not is_vector(path)]
    evidence = _sample(rasters, lambda e: len(e.numbers) > 1)
    if not evidence.files:
        raise DatasetError(f"{root}: none of its label files can be read. Run wasnow data check {root}")
    encoding, notes = _change_encoding_of(evidence, root)
    return encoding, [*notes, *_minus_one_notes(evidence)]


def _minus_one_notes(evidence: _Evidence) -> list[str]:
    if not evidence.numbers[MINUS_ONE]:
        return []
    return ["-1 counts as no label; describe the values in a dataset.yaml if it means something else"]


def _change_encoding_of(evidence: _Evidence, root: Path) -> tuple[LabelEncoding, list[str]]:
    values = {value for value, n in evidence.numbers.items() if n} - {MINUS_ONE}
    total = sum(n for value, n in evidence.numbers.items() if value != MINUS_ONE)
    ends = sum(n for value, n in evidence.numbers.items() if 0 <= value <= 32 or 223 <= value <= 255)
    if evidence.lossy or (len(values) > 8 and max(values) >= 223 and ends >= 0.95 * total):
        if ends < 0.8 * total:
            raise DatasetError(
                f"{root}: its change labels look like photographs. Check that the folder named label holds the labels"
            )
        return ENCODINGS["binary-smeared"], ["change labels were compressed as JPEG: values above 127 count as changed"]
    if values <= {0, 1, 255}:
        if {1, 255} <= values:
            return ENCODINGS["binary-255-no-label"], [
                "0, 1 and 255 all occur: 255 counts as no label; pass --encoding nonzero or binary otherwise"
            ]
        return ENCODINGS["binary"], [] if values != {0} else ["none of the sampled labels holds any change"]
    if values <= {*range(10), 255} and evidence.sides == {(_LANDSAT_SIDE, _LANDSAT_SIDE)}:
        return ENCODINGS["landsat-scd-from-to"], ["landsat-scd-from-to recognised: values 0 to 9 on 416 x 416 px"]
    nonzero = total - evidence.numbers[0]
    if nonzero and (evidence.numbers[1] + evidence.numbers[255]) / nonzero >= _HELD_ENOUGH:
        return ENCODINGS["binary"], []
    shown = ", ".join(f"{value:g}" for value in sorted(values)[:12]) + (" ..." if len(values) > 12 else "")
    colors = ", ".join(",".join(map(str, c)) for c, _ in evidence.colors.most_common(4)) if evidence.colored else ""
    held = f"colours {colors}" if colors else f"values {shown}"
    if math.isclose(ends, 0) or len(values) > 40:
        held += " (like a photograph)"
    raise DatasetError(
        f"{root}: change labels hold the {held}, expected 0 and 1, or 0 and 255. Pass --encoding nonzero if all values "
        f"but 0 are change, or {_DESCRIBE.lower().replace('the values', 'them as change_values')}"
    )
