"""``wasnow train``: train a recipe on a dataset folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wasnow.cli.console import DEBUG, JSON, QUIET, print_json, verb, warn

if TYPE_CHECKING:
    from wasnow.data.samples import Samples
    from wasnow.training.logging import TrainingLogger

EXAMPLES = (
    "[bold]Examples[/bold]\n\n"
    "  wasnow train sscd-l --data SECOND/ -o runs/a\n\n"
    "  wasnow train sscd-l-small --data SECOND/ -o runs/b --set batch_size=4 --set crop=128 --set epochs=20\n\n"
    "  wasnow train semantic-cd-second --data SECOND/ -o runs/c --set model.prompter=none\n\n"
    "  wasnow train sam-cd-levir --data LEVIR-CD/ --priors priors/ -o runs/d   # see wasnow priors\n\n"
    "  wasnow train my-recipe.yaml   # with data and output in the file\n\n"
    "Run the same command with --resume to continue after an interruption. The report is runs/a/report.html."
)


@verb
def train(
    recipe: Annotated[str, typer.Argument(help="A name from wasnow recipes, or a YAML file.", show_default=False)],
    data: Annotated[
        str | None, typer.Option("--data", "-d", help="Dataset folder (see wasnow data check).", show_default=False)
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Run folder; default: runs/NAME.", show_default=False)
    ] = None,
    priors: Annotated[
        str | None,
        typer.Option(
            help="For a model with prior masks: a folder of wasnow priors, or labels or none for comparison.",
            show_default=False,
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="A setting, such as batch_size=4, optimizer.lr=0.01 or model.OPTION=...", show_default=False
        ),
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="Class encoding, if it cannot be inferred from the values.", show_default=False)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the folder, if any.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete the run in the folder, if any.")] = False,
    quiet: bool = QUIET,
    as_json: bool = JSON,
    debug: bool = DEBUG,
) -> None:
    """Train a network on a dataset. The best weights are selected on the validation split, never on the test split."""
    from wasnow.errors import UsageError
    from wasnow.training.recipes import recipe as find

    config = find(recipe, settings or [])
    folder = data or config.data
    if folder is None:
        raise UsageError(f"no dataset for {config.name}; pass its folder with --data")
    if resume and overwrite:
        raise UsageError("--resume continues a run and --overwrite deletes it; use one of them")
    from wasnow.data.dataset import open_dataset

    dataset = open_dataset(folder, encoding=encoding or config.encoding, tile=config.tile, split=config.split)
    first = os.environ.get("LOCAL_RANK", "0") == "0"  # each device runs this command; only the first prints
    for note in dataset.warnings if first else ():
        warn(note)
    from wasnow.training.trainer import train as run

    splits: dict[str, Samples] = dict(dataset.splits)
    if config.dense:
        from wasnow.data.land_cover import with_land_cover

        # Validation pairs are scored, so their labels stay unchanged.
        splits |= {name: with_land_cover(one) for name, one in dataset.splits.items() if name in ("train", "all")}
    masks = None
    if source := priors or config.priors:
        from wasnow.priors.samples import pair_masks, recordable

        masks = pair_masks(source, dataset)
        config = config.model_copy(update={"priors": recordable(source)})
    trained = run(
        config,
        splits,
        output or Path(config.output or f"runs/{config.name}"),
        resume=resume,
        overwrite=overwrite,
        priors=masks,
        data_name=Path(folder).resolve().name,
        logger=_logger(quiet),
    )
    if not first:
        return
    if as_json:
        print_json(
            {
                "folder": str(trained.folder),
                "checkpoint": str(trained.checkpoint),
                "select": trained.select,
                "score": trained.score,
                "step": trained.step,
            }
        )
    elif not quiet:
        chosen = "" if trained.score is None else f" ({trained.select} {100 * trained.score:.2f}, step {trained.step})"
        typer.echo(f"{trained.checkpoint}{chosen}")
        typer.echo(f"next: wasnow evaluate {trained.folder} --data {folder}")


def _logger(quiet: bool) -> TrainingLogger:
    from wasnow.training.logging import BarLogger, LineLogger, NullLogger

    if quiet:
        return NullLogger()
    return BarLogger() if sys.stderr.isatty() else LineLogger()
