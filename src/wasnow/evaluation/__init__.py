"""Evaluation of models on labelled pairs: scores in every protocol, per image, with confidence intervals.

    Sample ─> pad by reflection to the stride of the model ─> model ─> crop ─> codes ─┐
    labels ───────────────────────────────────────────────────────────────────────────┴─> Confusion, one per image
                                                                                               │
    Evaluation(scores of the sum, rows per image, bootstrap intervals) <───────────────────────┘

    labels        labels of a pair in the form that scores use
    inference     predictions for a pair at its full size
    scoring       `evaluate`, and `count` for counts only
    metrics       scores from counts
    outcome       `Evaluation`: the result as a value
    rows          the result as rows of text
    pixels        logits and labels of the labelled pixels
    reliability   confidence against accuracy
    temperature   temperature scaling
    calibrate     temperatures of a model on labelled pairs
    files         the result as files
    page          pages of an evaluation and of a calibration

Images are processed whole, at full size, one at a time: no resizing, no tiles, no test-time augmentation. Counts are
summed over images before scores are computed.

A model that needs prior masks (`wasnow.models.contract.GuidedModel`) gets those of the samples, see
`wasnow.priors.samples`. A model with an open vocabulary can be evaluated with other prompts (``words``, ``synonyms``);
it encodes each pair once (`wasnow.models.contract.FeatureModel`).
"""

from __future__ import annotations

from wasnow.evaluation.calibrate import Calibrated, calibrate
from wasnow.evaluation.files import write_evaluation
from wasnow.evaluation.inference import Prediction, evaluation_mode, infer_pair, predict
from wasnow.evaluation.labels import change_labels, labels
from wasnow.evaluation.outcome import PROTOCOLS, Evaluation, ImageScores, SynonymScores
from wasnow.evaluation.scoring import count, evaluate, score

__all__ = [
    "PROTOCOLS",
    "Calibrated",
    "Evaluation",
    "ImageScores",
    "Prediction",
    "SynonymScores",
    "calibrate",
    "change_labels",
    "count",
    "evaluate",
    "evaluation_mode",
    "infer_pair",
    "labels",
    "predict",
    "score",
    "write_evaluation",
]
