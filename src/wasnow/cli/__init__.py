"""The command line: one module per verb. Heavy packages are imported inside the verbs, so that ``--help`` is quick.

Exit codes:
    0    success
    1    a bug in wasnow (please report it with --debug)
    2    an option or argument is invalid
    3    an input file is missing, damaged or unsuitable
    4    the output folder cannot be written, is locked, or holds another run
    5    finished with flagged parts that could not be read (--keep-going)
    6    verify: missing, changed or invalid results
    7    --pairs: some pairs failed, the others are finished
    8    out of memory, no network, or no workers
    9    a training diverged
    130  interrupted; the same command resumes the run
"""

from __future__ import annotations

import typer

from wasnow.cli import (
    areas,
    benchmark,
    calibrate,
    convert,
    data,
    demo,
    detect,
    evaluate,
    info,
    label,
    models,
    priors,
    recipes,
    review,
    sample,
    train,
    verify,
    weights,
)
from wasnow.cli.console import prepare_process, print_version

app = typer.Typer(
    name="wasnow",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 bug, 2 usage, 3 bad input, 4 output, 5 finished with flagged parts, "
    "6 verify found faults, 7 some pairs failed, 8 no memory, network or workers, 9 training diverged, "
    "130 interrupted.",
)


@app.callback()
def wasnow(
    version: bool = typer.Option(
        False, "--version", callback=print_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Detect land-cover change between two images: where, from which class to which class, with which confidence."""


app.command("detect", epilog=detect.EXAMPLES)(detect.detect)
app.command("info", epilog=info.EXAMPLES)(info.info)
app.command("verify", epilog=verify.EXAMPLES)(verify.verify)
app.add_typer(models.app, name="models")
app.add_typer(data.app, name="data")
app.command("train", epilog=train.EXAMPLES)(train.train)
app.command("evaluate", epilog=evaluate.EXAMPLES)(evaluate.evaluate)
app.command("benchmark", epilog=benchmark.EXAMPLES)(benchmark.benchmark)
app.command("calibrate", epilog=calibrate.EXAMPLES)(calibrate.calibrate)
app.command("recipes", epilog=recipes.EXAMPLES)(recipes.recipes)
app.add_typer(weights.app, name="weights")
app.command("convert", epilog=convert.EXAMPLES)(convert.convert)
app.command("demo")(demo.demo)
app.command("review", epilog=review.EXAMPLES)(review.review)
app.command("sample", epilog=sample.EXAMPLES)(sample.sample)
app.command("label", epilog=label.EXAMPLES)(label.label)
app.command("areas", epilog=areas.EXAMPLES)(areas.areas)
app.command("priors", epilog=priors.EXAMPLES)(priors.priors)


def main() -> None:
    """Run the ``wasnow`` command."""
    prepare_process()
    app()
