"""The command line: output, exit codes, one-line errors, interruption, the rasterio plugin."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from click.testing import CliRunner, Result
from rasterio.rio.main import main_group
from typer.main import get_command

from making import pair, textured, write_raster
from wasnow.cli import app

WASNOW = [sys.executable, "-c", "from wasnow.cli import main; main()"]
SLOW_BLOCKS = Path(__file__).with_name("slow_blocks.py")
IRMAD = ("--model", "irmad")
"""A model without weights: most of these tests are about the command, not about the model."""


def run(*arguments, command=None, columns=160) -> Result:
    """Run a command in this process; most tests need no process of their own."""
    return CliRunner().invoke(
        command or get_command(app), list(map(str, arguments)), prog_name="wasnow", env={"COLUMNS": str(columns)}
    )


def run_process(*arguments, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*WASNOW, *map(str, arguments)], capture_output=True, text=True, **options)


def test_detect_prints_what_changed_and_the_path_of_the_report(tmp_path):
    done = run("detect", *pair(tmp_path), "-o", tmp_path / "out", *IRMAD)
    assert done.exit_code == 0, done.stderr
    assert "changed" in done.stdout
    assert str(tmp_path / "out" / "report.html") in done.stdout
    again = run("detect", *pair(tmp_path), "-o", tmp_path / "out", *IRMAD)
    assert again.exit_code == 0
    assert "nothing to do" in again.stderr


def test_json_is_one_object_and_quiet_prints_nothing(tmp_path):
    paths = pair(tmp_path)
    done = run("detect", *paths, "-o", tmp_path / "a", "--json", *IRMAD)
    facts = json.loads(done.stdout)
    assert facts["status"] == "complete"
    assert facts["pixels"]["total"] == 96 * 128
    assert set(facts["files"]) >= {"change.tif", "changes.gpkg", "report.html"}
    quiet = run("detect", *paths, "-o", tmp_path / "b", "--quiet", *IRMAD)
    assert (quiet.exit_code, quiet.stdout, quiet.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["detect", "gone.tif", "gone.tif", "-o", "out"], 3, "gone.tif: no such file"),
        (["detect", "B", "A", "-o", "out", "--model", "irmat"], 2, "did you mean 'irmad'"),
        (["detect", "B", "A", "-o", "out", "--tile", "64", "--margin", "40", *IRMAD], 2, "use a margin below 32"),
        (["detect", "B", "A", "-o", "out", "--bands", "red"], 2, "such as 4,3,2"),
        (["detect", "B", "A", "-o", "out", "--bands", "1,9", *IRMAD], 3, "has bands 1 to 3, --bands asks for 9"),
        (["detect", "B", "A", "-o", "B", *IRMAD], 4, "is a file"),
        (["detect", "B", "A"], 2, "--output"),
        (["detect", "B", "A", "-o", "out", "--classes", "water", *IRMAD], 2, "irmad"),
        (["info", "B", "gone.tif"], 3, "no such file"),
    ],
)
def test_a_user_mistake_is_one_line_with_its_exit_code(tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    before, after = pair(tmp_path)
    names = {"B": str(before), "A": str(after), "out": str(tmp_path / "out")}
    done = run(*[names.get(each, each) for each in arguments])
    assert done.exit_code == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    if "Usage" not in done.stderr:
        assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out" / "change.tif").exists()


def test_a_process_ends_with_the_exit_code_and_prints_a_traceback_only_with_debug(tmp_path):
    arguments = ("detect", "gone.tif", "gone.tif", "-o", tmp_path)
    done = run_process(*arguments)
    assert (done.returncode, done.stdout) == (3, "")
    assert "Traceback" not in done.stderr
    assert "Traceback" in run_process(*arguments, "--debug").stderr


def test_keep_going_flags_unreadable_parts_and_exits_with_5(tmp_path):
    before, after = pair(tmp_path, tiled=True, blockxsize=32, blockysize=32, compress="deflate", interleave="pixel")
    data = bytearray(after.read_bytes())
    with rasterio.open(after) as raster:
        at, size = (int(raster.get_tag_item(f"BLOCK_{k}_1_1", "TIFF", bidx=1)) for k in ("OFFSET", "SIZE"))
    data[at : at + size] = bytes(size)
    after.write_bytes(data)
    failed = run("detect", before, after, "-o", tmp_path / "out", *IRMAD)
    assert failed.exit_code == 3
    assert "after.tif: rows" in failed.stderr
    done = run("detect", before, after, "-o", tmp_path / "out", "--overwrite", "--keep-going", *IRMAD)
    assert done.exit_code == 5
    assert "could not be read" in done.stderr
    assert json.loads((tmp_path / "out" / "run.json").read_text())["status"] == "partial"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_an_interrupted_run_prints_the_command_that_continues_it(tmp_path, monkeypatch, number):
    monkeypatch.chdir(tmp_path)
    for name, seed in (("b.tif", 0), ("a.tif", 1)):
        write_raster(tmp_path / name, np.tile(textured(seed, 512, 512), (1, 3, 6)).astype(np.uint8), photometric="RGB")
    arguments = ["detect", "b.tif", "a.tif", "-o", "out", "--tile", "64", *IRMAD]
    # 0.2 s per block: the signal arrives between blocks, however fast or busy the machine is.
    with subprocess.Popen([sys.executable, SLOW_BLOCKS, *arguments], stderr=subprocess.PIPE, text=True) as process:
        journal = tmp_path / "out" / ".wasnow" / "journal.jsonl"
        while not journal.exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(number)
        _, printed = process.communicate(timeout=60)
    assert process.returncode == 130, printed
    assert "Traceback" not in printed
    assert "run the same command again" in printed
    assert "detect b.tif a.tif -o out --tile 64" in printed
    assert not (tmp_path / "out" / "change.tif").exists()
    assert run(*arguments).exit_code == 0


def test_info_is_a_table_of_both_files_with_warnings(tmp_path):
    before, _ = pair(tmp_path)
    values = textured(0, 40, 50).astype(np.uint16)
    after = write_raster(tmp_path / "fine.tif", values, transform=rasterio.Affine(5, 0, 500_000, 0, -5, 5_500_000))
    done = run("info", before, after, *IRMAD, columns=200)
    assert done.exit_code == 0, done.stderr
    for text in ("EPSG:32632", "128 x 96 px", "uint16", "resampled", "overlap", "shift", "times finer"):
        assert text in done.stdout + done.stderr
    facts = json.loads(run("info", before, after, "--json", *IRMAD).stdout)
    assert facts["before"]["size"] == "128 x 96 px"
    assert any("times finer" in warning for warning in facts["warnings"])


def test_models_lists_the_default_first():
    lines = run("models", columns=200).stdout.splitlines()
    assert lines[1].startswith("semantic-cd-mini")
    assert "come with wasnow (the default)" in lines[1]
    facts = json.loads(run("models", "--json").stdout)
    assert next(iter(facts)) == "semantic-cd-mini"
    assert "irmad" in facts


def test_help_has_examples_and_version_is_a_number():
    assert "wasnow detect 2009.tif 2017.tif -o out/" in run("detect", "--help").stdout
    assert re.fullmatch(r"wasnow \d+\.\d+\.\d+\n", run("--version").stdout)


def test_a_terminal_shows_a_progress_bar_with_counts(tmp_path):
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


def test_the_rasterio_plugin_gives_the_same_result(tmp_path):
    paths = pair(tmp_path)
    done = run("wasnow", *paths, tmp_path / "rio", "--tile", "64", *IRMAD, command=main_group)
    assert done.exit_code == 0, done.stderr
    own = run("detect", *paths, "-o", tmp_path / "own", "--tile", "64", *IRMAD)
    assert own.exit_code == 0
    assert (tmp_path / "rio" / "change.tif").read_bytes() == (tmp_path / "own" / "change.tif").read_bytes()
    wrong = run("wasnow", "gone.tif", paths[0], tmp_path / "x", command=main_group)
    assert wrong.exit_code == 3
    assert "no such file" in wrong.stderr
    pointing = tmp_path / "before.vrt"
    rasterio.shutil.copy(paths[0], pointing, driver="VRT")
    refused = run("wasnow", pointing, paths[1], tmp_path / "vrt", "--tile", "64", *IRMAD, command=main_group)
    assert (refused.exit_code, "--allow-indirect" in refused.stderr) == (3, True)
    options = [tmp_path / "vrt", "--tile", "64", *IRMAD, "--allow-indirect"]
    allowed = run("wasnow", pointing, paths[1], *options, command=main_group)
    assert allowed.exit_code == 0, allowed.stderr


def test_shell_completion_is_available(monkeypatch):
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    assert "_WASNOW_COMPLETE=complete_bash" in run("--show-completion", "bash").stdout


def test_the_demo_runs_and_states_that_it_is_synthetic(tmp_path):
    done = run("demo", "-o", tmp_path / "demo", "--side", "256")
    assert done.exit_code == 0, done.stderr
    assert "synthetic" in done.stdout
    assert "precision" in done.stdout
    assert (tmp_path / "demo" / "result" / "report.html").exists()
