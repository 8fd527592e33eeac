"""Regularize the outlines of buildings: right angles and straight walls, in a coverage that remains one.

Buildings that touch are one group, straightened together (see `walls`): what they share stays shared. Borders between
other classes that end at a building end at its wall afterwards. A group falls back to its outline as it was if one of
its buildings fits poorly, or if its walls would cross, touch or swallow anything else; what falls back is counted.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from geoseg.vector.crossings import Segments, crossings, segments_of
from geoseg.vector.join import Chains, Coverage, Lines, concatenate_chains, link_arcs
from geoseg.vector.kernels import compiled, roots, union_pairs
from geoseg.vector.measure import Ground, local_frames
from geoseg.vector.rings import Rings, build_polygons
from geoseg.vector.trace import Arcs
from geoseg.vector.walls import Outlines, Walls, straighten

SMALLEST_IOU = 0.85
"""Intersection over union with the pixels, below which a building falls back."""

TOLERANCE_PX = 1.5
"""How far the pixels of an outline may be from the wall that they stand for."""

_ATTEMPTS = 2
_TRIMMED_PX = 4.0  # how much of the end of another border may give way to a wall


class Regularized(NamedTuple):
    """A coverage with straight walls.

    Attributes:
        lines: the points of its arcs, which keep their number, order and direction.
        straight: (arcs,) those that have become walls.
        buildings: how many there are.
        fallbacks: how many of them keep their outlines.
    """

    lines: Lines
    straight: NDArray[np.bool_]
    buildings: int
    fallbacks: int


class _Chosen(NamedTuple):
    """The arcs to be straightened, and the outlines that they are pieces of."""

    arcs: NDArray[np.int64]  # (pieces,) numbers in the coverage
    groups: NDArray[np.int64]  # (pieces,)
    group_of: NDArray[np.int64]  # (components,) -1 for those that are no building
    outlines: Outlines
    first: NDArray[np.int64]  # (pieces,) point of the outlines at which the arc begins
    last: NDArray[np.int64]  # (pieces,) point at which it ends; before `first` where it runs the other way


def regularize(
    coverage: Coverage, ground: Ground, buildings: NDArray[np.bool_], loops: NDArray[np.bool_], tolerance_px: float
) -> Regularized:
    """The coverage with straight walls around its buildings.

    Args:
        coverage: on pixels.
        ground: where its raster lies; angles are right there.
        buildings: (components,) those to be regularized.
        loops: (arcs,) closed ones on which no junction lies.
        tolerance_px: how far outlines may be from what they stand for, at least `TOLERANCE_PX`.
    """
    arcs = coverage.arcs
    plain = Lines(arcs.points.astype(np.float64), arcs.offsets)
    chosen = _choose(coverage, ground, buildings)
    if chosen.arcs.size == 0:
        return Regularized(plain, np.zeros(loops.size, np.bool_), int(buildings.sum()), int(buildings.sum()))
    tolerances = np.full(len(chosen.outlines.frames), max(tolerance_px, TOLERANCE_PX))
    for attempt in range(_ATTEMPTS):
        walls = straighten(chosen.outlines, tolerances)
        drawing = _Drawing.of(plain, loops, chosen, walls)
        accepted = ~walls.bad & ~_fits_poorly(coverage, chosen, drawing.drawn(~walls.bad), ~walls.bad)
        if attempt + 1 < _ATTEMPTS:
            tolerances[~accepted] *= 2  # small features give way
    lines, accepted = _without_conflicts(coverage, drawing, accepted)
    straight = np.zeros(loops.size, np.bool_)
    straight[chosen.arcs[accepted[chosen.groups]]] = True
    done = int(accepted[chosen.group_of[buildings]].sum())
    return Regularized(lines, straight, int(buildings.sum()), int(buildings.sum()) - done)


def _choose(coverage: Coverage, ground: Ground, buildings: NDArray[np.bool_]) -> _Chosen:
    """The arcs beside buildings, in chains from one place where walls meet to the next."""
    arcs = coverage.arcs
    with_background = np.append(buildings, False)
    which = np.flatnonzero(with_background[arcs.left] | with_background[arcs.right])
    picked = concatenate_chains(arcs, Chains(2 * which, np.arange(which.size + 1)), False)
    pieces = Arcs(picked.points, picked.offsets, arcs.left[which], arcs.right[which])
    chains = link_arcs(pieces)
    lines = concatenate_chains(pieces, chains, False)
    ends = np.concatenate([lines.points[lines.offsets[:-1]], lines.points[lines.offsets[1:] - 1]])
    vertices = np.unique(ends, axis=0, return_inverse=True)[1].reshape(2, -1).T
    groups, group_of = _group(pieces, buildings)
    halves = chains.halves
    begins = np.zeros(len(groups) if which.size == 0 else int(groups.max()) + 1, np.int64)
    begins[groups[::-1]] = picked.offsets[:-1][::-1]  # of each group the first arc's first point
    frames = local_frames(ground, *picked.points[begins].T) if which.size else np.empty((0, 2, 2))
    frames = frames / np.sqrt(np.abs(np.linalg.det(frames)))[:, None, None]
    outlines = Outlines(lines, vertices, groups[halves[chains.offsets[:-1]] >> 1], frames, ground.shape)
    size = np.diff(picked.offsets)[halves >> 1] - 1
    start = np.cumsum(size) - size + np.repeat(np.arange(chains.offsets.size - 1), np.diff(chains.offsets))
    first, last = np.empty(which.size, np.int64), np.empty(which.size, np.int64)
    forwards = halves & 1 == 0
    first[halves >> 1], last[halves >> 1] = (
        np.where(forwards, start, start + size),
        np.where(forwards, start + size, start),
    )
    return _Chosen(which, groups, group_of, outlines, first, last)


def _group(pieces: Arcs, buildings: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The group of each arc and of each component: buildings that touch, if only in a point, are one."""
    count = buildings.size
    starts, ends = pieces.points[pieces.offsets[:-1]], pieces.points[pieces.offsets[1:] - 1]
    vertex = np.unique(np.concatenate([starts, ends]), axis=0, return_inverse=True)[1].reshape(2, -1)
    parent = np.arange(count + int(vertex.max(initial=-1)) + 1)
    for side in (pieces.left, pieces.right):
        beside = np.flatnonzero(np.append(buildings, False)[side])
        for end in vertex:
            union_pairs(parent, side[beside].astype(np.int64), end[beside] + count)
    root = roots(parent)  # a set's smallest member: a building
    names, group = np.unique(root[vertex[0] + count], return_inverse=True)
    of_component = np.full(count, -1)
    of_component[buildings] = np.searchsorted(names, root[:count][buildings])
    return group, of_component


