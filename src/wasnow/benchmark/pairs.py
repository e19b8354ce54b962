"""The pairs of a benchmark: training pairs, and test pairs that no training or selection uses.

the data has     scored on            trained on           best weights selected on
test             test                 train                val, or pairs held back from train
val, no test     val                  train                pairs held back from train
neither          a fifth of train     the rest             pairs held back from the rest

If images are cut into tiles, the fifth is a fifth of the images, because neighbouring tiles are too similar.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from wasnow.data.dataset import open_dataset
from wasnow.data.land_cover import is_dense, with_land_cover
from wasnow.errors import UsageError
from wasnow.priors.samples import NoMasks, pair_masks
from wasnow.training.loader import draw
from wasnow.training.roles import Subset, hold_back

if TYPE_CHECKING:
    from wasnow.data.samples import Samples
    from wasnow.priors.store import PairMasks

TEST_SHARE = 0.2
"""Share of test pairs if the data has no test split; the choice is fixed."""

_TILE = re.compile(r"@\d+,\d+$")
"""Suffix of the name of a tile, see `wasnow.data.dataset.open_dataset`."""


@dataclass(frozen=True)
class Pairs:
    """A dataset split for a benchmark.

    Attributes:
        name: of the data.
        training: splits for `wasnow.training.trainer.train`, without the test pairs.
        test: test pairs.
        test_split: split of the dataset that contains the test pairs.
        scored_on: description of the test pairs.
        dense: ``training`` with classes of unchanged pixels, if the labels have them.
        masks: for models with prior masks.
        notes: assumptions made.
    """

    name: str
    training: Mapping[str, Samples]
    test: Samples
    test_split: str
    scored_on: str
    dense: Mapping[str, Samples] | None = None
    masks: PairMasks = field(default_factory=NoMasks)
    notes: tuple[str, ...] = field(default=())

    @property
    def train(self) -> Samples:
        """Training pairs, including those held back for selection if there is no val."""
        return next(self.training[name] for name in ("train", "all") if name in self.training)

    @property
    def splits(self) -> dict[str, int]:
        """Number of pairs by split."""
        return {**{name: len(one) for name, one in self.training.items()}, "scored": len(self.test)}

    def identity(self) -> dict[str, str | int]:
        """Return what results depend on: fingerprints of the training, selection and test pairs."""
        names = "\n".join(self.test.names)
        selects = self.training.get("val")
        return {
            "fingerprint": self.train.fingerprint,
            "test_fingerprint": self.test.fingerprint,
            "test_pairs": len(self.test),
            "test_names": hashlib.sha256(names.encode()).hexdigest()[:16],
            **({} if selects is None else {"val_fingerprint": selects.fingerprint}),
        }


def split_pairs(
    splits: Mapping[str, Samples],
    name: str,
    *,
    dense: Mapping[str, Samples] | None = None,
    masks: PairMasks | None = None,
    notes: tuple[str, ...] = (),
) -> Pairs:
    """Split a dataset as shown in the table of this module.

    Args:
        splits: pairs by split.
        name: of the data.
        dense: the same splits with classes on all pixels, in the same order.
        masks: prior masks of all pairs; None: empty masks.
        notes: assumptions made so far.

    Raises:
        UsageError: there are no training pairs, or too few to split.
    """
    source = next((one for one in ("train", "all") if one in splits and len(splits[one])), None)
    if source is None:
        raise UsageError(f"no training pairs: {name} has {', '.join(splits) or 'no splits'}; train or all is required")
    masks = NoMasks() if masks is None else masks
    test_name = next((one for one in ("test", "val") if one in splits and len(splits[one])), None)
    kept = {one for one in (source, "val") if one in splits} - {test_name}
    if test_name is not None:
        scored_on = f"{test_name} ({len(splits[test_name])} pairs)" + (
            "" if test_name == "test" else ", not used for selection"
        )
        training = {one: splits[one] for one in splits if one in kept}
        covers = None if dense is None else {one: dense.get(one, splits[one]) for one in training}
        return Pairs(name, training, splits[test_name], test_name, scored_on, covers, masks, notes)
    whole = splits[source]
    if len(whole) < 3:
        raise UsageError(
            f"{len(whole)} pairs cannot be split into training, selection and test; 3 or more are required"
        )
    rest, test, note = _split_by_image(whole)
    covers = None if dense is None or source not in dense else {source: Subset(dense[source], rest.chosen)}
    scored_on = f"{len(test)} of the {len(whole)} pairs of {source}"
    return Pairs(
        name, {source: rest}, test, source, scored_on, covers, masks, notes if note is None else (*notes, note)
    )


def _split_by_image(whole: Samples) -> tuple[Subset, Subset, str | None]:
    """Split off a fifth by image, and return rest, fifth and a note if one image has tiles in both."""
    pictures = [_TILE.sub("", each) for each in whole.names]
    different = list(dict.fromkeys(pictures))
    if len(different) == len(pictures):
        return *hold_back(whole, TEST_SHARE, 0), None
    if len(different) == 1:
        note = f"all pairs are tiles of {different[0]}: test tiles are adjacent to training tiles"
        return *hold_back(whole, TEST_SHARE, 0), note
    shuffled = draw(0, len(different)).permutation(len(different))
    held = {different[place] for place in shuffled[: max(1, round(TEST_SHARE * len(different)))]}
    parts = [
        Subset(whole, tuple(place for place, each in enumerate(pictures) if (each in held) == scores))
        for scores in (False, True)
    ]
    return parts[0], parts[1], None


def open_pairs(path: Path, *, encoding: str | None = None, tile: int | None = None, priors: str | None = None) -> Pairs:
    """Return the pairs of a dataset folder.

    Args:
        path: the folder.
        encoding: as in `wasnow.data.dataset.open_dataset`.
        tile: as in `wasnow.data.dataset.open_dataset`.
        priors: a prior folder, ``labels`` or ``none``, for models with prior masks; None: none.

    Raises:
        DatasetError: the folder holds no dataset, or one with faults.
        InputError: the prior folder does not exist.
        UsageError: as in `split_pairs`.
    """
    dataset = open_dataset(path, encoding=encoding, tile=tile)
    # Validation pairs are scored, so their labels stay unchanged.
    dense = {name: with_land_cover(one) for name, one in dataset.splits.items() if name != "val" and is_dense(one)}
    masks = None if priors is None else pair_masks(priors, dataset)
    return split_pairs(
        dict(dataset.splits), path.resolve().name, dense=dense or None, masks=masks, notes=tuple(dataset.warnings)
    )
