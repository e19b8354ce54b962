"""CLIP's two towers, opened up: tokens between the blocks, any image size, a prefix that many texts share.

    image (B, 3, h, w) ─ embed ─ tokens (B, 1 + N, D) ─ blocks ─ project ─ (B, 1 + N, E)
                                                       └ a trainable filter may stand after any block
    text  (K, L) ids   ─ embed ─ + positions ─ blocks, causal ─ at EOS ─ project ─ (K, E)

    prefix (B, P, Dt) ───────── computed once a row ──────┐ keys, values of each block
    suffix (K, L, Dt) ── one softmax over [prefix_b ; suffix_k up to here] ── at EOS ─ project ─ (B, K, E)

A. Radford et al., "Learning transferable visual models from natural language supervision", ICML 2021. The blocks are
those of transformers, and so are the names of their weights. Two activations are about: GELU (open_clip, and what is
trained with it) and OpenAI's QuickGELU, x sigmoid(1.702 x). The same weights run with either and mean something only
with their own, so a `ClipConfig` always says which.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers.models.clip.configuration_clip import CLIPTextConfig, CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from wasnow.errors import UsageError, did_you_mean

Activation = Literal["gelu", "quickgelu"]
ACTIVATIONS: Mapping[str, str] = {"gelu": "gelu", "quickgelu": "quick_gelu"}
"""Our names of the activations, and those of transformers."""

LOGIT_SCALE = 2.6592
"""ln(1 / 0.07), where CLIP's training starts."""

Values = dict[str, Any]


