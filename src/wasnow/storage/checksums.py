"""Checksums that are stored beside a file, compared before the file is used.

    scene.tif.sha256   scene.sha256     "<64 hex digits>  scene.tif", or the digits alone
    SHA256SUMS         sha256sums.txt   a line for each file of the folder
    scene.json         item.json        a STAC item with that file as an asset: ``file:checksum``, ``file:size``

No codec notices a flipped bit in raw pixels, and JPEG decodes almost anything. Where a checksum is stored beside an
input, it is therefore compared before any work is done. Only these names are looked for, and only on local disks.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from wasnow.errors import RasterUnreadable
from wasnow.storage.hashing import file_digests

MAX_BYTES = 2**24
"""Lists and items larger than this are not read."""

LISTS = ("SHA256SUMS", "SHA256SUMS.txt", "sha256sums", "sha256sums.txt", "sha256sum.txt")
_HASHES: Mapping[int, str] = {
    0x11: "sha1", 0x12: "sha256", 0x13: "sha512", 0x14: "sha3_512", 0x15: "sha3_384", 0x16: "sha3_256",
    0x17: "sha3_224", 0x20: "sha384", 0xD5: "md5",
}  # fmt: skip
"""Multihash codes (https://github.com/multiformats/multicodec) of algorithms in hashlib."""

_LINE = re.compile(r"\\?([0-9a-fA-F]{64})(?:\s+\*?(.+?))?\s*\Z")
_BSD_LINE = re.compile(r"SHA256 \((.+)\) = ([0-9a-fA-F]{64})\s*\Z")


@dataclass(frozen=True)
class GivenSum:
    """The description of a file in another file.

    Attributes:
        where: the other file.
        algorithm: a name of `hashlib`.
        digest: lower-case hex; empty if only the size is given.
        size: in bytes; None if it is not given.
    """

    where: Path
    algorithm: str
    digest: str
    size: int | None = None


def given_sums(path: Path) -> tuple[GivenSum, ...]:
    """Return every checksum that is stored beside a file.

    Raises:
        RasterUnreadable: the ``.sha256`` of this file holds no checksum.
    """
    return (*_sidecars(path), *_listed(path), *_in_items(path))


def checked_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hex, compared with all checksums beside it; the file is read once.

    Raises:
        RasterUnreadable: a checksum or size differs; names the file with the checksum and both values.
    """
    given = given_sums(path)
    size = path.stat().st_size
    for each in given:
        if each.size is not None and each.size != size:
            raise RasterUnreadable(
                path,
                f"is not the file that {each.where.name} describes: {each.size} bytes required, {size} found",
                _ADVICE,
            )
    found = file_digests(path, {"sha256", *(each.algorithm for each in given)})
    for each in given:
        if each.digest and each.digest != found[each.algorithm]:
            raise RasterUnreadable(
                path,
                f"is not the file that {each.where.name} describes: {each.algorithm} {each.digest} required, "
                f"{found[each.algorithm]} found",
                _ADVICE,
            )
    return found["sha256"]


_ADVICE = "Copy or download it again, or remove the checksum if it belongs to an older file"


def _sidecars(path: Path) -> Iterator[GivenSum]:
    """``scene.tif.sha256`` belongs to this file; ``scene.sha256`` may belong to another file of that stem."""
    for side in dict.fromkeys((path.with_name(f"{path.name}.sha256"), path.with_suffix(".sha256"))):
        if side == path or (text := _text(side)) is None:
            continue
        own = side.name == f"{path.name}.sha256"
        lines = dict(_lines(text))
        digest = lines.get(path.name) or lines.get("")
        if digest is None and own:
            # File and checksum may have been renamed together.
            digest = next(iter(lines.values())) if len(lines) == 1 else None
        if digest is not None:
            yield GivenSum(side, "sha256", digest)
        elif own:
            raise RasterUnreadable(
                path, f"its {side.name} does not contain a SHA-256 of it", f"Correct or remove {side.name}"
            )


def _listed(path: Path) -> Iterator[GivenSum]:
    for name in LISTS:
        text = _text(path.with_name(name))
        digest = None if text is None else dict(_lines(text)).get(path.name)
        if digest is not None:
            yield GivenSum(path.with_name(name), "sha256", digest)


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """Yield (file name, digest) of each line; the name is empty if the line has none."""
    for line in text.splitlines():
        if match := _LINE.match(line.strip()):
            yield _name(match[2] or ""), match[1].lower()
        elif match := _BSD_LINE.match(line.strip()):
            yield _name(match[1]), match[2].lower()


def _name(written: str) -> str:
    """Return a name relative to the folder of the list: ``./scene.tif`` is ``scene.tif``."""
    return written.removeprefix("./")


def _in_items(path: Path) -> Iterator[GivenSum]:
    names = (f"{path.stem}.json", f"{path.name}.json", f"{path.stem}_stac.json", f"{path.stem}.stac.json", "item.json")
    for item in (path.with_name(name) for name in dict.fromkeys(names)):
        if item == path or (text := _text(item)) is None or '"stac_version"' not in text:
            continue
        try:
            content = json.loads(text)
            assets = content["assets"].values() if isinstance(content, dict) else ()
        except (ValueError, KeyError, AttributeError, RecursionError):
            continue
        for asset in assets:
            if isinstance(asset, dict) and _is_asset(asset, path):
                yield from _of_asset(item, asset)


def _is_asset(asset: Mapping[str, Any], path: Path) -> bool:
    """Whether an asset is this file: in the folder of the item, or published with the same name."""
    href = asset.get("href")
    return isinstance(href, str) and unquote(href.split("?")[0].split("#")[0]).rsplit("/", 1)[-1] == path.name


def _of_asset(item: Path, asset: Mapping[str, Any]) -> Iterator[GivenSum]:
    size = asset.get("file:size")
    size = size if isinstance(size, int) and not isinstance(size, bool) else None
    text = asset.get("file:checksum", asset.get("checksum:multihash"))
    decoded = _multihash(text) if isinstance(text, str) else None
    if decoded is not None:
        yield GivenSum(item, *decoded, size)
    elif size is not None:
        yield GivenSum(item, "sha256", "", size)


def _multihash(text: str) -> tuple[str, str] | None:
    """Return (algorithm, hex digest) of a multihash in hex; None for an unknown algorithm."""
    try:
        data = bytes.fromhex(text)
    except ValueError:
        return None
    code, rest = _varint(data)
    length, digest = _varint(rest)
    name = _HASHES.get(code)
    if name is None or len(digest) != length or length != hashlib.new(name).digest_size:
        return None
    return name, digest.hex()


def _varint(data: bytes) -> tuple[int, bytes]:
    value = 0
    for at, byte in enumerate(data[:9]):
        value |= (byte & 0x7F) << 7 * at
        if byte < 0x80:
            return value, data[at + 1 :]
    return -1, b""


def _text(path: Path) -> str | None:
    try:
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            return None
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
