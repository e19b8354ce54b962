"""Acquisition of one date: season, sun, atmosphere, optics and sensor.

    radiance of a canvas ─▶ optics ─▶ haze ─▶ gain ─▶ tone curve ─▶ noise ─▶ image

Season and sun determine how a canvas is painted; the rest is applied to the painted canvas (`expose`).
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wasnow.errors import UsageError

Season = Literal["spring", "summer", "autumn"]

_MONTHS: dict[Season, tuple[int, int]] = {"spring": (4, 5), "summer": (6, 7), "autumn": (9, 10)}
_ELEVATIONS: dict[Season, tuple[float, float]] = {"spring": (42, 54), "summer": (48, 60), "autumn": (30, 40)}


@dataclass(frozen=True)
class Acquisition:
    """Acquisition conditions of one date: everything that differs between two images of an unchanged place.

    Attributes:
        date: of the acquisition; its month determines the season.
        sun_azimuth: degrees clockwise from north.
        sun_elevation: degrees above the horizon, 10 to 85.
        gain: per band, around 1.
        gamma: exponent of the tone curve, around 1.
        haze: share of scattered light, 0 to 1.
        blur_px: standard deviation of the Gaussian blur of the optics, pixels.
        noise: standard deviation of the sensor noise, in units of full scale.

    Raises:
        UsageError: the sun elevation is outside its range.
    """

    date: datetime.date
    sun_azimuth: float = 155.0
    sun_elevation: float = 48.0
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gamma: float = 1.0
    haze: float = 0.03
    blur_px: float = 0.55
    noise: float = 0.010

    def __post_init__(self) -> None:
        if not 10 <= self.sun_elevation <= 85:
            raise UsageError(f"sun_elevation {self.sun_elevation} must be 10 to 85 degrees")

    @property
    def season(self) -> Season:
        """Season of the northern temperate zone; the leafless months count as autumn."""
        month = self.date.month
        return "spring" if 3 <= month <= 5 else "summer" if 6 <= month <= 8 else "autumn"

    @classmethod
    def drawn(cls, rng: np.random.Generator, season: Season, year: int) -> Acquisition:
        """Return a plausible survey flight in a season: late morning to early afternoon, clear air.

        Args:
            rng: source of all random numbers.
            season: of the flight.
            year: of the flight.
        """
        month = int(rng.integers(*_MONTHS[season], endpoint=True))
        gain = rng.uniform(0.94, 1.10) * (1 + rng.normal(0, 0.015, 3))
        return cls(
            date=datetime.date(year, month, int(rng.integers(1, 28))),
            sun_azimuth=float(rng.uniform(135, 225)),
            sun_elevation=float(rng.uniform(*_ELEVATIONS[season])),
            gain=(float(gain[0]), float(gain[1]), float(gain[2])),
            gamma=float(rng.uniform(0.93, 1.08)),
            haze=float(rng.uniform(0.01, 0.07)),
            blur_px=float(rng.uniform(0.45, 0.65)),
            noise=float(rng.uniform(0.006, 0.012)),
        )


def draw_acquisitions(rng: np.random.Generator) -> tuple[Acquisition, Acquisition]:
    """Return two flights some years apart, in different seasons."""
    seasons: list[Season] = ["spring", "summer", "autumn"]
    first, second = (seasons[index] for index in rng.permutation(3)[:2])
    year = int(rng.integers(2015, 2019))
    return Acquisition.drawn(rng, first, year), Acquisition.drawn(rng, second, year + int(rng.integers(2, 6)))


def expose(albedo: NDArray[np.float32], look: Acquisition, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Apply optics, haze, gain, tone curve and noise.

    Args:
        albedo: ``(H, W, 3)`` painted canvas, 0..1.
        look: acquisition conditions.
        rng: source of the noise.

    Returns:
        ``(H, W, 3)`` uint8.
    """
    air = np.array([0.66, 0.70, 0.76], np.float32)
    light = _blur(albedo, look.blur_px)
    light *= np.float32(1 - look.haze)
    light += np.float32(look.haze) * air
    light *= np.array(look.gain, np.float32)
    tones: NDArray[np.float32] = np.clip(light, 0, 1) ** np.float32(look.gamma)
    grain = rng.standard_normal(tones.shape, dtype=np.float32)
    # Part of the noise is common to the bands, as after demosaicing.
    grain = np.float32(0.6) * grain + np.float32(0.8) * grain[..., :1]
    tones += np.float32(look.noise) * grain
    return np.round(np.clip(tones, 0, 1) * 255).astype(np.uint8)


def _blur(image: NDArray[np.float32], sigma_px: float) -> NDArray[np.float32]:
    """Blur each band with a Gaussian of ``sigma_px``."""
    blurred: NDArray[np.float32] = ndimage.gaussian_filter(image, (sigma_px, sigma_px, 0), mode="nearest", truncate=3.0)
    return blurred
