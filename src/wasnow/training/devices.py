"""Devices and processes of a run, deterministic algorithms, signals and memory.

**Several devices** compute the loss of the whole batch, not the mean of the losses of their shares:

    device 0   logits of its share ─┐                                ┌─> gradient of share 0 ─┐
    device 1   logits of its share ─┴─ gathered ─> loss of the batch ┴─> gradient of share 1 ─┴─ summed

Losses that count pixels over the batch (balanced cross-entropy, Dice, Lovasz) are therefore equal on one device and on
eight. Batch normalisation is shared on GPUs (`torch.nn.SyncBatchNorm`); torch has no such layer for CPUs, where each
process normalises its own share.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, distributed, nn

from wasnow.models.contract import ChangeLogits, infer
from wasnow.training.config import Stage, TrainConfig
from wasnow.training.losses import Target


class Encoded:
    """Features of a batch, as `FeatureModel.encode` gives them.

    A class instead of a tuple, because the precision wrappers would cast the tensors of a tuple.
    """

    __slots__ = ("tensors",)

    def __init__(self, tensors: tuple[Tensor, ...]) -> None:
        self.tensors = tensors


class TensorOutputs(nn.Module):
    """A network that returns plain tensors, as precision and DDP wrappers require.

    Args:
        model: a `ChangeModel`.
        encoder_frozen: compute the encoder without a graph; for a `FeatureModel` only.
    """

    def __init__(self, model: nn.Module, *, encoder_frozen: bool = False) -> None:
        super().__init__()
        self.model = model
        self._encoder_frozen = encoder_frozen
        self._unchanged = False

    def forward(
        self, before: Tensor, after: Tensor, encoded: Encoded | None = None, priors: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Return the logits of a batch as tensors; `logits` converts them back.

        Args:
            before: ``(B, 3, H, W)``, images of the first date.
            after: ``(B, 3, H, W)``, images of the second date.
            encoded: cached features of the batch, for a `FeatureModel`.
            priors: ``(B, 2, W, H, Wd)`` prior masks of W words, for a `GuidedModel`.
        """
        valid = torch.ones(before.shape[0], 1, *before.shape[2:], dtype=torch.bool, device=before.device)
        network: Any = self.model
        if encoded is None and self._encoder_frozen:
            with torch.no_grad():
                encoded = Encoded(network.encode(before, after, valid))
        output: ChangeLogits = (
            infer(network, before, after, valid, priors)
            if encoded is None
            else network.answer(encoded.tensors, (before.shape[2], before.shape[3]))
        )
        self._unchanged = output.unchanged_channel
        if output.before is None or output.after is None:
            return (output.change,)
        return output.change, output.before, output.after

    def logits(self, tensors: tuple[Tensor, ...]) -> ChangeLogits:
        """Return the tensors of `forward` as `ChangeLogits`."""
        change, before, after = tensors if len(tensors) == 3 else (tensors[0], None, None)
        return ChangeLogits(change, before, after, self._unchanged)


