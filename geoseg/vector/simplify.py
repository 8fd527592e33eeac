"""Simplify the arcs of a coverage: fewer points, the same neighbours.

Each arc loses the points whose triangle with the points before and after is smallest, up to the square of the
tolerance (Visvalingam and Whyatt 1993, the rule of `shapely.coverage_simplify`). Junctions stay. An arc is simplified
once for the polygons on both of its sides, so that they share it; a point stays while another one lies in its triangle,
so that nothing comes to cross. And a point stays if without it more area would pass from one side of the arc to the
other than a tenth of the tolerance times the arc's length: polygons neither shrink nor grow by more than a tenth of the
tolerance times their border.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoseg.vector.join import Lines
from geoseg.vector.kernels import compiled
from geoseg.vector.nearby import PointIndex, index_points, is_free, turn

SHARE = 0.1
"""Of tolerance times length: the area that may pass from one side of an arc to the other."""


class Limits(NamedTuple):
    """How far each arc may be simplified, in pixels.

    Attributes:
        area: (arcs,) triangles up to this many square pixels are cut; an arc with 0 stays as it is.
        passing: (arcs,) square pixels that may pass from one side to the other.
    """

    area: NDArray[np.float64]
    passing: NDArray[np.float64]


class _Work(NamedTuple):
    points: NDArray[np.float64]  # (points, 2)
    before: NDArray[np.int64]  # (points,) the point before in the arc
    after: NDArray[np.int64]
    alive: NDArray[np.bool_]  # (points,)
    area: NDArray[np.float64]  # (points,) of the triangle; -1 for points that stay


def simplify(lines: Lines, loops: NDArray[np.bool_], fixed: NDArray[np.bool_], limits: Limits) -> Lines:
    """The arcs with fewer points, in the same order and directions.

    Args:
        lines: points of the arcs, which do not cross.
        loops: (arcs,) closed arcs on which no junction lies; any of their points may go.
        fixed: (points,) points that stay; ends of arcs that are no loops stay in any case.
        limits: how far.
    """
    points = lines.points.astype(np.float64)
    count = len(points)
    work = _Work(points, np.arange(count) - 1, np.arange(count) + 1, np.ones(count, np.bool_), np.full(count, -1.0))
    pair, straight = _pairs(points, lines.offsets)
    _simplify(work, lines.offsets, loops, fixed, limits, pair, straight, index_points(points))
    return Lines(*_kept(work, lines.offsets, loops))


def _pairs(points: NDArray[np.float64], offsets: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The pair of ends of each arc as a number, and whether a straight arc joins that pair."""
    ends = np.stack([points[offsets[:-1]], points[offsets[1:] - 1]], axis=1)
    swapped = (ends[:, 0, 0] > ends[:, 1, 0]) | ((ends[:, 0, 0] == ends[:, 1, 0]) & (ends[:, 0, 1] > ends[:, 1, 1]))
    ends[swapped] = ends[swapped][:, ::-1]
    unique, pair = np.unique(ends.reshape(-1, 4), axis=0, return_inverse=True)
    straight = np.zeros(len(unique), np.bool_)
    straight[pair[np.diff(offsets) == 2]] = True
    return pair, straight


@compiled
def _simplify(
    work: _Work,
    offsets: NDArray[np.int64],
    loops: NDArray[np.bool_],
    fixed: NDArray[np.bool_],
    limits: Limits,
    pair: NDArray[np.int64],
    straight: NDArray[np.bool_],
    index: PointIndex,
) -> None:
    for arc in range(offsets.size - 1):
        begin, last = offsets[arc], offsets[arc + 1] - 1
        if loops[arc]:  # the last point is the first one
            work.alive[last] = False
            work.before[begin], work.after[last - 1] = last - 1, begin
    for arc in range(offsets.size - 1):
        begin, last = offsets[arc], offsets[arc + 1] - 1
        if limits.area[arc] <= 0:
            continue
        closed = work.points[begin, 0] == work.points[last, 0] and work.points[begin, 1] == work.points[last, 1]
        inner = (begin, last) if loops[arc] else (begin + 1, last)
        least = 3 if loops[arc] else 4 if closed else 2
        if not closed and straight[pair[arc]]:
            least = 3
        left = _cut_corners(
            work, inner, fixed, (limits.area[arc], limits.passing[arc]), last - begin + 1 - loops[arc], least, index
        )
        if left == 2:
            straight[pair[arc]] = True


@compiled
def _cut_corners(
    work: _Work,
    inner: tuple[int, int],
    fixed: NDArray[np.bool_],
    limit: tuple[float, float],
    size: int,
    least: int,
    index: PointIndex,
) -> int:
    """Drop points of one arc while it has more than `least`; how many it has then."""
    heap = [(np.inf, np.int64(-1))]
    for point in range(inner[0], inner[1]):
        if not fixed[point]:
            work.area[point] = abs(turn(work.points, work.before[point], point, work.after[point])) / 2
            heappush(heap, (work.area[point], np.int64(point)))
    passed = 0.0
    while size > least:
        area, corner = heappop(heap)
        point = int(corner)
        if area > limit[0]:
            break
        if not work.alive[point] or area != work.area[point]:
            continue
        before, after = work.before[point], work.after[point]
        change = turn(work.points, before, point, after) / 2
        ends = ((work.points[before, 0], work.points[before, 1]), (work.points[after, 0], work.points[after, 1]))
        if abs(passed + change) > limit[1] or not is_free(work.points, work.alive, index, point, ends):
            continue
        passed += change
        size -= 1
        work.alive[point] = False
        work.after[before], work.before[after] = after, before
        for other in (before, after):
            if work.area[other] >= 0:
                work.area[other] = abs(turn(work.points, work.before[other], other, work.after[other])) / 2
                heappush(heap, (work.area[other], other))
    return size


@compiled
def _kept(
    work: _Work, offsets: NDArray[np.int64], loops: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The points that are left; loops are closed again."""
    out, out_offsets = np.empty_like(work.points), np.zeros_like(offsets)
    count = 0
    for arc in range(offsets.size - 1):
        begin = count
        for point in range(offsets[arc], offsets[arc + 1]):
            if work.alive[point]:
                out[count] = work.points[point]
                count += 1
        if loops[arc]:
            out[count] = out[begin]
            count += 1
        out_offsets[arc + 1] = count
    return out[:count].copy(), out_offsets
