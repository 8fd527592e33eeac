"""Traced polygons against GDAL's on the whole raster, for any block size (promise 7)."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from oracles import CASES, NONE, class_maps, coverage_of, gdal_polygons, keys, sizes

from geoseg.grid import Window
from geoseg.vector.blocks import Blocks
from geoseg.vector.rings import build_polygons
from geoseg.vector.trace import BACKGROUND, trace_block


def check_against_gdal(class_map: NDArray[np.uint8], block: int) -> None:
    coverage = coverage_of(class_map, Blocks.regular(class_map.shape, block))
    polygons = build_polygons(coverage, Affine.identity())
    assert keys(zip(coverage.components.code, polygons, strict=True)) == gdal_polygons(class_map, NONE)
    assert shapely.is_valid(polygons).all()
    assert shapely.coverage_is_valid(polygons)
    assert shapely.is_ccw(shapely.get_exterior_ring(polygons)).all()
    np.testing.assert_array_equal(shapely.area(polygons), coverage.components.pixels)


@settings(max_examples=60, deadline=None)
@given(class_maps, st.integers(1, 14))
def test_blockwise_polygons_equal_whole_raster_polygons(class_map: NDArray[np.uint8], block: int) -> None:
    check_against_gdal(class_map, block)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), sizes, sizes, st.integers(1, 5))
def test_two_class_noise_full_of_diagonal_touches(seed: int, height: int, width: int, block: int) -> None:
    check_against_gdal(np.random.default_rng(seed).integers(0, 2, (height, width)).astype(np.uint8), block)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("block", [1, 2, 3, 4, 100])
def test_shapes_that_are_hard_to_trace(name: str, block: int) -> None:
    check_against_gdal(np.ascontiguousarray(CASES[name]), block)


def test_all_nodata_has_no_components_and_no_arcs() -> None:
    coverage = coverage_of(np.full((5, 6), NONE, np.uint8), Blocks.regular((5, 6), 2))
    assert coverage.components.code.size == 0
    assert len(coverage.arcs.points) == 0
    assert build_polygons(coverage, Affine.identity()).size == 0


def test_a_straight_border_keeps_only_its_junction() -> None:
    class_map = np.array([[1, 1, 1, 1], [2, 2, 3, 3]], np.uint8)
    polygons = build_polygons(coverage_of(class_map, Blocks.regular((2, 4), 1)), Affine.identity())
    assert (2.0, 1.0) in polygons[0].exterior.coords
    assert len(polygons[0].exterior.coords) == 6  # four corners and the junction, closed


def test_the_halo_is_counted_in_no_component() -> None:
    codes = np.zeros((3, 4), np.int32)
    components = trace_block(codes, Window(4, 6, 2, 3), 20).components
    assert components.pixels.tolist() == [6]
    assert components.first.tolist() == [4 * 20 + 6]


def test_an_arc_names_its_two_sides() -> None:
    codes = np.full((4, 4), BACKGROUND, np.int32)
    codes[1:3, 1:3] = 7
    arcs = trace_block(codes, Window(0, 0, 2, 2), 2).arcs
    assert arcs.points.tolist() == [[0, 0], [0, 2], [2, 2], [2, 0], [0, 0]]
    assert arcs.left.tolist() == [-1]  # eastwards along the top: outside is on the left
    assert arcs.right.tolist() == [0]


@pytest.mark.parametrize(
    "transform",
    [
        Affine(2.0, 0, 100, 0, -2.0, 50),
        Affine(2.0, 0, 100, 0, 2.0, 50),
        Affine(2.6, 1.5, 10, 1.5, -2.6, 20),
        Affine(-1.0, 0, 0, 0, -1.0, 0),
    ],
    ids=["north-up", "south-up", "rotated", "mirrored"],
)
def test_shells_are_counter_clockwise_after_any_transform(transform: Affine) -> None:
    class_map = CASES["donut with islands in holes"]
    coverage = coverage_of(class_map, Blocks.regular(class_map.shape, 5))
    polygons = build_polygons(coverage, transform)
    holes = [ring for polygon in polygons for ring in polygon.interiors]
    assert shapely.is_ccw(shapely.get_exterior_ring(polygons)).all()
    assert holes
    assert not shapely.is_ccw(np.array(holes)).any()
    expected = coverage.components.pixels * abs(transform.determinant)
    np.testing.assert_allclose(shapely.area(polygons), expected, rtol=1e-12)
