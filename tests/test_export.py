"""Polygons written to files and read back by other programs' readers."""

from __future__ import annotations

import logging
import sqlite3
import xml.etree.ElementTree as ET
from contextlib import closing
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyogrio
import pyproj
import pytest
import shapely
from test_vectorize import georeferenced, noise

from geoseg.errors import GeosegError, InputError
from geoseg.legend import LANDCOVER, LegendClass
from geoseg.vector import check_vector_output, vectorize, write_polygons

# odc-geo multiplies transforms the way that affine 3.1 is about to deprecate
pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")

SELECTIONS = LANDCOVER.select()


@pytest.fixture(scope="module")
def polygons() -> gpd.GeoDataFrame:
    confidence = georeferenced(np.full((23, 31), 100, np.uint8), legend=None)
    return vectorize(georeferenced(noise()), confidence=confidence)


def assert_same(read: gpd.GeoDataFrame, written: gpd.GeoDataFrame) -> None:
    assert list(read.columns) == list(written.columns)
    assert read.crs == written.crs
    for column in written.columns.drop("geometry"):
        assert read[column].tolist() == written[column].tolist()
    assert (read.geometry.to_wkb() == written.geometry.to_wkb()).all()


def test_geopackage_has_one_layer_per_class(polygons: gpd.GeoDataFrame, tmp_path: Path) -> None:
    path = tmp_path / "p.gpkg"
    write_polygons(polygons, path, selections=SELECTIONS)
    layers = dict(pyogrio.list_layers(path).tolist())
    assert list(layers) == [*LANDCOVER.names, "layer_styles"]
    assert {layers[name] for name in LANDCOVER.names} == {"Polygon"}
    for name in LANDCOVER.names:
        expected = polygons[polygons.class_name == name].reset_index(drop=True)
        assert_same(gpd.read_file(path, layer=name), expected)


@pytest.mark.parametrize("single_layer", [False, True])
def test_geopackage_carries_styles_and_spatial_indexes(
    polygons: gpd.GeoDataFrame, tmp_path: Path, single_layer: bool
) -> None:
    path = tmp_path / "p.gpkg"
    write_polygons(polygons, path, selections=SELECTIONS, single_layer=single_layer)
    names = ["polygons"] if single_layer else list(LANDCOVER.names)
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute(
            "SELECT f_table_name, f_table_catalog, f_table_schema, f_geometry_column, useAsDefault, styleQML, styleSLD "
            "FROM layer_styles ORDER BY id"
        ).fetchall()
        tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master")}
        kinds = dict(database.execute("SELECT table_name, data_type FROM gpkg_contents"))
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert [row[0] for row in rows] == names
    assert {row[1:5] for row in rows} == {("", "", "geom", 1)}
    assert kinds["layer_styles"] == "attributes"
    assert {f"rtree_{name}_geom" for name in names} <= tables
    for _, *_, qml, sld in rows:
        for text in (qml, sld):
            ET.fromstring(text)
    colors = " ".join(row[5] for row in rows)
    assert all(f"{','.join(map(str, c.rgb))},255" in colors for c in LANDCOVER.classes)
    assert ("categorizedSymbol" in rows[0][5]) == single_layer
    assert ("PropertyIsEqualTo" in rows[0][6]) == single_layer


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".parquet"])
def test_one_layer_with_all_classes_comes_back_whole(polygons: gpd.GeoDataFrame, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"p{suffix}"
    write_polygons(polygons, path, selections=SELECTIONS, single_layer=True)
    read = gpd.read_parquet(path) if suffix == ".parquet" else gpd.read_file(path, layer="polygons")
    if suffix == ".fgb":  # ordered along a Hilbert curve, for its index
        order, expected = read.geometry.to_wkb().argsort(), polygons.geometry.to_wkb().argsort()
        read = read.iloc[order].reset_index(drop=True)
        assert_same(read, polygons.iloc[expected].reset_index(drop=True))
    else:
        assert_same(read, polygons)


def test_geojson_is_in_longitude_and_latitude(
    polygons: gpd.GeoDataFrame, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "p.geojson"
    with caplog.at_level(logging.WARNING):
        write_polygons(polygons, path, selections=SELECTIONS)
    assert "reprojected" in caplog.text
    assert '"crs"' not in path.read_text(encoding="utf-8")[:500]
    read = gpd.read_file(path)
    assert read.crs == pyproj.CRS("EPSG:4326")
    assert list(read.columns) == list(polygons.columns)
    assert read.class_name.tolist() == polygons.class_name.tolist()
    assert shapely.is_ccw(shapely.get_exterior_ring(read.geometry.values)).all()
    assert read.to_crs(polygons.crs).geometry.distance(polygons.geometry).max() < 0.01
    np.testing.assert_allclose(read.to_crs(polygons.crs).area, polygons.area_m2, rtol=0.02)


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".parquet", ".geojson"])
def test_equal_polygons_give_equal_bytes(polygons: gpd.GeoDataFrame, tmp_path: Path, suffix: str) -> None:
    files = [tmp_path / f"{name}{suffix}" for name in ("first", "second")]
    for file in files:
        write_polygons(polygons, file, selections=SELECTIONS)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert sorted(tmp_path.iterdir()) == sorted(files)


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".parquet", ".geojson"])
def test_no_polygons_give_a_layer_with_all_columns(tmp_path: Path, suffix: str) -> None:
    empty = vectorize(georeferenced(np.full((3, 3), 255, np.uint8)))
    path = tmp_path / f"p{suffix}"
    write_polygons(empty, path, selections=())
    if suffix == ".parquet":
        read = gpd.read_parquet(path)
        assert list(read.columns) == list(empty.columns)
    elif suffix != ".geojson":  # which keeps columns with its features only
        info = pyogrio.read_info(path, layer="polygons")
        assert info["fields"].tolist() == list(empty.columns.drop("geometry"))
        assert info["geometry_type"] == "Polygon"
        assert len(gpd.read_file(path, layer="polygons")) == 0
    assert path.exists()


