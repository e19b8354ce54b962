"""``wasnow evaluate``: score a checkpoint on a dataset folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wasnow.cli.console import DEBUG, JSON, QUIET, print_json, progress, verb, warn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wasnow.data.dataset import Dataset
    from wasnow.data.samples import Samples
    from wasnow.evaluation import Evaluation
    from wasnow.models.checkpoint import Header
    from wasnow.models.contract import ChangeModel

EXAMPLES = (
    "[bold]Examples[/bold]\n\n"
    "  wasnow evaluate runs/a --data SECOND/\n\n"
    "  wasnow evaluate best.safetensors --data SECOND/ --split val -o scores/ --json\n\n"
    "  wasnow evaluate runs/a --data SECOND/ --as 'building=house|rooftop' --as water=lake --landcover"
)

HELD_BACK = "held-back"


@verb
def evaluate(
    checkpoint: Annotated[
        Path, typer.Argument(help="A checkpoint, a run folder, or semantic-cd-mini.", show_default=False)
    ],
    data: Annotated[str, typer.Option("--data", "-d", help="Dataset folder with labels.", show_default=False)],
    split: Annotated[
        str | None,
        typer.Option(
            help="Pairs to score: test, val, train, all, or held-back (from training); default: test if present.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder for the results; default: beside the checkpoint.", show_default=False
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Change probability above which a pixel is changed; default: that of the model."),
    ] = None,
    priors: Annotated[
        str | None,
        typer.Option(
            help="For a model with prior masks: a prior folder, labels or none; default: as in training.",
            show_default=False,
        ),
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="Class encoding, if it cannot be inferred from the values.", show_default=False)
    ] = None,
    words: Annotated[
        str | None,
        typer.Option(
            help="Prompts instead of the class words of the data, one per class in their order. For labels without "
            "classes: the words between which change counts.",
            show_default=False,
        ),
    ] = None,
    others: Annotated[
        list[str] | None,
        typer.Option(
            "--as", help="Also score a class with other prompts, such as 'building=house|rooftop'.", show_default=False
        ),
    ] = None,
    landcover: Annotated[
        bool, typer.Option("--landcover", help="Also score the class maps of unchanged pixels.")
    ] = False,
    tile: Annotated[int | None, typer.Option(help="Cut images into tiles of this size.", show_default=False)] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    quiet: bool = QUIET,
    as_json: bool = JSON,
    debug: bool = DEBUG,
) -> None:
    """Score a model on labelled pairs: both protocols, every class and image, with confidence intervals."""
    synonyms = parse_synonyms(others or ())
    from wasnow.models.checkpoint import read_header, resolve

    found = resolve(checkpoint)
    header = read_header(found)
    recipe = header.provenance.recipe or {}
    dataset = open_as_trained(data, recipe, encoding=encoding, tile=tile)
    name, samples = choose_split(dataset.splits, split, header)
    source = header.provenance
    if source.stage is not None and not (quiet or as_json):
        typer.echo(f"{found.name}: stage {source.stage}, step {source.step}")
    if header.provenance.data_fingerprint == samples.fingerprint and name != HELD_BACK:
        warn(f"the model was trained on these pairs ({name}); the scores do not apply to other data")
    from wasnow.evaluation import evaluate as score
    from wasnow.evaluation import write_evaluation
    from wasnow.models.loading import load_network

    model = load_network(found, device=device)
    samples, origin, remarks = with_masks(model, samples, name, dataset, priors, found, header)
    with progress(quiet or as_json) as report:
        result = score(
            model,
            samples,
            split=name,
            threshold=threshold,
            words=None if words is None else words.split(","),
            synonyms=synonyms,
            unseen=recipe.get("leave_out") or (),
            landcover=landcover,
            progress=lambda done, total: report("scoring", done, total),
        )
    result = dataclasses.replace(result, priors=origin, notes=(*result.notes, *remarks))
    # Results of an included model are not written into the package.
    beside = found.with_suffix("") if checkpoint.exists() else Path(checkpoint.name)
    folder = output or (checkpoint if checkpoint.is_dir() else beside) / "evaluation" / name
    paths = write_evaluation(result, folder)
    for note in result.notes:
        warn(note)
    if as_json:
        print_json(result.as_dict())
    elif not quiet:
        _show(result)
        typer.echo(", ".join(map(str, paths)))


def parse_synonyms(options: Sequence[str]) -> dict[str, list[str]]:
    """Parse ``["building=house|rooftop"]`` to ``{"building": ["house", "rooftop"]}``.

    Raises:
        UsageError: an option is not ``CLASS=WORD``.
    """
    from wasnow.errors import UsageError

    found: dict[str, list[str]] = {}
    for option in options:
        word, equals, rest = option.partition("=")
        names = [name.strip() for name in rest.split("|")]
        if not equals or not word.strip() or not all(names):
            raise UsageError(f"--as {option!r} is not CLASS=WORD; write --as 'building=house|rooftop'")
        found.setdefault(word.strip(), []).extend(names)
    return found


def open_as_trained(data: str, recipe: Mapping[str, Any], *, encoding: str | None, tile: int | None) -> Dataset:
    """Open a dataset with the settings of the training, unless options override them.

    Args:
        data: the folder.
        recipe: of the training.
        encoding: overrides that of the recipe.
        tile: overrides that of the recipe.
    """
    from wasnow.data.dataset import open_dataset

    dataset = open_dataset(
        data,
        encoding=encoding or recipe.get("encoding"),
        tile=tile or recipe.get("tile"),
        split=recipe.get("split"),
    )
    for note in dataset.warnings:
        warn(note)
    return dataset


def with_masks(
    model: ChangeModel,
    samples: Samples,
    split: str,
    dataset: Dataset,
    source: str | None,
    checkpoint: Path,
    header: Header,
) -> tuple[Samples, dict[str, Any] | None, list[str]]:
    """Return the pairs with the prior masks that a model needs, the origin of the masks, and remarks.

    Args:
        model: any model; pairs are unchanged for a model without prior masks.
        samples: the pairs.
        split: their name, from `choose_split`.
        dataset: that contains them.
        source: ``--priors``; None: as recorded in the run folder of the checkpoint.
        checkpoint: its file.
        header: of the checkpoint.

    Raises:
        UsageError: the model needs masks and no source is known.
        InputError: the masks belong to other pairs.
    """

    if not model.card.wants_priors:
        return samples, None, [f"{model.card.name} uses no prior masks; --priors is ignored"] if source else []
    from wasnow.priors.samples import pair_masks, with_priors
    from wasnow.priors.store import other_masker
    from wasnow.training.run_folder import RunFolder

    if source is None:
        record = RunFolder(checkpoint.parent).record or {}
        source = record.get("config", {}).get("priors")
    masks = None if source is None else pair_masks(source, dataset)
    # Held-back pairs are part of the training split.
    own = split if split in dataset.splits else next(each for each in ("train", "all") if each in dataset.splits)
    samples, masks = with_priors(model, samples, own, masks)
    origin = None if masks is None else masks.origin
    remark = other_masker((header.provenance.recipe or {}).get("priors"), origin)
    return samples, origin, [remark] if remark else []


def choose_split(splits: Mapping[str, Samples], wanted: str | None, header: Header) -> tuple[str, Samples]:
    """Return the name of the pairs to score, and the pairs.

    Args:
        splits: of the dataset.
        wanted: ``--split``; None: the default.
        header: of the checkpoint.

    Raises:
        UsageError: the split does not exist, or no pairs of this data were held back.
    """
    from wasnow.errors import UsageError, did_you_mean

    if wanted == HELD_BACK:
        from wasnow.training.roles import hold_back

        train = next((splits[name] for name in ("train", "all") if name in splits), None)
        recipe = header.provenance.recipe or {}
        chosen_on = header.provenance.selected_on or ""
        same = train is not None and train.fingerprint == header.provenance.data_fingerprint
        if train is None or not same or not chosen_on.startswith("held back"):
            raise UsageError(
                f"no pairs of this data were held back; the checkpoint was trained on "
                f"{header.provenance.trained_on or 'unknown data'}; use --split {' or '.join(splits)}"
            )
        return HELD_BACK, hold_back(train, recipe["holdback"], recipe["seed"])[1]
    if wanted is not None:
        if wanted not in splits:
            known = [*splits, HELD_BACK]
            raise UsageError(f"the data has no split {wanted!r}, only {', '.join(splits)}{did_you_mean(wanted, known)}")
        return wanted, splits[wanted]
    name = next((one for one in ("test", "val", "all") if one in splits), next(iter(splits)))
    return name, splits[name]


def _show(result: Evaluation) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from wasnow.evaluation import PROTOCOLS
    from wasnow.evaluation.rows import WORD_HEAD, ece_rows, summary_rows, synonym_rows, word_rows

    console = Console()
    console.print(
        f"{result.model} on {result.split}: {len(result.per_image)} images, threshold {result.threshold:g}; "
        "in per cent, 95 % intervals over images",
        highlight=False,
    )
    rows = summary_rows(result)
    for protocol, meaning in PROTOCOLS.items():
        own = [row for row in rows if row[0].partition(".")[0] == protocol]
        if not own or all(row[1] == "undefined" for row in own):
            continue
        table = Table(title=f"{protocol}: {meaning}", title_justify="left", box=None, pad_edge=False, show_header=False)
        table.add_column(min_width=14)
        table.add_column(justify="right")
        table.add_column(style="dim")
        for name, value, between in own:
            table.add_row(name.partition(".")[2], value, between)
        console.print(table)
    if result.vocabulary.words:
        table = Table(title="classes, both dates", title_justify="left", box=None, pad_edge=False)
        for head in ("class", "F1", "IoU", "precision", "recall"):
            table.add_column(head, justify="left" if head == "class" else "right")
        for one in result.scores.classes:
            values = (one.f1, one.iou, one.precision, one.recall)
            table.add_row(
                Text(result.class_label(one.after)),
                *("-" if value != value else f"{100 * value:.2f}" for value in values),
            )
        console.print(table)
    more: list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]] = [
        ("words, on pixels with a class label", ("class",), word_rows(result, result.words))
    ]
    if result.landcover is not None:
        more.append(("words, land cover: before the change mask", ("class",), word_rows(result, result.landcover)))
    more.append(("synonyms, one at a time", ("class", "prompt"), synonym_rows(result)))
    for title, names, lines in more:
        if not lines:
            continue
        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        for head in (*names, *WORD_HEAD):
            table.add_column(head, justify="left" if head in (*names, "note") else "right", no_wrap=head in names)
        for line in lines:
            table.add_row(*map(Text, line))
        console.print(table)
    table = Table(title="expected calibration error", title_justify="left", box=None, pad_edge=False, show_header=False)
    for line in ece_rows(result):
        table.add_row(*line)
    console.print(table)
