"""Lay out an invented place at the edge of a village, and what became of it between two dates. No pixels here.

    1. villages, a river            points and a meandering line
    2. cuts                         the land is split and split again: first by roads, in the village by streets,
                                    outside by hedges, tracks and plain field edges; what is left are cells
    3. changes                      cells lose a slice to a car park, houses or a building site until the area asked
                                    for is reached; the pond grows, the river moves, a field edge becomes a road
    4. cells are filled             blocks with plots, plots with a house that faces its street; fields with crops

Everything that exists is an item with a ``when``: there before, there after, or both. Cells, roads and plots are laid
out in plan coordinates and bent gently on their way to the world (see `synthetic_shapes.Warp`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntFlag

import numpy as np
from numpy.typing import NDArray

from wasnow.data.synthetic_shapes import (
    Points,
    Warp,
    area,
    contains,
    direction,
    distance_to_line,
    inset,
    keep_below,
    long_axis,
    rectangle,
    resample,
)

Point = NDArray[np.float64]

PAD_M = 60.0
"""The plan reaches this far beyond the image, so that nothing ends, and no shadow begins, at its edge."""

SMALLEST_PLAN_M = 320.0
"""A small image is a window on a plan of at least this side, not a village squeezed into it."""

CROPS = ("wheat", "barley", "rapeseed", "maize", "beet", "meadow", "pasture")


class When(IntFlag):
    """At which of the two dates an item is there."""

    BEFORE = 1
    AFTER = 2
    BOTH = 3


@dataclass(frozen=True, eq=False)
class Ground:
    """A convex patch of land cover; ``polygon`` is in plan coordinates. Later patches cover earlier ones."""

    polygon: Points
    cover: str
    when: When = When.BOTH
    angle: float = 0.0
    spacing_m: float = 1.5
    tone: float = 1.0


@dataclass(frozen=True, eq=False)
class Road:
    """A road along a world polyline: ``kind`` is main, street, track or path."""

    line: Points
    kind: str
    half_width_m: float
    when: When = When.BOTH


@dataclass(frozen=True, eq=False)
class Line:
    """A thin thing along a world polyline: a clipped hedge, or paint on a car park."""

    line: Points
    kind: str
    half_width_m: float
    when: When = When.BOTH


@dataclass(frozen=True, eq=False)
class Building:
    """A rectangular building: ``angle`` is the direction of ridge and ``length``; ``roof`` is gable, hip or flat."""

    centre: Point
    angle: float
    length_m: float
    width_m: float
    height_m: float
    roof: str
    color: tuple[int, int, int]
    extras: int
    when: When = When.BOTH


@dataclass(frozen=True, eq=False)
class Tree:
    """One crown; ``hue`` 0..1 picks its place in the season's palette."""

    centre: Point
    radius_m: float
    height_m: float
    kind: str
    hue: float
    when: When = When.BOTH


@dataclass(frozen=True, eq=False)
class Pond:
    """Still water with a wobbling shore: radius · (1 + Σ wobble_k · sin(k · angle + phase_k)), k = 2, 3, 4, 5."""

    centre: Point
    radius_m: float
    wobble: NDArray[np.float64]
    phase: NDArray[np.float64]
    when: When = When.BOTH


@dataclass(frozen=True, eq=False)
class River:
    """Running water along a world polyline; ``bed`` says that only its gravel is left."""

    line: Points
    half_width_m: float
    bed: bool = False
    when: When = When.BOTH


