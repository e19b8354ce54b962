"""Whether a result folder is still what the run wrote: whole, unchanged, and right in itself.

    SHA256SUMS ──> every file there, and byte for byte as it was written?
    run.json ────> rasters decoded block by block, counts, legend, grid      rasters.py
              ───> polygons: geometry, words, sums                           vectors.py
              ───> attribute tables, STAC item, page                         texts.py

A checksum tells what changed since; it cannot tell that all was right to begin with: hence the second half. Memory does
not grow with the raster. Nothing is written.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path

from wasnow.errors import InputError
from wasnow.output.layout import GEOPACKAGE, OUTPUTS, PAIRS_SUMMARY, RECORD_NAME, SUMS, output_names
from wasnow.output.record import InputRecord, RunRecord
from wasnow.output.verify.finding import Finding, Verdict
from wasnow.output.verify.rasters import check_rasters
from wasnow.output.verify.texts import check_texts
from wasnow.output.verify.vectors import check_polygons, reviewed
from wasnow.raster.gdal import gdal_settings
from wasnow.storage.hashing import file_sha256
from wasnow.storage.journal import WORKSPACE, current_writer, finished_blocks
from wasnow.storage.names import folder_name_fault

__all__ = ["Finding", "Verdict", "verify"]

Progress = Callable[[str, int, int], None]
"""Called with (phase, done, total); phases are ``checksums``, ``blocks``, ``inputs`` and ``pairs``."""

SIDE_FILES = (".aux.xml", ".ovr", ".msk", ".tfw", ".tifw", ".wld", ".prj", "-wal", "-journal", ".xml", ".imd", ".rpb")
"""Ends of names of files that GDAL or SQLite would read along with ours, and believe."""


def verify(folder: str | os.PathLike[str], *, inputs: bool = False, progress: Progress | None = None) -> Verdict:
    """Look at every file of a result folder, or of a folder of many pairs.

    Args:
        folder: made by ``wasnow detect``.
        inputs: also compare the files that the run read with the checksums that it took.
        progress: called with (phase, done, total).

    Returns:
        What is right and what is not; nothing is raised for a fault of the folder.

    Raises:
        InputError: no run of wasnow ever wrote there.
    """
    tell = progress or (lambda phase, done, total: None)
    place = Path(folder)
    if not place.is_dir():
        raise InputError(f"{place}: no such folder; give the folder that wasnow detect wrote with -o")
    with gdal_settings():
        if (place / PAIRS_SUMMARY).is_file():
            return _of_pairs(place, inputs, tell)
        return _of_run(place, inputs, tell)


def _of_run(folder: Path, inputs: bool, tell: Progress) -> Verdict:
    """The verdict of one result folder."""
    begun = (folder / WORKSPACE / "plan.json").is_file()
    any_final = any((folder / name).exists() for name in OUTPUTS)
    if not begun and not any_final:
        raise InputError(f"{folder} is no result folder: it has no {RECORD_NAME}; give one that wasnow detect wrote")
    if begun and not (folder / RECORD_NAME).exists():
        return Verdict(folder, (), (Finding(RECORD_NAME, "unfinished", _how_far(folder)),))
    findings: list[Finding] = []
    notes: list[str] = []
    record = None
    try:
        record = RunRecord.read(folder)
    except InputError as error:
        state = "not valid" if (folder / RECORD_NAME).exists() else "missing"
        findings.append(Finding(RECORD_NAME, state, str(error)))  # type: ignore[arg-type]
    sums, faults = _listed_sums(folder)
    findings += faults
    if record is not None:
        sums, faults = _agreed_sums(sums, record)
        findings += faults
    expected = output_names(landcover=bool(record.landcover)) if record is not None else OUTPUTS
    findings += _compare(folder, expected, sums, record, tell)
    findings += _side_files(folder, {*expected, *sums}, notes)
    if record is not None:
        findings += check_rasters(folder, record, tell)
        findings += check_polygons(folder, record)
        findings += check_texts(folder, record, sums)
        if record.status != "complete":
            lost = ", ".join(sorted(record.pixels.not_processed))
            notes.append(f"parts could not be read and are flagged ({lost}); the same command tries them again")
        if inputs:
            findings += _input_faults(record, notes, tell)
    if (holder := current_writer(folder)) is not None:
        notes.append(f"{holder} writes to this folder right now: look again when it is done")
    if findings and record is not None and record.command:
        notes.append(f"to make it anew, remove {folder} and run: {shlex.join(record.command)}")
    wrong = {each.file for each in findings}
    right = tuple(name for name in expected if name not in wrong and (folder / name).is_file())
    return Verdict(folder, right, tuple(findings), tuple(notes))


def _how_far(folder: Path) -> str:
    """What became of a run that has no results yet, and how to go on."""
    done, total = finished_blocks(folder)
    amount = f"{done:,} blocks are done" if total is None else f"{done:,} of {total:,} blocks are done"
    holder = current_writer(folder)
    if holder is not None:
        return f"{amount}, and {holder} is at work: look again when it is done"
    return f"{amount}, and nobody is at work: run the same wasnow detect command again to go on"


# --- checksums --------------------------------------------------------------------------------------------------


def _listed_sums(folder: Path) -> tuple[dict[str, str], list[Finding]]:
    """File name -> SHA-256, from ``SHA256SUMS``; lines that are none, or lead elsewhere, are findings."""
    path = folder / SUMS
    if not path.is_file():
        return {}, [Finding(SUMS, "missing", f"the other files are compared with what {RECORD_NAME} says of them")]
    sums: dict[str, str] = {}
    try:
        lines = path.read_bytes()[: 2**20].decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        return {}, [Finding(SUMS, "not valid", f"cannot be read: {error}")]
    for number, line in enumerate(lines, 1):
        found = re.fullmatch(r"([0-9a-f]{64}) [ *]([^/\\]+)", line)
        if found is None or found[2] in (".", "..") or found[2] in sums:
            return sums, [Finding(SUMS, "not valid", f"line {number} is no checksum of one file of this folder")]
        sums[found[2]] = found[1]
    return sums, [] if sums else [Finding(SUMS, "not valid", "it lists no file")]


def _agreed_sums(sums: dict[str, str], record: RunRecord) -> tuple[dict[str, str], list[Finding]]:
    """Both lists together; where they differ one of them was changed."""
    known = {each.name: each.sha256 for each in record.outputs if each.sha256 and each.name == Path(each.name).name}
    findings = [
        Finding(name, "changed", f"{SUMS} and {RECORD_NAME} name different checksums of it")
        for name, digest in known.items()
        if sums.get(name, digest) != digest
    ]
    return {**known, **sums}, findings


def _compare(
    folder: Path, expected: tuple[str, ...], sums: dict[str, str], record: RunRecord | None, tell: Progress
) -> list[Finding]:
    """Every file that is expected or listed, with its size and checksum."""
    sizes = {each.name: each.size for each in record.outputs} if record is not None else {}
    names = [*expected, *sorted(set(sums) - set(expected))]
    findings = []
    for number, name in enumerate(names):
        tell("checksums", number, len(names))
        path = folder / name
        if name == SUMS or (name == RECORD_NAME and not path.exists()):
            continue
        if path.is_symlink() or not path.is_file():
            what = "it is no file of its own" if path.exists() else "the run wrote it, and it is not there"
            findings.append(Finding(name, "missing", what))
        elif name not in sums:
            if (folder / SUMS).is_file():
                findings.append(Finding(name, "not listed", f"{SUMS} has no checksum of it"))
        elif (size := sizes.get(name)) is not None and path.stat().st_size != size:
            findings.append(Finding(name, "changed", f"{path.stat().st_size:,} bytes, {size:,} when it was written"))
        else:
            findings += _changed(path, sums[name])
    tell("checksums", len(names), len(names))
    return findings


def _changed(path: Path, digest: str) -> list[Finding]:
    try:
        found = file_sha256(path)
    except OSError as error:
        return [Finding(path.name, "not valid", f"cannot be read: {error.strerror}")]
    if found == digest:
        return []
    detail = f"SHA-256 {found[:12]}..., {digest[:12]}... when it was written"
    if path.name == GEOPACKAGE and (edited := reviewed(path)):
        detail += f"; {edited:,} polygons were reviewed since: if nothing else was edited, that is why"
    return [Finding(path.name, "changed", detail)]


def _side_files(folder: Path, known: set[str], notes: list[str]) -> list[Finding]:
    """Files that the run did not write: a fault where GDAL would believe them, else a note."""
    others = sorted(each.name for each in folder.iterdir() if each.name not in known and each.name != WORKSPACE)
    bases = {part for name in known for part in (name, name.rsplit(".", 1)[0])}
    believed = [
        name for name in others if any(name.lower().endswith(end) and name[: -len(end)] in bases for end in SIDE_FILES)
    ]
    rest = [name for name in others if name not in believed]
    if rest:
        more = f" and {len(rest) - 5} more" if len(rest) > 5 else ""
        notes.append(f"not from this run: {', '.join(map(repr, rest[:5]))}{more}")
    return [
        Finding(name, "not listed", "the run did not write it, and programs read it along with the file it belongs to")
        for name in believed
    ]


# --- many pairs -------------------------------------------------------------------------------------------------


def _of_pairs(folder: Path, inputs: bool, tell: Progress) -> Verdict:
    """The verdict of a folder that ``wasnow detect --pairs`` wrote, and of every result folder in it."""
    try:
        rows = json.loads((folder / PAIRS_SUMMARY).read_text(encoding="utf-8"))["pairs"]
        listed = [(str(row["name"]), str(row["state"]), str(row["reason"] or "")) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        detail = f"cannot be read ({' '.join(str(error).split())}); run the same wasnow detect command again"
        return Verdict(folder, (), (Finding(PAIRS_SUMMARY, "not valid", detail),))
    findings: list[Finding] = []
    notes: list[str] = []
    verdicts: list[Verdict] = []
    for number, (name, state, reason) in enumerate(listed):
        tell("pairs", number, len(listed))
        if folder_name_fault(name) is not None or (folder / name).is_symlink():
            findings.append(
                Finding(PAIRS_SUMMARY, "not valid", f"names {name[:60]!r}, which is no folder within this one")
            )
        elif state == "failed":
            findings.append(Finding(name, "failed", reason))
        elif state == "waiting":
            findings.append(Finding(name, "unfinished", "its turn has not come; run the same command again to go on"))
        elif not (folder / name).is_dir():
            findings.append(Finding(name, "missing", "the result folder of a pair that was done"))
        else:
            try:
                verdicts.append(_of_run(folder / name, inputs, tell))
            except InputError as error:
                findings.append(Finding(name, "missing", str(error)))
    tell("pairs", len(listed), len(listed))
    if (holder := current_writer(folder)) is not None:
        notes.append(f"{holder} works through the list right now")
    names = {name for name, _, _ in listed}
    left = sorted(each.name for each in folder.iterdir() if (each / RECORD_NAME).is_file() and each.name not in names)
    if left:
        more = f" and {len(left) - 5} more" if len(left) > 5 else ""
        notes.append(f"result folders that the list does not have, not looked at: {', '.join(left[:5])}{more}")
    return Verdict(folder, (), tuple(findings), tuple(notes), tuple(verdicts))


# --- inputs -----------------------------------------------------------------------------------------------------


def _input_faults(record: RunRecord, notes: list[str], tell: Progress) -> list[Finding]:
    """The files that the run read, where they still are."""
    files = [(date, source, each) for date, source in _sources(record) for each in source.files]
    findings = []
    for number, (date, source, each) in enumerate(files):
        tell("inputs", number, len(files))
        label = f"{date} {each.name}"
        if each.sha256 is None:
            notes.append(f"{label} is remote: the run took no checksum of it")
            continue
        path = Path(source.path).parent / each.name
        if not path.is_file():
            findings.append(Finding(label, "missing", f"no such file: {path} (paths are as they were typed)"))
        elif (found := file_sha256(path)) != each.sha256:
            findings.append(Finding(label, "changed", f"SHA-256 {found[:12]}..., {each.sha256[:12]}... in the run"))
    tell("inputs", len(files), len(files))
    return findings


def _sources(record: RunRecord) -> tuple[tuple[str, InputRecord], tuple[str, InputRecord]]:
    return ("before", record.before), ("after", record.after)
