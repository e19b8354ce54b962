"""Published figures, shown separately from measured ones.

Only figures that are available from the paper itself are listed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """One row of a published table, in per cent as printed; None where no figure is available."""

    method: str
    oa: float | None = None
    f1: float | None = None
    miou: float | None = None
    sek: float | None = None


@dataclass(frozen=True, slots=True)
class PublishedTable:
    """Rows of a published table.

    Attributes:
        title: name of the table.
        source: the paper.
        data: dataset of the figures.
        note: how to compare the figures with measured ones.
        heads: of the columns, with their protocol.
        rows: the rows.
    """

    title: str
    source: str
    data: str
    note: str
    heads: tuple[str, str, str, str]
    rows: tuple[PublishedRow, ...]


SEMANTIC_CD = PublishedTable(
    title="Table I of Semantic-CD",
    source="Zhu et al., Semantic-CD, arXiv 2501.06808",
    data="SECOND: 2968 pairs to train on, 1694 to test",
    note=(
        "F1 and SeK are those of the from-to protocol (37 codes on SECOND) and compare with Fscd and SeK from-to here. "
        "The OA column mixes definitions and compares with no column here. The paper states no optimizer, schedule or "
        "augmentation."
    ),
    heads=("OA, mixed", "F1, from-to", "mIoU", "SeK, from-to"),
    rows=(
        PublishedRow("HRSCD", oa=83.88, f1=47.69, miou=70.58, sek=16.81),
        PublishedRow("ChangeMask", oa=85.53, f1=50.54, miou=71.39, sek=18.36),
        PublishedRow("SSCD-l", oa=85.62, f1=52.80, miou=72.14, sek=20.15),
        PublishedRow("Bi-SRNet", oa=85.80, f1=53.59, miou=72.69, sek=21.18),
        PublishedRow("TED", oa=85.50, f1=52.61, miou=72.19, sek=20.29),
        PublishedRow("SMNet", oa=84.29, f1=50.48, miou=71.62, sek=18.98),
        PublishedRow("SCanNet", oa=86.13, f1=55.21, miou=72.48, sek=21.57),
        PublishedRow("MambaSCD", oa=90.36, f1=55.32, miou=73.68, sek=22.92),
        PublishedRow("Semantic-CD, baseline without prompter", oa=89.38, f1=54.91, miou=72.70, sek=21.64),
        PublishedRow("Semantic-CD", oa=91.31, f1=56.11, miou=75.10, sek=23.85),
    ),
)

LATER = PublishedTable(
    title="Later methods on SECOND",
    source="PerASCD and Mamba-FCS, as reported by their authors",
    data="SECOND, stacked protocol (7 codes)",
    note=(
        "These figures compare with the stacked columns here and not with Table I of Semantic-CD. "
        "A re-scoring of the released Mamba-FCS weights gives SeK 25.26. Whether epochs were selected on the test "
        "pairs is not verified."
    ),
    heads=("OA", "Fscd", "mIoU", "SeK"),
    rows=(
        PublishedRow("PerASCD", oa=88.70, f1=66.41, miou=74.33, sek=26.11),
        PublishedRow("Mamba-FCS", sek=25.50),
    ),
)
