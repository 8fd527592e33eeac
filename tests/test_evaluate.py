"""Evaluation of arrays, land-cover files and models, against torchmetrics and scikit-learn on the same pixels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import sklearn.metrics
import torch
import typer
from builders import HALF_METRE, read_band, tiny_model, write_rgb
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.crs import CRS
from scene_files import UTM, write
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex
from typer.testing import CliRunner

from geoseg.cli.evaluate import evaluate, parse_map
from geoseg.errors import InputError
from geoseg.inference import RunOptions
from geoseg.legend import LANDCOVER
from geoseg.pipeline import segment_file
from geoseg.raster.labels import LabelCodes, LabelOptions, open_labels
from geoseg.training.boundary import Targets
from geoseg.training.compare import AreaLabels, Cells, Comparison
from geoseg.training.evaluate import Confusion, EvaluateOptions
from geoseg.view.evaluation import evaluate_file


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 4, (40, 50)), rng.integers(0, 4, (40, 50))


def test_scores_are_those_of_torchmetrics(pair: tuple[np.ndarray, np.ndarray]) -> None:
    matrix = Confusion(("a", "b", "c", "d"))
    matrix.add(*pair)
    reference, predicted = (torch.from_numpy(array) for array in pair)
    jaccard = MulticlassJaccardIndex(4, average="none")(predicted, reference)
    accuracy = MulticlassAccuracy(4, average="micro")(predicted, reference)
    np.testing.assert_allclose(list(matrix.iou().values()), jaccard, rtol=1e-6)
    np.testing.assert_allclose(matrix.overall_accuracy(), accuracy, rtol=1e-6)


def test_counts_add_up_over_parts(pair: tuple[np.ndarray, np.ndarray]) -> None:
    whole, parts = Confusion(("a", "b", "c", "d")), Confusion(("a", "b", "c", "d"))
    whole.add(*pair)
    for rows in (slice(7, 40), slice(0, 7)):
        parts.add(pair[0][rows], pair[1][rows])
    assert (whole.counts == parts.counts).all()


def test_unknown_pixels_are_left_out() -> None:
    matrix = Confusion(("a", "b"))
    matrix.add(np.array([0, 1, -1, 1, 7]), np.array([0, 1, 1, -1, 0]))
    assert matrix.counts.tolist() == [[1, 0], [0, 1]]


def test_a_class_nobody_has_is_nan() -> None:
    matrix = Confusion(("a", "b"))
    matrix.add([0, 0], [0, 0])
    assert matrix.iou()["a"] == 1
    assert np.isnan(matrix.iou()["b"])


def test_other_shapes_are_refused() -> None:
    with pytest.raises(InputError, match=r"\(2,\) .* \(3,\)"):
        Confusion(("a",)).add(np.zeros(2, int), np.zeros(3, int))


SHAPE = (300, 340)
CODES = LabelCodes.of(LANDCOVER)
TARGETS = Targets(CODES.members, 6)
GRID: dict[str, Any] = {"transform": HALF_METRE, "nodata": 255}


def maps(shape: tuple[int, int] = SHAPE, *, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(1, height, width) labels and predictions: class ids, 255 here and there; a fifth of the pixels differ."""
    rng = np.random.default_rng(seed)
    blocks = rng.choice([1, 2, 3, 4, 5, 6, 255], (shape[0] // 20 + 1, shape[1] // 20 + 1), p=[0.15] * 6 + [0.1])
    labels = blocks.repeat(20, 0).repeat(20, 1)[: shape[0], : shape[1]].astype(np.uint8)
    predicted = np.where(rng.random(shape) < 0.2, rng.integers(1, 7, shape), np.roll(labels, 2, 1)).astype(np.uint8)
    predicted[:10, :60] = 255
    return labels[None], predicted[None]


def landcover_file(path: Path, class_map: NDArray[np.uint8], **profile: Any) -> Path:
    write(path, class_map, **(GRID | profile))
    with rasterio.open(path, "r+") as file:
        file.update_tags(GEOSEG_LEGEND=LANDCOVER.to_json())
    return path


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    labels, predicted = maps()
    return landcover_file(tmp_path / "landcover.tif", predicted), write(tmp_path / "labels.tif", labels, **GRID)


def report_of(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return report


def test_labels_go_by_the_name_of_a_catalogue_too(files: tuple[Path, Path], tmp_path: Path) -> None:
    entry = f"{{driver: rasterio, args: {{urlpath: scene.tif}}, metadata: {{labels: {files[1]}}}}}"
    (tmp_path / "catalog.yaml").write_text(f"sources:\n  a: {entry}\n")
    reports = []
    for name, labels in (("file", files[1]), ("entry", f"{tmp_path}/catalog.yaml#a")):
        evaluate_file(files[0], labels, tmp_path / name)
        reports.append(report_of(tmp_path / name))
    assert reports[0] == reports[1]


def test_a_land_cover_has_the_scores_of_scikit_learn(tmp_path: Path, files: tuple[Path, Path]) -> None:
    evaluate_file(*files, tmp_path / "out")
    report = report_of(tmp_path / "out")
    labels, predicted = (array.ravel() for array in maps())
    known = (labels < 255) & (predicted < 255)
    pair = labels[known], predicted[known]
    counts = np.array(report["confusion"]["counts"])
    assert np.array_equal(counts[:6], sklearn.metrics.confusion_matrix(*pair, labels=range(1, 7)))
    scores = {
        "iou": sklearn.metrics.jaccard_score(*pair, average=None),
        "f1": sklearn.metrics.f1_score(*pair, average=None),
        "precision": sklearn.metrics.precision_score(*pair, average=None),
        "recall": sklearn.metrics.recall_score(*pair, average=None),
    }
    for what, expected in scores.items():
        found = [report["classes"][name][what]["value"] for name in LANDCOVER.names]
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert report["overall"]["mean_iou"]["value"] == pytest.approx(scores["iou"].mean(), abs=1e-6)
    accuracy = report["overall"]["overall_accuracy"]
    assert accuracy["value"] == pytest.approx(sklearn.metrics.accuracy_score(*pair), abs=1e-6)
    assert accuracy["low"] < accuracy["value"] < accuracy["high"]
    merged = [np.where(array == 5, 4, array) for array in pair]
    vegetation = sklearn.metrics.jaccard_score(*merged, average=None, labels=[4])[0]
    assert report["classes"]["vegetation"]["iou"]["value"] == pytest.approx(vegetation, abs=1e-6)
    assert report["pixels"] == {
        "compared": int(known.sum()),
        "labelled_without_prediction": int(((labels < 255) & (predicted == 255)).sum()),
    }


def test_reports_and_pictures_are_there_and_a_second_run_does_nothing(tmp_path: Path, files: tuple[Path, Path]) -> None:
    first = evaluate_file(*files, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "report.json",
        "report.md",
        "confusion.png",
        "errors.png",
    }
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| building |" in text
    assert "Boundaries agree within 2 px (1 m)" in text
    assert str(tmp_path) not in text + json.dumps(report_of(tmp_path / "out"))
    again = evaluate_file(*files, tmp_path / "out")
    assert again.up_to_date
    assert again.report == json.loads(json.dumps(first.report))
    other = EvaluateOptions(distance_px=3)
    with pytest.raises(InputError, match=r"another evaluation.*--overwrite"):
        evaluate_file(*files, tmp_path / "out", options=other)
    evaluate_file(*files, tmp_path / "out", options=other, overwrite=True)
    assert report_of(tmp_path / "out")["boundary_distance_px"] == 3


@given(st.integers(40, 400))
@settings(max_examples=6)
def test_counts_do_not_depend_on_blocks(tmp_path_factory: pytest.TempPathFactory, block: int) -> None:
    comparison = COMPARISONS.get("one") or COMPARISONS.setdefault("one", _comparison(tmp_path_factory.mktemp("blocks")))
    whole, parts = comparison.whole(1024), comparison.whole(block)
    for one, two in zip(whole.stacked(), parts.stacked(), strict=True):
        assert np.array_equal(one, two)
    assert whole.cells == parts.cells
    assert np.array_equal(whole.right, parts.right)
    assert np.array_equal(whole.wrong, parts.wrong)
    assert whole.unpredicted == parts.unpredicted


COMPARISONS: dict[str, Comparison] = {}


def _comparison(folder: Path) -> Comparison:
    labels, predicted = maps((700, 640))
    grid = {"shape": (700, 640), "transform": HALF_METRE, "crs": CRS.from_string(UTM)}
    readers = [
        open_labels(write(folder / f"{name}.tif", values, **GRID), LANDCOVER, **grid)
        for name, values in (("labels", labels), ("predicted", predicted))
    ]
    area = AreaLabels(readers[0], None)
    return Comparison(area, readers[1], TARGETS, 2.5, Cells(area.extent, 90))


def polygons(path: Path, rows: list[tuple[str, tuple[float, float, float, float]]], crs: str = UTM) -> Path:
    """Rectangles (column, row, column, row) with a class."""
    shapes = [shapely.box(*(HALF_METRE @ box[:2]), *(HALF_METRE @ box[2:])) if box else None for _, box in rows]
    frame = gpd.GeoDataFrame({"class_name": [name for name, _ in rows]}, geometry=shapes, crs=UTM)
    frame.to_crs(crs).to_file(path)
    return path


def test_polygons_in_another_crs_with_a_group_and_an_area(tmp_path: Path, files: tuple[Path, Path]) -> None:
    labels = polygons(
        tmp_path / "labels.gpkg", [("vegetation", (50, 40, 150, 140)), ("water", (180, 60, 300, 200))], "EPSG:3857"
    )
    aoi = polygons(tmp_path / "aoi.gpkg", [("here", (100, 0, 340, 120))])
    evaluate_file(files[0], labels, tmp_path / "out", options=EvaluateOptions(aoi=aoi))
    report = report_of(tmp_path / "out")
    predicted = maps()[1][0]
    vegetation, water = predicted[40:120, 100:150], predicted[60:120, 180:300]
    right = np.isin(vegetation, [4, 5]).sum() + (water == 6).sum()
    compared = (vegetation < 255).sum() + (water < 255).sum()
    assert report["pixels"]["compared"] == pytest.approx(compared, abs=300)  # centers beside edges
    assert report["overall"]["overall_accuracy"]["value"] == pytest.approx(right / compared, abs=0.01)
    assert set(report["classes"]) == {"water", "vegetation"}
    assert any("any class of the group" in note for note in report["notes"])
    assert any("No pixel is labelled building, paved, bare;" in note for note in report["notes"])
    assert report["aoi"] == "aoi.gpkg"


def test_labels_of_one_class_are_called_what_they_are(tmp_path: Path, files: tuple[Path, Path]) -> None:
    labels = polygons(tmp_path / "labels.gpkg", [("building", (50, 40, 150, 140))])
    evaluate_file(files[0], labels, tmp_path / "out")
    notes = " ".join(report_of(tmp_path / "out")["notes"])
    assert "All labels are building" in notes
    assert "no confidence intervals" in notes
    assert report_of(tmp_path / "out")["overall"]["overall_accuracy"]["low"] is None


def test_of_buildings_alone_precision_is_known_where_all_else_is_other(
    tmp_path: Path, files: tuple[Path, Path]
) -> None:
    labels = polygons(tmp_path / "labels.gpkg", [("building", (50, 40, 150, 140))])
    options = EvaluateOptions(labels=LabelOptions(elsewhere="other"))
    evaluate_file(files[0], labels, tmp_path / "out", options=options)
    predicted = maps()[1][0]
    truth = np.zeros(SHAPE, np.bool_)
    truth[40:140, 50:150] = True
    known = predicted < 255
    found = report_of(tmp_path / "out")["classes"]["building"]
    precision = sklearn.metrics.precision_score(truth[known], predicted[known] == 1)
    assert found["precision"]["value"] == pytest.approx(precision, abs=1e-6)
    iou = sklearn.metrics.jaccard_score(truth[known], predicted[known] == 1)
    assert found["iou"]["value"] == pytest.approx(iou, abs=1e-6)
    assert set(report_of(tmp_path / "out")["classes"]) == {"building", "other"}


def test_foreign_land_cover_and_labels_without_names(tmp_path: Path) -> None:
    labels, predicted = maps()
    files = [write(tmp_path / f"{i}.tif", array, **GRID) for i, array in enumerate((predicted, labels))]
    evaluate_file(*files, tmp_path / "out")
    report = report_of(tmp_path / "out")
    assert report["confusion"]["labels"] == [f"class_{i}" for i in range(1, 7)]
    meanings = {str(i): f"class_{i % 6 + 1}" for i in range(1, 7)}
    options = EvaluateOptions(labels=LabelOptions(meanings=meanings))
    evaluate_file(*files, tmp_path / "shifted", options=options)
    shifted = np.array(report_of(tmp_path / "shifted")["confusion"]["counts"])
    assert np.array_equal(np.roll(report["confusion"]["counts"], 1, 0), shifted)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([("water", (900, 900, 950, 950))], "lie outside the scene"),
        ([("water", (20.1, 20.1, 20.3, 20.3))], r"say nothing on the scene: no pixel there has a class"),
        ([("lake", (50, 40, 150, 140))], r"label lake, .*--map lake=building"),
        ([("water", (2, 2, 40, 8))], r"None of the \d+ labelled pixels has a prediction"),
    ],
)
def test_labels_that_say_nothing_are_told_and_nothing_is_written(
    tmp_path: Path, files: tuple[Path, Path], rows: list[Any], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        evaluate_file(files[0], polygons(tmp_path / "labels.gpkg", rows), tmp_path / "out")
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True


def test_an_area_without_labels_and_other_bad_requests_are_told(tmp_path: Path, files: tuple[Path, Path]) -> None:
    labels = polygons(tmp_path / "labels.gpkg", [("water", (50, 40, 100, 90))])
    aoi = polygons(tmp_path / "aoi.gpkg", [("here", (200, 200, 300, 280))])
    with pytest.raises(InputError, match=r"say nothing of the scene within .*aoi.gpkg"):
        evaluate_file(files[0], labels, tmp_path / "out", options=EvaluateOptions(aoi=aoi))
    with pytest.raises(InputError, match=r"3 bands, so it is no land cover.*--model"):
        evaluate_file(write_rgb(tmp_path / "scene.tif", SHAPE), labels, tmp_path / "out")
    with pytest.raises(InputError, match=r"1 to 1000 pixels, not 0\.2"):
        evaluate_file(*files, tmp_path / "out", options=EvaluateOptions(distance_m=0.1))
    with pytest.raises(InputError, match="side of 1 px or more, not 0"):
        EvaluateOptions(cell_px=0)


RUN = {"device": "cpu", "precision": "float32", "engine": "torch"}


@pytest.fixture
def scene(tmp_path: Path) -> tuple[Path, Path]:
    """A scene and labels: what the tiny model says, but for some noise."""
    path = write_rgb(tmp_path / "scene.tif", (150, 170))
    segment_file(path, tmp_path / "all.tif", model=tiny_model(), run=RunOptions(**RUN))
    class_map = read_band(tmp_path / "all.tif")
    rng = np.random.default_rng(0)
    noisy = np.where(rng.random(class_map.shape) < 0.3, rng.integers(1, 7, class_map.shape), class_map)
    noisy[100:] = 255
    return path, write(tmp_path / "labels.tif", noisy[None].astype(np.uint8), **GRID)


def test_a_model_is_judged_where_there_are_labels_whatever_the_blocks(tmp_path: Path, scene: tuple[Path, Path]) -> None:
    reports = []
    for block in (None, 64):
        folder = tmp_path / f"out-{block}"
        options = EvaluateOptions(cell_px=40)
        evaluate_file(*scene, folder, model=tiny_model(), run=RunOptions(**RUN, block=block), options=options)
        reports.append({key: value for key, value in report_of(folder).items() if key != "digest"})
        full = read_band(tmp_path / "all.tif")
        with rasterio.open(folder / "landcover.tif") as file:
            class_map = file.read(1)
        assert np.array_equal(class_map[:100], full[: len(class_map)][:100])
        assert not list(folder.glob("*partial*"))
    assert reports[0] == reports[1]
    labels = read_band(scene[1])
    agree = (labels == read_band(tmp_path / "all.tif"))[:100].mean()
    assert reports[0]["overall"]["overall_accuracy"]["value"] == pytest.approx(agree, abs=1e-6)
    assert sum(one["pixels"] for one in reports[0]["reliability"]["bins"]) == 100 * 170
    calibration = reports[0]["calibration"]
    assert calibration["ece_before"] == pytest.approx(reports[0]["reliability"]["expected_calibration_error"], abs=1e-4)
    assert calibration["pixels"] == 100 * 170
    assert (tmp_path / "out-64" / "reliability.png").stat().st_size > 0


def test_the_same_run_again_is_up_to_date_and_other_labels_are_not(tmp_path: Path, scene: tuple[Path, Path]) -> None:
    given: dict[str, Any] = {"model": tiny_model(), "run": RunOptions(**RUN)}
    evaluate_file(*scene, tmp_path / "out", **given)
    assert evaluate_file(*scene, tmp_path / "out", **given).up_to_date
    labels = polygons(tmp_path / "labels.gpkg", [("water", (50, 40, 100, 90))])
    with pytest.raises(InputError, match="another evaluation"):
        evaluate_file(scene[0], labels, tmp_path / "out", **given)
    (tmp_path / "mine").mkdir()
    (tmp_path / "all.tif").rename(tmp_path / "mine" / "landcover.tif")
    with pytest.raises(InputError, match=r"mine/landcover.tif .*--overwrite"):
        evaluate_file(scene[0], labels, tmp_path / "mine", **given)


def test_a_run_that_stopped_goes_on(tmp_path: Path, scene: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {"model": tiny_model(), "run": RunOptions(**RUN, block=64)}
    evaluate_file(*scene, tmp_path / "whole", **given)

    def stop(*_: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr("geoseg.view.evaluation.draw_errors", stop)
    with pytest.raises(KeyboardInterrupt):
        evaluate_file(*scene, tmp_path / "out", **given)
    monkeypatch.undo()
    monkeypatch.setattr("geoseg.training.predict.PredictBlock.__call__", stop)  # all blocks are kept
    evaluate_file(*scene, tmp_path / "out", **given)
    assert report_of(tmp_path / "out") == report_of(tmp_path / "whole")


def test_the_command_line(tmp_path: Path, files: tuple[Path, Path]) -> None:
    app = typer.Typer()
    app.command()(evaluate)
    arguments = [str(files[0]), str(files[1]), "-o", str(tmp_path / "out"), "--cell", "50", "--distance", "3"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "mean IoU" in result.output
    assert "up to date" in CliRunner().invoke(app, arguments).output
    assert parse_map("5=water,13=water, a lake=water") == {"5": "water", "13": "water", "a lake": "water"}
    with pytest.raises(InputError, match="not 5"):
        parse_map("5,6=water")
    with pytest.raises(InputError, match="a scene and its labels"):
        CliRunner().invoke(app, [str(files[0])], catch_exceptions=False)
