"""Pairs whose class is known everywhere at both dates, and kept everywhere: unchanged ground teaches classes as well.

`open_dataset` reads every dataset as from-to labels: a class where the ground changed, 0 elsewhere. That is what scores
are made of. Where a dataset is dense (its labels name a class at every pixel), training can have more:

                       unchanged water      water -> building     no label before, road after
    from-to  before         0                      water                  no label
             after          0                      building               no label
    covers   before         water                  water                  no label
             after          water                  building               road
    change                  0                      1                      no label
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
    """``(H, W)``: 1 where the covers differ, 0 where they are the same, 255 where either has no label."""
    silent = (before == NO_LABEL) | (after == NO_LABEL)
    return np.where(silent, np.uint8(NO_LABEL), (before != after).astype(np.uint8))


class LandCoverSamples(FileSamples):
    """`FileSamples` of a dense dataset that keep the class of unchanged pixels too."""

    def __getitem__(self, index: int) -> Sample:
        """Read a pair: ``before_classes`` and ``after_classes`` speak of every pixel, 1..K, 255 no label.

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
    """The splits of a dense dataset, classes everywhere.

    Raises:
        DatasetError: no dataset, faults in it, or its labels name classes at changed pixels only.
    """
    return {name: with_land_cover(one) for name, one in open_dataset(path).splits.items()}


def with_land_cover(samples: FileSamples) -> LandCoverSamples:
    """The same pairs, read as they are opened already, with classes everywhere.

    Raises:
        DatasetError: the labels name classes at changed pixels only, or none at all.
    """
    if not is_dense(samples):
        raise DatasetError(
            f"{samples.root}: its labels do not name the class of what is unchanged; read it with open_dataset, or "
            "give labels that have a class at every pixel"
        )
    return LandCoverSamples(samples.entries, samples.coding, samples.root)


def is_dense(samples: FileSamples) -> bool:
    """Whether the labels of some pairs name a class at every pixel."""
    return samples.coding.classes is not None and samples.coding.classes.dense
