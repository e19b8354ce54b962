"""Training pairs of semantic-cd-mini, drawn on the fly: crops of places at random scales, with parts transplanted.

    place ─ window, scale, turn ─> one picture, or the same window at two real dates
          ─ segments of another place set into one date ─> change, where the sets of words exclude each other
          ─ swap, shift, light and camera of each date  ─> Pair

Pair number ``index`` of a seed is always the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional

from mix import BARE, BUILDING, REPAIRED, ROAD, SOURCES, TRANSPLANT, UNKNOWN, WATER
from sources import Bool, Place, Rgb, Sets
from wasnow.data.transforms import ColorJitter, SensorJitter, resample, turn

LIGHT = ColorJitter(brightness=0.08, contrast=0.25, gamma=0.30, color=0.08, saturation=0.35)
CAMERA = SensorJitter(grey=0.06, haze=0.3, blur_px=1.0, noise=5.0)
SHIFT_PX = 1.5
SHADOWS = 0.3
"""Share of the dates into which shadows are drawn."""
DONORS = ("dubai", "yinx", "rio", "banepa", "synthetic")
DONOR_WEIGHTS = (0.28, 0.30, 0.17, 0.15, 0.10)
SINGLE = np.array([bits.bit_count() == 1 for bits in range(256)])


@dataclass(frozen=True, slots=True)
class Pair:
    """What the network learns from.

    Attributes:
        before, after: ``(S, S, 3)`` uint8.
        labels: ``(2, S, S)`` sets of words.
        change: ``(S, S)`` uint8: 1 changed, 0 not, 255 not known.
        gsd_m: pixel side, metres.
    """

    before: Rgb
    after: Rgb
    labels: Sets
    change: NDArray[np.uint8]
    gsd_m: float


@dataclass(frozen=True)
class Pairs:
    """Draws pairs.

    Attributes:
        places: of each source of `mix.SOURCES` that takes part.
        side: of a crop, pixels.
        consistency: whether real dates of unchanged places teach that nothing changed.
    """

    places: dict[str, list[Place]]
    side: int = 256
    consistency: bool = True
    _areas: dict[str, NDArray[np.float64]] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, some in self.places.items():
            area = np.array([place.labels[0].size for place in some], np.float64)
            self._areas[name] = area / area.sum()

    def draw(self, seed: int, index: int) -> Pair:
        """Pair number ``index``."""
        rng = np.random.default_rng([seed, index])
        names = list(self.places)
        shares = np.array([SOURCES[name].share for name in names])
        name = names[int(rng.choice(len(names), p=shares / shares.sum()))]
        low, high = SOURCES[name].gsd_m
        gsd = math.exp(rng.uniform(math.log(low), math.log(high)))
        pictures, labels, same = self._crop(name, gsd, rng)
        real = len(pictures) > 1
        if not real:
            if rng.uniform() < REPAIRED:
                others, other_labels, _ = self._crop(name, gsd, rng)
                pictures, labels = (pictures[0], others[0]), (labels[0], other_labels[0])
                same = np.zeros_like(same)
            else:
                pictures, labels = (pictures[0], pictures[0]), (labels[0], labels[0])
        elif not self.consistency and SOURCES[name].folder == "naip-california":
            same = np.zeros_like(same)
        if rng.uniform() < (0.4 if real else TRANSPLANT) and gsd < 6:
            picture, sets, set_in = self._transplanted(pictures[1], labels[1], gsd, rng)
            pictures, labels, same = (pictures[0], picture), (labels[0], sets), same & ~set_in
        if rng.uniform() < 0.5:
            pictures, labels = pictures[::-1], labels[::-1]
        before, after = pictures
        if rng.uniform() < 0.7:
            steps = np.arange(self.side, dtype=np.float64)
            shift = rng.uniform(-SHIFT_PX, SHIFT_PX, 2)
            after = resample(after, steps - shift[0], steps - shift[1])
        if gsd < 3:
            before, after = (shaded(each, rng) for each in (before, after))
        before, after = (CAMERA(LIGHT(each, rng), rng) for each in (before, after))
        apart = (labels[0] & labels[1]) == 0
        alike = (labels[0] == labels[1]) & SINGLE[labels[0]]
        change = np.select([same, apart, alike], [np.uint8(0), np.uint8(1), np.uint8(0)], np.uint8(255)).astype(
            np.uint8
        )
        return Pair(before, after, np.stack(labels), change, gsd)

    def _crop(self, name: str, gsd: float, rng: np.random.Generator) -> tuple[tuple[Rgb, ...], tuple[Sets, ...], Bool]:
        """A window of a place at one or two of its dates, turned; and where it is known to be the same ground."""
        some = self.places[name]
        place = some[int(rng.choice(len(some), p=self._areas[name]))]
        count = len(place.pictures)
        dates = [0] if count == 1 else sorted(rng.choice(count, 2, replace=False).tolist())
        if count > 1 and rng.uniform() < 0.5:
            dates.reverse()
        factor = place.gsd_m / gsd
        angle = rng.uniform(0, 2 * math.pi) if rng.uniform() < 0.35 else None
        wide = self.side if angle is None else math.ceil(self.side * 1.4143)
        reach = max(8, round(wide / factor))
        height, width = place.labels[0].shape
        for _ in range(4):
            at = rng.uniform(size=2)
            row, col = (int(at[i] * max(0, size - reach + 1)) for i, size in enumerate((height, width)))
            window = slice(row, row + reach), slice(col, col + reach)
            # Holes between joined tiles teach nothing.
            if (place.labels[dates[0]][window] != UNKNOWN).mean() > 0.3 or count > 1:
                break
        mirror, turns = rng.integers(0, 2, 2), int(rng.integers(0, 4))
        same = (len(dates) == 1) if place.unchanged is None else place.unchanged[window].view(np.uint8)
        maps = [place.labels[date][window] for date in dates]
        maps.append(np.full_like(maps[0], same) if isinstance(same, bool) else same)
        pictures = tuple(
            turn(_scaled(place.pictures[d][window], reach, wide, angle, self.side), mirror, turns) for d in dates
        )
        scaled = [turn(_nearest(each, reach, wide, angle, self.side), mirror, turns) for each in maps]
        return pictures, tuple(scaled[:-1]), scaled[-1].astype(np.bool_)

    def _transplanted(self, host: Rgb, sets: Sets, gsd: float, rng: np.random.Generator) -> tuple[Rgb, Sets, Bool]:
        """The host with parts of other places set in, and where."""
        weights = np.array([w if name in self.places else 0.0 for name, w in zip(DONORS, DONOR_WEIGHTS, strict=True)])
        if not weights.any():
            return host, sets, np.zeros(sets.shape, np.bool_)
        picture, out = host.astype(np.float32), sets.copy()
        all_in = np.zeros(sets.shape, np.bool_)
        for _ in range(int(rng.integers(1, 3))):
            name = DONORS[int(rng.choice(len(DONORS), p=weights / weights.sum()))]
            low, high = SOURCES[name].gsd_m
            pictures, labels, _ = self._crop(name, min(max(gsd, low * 0.8), high * 1.25), rng)
            donor, donor_sets = pictures[0].astype(np.float32), labels[0]
            core = _objects(donor_sets, rng) if rng.uniform() < 0.75 else _blobs(self.side, rng)
            core &= donor_sets != UNKNOWN
            if core.sum() < 24:
                continue
            moved = tuple(int(each) for each in rng.integers(-self.side // 2, self.side // 2, 2))
            if rng.uniform() < 0.5:
                moved = (0, 0)
            # Only shifts that do not wrap around keep what they move.
            rows, cols = (np.roll(np.arange(self.side), step) for step in moved)
            donor, donor_sets, core = (each[np.ix_(rows, cols)] for each in (donor, donor_sets, core))
            weight = core.astype(np.float32)
            sigma = rng.uniform(0.4, 1.6)
            weight = ndimage.gaussian_filter(weight, sigma, truncate=3.0)
            toned = donor + rng.uniform(0, 0.6) * (host.mean((0, 1)) - donor.mean((0, 1)))
            picture += weight[..., None] * (toned - picture)
            put = weight >= 0.5
            out[put] = donor_sets[put]
            all_in |= weight > 0.05
        return np.clip(picture + 0.5, 0, 255).astype(np.uint8), out, all_in


def shaded(picture: Rgb, rng: np.random.Generator) -> Rgb:
    """Sometimes with shadows of things outside the picture: they are no water, and their coming is no change."""
    if rng.uniform() > SHADOWS:
        return picture
    cast = ndimage.gaussian_filter(_blobs(len(picture), rng).astype(np.float32), rng.uniform(0.5, 1.5), truncate=3.0)
    # Skylight is blue.
    dark = rng.uniform(0.3, 0.65) * np.array([0.92, 1.0, 1.12], np.float32)
    return (picture * (1 + cast[..., None] * (dark - 1)) + 0.5).clip(0, 255).astype(np.uint8)


def _objects(sets: Sets, rng: np.random.Generator) -> Bool:
    """Some connected parts of one word, mostly buildings, with a narrow rim."""
    word = (BUILDING, ROAD, WATER, BARE)[int(rng.choice(4, p=(0.72, 0.08, 0.12, 0.08)))]
    parts, count = ndimage.label(sets == word)
    if not count:
        return np.zeros(sets.shape, np.bool_)
    chosen = rng.permutation(count)[: int(rng.integers(1, 9))] + 1
    core = np.isin(parts, chosen)
    rim = int(rng.integers(1, 5))
    grown: Bool = ndimage.maximum_filter(core.view(np.uint8), 2 * rim + 1, mode="constant").view(np.bool_)
    return grown


def _blobs(side: int, rng: np.random.Generator) -> Bool:
    """One to three turned rectangles or ellipses."""
    out = np.zeros((side, side), np.bool_)
    row, col = np.ogrid[:side, :side]
    for _ in range(int(rng.integers(1, 4))):
        at = rng.uniform(0, side, 2)
        half = np.exp(rng.uniform(math.log(6), math.log(60), 2))
        angle = rng.uniform(0, math.pi)
        along = (col - at[1]) * math.cos(angle) + (row - at[0]) * math.sin(angle)
        across = (row - at[0]) * math.cos(angle) - (col - at[1]) * math.sin(angle)
        if rng.uniform() < 0.5:
            out |= (along / half[0]) ** 2 + (across / half[1]) ** 2 <= 1
        else:
            out |= (np.abs(along) <= half[0]) & (np.abs(across) <= half[1])
    return out


def _filled(array: NDArray[np.uint8], reach: int) -> NDArray[np.uint8]:
    """Mirrored to ``(reach, reach)`` where the place is smaller; labels mirror along, so they stay right."""
    missing = [(0, max(0, reach - size)) for size in array.shape[:2]]
    if not any(after for _, after in missing):
        return array
    return np.pad(array, [*missing, *[(0, 0)] * (array.ndim - 2)], mode="symmetric")


def _grid(wide: int, angle: float, side: int) -> torch.Tensor:
    steps = (torch.arange(side) + 0.5 - side / 2) * 2 / wide
    rows, cols = torch.meshgrid(steps, steps, indexing="ij")
    x = cols * math.cos(angle) - rows * math.sin(angle)
    y = cols * math.sin(angle) + rows * math.cos(angle)
    return torch.stack([x, y], dim=-1)[None].float()


def _scaled(picture: Rgb, reach: int, wide: int, angle: float | None, side: int) -> Rgb:
    """``(reach, reach, 3)`` on another pixel grid: means where it is coarser."""
    x = torch.from_numpy(np.ascontiguousarray(_filled(picture, reach).transpose(2, 0, 1)))[None].float()
    if reach != wide:
        x = functional.interpolate(x, (wide, wide), mode="bilinear", antialias=True, align_corners=False)
    if angle is not None:
        x = functional.grid_sample(x, _grid(wide, angle, side), mode="bilinear", align_corners=False)
    return np.ascontiguousarray(x[0].add(0.5).clamp(0, 255).byte().numpy().transpose(1, 2, 0))


def _nearest(codes: NDArray[np.uint8], reach: int, wide: int, angle: float | None, side: int) -> NDArray[np.uint8]:
    """The same of labels: the pixel that holds the centre of the new one."""
    codes = _filled(codes, reach)
    at = np.minimum(((np.arange(wide) + 0.5) * reach / wide).astype(np.int64), reach - 1)
    codes = codes[np.ix_(at, at)]
    if angle is not None:
        grid = ((_grid(wide, angle, side)[0] + 1) * wide / 2).numpy().astype(np.int64).clip(0, wide - 1)
        codes = codes[grid[..., 1], grid[..., 0]]
    return np.ascontiguousarray(codes)
