"""Consistency training: what the two views share, which answers count, what is held out, and exact resuming."""

from __future__ import annotations

import csv
import pickle
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import torch
from affine import Affine
from builders import write_rgb
from lightning import Trainer
from test_train import halves, stated, stripes
from torch import nn

import geoseg
from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.training.config import TrainConfig, UnlabelledConfig
from geoseg.training.losses import IGNORE, SoftDice
from geoseg.training.semisupervised import ConsistencyTask, Paired, ramp
from geoseg.training.task import Schedule, mixed
from geoseg.training.train import Training
from geoseg.training.watch import Watch

WHOLE = Window(0, 0, 320, 320)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    halves(folder / "scene.tif")
    stripes(folder / "labels.gpkg")
    return folder


def with_unlabelled(data: Path, **changes: Any) -> TrainConfig:
    section = {"scenes": [{"scene": str(data / "scene.tif")}], "ramp_steps": 4, "threshold": 0.5}
    return stated(data, **{"unlabelled": section} | changes)


def task(**changes: Any) -> ConsistencyTask:
    """One band, two classes; the logits of the second are the pixel."""
    network = nn.Conv2d(1, 2, 1)
    with torch.no_grad():
        network.weight[:] = torch.tensor([0.0, 1.0])[:, None, None, None]
        network.bias[:] = 0
    config = UnlabelledConfig.model_validate({"scenes": [{"scene": "a.tif"}]} | changes)
    return ConsistencyTask(config, network, [(1.0, SoftDice(2))], Schedule(10), mean=[0.0], std=[1.0])


def test_the_views_show_the_same_ground_in_other_colors(data: Path) -> None:
    training = Training.of(with_unlabelled(data, augment={"scale": 1.0, "noise": 0.0}))
    pairs = training.dataset(training.samples())
    assert isinstance(pairs, Paired)
    assert len(pairs) == 12
    changed = 0
    for index in range(len(pairs)):
        _, (weak, strong, counts) = pairs[index]
        assert weak.shape == strong.shape == (3, 64, 64)
        assert torch.equal(weak.isnan(), strong.isnan())
        assert (counts[weak.isnan().any(0)] == IGNORE).all()
        known = counts != IGNORE
        changed += not torch.allclose(weak[:, known], strong[:, known], atol=1e-3)
        if known.sum() > 1000:
            both = torch.stack([weak.mean(0)[known], strong.mean(0)[known]])
            assert torch.corrcoef(both)[0, 1] > 0.8  # stripes lie where they were
    assert changed > 8


def test_views_without_strength_are_the_same(data: Path) -> None:
    still = {"free_rotation": 0.0, "blur": 0.0}
    section = {"scenes": [{"scene": str(data / "scene.tif")}], "strength": 0.0}
    training = Training.of(with_unlabelled(data, unlabelled=section, augment=still))
    pairs = training.dataset(training.samples())
    _, (weak, strong, _) = pairs[0]
    torch.testing.assert_close(weak, strong, equal_nan=True, atol=1e-5, rtol=0)
    _, (again, _, _) = pickle.loads(pickle.dumps(pairs))[0]  # as a process that reads samples gets them
    assert torch.equal(weak.nan_to_num(), again.nan_to_num())


def test_what_is_held_out_is_not_looked_at(data: Path) -> None:
    training = Training.of(with_unlabelled(data))
    assert training.unlabelled is not None
    (scene,), (labelled,), (held,) = (side.scenes for side in (training.unlabelled, training.train, training.validate))
    pixels, counts = scene.read(WHOLE)
    judged = held.read_labels(WHOLE) != IGNORE
    assert judged.any()
    assert np.isnan(pixels[:, judged]).all()
    assert np.array_equal(np.isnan(pixels), np.isnan(labelled.read(WHOLE)[0]))
    assert (counts[judged] == IGNORE).all()
    assert (counts == 0).sum() > WHOLE.area / 2


def test_only_sure_answers_of_the_average_count() -> None:
    found = task(threshold=0.8)
    with torch.no_grad():
        found.network.weight.mul_(-5)  # the student; the average stays as it was
    weak = torch.linspace(-4, 4, 64).reshape(1, 1, 8, 8)
    counts = torch.zeros(1, 8, 8, dtype=torch.uint8)
    counts[0, 0] = IGNORE
    probability = torch.sigmoid(weak[:, 0])
    expected = torch.where(probability >= 0.8, 1, torch.where(1 - probability >= 0.8, 0, IGNORE))
    expected[0, 0] = IGNORE
    assert torch.equal(found.answers(weak, counts), expected)


