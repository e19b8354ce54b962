"""A chart of mapped and estimated areas, as SVG."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import escape

from wasnow.areas.intervals import Interval

WIDTH, ROW, LEFT, RIGHT, TOP = 640, 26, 200, 20, 8


def area_chart(rows: Sequence[tuple[str, float, float, Interval]], unit: str) -> str:
    """Horizontal bars of mapped area, with the estimate and its interval drawn over each.

    Args:
        rows: (name, mapped, estimated, interval) of every transition.
        unit: written at the end of the axis.
    """
    height = TOP + ROW * len(rows) + 24
    most = max((max(mapped, interval.high) for _, mapped, _, interval in rows), default=1.0) or 1.0
    scale = (WIDTH - LEFT - RIGHT) / most
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="mapped and estimated area">']
    for place, (name, mapped, estimated, interval) in enumerate(rows):
        middle = TOP + ROW * place + ROW / 2
        low, high, value = (LEFT + scale * each for each in (interval.low, interval.high, estimated))
        parts += [
            f'<text class="y" x="{LEFT - 8}" y="{middle + 4:.1f}">{escape(name)}</text>',
            f'<rect x="{LEFT}" y="{middle - 7:.1f}" width="{scale * mapped:.1f}" height="14" fill="#9db7cf"/>',
            f'<path d="M{low:.1f} {middle:.1f}H{high:.1f}" stroke="#b0273a" stroke-width="2"/>',
            f'<circle cx="{value:.1f}" cy="{middle:.1f}" r="4" fill="#b0273a"/>',
        ]
    base = TOP + ROW * len(rows)
    parts.append(f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>')
    for share in (0.0, 0.5, 1.0):
        text = f"{most * share:,.3g}" + (f" {unit}" if share == 1 else "")
        parts.append(
            f'<text class="x" x="{LEFT + share * (WIDTH - LEFT - RIGHT):.1f}" y="{base + 16}">{escape(text)}</text>'
        )
    return "".join([*parts, "</svg>"])
