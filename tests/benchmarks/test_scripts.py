"""Scripts of benchmarks/ as somebody types them; what they measure is left out."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest

from making import ROOT

HERE = ROOT / "benchmarks"


def script(name: str) -> ModuleType:
    """A script as a module, its ``main`` not called."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[found.__name__] = found
    spec.loader.exec_module(found)
    return found


def test_without_arguments_the_usual_families_of_maskers_are_measured(monkeypatch: pytest.MonkeyPatch):
    priors, asked = script("priors"), []

    def measured(command: list[str], **_: object) -> SimpleNamespace:
        asked.append(command[2])
        return SimpleNamespace(stdout=json.dumps({"took": {"1 word": 1.0, "2 words": 2.0}, "peak_mb": 3.0}))

    monkeypatch.setattr(subprocess, "run", measured)
    monkeypatch.setattr(sys, "argv", ["priors.py"])
    priors.main()
    assert tuple(asked) == priors.USUAL


@pytest.mark.parametrize("name", ["priors", "sam_cd"])
def test_what_there_is_to_measure_is_said_where_something_else_is_asked(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "nothing"])
    with pytest.raises(SystemExit) as ended:
        script(name).main()
    assert ended.value.code == 2
    assert "'nothing' is none of" in capsys.readouterr().err
