"""geoseg instances and panoptic: files that agree with the land cover, with each other, and with themselves."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pytest
import rasterio
import rasterio.features
import shapely
from affine import Affine
from builders import HALF_METRE, read_band, save_tiny, write, write_rgb
from numpy.typing import NDArray
from shapely.geometry import box
from typer.testing import CliRunner

import geoseg
from geoseg.cli import app
from geoseg.errors import InputError
from geoseg.inference.plan import RunOptions
from geoseg.legend import LANDCOVER
from geoseg.objects import files
from geoseg.objects.files import instances_file, panoptic_file
from geoseg.objects.outline import OutlineOptions
from geoseg.objects.panoptic import VOID
from geoseg.raster.labels import LabelOptions

CPU = RunOptions(device="cpu", engine="torch", block=64)
SHAPE = (131, 149)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene with a corner of nodata, a model, and all that comes of them."""
    folder = tmp_path_factory.mktemp("made")
    scene = write_rgb(folder / "scene.tif", SHAPE, crs="EPSG:32631", nodata=0)
    with rasterio.open(scene, "r+") as file:
        values = file.read()
        values[:, :30, :40] = 0
        file.write(values)
    save_tiny(folder / "model")
    geoseg.segment_file(scene, folder / "cover.tif", model=folder / "model", run=CPU)
    instances_file(scene, folder / "objects.gpkg", model=folder / "model", raster=folder / "ids.tif", run=CPU)
    panoptic_file(scene, folder / "all.tif", model=folder / "model", polygons=folder / "all.gpkg", run=CPU)
    return folder


def burnt(polygons: gpd.GeoDataFrame, values: pd.Series) -> NDArray[np.int64]:
    pairs = zip(polygons.geometry, values.tolist(), strict=True)
    return rasterio.features.rasterize(pairs, SHAPE, transform=HALF_METRE, dtype="int32").astype(np.int64)


def test_objects_are_the_parts_of_the_class_and_numbered_by_first_pixels(made: Path) -> None:
    ids, cover = read_band(made / "ids.tif"), read_band(made / "cover.tif")
    assert ids.dtype == np.uint32
    assert np.array_equal(ids > 0, cover == LANDCOVER.by_name("building").id)
    values, first = np.unique(ids, return_index=True)
    assert values[1:].tolist() == list(range(1, int(ids.max()) + 1))
    assert (np.diff(first[1:]) > 0).all()
    assert 5 < ids.max() < 10_000


def test_polygons_raster_and_table_say_the_same(made: Path) -> None:
    polygons = gpd.read_file(made / "objects.gpkg", layer="building")
    assert list(polygons.columns) == [
        "id", "class_id", "class_name", "score", "area_m2", "perimeter_m", "confidence", "source", "model", "geometry",
    ]  # fmt: skip
    assert set(polygons["source"]) == {"scene.tif"}
    ids = read_band(made / "ids.tif")
    assert np.array_equal(burnt(polygons, polygons["id"]), ids)
    assert np.allclose(polygons["area_m2"], np.bincount(ids.ravel())[1:] * 0.25)
    assert shapely.coverage_is_valid(polygons.geometry.to_numpy())
    table = pd.read_parquet(made / "ids.parquet")
    assert table["id"].tolist() == polygons["id"].tolist()
    assert polygons["score"].between(0, 1).all()
    with rasterio.open(made / "ids.tif") as file:
        assert file.nodata == 0
        assert file.transform == HALF_METRE
        assert file.tags()["GEOSEG_LAYER"] == "instances"


def test_the_confidence_is_the_mean_over_the_object(made: Path, tmp_path: Path) -> None:
    geoseg.segment_file(
        made / "scene.tif", tmp_path / "a.tif", model=made / "model", confidence=tmp_path / "b.tif", run=CPU
    )
    ids, stored = read_band(made / "ids.tif"), read_band(tmp_path / "b.tif") / 200
    table = pd.read_parquet(made / "ids.parquet")
    means = np.bincount(ids.ravel(), stored.ravel())[1:] / np.bincount(ids.ravel())[1:]
    assert np.allclose(table["confidence"], means, atol=1e-9)


def test_blocks_do_not_matter(made: Path, tmp_path: Path) -> None:
    run = RunOptions(device="cpu", engine="torch", block=128)
    instances_file(made / "scene.tif", tmp_path / "o.gpkg", model=made / "model", raster=tmp_path / "ids.tif", run=run)
    assert (tmp_path / "ids.tif").read_bytes() == (made / "ids.tif").read_bytes()
    assert (tmp_path / "o.gpkg").read_bytes() == (made / "objects.gpkg").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ids.parquet", "ids.tif", "ids.tif.aux.xml", "o.gpkg"]


