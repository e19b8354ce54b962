"""Run the reliability cases against the command line on synthetic pixels and print a table with a total.

    python benchmarks/cases.py                 each command in a process of its own, as a user runs it
    python benchmarks/cases.py --in-process    the same commands in this process: faster
    python benchmarks/cases.py --only 15 --only gap

Cases that need hours or a special machine are held by their own tests, which the table names without counting them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from scipy.ndimage import gaussian_filter

SIDE = 192
HOME = Affine(2, 0, 500_000, 0, -2, 5_500_000)
IN_PROCESS = False


@dataclass(frozen=True)
class Result:
    """What a command returned and wrote."""

    code: int
    output: str
    folder: Path

    @property
    def record(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "run.json").read_text(encoding="utf-8")))

    @property
    def change(self) -> NDArray[Any]:
        with rasterio.open(self.folder / "change.tif") as raster:
            return np.asarray(raster.read())

    @property
    def changed(self) -> NDArray[np.bool_]:
        codes = self.change[-1]
        return np.asarray((codes > 0) & (codes < np.iinfo(codes.dtype).max))

    @property
    def flagged(self) -> NDArray[np.bool_]:
        codes = self.change[-1]
        return np.asarray(codes == np.iinfo(codes.dtype).max)


def wasnow(*arguments: object) -> tuple[int, str]:
    """Run the command; return exit code and output."""
    words = [str(argument) for argument in arguments]
    if IN_PROCESS:
        from typer.testing import CliRunner

        from wasnow.cli import app

        done = CliRunner().invoke(app, words)
        return done.exit_code, done.output + (done.stderr if done.stderr_bytes else "")
    code = "from wasnow.cli import app; app()"
    finished = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=600)
    return finished.returncode, finished.stdout + finished.stderr


def detect(folder: Path, before: Path, after: Path, *options: object, model: str = "irmad") -> Result:
    """Compare two rasters."""
    out = folder / f"out{len(list(folder.glob('out*')))}"
    code, output = wasnow("detect", before, after, "-o", out, "--model", model, *options)
    return Result(code, " ".join(output.split()), out)


def scene(seed: int = 0, side: int = SIDE, bands: int = 3) -> NDArray[np.float64]:
    """Smooth texture, 40..215."""
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(bands):
        coarse, fine = (gaussian_filter(rng.standard_normal((side, side)), sigma) for sigma in (6, 1))
        parts.append(128 + 35 * (coarse / coarse.std() + 0.4 * fine / fine.std()))
    return np.clip(np.stack(parts), 40, 215)


def changed_scene(seed: int = 0, side: int = SIDE, bands: int = 3) -> NDArray[np.float64]:
    """The same with noise and a bright square in rows and columns 60 to 99."""
    values = scene(seed, side, bands) + np.random.default_rng(seed + 1).normal(0, 2, (bands, side, side))
    values[:, 60:100, 60:100] = 235
    return values


def write(path: Path, values: NDArray[Any], dtype: str = "uint8", **profile: Any) -> Path:
    """Write a GeoTIFF in EPSG:32632 unless told otherwise; ``crs=None`` leaves CRS and transform out."""
    options: dict[str, Any] = {"driver": "GTiff", "crs": "EPSG:32632", "transform": HOME, **profile}
    if options["crs"] is None:
        del options["crs"], options["transform"]
    if options["driver"] == "GTiff" and len(values) == 3 and dtype == "uint8":
        options.setdefault("photometric", "RGB")
    if np.dtype(dtype).kind in "ui":
        values = np.clip(np.rint(values), np.iinfo(dtype).min, np.iinfo(dtype).max)
    bands, height, width = values.shape
    with rasterio.open(path, "w", count=bands, height=height, width=width, dtype=dtype, **options) as raster:
        raster.write(values.astype(dtype))
    return path


def both(folder: Path, **profile: Any) -> tuple[Path, Path]:
    """A pair with a known change."""
    return write(folder / "before.tif", scene(), **profile), write(folder / "after.tif", changed_scene(), **profile)


def found(result: Result) -> None:
    """The square is found and little else."""
    assert result.code == 0, f"exit {result.code}: {result.output[-300:]}"
    changed, square = result.changed, np.zeros((SIDE, SIDE), bool)
    square[60:100, 60:100] = True
    assert changed[square].mean() > 0.8, f"only {changed[square].mean():.0%} of the change found"
    others = changed & ~square & ~result.flagged
    assert others.mean() < 0.05, f"{others.mean():.1%} false change"


def refused(result: Result, code: int, *words: str) -> None:
    """The command ended in one line with this exit code."""
    assert result.code == code, f"exit {result.code}, expected {code}: {result.output[-300:]}"
    assert "Traceback" not in result.output
    for word in words:
        assert word in result.output, f"{word!r} is not in: {result.output[-300:]}"


Case = Callable[[Path], None]
CASES: dict[str, tuple[str, Case]] = {}


def case(number: str, title: str) -> Callable[[Case], Case]:
    """Register a case."""

    def register(function: Case) -> Case:
        CASES[number] = (title, function)
        return function

    return register


# --- the reliability cases ----------------------------------------------------------------------------------------


@case("1", "different CRS: warped")
def _(folder: Path) -> None:
    from rasterio.warp import Resampling, calculate_default_transform, reproject

    before, after = both(folder)
    bounds = (500_000, 5_500_000 - 2 * SIDE, 500_000 + 2 * SIDE, 5_500_000)
    transform, width, height = calculate_default_transform("EPSG:32632", "EPSG:3857", SIDE, SIDE, *bounds)
    values = np.zeros((3, height, width))
    with rasterio.open(after) as raster:
        source = raster.read().astype(float)
    reproject(source, values, src_transform=HOME, src_crs="EPSG:32632", dst_transform=transform, dst_crs="EPSG:3857",
              resampling=Resampling.bilinear)  # fmt: skip
    found(detect(folder, before, write(folder / "m.tif", values, crs="EPSG:3857", transform=transform, nodata=0)))


@case("2", "adjacent UTM zones, equal coordinates: refused")
def _(folder: Path) -> None:
    before, _after = both(folder)
    refused(detect(folder, before, write(folder / "z.tif", scene(), crs="EPSG:32633")), 3, "UTM")


@case("3", "one CRS missing: refused unless --assume-crs")
def _(folder: Path) -> None:
    before, after = both(folder)
    with rasterio.open(after) as raster:
        values = raster.read()
    with rasterio.open(folder / "n.tif", "w", driver="GTiff", count=3, height=SIDE, width=SIDE, dtype="uint8",
                       transform=HOME, photometric="RGB") as raster:  # fmt: skip
        raster.write(values)
    refused(detect(folder, before, folder / "n.tif"), 3, "--assume-crs EPSG:32632")
    found(detect(folder, before, folder / "n.tif", "--assume-crs", "EPSG:32632"))


@case("4", "both CRS missing, same shape: pixel mode")
def _(folder: Path) -> None:
    found(detect(folder, *both(folder, crs=None)))


@case("5", "different pixel size: resampled, warning above 2x")
def _(folder: Path) -> None:
    before, _after = both(folder)
    coarse = changed_scene().reshape(3, SIDE // 3, 3, SIDE // 3, 3).mean(axis=(2, 4))
    result = detect(folder, before, write(folder / "c.tif", coarse, transform=HOME @ Affine.scale(3)))
    assert result.code == 0
    assert "times finer pixels" in result.output


@case("6", "partial overlap: intersection, rest flagged")
def _(folder: Path) -> None:
    before, _after = both(folder)
    result = detect(folder, before, write(folder / "p.tif", changed_scene()[:, :, :120]))
    found(result)
    assert result.flagged[:, 120:].all()


@case("7", "sub-pixel grid offset: resampled")
def _(folder: Path) -> None:
    before, _after = both(folder)
    found(
        detect(folder, before, write(folder / "s.tif", changed_scene(), transform=HOME @ Affine.translation(0.3, 0.2)))
    )


@case("8", "rotated grid: correct")
def _(folder: Path) -> None:
    before, after = both(folder, transform=HOME @ Affine.rotation(20))
    found(detect(folder, before, after))


@case("9", "south-up: as north-up")
def _(folder: Path) -> None:
    before, _after = both(folder)
    up = Affine(2, 0, 500_000, 0, 2, 5_500_000 - 2 * SIDE)
    found(detect(folder, before, write(folder / "u.tif", changed_scene()[:, ::-1], transform=up)))


@case("10", "ground control points only: refused with advice")
def _(folder: Path) -> None:
    before, _after = both(folder)
    path = write(folder / "g.tif", scene(), crs=None)
    points = [
        rasterio.control.GroundControlPoint(r, c, 9 + c / 1e4, 50 - r / 1e4) for r, c in ((0, 0), (0, 99), (99, 0))
    ]
    with rasterio.open(path, "r+") as raster:
        raster.gcps = (points, rasterio.crs.CRS.from_epsg(4326))
    refused(detect(folder, before, path), 3, "gdalwarp")


@case("11", "latitude and longitude: geodesic areas")
def _(folder: Path) -> None:
    grid = Affine(2e-5, 0, 9, 0, -2e-5, 60)
    result = detect(folder, *both(folder, crs="EPSG:4326", transform=grid))
    found(result)
    import pyogrio

    _, _, _, (areas,) = pyogrio.raw.read(result.folder / "changes.gpkg", columns=["area_m2"], read_geometry=False)
    pixel = 2e-5 * 111_412 * 2e-5 * 111_412 * np.cos(np.deg2rad(60))
    assert 0.9 < areas.sum() / (result.changed.sum() * pixel) < 1.1


@case("12", "antimeridian: no polygon around the world")
def _(folder: Path) -> None:
    result = detect(folder, *both(folder, crs="EPSG:4326", transform=Affine(1e-4, 0, 179.9904, 0, -1e-4, 10)))
    found(result)
    item = json.loads((result.folder / "item.json").read_text(encoding="utf-8"))
    west, _s, east, _n = item["bbox"]
    assert (east - west) % 360 < 1


@case("13", "uint16: one stretch for the whole raster")
def _(folder: Path) -> None:
    for name, values in (("a", scene()), ("b", changed_scene())):
        write(folder / f"{name}.tif", values * 40, "uint16")
    found(detect(folder, folder / "a.tif", folder / "b.tif"))


@case("14", "float with NaN and infinity: flagged")
def _(folder: Path) -> None:
    values = changed_scene()
    values[:, :20], values[:, 20:25] = np.nan, np.inf
    write(folder / "a.tif", scene(), "float32"), write(folder / "b.tif", values, "float32")
    for model in ("irmad", "semantic-cd-mini"):
        result = detect(folder, folder / "a.tif", folder / "b.tif", model=model)
        assert result.code == 0, result.output[-300:]
        assert result.flagged[:25].all()


@case("15", "nodata 0 is missing only if all bands are 0")
def _(folder: Path) -> None:
    before, after = both(folder, nodata=0)
    with rasterio.open(after, "r+") as raster:
        values = raster.read()
        values[:, 150:160], values[0, 10:20] = 0, 0
        raster.write(values)
    result = detect(folder, before, after)
    assert result.code == 0
    assert result.flagged[150:160].all()
    assert not result.flagged[10:20].any()


@case("16", "alpha band and mask file")
def _(folder: Path) -> None:
    before, after = both(folder)
    with rasterio.open(after, "r+") as raster:
        mask = np.full((SIDE, SIDE), 255, np.uint8)
        mask[:30] = 0
        raster.write_mask(mask)
    assert detect(folder, before, after).flagged[:30].all()
    alpha = np.concatenate([changed_scene(), mask[None]])
    assert detect(folder, before, write(folder / "rgba.tif", alpha)).flagged[:30].all()


@case("17", "BGR by colour interpretation: as RGB")
def _(folder: Path) -> None:
    before, after = both(folder)
    path = write(folder / "bgr.tif", changed_scene()[::-1])
    with rasterio.open(path, "r+") as raster:
        raster.colorinterp = [ColorInterp.blue, ColorInterp.green, ColorInterp.red]
    one, other = (detect(folder, before, each, model="semantic-cd-mini") for each in (after, path))
    assert one.code == other.code == 0
    assert (one.change == other.change).all()


@case("18", "palette expanded")
def _(folder: Path) -> None:
    before, _after = both(folder)
    path = write(folder / "p.tif", changed_scene()[:1] // 8, photometric="PALETTE")
    with rasterio.open(path, "r+") as raster:
        raster.write_colormap(1, {i: (i * 8, i * 8, i * 8, 255) for i in range(32)})
    assert detect(folder, before, path).code == 0


@case("19", "one band works; complex is refused")
def _(folder: Path) -> None:
    write(folder / "a.tif", scene(bands=1)), write(folder / "b.tif", changed_scene(bands=1))
    assert detect(folder, folder / "a.tif", folder / "b.tif").code == 0
    write(folder / "c.tif", scene(bands=1), "complex64")
    refused(detect(folder, folder / "a.tif", folder / "c.tif"), 3, "complex")


@case("21", "1 x 1 and 13 x 400 px")
def _(folder: Path) -> None:
    for rows, cols in ((1, 1), (13, 400)):
        paths = [write(folder / f"{i}.tif", scene(i, 400)[:, :rows, :cols]) for i in range(2)]
        result = detect(folder, *paths, model="semantic-cd-mini")
        assert result.code == 0, result.output[-300:]
        assert result.change.shape[1:] == (rows, cols)


@case("22", "a size that is not a multiple of the stride: every pixel covered")
def _(folder: Path) -> None:
    paths = [write(folder / f"{i}.tif", scene(i, 199)[:, :197, :191]) for i in range(2)]
    result = detect(folder, *paths, "--tile", 64, model="semantic-cd-mini")
    assert result.code == 0
    assert not result.flagged.any()


@case("23", "identical pair: no polygons")
def _(folder: Path) -> None:
    before, _after = both(folder)
    for model in ("irmad", "semantic-cd-mini"):
        assert not detect(folder, before, before, model=model).changed.any()


@case("24", "swapped dates: same change within 1 %")
def _(folder: Path) -> None:
    before, after = both(folder)
    for model in ("irmad", "cva", "semantic-cd-mini"):
        forth, back = detect(folder, before, after, model=model), detect(folder, after, before, model=model)
        share = (forth.changed != back.changed).mean()
        assert share < 0.01, f"{model}: {share:.2%} of the pixels differ"


@case("25", "a shift of 3 px is reported")
def _(folder: Path) -> None:
    large = scene(5, 400)
    write(folder / "a.tif", large[:, 50:350, 50:350]), write(folder / "b.tif", large[:, 47:347, 48:348])
    result = detect(folder, folder / "a.tif", folder / "b.tif")
    assert result.code == 0
    assert "displaced by about 3.6 px" in result.output, result.output[-300:]


@case("26", "another gamma and gain, with sensor noise, no change: under 5 %")
def _(folder: Path) -> None:
    before, _after = both(folder)
    values = 255 * (scene() / 255) ** 1.3 * 0.95 + np.random.default_rng(9).normal(0, 4, (3, SIDE, SIDE))
    for model in ("irmad", "semantic-cd-mini"):
        share = detect(folder, before, write(folder / "g.tif", values), model=model).changed.mean()
        assert share < 0.05, f"{model}: {share:.1%} false change"


@case("28", "all pixels missing at one date: valid, empty, flagged")
def _(folder: Path) -> None:
    before, _after = both(folder, nodata=0)
    result = detect(folder, before, write(folder / "n.tif", 0 * scene(), nodata=0))
    assert result.code == 0, result.output[-300:]
    assert result.flagged.all()
    assert "no pixel is valid" in result.output
    assert wasnow("verify", result.folder)[0] == 0


@case("29", "truncated: refused; --keep-going flags the rest")
def _(folder: Path) -> None:
    before, after = both(folder, tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    after.write_bytes(after.read_bytes()[: after.stat().st_size * 7 // 10])
    refused(detect(folder, before, after), 3, "truncated")
    result = detect(folder, before, after, "--keep-going")
    assert result.code == 5, f"exit {result.code}: {result.output[-300:]}"
    assert 0 < result.flagged.mean() < 1


@case("31", "sparse and BigTIFF")
def _(folder: Path) -> None:
    before, after = both(folder, BIGTIFF="YES", tiled=True, blockxsize=64, blockysize=64)
    found(detect(folder, before, after))
    profile: dict[str, Any] = {"driver": "GTiff", "width": 3000, "height": 3000, "count": 3, "dtype": "uint8"}
    profile |= {"crs": "EPSG:32632", "transform": HOME, "nodata": 0, "tiled": True, "photometric": "RGB"}
    profile["SPARSE_OK"] = True
    for name, values in (("s0.tif", scene()), ("s1.tif", changed_scene())):
        with rasterio.open(folder / name, "w", **profile) as raster:
            raster.write(np.rint(values).astype(np.uint8), window=rasterio.windows.Window(0, 0, SIDE, SIDE))
    result = detect(folder, folder / "s0.tif", folder / "s1.tif")
    assert result.code == 0
    assert result.flagged.mean() > 0.99


@case("32", "false directories: refused before memory is allocated")
def _(folder: Path) -> None:
    import struct

    before, _after = both(folder)
    (folder / "f.tif").write_bytes(b"II+\0" + struct.pack("<HHQ", 8, 0, 2**63 + 8) + bytes(64))
    refused(detect(folder, before, folder / "f.tif"), 3, "truncated")


@case("33", "PNG decompression bomb: refused")
def _(folder: Path) -> None:
    import struct
    import zlib

    before, _after = both(folder)
    path = write(folder / "b.png", scene(), crs=None, driver="PNG")
    data = bytearray(path.read_bytes())
    header = b"IHDR" + struct.pack(">II", 200_000, 200_000) + bytes(data[24:29])
    data[12:33] = header + struct.pack(">I", zlib.crc32(header))
    path.write_bytes(data)
    refused(detect(folder, before, path), 3, "more than its bytes can encode")


@case("38", "tile size does not change the result beyond 0.1 %")
def _(folder: Path) -> None:
    paths = [write(folder / f"{i}.tif", each) for i, each in enumerate((scene(0, 400), changed_scene(0, 400)))]
    for model in ("irmad", "semantic-cd-mini"):
        one, other = (detect(folder, *paths, "--tile", tile, model=model) for tile in (128, 256))
        share = (one.changed != other.changed).mean()
        assert share < 0.001, f"{model}: {share:.2%} of the pixels differ"


# --- kinds found by public reports and attacks ----------------------------------------------------------------------


@case("gap", "undeclared collar: flagged, the rest as without it")
def _(folder: Path) -> None:
    for value, dtype in ((0, "uint8"), (-9999, "int16"), (-9999, "float32"), (0, "uint16")):
        values = changed_scene() if dtype == "uint8" else changed_scene() * 20
        first = scene() if dtype == "uint8" else scene() * 20
        values[:, :12] = value
        result = detect(folder, write(folder / "a.tif", first, dtype), write(folder / "b.tif", values, dtype))
        found(result)
        assert result.flagged[:12].all(), f"{value} in {dtype} is not flagged"
        assert "undeclared nodata" in result.output


@case("nodata", "--nodata per date")
def _(folder: Path) -> None:
    before, after = both(folder)
    with rasterio.open(after, "r+") as raster:
        values = raster.read()
        values[:, 150:160, 20:30] = 7
        raster.write(values)
    assert detect(folder, before, after, "--nodata", "0,7").flagged[150:160, 20:30].all()


@case("alpha", "near infrared flagged as alpha is a band")
def _(folder: Path) -> None:
    paths = []
    for name, values in (("a", scene(bands=4)), ("b", changed_scene(bands=4))):
        values[3, :30] = 0
        paths.append(write(folder / f"{name}.tif", values, photometric="RGB"))
        with rasterio.open(paths[-1], "r+") as raster:
            raster.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    result = detect(folder, *paths)
    assert result.code == 0
    assert "is flagged as alpha" in result.output
    assert not result.flagged.any()


@case("offset", "large offsets and tiny values keep the change")
def _(folder: Path) -> None:
    for dtype, offset, scale in (("uint32", 4e9, 1), ("int32", 2e9, 1), ("float64", 1e9, 1e-2), ("float64", 0, 1e-40)):
        paths = [
            write(folder / f"{name}.tif", values * scale + offset, dtype)
            for name, values in (("a", scene()), ("b", changed_scene()))
        ]
        found(detect(folder, *paths))


@case("scale", "declared scale and offset: no change from another offset")
def _(folder: Path) -> None:
    paths = []
    for i, (name, values) in enumerate((("a", scene()), ("b", changed_scene()))):
        path = write(folder / f"{name}.tif", values * 20 + i * 1000, "uint16")
        with rasterio.open(path, "r+") as raster:
            raster.scales, raster.offsets = (1e-4,) * 3, (-0.1 * i,) * 3
        paths.append(path)
    found(detect(folder, *paths, "--stretch", "0,0.5", model="cva"))


@case("types", "uint8 against uint16 of 0 to 255: as 8-bit on both sides")
def _(folder: Path) -> None:
    before, after = both(folder)
    wide = write(folder / "w.tif", changed_scene(), "uint16", photometric="RGB")
    one, other = (detect(folder, before, path, model="semantic-cd-mini") for path in (after, wide))
    assert (one.changed == other.changed).all()


@case("shift", "a shift of 60 px is reported")
def _(folder: Path) -> None:
    large = scene(5, 800)
    write(folder / "a.tif", large[:, 100:700, 100:700]), write(folder / "b.tif", large[:, 40:640, 100:700])
    result = detect(folder, folder / "a.tif", folder / "b.tif")
    assert "displaced by about 60" in result.output, result.output[-300:]


@case("global", "-180..180 against 0..360")
def _(folder: Path) -> None:
    world = [np.roll(np.repeat(v, 2, axis=2), roll, axis=2) for v, roll in ((scene(), 0), (changed_scene(), SIDE))]
    size = 360 / (2 * SIDE)
    write(folder / "a.tif", world[0], crs="EPSG:4326", transform=Affine(size, 0, -180, 0, -size, 60))
    write(folder / "b.tif", world[1], crs="EPSG:4326", transform=Affine(size, 0, 0, 0, -size, 60))
    result = detect(folder, folder / "a.tif", folder / "b.tif")
    assert result.code == 0, result.output[-300:]
    assert result.flagged.mean() < 0.02


@case("crs", "geocentric CRS against a real one: one line")
def _(folder: Path) -> None:
    before, _after = both(folder)
    refused(detect(folder, before, write(folder / "g.tif", scene(), crs="EPSG:4978")), 3, "geocentric")


@case("files", "pipes, devices, LFS pointers, HTML pages: named at once")
def _(folder: Path) -> None:
    before, _after = both(folder)
    (folder / "lfs.tif").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    (folder / "page.tif").write_text("<!doctype html><html></html>")
    refused(detect(folder, before, folder / "lfs.tif"), 3, "Git LFS pointer")
    refused(detect(folder, before, folder / "page.tif"), 3, "HTML page")
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe.tif")
        refused(detect(folder, before, folder / "pipe.tif"), 3, "named pipe")
        refused(detect(folder, before, Path("/dev/zero")), 3, "not a regular file")


@case("bands", "band names are read; unknown orders are asked for")
def _(folder: Path) -> None:
    paths = [write(folder / f"{name}.tif", values * 20, "uint16")
             for name, values in (("a", scene(bands=4)), ("b", changed_scene(bands=4)))]  # fmt: skip
    refused(detect(folder, *paths, model="semantic-cd-mini"), 3, "--bands 3,2,1")
    for path in paths:
        with rasterio.open(path, "r+") as raster:
            raster.descriptions = ("B2", "B3", "B4", "B8")
    assert detect(folder, *paths, model="semantic-cd-mini").code == 0


ELSEWHERE = {
    "20": ("EXIF-rotated JPEG", "tests/raster/test_read.py"),
    "27": ("cloud mask", "not supported yet"),
    "30": ("byte flips x codec", "tests/hostile/test_damage.py"),
    "34": ("kill -9 at many moments", "tests/pipeline/test_kill.py"),
    "35": ("ENOSPC, EIO, read-only", "tests/storage/test_disks.py"),
    "36": ("two writers", "tests/storage/test_journal.py"),
    "37": ("out of memory", "tests/training/test_trainer.py"),
    "42": ("redirects", "tests/raster/test_remote.py"),
    "46": ("fuzzing", "make fuzz"),
}


def main() -> int:
    """Run the cases and print the table."""
    global IN_PROCESS
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", help="number or name of a case")
    parser.add_argument("--in-process", action="store_true", help="do not start a process for each command")
    arguments = parser.parse_args()
    IN_PROCESS = arguments.in_process
    chosen = {number: each for number, each in CASES.items() if not arguments.only or number in arguments.only}
    passed = 0
    print("| case | | result | s |\n|---|---|---|---|")
    for number, (title, run) in chosen.items():
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            try:
                run(Path(folder))
                result, passed = "pass", passed + 1
            except AssertionError as error:
                result = (
                    f"FAIL: {' '.join(str(error).split())[:200] or traceback.format_exc().splitlines()[-2].strip()}"
                )
            except Exception as error:
                result = f"FAIL: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        print(f"| {number} | {title} | {result} | {time.perf_counter() - start:.0f} |", flush=True)
    if not arguments.only:
        for number, (title, where) in ELSEWHERE.items():
            print(f"| {number} | {title} | not run here: {where} | |")
    print(f"\n{passed} of {len(chosen)} pass")
    return 0 if passed == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
