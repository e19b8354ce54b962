"""Malicious rasters and vectors: no references to other files, no requests, no memory for false sizes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
from affine import Affine

from making import write_raster
from wasnow.data.vectors import read_polygons
from wasnow.errors import InputError, RasterUnreadable, RasterUnsuitable, WasnowError
from wasnow.pipeline.options import Options
from wasnow.pipeline.plan import make_plan
from wasnow.raster.gdal import gdal_settings
from wasnow.raster.reader import RasterReader
from wasnow.raster.source import probe
from wasnow.raster.tiles import Window
from wasnow.raster.trust import OWN_PIXELS, check_vector

PYTHONPATH = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])

SERVER = """
import http.server, sys
class Counting(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with open(sys.argv[1], "a") as log:
            log.write(self.path + chr(10))
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()
    do_HEAD = do_POST = do_GET
    def log_message(self, *ignored): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Counting)
print(server.server_port, flush=True)
server.serve_forever()
"""


@dataclass(frozen=True)
class Server:
    """A web server in another process that logs its requests."""

    url: str
    log: Path

    @property
    def requests(self) -> list[str]:
        return self.log.read_text(encoding="utf-8").split()


@pytest.fixture(scope="module")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    # In its own process: GDAL does not release the interpreter lock while it waits for a response.
    log = tmp_path_factory.mktemp("server") / "requests.txt"
    log.touch()
    with subprocess.Popen([sys.executable, "-c", SERVER, str(log)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield Server(f"http://127.0.0.1:{int(process.stdout.readline())}", log)
        process.kill()


@pytest.fixture
def server(_server: Server) -> Server:
    _server.log.write_text("", encoding="utf-8")
    return _server


def ones(path: Path, **profile: object) -> Path:
    return write_raster(path, np.ones((1, 64, 64), np.uint8), **profile)


def vrt(source: str, extra: str = "") -> str:
    return (
        '<VRTDataset rasterXSize="64" rasterYSize="64"><VRTRasterBand dataType="Byte" band="1">'
        f'<SimpleSource><SourceFilename relativeToVRT="0">{source}</SourceFilename><SourceBand>1</SourceBand>'
        f"</SimpleSource></VRTRasterBand>{extra}</VRTDataset>"
    )


def look(path: str | Path, **options: object) -> None:
    """Open, probe and read a file with GDAL as a run does."""
    with gdal_settings():
        source = probe(path, **options)
        with RasterReader(source) as reader:
            rows, cols = source.grid.shape
            reader.read(Window(0, 0, min(rows, 512), min(cols, 512)))
        for decimation in source.overviews:
            with RasterReader(source.at_overview(decimation)) as reader:
                reader.read(Window(0, 0, 8, 8))


DIRECTIONS: dict[str, Callable[[str], tuple[str, str]]] = {
    "VRT": lambda url: ("a.vrt", vrt(f"/vsicurl/{url}/a.tif")),
    "VRT with another suffix": lambda url: ("a.tif", vrt(f"/vsicurl/{url}/a.tif")),
    "VRT of a local file": lambda url: ("a.vrt", vrt("/etc/passwd")),
    "warped VRT": lambda url: (
        "a.vrt",
        '<VRTDataset rasterXSize="64" rasterYSize="64" subClass="VRTWarpedDataset"><GDALWarpOptions>'
        f"<SourceDataset>/vsicurl/{url}/a.tif</SourceDataset></GDALWarpOptions></VRTDataset>",
    ),
    "WMS": lambda url: (
        "a.xml",
        f'<GDAL_WMS><Service name="TMS"><ServerUrl>{url}/${{z}}/${{x}}/${{y}}.png</ServerUrl></Service><DataWindow>'
        "<UpperLeftX>-100</UpperLeftX><UpperLeftY>100</UpperLeftY><LowerRightX>100</LowerRightX><LowerRightY>-100"
        "</LowerRightY><TileLevel>3</TileLevel><TileCountX>1</TileCountX><TileCountY>1</TileCountY></DataWindow>"
        "<Projection>EPSG:3857</Projection><BandsCount>3</BandsCount></GDAL_WMS>",
    ),
    "WMTS": lambda url: ("a.xml", f"<GDAL_WMTS><GetCapabilitiesUrl>{url}/w.xml</GetCapabilitiesUrl></GDAL_WMTS>"),
    "WCS": lambda url: (
        "a.xml",
        f"<WCS_GDAL><ServiceURL>{url}/?</ServiceURL><CoverageName>c</CoverageName></WCS_GDAL>",
    ),
    "tile index": lambda url: (
        "a.gti",
        f"<GDALTileIndexDataset><IndexDataset>/vsicurl/{url}/i.gpkg</IndexDataset></GDALTileIndexDataset>",
    ),
    "STAC item": lambda url: (
        "a.json",
        json.dumps({"type": "FeatureCollection", "stac_version": "1.0.0", "features": [{"stac_version": "1.0.0",
                    "assets": {"a": {"href": f"{url}/a.tif", "proj:epsg": 32632}}}]}),
    ),
    "DIMAP": lambda url: (
        "DIM_a.xml",
        "<Dimap_Document><Metadata_Id><METADATA_FORMAT version='2.0'>DIMAP</METADATA_FORMAT></Metadata_Id>"
        f"<Data_File><DATA_FILE_PATH href='{url}/a.tif'/></Data_File></Dimap_Document>",
    ),
    "MRF": lambda url: (
        "a.mrf",
        f"<MRF_META><CachedSource><Source>/vsicurl/{url}/a.tif</Source></CachedSource><Raster>"
        "<Size x='64' y='64' c='1'/></Raster></MRF_META>",
    ),
    "ER Mapper header": lambda url: (
        "a.ers",
        f'DatasetHeader Begin\n\tVersion = "6.0"\n\tDataFile = "/vsicurl/{url}/a.tif"\nDatasetHeader End\n',
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", DIRECTIONS)
def test_a_file_that_refers_to_others_is_rejected_without_a_request(kind: str, server: Server, tmp_path: Path) -> None:
    name, text = DIRECTIONS[kind](server.url)
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(RasterUnsuitable, match=r"may refer to other files.*gdal_translate.*--allow-indirect") as caught:
        look(tmp_path / name)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "\n" not in str(caught.value)
    assert server.requests == []


@pytest.mark.parametrize(
    "text",
    [
        vrt("/vsicurl/{url}/a.tif"),
        "<GDAL_WMS><Service name='TMS'><ServerUrl>{url}/a</ServerUrl></Service></GDAL_WMS>",
        "vrt://{url}/a.tif",
        "WMS:{url}/?SERVICE=WMS&LAYERS=a",
        "WMTS:{url}/w.xml",
        'STACIT:"/vsicurl/{url}/i.json"',
        'STACTA:"/vsicurl/{url}/i.json"',
        "DERIVED_SUBDATASET:AMPLITUDE:/vsicurl/{url}/a.tif",
        "GTI:/vsicurl/{url}/i.gpkg",
        'NETCDF:"/vsicurl/{url}/a.nc":a',
        'HDF5:"/vsicurl/{url}/a.h5"://a',
        'ZARR:"/vsicurl/{url}/a.zarr":/a',
        "PLMosaic:base_url={url}",
        "MEM:::DATAPOINTER=1024,PIXELS=64,LINES=64",
    ],
)
def test_a_connection_string_is_rejected(text: str, server: Server) -> None:
    with pytest.raises(RasterUnreadable):
        look(text.replace("{url}", server.url))
    assert server.requests == []


SIDE_FILES: dict[str, Callable[[str], tuple[str, str]]] = {
    "overviews": lambda url: (".ovr", vrt(f"/vsicurl/{url}/o.tif")),
    "OVERVIEWS": lambda url: (".OVR", vrt(f"/vsicurl/{url}/o.tif")),
    "mask": lambda url: (
        ".msk",
        vrt(f"/vsicurl/{url}/m.tif", '<Metadata><MDI key="INTERNAL_MASK_FLAGS_1">2</MDI></Metadata>'),
    ),
    "metadata": lambda url: (
        ".aux.xml",
        f'<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{url}/o.ovr</MDI></Metadata></PAMDataset>',
    ),
    "metadata in disguise": lambda url: (
        ".aux.xml",
        '<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW&#95;FILE">'
        f"/vsicurl/{url}/o.ovr</MDI></Metadata></PAMDataset>",
    ),
    "mask by metadata": lambda url: (
        ".aux.xml",
        '<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="MASK_OVERVIEW_FILE">'
        f"/vsicurl/{url}/o.ovr</MDI></Metadata></PAMDataset>",
    ),
}


@pytest.mark.parametrize("driver", ["GTiff", "PNG", "JPEG", "ENVI"])
@pytest.mark.parametrize("kind", SIDE_FILES)
def test_a_side_file_that_refers_to_others_is_rejected_without_a_request(
    kind: str, driver: str, server: Server, tmp_path: Path
) -> None:
    path = ones(tmp_path / "r.bin", driver=driver)
    suffix, text = SIDE_FILES[kind](server.url)
    Path(f"{path}{suffix}").write_text(text, encoding="utf-8")
    with pytest.raises(RasterUnsuitable, match="--allow-indirect"):
        look(path)
    assert server.requests == []


def test_external_overviews_named_in_a_tiff_are_rejected(server: Server, tmp_path: Path) -> None:
    path = ones(tmp_path / "r.tif")
    with rasterio.open(path, "r+") as raster:
        raster.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=f"/vsicurl/{server.url}/o.ovr")
    assert not Path(f"{path}.aux.xml").exists()
    with pytest.raises(RasterUnsuitable, match="names an external overview file"):
        look(path)
    assert server.requests == []


def test_a_crs_that_is_an_address_is_not_fetched(server: Server, tmp_path: Path) -> None:
    path = ones(tmp_path / "r.tif", crs=None)
    Path(f"{path}.aux.xml").write_text(f"<PAMDataset><SRS>{server.url}/srs</SRS></PAMDataset>", encoding="utf-8")
    with pytest.raises(RasterUnreadable, match="ALLOW_NETWORK_ACCESS=NO"):
        look(path)
    assert server.requests == []


def test_without_these_checks_the_server_gets_requests(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "a.vrt"
    path.write_text(vrt(f"/vsicurl/{server.url}/a.tif"), encoding="utf-8")
    with pytest.raises(RasterUnreadable):
        look(path, allow_indirect=True)
    assert server.requests


def test_an_address_given_by_the_user_is_requested_but_not_its_side_files(server: Server) -> None:
    with pytest.raises(RasterUnreadable):
        look(f"{server.url}/typed.tif")
    assert server.requests
    assert {each for each in server.requests if not each.startswith("/typed.tif")} == set()


def test_external_overviews_and_masks_that_are_tiffs_are_used(tmp_path: Path) -> None:
    path = ones(tmp_path / "r.tif", tiled=True, blockxsize=16, blockysize=16)
    with rasterio.Env(TIFF_USE_OVR=True, GDAL_TIFF_INTERNAL_MASK=False):
        with rasterio.open(path, "r+") as raster:
            raster.write_mask(np.tri(64, dtype=bool))
        with rasterio.open(path, "r+") as raster:
            raster.build_overviews([2, 4])
    assert Path(f"{path}.ovr").exists()
    assert Path(f"{path}.msk").exists()
    with gdal_settings():
        source = probe(path)
        assert source.overviews == (2, 4)
        with RasterReader(source) as reader:
            _, valid = reader.read(Window(0, 0, 64, 64))
    np.testing.assert_array_equal(valid, np.tri(64, dtype=bool))


def test_allow_indirect_opens_a_vrt(tmp_path: Path) -> None:
    values = np.arange(3 * 64 * 64, dtype=np.uint32).reshape(3, 64, 64).astype(np.uint8)
    path = write_raster(tmp_path / "r.tif", values)
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}"><SimpleSource><SourceFilename relativeToVRT="1">r.tif'
        f"</SourceFilename><SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"
        for band in (1, 2, 3)
    )
    place = "<SRS>EPSG:32632</SRS><GeoTransform>500000, 2, 0, 5500000, 0, -2</GeoTransform>"
    mosaic = tmp_path / "m.vrt"
    mosaic.write_text(f'<VRTDataset rasterXSize="64" rasterYSize="64">{place}{bands}</VRTDataset>', encoding="utf-8")
    with pytest.raises(RasterUnsuitable, match="is a VRT"):
        make_plan(mosaic, path, model="irmad")
    with pytest.raises(RasterUnsuitable, match="is a VRT"):
        make_plan(path, path, model="irmad", options=Options(align=str(mosaic)))
    plan = make_plan(mosaic, path, model="irmad", options=Options(allow_indirect=True, bands=(1, 3)))
    with gdal_settings(), plan.pair.open() as reader:
        seen = reader.read(Window(0, 0, 64, 64))
    np.testing.assert_array_equal(seen.before, values[[0, 2]])
    np.testing.assert_array_equal(seen.before, seen.after)


@pytest.mark.slow
def test_python_code_in_a_vrt_never_runs(tmp_path: Path) -> None:
    ones(tmp_path / "r.tif")
    code = f"def f(*a, **k):\n    open({str(tmp_path / 'ran')!r}, 'w').close()\n"
    text = vrt(str(tmp_path / "r.tif")).replace(
        'band="1">',
        'band="1" subClass="VRTDerivedRasterBand"><PixelFunctionType>f</PixelFunctionType><PixelFunctionLanguage>Python'
        f"</PixelFunctionLanguage><PixelFunctionCode><![CDATA[{code}]]></PixelFunctionCode>",
    )
    (tmp_path / "p.vrt").write_text(text, encoding="utf-8")
    script = (
        "from hostile.test_hostile import look; from wasnow.errors import RasterUnreadable\n"
        "try: look('p.vrt', allow_indirect=True); print('read')\n"
        "except RasterUnreadable as error: print(error)"
    )
    environment = {**os.environ, "GDAL_VRT_ENABLE_PYTHON": "YES", "PYTHONPATH": PYTHONPATH}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert "cannot be read" in done.stdout, done
    assert not (tmp_path / "ran").exists()


def test_every_allowed_format_of_this_gdal_opens_without_other_files(tmp_path: Path) -> None:
    with rasterio.Env() as env:
        there = set(env.drivers())
    indirect = {"VRT", "GTI", "DERIVED", "WMS", "WMTS", "WCS", "STACTA", "STACIT", "HTTP", "PLMOSAIC", "EEDAI", "DAAS",
                "MEM", "DIMAP", "SENTINEL2", "SAFE", "TIL", "RS2", "ERS", "MRF", "netCDF", "HDF5", "Zarr", "PCIDSK",
                "PDF", "RPFTOC", "ECRGTOC", "ISIS3", "PDS4", "Rasterlite", "KMLSUPEROVERLAY"}  # fmt: skip
    assert indirect & there
    assert not indirect & set(OWN_PIXELS)
    written = 0
    ours = (
        "GTiff",
        "PNG",
        "JPEG",
        "JP2OpenJPEG",
        "WEBP",
        "GIF",
        "BMP",
        "PNM",
        "HFA",
        "ENVI",
        "EHdr",
        "NITF",
        "RMF",
    )
    for driver in ours:
        if driver in there & set(OWN_PIXELS):
            path = tmp_path / f"r.{'pgm' if driver == 'PNM' else 'x'}"
            bands = 3 if driver == "WEBP" else 1
            write_raster(path, np.ones((bands, 300, 300), np.uint8), driver=driver, crs=None)
            assert probe(path).driver == driver
            written += 1
    assert written >= 10


def test_an_archive_with_parent_paths_writes_nothing(tmp_path: Path) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    tif = ones(tmp_path / "r.tif").read_bytes()
    with zipfile.ZipFile(inside / "a.zip", "w") as archive:
        archive.writestr("../../climbed.tif", tif)
        archive.writestr("r.tif", tif)
    look(f"zip://{inside / 'a.zip'}!r.tif")
    with pytest.raises(WasnowError):
        look(f"zip://{inside / 'a.zip'}!../r.tif")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["in", "r.tif"]


# --- polygons --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.gpkg", "<OGRVRTDataSource><OGRVRTLayer name='a'><SrcDataSource>/vsicurl/{url}/a.gpkg</SrcDataSource>"
                   "</OGRVRTLayer></OGRVRTDataSource>"),
        ("a.json", '{"type": "gdal_streamed_alg", "command_line": "gdal vector pipeline ! read /vsicurl/{url}/a"}'),
        ("a.geojson", "<OGRWFSDataSource><URL>{url}</URL></OGRWFSDataSource>"),
        ("a.shp", "<gml:x xmlns:gml='http://www.opengis.net/gml' schemaLocation='{url}'/>"),
        ("a.fgb", "from,to\nwater,field\n"),
    ],
)  # fmt: skip
def test_a_vector_file_that_refers_to_others_is_rejected(name: str, text: str, server: Server, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text.replace("{url}", server.url), encoding="utf-8")
    with pytest.raises(InputError, match=r"not a GeoPackage.*may refer to other files"):
        read_polygons(tmp_path / name)
    assert server.requests == []


@pytest.mark.parametrize("driver", ["GPKG", "FlatGeobuf", "ESRI Shapefile", "GeoJSON", "KML"])
def test_every_accepted_vector_format_is_read(driver: str, tmp_path: Path) -> None:
    import shapely

    suffix = {"GPKG": "gpkg", "FlatGeobuf": "fgb", "ESRI Shapefile": "shp", "GeoJSON": "geojson", "KML": "kml"}[driver]
    path = tmp_path / f"p.{suffix}"
    square = np.array([shapely.to_wkb(shapely.box(1, 1, 2, 2))], object)
    pyogrio.raw.write(path, square, [np.array(["water"], object)], ["to"], driver=driver, crs="EPSG:4326",
                      geometry_type="Polygon")  # fmt: skip
    check_vector(path)
    assert len(read_polygons(path).shapes) == 1


# --- false sizes ------------------------------------------------------------------------------------------------------

LIMITED = """
import resource, sys, time
from pathlib import Path
import wasnow.pipeline.api
from wasnow.errors import WasnowError
from hostile.test_hostile import look
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 1200 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for path in sys.argv[1:]:
    started = time.monotonic()
    try:
        look(path)
        said = "read"
    except WasnowError as error:
        said = f"{type(error).__name__} {error}"
    assert time.monotonic() - started < 30, path
    print(f"{Path(path).name}|{said}|{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}")
