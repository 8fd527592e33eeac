"""How often each level of confidence occurs in each component: what the exact percentile of any union of them needs.

Levels are those of a confidence file, 0 to 200 for 0 to 1. Rows are ragged, so that a component of few pixels takes few
entries, and rows of one component that come from several blocks add up to the same row for any blocks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoseg.raster.landcover import CONFIDENCE_ONE
from geoseg.vector.kernels import compiled

UNKNOWN = 255
LEVELS = CONFIDENCE_ONE + 1
_LEVELS = np.int64(LEVELS)


class Levels(NamedTuple):
    """Pixels of each component at each level of confidence that occurs in it.

    Attributes:
        offsets: (components + 1,) int64, where each component's entries begin.
        level: (entries,) uint8, ascending within a component.
        pixels: (entries,) int64, how many.
    """

    offsets: NDArray[np.int64]
    level: NDArray[np.uint8]
    pixels: NDArray[np.int64]

    @classmethod
    def none(cls, components: int) -> Levels:
        """No confidence is known anywhere."""
        return cls(np.zeros(components + 1, np.int64), np.empty(0, np.uint8), np.empty(0, np.int64))


def to_levels(units: NDArray[np.int32], one: int) -> NDArray[np.uint8]:
    """Levels of confidence units of which `one` make 1.0, rounded to the nearest; UNKNOWN for negative units."""
    if one == CONFIDENCE_ONE:
        return units.astype(np.uint8)  # -1 becomes 255
    known = (units.astype(np.int64) * CONFIDENCE_ONE + one // 2) // one
    return np.where(units < 0, UNKNOWN, known).astype(np.uint8)


def concatenate_levels(parts: list[Levels]) -> Levels:
    """The rows of all parts, one after the other."""
    ends = np.cumsum([0, *(part.level.size for part in parts)])
    offsets = [part.offsets[1:] + start for part, start in zip(parts, ends[:-1], strict=True)]
    return Levels(
        np.concatenate([np.zeros(1, np.int64), *offsets]),
        np.concatenate([part.level for part in parts]) if parts else np.empty(0, np.uint8),
        np.concatenate([part.pixels for part in parts]) if parts else np.empty(0, np.int64),
    )


def sum_levels(levels: Levels, member: NDArray[np.int64], sets: int) -> Levels:
    """One row for each set of rows; `member` is the set of each, -1 for none."""
    if levels.level.size == 0:
        return Levels.none(sets)
    order = np.argsort(member, kind="stable")
    order = order[np.searchsorted(member[order], 0) :]
    return Levels(*_sum_levels(levels.offsets, levels.level, levels.pixels, order, member, sets))


def percentile(levels: Levels, share: float) -> NDArray[np.float64]:
    """The lowest confidence (0 to 1) that at least `share` of a component's known pixels do not exceed; NaN for none.

    That is numpy's percentile by the method "inverted_cdf": a value that occurs.
    """
    return _percentile(levels.offsets, levels.level, levels.pixels, share) / CONFIDENCE_ONE


@compiled
def _sum_levels(
    offsets: NDArray[np.int64],
    level: NDArray[np.uint8],
    pixels: NDArray[np.int64],
    order: NDArray[np.int64],
    member: NDArray[np.int64],
    sets: int,
) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]:
    out_offsets = np.zeros(sets + 1, np.int64)
    out_level, out_pixels = np.empty(level.size, np.uint8), np.empty(level.size, np.int64)
    total = np.zeros(_LEVELS, np.int64)
    at, filled = 0, 0
    for number in range(sets):
        low, high = _LEVELS, -1
        while at < order.size and member[order[at]] == number:
            for entry in range(offsets[order[at]], offsets[order[at] + 1]):
                total[level[entry]] += pixels[entry]
                low, high = min(low, level[entry]), max(high, level[entry])
            at += 1
        for value in range(low, high + 1):
            if total[value] > 0:
                out_level[filled], out_pixels[filled] = value, total[value]
                total[value] = 0
                filled += 1
        out_offsets[number + 1] = filled
    return out_offsets, out_level[:filled].copy(), out_pixels[:filled].copy()


@compiled
def _percentile(
    offsets: NDArray[np.int64], level: NDArray[np.uint8], pixels: NDArray[np.int64], share: float
) -> NDArray[np.float64]:
    out = np.full(offsets.size - 1, np.nan)
    for number in range(offsets.size - 1):
        known = 0
        for entry in range(offsets[number], offsets[number + 1]):
            known += pixels[entry]
        below = 0
        for entry in range(offsets[number], offsets[number + 1]):
            below += pixels[entry]
            if below >= share * known:
                out[number] = level[entry]
                break
    return out
