"""Measure what masks contribute to SAM-CD: the network without masks and with masks in three ways, under one budget.

    python benchmarks/sam_cd_controls.py DATA OUT [--cases dubai france] [--steps 800] [--seeds 0 1 2] ...

DATA holds ``dubai-landcover`` (images of one date with masks of classes) and ``france-buildings`` (``binary`` and
``instances``, pairs each). The script takes the same steps as a user: pairs and masks are files in OUT, priors are made
from the masks, and each run trains the network of the recipe. The same command continues an interrupted run.

case      trained on                                     scored on                    word, and its mask at each date
dubai     pairs made of all towns but the last           pairs of the last town       building: where present
france    ``binary``: change of buildings, both kinds    ``instances``: new and gone  building: changed pixels, at both
                                                                                      dates; no other label exists

control       network                      masks
none          no masks, no attention       -
empty         attention                    all empty, so that every key is read; same size as the next
channel       masks as added channels      worn
attention     masked attention             worn
inside        the same, inside the masks   worn: local features are 0 outside them (``local=inside``, ``empty=zero``)
truth         masked attention             from the labels
truth-inside  as ``inside``                from the labels

*Worn* masks imitate the errors of a detector: 15 % of the labelled objects are missing, each is shifted by up to 3 px,
and false objects are added, 5 % of their number, with the shapes of others. They are drawn once per image.

All runs of a case see the same pairs in the same order for the same number of steps. Each seed has its own initial
weights. No checkpoint is selected. Reported are F1 of change on the scored pairs after the last step, its mean over all
validations (higher for faster convergence), and the first step at which it reaches 90 % of the last score of ``none``.
OUT/controls.json holds every curve, OUT/CASE.svg shows their means over the seeds.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wasnow.data.dataset import Dataset, open_dataset
from wasnow.data.images import read_label, read_picture, write_png
from wasnow.data.mask_folder import open_masks
from wasnow.data.pairs import GeneratedPairs, PairRecipe
from wasnow.output.report.charts import COLORS, Series, curves
from wasnow.priors.files import MaskFiles
from wasnow.priors.make import PriorRequest, make_dataset
from wasnow.priors.manifest import MANIFEST
from wasnow.priors.samples import NoMasks
from wasnow.priors.store import PairMasks, open_priors
from wasnow.training.config import Augmentation, Light, Optimizer, Schedule, Stage, TrainConfig
from wasnow.training.logging import LineLogger
from wasnow.training.trainer import train
from wasnow.vocabulary import NO_LABEL

Mask = NDArray[np.bool_]
WORD = "building"
SCORE = "binary.f1"
MISSED, INVENTED, APART_PX = 0.15, 0.05, 3
DESCRIPTION = """\
before: "{split}/A/{name}.png"
after: "{split}/B/{name}.png"
change_label: "{split}/label/{name}.png"
change_values: {0: unchanged, 1: changed, 255: no label}
"""


@dataclass(frozen=True)
class Control:
    """A network and its masks: ``worn``, ``truth``, or None for empty ones."""

    priors: str
    masks: str | None
    options: Mapping[str, str] = field(default_factory=dict)


CONTROLS = {
    "none": Control("none", None),
    "empty": Control("attention", None),
    "channel": Control("channel", "worn"),
    "attention": Control("attention", "worn"),
    "inside": Control("attention", "worn", {"local": "inside", "empty": "zero"}),
    "truth": Control("attention", "truth"),
    "truth-inside": Control("attention", "truth", {"local": "inside", "empty": "zero"}),
}


@dataclass(frozen=True)
class Pair:
    """Images ``(H, W, 3)``, change 0, 1 or 255, and the masks of both dates ``(2, H, W)``."""

    split: str
    name: str
    before: NDArray[np.uint8]
    after: NDArray[np.uint8]
    change: NDArray[np.uint8]
    masks: Mask


# ------------------------------------------------------------------------------------------------------------ the pairs


def dubai(data: Path, options: argparse.Namespace) -> Iterator[Pair]:
    """Yield pairs made from single-date images: change is where a building exists at one date only."""
    folder = open_masks(data / "dubai-landcover")
    kept, held = folder.split(None)
    code = 1 + folder.vocabulary.words.index(WORD)
    for split, masks, count in (("train", kept, options.pairs), ("val", held, options.scored)):
        made = GeneratedPairs(masks, count, options.data_seed, PairRecipe(size=options.side))
        for index, name in enumerate(made.names):
            before, after, first, second = made.covers(index)
            there = np.stack([first == code, second == code])
            unknown = (first == NO_LABEL) | (second == NO_LABEL)
            change = np.where(unknown, NO_LABEL, there[0] != there[1]).astype(np.uint8)
            yield Pair(split, name, before, after, change, there)


def france(data: Path, options: argparse.Namespace) -> Iterator[Pair]:
    """Yield real pairs: the training labels only show change, so the masks of both dates are the changed pixels."""
    for split, folder in (("train", "binary"), ("val", "instances")):
        for path in sorted((data / "france-buildings" / folder / "before").glob("*.tif")):
            pictures = []
            for date in ("before", "after"):
                pictures.append(read_picture(path.parent.parent / date / path.name)[0])
            numbers = read_label(path.parent.parent / "label" / path.name).numbers
            assert numbers is not None
            # 1: new, 2: gone, 3: unchanged.
            changed = (numbers == 1) | (numbers == 2)
            yield Pair(split, path.stem, pictures[0], pictures[1], changed.astype(np.uint8), np.stack([changed] * 2))


CASES = {"dubai": dubai, "france": france}


def worn(mask: Mask, rng: np.random.Generator) -> Mask:
    """The mask with the errors that the module docstring describes."""
    labels, _ = ndimage.label(mask, np.ones((3, 3), np.bool_))
    found = np.zeros_like(mask)
    height, width = mask.shape
    for number, at in enumerate(ndimage.find_objects(labels), 1):
        part = labels[at] == number
        missed, invented = rng.random(2) < (MISSED, INVENTED)
        shift = rng.integers(-APART_PX, APART_PX + 1, 2)
        anywhere = rng.integers((0, 0), (max(1, height - part.shape[0]), max(1, width - part.shape[1])))
        places = [(at[0].start + shift[0], at[1].start + shift[1])] * (not missed) + [tuple(anywhere)] * bool(invented)
        for row, col in places:
            rows, cols = np.nonzero(part)
            rows, cols = rows + row, cols + col
            inside = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
            found[rows[inside], cols[inside]] = True
    return found


def written(case: str, data: Path, out: Path, options: argparse.Namespace) -> Dataset:
    """Pairs, masks and priors of a case as files; made once."""
    home, done = out / case, out / case / "made.json"
    asked = {name: getattr(options, name) for name in ("pairs", "scored", "side", "data_seed")}
    if not done.exists():
        for number, pair in enumerate(CASES[case](data, options)):
            rng = np.random.default_rng([options.data_seed, number])
            parts = {"A": pair.before, "B": pair.after, "label": pair.change}
            for role, values in parts.items():
                put(home / "data" / pair.split / role / f"{pair.name}.png", values)
            for date, mask in zip("AB", pair.masks, strict=True):
                for kind, said in (("truth", mask), ("worn", worn(mask, rng))):
                    put(home / kind / pair.split / date / f"{pair.name}.png", said.astype(np.uint8))
        (home / "data" / "dataset.yaml").write_text(DESCRIPTION)
        done.write_text(json.dumps(asked))
    elif (held := json.loads(done.read_text())) != asked:
        raise SystemExit(f"{home} holds pairs made with {held}, not {asked}; choose another folder")
    dataset = open_dataset(home / "data")
    for kind in ("truth", "worn"):
        if not (home / f"priors-{kind}" / MANIFEST).exists():
            files = MaskFiles.of_dataset([home / kind], (WORD,))
            make_dataset(dataset, home / f"priors-{kind}", PriorRequest((WORD,), files))
    return dataset


def put(path: Path, values: NDArray[np.uint8]) -> None:
    """Write a PNG; its folder is created if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, values)


