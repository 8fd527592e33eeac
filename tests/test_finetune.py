"""Starting from weights of others: what is taken over, what is adapted, what is held still."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from builders import tiny_model
from safetensors.torch import save_file
from torch import nn

from geoseg.errors import InputError
from geoseg.legend import LANDCOVER
from geoseg.models import build_network, save_model
from geoseg.training.finetune import Fitted, start_from

RGB = ("red", "green", "blue")
ARGS = {"encoder": "tu-resnet18", "depth": 2, "decoder_channels": [8, 8]}


def network(bands: int = 3, seed: int = 5) -> nn.Module:
    torch.manual_seed(seed)
    return build_network("unet", bands=bands, classes=len(LANDCOVER.classes), args=dict(ARGS))


def test_a_bundle_gives_all_its_weights(tmp_path: Path) -> None:
    save_model(tiny_model(), tmp_path / "tiny", half=False)
    mine = network()
    assert start_from(mine, str(tmp_path / "tiny"), bands=RGB, legend=LANDCOVER) == []
    for name, tensor in tiny_model().network.state_dict().items():
        if tensor.is_floating_point():
            assert torch.equal(mine.state_dict()[name], tensor)


@pytest.mark.parametrize("wrapped", ["", "network.", "module."])
def test_a_state_dict_may_name_what_wrapped_the_network(tmp_path: Path, wrapped: str) -> None:
    state = {f"{wrapped}{name}": tensor.clone() for name, tensor in tiny_model().network.state_dict().items()}
    save_file(state, tmp_path / "state.safetensors")
    mine = network()
    assert start_from(mine, str(tmp_path / "state.safetensors"), bands=RGB, legend=LANDCOVER) == []
    assert torch.equal(mine.state_dict()["head.weight"], tiny_model().network.state_dict()["head.weight"])


@pytest.mark.parametrize("bands", [RGB, ("red", "green", "blue", "nir")])
def test_an_encoder_of_timm_finds_its_place(tmp_path: Path, bands: tuple[str, ...]) -> None:
    """Its first layer, for red, green and blue, is spread over four bands by its mean."""
    torch.manual_seed(1)
    encoder = timm.create_model("resnet18", pretrained=False)
    save_file(encoder.state_dict(), tmp_path / "encoder.safetensors")
    mine = network(len(bands))
    told = start_from(mine, str(tmp_path / "encoder.safetensors"), bands=bands, legend=LANDCOVER)
    assert "start at random" in told[-1]
    held = mine.state_dict()
    assert torch.equal(held["encoder.model.layer1.0.conv1.weight"], encoder.state_dict()["layer1.0.conv1.weight"])
    first, given = held["encoder.model.conv1.weight"], encoder.state_dict()["conv1.weight"]
    if len(bands) == 3:
        assert torch.equal(first, given)
    else:
        torch.testing.assert_close(first, given.mean(1, keepdim=True).expand_as(first) * 3 / 4)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_file({"head.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="another architecture"):
        start_from(network(), str(tmp_path / "other.safetensors"), bands=RGB, legend=LANDCOVER)


@pytest.mark.parametrize("name", ["weights.pth", "weights.ckpt", "weights.bin"])
def test_pickles_are_not_opened(tmp_path: Path, name: str) -> None:
    """Not even looked for: the file is not there."""
    with pytest.raises(InputError, match="can run code"):
        start_from(network(), str(tmp_path / name), bands=RGB, legend=LANDCOVER)


def test_the_encoder_learns_slower_stage_by_stage() -> None:
    mine = network()
    rates: dict[str, float] = {}
    names = {id(parameter): name for name, parameter in mine.named_parameters()}
    for group in Fitted(decay=0.5).groups(mine, 1.0):
        rates |= {names[id(parameter)]: group["lr"] for parameter in group["params"]}
        assert all(parameter.ndim > 1 for parameter in group["params"]) == (group["weight_decay"] > 0)
    assert rates.keys() == dict(mine.named_parameters()).keys()
    assert rates["head.weight"] == 1.0
    deep, first = rates["encoder.model.layer1.0.conv1.weight"], rates["encoder.model.conv1.weight"]
    assert first < deep < 1.0


def test_what_is_frozen_stays_bit_for_bit() -> None:
    mine = network().train()
    fitted = Fitted(freeze=("encoder",))
    before = {name: tensor.clone() for name, tensor in mine.state_dict().items()}
    fitted.hold_still(mine)
    optimizer = torch.optim.AdamW(fitted.groups(mine, 0.1))
    mine(torch.rand(2, 3, 32, 32)).square().mean().backward()
    optimizer.step()
    changed = {name for name, tensor in mine.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert not any(name.startswith("encoder.") for name in changed)
    with pytest.raises(InputError, match="leaves nothing to fit"):
        Fitted(freeze=("encoder", "decoder", "head")).groups(mine, 0.1)
