"""Scores of predicted change against labels. All scores are computed from pixel counts.

    predicted (before, after) ─┐                              ┌─> binary    changed or not, one count per pixel
    labelled  (before, after) ─┴─> Confusion ──(+ images)──> ─┼─> stacked   class codes, each date counted separately
                                   one joint histogram        └─> from_to   one code per pixel for the transition

    margins     row sums, column sums and diagonal of a confusion matrix, and the equations on them
    scores      the scores as values
    counts      `Confusion`: the counts of one image or of many
    bootstrap   confidence intervals over images, and differences of two methods

A map holds class codes as `Vocabulary.encode` writes them: 0 no change, 1..K the classes. The literature uses two
protocols under the same names. They differ by many points; both are always computed and never mixed:

    stacked   K + 1 codes, both dates pooled                        SECOND's "7-class"   (SCanNet, Bi-SRNet, open-cd)
    from_to   K * K + 1 codes, (before - 1) * K + after             SECOND's "37-class"  (ChangeMamba, torchange)

**A pixel with a class at one date and 0 at the other** never comes from `Vocabulary.encode`, but some models predict
"unchanged" inside their own change mask. Such a pixel counts as changed. ``stacked`` uses each date as given.
``from_to`` gives it a separate code after the K * K regular ones, because the formula would yield a negative code or
the code of another transition; it is therefore correct only if the label is identical. `Scores.incomplete` counts
these pixels.

**Counts are summed over images before a score is computed.** The mean of per-image scores is a different quantity (SeK
moves by 3 to 7 points) and is not offered; `Confusion.scores` of one image gives per-image rows.

Scores are fractions, 0..1 or -1..1, not per cent. An undefined score is NaN, and `Scores.undefined` gives the reason.
The package uses numpy only: no torch, no files.
"""

from __future__ import annotations

from wasnow.evaluation.metrics.bootstrap import Difference, Interval, bootstrap, paired_bootstrap
from wasnow.evaluation.metrics.counts import IGNORE, Confusion
from wasnow.evaluation.metrics.scores import (
    BinaryScores,
    CodeScores,
    DateScores,
    ProtocolScores,
    Scores,
    WordScores,
    protocol_scores,
    word_scores,
)

__all__ = [
    "IGNORE",
    "BinaryScores",
    "CodeScores",
    "Confusion",
    "DateScores",
    "Difference",
    "Interval",
    "ProtocolScores",
    "Scores",
    "WordScores",
    "bootstrap",
    "paired_bootstrap",
    "protocol_scores",
    "word_scores",
]
