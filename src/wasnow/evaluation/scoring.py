"""Evaluation of a model on labelled pairs: counts per pair, then all scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wasnow.errors import InputError, UsageError, VocabularyError, did_you_mean
from wasnow.evaluation.inference import (
    ClassMaps,
    Prediction,
    bind_to,
    decode,
    evaluation_mode,
    infer_pair,
    most_probable_classes,
    predict,
)
from wasnow.evaluation.labels import change_labels, labels, unlabelled
from wasnow.evaluation.metrics import IGNORE, Confusion, bootstrap, protocol_scores, word_scores
from wasnow.evaluation.outcome import Evaluation, ImageScores, SynonymScores
from wasnow.evaluation.pixels import change_pixels, class_pixels
from wasnow.evaluation.reliability import Reliability, max_probability, sigmoid
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

    If either the model or the labels have no classes, only change is scored. Pairs without labels are left out and
    mentioned in the notes. The calibration of a model is applied; it does not change the map unless a threshold is
    given.

    Args:
        model: any model; it is bound to the words of the data if it has others.
        samples: labelled pairs.
        split: their name in the report.
        threshold: change probability (calibrated, if the model is); None: that of the model.
        words: prompts instead of the words of the data, one per class in their order. For labels without classes:
            change between these words counts.
        synonyms: class word of the data -> other prompts for it, each scored in place of its class.
        unseen: words withheld from training, in any case; words that are not classes of the data are ignored.
        landcover: also score the class maps before the change mask.
        bf16: compute in bfloat16 where it is safe.
        resamples: of the bootstrap for intervals; 0: no intervals.
        progress: called with (done, total) after each pair.

    Raises:
        VocabularyError: the model has fixed classes that differ from the data or the prompts, or the prompts do not
            match the classes of the data.
        InputError: no pair has labels.
        UsageError: the threshold is outside 0..1, or prompts are given and there are no classes.
    """
    calibration = model.card.weights.calibration
    limit = _limit(model, threshold, calibration)
    shown = threshold if threshold is not None else calibration.threshold(limit) if calibration else limit
    vocabulary = samples.vocabulary if model.card.classes else Vocabulary()
    word_lists = _word_lists(vocabulary, words, synonyms or {}, classes=bool(model.card.classes))
    bound = [bind_to(model, prompts) for _, prompts in word_lists]
    counts = _Counts(vocabulary, limit, calibration, len(bound), landcover=landcover and len(vocabulary) > 0)
    without = []
    with ExitStack() as stack:
        for one in bound:
            stack.enter_context(evaluation_mode(one, bf16=bf16))
        for i in range(len(samples)):
            sample = samples[i]
            if unlabelled(sample):
                without.append(sample.name)
            else:
                counts.add(sample, (_without_other(output, len(vocabulary)) for output in infer_pair(bound, sample)))
            progress(i + 1, len(samples))
    if not counts.rows:
        raise InputError(f"none of the {len(samples)} pairs of {split} has labels; add labels or choose another split")
    confusions = [row.confusion for row in counts.rows]
    notes = []
    if without:
        notes.append(f"{len(without)} of {len(samples)} pairs have no labels and are left out ({without[0]}, ...)")
    whole = Confusion.total(confusions)
    withheld = {word.casefold() for word in unseen}
    return Evaluation(
        model=model.card.name,
        split=split,
        vocabulary=vocabulary,
        threshold=shown,
        scores=whole.scores(),
        intervals=bootstrap(confusions, n=resamples) if len(confusions) > 1 and resamples else {},
        per_image=tuple(counts.rows),
        fingerprint=samples.fingerprint,
        notes=tuple(notes),
        words=whole.words(),
        landcover=word_scores(counts.cover[0]) if counts.landcover else None,
        prompts=() if words is None else word_lists[0][1],
        unseen=tuple(word for word in vocabulary.words if word.casefold() in withheld),
        synonyms=tuple(
            SynonymScores(
                vocabulary.words[code - 1],
                prompts[code - 1],
                word_scores(stacked)[code - 1],
                word_scores(cover)[code - 1] if counts.landcover else None,
                protocol_scores(stacked).fscd,
            )
            for (code, prompts), stacked, cover in zip(
                word_lists[1:], counts.stacked[1:], counts.cover[1:], strict=True
            )
        ),
        change_reliability=counts.change,
        class_reliability=counts.classes if len(vocabulary) else None,
        calibration=calibration,
    )


def _limit(model: ChangeModel, threshold: float | None, calibration: Calibration | None) -> float:
    """Return the threshold as uncalibrated probability.

    Args:
        model: the model.
        threshold: calibrated probability; None: the threshold of the model.
        calibration: of the model.
    """
    if threshold is None:
        return model.card.threshold
    if not 0 <= threshold <= 1:
        raise UsageError(f"threshold {threshold} is not a probability; use a number from 0 to 1")
    return calibration.raw_threshold(threshold) if calibration else threshold


def _without_other(output: ChangeLogits, words: int) -> ChangeLogits:
    """Return the output without a last class "other", which no label has; unchanged for labels without classes."""
    cover = output.land_cover
    if cover is None or not words or cover[0].shape[1] == words:
        return output
    return ChangeLogits(output.change, cover[0][:, :words], cover[1][:, :words])


