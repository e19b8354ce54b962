"""A preview page of a dataset: pairs with their labels side by side, and label statistics.

    Dataset ──> up to 400 samples per split ──> LabelCounts ──> shares of change, classes, transitions ─┐
           └──> a dozen samples ──> small images ───────────────────────────────────────────────────────┴─> HTML file

The page loads nothing from elsewhere and runs no script.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from wasnow.data.dataset import Dataset
from wasnow.data.label_counts import LabelCounts
from wasnow.data.labels import Labels
from wasnow.data.samples import Codes, Sample, Samples
from wasnow.errors import InputError
from wasnow.output.report.pictures import HATCH, Rgba, data_uri, paletted_png, photo_jpeg, picture_shape
from wasnow.storage.atomic import output_errors
from wasnow.vocabulary import CHANGED, CHANGED_COLOR, NO_CHANGE_COLOR, NO_LABEL, Vocabulary

SHOWN = 12
"""Default number of pairs on a page."""

COUNTED = 400
"""Samples of each split from which shares are computed, spread evenly. The page states the number."""

SIDE = 320
"""Longest side of the images on the page, pixels."""
_PHOTO_BYTES = 60_000

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Share:
    """One bar: a name, its colour, its share as text, and the width of the bar in per cent."""

    name: str
    color: str
    text: str
    width: float


@dataclass(frozen=True, slots=True)
class SplitFacts:
    """The facts of one split on the page."""

    name: str
    pairs: int
    counted: int
    changed: str
    no_label: str
    before: tuple[Share, ...]
    after: tuple[Share, ...]
    transitions: tuple[Share, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One pair on the page: images as data URIs with captions, and a line of facts."""

    name: str
    split: str
    facts: str
    pictures: tuple[tuple[str, str, bool], ...]


def write_preview(
    dataset: Dataset,
    path: Path,
    *,
    shown: int = SHOWN,
    counted: int = COUNTED,
    progress: Progress = lambda phase, done, total: None,
) -> Path:
    """Write the preview page of a dataset.

    Args:
        dataset: its splits may hold faulty pairs; these are listed on the page.
        path: of the HTML file.
        shown: number of pairs, spread over the splits.
        counted: samples of each split from which shares are computed, at most.
        progress: called with ``"preview"``, samples read, and samples to read.

    Raises:
        OutputError: the page cannot be written.
    """
    picks = {name: spread(len(samples), counted) for name, samples in dataset.splits.items()}
    show = _allocated({name: len(samples) for name, samples in dataset.splits.items()}, shown)
    todo = sum(len(set(picks[name]) | set(show[name])) for name in picks)
    by_split: dict[str, LabelCounts] = {}
    rows: list[Row] = []
    faults = [str(fault) for fault in dataset.faults]
    done = 0
    for name, samples in dataset.splits.items():
        for index in sorted(set(picks[name]) | set(show[name])):
            try:
                sample = samples[index]
            except InputError as error:
                faults.append(str(error))
            else:
                counts = LabelCounts.of(
                    Labels(sample.before_classes, sample.after_classes, sample.change), len(dataset.vocabulary)
                )
                if index in picks[name]:
                    by_split[name] = by_split[name] + counts if name in by_split else counts
                if index in show[name]:
                    rows.append(row_of(sample, name, counts, dataset.vocabulary))
            done += 1
            progress("preview", done, todo)
    text = _template().render(
        title=dataset.path.resolve().name,
        facts=dataset.describe(),
        warnings=dataset.warnings,
        faults=faults,
        splits=[split_facts(name, s, by_split.get(name), dataset.vocabulary) for name, s in dataset.splits.items()],
        rows=rows,
        legend=_legend(dataset.vocabulary, rows),
        style=Markup(resources.files("wasnow.output.report").joinpath("report.css").read_text(encoding="utf-8")),
    )
    with output_errors(path):
        path.write_text(text, encoding="utf-8")
    return path


