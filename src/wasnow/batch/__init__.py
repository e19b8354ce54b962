"""Detect change in many pairs: read and check the list, run each pair, write summaries.

table.py, names.py ──> run.py ──> summary.py
"""

from wasnow.batch.run import detect_pairs
from wasnow.batch.summary import PairOutcome, PairsSummary
from wasnow.batch.table import PairRow, read_pairs

__all__ = ["PairOutcome", "PairRow", "PairsSummary", "detect_pairs", "read_pairs"]
