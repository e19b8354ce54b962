"""A finished result folder as a Python object."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wasnow.errors import UsageError
from wasnow.output.layout import CHANGE, CONFIDENCE, GEOPACKAGE, GEOPARQUET, ITEM, LANDCOVER, REPORT
from wasnow.output.record import RunRecord
from wasnow.vocabulary import Vocabulary

if TYPE_CHECKING:
    import geopandas
    import pyarrow
    import xarray


@dataclass(frozen=True)
class ChangeMap:
    """A finished result folder: paths, statistics and record. Notebooks display it as a table.

    Attributes:
        folder: the result folder.
        record: the content of run.json.
        reused: whether the folder already held the finished run, so that nothing was computed.
    """

    folder: Path
    record: RunRecord
    reused: bool = False

    @classmethod
    def open(cls, folder: str | Path) -> ChangeMap:
        """Open a result folder that was made earlier.

        Raises:
            InputError: it is not a finished result folder.
        """
        return cls(Path(folder), RunRecord.read(Path(folder)))

    @property
    def change(self) -> Path:
        """Path of the raster of before_class, after_class, transition."""
        return self.folder / CHANGE

    @property
    def confidence(self) -> Path:
        """Path of the raster of probabilities x 254."""
        return self.folder / CONFIDENCE

    @property
    def landcover(self) -> tuple[Path, Path] | None:
        """Paths of the class maps before and after, not masked by change; None for a run without ``landcover``."""
        if not self.record.landcover:
            return None
        return self.folder / LANDCOVER[0], self.folder / LANDCOVER[1]

    @property
    def geopackage(self) -> Path:
        """Path of the polygons as GeoPackage."""
        return self.folder / GEOPACKAGE

    @property
    def geoparquet(self) -> Path:
        """Path of the polygons as GeoParquet."""
        return self.folder / GEOPARQUET

    @property
    def report(self) -> Path:
        """Path of the report."""
        return self.folder / REPORT

    @property
    def item(self) -> Path:
        """Path of the STAC item."""
        return self.folder / ITEM

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The class words of the run."""
        return Vocabulary(self.record.model.classes)

    @property
    def complete(self) -> bool:
        """Whether every part of the inputs could be read."""
        return self.record.status == "complete"

    @property
    def changed_share(self) -> float:
        """Changed pixels over processed pixels, 0..1; NaN if nothing was processed."""
        pixels = self.record.pixels
        processed = pixels.changed + pixels.unchanged
        return pixels.changed / processed if processed else math.nan

    @property
    def changed_area_m2(self) -> float | None:
        """Changed area in square metres on the ellipsoid; None without georeference."""
        return self.record.areas_m2.changed if self.record.areas_m2 is not None else None

    def polygons(self) -> pyarrow.Table:
        """Read the polygons as an Arrow table; the column ``geometry`` is WKB."""
        import pyarrow.parquet

        return pyarrow.parquet.read_table(self.geoparquet)

    def to_geopandas(self) -> geopandas.GeoDataFrame:
        """Read the polygons as a GeoDataFrame.

        Raises:
            UsageError: geopandas is not installed.
        """
        geopandas = _extra("geopandas")
        return geopandas.read_parquet(self.geoparquet)

    def to_xarray(self) -> xarray.Dataset:
        """Open the rasters as a Dataset with one variable per band, read when used; codes are not masked.

        The variables are named as the bands: before_class, after_class, transition, change_probability (stored as
        probability x 254), ... and landcover_before, landcover_after where the run made them.

        Raises:
            UsageError: rioxarray is not installed.
        """
        rioxarray, xr = _extra("rioxarray"), _extra("xarray")
        variables = {}
        for path in (self.change, self.confidence, *(self.landcover or ())):
            bands = rioxarray.open_rasterio(path, masked=False)
            names = bands.attrs.get("long_name", ())
            for index, name in enumerate((names,) if isinstance(names, str) else names):
                band = bands.isel(band=index, drop=True)
                band.attrs["long_name"] = name
                variables[name] = band
        dataset: xarray.Dataset = xr.Dataset(variables)
        return dataset

    def summary(self) -> str:
        """Return one line: changed area, number of polygons, and share that was not processed."""
        pixels = self.record.pixels
        area = self.changed_area_m2
        amount = f"{pixels.changed:,} px" if area is None else f"{area / 1e4:,.2f} ha"
        share = f" ({self.changed_share:.2%} of the compared area)" if not math.isnan(self.changed_share) else ""
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


def _extra(name: str) -> Any:
    """Import a package of the extra ``geo``.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError:
        raise UsageError(f"{name} is not installed; install wasnow with pip install 'wasnow[geo]'") from None
