"""Curves and confusion matrices as SVG, so that a page needs neither script nor library.

Class words and names of scores are escaped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 560, 240
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 30
COLORS = ("#b01c4c", "#2a6fdb", "#1f8a4c", "#c77700", "#7a4fc9", "#3a8f9e", "#8a6d3b", "#5d626b")
"""Distinguishable for most people, on white and on black."""

LABELLED = 24
"""Matrices with more codes than this are drawn without words."""


@dataclass(frozen=True)
class Series:
    """A curve: its name and points; NaN leaves a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def curves(series: Sequence[Series], *, marks: Sequence[float] = (), log: bool = False) -> str:
    """Return curves over steps as ``<svg>``.

    Args:
        series: the curves.
        marks: steps with a vertical line, such as the end of a stage.
        log: use a logarithmic axis if every value is above 0.
    """
    points = [
        (np.asarray(one.x, float), np.asarray(one.y, float)) for one in series if np.isfinite(np.asarray(one.y)).any()
    ]
    if not points:
        return '<p class="quiet">nothing to draw yet</p>'
    xs, ys = (np.concatenate(each) for each in zip(*points, strict=True))
    ys = ys[np.isfinite(ys)]
    log = log and bool(ys.min() > 0)
    low, high = (float(value) for value in (ys.min(), ys.max()))
    x_low, x_high = float(xs.min()), max(float(xs.max()), float(xs.min()) + 1)
    if log:
        low, high = math.log10(low), math.log10(high)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5

    def across(x: float) -> float:
        return LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def up(y: float) -> float:
        at = math.log10(y) if log else y
        return HEIGHT - BOTTOM - (at - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    drawn = []
    for value in _log_ticks(low, high) if log else _ticks(low, high):
        y = up(value)
        drawn.append(f'<path class="rule" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        drawn.append(f'<text class="y" x="{LEFT - 6}" y="{y + 4:.1f}">{value:.3g}</text>')
    for tick in _ticks(x_low, x_high):
        drawn.append(f'<text class="x" x="{across(tick):.1f}" y="{HEIGHT - 10}">{tick:.6g}</text>')
    drawn += [
        f'<path class="mark" d="M{across(at):.1f} {TOP}V{HEIGHT - BOTTOM}"/>' for at in marks if x_low < at < x_high
    ]
    legend = []
    for i, one in enumerate(series):
        color = COLORS[i % len(COLORS)]
        pairs = [(across(x), up(y)) for x, y in _thinned(one) if math.isfinite(y)]
        if not pairs:
            continue
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in pairs)
        drawn.append(f'<path class="curve" stroke="{color}" d="{path}"/>')
        if len(pairs) < 60:
            drawn += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{color}"/>' for x, y in pairs]
        last = next(y for y in reversed(one.y) if math.isfinite(y))
        legend.append(f'<li><i style="background:{color}"></i>{escape(one.name)} <b>{last:.4g}</b></li>')
    title = escape(", ".join(one.name for one in series))
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title} over steps">'
        f'{"".join(drawn)}</svg><ul class="key">{"".join(legend)}</ul>'
    )


def matrix(counts: NDArray[np.int64], names: Sequence[str]) -> str:
    """Return a confusion matrix as ``<svg>``: rows predicted, columns labelled, shade = share of the column.

    Codes that are neither predicted nor labelled are left out, except code 0.
    """
    occur = [i for i in range(len(names)) if i == 0 or counts[i].sum() or counts[:, i].sum()]
    table = counts[np.ix_(occur, occur)]
    words = [names[i] for i in occur]
    with_words = len(occur) <= LABELLED
    cell = 46 if with_words and len(occur) <= 12 else 30 if with_words else 12
    margin = min(240, 36 + 7 * max(map(len, words))) if with_words else 30
    size = margin + cell * len(occur) + 8
    columns = table.sum(0)
    drawn = []
    for row in range(len(occur)):
        for col in range(len(occur)):
            share = table[row, col] / columns[col] if columns[col] else 0.0
            x, y = margin + col * cell, margin + row * cell
            title = f"predicted {words[row]}, labelled {words[col]}: {table[row, col]} ({share:.1%})"
            drawn.append(
                f'<rect class="{"hit" if row == col else "miss"}" x="{x}" y="{y}" width="{cell - 1}" '
                f'height="{cell - 1}" fill-opacity="{share:.3f}"><title>{escape(title)}</title></rect>'
            )
            if with_words and table[row, col]:
                text = f"{100 * share:.{1 if cell > 40 else 0}f}"
                drawn.append(f'<text class="n" x="{x + cell / 2}" y="{y + cell / 2 + 4}">{text}</text>')
    if with_words:
        for i, word in enumerate(words):
            middle = margin + i * cell + cell / 2
            drawn.append(f'<text class="y" x="{margin - 6}" y="{middle + 4}">{escape(word)}</text>')
            drawn.append(
                f'<text class="c" transform="translate({middle + 4} {margin - 6}) rotate(-90)">{escape(word)}</text>'
            )
    drawn.append('<text class="a" x="4" y="14">↓ predicted · labelled →</text>')
    return (
        f'<svg class="matrix" viewBox="0 0 {size} {size}" style="max-width:{size}px" role="img" '
        f'aria-label="confusion matrix, rows predicted, columns labelled">{"".join(drawn)}</svg>'
    )


def _ticks(low: float, high: float) -> list[float]:
    """Return about five round numbers from low to high."""
    raw = (high - low) / 5
    scale = 10.0 ** math.floor(math.log10(raw))
    step = next(scale * nice for nice in (1, 2, 5, 10) if scale * nice >= raw)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Return powers of ten between 10^low and 10^high, with 2 and 5 times them for a short range."""
    factors = (1, 2, 5) if high - low < 3 else (1,)
    exponents = range(math.floor(low), math.ceil(high) + 1)
    return [one * 10.0**e for e in exponents for one in factors if low <= math.log10(one) + e <= high]


def _thinned(series: Series, most: int = 600) -> list[tuple[float, float]]:
    """Return at most ``most`` points: the means of equally long parts."""
    pairs = np.column_stack([np.asarray(series.x, float), np.asarray(series.y, float)])
    pairs = pairs[np.isfinite(pairs[:, 1])]
    if len(pairs) > most:
        pairs = np.stack([part.mean(0) for part in np.array_split(pairs, most)])
    return [(float(x), float(y)) for x, y in pairs]
