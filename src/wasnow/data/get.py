"""Download published datasets: resumable, and verified against size and digest as announced by the server.

    URL ── redirects ──> NAME.part, NAME.part.json (address, ETag) ── size, SHA-256 ──> NAME

An interrupted download continues where it stopped, if the file on the server is the same (HTTP ``If-Range``). Servers
that announce a SHA-256 as the ETag, such as the Hugging Face Hub for large files, allow a check of the content; for
others only the size can be checked.
"""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from wasnow.errors import DownloadFailed, UsageError, did_you_mean
from wasnow.storage.atomic import output_errors, write_atomically
from wasnow.storage.hashing import file_sha256

Progress = Callable[[str, int, int], None]
_CHUNK_BYTES = 2**20
_TIMEOUT_S = 60
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class PublishedDataset:
    """A dataset with a stable address.

    Attributes:
        url: of the archive.
        gigabytes: approximate size.
        note: what it contains, and what to know before use.
    """

    url: str
    gigabytes: float
    note: str


PUBLISHED: dict[str, PublishedDataset] = {
    "second": PublishedDataset(
        "https://huggingface.co/datasets/SathShen/PerASCD-datasets/resolve/main/SECONDbi.zip",
        3.78,
        "SECOND, as republished by the authors of PerASCD; the terms of SECOND's authors apply",
    ),
}


@dataclass(frozen=True, slots=True)
class Download:
    """A finished download.

    Attributes:
        path: of the file.
        sha256: of its content, in hex.
        verified: whether the server announced this digest.
    """

    path: Path
    sha256: str
    verified: bool


def get_dataset(name: str, folder: Path, progress: Progress = lambda phase, done, total: None) -> Download:
    """Download the archive of a published dataset.

    Args:
        name: of `PUBLISHED`.
        folder: created if missing.
        progress: called with ``"download"``, megabytes done, and their number.

    Raises:
        UsageError: unknown dataset.
        DownloadFailed: see `download`.
    """
    if name not in PUBLISHED:
        near = did_you_mean(name, list(PUBLISHED))
        raise UsageError(f"unknown dataset {name!r}; known are {', '.join(PUBLISHED)}{near}")
    return download(PUBLISHED[name].url, folder, progress)


def download(url: str, folder: Path, progress: Progress = lambda phase, done, total: None) -> Download:
    """Download a file, or resume its download.

    Args:
        url: an ``https`` address; ``http`` is accepted for this machine only.
        folder: created if missing; the file keeps its name.
        progress: called with ``"download"``, megabytes done, and their number (0 if unknown).

    Raises:
        UsageError: not an address of a file.
        DownloadFailed: the server does not deliver the file, or delivers another one than it announces.
        OutputError, DiskFull: the file cannot be written.
    """
    _check_address(url)
    target = folder / Path(unquote(urlsplit(url).path)).name
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if target.exists():
        return Download(target, file_sha256(target), verified=False)
    part, record = target.with_name(f"{target.name}.part"), target.with_name(f"{target.name}.part.json")
    announced = _Announced()
    try:
        with _opened(url, part, record, announced) as response:
            total = _receive(response, url, part, record, announced, progress)
    except (urllib.error.URLError, HTTPException, OSError) as error:
        if isinstance(error, OSError) and not isinstance(error, urllib.error.URLError) and error.filename:
            raise
        reason = getattr(error, "reason", None) or " ".join(str(error).split())
        raise DownloadFailed(f"{url}: cannot be downloaded ({reason}). Run the same command again to resume") from None
    size, digest = part.stat().st_size, file_sha256(part)
    if total is not None and size < total:
        raise DownloadFailed(f"{url}: ended after {size} of {total} bytes. Run the same command again to resume")
    if (total is not None and size > total) or (announced.sha256 is not None and digest != announced.sha256):
        part.unlink()
        record.unlink(missing_ok=True)
        raise DownloadFailed(f"{url}: differs from what the server announced and was deleted. Run the command again")
    with output_errors(target):
        part.replace(target)
    record.unlink(missing_ok=True)
    return Download(target, digest, verified=announced.sha256 is not None)


@dataclass
class _Announced:
    """What the server, or one that redirected to it, says about the file."""

    sha256: str | None = None

    def read(self, headers: Message) -> None:
        for name in ("X-Linked-ETag", "ETag"):
            if match := _SHA256.fullmatch((headers.get(name) or "").strip().removeprefix("W/").strip('"')):
                self.sha256 = self.sha256 or match[0]


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to secure addresses, and reads the digest that they announce."""

    def __init__(self, announced: _Announced) -> None:
        self._announced = announced

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        _check_address(newurl, origin=req.full_url)
        self._announced.read(headers)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opened(url: str, part: Path, record: Path, announced: _Announced) -> Any:
    request = urllib.request.Request(url, headers={"User-Agent": "wasnow", "Accept-Encoding": "identity"})
    etag = _recorded_etag(url, record)
    if etag and part.exists() and part.stat().st_size:
        request.add_header("Range", f"bytes={part.stat().st_size}-")
        request.add_header("If-Range", etag)
    return urllib.request.build_opener(_Redirects(announced)).open(request, timeout=_TIMEOUT_S)


def _receive(
    response: Any, url: str, part: Path, record: Path, announced: _Announced, progress: Progress
) -> int | None:
    """Append to the partial file, or start it again; return the size of the whole file, if known."""
    announced.read(response.headers)
    resumed = response.status == 206
    done = part.stat().st_size if resumed else 0
    length = response.headers.get("Content-Length")
    total = None if length is None else done + int(length)
    with output_errors(part):
        write_atomically(record, json.dumps({"url": url, "etag": response.headers.get("ETag")}).encode())
        with part.open("ab" if resumed else "wb") as file:
            while chunk := response.read(_CHUNK_BYTES):
                file.write(chunk)
                done += len(chunk)
                progress("download", done // 1_000_000, (total or 0) // 1_000_000)
            file.flush()
            os.fsync(file.fileno())
    return total


def _recorded_etag(url: str, record: Path) -> str | None:
    with suppress(OSError, ValueError):
        content = json.loads(record.read_text(encoding="utf-8"))
        if isinstance(content, dict) and content.get("url") == url:
            etag = content.get("etag")
            return etag if isinstance(etag, str) else None
    return None


def _check_address(url: str, origin: str | None = None) -> None:
    parts = urlsplit(url)
    local = parts.hostname in ("127.0.0.1", "localhost", "::1")
    if local and origin is not None and urlsplit(origin).hostname != parts.hostname:
        raise DownloadFailed(f"{origin}: redirects to this machine, which is not followed")
    if parts.scheme != "https" and not (parts.scheme == "http" and local):
        raise UsageError(f"{url}: the address must start with https://")
    if not Path(parts.path).name:
        raise UsageError(f"{url}: the address does not end with a file name")
