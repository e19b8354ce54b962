"""Images of one date with land-cover masks: what pairs are made of.

    Tile_1/images/part_001.jpg       group "Tile_1", name "Tile_1/part_001"
    Tile_1/masks/part_001.png        every pixel a class, or no label

Groups are the folders that images lie in: pictures of one group show the same place or neighbours, so a held-back
group, never a held-back crop, tells how well something generalises. Mask values are a known palette, or said in a
masks.yaml:

    image: "images/{name}.jpg"
    mask: "masks/{name}.png"
    values: {0: no label, 1: water, 2: building}
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from wasnow.data.encodings import ENCODINGS, LabelEncoding, encoding_named, pack_colors
from wasnow.data.faults import Fault, listed
from wasnow.data.images import header, read_label, read_picture, reading
from wasnow.data.layouts.described import Values, class_encoding, compiled, load_yaml, said
from wasnow.data.layouts.layout import list_files, natural
from wasnow.data.samples import Codes, decode, sum_of_ends
from wasnow.errors import DatasetError, InputError, UsageError, did_you_mean
from wasnow.vocabulary import NO_LABEL, Vocabulary

FILE_NAME = "masks.yaml"

CACHE_BYTES = 256 * 2**20
"""Decoded pictures that one process keeps: decoding a large one takes longer than making a pair of it."""

_IMAGES = frozenset({"images", "image", "img", "imgs", "im", "rgb", "photos"})
_MASKS = frozenset({"masks", "mask", "labels", "label", "gt", "annotations"})


@dataclass(frozen=True, slots=True)
class MaskEntry:
    """One image and its mask."""

    name: str
    group: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class LandCoverImage:
    """One date of one place.

    Attributes:
        picture: ``(H, W, 3)`` uint8 RGB.
        classes: ``(H, W)`` uint8: 1..K, 255 no label.
    """

    picture: NDArray[np.uint8]
    classes: Codes


class MaskDescription(BaseModel):
    """The keys of a masks.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = ""
    image: str
    mask: str
    classes: tuple[str, ...] | None = None
    encoding: str | None = None
    values: Values | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> MaskDescription:
        for key in ("image", "mask"):
            if "{name}" not in getattr(self, key):
                raise ValueError(f"{key}: {getattr(self, key)!r} has no {{name}}, so images cannot be told apart")
        if (self.encoding is None) == (self.values is None):
            raise ValueError("give either values or encoding: what the mask values mean")
        return self


class _ImageCache:
    """The last decoded pictures, up to so many bytes. Safe for threads; empty in another process."""

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self.limit = limit
        self._held: OrderedDict[int, LandCoverImage] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __reduce__(self) -> Any:
        return _ImageCache, (self.limit,)

    def get(self, key: int) -> LandCoverImage | None:
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
            return self._held.get(key)

    def put(self, key: int, single: LandCoverImage) -> None:
        size = single.picture.nbytes + single.classes.nbytes
        with self._lock:
            if key in self._held or size > self.limit:
                return
            self._held[key] = single
            self._bytes += size
            while self._bytes > self.limit:
                _, gone = self._held.popitem(last=False)
                self._bytes -= gone.picture.nbytes + gone.classes.nbytes


