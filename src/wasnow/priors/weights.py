"""Weights of the networks that find masks: folders in the format of transformers, found by path or by name.

    --weights FOLDER   or   --weights NAME ──> CACHE/weights/NAME/   config.json              network type, sizes
                                                                     model.safetensors        or parts and an index
                                                                     preprocessor_config.json optional
                                                                     tokenizer files          for networks with text

Only safetensors are read: no pickles, and no code from a folder is run. The error for missing files gives the command
that downloads them.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from wasnow.errors import CheckpointError, did_you_mean
from wasnow.storage.cache import cache_folder

CONFIG, WEIGHTS, INDEX, PREPROCESSOR = (
    "config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "preprocessor_config.json",
)
_TOKENIZERS: tuple[tuple[str, ...], ...] = (("tokenizer.json",), ("vocab.txt",), ("vocab.json", "merges.txt"))
"""Each of these sets of files is a tokenizer."""


@dataclass(frozen=True, slots=True)
class Published:
    """Weights on the Hugging Face Hub.

    Attributes:
        repo: repository name.
        family: a name from `FAMILIES`.
        gigabytes: approximate size of its ``model.safetensors``.
        licence: as stated on its page.
        gated: whether a licence must be accepted before download.
    """

    repo: str
    family: str
    gigabytes: float
    licence: str
    gated: bool = False


PUBLISHED: Mapping[str, Published] = {
    "grounding-dino-tiny": Published("IDEA-Research/grounding-dino-tiny", "grounding-dino", 0.69, "Apache-2.0"),
    "grounding-dino-base": Published("IDEA-Research/grounding-dino-base", "grounding-dino", 0.93, "Apache-2.0"),
    "sam-vit-base": Published("facebook/sam-vit-base", "sam", 0.38, "Apache-2.0"),
    "sam-vit-large": Published("facebook/sam-vit-large", "sam", 1.25, "Apache-2.0"),
    "sam-vit-huge": Published("facebook/sam-vit-huge", "sam", 2.56, "Apache-2.0"),
    "sam2.1-hiera-tiny": Published("facebook/sam2.1-hiera-tiny", "sam2", 0.16, "Apache-2.0"),
    "sam2.1-hiera-small": Published("facebook/sam2.1-hiera-small", "sam2", 0.18, "Apache-2.0"),
    "sam2.1-hiera-base-plus": Published("facebook/sam2.1-hiera-base-plus", "sam2", 0.32, "Apache-2.0"),
    "sam2.1-hiera-large": Published("facebook/sam2.1-hiera-large", "sam2", 0.90, "Apache-2.0"),
    "sam3": Published("facebook/sam3", "sam3", 3.4, "SAM License", gated=True),
    "clipseg-rd64-refined": Published("CIDAS/clipseg-rd64-refined", "clipseg", 0.60, "Apache-2.0"),
}
"""Weights that can be given by name. docs/priors.md gives the sources of these facts."""


@dataclass(frozen=True, slots=True)
class Family:
    """One type of network.

    Attributes:
        model_types: values of ``model_type`` in its ``config.json``.
        network: its class in transformers.
        reads_text: whether its folder must have a tokenizer.
        example: published weights of it.
    """

    model_types: tuple[str, ...]
    network: str
    reads_text: bool
    example: str


FAMILIES: Mapping[str, Family] = {
    "grounding-dino": Family(("grounding-dino",), "GroundingDinoForObjectDetection", True, "grounding-dino-tiny"),
    "sam": Family(("sam",), "SamModel", False, "sam-vit-base"),
    # Folders on the Hub hold the video networks, of which the image networks are parts.
    "sam2": Family(("sam2", "sam2_video"), "Sam2Model", False, "sam2.1-hiera-small"),
    "sam3": Family(("sam3", "sam3_video"), "Sam3Model", True, "sam3"),
    "clipseg": Family(("clipseg",), "CLIPSegForImageSegmentation", True, "clipseg-rd64-refined"),
}


@dataclass(frozen=True, slots=True)
class WeightsFolder:
    """A complete folder of weights.

    Attributes:
        family: a name from `FAMILIES`.
        folder: its path.
        files: of the weights, in order.
    """

    family: str
    folder: Path
    files: tuple[Path, ...]

    def preprocessor(self) -> dict[str, Any]:
        """Return the preprocessor configuration; empty if there is none.

        Raises:
            CheckpointError: the file exists and cannot be read.
        """
        for name in (PREPROCESSOR, "processor_config.json"):
            if (self.folder / name).is_file():
                return _json(self.folder / name)
        return {}

    def digest(self) -> str:
        """Return the SHA-256 over configuration and weights. Cached in the process while the files are unchanged."""
        paths = (self.folder / CONFIG, *self.files)
        states = [path.stat() for path in paths]
        return _digest(paths, tuple((each.st_size, each.st_mtime_ns, each.st_ino) for each in states))


@functools.lru_cache(maxsize=16)
def _digest(paths: tuple[Path, ...], _: tuple[tuple[int, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def find_weights(name_or_folder: str | os.PathLike[str], families: Sequence[str]) -> WeightsFolder:
    """Return the folder of these weights, checked for completeness.

    Args:
        name_or_folder: a folder, or a name in the cache of weights.
        families: accepted names of `FAMILIES`.

    Raises:
        CheckpointError: no such folder, missing files (with the command that downloads them), or a network of another
            family.
    """
    text = os.fspath(name_or_folder)
    folder = Path(text).expanduser()
    named = "/" not in text.rstrip("/") and os.sep not in text.rstrip(os.sep) and not folder.is_dir()
    if named:
        folder = cache_folder("weights") / text
    if not folder.is_dir():
        raise _absent(text, folder, families, named)
    if not (folder / CONFIG).is_file():
        raise CheckpointError(folder, f"it has no {CONFIG}", _advice(text, folder, families))
    config = _json(folder / CONFIG)
    model_type = str(config.get("model_type"))
    family = next((name for name in families if model_type in FAMILIES[name].model_types), None)
    if family is None:
        raise CheckpointError(
            folder,
            f"it holds a network of type {model_type!r}",
            f"{_or(families)} is required, such as {_examples(families)}",
        )
    files = _weights_files(folder, text, families)
    if FAMILIES[family].reads_text and not any(all((folder / n).is_file() for n in names) for names in _TOKENIZERS):
        required = ", or ".join(" and ".join(names) for names in _TOKENIZERS)
        raise CheckpointError(folder, f"it has no tokenizer ({required})", _advice(text, folder, families))
    return WeightsFolder(family, folder, files)


def load_network(found: WeightsFolder, device: str = "cpu") -> Any:
    """Load the network of a folder in eval mode, float32, without gradients.

    Raises:
        CheckpointError: the weights are damaged, or belong to another network.
    """
    import safetensors
    import transformers

    kind: Any = getattr(transformers, FAMILIES[found.family].network)
    logs: Any = transformers.logging
    before, bars = logs.get_verbosity(), logs.is_progress_bar_enabled()
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network, report = kind.from_pretrained(
                found.folder,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                dtype="float32",
            )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, safetensors.SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(found.folder, f"cannot be loaded ({reason})", "download it again") from None
    finally:
        logs.set_verbosity(before)
        if bars:
            logs.enable_progress_bar()
    missing = sorted(report.get("missing_keys", ()))
    if missing:
        # transformers would initialise them at random, with a warning only.
        raise CheckpointError(
            found.folder,
            f"{len(missing)} weights are missing, first {missing[0]}",
            "use the weights of the whole network",
        )
    if not isinstance(network, nn.Module):
        raise CheckpointError(found.folder, "holds no network", "download it again")
    return network.to(device).eval().requires_grad_(False)


def load_tokenizer(found: WeightsFolder) -> Any:
    """Load the tokenizer of a folder from its own files.

    Raises:
        CheckpointError: it cannot be read, or has no token offsets.
    """
    import transformers

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            found.folder, local_files_only=True, trust_remote_code=False, use_fast=True
        )
    except Exception as error:  # the tokenizers library raises bare Exception
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(found.folder, f"its tokenizer cannot be read ({reason})", "download it again") from None
    if not tokenizer.is_fast:
        raise CheckpointError(found.folder, "its tokenizer has no tokenizer.json", "download that file too")
    return tokenizer


def _weights_files(folder: Path, text: str, families: Sequence[str]) -> tuple[Path, ...]:
    if (folder / WEIGHTS).is_file():
        return (folder / WEIGHTS,)
    if (folder / INDEX).is_file():
        parts = sorted(set(_json(folder / INDEX).get("weight_map", {}).values()))
        # Names in the index must not lead out of the folder.
        absent = [name for name in parts if Path(name).name != name or not (folder / name).is_file()]
        if not parts or absent:
            raise CheckpointError(
                folder, f"{absent[0] if absent else 'all parts'} of {INDEX} missing", _advice(text, folder, families)
            )
        return tuple(folder / name for name in parts)
    pickled = next((path.name for path in sorted(folder.glob("*.bin")) + sorted(folder.glob("*.pt"))), None)
    note = f" ({pickled} is not read: such files can run code)" if pickled else ""
    raise CheckpointError(folder, f"it has no {WEIGHTS}{note}", _advice(text, folder, families))


def _absent(text: str, folder: Path, families: Sequence[str], named: bool) -> CheckpointError:
    if not named:
        return CheckpointError(text, "no such folder", f"give a folder of {_or(families)} weights, or a name")
    fitting = [name for name, one in PUBLISHED.items() if one.family in families]
    if text in fitting:
        gated = " after accepting its licence there" if PUBLISHED[text].gated else ""
        return CheckpointError(
            text,
            "these weights are not on this machine",
            f"download them{gated} ({PUBLISHED[text].gigabytes:g} GB, {PUBLISHED[text].licence}) with {_fetch(text)}, "
            "or copy that folder from another machine",
        )
    return CheckpointError(
        text,
        f"unknown weights: not in {folder.parent}{did_you_mean(text, fitting)}",
        f"known are {', '.join(fitting)}; or give a folder",
    )


def _fetch(name: str) -> str:
    return f"hf download {PUBLISHED[name].repo} --local-dir {cache_folder('weights') / name}"


def _advice(text: str, folder: Path, families: Sequence[str]) -> str:
    name = text if text in PUBLISHED else folder.name
    if name not in PUBLISHED or PUBLISHED[name].family not in families:
        name = FAMILIES[families[0]].example
    return f"download the whole folder, such as with {_fetch(name)}"


def _or(families: Sequence[str]) -> str:
    return " or ".join(families)


def _examples(families: Sequence[str]) -> str:
    return " or ".join(FAMILIES[family].example for family in families)


def _json(path: Path) -> dict[str, Any]:
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(path, f"cannot be read ({error})", "download it again") from None
    if not isinstance(held, dict):
        raise CheckpointError(path, "is not a JSON object", "download it again")
    return held
