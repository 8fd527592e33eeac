"""What a card says of its network is measured on what is stored."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import RGB, pixels_of, tiny_model, write
from numpy.typing import NDArray
from sklearn.metrics import jaccard_score

from geoseg.inference import Backend, Predictor
from geoseg.models import Model
from geoseg.training.config import LabelledSource
from geoseg.training.losses import IGNORE
from geoseg.training.publish import judge, publish
from geoseg.training.samples import ArrayScene
from geoseg.training.scenes import open_scene_of

NAMES = ("building", "ground", "vegetation", "water")


def coarse(codes: NDArray[np.integer]) -> NDArray[np.int16]:
    table = np.full(256, -1, np.int16)
    table[:6] = [0, 1, 1, 2, 2, 3]
    found: NDArray[np.int16] = table[np.asarray(codes)]
    return found


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, dict[str, list[ArrayScene]]]:
    """Labels are drawn with the probabilities of a network, some left out; the one published is three times as sure."""
    given = Model(copy.deepcopy(tiny_model().network), tiny_model().card)
    last = [module for module in given.network.modules() if isinstance(module, torch.nn.Conv2d)][-1]
    with torch.no_grad():
        last.weight *= 3
        last.bias *= 3
    rng = np.random.default_rng(0)
    predictor = Predictor(tiny_model(), Backend("cpu", "float32"))
    places: dict[str, list[ArrayScene]] = {"one": [], "two": []}
    for number, scenes in enumerate([*places.values(), places["two"]]):
        pixels = pixels_of((400, 424), seed=number)
        chances = predictor.logits(RGB(pixels, np.ones((400, 424), np.bool_))).softmax(0).numpy()
        labels = (rng.random((400, 424)) > chances.cumsum(0)).sum(0).clip(0, 5).astype(np.uint8)
        labels[rng.random(labels.shape) < 0.1] = IGNORE
        scenes.append(ArrayScene(pixels, labels, 0.5))
    folder: Path = tmp_path_factory.mktemp("bundle") / "tiny"
    return publish(given, folder, places=places, names=NAMES, coarse=coarse, halo_chips=4), places


def test_scores_are_those_of_the_stored_network(published: tuple[Model, dict[str, list[ArrayScene]]]) -> None:
    model, places = published
    predictor = Predictor(model, Backend("cpu", "float32"))
    for place, scenes in places.items():
        truth, found = [], []
        for scene in scenes:
            halo = model.card.exact_halo_px
            wide = np.pad(scene.pixels, ((0, 0), (halo, halo), (halo, halo)), mode="reflect")
            logits = predictor.logits(RGB(wide, np.ones(wide.shape[1:], np.bool_)))
            said = logits[:, halo:-halo, halo:-halo].argmax(0).numpy()
            known = scene.labels != IGNORE
            truth.append(coarse(scene.labels)[known])
            found.append(coarse(said)[known])
        expected = jaccard_score(np.concatenate(truth), np.concatenate(found), average=None)
        told = [model.card.scores[place][name] for name in NAMES]
        np.testing.assert_allclose(told, expected, atol=0.004)  # the halo may change a pixel in a thousand


def test_the_temperature_is_the_one_that_the_labels_were_drawn_with(published: tuple[Model, object]) -> None:
    card = published[0].card
    assert card.temperature == pytest.approx(3, rel=0.1)  # the draw saw no mirrored borders
    assert card.calibration["ece_before"] > 0.05
    assert card.calibration["ece_after"] < 0.02
    assert card.calibration["pixels"] > 10_000


def test_halo_and_reach_are_measured(published: tuple[Model, object]) -> None:
    card = published[0].card
    assert 0 < card.halo_px <= card.exact_halo_px
    assert card.receptive_field_px == tiny_model().card.receptive_field_px


def test_scores_of_a_model_that_saw_less_are_kept(
    published: tuple[Model, dict[str, list[ArrayScene]]], tmp_path: Path
) -> None:
    model, places = published
    scores = {"elsewhere": {"building": 0.25}}
    fold = model.card.model_copy(update={"scores": scores, "temperature": 2.5, "calibration": {"ece_before": 0.5}})
    card = publish(
        model, tmp_path / "all", places=places, names=NAMES, coarse=coarse, halo_chips=4, scores_of=fold
    ).card
    assert (card.scores, card.temperature, card.calibration) == (scores, 2.5, {"ece_before": 0.5})
    assert card.halo_px == model.card.halo_px


def test_labels_on_nodata_do_not_count(published: tuple[Model, dict[str, list[ArrayScene]]], tmp_path: Path) -> None:
    model, places = published
    scene, legend = places["one"][0], model.card.legend
    half = scene.shape[1] // 2
    pixels = np.maximum(scene.pixels, 1)
    pixels[:, :, half:] = 0
    write(tmp_path / "scene.tif", pixels, crs="EPSG:32631", nodata=0)
    ids = np.append(legend.ids, legend.nodata).astype(np.uint8)[np.minimum(scene.labels, len(legend.ids))]
    hidden = np.where(np.arange(scene.shape[1]) < half, ids, legend.nodata).astype(np.uint8)
    told = []
    for name, labels in (("all.tif", ids), ("hidden.tif", hidden)):
        write(tmp_path / name, labels[None], crs="EPSG:32631")
        source = LabelledSource(scene=str(tmp_path / "scene.tif"), labels=str(tmp_path / name))
        told.append(judge(model, [open_scene_of(source, ("red", "green", "blue"), legend)], NAMES, coarse))
    assert told[0][0] == told[1][0]
    assert np.isfinite(told[0][1].probabilities).all()
