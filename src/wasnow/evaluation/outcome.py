"""The result of an evaluation: scores of one model on one set of pairs.

Evaluation ─> scores.json, scores.csv (one row per image), confusion.html
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wasnow.evaluation.metrics import Confusion, Interval, Scores, WordScores
from wasnow.evaluation.reliability import Reliability
from wasnow.models.calibration import Calibration
from wasnow.vocabulary import Vocabulary

PROTOCOLS = {
    "binary": "changed or not, one count per pixel",
    "stacked": "K + 1 codes, both dates pooled (SECOND's 7-class; SCanNet, Bi-SRNet, open-cd)",
    "from_to": "K * K + 1 codes, one per transition (SECOND's 37-class; ChangeMamba, torchange)",
    "before": "the class map of the first date",
    "after": "the class map of the second date",
}
"""Meaning of the first part of a score name."""


@dataclass(frozen=True, slots=True)
class ImageScores:
    """Name and counts of one image; `Confusion.scores` gives its scores."""

    name: str
    confusion: Confusion


@dataclass(frozen=True)
class SynonymScores:
    """Scores of a class if the prompt of that class is replaced by a synonym.

    Attributes:
        word: class word of the data.
        synonym: the replacement; averaged phrasings are joined by ``|``.
        scores: of that class, as in `Evaluation.words`.
        landcover: of that class, as in `Evaluation.landcover`; None if that is None.
        fscd: `ProtocolScores.fscd`, "stacked", of the whole map with this word.
    """

    word: str
    synonym: str
    scores: WordScores
    landcover: WordScores | None
    fscd: float


@dataclass(frozen=True)
class Evaluation:
    """Scores of one model on one set of pairs.

    Attributes:
        model: its name.
        split: name of the pairs: ``test``, ``val``, ...
        vocabulary: class words; empty if only change is scored.
        threshold: change probability (calibrated, if the model is) above which a pixel is changed.
        scores: of all images together.
        intervals: by score name; empty for fewer than two images.
        per_image: in the order of the data.
        fingerprint: of the data.
        notes: remarks for the reader, such as images without labels.
        words: each class against the others where the labels have a class; empty without classes.
        landcover: as ``words``, of the class maps before the change mask, on all pixels with a class label; None if not
            requested.
        prompts: the words given to the model, in the order of the vocabulary; empty: the words of the data.
        unseen: words of the vocabulary that were withheld from training.
        synonyms: scores of classes with other prompts.
        change_reliability: P(change) against how often it changed.
        class_reliability: reliability of the class probability on pixels with a class label; None without classes.
        calibration: of the model, applied to all probabilities above.
        priors: origin of the prior masks (`wasnow.priors.store.PairMasks.origin`); None without.
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
    prompts: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    synonyms: tuple[SynonymScores, ...] = ()
    change_reliability: Reliability = field(default_factory=Reliability.empty)
    class_reliability: Reliability | None = None
    calibration: Calibration | None = None
    priors: Mapping[str, Any] | None = None

    def class_label(self, code: int) -> str:
        """Return the name of class ``code`` for a table, such as ``building (prompt house)``."""
        word = self.vocabulary.words[code - 1]
        prompt = self.prompts[code - 1] if self.prompts else word
        remarks = [f"prompt {prompt}"] if prompt != word else []
        remarks += ["not seen in training"] if word in self.unseen else []
        return f"{word} ({', '.join(remarks)})" if remarks else word

    def mean_f1(self, rows: Sequence[WordScores], *, unseen: bool) -> float:
        """Return the mean F1 of the withheld words, or of the others; NaN if none is defined.

        Args:
            rows: scores of words.
            unseen: whether to average the withheld words.
        """
        values = [
            one.f1
            for one in rows
            if (self.vocabulary.words[one.code - 1] in self.unseen) == unseen and not math.isnan(one.f1)
        ]
        return sum(values) / len(values) if values else math.nan

    @property
    def confusion(self) -> Confusion:
        """Counts of all images."""
        return Confusion.total([image.confusion for image in self.per_image])

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values; undefined scores are None."""
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
            "per_image": [{"name": image.name, **self.row(image)} for image in self.per_image],
        }

    def _word(self, one: WordScores) -> dict[str, Any]:
        word = self.vocabulary.words[one.code - 1]
        prompt = self.prompts[one.code - 1] if self.prompts else word
        return {"word": word, "asked": prompt, "seen": word not in self.unseen, **one.as_dict()}

    def _seen_and_unseen(self) -> dict[str, Any] | None:
        """Return the mean F1 of seen and of withheld words; None if no word was withheld."""
        if not self.unseen:
            return None
        kinds = {"words": self.words} | ({} if self.landcover is None else {"landcover": self.landcover})
        means = {
            name: {"seen": _none(self.mean_f1(rows, unseen=False)), "unseen": _none(self.mean_f1(rows, unseen=True))}
            for name, rows in kinds.items()
        }
        return {"unseen": list(self.unseen), "mean_f1": means}

    def row(self, image: ImageScores) -> dict[str, float | int | None]:
        """Return the scores of one image by name, with its pixel counts; undefined scores are None."""
        scores = image.confusion.scores()
        counts = {"pixels": scores.pixels, "ignored": scores.ignored}
        return {**counts, **{name: _none(value) for name, value in scores.headline().items()}}


def _none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
