"""Which files may be opened: rasters that contain their own pixels, with plain side files.

    a.tif  ──>  a format of OWN_PIXELS?  ──>  side files plain?  ──>  no external overviews?  ──>  read
                no: rejected                  .ovr .msk .aux.xml       OVERVIEW_FILE

Many of GDAL's formats refer to other files or servers: a VRT, a WMS description, a tile index, a STAC item. The author
of such a file decides what this machine reads next, including other users' files and servers behind a firewall.
Therefore formats are on an allow list (docs/decisions/0014-allowed-formats.md). ``--allow-indirect`` opens all
formats, for files from a trusted source.
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
"""GDAL's names of formats whose pixels are in the file itself, or in a file of the same name."""

MAX_SIDE_BYTES = 2**26
"""Largest metadata side file, 64 MiB; GDAL reads it into memory as a whole."""

ADVICE = "Convert it (gdal_translate IN OUT.tif), or pass --allow-indirect if you trust its source"

_HEAD = 4096
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SIDE_RASTERS = (".ovr", ".msk", ".msk.ovr", ".ovr.msk", ".ovr.ovr")

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
    """Whether a path names a local file, not an archive, a server or a connection string."""
    return "://" not in path and not path.startswith("/vsi")


def drivers(allow_indirect: bool) -> list[str] | None:
    """Return the formats that may be opened; None for all of GDAL's formats."""
    return None if allow_indirect else list(OWN_PIXELS)


def readdir(path: str) -> str:
    """Return how GDAL looks for side files of a raster: the value of ``GDAL_DISABLE_READDIR_ON_OPEN``.

    Local side files are found by name only, so that GDAL opens no file that `check_side_files` does not check. On
    servers and in archives, where they cannot be checked first, GDAL does not look for them.
    """
    return "TRUE" if is_plain(path) else "EMPTY_DIR"


def refused_kind(path: str) -> str | None:
    """Describe a file of a format outside `OWN_PIXELS` by its first bytes; None if they are not recognised."""
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
    """Check the overview, mask and metadata files beside a raster.

    Args:
        path: of a raster. Paths that are not local pass, because GDAL does not look for their side files.

    Raises:
        RasterUnsuitable: an ``.ovr`` or ``.msk`` file is not a TIFF, or a metadata file is too large.
    """
    if not is_plain(path):
        return
    for suffix in _SIDE_RASTERS:
        for name in (path + suffix, path + suffix.upper()):
            side = Path(name)
            if side.is_file() and _start(side, 4) not in _TIFF:
                kind = refused_kind(name) or "not a TIFF"
                raise RasterUnsuitable(path, f"has a side file {side.name}, which is {kind}", _beside(side))
    for side in (Path(f"{path}.aux.xml"), Path(path).with_suffix(".hdr"), Path(f"{path}.hdr")):
        if side.is_file() and (size := side.stat().st_size) > MAX_SIDE_BYTES:
            raise RasterUnsuitable(path, f"has a side file {side.name} with {size} bytes of metadata", _beside(side))


def check_opened(path: str, raster: Any) -> None:
    """Check that an open raster keeps its overviews and pixels in its own folder.

    Args:
        path: of the raster.
        raster: an open ``rasterio.DatasetReader``.

    Raises:
        RasterUnsuitable: its metadata names an overview file, or it reads a file of another folder.
    """
    named = {name.upper(): value for name, value in raster.tags(ns="OVERVIEWS").items()}
    for key in ("OVERVIEW_FILE", "MASK_OVERVIEW_FILE"):
        if key in named:
            raise RasterUnsuitable(
                path,
                f"names an external overview file, {' '.join(named[key].split())[:100]}",
                "Rebuild the overviews (gdaladdo -clean, then gdaladdo), or pass --allow-indirect if you trust its "
                "source",
            )
    if raster.driver in ("ENVI", "EHdr") and is_plain(path) and (kind := refused_kind(path)) is not None:
        raise RasterUnsuitable(
            path, f"is {kind}; the header beside it describes another file", "Convert it: gdal_translate IN OUT.tif"
        )
    if raster.driver == "HFA" and is_plain(path):
        _check_folder(path, raster.files)


def _check_folder(path: str, files: Iterable[str]) -> None:
    folder = Path(path).resolve().parent
    for name in files:
        if not is_plain(name) or (name != path and folder not in Path(name).resolve().parents):
            raise RasterUnsuitable(path, f"reads another file, {name}", ADVICE)


def check_vector(path: Path) -> None:
    """Check by its first bytes that a vector file contains its own polygons.

    Accepted are GeoPackage, FlatGeobuf, GeoParquet, Shapefile, GeoJSON and KML.

    Raises:
        InputError: it is of another format, which may refer to other files.
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
            f"{path}: cannot be read as polygons: not a GeoPackage, FlatGeobuf, Shapefile, GeoJSON or KML file, and "
            "other formats may refer to other files; convert it (ogr2ogr OUT.gpkg IN)"
        )


def check_length(path: str, raster: Any) -> None:
    """Check the file size of a raw raster against its header; GDAL fills the missing part with 0.

    Args:
        path: of the raster.
        raster: an open ``rasterio.DatasetReader``.

    Raises:
        RasterUnreadable: the file is shorter than its header declares.
    """
    local = Path(path)
    if raster.driver not in ("ENVI", "EHdr") or not is_plain(path) or not local.is_file():
        return
    if raster.tags(ns="ENVI").get("file_compression", "0") == "1" or raster.dtypes[0] not in _BYTES:
        return
    offset = raster.tags(ns="ENVI").get("header_offset", "0")
    needed = raster.width * raster.height * raster.count * _BYTES[raster.dtypes[0]]
    needed += int(offset) if offset.isdigit() else 0
    found = local.stat().st_size
    if raster.tags(1, ns="IMAGE_STRUCTURE").get("NBITS") is None and found < needed:
        raise RasterUnreadable(
            path, f"is truncated: {found} bytes, but its header declares {needed}", "Copy or download it again"
        )


_BYTES = {
    "uint8": 1, "int8": 1, "uint16": 2, "int16": 2, "uint32": 4, "int32": 4, "float32": 4, "uint64": 8, "int64": 8,
    "float64": 8,
}  # fmt: skip


def _start(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        return file.read(size)


def _beside(side: Path) -> str:
    return f"Remove {side.name}, or pass --allow-indirect if you trust its source"