def _word_lists(
    vocabulary: Vocabulary, words: Sequence[str] | None, synonyms: Mapping[str, Sequence[str]], *, classes: bool
) -> list[tuple[int, tuple[str, ...]]]:
    """Return (code of the replaced class, all prompts) for each word list; code 0 for the first list.

    Args:
        vocabulary: of the data.
        words: prompts instead of the words of the data.
        synonyms: class word -> further prompts.
        classes: whether the model has classes.
    """
    if not len(vocabulary):
        if synonyms or (words and not classes):
            raise UsageError("the model or the data has no classes, so there are no prompts; remove --words and --as")
        return [(0, Vocabulary.parse(words or ()).words)]
    own = tuple(vocabulary.words if words is None else Vocabulary.parse(words).words)
    if len(own) != len(vocabulary):
        raise VocabularyError(
            f"{len(own)} words for {len(vocabulary)} classes; give one word per class, in this order: "
            f"{join_words(vocabulary.words)}"
        )
    codes = {word.casefold(): code for code, word in enumerate(vocabulary.words, 1)}
    word_lists = [(0, own)]
    for word, others in synonyms.items():
        code = codes.get(word.casefold())
        if code is None:
            near = did_you_mean(word.casefold(), list(codes))
            raise VocabularyError(f"the data has no class {word!r}, only {join_words(vocabulary.words)}{near}")
        for other in others:
            word_lists.append((code, Vocabulary.parse([*own[: code - 1], other, *own[code:]]).words))
    return word_lists


class _Counts:
    """Counts of all pairs for each word list; reliability for the first list only.

    Memory: one `Confusion` per pair, and two ``(K + 1, K + 1)`` matrices per word list.

    Args:
        vocabulary: of the data.
        limit: uncalibrated threshold.
        calibration: of the model.
        lists: number of word lists.
        landcover: also count class maps before the change mask.
    """

    def __init__(
        self, vocabulary: Vocabulary, limit: float, calibration: Calibration | None, lists: int, *, landcover: bool
    ) -> None:
        self.vocabulary, self.limit, self.calibration, self.landcover = vocabulary, limit, calibration, landcover
        side = len(vocabulary) + 1
        self.rows: list[ImageScores] = []
        self.stacked = [np.zeros((side, side), np.int64) for _ in range(lists)]
        self.cover = [np.zeros((side, side), np.int64) for _ in range(lists)]
        self.change, self.classes = Reliability.empty(), Reliability.empty()

    def add(self, sample: Sample, outputs: Iterator[ChangeLogits]) -> None:
        """Count one pair.

        Args:
            sample: the pair.
            outputs: one per word list.
        """
        for i, output in enumerate(outputs):
            cover = most_probable_classes(output)
            confusion = score(decode(output, self.limit, cover), sample, self.vocabulary)
            if i == 0:
                self.rows.append(ImageScores(sample.name, confusion))
                self._add_reliability(output, sample)
            elif confusion.n_classes:
                self.stacked[i] += confusion.stacked()
            if self.landcover:
                self.cover[i] += _cover(cover, sample, len(self.vocabulary))

    def _add_reliability(self, output: ChangeLogits, sample: Sample) -> None:
        calibration = self.calibration
        logits, changed = change_pixels(output, sample)
        temperature = calibration.change_temperature if calibration else 1.0
        self.change += Reliability.of(sigmoid(logits, temperature), changed)
        if len(self.vocabulary):
            temperature = calibration.class_temperature if calibration else 1.0
            for rows, classes in class_pixels(output, sample):
                self.classes += Reliability.of(max_probability(rows, temperature), rows.argmax(1) == classes)


def count(
    model: ChangeModel,
    samples: Samples,
    vocabulary: Vocabulary,
    *,
    threshold: float,
    bf16: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[ImageScores], list[str]]:
    """Return the counts of every pair and the names of pairs without labels.

    Args:
        model: bound to the words of the vocabulary.
        samples: pairs.
        vocabulary: class words; empty: change only.
        threshold: uncalibrated change probability.
        bf16: compute in bfloat16 where it is safe.
        progress: called with (done, total) after each pair.
    """
    rows, without = [], []
    with evaluation_mode(model, bf16=bf16):
        for i in range(len(samples)):
            sample = samples[i]
            if unlabelled(sample):
                without.append(sample.name)
            else:
                rows.append(ImageScores(sample.name, score(predict(model, sample, threshold), sample, vocabulary)))
            progress(i + 1, len(samples))
    return rows, without


def _cover(cover: ClassMaps | None, sample: Sample, n_classes: int) -> NDArray[np.int64]:
    """Return the ``(K + 1, K + 1)`` matrix of predicted and labelled class, both dates, on pixels with a class label.

    Args:
        cover: predicted class maps.
        sample: with labels.
        n_classes: K.
    """
    table = np.zeros((n_classes + 1) ** 2, np.int64)
    dates = (sample.before_classes, sample.after_classes)
    for best, codes in zip(cover or (), dates, strict=False):
        if codes is None:
            continue
        named = (codes > 0) & (codes != IGNORE)
        table += np.bincount(best[named] * (n_classes + 1) + codes[named], minlength=len(table))
    return table.reshape(n_classes + 1, n_classes + 1)


def score(prediction: Prediction, sample: Sample, vocabulary: Vocabulary) -> Confusion:
    """Return the counts of one image, of classes or of change only.

    Args:
        prediction: of a model.
        sample: with labels.
        vocabulary: class words; empty: change only.

    Raises:
        InputError: the sample has no labels, or no class labels although there are class words.
    """
    both = labels(sample)
    if not len(vocabulary):
        return Confusion.of_change(prediction.change, change_labels(sample))
    if both is None:
        raise InputError(f"{sample.name} has no class labels but its dataset has classes; remove or label it")
    return Confusion.of_classes((prediction.before, prediction.after), both, len(vocabulary))
