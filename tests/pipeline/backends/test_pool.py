"""The backend of worker processes: the same bytes after crashes, interrupts and the death of the parent process."""

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio

from making import TESTS, ToyEncoding, pair
from pipeline.backends.crew import Lethal, Traced, children_of, lethal_pair, loads, same_results, small_blocks
from wasnow.cli.detect import partial_reason
from wasnow.errors import Interrupted, RasterUnreadable
from wasnow.pipeline.api import detect
from wasnow.pipeline.worker import ATTEMPTS


@pytest.fixture(autouse=True)
def _many_blocks(monkeypatch):
    small_blocks(monkeypatch)


def codes(folder):
    with rasterio.open(folder / "change.tif") as raster:
        return raster.read()


def test_two_processes_load_the_model_once_each_and_give_the_same_bytes(tmp_path):
    paths, model = pair(tmp_path), Traced(folder=str(tmp_path))
    alone = detect(*paths, output=tmp_path / "alone", model=model, landcover=True)
    assert len(alone.record.blocks) > 8
    steps = []
    shared = detect(
        *paths,
        output=tmp_path / "shared",
        model=model,
        landcover=True,
        workers=2,
        progress=lambda *step: steps.append(step),
    )
    same_results(alone.folder, shared.folder)
    for one, other in zip(alone.landcover, shared.landcover, strict=True):
        assert one.read_bytes() == other.read_bytes()
    found = loads(tmp_path)
    assert os.getpid() not in found
    assert set(found.values()) == {1}
    executor = shared.record.executor
    assert (executor.kind, executor.lost) == ("processes", 0)
    assert set(map(int, executor.workers)) <= set(found)
    assert [done for phase, done, _ in steps if phase == "detect"] == list(range(len(alone.record.blocks) + 1))
    assert shared.record.timings_s["model"] > 0
    assert not multiprocessing.active_children()


def test_a_killed_worker_is_replaced_also_in_a_resumed_run(tmp_path):
    paths, model = pair(tmp_path), Traced(folder=str(tmp_path), seconds=0.02)
    whole = detect(*paths, output=tmp_path / "whole", model=model)

    def stop(phase, done, total):
        if phase == "detect" and done >= 3:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="after 3 of"):
        detect(*paths, output=tmp_path / "out", model=model, progress=stop)
    killed = []

    def kill(phase, done, total):
        if phase == "detect" and done == 5 and not killed:
            killed.append(min(loads(tmp_path)))
            os.kill(killed[0], signal.SIGKILL)

    again = detect(*paths, output=tmp_path / "out", model=model, workers=2, progress=kill)
    assert killed
    assert again.complete
    same_results(whole.folder, again.folder)
    assert again.record.executor.lost == 1
    assert any("1 worker crashed" in warning for warning in again.record.warnings)


def test_a_block_that_crashes_every_worker_is_flagged_and_all_others_are_done(tmp_path):
    # A pixel that only one block reads.
    paths = lethal_pair(tmp_path, (10, 40))
    (tmp_path / "healthy").mkdir()
    (tmp_path / "healthy" / "healed").touch()
    whole = detect(*paths, output=tmp_path / "whole", model=Lethal(folder=str(tmp_path / "healthy")))
    assert whole.complete
    found = detect(*paths, output=tmp_path / "out", model=Lethal(folder=str(tmp_path)), workers=2)
    (failed,) = [block for block in found.record.blocks if block.outcome == "failed"]
    assert not found.complete
    assert failed.row <= 10 < failed.row + failed.height
    assert f"{ATTEMPTS} attempts" in failed.error
    assert failed.not_processed == {"its worker died": failed.height * failed.width}
    flagged = codes(found.folder)[2] == 255
    assert flagged.sum() == found.record.pixels.not_processed["its worker died"]
    np.testing.assert_array_equal(codes(found.folder)[:, ~flagged], codes(whole.folder)[:, ~flagged])
    assert "run the same command again" in partial_reason(found)
    assert found.record.executor.lost == ATTEMPTS + 1
    assert "its worker died" in found.report.read_text(encoding="utf-8")
    (tmp_path / "healed").touch()
    again = detect(*paths, output=tmp_path / "out", model=Lethal(folder=str(tmp_path)))
    assert again.complete
    same_results(whole.folder, again.folder)


