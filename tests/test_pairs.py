"""A network that sees two dates at once: its classes, its engine, and the change that is made of its answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import pixels_of, small_card, write_rgb
from numpy.typing import NDArray
from test_change import read
from test_vectorize import write_raster

import geoseg
from geoseg.change.transitions import compare_joint
from geoseg.errors import InputError
from geoseg.legend import Legend, LegendClass
from geoseg.models import Architecture, CardBand, Model, ModelCard, build_network
from geoseg.models.pairs import PairClasses, both_dates, date_bands
from geoseg.models.receptive import receptive_field
from geoseg.training.config import TrainConfig
from geoseg.training.losses import IGNORE
from geoseg.training.recipes.building_change import (
    CLASSES,
    SURE,
    SURE_NOT,
    building_probability,
    edited,
    edited_scene,
    real_pair,
    synthetic_pair,
)
from geoseg.training.samples import ArrayScene

ARGS: dict[str, Any] = {"encoder": "tu-resnet18", "depth": 2, "decoder_channels": [8, 8]}
BANDS = both_dates(("red", "green", "blue"))
BUILDING, NEW, REMOVED = 1, 2, 16
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def card_of(**changes: Any) -> ModelCard:
    fields = {
        "architecture": Architecture(name="siamese-unet", args=ARGS),
        "bands": tuple(CardBand(name=name, mean=0.5, std=0.2) for name in BANDS),
        "legend": Legend(classes=CLASSES),
        "output_stride": 4,
    }
    return small_card(**(fields | changes))


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    network = build_network("siamese-unet", bands=6, classes=4, args=ARGS)
    reach = receptive_field(network, bands=6, output_stride=4)
    halo = -(-reach // 4) * 4
    return Model(network, card_of(receptive_field_px=reach, halo_px=halo, chip_px=2 * halo + 64))


def test_names_tell_the_dates_and_the_pairs() -> None:
    assert date_bands(BANDS) == ("red", "green", "blue")
    assert date_bands(["red", "green"]) is date_bands([]) is date_bands(["before_red", "after_nir"]) is None
    found = PairClasses.of(card_of())
    assert found is not None
    assert found.legend.names == ("other", "building")
    assert found.pairs == ((0, 0), (1, 1), (0, 1), (1, 0))
    assert PairClasses.of(small_card()) is None
    with pytest.raises(InputError, match="none of its classes is a change"):
        PairClasses.of(card_of(legend=Legend(classes=CLASSES[:2])))
    lake = LegendClass(id=9, name="lake to building", color="#000000")
    with pytest.raises(InputError, match="'lake to building' names 'lake', which is no class that stays"):
        PairClasses.of(card_of(legend=Legend(classes=(*CLASSES, lake))))


def test_change_is_the_share_of_the_pairs_that_differ() -> None:
    joint = np.array([[0.3, 0.1, 0.2, np.nan], [0.1, 0.5, 0.3, 0], [0.4, 0.3, 0.1, 0], [0.2, 0.1, 0.4, 1]], np.float32)
    found = compare_joint(joint[:, None], ((0, 0), (1, 1), (0, 1), (1, 0)), threshold=0.5)
    np.testing.assert_allclose(found.probability[0], [0.6, 0.4, 0.5, np.nan], rtol=1e-6)
    assert found.before[0].tolist() == [0, 1, 1, -1]
    assert found.after[0].tolist() == [1, 1, 1, -1]


@pytest.mark.parametrize("chip", [0, 256])
def test_files_and_arrays_give_the_transitions_of_one_pass(tmp_path: Path, model: Model, chip: int) -> None:
    spread_for_pairs(model)
    dates = [write_rgb(tmp_path / f"{seed}.tif", (90, 110), seed=seed, crs="EPSG:32631") for seed in range(2)]
    run = geoseg.RunOptions(chip=chip or None, engine="torch", precision="float32", halo="exact")
    found = geoseg.change_files(*dates, tmp_path / "c.tif", model=model, run=run, probability=tmp_path / "p.tif")
    codes = read(tmp_path / "c.tif")
    assert found.matrix.names == ("other", "building")
    assert {0, NEW, REMOVED} == set(np.unique(codes))
    whole = joint_of(model, dates)
    np.testing.assert_allclose(read(tmp_path / "p.tif") / 200, whole[2:].sum(0), atol=0.016)
    lazy = geoseg.detect_change(*(geoseg.open_scene(path) for path in dates), model, run=run)
    assert (lazy.transition.to_numpy() == codes).mean() > 0.99  # files hold probabilities in bytes
    np.testing.assert_allclose(lazy.probability, whole[2:].sum(0), atol=1e-4)


def spread_for_pairs(model: Model) -> None:
    last = model.network.head
    chips = torch.from_numpy(
        np.concatenate([pixels_of((64, 64), seed=seed) for seed in (8, 9)])[None] / np.float32(255)
    )
    with torch.no_grad():
        logits = model.network((chips - 0.5) / 0.2)[0]
        center, width = logits.mean((1, 2)), logits.std((1, 2))
        last.weight *= (2 / width)[:, None, None, None]
        last.bias.copy_((last.bias - center) * 2 / width)


def joint_of(model: Model, dates: list[Path]) -> NDArray[np.float32]:
    """(pair, height, width) probabilities of one pass over both dates, reflected outward."""
    halo = model.card.halo_px
    pixels = np.concatenate([bands_of(path) for path in dates]) / np.float32(255)
    height, width = pixels.shape[1:]
    margins = [(halo, halo + -length % 4) for length in (height, width)]
    chips = torch.from_numpy(np.pad((pixels - 0.5) / 0.2, ((0, 0), *margins), mode="reflect").astype(np.float32))
    with torch.inference_mode():
        joint = model.network(chips[None])[0].softmax(0).numpy()
    found: NDArray[np.float32] = joint[:, halo : halo + height, halo : halo + width]
    return found


def bands_of(path: Path) -> NDArray[np.uint8]:
    values: NDArray[np.uint8] = geoseg.open_scene(path).to_numpy()
    return values


def test_the_second_date_on_a_grid_of_its_own_is_moved(tmp_path: Path, model: Model) -> None:
    one = write_rgb(tmp_path / "1.tif", (90, 110), crs="EPSG:32631")
    two = write_rgb(tmp_path / "2.tif", (40, 50), crs="EPSG:32631", transform=(1.0, 0, 500_002, 0, -1.0, 4_999_998))
    found = geoseg.change_files(one, two, tmp_path / "c.tif", model=model)
    assert found.shape == (80, 100)
    assert (read(tmp_path / "c.tif") != 255).all()


def test_a_missing_band_is_named(tmp_path: Path, model: Model) -> None:
    one = write_rgb(tmp_path / "1.tif", (90, 110), crs="EPSG:32631")
    gray = write_raster(tmp_path / "2.tif", pixels_of((90, 110), bands=1)[0], geoseg.open_scene(one).odc.geobox.affine)
    with pytest.raises(InputError, match=r"needs band red, green, blue of both dates; 2.tif has band_1"):
        geoseg.change_files(one, gray, tmp_path / "c.tif", model=model, dates=geoseg.DateOptions(kind="scenes"))
    with pytest.raises(InputError, match="needs band red, green, blue of both dates"):
        geoseg.detect_change(geoseg.open_scene(one), geoseg.open_scene(gray), model)


def test_pairs_are_of_one_place_and_their_labels_tell_what_changed() -> None:
    rng = np.random.default_rng(1)
    pair = synthetic_pair(2, rng)
    assert {NEW, REMOVED} & {1 + 15 * (code == 4) + (code == 3) for code in np.unique(pair.codes)}
    pixels = rng.integers(60, 120, (3, 240, 240)).astype(np.uint8)
    labels = np.full((240, 240), 2, np.uint8)
    for at in range(10, 230, 36):
        for col in range(10, 230, 36):
            labels[at : at + 10, col : col + 12], pixels[:, at : at + 10, col : col + 12] = 0, 250
    found = edited([pixels, pixels], labels, rng)
    assert set(np.unique(found.codes)) == {1, 2, 3, 4}
    bright = [(date > 200).all(0) for date in (found.before, found.after)]
    for own, ids in zip(bright, ((2, 4), (2, 3)), strict=True):
        assert (own != np.isin(found.codes, ids)).mean() < 0.02  # but for soft edges
    later = edited_scene(ArrayScene(pixels, labels, 0.6), rng)
    assert later.after.shape == later.before.shape == pixels.shape
    assert later.after.min() > 0
    assert (later.codes > 2).any()


def test_what_may_belong_to_a_building_goes_with_it_and_is_not_judged() -> None:
    """Where a building with an unsure rim was hidden no bright rim is left; where it was pasted the rim is unknown."""
    rng = np.random.default_rng(3)
    pixels, labels = rng.integers(60, 120, (3, 240, 240)).astype(np.uint8), np.full((240, 240), 2, np.uint8)
    for at in range(10, 230, 36):
        for col in range(10, 230, 36):
            labels[at : at + 12, col : col + 12], pixels[:, at : at + 12, col : col + 12] = IGNORE, 250
            labels[at + 3 : at + 9, col + 3 : col + 9] = 0
    found = edited([pixels, pixels], labels, rng, maybe=labels == IGNORE)
    assert (found.codes[labels == IGNORE] == 0).all()
    assert {3, 4} <= set(np.unique(found.codes))
    for own, ids in ((found.before, (0, 2, 4)), (found.after, (0, 2, 3))):
        bright = (own > 200).all(0)
        assert np.isin(found.codes[bright], ids).mean() > 0.98


def test_real_dates_are_labelled_where_a_model_is_sure_of_both(shared_data: Path) -> None:
    """What is not edited is as it was photographed; what the model wavers about is not known."""
    paths = [shared_data / "california" / f"chico_005_{year}.tif" for year in (2018, 2020)]
    pair = real_pair((paths[0], paths[1]), np.random.default_rng(0))
    for path, date in zip(paths, (pair.before, pair.after), strict=True):
        assert (bands_of(path)[:3] == date).all(0)[np.isin(pair.codes, (1, 2))].mean() > 0.95
    chance = np.mean([building_probability(path) for path in paths], axis=0)
    wavering = (chance > SURE_NOT) & (chance < SURE)
    assert 0 < wavering.mean() < 0.3
    assert (pair.codes[wavering] == 0).all()
    assert set(np.unique(pair.codes)) >= {0, 1, 2}


def test_it_learns_pairs_by_the_training_command(tmp_path: Path) -> None:
    """Squares that appear and vanish on noise: a few steps tell them from those that stay."""
    rng = np.random.default_rng(0)
    states = rng.integers(0, 4, (16, 16)).repeat(16, 0).repeat(16, 1)  # other, building, new, removed
    middle = (np.arange(256) % 16 > 2) & (np.arange(256) % 16 < 13)
    states = np.where(middle[:, None] & middle, states, 0)
    dates = [np.where(np.isin(states, ids), 220, 60) for ids in ((1, 3), (1, 2))]
    pixels = np.concatenate([np.repeat(date[None], 3, 0) for date in dates]) + rng.normal(0, 10, (6, 256, 256))
    scene = write_rgb(tmp_path / "pair.tif", values=pixels[:3].clip(1, 255).astype(np.uint8), crs="EPSG:32631")
    after = write_rgb(tmp_path / "after.tif", values=pixels[3:].clip(1, 255).astype(np.uint8), crs="EPSG:32631")
    labels = write_raster(
        tmp_path / "labels.tif", (states + 1).astype(np.uint8), geoseg.open_scene(scene).odc.geobox.affine
    )
    config = {
        "name": "pairs",
        "classes": [entry.model_dump() for entry in CLASSES],
        "bands": BANDS,
        "scenes": [
            {
                "scene": [str(scene), str(after)],
                "labels": str(labels),
                "map": {str(entry.id): entry.name for entry in CLASSES},
                "bands": {name: str(number) for number, name in enumerate(BANDS, 1)},
            }
        ],
        "split": {"by": "blocks", "block_px": 64, "buffer_px": 0},
        "network": {"name": "siamese-unet", "args": ARGS},
        "start": {"weights": None},
        "augment": {"scale": 1, "elastic": 0, "free_rotation": 0},
        "run": {"steps": 60, "batch": 4, "chip": 64, "validate_every": 60, "validation_chips": 8, "loaders": 0}
        | {"warmup": 5, "learning_rate": 5e-3, "average": 0.8, "precision": "float32", "device": "cpu"},
    }
    trained = geoseg.train(TrainConfig.model_validate(config), tmp_path / "run")
    found = geoseg.change_files(scene, after, tmp_path / "c.tif", model=trained.folder)
    codes = read(tmp_path / "c.tif")
    assert found.crs == "EPSG:32631"
    for state, code in ((2, NEW), (3, REMOVED)):
        both, either = ((codes == code) & (states == state)).sum(), ((codes == code) | (states == state)).sum()
        assert both / either > 0.6
