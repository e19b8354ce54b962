"""The exceptions that wasnow raises on purpose, and the exit code of each.

    WasnowError
    ├── UsageError            an option or argument is invalid                exit 2
    │   ├── InvalidOption       an option of a run has an invalid value
    │   ├── TilingError         tile, margin and stride do not fit together
    │   ├── UnknownModel        no model of that name
    │   └── VocabularyError     class words empty, repeated, or unknown to the model
    ├── InputError            an input file or folder is invalid              exit 3
    │   ├── RasterUnreadable    missing, truncated, damaged, or not a raster
    │   ├── RasterUnsuitable    readable, but complex, empty, without georeference, ...
    │   ├── BandsUnclear        the bands to use are ambiguous
    │   ├── CheckpointError     a checkpoint is missing, damaged, or of another format
    │   ├── PairsError          rows of a list of pairs are invalid (all of them listed)
    │   ├── DatasetError        a folder is not a dataset, or has faults (all of them listed)
    │   │   └── SingleDated       images with masks of one date; pairs can be made from them
    │   ├── UnknownLabels       a label file has values that its encoding does not define
    │   └── GridMismatch        the two rasters do not overlap
    ├── OutputError           the output folder cannot be written             exit 4
    │   ├── OutputLocked        another process is writing to it
    │   ├── ResumeRefused       it holds a run with other inputs or options
    │   └── DiskFull            no space left; finished work is kept
    ├── ResourceError         memory, network or workers are not available    exit 8
    │   ├── OutOfMemory         a batch does not fit; names the setting to lower
    │   ├── DownloadFailed      the network or a server does not deliver a file
    │   └── WorkersLost         workers or their scheduler are unreachable, incompatible, or lost
    ├── TrainingDiverged      the loss or a gradient is not finite            exit 9
    └── Interrupted           Ctrl-C or SIGTERM; the same command resumes     exit 130

Three outcomes are exit codes without an exception: a run with flagged parts (5, ``--keep-going``), faults found by
``wasnow verify`` (6), and a list of pairs of which some failed (7).
Each message is one line: what was found, what is required, what to do.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

EXIT_OK = 0
EXIT_BUG = 1
EXIT_USAGE = 2
EXIT_INPUT = 3
EXIT_OUTPUT = 4
EXIT_PARTIAL = 5
EXIT_UNSOUND = 6
EXIT_SOME_FAILED = 7
EXIT_RESOURCES = 8
EXIT_DIVERGED = 9
EXIT_INTERRUPTED = 130


_USER = re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]*://)[^/\s?#'\"]*@")
_QUERY = re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]*://[^\s?'\"<>]*|/vsi[a-z0-9_]+)\?[^\s'\"<>]*[^\s'\"<>:;,.)]")


def redacted(text: str) -> str:
    """Replace user, password and query of every address in a text by ``***``; queries can be signatures.

    Everything that is stored, printed or logged about an input goes through this function.
    """
    if "://" not in text and "/vsi" not in text:
        return text
    return _QUERY.sub(r"\1?***", _USER.sub(r"\1***@", text))


class WasnowError(Exception):
    """Base class of all exceptions that wasnow raises on purpose."""

    exit_code: ClassVar[int] = EXIT_BUG

    def __init__(self, *args: object) -> None:
        super().__init__(*(redacted(each) if isinstance(each, str) else each for each in args))

    def __reduce__(self) -> tuple[Any, ...]:
        # By default, pickle calls the class with the finished message, which some constructors do not accept.
        return _unpickle, (type(self), self.args, dict(self.__dict__))


def _unpickle(kind: type[WasnowError], args: tuple[Any, ...], attributes: dict[str, Any]) -> WasnowError:
    """Restore an exception that another process raised, without calling its constructor."""
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


class UsageError(WasnowError):
    """An option or argument is invalid."""

    exit_code = EXIT_USAGE


class InvalidOption(UsageError):
    """An option of a run has an invalid value, or options exclude each other.

    Names of options stand in braces in the text, ``{min_area} must be ...``, so that each interface shows them as its
    users write them: ``min_area`` in Python, ``--min-area`` on the command line.

    Attributes:
        text: the message with names in braces.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(self.written(lambda name: name))

    def written(self, spelling: Callable[[str], str]) -> str:
        """Return the message with the names of options as an interface spells them."""
        return re.sub(r"\{([a-z_]+)\}", lambda found: spelling(found[1]), self.text)


class TilingError(UsageError):
    """Tile size, margin and model stride do not fit together."""


