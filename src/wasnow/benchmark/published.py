"""What a paper reports for itself, to be shown apart from what is measured here, and never mixed with it.

Only figures that we have from the paper are listed. A row without a figure here is not a row without a paper.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """One line of a paper's table, in per cent as printed."""

    method: str
    oa: float
    f1: float
    miou: float
    sek: float


@dataclass(frozen=True, slots=True)
class PublishedTable:
    """Some lines of a paper's table.

    Attributes:
        title: which table.
        source: of which paper.
        data: what it was measured on.
        note: how its numbers are to be read beside ours.
        rows: those that we have.
    """

    title: str
    source: str
    data: str
    note: str
    rows: tuple[PublishedRow, ...]


SEMANTIC_CD = PublishedTable(
    title="Table I of Semantic-CD",
    source="Zhu et al., Semantic-CD, arXiv 2501.06808",
    data="SECOND: 2968 pairs to train on, 1694 to test",
    note=(
        "Its F1 and SeK are those of the from-to protocol (37 codes on SECOND), so they stand beside Fscd and SeK "
        '"from-to" here; its OA column mixes definitions and stands beside none. The paper gives no optimizer, '
        "schedule or augmentation. Its rows for other methods are left out, because we do not have their figures."
    ),
    rows=(
        PublishedRow("Semantic-CD", oa=91.31, f1=56.11, miou=75.10, sek=23.85),
        PublishedRow("Semantic-CD, baseline without prompter", oa=89.38, f1=54.91, miou=72.70, sek=21.64),
    ),
)
