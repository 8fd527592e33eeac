"""Straight walls for outlines of pixels: which edges they have, and where walls at right angles would run instead.

The corners of an outline are found first (Douglas and Peucker 1973). Each group of outlines that touch has one dominant
direction: the mean of its edges' directions modulo 90 degrees, weighted by their squared lengths. In its frame (u, v),
an edge along u is a wall that gives both of its corners one v, an edge along v one u; walls that share a corner and
run the same way are one. A wall lies where as much area passes from one of its sides to the other as back. So corners
are right angles, and what several outlines share they share afterwards, by construction. A long edge that runs askew is
no wall: its corners keep to the walls beside it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoseg.vector.join import Lines
from geoseg.vector.kernels import compiled, roots, union_pairs
from geoseg.vector.smooth import on_frame

_ASKEW = np.radians(18.0)  # beyond this, an edge runs askew
_WORN = 2.0  # times the tolerance: an edge that runs askew is a worn corner if the corner was that near to it
_FAINT = 1e-3  # weight of worn corners where a wall is placed
_TURNS_BACK = -0.8  # cosine of the angle between two edges of a tip
_SLIDE = 3.0  # times the tolerance: the farthest that a corner may slide along the raster's edge


class Outlines(NamedTuple):
    """Outlines to be straightened.

    Attributes:
        lines: points (row, column) of pixel outlines.
        vertices: (lines, 2) numbers of the first and the last point; lines that meet there have the same.
        groups: (lines,) the group of each.
        frames: (groups, 2, 2) what (row, column) is multiplied with for right angles to be right on the ground.
        frame: rows and columns of the raster, whose edge no point leaves.
    """

    lines: Lines
    vertices: NDArray[np.int64]
    groups: NDArray[np.int64]
    frames: NDArray[np.float64]
    frame: tuple[int, int]


class Walls(NamedTuple):
    """What became of the points of outlines.

    Attributes:
        points: (points, 2) where each point lies now, along the walls.
        corner: (points,) those that are corners, or ends of lines.
        bad: (groups,) those in which an edge would change its direction or leave the raster.
    """

    points: NDArray[np.float64]
    corner: NDArray[np.bool_]
    bad: NDArray[np.bool_]


class _Edges(NamedTuple):
    """Edges between corners, all lines' one after the other."""

    start: NDArray[np.int64]  # (edges,) first point
    stop: NDArray[np.int64]  # (edges,) last point
    line: NDArray[np.int64]  # (edges,)
    ends: NDArray[np.int64]  # (edges, 2) corner numbers


def straighten(outlines: Outlines, tolerance_px: NDArray[np.float64]) -> Walls:
    """Where the points of outlines lie once their walls are straight and at right angles.

    Args:
        outlines: pixel outlines.
        tolerance_px: (groups,) how far these may be from what they stand for, in pixels.
    """
    points, offsets = outlines.lines.points.astype(np.float64), outlines.lines.offsets
    fixed = on_frame(points, outlines.frame)
    kept = find_corners(points, offsets, fixed, tolerance_px[outlines.groups])
    kept[_beside_tips(points, kept, offsets)] = True
    edges, corners = _edges(points, outlines, kept)
    line = np.repeat(np.arange(offsets.size - 1), np.diff(offsets))
    turned, turns = _turned(points, outlines, edges, ~(fixed[edges.start] & fixed[edges.stop]), line)
    along = _directions(turned, edges, fixed, tolerance_px[outlines.groups[edges.line]])
    group = outlines.groups[line[corners]]
    back = np.linalg.inv(turns)[group]
    at = np.einsum("kij,kj->ki", back, _place(turned, edges, along, corners))
    axis = _axis_of_corners(edges, along, corners.size)
    directions = np.where(axis[:, None] < 2, back[np.arange(corners.size), :, np.minimum(axis, 1)], np.nan)
    at = _slid(at, points[corners], outlines.frame, directions, _SLIDE * tolerance_px[group])
    moved = _interpolated(points, edges, at)
    stays = ~_in_line(edges, along, corners.size) | fixed[corners]
    corner, shown = np.zeros(len(points), np.bool_), np.zeros(len(points), np.bool_)
    corner[edges.start], corner[edges.stop] = stays[edges.ends[:, 0]], stays[edges.ends[:, 1]]
    shown[offsets[:-1]] = shown[offsets[1:] - 1] = True
    bad = np.zeros(len(outlines.frames), np.bool_)
    bad[group[((at < 0) | (at > np.array(outlines.frame))).any(1)]] = True
    bad[outlines.groups[_reversed(points, moved, np.flatnonzero(corner | shown), line)]] = True
    return Walls(moved, corner, bad)


def _axis_of_corners(edges: _Edges, along: NDArray[np.int8], corners: int) -> NDArray[np.int64]:
    """(corners,) 0 or 1 where a wall along u or v ends, 2 where none does."""
    axis = np.full(corners, 2)
    for which in (1, 0):
        axis[edges.ends[along % 3 == which].ravel()] = which
    return axis


