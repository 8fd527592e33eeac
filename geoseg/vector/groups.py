"""8-connected areas: components of one class that meet at corners, taken together.

The parts stay components of their own, so that borders are traced, joined and shaped as ever; a group becomes one
multipolygon, which is valid: its parts touch in points.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geoseg.vector.clean import component_areas
from geoseg.vector.join import Coverage, sort_ends
from geoseg.vector.kernels import compiled, roots, union
from geoseg.vector.measure import Ground
from geoseg.vector.options import VectorOptions


def groups_of(coverage: Coverage) -> NDArray[np.int64]:
    """(components,) the group of each, numbered by their first pixels in row-major order."""
    arcs, code = coverage.arcs, coverage.components.code
    parent = np.arange(code.size)
    if arcs.left.size:
        ends = sort_ends(arcs)
        _unite_across(parent, ends.key, ends.order, np.stack([arcs.left, arcs.right], axis=1).ravel(), code)
    _, group = np.unique(roots(parent), return_inverse=True)
    return np.asarray(group, dtype=np.int64)


def small_groups(coverage: Coverage, ground: Ground, options: VectorOptions) -> NDArray[np.bool_]:
    """(components,) those that are part of no polygon of the smallest area to keep."""
    areas = component_areas(coverage, ground)
    if options.connectivity == 8:
        group = groups_of(coverage)
        areas = np.asarray(np.bincount(group, areas)[group], dtype=np.float64)
    return np.asarray(areas < options.min_area_m2)


@compiled
def _unite_across(
    parent: NDArray[np.int64],
    key: NDArray[np.int64],
    order: NDArray[np.int64],
    left: NDArray[np.int32],
    code: NDArray[np.int32],
) -> None:
    """Unite components of one class that lie across from each other where four borders meet.

    `left` is the component on the left of each half-arc: four of them leave such a point, so that the left sides are
    the four pixels around it, in turn.
    """
    for begin in range(order.size - 3):
        vertex = key[order[begin]] >> 2
        if key[order[begin + 3]] >> 2 != vertex:
            continue
        for first in range(2):
            one, other = left[order[begin + first]], left[order[begin + first + 2]]
            if one >= 0 and other >= 0 and code[one] == code[other]:
                union(parent, one, other)
