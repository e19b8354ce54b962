"""Damaged files: correct pixels or an error with file and position; checksums find what codecs miss."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from hostile.damage import FORMS, SIDE, Form, damages, flipped, pixel_bytes, write
from making import Toy, pair, write_raster
from wasnow.errors import RasterUnreadable
from wasnow.raster.gdal import gdal_settings
from wasnow.raster.reader import RasterReader
from wasnow.raster.source import probe
from wasnow.raster.tiles import Window
from wasnow.storage.checksums import checked_sha256, given_sums


def whole(folder: Path, form: Form) -> Path:
    path = write(folder, form)
    if path is None:
        pytest.skip(f"this build of GDAL does not write {form.profile}")
    return path


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_truncated_file_never_gives_wrong_pixels(form: Form, tmp_path: Path) -> None:
    path = whole(tmp_path, form)
    size = path.stat().st_size
    draw = np.random.default_rng(4)
    points = [1, 7, 8, 100, size - 1, size - 5, *draw.integers(1, size, 14).tolist()]
    found = damages(path, lambda content: (content[:point] for point in points))
    assert set(found) <= {"noticed", "harmless"}
    assert found["noticed"] >= 0.8 * len(points)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_flipped_bit_is_reported_in_one_line_or_undetectable_by_the_codec(form: Form, tmp_path: Path) -> None:
    path = whole(tmp_path, form)
    rng, ranges = np.random.default_rng(5), pixel_bytes(path)
    found = damages(path, lambda content: (flipped(content, ranges, rng) for _ in range(12)))
    assert set(found) <= {"noticed", "harmless"} | (set() if form.notices else {"wrong"})


@pytest.mark.parametrize("name", ["raw, tiled", "JPEG, tiled", "JPEG 2000", "zstd, tiled"])
def test_a_checksum_detects_damage_that_the_codec_does_not(name: str, tmp_path: Path) -> None:
    path = whole(tmp_path, FORMS[name])
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    Path(f"{path}.sha256").write_text(f"{digest}  {path.name}\n", encoding="utf-8")
    assert checked_sha256(path) == digest
    rng, ranges = np.random.default_rng(6), pixel_bytes(path)
    for _ in range(20):
        broken = flipped(content, ranges, rng)
        path.write_bytes(broken)
        with pytest.raises(RasterUnreadable) as caught:
            checked_sha256(path)
        message_text = str(caught.value)
        assert all(part in message_text for part in (path.name, digest, hashlib.sha256(broken).hexdigest()))


def test_a_damaged_block_is_reported_with_its_position_and_its_neighbours_are_correct(tmp_path: Path) -> None:
    path = whole(tmp_path, FORMS["LERC, tiled"])
    with gdal_settings(), RasterReader(probe(path)) as reader:
        before, _ = reader.read(Window(0, 0, SIDE, SIDE))
    start, stop = pixel_bytes(path)[4]  # the block in the middle of 3 x 3
    content = bytearray(path.read_bytes())
    content[start + 20 : stop] = bytes(stop - start - 20)
    path.write_bytes(content)
    with gdal_settings(), RasterReader(probe(path)) as reader:
        for row in (0, 64, 128):
            for col in (0, 64, 128):
                window = Window(row, col, 64, 64)
                if (row, col) == (64, 64):
                    with pytest.raises(RasterUnreadable, match=r"whole\.tif: rows 64-127, cols 64-127 cannot be read"):
                        reader.read(window)
                else:
                    values, _ = reader.read(window)
                    np.testing.assert_array_equal(values, before[:, row : row + 64, col : col + 64])


def test_a_run_with_a_damaged_block_fails_or_flags_only_that_block(tmp_path: Path) -> None:
    import wasnow

    options = {"model": Toy(), "tile": 48}
    before, after = pair(tmp_path, compress="lerc", tiled=True, blockxsize=32, blockysize=32)
    undamaged = wasnow.detect(before, after, output=tmp_path / "undamaged", **options)
    start, stop = pixel_bytes(after)[5]
    content = bytearray(after.read_bytes())
    content[start + 10 : stop] = bytes(stop - start - 10)
    after.write_bytes(content)
    with pytest.raises(RasterUnreadable, match=r"after\.tif: rows \d+-\d+, cols \d+-\d+ cannot be read"):
        wasnow.detect(before, after, output=tmp_path / "stopped", **options)
    flagged = wasnow.detect(before, after, output=tmp_path / "flagged", keep_going=True, **options)
    pixels = flagged.record.pixels
    assert not flagged.complete
    assert 0 < pixels.not_processed["could not be read"] <= 4 * 32 * 32
    assert pixels.changed + pixels.unchanged + sum(pixels.not_processed.values()) == undamaged.record.pixels.total
    errors = [block.error for block in flagged.record.blocks if block.error]
    assert errors
    assert all("after.tif: rows" in error for error in errors)


@pytest.mark.parametrize("short", ["offsets", "sizes"])
def test_a_short_block_table_of_an_overview_is_detected_on_opening(short: str, tmp_path: Path) -> None:
    import rasterio
    from rasterio.enums import Resampling

    values = np.arange(3 * 256 * 256, dtype=np.uint32).reshape(3, 256, 256).astype(np.uint8)
    path = write_raster(tmp_path / "r.tif", values, tiled=True, blockxsize=64, blockysize=64)
    with rasterio.open(path, "r+") as raster:
        raster.build_overviews([2], Resampling.nearest)
    probe(path)
    content = bytearray(path.read_bytes())
    _, second = directories(content)
    entry = next(
        at for at in entries(content, second) if content[at : at + 2] == tag(324 if short == "offsets" else 325)
    )
    content[entry + 4 : entry + 8] = (1).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(RasterUnreadable, match=r"r\.tif: declares 128 x 128 px, which are \d+ tiles, but lists only 1"):
        probe(path)


def test_directories_linked_in_a_loop_are_rejected(tmp_path: Path) -> None:
    import rasterio
    from rasterio.enums import Resampling

    path = write_raster(tmp_path / "r.tif", np.ones((1, 256, 256), np.uint8), tiled=True)
    with rasterio.open(path, "r+") as raster:
        raster.build_overviews([2, 4], Resampling.nearest)
    content = bytearray(path.read_bytes())
    found = directories(content)
    last = entries(content, found[-1])[-1] + 12
    content[last : last + 4] = found[1].to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(RasterUnreadable, match="in a loop"):
        probe(path)


@pytest.mark.parametrize("driver", ["ENVI", "EHdr"])
def test_a_truncated_raw_raster_is_rejected_and_not_read_as_black(driver: str, tmp_path: Path) -> None:
    path = write_raster(tmp_path / "r.bil", np.full((1, 50, 40), 9, np.uint8), driver=driver)
    probe(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RasterUnreadable, match=r"r\.bil: is truncated: 1999 bytes, but its header declares 2000"):
        probe(path)


def test_a_run_verifies_checksums_and_stac_items_before_it_starts(tmp_path: Path) -> None:
    import wasnow

    before, after = pair(tmp_path, height=48, width=48)
    digest = hashlib.sha256(after.read_bytes()).hexdigest()
    item = {"stac_version": "1.0.0", "assets": {"data": {"href": "./after.tif", "file:checksum": f"1220{digest}"}}}
    (tmp_path / "after.json").write_text(json.dumps(item), encoding="utf-8")
    out = tmp_path / "out"
    assert wasnow.detect(before, after, output=out, model=Toy(), tile=48).complete
    content = bytearray(after.read_bytes())
    content[-1] ^= 1
    after.write_bytes(content)
    with pytest.raises(RasterUnreadable, match=rf"after\.json describes: sha256 {digest} required"):
        wasnow.detect(before, after, output=tmp_path / "other", model=Toy(), tile=48)
    assert not list((tmp_path / "other").glob("*.tif"))


# --- checksum files ---------------------------------------------------------------------------------------------------


def a_file(folder: Path) -> tuple[Path, str]:
    path = folder / "scene 1.tif"
    path.write_bytes(b"not even a raster")
    return path, hashlib.sha256(b"not even a raster").hexdigest()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("scene 1.tif.sha256", "{}"),
        ("scene 1.tif.sha256", "{}\n"),
        ("scene 1.tif.sha256", "{} *scene 1.tif\n"),
        ("scene 1.tif.sha256", "{}  name before it was renamed.tif\n"),
        ("scene 1.sha256", "SHA256 (scene 1.tif) = {}\n"),
        ("SHA256SUMS", "{0}  other.tif\n{1}  ./scene 1.tif\n"),
        ("sha256sums.txt", "# made by hand\n{0}  other.tif\n{1}  scene 1.tif\n"),
    ],
)
def test_checksum_files_of_common_tools_are_read(name: str, text: str, tmp_path: Path) -> None:
    path, digest = a_file(tmp_path)
    (tmp_path / name).write_text(text.format(*(("0" * 64, digest) if "{1}" in text else (digest,))), encoding="utf-8")
    assert [(given.where.name, given.digest) for given in given_sums(path)] == [(name, digest)]
    assert checked_sha256(path) == digest
    path.write_bytes(b"not even a rasteR")
    with pytest.raises(RasterUnreadable, match=f"{name} describes"):
        checked_sha256(path)


MULTIHASHES = {"sha1": "1114", "sha2-256": "1220", "sha2-512": "1340", "sha3-256": "1620", "md5": "d50110"}
PYTHON = {"sha2-256": "sha256", "sha2-512": "sha512", "sha3-256": "sha3_256"}


@pytest.mark.parametrize("algorithm", MULTIHASHES)
def test_the_checksum_of_a_stac_item_is_verified(algorithm: str, tmp_path: Path) -> None:
    path, _ = a_file(tmp_path)
    content = path.read_bytes()
    digest = hashlib.new(PYTHON.get(algorithm, algorithm), content).hexdigest()
    asset = {"href": "https://example.com/a/scene%201.tif?v=2", "file:checksum": MULTIHASHES[algorithm] + digest}
    item = {"type": "Feature", "stac_version": "1.0.0", "assets": {"thumbnail": {"href": "t.png"}, "data": asset}}
    (tmp_path / "scene 1.json").write_text(json.dumps(item), encoding="utf-8")
    checked_sha256(path)
    path.write_bytes(content[:-1] + b"R")
    with pytest.raises(RasterUnreadable, match=rf"scene 1\.json describes: \w+ {digest} required, [0-9a-f]+ found"):
        checked_sha256(path)


def test_the_file_size_of_a_stac_item_is_verified(tmp_path: Path) -> None:
    path, _ = a_file(tmp_path)
    item = {"stac_version": "1.0.0", "assets": {"data": {"href": "./scene 1.tif", "file:size": 16}}}
    (tmp_path / "item.json").write_text(json.dumps(item), encoding="utf-8")
    with pytest.raises(RasterUnreadable, match=r"item\.json describes: 16 bytes required, 17 found"):
        checked_sha256(path)


@pytest.mark.parametrize("text", ["{", "[]", '{"stac_version": 1}', '{"stac_version": "1", "assets": [1]}', "[" * 9000])
def test_a_json_file_that_is_not_a_stac_item_is_ignored(text: str, tmp_path: Path) -> None:
    path, digest = a_file(tmp_path)
    (tmp_path / "scene 1.json").write_text(text + '"stac_version"', encoding="utf-8")
    (tmp_path / "item.json").write_text(text, encoding="utf-8")
    assert checked_sha256(path) == digest


def test_a_checksum_file_without_a_checksum_is_an_error(tmp_path: Path) -> None:
    path, digest = a_file(tmp_path)
    assert given_sums(path) == ()
    assert checked_sha256(path) == digest
    (tmp_path / "scene 1.tif.sha256").write_text("404 not found", encoding="utf-8")
    with pytest.raises(RasterUnreadable, match="does not contain a SHA-256 of it"):
        checked_sha256(path)


def test_a_checksum_list_of_other_files_is_ignored(tmp_path: Path) -> None:
    path, digest = a_file(tmp_path)
    shutil.copy(path, tmp_path / "other.tif")
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  other.tif\n", encoding="utf-8")
    assert checked_sha256(path) == digest
    with pytest.raises(RasterUnreadable):
        checked_sha256(tmp_path / "other.tif")


# --- directories of a little-endian TIFF ------------------------------------------------------------------------------


def tag(number: int) -> bytes:
    return number.to_bytes(2, "little")


def entries(content: bytearray, directory: int) -> list[int]:
    count = int.from_bytes(content[directory : directory + 2], "little")
    return [directory + 2 + 12 * i for i in range(count)]


def directories(content: bytearray) -> list[int]:
    found = [int.from_bytes(content[4:8], "little")]
    while following := int.from_bytes(content[(at := entries(content, found[-1])[-1] + 12) : at + 4], "little"):
        found.append(following)
    return found
