"""The command line as a user meets it: real processes, exit codes, one-line errors."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import rasterio
import rasterio.shutil

from making import pair, textured, write_raster

WASNOW = [sys.executable, "-c", "from wasnow.cli import main; main()"]
IRMAD = ("--model", "irmad")
"""What needs no weights: most of these tests are about the command, not about who answers."""

SLOW_BLOCKS = """
import signal, time
# A job that a shell started in the background has Ctrl-C ignored, and so would what it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
from wasnow.pipeline import worker
quick = worker.predict_block
worker.predict_block = lambda *given: (time.sleep(0.2), quick(*given))[1]
from wasnow.cli import main
main()
"""


def run(*arguments, command=WASNOW, **options):
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, **options)


def test_detect_says_what_changed_and_where_to_look(tmp_path):
    done = run("detect", *pair(tmp_path), "-o", tmp_path / "out", *IRMAD)
    assert done.returncode == 0, done.stderr
    assert "changed" in done.stdout
    assert str(tmp_path / "out" / "report.html") in done.stdout
    again = run("detect", *pair(tmp_path), "-o", tmp_path / "out", *IRMAD)
    assert again.returncode == 0
    assert "nothing to do" in again.stderr


def test_json_is_one_object_and_quiet_is_quiet(tmp_path):
    paths = pair(tmp_path)
    done = run("detect", *paths, "-o", tmp_path / "a", "--json", *IRMAD)
    facts = json.loads(done.stdout)
    assert facts["status"] == "complete"
    assert facts["pixels"]["total"] == 96 * 128
    assert set(facts["files"]) >= {"change.tif", "changes.gpkg", "report.html"}
    quiet = run("detect", *paths, "-o", tmp_path / "b", "--quiet", *IRMAD)
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["detect", "gone.tif", "gone.tif", "-o", "out"], 3, "gone.tif: no such file"),
        (["detect", "B", "A", "-o", "out", "--model", "irmat"], 2, "did you mean 'irmad'"),
        (["detect", "B", "A", "-o", "out", "--tile", "64", "--margin", "40", *IRMAD], 2, "use a margin below 32"),
        (["detect", "B", "A", "-o", "out", "--bands", "red"], 2, "--bands 4,3,2"),
        (["detect", "B", "A", "-o", "out", "--bands", "1,9", *IRMAD], 3, "has bands 1 to 3, --bands asks for 9"),
        (["detect", "B", "A", "-o", "B", *IRMAD], 4, "is a file"),
        (["detect", "B", "A"], 2, "--output"),
        (["detect", "B", "A", "-o", "out", "--classes", "water", *IRMAD], 2, "irmad"),
        (["info", "B", "gone.tif"], 3, "no such file"),
    ],
)
def test_mistakes_are_answered_in_one_line_with_their_exit_code(tmp_path, arguments, code, message):
    before, after = pair(tmp_path)
    names = {"B": str(before), "A": str(after), "out": str(tmp_path / "out")}
    done = run(*[names.get(each, each) for each in arguments], cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    if "Usage" not in done.stderr:
        assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out" / "change.tif").exists()


def test_debug_shows_the_traceback(tmp_path):
    done = run("detect", "gone.tif", "gone.tif", "-o", tmp_path, "--debug")
    assert "Traceback" in done.stderr


def test_parts_that_cannot_be_read_exit_with_5_when_told_to_keep_going(tmp_path):
    before, after = pair(tmp_path, tiled=True, blockxsize=32, blockysize=32, compress="deflate", interleave="pixel")
    data = bytearray(after.read_bytes())
    with rasterio.open(after) as raster:
        at, size = (int(raster.get_tag_item(f"BLOCK_{k}_1_1", "TIFF", bidx=1)) for k in ("OFFSET", "SIZE"))
    data[at : at + size] = bytes(size)
    after.write_bytes(data)
    failed = run("detect", before, after, "-o", tmp_path / "out", *IRMAD)
    assert failed.returncode == 3
    assert "after.tif: rows" in failed.stderr
    done = run("detect", before, after, "-o", tmp_path / "out", "--overwrite", "--keep-going", *IRMAD)
    assert done.returncode == 5
    assert "could not be read" in done.stderr
    assert json.loads((tmp_path / "out" / "run.json").read_text())["status"] == "partial"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_a_run_that_goes_on_and_says_how(tmp_path, how):
    for name, seed in (("b.tif", 0), ("a.tif", 1)):
        write_raster(tmp_path / name, np.tile(textured(seed, 512, 512), (1, 3, 6)).astype(np.uint8), photometric="RGB")
    arguments = ["detect", "b.tif", "a.tif", "-o", "out", "--tile", "64", *IRMAD]
    # 0.2 s a block: the signal falls among the blocks however fast or busy the machine is.
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_BLOCKS, *arguments], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as process:
        journal = tmp_path / "out" / ".wasnow" / "journal.jsonl"
        while not journal.exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(how)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "Traceback" not in told
    assert "run the same command again" in told
    assert "detect b.tif a.tif -o out --tile 64" in told
    assert not (tmp_path / "out" / "change.tif").exists()
    assert run(*arguments, cwd=tmp_path).returncode == 0


def test_info_is_a_table_of_both_and_of_what_looks_wrong(tmp_path):
    before, _ = pair(tmp_path)
    values = textured(0, 40, 50).astype(np.uint16)
    after = write_raster(tmp_path / "fine.tif", values, transform=rasterio.Affine(5, 0, 500_000, 0, -5, 5_500_000))
    done = run("info", before, after, *IRMAD, env={**os.environ, "COLUMNS": "200"})
    assert done.returncode == 0, done.stderr
    for text in ("EPSG:32632", "128 x 96 px", "uint16", "resampled", "overlap", "shift", "times as fine"):
        assert text in done.stdout + done.stderr
    facts = json.loads(run("info", before, after, "--json", *IRMAD).stdout)
    assert facts["before"]["size"] == "128 x 96 px"
    assert any("times as fine" in warning for warning in facts["warnings"])


def test_models_lists_the_default_first():
    lines = run("models", env={**os.environ, "COLUMNS": "200"}).stdout.splitlines()
    assert lines[1].startswith("semantic-cd-mini")
    assert "come with wasnow (the default)" in lines[1]
    facts = json.loads(run("models", "--json").stdout)
    assert next(iter(facts)) == "semantic-cd-mini"
    assert "irmad" in facts


def test_help_has_examples_and_version_is_a_number():
    assert (
        "wasnow detect 2009.tif 2017.tif -o out/"
        in run("detect", "--help", env={**os.environ, "COLUMNS": "160"}).stdout
    )
    assert re.fullmatch(r"wasnow \d+\.\d+\.\d+\n", run("--version").stdout)


def test_a_terminal_sees_a_progress_bar_with_rate_and_counts(tmp_path):
    before, after = pair(tmp_path, height=300, width=300)
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [*WASNOW, "detect", str(before), str(after), "-o", str(tmp_path / "out"), *IRMAD],
        stdout=subprocess.PIPE,
        stderr=follower,
        env={**os.environ, "COLUMNS": "120", "TERM": "xterm-256color"},
    )
    os.close(follower)
    seen = b""
    while True:
        try:
            chunk = os.read(leader, 4096)
        except OSError:
            break
        if not chunk:
            break
        seen += chunk
    process.communicate()
    assert process.returncode == 0
    assert b"detecting" in seen
    assert b"1/1" in seen


def test_the_rasterio_plugin_does_the_same(tmp_path):
    paths = pair(tmp_path)
    rio = [sys.executable, "-c", "from rasterio.rio.main import main_group; main_group()"]
    done = run("wasnow", *paths, tmp_path / "rio", "--tile", "64", *IRMAD, command=rio)
    assert done.returncode == 0, done.stderr
    own = run("detect", *paths, "-o", tmp_path / "own", "--tile", "64", *IRMAD)
    assert own.returncode == 0
    assert (tmp_path / "rio" / "change.tif").read_bytes() == (tmp_path / "own" / "change.tif").read_bytes()
    wrong = run("wasnow", "gone.tif", paths[0], tmp_path / "x", command=rio)
    assert wrong.returncode == 3
    assert "no such file" in wrong.stderr
    pointing = tmp_path / "before.vrt"
    rasterio.shutil.copy(paths[0], pointing, driver="VRT")
    refused = run("wasnow", pointing, paths[1], tmp_path / "vrt", "--tile", "64", *IRMAD, command=rio)
    assert (refused.returncode, "--allow-indirect" in refused.stderr) == (3, True)
    asked = [tmp_path / "vrt", "--tile", "64", *IRMAD, "--allow-indirect"]
    allowed = run("wasnow", pointing, paths[1], *asked, command=rio)
    assert allowed.returncode == 0, allowed.stderr


def test_shell_completion_is_there():
    shown = run("--show-completion", "bash", env={**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"})
    assert "_WASNOW_COMPLETE" in shown.stdout or "complete" in shown.stdout


def test_the_demo_runs_offline_and_owns_up_to_being_synthetic(tmp_path):
    done = run("demo", "-o", tmp_path / "demo", "--side", "256")
    assert done.returncode == 0, done.stderr
    assert "synthetic" in done.stdout
    assert "precision" in done.stdout
    assert (tmp_path / "demo" / "result" / "report.html").exists()
