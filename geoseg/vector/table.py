"""The table of polygons: one row per component, with the columns that every format carries."""

from __future__ import annotations

from typing import Any, NamedTuple

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.legend import Selection
from geoseg.vector.coding import Coding
from geoseg.vector.join import Coverage, Lines, sum_components
from geoseg.vector.levels import percentile, sum_levels
from geoseg.vector.measure import Ground, measure
from geoseg.vector.rings import build_polygons
from geoseg.vector.runs import Components

LOW_SHARE = 0.1
"""Of a polygon's pixels: `confidence_p10` is what this share of them does not exceed."""


class PolygonTable(NamedTuple):
    """Polygons and the classes they may be of.

    Attributes:
        polygons: columns class_id, class_name, area_m2, perimeter_m (area_px alone without a CRS), confidence
            and confidence_p10 where known, geometry; ordered by the first pixel of each, in row-major order.
        selections: the classes and groups asked for, polygons or none; without a legend, those that were found.
        regularized: polygons that were to be regularized.
        fallbacks: those of them that would have fitted poorly, and were simplified only.
    """

    polygons: gpd.GeoDataFrame
    selections: tuple[Selection, ...]
    regularized: int = 0
    fallbacks: int = 0


def polygon_table(
    coverage: Coverage,
    coding: Coding,
    ground: Ground,
    *,
    confidence_one: int | None,
    min_area_m2: float,
    lines: Lines | None = None,
    groups: NDArray[np.int64] | None = None,
) -> PolygonTable:
    """The components of a coverage as polygons with attributes; small ones are left out only now.

    Args:
        coverage: components and arcs of the whole raster.
        coding: what the components' codes mean.
        ground: where the raster lies.
        confidence_one: the confidence units that are 1.0; None where no confidence was read.
        min_area_m2: smallest area to keep.
        lines: the points of the arcs where these were shaped; areas are then those of the polygons, not of the pixels.
        groups: (components,) which of them are one row, a multipolygon; None for a row each.
    """
    check_min_area(min_area_m2, ground)
    components = coverage.components
    selections = coding.selections_of(components.code)
    names = {selection.id: selection.name for selection in selections}
    geometry = build_polygons(coverage, ground.transform, lines)
    pixels = components.pixels if lines is None else shapely.area(geometry) / abs(ground.transform.determinant)
    sizes: dict[str, NDArray[Any]] = {"area_px": pixels}
    if ground.crs is not None:
        area, perimeter = measure(geometry, pixels, ground)
        sizes = {"area_m2": area, "perimeter_m": perimeter}
    levels = coverage.levels
    if groups is not None:
        count = int(groups.max(initial=-1)) + 1
        order = np.argsort(groups, kind="stable")
        geometry = np.asarray(shapely.multipolygons(geometry[order], indices=groups[order]), dtype=object)
        sizes = {name: np.bincount(groups, values, count).astype(values.dtype) for name, values in sizes.items()}
        components = sum_components([components], groups)
        levels = None if levels is None else sum_levels(levels, groups, count)
    columns: dict[str, object] = {
        "class_id": components.code,
        "class_name": pd.Series([names[code] for code in components.code.tolist()], dtype=object),
        **sizes,
    }
    if confidence_one is not None:
        columns["confidence"] = _mean_confidence(components, confidence_one)
    if levels is not None:
        columns["confidence_p10"] = percentile(levels, LOW_SHARE)
    polygons = gpd.GeoDataFrame(columns, geometry=geometry, crs=ground.crs)
    large = next(iter(sizes.values())) >= min_area_m2
    return PolygonTable(polygons[large].reset_index(drop=True), selections)


def check_min_area(min_area_m2: float, ground: Ground) -> None:
    """Refuse an area in square metres that is negative, or asked of a raster that has none.

    Raises:
        InputError: with the remedy.
    """
    if not min_area_m2 >= 0:
        raise InputError(f"The smallest area to keep is 0 square metres or more, not {min_area_m2}.")
    if min_area_m2 > 0 and ground.crs is None:
        raise InputError(
            f"Polygons of {min_area_m2:g} square metres were asked for, but the raster has no CRS, so that its areas "
            "are in pixels; give it one (gdal_edit.py -a_srs EPSG:...), or leave the smallest area out."
        )


def _mean_confidence(components: Components, one: int) -> NDArray[np.float64]:
    """Mean over the pixels that have one, 0..1; NaN where none has."""
    known = components.confidence_count
    total = np.where(known > 0, components.confidence_sum, np.nan)
    return np.asarray(total / (np.maximum(known, 1) * float(one)), dtype=np.float64)
