"""CLIP weights on the Hugging Face Hub that can be downloaded by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wasnow.nn.clip_config import Activation


@dataclass(frozen=True, slots=True)
class Published:
    """Weights on the Hugging Face Hub.

    Attributes:
        repo: repository on the Hub.
        file: file in the repository.
        activation: that the authors use; None where no statement is known.
        revision: the commit of the digest; None takes the newest.
        size: in bytes; None where unknown.
        sha256: digest of the file; None where unknown.
    """

    repo: str
    file: str
    activation: Activation | None
    revision: str | None = None
    size: int | None = None
    sha256: str | None = None


KNOWN: Mapping[str, Published] = {
    "remoteclip-vit-l-14": Published(
        repo="chendelong/RemoteCLIP",
        file="RemoteCLIP-ViT-L-14.pt",
        activation="gelu",
        revision="bf1d8a3ccf2ddbf7c875705e46373bfe542bce38",
        size=1_710_613_765,
        sha256="fcc2a7e21e171f4ffcb7a9c0206b8b74ac0c9eb83c67b576958b7a4ed6c8cecb",
    ),
    "remoteclip-vit-b-32": Published(
        repo="chendelong/RemoteCLIP",
        file="RemoteCLIP-ViT-B-32.pt",
        activation="gelu",
        revision="bf1d8a3ccf2ddbf7c875705e46373bfe542bce38",
        size=605_208_421,
        sha256="60014e395d930a3f2963d1d89c8522bf4ad56775571e4356e866864789af85c4",
    ),
    "georsclip-vit-b-32": Published("Zilun/GeoRSCLIP", "ckpt/RS5M_ViT-B-32.pt", "quickgelu"),
    "georsclip-vit-l-14": Published("Zilun/GeoRSCLIP", "ckpt/RS5M_ViT-L-14.pt", None),
    "georsclip-vit-h-14": Published("Zilun/GeoRSCLIP", "ckpt/RS5M_ViT-H-14.pt", "gelu"),
    "openai-vit-l-14": Published(
        repo="openai/clip-vit-large-patch14",
        file="model.safetensors",
        activation="quickgelu",
        revision="32bd64288804d66eefd0ccbe215aa642df71cc41",
        size=1_710_540_580,
        sha256="a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",
    ),
    "openai-vit-b-32": Published(
        repo="openai/clip-vit-base-patch32",
        file="pytorch_model.bin",
        activation="quickgelu",
        revision="3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268",
        size=605_247_071,
        sha256="a63082132ba4f97a80bea76823f544493bffa8082296d62d71581a4feff1576f",
    ),
    "openai-vit-b-16": Published(
        repo="openai/clip-vit-base-patch16",
        file="pytorch_model.bin",
        activation="quickgelu",
        revision="57c216476eefef5ab752ec549e440a49ae4ae5f3",
    ),
    "laion-vit-h-14": Published(
        repo="laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        file="open_clip_pytorch_model.bin",
        activation="gelu",
        sha256="9a78ef8e8c73fd0df621682e7a8e8eb36c6916cb3c16b291a082ecd52ab79cc4",
    ),
}
"""The weights that can be downloaded by name. docs/weights.md gives the source of each fact."""
