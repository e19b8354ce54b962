"""What a checkpoint of semantic-cd-mini is worth on imagery that it never saw: figures for its card and the docs.

    python mini/measure.py CHECKPOINT DATA MADE [--only france,naip,...] [--json OUT.json]

DATA is the folder of real imagery, MADE what make_data.py wrote. Thresholds are the checkpoint's own; nothing is chosen
here. Where "best threshold" is said, it is the best of a fine grid *on that very data*, and so an upper bound.

    landcover   single images of Dubai's tiles 6 and 7, against their masks                  mIoU, per class
    pairs       made pairs of tile 7, which chose the weights, and of tile 6                  Fscd, SeK, F1
    france      20 real pairs of building change, at several resolutions; irmad and cva       F1
    scales      building change on rendered scenes, at working resolutions of 0.2 to 1.6 m            F1
    naip        water change 2009 to 2017 in the held-back east, against NDWI                 F1
    words       tile 7 with words that training never saw                                     IoU lost
    false       one image as both dates, under shift, gamma, haze, noise                      share called changed
    seams       two neighbouring tiles of tile 7, where they overlap                          share called otherwise
    baselines   irmad and cva on the French pairs, each at its best threshold                 F1
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.enums import Resampling
from torch import nn

from wasnow.data.mask_folder import open_masks
from wasnow.models.checkpoint import load
from wasnow.models.contract import ChangeModel
from wasnow.nn.fused import fused
from wasnow.nn.term_phrasings import HELD_OUT_PHRASINGS
from wasnow.synthetic import render_scene

Rgb = NDArray[np.uint8]
Mask = NDArray[np.bool_]
GRID = np.round(np.arange(0.02, 1.0, 0.02), 2)
SIDE, MARGIN = 512, 64
CHOSE, NEVER_SEEN = "Tile_7", "Tile_6"
"""Tiles of Dubai: one that weights and threshold were selected on, and one that was never used."""
DUBAI = {"land": "bare ground"}
"""Class words of the model for masks of another name."""


def as_it_runs(model: ChangeModel) -> ChangeModel:
    """Return the fused copy that ``wasnow detect`` uses."""
    assert isinstance(model, nn.Module)
    return cast(ChangeModel, fused(model))


def answer(model: ChangeModel, before: Rgb, after: Rgb) -> NDArray[np.float32]:
    """``(1 + 2K, H, W)``: probability of change, and of each class at both dates; tile by tile, calibrated."""
    height, width = before.shape[:2]
    found: NDArray[np.float32] | None = None
    scale = model.card.weights.calibration
    heat = (1.0, 1.0) if scale is None else (scale.change_temperature, scale.class_temperature)
    for top in range(0, max(1, height - 2 * MARGIN), SIDE - 2 * MARGIN):
        for left in range(0, max(1, width - 2 * MARGIN), SIDE - 2 * MARGIN):
            rows, cols = slice(top, min(height, top + SIDE)), slice(left, min(width, left + SIDE))
            with torch.inference_mode():
                logits = model(_fed(before[rows, cols]), _fed(after[rows, cols]), None)  # type: ignore[arg-type]
                assert logits.land_cover is not None
                parts = [torch.sigmoid(logits.change / heat[0])]
                parts += [(each / heat[1]).softmax(dim=1) for each in logits.land_cover]
                part = torch.cat(parts, dim=1)[0].numpy()
            if found is None:
                found = np.zeros((len(part), height, width), np.float32)
            inner = slice(MARGIN if top else 0, None), slice(MARGIN if left else 0, None)
            found[:, rows, cols][:, inner[0], inner[1]] = part[:, inner[0], inner[1]]
    assert found is not None
    return found


def _fed(rgb: Rgb) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1)))[None].float() / 255


def f1(found: Mask, truth: Mask, known: Mask) -> tuple[int, int, int]:
    """(true positives, false positives, false negatives) where the truth is known."""
    return (
        int((found & truth & known).sum()),
        int((found & ~truth & known).sum()),
        int((~found & truth & known).sum()),
    )


def score(tp: float, fp: float, fn: float) -> float:
    """2 TP / (2 TP + FP + FN)."""
    return 2 * tp / max(1.0, 2 * tp + fp + fn)


def landcover(
    model: ChangeModel, data: Path, tile: str, *, images: slice = slice(None), side: int | None = None
) -> dict[str, Any]:
    """mIoU over the pixels of a tile's images, or the first ``side`` rows and columns of some, seen as both dates."""
    kept = [(picture[:side, :side], codes[:side, :side]) for picture, codes in list(dubai(data, tile))[images]]
    words = list(model.card.classes)
    table = np.zeros((len(words), len(words)), np.int64)
    for picture, codes in kept:
        said = answer(model, picture, picture)[1 : 1 + len(words)].argmax(0)
        known = codes < len(words)
        table += np.bincount(codes[known] * len(words) + said[known], minlength=table.size).reshape(table.shape)
    hit = np.diag(table)
    iou = hit / np.maximum(1, table.sum(0) + table.sum(1) - hit)
    return {
        "miou": float(iou.mean()),
        "oa": float(hit.sum() / table.sum()),
        **{f"iou {w}": float(i) for w, i in zip(words, iou, strict=True)},
    }