# -------------------------------------------------------------------------------------------------------------- sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipConfig:
    """The sizes of both towers, and all else that their weights do not say.

    Attributes:
        image_width: D, width of the image tower.
        image_layers: how many blocks it has.
        image_heads: attention heads of each.
        image_mlp: hidden width of each.
        patch: side of a patch in pixels.
        image_size: side of the square images that it was trained on, in pixels.
        text_width: Dt, width of the text tower.
        text_layers: likewise.
        text_heads: likewise.
        text_mlp: likewise.
        embed: E, width of the space that both towers lead to.
        activation: of the weights; see the module.
        text_positions: tokens, SOS and EOS included, that the text tower was trained for.
        vocabulary: how many tokens there are; the last one is EOS.
        eps: of the layer norms.

    Raises:
        UsageError: the sizes cannot be those of a network.
    """

    image_width: int
    image_layers: int
    image_heads: int
    image_mlp: int
    patch: int
    image_size: int
    text_width: int
    text_layers: int
    text_heads: int
    text_mlp: int
    embed: int
    activation: Activation = "gelu"
    text_positions: int = 77
    vocabulary: int = 49408
    eps: float = 1e-5

    def __post_init__(self) -> None:
        for name, value in self.dict().items():
            if name != "activation" and not value > 0:
                raise UsageError(f"a CLIP with {name} {value} cannot be; it must be above 0")
        for tower in ("image", "text"):
            width, heads = getattr(self, f"{tower}_width"), getattr(self, f"{tower}_heads")
            if width % heads:
                raise UsageError(f"{heads} heads do not divide the {tower} width {width}; give a number that does")
        if self.image_size % self.patch:
            raise UsageError(f"patches of {self.patch} px do not divide images of {self.image_size} px")
        if self.activation not in ACTIVATIONS:
            known = sorted(ACTIVATIONS)
            raise UsageError(
                f"CLIP has no activation {self.activation!r}; known are {', '.join(known)}"
                f"{did_you_mean(self.activation, known)}"
            )

    @property
    def grid(self) -> int:
        """Patches at one side of the images that it was trained on."""
        return self.image_size // self.patch

    @property
    def eos(self) -> int:
        """The token that ends a text, where the text tower is read."""
        return self.vocabulary - 1

    def dict(self) -> Values:
        """Plain JSON values, for a header."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ClipConfig:
        """What `dict` wrote.

        Raises:
            UsageError: a value is missing or unknown, or they do not fit together.
        """
        known = [one.name for one in fields(cls)]
        for name in values:
            if name not in known:
                raise UsageError(f"a CLIP has no setting {name!r}{did_you_mean(name, known)}")
        try:
            return cls(**values)
        except TypeError:
            needed = ", ".join(name for name in known[:11] if name not in values)
            raise UsageError(f"the description of a CLIP lacks {needed or 'numbers where numbers belong'}") from None


_B_32 = ClipConfig(
    image_width=768,
    image_layers=12,
    image_heads=12,
    image_mlp=3072,
    patch=32,
    image_size=224,
    text_width=512,
    text_layers=12,
    text_heads=8,
    text_mlp=2048,
    embed=512,
)

PRESETS: Mapping[str, ClipConfig] = {
    "vit-b-32": _B_32,
    "vit-b-16": replace(_B_32, patch=16),
    "vit-l-14": ClipConfig(
        image_width=1024,
        image_layers=24,
        image_heads=16,
        image_mlp=4096,
        patch=14,
        image_size=224,
        text_width=768,
        text_layers=12,
        text_heads=12,
        text_mlp=3072,
        embed=768,
    ),
    "vit-h-14": ClipConfig(
        image_width=1280,
        image_layers=32,
        image_heads=16,
        image_mlp=5120,
        patch=14,
        image_size=224,
        text_width=1024,
        text_layers=24,
        text_heads=16,
        text_mlp=4096,
        embed=1024,
    ),
}
"""The usual sizes, with open_clip's activation; OpenAI's weights of these sizes differ by their activation alone."""


# ------------------------------------------------------------------------------------------------------------- blocks


class Block(CLIPEncoderLayer):  # type: ignore[no-untyped-call]
    """A transformer block: ``x + attention(norm x)``, then ``x + mlp(norm x)``.

    Attributes:
        checkpointing: keep nothing for the gradient and compute twice instead.
    """

    checkpointing: bool = False

    def forward(self, tokens: Tensor, *, causal: bool = False) -> Tensor:  # type: ignore[override]
        """Tokens ``(B, L, D)`` to the same; each sees all, or with ``causal`` itself and those before it."""
        if self.checkpointing and tokens.requires_grad and torch.is_grad_enabled():
            return cast(Tensor, checkpoint(self._plain, tokens, causal, use_reentrant=False))
        return self._plain(tokens, causal)

    def _plain(self, tokens: Tensor, causal: bool) -> Tensor:
        return super().forward(tokens, None, is_causal=causal)  # type: ignore[arg-type]

    def heads(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of tokens ``(B, L, D)``, each ``(B, heads, L, D / heads)``; queries are scaled."""
        attention = self.self_attn
        tokens = self.layer_norm1(tokens)

        def split(projected: Tensor) -> Tensor:
            return projected.view(*projected.shape[:-1], attention.num_heads, attention.head_dim).transpose(-3, -2)

        queries: Tensor = split(attention.q_proj(tokens)) * attention.scale
        return queries, split(attention.k_proj(tokens)), split(attention.v_proj(tokens))

    def finish(self, tokens: Tensor, attended: Tensor) -> Tensor:
        """The rest of the block: tokens ``(B, L, D)`` and what they gathered, ``(B, heads, L, D / heads)``."""
        tokens = tokens + self.self_attn.out_proj(attended.transpose(-3, -2).flatten(-2))
        mixed: Tensor = tokens + self.mlp(self.layer_norm2(tokens))
        return mixed


