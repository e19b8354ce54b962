"""Where things are kept that can be had again: weights that were fetched, masks that were found."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def folder(kind: str) -> Path:
    """``$WASNOW_CACHE/KIND``, or ``wasnow/KIND`` below the platform's folder for caches; need not be there.

    Args:
        kind: ``weights`` or ``priors``.
    """
    if chosen := os.environ.get("WASNOW_CACHE"):
        return Path(chosen).expanduser() / kind
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "wasnow" / kind