def dubai(data: Path, tile: str) -> Iterator[tuple[Rgb, NDArray[np.uint8]]]:
    """Pictures of a tile and their classes as places in the model's order; 255 no label."""
    masks = open_masks(data / "dubai-landcover")
    order = ("building", "road", "water", "vegetation", "bare ground")
    table = np.full(256, 255, np.uint8)
    for code, word in enumerate(masks.vocabulary.words, 1):
        table[code] = order.index(DUBAI.get(word, word))
    for place, entry in enumerate(masks.entries):
        if entry.group == tile:
            single = masks[place]
            yield single.picture, table[single.classes]


def france(model: ChangeModel, data: Path, *, factors: tuple[float, ...] = (1, 2, 3, 4, 5, 6, 8)) -> dict[str, Any]:
    """Building change on 20 pairs, coarser and coarser; at the model's threshold and at the best there is."""
    asked = model.bind(["building"])
    out: dict[str, Any] = {}
    for factor in factors:
        counts = np.zeros((len(GRID), 3), np.int64)
        own = np.zeros(3, np.int64)
        compared = np.zeros((len(GRID), 3), np.int64)
        for before, after, truth in france_pairs(data, factor):
            found = answer(asked, before, after)
            known = np.ones_like(truth)
            for i, threshold in enumerate(GRID):
                counts[i] += f1(found[0] > threshold, truth, known)
                compared[i] += f1(np.abs(found[3] - found[1]) > threshold, truth, known)
            own += f1(found[0] > own_threshold(model), truth, known)
        scores, comparing = [score(*row) for row in counts], [score(*row) for row in compared]
        out[f"{0.2 * factor:g} m"] = {
            "f1": score(*own),
            "precision": own[0] / max(1, own[0] + own[1]),
            "recall": own[0] / max(1, own[0] + own[2]),
            "best": max(scores),
            "best at": float(GRID[int(np.argmax(scores))]),
            "comparing building probabilities, best": max(comparing),
            "comparing, best at": float(GRID[int(np.argmax(comparing))]),
        }
    return out


def own_threshold(model: ChangeModel) -> float:
    """The change probability above which the model calls a pixel changed, unless told otherwise, after calibration."""
    from wasnow.models.calibration import moved_threshold

    scale = model.card.weights.calibration
    return moved_threshold(model.card.threshold, 1.0 if scale is None else scale.change_temperature)


def france_pairs(data: Path, factor: float) -> Iterator[tuple[Rgb, Rgb, Mask]]:
    """Before, after, and where buildings came or went, pixels ``factor`` times as long as 0.2 m."""
    for kind, codes in (("binary", (1,)), ("instances", (1, 2))):
        for path in sorted((data / "france-buildings" / kind / "before").glob("*.tif")):
            before, after = (read(path.parents[1] / date / path.name, factor) for date in ("before", "after"))
            label = read(path.parents[1] / "label" / path.name, factor, Resampling.mode)[..., 0]
            yield before, after, np.isin(label, codes)


