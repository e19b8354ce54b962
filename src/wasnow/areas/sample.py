"""Draw a stratified sample of a result folder and write it to a sample folder.

    design.json     strata, sizes, seed, digests of the map: what makes the sample repeatable and auditable
    points.gpkg     where the points are, for QGIS, with empty fields for labels; no strata, no map classes
    points.csv      the same for Collect Earth Online: LON, LAT, PLOTID first
    strata.csv      stratum and map classes of every point; kept apart, so that labelling is blind
    labels.csv      the reference labels; written by labelling or importing

All strata are interleaved in the order of labelling, so any beginning of the list is a sample of all of them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyogrio.raw
import rasterio
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from rasterio.windows import Window as RasterioWindow

import wasnow
from wasnow.areas.allocation import Allocation, Margin, allocate
from wasnow.areas.design import (
    DESIGN,
    KEY,
    LABELS,
    POINTS,
    POINTS_CSV,
    UNCHANGED,
    Design,
    ExpectedMargin,
    MappedArea,
    StratumRecord,
)
from wasnow.areas.draw import Draw, keys
from wasnow.areas.expectation import guesses, margins, sample_size, targeted
from wasnow.areas.map_strata import MapStrata, strata_of_map, strips
from wasnow.areas.strata import FloatArray, IntArray
from wasnow.errors import OutputError, UsageError
from wasnow.output.change_map import ChangeMap
from wasnow.storage.atomic import output_errors, write_atomically
from wasnow.storage.hashing import file_sha256
from wasnow.storage.ownership import claim

Progress = Callable[[str, int, int], None]
LABEL_FIELDS = (
    "id", "before", "after", "confidence", "note", "skip_reason", "interpreter", "labelled_at", "seconds",
)  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """A sample folder that was written.

    Attributes:
        folder: where it is.
        design: its design.
        margins: the expected precision of every class.
    """

    folder: Path
    design: Design
    margins: tuple[tuple[str, Margin], ...]


def draw_sample(
    result: ChangeMap,
    folder: Path,
    *,
    points: int | None = None,
    targets: Mapping[str, float] | None = None,
    buffer: float | None = None,
    evidence: float | None = None,
    allocation: Allocation = "balanced",
    floor: int = 30,
    seed: int = 0,
    progress: Progress | None = None,
) -> Sample:
    """Draw points from a result folder and write a sample folder.

    Args:
        result: the result folder.
        folder: the sample folder; created if missing.
        points: how many; None computes the number from ``targets``.
        targets: wanted relative margin of the area by transition or class word.
        buffer: reach of the buffer stratum in metres; see `strata_of_map`.
        evidence: change probability from which unchanged pixels belong to the buffer; see `strata_of_map`.
        allocation: how points are divided among strata; ``neyman`` optimises for the first target, or for any change.
        floor: fewest points per stratum.
        seed: of the draw, 0 to below 2^64.
        progress: called with ("sample", rows read, rows).

    Raises:
        UsageError: neither points nor targets are given, or an option is out of range.
        InputError: the folder is not a result folder.
        OutputError: the sample folder holds another sample, or cannot be written.
    """
    if points is None and not targets:
        raise UsageError("give the number of points, or a target such as building:20%")
    if (folder / DESIGN).exists():
        raise OutputError(f"{folder} already holds a sample; choose another folder, so that no label is lost")
    rules = strata_of_map(result, buffer=buffer, evidence=evidence)
    most = result.record.pixels.total if points is None else points
    draw = _read(result, rules, Draw(seed, np.full(len(rules.names), min(most, 100_000))), progress)
    names, weights = rules.names, _weights(draw)
    some = guesses(names, weights)
    main = targeted(names, some, next(iter(targets))) if targets else some[-1]
    if points is None:
        points, main = sample_size(names, weights, targets or {}, some)
        points = max(points, 2 * len(names))
    counts = allocate(
        points,
        weights.tolist(),
        method=allocation,
        shares=main.shares.tolist(),
        floor=floor,
        available=[int(size) for size in draw.sizes],
    )
    expected = margins(counts, weights, some)
    design = _design(result, rules, draw, counts, expected, seed, allocation)
    indices = [drawn[:count] for drawn, count in zip(draw.drawn(), counts, strict=True)]
    _write(folder, result, design, indices, seed)
    return Sample(folder, design, tuple(expected))


def _read(result: ChangeMap, rules: MapStrata, draw: Draw, progress: Progress | None) -> Draw:
    grid = result.record.grid
    for strip in strips(result, rules):
        draw.add(strip.strata, strip.indices, strip.areas_m2)
        if progress is not None:
            progress("sample", int(strip.indices[-1]) // grid.width + 1, grid.height)
    empty = [name for name, size in zip(rules.names, draw.sizes, strict=True) if size < 2]
    if empty:
        raise UsageError(
            f"stratum {empty[0]!r} has fewer than 2 pixels; change --buffer, or give a map with more change"
        )
    return draw


def _weights(draw: Draw) -> FloatArray:
    values = draw.areas_m2 if draw.areas_m2.any() else draw.sizes.astype(np.float64)
    shares: FloatArray = values / values.sum()
    return shares


def _design(
    result: ChangeMap,
    rules: MapStrata,
    draw: Draw,
    counts: IntArray,
    expected: list[tuple[str, Margin]],
    seed: int,
    allocation: str,
) -> Design:
    record, by_area = result.record, bool(draw.areas_m2.any())
    excluded = sum(record.pixels.not_processed.values())
    return Design(
        wasnow=wasnow.__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        map=str(result.folder),
        map_sha256=file_sha256(result.change),
        confidence_sha256=file_sha256(result.confidence),
        dates=(record.before.date, record.after.date),
        classes=record.model.classes,
        crs=record.grid.crs,
        transform=record.grid.transform,
        width=record.grid.width,
        height=record.grid.height,
        seed=seed,
        probability="per square metre" if by_area else "per unit",
        allocation=allocation,
        buffer_px=rules.buffer_px,
        evidence=rules.evidence,
        strata=tuple(
            StratumRecord(name=name, units=int(size), area_m2=float(area) if by_area else None, points=int(count))
            for name, size, area, count in zip(rules.names, draw.sizes, draw.areas_m2, counts, strict=True)
        ),
        mapped=_mapped(result),
        expected=tuple(
            ExpectedMargin(
                name=name, share=each.share, margin=each.margin if np.isfinite(each.margin) else None, hits=each.hits
            )
            for name, each in expected
        ),
        excluded_units=excluded,
        excluded_area_m2=record.areas_m2.not_processed if record.areas_m2 is not None else None,
    )


def _mapped(result: ChangeMap) -> tuple[MappedArea, ...]:
    """Every transition of the map by its share of what was processed."""
    record = result.record
    if record.areas_m2 is not None:
        total = record.areas_m2.changed + record.areas_m2.unchanged
        amounts = [row.area_m2 or 0.0 for row in record.transitions]
    else:
        total = record.pixels.changed + record.pixels.unchanged
        amounts = [float(row.pixels) for row in record.transitions]
    vocabulary = result.vocabulary
    names = [vocabulary.transition(row.code).label for row in record.transitions]
    rows = zip(names, amounts, strict=True)
    return tuple(MappedArea(name=name, share=amount / total) for name, amount in rows)


def _write(folder: Path, result: ChangeMap, design: Design, drawn: list[IntArray], seed: int) -> None:
    strata = np.repeat(np.arange(len(drawn)), [len(each) for each in drawn])
    indices = np.concatenate(drawn)
    # Interleave: the labelling order is a second, independent key of the pixel.
    shuffled = np.argsort(keys(seed ^ 0x5DEECE66D, indices), kind="stable")
    indices, strata = indices[shuffled], strata[shuffled]
    rows, cols = np.divmod(indices, design.width)
    x, y, lon, lat = _places(design, rows, cols)
    mapped = _map_labels(result, rows, cols)
    ids = np.arange(1, len(indices) + 1)
    claim(folder, (DESIGN, POINTS, POINTS_CSV, KEY))
    _write_points(folder / POINTS, design, ids, rows, cols, x, y, lon, lat)
    columns = ("LON", "LAT", "PLOTID") if lon is not None else ("X", "Y", "PLOTID")
    first, second = (lon, lat) if lon is not None and lat is not None else (x, y)
    _write_csv(folder / POINTS_CSV, columns, zip(first.tolist(), second.tolist(), ids.tolist(), strict=True))
    named = [design.strata[place].name for place in strata.tolist()]
    key = zip(ids.tolist(), named, *mapped, strict=True)
    _write_csv(folder / KEY, ("id", "stratum", "map_before", "map_after"), key)
    if not (folder / LABELS).exists():
        _write_csv(folder / LABELS, LABEL_FIELDS, ())
    write_atomically(folder / DESIGN, (design.model_dump_json(indent=1) + "\n").encode())


def _places(
    design: Design, rows: IntArray, cols: IntArray
) -> tuple[FloatArray, FloatArray, FloatArray | None, FloatArray | None]:
    """Centres of pixels in the CRS of the map, and in longitude and latitude where it has one."""
    a, b, c, d, e, f = design.transform
    x, y = a * (cols + 0.5) + b * (rows + 0.5) + c, d * (cols + 0.5) + e * (rows + 0.5) + f
    if design.crs is None:
        return x, y, None, None
    lon, lat = Transformer.from_crs(CRS.from_user_input(design.crs), 4326, always_xy=True).transform(x, y)
    return x, y, lon, lat


def _map_labels(result: ChangeMap, rows: IntArray, cols: IntArray) -> tuple[list[str], list[str]]:
    """The mapped class before and after of every point; `UNCHANGED` at both dates where the map shows no change."""
    words = result.vocabulary.words
    before, after = [UNCHANGED] * len(rows), [UNCHANGED] * len(rows)
    with rasterio.open(result.change) as change:
        for place, (row, col) in enumerate(zip(rows.tolist(), cols.tolist(), strict=True)):
            first, second, transition = change.read(window=RasterioWindow(col, row, 1, 1))[:, 0, 0].tolist()
            if transition == 0:
                continue
            before[place] = words[first - 1] if words else "unknown"
            after[place] = words[second - 1] if words else "changed"
    return before, after


def _write_points(
    path: Path,
    design: Design,
    ids: IntArray,
    rows: IntArray,
    cols: IntArray,
    x: FloatArray,
    y: FloatArray,
    lon: FloatArray | None,
    lat: FloatArray | None,
) -> None:
    empty = np.full(len(ids), None, object)
    fields: dict[str, NDArray[np.generic]] = {"id": ids, "row": rows, "col": cols}
    if lon is not None and lat is not None:
        fields |= {"lon": lon, "lat": lat}
    fields |= {name: empty for name in LABEL_FIELDS if name not in ("id", "seconds")}
    content = io.BytesIO()
    with output_errors(path):
        pyogrio.raw.write(
            content,
            geometry=shapely.to_wkb(shapely.points(x, y)),
            field_data=list(fields.values()),
            fields=list(fields),
            layer="points",
            driver="GPKG",
            geometry_type="Point",
            crs=design.crs,
        )
    write_atomically(path, content.getvalue())


def _write_csv(path: Path, columns: tuple[str, ...], rows: object) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    table.writerows(rows)  # type: ignore[arg-type]
    write_atomically(path, text.getvalue().encode())
