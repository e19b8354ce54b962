"""Finished results are kept: after an upgrade of wasnow, on a read-only disk; and inputs that change during a run."""

import json
import os

import numpy as np
import pytest
import rasterio

from making import Toy, pair, write_raster
from wasnow.errors import Interrupted, RasterUnreadable, ResumeRefused
from wasnow.pipeline import run
from wasnow.pipeline.api import detect


def as_of_version(folder, version):
    """Rewrite the identity of a run as another version, with fewer options, would have written it."""
    path = folder / ".wasnow" / "plan.json"
    plan = json.loads(path.read_text())
    plan["wasnow"] = version
    plan["model"] = plan["model"].rpartition(" of wasnow ")[0] + f" of wasnow {version}"
    del plan["option"]["symmetric"]
    path.write_text(json.dumps(plan))


def test_finished_results_of_another_version_are_returned_unchanged(tmp_path):
    paths = pair(tmp_path)
    first = detect(*paths, output=tmp_path / "out", model=Toy())
    as_of_version(first.folder, "0.0.1")
    data = first.change.read_bytes(), (first.folder / "run.json").read_bytes()
    again = detect(*paths, output=tmp_path / "out", model=Toy())
    assert again.reused
    assert (first.change.read_bytes(), (first.folder / "run.json").read_bytes()) == data
    with pytest.raises(ResumeRefused, match=r"threshold was null, is now 0\.9"):
        detect(*paths, output=tmp_path / "out", model=Toy(), threshold=0.9)


def test_unfinished_blocks_of_another_version_are_refused(tmp_path):
    def stop(phase, done, total):
        if phase == "results":
            raise KeyboardInterrupt

    paths = pair(tmp_path)
    with pytest.raises(Interrupted):
        detect(*paths, output=tmp_path / "out", model=Toy(), progress=stop)
    as_of_version(tmp_path / "out", "0.0.1")
    with pytest.raises(ResumeRefused, match=r"wasnow was 0\.0\.1"):
        detect(*paths, output=tmp_path / "out", model=Toy())


def test_a_finished_folder_is_returned_without_writing_to_it(tmp_path, monkeypatch):
    paths = pair(tmp_path)
    detect(*paths, output=tmp_path / "out", model=Toy())
    monkeypatch.setattr(run, "workspace", lambda output: pytest.fail("the folder was locked"))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert detect(*paths, output=tmp_path / "out", model=Toy()).reused
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_an_input_that_is_overwritten_during_the_run_is_an_error(tmp_path):
    before, after = pair(tmp_path)
    with rasterio.open(after) as raster:
        changed = 255 - raster.read()

    def overwrite(phase, done, total):
        if phase == "detect" and done == total:
            write_raster(after, changed, photometric="RGB")

    with pytest.raises(RasterUnreadable, match=r"after\.tif: changed during the run.*--overwrite"):
        detect(before, after, output=tmp_path / "out", model=Toy(), progress=overwrite)
    assert not (tmp_path / "out" / "change.tif").exists()
    assert detect(before, after, output=tmp_path / "out", model=Toy(), overwrite=True).complete


def test_an_input_that_is_only_touched_during_the_run_is_accepted(tmp_path):
    before, after = pair(tmp_path)

    def touch(phase, done, total):
        if phase == "detect":
            os.utime(after, ns=(1, 1))

    assert detect(before, after, output=tmp_path / "out", model=Toy(), progress=touch).complete


def test_the_same_file_for_both_dates_causes_a_warning(tmp_path):
    before, after = pair(tmp_path)
    (tmp_path / "link.tif").symlink_to(before)
    result = detect(before, tmp_path / "link.tif", output=tmp_path / "out", model=Toy())
    assert any("the same file" in warning for warning in result.record.warnings)
    with rasterio.open(result.change) as raster:
        assert not np.any(raster.read())
    other = detect(before, after, output=tmp_path / "other", model=Toy())
    assert not any("the same file" in warning for warning in other.record.warnings)
