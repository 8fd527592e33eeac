"""Objects as polygons: traced block by block from what a painter gives, shaped as in `geoseg.vector`, measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import geopandas as gpd
import numpy as np

from geoseg.grid import Window
from geoseg.objects.paint import NOTHING, Objects
from geoseg.vector.blocks import BlockPixels, Blocks, Progress, trace_blocks
from geoseg.vector.clean import component_areas
from geoseg.vector.coding import Coding
from geoseg.vector.join import Coverage, join
from geoseg.vector.measure import Ground
from geoseg.vector.shape import Shaping, check_tolerance, shape
from geoseg.vector.table import check_min_area, polygon_table
from geoseg.vector.trace import BACKGROUND

BLOCK = 2048  # rows and columns painted at once; the result does not depend on it


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
    coverage, table = traced.coverage, traced.objects.table
    codes = tuple(table["id"].tolist()) if options.regularize else ()
    shaping = Shaping(options.simplify_m, (), codes)
    shaped = None if shaping.is_nothing else shape(coverage, ground, shaping)
    measured = polygon_table(
        coverage,
        Coding(None),
        ground,
        confidence_one=None,
        min_area_m2=0.0,
        lines=None if shaped is None else shaped.lines,
    ).polygons
    sizes = [name for name in ("area_m2", "perimeter_m", "area_px") if name in measured]
    columns = {name: table[name] for name in ("id", "class_id", "class_name", "score")}
    columns |= {name: measured[name] for name in sizes} | {"confidence": table["confidence"]}
    polygons = gpd.GeoDataFrame(columns, geometry=measured.geometry, crs=ground.crs)
    return Outlines(polygons) if shaped is None else Outlines(polygons, shaped.regularized, shaped.fallbacks)
