"""Touching objects told apart: by their necks, whatever the blocks, sharing their walls."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio.features
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from test_vectorize import georeferenced, write_raster

import geoseg
from geoseg import VectorOptions
from geoseg.vector.split import split_part

BUILDING, BARE = 1, 3
UTM = Affine(0.5, 0, 400_000, 0, -0.5, 5_000_000)


def houses(count: int = 3, side: int = 20, bridge: int = 6, width: int = 3) -> NDArray[np.uint8]:
    """Squares in a row that touch by a bridge."""
    values = np.full((side + 10, count * (side + width) + 10), BARE, np.uint8)
    for number in range(count):
        left = 5 + number * (side + width)
        values[5 : 5 + side, left : left + side] = BUILDING
        if number < count - 1:
            middle = 5 + (side - bridge) // 2
            values[middle : middle + bridge, left + side : left + side + width] = BUILDING
    return values


def test_squares_that_touch_by_a_bridge_are_objects() -> None:
    labels = split_part(houses() == BUILDING)
    assert labels.max() == 3
    assert set(labels[houses() == BUILDING]) == {1, 2, 3}
    assert not labels[houses() != BUILDING].any()
    assert [labels[15, col] for col in (15, 38, 61)] == [1, 2, 3]


@pytest.mark.parametrize("name", ["square", "bar", "L", "T", "U", "cross", "disc", "rough"])
def test_what_has_no_neck_is_one(name: str) -> None:
    inside = np.zeros((70, 70), bool)
    match name:
        case "square":
            inside[10:60, 10:60] = True
        case "bar":
            inside[30:38, 2:68] = True
        case "L":
            inside[5:60, 5:25] = inside[40:60, 5:65] = True
        case "T":
            inside[5:25, 5:65] = inside[5:60, 25:45] = True
        case "U":
            inside[5:65, 5:20] = inside[5:65, 50:65] = inside[50:65, 5:65] = True
        case "cross":
            inside[25:45, 5:65] = inside[5:65, 25:45] = True
        case "disc":
            rows, cols = np.indices(inside.shape)
            inside = (rows - 35) ** 2 + (cols - 35) ** 2 < 900
        case _:
            inside[10:60, 10:60] = True
            inside ^= ndimage.binary_dilation(inside) & ~inside & (np.random.default_rng(0).random(inside.shape) < 0.5)
            inside = ndimage.label(inside)[0] == 1
    assert split_part(inside).max() == 1


def test_a_dip_in_the_confidence_is_a_neck_too() -> None:
    inside = np.zeros((40, 80), bool)
    inside[10:30, 10:70] = True
    confidence = np.where(abs(np.arange(80) - 40) < 3, 0.3, 0.95) * np.ones((40, 1))
    assert split_part(inside).max() == 1
    assert split_part(inside, confidence).max() == 2
    assert split_part(inside, np.full((40, 80), -1.0)).max() == 1


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(7, 90))
def test_polygons_are_the_objects_of_the_whole_for_any_blocks(seed: int, block: int) -> None:
    """Blobs that touch: the oracle labels the whole raster, and GDAL traces it."""
    rng = np.random.default_rng(seed)
    inside = ndimage.gaussian_filter(rng.standard_normal((80, 90)), 4) > 0.02
    values = np.where(inside, BUILDING, BARE).astype(np.uint8)
    found = geoseg.vectorize(
        georeferenced(values, transform=UTM), classes=["building"], split=["building"], block=block
    )
    whole, _ = ndimage.label(inside)
    ids, count = np.zeros(values.shape, np.int32), 0
    for part, box in enumerate(ndimage.find_objects(whole), 1):
        own = whole[box] == part
        labels = split_part(own) if own.sum() >= 24 else own.astype(np.int32)
        ids[box][own] = labels[own] + count
        count += int(labels.max())
    shapes = rasterio.features.shapes(ids, mask=ids > 0, transform=UTM, connectivity=4)
    expected = {shapely.normalize(shapely.geometry.shape(shape).simplify(0)).wkt for shape, _ in shapes}
    assert {shapely.normalize(polygon.simplify(0)).wkt for polygon in found.geometry} == expected
    assert set(found.class_name) <= {"building"}
    assert shapely.coverage_is_valid(found.geometry.to_numpy())


def test_walls_stay_shared_when_they_are_shaped(tmp_path: Path) -> None:
    raster = write_raster(tmp_path / "map.tif", houses(4), UTM)
    for name, options in {"plain": {}, "straight": {"regularize": ["building"]}, "thin": {"simplify_m": 1.0}}.items():
        output = tmp_path / f"{name}.fgb"
        summary = geoseg.vectorize_file(raster, output, VectorOptions(split=["building"], fill_holes_m2=3, **options))
        assert summary.counts["building"] == 4
        polygons = gpd.read_file(output)
        assert shapely.coverage_is_valid(polygons.geometry.to_numpy())
        touching = sorted(polygons[polygons.class_name == "building"].geometry, key=lambda one: one.bounds)
        assert all(shapely.intersection(a, b).length > 1 for a, b in pairwise(touching)), name
