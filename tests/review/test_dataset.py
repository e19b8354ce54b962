"""Training data from a review."""

import numpy as np
import pytest
import rasterio
import shapely
from rasterio.features import rasterize
from typer.testing import CliRunner

from wasnow.cli import app
from wasnow.data.dataset import open_dataset
from wasnow.review.polygons import ReviewedPolygons

RUNNER = CliRunner()


@pytest.fixture
def reviewed(place):
    polygons = ReviewedPolygons(place / "out")
    rows = sorted(polygons.all(), key=lambda each: -each.n_px)
    polygons.decide(rows[0].fid, reviewer="Ann", status="accepted")
    polygons.decide(rows[1].fid, reviewer="Ann", status="rejected", reason="shadow")
    return polygons, rows


def labels_of(dataset, shape):
    """Labels of all crops put back on the grid; 255 where no crop is."""
    whole = np.full((2, *shape), 255, np.uint8)
    samples = open_dataset(dataset).splits["train"]
    for index in range(len(samples)):
        sample = samples[index]
        row, col = map(int, sample.name.split("/")[-1].split("_"))
        height, width = min(shape[0] - row, 128), min(shape[1] - col, 128)
        for date, classes in enumerate((sample.before_classes, sample.after_classes)):
            whole[date, row : row + height, col : col + width] = classes[:height, :width]
    return whole


def test_labels_are_those_of_the_decisions_and_nothing_elsewhere(reviewed, place, tmp_path):
    polygons, rows = reviewed
    run = RUNNER.invoke(app, ["data", "from-review", str(place / "out"), "-o", str(tmp_path / "d"), "--size", "128"])
    assert run.exit_code == 0, run.output
    with rasterio.open(place / "out/change.tif") as file:
        shape, transform = file.shape, file.transform
    found = labels_of(tmp_path / "d", shape)
    shapes = polygons.geometries([rows[0].fid, rows[1].fid])
    accepted, rejected = (
        rasterize([shapes[row.fid]], out_shape=shape, transform=transform).astype(bool) for row in rows[:2]
    )
    words = ("water", "building", "field")
    assert (found[0][accepted] == words.index(rows[0].before) + 1).all()
    assert (found[1][accepted] == words.index(rows[0].after) + 1).all()
    assert (found[:, rejected] == 0).all()
    assert (found[:, ~(accepted | rejected)] == 255).all()
    assert shapely.area(list(shapes.values())).sum() > 0


def test_pixels_outside_all_polygons_can_be_unchanged_and_open_polygons_stay_unlabelled(reviewed, place, tmp_path):
    polygons, rows = reviewed
    command = ["data", "from-review", str(place / "out"), "-o", str(tmp_path / "d"), "--size", "128"]
    run = RUNNER.invoke(app, [*command, "--outside-unchanged"])
    assert run.exit_code == 0, run.output
    with rasterio.open(place / "out/change.tif") as file:
        shape, transform = file.shape, file.transform
    found = labels_of(tmp_path / "d", shape)
    still_open = polygons.geometries([row.fid for row in rows[2:]])
    inside = rasterize(list(still_open.values()), out_shape=shape, transform=transform).astype(bool)
    assert set(np.unique(found[0][inside])) <= {255}
    assert (found[0] == 0).sum() > 1000


def test_a_result_without_decisions_is_one_line(place, tmp_path):
    run = RUNNER.invoke(app, ["data", "from-review", str(place / "out"), "-o", str(tmp_path / "d")])
    assert run.exit_code == 3
    assert "no polygon of" in run.output
    assert not (tmp_path / "d").exists()