class _Drawing(NamedTuple):
    """All arcs of a coverage, to be drawn with some groups straightened and the others not."""

    plain: Lines
    loops: NDArray[np.bool_]
    chosen: _Chosen
    walls: Walls
    piece: NDArray[np.int64]  # (arcs,) number among the chosen, -1 for none
    vertex: NDArray[np.int64]  # (2, arcs) numbers of first and last points
    place: NDArray[np.float64]  # (vertices, 2) on walls, else where they were
    group: NDArray[np.int64]  # (vertices,) of the walls they are on, -1 for none

    @classmethod
    def of(cls, plain: Lines, loops: NDArray[np.bool_], chosen: _Chosen, walls: Walls) -> _Drawing:
        piece = np.full(loops.size, -1)
        piece[chosen.arcs] = np.arange(chosen.arcs.size)
        ends = np.concatenate([plain.points[plain.offsets[:-1]], plain.points[plain.offsets[1:] - 1]])
        place, vertex = np.unique(ends, axis=0, return_inverse=True)
        vertex = vertex.reshape(2, -1)
        group = np.full(len(place), -1)
        for end, point in zip(vertex, (chosen.first, chosen.last), strict=True):
            place[end[chosen.arcs]] = walls.points[point]
            group[end[chosen.arcs]] = chosen.groups
        return cls(plain, loops, chosen, walls, piece, vertex, place, group)

    def drawn(self, accepted: NDArray[np.bool_], trims: NDArray[np.int64] | None = None) -> Lines:
        """The lines with the accepted groups straightened.

        Args:
            accepted: (groups,).
            trims: (2, arcs) points left out beside the first and the last one, where that one has moved.
        """
        moved = np.append(accepted, False)[self.group]
        trims = np.zeros(self.vertex.shape, np.int64) if trims is None else trims * moved[self.vertex]
        starts, stops = self.plain.offsets[:-1], self.plain.offsets[1:] - 1
        ends = np.empty((*self.vertex.shape, 2))
        for k, at in enumerate((starts, stops)):
            here = self.vertex[k]
            ends[k] = np.where(moved[here][:, None], self.place[here], self.plain.points[at])
        piece = self.piece.copy()
        piece[self.chosen.arcs[~accepted[self.chosen.groups]]] = -1
        spans = (self.chosen.first, self.chosen.last)
        drawn = _draw(
            self.plain.points,
            self.plain.offsets,
            ends,
            trims,
            piece,
            spans,
            self.walls.points,
            self.walls.corner,
            self.loops,
        )
        return Lines(*drawn)


