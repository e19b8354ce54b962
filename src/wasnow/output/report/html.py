"""``report.html``: one page that a person can judge a run by, and mail to a colleague.

    run.json ────────┐
    changes.gpkg ────┤
    change.tif ──────┼──> Page (plain values) ──> report.html.j2 ──> one file, no request to anywhere
    confidence.tif ──┤
    landcover_*.tif ─┤   (where the run made them)
    before, after ───┘   (small pictures from the caller)

Everything that a file name or a class word may say is escaped by Jinja. As a second fence the page forbids itself, by
a content security policy, any script but its own (named by hash) and any request at all.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyogrio
import shapely
from markupsafe import Markup
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError

from wasnow.output.record import CalibrationRecord, GridRecord, InputRecord, RunRecord, TransitionRecord
from wasnow.output.report import pictures
from wasnow.output.report.ground import Lay, lay, to_lonlat
from wasnow.output.report.sheet import package_text
from wasnow.storage.journal import BlockRecord
from wasnow.vocabulary import Vocabulary, join_words

REPORT_NAME = "report.html"
LARGER_RUN = "runs/semantic-cd"
"""The folder of the training that the box on a small model proposes."""

POLYGON_ROWS = 25
FAILED_ROWS = 50


@dataclass(frozen=True, slots=True)
class Unit:
    """What areas are written in: one unit for the whole page, so that numbers compare."""

    name: str
    per_m2: float

    def text(self, value: float) -> str:
        """Three significant digits, at most two decimals, thousands set apart by thin spaces."""
        amount = value * self.per_m2
        if 0 < amount < 0.01:
            return "< 0.01"
        decimals = 0 if amount == 0 or amount >= 100 or self.name == "px" else 1 if amount >= 10 else 2
        return _thousands(f"{amount:,.{decimals}f}")


PIXELS = Unit("px", 1.0)
SQUARE_METRES = Unit("m²", 1.0)
HECTARES = Unit("ha", 1e-4)
SQUARE_KILOMETRES = Unit("km²", 1e-6)


def unit_for(largest_m2: float | None) -> Unit:
    """The unit in which an area of this size reads well; pixels where there is none."""
    if largest_m2 is None:
        return PIXELS
    if largest_m2 < 20_000:
        return SQUARE_METRES
    return HECTARES if largest_m2 < 20e6 else SQUARE_KILOMETRES


@dataclass(frozen=True, slots=True)
class MatrixCell:
    """One cell of the from-to matrix; ``heat`` 0..1 is its share of the largest."""

    text: str
    heat: float
    title: str


@dataclass(frozen=True, slots=True)
class Matrix:
    """The from-to matrix of the classes that occur, in the order of the vocabulary, with its sums."""

    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, str, tuple[MatrixCell | None, ...], str], ...]
    column_sums: tuple[str, ...]
    total: str
    left_out: int


@dataclass(frozen=True, slots=True)
class CoverRow:
    """One class of the land cover table: its area before and after, and by how much that differs."""

    word: str
    color: str
    before: str
    after: str
    difference: str


@dataclass(frozen=True, slots=True)
class PolygonRow:
    """One line of the table of largest polygons; ``left`` and ``top`` are per cent of the picture."""

    id: str
    before: str | None
    after: str
    color: str
    area: str
    probability: str
    place: str
    left: float | None
    top: float | None
    notes: str


@dataclass(frozen=True, slots=True)
class Curve:
    """A series over iterations, as the path of a 240 x 48 drawing."""

    name: str
    path: str
    first: str
    last: str
    steps: int


@dataclass(frozen=True, slots=True)
class About:
    """What a reader should know of the weights: a headline, sentences, and commands that lead to better ones."""

    title: str
    sentences: tuple[str, ...]
    commands: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ScaleBar:
    """A round length, and which share of the picture's width it takes (per cent)."""

    label: str
    percent: float


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
    """Write the page of a finished result folder, and say where it is.

    Args:
        folder: holds ``change.tif`` and ``confidence.tif``, and ``changes.gpkg`` if polygons were made.
        record: what the run recorded.
        before_rgb: ``(rows, cols, 3)``, the first date over the extent of the result grid; about 1200 px a side.
        after_rgb: the second date likewise; the two may differ in size.
        path: where to write; None means ``report.html`` in the folder.
        before_valid: ``(rows, cols)``, False where ``before_rgb`` shows nothing; None where all is valid.
        after_valid: the same for ``after_rgb``.
        title: the headline; None makes one of the dates.

    Raises:
        RasterUnreadable: a result raster is missing or damaged.
        ValueError: a picture has not the shape asked for.
    """
    vocabulary = Vocabulary(record.model.classes)
    codes = pictures.dominant_codes(folder / "change.tif", band=3, unseen=vocabulary.not_processed)
    colors = {row.code: row.color for row in record.transitions}
    images = {
        "before": pictures.photo_jpeg(before_rgb, before_valid),
        "after": pictures.photo_jpeg(after_rgb, after_valid),
        "change": pictures.change_png(codes, colors, unseen=vocabulary.not_processed),
        "confidence": pictures.probability_png(pictures.mean_probability(folder / "confidence.tif")),
    }
    if record.landcover:
        classes = {row.code: row.color for row in record.landcover}
        for name in ("landcover_before", "landcover_after"):
            cover = pictures.common_codes(folder / f"{name}.tif")
            images[name] = pictures.change_png(cover, classes, unseen=vocabulary.not_processed)
    text = render(record, images, largest_polygons(folder / "changes.gpkg", record), title=title)
    target = folder / REPORT_NAME if path is None else path
    target.write_text(text, encoding="utf-8")
    return target


