"""Regularized buildings: right angles, in a coverage that stays one; what fits poorly keeps its outline."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from rasterio.features import rasterize
from test_shapes import METRE, NONE, blobs, polygons_of
from test_vectorize import georeferenced, write_raster
from typer.testing import CliRunner

from geoseg import VectorOptions, vectorize_file
from geoseg.cli import app
from geoseg.errors import InputError
from geoseg.vector import vectorize
from geoseg.vector.regularize import SMALLEST_IOU

pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")
BUILDING, BARE, WATER = 1, 3, 6
complete = st.tuples(st.integers(2, 24), st.integers(2, 24)).flatmap(
    lambda shape: hnp.arrays(np.uint8, shape, elements=st.sampled_from([1, 3, 6]))
)

ROWS, COLS = np.indices((64, 64)) - 32
SPOKES = np.cos(6 * np.arctan2(ROWS, COLS)) * 12 + 16 > np.hypot(ROWS, COLS)
STAR = np.where(SPOKES, BUILDING, BARE).astype(np.uint8)


def regularized(values: NDArray[np.uint8], **options: Any) -> gpd.GeoDataFrame:
    return polygons_of(values, regularize=["building"], **options)


def burnt(shapes: list[shapely.Geometry], side: int = 128, around: int = BARE) -> NDArray[np.uint8]:
    """Shapes in pixels (x to the right, y downwards) as buildings."""
    return rasterize([(one, BUILDING) for one in shapes], (side, side), fill=around, dtype="uint8")


def turned(shape: shapely.Geometry, degrees: float) -> shapely.Geometry:
    return gpd.GeoSeries([shape]).rotate(degrees, origin=(64, 64)).iloc[0]


def corners(polygon: shapely.Polygon) -> NDArray[np.float64]:
    """Angles in degrees at the corners of a shell, those of straight lines left out."""
    points = np.array(polygon.exterior.coords)[:-1]
    steps = np.roll(points, -1, axis=0) - points
    before = np.roll(steps, 1, axis=0)
    cross = before[:, 0] * steps[:, 1] - before[:, 1] * steps[:, 0]
    angles = np.degrees(np.arctan2(cross, (before * steps).sum(1)))
    return np.abs(angles[np.abs(angles) > 1e-6])


def shares_of(plain: gpd.GeoDataFrame, found: gpd.GeoDataFrame) -> NDArray[np.float64]:
    """Intersection over union, polygon by polygon."""
    one, other = plain.geometry.values, found.geometry.values
    return shapely.area(shapely.intersection(one, other)) / shapely.area(shapely.union(one, other))


def is_coverage(found: gpd.GeoDataFrame) -> bool:
    shapes = found.geometry.values
    return bool(shapely.coverage_is_valid(shapes) and shapely.is_valid(shapes).all())


L_SHAPE = shapely.Polygon([(30, 30), (100, 30), (100, 60), (62, 60), (62, 95), (30, 95)])


@pytest.mark.parametrize("degrees", [0, 7, 23, 45, 61])
@pytest.mark.parametrize("shape", [shapely.box(30, 40, 90, 80), L_SHAPE])
def test_a_turned_building_gets_its_corners_back(shape: shapely.Polygon, degrees: float) -> None:
    real = turned(shape, degrees)
    found = regularized(burnt([real]))
    building = found.geometry[found.class_id == BUILDING].iloc[0]
    on_pixels = gpd.GeoSeries([building]).affine_transform([1, 0, 0, -1, -METRE.c, METRE.f]).iloc[0]
    assert len(corners(building)) == len(corners(real))
    np.testing.assert_allclose(corners(building), 90, atol=1e-6)
    assert shapely.area(on_pixels & real) / shapely.area(on_pixels | real) > 0.97
    assert is_coverage(found)


def test_right_angles_are_right_on_the_ground() -> None:
    """Pixels twice as wide as high."""
    real = turned(shapely.box(30, 40, 90, 80), 20)
    stretched = gpd.GeoSeries([real]).affine_transform([0.5, 0, 0, 1, 0, 0]).iloc[0]
    wide = georeferenced(burnt([stretched]), Affine(2, 0, 400_000, 0, -1, 5_000_000))
    found = vectorize(wide, regularize=["building"])
    np.testing.assert_allclose(corners(found.geometry[found.class_id == BUILDING].iloc[0]), 90, atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(complete)
@example(np.array([[1, 3], [3, 1]], np.uint8))
def test_the_coverage_stays_one(values: NDArray[np.uint8]) -> None:
    plain, found = polygons_of(values), regularized(values)
    assert is_coverage(found)
    assert found.class_id.tolist() == plain.class_id.tolist()
    assert found.geometry.area.sum() == pytest.approx(values.size)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.7, 2.0]))
@example(1536, 0.0)
@example(1993, 2.0)  # a wall turned a tree of half a pixel inside out
def test_buildings_among_water_and_others_stay_a_coverage(seed: int, simplify: float) -> None:
    values = blobs(64, seed, sigma=2.5)
    plain = polygons_of(values)
    with TemporaryDirectory() as folder:
        scene, output = write_raster(Path(folder) / "lc.tif", values, METRE), Path(folder) / "p.parquet"
        summary = vectorize_file(
            scene, output, VectorOptions(regularize=["building"], simplify_m=simplify, smooth=["water"])
        )
        found = gpd.read_parquet(output)
    assert is_coverage(found)
    assert found.geometry.area.sum() == pytest.approx(values.size)
    is_building = plain.class_id == BUILDING
    assert summary.regularized == is_building.sum()
    assert (shares_of(plain, found)[is_building] < SMALLEST_IOU - 1e-9).sum() <= summary.fallbacks


def test_touching_buildings_share_their_wall() -> None:
    """A terrace whose parts are classes of their own."""
    values = np.full((128, 128), BARE, np.uint8)
    parts = [turned(shapely.box(20 + 25 * k, 40, 45 + 25 * k, 75), 17) for k in range(3)]
    for code, part in zip((1, 6, 1), parts, strict=True):
        values[rasterize([(part, 1)], values.shape, dtype="uint8") == 1] = code
    found = polygons_of(values, regularize=["building", "water"])
    terrace = found.geometry[found.class_id != BARE]
    walls = [shapely.length(a & b) for a, b in pairwise(terrace)]
    assert walls == pytest.approx([35, 35], abs=2)
    np.testing.assert_allclose(np.concatenate([corners(part) for part in terrace]), 90, atol=1e-6)
    assert is_coverage(found)


def test_what_is_no_building_falls_back() -> None:
    found, plain = regularized(STAR), polygons_of(STAR)
    assert is_coverage(found)
    assert shares_of(plain, found).min() >= SMALLEST_IOU


@pytest.mark.parametrize("block", [17, 64])
def test_blocks_leave_no_trace(block: int) -> None:
    values = blobs(96, sigma=3)
    whole, cut = regularized(values, simplify_m=1.0), regularized(values, simplify_m=1.0, block=block)
    assert (whole.geometry.to_wkb() == cut.geometry.to_wkb()).all()


def test_the_command_line_says_how_many_fell_back(tmp_path: Path) -> None:
    values = burnt([turned(shapely.box(30, 40, 90, 80), 20)])
    scene = write_raster(tmp_path / "lc.tif", values, METRE)
    arguments = ["vectorize", str(scene), "-o", str(tmp_path / "p.gpkg"), "--regularize", "building"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0
    assert "straight walls" not in done.output  # none did
    assert len(corners(gpd.read_file(tmp_path / "p.gpkg", layer="building").geometry[0])) == 4
    write_raster(tmp_path / "lc.tif", STAR, METRE)
    done = CliRunner().invoke(app, [*arguments, "--overwrite"])
    assert "1 of 1 polygons fitted no straight walls" in done.output


def test_a_class_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="roof"):
        polygons_of(burnt([L_SHAPE]), regularize=["roof"])


@pytest.mark.parametrize(
    "values", [np.full((1, 1), 1, np.uint8), np.full((9, 9), 1, np.uint8), np.full((4, 4), NONE, np.uint8)]
)
def test_edges_of_the_raster_are_walls_too(values: NDArray[np.uint8]) -> None:
    assert regularized(values).geometry.area.sum() == (values != NONE).sum()
