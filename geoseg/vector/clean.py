"""Clean a coverage before anything is left out or reshaped: small parts go to a neighbour, unwanted ones to nobody.

Small components are taken smallest first (of equal ones the first in row-major order) and given to the neighbour with
the longest shared border; what has become one class is one component. A component that grows beyond the limit that way
stays. Borders between parts that became one vanish, and with them the junctions where they ended.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoseg.vector.join import Chains, Coverage, concatenate_chains, merge_arcs, pick_components, sum_components
from geoseg.vector.kernels import compiled, find, roots
from geoseg.vector.levels import sum_levels
from geoseg.vector.measure import Ground, local_frames
from geoseg.vector.trace import Arcs


def component_areas(coverage: Coverage, ground: Ground) -> NDArray[np.float64]:
    """(components,) square metres, with the size that a pixel has where the component begins."""
    first = coverage.components.first
    frames = local_frames(ground, first // ground.shape[1], first % ground.shape[1])
    return np.asarray(coverage.components.pixels * np.abs(np.linalg.det(frames)), dtype=np.float64)


def fill_holes(coverage: Coverage, ground: Ground, smallest_m2: float) -> Coverage:
    """The coverage without components smaller than `smallest_m2`: they are part of the neighbour they touch most.

    Components that touch nothing but background stay, whatever their size; nodata stays nodata.
    """
    components, arcs = coverage.components, coverage.arcs
    middle = np.array([ground.shape], np.int64) // 2
    down, right = np.hypot(*local_frames(ground, middle[:, 0], middle[:, 1])[0])
    steps = _steps(arcs.points, arcs.offsets)
    length = steps[:, 0] * (down / right) + steps[:, 1]  # whole numbers where pixels are square
    code = components.code.copy()
    parent = _absorb(code, component_areas(coverage, ground), arcs.left, arcs.right, length, smallest_m2)
    root = roots(parent)
    taken = coverage._replace(components=components._replace(code=code[root]))
    _, member = np.unique(root, return_inverse=True)  # the root is a set's first component: numbers stay in order
    return _regrouped(taken, member)


def drop(coverage: Coverage, gone: NDArray[np.bool_]) -> Coverage:
    """The coverage without some components; where they were is background."""
    member = np.where(gone, -1, np.cumsum(~gone) - 1)
    return _regrouped(coverage, member)


def _regrouped(coverage: Coverage, member: NDArray[np.int64]) -> Coverage:
    """The coverage of sets of components; -1 is background."""
    kept = np.flatnonzero(member >= 0)
    components = sum_components([pick_components(coverage.components, kept)], member[kept])
    with_background = np.append(member, -1).astype(np.int32)
    arcs = coverage.arcs
    left, right = with_background[arcs.left], with_background[arcs.right]
    apart = np.flatnonzero(left != right)
    lines = concatenate_chains(arcs, Chains(2 * apart, np.arange(apart.size + 1)), False)
    levels = coverage.levels
    if levels is not None:
        levels = sum_levels(levels, member, components.code.size)
    return Coverage(components, merge_arcs(Arcs(lines.points, lines.offsets, left[apart], right[apart])), levels)


@compiled
def _steps(points: NDArray[np.int32], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pixel edges along rows' and columns' direction of each arc, (arcs, 2)."""
    steps = np.zeros((offsets.size - 1, 2), np.int64)
    for arc in range(offsets.size - 1):
        for at in range(offsets[arc] + 1, offsets[arc + 1]):
            steps[arc, 0] += abs(points[at, 0] - points[at - 1, 0])
            steps[arc, 1] += abs(points[at, 1] - points[at - 1, 1])
    return steps


class _Lists(NamedTuple):
    """The arcs of each component as linked lists. Entry 2 * arc is in the list of its left, the next in its right's."""

    head: NDArray[np.int64]  # (components,) first entry
    tail: NDArray[np.int64]  # (components,) last entry
    after: NDArray[np.int64]  # (entries,) the next one, -1 at the end


@compiled
def _list_arcs(left: NDArray[np.int32], right: NDArray[np.int32], components: int) -> _Lists:
    head, tail = np.full(components, -1, np.int64), np.full(components, -1, np.int64)
    after = np.full(2 * left.size, -1, np.int64)
    for entry in range(2 * left.size):
        owner = left[entry >> 1] if entry & 1 == 0 else right[entry >> 1]
        if owner < 0:
            continue
        if tail[owner] >= 0:
            after[tail[owner]] = entry
        else:
            head[owner] = entry
        tail[owner] = entry
    return _Lists(head, tail, after)


@compiled
def _absorb(
    code: NDArray[np.int32],
    area: NDArray[np.float64],
    left: NDArray[np.int32],
    right: NDArray[np.int32],
    length: NDArray[np.float64],
    smallest: float,
) -> NDArray[np.int64]:
    """Sets of components that become one, as a union-find; `code` and `area` of each set are those of its root.

    Lists of arcs are made one in a step, and only those of small components are gone through: the cost is that of
    their borders.
    """
    parent = np.arange(code.size)
    lists = _list_arcs(left, right, code.size)
    border = np.zeros(code.size)
    heap = [(np.inf, np.int64(-1))]
    for i in range(code.size):
        if area[i] < smallest:
            heap.append((area[i], np.int64(i)))
    heapify(heap)
    while True:
        size, small = heappop(heap)
        if small < 0:
            break
        if parent[small] != small or area[small] != size:
            continue
        neighbors = _neighbors(parent, left, right, length, lists, small, border)
        if neighbors.size == 0:
            continue
        best = neighbors[0]
        for other in neighbors:
            if border[other] > border[best] or (border[other] == border[best] and other < best):
                best = other
        taken = code[best]
        root = small
        for other in neighbors:
            border[other] = 0
            if code[other] == taken:
                root = _unite(parent, area, lists, root, other)
        code[root] = taken
        if area[root] < smallest:
            heappush(heap, (area[root], np.int64(root)))
    return parent


@compiled
def _neighbors(
    parent: NDArray[np.int64],
    left: NDArray[np.int32],
    right: NDArray[np.int32],
    length: NDArray[np.float64],
    lists: _Lists,
    small: np.int64,
    border: NDArray[np.float64],
) -> NDArray[np.int64]:
    """The components around one; `border` gets the length shared with each."""
    found = [np.int64(-1)]
    entry = lists.head[small]
    while entry >= 0:
        arc = entry >> 1
        for side in (left[arc], right[arc]):
            other = find(parent, side) if side >= 0 else small
            if other != small:
                if border[other] == 0:
                    found.append(np.int64(other))
                border[other] += length[arc]
        entry = lists.after[entry]
    return np.array(found)[1:]


@compiled
def _unite(
    parent: NDArray[np.int64], area: NDArray[np.float64], lists: _Lists, first: np.int64, second: np.int64
) -> np.int64:
    """Make one component of two roots; the new root."""
    root, other = min(first, second), max(first, second)
    parent[other] = root
    area[root] += area[other]
    lists.after[lists.tail[root]] = lists.head[other]
    lists.tail[root] = lists.tail[other]
    return root
