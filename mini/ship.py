"""From averaged weights to the checkpoint that comes with wasnow: temperatures, threshold, half size, what it says.

    python mini/ship.py RUN DATA OUT.safetensors [--step 1750] [--soup 1500] [--coarser 2]

Temperatures and threshold are chosen on pairs drawn from the held-out places of `mini/sources.py` as training draws
its own, and on the held-out city of California, where nothing changed: the threshold is the one with the best mean F1
of any change, of buildings and of water, but no lower than where `BUDGET` of the unchanged city is called changed.
Nothing here looks at the imagery in `mix.FOR_TESTING`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from crops import Pair, Pairs
from mix import BUILDING, SOURCES, WATER, WORDS
from sources import READERS, Place, places
from train import word_change
from wasnow.evaluation.reliability import Reliability
from wasnow.evaluation.temperature import fit_temperature
from wasnow.models.calibration import Calibration
from wasnow.models.checkpoint import Provenance, save, set_calibration
from wasnow.models.semantic_cd_mini import SemanticCDMini

BUDGET = 0.005
"""Largest share of the pixels called changed in the unchanged city."""

THRESHOLDS = np.round(np.arange(0.1, 0.96, 0.02), 2)
CHOSEN_ON = ("dubai", "yinx", "rio", "banepa", "california", "dakota", "synthetic")
SEED = 1_000

ABOUT = (
    "A small open-vocabulary model for orthophotos and satellite images of about 0.4 to 10 m a pixel, trained on "
    "two shared processor cores in about an hour on images of Dubai (CC0, Humans in the Loop / MBRSC), Ohio "
    "(NAIP; labels by yinx111, 2025), California (NAIP; Ventura et al. 2024, CC BY 4.0), West Virginia (NAIP; "
    "Chesapeake Conservancy), Rio de Janeiro (SpaceNet, CC BY-SA 4.0), Banepa (OpenAerialMap, CC BY 4.0, "
    "footprints (c) OpenStreetMap contributors), Dakota (NAIP), Pucallpa (Landsat), 18 cities (contains modified "
    "Copernicus Sentinel data 2015-2018) and rendered scenes. It knows five kinds of ground: building, road, "
    "water, vegetation, bare ground; other words mean what they are near to among these. Its polygons are "
    "candidates to look at, not findings."
)


def held_out(data: Path) -> dict[str, list[Place]]:
    """The places that choose; of Dubai tile 7 alone."""
    found = {name: list(READERS[name](data, held_out=True)) for name in CHOSEN_ON}
    found["dubai"] = [place for place in found["dubai"] if "Tile_7" in place.name]
    return found


@torch.inference_mode()
def answers(model: SemanticCDMini, pair: Pair) -> tuple[Tensor, Tensor, Tensor]:
    """``(H, W)`` log-odds of change and ``(2, 5, H, W)`` class logits, and ``(2, H, W)`` sets of words."""
    images = [torch.from_numpy(x).permute(2, 0, 1)[None].float() / 255 for x in (pair.before, pair.after)]
    logits = model(images[0], images[1])
    assert logits.before is not None
    assert logits.after is not None
    return logits.change[0, 0], torch.cat([logits.before, logits.after]), torch.from_numpy(pair.labels)


def choose(model: SemanticCDMini, data: Path, count: int) -> tuple[float, Calibration]:
    """Threshold, as the network itself states probabilities, and temperatures."""
    kept = held_out(data)
    pairs = Pairs(kept)
    odds, truth, logits, words = [], [], [], []
    counts = np.zeros((3, len(THRESHOLDS), 3))
    false, city = np.zeros(len(THRESHOLDS)), 0
    for index in range(count):
        pair = pairs.draw(SEED, index)
        z, classes, labels = answers(model, pair)
        p = z.sigmoid().numpy()
        change = torch.from_numpy(pair.change)
        known = (change != 255).numpy()
        odds.append(z.numpy()[known][::17])
        truth.append((change == 1).numpy()[known][::17])
        single = torch.isin(labels, torch.tensor([1 << place for place in range(len(WORDS))], dtype=torch.uint8))
        logits.append(classes.movedim(1, -1)[single].numpy()[::23])
        words.append(labels[single].numpy()[::23])
        same = (change == 0)[None]
        named = classes.argmax(1).numpy()
        for row, word in enumerate((0, BUILDING, WATER)):
            label = change if not word else word_change(labels, same, word)[0]
            clear, changed = (label != 255).numpy(), (label == 1).numpy()
            differs = named[0] != named[1]
            if word:
                differs = (named[0] == WORDS_OF[word]) != (named[1] == WORDS_OF[word])
            for column, threshold in enumerate(THRESHOLDS):
                said = (p > threshold) & differs & clear
                counts[row, column] += (said & changed).sum(), (said & ~changed).sum(), (~said & changed & clear).sum()
    for place in kept["california"][::4]:
        assert place.unchanged is not None
        first, last = place.pictures[0], place.pictures[-1]
        z = answers(model, Pair(first, last, np.stack(place.labels[:2]), place.labels[0], 0.6))[0].sigmoid().numpy()
        false += [float((z[place.unchanged] > threshold).sum()) for threshold in THRESHOLDS]
        city += int(place.unchanged.sum())
    f1 = 2 * counts[..., 0] / np.maximum(1, 2 * counts[..., 0] + counts[..., 1] + counts[..., 2])
    for column in range(0, len(THRESHOLDS), 4):
        row = ", ".join(f"{value:.3f}" for value in f1[:, column])
        print(f"threshold {THRESHOLDS[column]:.2f}: F1 {row}; unchanged city {false[column] / city:.2%}")
    quiet = false / max(1, city) <= BUDGET
    best = int(np.argmax(f1.mean(0)))
    chosen = max(best, int(np.flatnonzero(quiet)[0])) if quiet.any() else len(THRESHOLDS) - 1
    print(f"chosen {THRESHOLDS[chosen]:.2f} (best mean F1 at {THRESHOLDS[best]:.2f})")
    # The model is less confident about water: its log-odds get the difference of the best thresholds.
    own = _odds(THRESHOLDS[chosen]) - _odds(THRESHOLDS[int(np.argmax(f1[2]))])
    offsets = [0.0, 0.0, round(float(np.clip(own, 0, 3)), 2), 0.0, 0.0]
    print(f"offsets {offsets}")
    model._options["offsets"] = offsets
    return float(THRESHOLDS[chosen]), calibrated(odds, truth, logits, words, count)


@torch.inference_mode()
def fit_pixel_size(model: SemanticCDMini, data: Path, count: int, ridge: float = 30.0) -> None:
    """Fit the judge of pixel sizes to crops as training draws them, by ridge regression; print its error elsewhere."""

    def drawn(places: dict[str, list[Place]], some: int) -> tuple[Tensor, Tensor]:
        rows, sizes = [], []
        pairs = Pairs(places)
        for index in range(some):
            pair = pairs.draw(SEED + 1, index)
            images = torch.from_numpy(np.stack([pair.before, pair.after])).permute(0, 3, 1, 2).float() / 255
            rows.append(model.statistics(images))
            sizes += [float(np.log2(pair.gsd_m))] * 2
        return torch.cat(rows).double(), torch.tensor(sizes).double()

    x, y = drawn(places(data, ("synthetic",)), count)
    mean, deviation = x.mean(0), x.std(0).clamp(min=1e-3)
    z = (x - mean) / deviation
    weight = (
        torch.linalg.solve(z.T @ z + ridge * torch.eye(z.shape[1], dtype=z.dtype), z.T @ (y - y.mean())) / deviation
    )
    model.pixel_size.weight.copy_(weight[None])
    model.pixel_size.bias.fill_(float(y.mean() - (weight * mean).sum()))
    for name, some in held_out(data).items():
        x, y = drawn({name: some}, 20)
        off = x @ weight + model.pixel_size.bias.double() - y
        print(f"pixel size of {name}: off by {off.abs().median():.2f} octaves (median), mean {off.mean():.2f}")


WORDS_OF = {1 << place: place for place in range(len(WORDS))}


def calibrated(
    odds: list[NDArray[np.float32]],
    truth: list[NDArray[np.bool_]],
    logits: list[NDArray[np.float32]],
    words: list[NDArray[np.uint8]],
    count: int,
) -> Calibration:
    """Temperatures of change and classes, and what they do to the calibration error on the same pixels."""
    z, y = np.concatenate(odds), np.concatenate(truth)
    k, names = np.concatenate(logits), np.log2(np.concatenate(words)).astype(np.int64)
    # Where the likeliest word stays the same, change is struck out whatever its odds: those pixels say nothing of them.
    told = z > -7
    heat, class_heat = fit_temperature(z[told], y[told]), fit_temperature(k, names)
    errors = []
    for t, c in ((1.0, 1.0), (heat, class_heat)):
        p = torch.softmax(torch.from_numpy(k) / c, 1)
        errors += [
            Reliability.of(1 / (1 + np.exp(-z / t)), y).ece,
            Reliability.of(p.max(1).values.numpy(), p.argmax(1).numpy() == names).ece,
        ]
    return Calibration(
        change_temperature=heat,
        class_temperature=class_heat,
        ece_change_before=errors[0],
        ece_class_before=errors[1],
        ece_change_after=errors[2],
        ece_class_after=errors[3],
        split="held-out places",
        pairs=count,
    )


def _odds(p: float) -> float:
    return float(np.log(p / (1 - p)))


def main() -> None:
    """Write the checkpoint that is shipped."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--step", type=int, help="of the weights; the last if left out")
    parser.add_argument("--soup", type=int, action="append", default=[], help="steps whose weights are averaged in")
    parser.add_argument("--coarser", type=int, default=1)
    parser.add_argument("--finest", type=float, default=0.4, help="metres a pixel")
    parser.add_argument("--coarsest", type=float, default=10.0)
    parser.add_argument("--pairs", type=int, default=120)
    asked = parser.parse_args()
    files = sorted(asked.run.glob("ema_*.safetensors"))
    chosen = [file for file in files if int(file.stem[4:]) in (asked.step, *asked.soup)] or files[-1:]
    step = int(chosen[-1].stem[4:])
    parts = [load_file(file) for file in chosen]
    model = SemanticCDMini(WORDS, coarser=asked.coarser, gsd_range_m=(asked.finest, asked.coarsest))
    own = model.state_dict()
    # The judge of pixel sizes is fitted afterwards, and the table of terms is the packaged one.
    weights = {
        name: own[name] if name.startswith(("terms", "pixel_size")) else _mean([p[name] for p in parts])
        for name in parts[0]
    }
    model.load_state_dict({**own, **weights})
    model.eval()
    fit_pixel_size(model, asked.data, 2 * asked.pairs)
    threshold, calibration = choose(model, asked.data, asked.pairs)
    model._options["threshold"] = threshold
    print(calibration.model_dump_json(indent=1))
    state = {
        name: each.half() if each.dtype == torch.float32 and not name.startswith("normalise") else each
        for name, each in model.state_dict().items()
    }
    save(
        asked.output,
        model,
        provenance=Provenance(
            origin="mini/train.py",
            torch=torch.__version__,
            trained_on=", ".join(SOURCES),
            selected_on="nothing; the last step",
            step=step,
            seed=0,
        ),
        weights=state,
        about=ABOUT,
    )
    set_calibration(asked.output, calibration)
    print(f"wrote {asked.output}, {asked.output.stat().st_size / 1e6:.1f} MB, of {[file.name for file in chosen]}")


def _mean(parts: list[Tensor]) -> Tensor:
    return torch.stack([part.float() for part in parts]).mean(0)


if __name__ == "__main__":
    main()
