"""Season and sun at the time of an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wasnow.synthetic.shapes import Field, Point

Real = NDArray[np.floating] | np.floating | float
"""A number, or one per pixel."""


@dataclass(frozen=True)
class Illumination:
    """Illumination of an image.

    Attributes:
        season: spring, summer or autumn.
        sun_azimuth: degrees clockwise from north.
        sun_elevation: degrees above the horizon.
    """

    season: str
    sun_azimuth: float
    sun_elevation: float

    @property
    def towards_sun(self) -> Point:
        """Horizontal unit vector ``(2,)`` towards the sun, x east and y south."""
        azimuth = np.deg2rad(self.sun_azimuth)
        return np.array([np.sin(azimuth), -np.cos(azimuth)])

    @property
    def shadow_per_metre(self) -> float:
        """Length of the shadow of a height of one metre, metres."""
        return float(1 / np.tan(np.deg2rad(self.sun_elevation)))

    @property
    def cast(self) -> Point:
        """End of the shadow of a height of one metre relative to its foot; ``(2,)`` metres."""
        return -self.towards_sun * self.shadow_per_metre

    def on(self, x: Real, y: Real, z: Real) -> Field:
        """Return the brightness of a surface with unit normal (x, y, z), 1 for level ground, with ambient light.

        Args:
            x: east component.
            y: south component.
            z: upward component.
        """
        elevation = np.deg2rad(self.sun_elevation)
        sun = self.towards_sun * np.cos(elevation)
        lit = np.maximum(0, np.float32(sun[0]) * x + np.float32(sun[1]) * y + np.float32(np.sin(elevation)) * z)
        brightness: Field = np.asarray(0.45 + 0.55 * lit / np.float32(np.sin(elevation)), np.float32)
        return np.minimum(brightness, np.float32(1.32))

    def sunward(self, relief: Field) -> Field:
        """Return the slope of a relief ``(h, w)`` towards the sun, per pixel; 0 where it is one pixel wide."""
        down, right = (
            np.asarray(np.gradient(relief, axis=axis), np.float32) if relief.shape[axis] > 1 else np.zeros_like(relief)
            for axis in (0, 1)
        )
        sun = self.towards_sun
        return -(right * np.float32(sun[0]) + down * np.float32(sun[1]))
