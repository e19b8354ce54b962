"""The list of models: a name, a summary, and the factory.

Factories are given as text, so that listing the models imports none of them. `wasnow.models.loading` loads models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wasnow.errors import CheckpointError, UnknownModel

if TYPE_CHECKING:
    from wasnow.models.contract import ChangeModel, SceneModel


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One row of ``wasnow models``.

    Attributes:
        summary: one line; also the summary of the model's card.
        answers: what it predicts: change, or change and classes.
        weights: where they come from.
        factory: ``module:callable`` that builds the model.
        network: whether it is an ``nn.Module`` that needs weights.
        shipped: the checkpoint that comes with the package, a file of this folder; None for all others.
    """

    summary: str
    answers: str
    weights: str
    factory: str
    network: bool = False
    shipped: str | None = None


def _network(summary: str, factory: str, *, weights: str = "train, or convert published ones") -> ModelEntry:
    return ModelEntry(summary, "change, classes", weights, f"wasnow.models.{factory}", network=True)


MODELS: Mapping[str, ModelEntry] = {
    "irmad": ModelEntry(
        summary="iteratively reweighted multivariate alteration detection (Nielsen 2007)",
        answers="change",
        weights="none: fitted to the scene",
        factory="wasnow.models.irmad:IRMAD",
    ),
    "cva": ModelEntry(
        summary="change vector analysis after relative normalisation on unchanged pixels (Canty & Nielsen 2008)",
        answers="change",
        weights="none: fitted to the scene",
        factory="wasnow.models.cva:CVA",
    ),
    "sscd-l": _network("one ResNet-34 for both dates, late fusion (Ding et al. 2022)", "sscd_l:SSCDL"),
    "bisrnet": _network(
        "SSCD-l with attention within each date and between the dates (Ding et al. 2022)", "bisrnet:BiSRNet"
    ),
    "hrscd": _network(
        "land cover of each date, and change from images and land cover (strategy 4, Caye Daudt et al. 2019)",
        "hrscd:HRSCD",
    ),
    "changemask": _network(
        "EfficientNet-B0, change as a symmetric function of its feature maps (Zheng et al. 2022)",
        "changemask:ChangeMask",
    ),
    "ted": _network("SSCD-l with one decoder per branch (Ding et al. 2024)", "ted:TED"),
    "scannet": _network("TED with attention along rows and columns (Ding et al. 2024)", "scannet:SCanNet"),
    "smnet": _network(
        "alternating convolutions and attention (a reconstruction after Niu et al. 2023)",
        "smnet:SMNet",
        weights="train",
    ),
    "semantic-cd": _network(
        "CLIP for two dates, any class words (Zhu et al. 2025)", "semantic_cd:SemanticCD", weights="train"
    ),
    "semantic-cd-mini": ModelEntry(
        summary="a small Semantic-CD for CPUs, any class words",
        answers="change, classes",
        weights="come with wasnow",
        factory="wasnow.models.semantic_cd_mini:SemanticCDMini",
        network=True,
        shipped="semantic_cd_mini.safetensors",
    ),
    "sam-cd": _network(
        "SegFormer with attention to prior masks from text prompts (a reconstruction after ICASSP 2024)",
        "sam_cd:SAMCD",
        weights="train",
    ),
    "mamba-scd": _network(
        "VMamba, and scans over the pair in three arrangements (Chen et al. 2024); tiny, small and base",
        "mamba_scd:MambaSCD",
    ),
}


def build(name: str, **options: Any) -> ChangeModel | SceneModel:
    """Return a model by its name, with its own options.

    Raises:
        UnknownModel: no such name; suggests similar ones.
    """
    if name not in MODELS:
        raise UnknownModel(name, sorted(MODELS))
    module, _, factory = MODELS[name].factory.partition(":")
    model: ChangeModel | SceneModel = getattr(import_module(module), factory)(**options)
    return model


DEFAULT = "semantic-cd-mini"
"""The model of ``wasnow detect`` without ``--model``."""


def shipped(name: str) -> Path | None:
    """Return the checkpoint of a model that comes with wasnow; None for all other names.

    Raises:
        CheckpointError: the file is missing from the installation.
    """
    entry = MODELS.get(name)
    if entry is None or entry.shipped is None:
        return None
    path = Path(__file__).with_name(entry.shipped)
    if not path.is_file():
        raise CheckpointError(
            path,
            f"the weights of {name}, part of wasnow, are missing",
            "install wasnow again, or choose --model irmad, which needs none",
        )
    return path


def list_models() -> dict[str, ModelEntry]:
    """Return all models by name: the default first, then those whose checkpoint is part of the package."""
    return dict(sorted(MODELS.items(), key=lambda item: (item[0] != DEFAULT, item[1].shipped is None)))
