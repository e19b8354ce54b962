"""The models, one file each. `MODELS` is the whole list: a name, what it is, and where its factory lives.

Factories are named by text so that listing models imports none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wasnow.errors import CheckpointError, UnknownModel, UsageError

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
        shipped: the checkpoint that comes with the package, a file of this folder; None for all others.
    """

    summary: str
    answers: str
    weights: str
    factory: str
    network: bool = False
    shipped: str | None = None


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
    "hrscd": ModelEntry(
        summary="land cover of each date, and change told their difference (Caye Daudt et al. 2019)",
        answers="change, classes",
        weights="train it, or convert published ones",
        factory="wasnow.models.hrscd:HRSCD",
        network=True,
    ),
    "changemask": ModelEntry(
        summary="EfficientNet-B0, change as a symmetric function of its maps (Zheng et al. 2022)",
        answers="change, classes",
        weights="train it, or convert published ones",
        factory="wasnow.models.changemask:ChangeMask",
        network=True,
    ),
    "ted": ModelEntry(
        summary="SSCD-l with a decoder for each branch (Ding et al. 2024)",
        answers="change, classes",
        weights="train it, or convert published ones",
        factory="wasnow.models.ted:TED",
        network=True,
    ),
    "scannet": ModelEntry(
        summary="TED with attention along rows and columns (Ding et al. 2024)",
        answers="change, classes",
        weights="train it, or convert published ones",
        factory="wasnow.models.scannet:SCanNet",
        network=True,
    ),
    "smnet": ModelEntry(
        summary="convolutions and attention by turns (a reconstruction after Niu et al. 2023)",
        answers="change, classes",
        weights="train it",
        factory="wasnow.models.smnet:SMNet",
        network=True,
    ),
    "semantic-cd": ModelEntry(
        summary="CLIP that sees two dates and answers with any words (Zhu et al. 2025)",
        answers="change, classes",
        weights="train it",
        factory="wasnow.models.semantic_cd:SemanticCD",
        network=True,
    ),
    "semantic-cd-mini": ModelEntry(
        summary="a small Semantic-CD that answers with any words, for two CPU cores",
        answers="change, classes",
        weights="come with wasnow",
        factory="wasnow.models.semantic_cd_mini:SemanticCDMini",
        network=True,
        shipped="semantic_cd_mini.safetensors",
    ),
    "sam-cd": ModelEntry(
        summary="SegFormer that attends where text-prompted masks point (after an abstract, ICASSP 2024)",
        answers="change, classes",
        weights="train it",
        factory="wasnow.models.sam_cd:SAMCD",
        network=True,
    ),
    "mamba-scd": ModelEntry(
        summary="VMamba, and scans over the pair in three arrangements (Chen et al. 2024); tiny, small and base",
        answers="change, classes",
        weights="train it, or convert published ones",
        factory="wasnow.models.mamba_scd:MambaSCD",
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


DEFAULT = "semantic-cd-mini"
"""What ``wasnow detect`` uses unless it is told otherwise."""


def shipped(name: str) -> Path | None:
    """The checkpoint of a model that comes with wasnow; None for names that come without one.

    Raises:
        CheckpointError: it should be there and is not.
    """
    entry = MODELS.get(name)
    if entry is None or entry.shipped is None:
        return None
    path = Path(__file__).with_name(entry.shipped)
    if not path.is_file():
        raise CheckpointError(
            path,
            f"the weights of {name} come with wasnow, and are not there",
            "install wasnow again, or choose --model irmad, which needs none",
        )
    return path


def ready(name: str, device: str = "cpu") -> ChangeModel | SceneModel:
    """A model that can answer by its name alone.

    Args:
        name: of `MODELS`.
        device: where a network goes.

    Raises:
        UnknownModel: no such name; says which are near.
        UsageError: it is a network, and a network without weights would answer noise.
        CheckpointError: its weights should have come with wasnow, and are missing or damaged.
    """
    if (path := shipped(name)) is not None:
        from wasnow.models import checkpoint

        return checkpoint.load(path, device=device)
    if name in MODELS and MODELS[name].network:
        raise UsageError(
            f"{name} is a network and knows nothing without weights; give the file of a checkpoint instead "
            f"(made by 'wasnow train {name}' or 'wasnow convert WEIGHTS --model {name}')"
        )
    return build(name)