def spread(count: int, most: int) -> list[int]:
    """Return at most ``most`` numbers of ``range(count)``, evenly spread."""
    return sorted({i * count // min(count, most) for i in range(min(count, most))}) if count else []


def _allocated(counts: Mapping[str, int], shown: int) -> dict[str, list[int]]:
    """Allocate the pairs to show evenly over the splits; what a small split leaves goes to the others."""
    left, places = shown, dict.fromkeys(counts, 0)
    for rank, name in enumerate(sorted(counts, key=lambda n: counts[n])):
        places[name] = min(counts[name], -(-left // (len(counts) - rank)))
        left -= places[name]
    return {name: spread(counts[name], places[name]) for name in counts}


def row_of(sample: Sample, split: str, counts: LabelCounts, vocabulary: Vocabulary) -> Row:
    """Return one pair as small images: both dates, then its labels.

    Args:
        sample: the pair.
        split: its split.
        counts: its label counts.
        vocabulary: its classes.
    """
    height, width = sample.before.shape[:2]
    pictures = [
        ("before", data_uri(photo_jpeg(shrunk(sample.before), budget=_PHOTO_BYTES)), False),
        ("after", data_uri(photo_jpeg(shrunk(sample.after), budget=_PHOTO_BYTES)), False),
    ]
    for caption, codes in (("class before", sample.before_classes), ("class after", sample.after_classes)):
        if codes is not None:
            pictures.append((caption, data_uri(label_png(codes, vocabulary)), True))
    if sample.change is not None and sample.before_classes is None:
        pictures.append(("change", data_uri(label_png(sample.change, Vocabulary())), True))
    facts = [f"{width} × {height} px"]
    if sample.change is not None:
        facts.append(f"changed {percent(counts.change_share)}")
        unlabelled = counts.no_label / max(counts.changed + counts.unchanged + counts.no_label, 1)
        facts += [f"no label {percent(unlabelled)}"] if counts.no_label else []
        facts += [f"{s.name} {s.text}" for s in _transitions(counts, vocabulary)[:3]]
    else:
        facts.append("no labels")
    return Row(sample.name, split, " · ".join(facts), tuple(pictures))


def split_facts(name: str, samples: Samples, counts: LabelCounts | None, vocabulary: Vocabulary) -> SplitFacts:
    """Return the facts of one split.

    Args:
        name: of the split.
        samples: all of them.
        counts: label counts of those that were read; None for none.
        vocabulary: the classes.
    """
    if counts is None or counts.changed + counts.unchanged + counts.no_label == 0:
        return SplitFacts(name, len(samples), counts.images if counts else 0, "no labels", "", (), (), ())
    every = counts.changed + counts.unchanged + counts.no_label
    before, after = counts.class_shares()
    return SplitFacts(
        name,
        len(samples),
        counts.images,
        percent(counts.change_share),
        percent(counts.no_label / every) if counts.no_label else "",
        _bars(before, vocabulary) if counts.changed else (),
        _bars(after, vocabulary) if counts.changed else (),
        _transitions(counts, vocabulary),
    )


def _bars(shares: NDArray[np.float64], vocabulary: Vocabulary) -> tuple[Share, ...]:
    most = max(float(shares.max(initial=0)), 1e-9)
    return tuple(
        Share(word, css(vocabulary.color(code)), percent(float(shares[code - 1])), 100 * float(shares[code - 1]) / most)
        for code, word in enumerate(vocabulary.words, 1)
    )


def _transitions(counts: LabelCounts, vocabulary: Vocabulary) -> tuple[Share, ...]:
    """Return the transitions that occur, most frequent first, as shares of the changed pixels with known classes."""
    known = counts.transitions[1:, 1:]
    total = int(known.sum())
    if not total:
        return ()
    order = np.argsort(-known.ravel(), kind="stable")
    found = []
    for at in order.tolist():
        first, second = divmod(at, known.shape[1])
        share = int(known[first, second]) / total
        if not share:
            break
        name = f"{vocabulary.words[first]} → {vocabulary.words[second]}"
        most = int(known.max()) / total
        found.append(Share(name, css(vocabulary.color(second + 1)), percent(share), 100 * share / most))
    return tuple(found)


def shrunk(rgb: NDArray[np.uint8], side: int = SIDE) -> NDArray[np.uint8]:
    """Downsample an image to at most ``side`` pixels per side, by area averaging."""
    rows, cols = picture_shape(rgb.shape[0], rgb.shape[1], side)
    if (rows, cols) == rgb.shape[:2]:
        return rgb
    row_starts = np.arange(rows) * rgb.shape[0] // rows
    col_starts = np.arange(cols) * rgb.shape[1] // cols
    sums = np.add.reduceat(np.add.reduceat(rgb, row_starts, axis=0, dtype=np.uint32), col_starts, axis=1)
    heights = np.diff(np.append(row_starts, rgb.shape[0]))
    widths = np.diff(np.append(col_starts, rgb.shape[1]))
    means: NDArray[np.uint8] = (sums / np.outer(heights, widths)[..., None]).round().astype(np.uint8)
    return means


def label_png(codes: Codes, vocabulary: Vocabulary, side: int = SIDE) -> bytes:
    """Return codes as a PNG in the colours of their classes; unchanged is pale, no label is hatched."""
    rows, cols = picture_shape(codes.shape[0], codes.shape[1], side)
    middle_rows = (2 * np.arange(rows) + 1) * codes.shape[0] // (2 * rows)
    middle_cols = (2 * np.arange(cols) + 1) * codes.shape[1] // (2 * cols)
    small = codes[np.ix_(middle_rows, middle_cols)]
    colors = [vocabulary.color(code) for code in range(1, len(vocabulary) + 1)] or [CHANGED_COLOR]
    palette: list[Rgba] = [(*NO_CHANGE_COLOR, 255), *((*color, 255) for color in colors), *HATCH]
    diagonal = np.add.outer(np.arange(rows), np.arange(cols))
    stripes = (len(palette) - 2 + diagonal // 4 % 2).astype(np.uint8)
    return paletted_png(np.where(small == NO_LABEL, stripes, small), palette)


def _legend(vocabulary: Vocabulary, rows: Sequence[Row]) -> list[tuple[str, str]]:
    if not any(labelled for row in rows for _, _, labelled in row.pictures):
        return []
    classes = [(word, css(vocabulary.color(code))) for code, word in enumerate(vocabulary.words, 1)]
    return [("unchanged", css(NO_CHANGE_COLOR)), *(classes or [(CHANGED, css(CHANGED_COLOR))])]


def css(color: tuple[int, int, int]) -> str:
    """Return a colour as ``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*color)


def percent(share: float) -> str:
    """Return a share as ``12 %``, ``0.4 %``, ``< 0.1 %``; a dash for NaN."""
    if share != share:
        return "–"
    if 0 < share < 0.0005:
        return "< 0.1 %"
    return f"{100 * share:.0f} %" if share >= 0.0995 or share == 0 else f"{100 * share:.1f} %"


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = resources.files("wasnow.data").joinpath("preview.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source)
