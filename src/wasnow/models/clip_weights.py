"""CLIP weights of others: fetched on request, checked, converted once, kept in a cache.

    wasnow weights get NAME ─ download ─┐
    wasnow weights get --from FILE ─────┴─ size, digest ─ LAYOUTS ─ Clip ─> CACHE/weights/NAME.safetensors
                                                       first difference named      header: sizes, activation, source

Three layouts are read: open_clip's (RemoteCLIP, GeoRSCLIP), OpenAI's, which has the same names, and that of Hugging
Face. Sizes come from the shapes. What shapes do not tell comes from a description beside the file (``config.json``,
``open_clip_config.json``), from `KNOWN`, or from whoever asks; it is never guessed. Nothing in a file is run.

Only `get` uses the network.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from wasnow.errors import CheckpointError, DiskFull, DownloadFailed, OutputError, UsageError, WasnowError, did_you_mean
from wasnow.models import sealed
from wasnow.models.published.convert import read_weights
from wasnow.nn.clip import ACTIVATIONS, Activation, Clip, ClipConfig
from wasnow.storage.cache import cache_folder
from wasnow.storage.hashing import file_sha256

KIND = "clip"
PREFIX = "clip."
SUFFIX = ".safetensors"


# -------------------------------------------------------------------------------------------------------- known names


@dataclass(frozen=True, slots=True)
class Published:
    """Weights on the Hugging Face Hub.

    Attributes:
        repo: there.
        file: in it.
        activation: that its authors build their model with; None where we know of no statement.
        revision: the commit that the digest is of; None takes the newest.
        size: in bytes; None where we do not know it.
        sha256: likewise.
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
"""What can be fetched by name. docs/weights.md says where each fact is from."""


# ---------------------------------------------------------------------------------------------------------- the cache


@dataclass(frozen=True, slots=True)
class Stored:
    """CLIP weights in the cache.

    Attributes:
        name: what to call them by.
        path: their file.
        config: sizes and activation.
        source: where they are from, in words.
        sha256: of the file that they were converted from.
        verified: whether that is the published digest, which we know of `KNOWN` ones.
        size: of the converted file, in bytes.
    """

    name: str
    path: Path
    config: ClipConfig
    source: str
    sha256: str
    verified: bool
    size: int


def cache() -> Path:
    """The folder of converted weights."""
    return cache_folder("weights")


def stored() -> list[Stored]:
    """All weights in the cache, by name; files that are no CLIP weights are passed over."""
    found = []
    for path in sorted(cache().glob(f"*{SUFFIX}")):
        with contextlib.suppress(CheckpointError):
            found.append(_stored(path))
    return found


def find(name_or_path: str | os.PathLike[str]) -> Path:
    """The converted file of these weights.

    Args:
        name_or_path: a name in the cache, or a converted file anywhere.

    Raises:
        CheckpointError: there are none, and which command brings them; or the file holds something else.
    """
    text = os.fspath(name_or_path)
    cached = cache() / f"{text}{SUFFIX}"
    if _is_name(text) and cached.is_file():
        return cached
    path = Path(text).expanduser()
    if path.is_file():
        header(path)
        return path
    if path.is_dir():
        raise CheckpointError(text, "is a folder", f"convert its weights once with wasnow weights get --from {text}")
    if text in KNOWN:
        raise CheckpointError(
            text,
            "these weights are not here yet",
            f"get them with wasnow weights get {text}, or from a file with wasnow weights get {text} --from FILE",
        )
    if path.suffix or len(path.parts) > 1:
        raise CheckpointError(text, "no such file", "check the path, or name weights that wasnow weights lists")
    known = sorted({*KNOWN, *(one.name for one in stored())})
    raise CheckpointError(
        text,
        f"no weights of that name{did_you_mean(text, known)}",
        "wasnow weights lists the names; bring in a file of yours with wasnow weights get --from FILE",
    )


