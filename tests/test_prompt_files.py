"""geoseg prompt, from files to files: what is read, what is written, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from prompt_networks import SameColor, save_promptable, tiny_promptable
from shapely.geometry import Point, Polygon, box
from test_prompts import NORTH_UP, UTM, lonlat, scene

from geoseg.cli import main
from geoseg.errors import InputError
from geoseg.prompts.files import prompt_file
from geoseg.prompts.tables import read_prompts
from geoseg.raster.scene import open_reader


def points(path: Path, places: list[tuple[float, float]], crs: str | None = "EPSG:4326", **columns: object) -> Path:
    """A file of points at rows and columns of the scene."""
    here = [lonlat(NORTH_UP, *place) for place in places]
    frame = gpd.GeoDataFrame(columns, geometry=[Point(*place) for place in here], crs="EPSG:4326")
    (frame if crs is None else frame.to_crs(crs)).to_file(path)
    return path


def boxes(path: Path, sides: list[tuple[float, float, float, float]], **columns: object) -> Path:
    """A file of boxes given as top, left, bottom, right of the scene."""
    corners = [[NORTH_UP @ at for at in ((w, n), (e, n), (e, s), (w, s))] for n, w, s, e in sides]
    gpd.GeoDataFrame(columns, geometry=[Polygon(ring) for ring in corners], crs=UTM).to_file(path)
    return path


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", UTM])
@pytest.mark.parametrize("suffix", [".gpkg", ".parquet", ".geojson"])
def test_points_become_polygons_with_their_columns(tmp_path: Path, crs: str, suffix: str) -> None:
    given = points(
        tmp_path / "points.gpkg", [(134.5, 44.5), (10.5, 10.5)], crs, id=["b", "a"], class_name=["pool", "roof"]
    )
    output = tmp_path / f"out{suffix}"
    summary = prompt_file(scene(tmp_path / "s.tif"), output, points=given, classes=["pool", "roof"], model=SameColor())
    found = gpd.read_parquet(output) if suffix == ".parquet" else gpd.read_file(output)
    assert (summary.objects, summary.empty, summary.cut) == (2, 0, 0)
    assert found["id"].tolist() == ["b", "a"]
    assert found["class_name"].tolist() == ["pool", "roof"]
    assert found["area_m2"].tolist() == pytest.approx([36, 40])
    assert found["score"].tolist() == pytest.approx([0.9, 0.9])
    assert found["whole"].astype(bool).all()
    assert found.to_crs(UTM).area.tolist() == pytest.approx([36, 40], rel=1e-3)


def test_points_of_one_id_and_boxes_are_one_object(tmp_path: Path) -> None:
    reader = open_reader(str(scene(tmp_path / "s.tif")))
    given = points(tmp_path / "p.geojson", [(1, 2), (3, 4), (5, 6)], id=[7, 8, 7], label=["positive", "1", "-"])
    around = boxes(tmp_path / "b.gpkg", [(0, 0, 20, 30), (90, 100, 110, 120)], id=[7, 9])
    table = read_prompts(given, around, reader)
    assert table.ids == (7, 8, 9)
    assert table.classes is None
    first, second, third = table.objects
    assert np.allclose(first.points, [(1, 2), (5, 6)], atol=1e-4)
    assert first.labels.tolist() == [1, 0]
    assert np.allclose(first.box, (0, 0, 20, 30))
    assert second.box is None
    assert np.allclose(third.box, (90, 100, 110, 120))
    assert third.points.shape == (0, 2)


@pytest.mark.parametrize(
    ("ids", "others", "expected"),
    [
        (["1", "2"], [1, 2], ("1", "2")),
        ([2, 1], ["1", "2"], ("2", "1")),
        ([1.0, 2.0], [1, 2], (1, 2)),
        ([1.0, 2.0], ["2", "x"], ("1", "2", "x")),
        ([0.5, 2.0], [2, 3], (0.5, 2, 3)),
    ],
)
def test_an_id_is_one_as_number_and_as_text(tmp_path: Path, ids: list, others: list, expected: tuple) -> None:
    reader = open_reader(str(scene(tmp_path / "s.tif")))
    given = points(tmp_path / "p.geojson", [(1, 2), (3, 4)], id=ids)
    around = boxes(tmp_path / "b.gpkg", [(0, 0, 20, 30), (90, 100, 110, 120)], id=others)
    found = read_prompts(given, around, reader).ids
    assert found == expected
    assert [type(key) for key in found] == [type(key) for key in expected]


def test_points_and_boxes_that_share_no_id_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reader = open_reader(str(scene(tmp_path / "s.tif")))
    given = points(tmp_path / "p.gpkg", [(1, 2), (3, 4)], id=["01", "02"])
    around = boxes(tmp_path / "b.gpkg", [(0, 0, 20, 30), (90, 100, 110, 120)], id=[1, 2])
    assert read_prompts(given, around, reader).ids == ("01", "02", "1", "2")
    assert "Give a box and its points the same id" in caplog.text
    caplog.clear()
    read_prompts(given, boxes(tmp_path / "c.gpkg", [(0, 0, 20, 30)], id=["02"]), reader)
    read_prompts(given, None, reader)
    assert not caplog.records


def test_objects_of_which_nothing_is_found_are_counted(tmp_path: Path) -> None:
    given = points(tmp_path / "p.gpkg", [(10, 10)])
    summary = prompt_file(scene(tmp_path / "s.tif"), tmp_path / "out.gpkg", points=given, model=SameColor(tolerance=-1))
    assert (summary.objects, summary.empty) == (0, 1)
    assert len(gpd.read_file(tmp_path / "out.gpkg")) == 0


def test_text_and_everything(tmp_path: Path) -> None:
    path = scene(tmp_path / "s.tif")
    prompt_file(path, tmp_path / "text.gpkg", text="20,40,200", model=SameColor())
    assert gpd.read_file(tmp_path / "text.gpkg")["class_name"].tolist() == ["20,40,200"] * 2
    summary = prompt_file(path, tmp_path / "all.gpkg", everything=True, model=SameColor())
    assert summary.objects == 4
    all_of = gpd.read_file(tmp_path / "all.gpkg")
    assert not shapely.is_empty(all_of.geometry).any()


class Case:
    """The command, a scene and a small bundle with random weights."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self.folder, self._monkeypatch, self._capfd = folder, monkeypatch, capfd
        self.scene, self.model = scene(folder / "scene.tif"), save_promptable(folder / "model")
        self.output = folder / "out" / "objects.gpkg"
        self.output.parent.mkdir()

    def run(self, *arguments: object, model: str | None = None) -> tuple[int, str, str]:
        given = ["prompt", self.scene, "-o", self.output, "--model", model or self.model, *arguments]
        self._monkeypatch.setattr(sys, "argv", ["geoseg", *map(str, given)])
        self._capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        told = self._capfd.readouterr()
        return int(stop.value.code or 0), told.out, told.err

    def refused(self, said: tuple[int, str, str], *words: str) -> None:
        code, _, told = said
        assert code == 2, told
        assert told.startswith("geoseg: ")
        assert len(told.strip().splitlines()) == 1
        assert "Traceback" not in told
        for word in words:
            assert word in told
        assert not list(self.output.parent.iterdir())


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Case:
    return Case(tmp_path, monkeypatch, capfd)


