"""Training by config: labelled files in, a bundle out; interrupted, resumed, refused."""

from __future__ import annotations

import csv
import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import torch
import yaml
from affine import Affine
from builders import HALF_METRE, read_band, write, write_rgb
from lightning import Trainer
from PIL import Image
from safetensors.torch import load_file
from shapely.geometry import box
from typer.testing import CliRunner

import geoseg
from geoseg.cli import app
from geoseg.cli.train import _text
from geoseg.errors import GeosegError, InputError
from geoseg.legend import Legend, LegendClass
from geoseg.models import load_model
from geoseg.raster.label_codes import LabelCodes
from geoseg.training.config import EXAMPLE, TrainConfig, UnlabelledConfig, load_config
from geoseg.training.scenes import open_scene_of
from geoseg.training.semisupervised import open_unlabelled
from geoseg.training.train import Trained, Training
from geoseg.training.watch import History, Watch

SIDE = 320
CLASSES = [{"id": 1, "name": "bright", "color": "#ffffff"}, {"id": 2, "name": "dark", "color": "#202020"}]
NETWORK = {"name": "unet", "args": {"encoder": "tu-resnet18", "depth": 2, "decoder_channels": [8, 8]}}
RUN = {
    "steps": 6,
    "batch": 2,
    "chip": 64,
    "validate_every": 3,
    "validation_chips": 4,
    "loaders": 0,
    "precision": "float32",
}


