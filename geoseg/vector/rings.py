"""Rings and polygons from the arcs of a coverage.

Each arc is part of two rings, one per side. A ring keeps its component on the left, and at a vertex turns as far to the
right as that allows. Where a component touches itself diagonally (it has two opposite pixels of the four), this goes
around each of the other two pixels, never through the vertex: no ring passes a vertex twice, and a hole touches the
exterior, or another hole, in a point. Because the component is 4-connected, one of those two pixels lies inside of it
and one outside, so the two passages are of different rings and the polygon is valid.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Self

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from geoseg.vector.join import Chains, Coverage, Lines, concatenate_chains, sort_ends
from geoseg.vector.kernels import compiled
from geoseg.vector.ragged import ALONE, Ragged, members_of
from geoseg.vector.threads import THREADS, in_threads
from geoseg.vector.trace import Arcs


@dataclass(frozen=True)
class Rings:
    """Which half-arcs make up each polygon, from which any of them can be built.

    Attributes:
        chains: of each ring; those of one polygon follow each other, its shell first.
        offsets: (components + 1,) where each polygon's rings begin.
        lines: the points of the arcs, in pixels.
    """

    chains: Chains
    offsets: NDArray[np.int64]
    lines: Arcs | Lines

    @classmethod
    def of(cls, coverage: Coverage, lines: Lines | None = None) -> Self:
        """The rings of a coverage.

        Args:
            coverage: which arcs there are and how they meet.
            lines: the points of each arc where they are no longer the coverage's own.
        """
        arcs = coverage.arcs
        component = components_of_halves(arcs)
        ends = sort_ends(arcs)
        following = _following(ends.key, ends.order, ends.rank, component)
        chains = _find_rings(ends.order, following, component)
        owner = component[chains.halves[chains.offsets[:-1]]]
        order = np.lexsort((_ring_areas(coverage, chains) < 0, owner))  # of each component the shell first
        offsets = np.searchsorted(owner[order], np.arange(coverage.components.code.size + 1))
        return cls(_picked(chains, order), offsets, arcs if lines is None else lines)

    @cached_property
    def points(self) -> NDArray[np.int64]:
        """(components,) points of each polygon, about: those where arcs meet count twice."""
        sizes = np.concatenate([[0], np.cumsum(np.diff(self.lines.offsets)[self.chains.halves >> 1])])
        of_rings = sizes[self.chains.offsets]
        return np.diff(of_rings[self.offsets])

    def polygons(self, transform: Affine, which: NDArray[np.int64] | None = None) -> Ragged:
        """Polygons of some components, or of all, in that order: shells counter-clockwise after the transform."""
        which = np.arange(self.offsets.size - 1) if which is None else which
        ends = np.cumsum(self.points[which])
        if not ends.size or ends[-1] < 2 * ALONE:
            return self._drawn(transform, which)
        shares = np.searchsorted(ends, np.linspace(0, ends[-1], THREADS + 1)[1:-1])
        parts = in_threads(partial(self._drawn, transform), np.split(which, shares), THREADS)
        return Ragged.together(list(parts))

    def _drawn(self, transform: Affine, which: NDArray[np.int64]) -> Ragged:
        offsets, rings = members_of(self.offsets, which)
        drawn = concatenate_chains(self.lines, _picked(self.chains, rings), False)
        # Rows count downwards: the component on the left is counter-clockwise only if the transform mirrors.
        coordinates = _placed(drawn.points, drawn.offsets, tuple(transform)[:6], transform.determinant > 0)
        return Ragged(coordinates, drawn.offsets, offsets)


def build_polygons(coverage: Coverage, transform: Affine, lines: Lines | None = None) -> NDArray[np.object_]:
    """One polygon per component, in their order; see `Rings`."""
    return Rings.of(coverage, lines).polygons(transform).shapes()


def components_of_halves(arcs: Arcs) -> NDArray[np.int32]:
    """The component on the left of each half-arc."""
    return np.stack([arcs.left, arcs.right], axis=1).ravel()


@compiled
def _placed(
    points: NDArray[Any], offsets: NDArray[np.int64], transform: tuple[float, ...], backwards: bool
) -> NDArray[np.float64]:
    """Coordinates (x, y) of the points of rings, each from the same point in either direction."""
    a, b, c, d, e, f = transform
    out = np.empty(points.shape)
    for ring in range(offsets.size - 1):
        begin, last = offsets[ring], offsets[ring + 1] - 1
        for at in range(begin, last + 1):
            source = begin + last - at if backwards else at
            row, col = points[source, 0], points[source, 1]
            out[at, 0] = a * col + b * row + c
            out[at, 1] = d * col + e * row + f
    return out


@compiled
def _following(
    key: NDArray[np.int64], order: NDArray[np.int64], rank: NDArray[np.int64], component: NDArray[np.int32]
) -> NDArray[np.int64]:
    """The half-arc that continues the ring of each half-arc; -1 for background."""
    following = np.full(key.size, -1, np.int64)
    for half in range(key.size):
        if component[half] < 0:
            continue
        back = half ^ 1  # leaves the vertex at which `half` arrives
        best = 4
        for k in range(max(rank[back] - 3, 0), min(rank[back] + 4, order.size)):
            other = order[k]
            if key[other] >> 2 != key[back] >> 2 or other == back or component[other] != component[half]:
                continue
            turn = (key[back] - 1 - key[other]) & 3  # 0 right, 1 straight on, 2 left
            if turn < best:
                best, following[half] = turn, other
    return following


@compiled
def _find_rings(order: NDArray[np.int64], following: NDArray[np.int64], component: NDArray[np.int32]) -> Chains:
    halves, offsets = np.empty(order.size, np.int64), np.zeros(order.size + 1, np.int64)
    done = np.zeros(order.size, np.bool_)
    rings, count = 0, 0
    for start in order:
        if component[start] < 0 or done[start]:
            continue
        half = start
        while not done[half]:
            done[half] = True
            halves[count] = half
            count += 1
            half = following[half]
        rings += 1
        offsets[rings] = count
    return Chains(halves[:count].copy(), offsets[: rings + 1].copy())


def _ring_areas(coverage: Coverage, chains: Chains) -> NDArray[np.int64]:
    """Twice the signed area of each ring in pixels, exactly; positive for shells."""
    per_arc = _arc_areas(coverage.arcs.points, coverage.arcs.offsets)
    per_half = per_arc[chains.halves >> 1] * np.where(chains.halves & 1, -1, 1)
    running = np.concatenate([[0], np.cumsum(per_half)])
    return np.asarray(running[chains.offsets[1:]] - running[chains.offsets[:-1]], dtype=np.int64)


@compiled
def _arc_areas(points: NDArray[np.int32], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """What each arc adds to twice the area of the rings that it is part of."""
    # Row axis down, component on the left: shells turn from east to north, so that sum(row * next col - ...) > 0.
    areas = np.zeros(offsets.size - 1, np.int64)
    for arc in range(offsets.size - 1):
        for at in range(offsets[arc], offsets[arc + 1] - 1):
            row, col = np.int64(points[at, 0]), np.int64(points[at, 1])
            areas[arc] += row * points[at + 1, 1] - points[at + 1, 0] * col
    return areas


def _picked(chains: Chains, order: NDArray[np.int64]) -> Chains:
    """The chains in another order."""
    offsets, picks = members_of(chains.offsets, order)
    return Chains(chains.halves[picks], offsets)
