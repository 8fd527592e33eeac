"""LabelReader: reference classes of any window of a scene's grid, from a class raster or from polygons with a class.

Labels are codes: first the classes of a legend in its order (the channels of a network), then its groups. A group is a
partial label: one of its classes, unknown which. UNLABELLED is where nothing is known, outside the scene too.

No answer depends on the window that was asked for. A raster on another grid gives each pixel the value at its center,
worked out from the pixel's absolute position; polygons are burnt tile by tile of a fixed lattice.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Protocol

from affine import Affine
from rasterio.crs import CRS

from geoseg.grid import Window
from geoseg.legend import Legend
from geoseg.raster.label_codes import UNLABELLED, Codes, LabelCodes, LabelOptions, Place
from geoseg.raster.label_polygons import PolygonLabels, find_layer
from geoseg.raster.label_raster import RasterLabels

__all__ = ["UNLABELLED", "LabelCodes", "LabelOptions", "LabelReader", "open_labels"]


class LabelReader(Protocol):
    """Labels on a scene's grid; picklable, holds paths only, and may be called from any thread or process.

    Attributes:
        codes: what the codes stand for.
        extent: pixels of the scene that hold all labels; may be a little larger than needed.
        told: what was done to the labels that a reader of the scores should know, as sentences.
    """

    @property
    def codes(self) -> LabelCodes: ...

    @property
    def extent(self) -> Window: ...

    @property
    def told(self) -> tuple[str, ...]: ...

    def __call__(self, window: Window) -> Codes:
        """(height, width) label codes of any window; UNLABELLED beyond the scene.

        Raises:
            InputError: a label value there is no class of the legend.
            GeosegError: the file could not be read.
        """


def open_labels(
    path: str | os.PathLike[str],
    legend: Legend,
    *,
    shape: tuple[int, int],
    transform: Affine,
    crs: CRS | None,
    options: LabelOptions | None = None,
) -> LabelReader:
    """Labels of a scene, from a class raster or a vector file; on another grid or in another CRS too.

    Values are matched to the legend thus: as `options.meanings` says; else by the name that a text column, or the
    raster's own legend or categories, gives them; else, where no meanings are stated, numbers are ids of the legend.
    Where polygons overlap, the one later in the file counts;
    one without a class is unlabelled.

    Args:
        path: class raster (one band of integers), GeoPackage, FlatGeobuf, Shapefile, GeoJSON or GeoParquet;
            `labels.gpkg:fields` is the layer `fields` of a file that has several.
        legend: of the classes that the labels speak of.
        shape: rows and columns of the scene.
        transform: of the scene.
        crs: of the scene; None where neither has one.
        options: what the file does not say.

    Raises:
        InputError: the file cannot be read, holds a class that the legend does not have, has no CRS though the scene
            has one, or misses the scene.
    """
    options, place, codes = options or LabelOptions(), Place(shape, transform, crs), LabelCodes.of(legend)
    if options.tells_other:
        codes = codes.with_other(())  # which channels it allows shows when the labels are known
    stated = [*(options.meanings or {}).values(), *([options.elsewhere] if options.elsewhere else [])]
    named = [codes.code(name) for name in stated]
    layer = find_layer(path)
    reader: RasterLabels | PolygonLabels
    if layer is None:
        reader = RasterLabels.of(path, codes, place, options)
    else:
        reader = PolygonLabels.of(layer, codes, place, options)
    if not options.tells_other:
        return reader
    told = [*named, *(code for _, code in reader.table)]
    return replace(reader, codes=LabelCodes.of(legend).with_other(told))
