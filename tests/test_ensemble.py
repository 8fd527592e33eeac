"""An ensemble is the mean of its members' probabilities, seen from all sides, and as free of seams as they are."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import (
    pixels_of,
    read_band,
    save_tiny,
    segmented,
    small_card,
    small_model,
    tiny_model,
    whole_pass,
    write_rgb,
)
from numpy.typing import NDArray
from torch import nn

from geoseg.cli import main
from geoseg.errors import InputError
from geoseg.inference import Backend, Predictor
from geoseg.legend import LANDCOVER, Legend
from geoseg.models import CardBand, Model, load_model
from geoseg.models.ensemble import ensemble

CHIPS = torch.randn(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))
Turn = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def probabilities(model: Model, chips: torch.Tensor = CHIPS) -> NDArray[np.float32]:
    with torch.inference_mode():
        found: NDArray[np.float32] = model.network.eval()(chips).softmax(1).numpy()
    return found


def dihedral() -> list[tuple[Turn, Turn]]:
    """The eight symmetries of a square and their inverses, by numpy's quarter turns and one mirror."""

    def there(turns: int, mirror: bool) -> Turn:
        return lambda a: np.flip(np.rot90(a, turns, (-2, -1)), -1) if mirror else np.rot90(a, turns, (-2, -1))

    def back(turns: int, mirror: bool) -> Turn:
        return lambda a: np.rot90(np.flip(a, -1) if mirror else a, -turns, (-2, -1))

    return [(there(*which), back(*which)) for which in product(range(4), (False, True))]


def test_members_are_averaged_by_probability() -> None:
    one, two = tiny_model(), tiny_model(seed=1)
    expected = (probabilities(one) + probabilities(two)) / 2
    np.testing.assert_allclose(probabilities(ensemble([one, two])), expected, atol=1e-6)


def test_eight_views_are_the_symmetries_of_the_square() -> None:
    model = tiny_model()
    seen = [
        back(probabilities(model, torch.from_numpy(there(CHIPS.numpy()).copy()))).copy() for there, back in dihedral()
    ]
    np.testing.assert_allclose(probabilities(ensemble(model, views=8)), np.mean(seen, 0), atol=1e-5)


@pytest.mark.parametrize("views", [4, 8])
def test_what_is_turned_is_answered_turned(views: int) -> None:
    model = ensemble(tiny_model(), views=views)
    straight = probabilities(model)
    for there, _ in dihedral() if views == 8 else [d for d in dihedral() if d[0](CHIPS.numpy()).shape == CHIPS.shape]:
        turned = probabilities(model, torch.from_numpy(there(CHIPS.numpy()).copy()))
        np.testing.assert_allclose(turned, there(straight), atol=1e-5)
    assert np.abs(straight - probabilities(tiny_model())).max() > 0.01


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_stitched_is_the_whole_scene_for_any_chip(engine: str) -> None:
    model = ensemble([tiny_model(), tiny_model("deeplabv3plus-local")], views=8)
    pixels = pixels_of((61, 101))
    halo, stride = model.card.exact_halo_px, model.card.output_stride
    logits = torch.from_numpy(whole_pass(model, pixels, halo=halo, engine=engine))
    expected = Predictor(model, Backend("cpu", "float32")).reduce(logits)
    for cores in (5, 16):
        found = segmented(model, pixels, chip=2 * halo + cores * stride, halo=halo, block=10_000, engine=engine)
        assert np.array_equal(found.class_map, np.array(LANDCOVER.ids, np.uint8)[expected.channel])
        assert np.array_equal(found.confidence, expected.confidence)


