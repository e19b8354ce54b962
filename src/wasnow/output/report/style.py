"""Sidecar files that name and colour the codes of the result rasters in a GIS.

    change.tif           bands before_class, after_class, transition: codes only
    change.tif.aux.xml   raster attribute table of each band (GDAL), colour table of band 1
    change.qml           the style that QGIS loads with the raster: band 3, one legend entry per transition
    landcover_*.tif.aux.xml   attribute and colour table of the unmasked class maps (with --landcover)

GDAL stores a colour table in a TIFF only if it has one band, and never an attribute table. It reads both from a PAM
sidecar (persistent auxiliary metadata). The texts are pure functions of the vocabulary and the counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from wasnow.output.layout import ATTRIBUTES, LANDCOVER, STYLE
from wasnow.output.record import RunRecord
from wasnow.vocabulary import NO_CHANGE_COLOR, Transition, Vocabulary

NO_CHANGE = "no change"
NOT_PROCESSED = "not processed"
NOT_PROCESSED_COLOR = (150, 150, 155)


_INTEGER, _REAL, _TEXT = 0, 1, 2  # GDALRATFieldType
_GENERIC, _PIXEL_COUNT, _NAME, _MIN_MAX, _RED, _GREEN, _BLUE = 0, 1, 2, 5, 6, 7, 8  # GDALRATFieldUsage


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a raster attribute table, in GDAL's numbers for type and usage."""

    name: str
    kind: int
    usage: int


@dataclass(frozen=True, slots=True)
class Code:
    """The meaning of one value of a band."""

    value: int
    label: str
    color: tuple[int, int, int]
    before: str = ""
    after: str = ""
    pixels: int | None = None


def aux_xml(vocabulary: Vocabulary, *, counts: Mapping[int, int] | None = None) -> str:
    """Return ``change.tif.aux.xml``: a thematic attribute table per band, and a colour table on band 1.

    Args:
        vocabulary: the class words of the run.
        counts: pixels of each value of the transition band, including 0 and not processed. If given, only the
            transitions that occur are listed, and every table has a column ``Count``; the counts of the class bands
            are derived from them. None lists every transition of the vocabulary.

    Returns:
        XML, to be written as UTF-8. Columns are Value, Class, (From, To,) Red, Green, Blue, (Count).
    """
    root = ET.Element("PAMDataset")
    for band, codes in enumerate(_bands(vocabulary, counts), start=1):
        element = ET.SubElement(root, "PAMRasterBand", band=str(band))
        if band == 1:
            ET.SubElement(element, "ColorInterp").text = "Palette"
            _color_table(element, codes, 256 if vocabulary.not_processed == 255 else len(vocabulary) + 1)
        _attribute_table(element, codes, transitions=band == 3, counted=counts is not None)
    return _text(root)


def qml(vocabulary: Vocabulary, *, occurring: Iterable[int] | None = None) -> str:
    """Return ``change.qml``: band 3 by transition; no change is transparent, not processed is grey.

    Args:
        vocabulary: the class words of the run.
        occurring: the transition codes of the legend; None for all of the vocabulary.
    """
    root = ET.Element("qgis", version="3.28.0", styleCategories="Symbology")
    pipe = ET.SubElement(root, "pipe")
    grey = ",".join(map(str, (*NOT_PROCESSED_COLOR, 200)))
    renderer = ET.SubElement(
        pipe, "rasterrenderer", type="paletted", band="3", opacity="1", alphaBand="-1", nodataColor=grey
    )
    ET.SubElement(renderer, "rasterTransparency")
    palette = ET.SubElement(renderer, "colorPalette")

    def entry(value: int, label: str, color: tuple[int, int, int], alpha: int) -> None:
        fields = {"value": str(value), "label": label, "color": _hex(color), "alpha": str(alpha)}
        ET.SubElement(palette, "paletteEntry", fields)

    entry(0, NO_CHANGE, NO_CHANGE_COLOR, 0)
    for transition in _listed(vocabulary, occurring):
        entry(transition.code, transition.label, transition.color, 255)
    entry(vocabulary.not_processed, NOT_PROCESSED, NOT_PROCESSED_COLOR, 200)
    ET.SubElement(root, "blendMode").text = "0"
    return "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n" + _text(root)


def transition_counts(record: RunRecord) -> dict[int, int]:
    """Return the recorded pixels of each value of the transition band."""
    vocabulary = Vocabulary(record.model.classes)
    return {
        0: record.pixels.unchanged,
        **{row.code: row.pixels for row in record.transitions},
        vocabulary.not_processed: sum(record.pixels.not_processed.values()),
    }


def write_styles(folder: Path, record: RunRecord) -> tuple[Path, Path]:
    """Write ``change.tif.aux.xml`` and ``change.qml`` into a result folder and return their paths."""
    vocabulary = Vocabulary(record.model.classes)
    aux, style = folder / ATTRIBUTES, folder / STYLE
    aux.write_text(aux_xml(vocabulary, counts=transition_counts(record)), encoding="utf-8")
    style.write_text(qml(vocabulary, occurring=[row.code for row in record.transitions]), encoding="utf-8")
    return aux, style


