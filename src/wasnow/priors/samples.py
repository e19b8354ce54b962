"""Samples with the masks that a model wants to be told: for training, scoring and calibration.

    Sample ──────────────────────────────────────────────────────────┐
    its split and name ─ Priors       masks that were made before ───┤
                         LabelMasks   its own labels, as a control ──┼─> WithPriors ─> Sample with priors
                         NoMasks      nothing anywhere, likewise ────┘

**Labels as priors** are an upper bound, and no way to use a model: on a new pair there are none.

    classes everywhere (dense covers)      a word's mask at a date is where the label of that date says it
    classes where it changed               the same, so that nothing unchanged is in a mask: they give the answer away
    change alone, one word                 what changed, at both dates, as no label says at which of them the thing was
                                           there: they give the answer away too
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wasnow.data.dataset import Dataset
from wasnow.data.land_cover import is_dense, with_land_cover
from wasnow.data.samples import FileSamples, Sample, Samples
from wasnow.errors import InputError, UsageError, VocabularyError, did_you_mean
from wasnow.models.contract import ChangeModel
from wasnow.priors.store import WITHOUT, Masks, PairMasks, open_priors
from wasnow.vocabulary import Vocabulary, join_words

LABELS = "labels"
"""What ``--priors`` may say instead of a folder, besides `WITHOUT`."""


@dataclass(frozen=True)
class WithPriors:
    """Samples, each with the masks of its pair.

    Its fingerprint is that of the samples: which masks they are is told by `PairMasks.origin`.

    Args:
        whole: all of them, of one split of a dataset or of a part of it.
        masks: of the words that are wanted.
        split: as the dataset calls it.

    Raises:
        UsageError, InputError: there are no masks of some.
    """

    whole: Samples
    masks: PairMasks
    split: str

    def __post_init__(self) -> None:
        # Before the first step, not in the middle of an epoch.
        self.masks.require(self.split, self.whole.names)

    def __len__(self) -> int:
        return len(self.whole)

    def __getitem__(self, index: int) -> Sample:
        """A sample with its priors.

        Raises:
            InputError: the masks are of other pictures, or damaged.
        """
        sample = self.whole[index]
        return replace(sample, priors=self.masks.of(self.split, sample.name, sample.before, sample.after))

    @property
    def vocabulary(self) -> Vocabulary:
        """That of the samples."""
        return self.whole.vocabulary

    @property
    def names(self) -> Sequence[str]:
        """Of all samples."""
        return self.whole.names

    @property
    def fingerprint(self) -> str:
        """That of the samples."""
        return self.whole.fingerprint


@dataclass(frozen=True)
class NoMasks:
    """Nothing anywhere: what a model of masks can do without any."""

    words: tuple[str, ...] = ()

    @property
    def origin(self) -> dict[str, Any]:
        """See `PairMasks`."""
        return {"words": list(self.words), "masker": {"masker": WITHOUT}, "digest": ""}

    def pick(self, words: Sequence[str]) -> NoMasks:
        """See `PairMasks`."""
        return NoMasks(tuple(words))

    def require(self, split: str, names: Sequence[str]) -> None:
        """Nothing is there of any pair."""

    def of(self, split: str, name: str, before: NDArray[np.uint8], after: NDArray[np.uint8]) -> Masks:
        """See `PairMasks`."""
        return np.zeros((2, len(self.words), *before.shape[:2]), np.uint8)


@dataclass(frozen=True)
class LabelMasks:
    """Masks of class words from a dataset's own labels; see the module for what they are.

    Attributes:
        splits: of the dataset, by name; dense ones with classes everywhere.
        say: what the labels say.
        words: in the order of the masks.
    """

    splits: Mapping[str, Samples]
    say: Literal["covers", "classes where it changed", "change"]
    words: tuple[str, ...]
    _places: Mapping[str, Mapping[str, int]] = field(repr=False, compare=False)

    @classmethod
    def of_dataset(cls, dataset: Dataset) -> LabelMasks:
        """Of an open dataset; its words are the dataset's classes, none for labels of change alone."""
        return cls.of_splits(dataset.splits)

    @classmethod
    def of_splits(cls, splits: Mapping[str, FileSamples]) -> LabelMasks:
        """The same of some splits of a dataset."""
        words = next(iter(splits.values())).vocabulary.words
        dense = bool(words) and all(is_dense(one) for one in splits.values())
        read: dict[str, Samples] = {name: with_land_cover(one) if dense else one for name, one in splits.items()}
        places = {name: {each: place for place, each in enumerate(one.names)} for name, one in splits.items()}
        return cls(read, "covers" if dense else "classes where it changed" if words else "change", words, places)

    @property
    def origin(self) -> dict[str, Any]:
        """See `PairMasks`."""
        prints = [f"{name} {one.fingerprint}" for name, one in sorted(self.splits.items())]
        digest = hashlib.sha256("\n".join([*prints, *self.words]).encode()).hexdigest()
        return {"words": list(self.words), "masker": {"masker": LABELS, "say": self.say}, "digest": digest}

    def pick(self, words: Sequence[str]) -> LabelMasks:
        """See `PairMasks`.

        Raises:
            VocabularyError: a word is no class of the data; or there are no classes, and several words.
        """
        if self.say == "change":
            if len(words) != 1:
                raise VocabularyError(
                    f"the labels know change alone and cannot tell {join_words(words)} apart; give masks of them with "
                    "--priors FOLDER, or one word with --set model.words"
                )
            return replace(self, words=tuple(words))
        known = {word.casefold(): word for word in self._vocabulary.words}
        for word in words:
            if word.casefold() not in known:
                raise VocabularyError(
                    f"{word!r} is no class of the data, which has {join_words(self._vocabulary.words)}"
                    f"{did_you_mean(word.casefold(), list(known))}; its labels cannot be priors of it"
                )
        return replace(self, words=tuple(words))

    def require(self, split: str, names: Sequence[str]) -> None:
        """See `PairMasks`."""
        if split not in self._places:
            raise UsageError(f"there are labels of {join_words(tuple(self._places))}, not of {split!r}")
        missing = [name for name in names if name not in self._places[split]]
        if missing:
            raise InputError(f"{split} has no pair {missing[0]}; take priors from the labels of the same data")

    def of(self, split: str, name: str, before: NDArray[np.uint8], after: NDArray[np.uint8]) -> Masks:
        """See `PairMasks`; the labels are read once more.

        Raises:
            InputError: the pair has no labels.
        """
        sample = self.splits[split][self._places[split][name]]
        if self.say == "change":
            if sample.change is None:
                raise _unlabelled(name)
            changed = (sample.change == 1).astype(np.uint8)
            return np.stack([changed[None], changed[None]])
        codes = {word.casefold(): code for code, word in enumerate(self._vocabulary.words, 1)}
        dates = []
        for labels in (sample.before_classes, sample.after_classes):
            if labels is None:
                raise _unlabelled(name)
            dates.append(np.stack([labels == codes[word.casefold()] for word in self.words]))
        return np.stack(dates).astype(np.uint8)

    @property
    def _vocabulary(self) -> Vocabulary:
        return next(iter(self.splits.values())).vocabulary


