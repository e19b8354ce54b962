"""Fuzz targets: each reads untrusted bytes and must return or raise a `WasnowError`.

TARGETS   name -> Target(seeds, run)
"""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import torch

from hostile.damage import FORMS, read_everything, write
from making import pair, write_raster
from training.tiny import Tiny, register
from wasnow.data.layouts.described import read_description
from wasnow.data.vectors import read_polygons
from wasnow.models import checkpoint, model_card, sealed
from wasnow.models.published import convert
from wasnow.output.change_map import ChangeMap
from wasnow.output.folder import finished_record
from wasnow.output.layout import RECORD_NAME
from wasnow.output.report.style import aux_xml, qml
from wasnow.output.vector.qgis import qgis_style
from wasnow.storage.checksums import given_sums
from wasnow.storage.journal import BlockRecord, workspace
from wasnow.training.recipes import RECIPES, recipe
from wasnow.training.settings import from_yaml, to_yaml, with_settings
from wasnow.vocabulary import Vocabulary


@dataclass(frozen=True)
class Target:
    """A reader of files or text to be fuzzed.

    Attributes:
        seeds: makes right inputs in an empty folder.
        run: reads one input in an empty folder; raises `WasnowError` or returns.
    """

    seeds: Callable[[Path], list[bytes]]
    run: Callable[[bytes, Path], object]


def _raster(suffix: str, *forms: str) -> Target:
    def seeds(folder: Path) -> list[bytes]:
        paths = [write(folder, FORMS[name]) for name in forms]
        return [path.read_bytes() for path in paths if path is not None]

    def run(content: bytes, folder: Path) -> object:
        path = folder / f"r.{suffix}"
        path.write_bytes(content)
        return read_everything(path)

    return Target(seeds, run)


def _tiff_seeds(folder: Path) -> list[bytes]:
    found = []
    for name in ("deflate, tiled", "LZW, striped", "JPEG, tiled", "LERC, tiled", "WebP, tiled", "COG, zstd"):
        path = write(folder, FORMS[name])
        found += [] if path is None else [path.read_bytes()]
    palette = write_raster(folder / "p.tif", np.ones((1, 9, 9), np.uint8), nodata=0)
    return [*found, palette.read_bytes()]


def _beside(suffix: str, form: str, text: str) -> Target:
    """A valid raster with a fuzzed side file."""

    def seeds(folder: Path) -> list[bytes]:
        return [text.encode()]

    def run(content: bytes, folder: Path) -> object:
        path = write(folder, FORMS[form])
        if path is None:
            return None
        side = Path(f"{path}{suffix}") if suffix.startswith(".aux") else path.with_suffix(suffix)
        side.write_bytes(content)
        return read_everything(path)

    return Target(seeds, run)


def _journal_seeds(folder: Path) -> list[bytes]:
    with workspace(folder) as space:
        space.begin({"tile": 512, "before": {"a.tif": "00"}})
        space.prepare()
        for block in range(3):
            place = {"row": 0, "col": 8 * block, "height": 8, "width": 8}
            record = BlockRecord(block=block, outcome="done", seconds=0.1, not_processed={"missing": 3}, **place)
            space.add(record, {"codes": np.zeros((3, 8, 8), np.uint8)} if block else {})
    kept = space.folder
    return [
        b"J" + (kept / "journal.jsonl").read_bytes(),
        b"P" + (kept / "plan.json").read_bytes(),
        b"B" + (kept / "blocks" / "000001.npz").read_bytes(),
    ]


def _journal(content: bytes, folder: Path) -> object:
    _journal_seeds(folder)
    name = {b"J": "journal.jsonl", b"P": "plan.json", b"B": "blocks/000001.npz"}.get(content[:1], "survey.json")
    (folder / ".wasnow" / name).write_bytes(content[1:])
    with workspace(folder) as space:
        space.recall("survey")
        space.begin({"tile": 512, "before": {"a.tif": "00"}})
        return [space.load(block) for block in list(space.done)]


