"""Withhold class words from training, to score a model on words it has not seen.

    codes   water 1   building 2   field 3          withheld: building
    become  water 1   no label     field 2          changed pixels stay changed

A pixel of a withheld word loses its class label at that date only. Its change label and its class at the other date
are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wasnow.errors import UsageError, did_you_mean
from wasnow.evaluation import change_labels
from wasnow.vocabulary import NO_LABEL, Vocabulary, join_words

if TYPE_CHECKING:
    from wasnow.data.samples import Sample, Samples


@dataclass(frozen=True)
class WithheldWords:
    """Samples without the labels of some class words; the other words have codes 1..K.

    Args:
        whole: all samples.
        words: words to withhold; case does not matter.

    Raises:
        UsageError: a word is not a class of the samples, or no class would remain.
    """

    whole: Samples
    words: tuple[str, ...]
    _table: NDArray[np.uint8] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        known = {word.casefold(): code for code, word in enumerate(self.whole.vocabulary.words, 1)}
        for word in self.words:
            if word.casefold() not in known:
                raise UsageError(
                    f"leave_out: the data has no class {word!r}, only {', '.join(known) or 'none'}"
                    f"{did_you_mean(word.casefold(), list(known))}"
                )
        hidden = {known[word.casefold()] for word in self.words}
        if len(hidden) == len(known):
            raise UsageError(f"leave_out={join_words(self.words)} leaves no class to train on; withhold fewer words")
        table = np.arange(256, dtype=np.uint8)
        kept = [code for code in known.values() if code not in hidden]
        table[list(hidden)] = NO_LABEL
        table[kept] = np.arange(1, len(kept) + 1)
        object.__setattr__(self, "_table", table)

    def __len__(self) -> int:
        return len(self.whole)

    def __getitem__(self, index: int) -> Sample:
        """Return a sample with the remaining classes and a separate change map."""
        sample = self.whole[index]
        if sample.before_classes is None or sample.after_classes is None:
            return sample
        return replace(
            sample,
            change=change_labels(sample),
            before_classes=self._table[sample.before_classes],
            after_classes=self._table[sample.after_classes],
        )

    @property
    def vocabulary(self) -> Vocabulary:
        """The remaining words in their order."""
        hidden = {word.casefold() for word in self.words}
        return Vocabulary(tuple(word for word in self.whole.vocabulary.words if word.casefold() not in hidden))

    @property
    def names(self) -> Sequence[str]:
        """Names of all samples."""
        return self.whole.names

    @property
    def fingerprint(self) -> str:
        """Fingerprint of all samples; the withheld words are recorded elsewhere."""
        return self.whole.fingerprint