def _blocks(config: ClipConfig, tower: Literal["image", "text"]) -> nn.ModuleList:
    """The blocks of a tower, with weights drawn as CLIP draws them: smaller steps where there are more blocks."""
    width, layers = getattr(config, f"{tower}_width"), getattr(config, f"{tower}_layers")
    sizes: Values = {
        "hidden_size": width,
        "intermediate_size": getattr(config, f"{tower}_mlp"),
        "num_hidden_layers": layers,
        "num_attention_heads": getattr(config, f"{tower}_heads"),
        "hidden_act": ACTIVATIONS[config.activation],
        "layer_norm_eps": config.eps,
        "attn_implementation": "sdpa",
    }
    theirs = CLIPVisionConfig(**sizes) if tower == "image" else CLIPTextConfig(**sizes)
    blocks = [Block(theirs) for _ in range(layers)]
    residual = (2 * layers) ** -0.5
    for block in blocks:
        attention, mlp = block.self_attn, block.mlp
        for linear, std in (
            (attention.q_proj, width**-0.5),
            (attention.k_proj, width**-0.5),
            (attention.v_proj, width**-0.5),
            (attention.out_proj, width**-0.5 * residual),
            (mlp.fc1, (2 * width) ** -0.5),
            (mlp.fc2, width**-0.5 * residual),
        ):
            nn.init.normal_(linear.weight, std=std)
            nn.init.zeros_(linear.bias)
    return nn.ModuleList(blocks)


class _Tower(nn.Module):
    """What both towers have: blocks, a norm after them, and a way to the common space."""

    blocks: nn.ModuleList

    @property
    def checkpointing(self) -> bool:
        """Whether its blocks keep nothing for the gradient and compute twice instead."""
        return all(cast(Block, block).checkpointing for block in self.blocks)

    @checkpointing.setter
    def checkpointing(self, wanted: bool) -> None:
        for block in self.blocks:
            cast(Block, block).checkpointing = wanted


# -------------------------------------------------------------------------------------------------------- image tower


class ImageTower(_Tower):
    """The image tower, for images of any size and shape that its patches divide.

    Attributes:
        blocks: `Block` s, to be run one after the other with whatever belongs between them.
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
        self.blocks = _blocks(config, "image")
        self.norm_after = nn.LayerNorm(width, eps=config.eps)
        self.projection = nn.Linear(width, config.embed, bias=False)
        nn.init.normal_(self.projection.weight, std=width**-0.5)

    def positions(self, rows: int, cols: int) -> Tensor:
        """``(1 + rows * cols, D)``: those it was trained with, resized bicubically where the grid is another."""
        grid = self.config.grid
        if (rows, cols) == (grid, grid):
            return self.position_embedding
        first, rest = self.position_embedding[:1], self.position_embedding[1:]
        maps = rest.view(1, grid, grid, -1).permute(0, 3, 1, 2)
        exact = torch.promote_types(maps.dtype, torch.float32)
        resized = functional.interpolate(maps.to(exact), (rows, cols), mode="bicubic", align_corners=False)
        return torch.cat([first, resized[0].flatten(1).T.to(rest.dtype)])

    def embed(self, images: Tensor) -> Tensor:
        """What the first block gets: patches with their positions, behind a class token.

        Args:
            images: ``(B, 3, h, w)``, normalised as CLIP wants it.

        Returns:
            ``(B, 1 + h w / patch^2, D)``, the patches row by row.

        Raises:
            UsageError: patches do not divide the images.
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
        """Tokens ``(..., D)`` after the last block to the common space, ``(..., E)``; not of unit length."""
        projected: Tensor = self.projection(self.norm_after(tokens))
        return projected

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images ``(B, 3, h, w)`` to ``(B, E)`` for each and ``(B, N, E)`` for its patches; not of unit length.

        Raises:
            UsageError: patches do not divide the images.
        """
        tokens = self.embed(images)
        for block in self.blocks:
            tokens = block(tokens)
        projected = self.project(tokens)
        return projected[:, 0], projected[:, 1:]


# --------------------------------------------------------------------------------------------------------- text tower


@dataclass(frozen=True, slots=True)
class Prefix:
    """The beginning that several texts share, as all that follows it will see of it.

    Attributes:
        keys: of each block, ``(B, heads, P, Dt / heads)``.
        values: likewise.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]


