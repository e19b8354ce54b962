"""Where files are cached that can be made or downloaded again: weights, prior masks."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(kind: str) -> Path:
    """Return ``$WASNOW_CACHE/KIND``, or ``wasnow/KIND`` in the cache folder of the platform; it may not exist.

    Args:
        kind: ``weights`` or ``priors``.
    """
    if chosen := os.environ.get("WASNOW_CACHE"):
        return Path(chosen).expanduser() / kind
    import platformdirs

    return platformdirs.user_cache_path("wasnow", appauthor=False, opinion=False) / kind
