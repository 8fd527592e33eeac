"""The table of polygons: one row per component, with the columns that every format carries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyproj
import shapely
from affine import Affine
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.legend import Selection
from geoseg.vector.coding import Coding
from geoseg.vector.join import Coverage, Lines, sum_components
from geoseg.vector.levels import percentile, sum_levels
from geoseg.vector.measure import Ground, measure, planar
from geoseg.vector.ragged import Ragged, members_of
from geoseg.vector.rings import Rings
from geoseg.vector.runs import Components

POINTS = 1 << 21
"""Points of the polygons that are built at once, to be measured and then to be written: 32 MB, and as much as WKB."""

KEPT = 1 << 23
"""Points of all polygons, up to which these are built once and kept."""

GEOMETRY = "geometry"  # name of its column

LOW_SHARE = 0.1
"""Of a polygon's pixels: `confidence_p10` is what this share of them does not exceed."""


@dataclass(frozen=True)
class Geometries:
    """Polygons that are built when they are asked for, so that not all need be there at once.

    Attributes:
        rings: of each component.
        transform: pixel to CRS coordinates.
        members: (components,) which of them are parts of which row, row after row; None where row and component are
            one.
        offsets: (rows + 1,) where each row's members begin.
    """

    rings: Rings
    transform: Affine
    members: NDArray[np.int64] | None
    offsets: NDArray[np.int64]

    def build(self, rows: NDArray[np.int64]) -> Ragged:
        """Polygons of some rows, or multipolygons where members are grouped; few in all are built once and kept."""
        return self._all.picked(rows) if int(self._points.sum()) <= KEPT else self._built(rows)

    def parts(self, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """The rows in parts that are built at once; one part at least."""
        ends = np.cumsum(self._points[rows])
        return list(np.split(rows, np.flatnonzero(np.diff(ends // POINTS)) + 1))

    @cached_property
    def _points(self) -> NDArray[np.int64]:
        """(rows,) points of each row; see `Rings.points`."""
        points = self.rings.points if self.members is None else self.rings.points[self.members]
        total = np.concatenate([[0], np.cumsum(points)])
        return np.diff(total[self.offsets])

    @cached_property
    def _all(self) -> Ragged:
        return self._built(np.arange(self.offsets.size - 1))

    def _built(self, rows: NDArray[np.int64]) -> Ragged:
        if self.members is None:
            return self.rings.polygons(self.transform, rows)
        ends, which = members_of(self.offsets, rows)
        return replace(self.rings.polygons(self.transform, self.members[which]), rows=ends)


@dataclass(frozen=True)
class Piece:
    """Some polygons with their attributes.

    Attributes:
        columns: of each polygon.
        geometry: of each, as arrays or as shapely has them.
        crs: of the geometry.
    """

    columns: pd.DataFrame
    geometry: Ragged | NDArray[np.object_]
    crs: pyproj.CRS | None

    @classmethod
    def of_frame(cls, polygons: gpd.GeoDataFrame) -> Self:
        return cls(pd.DataFrame(polygons.drop(columns=GEOMETRY)), polygons.geometry.to_numpy(), polygons.crs)

    def with_columns(self, columns: Mapping[str, Any]) -> Piece:
        return replace(self, columns=self.columns.assign(**columns))

    @property
    def frame(self) -> gpd.GeoDataFrame:
        shapes = self.geometry.shapes() if isinstance(self.geometry, Ragged) else self.geometry
        return gpd.GeoDataFrame(self.columns, geometry=shapes, crs=self.crs)

    @property
    def table(self) -> pa.Table:
        """With the geometry as well-known binary; the same types for no rows as for many."""
        table = pa.Table.from_pandas(self.columns, preserve_index=False)
        fields = [field.with_type(pa.string()) if pa.types.is_null(field.type) else field for field in table.schema]
        shapes = self.geometry
        wkb = shapes.wkb() if isinstance(shapes, Ragged) else pa.array(shapely.to_wkb(shapes), pa.large_binary())
        return table.cast(pa.schema(fields)).append_column(GEOMETRY, wkb)


@dataclass(frozen=True)
class PolygonTable:
    """Polygons and the classes they may be of.

    Attributes:
        attributes: columns class_id, class_name, area_m2, perimeter_m (area_px alone without a CRS), confidence and
            confidence_p10 where known; ordered by the first pixel of each, in row-major order.
        rows: (polygons,) which row of `geometries` each is.
        geometries: of the polygons and of those left out.
        crs: of the geometries.
        selections: the classes and groups asked for, polygons or none; without a legend, those that were found.
        regularized: polygons that were to be regularized.
        fallbacks: those of them that would have fitted poorly, and were simplified only.
    """

    attributes: pd.DataFrame
    rows: NDArray[np.int64]
    geometries: Geometries
    crs: pyproj.CRS | None
    selections: tuple[Selection, ...]
    regularized: int = 0
    fallbacks: int = 0

    @cached_property
    def polygons(self) -> gpd.GeoDataFrame:
        """All of them."""
        return self._built(np.arange(self.rows.size)).frame

    def pieces(self, class_name: str | None = None) -> Iterator[Piece]:
        """Those of one class, or all, a part after the other; one without rows where there are none."""
        chosen = np.arange(self.rows.size)
        if class_name is not None:
            chosen = np.flatnonzero(self.attributes["class_name"] == class_name)
        for rows in self.geometries.parts(self.rows[chosen]):
            yield self._built(np.searchsorted(self.rows, rows))

    def _built(self, which: NDArray[np.int64]) -> Piece:
        columns = self.attributes.iloc[which].reset_index(drop=True)
        return Piece(columns, self.geometries.build(self.rows[which]), self.crs)


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
    selections = coding.selections_of(coverage.components.code)
    names = {selection.id: selection.name for selection in selections}
    geometries = _geometries(coverage, ground, lines, groups)
    components, levels = coverage.components, coverage.levels
    if groups is not None:
        components = sum_components([components], groups)
        levels = None if levels is None else sum_levels(levels, groups, components.code.size)
    sizes = _sizes(geometries, components, ground, shaped=lines is not None)
    columns: dict[str, object] = {
        "class_id": components.code,
        "class_name": pd.Series([names[code] for code in components.code.tolist()], dtype=object),
        **sizes,
    }
    if confidence_one is not None:
        columns["confidence"] = _mean_confidence(components, confidence_one)
    if levels is not None:
        columns["confidence_p10"] = percentile(levels, LOW_SHARE)
    large = np.flatnonzero(next(iter(sizes.values())) >= min_area_m2)
    attributes = pd.DataFrame(columns).iloc[large].reset_index(drop=True)
    return PolygonTable(attributes, large, geometries, ground.crs, selections)


def _geometries(
    coverage: Coverage, ground: Ground, lines: Lines | None, groups: NDArray[np.int64] | None
) -> Geometries:
    count = coverage.components.code.size
    if groups is None:
        return Geometries(Rings.of(coverage, lines), ground.transform, None, np.arange(count + 1))
    members = np.argsort(groups, kind="stable")
    offsets = np.searchsorted(groups[members], np.arange(int(groups.max(initial=-1)) + 2))
    return Geometries(Rings.of(coverage, lines), ground.transform, members, offsets)


def _sizes(geometries: Geometries, components: Components, ground: Ground, *, shaped: bool) -> dict[str, NDArray[Any]]:
    """Areas and perimeters of all rows, which are built for that a part after the other."""
    names = ("area_px",) if ground.crs is None else ("area_m2", "perimeter_m")
    found: list[tuple[NDArray[Any], ...]] = []
    for rows in geometries.parts(np.arange(components.code.size)):
        pixels: NDArray[Any] = components.pixels[rows]
        geometry = geometries.build(rows)
        if shaped:
            pixels = geometry.areas() / abs(ground.transform.determinant)
        if ground.crs is None:
            found.append((pixels,))
        elif ground.is_geodesic:
            found.append(measure(geometry.shapes(), pixels, ground))
        else:
            found.append(planar(pixels, geometry.perimeters(), ground))
    return {name: np.concatenate(parts) for name, parts in zip(names, zip(*found, strict=True), strict=True)}


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