def halves(path: Path, **profile: Any) -> Path:
    """A scene of bright and dark stripes, 40 px each, with noise."""
    rng = np.random.default_rng(3)
    bright = (np.arange(SIDE) // 40 % 2 == 0)[None, None]
    values = np.where(bright, 200, 50) + rng.normal(0, 10, (3, SIDE, SIDE))
    return write_rgb(path, values=values.clip(0, 255).astype(np.uint8), crs="EPSG:32631", **profile)


def stripes(
    path: Path, *, crs: str = "EPSG:4326", column: str = "class_name", names: tuple[str, str] = ("bright", "dark")
) -> Path:
    """The truth as polygons."""
    edges = [HALF_METRE @ (col, row) for col in range(0, SIDE, 40) for row in (0, SIDE)]
    shapes = [box(a[0], b[1], a[0] + 20, a[1]) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    frame = gpd.GeoDataFrame({column: [names[i % 2] for i in range(len(shapes))]}, geometry=shapes, crs="EPSG:32631")
    frame.to_crs(crs).to_file(path)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    halves(folder / "scene.tif")
    stripes(folder / "labels.gpkg")
    return folder


def stated(data: Path, **changes: Any) -> TrainConfig:
    """The smallest training; a key with a dot is one of a section."""
    config: dict[str, Any] = {
        "name": "halves",
        "classes": CLASSES,
        "scenes": [{"scene": str(data / "scene.tif"), "labels": str(data / "labels.gpkg")}],
        "split": {"block_px": 128, "buffer_px": 8},
        "network": NETWORK,
        "run": dict(RUN),
    }
    for key, value in changes.items():
        section, _, name = key.partition("__")
        if name:
            config.setdefault(section, {})[name] = value
        else:
            config[section] = value
    return TrainConfig.model_validate(config)


def test_labels_become_a_model_that_is_right(data: Path, tmp_path: Path) -> None:
    """From polygons in another CRS to a land cover that agrees with them."""
    trained = geoseg.train(
        stated(data, run__steps=40, run__validate_every=20, run__learning_rate=5e-3), tmp_path / "out"
    )
    geoseg.segment_file(data / "scene.tif", tmp_path / "cover.tif", model=trained.folder)
    truth = np.broadcast_to(np.arange(SIDE) // 40 % 2 + 1, (SIDE, SIDE))
    assert (read_band(tmp_path / "cover.tif") == truth).mean() > 0.9
    card = load_model(trained.folder).card
    assert card.legend.names == ("bright", "dark")
    assert card.scores["scene"]["overall_accuracy"] > 0.9
    assert card.gsd_range_m[0] < 0.5 < card.gsd_range_m[1]
    assert trained.confusion.sum() > 0
    for name in ("samples.png", "curves.png", "confusion.png"):
        with Image.open(tmp_path / "out" / name) as picture:
            assert min(picture.size) > 100
    rows = list(csv.DictReader((tmp_path / "out" / "history.csv").read_text().splitlines()))
    assert [float(row["step"]) for row in rows] == [20, 40]
    kept = yaml.safe_load((trained.folder / "config.yaml").read_text())
    assert kept["scenes"][0]["scene"] == "scene.tif"  # where it lay is nobody's business


def test_a_resumed_training_is_the_uninterrupted_one(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = geoseg.train(stated(data), tmp_path / "whole")
    config = stated(data)
    real = Watch.on_train_batch_end

    def killed(self: Watch, trainer: Trainer, *rest: Any) -> None:
        real(self, trainer, *rest)
        if trainer.global_step == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(Watch, "on_train_batch_end", killed)
    with pytest.raises(KeyboardInterrupt):
        geoseg.train(config, tmp_path / "broken")
    monkeypatch.undo()
    monkeypatch.setattr(Training, "of", None)  # labels are not read before
    with pytest.raises(InputError, match="--resume"):
        geoseg.train(config, tmp_path / "broken")
    monkeypatch.undo()
    with pytest.raises(InputError, match="another config"):
        geoseg.train(stated(data, run__seed=5), tmp_path / "broken", resume=True)
    again = geoseg.train(config, tmp_path / "broken", resume=True)
    assert again.model.digest == whole.model.digest
    for name in ("history.csv", "best.safetensors", "curves.png"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    done = geoseg.train(config, tmp_path / "broken", resume=True)  # nothing is left to do
    assert done.model.digest == whole.model.digest
    assert np.array_equal(done.confusion, whole.confusion)


def test_a_folder_in_which_a_training_runs_takes_no_other(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tried = []

    def once(*_: object) -> None:
        if not tried:
            with pytest.raises(InputError, match=r"Another run is writing .*out") as refused:
                geoseg.train(stated(data), tmp_path / "out", resume=True)
            tried.append(refused)

    trained = geoseg.train(stated(data), tmp_path / "out", progress=once, resume=True)
    assert tried
    assert "out holds no checkpoint to go on from: the training starts from its first step" in caplog.text
    assert trained.folder.is_dir()
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_it_goes_on_from_a_bundle_with_other_bands_and_classes(data: Path, tmp_path: Path) -> None:
    first = geoseg.train(stated(data), tmp_path / "first")
    classes = [*CLASSES[::-1], {"id": 3, "name": "other", "color": "#00ff00"}]
    labels = stripes(tmp_path / "labels.gpkg", names=("bright", "other"))
    frame = gpd.read_file(labels)
    frame.loc[2:3, "class_name"] = ["dark", "dark"]
    frame.to_file(labels)
    second = geoseg.train(
        stated(
            data,
            bands=["blue", "green"],
            classes=classes,
            scenes=[{"scene": str(data / "scene.tif"), "labels": str(labels)}],
            network=None,
            start={"weights": str(first.folder), "freeze": ["encoder"], "decay": 0.5},
        ),
        tmp_path / "second",
    )
    assert second.model.card.architecture == first.model.card.architecture
    old, new = (dict(load_model(trained.folder).network.named_parameters()) for trained in (first, second))
    name = next(name for name in new if name.startswith("encoder") and new[name].ndim == 4)
    torch.testing.assert_close(new[name][:, 0], old[name][:, 2] * 3 / 2, atol=2e-3, rtol=2e-3)  # half precision on disk
    assert second.model.card.legend.names == ("dark", "bright", "other")


def test_a_loss_that_is_no_number_stops_and_keeps_good_weights(data: Path, tmp_path: Path) -> None:
    """Weights that are thrown far off by the first step."""
    with pytest.raises(GeosegError, match=r"(nan|inf) at step [12].*kept in .*last-good"):
        geoseg.train(stated(data, run__learning_rate=1e30), tmp_path / "out")
    kept = load_file(tmp_path / "out" / "last-good.safetensors")
    assert all(tensor.isfinite().all() for tensor in kept.values())


def test_the_card_knows_scale_and_offset_of_most_scenes(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    given = {"scene": str(data / "scene.tif"), "labels": str(data / "labels.gpkg"), "scale": 0.01}
    scenes = [{**given, "offset": offset} for offset in (-0.1, 0.0, -0.1)]
    card = Training.of(stated(data, scenes=scenes)).card(0)
    assert (card.scales, card.offsets) == ({"uint8": 0.01}, {"uint8": -0.1})
    assert "several scales and offsets (x 0.01 -0.1, x 0.01 +0)" in caplog.text


def test_a_sample_that_is_far_out_of_range_is_named(data: Path, tmp_path: Path) -> None:
    with rasterio.open(data / "scene.tif") as scene:
        values, profile = scene.read().astype(np.float32), scene.profile | {"dtype": "float32", "nodata": None}
    values[:, 300:308, 100:108] = 3e38
    with rasterio.open(tmp_path / "far.tif", "w", **profile) as out:
        out.write(values)
    bands = {name: str(i) for i, name in enumerate(("red", "green", "blue"), 1)}
    source = {"scene": str(tmp_path / "far.tif"), "labels": str(data / "labels.gpkg"), "scale": 1.0, "bands": bands}
    with pytest.raises(GeosegError, match=r"A pixel of .* at sample \d+ \(rows .*far\.tif\).*State nodata"):
        geoseg.train(stated(data, scenes=[source], run__steps=40), tmp_path / "out")


def test_too_little_memory_is_told(data: Path, tmp_path: Path) -> None:
    config = stated(data, run__batch=16, run__chip=256, run__steps=1)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 400 * 2**20, hard))
    try:
        with pytest.raises(GeosegError, match=r"too little memory for 16 chips of 256 px in a step; lower run\.batch"):
            geoseg.train(config, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_scenes_of_one_place_have_scores_together(tmp_path: Path) -> None:
    sources = []
    for number, role in enumerate(("train", "validate", "validate")):
        place = {"transform": Affine.translation(number * 9000, 0) @ HALF_METRE}
        scene = halves(tmp_path / f"{number}.tif", **place)
        bright = np.broadcast_to(np.arange(SIDE) // 40 % 2 == 0, (1, SIDE, SIDE))
        labels = write(
            tmp_path / f"{number}-labels.tif", np.where(bright, 1, 2).astype(np.uint8), crs="EPSG:32631", **place
        )
        known = {"map": {"1": "bright", "2": "dark"}, "place": None if role == "train" else "Oldtown"}
        sources.append({"scene": str(scene), "labels": str(labels), "role": role, **known})
    found = geoseg.train(stated(tmp_path, scenes=sources, split={"by": "scenes"}, run__steps=2), tmp_path / "out")
    assert set(found.model.card.scores) == {"Oldtown"}


def test_early_stop(data: Path, tmp_path: Path) -> None:
    found = geoseg.train(
        stated(data, run__steps=50, run__validate_every=1, run__patience=2, run__learning_rate=1e-9), tmp_path / "out"
    )
    assert len(found.history.rows) < 20
    assert len(found.history.rows) - 1 - found.history.best == 2


def far(folder: Path) -> dict[str, Any]:
    frame = gpd.GeoDataFrame({"class_name": ["bright", "dark"]}, geometry=[box(0, 0, 1, 1), box(1, 1, 2, 2)], crs=4326)
    frame.to_file(folder / "far.gpkg")
    return {"labels": str(folder / "far.gpkg")}


def aoi(folder: Path) -> dict[str, Any]:
    gpd.GeoDataFrame(geometry=[box(0, 0, 1, 1)], crs=4326).to_file(folder / "aoi.gpkg")
    return {"aoi": str(folder / "aoi.gpkg")}


def one_class(folder: Path) -> dict[str, Any]:
    return {"labels": str(stripes(folder / "one.gpkg", names=("bright", "bright")))}


def unknown_class(folder: Path) -> dict[str, Any]:
    return {"labels": str(stripes(folder / "roof.gpkg", names=("bright", "roof")))}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (far, "far.gpkg lie outside the scene"),
        (aoi, "aoi.gpkg"),
        (one_class, "No pixel to train on is labelled dark"),
        (unknown_class, "roof.*for a training, in its YAML: `map:` and `ignore:` of the scene"),
    ],
)
def test_labels_that_cannot_be_used_are_refused(
    data: Path, tmp_path: Path, change: Callable[[Path], dict[str, Any]], said: str
) -> None:
    source = {"scene": str(data / "scene.tif"), "labels": str(data / "labels.gpkg")} | change(tmp_path)
    with pytest.raises(InputError, match=said):
        geoseg.train(stated(data, scenes=[source]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"run__chip": 66}, "multiple of the network's output stride 4; use 64"),
        ({"network": {"name": "no-such"}}, "no-such"),
        ({"network": {"name": "spectral-index"}}, "no weights to train|bands"),
        ({"start": {"freeze": ["enkoder"]}}, "no part 'enkoder'"),
        ({"start": {"weights": "weights.pth"}}, "safetensors"),
        ({"split": {"block_px": 4096}}, "needs two blocks with labels"),
        ({"bands": ["red", "nir"]}, "nir"),
    ],
)
def test_configs_that_cannot_be_run_are_refused(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": 1}, "weights.pth")
    with pytest.raises(InputError, match=said):
        geoseg.train(stated(data, **changes), tmp_path / "out")


def test_scenes_and_labels_by_the_name_of_a_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scene's entry knows its labels; those of another entry are named; a path is where the config lies."""
    monkeypatch.setenv("GEOSEG_CACHE", str(tmp_path / "cache"))
    entry = "{driver: geoseg_synthetic, args: {rows: 300, columns: 300, seed: 5}}"
    (tmp_path / "catalog.yaml").write_text(f"sources:\n  a: {entry}\n")
    named = "{scene: 'catalog.yaml#a'}, {scene: 'catalog.yaml#a', labels: 'catalog.yaml#a'}"
    text = f"name: by-name\nscenes: [{named}]\nunlabelled: {{scenes: [{{scene: 'catalog.yaml#a'}}]}}\n"
    (tmp_path / "config.yaml").write_text(text)
    config = load_config(tmp_path / "config.yaml")
    assert config.scenes[0].scene == f"{tmp_path}/catalog.yaml#a"
    scenes = [open_scene_of(source, config.bands, config.legend) for source in config.scenes]
    codes = [scene.read_labels(scene.extent) for scene in scenes]
    assert np.array_equal(*codes)
    assert (codes[0] != 255).all()
    assert config.unlabelled is not None
    other = open_unlabelled(config.unlabelled.scenes[0], config.bands, config.legend)
    assert np.array_equal(other.read(other.extent)[0], scenes[0].read(scenes[0].extent)[0])


def test_a_scene_without_labels_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no labels: state labels beside it, or give it under `unlabelled`"):
        geoseg.train(stated(data, scenes=[{"scene": str(data / "scene.tif")}]), tmp_path / "out")


def test_the_example_has_every_key_and_is_valid(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(EXAMPLE.read_text())
    config = load_config(tmp_path / "config.yaml")
    assert config == TrainConfig.model_validate({"name": config.name, "scenes": config.model_dump()["scenes"]})
    text = EXAMPLE.read_text()
    for section in ("", "scenes", "split", "start", "loss", "augment", "run"):
        model: Any = TrainConfig.model_fields[section].annotation if section not in ("", "scenes") else TrainConfig
        names = type(config.scenes[0]).model_fields if section == "scenes" else model.model_fields
        assert all(f"{name}:" in text for name in names)
    assert all(f"#   {name}:" in text for name in UnlabelledConfig.model_fields)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: a\nscenes: [{scene: a.tif, labels: b.tif}]\nsteps: 5", "steps"),
        ("name: a\nscenes: []", "scenes: it needs 1 or more entries, not 0"),
        ("- a", "the whole file: keys with values are needed .key: value., not a list"),
        ("name: a\nscenes: [{scene: '', labels: b.tif}]\nbands: ['']", "it is empty"),
        ("name: a b\nscenes: [{scene: a.tif}]", "name: a name has letters, digits and _ . -, .* 'a b' is none"),
        (
            "name: a\nscenes: [{scene: a.tif}]\nclasses: [{id: 1, name: a, color: red}, {id: 2, name: b, color: red}]",
            "config: classes.0.color: a color is written as in '#1b7837', not 'red'",
        ),
        ("name: a\nscenes: [{scene: a.tif, labels: b.tif}]\nsplit: {by: scenes}", "role"),
        ("name: a\nscenes: [{scene: a.tif, labels: b.tif}]\nloss: {cross_entropy: 0, dice: 0}", "larger than 0"),
        ("name: [", "not YAML"),
    ],
)
def test_configs_that_are_not_valid_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=said):
        load_config(tmp_path / "config.yaml")


def test_the_command_line(data: Path, tmp_path: Path) -> None:
    """Relative paths are taken from the config's folder; the example is printed."""
    assert CliRunner().invoke(app, ["train", "--example"]).output == EXAMPLE.read_text()
    text = stated(data).to_yaml().replace(f"{data}/", "")
    (data / "config.yaml").write_text(text)
    done = CliRunner().invoke(app, ["train", str(data / "config.yaml"), "--out", str(tmp_path / "out"), "--steps", "2"])
    assert done.exit_code == 0, done.output
    assert "mean IoU" in done.output
    assert json.loads((tmp_path / "out" / "halves" / "card.json").read_text())["name"] == "halves"


def test_a_class_without_held_out_labels_has_no_score(tmp_path: Path) -> None:
    """The held-out side has no roof; a group that its classes are labelled of has a score."""
    codes = LabelCodes.of(
        Legend(
            classes=[
                LegendClass(id=i, name=name, color="#000000", group=group)
                for i, (name, group) in enumerate((("tree", "green"), ("grass", "green"), ("roof", None)))
            ]
        )
    )
    row = {"step": 3.0, "mean_iou": 0.5, "overall_accuracy": 0.75}
    row |= {"iou_tree": 0.5, "iou_grass": 0.5, "iou_roof": 0.0, "iou_green": 0.75}
    confusion = np.array([[4, 1, 1], [0, 2, 0], [0, 0, 0], [0, 0, 0]])
    trained = Trained(None, tmp_path, History([row]), codes, confusion)  # type: ignore[arg-type]
    assert trained.scores == {"tree": 0.5, "grass": 0.5, "green": 0.75}
    assert "roof" not in _text(trained)