def header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a converted file says of itself: ``kind``, ``config``, ``source``, ``name``, ``sha256``, ``verified``.

    Raises:
        CheckpointError: it is missing, damaged, not converted, or no CLIP.
    """
    path = Path(path)
    try:
        found = sealed.read_sealed_header(path)
    except CheckpointError as error:
        if "wasnow convert" not in str(error):
            raise
        raise CheckpointError(
            path, "weights as others publish them", f"convert them once with wasnow weights get --from {path}"
        ) from None
    if found.get("kind") != KIND:
        raise CheckpointError(
            path, "holds no CLIP weights, but a trained model", "name weights that wasnow weights lists"
        )
    return found


def load(name_or_path: str | os.PathLike[str]) -> Clip:
    """The towers with these weights, in eval mode.

    Raises:
        CheckpointError: as `find`, or the file is damaged.
    """
    path = find(name_or_path)
    tensors, found = sealed.read_sealed(path)
    with torch.device("meta"):
        clip = Clip(_config_of(path, found))
    try:
        clip.load_state_dict({name.removeprefix(PREFIX): each for name, each in tensors.items()}, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(path, f"its weights do not fit its header ({reason})", "convert them again") from None
    return clip.eval()


def _stored(path: Path) -> Stored:
    found = header(path)
    return Stored(
        name=str(found.get("name", path.stem)),
        path=path,
        config=_config_of(path, found),
        source=str(found.get("source", "")),
        sha256=str(found.get("sha256", "")),
        verified=bool(found.get("verified")),
        size=path.stat().st_size,
    )


def _config_of(path: Path, found: Mapping[str, Any]) -> ClipConfig:
    try:
        return ClipConfig.from_dict(found["config"])
    except (KeyError, TypeError, UsageError) as error:
        raise CheckpointError(path, f"its header is damaged ({error})", "convert the weights again") from None


def _is_name(text: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text) is not None


# ------------------------------------------------------------------------------------------------------------ getting


def get(
    name: str | None = None,
    *,
    file: Path | None = None,
    activation: str | None = None,
    overwrite: bool = False,
    quiet: bool = True,
) -> Stored:
    """Bring weights into the cache.

    Args:
        name: of `KNOWN`; with ``file`` any name, by which they will be found. None takes that of the file.
        file: weights on this disk, or a folder of the Hugging Face layout; None downloads.
        activation: ``gelu`` or ``quickgelu``; None takes what is known or described.
        overwrite: replace what has that name.
        quiet: show no progress of the download.

    Raises:
        UsageError: the name is unknown or unusable, or the activation is not known.
        CheckpointError: the file is not what was published, or no CLIP; names the first difference.
        DownloadFailed: the network or the Hub does not give it.
        DiskFull: no room left.
        OutputError: the cache cannot be written.
    """
    if activation is not None and activation not in ACTIVATIONS:
        known = sorted(ACTIVATIONS)
        raise UsageError(
            f"no activation is called {activation!r}; known are {', '.join(known)}{did_you_mean(activation, known)}"
        )
    if file is None:
        return _download(name, cast("Activation | None", activation), overwrite, quiet)
    weights = _weights_file(file)
    digest = _sha256(weights)
    # A file of ours to recognise, whatever it is called.
    recognised = next((known for known in KNOWN if KNOWN[known].sha256 == digest), None)
    name = name or recognised or re.sub(r"[^a-z0-9._-]+", "-", file.resolve().stem.lower()).strip("-.")
    if not _is_name(name):
        raise UsageError(f"{name!r} cannot be a name of weights; use letters, digits, dots and dashes")
    published = KNOWN.get(name)
    target = cache() / f"{name}{SUFFIX}"
    if target.exists() and not overwrite:
        held = _stored(target)
        if held.sha256 == digest and activation in (None, held.config.activation):
            return held
        raise OutputError(f"{target} exists and holds something else; choose another --name, or pass --overwrite")
    if published is not None:
        _check_published(weights, published, digest)
    else:
        published = KNOWN.get(recognised or "")
    return _convert(
        weights,
        name,
        digest=digest,
        source=_source(published) if published and published.sha256 == digest else weights.name,
        verified=published is not None and published.sha256 == digest,
        activation=cast("Activation | None", activation or (published.activation if published else None)),
        target=target,
    )


def _download(name: str | None, activation: Activation | None, overwrite: bool, quiet: bool) -> Stored:
    known = sorted(KNOWN)
    if name is None:
        raise UsageError(f"say which weights: {', '.join(known)}; or point at a file with --from FILE")
    if name not in KNOWN:
        raise UsageError(
            f"no weights are called {name!r}{did_you_mean(name, known)}; known are {', '.join(known)}, "
            "and a file of yours comes in with --from FILE"
        )
    published = KNOWN[name]
    target = cache() / f"{name}{SUFFIX}"
    if target.exists() and not overwrite:
        held = _stored(target)
        if activation in (None, held.config.activation):
            return held
        raise OutputError(f"{target} exists with {held.config.activation}; pass --overwrite to convert it again")
    activation = activation or published.activation
    if activation is None:
        # Better before an hour of download than after it.
        raise UsageError(
            f"nothing says which activation {name} was trained with; pass --activation gelu or --activation quickgelu"
        )
    # Beside the cache, not in it: what is cut short is gone on with next time, and never listed.
    folder = cache().parent / "downloads" / name
    weights = _fetch(published, folder, quiet)
    digest = _sha256(weights)
    try:
        _check_published(weights, published, digest)
    except CheckpointError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    made = _convert(
        weights,
        name,
        digest=digest,
        source=_source(published),
        verified=published.sha256 is not None,
        activation=activation,
        target=target,
    )
    shutil.rmtree(folder, ignore_errors=True)
    return made


def _fetch(published: Published, folder: Path, quiet: bool) -> Path:
    """The published file, downloaded into ``folder`` or gone on with there."""
    what = f"{published.repo}/{published.file}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _check_room(folder, published.size)
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be written ({error.strerror}); set WASNOW_CACHE to another folder"
        ) from None
    from huggingface_hub import errors, hf_hub_download
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    shown = not are_progress_bars_disabled()
    if quiet:
        disable_progress_bars()
    try:
        return Path(hf_hub_download(published.repo, published.file, revision=published.revision, local_dir=folder))
    except errors.GatedRepoError:
        reason, advice = (
            "its owner wants you to accept terms first",
            "do so on the Hub, then log in there (hf auth login)",
        )
    except (errors.RepositoryNotFoundError, errors.RemoteEntryNotFoundError, errors.RevisionNotFoundError):
        reason, advice = "it is not there any more", "get the file elsewhere, then pass --from FILE"
    except Exception as error:  # whatever its network library raises is no bug of ours
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise DiskFull(f"no room left on the disk for {folder}; free some and run the command again") from error
        if isinstance(error, WasnowError):
            raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:120]
        advice = "check the network and run it again, or get the file elsewhere and pass --from FILE"
    finally:
        if quiet and shown:
            enable_progress_bars()
    raise DownloadFailed(f"{what} cannot be fetched ({reason}); {advice}")


def _check_room(folder: Path, size: int | None) -> None:
    """Nothing, if a download of this size and what is made of it fit."""
    free = shutil.disk_usage(folder).free
    if size is not None and free < 2 * size:
        raise DiskFull(
            f"{folder} has {free / 1e9:.1f} GB left and {2 * size / 1e9:.1f} GB are needed while converting; "
            "free some, or set WASNOW_CACHE to another disk"
        )


def _check_published(path: Path, published: Published, digest: str) -> None:
    """Nothing, if a file is the published one as far as we know that.

    Raises:
        CheckpointError: it has another size or digest.
    """
    advice = f"it was cut short or is another file; take {published.file} of {published.repo} again"
    if published.size is not None and (size := path.stat().st_size) != published.size:
        raise CheckpointError(path, f"is {size} bytes long, and {published.size} were published", advice)
    if published.sha256 is not None and digest != published.sha256:
        raise CheckpointError(
            path, f"its sha256 is {digest[:16]}..., and {published.sha256[:16]}... was published", advice
        )


def _source(published: Published) -> str:
    return f"{published.repo} {published.file}" + (f" @ {published.revision[:7]}" if published.revision else "")


def _sha256(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise CheckpointError(path, f"cannot be read ({error.strerror})", "check the path") from None


def _weights_file(path: Path) -> Path:
    """The weights that are meant: the file, or the one in a folder as transformers and open_clip write it."""
    if path.is_file():
        return path
    if not path.exists():
        raise CheckpointError(path, "no such file or folder", "check the path")
    names = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin", "open_clip_pytorch_model.bin")
    for name in names:
        if (path / name).is_file():
            return path / name
    raise CheckpointError(path, f"a folder without {' or '.join(names)}", "name the file of the weights itself")


# --------------------------------------------------------------------------------------------------------- converting


@dataclass(frozen=True, slots=True)
class Layout:
    """How others name what is in a CLIP.

    Attributes:
        description: the file beside the weights that says what they do not.
        names: how our names begin, and what stands there with them.
        in_block: the same, within a block.
        joined: whether query, key and value are one tensor, and projections are stored the other way round.
        ignored: names (as patterns) of what is stored beside the weights and says nothing new.
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
class _Description:
    """What the file beside the weights says, as far as shapes do not; None where it is silent."""

    activation: Activation | None = None
    image_heads: int | None = None
    text_heads: int | None = None
    eps: float = 1e-5


