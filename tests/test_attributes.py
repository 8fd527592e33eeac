"""Columns beside the geometry: where polygons come from, and statistics of other rasters."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import rasterio
import rasterio.features
from affine import Affine
from numpy.typing import NDArray
from scene_files import write
from test_pipeline import by_index, index_scene
from test_shapes import blobs
from test_vectorize import UTM, write_raster

from geoseg.errors import InputError
from geoseg.pipeline import vectorize_file
from geoseg.vector import VectorOptions, vectorize_raster

STATISTICS = {"mean": np.mean, "stdev": np.std, "min": np.min, "max": np.max}


def read(path: Path) -> gpd.GeoDataFrame:
    return gpd.read_parquet(path) if path.suffix == ".parquet" else gpd.read_file(path, layer="polygons")


@pytest.mark.parametrize("suffix", [".gpkg", ".parquet", ".fgb", ".geojson"])
def test_polygons_tell_scene_date_and_model_in_every_format(tmp_path: Path, suffix: str) -> None:
    scene = index_scene(tmp_path / "scene.tif")
    with rasterio.open(scene, "r+") as file:
        file.update_tags(ns="IMAGERY", ACQUISITIONDATETIME="2023-07-14 10:40:31")
    cover, output = tmp_path / "cover.tif", tmp_path / f"p{suffix}"
    by_index(scene, cover, polygons=output, drawing=VectorOptions(single_layer=True))
    with rasterio.open(cover) as file:
        digest = file.tags()["GEOSEG_MODEL_DIGEST"]
    polygons = read(output)
    assert set(polygons.source) == {"scene.tif"}
    assert set(polygons.model) == {f"spectral-index {digest[:12]}"}
    assert {str(date)[:10] for date in polygons.date} == {"2023-07-14"}
    if suffix == ".gpkg":
        assert pyogrio.read_info(output, layer="polygons")["dtypes"].tolist()[-2] == "datetime64[D]"


def test_a_date_nobody_knows_is_no_column_and_a_stated_one_counts(tmp_path: Path) -> None:
    raster = write_raster(tmp_path / "cover.tif", blobs(20), UTM, nodata=255)
    vectorize_raster(raster, tmp_path / "a.parquet")
    assert list(read(tmp_path / "a.parquet").columns[-2:]) == ["source", "geometry"]
    vectorize_raster(raster, tmp_path / "b.parquet", VectorOptions(date="2024-06-30"))
    found = read(tmp_path / "b.parquet")
    assert set(found.date) == {dt.date(2024, 6, 30)}
    assert set(found.source) == {"cover.tif"}
    with pytest.raises(InputError, match="2024-06-30, not as"):
        vectorize_raster(raster, tmp_path / "c.parquet", VectorOptions(date="30.06.2024"))


def test_statistics_are_those_of_the_pixels(tmp_path: Path) -> None:
    """A raster of twice the pixels a side: whole pixels lie in each polygon, NumPy is the oracle."""
    values = blobs(60)
    raster = write_raster(tmp_path / "cover.tif", values, UTM, nodata=255)
    rng = np.random.default_rng(0)
    fine = rng.normal(size=(2, 120, 120)).astype(np.float32)
    fine[:, rng.random((120, 120)) < 0.1] = -9999
    other = write(
        tmp_path / "My NDVI.tif", fine, transform=UTM @ Affine.scale(0.5), nodata=-9999, descriptions=("now", "Then")
    )
    vectorize_raster(raster, tmp_path / "p.parquet", VectorOptions(stats=[other], min_area_m2=1))
    found = read(tmp_path / "p.parquet")
    expected = [f"my_ndvi_{band}_{name}" for band in ("now", "then") for name in STATISTICS]
    assert list(found.columns[-9:-1]) == expected
    pixels = rasterio.features.rasterize(
        zip(found.geometry, found.index, strict=True), (120, 120), -1, transform=UTM @ Affine.scale(0.5)
    )
    for band, values_of_band in zip(("now", "then"), fine, strict=True):
        for row in found.index:
            inside = values_of_band[(pixels == row) & (values_of_band != -9999)].astype(np.float64)
            for name, statistic in STATISTICS.items():
                np.testing.assert_allclose(found[f"my_ndvi_{band}_{name}"][row], statistic(inside), rtol=1e-6)


def test_pixels_count_by_their_share(tmp_path: Path) -> None:
    raster = write_raster(tmp_path / "cover.tif", np.full((2, 2), 1, np.uint8), UTM, nodata=255)
    coarse = np.array([[[1.0, 3.0]]], np.float32)
    other = write(tmp_path / "dem.tif", coarse, transform=UTM @ Affine.translation(0.5, 0) @ Affine.scale(1, 2))
    vectorize_file(raster, tmp_path / "p.fgb", VectorOptions(stats=[other]))
    found = gpd.read_file(tmp_path / "p.fgb")
    assert found.dem_mean.tolist() == [pytest.approx(5 / 3)]  # a whole pixel of 1 and half a pixel of 3
    assert (found.dem_min.tolist(), found.dem_max.tolist()) == ([1], [3])


def test_an_empty_layer_has_the_columns_too(tmp_path: Path) -> None:
    raster = write_raster(tmp_path / "cover.tif", np.full((4, 4), 255, np.uint8), UTM, nodata=255)
    other = write(tmp_path / "dem.tif", np.ones((1, 4, 4), np.float32), transform=UTM)
    options = VectorOptions(stats=[other], date="2024-06-30", single_layer=True, confidence=raster)
    vectorize_raster(raster, tmp_path / "p.gpkg", options)
    info = pyogrio.read_info(tmp_path / "p.gpkg", layer="polygons")
    told = dict(zip(info["fields"].tolist(), info["dtypes"].tolist(), strict=True))
    assert info["features"] == 0
    assert (told["source"], told["date"], told["dem_max"], told["confidence_p10"]) == (
        "object",
        "datetime64[D]",
        "float64",
        "float64",
    )


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ({"crs": "EPSG:3857"}, "other.tif is in EPSG:3857, .* EPSG:32631; gdalwarp -t_srs EPSG:32631"),
        ({"transform": UTM @ Affine.translation(90, 0)}, "lies nowhere"),
        ({"transform": UTM @ Affine.rotation(10)}, "rotated"),
        ({"crs": None}, "is in no CRS"),
    ],
)
def test_rasters_whose_statistics_would_be_wrong_are_refused(
    tmp_path: Path, profile: dict[str, Any], words: str
) -> None:
    raster = write_raster(tmp_path / "cover.tif", blobs(20), UTM, nodata=255)
    other = write(tmp_path / "other.tif", np.ones((1, 20, 20), np.float32), **{"transform": UTM, **profile})
    with pytest.raises(InputError, match=words):
        vectorize_raster(raster, tmp_path / "p.gpkg", VectorOptions(stats=[other]))
    assert not (tmp_path / "p.gpkg").exists()


def test_two_rasters_of_one_name_are_refused(tmp_path: Path) -> None:
    raster = write_raster(tmp_path / "cover.tif", blobs(20), UTM, nodata=255)
    (tmp_path / "b").mkdir()
    others = [write(tmp_path / name, np.ones((1, 20, 20)), transform=UTM) for name in ("dem.tif", "b/dem.tif")]
    with pytest.raises(InputError, match="'dem_max'; rename"):
        vectorize_raster(raster, tmp_path / "p.gpkg", VectorOptions(stats=others))


def holed(rows: int, cols: int) -> NDArray[np.uint8]:
    """One class with holes of another all over, so that some touch whatever line polygons are read along."""
    values = np.ones((rows, cols), np.uint8)
    values[1:-1:3, 1:-1:2] = 2
    return values


STATISTICS_APART = """
import sys
from geoseg.vector import VectorOptions, vectorize_raster, zonal
zonal._CELLS = int(sys.argv[4])
vectorize_raster(sys.argv[1], __import__("pathlib").Path(sys.argv[2]), VectorOptions(stats=[sys.argv[3]]))
"""


@pytest.mark.parametrize("origin", [(0, 0), (7, 9)], ids=["upper left", "inside"])
@pytest.mark.parametrize("cells", [2**22, 100], ids=["whole", "in pieces"])
def test_holes_beside_the_raster_or_a_piece_crash_nothing(tmp_path: Path, origin: tuple[int, int], cells: int) -> None:
    """exactextract 0.3.0 dies of a hole that touches what it looks at from outside; NumPy is the oracle."""
    values = holed(42, 41)
    raster = write_raster(tmp_path / "cover.tif", values, UTM, nodata=255)
    row, col = origin
    part = np.random.default_rng(0).normal(size=(1, 28, 27)).astype(np.float32)
    other = write(tmp_path / "dem.tif", part, transform=UTM @ Affine.translation(col, row))
    arguments = [str(raster), str(tmp_path / "p.parquet"), str(other), str(cells)]
    run = subprocess.run([sys.executable, "-c", STATISTICS_APART, *arguments], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found = read(tmp_path / "p.parquet")
    measured = np.full(values.shape, np.nan, np.float32)
    measured[row : row + 28, col : col + 27] = part[0]
    pixels = rasterio.features.rasterize(zip(found.geometry, found.index, strict=True), values.shape, -1, transform=UTM)
    for index in found.index:
        inside = measured[(pixels == index) & np.isfinite(measured)].astype(np.float64)
        expected = [statistic(inside) if inside.size else np.nan for statistic in STATISTICS.values()]
        np.testing.assert_allclose([found[f"dem_{name}"][index] for name in STATISTICS], expected, rtol=1e-6, atol=1e-9)
    assert 0 < found.dem_mean.isna().sum() < len(found)
