"""The cost of a run before it starts: pixels, tiles, disk space and time."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from wasnow.errors import DiskFull, OutputError
from wasnow.models.loading import resolve_device
from wasnow.pipeline.acceleration import accelerated
from wasnow.pipeline.plan import Plan

SAMPLE_SIDE = 256
"""Side of the tile whose prediction is timed, in pixels."""
LONGEST_NAME = ".wasnow/finals/landcover_before.tif.aux.xml.0123456789ab.part"
"""The longest path that a run creates inside its result folder."""


@dataclass(frozen=True)
class Cost:
    """What a run needs.

    Attributes:
        pixels: of the working grid.
        tiles: calls of the model, without batches.
        disk_bytes: free space that the run needs: both result rasters, uncompressed.
        seconds: of the model, estimated from one tile; None for a scene model.
    """

    pixels: int
    tiles: int
    disk_bytes: int
    seconds: float | None


def cost_of(plan: Plan, *, timed: bool = False) -> Cost:
    """Return the cost of a plan.

    Args:
        plan: from `make_plan`.
        timed: measure the time of one small tile; takes up to some seconds.
    """
    height, width = plan.pair.working.shape
    seconds = None
    if timed and isinstance(plan.model, nn.Module):
        seconds = (
            _seconds_per_pixel(plan)
            * plan.tiling.n_tiles
            * min(plan.tiling.tile, height)
            * min(plan.tiling.tile, width)
        )
        seconds *= 2 if plan.options.symmetric and not plan.card.symmetric else 1
    return Cost(height * width, plan.tiling.n_tiles, _disk_bytes(plan), seconds)


def _disk_bytes(plan: Plan) -> int:
    rows, cols = plan.result.shape
    classes = bool(plan.vocabulary.words)
    code = plan.vocabulary.dtype.itemsize
    per_pixel = 3 * code + (3 if classes else 1) + (2 * code if plan.options.landcover else 0)
    return rows * cols * per_pixel


def _seconds_per_pixel(plan: Plan) -> float:
    """Seconds of the model per pixel of a tile, from the faster of two calls."""
    device = resolve_device(plan.options.device, openvino=True)
    model = accelerated(plan.model, device=device)  # type: ignore[arg-type]
    stride = plan.card.stride
    side = max(stride, SAMPLE_SIDE // stride * stride)
    image = torch.full((1, 3, side, side), 0.5)
    valid = torch.ones((1, 1, side, side), dtype=torch.bool)
    times = []
    with torch.inference_mode():
        for _ in range(2):
            start = time.perf_counter()
            float(model(image, image, valid).change.sum())
            times.append(time.perf_counter() - start)
    return min(times) / side**2


def check_path_length(output: Path) -> None:
    """Check the length of the paths of a run before it starts.

    Raises:
        OutputError: paths in the result folder would be longer than the system allows.
    """
    longest = len(os.fsencode(output.absolute() / LONGEST_NAME))
    limit = 260 if os.name == "nt" else 4096
    if longest >= limit:
        raise OutputError(
            f"{output}: paths of its files would have up to {longest} bytes, and the system allows {limit - 1}; choose "
            "a folder with a shorter path"
        )


def check_free_space(plan: Plan, output: Path) -> None:
    """Check the free disk space before the run starts.

    Args:
        plan: from `make_plan`.
        output: the result folder, which may not exist yet.

    Raises:
        DiskFull: the disk is too small for the results.
    """
    folder = output.absolute()
    existing = next(each for each in (folder, *folder.parents) if each.exists())
    try:
        free = shutil.disk_usage(existing).free
    except OSError:
        return
    needed = _disk_bytes(plan)
    if free < needed:
        raise DiskFull(
            f"the results need {_size(needed)} of disk space while they are written, and the disk of {existing} has "
            f"{_size(free)} free; free some space, or choose another output folder"
        )


def _size(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
