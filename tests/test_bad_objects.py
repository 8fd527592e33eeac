"""What people hand to instances, panoptic and evaluate-objects by mistake: exit code 2, a plain sentence, no file."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from scene_files import AT, UTM, write
from shapely.geometry import box
from test_bad_input import Case

from geoseg.models import load_model, save_model
from geoseg.models.bundle import Model


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Case:
    return Case(tmp_path, monkeypatch, capfd)


def find(case: Case, *arguments: object, suffix: str = ".gpkg") -> tuple[int, str]:
    given = ["--model", case.model] if "--model" not in arguments else []
    return case.run(
        "instances", case.scene, "-o", case.output.with_suffix(suffix), *given, "--device", "cpu", *arguments
    )


def whole(case: Case, *arguments: object, suffix: str = ".tif") -> tuple[int, str]:
    given = ["--model", case.model, "--device", "cpu"]
    return case.run("panoptic", case.scene, "-o", case.output.with_suffix(suffix), *given, *arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--classes", "bilding"), ("'bilding'", "building")),
        (("--classes", "tree,vegetation"), ("'tree'", "twice")),
        (("--min-area", -1), ("0 square metres or more", "-1")),
        (("--simplify", "nan"), ("0 metres or more", "nan")),
        (("--least-score", 1.5), ("0 to 1", "1.5")),
        (("--raster", "ids.png"), ("ids.png", ".tif")),
        (("--raster", "gone/ids.tif"), ("gone", "create it first")),
        (("--model", "no-such-model"), ("no-such-model",)),
        (("--chip", 8), ("8", "at least")),
    ],
)
def test_instances(case: Case, arguments: tuple[object, ...], words: tuple[str, ...]) -> None:
    case.refused(find(case, *arguments), *words)


@pytest.mark.parametrize(("suffix", "words"), [(".shp", (".shp", ".gpkg")), (".tif", (".tif", ".gpkg"))])
def test_instances_are_polygons(case: Case, suffix: str, words: tuple[str, ...]) -> None:
    case.refused(find(case, suffix=suffix), *words)


def test_a_model_that_knows_no_buildings(case: Case) -> None:
    model = load_model(case.model)
    classes = tuple(entry.model_copy(update={"name": f"kind {entry.id}"}) for entry in model.card.legend.classes)
    legend = model.card.legend.model_copy(update={"classes": classes})
    save_model(Model(model.network, model.card.model_copy(update={"legend": legend})), case.folder / "other")
    case.refused(find(case, "--model", case.folder / "other"), "knows no building", "--classes", "kind 1")


def test_the_table_of_ids_is_not_overwritten_by_polygons(case: Case) -> None:
    case.refused(
        find(case, "--raster", case.output.with_suffix(".tif"), suffix=".parquet"), "same file", "another name"
    )
    case.refused(whole(case, "--polygons", case.output.with_suffix(".parquet")), "same file", "another name")


def test_square_metres_without_a_crs(case: Case) -> None:
    case.scene = write(
        case.folder / "plain.tif", np.full((3, 40, 44), 90, np.uint8), descriptions=("red", "green", "blue"), crs=None
    )
    case.refused(find(case, "--min-area", 5, "--gsd", 0.5), "no CRS", "pixels")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--things", "houses"), ("'houses'", "building")),
        (("--polygons", "a.shp"), ("a.shp", ".gpkg")),
        (("--polygons", "gone/a.gpkg"), ("gone", "create it first")),
    ],
)
def test_panoptic(case: Case, arguments: tuple[object, ...], words: tuple[str, ...]) -> None:
    case.refused(whole(case, *arguments), *words)


def test_panoptic_is_a_tiff(case: Case) -> None:
    case.refused(whole(case, suffix=".png"), ".tif")


def ids_of(case: Case, name: str = "ids", *, table: bool = True) -> Path:
    """A raster of two objects, with its table."""
    values = np.zeros((1, 40, 44), np.uint32)
    values[0, 5:15, 5:15], values[0, 20:30, 5:15] = 1, 2
    path = write(case.folder / f"{name}.tif", values, nodata=0)
    if table:
        rows = {"id": [1, 2], "class_id": [1, 1], "class_name": ["building"] * 2, "score": [0.9, 0.8]}
        pd.DataFrame(rows).to_parquet(path.with_suffix(".parquet"))
    return path


def footprints(case: Case, *, name: str = "building", shift: float = 0.0, crs: str | None = UTM) -> Path:
    x, y = AT @ (5, 15)
    frame = gpd.GeoDataFrame({"class_name": [name]}, geometry=[box(x + shift, y, x + 100 + shift, y + 100)], crs=crs)
    path = case.folder / "truth.parquet"
    frame.to_parquet(path)
    return path


def judge(case: Case, predicted: Path, reference: Path, *arguments: object) -> tuple[int, str]:
    return case.run("evaluate-objects", predicted, reference, "-o", case.output.with_suffix(".json"), *arguments)


def test_ids_that_are_none(case: Case) -> None:
    truth = footprints(case)
    case.refused(judge(case, case.folder / "gone.tif", truth), "gone.tif", "does not exist")
    case.refused(judge(case, case.scene, truth), "3 bands of uint8", "uint32")
    case.refused(judge(case, ids_of(case, "alone", table=False), truth), "alone.parquet", "together")
    ids = ids_of(case)
    pd.DataFrame({"id": [1]}).to_parquet(ids.with_suffix(".parquet"))
    case.refused(judge(case, ids, truth), "no column class_id")
    ids.with_suffix(".parquet").write_text("id")
    case.refused(judge(case, ids, truth), "ids.parquet", "cannot be read")
    rows = pd.DataFrame({"id": [1, 1], "class_id": [1, 1], "class_name": ["building"] * 2})
    rows.to_parquet(ids.with_suffix(".parquet"))
    case.refused(judge(case, ids, truth), "id 1 twice")
    rows[:1].to_parquet(ids.with_suffix(".parquet"))
    case.refused(judge(case, ids, truth), "has id 2, which ids.parquet lacks")
    rows[:0].to_parquet(ids.with_suffix(".parquet"))
    case.refused(judge(case, ids, truth), "no row", "looked for")


def test_references_that_are_none(case: Case) -> None:
    ids = ids_of(case)
    case.refused(judge(case, ids, case.folder / "gone.gpkg"), "gone.gpkg", "not exist")
    case.refused(judge(case, ids, footprints(case, name="barn")), "label barn", "--map barn=")
    case.refused(judge(case, ids, footprints(case), "--column", "kind"), "no column kind")
    case.refused(judge(case, ids, footprints(case, shift=1e5)), "No object", "geoseg info")
    case.refused(judge(case, ids, footprints(case, crs=None)), "CRS")
    case.refused(judge(case, ids, footprints(case), "--map", "barn=shed"), "'shed'")
    case.refused(judge(case, ids, footprints(case), "--ignore", "building"), "None of the 1 polygons", "counts")
    plain = case.folder / "plain.parquet"
    pd.DataFrame({"class_name": ["building"]}).to_parquet(plain)
    case.refused(judge(case, ids, plain), "plain.parquet cannot be read as polygons")
    other = ids_of(case, "other")
    write(other, np.zeros((1, 41, 44), np.uint32), nodata=0)
    case.refused(judge(case, ids, other), "another grid")


def test_scores_are_json(case: Case) -> None:
    case.output = case.output.with_suffix(".txt")
    said = case.run("evaluate-objects", ids_of(case), footprints(case), "-o", case.output)
    case.refused(said, ".json")


def test_what_is_right_is_not_refused(case: Case) -> None:
    code, told = judge(case, ids_of(case), footprints(case))
    assert code == 0, told
    assert case.output.with_suffix(".json").is_file()
    assert judge(case, ids_of(case), footprints(case))[0] == 2  # it exists
    assert judge(case, ids_of(case), footprints(case, name="house"), "--map", "house=building", "--overwrite")[0] == 0
