"""From a training run to the checkpoint that comes with wasnow: threshold, scales, what it was trained on, half size.

    python mini/ship.py RUN DATA MADE OUT.safetensors [--coarsest 6]

The threshold is chosen on Dubai's tile 7 alone, which chose the weights as well: the one with the best F1 on made
pairs, but no lower than where the share called changed between two pictures of the *same* day, the second displaced,
hazy and in another light, falls to `BUDGET`. The finest resolution that images are shown at is the one that serves
building change best on rendered scenes. Nothing here looks at the imagery that measure.py reports on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from make_data import MIXES
from measure import GRID, answer, dubai, f1, scales, score, spoilt
from wasnow.data.dataset import open_dataset
from wasnow.models.checkpoint import load, read_header, save, set_calibration
from wasnow.models.contract import WeightsInfo
from wasnow.models.semantic_cd_mini import SemanticCDMini
from wasnow.nn.terms import TermTable

BUDGET = 0.005
"""Largest share of pixels called changed where nothing changed, over all ways of spoiling a picture."""

ABOUT = (
    "A small open-vocabulary model, trained on two processor cores in about an hour: on pairs made of single images "
    "of Dubai (CC0) at about a metre a pixel, on real pairs of NAIP at 5 m and Landsat at 30 m (public domain) with "
    "water, vegetation and bare ground read off the infrared, and on some rendered scenes. It knows five kinds of "
    "ground: building, road, water, vegetation, bare ground; other words mean what they are near to among these. It "
    "has not seen your landscape. A larger model, trained on labelled pairs, will do better."
)


def choose_threshold(model: SemanticCDMini, data: Path, made: Path) -> tuple[float, dict[str, float]]:
    """The threshold, and the figures that it was chosen by."""
    samples = open_dataset(made).splits["val"]
    counts = np.zeros((len(GRID), 3), np.int64)
    for place in range(len(samples)):
        sample = samples[place]
        assert sample.change is not None
        found = answer(model, sample.before, sample.after)
        for i, threshold in enumerate(GRID):
            counts[i] += f1(found[0] > threshold, sample.change == 1, sample.change != 255)
    scores = np.array([score(*row) for row in counts])
    false = np.zeros(len(GRID))
    shown = 0
    tile, images = MIXES["shipped"].val
    for picture, _ in list(dubai(data, tile))[images]:
        part = picture[:512, :512]
        for name, spoil in spoilt().items():
            if name in ("nothing", "grey"):
                continue
            found = answer(model, part, spoil(part))
            false += [float((found[0] > threshold).mean()) for threshold in GRID]
            shown += 1
    false /= shown
    best = int(scores.argmax())
    within = int(np.flatnonzero(false <= BUDGET)[0])
    chosen = max(best, within)
    print(f"best F1 {scores[best]:.3f} at {GRID[best]:.2f}; false change {BUDGET:.1%} at {GRID[within]:.2f}")
    return float(GRID[chosen]), {"f1": float(scores[chosen]), "false": float(false[chosen])}


def main() -> None:
    """Write the checkpoint that is shipped."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("data", type=Path)
    parser.add_argument("made", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--coarsest", type=float, default=6.0, help="metres a pixel, from measure.py")
    asked = parser.parse_args()
    model, header = load(asked.run), read_header(asked.run)
    assert isinstance(model, SemanticCDMini)
    # The table of terms may have grown since: what words mean in it does not change.
    model.terms = TermTable()
    calibration, model.weights_info = header.calibration, WeightsInfo()
    found_scales = scales(model)
    finest = float(max(found_scales, key=lambda side: found_scales[side]))
    print(f"building change on rendered scenes by pixel side: {found_scales}; finest to be seen: {finest:g} m")
    threshold, found = choose_threshold(model, asked.data, asked.made)
    print(f"threshold {threshold:.2f}: F1 {found['f1']:.3f} on made pairs, false change {found['false']:.2%}")
    model._options |= {"threshold": threshold, "gsd_range_m": [finest, asked.coarsest]}
    weights = {
        name: each.half() if each.dtype == torch.float32 and not name.startswith("normalise") else each
        for name, each in model.state_dict().items()
    }
    save(
        asked.output,
        model,
        scores=header.scores,
        provenance=header.provenance.model_copy(update={"data": "make_data.py"}),
        weights=weights,
        about=ABOUT,
    )
    if calibration is not None:
        set_calibration(asked.output, calibration)
    print(f"wrote {asked.output}, {asked.output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
