"""All estimates of one labelled sample: accuracies, areas of classes and transitions, error matrix.

Labels may be classes at one date, or transitions written as one label (``"forest → building"``): the estimators only
compare them. The map label of a point may differ from its stratum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wasnow.areas.estimators import Estimate, hits, stratified_mean, stratified_ratio
from wasnow.areas.intervals import Interval, jeffreys, unseen_warnings, wald
from wasnow.areas.strata import FloatArray, IntArray, Strata
from wasnow.errors import InputError

Labels = Sequence[str] | NDArray[np.str_] | NDArray[np.object_]
FEW = 5
"""Points in the denominator of a ratio below which counts are reported instead of a percentage."""


@dataclass(frozen=True)
class ClassEstimate:
    """What the sample says about one class or transition.

    Attributes:
        name: the label.
        share: share of the study area in the reference labels.
        interval: 95 % interval of the share, +- 1.96 standard errors.
        jeffreys: 95 % interval of the share by Jeffreys posteriors per stratum; the one to quote for rare classes.
        mapped_share: share of the class in the map, estimated from the same points.
        users_accuracy: share of the mapped class that is right.
        producers_accuracy: share of the class that the map found.
        bias: mapped share minus reference share.
        mapped_points: points that the map gives this label.
        reference_points: points with this reference label.
        right_points: points where both agree.
        area_m2: ground area with its standard error; None where the strata have no areas.
    """

    name: str
    share: Estimate
    interval: Interval
    jeffreys: Interval
    mapped_share: Estimate
    users_accuracy: Estimate
    producers_accuracy: Estimate
    bias: Estimate
    mapped_points: int
    reference_points: int
    right_points: int
    area_m2: Estimate | None

    @property
    def reliable_users_accuracy(self) -> bool:
        """Whether enough points are mapped as this class for a percentage."""
        return self.mapped_points >= FEW

    @property
    def reliable_producers_accuracy(self) -> bool:
        """Whether enough points have this reference label for a percentage."""
        return self.reference_points >= FEW


@dataclass(frozen=True)
class AreaEstimates:
    """All estimates of a sample.

    Attributes:
        classes: one row per label, in the order of ``labels``.
        labels: all labels, sorted unless an order was given.
        overall_accuracy: share of the study area that the map labels right.
        overall_interval: its 95 % interval.
        counts: ``(K, K)`` points, map labels in rows, reference labels in columns.
        matrix: ``(K, K)`` estimated shares of the study area; they sum to 1.
        strata: the design.
        sampled: labelled points per stratum.
        unlabelled: points without a usable reference label.
        warnings: what a reader must know about these figures.
        bounds: share of each label if every unlabelled point were wrong, and if every one were as mapped; None where no
            point is unlabelled.
    """

    classes: tuple[ClassEstimate, ...]
    labels: tuple[str, ...]
    overall_accuracy: Estimate
    overall_interval: Interval
    counts: IntArray
    matrix: FloatArray
    strata: Strata
    sampled: tuple[int, ...]
    unlabelled: int
    warnings: tuple[str, ...]
    bounds: tuple[Interval, ...] | None = None

    def __getitem__(self, name: str) -> ClassEstimate:
        for each in self.classes:
            if each.name == name:
                return each
        raise KeyError(name)


def estimate(
    *,
    reference: Labels,
    mapped: Labels,
    stratum: Sequence[str] | Sequence[int] | NDArray[np.generic],
    strata: Strata,
    labels: Sequence[str] | None = None,
    seed: int = 0,
) -> AreaEstimates:
    """Estimate accuracies and areas from labelled points.

    Args:
        reference: per point its reference label; an empty string where it could not be labelled.
        mapped: per point the label of the map.
        stratum: per point the name or position of its stratum.
        strata: the design that the points were drawn from.
        labels: order of the labels in tables; None sorts them.
        seed: of the draws behind the Jeffreys intervals.

    Raises:
        InputError: lengths differ, a label or stratum is unknown, or a stratum has fewer than two labelled points.
    """
    truth, guess = np.asarray(reference, dtype=str), np.asarray(mapped, dtype=str)
    indices = strata.indices(stratum)
    if not len(truth) == len(guess) == len(indices):
        raise InputError(
            f"{len(truth)} reference labels, {len(guess)} map labels and {len(indices)} strata; "
            "give one of each per point"
        )
    names = _ordered(truth, guess, labels)
    known = truth != ""
    used_truth, used_guess, used = truth[known], guess[known], indices[known]
    counts = strata.sampled(used)
    rows = [_of_class(name, used_truth, used_guess, used, counts, strata, seed) for name in names]
    # Only of labels that some point has: every other one is unseen everywhere.
    seen = {name: hits(used_truth == name, used, strata) for name in names if (used_truth == name).any()}
    warnings = list(unseen_warnings(seen, counts, strata))
    overall = stratified_mean(used_truth == used_guess, used, strata)
    missing = int(np.count_nonzero(~known))
    if missing:
        warnings.append(
            f"{missing} of {len(truth)} points have no reference label; the estimates assume that they are missing at "
            "random within their stratum"
        )
    return AreaEstimates(
        classes=tuple(rows),
        labels=names,
        overall_accuracy=overall,
        overall_interval=wald(overall),
        counts=_confusion(names, used_guess, used_truth),
        matrix=_shares(names, used_guess, used_truth, used, strata),
        strata=strata,
        sampled=tuple(int(count) for count in counts),
        unlabelled=missing,
        warnings=tuple(warnings),
        bounds=_bounds(names, truth, guess, indices, strata) if missing else None,
    )


def net_change(
    *, before: Labels, after: Labels, name: str, stratum: Sequence[str] | NDArray[np.generic], strata: Strata
) -> Estimate:
    """Net change of the share of a class between two dates, from reference labels of both.

    Args:
        before: per point its reference class at the first date.
        after: per point its reference class at the second date.
        name: the class.
        stratum: per point its stratum.
        strata: the design.

    Raises:
        InputError: a stratum is unknown or has fewer than two points.
    """
    gained = (np.asarray(after, dtype=str) == name).astype(np.float64)
    lost = (np.asarray(before, dtype=str) == name).astype(np.float64)
    return stratified_mean(gained - lost, strata.indices(stratum), strata)


def _ordered(truth: NDArray[np.str_], guess: NDArray[np.str_], labels: Sequence[str] | None) -> tuple[str, ...]:
    found = sorted({*truth.tolist(), *guess.tolist()} - {""})
    if labels is None:
        return tuple(found)
    unknown = [name for name in found if name not in labels]
    if unknown:
        raise InputError(f"points have the label {unknown[0]!r}, which is not among {', '.join(labels)}")
    return tuple(labels)


def _of_class(
    name: str,
    truth: NDArray[np.str_],
    guess: NDArray[np.str_],
    indices: IntArray,
    counts: IntArray,
    strata: Strata,
    seed: int,
) -> ClassEstimate:
    real, said = truth == name, guess == name
    both = real & said
    share = stratified_mean(real, indices, strata)
    total = strata.total_area_m2
    area = None if total is None else Estimate(share.value * total, share.standard_error * total, share.points)
    return ClassEstimate(
        name=name,
        share=share,
        interval=wald(share),
        jeffreys=jeffreys(hits(real, indices, strata), counts, strata, seed=seed),
        mapped_share=stratified_mean(said, indices, strata),
        users_accuracy=stratified_ratio(both, said, indices, strata),
        producers_accuracy=stratified_ratio(both, real, indices, strata),
        bias=stratified_mean(said.astype(np.float64) - real, indices, strata),
        mapped_points=int(said.sum()),
        reference_points=int(real.sum()),
        right_points=int(both.sum()),
        area_m2=area,
    )


def _confusion(names: tuple[str, ...], guess: NDArray[np.str_], truth: NDArray[np.str_]) -> IntArray:
    counts = np.zeros((len(names), len(names)), np.int64)
    position = {name: index for index, name in enumerate(names)}
    for said, real in zip(guess.tolist(), truth.tolist(), strict=True):
        counts[position[said], position[real]] += 1
    return counts


def _shares(
    names: tuple[str, ...], guess: NDArray[np.str_], truth: NDArray[np.str_], indices: IntArray, strata: Strata
) -> FloatArray:
    """Estimated share of the study area of each pair of map and reference label."""
    position = {name: index for index, name in enumerate(names)}
    matrix = np.zeros((len(names), len(names)))
    worth = (strata.weights / np.bincount(indices, minlength=len(strata)))[indices]
    for said, real, share in zip(guess.tolist(), truth.tolist(), worth.tolist(), strict=True):
        matrix[position[said], position[real]] += share
    return matrix


def _bounds(
    names: tuple[str, ...], truth: NDArray[np.str_], guess: NDArray[np.str_], indices: IntArray, strata: Strata
) -> tuple[Interval, ...]:
    """Per label its share with all unlabelled points counted as another label, and as the label of the map."""
    missing = truth == ""
    found = []
    for name in names:
        without = stratified_mean((truth == name) & ~missing, indices, strata).value
        with_map = stratified_mean((truth == name) | (missing & (guess == name)), indices, strata).value
        found.append(Interval(without, with_map))
    return tuple(found)
