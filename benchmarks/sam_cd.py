"""Compare the encoder of SAM-CD with plain transformers, and its fused masked attention with explicit score matrices.

    python benchmarks/sam_cd.py [--encoder mit-b1] [--side 512] [--large 1024] [--repeat 5] [parts ...]

Weights are random; times and memory do not depend on them. Each variant runs in a separate process, since settings of
the C library and the memory peak of a process cannot be reset. Variants run in turns, ``--repeat`` times; the median is
printed. Parts:

    encoder     SegformerModel of transformers, against ours: with weights in channels-last layout, with freed memory
                kept (`wasnow._system.retained_heap`), and with float32 products by oneDNN, which may round to bfloat16
    attention   the four masked attentions at --large px, forward and with gradients: fused kernels against explicit
                score matrices; dense matrices between all positions are only counted if they would not fit
    network     a pair at --side px: without priors, with masks as channels, with masked attention for 1 and 4 words
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import torch
from torch import Tensor
from transformers import SegformerConfig, SegformerModel

from wasnow._system import retained_heap
from wasnow.models.sam_cd import SAMCD
from wasnow.nn.masked_attention import MaskedAttention, pooled
from wasnow.nn.segformer import STRIDES, MitConfig, MixTransformer

PARTS = ("encoder", "attention", "network")
MB = 2**20
FITS_MB = 4096
"""Score matrices larger than this are counted but not computed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", type=part_name, default=list(PARTS), help=", ".join(PARTS))
    parser.add_argument("--encoder", default="mit-b1")
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--large", type=int, default=1024)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options)))
        return
    print(f"{torch.get_num_threads()} threads, {options.encoder}, median of {options.repeat} in turns")
    parts = dict(zip(PARTS, (encoder_part, attention_part, network_part), strict=True))
    for part in options.parts:
        parts[part](options)


def part_name(part: str) -> str:
    """Argparse type: the name of a part. (`choices` would reject the default, which is a list.)"""
    if part not in PARTS:
        raise argparse.ArgumentTypeError(f"{part!r} is not one of {', '.join(PARTS)}")
    return part


# -------------------------------------------------------------------------------------------------- separate processes


def in_turns(names: list[str], options: argparse.Namespace) -> dict[str, tuple[float, float]]:
    """Median time in s and median growth of the memory peak in MB, by name."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for _ in range(options.repeat):
        for name in names:
            sizes = ["--encoder", options.encoder, "--side", str(options.side), "--large", str(options.large)]
            command = [sys.executable, __file__, "--one", name, *sizes]
            answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found[name].append(tuple(json.loads(answer.splitlines()[-1])))
    return {name: tuple(statistics.median(each) for each in zip(*rows, strict=True)) for name, rows in found.items()}


def measure(name: str, options: argparse.Namespace) -> tuple[float, float]:
    """Time of the second of two calls in s, and growth of the memory peak over both in MB."""
    with ExitStack() as stack:
        torch.manual_seed(0)
        call = dict(prepared_calls(options, stack))[name]()
        before = peak()
        call()
        start = time.perf_counter()
        call()
        return time.perf_counter() - start, peak() - before


def peak() -> float:
    """Peak memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def prepared_calls(
    options: argparse.Namespace, stack: ExitStack
) -> Iterator[tuple[str, Callable[[], Callable[[], object]]]]:
    """Yield the name of each variant and a function that prepares it and returns the call to time."""
    for name in ENCODERS:
        yield name, lambda name=name: encoder_work(name, options, stack)
    for name in ATTENTIONS:
        yield name, lambda name=name: attention_work(name, options)
    for name in NETWORKS:
        yield name, lambda name=name: network_work(name, options, stack)


# -------------------------------------------------------------------------------------------------------------- encoder

ENCODERS = {
    "plain transformers": (),
    "ours": (),
    "ours, channels-last": ("last",),
    "ours, channels-last, memory kept": ("last", "kept"),
    "ours, channels-last, memory kept, oneDNN": ("last", "kept", "onednn"),
}


def encoder_work(name: str, options: argparse.Namespace, stack: ExitStack) -> Callable[[], object]:
    sizes, settings = MitConfig.named(options.encoder), ENCODERS[name]
    images = torch.rand(2, 3, options.side, options.side)
    if name == "plain transformers":
        config = SegformerConfig(hidden_sizes=sizes.widths, depths=sizes.depths)
        plain = SegformerModel(config).eval()
        return torch.inference_mode()(lambda: plain(images, output_hidden_states=True))
    ours = MixTransformer(sizes).eval()
    if "last" in settings:
        ours = ours.to(memory_format=torch.channels_last)
    if "kept" in settings:
        stack.enter_context(retained_heap())
    if "onednn" in settings:
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    return torch.inference_mode()(lambda: ours(images))


