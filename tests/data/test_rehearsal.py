"""From an empty folder to scores on SECOND, with a generated copy of 12 pairs on a local server."""

import functools
import json
import threading
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from data.fakes import second
from wasnow.cli import evaluate, train
from wasnow.cli.data import app as data_app
from wasnow.data import get

RECIPE = """
model: sscd-l
crop: 32
batch_size: 2
workers: 0
device: cpu
samples: 0
validate_every: 2
stages: [{steps: 2}]
"""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """12 pairs in the layout and colours of SECOND, as an archive on a local server."""
    second(tmp_path / "made" / "SECOND", "second-rgb", splits=("train",), count=8, side=64)
    second(tmp_path / "made" / "SECOND", "second-rgb", splits=("test",), count=4, side=64)
    with zipfile.ZipFile(tmp_path / "made" / "SECONDbi.zip", "w") as archive:
        for path in sorted((tmp_path / "made" / "SECOND").rglob("*.png")):
            archive.write(path, path.relative_to(tmp_path / "made"))
    handler = functools.partial(_Quiet, directory=str(tmp_path / "made"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/SECONDbi.zip"
    monkeypatch.setitem(get.PUBLISHED, "second", get.PublishedDataset(address, 0.001, ""))
    yield
    server.shutdown()
    server.server_close()


def wasnow(*words: object) -> str:
    """Run a command that must succeed and return its output."""
    app = typer.Typer()
    app.add_typer(data_app, name="data")
    app.command("train")(train.train)
    app.command("evaluate")(evaluate.evaluate)
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.usefixtures("published")
def test_second_is_downloaded_checked_trained_on_and_scored(tmp_path: Path) -> None:
    wasnow("data", "get", "second", "-o", tmp_path / "downloads", "-q")
    with zipfile.ZipFile(tmp_path / "downloads" / "SECONDbi.zip") as archive:
        archive.extractall(tmp_path)
    folder = tmp_path / "SECOND"
    checked = json.loads(wasnow("data", "check", folder, "--json"))
    assert checked["ready"]
    assert {split: each["pairs"] for split, each in checked["splits"].items()} == {"train": 8, "test": 4}
    assert checked["dataset"]["encoding"] == "class labels second-rgb"
    wasnow("data", "preview", folder, "-o", tmp_path / "second.html", "-q")
    (tmp_path / "short.yaml").write_text(RECIPE)
    wasnow("train", tmp_path / "short.yaml", "--data", folder, "-o", tmp_path / "run", "-q")
    scores = json.loads(wasnow("evaluate", tmp_path / "run", "--data", folder, "--json"))
    assert (scores["split"], scores["images"]) == ("test", 4)
    assert {"binary", "from_to"} <= set(scores["scores"]), list(scores)