def gather_batch(output: ChangeLogits, target: Target, fabric: Fabric) -> tuple[ChangeLogits, Target]:
    """Return logits and labels of the whole batch; gradients flow through the share of this device only.

    Args:
        output: logits of this device.
        target: labels of this device.
        fabric: the devices.
    """
    if fabric.world_size == 1:
        return output, target

    def gathered(tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        plain = tensor.detach().contiguous()
        plain = plain.to(torch.uint8) if plain.dtype == torch.bool else plain
        shares = [torch.empty_like(plain) for _ in range(fabric.world_size)]
        distributed.all_gather(shares, plain)
        if tensor.dtype == torch.bool:
            return torch.cat(shares).bool()
        shares[fabric.global_rank] = tensor
        return torch.cat(shares)

    whole = [gathered(one) for one in (output.change, output.before, output.after)]
    change, valid = gathered(target.change), gathered(target.valid)
    assert whole[0] is not None
    assert change is not None
    assert valid is not None
    return (
        ChangeLogits(whole[0], whole[1], whole[2], unchanged_channel=output.unchanged_channel),
        Target(change, valid, gathered(target.before), gathered(target.after)),
    )


def make_fabric(config: TrainConfig) -> Fabric:
    """Return the launched devices of a run; with several devices, each further process runs the same command."""
    strategy: Any = "auto"
    if config.devices > 1:
        # Losses that use part of the output leave some parameters without a gradient.
        strategy = DDPStrategy(find_unused_parameters=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fabric = Fabric(
            accelerator=config.device,
            devices=config.devices,
            strategy=strategy,
            precision="bf16-mixed" if config.precision == "bf16" else "32-true",
        )
    if config.devices > 1:
        fabric.launch()
    return fabric


@contextmanager
def deterministic() -> Iterator[None]:
    """Use deterministic algorithms where torch has them, so that equal seeds give equal weights."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation.*")
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = benchmark


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether Ctrl-C or SIGTERM was received; a second Ctrl-C stops at once."""
    received: list[int] = []

    def note(number: int, frame: object) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    try:
        earlier = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread, where the embedding program handles signals
        yield lambda: False
        return
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def peak_memory_mb(device: torch.device) -> float:
    """Return the peak memory in MB: of the GPU, or of this process for a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of Python or torch means out of memory."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        sign in text for sign in ("out of memory", "can't allocate memory", "not enough memory")
    )


def memory_advice(config: TrainConfig, device: torch.device, step: int, *, checkpointing: bool = False) -> str:
    """Return an error message with the settings that save memory, the least intrusive first.

    Args:
        config: of the run.
        device: that ran out of memory.
        step: completed steps.
        checkpointing: whether the model has gradient checkpointing.
    """
    share = config.batch_size // (config.accumulate * config.devices)
    advice = []
    if share > 1:
        parts = next(n for n in range(2, share + 1) if share % n == 0) * config.accumulate
        advice.append(f"--set accumulate={parts} (the same batch in smaller parts)")
    if checkpointing and not config.checkpointing:
        advice.append("--set checkpointing=true (slower)")
    if config.precision == "32" and device.type == "cuda":
        advice.append("--set precision=bf16")
    if config.crop > 64:
        advice.append(f"--set crop={max(64, config.crop // 2 // 32 * 32)}")
    return (
        f"out of memory on {device} at step {step + 1}, with {share} pairs of {config.crop} px at once; "
        f"{' or '.join(advice) or 'choose a smaller model or another device'}"
    )


def divergence_advice(
    what: str,
    value: float,
    step: int,
    stage: Stage,
    parts: Mapping[str, Tensor],
    config: TrainConfig,
    kept: Path,
) -> str:
    """Return the message of a training whose loss or gradient is not finite.

    Args:
        what: ``loss`` or ``gradient``.
        value: its value.
        step: completed steps.
        stage: in which it happened.
        parts: terms of the loss.
        config: of the run.
        kept: checkpoint of the last finite weights.
    """
    settings = stage.optimizer or config.optimizer
    terms = ", ".join(f"{name} {float(one):.4g}" for name, one in parts.items())
    advice = [f"--set optimizer.lr={settings.lr / 3:.2g}"]
    advice += ["--set clip=1"] if config.clip is None else []
    advice += ["--set precision=32"] if config.precision != "32" else []
    return (
        f"the {what} is {value} at step {step + 1} (stage {stage.name}{', ' if terms else ''}{terms}); "
        f"try {' or '.join(advice)} in a new folder. The last finite weights are kept: "
        f"--set start={kept} starts from them"
    )


def on_any_device(fabric: Fabric, own: bool) -> bool:
    """Return on every device whether any device passes True."""
    if fabric.world_size == 1:
        return own
    flag = torch.tensor([int(own)], device=fabric.device)
    distributed.all_reduce(flag, distributed.ReduceOp.MAX)
    return bool(flag.item())
