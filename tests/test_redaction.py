"""User, password and signature of an address appear in no file, message or log."""

import http.server
import json
import threading
from functools import partial

import pytest
from typer.testing import CliRunner

import wasnow
from making import Toy, pair
from wasnow.cli import app
from wasnow.errors import RasterUnreadable, redacted

SECRETS = ("s3cret", "somebody", "sig-4711")


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("https://somebody:s3cret@host/a.tif", "https://***@host/a.tif"),
        ("https://host/a.tif?X-Amz-Signature=sig-4711&se=1", "https://host/a.tif?***"),
        ("/vsicurl/https://somebody:s3cret@h:8080/a.tif?sig=sig-4711", "/vsicurl/https://***@h:8080/a.tif?***"),
        ("/vsicurl?header.Authorization=s3cret&url=https%3A%2F%2Fh", "/vsicurl?***"),
        ("https://u:p@ss@host/a.tif: cannot be read", "https://***@host/a.tif: cannot be read"),
        ("wrote https://host/a.tif?sig=sig-4711, then 'ftp://u:s3cret@b/c'", "wrote https://host/a.tif?***, then 'ftp://***@b/c'"),
        ("scenes/why?.tif and me@example.org", "scenes/why?.tif and me@example.org"),
        ("tcp://host:8786", "tcp://host:8786"),
    ],
)  # fmt: skip
def test_user_password_and_query_are_replaced_and_nothing_else(text, safe):
    assert redacted(text) == safe
    assert redacted(safe) == safe


def test_error_messages_are_redacted_also_after_pickling():
    import pickle

    error = RasterUnreadable("https://somebody:s3cret@host/a.tif?sig=sig-4711", "no such file")
    for each in (error, pickle.loads(pickle.dumps(error))):
        assert str(each) == "https://***@host/a.tif?***: no such file"


class Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path):
    """A server of this machine with a pair; it ignores users and queries."""
    pair(tmp_path, height=60, width=80)
    service = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=tmp_path))
    threading.Thread(target=service.serve_forever, daemon=True).start()
    yield f"http://somebody:s3cret@127.0.0.1:{service.server_address[1]}"
    service.shutdown()


def texts(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_no_file_of_a_result_or_of_a_list_of_pairs_contains_a_secret(server, tmp_path):
    before, after = (f"{server}/{name}.tif?token=sig-4711" for name in ("before", "after"))
    gone = f"{server}/gone.tif?token=sig-4711"
    table = [{"before": before, "after": each, "name": name} for name, each in (("one", after), ("two", gone))]
    command = ["wasnow", "detect", before, after, "-o", "out"]
    wasnow.detect_pairs(table, output=tmp_path / "list", model=Toy(tile=32), command=command)
    files = texts(tmp_path / "list")
    assert {"run.json", "report.html", "item.json", "summary.json", "plan.json"} <= {path.name for path in files}
    for path, content in files.items():
        for secret in SECRETS:
            assert secret.encode() not in content, path
    record = json.loads((tmp_path / "list" / "one" / "run.json").read_text())
    assert record["before"]["path"].endswith("/before.tif?***")


def test_a_run_is_returned_as_finished_with_another_signature(server, tmp_path):
    def detect(signature):
        paths = (f"{server}/{name}.tif?token={signature}" for name in ("before", "after"))
        return wasnow.detect(*paths, output=tmp_path / "out", model=Toy(tile=32))

    assert not detect("sig-4711").reused
    assert detect("sig-4712").reused


def test_the_command_line_prints_no_secret(server, tmp_path):
    for name in ("gone", "before"):
        done = CliRunner().invoke(app, ["info", f"{server}/{name}.tif?token=sig-4711", f"{server}/after.tif"])
        assert not any(secret in done.output for secret in SECRETS), done.output
        assert "***@127.0.0.1" in done.output
