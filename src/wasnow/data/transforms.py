"""Paired transforms: one geometry for both pictures and all labels, a radiometry of its own for each date.

    sample ─> scale and crop ─> flips, quarter turns ─> after displaced ─> dates swapped ─> light, camera
              the same for before, after, before_classes, after_classes, change, priors     before │ after

Labels and masks are never interpolated. Priors belong to the pictures: what displaces the second picture displaces its
masks, and where a picture is continued by mirroring there is no mask. Everything is drawn from the generator that is
handed in: the same generator state gives the same sample.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wasnow.data.samples import Codes, Sample
from wasnow.errors import UsageError
from wasnow.vocabulary import NO_LABEL

Rgb = NDArray[np.uint8]
A = TypeVar("A", Rgb, Codes)

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True, slots=True)
class ColorJitter:
    """How differently two pictures of one place may come out; each date draws its own.

    Drawn uniformly: contrast 1 +- ``contrast``, brightness +- ``brightness`` of full scale, gamma exp(+- ``gamma``), a
    gain 1 +- ``color`` for each band, saturation 1 +- ``saturation``.
    """

    brightness: float = 0.10
    contrast: float = 0.20
    gamma: float = 0.20
    color: float = 0.06
    saturation: float = 0.25

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "gamma", "color", "saturation"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} {getattr(self, name)} is outside 0..1; write 0.2 for up to 20 per cent")

    def __call__(self, rgb: Rgb, rng: np.random.Generator) -> Rgb:
        """``(H, W, 3)`` in another light: per band  255 gain_b ((v / 255 - 1/2) contrast + 1/2 + brightness)^gamma."""
        contrast = 1 + rng.uniform(-self.contrast, self.contrast)
        brightness = rng.uniform(-self.brightness, self.brightness)
        gamma = np.exp(rng.uniform(-self.gamma, self.gamma))
        gains = 1 + rng.uniform(-self.color, self.color, 3)
        saturation = np.float32(1 + rng.uniform(-self.saturation, self.saturation))
        tone = np.clip((np.arange(256) / 255 - 0.5) * contrast + 0.5 + brightness, 0, 1) ** gamma
        curves = (255 * np.clip(tone[None] * gains[:, None], 0, 1)).astype(np.float32)
        if self.saturation == 0:
            table = np.rint(curves).astype(np.uint8)
            return np.stack([table[band][rgb[..., band]] for band in range(3)], axis=-1)
        bands = [curves[band].take(rgb[..., band]) for band in range(3)]
        grey = sum(weight * band for weight, band in zip(_LUMA, bands, strict=True))
        grey *= np.float32(1) - saturation
        lit = np.empty(rgb.shape, np.uint8)
        for at, band in enumerate(bands):
            band *= saturation
            band += grey
            band += np.float32(0.5)
            lit[..., at] = np.clip(band, 0, 255, out=band)
        return lit


@dataclass(frozen=True, slots=True)
class SensorJitter:
    """How differently two cameras and two skies may show one place; each date draws its own.

    Attributes:
        grey: probability that a date has no colours.
        haze: a veil of up to this share of one pale colour over everything: v' = v + share (colour - v).
        blur_px: standard deviation of the blur, drawn from 0 to this; below 0.3 nothing happens.
        noise: standard deviation of the noise, in grey levels, drawn from 0 to this.
    """

    grey: float = 0.1
    haze: float = 0.3
    blur_px: float = 1.2
    noise: float = 6.0

    def __post_init__(self) -> None:
        if not (0 <= self.grey <= 1 and 0 <= self.haze < 1 and self.blur_px >= 0 and self.noise >= 0):
            raise UsageError(
                f"grey {self.grey:g}, haze {self.haze:g}, blur_px {self.blur_px:g}, noise {self.noise:g}: "
                "the first two are shares of 0..1, none is negative"
            )

    def __call__(self, rgb: Rgb, rng: np.random.Generator) -> Rgb:
        """``(H, W, 3)`` as another camera would have it."""
        without_colours, veil, sigma, grain = rng.uniform(size=4)
        pale = rng.uniform(0.6, 1.0) * 255 * (1 + rng.uniform(-0.08, 0.08, 3))
        seed = int(rng.integers(2**32))
        seen = rgb.astype(np.float32)
        if without_colours < self.grey:
            seen[:] = (seen @ _LUMA)[..., None]
        if self.blur_px * sigma >= 0.3:
            seen = ndimage.gaussian_filter(seen, (self.blur_px * sigma, self.blur_px * sigma, 0), truncate=2.5)
        # Skies are mostly clear: the square of a uniform number is mostly small.
        share = np.float32(self.haze * veil**2)
        if share:
            seen += share * (pale.astype(np.float32) - seen)
        if self.noise:
            drawn = np.random.default_rng(seed).standard_normal(seen.shape, dtype=np.float32)
            seen += drawn * np.float32(self.noise * grain**2)
        seen += np.float32(0.5)
        return np.clip(seen, 0, 255, out=seen).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Augment:
    """A sample, seen anew.

    Attributes:
        crop: side of the square that is cut out at random; None keeps the whole picture. A smaller picture is filled up
            by mirroring, without labels there.
        scale: the pixel grid is made finer or coarser by a factor drawn from this range (log-uniform) before cropping;
            needs ``crop``.
        flips: mirror rows, mirror columns, each with probability 1/2.
        quarter_turns: by 0, 90, 180 or 270 degrees; only where the picture is square, or cropped.
        swap: probability that the dates change places, with their labels.
        light: how each date's picture varies; None leaves them as they are.
        shift_px: the second picture is displaced by up to this, in rows and in cols, and so are its priors, which were
            found in it; its labels are not: real pairs are never aligned perfectly, and an answer must not hang on it.
        camera: how each date's picture varies further; None leaves them as they are.
    """

    crop: int | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    flips: bool = True
    quarter_turns: bool = True
    swap: float = 0.5
    light: ColorJitter | None = None
    shift_px: float = 0.0
    camera: SensorJitter | None = None

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0 < low <= high:
            raise UsageError(f"scale {low:g} to {high:g} does not rise from above 0; write such as (0.8, 1.25)")
        if (low, high) != (1.0, 1.0) and self.crop is None:
            raise UsageError("a scale changes the size of pictures; give a crop as well, so that all come out alike")
        if self.crop is not None and self.crop < 1:
            raise UsageError(f"a crop of {self.crop} px holds nothing")
        if not 0 <= self.swap <= 1:
            raise UsageError(f"swap {self.swap:g} is no probability, 0..1")
        if not 0 <= self.shift_px <= 16:
            raise UsageError(
                f"shift_px {self.shift_px:g} is outside 0..16: beyond that, pictures no longer match labels"
            )

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The same sample in another geometry, light and order of dates.

        Args:
            sample: is left as it is.
            rng: everything is drawn from it, always the same number of draws for the same settings.
        """
        height, width = sample.change.shape if sample.change is not None else sample.before.shape[:2]
        if self.crop is not None:
            factor = float(np.exp(rng.uniform(*np.log(self.scale))))
            at = rng.uniform(size=2)
            side = self.crop
            reach = side / factor
            row, col = (float(at[i] * max(0.0, size - reach)) for i, size in enumerate((height, width)))
            if factor == 1.0:
                row, col = round(row), round(col)
                sample = _each(
                    sample,
                    lambda a: cut(a, int(row), int(col), side),
                    lambda a: cut_labels(a, int(row), int(col), side),
                    lambda a: cut_labels(a, int(row), int(col), side, beyond=0),
                )
            else:
                steps: NDArray[np.float64] = (np.arange(side, dtype=np.float64) + 0.5) / factor - 0.5
                rows, cols = row + steps, col + steps
                sample = _each(
                    sample,
                    lambda a: resample(a, rows, cols),
                    lambda a: nearest(a, rows, cols),
                    lambda a: nearest(a, rows, cols, beyond=0),
                )
            height = width = side
        mirror = rng.integers(0, 2, 2) if self.flips else np.zeros(2, np.int64)
        turns = int(rng.integers(0, 4)) if self.quarter_turns else 0
        if height != width:
            turns -= turns % 2
        if mirror.any() or turns:
            sample = _each(sample, *[lambda a: turn(a, mirror, turns)] * 3)
        if self.shift_px:
            down, right = rng.uniform(-self.shift_px, self.shift_px, 2)
            rows, cols = (np.arange(size, dtype=np.float64) for size in sample.after.shape[:2])
            sample = replace(sample, after=resample(sample.after, rows - down, cols - right))
            if sample.priors is not None:
                first, second = sample.priors
                moved = _planes(second, lambda a: nearest(a, rows - down, cols - right, beyond=0))
                sample = replace(sample, priors=np.stack([first, moved]))
        if rng.uniform() < self.swap:
            sample = swapped(sample)
        for seen in (self.light, self.camera):
            if seen is not None:
                sample = replace(sample, before=seen(sample.before, rng), after=seen(sample.after, rng))
        return sample


