"""More dates in one GeoPackage, and GeoParquet in parts."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import duckdb
import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely
from test_shapes import blobs
from test_vectorize import UTM, write_raster

from geoseg.errors import GeosegError, InputError
from geoseg.legend import LANDCOVER
from geoseg.vector import VectorOptions, VectorSummary, read_polygons, vectorize_raster

FIRST, SECOND = (VectorOptions(date=date, append=True) for date in ("2020-06-30", "2024-06-30"))


@pytest.fixture
def rasters(tmp_path: Path) -> list[Path]:
    return [write_raster(tmp_path / f"{seed}.tif", blobs(50, seed), UTM, nodata=255) for seed in (0, 1)]


def layers_of(path: Path) -> dict[str, gpd.GeoDataFrame]:
    names = [str(name) for name in pyogrio.list_layers(path)[:, 0] if name != "layer_styles"]
    return {name: gpd.read_file(path, layer=name) for name in names}


def both(rasters: list[Path], output: Path) -> VectorSummary:
    vectorize_raster(rasters[0], output, FIRST)
    return vectorize_raster(rasters[1], output, SECOND)


def test_a_second_date_joins_the_first_layer_by_layer(tmp_path: Path, rasters: list[Path]) -> None:
    output = tmp_path / "p.gpkg"
    summary = both(rasters, output)
    found = layers_of(output)
    assert list(found) == list(LANDCOVER.names)
    for number, (date, raster) in enumerate(zip(("2020-06-30", "2024-06-30"), rasters, strict=True)):
        alone = read_polygons(raster, VectorOptions()).polygons
        for name, layer in found.items():
            rows = layer[layer.date.astype(str).str[:10] == date]
            expected = alone[alone.class_name == name]
            assert (rows.geometry.to_wkb().to_numpy() == expected.geometry.to_wkb().to_numpy()).all()
            assert set(rows.source) <= {f"{number}.tif"}
    assert sum(summary.counts.values()) == len(read_polygons(rasters[1], VectorOptions()).polygons)


def test_the_index_and_the_styles_stay_right(tmp_path: Path, rasters: list[Path]) -> None:
    output = tmp_path / "p.gpkg"
    both(rasters, output)
    vectorize_raster(rasters[1], output, VectorOptions(date="2024-06-30", append=True, min_area_m2=5), overwrite=True)
    for name, layer in layers_of(output).items():
        box = shapely.box(*(layer.total_bounds[:2]), *(layer.total_bounds[:2] + 8))
        by_index = gpd.read_file(output, layer=name, bbox=box)
        assert len(by_index) == layer.geometry.intersects(box).sum()
    with closing(sqlite3.connect(output)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        styled = [row[0] for row in database.execute("SELECT f_table_name FROM layer_styles")]
        for name, layer in layers_of(output).items():
            counted = database.execute("SELECT feature_count FROM gpkg_ogr_contents WHERE table_name = ?", (name,))
            assert counted.fetchone() == (len(layer),)
            assert database.execute(f'SELECT COUNT(*) FROM "rtree_{name}_geom"').fetchone() == (len(layer),)
    assert sorted(styled) == sorted(LANDCOVER.names)


def test_the_same_source_is_refused_or_replaced(tmp_path: Path, rasters: list[Path]) -> None:
    output = tmp_path / "p.gpkg"
    both(rasters, output)
    before = output.read_bytes()
    assert vectorize_raster(rasters[1], output, SECOND).up_to_date
    larger = VectorOptions(date="2024-06-30", append=True, min_area_m2=5)
    with pytest.raises(InputError, match=r"holds polygons of 1\.tif, 2024-06-30 already; give --overwrite"):
        vectorize_raster(rasters[1], output, larger)
    assert output.read_bytes() == before
    vectorize_raster(rasters[1], output, larger, overwrite=True)
    found = pd.concat(layers_of(output).values())
    for date, raster, options in (("2020-06-30", rasters[0], FIRST), ("2024-06-30", rasters[1], larger)):
        expected = read_polygons(raster, options).polygons
        areas = found.area_m2[found.date.astype(str).str[:10] == date]
        assert sorted(areas) == sorted(expected.area_m2)
    with pytest.raises(InputError, match="exists; give --overwrite"):  # it holds more than this run alone would write
        vectorize_raster(rasters[0], output, VectorOptions(date="2020-06-30"))


def test_other_columns_and_another_crs_are_refused(tmp_path: Path, rasters: list[Path]) -> None:
    output = tmp_path / "p.gpkg"
    vectorize_raster(rasters[0], output, FIRST)
    before = output.read_bytes()
    with pytest.raises(InputError, match="has other columns: confidence, confidence_p10 differ"):
        vectorize_raster(rasters[1], output, VectorOptions(date="2024-06-30", append=True, confidence=rasters[0]))
    with pytest.raises(InputError, match="has other columns: date differ"):
        vectorize_raster(rasters[1], output, VectorOptions(append=True))
    with pytest.raises(InputError, match="has other columns: geometry"):
        vectorize_raster(rasters[1], output, VectorOptions(date="2024-06-30", append=True, connectivity=8))
    other = write_raster(tmp_path / "zone32.tif", blobs(20), UTM, "EPSG:32632", nodata=255)
    with pytest.raises(InputError, match=r"are in EPSG:32632, .* in EPSG:32631; .*gdalwarp"):
        vectorize_raster(other, output, SECOND)
    with pytest.raises(InputError, match="only a GeoPackage"):
        vectorize_raster(rasters[1], tmp_path / "p.parquet", SECOND)
    (tmp_path / "no.gpkg").write_text("no GeoPackage")
    with pytest.raises(InputError, match="cannot be read as a GeoPackage"):
        vectorize_raster(rasters[1], tmp_path / "no.gpkg", SECOND)
    assert output.read_bytes() == before
    assert not list(tmp_path.glob("*.geoseg-partial"))


def test_edits_of_a_program_that_has_the_file_open_are_kept(tmp_path: Path, rasters: list[Path]) -> None:
    """QGIS writes to a log beside the file first."""
    output = tmp_path / "p.gpkg"
    vectorize_raster(rasters[0], output, FIRST)
    with closing(sqlite3.connect(output)) as other:
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("PRAGMA wal_autocheckpoint = 0")
        other.execute("CREATE TABLE notes (text)")
        other.execute("INSERT INTO notes VALUES ('mine')")
        other.commit()
        assert output.with_name("p.gpkg-wal").stat().st_size
        vectorize_raster(rasters[1], output, SECOND)
    with closing(sqlite3.connect(output)) as database:
        assert database.execute("SELECT text FROM notes").fetchall() == [("mine",)]
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert {str(date)[:10] for date in layers_of(output)["building"].date} == {"2020-06-30", "2024-06-30"}


def test_what_fails_leaves_the_old_file(tmp_path: Path, rasters: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "p.gpkg"
    vectorize_raster(rasters[0], output, FIRST)
    before = output.read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("geoseg.vector.append.write_geopackage", fail)
    with pytest.raises(GeosegError, match="nothing was changed: No space left"):
        vectorize_raster(rasters[1], output, SECOND)
    assert output.read_bytes() == before


@pytest.mark.parametrize("partition", ["class", "tile=10"])
def test_partitions_hold_each_polygon_once(tmp_path: Path, rasters: list[Path], partition: str) -> None:
    output = tmp_path / "p.parquet"
    options = VectorOptions(partition=partition)
    vectorize_raster(rasters[0], output, options)
    expected = read_polygons(rasters[0], VectorOptions()).polygons
    found = ds.dataset(output, format="parquet", partitioning="hive").to_table().to_pandas()
    assert sorted(found.geometry) == sorted(expected.geometry.to_wkb())
    parts = sorted(output.glob("*/part-0.parquet"))
    assert len(parts) > 3
    for part in parts:
        name, value = part.parent.name.split("=")
        table = gpd.read_parquet(part)
        assert table.crs == expected.crs
        if name == "class_name":
            assert set(table.class_name) == {value}
        else:
            low, high = table.geometry.bounds.to_numpy().reshape(-1, 2, 2).transpose(1, 0, 2)
            assert (np.floor((low + high) / 2 / 10) == np.array(value.split("_"), int)).all()
    assert vectorize_raster(rasters[0], output, options).up_to_date
    with pytest.raises(InputError, match="exists; give --overwrite"):
        vectorize_raster(rasters[1], output, options)
    vectorize_raster(rasters[1], output, options, overwrite=True)
    assert len(ds.dataset(output, format="parquet", partitioning="hive").to_table()) == len(
        read_polygons(rasters[1], VectorOptions()).polygons
    )


@pytest.mark.parametrize(
    ("name", "partition", "words"),
    [
        ("p.gpkg", "class", "ends in .parquet"),
        ("p.parquet", "size", "--partition is class, or tile=SIDE"),
        ("p.parquet", "tile=0", "--partition is class, or tile=SIDE"),
        ("no/p.parquet", "class", "does not exist"),
        ("mine.parquet", "class", "is no folder of polygons that geoseg wrote"),
    ],
)
def test_partitions_that_cannot_be_written(
    tmp_path: Path, rasters: list[Path], name: str, partition: str, words: str
) -> None:
    (tmp_path / "mine.parquet").mkdir()
    (tmp_path / "mine.parquet" / "diary.txt").touch()
    with pytest.raises(InputError, match=words):
        vectorize_raster(rasters[0], tmp_path / name, VectorOptions(partition=partition), overwrite=True)
    assert (tmp_path / "mine.parquet" / "diary.txt").exists()


def test_no_polygons_in_parts_still_have_columns(tmp_path: Path) -> None:
    raster = write_raster(tmp_path / "c.tif", np.full((4, 4), 255, np.uint8), UTM, nodata=255)
    vectorize_raster(raster, tmp_path / "p.parquet", VectorOptions(partition="class"))
    [part] = (tmp_path / "p.parquet").glob("*.parquet")
    assert list(gpd.read_parquet(part).columns)[:2] == ["class_id", "class_name"]


def test_geoparquet_readers_find_the_covering_boxes(tmp_path: Path, rasters: list[Path]) -> None:
    """GeoParquet 1.1: the metadata name the column of boxes, which pyarrow and DuckDB filter by."""
    output = tmp_path / "p.parquet"
    vectorize_raster(rasters[0], output)
    polygons = gpd.read_parquet(output)
    told = json.loads(pq.read_schema(output).metadata[b"geo"])
    assert told["version"] == "1.1.0"
    covering = told["columns"]["geometry"]["covering"]["bbox"]
    assert covering == {side: ["bbox", side] for side in ("xmin", "ymin", "xmax", "ymax")}
    left, _, right, _ = polygons.total_bounds
    middle = (left + right) / 2
    expected = int((polygons.geometry.bounds.minx < middle).sum())
    assert ds.dataset(output).count_rows(filter=pc.field("bbox", "xmin") < middle) == expected
    query = f"SELECT COUNT(*), SUM(area_m2) FROM '{output}' WHERE bbox.xmin < {middle}"
    count, area = duckdb.connect().execute(query).fetchall()[0]
    assert count == expected
    assert area == pytest.approx(polygons.area_m2[polygons.geometry.bounds.minx < middle].sum())


def test_rows_with_a_date_join_a_layer_without(tmp_path: Path, rasters: list[Path]) -> None:
    """The column is added, empty where nothing was known; what `--append` advises is then possible."""
    output = tmp_path / "p.gpkg"
    vectorize_raster(rasters[0], output)
    before = layers_of(output)
    with pytest.raises(InputError, match="or --date to tell another date"):
        vectorize_raster(rasters[0], output, VectorOptions(append=True, classes=["water"]))
    vectorize_raster(rasters[0], output, VectorOptions(append=True, classes=["water"], date="2024-06-30"))
    found = layers_of(output)
    dates = found["water"].date.astype(str).str[:10]
    assert (dates == "2024-06-30").sum() == len(before["water"]) == (found["water"].date.isna()).sum()
    assert pyogrio.read_info(output, layer="water")["dtypes"].tolist()[-1] == "datetime64[D]"
    assert list(found["building"].columns) == list(before["building"].columns)
    vectorize_raster(rasters[1], output, VectorOptions(append=True, classes=["water"], date="2024-06-30"))
    assert set(layers_of(output)["water"].source) == {"0.tif", "1.tif"}
    with closing(sqlite3.connect(output)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
