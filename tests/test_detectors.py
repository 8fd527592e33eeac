"""Mask R-CNN and Panoptic FPN: trained on footprints for a few steps, run over chips, joined; and what they promise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import torch
from builders import HALF_METRE, RGB, pixels_of, read_band, small_card, write_rgb
from numpy.typing import NDArray
from shapely.geometry import box
from torchvision.models.detection.image_list import ImageList

import geoseg
from geoseg.errors import BlockError, InputError
from geoseg.grid import Window
from geoseg.inference.memory import Census, most_alive
from geoseg.inference.plan import RunOptions
from geoseg.inference.predictor import Backend
from geoseg.legend import LANDCOVER, Legend, LegendClass
from geoseg.models import Architecture, Model, build_network, load_model, save_model
from geoseg.models.architectures import DETECTORS
from geoseg.models.detector import AT_ONCE, LEAST_OBJECTNESS, LEAST_SCORE, Detector, Seen
from geoseg.models.pasting import paste
from geoseg.models.pooled import pooled
from geoseg.objects.detect import Looker
from geoseg.objects.evaluate import evaluate_objects
from geoseg.objects.files import instances_file, panoptic_file
from geoseg.objects.panoptic import VOID
from geoseg.raster.labels import LabelOptions, open_labels
from geoseg.training.config import TrainConfig
from geoseg.training.detections import judge_objects
from geoseg.training.instances import DetectionTask, anchors_for, target_of
from geoseg.training.losses import IGNORE, PartialCrossEntropy
from geoseg.training.samples import ArrayScene
from geoseg.training.task import Schedule
from geoseg.training.train import Training

SIDE = 256
UTM = "EPSG:32631"
CLASSES = [{"id": 1, "name": "roof", "color": "#c82828"}, {"id": 2, "name": "other", "color": "#dcdcc8"}]
LEAST: dict[str, Any] = {"encoder": "tu-resnet18", "depth": 3, "channels": 8, "box_features": 16}
CPU = RunOptions(device="cpu")
FINE = RunOptions(device="cpu", chip=128, halo=32, block=32)  # many chips and blocks
STILL = dict.fromkeys(
    ("free_rotation", "elastic", "blur", "haze", "noise", "contrast", "gamma", "brightness", "band_gain"), 0
)


def roofs() -> list[tuple[int, int, int, int]]:
    """Rows and columns of bright squares, about twelve pixels a side, one in each square of 32."""
    rng = np.random.default_rng(0)
    found = []
    for row, col in np.ndindex(SIDE // 32, SIDE // 32):
        height, width = rng.integers(10, 18, 2).tolist()
        top, left = (32 * at + int(rng.integers(2, 10)) for at in (row, col))
        found.append((top, left, top + height, left + width))
    return found


def on_ground(top: int, left: int, bottom: int, right: int) -> Any:
    (west, north), (east, south) = HALF_METRE @ (left, top), HALF_METRE @ (right, bottom)
    return box(west, south, east, north)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene with roofs, their footprints, and a small Mask R-CNN that `geoseg train` has made of them."""
    folder = tmp_path_factory.mktemp("trained")
    values = np.random.default_rng(1).normal(60, 10, (3, SIDE, SIDE))
    for top, left, bottom, right in roofs():
        values[:, top:bottom, left:right] += 120
    scene = write_rgb(folder / "scene.tif", values=values.clip(0, 255).astype(np.uint8), crs=UTM)
    shapes = [on_ground(*roof) for roof in roofs()]
    gpd.GeoDataFrame({"class_name": ["roof"] * len(shapes)}, geometry=shapes, crs=UTM).to_file(folder / "roofs.gpkg")
    config = {
        "name": "roofs",
        "classes": CLASSES,
        "scenes": [{"scene": str(scene), "labels": str(folder / "roofs.gpkg"), "elsewhere": "other"}],
        "split": {"block_px": 64, "buffer_px": 0},
        "network": {"name": "mask-rcnn", "args": LEAST | {"channels": 16, "box_features": 32}},
        "augment": {"scale": 1.0, **STILL},
        "run": {
            "steps": 40, "batch": 4, "chip": 64, "validate_every": 1000, "validation_chips": 4, "loaders": 0,
            "precision": "float32", "learning_rate": 0.004, "average": 0.9, "warmup": 10, "clip": 5.0, "decay": 0.5,
        },
    }  # fmt: skip
    Training.of(TrainConfig(**config)).run(folder / "run")
    run = RunOptions(device="cpu", chip=128, halo=32)
    instances_file(scene, folder / "found.gpkg", model=folder / "run" / "roofs", raster=folder / "found.tif", run=run)
    return folder


