"""A result folder before a run writes to it: is it finished, which files are ours, what would be lost?

A run never replaces or deletes files that it did not make, nor polygons that a person edited, unless ``overwrite`` is
given. Then edited files are kept under another name.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from wasnow.errors import InputError, OutputError
from wasnow.output.edits import polygon_edits, reviewed_polygons
from wasnow.output.layout import GEOPACKAGE, ITEM, LANDCOVER_OUTPUTS, OUTPUTS, RECORD_NAME, STYLE, SUMS, output_names
from wasnow.output.record import RunRecord
from wasnow.output.verify.checksums import listed_sums, merged_sums
from wasnow.output.verify.texts import only_viewer_additions
from wasnow.storage.atomic import output_errors
from wasnow.storage.hashing import file_sha256
from wasnow.storage.journal import PLAN, WORKSPACE
from wasnow.storage.ownership import check_claim, claim, made_here, release
from wasnow.storage.sidecars import SUFFIX

ALL_OUTPUTS = (*LANDCOVER_OUTPUTS, *OUTPUTS)


def finished_record(output: Path) -> RunRecord | None:
    """Return the record of a folder that has all its results; None otherwise.

    Files must have their recorded size. Polygons, styles and sidecars may have been edited, but must be readable.
    """
    record = _record(output)
    if record is None or not ((output / ITEM).is_file() and (output / SUMS).is_file()):
        return None
    for each in record.outputs:
        path = output / each.name
        if not path.is_file():
            return None
        if path.stat().st_size != each.size and not _may_be_edited(path):
            return None
    return record


def _may_be_edited(path: Path) -> bool:
    if path.name == GEOPACKAGE:
        return polygon_edits(path.parent) is not None
    return path.name.endswith(SUFFIX) or path.name == STYLE


def polygons_edited(output: Path) -> str | None:
    """Return the edits of the polygons since the run wrote them, in words; None without edits."""
    path = output / GEOPACKAGE
    if not path.is_file():
        return None
    if (edits := polygon_edits(output)) is not None:
        return str(edits) if edits else None
    reviewed = reviewed_polygons(path)
    return f"polygons reviewed: {reviewed:,}" if reviewed else None


def refuse_lost_edits(output: Path) -> None:
    """Refuse to replace polygons that a person edited.

    Raises:
        OutputError: the polygons were edited; names the number of edits.
    """
    if edits := polygons_edited(output):
        raise OutputError(
            f"{output / GEOPACKAGE} was edited since the run wrote it ({edits}), and this command would replace it; "
            "pass --overwrite to compute the results again and keep the edited file under another name, or choose "
            "another output folder"
        )


def check_outputs(output: Path, *, landcover: bool, inputs: Iterable[str]) -> None:
    """Refuse an output folder with files of other people under the names that a run writes; nothing is written.

    Args:
        output: the result folder; it need not exist.
        landcover: whether the run writes class maps.
        inputs: files that the run reads.

    Raises:
        OutputError: a file was made by no run, or is an input.
    """
    check_claim(output, output_names(landcover=landcover), proven=_proven(output), inputs=inputs)


def claim_outputs(output: Path, names: Iterable[str]) -> None:
    """List names as files of a run, just before they are written.

    Raises:
        OutputError: a file of that name was put there while the run was under way.
    """
    claim(output, tuple(names), proven=_proven(output))


def remove_results(output: Path) -> tuple[str, ...]:
    """Delete the results of earlier runs, and nothing else; files that changed since are kept under another name.

    Returns:
        A sentence for each file that was kept.

    Raises:
        OutputError: a file cannot be renamed or deleted.
    """
    record = _record(output)
    sums, _ = listed_sums(output)
    if record is not None:
        sums, _ = merged_sums(sums, record)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    ours = {*(made_here(output) or ()), *_proven(output)}
    kept = []
    for name in reversed(ALL_OUTPUTS):
        path = output / name
        if name not in ours or not (path.is_file() or path.is_symlink()):
            continue
        with output_errors(path):
            if (reason := _reason_to_keep(path, sums.get(name), record)) is None:
                path.unlink()
                continue
            stem, dot, suffix = name.partition(".")
            aside = path.with_name(f"{stem}.kept-{stamp}{dot}{suffix}")
            path.replace(aside)
            for ending in ("-wal", "-shm"):
                if (log := path.with_name(f"{name}{ending}")).exists():
                    log.replace(path.with_name(f"{aside.name}{ending}"))
            kept.append(f"{path} {reason}; the old file is kept as {aside.name}")
    release(output, ALL_OUTPUTS)
    return tuple(kept)


def _reason_to_keep(path: Path, digest: str | None, record: RunRecord | None) -> str | None:
    """Return why a file must not be deleted, in words; None if it is what the run wrote.

    Args:
        path: the file.
        digest: SHA-256 of what the run wrote; None if it is not recorded.
        record: the record of the run, if it can be read.
    """
    if path.name == GEOPACKAGE and (edits := polygons_edited(path.parent)):
        return f"was edited since the run wrote it ({edits})"
    if digest is None or path.is_symlink() or file_sha256(path) == digest:
        return None
    if path.name == GEOPACKAGE and polygon_edits(path.parent) is not None:
        return None
    if path.name.endswith(SUFFIX) and record is not None and only_viewer_additions(path, record):
        return None
    return "changed since the run wrote it"


def _record(output: Path) -> RunRecord | None:
    try:
        return RunRecord.read(output)
    except InputError:
        return None


def _proven(output: Path) -> frozenset[str]:
    """Return the names that a record, or the state of an earlier version of wasnow, proves to be results of a run."""
    record = _record(output)
    if record is not None:
        return frozenset((*(each.name for each in record.outputs), ITEM, SUMS, RECORD_NAME))
    # Versions before the list of files was kept: whoever published results there had begun a run.
    if made_here(output) is None and (output / WORKSPACE / PLAN).is_file():
        return frozenset(ALL_OUTPUTS)
    return frozenset()
