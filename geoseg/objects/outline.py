"""Objects as polygons: traced block by block from what a painter gives, shaped as in `geoseg.vector`, measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import geopandas as gpd
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoseg.grid import Window
from geoseg.objects.paint import BLOCK, NOTHING, Objects
from geoseg.vector.blocks import BlockPixels, Blocks, Progress, trace_blocks
from geoseg.vector.clean import component_areas
from geoseg.vector.coding import Coding
from geoseg.vector.join import Coverage, join
from geoseg.vector.measure import Ground
from geoseg.vector.shape import Shaping, check_tolerance, shape
from geoseg.vector.table import check_min_area, polygon_table
from geoseg.vector.trace import BACKGROUND


@dataclass(frozen=True, slots=True)
class OutlineOptions:
    """Which objects get a polygon, and of what shape.

    Attributes:
        min_area_m2: smaller objects are left out.
        simplify_m: tolerance of simplifying in metres; objects that touch keep their shared border.
        regularize: straight walls and right angles.
    """

    min_area_m2: float = 0.0
    simplify_m: float = 0.0
    regularize: bool = False

    def check(self, ground: Ground) -> None:
        """Refuse what is negative, or in metres where there are none.

        Raises:
            InputError: with the remedy.
        """
        check_min_area(self.min_area_m2, ground)
        check_tolerance(self.simplify_m, ground)


class Traced(NamedTuple):
    """Objects and their outlines along pixel edges; the components of the coverage are the objects, in order."""

    objects: Objects
    coverage: Coverage


class Outlines(NamedTuple):
    """Polygons of objects.

    Attributes:
        polygons: columns id, class_id, class_name, score, area_m2, perimeter_m (area_px alone without a CRS),
            confidence, geometry; in the order of ids.
        regularized: polygons that were to be regularized.
        fallbacks: those of them that would have fitted poorly, and were simplified only.
    """

    polygons: gpd.GeoDataFrame
    regularized: int = 0
    fallbacks: int = 0


def trace(objects: Objects, ground: Ground, *, min_area_m2: float = 0.0, progress: Progress | None = None) -> Traced:
    """The outlines of all objects that are large enough, which are numbered anew."""
    coverage = _coverage(objects, ground, progress)
    if not min_area_m2:
        return Traced(objects, coverage)
    kept = component_areas(coverage, ground) >= min_area_m2
    objects = objects.only(kept)
    return Traced(objects, coverage if kept.all() else _coverage(objects, ground, None))


def _coverage(objects: Objects, ground: Ground, progress: Progress | None) -> Coverage:
    def read(window: Window) -> BlockPixels:
        ids = objects.paint(window)
        return BlockPixels(np.where(ids == NOTHING, np.int32(BACKGROUND), ids))

    coverage = join(trace_blocks(read, Blocks.regular(ground.shape, BLOCK), progress))
    if coverage.components.code.tolist() != objects.table["id"].tolist():
        raise ValueError("objects are not one 4-connected part each, numbered by their first pixels")
    return coverage


def outline(traced: Traced, ground: Ground, options: OutlineOptions) -> Outlines:
    """The polygons of traced objects."""
    table = traced.objects.table
    drawn = draw(traced.coverage, ground, options, straight=table["id"].to_numpy(np.int32))
    columns = {name: table[name] for name in ("id", "class_id", "class_name", "score")}
    return drawn._replace(polygons=with_columns(drawn.polygons, columns, table["confidence"]))


def draw(coverage: Coverage, ground: Ground, options: OutlineOptions, *, straight: NDArray[np.int32]) -> Outlines:
    """The polygons of a coverage with nothing but their sizes.

    Args:
        coverage: components and arcs.
        ground: where they lie.
        options: their shape; the smallest area plays no part.
        straight: codes of what may get straight walls.
    """
    codes = tuple(straight.tolist()) if options.regularize else ()
    shaping = Shaping(options.simplify_m, (), codes)
    shaped = None if shaping.is_nothing else shape(coverage, ground, shaping)
    lines = None if shaped is None else shaped.lines
    table = polygon_table(coverage, Coding(None), ground, confidence_one=None, min_area_m2=0.0, lines=lines)
    polygons = table.polygons.drop(columns=["class_id", "class_name"])
    return Outlines(polygons) if shaped is None else Outlines(polygons, shaped.regularized, shaped.fallbacks)


def with_columns(sizes: gpd.GeoDataFrame, columns: Mapping[str, pd.Series], confidence: pd.Series) -> gpd.GeoDataFrame:
    """Polygons with what is known of them: columns, sizes, confidence, geometry."""
    measured = {name: sizes[name] for name in sizes.columns if name != sizes.geometry.name}
    told = {**columns, **measured, "confidence": confidence}
    return gpd.GeoDataFrame(told, geometry=sizes.geometry, crs=sizes.crs)
