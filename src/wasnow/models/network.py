"""The base class of the networks of this package: modules with options and weights that a checkpoint can hold."""

from __future__ import annotations

from typing import Any

from torch import nn

from wasnow.models.contract import WeightsInfo


class Network(nn.Module):
    """A `ChangeModel` that is an ``nn.Module``. `wasnow.models.checkpoint` saves and loads subclasses.

    Subclasses implement ``card``, ``bind``, ``config`` and ``forward``, and put ``weights_info`` into their card.

    Attributes:
        weights_info: what the checkpoint states about the weights; set by `wasnow.models.checkpoint.load`.
    """

    weights_info: WeightsInfo = WeightsInfo()

    def config(self) -> dict[str, Any]:
        """Return the arguments that build this network again, as JSON values."""
        raise NotImplementedError

    def parameter_count(self) -> int:
        """Return the number of trainable parameters."""
        return sum(each.numel() for each in self.parameters())
