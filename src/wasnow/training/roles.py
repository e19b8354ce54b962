"""Roles of the pairs of a dataset: which are trained on, and which select the best weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wasnow.errors import UsageError
from wasnow.training.loader import HOLDBACK, draw

if TYPE_CHECKING:
    from wasnow.data.samples import Sample, Samples
    from wasnow.vocabulary import Vocabulary


@dataclass(frozen=True)
class Subset:
    """A selection of samples, itself `Samples`."""

    whole: Samples
    chosen: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, i: int) -> Sample:
        return self.whole[self.chosen[i]]

    @property
    def vocabulary(self) -> Vocabulary:
        """Vocabulary of all samples."""
        return self.whole.vocabulary

    @property
    def names(self) -> Sequence[str]:
        """Names of the selected samples."""
        return [self.whole.names[i] for i in self.chosen]

    @property
    def fingerprint(self) -> str:
        """Fingerprint of all samples; the selection is recorded elsewhere."""
        return self.whole.fingerprint


def hold_back(samples: Samples, share: float, seed: int) -> tuple[Subset, Subset]:
    """Split samples without a validation split into a training and a validation part, by seed.

    Args:
        samples: all pairs.
        share: of the validation part, 0..1; at least one pair.
        seed: random seed.

    Returns:
        Training part and validation part.

    Raises:
        UsageError: there are fewer than two samples.
    """
    size = len(samples)
    if size < 2:
        raise UsageError(f"{size} pair(s) cannot be split into training and validation; add pairs or --set holdback=0")
    held = min(size - 1, max(1, round(share * size)))
    shuffled = draw(seed, HOLDBACK).permutation(size).tolist()
    return Subset(samples, tuple(sorted(shuffled[held:]))), Subset(samples, tuple(sorted(shuffled[:held])))


@dataclass(frozen=True)
class DataRoles:
    """Training and selection pairs, with their descriptions for the report.

    Attributes:
        train: training pairs.
        select: pairs whose score selects the best weights; None without selection.
        trained_on: description, such as ``train (2375 pairs)``.
        selected_on: description of ``select``.
        untouched: splits that the run does not use.
        train_split: split of the dataset that contains ``train``.
        select_split: split of the dataset that contains ``select``.
    """

    train: Samples
    select: Samples | None
    trained_on: str
    selected_on: str
    untouched: tuple[str, ...]
    train_split: str = "train"
    select_split: str = "val"


def assign_roles(splits: Mapping[str, Samples], *, holdback: float, seed: int) -> DataRoles:
    """Assign roles: ``train`` and ``val`` if present, otherwise hold back a part of the training pairs.

    The test split is never used.

    Args:
        splits: by name.
        holdback: share of the training pairs to hold back without ``val``; 0: no selection.
        seed: random seed.

    Raises:
        UsageError: there is no training split.
    """
    name = next((one for one in ("train", "all") if one in splits), None)
    if name is None or len(splits[name]) == 0:
        raise UsageError(
            f"no training pairs: the data has {', '.join(splits) or 'no splits'}; train or all is required"
        )
    train = splits[name]
    rest = tuple(one for one in splits if one not in (name, "val"))
    if "val" in splits and len(splits["val"]):
        val = splits["val"]
        return DataRoles(train, val, f"{name} ({_pairs(len(train))})", f"val ({_pairs(len(val))})", rest, name, "val")
    if holdback == 0:
        description = "nothing: the last weights are kept"
        return DataRoles(train, None, f"{name} ({_pairs(len(train))})", description, rest, name, name)
    kept, held = hold_back(train, holdback, seed)
    return DataRoles(
        kept,
        held,
        f"{name} without the pairs held back ({len(kept)} of {_pairs(len(train))})",
        f"held back from {name} ({len(held)} of {_pairs(len(train))}, seed {seed})",
        rest,
        name,
        name,
    )


def _pairs(count: int) -> str:
    return f"{count} pair{'' if count == 1 else 's'}"
