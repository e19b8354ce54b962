"""Measure a checkpoint the way a user runs it: ``wasnow detect`` from the command line, on pairs with known answers.

    python mini/aims.py CHECKPOINT DATA OUT [--only france,levir] [--json FILE] [--detect "--threshold 0.6"]

    inputs (files, as a user has them) ─ wasnow detect --pairs ─> change.tif, confidence.tif, land cover ─> scores

Everything runs with default options and the five words of the model, but for the resolution where a set says so.
Beside the score at the shipped threshold stands the best over all thresholds, from ``confidence.tif`` and the land
cover of both dates: what could be had if one knew. Intervals are the 2.5 and 97.5 percentiles over 1,000 resamplings
of the pairs.
"""

from __future__ import annotations

import argparse
import csv
import json
import shlex
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import from_origin

from measure import france_pairs
from mix import BARE, BUILDING, ROAD, UNKNOWN, VEGETATION, WATER, WORDS
from sources import READERS, Sets, read

THRESHOLDS = np.arange(0.02, 1.0, 0.02)


@dataclass
class Asked:
    """A pair of files and what is known of it.

    Attributes:
        before, after: files.
        change: ``(H, W)``: 1 the word came or went, 0 not, 255 unclear; None where the classes are measured.
        classes: ``(H, W)`` sets of words of the first date; None where change is measured.
    """

    before: Path
    after: Path
    change: NDArray[np.uint8] | None = None
    classes: Sets | None = None


@dataclass
class Aim:
    """A set of pairs, measured alike.

    Attributes:
        pairs: makes them, writing files into a folder.
        word: whose change is measured, 1..5; 0: any change; None: land cover.
        options: for ``wasnow detect``.
    """

    pairs: Callable[[Path, Path], list[Asked]]
    word: int | None
    options: tuple[str, ...] = field(default=())


def write(path: Path, picture: NDArray[np.uint8], gsd_m: float | None = None) -> Path:
    """A picture as a PNG, or where its pixel size is given as a GeoTIFF."""
    path.parent.mkdir(parents=True, exist_ok=True)
    profile: dict[str, Any] = {"driver": "PNG"}
    if gsd_m is not None:
        path = path.with_suffix(".tif")
        profile = {"driver": "GTiff", "crs": "EPSG:32617", "transform": from_origin(5e5, 4e6, gsd_m, gsd_m)}
    height, width = picture.shape[:2]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", height=height, width=width, count=3, dtype="uint8", **profile) as file:
            file.write(picture.transpose(2, 0, 1))
    return path


def france(data: Path, out: Path) -> list[Asked]:
    """20 aerial pairs of 0.2 m: buildings that came or went."""
    found = []
    folder = data / "france-buildings"
    labels = [truth for *_, truth in france_pairs(data, 1)]
    for kind in ("binary", "instances"):
        for path in sorted((folder / kind / "before").glob("*.tif")):
            truth = labels[len(found)]
            found.append(Asked(path, folder / kind / "after" / path.name, truth.astype(np.uint8)))
    return found


def levir(data: Path, out: Path) -> list[Asked]:
    """4 pairs of PNG without a pixel size."""
    folder = data / "levir-cd"
    return [
        Asked(path, folder / "B" / path.name, (read(folder / "label" / path.name) > 127).astype(np.uint8))
        for path in sorted((folder / "A").glob("*.png"))
    ]


def landcover(source: str, part: str = "") -> Callable[[Path, Path], list[Asked]]:
    """Held-out places of a labelled source, each as both dates."""

    def pairs(data: Path, out: Path) -> list[Asked]:
        found = []
        for place in READERS[source](data, held_out=True):
            if part in place.name and min(place.labels[0].shape) >= 64:
                gsd = None if source == "dubai" else place.gsd_m
                path = write(out / f"{place.name.replace(' ', '_')}.png", place.pictures[0], gsd)
                found.append(Asked(path, path, classes=place.labels[0]))
        return found

    return pairs