def test_the_command(case: Case) -> None:
    given = boxes(case.folder / "b.gpkg", [(0, 0, 30, 30), (120, 30, 149, 60)])
    code, out, _ = case.run("--boxes", given)
    assert code == 0
    assert "objects.gpkg: " in out
    assert case.output.exists()
    code, _, told = case.run("--boxes", given)
    assert code == 2
    assert "--overwrite" in told
    assert case.run("--boxes", given, "--overwrite")[0] == 0


def test_nothing_or_too_much_is_asked(case: Case) -> None:
    case.refused(case.run(), "in one way")
    case.refused(case.run("--text", "pool", "--everything"), "in one way")


def test_prompts_that_are_no_prompts(case: Case) -> None:
    good = points(case.folder / "p.gpkg", [(10, 10)])
    empty = gpd.GeoDataFrame({"id": []}, geometry=[], crs="EPSG:4326")
    empty.to_file(case.folder / "empty.gpkg")
    (case.folder / "text.geojson").write_text("red green blue")
    (case.folder / "table.csv").write_text("id,x\n1,2\n")
    around = boxes(case.folder / "b.gpkg", [(0, 0, 30, 30)])
    case.refused(case.run("--points", case.folder / "gone.gpkg"), "gone.gpkg", "do not exist")
    case.refused(case.run("--points", case.folder / "empty.gpkg"), "holds no points")
    case.refused(case.run("--points", case.folder / "text.geojson"), "cannot be read")
    case.refused(case.run("--points", case.folder / "table.csv"), "without geometry")
    case.refused(case.run("--points", around), "Polygon geometries", "points are expected")
    case.refused(case.run("--boxes", good), "Point geometries", "boxes")
    case.refused(case.run("--points", good, "--boxes", around), "share an id")


