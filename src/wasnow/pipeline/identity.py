"""The identity of a run: what an interrupted run and the command that resumes it must have in common."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import numpy as np

import wasnow
from wasnow.output.record import FileSum
from wasnow.pipeline.plan import Plan
from wasnow.pipeline.progress import Progress
from wasnow.storage.checksums import checked_sha256

NOT_IDENTITY = (
    "device",
    "keep_features",
    "features_limit",
    "priors",
    "masker",
    "masker_weights",
    "masks",
    "workers",
    "scheduler",
    "allow_indirect",
)
"""Options that a resumed run may change: where it runs, and where features and prior masks are stored. The prior masks
themselves are part of the identity."""

InputSums = tuple[tuple[FileSum, ...], tuple[FileSum, ...]]


def input_sums(plan: Plan, progress: Progress) -> InputSums:
    """Return every file of both inputs: local ones with size and SHA-256, remote ones by name."""
    sources = (plan.pair.before.source, plan.pair.after.source)
    total = sum(len(source.files) for source in sources)
    done = 0
    sums: list[tuple[FileSum, ...]] = []
    for source in sources:
        of_source = []
        for name in source.files:
            progress("checksums", done, total)
            path = Path(name)
            local = path.is_file()
            of_source.append(
                FileSum(
                    name=path.name if local else name,
                    size=path.stat().st_size if local else None,
                    sha256=checked_sha256(path) if local else None,
                )
            )
            done += 1
        sums.append(tuple(of_source))
    progress("checksums", total, total)
    return sums[0], sums[1]


def identity(plan: Plan, inputs: InputSums, priors: dict[str, Any] | None) -> dict[str, Any]:
    """Return the identity as JSON values, whose differences an error can show.

    Args:
        plan: of the run.
        inputs: from `input_sums`.
        priors: the origin of the prior masks; None for a model that takes none.
    """
    options = {name: value for name, value in plan.options.model_dump().items() if name not in NOT_IDENTITY}
    options["class_thresholds"] = dict(plan.class_thresholds)
    # Predictions from cached features are rounded, so a run with a cache is another run, wherever the cache is.
    options["keep_features"] = plan.options.keep_features is not None
    calibration = plan.calibration
    return {
        "wasnow": wasnow.__version__,
        "before": {each.name: each.sha256 or each.size for each in inputs[0]},
        "after": {each.name: each.sha256 or each.size for each in inputs[1]},
        "model": model_fingerprint(plan),
        "classes": list(plan.words),
        "calibration": [calibration.change_temperature, calibration.class_temperature] if calibration else None,
        "priors": priors,
        "option": options,
        "tile": plan.tiling.tile,
        "margin": plan.tiling.margin,
    }


def model_fingerprint(plan: Plan) -> str:
    """Return the fingerprint of the weights, or the name and version of a model without a checkpoint."""
    return plan.fingerprint if plan.fingerprint is not None else f"{plan.card.name} of wasnow {wasnow.__version__}"


def environment() -> dict[str, str]:
    """Return the versions and the machine for the record of a run."""
    import rasterio
    import torch

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cores": str(os.cpu_count()),
        "torch": torch.__version__,
        "gdal": rasterio.__gdal_version__,
        "rasterio": rasterio.__version__,
        "numpy": np.__version__,
    }
