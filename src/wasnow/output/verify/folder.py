"""Verify a result folder, or a folder of many pairs.

    SHA256SUMS ──> is every file there, byte for byte as it was written?   checksums.py
    run.json ────> rasters decoded block by block, counts, legend, grid    rasters.py
              ───> polygons: geometry, words, sums                         vectors.py
              ───> attribute tables, STAC item, report                     texts.py

Checksums show what changed since the run; the other checks also hold if somebody wrote new checksums. Memory does not
grow with the raster. Nothing is written.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path

from wasnow.errors import InputError
from wasnow.output.layout import OUTPUTS, PAIRS_SUMMARY, RECORD_NAME, output_names
from wasnow.output.record import InputRecord, RunRecord
from wasnow.output.verify.checksums import check_files, check_side_files, listed_sums, merged_sums
from wasnow.output.verify.finding import Finding, Verdict
from wasnow.output.verify.rasters import check_rasters
from wasnow.output.verify.texts import check_texts
from wasnow.output.verify.vectors import check_polygons
from wasnow.raster.gdal import gdal_settings
from wasnow.storage.hashing import file_sha256
from wasnow.storage.journal import WORKSPACE, current_writer, finished_blocks
from wasnow.storage.names import folder_name_fault
from wasnow.storage.sidecars import SUFFIX

Progress = Callable[[str, int, int], None]
"""Called with (phase, done, total); phases are ``checksums``, ``blocks``, ``inputs`` and ``pairs``."""


def verify(folder: str | os.PathLike[str], *, inputs: bool = False, progress: Progress | None = None) -> Verdict:
    """Check every file of a result folder, or of a folder of many pairs.

    Args:
        folder: made by ``wasnow detect``.
        inputs: also compare the input files with their recorded checksums.
        progress: called with (phase, done, total).

    Returns:
        Valid files and faults; no fault of the folder raises an error.

    Raises:
        InputError: the folder was not written by wasnow.
    """
    report = progress or (lambda phase, done, total: None)
    place = Path(folder)
    if not place.is_dir():
        raise InputError(f"{place}: no such folder; give the folder that wasnow detect wrote with -o")
    with gdal_settings():
        if (place / PAIRS_SUMMARY).is_file():
            return _verify_pairs(place, inputs, report)
        return _verify_run(place, inputs, report)


def _verify_run(folder: Path, inputs: bool, progress: Progress) -> Verdict:
    """Return the verdict of one result folder; faults that a running writer explains are one "unfinished"."""
    writer, record_before = current_writer(folder), _identity(folder / RECORD_NAME)
    try:
        verdict = _examine(folder, inputs, progress)
    except Exception:
        # A writer may replace or remove any file between two steps of the examination.
        if (writer or current_writer(folder)) is None and record_before == _identity(folder / RECORD_NAME):
            raise
        verdict = None
    writer = current_writer(folder) or writer
    replaced = record_before != _identity(folder / RECORD_NAME)
    if verdict is not None and not verdict.findings and not replaced:
        return verdict
    if writer is not None:
        return Verdict(folder, (), (Finding(RECORD_NAME, "unfinished", _run_state(folder)),))
    if replaced or verdict is None:
        detail = "a run replaced the results while they were being verified: verify again"
        return Verdict(folder, (), (Finding(RECORD_NAME, "unfinished", detail),))
    return verdict


def _identity(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _examine(folder: Path, inputs: bool, progress: Progress) -> Verdict:
    begun = (folder / WORKSPACE / "plan.json").is_file() or current_writer(folder) is not None
    any_output = any((folder / name).exists() for name in OUTPUTS)
    if not begun and not any_output:
        raise InputError(f"{folder} is not a result folder: it has no {RECORD_NAME}; give one that wasnow detect wrote")
    if begun and not (folder / RECORD_NAME).exists():
        return Verdict(folder, (), (Finding(RECORD_NAME, "unfinished", _run_state(folder)),))
    findings: list[Finding] = []
    notes: list[str] = []
    record = None
    try:
        record = RunRecord.read(folder)
    except InputError as error:
        present = (folder / RECORD_NAME).exists()
        findings.append(Finding(RECORD_NAME, "not valid" if present else "missing", str(error)))
    sums, faults = listed_sums(folder)
    findings += faults
    if record is not None:
        sums, faults = merged_sums(sums, record)
        findings += faults
    expected = output_names(landcover=bool(record.landcover)) if record is not None else OUTPUTS
    findings += check_files(folder, expected, sums, record, notes, progress)
    findings += check_side_files(folder, {*expected, *sums}, notes)
    if record is not None:
        findings += check_rasters(folder, record, progress)
        findings += check_polygons(folder, record)
        findings += check_texts(folder, record, sums)
        if record.status != "complete":
            lost = ", ".join(sorted(record.pixels.not_processed))
            notes.append(f"parts could not be read and are flagged ({lost}); the same command tries them again")
        if inputs:
            findings += _input_faults(record, notes, progress)
    if (writer := current_writer(folder)) is not None:
        notes.append(f"{writer} is writing to this folder: verify again when it has finished")
    if findings and record is not None and record.command:
        notes.append(f"to compute it again, remove {folder} and run: {shlex.join(record.command)}")
    wrong = {each.file for each in findings}
    right = tuple(name for name in expected if name not in wrong and (folder / name).is_file())
    return Verdict(folder, right, tuple(findings), tuple(notes))


def _run_state(folder: Path) -> str:
    """Return the progress of a run without results, and how to resume it."""
    done, total = finished_blocks(folder)
    amount = f"{done:,} blocks are done" if total is None else f"{done:,} of {total:,} blocks are done"
    writer = current_writer(folder)
    if writer is not None:
        return f"{amount}, and {writer} is running: verify again when it has finished"
    return f"{amount}, and no process is running: run the same wasnow detect command again to resume"


# --- many pairs -------------------------------------------------------------------------------------------------


def _verify_pairs(folder: Path, inputs: bool, progress: Progress) -> Verdict:
    """Return the verdict of a folder of ``wasnow detect --pairs``, and of every result folder in it."""
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
        progress("pairs", number, len(listed))
        if folder_name_fault(name) is not None or (folder / name).is_symlink():
            detail = f"names {name[:60]!r}, which is not a folder inside this one"
            findings.append(Finding(PAIRS_SUMMARY, "not valid", detail))
        elif state == "failed":
            findings.append(Finding(name, "failed", reason))
        elif state == "waiting":
            findings.append(Finding(name, "unfinished", "not started yet; run the same command again to go on"))
        elif not (folder / name).is_dir():
            findings.append(Finding(name, "missing", "the result folder of a finished pair"))
        else:
            try:
                verdicts.append(_verify_run(folder / name, inputs, progress))
            except InputError as error:
                findings.append(Finding(name, "missing", str(error)))
    progress("pairs", len(listed), len(listed))
    if (writer := current_writer(folder)) is not None:
        notes.append(f"{writer} is working through the list")
    names = {name for name, _, _ in listed}
    left = sorted(each.name for each in folder.iterdir() if (each / RECORD_NAME).is_file() and each.name not in names)
    if left:
        more = f" and {len(left) - 5} more" if len(left) > 5 else ""
        notes.append(f"result folders that are not in the list and were not checked: {', '.join(left[:5])}{more}")
    return Verdict(folder, (), tuple(findings), tuple(notes), tuple(verdicts))


# --- inputs -----------------------------------------------------------------------------------------------------


def _input_faults(record: RunRecord, notes: list[str], progress: Progress) -> list[Finding]:
    """Compare the input files with their recorded checksums.

    Args:
        record: the record of the run.
        notes: remarks are appended.
        progress: called with ("inputs", done, total).
    """
    files = [(date, source, each) for date, source in _sources(record) for each in source.files]
    findings = []
    for number, (date, source, each) in enumerate(files):
        progress("inputs", number, len(files))
        label = f"{date} {each.name}"
        if each.sha256 is None:
            notes.append(f"{label} is remote: the run recorded no checksum of it")
            continue
        path = Path(source.path).parent / each.name
        if not path.is_file():
            findings.append(Finding(label, "missing", f"no such file: {path} (paths are recorded as typed)"))
        elif (found := file_sha256(path)) == each.sha256:
            continue
        elif each.name.endswith(SUFFIX):
            notes.append(f"{label}: its content changed since the run, which may be statistics of a viewer")
        else:
            detail = f"SHA-256 {found[:12]}..., {each.sha256[:12]}... in the run"
            findings.append(Finding(label, "changed", detail))
    progress("inputs", len(files), len(files))
    return findings


def _sources(record: RunRecord) -> tuple[tuple[str, InputRecord], tuple[str, InputRecord]]:
    return ("before", record.before), ("after", record.after)
