"""Trace one block of a class map: its components, and the arcs that separate them.

Pixel corners are the vertices, (row, column) with (0, 0) at the raster's upper-left corner. An edge of the pixel grid
belongs to the boundary if the codes on its two sides differ. Which block an edge or vertex belongs to is settled
without overlap: the block that holds the pixel to its lower right. So a block needs one more row above and one more
column to the left than its own pixels, and nothing that it finds depends on where block borders lie:

1. rows are cut into runs of one code; runs that touch in neighbouring rows are united (4-connected components);
2. each line between two rows is swept once: where runs begin, corners and junctions become vertices, linked to the
   vertex on their left and the one above; points on a straight line are never made, unless three edges meet there;
3. chains of vertices between nodes become arcs. Nodes are junctions (three or four edges) and points where a chain
   enters or leaves the block; `join` removes the latter.

Cost grows with the pixels only in the search for runs; the rest grows with the runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoseg.grid import Window
from geoseg.vector.kernels import compiled, find, union
from geoseg.vector.levels import Levels
from geoseg.vector.runs import Components, Runs, add_confidence, count_levels, find_runs, measure

BACKGROUND = int(np.iinfo(np.int32).min)
"""Code of pixels that get no polygon: nodata, classes not asked for, and all that lies outside the raster."""

# Directions: 0 north, 1 east, 2 south, 3 west; the opposite is (d + 2) % 4, a right turn (d + 1) % 4.
# Quads name the four pixels around a vertex: 0 upper left, 1 upper right, 2 lower left, 3 lower right.
# Pixel on the left (right) of an edge that leaves a vertex in direction d:
_LEFT = (0, 1, 3, 2)
_RIGHT = (1, 3, 2, 0)


class Arcs(NamedTuple):
    """Boundaries between two components each, as ragged arrays.

    Attributes:
        points: (points, 2) int32, row and column of pixel corners.
        offsets: (arcs + 1,) int64, where each arc's points begin.
        left: (arcs,) int32, component on the left of the arc seen in its direction; -1 for background.
        right: (arcs,) int32, the same for the right.
    """

    points: NDArray[np.int32]
    offsets: NDArray[np.int64]
    left: NDArray[np.int32]
    right: NDArray[np.int32]


class Borders(NamedTuple):
    """Component of each pixel in the outermost rows and columns of the padded block; -1 for background."""

    top: NDArray[np.int32]
    left: NDArray[np.int32]
    bottom: NDArray[np.int32]
    right: NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class BlockTrace:
    """What one block contributes; component numbers are the block's own."""

    window: Window
    arcs: Arcs
    components: Components
    borders: Borders
    levels: Levels | None = None


class _Graph(NamedTuple):
    point: NDArray[np.int32]  # (vertices, 2) line and column in the padded block
    link: NDArray[np.int32]  # (vertices, 4) next vertex in each direction, -1 for none
    quad: NDArray[np.int32]  # (vertices, 4) runs around the vertex
    node: NDArray[np.bool_]  # (vertices,) arcs end here


class _Vertex(NamedTuple):
    point: tuple[int, int]
    north: int  # vertex at the other end of the edge, -1 where there is none or it is another block's
    west: int
    quad: tuple[int, int, int, int]
    node: bool


def trace_block(
    codes: NDArray[np.int32],
    window: Window,
    raster_width: int,
    confidence: NDArray[np.int32] | None = None,
    levels: NDArray[np.uint8] | None = None,
) -> BlockTrace:
    """Components and arcs of one block.

    Args:
        codes: (height + 1, width + 1) codes of the block and of the row above and column to the left of it; one row
            (column) more of BACKGROUND where the block ends the raster.
        window: the block's own pixels.
        raster_width: columns of the raster, to number pixels.
        confidence: (height, width) confidence units, -1 where unknown.
        levels: (height, width) confidence in levels, for percentiles.
    """
    runs = find_runs(codes)
    parent, graph = _sweep(runs, codes.shape[1])
    labels, count = _label_runs(runs, parent)
    components = measure(runs, labels, count, (window.row, window.col, window.height, window.width), raster_width)
    if confidence is not None:
        add_confidence(runs, labels, confidence, components)
    arcs = _chain(graph, labels)
    arcs.points[:] += np.array([window.row - 1, window.col - 1], np.int32)
    counted = None if levels is None else Levels(*count_levels(runs, labels, count, levels))
    return BlockTrace(window, arcs, components, _borders(runs, labels, codes.shape[1]), counted)


