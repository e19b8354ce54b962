"""Augmentation: one geometry for both images, all labels and all prior masks, and a radiometry for each date.

    sample ─> scale and crop ─> flips, quarter turns ─> shift of after ─> swap of dates ─> colour and sensor jitter
              the same for before, after, before_classes, after_classes, change, priors     before │ after

Labels and masks are resampled by nearest neighbour. A shift of the second image shifts its prior masks too, because
they were made from it; where an image is continued by mirroring there is no mask. All random numbers come from the
given generator: the same generator state gives the same sample.
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
    """Random change of brightness, contrast, gamma and colours; drawn separately for each date.

    Drawn uniformly: contrast 1 +- ``contrast``, brightness +- ``brightness`` of full scale, gamma exp(+- ``gamma``), a
    gain 1 +- ``color`` for each band, saturation 1 +- ``saturation``.

    Raises:
        UsageError: a value is outside 0..1.
    """

    brightness: float = 0.10
    contrast: float = 0.20
    gamma: float = 0.20
    color: float = 0.06
    saturation: float = 0.25

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "gamma", "color", "saturation"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} {getattr(self, name)} must be from 0 to below 1, such as 0.2 for 20 per cent")

    def __call__(self, rgb: Rgb, rng: np.random.Generator) -> Rgb:
        """Return ``(H, W, 3)`` uint8 with random colours.

        For each band: 255 gain_b ((v / 255 - 1/2) contrast + 1/2 + brightness)^gamma.
        """
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
    """Random differences between two sensors and two atmospheres; drawn separately for each date.

    Attributes:
        grey: probability that a date is greyscale, 0..1.
        haze: largest share of one pale colour mixed into the image, 0..1: v' = v + share (colour - v).
        blur_px: standard deviation of the blur is drawn from 0 to this; below 0.3 px no blur is applied.
        noise: standard deviation of the noise is drawn from 0 to this, in grey levels.

    Raises:
        UsageError: a value is outside its range.
    """

    grey: float = 0.1
    haze: float = 0.3
    blur_px: float = 1.2
    noise: float = 6.0

    def __post_init__(self) -> None:
        if not (0 <= self.grey <= 1 and 0 <= self.haze < 1 and self.blur_px >= 0 and self.noise >= 0):
            raise UsageError(
                f"grey {self.grey:g}, haze {self.haze:g}, blur_px {self.blur_px:g}, noise {self.noise:g}: "
                "grey and haze must be 0..1, and none may be negative"
            )

    def __call__(self, rgb: Rgb, rng: np.random.Generator) -> Rgb:
        """Return ``(H, W, 3)`` uint8 as a random sensor would record it."""
        without_colours, veil, sigma, grain = rng.uniform(size=4)
        pale = rng.uniform(0.6, 1.0) * 255 * (1 + rng.uniform(-0.08, 0.08, 3))
        seed = int(rng.integers(2**32))
        out = rgb.astype(np.float32)
        if without_colours < self.grey:
            out[:] = (out @ _LUMA)[..., None]
        if self.blur_px * sigma >= 0.3:
            out = ndimage.gaussian_filter(out, (self.blur_px * sigma, self.blur_px * sigma, 0), truncate=2.5)
        # Clear air is more frequent than haze: the square of a uniform number is mostly small.
        share = np.float32(self.haze * veil**2)
        if share:
            out += share * (pale.astype(np.float32) - out)
        if self.noise:
            drawn = np.random.default_rng(seed).standard_normal(out.shape, dtype=np.float32)
            out += drawn * np.float32(self.noise * grain**2)
        out += np.float32(0.5)
        return np.clip(out, 0, 255, out=out).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Augment:
    """Random augmentation of a sample.

    Attributes:
        crop: side of the square that is cut out at random, pixels; None keeps the whole image. A smaller image is
            extended by mirroring, with no label there.
        scale: the image is resampled by a factor drawn from this range (log-uniform) before cropping; needs ``crop``.
        flips: mirror rows, mirror columns, each with probability 1/2.
        quarter_turns: rotate by 0, 90, 180 or 270 degrees; by 0 or 180 where the result is not square.
        swap: probability that the dates are exchanged, with their labels.
        light: colour jitter of each date; None for none.
        shift_px: the second image and its prior masks are shifted by up to this in rows and in columns, 0..16. Its
            labels are not: real pairs are never aligned perfectly, and the network must tolerate that.
        camera: sensor jitter of each date; None for none.

    Raises:
        UsageError: a value is outside its range.
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
            raise UsageError(f"scale {low:g} to {high:g} must be ascending and above 0, such as (0.8, 1.25)")
        if (low, high) != (1.0, 1.0) and self.crop is None:
            raise UsageError("scale changes the size of images. Set a crop as well, so that all have the same size")
        if self.crop is not None and self.crop < 1:
            raise UsageError(f"crop {self.crop} must be at least 1 px")
        if not 0 <= self.swap <= 1:
            raise UsageError(f"swap {self.swap:g} must be a probability, 0..1")
        if not 0 <= self.shift_px <= 16:
            raise UsageError(
                f"shift_px {self.shift_px:g} must be 0..16: beyond that, images no longer match their labels"
            )

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the augmented sample.

        Args:
            sample: not modified.
            rng: source of all random numbers; the number of draws depends on the settings only.
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
        for jitter in (self.light, self.camera):
            if jitter is not None:
                sample = replace(sample, before=jitter(sample.before, rng), after=jitter(sample.after, rng))
        return sample


