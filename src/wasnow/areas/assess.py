"""Estimates of a labelled sample folder: transitions, and classes at each date."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wasnow.areas.design import ANY_CHANGE, ARROW, KEY, LABELS, UNCHANGED, Design, gain, loss
from wasnow.areas.estimate import AreaEstimates, ClassEstimate, estimate, net_change
from wasnow.areas.estimators import Estimate
from wasnow.areas.labels import Agreement, Label, agreement, latest, read_labels
from wasnow.areas.strata import Strata
from wasnow.errors import InputError
from wasnow.storage.hashing import file_sha256


@dataclass(frozen=True)
class Assessment:
    """Everything that a report of a labelled sample says.

    Attributes:
        design: of the sample.
        transitions: estimates of every transition and of no change.
        unions: estimates of any change, and of everything that changed to or from a class. Their standard errors are
            not sums of those of the transitions.
        net: net change of each class between the dates, as a share of the study area.
        agreement: of interpreters.
        interpreters: who labelled.
        skipped: number of points by the reason why they have no label.
        unlabelled: points without any line in labels.csv.
    """

    design: Design
    transitions: AreaEstimates
    unions: tuple[ClassEstimate, ...]
    net: dict[str, Estimate]
    agreement: Agreement
    interpreters: tuple[str, ...]
    skipped: dict[str, int]
    unlabelled: int


def assess(folder: Path, *, map_folder: Path | None = None) -> Assessment:
    """Estimate accuracies and areas from a labelled sample folder.

    Args:
        folder: the sample folder.
        map_folder: where the result folder is now; None skips the check that the map is still the sampled one.

    Raises:
        InputError: a file is missing or does not fit the design, the map has changed since the draw, or a stratum has
            fewer than two labelled points.
    """
    design = Design.read(folder)
    if map_folder is not None:
        _check_map(design, map_folder)
    points = _points(folder, design)
    labels = read_labels(folder / LABELS)
    unknown = sorted({label.id for label in labels} - set(points))
    if unknown:
        raise InputError(f"{folder / LABELS}: point {unknown[0]} is not part of this sample ({len(points)} points)")
    used = latest(labels)
    _check_classes(folder, design, used)
    ids = sorted(points)
    strata = [points[each][0] for each in ids]
    mapped = [_mapped(*points[each][1:]) for each in ids]
    reference = [_reference(used.get(each)) for each in ids]
    whole = design.as_strata()
    return Assessment(
        design=design,
        transitions=estimate(reference=reference, mapped=mapped, stratum=strata, strata=whole),
        unions=tuple(_union(name, reference, mapped, strata, whole) for name in _union_names(reference, mapped)),
        net=_net(ids, used, strata, design),
        agreement=agreement(labels),
        interpreters=tuple(dict.fromkeys(label.interpreter for label in labels if label.interpreter)),
        skipped=_skipped(used),
        unlabelled=len(ids) - len(used),
    )


def _union_names(reference: list[str], mapped: list[str]) -> list[str]:
    """Any change, then what every class gained and lost, where that is more than one transition."""
    changes = sorted({*reference, *mapped} - {"", UNCHANGED})
    pairs = [each.partition(ARROW)[::2] for each in changes]
    gained = [gain(word) for word in dict.fromkeys(after for _, after in pairs)]
    lost = [loss(word) for word in dict.fromkeys(before for before, _ in pairs)]
    return [ANY_CHANGE, *gained, *lost]


def _union(name: str, reference: list[str], mapped: list[str], strata: list[str], whole: Strata) -> ClassEstimate:
    """Estimate one union of transitions by its own indicator."""

    def member(label: str) -> str:
        if label in ("", UNCHANGED):
            return label
        before, _, after = label.partition(ARROW)
        return name if name in (ANY_CHANGE, gain(after), loss(before)) else UNCHANGED

    found = estimate(
        reference=[member(each) for each in reference],
        mapped=[member(each) for each in mapped],
        stratum=strata,
        strata=whole,
        labels=(name, UNCHANGED),
    )
    return found[name]


def _check_map(design: Design, map_folder: Path) -> None:
    from wasnow.output.layout import CHANGE

    path = map_folder / CHANGE
    if not path.is_file():
        raise InputError(f"{path}: no such file; name the result folder that the sample was drawn from")
    if file_sha256(path) != design.map_sha256:
        raise InputError(
            f"{path} is not the map that the sample was drawn from (its checksum differs): its strata are other ones; "
            "draw a new sample from it, or name the old map"
        )


def _points(folder: Path, design: Design) -> dict[int, tuple[str, str, str]]:
    """Stratum and map classes of every point."""
    path = folder / KEY
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        found = {int(row["id"]): (row["stratum"], row["map_before"], row["map_after"]) for row in rows}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; it belongs to the sample, restore it") from None
    except (KeyError, ValueError) as error:
        raise InputError(f"{path}: not the strata of a sample ({error})") from None
    if len(found) != len(rows):
        raise InputError(f"{path}: {len(rows) - len(found)} point ids occur twice; restore the file")
    expected = sum(row.points for row in design.strata)
    if len(found) != expected:
        raise InputError(f"{path}: {len(found)} points, the design has {expected}; restore the file")
    return found


def _check_classes(folder: Path, design: Design, labels: dict[int, Label]) -> None:
    known = {*design.classes, "other", UNCHANGED, "unknown", "changed"}
    for label in labels.values():
        for word in (label.before, label.after):
            if word and design.classes and word not in known:
                raise InputError(
                    f"{folder / LABELS}: point {label.id} has class {word!r}; the classes are "
                    f"{', '.join(design.classes)} and other"
                )


def _mapped(before: str, after: str) -> str:
    return UNCHANGED if before == UNCHANGED else f"{before}{ARROW}{after}"


def _reference(label: Label | None) -> str:
    """The transition of a label: no change where both dates have the same class; empty without a label."""
    if label is None or not label.usable:
        return ""
    return UNCHANGED if label.before == label.after else f"{label.before}{ARROW}{label.after}"


def _net(ids: list[int], used: dict[int, Label], strata: list[str], design: Design) -> dict[str, Estimate]:
    """Net change of every class that was labelled at one of the dates."""
    labelled = [(used[each], stratum) for each, stratum in zip(ids, strata, strict=True) if each in used]
    usable = [(label, stratum) for label, stratum in labelled if label.usable]
    words = sorted({word for label, _ in usable for word in (label.before, label.after)} - {UNCHANGED})
    whole = design.as_strata()
    counts = np.bincount(whole.indices([stratum for _, stratum in usable]), minlength=len(whole))
    if (counts < 2).any():
        return {}
    return {
        word: net_change(
            before=[label.before for label, _ in usable],
            after=[label.after for label, _ in usable],
            name=word,
            stratum=[stratum for _, stratum in usable],
            strata=whole,
        )
        for word in words
    }


def _skipped(used: dict[int, Label]) -> dict[str, int]:
    reasons: dict[str, int] = {}
    for label in used.values():
        if not label.usable:
            reasons[label.skip_reason or "no reason given"] = reasons.get(label.skip_reason or "no reason given", 0) + 1
    return reasons
