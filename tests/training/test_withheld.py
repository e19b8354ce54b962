"""Class words that training does not see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from training.tiny import WORDS, Blobs
from wasnow.data.samples import Sample
from wasnow.errors import UsageError
from wasnow.evaluation import change_labels, labels
from wasnow.training.batches import target_of
from wasnow.training.losses import NO_CLASS
from wasnow.training.withheld import WithheldWords


@pytest.mark.parametrize("told", [True, False], ids=["with a change map", "classes alone"])
def test_a_word_left_out_takes_classes_away_and_no_change(told: bool):
    class Some(Blobs):
        def __getitem__(self, index: int) -> Sample:
            sample = super().__getitem__(index)
            return sample if told else replace(sample, change=None)

    whole = Some(2)
    some = WithheldWords(whole, ("building",))
    assert some.vocabulary.words == ("water", "field")
    for i in range(2):
        before, after = target_of([whole[i]]), target_of([some[i]])
        assert (before.change == after.change).all()
        assert (before.valid == after.valid).all()
        renamed = {NO_CLASS: NO_CLASS, 0: 0, 1: NO_CLASS, 2: 1}
        for old, new in ((before.before, after.before), (before.after, after.after)):
            assert old is not None
            assert new is not None
            assert new.flatten().tolist() == [renamed[each] for each in old.flatten().tolist()]
            assert (new != old).any()


def test_validation_passes_over_the_classes_of_withheld_pixels_alone():
    whole, some = Blobs(1)[0], WithheldWords(Blobs(1), ("water",))[0]
    assert np.array_equal(change_labels(whole), change_labels(some))
    both, left = labels(whole), labels(some)
    assert both is not None
    assert left is not None
    for old, new in zip(both, left, strict=True):
        assert np.array_equal(new == 255, old == 1)
        assert np.array_equal(new == 0, old == 0)
        assert np.array_equal(new == 1, old == 2)


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (("bilding",), "the data has no class 'bilding', only water, building, field; did you mean 'building'"),
        (WORDS, "leaves no class to train on"),
    ],
)
def test_invalid_withheld_words_are_rejected(words: tuple[str, ...], advice: str):
    with pytest.raises(UsageError, match=advice):
        WithheldWords(Blobs(1), words)
