"""A model and labelled pairs, to scores: every protocol, every image, and how sure the numbers are.

    Sample ─> pad by reflection to the model's stride ─> model ─> crop back ─> codes ─┐
    its labels ─────────────────────────────────────────────────────────────────────┴─> Confusion, one an image
                                                                                            │
    Evaluation(scores of the sum, rows per image, bootstrap intervals) <────────────────────┘

truth          what the labels of a pair say, as scores count them
asking         what a model says of a pair, at its own size
scoring        both against each other, pair by pair: `evaluate`, and `count` for those who need counts alone
outcome        `Evaluation`: the scores as an object
rows           the same as rows of text
pixels         what probabilities are held against
temperatures   those under which labels are likeliest: `calibrate`
files          the same as files
page           the pages of an evaluation and of a calibration

Images are answered whole, at their own size, one at a time: no resizing, no tiles, no test-time augmentation. The
counts are added over images before any score is taken (`wasnow.evaluation.metrics`).

A model with prior masks (`wasnow.models.contract.GuidedModel`) gets those of the samples, see `wasnow.priors.samples`.

A model of an open vocabulary is also asked in other words (``words``, ``synonyms``): it looks at each pair once, and
predicts from the same features for each list (`wasnow.models.contract.FeatureModel`). Expected calibration error is
measured alongside (`wasnow.evaluation.calibration`), and `calibrate` fits temperatures.
"""

from __future__ import annotations

from wasnow.evaluation.files import write_evaluation
from wasnow.evaluation.inference import Prediction, answering, answers, predict
from wasnow.evaluation.labels import change_labels, labels
from wasnow.evaluation.outcome import PROTOCOLS, Evaluation, ImageScores, SynonymScores
from wasnow.evaluation.scoring import count, evaluate, score
from wasnow.evaluation.temperatures import Calibrated, calibrate

__all__ = [
    "PROTOCOLS",
    "Calibrated",
    "Evaluation",
    "ImageScores",
    "Prediction",
    "SynonymScores",
    "answering",
    "answers",
    "calibrate",
    "change_labels",
    "count",
    "evaluate",
    "labels",
    "predict",
    "score",
    "write_evaluation",
]
