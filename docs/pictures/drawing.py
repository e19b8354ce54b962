"""Boxes and arrows as SVG text, for the diagrams of docs/architecture.md."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
INK, MUTED, LINE, PAPER = "#1f2933", "#52606d", "#9aa5b1", "#ffffff"


@dataclass(frozen=True, slots=True)
class Box:
    """A labelled rectangle; all lengths in px.

    Attributes:
        x: left edge.
        y: upper edge.
        width: width.
        height: height.
        title: first line, bold.
        lines: further lines.
        fill: colour of the area.
    """

    x: float
    y: float
    width: float
    height: float
    title: str
    lines: tuple[str, ...] = ()
    fill: str = "#e6f4f1"

    @property
    def center(self) -> float:
        """Horizontal centre."""
        return self.x + self.width / 2

    @property
    def middle(self) -> float:
        """Vertical centre."""
        return self.y + self.height / 2

    @property
    def bottom(self) -> float:
        """Lower edge."""
        return self.y + self.height

    @property
    def right(self) -> float:
        """Right edge."""
        return self.x + self.width

    def svg(self) -> str:
        """The rectangle and its text."""
        first = self.middle - 8 * len(self.lines) + 4.5
        parts = [
            f'<rect x="{self.x:g}" y="{self.y:g}" width="{self.width:g}" height="{self.height:g}" rx="6" '
            f'fill="{self.fill}" stroke="{LINE}"/>',
            text(self.center, first, self.title, weight=600),
        ]
        parts += [text(self.center, first + 16 * (i + 1), line, color=MUTED) for i, line in enumerate(self.lines)]
        return "\n".join(parts)


def text(x: float, y: float, words: str, *, color: str = INK, weight: int = 400, anchor: str = "middle") -> str:
    """A line of text whose baseline is at ``y``."""
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-weight="{weight}" fill="{color}">{escape(words)}</text>'
    )


def arrow(*points: tuple[float, float], dashed: bool = False, color: str = LINE) -> str:
    """A polyline with a head at its last point."""
    path = " ".join(f"{x:g},{y:g}" for x, y in points)
    dash = ' stroke-dasharray="4 3"' if dashed else ""
    return f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.4"{dash} marker-end="url(#head)"/>'


def drawing(width: float, height: float, title: str, *parts: str) -> str:
    """A whole SVG document on a white ground.

    Args:
        width: in px.
        height: in px.
        title: text for screen readers.
        *parts: SVG elements, the first at the back.
    """
    body = "\n".join(parts)
    size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    return f"""<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="{FONT}" font-size="13" role="img">
<title>{escape(title)}</title>
<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">\
<path d="M0 0.5 L8 4 L0 7.5 z" fill="{MUTED}"/></marker></defs>
<rect width="100%" height="100%" fill="{PAPER}"/>
{body}
</svg>
"""
