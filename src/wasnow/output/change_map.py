"""A finished result folder as a Python object."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from wasnow.output.layout import CHANGE, CONFIDENCE, GEOPACKAGE, GEOPARQUET, ITEM, LANDCOVER, REPORT
from wasnow.output.record import RunRecord
from wasnow.vocabulary import Vocabulary

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True)
class ChangeMap:
    """A finished result folder: where its files are and what they say. In a notebook it shows itself.

    Attributes:
        folder: the result folder.
        record: everything that run.json says.
        reused: the folder held this very run already, and nothing was computed.
    """

    folder: Path
    record: RunRecord
    reused: bool = False

    @classmethod
    def open(cls, folder: str | Path) -> ChangeMap:
        """A result folder made earlier.

        Raises:
            InputError: it is none.
        """
        return cls(Path(folder), RunRecord.read(Path(folder)))

    @property
    def change(self) -> Path:
        """Raster of before_class, after_class, transition."""
        return self.folder / CHANGE

    @property
    def confidence(self) -> Path:
        """Raster of probabilities x 254."""
        return self.folder / CONFIDENCE

    @property
    def landcover(self) -> tuple[Path, Path] | None:
        """Rasters of the classes before and after, changed or not; None for a run without ``landcover``."""
        if not self.record.landcover:
            return None
        return self.folder / LANDCOVER[0], self.folder / LANDCOVER[1]

    @property
    def geopackage(self) -> Path:
        """Polygons for GIS."""
        return self.folder / GEOPACKAGE

    @property
    def geoparquet(self) -> Path:
        """Polygons for data frames."""
        return self.folder / GEOPARQUET

    @property
    def report(self) -> Path:
        """The page to read."""
        return self.folder / REPORT

    @property
    def item(self) -> Path:
        """STAC item."""
        return self.folder / ITEM

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The class words of the run."""
        return Vocabulary(self.record.model.classes)

    @property
    def complete(self) -> bool:
        """Whether nothing had to be flagged as unreadable."""
        return self.record.status == "complete"

    @property
    def changed_share(self) -> float:
        """Changed pixels over processed pixels, 0..1; NaN where nothing was processed."""
        pixels = self.record.pixels
        processed = pixels.changed + pixels.unchanged
        return pixels.changed / processed if processed else math.nan

    @property
    def changed_area_m2(self) -> float | None:
        """Square metres on the ellipsoid; None without georeference."""
        return self.record.areas_m2.changed if self.record.areas_m2 is not None else None

    def polygons(self) -> pyarrow.Table:
        """The polygons as an Arrow table (``geometry`` is WKB); ``geopandas.read_parquet`` reads the file itself."""
        import pyarrow.parquet

        return pyarrow.parquet.read_table(self.geoparquet)

    def summary(self) -> str:
        """One line: what changed and what could not be told."""
        pixels = self.record.pixels
        area = self.changed_area_m2
        amount = f"{pixels.changed:,} px" if area is None else f"{area / 1e4:,.2f} ha"
        share = f" ({self.changed_share:.2%} of what was compared)" if not math.isnan(self.changed_share) else ""
        missing = sum(pixels.not_processed.values())
        rest = f"; {missing / pixels.total:.1%} not processed" if missing else ""
        return f"{amount} changed{share} in {self.record.polygons:,} polygons{rest}"

    def __repr__(self) -> str:
        return f"ChangeMap({str(self.folder)!r}: {self.summary()})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td style='background:rgb{row.color};width:1em'></td>"
            f"<td>{html.escape(row.before + ' → ' if row.before else '')}{html.escape(row.after)}</td>"
            f"<td style='text-align:right'>{row.pixels:,} px</td>"
            f"<td style='text-align:right'>{'' if row.area_m2 is None else f'{row.area_m2 / 1e4:,.2f} ha'}</td></tr>"
            for row in sorted(self.record.transitions, key=lambda row: -row.pixels)[:12]
        )
        files = " · ".join(
            f"<a href='{html.escape((self.folder / name).as_posix())}'>{name}</a>"
            for name in (REPORT, CHANGE, CONFIDENCE, GEOPACKAGE, GEOPARQUET)
        )
        return f"<div><b>{html.escape(self.summary())}</b><table>{rows}</table>{files}</div>"
