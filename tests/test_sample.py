"""From a class map to points, to labels, to areas that hold up."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from scipy.stats import kstest
from typer.testing import CliRunner

from geoseg.change import StratifiedSample, estimate_areas, reference
from geoseg.change.reference import ClassMap, census, draw_sample, estimate_from_points
from geoseg.cli import app
from geoseg.errors import InputError
from geoseg.legend import LANDCOVER
from geoseg.training.evaluate import EvaluateOptions

SHAPE = (300, 420)
NAMES = {c.id: c.name for c in LANDCOVER.classes}
UTM = Affine(10, 0, 500_000, 0, -10, 5_000_000)


def write(path: Path, classes: NDArray[np.uint8], *, crs: str | None = "EPSG:32631", transform: Affine = UTM) -> Path:
    height, width = classes.shape
    with rasterio.open(
        path, "w", "GTiff", width=width, height=height, count=1, dtype="uint8", nodata=255, crs=crs, transform=transform
    ) as file:
        file.write(classes, 1)
        file.update_tags(GEOSEG_LEGEND=LANDCOVER.to_json())
    return path


def map_and_truth() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Water is rare, and the map says too much of it; a corner is not mapped."""
    rng = np.random.default_rng(0)
    rows, cols = np.indices(SHAPE)
    truth = np.where((rows - 100) ** 2 + (cols - 200) ** 2 < 900, 6, np.where(cols > 250, 4, 5)).astype(np.uint8)
    mapped = np.where(rng.random(SHAPE) < 0.03, 6, truth).astype(np.uint8)
    mapped[:40, :60] = 255
    return mapped, truth


@pytest.fixture
def cover(tmp_path: Path) -> Path:
    return write(tmp_path / "cover.tif", map_and_truth()[0])


def labelled(path: Path, truth: NDArray[np.uint8]) -> gpd.GeoDataFrame:
    """What somebody does in a GIS."""
    points = gpd.read_file(path)
    points["reference"] = [NAMES[int(truth[r, c])] for r, c in zip(points["row"], points["col"], strict=True)]
    points.to_file(path)
    return points


def test_points_are_where_their_class_is(cover: Path, tmp_path: Path) -> None:
    given = draw_sample(cover, tmp_path / "points.gpkg", n=300)
    points = gpd.read_file(tmp_path / "points.gpkg")
    mapped, _ = map_and_truth()
    assert points["stratum"].value_counts().to_dict() == given
    assert sum(given.values()) == 300
    assert min(given.values()) >= 50
    at = ~UTM * (points.geometry.x.to_numpy(), points.geometry.y.to_numpy())
    cols, rows = (np.floor(axis).astype(int) for axis in at)
    assert [NAMES[code] for code in mapped[rows, cols]] == points["map_class"].tolist()
    assert np.array_equal(rows, points["row"])
    assert np.array_equal(cols, points["col"])
    assert not points.duplicated(["row", "col"]).any()
    assert points.crs == "EPSG:32631"
    assert set(points["reference"].fillna("")) == {""}


