"""Tiny weights of every family, made once per session, and a separate cache per test."""

import pytest

from priors import families


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Family -> a folder of tiny weights."""
    root = tmp_path_factory.mktemp("weights")
    return {name: make(root / name) for name, make in families.FAMILIES.items()}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WASNOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
