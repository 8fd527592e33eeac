"""Pseudo-labels: the land cover where it is sure, ignored elsewhere, and fit to train on."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from builders import HALF_METRE, read_band, tiny_model, write_rgb
from shapely.geometry import box
from typer.testing import CliRunner

import geoseg
from geoseg.cli import app
from geoseg.cli.pseudo_label import parse_thresholds
from geoseg.errors import BlockError, InputError
from geoseg.legend import LANDCOVER
from geoseg.models import Model, save_model
from geoseg.raster.landcover import read_legend
from geoseg.training import pseudo
from geoseg.training.config import TrainConfig
from geoseg.training.train import Training

SHAPE = (131, 149)


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model()


@pytest.fixture(scope="module")
def segmented(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene with a corner that is not measured, its land cover and confidence."""
    folder = tmp_path_factory.mktemp("segmented")
    write_rgb(folder / "scene.tif", SHAPE, seed=4)
    with rasterio.open(folder / "scene.tif", "r+") as scene:
        scene.write(np.zeros((3, 20, 30), np.uint8), window=((0, 20), (0, 30)))
        scene.nodata = 0
    geoseg.segment_file(folder / "scene.tif", folder / "cover.tif", model=model, confidence=folder / "confidence.tif")
    return folder


def test_labels_are_the_land_cover_where_it_is_sure(segmented: Path, model: Model, tmp_path: Path) -> None:
    cover, confidence = (read_band(segmented / name) for name in ("cover.tif", "confidence.tif"))
    middle = float(np.median(confidence[confidence < 255])) / 200
    names = {"building": 0.0, "vegetation": 1.0}
    made = geoseg.pseudo_label(
        segmented / "scene.tif", tmp_path / "labels.tif", model=model, threshold=middle, thresholds=names
    )
    least = np.full(256, middle)
    least[[1, 4, 5]] = 0.0, 1.0, 1.0
    sure = (confidence != 255) & (confidence / 200 >= least[cover] - 1e-6)
    expected = np.where(sure, cover, 255)
    found = read_band(made.output)
    assert np.array_equal(found, expected)
    assert (found[:20, :30] == 255).all()
    assert 0.05 < (found != 255).mean() < 0.95
    assert made.kept.names == LANDCOVER.names
    assert made.kept.kept == tuple((expected == i).sum() for i in LANDCOVER.ids)
    assert made.kept.predicted == tuple((cover == i).sum() for i in LANDCOVER.ids)
    with rasterio.open(made.output) as labels, rasterio.open(segmented / "scene.tif") as scene:
        assert (labels.crs, labels.transform, labels.shape) == (scene.crs, scene.transform, scene.shape)
        assert (labels.nodata, labels.dtypes) == (255, ("uint8",))
    assert read_legend(made.output) == LANDCOVER
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.tif", "labels.tif.aux.xml"]
    again = geoseg.pseudo_label(
        segmented / "scene.tif", tmp_path / "labels.tif", model=model, threshold=middle, thresholds=names
    )
    assert again.up_to_date
    assert again.kept == made.kept
    with pytest.raises(InputError, match="overwrite"):
        geoseg.pseudo_label(segmented / "scene.tif", tmp_path / "labels.tif", model=model, threshold=0.5)


def test_within_an_area_of_interest(segmented: Path, model: Model, tmp_path: Path) -> None:
    """Only its window is written, in its place."""
    west, north = HALF_METRE @ (40, 20)
    area = box(west, north - 25, west + 30, north)
    gpd.GeoDataFrame(geometry=[area], crs="EPSG:32631").to_file(tmp_path / "aoi.gpkg")
    write_rgb(tmp_path / "scene.tif", SHAPE, seed=4, crs="EPSG:32631")
    run = geoseg.RunOptions(aoi=str(tmp_path / "aoi.gpkg"))
    for name in ("whole", "part"):
        options = {"run": run} if name == "part" else {}
        geoseg.pseudo_label(tmp_path / "scene.tif", tmp_path / f"{name}.tif", model=model, threshold=0.4, **options)
    with rasterio.open(tmp_path / "part.tif") as part:
        assert part.shape == (50, 60)
        assert part.transform @ (0, 0) == (west, north)
    assert np.array_equal(read_band(tmp_path / "part.tif"), read_band(tmp_path / "whole.tif")[20:70, 40:100])