def test_polygons_without_crs(tmp_path: Path) -> None:
    polygons = vectorize(georeferenced(noise(), crs=None))
    path = tmp_path / "p.gpkg"
    write_polygons(polygons, path, single_layer=True)
    read = gpd.read_file(path, layer="polygons")
    assert read.area_px.tolist() == polygons.area_px.tolist()
    with pytest.raises(InputError, match="no CRS"):
        write_polygons(polygons, tmp_path / "p.geojson")


def test_a_layer_for_each_class_found_where_no_legend_is_given(polygons: gpd.GeoDataFrame, tmp_path: Path) -> None:
    path = tmp_path / "p.gpkg"
    write_polygons(polygons, path)
    assert pyogrio.list_layers(path)[:, 0].tolist() == [*LANDCOVER.names, "layer_styles"]


def test_an_existing_file_is_kept_unless_told_otherwise(polygons: gpd.GeoDataFrame, tmp_path: Path) -> None:
    path = tmp_path / "p.gpkg"
    path.write_text("mine")
    with pytest.raises(InputError, match="exists"):
        write_polygons(polygons, path)
    assert path.read_text() == "mine"
    leftover = tmp_path / "p.gpkg-wal"
    leftover.write_text("of the old file")
    write_polygons(polygons, path, overwrite=True)
    assert pyogrio.list_layers(path).shape[0] == 7
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file(
    polygons: gpd.GeoDataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "p.gpkg"
    path.write_text("mine")

    def fail(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("geoseg.vector.export._styles", fail)
    with pytest.raises(GeosegError, match="No space left"):
        write_polygons(polygons, path, overwrite=True)
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]
    assert pyogrio.get_gdal_config_option("OGR_CURRENT_DATE") is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("p.shp", "10 letters"),
        ("p.kml", r"'\.kml'; polygons are written to \.gpkg, \.parquet"),
        ("p", "'nothing'"),
        ("nowhere/p.gpkg", "does not exist"),
    ],
)
def test_outputs_that_cannot_be_written_are_refused(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_vector_output(tmp_path / name, overwrite=False)


def test_an_output_that_is_an_input_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.gpkg"
    path.touch()
    with pytest.raises(InputError, match="same file"):
        check_vector_output(path, overwrite=True, inputs=[path])


@pytest.mark.parametrize("name", ["layer_styles", "gpkg_contents", "Water"])
def test_layer_names_that_a_geopackage_cannot_have(polygons: gpd.GeoDataFrame, tmp_path: Path, name: str) -> None:
    legend = LANDCOVER.model_copy(
        update={"classes": (*LANDCOVER.classes, LegendClass(id=9, name=name, color="#000000"))}
    )
    with pytest.raises(InputError, match="single layer"):
        write_polygons(polygons, tmp_path / "p.gpkg", selections=legend.select())
    write_polygons(polygons, tmp_path / "p.gpkg", selections=legend.select(), single_layer=True)
