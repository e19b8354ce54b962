"""A checkpoint described as text: the model card that ``wasnow models CHECKPOINT`` prints."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors import safe_open

from wasnow.models.checkpoint import Header, read_header, resolve
from wasnow.models.registry import MODELS, build

TERMS = "terms.names"
"""The tensor that holds the names of a checkpoint's term table, one per line (`wasnow.nn.terms`)."""


def describe(path: str | os.PathLike[str]) -> dict[str, dict[str, str]]:
    """Return the card of a model: sections of labelled lines, in the order to print.

    Args:
        path: a checkpoint, the folder of a training run, or a name of `MODELS`. A name without weights gives what the
            list of models states about it.

    Raises:
        CheckpointError: as `read_header`.
    """
    found = resolve(path)
    if os.fspath(path) in MODELS and not found.exists():
        return _without_weights(os.fspath(path))
    header = read_header(found)
    source, card = header.provenance, None
    # None and empty mappings are defaults; an empty list or False can be an ablation.
    options = {name: value for name, value in header.model.options.items() if value is not None and value != {}}
    if header.model.name in MODELS:
        card = MODELS[header.model.name]
    sections: dict[str, dict[str, str]] = {
        "model": {
            "file": str(found),
            "name": header.model.name,
            "what it is": card.summary if card else "a model that this version does not have",
            "classes": ", ".join(header.model.classes) or "none: change only",
            **_words_lines(found),
            **{f"option {name}": _short(_plain(value)) for name, value in options.items()},
            "weights": f"{header.parameters / 1e6:.2f} million, {found.stat().st_size / 1e6:.1f} MB",
            "digest": header.digest[:16],
        },
        **({"about": {"": " ".join(header.about.split())}} if header.about else {}),
        "where it comes from": {
            "origin": source.origin,
            "trained on": source.trained_on or "not recorded",
            "chosen on": source.selected_on or "not recorded",
        },
    }
    facts = {
        "data": source.data,
        "data fingerprint": source.data_fingerprint,
        "seed": source.seed,
        "stage": source.stage,
        "step": source.step,
        "epoch": source.epoch,
        "written by": f"wasnow {header.wasnow}" + (f", torch {source.torch}" if source.torch else ""),
        "code": source.git,
    }
    sections["where it comes from"] |= {name: _plain(fact) for name, fact in facts.items() if fact is not None}
    for split, values in header.scores.items():
        sections[f"scores on {split}"] = {
            name: "undefined" if value is None else f"{100 * value:.2f}" for name, value in values.items()
        }
    sections["calibration"] = _calibration_lines(header)
    if source.recipe:
        sections["recipe"] = {name: _plain(value) for name, value in source.recipe.items() if value is not None}
    return sections


def _without_weights(name: str) -> dict[str, dict[str, str]]:
    """Return the card of a model that is fitted to each scene, or of a network without a checkpoint."""
    entry = MODELS[name]
    sections = {
        "model": {"name": name, "what it is": entry.summary, "answers": entry.answers, "weights": entry.weights}
    }
    if not entry.network:
        card = build(name).card
        bands = "every band of both dates" if card.bands == "all" else "red, green, blue"
        scaling = "values of the file" if card.scaling == "native" else "0 to 1, after a stretch per date and band"
        sections["model"] |= {"input": f"{bands}; {scaling}", "source": card.source}
    return sections


def _words_lines(path: Path) -> dict[str, str]:
    """Return the number of terms in a checkpoint with a term table; nothing for others."""
    with safe_open(path, framework="pt") as file:
        if TERMS not in file.keys():  # noqa: SIM118 (not a mapping)
            return {}
        terms = int((file.get_tensor(TERMS) == ord("\n")).sum()) + 1
    return {"other words": f"any of the {terms:,} terms in the checkpoint, and phrases of them"}


def _calibration_lines(header: Header) -> dict[str, str]:
    found = header.calibration
    if found is None:
        return {"temperatures": "not fitted; wasnow calibrate fits them on validation pairs"}

    def line(temperature: float, before: float | None, after: float | None) -> str:
        if before is None or after is None:
            return f"{temperature:.4g}"
        return f"{temperature:.4g} (ECE {100 * before:.2f} % before, {100 * after:.2f} % after)"

    lines = {"temperature of change": line(found.change_temperature, found.ece_change_before, found.ece_change_after)}
    if header.model.classes:
        classes = line(found.class_temperature, found.ece_class_before, found.ece_class_after)
        lines["temperature of classes"] = classes
    return {**lines, "measured on": f"{found.split} ({found.pairs} pairs)"}


def _short(text: str, most: int = 200) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.6g}"
    return json.dumps(value, ensure_ascii=False)
