"""SIGKILL at random moments, the same call again: byte for byte what an undisturbed run gives.

A harness process imports everything once and forks a child per attempt, so that a kill costs milliseconds and hits
the run itself, from the checksums to the last rename, rather than the start of Python. After each kill no final is
there in part, and after the last attempt `wasnow verify` calls the folder right.
"""

import json
import os
import subprocess
import sys

import pytest

from making import TESTS, pair

HARNESS = """
import json, os, random, signal, sys, time
import rasterio, torch, scipy, shapely, pyogrio, pyarrow, jinja2, skimage.registration
from pathlib import Path
from wasnow.pipeline import plan
from wasnow.output import writer
from wasnow.pipeline import api
from wasnow.output.report import html, stac, style
import wasnow.output.vector
from wasnow.output.verify import verify
from making import Toy

before, after, folder, kills, seed = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
small = plan.Tiling
plan.Tiling = lambda *a, **k: small(*a, **k, block_side=32)

def lines(output):
    journal = output / ".wasnow" / "journal.jsonl"
    return len(journal.read_bytes().splitlines()) if journal.exists() else 0

def attempt(output, line=None, after_line=0.0):
    # With a line: kill so many seconds after the journal has it.
    child = os.fork()
    if child == 0:
        try:
            torch.set_num_threads(1)
            api.detect(before, after, output=output, model=Toy(tile=32))
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    if line is not None:
        while lines(output) < line:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return status
            time.sleep(0.0005)
        time.sleep(after_line)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return status

started = time.monotonic()
assert attempt(folder / "whole") == 0
whole, everything = time.monotonic() - started, lines(folder / "whole")
assert everything > 10
SAME = ("change.tif", "confidence.tif", "changes.gpkg", "changes.parquet", "change.qml", "change.tif.aux.xml")

# How long it takes from the last block to the last rename.
child = os.fork()
if child == 0:
    torch.set_num_threads(1)
    api.detect(before, after, output=folder / "timed", model=Toy(tile=32))
    os._exit(0)
while lines(folder / "timed") < everything:
    time.sleep(0.0005)
started = time.monotonic()
os.waitpid(child, 0)
finals = time.monotonic() - started

def check(output):
    # What a kill left: each final whole or absent, and a folder that says it is unfinished.
    for name in SAME:
        path = output / name
        assert not path.exists() or path.read_bytes() == (folder / "whole" / name).read_bytes(), name
    if (output / "run.json").exists():
        assert verify(output).sound
    elif (output / ".wasnow" / "plan.json").exists():
        assert [each.state for each in verify(output).findings] == ["unfinished"]
rng = random.Random(seed)
killed, stages, runs, published = 0, [], 0, 0
while killed < kills:
    # Each folder: twice at chosen lines of the journal, so that the blocks are hit however fast the machine is, once at
    # any moment, and twice while finals are assembled; then the run may finish, and the next folder begins.
    output = folder / f"run{runs}"
    runs += 1
    moments = [(line, rng.uniform(0, 0.004)) for line in sorted(rng.sample(range(1, everything), 2))]
    moments += [(0, rng.uniform(0, whole)), *((everything, rng.uniform(0, finals)) for _ in range(2))]
    for line, wait in moments:
        status = attempt(output, line, wait)
        if status == 0:
            break
        assert os.WIFSIGNALED(status), status
        killed += 1
        stages.append(lines(output))
        published += (output / ".wasnow" / "finals").exists() and any((output / ".wasnow" / "finals").iterdir())
        check(output)
    assert attempt(output) == 0
    check(output)
    assert verify(output).sound, verify(output).findings
print(json.dumps({"killed": killed, "stages": stages, "runs": runs, "in_finals": published}))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
@pytest.mark.parametrize("kills", [20, pytest.param(100, marks=pytest.mark.slow)])
def test_sigkill_at_random_moments_and_again_gives_the_same_bytes(tmp_path, kills):
    before, after = pair(tmp_path, height=160, width=200)
    done = subprocess.run(
        [sys.executable, "-c", HARNESS, str(before), str(after), str(tmp_path), str(kills), "1"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert told["killed"] >= kills
    assert len(set(told["stages"])) > kills // 6, "the kills all fell on one stage"
    assert told["in_finals"] > kills // 8, "no kill fell on the finals"
    for run in range(told["runs"]):
        for name in ("change.tif", "confidence.tif", "changes.gpkg", "changes.parquet", "change.qml"):
            assert (tmp_path / f"run{run}" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


LIST_HARNESS = """
import json, os, random, signal, sys, time
import rasterio, torch, scipy, shapely, pyogrio, pyarrow, jinja2, skimage.registration
from pathlib import Path
from wasnow.pipeline import plan
from wasnow.output import writer
from wasnow.pipeline import api
from wasnow.batch import detect_pairs
from wasnow.output.report import html, stac, style
import wasnow.output.vector
from wasnow.output.verify import verify
from making import Toy

table, folder, kills, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])

def attempt(output, seconds=None):
    child = os.fork()
    if child == 0:
        try:
            torch.set_num_threads(1)
            summary = detect_pairs(table, output=output, model=Toy(tile=32))
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0 if [each.state for each in summary.pairs] == ["done", "failed", "done", "done"] else 2)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return status

started = time.monotonic()
assert attempt(folder / "whole") == 0
whole = time.monotonic() - started
rng, killed, runs, done = random.Random(seed), 0, 0, set()
while killed < kills:
    output = folder / f"list{runs}"
    runs += 1
    for _ in range(4):
        status = attempt(output, rng.uniform(0.1, 0.6) * whole)
        if status == 0:
            break
        assert os.WIFSIGNALED(status), status
        killed += 1
        finished = {each.parent.name for each in output.glob("*/run.json")}
        done.add(len(finished))
        kept = {name: (output / name / "run.json").stat().st_mtime_ns for name in finished}
        summary = output / "summary.json"
        assert not summary.exists() or len(json.loads(summary.read_bytes())["pairs"]) == 4
    assert attempt(output) == 0
    for name, then in kept.items():
        assert (output / name / "run.json").stat().st_mtime_ns == then, f"{name} was done, and done again"
    assert [(each.file, each.state) for each in verify(output).findings] == [("missing", "failed")]
print(json.dumps({"killed": killed, "runs": runs, "done": sorted(done)}))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
@pytest.mark.parametrize("kills", [6, pytest.param(40, marks=pytest.mark.slow)])
def test_sigkill_amid_a_list_of_pairs_loses_no_pair_that_was_done_and_gives_the_same_bytes(tmp_path, kills):
    pair(tmp_path, height=96, width=128)
    table = tmp_path / "list.csv"
    rows = ["before,after,name,min-area", "before.tif,after.tif,first,", "before.tif,gone.tif,missing,"]
    rows += ["after.tif,before.tif,back,", "before.tif,after.tif,large,400"]
    table.write_text("\n".join(rows), encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, "-c", LIST_HARNESS, str(table), str(tmp_path), str(kills), "1"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    told = json.loads(ended.stdout)
    assert told["killed"] >= kills
    assert len(told["done"]) > 1, "the kills all fell on one pair"
    for run in range(told["runs"]):
        for name in ("first", "back", "large"):
            for file in ("change.tif", "confidence.tif", "changes.gpkg", "changes.parquet"):
                same = tmp_path / "whole" / name / file
                assert (tmp_path / f"list{run}" / name / file).read_bytes() == same.read_bytes(), (name, file)
