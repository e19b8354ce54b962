"""What may be opened: rasters that hold their own pixels, and side files that are what their names say.

    a.tif  ──>  a format of OWN_PIXELS?  ──>  side files plain?  ──>  no overviews elsewhere?  ──>  read
                no: refused, said why         .ovr .msk .aux.xml       OVERVIEW_FILE

GDAL opens two hundred formats, and a good part of them are not pictures but directions to pictures: a VRT, a WMS
description, a tile index, a STAC item. Whoever sends such a file decides what this machine reads next, files of others
and servers on the inside of a firewall included. So formats are allowed by name, not forbidden by name
(docs/decisions/0014-allowed-formats.md); ``--allow-indirect`` opens all of them, for files that one made oneself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wasnow.errors import InputError, RasterUnreadable, RasterUnsuitable

OWN_PIXELS = (
    "GTiff", "COG", "PNG", "JPEG", "JP2OpenJPEG", "JP2KAK", "JP2ECW", "JP2MrSID", "JPEGXL", "WEBP", "GIF", "BIGGIF",
    "BMP", "PNM", "SGI", "HFA", "ENVI", "EHdr", "NITF", "ECW", "MrSID", "MBTiles", "GPKG", "AAIGrid", "RST", "SAGA",
    "LAN", "RMF",
)  # fmt: skip
"""GDAL's names of the formats that hold their pixels in the file itself, or in one that is called like it."""

MAX_SIDE_BYTES = 2**26
"""GDAL reads metadata beside a file whole: more than 64 MiB of it is no metadata."""

ADVICE = (
    "Give the file that holds the pixels (gdal_translate IN OUT.tif makes one), "
    "or pass --allow-indirect if you trust whoever made it"
)

_HEAD = 4096
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SIDE_RASTERS = (".ovr", ".msk", ".msk.ovr", ".ovr.msk", ".ovr.ovr")
_LONG = "of metadata"

