"""Files of an evaluation: scores.json, scores.csv (one row per image) and confusion.html."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

from wasnow.evaluation.outcome import Evaluation
from wasnow.evaluation.page import confusion_page
from wasnow.storage.atomic import write_atomically
from wasnow.storage.ownership import claim, is_record

SCORES_NAME, ROWS_NAME, PAGE_NAME = "scores.json", "scores.csv", "confusion.html"


def write_evaluation(evaluation: Evaluation, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
    """Write the three files into a folder and return their paths.

    Raises:
        OutputError: the folder cannot be written, or contains files of these names that no evaluation made.
    """
    texts = {
        SCORES_NAME: json.dumps(evaluation.as_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        ROWS_NAME: _csv(evaluation),
        PAGE_NAME: confusion_page(evaluation),
    }
    place = Path(folder)
    earlier = is_record(place / SCORES_NAME, "model", "protocols", "scores")
    claim(place, tuple(texts), proven=tuple(texts) if earlier else ())
    for name, text in texts.items():
        write_atomically(place / name, text.encode())
    return tuple(place / name for name in texts)


def _csv(evaluation: Evaluation) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    rows = [(image.name, evaluation.row(image)) for image in evaluation.per_image]
    writer.writerow(["name", *rows[0][1]])
    for name, row in rows:
        writer.writerow([name, *("" if value is None else value for value in row.values())])
    return text.getvalue()
