"""Do a land cover and its polygons look right in QGIS? Run by the Python that QGIS comes with.

    QT_QPA_PLATFORM=offscreen python3 benchmarks/qgis_map.py LANDCOVER.tif POLYGONS.gpkg MAP.png

Loads both as a user would, without a word about their styles, and compares the colors and names of the legends with
those in the raster's tags. Writes a picture: raster and polygons side by side, each with its legend.
"""

from __future__ import annotations

import json
import sys

from qgis.core import (
    QgsApplication,
    QgsLayout,
    QgsLayoutExporter,
    QgsLayoutItemLegend,
    QgsLayoutItemMap,
    QgsLayoutPoint,
    QgsLayoutSize,
    QgsPalettedRasterRenderer,
    QgsProject,
    QgsRasterLayer,
    QgsSingleSymbolRenderer,
    QgsUnitTypes,
    QgsVectorLayer,
)

SIDE_MM = 110


def main(landcover: str, polygons: str, picture: str) -> None:
    application = QgsApplication([], False)
    application.initQgis()
    project = QgsProject.instance()
    raster = QgsRasterLayer(landcover, "land cover")
    expect(raster.isValid(), True, f"{landcover} opens")
    legend = legend_of(raster)
    check_raster(raster, legend)
    layers = vector_layers(polygons)
    check_polygons(layers, legend)
    project.addMapLayer(raster)
    project.addMapLayers(layers)
    draw(project, [[raster], layers], picture)
    print(f"{picture}: {len(layers)} layers, {sum(layer.featureCount() for layer in layers)} polygons, legends right")
    application.exitQgis()


def legend_of(raster: QgsRasterLayer) -> dict[str, str]:
    """Colors by the name of class and group, from the tags; a group has the color of its first class."""
    from osgeo import gdal

    tags = gdal.Open(raster.source()).GetMetadata()
    colors: dict[str, str] = {}
    for entry in json.loads(tags["GEOSEG_LEGEND"])["classes"]:
        colors[entry["name"]] = entry["color"].lower()
        colors.setdefault(entry.get("group") or entry["name"], entry["color"].lower())
    return colors


def check_raster(raster: QgsRasterLayer, legend: dict[str, str]) -> None:
    renderer = raster.renderer()
    expect(isinstance(renderer, QgsPalettedRasterRenderer), True, "the raster has a palette")
    found = {one.label: one.color.name() for one in renderer.classes() if one.label in legend}
    expect(set(found), set(legend) & set(found), "names of classes")
    expect(len(found) >= len(legend) - 1, True, f"the palette names its classes: {sorted(found)}")
    expect(found, {name: legend[name] for name in found}, "colors of the raster")


def vector_layers(path: str) -> list[QgsVectorLayer]:
    """All layers with geometry, as QGIS lists them."""
    whole = QgsVectorLayer(path, "all", "ogr")
    names = [name.split("!!::!!")[1] for name in whole.dataProvider().subLayers()]
    layers = [QgsVectorLayer(f"{path}|layername={name}", name, "ogr") for name in names]
    return [layer for layer in layers if layer.isSpatial()]


def check_polygons(layers: list[QgsVectorLayer], legend: dict[str, str]) -> None:
    for layer in layers:
        expect(layer.isValid(), True, f"layer {layer.name()} opens")
        count, _, _, _, said = layer.listStylesInDatabase()
        expect(count >= 1, True, f"layer_styles has a style for {layer.name()} {said}")
        renderer = layer.renderer()  # the default style of the database, loaded with the layer
        if isinstance(renderer, QgsSingleSymbolRenderer):
            colors = {layer.name(): renderer.symbol().color().name()}
        else:
            colors = {one.label(): one.symbol().color().name() for one in renderer.categories()}
        expect(colors, {name: legend.get(name) for name in colors}, f"colors of layer {layer.name()}")
        expect(layer.hasSpatialIndex(), layer.SpatialIndexPresent, f"spatial index of {layer.name()}")


def draw(project: QgsProject, groups: list[list[object]], picture: str) -> None:
    layout = QgsLayout(project)
    layout.initializeDefaults()
    page = layout.pageCollection().page(0)
    page.setPageSize(QgsLayoutSize(2 * SIDE_MM + 30, SIDE_MM + 95, QgsUnitTypes.LayoutMillimeters))
    for column, layers in enumerate(groups):
        left = 10 + column * (SIDE_MM + 10)
        shown = QgsLayoutItemMap(layout)
        shown.attemptMove(QgsLayoutPoint(left, 10))
        shown.attemptResize(QgsLayoutSize(SIDE_MM, SIDE_MM))
        shown.setLayers(layers)
        shown.setExtent(groups[0][0].extent())
        layout.addLayoutItem(shown)
        legend = QgsLayoutItemLegend(layout)
        legend.setLinkedMap(shown)
        legend.setAutoUpdateModel(False)
        tree = legend.model().rootGroup()
        tree.clear()
        for layer in layers:
            tree.addLayer(layer)
        legend.attemptMove(QgsLayoutPoint(left, SIDE_MM + 12))
        legend.setColumnCount(3)
        layout.addLayoutItem(legend)
    settings = QgsLayoutExporter.ImageExportSettings()
    settings.dpi = 120
    settings.exportMetadata = False
    expect(QgsLayoutExporter(layout).exportToImage(picture, settings), QgsLayoutExporter.Success, "the map is drawn")


def expect(found: object, expected: object, what: str) -> None:
    if found != expected:
        sys.exit(f"{what}: {found}, not {expected}")


if __name__ == "__main__":
    main(*sys.argv[1:])