def test_a_read_error_in_a_worker_ends_the_run_and_all_processes(tmp_path):
    before, after = pair(tmp_path, tiled=True, blockxsize=32, blockysize=32, compress="deflate", interleave="pixel")
    with rasterio.open(after) as raster:
        at = int(raster.get_tag_item("BLOCK_OFFSET_2_1", "TIFF", bidx=1))
    data = bytearray(after.read_bytes())
    data[at : at + 300] = bytes(300)

    def damage(phase, done, total):
        # The survey has read the whole file by then.
        if phase == "detect" and done == 0:
            after.write_bytes(data)

    model = Traced(folder=str(tmp_path))
    with pytest.raises(RasterUnreadable, match=r"after\.tif: rows .* cannot be read") as caught:
        detect(before, after, output=tmp_path / "out", model=model, workers=1, progress=damage)
    assert caught.value.path == str(after)
    assert loads(tmp_path)
    assert not multiprocessing.active_children()


def test_processes_share_a_feature_cache(tmp_path):
    paths, model = pair(tmp_path), ToyEncoding(tile=32)
    options = {"model": model, "tile": 32, "keep_features": tmp_path / "features"}
    first = detect(*paths, output=tmp_path / "first", workers=2, **options)
    facts = first.record.features
    assert facts.tiles_encoded > 8
    again = detect(*paths, output=tmp_path / "again", **options)
    assert (again.record.features.tiles_reused, again.record.features.tiles_encoded) == (
        facts.tiles_reused + facts.tiles_encoded,
        0,
    )
    same_results(first.folder, again.folder)


def test_a_scene_model_is_fitted_once_and_sent_to_the_workers(tmp_path):
    paths = pair(tmp_path)
    alone, shared = (
        detect(*paths, output=tmp_path / name, model="irmad", tile=32, **options)
        for name, options in (("alone", {}), ("shared", {"workers": 1}))
    )
    same_results(alone.folder, shared.folder)
    assert alone.record.model.fit == shared.record.model.fit


# --- signals, from outside ------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL],
    ids=lambda number: number.name,
)
def test_a_signal_ends_all_processes_of_the_run_and_another_backend_continues_it(tmp_path, number):
    paths = pair(tmp_path)
    journal = tmp_path / "out" / ".wasnow" / "journal.jsonl"
    running = subprocess.Popen(
        [sys.executable, str(TESTS / "pipeline" / "backends" / "slow_detect.py"), *map(str, paths), str(tmp_path)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )
    try:
        deadline = time.monotonic() + 120
        while not (journal.exists() and len(journal.read_bytes().splitlines()) >= 2):
            assert running.poll() is None, running.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert len(children_of(running.pid)) >= 2
        if number == signal.SIGINT:
            # A terminal sends it to all processes; and a second time, as impatient users do.
            os.killpg(running.pid, number)
            time.sleep(0.02)
        os.kill(running.pid, number)
        _, error = running.communicate(timeout=60)
        deadline = time.monotonic() + 20
        while children_of(running.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert children_of(running.pid) == []
    finally:
        if running.poll() is None or children_of(running.pid):
            os.killpg(running.pid, signal.SIGKILL)
    if number == signal.SIGKILL:
        assert running.returncode == -signal.SIGKILL
    else:
        assert running.returncode == 130
        assert re.search(r"wasnow: interrupted", error)
        assert "Traceback" not in error
    done = len(journal.read_bytes().splitlines())
    steps = []
    again = detect(
        *paths,
        output=tmp_path / "out",
        model=Traced(folder=str(tmp_path)),
        progress=lambda phase, done, total: steps.append(done) if phase == "detect" else None,
    )
    assert done - 1 <= steps[0] <= done
    whole = detect(*paths, output=tmp_path / "whole", model=Traced(folder=str(tmp_path)))
    same_results(whole.folder, again.folder)


@pytest.mark.slow
def test_a_script_without_a_main_guard_gets_advice(tmp_path):
    script = tmp_path / "script.py"
    paths = pair(tmp_path)
    script.write_text(
        "import wasnow\n"
        f"wasnow.detect({str(paths[0])!r}, {str(paths[1])!r}, output={str(tmp_path / 'out')!r}, "
        "model='cva', workers=1)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=200)
    assert done.returncode != 0
    assert "call wasnow under if __name__ == '__main__'" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out" / "run.json").exists()
    assert json.loads((tmp_path / "out" / ".wasnow" / "plan.json").read_text())["model"].startswith("cva")
