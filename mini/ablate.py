"""What each part of semantic-cd-mini is good for: the same short training without it, measured on what nobody saw.

    python mini/ablate.py DATA MADE OUT [--steps 500] [--crop 192] [--seed 0] [--only whole,filters]

DATA is the folder of real imagery, MADE holds what ``make_data.py --mix wider`` wrote (``pairs``, ``naip_test``) and
start.safetensors. Every variant is one ``wasnow train semantic-cd-mini`` with the settings below and otherwise the
recipe, from the same ImageNet tower, on the same batches. OUT holds a run and a scores.json for each; what is there is
not done again, so several of these can share the work by ``--only``.

    whole       everything
    filters     no bi-temporal filters
    costs       no cost volume: classes from features alone, so for the words of training only
    decoder     change from the change decoder alone: it knows no words
    classes     change from the classes of both dates alone
    singles     nothing but single dates: no change is taught, no filter, change where classes differ

All answer in the five words of training. Change of one word, as it is asked for on the French pairs and NAIP, is then
where change is likely enough and exactly one date has the word; the best threshold on that very data is reported, as
each variant has other probabilities.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling

from make_data import MIXES
from measure import GRID, answer, f1, france_pairs, landcover, pairs, read, score
from wasnow.models.checkpoint import load
from wasnow.models.contract import ChangeModel

VARIANTS: dict[str, tuple[str, ...]] = {
    "whole": (),
    "filters": ("model.filters=[]",),
    "costs": ("model.cost_volume=false",),
    "decoder": ("model.change=decoder",),
    "classes": ("model.change=classes",),
    "singles": ("model.change=classes", "model.filters=[]", "stages.0.loss=classes"),
}
"""By what is missing: the settings of ``wasnow train`` that take it away."""


def trained(name: str, made: Path, out: Path, settings: list[str]) -> Path:
    """The run of a variant; an interrupted one goes on."""
    run = out / name
    command = [sys.executable, "-c", "from wasnow.cli import main; main()", "train", "semantic-cd-mini", "--resume"]
    command += ["--data", str(made / "pairs"), "-o", str(run)]
    for setting in (f"start={made / 'start.safetensors'}", *settings, *VARIANTS[name]):
        command += ["--set", setting]
    subprocess.run(command, check=True)
    return run / "last.safetensors"


def word_change(
    model: ChangeModel, word: str, before: NDArray[np.uint8], after: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Probability of change, and where exactly one date has the word; both ``(H, W)``."""
    place, k = model.card.classes.index(word), len(model.card.classes)
    found = answer(model, before, after)
    return found[0], (found[1 : 1 + k].argmax(0) == place) != (found[1 + k :].argmax(0) == place)


def best(rows: list[tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]]) -> float:
    """The best F1 over thresholds, of (probability, where it counts, truth, known)."""
    return max(
        score(*np.sum([f1((p > threshold) & counts, truth, known) for p, counts, truth, known in rows], axis=0))
        for threshold in (0.0, *GRID)
    )


def measured(model: ChangeModel, data: Path, made: Path) -> dict[str, float]:
    """The figures of one variant."""
    # A part of each image: six variants would take an hour for the whole.
    tile, images = MIXES["wider"].test
    out = {"land cover mIoU": landcover(model, data, tile, images=images, side=1024)["miou"]}
    scores = pairs(model, made)["scores"]
    out |= {"pairs, F1 of change": scores["binary"]["f1"], "pairs, Fscd": scores["stacked"]["fscd"]}
    for factor in (2, 3, 4):
        rows = []
        for before, after, truth in france_pairs(data, factor):
            rows.append((*word_change(model, "building", before, after), truth, np.ones_like(truth)))
        out[f"building change at {0.2 * factor:.1f} m"] = best(rows)
    folder = made / "naip_test"
    before, after = (read(folder / f"{year}.tif") for year in (2009, 2017))
    label = read(folder / "label.tif", 1, Resampling.mode)[..., 0]
    out["water change"] = best([(*word_change(model, "water", before, after), label == 1, label != 255)])
    return out


def main() -> None:
    """Train and measure what is not there yet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("made", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--crop", type=int, default=192)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(VARIANTS))
    asked = parser.parse_args()
    shared = [
        "augment.scale=[0.6, 2.0]",
        f"steps={asked.steps}",
        f"crop={asked.crop}",
        f"seed={asked.seed}",
        f"validate_every={asked.steps}",
    ]
    for name in asked.only.split(","):
        scores = asked.out / name / "scores.json"
        if not scores.exists():
            model = load(trained(name, asked.made, asked.out, [*shared, "workers=1"]))
            text = json.dumps(measured(model, asked.data, asked.made), indent=1)
            scores.write_text(text, encoding="utf-8")
        print(name, scores.read_text(encoding="utf-8"), flush=True)


if __name__ == "__main__":
    main()
