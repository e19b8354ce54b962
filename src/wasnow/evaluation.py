"""A model and labelled pairs, to scores: every protocol, every image, and how sure the numbers are.

    Sample ─> pad by reflection to the model's stride ─> model ─> crop back ─> codes ─┐
    its labels ─────────────────────────────────────────────────────────────────────┴─> Confusion, one an image
                                                                                            │
    Evaluation(scores of the sum, rows per image, bootstrap intervals) <────────────────────┘

Images are answered whole, at their own size, one at a time: no resizing, no tiles, no test-time augmentation. The
counts are added over images before any score is taken (`wasnow.metrics`).

A model that wants masks (`wasnow.models.contract.Guided`) is told those of the samples, see `wasnow.priors.samples`.

A model of an open vocabulary is also asked in other words (``words``, ``synonyms``): it looks at each pair once, and
answers from what it saw as often as it is asked (`wasnow.models.contract.Encoding`). How far its probabilities can be
believed is measured alongside (`wasnow.calibration`), and `calibrate` finds the temperatures that mend them.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wasnow.calibration import Calibration, Reliability, Reservoir, fit_temperature, sigmoid, surest
from wasnow.errors import InputError, OutputError, UsageError, VocabularyError, did_you_mean
from wasnow.metrics import (
    IGNORE,
    Confusion,
    Interval,
    Scores,
    WordScores,
    bootstrap,
    protocol_scores,
    word_scores,
)
from wasnow.models.contract import ChangeLogits, Encoding, ask, wanted_priors
from wasnow.training.page import confusion_page
from wasnow.vocabulary import Vocabulary, join_words

if TYPE_CHECKING:
    from wasnow.data.samples import Sample, Samples
    from wasnow.models.contract import ChangeModel

SCORES_NAME, ROWS_NAME, PAGE_NAME = "scores.json", "scores.csv", "confusion.html"

SAMPLED = 1 << 18
"""Pixels that temperatures are fitted to: the error of the fit is far below that of having few images."""

_SAMPLED_CELLS = 1 << 24
"""Class logits that a sample holds at most: 64 MiB; a vocabulary of hundreds is sampled more thinly."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says of one pair.

    Attributes:
        change: ``(H, W)`` uint8, 1 changed.
        before: ``(H, W)`` class codes, 0 where unchanged; all 0 for a model without classes.
        after: the same for the second date.
    """

    change: NDArray[np.uint8]
    before: NDArray[np.unsignedinteger]
    after: NDArray[np.unsignedinteger]


@dataclass(frozen=True, slots=True)
class ImageScores:
    """One image's counts under its name; `Confusion.scores` gives its row."""

    name: str
    confusion: Confusion


@dataclass(frozen=True)
class SynonymScores:
    """How a class fares when the model is asked for it by another word, all else as before.

    Attributes:
        word: the class as the data calls it.
        synonym: what the model was asked instead; phrasings that are averaged are joined by ``|``.
        scores: of that class, as in `Evaluation.words`.
        landcover: of that class, as in `Evaluation.landcover`; None where that is.
        fscd: `ProtocolScores.fscd`, "stacked", of the whole map with this word in place.
    """

    word: str
    synonym: str
    scores: WordScores
    landcover: WordScores | None
    fscd: float


