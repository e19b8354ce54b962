"""Answers against labels, pair by pair: the counts that all scores are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wasnow.errors import InputError, UsageError, VocabularyError, did_you_mean
from wasnow.evaluation.calibration import Reliability, sigmoid, surest
from wasnow.evaluation.inference import Dates, Prediction, answering, answers, bound_to, likeliest, predict, read_off
from wasnow.evaluation.labels import change_labels, labels, unlabelled
from wasnow.evaluation.metrics import IGNORE, Confusion, bootstrap, protocol_scores, word_scores
from wasnow.evaluation.outcome import Evaluation, ImageScores, SynonymScores
from wasnow.evaluation.pixels import change_pixels, class_pixels
from wasnow.models.calibration import Calibration
from wasnow.models.contract import ChangeLogits
from wasnow.vocabulary import Vocabulary, join_words

if TYPE_CHECKING:
    from wasnow.data.samples import Sample, Samples
    from wasnow.models.contract import ChangeModel


def evaluate(
    model: ChangeModel,
    samples: Samples,
    *,
    split: str = "all",
    threshold: float | None = None,
    words: Sequence[str] | None = None,
    synonyms: Mapping[str, Sequence[str]] | None = None,
    unseen: Sequence[str] = (),
    landcover: bool = False,
    bf16: bool = False,
    resamples: int = 1000,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Score a model on labelled pairs.

    A model with classes on labels of change alone is scored on change alone, and so is one without classes on labels
    with them. Pairs without any label are left out, and named in the notes. The ``calibration`` of a model that has
    one is applied; it never moves the map, unless a threshold is given.

    Args:
        model: bound or not; it is bound to the words of the data if it answers with others.
        samples: pairs with labels.
        split: what to call them.
        threshold: change probability (calibrated, where the model is); None: the model's own.
        words: ask the model these instead of the data's words, one for each class in their order. Where the labels
            know no classes: change between these words is what counts.
        synonyms: class word of the data -> other words for it. Each is scored in the place of its class.
        unseen: words that training left out, in any case; those that are no class of the data do not matter.
        landcover: also score the class maps before the change mask.
        bf16: let the network compute in bfloat16 where that is safe.
        resamples: of the bootstrap for intervals; 0 for none.
        progress: told (done, total) after each pair.

    Raises:
        VocabularyError: the model's classes are fixed and are others than the data's, or other words were asked for;
            or they do not fit the data's.
        InputError: no pair has labels.
        UsageError: the threshold lies outside 0..1, or other words are asked for where there are no classes.
    """
    calibration = model.card.weights.calibration
    limit = _limit(model, threshold, calibration)
    shown = threshold if threshold is not None else calibration.threshold(limit) if calibration else limit
    vocabulary = samples.vocabulary if model.card.classes else Vocabulary()
    asked = _wordings(vocabulary, words, synonyms or {}, classes=bool(model.card.classes))
    bound = [bound_to(model, wording) for _, wording in asked]
    tally = _Tally(vocabulary, limit, calibration, len(bound), landcover=landcover and len(vocabulary) > 0)
    without = []
    with ExitStack() as stack:
        for one in bound:
            stack.enter_context(answering(one, bf16=bf16))
        for i in range(len(samples)):
            sample = samples[i]
            if unlabelled(sample):
                without.append(sample.name)
            else:
                tally.add(sample, (_of_words(answer, len(vocabulary)) for answer in answers(bound, sample)))
            progress(i + 1, len(samples))
    if not tally.rows:
        raise InputError(f"none of the {len(samples)} pairs of {split} has labels, so there is nothing to score")
    confusions = [row.confusion for row in tally.rows]
    notes = []
    if without:
        notes.append(f"{len(without)} of {len(samples)} pairs have no labels and are left out ({without[0]}, ...)")
    whole = Confusion.total(confusions)
    hidden = {word.casefold() for word in unseen}
    return Evaluation(
        model=model.card.name,
        split=split,
        vocabulary=vocabulary,
        threshold=shown,
        scores=whole.scores(),
        intervals=bootstrap(confusions, n=resamples) if len(confusions) > 1 and resamples else {},
        per_image=tuple(tally.rows),
        fingerprint=samples.fingerprint,
        notes=tuple(notes),
        words=whole.words(),
        landcover=word_scores(tally.cover[0]) if tally.landcover else None,
        spoken=() if words is None else asked[0][1],
        unseen=tuple(word for word in vocabulary.words if word.casefold() in hidden),
        synonyms=tuple(
            SynonymScores(
                vocabulary.words[code - 1],
                wording[code - 1],
                word_scores(stacked)[code - 1],
                word_scores(cover)[code - 1] if tally.landcover else None,
                protocol_scores(stacked).fscd,
            )
            for (code, wording), stacked, cover in zip(asked[1:], tally.stacked[1:], tally.cover[1:], strict=True)
        ),
        change_reliability=tally.change,
        class_reliability=tally.classes if len(vocabulary) else None,
        calibration=calibration,
    )


def _limit(model: ChangeModel, threshold: float | None, calibration: Calibration | None) -> float:
    """The threshold in the model's own, uncalibrated probabilities."""
    if threshold is None:
        return model.card.threshold
    if not 0 <= threshold <= 1:
        raise UsageError(f"threshold {threshold} is no probability; give a number from 0 to 1")
    return calibration.raw_threshold(threshold) if calibration else threshold


