from __future__ import annotations

import math

import pytest
from affine import Affine
from rasterio.crs import CRS

from geoseg.raster.ground import ground_sample_distance


def gsd(epsg: int, transform: Affine, shape: tuple[int, int] = (100, 100)) -> float:
    size = ground_sample_distance(shape, transform, CRS.from_epsg(epsg))
    assert size is not None
    return size


def test_a_projected_crs_is_believed_where_it_is_right() -> None:
    assert gsd(2154, Affine(0.2, 0, 718544, 0, -0.2, 6242632)) == pytest.approx(0.2, abs=1e-15)
    assert gsd(32631, Affine(10, 0, 5e5, 0, 10, 5e6)) == 10


def test_web_mercator_is_measured_on_the_ground() -> None:
    latitude = 60.0
    y = 6378137 * math.log(math.tan(math.pi / 4 + math.radians(latitude) / 2))
    found = gsd(3857, Affine(1, 0, 0, 0, -1, y), shape=(1, 1))
    assert found == pytest.approx(math.cos(math.radians(latitude)), rel=0.003)  # sphere and ellipsoid differ a little


def test_degrees_become_metres_on_the_ellipsoid() -> None:
    step = 1e-4
    assert gsd(4326, Affine(step, 0, 3, 0, -step, 0.005)) == pytest.approx(math.sqrt(11.1319 * 11.0574), rel=1e-4)
    east, north = step * 111_320 * math.cos(math.radians(60)), step * 111_412
    assert gsd(4326, Affine(step, 0, 3, 0, -step, 60.005)) == pytest.approx(math.sqrt(east * north), rel=3e-3)
    assert gsd(4326, Affine(step, 0, 3, 0, step, 59.995)) == pytest.approx(
        gsd(4326, Affine(step, 0, 3, 0, -step, 60.005)), rel=1e-6
    )


def test_feet_become_metres() -> None:
    foot = 1200 / 3937
    assert gsd(2263, Affine(2, 0, 985_000, 0, -2, 200_000)) == pytest.approx(2 * foot, rel=1e-9)


def test_pixels_that_are_not_square_or_turned_count_by_area() -> None:
    assert gsd(32631, Affine(4, 0, 5e5, 0, -9, 5e6)) == pytest.approx(6)
    assert gsd(32631, Affine(3, 4, 5e5, 4, -3, 5e6)) == pytest.approx(5)


def test_without_crs_it_is_unknown_and_far_off_the_map_it_is_what_the_map_says() -> None:
    assert ground_sample_distance((10, 10), Affine.identity(), None) is None
    assert gsd(32631, Affine(10, 0, 1e12, 0, -10, 1e12)) == 10