def test_the_draw_depends_on_the_seed_and_on_nothing_else(
    cover: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drawn(name: str, seed: int) -> pd.DataFrame:
        draw_sample(cover, tmp_path / name, n=200, seed=seed)
        return gpd.read_file(tmp_path / name)

    first, other = drawn("a.gpkg", 0), drawn("b.gpkg", 1)
    monkeypatch.setattr(reference, "STRIP", 3000)  # strips of seven rows
    assert first.equals(drawn("c.gpkg", 0))
    assert not first.equals(other)


def test_every_pixel_of_a_class_is_as_likely(tmp_path: Path) -> None:
    path = write(tmp_path / "one.tif", np.full((200, 200), 5, np.uint8))
    draw_sample(path, tmp_path / "points.gpkg", n=3000)
    points = gpd.read_file(tmp_path / "points.gpkg")
    assert kstest((points["row"] * 200 + points["col"]) / 200**2, "uniform").pvalue > 0.001
    order = points["row"].to_numpy()
    assert abs(np.corrcoef(np.arange(3000), order)[0, 1]) < 0.08  # the first points are a sample too


def test_areas_are_those_of_the_truth(cover: Path, tmp_path: Path) -> None:
    mapped, truth = map_and_truth()
    draw_sample(cover, tmp_path / "points.gpkg", n=600)
    points = labelled(tmp_path / "points.gpkg", truth)
    summary = estimate_from_points(cover, tmp_path / "points.gpkg")
    known = mapped != 255
    water = summary.report.classes.index("water")
    low, high = summary.areas()[water].interval(0.999)
    true_ha = float((truth[known] == 6).sum()) * 0.01
    assert low < true_ha < high
    assert summary.mapped_pixels["water"] * 0.01 > high  # counting would be far off
    sizes = {NAMES[int(code)]: float((mapped == code).sum()) for code in np.unique(mapped[known])}
    apart = estimate_areas(
        StratifiedSample(points["stratum"], points["map_class"], points["reference"], sizes), summary.report.classes
    )
    assert summary.report.overall == apart.overall
    assert summary.report.shares == apart.shares
    assert summary.pixel_m2 == pytest.approx(100)


def test_strata_of_another_map(cover: Path, tmp_path: Path) -> None:
    """A better map comes later; the sample stays that of the first."""
    mapped, truth = map_and_truth()
    draw_sample(cover, tmp_path / "points.gpkg", n=600)
    labelled(tmp_path / "points.gpkg", truth)
    better = write(tmp_path / "better.tif", np.where(mapped == 255, 255, truth).astype(np.uint8))
    with pytest.raises(InputError, match="with --strata"):
        estimate_from_points(better, tmp_path / "points.gpkg")
    summary = estimate_from_points(better, tmp_path / "points.gpkg", strata=cover)
    assert summary.report.overall.value == pytest.approx(1)
    first = estimate_from_points(cover, tmp_path / "points.gpkg")
    assert [s.value for s in summary.report.shares] == pytest.approx([s.value for s in first.report.shares])


def test_unlabelled_points_are_left_out_and_told(cover: Path, tmp_path: Path) -> None:
    draw_sample(cover, tmp_path / "points.gpkg", n=300)
    points = labelled(tmp_path / "points.gpkg", map_and_truth()[1])
    points.loc[:99, "reference"] = [None, ""] * 50
    points.to_file(tmp_path / "points.gpkg")
    summary = estimate_from_points(cover, tmp_path / "points.gpkg")
    assert summary.report.counts.sum() == 200
    assert summary.told[0].startswith("100 of 300 points have no class")


@pytest.mark.parametrize(
    ("crs", "transform"),
    [("EPSG:4326", Affine(0.01, 0, 5, 0, -0.01, 60)), ("EPSG:3857", Affine(500, 0, 500_000, 0, -500, 8_000_000))],
)
def test_areas_are_geodesic_where_the_scale_is_off(crs: str, transform: Affine, tmp_path: Path) -> None:
    path = write(tmp_path / "geo.tif", np.full((60, 40), 5, np.uint8), crs=crs, transform=transform)
    x, y = transform * (np.array([0, 0, 40, 40]), np.array([0, 60, 60, 0]))
    lon, lat = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(x, y)
    true, _ = pyproj.CRS(crs).get_geod().polygon_area_perimeter(lon, lat)
    assert census(ClassMap.of(path)).area_m2 == pytest.approx(abs(true), rel=2e-3)  # parallels are no geodesics


@pytest.mark.filterwarnings("ignore:'crs' was not provided:UserWarning")  # of what this test writes
def test_without_a_crs_areas_are_pixels(tmp_path: Path) -> None:
    path = write(tmp_path / "bare.tif", map_and_truth()[0], crs=None)
    draw_sample(path, tmp_path / "points.gpkg", n=300)
    labelled(tmp_path / "points.gpkg", map_and_truth()[1])
    summary = estimate_from_points(path, tmp_path / "points.gpkg")
    assert summary.unit == "px"
    assert sum(area.value for area in summary.areas()) == pytest.approx(sum(summary.mapped_pixels.values()))


def test_on_the_command_line(cover: Path, tmp_path: Path) -> None:
    points = tmp_path / "points.gpkg"
    told = CliRunner().invoke(app, ["sample", str(cover), "--standard-error", "0.02", "-o", str(points)])
    assert told.exit_code == 0, told.output
    assert "fill in the column 'reference'" in told.output
    labelled(points, map_and_truth()[1])
    text = CliRunner().invoke(app, ["area", str(cover), "--reference", str(points)]).output
    assert "overall accuracy" in text
    found = json.loads(CliRunner().invoke(app, ["area", str(cover), "--reference", str(points), "--json"]).output)
    assert found["overall_accuracy"]["standard_error"] < 0.02
    assert found["classes"]["water"]["area_ha"]["low"] < found["classes"]["water"]["mapped_ha"]


def test_fewer_points_than_asked_for_are_told(cover: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The map has no more pixels, or a class would get less than it should; else nothing is said."""
    given = draw_sample(cover, tmp_path / "few.gpkg", n=12, least=50)
    assert f"12 points do not suffice for 50 of each class (--least): {next(iter(given))} " in caplog.text
    caplog.clear()
    draw_sample(cover, tmp_path / "fine.gpkg", n=150)
    assert not caplog.text
    small = write(tmp_path / "small.tif", map_and_truth()[0][100:110, 240:260])
    given = draw_sample(small, tmp_path / "all.gpkg", n=1000)
    assert sum(given.values()) == 200
    assert "200 points, not 1,000: the map has no more pixels of" in caplog.text
    assert "do not suffice" not in caplog.text


def test_points_of_a_file_with_several_layers(cover: Path, tmp_path: Path) -> None:
    """The only one with the column is taken; of two one is to be named."""
    points = tmp_path / "points.gpkg"
    draw_sample(cover, points, n=200)
    frame = labelled(points, map_and_truth()[1])
    expected = estimate_from_points(cover, points).to_dict()
    frame[["geometry"]].to_file(points, layer="aaa")
    assert estimate_from_points(cover, points).to_dict() == expected
    frame.assign(reference="water").to_file(points, layer="other")
    with pytest.raises(
        InputError, match=r"has 3 layers \(points, aaa, other\), and 2 of them have .*points.gpkg:points"
    ):
        estimate_from_points(cover, points)
    with pytest.raises(InputError, match=r"none of them has a column 'truth'"):
        estimate_from_points(cover, points, column="truth")
    with pytest.raises(InputError, match=r"no layer 'lake' with geometry; it has points"):
        estimate_from_points(cover, f"{points}:lake")
    told = CliRunner().invoke(app, ["area", str(cover), "--reference", f"{points}:points", "--json"])
    assert json.loads(told.output) == json.loads(json.dumps(expected))


def test_what_cannot_be_used_is_said(cover: Path, tmp_path: Path) -> None:
    points = tmp_path / "points.gpkg"
    for options, said in (
        ({}, "Give either"),
        ({"n": 5, "standard_error": 0.1}, "Give either"),
        ({"n": 3}, "3 points are too few for 3 strata"),
        ({"standard_error": 0.01, "expected": {"lava": 0.5}}, "'lava' is not on the map"),
    ):
        with pytest.raises(InputError, match=said):
            draw_sample(cover, points, **options)
    draw_sample(cover, points, n=100)
    with pytest.raises(InputError, match="exists"):
        draw_sample(cover, points, n=100)
    with pytest.raises(InputError, match="None of the 100 points"):
        estimate_from_points(cover, points)
    with pytest.raises(InputError, match="no column 'truth'"):
        estimate_from_points(cover, points, column="truth")
    frame = labelled(points, map_and_truth()[1])
    for change, said in (
        ({"reference": "lava"}, "'lava', which the map does not"),
        ({"geometry": frame.translate(1e5, 0)}, "100 of 100 points .* lie outside"),
        ({"geometry": frame.buffer(1)}, "holds Polygon geometries"),
    ):
        frame.assign(**change).to_file(tmp_path / "wrong.gpkg")
        with pytest.raises(InputError, match=said):
            estimate_from_points(cover, tmp_path / "wrong.gpkg")
    empty = write(tmp_path / "empty.tif", np.full((5, 5), 255, np.uint8))
    with pytest.raises(InputError, match="holds no class anywhere"):
        draw_sample(empty, tmp_path / "none.gpkg", n=10)


def test_a_negative_seed_is_refused(cover: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="seed is 0 or more, not -1"):
        draw_sample(cover, tmp_path / "p.gpkg", n=200, seed=-1)
    with pytest.raises(InputError, match="seed is 0 or more, not -1"):
        EvaluateOptions(seed=-1)
