"""wasnow: two images of one place, a list of class words; where the ground changed, from what to what, and how surely.

    >>> import wasnow
    >>> result = wasnow.detect("2009.tif", "2017.tif", output="out/")

Public names are loaded when first used, so that importing wasnow costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "ChangeLogits": "wasnow.models.contract",
    "ChangeMap": "wasnow.output.change_map",
    "ChangeModel": "wasnow.models.contract",
    "ModelCard": "wasnow.models.contract",
    "Options": "wasnow.pipeline.plan",
    "SceneModel": "wasnow.models.contract",
    "Vocabulary": "wasnow.vocabulary",
    "WasnowError": "wasnow.errors",
    "detect": "wasnow.pipeline.run",
    "detect_pairs": "wasnow.batch",
    "load": "wasnow.models.checkpoint",
    "make_plan": "wasnow.pipeline.plan",
}

__all__ = [
    "ChangeLogits",
    "ChangeMap",
    "ChangeModel",
    "ModelCard",
    "Options",
    "SceneModel",
    "Vocabulary",
    "WasnowError",
    "__version__",
    "detect",
    "detect_pairs",
    "load",
    "make_plan",
]

if TYPE_CHECKING:
    from wasnow.batch import detect_pairs
    from wasnow.errors import WasnowError
    from wasnow.models.checkpoint import load
    from wasnow.models.contract import ChangeLogits, ChangeModel, ModelCard, SceneModel
    from wasnow.output.change_map import ChangeMap
    from wasnow.pipeline.plan import Options, make_plan
    from wasnow.pipeline.run import detect
    from wasnow.vocabulary import Vocabulary


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'wasnow' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
