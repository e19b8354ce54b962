"""``wasnow data``: check and preview dataset folders, and generate pairs from images of one date."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wasnow._system import sigterm_as_interrupt
from wasnow.cli.console import DEBUG, JSON, QUIET, fail, print_json, progress, verb, warn
from wasnow.errors import EXIT_INPUT, SingleDated

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wasnow.data.examination import Examination
    from wasnow.data.faults import Fault
    from wasnow.data.mask_folder import MaskFolder

app = typer.Typer(
    no_args_is_help=True, help="Check and preview a dataset folder, or generate one from images of one date."
)

FOLDER = typer.Argument(help="A dataset folder, or a dataset.yaml that describes one.", show_default=False)
ENCODING = typer.Option(help="Encoding of the label values, such as e1, e2 or nonzero; see docs/datasets.md.")
SPLIT = typer.Option(help="Text file with the ids of the training folder that become val.")
TILE = typer.Option(help="Cut images into tiles of this side, pixels. Default: only very large images are cut.", min=16)

CHECK_EXAMPLES = (
    "[bold]Examples[/bold]\n\n"
    "  wasnow data check SECOND/\n\n"
    "  wasnow data check SECOND/ --encoding e2\n\n"
    "Prints 'ready', or lists all faults and exits with code 3."
)
PREVIEW_EXAMPLES = "[bold]Example[/bold]\n\n  wasnow data preview SECOND/ -o second.html"
REVIEW_EXAMPLES = (
    "[bold]Examples[/bold]\n\n"
    "  wasnow data from-review out/ -o dataset/\n\n"
    "  wasnow data from-review out/ -o dataset/ --outside-unchanged   # nothing was missed outside the polygons"
)
PAIRS_EXAMPLES = (
    "[bold]Examples[/bold]\n\n"
    "  wasnow data pairs landcover/ -o pairs/ --count 2000 --size 512\n\n"
    "  wasnow data pairs landcover/ -o pairs/ --hold-back Tile_7 --seed 1\n\n"
    "Writes the layout of SECOND with a dataset.yaml that describes the label values."
)

GET_EXAMPLES = (
    "[bold]Example[/bold]\n\n  wasnow data get second -o downloads/\n\n"
    "Unpack the archive, then run wasnow data check on the folder."
)


@app.command("check", epilog=CHECK_EXAMPLES)
@verb
def check(
    folder: Annotated[Path, FOLDER],
    encoding: Annotated[str | None, ENCODING] = None,
    split: Annotated[str | None, SPLIT] = None,
    tile: Annotated[int | None, TILE] = None,
    as_json: bool = JSON,
    quiet: bool = QUIET,
    debug: bool = DEBUG,
) -> None:
    """Report the layout and encoding of a dataset folder, and all of its faults, file by file."""
    from wasnow.data.dataset import open_dataset

    try:
        dataset = open_dataset(folder, encoding=encoding, split=split, tile=tile, strict=False)
    except SingleDated:
        _check_masks(folder, encoding, as_json=as_json, quiet=quiet)
        return
    with sigterm_as_interrupt(), progress(quiet or as_json) as report:
        found = dataset.examine(report)
    facts = dataset.describe()
    if as_json:
        print_json({"dataset": facts, **_examined(found)})
    else:
        if not quiet:
            _show(facts)
            _show_shares(found, dataset.vocabulary.words)
            for warning in found.warnings:
                warn(warning)
        _show_faults(found.faults)
    _finish(found.faults, silent=as_json or quiet, ready="ready")


@app.command("preview", epilog=PREVIEW_EXAMPLES)
@verb
def preview(
    folder: Annotated[Path, FOLDER],
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML file to write.")],
    pairs: Annotated[int, typer.Option(help="Number of pairs to show.", min=1, max=200)] = 12,
    encoding: Annotated[str | None, ENCODING] = None,
    split: Annotated[str | None, SPLIT] = None,
    tile: Annotated[int | None, TILE] = None,
    quiet: bool = QUIET,
    debug: bool = DEBUG,
) -> None:
    """Write an HTML page with pairs and labels side by side, and the shares of change, classes and transitions."""
    from wasnow.data.dataset import open_dataset
    from wasnow.data.preview import write_preview

    dataset = open_dataset(folder, encoding=encoding, split=split, tile=tile, strict=False)
    with sigterm_as_interrupt(), progress(quiet) as report:
        write_preview(dataset, output, shown=pairs, progress=report)
    if not quiet:
        for warning in dataset.warnings:
            warn(warning)
        typer.echo(f"wrote {output}")


@app.command("pairs", epilog=PAIRS_EXAMPLES)
@verb
def pairs(
    masks: Annotated[
        Path, typer.Argument(help="Folder of images with land-cover masks of one date.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write, in the layout of SECOND.")],
    count: Annotated[int, typer.Option(help="Training pairs.", min=1)] = 1000,
    val: Annotated[int, typer.Option(help="Validation pairs, generated from held-back images only.", min=0)] = 100,
    size: Annotated[int, typer.Option(help="Side of the images, pixels.", min=16)] = 512,
    seed: Annotated[int, typer.Option(help="Seed of the random numbers.", min=0)] = 0,
    hold_back: Annotated[
        list[str] | None,
        typer.Option(help="Folder of images for validation; repeat for several. Default: the last one."),
    ] = None,
    transplant: Annotated[
        float, typer.Option(help="Share of pairs with transplanted segments; the others re-pair images.", min=0, max=1)
    ] = 0.75,
    encoding: Annotated[str | None, ENCODING] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write into a folder that is not empty.")] = False,
    quiet: bool = QUIET,
    debug: bool = DEBUG,
) -> None:
    """Generate pairs with exact from-to labels from images that have land-cover masks of one date only."""
    from wasnow.data.export import export_second
    from wasnow.data.mask_folder import open_masks
    from wasnow.data.pairs import GeneratedPairs, PairRecipe
    from wasnow.data.samples import Samples

    folder = open_masks(masks, encoding=encoding)
    recipe = PairRecipe(size=size, transplant=transplant)
    splits: dict[str, Samples] = {}
    kept, held = folder.split(hold_back) if val else (folder, None)
    splits["train"] = GeneratedPairs(kept, count, seed, recipe)
    if held is not None:
        splits["val"] = GeneratedPairs(held, val, seed, recipe)
    notes = {
        "made by": f"wasnow data pairs, seed {seed}, size {size}, transplant {transplant:g}",
        "train from": ", ".join(kept.groups),
        "val from": ", ".join(held.groups) if held is not None else "nothing",
        "images": folder.fingerprint,
    }
    with sigterm_as_interrupt(), progress(quiet) as report:
        name = f"pairs made of {folder.root.resolve().name}"
        export_second(splits, output, name=name, provenance=notes, overwrite=overwrite, progress=report)
    if not quiet:
        counts = ", ".join(f"{split} {len(samples)}" for split, samples in splits.items())
        typer.echo(f"wrote {output}: {counts} pairs of {', '.join(folder.vocabulary.words)}")
        if held is not None:
            typer.echo(f"val is generated from {', '.join(held.groups)} only")


@app.command("from-review", epilog=REVIEW_EXAMPLES)
@verb
def from_review(
    result: Annotated[Path, typer.Argument(help="Reviewed result folder.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Dataset folder; new or empty.")],
    size: Annotated[int, typer.Option(min=32, help="Side of a crop in pixels.")] = 256,
    outside_unchanged: Annotated[
        bool, typer.Option("--outside-unchanged", help="Label pixels outside all polygons as unchanged.")
    ] = False,
    quiet: bool = QUIET,
    debug: bool = DEBUG,
) -> None:
    """Make training data of the polygons that were accepted or rejected in a review."""
    from wasnow.review.dataset import export_review

    crops = export_review(result, output, size=size, outside_unchanged=outside_unchanged)
    if not quiet:
        typer.echo(f"{crops} crops in {output}; train on them with wasnow train RECIPE --data {output}")


@app.command("get", epilog=GET_EXAMPLES)
@verb
def get(
    name: Annotated[str, typer.Argument(help="Dataset to download: second.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the archive.")],
    quiet: bool = QUIET,
    debug: bool = DEBUG,
) -> None:
    """Download the archive of a published dataset. An interrupted download is resumed by the same command."""
    from wasnow.data.get import get_dataset

    with sigterm_as_interrupt(), progress(quiet) as report:
        done = get_dataset(name, output, report)
    if not quiet:
        typer.echo(f"{done.path}: sha256 {done.sha256}")
        if not done.verified:
            warn("the server announced no digest for this file; compare the sha256 with that of the authors, if any")


def _check_masks(folder: Path, encoding: str | None, *, as_json: bool, quiet: bool) -> None:
    """Check a folder of images of one date."""
    from wasnow.data.mask_folder import open_masks

    masks: MaskFolder = open_masks(folder, encoding=encoding, strict=False)
    faults = masks.check()
    if as_json:
        print_json({"dataset": masks.describe(), "ready": not faults, "faults": [asdict(fault) for fault in faults]})
    else:
        if not quiet:
            _show(masks.describe())
            if not faults:
                total = masks.census.sum(axis=0)
                shares = [
                    (word, f"{n / total.sum():.1%}") for word, n in zip(masks.vocabulary.words, total, strict=True)
                ]
                _show(dict(shares), "of the labelled pixels")
        _show_faults(faults)
    _finish(faults, silent=as_json or quiet, ready="ready, for wasnow data pairs")


def _finish(faults: tuple[Fault, ...], *, silent: bool, ready: str) -> None:
    if faults:
        files = len({fault.file for fault in faults})
        fail(f"not ready: {len(faults)} {_many('fault', faults)} in {files} {'file' if files == 1 else 'files'}")
        raise typer.Exit(EXIT_INPUT)
    if not silent:
        typer.echo(ready)


def _many(word: str, things: tuple[Any, ...]) -> str:
    return word if len(things) == 1 else f"{word}s"


def _examined(found: Examination) -> dict[str, Any]:
    return {
        "ready": found.ready,
        "faults": [asdict(fault) for fault in found.faults],
        "warnings": list(found.warnings),
        "splits": {
            split: {
                "pairs": counts.images,
                "changed_px": counts.changed,
                "unchanged_px": counts.unchanged,
                "no_label_px": counts.no_label,
                "transitions_px": counts.transitions[1:, 1:].tolist(),
            }
            for split, counts in found.tallies.items()
        },
    }


def _show(facts: Mapping[str, str], title: str | None = None) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(Text(name, style="bold"), Text(value))
    Console().print(table)


def _show_shares(found: Examination, words: tuple[str, ...]) -> None:
    for split, counts in found.tallies.items():
        if counts.changed + counts.unchanged == 0:
            continue
        facts = {"changed": f"{counts.change_share:.2%} of the labelled pixels"}
        every = counts.changed + counts.unchanged + counts.no_label
        if counts.no_label:
            facts["no label"] = f"{counts.no_label / every:.2%} of all pixels"
        before, after = counts.class_shares()
        facts |= {
            word: f"{first:.1%} of changed pixels before, {second:.1%} after"
            for word, first, second in zip(words, before, after, strict=True)
        }
        _show(facts, f"{split}, {counts.images} pairs")


def _show_faults(faults: tuple[Fault, ...]) -> None:
    from wasnow.data.faults import listed

    for line in listed(faults):
        typer.echo(line, err=True)