def pair_masks(said: str, dataset: Dataset) -> PairMasks:
    """What ``--priors`` means for a dataset: a prior folder, `LABELS` or `WITHOUT`.

    Raises:
        InputError: no finished prior folder.
    """
    if said == LABELS:
        return LabelMasks.of_dataset(dataset)
    return NoMasks() if said == WITHOUT else open_priors(Path(said))


def recordable(said: str) -> str:
    """The same in a record, where a folder's name must mean something from everywhere."""
    return said if said in (LABELS, WITHOUT) else str(Path(said).resolve())


def with_priors(
    model: ChangeModel, samples: Samples, split: str, masks: PairMasks | None
) -> tuple[Samples, PairMasks | None]:
    """The samples as a model wants them, and the masks that it is told; None for a model that wants none.

    Args:
        model: any.
        samples: of a split, or of a part of it.
        split: as the dataset calls it.
        masks: of the dataset; None: there are none.

    Raises:
        UsageError: the model wants masks and there are none.
        VocabularyError: not of its words.
    """
    wanted = model.card.wants_priors
    if not wanted:
        return samples, None
    if masks is None:
        raise no_priors(model.card.name, wanted)
    picked = masks.pick(wanted)
    return WithPriors(samples, picked, split), picked


def no_priors(name: str, wanted: Sequence[str]) -> UsageError:
    """The error of a model that wants masks and was given none: what to do."""
    return UsageError(
        f"{name} wants masks of {join_words(wanted)} and none are given; make them with wasnow priors DATASET "
        f"--classes '{', '.join(wanted)}' -o priors/, then add --priors priors/ (or --priors none, to do without)"
    )


def _unlabelled(name: str) -> InputError:
    return InputError(f"{name} has no labels that could be priors; leave it out, or give masks with --priors FOLDER")
