"""How well a model answers one set of pairs: the scores as an object, and as files.

Evaluation ─> scores.json, scores.csv (a row per image), confusion.html
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wasnow.evaluation.calibration import Reliability
from wasnow.evaluation.metrics import Confusion, Interval, Scores, WordScores
from wasnow.models.calibration import Calibration
from wasnow.vocabulary import Vocabulary

PROTOCOLS = {
    "binary": "changed or not, each pixel once",
    "stacked": "K + 1 codes, both dates on one pile (SECOND's 7-class; SCanNet, Bi-SRNet, open-cd)",
    "from_to": "K * K + 1 codes, one for each transition (SECOND's 37-class; ChangeMamba, torchange)",
    "before": "the class map of the first date",
    "after": "the class map of the second date",
}
"""What the first half of a score's name means."""


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
            "per_image": [{"name": image.name, **self.row(image)} for image in self.per_image],
        }

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

    def row(self, image: ImageScores) -> dict[str, float | int | None]:
        """The scores of one image, by name, and how many pixels they are of; undefined ones are None."""
        scores = image.confusion.scores()
        counts = {"pixels": scores.pixels, "ignored": scores.ignored}
        return {**counts, **{name: _none(value) for name, value in scores.headline().items()}}


def _none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