def test_mixed_chips_carry_their_answers() -> None:
    """A chip and its maps are filled with its number, so that each pixel tells where it came from."""
    torch.manual_seed(0)
    count = 400
    number = torch.arange(count, dtype=torch.float32)[:, None, None].expand(count, 16, 16)
    strong, answers = mixed(0.5, number[:, None], number.long())
    assert torch.equal(strong[:, 0].long(), answers)
    foreign = answers != number.long()
    assert torch.equal(answers[foreign], (number.long().roll(1, 0))[foreign])
    assert foreign.flatten(1).any(1).float().mean() == pytest.approx(0.5, abs=0.1)
    assert foreign.float().mean() == pytest.approx(0.25, abs=0.05)
    assert mixed(0.0, strong)[0] is strong


def test_the_average_learns_from_the_network_alone(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training.of(with_unlabelled(data))
    found = training.task(str)
    assert isinstance(found, ConsistencyTask)
    logged: dict[str, float] = {}
    monkeypatch.setattr(found, "log", lambda name, value, **_: logged.update({name: float(value.detach())}))
    pairs = training.dataset(training.samples())
    batch = torch.utils.data.default_collate([pairs[0], pairs[1]])
    found.training_step(batch, 0).backward()
    assert all(parameter.grad is None for parameter in found.average.parameters())
    assert any(parameter.grad is not None for parameter in found.network.parameters())
    weight = ramp(0, 4) * training.config.unlabelled.weight  # type: ignore[union-attr]
    assert logged["consistency"] > 0
    assert 0 < logged["confident"] <= 1
    _, labels = batch[0]
    assert logged["loss"] > weight * logged["consistency"]
    assert labels.shape == (2, 64, 64)


def test_the_weight_rises() -> None:
    values = [ramp(step, 100) for step in (0, 50, 100, 1000)]
    assert values[0] < 0.01
    assert values == sorted(values)
    assert values[2] == values[3] == 1


def test_a_resumed_training_is_the_uninterrupted_one(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = geoseg.train(with_unlabelled(data), tmp_path / "whole")
    real = Watch.on_train_batch_end

    def killed(self: Watch, trainer: Trainer, *rest: Any) -> None:
        real(self, trainer, *rest)
        if trainer.global_step == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(Watch, "on_train_batch_end", killed)
    with pytest.raises(KeyboardInterrupt):
        geoseg.train(with_unlabelled(data), tmp_path / "broken")
    monkeypatch.undo()
    again = geoseg.train(with_unlabelled(data), tmp_path / "broken", resume=True)
    assert again.model.digest == whole.model.digest
    history = (tmp_path / "broken" / "history.csv").read_text()
    assert history == (tmp_path / "whole" / "history.csv").read_text()
    rows = list(csv.DictReader(history.splitlines()))
    assert all(0 <= float(row["confident"]) <= 1 and float(row["consistency"]) >= 0 for row in rows)
    assert "/" not in "".join(
        line for line in (again.folder / "config.yaml").read_text().splitlines() if "scene:" in line
    )


def test_scenes_that_teach_nothing_are_refused(data: Path, tmp_path: Path) -> None:
    coarse = {"scenes": [{"scene": str(data / "scene.tif"), "gsd_m": 5}]}
    with pytest.raises(InputError, match="pixels of 5 m, those with labels"):
        Training.of(with_unlabelled(data, unlabelled=coarse))
    write_rgb(tmp_path / "nowhere.tif", (64, 64), crs=None)
    with pytest.raises(InputError, match="state gsd_m"):
        Training.of(with_unlabelled(data, unlabelled={"scenes": [{"scene": str(tmp_path / "nowhere.tif")}]}))


def test_a_scene_that_is_all_held_out_is_refused(data: Path, tmp_path: Path) -> None:
    away = Affine(0.5, 0, 600_000, 0, -0.5, 5_000_000)
    halves(tmp_path / "away.tif", transform=away)
    labels = stripes(tmp_path / "labels.gpkg", crs="EPSG:32631")
    frame = gpd.read_file(labels)
    frame.geometry = frame.translate(100_000)
    frame.to_file(tmp_path / "away.gpkg")
    scenes = [
        {"scene": str(data / "scene.tif"), "labels": str(data / "labels.gpkg")},
        {"scene": str(tmp_path / "away.tif"), "labels": str(tmp_path / "away.gpkg"), "role": "validate"},
    ]
    unlabelled = {"scenes": [{"scene": str(tmp_path / "away.tif")}]}
    with pytest.raises(InputError, match=r"away\.tif is held out"):
        Training.of(with_unlabelled(data, scenes=scenes, split={"by": "scenes"}, unlabelled=unlabelled))
