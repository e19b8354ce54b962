"""Image pairs generated from images of a single date, to train semantic change detection with land-cover data.

    re-pairing        before = a crop of one image        after = a crop of another     (Zheng et al. 2021, ChangeStar)
    transplantation   before = a crop of one image        after = the same crop with segments of other images pasted
                                                                  in, their borders blended

In both cases the dates are then put in random order, the second is shifted by less than a pixel, and each date gets
its own colours and noise.

**Labels are exact.** With the blending weight `a` (a Gaussian-blurred segment), host h and donor d, everywhere

    image = a d + (1 - a) h          class = class of d where a >= 1/2, else class of h

so a pixel has the class that contributes at least half of its colour. This holds at a blended border, and also where
the weight includes some of the donor's surroundings (the donor's own label is used there). Change is where the classes
of the dates differ: grass pasted onto grass is unchanged, although it looks different. Labels are on the grid of the
first date; the second image is shifted by at most half a pixel, and labels are not. A pixel without a label at one
date has none at both.

A pair depends on the images, the recipe, the seed and its index only.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wasnow.data.mask_folder import MaskFolder
from wasnow.data.samples import Codes, Sample
from wasnow.data.transforms import ColorJitter, Rgb, cut, cut_labels, resample, turn
from wasnow.errors import UsageError
from wasnow.vocabulary import NO_LABEL, Vocabulary

_EDGE = 1
"""Extra pixels around the image, needed for a shift of less than one pixel."""

_TRIES = 12
_LEAST_SEGMENT = 12


@dataclass(frozen=True, slots=True)
class PairRecipe:
    """Parameters of pair generation.

    Attributes:
        size: side of the images, pixels; at least 16.
        transplant: probability of transplantation, 0..1; otherwise two images are re-paired.
        segments: smallest and largest number of pasted segments.
        segment_share: range of the largest share of the image that one segment may cover, drawn log-uniformly; larger
            segments are cut to a blob.
        feather_px: range of the standard deviation of the blending at borders, pixels.
        shift_px: largest shift of the second date in rows and in columns, 0 to 0.5 pixels.
        light: colour jitter of each date; None for none.
        noise: standard deviation of each date's noise is drawn from 0 to this, in grey levels.
        turns: mirror and rotate each crop at random.
        swap: probability that the dates are exchanged, so that objects disappear as often as they appear.

    Raises:
        UsageError: a value is outside its range.
    """

    size: int = 512
    transplant: float = 0.75
    segments: tuple[int, int] = (1, 6)
    segment_share: tuple[float, float] = (0.01, 0.25)
    feather_px: tuple[float, float] = (0.6, 2.0)
    shift_px: float = 0.5
    light: ColorJitter | None = field(default_factory=ColorJitter)
    noise: float = 3.0
    turns: bool = True
    swap: float = 0.5

    def __post_init__(self) -> None:
        if self.size < 16:
            raise UsageError(f"size {self.size} px is too small for pairs; it must be at least 16")
        if not 0 <= self.shift_px <= 0.5:
            raise UsageError(f"shift_px {self.shift_px:g} would make labels wrong; it must be 0 to 0.5")
        if not 1 <= self.segments[0] <= self.segments[1]:
            raise UsageError(f"segments {self.segments[0]} to {self.segments[1]} must be ascending and at least 1")
        if not 0 < self.segment_share[0] <= self.segment_share[1] <= 1:
            raise UsageError(f"segment_share {self.segment_share} must be ascending within 0..1")
        if not 0 <= self.feather_px[0] <= self.feather_px[1]:
            raise UsageError(f"feather_px {self.feather_px} must be ascending and at least 0")
        for name in ("transplant", "swap"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} {getattr(self, name):g} must be a probability, 0..1")
        if self.noise < 0:
            raise UsageError(f"noise {self.noise:g} must not be negative")


@dataclass(frozen=True)
class GeneratedPairs:
    """A sequence of ``length`` generated pairs. `pair` accepts any index from 0, also beyond the length.

    Raises:
        UsageError: no pair can be generated from these images.
    """

    masks: MaskFolder
    length: int
    seed: int = 0
    recipe: PairRecipe = field(default_factory=PairRecipe)

    def __post_init__(self) -> None:
        if self.length < 1 or self.seed < 0:
            raise UsageError(f"{self.length} pairs, seed {self.seed}: there must be at least 1 pair and a seed from 0")
        if len(self.vocabulary) < 2:
            raise UsageError("the masks have one class only; pairs with change need at least two")

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.length:
            raise IndexError(f"pair {index} of {self.length}")
        return self.pair(index)

    @property
    def vocabulary(self) -> Vocabulary:
        """See `wasnow.data.samples.Samples`."""
        return self.masks.vocabulary

    @cached_property
    def names(self) -> tuple[str, ...]:
        """See `wasnow.data.samples.Samples`."""
        return tuple(self._name(index) for index in range(self.length))

    @cached_property
    def fingerprint(self) -> str:
        """See `wasnow.data.samples.Samples`."""
        text = repr((self.masks.fingerprint, self.length, self.seed, self.recipe))
        return hashlib.sha256(text.encode()).hexdigest()

    def pair(self, index: int) -> Sample:
        """Return pair number ``index``; the same index always gives the same pair.

        Raises:
            RasterUnreadable, UnknownLabels, InputError: an image or mask of the pair is faulty.
        """
        before, after, first, second = self.covers(index)
        return Sample(self._name(index), before, after, *from_to(first, second))

    def covers(self, index: int) -> tuple[Rgb, Rgb, Codes, Codes]:
        """Return the images of pair number ``index``, and the classes of every pixel at both dates.

        Returns:
            Before and after, ``(H, W, 3)`` uint8 each, and their class codes 1..K or 255, ``(H, W)`` uint8 each.

        Raises:
            RasterUnreadable, UnknownLabels, InputError: as for `pair`.
        """
        rng = np.random.default_rng([self.seed, index])
        recipe = self.recipe
        frame = recipe.size + 2 * _EDGE
        host = self._crop(int(rng.integers(len(self.masks))), rng, frame)
        if rng.uniform() < recipe.transplant:
            other = self._transplanted(host, rng)
        else:
            other = self._crop(self._another(host[2], rng), rng, frame)[:2]
        first, second = host[:2], other
        if rng.uniform() < recipe.swap:
            first, second = second, first
        inner = slice(_EDGE, frame - _EDGE)
        before, after = first[0][inner, inner], second[0][inner, inner]
        shift = rng.uniform(-recipe.shift_px, recipe.shift_px, 2) if recipe.shift_px else np.zeros(2)
        if shift.any():
            steps = np.arange(_EDGE, frame - _EDGE, dtype=np.float64)
            after = resample(second[0], steps - shift[0], steps - shift[1])
        before, after = (self._with_radiometry(picture, rng) for picture in (before, after))
        return before, after, first[1][inner, inner], second[1][inner, inner]

    def _name(self, index: int) -> str:
        return f"{index:06d}"

    def _another(self, index: int, rng: np.random.Generator) -> int:
        """Return a random image index other than ``index``; the same one if there is a single image."""
        if len(self.masks) == 1:
            return index
        return int((index + 1 + rng.integers(len(self.masks) - 1)) % len(self.masks))

    def _crop(self, index: int, rng: np.random.Generator, side: int) -> tuple[Rgb, Codes, int]:
        """Return a random crop of an image, randomly rotated: image, classes, and the image index."""
        single = self.masks[index]
        at = rng.uniform(size=2)
        row, col = (int(at[i] * max(0, single.classes.shape[i] - side + 1)) for i in range(2))
        picture, classes = cut(single.picture, row, col, side), cut_labels(single.classes, row, col, side)
        return (*self._turned(picture, classes, rng), index)

    def _turned(self, picture: Rgb, classes: Codes, rng: np.random.Generator) -> tuple[Rgb, Codes]:
        if not self.recipe.turns:
            return picture, classes
        mirror, turns = rng.integers(0, 2, 2), int(rng.integers(0, 4))
        return turn(picture, mirror, turns), turn(classes, mirror, turns)

    def _with_radiometry(self, picture: Rgb, rng: np.random.Generator) -> Rgb:
        """Apply the colours and noise of one date."""
        recipe = self.recipe
        if recipe.light is not None:
            picture = recipe.light(picture, rng)
        sigma = rng.uniform(0, recipe.noise) if recipe.noise else 0.0
        if sigma:
            grain = rng.standard_normal(picture.shape, dtype=np.float32)
            grain *= np.float32(sigma)
            grain += picture
            grain += np.float32(0.5)
            picture = np.clip(grain, 0, 255, out=grain).astype(np.uint8)
        return np.ascontiguousarray(picture)

    def _transplanted(self, host: tuple[Rgb, Codes, int], rng: np.random.Generator) -> tuple[Rgb, Codes]:
        """Return the host with segments of other images pasted in."""
        picture, classes, _ = host
        sigma = float(rng.uniform(*self.recipe.feather_px))
        reach = math.ceil(3 * sigma)
        # The canvas is the host with donors pasted without blending, with the surroundings that blending reaches.
        canvas, canvas_classes = picture.copy(), classes.copy()
        core = np.zeros(classes.shape, np.bool_)
        taken = np.zeros(classes.shape, np.bool_)
        for _ in range(int(rng.integers(self.recipe.segments[0], self.recipe.segments[1], endpoint=True))):
            donor = self._segment(rng, classes.shape[0])
            if donor is None:
                continue
            donor_picture, donor_classes, segment = donor
            around = _dilated(segment, reach)
            donor_to, host_to = _placed(segment, classes.shape, rng)
            new_core = np.zeros_like(core)
            new_core[host_to] = segment[donor_to]
            new_all = np.zeros_like(core)
            new_all[host_to] = around[donor_to]
            if (new_all & taken).any():
                continue  # at two blended borders, a pixel would mix three images
            taken |= new_all
            core |= new_core
            canvas[host_to][around[donor_to]] = donor_picture[donor_to][around[donor_to]]
            canvas_classes[host_to][around[donor_to]] = donor_classes[donor_to][around[donor_to]]
        return blend(picture, classes, canvas, canvas_classes, core, sigma)

    def _segment(self, rng: np.random.Generator, side: int) -> tuple[Rgb, Codes, NDArray[np.bool_]] | None:
        """Return a crop with one segment. Classes are drawn uniformly, so that rare classes are pasted as often."""
        present = np.flatnonzero(self.masks.census.sum(axis=0))
        code = int(rng.choice(present)) + 1
        share = math.exp(rng.uniform(*np.log(self.recipe.segment_share)))
        for _ in range(_TRIES):
            counts = self.masks.census[:, code - 1]
            index = int(rng.choice(len(counts), p=counts / counts.sum()))
            single = self.masks[index]
            spots = np.flatnonzero(single.classes == code)
            spot = np.unravel_index(int(spots[rng.integers(spots.size)]), single.classes.shape)
            corner = [int(spot[i]) - int(rng.integers(side // 4, side - side // 4)) for i in range(2)]
            top, left = (min(max(0, corner[i]), max(0, single.classes.shape[i] - side)) for i in range(2))
            picture, classes = cut(single.picture, top, left, side), cut_labels(single.classes, top, left, side)
            parts, _ = ndimage.label(classes == code)
            at = (int(spot[0]) - top, int(spot[1]) - left)
            segment: NDArray[np.bool_] = parts == parts[at]
            if segment.sum() > share * side * side:
                segment = segment & _blob(at, share * side * side, segment.shape, rng)
                parts, _ = ndimage.label(segment)
                segment = parts == parts[at]
            if segment.sum() >= _LEAST_SEGMENT:
                picture, classes, segment = self._turned_all(picture, classes, segment, rng)
                return picture, classes, segment
        return None

    def _turned_all(
        self, picture: Rgb, classes: Codes, segment: NDArray[np.bool_], rng: np.random.Generator
    ) -> tuple[Rgb, Codes, NDArray[np.bool_]]:
        if not self.recipe.turns:
            return picture, classes, segment
        mirror, turns = rng.integers(0, 2, 2), int(rng.integers(0, 4))
        turned = turn(segment.view(np.uint8), mirror, turns).view(np.bool_)
        return turn(picture, mirror, turns), turn(classes, mirror, turns), turned


def blend(
    host: Rgb, host_classes: Codes, canvas: Rgb, canvas_classes: Codes, core: NDArray[np.bool_], sigma: float
) -> tuple[Rgb, Codes]:
    """Blend host and canvas into one image with exact labels; see the module docstring.

    Args:
        host: ``(H, W, 3)`` uint8 image to paste onto.
        host_classes: ``(H, W)`` codes.
        canvas: ``(H, W, 3)`` uint8 image to paste.
        canvas_classes: ``(H, W)`` codes.
        core: ``(H, W)`` where the canvas is pasted.
        sigma: standard deviation of the Gaussian that blurs the border of ``core``, pixels; 0 for a hard border.
    """
    weight = core.astype(np.float32)
    if sigma > 0:
        weight = ndimage.gaussian_filter(weight, sigma, truncate=3.0, mode="nearest")
    a = weight[..., None]
    picture: Rgb = np.rint(a * canvas + (1 - a) * host).astype(np.uint8)
    return picture, np.where(weight >= 0.5, canvas_classes, host_classes)


def from_to(first: Codes, second: Codes) -> tuple[Codes, Codes, Codes]:
    """Return the classes of both dates (1..K, 255) as labels of a `Sample`: before_classes, after_classes, change."""
    unlabelled = (first == NO_LABEL) | (second == NO_LABEL)
    changed = (first != second) & ~unlabelled
    change = np.where(unlabelled, np.uint8(NO_LABEL), changed.astype(np.uint8))
    rest = np.where(unlabelled, np.uint8(NO_LABEL), np.uint8(0))
    return np.where(changed, first, rest), np.where(changed, second, rest), change


def _dilated(segment: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """Return the segment and all pixels within ``reach`` rows and columns of it."""
    if reach == 0:
        return segment
    grown: NDArray[np.uint8] = ndimage.maximum_filter(segment.view(np.uint8), 2 * reach + 1, mode="constant")
    return grown.view(np.bool_)


def _placed(
    segment: NDArray[np.bool_], shape: tuple[int, ...], rng: np.random.Generator
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Place the centre of a segment at random in the host: where the two overlap, in the donor and in the host."""
    rows, cols = np.flatnonzero(segment.any(axis=1)), np.flatnonzero(segment.any(axis=0))
    at = rng.uniform(size=2)
    donor, host = [], []
    for i, inside in enumerate((rows, cols)):
        middle = (int(inside[0]) + int(inside[-1])) // 2
        offset = int(at[i] * shape[i]) - middle
        start, stop = max(0, -offset), min(shape[i], shape[i] - offset)
        donor.append(slice(start, stop))
        host.append(slice(start + offset, stop + offset))
    return (donor[0], donor[1]), (host[0], host[1])


def _blob(at: tuple[int, int], area: float, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return a rotated ellipse or rectangle of about ``area`` pixels around a point, like a field or a yard."""
    stretch, angle = math.exp(rng.uniform(-0.7, 0.7)), rng.uniform(0, math.pi)
    row, col = np.ogrid[: shape[0], : shape[1]]
    along = (col - at[1]) * math.cos(angle) + (row - at[0]) * math.sin(angle)
    across = (row - at[0]) * math.cos(angle) - (col - at[1]) * math.sin(angle)
    inside: NDArray[np.bool_]
    if rng.uniform() < 0.5:
        radius = math.sqrt(area / math.pi)
        inside = (along / (radius * stretch)) ** 2 + (across * stretch / radius) ** 2 <= 1
    else:
        half = math.sqrt(area) / 2
        inside = (np.abs(along) <= half * stretch) & (np.abs(across) <= half / stretch)
    return inside
