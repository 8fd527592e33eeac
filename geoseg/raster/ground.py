"""The size of a pixel on the ground."""

from __future__ import annotations

import math

from affine import Affine
from pyproj import CRS as ProjCRS
from pyproj import Geod, Transformer
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.errors import CRSError

SCALE_TOLERANCE = 0.005  # beyond it a projection's metres are not metres on the ground (EPSG:3857 first of all)


def ground_sample_distance(shape: tuple[int, int], transform: Affine, crs: CRS | None) -> float | None:
    """Square root of a pixel's area in metres, at the scene's center; None without a CRS.

    A projected CRS is believed where its local scale is right within 0.5 %; else the ellipsoid decides.
    """
    if crs is None:
        return None
    on_map = _map_size(transform, crs)
    on_ground = _geodesic_size(shape, transform, crs)
    if on_ground is None:
        return on_map
    if on_map is not None and abs(on_map / on_ground - 1) <= SCALE_TOLERANCE:
        return on_map
    return on_ground


def _map_size(transform: Affine, crs: CRS) -> float | None:
    if crs.is_geographic:
        return None
    try:
        metres = float(crs.linear_units_factor[1])
    except CRSError:  # an engineering CRS without a known unit
        metres = 1.0
    return math.sqrt(abs(transform.determinant)) * metres


def _geodesic_size(shape: tuple[int, int], transform: Affine, crs: CRS) -> float | None:
    """From the two sides of the central pixel on the ellipsoid; None where the CRS does not reach the ground."""
    row, col = shape[0] / 2, shape[1] / 2
    corners = [transform @ at for at in ((col, row), (col + 1, row), (col, row + 1))]
    try:
        proj = ProjCRS.from_user_input(crs.to_wkt())
        if proj.geodetic_crs is None:
            return None
        to_lonlat = Transformer.from_crs(proj, proj.geodetic_crs, always_xy=True)
        (x, y), (right_x, right_y), (below_x, below_y) = [to_lonlat.transform(*at, errcheck=True) for at in corners]
        geod = proj.get_geod() or Geod(ellps="WGS84")
        right_azimuth, _, width = geod.inv(x, y, right_x, right_y)
        below_azimuth, _, height = geod.inv(x, y, below_x, below_y)
    except (ProjError, CRSError):
        return None
    area = width * height * abs(math.sin(math.radians(right_azimuth - below_azimuth)))
    return math.sqrt(area) if math.isfinite(area) and area > 0 else None
