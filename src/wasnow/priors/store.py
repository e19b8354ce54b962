"""A prior folder: masks per word, date and picture, and what they are of.

    priors.json     words, masker and thresholds, digests of the pictures, shares and counts
    before.tif      of a pair of rasters: one band per word, named after it, 1 where the word is; on that raster's own
    after.tif       grid, as a Cloud Optimized GeoTIFF, so that a window is read without the rest
    train/a.tif     of a dataset: one file per pair and split; first the bands of the first date, then of the second

`Priors` reads it. It holds no open file, so it can be used by several threads and sent to other processes.

What made the masks is told along with a model that learned from them (`Priors.origin`), so that it can be noticed when
it is given masks by another masker (`other_masker`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import numpy as np
import rasterio
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator
from rasterio.errors import NotGeoreferencedWarning

from wasnow.errors import InputError, UsageError, VocabularyError, did_you_mean
from wasnow.priors.cache import picture_digest
from wasnow.priors.nearest import grid_of, read_nearest
from wasnow.raster.gdal import gdal_settings, open_raster
from wasnow.raster.grid import Grid
from wasnow.raster.tiles import Window
from wasnow.raster.write import raster_output_errors
from wasnow.storage.atomic import atomic_path, write_atomically
from wasnow.storage.hashing import file_sha256
from wasnow.vocabulary import join_words

MANIFEST = "priors.json"
FORMAT = 1
WITHOUT = "none"
"""What ``--priors`` says instead of a folder for a model that is to do without masks."""
DATES: tuple[Literal["before"], Literal["after"]] = ("before", "after")

Masks = NDArray[np.uint8]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WordRecord(_Strict):
    """How much of one date's pictures a word covers: share of pixels 0..1, and objects (parts of a mask, where the
    masker knows no objects; None for masks from files)."""

    share: float
    objects: int | None


class DateRecord(_Strict):
    """One date of a pair: the raster that was looked at, and its SHA-256 (None for a remote one)."""

    path: str
    sha256: str | None


class Manifest(_Strict):
    """The whole of priors.json."""

    format: int = FORMAT
    wasnow: str
    kind: Literal["pair", "dataset"]
    words: tuple[str, ...]
    masker: dict[str, Any]
    tile: int | None
    margin: int | None
    covered: dict[str, dict[str, WordRecord]]
    dates: dict[str, DateRecord] = {}
    pictures: dict[str, dict[str, str]] = {}

    @field_validator("pictures")
    @classmethod
    def _in_the_folder(cls, pictures: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
        # A folder of somebody else's must not lead out of itself.
        for split, names in pictures.items():
            for name in (f"{split}/{name}" for name in names):
                if name.startswith("/") or ".." in re.split(r"[/\\]", name) or "\0" in name:
                    raise ValueError(f"{name!r} is no picture of the folder")
        return pictures

    def write(self, folder: Path) -> None:
        """Put it into a folder, whole or not at all."""
        write_atomically(folder / MANIFEST, f"{self.model_dump_json(indent=1)}\n".encode())

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Of a finished prior folder.

        Raises:
            InputError: it has none, or not one that this version reads.
        """
        path = folder / MANIFEST
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(
                f"{folder} is no finished prior folder: it has no {MANIFEST}; make it with wasnow priors"
            ) from None
        except (OSError, UnicodeDecodeError, ValidationError) as error:
            reason = " ".join(str(error).split())[:120]
            raise InputError(f"{path} cannot be read ({reason}); make the priors again") from None


class PairMasks(Protocol):
    """Masks of the pairs of a dataset, from wherever: a prior folder, or its own labels."""

    @property
    def origin(self) -> dict[str, Any]:
        """Plain JSON values that are others where the masks are: words, what made them, a digest."""
        ...

    def pick(self, words: Sequence[str]) -> Self:
        """The same with these words, in this order.

        Raises:
            VocabularyError: there are no masks of one of them.
        """
        ...

    def require(self, split: str, names: Sequence[str]) -> None:
        """Nothing, if there are masks of all these pairs.

        Raises:
            UsageError, InputError: there are not.
        """
        ...

    def of(self, split: str, name: str, before: NDArray[np.uint8], after: NDArray[np.uint8]) -> Masks:
        """Masks of a pair, ``(2, W, H, Wd)`` uint8, 0 and 1; the pictures are ``(H, W, 3)``."""
        ...


