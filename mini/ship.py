"""From a training run to the checkpoint that comes with wasnow: threshold, scales, what it was trained on, half size.

    python mini/ship.py RUN DATA MADE LAKES OUT.safetensors [--coarsest 6]

DATA is the folder of real imagery, MADE and LAKES what make_data.py wrote, the latter with ``--area choice``.

The threshold serves two kinds of ground alike, a city seen closely and lakes from afar: it has the best mean of two
F1s, on made pairs of Dubai's tile 7, which chose the weights as well, and of water's change in naip-dakota's
north-west.
But it is no lower than where the share called changed between two pictures of the *same* day, the second displaced,
hazy and in another light, falls to `BUDGET`. The finest resolution that images are shown at is the one that serves
building change best on rendered scenes. Nothing here looks at the imagery that measure.py reports on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from make_data import MIXES
from measure import GRID, answer, as_it_runs, dubai, f1, read, scales, score, spoilt
from wasnow.checkpoint import load, read_header, save, set_calibration
from wasnow.data.dataset import open_dataset
from wasnow.models.contract import ChangeModel
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


def choose_threshold(model: ChangeModel, data: Path, made: Path, lakes: Path) -> tuple[float, dict[str, float]]:
    """The threshold, and the figures that it was chosen by."""
    pairs, water = scores_on_pairs(model, made), scores_on_water(model, lakes)
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
    best = int((pairs + water).argmax())
    within = int(np.flatnonzero(false <= BUDGET)[0])
    chosen = max(best, within)
    for what, scores in (("made pairs", pairs), ("water", water), ("both", (pairs + water) / 2)):
        print(f"{what}: best F1 {scores.max():.3f} at {GRID[scores.argmax()]:.2f}, {scores[chosen]:.3f} at the chosen")
    print(f"false change {BUDGET:.1%} at {GRID[within]:.2f}")
    return float(GRID[chosen]), {
        "made pairs": float(pairs[chosen]), "water": float(water[chosen]), "false": float(false[chosen])
    }  # fmt: skip


def scores_on_pairs(model: ChangeModel, made: Path) -> NDArray[np.float64]:
    """F1 of change on the split ``val`` of the training data, by threshold."""
    samples = open_dataset(made).splits["val"]
    counts = np.zeros((len(GRID), 3), np.int64)
    for place in range(len(samples)):
        sample = samples[place]
        assert sample.change is not None
        found = answer(model, sample.before, sample.after)
        for i, threshold in enumerate(GRID):
            counts[i] += f1(found[0] > threshold, sample.change == 1, sample.change != 255)
    return np.array([score(*row) for row in counts])


def scores_on_water(model: ChangeModel, lakes: Path) -> NDArray[np.float64]:
    """F1 of water's change in a part of naip-dakota that was not trained on, by threshold."""
    before, after = (read(lakes / f"{year}.tif") for year in (2009, 2017))
    label = read(lakes / "label.tif")[..., 0]
    found = answer(model.bind(["water"]), before, after)
    return np.array([score(*f1(found[0] > threshold, label == 1, label != 255)) for threshold in GRID])


def main() -> None:
    """Write the checkpoint that is shipped."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("data", type=Path)
    parser.add_argument("made", type=Path)
    parser.add_argument("lakes", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--coarsest", type=float, default=6.0, help="metres a pixel, from measure.py")
    asked = parser.parse_args()
    model, header = load(asked.run), read_header(asked.run)
    assert isinstance(model, SemanticCDMini)
    # The table of terms may have grown since: what words mean in it does not change.
    model.terms = TermTable()
    calibration, model.calibration = header.calibration, None  # type: ignore[assignment]
    running = as_it_runs(model)
    found_scales = scales(running)
    finest = float(max(found_scales, key=lambda side: found_scales[side]))
    print(f"building change on rendered scenes by pixel side: {found_scales}; finest to be seen: {finest:g} m")
    threshold, found = choose_threshold(running, asked.data, asked.made, asked.lakes)
    print(f"threshold {threshold:.2f}: {', '.join(f'{what} {figure:.3f}' for what, figure in found.items())}")
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
