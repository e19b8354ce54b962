"""Validation during training: scores of the selection pairs, shared out over the devices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from lightning_fabric import Fabric
from torch import distributed, nn

from wasnow.errors import UsageError
from wasnow.evaluation import count
from wasnow.evaluation.metrics import Confusion
from wasnow.models.contract import ChangeModel
from wasnow.training.config import TrainConfig
from wasnow.training.roles import DataRoles, Subset
from wasnow.vocabulary import Vocabulary

if TYPE_CHECKING:
    from wasnow.data.samples import Samples


def validation_scores(
    network: nn.Module, roles: DataRoles, vocabulary: Vocabulary, config: TrainConfig, fabric: Fabric
) -> dict[str, float]:
    """Return the headline scores of the selection pairs, equal on every device.

    Args:
        network: a `ChangeModel`, the same on every device.
        roles: with selection pairs.
        vocabulary: classes of the model.
        config: of the run.
        fabric: the devices.

    Raises:
        UsageError: no selection pair has labels.
    """
    select = roles.select
    assert select is not None
    model, rank, world = cast(ChangeModel, network), fabric.global_rank, fabric.world_size
    own_share = Subset(select, tuple(range(rank, len(select), world)))
    words = vocabulary if len(select.vocabulary) else Vocabulary()
    bf16 = config.precision == "bf16"
    counts = [_counts(model, own_share, words, bf16=bf16)]
    if config.leave_out and len(words):
        # Pixels of a withheld class are left out of the class counts, but their change label counts.
        counts.append(_counts(model, own_share, Vocabulary(), bf16=bf16))
    if world > 1:
        gathered: list[Any] = [None] * world
        distributed.all_gather_object(gathered, counts)
        counts = [[one for share in gathered for one in share[i]] for i in range(len(counts))]
    if not counts[0]:
        raise UsageError(f"none of the validation pairs ({roles.selected_on}) has labels; use --set holdback=0")
    scores, *of_change = (Confusion.total(one).scores().headline() for one in counts)
    for binary in of_change:
        scores |= {name: one for name, one in binary.items() if name.startswith("binary.")}
    return scores


def _counts(model: ChangeModel, samples: Samples, words: Vocabulary, *, bf16: bool) -> list[Confusion]:
    rows, _ = count(model, samples, words, threshold=model.card.threshold, bf16=bf16)
    return [row.confusion for row in rows]
