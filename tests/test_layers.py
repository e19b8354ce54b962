"""Imports between packages, the public names, forbidden libraries, and what importing loads."""

import ast
import graphlib
import importlib.util
import subprocess
import sys
import time
from pathlib import Path

import pytest

import wasnow

SOURCE = Path(wasnow.__file__).parent
FORBIDDEN = {
    # Models see tensors, not files.
    "models": {"rasterio", "pyogrio"},
    "nn": {"rasterio", "pyogrio"},
    "training.losses": {"rasterio", "pyogrio"},
    "evaluation.metrics": {"rasterio", "pyogrio", "torch"},
    # Geometry, polygons and pages need no network.
    "raster": {"torch"},
    "output": {"torch"},
    "storage": {"torch"},
    "areas": {"torch"},
    "review": {"torch"},
    "areas.estimate": {"rasterio", "pyogrio"},
    "areas.intervals": {"rasterio", "pyogrio"},
    "_system": {"torch", "rasterio", "numpy"},
    "vocabulary": {"torch", "rasterio"},
    "errors": {"torch", "rasterio", "numpy"},
}
"""Libraries that a package or module must not import."""

ALLOWED = {
    "review": {"errors", "vocabulary", "storage", "raster", "output", "areas", "data"},
    "areas": {"errors", "output", "storage"},
    "errors": set(),
    "_system": set(),
    "vocabulary": {"errors"},
    "storage": {"errors"},
    "raster": {"errors", "storage"},
    "nn": {"errors", "vocabulary"},
    "synthetic": {"errors", "vocabulary", "storage"},
    "output": {"errors", "vocabulary", "storage", "raster"},
    "models": {"errors", "vocabulary", "nn", "storage"},
    "data": {"errors", "vocabulary", "storage", "raster", "output"},
    "priors": {"errors", "vocabulary", "storage", "raster", "data", "models"},
    "pipeline": {
        "errors",
        "_system",
        "vocabulary",
        "storage",
        "raster",
        "nn",
        "models",
        "priors",
        "output",
    },
    "batch": {"errors", "vocabulary", "storage", "output", "models", "pipeline"},
    "evaluation": {"errors", "vocabulary", "storage", "synthetic", "output", "models"},
    "training": {
        "errors",
        "_system",
        "vocabulary",
        "storage",
        "output",
        "nn",
        "models",
        "data",
        "priors",
        "evaluation",
    },
    "benchmark": {
        "errors",
        "vocabulary",
        "storage",
        "output",
        "models",
        "data",
        "priors",
        "evaluation",
        "training",
    },
    "cli": {
        "areas",
        "review",
        "errors",
        "_system",
        "vocabulary",
        "synthetic",
        "raster",
        "output",
        "models",
        "data",
        "priors",
        "pipeline",
        "batch",
        "evaluation",
        "training",
        "benchmark",
    },
}
"""What each package may import from the others. An edge that nothing uses fails, so this stays true."""


def packages() -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).parts
        found.setdefault(parts[0].removesuffix(".py"), []).append(path)
    return found


def files(dotted: str) -> list[Path]:
    """The files of a package or module named as ``training.losses``."""
    place = SOURCE.joinpath(*dotted.split("."))
    return sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]


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


def edges(package: str) -> set[str]:
    """The other packages that one imports, anywhere in its files."""
    found = set()
    for path in packages()[package]:
        found |= {name.split(".")[1] for name in imports(path) if name.startswith("wasnow.")}
    return found - {package, "__version__"}


def test_every_package_is_named():
    assert set(packages()) - {"__init__", "__main__"} == set(ALLOWED)


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_a_package_imports_exactly_the_allowed_ones(package):
    assert edges(package) == ALLOWED[package]


def test_no_packages_import_each_other_in_a_cycle():
    order = list(graphlib.TopologicalSorter({package: edges(package) for package in ALLOWED}).static_order())
    assert sorted(order) == sorted(ALLOWED)


@pytest.mark.parametrize("name", sorted(FORBIDDEN))
def test_a_package_does_not_import_forbidden_libraries(name):
    for path in files(name):
        for each in imports(path):
            assert each.split(".")[0] not in FORBIDDEN[name], f"{path.name} imports {each}"


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
        "InputError",
        "Interrupted",
        "ModelCard",
        "OutputError",
        "Raster",
        "ResourceError",
        "SceneModel",
        "UsageError",
        "WasnowError",
        "__version__",
        "detect",
        "detect_pairs",
        "evaluate",
        "list_models",
        "load",
        "train",
        "verify",
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
