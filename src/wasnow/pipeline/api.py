"""`detect`: the Python function behind ``wasnow detect``."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, Unpack

from wasnow.models.contract import ChangeModel, SceneModel
from wasnow.models.registry import DEFAULT
from wasnow.output.change_map import ChangeMap
from wasnow.pipeline.inputs import RasterInput, raster_path
from wasnow.pipeline.options import Options, OptionValues, fields
from wasnow.pipeline.plan import make_plan
from wasnow.pipeline.progress import Progress
from wasnow.pipeline.run import run
from wasnow.raster.gdal import gdal_settings

F = TypeVar("F", bound=Callable[..., Any])


def with_option_parameters(function: F) -> F:
    """Show the options as keyword parameters with their defaults in ``help()`` and in notebooks."""
    signature = inspect.signature(function)
    own = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
    options = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=OptionValues.__annotations__[name],
        )
        for name, field in fields().items()
    ]
    function.__signature__ = signature.replace(parameters=[*own, *options])  # type: ignore[attr-defined]
    return function


@with_option_parameters
def detect(
    before: RasterInput,
    after: RasterInput,
    *,
    output: str | os.PathLike[str],
    model: str | os.PathLike[str] | ChangeModel | SceneModel = DEFAULT,
    classes: str | Sequence[str] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    command: Sequence[str] | None = None,
    **options: Unpack[OptionValues],
) -> ChangeMap:
    """Detect change between two rasters and write a result folder.

    The same call continues an unfinished folder, and returns a finished one at once.

    Args:
        before: the earlier raster: a path or URL in any format that GDAL opens, a `Raster`, an open dataset of
            rasterio, or an ``xarray.DataArray`` with rioxarray.
        after: the later raster; warped onto the target grid where its grid differs.
        output: the result folder; created if missing.
        model: a name of ``wasnow models``, a checkpoint, a run folder, or a model; by default the small network that
            is part of wasnow.
        classes: words for a model with an open vocabulary, as ``"water, building"`` or a sequence; None for the
            model's own.
        overwrite: remove the results of an earlier run in the folder.
        progress: called with (phase, done, total).
        command: what the user typed, for the record.
        **options: the options of the command line, with underscores: ``min_area=50``. `Options` describes them.

    Returns:
        Paths, statistics and record of the result.

    Raises:
        UsageError: an option is not valid, or does not fit the files or the model.
        InputError: a file or a checkpoint cannot be used.
        OutputError: the result folder cannot be written, or contains another run.
        Interrupted: Ctrl-C or SIGTERM.
    """
    with gdal_settings():
        chosen = Options(**options)
        folder = Path(output)
        paths = raster_path(before, "before", folder), raster_path(after, "after", folder)
        plan = make_plan(*paths, model=model, classes=classes, options=chosen)
        return run(plan, folder, overwrite=overwrite, progress=progress, command=command)