@dataclass(frozen=True)
class Priors:
    """A prior folder, open for reading.

    Attributes:
        folder: where it is.
        manifest: what it says of itself.
        words: in the order of the masks' first axis.
    """

    folder: Path
    manifest: Manifest
    words: tuple[str, ...]

    def pick(self, words: Sequence[str]) -> Priors:
        """The same with some of its words, in this order.

        Raises:
            VocabularyError: no priors were made for one of them.
        """
        held = {word.casefold(): word for word in self.manifest.words}
        missing = [word for word in words if word.casefold() not in held]
        if missing:
            raise VocabularyError(
                f"{self.folder} has no priors for {join_words(missing)}, only for {join_words(self.manifest.words)}"
                f"{did_you_mean(missing[0], self.manifest.words)}; make them with wasnow priors --classes"
            )
        return replace(self, words=tuple(held[word.casefold()] for word in words))

    @property
    def digest(self) -> str:
        """SHA-256 over words, masker and every mask; reads all files once.

        Raises:
            InputError: a file is missing.
        """
        told = self.manifest.model_dump(mode="json", include={"format", "kind", "masker", "tile", "margin"})
        digest = hashlib.sha256(json.dumps([told, self.words], sort_keys=True).encode())
        names = [f"{split}/{name}.tif" for split, pairs in self.manifest.pictures.items() for name in pairs]
        for name in names if self.manifest.kind == "dataset" else [f"{date}.tif" for date in DATES]:
            try:
                digest.update(f"{name} {file_sha256(self.folder / name)}\n".encode())
            except OSError as error:
                raise InputError(
                    f"{self.folder / name} cannot be read ({error.strerror}); make the priors again"
                ) from None
        return digest.hexdigest()

    @property
    def origin(self) -> dict[str, Any]:
        """What these masks are, wherever the folder is: words, masker, digest."""
        return {"words": list(self.words), "masker": dict(self.manifest.masker), "digest": self.digest}

    # --- pairs of rasters -----------------------------------------------------------------------------------------

    def grid(self, date: str) -> Grid:
        """Of the masks of a date: that of the raster they were made of.

        Raises:
            UsageError: these are priors of a dataset.
            RasterUnreadable: the file is missing or damaged.
        """
        with open_raster(str(self._raster(date))) as raster:
            return grid_of(raster)

    def read(self, window: Window, date: str, grid: Grid | None = None) -> Masks:
        """Masks of one date over a window, ``(W, h, w)`` uint8: 1 where the word is, 0 elsewhere and outside.

        Args:
            window: of ``grid``; may reach beyond it.
            date: ``before`` or ``after``.
            grid: onto which they are brought by nearest neighbour; None takes their own.

        Raises:
            UsageError: these are priors of a dataset, or there is no such date.
            RasterUnreadable: the file is missing or damaged.
        """
        path = self._raster(date)
        with gdal_settings(), open_raster(str(path)) as raster:
            bands = [self.manifest.words.index(word) + 1 for word in self.words]
            return np.asarray(read_nearest(raster, path, bands, grid or grid_of(raster), window), np.uint8)

    def read_pair(self, window: Window, grid: Grid) -> Masks:
        """Both dates over a window of one grid, ``(2, W, h, w)`` uint8; see `read`."""
        return np.stack([self.read(window, date, grid) for date in DATES])

    def check(self, date: str, sha256: str | None) -> None:
        """Refuse a raster that is not the one these masks are of; None (a remote file) passes.

        Raises:
            InputError: another SHA-256 than that of the raster which was looked at.
        """
        self._raster(date)
        made_of = self.manifest.dates[date]
        if None not in (sha256, made_of.sha256) and sha256 != made_of.sha256:
            raise InputError(
                f"the priors in {self.folder} are of another {date} image ({made_of.path}, sha256 "
                f"{str(made_of.sha256)[:12]}, not {str(sha256)[:12]}); make them again with wasnow priors"
            )

    def _raster(self, date: str) -> Path:
        if self.manifest.kind != "pair":
            raise UsageError(
                f"{self.folder} holds priors of a dataset; make those of a pair: wasnow priors BEFORE AFTER"
            )
        if date not in DATES:
            raise UsageError(f"{date!r} is no date of a pair; ask for before or after")
        return self.folder / f"{date}.tif"

    # --- datasets -------------------------------------------------------------------------------------------------

    def names(self, split: str) -> tuple[str, ...]:
        """Of the pairs of a split.

        Raises:
            UsageError: these are priors of a pair, or there is no such split.
        """
        return tuple(self._of_split(split))

    def require(self, split: str, names: Sequence[str]) -> None:
        """Nothing, if there are masks of all these pairs.

        Raises:
            UsageError: these are priors of a pair of rasters, or there is no such split.
            InputError: a pair is missing.
        """
        pictures = self._of_split(split)
        missing = [name for name in names if name not in pictures]
        if missing:
            raise InputError(
                f"{self.folder} has no priors for {len(missing)} of {len(names)} pairs of {split}, first "
                f"{missing[0]}{did_you_mean(missing[0], tuple(pictures))}; make them again with wasnow priors, with "
                "the same --dataset-tile as the tile of training"
            )

    def of(
        self,
        split: str,
        name: str,
        before: NDArray[np.uint8] | None = None,
        after: NDArray[np.uint8] | None = None,
    ) -> Masks:
        """Masks of a pair of a dataset, ``(2, W, H, Wd)`` uint8: dates by words.

        Args:
            split: as the dataset calls it.
            name: of the pair.
            before: ``(H, W, 3)``; given with ``after``, it is checked that the masks are of these pictures.
            after: likewise.

        Raises:
            UsageError: these are priors of a pair of rasters, or there is no such split.
            InputError: no such pair, or its pictures are others than those that were looked at.
            RasterUnreadable: the file is missing or damaged.
        """
        pictures = self._of_split(split)
        if name not in pictures:
            raise InputError(
                f"{self.folder} has no priors for {name} of {split}{did_you_mean(name, tuple(pictures))}; "
                "make them again with wasnow priors"
            )
        if before is not None and after is not None and pair_digest(before, after) != pictures[name]:
            raise InputError(
                f"the priors in {self.folder} are of other pictures than {name} of {split}; "
                "make them again with wasnow priors, with the same --dataset-tile"
            )
        with open_raster(str(self.folder / split / f"{name}.tif")) as raster:
            count = len(self.manifest.words)
            places = [self.manifest.words.index(word) + 1 for word in self.words]
            bands = raster.read([*places, *(count + place for place in places)])
        return np.asarray(bands, np.uint8).reshape(2, len(self.words), *bands.shape[1:])

    def _of_split(self, split: str) -> Mapping[str, str]:
        if self.manifest.kind != "dataset":
            raise UsageError(f"{self.folder} holds priors of a pair; make those of a dataset: wasnow priors FOLDER")
        if split not in self.manifest.pictures:
            known = tuple(self.manifest.pictures)
            raise UsageError(
                f"{self.folder} has priors of {join_words(known)}, not of {split!r}{did_you_mean(split, known)}"
            )
        return self.manifest.pictures[split]


