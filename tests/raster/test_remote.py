"""Redirects of remote rasters, with a local HTTP server."""

import http.server
import threading
from collections.abc import Iterator

import pytest

from wasnow.errors import RasterUnreadable, RasterUnsuitable
from wasnow.raster import remote
from wasnow.raster.remote import resolve_redirects


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        target = self.server.redirects.get(self.path)  # type: ignore[attr-defined]
        self.send_response(302 if target else 200)
        if target:
            self.send_header("Location", target)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server() -> Iterator[http.server.ThreadingHTTPServer]:
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.redirects = {}  # type: ignore[attr-defined]
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield served
    served.shutdown()
    served.server_close()


def url(server, path):
    return f"http://127.0.0.1:{server.server_port}{path}"


def test_local_paths_and_addresses_without_redirect_are_unchanged(server, tmp_path):
    for path in (str(tmp_path / "a.tif"), url(server, "/a.tif"), "/vsicurl/" + url(server, "/a.tif")):
        assert resolve_redirects(path) == path


def test_redirects_on_the_same_host_are_followed(server):
    server.redirects = {"/a.tif": "/b.tif", "/b.tif": url(server, "/c.tif")}
    assert resolve_redirects(url(server, "/a.tif")) == url(server, "/c.tif")
    assert resolve_redirects("/vsicurl/" + url(server, "/a.tif")) == "/vsicurl/" + url(server, "/c.tif")


@pytest.mark.parametrize("allow", [False, True])
@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.2/x.tif",
        "http://localhost:9/x.tif",
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/x.tif",
        "http://[::1]/x.tif",
        "file:///etc/passwd",
    ],
)
def test_a_redirect_never_leads_inside_this_machine_or_network(server, target, allow):
    server.redirects = {"/a.tif": target}
    with pytest.raises(RasterUnsuitable, match="redirects to"):
        resolve_redirects(url(server, "/a.tif"), allow_other_hosts=allow)


def test_a_redirect_to_another_public_host_needs_permission(server):
    server.redirects = {"/a.tif": "http://93.184.216.34/a.tif"}
    with pytest.raises(RasterUnsuitable, match=r"another host, 93\.184\.216\.34.*--allow-indirect"):
        resolve_redirects(url(server, "/a.tif"))


def test_another_port_is_another_host(server):
    server.redirects = {"/a.tif": f"http://127.0.0.1:{server.server_port + 1}/a.tif"}
    with pytest.raises(RasterUnsuitable, match="redirects to"):
        resolve_redirects(url(server, "/a.tif"))


def test_redirects_in_a_loop_end(server, monkeypatch):
    monkeypatch.setattr(remote, "MAX_REDIRECTS", 3)
    server.redirects = {"/a.tif": "/a.tif"}
    with pytest.raises(RasterUnreadable, match="redirects more than 3 times"):
        resolve_redirects(url(server, "/a.tif"))
