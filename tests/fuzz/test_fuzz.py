"""A few hundred fixed mutated inputs for every reader; `make fuzz` runs longer (`fuzz.drive`)."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.drive import turn
from fuzz.mutations import mutated
from fuzz.targets import TARGETS, attempt, emptied
from hostile.damage import FORMS, write
from wasnow.errors import WasnowError

INPUTS = {"tiff": 60, "png": 60, "jpeg": 60, "jpeg2000": 8, "webp": 20, "run.json": 60, "polygons": 20, "journal": 60,
          "checkpoint header": 40, "aux.xml": 25, "envi header": 40}  # fmt: skip


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_input_is_read_or_rejected_in_one_line(name: str, tmp_path: Path) -> None:
    target, rng = TARGETS[name], random.Random(f"wasnow {name}")
    seeds = target.seeds(emptied(tmp_path / "seeds"))
    for _ in range(INPUTS.get(name, 100)):
        content = mutated(seeds, rng)
        message = ""
        try:
            attempt(target, content, tmp_path / "work")
        except WasnowError as error:
            message = str(error)
        assert "\n" not in message, content


def test_the_seed_inputs_are_valid(tmp_path: Path) -> None:
    refused = {"checkpoint": 1, "checksums": 1}  # half a file, no such list
    for name, target in TARGETS.items():
        failed = 0
        for content in target.seeds(emptied(tmp_path / "seeds")):
            try:
                attempt(target, content, tmp_path / "work")
            except WasnowError:
                failed += 1
        assert failed <= refused.get(name, 0), name


_TWO_POINTS = (
    b'g{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {"to": "field"}, '
    b'"geometry": {"type": "Polygon", "coordinates": [[[0, 0], [1, 0]]]}}]}'
)
"""A polygon ring of two points."""


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("recipe", b"[" * 5000),
        ("recipe", b"extends: {a: b}"),
        ("recipe", b"batch_size: 2001-13-45"),
        ("settings", b"batch_size=" + b"[" * 5000),
        ("settings", b"stages=1+1oss=ding\nepochs=3"),
        ("polygons", _TWO_POINTS),
        ("dataset.yaml", b"before: " + b"{" * 5000),
    ],
)
def test_inputs_that_once_failed_are_handled(name: str, content: bytes, tmp_path: Path) -> None:
    with pytest.raises(WasnowError) as caught:
        attempt(TARGETS[name], content, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_jpeg_2000_box_without_a_length_does_not_hang_the_reader(tmp_path: Path) -> None:
    """GDAL would loop forever and Python's alarm could not stop it, hence the subprocess."""
    whole = write(tmp_path, FORMS["JPEG 2000"])
    if whole is None:
        pytest.skip("this GDAL cannot write JPEG 2000")
    content = bytearray(whole.read_bytes())
    first = content.index(b"asoc") + 4
    content[first : first + 4] = bytes(4)
    damaged = tmp_path / "damaged.jp2"
    damaged.write_bytes(content)
    read = "import sys; from hostile.damage import read_everything; print(len(read_everything(sys.argv[1])))"
    ended = subprocess.run(
        [sys.executable, "-c", read, damaged],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr


def test_a_seed_reproduces_its_inputs() -> None:
    def drawn() -> list[bytes]:
        rng = random.Random(3)
        return [mutated([b"water, building", b'{"a": 1}'], rng) for _ in range(50)]

    assert drawn() == drawn()
    assert len(set(drawn())) > 40


@pytest.mark.slow
def test_the_driver_counts_inputs_and_reports_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("the driver needs Linux memory limits")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    done, refused, faults = turn("vocabulary", 1, 3.0)
    assert done > 100
    assert 0 < refused <= done
    assert faults == {}
