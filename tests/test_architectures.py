"""One battery for every architecture that a card may name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from builders import small_card
from torch import nn

from geoseg.errors import InputError
from geoseg.inference.engines import OpenVinoEngine, TorchEngine
from geoseg.models import ARCHITECTURES, Architecture, CardBand, Model, build_network, load_model, save_model
from geoseg.models.architectures import DETECTORS
from geoseg.models.attention_unet import AttentionGate
from geoseg.models.receptive import is_position_independent, receptive_field
from geoseg.models.transunet import positions
from geoseg.models.upernet import PooledCells

RULES = "spectral-index"  # takes four bands and gives three classes; see test_models
RESNET = "tu-resnet18"
LEAST: dict[str, dict[str, Any]] = {
    "unet": {"encoder": RESNET, "depth": 2, "decoder_channels": [8, 8]},
    "unetplusplus": {"encoder": RESNET, "depth": 3, "decoder_channels": [8, 8, 8]},
    "attention-unet": {"encoder": RESNET, "depth": 2, "decoder_channels": [8]},
    "transunet": {"encoder": RESNET, "depth": 3, "width": 16, "layers": 1, "heads": 2, "decoder_channels": [8, 8]},
    "deeplabv3plus": {"encoder": "resnet18"},
    "deeplabv3plus-local": {"encoder": RESNET, "depth": 2, "rates": [1], "pool": 3, "channels": 8},
    "fpn": {"encoder": RESNET, "depth": 3, "pyramid_channels": 16, "channels": 8},
    "upernet": {"encoder": RESNET, "depth": 3, "channels": 8},
    "segformer": {"encoder": "tu-pvt_v2_b0", "channels": 16},
    "siamese-unet": {"encoder": RESNET, "depth": 2, "decoder_channels": [8]},
}
SIX_BANDS = {"siamese-unet"}  # three of each date
WHOLE_CHIP = {"transunet", "deeplabv3plus", "upernet", "segformer"}


def least(name: str, *, bands: int | None = None, classes: int = 6, **args: Any) -> nn.Module:
    torch.manual_seed(0)
    return build_network(name, bands=bands or channels(name), classes=classes, args=LEAST[name] | args)


def channels(name: str, bands: int = 3) -> int:
    return 2 * bands if name in SIX_BANDS else bands


def test_every_architecture_is_in_the_battery() -> None:
    assert set(LEAST) | {RULES} | set(DETECTORS) == set(ARCHITECTURES)  # detectors: test_detectors.py


@pytest.mark.parametrize("name", LEAST)
@pytest.mark.parametrize(("bands", "rows", "cols"), [(1, 3, 2), (5, 2, 5)])
def test_logits_for_every_pixel_of_odd_chips(name: str, bands: int, rows: int, cols: int) -> None:
    network = least(name, bands=channels(name, bands), classes=4)
    chips = torch.rand(2, channels(name, bands), rows * network.output_stride, cols * network.output_stride)
    with torch.inference_mode():
        logits = network(chips)
        assert logits.shape == (2, 4, *chips.shape[2:])
        assert torch.allclose(network(chips[1:]), logits[1:], atol=1e-4)  # chips of a batch do not see each other


@pytest.mark.parametrize("name", LEAST)
def test_every_parameter_learns(name: str) -> None:
    network = least(name).train()
    network(torch.randn(2, channels(name), *[2 * network.output_stride] * 2)).square().mean().backward()
    assert [key for key, value in network.named_parameters() if value.grad is None] == []


@pytest.mark.parametrize("name", LEAST)
def test_what_it_says_of_position_is_measured(name: str) -> None:
    network = least(name)
    largest = 128 if name in WHOLE_CHIP else 512
    measured = is_position_independent(
        network, bands=channels(name), output_stride=network.output_stride, largest=largest
    )
    assert network.position_independent is measured is (name not in WHOLE_CHIP)


@pytest.mark.parametrize("name", sorted(LEAST.keys() - WHOLE_CHIP))
def test_beyond_the_receptive_field_the_bits_are_the_same(name: str) -> None:
    network = least(name)
    stride = network.output_stride
    halo = -(-receptive_field(network, bands=channels(name), output_stride=stride) // stride) * stride
    chip = torch.randn(1, channels(name), 2 * halo + 4 * stride, 2 * halo + 2 * stride)
    other = chip.clone()
    other[..., : 2 * stride, :] = 7
    with torch.inference_mode():
        whole, seen = (network(each)[..., halo + 2 * stride : -halo, halo:-halo] for each in (chip, other))
        part = network(chip[..., 2 * stride :, :])[..., halo:-halo, halo:-halo]
    assert torch.equal(whole, seen)
    assert torch.allclose(whole, part, atol=1e-6)


@pytest.mark.parametrize(
    ("encoder", "is_local"),
    [
        ("tu-convnext_atto", True),
        ("mobilenet_v2", True),
        ("tu-seresnet18", False),
        ("tu-mobilenetv3_small_050", False),
        ("tu-convnextv2_atto", False),
        ("mit_b0", False),
    ],
)
def test_an_encoder_may_see_the_whole_chip(encoder: str, is_local: bool) -> None:
    depth = 5 if encoder == "mit_b0" else 3
    network = build_network(
        "unet", bands=2, classes=3, args={"encoder": encoder, "depth": depth, "decoder_channels": [8]}
    )
    assert network(torch.rand(1, 2, 64, 96)).shape == (1, 3, 64, 96)
    assert is_position_independent(network, bands=2, output_stride=2**depth, largest=256) is is_local


@pytest.mark.parametrize(
    "between", [nn.Sigmoid(), nn.Hardsigmoid(), nn.ReLU6(), nn.Hardtanh(), nn.SiLU(), nn.Hardswish()]
)
def test_what_saturates_hides_nothing(between: nn.Module) -> None:
    layers = nn.Conv2d(1, 4, 5, padding=2), between, nn.Conv2d(4, 2, 7, padding=3)
    nn.init.constant_(layers[0].weight, 100)
    assert receptive_field(nn.Sequential(*layers), bands=1, output_stride=8) == 5


@pytest.mark.parametrize("name", LEAST)
def test_a_saved_bundle_gives_the_same_answer(tmp_path: Path, name: str) -> None:
    network = least(name, bands=2)
    card = small_card(
        architecture=Architecture(name=name, args=LEAST[name]),
        bands=(CardBand(name="red"), CardBand(name="nir")),
        output_stride=network.output_stride,
        position_independent=network.position_independent,
    )
    save_model(Model(network, card), tmp_path / "m", half=False)
    again = load_model(tmp_path / "m")
    assert again.digest == Model(network, again.card).digest
    chip = torch.rand(1, 2, 64, 96)
    with torch.inference_mode():
        assert torch.equal(network(chip), again.network(chip))


@pytest.mark.parametrize(
    ("name", "args", "told"),
    [
        ("unet", {"depth": 2, "decoder_channels": [8, 8, 8]}, "depth 2 has 1 to 2 decoder blocks, not 3"),
        ("attention-unet", {"depth": 2, "decoder_channels": []}, "depth 2 has 1 to 2 decoder blocks, not 0"),
        ("unetplusplus", {"depth": 4, "decoder_channels": [8, 8]}, "depth 4 has 4 decoder_channels, not 2"),
        ("transunet", {"width": 18, "heads": 3}, "multiple of 4 and of its 3 heads; 18 is not"),
        ("fpn", {"depth": 2}, "An FPN has a depth of 3 to 5, not 2"),
        ("upernet", {"depth": 6}, "A UPerNet has a depth of 3 to 5, not 6"),
        ("segformer", {"depth": 2}, "A SegFormer has a depth of 3 to 5, not 2"),
        ("siamese-unet", {}, "as many bands of the second date as of the first, not 3"),
        ("siamese-unet", {"merge": "sum"}, "merged by concat or difference, not 'sum'"),
        ("fpn", {"encoder": "nope"}, "'fpn' cannot be built"),
        ("unet", {"encoder": "tu-hf-hub:timm/resnet18.a1_in1k"}, "is no plain name"),
        ("deeplabv3plus", {"encoder": "tu-local-dir:/tmp"}, "is no plain name"),
        ("unet", {"encoder": "tu-hrnet_w18_small"}, "takes no chips of 112 x 144 px, .* its output stride 16"),
    ],
)
def test_arguments_that_do_not_fit_are_told(name: str, args: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        build_network(name, bands=3 if "bands" in told else channels(name), classes=2, args=args)


def test_a_gate_lets_through_between_nothing_and_all() -> None:
    gate = AttentionGate(4, 6).eval()
    seen = {}
    gate.out.register_forward_pre_hook(lambda _, inputs: seen.update(gated=inputs[0]))
    features, gating = torch.rand(1, 4, 8, 12) + 0.1, torch.randn(1, 6, 4, 6)
    with torch.inference_mode():
        assert gate(features, gating).shape == features.shape
    factor = seen["gated"] / features
    assert torch.all((factor > 0) & (factor < 1))
    assert torch.allclose(factor, factor[:, :1])  # one for all channels of a pixel
    assert factor.std() > 0


def test_each_place_has_a_position_of_its_own() -> None:
    found = positions(torch.zeros(2, 16, 9, 11))
    assert found.shape == (1, 16, 9, 11)
    assert len(torch.unique(found.flatten(2)[0].T, dim=0)) == 99
    assert torch.equal(found[..., :4, :5], positions(torch.zeros(2, 16, 4, 5)))


@pytest.mark.parametrize("side", [1, 2, 3, 6])
@pytest.mark.parametrize("shape", [(6, 12), (7, 11), (2, 5), (53, 64)])
def test_pooled_cells_are_those_of_torch(side: int, shape: tuple[int, int]) -> None:
    features = torch.randn(2, 3, *shape, dtype=torch.float64)
    assert torch.allclose(PooledCells(side)(features), nn.functional.adaptive_avg_pool2d(features, side))


@pytest.mark.parametrize("name", LEAST)
def test_openvino_computes_what_torch_does(name: str) -> None:
    """On chips of two sizes, neither of them the one that was traced."""
    pytest.importorskip("openvino")
    network = least(name).eval()
    engines = TorchEngine(network, "cpu", "float32"), OpenVinoEngine(network, channels(name), "float32")
    for rows, cols in ((5, 5), (6, 9)):
        chips = torch.randn(1, channels(name), rows * network.output_stride, cols * network.output_stride)
        expected, found = (engine(chips).clone() for engine in engines)
        assert torch.allclose(found, expected, atol=1e-4 * float(expected.abs().max()))
