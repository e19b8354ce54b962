"""``wasnow calibrate``: fit the probabilities of a checkpoint to validation pairs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wasnow.cli.console import DEBUG, JSON, QUIET, print_json, progress, verb, warn
from wasnow.cli.evaluate import HELD_BACK, choose_split, open_as_trained, with_masks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wasnow.data.samples import Samples
    from wasnow.models.checkpoint import Header

EXAMPLES = (
    "[bold]Examples[/bold]\n\n"
    "  wasnow calibrate runs/a --data SECOND/\n\n"
    "  wasnow calibrate best.safetensors --data pairs/ --split held-back"
)


@verb
def calibrate(
    checkpoint: Annotated[
        Path, typer.Argument(help="A checkpoint or a run folder; the checkpoint is rewritten.", show_default=False)
    ],
    data: Annotated[str, typer.Option("--data", "-d", help="Dataset folder with labels.", show_default=False)],
    split: Annotated[
        str | None,
        typer.Option(
            help="Pairs to fit: val, or held-back (from training); default: the first that exists.", show_default=False
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Allow pairs of the training or test split.")] = False,
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
    tile: Annotated[int | None, typer.Option(help="Cut images into tiles of this size.", show_default=False)] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    quiet: bool = QUIET,
    as_json: bool = JSON,
    debug: bool = DEBUG,
) -> None:
    """Fit temperatures on validation pairs and store them in the checkpoint. Maps do not change."""
    from wasnow.errors import UsageError
    from wasnow.evaluation.temperature import at_bound
    from wasnow.models.checkpoint import read_header, resolve, set_calibration

    found = resolve(checkpoint)
    if not checkpoint.exists() and found.exists():
        raise UsageError(
            f"{checkpoint} is part of the wasnow package, which calibration would modify; "
            f"calibrate a copy: cp {found} mine.safetensors"
        )
    header = read_header(found)
    recipe = header.provenance.recipe or {}
    dataset = open_as_trained(data, recipe, encoding=encoding, tile=tile)
    name, samples = validation_pairs(dataset.splits, split, header, force=force)
    from wasnow.evaluation import calibrate as fit
    from wasnow.evaluation.page import calibration_page
    from wasnow.models.loading import load_network

    model = load_network(found, device=device)
    samples, _, remarks = with_masks(model, samples, name, dataset, priors, found, header)
    for remark in remarks:
        warn(remark)
    with progress(quiet or as_json) as report:
        result = fit(
            model,
            samples,
            split=name,
            progress=lambda done, total: report("measuring", done, total),
        )
    set_calibration(found, result.calibration)
    page = found.with_name(f"{found.stem}-calibration.html")
    _write(page, calibration_page(result))
    one = result.calibration
    lines = [("change", one.change_temperature, one.ece_change_before, one.ece_change_after)]
    lines += [("classes", one.class_temperature, one.ece_class_before, one.ece_class_after)] if result.classes else []
    for what, temperature, before, after in lines:
        if at_bound(temperature):
            warn(
                f"the temperature of {what} is at the bound of its range ({temperature:.4g}): there are too few pairs "
                "or the model does not separate them; see the diagram"
            )
        if before is not None and after is not None and after > before:
            warn(f"the calibration error of {what} increased: one temperature does not fit it; see {page}")
    if as_json:
        print_json({"checkpoint": str(found), "page": str(page), **one.model_dump(mode="json")})
    elif not quiet:
        typer.echo(f"{header.model.name} on {name}: {one.pairs} pairs, {result.sampled:,} pixels")
        for what, temperature, before, after in lines:
            typer.echo(
                f"{what:8} temperature {temperature:.4g}, ECE {100 * (before or 0):.2f} % -> {100 * (after or 0):.2f} %"
            )
        typer.echo(f"{found}, {page}")


def validation_pairs(
    splits: Mapping[str, Samples], wanted: str | None, header: Header, *, force: bool = False
) -> tuple[str, Samples]:
    """Return the name of the pairs to fit, and the pairs; training and test pairs only if forced.

    Args:
        splits: of the dataset.
        wanted: ``--split``; None: the default.
        header: of the checkpoint.
        force: allow training and test pairs.

    Raises:
        UsageError: there are no validation pairs, or the split does not exist.
    """
    from wasnow.errors import UsageError

    if wanted is None and "val" in splits:
        return "val", splits["val"]
    if wanted is None:
        try:
            return choose_split(splits, HELD_BACK, header)
        except UsageError:
            raise UsageError(
                f"the data has no split val and no pairs held back from training, only {', '.join(splits)}; "
                "choose pairs that are used for nothing else with --split"
            ) from None
    name, samples = choose_split(splits, wanted, header)
    if force or name == HELD_BACK:
        return name, samples
    if name == "test":
        raise UsageError(
            "temperatures fitted on the test split invalidate its scores; use --split val or held-back, or --force"
        )
    if header.provenance.data_fingerprint == samples.fingerprint:
        raise UsageError(
            f"the model was trained on these pairs ({name}) and is overconfident on them; "
            "use --split val or held-back, or --force"
        )
    return name, samples


def _write(path: Path, text: str) -> None:
    from wasnow.errors import OutputError

    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror}), but the checkpoint is calibrated; check the folder"
        ) from None
