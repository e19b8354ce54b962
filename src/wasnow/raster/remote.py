"""Redirects of remote rasters: followed on the same host, and to other hosts only if allowed.

GDAL follows every redirect, so the server of an address could send wasnow anywhere, including to services of this
machine or its network. The redirects of an address are therefore resolved first, without GDAL.
"""

from __future__ import annotations

import base64
import http.client
import ipaddress
import socket
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from wasnow.errors import RasterUnreadable, RasterUnsuitable

MAX_REDIRECTS = 10
TIMEOUT_S = 30
_PREFIX = "/vsicurl/"
_REDIRECTS = (301, 302, 303, 307, 308)


def resolve_redirects(path: str, *, allow_other_hosts: bool = False) -> str:
    """Return the address that a typed address redirects to; other paths are returned unchanged.

    Args:
        path: of a raster; ``http://``, ``https://`` and ``/vsicurl/`` addresses are requested.
        allow_other_hosts: also follow redirects to other public hosts.

    Raises:
        RasterUnsuitable: a redirect leads to another host, or to a private, loopback or link-local address.
        RasterUnreadable: the server does not respond, or redirects too often.
    """
    prefix, address = (_PREFIX, path[len(_PREFIX) :]) if path.startswith(_PREFIX) else ("", path)
    if not address.startswith(("http://", "https://")):
        return path
    current = address
    for _ in range(MAX_REDIRECTS):
        target = _redirect_of(path, current)
        if target is None:
            return path if current == address else prefix + current
        _check(path, address, target, allow_other_hosts)
        current = target
    raise RasterUnreadable(path, f"redirects more than {MAX_REDIRECTS} times", "Give the final address")


def _redirect_of(path: str, address: str) -> str | None:
    """Return where an address redirects to, or None."""
    try:
        with urllib.request.build_opener(_NoRedirects).open(_request(address), timeout=TIMEOUT_S):
            return None
    except urllib.error.HTTPError as error:
        location = error.headers.get("Location")
        # Other errors are left to GDAL, which names them.
        return urljoin(address, location) if error.code in _REDIRECTS and location else None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise RasterUnreadable(
            path, f"the server does not respond ({' '.join(str(error).split())})", "Check the address and the network"
        ) from None


def _request(address: str) -> urllib.request.Request:
    """Return a request for the first byte; urllib does not accept a user and password in the address itself."""
    headers = {"Range": "bytes=0-0", "User-Agent": "wasnow"}
    parts = urlsplit(address)
    if parts.username is not None:
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(credentials.encode()).decode('ascii')}"
        address = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return urllib.request.Request(address, headers=headers)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Reports a redirect as an error instead of following it."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _origin(address: str) -> tuple[str | None, int | None]:
    """Return (host, port); the default ports of http and https count as the same."""
    parts = urlsplit(address)
    return parts.hostname, None if parts.port in (None, 80, 443) else parts.port


def _check(path: str, address: str, target: str, allow_other_hosts: bool) -> None:
    parts = urlsplit(target)
    if parts.scheme not in ("http", "https"):
        raise RasterUnsuitable(path, f"redirects to {target[:100]}, which is not an http address", "Give a file")
    if _origin(target) == _origin(address):
        return
    if _is_internal(parts.hostname or ""):
        raise RasterUnsuitable(
            path, f"redirects to {parts.hostname}, an address inside this machine or network", "Give the file itself"
        )
    if not allow_other_hosts:
        raise RasterUnsuitable(
            path,
            f"redirects to another host, {parts.hostname}",
            "Give the final address, or pass --allow-indirect if you trust the server",
        )


def _is_internal(host: str) -> bool:
    """Whether a host name is, or resolves to, an address that is not public."""
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, None)}
    except OSError:
        # A name that cannot be resolved cannot be opened either.
        return False
    return any(not ipaddress.ip_address(str(each).partition("%")[0]).is_global for each in found)
