"""What each source and each part of the recipe is good for: the same short training without it, measured alike.

    python mini/ablate.py DATA OUT [--steps 400] [--side 192] [--seeds 0,1] [--only whole,yinx]

Every variant is one ``mini/train.py`` with two seeds, then ``mini/ship.py`` and ``mini/aims.py`` on the aims below. OUT
holds a folder for each variant and seed; what is there is not done again, so several of these can share the work.

    whole           everything
    a source        without it, by its name in `mini/mix.py`
    consistency     real dates of unchanged towns teach classes alone
    band            Dubai's buildings are learned up to their outlines
    two-scales      the weights of ``whole``, which look a second time at twice the pixel size
    soup            the weights of ``whole``, averaged over the last three that were kept
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from mix import SOURCES

AIMS = "france,levir,yinx,dubai 7,water 5 m,unchanged"
"""Measured for every variant."""

TRAINED = ("whole", *(name for name in SOURCES if "-" not in name), "consistency", "band")
OF_WHOLE = ("two-scales", "soup")


def run(script: str, *arguments: str) -> None:
    """One of the scripts beside this one."""
    subprocess.run([sys.executable, str(Path(__file__).with_name(script)), *arguments], check=True)


def measured(variant: str, seed: int, data: Path, out: Path, steps: int, side: int) -> dict[str, float]:
    """The figures of one variant and seed, trained and measured where they are not there yet."""
    folder = out / f"{variant}-{seed}"
    scores = folder / "scores.json"
    if not scores.exists():
        trained = out / f"{'whole' if variant in OF_WHOLE else variant}-{seed}" / "run"
        options = ["--steps", str(steps), "--side", str(side), "--seed", str(seed), "--keep-every", str(steps // 8)]
        without = [] if variant in ("whole", *OF_WHOLE) else ["--without", variant]
        run("train.py", str(data), str(trained), *options, *without)
        more = {"two-scales": ["--coarser", "2"], "soup": [f"--soup={steps - k * (steps // 8)}" for k in range(3)]}
        checkpoint = folder / "checkpoint.safetensors"
        run("ship.py", str(trained), str(data), str(checkpoint), "--pairs", "60", *more.get(variant, []))
        run("aims.py", str(checkpoint), str(data), str(folder / "aims"), "--only", AIMS, "--json", str(scores))
    found = json.loads(scores.read_text(encoding="utf-8"))
    return {name: one.get("best", one.get("miou", one.get("called changed"))) for name, one in found.items()}


def main() -> None:
    """Train and measure what is not there yet; print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--side", type=int, default=192)
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--only", default=",".join((*TRAINED, *OF_WHOLE)))
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    print(f"| | {AIMS.replace(',', ' | ')} |")
    for variant in asked.only.split(","):
        rows = [
            measured(variant, int(seed), asked.data, asked.out, asked.steps, asked.side)
            for seed in asked.seeds.split(",")
        ]
        cells = [
            f"{np.mean(values):.3f} ± {np.ptp(values) / 2:.3f}"
            for values in zip(*(r.values() for r in rows), strict=True)
        ]
        print(f"| {variant} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
