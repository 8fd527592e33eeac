"""Where the points of a coverage are: is a triangle free of them?

In lines that do not cross, cutting a corner (a, b, c) short to (a, c) crosses nothing if no other point lies in the
triangle: a line that came in through (a, c) would have to end in it, or to leave it through the corner's own sides.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoseg.vector.kernels import compiled

_BAND = 2.0  # rows


class PointIndex(NamedTuple):
    """Points sorted by bands of rows, and by column within them.

    Attributes:
        key: (points,) sorted: band * width + column.
        order: (points,) the point of each key.
        width: more than any column.
    """

    key: NDArray[np.float64]
    order: NDArray[np.int64]
    width: float


def index_points(points: NDArray[Any]) -> PointIndex:
    """An index of (points, 2) rows and columns, none of which is negative."""
    width = float(np.ceil(points[:, 1].max(initial=0.0))) + 2.0
    key = np.floor(points[:, 0] / _BAND) * width + points[:, 1]
    order = np.argsort(key, kind="stable")
    return PointIndex(key[order], order, width)


@compiled
def turn(points: NDArray[np.float64], a: int, b: int, c: int) -> float:
    """Twice the area of a triangle, positive where (row, column) turn from row to column axis."""
    first_row, first_col = points[b, 0] - points[a, 0], points[b, 1] - points[a, 1]
    second_row, second_col = points[c, 0] - points[a, 0], points[c, 1] - points[a, 1]
    return float(first_row * second_col - first_col * second_row)


@compiled
def is_free(
    points: NDArray[np.float64],
    alive: NDArray[np.bool_],
    index: PointIndex,
    corner: int,
    ends: tuple[tuple[float, float], tuple[float, float]],
) -> bool:
    """Whether no other living point lies in the triangle of a corner and two ends, its sides included.

    Points that lie where the ends are do not count: they are the ends themselves, or others at their junction.
    """
    (a_row, a_col), (c_row, c_col) = ends
    b_row, b_col = points[corner, 0], points[corner, 1]
    area = (b_row - a_row) * (c_col - a_col) - (b_col - a_col) * (c_row - a_row)
    low_row, high_row = min(a_row, b_row, c_row), max(a_row, b_row, c_row)
    low_col, high_col = min(a_col, b_col, c_col), max(a_col, b_col, c_col)
    for band in range(int(np.floor(low_row / _BAND)), int(np.floor(high_row / _BAND)) + 1):
        at = np.searchsorted(index.key, band * index.width + low_col)
        stop = band * index.width + high_col
        while at < index.key.size and index.key[at] <= stop:
            point = index.order[at]
            at += 1
            row, col = points[point, 0], points[point, 1]
            if not alive[point] or point == corner or row < low_row or row > high_row:
                continue
            if (row == a_row and col == a_col) or (row == c_row and col == c_col):
                continue
            first = (b_row - a_row) * (col - a_col) - (b_col - a_col) * (row - a_row)
            second = (c_row - b_row) * (col - b_col) - (c_col - b_col) * (row - b_row)
            third = (a_row - c_row) * (col - c_col) - (a_col - c_col) * (row - c_row)
            if area < 0:
                first, second, third = -first, -second, -third
            if first >= 0 and second >= 0 and third >= 0:
                return False
    return True
