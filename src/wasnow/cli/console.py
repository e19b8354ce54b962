"""Shared by all verbs: errors in one line, exit codes, progress, quiet and JSON output."""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import typer

from wasnow._system import ignore_foreign_data_paths, passive_thread_waiting, tolerate_unencodable_output
from wasnow.errors import EXIT_BUG, EXIT_INTERRUPTED, InvalidOption, WasnowError, redacted

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

P = ParamSpec("P")
R = TypeVar("R")

DEBUG = typer.Option(False, "--debug", help="Show the traceback of an error.", rich_help_panel="Output")
QUIET = typer.Option(False, "--quiet", "-q", help="Print errors only.", rich_help_panel="Output")
JSON = typer.Option(False, "--json", help="Print one JSON object on standard output.", rich_help_panel="Output")

PHASES = {
    "checksums": "checksums",
    "survey": "survey",
    "detect": "detecting",
    "results": "writing results",
    "blocks": "decoding",
    "inputs": "checking inputs",
}
"""Phases of a run as the progress display names them; other phases are shown under their own names."""

LOG_INTERVAL_S = 10.0
"""Time between two progress lines where standard error is not a terminal."""


def print_version(requested: bool) -> None:
    """Print the version and exit: the callback of ``--version``."""
    if requested:
        from wasnow import __version__

        typer.echo(f"wasnow {__version__}")
        raise typer.Exit


def verb(function: Callable[P, R]) -> Callable[P, R]:
    """Report errors of a verb in one line and with their exit code; with ``--debug`` show the traceback."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        debug = bool(kwargs.get("debug"))
        try:
            return function(*args, **kwargs)
        except WasnowError as error:
            if debug:
                raise
            fail(_message(error))
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            fail("interrupted")
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except (typer.Exit, typer.Abort):
            raise
        except BrokenPipeError:
            # The reader of the pipe has ended (wasnow info | head); that is not an error.
            sys.stderr.close()
            raise typer.Exit(0) from None
        except Exception as error:
            if debug:
                raise
            fail(f"this is a bug in wasnow: {type(error).__name__}: {error}; run again with --debug and report it")
            raise typer.Exit(EXIT_BUG) from None

    return wrapped


def _message(error: WasnowError) -> str:
    if isinstance(error, InvalidOption):
        from wasnow.cli.options import flag_name

        return error.written(flag_name)
    return str(error)


def prepare_process() -> None:
    """Set up the process of a command, before heavy packages are imported."""
    tolerate_unencodable_output()
    passive_thread_waiting()
    if ignored := ignore_foreign_data_paths():
        warn(f"ignoring data of another GDAL or PROJ installation, set in the environment by {' and '.join(ignored)}")


def fail(message: str) -> None:
    """Print an error in one line on standard error."""
    typer.secho("wasnow: ", fg=typer.colors.RED, bold=True, nl=False, err=True)
    typer.echo(" ".join(redacted(message).split()), err=True)


def warn(message: str) -> None:
    """Print a warning in one line on standard error."""
    typer.secho("warning: ", fg=typer.colors.YELLOW, nl=False, err=True)
    typer.echo(" ".join(redacted(message).split()), err=True)


def print_json(value: Any) -> None:
    """Print a value as JSON on standard output."""
    # Other encodings than UTF-8 lack characters, and JSON can escape all of them.
    escape = "utf" not in (getattr(sys.stdout, "encoding", None) or "utf-8").lower()
    typer.echo(json.dumps(value, indent=1, ensure_ascii=escape))


@contextmanager
def progress(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Yield a progress callback: bars on a terminal, occasional lines elsewhere, nothing when quiet."""
    if quiet:
        yield lambda phase, done, total: None
    elif not sys.stderr.isatty():
        yield _Lines()
    else:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        with Progress(
            TextColumn("{task.description:>22}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=Console(stderr=True),
        ) as bars:
            yield _Bars(bars)


class _Bars:
    """Phases as rich progress bars."""

    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}
        self._done: dict[str, int] = {}

    def __call__(self, phase: str, done: int, total: int) -> None:
        if phase not in self._tasks:
            self._tasks[phase] = self._bars.add_task(PHASES.get(phase, phase), total=total)
        elif done < self._done[phase]:
            # The same phase of another pair.
            self._bars.reset(self._tasks[phase], total=total)
        self._done[phase] = done
        self._bars.update(self._tasks[phase], completed=done, total=total)


class _Lines:
    """Phases as plain lines for logs, at most one every `LOG_INTERVAL_S` seconds."""

    def __init__(self) -> None:
        self._phase = ""
        self._printed = 0.0
        self._start = 0.0
        self._first = 0

    def __call__(self, phase: str, done: int, total: int) -> None:
        now = time.monotonic()
        if phase != self._phase:
            self._phase, self._start, self._printed, self._first = phase, now, now, done
            typer.echo(f"{PHASES.get(phase, phase)} ...", err=True)
        elif now - self._printed >= LOG_INTERVAL_S and done > self._first:
            self._printed = now
            remaining = (total - done) * (now - self._start) / (done - self._first)
            typer.echo(f"{PHASES.get(phase, phase)} {done}/{total}, {duration(remaining)} left", err=True)


def duration(seconds: float) -> str:
    """Return ``2 h 05 min``, ``3 min 20 s`` or ``12 s``."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"
