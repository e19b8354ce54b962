"""``wasnow priors``: where the things that words name are at each date, as masks that a model may be given."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wasnow._system import sigterm_as_interrupt
from wasnow.cli.console import (
    DEBUG,
    JSON,
    QUIET,
    duration,
    print_json,
    progress,
    verb,
    warn,
)

if TYPE_CHECKING:
    from wasnow.priors.files import MaskFiles
    from wasnow.priors.make import PriorResult

EXAMPLES = (
    "[bold]Examples[/bold]\n\n"
    "  wasnow priors before.tif after.tif --classes building -o priors/\n\n"
    "  wasnow priors LEVIR-CD/ --classes building --masker sam3 -o priors/\n\n"
    "  wasnow priors before.tif after.tif --classes building --masks footprints.gpkg -o priors/"
)


@verb
def priors(
    inputs: Annotated[
        list[Path], typer.Argument(help="BEFORE and AFTER, two rasters; or one dataset folder (or dataset.yaml).")
    ],
    classes: Annotated[str, typer.Option(help="What to find, such as 'building' or 'building, water'.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The prior folder.")],
    masker: Annotated[
        str | None,
        typer.Option(help="grounded-sam (the default), sam3, clipseg, or files (with --masks).", show_default=False),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            help="Folder or name of the weights; for grounded-sam twice: the detector's and the segmenter's.",
            show_default=False,
        ),
    ] = None,
    box: Annotated[float, typer.Option(help="grounded-sam: a box counts above this score.")] = 0.30,
    text: Annotated[float, typer.Option(help="grounded-sam: each part of the word must score above this.")] = 0.25,
    score: Annotated[float, typer.Option(help="sam3, clipseg: an object or a pixel counts above this.")] = 0.5,
    masks: Annotated[
        list[Path] | None,
        typer.Option(help="Masks of your own: a raster, polygons or a folder; twice for one per date."),
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="Of polygons: the column that says which word each is of.", show_default=False)
    ] = None,
    tile: Annotated[int, typer.Option(help="Side of what a network sees at once, in pixels.")] = 1024,
    margin: Annotated[int, typer.Option(help="How far a tile looks beyond what it answers for.")] = 128,
    bands: Annotated[
        str | None, typer.Option(help="Of rasters: red, green, blue, such as 4,3,2.", show_default=False)
    ] = None,
    stretch: Annotated[str, typer.Option(help="Of rasters: auto, or the numbers of black and white: 0,3000.")] = "auto",
    allow_indirect: Annotated[
        bool, typer.Option("--allow-indirect", help="Of rasters: read files that point to others too, such as VRT.")
    ] = False,
    dataset_tile: Annotated[
        int | None,
        typer.Option("--dataset-tile", help="Cut a dataset's pictures, as train --set tile= does.", show_default=False),
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="Class encoding of a dataset, as train takes it.", show_default=False)
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Where answers are kept; below the cache of weights if left out.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    quiet: bool = QUIET,
    as_json: bool = JSON,
    debug: bool = DEBUG,
) -> None:
    """Find what words name at each date, and keep it as masks. Kept answers make it resumable."""
    from wasnow.errors import UsageError
    from wasnow.priors.maskers import FILES, GROUNDED_SAM, MaskerChoice
    from wasnow.vocabulary import Vocabulary, join_words

    words = Vocabulary.parse(classes).words
    if len(inputs) > 2:
        raise UsageError(f"{len(inputs)} inputs are given; give BEFORE and AFTER, or one dataset folder")
    if len(inputs) == 1 and inputs[0].is_file() and inputs[0].suffix.lower() not in (".yaml", ".yml"):
        raise UsageError(f"{inputs[0]} is one raster; give BEFORE and AFTER, or one dataset folder")
    chosen = masker or (FILES if masks else GROUNDED_SAM)
    network = None if chosen == FILES else MaskerChoice(chosen, tuple(weights or ()), box, text, score)
    if (chosen == FILES) != bool(masks):
        raise UsageError(
            "--masker files wants --masks PATH" if not masks else f"--masks is for files, not for {chosen}"
        )
    from wasnow.models.loading import resolve_device
    from wasnow.priors.cache import PriorCache, prior_cache
    from wasnow.priors.make import PriorRequest, make_dataset, make_pair

    way = PriorRequest(
        words,
        _files(masks or [], words, column, pair=len(inputs) == 2)
        if network is None
        else network.load(resolve_device(device)),
        PriorCache(cache or prior_cache()) if network is not None else None,
        tile,
        margin,
    )
    with progress(quiet or as_json) as tell, sigterm_as_interrupt():
        if len(inputs) == 2:
            from wasnow.pipeline.options import Options

            chosen_bands = Options(bands=bands).bands
            opened: dict[str, Any] = {"bands": chosen_bands, "stretch": stretch, "allow_indirect": allow_indirect}
            made = make_pair(inputs[0], inputs[1], output, way, **opened, progress=tell)
        else:
            from wasnow.data.dataset import open_dataset

            dataset = open_dataset(inputs[0], encoding=encoding, tile=dataset_tile)
            for note in dataset.warnings:
                warn(note)
            made = make_dataset(dataset, output, way, progress=tell)
    if made.damaged:
        warn(f"{made.damaged} damaged entries of the cache were found anew")
    if nowhere := [word for word in words if not any(one[word].share for one in made.manifest.covered.values())]:
        warn(f"{join_words(nowhere)}: nothing at either date; {_advice(chosen, several=len(words) > 1)}")
    if as_json:
        print_json(
            {
                "folder": str(made.folder),
                "asked": made.asked,
                "reused": made.reused,
                "megapixels": made.megapixels,
                "seconds": made.seconds,
                **made.manifest.model_dump(include={"kind", "words", "masker", "covered"}),
            }
        )
    elif not quiet:
        _show(made)


def _advice(masker: str, *, several: bool) -> str:
    """What to look at where a word was found nowhere."""
    from wasnow.priors.maskers import FILES, GROUNDED_SAM

    if masker != FILES:
        return f"lower {'--box and --text' if masker == GROUNDED_SAM else '--score'}, or try another word"
    numbers = "; of several words, one band without a name holds the numbers 1, 2, ... in the order of --classes"
    return f"look at the masks{numbers if several else ''}"


def _files(masks: list[Path], words: tuple[str, ...], column: str | None, *, pair: bool) -> MaskFiles:
    from wasnow.priors.files import MaskFiles

    return (MaskFiles.of_pair if pair else MaskFiles.of_dataset)(masks, words, column)


def _show(made: PriorResult) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for head in ("word", "date", "covers", "objects"):
        table.add_column(head, justify="right" if head in ("covers", "objects") else "left")
    for word in made.manifest.words:
        for date, covered in made.manifest.covered.items():
            one = covered[word]
            table.add_row(word, date, f"{100 * one.share:.2f} %", "-" if one.objects is None else str(one.objects))
    Console().print(table)
    kept = f", {made.reused} of {made.asked + made.reused} answers were kept from before" if made.reused else ""
    typer.echo(f"{made.folder}: {made.megapixels:.2f} megapixels in {duration(made.seconds)}{kept}")
