"""Which files of an output folder were made by runs of wasnow, so that no other file is replaced or deleted.

    FOLDER/.wasnow/files.json   names of the files that a run here wrote, or was about to write

A command that writes to a folder first calls `claim` with the names that it will write. Files of these names that exist
already must be listed, or be proven by the caller to come from an earlier version of wasnow.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from wasnow.errors import OutputError
from wasnow.storage.atomic import output_errors, write_atomically

STATE_FOLDER = ".wasnow"
FILES = "files.json"


def made_here(folder: Path) -> frozenset[str] | None:
    """Return the names of the files that runs made in a folder; None if the folder has no such list."""
    try:
        names = json.loads((folder / STATE_FOLDER / FILES).read_text(encoding="utf-8"))["files"]
        return frozenset(str(name) for name in names)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def claim(
    folder: Path,
    names: Sequence[str],
    *,
    proven: Collection[str] = (),
    inputs: Iterable[str | os.PathLike[str]] = (),
) -> None:
    """Refuse to write over files that no run made; then list the names as files of runs in this folder.

    Args:
        folder: the output folder; created if missing.
        names: files and folders that will be written, relative to the folder.
        proven: names that are known to be made by a run although they are not listed.
        inputs: files that the command reads.

    Raises:
        OutputError: a name exists and no run made it, or it is an input.
    """
    check_claim(folder, names, proven=proven, inputs=inputs)
    known = made_here(folder)
    listed = frozenset((*(known or ()), *proven, *names))
    if listed == known:
        return
    with output_errors(folder):
        (folder / STATE_FOLDER).mkdir(parents=True, exist_ok=True)
    write_atomically(folder / STATE_FOLDER / FILES, json.dumps({"files": sorted(listed)}, indent=1).encode())


def release(folder: Path, names: Iterable[str]) -> None:
    """Remove names from the list, after their files were deleted or renamed."""
    listed = made_here(folder)
    if listed is not None:
        left = sorted(listed - set(names))
        write_atomically(folder / STATE_FOLDER / FILES, json.dumps({"files": left}, indent=1).encode())


def check_claim(
    folder: Path,
    names: Sequence[str],
    *,
    proven: Collection[str] = (),
    inputs: Iterable[str | os.PathLike[str]] = (),
) -> None:
    """Do the checks of `claim` without writing anything.

    Args:
        folder: the output folder.
        names: files and folders that will be written.
        proven: names that are known to be made by a run although they are not listed.
        inputs: files that the command reads.

    Raises:
        OutputError: a name exists and no run made it, or it is an input.
    """
    existing = [name for name in names if os.path.lexists(folder / name)]
    for path in inputs:
        for name in existing:
            if _same_file(folder / name, path):
                raise OutputError(f"{folder / name} is the input {os.fspath(path)}; choose another output folder")
    allowed = {*(made_here(folder) or ()), *proven}
    foreign = [name for name in existing if name not in allowed]
    if foreign:
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        raise OutputError(
            f"{folder} contains {', '.join(foreign[:3])}{more}, which no run of wasnow made there; choose another "
            "output folder, or move these files"
        )


def is_record(path: Path, *keys: str) -> bool:
    """Whether a JSON file is an object with these keys: the record of a run, which proves its folder to be ours."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and all(key in found for key in keys)


def _same_file(path: Path, other: str | os.PathLike[str]) -> bool:
    try:
        return path.samefile(other)
    except (OSError, ValueError):
        return False