def render(
    record: RunRecord, images: Mapping[str, bytes], polygons: Sequence[PolygonRow] | None, *, title: str | None = None
) -> str:
    """The page as text.

    Args:
        record: what the run recorded.
        images: coded pictures under ``before``, ``after``, ``change`` and ``confidence``, and where the run made class
            maps under ``landcover_before`` and ``landcover_after``.
        polygons: the lines of the table, largest first; None where there is no file of polygons.
        title: the headline; None makes one of the dates.
    """
    script = package_text("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    where = lay(record.grid)
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
        place=_place(record.grid, where),
        aspect=_aspect(record.grid, where),
        scale=scale_bar(record.grid, where),
        north=None if where is None else round(where.north_deg, 1),
        ramp=", ".join("#{:02x}{:02x}{:02x}".format(*color) for color in pictures.RAMP),
        figures=_figures(record, unit),
        legend=[_legend(row, record, unit) for row in sorted(record.transitions, key=_size, reverse=True)],
        matrix=matrix(record, unit),
        unit=unit,
        cover=cover_rows(record),
        about=about_model(record),
        other=other_text(record),
        model_facts=_model_facts(record),
        polygons=polygons or (),
        has_polygon_file=polygons is not None,
        unseen=_not_processed(record),
        failed=[block for block in record.blocks if block.outcome == "failed"],
        failed_rows=FAILED_ROWS,
        block_paths=block_paths(record.blocks),
        curves=curves(record.model.fit or {}),
        fit=[(key, _plain(value)) for key, value in (record.model.fit or {}).items()],
        options=[(key, _plain(value)) for key, value in record.options.items()],
        command=shlex.join(record.command),
        timings=_timings(record.timings_s),
        grids=[("result", record.grid), ("seen by the model", record.working_grid)],
        sources=[("before", record.before), ("after", record.after)],
        bytes_text=_bytes,
        percent=_percent,
        crs_text=_crs,
        nodata_text=_nodata,
        thousands=lambda count: _thousands(f"{count:,}"),
    )


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(package_text("report.html.j2"))


