"""Many pairs from one list: read and checked, worked through, summed up.

table.py ──> run.py ──> summary.py
"""

from wasnow.batch.run import detect_pairs
from wasnow.batch.summary import PairOutcome, PairsSummary
from wasnow.batch.table import PairRow, read_pairs

__all__ = ["PairOutcome", "PairRow", "PairsSummary", "detect_pairs", "read_pairs"]
