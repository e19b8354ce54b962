"""Write samples with classes in the layout of SECOND, which most public code for the task reads.

    DIR/train/im1/000000.png    DIR/train/label1/000000.png    0 unchanged, 1..K classes, 255 no label
    DIR/train/im2/000000.png    DIR/train/label2/000000.png
    DIR/dataset.yaml            the meaning of the values; written last, so a folder without it is incomplete

The same samples give the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from wasnow.data.images import write_png
from wasnow.data.layouts.described import FILE_NAME, NO_LABEL_WORD, UNCHANGED_WORD
from wasnow.data.samples import Samples
from wasnow.errors import OutputError, UsageError
from wasnow.storage.atomic import output_errors
from wasnow.storage.ownership import claim
from wasnow.vocabulary import NO_LABEL

Progress = Callable[[str, int, int], None]

AFTER_LABEL = "{split}/label2/{name}.png"
"""Pattern of labels in the description; it tells an export from other datasets."""


def export_second(
    splits: Mapping[str, Samples],
    folder: Path,
    *,
    name: str = "",
    provenance: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    progress: Progress = lambda phase, done, total: None,
) -> Path:
    """Write samples as a dataset folder that `wasnow.data.dataset.open_dataset` reads back unchanged.

    Args:
        splits: ``train``, ``val``, ... -> samples with class labels, all with the same vocabulary.
        folder: new, or empty.
        name: of the dataset, for its description.
        provenance: how the samples were made; written as comments at the top of the description.
        overwrite: write into a folder that holds files; those of an earlier export are replaced.
        progress: called with ``"export"``, samples written, and their number.

    Returns:
        The path of the description, ``folder/dataset.yaml``.

    Raises:
        OutputError: the folder is not empty, cannot be written, or holds other files under the names of the export.
        UsageError: samples without classes, or with different classes.
    """
    vocabularies = {samples.vocabulary for samples in splits.values()}
    if len(vocabularies) != 1 or not next(iter(vocabularies)).words:
        raise UsageError("the layout of SECOND needs the same class words in all splits; these have none, or several")
    words = vocabularies.pop().words
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())) and not overwrite:
        raise OutputError(f"{folder} is not empty. Choose a new folder, or pass --overwrite")
    described = folder / FILE_NAME
    claim(folder, (FILE_NAME, *splits), proven=(FILE_NAME, *splits) if _is_export(described) else ())
    with output_errors(folder):
        described.unlink(missing_ok=True)
        for split in splits:
            for role in ("im1", "im2", "label1", "label2"):
                (folder / split / role).mkdir(parents=True, exist_ok=True)
    jobs = [(split, samples, index) for split, samples in splits.items() for index in range(len(samples))]

    def write(job: tuple[str, Samples, int]) -> None:
        split, samples, index = job
        sample = samples[index]
        if sample.before_classes is None or sample.after_classes is None:
            raise UsageError(f"{sample.name} has no class labels; the layout of SECOND needs them")
        files = {
            "im1": sample.before,
            "im2": sample.after,
            "label1": sample.before_classes,
            "label2": sample.after_classes,
        }
        for role, values in files.items():
            path = folder / split / role / f"{sample.name.replace('/', '_')}.png"
            with output_errors(path):
                write_png(path, np.asarray(values))

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for done, _ in enumerate(pool.map(write, jobs), 1):
            progress("export", done, len(jobs))
    values: dict[int, str] = {0: UNCHANGED_WORD, **dict(enumerate(words, 1)), NO_LABEL: NO_LABEL_WORD}
    content: dict[str, Any] = {
        "name": name,
        "before": "{split}/im1/{name}.png",
        "after": "{split}/im2/{name}.png",
        "before_label": "{split}/label1/{name}.png",
        "after_label": AFTER_LABEL,
        "classes": list(words),
        "values": values,
    }
    notes = [f"# {key}: {value}" for key, value in (provenance or {}).items()]
    text = "\n".join([*notes, yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)])
    with output_errors(described):
        described.write_text(text, encoding="utf-8")
    return described


def _is_export(path: Path) -> bool:
    """Whether a description is that of an earlier export."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return False
    return isinstance(content, dict) and content.get("after_label") == AFTER_LABEL
