"""Every error that wasnow raises on purpose.

    WasnowError
    ├── UsageError            the request cannot be meant as written          exit 2
    │   ├── TilingError         tile, margin and stride do not fit together
    │   ├── UnknownModel        no model of that name
    │   ├── VocabularyError     class words empty, repeated, or not known to the model
    │   ├── TrainingDiverged    the loss or a gradient is no longer a number
    │   └── OutOfMemory         a batch does not fit; says which setting to lower
    ├── InputError            a file is not what it must be                   exit 3
    │   ├── RasterUnreadable    missing, truncated, damaged, or not a raster
    │   ├── RasterUnsuitable    readable, but complex, empty, without georeference, ...
    │   ├── BandsUnclear        which bands to use cannot be told
    │   ├── CheckpointError     a checkpoint is missing, damaged, or of another format
    │   ├── PairsError          a list of pairs has rows that cannot be carried out (all of them listed)
    │   ├── DatasetError        a folder is no dataset, or one with faults (all of them listed)
    │   │   └── SingleDated       images with masks of one date: pairs can be made of them
    │   ├── UnknownLabels       a label file holds values that its encoding does not have
    │   ├── GridMismatch        the two rasters share no ground
    │   ├── DownloadFailed      the network or a server does not give a file
    │   └── WorkersLost         workers or their scheduler cannot be reached, do not fit, or went away
    ├── OutputError           the result folder cannot be written             exit 4
    │   ├── OutputLocked        another run is writing there
    │   ├── ResumeRefused       the folder holds a run with other inputs or options
    │   └── DiskFull            no room left; what is finished stays
    └── Interrupted           Ctrl-C or SIGTERM; run the command again        exit 130

A run that finishes with flagged tiles (``--keep-going``) is no error: it returns, and the command line exits with 5.
Neither is a folder that ``wasnow verify`` finds faults in (6), nor a list of pairs of which some failed (7).
Each message is one line: what was found, what was wanted, what to do.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

EXIT_OK = 0
EXIT_BUG = 1
EXIT_USAGE = 2
EXIT_INPUT = 3
EXIT_OUTPUT = 4
EXIT_PARTIAL = 5
EXIT_UNSOUND = 6
EXIT_SOME_FAILED = 7
EXIT_INTERRUPTED = 130


class WasnowError(Exception):
    """The root: catch this to catch everything that wasnow raises on purpose."""

    exit_code: ClassVar[int] = EXIT_BUG

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickle would call the class with the finished message, and some take the facts that it is made of.
        return _as_it_was, (type(self), self.args, dict(self.__dict__))


def _as_it_was(kind: type[WasnowError], args: tuple[Any, ...], facts: dict[str, Any]) -> WasnowError:
    """An error that came from another process."""
    error = kind.__new__(kind, *args)
    error.__dict__.update(facts)
    return error


class UsageError(WasnowError):
    """The request cannot be meant as it is written."""

    exit_code = EXIT_USAGE


class TilingError(UsageError):
    """Tile size, margin and model stride do not fit together."""


class UnknownModel(UsageError):
    """No model of that name."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"no model is called {name!r}; known are {', '.join(known)}{did_you_mean(name, known)}")


class VocabularyError(UsageError):
    """Class words that are empty, repeated, or unknown to the model."""


class TrainingDiverged(UsageError):
    """The loss or a gradient is no longer a number; the last good state is kept."""


class OutOfMemory(UsageError):
    """A batch does not fit into memory with these settings."""


class InputError(WasnowError):
    """A file is not what it must be."""

    exit_code = EXIT_INPUT


class RasterUnreadable(InputError):
    """A raster is missing, truncated, damaged, or no raster at all."""

    def __init__(self, path: str | os.PathLike[str], reason: str, advice: str = "") -> None:
        self.path = os.fspath(path)
        self.reason = reason
        super().__init__(f"{self.path}: {reason}" + (f". {advice}" if advice else ""))


class RasterUnsuitable(RasterUnreadable):
    """A raster can be read, but not used: complex values, no bands, no georeference."""


class BandsUnclear(InputError):
    """Which bands of a raster to use cannot be told."""


class CheckpointError(InputError):
    """A checkpoint is missing, damaged, or of a format that this version does not read."""

    def __init__(self, path: str | os.PathLike[str], reason: str, advice: str = "") -> None:
        self.path = os.fspath(path)
        self.reason = reason
        super().__init__(f"{self.path}: {reason}" + (f"; {advice}" if advice else ""))


class PairsError(InputError):
    """A list of pairs has rows that cannot be carried out as written; nothing was done.

    Attributes:
        faults: all of them, each with its row.
    """

    SHOWN: ClassVar[int] = 10

    def __init__(self, path: str | os.PathLike[str], faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        more = f"; and {len(faults) - self.SHOWN} more" if len(faults) > self.SHOWN else ""
        super().__init__(f"{os.fspath(path)}: {'; '.join(faults[: self.SHOWN])}{more}")


class DatasetError(InputError):
    """A folder is no dataset, or one with faults.

    Attributes:
        faults: all that were found; empty where the folder is not understood at all.
    """

    def __init__(self, message: str, faults: Sequence[object] = ()) -> None:
        self.faults = tuple(faults)
        super().__init__(message)


class SingleDated(DatasetError):
    """A folder of images with masks of one date: no dataset of pairs, but pairs can be made of it."""


class UnknownLabels(InputError):
    """A label file holds values that its encoding does not know."""

    def __init__(self, path: str | os.PathLike[str], values: Mapping[str, int], encoding: str) -> None:
        self.path = path
        self.values = dict(values)
        shown = ", ".join(f"{value} in {count} px" for value, count in list(values.items())[:4])
        more = f" and {len(values) - 4} more" if len(values) > 4 else ""
        kind = "colours" if any("," in value for value in values) else "values"
        super().__init__(
            f"{os.fspath(path)}: unknown label {kind} {shown}{more}: {encoding} does not have them; "
            "correct the file, choose another --encoding, or describe the values in a dataset.yaml"
        )


class GridMismatch(InputError):
    """The two rasters share no ground."""


class DownloadFailed(InputError):
    """The network, or the server at its end, does not give a file."""


class WorkersLost(InputError):
    """Workers, or their scheduler, cannot be reached, do not fit, or went away; the run can go on later."""


class OutputError(WasnowError):
    """The result folder cannot be written."""

    exit_code = EXIT_OUTPUT


class OutputLocked(OutputError):
    """Another run is writing to this result folder."""


class ResumeRefused(OutputError):
    """The result folder holds a run with other inputs, options or model."""

    def __init__(self, folder: str | os.PathLike[str], differences: Sequence[str]) -> None:
        self.differences = tuple(differences)
        super().__init__(
            f"{os.fspath(folder)} holds another run: {'; '.join(differences)}. "
            "Repeat that command to resume it, choose another output folder, or pass --overwrite."
        )


class DiskFull(OutputError):
    """No room left on the disk; finished blocks are kept."""


class Interrupted(WasnowError):
    """The run was interrupted; everything finished so far is kept."""

    exit_code = EXIT_INTERRUPTED


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """``; did you mean 'x'?`` for the nearest known word, or nothing when none is near."""
    import difflib

    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""
