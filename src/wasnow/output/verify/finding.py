"""What `wasnow verify` says: one line for each thing that is not as it should be."""

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
        state: ``missing``; ``changed`` since the run wrote it; ``not listed`` among the files of the run, and read by
            programs all the same; ``not valid``; ``unfinished``, a run that can go on; ``failed``, a pair of many.
        detail: what was found, what was wanted, what to do.
    """

    file: str
    state: State
    detail: str

    def __str__(self) -> str:
        return f"{self.file}: {self.state}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of one result folder, or of a folder of many pairs.

    Attributes:
        right: names of the files that are as the run wrote them, and valid.
        findings: what is not as it should be.
        notes: what a person may want to know; no fault.
        pairs: the verdicts of the result folders within, for a folder of many pairs.
    """

    folder: Path
    right: tuple[str, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()
    pairs: tuple[Verdict, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether everything is as it should be, in the folders within too."""
        return not self.findings and all(each.sound for each in self.pairs)

    def as_facts(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {
            "folder": str(self.folder),
            "sound": self.sound,
            "right": list(self.right),
            "findings": [{"file": each.file, "state": each.state, "detail": each.detail} for each in self.findings],
            "notes": list(self.notes),
            "pairs": [each.as_facts() for each in self.pairs],
        }
