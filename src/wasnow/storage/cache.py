"""Where files are cached that can be made or downloaded again: weights, prior masks."""

from __future__ import annotations

import os
from pathlib import Path

from wasnow.errors import UsageError


def cache_folder(kind: str) -> Path:
    """Return ``$WASNOW_CACHE/KIND``, or ``wasnow/KIND`` in the cache folder of the platform; it may not exist.

    Args:
        kind: ``weights`` or ``priors``.

    Raises:
        UsageError: there is no home folder to put it in.
    """
    try:
        if chosen := os.environ.get("WASNOW_CACHE"):
            return Path(chosen).expanduser() / kind
        import platformdirs

        return platformdirs.user_cache_path("wasnow", appauthor=False, opinion=False) / kind
    except RuntimeError:
        raise UsageError(
            "no home folder for the cache (HOME is not set); set WASNOW_CACHE to an absolute path"
        ) from None