def matrix(record: RunRecord, unit: Unit) -> Matrix | None:
    """From rows, to columns, only classes that occur; None without classes or without change."""
    if not record.model.classes or not record.transitions:
        return None
    vocabulary = Vocabulary(record.model.classes)
    cells = {(row.before, row.after): row for row in record.transitions}
    befores = [word for word in vocabulary.words if any(key[0] == word for key in cells)]
    afters = [word for word in vocabulary.words if any(key[1] == word for key in cells)]
    colors = {word: _css(vocabulary.color(code)) for code, word in enumerate(vocabulary.words, start=1)}
    largest = max(_amount(row, unit) for row in record.transitions) or 1.0

    def total(rows: Iterable[TransitionRecord]) -> str:
        return unit.text(sum(_amount(row, unit) for row in rows))

    def cell(before: str, after: str) -> MatrixCell | None:
        row = cells.get((before, after))
        if row is None:
            return None
        amount = _amount(row, unit)
        title = f"{before} to {after}: {unit.text(amount)} {unit.name}, {row.pixels} pixels"
        return MatrixCell(unit.text(amount), round(math.sqrt(amount / largest), 3), title)

    return Matrix(
        columns=tuple((word, colors[word]) for word in afters),
        rows=tuple(
            (
                word,
                colors[word],
                tuple(cell(word, after) for after in afters),
                total(row for row in record.transitions if row.before == word),
            )
            for word in befores
        ),
        column_sums=tuple(total(row for row in record.transitions if row.after == word) for word in afters),
        total=total(record.transitions),
        left_out=sum(word not in befores and word not in afters for word in vocabulary.words),
    )


def cover_rows(record: RunRecord) -> list[CoverRow]:
    """The classes of the unmasked maps that occur, in the order of the vocabulary; none without such maps."""
    amounts = [row.area_m2 if row.area_m2 is not None else row.pixels for row in record.landcover]
    unit = unit_for(max(map(max, amounts), default=0.0) if record.areas_m2 is not None else None)

    def text(value: float) -> str:
        return f"{unit.text(value)} {unit.name}"

    return [
        CoverRow(
            row.word,
            _css(row.color),
            text(before),
            text(after),
            "±0" if after == before else f"{'+' if after > before else '−'}{text(abs(after - before))}",
        )
        for row, (before, after) in zip(record.landcover, amounts, strict=True)
        if before or after
    ]


def confidence_text(calibration: CalibrationRecord | None) -> str:
    """What may be believed of the probabilities, in one line."""
    if calibration is None:
        return "not calibrated: a probability orders pixels, it is no frequency"
    found = calibration
    errors = [
        (name, before, after)
        for name, before, after in (
            ("change", found.ece_change_before, found.ece_change_after),
            ("classes", found.ece_class_before, found.ece_class_after),
        )
        if before is not None and after is not None
    ]
    told = "; ".join(f"{name} ECE {100 * before:.1f} % → {100 * after:.1f} %" for name, before, after in errors)
    pairs = f"{found.pairs} pair{'' if found.pairs == 1 else 's'}"
    other = "" if found.for_these_classes else "; the class words were others, so theirs is a guess"
    return f"calibrated on {found.split} ({pairs}){': ' if told else ''}{told}{other}"


def about_model(record: RunRecord) -> About | None:
    """The box on what the weights are good for, and what to do for better ones; None where they do not say."""
    model, seen = record.model, record.working_grid.gsd_m
    if model.about is None:
        return None
    sentences = [" ".join(model.about.split())]
    if model.gsd_range_m is not None:
        here = f"; here it saw {seen:.3g} m" if seen is not None else "; how large these are is not known"
        sentences.append(f"It was measured at pixels of {model.gsd_range_m[0]:g} to {model.gsd_range_m[1]:g} m{here}.")
    if not model.shipped:
        return About("About this model", tuple(sentences), ())
    own = model.classes[: -1 if model.other_words else None]
    again = ["wasnow", "detect", record.before.path, record.after.path, "-o", "out-larger", "--model", LARGER_RUN]
    return About(
        "Made by the small model that comes with wasnow",
        (*sentences, "A larger model does better, once trained:"),
        (
            "wasnow weights get remoteclip-vit-l-14",
            f"wasnow train semantic-cd-second --data SECOND -o {LARGER_RUN}",
            shlex.join([*again, "--classes", ", ".join(own)]),
        ),
    )


def other_text(record: RunRecord) -> str | None:
    """What the class "other" stands for, in one sentence; None for a run without it."""
    model = record.model
    if not model.other_words:
        return None
    return (
        f"“{model.classes[-1]}” is ground that none of the given words fits: of what this model was trained on, "
        f"{join_words(model.other_words)}."
    )


