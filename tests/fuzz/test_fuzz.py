"""A few hundred wrong inputs for every reader, each time the same; `make fuzz` takes the long way (`fuzz.drive`)."""

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
def test_wrong_input_ends_in_an_answer_or_in_one_line_of_ours(name: str, tmp_path: Path) -> None:
    target, rng = TARGETS[name], random.Random(f"wasnow {name}")
    seeds = target.seeds(emptied(tmp_path / "seeds"))
    for _ in range(INPUTS.get(name, 100)):
        content = mutated(seeds, rng)
        told = ""
        try:
            attempt(target, content, tmp_path / "work")
        except WasnowError as error:
            told = str(error)
        assert "\n" not in told, content


def test_the_seeds_themselves_are_sound(tmp_path: Path) -> None:
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
"""A ring that is none."""


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
def test_faults_that_were_found_stay_mended(name: str, content: bytes, tmp_path: Path) -> None:
    with pytest.raises(WasnowError) as caught:
        attempt(TARGETS[name], content, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_box_of_jpeg_2000_without_a_length_does_not_keep_the_reader_forever(tmp_path: Path) -> None:
    """GDAL's walk through such boxes has no end, and no alarm of Python's would stop it: a process of its own."""
    whole = write(tmp_path, FORMS["JPEG 2000"])
    if whole is None:
        pytest.skip("this GDAL cannot write JPEG 2000")
    content = bytearray(whole.read_bytes())
    first = content.index(b"asoc") + 4
    content[first : first + 4] = bytes(4)
    damaged = tmp_path / "damaged.jp2"
    damaged.write_bytes(content)
    read = "import sys; from hostile.damage import seen; print(len(seen(sys.argv[1])))"
    ended = subprocess.run(
        [sys.executable, "-c", read, damaged],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr


def test_one_seed_gives_the_same_inputs_again() -> None:
    def drawn() -> list[bytes]:
        rng = random.Random(3)
        return [mutated([b"water, building", b'{"a": 1}'], rng) for _ in range(50)]

    assert drawn() == drawn()
    assert len(set(drawn())) > 40


@pytest.mark.slow
def test_the_driver_counts_and_finds_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("the driver bounds memory in Linux's way")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    done, refused, faults = turn("vocabulary", 1, 3.0)
    assert done > 100
    assert 0 < refused <= done
    assert faults == {}