@compiled
def find_corners(
    points: NDArray[np.float64], offsets: NDArray[np.int64], fixed: NDArray[np.bool_], tolerance: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """(points,) the corners of lines, from which no point between them is farther than the line's tolerance."""
    kept = fixed.copy()
    stack = np.empty((len(points) + 2, 2), np.int64)
    for line in range(offsets.size - 1):
        begin, last = offsets[line], offsets[line + 1] - 1
        kept[begin] = kept[last] = True
        size, start = 0, begin
        for at in range(begin + 1, last + 1):
            if kept[at]:
                stack[size, 0], stack[size, 1] = start, at
                size, start = size + 1, at
        while size > 0:
            size -= 1
            low, high = stack[size]
            far, distance = _farthest(points, low, high)
            closed = points[low, 0] == points[high, 0] and points[low, 1] == points[high, 1]
            if far > 0 and (distance > tolerance[line] or closed):
                kept[far] = True
                stack[size, 0], stack[size, 1] = low, far
                stack[size + 1, 0], stack[size + 1, 1] = far, high
                size += 2
    return kept


@compiled
def _farthest(points: NDArray[np.float64], low: int, high: int) -> tuple[int, float]:
    """The point between two that is farthest from their segment (-1 if there is none), and how far that is."""
    row, col = points[low, 0], points[low, 1]
    down, right = points[high, 0] - row, points[high, 1] - col
    length = down * down + right * right
    best, farthest = -1, 0.0
    for at in range(low + 1, high):
        a, b = points[at, 0] - row, points[at, 1] - col
        part = min(max((a * down + b * right) / length, 0.0), 1.0) if length > 0 else 0.0
        distance = (a - part * down) ** 2 + (b - part * right) ** 2
        if distance > farthest:
            best, farthest = at, distance
    return best, np.sqrt(farthest)


def _beside_tips(points: NDArray[np.float64], kept: NDArray[np.bool_], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """The points next to corners at which a line turns back: the tips of slits and spikes are two corners wide."""
    at = np.flatnonzero(kept)
    line = np.searchsorted(offsets, at, side="right")
    before, tip, after = at[:-2], at[1:-1], at[2:]
    there, back = points[tip] - points[before], points[after] - points[tip]
    lengths = np.hypot(*there.T) * np.hypot(*back.T)
    turns = (line[:-2] == line[2:]) & ((there * back).sum(1) < _TURNS_BACK * lengths)
    return np.asarray(np.where(after - tip > 1, tip + 1, tip - 1)[turns])


def _edges(
    points: NDArray[np.float64], outlines: Outlines, kept: NDArray[np.bool_]
) -> tuple[_Edges, NDArray[np.int64]]:
    """The edges, and one point for each corner; corners of several lines have one number."""
    offsets = outlines.lines.offsets
    number = np.full(len(points), -1)
    number[offsets[:-1]], number[offsets[1:] - 1] = outlines.vertices[:, 0], outlines.vertices[:, 1]
    inner = np.flatnonzero(kept & (number < 0))
    number[inner] = np.arange(inner.size) + outlines.vertices.max(initial=-1) + 1
    at = np.flatnonzero(kept)
    line = np.repeat(np.arange(offsets.size - 1), np.diff(offsets))[at]
    within = np.flatnonzero(line[:-1] == line[1:])
    _, first, name = np.unique(number[at], return_index=True, return_inverse=True)
    ends = np.stack([name[within], name[within + 1]], axis=1)
    return _Edges(at[within], at[within + 1], line[within], ends), at[first]


def _turned(
    points: NDArray[np.float64],
    outlines: Outlines,
    edges: _Edges,
    inside: NDArray[np.bool_],
    line_of_point: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The points in the frame (u, v) of their group, and what (row, column) of each group was multiplied with.

    Only edges inside of the raster count, not those along its edge.
    """
    group = outlines.groups[edges.line]
    steps = np.einsum("eij,ej->ei", outlines.frames[group], points[edges.stop] - points[edges.start])
    fourfold = (steps[:, 0] + 1j * steps[:, 1]) ** 4
    sums = np.zeros(len(outlines.frames), np.complex128)
    np.add.at(sums, group, inside * fourfold / np.maximum(np.abs(fourfold), 1e-300) ** 0.5)
    angle = np.angle(sums) / 4
    rotation = np.stack([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]).transpose(2, 0, 1)
    turns = rotation @ outlines.frames
    return np.einsum("pij,pj->pi", turns[outlines.groups[line_of_point]], points), turns


def _directions(
    turned: NDArray[np.float64], edges: _Edges, fixed: NDArray[np.bool_], tolerance: NDArray[np.float64]
) -> NDArray[np.int8]:
    """(edges,) 0 along u, 1 along v, each minus 3 for worn corners; 2 for edges that are no walls."""
    steps = np.abs(turned[edges.stop] - turned[edges.start])
    length = np.hypot(steps[:, 0], steps[:, 1])
    along = (steps[:, 1] > steps[:, 0]).astype(np.int8)
    sine = np.minimum(steps[:, 0], steps[:, 1]) / np.maximum(length, 1e-12)
    askew = (sine > np.sin(_ASKEW)) & (sine * length > tolerance)
    worn = askew & (steps.prod(1) <= _WORN * tolerance * length)
    same_line = edges.line[:-1] == edges.line[1:]
    joined = same_line[:-1] & same_line[1:] & worn[1:-1] & (along[:-2] == along[2:]) & ~askew[:-2] & ~askew[2:]
    between = np.flatnonzero(joined) + 1
    along[between] = 1 - along[between - 1]  # a step between two walls that run the same way
    along[worn] -= 3
    along[askew & ~worn] = 2
    along[fixed[edges.start] & fixed[edges.stop]] = 2
    return along


def _place(
    turned: NDArray[np.float64], edges: _Edges, along: NDArray[np.int8], corners: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(corners, 2) u and v of each corner: those of the walls that meet there, else its own."""
    placed = turned[corners]
    steps = np.append(np.diff(turned, axis=0), [[0.0, 0.0]], axis=0)
    middles = turned + steps / 2
    for axis in (0, 1):
        walls = np.flatnonzero(along % 3 == 1 - axis)  # walls along u hold v, those along v hold u
        if walls.size == 0:
            continue
        start, stop, first = edges.start[walls], edges.stop[walls], edges.ends[walls, 0]
        ranges = np.stack([start, stop], axis=1).ravel()
        passed = np.add.reduceat(steps[:, 1 - axis] * middles[:, axis], ranges)[::2]
        run = turned[stop, 1 - axis] - turned[start, 1 - axis]
        weight = np.abs(run) * np.where(along[walls] < 0, _FAINT, 1.0)
        parent = np.arange(corners.size)
        union_pairs(parent, first, edges.ends[walls, 1])
        root = roots(parent)
        total, sums = np.zeros(corners.size), np.zeros(corners.size)
        np.add.at(total, root[first], weight)
        np.add.at(sums, root[first], weight * passed / run)
        held = total[root] > 0
        placed[held, axis] = sums[root[held]] / total[root[held]]
    return placed


def _slid(
    at: NDArray[np.float64],
    before: NDArray[np.float64],
    frame: tuple[int, int],
    directions: NDArray[np.float64],
    reach: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Corners on the raster's edge stay on it: they slide to where their wall meets it, if that is not far.

    Args:
        at: (corners, 2) on the walls.
        before: (corners, 2) on the pixels.
        frame: rows and columns of the raster.
        directions: (corners, 2) of a wall that ends there; NaN where there is none.
        reach: (corners,) pixels.
    """
    out = at.copy()
    for axis in (0, 1):
        on_edge = (before[:, axis] == 0) | (before[:, axis] == frame[axis])
        with np.errstate(divide="ignore", invalid="ignore"):
            steps = (before[:, axis] - at[:, axis]) / directions[:, axis]
            met = at[:, 1 - axis] + steps * directions[:, 1 - axis]
        near = np.abs(met - before[:, 1 - axis]) <= reach  # not where there is no wall
        out[on_edge] = before[on_edge]
        out[on_edge & near, 1 - axis] = met[on_edge & near]
    at_corner = ((before == 0) | (before == np.array(frame))).all(1)
    out[at_corner] = before[at_corner]
    return out


def _in_line(edges: _Edges, along: NDArray[np.int8], corners: int) -> NDArray[np.bool_]:
    """(corners,) those in the middle of a wall."""
    ends = [np.bincount(edges.ends[along % 3 == axis].ravel(), minlength=corners) for axis in range(3)]
    return np.asarray(((ends[0] == 2) & (ends[1] == 0) | (ends[1] == 2) & (ends[0] == 0)) & (ends[2] == 0))


def _interpolated(points: NDArray[np.float64], edges: _Edges, at: NDArray[np.float64]) -> NDArray[np.float64]:
    """(points, 2) each point as far along its edge as it was along the pixels."""
    steps = np.diff(points, axis=0)
    way = np.concatenate([[0.0], np.cumsum(np.hypot(steps[:, 0], steps[:, 1]))])
    edge = np.maximum(np.searchsorted(edges.start, np.arange(len(points)), side="right") - 1, 0)
    start, stop = edges.start[edge], edges.stop[edge]
    part = (way - way[start]) / (way[stop] - way[start])
    first, last = at[edges.ends[edge, 0]], at[edges.ends[edge, 1]]
    moved = first + part[:, None] * (last - first)
    moved[edges.start], moved[edges.stop] = at[edges.ends[:, 0]], at[edges.ends[:, 1]]
    return np.asarray(moved)


def _reversed(
    points: NDArray[np.float64], moved: NDArray[np.float64], shown: NDArray[np.int64], line: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The lines in which the way between two of the points shown does not go forwards any more."""
    same = line[shown[1:]] == line[shown[:-1]]
    onwards = (np.diff(points[shown], axis=0) * np.diff(moved[shown], axis=0)).sum(1) > 0
    return np.asarray(line[shown[1:]][same & ~onwards])
