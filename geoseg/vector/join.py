"""Join the traces of all blocks: components by identity, arcs at the points where they cross a block's border.

A block's outermost pixels are its neighbour's too, so that their two component numbers mean the same component: no
distance, no buffer. Arcs that meet at a point where no third one ends are one arc; the point is dropped if it lies on a
straight line. What comes out (numbers, order, direction and first point of everything) is the same for any blocks:

- components are numbered by their first pixel in row-major order;
- an arc between junctions starts at the end that comes first in row-major order, a closed one at its first point,
  eastwards; arcs are ordered by that start.

Memory: all arcs and components of the raster, a few times over while they are joined; never its pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoseg.vector.kernels import compiled, roots, union_pairs
from geoseg.vector.levels import Levels, concatenate_levels, sum_levels
from geoseg.vector.runs import Components
from geoseg.vector.trace import Arcs, BlockTrace

# A half-arc is an arc seen in one direction: 2 * arc forwards, 2 * arc + 1 backwards; half ^ 1 is its other direction.


class Chains(NamedTuple):
    """Lists of half-arcs, each of which begins where the one before ends.

    Attributes:
        halves: (halves,) int64.
        offsets: (chains + 1,) int64.
    """

    halves: NDArray[np.int64]
    offsets: NDArray[np.int64]


class Lines(NamedTuple):
    """Points of lines as ragged arrays.

    Attributes:
        points: (points, 2) row and column: int32 for pixel corners, float64 once they have left these.
        offsets: (lines + 1,) int64, where each line's points begin.
    """

    points: NDArray[Any]
    offsets: NDArray[np.int64]


class Coverage(NamedTuple):
    """A whole raster as components and the arcs between them.

    Attributes:
        components: one for each polygon.
        arcs: their borders.
        levels: of confidence in each component; None where it is not known.
    """

    components: Components
    arcs: Arcs
    levels: Levels | None = None


class _Ends(NamedTuple):
    """The two ends of each arc, that is, the starts of all half-arcs, sorted by vertex and direction."""

    key: NDArray[np.int64]  # (halves,) of each half-arc: vertex number * 4 + direction in which it leaves
    order: NDArray[np.int64]  # (halves,) half-arcs in the order of their keys
    rank: NDArray[np.int64]  # (halves,) inverse of order


def join(traces: Iterable[BlockTrace]) -> Coverage:
    """The coverage of a raster from the traces of all of its blocks, given in any order."""
    blocks = sorted(traces, key=lambda trace: (trace.window.row, trace.window.col))
    number, components = _join_components(blocks)
    arcs = merge_arcs(_concatenate([trace.arcs for trace in blocks], number))
    counted = [trace.levels for trace in blocks if trace.levels is not None]
    if len(counted) < len(blocks) or not blocks:
        return Coverage(components, arcs)
    member = np.concatenate(number).astype(np.int64)
    return Coverage(components, arcs, sum_levels(concatenate_levels(counted), member, components.code.size))


def _join_components(blocks: Sequence[BlockTrace]) -> tuple[list[NDArray[np.int32]], Components]:
    """Final number of each block's components, and all components."""
    starts = np.cumsum([0, *(trace.components.code.size for trace in blocks)])
    parent = np.arange(starts[-1])
    for first, second in _shared_pixels(blocks, starts):
        union_pairs(parent, first, second)
    _, member = np.unique(roots(parent), return_inverse=True)
    merged = sum_components([trace.components for trace in blocks], member)
    order = np.argsort(merged.first)
    number = np.empty(order.size, np.int32)
    number[order] = np.arange(order.size, dtype=np.int32)
    numbers = np.split(number[member], starts[1:-1])
    return numbers, pick_components(merged, order)


def pick_components(components: Components, order: NDArray[np.int64]) -> Components:
    """The components picked by `order`."""
    code, pixels, first, confidence_sum, confidence_count = components
    return Components(code[order], pixels[order], first[order], confidence_sum[order], confidence_count[order])


