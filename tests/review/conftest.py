"""A small reviewed result and its sample, and a browser."""

import shutil
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest

from making import Toy, textured, write_raster
from wasnow import detect


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A result with several changed squares, 300 x 400 pixels."""
    folder = tmp_path_factory.mktemp("review")
    before = textured(0, 300, 400)
    after = before.copy()
    for row, col in ((20, 30), (60, 200), (150, 90), (220, 300), (240, 40)):
        after[:, row : row + 30, col : col + 40] = 235
    for name, values in (("before", before), ("after", after)):
        write_raster(folder / f"{name}.tif", values.astype(np.uint8), photometric="RGB")
    detect(folder / "before.tif", folder / "after.tif", output=folder / "out", model=Toy(), min_area=100)
    return folder


@pytest.fixture
def place(finished, tmp_path):
    """A copy that a test may edit."""
    shutil.copytree(finished, tmp_path / "work")
    return tmp_path / "work"


@contextmanager
def serving(*command):
    """A server of ours as a process; yields (address, process)."""
    process = subprocess.Popen(
        [sys.executable, "-m", "wasnow", *command, "--no-browser", "--quiet"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:"), process.stderr.read()
        wait_for(address)
        yield address, process
    finally:
        process.kill()
        process.wait()


def wait_for(address):
    import urllib.request

    for _ in range(100):
        try:
            urllib.request.urlopen(address, timeout=2).read()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the server did not start")


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium; skips where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright to drive a browser")
    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if executable is None:
        pytest.skip("no chromium on PATH")
    flags = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    flags += ["--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update"]
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=executable, args=flags)
        yield found
        found.close()
