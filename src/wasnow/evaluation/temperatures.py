"""The temperatures under which labels are likeliest (`wasnow.evaluation.calibration` says why)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wasnow.errors import InputError
from wasnow.evaluation.calibration import Reliability, Reservoir, fit_temperature, sigmoid, surest
from wasnow.evaluation.inference import answering, answers, bound_to
from wasnow.evaluation.labels import unlabelled
from wasnow.evaluation.pixels import change_pixels, class_pixels
from wasnow.models.calibration import Calibration
from wasnow.vocabulary import Vocabulary

if TYPE_CHECKING:
    from wasnow.data.samples import Samples
    from wasnow.models.contract import ChangeModel

SAMPLED = 1 << 18
"""Pixels that temperatures are fitted to: the error of the fit is far below that of having few images."""

_SAMPLED_CELLS = 1 << 24
"""Class logits that a sample holds at most: 64 MiB; a vocabulary of hundreds is sampled more thinly."""


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
    bound = bound_to(model, vocabulary.words)
    change = Reservoir(sampled, seed)
    classes = Reservoir(max(1, min(sampled, _SAMPLED_CELLS // max(1, len(vocabulary)))), seed + 1)
    pairs = 0
    with answering(bound, bf16=bf16):
        for i in range(len(samples)):
            sample = samples[i]
            if not unlabelled(sample):
                pairs += 1
                answer = next(answers([bound], sample))
                change.add(*change_pixels(answer, sample))
                for logits, named in class_pixels(answer, sample) if len(vocabulary) else ():
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
