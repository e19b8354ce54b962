"""The result of `wasnow verify`: one finding for each fault."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

State = Literal["missing", "changed", "not listed", "not valid", "unfinished", "failed"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault of one file.

    Attributes:
        file: its name within the folder.
        state: ``missing``; ``changed`` since the run wrote it; ``not listed``: the run did not write it, but programs
            read it; ``not valid``; ``unfinished``: a run that can be resumed; ``failed``: a pair of a list.
        detail: what was found, what is required, what to do.
    """

    file: str
    state: State
    detail: str

    def __str__(self) -> str:
        return f"{self.file}: {self.state}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result for one result folder, or for a folder of many pairs.

    Attributes:
        folder: the folder.
        right: names of the files that are unchanged and valid.
        findings: the faults.
        notes: remarks that are not faults.
        pairs: the verdicts of the result folders of a folder of many pairs.
    """

    folder: Path
    right: tuple[str, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()
    pairs: tuple[Verdict, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether there are no faults, also not in the result folders of pairs."""
        return not self.findings and all(each.sound for each in self.pairs)

    def as_facts(self) -> dict[str, Any]:
        """Return the same as JSON values."""
        return {
            "folder": str(self.folder),
            "sound": self.sound,
            "right": list(self.right),
            "findings": [{"file": each.file, "state": each.state, "detail": each.detail} for each in self.findings],
            "notes": list(self.notes),
            "pairs": [each.as_facts() for each in self.pairs],
        }