def test_a_panoptic_scene_is_the_land_cover_with_objects_in_it(made: Path) -> None:
    ids, cover = read_band(made / "all.tif"), read_band(made / "cover.tif")
    assert np.array_equal(ids == VOID, cover == LANDCOVER.nodata)
    known = ids != VOID
    assert np.array_equal((ids >> 24)[known], cover[known])
    number = np.where(known, ids & 0xFFFFFF, 0)
    assert np.array_equal(number, read_band(made / "ids.tif"))
    table = pd.read_parquet(made / "all.parquet")
    values, counts = np.unique(ids[known], return_counts=True)
    assert dict(zip(table["id"], table["pixels"], strict=True)) == dict(
        zip(values.tolist(), counts.tolist(), strict=True)
    )
    assert table["is_thing"].tolist() == [(one & 0xFFFFFF) > 0 for one in table["id"]]
    assert set(table["class_id"]) == set(np.unique(cover[known]).tolist())


def test_panoptic_polygons_are_a_coverage(made: Path) -> None:
    layers = [gpd.read_file(made / "all.gpkg", layer=name) for name in LANDCOVER.names]
    polygons = gpd.GeoDataFrame(pd.concat(layers, ignore_index=True), crs=layers[0].crs)
    ids = read_band(made / "all.tif")
    assert shapely.coverage_is_valid(polygons.geometry.to_numpy())
    assert polygons.area.sum() == pytest.approx((ids != VOID).sum() * 0.25)
    assert np.array_equal(burnt(polygons, polygons["id"]), np.where(ids == VOID, 0, ids))
    assert polygons["score"].notna().equals(polygons["is_thing"].astype(bool))
    assert polygons["confidence"].between(0, 1).all()


def test_objects_of_a_group_have_a_layer(made: Path, tmp_path: Path) -> None:
    polygons, output = tmp_path / "p.gpkg", tmp_path / "p.tif"
    found = panoptic_file(
        made / "scene.tif", output, model=made / "model", things=["vegetation"], polygons=polygons, run=CPU
    )
    names = [str(name) for name in pyogrio.list_layers(polygons)[:, 0] if name != "layer_styles"]
    layers = {name: gpd.read_file(polygons, layer=name) for name in names}
    assert len(layers["vegetation"]) == found.counts["vegetation"] > 0
    drawn = pd.concat(layers.values())
    assert np.array_equal(np.unique(drawn["id"]), np.sort(pd.read_parquet(tmp_path / "p.parquet")["id"]))


def test_a_table_of_another_run_is_noticed(made: Path, tmp_path: Path) -> None:
    """As where a run was stopped between raster and table."""
    output, ids = tmp_path / "o.gpkg", tmp_path / "ids.tif"

    def run(*classes: str) -> bool:
        given = {"model": made / "model", "raster": ids, "classes": classes, "overwrite": True, "run": CPU}
        return instances_file(made / "scene.tif", output, **given).up_to_date  # type: ignore[arg-type]

    run("paved")
    other = ids.with_suffix(".parquet").read_bytes()
    run("building")
    ids.with_suffix(".parquet").write_bytes(other)
    with pytest.raises(InputError, match="of two runs"):
        geoseg.evaluate_objects(ids, made / "cover.tif")
    assert not run("building")
    assert pd.read_parquet(ids.with_suffix(".parquet")).equals(pd.read_parquet(made / "ids.parquet"))


def test_a_raster_on_another_file_system(made: Path, tmp_path: Path) -> None:
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system")
    with tempfile.TemporaryDirectory(dir=shared) as there:
        ids = Path(there) / "ids.tif"
        instances_file(made / "scene.tif", tmp_path / "o.gpkg", model=made / "model", raster=ids, run=CPU)
        assert ids.read_bytes() == (made / "ids.tif").read_bytes()


def test_the_area_of_interest_is_not_overwritten(made: Path, tmp_path: Path) -> None:
    area = tmp_path / "area.gpkg"
    gpd.GeoDataFrame(geometry=[box(*rasterio.open(made / "scene.tif").bounds)], crs="EPSG:32631").to_file(area)
    before, run = area.read_bytes(), RunOptions(device="cpu", engine="torch", aoi=f"{area}:area")
    given = {"model": made / "model", "run": run, "overwrite": True}
    with pytest.raises(InputError, match="which this run needs"):
        instances_file(made / "scene.tif", area, **given)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="which this run needs"):
        geoseg.segment_file(made / "scene.tif", tmp_path / "c.tif", polygons=area, **given)  # type: ignore[arg-type]
    assert area.read_bytes() == before


