"""Scores of class words, of other prompts and of withheld words, and calibration."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from training.tiny import Blobs, Tiny
from wasnow.data.samples import Sample
from wasnow.errors import InputError, UsageError, VocabularyError
from wasnow.evaluation import calibrate, evaluate, write_evaluation
from wasnow.evaluation.metrics import word_scores
from wasnow.evaluation.page import calibration_page
from wasnow.evaluation.reliability import ece as plain_ece
from wasnow.evaluation.rows import ece_rows, synonym_rows, word_rows
from wasnow.models.calibration import Calibration
from wasnow.models.contract import ChangeLogits, FeatureModel, ModelCard, WeightsInfo
from wasnow.vocabulary import Vocabulary

WORDS = ("water", "building", "field")
MEANINGS = {"water": 1, "lake": 1, "building": 2, "house": 2, "field": 3, "farm": 3, "shed": 4}


@dataclass(frozen=True)
class Open:
    """A model that reads labels from the red band, with any words of `MEANINGS`, and records its calls."""

    classes: tuple[str, ...] = WORDS
    seen: list[str] = field(default_factory=list)
    sharpness: float = 3.0
    calibration: Calibration | None = None
    encoder_parts: tuple[str, ...] = ()

    @property
    def card(self) -> ModelCard:
        return ModelCard(
            name="open",
            summary="",
            source="",
            classes=self.classes,
            stride=4,
            threshold=0.4,
            weights=WeightsInfo(calibration=self.calibration),
        )

    def bind(self, classes: Sequence[str]) -> Open:
        strange = [word for word in classes if word not in MEANINGS]
        if strange:
            raise VocabularyError(f"open does not know {strange}")
        return replace(self, classes=tuple(classes))

    def encode(self, before: Tensor, after: Tensor, valid: Tensor | None = None) -> tuple[Tensor, ...]:
        self.seen.append("encode")
        return before, after

    def answer(self, features: tuple[Tensor, ...], size: tuple[int, int]) -> ChangeLogits:
        self.seen.append("answer")
        assert features[0].shape[-2:] == size
        codes = [torch.round(one[:, 0] * 255) for one in features]
        change = ((codes[0] != codes[1]).float() - 0.5)[:, None] * self.sharpness
        if not self.classes:
            return ChangeLogits(change)
        meanings = torch.tensor([float(MEANINGS[word]) for word in self.classes])[:, None, None]
        return ChangeLogits(change, *((code[:, None] == meanings).float() * self.sharpness for code in codes))

    def __call__(self, before: Tensor, after: Tensor, valid: Tensor) -> ChangeLogits:
        return self.answer(self.encode(before, after, valid), (before.shape[2], before.shape[3]))


@dataclass(frozen=True)
class Slow:
    """The same without `FeatureModel`: it runs again for every list of words."""

    inner: Open = field(default_factory=Open)

    @property
    def card(self) -> ModelCard:
        return self.inner.card

    def bind(self, classes: Sequence[str]) -> Slow:
        return Slow(self.inner.bind(classes))

    def __call__(self, before: Tensor, after: Tensor, valid: Tensor) -> ChangeLogits:
        return self.inner(before, after, valid)


@dataclass(frozen=True)
class Scenes:
    """Pairs with land cover everywhere in the red band; a share of the labels is wrong."""

    count: int = 3
    wrong: float = 0.2
    words: tuple[str, ...] = WORDS
    fingerprint: str = "scenes"

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(self.words)

    @property
    def names(self) -> Sequence[str]:
        return [f"scene {i}" for i in range(self.count)]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        draw = np.random.default_rng(index)
        shape = (13, 10 + index)
        cover = [draw.integers(1, 4, shape).astype(np.uint8) for _ in range(2)]
        cover[1] = np.where(draw.random(shape) < 0.5, cover[0], cover[1])
        lying = [np.where(draw.random(shape) < self.wrong, draw.integers(1, 4, shape), one) for one in cover]
        change = (lying[0] != lying[1]).astype(np.uint8)
        change[0, 0], lying[1][1, 1] = 255, 255
        return Sample(
            self.names[index], *(np.stack([one] * 3, -1) for one in cover), *(np.uint8(one) for one in lying), change
        )


# --- one word against the rest


def test_words_are_scored_on_pixels_with_a_class_label():
    found = evaluate(Open(), Scenes(), landcover=True, resamples=0)
    for code in (1, 2, 3):
        counts = {"masked": [0, 0, 0], "cover": [0, 0, 0]}
        for sample in (Scenes()[i] for i in range(3)):
            truly = sample.before[..., 0] != sample.after[..., 0]
            for photo, labels in ((sample.before, sample.before_classes), (sample.after, sample.after_classes)):
                other = sample.after_classes if labels is sample.before_classes else sample.before_classes
                for row in range(13):
                    for col in range(photo.shape[1]):
                        label, cover = int(labels[row, col]), int(photo[row, col, 0])
                        if label == 255:
                            continue
                        counts["cover"][0] += cover == code
                        counts["cover"][1] += label == code
                        counts["cover"][2] += cover == label == code
                        if sample.change[row, col] == 1 and other[row, col] != 255:
                            said = cover if truly[row, col] else 0
                            counts["masked"][0] += said == code
                            counts["masked"][1] += label == code
                            counts["masked"][2] += said == label == code
        for rows, kind in ((found.words, "masked"), (found.landcover, "cover")):
            one = rows[code - 1]
            assert [one.predicted, one.labelled, one.correct] == counts[kind]
            predicted, labelled, right = counts[kind]
            assert one.precision == right / predicted
            assert one.recall == right / labelled
            assert one.f1 == pytest.approx(2 * one.precision * one.recall / (one.precision + one.recall))
            assert one.iou == right / (predicted + labelled - right)


def test_land_cover_is_scored_on_request():
    assert evaluate(Open(), Scenes(), resamples=0).landcover is None
    assert evaluate(Open(), Scenes(), resamples=0).as_dict()["landcover"] is None


def test_pixels_labelled_unchanged_do_not_affect_word_scores():
    matrix = np.array([[50, 2, 1], [9, 5, 0], [7, 1, 4]])
    other = matrix.copy()
    other[:, 0] = 12345
    assert word_scores(matrix) == word_scores(other)


def test_a_word_without_pixels_has_a_reason_and_is_null_in_json():
    rows = word_scores(np.array([[4, 3, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]]))
    assert math.isnan(rows[1].f1)
    assert rows[1].undefined["recall"] == "not labelled"
    assert set(rows[1].undefined) == {"precision", "recall", "f1", "iou"}
    assert (rows[2].precision, rows[2].f1) == (0, 0)
    assert set(rows[2].undefined) == {"recall"}
    assert rows[1].as_dict()["f1"] is None
    json.dumps([one.as_dict() for one in rows], allow_nan=False)


# --- other words


def test_a_model_encodes_each_pair_once_for_all_prompts():
    model = Open()
    assert isinstance(model, FeatureModel)
    evaluate(model, Scenes(4), synonyms={"building": ["house", "shed"], "water": ["lake"]}, resamples=0)
    assert model.seen.count("encode") == 4
    assert model.seen.count("answer") == 4 * 4


def test_a_model_without_separate_encoder_has_the_same_scores():
    asked = {"building": ["house", "shed"]}
    quick = evaluate(Open(), Scenes(), synonyms=asked, landcover=True, resamples=0)
    slow = evaluate(Slow(), Scenes(), synonyms=asked, landcover=True, resamples=0)
    assert quick.as_dict() == slow.as_dict()


def test_an_equivalent_synonym_has_equal_scores_and_another_word_has_not():
    found = evaluate(Open(), Scenes(), synonyms={"Building": ["house", "shed"]}, landcover=True, resamples=0)
    house, shed = found.synonyms
    assert (house.word, house.synonym) == ("building", "house")
    assert house.scores == found.words[1]
    assert house.landcover == found.landcover[1]
    assert house.fscd == found.scores.stacked.fscd
    assert shed.scores.correct == shed.landcover.correct == 0
    assert shed.fscd < house.fscd
    rows = synonym_rows(found)
    assert [row[:2] for row in rows] == [("building", "building"), ("building", "house"), ("building", "shed")]
    assert rows[0][2:] == rows[1][2:]


def test_a_list_of_prompts_is_scored_in_the_order_of_the_classes():
    own = evaluate(Open(), Scenes(), resamples=0)
    found = evaluate(Open(), Scenes(), words=["lake", "house", "farm"], resamples=0)
    assert found.scores == own.scores
    assert found.vocabulary.words == WORDS
    assert found.as_dict()["words"][1]["asked"] == "house"
    assert found.class_label(2) == "building (prompt house)"
    mixed = evaluate(Open(), Scenes(), words=["house", "lake", "field"], resamples=0)
    assert mixed.words[0].f1 < own.words[0].f1 / 4
    assert mixed.words[2].recall == own.words[2].recall


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (
            {"words": ["lake", "house"]},
            "2 words for 3 classes; give one word per class, in this order: water, building and field",
        ),
        ({"words": ["lake", "lake", "house"]}, "twice"),
        ({"synonyms": {"bilding": ["house"]}}, "did you mean 'building'"),
        ({"synonyms": {"building": ["water"]}}, "twice"),
        ({"synonyms": {"building": ["castle"]}}, "does not know"),
    ],
)
def test_invalid_prompts_are_rejected_before_any_inference(asked, text):
    model = Open()
    with pytest.raises(VocabularyError, match=text):
        evaluate(model, Scenes(), **asked)
    assert not model.seen


def test_prompts_are_rejected_without_classes():
    with pytest.raises(UsageError, match="there are no prompts"):
        evaluate(Open(classes=()), Scenes(), words=["lake"])
    found = evaluate(Open(classes=()), replace(Scenes(), words=()), resamples=0)
    assert found.words == ()
    assert found.class_reliability is None


def test_withheld_words_are_marked_and_averaged_separately():
    found = evaluate(Open(), Scenes(), unseen=["Field", "moor"], landcover=True, resamples=0)
    assert found.unseen == ("field",)
    written = found.as_dict()
    assert [one["seen"] for one in written["words"]] == [True, True, False]
    for rows, kind in ((found.words, "words"), (found.landcover, "landcover")):
        means = written["seen_and_unseen"]["mean_f1"][kind]
        assert means["unseen"] == rows[2].f1
        assert means["seen"] == pytest.approx((rows[0].f1 + rows[1].f1) / 2)
    table = word_rows(found, found.words)
    assert table[2][0] == "field (not seen in training)"
    assert [row[0] for row in table[3:]] == ["mean of words seen in training", "mean of words not seen"]
    assert evaluate(Open(), Scenes(), resamples=0).as_dict()["seen_and_unseen"] is None


def test_the_page_shows_words_synonyms_and_reliability(tmp_path: Path):
    found = evaluate(Open(), Scenes(), unseen=["field"], synonyms={"water": ["lake"]}, landcover=True, resamples=0)
    page = write_evaluation(found, tmp_path)[2].read_text()
    for text in (
        "Words",
        "Words, land cover",
        "Synonyms",
        "prompt",
        "lake",
        "not seen in training",
        "Reliability of change",
    ):
        assert text in page, text
    assert json.loads((tmp_path / "scores.json").read_text()) == found.as_dict()


# --- what probabilities are worth


def test_ece_of_all_pairs_is_that_of_all_pixels_together():
    found = evaluate(Open(), Scenes(), resamples=0)
    stated, happened = [], []
    for sample in (Scenes()[i] for i in range(3)):
        known = sample.change != 255
        said = np.where(sample.before[..., 0] != sample.after[..., 0], 1.5, -1.5)
        stated.append(1 / (1 + np.exp(-said[known])))
        happened.append(sample.change[known] == 1)
    expected = plain_ece(np.concatenate(stated), np.concatenate(happened))
    assert found.change_reliability.ece == pytest.approx(expected, rel=1e-6)
    assert found.as_dict()["reliability"]["change"]["ece"] == found.change_reliability.ece


def test_calibration_lowers_ece_and_does_not_change_the_map():
    model = Open(sharpness=9)
    fitted = calibrate(model, Scenes(6), split="val")
    one = fitted.calibration
    assert one.change_temperature > 1.5
    assert one.class_temperature > 1
    assert one.ece_change_after < one.ece_change_before / 2
    assert one.ece_class_after < one.ece_class_before
    assert (one.split, one.pairs, one.data_fingerprint) == ("val", 6, "scenes")
    before = evaluate(model, Scenes(6), resamples=0)
    after = evaluate(replace(model, calibration=one), Scenes(6), resamples=0)
    assert after.per_image == before.per_image
    assert after.threshold == one.threshold(0.4) != before.threshold == 0.4
    # All pixels are in the sample, so the fitted values are exact.
    assert before.change_reliability.ece == pytest.approx(one.ece_change_before)
    assert after.change_reliability.ece == pytest.approx(one.ece_change_after)
    assert after.class_reliability.ece == pytest.approx(one.ece_class_after)
    assert ece_rows(before)[0][2] == "not calibrated"
    assert "measured on val" in ece_rows(after)[0][2]


def test_a_given_threshold_applies_to_calibrated_probabilities():
    heat = Calibration(change_temperature=3.0, ece_change_before=0, ece_change_after=0, split="val", pairs=1)
    # The logits are 1.5 and -1.5: probabilities .82 and .18, calibrated .62 and .38.
    for model, least, most in ((Open(), 0.19, 0.81), (Open(calibration=heat), 0.39, 0.61)):
        maps = [evaluate(model, Scenes(wrong=0), threshold=limit, resamples=0) for limit in (least, most)]
        assert [one.scores.binary.f1 for one in maps] == [1, 1]
        assert [one.threshold for one in maps] == [least, most]
        assert evaluate(model, Scenes(), threshold=most + 0.02, resamples=0).scores.binary.recall == 0
        assert evaluate(model, Scenes(), threshold=0.0, resamples=0).threshold == 0


def test_fitting_uses_a_bounded_sample_and_is_repeatable():
    first, second = (calibrate(Open(), Scenes(5), sampled=200) for _ in range(2))
    assert first.calibration == second.calibration
    assert first.sampled == 200 < first.labelled
    everything = calibrate(Open(), Scenes(5)).calibration
    assert first.calibration.change_temperature == pytest.approx(everything.change_temperature, rel=0.35)


def test_a_change_model_has_one_temperature_and_one_diagram():
    fitted = calibrate(Open(classes=()), replace(Scenes(), words=()))
    assert fitted.classes is None
    assert fitted.calibration.class_temperature == 1
    assert fitted.calibration.ece_class_before is None
    assert calibration_page(fitted).count('<svg class="chart"') == 1
    assert calibration_page(calibrate(Open(), Scenes())).count('<svg class="chart"') == 2


def test_calibrating_does_not_modify_the_network():
    torch.manual_seed(0)
    net = Tiny(norm="batch", dropout=0.5).train()
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    first, second = (calibrate(net, Blobs(2)).calibration for _ in range(2))
    assert first == second
    assert net.training
    assert all(torch.equal(value, weights[name]) for name, value in net.state_dict().items())


def test_pairs_without_labels_cannot_be_calibrated_on():
    class Bare(Scenes):
        def __getitem__(self, index: int) -> Sample:
            whole = super().__getitem__(index)
            return Sample(whole.name, whole.before, whole.after)

    with pytest.raises(InputError, match="no temperature can be fitted"):
        calibrate(Open(), Bare())


# --- models that call the rest "other"


@dataclass(frozen=True)
class WithRest(Open):
    """`Open` with a class for everything else, most probable everywhere if ``proud``; change is of the words."""

    proud: bool = False

    @property
    def card(self) -> ModelCard:
        return replace(super().card, classes=(*self.classes, "other"))

    def answer(self, features: tuple[Tensor, ...], size: tuple[int, int]) -> ChangeLogits:
        answer = super().answer(features, size)
        assert answer.before is not None
        assert answer.after is not None
        dates = []
        for logits in (answer.before, answer.after):
            unknown = (logits.amax(1, keepdim=True) <= 0).float() * self.sharpness
            dates.append(torch.cat([logits, unknown + (99.0 if self.proud else 0.0)], dim=1))
        named = [one.argmax(1, keepdim=True) for one in dates]
        change = answer.change if self.proud else (named[0] != named[1]).float() * 2 * self.sharpness - self.sharpness
        return ChangeLogits(change, *dates)


@pytest.mark.parametrize("proud", [False, True])
def test_a_class_other_is_never_predicted_in_scores(proud):
    plain, more = evaluate(Open(), Scenes(), resamples=0), evaluate(WithRest(proud=proud), Scenes(), resamples=0)
    assert more.vocabulary.words == WORDS
    assert more.scores == plain.scores
    assert more.words == plain.words


@dataclass(frozen=True)
class ChangeAlone(Scenes):
    """The same pairs with labels of building change only."""

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary()

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        built = [one[..., 0] == MEANINGS["building"] for one in (sample.before, sample.after)]
        return replace(sample, before_classes=None, after_classes=None, change=(built[0] != built[1]).astype(np.uint8))


def test_change_labels_are_scored_on_change_between_the_given_words():
    asked = evaluate(WithRest(), ChangeAlone(), words=["building"], resamples=0)
    assert asked.prompts == ("building",)
    assert asked.scores.binary.f1 == 1
    assert evaluate(WithRest(), ChangeAlone(), resamples=0).scores.binary.precision < 1


def test_prompts_for_a_model_without_classes_are_rejected_on_change_labels():
    with pytest.raises(UsageError, match="there are no prompts"):
        evaluate(Tiny(()), ChangeAlone(), words=["building"])