@dataclass(frozen=True)
class MaskFolder:
    """Images with masks, read when asked for."""

    root: Path
    entries: tuple[MaskEntry, ...]
    encoding: LabelEncoding
    faults: tuple[Fault, ...] = ()
    _cache: _ImageCache = field(default_factory=_ImageCache, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> LandCoverImage:
        """Read an image and its mask; treat both as read-only.

        Raises:
            RasterUnreadable: a file is missing or damaged.
            UnknownLabels: the mask holds what the encoding does not know.
            InputError: image and mask differ in size.
        """
        held = self._cache.get(index)
        if held is not None:
            return held
        entry = self.entries[index]
        with reading():
            picture, valid = read_picture(entry.image)
            raw = read_label(entry.mask)
        if raw.shape != picture.shape[:2]:
            raise InputError(
                f"{entry.mask}: has {raw.shape[1]} x {raw.shape[0]} px, "
                f"its image {picture.shape[1]} x {picture.shape[0]}; masks need the same size"
            )
        classes = decode(entry.mask, raw, self.encoding)
        if valid is not None:
            classes = np.where(valid, classes, np.uint8(NO_LABEL))
        single = LandCoverImage(picture, classes)
        self._cache.put(index, single)
        return single

    @property
    def vocabulary(self) -> Vocabulary:
        """The classes of codes 1..K."""
        return Vocabulary(self.encoding.words)

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """In natural order."""
        return tuple(sorted({entry.group for entry in self.entries}, key=natural))

    @cached_property
    def census(self) -> NDArray[np.int64]:
        """``(N, K)``: pixels of each class in each image. Reads every file once."""
        counts = [np.bincount(self[i].classes.ravel(), minlength=256) for i in range(len(self))]
        return np.stack(counts)[:, 1 : len(self.encoding.words) + 1].astype(np.int64)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over names, encoding, and each file's size, first and last 4 KiB."""
        digest = hashlib.sha256(repr(self.encoding).encode())
        for entry in self.entries:
            digest.update(entry.name.encode() + sum_of_ends(entry.image) + sum_of_ends(entry.mask))
        return digest.hexdigest()

    def split(self, hold_back: Sequence[str] | None = None) -> tuple[MaskFolder, MaskFolder]:
        """Everything else, and the held-back groups.

        Args:
            hold_back: names of groups; None takes the last, or the last fifth of the images where there is one group.

        Raises:
            UsageError: no such group, or nothing would be left on one side.
        """
        if hold_back is None:
            if len(self.groups) < 2:
                last = max(1, len(self) // 5)
                return self.only(self.entries[:-last]), self.only(self.entries[-last:])
            hold_back = self.groups[-1:]
        strange = [group for group in hold_back if group not in self.groups]
        if strange:
            near = did_you_mean(strange[0], self.groups)
            raise UsageError(f"there is no group {strange[0]!r}; the groups are {', '.join(self.groups)}{near}")
        kept = self.only(tuple(entry for entry in self.entries if entry.group not in hold_back))
        return kept, self.only(tuple(entry for entry in self.entries if entry.group in hold_back))

    def only(self, entries: Sequence[MaskEntry]) -> MaskFolder:
        """Some of the entries.

        Raises:
            UsageError: none are given.
        """
        if not entries:
            raise UsageError(f"{self.root}: nothing is left on one side of the split; hold back fewer groups")
        return replace(self, entries=tuple(entries), _cache=_ImageCache(self._cache.limit))

    def check(self) -> tuple[Fault, ...]:
        """All that is wrong, after reading every file."""
        faults = list(self.faults)
        for index, entry in enumerate(self.entries):
            try:
                self[index]
            except InputError as error:
                path = Path(getattr(error, "path", entry.mask))
                text = str(getattr(error, "reason", "")) or str(error).removeprefix(f"{path}: ")
                name = path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)
                faults.append(Fault(name, text))
        return tuple(sorted(faults, key=lambda fault: natural(fault.file)))

    def describe(self) -> dict[str, str]:
        """What this is, for a person."""
        sizes = []
        for entry in self.entries:
            try:
                with reading():
                    sizes.append((header(entry.image).height, header(entry.image).width))
            except InputError:
                continue
        few, most = (min(sizes), max(sizes)) if sizes else ((0, 0), (0, 0))
        return {
            "dataset": str(self.root),
            "layout": "images of one date with masks",
            "encoding": self.encoding.name,
            "classes": ", ".join(self.encoding.words),
            "images": f"{len(self)} in {len(self.groups)} groups: {', '.join(self.groups)}",
            "sizes": f"{few[1]} x {few[0]} to {most[1]} x {most[0]} px",
        }


def open_masks(path: Path, *, encoding: str | None = None, strict: bool = True) -> MaskFolder:
    """Rendering at a folder of images with masks (or a masks.yaml) and say how to read it.

    Args:
        path: the folder.
        encoding: a name from `wasnow.data.encodings.ENCODINGS`; else masks.yaml or the palette tells.
        strict: refuse a folder in which images lack masks or masks images.

    Raises:
        DatasetError: not such a folder; its masks cannot be understood; or faults, where ``strict``.
    """
    described = path if path.is_file() else path / FILE_NAME
    if described.is_file():
        folder = _described(described, encoding)
    elif path.is_dir():
        folder = _looked_for(path, encoding)
    else:
        raise DatasetError(f"{path}: no such folder; give one that holds images and masks")
    if strict and folder.faults:
        lines = "; ".join(listed(folder.faults, 5))
        raise DatasetError(f"{path} has {len(folder.faults)} faults: {lines}", folder.faults)
    return folder


def _looked_for(root: Path, encoding: str | None) -> MaskFolder:
    listing = list_files(root)
    placed: dict[tuple[str, str], dict[str, PurePosixPath]] = defaultdict(dict)
    for path in listing.rasters:
        for i, part in reversed(list(enumerate(path.parts[:-1]))):
            kind = "image" if part.casefold() in _IMAGES else "mask" if part.casefold() in _MASKS else None
            if kind is not None:
                group = "/".join((*path.parts[:i], *path.parts[i + 1 : -1]))
                placed[group, path.stem][kind] = path
                break
    entries, faults = _paired(root, placed)
    if not entries and not faults:
        raise DatasetError(
            f"{root} holds no folders images and masks with pictures of the same names; describe it in a {FILE_NAME}"
        )
    told = encoding_named(encoding) if encoding is not None else _palette_of(entries, root)
    return MaskFolder(root, entries, _checked(told, root), faults)


def _described(file: Path, encoding: str | None) -> MaskFolder:
    content = load_yaml(file)
    try:
        description = MaskDescription.model_validate(content)
    except ValidationError as error:
        lines = [said(one, tuple(MaskDescription.model_fields)) for one in error.errors()]
        raise DatasetError(f"{file}: {'; '.join(lines)}") from None
    root = file.parent
    listing = list_files(root)
    placed: dict[tuple[str, str], dict[str, PurePosixPath]] = defaultdict(dict)
    for kind, pattern in (("image", description.image), ("mask", description.mask)):
        fits = compiled(pattern)
        for path in listing.rasters:
            match = fits.fullmatch(str(path))
            if match is not None:
                placed[match.groupdict().get("split") or "", match["name"]][kind] = path
    entries, faults = _paired(root, placed)
    if not entries and not faults:
        raise DatasetError(f"{file}: no file fits image: {description.image!r}; paths are relative to {root}")
    if encoding is not None or description.encoding is not None:
        told = encoding_named(encoding or description.encoding or "")
    else:
        told = class_encoding(file, description.values or {}, description.classes, joint=False)
    return MaskFolder(root, entries, _checked(told, root), faults)


def _paired(
    root: Path, placed: dict[tuple[str, str], dict[str, PurePosixPath]]
) -> tuple[tuple[MaskEntry, ...], tuple[Fault, ...]]:
    entries, faults = [], []
    for (group, stem), files in sorted(placed.items(), key=lambda item: (natural(item[0][0]), natural(item[0][1]))):
        if len(files) == 2:
            name = f"{group}/{stem}" if group else stem
            entries.append(MaskEntry(name, group or ".", root / files["image"], root / files["mask"]))
        else:
            there, lost = ("image", "mask") if "image" in files else ("mask", "image")
            faults.append(Fault(str(files[there]), f"has no {lost}"))
    return tuple(entries), tuple(faults)


def _checked(encoding: LabelEncoding, root: Path) -> LabelEncoding:
    if not encoding.words or encoding.after is not None:
        raise DatasetError(f"{root}: {encoding.name} does not name the class of one date; use one that does")
    if not encoding.dense:
        raise DatasetError(
            f"{root}: {encoding.name} has a value for unchanged, and masks of one date know no change; "
            f"give each value its class, or 'no label', in a {FILE_NAME}"
        )
    return encoding


def _palette_of(entries: Sequence[MaskEntry], root: Path) -> LabelEncoding:
    """The palette that has nine tenths of the pixels of a few masks."""
    dense = [each for each in ENCODINGS.values() if each.of_colors and each.dense]
    seen: dict[tuple[int, int, int], int] = defaultdict(int)
    for entry in entries[:: max(1, len(entries) // 8)][:9]:
        try:
            with reading():
                raw = read_label(entry.mask)
        except InputError:
            continue
        if raw.colors is None:
            continue
        values, counts = np.unique(pack_colors(raw.colors), return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            seen[value >> 16, value >> 8 & 255, value & 255] += count
    total = sum(seen.values())
    for each in dense:
        if total and sum(count for color, count in seen.items() if color in each.codes) >= 0.9 * total:
            return each
    held = ", ".join(",".join(map(str, color)) for color in sorted(seen, key=lambda c: -seen[c])[:6])
    raise DatasetError(
        f"{root}: what the mask values mean is not known ({f'colours {held}' if held else 'plain numbers'}); "
        f"say it in a {FILE_NAME}: image, mask and values (see docs/datasets.md)"
    )