def _model_facts(record: RunRecord) -> list[tuple[str, str]]:
    model, features = record.model, record.features
    facts = [
        ("classes", ", ".join(model.classes) or "none: change only"),
        ("threshold", f"{model.threshold:g} ({model.threshold_from})"),
    ]
    if model.class_thresholds:
        own = ", ".join(f"{word} {value:g}" for word, value in model.class_thresholds.items())
        facts.append(("threshold from or to", own))
    facts.append(("confidence", confidence_text(model.calibration)))
    if features is not None:
        total = features.tiles_reused + features.tiles_encoded
        facts.append(("image features", f"{features.tiles_reused} of {total} tiles answered from {features.folder}"))
    facts.append(("fingerprint", model.fingerprint))
    return facts


def largest_polygons(path: Path, record: RunRecord, *, limit: int = POLYGON_ROWS) -> list[PolygonRow] | None:
    """The largest polygons of layer ``changes``; None where there is no such file or layer."""
    if not path.exists():
        return None
    query = f"SELECT * FROM changes ORDER BY COALESCE(area_m2, 0) DESC, n_px DESC LIMIT {limit:d}"
    try:
        meta, fids, shapes, columns = pyogrio.raw.read(path, sql=query, return_fids=True)
    except (DataSourceError, DataLayerError):
        return None
    fields = dict(zip(meta["fields"], columns, strict=True))
    if shapes is None or not len(shapes):
        return []
    colors = {(row.before, row.after): row.color for row in record.transitions}
    centres = shapely.centroid(shapely.from_wkb(shapes))
    points = np.column_stack([shapely.get_x(centres), shapely.get_y(centres)])
    spots, places = _spots(points, meta["crs"], record.grid), _places(points, meta["crs"])
    areas = [_number(value) for value in fields.get("area_m2", [None] * len(shapes))]
    unit = unit_for(max((area for area in areas if area is not None), default=None))

    def text(name: str, index: int) -> str | None:
        value = fields[name][index] if name in fields else None
        return None if value is None or value != value else str(value)

    rows = []
    for index in range(len(shapes)):
        before, after = text("from", index), text("to", index) or "changed"
        area, probability = areas[index], _number(fields["p_change"][index]) if "p_change" in fields else None
        edge = "at the edge" if text("edge", index) in ("1", "True", "true") else None
        status = text("review_status", index)
        notes = [note for note in (edge, text("flags", index), status) if note and note != "unreviewed"]
        left, top = spots[index]
        inside = 0 <= left <= 100 and 0 <= top <= 100
        rows.append(
            PolygonRow(
                id=text("id", index) or str(fids[index]),
                before=before,
                after=after,
                color=_css(colors.get((before, after), (128, 128, 128))),
                area=f"{text('n_px', index) or '?'} px" if area is None else f"{unit.text(area)} {unit.name}",
                probability="" if probability is None else f"{probability:.2f}",
                place=places[index],
                left=round(left, 3) if inside else None,
                top=round(top, 3) if inside else None,
                notes=", ".join(notes),
            )
        )
    return rows


def scale_bar(grid: GridRecord, where: Lay | None) -> ScaleBar | None:
    """The largest of 1, 2, 5 x 10^n metres that takes at most a quarter of the picture's width."""
    col_m = where.col_m if where is not None else grid.gsd_m
    if not col_m:
        return None
    width_m = col_m * grid.width
    power = 10.0 ** math.floor(math.log10(width_m / 4))
    length = max(step * power for step in (1, 2, 5) if step * power <= width_m / 4 * (1 + 1e-9))
    label = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m" if length >= 1 else f"{length * 100:g} cm"
    return ScaleBar(label, round(100 * length / width_m, 3))


def block_paths(blocks: Sequence[BlockRecord]) -> dict[str, str]:
    """Outcome -> SVG path of its blocks in pixel coordinates, neighbours in a row joined."""
    paths: dict[str, list[str]] = {"done": [], "empty": [], "failed": []}
    run: tuple[str, int, int, int, int] | None = None
    for block in [*sorted(blocks, key=lambda block: (block.row, block.col)), None]:
        if (
            block is not None
            and run is not None
            and (block.outcome, block.row, block.height) == (run[0], run[1], run[3])
            and block.col == run[2] + run[4]
        ):
            run = (*run[:4], run[4] + block.width)
            continue
        if run is not None:
            outcome, row, col, height, width = run
            paths[outcome].append(f"M{col} {row}h{width}v{height}h-{width}z")
        run = None if block is None else (block.outcome, block.row, block.col, block.height, block.width)
    return {outcome: "".join(pieces) for outcome, pieces in paths.items()}