def _of_words(answer: ChangeLogits, words: int) -> ChangeLogits:
    """The answer without a last class "other", which no label names; as it is where the labels know no classes."""
    cover = answer.land_cover
    if cover is None or not words or cover[0].shape[1] == words:
        return answer
    return ChangeLogits(answer.change, cover[0][:, :words], cover[1][:, :words])


def _wordings(
    vocabulary: Vocabulary, words: Sequence[str] | None, synonyms: Mapping[str, Sequence[str]], *, classes: bool
) -> list[tuple[int, tuple[str, ...]]]:
    """(code that is asked for by another word, all words) for each time that a model is asked; code 0 for the first."""
    if not len(vocabulary):
        if synonyms or (words and not classes):
            raise UsageError("the model or the data know no classes, so there are no words to exchange; leave them out")
        return [(0, Vocabulary.parse(words or ()).words)]
    own = tuple(vocabulary.words if words is None else Vocabulary.parse(words).words)
    if len(own) != len(vocabulary):
        raise VocabularyError(
            f"{len(own)} words for {len(vocabulary)} classes; give one for each of {join_words(vocabulary.words)}, "
            "in this order"
        )
    codes = {word.casefold(): code for code, word in enumerate(vocabulary.words, 1)}
    asked = [(0, own)]
    for word, others in synonyms.items():
        code = codes.get(word.casefold())
        if code is None:
            near = did_you_mean(word.casefold(), list(codes))
            raise VocabularyError(f"{word!r} is no class of the data, which has {join_words(vocabulary.words)}{near}")
        for other in others:
            asked.append((code, Vocabulary.parse([*own[: code - 1], other, *own[code:]]).words))
    return asked


class _Tally:
    """Counts of all pairs so far, for each wording that a model was asked in; the first has more said of it.

    Memory: one `Confusion` a pair, and two ``(K + 1, K + 1)`` tables a wording.
    """

    def __init__(
        self, vocabulary: Vocabulary, limit: float, calibration: Calibration | None, wordings: int, *, landcover: bool
    ) -> None:
        self.vocabulary, self.limit, self.calibration, self.landcover = vocabulary, limit, calibration, landcover
        side = len(vocabulary) + 1
        self.rows: list[ImageScores] = []
        self.stacked = [np.zeros((side, side), np.int64) for _ in range(wordings)]
        self.cover = [np.zeros((side, side), np.int64) for _ in range(wordings)]
        self.change, self.classes = Reliability.empty(), Reliability.empty()

    def add(self, sample: Sample, said: Iterator[ChangeLogits]) -> None:
        """Count one pair."""
        for i, answer in enumerate(said):
            cover = likeliest(answer)
            confusion = score(read_off(answer, self.limit, cover), sample, self.vocabulary)
            if i == 0:
                self.rows.append(ImageScores(sample.name, confusion))
                self._believe(answer, sample)
            elif confusion.n_classes:
                self.stacked[i] += confusion.stacked()
            if self.landcover:
                self.cover[i] += _cover(cover, sample, len(self.vocabulary))

    def _believe(self, answer: ChangeLogits, sample: Sample) -> None:
        found = self.calibration
        logits, happened = change_pixels(answer, sample)
        heat = found.change_temperature if found else 1.0
        self.change += Reliability.of(sigmoid(logits, heat), happened)
        if len(self.vocabulary):
            for rows, named in class_pixels(answer, sample):
                heat = found.class_temperature if found else 1.0
                self.classes += Reliability.of(surest(rows, heat), rows.argmax(1) == named)


def count(
    model: ChangeModel,
    samples: Samples,
    vocabulary: Vocabulary,
    *,
    threshold: float,
    bf16: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[ImageScores], list[str]]:
    """The counts of every pair, and the names of the pairs without labels; arguments as in `evaluate`."""
    rows, without = [], []
    with answering(model, bf16=bf16):
        for i in range(len(samples)):
            sample = samples[i]
            if unlabelled(sample):
                without.append(sample.name)
            else:
                rows.append(ImageScores(sample.name, score(predict(model, sample, threshold), sample, vocabulary)))
            progress(i + 1, len(samples))
    return rows, without


def _cover(cover: Dates | None, sample: Sample, n_classes: int) -> NDArray[np.int64]:
    """``(K + 1, K + 1)``: the likeliest class against the labelled one, both dates, wherever a class is labelled."""
    table = np.zeros((n_classes + 1) ** 2, np.int64)
    dates = (sample.before_classes, sample.after_classes)
    for best, codes in zip(cover or (), dates, strict=False):
        if codes is None:
            continue
        named = (codes > 0) & (codes != IGNORE)
        table += np.bincount(best[named] * (n_classes + 1) + codes[named], minlength=len(table))
    return table.reshape(n_classes + 1, n_classes + 1)


def score(prediction: Prediction, sample: Sample, vocabulary: Vocabulary) -> Confusion:
    """The counts of one image: with classes where there are words and labels for them, else of change alone.

    Raises:
        InputError: the sample has no labels, or lacks classes that the others have.
    """
    both = labels(sample)
    if not len(vocabulary):
        return Confusion.of_change(prediction.change, change_labels(sample))
    if both is None:
        raise InputError(f"{sample.name} has no class labels while its dataset has classes; leave it out or label it")
    return Confusion.of_classes((prediction.before, prediction.after), both, len(vocabulary))
