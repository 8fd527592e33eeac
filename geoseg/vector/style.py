"""Layer styles in the two languages that desktop programs read from a GeoPackage: QGIS's QML and OGC's SLD."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence

from geoseg.legend import Selection

_OUTLINE_SHARE = 0.6  # outlines are the fill, darkened
_OUTLINE_MM, _OUTLINE_PX = "0.1", "0.3"
_OGC, _SLD = "http://www.opengis.net/ogc", "http://www.opengis.net/sld"


def to_qml(selections: Sequence[Selection]) -> str:
    """A QGIS style: one symbol for one class, else a symbol for each value of `class_name`."""
    root = ET.Element("qgis", version="3.28.0", styleCategories="Symbology")
    single = len(selections) == 1
    renderer = ET.SubElement(root, "renderer-v2", enableorderby="0", forceraster="0", symbollevels="0")
    renderer.set("type", "singleSymbol" if single else "categorizedSymbol")
    if not single:
        renderer.set("attr", "class_name")
        categories = ET.SubElement(renderer, "categories")
        for i, selection in enumerate(selections):
            entry = {"value": selection.name, "label": selection.name, "symbol": str(i), "render": "true"}
            ET.SubElement(categories, "category", entry | {"type": "string"})
    symbols = ET.SubElement(renderer, "symbols")
    for i, selection in enumerate(selections):
        _add_symbol(symbols, str(i), selection.color)
    return "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n" + ET.tostring(root, encoding="unicode")


def _add_symbol(symbols: ET.Element, name: str, color: str) -> None:
    symbol = ET.SubElement(symbols, "symbol", type="fill", name=name, alpha="1", clip_to_extent="1", force_rhr="0")
    layer = ET.SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1", "locked": "0", "pass": "0"})
    options = {
        "color": _rgba(color),
        "style": "solid",
        "outline_color": _rgba(_darker(color)),
        "outline_style": "solid",
        "outline_width": _OUTLINE_MM,
        "outline_width_unit": "MM",
        "joinstyle": "bevel",
    }
    holder = ET.SubElement(layer, "Option", type="Map")
    for key, value in options.items():
        ET.SubElement(holder, "Option", name=key, type="QString", value=value)


def to_sld(layer: str, selections: Sequence[Selection]) -> str:
    """An SLD 1.0 style with one rule per class."""
    ET.register_namespace("sld", _SLD)
    ET.register_namespace("ogc", _OGC)
    root = ET.Element(f"{{{_SLD}}}StyledLayerDescriptor", version="1.0.0")
    named = ET.SubElement(root, f"{{{_SLD}}}NamedLayer")
    ET.SubElement(named, f"{{{_SLD}}}Name").text = layer
    style = ET.SubElement(named, f"{{{_SLD}}}UserStyle")
    rules = ET.SubElement(style, f"{{{_SLD}}}FeatureTypeStyle")
    for selection in selections:
        rule = ET.SubElement(rules, f"{{{_SLD}}}Rule")
        ET.SubElement(rule, f"{{{_SLD}}}Name").text = selection.name
        if len(selections) > 1:
            _add_filter(rule, selection.name)
        polygon = ET.SubElement(rule, f"{{{_SLD}}}PolygonSymbolizer")
        _add_parameters(polygon, "Fill", {"fill": selection.color})
        _add_parameters(polygon, "Stroke", {"stroke": _darker(selection.color), "stroke-width": _OUTLINE_PX})
    return ET.tostring(root, encoding="unicode", xml_declaration=False)


def _add_filter(rule: ET.Element, name: str) -> None:
    holder = ET.SubElement(rule, f"{{{_OGC}}}Filter")
    equal = ET.SubElement(holder, f"{{{_OGC}}}PropertyIsEqualTo")
    ET.SubElement(equal, f"{{{_OGC}}}PropertyName").text = "class_name"
    ET.SubElement(equal, f"{{{_OGC}}}Literal").text = name


def _add_parameters(polygon: ET.Element, kind: str, parameters: dict[str, str]) -> None:
    holder = ET.SubElement(polygon, f"{{{_SLD}}}{kind}")
    for name, value in parameters.items():
        ET.SubElement(holder, f"{{{_SLD}}}CssParameter", name=name).text = value


def _rgb(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def _rgba(color: str) -> str:
    return ",".join(str(channel) for channel in (*_rgb(color), 255))


def _darker(color: str) -> str:
    return "#" + "".join(f"{round(channel * _OUTLINE_SHARE):02x}" for channel in _rgb(color))
