"""Images of one date with land-cover masks, from which pairs are generated.

    Tile_1/images/part_001.jpg       group "Tile_1", name "Tile_1/part_001"
    Tile_1/masks/part_001.png        a class or no label at every pixel

Groups are the folders that images are in. Images of one group show the same place or neighbouring places, so
generalisation is measured on a held-back group, never on held-back crops. Mask values are a known palette, or are
described in a masks.yaml:

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
from wasnow.data.layouts.described import Values, class_encoding, compiled, load_yaml, readable
from wasnow.data.layouts.layout import list_files, natural
from wasnow.data.samples import Codes, decode, sum_of_ends
from wasnow.errors import DatasetError, InputError, UsageError, did_you_mean
from wasnow.vocabulary import NO_LABEL, Vocabulary

FILE_NAME = "masks.yaml"

CACHE_BYTES = 256 * 2**20
"""Size of the cache of decoded images in one process: decoding a large image takes longer than generating a pair."""

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
    """An image of one date with its classes.

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
                raise ValueError(f"{key}: {getattr(self, key)!r} has no {{name}} to distinguish the images")
        if (self.encoding is None) == (self.values is None):
            raise ValueError("give either values or encoding, the meaning of the mask values")
        return self


class _ImageCache:
    """The most recently decoded images, up to a number of bytes. Safe for threads; starts empty in another process."""

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
    """A folder of images with masks, read on access.

    Attributes:
        root: the folder.
        entries: images that have a mask.
        encoding: of the mask values.
        faults: images without a mask, and masks without an image.
    """

    root: Path
    entries: tuple[MaskEntry, ...]
    encoding: LabelEncoding
    faults: tuple[Fault, ...] = ()
    _cache: _ImageCache = field(default_factory=_ImageCache, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> LandCoverImage:
        """Read an image and its mask. The arrays are cached: do not modify them.

        Raises:
            RasterUnreadable: a file is missing or damaged.
            UnknownLabels: the mask holds values that the encoding does not define.
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
                f"its image {picture.shape[1]} x {picture.shape[0]}; masks need the same size. Correct the mask"
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
        """Names of the groups, in natural order."""
        return tuple(sorted({entry.group for entry in self.entries}, key=natural))

    @cached_property
    def census(self) -> NDArray[np.int64]:
        """``(N, K)`` int64: pixels of each class in each image. Reads every file once."""
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
        """Split by groups. Returns the remaining images and the held-back ones.

        Args:
            hold_back: names of groups; None takes the last group, or the last fifth of the images if there is one
                group.

        Raises:
            UsageError: unknown group, or one side would be empty.
        """
        if hold_back is None:
            if len(self.groups) < 2:
                last = max(1, len(self) // 5)
                return self.only(self.entries[:-last]), self.only(self.entries[-last:])
            hold_back = self.groups[-1:]
        unknown = [group for group in hold_back if group not in self.groups]
        if unknown:
            near = did_you_mean(unknown[0], self.groups)
            raise UsageError(f"unknown group {unknown[0]!r}; the groups are {', '.join(self.groups)}{near}")
        kept = self.only(tuple(entry for entry in self.entries if entry.group not in hold_back))
        return kept, self.only(tuple(entry for entry in self.entries if entry.group in hold_back))

    def only(self, entries: Sequence[MaskEntry]) -> MaskFolder:
        """Return the folder with some of its entries.

        Raises:
            UsageError: no entries are given.
        """
        if not entries:
            raise UsageError(f"{self.root}: one side of the split is empty. Hold back fewer groups")
        return replace(self, entries=tuple(entries), _cache=_ImageCache(self._cache.limit))

    def check(self) -> tuple[Fault, ...]:
        """Read every file and return all faults."""
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
        """Return the facts of the folder in words, in the order of a table."""
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
    """Recognise a folder of images with masks, or read the masks.yaml that describes one.

    Args:
        path: the folder, or a masks.yaml.
        encoding: a name from `wasnow.data.encodings.ENCODINGS`; None uses masks.yaml, else the palette.
        strict: reject a folder in which images lack masks or masks lack images.

    Raises:
        DatasetError: not such a folder; unknown mask values; or there are faults and ``strict`` is set.
    """
    described = path if path.is_file() else path / FILE_NAME
    if described.is_file():
        folder = _described(described, encoding)
    elif path.is_dir():
        folder = _by_folder_names(path, encoding)
    else:
        raise DatasetError(f"{path}: no such folder. Give one that holds images and masks")
    if strict and folder.faults:
        lines = "; ".join(listed(folder.faults, 5))
        raise DatasetError(f"{path} has {len(folder.faults)} faults: {lines}", folder.faults)
    return folder


def _by_folder_names(root: Path, encoding: str | None) -> MaskFolder:
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
            f"{root} has no folders named images and masks with files of the same names. Describe it in a {FILE_NAME}"
        )
    chosen = encoding_named(encoding) if encoding is not None else _palette_of(entries, root)
    return MaskFolder(root, entries, _checked(chosen, root), faults)


def _described(file: Path, encoding: str | None) -> MaskFolder:
    content = load_yaml(file)
    try:
        description = MaskDescription.model_validate(content)
    except ValidationError as error:
        lines = [readable(one, tuple(MaskDescription.model_fields)) for one in error.errors()]
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
        raise DatasetError(f"{file}: no file matches image: {description.image!r}. Paths are relative to {root}")
    if encoding is not None or description.encoding is not None:
        chosen = encoding_named(encoding or description.encoding or "")
    else:
        chosen = class_encoding(file, description.values or {}, description.classes, joint=False)
    return MaskFolder(root, entries, _checked(chosen, root), faults)


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
        raise DatasetError(f"{root}: {encoding.name} does not name the classes of one date. Use an encoding that does")
    if not encoding.dense:
        raise DatasetError(
            f"{root}: {encoding.name} has a value for unchanged, but masks of one date have no change. "
            f"Give each value a class, or 'no label', in a {FILE_NAME}"
        )
    return encoding


def _palette_of(entries: Sequence[MaskEntry], root: Path) -> LabelEncoding:
    """Return the palette that covers nine tenths of the pixels of a few masks."""
    dense = [each for each in ENCODINGS.values() if each.of_colors and each.dense]
    counted: dict[tuple[int, int, int], int] = defaultdict(int)
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
            counted[value >> 16, value >> 8 & 255, value & 255] += count
    total = sum(counted.values())
    for each in dense:
        if total and sum(count for color, count in counted.items() if color in each.codes) >= 0.9 * total:
            return each
    held = ", ".join(",".join(map(str, color)) for color in sorted(counted, key=lambda c: -counted[c])[:6])
    raise DatasetError(
        f"{root}: the mask values have no known meaning ({f'colours {held}' if held else 'plain numbers'}). "
        f"Describe them in a {FILE_NAME}: image, mask and values (see docs/datasets.md)"
    )