def open_priors(folder: str | os.PathLike[str], words: Sequence[str] | None = None) -> Priors:
    """A finished prior folder.

    Args:
        folder: as `wasnow priors` wrote it.
        words: those of its words that are wanted, in this order; None takes all.

    Raises:
        InputError: it is none.
        VocabularyError: it lacks one of the words.
    """
    manifest = Manifest.read(Path(folder))
    if manifest.format != FORMAT:
        raise InputError(
            f"{folder} is of format {manifest.format}, and this version reads {FORMAT}; make the priors again"
        )
    priors = Priors(Path(folder), manifest, manifest.words)
    return priors if words is None else priors.pick(words)


def other_masker(learned: Mapping[str, Any] | None, given: Mapping[str, Any] | None) -> str | None:
    """A sentence where a model learned from the masks of one masker and is given those of another; else None.

    Masks from files are of one kind, whatever the files: those of another place are always others.

    Args:
        learned: `PairMasks.origin` in training; None where nobody knows.
        given: the same of now.
    """
    if not learned or not given:
        return None
    one, other = (dict(each.get("masker", {})) for each in (learned, given))
    if one.get("masker") != other.get("masker"):
        return f"the model learned from {_called(one)} and is given {_called(other)}"
    if one.get("masker") == "files":
        return None
    differing = sorted(key for key in {*one, *other} if one.get(key) != other.get(key))
    if not differing:
        return None
    return f"the model learned from masks by {one['masker']} with another {' and '.join(differing)} than these"


def _called(masker: Mapping[str, Any]) -> str:
    name = str(masker.get("masker"))
    return {WITHOUT: "no masks", "labels": "masks from labels"}.get(name, f"masks by {name}")


def pair_digest(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> str:
    """Of the pixels of both pictures."""
    return f"{picture_digest(before)}{picture_digest(after)}"


def write_pair_masks(path: Path, words: Sequence[str], masks: Masks) -> None:
    """Masks of one pair of a dataset, ``(2, W, H, Wd)`` 0 and 1, whole or not at all.

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