def curves(fit: Mapping[str, Any]) -> list[Curve]:
    """Every series over iterations among a model's diagnostics: numbers, vectors, or records per iteration.

    A plain list of numbers counts as a series only where its name says so (iteration, history, trace, change,
    correlations of many steps): one number per band is no convergence.
    """
    found: list[tuple[str, list[float]]] = []
    for key, value in fit.items():
        if not isinstance(value, list) or len(value) < 2:
            continue
        if all(_is_number(item) for item in value):
            if re.search(r"iter|hist|trace|converg|delta|per_step|steps", key):
                found.append((key, [float(item) for item in value]))
        elif all(isinstance(item, Mapping) for item in value):
            for name in value[0]:
                found += _columns(f"{key}.{name}", [item.get(name) for item in value])
        else:
            found += _columns(key, value)
    return [_curve(name, series) for name, series in found]


def _columns(name: str, rows: Sequence[Any]) -> list[tuple[str, list[float]]]:
    """One series per entry of rows that are numbers or vectors of one length; none if they are neither."""
    if all(_is_number(row) for row in rows):
        return [(name, [float(row) for row in rows])]
    if all(isinstance(row, list) and len(row) == len(rows[0]) and all(map(_is_number, row)) for row in rows):
        return [(f"{name} {i + 1}", [float(row[i]) for row in rows]) for i in range(len(rows[0]))]
    return []


def _curve(name: str, series: Sequence[float]) -> Curve:
    low, high = min(series), max(series)
    span = high - low or 1.0
    across = 236 / (len(series) - 1)
    points = [f"{2 + i * across:.1f},{44 - (value - low) / span * 40:.1f}" for i, value in enumerate(series)]
    return Curve(name, "M" + "L".join(points), f"{series[0]:.4g}", f"{series[-1]:.4g}", len(series))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _number(value: Any) -> float | None:
    return None if value is None or value != value else float(value)


def _spots(points: NDArray[np.float64], crs: str | None, grid: GridRecord) -> list[tuple[float, float]]:
    """Where on the picture points lie, in per cent from its left and top."""
    try:
        if crs and grid.crs and CRS.from_user_input(crs) != CRS.from_user_input(grid.crs):
            move = Transformer.from_crs(crs, CRS.from_user_input(grid.crs), always_xy=True)
            points = np.column_stack(move.transform(points[:, 0], points[:, 1]))
    except ProjError:
        return [(math.nan, math.nan)] * len(points)
    a, b, c, d, e, f = grid.transform
    pixels = np.linalg.solve(np.array([[a, b], [d, e]]), points.T - np.array([[c], [f]]))
    return [(100 * float(col) / grid.width, 100 * float(row) / grid.height) for col, row in pixels.T]


def _places(points: NDArray[np.float64], crs: str | None) -> list[str]:
    """Points in words: latitude and longitude, or what coordinates there are."""
    if crs:
        try:
            return [_lat_lon(lat, lon) for lon, lat in to_lonlat(crs, points[:, 0], points[:, 1])]
        except ProjError:
            pass
    return [f"{x:.1f}, {y:.1f}" for x, y in points]


def _lat_lon(lat: float, lon: float, decimals: int = 5) -> str:
    if not (math.isfinite(lat) and math.isfinite(lon)):
        return "unknown"
    return f"{abs(lat):.{decimals}f}° {'N' if lat >= 0 else 'S'}, {abs(lon):.{decimals}f}° {'E' if lon >= 0 else 'W'}"


def _place(grid: GridRecord, where: Lay | None) -> str | None:
    return None if where is None else f"around {_lat_lon(where.latitude, where.longitude, 3)}"


def _aspect(grid: GridRecord, where: Lay | None) -> float:
    """Width over height of the scene on the ground: a degree of longitude is no degree of latitude."""
    ratio = grid.width / grid.height
    return round(ratio if where is None else ratio * where.col_m / where.row_m, 5)


def _name(source: InputRecord) -> str:
    return re.split(r"[/\\]", source.path)[-1] or source.path


