"""8-connected polygons against GDAL's, which are repaired first: the same point sets."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import rasterio.features
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from oracles import CASES, NONE, class_maps
from scipy import ndimage
from test_shapes import METRE, blobs, polygons_of
from test_vectorize import UTM, georeferenced, write_raster

from geoseg.errors import InputError
from geoseg.vector import VectorOptions, vectorize, vectorize_raster

EIGHT = np.ones((3, 3))


def gdal_areas(class_map: NDArray[np.uint8]) -> list[tuple[int, shapely.Geometry]]:
    """Class and point set of each 8-connected area; GDAL's rings cross themselves at corners."""
    shapes = rasterio.features.shapes(class_map.astype(np.int32), mask=class_map != NONE, connectivity=8)
    return [(int(value), shapely.make_valid(shapely.geometry.shape(geometry))) for geometry, value in shapes]


def check_against_gdal(class_map: NDArray[np.uint8], block: int) -> None:
    found = vectorize(
        georeferenced(class_map, Affine.identity(), None, legend=None).assign_attrs(nodata=NONE),
        connectivity=8,
        block=block,
    )
    expected = gdal_areas(class_map)
    assert len(found) == len(expected)
    assert shapely.is_valid(found.geometry.values).all()
    assert set(found.geom_type) <= {"MultiPolygon"}
    of_first_pixel = {(int(v), _first_pixel(g)): g for v, g in expected}
    assert len(of_first_pixel) == len(expected)
    for value, area, geometry in zip(found.class_id, found.area_px, found.geometry, strict=True):
        other = of_first_pixel[value, _first_pixel(geometry)]
        assert shapely.equals(geometry, other)
        assert geometry.area == area


def _first_pixel(geometry: shapely.Geometry) -> tuple[float, float]:
    """The corner that comes first in row-major order."""
    x, y = shapely.get_coordinates(geometry).T
    return float(y.min()), float(x[y == y.min()].min())


@settings(max_examples=40, deadline=None)
@given(class_maps, st.integers(1, 14))
def test_areas_are_those_of_gdal_as_point_sets(class_map: NDArray[np.uint8], block: int) -> None:
    check_against_gdal(class_map, block)


@pytest.mark.parametrize("name", CASES)
def test_shapes_that_are_hard_to_trace(name: str) -> None:
    check_against_gdal(np.ascontiguousarray(CASES[name]), 3)


def test_attributes_are_those_of_the_whole_area() -> None:
    values = blobs(60, sigma=1)
    stored = np.random.default_rng(0).integers(0, 201, values.shape).astype(np.uint8)
    confidence = georeferenced(stored, METRE, legend=None)
    found = polygons_of(values, connectivity=8, confidence=confidence)
    plain = polygons_of(values)
    assert len(found) < len(plain)
    assert found.area_m2.sum() == values.size
    np.testing.assert_allclose(found.perimeter_m.sum(), plain.perimeter_m.sum())
    labels = {code: ndimage.label(values == code, EIGHT)[0] for code in range(1, 7)}
    for row in found.itertuples():
        inside = row.geometry.representative_point()
        col, line = ~METRE @ (inside.x, inside.y)
        part = labels[row.class_id] == labels[row.class_id][int(line), int(col)]
        assert row.area_m2 == part.sum()
        assert row.confidence == pytest.approx(stored[part].mean() / 200)
        assert row.confidence_p10 == np.percentile(stored[part], 10, method="inverted_cdf") / 200


@pytest.mark.parametrize("options", [{}, {"simplify_m": 1.5}])
def test_the_smallest_area_is_that_of_the_whole(options: dict[str, float]) -> None:
    values = np.full((12, 12), 2, np.uint8)
    for at in range(2, 6):
        values[at, at] = 1
    values[9, 9] = 1
    found = polygons_of(values, classes=["building"], connectivity=8, min_area_m2=3, **options)
    assert len(found) == 1
    assert len(found.geometry[0].geoms) == 4


def test_layers_are_of_multipolygons_even_if_empty(tmp_path: Path) -> None:
    raster = write_raster(tmp_path / "c.tif", np.array([[1, 2], [2, 1]], np.uint8), UTM, nodata=255)
    vectorize_raster(raster, tmp_path / "p.gpkg", VectorOptions(connectivity=8))
    for layer, count in (("building", 1), ("water", 0)):
        info = pyogrio.read_info(tmp_path / "p.gpkg", layer=layer)
        assert (info["geometry_type"], info["features"]) == ("MultiPolygon", count)
    assert gpd.read_file(tmp_path / "p.gpkg", layer="building").area_m2.tolist() == [0.5]


def test_other_neighborhoods_are_refused() -> None:
    with pytest.raises(InputError, match="not 6"):
        VectorOptions(connectivity=6)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="--connectivity 4 with --split"):
        VectorOptions(connectivity=8, split=["building"])
