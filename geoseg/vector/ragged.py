"""Polygons as ragged coordinate arrays: what files are written from, without an object for each polygon on the way."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from geoseg.vector.kernels import compiled
from geoseg.vector.threads import THREADS, in_threads

POLYGON, MULTIPOLYGON = 3, 6  # codes of OGC 06-103r4, 8.2.3
ALONE = 100_000  # points that are worth a thread
HEAD = 9  # bytes before the parts: order of bytes, code, number of parts


@dataclass(frozen=True)
class Ragged:
    """Polygons, or multipolygons.

    Attributes:
        coordinates: (points, 2) x and y; the last point of a ring repeats its first.
        rings: (rings + 1,) where each ring's points begin.
        polygons: (polygons + 1,) where each polygon's rings begin, its shell first.
        rows: (multipolygons + 1,) where each multipolygon's polygons begin; None where each polygon is a row.
    """

    coordinates: NDArray[np.float64]
    rings: NDArray[np.int64]
    polygons: NDArray[np.int64]
    rows: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return (self.polygons if self.rows is None else self.rows).size - 1

    @classmethod
    def together(cls, parts: list[Self]) -> Self:
        """Polygons of several parts, one after the other."""
        names = ("rings", "polygons") if parts[0].rows is None else ("rings", "polygons", "rows")
        offsets = [_chained([getattr(part, name) for part in parts]) for name in names]
        return cls(np.concatenate([part.coordinates for part in parts]), *offsets)

    def picked(self, rows: NDArray[np.int64]) -> Ragged:
        """Some rows, in that order; those that follow each other share their coordinates."""
        if rows.size and (np.diff(rows) == 1).all():
            return self._part(int(rows[0]), int(rows[-1]) + 1)
        polygons, chosen = (None, rows) if self.rows is None else members_of(self.rows, rows)
        rings, which = members_of(self.polygons, chosen)
        points = np.concatenate([[0], np.cumsum(np.diff(self.rings)[which])])
        return Ragged(_copied(self.coordinates, self.rings, which, points), points, rings, polygons)

    def shapes(self) -> NDArray[np.object_]:
        """As shapely has them; many are made in several threads."""
        if len(self.coordinates) < 2 * ALONE:
            return self._shapes()
        ends = self.rings[self.polygons[1:] if self.rows is None else self.polygons[self.rows[1:]]]
        cuts = [0, *np.searchsorted(ends, np.linspace(0, ends[-1], THREADS + 1)[1:-1]).tolist(), len(self)]
        parts = (self._part(begin, end) for begin, end in pairwise(cuts))
        return np.concatenate(list(in_threads(Ragged._shapes, parts, THREADS)))

    def _shapes(self) -> NDArray[np.object_]:
        offsets = (self.rings, self.polygons) if self.rows is None else (self.rings, self.polygons, self.rows)
        kind = shapely.GeometryType.POLYGON if self.rows is None else shapely.GeometryType.MULTIPOLYGON
        return np.asarray(shapely.from_ragged_array(kind, self.coordinates, offsets), dtype=object)

    def _part(self, begin: int, end: int) -> Ragged:
        """Rows that follow each other; coordinates are shared."""
        rows = None
        if self.rows is not None:
            rows = self.rows[begin : end + 1]
            begin, end = int(rows[0]), int(rows[-1])
        polygons = self.polygons[begin : end + 1]
        rings = self.rings[polygons[0] : polygons[-1] + 1]
        points = self.coordinates[rings[0] : rings[-1]]
        return Ragged(points, rings - rings[0], polygons - polygons[0], None if rows is None else rows - rows[0])

    def perimeters(self) -> NDArray[np.float64]:
        """(rows,) planar lengths of all rings, in units of the coordinates."""
        return self._of_rows(_lengths(self.coordinates, self.rings))

    def areas(self) -> NDArray[np.float64]:
        """(rows,) planar areas."""
        return np.abs(self.signed_areas())

    def signed_areas(self) -> NDArray[np.float64]:
        """(rows,) planar areas, negative where a shell is clockwise, its holes counter-clockwise."""
        return self._of_rows(_areas(self.coordinates, self.rings))

    def wkb(self) -> pa.BinaryArray:
        """Well-known binary, little-endian (OGC 06-103r4, 8.2)."""
        of_polygons = HEAD + _sums(4 + 16 * np.diff(self.rings), self.polygons)
        sizes = of_polygons if self.rows is None else HEAD + _sums(of_polygons, self.rows)
        ends = np.concatenate([[0], np.cumsum(sizes)])
        rows = np.arange(0) if self.rows is None else self.rows
        raw = np.ascontiguousarray(self.coordinates, "<f8").view(np.uint8).reshape(-1)
        content = _written(raw, self.rings, self.polygons, rows, int(ends[-1]))
        buffers = [None, pa.py_buffer(ends), pa.py_buffer(content)]
        return pa.Array.from_buffers(pa.large_binary(), len(self), buffers)

    def _of_rows(self, of_rings: NDArray[np.float64]) -> NDArray[np.float64]:
        of_polygons = _sums(of_rings, self.polygons)
        return of_polygons if self.rows is None else _sums(of_polygons, self.rows)


def members_of(offsets: NDArray[np.int64], rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The offsets of some rows, and all their members."""
    sizes = np.diff(offsets)[rows]
    ends = np.concatenate([[0], np.cumsum(sizes)])
    return ends, np.arange(ends[-1]) + np.repeat(offsets[rows] - ends[:-1], sizes)


