"""What people hand to `geoseg vectorize` by mistake, and rasters that are right but odd: clear, and nothing is lost."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from numpy.typing import NDArray
from scene_files import write
from test_bad_input import Case, case
from test_shapes import blobs
from test_vectorize import UTM, write_raster

from geoseg.errors import GeosegError
from geoseg.legend import LANDCOVER
from geoseg.raster.disk import locked_folder, partial_folder
from geoseg.vector import VectorOptions, vectorize_raster

__all__ = ["case"]
COLUMNS = ["class_id", "class_name", "area_m2", "perimeter_m", "source"]


def vectorized(case: Case, raster: Path, *arguments: object, name: str = "p.gpkg") -> tuple[int, str]:
    case.output = case.output.with_name(name)
    return case.run("vectorize", raster, "-o", case.output, *arguments)


def cover(case: Case, values: NDArray[np.generic] | None = None, **options: Any) -> Path:
    values = blobs(40) if values is None else values
    return write_raster(case.folder / "cover.tif", values, UTM, **{"nodata": 255, **options})


@pytest.mark.parametrize(
    ("values", "word"),
    [
        (np.ones((1, 20, 20), np.float32), "1 band of float32"),
        (np.ones((3, 20, 20), np.uint8), "3 bands of uint8"),
    ],
)
def test_what_is_no_class_map(case: Case, values: NDArray[Any], word: str) -> None:
    raster = write(case.folder / "scene.tif", values)
    case.refused(vectorized(case, raster), word, "one band of integers", "geoseg segment")


def test_a_broken_legend(case: Case) -> None:
    raster = cover(case)
    with rasterio.open(raster, "r+") as file:
        file.update_tags(GEOSEG_LEGEND="{}")
    case.refused(vectorized(case, raster), "legend", "cover.tif")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--classes", "lava"], ("'lava'", "building")),
        (["--smooth", "lava"], ("'lava'", "building")),
        (["--classes", "building", "--regularize", "water"], ("'water'", "asked for are building")),
        (["--split", "lava"], ("'lava'", "building")),
        (["--classes", "tree,vegetation"], ("'tree'", "twice")),
        (["--min-area", "-1"], ("not -1",)),
        (["--simplify", "nan"], ("not nan",)),
        (["--connectivity", "6"], ("not 6",)),
        (["--connectivity", "8", "--split", "building"], ("--split",)),
        (["--workers", "0"], ("--workers", "not 0")),
        (["--date", "yesterday"], ("'yesterday'", "2024-06-30")),
        (["--confidence", "gone.tif"], ("gone.tif", "does not exist")),
        (["--stats", "gone.tif"], ("gone.tif", "does not exist")),
        (["--partition", "class"], (".parquet",)),
    ],
)
def test_option_values(case: Case, arguments: list[str], words: tuple[str, ...]) -> None:
    case.refused(vectorized(case, cover(case), *arguments), *words)


@pytest.mark.parametrize("option", ["--min-area", "--fill-holes", "--simplify"])
def test_metres_where_there_are_none(case: Case, option: str) -> None:
    raster = cover(case, crs=None)
    case.refused(vectorized(case, raster, option, "5"), "no CRS", "gdal_edit.py -a_srs")


def test_shapefiles_and_geojson_without_a_place(case: Case) -> None:
    raster = cover(case, crs=None)
    case.refused(vectorized(case, raster, name="p.shp"), "10 letters", ".gpkg")
    case.refused(vectorized(case, raster, name="p.geojson"), "no CRS", ".gpkg")


@pytest.mark.parametrize("arguments", [[], ["--simplify", "1", "--smooth", "water"], ["--split", "building"]])
@pytest.mark.parametrize("value", [255, 2])
def test_no_polygon_is_an_empty_layer_of_the_right_columns(case: Case, arguments: list[str], value: int) -> None:
    """All is nodata, or what is there was not asked for."""
    raster = cover(case, np.full((30, 30), value, np.uint8))
    assert vectorized(case, raster, "--classes", "building,water", *arguments) == (0, "")
    for layer in ("building", "water"):
        info = pyogrio.read_info(case.output, layer=layer)
        assert (info["features"], info["geometry_type"], info["crs"]) == (0, "Polygon", "EPSG:32631")
        assert info["fields"].tolist() == COLUMNS


def test_a_class_that_the_legend_lacks_is_told(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    values = blobs(40)
    values[3:6, 3:6] = 77
    assert vectorized(case, cover(case, values))[0] == 0
    assert "77" in caplog.text
    assert pyogrio.list_layers(case.output)[:, 0].tolist() == [*LANDCOVER.names, "layer_styles"]


def test_an_existing_output_stays(case: Case) -> None:
    raster = cover(case)
    case.output.with_name("p.gpkg").write_text("mine")
    code, told = vectorized(case, raster)
    assert code == 2
    assert "exists; give --overwrite" in told
    assert case.output.read_text() == "mine"


def test_a_locked_output(case: Case) -> None:
    raster = cover(case)
    output = case.output.with_name("p.gpkg")
    with locked_folder(partial_folder(output)):
        code, told = vectorized(case, raster)
    assert code == 2
    assert "Another run is writing" in told
    assert not list(output.parent.iterdir())


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The system refuses to write more to a file, as it would on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", ["p.gpkg", "p.parquet", "p.fgb", "p.geojson"])
def test_a_full_disk_leaves_the_old_file_and_the_run_goes_on(
    case: Case, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full while blocks are staged, and then when the polygons are written."""
    monkeypatch.setattr("geoseg.vector.staged.PATIENCE_S", 0.0)
    raster, options = cover(case, blobs(200, sigma=1)), VectorOptions(block=30)
    output = case.output.with_name(name)
    output.write_text("old")
    for size, words in ((4_000, "while staging"), (60_000, f"Writing {output} failed")):
        with files_of_at_most(size), pytest.raises(GeosegError, match="run the same command again") as told:
            vectorize_raster(raster, output, options, overwrite=True)
        assert words in str(told.value)
        assert told.value.exit_code == 1
        assert output.read_text() == "old"
        assert {path.name for path in output.parent.iterdir()} <= {name, f"{name}.geoseg-partial"}
    vectorize_raster(raster, output, options, overwrite=True)
    assert [path.name for path in output.parent.iterdir()] == [name]


def test_very_many_polygons(case: Case) -> None:
    """A checkerboard: each pixel is a polygon."""
    raster = cover(case, (np.indices((150, 160)).sum(0) % 2 + 1).astype(np.uint8))
    assert vectorized(case, raster, "--single-layer") == (0, "")
    polygons = gpd.read_file(case.output, layer="polygons")
    assert len(polygons) == 150 * 160
    assert (shapely.area(polygons.geometry.values) == 0.25).all()
