"""The files of a result folder against their recorded sizes and checksums."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from wasnow.output.edits import polygon_edits, reviewed_polygons
from wasnow.output.layout import GEOPACKAGE, RECORD_NAME, REVIEW_JOURNAL, SUMS
from wasnow.output.record import RunRecord
from wasnow.output.verify.finding import Finding
from wasnow.output.verify.texts import only_viewer_additions
from wasnow.storage.hashing import file_sha256
from wasnow.storage.journal import WORKSPACE
from wasnow.storage.sidecars import SUFFIX, essential_of

Progress = Callable[[str, int, int], None]

SIDE_FILES = (SUFFIX, ".ovr", ".msk", ".tfw", ".tifw", ".wld", ".prj", "-journal", ".xml", ".imd", ".rpb")
"""Suffixes of files that GDAL or SQLite would read together with ours."""


def listed_sums(folder: Path) -> tuple[dict[str, str], list[Finding]]:
    """Return file name -> SHA-256 from ``SHA256SUMS``; invalid lines, and names outside the folder, are findings."""
    path = folder / SUMS
    if not path.is_file():
        return {}, [Finding(SUMS, "missing", f"the other files are compared with {RECORD_NAME}")]
    sums: dict[str, str] = {}
    try:
        lines = path.read_bytes()[: 2**20].decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        return {}, [Finding(SUMS, "not valid", f"cannot be read: {error}")]
    for number, line in enumerate(lines, 1):
        found = re.fullmatch(r"([0-9a-f]{64}) [ *]([^/\\]+)", line)
        if found is None or found[2] in (".", "..") or found[2] in sums:
            return sums, [Finding(SUMS, "not valid", f"line {number} is not a checksum of one file of this folder")]
        sums[found[2]] = found[1]
    return sums, [] if sums else [Finding(SUMS, "not valid", "it lists no file")]


def merged_sums(sums: Mapping[str, str], record: RunRecord) -> tuple[dict[str, str], list[Finding]]:
    """Return the checksums of ``SHA256SUMS`` and ``run.json`` together; where they differ is a finding."""
    known = {each.name: each.sha256 for each in record.outputs if each.sha256 and each.name == Path(each.name).name}
    findings = [
        Finding(name, "changed", f"{SUMS} and {RECORD_NAME} have different checksums of it")
        for name, digest in known.items()
        if sums.get(name, digest) != digest
    ]
    return {**known, **sums}, findings


def check_files(
    folder: Path,
    expected: Sequence[str],
    sums: Mapping[str, str],
    record: RunRecord | None,
    notes: list[str],
    progress: Progress,
) -> list[Finding]:
    """Compare every expected or listed file with its size and checksum.

    Args:
        folder: the result folder.
        expected: names of the files of a complete folder.
        sums: SHA-256 by name.
        record: the record of the run, if it can be read.
        notes: remarks are appended.
        progress: called with ("checksums", done, total).
    """
    sizes = {each.name: each.size for each in record.outputs} if record is not None else {}
    names = [*expected, *sorted(set(sums) - set(expected))]
    findings = []
    for number, name in enumerate(names):
        progress("checksums", number, len(names))
        path = folder / name
        if name == SUMS or (name == RECORD_NAME and not path.exists()):
            continue
        if path.is_symlink() or not path.is_file():
            what = "it is a link or a folder" if path.exists() else "the run wrote it, but it does not exist"
            findings.append(Finding(name, "missing", what))
        elif name not in sums:
            if (folder / SUMS).is_file():
                findings.append(Finding(name, "not listed", f"{SUMS} has no checksum of it"))
        else:
            findings += _checksum_faults(path, sums[name], sizes.get(name), record, notes)
    progress("checksums", len(names), len(names))
    return findings


def _checksum_faults(
    path: Path, digest: str, size: int | None, record: RunRecord | None, notes: list[str]
) -> list[Finding]:
    try:
        now = path.stat().st_size
        detail = f"{now:,} bytes, {size:,} when it was written" if size is not None and now != size else None
        if detail is None:
            found = file_sha256(path)
            if found == digest:
                return []
            detail = f"SHA-256 {found[:12]}..., {digest[:12]}... when it was written"
    except OSError as error:
        return [Finding(path.name, "not valid", f"cannot be read: {error.strerror}")]
    if path.name.endswith(SUFFIX) and record is not None and only_viewer_additions(path, record):
        notes.append(f"{path.name}: a viewer stored statistics in it")
        return []
    if path.name == GEOPACKAGE:
        edits = polygon_edits(path.parent)
        if edits is not None and (edits.only_reviewed or (path.parent / REVIEW_JOURNAL).is_file()):
            notes.append(f"{path.name}: {edits}")
            return []
        if edits is not None:
            detail += f"; edited since: {edits}" if edits else "; no polygon differs from those that the run wrote"
        elif reviewed := reviewed_polygons(path):
            detail += f"; edited since: polygons reviewed: {reviewed:,}"
    return [Finding(path.name, "changed", detail)]


def check_side_files(folder: Path, known: Collection[str], notes: list[str]) -> list[Finding]:
    """Report files that the run did not write: findings if programs read them with ours, else a note.

    Args:
        folder: the result folder.
        known: names that belong to the run.
        notes: remarks are appended.
    """
    others = sorted(each.name for each in folder.iterdir() if each.name not in known and each.name != WORKSPACE)
    others = [name for name in others if not _is_harmless(folder / name)]
    bases = {part for name in known for part in (name, name.rsplit(".", 1)[0])}
    read = [
        name for name in others if any(name.lower().endswith(end) and name[: -len(end)] in bases for end in SIDE_FILES)
    ]
    rest = [name for name in others if name not in read]
    if rest:
        more = f" and {len(rest) - 5} more" if len(rest) > 5 else ""
        notes.append(f"not written by this run: {', '.join(map(repr, rest[:5]))}{more}")
    if (log := folder / f"{GEOPACKAGE}-wal").is_file() and log.stat().st_size:
        notes.append(f"{GEOPACKAGE} is open in another program, or holds edits that are not yet in the file")
    return [
        Finding(name, "not listed", "the run did not write it, and programs read it together with a result file")
        for name in read
    ]


def _is_harmless(path: Path) -> bool:
    """Whether viewers leave such a file beside results, and it changes nothing: statistics, SQLite's working files."""
    if path.name in (f"{GEOPACKAGE}-wal", f"{GEOPACKAGE}-shm"):
        return True
    if not path.name.endswith(SUFFIX) or path.is_symlink():
        return False
    try:
        return essential_of(path) is None
    except ValueError:
        return False
