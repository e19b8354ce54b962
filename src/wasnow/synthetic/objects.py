"""The objects of a plan, frozen values in metres, and the dates at which they exist.

Every object has a ``when``: present before, present after, or at both dates. Most are in world coordinates; a `Ground`
is in plan coordinates, where fields are straight (see `wasnow.synthetic.shapes.Warp`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntFlag
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from wasnow.synthetic.shapes import Point, Points, Warp

Rgb = tuple[int, int, int]
"""A colour, 0 to 255 per band."""


class Presence(IntFlag):
    """The dates at which an object exists."""

    BEFORE = 1
    AFTER = 2
    BOTH = 3


@dataclass(frozen=True, eq=False)
class Ground:
    """A convex patch of land cover; ``polygon`` is in plan coordinates. Later patches cover earlier ones."""

    polygon: Points
    cover: str
    when: Presence = Presence.BOTH
    angle: float = 0.0
    spacing_m: float = 1.5
    tone: float = 1.0


@dataclass(frozen=True, eq=False)
class Road:
    """A road along a world polyline: ``kind`` is main, street, track or path."""

    line: Points
    kind: str
    half_width_m: float
    when: Presence = Presence.BOTH


@dataclass(frozen=True, eq=False)
class Line:
    """A thin object along a world polyline: a clipped hedge, or paint on a car park."""

    line: Points
    kind: str
    half_width_m: float
    when: Presence = Presence.BOTH


@dataclass(frozen=True, eq=False)
class Building:
    """A rectangular building: ``angle`` is the direction of the ridge and of ``length_m``; ``roof`` is gable, hip or
    flat.

    ``height_m`` is the height of the eaves; ``extras`` seeds the details on the roof.
    """

    centre: Point
    angle: float
    length_m: float
    width_m: float
    height_m: float
    roof: str
    color: Rgb
    extras: int
    when: Presence = Presence.BOTH

    @property
    def area_m2(self) -> float:
        """Footprint area."""
        return self.length_m * self.width_m

    @property
    def rise_m(self) -> float:
        """Height of the ridge above the eaves: a pitch of 38 degrees, less on wide halls."""
        return min(0.39 * self.width_m, 4.5)


@dataclass(frozen=True, eq=False)
class Tree:
    """One crown; ``hue`` 0..1 selects a colour between the two of the season."""

    centre: Point
    radius_m: float
    height_m: float
    kind: str
    hue: float
    when: Presence = Presence.BOTH


@dataclass(frozen=True, eq=False)
class Pond:
    """A pond with an irregular shore: radius · (1 + Σ wobble_k · sin(k · angle + phase_k)), k = 2, 3, 4, 5."""

    centre: Point
    radius_m: float
    wobble: NDArray[np.float64]
    phase: NDArray[np.float64]
    when: Presence = Presence.BOTH


@dataclass(frozen=True, eq=False)
class River:
    """A river along a world polyline; ``bed`` marks a dry river bed of gravel."""

    line: Points
    half_width_m: float
    bed: bool = False
    when: Presence = Presence.BOTH


@dataclass(frozen=True, eq=False)
class Parking:
    """A place where a car may be parked at either date; without a class of its own."""

    centre: Point
    angle: float
    share_taken: float
    when: Presence = Presence.BOTH


@dataclass(frozen=True, eq=False)
class Plan:
    """All objects of a place, at both dates."""

    warp: Warp
    grounds: tuple[Ground, ...]
    waters: tuple[River | Pond, ...]
    roads: tuple[Road, ...]
    lines: tuple[Line, ...]
    buildings: tuple[Building, ...]
    trees: tuple[Tree, ...]
    parkings: tuple[Parking, ...]

    def at(self, date: Presence) -> Plan:
        """Return the objects that exist at one date."""
        return Plan(
            self.warp,
            _there(self.grounds, date),
            _there(self.waters, date),
            _there(self.roads, date),
            _there(self.lines, date),
            _there(self.buildings, date),
            _there(self.trees, date),
            _there(self.parkings, date),
        )


class _Item(Protocol):
    @property
    def when(self) -> Presence: ...


_AnItem = TypeVar("_AnItem", bound=_Item)


def _there(items: Iterable[_AnItem], date: Presence) -> tuple[_AnItem, ...]:
    return tuple(item for item in items if item.when & date)
