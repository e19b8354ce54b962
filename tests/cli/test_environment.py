"""The command in foreign environments: other encodings, data of other GDAL and PROJ installations, unusable devices."""

import io
import os
import sqlite3
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from making import pair
from wasnow.cli import app, main

WASNOW = [sys.executable, "-c", "from wasnow.cli import main; main()"]


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "gbk"])
@pytest.mark.parametrize("arguments", [["detect", "--help"], ["models"], ["models", "show", "semantic-cd-mini"]])
def test_every_encoding_of_the_terminal_is_enough(monkeypatch, encoding, arguments):
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict") for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    monkeypatch.setattr(sys, "argv", ["wasnow", *arguments])
    with pytest.raises(SystemExit) as leave:
        main()
    streams[0].flush()
    assert not leave.value.code
    assert b"wasnow" in streams[0].buffer.getvalue() or b"semantic-cd-mini" in streams[0].buffer.getvalue()


def test_a_finished_run_with_non_ascii_names_ends_with_0_in_an_ascii_terminal(tmp_path):
    (tmp_path / "Dörfer 日本").mkdir()
    before, after = pair(tmp_path / "Dörfer 日本")
    command = [*WASNOW, "detect", before, after, "-o", tmp_path / "Dörfer 日本" / "out", "--model", "irmad", "--json"]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, b"")
    assert "Dörfer 日本" in json_of(done.stdout)["folder"]


def json_of(data):
    import json

    return json.loads(data.decode("ascii"))


@pytest.mark.parametrize("name", ["PROJ_LIB", "PROJ_DATA"])
def test_the_projection_data_of_another_program_are_ignored_with_one_line(tmp_path, name):
    (tmp_path / "old").mkdir()
    with sqlite3.connect(tmp_path / "old" / "proj.db") as base:
        base.execute("create table metadata(key text, value text)")
        base.execute("insert into metadata values('DATABASE.LAYOUT.VERSION.MAJOR', '1')")
        base.execute("insert into metadata values('DATABASE.LAYOUT.VERSION.MINOR', '0')")
    command = [*WASNOW, "detect", *pair(tmp_path), "-o", tmp_path / "out", "--model", "irmad", "--quiet"]
    environment = {**os.environ, name: str(tmp_path / "old")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert line == f"warning: ignoring data of another GDAL or PROJ installation, set in the environment by {name}"


@pytest.mark.parametrize("device", ["meta", "cuda:99", "tpu", "no such device"])
def test_an_unusable_device_is_refused_in_one_line(tmp_path, device):
    before, after = pair(tmp_path)
    done = CliRunner().invoke(app, ["detect", str(before), str(after), "-o", str(tmp_path / "out"), "--device", device])
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"wasnow: --device {device} is not available here (")
    assert not (tmp_path / "out").exists()
