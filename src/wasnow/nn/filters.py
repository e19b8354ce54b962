"""The bi-temporal change semantic filter: what makes a frozen image tower look at two dates at once.

    X1, X2  (B, N, D): the tokens of both dates after a block, N = H W places

    S  = sigmoid(w . [X1; X2])                  (B, N, 1): one map of places for both dates
    gt = sigmoid(ut . [vec X1; vec X2] + bt)    (B, 1, D): one gate a channel, for each date t its own
    Yt = Xt + phi(Xt S) + psi(Xt gt)            phi, psi: D -> D, GELU, D -> D, shared by the dates

Source: Zhu et al., "Semantic-CC" (arXiv 2407.14032), equations of its filter, and Semantic-CD (arXiv 2501.06808), which
takes it over. ``ut`` weighs every place of a grid, so it belongs to one grid of tokens; other grids get its weights
spread over their cells, with the same sum (`spread`).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Start = Literal["identity", "published"]


def spread(weights: Tensor, rows: int, cols: int) -> Tensor:
    """Weights of places on another grid of the same ground: each cell gets its share of the cells that it overlaps.

    Args:
        weights: ``(..., h, w)``.
        rows: of the answer.
        cols: of the answer.

    Returns:
        ``(..., rows, cols)`` with the same sum; the weights themselves for the same grid.
    """
    if weights.shape[-2:] == (rows, cols):
        return weights
    down, across = _shares(weights.shape[-2], rows), _shares(weights.shape[-1], cols)
    return down.to(weights) @ weights @ across.to(weights).T


def _shares(old: int, new: int) -> Tensor:
    """``(new, old)``: which part of each old cell lies in each new one; every column sums to 1."""
    starts, ends = (torch.arange(new, dtype=torch.float64)[:, None] + k for k in (0, 1))
    first = torch.arange(old, dtype=torch.float64)[None]
    overlap = torch.minimum(ends * old / new, first + 1) - torch.maximum(starts * old / new, first)
    return overlap.clamp(min=0)


class BiTemporalFilter(nn.Module):
    """One filter after one block; see the module for its equations.

    Args:
        width: D.
        grid: (rows, cols) of tokens that the gates' weights are stored for.
        start: ``identity`` begins as if the filter were not there (the last layers of phi and psi are 0, and ``ut`` is
            the mean over the places); ``published`` as the public code, whose gates begin with ``ut`` = 1 and therefore
            saturated.
    """

    def __init__(self, width: int, grid: tuple[int, int], *, start: Start = "identity") -> None:
        super().__init__()
        places = grid[0] * grid[1]
        self.place = nn.Linear(2 * width, 1, bias=False)
        nn.init.constant_(self.place.weight, 1 / (2 * width))
        # (date whose gate it is, date that it looks at, rows, cols)
        self.gate_weight = nn.Parameter(torch.full((2, 2, *grid), 1.0 if start == "published" else 1 / (2 * places)))
        self.gate_bias = nn.Parameter(torch.zeros(2))
        self.of_places = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.of_channels = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        if start == "identity":
            for branch in (self.of_places, self.of_channels):
                for parameter in branch[-1].parameters():
                    nn.init.zeros_(parameter)

    def forward(self, before: Tensor, after: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Tokens ``(B, N, D)`` of both dates to the same; ``grid`` says how N = rows x cols."""
        place = self.place(torch.cat([before, after], dim=-1)).sigmoid()
        weights = spread(self.gate_weight, *grid).flatten(2)
        both = torch.stack([before, after], dim=1)  # (B, date, N, D)
        gates = torch.einsum("tin,bind->btd", weights.to(both), both) + self.gate_bias.to(both)[:, None]
        gates = gates.sigmoid()
        return (
            before + self.of_places(before * place) + self.of_channels(before * gates[:, :1]),
            after + self.of_places(after * place) + self.of_channels(after * gates[:, 1:]),
        )
