"""The sizes of a CLIP and its activation: everything that its weights do not state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from wasnow.errors import UsageError, did_you_mean

Activation = Literal["gelu", "quickgelu"]
ACTIVATIONS: Mapping[str, str] = {"gelu": "gelu", "quickgelu": "quick_gelu"}
"""Our names of the activations, and those of transformers."""

Values = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipConfig:
    """The sizes of both towers, and everything else that their weights do not state.

    Attributes:
        image_width: D, width of the image tower.
        image_layers: number of its blocks.
        image_heads: attention heads per block.
        image_mlp: hidden width per block.
        patch: side of a patch in pixels.
        image_size: side of the square training images, in pixels.
        text_width: Dt, width of the text tower.
        text_layers: number of its blocks.
        text_heads: attention heads per block.
        text_mlp: hidden width per block.
        embed: E, width of the common space.
        activation: of the weights, ``gelu`` or ``quickgelu``.
        text_positions: positions of the text tower, SOS and EOS included.
        vocabulary: number of tokens; the last one is EOS.
        eps: of the layer norms.

    Raises:
        UsageError: the sizes are not valid.
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
                raise UsageError(f"CLIP {name} is {value}; it must be greater than 0")
        for tower in ("image", "text"):
            width, heads = getattr(self, f"{tower}_width"), getattr(self, f"{tower}_heads")
            if width % heads:
                raise UsageError(f"{heads} heads do not divide the {tower} width {width}; use a number that does")
        if self.image_size % self.patch:
            raise UsageError(f"patches of {self.patch} px do not divide images of {self.image_size} px")
        if self.activation not in ACTIVATIONS:
            known = sorted(ACTIVATIONS)
            raise UsageError(
                f"unknown CLIP activation {self.activation!r}; use one of {', '.join(known)}"
                f"{did_you_mean(self.activation, known)}"
            )

    @property
    def grid(self) -> int:
        """Patches per side of the training images."""
        return self.image_size // self.patch

    @property
    def eos(self) -> int:
        """The token that ends a text; the text tower is read there."""
        return self.vocabulary - 1

    def dict(self) -> Values:
        """Return JSON values, for a header."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ClipConfig:
        """Invert `dict`.

        Raises:
            UsageError: a value is missing, unknown, or incompatible with the others.
        """
        known = [one.name for one in fields(cls)]
        for name in values:
            if name not in known:
                raise UsageError(f"unknown CLIP setting {name!r}{did_you_mean(name, known)}")
        try:
            return cls(**values)
        except TypeError:
            needed = ", ".join(name for name in known[:11] if name not in values)
            raise UsageError(f"the description of a CLIP lacks {needed or 'numeric values'}") from None


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
"""The usual sizes with open_clip's activation; OpenAI's weights of these sizes differ only in the activation."""