@dataclass(frozen=True)
class Evaluation:
    """How well a model answers one set of pairs.

    Attributes:
        model: its name.
        split: which pairs: ``test``, ``val`` and so on.
        vocabulary: the words of the codes; empty where change alone is scored.
        threshold: change probability (calibrated, where the model is) above which a pixel counted as changed.
        scores: of all images together.
        intervals: by score name; empty for fewer than two images.
        per_image: in the order of the data.
        fingerprint: of the data.
        notes: what a reader of the numbers must know: images without labels, say.
        words: each class against the rest, where the labels name a class, as predicted; empty without classes.
        landcover: the same of the class maps before the change mask, wherever a class is labelled; None if not asked.
        spoken: what the model was asked, in the order of the vocabulary, where that is not the words of the data.
        unseen: words of the vocabulary that training left out.
        synonyms: the classes that were also asked for by other words.
        change_reliability: P(change) against how often it changed.
        class_reliability: probability of the class against how often it is right, where the labels name a class; None
            without classes.
        calibration: what the model came with, and what all probabilities above went through.
        priors: what the masks were that the model was told (`wasnow.priors.store.PairMasks.origin`); None without.
    """

    model: str
    split: str
    vocabulary: Vocabulary
    threshold: float
    scores: Scores
    intervals: Mapping[str, Interval]
    per_image: tuple[ImageScores, ...]
    fingerprint: str
    notes: tuple[str, ...] = field(default=())
    words: tuple[WordScores, ...] = ()
    landcover: tuple[WordScores, ...] | None = None
    spoken: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    synonyms: tuple[SynonymScores, ...] = ()
    change_reliability: Reliability = field(default_factory=Reliability.empty)
    class_reliability: Reliability | None = None
    calibration: Calibration | None = None
    priors: Mapping[str, Any] | None = None

    def called(self, code: int) -> str:
        """Class ``code`` for a table: ``building``, ``building (asked as house)``, ``lake (not seen in training)``."""
        word = self.vocabulary.words[code - 1]
        asked = self.spoken[code - 1] if self.spoken else word
        said = [f"asked as {asked}"] if asked != word else []
        said += ["not seen in training"] if word in self.unseen else []
        return f"{word} ({', '.join(said)})" if said else word

    def mean_f1(self, rows: Sequence[WordScores], *, unseen: bool) -> float:
        """Mean F1 of the words that training left out, or of all others; NaN where none of them has one."""
        values = [
            one.f1
            for one in rows
            if (self.vocabulary.words[one.code - 1] in self.unseen) == unseen and not math.isnan(one.f1)
        ]
        return sum(values) / len(values) if values else math.nan

    @property
    def confusion(self) -> Confusion:
        """The counts of all images."""
        return Confusion.total([image.confusion for image in self.per_image])

    def as_dict(self) -> dict[str, Any]:
        """The whole as plain JSON values; undefined scores are None."""
        return {
            "model": self.model,
            "split": self.split,
            "classes": list(self.vocabulary.words),
            "threshold": self.threshold,
            "images": len(self.per_image),
            "data_fingerprint": self.fingerprint,
            "priors": None if self.priors is None else dict(self.priors),
            "protocols": PROTOCOLS,
            "notes": list(self.notes),
            "scores": self.scores.as_dict(),
            "words": [self._word(one) for one in self.words],
            "landcover": None if self.landcover is None else [self._word(one) for one in self.landcover],
            "seen_and_unseen": self._seen_and_unseen(),
            "synonyms": [
                {
                    "word": one.word,
                    "synonym": one.synonym,
                    **one.scores.as_dict(),
                    "landcover": None if one.landcover is None else one.landcover.as_dict(),
                    "stacked.fscd": _none(one.fscd),
                }
                for one in self.synonyms
            ],
            "calibration": None if self.calibration is None else self.calibration.model_dump(mode="json"),
            "reliability": {
                "change": self.change_reliability.as_dict(),
                "classes": None if self.class_reliability is None else self.class_reliability.as_dict(),
            },
            "intervals": {
                name: {key: _none(value) for key, value in dataclasses.asdict(one).items()}
                for name, one in self.intervals.items()
            },
            "per_image": [{"name": image.name, **self._row(image)} for image in self.per_image],
        }

    def write(self, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Write scores.json, scores.csv (a row per image) and confusion.html into a folder, and say where they are.

        Raises:
            OutputError: the folder cannot be written.
        """
        texts = {
            SCORES_NAME: json.dumps(self.as_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
            ROWS_NAME: self._csv(),
            PAGE_NAME: confusion_page(self),
        }
        paths = []
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            for name, text in texts.items():
                paths.append(Path(folder) / name)
                paths[-1].write_text(text, encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{folder} cannot be written ({error.strerror}); choose another folder with -o") from None
        return tuple(paths)

    def _word(self, one: WordScores) -> dict[str, Any]:
        word = self.vocabulary.words[one.code - 1]
        asked = self.spoken[one.code - 1] if self.spoken else word
        return {"word": word, "asked": asked, "seen": word not in self.unseen, **one.as_dict()}

    def _seen_and_unseen(self) -> dict[str, Any] | None:
        """Mean F1 of both kinds of words, or None where training left none out."""
        if not self.unseen:
            return None
        kinds = {"words": self.words} | ({} if self.landcover is None else {"landcover": self.landcover})
        means = {
            name: {"seen": _none(self.mean_f1(rows, unseen=False)), "unseen": _none(self.mean_f1(rows, unseen=True))}
            for name, rows in kinds.items()
        }
        return {"unseen": list(self.unseen), "mean_f1": means}

    def _row(self, image: ImageScores) -> dict[str, float | int | None]:
        scores = image.confusion.scores()
        counts = {"pixels": scores.pixels, "ignored": scores.ignored}
        return {**counts, **{name: _none(value) for name, value in scores.headline().items()}}

    def _csv(self) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        rows = [(image.name, self._row(image)) for image in self.per_image]
        writer.writerow(["name", *rows[0][1]])
        for name, row in rows:
            writer.writerow([name, *("" if value is None else value for value in row.values())])
        return text.getvalue()


PROTOCOLS = {
    "binary": "changed or not, each pixel once",
    "stacked": "K + 1 codes, both dates on one pile (SECOND's 7-class; SCanNet, Bi-SRNet, open-cd)",
    "from_to": "K * K + 1 codes, one for each transition (SECOND's 37-class; ChangeMamba, torchange)",
    "before": "the class map of the first date",
    "after": "the class map of the second date",
}
"""What the first half of a score's name means."""


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
    calibration: Calibration | None = getattr(model, "calibration", None)
    limit = _limit(model, threshold, calibration)
    shown = threshold if threshold is not None else calibration.threshold(limit) if calibration else limit
    vocabulary = samples.vocabulary if model.card.classes else Vocabulary()
    asked = _wordings(vocabulary, words, synonyms or {}, classes=bool(model.card.classes))
    bound = [_bound(model, wording) for _, wording in asked]
    tally = _Tally(vocabulary, limit, calibration, len(bound), landcover=landcover and len(vocabulary) > 0)
    without = []
    with ExitStack() as stack:
        for one in bound:
            stack.enter_context(answering(one, bf16=bf16))
        for i in range(len(samples)):
            sample = samples[i]
            if _unlabelled(sample):
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


def _bound(model: ChangeModel, words: tuple[str, ...]) -> ChangeModel:
    """The model for these words; for none, as it is."""
    return model if not words or tuple(model.card.classes) == words else model.bind(words)


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
            cover = _likeliest(answer)
            confusion = score(_read_off(answer, self.limit, cover), sample, self.vocabulary)
            if i == 0:
                self.rows.append(ImageScores(sample.name, confusion))
                self._believe(answer, sample)
            elif confusion.n_classes:
                self.stacked[i] += confusion.stacked()
            if self.landcover:
                self.cover[i] += _cover(cover, sample, len(self.vocabulary))

    def _believe(self, answer: ChangeLogits, sample: Sample) -> None:
        found = self.calibration
        logits, happened = _change_pixels(answer, sample)
        heat = found.change_temperature if found else 1.0
        self.change += Reliability.of(sigmoid(logits, heat), happened)
        if len(self.vocabulary):
            for rows, named in _class_pixels(answer, sample):
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
            if _unlabelled(sample):
                without.append(sample.name)
            else:
                rows.append(ImageScores(sample.name, score(predict(model, sample, threshold), sample, vocabulary)))
            progress(i + 1, len(samples))
    return rows, without


class answering(AbstractContextManager[None]):  # noqa: N801
    """A network as it is when it answers: no gradients, normalisation from its statistics; as it was, afterwards."""

    def __init__(self, model: ChangeModel, *, bf16: bool = False) -> None:
        self._module = model if isinstance(model, nn.Module) else None
        self._modes = {} if self._module is None else {one: one.training for one in self._module.modules()}
        parameter = None if self._module is None else next(self._module.parameters(), None)
        kind = "cpu" if parameter is None else parameter.device.type
        self._contexts: list[AbstractContextManager[Any]] = [
            torch.inference_mode(),
            torch.autocast(kind, torch.bfloat16) if bf16 else nullcontext(),
        ]

    def __enter__(self) -> None:
        if self._module is not None:
            self._module.eval()
        for context in self._contexts:
            context.__enter__()

    def __exit__(self, *error: Any) -> None:
        for context in reversed(self._contexts):
            context.__exit__(*error)
        for module, training in self._modes.items():
            module.training = training


def predict(model: ChangeModel, sample: Sample, threshold: float) -> Prediction:
    """What the model says of one pair at its own size; call it inside `answering`.

    Args:
        model: bound.
        sample: labels do not matter.
        threshold: change probability as the model itself states it, uncalibrated.
    """
    answer = next(answers([model], sample))
    return _read_off(answer, threshold, _likeliest(answer))


def answers(models: Sequence[ChangeModel], sample: Sample) -> Iterator[ChangeLogits]:
    """What one model, bound to several lists of words, says of a pair; one answer ``(1, C, H, W)`` after another.

    The pair is padded below and at the right, by reflection, up to the model's stride, and the answers cropped back. A
    model that is an `Encoding` looks at the pair once. Call it inside `answering`.

    Raises:
        UsageError: the model wants masks, and the sample comes without.
    """
    first = models[0]
    height, width = sample.before.shape[:2]
    stride = first.card.stride
    margins = [(0, 0), (0, -height % stride), (0, -width % stride)]
    images = []
    for rgb in (sample.before, sample.after):
        scaled = np.moveaxis(rgb, 2, 0).astype(np.float32) / np.float32(255)
        images.append(torch.from_numpy(np.pad(scaled, margins, mode="reflect"))[None])
    before, after = images
    padded = (before.shape[2], before.shape[3])
    valid = torch.zeros(1, 1, *padded, dtype=torch.bool)
    valid[..., :height, :width] = True
    masks = _masks(first, sample, padded)
    once = len(models) > 1 and isinstance(first, Encoding) and masks is None
    seen = first.encode(before, after, valid) if once and isinstance(first, Encoding) else None
    for model in models:
        if seen is not None and isinstance(model, Encoding):
            answer = model.answer(seen, padded)
        else:
            answer = ask(model, before, after, valid, masks)
        dates = [None if one is None else one[..., :height, :width] for one in (answer.before, answer.after)]
        yield ChangeLogits(
            answer.change[..., :height, :width], dates[0], dates[1], unchanged_channel=answer.unchanged_channel
        )


def _masks(model: ChangeModel, sample: Sample, padded: tuple[int, int]) -> Tensor | None:
    """``(1, 2, W, H, Wd)`` bool, empty where the pair was padded; None for a model that takes no masks."""
    wanted = wanted_priors(model)
    if not wanted:
        return None
    if sample.priors is None:
        raise UsageError(
            f"{model.card.name} wants masks of {join_words(wanted)} and {sample.name} comes without any; "
            "give it samples with priors (wasnow priors DATASET)"
        )
    height, width = sample.priors.shape[-2:]
    margins = ((0, 0), (0, 0), (0, padded[0] - height), (0, padded[1] - width))
    return torch.from_numpy(np.pad(sample.priors, margins) > 0)[None]


Dates = tuple[NDArray[np.int64], NDArray[np.int64]]


def _likeliest(answer: ChangeLogits) -> Dates | None:
    """``(H, W)`` codes 1..K of both dates, changed or not; None for a model without classes."""
    if answer.land_cover is None:
        return None
    # The same as argmax, which takes five times as long along the first axis.
    first, second = (logits[0].max(0).indices.cpu().numpy() + 1 for logits in answer.land_cover)
    return first, second


def _read_off(answer: ChangeLogits, limit: float, cover: Dates | None) -> Prediction:
    """The map of an answer and its likeliest classes: changed where the uncalibrated probability is above ``limit``."""
    changed = (answer.change[0, 0].float().sigmoid() > limit).cpu().numpy()
    if cover is None:
        nothing: NDArray[np.unsignedinteger] = np.zeros(changed.shape, np.uint8)
        return Prediction(changed.astype(np.uint8), nothing, nothing)
    kind = np.uint8 if max(one.max(initial=0) for one in cover) < IGNORE else np.uint16
    before, after = (one.astype(kind) * changed for one in cover)
    return Prediction(changed.astype(np.uint8), before, after)


def _change_pixels(answer: ChangeLogits, sample: Sample) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """``(N,)`` logits of change where it is labelled, and whether it happened."""
    known = change_labels(sample)
    logits = answer.change[0, 0].float().cpu().numpy()
    return logits[known != IGNORE], known[known != IGNORE] == 1


def _class_pixels(answer: ChangeLogits, sample: Sample) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """``(N, K)`` logits and ``(N,)`` classes 0..K-1 of each date, where it changed and the labels name the class."""
    both = labels(sample)
    if answer.land_cover is None or both is None:
        return
    for logits, codes in zip(answer.land_cover, both, strict=True):
        named = (codes > 0) & (codes != IGNORE)
        chosen: Tensor = logits[0][:, torch.from_numpy(named).to(logits.device)]
        yield chosen.float().T.cpu().numpy(), codes[named].astype(np.int64) - 1


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


def _unlabelled(sample: Sample) -> bool:
    return sample.change is None and (sample.before_classes is None or sample.after_classes is None)


def labels(sample: Sample) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
    """Class codes of both dates as scores count them: 0 where unchanged, 255 where not labelled; None without classes.

    Land cover that is labelled everywhere (not only where it changed) is cut down by the change mask.
    """
    if sample.before_classes is None or sample.after_classes is None:
        return None
    dates = []
    for codes in (sample.before_classes, sample.after_classes):
        if sample.change is not None:
            codes = np.where(sample.change == 0, 0, np.where(sample.change == IGNORE, IGNORE, codes)).astype(np.uint8)
        dates.append(codes)
    return dates[0], dates[1]


def change_labels(sample: Sample) -> NDArray[np.uint8]:
    """``(H, W)`` 0 unchanged, 1 changed, 255 not labelled.

    Raises:
        InputError: the sample has no labels.
    """
    if sample.change is not None:
        return sample.change
    both = labels(sample)
    if both is None:
        raise InputError(f"{sample.name} has no labels; leave it out, or add its label files")
    hidden = (both[0] == IGNORE) | (both[1] == IGNORE)
    change: NDArray[np.uint8] = np.where(hidden, IGNORE, (both[0] > 0) | (both[1] > 0)).astype(np.uint8)
    return change


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


def summary_rows(evaluation: Evaluation, names: Sequence[str] = ()) -> list[tuple[str, str, str]]:
    """(score, value, interval) as text in per cent, undefined ones with their reason; for a table."""
    headline = evaluation.scores.headline()
    rows = []
    for name in names or headline:
        value = headline[name]
        if math.isnan(value):
            rows.append((name, "undefined", evaluation.scores.undefined.get(name, "")))
            continue
        interval = evaluation.intervals.get(name)
        between = "" if interval is None or math.isnan(interval.low) else _between(interval)
        rows.append((name, f"{100 * value:.2f}", between))
    return rows


WORD_HEAD = ("F1", "IoU", "precision", "recall", "note")
"""What `word_rows` and `synonym_rows` have after their names."""


def word_rows(evaluation: Evaluation, rows: Sequence[WordScores]) -> list[tuple[str, ...]]:
    """(class, `WORD_HEAD`) as text in per cent, with the means of seen and unseen words where some are unseen."""
    table = [(evaluation.called(one.code), *_one_word(one)) for one in rows]
    if evaluation.unseen:
        for title, unseen in (("mean of words seen in training", False), ("mean of words not seen", True)):
            mean = evaluation.mean_f1(rows, unseen=unseen)
            table.append((title, "-" if math.isnan(mean) else f"{100 * mean:.2f}", "", "", "", ""))
    return table


def synonym_rows(evaluation: Evaluation) -> list[tuple[str, ...]]:
    """(class, asked as, `WORD_HEAD`) as text: each class in its own word first, then in every other."""
    table = []
    told = set()
    for one in evaluation.synonyms:
        code = one.scores.code
        if code not in told:
            own = evaluation.spoken[code - 1] if evaluation.spoken else one.word
            table.append((one.word, own, *_one_word(evaluation.words[code - 1])))
            told.add(code)
        table.append((one.word, one.synonym, *_one_word(one.scores)))
    return table


def ece_rows(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """(what, ECE, how it was calibrated) as text in per cent."""
    found = evaluation.calibration
    rows = []
    for name, one, heat in (
        ("change", evaluation.change_reliability, found and found.change_temperature),
        ("classes", evaluation.class_reliability, found and found.class_temperature),
    ):
        if one is None:
            continue
        how = f"temperature {heat:.4g}, measured on {found.split}" if found and heat else "not calibrated"
        rows.append((name, f"{100 * one.ece:.2f}", how) if one.pixels else (name, "undefined", _NO_CLASS_PIXEL))
    return rows


_NO_CLASS_PIXEL = "no pixel is labelled"


def _one_word(one: WordScores) -> tuple[str, ...]:
    values = (one.f1, one.iou, one.precision, one.recall)
    # A word that is nowhere needs no further reasons.
    why = one.undefined.get("f1") or "; ".join(one.undefined.values())
    return (*("-" if math.isnan(value) else f"{100 * value:.2f}" for value in values), why)


def _between(interval: Interval) -> str:
    return f"{100 * interval.low:.2f} to {100 * interval.high:.2f}"


def _none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ---------------------------------------------------------------------------------------------------------- calibration


@dataclass(frozen=True)
class Calibrated:
    """Temperatures, and the reliability of the sampled pixels before and after them.

    Attributes:
        calibration: what goes into the checkpoint.
        change: reliability of P(change), before and after.
        classes: of the class probabilities; None without classes.
        sampled: pixels of change that the fit looked at.
        labelled: pixels of change that there are.
    """

    model: str
    calibration: Calibration
    change: tuple[Reliability, Reliability]
    classes: tuple[Reliability, Reliability] | None
    sampled: int
    labelled: int


def calibrate(
    model: ChangeModel,
    samples: Samples,
    *,
    split: str = "val",
    bf16: bool = False,
    sampled: int = SAMPLED,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Calibrated:
    """The temperatures under which the labels of these pairs are likeliest; the model is left as it was.

    Fit on pairs that neither training nor a test looks at. Classes are fitted where the labels say that it changed and
    name the class, both dates together, as the map shows classes only there.

    Args:
        model: bound to the words of the data, or one that can be.
        samples: pairs with labels; those without are passed over.
        split: what to call them.
        bf16: let the network compute in bfloat16 where that is safe.
        sampled: pixels to keep, evenly from all that are labelled; memory is bounded by it.
        seed: of the sample.
        progress: told (done, total) after each pair.

    Raises:
        VocabularyError: the model's classes are fixed and are others than the data's.
        InputError: no pixel is labelled, or a logit is no finite number.
    """
    vocabulary = samples.vocabulary if model.card.classes else Vocabulary()
    bound = _bound(model, vocabulary.words)
    change = Reservoir(sampled, seed)
    classes = Reservoir(max(1, min(sampled, _SAMPLED_CELLS // max(1, len(vocabulary)))), seed + 1)
    pairs = 0
    with answering(bound, bf16=bf16):
        for i in range(len(samples)):
            sample = samples[i]
            if not _unlabelled(sample):
                pairs += 1
                answer = next(answers([bound], sample))
                change.add(*_change_pixels(answer, sample))
                for logits, named in _class_pixels(answer, sample) if len(vocabulary) else ():
                    classes.add(logits, named)
            progress(i + 1, len(samples))
    if not change.passed:
        raise InputError(f"none of the {len(samples)} pairs of {split} has labels, so no temperature can be fitted")
    z, happened = change.sample
    heat = fit_temperature(z, happened)
    of_change = tuple(Reliability.of(sigmoid(z, one), happened) for one in (1.0, heat))
    class_heat, of_classes = 1.0, None
    if classes.passed:
        rows, named = classes.sample
        class_heat = fit_temperature(rows, named)
        right = rows.argmax(1) == named
        of_classes = (Reliability.of(surest(rows), right), Reliability.of(surest(rows, class_heat), right))
    found = Calibration(
        change_temperature=heat,
        class_temperature=class_heat,
        ece_change_before=of_change[0].ece,
        ece_change_after=of_change[1].ece,
        ece_class_before=of_classes[0].ece if of_classes else None,
        ece_class_after=of_classes[1].ece if of_classes else None,
        split=split,
        pairs=pairs,
        data_fingerprint=samples.fingerprint,
    )
    return Calibrated(model.card.name, found, (of_change[0], of_change[1]), of_classes, len(z), change.passed)
