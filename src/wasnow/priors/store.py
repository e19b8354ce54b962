"""Read a prior folder: masks per word, date and image.

    priors.json     words, masker and thresholds, digests of the images, coverage
    before.tif      of a pair of rasters: one band per word, named after it, 1 where the word is; on that raster's own
    after.tif       grid, as a Cloud Optimized GeoTIFF, so that windows can be read
    train/a.tif     of a dataset: one file per pair and split; first the bands of the first date, then of the second

`Priors` reads it. It holds no open file, so it can be used by several threads and sent to other processes.

A model that was trained with masks records their origin (`Priors.origin`), so that a warning can be given when it is
used with masks of another masker (`other_masker`).
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

from wasnow.errors import InputError, UsageError, VocabularyError, did_you_mean
from wasnow.priors.cache import picture_digest
from wasnow.priors.manifest import DATES, FORMAT, Manifest
from wasnow.priors.nearest import grid_of, read_nearest
from wasnow.raster.gdal import gdal_settings, open_raster
from wasnow.raster.grid import Grid
from wasnow.raster.tiles import Window
from wasnow.raster.write import raster_output_errors
from wasnow.storage.atomic import atomic_path
from wasnow.storage.hashing import file_sha256
from wasnow.vocabulary import join_words

WITHOUT = "none"
"""Value of ``--priors`` for a model that is to run without masks."""

Masks = NDArray[np.uint8]


class PairMasks(Protocol):
    """Masks of the pairs of a dataset: from a prior folder, or from the labels."""

    @property
    def origin(self) -> dict[str, Any]:
        """Plain JSON values that identify the masks: words, masker, digest."""
        ...

    def pick(self, words: Sequence[str]) -> Self:
        """Return the masks of these words, in this order.

        Raises:
            VocabularyError: there are no masks of one of them.
        """
        ...

    def require(self, split: str, names: Sequence[str]) -> None:
        """Check that there are masks of all these pairs.

        Raises:
            UsageError, InputError: some are missing.
        """
        ...

    def of(self, split: str, name: str, before: NDArray[np.uint8], after: NDArray[np.uint8]) -> Masks:
        """Return the masks of a pair, ``(2, W, H, Wd)`` uint8, 0 and 1.

        Args:
            split: of the dataset.
            name: of the pair.
            before: ``(H, W, 3)`` image.
            after: ``(H, W, 3)`` image.
        """
        ...


@dataclass(frozen=True)
class Priors:
    """A prior folder, open for reading.

    Attributes:
        folder: its path.
        manifest: its record.
        words: in the order of the masks' first axis.
    """

    folder: Path
    manifest: Manifest
    words: tuple[str, ...]

    def pick(self, words: Sequence[str]) -> Priors:
        """Return the masks of some of its words, in this order.

        Raises:
            VocabularyError: no masks were made of one of them.
        """
        held = {word.casefold(): word for word in self.manifest.words}
        missing = [word for word in words if word.casefold() not in held]
        if missing:
            raise VocabularyError(
                f"{self.folder} has no priors for {join_words(missing)}, only for {join_words(self.manifest.words)}"
                f"{did_you_mean(missing[0], self.manifest.words)}. Make them with wasnow priors --classes"
            )
        return replace(self, words=tuple(held[word.casefold()] for word in words))

    @property
    def digest(self) -> str:
        """SHA-256 over words, masker and every mask; reads all files once.

        Raises:
            InputError: a file is missing.
        """
        facts = self.manifest.model_dump(mode="json", include={"format", "kind", "masker", "tile", "margin"})
        digest = hashlib.sha256(json.dumps([facts, self.words], sort_keys=True).encode())
        names = [f"{split}/{name}.tif" for split, pairs in self.manifest.pictures.items() for name in pairs]
        for name in names if self.manifest.kind == "dataset" else [f"{date}.tif" for date in DATES]:
            try:
                digest.update(f"{name} {file_sha256(self.folder / name)}\n".encode())
            except OSError as error:
                raise InputError(
                    f"{self.folder / name} cannot be read ({error.strerror}). Make the priors again"
                ) from None
        return digest.hexdigest()

    @property
    def origin(self) -> dict[str, Any]:
        """Identity of the masks, independent of the folder's path: words, masker, digest."""
        return {"words": list(self.words), "masker": dict(self.manifest.masker), "digest": self.digest}

    # --- pairs of rasters -----------------------------------------------------------------------------------------

    def grid(self, date: str) -> Grid:
        """Return the grid of the masks of a date, which is that of the raster.

        Raises:
            UsageError: these are priors of a dataset.
            RasterUnreadable: the file is missing or damaged.
        """
        with open_raster(str(self._raster(date))) as raster:
            return grid_of(raster)

    def read(self, window: Window, date: str, grid: Grid | None = None) -> Masks:
        """Return the masks of one date on a window, ``(W, h, w)`` uint8: 1 where the word is, 0 elsewhere and outside.

        Args:
            window: of ``grid``; may extend beyond it.
            date: ``before`` or ``after``.
            grid: target grid, reached by nearest neighbour; None for their own.

        Raises:
            UsageError: these are priors of a dataset, or there is no such date.
            RasterUnreadable: the file is missing or damaged.
        """
        path = self._raster(date)
        with gdal_settings(), open_raster(str(path)) as raster:
            bands = [self.manifest.words.index(word) + 1 for word in self.words]
            return np.asarray(read_nearest(raster, path, bands, grid or grid_of(raster), window), np.uint8)

    def read_pair(self, window: Window, grid: Grid) -> Masks:
        """Return the masks of both dates on a window of one grid, ``(2, W, h, w)`` uint8; see `read`."""
        return np.stack([self.read(window, date, grid) for date in DATES])

    def check(self, date: str, sha256: str | None) -> None:
        """Reject a raster that the masks were not made from; None (a remote file) is accepted.

        Args:
            date: ``before`` or ``after``.
            sha256: of the raster.

        Raises:
            InputError: the SHA-256 differs from that of the masks' raster.
        """
        self._raster(date)
        made_of = self.manifest.dates[date]
        if None not in (sha256, made_of.sha256) and sha256 != made_of.sha256:
            raise InputError(
                f"the priors in {self.folder} are of another {date} image ({made_of.path}, sha256 "
                f"{str(made_of.sha256)[:12]}, not {str(sha256)[:12]}). Make them again with wasnow priors"
            )

    def _raster(self, date: str) -> Path:
        if self.manifest.kind != "pair":
            raise UsageError(f"{self.folder} holds priors of a dataset. For a pair, run wasnow priors BEFORE AFTER")
        if date not in DATES:
            raise UsageError(f"unknown date {date!r}; a pair has before and after")
        return self.folder / f"{date}.tif"

    # --- datasets -------------------------------------------------------------------------------------------------

    def names(self, split: str) -> tuple[str, ...]:
        """Return the names of the pairs of a split.

        Raises:
            UsageError: these are priors of a pair, or there is no such split.
        """
        return tuple(self._of_split(split))

    def require(self, split: str, names: Sequence[str]) -> None:
        """Check that there are masks of all these pairs.

        Raises:
            UsageError: these are priors of a pair of rasters, or there is no such split.
            InputError: a pair is missing.
        """
        pictures = self._of_split(split)
        missing = [name for name in names if name not in pictures]
        if missing:
            raise InputError(
                f"{self.folder} has no priors for {len(missing)} of {len(names)} pairs of {split}, first "
                f"{missing[0]}{did_you_mean(missing[0], tuple(pictures))}. Make them again with wasnow priors, with "
                "the same --dataset-tile as the tile of training"
            )

    def of(
        self,
        split: str,
        name: str,
        before: NDArray[np.uint8] | None = None,
        after: NDArray[np.uint8] | None = None,
    ) -> Masks:
        """Return the masks of a pair of a dataset, ``(2, W, H, Wd)`` uint8: dates by words.

        Args:
            split: of the dataset.
            name: of the pair.
            before: ``(H, W, 3)``; if given with ``after``, the masks must have been made from these images.
            after: ``(H, W, 3)``.

        Raises:
            UsageError: these are priors of a pair of rasters, or there is no such split.
            InputError: no such pair, or other images than the masks were made from.
            RasterUnreadable: the file is missing or damaged.
        """
        pictures = self._of_split(split)
        if name not in pictures:
            raise InputError(
                f"{self.folder} has no priors for {name} of {split}{did_you_mean(name, tuple(pictures))}. "
                "Make them again with wasnow priors"
            )
        if before is not None and after is not None and pair_digest(before, after) != pictures[name]:
            raise InputError(
                f"the priors in {self.folder} were made from other images than {name} of {split}. "
                "Make them again with wasnow priors, with the same --dataset-tile"
            )
        with open_raster(str(self.folder / split / f"{name}.tif")) as raster:
            count = len(self.manifest.words)
            places = [self.manifest.words.index(word) + 1 for word in self.words]
            bands = raster.read([*places, *(count + place for place in places)])
        return np.asarray(bands, np.uint8).reshape(2, len(self.words), *bands.shape[1:])

    def _of_split(self, split: str) -> Mapping[str, str]:
        if self.manifest.kind != "dataset":
            raise UsageError(f"{self.folder} holds priors of a pair. For a dataset, run wasnow priors FOLDER")
        if split not in self.manifest.pictures:
            known = tuple(self.manifest.pictures)
            raise UsageError(
                f"{self.folder} has priors of {join_words(known)}, not of {split!r}{did_you_mean(split, known)}"
            )
        return self.manifest.pictures[split]