def _shared_pixels(
    blocks: Sequence[BlockTrace], starts: NDArray[np.int64]
) -> Iterable[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """The two components of each pixel that neighbouring blocks both have; negative for background."""
    index = {(trace.window.row, trace.window.col): i for i, trace in enumerate(blocks)}
    for i, trace in enumerate(blocks):
        below = index.get((trace.window.row_stop, trace.window.col))
        if below is not None:
            yield _lifted(trace.borders.bottom, starts[i]), _lifted(blocks[below].borders.top, starts[below])
        beside = index.get((trace.window.row, trace.window.col_stop))
        if beside is not None:
            yield _lifted(trace.borders.right, starts[i]), _lifted(blocks[beside].borders.left, starts[beside])


def _lifted(labels: NDArray[np.int32], start: int) -> NDArray[np.int64]:
    return np.where(labels < 0, -1, labels + np.int64(start))


def sum_components(parts: Sequence[Components], member: NDArray[np.int64]) -> Components:
    """Components of one set taken together; `member` is the set of each."""
    stacked = Components(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    count = int(member.max()) + 1 if member.size else 0
    code = np.empty(count, np.int32)
    code[member] = stacked.code
    first = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(first, member, stacked.first)
    sums = []
    for column in (stacked.pixels, stacked.confidence_sum, stacked.confidence_count):
        total = np.zeros(count, np.int64)
        np.add.at(total, member, column)
        sums.append(total)
    return Components(code, sums[0], first, sums[1], sums[2])


def _concatenate(parts: Sequence[Arcs], numbers: Sequence[NDArray[np.int32]]) -> Arcs:
    """All arcs in one, with final component numbers."""
    sizes = np.cumsum([0, *(len(part.points) for part in parts)])
    offsets = [part.offsets[1:] + start for part, start in zip(parts, sizes[:-1], strict=True)]
    # -1 picks the number appended last: background stays background
    with_background = [np.append(number, np.int32(-1)) for number in numbers]
    return Arcs(
        np.concatenate([part.points for part in parts]),
        np.concatenate([np.zeros(1, np.int64), *offsets]),
        np.concatenate([n[part.left] for n, part in zip(with_background, parts, strict=True)]),
        np.concatenate([n[part.right] for n, part in zip(with_background, parts, strict=True)]),
    )


def sort_ends(arcs: Arcs) -> _Ends:
    """Where the half-arcs start, sorted."""
    key = _start_keys(arcs.points, arcs.offsets, int(arcs.points[:, 1].max(initial=0)) + 1)
    order = np.argsort(key, kind="stable")
    rank = np.empty(order.size, np.int64)
    rank[order] = np.arange(order.size)
    return _Ends(key, order, rank)


@compiled
def _start_keys(points: NDArray[np.int32], offsets: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    arcs = offsets.size - 1
    key = np.empty(2 * arcs, np.int64)
    for arc in range(arcs):
        begin, last = offsets[arc], offsets[arc + 1] - 1
        key[2 * arc] = _key(points, begin, begin + 1, width)
        key[2 * arc + 1] = _key(points, last, last - 1, width)
    return key


@compiled
def _key(points: NDArray[np.int32], vertex: int, towards: int, width: int) -> int:
    row, col = int(points[vertex, 0]), int(points[vertex, 1])
    if points[towards, 0] != row:
        direction = 0 if points[towards, 0] < row else 2
    else:
        direction = 1 if points[towards, 1] > col else 3
    return (row * width + col) * 4 + direction


def merge_arcs(arcs: Arcs) -> Arcs:
    """Arcs joined where exactly two ends meet, in their final direction and order."""
    chains = link_arcs(arcs)
    lines = concatenate_chains(arcs, chains, True)
    first = chains.halves[chains.offsets[:-1]]
    sides = np.stack([arcs.left, arcs.right])
    left, right = sides[first & 1, first >> 1], sides[1 - (first & 1), first >> 1]
    arcs = Arcs(lines.points, lines.offsets, left, right)
    return _in_order(arcs, _closed(arcs))


def link_arcs(arcs: Arcs) -> Chains:
    """Arcs that follow each other where exactly two ends meet; each is in one chain."""
    ends = sort_ends(arcs)
    return _find_chains(ends.key, ends.order, _partners(ends.key, ends.order))


@compiled
def _partners(key: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """The half-arc that starts where this one does, if no third does; else -1."""
    partner = np.full(key.size, -1, np.int64)
    begin = 0
    while begin < order.size:
        end = begin + 1
        while end < order.size and key[order[end]] >> 2 == key[order[begin]] >> 2:
            end += 1
        if end - begin == 2:
            partner[order[begin]], partner[order[begin + 1]] = order[begin + 1], order[begin]
        begin = end
    return partner


@compiled
def _find_chains(key: NDArray[np.int64], order: NDArray[np.int64], partner: NDArray[np.int64]) -> Chains:
    """Each arc once: from junction to junction first, then those that close on themselves."""
    halves, offsets = np.empty(key.size // 2, np.int64), np.zeros(key.size // 2 + 1, np.int64)
    done = np.zeros(key.size // 2, np.bool_)
    chains, count = 0, 0
    for closed in (False, True):
        for start in order:
            if done[start >> 1] or (partner[start] >= 0) != closed:
                continue
            half = start
            while half >= 0 and not done[half >> 1]:
                done[half >> 1] = True
                halves[count] = half
                count += 1
                half = partner[half ^ 1]
            chains += 1
            offsets[chains] = count
    return Chains(halves, offsets[: chains + 1].copy())


def concatenate_chains(arcs: Arcs | Lines, chains: Chains, drop_straight: bool) -> Lines:
    """The points of each chain; the point where two half-arcs meet is there once.

    Args:
        arcs: the arcs that the chains are made of.
        chains: which half-arcs follow each other.
        drop_straight: leave that point out where it lies on a straight line.
    """
    points = np.ascontiguousarray(arcs.points)
    copied, count, offsets = _concatenate_chains(
        points, _packed(points), arcs.offsets, chains.halves, chains.offsets, drop_straight
    )
    return Lines(copied[:count, None].view(points.dtype), offsets)


def _packed(points: NDArray[Any]) -> NDArray[Any]:
    """The same memory with one number for each point, which is copied at once."""
    return points.view(np.int64 if points.dtype == np.int32 else np.complex128)[:, 0]


@compiled
def _concatenate_chains(
    points: NDArray[Any],
    packed: NDArray[Any],
    offsets: NDArray[np.int64],
    halves: NDArray[np.int64],
    chain_offsets: NDArray[np.int64],
    drop_straight: bool,
) -> tuple[NDArray[Any], int, NDArray[np.int64]]:
    total = 0
    for half in halves:
        total += offsets[(half >> 1) + 1] - offsets[half >> 1]
    out = np.empty(total, packed.dtype)
    out_offsets = np.zeros(chain_offsets.size, np.int64)
    count = 0
    for chain in range(chain_offsets.size - 1):
        begin = count
        before, at = 0, 0  # where the last two points so far were taken from
        for k in range(chain_offsets[chain], chain_offsets[chain + 1]):
            half = halves[k]
            size = offsets[(half >> 1) + 1] - offsets[half >> 1]
            first, step = (offsets[half >> 1], 1) if half & 1 == 0 else (offsets[(half >> 1) + 1] - 1, -1)
            if count > begin:  # the last point so far is this half-arc's first
                if drop_straight and _straight(points[before], points[at], points[first + step]):
                    count, at = count - 1, before
                first, size = first + step, size - 1
            for i in range(size):
                out[count + i] = packed[first + step * i]
            count += size
            last = first + step * (size - 1)
            before, at = (last - step if size > 1 else at), last
        out_offsets[chain + 1] = count
    return out, count, out_offsets


@compiled
def _straight(before: NDArray[Any], at: NDArray[Any], after: NDArray[Any]) -> bool:
    return bool((before[0] == at[0] == after[0]) or (before[1] == at[1] == after[1]))


def _closed(arcs: Arcs) -> NDArray[np.bool_]:
    """(arcs,) those that close on themselves without a junction."""
    keys = sort_ends(arcs).key
    vertices, counts = np.unique(keys >> 2, return_counts=True)
    at_start = counts[np.searchsorted(vertices, keys[::2] >> 2)]
    return np.asarray((keys[::2] >> 2 == keys[1::2] >> 2) & (at_start == 2))


def _in_order(arcs: Arcs, loop: NDArray[np.bool_]) -> Arcs:
    """Arcs by where they start; closed ones are turned first, so that they begin at their first corner, eastwards."""
    points, ends = arcs.points, arcs.offsets[1:].copy()
    turned = _turn_loops(points, arcs.offsets, ends, loop)
    left, right = np.where(turned, arcs.right, arcs.left), np.where(turned, arcs.left, arcs.right)
    width = int(points[:, 1].max(initial=0)) + 1
    order = np.argsort(_first_keys(points, arcs.offsets[:-1], width))
    copied, offsets = _gather(_packed(points), arcs.offsets[:-1], ends, order)
    return Arcs(copied[:, None].view(points.dtype), offsets, left[order], right[order])


@compiled
def _first_keys(points: NDArray[np.int32], starts: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    key = np.empty(starts.size, np.int64)
    for arc in range(starts.size):
        key[arc] = _key(points, starts[arc], starts[arc] + 1, width)
    return key


@compiled
def _gather(
    packed: NDArray[np.int64], begin: NDArray[np.int64], end: NDArray[np.int64], order: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The points from `begin` to `end` of each arc, in another order of arcs."""
    offsets = np.zeros(order.size + 1, np.int64)
    offsets[1:] = np.cumsum((end - begin)[order])
    out = np.empty(offsets[-1], packed.dtype)
    for k in range(order.size):
        first, size = begin[order[k]], offsets[k + 1] - offsets[k]
        for i in range(size):
            out[offsets[k] + i] = packed[first + i]
    return out, offsets


@compiled
def _turn_loops(
    points: NDArray[np.int32], offsets: NDArray[np.int64], ends: NDArray[np.int64], loop: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Turn closed arcs in place; which of them changed their direction. Their ends move where a seam was no corner."""
    turned = np.zeros(loop.size, np.bool_)
    for arc in np.flatnonzero(loop):
        begin = offsets[arc]
        size, turned[arc] = _turn_loop(points[begin : offsets[arc + 1]].copy(), points[begin:])
        ends[arc] = begin + size
    return turned


@compiled
def _turn_loop(part: NDArray[np.int32], out: NDArray[np.int32]) -> tuple[int, bool]:
    """Write the turned loop to `out`; how many points it has, and whether its direction was changed."""
    seam_is_corner = not _straight(part[-2], part[0], part[1])
    corners = part[(0 if seam_is_corner else 1) : -1]
    size = len(corners)
    first = 0
    for i in range(1, size):
        down = corners[i, 0] - corners[first, 0]
        if down < 0 or (down == 0 and corners[i, 1] < corners[first, 1]):
            first = i
    step = 1 if corners[(first + 1) % size, 0] == corners[first, 0] else -1
    at = first
    for i in range(size):
        out[i, 0], out[i, 1] = corners[at, 0], corners[at, 1]
        at += step
        if at == size:
            at = 0
        elif at < 0:
            at = size - 1
    out[size, 0], out[size, 1] = corners[first, 0], corners[first, 1]
    return size + 1, step < 0
