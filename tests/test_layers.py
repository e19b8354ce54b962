"""The house keeps its order: imports point down, the public names stay, torchvision stays out, --help is quick."""

import ast
import importlib.util
import subprocess
import sys
import time
from pathlib import Path

import pytest

import wasnow

SOURCE = Path(wasnow.__file__).parent
FORBIDDEN = {
    # No files behind a model's back.
    "models": {"rasterio", "pyogrio"},
    "nn": {"rasterio", "pyogrio"},
    "losses": {"rasterio", "pyogrio"},
    "metrics": {"rasterio", "pyogrio", "torch"},
    # No network where geometry, polygons and pages are made.
    "raster": {"torch"},
    "vector": {"torch"},
    "areas": {"torch"},
    "report": {"torch"},
    "journal": {"torch"},
    "process": {"torch", "rasterio", "numpy"},
    "record": {"torch", "rasterio"},
    "vocabulary": {"torch", "rasterio"},
    "errors": {"torch", "rasterio", "numpy"},
}
FLOORS = [
    {"errors"},
    {"vocabulary", "record", "process", "cache", "typed"},
    {"raster", "nn", "losses", "metrics", "areas"},
    {"models", "vector", "report", "journal", "data", "calibration", "checkpoint", "weights", "convert", "upstreams"},
    {"plan", "features", "compute", "acceleration", "priors", "work"},
    {"results", "training", "evaluation", "executors"},
    {"engine", "demo", "benchmark", "batch", "verify"},
    {"cli"},
]


def rooms() -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).parts
        found.setdefault(parts[0].removesuffix(".py"), []).append(path)
    return found


def imports(path: Path, *, at_module_level: bool = False) -> set[str]:
    """Full names of what a file imports, type-checking blocks left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for child in ast.walk(node)
    }
    names = set()
    for node in tree.body if at_module_level else ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_every_room_has_its_floor():
    known = set().union(*FLOORS)
    assert set(rooms()) - {"__init__", "py"} <= known


@pytest.mark.parametrize("room", sorted(set().union(*FLOORS)))
def test_imports_point_down(room):
    floor = next(i for i, names in enumerate(FLOORS) if room in names)
    above = set().union(*FLOORS[floor + 1 :])
    # The contract of models is what losses speak of; it imports nothing of ours.
    allowed = {"wasnow.models.contract"}
    for path in rooms().get(room, []):
        for name in imports(path):
            if name.startswith("wasnow.") and not any(name.startswith(each) for each in allowed):
                assert name.split(".")[1] not in above, f"{path.name} imports {name}"


@pytest.mark.parametrize("room", sorted(FORBIDDEN))
def test_no_room_uses_what_it_should_not_know(room):
    for path in rooms().get(room, []):
        for name in imports(path):
            assert name.split(".")[0] not in FORBIDDEN[room], f"{path.name} imports {name}"


def test_torchvision_is_absent():
    """Its wheel does not import beside a CPU torch, and then breaks whatever looks for it."""
    assert importlib.util.find_spec("torchvision") is None
    for path in SOURCE.rglob("*.py"):
        assert not any(name.split(".")[0] == "torchvision" for name in imports(path)), path


def test_public_names_are_these():
    assert sorted(wasnow.__all__) == [
        "ChangeLogits",
        "ChangeMap",
        "ChangeModel",
        "ModelCard",
        "Options",
        "SceneModel",
        "Vocabulary",
        "WasnowError",
        "__version__",
        "detect",
        "detect_pairs",
        "load",
        "make_plan",
    ]
    for name in wasnow.__all__:
        assert getattr(wasnow, name) is not None


def test_importing_wasnow_imports_nothing_heavy():
    code = "import sys, wasnow; print([m for m in ('torch', 'rasterio', 'numpy', 'scipy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_help_loads_nothing_heavy():
    """Under half a second on an idle machine (benchmarks/startup.py measures it); here: what would make it slow."""
    code = (
        "import sys\nfrom wasnow.cli import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        "print([m for m in ('torch', 'rasterio', 'numpy', 'scipy', 'transformers', 'pyarrow') if m in sys.modules])"
    )
    started = time.monotonic()
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.rstrip().endswith("[]")
    assert time.monotonic() - started < 30


def test_the_error_tree_in_the_docstring_is_the_real_one():
    from wasnow import errors

    drawn = [line.split("──")[1].split()[0] for line in (errors.__doc__ or "").splitlines() if "──" in line]
    real = [
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.WasnowError) and value is not errors.WasnowError
    ]
    assert sorted(drawn) == sorted(real)
    assert all(getattr(errors, name).__doc__ for name in real)


def test_every_public_thing_has_a_docstring():
    missing = []
    for path in SOURCE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if not ast.get_docstring(tree) and path.stat().st_size:
            missing.append(str(path.relative_to(SOURCE)))
        for node in ast.walk(tree):
            named = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            if named and node in tree.body and not ast.get_docstring(node):
                missing.append(f"{path.relative_to(SOURCE)}: {node.name}")
    assert missing == []
