"""The comparison networks on a processor: as they are trained, against the settings that make them faster.

    python benchmarks/networks.py [--models ted hrscd ...] [--settings folded bf16 ...] [--side 512] [--repeat 5]

Each network is what ``wasnow convert`` leaves of published weights, with random numbers in them: times do not depend on
these, and norms have seen images, so that maps are neither empty nor endless. One pair of 1 x 3 x 512 x 512, plain
eager float32 against each setting, called in turns; the median is told, how many times faster that is, by how much the
answers differ at most (over the largest number of the same answer; change and both classes), and the share of pixels
whose code differs: change at 0.5, or the class of a changed pixel. Settings:

    last       weights of convolutions with their channels last
    folded     what every run does: norms folded into convolutions, channels last (`wasnow.nn.fused`)
    first      norms folded, channels first
    bf16       folded, and products in bfloat16 (``--precision bf16``)
    medium     folded, and torch.set_float32_matmul_precision("medium")
    rounded    folded, and float32 products that oneDNN may round to bfloat16, convolutions too
    openvino   ``--device openvino``, where it is installed
    compiled   folded, and torch.compile, which needs a C++ compiler and Python's headers: left out unless asked for
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
from wasnow._system import kept_memory
from wasnow.models import registry
from wasnow.models.contract import ChangeLogits, ChangeModel
from wasnow.nn.fused import fused
from wasnow.pipeline.acceleration import accelerated

NETWORKS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    **{name: (name, {}) for name in ("sscd-l", "bisrnet", "hrscd", "changemask", "ted", "scannet", "smnet")},
    "mamba-scd-tiny": ("mamba-scd", {"size": "tiny"}),
    "mamba-scd-base": ("mamba-scd", {"size": "base"}),
}
"""By what is measured: the network, and its options."""

Call = Callable[[], ChangeLogits]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=NETWORKS, default=list(NETWORKS), metavar="NAME")
    usual = [name for name in SETTINGS if name != "compiled" and (name != "openvino" or find_spec("openvino"))]
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=usual, metavar="NAME")
    parser.add_argument("--side", type=int, default=512, help="of the pair, in pixels")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="write everything there too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    machine = f"{options.threads} threads, torch {torch.__version__}, Python {platform.python_version()}"
    print(f"1 x 3 x {options.side} x {options.side}, {machine}, median of {options.repeat} in turns")
    rows = []
    with kept_memory():
        for name in options.models:
            print(f"  {name}")
            for row in measured(name, options.settings, options.side, options.repeat):
                rows.append(row)
                print(
                    f"    {row['setting']:10} {row['seconds']:8.3f} s   {row['times']:5.2f} x plain   "
                    f"off by {row['off']:7.1e}   {100 * row['flipped']:6.3f} % of the codes"
                )
    if options.json:
        told = {"side": options.side, "repeat": options.repeat, "machine": machine, "rows": rows}
        options.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def measured(name: str, settings: list[str], side: int, repeat: int) -> list[dict[str, Any]]:
    """Plain, then each setting."""
    network = lived(name)
    tiles = torch.rand(2, 1, 3, side, side, generator=torch.Generator().manual_seed(0))
    pair = (tiles[0], tiles[1], torch.ones(1, 1, side, side, dtype=torch.bool))
    calls = {"plain": partial(asked, network, pair)} | {each: SETTINGS[each](network, pair) for each in settings}
    wanted = calls["plain"]()
    times = in_turns(calls, repeat)
    rows = []
    for setting, call in calls.items():
        found = call()
        rows.append(
            {
                "network": name,
                "setting": setting,
                "seconds": times[setting],
                "times": times["plain"] / times[setting],
                "off": max(difference(one, other) for one, other in zip(parts(found), parts(wanted), strict=True)),
                "flipped": (codes(found) != codes(wanted)).any(0).float().mean().item(),
            }
        )
    return rows


def lived(name: str) -> nn.Module:
    """With random weights, and norms that know what comes to them."""
    kind, options = NETWORKS[name]
    torch.manual_seed(0)
    network = registry.build(kind, **options)
    assert isinstance(network, nn.Module)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 1.0
            # Tens of layers at full strength and random amplify every rounding; trained ones do not.
            nn.init.constant_(part.weight, 0.25)
    with torch.no_grad():
        network.train()(*torch.rand(2, 2, 3, 64, 64))
    return network.eval()


# ------------------------------------------------------------------------------------------------------------- settings


def asked(network: Any, pair: tuple[Tensor, Tensor, Tensor]) -> ChangeLogits:
    """One call, as the engine makes it."""
    with torch.inference_mode():
        answer: ChangeLogits = network(*pair)
        return answer


def within(mode: Callable[[], Any], network: Any, pair: tuple[Tensor, Tensor, Tensor]) -> ChangeLogits:
    with mode():
        return asked(network, pair)


@contextmanager
def medium() -> Iterator[None]:
    """Products of matrices may be rounded."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def rounded() -> Iterator[None]:
    """Products of matrices and convolutions may be rounded."""
    backend: Any = torch.backends.mkldnn
    before = (backend.matmul.fp32_precision, backend.conv.fp32_precision)
    backend.matmul.fp32_precision = backend.conv.fp32_precision = "bf16"
    try:
        yield
    finally:
        backend.matmul.fp32_precision, backend.conv.fp32_precision = before


def _last(network: nn.Module, pair: Any) -> Call:
    """A copy whose norms stay."""
    same = registry.build(network.card.name, **network.config())  # type: ignore[union-attr, operator]
    assert isinstance(same, nn.Module)
    same.load_state_dict(network.state_dict())
    for part in same.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            part.weight.data = part.weight.data.contiguous(memory_format=torch.channels_last)
    return partial(asked, same.eval(), pair)


def _openvino(network: nn.Module, pair: Any) -> Call:
    model: ChangeModel = accelerated(network, device="openvino")  # type: ignore[arg-type]
    return partial(asked, model, pair)


def _compiled(network: nn.Module, pair: Any) -> Call:
    return partial(asked, torch.compile(fused(network)), pair)


SETTINGS: Mapping[str, Callable[[nn.Module, Any], Call]] = {
    "last": _last,
    "folded": lambda network, pair: partial(within, nullcontext, fused(network), pair),
    "first": lambda network, pair: partial(asked, fused(network, layout=torch.contiguous_format), pair),
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
    """``(2, B, H, W)``: the class of both dates where something changed, -1 elsewhere."""
    changed = answer.change[:, 0] > 0
    assert answer.land_cover is not None
    return torch.stack([torch.where(changed, each.argmax(1), -1) for each in answer.land_cover])


if __name__ == "__main__":
    main()
