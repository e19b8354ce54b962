"""What a run needs of the machine: devices and processes, repeatable algorithms, signals, memory.

**Several devices** compute the loss of the whole batch, not the mean of the losses of their shares:

    device 0   answer of its share ─┐                                ┌─> gradient of share 0 ─┐
    device 1   answer of its share ─┴─ gathered ─> loss of the batch ┴─> gradient of share 1 ─┴─ summed

Losses that count pixels over the batch (balanced cross-entropy, Dice, Lovasz) are thus the same on one device and on
eight. Batch normalisation does the same on GPUs (`torch.nn.SyncBatchNorm`); on CPUs, where torch has no such layer,
each process normalises its own share.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, distributed, nn

from wasnow.models.contract import ChangeLogits, infer
from wasnow.training.config import TrainConfig
from wasnow.training.losses import Target


class Encoded:
    """Features of a batch, as `FeatureModel.encode` gives them.

    No plain tuple, because the wrappers of precision would widen what is in it, and it must stay as it was computed.
    """

    __slots__ = ("tensors",)

    def __init__(self, tensors: tuple[Tensor, ...]) -> None:
        self.tensors = tensors


class Answers(nn.Module):
    """A network whose answer is plain tensors, which is what precision and DDP wrappers understand.

    Args:
        model: a `ChangeModel`.
        encoder_rests: nothing in the model's encoder learns, so that no graph of it is kept; for a `FeatureModel` only.
    """

    def __init__(self, model: nn.Module, *, encoder_rests: bool = False) -> None:
        super().__init__()
        self.model = model
        self._encoder_rests = encoder_rests
        self._unchanged = False

    def forward(
        self, before: Tensor, after: Tensor, encoded: Encoded | None = None, priors: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """The logits of a batch, or of its features where they are known; `logits` puts them together again.

        Args:
            before: ``(B, 3, H, W)``.
            after: likewise.
            encoded: features of the batch, for a `FeatureModel`.
            priors: ``(B, 2, W, H, Wd)``, for a `GuidedModel`.
        """
        valid = torch.ones(before.shape[0], 1, *before.shape[2:], dtype=torch.bool, device=before.device)
        network: Any = self.model
        if encoded is None and self._encoder_rests:
            with torch.no_grad():
                encoded = Encoded(network.encode(before, after, valid))
        answer: ChangeLogits = (
            infer(network, before, after, valid, priors)
            if encoded is None
            else network.answer(encoded.tensors, (before.shape[2], before.shape[3]))
        )
        self._unchanged = answer.unchanged_channel
        if answer.before is None or answer.after is None:
            return (answer.change,)
        return answer.change, answer.before, answer.after

    def logits(self, tensors: tuple[Tensor, ...]) -> ChangeLogits:
        """The answer that `forward` took apart."""
        change, before, after = tensors if len(tensors) == 3 else (tensors[0], None, None)
        return ChangeLogits(change, before, after, self._unchanged)


def of_whole_batch(answer: ChangeLogits, target: Target, fabric: Fabric) -> tuple[ChangeLogits, Target]:
    """The answers and labels of the whole batch; gradients flow through this device's share alone."""
    if fabric.world_size == 1:
        return answer, target

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

    whole = [gathered(one) for one in (answer.change, answer.before, answer.after)]
    change, valid = gathered(target.change), gathered(target.valid)
    assert whole[0] is not None
    assert change is not None
    assert valid is not None
    return (
        ChangeLogits(whole[0], whole[1], whole[2], unchanged_channel=answer.unchanged_channel),
        Target(change, valid, gathered(target.before), gathered(target.after)),
    )


def make_fabric(config: TrainConfig) -> Fabric:
    """The devices of a run, launched; every process but the first then starts the same command anew."""
    strategy: Any = "auto"
    if config.devices > 1:
        # Losses that use a part of the answer leave parameters without a gradient.
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
    """The same seed, the same weights: algorithms that repeat themselves, where torch has them."""
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
    """Whether Ctrl-C or SIGTERM came; the step under way is finished first. A second Ctrl-C does not wait."""
    asked: list[int] = []

    def note(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    try:
        earlier = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: whoever embeds us owns the signals
        yield lambda: False
        return
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def memory_mb(device: torch.device) -> float:
    """Most that was held so far: on the GPU, else by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python or torch means that memory ran out."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        sign in text for sign in ("out of memory", "can't allocate memory", "not enough memory")
    )


def loading_was_killed(error: BaseException) -> bool:
    """Whether a worker process of the data loader died of a signal: torch says so only in words."""
    return "DataLoader worker" in str(error) and "killed by signal" in str(error)


def memory_advice(config: TrainConfig, device: torch.device, step: int, *, checkpointing: bool = False) -> str:
    """Which setting to change, the one that changes least first; ``checkpointing`` where the model offers it."""
    share = config.batch_size // (config.accumulate * config.devices)
    ways = []
    if share > 1:
        parts = next(n for n in range(2, share + 1) if share % n == 0) * config.accumulate
        ways.append(f"--set accumulate={parts} (the same batch in smaller parts)")
    if checkpointing and not config.checkpointing:
        ways.append("--set checkpointing=true (slower)")
    if config.precision == "32" and device.type == "cuda":
        ways.append("--set precision=bf16")
    if config.crop > 64:
        ways.append(f"--set crop={max(64, config.crop // 2 // 32 * 32)}")
    return (
        f"out of memory on {device} at step {step + 1}, with {share} pairs of {config.crop} px at once; "
        f"{' or '.join(ways) or 'choose a smaller model or another device'}"
    )
