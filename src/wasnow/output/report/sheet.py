"""A self-contained page of figures, charts, pictures and tables, for a training run, an evaluation or a calibration."""

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
    """The content of a page, from top to bottom; all text is escaped when it is rendered.

    Attributes:
        title: the headline.
        kicker: the kind of page, above the headline.
        lede: one line below the headline.
        notices: remarks to read before the numbers.
        figures: (name, value, note) of the key figures.
        charts_title: the headline of the charts.
        charts: (name, note, SVG); the text in the SVG must already be escaped.
        samples: for each sample pair its name and (caption, ``data:`` URI) of its pictures.
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
        """Return the page as HTML."""
        charts = [(name, note, Markup(svg)) for name, note, svg in self.charts]
        return _template().render({**vars(self), "charts": charts, "style": Markup(package_text("report.css"))})


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(package_text("sheet.html.j2"))


def package_text(name: str) -> str:
    """Return the text of a file of this package."""
    return resources.files("wasnow.output.report").joinpath(name).read_text(encoding="utf-8")