def swapped(sample: Sample) -> Sample:
    """The dates in the other order, labels and priors with them."""
    return replace(
        sample,
        before=sample.after,
        after=sample.before,
        before_classes=sample.after_classes,
        after_classes=sample.before_classes,
        priors=None if sample.priors is None else np.ascontiguousarray(sample.priors[::-1]),
    )


def turn(array: A, mirror: NDArray[np.int64], turns: int) -> A:
    """Rows mirrored where ``mirror[0]``, columns where ``mirror[1]``, then ``turns`` quarter turns to the left."""
    seen = array[:: -1 if mirror[0] else 1, :: -1 if mirror[1] else 1]
    return np.ascontiguousarray(np.rot90(seen, turns))


def cut(rgb: Rgb, row: int, col: int, side: int) -> Rgb:
    """``(side, side, 3)`` from ``row``, ``col``; mirrored beyond the edge where the picture is smaller."""
    rows, cols = (
        _mirrored(np.arange(start, start + side), size) for start, size in zip((row, col), rgb.shape[:2], strict=True)
    )
    if row + side <= rgb.shape[0] and col + side <= rgb.shape[1]:
        return np.ascontiguousarray(rgb[row : row + side, col : col + side])
    return rgb[np.ix_(rows, cols)]


def cut_labels(codes: Codes, row: int, col: int, side: int, *, beyond: int = NO_LABEL) -> Codes:
    """The same of labels; ``beyond`` the edge, which is no label."""
    out = np.full((side, side), beyond, np.uint8)
    part = codes[row : row + side, col : col + side]
    out[: part.shape[0], : part.shape[1]] = part
    return out


