"""Run detect with two worker processes and slow, small blocks. Arguments: BEFORE AFTER FOLDER."""

import signal
import sys
from pathlib import Path

import typer

from pipeline.backends.crew import Traced
from wasnow.cli.console import verb
from wasnow.cli.detect import run_detect
from wasnow.pipeline import plan


def main() -> None:
    """Write to FOLDER/out and exit with the code of the command."""
    # A shell ignores Ctrl-C in its background jobs, and child processes inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    before, after, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    whole = plan.Tiling
    plan.Tiling = lambda *args, **kwargs: whole(*args, **kwargs, block_side=32)

    @verb
    def detect() -> None:
        run_detect(
            before,
            after,
            folder / "out",
            model=Traced(folder=str(folder), seconds=0.4),
            classes=None,
            overwrite=False,
            options={"workers": 2},
            quiet=True,
            as_json=False,
            command=("wasnow", "detect"),
        )

    try:
        detect()
    except typer.Exit as leave:
        sys.exit(leave.exit_code)


if __name__ == "__main__":
    main()
