"""Samples of dense datasets that keep the classes of unchanged pixels, so that training can use them.

`open_dataset` reads every dataset as from-to labels: a class where the ground changed, 0 elsewhere. Scores are computed
from those. Where labels name a class at every pixel (dense labels), training can use all of them:

                         unchanged water      water -> building     no label before, road after
    from-to     before         0                      water                  no label
                after          0                      building               no label
    land cover  before         water                  water                  no label
                after          water                  building               road
    change                     0                      1                      no label
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from wasnow.data.dataset import open_dataset
from wasnow.data.images import reading
from wasnow.data.samples import Codes, FileSamples, Sample, label_readers
from wasnow.errors import DatasetError
from wasnow.vocabulary import NO_LABEL


def change_between(before: Codes, after: Codes) -> Codes:
    """Return ``(H, W)`` uint8: 1 where the classes differ, 0 where they are equal, 255 where either has no label."""
    unlabelled = (before == NO_LABEL) | (after == NO_LABEL)
    return np.where(unlabelled, np.uint8(NO_LABEL), (before != after).astype(np.uint8))


class LandCoverSamples(FileSamples):
    """`FileSamples` of a dense dataset that keep the classes of unchanged pixels."""

    def __getitem__(self, index: int) -> Sample:
        """Read a pair. ``before_classes`` and ``after_classes`` hold 1..K or 255 (no label) at every pixel.

        Raises:
            RasterUnreadable, UnknownLabels, InputError: as for `FileSamples`.
        """
        sample = super().__getitem__(index)
        with reading():
            shape = (sample.before.shape[0], sample.before.shape[1])
            readers = label_readers(self.entries[index], self.coding, shape)
            decoded = {kind: read() for kind, (_, read) in readers.items() if kind != "change"}
        before, after = decoded["joint"] if "joint" in decoded else (decoded["before"], decoded["after"])
        return replace(sample, before_classes=before, after_classes=after)


def open_land_cover(path: Path) -> Mapping[str, LandCoverSamples]:
    """Open a dense dataset and return its splits with classes at every pixel.

    Raises:
        DatasetError: not a dataset, faults in it, or labels that name classes at changed pixels only.
    """
    return {name: with_land_cover(samples) for name, samples in open_dataset(path).splits.items()}


def with_land_cover(samples: FileSamples) -> LandCoverSamples:
    """Return the same pairs with classes at every pixel.

    Raises:
        DatasetError: the labels name classes at changed pixels only, or no classes.
    """
    if not is_dense(samples):
        raise DatasetError(
            f"{samples.root}: its labels do not name the classes of unchanged pixels. Read it with open_dataset, or "
            "give labels with a class at every pixel"
        )
    return LandCoverSamples(samples.entries, samples.coding, samples.root)


def is_dense(samples: FileSamples) -> bool:
    """Whether the labels name a class at every pixel."""
    return samples.coding.classes is not None and samples.coding.classes.dense
