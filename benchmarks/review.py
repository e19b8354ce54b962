"""How fast the review page answers on a result of many polygons.

    python benchmarks/review.py [--polygons 50000]

Writes a result folder's GeoPackage with that many polygons, opens it as the server does, and times what the page asks
for: the first list, the outlines of one view, and one decision with the progress after it.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyogrio.raw
import shapely

from wasnow.evaluation.demo import render
from wasnow.output.vector.files import LAYER
from wasnow.pipeline.api import detect
from wasnow.review.project import ReviewProject
from wasnow.synthetic import write_scene


def timed(work: Callable[[], object], times: int = 5) -> str:
    """Return minimum and median seconds of some calls."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return f"min {min(seconds):.3f} s, median {statistics.median(seconds):.3f} s"


def multiply(path: Path, count: int) -> None:
    """Replace the polygons of a GeoPackage by many small squares with the same attributes."""
    info, _, _, values = pyogrio.raw.read(path, read_geometry=False)
    names = [str(name) for name in info["fields"]]
    random = np.random.default_rng(0)
    chosen = random.integers(0, len(values[0]), count)
    columns = [column[chosen] for column in values]
    columns[names.index("id")] = np.arange(1, count + 1)
    bounds = pyogrio.read_info(path)["total_bounds"]
    x = random.uniform(bounds[0], bounds[2], count)
    y = random.uniform(bounds[1], bounds[3], count)
    side = random.uniform(1, 8, count)
    path.unlink()
    pyogrio.raw.write(
        path,
        geometry=shapely.to_wkb(shapely.box(x, y, x + side, y + side)),
        field_data=columns,
        fields=names,
        layer=LAYER,
        driver="GPKG",
        geometry_type="Polygon",
        crs=info["crs"],
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--polygons", type=int, default=50_000)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    try:
        scene = write_scene(render(seed=7, side=512), folder / "scene")
        detect(scene.before, scene.after, output=folder / "out")
        multiply(folder / "out/changes.gpkg", given.polygons)
        start = time.perf_counter()
        project = ReviewProject(folder / "out")
        rows = project.selected(status="open")
        first = [project.as_row(row) for row in rows[:200]]
        print(f"open and list {len(rows):,} polygons: {time.perf_counter() - start:.2f} s")
        west, south, east, north = first[0]["frame"]
        wide = (east - west) * 5
        view = (west - wide, south - wide, east + wide, north + wide)
        print("outlines of a view:", timed(lambda: project.outlines(project.within(*view))))
        fid = rows[0].fid

        def decide() -> None:
            project.decide(fid, reviewer="benchmark", status="accepted")
            project.progress()

        print("one decision and the progress:", timed(decide))
        print("filter and sort the list:", timed(lambda: project.selected(status="open")))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
