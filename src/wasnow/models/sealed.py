"""Tensors and a JSON header in one safetensors file that is checked when it is read.

    model.safetensors
      header   {"wasnow": JSON}    with a digest of header and tensors
      tensors  by name

The file contains no code: pickles are rejected. It is written to a temporary file, flushed to disk and renamed, so a
reader never sees a partial file. The digest (SHA-256 over the header and over names, types, shapes and bytes of the
tensors) detects damage. The same tensors and header give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from wasnow.errors import CheckpointError
from wasnow.models.file_kind import other_content
from wasnow.storage.atomic import atomic_path, output_errors, sync_folder


def write_sealed(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> str:
    """Write tensors and a JSON header as one safetensors file, atomically, and return its digest.

    Args:
        path: the file; replaced if it exists.
        tensors: by name, on any device.
        header: JSON values; ``digest`` is added.

    Raises:
        DiskFull: the disk is full; an existing file at ``path`` is unchanged.
        OutputError: the file cannot be written for another reason.
    """
    own = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    # Tied weights (one tensor under two names) are stored twice: the format does not support sharing.
    storages: set[int] = set()
    for name, tensor in own.items():
        if tensor.numel() and (pointer := tensor.untyped_storage().data_ptr()) in storages:
            own[name] = tensor.clone()
        elif tensor.numel():
            storages.add(pointer)
    digest = _digest(own, header)
    text = _canonical({**header, "digest": digest})
    with output_errors(path, SafetensorError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            # safetensors makes files that only their owner can read; these get the default permissions.
            temporary.touch()
            mode = temporary.stat().st_mode
            save_file(own, temporary, metadata={"wasnow": text})
            temporary.chmod(mode)
        sync_folder(path.parent)
    return digest


def read_sealed_header(path: Path) -> dict[str, Any]:
    """Return the JSON header of a file that `write_sealed` wrote, without reading the tensors.

    Raises:
        CheckpointError: the file is missing, a pickle, truncated, or has no wasnow header.
    """
    _refuse_others(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(path, f"not a complete safetensors file ({error})", "use another copy") from None
    try:
        header = dict(json.loads(metadata["wasnow"]))
        _canonical(header).encode()  # rejects values that cannot be written back
        return header
    except KeyError:
        raise CheckpointError(
            path, "a safetensors file without a wasnow header", "convert published weights with wasnow convert"
        ) from None
    except (ValueError, TypeError, RecursionError):
        raise CheckpointError(path, "its header is damaged", "use another copy") from None


def read_sealed(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the header of a file that `write_sealed` wrote.

    Raises:
        CheckpointError: as `read_sealed_header`, or the checksum does not match.
    """
    header = read_sealed_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            # Copy: the tensors map the file and would change if the file were written to.
            tensors = {name: file.get_tensor(name).clone() for name in sorted(file.keys())}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(path, f"its weights cannot be read ({error})", "use another copy") from None
    if _digest(tensors, {name: value for name, value in header.items() if name != "digest"}) != header.get("digest"):
        raise CheckpointError(path, "the checksum does not match its content", "the file is damaged; use another copy")
    return tensors, header


def _canonical(header: Mapping[str, Any]) -> str:
    return json.dumps(header, sort_keys=True, ensure_ascii=False, allow_nan=False)


def _digest(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> str:
    """Return SHA-256 over the header, then over names, types, shapes and bytes of the tensors, sorted by name."""
    sha = hashlib.sha256(_canonical(header).encode())
    for name, tensor in sorted(tensors.items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if tensor.numel():
            sha.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def _refuse_others(path: Path) -> None:
    """Reject missing files, folders, and formats that could run code when read."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except FileNotFoundError:
        raise CheckpointError(path, "no such file", "give a checkpoint, or the folder of a training run") from None
    except OSError as error:
        raise CheckpointError(path, f"cannot be read ({error.strerror})", "check the path") from None
    if (other := other_content(path)) is not None:
        raise CheckpointError(path, *other)
    if start[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        raise CheckpointError(
            path,
            "a pickle, which can run code when it is read",
            "convert published weights with wasnow convert",
        )