def test_training_on_footprints_finds_them(trained: Path) -> None:
    scores = evaluate_objects(trained / "found.tif", trained / "roofs.gpkg")
    assert scores.by_class["roof"]["pq"] > 0.7
    assert scores.by_class["roof"]["ap50"] > 0.9
    card = load_model(trained / "run" / "roofs").card
    assert card.architecture.args["anchors_px"] == [12, 16, 24]
    assert not card.position_independent
    assert set(card.scores["scene"]) == {"roof", "other", "overall_accuracy", "roof_ap50", "roof_ap"}
    assert card.scores["scene"]["roof_ap50"] > 0.9


def test_scores_of_the_card_are_those_of_the_files(trained: Path, tmp_path: Path) -> None:
    """From labels in memory, of two scenes together, as `geoseg evaluate-objects` from files: no line of it is shared
    but the counting."""
    model = load_model(trained / "run" / "roofs")
    labels = np.ones((SIDE, SIDE), np.uint8)
    for top, left, bottom, right in roofs()[::2]:  # what else is found is wrong
        labels[top:bottom, left:right] = 0
    labels[:40] = IGNORE
    with rasterio.open(trained / "scene.tif") as raster:
        scene = ArrayScene(raster.read(), labels, 0.5)
    shapes = [on_ground(*roof) for roof in roofs()[::2]]
    gpd.GeoDataFrame({"class_name": ["roof"] * len(shapes)}, geometry=shapes, crs=UTM).to_file(tmp_path / "half.gpkg")
    area = gpd.GeoDataFrame(geometry=[on_ground(40, 0, SIDE, SIDE)], crs=UTM)
    area.to_file(tmp_path / "area.gpkg")
    run = RunOptions(device="cpu", precision="float32")
    instances_file(
        trained / "scene.tif",
        tmp_path / "o.gpkg",
        model=model,
        raster=tmp_path / "o.tif",
        run=run,
        least_score=LEAST_SCORE,
    )
    expected = evaluate_objects(tmp_path / "o.tif", tmp_path / "half.gpkg", aoi=tmp_path / "area.gpkg").by_class["roof"]
    found = judge_objects(model, [scene])
    assert 0.2 < found["roof_ap50"] < 0.9
    assert found["roof_ap50"] == pytest.approx(expected["ap50"], abs=0.002)
    assert found["roof_ap"] == pytest.approx(expected["ap"], abs=0.002)


def test_scores_of_scenes_of_a_place_are_of_all_objects(trained: Path) -> None:
    """A scene without a label adds nothing; one on which all is found, and one on which nothing is, give half."""
    model = load_model(trained / "run" / "roofs")
    labels = np.ones((SIDE, SIDE), np.uint8)
    for top, left, bottom, right in roofs():
        labels[top:bottom, left:right] = 0
    with rasterio.open(trained / "scene.tif") as raster:
        pixels = raster.read()
    seen = ArrayScene(pixels, labels, 0.5)
    unlabelled = ArrayScene(pixels, np.full_like(labels, IGNORE), 0.5)
    blank = ArrayScene(np.full_like(pixels, 60), labels, 0.5)
    alone = judge_objects(model, [seen])
    assert judge_objects(model, [unlabelled, seen, unlabelled]) == alone
    assert judge_objects(model, [blank, seen])["roof_ap50"] == pytest.approx(alone["roof_ap50"] / 2, abs=0.03)
    assert judge_objects(model, [unlabelled]) == {}


