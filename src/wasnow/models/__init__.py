"""The models, one file each. `MODELS` is the whole list: a name, what it is, and where its factory lives.

Factories are named by text so that listing models imports none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from wasnow.errors import UnknownModel, UsageError

if TYPE_CHECKING:
    from wasnow.models.contract import ChangeModel, SceneModel


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One row of ``wasnow models``.

    Attributes:
        summary: what it is.
        answers: change, or classes too.
        weights: where they come from.
        factory: ``module:callable`` that makes it.
        network: whether it is an ``nn.Module`` that knows nothing before it has weights.
    """

    summary: str
    answers: str
    weights: str
    factory: str
    network: bool = False


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
    "sscd-l": ModelEntry(
        summary="one ResNet-34 for both dates, joined late (Ding et al. 2022)",
        answers="change, classes",
        weights="train it, or convert published ones",
        factory="wasnow.models.sscd_l:SSCDL",
        network=True,
    ),
    "bisrnet": ModelEntry(
        summary="SSCD-l with attention within and between the dates (Ding et al. 2022)",
        answers="change, classes",
        weights="train it, or convert published ones",
        factory="wasnow.models.bisrnet:BiSRNet",
        network=True,
    ),
    "semantic-cd": ModelEntry(
        summary="CLIP that sees two dates and answers with any words (Zhu et al. 2025)",
        answers="change, classes",
        weights="train it",
        factory="wasnow.models.semantic_cd:SemanticCD",
        network=True,
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


def ready(name: str) -> ChangeModel | SceneModel:
    """A model that can answer by its name alone.

    Raises:
        UnknownModel: no such name; says which are near.
        UsageError: it is a network, and a network without weights would answer noise.
    """
    if name in MODELS and MODELS[name].network:
        raise UsageError(
            f"{name} is a network and knows nothing without weights; give the file of a checkpoint instead "
            f"(made by 'wasnow train {name}' or 'wasnow convert WEIGHTS --model {name}')"
        )
    return build(name)
