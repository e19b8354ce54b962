"""A model and labelled pairs, to scores: every protocol, every image, and how sure the numbers are.

    Sample ─> pad by reflection to the model's stride ─> model ─> crop back ─> codes ─┐
    its labels ─────────────────────────────────────────────────────────────────────┴─> Confusion, one an image
                                                                                            │
    Evaluation(scores of the sum, rows per image, bootstrap intervals) <────────────────────┘

Images are answered whole, at their own size, one at a time: no resizing, no tiles, no test-time augmentation. The
counts are added over images before any score is taken (`wasnow.metrics`).
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from wasnow.errors import InputError, OutputError, UsageError
from wasnow.metrics import IGNORE, Confusion, Interval, Scores, bootstrap
from wasnow.training.page import confusion_page
from wasnow.vocabulary import Vocabulary

if TYPE_CHECKING:
    from wasnow.data.samples import Sample, Samples
    from wasnow.models.contract import ChangeModel

SCORES_NAME, ROWS_NAME, PAGE_NAME = "scores.json", "scores.csv", "confusion.html"


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
class Evaluation:
    """How well a model answers one set of pairs.

    Attributes:
        model: its name.
        split: which pairs: ``test``, ``val`` and so on.
        vocabulary: the words of the codes; empty where change alone is scored.
        threshold: change probability above which a pixel counted as changed.
        scores: of all images together.
        intervals: by score name; empty for fewer than two images.
        per_image: in the order of the data.
        fingerprint: of the data.
        notes: what a reader of the numbers must know: images without labels, say.
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
            "protocols": PROTOCOLS,
            "notes": list(self.notes),
            "scores": self.scores.as_dict(),
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
    bf16: bool = False,
    resamples: int = 1000,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Score a model on labelled pairs.

    A model with classes on labels of change alone is scored on change alone, and so is one without classes on labels
    with them. Pairs without any label are left out, and named in the notes.

    Args:
        model: bound or not; it is bound to the words of the data if it answers with others.
        samples: pairs with labels.
        split: what to call them.
        threshold: change probability; None: the model's own.
        bf16: let the network compute in bfloat16 where that is safe.
        resamples: of the bootstrap for intervals; 0 for none.
        progress: told (done, total) after each pair.

    Raises:
        VocabularyError: the model's classes are fixed and are others than the data's.
        InputError: no pair has labels.
        UsageError: the threshold lies outside 0..1.
    """
    limit = model.card.threshold if threshold is None else threshold
    if not 0 <= limit <= 1:
        raise UsageError(f"threshold {limit} is no probability; give a number from 0 to 1")
    vocabulary = samples.vocabulary if model.card.classes else Vocabulary()
    if len(vocabulary) and tuple(model.card.classes) != vocabulary.words:
        model = model.bind(vocabulary.words)
    rows, without = count(model, samples, vocabulary, threshold=limit, bf16=bf16, progress=progress)
    if not rows:
        raise InputError(f"none of the {len(samples)} pairs of {split} has labels, so there is nothing to score")
    confusions = [row.confusion for row in rows]
    notes = []
    if without:
        notes.append(f"{len(without)} of {len(samples)} pairs have no labels and are left out ({without[0]}, ...)")
    return Evaluation(
        model=model.card.name,
        split=split,
        vocabulary=vocabulary,
        threshold=limit,
        scores=Confusion.total(confusions).scores(),
        intervals=bootstrap(confusions, n=resamples) if len(rows) > 1 and resamples else {},
        per_image=tuple(rows),
        fingerprint=samples.fingerprint,
        notes=tuple(notes),
    )


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
            if sample.change is None and (sample.before_classes is None or sample.after_classes is None):
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

    The pair is padded below and at the right, by reflection, up to the model's stride, and the answer cropped back.
    """
    height, width = sample.before.shape[:2]
    stride = model.card.stride
    margins = [(0, 0), (0, -height % stride), (0, -width % stride)]
    images = []
    for rgb in (sample.before, sample.after):
        scaled = np.moveaxis(rgb, 2, 0).astype(np.float32) / np.float32(255)
        images.append(torch.from_numpy(np.pad(scaled, margins, mode="reflect"))[None])
    valid = torch.zeros(1, 1, *images[0].shape[2:], dtype=torch.bool)
    valid[..., :height, :width] = True
    answer = model(images[0], images[1], valid)
    changed = (answer.change[0, 0, :height, :width].float().sigmoid() > threshold).cpu().numpy()
    nothing: NDArray[np.unsignedinteger] = np.zeros((height, width), np.uint8)
    land_cover = answer.land_cover
    if land_cover is None:
        return Prediction(changed.astype(np.uint8), nothing, nothing)
    first, second = (logits[0, :, :height, :width].argmax(0).cpu().numpy() for logits in land_cover)
    codes = Vocabulary(model.card.classes).encode(changed, first, second)
    return Prediction(changed.astype(np.uint8), codes[0], codes[1])


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


def _between(interval: Interval) -> str:
    return f"{100 * interval.low:.2f} to {100 * interval.high:.2f}"


def _none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