def test_ids_do_not_depend_on_blocks_or_workers(trained: Path, tmp_path: Path) -> None:
    run = replace(FINE, workers=2)
    model = trained / "run" / "roofs"
    instances_file(trained / "scene.tif", tmp_path / "o.gpkg", model=model, raster=tmp_path / "o.tif", run=run)
    assert (tmp_path / "o.tif").read_bytes() == (trained / "found.tif").read_bytes()
    assert (tmp_path / "o.gpkg").read_bytes() == (trained / "found.gpkg").read_bytes()


def test_a_search_that_was_stopped_goes_on(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look, seen = Looker.__call__, []

    def stumbles(self: Looker, window: Window, *args: Any) -> Any:
        seen.append(window)
        if len(seen) == 7:
            raise OSError("no more")
        return look(self, window, *args)

    given = {"model": trained / "run" / "roofs", "raster": tmp_path / "o.tif", "run": FINE}
    monkeypatch.setattr(Looker, "__call__", stumbles)
    with pytest.raises(BlockError, match="no more"):
        instances_file(trained / "scene.tif", tmp_path / "o.gpkg", **given)
    assert not (tmp_path / "o.gpkg").exists()
    before = len(seen)
    instances_file(trained / "scene.tif", tmp_path / "o.gpkg", **given)
    assert len(seen) < before + 64  # blocks of 32 px on 256 x 256: those that were done are kept
    assert (tmp_path / "o.tif").read_bytes() == (trained / "found.tif").read_bytes()


def test_across_chip_sizes_objects_are_the_same(trained: Path, tmp_path: Path) -> None:
    model, names = trained / "run" / "roofs", {"whole": SIDE + 128, "cut": 192}  # one chip, and 16 of them
    for name, chip in names.items():
        run, output = RunOptions(device="cpu", chip=chip, halo=64), tmp_path / f"{name}.gpkg"
        instances_file(trained / "scene.tif", output, model=model, raster=tmp_path / f"{name}.tif", run=run)
    one, other = (read_band(tmp_path / f"{name}.tif").astype(np.int64) for name in names)
    best = []
    for number in range(1, int(one.max()) + 1):
        mask = one == number
        same = np.bincount(other[mask]).argmax()
        best.append((mask & (other == same)).sum() / (mask | (other == same)).sum() if same else 0.0)
    assert np.mean(np.array(best) >= 0.9) >= 0.98


def test_the_halo_is_as_wide_as_proposals_look(trained: Path) -> None:
    """Chips that start elsewhere make their proposals of the same numbers, a halo from their rims."""
    model = load_model(trained / "run" / "roofs")
    halo, stride = model.card.halo_px, model.card.output_stride
    assert model.card.chip_px >= 4 * halo
    side = 2 * halo + 4 * stride
    noise = torch.rand(1, 3, side + stride, side + 2 * stride, generator=torch.Generator().manual_seed(0))
    assert isinstance(model.network, Detector)
    with torch.inference_mode():
        whole = model.network.evidence(noise)
        part = model.network.evidence(noise[..., stride:, 2 * stride :])
    both = whole[..., stride:, 2 * stride :] - part
    inner = both[..., halo:-halo, halo:-halo]
    assert inner.numel() > 0
    assert inner.abs().max() <= 1e-5 * whole.abs().max()
    assert both.abs().max() > 1e-2 * whole.abs().max()  # it is not so at the rim


def test_a_detector_segments_like_any_model(trained: Path, tmp_path: Path) -> None:
    geoseg.segment_file(trained / "scene.tif", tmp_path / "cover.tif", model=trained / "run" / "roofs", run=CPU)
    cover, ids = read_band(tmp_path / "cover.tif"), read_band(trained / "found.tif")
    assert ((cover == 1) == (ids > 0)).mean() > 0.97


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("encoder", ["tu-resnet18", "mobilenet_v2"])
def test_any_bands_and_encoder(name: str, encoder: str) -> None:
    network = build_network(name, bands=5, classes=3, args=LEAST | {"encoder": encoder})
    assert network.output_stride == 16
    assert network(torch.rand(2, 5, 48, 80)).shape == (2, 3, 48, 80)


@pytest.mark.parametrize("name", DETECTORS)
def test_every_parameter_learns(name: str) -> None:
    torch.manual_seed(0)
    network = build_network(name, bands=3, classes=3, args=LEAST).train()
    labels = torch.full((2, 64, 64), 2, dtype=torch.uint8)
    labels[:, 10:30, 10:30] = 0
    task = DetectionTask(
        network, [(1.0, PartialCrossEntropy([(0,), (1,), (2,)], 3))], Schedule(5), mean=[0.5] * 3, std=[0.2] * 3
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task, "log", lambda *args, **kwargs: None)  # there is no trainer to log to
        task.training_step((torch.rand(2, 3, 64, 64), labels), 0).backward()
    assert [key for key, value in network.named_parameters() if value.grad is None] == []


def talkative(name: str, classes: int) -> Detector:
    """Random weights that see objects everywhere."""
    torch.manual_seed(0)
    network = build_network(name, bands=3, classes=classes, args=LEAST, check=False)
    assert isinstance(network, Detector)
    chip = torch.from_numpy(RGB(pixels_of((64, 64), seed=9), np.ones((64, 64), np.bool_)))[None]
    with torch.no_grad():
        last = network.proposals.head.cls_logits
        levels = list(network.features(chip).values())
        last.weight /= torch.cat([level.flatten() for level in network.proposals.head(levels)[0]]).std()
        logits = torch.cat([level.flatten() for level in network.proposals.head(levels)[0]])
        last.bias += torch.tensor(LEAST_OBJECTNESS).logit() + 0.05 - logits.quantile(0.995)
        network.heads.box_predictor.cls_score.bias[1:] += 1.0
    return network


@pytest.fixture(scope="module")
def panoptic_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    network = talkative("panoptic-fpn", len(LANDCOVER.classes))
    card = small_card(
        architecture=Architecture(name="panoptic-fpn", args=LEAST),
        output_stride=16,
        halo_px=32,
        chip_px=128,
        position_independent=False,
    )
    folder = tmp_path_factory.mktemp("bundle") / "panoptic"
    save_model(Model(network, card), folder)
    return folder


def test_panoptic_objects_come_first_and_stuff_fills_the_rest(panoptic_bundle: Path, tmp_path: Path) -> None:
    scene = write_rgb(tmp_path / "scene.tif", (110, 130), crs=UTM, nodata=0)
    with rasterio.open(scene, "r+") as file:
        values = np.maximum(file.read(), 1)
        values[:, 80:, :20] = 0
        file.write(values)
    panoptic_file(scene, tmp_path / "p.tif", model=panoptic_bundle, polygons=tmp_path / "shapes.parquet", run=CPU)
    instances_file(scene, tmp_path / "o.gpkg", model=panoptic_bundle, raster=tmp_path / "o.tif", run=CPU)
    ids, objects = read_band(tmp_path / "p.tif"), read_band(tmp_path / "o.tif")
    assert np.array_equal(ids == VOID, (values == 0).all(0))
    known = ids != VOID
    assert objects.max() > 3
    assert np.array_equal(np.where(known, ids & 0xFFFFFF, 0), objects)
    classes = ids >> 24
    assert set(np.unique(classes[objects > 0])) == {1}
    assert 1 not in classes[known & (objects == 0)]
    polygons = gpd.read_parquet(tmp_path / "shapes.parquet")
    assert polygons.area.sum() == pytest.approx(known.sum() * 0.25)


def test_what_can_not_be_asked_of_a_detector(panoptic_bundle: Path, trained: Path, tmp_path: Path) -> None:
    scene, roofs = trained / "scene.tif", trained / "run" / "roofs"
    with pytest.raises(InputError, match="sees no objects of class 'water'; it sees building"):
        instances_file(scene, tmp_path / "o.gpkg", model=panoptic_bundle, classes=["water"], run=CPU)
    with pytest.raises(InputError, match="sees objects only"):
        panoptic_file(scene, tmp_path / "p.tif", model=roofs, run=CPU)
    with pytest.raises(InputError, match="'openvino' cannot run mask-rcnn"):
        Backend.resolve("cpu", engine="openvino", card=load_model(roofs).card)
    with pytest.raises(InputError, match="cannot be averaged"):
        geoseg.ensemble([roofs], views=4)
    with pytest.raises(InputError, match="has no form for here"):
        geoseg.export_model(roofs, tmp_path / "exported", to="onnx")
    with pytest.raises(InputError, match="least score of an object is 0 to 1, not 2"):
        instances_file(scene, tmp_path / "o.gpkg", model=roofs, least_score=2, run=CPU)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("args", "words"),
    [({"depth": 2}, "depth of 3 to 5"), ({"anchors_px": [8]}, "3 sizes of anchors, not 1"), ({"encoder": "../x"}, "x")],
)
def test_arguments_that_make_no_network(args: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        build_network("mask-rcnn", bands=3, classes=2, args=LEAST | args)


def test_things_are_some_of_the_classes() -> None:
    for things in ([], [0, 0], [0, 1, 2], [5]):
        with pytest.raises(InputError, match="things"):
            build_network("panoptic-fpn", bands=3, classes=3, args=LEAST | {"things": things})
    with pytest.raises(InputError, match="one for everything else"):
        build_network("mask-rcnn", bands=3, classes=1, args=LEAST)


def test_a_mask_is_pasted_on_the_pixels_of_its_box() -> None:
    ones = torch.ones(7, 7)
    pasted = paste(ones, torch.tensor([10.0, 20.0, 30.0, 40.0]), (64, 64))
    assert (pasted.rows, pasted.cols) == (slice(20, 40), slice(10, 30))
    assert torch.allclose(pasted.probabilities, torch.ones(20, 20))
    half = torch.zeros(8, 8)
    half[:, 4:] = 1
    pasted = paste(half, torch.tensor([-8.0, 0.0, 8.0, 4.0]), (64, 64))
    assert (pasted.rows, pasted.cols) == (slice(0, 4), slice(0, 8))
    assert (pasted.probabilities[:, 1:] > 0.5).all()  # the mask's right half lies on the chip


def test_objects_are_those_of_torchvisions_own_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    network = talkative("mask-rcnn", 2)
    pixels = [pixels_of((96, 96), seed=seed) for seed in (9, 10)]
    chips = torch.from_numpy(np.stack([RGB(one, np.ones((96, 96), np.bool_)) for one in pixels]))
    features = network.features(chips)
    images = ImageList(chips, [(96, 96)] * 2)
    proposals, _ = network.proposals(images, features)
    expected, _ = network.heads(features, proposals, images.image_sizes)
    monkeypatch.setattr("geoseg.models.detector.AT_ONCE", 2)
    for one, found in zip(expected, network.objects(chips, features), strict=True):
        assert len(found.scores) > 2
        assert torch.equal(found.channels, one["labels"] - 1)
        assert torch.allclose(found.boxes, one["boxes"], atol=1e-3)
        assert torch.allclose(found.scores, one["scores"], atol=1e-4)
        assert torch.allclose(found.masks, one["masks"][:, 0], atol=1e-4)


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("factor", [1, 2])
def test_memory_is_counted_of_all_that_a_detector_does(name: str, factor: int) -> None:
    """What is rehearsed without pixels is what takes place where about as many objects are seen as heads look at."""
    network = talkative(name, 2)
    card = small_card(architecture=Architecture(name=name, args=LEAST), output_stride=16, position_independent=False)
    whole = pooled(Model(network, card), factor).network
    network.proposals.score_thresh = 0.0
    chip = torch.from_numpy(RGB(pixels_of((64, 64), seed=9), np.ones((64, 64), np.bool_)))[None]
    chip = chip.repeat_interleave(factor, -1).repeat_interleave(factor, -2)
    with torch.inference_mode(), Census() as census:
        seen: Seen = whole.see(chip, 0.0)
    assert 100 < len(seen.objects[0].scores) < AT_ONCE
    assert census.most <= most_alive(whole, chip.shape) < 1.5 * census.most


def test_fine_pixels_are_seen_as_means() -> None:
    network = talkative("mask-rcnn", 2)
    card = small_card(
        architecture=Architecture(name="mask-rcnn", args=LEAST),
        legend=Legend(classes=tuple(LegendClass(**entry) for entry in CLASSES)),
        output_stride=16,
        position_independent=False,
        pool_to_m=1.0,
    )
    chip = torch.from_numpy(RGB(pixels_of((96, 96), seed=9), np.ones((96, 96), np.bool_)))[None]
    coarse: Seen = network.see(chip)
    fine: Seen = pooled(Model(network, card), 2).network.see(chip.repeat_interleave(2, -1).repeat_interleave(2, -2))
    assert len(coarse.objects[0].scores) > 0
    assert torch.allclose(fine.objects[0].boxes, 2 * coarse.objects[0].boxes, atol=1e-3)
    assert fine.logits is not None
    assert fine.logits.shape == (1, 2, 192, 192)
    assert network.see(chip, with_logits=False).logits is None


def test_objects_to_learn_are_the_parts_of_labels() -> None:
    labels = np.ones((32, 32), np.uint8)
    labels[2:10, 3:8] = labels[2:10, 9:15] = 0
    labels[2:10, 8] = IGNORE
    labels[20:22, 20:23] = 0  # too small
    target = target_of(torch.from_numpy(labels), [0])
    assert target.boxes.tolist() == [[3, 2, 8, 10], [9, 2, 15, 10]]
    assert target.masks.sum((1, 2)).tolist() == [40, 48]
    assert target.channels.tolist() == [0, 0]
    assert target_of(torch.full((8, 8), IGNORE, dtype=torch.uint8), [0]).boxes.shape == (0, 4)


def test_anchors_are_as_large_as_objects() -> None:
    labels = np.ones((256, 256), np.uint8)
    for row, col in np.ndindex(6, 6):
        labels[row * 40 : row * 40 + (8 if col < 3 else 32), col * 40 : col * 40 + (8 if col < 3 else 32)] = 0
    scene = ArrayScene(np.zeros((3, 256, 256), np.uint8), labels, gsd_m=0.5)
    assert anchors_for([scene], [0], gsd_m=0.5, levels=3) == [8, 16, 32]
    assert anchors_for([scene], [0], gsd_m=1.0, levels=2) == [8, 16]
    empty = ArrayScene(np.zeros((3, 64, 64), np.uint8), np.ones((64, 64), np.uint8), gsd_m=0.5)
    assert anchors_for([empty], [0], gsd_m=0.5, levels=4) == [16, 32, 64, 128]


def burnt(path: Path, *, apart: bool, window: Window) -> NDArray[np.uint8]:
    options = LabelOptions(elsewhere="paved", apart=apart)
    reader = open_labels(
        path, LANDCOVER, shape=(300, 300), transform=HALF_METRE, crs=rasterio.CRS.from_string(UTM), options=options
    )
    return reader(window)


def test_footprints_that_touch_are_parts_of_their_own(tmp_path: Path) -> None:
    """A line between them is unlabelled, whatever the window, at the lattice of tiles too."""
    shapes = [on_ground(240, left, 270, left + 20) for left in (236, 256, 276)]
    gpd.GeoDataFrame({"class_name": ["building"] * 3}, geometry=shapes, crs=UTM).to_file(tmp_path / "rows.gpkg")
    whole = Window(0, 0, 300, 300)
    plain, apart = (burnt(tmp_path / "rows.gpkg", apart=apart, window=whole) for apart in (False, True))
    changed = np.zeros((300, 300), bool)
    changed[240:270, [256, 276]] = True
    assert np.array_equal(apart == IGNORE, changed)
    assert np.array_equal(apart[~changed], plain[~changed])
    part = Window(250, 250, 20, 40)
    assert np.array_equal(burnt(tmp_path / "rows.gpkg", apart=True, window=part), apart[part.slices])
    assert len(target_of(torch.from_numpy(apart), [0]).boxes) == 3
