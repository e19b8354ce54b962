"""Downloads from a local server: resumed after an interruption, verified, and rejected if they differ."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import numpy as np
import pytest
from typer.testing import CliRunner

from wasnow.cli.data import app
from wasnow.data import get
from wasnow.data.get import download
from wasnow.errors import DownloadFailed, UsageError

CONTENT = np.random.default_rng(0).integers(0, 256, 3_000_000, np.uint8).tobytes()
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(BaseHTTPRequestHandler):
    """Serves CONTENT with ranges; ``cut`` ends the next response early."""

    etag = DIGEST
    cut: int | None = None
    requests: ClassVar[list[tuple[str, str | None]]] = []

    def do_GET(self) -> None:
        Server.requests.append((self.path, self.headers.get("Range")))
        if self.path.startswith("/missing"):
            self.send_error(404)
        elif self.path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", "/plain/second.zip")
            self.send_header("X-Linked-ETag", f'"{self.etag}"')
            self.end_headers()
        else:
            self.send_content()

    def send_content(self) -> None:
        start = 0
        etag = '"other"' if self.path.startswith("/plain") else f'"{self.etag}"'
        wanted = self.headers.get("Range")
        if wanted and self.headers.get("If-Range") == etag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        else:
            self.send_response(200)
        self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        stop = len(CONTENT) if Server.cut is None else Server.cut
        Server.cut = None
        self.wfile.write(CONTENT[start:stop])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address(monkeypatch):
    monkeypatch.setattr(Server, "requests", [])
    monkeypatch.setattr(Server, "etag", DIGEST)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_file_is_downloaded_and_verified(address, tmp_path):
    done = download(f"{address}/second.zip", tmp_path / "new")
    assert done.path.read_bytes() == CONTENT
    assert (done.sha256, done.verified) == (DIGEST, True)
    assert [path.name for path in done.path.parent.iterdir()] == ["second.zip"]


def test_the_digest_of_a_redirect_is_used(address, tmp_path):
    assert download(f"{address}/moved/second.zip", tmp_path).verified


def test_without_an_announced_digest_the_file_is_not_verified(address, tmp_path):
    assert not download(f"{address}/plain/second.zip", tmp_path).verified


def test_an_interrupted_download_is_resumed_where_it_stopped(address, tmp_path):
    Server.cut = 1_234_567
    with pytest.raises(DownloadFailed, match="Run the same command again to resume"):
        download(f"{address}/second.zip", tmp_path)
    assert not (tmp_path / "second.zip").exists()
    received = (tmp_path / "second.zip.part").stat().st_size
    assert 0 < received <= 1_234_567
    assert download(f"{address}/second.zip", tmp_path).path.read_bytes() == CONTENT
    assert Server.requests[-1] == ("/second.zip", f"bytes={received}-")


def test_a_file_that_changed_on_the_server_is_downloaded_again(address, tmp_path, monkeypatch):
    Server.cut = 1_000_000
    monkeypatch.setattr(Server, "etag", "0" * 64)
    with pytest.raises(DownloadFailed):
        download(f"{address}/second.zip", tmp_path)
    monkeypatch.setattr(Server, "etag", DIGEST)
    assert download(f"{address}/second.zip", tmp_path).path.read_bytes() == CONTENT


def test_a_file_with_another_digest_than_announced_is_deleted(address, tmp_path, monkeypatch):
    monkeypatch.setattr(Server, "etag", "0" * 64)
    with pytest.raises(DownloadFailed, match="differs from what the server announced"):
        download(f"{address}/second.zip", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_one_line(address, tmp_path):
    with pytest.raises(DownloadFailed, match="Not Found") as caught:
        download(f"{address}/missing/second.zip", tmp_path)
    assert "\n" not in str(caught.value)


def test_a_finished_file_is_not_downloaded_again(address, tmp_path):
    download(f"{address}/second.zip", tmp_path)
    download(f"{address}/second.zip", tmp_path)
    assert len(Server.requests) == 1


@pytest.mark.parametrize(
    "url", ["http://example.org/second.zip", "ftp://example.org/second.zip", "https://example.org/"]
)
def test_other_addresses_are_rejected(url, tmp_path):
    with pytest.raises(UsageError, match="the address"):
        download(url, tmp_path)


def test_the_command_prints_the_digest(address, tmp_path, monkeypatch):
    monkeypatch.setitem(get.PUBLISHED, "second", get.PublishedDataset(f"{address}/second.zip", 0.003, ""))
    done = CliRunner().invoke(app, ["get", "second", "-o", str(tmp_path)])
    assert done.exit_code == 0
    assert DIGEST in done.stdout
    assert CliRunner().invoke(app, ["get", "secnd", "-o", str(tmp_path)]).exit_code == 2
