"""Description of the machine that a benchmark runs on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

from wasnow.models.loading import resolve_device


def machine() -> dict[str, str | int | float | None]:
    """Return system, processor, cores, threads, memory and GPU."""
    memory = None
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    cuda = resolve_device("auto") == "cuda"
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": memory,
        "gpu": torch.cuda.get_device_name(0) if cuda else None,
    }


def _processor() -> str:
    """Return the name of the processor, which `platform` does not report on Linux."""
    try:
        for text in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if text.startswith("model name"):
                return text.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()
