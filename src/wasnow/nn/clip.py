"""CLIP's two towers, opened up: tokens between the blocks, any image size, a prefix that many texts share.

    image (B, 3, h, w) ─ embed ─ tokens (B, 1 + N, D) ─ blocks ─ project ─ (B, 1 + N, E)
                                                       └ a trainable filter may follow any block
    text  (K, L) ids   ─ embed ─ + positions ─ blocks, causal ─ at EOS ─ project ─ (K, E)       `wasnow.nn.clip_text`

A. Radford et al., "Learning transferable visual models from natural language supervision", ICML 2021. The blocks, and
the names of their weights, are those of transformers. Two activations are in use: GELU (open_clip, and what is trained
with it) and OpenAI's QuickGELU, x sigmoid(1.702 x). Weights run with either and are only valid with their own, so a
`ClipConfig` always states it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from wasnow.errors import UsageError
from wasnow.nn.clip_blocks import Tower, tower_blocks
from wasnow.nn.clip_config import ClipConfig
from wasnow.nn.clip_text import TextTower

LOGIT_SCALE = 2.6592
"""ln(1 / 0.07), the initial value in CLIP's training."""


class ImageTower(Tower):
    """The image tower, for images of any size that its patches divide.

    Attributes:
        blocks: `Block` s, to be run in order, with other layers between them where needed.
        checkpointing: see `Block`; sets all of them.
    """

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        width = config.image_width
        self.config = config
        self.class_embedding = nn.Parameter(torch.randn(width) * width**-0.5)
        self.patch_embedding = nn.Conv2d(3, width, config.patch, config.patch, bias=False)
        self.position_embedding = nn.Parameter(torch.randn(1 + config.grid**2, width) * width**-0.5)
        self.norm_before = nn.LayerNorm(width, eps=config.eps)
        self.blocks = tower_blocks(config, "image")
        self.norm_after = nn.LayerNorm(width, eps=config.eps)
        self.projection = nn.Linear(width, config.embed, bias=False)
        nn.init.normal_(self.projection.weight, std=width**-0.5)

    def positions(self, rows: int, cols: int) -> Tensor:
        """Return ``(1 + rows * cols, D)``: the trained positions, resized bicubically for another grid."""
        grid = self.config.grid
        if (rows, cols) == (grid, grid):
            return self.position_embedding
        first, rest = self.position_embedding[:1], self.position_embedding[1:]
        maps = rest.view(1, grid, grid, -1).permute(0, 3, 1, 2)
        exact = torch.promote_types(maps.dtype, torch.float32)
        resized = functional.interpolate(maps.to(exact), (rows, cols), mode="bicubic", align_corners=False)
        return torch.cat([first, resized[0].flatten(1).T.to(rest.dtype)])

    def embed(self, images: Tensor) -> Tensor:
        """Return the input of the first block: patches with their positions, after a class token.

        Args:
            images: ``(B, 3, h, w)``, normalised for CLIP.

        Returns:
            ``(B, 1 + h w / patch^2, D)``, the patches row by row.

        Raises:
            UsageError: the patch size does not divide the images.
        """
        patch, (height, width) = self.config.patch, images.shape[-2:]
        if height % patch or width % patch:
            raise UsageError(
                f"images of {height} x {width} px cannot be cut into patches of {patch} px; "
                f"resize them to {max(1, round(height / patch)) * patch} x {max(1, round(width / patch)) * patch}"
            )
        patches = self.patch_embedding(images.to(self.patch_embedding.weight.dtype)).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_embedding.to(patches).expand(len(images), 1, -1), patches], dim=1)
        embedded: Tensor = self.norm_before(tokens + self.positions(height // patch, width // patch))
        return embedded

    def project(self, tokens: Tensor) -> Tensor:
        """Project tokens ``(..., D)`` after the last block to the common space, ``(..., E)``; not of unit length."""
        projected: Tensor = self.projection(self.norm_after(tokens))
        return projected

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``(B, E)`` for each image ``(B, 3, h, w)`` and ``(B, N, E)`` for its patches; not of unit length.

        Raises:
            UsageError: the patch size does not divide the images.
        """
        tokens = self.embed(images)
        for block in self.blocks:
            tokens = block(tokens)
        projected = self.project(tokens)
        return projected[:, 0], projected[:, 1:]


class Clip(nn.Module):
    """Both towers and the scale of their cosines, with random weights until some are loaded.

    Attributes:
        config: sizes and activation.
        image: the image tower.
        text: the text tower.
        logit_scale: the logarithm of the factor of cosines.
    """

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.config = config
        self.image = ImageTower(config)
        self.text = TextTower(config)
        self.logit_scale = nn.Parameter(torch.tensor(LOGIT_SCALE))
