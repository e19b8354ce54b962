"""The contract of `ChangeLogits` and class words for every model."""

import numpy as np
import pytest
import torch

from making import Toy, textured
from wasnow.errors import VocabularyError
from wasnow.models.contract import ChangeLogits, ModelCard, checked_classes, require_own_classes
from wasnow.pipeline.block import InferenceSettings, InputScaling, predict_block
from wasnow.raster.pair import PairWindow
from wasnow.raster.radiometry import Stretch
from wasnow.raster.tiles import Tiling, Window
from wasnow.vocabulary import Vocabulary


def test_land_cover_excludes_the_unchanged_channel():
    change, before, after = torch.randn(2, 1, 3, 4), torch.randn(2, 5, 3, 4), torch.randn(2, 5, 3, 4)
    assert ChangeLogits(change).land_cover is None
    assert [x.shape[1] for x in ChangeLogits(change, before, after).land_cover] == [5, 5]
    cut = ChangeLogits(change, before, after, unchanged_channel=True).land_cover
    assert torch.equal(torch.stack(cut), torch.stack([before[:, 1:], after[:, 1:]]))


def test_classes_of_one_date_only_are_rejected():
    with pytest.raises(ValueError, match="must both be given"):
        ChangeLogits(torch.zeros(1, 1, 2, 2), torch.zeros(1, 3, 2, 2))


class UnchangedEverywhere(Toy):
    """Toy with an additional channel that predicts "unchanged" everywhere, as some published networks have."""

    def __call__(self, before, after, valid):
        plain = super().__call__(before, after, valid)
        sure = torch.full_like(plain.change, 50.0)
        return ChangeLogits(
            plain.change, torch.cat([sure, plain.before], 1), torch.cat([sure, plain.after], 1), unchanged_channel=True
        )


def test_the_unchanged_channel_never_reaches_the_map():
    stretch = Stretch((0.0,) * 3, (255.0,) * 3)
    feed = InputScaling(stretch, stretch, (0.5,) * 3, (0.5,) * 3)
    before, after = textured(0, 48, 48), textured(0, 48, 48)
    after[:, 10:30, 10:30] += 60
    seen = PairWindow(Window(0, 0, 48, 48), before, after, np.zeros((48, 48), np.uint8))
    (block,) = Tiling(48, 48, 64, 4)
    answers = []
    for model in (Toy(), UnchangedEverywhere()):
        rules = InferenceSettings(Vocabulary(model.card.classes), 0.5, 1.0, (48, 48), (48, 48))
        answers.append(predict_block(model, feed, rules, block, seen))
    plain, extended = answers
    assert (plain.codes[2] > 0).any()
    assert np.array_equal(plain.codes, extended.codes)
    assert np.array_equal(plain.confidence, extended.confidence)


def test_a_fixed_vocabulary_accepts_only_its_words_in_any_case():
    card = ModelCard("x", "", "", classes=("water", "low vegetation"))
    require_own_classes(card, ["Water", " low  vegetation"])
    for other in (["low vegetation", "water"], ["water"], ["water", "low vegetation", "road"], []):
        with pytest.raises(VocabularyError, match="x was trained with the classes water, low vegetation"):
            require_own_classes(card, other)


def test_a_network_with_classes_requires_at_least_one_word():
    assert checked_classes(["water", "road"]) == ("water", "road")
    with pytest.raises(VocabularyError, match="give at least one"):
        checked_classes([])
    with pytest.raises(VocabularyError, match="twice"):
        checked_classes(["water", "Water"])