def _record_seeds(folder: Path) -> list[bytes]:
    import wasnow
    from making import Toy

    result = wasnow.detect(*pair(folder, height=48, width=48), output=folder / "out", model=Toy(), tile=48)
    return [(result.folder / RECORD_NAME).read_bytes()]


def _record(content: bytes, folder: Path) -> object:
    (folder / RECORD_NAME).write_bytes(content)
    finished_record(folder)
    found = ChangeMap.open(folder)
    return found.summary(), found._repr_html_(), found.vocabulary


def _checkpoint_seeds(folder: Path) -> list[bytes]:
    register()
    torch.manual_seed(0)
    path = checkpoint.save(folder / "c.safetensors", Tiny(width=4), provenance={"origin": "made for fuzzing"})
    content = path.read_bytes()
    return [content, content[: 8 + int.from_bytes(content[:8], "little")]]


def _checkpoint(content: bytes, folder: Path) -> object:
    path = folder / "c.safetensors"
    path.write_bytes(content)
    model_card.describe(path)
    return checkpoint.load(path)


def _resealed(content: bytes, folder: Path) -> object:
    """A header with correct length and digest, as an attacker would write it."""
    path = folder / "c.safetensors"
    tensors, _ = sealed.read_sealed(checkpoint.save(path, Tiny(width=4), provenance={"origin": "x"}))
    try:
        header = json.loads(content)
        sealed.write_sealed(path, tensors, {name: each for name, each in header.items() if name != "digest"})
    except (ValueError, AttributeError, RecursionError):
        return None
    model_card.describe(path)
    return checkpoint.load(path)


def _header_seeds(folder: Path) -> list[bytes]:
    register()
    path = checkpoint.save(folder / "c.safetensors", Tiny(width=4), provenance={"origin": "made for fuzzing"})
    return [json.dumps(sealed.read_sealed_header(path)).encode()]


def _weights_seeds(folder: Path) -> list[bytes]:
    tensors = {"module.conv.weight": torch.arange(12.0).reshape(3, 4), "module.n": torch.tensor(3)}
    new, old = io.BytesIO(), io.BytesIO()
    torch.save({"state_dict": tensors}, new)
    torch.save(tensors, old, _use_new_zipfile_serialization=False)
    return [new.getvalue(), old.getvalue()]


def _weights(content: bytes, folder: Path) -> object:
    path = folder / "w.pth"
    path.write_bytes(content)
    return convert.read_weights(path)


def _recipe_seeds(folder: Path) -> list[bytes]:
    return [
        b"extends: sscd-l\nbatch_size: 4\noptimizer: {lr: 0.1}\nstages:\n- {loss: ding, epochs: 3}\n",
        to_yaml(recipe("semantic-cd-small")).encode(),
    ]


def _recipe(content: bytes, folder: Path) -> object:
    path = folder / "r.yaml"
    path.write_bytes(content)
    return from_yaml(path, {name: make() for name, make in RECIPES.items()})


def _setting(content: bytes, folder: Path) -> object:
    return with_settings(recipe("sscd-l"), content.decode("utf-8", "surrogateescape").split("\n"))


def _vocabulary(content: bytes, folder: Path) -> object:
    words = Vocabulary.parse(content.decode("utf-8", "surrogateescape"))
    for text in (aux_xml(words, counts={0: 3, 1: 5}), qml(words, occurring=[1]), qgis_style(words)):
        ET.fromstring(text.encode())
    return words


def _sums(content: bytes, folder: Path) -> object:
    path = folder / "scene.tif"
    path.write_bytes(b"x")
    for name in ("scene.tif.sha256", "SHA256SUMS", "scene.json"):
        (folder / name).write_bytes(content)
    return given_sums(path)


def _polygon_seeds(folder: Path) -> list[bytes]:
    import wasnow
    from making import Toy

    result = wasnow.detect(*pair(folder, height=48, width=48), output=folder / "out", model=Toy(), tile=48)
    square = {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]}
    feature = {"type": "Feature", "properties": {"from": "water", "to": "field"}, "geometry": square}
    return [
        b"g" + json.dumps({"type": "FeatureCollection", "features": [feature]}).encode(),
        b"G" + result.geopackage.read_bytes(),
    ]


