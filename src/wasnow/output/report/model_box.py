"""What a report says about the model: calibration, limits of its weights, settings."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from wasnow.output.record import CalibrationRecord, RunRecord
from wasnow.vocabulary import join_words

LARGER_RUN = "runs/semantic-cd"
"""The folder of the training run that the box on the small model suggests."""


@dataclass(frozen=True, slots=True)
class About:
    """The box on the weights: a headline, sentences, and commands that lead to a larger model."""

    title: str
    sentences: tuple[str, ...]
    commands: tuple[str, ...]


def confidence_text(calibration: CalibrationRecord | None) -> str:
    """Return one line on the calibration of the probabilities."""
    if calibration is None:
        return "uncalibrated: use probabilities for ranking only"
    found = calibration
    errors = [
        (name, before, after)
        for name, before, after in (
            ("change", found.ece_change_before, found.ece_change_after),
            ("classes", found.ece_class_before, found.ece_class_after),
        )
        if before is not None and after is not None
    ]
    scores = "; ".join(f"{name} ECE {100 * before:.1f} % → {100 * after:.1f} %" for name, before, after in errors)
    pairs = f"{found.pairs} pair{'' if found.pairs == 1 else 's'}"
    other = "" if found.for_these_classes else "; with other class words, so class probabilities are approximate"
    return f"calibrated on {found.split} ({pairs}){': ' if scores else ''}{scores}{other}"


def about_model(record: RunRecord) -> About | None:
    """Return the box on training data and limits of the weights; None if they come without a description."""
    model, gsd_m = record.model, record.working_grid.gsd_m
    if model.about is None:
        return None
    sentences = [" ".join(model.about.split())]
    if model.gsd_range_m is not None:
        here = f"; this run used {gsd_m:.3g} m" if gsd_m is not None else "; the pixel size of this run is unknown"
        low, high = model.gsd_range_m
        sentences.append(f"It was evaluated at pixel sizes of {low:g} to {high:g} m{here}.")
    if not model.shipped:
        return About("About this model", tuple(sentences), ())
    own = model.classes[: -1 if model.other_words else None]
    detect = ["wasnow", "detect", record.before.path, record.after.path, "-o", "out-larger", "--model", LARGER_RUN]
    return About(
        "Made with the small model that comes with wasnow",
        (*sentences, "A larger model, once trained, is more accurate:"),
        (
            "wasnow weights get remoteclip-vit-l-14",
            f"wasnow train semantic-cd-second --data SECOND -o {LARGER_RUN}",
            shlex.join([*detect, "--classes", ", ".join(own)]),
        ),
    )


def other_text(record: RunRecord) -> str | None:
    """Return a sentence on the class "other"; None for a run without it."""
    model = record.model
    if not model.other_words:
        return None
    return (
        f"“{model.classes[-1]}” stands for land cover outside the given class words; of the classes that this model "
        f"was trained on: {join_words(model.other_words)}."
    )


def model_facts(record: RunRecord) -> list[tuple[str, str]]:
    """Return name and value of the settings of the model."""
    model, features = record.model, record.features
    facts = [
        ("classes", ", ".join(model.classes) or "none: change only"),
        ("threshold", f"{model.threshold:g} ({model.threshold_from})"),
    ]
    if model.class_thresholds:
        own = ", ".join(f"{word} {value:g}" for word, value in model.class_thresholds.items())
        facts.append(("class thresholds", own))
    facts.append(("confidence", confidence_text(model.calibration)))
    if features is not None:
        total = features.tiles_reused + features.tiles_encoded
        facts.append(("image features", f"{features.tiles_reused} of {total} tiles from the cache {features.folder}"))
    facts.append(("fingerprint", model.fingerprint))
    return facts
