"""Class words that training does not see, so that a model can be scored on words that are new to it.

    codes   water 1   building 2   field 3          left out: building
    become  water 1   no label     field 2          changed pixels stay changed

A pixel of a withheld word loses its class at that date alone. What its labels say of change is kept, and so is its
class at the other date.
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
class WithoutWords:
    """Samples in which some class words are not labelled, and the others have codes 1..K anew.

    Args:
        whole: all of them.
        words: to leave out, in any case.

    Raises:
        UsageError: a word that is no class of the samples, or none would be left.
    """

    whole: Samples
    words: tuple[str, ...]
    _table: NDArray[np.uint8] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        known = {word.casefold(): code for code, word in enumerate(self.whole.vocabulary.words, 1)}
        for word in self.words:
            if word.casefold() not in known:
                raise UsageError(
                    f"leave_out: {word!r} is no class of the data, which has {', '.join(known) or 'none'}"
                    f"{did_you_mean(word.casefold(), list(known))}"
                )
        hidden = {known[word.casefold()] for word in self.words}
        if len(hidden) == len(known):
            raise UsageError(f"leave_out={join_words(self.words)} leaves no class to train on; leave out fewer")
        table = np.arange(256, dtype=np.uint8)
        kept = [code for code in known.values() if code not in hidden]
        table[list(hidden)] = NO_LABEL
        table[kept] = np.arange(1, len(kept) + 1)
        object.__setattr__(self, "_table", table)

    def __len__(self) -> int:
        return len(self.whole)

    def __getitem__(self, index: int) -> Sample:
        """A sample with the classes that are left; what changed is told by a map of its own."""
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
        """The words that are left, in their order."""
        hidden = {word.casefold() for word in self.words}
        return Vocabulary(tuple(word for word in self.whole.vocabulary.words if word.casefold() not in hidden))

    @property
    def names(self) -> Sequence[str]:
        """Of all samples."""
        return self.whole.names

    @property
    def fingerprint(self) -> str:
        """That of the whole: what is left out is told elsewhere."""
        return self.whole.fingerprint
