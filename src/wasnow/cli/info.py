"""``wasnow info``: both files, how the pair would be aligned, and possible problems."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from wasnow.cli.console import DEBUG, JSON, print_json, verb, warn
from wasnow.cli.options import option_values, with_run_options
from wasnow.errors import redacted
from wasnow.models.registry import DEFAULT
from wasnow.pipeline.options import MODEL

if TYPE_CHECKING:
    from wasnow.pipeline.plan import Plan
    from wasnow.raster.source import RasterSource

EXAMPLES = (
    "[bold]Examples[/bold]\n\n"
    "  wasnow info 2009.tif 2017.tif\n\n"
    "  wasnow info 2009.tif 2017.tif --classes 'greenhouse, canal'   # are these words known?"
)

SAMPLE_PX = 2**21
"""Pixels that are read to estimate the valid share and the shift."""


@verb
@with_run_options("align", "assume_crs", "bands", "gsd", "grid", "tile", "margin", "allow_indirect")
def info(
    before: Annotated[str, typer.Argument(help="The earlier raster.", show_default=False)],
    after: Annotated[str, typer.Argument(help="The later raster.", show_default=False)],
    model: Annotated[
        str, typer.Option("--model", "-m", help="The model that would be used.", rich_help_panel=MODEL)
    ] = DEFAULT,
    classes: Annotated[
        str | None,
        typer.Option(help="The class words that would be used.", show_default=False, rich_help_panel=MODEL),
    ] = None,
    as_json: bool = JSON,
    debug: bool = DEBUG,
    **options: Any,
) -> None:
    """Show both files, their alignment, the shift between them, and possible problems."""
    from wasnow.errors import InputError
    from wasnow.pipeline.options import Options
    from wasnow.pipeline.plan import make_plan
    from wasnow.raster.gdal import gdal_settings
    from wasnow.raster.source import probe

    chosen = Options(**option_values(options))
    with gdal_settings():
        sources = tuple(
            probe(path, assume_crs=chosen.assume_crs, allow_indirect=chosen.allow_indirect) for path in (before, after)
        )
        files = _file_facts(*sources)
        if not as_json:
            _print_table("files", ("", "before", "after"), [(name, *values) for name, values in files.items()])
        plan = make_plan(before, after, model=model, classes=classes, options=chosen)
        facts, warnings = _plan_facts(plan)
        try:
            sampled, sample_warnings = _sample_facts(plan)
            facts |= sampled
            warnings += sample_warnings
        except InputError as error:
            warnings.append(str(error))
    if as_json:
        dates = {date: {name: v[i] for name, v in files.items()} for i, date in enumerate(("before", "after"))}
        print_json({**dates, "together": facts, "warnings": warnings})
        return
    _print_table("together", ("", ""), list(facts.items()))
    for warning in warnings:
        warn(warning)
    if not warnings:
        typer.echo("no problems found")


def _file_facts(*sources: RasterSource) -> dict[str, tuple[str, ...]]:
    rows: dict[str, list[str]] = {}
    for source in sources:
        grid = source.grid
        gsd = grid.gsd_m
        values = {
            "file": redacted(source.path),
            "format": source.driver,
            "size": f"{grid.width} x {grid.height} px",
            "CRS": _crs(source),
            "pixel": f"{gsd:.4g} m" if gsd is not None else "unknown",
            "type": source.dtype,
            "bands": ", ".join(source.band_names),
            "missing pixels": _mask(source),
            "date": source.date or "unknown",
            "overviews": ", ".join(f"1:{each}" for each in source.overviews) or "none",
        }
        for name, value in values.items():
            rows.setdefault(name, []).append(value)
    return {name: tuple(values) for name, values in rows.items()}


def _crs(source: RasterSource) -> str:
    name = source.grid.crs_name
    if name is None:
        return "none (it has a transform, see --assume-crs)" if source.has_transform else "none"
    return name if len(name) < 40 else name.split('"')[1] + " (no EPSG code)"


def _mask(source: RasterSource) -> str:
    from wasnow.raster.nodata import nodata_is_also_a_color

    text = {"none": "none declared", "alpha": "alpha band", "mask": "mask", "nodata": ""}[source.mask]
    if any(value is not None for value in source.nodata):
        values = ", ".join(dict.fromkeys(f"{value:g}" for value in source.nodata if value is not None))
        rule = "in all bands" if nodata_is_also_a_color(source.nodata, source.dtype) else "in any band"
        text = f"{text}, nodata {values} {rule}".removeprefix(", ")
    return text


def _plan_facts(plan: Plan) -> tuple[dict[str, Any], list[str]]:
    """The plan as texts, and its warnings."""
    from wasnow.raster.align import overlap_share

    working = plan.pair.working
    facts: dict[str, Any] = {"results on": str(plan.result)}
    if working != plan.result:
        gsd = working.gsd_m or plan.card.gsd_m
        facts["model runs on"] = f"{working.width} x {working.height} px of {gsd:.4g} m"
    facts["before"] = plan.pair.before.placement.describe()
    facts["after"] = plan.pair.after.placement.describe()
    for date, placed in (("before", plan.pair.before), ("after", plan.pair.after)):
        if placed.source.overview is not None:
            facts[date] += f", from the 1:{placed.source.overview} overview"
    if plan.result.georeferenced:
        facts["overlap"] = f"{overlap_share(plan.result, plan.pair.after.source.grid):.1%} of the result grid"
    facts["model"] = f"{plan.card.name}, bands {', '.join(plan.pair.before.source.band_names)}"
    if plan.vocabulary.words:
        facts["classes"] = ", ".join(plan.vocabulary.words)
        if plan.other_words:
            facts["classes"] += f" ({', '.join(plan.other_words)})"
    facts["tiles"] = f"{plan.tiling.n_tiles:,} of {plan.tiling.tile} px, margin {plan.tiling.margin}"
    facts["cost"] = _cost(plan)
    return facts, list(plan.warnings)


def _cost(plan: Plan) -> str:
    from wasnow.cli.console import duration
    from wasnow.pipeline.cost import cost_of

    cost = cost_of(plan, timed=True)
    parts = [f"{cost.pixels:,} px", f"{cost.disk_bytes / 1e6:,.1f} MB of free disk space"]
    if cost.seconds is not None:
        parts.append(f"about {duration(cost.seconds)} for the model with this process")
    return ", ".join(parts)


def _sample_facts(plan: Plan) -> tuple[dict[str, Any], list[str]]:
    """Valid share and shift from a sample of the pixels, and warnings."""
    from wasnow.pipeline.survey import shift_warnings
    from wasnow.raster.survey import survey

    with plan.pair.open() as reader:
        found = survey(reader, budget_px=SAMPLE_PX)
    facts = {"comparable": f"{found.valid_px / found.read_px:.1%} of {found.read_px:,} sampled px"}
    if found.shift is None:
        facts["shift"] = "not estimated: too little common texture"
    else:
        shift = found.shift
        exact, near = shift.spread_px <= 0.5, shift.spread_px <= shift.length_px / 5
        quality = "reliable" if exact else "approximate" if near else "unreliable"
        facts["shift"] = (
            f"{shift.rows_px:+.2f} rows, {shift.cols_px:+.2f} cols "
            f"({quality}: spread {shift.spread_px:.2f} px over {shift.windows} windows)"
        )
    return facts, list(shift_warnings(plan, found.shift))


def _print_table(title: str, head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", show_header=any(head), box=None, pad_edge=False)
    for column in head:
        table.add_column(column, overflow="fold")
    for name, *values in rows:
        table.add_row(Text(name, style="bold"), *(Text(value) for value in values))
    Console().print(table)