_KINDS: tuple[tuple[re.Pattern[bytes], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE | re.DOTALL), kind)
    for pattern, kind in (
        (rb"<\s*VRTDataset", "a VRT"),
        (rb"<\s*GDALTileIndexDataset", "a tile index (GTI)"),
        (rb"<\s*GDAL_WMS", "a description of a map server (WMS)"),
        (rb"<\s*(GDAL_WMTS|Capabilities)", "a description of a tile server (WMTS)"),
        (rb"<\s*WCS_GDAL", "a description of a coverage server (WCS)"),
        (rb"<\s*(Dimap_Document|PHR_)", "a DIMAP product description"),
        (rb"<\s*(\w+:)?Level-\d\w*_(User|Granule|Tile|Datastrip)", "a Sentinel-2 product description"),
        (rb"<\s*MRF_META", "an MRF"),
        (rb'"stac_version"', "a STAC document"),
        (rb"\A\s*DatasetHeader\s+Begin", "an ER Mapper header"),
        (rb"\A\x89HDF", "an HDF5 or netCDF-4 file"),
        (rb"\ACDF[\x01\x02\x05]", "a netCDF file"),
        (rb"\APCIDSK", "a PCIDSK file"),
        (rb"\A%PDF", "a PDF"),
        (rb"\A\s*{[^{}]*\"zarr_format\"", "a Zarr array"),
    )
)
_PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9_]+:(?!//)")


def is_plain(path: str) -> bool:
    """Whether a path names a file of this machine, and no archive, server or connection string."""
    return "://" not in path and not path.startswith("/vsi")


def drivers(allow_indirect: bool) -> list[str] | None:
    """The formats that may be opened; None for all that GDAL has."""
    return None if allow_indirect else list(OWN_PIXELS)


def readdir(path: str) -> str:
    """How GDAL may look for side files (``GDAL_DISABLE_READDIR_ON_OPEN``) of a raster that must hold its own pixels.

    By name alone beside a local file, so that only names that `check_side_files` knows are found; not at all beside
    what is on a server or in an archive, where nobody can look at them first.
    """
    return "TRUE" if is_plain(path) else "EMPTY_DIR"


def refused_kind(path: str) -> str | None:
    """What a file is that `OWN_PIXELS` leaves out, in words; None where that cannot be told from its beginning."""
    if path.lstrip().startswith("<"):
        return next((kind for pattern, kind in _KINDS if pattern.search(path.encode())), "a description in XML")
    if is_plain(path) and _PREFIX.match(path) and not Path(path).exists():
        return f"a connection string of GDAL ({path.partition(':')[0]}:)"
    if path.startswith("vrt://"):
        return "a VRT"
    try:
        with Path(path).open("rb") as file:
            head = file.read(_HEAD)
    except (OSError, ValueError):
        return None
    return next((kind for pattern, kind in _KINDS if pattern.search(head)), None)


def check_side_files(path: str) -> None:
    """Pass over a raster whose overviews, mask and metadata files are what their names say.

    Args:
        path: of a raster; anything but a file of this machine passes, since its side files are never looked for.

    Raises:
        RasterUnsuitable: an ``.ovr`` or ``.msk`` is no TIFF, and might point anywhere; or there is too much metadata.
    """
    if not is_plain(path):
        return
    for suffix in _SIDE_RASTERS:
        for name in (path + suffix, path + suffix.upper()):
            side = Path(name)
            if side.is_file() and _start(side, 4) not in _TIFF:
                kind = refused_kind(name) or "no TIFF"
                raise RasterUnsuitable(path, f"has beside it {side.name}, which is {kind}", _beside(side))
    for side in (Path(f"{path}.aux.xml"), Path(path).with_suffix(".hdr"), Path(f"{path}.hdr")):
        if side.is_file() and (size := side.stat().st_size) > MAX_SIDE_BYTES:
            raise RasterUnsuitable(path, f"has beside it {side.name} with {size} bytes {_LONG}", _beside(side))


def check_opened(path: str, raster: Any) -> None:
    """Pass over an open raster that keeps its overviews and its pixels in files of its own folder.

    Raises:
        RasterUnsuitable: it names overviews by file, or reads a file of another folder.
    """
    named = {name.upper(): value for name, value in raster.tags(ns="OVERVIEWS").items()}
    for key in ("OVERVIEW_FILE", "MASK_OVERVIEW_FILE"):
        if key in named:
            raise RasterUnsuitable(
                path,
                f"says that its overviews are in {' '.join(named[key].split())[:100]}",
                "Build them anew (gdaladdo -clean, then gdaladdo), or pass --allow-indirect if you trust whoever "
                "made it",
            )
    if raster.driver == "HFA" and is_plain(path):
        _check_folder(path, raster.files)


def _check_folder(path: str, files: Iterable[str]) -> None:
    folder = Path(path).resolve().parent
    for name in files:
        if not is_plain(name) or (name != path and folder not in Path(name).resolve().parents):
            raise RasterUnsuitable(path, f"reads another file, {name}", ADVICE)


def check_vector(path: Path) -> None:
    """Pass over a file of polygons that holds them itself: GeoPackage, FlatGeobuf, Shapefile, GeoJSON, KML.

    Raises:
        InputError: it is another kind of file, which may point anywhere.
    """
    try:
        head = _start(path, 2**16)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    plain = (
        head.startswith((b"SQLite format 3\0", b"fgb", b"PAR1", b"\0\0\x27\x0a"))
        or (text[:1] in (b"{", b"[") and b"gdal_streamed_alg" not in head)
        or re.search(rb"\A(<\?xml[^>]*>|<!--.*?-->|\s)*<(\w+:)?kml[\s>]", text, re.DOTALL) is not None
    )
    if not plain:
        raise InputError(
            f"{path}: cannot be read as polygons: it is neither GeoPackage, FlatGeobuf, Shapefile, GeoJSON nor KML, "
            "and other formats may point to other files; convert it (ogr2ogr OUT.gpkg IN)"
        )


def check_length(path: str, raster: Any) -> None:
    """Pass over a raster without compression that is as long as its header says; GDAL fills what is missing with 0.

    Raises:
        RasterUnreadable: its file is shorter.
    """
    local = Path(path)
    if raster.driver not in ("ENVI", "EHdr") or not is_plain(path) or not local.is_file():
        return
    if raster.tags(ns="ENVI").get("file_compression", "0") == "1" or raster.dtypes[0] not in _BYTES:
        return
    skipped = raster.tags(ns="ENVI").get("header_offset", "0")
    needed = raster.width * raster.height * raster.count * _BYTES[raster.dtypes[0]]
    needed += int(skipped) if skipped.isdigit() else 0
    found = local.stat().st_size
    if raster.tags(1, ns="IMAGE_STRUCTURE").get("NBITS") is None and found < needed:
        raise RasterUnreadable(
            path, f"is cut off: {found} bytes are there, and its header declares {needed}", "Copy or download it again"
        )


_BYTES = {
    "uint8": 1, "int8": 1, "uint16": 2, "int16": 2, "uint32": 4, "int32": 4, "float32": 4, "uint64": 8, "int64": 8,
    "float64": 8,
}  # fmt: skip


def _start(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        return file.read(size)


def _beside(side: Path) -> str:
    return f"Remove {side.name}, or pass --allow-indirect if you trust whoever made it"