class TextTower(_Tower):
    """The text tower: causal, read at EOS.

    Attributes:
        blocks: `Block` s.
        checkpointing: see `Block`; sets all of them.
    """

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        width = config.text_width
        self.config = config
        self.token_embedding = nn.Embedding(config.vocabulary, width)
        self.position_embedding = nn.Parameter(torch.randn(config.text_positions, width) * 0.01)
        self.blocks = _blocks(config, "text")
        self.norm_after = nn.LayerNorm(width, eps=config.eps)
        self.projection = nn.Linear(width, config.embed, bias=False)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.projection.weight, std=width**-0.5)

    def embed(self, ids: Tensor) -> Tensor:
        """Ids ``(K, L)`` to ``(K, L, Dt)``; positions are not in it yet."""
        embedded: Tensor = self.token_embedding(ids)
        return embedded

    def positions(self, length: int) -> Tensor:
        """``(length, Dt)``: the first of those it was trained with; where they are too few, all of them, stretched.

        Stretching is linear and keeps the first and the last where they are.
        """
        own = self.position_embedding
        if length <= len(own):
            return own[:length]
        exact = torch.promote_types(own.dtype, torch.float32)
        stretched = functional.interpolate(own.T[None].to(exact), length, mode="linear", align_corners=True)
        return stretched[0].T.to(own.dtype)

    def project(self, tokens: Tensor) -> Tensor:
        """Tokens ``(..., Dt)`` after the last block to the common space, ``(..., E)``; not of unit length."""
        projected: Tensor = self.projection(self.norm_after(tokens))
        return projected

    def forward(self, ids: Tensor) -> Tensor:
        """Texts ``(K, L)``, each with an EOS and anything after it, to ``(K, E)``; not of unit length.

        Raises:
            ValueError: a row has no EOS.
        """
        ends = ids == self.config.eos
        if not bool(ends.any(1).all()):
            raise ValueError(f"a text without EOS ({self.config.eos}) cannot be read; make ids with tokenize")
        last = ends.int().argmax(1)
        # Nothing behind the last EOS is seen by anything that is read.
        needed = int(last.max()) + 1
        tokens = self.embed(ids[:, :needed]) + self.positions(ids.shape[1])[:needed]
        for block in self.blocks:
            tokens = block(tokens, causal=True)
        return self.project(tokens[torch.arange(len(ids), device=ids.device), last])

    def prefix(self, embedded: Tensor) -> Prefix:
        """Run the beginning that texts share, once.

        Args:
            embedded: ``(B, P, Dt)``, positions 0 to P - 1 added; gradients flow back to it.
        """
        keys, values = [], []
        for number, block in enumerate(self._typed_blocks()):
            # After the last block nobody looks at the prefix itself.
            ends = number + 1 == len(self.blocks)
            embedded, key, value = self._maybe_twice(_prefix_block, block, embedded, ends)
            keys.append(key)
            values.append(value)
        return Prefix(tuple(keys), tuple(values))

    def suffix(self, prefix: Prefix, embedded: Tensor, last: Tensor) -> Tensor:
        """Every text behind every prefix, as if each had been run whole: ``(B, K, E)``, not of unit length.

        Padding is left out of all computation, so that one long word does not make the others dear. Memory grows with
        B K L (P + L), never with K copies of the prefix.

        Args:
            prefix: of B beginnings of P tokens.
            embedded: ``(K, L, Dt)``, positions P to P + L - 1 added; gradients flow back to it.
            last: ``(K,)``, where in each row the EOS is, best on the CPU; what stands behind it is not looked at.
        """
        ragged = _Ragged.of(last, embedded.shape[1], embedded.device)
        batch = len(prefix.keys[0])
        tokens = embedded.flatten(0, 1)[ragged.kept].expand(batch, -1, -1)
        for block, keys, values in zip(self._typed_blocks(), prefix.keys, prefix.values, strict=True):
            tokens = self._maybe_twice(_suffix_block, block, tokens, keys, values, ragged)
        return self.project(tokens[:, ragged.ends])

    def _typed_blocks(self) -> Iterable[Block]:
        return (cast(Block, block) for block in self.blocks)

    def _maybe_twice(self, function: Any, *arguments: Any) -> Any:
        """Call it, with checkpointing where that is asked for and a gradient is wanted."""
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(function, *arguments, use_reentrant=False)
        return function(*arguments)


