"""The models, one file each. `MODELS` is the whole list: a name, what it is, and where its factory lives.

Factories are named by text so that listing models imports none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from wasnow.errors import UnknownModel

if TYPE_CHECKING:
    from wasnow.models.contract import ChangeModel, SceneModel


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One row of ``wasnow models``."""

    summary: str
    answers: str
    weights: str
    factory: str


MODELS: Mapping[str, ModelEntry] = {
    "irmad": ModelEntry(
        summary="iteratively reweighted multivariate alteration detection (Nielsen 2007)",
        answers="change",
        weights="none: fits itself to the scene",
        factory="wasnow.models.irmad:IRMAD",
    ),
    "cva": ModelEntry(
        summary="change vector analysis after relative normalisation on unchanged pixels (Canty & Nielsen 2008)",
        answers="change",
        weights="none: fits itself to the scene",
        factory="wasnow.models.cva:CVA",
    ),
}


def build(name: str, **options: Any) -> ChangeModel | SceneModel:
    """A model by its name, with its own options.

    Raises:
        UnknownModel: no such name; says which are near.
    """
    if name not in MODELS:
        raise UnknownModel(name, sorted(MODELS))
    module, _, factory = MODELS[name].factory.partition(":")
    model: ChangeModel | SceneModel = getattr(import_module(module), factory)(**options)
    return model
