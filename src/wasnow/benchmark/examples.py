"""Shown pairs of a benchmark: images and labels, and the predictions of every row."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from wasnow.benchmark.job import EXAMPLES_NAME, maps_png
from wasnow.benchmark.page import Example, Picture
from wasnow.benchmark.pairs import Pairs
from wasnow.benchmark.table import Table
from wasnow.evaluation import change_labels, labels
from wasnow.output.report.codes import NO_LABEL_COLOR, SIDE, dates_png
from wasnow.output.report.pictures import data_uri, photo_jpeg
from wasnow.training.run_folder import RunFolder
from wasnow.vocabulary import CHANGED, CHANGED_COLOR, NO_CHANGE_COLOR, Vocabulary

RUNS_NAME, PICTURES_NAME = "runs", "pictures"

_THUMBNAIL_BYTES = 20_000


class ExamplePairs:
    """Images, labels and predictions of some test pairs; full size beside the page, reduced in the page.

    Args:
        pairs: of the benchmark.
        indices: of the shown test pairs.
        output: folder of the table.
    """

    def __init__(self, pairs: Pairs, indices: Sequence[int], output: Path) -> None:
        self._pairs, self._indices, self._output = pairs, indices, output

    @cached_property
    def _references(self) -> list[tuple[str, list[Picture]]]:
        """Name, images and labels of each pair; full-size files are written once."""
        folder = RunFolder(self._output / PICTURES_NAME)
        found = []
        for i in self._indices:
            sample = self._pairs.test[i]
            both = labels(sample) if len(self._pairs.test.vocabulary) else None
            first, second = both if both is not None else (change_labels(sample), None)
            words = self._pairs.test.vocabulary if both is not None else Vocabulary()
            shown = []
            for name, photo in (("before", sample.before), ("after", sample.after)):
                folder.write_bytes(f"{i}-{name}.jpg", photo_jpeg(photo))
                every = -(-max(photo.shape[:2]) // SIDE)
                small = photo_jpeg(np.ascontiguousarray(photo[::every, ::every]), budget=_THUMBNAIL_BYTES)
                shown.append(Picture(name, f"{PICTURES_NAME}/{i}-{name}.jpg", data_uri(small)))
            folder.write_bytes(f"{i}-labels.png", maps_png(first, second, words))
            shown.append(
                Picture("labels", f"{PICTURES_NAME}/{i}-labels.png", data_uri(dates_png(first, second, words)))
            )
            found.append((sample.name, shown))
        return found

    def examples(self, table: Table) -> list[Example]:
        """Return the pairs with the predictions of every finished row (first seed); full-size maps are copied."""
        beside = RunFolder(self._output / PICTURES_NAME)
        found = []
        for i, (name, reference) in zip(self._indices, self._references, strict=True):
            pictures = list(reference)
            for one in table.lines:
                if not one.folders:
                    continue
                drawn = self._output / RUNS_NAME / one.folders[0] / EXAMPLES_NAME
                whole, small = drawn / f"{i}.png", drawn / f"{i}-small.png"
                if not whole.exists() or not small.exists():
                    continue
                file = f"{i}-{one.folders[0]}.png"
                beside.write_bytes(file, whole.read_bytes())
                pictures.append(Picture(one.name, f"{PICTURES_NAME}/{file}", data_uri(small.read_bytes())))
            found.append(Example(name, tuple(pictures)))
        return found

    def legend(self) -> list[tuple[str, str]]:
        """Return (word, CSS colour) of the maps."""
        vocabulary = self._pairs.test.vocabulary
        colors = [("no change", NO_CHANGE_COLOR)]
        colors += [(word, vocabulary.color(code)) for code, word in enumerate(vocabulary.words, 1)]
        colors += [(f"{CHANGED} (methods without classes)" if len(vocabulary) else CHANGED, CHANGED_COLOR)]
        colors += [("no label", NO_LABEL_COLOR)]
        return [(word, "#{:02x}{:02x}{:02x}".format(*color)) for word, color in colors]