def test_they_are_labels_to_train_on(segmented: Path, model: Model, tmp_path: Path) -> None:
    geoseg.pseudo_label(segmented / "scene.tif", tmp_path / "labels.tif", model=model, threshold=0)
    source = {"scene": str(segmented / "scene.tif"), "labels": str(tmp_path / "labels.tif")}
    config = {"name": "again", "scenes": [source], "split": {"block_px": 64, "buffer_px": 0}, "run": {"chip": 64}}
    training = Training.of(TrainConfig.model_validate(config))
    (scene,), (held,) = training.train.scenes, training.validate.scenes
    codes = np.minimum(scene.read_labels(scene.extent), held.read_labels(held.extent))
    expected = np.where((stored := read_band(tmp_path / "labels.tif")) == 255, 255, stored - 1)  # ids are 1 to 6
    assert np.array_equal(codes, expected)


def test_a_stopped_run_goes_on(segmented: Path, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene, output = segmented / "scene.tif", tmp_path / "labels.tif"
    geoseg.pseudo_label(scene, tmp_path / "whole.tif", model=model, threshold=0.3)
    monkeypatch.setattr(pseudo, "BLOCK", 64)
    real = pseudo._read
    calls = []

    def failing(path: Path, window: object) -> object:
        calls.append(window)
        if len(calls) > 4:
            raise OSError("the disk is gone")
        return real(path, window)  # type: ignore[arg-type]

    monkeypatch.setattr(pseudo, "_read", failing)
    with pytest.raises(BlockError):
        geoseg.pseudo_label(scene, output, model=model, threshold=0.3)
    assert not output.exists()
    monkeypatch.setattr(pseudo, "_read", real)
    made = geoseg.pseudo_label(scene, output, model=model, threshold=0.3)
    assert output.read_bytes() == (tmp_path / "whole.tif").read_bytes()
    assert sum(made.kept.predicted) == (read_band(segmented / "cover.tif") != 255).sum()
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("thresholds", "said"),
    [
        ({"roof": 0.8}, "'roof' is not in the legend"),
        ({"building": 1.5}, "threshold of building is a probability"),
        ({"vegetation": 0.8, "tree": 0.9}, "asked for twice"),
    ],
)
def test_thresholds_that_make_no_sense_are_refused(
    segmented: Path, model: Model, tmp_path: Path, thresholds: dict[str, float], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        geoseg.pseudo_label(segmented / "scene.tif", tmp_path / "labels.tif", model=model, thresholds=thresholds)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["0.5", "0.6"], "twice for all classes, 0.5 and 0.6; give one"),
        (["water=0.5", "water=0.5"], "twice for water"),
    ],
)
def test_two_thresholds_of_the_same_are_refused(texts: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_thresholds(texts)


def test_nothing_sure_is_told(segmented: Path, model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = geoseg.pseudo_label(segmented / "scene.tif", tmp_path / "labels.tif", model=model, threshold=1.0)
    assert not any(made.kept.kept)
    assert "lower threshold" in caplog.text


def test_a_scene_without_a_measured_pixel_is_told(
    model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scene = write_rgb(tmp_path / "scene.tif", values=np.zeros((3, 70, 80), np.uint8), nodata=0)
    made = geoseg.pseudo_label(scene, tmp_path / "labels.tif", model=model)
    assert not any(made.kept.predicted)
    assert "Nothing of the scene is measured" in caplog.text
    assert "lower threshold" not in caplog.text


def test_the_command_line(segmented: Path, model: Model, tmp_path: Path) -> None:
    save_model(model, tmp_path / "tiny")
    command = ["pseudo-label", str(tmp_path / "tiny"), str(segmented / "scene.tif"), "-o", str(tmp_path / "labels.tif")]
    done = CliRunner().invoke(app, [*command, "--threshold", "0", "--threshold", "water=1"])
    assert done.exit_code == 0, done.output
    assert "water           kept 0 of" in done.output
    assert "(100.0 %)" in done.output
    assert "up to date" in CliRunner().invoke(app, [*command, "--threshold", "water=1", "--threshold", "0"]).output
    wrong = CliRunner().invoke(app, [*command, "--threshold", "much"])
    assert isinstance(wrong.exception, InputError)
    assert "'much'" in str(wrong.exception)
