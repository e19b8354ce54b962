"""Malicious weights: no code in them runs, and false sizes in headers allocate no memory."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from training.tiny import Tiny, register
from wasnow.cli import app
from wasnow.errors import CheckpointError, InputError, WasnowError
from wasnow.models import checkpoint, model_card, sealed
from wasnow.models.clip_weights import store
from wasnow.models.published.convert import read_weights
from wasnow.output.change_map import ChangeMap
from wasnow.output.folder import finished_record
from wasnow.priors.manifest import MANIFEST, Manifest
from wasnow.training.initial_weights import find_initial_weights


class Bomb:
    """Creates a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


def new(bomb: Bomb) -> bytes:
    held = io.BytesIO()
    torch.save({"weights": bomb}, held)
    return held.getvalue()


def old(bomb: Bomb) -> bytes:
    held = io.BytesIO()
    torch.save({"weights": bomb}, held, _use_new_zipfile_serialization=False)
    return held.getvalue()


PICKLES: dict[str, Callable[[Bomb], bytes]] = {
    "torch, zip": new,
    "torch, before 1.6": old,
    **{f"pickle {protocol}": lambda bomb, p=protocol: pickle.dumps({"w": bomb}, protocol=p) for protocol in range(6)},
}


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    """Path of the file that an unpickled bomb creates."""
    return tmp_path / "payload"


def test_unpickling_the_bomb_creates_a_file(payload: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(payload))).close()
    assert payload.exists()


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("kind", PICKLES)
def test_no_loader_runs_a_pickle(kind: str, suffix: str, payload: Path, tmp_path: Path) -> None:
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(PICKLES[kind](Bomb(payload)))
    loaders: tuple[Callable[[], object], ...] = (
        lambda: checkpoint.load(path),
        lambda: model_card.describe(path),
        lambda: sealed.read_sealed(path),
        lambda: read_weights(path),
        lambda: find_initial_weights(str(path)),
        lambda: store.find(str(path)),
    )
    for load in loaders:
        with pytest.raises(WasnowError) as caught:
            load()
        assert "\n" not in str(caught.value)
    assert not payload.exists()