def open_priors(folder: str | os.PathLike[str], words: Sequence[str] | None = None) -> Priors:
    """Open a finished prior folder.

    Args:
        folder: written by `wasnow priors`.
        words: those to use, in this order; None for all.

    Raises:
        InputError: not a prior folder.
        VocabularyError: one of the words is missing.
    """
    manifest = Manifest.read(Path(folder))
    if manifest.format != FORMAT:
        raise InputError(
            f"{folder} has format {manifest.format}, but this version reads {FORMAT}. Make the priors again"
        )
    priors = Priors(Path(folder), manifest, manifest.words)
    return priors if words is None else priors.pick(words)


def other_masker(learned: Mapping[str, Any] | None, given: Mapping[str, Any] | None) -> str | None:
    """Return a warning if a model was trained with masks of another masker than those given; else None.

    Masks from files count as the same masker, whatever the files: masks of another place always come from other files.

    Args:
        learned: `PairMasks.origin` in training; None if unknown.
        given: `PairMasks.origin` of the masks in use.
    """
    if not learned or not given:
        return None
    one, other = (dict(each.get("masker", {})) for each in (learned, given))
    if one.get("masker") != other.get("masker"):
        return f"the model was trained with {_description(one)} and is given {_description(other)}"
    if one.get("masker") == "files":
        return None
    differing = sorted(key for key in {*one, *other} if one.get(key) != other.get(key))
    if not differing:
        return None
    return f"the model was trained with masks by {one['masker']} with another {' and '.join(differing)}"


