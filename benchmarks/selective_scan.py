"""Compare the chunked selective scan with the sequential one. Target: ten times as fast at 4096 steps.

    python benchmarks/selective_scan.py [STEPS] [--width D] [--runs N] [--threads N]

One sequence of STEPS positions (4096) and D channels (192, the first stage of VMamba-tiny), state size 1: the output
alone, and the output with its gradient. Both variants run interleaved and are measured in CPU time, which other
processes affect least. The largest difference of outputs and gradients is printed too.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from wasnow.nn.selective_scan import Scan, chunked, sequential


def random_inputs(steps: int, width: int) -> list[Tensor]:
    """u, Δ, A, B, C with the ranges of a network: Δ about 1/100 to 10."""
    torch.manual_seed(0)
    u, delta = torch.randn(2, 1, steps, width)
    write, read = torch.randn(2, 1, steps, 1)
    return [u, functional.softplus(2 * delta - 2), -torch.exp(torch.randn(width, 1)), write, read]


def forward(scan: Scan, inputs: list[Tensor]) -> list[Tensor]:
    """The output."""
    with torch.inference_mode():
        return [scan(*inputs)]


def gradients(scan: Scan, inputs: list[Tensor]) -> list[Tensor]:
    """The gradients of the sum of squares of the output with respect to all inputs."""
    leaves = [each.detach().requires_grad_() for each in inputs]
    return list(torch.autograd.grad(scan(*leaves).square().sum(), leaves))


def seconds(work: Callable[[], object]) -> float:
    """CPU time of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="?", type=int, default=4096)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    inputs = random_inputs(options.steps, options.width)
    print(f"{options.steps} steps, {options.width} channels, {options.threads} threads, {options.runs} runs")
    for name, work in (("output", forward), ("output and gradient", gradients)):
        pairs = list(zip(work(chunked, inputs), work(sequential, inputs), strict=True))
        difference = max(float((one - other).abs().max() / other.abs().max()) for one, other in pairs)
        took: dict[str, list[float]] = {"sequential": [], "chunked": []}
        for _ in range(options.runs):
            took["sequential"].append(seconds(lambda work=work: work(sequential, inputs)))  # type: ignore[misc]
            took["chunked"].append(seconds(lambda work=work: work(chunked, inputs)))  # type: ignore[misc]
        slow, fast = (statistics.median(each) for each in took.values())
        ratios = [one / other for one, other in zip(took["sequential"], took["chunked"], strict=True)]
        print(
            f"{name}: sequential {1000 * slow:.0f} ms, chunked {1000 * fast:.1f} ms, {statistics.median(ratios):.1f} "
            f"times as fast ({min(ratios):.1f} to {max(ratios):.1f}); "
            f"largest difference {difference:.1e} of the largest value"
        )


if __name__ == "__main__":
    main()
