"""Calibration of a model on labelled pairs by temperature scaling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wasnow.errors import InputError
from wasnow.evaluation.inference import bind_to, evaluation_mode, infer_pair
from wasnow.evaluation.labels import unlabelled
from wasnow.evaluation.pixels import change_pixels, class_pixels
from wasnow.evaluation.reliability import Reliability, max_probability, sigmoid
from wasnow.evaluation.temperature import PixelSample, fit_temperature
from wasnow.models.calibration import Calibration
from wasnow.vocabulary import Vocabulary

if TYPE_CHECKING:
    from wasnow.data.samples import Samples
    from wasnow.models.contract import ChangeModel

SAMPLED = 1 << 18
"""Pixels of a fit. The sampling error of the pixels is far below that of the images."""

_SAMPLED_CELLS = 1 << 24
"""Most class logits in a sample: 64 MiB; a vocabulary of hundreds of words gets fewer pixels."""


@dataclass(frozen=True)
class Calibrated:
    """Fitted temperatures, and the reliability of the sampled pixels before and after scaling.

    Attributes:
        model: its name.
        calibration: the value stored in the checkpoint.
        change: reliability of P(change), before and after.
        classes: of the class probabilities; None without classes.
        sampled: pixels with change labels used in the fit.
        labelled: all pixels with change labels.
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
    """Return the temperatures that maximise the likelihood of the labels; the model is not modified.

    Use pairs that are part of neither training nor test. The class temperature uses pixels of both dates that are
    labelled as changed with a class, because the map shows classes only where the ground changed.

    Args:
        model: with the classes of the data, or an open vocabulary.
        samples: labelled pairs; pairs without labels are skipped.
        split: their name in the report.
        bf16: compute in bfloat16 where it is safe.
        sampled: pixels in the fit, a uniform sample of all labelled ones.
        seed: random seed of the sample.
        progress: called with (done, total) after each pair.

    Raises:
        VocabularyError: the model has fixed classes that differ from those of the data.
        InputError: no pixel is labelled, or a logit is not finite.
    """
    vocabulary = samples.vocabulary if model.card.classes else Vocabulary()
    bound = bind_to(model, vocabulary.words)
    change = PixelSample(sampled, seed)
    classes = PixelSample(max(1, min(sampled, _SAMPLED_CELLS // max(1, len(vocabulary)))), seed + 1)
    pairs = 0
    with evaluation_mode(bound, bf16=bf16):
        for i in range(len(samples)):
            sample = samples[i]
            if not unlabelled(sample):
                pairs += 1
                output = next(infer_pair([bound], sample))
                change.add(*change_pixels(output, sample))
                for logits, named in class_pixels(output, sample) if len(vocabulary) else ():
                    classes.add(logits, named)
            progress(i + 1, len(samples))
    if not change.total:
        raise InputError(f"none of the {len(samples)} pairs of {split} has labels, so no temperature can be fitted")
    z, changed = change.sample
    change_temperature = fit_temperature(z, changed)
    of_change = tuple(Reliability.of(sigmoid(z, t), changed) for t in (1.0, change_temperature))
    class_temperature, of_classes = 1.0, None
    if classes.total:
        rows, named = classes.sample
        class_temperature = fit_temperature(rows, named)
        right = rows.argmax(1) == named
        of_classes = tuple(Reliability.of(max_probability(rows, t), right) for t in (1.0, class_temperature))
    found = Calibration(
        change_temperature=change_temperature,
        class_temperature=class_temperature,
        ece_change_before=of_change[0].ece,
        ece_change_after=of_change[1].ece,
        ece_class_before=of_classes[0].ece if of_classes else None,
        ece_class_after=of_classes[1].ece if of_classes else None,
        split=split,
        pairs=pairs,
        data_fingerprint=samples.fingerprint,
    )
    return Calibrated(
        model.card.name,
        found,
        (of_change[0], of_change[1]),
        None if of_classes is None else (of_classes[0], of_classes[1]),
        len(z),
        change.total,
    )