@compiled
def _sweep(runs: Runs, width: int) -> tuple[NDArray[np.int32], _Graph]:
    """Sets of touching runs of one code, and the vertices of their boundaries in row-major order."""
    lines = runs.row.size - 1
    capacity = 2 * runs.start.size + 2 * lines + width + 2
    graph = _Graph(
        np.empty((capacity, 2), np.int32),
        np.empty((capacity, 4), np.int32),
        np.empty((capacity, 4), np.int32),
        np.empty(capacity, np.bool_),
    )
    parent = np.arange(runs.start.size).astype(np.int32)
    open_south = np.full(width + 1, -1, np.int32)  # per column: the vertex whose edge to the south has no end yet
    count = 0
    for line in range(1, lines):
        count = _sweep_line(runs, line, width, parent, graph, count, open_south)
    for run in range(runs.row[lines - 1] + 1, runs.row[lines]):
        column = runs.start[run]
        quad = (run - 1, run, -1, -1)
        count = _add_vertex(graph, count, _Vertex((lines, column), open_south[column], -1, quad, True))
    return parent, _Graph(graph.point[:count], graph.link[:count], graph.quad[:count], graph.node[:count])


@compiled
def _sweep_line(
    runs: Runs,
    line: int,
    width: int,
    parent: NDArray[np.int32],
    graph: _Graph,
    count: int,
    open_south: NDArray[np.int32],
) -> int:
    """Add the vertices between two rows from left to right, and unite runs that touch; the new vertex count."""
    upper, lower = runs.row[line - 1], runs.row[line]
    upper_stop, lower_stop = lower, runs.row[line + 1]
    open_east = -1
    column = 0
    while True:
        west = runs.code[upper] != runs.code[lower]
        if not west and runs.code[upper] != BACKGROUND:
            union(parent, upper, lower)
        upper_end = runs.start[upper + 1] if upper + 1 < upper_stop else width
        lower_end = runs.start[lower + 1] if lower + 1 < lower_stop else width
        # The first column line of the block is looked at in any case: an edge may come in from the west there.
        column = min(upper_end, lower_end) if column > 0 else 1
        if column >= width:
            break
        north, south = upper_end == column, lower_end == column
        quad = (upper, upper + north, lower, lower + south)
        east = runs.code[quad[1]] != runs.code[quad[3]]
        enters = (line == 1 and north) or (column == 1 and west)
        if west or east or enters:  # else no edge at all, or a straight one from north to south
            node = enters or (int(north) + int(south) + int(west) + int(east)) > 2
            above = open_south[column] if north and line > 1 else -1
            before = open_east if west and column > 1 else -1
            if south:
                open_south[column] = count
            open_east = count if east else -1
            count = _add_vertex(graph, count, _Vertex((line, column), above, before, quad, node))
        upper, lower = quad[1], quad[3]
    if west:
        quad = (upper, upper, lower, lower)
        count = _add_vertex(graph, count, _Vertex((line, width), -1, open_east, quad, True))
    return count


@compiled
def _add_vertex(graph: _Graph, count: int, vertex: _Vertex) -> int:
    graph.point[count, 0], graph.point[count, 1] = vertex.point
    for k in range(4):
        graph.quad[count, k] = vertex.quad[k]
        graph.link[count, k] = -1
    graph.node[count] = vertex.node
    if vertex.north >= 0:
        graph.link[count, 0] = vertex.north
        graph.link[vertex.north, 2] = count
    if vertex.west >= 0:
        graph.link[count, 3] = vertex.west
        graph.link[vertex.west, 1] = count
    return count + 1


