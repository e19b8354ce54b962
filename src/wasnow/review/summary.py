"""What a review has found so far, and a clean layer of the polygons with one status."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyogrio.raw

from wasnow.errors import InputError, OutputError
from wasnow.output.vector.files import LAYER
from wasnow.review.polygons import STATUSES, Polygon, ReviewedPolygons
from wasnow.review.project import size_of
from wasnow.storage.atomic import output_errors

FORMATS = {".gpkg": "GPKG", ".geojson": "GeoJSON", ".fgb": "FlatGeobuf"}


@dataclass(frozen=True)
class SummaryRow:
    """One transition of a reviewed result.

    Attributes:
        before: class at the first date; None for a model without classes.
        after: class at the second date.
        counts: polygons by status.
        sizes: square metres (pixels without a CRS) by status.
        reasons: rejected polygons by reason.
    """

    before: str | None
    after: str | None
    counts: dict[str, int]
    sizes: dict[str, float]
    reasons: dict[str, int]

    @property
    def name(self) -> str:
        """``water → building``; only the class after without a class before."""
        return str(self.after) if self.before is None else f"{self.before} → {self.after}"

    @property
    def confirmed_share(self) -> float | None:
        """Accepted over accepted and rejected size; None before any decision.

        It is the share of the reviewed candidates that is right, not an accuracy of the map: what the map missed is not
        among the candidates.
        """
        decided = self.sizes["accepted"] + self.sizes["rejected"]
        return self.sizes["accepted"] / decided if decided else None


def summarize(polygons: Sequence[Polygon]) -> list[SummaryRow]:
    """Return one row per transition, largest first.

    Args:
        polygons: of a reviewed result.
    """
    found: dict[tuple[str | None, str | None], list[Polygon]] = {}
    for each in polygons:
        found.setdefault((each.before, each.after), []).append(each)
    rows = []
    for (before, after), some in found.items():
        counts, sizes = dict.fromkeys(STATUSES, 0), dict.fromkeys(STATUSES, 0.0)
        reasons: dict[str, int] = {}
        for each in some:
            counts[each.status] = counts.get(each.status, 0) + 1
            sizes[each.status] = sizes.get(each.status, 0.0) + size_of(each)
            if each.status == "rejected":
                reasons[each.reason or "no reason"] = reasons.get(each.reason or "no reason", 0) + 1
        rows.append(SummaryRow(before, after, counts, sizes, reasons))
    return sorted(rows, key=lambda row: -sum(row.sizes.values()))


def export_layer(folder: Path, path: Path, *, status: str = "accepted") -> int:
    """Write the polygons with one status to a file of their own.

    Args:
        folder: the result folder.
        path: ``.gpkg``, ``.geojson`` or ``.fgb``; must not exist.
        status: one of `STATUSES`.

    Returns:
        The number of polygons.

    Raises:
        InputError: the status or the format is unknown, or the result has no readable GeoPackage.
        OutputError: the file exists or cannot be written.
    """
    if status not in STATUSES:
        raise InputError(f"status {status!r} is unknown; required is one of {', '.join(STATUSES)}")
    driver = FORMATS.get(path.suffix.casefold())
    if driver is None:
        raise InputError(f"{path}: unknown format; give a name that ends in {', '.join(FORMATS)}")
    if path.exists():
        raise OutputError(f"{path} exists; choose another name")
    source = ReviewedPolygons(folder)
    info, _, geometry, values = pyogrio.raw.read(source.path, layer=LAYER, where=f"review_status = '{status}'")
    partial = path.with_name(f".{path.stem}.part{path.suffix}")
    with output_errors(path):
        partial.unlink(missing_ok=True)
        pyogrio.raw.write(
            partial,
            geometry=geometry,
            field_data=values,
            fields=[str(name) for name in info["fields"]],
            layer=status,
            driver=driver,
            geometry_type="Unknown",
            crs=info["crs"],
        )
        partial.replace(path)
    return len(geometry)
