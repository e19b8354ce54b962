"""What share of each stratum is expected to be what, before any point is labelled.

The sizes of samples rest on these guesses; the estimates do not. Defaults: 80 % of a mapped transition is right; 4 %
of the buffer and 0.04 % of the rest is omitted change, divided among the transitions by mapped area.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wasnow.areas.allocation import Margin, expected_margins, size_for_area
from wasnow.areas.map_strata import BUFFER, NO_CHANGE
from wasnow.areas.strata import FloatArray, IntArray
from wasnow.errors import UsageError

USERS_ACCURACY = 0.8
OMITTED_IN_BUFFER = 0.04
OMITTED_IN_REST = 0.0004


@dataclass(frozen=True)
class Guess:
    """Expected shares of one class or transition in every stratum.

    Attributes:
        name: of the class or transition.
        shares: ``(H,)`` expected share of the stratum, q_h.
    """

    name: str
    shares: FloatArray


def guesses(
    names: Sequence[str],
    weights: FloatArray,
    *,
    users_accuracy: float = USERS_ACCURACY,
    in_buffer: float = OMITTED_IN_BUFFER,
    in_rest: float = OMITTED_IN_REST,
) -> list[Guess]:
    """One guess per mapped transition, and one for all change.

    Args:
        names: of the strata.
        weights: ``(H,)`` share of the study area, W_h.
        users_accuracy: expected share of a mapped transition that is right.
        in_buffer: expected share of the buffer that is omitted change.
        in_rest: expected share of the unchanged rest that is omitted change.
    """
    omitted = {BUFFER: in_buffer, NO_CHANGE: in_rest}
    mapped = np.array([name not in (BUFFER, NO_CHANGE) for name in names])
    total = float(weights[mapped].sum())
    found = []
    for place, name in enumerate(names):
        if not mapped[place]:
            continue
        part = float(weights[place]) / total
        shares = part * np.array([omitted.get(each, 0.0) for each in names])
        shares[place] = users_accuracy
        found.append(Guess(name, shares))
    whole = np.array(
        [in_buffer if each == BUFFER else in_rest if each == NO_CHANGE else users_accuracy for each in names]
    )
    found.append(Guess("any change", whole))
    return found


def targeted(names: Sequence[str], some: Sequence[Guess], target: str) -> Guess:
    """The guess that a target means: a transition, or a class word for all transitions to it.

    Args:
        names: of the strata.
        some: from `guesses`.
        target: ``"forest → building"``, ``"building"`` or ``"any change"``.

    Raises:
        UsageError: nothing of that name is mapped.
    """
    by_name = {guess.name: guess for guess in some}
    if target in by_name:
        return by_name[target]
    into = [guess for guess in some if guess.name.rpartition(" → ")[2] == target and guess.name != "any change"]
    if not into:
        raise UsageError(f"target {target!r} is not mapped; choose one of {', '.join(by_name)}")
    return Guess(target, np.clip(np.sum([guess.shares for guess in into], axis=0), 0, 1))


def sample_size(
    names: Sequence[str], weights: FloatArray, targets: Mapping[str, float], some: Sequence[Guess]
) -> tuple[int, Guess]:
    """Points that reach every target with Neyman allocation, and the target that needs most.

    Args:
        names: of the strata.
        weights: share of each stratum, W_h.
        targets: wanted relative margin by transition or class word, such as ``{"building": 0.2}``.
        some: from `guesses`.

    Raises:
        UsageError: a target is not mapped or its margin is not above 0.
    """
    needed = []
    for target, margin in targets.items():
        if not 0 < margin < 1:
            raise UsageError(f"target {target}: margin {margin:.0%}; it must be above 0 and below 100 %")
        guess = targeted(names, some, target)
        needed.append((size_for_area(weights.tolist(), guess.shares.tolist(), margin=margin), guess))
    return max(needed, key=lambda each: each[0])


def margins(counts: IntArray, weights: FloatArray, some: Sequence[Guess]) -> list[tuple[str, Margin]]:
    """The precision to expect of every class, largest first."""
    found = [(guess.name, expected_margins(counts, weights.tolist(), guess.shares.tolist())) for guess in some]
    return sorted(found, key=lambda each: -each[1].share)