def _description(masker: Mapping[str, Any]) -> str:
    name = str(masker.get("masker"))
    return {WITHOUT: "no masks", "labels": "masks from labels"}.get(name, f"masks by {name}")


def pair_digest(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> str:
    """Return a digest of the pixels of both images."""
    return f"{picture_digest(before)}{picture_digest(after)}"


def write_pair_masks(path: Path, words: Sequence[str], masks: Masks) -> None:
    """Write the masks of one pair of a dataset by an atomic rename.

    Args:
        path: of the GeoTIFF.
        words: class words.
        masks: ``(2, W, H, Wd)``, 0 and 1.

    Raises:
        OutputError, DiskFull: they cannot be written.
    """
    flat = np.ascontiguousarray(masks.reshape(-1, *masks.shape[2:]))
    with raster_output_errors(path), rasterio.Env(GDAL_PAM_ENABLED="NO"), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            # A cache: a damaged file is noticed on reading.
            atomic_path(path, durable=False, shared=True) as temporary,
            rasterio.open(
                temporary,
                "w",
                driver="GTiff",
                count=len(flat),
                height=flat.shape[1],
                width=flat.shape[2],
                dtype="uint8",
                nbits=1,
                compress="deflate",
                interleave="band",
            ) as raster,
        ):
            raster.write(flat)
            for band, (date, word) in enumerate(((d, w) for d in DATES for w in words), 1):
                raster.set_band_description(band, f"{date}: {word}")