def resample(rgb: Rgb, rows: NDArray[np.floating], cols: NDArray[np.floating]) -> Rgb:
    """Bilinear values at fractional rows and cols (pixel centres at whole numbers), mirrored beyond the edge.

    Args:
        rgb: ``(H, W, 3)``.
        rows: ``(h,)`` where the rows of the answer lie.
        cols: ``(w,)`` likewise.
    """
    r0, c0 = np.floor(rows).astype(np.int64), np.floor(cols).astype(np.int64)
    down, right = (rows - r0).astype(np.float32)[:, None, None], (cols - c0).astype(np.float32)[:, None]
    left, next_ = (_mirrored(c0 + step, rgb.shape[1]) for step in (0, 1))
    # Gather bytes and mix floats: less memory traffic than gathering floats.
    upper, lower = (
        _mixed(line.take(left, axis=1), line.take(next_, axis=1), right)
        for line in (rgb[_mirrored(r0 + step, rgb.shape[0])] for step in (0, 1))
    )
    values = _mixed(upper, lower, down)
    values += np.float32(0.5)
    return values.astype(np.uint8)


def _mixed(first: NDArray[Any], second: NDArray[Any], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """``first + weight (second - first)`` in float32, in place where it can be."""
    mixed = second.astype(np.float32)
    mixed -= first
    mixed *= weight
    mixed += first
    return mixed


def nearest(codes: Codes, rows: NDArray[np.floating], cols: NDArray[np.floating], *, beyond: int = NO_LABEL) -> Codes:
    """The label whose pixel holds each point; ``beyond`` the edge, which is no label."""
    r, c = np.floor(rows + 0.5).astype(np.int64), np.floor(cols + 0.5).astype(np.int64)
    height, width = codes.shape
    out = codes[np.ix_(np.clip(r, 0, height - 1), np.clip(c, 0, width - 1))]
    inside = ((r >= 0) & (r < height))[:, None] & ((c >= 0) & (c < width))[None]
    return out if inside.all() else np.where(inside, out, np.uint8(beyond))


def _mirrored(index: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """0 1 2 3 | 2 1 0 1 2 ...: indices beyond the edge, folded back."""
    if size == 1:
        return np.zeros_like(index)
    folded = np.abs(index) % (2 * size - 2)
    return np.where(folded < size, folded, 2 * size - 2 - folded)


def _each(
    sample: Sample,
    picture: Callable[[Rgb], Rgb],
    labels: Callable[[Codes], Codes],
    mask: Callable[[Codes], Codes],
) -> Sample:
    """One function on both pictures, one on all labels, one on the mask of each date and word."""

    def of(codes: Codes | None) -> Codes | None:
        return None if codes is None else labels(codes)

    return Sample(
        sample.name,
        picture(sample.before),
        picture(sample.after),
        of(sample.before_classes),
        of(sample.after_classes),
        of(sample.change),
        None if sample.priors is None else np.stack([_planes(date, mask) for date in sample.priors]),
    )


def _planes(masks: Codes, each: Callable[[Codes], Codes]) -> Codes:
    """The same function on each mask of ``(W, H, Wd)``."""
    return np.stack([each(mask) for mask in masks])