def _polygons(content: bytes, folder: Path) -> object:
    path = folder / ("p.gpkg" if content[:1] == b"G" else "p.geojson")
    path.write_bytes(content[1:])
    return read_polygons(path)


def _description(content: bytes, folder: Path) -> object:
    path = folder / "dataset.yaml"
    path.write_bytes(content)
    return read_description(path)


def _description_seeds(folder: Path) -> list[bytes]:
    return [
        b"before: A/{name}.png\nafter: B/{name}.png\nbefore_label: L1/{name}.png\nafter_label: L2/{name}.png\n"
        b"encoding: second-e1\n",
        b"before: im1/{name}.tif\nafter: im2/{name}.tif\nchange_label: label/{name}.png\nbands: [1, 2, 3]\n"
        b"stretch: [0, 3000]\n",
    ]


def _pairs(content: bytes, folder: Path) -> object:
    from wasnow.batch.table import read_pairs

    path = folder / "pairs.csv"
    path.write_bytes(content)
    return read_pairs(path)


def _pairs_seeds(folder: Path) -> list[bytes]:
    return [b"before,after,name,tile\na.tif,b.tif,one,256\nc.tif,d.tif,two,\n", b"before;after\na.tif;b.tif\n"]


_AUX = (
    "<PAMDataset><SRS>EPSG:32632</SRS><Metadata><MDI key='A'>1</MDI></Metadata><PAMRasterBand band='1'>"
    "<NoDataValue>3</NoDataValue></PAMRasterBand></PAMDataset>"
)
_ENVI = (
    "ENVI\nsamples = 192\nlines = 192\nbands = 3\nheader offset = 0\nfile type = ENVI Standard\ndata type = 1\n"
    "interleave = bsq\nbyte order = 0\nband names = {red, green, blue}\ndata ignore value = 0\n"
)

TARGETS: dict[str, Target] = {
    "tiff": Target(_tiff_seeds, _raster("tif").run),
    "png": _raster("png", "PNG"),
    "jpeg": _raster("jpg", "JPEG file"),
    "jpeg2000": _raster("jp2", "JPEG 2000"),
    "webp": _raster("webp", "WebP file"),
    "aux.xml": _beside(".aux.xml", "raw, tiled", _AUX),
    "envi header": _beside(".hdr", "ENVI", _ENVI),
    "journal": Target(_journal_seeds, _journal),
    "run.json": Target(_record_seeds, _record),
    "checkpoint": Target(_checkpoint_seeds, _checkpoint),
    "checkpoint header": Target(_header_seeds, _resealed),
    "weights": Target(_weights_seeds, _weights),
    "recipe": Target(_recipe_seeds, _recipe),
    "settings": Target(lambda folder: [b"batch_size=4\noptimizer.lr=1e-4\nstages.0.loss=ding\nepochs=3"], _setting),
    "vocabulary": Target(lambda folder: [b"water, building, road", "غابة, 水田, <b>".encode()], _vocabulary),
    "checksums": Target(
        lambda folder: [
            b"0" * 64 + b"  scene.tif\n",
            json.dumps({"stac_version": "1", "assets": {"a": {"href": "scene.tif", "file:checksum": "1220" + "0" * 64,
                                                              "file:size": 1}}}).encode(),
        ],
        _sums,
    ),
    "polygons": Target(_polygon_seeds, _polygons),
    "dataset.yaml": Target(_description_seeds, _description),
}  # fmt: skip
if importlib.util.find_spec("wasnow.batch") is not None:
    TARGETS["pairs"] = Target(_pairs_seeds, _pairs)


def emptied(folder: Path) -> Path:
    """Return the folder, emptied."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def attempt(target: Target, content: bytes, folder: Path) -> None:
    """Run a target on one input in an empty folder, without output."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        target.run(content, emptied(folder))
