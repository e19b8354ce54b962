"""Runs that cannot succeed are refused before work; the cost of the others is known."""

import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from making import Toy, pair
from wasnow.errors import DiskFull, InvalidOption, OutputError
from wasnow.pipeline import cost
from wasnow.pipeline.api import detect
from wasnow.pipeline.options import Options
from wasnow.pipeline.plan import make_plan


@pytest.mark.parametrize(
    ("gsd", "message"),
    [(1e-9, "divides each pixel into"), (1e-3, "divides each pixel into"), (1e9, "reduces 128 x 96 pixels to 1 x 1")],
)
@pytest.mark.parametrize("model", ["irmad", Toy()], ids=["irmad", "toy"])
def test_absurd_resolutions_are_refused_at_once(tmp_path, gsd, message, model):
    paths = pair(tmp_path)
    start = time.monotonic()
    with pytest.raises(InvalidOption, match=f"^gsd .*{message}"):
        detect(*paths, output=tmp_path / "out", model=model, gsd=gsd)
    assert time.monotonic() - start < 10
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("gsd", [0.1, 10.0])
def test_unusual_resolutions_are_accepted(tmp_path, gsd):
    assert make_plan(*pair(tmp_path), model=Toy(), options=Options(gsd=gsd)).pair.working.width > 0


def test_the_cost_counts_pixels_tiles_and_the_uncompressed_results(tmp_path):
    plan = make_plan(*pair(tmp_path), model=Toy())
    found = cost.cost_of(plan)
    assert (found.pixels, found.tiles, found.seconds) == (96 * 128, plan.tiling.n_tiles, None)
    assert found.disk_bytes == 96 * 128 * 6
    with_maps = make_plan(*pair(tmp_path), model=Toy(), options=Options(landcover=True))
    assert cost.cost_of(with_maps).disk_bytes == 96 * 128 * 8
    assert cost.cost_of(make_plan(*pair(tmp_path), model="semantic-cd-mini"), timed=True).seconds > 0


def test_a_disk_that_is_too_small_is_found_before_the_work(tmp_path, monkeypatch):
    paths = pair(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=50_000))
    with pytest.raises(DiskFull, match=r"need 73\.7 kB of disk space .* has 50 kB free"):
        detect(*paths, output=tmp_path / "new" / "out", model=Toy())
    assert not (tmp_path / "new").exists()


def test_a_path_that_would_become_too_long_is_refused_before_the_work(tmp_path):
    deep = Path(tmp_path, *["a" * 200] * 20, "b" * 40)
    with pytest.raises(OutputError, match="choose a folder with a shorter path"):
        detect(*pair(tmp_path), output=deep, model=Toy())