def _chained(offsets: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(np.concatenate([np.diff(one) for one in offsets]))])


@compiled
def _sums(values: NDArray[Any], offsets: NDArray[np.int64]) -> NDArray[Any]:
    sums = np.zeros(offsets.size - 1, values.dtype)
    for row in range(sums.size):
        for at in range(offsets[row], offsets[row + 1]):
            sums[row] += values[at]
    return sums


@compiled
def _copied(
    coordinates: NDArray[np.float64], rings: NDArray[np.int64], which: NDArray[np.int64], points: NDArray[np.int64]
) -> NDArray[np.float64]:
    out = np.empty((points[-1], 2))
    for ring in range(which.size):
        begin = rings[which[ring]] - points[ring]
        for at in range(points[ring], points[ring + 1]):
            out[at, 0], out[at, 1] = coordinates[begin + at, 0], coordinates[begin + at, 1]
    return out


@compiled
def _lengths(coordinates: NDArray[np.float64], rings: NDArray[np.int64]) -> NDArray[np.float64]:
    lengths = np.zeros(rings.size - 1)
    for ring in range(lengths.size):
        for at in range(rings[ring] + 1, rings[ring + 1]):
            x, y = coordinates[at, 0] - coordinates[at - 1, 0], coordinates[at, 1] - coordinates[at - 1, 1]
            lengths[ring] += np.sqrt(x * x + y * y)
    return lengths


@compiled
def _areas(coordinates: NDArray[np.float64], rings: NDArray[np.int64]) -> NDArray[np.float64]:
    """Signed; seen from each ring's first point, so that large coordinates cost no digits."""
    areas = np.zeros(rings.size - 1)
    for ring in range(areas.size):
        x0, y0 = coordinates[rings[ring], 0], coordinates[rings[ring], 1]
        for at in range(rings[ring] + 1, rings[ring + 1]):
            x, y = coordinates[at - 1, 0] - x0, coordinates[at - 1, 1] - y0
            areas[ring] += (x * (coordinates[at, 1] - y0) - (coordinates[at, 0] - x0) * y) / 2
    return areas


@compiled
def _written(
    raw: NDArray[np.uint8],
    rings: NDArray[np.int64],
    polygons: NDArray[np.int64],
    rows: NDArray[np.int64],
    size: int,
) -> NDArray[np.uint8]:
    """Multipolygons, or polygons where there are no rows; raw: the bytes of the coordinates."""
    out = np.empty(size, np.uint8)
    at, row = 0, 0
    for polygon in range(polygons.size - 1):
        while row < rows.size - 1 and rows[row] == polygon:
            at = _head(out, at, MULTIPOLYGON, rows[row + 1] - rows[row])
            row += 1
        at = _head(out, at, POLYGON, polygons[polygon + 1] - polygons[polygon])
        for ring in range(polygons[polygon], polygons[polygon + 1]):
            begin, end = 16 * rings[ring], 16 * rings[ring + 1]
            at = _number(out, at, rings[ring + 1] - rings[ring])
            out[at : at + end - begin] = raw[begin:end]
            at += end - begin
    return out


@compiled
def _head(out: NDArray[np.uint8], at: int, code: int, parts: int) -> int:
    out[at] = 1  # little-endian
    return _number(out, _number(out, at + 1, code), parts)


@compiled
def _number(out: NDArray[np.uint8], at: int, number: int) -> int:
    for byte in range(4):
        out[at + byte] = (number >> 8 * byte) & 255
    return at + 4
