"""Samples with the prior masks that a model needs: for training, evaluation and calibration.

    Sample ──────────────────────────────────────────────────────────┐
    its split and name ─ Priors       masks from a prior folder ─────┤
                         LabelMasks   its own labels, as a control ──┼─> WithPriors ─> Sample with priors
                         NoMasks      empty masks, as a control ─────┘

**Labels as priors** are an upper bound and cannot be used on new pairs, which have no labels.

    dense labels                     the mask of a word at a date is where the label of that date names it
    labels of changed pixels         the same, so that no unchanged pixel is in a mask: they reveal the change
    binary change, one word          changed pixels, at both dates, because the label does not say at which date the
                                     object existed: they reveal the change too
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
"""Value of ``--priors`` for masks from labels."""


@dataclass(frozen=True)
class WithPriors:
    """Samples, each with the masks of its pair.

    The fingerprint is that of the samples; `PairMasks.origin` identifies the masks.

    Args:
        whole: samples of one split of a dataset, or of a part of it.
        masks: of the words of the model.
        split: of the dataset.

    Raises:
        UsageError, InputError: masks of some samples are missing.
    """

    whole: Samples
    masks: PairMasks
    split: str

    def __post_init__(self) -> None:
        # Fail before training starts, not in the middle of an epoch.
        self.masks.require(self.split, self.whole.names)

    def __len__(self) -> int:
        return len(self.whole)

    def __getitem__(self, index: int) -> Sample:
        """Return a sample with its priors.

        Raises:
            InputError: the masks were made from other images, or are damaged.
        """
        sample = self.whole[index]
        return replace(sample, priors=self.masks.of(self.split, sample.name, sample.before, sample.after))

    @property
    def vocabulary(self) -> Vocabulary:
        """That of the samples."""
        return self.whole.vocabulary

    @property
    def names(self) -> Sequence[str]:
        """Names of all samples."""
        return self.whole.names

    @property
    def fingerprint(self) -> str:
        """That of the samples."""
        return self.whole.fingerprint


@dataclass(frozen=True)
class NoMasks:
    """Empty masks, to measure a model without priors."""

    words: tuple[str, ...] = ()

    @property
    def origin(self) -> dict[str, Any]:
        """See `PairMasks`."""
        return {"words": list(self.words), "masker": {"masker": WITHOUT}, "digest": ""}

    def pick(self, words: Sequence[str]) -> NoMasks:
        """See `PairMasks`."""
        return NoMasks(tuple(words))

    def require(self, split: str, names: Sequence[str]) -> None:
        """Accept any pairs."""

    def of(self, split: str, name: str, before: NDArray[np.uint8], after: NDArray[np.uint8]) -> Masks:
        """See `PairMasks`."""
        return np.zeros((2, len(self.words), *before.shape[:2]), np.uint8)


@dataclass(frozen=True)
class LabelMasks:
    """Masks of class words from a dataset's own labels; see the module docstring.

    Attributes:
        splits: of the dataset, by name; dense ones with classes at every pixel.
        say: what the labels contain.
        words: in the order of the masks.
    """

    splits: Mapping[str, Samples]
    say: Literal["covers", "classes where it changed", "change"]
    words: tuple[str, ...]
    _places: Mapping[str, Mapping[str, int]] = field(repr=False, compare=False)

    @classmethod
    def of_dataset(cls, dataset: Dataset) -> LabelMasks:
        """Return the masks of an open dataset. Its words are the dataset's classes; none for binary change."""
        return cls.of_splits(dataset.splits)

    @classmethod
    def of_splits(cls, splits: Mapping[str, FileSamples]) -> LabelMasks:
        """Return the masks of some splits of a dataset."""
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
            VocabularyError: a word is not a class of the dataset; or there are no classes, and several words.
        """
        if self.say == "change":
            if len(words) != 1:
                raise VocabularyError(
                    f"the labels are binary change and do not distinguish {join_words(words)}. Give masks of them with "
                    "--priors FOLDER, or one word with --set model.words"
                )
            return replace(self, words=tuple(words))
        known = {word.casefold(): word for word in self._vocabulary.words}
        for word in words:
            if word.casefold() not in known:
                raise VocabularyError(
                    f"{word!r} is not a class of the dataset, which has {join_words(self._vocabulary.words)}"
                    f"{did_you_mean(word.casefold(), list(known))}. Give masks with --priors FOLDER"
                )
        return replace(self, words=tuple(words))

    def require(self, split: str, names: Sequence[str]) -> None:
        """See `PairMasks`."""
        if split not in self._places:
            raise UsageError(f"there are labels of the splits {join_words(tuple(self._places))}, not of {split!r}")
        missing = [name for name in names if name not in self._places[split]]
        if missing:
            raise InputError(f"{split} has no pair {missing[0]}. Use priors from the labels of the same dataset")

    def of(self, split: str, name: str, before: NDArray[np.uint8], after: NDArray[np.uint8]) -> Masks:
        """See `PairMasks`. The labels are read once more.

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


def pair_masks(value: str, dataset: Dataset) -> PairMasks:
    """Return the masks that ``--priors`` refers to for a dataset: a prior folder, `LABELS` or `WITHOUT`.

    Raises:
        InputError: not a finished prior folder.
    """
    if value == LABELS:
        return LabelMasks.of_dataset(dataset)
    return NoMasks() if value == WITHOUT else open_priors(Path(value))


def recordable(value: str) -> str:
    """Return the value of ``--priors`` for a record: a folder as an absolute path."""
    return value if value in (LABELS, WITHOUT) else str(Path(value).resolve())


def with_priors(
    model: ChangeModel, samples: Samples, split: str, masks: PairMasks | None
) -> tuple[Samples, PairMasks | None]:
    """Return the samples with the masks that a model needs, and those masks; None for a model without priors.

    Args:
        model: any.
        samples: of a split, or of a part of it.
        split: of the dataset.
        masks: of the dataset; None if there are none.

    Raises:
        UsageError: the model needs masks and there are none.
        VocabularyError: there are no masks of its words.
    """
    wanted = model.card.wants_priors
    if not wanted:
        return samples, None
    if masks is None:
        raise no_priors(model.card.name, wanted)
    picked = masks.pick(wanted)
    return WithPriors(samples, picked, split), picked


def no_priors(name: str, wanted: Sequence[str]) -> UsageError:
    """Return the error for a model that needs masks and was given none."""
    return UsageError(
        f"{name} needs masks of {join_words(wanted)}. Make them with wasnow priors DATASET --classes "
        f"'{', '.join(wanted)}' -o priors/, then pass --priors priors/ (or --priors none for empty masks)"
    )


def _unlabelled(name: str) -> InputError:
    return InputError(f"{name} has no labels to use as priors. Remove it, or give masks with --priors FOLDER")
