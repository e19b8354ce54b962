"""What all verbs share: errors as one line, exit codes, progress, quiet and JSON."""

from __future__ import annotations

import functools
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import typer

from wasnow.errors import EXIT_BUG, EXIT_INTERRUPTED, WasnowError

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

P = ParamSpec("P")
R = TypeVar("R")

DEBUG = typer.Option(False, "--debug", help="Show the traceback of an error.", rich_help_panel="Output")
QUIET = typer.Option(False, "--quiet", "-q", help="Print errors only.", rich_help_panel="Output")
JSON = typer.Option(False, "--json", help="Print one JSON object on standard output.", rich_help_panel="Output")

PHASES = {
    "checksums": "checking files",
    "survey": "looking over the pair",
    "detect": "detecting",
    "results": "writing results",
    "blocks": "decoding",
    "inputs": "checking inputs",
}


def print_version(wanted: bool) -> None:
    """``wasnow --version``."""
    if wanted:
        from wasnow import __version__

        typer.echo(f"wasnow {__version__}")
        raise typer.Exit


def verb(function: Callable[P, R]) -> Callable[P, R]:
    """Let a verb fail in one line and with its exit code; a traceback only with ``--debug``."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        debug = bool(kwargs.get("debug"))
        try:
            return function(*args, **kwargs)
        except WasnowError as error:
            if debug:
                raise
            fail(str(error))
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            fail("interrupted")
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except (typer.Exit, typer.Abort):
            raise
        except BrokenPipeError:
            # The reader of a pipe left (wasnow info | head): no news.
            sys.stderr.close()
            raise typer.Exit(0) from None
        except Exception as error:
            if debug:
                raise
            fail(f"this is a bug in wasnow: {type(error).__name__}: {error}; run again with --debug and report it")
            raise typer.Exit(EXIT_BUG) from None

    return wrapped


def fail(message: str) -> None:
    """One line on standard error."""
    typer.secho("wasnow: ", fg=typer.colors.RED, bold=True, nl=False, err=True)
    typer.echo(" ".join(message.split()), err=True)


def warn(message: str) -> None:
    """One line on standard error."""
    typer.secho("warning: ", fg=typer.colors.YELLOW, nl=False, err=True)
    typer.echo(" ".join(message.split()), err=True)


def print_json(value: Any) -> None:
    """Machine-readable output on standard output."""
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False))


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C: batch systems send it before they kill."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:
        # Not in the main thread: whoever embeds us owns the signals.
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def progress(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar with rate and time left on a terminal, a line now and then elsewhere, nothing when quiet."""
    if quiet:
        yield lambda phase, done, total: None
    elif not sys.stderr.isatty():
        yield _Lines()
    else:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        console = Console(stderr=True)
        with Progress(
            TextColumn("{task.description:>22}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:>10}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
        ) as bars:
            yield _Bars(bars)


class _Bars:
    """Phases as rich progress bars."""

    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars
        self._tasks: dict[str, tuple[TaskID, float, int]] = {}

    def __call__(self, phase: str, done: int, total: int) -> None:
        if phase not in self._tasks:
            task = self._bars.add_task(PHASES.get(phase, phase), total=total, rate="", left="")
            self._tasks[phase] = (task, time.monotonic(), done)
        task, since, first = self._tasks[phase]
        if done < first or done == 0:
            # Begun anew: the same phase of another pair.
            since, first = time.monotonic(), done
            self._tasks[phase] = task, since, first
        seconds, steps = time.monotonic() - since, done - first
        rate = left = ""
        if phase == "detect" and steps > 0 and seconds > 0:
            rate = f"{steps / seconds:.1f}/s"
            left = f"{duration((total - done) * seconds / steps)} left" if done < total else ""
        self._bars.update(task, completed=done, total=total, rate=rate, left=left)


class _Lines:
    """Phases as plain lines, at most one every ten seconds, for logs."""

    def __init__(self) -> None:
        self._phase = ""
        self._said = 0.0
        self._since = 0.0
        self._first = 0

    def __call__(self, phase: str, done: int, total: int) -> None:
        now = time.monotonic()
        if phase != self._phase:
            self._phase, self._since, self._said, self._first = phase, now, now, done
            typer.echo(f"{PHASES.get(phase, phase)} ...", err=True)
        elif now - self._said >= 10 and done > self._first:
            self._said = now
            left = (total - done) * (now - self._since) / (done - self._first)
            typer.echo(f"{PHASES.get(phase, phase)} {done}/{total}, {duration(left)} left", err=True)


def duration(seconds: float) -> str:
    """``2 h 05 min``, ``3 min 20 s``, ``12 s``."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"
