"""One trial (a row with one seed) in a separate process, so that a crash does not affect other rows.

    train ─> score on the test pairs ─> predictions of some pairs ─> result.json
    measure: load, run on a few pairs ─> parameters, FLOPs, pairs per second, peak memory ─> cost.json

Training and measuring use two processes, so that their memory is measured separately. The parent detects a killed
process by its exit code. A process whose parent has ended stops and keeps its state.
"""

from __future__ import annotations

import csv
import inspect
import json
import math
import os
import shutil
import signal
import statistics
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from wasnow.benchmark.pairs import Pairs
from wasnow.benchmark.plan import Trial
from wasnow.benchmark.scene import PerPairModel
from wasnow.errors import Interrupted, WasnowError
from wasnow.evaluation import evaluate, evaluation_mode, infer_pair, predict, write_evaluation
from wasnow.models import registry
from wasnow.models.contract import ChangeModel, SceneModel
from wasnow.models.loading import load_network, resolve_device
from wasnow.output.report.codes import GAP, dates_png, palette
from wasnow.output.report.pictures import paletted_png
from wasnow.priors.samples import LABELS, with_priors
from wasnow.training.devices import peak_memory_mb
from wasnow.training.logging import LineLogger, NullLogger
from wasnow.training.run_folder import LOG_NAME, RUN_NAME, RunFolder
from wasnow.training.trainer import train
from wasnow.vocabulary import Vocabulary, join_words

if TYPE_CHECKING:
    from wasnow.data.samples import Samples
    from wasnow.models.registry import ModelEntry

RESULT_NAME, COST_NAME, FAILURE_NAME = "result.json", "cost.json", "failure.txt"
COUNTS_NAME = "counts.json"
"""Counts of every image, for paired differences."""

EXAMPLES_NAME, EVALUATION_NAME = "examples", "evaluation"
FORMAT = 1
COST_FORMAT = 2
"""Since 2, FLOPs include fused attention on a CPU. Costs of another format are measured again."""

WARM, TIMED, TIMED_S = 1, 10, 20.0
"""Warm-up pairs, timed pairs, and the time limit in seconds."""

_GAP_CODE = 254


@dataclass(frozen=True)
class Job:
    """The task of a process.

    Attributes:
        trial: the row and its seed.
        pairs: training and test pairs.
        output: folder of the table; the job writes below ``runs``.
        device: for rows that are not trained.
        identity: of the result, to recognise a finished one.
        examples: indices of the test pairs that are shown.
        quiet: print nothing.
    """

    trial: Trial
    pairs: Pairs
    output: Path
    device: str
    identity: dict[str, Any]
    examples: tuple[int, ...] = ()
    quiet: bool = False

    @property
    def folder(self) -> Path:
        """Folder of the trial."""
        return self.output / "runs" / self.trial.folder


def run_in_worker(task: Callable[[Job], None], job: Job, answer: Connection) -> None:
    """Run a task in this process and send (``done``, ``failed`` or ``interrupted``, reason, traceback).

    Args:
        task: `train_and_score` or `measure`.
        job: its argument.
        answer: connection to the parent.
    """
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # Ctrl-C reaches only the parent, which then asks for the state to be saved
    _end_with_parent()
    _register_model(job.trial.row.model, job.trial.row.entry)
    said = ("done", "", "")
    try:
        task(job)
    except Interrupted as error:
        said = ("interrupted", str(error), "")
    except WasnowError as error:
        said = ("failed", " ".join(str(error).split()), "")
    except Exception as error:
        said = ("failed", " ".join(f"{type(error).__name__}: {error}".split()), traceback.format_exc())
    with suppress(OSError):  # the parent may have ended
        answer.send(said)


