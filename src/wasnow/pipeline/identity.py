"""The identity of a run: what an interrupted run and the command that resumes it must have in common."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

import wasnow
from wasnow.errors import RasterUnreadable, redacted
from wasnow.output.record import FileSum
from wasnow.pipeline.options import Options
from wasnow.pipeline.plan import Plan
from wasnow.pipeline.progress import Progress
from wasnow.storage.checksums import checked_sha256
from wasnow.storage.hashing import file_sha256
from wasnow.storage.sidecars import SUFFIX, essential_sha256

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
                    name=path.name if local else redacted(name),
                    size=path.stat().st_size if local else None,
                    sha256=checked_sha256(path) if local else None,
                )
            )
            done += 1
        sums.append(tuple(of_source))
    progress("checksums", total, total)
    return sums[0], sums[1]


def input_states(plan: Plan) -> dict[str, tuple[int, int, int]]:
    """Return size, time of change and inode of every local input file, to find files that change during the run."""
    states = {}
    for source in (plan.pair.before.source, plan.pair.after.source):
        for name in source.files:
            with suppress(OSError):
                status = Path(name).stat()
                states[name] = (status.st_size, status.st_mtime_ns, status.st_ino)
    return states


def check_inputs_unchanged(plan: Plan, states: Mapping[str, tuple[int, int, int]], inputs: InputSums) -> None:
    """Check that no input changed while it was read; files with another time but the same content are accepted.

    Args:
        plan: of the run.
        states: from `input_states`, before the first byte was read.
        inputs: from `input_sums`.

    Raises:
        RasterUnreadable: a file changed; the results would mix two versions of it.
    """
    digests = {
        name: each.sha256
        for source, sums in zip((plan.pair.before.source, plan.pair.after.source), inputs, strict=True)
        for name, each in zip(source.files, sums, strict=True)
    }
    after = input_states(plan)
    for name, state in states.items():
        # A viewer may store statistics in a sidecar at any time.
        if after.get(name) == state or name.endswith(SUFFIX):
            continue
        path = Path(name)
        if not path.is_file() or file_sha256(path) != digests[name]:
            raise RasterUnreadable(
                name, "changed during the run, so its results would mix two versions", "Run again with --overwrite"
            )


def same_run(found: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> bool:
    """Whether two identities differ in the version of wasnow only.

    Args:
        found: as an earlier version may have written it: options that it did not have count as their defaults.
        wanted: from `identity`.
    """
    if found is None or not isinstance(found.get("option"), dict):
        return False
    defaults = {name: value for name, value in Options().model_dump().items() if name not in NOT_IDENTITY}
    defaults |= {"class_thresholds": {}, "keep_features": False}
    return _without_version(found, defaults) == _without_version(json.loads(json.dumps(wanted)), defaults)


def _without_version(found: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    values = {name: value for name, value in found.items() if name != "wasnow"}
    for date in ("before", "after"):
        # Earlier versions listed sidecars that hold only statistics.
        values[date] = {name: digest for name, digest in (values.get(date) or {}).items() if not name.endswith(SUFFIX)}
    values["option"] = json.loads(json.dumps({**defaults, **values["option"]}))
    if isinstance(values.get("model"), str):
        values["model"] = re.sub(r" of wasnow \S+$", "", values["model"])
    return values


def identity(plan: Plan, inputs: InputSums, priors: dict[str, Any] | None) -> dict[str, Any]:
    """Return the identity as JSON values, whose differences an error can show.

    Args:
        plan: of the run.
        inputs: from `input_sums`.
        priors: the origin of the prior masks; None for a model that takes none.
    """
    options = {name: value for name, value in plan.options.model_dump().items() if name not in NOT_IDENTITY}
    # The signature of an address may differ in the command that resumes the run.
    options["align"] = redacted(plan.options.align)
    options["class_thresholds"] = dict(plan.class_thresholds)
    # Predictions from cached features are rounded, so a run with a cache is another run, wherever the cache is.
    options["keep_features"] = plan.options.keep_features is not None
    calibration = plan.calibration
    return {
        "wasnow": wasnow.__version__,
        "before": _input_identity(plan.pair.before.source.files, inputs[0]),
        "after": _input_identity(plan.pair.after.source.files, inputs[1]),
        "model": model_fingerprint(plan),
        "classes": list(plan.words),
        "calibration": [calibration.change_temperature, calibration.class_temperature] if calibration else None,
        "priors": priors,
        "option": options,
        "tile": plan.tiling.tile,
        "margin": plan.tiling.margin,
    }


def _input_identity(paths: Sequence[str], files: Sequence[FileSum]) -> dict[str, str | int | None]:
    """Return digest (or size) by file name; statistics that a viewer stored beside an input are left out."""
    found: dict[str, str | int | None] = {}
    for path, each in zip(paths, files, strict=True):
        digest: str | int | None = each.sha256 or each.size
        if each.name.endswith(SUFFIX) and each.sha256 is not None and (digest := essential_sha256(Path(path))) is None:
            continue
        found[each.name] = digest
    return found


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
