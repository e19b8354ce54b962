"""Stamps of finished pairs: a digest of file sizes and times that shows that nothing changed since the last run.

With an equal stamp a pair need not be opened again, which takes a hundred times as long: repeating a list of thousands
of finished pairs takes seconds. Any other stamp leads to the full check by `wasnow.pipeline.run`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

State = tuple[str, int, int]
"""Name, size in bytes, time of change in ns."""


class Stamps:
    """Computes stamps; lists each input folder once."""

    def __init__(self) -> None:
        self._folders: dict[Path, dict[str, list[State]]] = {}

    def of(
        self,
        before: str,
        after: str,
        result: Path,
        *,
        model: object,
        classes: str | Sequence[str] | None,
        options: Mapping[str, Any],
    ) -> str | None:
        """Return the stamp of a pair; None if its inputs cannot be checked by size and time.

        Args:
            before: the earlier raster.
            after: the later raster.
            result: the result folder of the pair.
            model: name or path; other models have no stamp.
            classes: class words.
            options: of the pair.
        """
        if not isinstance(model, str) or options.get("allow_indirect"):
            return None
        inputs = [self._beside(Path(path)) for path in (before, after)]
        outputs = _states(result)
        if not all(inputs) or not outputs:
            return None
        workspace = [each for each in _states(result / ".wasnow") if each[0] == "plan.json"]
        facts = [before, after, *inputs, outputs, workspace, model, _model_states(model), classes, options]
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()

    def _beside(self, path: Path) -> list[State]:
        """The states of a raster and of its side files, which have the same stem; empty if it is not a local file."""
        if not path.is_file():
            return []
        folder = path.parent
        if folder not in self._folders:
            by_stem: dict[str, list[State]] = {}
            for state in _states(folder):
                by_stem.setdefault(state[0].split(".")[0], []).append(state)
            self._folders[folder] = by_stem
        return self._folders[folder].get(path.name.split(".")[0], [])


def _model_states(model: str) -> list[State]:
    path = Path(model)
    return _states(path) if path.is_dir() else _states(path.parent) if path.is_file() else []


def _states(folder: Path) -> list[State]:
    states = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_file():
                status = entry.stat()
                states.append((entry.name, status.st_size, status.st_mtime_ns))
    return sorted(states)
