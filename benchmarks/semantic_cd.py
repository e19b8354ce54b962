"""Measure Semantic-CD: the time of a pair and its parts, the cost of class words, and a training step.

    python benchmarks/semantic_cd.py [--clip vit-l-14] [--side 512] [--repeat 3] [parts ...]

Weights are random. Times do not depend on them; differences between number types do, and are smaller for trained
weights. Every comparison is a ratio of two variants measured in turns in one run. Parts:

    encoder   the encoder with filters in float32, in oneDNN's bf16 and in autocast, against plain transformers
    pair      a whole pair: encoder, prompter, decoders; 6 and 100 words; other words from cached features
    step      a training step of each stage: as recipes run it, against gradients of everything
"""

from __future__ import annotations

import argparse
import resource
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn

from timing import in_turns
from wasnow.models.semantic_cd import SECOND_WORDS, SemanticCD
from wasnow.training.losses import LossFunction, Target, change_loss, class_loss
from wasnow.training.optim import freeze, training_mode

HUNDRED = tuple(f"class number {i}" for i in range(100))


class onednn_bf16(AbstractContextManager[None]):  # noqa: N801
    """Let oneDNN compute float32 products; it may round their inputs to bfloat16 on CPUs with such units."""

    def __enter__(self) -> None:
        self._before = torch.backends.mkldnn.matmul.fp32_precision
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"

    def __exit__(self, *error: object) -> None:
        torch.backends.mkldnn.matmul.fp32_precision = self._before


def print_times(times: Mapping[str, float], against: str) -> None:
    """Print one line per variant, with its ratio to one of them."""
    for name, seconds in times.items():
        print(f"  {name:44} {seconds:8.3f} s   {times[against] / seconds:5.2f} x as fast as {against!r}")


