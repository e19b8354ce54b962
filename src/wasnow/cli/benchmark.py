"""``wasnow benchmark``: compare methods on one dataset."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wasnow._system import sigterm_as_interrupt
from wasnow.cli.console import DEBUG, JSON, QUIET, print_json, verb, warn
from wasnow.errors import EXIT_PARTIAL

if TYPE_CHECKING:
    from wasnow.benchmark.pairs import Pairs
    from wasnow.benchmark.run import BenchmarkResult, PlannedTrial

EXAMPLES = (
    "[bold]Examples[/bold]\n\n"
    "  wasnow benchmark --data SECOND/ --models all --budget published -o table/\n\n"
    "  wasnow benchmark --data PAIRS/ --models sscd-l,bisrnet,irmad --budget 2000 --seeds 0,1 -o table/\n\n"
    "  wasnow benchmark --data PAIRS/ --models all --budget 2000 --set crop=128 -o table/ --dry-run\n\n"
    "Run the same command again to continue after an interruption; finished runs are not repeated."
)


@verb
def benchmark(
    data: Annotated[str, typer.Option("--data", "-d", help="Dataset folder with labels.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the table and its runs.")] = Path("table"),
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--models",
            "-m",
            help="all (networks), or comma-separated names: models, recipes, recipe files, irmad, cva, NAME@shipped, "
            "checkpoints, run folders.",
            show_default="all",
        ),
    ] = None,
    budget: Annotated[
        str, typer.Option(help="published: the recipe of each method. A number: steps of one common recipe.")
    ] = "published",
    seeds: Annotated[str, typer.Option(help="Comma-separated seeds of every training.")] = "0",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting for every recipe, such as crop=128 or batch_size=4.", show_default=False),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Run only these rows; the table includes all finished rows.", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would run, and exit.")] = False,
    examples: Annotated[int, typer.Option(min=0, help="Number of test pairs to show.")] = 4,
    encoding: Annotated[
        str | None, typer.Option(help="Class encoding, if it cannot be inferred from the values.", show_default=False)
    ] = None,
    tile: Annotated[int | None, typer.Option(help="Cut images into tiles of this size.", show_default=False)] = None,
    priors: Annotated[
        str | None,
        typer.Option(help="For models with prior masks: a prior folder, labels or none.", show_default="none"),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete the runs in the folder, if any.")] = False,
    quiet: bool = QUIET,
    as_json: bool = JSON,
    debug: bool = DEBUG,
) -> None:
    """Train methods that are not finished, score all on the same test pairs, and write one table."""
    from wasnow.benchmark.plan import make_plan

    plan = make_plan(_listed(models or ["all"]), budget, seeds=_numbers(seeds), settings=settings or (), device=device)
    rows = _listed(only or [])
    list(plan.trials(rows))  # check names before opening data
    from wasnow.benchmark.pairs import open_pairs
    from wasnow.benchmark.run import Benchmark

    pairs = open_pairs(Path(data), encoding=encoding, tile=tile, priors=priors)
    for note in pairs.notes:
        warn(note)
    comparison = Benchmark(
        plan,
        pairs,
        output,
        device=device,
        examples=examples,
        command=shlex.join(["wasnow", *sys.argv[1:]]),
        log=None if quiet or as_json else lambda line: typer.echo(line, err=True),
    )
    if dry_run:
        if not overwrite:
            comparison.check()
        _preview(comparison.tasks(rows), pairs, as_json=as_json)
        return
    with sigterm_as_interrupt():
        outcome = comparison.run(rows, overwrite=overwrite)
    if as_json:
        _print_outcome(outcome)
    elif not quiet:
        _show(outcome)
    if outcome.failed:
        warn(f"{len(outcome.failed)} failed: {'; '.join(f'{name}: {reason}' for name, reason in outcome.failed)}")
        raise typer.Exit(EXIT_PARTIAL)


def _listed(options: Sequence[str]) -> list[str]:
    """Return ``["a,b", "c"]`` as ``["a", "b", "c"]``."""
    return [name.strip() for option in options for name in option.split(",") if name.strip()]


def _numbers(text: str) -> list[int]:
    from wasnow.errors import UsageError

    try:
        return [int(one) for one in text.split(",")]
    except ValueError:
        raise UsageError(f"--seeds {text} is not a list of integers; write --seeds 0,1") from None


def _preview(tasks: Sequence[PlannedTrial], pairs: Pairs, *, as_json: bool) -> None:
    if as_json:
        listed = [
            {
                "row": task.trial.row.name,
                "seed": task.trial.seed,
                "recipe": None if task.trial.config is None else task.trial.config.name,
                "steps": list(task.steps),
                "state": task.state,
                "notes": list(task.trial.row.notes),
            }
            for task in tasks
        ]
        print_json({"splits": pairs.splits, "scored_on": pairs.scored_on, "runs": listed})
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    counts = ", ".join(f"{name} {count}" for name, count in pairs.splits.items())
    console.print(f"{pairs.name}: {counts} pairs; scored on {pairs.scored_on}", markup=False, highlight=False)
    table = Table(box=None, pad_edge=False)
    for column in ("row", "recipe", "steps", "state", "notes"):
        table.add_column(column, overflow="fold")
    for task in tasks:
        config = task.trial.config
        steps = " + ".join(map(str, task.steps)) or "none"
        notes = "; ".join(task.trial.row.notes)
        table.add_row(*map(Text, (task.trial.name, config.name if config else "none", steps, task.state, notes)))
    console.print(table)


def _print_outcome(outcome: BenchmarkResult) -> None:
    print_json(
        {
            "page": str(outcome.page),
            "failed": [{"run": name, "reason": reason} for name, reason in outcome.failed],
            "rows": [
                {
                    "name": line.name,
                    "status": line.status,
                    "values": {key: one.mean for key, one in line.values.items()},
                }
                for line in outcome.table.lines
            ],
        }
    )


def _show(outcome: BenchmarkResult) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from wasnow.benchmark.table import COLUMNS, caption, formatted

    heads = {
        "binary.f1": "F1",
        "binary.miou": "mIoU",
        "stacked.fscd": "Fscd",
        "stacked.sek": "SeK",
        "from_to.fscd": "Fscd from-to",
        "from_to.sek": "SeK from-to",
        "pairs_per_s": "pairs/s",
    }
    columns = [next(one for one in COLUMNS if one.key == key) for key in heads]
    table = Table(box=None, pad_edge=False, caption=Text(caption(outcome.table)), caption_justify="left")
    table.add_column("method", overflow="fold")
    for head in heads.values():
        table.add_column(head, justify="right")
    for line in outcome.table.lines:
        cells = [formatted(column, line.values.get(column.key)) for column in columns]
        table.add_row(Text(line.name), *(cells if line.status == "finished" else [line.status]))
    Console().print(table)
    typer.echo(str(outcome.page))