def test_rasters_of_ids_are_compared_by_the_names_of_classes(made: Path, tmp_path: Path) -> None:
    """The same objects, whose class has another number in the other table."""
    ids = tmp_path / "ids.tif"
    shutil.copyfile(made / "ids.tif", ids)
    table = pd.read_parquet(made / "ids.parquet").assign(class_id=77)
    table.to_parquet(ids.with_suffix(".parquet"))
    scores = geoseg.evaluate_objects(made / "ids.tif", ids).by_class["building"]
    assert (scores["pq"], scores["missed"]) == (1, 0)
    table.assign(class_name="barn").to_parquet(ids.with_suffix(".parquet"))
    with pytest.raises(InputError, match=r"label barn.*--map barn="):
        geoseg.evaluate_objects(made / "ids.tif", ids)
    mapped = geoseg.evaluate_objects(made / "ids.tif", ids, options=LabelOptions(meanings={"barn": "building"}))
    assert mapped.by_class["building"]["pq"] == 1
    with pytest.raises(InputError, match="No object of"):
        geoseg.evaluate_objects(made / "ids.tif", ids, options=LabelOptions(ignore=("barn",)))


def test_a_mask_tells_where_there_is_nothing(made: Path, tmp_path: Path) -> None:
    """What is found where a mask is 0 is false, unless 0 is ignored; a table of that name beside it does not matter."""
    ids = read_band(made / "ids.tif")
    write(tmp_path / "mask.tif", (ids == 1).astype(np.uint8)[None], transform=HALF_METRE, crs="EPSG:32631")
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "mask.parquet")

    def scores(meanings: dict[str, str], *ignore: str) -> dict[str, float]:
        options = LabelOptions(meanings=meanings, ignore=ignore)
        return geoseg.evaluate_objects(made / "ids.tif", tmp_path / "mask.tif", options=options).by_class["building"]

    told = scores({"1": "building", "0": "other"})
    assert (told["matched"], told["unmatched"], told["missed"]) == (1, ids.max() - 1, 0)
    assert scores({"1": "building"}, "0")["unmatched"] == 0


