"""Areas and perimeters on the ground.

In a projected CRS whose scale is true to 0.5 % all over the raster, they are planar: pixels counted, lengths in CRS
units. Elsewhere (EPSG:4326, EPSG:3857, the far ends of a zone) they are geodesic, on the ellipsoid of the CRS.
One rule holds for the whole raster, so that its polygons can be compared.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyproj
import shapely
from affine import Affine
from numpy.typing import NDArray

from geoseg.errors import InputError

_log = logging.getLogger(__name__)

MAX_SCALE_ERROR = 0.005
_STEP = 10.0  # CRS units; short enough to be local, long enough for rounding
_LONGEST_EDGE_M = 10_000.0  # longer edges bend away from the geodesic between their ends: 1.2 m at latitude 45


@dataclass(frozen=True, slots=True)
class Ground:
    """Where a raster lies.

    Attributes:
        shape: rows and columns.
        transform: pixel to CRS coordinates.
        crs: None where unknown; then there are no metres.
    """

    shape: tuple[int, int]
    transform: Affine
    crs: pyproj.CRS | None

    @property
    def unit_m(self) -> float:
        """Metres per unit of a CRS that is not geographic."""
        return float(self.crs.axis_info[0].unit_conversion_factor) if self.crs and self.crs.axis_info else 1.0

    @property
    def pixel_area_m2(self) -> float:
        """Planar area of a pixel."""
        return abs(self.transform.determinant) * self.unit_m**2

    @property
    def is_geodesic(self) -> bool:
        """Whether planar areas would be wrong by more than the allowed scale error."""
        if self.crs is None or not (self.crs.is_geographic or self.crs.is_projected):
            return False
        return self.crs.is_geographic or _scale_error(self, self.crs) > MAX_SCALE_ERROR


class Measures(NamedTuple):
    """Square metres and metres of each polygon."""

    area: NDArray[np.float64]
    perimeter: NDArray[np.float64]


def measure(polygons: NDArray[np.object_], pixels: NDArray[Any], ground: Ground) -> Measures:
    """Areas and perimeters (holes included) of polygons of `pixels` pixels each, in a raster with a CRS."""
    if ground.crs is not None and ground.is_geodesic and len(polygons):
        return _geodesic(polygons, ground.crs)
    return planar(pixels, shapely.length(polygons), ground)


def planar(pixels: NDArray[Any], lengths: NDArray[np.float64], ground: Ground) -> Measures:
    """Areas of that many pixels, and lengths in units of the CRS, in metres."""
    return Measures(pixels.astype(np.float64) * ground.pixel_area_m2, lengths * ground.unit_m)


def to_crs(
    rows: NDArray[Any], cols: NDArray[Any], transform: Affine
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """CRS coordinates (x, y) of pixel corners."""
    x = transform.a * cols + transform.b * rows + transform.c
    y = transform.d * cols + transform.e * rows + transform.f
    return x, y


def local_frames(ground: Ground, rows: NDArray[Any], cols: NDArray[Any]) -> NDArray[np.float64]:
    """How a step in the raster looks on the ground at some pixel corners: (corners, 2, 2) metres per pixel.

    [[x of a row, x of a column], [y of a row, y of a column]], so that it is multiplied with (row, column); x and y are
    east and north where areas are geodesic, the axes of the CRS elsewhere. Without a CRS its units count as metres.
    """
    t = ground.transform
    planar = np.array([[t.b, t.a], [t.e, t.d]], dtype=np.float64) * ground.unit_m
    frames = np.broadcast_to(planar, (len(rows), 2, 2)).copy()
    if ground.crs is None or not ground.is_geodesic:
        return frames
    globe = _Globe.of(ground.crs)
    x, y = to_crs(rows, cols, t)
    for axis, (down, right) in enumerate(((1, 0), (0, 1))):
        azimuth, metres = globe.course(x, y, *to_crs(rows + down, cols + right, t))
        step = np.stack([metres * np.sin(azimuth), metres * np.cos(azimuth)], axis=1)
        known = np.isfinite(step).all(1)
        frames[known, :, axis] = step[known]
    return frames


def _scale_error(ground: Ground, crs: pyproj.CRS) -> float:
    """Largest relative difference between planar and true distances at the raster's center and corners."""
    globe = _Globe.of(crs)
    height, width = ground.shape
    cols = np.array([0, width, 0, width, width / 2])
    rows = np.array([0, 0, height, height, height / 2])
    x, y = to_crs(rows, cols, ground.transform)
    east, north = (globe.distance(x, y, x + dx, y + dy) for dx, dy in ((_STEP, 0.0), (0.0, _STEP)))
    true = np.concatenate([east, north])
    if not np.isfinite(true).all():  # outside the projection's domain, where geodesic areas fail, too
        _log.warning("The raster reaches beyond the domain of its CRS: areas are planar.")
        return 0.0
    return float(np.abs(_STEP * ground.unit_m / true - 1).max())


