"""Outlines of pixel regions, stored as signed corners, which can be added in any order.

A region f (1 inside, 0 outside) is defined by the points at which its second difference is not zero, its *corners*:

    f   . . . .      f(r, c) - f(r-1, c) - f(r, c-1) + f(r-1, c-1)      +1 . . -1
        . # # .                                                          . . . .
        . # . .                                                          . -1 +1 .     (-1 and +1: the inner corner)
        . . . .                                                         -1 +1 . .

The difference is linear: the corners of a region that was cut into pieces are the sum of the corners of its pieces,
and those on the cut cancel. Seams need no union of geometries and leave no vertices. Pairs of corners along each row
are the horizontal edges, pairs along each column the vertical ones, and the edges form rings.

Coordinates are pixel corners, x to the right and y downwards: pixel (r, c) is the square (c, r) to (c + 1, r + 1).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

Corners = NDArray[np.int32]
"""``(n, 3)``: row, col, sign. A sign of 2 or -2 marks two pixels of the region that meet only diagonally."""


def corners_of_labels(labels: NDArray[np.integer[Any]]) -> tuple[NDArray[np.int64], Corners]:
    """Return the corners of every labelled region of a window, sorted by label.

    Args:
        labels: ``(h, w)``; 0 is background, as is everything outside the window.

    Returns:
        ``(n,)`` labels, and ``(n, 3)`` corners with rows 0..h and cols 0..w.
    """
    padded = np.pad(labels, 1)
    quads = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    uneven = (quads[0] != quads[1]) | (quads[2] != quads[3]) | (quads[0] != quads[2])
    rows, cols = np.nonzero(uneven)
    corner = [quad[uneven] for quad in quads]
    signs = (1, -1, -1, 1)
    found_labels, found = [], []
    for mine, label in enumerate(corner):
        total = np.zeros(len(label), np.int32)
        first = label != 0
        for other in range(4):
            same = corner[other] == label
            total += signs[other] * same
            if other < mine:
                first &= ~same
        keep = first & (total != 0)
        found_labels.append(label[keep].astype(np.int64))
        found.append(np.column_stack([rows[keep], cols[keep], total[keep]]).astype(np.int32))
    all_labels, all_corners = np.concatenate(found_labels), np.concatenate(found)
    order = np.argsort(all_labels, kind="stable")
    return all_labels[order], all_corners[order]


def polygons(region: NDArray[np.int64], corners: Corners, count: int, *, diagonal: bool = False) -> NDArray[np.object_]:
    """Return polygons from the corners of 4-connected regions, or multipolygons from those of 8-connected ones.

    Every ring starts at its topmost, then leftmost corner and has vertices only where it turns, so that equal regions
    give equal bytes, however they were cut. A hole touches the shell or another hole in single points only, so all
    results are valid.

    Args:
        region: ``(n,)`` 0..count-1, the region of each corner.
        corners: ``(n, 3)`` in any order; those of one region and position are added.
        count: number of regions; each has at least one pixel.
        diagonal: regions may be connected by pixel corners; then every result is a MultiPolygon.

    Returns:
        ``(count,)`` of shapely geometries.
    """
    if count == 0:
        return np.empty(0, object)
    region, corners = _added_up(region, corners)
    node, following = _edges(region, corners, around_pixels=diagonal)
    order, starts = _chain(following)
    ring_nodes = node[order]
    ring_region = region[ring_nodes[starts]]
    if diagonal:
        doubled = np.abs(corners[ring_nodes, 2]) == 2
        if doubled.any():
            ring_nodes, starts = _unpinched(ring_nodes, starts, doubled)
            ring_region = region[ring_nodes[starts]]
        return _multipolygons(ring_nodes, starts, ring_region, corners, count)
    rings = _linear_rings(ring_nodes, starts, corners)
    # The smallest corner of a region always lies on its shell, and the chain starts there, so shells come first.
    return np.asarray(shapely.polygons(rings, indices=ring_region), object)


def _added_up(region: NDArray[np.int64], corners: Corners) -> tuple[NDArray[np.int64], Corners]:
    """Sort by region, row, col; add corners of equal position and remove those that cancel."""
    order = np.lexsort((corners[:, 1], corners[:, 0], region))
    region, corners = region[order], corners[order]
    new = np.ones(len(region), bool)
    new[1:] = (np.diff(region) != 0) | (np.diff(corners[:, :2], axis=0) != 0).any(1)
    at = np.flatnonzero(new)
    sign = np.add.reduceat(corners[:, 2], at)
    keep = at[sign != 0]
    return region[keep], np.column_stack([corners[keep, :2], sign[sign != 0]]).astype(np.int32)


def _edges(
    region: NDArray[np.int64], corners: Corners, *, around_pixels: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    r"""Return the corner of each ring vertex, and the next vertex of its ring, with the region on the right.

    A corner of sign ±2 is two vertices, and a ring can continue there in two ways:

        # # |          # # |        Left: around the gap. The outside and a hole that meet there stay two rings, which
        # # | .        # # | .      is right for two pixels that are connected elsewhere, as in a 4-connected region.
        ----\----      ----/----    Right: around the pixel. Pixels that meet only here become two polygons.
          . | # #        . | # #
    """
    row, col, sign = corners.T
    node = np.repeat(np.arange(len(corners)), np.abs(sign))
    second = np.zeros(len(node), bool)
    second[1:] = node[1:] == node[:-1]
    following = np.empty(len(node), np.int64)

    left, right = np.arange(0, len(node), 2), np.arange(1, len(node), 2)
    inside_below = sign[node[left]] > 0
    following[np.where(inside_below, left, right)] = np.where(inside_below, right, left)

    by_col = np.lexsort((second ^ (sign[node] == (-2 if around_pixels else 2)), row[node], col[node], region[node]))
    top, bottom = by_col[0::2], by_col[1::2]
    inside_right = sign[node[top]] > 0
    following[np.where(inside_right, bottom, top)] = np.where(inside_right, top, bottom)
    return node, following


def _chain(following: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the vertices ring by ring, and the start of each ring in that list."""
    rest = following.tolist()
    order: list[int] = []
    starts: list[int] = []
    for vertex in range(len(rest)):
        if rest[vertex] < 0:
            continue
        starts.append(len(order))
        here = vertex
        while (there := rest[here]) >= 0:
            order.append(here)
            rest[here] = -1
            here = there
    return np.array(order, np.int64), np.array(starts, np.int64)


