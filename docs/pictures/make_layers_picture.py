"""Make layers.svg: the packages of wasnow in layers, and which imports which.

    python docs/pictures/make_layers_picture.py

The edges are read from `ALLOWED` in tests/test_layers.py, which a test compares with the imports in the code. A package
lies one layer above the highest package that it imports. An arrow is drawn from a package to the packages that it
imports, unless a longer path of arrows leads there too.
"""

from __future__ import annotations

import ast
from pathlib import Path

from drawing import MUTED, Box, arrow, drawing, text

HERE = Path(__file__).resolve().parent
LAYERS_TEST = HERE.parent.parent / "tests/test_layers.py"

CONTENTS = {
    "cli": ("commands,", "rio plugin"),
    "benchmark": ("train, score and", "compare methods"),
    "training": ("recipes, trainer,", "losses"),
    "evaluation": ("scores, intervals,", "calibration"),
    "areas": ("area estimates", "from samples"),
    "batch": ("lists of pairs",),
    "pipeline": ("plan, run, blocks,", "backends"),
    "output": ("rasters, polygons,", "report, verify"),
    "priors": ("masks of", "class words"),
    "data": ("datasets,", "transforms"),
    "models": ("methods, contract,", "checkpoints"),
    "nn": ("network blocks",),
    "raster": ("grids, tiles,", "reading, writing"),
    "storage": ("atomic files, locks,", "journal, caches"),
    "synthetic": ("rendered scenes",),
    "vocabulary": ("class words",),
    "errors": ("exceptions,", "exit codes"),
    "_system": ("memory, threads",),
    "review": ("pages to review", "and to label"),
}
WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 150.0, 62.0, 40.0, 42.0, 20.0
FILLS = ("#eef1f4", "#e6f4f1", "#fdf3e1")


def allowed_imports() -> dict[str, set[str]]:
    """The literal `ALLOWED` of the test, without running it."""
    for node in ast.parse(LAYERS_TEST.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "ALLOWED":
            table = node.value
            assert isinstance(table, ast.Dict)
            return {
                ast.literal_eval(key): set() if isinstance(value, ast.Call) else ast.literal_eval(value)
                for key, value in zip(table.keys, table.values, strict=True)
                if key is not None
            }
    raise LookupError(f"{LAYERS_TEST}: no table ALLOWED")


def ranks(imports: dict[str, set[str]]) -> dict[str, int]:
    """Layer of each package: 0 for those that import nothing, else one above the highest import.

    Raises:
        ValueError: packages import each other in a circle.
    """
    found: dict[str, int] = {}

    def rank(name: str, path: tuple[str, ...]) -> int:
        if name in path:
            raise ValueError(f"import cycle: {' -> '.join((*path[path.index(name) :], name))}")
        if name not in found:
            found[name] = 1 + max((rank(each, (*path, name)) for each in sorted(imports[name])), default=-1)
        return found[name]

    for name in imports:
        rank(name, ())
    return found


def direct(imports: dict[str, set[str]]) -> dict[str, set[str]]:
    """The imports that no longer path implies (transitive reduction)."""

    def reached(name: str) -> set[str]:
        return set().union(*({each} | reached(each) for each in imports[name])) if imports[name] else set()

    return {
        name: each - set().union(*(reached(other) for other in each)) if each else set()
        for name, each in imports.items()
    }


def picture() -> str:
    """The SVG text."""
    imports = allowed_imports()
    layer_of, drawn = ranks(imports), direct(imports)
    top = max(layer_of.values())
    rows = [[name for name in imports if layer_of[name] == layer] for layer in range(top, -1, -1)]
    order_rows(rows, drawn)
    widest = max(len(row) for row in rows)
    width = 2 * MARGIN + widest * (WIDTH + GAP_X) - GAP_X
    boxes: dict[str, Box] = {}
    for i, row in enumerate(rows):
        left = (width - len(row) * (WIDTH + GAP_X) + GAP_X) / 2
        for j, name in enumerate(row):
            boxes[name] = Box(
                left + j * (WIDTH + GAP_X),
                MARGIN + i * (HEIGHT + GAP_Y),
                WIDTH,
                HEIGHT,
                name,
                CONTENTS[name],
                fill(layer_of[name], top),
            )
    arrows = []
    for name, each in drawn.items():
        targets = sorted(each, key=lambda other: (boxes[other].center, other))
        for i, other in enumerate(targets):
            start = boxes[name].x + WIDTH * (i + 1) / (len(targets) + 1)
            users = sorted(
                (user for user in drawn if other in drawn[user]), key=lambda user: (boxes[user].center, user)
            )
            end = boxes[other].x + WIDTH * (users.index(name) + 1) / (len(users) + 1)
            arrows.append(arrow((start, boxes[name].bottom), (end, boxes[other].y)))
    height = 2 * MARGIN + len(rows) * (HEIGHT + GAP_Y) - GAP_Y + 18
    note = text(
        width / 2, height - 12, "An arrow means imports. Imports implied by a path of arrows are left out.", color=MUTED
    )
    return drawing(
        width, height, "Packages of wasnow and their imports", *arrows, *(box.svg() for box in boxes.values()), note
    )


def order_rows(rows: list[list[str]], drawn: dict[str, set[str]]) -> None:
    """Sort each row by the mean position of the packages above that import its packages."""
    for above_index in range(1, len(rows)):
        places = {name: (j + 0.5) / len(row) for row in rows[:above_index] for j, name in enumerate(row)}

        def position(name: str, places: dict[str, float] = places) -> float:
            users = [places[user] for user in drawn if name in drawn[user] and user in places]
            return sum(users) / len(users) if users else 0.5

        rows[above_index].sort(key=position)


def fill(layer: int, top: int) -> str:
    """Colour of a layer: foundations, core, entry points."""
    return FILLS[0] if layer <= 1 else FILLS[2] if layer >= top - 1 else FILLS[1]


if __name__ == "__main__":
    (HERE / "layers.svg").write_text(picture(), encoding="utf-8")
