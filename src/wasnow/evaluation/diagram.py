"""Reliability diagram as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape

import numpy as np

from wasnow.evaluation.reliability import Reliability

_SIDE, _LEFT, _TOP, _BOTTOM = 300, 44, 10, 36
_COLORS = ("#8a8f98", "#2a6fdb", "#1f8a4c", "#c77700")


def reliability_diagram(curves: Mapping[str, Reliability], *, stated: str, observed: str) -> str:
    """Return a plot of observed against stated probability as ``<svg>``, one dot per bin with area by pixels.

    Args:
        curves: by legend text; those without pixels are omitted.
        stated: label of the horizontal axis.
        observed: label of the vertical axis.
    """
    width = height = _SIDE

    def at(x: float, y: float) -> tuple[float, float]:
        return _LEFT + x * width, _TOP + (1 - y) * height

    drawn = []
    for tick in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        x, y = at(tick, tick)
        drawn.append(f'<path class="rule" d="M{_LEFT} {y:.1f}H{_LEFT + width}"/>')
        drawn.append(f'<text class="y" x="{_LEFT - 6}" y="{y + 4:.1f}">{tick:.1f}</text>')
        drawn.append(f'<text class="x" x="{x:.1f}" y="{_TOP + height + 15}">{tick:.1f}</text>')
    drawn.append(f'<path class="mark" d="M{_LEFT} {_TOP + height}L{_LEFT + width} {_TOP}"/>')
    drawn.append(f'<text class="x" x="{_LEFT + width / 2}" y="{_TOP + height + 31}">{escape(stated)}</text>')
    drawn.append(f'<text class="x" transform="translate(11 {_TOP + height / 2}) rotate(-90)">{escape(observed)}</text>')
    legend = []
    for color, (name, one) in zip(_COLORS, curves.items(), strict=False):
        filled = np.flatnonzero(one.count)
        if not len(filled):
            continue
        n = one.count[filled]
        points = [at(x, y) for x, y in zip(one.stated[filled] / n, one.met[filled] / n, strict=True)]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        drawn.append(f'<path class="curve" stroke="{color}" d="{path}"/>')
        for (x, y), share in zip(points, n / one.pixels, strict=True):
            title = f"{share:.1%} of the pixels"
            drawn.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{2 + 9 * math.sqrt(share):.1f}" fill="{color}" '
                f'fill-opacity=".55"><title>{title}</title></circle>'
            )
        legend.append(f'<li><i style="background:{color}"></i>{escape(name)} <b>ECE {100 * one.ece:.2f} %</b></li>')
    if not legend:
        return '<p class="quiet">no pixel has both a prediction and a label</p>'
    box = f"0 0 {_LEFT + width + 12} {_TOP + height + _BOTTOM}"
    return (
        f'<svg class="chart" viewBox="{box}" style="max-width:26rem" role="img" '
        f'aria-label="{escape(stated)} against {escape(observed)}">{"".join(drawn)}</svg>'
        f'<ul class="key">{"".join(legend)}</ul>'
    )