@dataclass(frozen=True, eq=False)
class Parking:
    """A place where a car may stand at either date; no class of its own."""

    centre: Point
    angle: float
    share_taken: float
    when: When = When.BOTH


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything there is at a place, at both dates."""

    warp: Warp
    grounds: tuple[Ground, ...]
    waters: tuple[River | Pond, ...]
    roads: tuple[Road, ...]
    lines: tuple[Line, ...]
    buildings: tuple[Building, ...]
    trees: tuple[Tree, ...]
    parkings: tuple[Parking, ...]


@dataclass(eq=False)
class _Cell:
    """A convex piece of the plan between cuts, and what is to be done with it."""

    polygon: Points
    urban: bool
    use: str = ""


@dataclass(frozen=True, eq=False)
class _Cut:
    """A straight line of the plan that split a cell."""

    ends: Points
    kind: str


@dataclass(eq=False)
class _Ledger:
    """The change area still to be spent, in square metres."""

    total: float
    left: float = field(init=False)

    def __post_init__(self) -> None:
        self.left = self.total

    def spend(self, area_m2: float) -> None:
        self.left = max(0.0, self.left - area_m2)


class _Occupancy:
    """Which square metres of the world are taken; keeps trees off roads and houses out of each other."""

    def __init__(self, low: Point, high: Point) -> None:
        self._low = low
        cols, rows = np.ceil(high - low).astype(int)
        self._taken = np.zeros((rows, cols), np.bool_)

    def _window(self, low: Point, high: Point) -> tuple[slice, slice]:
        (left, top) = np.maximum(np.floor(low - self._low), 0).astype(int)
        (right, bottom) = np.maximum(np.ceil(high - self._low), 0).astype(int)
        return slice(int(top), int(bottom)), slice(int(left), int(right))

    def free(self, centre: Point, radius_m: float) -> bool:
        """Whether a square around ``centre`` is free; ground outside the plan always is."""
        return not self._taken[self._window(centre - radius_m, centre + radius_m)].any()

    def take(self, line: Points, half_width_m: float) -> None:
        """Take a polyline of the given half width."""
        for point in resample(line, 0.8 + half_width_m * 0.5):
            self._taken[self._window(point - half_width_m, point + half_width_m)] = True

    def take_box(self, centre: Point, angle: float, length: float, width: float) -> None:
        """Take a rectangle."""
        reach = direction(angle) * max(0.0, length - width) / 2
        self.take(np.stack([centre - reach, centre + reach]), width / 2)

    def box_free(self, centre: Point, angle: float, length: float, width: float) -> bool:
        """Whether a rectangle is free, tested at points a metre or two apart."""
        along, across = direction(angle), direction(angle + np.pi / 2)
        return all(
            self.free(centre + along * a * length / 2 + across * b * width / 2, 0.5)
            for a in np.linspace(-1, 1, 7)
            for b in np.linspace(-1, 1, 5)
        )


_TILES = ((156, 92, 68), (172, 106, 82), (142, 84, 62), (124, 86, 70), (184, 124, 98), (104, 84, 76))
_SLATES = ((96, 97, 104), (76, 76, 82), (112, 108, 106), (88, 92, 98))
_FLATS = ((176, 174, 168), (150, 152, 154), (206, 204, 198), (128, 126, 124), (188, 178, 162))


def make_plan(rng: np.random.Generator, *, width_m: float, height_m: float, change_share: float) -> Plan:
    """Lay out one place and its changes; the image covers x in [0, width_m], y in [0, height_m].

    Args:
        rng: where every decision is drawn from.
        width_m: west to east, metres.
        height_m: north to south, metres.
        change_share: share of the image whose class should change, roughly; 0 for none.
    """
    return _Surveyor(rng, width_m, height_m, change_share).survey()


class _Surveyor:
    """Collects the items of one plan, in the order of the module's drawing."""

    def __init__(self, rng: np.random.Generator, width_m: float, height_m: float, change_share: float) -> None:
        self.rng = rng
        self.size = np.array([width_m, height_m])
        reach = np.maximum(self.size / 2 + PAD_M, SMALLEST_PLAN_M / 2)
        self.low, self.high = self.size / 2 - reach, self.size / 2 + reach
        self.ledger = _Ledger(change_share * width_m * height_m)
        self.warp = Warp.drawn(rng)
        self.occupancy = _Occupancy(self.low - 30, self.high + 30)
        self.grounds: list[Ground] = []
        self.waters: list[River | Pond] = []
        self.roads: list[Road] = []
        self.lines: list[Line] = []
        self.buildings: list[Building] = []
        self.trees: list[Tree] = []
        self.parkings: list[Parking] = []
        self.cuts: list[_Cut] = []
        self.cells: list[_Cell] = []

    def survey(self) -> Plan:
        self._site_villages_and_river()
        corners = np.array([self.low, [self.high[0], self.low[1]], self.high, [self.low[0], self.high[1]]])
        self._divide(corners, depth=0)
        self._connect()
        self._assign_uses()
        self._move_the_river()
        self._lay_roads()
        self._dig_ponds()
        houses_share = 0.14 * self.ledger.total
        self._convert_fields(keep_for_houses=houses_share)
        for cell in self.cells:
            self._fill(cell)
        self._grow_hedgerows()
        self._grow_on_the_banks()
        self._change_houses(houses_share)
        return Plan(
            self.warp,
            tuple(self.grounds),
            tuple(self.waters),
            tuple(self.roads),
            tuple(self.lines),
            tuple(self.buildings),
            tuple(self.trees),
            tuple(self.parkings),
        )

    # ---- 1. villages and river ------------------------------------------------------------------------------

    def _site_villages_and_river(self) -> None:
        rng, extent = self.rng, self.high - self.low
        count = max(1, round(float(np.prod(extent)) / 700**2))
        self.village_radius = float(np.clip(0.26 * extent.min(), 85, 175))
        middle = self.size / 2 + rng.uniform(-0.27, 0.27, 2) * self.size
        others = rng.uniform(self.low, self.high, (count - 1, 2))
        self.villages = np.concatenate([middle[None], others])
        self.heading = rng.uniform(0, np.pi)
        self.river: Points | None = None
        self.river_half_width = rng.uniform(5.5, 10.0)
        if rng.random() < 0.6:
            # Beside the village, roughly along the main road: valleys have both.
            side = rng.choice([-1.0, 1.0])
            angle = self.heading + rng.normal(0, 0.25)
            through = middle + side * direction(angle + np.pi / 2) * self.village_radius * rng.uniform(0.75, 1.0)
            along = np.linspace(-1, 1, 160) * np.hypot(*extent)
            wave, phase = rng.uniform(170, 260), rng.uniform(0, 2 * np.pi, 2)
            swing = 13 * np.sin(2 * np.pi * along / wave + phase[0]) + 8 * np.sin(5.3 * along / wave + phase[1])
            self.river = through + np.outer(along, direction(angle)) + np.outer(swing, direction(angle + np.pi / 2))

    def _urbanity(self, plan: Point) -> float:
        """1 in the middle of a village, 0 at its edge, negative outside."""
        return float(1 - np.hypot(*(self.villages - plan).T).min() / self.village_radius)

    def _river_distance(self, world: Points) -> NDArray[np.float64]:
        """Metres from the river's bank, ``(N,)``; infinite without a river."""
        if self.river is None:
            return np.full(len(world), np.inf)
        return distance_to_line(world, self.river) - self.river_half_width

    # ---- 2. cuts --------------------------------------------------------------------------------------------

    def _divide(self, polygon: Points, depth: int) -> None:
        rng = self.rng
        centre = polygon.mean(0)
        urban = self._urbanity(centre) > rng.normal(0, 0.06)
        angle = long_axis(polygon)
        if depth == 0:
            angle = self.heading + np.pi / 2
        elif depth == 1:
            angle = self.heading + rng.normal(0, 0.12)
        width = min(float(np.ptp(polygon @ direction(angle + turn))) for turn in (0.0, np.pi / 2))
        limit = rng.uniform(6_500, 11_000) if urban else rng.uniform(11_000, 26_000)
        if depth > 1 and (area(polygon) < limit or width < 34):
            self.cells.append(_Cell(polygon, urban))
            return
        normal = direction(angle + (rng.normal(0, 0.05) if depth > 1 else 0))
        offsets = polygon @ normal
        share = rng.uniform(0.42, 0.58)
        offset = float(offsets.min() + share * np.ptp(offsets))
        if depth == 0:
            offset = float(self.villages[0] @ normal) + rng.uniform(-25, 25)
        elif depth == 1:
            # Crossroads offset from each other: one side road meets the main road here, the other there.
            offset = float(self.villages[0] @ normal) + rng.uniform(-70, 70)
        parts = keep_below(polygon, normal, offset), keep_below(polygon, -normal, -offset)
        if min(map(area, parts)) < 1500:
            self.cells.append(_Cell(polygon, urban))
            return
        on_line = parts[0][np.abs(parts[0] @ normal - offset) < 1e-6]
        ends = on_line[
            [
                int(np.argmin(on_line @ direction(angle + np.pi / 2))),
                int(np.argmax(on_line @ direction(angle + np.pi / 2))),
            ]
        ]
        self.cuts.append(_Cut(ends, self._kind_of_cut(ends, depth)))
        for part in parts:
            self._divide(part, depth + 1)

    def _connect(self) -> None:
        """No road ends in a hedge: where one does, a farm track takes over along that hedge."""
        for index, cut in enumerate(self.cuts):
            if cut.kind not in ("main", "street"):
                continue
            for end in cut.ends:
                for other, crossed in enumerate(self.cuts):
                    if (
                        other != index
                        and crossed.kind in ("hedge", "edge")
                        and distance_to_line(end[None], crossed.ends)[0] < 0.5
                    ):
                        self.cuts[other] = _Cut(crossed.ends, "track")

    def _kind_of_cut(self, ends: Points, depth: int) -> str:
        if depth < 2:
            return "main" if depth == 0 or self.rng.random() < 0.45 else "street"
        if self._urbanity(ends.mean(0)) > -0.05:
            return "street"
        return str(self.rng.choice(["hedge", "track", "edge", "street"], p=[0.34, 0.24, 0.34, 0.08]))

    # ---- uses -----------------------------------------------------------------------------------------------

    def _assign_uses(self) -> None:
        rng = self.rng
        fields = [cell for cell in self.cells if not cell.urban]
        for cell in self.cells:
            if cell.urban:
                cell.use = str(rng.choice(["homes", "flats", "trade", "park"], p=[0.74, 0.10, 0.09, 0.07]))
            else:
                cell.use = str(rng.choice(["crop", "wood", "orchard", "pasture"], p=[0.70, 0.13, 0.05, 0.12]))
        for cell in self.cells:
            if self._river_distance(self.warp.to_world(cell.polygon.mean(0)[None]))[0] < 12:
                cell.use = "pasture" if cell.use != "wood" else "wood"
        # A farm stands among the fields; a site lies open near the village at both dates.
        seen = [cell for cell in fields if self._seen(cell.polygon) > 1500 and cell.use in ("crop", "pasture")]
        seen = [cell for cell in seen if self._river_distance(self.warp.to_world(resample(cell.polygon, 10))).min() > 6]
        seen.sort(key=lambda cell: -self._urbanity(cell.polygon.mean(0)))
        for cell, use in zip(seen, ("site", "farm"), strict=False):
            cell.use = use

    def _seen(self, polygon: Points) -> float:
        """How many square metres of a plan polygon the image shows."""
        if len(polygon) == 0:
            return 0.0
        return area(self._in_image(polygon))

    def _in_image(self, polygon: Points) -> Points:
        world = self.warp.to_world(polygon) if len(polygon) else polygon
        for axis in (0, 1):
            normal = np.eye(2)[axis]
            world = keep_below(keep_below(world, normal, float(self.size[axis])), -normal, 0.0)
        return world

    # ---- water ----------------------------------------------------------------------------------------------

    def _move_the_river(self) -> None:
        if self.river is None:
            return
        rng, half_width = self.rng, self.river_half_width
        self.occupancy.take(self.river, half_width + 1.5)
        inside = ((self.river > 20) & (self.river < self.size - 20)).all(1)
        if self.ledger.total < 2500 or not inside.any():
            self.waters.append(River(self.river, half_width))
            return
        # A meander moves sideways by more than the river is wide: its old bed lies dry.
        at = self.river[rng.choice(np.flatnonzero(inside))]
        along = np.hypot(*(self.river - at).T)
        reach = float(np.clip(0.15 * self.ledger.total / half_width, 40, 70))
        bend = rng.choice([-1, 1]) * 1.7 * half_width * np.exp(-((along / reach) ** 2) * 1.6)
        tangent = np.gradient(self.river, axis=0)
        sideways = np.stack([-tangent[:, 1], tangent[:, 0]], 1) / np.hypot(*tangent.T)[:, None]
        moved = self.river + bend[:, None] * sideways
        self.occupancy.take(moved, half_width + 1.5)
        self.waters += [
            River(self.river, half_width, when=When.BEFORE),
            River(self.river, half_width, bed=True, when=When.AFTER),
            River(moved, half_width, when=When.AFTER),
        ]
        step = np.hypot(*np.diff(self.river, axis=0).T).mean()
        self.ledger.spend(float(2 * np.minimum(np.abs(bend), 2 * half_width)[inside].sum() * step))

    def _dig_ponds(self) -> None:
        rng = self.rng
        hosts = [cell for cell in self.cells if cell.use in ("pasture", "crop") and self._seen(cell.polygon) > 2500]
        rng.shuffle(hosts)
        wanted = (1 if self.river is None else 0) + int(rng.random() < 0.5) + len(hosts) // 25
        for index, cell in enumerate(hosts[:wanted]):
            room = self._in_image(inset(cell.polygon, 16))
            centre = room.mean(0) if len(room) else self._in_image(cell.polygon).mean(0)
            if self._river_distance(centre[None])[0] < 40:
                continue
            plan_centre = self.warp.to_plan(centre[None])[0]
            cell.use = "pasture" if cell.use == "crop" else cell.use
            normals_room = min(
                (r for r in np.arange(8.0, 34.0, 2.0) if not contains(cell.polygon, plan_centre, r + 8)), default=34.0
            )
            radius = float(max(6.0, normals_room - 2) * rng.uniform(0.75, 1.0))
            wobble, phase = rng.normal(0, (0.14, 0.08, 0.05, 0.03)), rng.uniform(0, 2 * np.pi, 4)
            grown = radius * 1.0
            small = radius * 0.6
            enlarged = index == 0 and self.ledger.left > 3 * np.pi * (grown**2 - small**2)
            if enlarged:
                self.waters.append(Pond(centre, small, wobble, phase, When.BEFORE))
                self.waters.append(Pond(centre, grown, wobble, phase, When.AFTER))
                self.ledger.spend(np.pi * (grown**2 - small**2))
            else:
                self.waters.append(Pond(centre, radius, wobble, phase))
            self.occupancy.take(np.stack([centre, centre + 0.1]), radius * 1.15)
            for angle in rng.uniform(0, 2 * np.pi, 9):
                spot = centre + direction(angle) * radius * rng.uniform(1.3, 1.5)
                self._plant(spot, rng.uniform(2.0, 4.2), "broadleaf")

    # ---- roads ----------------------------------------------------------------------------------------------

    def _lay_roads(self) -> None:
        rng = self.rng
        candidates = [cut for cut in self.cuts if cut.kind in ("hedge", "edge", "track")]
        rng.shuffle(candidates)
        new_road: _Cut | None = None
        for cut in candidates:
            line = self.warp.to_world(resample(cut.ends, 10.0))
            shown = ((line > 0) & (line < self.size)).all(1).sum() * 10.0 * 6.4
            if 500 < shown < 0.3 * self.ledger.total and self._river_distance(line).min() > 15:
                new_road = cut
                self.ledger.spend(float(shown))
                break
        for cut in self.cuts:
            line = self.warp.to_world(resample(cut.ends, 9.0))
            if cut is new_road:
                if cut.kind == "track":
                    self._road(line, "track", 1.9, When.BEFORE)
                self._road(line, "street", 3.2, When.AFTER)
            elif cut.kind == "main":
                self._road(line, "main", 3.7)
            elif cut.kind == "street":
                self._road(line, "street", rng.uniform(2.6, 3.1))
            elif cut.kind == "track":
                self._road(line, "track", rng.uniform(1.5, 1.9))
        self.cuts = [cut for cut in self.cuts if cut is not new_road]

    def _road(self, line: Points, kind: str, half_width: float, when: When = When.BOTH) -> None:
        self.roads.append(Road(line, kind, half_width, when))
        self.occupancy.take(line, half_width + (1.8 if kind != "track" else 0.3))

    # ---- 3. conversions of fields ---------------------------------------------------------------------------

    def _convert_fields(self, *, keep_for_houses: float) -> None:
        rng = self.rng
        usable = [
            cell
            for cell in self.cells
            if cell.use in ("crop", "pasture", "wood", "orchard", "park", "homes")
            and self._river_distance(self.warp.to_world(resample(cell.polygon, 10))).min() > 6
            and not self._holds_water(cell)
        ]
        rng.shuffle(usable)
        # Fields near the village go first; gaps between the houses only where the image shows no field.
        usable.sort(key=lambda cell: 9 * cell.urban - self._urbanity(cell.polygon.mean(0)) + rng.uniform(0, 0.5))
        kinds = ["trade", "homes", "site"]
        rng.shuffle(kinds)
        count = 0
        for cell in usable:
            left = self.ledger.left - keep_for_houses
            if left < 250:
                break
            if self._seen(cell.polygon) < min(900, left):
                continue
            wanted = min(left, rng.uniform(0.45, 0.7) * max(self.ledger.total, 2500), 14_000)
            piece, rest, got = self._slice(cell.polygon, wanted / 0.93)
            if got < 120:
                continue
            kind = kinds[count % len(kinds)]
            count += 1
            if cell.use in ("wood", "orchard") or area(piece) < 900:
                kind = "site"
            self.ledger.spend(got * 0.93)
            self._convert(piece, cell, kind)
            cell.polygon = rest

    def _holds_water(self, cell: _Cell) -> bool:
        ponds = [water.centre for water in self.waters if isinstance(water, Pond)]
        return any(contains(cell.polygon, self.warp.to_plan(centre[None])[0], -5) for centre in ponds)

    def _slice(self, polygon: Points, wanted: float) -> tuple[Points, Points, float]:
        """A slice off one end of a cell that shows about ``wanted`` square metres, the rest, and what it shows."""
        inner = inset(polygon, 4.5)
        if self._seen(inner) <= wanted * 1.12:
            return inner, np.empty((0, 2)), self._seen(inner)
        normal = direction(long_axis(polygon)) * self.rng.choice([-1.0, 1.0])
        low, high = float((inner @ normal).min()), float((inner @ normal).max())
        for _ in range(30):
            middle = (low + high) / 2
            if self._seen(keep_below(inner, normal, middle)) < wanted:
                low = middle
            else:
                high = middle
        piece = keep_below(inner, normal, low)
        rest = keep_below(polygon, -normal, -low - 3.0)
        return piece, rest if area(rest) > 800 else np.empty((0, 2)), self._seen(piece)

    def _convert(self, piece: Points, cell: _Cell, kind: str) -> None:
        was = cell.use
        if was in ("wood", "orchard"):
            self._wood(piece, was, When.BEFORE)
        else:
            self._crop(piece, None if was == "crop" else "pasture", When.BEFORE)
        if kind == "trade":
            self._trade(piece, When.AFTER)
        elif kind == "homes":
            self._new_homes(piece)
        else:
            self._site(piece, When.AFTER, felled=was in ("wood", "orchard"))

    def _new_homes(self, piece: Points) -> None:
        """A development: a street down the middle, houses in bare plots on both sides, some still to come."""
        angle = long_axis(piece)
        across = direction(angle + np.pi / 2)
        middle = float(np.mean([(piece @ across).min(), (piece @ across).max()]))
        self.grounds.append(Ground(piece, "site", When.AFTER, angle))
        lower = keep_below(piece, across, middle - 2.6)
        upper = keep_below(piece, -across, -middle - 2.6)
        on_axis = piece[[int(np.argmin(piece @ direction(angle))), int(np.argmax(piece @ direction(angle)))]]
        reach = [float(corner @ direction(angle)) for corner in on_axis]
        ends = np.stack([direction(angle) * at + across * middle for at in (reach[0] - 6, reach[1] - 5)])
        self._road(self.warp.to_world(resample(ends, 9.0)), "street", 2.6, When.AFTER)
        for half, side in ((lower, 1.0), (upper, -1.0)):
            for plot in self._plots(half, angle):
                if self.rng.random() < 0.85:
                    self._house(plot, angle, side, When.AFTER, garden=False)

    # ---- 4. filling -----------------------------------------------------------------------------------------

    def _fill(self, cell: _Cell) -> None:
        rng = self.rng
        inner = inset(cell.polygon, 4.6 if cell.urban else 1.4)
        if len(inner) == 0:
            return
        if cell.use in ("crop", "pasture"):
            self._crop(inner, "pasture" if cell.use == "pasture" else None, When.BOTH)
            if cell.use == "pasture":
                self._scatter(inner, density=1 / 1500)
        elif cell.use in ("wood", "orchard"):
            self._wood(inner, cell.use, When.BOTH)
        elif cell.use == "site":
            self._site(inner, When.BOTH)
        elif cell.use == "farm":
            self._farm(inner)
        elif cell.use == "trade":
            self._trade(inner, When.BOTH)
        elif cell.use == "flats":
            self._flats(inner)
        elif cell.use == "park":
            self.grounds.append(Ground(inner, "lawn", angle=rng.uniform(0, np.pi), tone=rng.uniform(0.95, 1.05)))
            self._path(inner)
            self._scatter(inner, density=1 / 160)
        else:
            self._homes(inner)

    def _crop(self, polygon: Points, cover: str | None, when: When) -> None:
        rng = self.rng
        chosen = cover or str(rng.choice(CROPS, p=[0.24, 0.13, 0.13, 0.17, 0.09, 0.16, 0.08]))
        spacing = {"maize": 1.7, "beet": 1.5}.get(chosen, 2.1) * rng.uniform(0.9, 1.2)
        self.grounds.append(Ground(polygon, chosen, when, long_axis(polygon), spacing, rng.uniform(0.9, 1.1)))

    def _wood(self, polygon: Points, use: str, when: When) -> None:
        rng = self.rng
        angle = long_axis(polygon)
        if use == "orchard":
            self.grounds.append(Ground(polygon, "meadow", when, angle, 5.5, 0.97))
            pitch, jitter, sizes, kind = (5.6, 4.6), 0.25, (1.4, 1.9), "orchard"
        else:
            self.grounds.append(Ground(polygon, "forest floor", when, angle))
            pitch, jitter, sizes = (5.0, 5.0), 1.5, (2.3, 4.3)
            kind = "conifer" if rng.random() < 0.3 else "broadleaf"
        along, across = direction(angle), direction(angle + np.pi / 2)
        spans = [
            np.arange((polygon @ axis).min(), (polygon @ axis).max(), gap)
            for axis, gap in zip((along, across), pitch, strict=True)
        ]
        inner = inset(polygon, 2.0)
        if len(inner) == 0:
            return
        for a in spans[0]:
            for b in spans[1]:
                point = along * (a + rng.normal(0, jitter)) + across * (b + rng.normal(0, jitter))
                if contains(inner, point):
                    of_kind = kind if rng.random() < 0.9 else "broadleaf"
                    self._plant(self.warp.to_world(point[None])[0], rng.uniform(*sizes), of_kind, when, take=False)

    def _site(self, polygon: Points, when: When, *, felled: bool = False) -> None:
        """Open ground: a building site with a slab and heaps, or the stubs of a felled wood."""
        rng, angle = self.rng, long_axis(polygon)
        self.grounds.append(Ground(polygon, "felled" if felled else "site", when, angle))
        inner = inset(polygon, 9.0)
        if felled or len(inner) == 0:
            return
        centre = inner.mean(0)
        for _ in range(int(area(polygon) / 700) + 1):
            at = centre + (inner[rng.integers(len(inner))] - centre) * rng.uniform(0.2, 1)
            tilt = angle + rng.normal(0, 0.5)
            patch = rectangle(at, tilt, rng.uniform(6, 16), rng.uniform(5, 10))
            self.grounds.append(Ground(patch, str(rng.choice(["heap", "pit", "gravel"])), when, tilt))
        if area(polygon) > 2200:
            world = self.warp.to_world(centre[None])[0]
            self._build(world, self.warp.heading(centre, angle), 18, 11, 2.5, "flat", (184, 180, 172), when)

    def _farm(self, polygon: Points) -> None:
        rng, angle = self.rng, long_axis(polygon)
        self.grounds.append(Ground(polygon, "meadow", angle=angle, tone=0.95))
        seen = self.warp.to_plan(self._in_image(polygon).mean(0)[None])[0]
        centre = seen if contains(polygon, seen, 22) else polygon.mean(0)
        self.grounds.append(Ground(rectangle(centre, angle, 46, 34), "gravel", angle=angle))
        self.grounds.append(Ground(rectangle(centre, angle, 24, 14), "paving", angle=angle))
        along, across = direction(angle), direction(angle + np.pi / 2)
        for where, turn, size, color in (
            (-across * 15, 0.0, (34, 12), (150, 148, 146)),
            (across * 15, 0.0, (26, 11), _TILES[rng.integers(6)]),
            (along * 21, np.pi / 2, (16, 10), _TILES[rng.integers(6)]),
        ):
            world = self.warp.to_world((centre + where)[None])[0]
            heading = self.warp.heading(centre, angle + turn)
            self._build(world, heading, *size, 6.0, "gable", color)
        self._scatter(polygon, density=1 / 500)

    def _trade(self, polygon: Points, when: When) -> None:
        """A hall at one end, its car park with painted bays at the other."""
        rng, angle = self.rng, long_axis(polygon)
        self.grounds.append(Ground(polygon, "lawn" if when == When.BOTH else "car park", when, angle))
        inner = inset(polygon, 2.5)
        if len(inner) == 0:
            return
        self.grounds.append(Ground(inner, "car park", when, angle))
        along, across = direction(angle), direction(angle + np.pi / 2)
        low, high = float((inner @ along).min()), float((inner @ along).max())
        deep = float(np.ptp(inner @ across))
        length = float(np.clip(0.36 * (high - low), 8, 60))
        width = float(np.clip(deep - 16, 7, 42))
        middle = (float((inner @ across).min()) + float((inner @ across).max())) / 2
        centre = along * (low + length / 2 + 6) + across * middle
        if contains(inner, centre, 5):
            world, heading = self.warp.to_world(centre[None])[0], self.warp.heading(centre, angle)
            color = _FLATS[rng.integers(len(_FLATS))]
            self._build(world, heading, length, width, rng.uniform(6, 9), "flat", color, when)
        start = low + length + 14
        for row, b in enumerate(np.arange(middle - deep / 2 + 4, middle + deep / 2 - 3, 8.2)):
            for a in np.arange(start, high - 3, 2.6):
                bay = along * a + across * b
                if not contains(inner, bay, 4.0):
                    continue
                if row % 2 and rng.random() < 0.04:
                    self._plant(self.warp.to_world(bay[None])[0], rng.uniform(1.6, 2.4), "broadleaf", when, take=False)
                    continue
                ends = self.warp.to_world(np.stack([bay - across * 2.4, bay + across * 2.4]) - along * 1.3)
                self.lines.append(Line(ends, "paint", 0.09, when))
                world = self.warp.to_world(bay[None])[0]
                self.parkings.append(Parking(world, self.warp.heading(bay, angle + np.pi / 2), 0.45, when))

    def _flats(self, polygon: Points) -> None:
        rng, angle = self.rng, long_axis(polygon)
        self.grounds.append(Ground(polygon, "lawn", angle=angle, tone=rng.uniform(0.95, 1.05)))
        along, across = direction(angle), direction(angle + np.pi / 2)
        low, high = float((polygon @ along).min()), float((polygon @ along).max())
        middle = (float((polygon @ across).min()) + float((polygon @ across).max())) / 2
        color = _FLATS[rng.integers(len(_FLATS))]
        for a in np.arange(low + 16, high - 12, 34.0):
            centre = along * a + across * (middle - 7)
            if contains(polygon, centre, 10):
                heading = self.warp.heading(centre, angle + np.pi / 2)
                self._build(self.warp.to_world(centre[None])[0], heading, 24, 12, 11.0, "flat", color)
            court = along * (a + 17) + across * middle
            if contains(polygon, court, 7):
                self.grounds.append(Ground(rectangle(court, angle, 11, 24), "car park", angle=angle))
                for b in np.arange(-10, 10, 2.6):
                    spot = court + across * b - along * 2.8
                    world = self.warp.to_world(spot[None])[0]
                    self.occupancy.take_box(world, 0, 5, 5)
                    self.parkings.append(Parking(world, self.warp.heading(spot, angle), 0.6))
        self._scatter(polygon, density=1 / 220)

    def _homes(self, polygon: Points) -> None:
        angle = long_axis(polygon)
        across = direction(angle + np.pi / 2)
        low, high = float((polygon @ across).min()), float((polygon @ across).max())
        self.grounds.append(Ground(polygon, "lawn", angle=angle))
        if high - low > 40:
            middle = (low + high) / 2 + self.rng.uniform(-3, 3)
            rows = [(keep_below(polygon, across, middle), -1.0), (keep_below(polygon, -across, -middle), 1.0)]
        else:
            rows = [(polygon, float(self.rng.choice([-1.0, 1.0])))]
        for row, side in rows:
            for plot in self._plots(row, angle):
                self._house(plot, angle, side, When.BOTH, garden=True)

    def _plots(self, polygon: Points, angle: float) -> Iterable[Points]:
        """Cut a row into plots 17 to 27 m wide."""
        along = direction(angle)
        while area(polygon) > 150:
            low, high = float((polygon @ along).min()), float((polygon @ along).max())
            width = self.rng.uniform(17, 27)
            if high - low < 1.6 * width:
                yield polygon
                return
            yield keep_below(polygon, along, low + width)
            polygon = keep_below(polygon, -along, -low - width)

    def _house(self, plot: Points, angle: float, side: float, when: When, *, garden: bool) -> None:
        """One plot: the house at its setback on the street ``side``, a drive, a garden behind."""
        rng = self.rng
        along, out = direction(angle), direction(angle + np.pi / 2) * side
        width, depth = float(np.ptp(plot @ along)), float(np.ptp(plot @ out))
        if area(plot) < 170 or width < 12 or depth < 13:
            return
        if garden:
            tone = float(np.clip(rng.normal(1.0, 0.07), 0.85, 1.15))
            cover = "lawn" if rng.random() < 0.82 else "rough lawn"
            self.grounds.append(Ground(plot, cover, angle=angle, tone=tone))
        front = float((plot @ out).max())
        length = float(np.clip(width - rng.uniform(6, 9), 8, 15))
        house_depth = float(np.clip(rng.uniform(8, 10.5), 6, depth - 6))
        setback = min(rng.uniform(3.5, 8), depth - house_depth - 2.5)
        middle = (float((plot @ along).min()) + float((plot @ along).max())) / 2 - 1.8
        centre = along * middle + out * (front - setback - house_depth / 2)
        if not contains(plot, centre, 3.5):
            return
        world, heading = self.warp.to_world(centre[None])[0], self.warp.heading(centre, angle)
        if self._river_distance(world[None])[0] < 14 or not self.occupancy.box_free(
            world, heading, length, house_depth
        ):
            return
        gable_to_street = rng.random() < 0.3
        drive = along * (middle + length / 2 + 1.9) + out * (front - (setback + house_depth * 0.6) / 2 + 1.2)
        drive_length = setback + house_depth * 0.6 + 2.4
        surface = str(rng.choice(["paving", "car park", "gravel"], p=[0.6, 0.25, 0.15]))
        self.grounds.append(Ground(rectangle(drive, angle + np.pi / 2, drive_length, 3.2), surface, when, angle))
        door = along * middle + out * (front - setback / 2)
        self.grounds.append(Ground(rectangle(door, angle + np.pi / 2, setback + 1.0, 1.4), "paving", when, angle))
        drive_world = self.warp.to_world(drive[None])[0]
        self.parkings.append(Parking(drive_world, heading + np.pi / 2, 0.5, when))
        self.occupancy.take_box(drive_world, heading + np.pi / 2, drive_length, 2.6)
        tiled = rng.random() < 0.74
        color = _TILES[rng.integers(len(_TILES))] if tiled else _SLATES[rng.integers(len(_SLATES))]
        roof = str(rng.choice(["gable", "hip", "flat"], p=[0.72, 0.18, 0.10]))
        if roof == "flat":
            color = _FLATS[rng.integers(len(_FLATS))]
        height = rng.uniform(5.0, 7.5)
        size = (house_depth, length) if gable_to_street and length < 1.2 * house_depth else (length, house_depth)
        ridge = heading if size[0] == length else heading + np.pi / 2
        self._build(world, ridge, *size, height, roof, color, when)
        if rng.random() < 0.3 and depth > house_depth + setback + 8:
            wing = centre + along * length * rng.choice([-0.25, 0.25]) - out * (house_depth / 2 + 1.5)
            wing_world = self.warp.to_world(wing[None])[0]
            self._build(wing_world, heading + np.pi / 2, 5.5, 5.5, height - 1, "gable", color, when, spaced=False)
        elif rng.random() < 0.7:
            terrace = centre - out * (house_depth / 2 + 1.8) + along * rng.uniform(-2, 2)
            self.grounds.append(Ground(rectangle(terrace, angle, 6, 3.6), "paving", when, angle))
        if garden:
            self._garden(plot, centre, angle, out, house_depth)

    def _garden(self, plot: Points, house: Point, angle: float, out: Point, house_depth: float) -> None:
        rng = self.rng
        back = keep_below(plot, out, float(house @ out) - house_depth / 2 - 2)
        inner = inset(back, 2.0)
        if area(inner) > 60:
            low, high = inner.min(0), inner.max(0)
            chance = rng.random()
            at = low + (high - low) * rng.uniform(0.3, 0.7, 2)
            world = self.warp.to_world(at[None])[0]
            if chance < 0.12 and contains(inner, at, 4) and self.occupancy.free(world, 4):
                self.grounds.append(Ground(rectangle(at, angle, 9.4, 5.4), "paving", angle=angle))
                self.grounds.append(Ground(rectangle(at, angle, 8, 4), "pool", angle=angle))
                self.occupancy.take_box(world, self.warp.heading(at, angle), 9, 5)
            elif chance < 0.3 and contains(inner, at, 3):
                self.grounds.append(Ground(rectangle(at, angle, 7, 4.5), "bed", angle=angle, spacing_m=1.3))
            elif chance < 0.65 and contains(inner, at, 2.5) and self.occupancy.free(world, 3):
                self._build(world, self.warp.heading(at, angle), 4.5, 3.2, 2.4, "gable", (120, 100, 84))
            for _ in range(rng.integers(2, 8)):
                self._plant(self.warp.to_world(rng.uniform(low, high)[None])[0], rng.uniform(1.2, 4.2), self._species())
        for corner, following in zip(plot, np.roll(plot, -1, 0), strict=True):
            # No hedge across the drive: the street side stays open.
            towards_street = (corner + following) @ out / 2 > float((plot @ out).max()) - 2.5
            if rng.random() < 0.42 and not towards_street and np.hypot(*(following - corner)) > 6:
                line = self.warp.to_world(resample(np.stack([corner, following]), 6.0))
                self.lines.append(Line(line, "hedge", rng.uniform(0.5, 0.9)))
        front = plot.mean(0) + out * (np.ptp(plot @ out) / 2 - 2.5) + direction(angle) * rng.uniform(-8, 4)
        if rng.random() < 0.4 and contains(plot, front, 1):
            self._plant(self.warp.to_world(front[None])[0], rng.uniform(1.0, 2.4), self._species())

    def _path(self, polygon: Points) -> None:
        corners = polygon[[0, len(polygon) // 2]]
        middle = polygon.mean(0) + self.rng.normal(0, 6, 2)
        line = self.warp.to_world(resample(np.stack([corners[0], middle, corners[1]]), 6.0))
        self._road(line, "path", 0.9)

    # ---- things ---------------------------------------------------------------------------------------------

    def _species(self) -> str:
        return str(self.rng.choice(["broadleaf", "conifer", "shrub"], p=[0.62, 0.18, 0.2]))

    def _build(
        self,
        centre: Point,
        angle: float,
        length: float,
        width: float,
        height: float,
        roof: str,
        color: tuple[int, int, int],
        when: When = When.BOTH,
        *,
        spaced: bool = True,
    ) -> None:
        """Put a building up, unless the river runs there."""
        extras = int(self.rng.integers(1 << 30))
        if self._river_distance(centre[None])[0] < max(length, width) / 2 + 2:
            return
        if spaced:
            self.occupancy.take_box(centre, angle, length + 2, width + 2)
        self.buildings.append(Building(centre, angle, length, width, height, roof, color, extras, when))

    def _plant(self, world: Point, radius: float, kind: str, when: When = When.BOTH, *, take: bool = True) -> None:
        """A tree, unless a road, a house or water is in its way."""
        if not self.occupancy.free(world, radius * 0.55):
            return
        rng = self.rng
        height = radius * rng.uniform(1.9, 3.0) if kind != "shrub" else radius * 1.2
        self.trees.append(Tree(world, radius, height, kind, float(rng.random()), when))
        if take:
            self.occupancy.take_box(world, 0, radius, radius)

    def _scatter(self, polygon: Points, *, density: float) -> None:
        low, high = polygon.min(0), polygon.max(0)
        for _ in range(self.rng.poisson(np.prod(high - low) * density)):
            point = self.rng.uniform(low, high)
            if contains(polygon, point, 3):
                self._plant(self.warp.to_world(point[None])[0], self.rng.uniform(1.8, 4.8), self._species())

    def _grow_hedgerows(self) -> None:
        rng = self.rng
        for cut in self.cuts:
            step = {"hedge": 1.9, "main": 15.0, "track": 16.0, "edge": 30.0}.get(cut.kind)
            if step is None or (cut.kind == "main" and rng.random() < 0.4):
                continue
            offset = {"main": 8.0, "track": 4.0}.get(cut.kind, 0.0)
            line = resample(cut.ends, step)
            across = direction(float(np.arctan2(*(cut.ends[1] - cut.ends[0])[::-1])) + np.pi / 2)
            for point in line:
                if cut.kind == "hedge" and rng.random() < 0.12:
                    continue
                at = point + across * (offset * rng.choice([-1, 1]) + rng.normal(0, 0.6))
                tall = rng.random() < (0.14 if cut.kind == "hedge" else 0.8)
                radius, kind = (rng.uniform(2.4, 4.4), "broadleaf") if tall else (rng.uniform(1.1, 1.9), "shrub")
                self._plant(self.warp.to_world(at[None])[0], radius, kind, take=False)

    def _grow_on_the_banks(self) -> None:
        if self.river is None:
            return
        rng = self.rng
        for point in resample(self.river, 7.0):
            if rng.random() < 0.55:
                away = direction(rng.uniform(0, 2 * np.pi)) * (self.river_half_width + rng.uniform(3, 8))
                if self._river_distance((point + away)[None])[0] > 2.5:
                    self._plant(point + away, rng.uniform(2.2, 4.8), "broadleaf")

    def _change_houses(self, budget: float) -> None:
        """Some plots were empty before, some houses have gone: one is built or torn down until the budget is spent."""
        rng = self.rng
        order = rng.permutation(len(self.buildings))
        for index in order:
            if budget < 90:
                return
            house = self.buildings[index]
            in_image = bool(((house.centre > 6) & (house.centre < self.size - 6)).all())
            if house.when != When.BOTH or not in_image or house.length_m < 8 or house.length_m * house.width_m > 320:
                continue
            size = house.length_m * house.width_m
            if size > 1.6 * budget:
                continue
            gone = rng.random() < 0.45
            values = {name: getattr(house, name) for name in house.__dataclass_fields__}
            self.buildings[index] = Building(**{**values, "when": When.BEFORE if gone else When.AFTER})
            if gone:
                lot = rectangle(house.centre, house.angle, house.length_m + 3, house.width_m + 3)
                self.grounds.append(
                    Ground(
                        self.warp.to_plan(lot),
                        str(rng.choice(["rubble", "lawn"], p=[0.6, 0.4])),
                        When.AFTER,
                        house.angle,
                    )
                )
            budget -= size * (1.2 if gone else 1.0)
