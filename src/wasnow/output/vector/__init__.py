"""Polygons of change: from the change raster to GeoPackage and GeoParquet; memory does not grow with the raster.

change.tif, confidence.tif ──components──> pixel groups ──outlines──> polygons ──files──> changes.gpkg, .parquet
"""

from wasnow.output.vector.files import write_polygons
from wasnow.output.vector.polygons import PolygonBatch, polygonize

__all__ = ["PolygonBatch", "polygonize", "write_polygons"]