"""


def limited(*paths: Path) -> dict[str, str]:
    """Return the message for each file, from a process limited to 1.2 GB of additional memory."""
    if not sys.platform.startswith("linux"):
        pytest.skip("address-space limits need Linux")
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *map(str, paths)],
        env=environment, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = dict(line.split("|")[:2] for line in done.stdout.splitlines())
    assert set(said) == {path.name for path in paths}
    return said


def tiff(path: Path, tags: dict[int, tuple[int, int, int]], tail: bytes = b"", big: bool = False) -> Path:
    """Write a little-endian TIFF with one directory: tag -> (type, count, value or offset)."""
    entry, inline, head = (20, 8, b"II+\0\x08\0\0\0" + (16).to_bytes(8, "little")) if big else (
        12, 4, b"II*\0" + (8).to_bytes(4, "little"))  # fmt: skip
    body = len(tags).to_bytes(8 if big else 2, "little")
    for number, (kind, count, value) in sorted(tags.items()):
        body += number.to_bytes(2, "little") + kind.to_bytes(2, "little") + count.to_bytes(inline, "little")
        body += value.to_bytes(inline, "little")
    assert entry
    path.write_bytes(head + body + bytes(inline) + tail)
    return path


def png(path: Path, width: int, height: int, interlaced: int = 0) -> Path:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, interlaced])
    data = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    return path


def absurd(folder: Path) -> list[Path]:
    """Write small files that declare gigabytes."""
    short, long, rational = 3, 4, 16
    plain = {258: (short, 1, 8), 259: (short, 1, 1), 262: (short, 1, 1), 277: (short, 1, 1)}
    largest = 2**31 - 1
    made = [
        tiff(folder / "huge strips.tif", {**plain, 256: (long, 1, largest), 257: (long, 1, largest), 278: (long, 1, 1),
                                          273: (long, 1, 8), 279: (long, 1, 8)}),
        tiff(folder / "one huge tile.tif", {**plain, 256: (long, 1, largest), 257: (long, 1, largest),
                                            322: (long, 1, 2**30), 323: (long, 1, 2**30), 324: (long, 4, 8),
                                            325: (long, 4, 8)}, bytes(64)),
        tiff(folder / "sparse and wide.tif", {**plain, 256: (long, 1, largest), 257: (long, 1, 1), 278: (long, 1, 1),
                                              273: (long, 1, 0), 279: (long, 1, 0)}),
        tiff(folder / "all bands.tif", {**plain, 256: (long, 1, 4096), 257: (long, 1, 64), 277: (short, 1, 65535),
                                        278: (long, 1, 64), 273: (long, 1, 0), 279: (long, 1, 0)}),
        tiff(folder / "long tables.tif", {**plain, 256: (long, 1, largest), 257: (long, 1, 2**30),
                                          322: (long, 1, 16), 323: (long, 1, 16), 324: (rational, 2**53, 8),
                                          325: (rational, 2**53, 8)}, bytes(64), big=True),
        tiff(folder / "long metadata.tif", {**plain, 256: (long, 1, 8), 257: (long, 1, 8), 278: (long, 1, 8),
                                            273: (long, 1, 0), 279: (long, 1, 0), 42112: (2, 2**31, 200)}, bytes(64)),
        tiff(folder / "absurd geokeys.tif", {**plain, 256: (long, 1, 8), 257: (long, 1, 8), 278: (long, 1, 8),
                                             273: (long, 1, 0), 279: (long, 1, 0), 34735: (short, 2**31, 200),
                                             33550: (12, 2**29, 200)}, bytes(64)),
        png(folder / "bomb.png", 2**31 - 1, 2**31 - 1),
        png(folder / "interlaced bomb.png", 60_000, 60_000, interlaced=1),
    ]  # fmt: skip
    header = folder / "huge.hdr"
    header.write_text(
        f"ENVI\nsamples = {largest}\nlines = {largest}\nbands = 1\ndata type = 1\ninterleave = bsq\nbyte order = 0\n",
        encoding="ascii",
    )
    (folder / "huge.img").write_bytes(bytes(100))
    (folder / "huge.pgm").write_bytes(b"P5\n2000000000 2000000000\n255\n" + bytes(100))
    (folder / "huge.asc").write_bytes(
        b"ncols 2000000000\nnrows 2000000000\nxllcorner 0\nyllcorner 0\ncellsize 1\n1 2 3\n"
    )
    (folder / "huge.bmp").write_bytes(
        b"BM" + bytes(8) + (54).to_bytes(4, "little") + (40).to_bytes(4, "little")
        + (2**31 - 1).to_bytes(4, "little") * 2 + (1).to_bytes(2, "little") + (24).to_bytes(2, "little") + bytes(24)
    )  # fmt: skip
    (folder / "huge.gif").write_bytes(
        b"GIF89a\xff\xff\xff\xff\x80\0\0" + bytes(6) + b",\0\0\0\0\xff\xff\xff\xff\x40\x08\x01\0\0;"
    )
    return [*made, *(folder / f"huge.{suffix}" for suffix in ("img", "pgm", "asc", "bmp", "gif"))]


def test_false_sizes_are_rejected_before_memory_is_allocated(tmp_path: Path) -> None:
    said = limited(*absurd(tmp_path))
    for name, text in said.items():
        # Georeferencing tags beyond the end of the file are ignored.
        assert text.startswith("Raster") or (name, text) == ("absurd geokeys.tif", "read"), (name, text)
    assert "strips, but lists only 1" in said["huge strips.tif"]
    assert "tiles lie beyond its 198 bytes" in said["one huge tile.tif"]
    assert "more than 1 GiB" in said["sparse and wide.tif"]
    assert "of metadata" in said["long metadata.tif"]
    assert "more than its bytes can encode" in said["interlaced bomb.png"]


@pytest.mark.slow
def test_a_decompression_bomb_in_an_archive_allocates_no_memory(tmp_path: Path) -> None:
    """A raster of one 4 GB strip; the archive has 256 MB of zeros compressed to 1 MB."""
    side = 2**16
    tags = {256: (4, 1, side), 257: (4, 1, side), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 277: (3, 1, 1),
            278: (4, 1, side), 273: (4, 1, 4096), 279: (4, 1, 2**32 - 1)}  # fmt: skip
    start = tiff(tmp_path / "start", tags).read_bytes()
    with (
        zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("bomb.tif", "w", force_zip64=True) as member,
    ):
        member.write(start + bytes(4096 - len(start)))
        for _ in range(256):
            member.write(bytes(2**20))
    path = Path(f"/vsizip/{tmp_path}/bomb.zip/bomb.tif")
    assert limited(path)[path.name].startswith("Raster")


@pytest.mark.slow
def test_a_metadata_side_file_of_two_gigabytes_is_rejected(tmp_path: Path) -> None:
    path = ones(tmp_path / "r.tif")
    with Path(f"{path}.aux.xml").open("wb") as file:
        file.write(b"<PAMDataset><Metadata>")
        file.truncate(2**31)  # sparse: needs no disk space
    assert "2147483648 bytes of metadata" in limited(path)["r.tif"]


@pytest.mark.parametrize("far", [Affine(1e308, 0, 1e308, 0, -1e308, 1e308), Affine(1, 0, 1e15, 0, -1, 0)])
def test_coordinates_outside_the_earth_are_rejected(far: Affine, tmp_path: Path) -> None:
    path = write_raster(tmp_path / "r.tif", np.ones((1, 8, 8), np.uint8), transform=far)
    with pytest.raises(RasterUnsuitable, match="coordinates outside the Earth"):
        probe(path)


def test_a_path_with_nul_is_rejected() -> None:
    with pytest.raises(RasterUnreadable, match="no such file"):
        probe("a\0b.tif")
