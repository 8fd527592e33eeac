"""Which segments of lines meet where they must not: anywhere but in the point that both end in."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

from geoseg.vector.join import Lines

_PARALLEL = 1e-9  # sine of an angle that counts as none


class Segments(NamedTuple):
    """The segments of lines, one after the other.

    Attributes:
        start: (segments,) its first point; the next one is its last.
        line: (segments,) the line it is part of.
    """

    start: NDArray[np.int64]
    line: NDArray[np.int64]


def segments_of(lines: Lines) -> Segments:
    """All segments, in the order of their points."""
    line = np.repeat(np.arange(lines.offsets.size - 1), np.diff(lines.offsets))
    start = np.flatnonzero(line[:-1] == line[1:])
    return Segments(start, line[start])


def crossings(lines: Lines, segments: Segments, asked: NDArray[np.int64]) -> NDArray[np.int64]:
    """(pairs, 2) segments that cross, touch or overlap; one without a length is paired with itself.

    Args:
        lines: their points.
        segments: all segments.
        asked: those to be compared with all others.
    """
    ends = np.stack([lines.points[segments.start], lines.points[segments.start + 1]], axis=1)
    drawn = np.asarray(shapely.linestrings(ends), dtype=object)
    first, second = shapely.STRtree(drawn).query(drawn[asked], predicate="intersects")
    first = asked[first]
    empty = asked[(ends[asked, 0] == ends[asked, 1]).all(1)]
    apart = first != second
    first, second = first[apart], second[apart]
    wrong = ~_only_ends_meet(ends[first], ends[second])
    pairs = np.stack([first[wrong], second[wrong]], axis=1)
    return np.concatenate([pairs, np.stack([empty, empty], axis=1)])


def _only_ends_meet(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(pairs,) of segments (pairs, 2, 2) that intersect: those with a common end that leave it in two directions."""
    fine = np.zeros(len(first), np.bool_)
    for a in (0, 1):
        for b in (0, 1):
            common = (first[:, a] == second[:, b]).all(1)
            one, other = first[:, 1 - a] - first[:, a], second[:, 1 - b] - second[:, b]
            sine = one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]
            cosine = (one * other).sum(1)
            fine |= common & ((np.abs(sine) > _PARALLEL * np.abs(cosine)) | (cosine < 0))
    return fine