@pytest.mark.parametrize(
    "command",
    [
        ["convert", "{pickle}", "--model", "bisrnet", "-o", "{out}"],
        ["weights", "get", "openai-vit-l-14", "--from", "{pickle}"],
        ["models", "{pickle}"],
        ["train", "sscd-l", "--data", "{out}", "-o", "{out}", "--set", "start={pickle}"],
        ["detect", "{tif}", "{tif}", "-o", "{out}", "--model", "{pickle}"],
        ["info", "{tif}", "{tif}", "--model", "{pickle}"],
        ["calibrate", "{pickle}", "--data", "{out}"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_no_verb_runs_a_pickle(command: list[str], payload: Path, tmp_path: Path) -> None:
    import numpy as np

    from making import write_raster

    path = tmp_path / "w.pth"
    path.write_bytes(new(Bomb(payload)))
    tif = write_raster(tmp_path / "a.tif", np.ones((3, 64, 64), np.uint8))
    named = {"pickle": path, "out": tmp_path / "out", "tif": tif}
    done = CliRunner().invoke(app, [part.format(**named) for part in command])
    assert done.exit_code in (2, 3), (done.output, done.exception)
    assert not payload.exists()


def test_a_run_folder_with_pickled_states_is_rejected(payload: Path, tmp_path: Path) -> None:
    from wasnow.training.run_folder import RunFolder

    run = tmp_path / "run"
    run.mkdir()
    for name in ("state.safetensors", "last.safetensors", "best.safetensors", "state.pt", "state.pth"):
        (run / name).write_bytes(new(Bomb(payload)))
    with pytest.raises(CheckpointError):
        checkpoint.load(run)
    assert RunFolder is not None
    assert not payload.exists()


# --- false headers ----------------------------------------------------------------------------------------------------


def safetensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


META = {"wasnow": json.dumps({"format": 1, "model": {"name": "tiny"}, "digest": "0"})}


def tensor(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


BOMBS: dict[str, bytes] = {
    "length of 2^63": safetensors({}, length=2**63),
    "length of 2^64 - 1": safetensors({}, length=2**64 - 1),
    "length beyond the file": safetensors({}, length=2**31),
    "shape of 2^60": safetensors({"__metadata__": META, "a": tensor([2**60], 0, 4)}, bytes(4)),
    "shape whose product overflows": safetensors({"__metadata__": META, "a": tensor([2**33, 2**33], 0, 0)}),
    "shape with a negative number": safetensors({"__metadata__": META, "a": tensor([-1], 0, 4)}, bytes(4)),
    "offsets beyond the file": safetensors({"__metadata__": META, "a": tensor([2**34], 0, 2**36)}),
    "offsets that run backwards": safetensors({"__metadata__": META, "a": tensor([1], 4, 0)}, bytes(4)),
    "tensors that overlap": safetensors(
        {"__metadata__": META, "a": tensor([2], 0, 8), "b": tensor([2], 4, 12)}, bytes(12)
    ),
    "a gap": safetensors({"__metadata__": META, "a": tensor([1], 4, 8)}, bytes(8)),
    "an unknown type": safetensors({"__metadata__": META, "a": tensor([1], 0, 4, "COMPLEX")}, bytes(4)),
    "deep nesting": safetensors(b"[" * 100_000),
    "metadata that is no text": safetensors({"__metadata__": {"wasnow": 1}, "a": tensor([1], 0, 4)}, bytes(4)),
    "nested metadata": safetensors({"__metadata__": {"wasnow": "[" * 100_000}, "a": tensor([1], 0, 4)}, bytes(4)),
    "metadata that is a list": safetensors({"__metadata__": {"wasnow": "[1, 2]"}}),
    "metadata that is a number": safetensors({"__metadata__": {"wasnow": "7"}}),
    "metadata with a huge number": safetensors({"__metadata__": {"wasnow": '{"format": 1e999, "model": {}}'}}),
    "metadata with many digits": safetensors({"__metadata__": {"wasnow": '{"format": ' + "9" * 5000 + "}"}}),
    "no utf-8": safetensors(b'{"__metadata__": {"wasnow": "\xff\xfe"}}'),
    "nothing": b"",
    "seven bytes": bytes(7),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_false_header_is_rejected_in_one_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    path.write_bytes(BOMBS[kind])
    for read in (checkpoint.load, model_card.describe, checkpoint.read_header, read_weights):
        if read is read_weights and kind.startswith(("metadata", "nested")):
            continue
        with pytest.raises(CheckpointError) as caught:
            read(path)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 1000


LIMITED = """
import resource, sys
from pathlib import Path
from wasnow.models import checkpoint
from wasnow.models.published.convert import read_weights
from wasnow.errors import WasnowError
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 2**30
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for path in sys.argv[1:]:
    for read in (checkpoint.load, read_weights):
        try:
            read(Path(path))
        except WasnowError as error:
            print(type(error).__name__)
"""


def test_headers_that_declare_gigabytes_are_rejected_before_memory_is_allocated(tmp_path: Path) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("address-space limits need Linux")
    paths = [tmp_path / f"{number}.safetensors" for number in range(len(BOMBS))]
    for path, content in zip(paths, BOMBS.values(), strict=True):
        path.write_bytes(content)
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(2**26))
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *map(str, paths), str(tmp_path / "bomb.pth")],
        capture_output=True, text=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {"CheckpointError"}


# --- false headers with a valid digest --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"width": 10**9},
        {"width": -1},
        {"width": "8"},
        {"width": None},
        {"width": 3},
        {"dropout": 7},
        {"x": 1},
    ],
    ids=str,
)
def test_invalid_model_options_in_a_header_are_rejected_in_one_line(options: dict[str, Any], tmp_path: Path) -> None:
    register()
    path = checkpoint.save(tmp_path / "c.safetensors", Tiny(width=4), provenance={"origin": "x"})
    tensors, header = sealed.read_sealed(path)
    header.pop("digest")
    header["model"]["options"] = {**header["model"]["options"], **options}
    sealed.write_sealed(path, tensors, header)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(path)
    assert "\n" not in str(caught.value)


# --- untrusted folders ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["../../outside", "..", "/etc", "a\\..\\.."])
def test_a_prior_folder_with_parent_paths_is_rejected(split: str, tmp_path: Path) -> None:
    manifest = {"format": 1, "wasnow": "0.1.0", "kind": "dataset", "words": ["water"], "masker": {"masker": "x"},
                "tile": None, "margin": None, "covered": {}, "pictures": {"train": {"one": "00"}}}  # fmt: skip
    (tmp_path / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    Manifest.read(tmp_path)
    manifest["pictures"] = {split: {"passwd": "00"}}
    (tmp_path / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(InputError, match="is not a name in the folder"):
        Manifest.read(tmp_path)


def test_a_record_that_names_files_outside_its_folder_is_rejected(tmp_path: Path) -> None:
    import wasnow
    from making import Toy, pair

    result = wasnow.detect(*pair(tmp_path, height=48, width=48), output=tmp_path / "out", model=Toy(), tile=48)
    assert finished_record(result.folder) is not None
    outside = tmp_path / "outside.txt"
    outside.write_text("mine", encoding="utf-8")
    record = json.loads((result.folder / "run.json").read_text(encoding="utf-8"))
    for name in ("../outside.txt", str(outside), "/etc/hostname", "a/../../outside.txt", ""):
        record["outputs"][0] = {"name": name, "size": 4, "sha256": None}
        (result.folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
        with pytest.raises(InputError, match=r"run\.json is not a record .*outputs"):
            ChangeMap.open(result.folder)
        assert finished_record(result.folder) is None
    assert outside.read_text(encoding="utf-8") == "mine"


def test_a_dataset_pattern_with_parent_paths_finds_no_files(tmp_path: Path) -> None:
    import numpy as np

    from making import write_raster
    from wasnow.data.layouts import described

    data = tmp_path / "data"
    data.mkdir()
    for side in ("A", "B"):
        (tmp_path / side).mkdir()
        write_raster(tmp_path / side / "1.png", np.ones((3, 64, 64), np.uint8), driver="PNG", crs=None)
    path = data / "dataset.yaml"
    for prefix in ("../", f"{tmp_path}/"):
        path.write_text(f"before: {prefix}A/{{name}}.png\nafter: {prefix}B/{{name}}.png\n", encoding="utf-8")
        with pytest.raises(WasnowError) as caught:
            described.find(path)
        assert "\n" not in str(caught.value)
