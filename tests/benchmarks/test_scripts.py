"""The scripts of benchmarks/: they import, parse their arguments, and `all.py` runs each of them."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest

from making import ROOT

HERE = ROOT / "benchmarks"
NAMES = sorted(path.stem for path in HERE.glob("*.py"))


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    """Import a script as a module without running it."""
    monkeypatch.syspath_prepend(str(HERE))

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", HERE / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.mark.parametrize("name", NAMES)
def test_every_script_imports_and_states_its_command(script, name: str):
    assert f"python benchmarks/{name}.py" in script(name).__doc__ or name == "timing"


def test_all_runs_every_benchmark(script):
    run = {arguments[0].removesuffix(".py") for arguments in script("all").runs()}
    assert run == set(NAMES) - {"all", "timing", "cases", "sam_cd_controls"}


def test_priors_measures_four_families_by_default(script, monkeypatch: pytest.MonkeyPatch):
    priors, measured = script("priors"), []

    def fake_run(command: list[str], **_: object) -> SimpleNamespace:
        measured.append(command[2])
        return SimpleNamespace(stdout=json.dumps({"took": {"1 word": 1.0, "2 words": 2.0}, "peak_mb": 3.0}))

    monkeypatch.setattr(subprocess, "run", fake_run)
    monkeypatch.setattr(sys, "argv", ["priors.py"])
    priors.main()
    assert measured == ["clipseg", "grounding-dino", "sam", "sam2"]


@pytest.mark.parametrize("name", ["priors", "sam_cd"])
def test_an_unknown_part_is_rejected_with_the_list_of_parts(
    script, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "nothing"])
    with pytest.raises(SystemExit) as ended:
        script(name).main()
    assert ended.value.code == 2
    assert "'nothing' is not one of" in capsys.readouterr().err
