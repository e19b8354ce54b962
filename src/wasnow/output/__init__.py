"""The result folder: writing, reading, report, polygons, verification."""