def swapped(sample: Sample) -> Sample:
    """Return the sample with its dates exchanged, including labels and priors."""
    return replace(
        sample,
        before=sample.after,
        after=sample.before,
        before_classes=sample.after_classes,
        after_classes=sample.before_classes,
        priors=None if sample.priors is None else np.ascontiguousarray(sample.priors[::-1]),
    )


def turn(array: A, mirror: NDArray[np.int64], turns: int) -> A:
    """Mirror rows if ``mirror[0]``, columns if ``mirror[1]``, then rotate by ``turns`` quarter turns to the left.

    Args:
        array: ``(H, W)`` or ``(H, W, 3)``.
        mirror: ``(2,)`` 0 or 1.
        turns: 0 to 3.
    """
    mirrored = array[:: -1 if mirror[0] else 1, :: -1 if mirror[1] else 1]
    return np.ascontiguousarray(np.rot90(mirrored, turns))


def cut(rgb: Rgb, row: int, col: int, side: int) -> Rgb:
    """Return ``(side, side, 3)`` from ``row``, ``col``, mirrored beyond the edge of a smaller image.

    Args:
        rgb: ``(H, W, 3)``.
        row: first row.
        col: first column.
        side: rows and columns of the result.
    """
    rows, cols = (
        _mirrored(np.arange(start, start + side), size) for start, size in zip((row, col), rgb.shape[:2], strict=True)
    )
    if row + side <= rgb.shape[0] and col + side <= rgb.shape[1]:
        return np.ascontiguousarray(rgb[row : row + side, col : col + side])
    return rgb[np.ix_(rows, cols)]


def cut_labels(codes: Codes, row: int, col: int, side: int, *, beyond: int = NO_LABEL) -> Codes:
    """Return ``(side, side)`` codes from ``row``, ``col``, with ``beyond`` outside the edge (default: no label).

    Args:
        codes: ``(H, W)``.
        row: first row.
        col: first column.
        side: rows and columns of the result.
        beyond: value outside the edge.
    """
    out = np.full((side, side), beyond, np.uint8)
    part = codes[row : row + side, col : col + side]
    out[: part.shape[0], : part.shape[1]] = part
    return out


def resample(rgb: Rgb, rows: NDArray[np.floating], cols: NDArray[np.floating]) -> Rgb:
    """Return bilinear values at fractional rows and columns (pixel centres at integers), mirrored beyond the edge.

    Args:
        rgb: ``(H, W, 3)``.
        rows: ``(h,)`` row coordinates of the result.
        cols: ``(w,)`` column coordinates of the result.
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
    """``first + weight (second - first)`` in float32, computed in place."""
    mixed = second.astype(np.float32)
    mixed -= first
    mixed *= weight
    mixed += first
    return mixed


def nearest(codes: Codes, rows: NDArray[np.floating], cols: NDArray[np.floating], *, beyond: int = NO_LABEL) -> Codes:
    """Return the code of the pixel that contains each point, with ``beyond`` outside the edge (default: no label).

    Args:
        codes: ``(H, W)``.
        rows: ``(h,)`` row coordinates of the result.
        cols: ``(w,)`` column coordinates of the result.
        beyond: value outside the edge.
    """
    r, c = np.floor(rows + 0.5).astype(np.int64), np.floor(cols + 0.5).astype(np.int64)
    height, width = codes.shape
    out = codes[np.ix_(np.clip(r, 0, height - 1), np.clip(c, 0, width - 1))]
    inside = ((r >= 0) & (r < height))[:, None] & ((c >= 0) & (c < width))[None]
    return out if inside.all() else np.where(inside, out, np.uint8(beyond))


def _mirrored(index: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Mirror indices beyond the edge back into the image: 0 1 2 3 | 2 1 0 1 2 ..."""
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
    """Apply one function to both images, one to all labels, one to the prior mask of each date and word."""

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
    """Apply a function to each mask of ``(W, H, Wd)``."""
    return np.stack([each(mask) for mask in masks])
