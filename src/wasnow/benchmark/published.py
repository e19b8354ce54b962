"""Published figures, shown separately from measured ones.

Only figures that are available from the paper itself are listed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """One row of a published table, in per cent as printed."""

    method: str
    oa: float
    f1: float
    miou: float
    sek: float


@dataclass(frozen=True, slots=True)
class PublishedTable:
    """Rows of a published table.

    Attributes:
        title: name of the table.
        source: the paper.
        data: dataset of the figures.
        note: how to compare the figures with measured ones.
        rows: the available rows.
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
        "F1 and SeK are those of the from-to protocol (37 codes on SECOND) and compare with Fscd and SeK from-to here. "
        "The OA column mixes definitions and compares with no column here. The paper states no optimizer, schedule or "
        "augmentation. Rows of other methods are omitted because their figures are not available to us."
    ),
    rows=(
        PublishedRow("Semantic-CD", oa=91.31, f1=56.11, miou=75.10, sek=23.85),
        PublishedRow("Semantic-CD, baseline without prompter", oa=89.38, f1=54.91, miou=72.70, sek=21.64),
    ),
)
