from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import SMALL, small_card, small_model

from geoseg.errors import GeosegError, InputError
from geoseg.models import (
    Model,
    build_network,
    list_models,
    load_model,
    save_model,
)
from geoseg.models.receptive import receptive_field, smallest_halo


@pytest.mark.parametrize("architecture", SMALL)
@pytest.mark.parametrize("bands", [1, 3, 5])
def test_forward_keeps_shape(architecture: str, bands: int) -> None:
    network = build_network(architecture, bands=bands, classes=4, args=SMALL[architecture])
    with torch.inference_mode():
        assert network(torch.zeros(2, bands, 64, 96)).shape == (2, 4, 64, 96)


@pytest.mark.parametrize("architecture", ["unet", "deeplabv3plus-local"])
def test_position_does_not_matter_beyond_the_receptive_field(architecture: str) -> None:
    model = small_model(architecture)
    stride = model.card.output_stride
    halo = -(-receptive_field(model.network, bands=3, output_stride=stride) // stride) * stride
    chip = torch.randn(1, 3, 2 * halo + 64, 2 * halo + 64)
    at = 2 * stride
    with torch.inference_mode():
        whole = model.network(chip)[..., halo + at : -halo, halo + at : -halo]
        part = model.network(chip[..., at:, at:])[..., halo:-halo, halo:-halo]
    assert torch.equal(whole, part)


def test_the_faithful_deeplab_sees_the_whole_chip() -> None:
    model = small_model("deeplabv3plus")
    with pytest.raises(GeosegError, match="no bounded receptive field"):
        receptive_field(model.network, bands=3, output_stride=16, largest=256)


def test_receptive_field_of_known_convolutions() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 4, 5, padding=2), torch.nn.Conv2d(4, 3, 7, padding=3))
    assert receptive_field(network, bands=2, output_stride=8) == 5
    assert receptive_field(torch.nn.Conv2d(2, 3, 1), bands=2, output_stride=8) == 0


def test_the_unet_of_depth_4_stays_within_160_pixels() -> None:
    network = build_network("unet", bands=3, classes=6)
    assert sum(p.numel() for p in network.parameters()) < 10e6
    assert receptive_field(network, bands=3, output_stride=16) == 151


def test_smallest_halo_of_a_convolution_is_found() -> None:
    torch.manual_seed(0)
    network = torch.nn.Conv2d(1, 2, 9, padding=4, bias=False)
    chips = [np.random.default_rng(0).normal(size=(1, 64, 64)).astype(np.float32)]
    assert smallest_halo(network, chips, output_stride=1, exact=8, share=0) == 4
    assert smallest_halo(network, chips, output_stride=1, exact=8, share=1) == 0


@pytest.mark.parametrize("name", ["bundle", "bundle.safetensors"])
def test_a_saved_bundle_gives_the_same_answer(tmp_path: Path, name: str) -> None:
    model = small_model()
    save_model(model, tmp_path / name, half=False)
    again = load_model(tmp_path / name)
    chip = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(model.network(chip), again.network(chip))
    assert again.digest == load_model(tmp_path / name).digest


def test_half_precision_is_stable_once_stored(tmp_path: Path) -> None:
    save_model(small_model(), tmp_path / "a")
    save_model(load_model(tmp_path / "a"), tmp_path / "b")
    assert load_model(tmp_path / "a").digest == load_model(tmp_path / "b").digest


def test_the_digest_tells_weights_and_card_apart() -> None:
    model = small_model()
    assert model.digest != small_model(seed=1).digest
    assert model.digest != Model(model.network, small_card(halo_px=24)).digest
    assert model.digest == Model(model.network, small_card(description="other words")).digest


def test_every_bundle_that_ships_loads() -> None:
    assert "spectral-index" in list_models()
    for name in list_models():
        assert load_model(name).card.name == name


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"unknown": 1}, "unknown"),
        ({"gsd_m": 5.0}, "gsd_m 5.0 lies outside"),
        ({"halo_px": 12}, "12 is not a multiple of output_stride 8"),
        ({"output_stride": 16}, "output_stride 16, its network has 8"),
        ({"architecture": {"name": "os.system", "args": {}}}, "'os.system' is unknown"),
        ({"architecture": {"name": "unet", "args": {"encoder": "nope"}}}, "'unet' cannot be built"),
        ({"weights_sha256": None}, "names no weights_sha256"),
        ({"weights_sha256": "0" * 64}, "not the same model"),
    ],
)
def test_a_wrong_card_is_refused(tmp_path: Path, change: dict[str, object], told: str) -> None:
    save_model(small_model(), tmp_path / "m")
    card = tmp_path / "m" / "card.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | change))
    with pytest.raises(InputError, match=told):
        load_model(tmp_path / "m")


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    save_model(small_model(), tmp_path / "m")
    card = tmp_path / "m" / "card.json"
    told = json.loads(card.read_text())
    told["architecture"]["args"]["decoder_channels"] = [24, 8]
    card.write_text(json.dumps(told))
    with pytest.raises(InputError, match=r"in the file, .* in the network"):
        load_model(tmp_path / "m")


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    torch.save({"a": torch.zeros(1)}, file)
    with pytest.raises(InputError, match="pickled checkpoints are not read"):
        load_model(file)


def test_missing_models_and_weights_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'nope' is unknown; .* spectral-index"):
        load_model("nope")
    with pytest.raises(InputError, match="is no model"):
        load_model(tmp_path)
    save_model(small_model(), tmp_path / "m")
    (tmp_path / "m" / "weights.safetensors").unlink()
    with pytest.raises(InputError, match="is missing"):
        load_model(tmp_path / "m")


def test_the_users_folder_is_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(small_model(), tmp_path / "mine")
    monkeypatch.setenv("GEOSEG_MODELS", str(tmp_path))
    assert load_model("mine").card.name == "small"


def test_spectral_rules() -> None:
    model = load_model("spectral-index")
    green, red, nir, swir = (
        (0.06, 0.05, 0.4, np.nan),
        (0.08, 0.06, 0.02, np.nan),
        (0.3, 0.3, 0.35, np.nan),
        (0.05, 0.04, 0.1, 0.01),
    )
    chip = torch.tensor([green, red, nir, swir]).T[None, :, :, None].float()
    with torch.inference_mode():
        names = [model.card.legend.names[i] for i in model.network(chip)[0, :, :, 0].argmax(0)]
    assert names == ["vegetation", "water", "other", "water"]