def test_members_see_pixels_normalized_their_own_way() -> None:
    """Bands in another order and with other statistics."""
    one = tiny_model()
    other = small_model(seed=2)
    other.network.eval()
    stats = (("blue", 0.3, 0.1), ("red", 0.6, 0.3), ("green", 0.5, 0.2))
    card = other.card.model_copy(update={"bands": tuple(CardBand(name=n, mean=m, std=s) for n, m, s in stats)})
    raw = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    own = torch.stack([(raw[:, ["red", "green", "blue"].index(n)] - m) / s for n, m, s in stats], 1)
    expected = (probabilities(one, (raw - 0.5) / 0.2) + probabilities(other, own)) / 2
    found = probabilities(ensemble([one, Model(other.network, card)]), (raw - 0.5) / 0.2)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_card_holds_for_all_members() -> None:
    one, two = tiny_model(), tiny_model("deeplabv3plus-local")
    wide = Model(two.network, two.card.model_copy(update={"gsd_range_m": (0.4, 3.0), "license": "MIT", "halo_px": 200}))
    card = ensemble([one, wide], views=4).card
    assert card.gsd_range_m == (0.4, 1.0)
    assert card.license == "Apache-2.0 AND MIT"
    assert card.halo_px == 200
    assert card.chip_px > 2 * 200
    assert card.receptive_field_px == max(one.card.receptive_field_px, two.card.receptive_field_px)
    assert card.position_independent


def test_digests_tell_ensembles_apart() -> None:
    one, two = tiny_model(), tiny_model(seed=1)
    made = [ensemble(one), ensemble(one, views=4), ensemble(one, views=8), ensemble([one, two]), ensemble([two, one])]
    assert len({model.digest for model in made}) == len(made)
    assert made[0] is one


def test_one_can_be_given_by_name_or_path(tmp_path: Path) -> None:
    path = save_tiny(tmp_path / "tiny")
    assert ensemble(path, views=4).card.name == "tiny"
    assert ensemble([path, str(path)]).card.name == "tiny-tiny"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"legend": Legend(classes=LANDCOVER.classes[1:])},
            f"legend: {', '.join(LANDCOVER.names[1:])}; and building, ",
        ),
        ({"legend": LANDCOVER.model_copy(update={"nodata": 254})}, "legend: ids, colors, groups or nodata of b"),
        ({"scales": {"uint16": 1e-4}}, "differ in their scales: uint16 0.0001 and "),
        ({"bands": (CardBand(name="nir"),)}, "differ in their bands: nir and blue, green, red"),
        ({"gsd_m": 5, "gsd_range_m": (3, 9)}, "No ground sample distance suits all"),
        ({"fixed_chip": True, "chip_px": 512}, "takes chips of 512 px only"),
    ],
)
def test_models_that_do_not_fit_are_refused(changes: dict[str, object], said: str) -> None:
    other = Model(nn.Identity(), small_card().model_copy(update=changes))
    with pytest.raises(InputError, match=said):
        ensemble([tiny_model(), other])


@pytest.mark.parametrize(("models", "views", "said"), [([], 1, "none was given"), (["landcover-rgb"], 3, "1, 4, 8")])
def test_requests_that_make_no_ensemble_are_refused(models: list[str], views: int, said: str) -> None:
    with pytest.raises(InputError, match=said):
        ensemble(models, views=views)


def test_the_command_line_averages_models_and_views(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene, model = write_rgb(tmp_path / "scene.tif"), save_tiny(tmp_path / "tiny")
    given = ["--model", model, "--model", model, "--views", 8, "--device", "cpu", "--engine", "torch"]
    arguments = ["segment", scene, "-o", tmp_path / "cover.tif", *given, "--precision", "float32", "--halo", "exact"]
    monkeypatch.setattr("sys.argv", ["geoseg", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    model_of_eight = ensemble(load_model(model), views=8)
    halo = model_of_eight.card.exact_halo_px
    expected = whole_pass(model_of_eight, pixels_of((131, 149)), halo=halo).argmax(0)
    same = read_band(tmp_path / "cover.tif") == np.array(LANDCOVER.ids, np.uint8)[expected]
    assert same.mean() > 0.9999  # twice the same member: sums round otherwise


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_probabilities_are_taken_at_the_card_s_temperature(temperature: float) -> None:
    model = tiny_model()
    calibrated = Model(model.network, model.card.model_copy(update={"temperature": temperature}))
    logits = torch.randn(6, 20, 30, generator=torch.Generator().manual_seed(0)) * 4
    reduced = Predictor(calibrated, Backend("cpu", "float32")).reduce(logits, probabilities=True)
    expected = (logits / temperature).softmax(0)
    assert np.array_equal(reduced.channel, logits.argmax(0))
    np.testing.assert_allclose(reduced.probabilities, expected, atol=1e-6)
    np.testing.assert_allclose(reduced.confidence, expected.amax(0), atol=1e-6)