def landcover_aux_xml(vocabulary: Vocabulary, counts: Mapping[int, int]) -> str:
    """Return the sidecar of a class map: a colour table, and an attribute table with the pixels of each class.

    Args:
        vocabulary: the class words of the run.
        counts: pixels of each class code and of the code for not processed.
    """
    codes = [
        Code(code, word, vocabulary.color(code), pixels=counts.get(code, 0))
        for code, word in enumerate(vocabulary.words, start=1)
    ]
    hidden = vocabulary.not_processed
    codes.append(Code(hidden, NOT_PROCESSED, NOT_PROCESSED_COLOR, pixels=counts.get(hidden, 0)))
    root = ET.Element("PAMDataset")
    element = ET.SubElement(root, "PAMRasterBand", band="1")
    ET.SubElement(element, "ColorInterp").text = "Palette"
    _color_table(element, codes, 256 if hidden == 255 else len(vocabulary) + 1)
    _attribute_table(element, codes, transitions=False, counted=True)
    return _text(root)


def write_landcover_styles(folder: Path, record: RunRecord) -> tuple[Path, Path]:
    """Write the sidecars of both class maps into a result folder and return their paths."""
    vocabulary = Vocabulary(record.model.classes)
    before, after = (folder / f"{name}.aux.xml" for name in LANDCOVER)
    for date, path in enumerate((before, after)):
        path.write_text(landcover_aux_xml(vocabulary, landcover_counts(record, date)), encoding="utf-8")
    return before, after


def landcover_counts(record: RunRecord, date: int) -> dict[int, int]:
    """Return the recorded pixels of each value of a class map; date 0 is before, 1 is after."""
    not_processed = Vocabulary(record.model.classes).not_processed
    counts = {row.code: row.pixels[date] for row in record.landcover}
    return {**counts, not_processed: sum(record.pixels.not_processed.values())}


def _listed(vocabulary: Vocabulary, occurring: Iterable[int] | None) -> list[Transition]:
    """Return the transitions of ``occurring`` in the order of their codes, or all; other codes are ignored."""
    if occurring is None:
        return list(vocabulary.transitions())
    return [vocabulary.transition(code) for code in sorted(set(occurring)) if 1 <= code <= vocabulary.n_transitions]


def _bands(vocabulary: Vocabulary, counts: Mapping[int, int] | None) -> tuple[list[Code], list[Code], list[Code]]:
    """Return the codes of the three bands of ``change.tif``."""
    listed = _listed(vocabulary, None if counts is None else (code for code in counts if counts[code]))
    size = len(vocabulary)

    def ends(middle: list[Code]) -> list[Code]:
        hidden = vocabulary.not_processed
        zero = None if counts is None else counts.get(0, 0)
        last = None if counts is None else counts.get(hidden, 0)
        return [
            Code(0, NO_CHANGE, NO_CHANGE_COLOR, pixels=zero),
            *middle,
            Code(hidden, NOT_PROCESSED, NOT_PROCESSED_COLOR, pixels=last),
        ]

    def classes(side: int) -> list[Code]:
        pixels = [0] * size
        for transition in listed if counts and size else ():
            pixels[divmod(transition.code - 1, size)[side]] += counts[transition.code] if counts else 0
        return [
            Code(code, word, vocabulary.color(code), pixels=None if counts is None else pixels[code - 1])
            for code, word in enumerate(vocabulary.words, start=1)
        ]

    transitions = [
        Code(t.code, t.label, t.color, t.before or "", t.after, None if counts is None else counts[t.code])
        for t in listed
    ]
    before, after = classes(0), classes(1)
    if not size and counts is not None:  # without class words the class bands are 0 at every processed pixel
        processed = sum(pixels for code, pixels in counts.items() if code != vocabulary.not_processed)
        both = ends([])
        both[0] = Code(0, NO_CHANGE, NO_CHANGE_COLOR, pixels=processed)
        return both, both, ends(transitions)
    return ends(before), ends(after), ends(transitions)


def _color_table(parent: ET.Element, codes: list[Code], length: int) -> None:
    """Add entries 0..length-1; unused codes and the code for not processed are transparent."""
    colors = {code.value: code.color for code in codes[:-1]}
    table = ET.SubElement(parent, "ColorTable")
    for value in range(length):
        red, green, blue = colors.get(value, (0, 0, 0))
        alpha = 255 if value in colors else 0
        ET.SubElement(table, "Entry", c1=str(red), c2=str(green), c3=str(blue), c4=str(alpha))


def _attribute_table(parent: ET.Element, codes: list[Code], *, transitions: bool, counted: bool) -> None:
    # Counts are real numbers, as in GDAL itself: its integers end at 2^31, which a raster of 50,000 px a side exceeds.
    columns = [
        Column("Value", _INTEGER, _MIN_MAX),
        Column("Class", _TEXT, _NAME),
        *([Column("From", _TEXT, _GENERIC), Column("To", _TEXT, _GENERIC)] if transitions else []),
        Column("Red", _INTEGER, _RED),
        Column("Green", _INTEGER, _GREEN),
        Column("Blue", _INTEGER, _BLUE),
        *([Column("Count", _REAL, _PIXEL_COUNT)] if counted else []),
    ]
    table = ET.SubElement(parent, "GDALRasterAttributeTable", tableType="thematic")
    for index, column in enumerate(columns):
        field = ET.SubElement(table, "FieldDefn", index=str(index))
        ET.SubElement(field, "Name").text = column.name
        ET.SubElement(field, "Type").text = str(column.kind)
        ET.SubElement(field, "Usage").text = str(column.usage)
    for index, code in enumerate(codes):
        row = ET.SubElement(table, "Row", index=str(index))
        words = [code.before, code.after] if transitions else []
        for value in (code.value, code.label, *words, *code.color, *([code.pixels] if counted else [])):
            ET.SubElement(row, "F").text = str(value)


def _hex(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def _text(root: ET.Element) -> str:
    ET.indent(root, " ")
    return ET.tostring(root, encoding="unicode") + "\n"
