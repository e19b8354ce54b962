"""The layouts in which CLIP weights are published, and how they map to `wasnow.nn.clip`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from wasnow.errors import CheckpointError, UsageError
from wasnow.nn.clip import Clip
from wasnow.nn.clip_config import ACTIVATIONS, Activation, ClipConfig


@dataclass(frozen=True, slots=True)
class Layout:
    """The names of a published layout.

    Attributes:
        description: the file beside the weights that has what the weights do not.
        names: how our names begin -> how theirs begin.
        in_block: the same within a block.
        joined: whether query, key and value are one tensor, and projections are stored transposed.
        ignored: pattern of the names of stored tensors without new information.
    """

    description: str
    names: Mapping[str, str]
    in_block: Mapping[str, str]
    joined: bool
    ignored: str


OPEN_CLIP = Layout(
    description="open_clip_config.json",
    names={
        "image.class_embedding": "visual.class_embedding",
        "image.patch_embedding": "visual.conv1",
        "image.position_embedding": "visual.positional_embedding",
        "image.norm_before": "visual.ln_pre",
        "image.blocks": "visual.transformer.resblocks",
        "image.norm_after": "visual.ln_post",
        "image.projection.weight": "visual.proj",
        "text.token_embedding": "token_embedding",
        "text.position_embedding": "positional_embedding",
        "text.blocks": "transformer.resblocks",
        "text.norm_after": "ln_final",
        "text.projection.weight": "text_projection",
    },
    in_block={
        "layer_norm1": "ln_1",
        "layer_norm2": "ln_2",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
        "self_attn.out_proj": "attn.out_proj",
        "self_attn.q_proj.": "attn.in_proj_",
        "self_attn.k_proj.": "attn.in_proj_",
        "self_attn.v_proj.": "attn.in_proj_",
    },
    joined=True,
    ignored=r"attn_mask|input_resolution|context_length|vocab_size",
)

HUGGING_FACE = Layout(
    description="config.json",
    names={
        "image.class_embedding": "vision_model.embeddings.class_embedding",
        "image.patch_embedding": "vision_model.embeddings.patch_embedding",
        "image.position_embedding": "vision_model.embeddings.position_embedding.weight",
        "image.norm_before": "vision_model.pre_layrnorm",
        "image.blocks": "vision_model.encoder.layers",
        "image.norm_after": "vision_model.post_layernorm",
        "image.projection": "visual_projection",
        "text.token_embedding": "text_model.embeddings.token_embedding",
        "text.position_embedding": "text_model.embeddings.position_embedding.weight",
        "text.blocks": "text_model.encoder.layers",
        "text.norm_after": "text_model.final_layer_norm",
        "text.projection": "text_projection",
    },
    in_block={},
    joined=False,
    ignored=r".*\.position_ids",
)


@dataclass(frozen=True, slots=True)
class Description:
    """What the file beside the weights states beyond shapes; None where it states nothing."""

    activation: Activation | None = None
    image_heads: int | None = None
    text_heads: int | None = None
    eps: float = 1e-5


def layout_of(path: Path, theirs: Mapping[str, Tensor]) -> Layout:
    """Return the layout of these names.

    Raises:
        CheckpointError: they do not belong to a CLIP with both towers and a vision transformer.
    """
    if any(name.startswith("visual.layer1.") for name in theirs):
        raise CheckpointError(path, "a CLIP with a ResNet", "use one with a vision transformer (ViT)")
    for layout, image, text in ((OPEN_CLIP, "visual.", "transformer."), (HUGGING_FACE, "vision_model.", "text_model.")):
        towers = [any(name.startswith(begins) for name in theirs) for begins in (image, text)]
        if all(towers):
            return layout
        if any(towers):
            held, missing = ("image", "text") if towers[0] else ("text", "image")
            if held == "image" or layout is HUGGING_FACE:
                raise CheckpointError(
                    path, f"has the {held} tower of a CLIP without the {missing} tower", "use weights that have both"
                )
    raise CheckpointError(
        path, f"not a CLIP: its first tensor is {next(iter(theirs))}", "use weights of open_clip or Hugging Face"
    )


def describe_beside(path: Path, layout: Layout) -> Description:
    """Return what the description file beside the weights states; nothing without such a file.

    Raises:
        CheckpointError: the file is damaged or describes something else.
    """
    if not path.is_file():
        return Description()
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        return _described_by_open_clip(held) if layout is OPEN_CLIP else _described_by_hugging_face(path, held)
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise CheckpointError(
            path, f"does not describe a CLIP ({reason})", "correct or remove it, and pass --activation"
        ) from None


def _described_by_open_clip(held: Mapping[str, Any]) -> Description:
    held = held["model_cfg"]
    image, text = held["vision_cfg"], held["text_cfg"]
    return Description(
        activation="quickgelu" if held.get("quick_gelu", False) else "gelu",
        image_heads=int(image["width"]) // int(image.get("head_width", 64)),
        text_heads=int(text["heads"]),
    )


def _described_by_hugging_face(path: Path, held: Mapping[str, Any]) -> Description:
    # Omitted settings have the defaults of CLIP's configuration class.
    defaults = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
    image, text = (
        {**defaults, "num_attention_heads": heads, **held[f"{tower}_config"]}
        for tower, heads in (("vision", 12), ("text", 8))
    )
    for setting in defaults:
        if image[setting] != text[setting]:
            raise CheckpointError(
                path,
                f"the towers differ in {setting} ({image[setting]} and {text[setting]})",
                "such a CLIP is not supported",
            )
    ours = {theirs: name for name, theirs in ACTIVATIONS.items()}
    if image["hidden_act"] not in ours:
        raise CheckpointError(
            path, f"the activation is {image['hidden_act']!r}", f"supported are {' and '.join(sorted(ours))}"
        )
    return Description(
        activation=cast(Activation, ours[image["hidden_act"]]),
        image_heads=int(image["num_attention_heads"]),
        text_heads=int(text["num_attention_heads"]),
        eps=float(image["layer_norm_eps"]),
    )


HEADS: Mapping[str, Mapping[int, int]] = {
    "image": {width: width // 64 for width in (384, 512, 640, 768, 896, 1024)} | dict.fromkeys((1280, 1408, 1664), 16),
    "text": {width: width // 64 for width in (384, 512, 640, 768, 1024, 1280)},
}
"""Attention heads by the widths of published CLIPs: shapes do not determine them."""


def config_of(
    path: Path,
    theirs: Mapping[str, Tensor],
    layout: Layout,
    described: Description,
    activation: Activation | None,
) -> ClipConfig:
    """Return sizes from the shapes, and the rest from options and descriptions.

    Args:
        path: the file, for messages.
        theirs: tensors by their names.
        layout: of these names.
        described: what the file beside the weights states.
        activation: ``gelu`` or ``quickgelu``; None takes the described one.

    Raises:
        UsageError: the activation is unknown.
        CheckpointError: the tensors do not form a CLIP.
    """
    chosen = activation or described.activation
    if chosen is None:
        raise UsageError(
            f"{path} does not state the activation it was trained with; pass --activation gelu (usual for open_clip) "
            "or --activation quickgelu (OpenAI's)"
        )

    def shape(ours: str, dimensions: int) -> tuple[int, ...]:
        name = _theirs_of(ours, layout)
        if name not in theirs:
            raise CheckpointError(path, f"it has no {name}, which a CLIP requires", "use the weights of a whole CLIP")
        found = tuple(theirs[name].shape)
        if len(found) != dimensions:
            raise CheckpointError(
                path, f"{name} has shape {found} instead of {dimensions} dimensions", "use another copy"
            )
        return found

    def layers(tower: str) -> int:
        numbers = re.compile(re.escape(layout.names[f"{tower}.blocks"]) + r"\.(\d+)\.")
        return 1 + max((int(found[1]) for name in theirs if (found := numbers.match(name))), default=-1)

    def heads(tower: str, width: int, said: int | None) -> int:
        if said is None and width not in HEADS[tower]:
            raise CheckpointError(
                path,
                f"the number of attention heads of its {tower} tower of width {width} is unknown",
                f"put the {layout.description} that belongs to it into the same folder",
            )
        return said or HEADS[tower][width]

    places, image_width = shape("image.position_embedding", 2)
    grid = math.isqrt(places - 1) if places > 0 else 0
    if 1 + grid * grid != places:
        name = _theirs_of("image.position_embedding", layout)
        raise CheckpointError(path, f"{name} has {places} rows instead of a square number plus 1", "use another CLIP")
    patch = shape("image.patch_embedding.weight", 4)[-1]
    vocabulary, text_width = shape("text.token_embedding.weight", 2)
    embed = shape("text.projection.weight", 2)[1 if layout.joined else 0]
    try:
        return ClipConfig(
            image_width=image_width,
            image_layers=layers("image"),
            image_heads=heads("image", image_width, described.image_heads),
            image_mlp=shape("image.blocks.0.mlp.fc1.weight", 2)[0],
            patch=patch,
            image_size=grid * patch,
            text_width=text_width,
            text_layers=layers("text"),
            text_heads=heads("text", text_width, described.text_heads),
            text_mlp=shape("text.blocks.0.mlp.fc1.weight", 2)[0],
            embed=embed,
            activation=chosen,
            text_positions=shape("text.position_embedding", 2)[0],
            vocabulary=vocabulary,
            eps=described.eps,
        )
    except UsageError as error:
        raise CheckpointError(path, f"its shapes do not fit a CLIP ({error})", "use another copy") from None


def rename(path: Path, theirs: Mapping[str, Tensor], layout: Layout, config: ClipConfig) -> dict[str, Tensor]:
    """Return the same weights under our names.

    Args:
        path: the file, for messages.
        theirs: tensors by their names.
        layout: of these names.
        config: the sizes that they must have.

    Raises:
        CheckpointError: a tensor is missing, unknown, or has another shape; names the first one in their terms.
    """
    with torch.device("meta"):
        wanted = {name: tuple(tensor.shape) for name, tensor in Clip(config).state_dict().items()}
    advice = "it belongs to another network, or is a part of one"
    taken: set[str] = set()
    ours: dict[str, Tensor] = {}
    for name, shape in wanted.items():
        source, take, whole = _theirs_of(name, layout), *_taking(name, shape, layout)
        if source not in theirs:
            raise CheckpointError(path, f"it has no {source} {whole}, which this CLIP requires", advice)
        if tuple(theirs[source].shape) != whole:
            raise CheckpointError(path, f"{source} has shape {tuple(theirs[source].shape)} instead of {whole}", advice)
        taken.add(source)
        ours[name] = take(theirs[source])
    for name, tensor in theirs.items():
        if name not in taken and not re.fullmatch(layout.ignored, name):
            raise CheckpointError(path, f"it has {name} {tuple(tensor.shape)}, which CLIP does not have", advice)
    return ours


def _theirs_of(ours: str, layout: Layout) -> str:
    """Return their name of one of our tensors, or of the tensor that contains it."""
    for begins, name in layout.names.items():
        if ours.startswith(begins):
            ours = name + ours.removeprefix(begins)
            break
    for begins, name in layout.in_block.items():
        ours = ours.replace(f".{begins}", f".{name}", 1)
    return ours


def _taking(ours: str, shape: tuple[int, ...], layout: Layout) -> tuple[Callable[[Tensor], Tensor], tuple[int, ...]]:
    """Return how to extract one of our tensors from theirs, and the shape that theirs must have."""
    if layout.joined and (part := re.search(r"\.self_attn\.([qkv])_proj\.", ours)):
        place = "qkv".index(part[1])
        return lambda joined: joined.chunk(3)[place], (3 * shape[0], *shape[1:])
    if layout.joined and ours.endswith(".projection.weight"):
        return lambda turned: turned.T, shape[::-1]
    return lambda same: same, shape