def encoder_part(options: argparse.Namespace) -> None:
    print(f"encoder, both dates at {options.side} px")
    found = in_turns(list(ENCODERS), options)
    plain = found["plain transformers"][0]
    for name, (seconds, _) in found.items():
        print(f"  {name:44} {seconds:8.3f} s   {plain / seconds:5.2f} x as fast as plain transformers")


# ------------------------------------------------------------------------------------------------------------ attention

ATTENTIONS = ("fused", "fused, gradients", "table", "table, gradients")


class ExplicitScores(MaskedAttention):
    """The same attention with an explicit score matrix for each head."""

    def _local(self, tokens: Tensor, query: Tensor, key: Tensor, value: Tensor, read: Tensor) -> Tensor:
        scores = (query @ key.mT / query.shape[-1] ** 0.5).masked_fill(~read[:, None, None], float("-inf"))
        found = scores.softmax(-1) @ value
        local: Tensor = self.norm(tokens + self.out(found.transpose(1, 2).flatten(2)))
        return local


def attention_work(name: str, options: argparse.Namespace) -> Callable[[], object]:
    sizes, gradients = MitConfig.named(options.encoder), name.endswith("gradients")
    kind = ExplicitScores if name.startswith("table") else MaskedAttention
    modules = [kind(*each) for each in zip(sizes.widths, sizes.heads, sizes.reductions, strict=True)]
    mask = torch.zeros(1, 1, options.large, options.large, dtype=torch.bool)
    mask[..., : options.large // 3, : options.large // 2] = True
    maps = [
        torch.randn(1, width, options.large // stride, options.large // stride, requires_grad=gradients)
        for width, stride in zip(sizes.widths, STRIDES, strict=True)
    ]

    def call() -> None:
        with torch.set_grad_enabled(gradients):
            for module, features, stride in zip(modules, maps, STRIDES, strict=True):
                answer = module(features, pooled(mask, stride))
                if gradients:
                    answer.sum().backward()

    return call


def attention_part(options: argparse.Namespace) -> None:
    sizes = MitConfig.named(options.encoder)
    print(f"masked attention at {options.large} px, one image, one word; MB beyond weights and features")
    tables = {"table": 0.0, "dense": 0.0}
    for stride, heads, by in zip(STRIDES, sizes.heads, sizes.reductions, strict=True):
        places = (options.large // stride) ** 2
        keyed, dense = (4 * heads * places * keys / MB for keys in (places // by**2, places))
        tables = {"table": max(tables["table"], keyed), "dense": max(tables["dense"], dense)}
        print(f"  stride {stride:2}: {places} positions, {places // by**2} keys, {heads} heads: scores {keyed:.0f} MB, "
              f"between all positions {dense:.0f} MB")  # fmt: skip
    names = [name for name in ATTENTIONS if name.startswith("fused") or 3 * tables["table"] < FITS_MB]
    found = in_turns(names, options)
    for name, (seconds, mb) in found.items():
        print(f"  {name:44} {seconds:8.3f} s   {mb:6.0f} MB at the peak")
    print(f"  largest score matrix: {tables['table']:.0f} MB; between all positions: {tables['dense']:.0f} MB")


# -------------------------------------------------------------------------------------------------------------- network

NETWORKS = {
    "no priors": ("none", 1),
    "masks as channels": ("channel", 1),
    "masked attention": ("attention", 1),
    "masked attention, 4 words": ("attention", 4),
}


def network_work(name: str, options: argparse.Namespace, stack: ExitStack) -> Callable[[], object]:
    priors, words = NETWORKS[name]
    stack.enter_context(retained_heap())
    network = SAMCD(encoder=options.encoder, words=[f"class {i}" for i in range(words)], priors=priors)
    network = network.to(memory_format=torch.channels_last).eval()
    before, after = torch.rand(2, 1, 3, options.side, options.side)
    masks = torch.zeros(1, 2, words, options.side, options.side, dtype=torch.bool)
    masks[..., : options.side // 3, : options.side // 2] = True
    return torch.inference_mode()(lambda: network(before, after, None, masks))


def network_part(options: argparse.Namespace) -> None:
    print(f"a pair at {options.side} px")
    found = in_turns(list(NETWORKS), options)
    least = found["no priors"][0]
    for name, (seconds, mb) in found.items():
        print(f"  {name:44} {seconds:8.3f} s   {seconds / least:5.2f} times 'no priors'   {mb:6.0f} MB at the peak")


if __name__ == "__main__":
    main()