class UnknownModel(UsageError):
    """No model of that name."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"unknown model {name!r}; choose one of {', '.join(known)}{did_you_mean(name, known)}")


class VocabularyError(UsageError):
    """Class words that are empty, repeated, or unknown to the model."""


class InputError(WasnowError):
    """An input file or folder is invalid."""

    exit_code = EXIT_INPUT


class RasterUnreadable(InputError):
    """A raster is missing, truncated, damaged, or not a raster.

    Attributes:
        path: of the raster.
        reason: what is wrong with it.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str, advice: str = "") -> None:
        self.path = os.fspath(path)
        self.reason = reason
        super().__init__(f"{self.path}: {reason}" + (f". {advice}" if advice else ""))


class RasterUnsuitable(RasterUnreadable):
    """A raster can be read but not used: complex values, no bands, no georeference."""


class BandsUnclear(InputError):
    """The bands of a raster to use are ambiguous or do not exist."""


class CheckpointError(InputError):
    """A checkpoint is missing, damaged, or of a format that this version does not read.

    Attributes:
        path: of the checkpoint.
        reason: what is wrong with it.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str, advice: str = "") -> None:
        self.path = os.fspath(path)
        self.reason = reason
        super().__init__(f"{self.path}: {reason}" + (f"; {advice}" if advice else ""))


class PairsError(InputError):
    """Rows of a list of pairs are invalid; no pair was processed.

    Attributes:
        faults: one text per invalid row.
    """

    SHOWN: ClassVar[int] = 10

    def __init__(self, path: str | os.PathLike[str], faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        more = f"; and {len(faults) - self.SHOWN} more" if len(faults) > self.SHOWN else ""
        super().__init__(f"{os.fspath(path)}: {'; '.join(faults[: self.SHOWN])}{more}")


class DatasetError(InputError):
    """A folder is not a dataset, or a dataset with faults.

    Attributes:
        faults: all faults; empty if the layout was not recognised.
    """

    def __init__(self, message: str, faults: Sequence[object] = ()) -> None:
        self.faults = tuple(faults)
        super().__init__(message)


class SingleDated(DatasetError):
    """A folder of images with masks of one date, not a dataset of pairs; pairs can be made from it."""


class UnknownLabels(InputError):
    """A label file has values that its encoding does not define."""

    def __init__(self, path: str | os.PathLike[str], values: Mapping[str, int], encoding: str) -> None:
        self.path = path
        self.values = dict(values)
        shown = ", ".join(f"{value} in {count} px" for value, count in list(values.items())[:4])
        more = f" and {len(values) - 4} more" if len(values) > 4 else ""
        kind = "colours" if any("," in value for value in values) else "values"
        super().__init__(
            f"{os.fspath(path)}: unknown label {kind} {shown}{more}, which {encoding} does not define; "
            "correct the file, choose another --encoding, or describe the values in a dataset.yaml"
        )


class GridMismatch(InputError):
    """The two rasters do not overlap, or have different shapes and no CRS."""


class OutputError(WasnowError):
    """The output folder cannot be written."""

    exit_code = EXIT_OUTPUT


class OutputLocked(OutputError):
    """Another process is writing to this output folder."""


class ResumeRefused(OutputError):
    """The output folder holds a run with other inputs, options or model.

    Attributes:
        differences: one text per difference.
    """

    def __init__(self, folder: str | os.PathLike[str], differences: Sequence[str]) -> None:
        self.differences = tuple(differences)
        super().__init__(
            f"{os.fspath(folder)} holds another run: {'; '.join(differences)}. "
            "Repeat that command to resume it, choose another output folder, or pass --overwrite."
        )


class DiskFull(OutputError):
    """No space left on the disk; finished work is kept."""


class ResourceError(WasnowError):
    """Memory, network or workers are not available; the same command can succeed elsewhere or later."""

    exit_code = EXIT_RESOURCES


class OutOfMemory(ResourceError):
    """A batch does not fit into memory with these settings."""


class DownloadFailed(ResourceError):
    """The network or a server does not deliver a file."""


class WorkersLost(ResourceError):
    """Workers or their scheduler are unreachable, incompatible, or lost; the same command resumes the run."""


class TrainingDiverged(WasnowError):
    """The loss or a gradient is not finite; the last good state is kept."""

    exit_code = EXIT_DIVERGED


class Interrupted(WasnowError):
    """The run was interrupted; finished work is kept."""

    exit_code = EXIT_INTERRUPTED


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Return ``; did you mean 'x'?`` for the nearest known word, or an empty string if none is near."""
    import difflib

    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""
