"""Class maps that are hard to trace, and independent answers to compare their polygons with: GDAL, Shapely."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import rasterio.features
import shapely
import shapely.geometry
from affine import Affine
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from geoseg.vector.blocks import BlockPixels, Blocks, trace_blocks
from geoseg.vector.join import Coverage, join
from geoseg.vector.trace import BACKGROUND

NONE = 255

sizes = st.sampled_from([1, 2, 3, 5, 7, 8, 11, 13])
class_maps = st.tuples(sizes, sizes).flatmap(
    lambda shape: hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 2, NONE]))
)


def coverage_of(class_map: NDArray[np.uint8], blocks: Blocks) -> Coverage:
    codes = np.where(class_map == NONE, BACKGROUND, class_map.astype(np.int32))
    return join(trace_blocks(lambda window: BlockPixels(codes[window.slices]), blocks))


def without_collinear(polygon: shapely.Polygon) -> shapely.Polygon:
    """The same polygon, normalized, with no vertex on a straight line."""
    rings = [_corners(ring) for ring in (polygon.exterior, *polygon.interiors)]
    return shapely.normalize(shapely.Polygon(rings[0], rings[1:]))


def _corners(ring: shapely.LinearRing) -> NDArray[np.float64]:
    points = np.asarray(ring.coords)[:-1]
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    turn = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    return points[np.abs(turn) > 1e-9]


def gdal_polygons(class_map: NDArray[np.integer], background: int) -> list[tuple[int, str]]:
    """Class and polygon (in pixels, without collinear points) of each 4-connected area, sorted."""
    shapes = rasterio.features.shapes(class_map.astype(np.int32), mask=class_map != background, connectivity=4)
    return keys((int(value), shapely.geometry.shape(geometry)) for geometry, value in shapes)


def keys(features: Iterable[tuple[int, shapely.Polygon]]) -> list[tuple[int, str]]:
    """Features as sorted texts, equal where classes and polygons are."""
    return sorted((int(value), without_collinear(polygon).wkt) for value, polygon in features)


def _at(transform: Affine, col: float, row: float) -> tuple[float, float]:
    return (
        transform.a * col + transform.b * row + transform.c,
        transform.d * col + transform.e * row + transform.f,
    )


def pixel_polygons(class_map: NDArray[np.integer], class_id: int, transform: Affine) -> shapely.Geometry:
    """The union of the squares of all pixels of a class."""
    squares = [
        shapely.Polygon([_at(transform, c + i, r + j) for i, j in ((0, 0), (1, 0), (1, 1), (0, 1))])
        for r, c in np.argwhere(class_map == class_id)
    ]
    return shapely.union_all(squares)


def spiral(size: int) -> NDArray[np.uint8]:
    """A path of 1 that winds inwards, one pixel of 0 between its turns."""
    out = np.zeros((size, size), np.uint8)
    row, col, direction = 0, 0, 0
    steps = ((0, 1), (1, 0), (0, -1), (-1, 0))
    length, turns = size - 1, 0
    out[0, 0] = 1
    while length > 0:
        for _ in range(length):
            row, col = row + steps[direction][0], col + steps[direction][1]
            out[row, col] = 1
        direction, turns = (direction + 1) % 4, turns + 1
        if turns >= 3 and turns % 2 == 1:
            length -= 2
    return out


def donut_with_islands() -> NDArray[np.uint8]:
    out = np.zeros((13, 13), np.uint8)
    out[1:12, 1:12] = 1
    out[3:10, 3:10] = NONE
    out[4:9, 4:9] = 2
    out[5:8, 5:8] = 1
    out[6, 6] = NONE
    return out


def same_class_touching_itself_across_a_hole() -> NDArray[np.uint8]:
    return np.array([[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0]], np.uint8)


CASES = {
    "spiral": spiral(17),
    "donut with islands in holes": donut_with_islands(),
    "checkerboard": (np.indices((9, 10)).sum(0) % 2).astype(np.uint8),
    "checkerboard on nodata": np.where(np.indices((9, 10)).sum(0) % 2, 1, NONE).astype(np.uint8),
    "diagonal touch of one class": np.array([[1, 0], [0, 1]], np.uint8),
    "holes that touch each other and the outside": same_class_touching_itself_across_a_hole(),
    "ring open at a corner": np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], np.uint8),
    "nodata hole": np.array([[1, 1, 1], [1, NONE, 1], [1, 1, 1]], np.uint8),
    "one class": np.full((7, 11), 3, np.uint8),
    "one pixel": np.zeros((1, 1), np.uint8),
    "one row": np.array([[1, 1, 2, NONE, 2, 1]], np.uint8),
    "one column": np.array([[1, 1, 2, NONE, 2, 1]], np.uint8).T,
}