def _convert(
    weights: Path,
    name: str,
    *,
    digest: str,
    source: str,
    verified: bool,
    activation: Activation | None,
    target: Path,
) -> Stored:
    """Rename, check and write; see `get`."""
    theirs = _read(weights)
    layout = _layout(weights, theirs)
    described = _describe(weights.parent / layout.description, layout)
    config = _config(weights, theirs, layout, described, activation)
    tensors = rename(weights, theirs, layout, config)
    sealed.write_sealed(
        target,
        {PREFIX + ours: tensor.float() for ours, tensor in tensors.items()},
        {
            "kind": KIND,
            "config": config.dict(),
            "source": source,
            "name": name,
            "sha256": digest,
            "verified": verified,
        },
    )
    return _stored(target)


def _read(path: Path) -> dict[str, Tensor]:
    """Their tensors by their names."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("constants.pkl") for name in archive.namelist()):
                raise CheckpointError(
                    path,
                    "a TorchScript archive, which holds code besides weights, so it is refused",
                    "take plain weights (wasnow weights get openai-vit-l-14), or save the state_dict() alone "
                    "where you trust the file",
                )
    theirs = read_weights(path)
    # open_clip's newer class keeps the text tower in a part of its own.
    if "text.token_embedding.weight" in theirs:
        theirs = {name.removeprefix("text."): tensor for name, tensor in theirs.items()}
    return theirs


def _layout(path: Path, theirs: Mapping[str, Tensor]) -> Layout:
    """Whose names these are."""
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
                    path, f"holds the {held} tower of a CLIP without its {missing} tower", "use weights that have both"
                )
    raise CheckpointError(
        path, f"holds no CLIP: its first tensor is {next(iter(theirs))}", "use weights of open_clip or Hugging Face"
    )


def _describe(path: Path, layout: Layout) -> _Description:
    """What stands beside the weights."""
    if not path.is_file():
        return _Description()
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        return _described_by_open_clip(held) if layout is OPEN_CLIP else _described_by_hugging_face(path, held)
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise CheckpointError(
            path, f"does not describe a CLIP ({reason})", "correct or remove it, and pass --activation"
        ) from None


def _described_by_open_clip(held: Mapping[str, Any]) -> _Description:
    held = held["model_cfg"]
    image, text = held["vision_cfg"], held["text_cfg"]
    return _Description(
        activation="quickgelu" if held.get("quick_gelu", False) else "gelu",
        image_heads=int(image["width"]) // int(image.get("head_width", 64)),
        text_heads=int(text["heads"]),
    )


def _described_by_hugging_face(path: Path, held: Mapping[str, Any]) -> _Description:
    # Where they leave a setting out, they mean the default of CLIP's configuration class.
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
    return _Description(
        activation=cast(Activation, ours[image["hidden_act"]]),
        image_heads=int(image["num_attention_heads"]),
        text_heads=int(text["num_attention_heads"]),
        eps=float(image["layer_norm_eps"]),
    )


HEADS: Mapping[str, Mapping[int, int]] = {
    "image": {width: width // 64 for width in (384, 512, 640, 768, 896, 1024)} | dict.fromkeys((1280, 1408, 1664), 16),
    "text": {width: width // 64 for width in (384, 512, 640, 768, 1024, 1280)},
}
"""Attention heads by the widths that CLIPs are published in: shapes do not tell them."""


def _config(
    path: Path,
    theirs: Mapping[str, Tensor],
    layout: Layout,
    described: _Description,
    activation: Activation | None,
) -> ClipConfig:
    """Sizes from shapes, the rest from what is said."""
    chosen = activation or described.activation
    if chosen is None:
        raise UsageError(
            f"{path} does not say which activation it was trained with; pass --activation gelu (open_clip's usual one) "
            "or --activation quickgelu (OpenAI's)"
        )

    def shape(ours: str, dimensions: int) -> tuple[int, ...]:
        name = _theirs_of(ours, layout)
        if name not in theirs:
            raise CheckpointError(path, f"it has no {name}, which a CLIP needs", "use the weights of a whole CLIP")
        found = tuple(theirs[name].shape)
        if len(found) != dimensions:
            raise CheckpointError(
                path, f"{name} is {found}, and {dimensions} dimensions are wanted", "use another copy"
            )
        return found

    def layers(tower: str) -> int:
        numbers = re.compile(re.escape(layout.names[f"{tower}.blocks"]) + r"\.(\d+)\.")
        return 1 + max((int(found[1]) for name in theirs if (found := numbers.match(name))), default=-1)

    def heads(tower: str, width: int, said: int | None) -> int:
        if said is None and width not in HEADS[tower]:
            raise CheckpointError(
                path,
                f"nothing says how many attention heads its {tower} tower of width {width} has",
                f"put the {layout.description} that belongs to it beside it",
            )
        return said or HEADS[tower][width]

    places, image_width = shape("image.position_embedding", 2)
    grid = math.isqrt(places - 1) if places > 0 else 0
    if 1 + grid * grid != places:
        name = _theirs_of("image.position_embedding", layout)
        raise CheckpointError(path, f"{name} has {places} rows, which are no square grid and one", "use another CLIP")
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
        raise CheckpointError(path, f"its shapes are those of no CLIP ({error})", "use another copy") from None


def rename(path: Path, theirs: Mapping[str, Tensor], layout: Layout, config: ClipConfig) -> dict[str, Tensor]:
    """The same weights under our names.

    Args:
        path: where they are from, for messages.
        theirs: by their names.
        layout: of these.
        config: sizes that they must have.

    Raises:
        CheckpointError: one is missing, has another shape, or has no place; names the first one, as they call it.
    """
    with torch.device("meta"):
        wanted = {name: tuple(tensor.shape) for name, tensor in Clip(config).state_dict().items()}
    advice = "it is of another network, or a part of one"
    taken: set[str] = set()
    ours: dict[str, Tensor] = {}
    for name, shape in wanted.items():
        source, take, whole = _theirs_of(name, layout), *_taking(name, shape, layout)
        if source not in theirs:
            raise CheckpointError(path, f"it has no {source} {whole}, which this CLIP needs", advice)
        if tuple(theirs[source].shape) != whole:
            raise CheckpointError(path, f"{source} is {tuple(theirs[source].shape)}, and {whole} is wanted", advice)
        taken.add(source)
        ours[name] = take(theirs[source])
    for name, tensor in theirs.items():
        if name not in taken and not re.fullmatch(layout.ignored, name):
            raise CheckpointError(path, f"it holds {name} {tuple(tensor.shape)}, which CLIP does not have", advice)
    return ours


def _theirs_of(ours: str, layout: Layout) -> str:
    """What one of our tensors is called there, or the one that it is a part of."""
    for begins, name in layout.names.items():
        if ours.startswith(begins):
            ours = name + ours.removeprefix(begins)
            break
    for begins, name in layout.in_block.items():
        ours = ours.replace(f".{begins}", f".{name}", 1)
    return ours


def _taking(ours: str, shape: tuple[int, ...], layout: Layout) -> tuple[Callable[[Tensor], Tensor], tuple[int, ...]]:
    """How to take one of our tensors out of theirs, and the shape that theirs must have."""
    if layout.joined and (part := re.search(r"\.self_attn\.([qkv])_proj\.", ours)):
        place = "qkv".index(part[1])
        return lambda joined: joined.chunk(3)[place], (3 * shape[0], *shape[1:])
    if layout.joined and ours.endswith(".projection.weight"):
        return lambda turned: turned.T, shape[::-1]
    return lambda same: same, shape


def describe(one: Stored) -> dict[str, Any]:
    """Stored weights as plain JSON values."""
    return {**asdict(one), "path": str(one.path)}
