"""The canvas: pixel centres of an image of the world, and what has been painted so far.

Every shape is a signed distance in metres. Edges are anti-aliased by ``clip(1/2 - distance / pixel, 0, 1)``; the class
map uses ``distance < 0`` at pixel centres.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from wasnow.synthetic.classes import VEGETATION
from wasnow.synthetic.colors import Image
from wasnow.synthetic.paint.light import Illumination
from wasnow.synthetic.paint.noise import smooth_noise
from wasnow.synthetic.shapes import Field, Point, Points, Warp, direction, half_planes

Window = tuple[slice, slice]
"""Rows and columns of a block of pixels."""

Places = Window | tuple[NDArray[np.intp], NDArray[np.intp]]
"""A block of pixels, or a list of pixels: an index into image arrays."""

Ribbon = tuple[Points, float]
"""A world polyline and its half width, metres."""

FAR = np.float32(1e6)
"""A distance larger than all others, metres."""


class Canvas:
    """Pixel centres of an image of the world, with the albedo, the shadow mask and the classes painted so far.

    Args:
        height: rows.
        width: columns.
        gsd_m: pixel size, metres.
        shift_px: (rows, cols) by which the world is shifted in this image.
        warp: from plan to world.
        noise_seed: the same for both dates, so that the ground keeps its texture.
        light: illumination; None paints classes only.
    """

    def __init__(
        self,
        height: int,
        width: int,
        *,
        gsd_m: float,
        shift_px: tuple[float, float],
        warp: Warp,
        noise_seed: int,
        light: Illumination | None,
    ) -> None:
        self.shape, self.gsd = (height, width), gsd_m
        self.x = ((np.arange(width) + 0.5 - shift_px[1]) * gsd_m).astype(np.float32)
        self.y = ((np.arange(height) + 0.5 - shift_px[0]) * gsd_m).astype(np.float32)
        self._first = (float(self.x[0]), float(self.y[0]))
        self.warp = warp
        self.u, self.v = warp.plan_of_grid(self.x, self.y)
        self._noise_seed = noise_seed
        self._noises: dict[float, Field] = {}
        self.light = light
        self.classes = np.full(self.shape, VEGETATION, np.uint8)
        self.rgb: Image = np.zeros((*self.shape, 3) if light else (0, 0, 3), np.float32)
        self.shadow: Field = np.zeros(self.shape if light else (0, 0), np.float32)

    # ---- windows and distances

    @property
    def whole(self) -> Window:
        """The window of all pixels."""
        return slice(0, self.shape[0]), slice(0, self.shape[1])

    def window(self, points: Points, margin_m: float = 0.0) -> Window | None:
        """Return rows and columns of the box around world points, grown by ``margin_m``; None outside the image."""
        low, high = points.min(0) - margin_m - self.gsd, points.max(0) + margin_m + self.gsd
        (x0, y0), (rows, cols) = self._first, self.shape
        left, right = max(0, math.ceil((low[0] - x0) / self.gsd)), min(cols, math.ceil((high[0] - x0) / self.gsd))
        top, bottom = max(0, math.ceil((low[1] - y0) / self.gsd)), min(rows, math.ceil((high[1] - y0) / self.gsd))
        return (slice(top, bottom), slice(left, right)) if left < right and top < bottom else None

    @staticmethod
    def near(distance: Field, reach_m: float) -> Places:
        """Return the pixels where ``distance (H, W)`` is below ``reach_m``, as a list: used for thin objects."""
        rows, cols = np.nonzero(distance < reach_m)
        return rows, cols

    def convex(self, window: Window, polygon: Points) -> Field:
        """Return the signed distance ``(h, w)`` to a convex world polygon. Exact inside and along edges."""
        x, y = self.x[window[1]], self.y[window[0]]

        def beyond(normal: Point, offset: float) -> Field:
            a, b, c = np.float32(normal[0]), np.float32(normal[1]), np.float32(offset)
            return (a * x - c)[None] + (b * y)[:, None]

        distance: Field = functools.reduce(np.maximum, map(beyond, *half_planes(polygon)))
        return distance

    def convex_of_plan(self, window: Window, polygon: Points) -> Field:
        """Return the signed distance ``(h, w)`` to a convex plan polygon, in metres of the plan."""
        u, v = self.u[window], self.v[window]

        def beyond(normal: Point, offset: float) -> Field:
            return np.float32(normal[0]) * u + np.float32(normal[1]) * v - np.float32(offset)

        distance: Field = functools.reduce(np.maximum, map(beyond, *half_planes(polygon)))
        return distance

    def across_plan(self, window: Window, angle: float) -> Field:
        """Return plan coordinates ``(h, w)`` perpendicular to ``angle``, along which the rows of a field run."""
        across = direction(angle + np.pi / 2)
        return np.float32(across[0]) * self.u[window] + np.float32(across[1]) * self.v[window]

    def local(self, window: Window, origin: Point, angle: float = 0.0) -> tuple[Field, Field]:
        """Return world coordinates ``(h, w)`` along ``angle`` and perpendicular to it, from ``origin``.

        Args:
            window: of the pixels.
            origin: ``(2,)`` world point.
            angle: radians.
        """
        x = (self.x[window[1]] - np.float32(origin[0]))[None]
        y = (self.y[window[0]] - np.float32(origin[1]))[:, None]
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        return cos * x + sin * y, cos * y - sin * x

    def along(self, ribbons: Iterable[Ribbon], reach_m: float) -> tuple[Field, Field]:
        """Return the distance to the edge of thick polylines and the arc length there, ``(H, W)`` each.

        Args:
            ribbons: world polylines with their half widths.
            reach_m: distance beyond the edge that is computed; FAR elsewhere.
        """
        distance = np.full(self.shape, FAR, np.float32)
        arc = np.zeros(self.shape, np.float32)
        for line, half_width in ribbons:
            start = 0.0
            for a, b in itertools.pairwise(line):
                length = float(np.hypot(*(b - a)))
                window = self.window(np.stack([a, b]), half_width + reach_m)
                if window is not None and length > 0:
                    s, t = self.local(window, a, float(np.arctan2(*(b - a)[::-1])))
                    on = np.clip(s, 0, np.float32(length))
                    here = np.sqrt((s - on) ** 2 + t * t) - np.float32(half_width)
                    nearer = here < distance[window]
                    distance[window] = np.where(nearer, here, distance[window])
                    arc[window] = np.where(nearer, on + np.float32(start), arc[window])
                start += length
        return distance, arc

    # ---- texture

    def noise(self, scale_m: float) -> Field:
        """Return smooth noise ``(H, W)`` with features of about ``scale_m``; mean 0, standard deviation about 1."""
        scale_m = max(scale_m, 1.1 * self.gsd)
        if scale_m not in self._noises:
            self._noises[scale_m] = smooth_noise(self.x, self.y, scale_m, self.gsd, self._noise_seed)
        return self._noises[scale_m]

    def mottled(self, window: Places, first: Image, second: Image, strength: float) -> Image:
        """Return two colours ``(3,)`` mixed in patches, with grain of standard deviation ``strength``.

        Args:
            window: of the pixels.
            first: main colour.
            second: colour of the patches.
            strength: of the grain.
        """
        patches, grain = self._mottle
        mixed: Image = (first + patches[window][..., None] * (second - first)) * (
            1 + np.float32(strength) * grain[window]
        )[..., None]
        return mixed

    @functools.cached_property
    def _mottle(self) -> tuple[Field, Field]:
        """Patches 0..1 of some tens of metres, and grain at four scales with standard deviation about 1, ``(H, W)``
        each.
        """
        patches = np.clip(0.45 + 0.2 * self.noise(61.0) + 0.22 * self.noise(23.0) + 0.2 * self.noise(6.0), 0, 1)
        grain = 0.3 * self.noise(61.0) + 0.3 * self.noise(6.0) + 0.4 * self.noise(1.9) + 0.7 * self.noise(0.55)
        return patches.astype(np.float32), grain.astype(np.float32)

    # ---- paint

    def cover(self, window: Places, distance: Field, code: int | None, color: Image | Field | None) -> None:
        """Paint where ``distance`` is negative.

        Args:
            window: of the pixels.
            distance: signed distance of the pixels, metres.
            code: class code; None leaves the classes.
            color: ``(3,)`` or ``(h, w, 3)``, 0..1; None leaves the colours.
        """
        if code is not None:
            self.classes[window] = np.where(distance < 0, np.uint8(code), self.classes[window])
        if self.light is not None and color is not None:
            share = np.clip(0.5 - distance / np.float32(self.gsd), 0, 1)[..., None]
            self.rgb[window] += share * (color - self.rgb[window])

    def shade(self, window: Window, distance: Field) -> None:
        """Add a shadow where ``distance`` is negative; overlapping shadows are not darker than one."""
        softness = np.float32(1.5 * self.gsd)
        self.shadow[window] = np.maximum(self.shadow[window], np.clip(0.5 - distance / softness, 0, 1))