def _date(source: InputRecord) -> str:
    return source.date or "date unknown"


def _title(record: RunRecord) -> str:
    dates = record.before.date, record.after.date
    return f"What changed, {dates[0]} to {dates[1]}" if all(dates) else "What changed"


def _thousands(text: str) -> str:
    return text.replace(",", "\u202f")


def _crs(grid: GridRecord) -> str:
    """``EPSG:26914, NAD83 / UTM zone 14N``."""
    if grid.crs is None:
        return "none (pixel coordinates)"
    try:
        name = CRS.from_user_input(grid.crs).name
    except ProjError:
        return grid.crs
    return f"{grid.crs}, {name}" if len(grid.crs) <= 24 else name


def _nodata(source: InputRecord) -> str:
    """The nodata values, once each."""
    return ", ".join(dict.fromkeys("none" if value is None else f"{value:g}" for value in source.nodata))


def _css(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def _size(row: TransitionRecord) -> int:
    return row.pixels


def _amount(row: TransitionRecord, unit: Unit) -> float:
    return float(row.pixels) if unit is PIXELS or row.area_m2 is None else row.area_m2


def _legend(row: TransitionRecord, record: RunRecord, unit: Unit) -> dict[str, Any]:
    share = row.pixels / record.pixels.changed if record.pixels.changed else 0.0
    return {
        "before": row.before,
        "after": row.after,
        "color": _css(row.color),
        "amount": f"{unit.text(_amount(row, unit))} {unit.name}",
        "share": _percent(share),
        "polygons": row.polygons,
    }


def _figures(record: RunRecord, unit: Unit) -> list[tuple[str, str, str]]:
    """The key figures: name, value, explanation."""
    pixels, areas = record.pixels, record.areas_m2
    hidden = sum(pixels.not_processed.values())
    seen = pixels.changed + pixels.unchanged
    changed = f"{unit.text(pixels.changed if areas is None else areas.changed)} {unit.name}"
    whole = unit_for(None if areas is None else areas.total)
    total = f"{whole.text(pixels.total if areas is None else areas.total)} {whole.name}"
    kinds = len(record.transitions)
    return [
        ("Changed", changed, _thousands(f"{pixels.changed:,} pixels") if areas else f"of {total}"),
        (
            "Share of what was compared",
            _percent(pixels.changed / seen) if seen else "nothing compared",
            f"scene of {total}",
        ),
        ("Polygons", _thousands(f"{record.polygons:,}"), f"{kinds} kind{'' if kinds == 1 else 's'} of change"),
        ("Not processed", _percent(hidden / pixels.total), _thousands(f"{hidden:,} pixels")),
    ]


def _not_processed(record: RunRecord) -> list[tuple[str, int, str, str]]:
    """Reason, pixels, area (shared out by pixels), share of the scene; most first."""
    reasons = sorted(record.pixels.not_processed.items(), key=lambda item: -item[1])
    hidden = sum(count for _, count in reasons) or 1
    area = None if record.areas_m2 is None else record.areas_m2.not_processed
    unit = unit_for(area)
    return [
        (
            reason.replace("_", " "),
            count,
            "" if area is None else f"{'≈ ' if len(reasons) > 1 else ''}{unit.text(area * count / hidden)} {unit.name}",
            _percent(count / record.pixels.total if record.pixels.total else 0.0),
        )
        for reason, count in reasons
        if count
    ]


def _timings(timings: Mapping[str, float]) -> list[tuple[str, str, float]]:
    longest = max(timings.values(), default=0.0) or 1.0
    return [
        (name.replace("_", " "), f"{seconds:.1f} s", round(100 * seconds / longest, 1))
        for name, seconds in timings.items()
    ]


def _percent(share: float) -> str:
    """A share 0..1 as per cent; what is there never reads as nothing."""
    if share == 0:
        return "0 %"
    if share < 0.0001:
        return "< 0.01 %"
    return f"{100 * share:.2f} %" if share < 0.1 else f"{100 * share:.1f} %"


def _plain(value: Any) -> str:
    """An option or diagnostic as one line of text."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.6g}"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 400 else text[:399] + "…"


def _bytes(size: int | None) -> str:
    if size is None:
        return ""
    for name, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {name}"
    return f"{size} B"
