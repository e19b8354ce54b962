"""Season and sun: all that a painter needs to know about the moment of a picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wasnow.synthetic.shapes import Field, Point

Real = NDArray[np.floating] | np.floating | float
"""A number, or one per pixel."""


@dataclass(frozen=True)
class Illumination:
    """How a picture is lit.

    Attributes:
        season: spring, summer or autumn.
        sun_azimuth: degrees clockwise from north, where the sun stands.
        sun_elevation: degrees above the horizon.
    """

    season: str
    sun_azimuth: float
    sun_elevation: float

    @property
    def towards_sun(self) -> Point:
        """The unit vector ``(2,)`` on the ground, x east and y south, that points to the sun."""
        azimuth = np.deg2rad(self.sun_azimuth)
        return np.array([np.sin(azimuth), -np.cos(azimuth)])

    @property
    def shadow_per_metre(self) -> float:
        """Metres of shadow cast by a metre of height."""
        return float(1 / np.tan(np.deg2rad(self.sun_elevation)))

    @property
    def cast(self) -> Point:
        """Where the shadow of a metre of height ends, seen from its foot; ``(2,)`` metres."""
        return -self.towards_sun * self.shadow_per_metre

    def on(self, x: Real, y: Real, z: Real) -> Field:
        """Brightness of a surface with unit normal (x, y, z), 1 for level ground; ambient light included."""
        elevation = np.deg2rad(self.sun_elevation)
        sun = self.towards_sun * np.cos(elevation)
        lit = np.maximum(0, np.float32(sun[0]) * x + np.float32(sun[1]) * y + np.float32(np.sin(elevation)) * z)
        brightness: Field = np.asarray(0.45 + 0.55 * lit / np.float32(np.sin(elevation)), np.float32)
        return np.minimum(brightness, np.float32(1.32))

    def sunward(self, relief: Field) -> Field:
        """How steeply a relief ``(h, w)`` falls towards the sun, per pixel; level where it is one pixel wide."""
        down, right = (
            np.asarray(np.gradient(relief, axis=axis), np.float32) if relief.shape[axis] > 1 else np.zeros_like(relief)
            for axis in (0, 1)
        )
        sun = self.towards_sun
        return -(right * np.float32(sun[0]) + down * np.float32(sun[1]))
