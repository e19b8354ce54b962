"""wasnow compares two images of one place: where the land cover changed, from which class to which, how confidently.

    >>> import wasnow
    >>> result = wasnow.detect("2009.tif", "2017.tif", output="out/")

Public names are imported when they are first used, so that ``import wasnow`` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_MODULES = {
    "ChangeLogits": "wasnow.models.contract",
    "ChangeMap": "wasnow.output.change_map",
    "ChangeModel": "wasnow.models.contract",
    "InputError": "wasnow.errors",
    "Interrupted": "wasnow.errors",
    "ModelCard": "wasnow.models.contract",
    "OutputError": "wasnow.errors",
    "Raster": "wasnow.pipeline.inputs",
    "ResourceError": "wasnow.errors",
    "SceneModel": "wasnow.models.contract",
    "UsageError": "wasnow.errors",
    "WasnowError": "wasnow.errors",
    "detect": "wasnow.pipeline.api",
    "detect_pairs": "wasnow.batch",
    "evaluate": "wasnow.evaluation.scoring",
    "list_models": "wasnow.models.registry",
    "load": "wasnow.models.loading",
    "train": "wasnow.training.trainer",
    "verify": "wasnow.output.verify",
}

__all__ = [
    "ChangeLogits",
    "ChangeMap",
    "ChangeModel",
    "InputError",
    "Interrupted",
    "ModelCard",
    "OutputError",
    "Raster",
    "ResourceError",
    "SceneModel",
    "UsageError",
    "WasnowError",
    "__version__",
    "detect",
    "detect_pairs",
    "evaluate",
    "list_models",
    "load",
    "train",
    "verify",
]

if TYPE_CHECKING:
    from wasnow.batch import detect_pairs
    from wasnow.errors import InputError, Interrupted, OutputError, ResourceError, UsageError, WasnowError
    from wasnow.evaluation.scoring import evaluate
    from wasnow.models.contract import ChangeLogits, ChangeModel, ModelCard, SceneModel
    from wasnow.models.loading import load
    from wasnow.models.registry import list_models
    from wasnow.output.change_map import ChangeMap
    from wasnow.output.verify import verify
    from wasnow.pipeline.api import detect
    from wasnow.pipeline.inputs import Raster
    from wasnow.training.trainer import train


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'wasnow' has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