# ------------------------------------------------------------------------------------------------------------- the runs


def configured(control: Control, seed: int, options: argparse.Namespace) -> TrainConfig:
    """The configuration of a run: equal for all but the network options and the seed."""
    return TrainConfig(
        name="sam-cd-controls",
        model="sam-cd",
        model_options={
            "words": [WORD],
            "encoder": options.encoder,
            "width": options.width,
            "priors": control.priors,
            "reductions": options.reductions,
            **control.options,
        },
        start=options.start,
        crop=options.crop,
        augment=Augmentation(swap=0.5, light=Light()),
        batch_size=options.batch,
        seed=seed,
        workers=options.workers,
        stages=(Stage(name="change", loss=options.loss, steps=options.steps),),
        optimizer=Optimizer(kind="adamw", lr=options.lr, weight_decay=0.01),
        schedule=Schedule(kind="cosine", warmup=max(1, options.steps // 10), floor=0.01),
        clip=1.0,
        ema=options.ema,
        validate_every=max(1, options.steps // options.validations),
        select=SCORE,
        samples=2,
        device=options.device,
    )


def curve(
    case: str, name: str, seed: int, dataset: Dataset, out: Path, options: argparse.Namespace
) -> list[list[float]]:
    """``[[step, score], ...]`` of a run, which is started or continued unless it is finished.

    Args:
        case: a key of `CASES`.
        name: a key of `CONTROLS`.
        seed: of the initial weights.
        dataset: pairs of the case.
        out: folder of this benchmark.
        options: of the command line.
    """
    control, folder = CONTROLS[name], out / case / "runs" / f"{name}-{seed}"
    masks: PairMasks | None = None
    if control.priors != "none":
        masks = NoMasks() if control.masks is None else open_priors(out / case / f"priors-{control.masks}")
    record = folder / "run.json"
    if not record.exists() or json.loads(record.read_text())["status"] != "complete":
        print(f"{case}: {name}, seed {seed}", flush=True)
    # train() returns at once for a finished run and rejects one with another budget.
    settings = configured(control, seed, options)
    train(settings, dict(dataset.splits), folder, resume=True, priors=masks, data_name=case, logger=LineLogger(60))
    with (folder / "validations.csv").open(newline="") as file:
        return [[float(row["step"]), float(row[SCORE] or 0)] for row in csv.DictReader(file)]


# --------------------------------------------------------------------------------------------------------- summary


def summary(found: dict[str, dict[int, list[list[float]]]]) -> dict[str, dict[str, object]]:
    """By control: last score, mean over the curve, first step with 90 % of the last score of ``none``."""
    table: dict[str, dict[str, object]] = {}
    last_of_none = statistics.mean(each[-1][1] for each in found["none"].values()) if "none" in found else math.nan
    for name, seeds in found.items():
        last = [each[-1][1] for each in seeds.values()]
        mean = [statistics.mean(score for _, score in each) for each in seeds.values()]
        goal = 0.9 * last_of_none if last_of_none > 0 else math.inf
        soon = [next((step for step, score in each if score >= goal), None) for each in seeds.values()]
        table[name] = {
            "last": statistics.mean(last),
            "last_of_seeds": last,
            "mean_over_steps": statistics.mean(mean),
            "mean_over_steps_of_seeds": mean,
            "steps_to_90_percent_of_none": soon,
        }
    return table


def drawn(found: dict[str, dict[int, list[list[float]]]]) -> str:
    """The means over the seeds as a self-contained SVG with a legend."""
    series = []
    for name, seeds in found.items():
        each = np.array(list(seeds.values()))
        series.append(Series(name, each[0, :, 0].tolist(), each[:, :, 1].mean(0).tolist()))
    inner = curves(series).partition("</svg>")[0]
    legend = ""
    for place, one in enumerate(series):
        row, column = divmod(place, 4)
        said = f"{one.name} {100 * one.y[-1]:.1f}"
        legend += f'<text x="{40 + 130 * column}" y="{254 + 15 * row}" fill="{COLORS[place]}">{said}</text>'
    style = (
        "<style>svg{background:#fff}text{font:11px sans-serif}.y{text-anchor:end}.x{text-anchor:middle}"
        ".curve{fill:none;stroke-width:1.6}.rule{stroke:#ddd}</style>"
    )
    head = inner.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace(' 240"', ' 276"', 1)
    return f"{head.replace('>', f'>{style}', 1)}{legend}</svg>\n"


def main() -> None:
    """Train and score all controls."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--controls", nargs="+", choices=CONTROLS, default=list(CONTROLS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--validations", type=int, default=16)
    parser.add_argument("--pairs", type=int, default=400, help="dubai: training pairs to make")
    parser.add_argument("--scored", type=int, default=60, help="dubai: scored pairs to make")
    parser.add_argument("--side", type=int, default=256, help="dubai: rows and columns of the pairs")
    parser.add_argument("--data-seed", type=int, default=0)
    parser.add_argument("--crop", type=int, default=192)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--encoder", default="mit-b0")
    parser.add_argument(
        "--reductions", nargs=4, type=int, default=[4, 2, 1, 1], help="4 2 1 1: keys of 16 px; 8 4 2 1: keys of 32 px"
    )
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--loss", choices=("change", "change-dice"), default="change")
    parser.add_argument("--ema", type=float, default=0.98)
    parser.add_argument("--start", help="published SegFormer weights")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    results: dict[str, object] = {
        "settings": {name: str(value) for name, value in vars(options).items() if name != "data"}
    }
    for case in options.cases:
        dataset = written(case, options.data, options.out, options)
        found: dict[str, dict[int, list[list[float]]]] = {name: {} for name in options.controls}
        # Seed by seed, so that an interrupted session has results for every control.
        for seed in options.seeds:
            for name in options.controls:
                found[name][seed] = curve(case, name, seed, dataset, options.out, options)
        results[case] = {"summary": summary(found), "curves": found}
        (options.out / f"{case}.svg").write_text(drawn(found), encoding="utf-8")
        (options.out / "controls.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        for name, one in summary(found).items():
            print(
                f"{case} {name:10} F1 {100 * float(str(one['last'])):.2f} at the end, "
                f"mean {100 * float(str(one['mean_over_steps'])):.2f}, "
                f"90 % of none at {one['steps_to_90_percent_of_none']}"
            )


if __name__ == "__main__":
    main()