def read(path: Path, factor: float = 1, how: Resampling = Resampling.average) -> NDArray[np.uint8]:
    """The first three bands of a file (or its only one) as ``(H, W, C)``, pixels ``factor`` times as long."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(path) as file:
            shape = tuple(round(size / factor) for size in file.shape)
            bands = list(range(1, min(3, file.count) + 1))
            values: NDArray[np.uint8] = file.read(bands, out_shape=(len(bands), *shape), resampling=how)
    return np.ascontiguousarray(values.transpose(1, 2, 0))


def scales(model: ChangeModel, *, scenes: int = 6, side: int = 1024) -> dict[str, float]:
    """Change of buildings on scenes rendered at 0.2 m, seen coarser and coarser: the best F1 at each pixel side."""
    asked = model.bind(["building"])
    counts: dict[float, NDArray[np.int64]] = {}
    for seed in range(scenes):
        # Beyond the seeds of the training scenes, which count up from 0.
        scene = render_scene(90_000_000 + seed, height=side, width=side, gsd_m=0.2, change_share=0.15)
        truth = (scene.before_classes == 1) != (scene.after_classes == 1)
        for gsd in (0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.6):
            shape = (round(side * 0.2 / gsd), round(side * 0.2 / gsd))
            found = answer(asked, *(_shrunk(picture, shape) for picture in (scene.before, scene.after)))
            seen = _shrunk((truth * 255).astype(np.uint8)[..., None], shape)[..., 0] > 127
            rows = [f1(found[0] > threshold, seen, np.ones_like(seen)) for threshold in GRID]
            counts[gsd] = counts.get(gsd, np.zeros((len(GRID), 3), np.int64)) + np.array(rows)
    return {f"{gsd:g}": max(score(*row) for row in rows) for gsd, rows in counts.items()}


def _shrunk(picture: Rgb, shape: tuple[int, int]) -> Rgb:
    """The means over coarser pixels."""
    bands = torch.from_numpy(picture.transpose(2, 0, 1).astype(np.float32))[None]
    small = torch.nn.functional.interpolate(bands, size=shape, mode="area")[0]
    return np.ascontiguousarray(small.round().numpy().transpose(1, 2, 0).astype(np.uint8))


def naip(model: ChangeModel, made: Path, *, factor: float = 1) -> dict[str, Any]:
    """Water change 2009 to 2017 in the part that training did not see, at 5 m times a factor."""
    asked = model.bind(["water"])
    folder = made / "naip_test"
    before, after = (read(folder / f"{year}.tif", factor) for year in (2009, 2017))
    label = read(folder / "label.tif", factor, Resampling.mode)[..., 0]
    found = answer(asked, before, after)
    known, truth = label != 255, label == 1
    scores = [score(*f1(found[0] > t, truth, known)) for t in GRID]
    comparing = [score(*f1(np.abs(found[3] - found[1]) > t, truth, known)) for t in GRID]
    return {
        "f1": score(*f1(found[0] > own_threshold(model), truth, known)),
        "best": max(scores),
        "best at": float(GRID[int(np.argmax(scores))]),
        "comparing water probabilities, best": max(comparing),
        "changed by the label": float(truth[known].mean()),
    }


def words(model: ChangeModel, data: Path) -> dict[str, Any]:
    """IoU of each trained class on the test images, one asked for by words that training never saw."""
    own = list(model.card.classes)
    pictures = list(dubai(data, CHOSE))[:4]
    out: dict[str, Any] = {}
    for place, word in enumerate(own):
        row = {}
        for phrase in (word, *HELD_OUT_PHRASINGS.get(word, ())):
            asked = model.bind([phrase if i == place else one for i, one in enumerate(own)])
            hit = union = 0
            for picture, codes in pictures:
                # A part of each picture: this is measured forty times.
                crop = picture[:768, :768]
                part = codes[: crop.shape[0], : crop.shape[1]]
                said = answer(asked, crop, crop)[1 : 1 + len(asked.card.classes)].argmax(0) == place
                known, truth = part != 255, part == place
                hit += int((said & truth).sum())
                union += int(((said | truth) & known).sum())
            row[phrase] = hit / max(1, union)
        out[word] = row
    lost = [row[word] - value for word, row in out.items() for phrase, value in row.items() if phrase != word]
    return {"mean loss": float(np.mean(lost)), "median loss": float(np.median(lost)), "worst loss": max(lost), **out}


def distortions() -> dict[str, Callable[[Rgb], Rgb]]:
    """Return distortions of an image that are not change, by name."""
    rng = np.random.default_rng(0)

    def shifted(a: Rgb, by: int) -> Rgb:
        return np.roll(a, (by, by), (0, 1))

    def brightened(a: Rgb, gamma: float) -> Rgb:
        return (255 * (a / 255.0) ** gamma).astype(np.uint8)

    def hazy(a: Rgb, share: float) -> Rgb:
        return (a + share * (np.array([215.0, 220.0, 230.0]) - a)).astype(np.uint8)

    return {
        "nothing": lambda a: a,
        "shift 1 px": lambda a: shifted(a, 1),
        "shift 2 px": lambda a: shifted(a, 2),
        "shift 3 px": lambda a: shifted(a, 3),
        "gamma 0.7": lambda a: brightened(a, 0.7),
        "gamma 1.4": lambda a: brightened(a, 1.4),
        "haze 0.3": lambda a: hazy(a, 0.3),
        "noise 8": lambda a: np.clip(a + rng.normal(0, 8, a.shape), 0, 255).astype(np.uint8),
        "grey": lambda a: np.repeat((a @ [0.299, 0.587, 0.114])[..., None], 3, -1).astype(np.uint8),
        "shift 2 px, gamma 1.3, haze 0.2": lambda a: hazy(brightened(shifted(a, 2), 1.3), 0.2),
    }


def false_change(model: ChangeModel, data: Path) -> dict[str, Any]:
    """Share of pixels called changed where nothing changed: one picture as both dates, the second made different."""
    places = {
        "dubai tile 7": [p[:512, :512] for p, _ in list(dubai(data, CHOSE))[:4]],
        "france": [before for before, _, _ in france_pairs(data, 1)][::2][:6],
    }
    out: dict[str, Any] = {}
    for place, pictures in places.items():
        for name, change in distortions().items():
            share = []
            for picture in pictures:
                found = answer(model, picture, change(picture))
                share.append((found[0] > own_threshold(model)).mean())
            out[f"{place}: {name}"] = float(np.mean(share))
    return out


def seams(model: ChangeModel, data: Path) -> dict[str, float]:
    """Share of pixels of other classes in two overlapping tiles, where both keep their answer: the borders to be seen.

    Tiles of 512 px overlap by half; of each, `MARGIN` pixels at the sides are not kept.
    """
    k, half = len(model.card.classes), SIDE // 2
    shares = []
    for picture, _ in dubai(data, CHOSE):
        said = [
            answer(model, part, part)[1 : 1 + k, MARGIN:-MARGIN].argmax(0)
            for part in (picture[:SIDE, :SIDE], picture[:SIDE, half : half + SIDE])
        ]
        shares.append((said[0][:, half + MARGIN : -MARGIN] != said[1][:, MARGIN : half - MARGIN]).mean())
    return {"mean": float(np.mean(shares)), "worst": float(np.max(shares))}


def pairs(model: ChangeModel, made: Path, split: str = "test") -> dict[str, Any]:
    """Scores on made pairs, by the same code as ``wasnow evaluate``, and how far probabilities can be believed."""
    from wasnow.data.dataset import open_dataset
    from wasnow.evaluation import evaluate

    return evaluate(model, open_dataset(made / "pairs").splits[split]).as_dict()


def baselines(data: Path, *, factor: float = 1) -> dict[str, Any]:
    """irmad and cva on the pairs of building change, at the best threshold of each on that data."""
    from wasnow.models.registry import build

    out: dict[str, Any] = {}
    for name in ("irmad", "cva"):
        counts = np.zeros((len(GRID) + 3, 3), np.int64)
        grid = [*GRID, 0.99, 0.999, 0.9999]
        for before, after, truth in france_pairs(data, factor):
            stacks = [a.reshape(-1, 3).astype(np.float32) for a in (before, after)]
            fitted = build(name).fit(lambda s=stacks: iter([(s[0], s[1])]))  # type: ignore[union-attr, misc]
            valid = torch.ones(1, 1, *truth.shape, dtype=torch.bool)
            images = [torch.from_numpy(a.transpose(2, 0, 1).astype(np.float32))[None] for a in (before, after)]
            p = torch.sigmoid(fitted(*images, valid).change)[0, 0].numpy()
            for i, threshold in enumerate(grid):
                counts[i] += f1(p > threshold, truth, np.ones_like(truth))
        scores = [score(*row) for row in counts]
        out[name] = {"best": max(scores), "best at": float(grid[int(np.argmax(scores))])}
    return out


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("data", type=Path)
    parser.add_argument("made", type=Path)
    parser.add_argument("--only", default="landcover,scales,france,naip,false,words,pairs,seams,baselines")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    model = as_it_runs(load(asked.checkpoint))
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "landcover": lambda: {tile: landcover(model, asked.data, tile) for tile in (CHOSE, NEVER_SEEN)},
        "france": lambda: france(model, asked.data),
        "scales": lambda: scales(model),
        "naip": lambda: {f"{5 * factor} m": naip(model, asked.made, factor=factor) for factor in (1, 2, 4)},
        "false": lambda: false_change(model, asked.data),
        "words": lambda: words(model, asked.data),
        "pairs": lambda: {split: pairs(model, asked.made, split) for split in ("val", "test")},
        "seams": lambda: seams(model, asked.data),
        "baselines": lambda: baselines(asked.data),
    }
    found = {}
    for name in asked.only.split(","):
        began = time.monotonic()
        found[name] = parts[name]()
        print(f"--- {name} ({time.monotonic() - began:.0f} s)\n{json.dumps(found[name], indent=1)}", flush=True)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
