"""Areas of interest: on the scene's grid, in any CRS, and exactly the crop of the full run."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from builders import HALF_METRE, read_band, tiny_model, write_rgb
from numpy.typing import NDArray
from rasterio.crs import CRS
from scene_files import UTM, ramp, write

from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.inference import RunOptions
from geoseg.pipeline import segment_file
from geoseg.raster.aoi import AreaOfInterest, read_aoi
from geoseg.raster.handles import open_dataset

SHAPE = (120, 140)
ROTATED = Affine(0.4, 0.3, 500_000, 0.3, -0.4, 5_000_000)


def polygon_file(path: Path, polygons: list[shapely.Geometry], *, crs: str | None = UTM) -> Path:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="'crs' was not provided")
        gpd.GeoDataFrame(geometry=polygons, crs=crs).to_file(path)
    return path


def on_grid(points: list[tuple[float, float]], transform: Affine) -> shapely.Polygon:
    """A polygon given by (column, row)."""
    return shapely.Polygon([transform @ point for point in points])


TRIANGLE = [(20.3, 10.2), (111.7, 33.1), (47.9, 88.8)]


def inside(transform: Affine, polygons: list[shapely.Polygon]) -> NDArray[np.bool_]:
    """Pixels whose center lies within, by shapely."""
    rows, cols = np.indices(SHAPE)
    xs, ys = transform @ (cols + 0.5, rows + 0.5)
    return shapely.contains_xy(shapely.union_all(polygons), xs, ys)


@pytest.mark.parametrize("transform", [HALF_METRE, ROTATED, Affine(0.5, 0, 3e5, 0, 0.5, 5e6)])
def test_pixels_whose_center_lies_within_are_kept(tmp_path: Path, transform: Affine) -> None:
    polygons = [on_grid(TRIANGLE, transform), on_grid([(100, 90), (120, 90), (120, 110), (100, 110)], transform)]
    aoi = read_aoi(
        polygon_file(tmp_path / "aoi.gpkg", polygons), shape=SHAPE, transform=transform, crs=CRS.from_string(UTM)
    )
    expected = inside(transform, polygons)
    assert expected.any()
    found = np.zeros(SHAPE, np.bool_)
    found[aoi.window.slices] = aoi.mask(aoi.window)
    assert np.array_equal(found, expected)
    part = Window(30, 40, 25, 60)
    assert np.array_equal(aoi.mask(part), expected[part.slices])


def test_the_result_is_the_crop_of_the_full_run(tmp_path: Path) -> None:
    scene = write_rgb(tmp_path / "scene.tif", SHAPE)
    aoi = polygon_file(tmp_path / "aoi.gpkg", [on_grid(TRIANGLE, HALF_METRE)])
    run = {"device": "cpu", "precision": "float32", "chip": 96, "block": 64}
    for name, area in (("full", None), ("part", aoi)):
        segment_file(
            scene,
            tmp_path / f"{name}.tif",
            model=tiny_model(),
            run=RunOptions(aoi=area, **run),
            confidence=tmp_path / f"{name}_confidence.tif",
        )
    window = Window(10, 20, 79, 92)
    kept = inside(HALF_METRE, [on_grid(TRIANGLE, HALF_METRE)])[window.slices]
    for suffix in ("", "_confidence"):
        full = read_band(tmp_path / f"full{suffix}.tif")[window.slices]
        assert np.array_equal(read_band(tmp_path / f"part{suffix}.tif"), np.where(kept, full, 255))
    with rasterio.open(tmp_path / "part.tif") as file:
        assert file.transform == HALF_METRE @ Affine.translation(20, 10)
        assert file.crs == CRS.from_string(UTM)
    again = segment_file(scene, tmp_path / "part.tif", model=tiny_model(), run=RunOptions(aoi=aoi, **run))
    assert again.up_to_date


def test_an_area_in_another_crs_is_brought_to_the_scenes(tmp_path: Path) -> None:
    polygon = on_grid(TRIANGLE, HALF_METRE)
    there = gpd.GeoSeries([polygon], crs=UTM).to_crs("EPSG:4326").iloc[0]
    path = polygon_file(tmp_path / "aoi.geojson", [there], crs="EPSG:4326")
    aoi = read_aoi(path, shape=SHAPE, transform=HALF_METRE, crs=CRS.from_string(UTM))
    found = np.zeros(SHAPE, np.bool_)
    found[aoi.window.slices] = aoi.mask(aoi.window)
    assert (found != inside(HALF_METRE, [polygon])).sum() <= 2  # GeoJSON keeps seven digits: a centimetre


def test_neither_has_a_crs(tmp_path: Path) -> None:
    path = polygon_file(tmp_path / "aoi.fgb", [on_grid(TRIANGLE, Affine.identity())], crs=None)
    aoi = read_aoi(path, shape=SHAPE, transform=Affine.identity(), crs=None)
    assert aoi.window == Window(10, 20, 79, 92)


def test_a_polygon_without_any_pixel_center_gives_nodata_alone(tmp_path: Path) -> None:
    polygon = on_grid([(10.6, 10.6), (10.9, 10.6), (10.9, 10.9)], HALF_METRE)
    path = polygon_file(tmp_path / "aoi.gpkg", [polygon])
    aoi = read_aoi(path, shape=SHAPE, transform=HALF_METRE, crs=CRS.from_string(UTM))
    assert aoi.window == Window(10, 10, 1, 1)
    assert not aoi.mask(aoi.window).any()


@pytest.mark.parametrize(
    ("geometry", "crs", "told"),
    [
        (on_grid([(900, 900), (950, 900), (950, 950)], HALF_METRE), UTM, "lies outside the scene.* geoseg info"),
        (shapely.Point(500_010, 4_999_990), UTM, "holds no polygon"),
        (shapely.Polygon(), UTM, "holds no polygon"),
        (on_grid(TRIANGLE, HALF_METRE), None, "has no CRS.* ogr2ogr"),
        (shapely.box(1000, 95, 1001, 96), "EPSG:4326", r"(outside the scene|cannot be brought)"),
    ],
)
def test_what_cannot_be_used_is_told(tmp_path: Path, geometry: shapely.Geometry, crs: str | None, told: str) -> None:
    path = polygon_file(tmp_path / ("aoi.gpkg" if crs else "aoi.fgb"), [geometry], crs=crs)
    with pytest.raises(InputError, match=told):
        read_aoi(path, shape=SHAPE, transform=HALF_METRE, crs=CRS.from_string(UTM))


def test_a_scene_without_crs_wants_an_area_without(tmp_path: Path) -> None:
    path = polygon_file(tmp_path / "aoi.gpkg", [on_grid(TRIANGLE, HALF_METRE)])
    with pytest.raises(InputError, match="The scene has no CRS"):
        read_aoi(path, shape=SHAPE, transform=HALF_METRE, crs=None)


def test_missing_and_foreign_files_are_told(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no vector file")
    (tmp_path / "table.csv").write_text("name,count\na,1\n")
    for name, told in (
        ("gone.gpkg", "does not exist"),
        ("notes.txt", "cannot be read as a vector file"),
        ("table.csv", "without geometry"),
    ):
        with pytest.raises(InputError, match=told):
            read_aoi(tmp_path / name, shape=SHAPE, transform=HALF_METRE, crs=CRS.from_string(UTM))


def layered(path: Path) -> Path:
    """Two layers of polygons, a layer of points and a table."""
    for name, geometry in (
        ("fields", on_grid(TRIANGLE, HALF_METRE)),
        ("lakes", on_grid([(0, 0), (9, 0), (9, 9)], HALF_METRE)),
        ("wells", shapely.Point(500_010, 4_999_990)),
    ):
        gpd.GeoDataFrame(geometry=[geometry], crs=UTM).to_file(path, layer=name)
    pyogrio.write_dataframe(pd.DataFrame({"style": ["green"]}), path, layer="layer_styles")
    return path


def test_of_several_layers_one_is_named(tmp_path: Path) -> None:
    grid = {"shape": SHAPE, "transform": HALF_METRE, "crs": CRS.from_string(UTM)}
    path = layered(tmp_path / "area.gpkg")
    with pytest.raises(InputError, match=r"has 3 layers \(fields, lakes, wells\); name one, .*area.gpkg:fields"):
        read_aoi(path, **grid)
    with pytest.raises(InputError, match=r"no layer 'roads' with geometry; it has fields, lakes, wells"):
        read_aoi(f"{path}:roads", **grid)
    with pytest.raises(InputError, match="holds no polygon"):
        read_aoi(f"{path}:wells", **grid)
    assert read_aoi(f"{path}:lakes", **grid).window == Window(0, 0, 9, 9)
    assert read_aoi(f"{path}:fields", **grid).window == Window(10, 20, 79, 92)


def test_a_layer_beside_a_table_need_not_be_named_and_a_colon_is_a_letter(tmp_path: Path) -> None:
    grid = {"shape": SHAPE, "transform": HALF_METRE, "crs": CRS.from_string(UTM)}
    path = tmp_path / "area.gpkg"
    gpd.GeoDataFrame(geometry=[on_grid(TRIANGLE, HALF_METRE)], crs=UTM).to_file(path, layer="fields")
    pyogrio.write_dataframe(pd.DataFrame({"style": ["green"]}), path, layer="layer_styles")
    assert read_aoi(path, **grid) == read_aoi(path.rename(tmp_path / "area:fields.gpkg"), **grid)


def test_threads_that_rasterize_at_once_warn_of_nothing(tmp_path: Path) -> None:
    """rasterio silences its own warning with a filter that threads take from each other."""
    polygon = shapely.box(0, 0, 60, 60)
    aoi = AreaOfInterest((shapely.to_wkb(polygon),), Affine.identity(), Window(0, 0, 64, 64))
    unplaced = str(write(tmp_path / "a.tif", ramp(1), crs=None, transform=None))

    def work(_: int) -> None:
        aoi.mask(Window(0, 0, 8, 8))
        open_dataset(unplaced).close()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(400)))
    assert caught == []


def test_an_invalid_ring_is_mended(tmp_path: Path) -> None:
    bow = on_grid([(10, 10), (50, 50), (50, 10), (10, 50)], HALF_METRE)
    path = polygon_file(tmp_path / "aoi.gpkg", [bow])
    aoi = read_aoi(path, shape=SHAPE, transform=HALF_METRE, crs=CRS.from_string(UTM))
    assert aoi.mask(Window(10, 10, 40, 40)).sum() == pytest.approx(800, abs=45)