def _linear_rings(ring_nodes: NDArray[np.int64], starts: NDArray[np.int64], corners: Corners) -> NDArray[np.object_]:
    """Return ``(n,)`` shapely LinearRings."""
    ring = np.zeros(len(ring_nodes), np.int64)
    ring[starts[1:]] = 1
    xy = corners[ring_nodes][:, [1, 0]].astype(np.float64)
    return np.asarray(shapely.linearrings(xy, indices=np.cumsum(ring)), object)


def _unpinched(
    ring_nodes: NDArray[np.int64], starts: NDArray[np.int64], doubled: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cut rings that pass a corner twice into a shell and the holes that touch it."""
    loops: list[NDArray[np.int64]] = []
    ends = np.append(starts[1:], len(ring_nodes))
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        if not doubled[start:end].any():
            loops.append(ring_nodes[start:end])
            continue
        path: list[int] = []
        place: dict[int, int] = {}
        for node in ring_nodes[start:end].tolist():
            if node in place:
                loop = path[place[node] :]
                loops.append(np.array(_from_smallest(loop), np.int64))
                for gone in loop[1:]:
                    del place[gone]
                del path[place[node] + 1 :]
            else:
                place[node] = len(path)
                path.append(node)
        loops.append(np.array(_from_smallest(path), np.int64))
    lengths = np.array([len(loop) for loop in loops])
    return np.concatenate(loops), np.concatenate([[0], np.cumsum(lengths)[:-1]])


def _from_smallest(loop: list[int]) -> list[int]:
    """Rotate a loop to start at its topmost, then leftmost corner (corners are numbered in that order)."""
    at = loop.index(min(loop))
    return loop[at:] + loop[:at]


def _multipolygons(
    ring_nodes: NDArray[np.int64],
    starts: NDArray[np.int64],
    ring_region: NDArray[np.int64],
    corners: Corners,
    count: int,
) -> NDArray[np.object_]:
    """Collect shells and holes by region; a hole belongs to the smallest shell of its region around it."""
    order = np.argsort(ring_nodes[starts], kind="stable")  # by region, then by topmost leftmost corner
    rings = _linear_rings(ring_nodes, starts, corners)[order]
    ring_region = ring_region[order]
    is_hole = shapely.is_ccw(rings) != shapely.is_ccw(rings[0])  # the first corner of all is on a shell
    shells, holes = rings[~is_hole], rings[is_hole]
    shell_region, hole_region = ring_region[~is_hole], ring_region[is_hole]
    owner = np.searchsorted(shell_region, hole_region)  # correct for regions with one shell
    many = np.bincount(shell_region, minlength=count)[hole_region] > 1
    if many.any():
        filled = shapely.polygons(shells)
        area = shapely.area(filled)
        hole_at, shell_at = shapely.STRtree(filled).query(shapely.polygons(holes[many]), predicate="covered_by")
        same = hole_region[many][hole_at] == shell_region[shell_at]
        hole_at, shell_at = hole_at[same], shell_at[same]
        tightest_first = np.lexsort((area[shell_at], hole_at))
        _, at = np.unique(hole_at[tightest_first], return_index=True)
        owner[many] = shell_at[tightest_first][at]
    part = np.concatenate([np.arange(len(shells)), owner])
    shell_first = np.argsort(part, kind="stable")
    parts = shapely.polygons(np.concatenate([shells, holes])[shell_first], indices=part[shell_first])
    return np.asarray(shapely.multipolygons(parts, indices=shell_region), object)
