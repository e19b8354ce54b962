"""Measure the comparison networks on a CPU, plain and with the settings that make them faster.

    python benchmarks/networks.py [--models ted hrscd ...] [--settings folded bf16 ...] [--side 512] [--repeat 5]

The weights are random, since times do not depend on them; the norms have statistics of images, so that outputs are
finite and not empty. One pair of 1 x 3 x 512 x 512 px runs in plain eager float32 and in each setting, in turns.
Printed are the median time, the speed relative to plain, the largest difference of the outputs (relative to the largest
value of the same output, for change and both classes), and the share of pixels whose code differs: change at 0.5, or
the class of a changed pixel. Settings:

    last       weights of convolutions in channels-last layout
    folded     the default of every run: norms folded into convolutions, channels last (`wasnow.nn.fused`)
    first      norms folded, channels first
    bf16       folded, autocast to bfloat16 (``--precision bf16``)
    medium     folded, torch.set_float32_matmul_precision("medium")
    rounded    folded, oneDNN may round float32 products and convolutions to bfloat16
    openvino   ``--device openvino``, where it is installed
    compiled   folded, torch.compile; needs a C++ compiler and Python's headers, so it runs only if named
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from timing import in_turns
from wasnow._system import retained_heap
from wasnow.models import registry
from wasnow.models.contract import ChangeLogits, ChangeModel
from wasnow.nn.fused import fused
from wasnow.pipeline.acceleration import accelerated

NETWORKS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    **{name: (name, {}) for name in ("sscd-l", "bisrnet", "hrscd", "changemask", "ted", "scannet", "smnet")},
    "mamba-scd-tiny": ("mamba-scd", {"size": "tiny"}),
    "mamba-scd-base": ("mamba-scd", {"size": "base"}),
}
"""Network and options, by name."""

Call = Callable[[], ChangeLogits]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=NETWORKS, default=list(NETWORKS), metavar="NAME")
    default = [name for name in SETTINGS if name != "compiled" and (name != "openvino" or find_spec("openvino"))]
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=default, metavar="NAME")
    parser.add_argument("--side", type=int, default=512, help="rows and columns of the pair")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    machine = f"{options.threads} threads, torch {torch.__version__}, Python {platform.python_version()}"
    print(f"1 x 3 x {options.side} x {options.side}, {machine}, median of {options.repeat} in turns")
    rows = []
    with retained_heap():
        for name in options.models:
            print(f"  {name}")
            for row in measure(name, options.settings, options.side, options.repeat):
                rows.append(row)
                print(
                    f"    {row['setting']:10} {row['seconds']:8.3f} s   {row['times']:5.2f} x plain   "
                    f"difference {row['difference']:7.1e}   {100 * row['flipped']:6.3f} % of the codes differ"
                )
    if options.json:
        results = {"side": options.side, "repeat": options.repeat, "machine": machine, "rows": rows}
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def measure(name: str, settings: list[str], side: int, repeat: int) -> list[dict[str, Any]]:
    """One row for plain and one for each setting.

    Args:
        name: a key of `NETWORKS`.
        settings: keys of `SETTINGS`.
        side: rows and columns of the pair.
        repeat: timed calls of each.
    """
    network = random_network(name)
    tiles = torch.rand(2, 1, 3, side, side, generator=torch.Generator().manual_seed(0))
    pair = (tiles[0], tiles[1], torch.ones(1, 1, side, side, dtype=torch.bool))
    calls = {"plain": partial(call, network, pair)} | {each: SETTINGS[each](network, pair) for each in settings}
    expected = calls["plain"]()
    times = in_turns(calls, repeat)
    rows = []
    for setting, run in calls.items():
        found = run()
        rows.append(
            {
                "network": name,
                "setting": setting,
                "seconds": times[setting],
                "times": times["plain"] / times[setting],
                "difference": max(
                    difference(one, other) for one, other in zip(parts(found), parts(expected), strict=True)
                ),
                "flipped": (codes(found) != codes(expected)).any(0).float().mean().item(),
            }
        )
    return rows


def random_network(name: str) -> nn.Module:
    """A network with random weights whose norms have statistics of random images."""
    kind, options = NETWORKS[name]
    torch.manual_seed(0)
    network = registry.build(kind, **options)
    assert isinstance(network, nn.Module)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 1.0
            # Many random layers at full scale amplify rounding errors; trained layers do not.
            nn.init.constant_(part.weight, 0.25)
    with torch.no_grad():
        network.train()(*torch.rand(2, 2, 3, 64, 64))
    return network.eval()


# ------------------------------------------------------------------------------------------------------------- settings


def call(network: Any, pair: tuple[Tensor, Tensor, Tensor]) -> ChangeLogits:
    """Call the network as the pipeline does."""
    with torch.inference_mode():
        answer: ChangeLogits = network(*pair)
        return answer


def within(mode: Callable[[], Any], network: Any, pair: tuple[Tensor, Tensor, Tensor]) -> ChangeLogits:
    with mode():
        return call(network, pair)


@contextmanager
def medium() -> Iterator[None]:
    """Allow torch to round matrix products."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def rounded() -> Iterator[None]:
    """Allow oneDNN to round matrix products and convolutions."""
    backend: Any = torch.backends.mkldnn
    before = (backend.matmul.fp32_precision, backend.conv.fp32_precision)
    backend.matmul.fp32_precision = backend.conv.fp32_precision = "bf16"
    try:
        yield
    finally:
        backend.matmul.fp32_precision, backend.conv.fp32_precision = before


def _last(network: nn.Module, pair: Any) -> Call:
    """A copy in channels-last layout whose norms are not folded."""
    same = registry.build(network.card.name, **network.config())  # type: ignore[union-attr, operator]
    assert isinstance(same, nn.Module)
    same.load_state_dict(network.state_dict())
    for part in same.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            part.weight.data = part.weight.data.contiguous(memory_format=torch.channels_last)
    return partial(call, same.eval(), pair)


def _openvino(network: nn.Module, pair: Any) -> Call:
    model: ChangeModel = accelerated(network, device="openvino")  # type: ignore[arg-type]
    return partial(call, model, pair)


def _compiled(network: nn.Module, pair: Any) -> Call:
    return partial(call, torch.compile(fused(network)), pair)


SETTINGS: Mapping[str, Callable[[nn.Module, Any], Call]] = {
    "last": _last,
    "folded": lambda network, pair: partial(within, nullcontext, fused(network), pair),
    "first": lambda network, pair: partial(call, fused(network, layout=torch.contiguous_format), pair),
    "bf16": lambda network, pair: partial(within, partial(torch.autocast, "cpu", torch.bfloat16), fused(network), pair),
    "medium": lambda network, pair: partial(within, medium, fused(network), pair),
    "rounded": lambda network, pair: partial(within, rounded, fused(network), pair),
    "openvino": _openvino,
    "compiled": _compiled,
}


# -------------------------------------------------------------------------------------------------------------- answers


def parts(answer: ChangeLogits) -> list[Tensor]:
    return [each.float() for each in (answer.change, answer.before, answer.after) if each is not None]


def difference(one: Tensor, other: Tensor) -> float:
    return ((one - other).abs().max() / other.abs().max()).item()


def codes(answer: ChangeLogits) -> Tensor:
    """Class of both dates where change is above 0.5, -1 elsewhere: ``(2, B, H, W)``."""
    changed = answer.change[:, 0] > 0
    assert answer.land_cover is not None
    return torch.stack([torch.where(changed, each.argmax(1), -1) for each in answer.land_cover])


if __name__ == "__main__":
    main()