@compiled
def _draw(
    points: NDArray[np.float64],
    offsets: NDArray[np.int64],
    ends: NDArray[np.float64],
    trims: NDArray[np.int64],
    piece: NDArray[np.int64],
    spans: tuple[NDArray[np.int64], NDArray[np.int64]],
    walls: NDArray[np.float64],
    corner: NDArray[np.bool_],
    loops: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    out, out_offsets = np.empty_like(points), np.zeros_like(offsets)
    count = 0
    for arc in range(piece.size):
        begin = count
        out[count] = ends[0, arc]
        count += 1
        if piece[arc] < 0:
            first, last = offsets[arc] + 1 + trims[0, arc], offsets[arc + 1] - 1 - trims[1, arc]
            inner = points[first : max(first, last)]
            out[count : count + len(inner)] = inner
            count += len(inner)
        else:
            first, last = spans[0][piece[arc]], spans[1][piece[arc]]
            if loops[arc] and not corner[first]:
                count = begin
            step = 1 if last > first else -1
            for at in range(first + step, last, step):
                if corner[at]:
                    out[count] = walls[at]
                    count += 1
        out[count] = out[begin] if loops[arc] and count > begin else ends[1, arc]
        count += 1
        out_offsets[arc + 1] = count
    return out[:count].copy(), out_offsets


def _fits_poorly(coverage: Coverage, chosen: _Chosen, lines: Lines, accepted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(groups,) those with a building that is not valid, or too far from its pixels."""
    which = np.flatnonzero(np.append(accepted, False)[chosen.group_of])
    before = build_polygons(coverage, Affine.identity())[which]
    after = build_polygons(coverage, Affine.identity(), lines)[which]
    valid = shapely.is_valid(after)
    common = np.zeros(which.size)
    common[valid] = shapely.area(shapely.intersection(before[valid], after[valid]))
    united = shapely.area(before) + shapely.area(after) - common
    poor = np.zeros(accepted.size, np.bool_)
    poor[chosen.group_of[which[common < SMALLEST_IOU * united]]] = True
    return poor


def _without_conflicts(
    coverage: Coverage, drawing: _Drawing, accepted: NDArray[np.bool_]
) -> tuple[Lines, NDArray[np.bool_]]:
    """The lines with as many groups straightened as can be without a crossing, and which these are.

    Where a wall meets the end of a border between other classes, that end gives way; else a group falls back.
    """
    trims = np.zeros(drawing.vertex.shape, np.int64)
    while True:
        lines = drawing.drawn(accepted, trims)
        segments = segments_of(lines)
        owners = _owners(drawing, lines, segments, accepted)
        pairs = crossings(lines, segments, np.flatnonzero((owners >= 0).any(0)))
        bad = np.zeros(accepted.size, np.bool_)
        if len(pairs):
            kept = ~_trim(drawing, lines, segments, pairs, accepted, trims).any(1)
            bad[owners[:, pairs[kept]].max(axis=(0, 2))] = True  # of two the second: the first may fit then
        else:
            bad = _swallows(coverage, drawing.chosen, lines, accepted)
            bad |= _turns_over(coverage, drawing, lines, accepted)
            if not bad.any():
                return lines, accepted
        accepted = accepted & ~bad


def _owners(drawing: _Drawing, lines: Lines, segments: Segments, accepted: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(3, segments) the group of which a segment is a wall, or at whose wall it starts or ends; -1 for none."""
    moved = np.append(accepted, False)
    group = np.full(drawing.piece.size, -1)
    group[drawing.chosen.arcs] = drawing.chosen.groups
    of_arc = group[segments.line]
    owners = [np.where(moved[of_arc], of_arc, -1)]
    at_start = segments.start == lines.offsets[segments.line]
    at_end = segments.start == lines.offsets[segments.line + 1] - 2
    for end, here in zip(drawing.vertex, (at_start, at_end), strict=True):
        of_vertex = drawing.group[end[segments.line]]
        owners.append(np.where(here & moved[of_vertex], of_vertex, -1))
    return np.stack(owners)


def _trim(
    drawing: _Drawing,
    lines: Lines,
    segments: Segments,
    pairs: NDArray[np.int64],
    accepted: NDArray[np.bool_],
    trims: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Shorten borders between other classes that are in the way of a wall they end at; (pairs, 2) which ones were."""
    arc, start = segments.line[pairs], segments.start[pairs]
    from_end = np.stack([start - lines.offsets[arc], lines.offsets[arc + 1] - 2 - start])
    end = from_end.argmin(0)
    trim = trims[end, arc] + np.maximum(from_end.min(0), 1)
    begin, last = drawing.plain.offsets[arc], drawing.plain.offsets[arc + 1] - 1
    group = drawing.group[drawing.vertex[end, arc]]
    able = (drawing.piece[arc] < 0) & np.append(accepted, False)[group]
    able &= trim + trims[1 - end, arc] < last - begin
    trim = np.where(able, trim, 0)
    points = drawing.plain.points
    steps = points[np.where(end == 0, begin + trim, last - trim)] - points[np.where(end == 0, begin, last)]
    able &= np.hypot(steps[..., 0], steps[..., 1]) <= _TRIMMED_PX
    np.maximum.at(trims, (end[able], arc[able]), trim[able])
    return np.asarray(able)


def _swallows(coverage: Coverage, chosen: _Chosen, lines: Lines, accepted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(groups,) those with a building that has a border between others inside of it."""
    which = np.flatnonzero(np.append(accepted, False)[chosen.group_of])
    polygons = build_polygons(coverage, Affine.identity(), lines)[which]
    middles = (lines.points[lines.offsets[:-1]] + lines.points[lines.offsets[:-1] + 1]) / 2
    tree = shapely.STRtree(shapely.points(middles[:, ::-1]))
    polygon, arc = tree.query(polygons, predicate="contains")
    foreign = (coverage.arcs.left[arc] != which[polygon]) & (coverage.arcs.right[arc] != which[polygon])
    bad = np.zeros(accepted.size, np.bool_)
    bad[chosen.group_of[which[polygon[foreign]]]] = True
    return bad


def _turns_over(coverage: Coverage, drawing: _Drawing, lines: Lines, accepted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(groups,) those whose walls turn a neighbour inside out: one so small that no border is crossed on the way."""
    moved = np.append(accepted, False)
    of_arc = np.full(drawing.piece.size, -1)
    of_arc[drawing.chosen.arcs] = drawing.chosen.groups
    groups = np.stack([of_arc, *(drawing.group[end] for end in drawing.vertex)])  # an arc's own, and its ends'
    beside = moved[groups].any(0)
    sides = np.stack([coverage.arcs.left, coverage.arcs.right])
    which = np.unique(sides[:, beside]).astype(np.int64)
    which = which[which >= 0]
    signed = Rings.of(coverage, lines).polygons(Affine.identity(), which).signed_areas()
    over = np.zeros(coverage.components.code.size + 1, np.bool_)  # the last is what lies beyond
    over[which[signed <= 0]] = True
    at_fault = groups[:, beside & over[sides].any(0)]
    bad = np.zeros(accepted.size, np.bool_)
    bad[at_fault[moved[at_fault]]] = True
    return bad
