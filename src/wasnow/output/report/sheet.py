"""A page of figures, charts, pictures and tables, self-contained: of a training run, an evaluation, a calibration."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import jinja2
from markupsafe import Markup

Rows = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Sheet:
    """What a page shows, from top to bottom; every text is escaped when it is rendered.

    Attributes:
        title, kicker, lede: what it is of, above that what kind of page, and below one line about it.
        notices: what must be known before the numbers are read.
        figures: (name, value, note) of the numbers at its head.
        charts_title: above the charts.
        charts: (name, note, SVG); the SVG stands as it is, its texts escaped already.
        samples: per pictured pair its name and (caption, ``data:`` address) of its pictures.
        legend: (name, CSS colour) of the pictures.
        tables: (title, note, head, rows).
        footer: the last line.
    """

    title: str
    kicker: str
    lede: str
    figures: Sequence[tuple[str, str, str]]
    charts_title: str
    charts: Iterable[tuple[str, str, str]]
    tables: Sequence[tuple[str, str, Sequence[str], Rows]]
    footer: str
    notices: Sequence[str] = ()
    samples: Sequence[tuple[str, Sequence[tuple[str, str]]]] = ()
    legend: Sequence[tuple[str, str]] = ()

    def render(self) -> str:
        """The page as HTML."""
        charts = [(name, note, Markup(svg)) for name, note, svg in self.charts]
        return _template().render({**vars(self), "charts": charts, "style": Markup(package_text("report.css"))})


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(package_text("sheet.html.j2"))


def package_text(name: str) -> str:
    """A file of this package."""
    return resources.files("wasnow.output.report").joinpath(name).read_text(encoding="utf-8")
