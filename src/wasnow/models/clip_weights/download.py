"""Bring CLIP weights into the cache: from the Hugging Face Hub or from a file. Only this module uses the network."""

from __future__ import annotations

import errno
import re
import shutil
from pathlib import Path
from typing import cast

from wasnow.errors import CheckpointError, DiskFull, DownloadFailed, OutputError, UsageError, WasnowError, did_you_mean
from wasnow.models.clip_weights import known
from wasnow.models.clip_weights.convert import convert
from wasnow.models.clip_weights.known import Published
from wasnow.models.clip_weights.store import SUFFIX, Stored, cache, is_name, read_stored
from wasnow.nn.clip_config import ACTIVATIONS, Activation
from wasnow.storage.hashing import file_sha256


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
        name: of `KNOWN`; with ``file`` any name for these weights. None takes the name of the file.
        file: weights on this disk, or a folder of the Hugging Face layout; None downloads.
        activation: ``gelu`` or ``quickgelu``; None takes the known or described one.
        overwrite: replace existing weights of that name.
        quiet: show no progress of the download.

    Raises:
        UsageError: the name is unknown or unusable, or the activation is unknown.
        CheckpointError: the file is not the published one, or not a CLIP; names the first difference.
        DownloadFailed: the network or the Hub does not provide the file.
        DiskFull: the disk is full.
        OutputError: the cache cannot be written.
    """
    if activation is not None and activation not in ACTIVATIONS:
        names = sorted(ACTIVATIONS)
        raise UsageError(
            f"unknown activation {activation!r}; use one of {', '.join(names)}{did_you_mean(activation, names)}"
        )
    if file is None:
        return _download(name, cast("Activation | None", activation), overwrite, quiet)
    weights = _weights_file(file)
    digest = _sha256(weights)
    # A known file is recognised by its digest, whatever its name.
    recognised = next((one for one in known.KNOWN if known.KNOWN[one].sha256 == digest), None)
    name = name or recognised or re.sub(r"[^a-z0-9._-]+", "-", file.resolve().stem.lower()).strip("-.")
    if not is_name(name):
        raise UsageError(f"{name!r} is not a valid name for weights; use letters, digits, dots and dashes")
    published = known.KNOWN.get(name)
    target = cache() / f"{name}{SUFFIX}"
    if target.exists() and not overwrite:
        held = read_stored(target)
        if held.sha256 == digest and activation in (None, held.config.activation):
            return held
        raise OutputError(f"{target} exists with other content; choose another --name, or pass --overwrite")
    if published is not None:
        _check_published(weights, published, digest)
    else:
        published = known.KNOWN.get(recognised or "")
    return convert(
        weights,
        name,
        digest=digest,
        source=_source(published) if published and published.sha256 == digest else weights.name,
        verified=published is not None and published.sha256 == digest,
        activation=cast("Activation | None", activation or (published.activation if published else None)),
        target=target,
    )


def _download(name: str | None, activation: Activation | None, overwrite: bool, quiet: bool) -> Stored:
    names = sorted(known.KNOWN)
    if name is None:
        raise UsageError(f"no weights named; give one of {', '.join(names)}, or a file with --from FILE")
    if name not in known.KNOWN:
        raise UsageError(
            f"unknown weights {name!r}{did_you_mean(name, names)}; give one of {', '.join(names)}, "
            "or a file with --from FILE"
        )
    published = known.KNOWN[name]
    target = cache() / f"{name}{SUFFIX}"
    if target.exists() and not overwrite:
        held = read_stored(target)
        if activation in (None, held.config.activation):
            return held
        raise OutputError(f"{target} exists with {held.config.activation}; pass --overwrite to convert it again")
    activation = activation or published.activation
    if activation is None:
        # Fail before the download, which can take an hour.
        raise UsageError(f"the activation of {name} is unknown; pass --activation gelu or --activation quickgelu")
    # Beside the cache: an interrupted download is resumed next time and never listed.
    folder = cache().parent / "downloads" / name
    weights = _fetch(published, folder, quiet)
    digest = _sha256(weights)
    try:
        _check_published(weights, published, digest)
    except CheckpointError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    made = convert(
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
    """Download the published file into ``folder``, or resume the download."""
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
            "its owner requires you to accept terms",
            "accept them on the Hub, then log in (hf auth login)",
        )
    except (errors.RepositoryNotFoundError, errors.RemoteEntryNotFoundError, errors.RevisionNotFoundError):
        reason, advice = "it no longer exists", "get the file elsewhere, then pass --from FILE"
    except Exception as error:  # the network library raises errors of many kinds
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise DiskFull(f"{folder}: no space left on the disk; free some and run the command again") from error
        if isinstance(error, WasnowError):
            raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:120]
        advice = "check the network and run it again, or get the file elsewhere and pass --from FILE"
    finally:
        if quiet and shown:
            enable_progress_bars()
    raise DownloadFailed(f"{what} cannot be downloaded ({reason}); {advice}")


def _check_room(folder: Path, size: int | None) -> None:
    """Check that a download of this size and its converted copy fit on the disk.

    Raises:
        DiskFull: they do not.
    """
    free = shutil.disk_usage(folder).free
    if size is not None and free < 2 * size:
        raise DiskFull(
            f"{folder} has {free / 1e9:.1f} GB free, and {2 * size / 1e9:.1f} GB are required while converting; "
            "free some space, or set WASNOW_CACHE to another disk"
        )


def _check_published(path: Path, published: Published, digest: str) -> None:
    """Check a file against the published size and digest, as far as they are known.

    Raises:
        CheckpointError: it has another size or digest.
    """
    advice = f"it is truncated or another file; download {published.file} of {published.repo} again"
    if published.size is not None and (size := path.stat().st_size) != published.size:
        raise CheckpointError(path, f"has {size} bytes instead of the published {published.size}", advice)
    if published.sha256 is not None and digest != published.sha256:
        raise CheckpointError(
            path, f"its sha256 is {digest[:16]}... instead of the published {published.sha256[:16]}...", advice
        )


def _sha256(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise CheckpointError(path, f"cannot be read ({error.strerror})", "check the path") from None


def _weights_file(path: Path) -> Path:
    """Return the file itself, or the weights in a folder as transformers and open_clip write it."""
    if path.is_file():
        return path
    if not path.exists():
        raise CheckpointError(path, "no such file or folder", "check the path")
    names = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin", "open_clip_pytorch_model.bin")
    for name in names:
        if (path / name).is_file():
            return path / name
    raise CheckpointError(path, f"a folder without {' or '.join(names)}", "give the file of the weights itself")


def _source(published: Published) -> str:
    return f"{published.repo} {published.file}" + (f" @ {published.revision[:7]}" if published.revision else "")
