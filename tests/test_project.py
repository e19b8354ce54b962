"""Project files agree with each other: version, extras, constraints, workflow, Makefile."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import wasnow

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
FOR_DEVELOPERS = {"dev", "docs", "all"}


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    return {normalised(name): pin for name, pin in pins.items()}


def test_the_version_is_defined_once_and_repeated_correctly():
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert "version" not in PROJECT["project"]
    assert version("wasnow") == wasnow.__version__
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == wasnow.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (\d+\.\d+\.\d+)", changelog, re.MULTILINE)
    assert headings[0] == wasnow.__version__


def test_every_required_package_has_a_pinned_version_within_its_range():
    pins = constraints()
    listed = [*PROJECT["project"]["dependencies"], *(each for extra in EXTRAS.values() for each in extra)]
    for line in listed:
        requirement = Requirement(line)
        if requirement.name == "wasnow":
            continue
        assert normalised(requirement.name) in pins, f"{requirement.name}: run make constraints"
        assert requirement.specifier.contains(pins[normalised(requirement.name)]), line


def test_torchvision_is_not_pinned():
    assert "torchvision" not in constraints()


def test_all_is_every_extra_that_users_can_use():
    (line,) = EXTRAS["all"]
    assert Requirement(line).extras == set(EXTRAS) - FOR_DEVELOPERS


@pytest.mark.parametrize(
    "name", ["constraints.txt", "pyproject.toml", "Makefile", "mkdocs.yml", ".github/workflows/ci.yml"]
)
def test_no_project_file_names_a_package_index(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert not re.search(r"https?://|index-url|find-links", text)


def test_the_workflow_covers_three_systems_and_every_declared_python():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    matrix = workflow["jobs"]["test"]["strategy"]["matrix"]
    assert {name.split("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}
    declared = [each.split(" :: ")[-1] for each in PROJECT["project"]["classifiers"] if "Python :: 3." in each]
    assert matrix["python"] == declared
    assert all(SpecifierSet(PROJECT["project"]["requires-python"]).contains(each) for each in declared)


def test_every_target_of_the_makefile_is_listed_by_its_help():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony is not None
    described = re.findall(r"^([a-z-]+):.*##", text, re.MULTILINE)
    assert sorted(phony[1].split()) == sorted(described)


@pytest.mark.parametrize("path", sorted(ROOT.glob(".github/**/*.yml")), ids=lambda path: path.name)
def test_every_form_and_workflow_is_valid_yaml(path):
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)
