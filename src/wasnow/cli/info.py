"""``wasnow info``: what a pair is, how it would be aligned, what looks wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from wasnow.cli.console import DEBUG, JSON, print_json, verb, warn
from wasnow.models.registry import DEFAULT
from wasnow.pipeline.parsing import parse_bands

if TYPE_CHECKING:
    from wasnow.pipeline.plan import Plan
    from wasnow.raster.source import RasterSource

EXAMPLES = (
    "[bold]Examples[/bold]\n\n"
    "  wasnow info 2009.tif 2017.tif\n\n"
    "  wasnow info 2009.tif 2017.tif --classes 'greenhouse, canal'   # are these words understood?"
)


@verb
def info(
    before: Annotated[str, typer.Argument(help="The earlier raster.", show_default=False)],
    after: Annotated[str, typer.Argument(help="The later raster.", show_default=False)],
    model: Annotated[str, typer.Option("--model", "-m", help="The model that would be used.")] = DEFAULT,
    classes: Annotated[str | None, typer.Option(help="As for wasnow detect.", show_default=False)] = None,
    align: Annotated[str, typer.Option(help="As for wasnow detect.")] = "before",
    assume_crs: Annotated[str | None, typer.Option(help="As for wasnow detect.")] = None,
    bands: Annotated[str | None, typer.Option(help="As for wasnow detect.")] = None,
    gsd: Annotated[float | None, typer.Option(help="As for wasnow detect.")] = None,
    allow_indirect: Annotated[bool, typer.Option("--allow-indirect", help="As for wasnow detect.")] = False,
    as_json: bool = JSON,
    debug: bool = DEBUG,
) -> None:
    """Look at a pair: both files side by side, the way onto one grid, the shift between them, and what looks wrong."""
    from wasnow.errors import InputError
    from wasnow.pipeline.plan import Options, make_plan
    from wasnow.raster.gdal import gdal_settings
    from wasnow.raster.source import probe

    with gdal_settings():
        opening: dict[str, Any] = {"assume_crs": assume_crs, "allow_indirect": allow_indirect}
        sources = probe(before, **opening), probe(after, **opening)
        facts = _facts(*sources)
        if not as_json:
            _show("the files", ("", "before", "after"), [(name, *values) for name, values in facts.items()])
        options = Options(align=align, bands=parse_bands(bands), gsd=gsd, **opening)
        plan = make_plan(before, after, model=model, classes=classes, options=options)
        shown, warnings = _plan_facts(plan)
        try:
            shown |= (look := _look(plan))[0]
            warnings += look[1]
        except InputError as error:
            warnings.append(str(error))
    if as_json:
        files = {date: {name: v[i] for name, v in facts.items()} for i, date in enumerate(("before", "after"))}
        print_json({**files, "together": shown, "warnings": warnings})
        return
    _show("together", ("", ""), list(shown.items()))
    for warning in warnings:
        warn(warning)
    if not warnings:
        typer.echo("nothing looks wrong")


def _facts(*sources: RasterSource) -> dict[str, tuple[str, ...]]:
    rows: dict[str, list[str]] = {}
    for source in sources:
        grid = source.grid
        gsd = grid.gsd_m
        values = {
            "file": source.path,
            "format": source.driver,
            "size": f"{grid.width} x {grid.height} px",
            "CRS": _crs(source),
            "pixel": f"{gsd:.4g} m" if gsd is not None else "unknown",
            "type": source.dtype,
            "bands": ", ".join(source.band_names),
            "missing pixels": _mask(source),
            "date": source.date or "not said",
            "overviews": ", ".join(f"1:{each}" for each in source.overviews) or "none",
        }
        for name, value in values.items():
            rows.setdefault(name, []).append(value)
    return {name: tuple(values) for name, values in rows.items()}


def _crs(source: RasterSource) -> str:
    name = source.grid.crs_name
    if name is None:
        return "none (it has a position, see --assume-crs)" if source.has_transform else "none"
    return name if len(name) < 40 else name.split('"')[1] + " (no EPSG code)"


def _mask(source: RasterSource) -> str:
    from wasnow.raster.nodata import nodata_is_also_a_color

    text = {"none": "none declared", "alpha": "alpha band", "mask": "mask", "nodata": ""}[source.mask]
    if any(value is not None for value in source.nodata):
        values = ", ".join(dict.fromkeys(f"{value:g}" for value in source.nodata if value is not None))
        rule = "in all bands" if nodata_is_also_a_color(source.nodata, source.dtype) else "in any band"
        text = f"{text}, nodata {values} {rule}".removeprefix(", ")
    return text


def _plan_facts(plan: Plan) -> tuple[dict[str, str], list[str]]:
    working = plan.pair.working
    from wasnow.raster.align import overlap_share

    facts = {"results on": str(plan.result)}
    if working != plan.result:
        facts["model sees"] = f"{working.width} x {working.height} px of {working.gsd_m or plan.card.gsd_m:.4g} m"
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
    facts["tiles"] = f"{plan.tiling.n_tiles} of {plan.tiling.tile} px, margin {plan.tiling.margin}"
    return facts, list(plan.warnings)


def _look(plan: Plan) -> tuple[dict[str, Any], list[str]]:
    """What a sample of pixels adds: valid share and shift."""
    from wasnow.pipeline.run import shift_warnings
    from wasnow.raster.survey import survey

    with plan.pair.open() as reader:
        looked = survey(reader, budget_px=2**21)
    facts = {"comparable": f"{looked.valid_px / looked.read_px:.1%} of {looked.read_px:,} px looked at"}
    if looked.shift is None:
        facts["shift"] = "cannot be told: too little texture in common"
    else:
        shift = looked.shift
        sure = "sure" if shift.spread_px <= 0.5 else "roughly" if shift.spread_px <= shift.length_px / 5 else "unsure"
        facts["shift"] = (
            f"{shift.rows_px:+.2f} rows, {shift.cols_px:+.2f} cols "
            f"({sure}: spread {shift.spread_px:.2f} px over {shift.windows} windows)"
        )
    return facts, list(shift_warnings(plan, looked.shift))


def _show(title: str, head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", show_header=any(head), box=None, pad_edge=False)
    for column in head:
        table.add_column(column, overflow="fold")
    for name, *values in rows:
        table.add_row(Text(name, style="bold"), *(Text(value) for value in values))
    Console().print(table)
