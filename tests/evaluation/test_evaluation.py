"""Scores of a model on pairs: at full size, in every protocol, with a row per image."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from training.tiny import Blobs, Tiny, TinyChange
from wasnow.data.samples import Sample
from wasnow.errors import InputError, OutputError, UsageError, VocabularyError
from wasnow.evaluation import change_labels, evaluate, evaluation_mode, labels, predict, write_evaluation
from wasnow.evaluation.metrics import Confusion, bootstrap
from wasnow.evaluation.rows import summary_rows
from wasnow.models.contract import ChangeLogits, ModelCard
from wasnow.vocabulary import Vocabulary


@dataclass(frozen=True)
class Reader:
    """A model that reads its output from the pixels: red is the class before, in 255ths; it records its input."""

    classes: tuple[str, ...] = ("water", "building", "field")
    stride: int = 8

    @property
    def card(self) -> ModelCard:
        return ModelCard(name="reader", summary="", source="", classes=self.classes, stride=self.stride)

    def bind(self, classes: Sequence[str]) -> Reader:
        if set(classes) - {"water", "building", "field", "road"}:
            raise VocabularyError("reader does not know these words")
        return replace(self, classes=tuple(classes))

    def __call__(self, before: Tensor, after: Tensor, valid: Tensor) -> ChangeLogits:
        assert before.shape[-1] % self.stride == before.shape[-2] % self.stride == 0
        codes = [torch.round(one[:, 0] * 255).long() for one in (before, after)]
        change = (codes[0] > 0).float()[:, None] * 20 - 10
        if not self.classes:
            return ChangeLogits(change)
        dates = [torch.nn.functional.one_hot(one, 4).movedim(-1, 1).float() for one in codes]
        return ChangeLogits(change, *dates, unchanged_channel=True)


@dataclass(frozen=True)
class Readable:
    """Pairs whose red band is the label, of odd and different sizes; ``wrong`` pixels of each are wrong."""

    wrong: int = 0
    words: tuple[str, ...] = ("water", "building", "field")
    count: int = 3
    fingerprint: str = "readable"

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(self.words)

    @property
    def names(self) -> Sequence[str]:
        return [f"pair {i}" for i in range(self.count)]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        shape = (5 + 8 * index, 11)
        changed = rng.random(shape) < 0.5
        maps = [np.where(changed, rng.integers(1, 4, shape), 0).astype(np.uint8) for _ in range(2)]
        photos = [np.stack([one] * 3, -1) for one in maps]
        for one in maps:
            one.flat[: self.wrong] = np.where(one.flat[: self.wrong] > 0, one.flat[: self.wrong] % 3 + 1, 0)
        if not self.words:
            return Sample(self.names[index], *photos, None, None, changed.astype(np.uint8))
        return Sample(self.names[index], *photos, *maps, changed.astype(np.uint8))


def test_a_perfect_model_has_scores_of_one():
    found = evaluate(Reader(), Readable())
    headline = found.scores.headline()
    assert headline == pytest.approx(dict.fromkeys(headline, 1.0))
    assert found.scores.pixels == sum(Readable()[i].before.shape[0] * 11 for i in range(3))


def test_padding_is_not_scored_and_sizes_may_differ():
    found = evaluate(Reader(stride=16), Readable())
    assert found.scores == evaluate(Reader(stride=1), Readable()).scores


def test_scores_use_summed_counts_and_rows_use_single_images():
    data = Readable(wrong=9)
    found = evaluate(Reader(), data, resamples=50)
    parts = []
    for i in range(3):
        sample = data[i]
        codes = sample.before[..., 0], sample.after[..., 0]
        parts.append(Confusion.of_classes(codes, (sample.before_classes, sample.after_classes), 3))
    assert found.scores == Confusion.total(parts).scores()
    assert [image.confusion for image in found.per_image] == parts
    assert dict(found.intervals) == bootstrap(parts, n=50)
    assert found.scores.stacked.fscd < 1


def test_a_network_runs_in_evaluation_mode_and_its_mode_is_restored():
    torch.manual_seed(0)
    net = Tiny(norm="batch", dropout=0.5).train()
    net.encoder[0].eval()
    mean = net.encoder[1].running_mean.clone()
    torch.nn.init.constant_(net.change.bias, 1.0)
    first, second = (evaluate(net, Blobs(2), resamples=0) for _ in range(2))
    assert first.scores.binary.recall > 0
    assert first.per_image == second.per_image
    assert torch.equal(net.encoder[1].running_mean, mean)
    assert net.training
    assert net.encoder[1].training
    assert not net.encoder[0].training


def test_reflection_at_the_border_changes_nothing_for_a_network_without_borders():
    torch.manual_seed(0)
    net = Tiny(dropout=0)
    net.encoder[0] = torch.nn.Conv2d(3, 8, 1)
    net.encoder[1] = torch.nn.Identity()
    big, small = Blobs(1, 32, 32)[0], Blobs(1, 32, 32)[0]
    small = replace(small, before=small.before[:30, :29], after=small.after[:30, :29])
    with evaluation_mode(net):
        assert np.array_equal(predict(net, big, 0.5).before[:30, :29], predict(net, small, 0.5).before)


def test_the_threshold_determines_changed_pixels():
    data = Readable()
    assert evaluate(Reader(), data, threshold=1.0).scores.binary.recall == 0
    assert evaluate(Reader(), data, threshold=0.0).scores.binary.recall == 1
    with pytest.raises(UsageError, match="is not a probability"):
        evaluate(Reader(), data, threshold=1.5)


def test_change_masks_are_scored_on_change_only():
    found = evaluate(Reader(), Readable(words=()))
    assert found.scores.n_classes == 0
    assert found.scores.binary.f1 == 1
    assert math.isnan(found.scores.stacked.sek)


def test_a_change_model_is_scored_on_the_change_of_class_labels():
    torch.manual_seed(0)
    found = evaluate(TinyChange(), Blobs(2), resamples=0)
    assert found.scores.n_classes == 0
    assert found.scores.pixels == 2 * 32 * 32


def test_a_model_is_bound_to_the_words_of_the_data_or_rejects_them():
    found = evaluate(Reader(classes=("building", "water", "field")), Readable())
    assert found.scores.stacked.fscd == 1
    with pytest.raises(VocabularyError):
        evaluate(Reader(), Readable(words=("sea", "sky", "moon")))


def test_dense_class_labels_count_only_on_changed_pixels():
    photo = np.zeros((1, 4, 3), np.uint8)
    dense = np.array([[1, 1, 2, 3]], np.uint8)
    sample = Sample("s", photo, photo, dense, dense, np.array([[0, 1, 255, 0]], np.uint8))
    both = labels(sample)
    assert both is not None
    assert both[0].tolist() == [[0, 1, 255, 0]]
    bare = Sample("s", photo, photo, np.array([[0, 1, 255, 0]], np.uint8), np.array([[0, 2, 1, 0]], np.uint8))
    assert change_labels(bare).tolist() == [[0, 1, 255, 0]]


class Half(Readable):
    """The second pair has no labels."""

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        return Sample(sample.name, sample.before, sample.after) if index == 1 else sample


def test_pairs_without_labels_are_left_out_and_mentioned():
    found = evaluate(Reader(), Half())
    assert [image.name for image in found.per_image] == ["pair 0", "pair 2"]
    assert found.notes == ("1 of 3 pairs have no labels and are left out (pair 1, ...)",)
    with pytest.raises(InputError, match="has labels; add labels"):
        evaluate(Reader(), type("None_", (Half,), {"__getitem__": lambda self, i: Half()[1]})())


def test_the_written_files_agree_with_the_scores(tmp_path: Path):
    found = evaluate(Reader(), Readable(wrong=9), split="test", resamples=50)
    json_path, csv_path, page_path = write_evaluation(found, tmp_path / "deep/er")
    written = json.loads(json_path.read_text())
    assert written["scores"] == found.scores.as_dict()
    assert written["split"] == "test"
    assert set(written["protocols"]) >= {"binary", "stacked", "from_to"}
    assert written["intervals"]["stacked.fscd"]["estimate"] == found.scores.stacked.fscd
    rows = list(csv.DictReader(csv_path.open(newline="")))
    assert [row["name"] for row in rows] == ["pair 0", "pair 1", "pair 2"]
    scores = found.per_image[1].confusion.scores()
    assert float(rows[1]["stacked.fscd"]) == scores.stacked.fscd
    page = page_path.read_text()
    assert page.count('<svg class="matrix"') == 5
    assert "water → building" in page
    assert f"{100 * found.scores.from_to.sek:.2f}" in page


def test_an_evaluation_does_not_replace_files_of_other_origin(tmp_path: Path):
    found = evaluate(Reader(), Readable(), resamples=0)
    (tmp_path / "confusion.html").write_text("mine")
    with pytest.raises(OutputError, match=r"contains confusion\.html, which no run of wasnow made"):
        write_evaluation(found, tmp_path)
    assert (tmp_path / "confusion.html").read_text() == "mine"
    assert not (tmp_path / "scores.json").exists()
    (tmp_path / "confusion.html").unlink()
    write_evaluation(found, tmp_path)
    write_evaluation(found, tmp_path)


def test_class_words_are_escaped_on_the_page(tmp_path: Path):
    words = ("<script>alert(1)</script>", "a & b", 'c"d')
    found = evaluate(replace(Reader(), classes=words), Readable(words=words), resamples=0)
    page = write_evaluation(found, tmp_path)[2].read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_an_undefined_score_has_a_reason():
    rows = {name: (value, why) for name, value, why in summary_rows(evaluate(Reader(), Readable(words=())))}
    assert rows["from_to.sek"] == ("undefined", "the maps hold change only, without classes")
    assert rows["binary.f1"][0] == "100.00"