@compiled
def _label_runs(runs: Runs, parent: NDArray[np.int32]) -> tuple[NDArray[np.int32], int]:
    """Component of each run, numbered by their first runs; -1 for background."""
    labels = np.empty(parent.size, np.int32)
    count = 0
    for run in range(parent.size):
        root = find(parent, run)
        if runs.code[run] == BACKGROUND:
            labels[run] = -1
        elif root == run:
            labels[run] = count
            count += 1
        else:
            labels[run] = labels[root]  # roots are the smallest of their set: numbered before
    return labels, count


@compiled
def _borders(runs: Runs, labels: NDArray[np.int32], width: int) -> Borders:
    height = runs.row.size - 1
    return Borders(
        _row_labels(runs, labels, 0, width),
        labels[runs.row[:height]],
        _row_labels(runs, labels, height - 1, width),
        labels[runs.row[1:] - 1],
    )


@compiled
def _row_labels(runs: Runs, labels: NDArray[np.int32], row: int, width: int) -> NDArray[np.int32]:
    out = np.empty(width, np.int32)
    for run in range(runs.row[row], runs.row[row + 1]):
        end = runs.start[run + 1] if run + 1 < runs.row[row + 1] else width
        out[runs.start[run] : end] = labels[run]
    return out


@compiled
def _chain(graph: _Graph, labels: NDArray[np.int32]) -> Arcs:
    """Arcs from node to node, then the closed ones that meet no node; each begins and ends with its node's point."""
    count = graph.node.size
    degree = int(
        np.sum(graph.link >= 0)
    )  # of all vertices together: two per edge, so no arc count or length exceeds it
    points = np.empty((degree + 1, 2), np.int32)
    offsets = np.zeros(degree + 1, np.int64)
    left, right = np.empty(degree, np.int32), np.empty(degree, np.int32)
    used = np.zeros(count, np.uint8)  # one bit per direction
    arcs = 0
    for closed in (False, True):
        for vertex in range(count):
            if graph.node[vertex] != closed:
                arcs = _chain_from(graph, vertex, labels, used, Arcs(points, offsets, left, right), arcs)
    total = offsets[arcs]
    return Arcs(points[:total].copy(), offsets[: arcs + 1].copy(), left[:arcs].copy(), right[:arcs].copy())


@compiled
def _chain_from(
    graph: _Graph, vertex: int, labels: NDArray[np.int32], used: NDArray[np.uint8], arcs: Arcs, count: int
) -> int:
    """Add the arcs that begin at a vertex and are not there yet; the new arc count."""
    for direction in range(4):
        taken = used[vertex] >> direction & 1 if graph.node[vertex] else used[vertex]
        if graph.link[vertex, direction] < 0 or taken:
            continue
        arcs.offsets[count + 1] = _walk(graph, vertex, direction, used, arcs.points, arcs.offsets[count])
        arcs.left[count] = _label_of(labels, graph.quad[vertex, _LEFT[direction]])
        arcs.right[count] = _label_of(labels, graph.quad[vertex, _RIGHT[direction]])
        count += 1
    return count


@compiled
def _label_of(labels: NDArray[np.int32], run: int) -> int:
    return int(labels[run]) if run >= 0 else -1


@compiled
def _walk(
    graph: _Graph, start: int, direction: int, used: NDArray[np.uint8], points: NDArray[np.int32], count: int
) -> int:
    """Append the points from `start` to the next node, or back to `start`; the new point count."""
    used[start] |= 1 << direction
    points[count, 0], points[count, 1] = graph.point[start, 0], graph.point[start, 1]
    count += 1
    vertex = graph.link[start, direction]
    while vertex != start and not graph.node[vertex]:
        used[vertex] = 15
        points[count, 0], points[count, 1] = graph.point[vertex, 0], graph.point[vertex, 1]
        count += 1
        right = (direction + 1) & 3  # a vertex that is no node is a corner
        direction = right if graph.link[vertex, right] >= 0 else (direction + 3) & 3
        vertex = graph.link[vertex, direction]
    used[vertex] |= 1 << ((direction + 2) & 3)
    points[count, 0], points[count, 1] = graph.point[vertex, 0], graph.point[vertex, 1]
    return count + 1