def _prefix_block(block: Block, tokens: Tensor, ends: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens ``(B, P, D)`` after a block (before it, where ``ends``), and its keys and values."""
    queries, keys, values = block.heads(tokens)
    if not ends:
        attended = functional.scaled_dot_product_attention(queries, keys, values, is_causal=True, scale=1.0)
        tokens = block.finish(tokens, attended)
    return tokens, keys, values


@dataclass(frozen=True, slots=True)
class _Ragged:
    """Where the T tokens of K texts of different lengths lie when they are written one after the other.

    Attributes:
        kept: ``(T,)``, where each is in the padded rows ``K * L``.
        slots: ``(K, L)``, the way back; where a row is padded, any number.
        row: ``(T,)``, the text that each is of.
        col: ``(T,)``, its place there.
        ends: ``(K,)``, the last of each text.
    """

    kept: Tensor
    slots: Tensor
    row: Tensor
    col: Tensor
    ends: Tensor

    @classmethod
    def of(cls, last: Tensor, length: int, device: torch.device) -> _Ragged:
        """For texts whose last tokens are at ``last`` (K,), padded to ``length`` or less.

        Counted where ``last`` is: on the CPU nothing waits for a GPU to say how many tokens there are.
        """
        ends = (last + 1).cumsum(0) - 1
        row, col = (torch.arange(length, device=last.device) <= last[:, None]).nonzero(as_tuple=True)
        starts = ends - last
        longest = int(col.max()) + 1
        slots = (starts[:, None] + torch.arange(longest, device=last.device)).clamp(max=len(row) - 1)
        there = (each.to(device) for each in (row * length + col, slots, row, col, ends))
        return cls(*there)


def _suffix_block(block: Block, tokens: Tensor, keys: Tensor, values: Tensor, ragged: _Ragged) -> Tensor:
    """Tokens ``(B, T, D)`` of all texts after a block, each having seen the prefix and its own text up to itself."""
    own_queries, own_keys, own_values = block.heads(tokens)
    slots, row, col = ragged.slots, ragged.row, ragged.col
    shared = own_queries @ keys.transpose(-2, -1)  # (B, heads, T, P)
    padded = own_queries[:, :, slots] @ own_keys[:, :, slots].transpose(-2, -1)  # (B, heads, K, L, L)
    own = padded[:, :, row, col]  # (B, heads, T, L)
    later = torch.arange(slots.shape[1], device=col.device) > col[:, None]
    scores = torch.cat([shared, own.masked_fill(later, float("-inf"))], dim=-1)
    weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(values.dtype)
    to_shared, to_own = weights[..., : keys.shape[-2]], weights[..., keys.shape[-2] :]
    # Rows of padding gather something too, which is not looked at.
    gathered = to_own[:, :, slots] @ own_values[:, :, slots]  # (B, heads, K, L, d)
    return block.finish(tokens, to_shared @ values + gathered[:, :, row, col])


# --------------------------------------------------------------------------------------------------------------- both


class Clip(nn.Module):
    """Both towers and the scale of their cosines, with random weights until some are loaded.

    Attributes:
        config: its sizes and activation.
        image: the image tower.
        text: the text tower.
        logit_scale: the logarithm of what cosines are multiplied with.
    """

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.config = config
        self.image = ImageTower(config)
        self.text = TextTower(config)
        self.logit_scale = nn.Parameter(torch.tensor(LOGIT_SCALE))
