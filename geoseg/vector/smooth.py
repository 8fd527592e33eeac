"""Smooth the arcs of a coverage: borders without staircases, still shared.

Corners are cut, in rounds (Chaikin 1974). In the first, an edge between a left and a right turn is a step of a
staircase and is cut in its middle: the middles of a regular staircase lie on one straight line, so that it is gone at
once. Other edges are cut at a quarter. Cuts reach 4 px along an edge beside a step, else 2 px: a border moves by less
than 1.5 px. What is cut off at a left turn comes back at the next right turn, so that areas stay but for the tips.

A corner stays where another point lies in what would be cut off: nothing comes to cross. Junctions stay. Cuts are at
halves, quarters, eighths ... of an edge, so that coordinates stay exact numbers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geoseg.vector.join import Lines
from geoseg.vector.kernels import compiled
from geoseg.vector.nearby import PointIndex, index_points, is_free, turn

MOVED_PX = 1.5
"""No border moves by more than this, in pixels."""

_ROUNDS = 3
_STEP, _BESIDE_STEP, _REACH = 2.0, 4.0, 2.0  # pixels: longest step, longest cut beside one, longest cut elsewhere


def smooth(lines: Lines, loops: NDArray[np.bool_], chosen: NDArray[np.bool_], frame: tuple[int, int]) -> Lines:
    """The arcs with some of them smoothed, in the same order and directions.

    Args:
        lines: points of the arcs, which do not cross.
        loops: (arcs,) closed arcs on which no junction lies.
        chosen: (arcs,) those to be smoothed.
        frame: rows and columns of the raster; points on its edge stay.
    """
    points, offsets = lines.points.astype(np.float64), lines.offsets
    for turn_number in range(_ROUNDS):
        fixed = on_frame(points, frame)
        points, offsets = _round(points, offsets, loops, chosen, fixed, turn_number == 0, index_points(points))
    return Lines(points, offsets)


def on_frame(points: NDArray[np.float64], frame: tuple[int, int]) -> NDArray[np.bool_]:
    """(points,) those on the edge of a raster of so many rows and columns."""
    return np.asarray(((points == 0) | (points == np.array(frame))).any(1))


@compiled
def _round(
    points: NDArray[np.float64],
    offsets: NDArray[np.int64],
    loops: NDArray[np.bool_],
    chosen: NDArray[np.bool_],
    fixed: NDArray[np.bool_],
    stairs: bool,
    index: PointIndex,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Cut each corner once."""
    out, out_offsets = np.empty((2 * len(points) + offsets.size, 2)), np.zeros_like(offsets)
    alive = np.ones(len(points), np.bool_)
    for arc in range(loops.size):
        if loops[arc]:
            alive[offsets[arc + 1] - 1] = False  # its first point again
    count = 0
    for arc in range(loops.size):
        begin, last = offsets[arc], offsets[arc + 1] - 1
        start = count
        for at in range(begin, last + (0 if loops[arc] else 1)):
            inner = loops[arc] or begin < at < last
            if not chosen[arc] or not inner or fixed[at]:
                count = _append(out, start, count, points[at, 0], points[at, 1])
                continue
            around = _around(at, begin, last, loops[arc])
            count = _cut(points, around, stairs, index, alive, (out, start, count))
        if loops[arc]:
            if count > start + 1 and out[count - 1, 0] == out[start, 0] and out[count - 1, 1] == out[start, 1]:
                count -= 1
            out[count] = out[start]
            count += 1
        out_offsets[arc + 1] = count
    return out[:count].copy(), out_offsets


@compiled
def _around(at: int, begin: int, last: int, loop: bool) -> tuple[int, int, int, int, int]:
    """A corner and the two points on each of its sides; -1 beyond the end of an arc."""
    size = last - begin
    if loop:
        at -= begin
        return (
            begin + (at - 2) % size,
            begin + (at - 1) % size,
            begin + at,
            begin + (at + 1) % size,
            begin + (at + 2) % size,
        )
    return at - 2 if at - 2 >= begin else -1, at - 1, at, at + 1, at + 2 if at + 2 <= last else -1


@compiled
def _cut(
    points: NDArray[np.float64],
    around: tuple[int, int, int, int, int],
    stairs: bool,
    index: PointIndex,
    alive: NDArray[np.bool_],
    out: tuple[NDArray[np.float64], int, int],
) -> int:
    """Append the two points that replace a corner, or the corner if they cannot; the new point count."""
    far_before, before, at, after, far_after = around
    line, start, count = out
    here = turn(points, before, at, after)
    in_length = np.hypot(points[at, 0] - points[before, 0], points[at, 1] - points[before, 1])
    out_length = np.hypot(points[at, 0] - points[after, 0], points[at, 1] - points[after, 1])
    in_step = stairs and (far_before < 0 or turn(points, far_before, before, at) * here < 0)
    out_step = stairs and (far_after < 0 or turn(points, at, after, far_after) * here < 0)
    in_part = _part(in_step, in_length, _BESIDE_STEP if stairs and out_length <= _STEP else _REACH)
    out_part = _part(out_step, out_length, _BESIDE_STEP if stairs and in_length <= _STEP else _REACH)
    first = _between(points, at, before, in_part)
    second = _between(points, at, after, out_part)
    if here == 0 or not is_free(points, alive, index, at, (first, second)):
        return int(_append(line, start, count, points[at, 0], points[at, 1]))
    count = _append(line, start, count, first[0], first[1])
    return int(_append(line, start, count, second[0], second[1]))


@compiled
def _part(step: bool, length: float, reach: float) -> float:
    """Which part of an edge to cut off: at most a half of a step or a quarter of another, and no more than `reach`."""
    part = 0.5 if step else 0.25
    while part * length > reach:
        part /= 2
    return part


@compiled
def _between(points: NDArray[np.float64], start: int, end: int, part: float) -> tuple[float, float]:
    return (
        points[start, 0] + part * (points[end, 0] - points[start, 0]),
        points[start, 1] + part * (points[end, 1] - points[start, 1]),
    )


@compiled
def _append(out: NDArray[np.float64], start: int, count: int, row: float, col: float) -> int:
    """Add a point to the line that begins at `start`, unless it is there already; the new point count."""
    if count > start and out[count - 1, 0] == row and out[count - 1, 1] == col:
        return count
    out[count, 0], out[count, 1] = row, col
    return count + 1
