"""A QGIS style for polygons of change: one colour per class after.

QGIS reads it from the table ``layer_styles`` of the GeoPackage. Class words are escaped by an XML library.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from wasnow.vocabulary import CHANGED, CHANGED_COLOR, Vocabulary

_NOT_XML = re.compile("[\ud800-\udfff\ufffe\uffff]")
"""Code points that XML 1.0 does not allow, but a vocabulary does."""


def qgis_style(vocabulary: Vocabulary) -> str:
    """Return QML: a categorized fill by the attribute ``to``, with all words of the vocabulary in order."""
    words = vocabulary.words or (CHANGED,)
    colors = [vocabulary.color(code) for code in range(1, len(words) + 1)] if vocabulary.words else [CHANGED_COLOR]
    root = ET.Element("qgis", version="3.28.0", styleCategories="Symbology")
    renderer = ET.SubElement(
        root, "renderer-v2", type="categorizedSymbol", attr="to", symbollevels="0", enableorderby="0", forceraster="0"
    )
    categories = ET.SubElement(renderer, "categories")
    symbols = ET.SubElement(renderer, "symbols")
    for number, (word, color) in enumerate(zip(words, colors, strict=True)):
        word = _NOT_XML.sub("", word)
        ET.SubElement(categories, "category", symbol=str(number), value=word, label=word, render="true", type="string")
        _fill(symbols, str(number), color)
    ET.SubElement(root, "layerGeometryType").text = "2"
    ET.indent(root, " ")
    body = ET.tostring(root, encoding="unicode")
    return f"<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n{body}\n"


def _fill(symbols: ET.Element, name: str, color: tuple[int, int, int]) -> None:
    """Add a semi-transparent fill with an opaque outline of the same colour, so that the image below is visible."""
    symbol = ET.SubElement(
        symbols, "symbol", type="fill", name=name, alpha="1", clip_to_extent="1", force_rhr="0", is_animated="0"
    )
    layer = ET.SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1", "locked": "0", "pass": "0"})
    options = ET.SubElement(layer, "Option", type="Map")
    rgb = ",".join(map(str, color))
    for key, value in {
        "color": f"{rgb},110",
        "joinstyle": "miter",
        "outline_color": f"{rgb},255",
        "outline_style": "solid",
        "outline_width": "0.4",
        "outline_width_unit": "MM",
        "style": "solid",
    }.items():
        ET.SubElement(options, "Option", type="QString", name=key, value=value)