def train_and_score(job: Job) -> None:
    """Train if needed, score, write predictions, and write ``result.json`` last."""
    trial, folder = job.trial, RunFolder(job.folder)
    config, training = trial.config, None
    notes: list[str] = []
    if config is not None:
        splits = dict(job.pairs.training)
        if config.dense and job.pairs.dense is not None:
            splits |= job.pairs.dense
        logger = NullLogger() if job.quiet else LineLogger(write=lambda line: _say(f"{trial.name}: {line}"))
        masks = job.pairs.masks if may_need_priors(trial.row.entry) else None
        train(config, splits, job.folder, resume=True, data_name=job.pairs.name, priors=masks, logger=logger)
        training = _training(job.folder)
    model = _model(job)
    test, origin = with_priors(model, job.pairs.test, job.pairs.test_split, job.pairs.masks)
    found = evaluate(model, test, split=job.pairs.scored_on)
    if origin is not None:
        found = replace(found, priors=origin.origin)
        assert found.priors is not None
        masker = found.priors["masker"]["masker"]
        bound = ", an upper bound: new pairs have no labels" if masker == LABELS else ""
        notes.append(f"masks of {join_words(model.card.wants_priors)}: {masker}{bound}")
    aside = job.folder / f".{EVALUATION_NAME}.partial"
    shutil.rmtree(aside, ignore_errors=True)
    write_evaluation(found, aside)
    shutil.rmtree(job.folder / EVALUATION_NAME, ignore_errors=True)
    aside.replace(job.folder / EVALUATION_NAME)
    _write_predictions(model, test, job.examples, folder)
    result = {
        "format": FORMAT,
        "row": trial.row.name,
        "seed": trial.seed,
        "identity": job.identity,
        "model": found.model,
        "classes": list(found.vocabulary.words),
        "threshold": found.threshold,
        "scored_on": found.split,
        "images": len(found.per_image),
        "notes": [*notes, *found.notes],
        "training": training,
        "scores": {name: _number(value) for name, value in found.scores.headline().items()},
        "undefined": dict(found.scores.undefined),
        "intervals": {
            name: {"low": _number(one.low), "high": _number(one.high), "level": one.level}
            for name, one in found.intervals.items()
        },
    }
    counts = [{"name": one.name, **one.confusion.as_dict()} for one in found.per_image]
    folder.write_text(COUNTS_NAME, json.dumps(counts) + "\n")
    folder.write_text(RESULT_NAME, json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def measure(job: Job) -> None:
    """Measure the cost of inference at the size of the test pairs and write ``cost.json``; needs a fresh process."""
    device = torch.device(_device(job))
    before = peak_memory_mb(torch.device("cpu"))
    model = _model(job)
    module = model if isinstance(model, nn.Module) else None
    test, _ = with_priors(model, job.pairs.test, job.pairs.test_split, job.pairs.masks)
    seconds: list[float] = []
    with evaluation_mode(model):
        for i in range(WARM + TIMED):
            sample = test[i % len(test)]
            began = time.perf_counter()
            predict(model, sample, model.card.threshold)
            seconds += [time.perf_counter() - began] if i >= WARM else []
            if sum(seconds) > TIMED_S:
                break
        peak = peak_memory_mb(device)
    flops = None if module is None else flops_of(lambda: next(infer_pair([model], test[0])))
    cost = {
        "format": COST_FORMAT,
        "identity": job.identity,
        "parameters": 0 if module is None else sum(one.numel() for one in module.parameters()),
        "gflops": None if flops is None else flops / 1e9,
        "size": list(test[0].before.shape[:2]),
        "seconds_per_pair": statistics.median(seconds),
        "pairs_per_s": 1 / statistics.median(seconds),
        "pairs_timed": len(seconds),
        "memory_mb": peak,
        "memory_before_mb": before,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "threads": torch.get_num_threads(),
    }
    RunFolder(job.folder).write_text(COST_NAME, json.dumps(cost, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def flops_of(task: Callable[[], object]) -> int:
    """Return the floating-point operations of a task as torch counts them, with fused attention on every device."""
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=_MORE_OPERATORS) as counter:
        task()
    return int(counter.get_total_flops())


def may_need_priors(entry: ModelEntry | None) -> bool:
    """Return whether a model may need prior masks, according to the parameters of its forward method."""
    if entry is None or not entry.network:
        return False
    module, _, factory = entry.factory.partition(":")
    return "priors" in inspect.signature(getattr(import_module(module), factory).forward).parameters


def maps_png(before: NDArray[Any], after: NDArray[Any] | None, vocabulary: Vocabulary) -> bytes:
    """Return a PNG of the codes of both dates side by side, or of one change map; 255 is no label.

    Args:
        before: ``(H, W)`` codes of the first date, or change.
        after: ``(H, W)`` codes of the second date; None: one map.
        vocabulary: class words, for the colours.
    """
    maps = [one.astype(np.uint8) for one in (before, after) if one is not None]
    gap = np.full((maps[0].shape[0], GAP), _GAP_CODE, np.uint8)
    index = np.concatenate([maps[0], gap, maps[1]], 1) if len(maps) == 2 else maps[0]
    return paletted_png(np.ascontiguousarray(index), palette(vocabulary))


# -------------------------------------------------------------------------------------------------------------- helpers


def _attention_flops(query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any) -> int:
    """Return the FLOPs of attention on ``(B, heads, places, width)``: queries by keys, and scores by values."""
    batch, heads, queries, width = query
    return 2 * batch * heads * queries * key[-2] * (width + value[-1])


_MORE_OPERATORS = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}
"""Operators that torch's counter does not count: it includes fused attention of CUDA only."""


def _model(job: Job) -> ChangeModel:
    """Return the model of a row with its weights on its device."""
    row, device = job.trial.row, _device(job)
    if row.config is not None:
        return load_network(job.folder, device=device)
    if row.weights is not None:
        return load_network(row.weights, device=device)
    assert row.model is not None
    made = registry.build(row.model)
    return PerPairModel(made) if isinstance(made, SceneModel) else made


def _device(job: Job) -> str:
    config = job.trial.config
    return resolve_device(job.device if config is None else config.device)


def _training(folder: Path) -> dict[str, Any]:
    """Return facts about the training run, with its peak memory."""
    record = json.loads((folder / RUN_NAME).read_text(encoding="utf-8"))
    with (folder / LOG_NAME).open(encoding="utf-8", newline="") as file:
        memory = [float(row["memory_mb"]) for row in csv.DictReader(file) if row.get("memory_mb")]
    kept = ("seconds", "steps", "best", "select", "device", "trained_on", "selected_on", "versions")
    return {**{name: record[name] for name in kept}, "memory_mb": max(memory, default=None)}


def _write_predictions(model: ChangeModel, test: Samples, places: Sequence[int], folder: RunFolder) -> None:
    """Write the predictions for some pairs, full size and reduced."""
    words = test.vocabulary if model.card.classes and len(test.vocabulary) else Vocabulary()
    bound = model.bind(words.words) if len(words) and tuple(model.card.classes) != words.words else model
    with evaluation_mode(bound):
        for i in places:
            found = predict(bound, test[i], bound.card.threshold)
            first, second = (found.before, found.after) if len(words) else (found.change, None)
            folder.write_bytes(f"{EXAMPLES_NAME}/{i}.png", maps_png(first, second, words))
            folder.write_bytes(f"{EXAMPLES_NAME}/{i}-small.png", dates_png(first, second, words))


def _register_model(name: str | None, entry: ModelEntry | None) -> None:
    """Add a model that the parent added to `MODELS`."""
    if name is not None and entry is not None and name not in registry.MODELS:
        cast("dict[str, ModelEntry]", registry.MODELS)[name] = entry


def _end_with_parent() -> None:
    """Stop this process, keeping its state, when its parent ends."""
    parent = parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True, name="waits for the parent").start()


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def spread(count: int, wanted: int) -> tuple[int, ...]:
    """Return up to ``wanted`` evenly spaced indices below ``count``, starting with 0."""
    wanted = min(count, wanted)
    return tuple(sorted({i * count // wanted for i in range(wanted)})) if wanted else ()