def test_footprints_that_others_cover_are_told(made: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    drawn = gpd.read_file(made / "objects.gpkg", layer="building")[["geometry"]]
    twice = pd.concat([drawn, drawn[:3]], ignore_index=True)
    twice.to_parquet(tmp_path / "twice.parquet")
    scores = geoseg.evaluate_objects(made / "ids.tif", tmp_path / "twice.parquet").by_class["building"]
    assert scores["matched"] == len(drawn)
    assert f"3 of {len(twice)} reference objects do not count" in caplog.text


def test_footprints_may_name_classes_as_other_labels_do(made: Path, tmp_path: Path) -> None:
    """Numbers with gaps, and groups, which tell no class."""
    drawn = gpd.read_file(made / "objects.gpkg", layer="building")[["geometry"]]
    drawn.assign(class_id=[None, *[1.0] * (len(drawn) - 1)]).to_parquet(tmp_path / "gaps.parquet")
    scores = geoseg.evaluate_objects(made / "ids.tif", tmp_path / "gaps.parquet").by_class["building"]
    assert (scores["matched"], scores["unmatched"], scores["missed"]) == (len(drawn) - 1, 0, 0)
    drawn.assign(class_name=["vegetation", *["building"] * (len(drawn) - 1)]).to_parquet(tmp_path / "group.parquet")
    assert geoseg.evaluate_objects(made / "ids.tif", tmp_path / "group.parquet").by_class["building"] == scores


def test_the_same_again_is_up_to_date_and_something_else_is_refused(made: Path, tmp_path: Path) -> None:
    output, ids = tmp_path / "o.parquet", tmp_path / "ids.tif"

    def run(**changes: object) -> bool:
        options = {"model": made / "model", "raster": ids, "run": CPU} | changes
        return instances_file(made / "scene.tif", output, **options).up_to_date  # type: ignore[arg-type]

    assert not run()
    before = output.read_bytes()
    assert run()
    assert output.read_bytes() == before
    with pytest.raises(InputError, match="exists; give --overwrite"):
        run(shape=OutlineOptions(min_area_m2=5))
    assert not run(shape=OutlineOptions(min_area_m2=5), overwrite=True)
    areas = gpd.read_parquet(output)
    assert (areas["area_m2"] >= 5).all()
    assert areas["id"].tolist() == list(range(1, len(areas) + 1))
    assert set(np.unique(read_band(ids))) == {0, *areas["id"]}
    output.write_bytes(b"changed")
    with pytest.raises(InputError, match="exists; give --overwrite"):
        run(shape=OutlineOptions(min_area_m2=5))


def test_a_run_that_fails_late_goes_on_with_what_it_has(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "o.gpkg"

    def fails(*args: object, **kwargs: object) -> None:
        raise OSError("no more")

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_polygons", fails)
        with pytest.raises(OSError, match="no more"):
            instances_file(made / "scene.tif", output, model=made / "model", run=CPU)
    assert not output.exists()
    steps: set[str] = set()
    instances_file(made / "scene.tif", output, model=made / "model", run=CPU, progress=lambda step, *_: steps.add(step))
    assert "segment" not in steps
    assert output.read_bytes() == (made / "objects.gpkg").read_bytes()
    assert not list(tmp_path.glob(".o.gpkg.parts"))


def test_an_area_of_interest_cuts_scene_and_objects(made: Path, tmp_path: Path) -> None:
    corner = HALF_METRE @ (50, 60)
    area = gpd.GeoDataFrame(geometry=[box(corner[0], corner[1] - 30, corner[0] + 40, corner[1])], crs="EPSG:32631")
    area.to_file(tmp_path / "area.gpkg")
    run = RunOptions(device="cpu", engine="torch", aoi=tmp_path / "area.gpkg")
    instances_file(made / "scene.tif", tmp_path / "o.fgb", model=made / "model", raster=tmp_path / "ids.tif", run=run)
    with rasterio.open(tmp_path / "ids.tif") as file:
        assert file.shape == (60, 80)
        assert file.transform == HALF_METRE @ Affine.translation(50, 60)
        ids = file.read(1)
    assert np.array_equal(ids > 0, read_band(made / "ids.tif")[60:120, 50:130] > 0)


def test_objects_without_a_crs_are_counted_in_pixels(made: Path, tmp_path: Path) -> None:
    scene = write_rgb(tmp_path / "plain.tif", (60, 70), crs=None, transform=Affine.identity())
    instances_file(scene, tmp_path / "o.parquet", model=made / "model", raster=tmp_path / "ids.tif", run=CPU)
    found = gpd.read_parquet(tmp_path / "o.parquet")
    assert found["area_px"].tolist() == np.bincount(read_band(tmp_path / "ids.tif").ravel())[1:].tolist()
    assert "area_m2" not in found


def test_the_command_line_tells_what_was_found(made: Path, tmp_path: Path) -> None:
    given = [str(made / "scene.tif"), "-o", str(tmp_path / "o.gpkg"), "--model", str(made / "model"), "--regularize"]
    told = CliRunner().invoke(app, ["instances", *given, "--device", "cpu", "--min-area", "4"]).output
    assert " building" in told
    assert "fitted no straight walls" in told
    given = [str(made / "scene.tif"), "-o", str(tmp_path / "p.tif"), "--model", str(made / "model"), "--device", "cpu"]
    told = CliRunner().invoke(app, ["panoptic", *given, "--things", "building,water"]).output
    assert "water, " in told or " water;" in told
    assert "pixels: " in told
    assert "up to date" in CliRunner().invoke(app, ["panoptic", *given, "--things", "building,water"]).output


def test_what_finds_nothing_has_a_precision_of_nothing(tmp_path: Path) -> None:
    save_tiny(tmp_path / "model")
    scene = write_rgb(tmp_path / "scene.tif", (60, 70), crs="EPSG:32631")
    huge = OutlineOptions(min_area_m2=1e9)
    found = instances_file(
        scene, tmp_path / "o.gpkg", model=tmp_path / "model", raster=tmp_path / "ids.tif", shape=huge, run=CPU
    )
    assert found.counts == {"building": 0}
    assert not read_band(tmp_path / "ids.tif").any()
    corner = HALF_METRE @ (5, 5)
    truth = gpd.GeoDataFrame(geometry=[box(corner[0], corner[1] - 9, corner[0] + 9, corner[1])], crs="EPSG:32631")
    truth.to_parquet(tmp_path / "truth.parquet")
    scores = geoseg.evaluate_objects(tmp_path / "ids.tif", tmp_path / "truth.parquet")
    assert scores.by_class["building"] | {} == {
        "pq": 0, "sq": 0, "rq": 0, "matched": 0, "unmatched": 0, "missed": 1, "ap": 0, "ap50": 0, "ap75": 0,
    }  # fmt: skip


def test_a_class_raster_and_its_polygons_are_the_same_reference(made: Path) -> None:
    geoseg.vectorize_file(
        made / "cover.tif", made / "truth.fgb", geoseg.VectorOptions(classes=["building"]), overwrite=True
    )
    one, other = (geoseg.evaluate_objects(made / "ids.tif", made / name) for name in ("cover.tif", "truth.fgb"))
    assert one == other
    sizes = pd.read_parquet(made / "ids.parquet").query("class_name == 'building'")
    assert one.by_class["building"]["matched"] + one.by_class["building"]["unmatched"] == len(sizes)
    same = geoseg.evaluate_objects(made / "all.tif", made / "ids.tif")
    assert same.by_class == {"building": same.by_class["building"]}
    assert same.by_class["building"]["pq"] == same.by_class["building"]["ap"] == 1
    of_all = geoseg.evaluate_objects(made / "all.tif", made / "cover.tif")
    stuff = [row for name, row in of_all.by_class.items() if name != "building"]
    assert stuff
    assert all(row["pq"] == 1 for row in stuff)