def water(factor: int) -> Callable[[Path, Path], list[Asked]]:
    """Dakota's held-out east, 2009 and 2017, pixels ``factor`` times 5 m."""

    def pairs(data: Path, out: Path) -> list[Asked]:
        place = next(READERS["dakota"](data, held_out=True))
        # Years in order: 2009, 2010, 2012, 2014, 2015, 2016, 2017, 2018.
        codes = []
        for date in (0, 6):
            codes.append(np.where(place.labels[date] == WATER, 1, np.where(place.labels[date] & WATER, 2, 0)))
        change = np.where((codes[0] == 2) | (codes[1] == 2), 255, codes[0] != codes[1]).astype(np.uint8)
        pictures = [place.pictures[0], place.pictures[6]]
        if factor > 1:
            rows, cols = (size // factor * factor for size in change.shape)
            cells = change[:rows, :cols].reshape(rows // factor, factor, cols // factor, factor)
            mean = (cells == 1).mean((1, 3))
            change = np.where((cells == 255).any((1, 3)), 255, mean > 0.5).astype(np.uint8)
            pictures = [
                np.rint(p[:rows, :cols].reshape(rows // factor, factor, cols // factor, factor, 3).mean((1, 3))).astype(
                    np.uint8
                )
                for p in pictures
            ]
        names = [
            write(out / f"dakota_{factor}_{year}.tif", p, 5.0 * factor)
            for year, p in zip(("09", "17"), pictures, strict=True)
        ]
        return [Asked(names[0], names[1], change)]

    return pairs


def unchanged(data: Path, out: Path) -> list[Asked]:
    """The held-out city of California at its first and last date: nothing changed but plants."""
    found = []
    for place in list(READERS["california"](data, held_out=True))[::3]:
        assert place.unchanged is not None
        first, last = (write(out / f"{place.name.replace(' ', '_')}_{d}.png", place.pictures[d], 0.6) for d in (0, -1))
        found.append(Asked(first, last, np.where(place.unchanged, 0, 255).astype(np.uint8)))
    return found


AIMS: dict[str, Aim] = {
    "france": Aim(france, 1),
    "levir": Aim(levir, 1),
    "levir --gsd 0.5": Aim(levir, 1, ("--gsd", "0.5")),
    "yinx": Aim(landcover("yinx"), None),
    "dubai 7": Aim(landcover("dubai", "Tile_7"), None),
    "dubai 6": Aim(landcover("dubai", "Tile_6"), None),
    "rio": Aim(landcover("rio"), None),
    "banepa": Aim(landcover("banepa"), None),
    "water 5 m": Aim(water(1), 3),
    "water 10 m": Aim(water(2), 3),
    "unchanged": Aim(unchanged, 0),
}


def run(checkpoint: str, pairs: list[Asked], out: Path, options: list[str]) -> list[Path]:
    """``wasnow detect --pairs``; the folders of the results, in order."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "pairs.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["before", "after", "name"])
        rows.writerows([pair.before, pair.after, f"p{place:03d}"] for place, pair in enumerate(pairs))
    command = ["detect", "--pairs", str(out / "pairs.csv"), "-o", str(out / "results"), "--model", checkpoint]
    command += ["--landcover", "--overwrite", "--quiet", *options]
    done = subprocess.run(
        [str(Path(sys.executable).with_name("wasnow")), *command], check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"wasnow {shlex.join(command)}: exit {done.returncode}\n{done.stderr[-2000:]}")
    return [out / "results" / f"p{place:03d}" for place in range(len(pairs))]


def measure(aim: Aim, pairs: list[Asked], folders: list[Path]) -> dict[str, Any]:
    """Scores of one set."""
    if aim.word is None:
        return _classes(pairs, folders)
    counts, curve = np.zeros((len(pairs), 3)), np.zeros((len(THRESHOLDS), 3))
    bins = np.zeros((20, 3))
    for place, (pair, folder) in enumerate(zip(pairs, folders, strict=True)):
        codes, p = read(folder / "change.tif", codes=True), read(folder / "confidence.tif")
        covers = [read(folder / f"landcover_{date}.tif", codes=True) for date in ("before", "after")]
        assert pair.change is not None
        change = pair.change[: codes.shape[0], : codes.shape[1]]
        known, truth = change != 255, change == 1
        first, second = codes[..., 0], codes[..., 1]
        said = (first != second) if not aim.word else (first == aim.word) != (second == aim.word)
        counts[place] = _counts(said, truth, known)
        differs = covers[0] != covers[1]
        if aim.word:
            differs = (covers[0] == aim.word) != (covers[1] == aim.word)
        for row, threshold in enumerate(THRESHOLDS):
            curve[row] += _counts(differs & (p[..., 0] > threshold * 254), truth, known)
        share = np.where(differs, p[..., 0], 0)[known] / 254
        at = np.minimum((share * 20).astype(int), 19)
        bins += np.stack([np.bincount(at, w, 20) for w in (np.ones_like(share), share, truth[known])], 1)
    tp, fp, fn = counts.sum(0)
    total = bins[:, 0].sum()
    found: dict[str, Any] = {
        "pairs": len(pairs),
        "called changed": float((tp + fp) / total),
        "ece": float(np.abs(bins[:, 1] - bins[:, 2]).sum() / total),
    }
    if tp + fn:
        best = int(np.argmax(_f1(curve)))
        rng = np.random.default_rng(0)
        drawn = [float(_f1(counts[rng.integers(len(pairs), size=len(pairs))].sum(0))) for _ in range(1000)]
        found |= {
            "f1": float(_f1(counts.sum(0))),
            "interval": [round(float(q), 3) for q in np.quantile(drawn, (0.025, 0.975))],
            "precision": float(tp / max(1, tp + fp)),
            "recall": float(tp / (tp + fn)),
            "best": float(_f1(curve)[best]),
            "best at": float(THRESHOLDS[best]),
        }
    return found


def _counts(said: NDArray[np.bool_], truth: NDArray[np.bool_], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.array([(said & truth & known).sum(), (said & ~truth & known).sum(), (~said & truth & known).sum()], float)


def _f1(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    tp, fp, fn = np.moveaxis(counts, -1, 0)
    score: NDArray[np.float64] = 2 * tp / np.maximum(1, 2 * tp + fp + fn)
    return score


def _classes(pairs: list[Asked], folders: list[Path]) -> dict[str, Any]:
    table = np.zeros((5, 5))
    buildings = np.zeros(3)
    changed = total = 0
    for pair, folder in zip(pairs, folders, strict=True):
        said = read(folder / "landcover_before.tif", codes=True).astype(int) - 1
        codes = read(folder / "change.tif", codes=True)
        changed += int((codes[..., 0] != codes[..., 1]).sum())
        total += said.size
        assert pair.classes is not None
        classes = pair.classes[: said.shape[0], : said.shape[1]]
        for place, word in enumerate((BUILDING, ROAD, WATER, VEGETATION, BARE)):
            table[place] += np.bincount(said[(classes == word) & (said < 5)], minlength=5)[:5]
        clear = (classes == BUILDING) | ((classes & BUILDING) == 0)
        buildings += _counts(said == 0, classes == BUILDING, clear & (classes != UNKNOWN))
    hit = np.diag(table)
    union = table.sum(0) + table.sum(1) - hit
    there = table.sum(1) > 0
    iou = hit / np.maximum(1, union)
    return {
        "pairs": len(pairs),
        "miou": float(iou[there].mean()),
        "right": float(hit.sum() / max(1, table.sum())),
        **{word: float(i) for word, i, t in zip(WORDS, iou, there, strict=True) if t},
        "building iou, partial labels": float(buildings[0] / max(1, buildings.sum())),
        "called changed": changed / max(1, total),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=lambda text: Path(text).resolve())
    parser.add_argument("--only", default=",".join(AIMS))
    parser.add_argument("--detect", default="", help="further options of wasnow detect")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    found = {}
    warnings.simplefilter("ignore", NotGeoreferencedWarning)
    for name in asked.only.split(","):
        aim, folder = AIMS[name], asked.out / name.replace(" ", "_")
        pairs = aim.pairs(asked.data, folder / "inputs")
        began = time.monotonic()
        folders = run(asked.checkpoint, pairs, folder, [*aim.options, *shlex.split(asked.detect)])
        took = time.monotonic() - began
        found[name] = measure(aim, pairs, folders)
        said = {k: round(v, 3) if isinstance(v, float) else v for k, v in found[name].items()}
        print(f"{name} ({took:.0f} s): {json.dumps(said)}", flush=True)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
