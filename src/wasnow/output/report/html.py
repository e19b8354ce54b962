"""``report.html``: one self-contained page by which a person can judge a run.

    run.json ────────┐
    changes.gpkg ────┤
    change.tif ──────┼──> plain values ──> report.html.j2 ──> one file without external references
    confidence.tif ──┤
    landcover_*.tif ─┤   (only with --landcover)
    before, after ───┘   (small pictures from the caller)

Jinja escapes everything that comes from file names and class words. In addition a content security policy allows only
the script of the page itself (by its hash) and no requests.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from pyproj import CRS
from pyproj.exceptions import ProjError

from wasnow.output.layout import CHANGE, CONFIDENCE, GEOPACKAGE, REPORT
from wasnow.output.record import GridRecord, InputRecord, RunRecord
from wasnow.output.report import pictures
from wasnow.output.report.drawings import block_paths, curves, scale_bar
from wasnow.output.report.ground import GroundGeometry, ground_geometry
from wasnow.output.report.model_box import about_model, model_facts, other_text
from wasnow.output.report.numbers import file_size, lat_lon, percent, plain_text, thousands, unit_for
from wasnow.output.report.polygon_table import PolygonRow, largest_polygons
from wasnow.output.report.sheet import package_text
from wasnow.output.report.tables import cover_rows, key_figures, legend_row, matrix, not_processed_rows, timing_rows
from wasnow.vocabulary import Vocabulary

FAILED_ROWS = 50


def write_report(
    folder: Path,
    record: RunRecord,
    before_rgb: NDArray[np.uint8],
    after_rgb: NDArray[np.uint8],
    path: Path | None = None,
    *,
    before_valid: NDArray[np.bool_] | None = None,
    after_valid: NDArray[np.bool_] | None = None,
    title: str | None = None,
) -> Path:
    """Write the page of a finished result folder and return its path.

    Args:
        folder: holds ``change.tif`` and ``confidence.tif``, and ``changes.gpkg`` if polygons were made.
        record: the record of the run.
        before_rgb: ``(rows, cols, 3)``, the date before over the extent of the result grid; about 1200 px a side.
        after_rgb: the same for the date after; the two may differ in size.
        path: where to write; None means ``report.html`` in the folder.
        before_valid: ``(rows, cols)``, False where ``before_rgb`` has no data; None if all pixels are valid.
        after_valid: the same for ``after_rgb``.
        title: the headline; None makes one from the dates.

    Raises:
        RasterUnreadable: a result raster is missing or damaged.
        ValueError: a picture does not have the required shape.
    """
    vocabulary = Vocabulary(record.model.classes)
    codes = pictures.dominant_codes(folder / CHANGE, band=3, unseen=vocabulary.not_processed)
    colors = {row.code: row.color for row in record.transitions}
    images = {
        "before": pictures.photo_jpeg(before_rgb, before_valid),
        "after": pictures.photo_jpeg(after_rgb, after_valid),
        "change": pictures.change_png(codes, colors, unseen=vocabulary.not_processed),
        "confidence": pictures.probability_png(pictures.mean_probability(folder / CONFIDENCE)),
    }
    if record.landcover:
        classes = {row.code: row.color for row in record.landcover}
        for name in ("landcover_before", "landcover_after"):
            cover = pictures.common_codes(folder / f"{name}.tif")
            images[name] = pictures.change_png(cover, classes, unseen=vocabulary.not_processed)
    text = render(record, images, largest_polygons(folder / GEOPACKAGE, record), title=title)
    target = folder / REPORT if path is None else path
    target.write_text(text, encoding="utf-8")
    return target


def render(
    record: RunRecord, images: Mapping[str, bytes], polygons: Sequence[PolygonRow] | None, *, title: str | None = None
) -> str:
    """Return the page as text.

    Args:
        record: the record of the run.
        images: encoded pictures by name: ``before``, ``after``, ``change``, ``confidence``, and for a run with class
            maps ``landcover_before`` and ``landcover_after``.
        polygons: the rows of the table, largest first; None without a file of polygons.
        title: the headline; None makes one from the dates.
    """
    script = package_text("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    ground = ground_geometry(record.grid)
    by_size = sorted(record.transitions, key=lambda row: row.pixels, reverse=True)
    unit = unit_for(None if record.areas_m2 is None else max(record.areas_m2.changed, 1.0))
    return _template().render(
        record=record,
        title=title or _title(record),
        script=Markup(script),
        script_hash=digest,
        style=Markup(package_text("report.css")),
        images={name: pictures.data_uri(coded) for name, coded in images.items()},
        names={"before": _name(record.before), "after": _name(record.after)},
        dates={"before": _date(record.before), "after": _date(record.after)},
        place=_place(ground),
        aspect=_aspect(record.grid, ground),
        scale=scale_bar(record.grid, ground),
        north=None if ground is None else round(ground.north_deg, 1),
        ramp=", ".join("#{:02x}{:02x}{:02x}".format(*color) for color in pictures.RAMP),
        figures=key_figures(record, unit),
        legend=[legend_row(row, record, unit) for row in by_size],
        matrix=matrix(record, unit),
        unit=unit,
        cover=cover_rows(record),
        about=about_model(record),
        other=other_text(record),
        model_facts=model_facts(record),
        polygons=polygons or (),
        has_polygon_file=polygons is not None,
        unseen=not_processed_rows(record),
        failed=[block for block in record.blocks if block.outcome == "failed"],
        failed_rows=FAILED_ROWS,
        block_paths=block_paths(record.blocks),
        curves=curves(record.model.fit or {}),
        fit=[(key, plain_text(value)) for key, value in (record.model.fit or {}).items()],
        options=[(key, plain_text(value)) for key, value in record.options.items()],
        command=shlex.join(record.command),
        timings=timing_rows(record.timings_s),
        sources=[("before", record.before), ("after", record.after)],
        bytes_text=file_size,
        percent=percent,
        crs_text=_crs,
        nodata_text=_nodata,
        thousands=lambda count: thousands(f"{count:,}"),
    )


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(package_text("report.html.j2"))


def _place(ground: GroundGeometry | None) -> str | None:
    return None if ground is None else f"around {lat_lon(ground.latitude, ground.longitude, 3)}"


def _aspect(grid: GridRecord, ground: GroundGeometry | None) -> float:
    """Return width over height of the scene on the ground; pixels need not be square there."""
    ratio = grid.width / grid.height
    return round(ratio if ground is None else ratio * ground.col_m / ground.row_m, 5)


def _name(source: InputRecord) -> str:
    return re.split(r"[/\\]", source.path)[-1] or source.path


def _date(source: InputRecord) -> str:
    return source.date or "date unknown"


def _title(record: RunRecord) -> str:
    dates = record.before.date, record.after.date
    return f"Change from {dates[0]} to {dates[1]}" if all(dates) else "Change report"


def _crs(grid: GridRecord) -> str:
    """Return code and name: ``EPSG:26914, NAD83 / UTM zone 14N``."""
    if grid.crs is None:
        return "none (pixel coordinates)"
    try:
        name = CRS.from_user_input(grid.crs).name
    except ProjError:
        return grid.crs
    return f"{grid.crs}, {name}" if len(grid.crs) <= 24 else name


def _nodata(source: InputRecord) -> str:
    """Return the distinct nodata values."""
    return ", ".join(dict.fromkeys("none" if value is None else f"{value:g}" for value in source.nodata))
