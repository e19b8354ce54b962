"""``wasnow priors``: find what words name at each date, as masks for models that use them."""

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
    classes: Annotated[str, typer.Option(help="Class words to find, such as 'building' or 'building, water'.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Prior folder to write.")],
    masker: Annotated[
        str | None,
        typer.Option(help="grounded-sam (default), sam3, clipseg, or files (with --masks).", show_default=False),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            help="Folder or name of the weights; for grounded-sam give it twice: detector, then segmenter.",
            show_default=False,
        ),
    ] = None,
    box: Annotated[float, typer.Option(help="grounded-sam: minimum score of a box.")] = 0.30,
    text: Annotated[float, typer.Option(help="grounded-sam: minimum score of each part of the word.")] = 0.25,
    score: Annotated[float, typer.Option(help="sam3, clipseg: minimum score of an object or a pixel.")] = 0.5,
    masks: Annotated[
        list[Path] | None,
        typer.Option(help="Existing masks: a raster, polygons or a folder; twice for one per date."),
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="Column of polygons that names their word.", show_default=False)
    ] = None,
    tile: Annotated[int, typer.Option(help="Side of the tiles given to a network, pixels.")] = 1024,
    margin: Annotated[int, typer.Option(help="Overlap of the tiles to each side, pixels.")] = 128,
    bands: Annotated[
        str | None, typer.Option(help="Bands of rasters shown as red, green, blue, such as 4,3,2.", show_default=False)
    ] = None,
    stretch: Annotated[
        str, typer.Option(help="Values of rasters shown as black and white, such as 0,3000, or auto.")
    ] = "auto",
    allow_indirect: Annotated[
        bool, typer.Option("--allow-indirect", help="Also read rasters that refer to other files, such as VRT.")
    ] = False,
    dataset_tile: Annotated[
        int | None,
        typer.Option(
            "--dataset-tile", help="Cut a dataset's images into tiles, as train --set tile= does.", show_default=False
        ),
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="Label encoding of a dataset, as for train.", show_default=False)
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of cached results. Default: next to the cache of weights.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    quiet: bool = QUIET,
    as_json: bool = JSON,
    debug: bool = DEBUG,
) -> None:
    """Find what class words name at each date and write prior masks. Results are cached, so it can be resumed."""
    from wasnow.errors import UsageError
    from wasnow.priors.maskers import FILES, GROUNDED_SAM, MaskerChoice
    from wasnow.vocabulary import Vocabulary, join_words

    words = Vocabulary.parse(classes).words
    if len(inputs) > 2:
        raise UsageError(f"{len(inputs)} inputs are given. Give BEFORE and AFTER, or one dataset folder")
    if len(inputs) == 1 and inputs[0].is_file() and inputs[0].suffix.lower() not in (".yaml", ".yml"):
        raise UsageError(f"{inputs[0]} is one raster. Give BEFORE and AFTER, or one dataset folder")
    chosen = masker or (FILES if masks else GROUNDED_SAM)
    network = None if chosen == FILES else MaskerChoice(chosen, tuple(weights or ()), box, text, score)
    if (chosen == FILES) != bool(masks):
        raise UsageError(
            "--masker files needs --masks PATH" if not masks else f"--masks is for --masker files, not for {chosen}"
        )
    from wasnow.models.loading import resolve_device
    from wasnow.priors.cache import PriorCache, prior_cache
    from wasnow.priors.make import PriorRequest, make_dataset, make_pair

    request = PriorRequest(
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
            made = make_pair(inputs[0], inputs[1], output, request, **opened, progress=tell)
        else:
            from wasnow.data.dataset import open_dataset

            dataset = open_dataset(inputs[0], encoding=encoding, tile=dataset_tile)
            for note in dataset.warnings:
                warn(note)
            made = make_dataset(dataset, output, request, progress=tell)
    if made.damaged:
        warn(f"{made.damaged} damaged cache entries were replaced")
    if nowhere := [word for word in words if not any(one[word].share for one in made.manifest.covered.values())]:
        warn(f"{join_words(nowhere)}: nothing found at either date; {_advice(chosen, several=len(words) > 1)}")
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
    """Return advice for a word that was not found."""
    from wasnow.priors.maskers import FILES, GROUNDED_SAM

    if masker != FILES:
        return f"lower {'--box and --text' if masker == GROUNDED_SAM else '--score'}, or try another word"
    numbers = "; for several words, a single band holds the numbers 1, 2, ... in the order of --classes"
    return f"check the masks{numbers if several else ''}"


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
    kept = f", {made.reused} of {made.asked + made.reused} results from the cache" if made.reused else ""
    typer.echo(f"{made.folder}: {made.megapixels:.2f} megapixels in {duration(made.seconds)}{kept}")