@dataclass(frozen=True, slots=True)
class _Globe:
    """The ellipsoid under a CRS, and the way from CRS coordinates to degrees on it."""

    geod: pyproj.Geod
    transformer: pyproj.Transformer
    degrees_per_unit: float

    @classmethod
    def of(cls, crs: pyproj.CRS) -> _Globe:
        geodetic, geod = crs.geodetic_crs, crs.get_geod()
        if geodetic is None or geod is None:
            raise InputError(f"The CRS {crs.name!r} has no ellipsoid, so that areas in square metres are not known.")
        transformer = pyproj.Transformer.from_crs(crs, geodetic, always_xy=True)
        return cls(geod, transformer, float(np.degrees(geodetic.axis_info[0].unit_conversion_factor)))

    def degrees(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """(2, points) longitude and latitude."""
        return np.stack(self.transformer.transform(x, y)) * self.degrees_per_unit

    def distance(
        self, x0: NDArray[np.float64], y0: NDArray[np.float64], x1: NDArray[np.float64], y1: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Metres along the geodesic; not finite where a point is beyond the projection."""
        return self.course(x0, y0, x1, y1)[1]

    def course(
        self, x0: NDArray[np.float64], y0: NDArray[np.float64], x1: NDArray[np.float64], y1: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Azimuth at the start (radians, from north by east) and length in metres of the geodesic."""
        start, end = self.degrees(x0, y0), self.degrees(x1, y1)
        finite = np.isfinite(start).all(0) & np.isfinite(end).all(0)
        azimuth, metres = np.full(x0.shape, np.nan), np.full(x0.shape, np.nan)
        forward, _, length = self.geod.inv(*start[:, finite], *end[:, finite])
        azimuth[finite], metres[finite] = np.radians(forward), length
        return azimuth, metres


def _geodesic(polygons: NDArray[np.object_], crs: pyproj.CRS) -> Measures:
    globe = _Globe.of(crs)
    parts, owner = shapely.get_parts(polygons, return_index=True)
    _, coordinates, (ring_offsets, part_offsets) = shapely.to_ragged_array(
        shapely.segmentize(parts, _longest_edge(crs, globe.geod.a))
    )
    lon, lat = globe.degrees(*np.ascontiguousarray(coordinates.T))
    ring_areas, ring_lengths = np.zeros(ring_offsets.size - 1), np.zeros(ring_offsets.size - 1)
    for ring, (begin, end) in enumerate(pairwise(ring_offsets.tolist())):
        # The last point repeats the first. Shells count positive and holes negative, by their direction.
        area_and_length = globe.geod.polygon_area_perimeter(lon[begin : end - 1], lat[begin : end - 1])
        ring_areas[ring], ring_lengths[ring] = area_and_length
    ring_of = np.repeat(owner, np.diff(part_offsets))
    area, perimeter = np.zeros(len(polygons)), np.zeros(len(polygons))
    np.add.at(area, ring_of, ring_areas)
    np.add.at(perimeter, ring_of, ring_lengths)
    return Measures(np.abs(area), perimeter)


def _longest_edge(crs: pyproj.CRS, radius_m: float) -> float:
    """Length in CRS units beyond which an edge gets points in between."""
    unit = crs.axis_info[0].unit_conversion_factor  # radians or metres
    return _LONGEST_EDGE_M / float(unit * radius_m if crs.is_geographic else unit)