def peak_mb() -> float:
    """Peak memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def plain_tower(model: SemanticCD, images: Tensor) -> Tensor:
    """Both dates through the blocks alone, as in transformers."""
    tokens = model.clip.image.embed(images)
    for block in model.clip.image.blocks:
        tokens = block(tokens)
    return tokens


def encoder(model: SemanticCD, pair: tuple[Tensor, Tensor], repeat: int) -> None:
    """Measure the image encoder in each setting, and the difference of its output from float32."""
    rows, cols = (side // 16 * model.clip.image.config.patch for side in pair[0].shape[-2:])
    images = torch.rand(2 * len(pair[0]), 3, rows, cols)

    def under(context: Callable[[], AbstractContextManager[object]], call: Callable[[], object]) -> object:
        with torch.inference_mode(), context():
            return call()

    settings: dict[str, Callable[[], AbstractContextManager[object]]] = {
        "float32": nullcontext,
        "oneDNN bf16": onednn_bf16,
        "autocast bf16": partial(torch.autocast, "cpu", torch.bfloat16),
    }
    work: dict[str, Callable[[], object]] = {
        "plain tower, float32": partial(under, nullcontext, partial(plain_tower, model, images))
    }
    work |= {
        f"with filters, {name}": partial(under, context, partial(model.encode, *pair))
        for name, context in settings.items()
    }
    print_times(in_turns(work, repeat), "plain tower, float32")
    exact = under(nullcontext, partial(model, *pair))
    for name, context in settings.items():
        found = under(context, partial(model, *pair))
        gap = max(
            ((one.float() - other).abs().max() / other.abs().max()).item()
            for one, other in ((found.change, exact.change), (found.before, exact.before))  # type: ignore[attr-defined]
        )
        print(f"  {name:44} largest difference {gap:.1e} of the largest logit")


@torch.inference_mode()
def pair_of_images(model: SemanticCD, pair: tuple[Tensor, Tensor], repeat: int) -> None:
    """Measure the parts of a pair, and the cost of class words."""
    hundred, size = model.bind(HUNDRED), (pair[0].shape[-2], pair[0].shape[-1])
    features = model.encode(*pair)
    both = torch.cat(features)
    costs = {bound: bound.costs(both) for bound in (model, hundred)}
    with onednn_bf16():
        times = in_turns(
            {
                "whole pair, 6 words": partial(model, *pair),
                "whole pair, 100 words": partial(hundred, *pair),
                "other 6 words from cached features": partial(model.answer, features, size),
                "other 100 words from cached features": partial(hundred.answer, features, size),
                "encoder": partial(model.encode, *pair),
                "prompter, 6 words": partial(model.costs, both),
                "prompter, 100 words": partial(hundred.costs, both),
                "change decoder": partial(model.change_decoder, torch.cat(features, dim=1)),
                "class decoder, 6 words": partial(model.class_decoder, both, costs[model]),
                "class decoder, 100 words": partial(model.class_decoder, both, costs[hundred]),
            },
            repeat,
        )
    print_times(times, "whole pair, 6 words")
    print(f"  100 words cost {times['whole pair, 100 words'] / times['whole pair, 6 words']:.2f} x 6 words")
    print(f"  prompter alone: {times['prompter, 100 words'] / times['prompter, 6 words']:.2f} x")
    print(f"  peak memory {peak_mb():.0f} MB")


def step(model: SemanticCD, pair: tuple[Tensor, Tensor], repeat: int) -> None:
    """Measure a step of each stage: forward, loss, gradient; without the optimizer."""
    height, width = pair[0].shape[-2:]
    codes = torch.randint(0, 7, (2, len(pair[0]), height, width), generator=torch.Generator().manual_seed(0))
    target = Target.of_codes(*torch.where(codes[:1] > 0, codes.clamp(min=1), 0))

    def run(loss: LossFunction, trains: tuple[str, ...], *, checkpointing: bool = False, encoder: bool = True) -> None:
        model.checkpointing = checkpointing
        freeze(model, trains)
        training_mode(model)
        with nullcontext() if encoder else torch.no_grad():
            features = model.encode(*pair)
        loss(model.answer(features, (height, width)), target).total.backward()
        model.zero_grad()

    first, second = ("filters", "change_decoder"), ("prompter", "class_decoder")
    everything = "gradients of everything"
    stages: dict[str, dict[str, Callable[[], object]]] = {
        "stage 1": {
            everything: partial(run, change_loss, ()),
            "frozen parts without gradients": partial(run, change_loss, first),
            "and gradient checkpointing": partial(run, change_loss, first, checkpointing=True),
        },
        "stage 2": {
            everything: partial(run, class_loss, ()),
            "frozen parts without gradients": partial(run, class_loss, second),
            "and the encoder without a graph": partial(run, class_loss, second, encoder=False),
        },
    }
    for name, work in stages.items():
        print(f"  {name}")
        print_times(in_turns(work, repeat), everything)
        for kind, call in work.items():
            print(f"  {kind:44} holds {kept_mb(call):8.0f} MB for the gradient")


def kept_mb(call: Callable[[], object]) -> float:
    """MB that the graph of one call holds for its gradient; each tensor counts once, weights do not count."""
    sizes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        call()
    return sum(sizes.values()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", default=["encoder", "pair", "step"])
    parser.add_argument("--clip", default="vit-l-14")
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--repeat", type=int, default=3)
    chosen = parser.parse_args()
    torch.manual_seed(0)
    model = SemanticCD(SECOND_WORDS, clip=chosen.clip).eval()
    print(f"{chosen.clip}, {chosen.side} px, {sum(p.numel() for p in model.parameters()) / 1e6:.0f} M parameters")
    images = torch.rand(2, 1, 3, chosen.side, chosen.side)
    for part in chosen.parts:
        print(part)
        {"encoder": encoder, "pair": pair_of_images, "step": step}[part](model, (images[0], images[1]), chosen.repeat)


if __name__ == "__main__":
    main()
