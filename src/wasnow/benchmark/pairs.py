"""The pairs of a benchmark: those that are trained on, and those that score, which no training here sees or selects by.

the data has     scored on            trained on           best weights chosen on
test             test                 train                val, or pairs held back from train
val, no test     val                  train                pairs held back from train
neither          a fifth of train     the rest             pairs held back from the rest

Where pictures are cut into tiles, the fifth is one of pictures: neighbours are too much alike to score each other.
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
"""Of the pairs, where the data has no split to score on; always the same ones."""

_TILE = re.compile(r"@\d+,\d+$")
"""What `wasnow.data.dataset.open_dataset` puts behind the name of a picture for each of its tiles."""


@dataclass(frozen=True)
class Pairs:
    """A dataset with its parts told off.

    Attributes:
        name: of the data.
        training: splits for `wasnow.training.trainer.train`; what is scored on is not among them.
        test: the pairs that score.
        test_split: the split of the data that they are of.
        scored_on: what they are, in words.
        dense: ``training`` with the classes of unchanged ground, where the labels name them.
        masks: for models that want some.
        notes: what was assumed.
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
        """The pairs that gradients and, where there is no val, the selection come from."""
        return next(self.training[name] for name in ("train", "all") if name in self.training)

    @property
    def splits(self) -> dict[str, int]:
        """How many pairs are where."""
        return {**{name: len(one) for name, one in self.training.items()}, "scored": len(self.test)}

    def identity(self) -> dict[str, str | int]:
        """What results depend on: another one where the pairs, or which of them score or select, are others."""
        names = "\n".join(self.test.names)
        selects = self.training.get("val")
        return {
            "fingerprint": self.train.fingerprint,
            "test_fingerprint": self.test.fingerprint,
            "test_pairs": len(self.test),
            "test_names": hashlib.sha256(names.encode()).hexdigest()[:16],
            **({} if selects is None else {"val_fingerprint": selects.fingerprint}),
        }


def apart(
    splits: Mapping[str, Samples],
    name: str,
    *,
    dense: Mapping[str, Samples] | None = None,
    masks: PairMasks | None = None,
    notes: tuple[str, ...] = (),
) -> Pairs:
    """Tell the parts of a dataset off, as the table of this module has it.

    Args:
        splits: by name.
        name: of the data.
        dense: the same splits with classes everywhere, in the same order.
        masks: of the pairs of all splits; None: nothing anywhere.
        notes: what was assumed so far.

    Raises:
        UsageError: nothing to train on, or too few pairs to keep some apart.
    """
    source = next((one for one in ("train", "all") if one in splits and len(splits[one])), None)
    if source is None:
        raise UsageError(f"nothing to train on: {name} has {', '.join(splits) or 'no splits'}, wanted train or all")
    masks = NoMasks() if masks is None else masks
    scored = next((one for one in ("test", "val") if one in splits and len(splits[one])), None)
    kept = {one for one in (source, "val") if one in splits} - {scored}
    if scored is not None:
        told = f"{scored} ({len(splits[scored])} pairs)" + ("" if scored == "test" else ", which chose no weights")
        training = {one: splits[one] for one in splits if one in kept}
        covers = None if dense is None else {one: dense.get(one, splits[one]) for one in training}
        return Pairs(name, training, splits[scored], scored, told, covers, masks, notes)
    whole = splits[source]
    if len(whole) < 3:
        raise UsageError(f"{len(whole)} pairs cannot be cut into training, selection and test; give 3 or more")
    rest, test, note = _fifth(whole)
    covers = None if dense is None or source not in dense else {source: Subset(dense[source], rest.chosen)}
    told = f"{len(test)} of the {len(whole)} pairs of {source}"
    return Pairs(name, {source: rest}, test, source, told, covers, masks, notes if note is None else (*notes, note))


def _fifth(whole: Samples) -> tuple[Subset, Subset, str | None]:
    """The rest and the part that scores, of which no picture has tiles in the other; and a note where it must."""
    pictures = [_TILE.sub("", each) for each in whole.names]
    different = list(dict.fromkeys(pictures))
    if len(different) == len(pictures):
        return *hold_back(whole, TEST_SHARE, 0), None
    if len(different) == 1:
        note = f"all pairs are tiles of {different[0]}: those that score lie beside those that are trained on"
        return *hold_back(whole, TEST_SHARE, 0), note
    shuffled = draw(0, len(different)).permutation(len(different))
    held = {different[place] for place in shuffled[: max(1, round(TEST_SHARE * len(different)))]}
    parts = [
        Subset(whole, tuple(place for place, each in enumerate(pictures) if (each in held) == scores))
        for scores in (False, True)
    ]
    return parts[0], parts[1], None


def open_pairs(path: Path, *, encoding: str | None = None, tile: int | None = None, priors: str | None = None) -> Pairs:
    """The pairs of a dataset folder.

    Args:
        path: the folder.
        encoding: as for `wasnow.data.dataset.open_dataset`.
        tile: likewise.
        priors: a prior folder, ``labels`` or ``none``, for models that want masks; None: none.

    Raises:
        DatasetError: no dataset, or one with faults.
        InputError: no prior folder.
        UsageError: as `apart`.
    """
    dataset = open_dataset(path, encoding=encoding, tile=tile)
    # What is validated on is scored, so it stays as scores see it.
    dense = {name: with_land_cover(one) for name, one in dataset.splits.items() if name != "val" and is_dense(one)}
    masks = None if priors is None else pair_masks(priors, dataset)
    return apart(
        dict(dataset.splits), path.resolve().name, dense=dense or None, masks=masks, notes=tuple(dataset.warnings)
    )