def test_prompts_off_the_scene(case: Case) -> None:
    off = points(case.folder / "p.gpkg", [(10, 10), (-5, 10), (10, 900)], id=[1, 2, 3])
    case.refused(case.run("--points", off), "Point 2", "id 2", "2 of 3", "off the scene")
    case.refused(case.run("--boxes", boxes(case.folder / "b.gpkg", [(-20, 0, -10, 9)])), "Box 1", "off the scene")
    nowhere = gpd.GeoDataFrame(geometry=[Point(10, 89.9)], crs="EPSG:4326")
    nowhere.to_file(case.folder / "n.gpkg")
    case.refused(case.run("--points", case.folder / "n.gpkg"), "off the scene")
    frame = gpd.GeoDataFrame(geometry=[box(0, 0, 1, 1)])
    with pytest.warns(UserWarning, match="crs"):
        frame.to_file(case.folder / "c.gpkg")
    case.refused(case.run("--boxes", case.folder / "c.gpkg"), "no CRS")


def test_a_point_on_nodata(case: Case) -> None:
    given = points(case.folder / "p.gpkg", [(100, 100), (10, 10)])
    case.refused(case.run("--points", given, "--nodata", "40"), "Point 2", "nodata")


def test_ids_labels_and_classes_that_do_not_fit(case: Case) -> None:
    two = [(10, 10), (12, 12)]
    case.refused(
        case.run("--points", points(case.folder / "a.gpkg", two, id=[1, 1], label=[0, 0])), "Object 1", "label 0"
    )
    case.refused(
        case.run("--points", points(case.folder / "b.gpkg", two, label=["on", "off"])), "'on'", "1 (on the object)"
    )
    classes = points(case.folder / "c.gpkg", two, id=[1, 1], class_name=["pool", "roof"])
    case.refused(case.run("--points", classes), "Object 1", "pool and roof")
    case.refused(case.run("--points", classes, "--classes", "pool,house"), "'roof'", "pool, house")
    case.refused(case.run("--points", points(case.folder / "d.gpkg", two, id=["x", None])), "without an id")
    twice = boxes(case.folder / "e.gpkg", [(0, 0, 9, 9), (0, 0, 5, 5)], id=[4, 4])
    case.refused(case.run("--boxes", twice), "two boxes with id 4")


def test_models_that_take_no_such_prompts(case: Case) -> None:
    given = points(case.folder / "p.gpkg", [(10, 10)])
    case.refused(case.run("--text", "swimming pool"), "no text", "SAM 3")
    case.refused(case.run("--points", given, model="landcover-rgb"), "landcover-rgb", "takes no prompts")
    case.refused(case.run("--points", given, model="nowhere"), "'nowhere' is unknown")
    case.refused(case.run("--points", given, model=str(case.folder)), "is no model")
    case.refused(case.run("--points", given, "--cache", "-1"), "0 GB or more")
    case.refused(case.run("--points", given, "--gsd", "30"), "30 m")


def test_outputs_that_cannot_be_written(case: Case) -> None:
    given = points(case.folder / "p.gpkg", [(10, 10)])
    with pytest.raises(InputError, match="same file"):
        prompt_file(case.scene, given, points=given, model=case.model, overwrite=True)
    with pytest.raises(InputError, match="Shapefiles"):
        prompt_file(case.scene, case.folder / "out.shp", points=given, model=case.model)


def test_help_names_every_way_to_ask(case: Case) -> None:
    case._monkeypatch.setattr(sys, "argv", ["geoseg", "prompt", "--help"])
    with pytest.raises(SystemExit):
        main()
    told = case._capfd.readouterr().out
    assert all(option in told for option in ("--points", "--boxes", "--text", "--everything", "--model", "--classes"))


def test_ten_thousand_prompts(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = gpd.GeoDataFrame(
        geometry=gpd.points_from_xy(500_000 + rng.uniform(0, 85, 10_000), 5_000_000 - rng.uniform(0, 75, 10_000)),
        crs=UTM,
    )
    frame.to_file(tmp_path / "p.fgb")
    model = tiny_promptable(32)
    summary = prompt_file(scene(tmp_path / "s.tif"), tmp_path / "o.fgb", points=tmp_path / "p.fgb", model=model)
    assert summary.objects + summary.empty == 10_000
