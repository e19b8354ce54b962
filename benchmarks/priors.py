"""Measure the time per megapixel and the memory of each family of networks that make prior masks.

    python benchmarks/priors.py [--side 1024] [--repeat 3] [families ...]

The networks have their published sizes and random weights. Times do not depend on weights but detections do, so SAM
gets fixed boxes instead of those of a detector. Each family runs in a separate process to measure its peak memory. An
image of SIDE px is resized to the input of each network (CLIPSeg: 352 px), so larger tiles cost less per megapixel and
show less detail.

    clipseg          CLIPSeg rd64: an image with one word, and with two
    grounding-dino   Grounding DINO tiny: an image with one word, and with two
    sam              SAM ViT-B: an image without boxes, and with twenty
    sam2             SAM 2.1 Hiera tiny: an image without boxes, and with twenty
    sam3             SAM 3: an image with one word, and with two (3.4 GB of weights: only if named)
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import (
    CLIPSegConfig,
    GroundingDinoConfig,
    Sam2Config,
    Sam3Config,
    SamConfig,
)

from wasnow._system import passive_thread_waiting, retained_heap
from wasnow.priors.clipseg import ClipSeg
from wasnow.priors.grounded_sam import BoxDetector, BoxSegmenter
from wasnow.priors.sam3 import Sam3
from wasnow.priors.weights import FAMILIES, find_weights

CONFIGS: dict[str, Callable[[], Any]] = {
    "clipseg": lambda: CLIPSegConfig(vision_config={"patch_size": 16}, reduce_dim=64),
    "grounding-dino": GroundingDinoConfig,
    "sam": SamConfig,
    "sam2": Sam2Config,
    "sam3": Sam3Config,
}
DEFAULT_FAMILIES = ("clipseg", "grounding-dino", "sam", "sam2")
WORDS = ("building", "water")
BOXES = 20


def folder_of(family: str, folder: Path) -> Path:
    """Save a random network of the published size as `find_weights` expects it; its tokenizer knows letters only."""
    torch.manual_seed(0)
    getattr(transformers, FAMILIES[family].network)(CONFIGS[family]()).save_pretrained(folder)
    letters = list(string.ascii_lowercase)
    if family == "grounding-dino":
        words = [f"[unused{i}]" for i in range(1100)]
        words[0], words[100], words[101], words[102], words[103] = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
        words[1012], words[1029] = ".", "?"
        words[1031 : 1031 + len(WORDS)] = WORDS
        (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
        tokenizer = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
        (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    elif FAMILIES[family].reads_text:
        tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
        (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}), encoding="utf-8")
        (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
        tokenizer = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 32, "pad_token": "<|endoftext|>"}
        (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    return folder


def timed_calls(family: str, folder: Path, side: int) -> dict[str, Callable[[], object]]:
    """The calls to time: an image with the smallest prompt, and with a larger one."""
    rgb = np.random.default_rng(0).integers(0, 256, (side, side, 3)).astype(np.uint8)
    found = find_weights(folder, (family,))
    if family == "clipseg":
        clipseg = ClipSeg(found)
        return {"1 word": lambda: clipseg.logits(rgb, WORDS[:1]), "2 words": lambda: clipseg.logits(rgb, WORDS)}
    if family == "sam3":
        sam3 = Sam3(found)
        return {"1 word": lambda: sam3.find(rgb, WORDS[:1]), "2 words": lambda: sam3.find(rgb, WORDS)}
    if family == "grounding-dino":
        finder = BoxDetector(found)

        def detect(words: tuple[str, ...]) -> None:
            of_word = finder.encode(rgb)
            for word in words:
                of_word(word)

        return {"1 word": lambda: detect(WORDS[:1]), "2 words": lambda: detect(WORDS)}
    drawer = BoxSegmenter(found)
    corners = np.random.default_rng(1).uniform(0, side - 64, (BOXES, 2)).astype(np.float32)
    boxes = np.hstack([corners, corners + 64])
    return {"no box": lambda: drawer.encode(rgb), f"{BOXES} boxes": lambda: drawer.encode(rgb)(boxes)}


def one(family: str, side: int, repeat: int) -> None:
    """Print the figures of a family as JSON, measured in this process."""
    with tempfile.TemporaryDirectory() as name, retained_heap():
        work = timed_calls(family, folder_of(family, Path(name) / family), side)
        took: dict[str, list[float]] = {what: [] for what in work}
        for turn in range(repeat + 1):
            for what, call in work.items():
                at = time.perf_counter()
                call()
                if turn:
                    took[what].append(time.perf_counter() - at)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"took": {what: statistics.median(each) for what, each in took.items()}, "peak_mb": peak}))


def family_name(family: str) -> str:
    """Argparse type: the name of a family. (`choices` would reject the default, which is a list.)"""
    if family not in CONFIGS:
        raise argparse.ArgumentTypeError(f"{family!r} is not one of {', '.join(CONFIGS)}")
    return family


def main() -> None:
    """Measure every family named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "families", nargs="*", type=family_name, default=list(DEFAULT_FAMILIES), help=", ".join(CONFIGS)
    )
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.families[0], options.side, options.repeat)
        return
    print(f"transformers {transformers.__version__}, {torch.get_num_threads()} threads, an image of {options.side} px")
    megapixels = options.side**2 / 1e6
    for family in options.families:
        shared = ["--side", str(options.side), "--repeat", str(options.repeat)]
        command = [sys.executable, __file__, family, "--one", *shared]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        (first, least), (more, most) = found["took"].items()
        print(
            f"  {family:15} {first:8} {least:6.2f} s, {least / megapixels:6.2f} s per megapixel; {more}: "
            f"{most:6.2f} s; peak {found['peak_mb']:.0f} MB",
            flush=True,
        )


if __name__ == "__main__":
    passive_thread_waiting()
    main()
