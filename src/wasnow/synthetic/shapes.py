"""Plane geometry of synthetic scenes: convex polygons, polylines, and a smooth warp that bends straight plans.

    plan  ──Warp.to_world──▶  world (metres; x east, y south)  ◀──pixel centres──  image

A place is laid out with straight lines in *plan* coordinates and rendered in *world* coordinates; the two differ by a
smooth displacement of a few metres. Points are ``(N, 2)`` arrays of (x, y) in metres. Signed distances are negative
inside. Works without pixels, colours and files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Point = NDArray[np.float64]
"""One (x, y), ``(2,)``."""

Points = NDArray[np.float64]
"""``(N, 2)`` points: a polyline, or the corners of a polygon."""

Field = NDArray[np.float32]
"""One value per pixel of a window, or per column or row of it."""


@dataclass(frozen=True, eq=False)
class Warp:
    """A sum of plane waves: plan = world + Σ amplitude · sin(wave · world + phase).

    Attributes:
        amplitudes: ``(K, 2)`` metres.
        waves: ``(K, 2)`` radians per metre.
        phases: ``(K,)`` radians.
    """

    amplitudes: Points
    waves: Points
    phases: NDArray[np.float64]

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Warp:
        """Return four waves of 250 to 600 m, with slopes small enough for `to_world` to converge (total below 1/2)."""
        lengths = rng.uniform(250, 600, 4)
        heading = rng.uniform(0, np.pi, 4)
        waves = (2 * np.pi / lengths)[:, None] * np.stack([np.cos(heading), np.sin(heading)], 1)
        amplitudes = lengths[:, None] * rng.uniform(-0.016, 0.016, (4, 2))
        return cls(amplitudes, waves, rng.uniform(0, 2 * np.pi, 4))

    def to_plan(self, world: Points) -> Points:
        """Transform ``(N, 2)`` world points to the plan."""
        return world + np.sin(world @ self.waves.T + self.phases) @ self.amplitudes

    def to_world(self, plan: Points) -> Points:
        """Transform ``(N, 2)`` plan points to the world by fixed-point iteration, accurate to a millimetre."""
        world = plan.copy()
        for _ in range(40):
            miss = self.to_plan(world) - plan
            world = world - miss
            if np.abs(miss).max() < 1e-3:
                break
        return world

    def world_point(self, plan: Point) -> Point:
        """Transform one plan point ``(2,)`` to the world."""
        world: Point = self.to_world(plan[None])[0]
        return world

    def plan_point(self, world: Point) -> Point:
        """Transform one world point ``(2,)`` to the plan."""
        plan: Point = self.to_plan(world[None])[0]
        return plan

    def plan_of_grid(self, x: Field, y: Field) -> tuple[Field, Field]:
        """Return plan coordinates, ``(H, W)`` each, of the grid of columns ``x (W,)`` and rows ``y (H,)``."""
        u = np.repeat(x[None], len(y), 0)
        v = np.repeat(y[:, None], len(x), 1)
        for amplitude, wave, phase in zip(self.amplitudes, self.waves, self.phases, strict=True):
            swell = np.sin(np.float32(wave[0]) * x[None] + (np.float32(wave[1]) * y + np.float32(phase))[:, None])
            u += np.float32(amplitude[0]) * swell
            v += np.float32(amplitude[1]) * swell
        return u, v

    def heading(self, plan: Point, angle: float) -> float:
        """Return the world direction, in radians, of the plan direction ``angle`` at a plan point ``(2,)``."""
        step = np.array([np.cos(angle), np.sin(angle)])
        ends = self.to_world(np.stack([plan - step, plan + step]))
        return float(np.arctan2(*(ends[1] - ends[0])[::-1]))


def following(polygon: Points) -> Points:
    """Return the successor of each corner, ``(N, 2)``."""
    return np.concatenate([polygon[1:], polygon[:1]])


def direction(angle: float) -> Point:
    """Return the unit vector ``(2,)`` at ``angle`` radians from east towards south."""
    return np.array([np.cos(angle), np.sin(angle)])


def axes(angle: float) -> tuple[Point, Point]:
    """Return the unit vectors along ``angle`` and perpendicular to it (a quarter turn further)."""
    return direction(angle), direction(angle + np.pi / 2)


def span(polygon: Points, axis: Point) -> tuple[float, float]:
    """Return the smallest and largest coordinate of a polygon along a unit vector, metres."""
    along = polygon @ axis
    return float(along.min()), float(along.max())


def rectangle(centre: Point, angle: float, length: float, width: float) -> Points:
    """Return the corners ``(4, 2)`` of a rectangle.

    Args:
        centre: ``(2,)``.
        angle: direction of ``length``, radians.
        length: metres.
        width: metres.
    """
    along, across = direction(angle) * length / 2, direction(angle + np.pi / 2) * width / 2
    return centre + np.stack([-along - across, along - across, along + across, -along + across])


def signed_area(polygon: Points) -> float:
    """Return the area by the shoelace formula: positive if the corners turn from x towards y."""
    there = following(polygon)
    return float(polygon[:, 0] @ there[:, 1] - polygon[:, 1] @ there[:, 0]) / 2


def area(polygon: Points) -> float:
    """Return the area in square metres; 0 for fewer than three corners."""
    return abs(signed_area(polygon)) if len(polygon) > 2 else 0.0


def half_planes(polygon: Points) -> tuple[Points, NDArray[np.float64]]:
    """Return unit normals ``(N, 2)`` and offsets ``(N,)`` of a convex polygon; inside is normal · p <= offset."""
    edges = following(polygon) - polygon
    normals = np.stack([edges[:, 1], -edges[:, 0]], 1) * np.sign(signed_area(polygon) or 1.0)
    normals /= np.maximum(np.hypot(*normals.T), 1e-9)[:, None]
    return normals, np.einsum("ij,ij->i", normals, polygon)


def keep_below(polygon: Points, normal: Point, offset: float) -> Points:
    """Return the part of a convex polygon where normal · p <= offset; ``(0, 2)`` if it is empty.

    Args:
        polygon: ``(N, 2)``.
        normal: ``(2,)`` unit vector.
        offset: metres.
    """
    if len(polygon) == 0:
        return polygon
    height = polygon @ normal - offset
    kept: list[Point] = []
    for here, there, low, next_low in zip(polygon, following(polygon), height, np.roll(height, -1), strict=True):
        if low <= 0:
            kept.append(here)
        if (low < 0 < next_low) or (next_low < 0 < low):
            kept.append(here + (there - here) * (low / (low - next_low)))
    return np.array(kept) if len(kept) > 2 else np.empty((0, 2))


def inset(polygon: Points, distance: float) -> Points:
    """Return a convex polygon with every edge moved inwards by ``distance`` metres; may be empty."""
    shrunk = polygon
    if len(polygon) > 2:
        for normal, offset in zip(*half_planes(polygon), strict=True):
            shrunk = keep_below(shrunk, normal, offset - distance)
    return shrunk


def contains(polygon: Points, point: Point, margin: float = 0.0) -> bool:
    """Return whether a point is in a convex polygon, at least ``margin`` metres from its edge.

    Args:
        polygon: ``(N, 2)``.
        point: ``(2,)``.
        margin: metres.
    """
    normals, offsets = half_planes(polygon)
    return bool((normals @ point - offsets <= -margin).all())


def long_axis(polygon: Points) -> float:
    """Return the direction, in radians, in which a convex polygon is longest: that of an edge or of its normal."""
    edges = following(polygon) - polygon
    edge = edges[int(np.argmax(np.hypot(*edges.T)))]
    angle = float(np.arctan2(edge[1], edge[0]))
    along, across = (np.ptp(polygon @ direction(angle + turn)) for turn in (0.0, np.pi / 2))
    return angle if along >= across else angle + np.pi / 2


def hull(points: Points) -> Points:
    """Return the convex hull of a few points (Andrew's monotone chain)."""
    ordered = points[np.lexsort((points[:, 1], points[:, 0]))]

    def chain(sequence: Points) -> list[Point]:
        turned: list[Point] = []
        for point in sequence:
            while len(turned) > 1:
                a, b = turned[-1] - turned[-2], point - turned[-2]
                if a[0] * b[1] - a[1] * b[0] > 0:
                    break
                turned.pop()
            turned.append(point)
        return turned[:-1]

    return np.array(chain(ordered) + chain(ordered[::-1]))


def resample(line: Points, step: float) -> Points:
    """Return a polyline ``(N, 2)`` with a point about every ``step`` metres."""
    lengths = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))])
    at = np.linspace(0, lengths[-1], max(2, round(lengths[-1] / step) + 1))
    return np.stack([np.interp(at, lengths, line[:, 0]), np.interp(at, lengths, line[:, 1])], 1)


def distance_to_line(points: Points, line: Points) -> NDArray[np.float64]:
    """Return the distance ``(N,)`` in metres from each point to a polyline ``(M, 2)``."""
    start, run = line[:-1], np.diff(line, axis=0)
    offset = points[:, None] - start[None]
    share = np.clip((offset * run).sum(-1) / np.maximum((run * run).sum(-1), 1e-9), 0, 1)
    distance: NDArray[np.float64] = np.hypot(*np.moveaxis(offset - share[..., None] * run, -1, 0)).min(1)
    return distance
